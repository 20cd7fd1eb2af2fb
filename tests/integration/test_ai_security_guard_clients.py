"""Refusals of AiSecurityGuard as the official clients read them (npm openai, @anthropic-ai/sdk, ai)."""
import pytest

from ai_kit import ANTHROPIC, client, messages
from gw import Gateway
from guard_kit import HIGH, SORRY, answers, guarded
from side_services import plain

CLIENTS = [("openai", "chat", "/v1", "content_filter"), ("openai", "completions", "/v1", "content_filter"),
	("openai", "responses", "/v1", "completed"), ("ai", "chat", "/v1", "content-filter"), ("anthropic", "messages", "", "end_turn")]


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


def ask(gw, one, name, call, base, text, is_stream):
	body = {"model": "m-1", "messages": messages(text)}
	if call in ("completions", "responses"):
		body = {"model": "m-1", "prompt" if call == "completions" else "input": text}
	return client(name, one.base + base, gw.port, call=call, stream=is_stream, body=body)


def guarded_for(gw, name, **more):
	return guarded(gw, **more, **(dict(protocol=ANTHROPIC, provider="anthropic") if name == "anthropic" else {}))


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name, call, base, finish", CLIENTS)
def test_ex3_a_refused_request_is_an_answer(gw, name, call, base, finish, is_stream):
	with guarded_for(gw, name) as one:
		one.guard.flag("bad", advice="Ask about the weather.", **HIGH)
		found = ask(gw, one, name, call, base, "bad", is_stream)
		assert "error" not in found, found
		assert (found["text"], found["finish"]) == ("Ask about the weather.", finish)
		assert one.model.hits == 0
		if found.get("headers"):
			assert found["headers"]["x-guard-status"] == "request-denied"


@pytest.mark.parametrize("name, call, base, finish", CLIENTS)
def test_a_refused_answer_is_an_answer(gw, name, call, base, finish):
	with guarded_for(gw, name, **answers(bufferLimit=10)) as one:
		one.guard.flag("BAD", **HIGH)
		one.model.say("The first ten and then BAD words", pieces=("The first ", "ten and ", "then ", "BAD ", "words"))
		found = ask(gw, one, name, call, base, "hi", False)
		assert "error" not in found and (found["text"], found["finish"]) == (SORRY, finish), found
		found = ask(gw, one, name, call, base, "hi", True)
		assert "error" not in found and found["finish"] == finish, found
		assert found["text"].startswith("The first ") and found["text"].endswith(SORRY) and "BAD" not in found["text"], found


def test_the_openai_client_assembles_a_stream_that_was_broken_off(gw):
	with guarded(gw, **answers(bufferLimit=10)) as one:
		one.guard.flag("BAD", **HIGH)
		one.model.say("", pieces=("The first ten ", "BAD"))
		found = client("openai", f"{one.base}/v1", gw.port, call="helper", body={"model": "m-1", "messages": messages("hi")})
		assert "error" not in found and found["text"] == "The first ten " + SORRY and found["finish"] == "content_filter", found


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_broken_guard_is_an_error_of_the_service(gw, is_stream):
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	with guarded(gw, site=site, **answers()) as one:
		one.guard.break_with(plain(500))
		found = client("openai", f"{one.base}/v1", site.port, call="chat", stream=is_stream,
			body={"model": "m-1", "messages": messages("hi")})
		assert found["error"]["type"] == "api_error" and found["text"] == ""
		assert is_stream or found["error"]["status"] == 503
