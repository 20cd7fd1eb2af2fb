"""AiStatistics on live traffic: ai_log in the access record, metrics, what is observed and what is left alone (contract C1)."""
import json
import time

import pytest

import model_shapes
from ai_kit import (ANTHROPIC, agent_service, agent_api, ai_log, ai_route, ai_service, anthropic, chat, chat_body, completion,
	embeddings, generation, llm_api, messages, metric, open_chat, post, record_of, responses, said_by, stream, stream_of, wait_metric)
from consumer_kit import allow, bearer, consumer, key, keys
from gw import Gateway, numbers
from guard_kit import guard_config
from guard_server import GuardServer
from h2wire import H2, head
from model_server import Event, Events, ModelServer, Nothing, Said, Usage, Whole
from policy_kit import is_enforced, outcomes, phase
from redis_kit import RedisServer
from search_kit import Engine, search_config
from wire import wait_until

FAMILY = "route_upstream_model_consumer_metric_"


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


class Measured:
	"""A model server, a model API on it, and AiStatistics attached."""

	def __init__(self, gw, config=None, **more):
		self.gw, self.model = gw, ModelServer()
		self.service = ai_service(gw, self.model, **more)
		self.api = llm_api(gw, self.service, protocols=["OpenAI/v1", ANTHROPIC])
		self.attachment = gw.attach("AiStatistics", {} if config is None else {"aiStatisticsConfig": config}, to=self.api)
		self.base = self.api.base

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.model.stop()

	def chat(self, what="Hello?", **more):
		return chat(self.gw, self.base, what, **more)

	def stream(self, what="Hello?", **more):
		return stream(self.gw, self.base, what, **more)

	def log(self, answer):
		return ai_log(self.gw, answer)

	def labels(self, **more):
		return {"ai_route": self.api.name, "ai_cluster": self.service.name, **more}

	def counter(self, name, **more):
		return metric(self.gw, FAMILY + name, **self.labels(**more))


@pytest.fixture
def one(gw):
	with Measured(gw) as made:
		yield made


# ---- the examples of the contract ----

def test_ex1_a_chat(gw, one):
	one.model.say("It is four.", usage=Usage(11, 22))
	answer = one.chat("What is 2+2?", model="gpt-4")
	assert answer.status == 200
	log = one.log(answer)
	assert (log["input_token"], log["output_token"], log["total_token"]) == (11, 22, 33)
	assert log["response_type"] == "normal" and "llm_first_token_duration" not in log and "llm_aborted" not in log
	assert log["question"] == "What is 2+2?" and log["answer"] == "It is four."
	assert log["messages"] == [{"role": "user", "content": "What is 2+2?"}]
	assert log["model"] == log["request_model"] == "gpt-4" and log["chat_round"] == 1
	assert log["api"] == one.api.name and log["usage_source"] == "upstream" and log["chat_id"] == answer.json["id"]
	assert 0 <= log["llm_service_duration"] < 60000
	assert (one.counter("input_token"), one.counter("output_token"), one.counter("total_token")) == (11, 22, 33)
	labels = {"ai_model": "gpt-4", "ai_consumer": "none"}
	assert one.counter("total_token", **labels) == 33
	assert one.counter("llm_duration_count", **labels) == 1
	assert one.counter("llm_stream_duration_count", **labels) == 0
	one.chat("Again?")
	assert one.counter("total_token", **labels) == 66


def test_ex2_a_stream_of_a_client_that_does_not_ask_for_usage(gw, one):
	one.model.say("It is four.", usage=Usage(5, 7))
	events = one.stream("What is 2+2?")
	assert one.model.last.body["stream_options"] == {"include_usage": True}
	assert all(doc["choices"] for doc in events.docs), "no chunk with empty choices"
	assert events.is_done and events.text == "It is four."
	log = one.log(events)
	assert (log["input_token"], log["output_token"], log["total_token"]) == (5, 7, 12)
	assert log["response_type"] == "stream" and log["answer"] == "It is four."
	assert one.counter("input_token") == 5 and one.counter("output_token") == 7
	assert one.counter("llm_stream_duration_count") == 1
	# One that asks sees the chunk, one that says false is left alone.
	asked = one.stream("Again?", stream_options={"include_usage": True, "x": 1})
	assert one.model.last.body["stream_options"] == {"include_usage": True, "x": 1}
	assert asked.usage["total_tokens"] == 12
	one.stream("Again?", stream_options={"include_usage": False})
	assert one.model.last.body["stream_options"] == {"include_usage": False}


@pytest.mark.parametrize("request_content", [False, True])
@pytest.mark.parametrize("response_content", [False, True])
def test_ex3_content_that_is_not_wanted(gw, request_content, response_content):
	with Measured(gw, {"logRequestContent": request_content, "logResponseContent": response_content}) as one:
		one.model.say("SAID", reasoning="THOUGHT", tools=[{"id": "t1", "name": "f", "arguments": "{\"a\":\"TOOL\"}"}], usage=Usage(3, 4))
		what = [{"role": "system", "content": "RULES"}, {"role": "user", "content": "ASKED"}]
		for answer in (one.chat(what), one.stream(what)):
			log = one.log(answer)
			assert (log["input_token"], log["output_token"], log["total_token"]) == (3, 4, 7)
			assert {"question", "messages", "system"} & set(log) == ({"question", "messages", "system"} if request_content else set())
			assert {"answer", "reasoning", "tool_calls"} & set(log) == (
				{"answer", "reasoning", "tool_calls"} if response_content else set())
			record = json.dumps(record_of(gw, answer))
			assert ("ASKED" in record, "RULES" in record) == (request_content,) * 2
			assert ("SAID" in record, "THOUGHT" in record, "TOOL" in record) == (response_content,) * 3
			if request_content:
				assert log["question"] == "ASKED" and log["system"] == "RULES" and log["messages"] == what
			if response_content:
				assert log["answer"] == "SAID" and log["reasoning"] == "THOUGHT"


def test_ex4_a_stream_of_anthropic(gw):
	with Measured(gw, provider="anthropic") as one:
		one.model.say("Hello.", usage=Usage(10, 5, cached=100))
		events = stream_of(gw, f"{one.base}/v1/messages", {"model": "claude-3", "max_tokens": 50, "stream": True,
			"messages": [{"role": "user", "content": "Hi"}]})
		assert events.status == 200
		log = one.log(events)
		assert (log["input_token"], log["output_token"], log["cached_tokens"], log["total_token"]) == (10, 5, 100, 115)
		assert log["answer"] == "Hello." and log["question"] == "Hi" and log["input_token_details"]["cached_tokens"] == 100
		assert one.counter("total_token") == 115


def test_ex5_the_first_token_is_content(gw, one):
	live = one.model.live()
	events = open_chat(gw, one.base, "Hello?")
	live.head()
	live.event({"id": "c", "model": "gpt-4", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
	live.raw(b": ping\n\n")
	assert events.next()
	began = time.monotonic()
	time.sleep(0.3)
	live.event({"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]})
	waited = (time.monotonic() - began) * 1000
	live.event("[DONE]")
	live.end()
	events.rest()
	log = one.log(events)
	assert 295 <= log["llm_first_token_duration"] <= log["llm_service_duration"]
	assert log["llm_first_token_duration"] <= waited + 2000
	wait_metric(gw, FAMILY + "llm_stream_duration_count", 1, **one.labels())
	assert one.counter("llm_first_token_duration") == log["llm_first_token_duration"]


def test_ex6_tool_calls_in_pieces(gw, one):
	def part(index, arguments, **more):
		call = {"index": index, **more, "function": {"arguments": arguments, **({"name": more["id"] + "-f"} if more else {})}}
		return Event({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})

	one.model.stream([part(0, "{\"a\"", id="t0"), part(1, "[1", id="t1"), part(0, ":"), part(1, ",2"), part(1, "]"), part(0, "1}"),
		Event("[DONE]")])
	log = one.log(one.stream("Do it."))
	assert log["tool_calls"] == [
		{"index": 0, "id": "t0", "type": "function", "function": {"name": "t0-f", "arguments": "{\"a\":1}"}},
		{"index": 1, "id": "t1", "type": "function", "function": {"name": "t1-f", "arguments": "[1,2]"}}]


def test_ex7_the_client_leaves(gw, one):
	live = one.model.live()
	events = open_chat(gw, one.base, "Tell me a long story.")
	live.head()
	for text in ("Once upon", " a time, there was"):
		live.event({"id": "c", "model": "gpt-4", "choices": [{"index": 0, "delta": {"content": text}}]})
		assert events.next()
	events.close()
	assert live.closed.wait(20), "the upstream is let go at once"
	log = one.log(events)
	assert log["llm_aborted"] is True and log["usage_source"] == "estimated"
	assert log["output_token"] == 7 and log["input_token"] == 6, "27 and 21 characters"
	assert log["total_token"] == 13 and log["answer"] == "Once upon a time, there was"
	assert len(gw.records(requestId=events.request_id)) == 1
	assert one.counter("output_token") == 7 and one.counter("input_token") == 6
	assert {what: n for (_, what), n in outcomes(gw, one.attachment).items()} == {"recorded": 1, "estimated": 1, "aborted": 1}


def test_USE7_the_client_leaves_before_the_answer_begins(gw, one):
	"""The model had the prompt: leaving early is no way around limits."""
	live = one.model.live()
	events = open_chat(gw, one.base, "Tell me a long story.")
	assert live.arrived.wait(20)
	events.close()
	assert live.closed.wait(20)
	log = one.log(events)
	assert log["llm_aborted"] is True and log["usage_source"] == "estimated"
	assert (log["input_token"], log["output_token"], log["total_token"]) == (6, 0, 6)


def test_USE7_the_client_leaves_while_the_guard_is_asked(gw, one):
	"""Nothing was sent to the model: nothing is counted."""
	with GuardServer() as guard:
		guard.hold()
		gw.attach("AiSecurityGuard", guard_config(guard), to=one.service)
		events = open_chat(gw, one.base, "Tell me a long story.")
		wait_until(lambda: guard.checks, 20, "the question to the guard")
		events.close()
		log = one.log(events)
	assert log["llm_aborted"] is True and log["usage_source"] == "none" and log["total_token"] == 0 and one.model.hits == 0


@pytest.mark.parametrize("provider, ask", [
	("openai", lambda gw, one: one.stream("How?")),
	("openai", lambda gw, one: stream_of(gw, f"{one.base}/v1/completions", {"model": "gpt-4", "prompt": "How?", "stream": True})),
	("openai", lambda gw, one: stream_of(gw, f"{one.base}/v1/responses", {"model": "gpt-4", "input": "How?", "stream": True})),
	("anthropic", lambda gw, one: stream_of(gw, f"{one.base}/v1/messages", {"model": "gpt-4", "max_tokens": 9, "stream": True,
		"messages": [{"role": "user", "content": "How?"}]})),
])
def test_ex8_a_byte_in_each_segment(gw, provider, ask):
	with Measured(gw, provider=provider) as one:
		seen = []
		for how in ({}, {"segment": 1}, {"segment": 1, "eol": "\r\n"}, {"segment": 7, "eol": "\r", "comments": True}, {"final_blank": False}):
			one.model.say("Wie geht's? \u4f60\u597d \N{GRINNING FACE} na\u00efve", usage=Usage(13, 17, cached=4)).manner(**how)
			log = one.log(ask(gw, one))
			seen.append({name: value for name, value in log.items() if not name.endswith("_duration")})
		assert seen[0]["input_token"] == 13 and seen[0]["output_token"] == 17 and seen[0]["answer"].endswith("na\u00efve")
		assert all(other == seen[0] for other in seen[1:])


# ---- what is recorded (STA-1 .. STA-4) ----

def test_the_record_of_each_api(gw):
	with ModelServer() as model:
		model.say("Said.", usage=Usage(6, 8))
		openai = llm_api(gw, ai_service(gw, model))
		gw.attach("AiStatistics", {}, to=openai)
		for answer in (completion(gw, openai.base, "Asked."), responses(gw, openai.base, "Asked."), chat(gw, openai.base, "Asked.")):
			log = ai_log(gw, answer)
			assert (log["question"], log["answer"], log["total_token"], log["chat_round"]) == ("Asked.", "Said.", 14, 1)
		log = ai_log(gw, embeddings(gw, openai.base, "Asked."))
		assert (log["input_token"], log["output_token"], log["total_token"]) == (6, 0, 6)
		assert log["question"] == "Asked." and "answer" not in log
		route = ai_route(gw, model)
		gw.attach("AiStatistics", {}, to=route)
		for answer in (anthropic(gw, route.base, "Asked."), generation(gw, route.base, "Asked."), chat(gw, route.base, "Asked.")):
			log = ai_log(gw, answer)
			assert (log["question"], log["answer"], log["total_token"]) == ("Asked.", "Said.", 14), log
			assert log["api"] == route.name
		native = stream_of(gw, f"{route.base}/api/v1/services/aigc/text-generation/generation",
			{"model": "qwen-max", "input": {"messages": [{"role": "user", "content": "Asked."}]}}, {"X-DashScope-SSE": "enable"})
		log = ai_log(gw, native)
		assert (log["answer"], log["total_token"], log["response_type"]) == ("Said.", 14, "stream")


def test_the_record_of_agents(gw):
	with ModelServer() as model:
		model.say("Said.", usage=Usage(6, 8))
		dify = agent_api(gw, agent_service(gw, model, difyConfig={"apiKey": "app-1", "botType": "chat"}), "Dify")
		gw.attach("AiStatistics", {}, to=dify)
		for answer in (post(gw, f"{dify.base}/v1/chat-messages", {"query": "Asked.", "inputs": {}, "user": "u", "response_mode": "blocking"}),
				stream_of(gw, f"{dify.base}/v1/chat-messages", {"query": "Asked.", "inputs": {}, "user": "u",
					"response_mode": "streaming"})):
			log = ai_log(gw, answer)
			assert (log["question"], log["answer"], log["input_token"], log["total_token"]) == ("Asked.", "Said.", 6, 14)
		apps = agent_api(gw, agent_service(gw, model, dashScopeConfig={"appCredentials": [{"appId": "a1", "apiKey": "k1"}]}), "DashScope")
		gw.attach("AiStatistics", {}, to=apps)
		log = ai_log(gw, post(gw, f"{apps.base}/api/v1/apps/a1/completion", {"input": {"prompt": "Asked."}}))
		assert (log["question"], log["answer"], log["total_token"]) == ("Asked.", "Said.", 14)
		assert metric(gw, "gen_ai_server_request_duration_count", gen_ai_operation_name="invoke_agent") >= 3


def test_details_sessions_and_rounds(gw, one):
	one.model.say("Said.", usage=Usage(9, 8, cached=4, reasoning=3))
	log = one.log(one.chat(messages("first", "said", "second", "said", "third"), headers={"X-Session-Id": "s-1", "X-Agent-Session": "s-2"}))
	assert log["session_id"] == "s-1" and log["chat_round"] == 3 and log["question"] == "third"
	assert log["cached_tokens"] == 4 and log["reasoning_tokens"] == 3
	assert log["input_token_details"] == {"cached_tokens": 4} and log["output_token_details"] == {"reasoning_tokens": 3}
	assert one.log(one.chat(headers={"X-Agent-Session": "s-2"}))["session_id"] == "s-2"
	assert "session_id" not in one.log(one.chat())


def test_long_texts_are_cut_between_characters(gw, one):
	one.model.say("\u00e9" * 40000 + "!")
	answer = one.chat("\u4f60" * 32001)
	log = one.log(answer)
	assert log["question"] == "\u4f60" * 32000 + "\u2026[truncated 1]"
	assert log["answer"] == "\u00e9" * 32000 + "\u2026[truncated 8001]"
	assert "messages" not in log, "longer than is recorded"
	assert log["usage_source"] == "upstream" and answer.json["choices"][0]["message"]["content"] == "\u00e9" * 40000 + "!"
	log = one.log(one.chat("x" * 32000))
	assert log["question"] == "x" * 32000 and "messages" not in log
	what = [{"role": "system", "content": "\u4f60" * 30000}, {"role": "user", "content": "q"}]
	assert one.log(one.chat(what))["system"] == "\u4f60" * 30000


def test_every_text_at_its_longest(gw, one):
	"""Worst of all: control bytes take six bytes each in the record."""
	one.model.say("\x01" * 60000, reasoning="\x02" * 60000,
		tools=[{"id": f"t{i}", "name": "f", "arguments": "\x03" * 40000} for i in range(8)])
	what = [{"role": "system", "content": "\x04" * 60000}, {"role": "user", "content": "\x05" * 60000}]
	answer = one.chat(what)
	log = one.log(answer)
	assert log["question"].startswith("\x05" * 32000) and log["answer"].startswith("\x01" * 32000)
	assert len(json.dumps(log)) <= 1024 * 1024 + 65536
	assert log["total_token"] == 33


def test_content_of_any_kind_is_valid_json(gw, one):
	nasty = "He said \"hi\\\" %s %n\r\n\t\x01\x7f</script>\u2028 \u4f60 \N{GRINNING FACE}"
	one.model.say(nasty)
	log = one.log(one.stream(nasty))
	assert log["answer"] == nasty and log["question"] == nasty


def test_names_are_cut_and_made_printable(gw, one):
	one.model.say("x", usage=Usage(1, 1))
	answer = one.chat(model="m\n\x7f" + "\u00e9" * 100)
	log = one.log(answer)
	assert log["request_model"] == "m__" + "\u00e9" * 62


# ---- what is counted (STA-6, STA-7) ----

def test_metrics_of_a_consumer_and_their_names(gw):
	with ModelServer() as model:
		model.say("One two three four.", usage=Usage(100, 5), pieces=("One", " two", " three", " four."))
		service = ai_service(gw, model)
		api = llm_api(gw, service)
		gw.attach("AiStatistics", {}, to=api)
		gw.attach("Authentication", {"authenticationType": "key-auth"}, to=api)
		secret = key()
		who = consumer(gw, apiKey=keys(secret))
		allow(gw, who, api)
		events = stream(gw, api.base, "Count.", model="gpt-of-metrics", headers=bearer(secret))
		log = ai_log(gw, events)
		assert log["consumer"] == who.name
		labels = {"ai_route": api.name, "ai_cluster": service.name, "ai_model": "gpt-of-metrics", "ai_consumer": who.name}
		for name, value in (("input_token", 100), ("output_token", 5), ("total_token", 105), ("llm_duration_count", 1),
				("llm_stream_duration_count", 1)):
			assert metric(gw, FAMILY + name, **labels) == value, name
		assert metric(gw, FAMILY + "llm_service_duration", **labels) == log["llm_service_duration"]
		assert metric(gw, FAMILY + "llm_first_token_duration", **labels) == log["llm_first_token_duration"]
		labels = {"gen_ai_request_model": "gpt-of-metrics", "gen_ai_response_model": "gpt-of-metrics", "gen_ai_operation_name": "chat",
			"gen_ai_provider_name": "openai"}
		assert metric(gw, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **labels) == 100
		assert metric(gw, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **labels) == 5
		assert metric(gw, "gen_ai_client_token_usage_bucket", gen_ai_token_type="input", le="64", **labels) == 0
		assert metric(gw, "gen_ai_client_token_usage_bucket", gen_ai_token_type="input", le="256", **labels) == 1
		for name in ("request_duration", "time_to_first_token"):
			assert metric(gw, f"gen_ai_server_{name}_count", **labels) == 1
		assert metric(gw, "gen_ai_server_time_per_output_token_count", **labels) <= 1


def test_statuses(gw, one):
	before = {status: metric(gw, "ai_request_total", status=status) for status in ("200", "503")}
	one.chat()
	one.model.fail(503)
	one.chat()
	wait_metric(gw, "ai_request_total", before["200"] + 1, status="200")
	wait_metric(gw, "ai_request_total", before["503"] + 1, status="503")


def test_the_number_of_series_is_bounded():
	with Gateway() as gw, Measured(gw) as one:
		gw.feature("ai.metrics.max_series", 7)
		one.model.say("x", usage=Usage(1, 1))
		for i in range(20):
			assert one.chat(model=f"model-{i}").status == 200
		names = {f"model-{i}" for i in range(20) if one.counter("total_token", ai_model=f"model-{i}")}
		assert 3 <= len(names) <= 4, names
		assert one.counter("total_token", ai_model="other", ai_consumer="other") == 2 * (20 - len(names))
		assert one.counter("total_token") == 40
		assert metric(gw, "gen_ai_client_token_usage_count", gen_ai_token_type="input") == 20
		# What is known goes on under its name.
		name = sorted(names)[0]
		one.chat(model=name)
		assert one.counter("total_token", ai_model=name) == 4


def test_models_that_nobody_serves_make_no_series(gw, one):
	one.model.fail(404, "no such model")
	for i in range(5):
		assert one.chat(model=f"invented-{i}").status == 404
	assert one.counter("llm_duration_count", ai_model="other") == 5
	assert one.counter("llm_duration_count") == 5


# ---- it only observes (STA-8, STA-9) ----

def test_bytes_are_those_of_the_upstream(gw, one):
	said = Said("It is four.", usage=Usage(5, 7))
	one.model.always(Events(model_shapes.events("openai.chat", said, "gpt-4")))
	events = one.stream("What?", stream_options={"include_usage": True})
	assert events.raw == said_by("openai.chat", said)
	body = b'{ "id":"x",  "choices":[{"message":{"content":"a"}}],\n "usage":{"prompt_tokens":1,"completion_tokens":2}}'
	one.model.answer(body)
	sent = chat_body("What?")
	answer = one.chat("What?")
	assert answer.body == body and one.model.last.raw == json.dumps(sent, ensure_ascii=False).encode()
	assert answer.header("Content-Length") == str(len(body))


def test_events_are_not_held_back(gw, one):
	live = one.model.live()
	events = open_chat(gw, one.base, "Hello?", stream_options={"include_usage": True})
	live.head()
	for i in range(5):
		live.event({"id": "c", "choices": [{"index": 0, "delta": {"content": str(i)}}]})
		assert events.next().json["choices"][0]["delta"]["content"] == str(i)
	live.event("[DONE]")
	live.end()
	events.rest()


def test_without_the_policy_there_is_no_record(gw):
	with ModelServer() as model:
		api = llm_api(gw, ai_service(gw, model))
		assert "ai_log" not in record_of(gw, chat(gw, api.base, "Hello?"))
		off = gw.attach("AiStatistics", {"enable": False}, to=api)
		assert phase(gw, off) == "Disabled"
		events = stream(gw, api.base, "Hello?")
		assert "ai_log" not in record_of(gw, events) and "stream_options" not in model.last.body


def test_it_acts(gw, one):
	assert is_enforced(gw, "AiStatistics") and phase(gw, one.attachment) == "Active"


# ---- all exits (STA-10) ----

def test_errors_of_the_upstream(gw, one):
	one.model.fail(500, "broken")
	log = one.log(one.chat())
	assert (log["input_token"], log["output_token"], log["total_token"], log["usage_source"]) == (0, 0, 0, "none")
	assert log["question"] == "Hello?" and log["response_type"] == "normal"
	one.model.answer({"error": {"message": "no"}, "usage": {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4}}, status=400)
	assert one.log(one.chat())["total_token"] == 4, "what the body says counts"
	one.model.always(Nothing())
	answer = one.chat()
	assert answer.status in (502, 503)
	assert one.log(answer)["total_token"] == 0


def test_requests_that_are_refused(gw, one):
	service = ai_service(gw, one.model)
	api = llm_api(gw, {"service": service, "modelNamePattern": "gpt-*"})
	gw.attach("AiStatistics", {}, to=api)
	answer = chat(gw, api.base, "Hello?", model="claude-3")
	assert answer.status == 404
	log = ai_log(gw, answer)
	assert log["request_model"] == "claude-3" and log["total_token"] == 0 and log["question"] == "Hello?"
	answer = post(gw, f"{api.base}/v1/chat/completions", b"{not json")
	assert ai_log(gw, answer)["parse_error"] is True
	site = gw.gateway()
	gw.feature("ai.max_request_body", 2048, site=site)
	small = llm_api(gw, ai_service(gw, one.model, site=site), site=site)
	gw.attach("AiStatistics", {}, to=small)
	answer = chat(gw, small.base, "x" * 4000, site=site)
	assert answer.status == 413
	log = ai_log(gw, answer)
	assert log["api"] == small.name and "llm_service_duration" in log


def test_streams_that_break_off(gw, one):
	one.model.say("One two three four.", usage=Usage(5, 7)).manner(cut_after=3)
	log = one.log(one.stream())
	assert log["usage_source"] == "estimated" and log["output_token"] > 0 and "llm_aborted" not in log
	one.model.manner(error_after=2)
	log = one.log(one.stream())
	assert log["output_token"] > 0
	one.model.manner(empty=True)
	assert one.log(one.stream())["output_token"] == 0


def test_usage_that_is_missing(gw, one):
	before = metric(gw, "ai_usage_missing_total")
	for how in ({"usage": "absent"}, {"usage": "null"}):
		one.model.say("Hello there", usage=Usage(5, 7)).manner(**how)
		for answer in (one.chat("Hello?"), one.stream("Hello?")):
			log = one.log(answer)
			assert (log["input_token"], log["output_token"], log["usage_source"]) == (2, 3, "estimated")
	wait_metric(gw, "ai_usage_missing_total", before + 4)
	one.model.say("\u4f60\u597d!").manner(usage="absent")
	assert one.log(one.chat("\u4f60\u597d"))["output_token"] == 3


def test_requests_that_are_none_to_a_model(gw):
	with ModelServer() as model:
		model.answer({"any": "thing"})
		route = ai_route(gw, model)
		gw.attach("AiStatistics", {}, to=route)
		answer = gw.get(f"{route.base}/size/1", {"X-Request-Id": f"plain-{next(numbers)}-x"})
		assert answer.status == 200
		log = gw.wait_record(10, path=f"{route.base}/size/1")["ai_log"]
		assert set(log) == {"api", "llm_service_duration", "response_type"}
		answer = post(gw, f"{route.base}/v1/chat/completions", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"})
		assert "input_token" not in ai_log(gw, answer)


# ---- traps ----

@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_answers_that_are_compressed_all_the_same(gw, one, coding):
	one.model.say("Packed.", usage=Usage(21, 4)).manner(coding=coding)
	for answer in (one.chat(), one.stream()):
		log = one.log(answer)
		assert (log["input_token"], log["output_token"], log["usage_source"], log["answer"]) == (21, 4, "upstream", "Packed.")
	assert one.model.last.header("Accept-Encoding") == "identity"
	one.model.say("Packed.", usage=Usage(21, 4)).manner(coding=coding, segment=1)
	assert one.log(one.stream())["total_token"] == 25


def test_an_encoding_that_nobody_knows(gw, one):
	one.model.say("Packed.", usage=Usage(21, 4)).manner(coding="rot13")
	for answer in (one.chat(), one.stream()):
		assert answer.status == 200
		assert one.log(answer)["usage_source"] in ("estimated", "upstream")


def test_usage_that_comes_several_times_is_not_added_up(gw, one):
	one.model.say("One two three.", usage=Usage(5, 7)).manner(usage="every")
	log = one.log(one.stream())
	assert (log["input_token"], log["output_token"], log["total_token"]) == (5, 7, 12)


@pytest.mark.parametrize("incremental, pieces, text", [
	(True, ["1", "10", "100"], "110100"), (False, ["1", "10", "100"], "100"), (None, ["1", "10", "100"], "100"),
	(None, ["ha", "ha", "haha"], "hahahaha"),
])
def test_streams_of_dashscope_that_repeat_themselves(gw, incremental, pieces, text):
	with ModelServer() as model:
		route = ai_route(gw, model)
		gw.attach("AiStatistics", {}, to=route)
		model.stream([Event({"output": {"choices": [{"message": {"content": piece}, "finish_reason": "null"}]}}, name="result")
			for piece in pieces] + [Event({"output": {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}})])
		parameters = {} if incremental is None else {"incremental_output": incremental}
		events = stream_of(gw, f"{route.base}/api/v1/services/aigc/text-generation/generation", {"model": "qwen-max",
			"input": {"prompt": "Count."}, "parameters": parameters}, {"X-DashScope-SSE": "enable"})
		log = ai_log(gw, events)
		assert log["answer"] == text and log["output_token"] == (len(text) + 3) // 4


def test_what_rerank_and_images_cost(gw, one):
	one.model.answer({"model": "rank", "results": [], "usage": {"total_tokens": 79}})
	answer = post(gw, f"{one.base}/v1/rerank", {"model": "rank", "query": "q", "documents": ["a", "b"]})
	assert answer.json["usage"] == {"total_tokens": 79}
	log = one.log(answer)
	assert (log["total_token"], log["model"], log["usage_source"]) == (79, "rank", "upstream")
	assert one.counter("total_token", ai_model="rank") == 79
	picture = {"data": [{"b64_json": "A" * (3 << 20)}], "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}
	one.model.answer(picture)
	answer = post(gw, f"{one.base}/v1/images/generations", {"model": "paint", "prompt": "p"})
	assert answer.json == picture and "total_token" not in one.log(answer), "too long to be read"
	one.model.answer({**picture, "data": []})
	assert one.log(post(gw, f"{one.base}/v1/images/generations", {"model": "paint", "prompt": "p"}))["total_token"] == 3
	one.model.answer(b"\x00\x01", content_type="audio/mpeg")
	answer = post(gw, f"{one.base}/v1/audio/speech", {"model": "speak", "input": "p"})
	assert answer.body == b"\x00\x01" and "total_token" not in one.log(answer)


def test_an_event_that_is_too_long(gw, one):
	"""It passes on; what it cost is estimated."""
	one.model.stream([Event({"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}}]}),
		Event({"id": "c", "choices": [{"index": 0, "delta": {"content": "x" * (1024 * 1024 + 100)}}]}), Event("[DONE]")])
	events = one.stream(stream_options={"include_usage": True})
	assert events.is_done and len(events.text) == 1024 * 1024 + 101
	assert one.log(events)["usage_source"] == "estimated"


def test_a_prompt_of_very_many_words(gw, one):
	text = "word " * 200000
	log = one.log(one.chat(text))
	assert log["question"] == text[:32000] + f"\u2026[truncated {len(text) - 32000}]" and "messages" not in log


def test_memory_is_flat_over_many_events(gw, one):
	one.model.stream([Event({"id": "c", "choices": [{"index": 0, "delta": {"content": f"word {i} "}}]}) for i in range(3000)]
		+ [Event("[DONE]")])
	for _ in range(5):
		one.stream()
	before = gw.rss_kb()
	for _ in range(30):
		events = one.stream()
		assert events.is_done and len(events.events) == 3001
	assert gw.rss_kb() - before < 24 * 1024, "90,000 events"


def test_http2_is_the_same(gw, one):
	one.model.say("It is four.", usage=Usage(5, 7))
	seen = [one.log(one.stream("What is 2+2?"))]
	with H2(gw.default.port) as peer:
		request_id = f"h2-{next(numbers)}-of-statistics"
		body = json.dumps(chat_body("What is 2+2?", stream=True)).encode()
		answer = peer.request(head(f"{one.base}/v1/chat/completions", "POST", more=[("content-type", "application/json"),
			("x-request-id", request_id)]), body)
		assert answer.status == 200 and b"[DONE]" in answer.body
	seen.append(ai_log(gw, request_id))
	assert [{name: value for name, value in log.items() if not name.endswith("_duration")} for log in seen] == 2 * [
		{name: value for name, value in seen[0].items() if not name.endswith("_duration")}]


# ---- together with the others (Part D) ----

def test_all_seven_on_one_api(gw):
	"""A stream goes through all of them, and the record says what each did."""
	with ModelServer() as first, ModelServer() as second, GuardServer() as guard, Engine() as engine, RedisServer() as redis:
		first.say("It is four.", usage=Usage(50, 7))
		second.say("It is six.", usage=Usage(50, 7))
		primary, backup = ai_service(gw, first), ai_service(gw, second)
		for service in (primary, backup):
			gw.attach("AiSecurityGuard", {"serviceAddress": guard.url, "checkRequest": True, "checkResponse": True,
				"riskAlertLevel": "high"}, to=service)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "gpt-4", "fallbackModels": [
			{"serviceId": backup.id, "model": "backup-model"}]}]}, to=primary)
		api = llm_api(gw, primary)
		gw.attach("AiStatistics", {}, to=api)
		gw.attach("AiCache", {"cacheTTL": 600, "cacheMode": "exact", "redisConfig": redis.config}, to=api)
		gw.attach("AiTokenRateLimit", {"rules": [{"limitType": "LimitByConsumer", "threshold": 100, "timeWindow": 600}],
			"redisConfig": redis.config}, to=api)
		gw.attach("AiNetworkSearch", search_config(engine), to=api)
		gw.attach("AiToolSelection", {"tools": [{"name": "calculator", "description": "", "enabled": True},
			{"name": "shell", "description": "", "enabled": False}]}, to=api)
		tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("calculator", "shell")]
		asked = stream(gw, api.base, "What is 2+2?", tools=tools)
		assert asked.status == 200 and asked.text == "It is four." and asked.is_done
		assert all(doc["choices"] for doc in asked.docs)
		log = ai_log(gw, asked)
		assert (log["input_token"], log["output_token"], log["total_token"]) == (50, 7, 57)
		assert log["cache_status"] == "miss" and log["search_status"] == "ok" and log["search_results"] > 0 and log["search_rt"] >= 0
		assert (log["tools_in"], log["tools_out"]) == (2, 1) and "fallback_from" not in log
		assert log["safecheck_status"] == "response pass" and log["safecheck_request_rt"] >= 0 and log["safecheck_response_rt"] >= 0
		assert log["question"] == "What is 2+2?", "the client's, not what the search made of it"
		assert log["model"] == log["request_model"] == "gpt-4" and log["answer"] == "It is four."
		assert metric(gw, FAMILY + "total_token", ai_route=api.name, ai_cluster=primary.name, ai_model="gpt-4") == 57
		# The same again comes from the cache, costs nothing, and is asked of nobody.
		calls = (first.hits, second.hits, len(engine.asked))
		again = stream(gw, api.base, "What is 2+2?", tools=tools)
		assert (again.header("X-Cache-Status"), again.text) == ("hit", "It is four.")
		assert calls == (first.hits, second.hits, len(engine.asked))
		log = ai_log(gw, again)
		assert (log["cache_status"], log["total_token"], log["response_type"]) == ("hit", 0, "stream")
		assert log["usage_source"] == "none" and log["question"] == "What is 2+2?"
		# Another question, of a service that fails.
		first.fail(503)
		other = stream(gw, api.base, "And 3+3?", tools=tools)
		assert other.text == "It is six."
		log = ai_log(gw, other)
		assert log["fallback_from"] == primary.id and log["request_model"] == "gpt-4" and log["model"] == "backup-model"
		assert (log["cache_status"], log["total_token"]) == ("miss", 57)
		assert metric(gw, FAMILY + "total_token", ai_route=api.name, ai_cluster=backup.name, ai_model="backup-model") == 57
		# The next one is over the limit by now.
		refused = chat(gw, api.base, "And 4+4?")
		assert refused.status == 429
		log = ai_log(gw, refused)
		assert (log["token_ratelimit_status"], log["total_token"], log["response_type"]) == ("limited", 0, "normal")
		assert metric(gw, FAMILY + "total_token", ai_route=api.name) == 114


# ---- configurations that are refused ----

@pytest.mark.parametrize("config, field", [
	({"enable": "true"}, "config.enable"),
	({"enable": True, "aiStatisticsConfig": []}, "config.aiStatisticsConfig"),
	({"enable": True, "aiStatisticsConfig": "x"}, "config.aiStatisticsConfig"),
	({"enable": True, "aiStatisticsConfig": {"logRequestContent": 1}}, "config.aiStatisticsConfig.logRequestContent"),
	({"enable": True, "aiStatisticsConfig": {"logResponseContent": "false"}}, "config.aiStatisticsConfig.logResponseContent"),
	({"enable": True, "aiStatisticsConfig": {"logAll": True}}, "config.aiStatisticsConfig.logAll"),
	({"aiStatisticsConfig": {}}, "config.enable"),
])
def test_what_is_refused(gw, config, field):
	status, answer, _ = gw.api("POST", "/api/v2/policies", {"name": f"no-{next(numbers)}", "className": "AiStatistics",
		"config": json.dumps(config)})
	assert status == 400 and answer["errorCode"] == "ErrInvalidParameter"
	assert answer["errorMessage"].startswith(f"Invalid parameter: {field}"), answer
