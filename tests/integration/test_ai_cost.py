# serial: it counts what the release program does for one request, and measures latencies as ratios of the same minute.
"""What policies for models cost: asks of Redis, instructions for a long prompt, time beside what the side services take. Needs valgrind."""
import contextlib
import http.client
import json
import re
import socket
import statistics
import threading
import time

import pytest
from ai_kit import ModelServer, Usage, ai_route, ai_service, chat, llm_api, post
from ai_site import TEXT
from cache_kit import cache_config
from guard_kit import guard_config
from gw import Gateway
from hostile import PROGRAM
from redis_kit import RedisServer
from scale import FULL
from search_kit import PAGES, documents, search_config
from side_services import SideService, plain
from wire import wait_until

KIB = 1 << 10
# 0.3 ms of a core that does two instructions in each of three billion cycles a second; valgrind counts each byte of a long copy as one, which the
# core does not.
PROMPT_INSTRUCTIONS = 1_900_000
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look_up", "delete_all")]
SELECTION = {"tools": [{"name": "look_up", "description": "", "enabled": True}]}
@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


def token_limit(redis):
	rules = [{"limitType": kind, "threshold": 10**9, "timeWindow": 600} for kind in ("LimitByConsumer", "LimitByModel")]
	return {"rules": rules, "enableGlobalRules": True, "globalRules": [{"limitType": "LimitByGlobal", "threshold": 10**9, "timeWindow": 600}],
		"redisConfig": redis.config}


# ---- asks of Redis ----

class Listening:
	"""What clients say to Redis, as it tells: scripts' own commands are none of it, and PING and counting processes are the gateway's now
	and then."""

	def __init__(self, redis):
		self.client, self.seen = redis.client(), []
		assert self.client("MONITOR") == "OK"
		threading.Thread(target=self.listen, daemon=True).start()

	def listen(self):
		with contextlib.suppress(OSError, ValueError):
			while line := self.client.read():
				if " lua] " not in line and not line.endswith('"PING"') and '"sluice:nodes"' not in line:
					self.seen.append(line)

	def quiet(self):
		"""How many so far, when no more come."""
		def settled():
			seen = len(self.seen)
			time.sleep(0.2)    # no state tells that nothing more comes
			return len(self.seen) == seen
		wait_until(settled, 20, "Redis is quiet")
		return len(self.seen)

	def each(self, ask, n=20):
		"""Of one request, in the mean."""
		before = self.quiet()
		for i in range(n):
			assert ask(i).status == 200
		return (self.quiet() - before) / n


def test_asks_of_redis_for_a_request(redis):
	with Gateway(program=PROGRAM) as gw, ModelServer(usage=Usage(3, 4)) as model:
		gw.feature("ai.token_limit.wait_ms", 1000)
		limited, cached, both = [llm_api(gw, ai_service(gw, model)) for _ in range(3)]
		for api, names in (limited, "L"), (cached, "C"), (both, "LC"):
			if "L" in names:
				gw.attach("AiTokenRateLimit", token_limit(redis), api)
			if "C" in names:
				gw.attach("AiCache", cache_config(redis), api)
			chat(gw, api.base, "first")    # connects and brings the scripts
		listening = Listening(redis)
		found = {
			"three rules of tokens": listening.each(lambda i: chat(gw, limited.base, f"question {i}")),
			"cache, miss": listening.each(lambda i: chat(gw, cached.base, f"question {i}")),
			"cache, hit": listening.each(lambda i: chat(gw, cached.base, f"question {i}")),
			"both, miss": listening.each(lambda i: chat(gw, both.base, f"question {i}")),
			"both, hit": listening.each(lambda i: chat(gw, both.base, f"question {i}")),
		}
		listening.client.socket.shutdown(socket.SHUT_RDWR)
	print(f"asks of Redis for a request: {found}")
	bounds = {"three rules of tokens": 2, "cache, miss": 2, "cache, hit": 1, "both, miss": 4, "both, hit": 1}
	assert all(found[name] <= most for name, most in bounds.items()), found


# ---- a long prompt ----

def long_body():
	"""200 KB in a chat of several turns, a line end or a quote in each eighty characters, now and then a word that is not ASCII; a stream with
	tools."""
	line = "It goes on for as long as a line of an ordinary text does, with nothing special.\n"
	turns, text = [], (line * 3 + "Then it says \"something\" or \u4f60\u597d, and goes on as before it went on for so long.\n") * 4
	while len(json.dumps(turns, ensure_ascii=False).encode()) < 200 * KIB:
		turns.append({"role": ("user", "assistant")[len(turns) % 2], "content": text})
	return json.dumps({"model": "gpt-4", "stream": True, "tools": TOOLS, "messages": turns[:len(turns) | 1]}, ensure_ascii=False).encode()


def count_instructions(folder, which, n, model):
	"""Of the whole life of a process that serves n requests."""
	output = folder / f"callgrind.{which}.{n}"
	prefix = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", "--quiet"]
	with Gateway(program=PROGRAM, prefix=prefix, workers=1, access_log=False, requests_per_connection=0) as gw:
		if which == "plain":
			base = ai_route(gw, model).base
		else:
			service = ai_service(gw, model)
			api = llm_api(gw, {"service": service, "modelNamePattern": "*", "targetModelName": "other"} if which == "other" else service)
			gw.attach("AiStatistics", {"aiStatisticsConfig": {"logRequestContent": False, "logResponseContent": False}}, api)
			gw.attach("AiToolSelection", SELECTION, api)
			base = api.base
		body = long_body()
		for _ in range(n):
			assert post(gw, f"{base}/v1/chat/completions", body).status == 200
		sent = model.last.body
		assert which == "plain" or (len(sent["tools"]) == 1 and sent["stream_options"]["include_usage"])
		gw.stop(seconds=120)
	return int(re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.M).group(1))


def test_instructions_for_a_prompt_of_200_kb(tmp_path):
	"""Read, classified, two members edited, sent on; against the same bytes through a route that does not look at them."""
	few, many = 4, 24
	with ModelServer("Yes.", usage=Usage(3, 4)) as model:
		each = {which: (count_instructions(tmp_path, which, many, model) - count_instructions(tmp_path, which, few, model)) / (many - few)
			for which in ("plain", "ai")}
	added = each["ai"] - each["plain"]
	print(f"instructions for a prompt of 200 KB: plain {each['plain']:.0f}, read and edited {each['ai']:.0f}, added {added:.0f}")
	assert 0 < added < PROMPT_INSTRUCTIONS, each


# ---- time ----

VERDICT = plain(200, [("Content-Type", "application/json")], json.dumps({"Code": 200, "Message": "OK", "RequestId": "r",
	"Data": {"Suggestion": "pass", "RiskLevel": "none", "AttackLevel": "none"}}).encode())
FOUND = plain(200, [("Content-Type", "application/json")], json.dumps(documents("bing", PAGES)).encode())


def median_ms(call, n):
	for i in range(n // 5):
		call(f"warm {i}")
	taken = []
	for i in range(n):
		start = time.perf_counter()
		call(f"{i}")
		taken.append((time.perf_counter() - start) * 1000)
	return statistics.median(taken)


def asked_directly(stack, side):
	"""One call of a side service over a kept connection, as a client of Python makes it."""
	connection = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", side.port, timeout=20)))

	def ask(_):
		connection.request("POST", "/", b"{}")
		assert connection.getresponse().read()
	return ask


def test_time_of_a_prompt_of_200_kb():
	"""What the same request takes longer than through a route that does not read it."""
	n, body = 200 if FULL else 50, long_body()
	with Gateway(program=PROGRAM) as gw, ModelServer("Yes.", usage=Usage(3, 4)) as model:
		plain_base, api = ai_route(gw, model).base, llm_api(gw, ai_service(gw, model))
		for name, config in ("AiStatistics", {"aiStatisticsConfig": {"logRequestContent": False}}), ("AiToolSelection", SELECTION):
			gw.attach(name, config, api)
		bare, read = [median_ms(lambda _, base=base: post(gw, f"{base}/v1/chat/completions", body), n) for base in (plain_base, api.base)]
	print(f"p50 of a prompt of 200 KB: {bare:.2f} ms passed on, {read:.2f} read and edited")
	assert read - bare < (0.5 if FULL else 10), (bare, read)


def test_time_that_all_seven_add(redis):
	"""Against the same model API without policies; the three side calls take what a direct call of the same servers takes."""
	n = 400 if FULL else 100
	with Gateway(program=PROGRAM) as gw, ModelServer(TEXT, usage=Usage(3, 4)) as model, SideService(VERDICT) as guard, \
			SideService(FOUND) as engine, contextlib.ExitStack() as stack:
		gw.feature("ai.token_limit.wait_ms", 1000)
		bare = llm_api(gw, ai_service(gw, model))
		service, backup = ai_service(gw, model), ai_service(gw, model)
		full = llm_api(gw, service)
		for name, config, to in [("AiStatistics", {}, full), ("AiCache", cache_config(redis), full), ("AiTokenRateLimit", token_limit(redis), full),
				("AiToolSelection", SELECTION, full), ("AiNetworkSearch", search_config(engine), full),
				("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": backup.id, "model": "b"}]}]}, service),
				("AiSecurityGuard", guard_config(guard.url, checkResponse=True), service)]:
			gw.attach(name, config, to)

		def ask(base, what):
			answer = chat(gw, base, what)
			assert answer.status == 200
			return answer

		without = median_ms(lambda what: ask(bare.base, what), n)
		everything = median_ms(lambda what: ask(full.base, what), n)
		sides = 2 * median_ms(asked_directly(stack, guard), n) + median_ms(asked_directly(stack, engine), n)
		client = redis.client()
		ping = median_ms(lambda _: client("PING"), n)
		ask(full.base, "kept")
		hit = median_ms(lambda _: ask(full.base, "kept"), n)
		assert ask(full.base, "kept").header("X-Cache-Status") == "hit"
		client.close()
		assert len(guard.asked) >= 2 * n and len(engine.asked) >= n
	added = everything - without - sides
	print(f"p50: {without:.2f} ms without, {everything:.2f} with all seven, of it {sides:.2f} in side services; they add {added:.2f} ms, "
		f"{everything / without:.1f} times; a hit {hit:.2f}, Redis' own answer {ping:.2f}")
	assert added < (5 if FULL else 25), (without, everything, sides)
	assert hit < without + (0.3 if FULL else 5), (hit, without)
