"""Server-sent events through the gateways: 200 streams of 100 events a second each. Part "sse" of tests/bench/run.

The gateway has core 0, upstream and readers share core 1 and one clock. The delay is from the upstream's send to the reader's receive;
what a gateway adds is the difference to reading from the upstream itself. nginx does not buffer answers here, HAProxy does not gather.
"""
import json
import statistics
import subprocess

import peers
from backends import find_program
from peers import GATEWAYS, ROOT, sluice

STREAMS, RATE = 200, 100


def run_once(port, upstream, pids, seconds):
	program = find_program("test_ssebench", ROOT / "tests/bench/sse")
	ended = subprocess.run(["taskset", "-c", "1", program, f"--port={port}", f"--upstream={upstream}", f"--streams={STREAMS}",
		f"--rate={RATE}", f"--seconds={seconds}", "--cpu=" + ",".join(map(str, pids))], stdout=subprocess.PIPE, check=False)
	result = json.loads(ended.stdout)
	if result["errors"] or not result["sent"]:
		raise SystemExit(f"the streams broke: {result}")
	return result


def measure_sse(options, report, goal):
	upstream = sluice.free_port()
	results, running = {"direct": []}, []
	try:
		running.extend(one("sse", upstream, 0) for one in GATEWAYS)
		for turn in range(options.rounds):
			results["direct"].append(run_once(upstream, upstream, [], options.seconds))
			for gateway in running[turn % len(running):] + running[:turn % len(running)]:
				results.setdefault(gateway.name, []).append(run_once(gateway.port, upstream, gateway.pids(), options.seconds))
	finally:
		for gateway in running:
			gateway.stop()
	middle = {name: {member: statistics.median(one[member] for one in rounds) for member in ("cpu_us", "p50_us", "p99_us")}
		for name, rounds in results.items()}
	print(f"\nserver-sent events, {STREAMS} streams x {RATE}/s: CPU us per event, delay p50 and p99 us (direct: "
		f"{middle['direct']['p50_us']:.0f} and {middle['direct']['p99_us']:.0f})")
	for name, one in middle.items():
		if name != "direct":
			print(f"  {name:8}{one['cpu_us']:7.2f}{one['p50_us']:9.0f}{one['p99_us']:9.0f}")
	goal("SSE, CPU per event against nginx", middle["sluice"]["cpu_us"] / middle["nginx"]["cpu_us"], 0.75)
	goal("SSE, delay that is added, p50", (middle["sluice"]["p50_us"] - middle["direct"]["p50_us"]) / 1000, 0.1, " ms")
	goal("SSE, delay p99, so that none is held back", middle["sluice"]["p99_us"] / 1000, 20, " ms")
	goal("SSE, events that never came", sum(one["sent"] - one["received"] for one in results["sluice"]), 0)
	report["sse"] = results
