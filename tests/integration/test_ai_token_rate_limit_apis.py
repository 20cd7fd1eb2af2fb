"""AiTokenRateLimit at model and agent APIs, with other policies, and over HTTP/2."""
import json

import pytest
from ai_kit import (ModelServer, Usage, agent_api, agent_service, ai_log, ai_service, at_once, chat, llm_api, open_chat, post,
	stream)
from consumer_kit import allow, bearer, consumer, key, keys
from h2wire import H2, head
from policy_kit import cors, phase, rate
from redis_kit import RedisServer
from wire import wait_until


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


@pytest.fixture(scope="module", autouse=True)
def patience(gw):
	gw.feature("ai.token_limit.wait_ms", 1000)


@pytest.fixture
def model():
	with ModelServer() as server:
		server.say("fine", usage=Usage(60, 40))
		yield server


def rule(limit_type="LimitByConsumer", threshold=100, window=60, **more):
	return {"limitType": limit_type, "threshold": threshold, "timeWindow": window, **more}


def limit(gw, api, redis, *rules, **more):
	return gw.attach("AiTokenRateLimit", {"rules": list(rules), "redisConfig": redis.config, **more}, to=api)


def used(redis, attachment):
	return sum(int(redis("GET", key) or 0) for key in redis.keys(f"sluice:trl:{{{attachment.policy.id}:*"))


def test_budgets_of_consumers_at_a_model_api(gw, model, redis):
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=api)
	texts = [key() for _ in range(2)]
	for text in texts:
		allow(gw, consumer(gw, apiKey=keys(text)), api)
	attachment = limit(gw, api, redis, rule())
	assert chat(gw, api.base, "Hi", headers=bearer(texts[0])).status == 200
	assert chat(gw, api.base, "Hi", headers=bearer(texts[0])).status == 429
	assert chat(gw, api.base, "Hi", headers=bearer(texts[1])).status == 200
	# Who is nobody is refused before budgets are looked at.
	assert chat(gw, api.base, "Hi").status == 401
	assert phase(gw, attachment) == "Active"
	assert all(f":{api.id}:{api.environment}}}" in name for name in redis.keys(f"*{attachment.policy.id}*"))


def test_the_model_is_the_one_that_was_asked_for(gw, model, redis):
	api = llm_api(gw, [{"service": ai_service(gw, model), "modelName": "real-model"}])
	limit(gw, api, redis, rule("LimitByModel"))
	assert chat(gw, api.base, "Hi", model="alias-a").status == 200
	assert model.last.body["model"] == "real-model"
	assert chat(gw, api.base, "Hi", model="alias-a").status == 429
	assert chat(gw, api.base, "Hi", model="alias-b").status == 200


def test_agents_count_too(gw, model, redis):
	api = agent_api(gw, agent_service(gw, model, difyConfig={"apiKey": "app-dify", "botType": "Chat"}), "Dify")
	attachment = limit(gw, api, redis, rule())
	body = {"query": "Hi", "inputs": {}, "response_mode": "blocking", "user": "u"}
	assert post(gw, f"{api.base}/v1/chat-messages", body).status == 200
	wait_until(lambda: used(redis, attachment) == 100, 10, "the charge")
	assert post(gw, f"{api.base}/v1/chat-messages", body).status == 429


def test_a_cached_answer_needs_no_budget(gw, model, redis):
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("AiCache", {"cacheTTL": 600, "cacheMode": "exact", "redisConfig": redis.config}, to=api)
	attachment = limit(gw, api, redis, rule())
	assert chat(gw, api.base, "What is 2+2?").status == 200
	wait_until(lambda: used(redis, attachment) == 100, 10, "the charge")
	for _ in range(3):
		again = chat(gw, api.base, "What is 2+2?")
		assert (again.status, again.header("X-Cache-Status")) == (200, "hit")
	assert chat(gw, api.base, "What is 3+3?").status == 429
	assert used(redis, attachment) == 100 and model.hits == 1


def test_limits_of_requests_come_first_and_refusals_carry_the_fields_of_cors(gw, model, redis):
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("Cors", cors(), to=api)
	limit(gw, api, redis, rule())
	origin = {"Origin": "https://example.com"}
	assert chat(gw, api.base, "Hi", headers=origin).status == 200
	refused = chat(gw, api.base, "Hi", headers=origin)
	assert (refused.status, refused.header("Access-Control-Allow-Origin")) == (429, "https://example.com")
	gw.attach("RateLimit", rate(1, responseStatusCode=420), to=api)
	assert 420 in [chat(gw, api.base, "Hi").status for _ in range(5)]


def test_a_disabled_policy_is_as_if_absent(gw, model, redis):
	api = llm_api(gw, ai_service(gw, model))
	attachment = limit(gw, api, redis, rule())
	assert [chat(gw, api.base, "Hi").status for _ in range(2)] == [200, 429]
	config = {"rules": [rule()], "redisConfig": redis.config}
	gw.change_policy(attachment, {**config, "enable": False})
	answer = chat(gw, api.base, "Hi")
	assert answer.status == 200 and answer.header("X-TokenRateLimit-Limit") is None
	# The budget is where it was.
	gw.change_policy(attachment, config)
	assert chat(gw, api.base, "Hi").status == 429
	# A higher threshold is in force with the call.
	gw.change_policy(attachment, {"rules": [rule(threshold=150)], "redisConfig": redis.config})
	assert chat(gw, api.base, "Hi").status == 200


def test_http2_has_the_same_limits(gw, model, redis):
	api = llm_api(gw, ai_service(gw, model))
	limit(gw, api, redis, rule())
	body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
	fields = head(f"{api.base}/v1/chat/completions", "POST", more=[("content-type", "application/json")])
	with H2(gw.port) as h2:
		first, second = (h2.answer(h2.start(fields, body)) for _ in range(2))
	assert [(answer.status, dict(answer.headers)["x-tokenratelimit-remaining"]) for answer in (first, second)] == [(200, "100"), (429, "0")]


def test_a_policy_that_goes_away_leaves_running_streams_alone(gw, model, redis):
	api = llm_api(gw, ai_service(gw, model))
	attachment = limit(gw, api, redis, rule())
	live = model.live()
	with open_chat(gw, api.base, "Hi") as answer:
		live.asked()
		live.head()
		gw.delete(attachment)
		live.event({"id": "c", "object": "chat.completion.chunk", "model": "m",
			"choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": None}]})
		live.event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [],
			"usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}})
		live.event("[DONE]").end()
		assert answer.rest().is_done
	wait_until(lambda: used(redis, attachment) == 25, 10, "the charge")
	assert stream(gw, api.base, "Hi").is_done


def test_many_rules_and_many_at_once(gw, model, redis):
	"""64 rules: the most there can be."""
	model.say("fine", usage=Usage(1, 1))
	api = llm_api(gw, ai_service(gw, model))
	rules = [rule("LimitByModel" if i % 2 else "LimitByConsumer", 100000 + i, 60 + i) for i in range(32)]
	everybody = [rule("LimitByGlobal", 100000 + i, 60 + i) for i in range(32)]
	attachment = limit(gw, api, redis, *rules, enableGlobalRules=True, globalRules=everybody)
	answers = at_once(*[lambda: chat(gw, api.base, "Hi") for _ in range(20)])
	assert {answer.status for answer in answers} == {200}
	wait_until(lambda: used(redis, attachment) == 64 * 40, 20, "all charges")


def test_every_token_counts_once_whatever_becomes_of_requests(gw, model, redis):
	"""Whole answers, streams, streams that clients leave, errors; many at once. What the records say is what Redis has."""
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("AiStatistics", {"aiStatisticsConfig": {"logRequestContent": False, "logResponseContent": False}}, to=api)
	attachment = limit(gw, api, redis, rule(threshold=10**9))
	asked = []

	def whole(text):
		asked.append(chat(gw, api.base, text).request_id)

	def events(text):
		asked.append(stream(gw, api.base, text).request_id)

	def leave(text):
		with open_chat(gw, api.base, text) as answer:
			asked.append(answer.request_id)
			answer.next()

	def many(seed):
		for i in range(12):
			(whole, events, leave)[(seed + i) % 3](f"{'word ' * (i + seed)}?")
	model.manner(event_delay=0.002)
	at_once(*[lambda seed=seed: many(seed) for seed in range(6)])
	logs = [ai_log(gw, request_id) for request_id in asked]
	assert len(logs) == 72 and all("total_token" in log for log in logs)
	total = sum(log["total_token"] for log in logs)
	wait_until(lambda: used(redis, attachment) == total, 20, f"{total} tokens in Redis")
