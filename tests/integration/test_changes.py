"""Changes under load: each is in force when its call returns, and no request and no connection is lost for it."""
import json
import os
import socket
import subprocess
import threading

import pytest
from backends import ROOT, Backend, find_program
from gw import IS_SANITIZED, Gateway, free_port
from wire import wait_until

CHANGES = int(os.environ.get("SLUICE_CHANGES", "1000"))
BENCH = find_program("test_httpbench", ROOT / "tests/bench")


class Load:
	"""64 kept connections that send all the time, with an upstream of their own."""

	def __init__(self, path, connections=64, rate=2000):
		self.path, self.connections, self.rate = path, connections, rate
		self.upstream = free_port()
		self.process = None

	def start(self, port):
		self.process = subprocess.Popen([BENCH, f"--port={port}", f"--upstream={self.upstream}", f"--path={self.path}",
			f"--connections={self.connections}", f"--rate={self.rate}", "--warmup=0.1", "--forever"], stdin=subprocess.PIPE,
			stdout=subprocess.PIPE)
		wait_until(self.is_listening, 10, "the upstream of the load")

	def is_listening(self):
		with socket.socket() as probe:
			return probe.connect_ex(("127.0.0.1", self.upstream)) == 0

	def stop(self):
		output, _ = self.process.communicate(timeout=20)
		return json.loads(output)


def header_policy(value):
	return {"headerOpItems": [{"directionType": "Response", "opType": "Update", "key": "X-Version", "value": str(value),
		"policyValueGenerateMode": "Custom"}]}


@pytest.fixture(scope="module")
def gw():
	with Gateway(requests_per_connection=0) as gateway:
		yield gateway


def test_thousand_policy_changes_under_load(gw):
	load = Load("/load/b/1024", rate=300 if IS_SANITIZED else 2000)
	route = gw.route("/load", load.upstream)
	attachment = gw.attach("HeaderModify", header_policy(0), to=route)
	load.start(gw.port)
	probes = [gw.connect() for _ in range(4)]    # over all workers
	try:
		for version in range(1, CHANGES + 1):
			gw.change_policy(attachment, header_policy(version))
			answer = probes[version % 4].get("/load/b/10")
			assert answer.status == 200
			assert answer.header("X-Version") == str(version), "not in force when the call returned"
	finally:
		result = load.stop()
		for probe in probes:
			probe.close()
	assert result["requests"] > 100
	assert (result["errors"], result["closed"]) == (0, 0), result
	assert result["status"]["2xx"] == result["requests"]


def test_routes_gateways_and_services_come_and_go_under_load(gw):
	load = Load("/steady/b/1024", rate=300 if IS_SANITIZED else 2000)
	site = gw.gateway()
	gw.route("/steady", load.upstream, site=site)
	load.start(site.port)
	try:
		for _ in range(max(1, CHANGES // 20)):
			other = gw.gateway()
			service = gw.service(load.upstream, site)
			route = gw.route("/passing", service, site=site)
			attachment = gw.attach("RateLimit", {"threshold": 1000, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429},
				to=route)
			assert gw.get("/passing/b/10", site=site).status == 200
			gw.delete(attachment)
			gw.delete(route)
			assert gw.get("/passing/b/10", site=site).status == 404
			gw.delete(service)
			gw.delete(other)
	finally:
		result = load.stop()
	assert (result["errors"], result["closed"]) == (0, 0), result
	assert result["status"]["2xx"] == result["requests"] > 20


def test_changed_addresses_are_used_at_once(gw):
	with Backend(2) as backend:
		service = gw.service([backend.addresses[0]])
		gw.route("/moves", service)
		with gw.connect() as connection:
			for turn in range(20):
				port = backend.ports[turn % 2]
				item = gw.ask("GET", service.path)
				gw.ask("PUT", service.path, {**item, "addresses": [f"127.0.0.1:{port}"], "ports": []})
				assert connection.get("/moves/echo").json["port"] == port


def test_request_in_flight_ends_as_it_began(gw):
	"""A request keeps the configuration it was born under, even when its route is gone meanwhile."""
	with Backend() as backend:
		route = gw.route("/flight", backend)
		attachment = gw.attach("HeaderModify", header_policy("old"), to=route)
		with gw.connect() as connection:
			connection.start("GET", "/flight/delay/400")
			while not backend.requests():
				pass
			gw.change_policy(attachment, header_policy("new"))
			gw.delete(attachment)
			gw.delete(route)
			answer = connection.read_response()
			assert (answer.status, answer.header("X-Version")) == (200, "old")
			assert connection.get("/flight/echo").status == 404


def test_counters_survive_unrelated_changes(gw):
	route = gw.route("/limited", None)
	gw.attach("DirectResponse", {"code": "200", "body": "ok"}, to=route)
	gw.attach("RateLimit", {"threshold": 3, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}, to=route)
	other = gw.route("/unrelated", None)
	statuses = []
	for _ in range(4):
		statuses.append(gw.get("/limited").status)
		gw.attach("DirectResponse", {"code": "200", "body": "x"}, to=gw.route(f"/unrelated-{len(statuses)}", None))
	gw.delete(other)
	# All within the second of the window, or the window moved on and the test says nothing.
	assert statuses[:3] == [200, 200, 200]
	assert statuses[3] in (429, 200)


def test_many_writers_at_once(gw):
	"""Parallel writes are grouped; each is in force when its own call returns."""
	site = gw.gateway()
	failures = []

	def work(number):
		try:
			for turn in range(10):
				route = gw.route(f"/writer-{number}-{turn}", None, site=site)
				gw.attach("DirectResponse", {"code": "200", "body": f"{number}-{turn}"}, to=route)
				answer = gw.get(f"/writer-{number}-{turn}", site=site)
				if (answer.status, answer.text) != (200, f"{number}-{turn}"):
					failures.append((number, turn, answer))
		except BaseException as problem:
			failures.append(problem)

	threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join(120)
	assert not failures, failures[:3]


def test_conditional_writes_lose_no_update(gw):
	"""Many writers count up one policy with If-Match: every success is one step."""
	policy = gw.policy("RateLimit", {"threshold": 1, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429})
	successes = []

	def work():
		for _ in range(10):
			while True:
				_, item, headers = gw.api("GET", policy.path)
				config = json.loads(item["config"])
				config["threshold"] += 1
				status, _, _ = gw.api("PUT", policy.path, {**item, "config": json.dumps(config)}, {"If-Match": headers["ETag"]})
				assert status in (200, 412)
				if status == 200:
					successes.append(1)
					break

	threads = [threading.Thread(target=work) for _ in range(8)]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join(120)
	assert len(successes) == 80
	assert json.loads(gw.ask("GET", policy.path)["config"])["threshold"] == 81
