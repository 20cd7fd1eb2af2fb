"""What the tests of AiSecurityGuard share: a service with a guard, a model API in front of it, and how refusals look."""
import contextlib

from ai_kit import OPENAI, ai_service, chat, llm_api, open_chat, stream
from guard_server import GuardServer, level_data
from model_server import ModelServer, Said
from policy_kit import outcomes
from wire import wait_until

SORRY = "Sorry, I cannot answer this question."
HIGH = level_data("high")


def guard_config(guard, **more):
	url = guard if isinstance(guard, str) else guard.url
	return {"serviceAddress": url, "checkRequest": True, "checkResponse": False, "riskAlertLevel": "high", **more}


class Guarded:
	"""A model, its guard, and a model API in front; `base` is where it answers."""

	def __init__(self, gw, guard, model, site, protocol, provider, **more):
		self.gw, self.guard, self.model, self.site = gw, guard, model, site or gw.default
		self.service = ai_service(gw, model, provider=provider, site=self.site)
		self.attachment = gw.attach("AiSecurityGuard", guard_config(guard, **more), to=self.service)
		self.api = llm_api(gw, self.service, site=self.site, protocols=(protocol,))
		self.base = self.api.base

	def chat(self, what="Hello", **more):
		return chat(self.gw, self.base, what, site=self.site, **more)

	def open(self, what="Hello", **more):
		return open_chat(self.gw, self.base, what, site=self.site, **more)

	def stream(self, what="Hello", **more):
		return stream(self.gw, self.base, what, site=self.site, **more)

	def outcomes(self):
		return {outcome: count for (_, outcome), count in outcomes(self.gw, self.attachment).items() if count}


@contextlib.contextmanager
def guarded(gw, guard=None, site=None, protocol=OPENAI, provider="openai", **more):
	with (guard or GuardServer()) as guard, ModelServer() as model:
		made = Guarded(gw, guard, model, site, protocol, provider, **more)
		yield made
		gw.delete(made.attachment)    # the next test's guard may get the same port


def both(**more):
	return {"checkRequest": True, "checkResponse": True, **more}


def answers(**more):
	return {"checkRequest": False, "checkResponse": True, **more}


def events_of(gw, name, answer):
	"""Log events of one request, which has at least one."""
	return wait_until(lambda: [event for event in gw.events(name) if event["requestId"] == answer.request_id], 10, name)


def matched(gw, answer):
	return events_of(gw, "guard.matched", answer)


def check_denied(answer, text=SORRY, side="request-denied"):
	"""A chat completion that says no, as SDKs take it."""
	assert answer.status == 200, answer
	assert answer.header("X-Guard-Status") == side
	assert answer.header("Content-Type") == "application/json"
	doc = answer.json
	assert (doc["object"], doc["model"]) == ("chat.completion", "gpt-4")
	assert len(doc["choices"]) == 1
	choice = doc["choices"][0]
	assert (choice["message"]["role"], choice["message"]["content"], choice["finish_reason"]) == ("assistant", text, "content_filter")
	assert (doc["usage"]["prompt_tokens"], doc["usage"]["completion_tokens"], doc["usage"]["total_tokens"]) == (0, 0, 0)


def check_stream_end(events, text=SORRY):
	"""The last events of a chat stream are a denial: one delta, the reason, [DONE]."""
	assert events[-1].data == "[DONE]"
	said, end = events[-3].json, events[-2].json
	assert said["choices"][0]["delta"]["content"] == text and said["choices"][0]["finish_reason"] is None
	assert end["choices"][0]["finish_reason"] == "content_filter" and not end["choices"][0]["delta"]
	assert said["object"] == end["object"] == "chat.completion.chunk"


def text_of(n, start=0):
	"""n characters that are all different enough to find a place in them."""
	return "".join(chr(0x4e00 + (start + i) % 20000) for i in range(n))


def said_in(text, size=50):
	return Said(text, pieces=tuple(text[at:at + size] for at in range(0, len(text), size)))


def chunk(finish=None, **delta):
	return {"id": "answer-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-4",
		"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def event_with_text(got):
	while event := got.next():
		doc = event.json
		if doc and doc["choices"] and doc["choices"][0]["delta"].get("content"):
			return doc["choices"][0]["delta"]["content"]
	return None
