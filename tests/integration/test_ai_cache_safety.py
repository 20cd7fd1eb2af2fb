"""AiCache: who shares answers with whom, what is never kept, and a Redis that is away, slow or hostile (contract C5, X-2)."""
import json
import subprocess
import threading
import time

import pytest

from ai_kit import ai_log, ai_route, ai_service, at_once, chat, chat_body, embeddings, llm_api, metric, open_chat, record_of, stream, wait_metric
from cache_kit import Cached, cache_config, cached, status_of, text_of
from consumer_kit import allow, basic, consumer
from guard_kit import HIGH, guard_config
from guard_server import GuardServer
from gw import Gateway, numbers
from model_server import Events, ModelServer, Usage
from policy_kit import cors, phase, rate
from redis_kit import RedisCluster, RedisServer, Scripted
from wire import wait_until


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


# ---------- who shares ----------

def two_consumers(gw, to):
	"""Header fields of two that may call."""
	gw.attach("Authentication", {"authenticationType": "basic-auth"}, to=to)
	made = []
	for _ in range(2):
		name = f"user-{next(numbers)}"
		allow(gw, consumer(gw, name, basic={"username": name, "password": "secret-password"}), to)
		made.append(basic(name, "secret-password"))
	return made


def test_ex3_consumers_have_their_own_answers(gw, redis):
	with ModelServer() as model:
		route = ai_route(gw, model)
		first, second = two_consumers(gw, route)
		gw.attach("AiCache", cache_config(redis), to=route)
		assert status_of(chat(gw, route.base, "Hi", headers=first)) == "miss"
		assert status_of(chat(gw, route.base, "Hi", headers=second)) == "miss"
		assert status_of(chat(gw, route.base, "Hi", headers=first)) == "hit"
		refused = chat(gw, route.base, "Hi")
		assert refused.status == 401 and status_of(refused) is None
		assert model.hits == 2


def test_consumers_share_where_the_setting_says_so(redis):
	with Gateway() as gw, ModelServer() as model:
		route = ai_route(gw, model)
		first, second = two_consumers(gw, route)
		gw.attach("AiCache", cache_config(redis), to=route)
		gw.feature("ai.cache.share_consumers", True)
		assert status_of(chat(gw, route.base, "Hi", headers=first)) == "miss"
		assert status_of(chat(gw, route.base, "Hi", headers=second)) == "hit"
		gw.feature("ai.cache.share_consumers", False)
		assert status_of(chat(gw, route.base, "Hi", headers=second)) == "miss"


def test_credentials_that_the_gateway_does_not_know_share_nothing(gw, redis):
	"""On such a route the upstream judges them: what one may ask is not given to another."""
	with ModelServer() as model:
		route = ai_route(gw, model)
		gw.attach("AiCache", cache_config(redis), to=route)
		assert status_of(chat(gw, route.base, "Hi", headers={"Authorization": "Bearer sk-good"})) == "miss"
		assert status_of(chat(gw, route.base, "Hi", headers={"Authorization": "Bearer sk-bad"})) == "miss"
		assert status_of(chat(gw, route.base, "Hi")) == "miss"
		assert status_of(chat(gw, route.base, "Hi", headers={"Authorization": "Bearer sk-good"})) == "hit"
		assert not any("sk-good" in key for key in redis.keys("*"))


def test_credentials_that_go_nowhere_split_nothing(gw, redis):
	"""A model API shows the provider its own key, whatever the client's is."""
	with cached(gw, redis) as one:
		assert status_of(one.chat("Hi", headers={"Authorization": "Bearer sk-one"})) == "miss"
		assert status_of(one.chat("Hi", headers={"Authorization": "Bearer sk-two"})) == "hit"


def test_x9_hits_over_http2(gw, redis):
	with cached(gw, redis) as one:
		one.chat("Hi")
		for stream in (False, True):
			out = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-i", "-H", "Content-Type: application/json", "-H", "Host: gw.test",
				"-d", json.dumps(chat_body("Hi", **({"stream": True} if stream else {}))),
				f"http://127.0.0.1:{gw.port}{one.base}/v1/chat/completions"], capture_output=True, text=True, timeout=60).stdout
			head, _, body = out.replace("\r\n", "\n").partition("\n\n")
			assert head.startswith("HTTP/2 200") and "x-cache-status: hit" in head.lower() and "\nage: " in head.lower()
			assert body.endswith("data: [DONE]\n\n") if stream else json.loads(body)["choices"][0]["message"]["content"]
		assert one.model.hits == 1


def test_policies_and_resources_share_nothing(gw, redis):
	with ModelServer() as model:
		service = ai_service(gw, model)
		apis = [llm_api(gw, service) for _ in range(2)]
		for api in apis:
			gw.attach("AiCache", cache_config(redis), to=api)
			assert status_of(chat(gw, api.base, "Hi")) == "miss"
			assert status_of(chat(gw, api.base, "Hi")) == "hit"


def test_paths_and_hosts_share_nothing(gw, redis):
	with ModelServer() as model:
		route = ai_route(gw, model)
		gw.attach("AiCache", cache_config(redis), to=route)
		assert status_of(chat(gw, f"{route.base}/a", "Hi")) == "miss"
		assert status_of(chat(gw, f"{route.base}/b", "Hi")) == "miss"
		assert status_of(chat(gw, f"{route.base}/a", "Hi")) == "hit"


def test_the_key_in_redis(gw, redis):
	with cached(gw, redis, cacheTTL=500) as one:
		one.chat("Hi")
		wait_until(one.keys, 10, "an entry")
		key, = one.keys()
		assert len(key) == len(f"{one.prefix}-:-:") + 64 and key.startswith(f"{one.prefix}-:-:")
		assert 0 < redis("TTL", key) <= 500
		entry = json.loads(redis("GET", key))
		assert entry["class"] == "openai.chat" and entry["text"] == "Hello from the model." and entry["created"] <= time.time()


def test_hits_do_not_make_it_live_longer(gw, redis):
	with cached(gw, redis, cacheTTL=500) as one:
		one.chat("Hi")
		key, = wait_until(one.keys, 10, "an entry")
		redis("EXPIRE", key, 100)
		assert status_of(one.chat("Hi")) == "hit" and redis("TTL", key) <= 100


def test_a_shorter_time_counts_at_once(gw, redis):
	with cached(gw, redis, cacheTTL=500) as one:
		one.chat("Hi")
		key, = wait_until(one.keys, 10, "an entry")
		entry = json.loads(redis("GET", key))
		redis("SET", key, json.dumps({**entry, "created": entry["created"] - 100}))
		assert int(one.chat("Hi").header("Age")) >= 100
		gw.change_policy(one.attachment, cache_config(redis, cacheTTL=50))
		assert status_of(one.chat("Hi")) == "miss"


# ---------- what is never kept ----------

def test_an_answer_of_a_fallback_is_not_kept(gw, redis):
	with cached(gw, redis) as one, ModelServer("from the second") as second:
		other = ai_service(gw, second)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": other.id, "model": "gpt-3"}]}]}, to=one.service)
		one.model.fail(503)
		for _ in range(2):
			answer = one.chat("Hi")
			assert answer.status == 200 and text_of(answer) == "from the second" and status_of(answer) == "miss"
		assert second.hits == 2 and one.keys() == []


def test_what_a_guard_refused_is_not_kept(gw, redis):
	with GuardServer() as guard, cached(gw, redis) as one:
		guard.flag("forbidden", **HIGH)
		attachment = gw.attach("AiSecurityGuard", guard_config(guard, checkResponse=True), to=one.service)
		one.model.say("Something forbidden is said.")
		for _ in range(2):
			assert status_of(one.chat("Hi")) == "miss"
			assert status_of(one.stream("Hi")) == "miss"
		assert one.model.hits == 4 and one.keys() == []
		gw.delete(attachment)


def test_what_a_guard_passed_is_kept_and_not_judged_again(gw, redis):
	with GuardServer() as guard, cached(gw, redis) as one:
		attachment = gw.attach("AiSecurityGuard", guard_config(guard, checkResponse=True), to=one.service)
		assert status_of(one.chat("Hi")) == "miss"
		checks = len(guard.checks)
		assert status_of(one.chat("Hi")) == "hit" and len(guard.checks) == checks
		assert status_of(one.stream("Ho")) == "miss"
		checks = len(guard.checks)
		events = one.stream("Ho")
		assert status_of(events) == "hit" and events.text == "Hello from the model." and len(guard.checks) == checks
		gw.change_policy(attachment, guard_config(guard, checkResponse=True, riskAlertLevel="low"))
		assert status_of(one.chat("Hi")) == "miss"
		gw.delete(attachment)


def test_what_a_guard_could_not_judge_is_not_kept(gw, redis):
	with GuardServer() as guard, cached(gw, redis) as one:
		attachment = gw.attach("AiSecurityGuard", guard_config(guard, checkRequest=False, checkResponse=True), to=one.service)
		guard.break_with(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
		for _ in range(2):
			answer = one.chat("Hi")
			assert answer.status == 200 and status_of(answer) == "miss"
		assert one.model.hits == 2 and one.keys() == []
		gw.delete(attachment)


@pytest.mark.parametrize("more", [{"n": 2}, {"logprobs": True}, {"modalities": ["text", "audio"], "audio": {"voice": "v"}}],
	ids=["n", "logprobs", "audio"])
def test_requests_for_more_than_a_text(gw, redis, more):
	with cached(gw, redis) as one:
		for _ in range(2):
			assert status_of(one.chat("Hi", **more)) == "miss"
		assert one.model.hits == 2 and one.keys() == []


@pytest.mark.parametrize("message", [{"content": None, "refusal": "I may not."},
	{"content": "As they say.", "annotations": [{"type": "url_citation"}]}, {"content": "Hm.", "audio": {"id": "a"}},
	{"content": "", "function_call": {"name": "f", "arguments": "{}"}}], ids=["refusal", "sources", "sound", "call"])
def test_answers_that_hold_more_than_a_text(gw, redis, message):
	with cached(gw, redis) as one:
		one.model.answer({"id": "a", "object": "chat.completion", "model": "gpt-4",
			"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}]})
		for _ in range(2):
			answer = one.chat("Hi")
			assert status_of(answer) == "miss" and answer.json["choices"][0]["message"] == {"role": "assistant", **message}
		assert one.keys() == []


def test_long_answers_are_not_kept(gw, redis):
	with cached(gw, redis) as one:
		one.model.say("long " * 300_000)
		for _ in range(2):
			assert status_of(one.chat("Hi")) == "miss"
		assert one.model.hits == 2 and one.keys() == []
		one.model.say("long " * 100_000)
		first = one.chat("Ho")
		again = one.chat("Ho")
		assert status_of(again) == "hit" and text_of(again) == text_of(first)
		events = one.stream("Ho")
		assert status_of(events) == "hit" and events.text == text_of(first)


def test_a_client_that_leaves_early(gw, redis):
	with cached(gw, redis) as one:
		live = one.model.live()
		events = open_chat(gw, one.base, "Hi")
		live.head().event({"id": "a", "object": "chat.completion.chunk", "model": "m",
			"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Half"}, "finish_reason": None}]})
		assert events.next() is not None
		events.close()
		assert live.closed.wait(20)
		assert status_of(one.chat("Hi")) == "miss" and len(one.keys()) <= 1
		assert text_of(one.chat("Hi")) == "Hello from the model."


# ---------- what a hit costs others ----------

def test_x2_hits_take_no_tokens_but_are_counted_by_rate_limits(gw, redis):
	with cached(gw, redis) as one:
		one.model.say("Yes.", usage=Usage(60, 40))
		gw.attach("AiTokenRateLimit", {"rules": [{"limitType": "LimitByModel", "threshold": 100, "timeWindow": 60}],
			"redisConfig": redis.config}, to=one.api)
		assert one.chat("Hi").status == 200
		for _ in range(3):
			answer = one.chat("Hi")
			assert answer.status == 200 and status_of(answer) == "hit"
		refused = one.chat("Something else")
		assert refused.status == 429 and status_of(refused) == "miss"
		gw.attach("RateLimit", rate(2), to=one.api)
		assert [one.chat("Hi").status for _ in range(4)].count(429) >= 1


def test_record_and_metrics(gw, redis):
	with cached(gw, redis) as one:
		gw.attach("AiStatistics", {}, to=one.api)
		missed, found = one.chat("Hi"), one.chat("Hi")
		skipped = one.chat("Hi", headers={"x-higress-skip-ai-cache": "on"})
		assert [ai_log(gw, answer).get("cache_status") for answer in (missed, found, skipped)] == ["miss", "hit", "skip"]
		hit = ai_log(gw, found)
		assert hit.get("total_token", 0) == 0
		assert one.outcomes() == {"miss": 1, "hit": 1, "skip": 1, "stored": 1}


# ---------- Redis that does not work ----------

def test_ex6_redis_is_down(gw):
	with RedisServer() as redis, cached(gw, redis) as one:
		one.chat("Hi")
		assert status_of(one.chat("Hi")) == "hit"
		redis.stop()
		at = time.monotonic()
		answer = one.chat("Something else")    # what was kept may still be known to be on its way
		assert answer.status == 200 and status_of(answer) == "miss" and time.monotonic() - at < 5
		wait_until(lambda: phase(gw, one.attachment) == "Degraded", 20, "Degraded")
		assert metric(gw, "sluice_dependency_up", attachment=one.attachment.id) == 0
		status = gw.ask("GET", one.attachment.path)["status"]
		assert "Redis" in status["reason"]
		redis.start()
		wait_until(lambda: phase(gw, one.attachment) == "Active", 20, "Active")
		assert status_of(one.chat("New")) == "miss"
		assert status_of(one.chat("New")) == "hit"
		assert one.outcomes()["error"] >= 1


def test_redis_that_does_not_answer_costs_its_timeout_once(gw):
	with RedisServer() as redis, cached(gw, redis) as one:
		one.chat("Hi")
		redis.freeze()
		try:
			at = time.monotonic()
			assert one.chat("Ho").status == 200
			first = time.monotonic() - at
			assert first < 6
			at = time.monotonic()
			answers = [one.chat(f"Hu {i}") for i in range(5)]
			assert {status_of(answer) for answer in answers} == {"miss"} and time.monotonic() - at < 4
		finally:
			redis.freeze(False)
		wait_until(lambda: status_of(one.chat("Ho")) == "hit", 20, "a hit")


def test_a_cluster(gw):
	"""Keys lie on three nodes; the policy names one of them."""
	with RedisCluster() as cluster, cached(gw, cluster.nodes[0].config) as one:
		for expected in ("miss", "hit"):
			assert {status_of(one.chat(f"Question {i}")) for i in range(8)} == {expected}

		def spread():
			return [len(node.keys("sluice:aic:*")) for node in cluster.nodes]
		wait_until(lambda: sum(spread()) == 8, 10, "eight entries")
		assert sum(n > 0 for n in spread()) >= 2
		assert one.model.hits == 8


@pytest.mark.parametrize("value", ["", "null", "[]", "{}", "{\"v\":1}", "not json", "{\"v\":1,\"class\":\"openai.chat\",\"created\":1}",
	"{\"v\":9,\"class\":\"openai.chat\",\"created\":1,\"model\":\"m\",\"text\":\"t\",\"finish\":\"stop\"}",
	"{\"v\":1,\"class\":\"anthropic.messages\",\"created\":9999999999,\"model\":\"m\",\"text\":\"t\",\"finish\":\"stop\"}",
	"{\"v\":1,\"class\":\"openai.chat\",\"created\":9999999999,\"model\":\"m\",\"text\":\" \",\"finish\":\"stop\"}",
	"{\"v\":1,\"class\":\"openai.chat\",\"created\":-1,\"model\":\"m\",\"text\":\"t\",\"finish\":\"stop\"}",
	"{\"v\":1,\"class\":\"openai.chat\",\"created\":1e99,\"model\":\"m\",\"text\":\"t\",\"finish\":\"stop\"}",
	b"\xff\xfe", b"{\"v\":1,\"text\":\"\xff\"}", "[" * 5000, "x" * 2_000_000])
def test_what_is_no_entry_is_a_miss_and_goes(gw, redis, value):
	with cached(gw, redis) as one:
		one.model.say(" ")    # is not kept
		one.chat("Hi")
		one.model.say("Fine.")
		one.chat("Hi")
		key, = wait_until(one.keys, 10, "an entry")
		redis("SET", key, value)
		one.model.say(" ")
		assert status_of(one.chat("Hi")) == "miss"
		wait_until(lambda: one.keys() == [], 10, "the entry's end")


def test_a_key_of_another_type_is_a_miss_and_goes(gw, redis):
	with cached(gw, redis) as one:
		one.chat("Hi")
		key, = wait_until(one.keys, 10, "an entry")
		redis("DEL", key)
		redis("RPUSH", key, "a")
		assert status_of(one.chat("Hi")) == "miss"
		wait_until(lambda: redis("TYPE", key) == "string", 10, "an entry again")


def hostile(data):
	def serve(connection):
		while connection.recv(65536):
			connection.sendall(data)
	return serve


@pytest.mark.parametrize("data", [b"garbage\r\n", b"$-5\r\n", b"$99999999999\r\n", b"*100000000\r\n", b"-ERR no\r\n", b"-WRONGTYPE x\r\n",
	b"+OK\r\n", b":1\r\n", b"HTTP/1.1 400 Bad\r\n\r\n", b"%1\r\n+a\r\n+b\r\n", b"*1\r\n" * 1000])
def test_servers_that_are_no_redis(gw, data):
	with Scripted(hostile(data)) as server, cached(gw, server.config) as one:
		for i in range(2):
			answer = one.chat(f"Hi {i}")
			assert answer.status == 200 and status_of(answer) == "miss" and text_of(answer) == "Hello from the model."


def test_entries_on_their_way_are_found(gw):
	"""The store answers late; the next request does not wait for it."""
	with RedisServer() as redis, cached(gw, redis) as one:
		live = one.model.live()
		found = []
		asking = threading.Thread(target=lambda: found.append(one.chat("Hi")))
		asking.start()
		live.asked()
		redis.freeze()
		try:
			live.head(content_type="application/json").raw(json.dumps({"id": "a", "object": "chat.completion", "model": "gpt-4",
				"choices": [{"index": 0, "message": {"role": "assistant", "content": "From the live one."}, "finish_reason": "stop"}]}).encode())
			live.end()
			asking.join(20)
			assert status_of(found[0]) == "miss"
			again = one.chat("Hi")
			assert status_of(again) == "hit" and text_of(again) == "From the live one."
			assert status_of(one.stream("Hi")) == "hit"
		finally:
			redis.freeze(False)


def delay_of_a_store(one, what):
	"""Seconds between the end of the model's answer and that of the gateway's, while Redis is silent."""
	live, found = one.model.live(), []
	asking = threading.Thread(target=lambda: found.append((one.chat(what), time.monotonic())))
	asking.start()
	live.asked()
	one.redis.freeze()
	try:
		live.head(content_type="application/json").raw(json.dumps({"id": "a", "object": "chat.completion", "model": "gpt-4",
			"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}).encode())
		at = time.monotonic()
		live.end()
		asking.join(30)
		assert found[0][0].status == 200
		return found[0][1] - at
	finally:
		one.redis.freeze(False)


def test_storing_does_not_delay_the_client(gw):
	with RedisServer() as redis, cached(gw, redis) as one:
		one.chat("Warm up")
		# Who waited for the store would wait a second each time.
		assert min(delay_of_a_store(one, f"Question {i}") for i in range(3)) < 0.9


def test_a_client_that_leaves_while_redis_is_asked(gw):
	with RedisServer() as redis, cached(gw, redis) as one:
		one.chat("Warm up")
		redis.freeze()
		try:
			connection = gw.connect()
			data = json.dumps(chat_body("Hi")).encode()
			connection.start("POST", f"{one.base}/v1/chat/completions", {"Content-Type": "application/json", "X-Request-Id": "left-early"}, data)
			wait_until(lambda: metric(gw, "sluice_requests_in_flight") > 0, 10, "a request in flight")
			connection.close()
			wait_until(lambda: one.chat("Ho").status == 200, 20, "an answer")
		finally:
			redis.freeze(False)
		wait_until(lambda: status_of(one.chat("Ho")) == "hit", 20, "a hit")
		assert [request for request in one.model.requests if b'"Hi"' in request.raw] == []


def test_answers_reach_browsers_of_other_origins(gw, redis):
	with cached(gw, redis) as one:
		gw.attach("Cors", cors(), to=one.api)
		for expected in ("miss", "hit"):
			answer = one.chat("Hi", headers={"Origin": "https://example.com"})
			assert status_of(answer) == expected and answer.header("Access-Control-Allow-Origin") == "https://example.com"


def test_a_disabled_policy_does_nothing(gw, redis):
	with cached(gw, redis) as one:
		gw.change_policy(one.attachment, {**cache_config(redis), "enable": False})
		for _ in range(2):
			assert status_of(one.chat("Hi")) is None
		assert one.model.hits == 2


def test_many_at_once(gw, redis):
	with cached(gw, redis) as one:
		answers = at_once(*[lambda i=i: one.chat(f"Question {i % 4}") for i in range(24)])
		assert {answer.status for answer in answers} == {200}
		again = at_once(*[lambda i=i: one.chat(f"Question {i % 4}") for i in range(8)])
		assert {status_of(answer) for answer in again} == {"hit"}


def test_secrets_stay_inside(gw):
	with RedisServer(requirepass="top-secret-word") as redis, cached(gw, {**redis.config, "password": "top-secret-word"}) as one:
		one.chat("Hi")
		assert status_of(one.chat("Hi")) == "hit"
		assert "top-secret-word" not in json.dumps(gw.ask("GET", one.attachment.policy.path))
		redis.stop()
		one.chat("Ho")
		wait_until(lambda: phase(gw, one.attachment) == "Degraded", 20, "Degraded")
		assert "top-secret-word" not in json.dumps(gw.ask("GET", one.attachment.path))
