"""Requests to models through the gateway. Part "ai" of tests/bench/run.

Events: the chunks of a model's answer through an ordinary route, and through a model API with AiStatistics, which reads each of them.
Same events, same run, rounds in turn. Memory: streams that go on, on one worker. Hits: AiCache with a real redis-server, against an answer
of the gateway that asks nobody and Redis' own. Seven: all Ai* policies with side services that answer at once, against none of them.
"""
import json
import statistics
import subprocess
import time

import peers
from backends import find_program
from peers import ROOT, sluice

STREAMS, RATE, MANY = 200, 100, 2000
CALM = {"streams": 20, "rate": 50}    # for delays: a core that is half busy with others' events says nothing of one


def bench(port, upstream, path, seconds, pid, streams=STREAMS, rate=RATE):
	program = find_program("test_ssebench", ROOT / "tests/bench/sse")
	command = ["taskset", "-c", "1", program, f"--port={port}", f"--upstream={upstream}", f"--streams={streams}", f"--rate={rate}",
		f"--seconds={seconds}", "--chat", f"--path={path}", f"--cpu={pid}"]
	return subprocess.Popen(command, stdout=subprocess.PIPE)


def result_of(process):
	result = json.loads(process.communicate()[0])
	if result["errors"] or not result["sent"]:
		raise SystemExit(f"the streams broke: {result}")
	return result


def model_api(gw, upstream):
	service = gw.create("Service", "/api/v1/services", "serviceId", {"name": "models", "gatewayId": gw.default.id, "sourceType": "AI",
		"aiServiceConfig": {"provider": "openai", "address": f"http://127.0.0.1:{upstream}", "apiKeys": ["sk-bench"]}})
	api = gw.create("LLMApi", "/api/v1/llm-apis", "llmApiId", {"name": "models", "gatewayId": gw.default.id, "basePath": "/ai",
		"services": [{"serviceId": service.id}]})
	api.gateway, api.environment = gw.default.id, gw.default.environment
	gw.attach("AiStatistics", {}, to=api)
	return api


def measure_events(gateway, upstream, options, report, goal):
	found = {"direct": [], "plain": [], "ai": []}
	paths = {"plain": "/r0/v1/chat/completions", "ai": "/ai/v1/chat/completions"}
	for turn in range(options.rounds):
		found["direct"].append(result_of(bench(upstream, upstream, "/", options.seconds, 1)))
		for name in (list(paths), list(paths)[::-1])[turn % 2]:
			found[name].append(result_of(bench(gateway.port, upstream, paths[name], options.seconds, gateway.pids()[0])))
	middle = {name: {member: statistics.median(one[member] for one in rounds) for member in ("cpu_us", "p50_us", "p99_us")}
		for name, rounds in found.items()}
	print(f"\nchunks of models, {STREAMS} streams x {RATE}/s: CPU us per event, delay p50 and p99 us")
	for name, one in middle.items():
		print(f"  {name:8}{one['cpu_us']:7.2f}{one['p50_us']:9.0f}{one['p99_us']:9.0f}")
	goal("events of models, CPU against the same events unread", middle["ai"]["cpu_us"] / middle["plain"]["cpu_us"], 1.5)
	calm = {name: [] for name in paths}
	for turn in range(options.rounds):
		for name in (list(paths), list(paths)[::-1])[turn % 2]:
			calm[name].append(result_of(bench(gateway.port, upstream, paths[name], options.seconds, gateway.pids()[0], **CALM))["p99_us"])
	plain, read = (statistics.median(calm[name]) for name in paths)
	print(f"  calm: delay p99 {plain:.0f} us unread, {read:.0f} us read")
	goal("events of models, delay that reading adds, p99", (read - plain) / 1000, 1, " ms")
	goal("events of models that never came", sum(one["sent"] - one["received"] for one in found["ai"]), 0)
	report["ai-events"] = found


def measure_memory(gateway, upstream, options, report, goal):
	before = gateway.gw.rss_kb()
	process = bench(gateway.port, upstream, "/ai/v1/chat/completions", options.seconds + 3, gateway.pids()[0], MANY, 1)
	most, end = 0, time.monotonic() + options.seconds + 4
	while process.poll() is None and time.monotonic() < end:
		most = max(most, gateway.gw.rss_kb())
		time.sleep(0.1)    # sampling, not waiting
	result_of(process)
	each = (most - before) / MANY
	print(f"\n{MANY} streams of models on one worker: {each:.1f} KiB each")
	goal("memory of a stream", each, 64, " KiB")
	report["ai-memory"] = {"before_kb": before, "most_kb": most}


def measure_ai(options, report, goal):
	upstream = sluice.free_port()
	gateway = peers.Sluice("sse", upstream, 0)
	try:
		model_api(gateway.gw, upstream)
		measure_events(gateway, upstream, options, report, goal)
		measure_memory(gateway, upstream, options, report, goal)
	finally:
		gateway.stop()
