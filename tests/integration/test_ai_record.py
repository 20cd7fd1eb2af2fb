"""ai_log of requests that end early, of answers that are refused, and as a string (contract C1: STA-1, STA-10)."""
import json

import pytest

from ai_kit import (ai_log, ai_service, agent_api, agent_service, chat, llm_api, metric, open_chat, post, record_of, wait_metric)
from consumer_kit import allow, bearer, consumer, key, keys
from gw import Gateway
from guard_kit import HIGH, answers, guarded
from model_server import ModelServer, Usage
from policy_kit import cors, direct, ip_list, preflight, rate


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


@pytest.fixture(scope="module")
def model():
	with ModelServer() as server:
		yield server


@pytest.fixture
def api(gw, model):
	made = llm_api(gw, ai_service(gw, model))
	gw.attach("AiStatistics", {}, to=made)
	return made


def is_of_refusal(log, api):
	"""The numbers are there, and they are none; the body was not looked at."""
	assert log["api"] == api.name and log["model"] == log["request_model"] == "unknown"
	assert (log["input_token"], log["output_token"], log["total_token"], log["usage_source"]) == (0, 0, 0, "none")
	assert log["response_type"] == "normal" and 0 <= log["llm_service_duration"] < 60000
	assert "question" not in log and "messages" not in log
	return True


# ---- refused before anything is known of the body (STA-10: all exits produce a record) ----

def test_STA10_without_a_credential(gw, model, api):
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=api)
	before, hits = metric(gw, "ai_request_total", status="401"), model.hits
	answer = chat(gw, api.base, "Hello?", headers={"X-Session-Id": "s-1"})
	assert answer.status == 401
	log = ai_log(gw, answer)
	assert is_of_refusal(log, api) and log["session_id"] == "s-1" and "consumer" not in log
	wait_metric(gw, "ai_request_total", before + 1, status="401")
	assert model.hits == hits


def test_STA10_a_consumer_without_permission_is_named(gw, api):
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=api)
	secret = key()
	who = consumer(gw, apiKey=keys(secret))
	answer = chat(gw, api.base, "Hello?", headers=bearer(secret))
	assert answer.status == 403
	log = ai_log(gw, answer)
	assert is_of_refusal(log, api) and log["consumer"] == who.name
	allow(gw, who, api)
	assert ai_log(gw, chat(gw, api.base, "Hello?", headers=bearer(secret)))["request_model"] == "gpt-4"


def test_STA10_over_a_limit_of_requests(gw, api):
	gw.attach("RateLimit", rate(1), to=api)
	before = metric(gw, "ai_request_total", status="429")
	answers_of_three = [chat(gw, api.base, "Hello?") for _ in range(3)]
	assert [answer.status for answer in answers_of_three] == [200, 429, 429]
	logs = [ai_log(gw, answer) for answer in answers_of_three]
	assert logs[0]["total_token"] > 0
	assert is_of_refusal(logs[1], api) and is_of_refusal(logs[2], api)
	wait_metric(gw, "ai_request_total", before + 2, status="429")


def test_STA10_an_address_that_is_not_let_in(gw, api):
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=api)
	answer = chat(gw, api.base, "Hello?")
	assert answer.status == 403
	assert is_of_refusal(ai_log(gw, answer), api)


def test_STA10_a_limit_of_the_gateway(model):
	"""Policies of the gateway act on the API's requests; its statistics are those of the API."""
	with Gateway() as gw:
		api = llm_api(gw, ai_service(gw, model))
		gw.attach("AiStatistics", {}, to=api)
		gw.attach("RateLimit", rate(1), to=gw.default)
		assert [chat(gw, api.base, "Hello?").status for _ in range(2)][0] == 200
		answer = chat(gw, api.base, "Hello?")
		assert answer.status == 429 and is_of_refusal(ai_log(gw, answer), api)


def test_STA10_agents_name_no_model(gw, model):
	service = agent_service(gw, model, customConfig={"apiKey": "agent-key"})
	api = agent_api(gw, service, "Custom")
	gw.attach("AiStatistics", {}, to=api)
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=api)
	answer = post(gw, f"{api.base}/ask", {"any": "thing"})
	assert answer.status == 401
	assert set(ai_log(gw, answer)) == {"api", "llm_service_duration", "response_type"}


def test_what_asks_for_no_model_is_not_counted_as_one(gw, model):
	"""An ordinary route: its other requests have a record of their durations alone, and preflights none."""
	route = gw.route("/mixed", [f"127.0.0.1:{model.port}"])
	gw.attach("AiStatistics", {}, to=route)
	gw.attach("DirectResponse", direct("403"), to=route)
	before = metric(gw, "ai_request_total", status="403")
	answer = post(gw, "/mixed/form", {"any": "thing"})
	assert set(ai_log(gw, answer)) == {"api", "llm_service_duration", "response_type"}
	answer = post(gw, "/mixed/v1/chat/completions", {"model": "gpt-4", "messages": []})
	assert ai_log(gw, answer)["request_model"] == "unknown"
	wait_metric(gw, "ai_request_total", before + 1, status="403")


def test_preflights_have_none(gw, api):
	gw.attach("Cors", cors(), to=api)
	answer = preflight(gw, f"{api.base}/v1/chat/completions", method="POST", ask="content-type")
	assert answer.status in (200, 204)
	record = gw.wait_record(10, method="OPTIONS", path=f"{api.base}/v1/chat/completions")
	assert "ai_log" not in record


def test_durations_begin_with_the_head_all_the_same(gw, model, api):
	"""STA-5: whatever policies do before the body is read, it counts."""
	live = model.live()
	events = open_chat(gw, api.base, "Hello?")
	live.head()
	live.event({"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]})
	live.event("[DONE]")
	live.end()
	events.rest()
	log = ai_log(gw, events)
	assert log["llm_service_duration"] >= log["llm_first_token_duration"] >= 0


# ---- answers that a guard refused ----

@pytest.mark.parametrize("is_stream", [False, True])
def test_what_a_guard_kept_from_the_client_is_not_written_down(gw, is_stream):
	with guarded(gw, **answers(bufferLimit=10)) as one:
		gw.attach("AiStatistics", {}, to=one.api)
		one.guard.flag("secret", **HIGH)
		one.model.say("The secret word is xyzzy.", reasoning="They want the secret.", usage=Usage(5, 7))
		answer = one.stream("Tell me.") if is_stream else one.chat("Tell me.")
		record = record_of(gw, answer)
		log = record["ai_log"]
		assert log["safecheck_status"] == "response deny" and log["question"] == "Tell me."
		assert not {"answer", "reasoning", "tool_calls"} & set(log)
		assert "xyzzy" not in json.dumps(record)
		assert log["total_token"] > 0
		one.model.say("All is good.")
		assert ai_log(gw, one.chat("Tell me."))["answer"] == "All is good."


# ---- as a string ----

def test_STA1_as_a_string(gw, model):
	site = gw.gateway()
	gw.feature("ai.log.format", "string", site=site)
	api = llm_api(gw, ai_service(gw, model, site=site), site=site)
	gw.attach("AiStatistics", {}, to=api)
	model.say('She said "no"\n\u2028\u00e9\\', usage=Usage(11, 22))
	answer = chat(gw, api.base, 'A "quoted" \\ question\t', site=site)
	text = record_of(gw, answer)["ai_log"]
	assert isinstance(text, str)
	log = json.loads(text)
	assert log["question"] == 'A "quoted" \\ question\t' and log["answer"] == 'She said "no"\n\u2028\u00e9\\'
	assert (log["input_token"], log["output_token"], log["total_token"]) == (11, 22, 33)
	gw.feature("ai.log.format", "object", site=site)
	assert ai_log(gw, chat(gw, api.base, "Hello?", site=site))["question"] == "Hello?"


def test_STA1_long_texts_as_a_string(gw, model):
	site = gw.gateway()
	gw.feature("ai.log.format", "string", site=site)
	api = llm_api(gw, ai_service(gw, model, site=site), site=site)
	gw.attach("AiStatistics", {}, to=api)
	longest = '"\x01' * 100000
	model.say(longest, reasoning=longest, usage=Usage(11, 22))
	try:
		answer = chat(gw, api.base, longest, site=site)
		log = json.loads(record_of(gw, answer)["ai_log"])
		assert log["question"].startswith('"\x01') and "[truncated" in log["question"] and log["total_token"] == 33
	finally:
		model.say("fine")


@pytest.mark.parametrize("value", ["text", "", 1, None])
def test_STA1_the_setting_is_checked(gw, value):
	status, answer, _ = gw.api("PUT", f"/api/v1/gateways/{gw.default.id}/gateway-features/ai.log.format", {"value": value})
	assert status == 400 and "value" in answer["errorMessage"]
