"""What tests of hostile clients share: the release program, good traffic beside the attack, many connections at once."""
import contextlib
import json
import os
import re
import select
import socket
import subprocess
import time
import urllib.request

from backends import ROOT, find_program
from gw import Gateway, free_port

PROGRAM = os.environ.get("SLUICE_RELEASE_BIN", str(ROOT / "build/release/sluice"))
BENCH = find_program("test_httpbench", ROOT / "tests/bench")
RATE = 400                            # of good traffic, requests a second
TICKS = os.sysconf("SC_CLK_TCK")
TIMES = {"header_timeout_ms": 1500, "body_idle_ms": 1000, "idle_timeout_ms": 2000, "write_stall_ms": 1000, "access_log": False}


def cpu_seconds(gw):
	with open(f"/proc/{gw.process.pid}/stat", encoding="ascii") as stat:
		fields = stat.read().rsplit(")", 1)[1].split()
	return (int(fields[11]) + int(fields[12])) / TICKS


def bench(gw, upstream, seconds=1.0, rate=RATE, path="/b/1024"):
	"""Starts good traffic: some hundred requests a second."""
	return subprocess.Popen([BENCH, f"--port={gw.port}", f"--upstream={upstream}", "--connections=8", f"--rate={rate}", f"--seconds={seconds}",
		f"--path={path}"], stdout=subprocess.PIPE, text=True)


def result(process, seconds=60):
	text, _ = process.communicate(timeout=seconds)
	assert process.returncode == 0
	return json.loads(text)


@contextlib.contextmanager
def site(**settings):
	"""A gateway, its recording-free upstream being the bench itself, and the quiet p99 of good traffic."""
	upstream = free_port()
	with Gateway(program=PROGRAM, **{**TIMES, **settings}) as gw:
		gw.route("/", upstream)
		# The second one counts: the first fills pools and caches.
		result(bench(gw, upstream, 0.3))
		gw.upstream = upstream
		gw.quiet = result(bench(gw, upstream))
		yield gw


def is_near(seen, quiet):
	"""One stall of the machine is four of four hundred requests: then the median has to be near all the more."""
	if seen["p99_us"] < max(2 * quiet["p99_us"], quiet["p99_us"] + 40_000):
		return True
	return seen["p50_us"] < max(2 * quiet["p50_us"], quiet["p50_us"] + 3000) and seen["p99_us"] < 500_000


@contextlib.contextmanager
def good_traffic(gw, seconds=1.5):
	"""Good traffic while the block runs: all of it is answered, and not much later than in quiet times. 40 ms are the
	machine's."""
	process = bench(gw, gw.upstream, seconds)
	yield
	seen = result(process)
	assert seen["errors"] == 0 and seen["status"]["2xx"] == seen["requests"], seen
	if seen["requests"] < 0.8 * RATE * seconds or not is_near(seen, gw.quiet):
		# Perhaps others load the machine, now more than before.
		gw.quiet = result(bench(gw, gw.upstream, 1.0))
	assert seen["requests"] >= 0.8 * min(RATE, gw.quiet["requests"] / gw.quiet["seconds"]) * seconds, (seen, gw.quiet)
	assert is_near(seen, gw.quiet), f"p99 of {seen['p99_us'] / 1000:.1f} ms, quiet {gw.quiet['p99_us'] / 1000:.1f} ms"
	print(f"good traffic: p99 {seen['p99_us'] / 1000:.1f} ms, quiet {gw.quiet['p99_us'] / 1000:.1f} ms")


class Crowd:
	"""Many connections, and how many of them the other side has ended."""

	def __init__(self, port, n, first=b"", receive_buffer=None):
		self.sockets = []
		for i in range(n):
			s = socket.socket()
			if receive_buffer:
				s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
			try:
				s.connect(("127.0.0.1", port))
				s.setblocking(False)
				if first:
					s.send(first)
				self.sockets.append(s)
			except ConnectionError:
				s.close()    # refused
			if i % 256 == 255:
				time.sleep(0.01)    # the backlog is finite

	def __enter__(self):
		return self

	def __exit__(self, *_):
		for s in self.sockets:
			s.close()

	def send(self, data):
		for s in self.sockets:
			with contextlib.suppress(OSError):
				s.send(data)

	def reap(self, n=4096):
		"""Reads at most n bytes of each; drops those that ended. Returns what came."""
		came, left = [], []
		poll = select.poll()
		for s in self.sockets:
			poll.register(s, select.POLLIN)
		ready = {descriptor for descriptor, _ in poll.poll(0)}
		for s in self.sockets:
			data = None
			if s.fileno() in ready:
				try:
					data = s.recv(n)
				except BlockingIOError:
					pass
				except OSError:
					data = b""
			if data == b"":
				s.close()
			else:
				left.append(s)
			if data:
				came.append(data)
		self.sockets = left
		return came

	def is_gone(self):
		self.reap()
		return not self.sockets


def rss_per_connection(gw, before, n):
	return (gw.rss_kb() - before) / n


def metric(gw, name):
	"""The sum of all series of a family."""
	request = urllib.request.Request(f"http://{gw.admin}/metrics", headers={"X-Auth-Token": gw.token})
	with urllib.request.urlopen(request) as answer:
		text = answer.read().decode()
	return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def is_quiet(gw):
	return metric(gw, "sluice_requests_in_flight") == 0
