"""Requests to models whose side services are silent, beside a route that needs none of them (the contract's X-1). Part "silence" of
tests/bench/run.

The gateway on core 0; the load, its upstream and the model on core 1. Rounds in turn: the unrelated route alone, and beside HUNG requests
that wait for a moderation service, a search service, a service of embeddings, an authorization service and Redis: held open from before
the round to its end, and none of them opened again meanwhile. The load is paced: it asks how long an answer takes, not how many there are.
"""
import contextlib
import json
import socket
import statistics
import subprocess
import threading
import time

import peers
from backends import find_program
from guard_kit import guard_config
from peers import ROOT, sluice
from search_kit import search_config
from semantic_kit import semantic

HUNG, RATE, CONNECTIONS, PATIENCE_MS = 200, 2000, 16, 60000


class Silent:
	"""Takes connections and says nothing."""

	def __init__(self):
		self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
		self.port, self.open = self.listener.getsockname()[1], []
		self.config = {"serviceHost": "127.0.0.1", "servicePort": self.port}
		threading.Thread(target=self.accept, daemon=True).start()

	def accept(self):
		with contextlib.suppress(OSError):
			while True:
				self.open.append(self.listener.accept()[0])

	def stop(self):
		with contextlib.suppress(OSError):
			self.listener.shutdown(socket.SHUT_RDWR)
		self.listener.close()
		for one in self.open:
			one.close()


def add_api(gw, model, name):
	service = gw.create("Service", "/api/v1/services", "serviceId", {"name": f"models-{name}", "gatewayId": gw.default.id, "sourceType": "AI",
		"aiServiceConfig": {"provider": "dashscope", "address": f"http://127.0.0.1:{model}", "apiKeys": ["sk"], "protocols": ["OpenAI/v1"]}})
	api = gw.create("LLMApi", "/api/v1/llm-apis", "llmApiId", {"name": name, "gatewayId": gw.default.id, "basePath": f"/{name}",
		"services": [{"serviceId": service.id}]})
	for one in (service, api):
		one.gateway, one.environment = gw.default.id, gw.default.environment
	return api, service


def add_apis(gw, hole):
	"""One for each service that is silent; the limit of tokens asks Redis for all of them."""
	gw.feature("ai.guard.timeout_ms", PATIENCE_MS)
	url, bases = f"http://127.0.0.1:{hole.port}", []
	limit = {"enableGlobalRules": True, "globalRules": [{"limitType": "LimitByGlobal", "threshold": 10**9, "timeWindow": 60}],
		"redisConfig": hole.config}
	for name in ("guard", "search", "cache", "authorization"):
		api, service = add_api(gw, hole.port, name)
		gw.attach("AiTokenRateLimit", limit, to=api)
		if name == "guard":
			gw.attach("AiSecurityGuard", guard_config(url, checkResponse=True), to=service)
		elif name == "search":
			gw.attach("AiNetworkSearch", search_config(url, timeout=PATIENCE_MS), to=api)
		elif name == "cache":
			config = semantic(hole, f"127.0.0.1:{hole.port}/cache", "u:p", service, timeout=PATIENCE_MS)
			config["embeddingConfig"]["timeout"] = PATIENCE_MS
			gw.attach("AiCache", config, to=api)
		else:
			gw.attach("ExternalZAuth", {"authServiceUrl": url + "/auth", "timeout": PATIENCE_MS}, to=api)
		bases.append(f"/{name}")
	return bases


class Hung:
	"""So many requests that wait; `still()`: none was answered."""

	def __init__(self, port, bases, n):
		self.open = []
		for i in range(n):
			body = json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": f"Question {i} at {time.monotonic()}"}]}).encode()
			one = socket.create_connection(("127.0.0.1", port))
			one.sendall(b"POST %s/v1/chat/completions HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" %
				(bases[i % len(bases)].encode(), len(body), body))
			one.setblocking(False)
			self.open.append(one)
		time.sleep(1)    # what is judged at once is judged now, not in the round

	def still(self):
		answered = 0
		for one in self.open:
			with contextlib.suppress(BlockingIOError):
				answered += len(one.recv(1)) >= 0
		return len(self.open) - answered

	def close(self):
		for one in self.open:
			one.close()
		time.sleep(0.3)    # their ends too are no part of the next round


def load(gateway, upstream, options):
	program = find_program("test_httpbench", ROOT / "tests/bench")
	command = ["taskset", "-c", "1", program, f"--port={gateway.port}", f"--upstream={upstream}", f"--connections={CONNECTIONS}",
		f"--rate={RATE}", "--path=/r0/b/1024", f"--seconds={options.seconds}", f"--cpu={gateway.pids()[0]}"]
	result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
	if result["errors"] or not result["requests"]:
		raise SystemExit(f"the load failed: {result}")
	return result


def measure_silence(options, report, goal):
	upstream, hole = sluice.free_port(), Silent()
	gateway = peers.Sluice("plain", upstream, 0)
	found, held = {"alone": [], "beside": []}, []
	try:
		bases = add_apis(gateway.gw, hole)
		for turn in range(options.rounds):
			for name in (list(found), list(found)[::-1])[turn % 2]:
				hung = Hung(gateway.port, bases, HUNG) if name == "beside" else None
				found[name].append(load(gateway, upstream, options))
				if hung:
					held.append(hung.still())
					hung.close()
	finally:
		gateway.stop()
		hole.stop()
	middle = {name: {member: statistics.median(one[member] for one in rounds) for member in ("p50_us", "p99_us", "cpu_us")}
		for name, rounds in found.items()}
	print(f"\n{HUNG} requests that wait for silent side services ({min(held)} still did at the end), an unrelated route at {RATE}/s")
	for name, one in middle.items():
		print(f"  {name:8} p50 {one['p50_us']:6.0f} us, p99 {one['p99_us']:6.0f} us, CPU {one['cpu_us']:6.1f} us a request")
	goal("requests that waited to the end of the round", min(held), HUNG, at_least=True)
	for member, word in (("p50_us", "p50"), ("p99_us", "p99")):
		goal(f"an unrelated route beside them, {word}", middle["beside"][member] / middle["alone"][member], 1.1)
	report["silence"] = found
