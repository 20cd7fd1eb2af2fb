"""AiSecurityGuard on requests: what is put to the moderation service, what a refusal looks like, and what happens without a verdict
(contract C2)."""
import json
import subprocess
import threading
import time

import pytest

from ai_kit import (ANTHROPIC, DASHSCOPE, agent_api, agent_service, ai_service, anthropic, chat, chat_body, completion, embeddings, generation, llm_api, metric, post,
	responses, stream_of)
from gw import Gateway, numbers
from guard_kit import HIGH, SORRY, answers, both, check_denied, events_of, guard_config, guarded, matched
from guard_server import GuardServer, acs3_signature, detail, level_data, said
from model_server import ModelServer
from policy_kit import as_text, cors, phase
from side_services import NameServer, plain
from wire import wait_until


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


# ---------- the guard's own test ----------

def test_the_server_knows_signatures():
	"""The example of the provider's documentation."""
	lines = {"host": "ecs.cn-shanghai.aliyuncs.com", "x-acs-action": "RunInstances",
		"x-acs-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "x-acs-date": "2023-10-26T10:22:32Z",
		"x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d", "x-acs-version": "2014-05-26"}
	query = "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai"
	assert acs3_signature("YourAccessKeySecret", "POST", "/", query, lines, b"") == \
		"06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"


# ---------- requests ----------

def test_ex1_a_risk_at_the_bar_is_refused_and_max_only_detects(gw):
	with guarded(gw, requestCheckService="LLM") as one:
		one.guard.flag("bad", RiskLevel="high", Result=[{"Label": "violence", "RiskWords": "forbidden-words"}])
		before = metric(gw, "ai_sec_request_deny")
		assert one.chat("good").status == 200
		refused = one.chat("something bad")
		check_denied(refused)
		assert one.model.hits == 1
		assert [check.service for check in one.guard.checks] == ["llm_query_moderation"] * 2
		assert metric(gw, "ai_sec_request_deny") == before + 1
		assert one.outcomes() == {"passed": 1, "request_denied": 1}
		record = gw.wait_record(requestId=refused.request_id)
		assert record["flag"] == "SG" and record["status"] == 200
		event = matched(gw, refused)[0]
		assert event["action"] == "denied" and event["levels"] == "contentModeration=high" and event["labels"] == "violence"
		assert event["guardRequestId"] == "guard-2"
		gw.change_policy(one.attachment, guard_config(one.guard, riskAlertLevel="max"))
		passed = one.chat("something bad")
		assert passed.status == 200 and passed.header("X-Guard-Status") is None
		assert one.model.hits == 2
		assert matched(gw, passed)[0]["action"] == "passed"
		assert "forbidden-words" not in gw.stderr() and "something bad" not in gw.stderr()


def test_ex2_each_dimension_has_its_bar(gw):
	bars = [{"type": "Global", "level": "high"}, {"type": "ContentModeration", "level": "medium"}]
	with guarded(gw, riskAlertLevel="low", riskConfig=bars) as one:
		one.guard.flag("content", Detail=[detail("contentModeration", "medium"), detail("promptAttack", "none")])
		one.guard.flag("attack-medium", Detail=[detail("contentModeration", "low"), detail("promptAttack", "medium")])
		one.guard.flag("attack-high", Detail=[detail("promptAttack", "high")])
		one.guard.flag("url", Detail=[detail("maliciousUrl", "high")])
		one.guard.flag("secret-2", Detail=[detail("sensitiveData", "S2")])
		one.guard.flag("secret-3", Detail=[detail("sensitiveData", "S3")])
		one.guard.flag("new-kind", Detail=[detail("waterMark", "high")])
		check_denied(one.chat("content"))
		passed = one.chat("attack-medium")
		assert passed.header("X-Guard-Status") is None
		assert matched(gw, passed)[0]["levels"] == "contentModeration=low,promptAttack=medium"
		for word in ("attack-high", "url", "secret-3", "new-kind"):
			check_denied(one.chat(word))
		assert one.chat("secret-2").header("X-Guard-Status") is None
		assert one.model.hits == 2


def test_ex2_riskalertlevel_is_the_bar_without_rows(gw):
	with guarded(gw, riskAlertLevel="medium", requestCheckService="LLM") as one:
		one.guard.flag("attack", AttackLevel="medium").flag("low", RiskLevel="low", AttackLevel="low", SensitiveLevel="S1")
		check_denied(one.chat("attack"))
		assert one.chat("low").header("X-Guard-Status") is None


def test_ex3_a_refused_stream_is_a_stream(gw):
	with guarded(gw) as one:
		one.guard.flag("bad", advice="Ask about the weather.", **HIGH)
		got = one.stream("bad")
		assert got.status == 200 and got.header("Content-Type") == "text/event-stream"
		assert got.header("X-Guard-Status") == "request-denied"
		assert got.docs[0]["choices"][0]["delta"]["role"] == "assistant"
		assert got.text == "Ask about the weather." and got.is_done and got.usage is None
		assert [doc["choices"][0]["finish_reason"] for doc in got.docs] == [None] * (len(got.docs) - 1) + ["content_filter"]
		asked = one.stream("bad", stream_options={"include_usage": True})
		assert asked.usage["total_tokens"] == 0 and asked.docs[-1]["choices"] == [] and asked.is_done
		assert one.model.hits == 0


def test_refusals_of_other_apis(gw):
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		plain_text = completion(gw, one.base, "bad")
		assert plain_text.status == 200 and plain_text.json["object"] == "text_completion"
		assert (plain_text.json["choices"][0]["text"], plain_text.json["choices"][0]["finish_reason"]) == (SORRY, "content_filter")
		item = responses(gw, one.base, "bad").json
		assert (item["object"], item["status"]) == ("response", "completed")
		assert item["output"][0]["content"][0]["type"] == "output_text" and item["output"][0]["content"][0]["text"] == SORRY
		events = stream_of(gw, f"{one.base}/v1/responses", {"model": "gpt-4", "input": "bad", "stream": True}).events
		names = [event.name for event in events]
		assert names[0] == "response.created" and "response.output_text.delta" in names and names[-1] == "response.completed"
		vectors = embeddings(gw, one.base, ["fine", "bad"])
		assert vectors.status == 400 and vectors.json["error"]["code"] == "content_filter"
		assert vectors.header("X-Guard-Status") == "request-denied"
		assert one.model.hits == 0


def test_refusals_of_anthropic(gw):
	with guarded(gw, protocol=ANTHROPIC, provider="anthropic") as one:
		one.guard.flag("bad", **HIGH)
		doc = anthropic(gw, one.base, "bad").json
		assert (doc["type"], doc["role"], doc["stop_reason"]) == ("message", "assistant", "end_turn")
		assert doc["content"] == [{"type": "text", "text": SORRY}]
		got = stream_of(gw, f"{one.base}/v1/messages", {"model": "claude-3", "max_tokens": 9, "stream": True,
			"messages": [{"role": "user", "content": "bad"}]})
		assert [event.name for event in got.events] == ["message_start", "content_block_start", "content_block_delta",
			"content_block_stop", "message_delta", "message_stop"]
		assert got.text == SORRY
		# the results of tools are looked at, and what the system says
		result = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n",
			"input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "bad"}]}]
		assert anthropic(gw, one.base, result).header("X-Guard-Status") == "request-denied"
		assert anthropic(gw, one.base, "hi", system=[{"type": "text", "text": "bad"}]).header("X-Guard-Status") == "request-denied"
		assert one.model.hits == 0


def test_refusals_of_dashscope(gw):
	with guarded(gw, protocol=DASHSCOPE, provider="dashscope") as one:
		one.guard.flag("bad", **HIGH)
		answer = generation(gw, one.base, "bad")
		assert answer.status == 400 and answer.json["code"] == "content_filter" and answer.json["message"] == SORRY
		assert answer.json["request_id"]
		assert one.model.hits == 0


def test_ex6_every_text_of_the_last_turn_is_checked(gw):
	image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
	call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		turns = [
			[{"role": "user", "content": [{"type": "text", "text": "bad"}, image]}],
			[{"role": "user", "content": [image, {"type": "text", "text": "good"}, {"type": "text", "text": "bad"}]}],
			[{"role": "user", "content": "hi"}, call, {"role": "tool", "tool_call_id": "c", "content": "bad"}],
			[{"role": "user", "content": "hi"}, call, {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "bad"}]}],
			[{"role": "user", "content": "bad"}, {"role": "user", "content": "good"}],
			[{"role": "system", "content": "bad"}, {"role": "user", "content": "good"}],
			[{"role": "developer", "content": "bad"}, {"role": "user", "content": "good"}],
		]
		for turn in turns:
			check_denied(one.chat(turn))
		assert one.model.hits == 0
		# what was answered before is the past
		past = [{"role": "user", "content": "bad"}, {"role": "assistant", "content": "no"}, {"role": "user", "content": "good"}]
		assert one.chat(past).header("X-Guard-Status") is None
		assert one.guard.last.content == "good"


def test_an_answer_that_the_client_begins_is_no_answer(gw):
	"""Else one message of an assistant at the end would hide all that is asked."""
	beginning = {"role": "assistant", "content": "Sure, here is"}
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		check_denied(one.chat([{"role": "user", "content": "bad"}, beginning]))
		check_denied(one.chat([{"role": "user", "content": "bad"}, beginning, beginning]))
		check_denied(one.chat([{"role": "user", "content": "good"}, {"role": "assistant", "content": "bad"}]))
		check_denied(one.chat([{"role": "user", "content": "bad"}, {"role": "assistant", "content": None, "tool_calls": []}]))
		assert one.model.hits == 0
		past = [{"role": "user", "content": "bad"}, {"role": "assistant", "content": "no"}, {"role": "user", "content": "good"}]
		assert one.chat([*past, beginning]).header("X-Guard-Status") is None
		assert one.guard.last.content == "good\nSure, here is"


def test_other_places_of_prompts(gw):
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		assert completion(gw, one.base, ["good", "bad"]).header("X-Guard-Status") == "request-denied"
		items = [{"role": "user", "content": [{"type": "input_text", "text": "bad"}]}]
		assert responses(gw, one.base, items).header("X-Guard-Status") == "request-denied"
		assert responses(gw, one.base, "good", instructions="bad").header("X-Guard-Status") == "request-denied"
		assert one.model.hits == 0


def test_without_text_nobody_is_asked(gw):
	with guarded(gw) as one:
		assert one.chat([{"role": "user", "content": ""}]).status == 200
		assert one.chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]).status == 200
		assert embeddings(gw, one.base, [[1, 2, 3]]).status == 200
		assert one.guard.checks == [] and one.model.hits == 3
		assert one.outcomes() == {"passed": 3}


def test_ex8_long_texts_are_cut_between_characters_and_signed(gw):
	site = gw.gateway()
	gw.feature("ai.guard.access_key_id", "LTAI-test", site)
	gw.feature("ai.guard.access_key_secret", "secret-of-the-guard", site)
	with guarded(gw, GuardServer({"LTAI-test": "secret-of-the-guard"}), site=site) as one:
		text = "".join(chr(0x4e00 + i) for i in range(2500))
		assert one.chat(text).status == 200
		first, second = one.guard.checks
		assert len(first.content) == 1800 and first.content == text[:1800]
		assert second.content == text[1700:]
		assert first.session == second.session and first.nonce != second.nonce
		assert [check.signed_by for check in one.guard.checks] == ["LTAI-test"] * 2
		# a risk in the second piece, and one that lies across the cut
		one.guard.flag(text[2400:2403], **HIGH).flag("secret", **HIGH)
		check_denied(one.chat(text))
		check_denied(one.chat("x" * 1797 + "secret" + "y" * 400))
		assert one.model.hits == 1
		assert one.guard.checks[-1].session != first.session
		# with a token of temporary keys
		gw.feature("ai.guard.security_token", "STS.a+b/c==", site)
		assert one.chat("short").status == 200
		assert one.guard.last.signed_by == "LTAI-test"
		assert one.guard.last.asked.header("x-acs-security-token") == "STS.a+b/c=="
		# the secrets stay ours
		for name in ("access_key_secret", "security_token"):
			shown = gw.ask("GET", f"/api/v1/gateways/{site.id}/gateway-features/ai.guard.{name}")
			assert "secret-of-the-guard" not in json.dumps(shown) and "STS" not in json.dumps(shown)
		assert "secret-of-the-guard" not in gw.stderr() and "STS.a" not in gw.stderr()
		# without a key nothing is signed
		gw.feature("ai.guard.access_key_secret", "", site)
		assert one.chat("unsigned").status == 200
		assert one.guard.last.signed_by is None


def test_path_and_query_of_the_address(gw):
	site = gw.gateway()
	gw.feature("ai.guard.access_key_id", "k", site)
	gw.feature("ai.guard.access_key_secret", "s", site)
	with guarded(gw, GuardServer({"k": "s"}), site=site) as one:
		for address, target in (("", "/?Service=query_security_check"), ("/", "/?Service=query_security_check"),
				("/check/it", "/check/it?Service=query_security_check"),
				("/check?tenant=7&a=b", "/check?tenant=7&a=b&Service=query_security_check")):
			gw.change_policy(one.attachment, guard_config(one.guard.url + address))
			assert one.chat("text").status == 200
			assert one.guard.last.asked.target == target
			assert one.guard.last.signed_by == "k"


def test_which_check_is_asked_for(gw):
	with guarded(gw, **both(requestCheckService="LLM", responseCheckService="Security")) as one:
		assert one.chat("text").status == 200
		assert [check.service for check in one.guard.checks] == ["llm_query_moderation", "response_security_check"]
		gw.change_policy(one.attachment, guard_config(one.guard, **both(responseCheckService="LLM")))
		one.guard.clear()
		assert one.chat("text").status == 200
		assert [check.service for check in one.guard.checks] == ["query_security_check", "llm_response_moderation"]


def test_codes_of_another_region(gw):
	name = "green-cip.ap-southeast-1.aliyuncs.com"
	with NameServer({name: ["127.0.0.1"]}) as names, Gateway(dns_servers=names.address) as own, guarded(own) as one:
		own.change_policy(one.attachment, guard_config(f"http://{name}:{one.guard.port}", **both(requestCheckService="LLM")))
		assert one.chat("good").status == 200
		assert [check.query for check in one.guard.checks] == ["Service=llm_query_moderation_intl", "Service=response_security_check_intl"]


def test_agents_are_guarded_too(gw):
	apps = {"dashScopeConfig": {"appCredentials": [{"appId": "app-1", "apiKey": "sk-one"}]}}
	with GuardServer() as guard, ModelServer() as model:
		guard.flag("bad", **HIGH)
		services = agent_service(gw, model, **apps), agent_service(gw, model, difyConfig={"apiKey": "app-dify"})
		made = [gw.attach("AiSecurityGuard", guard_config(guard, **both()), to=service) for service in services]
		app, dify = agent_api(gw, services[0], "DashScope"), agent_api(gw, services[1], "Dify")
		questions = [(f"{app.base}/api/v1/apps/app-1/completion", {"input": {"prompt": "bad"}}),
			(f"{dify.base}/v1/chat-messages", {"query": "bad", "inputs": {}, "user": "u"}),
			(f"{dify.base}/v1/chat-messages", {"query": "good", "inputs": {"style": "bad"}, "user": "u"}),
			(f"{dify.base}/v1/workflows/run", {"inputs": {"text": "bad"}, "user": "u"})]
		for target, body in questions:
			answer = post(gw, target, body)
			assert answer.status == 400 and answer.header("X-Guard-Status") == "request-denied", answer
			assert answer.json["code"] == "content_filter" and answer.json["message"] == SORRY
		assert model.hits == 0
		model.say("this is bad")
		for target, body in questions:
			answer = post(gw, target, json.loads(json.dumps(body).replace("bad", "good")))
			assert answer.status == 400 and answer.header("X-Guard-Status") == "response-denied", answer
		got = stream_of(gw, questions[1][0], {"query": "good", "inputs": {}, "user": "u", "response_mode": "streaming"})
		assert "bad" not in got.raw.decode() and "content_filter" in got.raw.decode()
		for attachment in made:
			gw.delete(attachment)


# ---------- when the guard is broken ----------

def test_ex7_a_guard_that_hangs_is_passed_after_two_seconds(gw):
	with guarded(gw) as one:
		one.guard.hold()
		begin = time.monotonic()
		answer = one.chat("Hello")
		took = time.monotonic() - begin
		assert answer.status == 200 and answer.header("X-Guard-Status") is None
		assert 1.9 < took < 15
		assert one.model.hits == 1
		assert one.outcomes() == {"error": 1}
		event = events_of(gw, "guard.unavailable", answer)[0]
		assert event["effect"] == "passed without a verdict" and "too long" in event["reason"]
		wait_until(lambda: phase(gw, one.attachment) == "Degraded", 10, "a Degraded attachment")
		assert metric(gw, "sluice_dependency_up", attachment=one.attachment.id) == 0
		one.guard.release()
		assert one.chat("Hello").status == 200
		wait_until(lambda: phase(gw, one.attachment) == "Active", 10, "an Active attachment")
		assert metric(gw, "sluice_dependency_up", attachment=one.attachment.id, kind="guard") == 1


def test_ex7_fail_mode_closed(gw):
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	gw.feature("ai.guard.timeout_ms", 300, site)
	with guarded(gw, site=site) as one:
		one.guard.hold()
		answer = one.chat("Hello")
		assert answer.status == 503 and answer.json["error"]["type"] == "api_error"
		assert answer.header("X-Guard-Status") is None
		assert one.model.hits == 0
		assert gw.wait_record(requestId=answer.request_id)["flag"] == "PF"
		one.guard.release()
		assert one.chat("Hello").status == 200
		gw.feature("ai.guard.fail_mode", "open", site)
		one.guard.hold()
		assert one.chat("Hello").status == 200


DATA = {"RiskLevel": "none"}
BROKEN = {
	"status 500": plain(500),
	"status 403": plain(403, body=b'{"Code":403}'),
	"a redirect": plain(302, [("Location", "http://127.0.0.1:1/")]),
	"status 204": plain(204),
	"another Code": said(DATA, code=408),
	"Code as text": said(DATA, code="200"),
	"status 201": said(DATA, status=201),
	"no JSON": plain(200, body=b"<html>all is well</html>"),
	"an empty body": plain(200),
	"no Data": plain(200, body=b'{"Code":200,"Message":"OK"}'),
	"Data without levels": said({}),
	"an unknown level": said({"RiskLevel": "severe"}),
	"a level of another type": said({"RiskLevel": 0}),
	"an unknown level beside a known one": said({"RiskLevel": "none", "AttackLevel": "dreadful"}),
	"broken UTF-8": plain(200, body=b'{"Code":200,"Data":{"RiskLevel":"none","x":"\xff"}}'),
	"deep nesting": plain(200, body=b'{"Code":200,"Data":{"RiskLevel":"none","x":' + b"[" * 5000 + b"]" * 5000 + b"}}"),
	"a million values": plain(200, body=b'{"Code":200,"Data":{"RiskLevel":"none","x":[' + b"0," * 100000 + b"0]}}"),
	"too large": plain(200, body=b'{"Code":200,"Data":{"RiskLevel":"none"},"x":"' + b"x" * 3000000 + b'"}'),
	"no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
	"a body cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"Code\":200",
}


@pytest.fixture(scope="module")
def closed_world(gw):
	"""A guarded service that lets nothing pass without a verdict."""
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	gw.feature("ai.guard.timeout_ms", 5000, site)
	with guarded(gw, site=site, **both()) as one:
		yield one


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_what_is_no_verdict_is_no_pass(gw, closed_world, what):
	one = closed_world
	one.guard.clear()
	one.model.clear()
	raw = BROKEN[what]
	closes = what in ("no HTTP", "a body cut short")
	one.guard.break_with((lambda check, connection: connection.send(raw)) if closes else raw)
	answer = one.chat("Hello")
	assert answer.status == 503, (what, answer)
	assert one.model.hits == 0
	one.guard.break_with(None)
	assert one.chat("Hello").status == 200


def test_a_slow_answer_of_the_guard_is_bounded(gw):
	"""A byte now and then does not hold the request beyond its time."""
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	gw.feature("ai.guard.timeout_ms", 700, site)

	def drip(check, connection):
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
		for _ in range(200):
			connection.send(b"{")
			time.sleep(0.05)

	with guarded(gw, site=site) as one:
		one.guard.break_with(drip)
		begin = time.monotonic()
		assert one.chat("Hello").status == 503
		assert time.monotonic() - begin < 6


def test_nobody_listens(gw):
	with guarded(gw) as one:
		gw.change_policy(one.attachment, guard_config("http://127.0.0.1:1"))
		answer = one.chat("Hello")
		assert answer.status == 200
		assert one.outcomes() == {"error": 1}


def test_a_client_that_leaves_takes_its_call_along(gw):
	site = gw.gateway()
	gw.feature("ai.guard.timeout_ms", 60000, site)
	with guarded(gw, site=site) as one:
		one.guard.hold()
		connection = gw.connect(site)
		body = json.dumps(chat_body("Hello")).encode()
		connection.start("POST", f"{one.base}/v1/chat/completions", {"Content-Type": "application/json"}, body)
		wait_until(lambda: one.guard.checks, 20, "a call to the guard")
		assert metric(gw, "sluice_side_calls_in_flight", kind="guard") == 1
		connection.close()
		wait_until(lambda: metric(gw, "sluice_side_calls_in_flight", kind="guard") == 0, 10, "the end of the call")
		assert one.model.hits == 0


def test_other_routes_do_not_wait(gw):
	site = gw.gateway()
	gw.feature("ai.guard.timeout_ms", 60000, site)
	with guarded(gw, site=site) as one, ModelServer() as free:
		api = llm_api(gw, ai_service(gw, free))
		one.guard.hold()
		hanging = [threading.Thread(target=one.chat) for _ in range(20)]
		for thread in hanging:
			thread.start()
		wait_until(lambda: len(one.guard.checks) == 20, 20, "calls to the guard")
		begin = time.monotonic()
		for _ in range(20):
			assert chat(gw, api.base, "Hello").status == 200
		assert time.monotonic() - begin < 30
		assert one.model.hits == 0
		one.guard.release()
		for thread in hanging:
			thread.join(30)


# ---------- bodies that cannot be read ----------

@pytest.mark.parametrize("body", [b"", b"{", b"no json", b'{"messages":[{"role":"user","content":"\xff"}]}',
	b'{"messages":[],"messages":[{"role":"user","content":"bad"}]}', b"[" * 200 + b"]" * 200])
def test_a_body_that_cannot_be_read_is_refused(gw, body):
	"""BUF-3; duplicate members too, of which others may read the other one."""
	with guarded(gw) as one:
		answer = post(gw, f"{one.base}/v1/chat/completions", body)
		assert answer.status == 400 and set(answer.json) == {"error"}, answer
		assert one.model.hits == 0 and one.guard.checks == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json2", None])
def test_a_body_under_another_name_is_no_way_around(gw, kind):
	"""Servers of models read JSON whatever its Content-Type says."""
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		plain = f"/disguised-{next(numbers)}"
		gw.route(plain, one.service)
		fields = {"Content-Type": kind} if kind else {"Content-Type": ""}
		text = json.dumps(chat_body("bad")).encode()
		for body, chunked in ((text, False), ([text], True)):
			for base, status in ((one.base, 415), (plain, 400)):
				answer = gw.request("POST", f"{base}/v1/chat/completions", fields, body, chunked=chunked)
				assert answer.status == status, answer
		assert one.model.hits == 0
		# JSON with a parameter is JSON
		json_type = {"Content-Type": "Application/JSON; charset=utf-8"}
		assert post(gw, f"{one.base}/v1/chat/completions", chat_body("bad"), json_type).header("X-Guard-Status") == "request-denied"
		assert post(gw, f"{one.base}/v1/chat/completions?x=1", chat_body("bad")).header("X-Guard-Status") == "request-denied"


def test_without_a_check_of_requests_such_a_body_passes(gw):
	with guarded(gw, **answers()) as one:
		assert post(gw, f"{one.base}/v1/chat/completions", b"{").status == 200
		assert one.model.last.raw == b"{"


def test_other_requests_are_none_of_its_business(gw):
	with guarded(gw) as one:
		assert gw.get(f"{one.base}/v1/models").status == 200
		assert one.guard.checks == []


# ---------- where it acts ----------

def test_plain_routes_and_services_are_guarded_too(gw):
	"""No silent way around it: a route that leads to a guarded service sees AI requests, whatever kind of service it is."""
	with GuardServer() as guard, ModelServer() as model:
		guard.flag("bad", **HIGH)
		service = gw.service(model.port)
		attachment = gw.attach("AiSecurityGuard", guard_config(guard, checkResponse=True), to=service)
		gw.route("/to-guarded", service)
		refused = chat(gw, "/to-guarded", "bad")
		check_denied(refused)
		model.say("bad")
		assert chat(gw, "/to-guarded", "good").header("X-Guard-Status") == "response-denied"
		assert model.hits == 1
		gw.delete(attachment)


def test_a_disabled_guard_is_as_if_absent(gw):
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		gw.change_policy(one.attachment, guard_config(one.guard, enable=False))
		assert one.chat("bad").header("X-Guard-Status") is None
		assert one.guard.checks == []


def test_http2_clients_get_the_same(gw):
	with guarded(gw, **both()) as one:
		one.guard.flag("bad", **HIGH)
		body = as_text(chat_body("bad"))
		out = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-i", "-H", "Content-Type: application/json", "-H", "Host: gw.test",
			"-d", body, f"http://127.0.0.1:{gw.port}{one.base}/v1/chat/completions"], capture_output=True, text=True, timeout=30).stdout
		assert out.startswith("HTTP/2 200") and "x-guard-status: request-denied" in out.lower() and "content_filter" in out


def test_x4_refusals_carry_cors_headers(gw):
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		attachment = gw.attach("Cors", cors(), to=one.api)
		answer = one.chat("bad", headers={"Origin": "https://example.com"})
		check_denied(answer)
		assert answer.header("Access-Control-Allow-Origin") == "https://example.com"
		gw.delete(attachment)
