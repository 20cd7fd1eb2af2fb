"""What the tests of AiCache share: a model, a Redis, a model API with the policy in front."""
import contextlib

from ai_kit import OPENAI, ai_service, chat, llm_api, stream
from model_server import ModelServer
from policy_kit import outcomes
from redis_kit import RedisServer


def cache_config(redis, **more):
	return {"cacheTTL": 600, "cacheMode": "exact", "redisConfig": redis if isinstance(redis, dict) else redis.config, **more}


class Cached:
	"""A model behind the policy; `base` is where it answers."""

	def __init__(self, gw, redis, model, site=None, provider="openai", protocol=OPENAI, **more):
		self.gw, self.redis, self.model, self.site = gw, redis, model, site or gw.default
		self.service = ai_service(gw, model, provider=provider, site=self.site, protocols=[protocol])
		self.api = llm_api(gw, self.service, site=self.site, protocols=(protocol,))
		self.base = self.api.base
		self.attachment = gw.attach("AiCache", cache_config(redis, **more), to=self.api)

	def chat(self, what="Hello", **more):
		return chat(self.gw, self.base, what, site=self.site, **more)

	def stream(self, what="Hello", **more):
		return stream(self.gw, self.base, what, site=self.site, **more)

	def outcomes(self):
		return {outcome: count for (_, outcome), count in outcomes(self.gw, self.attachment).items() if count}

	@property
	def prefix(self):
		return f"sluice:aic:{self.attachment.policy.id}:{self.api.id}:"

	def keys(self):
		return self.redis.keys(f"{self.prefix}*")


@contextlib.contextmanager
def cached(gw, redis, site=None, **more):
	with ModelServer() as model:
		made = Cached(gw, redis, model, site, **more)
		yield made
		gw.delete(made.attachment)


def status_of(answer):
	return answer.header("X-Cache-Status")


def text_of(answer):
	return answer.json["choices"][0]["message"]["content"]
