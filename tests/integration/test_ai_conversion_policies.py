"""AI policies around a conversion: what they read, change and refuse is what the client speaks, whatever the model does."""
import json

import model_shapes
import pytest
from ai_kit import (ANTHROPIC, OPENAI, ModelServer, Said, Stream, Usage, ai_log, ai_service, anthropic, chat, llm_api, messages, open_chat,
	post, stream, stream_of)
from cache_kit import cache_config, status_of
from guard_kit import HIGH, SORRY, check_denied, check_stream_end, guard_config
from guard_server import GuardServer
from redis_kit import RedisServer

TOOL = {"id": "call_1", "name": "calculator", "arguments": '{"a":1}'}
PROVIDERS = {"openai client": "anthropic", "anthropic client": "openai"}
clients = pytest.mark.parametrize("client", PROVIDERS)


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


class Converted:
	"""A model API whose client speaks another API than its model."""

	def __init__(self, gw, model, client):
		self.gw, self.client = gw, client
		self.service = ai_service(gw, model, provider=PROVIDERS[client])
		self.api = llm_api(gw, self.service, protocols=(OPENAI, ANTHROPIC))

	@property
	def is_anthropic(self):
		return self.client == "anthropic client"

	def ask(self, what="Hello", **more):
		return anthropic(self.gw, self.api.base, what, **more) if self.is_anthropic else chat(self.gw, self.api.base, what, **more)

	def stream(self, what="Hello", **more):
		if not self.is_anthropic:
			return stream(self.gw, self.api.base, what, **more)
		body = {"model": "claude-3", "max_tokens": 100, "stream": True, "messages": messages(what), **more}
		return stream_of(self.gw, f"{self.api.base}/v1/messages", body)

	def text(self, answer):
		return answer.json["content"][-1]["text"] if self.is_anthropic else answer.json["choices"][0]["message"]["content"]

	def is_complete(self, read):
		return read.events[-1].name == "message_stop" if self.is_anthropic else read.is_done

	def tools(self, *names):
		return [{"name": name, "input_schema": {"type": "object"}} if self.is_anthropic else
			{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]


@clients
@pytest.mark.parametrize("is_stream", [False, True])
def test_statistics(gw, model, client, is_stream):
	"""Tokens as the model says them, and what it said; the client sees no usage that it did not ask for."""
	model.say("It is four.", reasoning="Hm.", tools=(TOOL,), usage=Usage(10, 5))
	one = Converted(gw, model, client)
	gw.attach("AiStatistics", {}, to=one.api)
	answer = one.stream("2+2?") if is_stream else one.ask("2+2?")
	log = ai_log(gw, answer)
	assert (log["input_token"], log["output_token"], log["total_token"]) == (10, 5, 15)
	assert log["question"] == "2+2?" and log["answer"] == "It is four." and log["reasoning"] == "Hm."
	assert [(call["id"], call["function"]["name"]) if "function" in call else (call["id"], call["name"]) for call in log["tool_calls"]] == \
		[("call_1", "calculator")]
	assert log["response_type"] == ("stream" if is_stream else "normal")
	if is_stream and not one.is_anthropic:
		assert all(doc["choices"] for doc in answer.docs)


@clients
def test_tools_are_selected_before(gw, model, client):
	one = Converted(gw, model, client)
	gw.attach("AiToolSelection", {"tools": [{"name": "calculator", "description": "", "enabled": True}]}, to=one.api)
	assert one.ask(tools=one.tools("calculator", "shell")).status == 200
	kept = model.last.body["tools"]
	assert [tool.get("name") or tool["function"]["name"] for tool in kept] == ["calculator"]


@clients
def test_cache_keeps_what_the_client_got(gw, model, client):
	with RedisServer() as redis:
		one = Converted(gw, model, client)
		attachment = gw.attach("AiCache", cache_config(redis), to=one.api)
		model.say("It is four.")
		assert status_of(first := one.ask("2+2?")) == "miss"
		assert status_of(again := one.ask("2+2?")) == "hit"
		assert one.text(again) == one.text(first) == "It is four."
		read = one.stream("2+3?")
		assert read.header("X-Cache-Status") == "miss" and one.is_complete(read) and read.text == "It is four."
		again = one.stream("2+3?")
		assert again.header("X-Cache-Status") == "hit" and one.is_complete(again) and again.text == "It is four."
		assert model.hits == 2
		gw.delete(attachment)


@clients
def test_guard_judges_what_the_client_would_get(gw, model, client):
	with GuardServer().flag("forbidden", **HIGH) as guard:
		one = Converted(gw, model, client)
		attachment = gw.attach("AiSecurityGuard", guard_config(guard, checkResponse=True), to=one.service)
		denied = one.ask("forbidden words")
		assert denied.header("X-Guard-Status") == "request-denied" and one.text(denied) == SORRY and model.hits == 0
		model.say("These are forbidden words.")
		denied = one.ask()
		assert denied.header("X-Guard-Status") == "response-denied" and one.text(denied) == SORRY
		read = one.stream()
		assert SORRY in read.text and "forbidden" not in read.text and one.is_complete(read)
		if not one.is_anthropic:
			check_denied(chat(gw, one.api.base, "forbidden"))
			check_stream_end(read.events)
		model.say("All is well, 你好.")
		assert one.text(one.ask()) == "All is well, 你好."
		read = one.stream()
		assert read.text == "All is well, 你好." and one.is_complete(read)
		assert not guard.errors
		gw.delete(attachment)


@clients
@pytest.mark.parametrize("how", [{"segment": 1}, {"coding": "gzip"}, {"eol": "\r\n"}, {"comments": True}, {"framing": "close"}, {"usage": "null"}])
def test_however_the_model_sends(gw, model, client, how):
	"""Single bytes, compressed although nobody asked, other line ends, comments, no usage."""
	model.say("Grüezi 你好 😀!", tools=(TOOL,))
	model.manner(**how)
	one = Converted(gw, model, client)
	read = one.stream()
	assert read.status == 200 and read.text == "Grüezi 你好 😀!" and one.is_complete(read)
	arguments = "".join(part["function"].get("arguments", "") for doc in read.docs for choice in doc.get("choices", [])
		for part in choice["delta"].get("tool_calls", [])) + "".join(doc["delta"].get("partial_json", "") for doc in read.docs
		if doc.get("type") == "content_block_delta")
	assert json.loads(arguments) == {"a": 1}


@clients
def test_a_client_that_leaves(gw, model, client):
	"""The model's connection is closed, and the gateway has nothing left of the stream."""
	one = Converted(gw, model, client)
	gw.attach("AiStatistics", {}, to=one.api)
	live = model.live()
	if one.is_anthropic:
		read = Stream(gw, f"{one.api.base}/v1/messages", {"model": "m", "max_tokens": 9, "stream": True, "messages": messages("Hello")})
	else:
		read = open_chat(gw, one.api.base, "Hello")
	live.head()
	for event in model_shapes.events(model.last.kind, Said("one two three four"), "m")[:4]:
		live.event(event)
	assert read.next()
	read.close()
	assert live.closed.wait(20)
	assert ai_log(gw, read)["llm_aborted"] is True


def test_large_requests(gw, model):
	"""A picture of some megabytes, as it is."""
	one = Converted(gw, model, "openai client")
	data = "QUJD" * (1 << 20)
	answer = one.ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]}])
	assert answer.status == 200
	assert model.last.body["messages"][0]["content"][0]["source"] == {"type": "base64", "media_type": "image/png", "data": data}


def test_half_a_character(gw, model):
	"""JavaScript clients cut texts within surrogate pairs: the half becomes U+FFFD, the rest stays."""
	one = Converted(gw, model, "openai client")
	answer = post(gw, f"{one.api.base}/v1/chat/completions", b'{"messages":[{"role":"user","content":"a\\ud83d"}]}')
	assert answer.status == 200
	assert model.last.body["messages"][0]["content"] == [{"type": "text", "text": "a\ufffd"}]


@pytest.mark.parametrize("body", [b"{no", b"", b"[]", b"7"])
def test_a_body_that_is_none_is_not_converted(gw, model, body):
	one = Converted(gw, model, "openai client")
	answer = post(gw, f"{one.api.base}/v1/chat/completions", body)
	assert answer.status >= 200
	assert model.hits == 0 or model.last.raw == body
