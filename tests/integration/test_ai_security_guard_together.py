"""AiSecurityGuard beside the other policies of model APIs: fallbacks, caches, budgets, records, conversions (contract X, B1, B3)."""
import pytest

from ai_kit import (ANTHROPIC, OPENAI, ai_log, ai_service, anthropic, chat, llm_api, record_of, stream, stream_of)
from cache_kit import cache_config, status_of
from gw import Gateway
from guard_kit import HIGH, SORRY, answers, both, check_denied, check_stream_end, guard_config, guarded
from guard_server import GuardServer
from model_server import ModelServer, Usage
from policy_kit import ip_list, outcomes, rate
from redis_kit import RedisServer
from side_services import plain
from wire import wait_until


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


@pytest.fixture(scope="module")
def redis(gw):
	gw.feature("ai.token_limit.wait_ms", 1000)
	with RedisServer() as server:
		yield server


# ---------- fallbacks ----------

def test_x6_the_guard_of_the_second_service_guards_the_second_try(gw):
	with GuardServer() as guard, ModelServer() as first, ModelServer() as second:
		guard.flag("bad", **HIGH)
		one, other = ai_service(gw, first), ai_service(gw, second)
		fallback = gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "gpt-4",
			"fallbackModels": [{"serviceId": other.id, "model": "gpt-4-backup"}]}]}, to=one)
		guarding = gw.attach("AiSecurityGuard", guard_config(guard, checkResponse=True), to=other)
		api = llm_api(gw, one)
		first.say("something bad")
		assert chat(gw, api.base, "bad").json["choices"][0]["message"]["content"] == "something bad"
		assert guard.checks == []
		first.fail(503)
		refused = chat(gw, api.base, "bad")
		assert refused.header("X-Guard-Status") == "request-denied" and second.hits == 0
		second.say("something bad")
		assert chat(gw, api.base, "good").header("X-Guard-Status") == "response-denied"
		gw.delete(guarding)
		gw.delete(fallback)


def test_x6_of_two_guards_each_judges_its_own_try(gw):
	with GuardServer() as loose, GuardServer() as strict, ModelServer() as first, ModelServer() as second:
		strict.flag("bad", **HIGH)
		one, other = ai_service(gw, first), ai_service(gw, second)
		made = [gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "gpt-4",
			"fallbackModels": [{"serviceId": other.id, "model": "gpt-4-backup"}]}]}, to=one),
			gw.attach("AiSecurityGuard", guard_config(loose, checkResponse=True), to=one),
			gw.attach("AiSecurityGuard", guard_config(strict, checkResponse=True), to=other)]
		api = llm_api(gw, one)
		first.fail(500)
		assert chat(gw, api.base, "bad").header("X-Guard-Status") == "request-denied"
		second.say("0123456789 this is bad")
		got = stream(gw, api.base, "good")
		assert got.text == SORRY and got.is_done
		assert len(loose.requests) == 2 and loose.responses == []
		assert len(strict.requests) == 2 and len(strict.responses) == 1
		# a refusal is an answer: nobody else is asked
		loose.flag("bad", **HIGH)
		assert chat(gw, api.base, "bad").header("X-Guard-Status") == "request-denied"
		assert len(strict.requests) == 2
		for attachment in made:
			gw.delete(attachment)


# ---------- caches and budgets ----------

def test_x2_kept_answers_ask_no_guard_and_refused_ones_are_not_kept(gw, redis):
	with guarded(gw, **both(bufferLimit=20)) as one:
		one.guard.flag("bad", **HIGH)
		cache = gw.attach("AiCache", cache_config(redis), to=one.api)
		one.model.say("a good answer")
		assert status_of(one.chat("first")) == "miss"
		wait_until(lambda: status_of(one.chat("first")) == "hit", 10, "a hit")
		asked, hits = len(one.guard.checks), one.model.hits
		assert status_of(one.chat("first")) == "hit" and status_of(one.stream("first")) == "hit"
		assert (len(one.guard.checks), one.model.hits) == (asked, hits)
		# refused answers, whole and in the middle of a stream, and refused requests
		one.model.say("this answer is bad")
		for _ in range(2):
			assert one.chat("second").header("X-Guard-Status") == "response-denied"
		one.model.say("a beginning of twenty characters, then it is bad", pieces=("a beginning of twenty characters,", " then it is bad"))
		for _ in range(2):
			assert one.stream("third").text == "a beginning of twenty characters," + SORRY
		for _ in range(2):
			check_denied(one.chat("bad"))
		# what nobody judged is not kept either
		one.model.say("a good answer")
		one.guard.break_with(plain(500))
		for _ in range(2):
			assert status_of(one.chat("fourth")) == "miss"
		gw.delete(cache)


def test_tokens_of_refusals(gw, redis):
	"""A refused request cost nothing; a refused answer was made."""
	with guarded(gw, **both(bufferLimit=10)) as one:
		one.guard.flag("bad", **HIGH)
		config = {"rules": [{"limitType": "LimitByModel", "threshold": 30, "timeWindow": 600}], "redisConfig": redis.config}
		budget = gw.attach("AiTokenRateLimit", config, to=one.api)
		one.model.say("fine", usage=Usage(4, 6))
		for _ in range(5):
			check_denied(one.chat("bad"))
		assert one.chat("good").status == 200
		one.model.say("this is bad", usage=Usage(4, 6))
		assert one.chat("good").header("X-Guard-Status") == "response-denied"
		assert one.chat("good").header("X-Guard-Status") == "response-denied"
		assert one.chat("good").status == 429
		gw.delete(budget)


# ---------- records ----------

def test_what_the_record_says(gw):
	with guarded(gw, **both(bufferLimit=10, requestCheckService="LLM")) as one:
		statistics = gw.attach("AiStatistics", {}, to=one.api)
		one.guard.flag("bad", RiskLevel="high", Result=[{"Label": "violence"}]).flag("ugly", **HIGH)
		one.guard.delay = 0.03
		one.model.say("fine")
		passed = ai_log(gw, one.chat("good"))
		assert passed["safecheck_status"] == "response pass"
		assert 30 <= passed["safecheck_request_rt"] < 5000 and 30 <= passed["safecheck_response_rt"] < 5000
		assert "safecheck_riskLabel" not in passed or not passed["safecheck_riskLabel"]
		refused = one.chat("bad")
		log = ai_log(gw, refused)
		assert (log["safecheck_status"], log["safecheck_riskLabel"]) == ("request deny", "violence")
		assert log.get("total_token", 0) == 0
		record = record_of(gw, refused)
		assert record["flag"] == "SG" and record["status"] == 200
		one.model.say("that is really ugly")
		assert ai_log(gw, one.chat("good"))["safecheck_status"] == "response deny"
		got = one.stream("good")
		log = ai_log(gw, got)
		assert log["safecheck_status"] == "response deny" and log["safecheck_riskLabel"] == "contentModeration_label"
		assert log["output_token"] > 0
		one.guard.break_with(plain(500))
		assert ai_log(gw, one.chat("good"))["safecheck_status"] == "error"
		gw.delete(statistics)


# ---------- conversions ----------

def test_what_is_converted_is_judged_as_the_client_reads_it(gw):
	"""A client of Anthropic's API before a model of OpenAI's."""
	with guarded(gw, protocol=ANTHROPIC, provider="openai", **both(bufferLimit=20)) as one:
		one.guard.flag("bad", **HIGH)
		body = {"model": "claude-3", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
		assert anthropic(gw, one.base, "bad").json["content"] == [{"type": "text", "text": SORRY}]
		assert one.model.hits == 0
		one.model.say("a good answer")
		assert anthropic(gw, one.base, "hi").json["content"][0]["text"] == "a good answer"
		assert one.model.last.path.endswith("/chat/completions")
		one.model.say("twenty characters of it and then bad words", pieces=("twenty characters of it", " and then bad words"))
		refused = anthropic(gw, one.base, "hi")
		assert refused.header("X-Guard-Status") == "response-denied" and refused.json["content"][0]["text"] == SORRY
		got = stream_of(gw, f"{one.base}/v1/messages", {**body, "stream": True})
		assert got.text == "twenty characters of it" + SORRY
		names = [event.name for event in got.events]
		assert names[0] == "message_start" and names[-1] == "message_stop"
		assert names.count("content_block_start") == names.count("content_block_stop")


def test_the_other_way_round(gw):
	with guarded(gw, protocol=OPENAI, provider="anthropic", **both(bufferLimit=20)) as one:
		one.guard.flag("bad", **HIGH)
		check_denied(one.chat("bad"))
		one.model.say("twenty characters of it and then bad words", pieces=("twenty characters of it", " and then bad words"))
		assert one.chat("hi").header("X-Guard-Status") == "response-denied"
		got = one.stream("hi")
		assert got.text == "twenty characters of it" + SORRY
		check_stream_end(got.events)


# ---------- the order ----------

def test_x3_what_comes_before_answers_before(gw):
	with guarded(gw) as one:
		one.guard.flag("bad", **HIGH)
		limit = gw.attach("RateLimit", rate(1), to=one.api)
		check_denied(one.chat("bad"))
		assert one.chat("bad").status == 429
		assert len(one.guard.checks) == 1
		door = gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1"), to=one.api)
		assert one.chat("bad").status == 403
		assert len(one.guard.checks) == 1
		gw.delete(door)
		gw.delete(limit)
		check_denied(one.chat("bad"))


def test_a_dry_run_asks_nobody(gw):
	with guarded(gw) as one:
		answer = gw.ask("POST", "/api/v1/trace", {"method": "POST", "url": f"http://gw.test:{gw.port}{one.base}/v1/chat/completions"})
		step = next(item for item in answer["policies"] if item["className"] == "AiSecurityGuard")
		assert step["verdict"] == "NotJudged"
		assert one.guard.checks == [] and one.model.hits == 0


# ---------- changes while it runs ----------

def test_x5_streams_end_as_they_began(gw):
	"""A guard that is attached, changed or detached counts for the requests that come afterwards."""
	with guarded(gw, **answers(bufferLimit=10)) as one:
		live = one.model.live()
		got = one.open()
		live.head().event({"choices": [{"index": 0, "delta": {"content": "more than ten characters"}}]})
		while "characters" not in got.text:
			assert got.next()
		one.guard.flag("bad", **HIGH)
		gw.delete(one.attachment)
		live.event({"choices": [{"index": 0, "delta": {"content": " and a bad one at last"}}]}).event("[DONE]").end()
		got.rest()
		assert got.text.endswith(SORRY) and got.is_done
		one.model.say("bad and free")
		assert one.stream().text == "bad and free"
		one.attachment = gw.attach("AiSecurityGuard", guard_config(one.guard, **answers()), to=one.service)
		assert one.stream().text == SORRY
		assert outcomes(gw, one.attachment)
