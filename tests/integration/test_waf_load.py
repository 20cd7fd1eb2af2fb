# serial: it loads the machine.
"""More for the rules of Waf than they can do, and a machine that leaves them nothing: others are served, guarded requests are answered."""
import json
import os
import pathlib
import subprocess
import threading
import time

import pytest
from gw import Gateway, numbers
from test_waf import BROWSER, SLOW, count, get, gw_free, has_packages, path, site    # noqa: F401, path and site are fixtures
from wire import wait_until

pytestmark = pytest.mark.skipif(not has_packages(), reason="libmodsecurity3 and modsecurity-crs are not installed")
SHORT = json.dumps({"a": "hello again " * 50}).encode()


def threads_of(gw, name):
	"""{thread: its scheduling class} of those with this name; 5 is SCHED_IDLE, 0 the ordinary one."""
	found = {}
	for task in pathlib.Path(f"/proc/{gw.process.pid}/task").iterdir():
		comm, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
		if comm == name:
			found[task.name] = int(rest.split()[38])
	return found


def test_rules_run_where_nobody_else_wants_the_cpu(gw, path):
	assert get(gw, path).status == 200
	classes = list(threads_of(gw, "waf").values())
	assert len(classes) == max(1, len(os.sched_getaffinity(0)) - 1)
	if os.getuid() == 0:    # who may leave the class again; on a busy machine it is left for a second at a time
		wait_until(lambda: set(threads_of(gw, "waf").values()) == {5}, 30, "the class, when none is hurried")


def flood(gw, site, base, over, seen, clients):
	"""Guarded requests on so many connections, until `over`; counts statuses in `seen`."""
	def ask():
		while not over.is_set():
			try:
				with gw.connect(site, timeout=60) as connection:
					answer = connection.request("POST", base, {**BROWSER, "Content-Type": "application/json"}, SLOW)
					seen.append((answer.status, answer.json["errorCode"] if answer.status == 503 else None))
			except OSError:
				return

	threads = [threading.Thread(target=ask) for _ in range(clients)]
	for thread in threads:
		thread.start()
	return threads


def test_a_flood_leaves_other_routes_alone(gw, site, backend):
	"""More guarded requests than the rules can do: each is answered with 200, or 503 when it waited too long; others are served meanwhile,
	by an upstream and by the worker itself."""
	base, other, own = site.guard(backend), gw_free(gw, site, backend), f"/own-{next(numbers)}"
	gw.attach("DirectResponse", {"code": "200", "body": "own"}, to=gw.route(own, backend, site=site))
	site.set("exclusions", ["* 949110"])
	site.set("budget_ms", 10_000)
	over, seen, late = threading.Event(), [], []
	threads = flood(gw, site, base, over, seen, 24)
	try:
		wait_until(lambda: count(gw, "sluice_requests_in_flight") >= 20, 30, "a flood")
		for _ in range(100):
			begin = time.monotonic()
			assert site.get(other).status == 200
			assert site.get(own).body == b"own"
			late.append(time.monotonic() - begin)
		assert count(gw, "sluice_requests_in_flight") >= 10    # it went on all the time
	finally:
		over.set()
		for thread in threads:
			thread.join()
	# Guarded ones wait for seconds here; bounds for a machine that does much else.
	assert sorted(late)[50] < 0.5, late
	assert max(late) < 5, late
	assert seen
	assert set(seen) <= {(200, None), (503, "ErrPolicyUnavailable")}
	assert site.get(base).status == 200


def test_rules_get_on_where_the_cpu_is_never_idle(backend):
	"""Others want all of the only processor: guarded requests get a share of it, and none waits without end."""
	core = str(min(os.sched_getaffinity(0)))
	burners = [subprocess.Popen(["taskset", "-c", core, "sh", "-c", "while :; do :; done"]) for _ in range(2)]
	try:
		with Gateway(prefix=["taskset", "-c", core], workers=1) as gw:
			gw.attach("Waf", {}, to=gw.route("/a", backend))
			statuses = []
			for _ in range(5):
				with gw.connect(timeout=60) as connection:
					statuses.append(connection.request("POST", "/a", {**BROWSER, "Content-Type": "application/json"}, SHORT).status)
			assert set(statuses) <= {200, 503}
			assert 200 in statuses
	finally:
		for burner in burners:
			burner.kill()
			burner.wait()
