"""The model server of the tests is what it claims to be: what it sends can be read by others, and every misbehaviour is one."""
import gzip
import json
import subprocess
import zlib

import pytest
from ai_kit import ai_route, chat, chat_body, client, messages, open_chat, post, record_of, stream, stream_of
from model_server import Events, Model, ModelServer, Nothing, Said, Usage, Whole
from model_shapes import BAD_BODIES, BAD_EVENTS, KINDS, Event, events, whole
from wire import Closed, Connection, wait_until


class Direct:
	"""The model server asked without a gateway."""

	def __init__(self, model):
		self.model = model

	def connect(self, site=None, **options):
		return Connection(self.model.port, **options)

	def request(self, method, target, headers=(), body=None, site=None, **options):
		with self.connect() as connection:
			return connection.request(method, target, headers, body, **options)


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


@pytest.fixture
def direct(model):
	return Direct(model)


PATHS = {"openai.chat": "/v1/chat/completions", "openai.completions": "/v1/completions", "openai.responses": "/v1/responses",
	"openai.embeddings": "/v1/embeddings", "anthropic.messages": "/v1/messages",
	"dashscope.generation": "/api/v1/services/aigc/text-generation/generation", "dashscope.app": "/api/v1/apps/app-1/completion",
	"dify.chat": "/v1/chat-messages", "dify.completion": "/v1/completion-messages", "dify.workflow": "/v1/workflows/run"}
ASKING = {"dashscope.generation": {"input": {"messages": messages("hi")}, "parameters": {"incremental_output": True}},
	"dashscope.app": {"input": {"prompt": "hi"}, "parameters": {"incremental_output": True}}}


def ask_stream(kind):
	"""(body, headers) that ask for events in this API."""
	body = {"model": "m-1", "stream": True, "response_mode": "streaming", "input": "hi", "query": "hi", "messages": messages("hi"),
		**ASKING.get(kind, {})}
	return body, {"X-DashScope-SSE": "enable"} if kind.startswith("dashscope") else {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_api_is_answered_whole(kind, model, direct):
	answer = post(direct, PATHS[kind], {"model": "m-1", "input": "hi", "messages": messages("hi")})
	assert answer.status == 200 and answer.header("Content-Type") == "application/json"
	assert model.last.kind == kind
	assert kind == "openai.embeddings" or "Hello from the model." in answer.body.decode()
	assert answer.json == whole(kind, Said(), "m-1", {"input": "hi"})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "openai.embeddings"])
@pytest.mark.parametrize("manner", [{}, {"segment": 1}, {"eol": "\r\n"}, {"comments": True}, {"framing": "close"}, {"framing": "length"},
	{"event_delay": 0.001, "pings": True}], ids=str)
def test_every_api_streams(kind, manner, model, direct):
	body, headers = ask_stream(kind)
	model.manner(**manner)
	connection = direct.connect()
	connection.start("POST", PATHS[kind], {"Content-Type": "application/json", **headers}, json.dumps(body).encode())
	answer = connection.read_response("POST")
	assert answer.header("Content-Type") == "text/event-stream"
	assert "Hello" in answer.body.decode() and "model." in answer.body.decode()
	ends = {"openai": b"[DONE]", "anthropic": b"message_stop", "dashscope": b'"finish_reason":"stop"', "dify": b'_end"'}
	if kind not in ("openai.responses", "dify.workflow"):
		assert ends[kind.split(".")[0]] in answer.body
	connection.close()


def test_a_stream_is_read_as_text(model, direct):
	model.say("Grüße, 世界! bye", reasoning="so so", usage=Usage(5, 7))
	found = stream(direct, "", "hi", stream_options={"include_usage": True})
	assert found.text == "Grüße, 世界! bye" and found.is_done and found.usage["total_tokens"] == 12
	assert stream(direct, "", "hi").usage is None


@pytest.mark.parametrize("style, count", [("absent", 0), ("null", 0), ("every", 6), ("final", 1)])
def test_usage_stands_where_it_is_told(style, count, model, direct):
	model.manner(usage=style)
	found = stream(direct, "", "hi", stream_options={"include_usage": True})
	assert len([doc for doc in found.docs if doc.get("usage")]) == count
	assert (style == "null") == (all("usage" in doc and doc["usage"] is None for doc in found.docs))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_codings_are_read_by_others(coding, model, direct):
	text = "long " * 40000
	model.say(text, pieces=(text,)).manner(coding=coding)
	for answer in (chat(direct, "", "hi"), post(direct, "/v1/chat/completions", chat_body("hi", stream=True))):
		assert answer.header("Content-Encoding") == coding
		if coding == "br":
			program = "process.stdout.write(require('zlib').brotliDecompressSync(require('fs').readFileSync(0)))"
			plain = subprocess.run(["node", "-e", program], input=answer.body, capture_output=True, check=True).stdout
		else:
			plain = gzip.decompress(answer.body) if coding == "gzip" else zlib.decompress(answer.body)
		assert text.encode() in plain


def test_misbehaviour(model, direct):
	model.manner(error_first=True)
	found = stream(direct, "", "hi")
	assert found.status == 200 and len(found.events) == 1 and found.events[0].json["error"]
	model.manner(error_after=2)
	found = stream(direct, "", "hi")
	assert len(found.events) == 3 and found.events[2].json["error"] and not found.is_cut
	model.manner(empty=True)
	found = stream(direct, "", "hi")
	assert found.status == 200 and found.raw == b""
	model.manner(cut_after=2)
	found = stream(direct, "", "hi")
	assert len(found.events) == 2 and found.is_cut
	model.manner(final_blank=False)
	found = stream(direct, "", "hi")
	assert not found.is_cut and found.pending == b"data: [DONE]\n"
	model.manner(has_end=False)
	assert not stream(direct, "", "hi").is_done
	model.manner(cut_bytes=10)
	with pytest.raises(Closed):
		chat(direct, "", "hi")
	model.manner().then(Nothing())
	with pytest.raises(Closed):
		chat(direct, "", "hi")
	model.then(model.failure(429, "slow down", "rate_limit_exceeded", fields=[("Retry-After", "7")]))
	answer = chat(direct, "", "hi")
	assert (answer.status, answer.json["error"]["message"], answer.header("Retry-After")) == (429, "slow down", "7")


def test_endless_events_end_when_nobody_reads(model, direct):
	model.manner(endless=True)
	with open_chat(direct, "", "hi") as found:
		for _ in range(20):
			assert found.next()
	wait_until(lambda: model.lost == 1, what="the end of a stream that nobody reads")


def test_a_live_answer(model, direct):
	live = model.live()
	with open_chat(direct, "", "hi") as found:
		assert live.asked().model == "gpt-4"
		live.head().event({"choices": [{"delta": {"content": "a"}}]})
		assert found.next().json["choices"]
		live.event("[DONE]").end()
		assert found.next().data == "[DONE]" and found.next() is None
	live = model.live()
	with open_chat(direct, "", "hi"):
		live.head()
	assert live.closed.wait(10)


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_pass_a_plain_route(name, gw, model):
	"""Without a policy that reads it an answer goes on as it is."""
	model.answer(BAD_BODIES[name])
	assert chat(gw, ai_route(gw, model).base, "hi").body == BAD_BODIES[name]


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_bad_events_pass_a_plain_route(name, gw, model):
	model.stream([BAD_EVENTS[name]])
	assert stream(gw, ai_route(gw, model).base, "hi").raw == BAD_EVENTS[name]


def test_a_plain_route_passes_models_through(gw, model):
	at = ai_route(gw, model).base
	answer = chat(gw, at, "hi")
	assert answer.json["usage"] == {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
	assert record_of(gw, answer)["status"] == 200
	found = stream(gw, at, "hi")
	assert found.raw == b"".join(event.encode() for event in events("openai.chat", Said(), "gpt-4"))
	model.then(Whole(b"{}", 201), Events([Event("x")]), Model(Said("other")))
	assert chat(gw, at, "hi").status == 201
	assert [event.data for event in stream_of(gw, f"{at}/v1/chat/completions", chat_body("hi")).events] == ["x"]
	assert chat(gw, at, "hi").json["choices"][0]["message"]["content"] == "other"
	model.stop()
	assert chat(gw, at, "hi").status == 503


TOOL = {"type": "function", "function": {"name": "look_up", "description": "", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name, call, base", [("openai", "chat", "/v1"), ("openai", "responses", "/v1"), ("openai", "completions", "/v1"),
	("anthropic", "messages", ""), ("ai", "chat", "/v1"), ("ai", "responses", "/v1"), ("ai-anthropic", "messages", "/v1")])
def test_real_clients_understand_it(name, call, base, is_stream, model):
	"""Without a gateway between: what they do not understand through it is the gateway's doing."""
	model.say("Hi there.", tools=[{"id": "call-1", "name": "look_up", "arguments": '{"a":1}'}])
	body = {"model": "m-1", "messages": messages("hi")}
	if name == "openai" and call != "chat":
		body = {"model": "m-1", "prompt" if call == "completions" else "input": "hi"}
	elif name.startswith("ai"):
		body["tools"] = [TOOL]
	found = client(name, base, model.port, call=call, stream=is_stream, body=body)
	assert "error" not in found and found["text"] == "Hi there." and found["model"] == "m-1", found
	assert not is_stream or found["events"] >= 2
	if name != "openai" or call == "chat":
		assert found["tools"] == [{"id": "call-1", "name": "look_up", "arguments": '{"a":1}'}]


def test_a_real_client_reads_vectors(model):
	found = client("openai", "/v1", model.port, call="embeddings", body={"model": "m-1", "input": "hi"})
	assert len(found["data"][0]["embedding"]) == 8 and abs(sum(one * one for one in found["data"][0]["embedding"]) - 1) < 1e-5
