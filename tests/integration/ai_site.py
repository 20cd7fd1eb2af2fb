"""A model API with all seven policies for models, with real Redis and PostgreSQL behind them, and the three ledgers of what it cost: the
records, Redis' counters, the metrics.

    with contextlib.ExitStack() as stack:
        site = Site(gw, redis, store, stack)
        answer = chat(gw, site.base, "do:cut question")     # the model does as the question says
        check_ledgers(site, [answer.request_id])
"""
import hashlib
import random
import re

from ai_kit import ModelServer, Usage, ai_log, ai_service, llm_api, metric
from guard_kit import HIGH, guard_config
from guard_server import GuardServer
from search_kit import Engine, search_config
from semantic_kit import Embeddings, semantic
from wire import wait_until

TOTAL = "route_upstream_model_consumer_metric_total_token"
TEXT = "It is said word by word, and then some more of it. " * 4


class Meanings:
	"""Every text has a vector of its own, far from all others."""

	def get(self, text, _=None):
		numbers = random.Random(hashlib.sha256(text.encode()).digest())
		return [numbers.gauss(0, 1) for _ in range(64)]


class Site:
	"""A model API with everything on it. `target`: where its model is, one of this site's own where it is not said."""

	def __init__(self, gw, redis, store, stack, target=None):
		self.gw, self.redis, self.store, enter = gw, redis, store, stack.enter_context
		self.first, self.backup = enter(ModelServer()), enter(ModelServer("From the backup."))
		self.guard, self.engine, self.embedder = enter(GuardServer()), enter(Engine()), enter(Embeddings())
		self.embedder.vectors = Meanings()
		self.guard.flag("forbidden", **HIGH).flag("poison", **HIGH)
		self.first.always(self.answer)
		gw.feature("ai.token_limit.wait_ms", 1000)
		gw.feature("ai.guard.timeout_ms", 20000)
		self.primary, self.second = ai_service(gw, target or self.first), ai_service(gw, self.backup)
		self.api = llm_api(gw, self.primary)
		self.base = self.api.base
		self.attach(ai_service(gw, self.embedder.url, provider="dashscope", keys=["sk-embedding"]))

	def attach(self, embedding):
		gw, to = self.gw, self.api
		gw.attach("AiStatistics", {}, to)
		rule = {"limitType": "LimitByGlobal", "threshold": 10**9, "timeWindow": 86400}
		self.limit = gw.attach("AiTokenRateLimit", {"enableGlobalRules": True, "globalRules": [rule], "redisConfig": self.redis.config}, to)
		candidates = [{"serviceId": self.second.id, "model": "backup"}]
		self.others = [
			("AiCache", semantic(self.redis, self.store.address, self.store.key, embedding), to),
			("AiToolSelection", {"tools": [{"name": "look_up", "description": "", "enabled": True}]}, to),
			("AiNetworkSearch", search_config(self.engine), to),
			("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": candidates}]}, self.primary),
			("AiSecurityGuard", guard_config(self.guard, checkResponse=True), self.primary),
		]
		self.attached = {name: gw.attach(name, config, to) for name, config, to in self.others}
		self.cache = self.attached["AiCache"]

	def attach_again(self, name):
		"""Without it for a moment: requests under way go on with what they began with."""
		self.gw.delete(self.attached[name])
		config, to = next((config, to) for other, config, to in self.others if other == name)
		self.attached[name] = self.gw.attach(name, config, to)

	def answer(self, request):
		"""As the question says."""
		manner = {"cut": {"cut_after": 3}, "reset": {"cut_after": 4, "reset": True}, "errs": {"error_first": True},
			"breaks": {"error_after": 4}, "absent": {"usage": "absent"}, "null": {"usage": "null"}, "zipped": {"coding": "gzip"},
			"bytes": {"segment": 7}, "leave": {"event_delay": 0.02}, "gone": {"first_delay": 0.3}}
		found = re.findall(rb"do:(\w+)", request.raw)
		what = found[-1].decode() if found else ""
		if what == "fails":
			return self.first.failure(503)
		usage = None if what in ("absent", "null") else Usage(11, 22)
		return self.first.saying(TEXT + "poison " * (what == "taints") + TEXT, manner.get(what, {}), usage=usage)

	def used(self):
		return sum(int(self.redis("GET", key) or 0) for key in self.redis.keys(f"sluice:trl:{{{self.limit.policy.id}:*"))

	def postgres_connections(self):
		return int(self.store.run("SELECT count(*) FROM pg_stat_activity WHERE application_name <> 'psql' AND backend_type = 'client backend'")[0][0])

	def redis_connections(self):
		return len([line for line in self.redis("CLIENT", "LIST").split("\n") if line and "cmd=client" not in line])

	def spent(self):
		"""By the metrics."""
		return metric(self.gw, TOTAL, ai_route=self.api.name)


def check_ledgers(site, total):
	"""All of them say that so many tokens were used since the site is there."""
	wait_until(lambda: site.used() == total, 30, f"{total} tokens in Redis")
	assert site.spent() == total


def check_settled(site, before, *answers):
	"""What the records of these answers say was added to what `before`, spent(), said."""
	total = before + sum(ai_log(site.gw, answer).get("total_token", 0) for answer in answers)
	check_ledgers(site, total)
	return total - before
