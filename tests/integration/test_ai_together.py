"""The policies for models together, and with all others: the contract's part D. Serial: it measures what waits and what they add."""
import json
import statistics
import threading
import time

import pytest
from ai_kit import (ModelServer, Stream, Usage, ai_log, ai_route, ai_service, chat, chat_body, llm_api, metric, open_chat, record_of,
	stream)
from cache_kit import cache_config
from consumer_kit import allow, bearer, consumer, key, keys
from gw import IS_SANITIZED, Gateway
from guard_kit import HIGH, guard_config
from guard_server import GuardServer
from h2wire import H2
from model_server import Said
from model_shapes import events
from policy_kit import cors, ip_list, outcomes, preflight, rate
from redis_kit import RedisServer
from scripted import Scripted
from search_kit import Engine, search_config
from side_services import SideService
from test_waf import has_packages
from wire import wait_until

ORIGIN = {"Origin": "https://example.com"}
TOOLS = [{"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object", "properties": {}}}}
	for name in ("look_up", "delete_all")]
SELECTION = {"tools": [{"name": "look_up", "description": "", "enabled": True}, {"name": "delete_all", "description": "", "enabled": False}]}


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		gateway.feature("ai.token_limit.wait_ms", 1000)
		yield gateway


def token_limit(redis, threshold, **more):
	return {"enableGlobalRules": True, "globalRules": [{"limitType": "LimitByGlobal", "threshold": threshold, "timeWindow": 600, **more}],
		"redisConfig": redis if isinstance(redis, dict) else redis.config}


def fallback_to(service, model="backup"):
	return {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": service.id, "model": model}]}]}


class Everything:
	"""A model API with every policy for models, and those for callers, around a model and a backup. `attached` by class."""

	def __init__(self, gw, redis, tokens=1_000_000):
		self.gw = gw
		self.first, self.backup = ModelServer("From the first."), ModelServer("From the backup.")
		self.guard, self.engine, self.auth = GuardServer(), Engine("bing"), SideService()
		self.guard.flag("forbidden", **HIGH)
		self.primary, self.second = ai_service(gw, self.first), ai_service(gw, self.backup)
		self.api = llm_api(gw, self.primary)
		self.plain = llm_api(gw, ai_service(gw, self.first))
		self.base = self.api.base
		self.key = key()
		self.consumer = consumer(gw, apiKey=keys(self.key))
		allow(gw, self.consumer, self.api)
		self.attached = {}
		for name, config, to in [("Cors", cors(), self.api), ("ExternalZAuth", {"authServiceUrl": self.auth.url + "/auth", "timeout": 2000}, self.api),
				("Authentication", {"authenticationType": "key-auth"}, self.api), ("RateLimit", rate(100000), self.api),
				("AiStatistics", {}, self.api), ("AiCache", cache_config(redis), self.api), ("AiTokenRateLimit", token_limit(redis, tokens), self.api),
				("AiToolSelection", SELECTION, self.api), ("AiNetworkSearch", search_config(self.engine), self.api),
				("AiFallback", fallback_to(self.second), self.primary),
				("AiSecurityGuard", guard_config(self.guard, checkResponse=True), self.primary)]:
			self.attached[name] = gw.attach(name, config, to)

	def headers(self, **more):
		return {**bearer(self.key), **ORIGIN, **more}

	def drop(self, name):
		self.gw.delete(self.attached.pop(name))

	def chat(self, what="hi", **more):
		return chat(self.gw, self.base, what, headers=more.pop("headers", self.headers()), **more)

	def stream(self, what="hi", **more):
		return stream(self.gw, self.base, what, headers=self.headers(), **more)

	def __enter__(self):
		return self

	def __exit__(self, kind, *_):
		for name in list(self.attached):
			self.drop(name)
		for one in (self.first, self.backup):
			one.stop()
		for one in (self.engine, self.auth):
			one.__exit__(None, None, None)
		self.guard.__exit__(kind, None, None)


# ---- everything on one route ----

STATUS_KEYS = {"cache_status": "miss", "safecheck_status": None, "search_status": None, "usage_source": None, "total_token": 12}


def test_x8_all_on_one_route(gw, redis):
	with Everything(gw, redis) as site:
		site.first.say("Hello there.", usage=Usage(5, 7))
		found = site.stream("all of it", tools=TOOLS)
		assert found.status == 200 and found.text.startswith("Hello there.") and found.is_done, found.raw
		log = ai_log(gw, found)
		for name, value in STATUS_KEYS.items():
			assert name in log and (value is None or log[name] == value), (name, log)
		assert log["consumer"] == site.consumer.name and log["response_type"] == "stream"
		asked = site.first.last.body
		assert [tool["function"]["name"] for tool in asked["tools"]] == ["look_up"]
		assert "One thing is said here." in json.dumps(asked["messages"])
		assert asked["stream_options"] == {"include_usage": True} and found.usage is None
		assert len(site.auth.asked) == 1 and len(site.engine.asked) == 1 and {check.is_request for check in site.guard.checks} == {True, False}
		assert found.header("X-Cache-Status") == "miss" and found.header("Access-Control-Allow-Origin") == ORIGIN["Origin"]


def test_x8_with_a_fallback(gw, redis):
	with Everything(gw, redis) as site:
		site.first.manner(error_first=True)
		found = site.stream("something else")
		assert found.text.startswith("From the backup.") and found.header("X-Sluice-Fallback-Index") == "1"
		log = ai_log(gw, found)
		assert log["fallback_from"] == site.primary.id and log["model"] == "backup"
		assert log["request_model"] == "gpt-4"
		# FBK-9: it is not kept.
		site.first.manner()
		again = site.stream("something else")
		assert again.header("X-Cache-Status") == "miss" and again.text.startswith("From the first.")


def test_x8_what_it_adds(gw, redis):
	"""Side calls that take no time: the medians differ by less than 5 ms (a sanitized build gets more)."""
	with Everything(gw, redis) as site:
		site.drop("AiCache")    # every request goes all the way

		def median(base, headers):
			taken = []
			for i in range(60):
				start = time.perf_counter()
				assert chat(gw, base, f"question {i}", headers=headers).status == 200
				taken.append(time.perf_counter() - start)
			return statistics.median(taken[10:]) * 1000

		bare, full = median(site.plain.base, {}), median(site.base, site.headers())
		# Four side calls to servers of Python are in there.
		assert full - bare < (60 if IS_SANITIZED else 15), (bare, full)


# ---- a hit ----

def test_x2_a_hit_asks_nobody_and_costs_nothing(gw, redis):
	with Everything(gw, redis) as site:
		site.first.say("Kept.", usage=Usage(5, 7))
		assert site.chat("keep this").header("X-Cache-Status") == "miss"
		before = (site.first.hits, len(site.guard.checks), len(site.engine.asked))
		site.drop("AiTokenRateLimit")
		site.attached["AiTokenRateLimit"] = gw.attach("AiTokenRateLimit", token_limit(redis, 1), site.api)
		site.drop("RateLimit")
		site.attached["RateLimit"] = gw.attach("RateLimit", rate(3), site.api)
		assert site.chat("another question").status == 200    # uses the budget of tokens up
		spent = (site.first.hits, len(site.guard.checks), len(site.engine.asked))
		assert spent[0] == before[0] + 1
		hit = site.chat("keep this")
		assert hit.status == 200 and hit.header("X-Cache-Status") == "hit"
		assert (site.first.hits, len(site.guard.checks), len(site.engine.asked)) == spent
		log = ai_log(gw, hit)
		assert log["cache_status"] == "hit" and log.get("total_token", 0) == 0
		assert site.chat("a third one").status == 429    # of tokens; the third request
		wait_until(lambda: sum(outcomes(gw, site.attached["RateLimit"]).values()) >= 3, what="three requests that RateLimit counted")
		assert site.chat("keep this").status == 429      # the fourth: RateLimit counts hits too
		site.drop("RateLimit")
		assert chat(gw, site.base, "keep this", headers=ORIGIN).status == 401


# ---- the order ----

def test_x3_the_earliest_stage_answers(gw, redis):
	"""A request that fails everywhere; what answered is taken away, and the next one answers. Each answer carries Cors (X-4)."""
	with Everything(gw, redis) as site:
		site.first.say("x", usage=Usage(50, 50))
		site.drop("AiCache")
		assert site.chat("uses up").status == 200
		for name, config in [("AiTokenRateLimit", token_limit(redis, 1)), ("RateLimit", rate(1))]:
			site.drop(name)
			site.attached[name] = gw.attach(name, config, site.api)
		assert site.chat("uses up").status == 200    # both limits
		site.attached["IpAccessControl"] = gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1"), site.api)
		site.auth.answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
		hits, checks = site.first.hits, len(site.guard.checks)

		def answers(status, **more):
			answer = site.chat("forbidden", **more)
			assert answer.status == status, answer
			assert answer.header("Access-Control-Allow-Origin") == ORIGIN["Origin"], answer
			return answer

		answers(403, headers=ORIGIN)
		assert not site.auth.asked[2:], "the list of addresses comes first"
		site.drop("IpAccessControl")
		path = f"{site.base}/v1/chat/completions"
		assert preflight(gw, path, method="POST").status in (200, 204)
		if has_packages():
			site.attached["Waf"] = gw.attach("Waf", {}, site.api)
			# Of a request with a body it decides when that was read, which is after authentication.
			attack = gw.get(f"{site.base}/v1/models?a=%3Cscript%3Ealert(1)%3C/script%3E", ORIGIN)
			assert attack.status == 403 and gw.wait_record(path=f"{site.base}/v1/models")["policy"] == "Waf"
			assert attack.header("Access-Control-Allow-Origin") == ORIGIN["Origin"] and not site.auth.asked[2:]
			site.drop("Waf")
		answers(403, headers=ORIGIN)    # the authorization service
		site.auth.answer = b"HTTP/1.1 200 Yes\r\nContent-Length: 0\r\n\r\n"
		assert answers(401, headers=ORIGIN).json["error"]["type"] == "authentication_error"
		# One a second: of two that come at once the limit refuses the second.
		wait_until(lambda: record_of(gw, answers(429))["policy"] == "RateLimit", 30, "a request that RateLimit refuses")
		site.drop("RateLimit")
		refused = answers(429)
		assert record_of(gw, refused)["policy"] == "AiTokenRateLimit" and refused.json["error"]["code"] == "rate_limit_exceeded"
		assert (site.first.hits, len(site.guard.checks)) == (hits, checks)
		site.drop("AiTokenRateLimit")
		assert answers(200).header("X-Guard-Status") == "request-denied"
		assert site.first.hits == hits
		site.drop("AiSecurityGuard")
		assert answers(200).header("X-Guard-Status") is None and site.first.hits == hits + 1


# ---- side services that swallow everything ----

class BlackHole(Scripted):
	"""Takes connections and bytes, says nothing."""

	def __init__(self):
		super().__init__(self.swallow)
		self.url = f"http://127.0.0.1:{self.port}"
		self.config = {"serviceHost": "127.0.0.1", "servicePort": self.port}

	def swallow(self, connection):
		connection.socket.settimeout(60)
		while connection.fill():
			connection.buffer = b""


def p99(times):
	return sorted(times)[int(len(times) * 0.99)]


def measure(gw, base, n=200):
	taken = []
	for i in range(n):
		start = time.perf_counter()
		assert chat(gw, base, f"unrelated {i}").status == 200
		taken.append(time.perf_counter() - start)
	return taken


def test_x1_nothing_waits_for_services_that_swallow_everything(gw):
	gw.feature("ai.guard.timeout_ms", 400)
	with BlackHole() as hole, ModelServer("Unrelated.") as other, ModelServer() as model:
		unrelated = llm_api(gw, ai_service(gw, other))
		made = []

		def affected(name, config, on_service=False):
			service = ai_service(gw, model)
			api = llm_api(gw, service)
			made.append(gw.attach(name, config, service if on_service else api))
			return api.base

		cases = {
			affected("ExternalZAuth", {"authServiceUrl": hole.url + "/auth", "timeout": 400}): 403,
			affected("AiSecurityGuard", guard_config(hole.url, checkResponse=True), True): 200,
			affected("AiTokenRateLimit", token_limit(hole.config, 1_000_000)): 200,
			affected("AiCache", cache_config(hole.config)): 200,
			affected("AiNetworkSearch", search_config(hole.url, timeout=400)): 200,
		}
		before = p99(measure(gw, unrelated.base))
		over, wrong = threading.Event(), []

		def press(base, wanted):
			while not over.is_set():
				answer = chat(gw, base, "hi")
				if answer.status != wanted:
					wrong.append((base, wanted, answer))

		threads = [threading.Thread(target=press, args=case) for case in cases.items() for _ in range(3)]
		for thread in threads:
			thread.start()
		during = p99(measure(gw, unrelated.base))
		over.set()
		for thread in threads:
			thread.join(60)
		assert not wrong, wrong[:3]
		# The threads of this test take turns with those that measure; a side call that held a worker would cost 400 ms.
		assert during < max(before * 1.1, 0.2), (before, during)
		for one in made:
			gw.delete(one)


# ---- changes while streams run ----

def test_x5_changes_drop_no_stream(gw, redis):
	text = "word " * 60
	with ModelServer(text) as model, ModelServer("backup") as backup, GuardServer() as guard:
		model.manner(event_delay=0.005)
		primary, second = ai_service(gw, model), ai_service(gw, backup)
		api = llm_api(gw, primary)
		# As the model sends it, asked for usage by the gateway or not; the chunk of usage alone is not the client's.
		asked = events("openai.chat", Said(text), "gpt-4", {"stream_options": {"include_usage": True}})
		wholes = [b"".join(event.encode() for event in sent) for sent in (events("openai.chat", Said(text), "gpt-4"), asked[:-2] + asked[-1:])]
		over, wrong, count = threading.Event(), [], [0]

		def read():
			while not over.is_set():
				found = stream(gw, api.base, "hi")
				count[0] += 1
				if found.status != 200 or found.raw not in wholes or found.is_cut:
					wrong.append((found.status, found.is_cut, found.raw[-300:]))

		threads = [threading.Thread(target=read) for _ in range(16)]
		for thread in threads:
			thread.start()
		for _ in range(4):
			made = [gw.attach("AiStatistics", {}, api), gw.attach("AiTokenRateLimit", token_limit(redis, 10**9), api),
				gw.attach("AiFallback", fallback_to(second), primary), gw.attach("AiSecurityGuard", guard_config(guard, checkResponse=True), primary),
				gw.attach("RateLimit", rate(10**6), api), gw.attach("AiToolSelection", SELECTION, api)]
			gw.change_policy(made[1], token_limit(redis, 10**8))
			gw.change_policy(made[2], fallback_to(second, "changed"))
			wait_until(lambda start=count[0]: count[0] > start + 16 or wrong, 60, "streams that began under these policies")
			for one in made:
				gw.delete(one)
		over.set()
		for thread in threads:
			thread.join(60)
		assert not wrong, (len(wrong), count, wrong[:2])
		assert backup.hits == 0


def test_x5_a_stream_ends_with_the_policies_it_began_with(gw):
	with ModelServer() as model, ModelServer("backup") as backup:
		primary, second = ai_service(gw, model), ai_service(gw, backup)
		api = llm_api(gw, primary)
		statistics_of = gw.attach("AiStatistics", {}, api)
		fallback = gw.attach("AiFallback", fallback_to(second), primary)
		live = model.live()
		with open_chat(gw, api.base, "hi") as found:
			live.head()
			gw.delete(statistics_of)
			gw.delete(fallback)
			live.event({"error": {"message": "late"}}).end()
			assert found.rest().text == "backup"    # it began with AiFallback
			log = ai_log(gw, found)
			assert log["fallback_from"] == primary.id and log["total_token"] == 33
		model.fail(503)
		answer = chat(gw, api.base, "hi")
		assert answer.status == 503 and "ai_log" not in record_of(gw, answer)


# ---- changes that are refused ----

def test_x7_a_refused_change_leaves_what_was(gw, redis):
	with ModelServer() as model, ModelServer("backup") as backup:
		primary, second = ai_service(gw, model), ai_service(gw, backup)
		api = llm_api(gw, primary)
		made = {"AiFallback": gw.attach("AiFallback", fallback_to(second), primary),
			"AiTokenRateLimit": gw.attach("AiTokenRateLimit", token_limit(redis, 1000), api)}
		bad = {"AiFallback": [{"fallbackModelMappings": []}, fallback_to(primary) | {"more": 1},
			{"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": "svc-none", "model": "m"}]}]}],
			"AiTokenRateLimit": [token_limit(redis, 0), {"enableGlobalRules": True, "redisConfig": redis.config}]}
		model.fail(503)
		for name, configs in bad.items():
			policy = made[name].policy
			for config in configs:
				status, answer, _ = gw.api("PUT", policy.path, {**policy.body, "config": json.dumps({"enable": True, **config})})
				assert status == 400 and answer["errorMessage"].startswith("Invalid parameter: config."), answer
				found = chat(gw, api.base, "hi")
				assert found.status == 200 and found.header("X-Sluice-Fallback-Index") == "1"
				assert found.header("X-TokenRateLimit-Limit") == "1000"


# ---- versions of HTTP, and clients that leave ----

def ask_h2(gw, base, body, headers):
	with H2(gw.port) as connection:
		at = connection.start(method="POST", path=f"{base}/v1/chat/completions", body=json.dumps(body).encode(),
			more=[("content-type", "application/json"), *((name.lower(), value) for name, value in headers.items())])
		return connection.answer(at)


def test_x9_http2_gets_the_same(gw, redis):
	with Everything(gw, redis) as site:
		site.drop("AiCache")
		for what, is_stream in [("nice", False), ("nice", True), ("forbidden", False), ("forbidden", True)]:
			body = chat_body(what, **({"stream": True} if is_stream else {}))
			one = Stream(gw, f"{site.base}/v1/chat/completions", body, site.headers()).rest()
			other = ask_h2(gw, site.base, body, site.headers())
			assert other.status == one.status == 200
			assert other.body.decode().count("data:") == one.raw.decode().count("data:")
			assert other.header("x-guard-status") == one.header("X-Guard-Status")
			if what == "nice":
				assert other.body == one.raw
		site.first.fail(503)
		other = ask_h2(gw, site.base, chat_body("nice"), site.headers())
		assert other.status == 200 and other.header("x-sluice-fallback-index") == "1"
		other = ask_h2(gw, site.base, chat_body("nice"), ORIGIN)
		assert other.status == 401 and other.json["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("version", ["h1", "h2"])
@pytest.mark.parametrize("what", ["guard", "search"])
def test_x9_a_client_that_leaves_ends_the_side_call(gw, version, what):
	gw.feature("ai.guard.timeout_ms", 30000)
	with SideService(lambda request, connection: connection.fill() and None) as side, ModelServer() as model:
		service = ai_service(gw, model)
		api = llm_api(gw, service)
		made = gw.attach("AiSecurityGuard", guard_config(side.url), service) if what == "guard" \
			else gw.attach("AiNetworkSearch", search_config(side.url, timeout=30000), api)
		body = chat_body("hi")
		if version == "h1":
			client = Stream(gw, f"{api.base}/v1/chat/completions", body)
		else:
			client = H2(gw.port)
			client.start(method="POST", path=f"{api.base}/v1/chat/completions", body=json.dumps(body).encode(), more=[("content-type", "application/json")])
		wait_until(lambda: side.asked, what="the side call")
		client.close()
		wait_until(lambda: side.lost == 1, 5, "the end of the side call")
		assert model.hits == 0
		gw.delete(made)


def test_nothing_of_it_is_left(gw):
	"""After all of that the process answers, and no request is under way."""
	with ModelServer() as model:
		assert chat(gw, ai_route(gw, model).base, "hi").status == 200
		wait_until(lambda: metric(gw, "sluice_exchanges_active") == 0, what="no request under way")
