"""Clients of OpenAI and Anthropic, and the ai SDK, with sluice as their base URL (seconds: 600).

Whole answers and streams, errors, aborts, other APIs behind them, policies between.
"""
import contextlib
import threading

import pytest
from ai_kit import (ANTHROPIC, DASHSCOPE, OPENAI, ModelServer, Usage, ai_service, chat, client, llm_api, messages)
from policy_kit import rate
from wire import wait_until

TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object",
	"properties": {"a": {"type": "number"}}}}}
CALL = {"id": "call-1", "name": "look_up", "arguments": '{"a":1}'}
# client, call, what its base URL ends in
CLIENTS = [("openai", "chat", "/v1"), ("openai", "helper", "/v1"), ("openai", "completions", "/v1"), ("openai", "responses", "/v1"),
	("anthropic", "messages", ""), ("ai", "chat", "/v1"), ("ai", "responses", "/v1"), ("ai-anthropic", "messages", "/v1")]


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


def body_of(name, call, model="gpt-4", **more):
	if name == "openai" and call in ("completions", "responses"):
		return {"model": model, "prompt" if call == "completions" else "input": "Hello", **more}
	return {"model": model, "messages": messages("Hello"), **more}


def ask(gw, api, name, call, base, stream=False, **options):
	"""A real client's answer; its base URL is the model API."""
	return client(name, api.base + base, gw.port, call=call, stream=stream, body=options.pop("body", None) or body_of(name, call), **options)


def protocol_of(name):
	return ANTHROPIC if "anthropic" in name else OPENAI


def api_for(gw, model, name, **more):
	provider = "anthropic" if "anthropic" in name else "openai"
	return llm_api(gw, ai_service(gw, model, provider, ["sk-upstream"]), protocols=[protocol_of(name)], **more)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name, call, base", CLIENTS)
def test_every_client_is_served(gw, model, name, call, base, stream):
	model.say("Grüße aus dem Modell 世界.", usage=Usage(5, 7))
	found = ask(gw, api_for(gw, model, name), name, call, base, stream)
	assert "error" not in found and found["text"] == "Grüße aus dem Modell 世界.", found
	assert found["model"] == "gpt-4" and (not stream or call == "helper" or found["events"] >= 2)
	asked = model.last
	key = asked.header("x-api-key") if "anthropic" in name else asked.header("Authorization")
	assert key == ("sk-upstream" if "anthropic" in name else "Bearer sk-upstream")
	assert all("sk-client" not in value for _, value in asked.headers)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name, call, base", [one for one in CLIENTS if one[1] not in ("completions", "responses")])
def test_tools(gw, model, name, call, base, stream):
	model.say("", tools=[CALL])
	body = body_of(name, call, tools=[TOOL] if not name == "anthropic" else
		[{"name": "look_up", "description": "", "input_schema": {"type": "object", "properties": {}}}])
	found = ask(gw, api_for(gw, model, name), name, call, base, stream, body=body)
	assert "error" not in found and found["tools"] == [CALL], found


@pytest.mark.parametrize("manner", [{"segment": 1}, {"eol": "\r\n"}, {"comments": True}, {"framing": "close"}, {"coding": "gzip"},
	{"usage": "null"}, {"usage": "every"}, {"final_blank": False}, {"event_delay": 0.01}], ids=str)
def test_streams_of_any_manner(gw, model, manner):
	model.say("one two three").manner(**manner)
	for name, call, base in [("openai", "chat", "/v1"), ("anthropic", "messages", "")]:
		if name == "anthropic" and manner in ({"usage": "null"}, {"final_blank": False}):
			continue    # its client needs them, without a gateway too
		found = ask(gw, api_for(gw, model, name), name, call, base, True)
		assert "error" not in found and found["text"] == "one two three", (name, found)


@contextlib.contextmanager
def used_up(gw, api):
	"""A limit by the second is, by others: a client may take a second to start."""
	is_over = threading.Event()

	def use():
		while not is_over.wait(0.02):
			chat(gw, api.base, "Hello")

	user = threading.Thread(target=use)
	user.start()
	try:
		yield
	finally:
		is_over.set()
		user.join()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name, call, base", [("openai", "chat", "/v1"), ("anthropic", "messages", ""), ("ai", "chat", "/v1")])
def test_errors_have_the_clients_own_shape(gw, model, name, call, base, stream):
	"""Of the model, and of the gateway itself: clients find status, type and message where they look for them."""
	api = api_for(gw, model, name)
	model.fail(429, "slow down", "rate_limit_exceeded")
	found = ask(gw, api, name, call, base, stream)["error"]
	assert found["status"] == 429 and "slow down" in found["message"], found
	attachment = gw.attach("RateLimit", rate(1), api)
	model.say()
	assert "error" not in ask(gw, api, name, call, base, stream)
	with used_up(gw, api):
		found = wait_until(lambda: ask(gw, api, name, call, base, stream).get("error"), 60, "a request that is refused")
	assert found["status"] == 429, found
	gw.delete(attachment)


def test_unknown_models(gw, model):
	api = llm_api(gw, {"service": ai_service(gw, model), "modelNamePattern": "gpt-*"})
	found = ask(gw, api, "openai", "chat", "/v1", body=body_of("openai", "chat", "other"))["error"]
	assert (found["class"], found["status"], found["code"]) == ("NotFoundError", 404, "model_not_found"), found
	api = llm_api(gw, {"service": ai_service(gw, model, "anthropic"), "modelNamePattern": "claude-*"}, protocols=[ANTHROPIC])
	found = ask(gw, api, "anthropic", "messages", "", body=body_of("anthropic", "messages", "other"))["error"]
	assert found["class"] == "NotFoundError" and found["type"] == "not_found_error", found
	assert model.hits == 0


def test_an_error_within_a_stream(gw, model):
	model.say("one two three").manner(error_after=3)
	found = ask(gw, api_for(gw, model, "openai"), "openai", "chat", "/v1", True)
	assert found["text"] == "one two" and "the model says no" in found["error"]["message"], found
	found = ask(gw, api_for(gw, model, "anthropic"), "anthropic", "messages", "", True)
	assert "the model says no" in found["error"]["message"], found


def test_a_stream_that_breaks(gw, model):
	model.say("one two three").manner(cut_after=3)
	found = ask(gw, api_for(gw, model, "openai"), "openai", "chat", "/v1", True)
	assert found["text"] == "one two" and "error" in found, found


def test_a_client_that_leaves_ends_the_model_too(gw, model):
	model.say("word " * 10).manner(endless=True, event_delay=0.01)
	found = ask(gw, api_for(gw, model, "openai"), "openai", "chat", "/v1", True, abortAfter=3)
	assert found["aborted"] and found["events"] == 3
	wait_until(lambda: model.lost == 1, what="the end of the upstream's stream")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name, call, base, provider", [("openai", "chat", "/v1", "anthropic"), ("openai", "helper", "/v1", "anthropic"),
	("ai", "chat", "/v1", "anthropic"), ("anthropic", "messages", "", "openai"), ("ai-anthropic", "messages", "/v1", "openai")])
def test_a_provider_of_another_api(gw, model, name, call, base, provider, stream):
	"""The client does not see that the model speaks another API."""
	model.say("Converted.", usage=Usage(5, 7), tools=[CALL])
	api = llm_api(gw, ai_service(gw, model, provider), protocols=[protocol_of(name)])
	tool = {"name": "look_up", "description": "", "input_schema": {"type": "object", "properties": {}}} if name == "anthropic" else TOOL
	found = ask(gw, api, name, call, base, stream, body=body_of(name, call, tools=[tool]))
	assert "error" not in found and found["text"] == "Converted." and found["tools"] == [CALL], found
	assert model.last.path == ("/v1/messages" if provider == "anthropic" else "/v1/chat/completions")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_dashscope_in_its_own_api(gw, model, stream):
	model.say("Converted.", usage=Usage(5, 7))
	api = llm_api(gw, ai_service(gw, model, "dashscope", protocols=[DASHSCOPE]))
	found = ask(gw, api, "openai", "chat", "/v1", stream)
	assert "error" not in found and found["text"] == "Converted.", found
	assert model.last.path == "/api/v1/services/aigc/text-generation/generation"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name, call, base", [("openai", "chat", "/v1"), ("anthropic", "messages", ""), ("ai", "chat", "/v1")])
def test_fallback_is_invisible(gw, model, name, call, base, stream):
	with ModelServer("From the backup.") as backup:
		provider = "anthropic" if "anthropic" in name else "openai"
		primary, second = ai_service(gw, model, provider), ai_service(gw, backup, provider)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": second.id, "model": "backup"}]}]}, primary)
		api = llm_api(gw, primary, protocols=[protocol_of(name)])
		for manner in ({"error_first": True}, None):
			model.clear()
			if manner:
				model.manner(**manner)
			else:
				model.fail(503)
			if manner and not stream:
				continue
			found = ask(gw, api, name, call, base, stream)
			assert "error" not in found and found["text"] == "From the backup." and found["model"] == "backup", found


def test_injected_usage_is_not_seen(gw, model):
	"""USE-5: a client that did not ask for it sees no chunk without choices."""
	api = api_for(gw, model, "openai")
	gw.attach("AiStatistics", {}, api)
	found = ask(gw, api, "openai", "chat", "/v1", True)
	assert found["emptyChoices"] == 0 and "usage" not in found and found["text"] == "Hello from the model."
	assert model.last.body["stream_options"] == {"include_usage": True}
	found = ask(gw, api, "openai", "chat", "/v1", True, body=body_of("openai", "chat", stream_options={"include_usage": True}))
	assert found["emptyChoices"] == 1 and found["usage"]["total_tokens"] == 33
