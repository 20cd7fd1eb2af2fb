# serial: it counts what the release program does for one request, with one worker; repeats to about one per cent.
"""System calls and user instructions of a proxied request. Needs strace and valgrind."""
import json
import os
import pathlib
import re
import subprocess

import pytest
from backends import ROOT, find_program
from gw import Gateway, free_port
from wire import wait_until

PROGRAM = os.environ.get("SLUICE_RELEASE_BIN", str(ROOT / "build/release/sluice"))
BENCH = find_program("test_httpbench", ROOT / "tests/bench")
NO_LIMIT = {"threshold": 2_147_483_647, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}
EDITS = {"headerOpItems": [{"directionType": direction, "opType": "Update", "key": "X-Cost", "value": "1",
	"policyValueGenerateMode": "Custom"} for direction in ("Request", "Response")]}
TOGETHER_CALLS = 2.3      # two receives, and a share of the calls that send
SINGLE_CALLS = 4.2
INSTRUCTIONS = 9_600


def load(port, upstream, connections, requests, path="/r%u/b/1024", routes=1):
	ended = subprocess.run([BENCH, f"--port={port}", f"--upstream={upstream}", f"--connections={connections}",
		f"--requests={requests}", f"--path={path}", f"--routes={routes}"], stdout=subprocess.PIPE, check=True, timeout=200)
	result = json.loads(ended.stdout)
	assert result["errors"] == 0 and result["status"]["2xx"] == result["requests"], result
	return result["requests"]


def has_ring(gw):
	"""Whether messages leave together: the kernel lets this process have io_uring."""
	return not gw.events("io_uring.unavailable")


@pytest.mark.parametrize("io_uring", [True, False])
def test_system_calls_of_a_request(io_uring):
	upstream = free_port()
	with Gateway(program=PROGRAM, workers=1, requests_per_connection=0, io_uring=io_uring) as gw:
		gw.route("/", upstream)
		load(gw.port, upstream, 64, 2000)
		summary = os.path.join(gw.own_folder, "strace")
		tracer = subprocess.Popen(["strace", "-f", "-c", "-o", summary, "-p", str(gw.process.pid)], stderr=subprocess.PIPE, text=True)
		try:
			assert "attached" in tracer.stderr.readline()
			requests = load(gw.port, upstream, 64, 20_000)
		finally:
			tracer.send_signal(2)
			tracer.wait(20)
			tracer.stderr.close()
		table = pathlib.Path(summary).read_text()
		most = TOGETHER_CALLS if io_uring and has_ring(gw) else SINGLE_CALLS
		# The load's own last requests end with its connections: their number is small against all.
		calls = int(re.search(r"^\s*100\.00\s.*?(\d+)\s+(?:\d+\s+)?total", table, re.M).group(1))
	print(table)
	assert ("io_uring" in table) == (most == TOGETHER_CALLS), table
	assert calls / requests <= most, f"{calls / requests:.3f} system calls for a request\n{table}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
	"""A store with 1,000 routes, a limit and header edits."""
	folder = tmp_path_factory.mktemp("cost")
	upstream = free_port()
	with Gateway(program=PROGRAM, data=folder / "data") as gw:
		service = gw.service(upstream)
		for i in range(1000):
			gw.route(f"/r{i}", service)
		gw.attach("RateLimit", NO_LIMIT, to=gw.default)
		gw.attach("HeaderModify", EDITS, to=gw.default)
		return folder / "data", gw.port, upstream


def count_instructions(data, requests):
	"""Of the whole life of a process that serves so many requests, which are counted by us."""
	folder, port, upstream = data
	output = folder.parent / f"callgrind.{requests}"
	prefix = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", "--quiet"]
	with Gateway(program=PROGRAM, prefix=prefix, data=folder, workers=1, requests_per_connection=0) as gw:
		wait_until(lambda: gw.api("GET", "/readyz")[0] == 200, 60, "ready")
		served = load(port, upstream, 16, requests, routes=1000)
		gw.stop(seconds=120)
	found = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.M)
	return int(found.group(1)), served


def test_user_instructions_of_a_request(data):
	"""16 connections, 1 KB, one of 1,000 routes, RateLimit, HeaderModify, access record."""
	few, few_served = count_instructions(data, 3000)
	many, many_served = count_instructions(data, 15_000)
	each = (many - few) / (many_served - few_served)
	print(f"{each:.0f} instructions for a request")
	assert each <= INSTRUCTIONS, f"{each:.0f} instructions for a request"
