"""Changes of the configuration under load: 10,000 routes, 64 connections, 10,000 requests a second. Part "live-changes" of tests/bench/run.

A policy of one route is replaced 50 times a second. "Quiet" is the same load, API calls and probes without a change: the policy is read
instead of written.
"""
import json
import time

import peers
from peers import Sluice, header_edits, sluice

PACE = 0.02    # seconds from one change to the next
LOAD = ["--connections=64", "--rate=10000", "--forever"]


def percentile(values, share):
	values = sorted(values)
	return values[min(len(values) - 1, int(len(values) * share))]


def under_load(load, gateway, count, step):
	"""Calls step(n) `count` times at the pace; the result of the load meanwhile."""
	process = load.start(gateway, 1, LOAD)
	time.sleep(0.5)    # the load is at its rate
	start = time.monotonic()
	for n in range(1, count + 1):
		step(n)
		time.sleep(max(0, start + n * PACE - time.monotonic()))
	output, _ = process.communicate()
	return json.loads(output)


class Changes:
	def __init__(self, gateway):
		self.gw = gateway.gw
		self.attachment = self.gw.attach("HeaderModify", header_edits("0"), to=self.gw.route("/changing", gateway.service))
		self.probe = self.gw.connect()
		self.until_answer, self.until_effect = [], []

	def read(self, _):
		self.gw.ask("GET", self.attachment.policy.path)
		self.probe.get("/changing/b/10")

	def write(self, version):
		start = time.monotonic()
		self.gw.change_policy(self.attachment, header_edits(str(version)))
		self.until_answer.append(time.monotonic() - start)
		answer = self.probe.get("/changing/b/10")
		self.until_effect.append(time.monotonic() - start)
		if answer.status != 200 or answer.header("X-Bench") != str(version):
			raise SystemExit(f"change {version} was not in force when its call returned: {answer}")


def measure_changes(options, report, goal, new_load):
	upstream = sluice.free_port()
	gateway = Sluice("many", upstream, 0)
	load = new_load(options, upstream)
	count = 100 if options.quick else 500
	try:
		changes = Changes(gateway)
		quiet = under_load(load, gateway, count, changes.read)
		result = under_load(load, gateway, count, changes.write)
		changes.probe.close()
	finally:
		gateway.stop()
	print(f"\n{count} policy changes, {peers.ROUTES['many']} routes, 64 connections, {result['rps']:.0f} requests/s")
	for what, times in (("until the answer", changes.until_answer), ("until a request sees it", changes.until_effect)):
		print(f"  {what}: p50 {percentile(times, 0.5) * 1000:.2f} ms, p99 {percentile(times, 0.99) * 1000:.2f} ms, "
			f"most {max(times) * 1000:.2f} ms")
	for what, one in (("meanwhile", result), ("without changes", quiet)):
		print(f"  requests {what}: p50 {one['p50_us']:.0f} us, p99 {one['p99_us']:.0f} us, p99.9 {one['p999_us']:.0f} us")
	goal("policy write to effect, p99", percentile(changes.until_effect, 0.99) * 1000, 5, " ms")
	goal("p99 of requests, against no changes", result["p99_us"] / quiet["p99_us"], 1.2)
	goal("failed requests", result["errors"] + result["requests"] - result["status"]["2xx"], 0)
	goal("closed connections", result["closed"], 0)
	report["changes"] = {"answer_ms": [t * 1000 for t in changes.until_answer], "effect_ms": [t * 1000 for t in changes.until_effect],
		"load": result, "quiet": quiet}
