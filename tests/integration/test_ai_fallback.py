"""AiFallback on live traffic: what makes it act, what the next service gets, what the client sees, and when it must not act."""
import json
import threading

import pytest
from ai_kit import (ANTHROPIC, OPENAI, ModelServer, Usage, agent_api, agent_service, ai_route, ai_service, anthropic, at_once, chat, embeddings, llm_api, metric,
	open_chat, post, record_of, responses, stream, wait_metric)
from gw import free_port, wait_millis
from model_server import Events, Event, Nothing, Whole
from model_shapes import BAD_BODIES, BAD_EVENTS
from policy_kit import breaker, is_enforced, outcomes, phase, rate, refuse_attach
from wire import wait_until


def timeout(seconds):
	return {"unitNum": seconds, "timeUnit": "s"}


class Site:
	"""A primary service and some others behind one model API."""

	def __init__(self, gw, *candidates, model="gpt-4", provider="openai", others=1, more=(), **api):
		self.gw = gw
		self.first = ModelServer("From the first.", name="first-model")
		self.others = [ModelServer(f"From candidate {i + 1}.", name=f"model-of-{i + 1}") for i in range(others)]
		self.primary = ai_service(gw, self.first, keys=["sk-first"])
		self.services = [ai_service(gw, one, provider if i == 0 else "openai", keys=[f"sk-{i + 1}"])
			for i, one in enumerate(self.others)]
		names = candidates or [f"backup-{i + 1}" for i in range(others)]
		mappings = [{"model": model, "fallbackModels": [{"serviceId": service.id, "model": name}
			for service, name in zip(self.services, names)]}, *more]
		self.attachment = gw.attach("AiFallback", {"fallbackModelMappings": mappings}, self.primary)
		self.api = llm_api(gw, self.primary, protocols=[OPENAI], **api)
		self.base = self.api.base

	def __enter__(self):
		return self

	def __exit__(self, *_):
		for one in [self.first, *self.others]:
			one.stop()

	def chat(self, what="hi", **more):
		return chat(self.gw, self.base, what, **more)

	def stream(self, what="hi", **more):
		return stream(self.gw, self.base, what, **more)

	def fell(self, answer, index=1):
		"""The answer says that it is of this candidate."""
		assert answer.header("X-Sluice-Fallback-From") == self.primary.id, answer
		assert answer.header("X-Sluice-Fallback-Index") == str(index)
		return True


def text_of(answer):
	return answer.json["choices"][0]["message"]["content"]


@pytest.fixture
def site(gw):
	with Site(gw) as made:
		yield made


def test_is_enforced(gw, site):
	assert is_enforced(gw, "AiFallback")
	assert phase(gw, site.attachment) == "Active"


# ---- the numbered examples ----

def test_ex1_the_candidate_answers(gw, site):
	"""1. Primary 503, candidate 200: body.model is the mapped name, header index 1, one answer."""
	site.first.fail(503)
	answer = site.chat()
	assert answer.status == 200 and text_of(answer) == "From candidate 1."
	assert site.fell(answer)
	assert (site.first.hits, site.others[0].hits) == (1, 1)
	assert site.first.last.body["model"] == "gpt-4" and site.others[0].last.body["model"] == "backup-1"
	assert site.first.last.header("Authorization") == "Bearer sk-first"
	assert site.others[0].last.header("Authorization") == "Bearer sk-1"
	assert site.others[0].last.header("Host") == site.others[0].address
	assert answer.json["model"] == "model-of-1"    # what the serving model says


@pytest.mark.parametrize("status", [429, 400, 401, 404, 500, 504, 529])
def test_ex2_statuses_of_the_primary(site, status):
	"""2. Primary 429, 400: another one answers."""
	site.first.fail(status)
	assert site.fell(site.chat())
	found = site.stream()
	assert found.text == "From candidate 1." and site.fell(found) and found.is_done


def test_ex2_primary_refuses_connections(gw):
	"""2. Primary refuses TCP."""
	with Site(gw) as site:
		site.first.stop()
		answer = site.chat()
		assert answer.status == 200 and site.fell(answer)
		record = record_of(gw, answer)
		assert record["leftServices"] == [{"service": site.primary.name, "status": 0, "why": "connect"}]


@pytest.mark.parametrize("answer", [Nothing(), Nothing(reset=True), Whole(b"x" * 50, cut_bytes=10), Whole(b"{}" * 50, cut_bytes=3)],
	ids=["closed", "reset", "cut", "cut json"])
def test_connections_that_end(site, answer):
	site.first.always(answer)
	found = site.chat()
	if isinstance(answer, Whole) and answer.body.startswith(b"x"):
		assert found.status == 200
	assert site.fell(found) and text_of(found) == "From candidate 1."


def test_ex3_the_last_answer_counts(gw):
	"""3. Two candidates 500, 502: the client gets 502 and its body; attempts logged 3."""
	with Site(gw, others=2) as site:
		site.first.fail(503)
		site.others[0].fail(500)
		site.others[1].fail(502, "the second is down")
		answer = site.chat()
		assert answer.status == 502 and answer.json["error"]["message"] == "the second is down"
		assert site.fell(answer, 2)
		record = record_of(gw, answer)
		assert record["leftServices"] == [{"service": site.primary.name, "status": 503, "why": "status"},
			{"service": site.services[0].name, "status": 500, "why": "status"}]
		assert (record["status"], record["service"]) == (502, site.services[1].name)
		assert record["attempts"] == 3


def test_ex4_an_error_as_the_first_event(site):
	"""4. 200, then an error as first event: the fallback's stream, no error event seen."""
	site.first.manner(error_first=True)
	found = site.stream()
	assert found.status == 200 and found.text == "From candidate 1." and found.is_done and site.fell(found)
	assert b"error" not in found.raw
	site.first.manner(role_first=True).always(Events([Event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}),
		Event({"error": {"message": "late"}})]))
	found = site.stream()
	assert found.text == "From candidate 1." and b"late" not in found.raw


def test_ex4_after_content_there_is_no_fallback(site):
	"""4. Primary fails after 2 content events: the error ends the stream."""
	site.first.manner(error_after=3)    # the role, two words, the error
	found = site.stream()
	assert found.text == "From the" and found.docs[-1]["error"]["message"] == "the model says no"
	assert found.header("X-Sluice-Fallback-From") is None and site.others[0].hits == 0
	site.first.manner(cut_after=3)
	found = site.stream()
	assert found.text == "From the" and found.is_cut and site.others[0].hits == 0


@pytest.mark.parametrize("framing", ["as it is", "chunked"])
def test_ex5_a_long_prompt_is_replayed(gw, site, framing):
	"""5. 5 MiB prompt replays byte-identically except model."""
	site.first.fail(503)
	body = json.dumps({"temperature": 1.50, "model": "gpt-4", "messages": [{"content": "ä" * (5 << 19), "role": "user"}], "x": 1e3}, ensure_ascii=False).encode()
	assert len(body) > 5 << 20
	sent = [body[at:at + 65536] for at in range(0, len(body), 65536)] if framing == "chunked" else body
	answer = gw.request("POST", f"{site.base}/v1/chat/completions", {"Content-Type": "application/json"}, sent, chunked=framing == "chunked")
	assert answer.status == 200 and site.fell(answer)
	assert site.first.last.raw == body
	assert site.others[0].last.raw == body.replace(b'"model": "gpt-4"', b'"model": "backup-1"')


def test_ex6_a_candidate_of_another_api(gw):
	"""6. Candidate is an Anthropic service, client speaks OpenAI: its x-api-key, OpenAI's shape for the client."""
	with Site(gw, "claude-x", provider="anthropic") as site:
		site.first.fail(503)
		site.others[0].say("From Claude.", usage=Usage(5, 7))
		answer = site.chat()
		assert answer.status == 200 and site.fell(answer), answer.body
		assert answer.json["object"] == "chat.completion" and text_of(answer) == "From Claude."
		asked = site.others[0].last
		assert asked.path == "/v1/messages" and asked.header("x-api-key") == "sk-1" and asked.header("Authorization") is None
		assert asked.body["model"] == "claude-x"
		found = site.stream()
		assert found.text == "From Claude." and found.is_done and site.fell(found)
		assert all(doc["object"] == "chat.completion.chunk" for doc in found.docs)


def test_ex7_a_model_without_mapping(gw, site):
	"""7. The primary's 503 is returned untouched."""
	site.first.fail(503, "so busy")
	answer = site.chat(model="other")
	assert answer.status == 503 and answer.json["error"]["message"] == "so busy"
	assert answer.header("X-Sluice-Fallback-From") is None and site.others[0].hits == 0
	assert "leftServices" not in record_of(gw, answer)


def test_ex8_what_the_gateway_refuses_goes_nowhere(gw, site):
	"""8. A 429 of the gateway's own: no upstream attempt at all."""
	limit = {"enableGlobalRules": True, "globalRules": [{"limitType": "LimitByGlobal", "threshold": 1, "timeWindow": 600}],
		"redisConfig": {"serviceHost": "127.0.0.1", "servicePort": free_port(), "database": 0}}
	attachment = gw.attach("AiTokenRateLimit", limit, site.api)
	statuses = [site.chat("one two three four").status for _ in range(4)]
	assert 429 in statuses, statuses
	assert (site.first.hits, site.others[0].hits) == (statuses.count(200), 0)
	gw.delete(attachment)


# ---- the match ----

def test_exact_before_longest_prefix_before_any(gw):
	with Site(gw, "exact", model="qwen-max", others=1) as site:
		def to(model, name):
			return {"model": model, "fallbackModels": [{"serviceId": site.services[0].id, "model": name}]}
		gw.change_policy(site.attachment, {"fallbackModelMappings": [to("*", "any"), to("qwen-*", "prefix"), to("qwen-m*", "longer"),
			to("qwen-max", "exact")]})
		site.first.fail(500)
		for asked, sent in [("qwen-max", "exact"), ("qwen-max2", "longer"), ("qwen-turbo", "prefix"), ("gpt", "any"), ("qwen-", "prefix")]:
			assert site.chat(model=asked).status == 200
			assert site.others[0].last.model == sent, asked


def test_the_key_is_the_model_that_would_be_sent(gw, site):
	"""FBK-1: after the model API has renamed it."""
	api = llm_api(gw, {"service": site.primary, "modelName": "gpt-4"})
	site.first.fail(503)
	answer = chat(gw, api.base, "hi", model="alias")
	assert answer.status == 200 and site.first.last.model == "gpt-4" and site.others[0].last.model == "backup-1"


def test_the_primary_itself_with_another_model(gw):
	with Site(gw, others=1) as site:
		gw.change_policy(site.attachment, {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": site.primary.id, "model": "small"}]}]})
		site.first.always(lambda request: site.first.saying("small one") if request.model == "small" else site.first.failure(503))
		answer = site.chat()
		assert answer.status == 200 and text_of(answer) == "small one" and site.fell(answer)
		assert [one.model for one in site.first.requests] == ["gpt-4", "small"]
		# Where the candidate is what failed, nothing is repeated.
		site.first.clear().fail(503)
		assert site.chat(model="small").status == 503 and site.first.hits == 1


# ---- what acts, what does not ----

def test_an_empty_stream(site):
	site.first.manner(empty=True)
	found = site.stream()
	assert found.text == "From candidate 1." and site.fell(found)
	site.first.manner().stream([Event("[DONE]")])
	assert site.stream().text == "From candidate 1."
	site.first.stream([b": only\n\n", b": comments\n\n"])
	assert site.stream().text == "From candidate 1."
	site.first.manner(cut_after=0)
	assert site.stream().text == "From candidate 1."


def test_a_good_status_with_an_error_in_it(gw, site):
	"""Some servers say 200 and put the error into the body."""
	site.first.answer({"error": {"message": "overloaded", "type": "server_error"}})
	answer = site.chat()
	assert answer.status == 200 and text_of(answer) == "From candidate 1." and site.fell(answer)
	assert record_of(gw, answer)["leftServices"] == [{"service": site.primary.name, "status": 200, "why": "answer"}]


def test_denials_of_the_gateway_do_not_count(gw, site):
	attachment = gw.attach("RateLimit", rate(1), site.api)
	assert [site.chat().status for _ in range(2)] == [200, 429]
	gw.delete(attachment)
	assert site.others[0].hits == 0


def test_an_open_circuit_counts(gw):
	with Site(gw) as site:
		gw.attach("CircuitBreaker", breaker(minRequestAmount=1, triggerRatio=1), site.primary)
		site.first.fail(503)
		assert site.chat().status == 200
		hits = site.first.hits
		answer = wait_until(lambda: (lambda got: got if site.first.hits == hits else None)(site.chat()), what="an open circuit")
		assert answer.status == 200 and site.fell(answer)
		assert record_of(gw, answer)["leftServices"][0]["why"] == "refused"


def test_a_candidate_with_an_open_circuit_is_skipped(gw):
	with Site(gw, others=2) as site:
		gw.attach("CircuitBreaker", breaker(minRequestAmount=1, triggerRatio=1, recoveryTimeoutSec=60), site.services[0])
		site.first.fail(503)
		site.others[0].fail(500)
		for _ in range(3):
			assert site.fell(site.chat(), 2)
		assert site.others[0].hits < 3
		assert site.others[1].hits == 3


def test_a_fallback_service_has_no_fallback_of_its_own(gw):
	with Site(gw, others=2) as site:
		gw.change_policy(site.attachment, {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": site.services[0].id, "model": "a"}]}]})
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": site.services[1].id, "model": "b"}]}]}, site.services[0])
		site.first.fail(503)
		site.others[0].fail(502)
		answer = site.chat()
		assert answer.status == 502 and site.others[1].hits == 0
		# On a route of its own it acts.
		assert chat(gw, llm_api(gw, site.services[0]).base, "hi").status == 200


def test_the_settings_narrow_it(gw):
	own = gw.gateway()
	gw.feature("ai.fallback.on", ["5xx", "429"], own)
	with ModelServer() as first, ModelServer("second") as second:
		primary, backup = ai_service(gw, first, site=own), ai_service(gw, second, site=own)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": backup.id, "model": "m"}]}]}, primary)
		base = llm_api(gw, primary, site=own).base
		for status, seen in [(400, 400), (429, 200), (404, 404), (500, 200), (503, 200)]:
			first.fail(status)
			assert chat(gw, base, "hi", site=own).status == seen
		gw.feature("ai.fallback.on", ["404"], own)
		for status, seen in [(404, 200), (500, 500)]:
			first.fail(status)
			assert chat(gw, base, "hi", site=own).status == seen
		first.then(Nothing())    # no answer at all is always a failure
		assert chat(gw, base, "hi", site=own).status == 200


@pytest.mark.parametrize("value", [[], ["6xx"], ["200"], ["600"], ["4"], [503], ["5XX"], "5xx", ["-400"], ["+400"], [" 400"]], ids=str)
def test_the_setting_is_checked(gw, value):
	answer = gw.api("PUT", f"/api/v1/gateways/{gw.default.id}/gateway-features/ai.fallback.on", {"value": value})
	assert answer[0] == 400 and "value" in answer[1]["errorMessage"], answer


def test_the_client_that_leaves_is_not_replaced(gw, site):
	live = site.first.live()
	with open_chat(gw, site.base, "hi"):
		live.asked()
	assert live.closed.wait(10)
	assert site.chat().status == 200
	assert site.others[0].hits == 0


# ---- tries ----

def test_retries_of_the_primary_come_first(gw, site):
	gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx", "non_idempotent"]}, site.primary)
	site.first.fail(503)
	assert site.fell(site.chat())
	assert (site.first.hits, site.others[0].hits) == (3, 1)


def test_headers_are_not_those_of_the_first_try(gw, site):
	site.first.fail(503)
	answer = site.chat(headers={"X-Mine": "kept", "Authorization": "Bearer client", "x-api-key": "client"})
	assert answer.status == 200
	for asked, key in [(site.first.last, "sk-first"), (site.others[0].last, "sk-1")]:
		assert asked.header("X-Mine") == "kept" and asked.header("Authorization") == f"Bearer {key}"
		assert asked.header("x-api-key") is None
		assert len(asked.all("Host")) == len(asked.all("Content-Length")) == len(asked.all("Content-Type")) == 1
	names = [sorted(name.lower() for name, _ in asked.headers) for asked in (site.first.last, site.others[0].last)]
	assert names[0] == names[1]


def test_eight_candidates_in_order(gw):
	with Site(gw, others=8) as site:
		site.first.fail(503)
		for one in site.others[:7]:
			one.fail(500)
		answer = site.chat()
		assert answer.status == 200 and site.fell(answer, 8) and text_of(answer) == "From candidate 8."
		assert [one.last.model for one in site.others] == [f"backup-{i + 1}" for i in range(8)]


def test_the_time_of_the_route_covers_all(gw):
	"""FBK-7."""
	with Site(gw, others=2) as site:
		gw.attach("Timeout", timeout(0.7), site.api)
		site.first.always(Nothing(hold=True))
		answer = site.chat()
		assert answer.status == 504 and answer.json["error"]["type"] == "api_error"
		assert site.others[0].hits == 0


def test_the_time_of_the_service_is_a_failure_of_it(gw, site):
	gw.attach("Timeout", timeout(0.3), site.primary)
	site.first.always(Nothing(hold=True))
	answer = site.chat()
	assert answer.status == 200 and site.fell(answer)
	assert record_of(gw, answer)["leftServices"] == [{"service": site.primary.name, "status": 0, "why": "timeout"}]


def test_a_stream_without_a_first_token_in_time(gw, site):
	"""The head and empty chunks are no answer: the time of the service holds until there is content."""
	gw.attach("Timeout", timeout(0.4), site.primary)
	live = site.first.live()
	with open_chat(gw, site.base, "hi") as found:
		live.head().event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
		found.rest()
		assert found.text == "From candidate 1." and site.fell(found)
	assert live.closed.wait(10)


def test_a_slow_stream_with_content_is_not_cut(gw, site):
	gw.attach("Timeout", timeout(0.4), site.primary)
	live = site.first.live()
	with open_chat(gw, site.base, "hi") as found:
		live.head().event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
		assert found.next().json["choices"]
		wait_millis(700)
		live.event({"choices": [{"index": 0, "delta": {"content": "b"}}]}).event("[DONE]").end()
		assert found.rest().text == "ab" and site.others[0].hits == 0


def test_the_head_waits_for_content(gw, site):
	"""FBK-6: nothing of the answer is released before there is content; everything of it then."""
	live = site.first.live()
	with open_chat(gw, site.base, "hi") as found:
		role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
		live.head().event(role)
		assert found.connection.is_idle(0.2)
		live.event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
		assert found.next().json == role and found.next().json["choices"][0]["delta"] == {"content": "a"}
		live.event("[DONE]").end()
		assert found.rest().is_done


@pytest.mark.parametrize("manner", [{"segment": 1}, {"eol": "\r\n"}, {"comments": True}, {"framing": "close"}], ids=str)
def test_streams_are_the_same_with_and_without_it(gw, site, manner):
	site.first.manner(**manner)
	plain = stream(gw, llm_api(gw, ai_service(gw, site.first)).base, "hi")
	assert site.stream().raw == plain.raw and plain.text == "From the first."


def test_other_apis_fall_back_too(gw, site):
	site.first.fail(503)
	answer = embeddings(gw, site.base, "text", model="gpt-4")
	assert answer.status == 200 and site.fell(answer) and site.others[0].last.model == "backup-1"
	answer = responses(gw, site.base, "text")
	assert answer.status == 200 and answer.json["object"] == "response" and site.fell(answer)
	site.first.manner(error_first=True).say("x")
	answer = post(gw, f"{site.base}/v1/responses", {"model": "gpt-4", "input": "x", "stream": True})
	assert site.fell(answer) and b"response.completed" in answer.body


def test_anthropic_clients(gw):
	with ModelServer() as first, ModelServer("From the second.") as second:
		primary, backup = ai_service(gw, first, "anthropic", ["k-1"]), ai_service(gw, second, "anthropic", ["k-2"])
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": backup.id, "model": "claude-y"}]}]}, primary)
		base = llm_api(gw, primary, protocols=[ANTHROPIC]).base
		first.fail(529)
		answer = anthropic(gw, base, "hi")
		assert answer.status == 200 and answer.json["content"][0]["text"] == "From the second."
		assert second.last.header("x-api-key") == "k-2" and second.last.model == "claude-y"
		first.manner(error_first=True).say()
		answer = anthropic(gw, base, "hi", stream=True)
		assert b"overloaded_error" not in answer.body and b"message_stop" in answer.body


def test_a_plain_route_and_plain_services(gw):
	"""A3: it is an AI request on any route, and the services need not be of a provider."""
	with ModelServer() as first, ModelServer("From the second.") as second:
		primary, backup = gw.service(first.port), gw.service(second.port)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": backup.id, "model": "m-2"}]}]}, primary)
		route = gw.route(f"/plain-fallback", primary)
		first.fail(503)
		answer = chat(gw, "/plain-fallback", "hi", headers={"Authorization": "Bearer mine"})
		assert answer.status == 200 and text_of(answer) == "From the second."
		assert second.last.model == "m-2" and second.last.header("Authorization") == "Bearer mine"
		assert answer.header("X-Sluice-Fallback-Index") == "1"
		assert post(gw, "/plain-fallback/v1/chat/completions", b"{no json").status == 503
		gw.delete(route)


# ---- what is counted ----

def test_metrics_and_outcomes(gw):
	with Site(gw, others=2) as site:
		site.chat()
		site.first.fail(503)
		site.chat()
		site.others[0].fail(429)
		site.chat()
		site.others[1].fail(500)
		site.chat()
		site.first.stop()
		site.chat()
		labels = {"from": site.primary.id}
		wait_metric(gw, "ai_fallback_total", 1, **labels, to=site.services[0].id, reason="connect")
		wait_metric(gw, "ai_fallback_total", 3, **labels, to=site.services[0].id, reason="5xx")
		wait_metric(gw, "ai_fallback_total", 3, **labels, to=site.services[1].id, reason="4xx")
		wait_until(lambda: outcomes(gw, site.attachment) == {(site.primary.name, "primary"): 1, (site.primary.name, "fallback"): 2,
			(site.primary.name, "exhausted"): 2}, what="outcomes")


def test_tokens_of_answers_that_were_not_used(gw, site):
	"""USE-9: only the attempt whose answer reached the client is charged."""
	before = metric(gw, "ai_wasted_tokens_total")
	site.first.always(Events([Event({"error": {"message": "x"}, "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}})]))
	assert site.stream().text == "From candidate 1."
	wait_until(lambda: metric(gw, "ai_wasted_tokens_total") == before + 42, what="wasted tokens")


# ---- attaching ----

def test_what_attach_refuses(gw, site):
	def mapping(service, model, of="gpt-4"):
		return gw.policy("AiFallback", {"fallbackModelMappings": [{"model": of, "fallbackModels": [{"serviceId": service, "model": model}]}]})
	plain = ai_service(gw, site.first)
	at = "config.fallbackModelMappings[0].fallbackModels[0]"
	refuse_attach(gw, mapping("svc-none", "m"), plain, 400, f"{at}.serviceId")
	refuse_attach(gw, mapping(plain.id, "gpt-4"), plain, 400, at)
	refuse_attach(gw, mapping(plain.id, "other"), ai_route(gw, site.first), 400, "attachResourceType")
	refuse_attach(gw, mapping(site.services[0].id, "m"), site.primary, 409, "AiFallback")
	elsewhere = ai_service(gw, site.first, site=gw.gateway())
	refuse_attach(gw, mapping(elsewhere.id, "m"), plain, 400, f"{at}.serviceId")


def test_a_change_acts_on_the_next_request(gw, site):
	site.first.fail(503)
	assert site.chat().status == 200
	gw.change_policy(site.attachment, {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
		{"serviceId": site.services[0].id, "model": "changed"}]}]})
	assert site.chat().status == 200 and site.others[0].last.model == "changed"
	gw.change_policy(site.attachment, {"enable": False, "fallbackModelMappings": [{"model": "*", "fallbackModels": [
		{"serviceId": site.services[0].id, "model": "changed"}]}]})
	assert site.chat().status == 503
	gw.delete(site.attachment)
	assert site.chat().status == 503


# ---- models that misbehave ----

@pytest.mark.parametrize("name", BAD_EVENTS)
def test_any_stream_is_the_models_or_the_candidates(site, name):
	"""Whatever the first service sends: the client gets all of it, or all of the candidate's answer, and nothing of both."""
	site.first.stream([BAD_EVENTS[name]])
	found = site.stream()
	if found.header("X-Sluice-Fallback-From"):
		assert found.text == "From candidate 1." and found.is_done
	else:
		assert found.raw == BAD_EVENTS[name]


@pytest.mark.parametrize("name", BAD_BODIES)
def test_any_body_is_the_models_or_the_candidates(site, name):
	site.first.answer(BAD_BODIES[name])
	found = site.chat()
	assert found.status == 200
	if found.header("X-Sluice-Fallback-From"):
		assert text_of(found) == "From candidate 1."
	else:
		assert found.body == BAD_BODIES[name]


@pytest.mark.parametrize("manner", [{"segment": 1}, {"eol": "\r\n"}, {"eol": "\r"}, {"comments": True}, {"coding": "gzip"}, {"coding": "br"},
	{"framing": "close"}, {"framing": "length"}, {"first_delay": 0.1}, {"head_delay": 0.1}, {"final_blank": False}], ids=str)
def test_an_error_first_in_any_manner(site, manner):
	site.first.manner(error_first=True, **manner)
	found = site.stream()
	assert found.text == "From candidate 1." and site.fell(found) and b"error" not in found.raw


@pytest.mark.parametrize("kind", ["ping", "start", "block"])
def test_an_error_after_events_without_content(gw, kind):
	"""Anthropic's stream has several events before the first word; the tokens of its prompt are wasted."""
	with ModelServer("one two", usage=Usage(40, 9)) as first, ModelServer("From the second.") as second:
		primary, backup = ai_service(gw, first, "anthropic"), ai_service(gw, second, "anthropic")
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": backup.id, "model": "m"}]}]}, primary)
		base = llm_api(gw, primary, protocols=[ANTHROPIC]).base
		before = metric(gw, "ai_wasted_tokens_total")
		first.manner(error_after={"start": 1, "block": 2, "ping": 3}[kind])
		answer = anthropic(gw, base, "hi", stream=True)
		assert b"From" in answer.body and b"overloaded" not in answer.body and answer.header("X-Sluice-Fallback-Index") == "1"
		wait_until(lambda: metric(gw, "ai_wasted_tokens_total") > before, what="wasted tokens")
		first.manner(error_after=4)    # the first word
		answer = anthropic(gw, base, "hi", stream=True)
		assert b"overloaded" in answer.body and answer.header("X-Sluice-Fallback-Index") is None


def test_a_flood_before_the_first_word_is_bounded(gw, site):
	"""What is held back of a stream has a bound; then it goes on as it is."""
	comments = [b": " + b"x" * 1000 + b"\n\n"] * 200
	site.first.stream([*comments, Event({"error": {"message": "late"}})])
	found = site.stream()
	assert found.header("X-Sluice-Fallback-From") is None and b"late" in found.raw
	assert found.raw.startswith(b"".join(comments))


def test_a_client_that_leaves_while_the_head_waits(gw, site):
	live = site.first.live()
	with open_chat(gw, site.base, "hi"):
		live.head().event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
	assert live.closed.wait(10) and site.others[0].hits == 0


def test_a_client_that_leaves_during_the_second_try(gw, site):
	site.first.fail(503)
	live = site.others[0].live()
	with open_chat(gw, site.base, "hi"):
		live.asked()
	assert live.closed.wait(10)
	site.first.say()
	assert site.chat().status == 200


def test_the_time_of_the_route_ends_a_stream_without_content(gw, site):
	gw.attach("Timeout", timeout(0.5), site.api)
	live = site.first.live()
	with open_chat(gw, site.base, "hi") as found:
		live.head().event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
		assert found.status == 504
	assert live.closed.wait(10) and site.others[0].hits == 0


# ---- more of what goes on ----

def test_candidates_have_their_own_retry(gw, site):
	gw.attach("Retry", {"attempts": 1, "retryOn": ["5xx", "non_idempotent"]}, site.services[0])
	site.first.fail(503)
	site.others[0].then(site.others[0].failure(500))
	answer = site.chat()
	assert answer.status == 200 and site.fell(answer) and (site.first.hits, site.others[0].hits) == (1, 2)


def test_fallback_comes_last(gw):
	"""The generic Fallback is for services that nobody reached, after the candidates."""
	with Site(gw) as site, ModelServer("The last.") as last:
		gw.attach("Fallback", {"fallBackDestination": [{"serviceId": ai_service(gw, last).id}]}, site.primary)
		site.first.stop()
		assert text_of(site.chat()) == "From candidate 1."
		site.others[0].stop()
		answer = site.chat()
		assert answer.status == 200 and text_of(answer) == "The last." and last.last.model == "gpt-4"
		assert answer.header("X-Sluice-Fallback-From") is None
		assert [left["why"] for left in record_of(gw, answer)["leftServices"]] == ["connect", "connect"]


def test_no_candidate_has_an_endpoint(gw):
	with Site(gw) as site:
		site.first.fail(503)
		site.others[0].stop()
		answer = site.chat()
		assert answer.status == 503 and answer.json["error"]["type"] == "api_error" and site.fell(answer)


def test_agents_fall_back(gw):
	with ModelServer() as first, ModelServer("From the second.") as second:
		primary = agent_service(gw, first, difyConfig={"apiKey": "app-1", "botType": "Chat"})
		backup = agent_service(gw, second, difyConfig={"apiKey": "app-2", "botType": "Chat"})
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": backup.id, "model": "any"}]}]}, primary)
		base = agent_api(gw, primary, "Dify").base
		first.fail(500)
		body = {"query": "hi", "inputs": {}, "user": "u", "response_mode": "blocking"}
		answer = post(gw, f"{base}/v1/chat-messages", body)
		assert answer.status == 200 and answer.json["answer"] == "From the second."
		assert second.last.header("Authorization") == "Bearer app-2" and second.last.body == body
		first.manner(error_first=True).say()
		answer = post(gw, f"{base}/v1/chat-messages", {**body, "response_mode": "streaming"})
		assert b"From" in answer.body and b'"error"' not in answer.body


def test_long_bodies_with_the_setting_raised(gw):
	own = gw.gateway()
	gw.feature("ai.max_request_body", 64 << 20, own)
	with ModelServer() as first, ModelServer("second") as second:
		primary, backup = ai_service(gw, first, site=own), ai_service(gw, second, site=own)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": backup.id, "model": "m"}]}]}, primary)
		base = llm_api(gw, primary, site=own).base
		first.fail(503)
		assert chat(gw, base, "x" * (20 << 20), site=own).status == 200
		assert second.last.body["messages"][0]["content"] == "x" * (20 << 20)


def test_many_at_once(gw):
	with Site(gw, others=2) as site:
		answers = iter(range(10**6))
		lock = threading.Lock()

		def first(request):
			with lock:
				i = next(answers)
			return [site.first.saying("From the first."), site.first.failure(503), Nothing(),
				site.first.saying("x", {"error_first": request.is_stream, "cut_bytes": None if request.is_stream else 5})][i % 4]

		site.first.always(first)
		found = at_once(*[(lambda i=i: [(site.stream if (i + k) % 2 else site.chat)() for k in range(10)]) for i in range(8)])
		texts = {one.text if hasattr(one, "events") else text_of(one) for some in found for one in some}
		assert texts <= {"From the first.", "From candidate 1."} and len(texts) == 2
		assert all(one.status == 200 for some in found for one in some)


def test_an_answer_that_says_nothing_is_an_answer(site):
	"""A model may have nothing to say: a stream with an end of its own is not an empty one."""
	for finish in ("stop", "content_filter"):
		site.first.say("", pieces=(), finish=finish)
		found = site.stream()
		assert found.text == "" and found.is_done and found.header("X-Sluice-Fallback-From") is None
	site.first.manner(has_end=False).stream([Event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}), Event("[DONE]")])
	found = site.stream()    # its end is missing: that is none
	assert found.text == "From candidate 1." and site.fell(found)


def test_a_dry_run_tells_of_it_and_asks_nobody(gw, site):
	answer = gw.ask("POST", "/api/v1/trace", {"method": "POST", "url": f"http://gw.test:{gw.port}{site.base}/v1/chat/completions"})
	step = next(item for item in answer["policies"] if item["className"] == "AiFallback")
	assert step["verdict"] != "NotJudged" and "by 1 mapping" in step["note"], step
	assert site.first.hits == 0
