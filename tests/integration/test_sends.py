"""Messages that a turn of a worker sends together: whole, in order, each to its own peer; with io_uring and without."""
import contextlib
import os
import signal
import socket
import sys
import threading
import time

import pytest
from backends import Backend
from gw import Gateway
from wire import Closed, Connection, Malformed, pattern, wait_until

WAYS = [True, False]
# Runs a command in which io_uring_setup (425 on every architecture) is refused, as container runtimes do.
REFUSE = """
import ctypes, os, sys
class Step(ctypes.Structure):
	_fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
	_fields_ = [("n", ctypes.c_ushort), ("steps", ctypes.POINTER(Step))]
steps = (Step * 4)(Step(0x20, 0, 0, 0), Step(0x15, 0, 1, 425), Step(0x06, 0, 0, 0x00050001), Step(0x06, 0, 0, 0x7fff0000))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(4, steps)), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
"""


def sent(gw, way):
	text = Connection(gw.admin_port).get("/metrics", {"X-Auth-Token": gw.token}, host=gw.admin).text
	line = next(line for line in text.split("\n") if line.startswith(f'sluice_messages_sent_total{{way="{way}"}}'))
	return int(float(line.split()[-1]))


@pytest.fixture(scope="module", params=WAYS, ids=["io_uring", "single"])
def site(request):
	with Backend() as backend, Gateway(workers=1, io_uring=request.param, requests_per_connection=0) as gw:
		gw.route("/", backend.port)
		gw.backend = backend
		yield gw


def head(target, extra=""):
	return f"GET {target} HTTP/1.1\r\nHost: gw.test\r\n{extra}\r\n"


def test_each_connection_gets_its_own_answers(site):
	connections = [Connection(site.port) for _ in range(100)]
	for turn in range(10):
		for i, connection in enumerate(connections):
			connection.send(head(f"/echo?who={i}-{turn}", f"X-Who: {i}-{turn}\r\n"))
		for i, connection in enumerate(connections):
			answer = connection.read_response()
			assert answer.status == 200 and answer.json["target"] == f"/echo?who={i}-{turn}", (i, turn, answer)
	for connection in connections:
		connection.close()


def test_requests_sent_ahead_are_answered_in_order(site):
	with Connection(site.port) as connection:
		connection.send("".join(head(f"/echo?n={i}") for i in range(200)))
		for i in range(200):
			assert connection.read_response().json["target"] == f"/echo?n={i}"


class Sender(threading.Thread):
	"""Sends pieces one by one until all are sent, or the connection is closed."""

	def __init__(self, connection, pieces):
		super().__init__()
		self.connection, self.pieces, self.n = connection, pieces, 0
		self.start()

	def run(self):
		with contextlib.suppress(OSError):
			for piece in self.pieces:
				self.connection.send(piece)
				self.n += 1


def wait_stalled(progress):
	"""Nothing has gone on for a while: somebody does not read, and all buffers before him are full."""
	seen, since = None, time.monotonic()

	def is_stalled():
		nonlocal seen, since
		now = progress()
		if now != seen:
			seen, since = now, time.monotonic()
		return time.monotonic() - since > 0.3
	wait_until(is_stalled, 60, "a gateway that waits")


def test_a_slow_reader_gets_every_byte(site):
	"""Each time its socket is full, so that the kernel takes a message in part or not at all."""
	n, sizes = 40_000, [1, 700, 1500, 2900, 3600]
	asked = [head(f"/size/{size}") for size in sizes] * (n // len(sizes))
	with Connection(site.port, receive_buffer=4096, timeout=60) as connection:
		sender = Sender(connection, asked)
		at = 0
		for _ in range(8):
			wait_stalled(lambda: site.backend.stats()["requests"])
			for _ in range(517):
				answer = connection.read_response()
				assert answer.status == 200 and answer.body == pattern(sizes[at % len(sizes)]), (at, answer)
				at += 1
		connection.socket.shutdown(socket.SHUT_RDWR)
		sender.join()


def is_taken(client):
	"""The gateway has read all that this client sent: the kernel keeps none of it on its side."""
	ours = f"{client.port:04X} ", f":{client.socket.getsockname()[1]:04X} "
	with open("/proc/net/tcp") as table:
		row = next(row.split() for row in table if all(end in row for end in ours) and row.split()[1].endswith(ours[0].strip()))
	return row[4].endswith(":00000000")


def test_a_slow_upstream_gets_every_byte(site):
	"""Its socket is full, so that the kernel takes a piece of the body in part or not at all."""
	piece, n = 3999, 5000
	with socket.socket() as listener:
		listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
		listener.bind(("127.0.0.1", 0))
		listener.listen()
		site.route("/slow-upstream", listener.getsockname()[1])
		with Connection(site.port, timeout=60) as client:
			client.start("POST", "/slow-upstream", {"Content-Length": piece * n})
			upstream = Connection.of(listener.accept()[0])
			upstream.take_until(b"\r\n\r\n")
			pieces = iter(pattern(piece, i * piece) for i in range(n))
			sent = 0
			stalls = False
			while not stalls:
				client.send(next(pieces))
				sent += 1
				since = time.monotonic()
				while not is_taken(client) and not stalls:
					stalls = time.monotonic() - since > 0.5
			assert 0 < sent < n
			sender = Sender(client, pieces)
			assert upstream.take(piece * n) == pattern(piece * n)
			upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
			assert client.read_response().body == b"done"
			sender.join()
			upstream.close()


def test_the_last_answer_comes_before_the_end(site):
	for _ in range(20):
		with Connection(site.port) as connection:
			connection.send(head("/size/900") * 30 + head("/size/1000", "Connection: close\r\n"))
			for _ in range(30):
				assert len(connection.read_response().body) == 900
			last = connection.read_response()
			assert len(last.body) == 1000 and last.header("Connection") == "close"
			assert connection.is_closed(10) and not connection.buffer


def test_who_leaves_takes_nothing_along(site):
	"""Resets beside requests of others, in the same turns: their descriptors are used again at once."""
	stay = [Connection(site.port) for _ in range(20)]
	for turn in range(30):
		leave = [Connection(site.port) for _ in range(20)]
		for i, (one, other) in enumerate(zip(stay, leave)):
			other.send(head(f"/echo?left={turn}-{i}"))
			one.send(head(f"/echo?stays={turn}-{i}"))
			other.reset()
		for i, one in enumerate(stay):
			assert one.read_response().json["target"] == f"/echo?stays={turn}-{i}"
	for one in stay:
		one.close()
	assert site.process.poll() is None


def test_requests_that_are_taken_back_leave_no_trace(site):
	"""Who sends a request and the end of the connection in one piece does not read the answer: its request is recalled in
	the turn that posted it."""
	kept = [Connection(site.port) for _ in range(20)]
	for connection in kept:
		connection.send(head("/delay/50"))
	for connection in kept:
		assert connection.read_response().status == 200    # connections to the upstream are there now
		connection.close()
	fill = "x" * 3700
	for i in range(60):
		with Connection(site.port) as leaver:
			leaver.socket.send(head(f"/echo?leaves={i}", f"X-Fill: {fill}\r\n").encode(), socket.MSG_MORE)
			leaver.socket.shutdown(socket.SHUT_WR)
			assert leaver.is_closed(10)
	with Connection(site.port) as one:
		assert one.get("/echo?after").json["target"] == "/echo?after"
	reached = [request for request in site.backend.requests() if request.target.startswith("/echo?leaves=")]
	assert len(reached) < 60, "no request was recalled: this shows nothing"


def ask_until_full(client, backend, most=100_000):
	"""Asks for 3000 bytes again and again, reading nothing, until the gateway waits or `most` are served. How many are."""
	before, served = backend.stats()["requests"], 0
	while served < most:
		client.send(head("/size/3000"))
		since = time.monotonic()
		while backend.stats()["requests"] - before <= served:
			if time.monotonic() - since > 0.5:
				return served
		served += 1
	return served


def test_a_bad_request_behind_an_answer_that_waits(site):
	"""It ends the connection, and not before the answer is out."""
	with Connection(site.port, receive_buffer=4096) as client:
		full = ask_until_full(client, site.backend)
	for before in (full - 2, full - 1, full):
		with Connection(site.port, receive_buffer=4096) as client:
			served = ask_until_full(client, site.backend, before)
			client.send(head("/size/3000") + "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
			wait_stalled(lambda: site.backend.stats()["requests"])
			for i in range(served + 1):
				assert client.read_response().body == pattern(3000), f"{i} of {served}"
			assert client.is_closed(10)


def test_a_drain_waits_for_who_reads_slowly():
	"""Of the last answer a part waits for the client when the gateway ends: it is no idle connection."""
	with Backend() as backend, Gateway(workers=1, requests_per_connection=0, drain_idle_ms=100, drain_timeout_ms=30000) as gw:
		gw.route("/", backend.port)
		with Connection(gw.port, receive_buffer=4096) as client, Connection(gw.port) as idle:
			idle.get("/size/1")
			served = ask_until_full(client, backend)
			gw.process.send_signal(signal.SIGTERM)
			assert idle.is_closed(20)
			for i in range(served):
				answer = client.read_response()
				assert answer.status == 200 and answer.body == pattern(3000), f"{i} of {served}: {answer}"


def test_a_refused_request_does_not_overtake_answers(site):
	with Connection(site.port) as connection:
		connection.send(head("/size/800") + "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
		try:
			first = connection.read_response()
			assert first.status == 200 and len(first.body) == 800
			assert connection.read_response().status == 400
			assert connection.is_closed(10)
		except (Closed, Malformed) as problem:
			pytest.fail(f"the answers are not whole: {problem}")


def test_ways_are_counted(site):
	connections = [Connection(site.port) for _ in range(50)]

	def is_settled():
		for connection in connections:
			connection.send(head("/size/10"))
		for connection in connections:
			connection.read_response()
		return sent(site, "together") > 0 or site.events("io_uring.unavailable") or not site.settings["io_uring"]
	wait_until(is_settled, 20, "messages that were sent together, or a reason")
	assert (sent(site, "together") > 0) == (site.settings["io_uring"] and not site.events("io_uring.unavailable"))
	assert sent(site, "single") > 0
	for connection in connections:
		connection.close()


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="the filter is written for x86-64")
def test_a_kernel_that_refuses_io_uring_is_lived_with(tmp_path):
	script = tmp_path / "refuse.py"
	script.write_text(REFUSE)
	with Backend() as backend, Gateway(workers=1, prefix=[sys.executable, str(script)]) as gw:
		gw.route("/", backend.port)
		connections = [Connection(gw.port) for _ in range(50)]

		def is_told():
			for i, connection in enumerate(connections):
				connection.send(head(f"/echo?n={i}"))
			for i, connection in enumerate(connections):
				assert connection.read_response().json["target"] == f"/echo?n={i}"
			return gw.events("io_uring.unavailable")
		record = wait_until(is_told, 20, "a record about io_uring")[0]
		assert record["why"] == "Operation not permitted" and "one by one" in record["effect"]
		assert sent(gw, "together") == 0 and sent(gw, "single") > 0
		for connection in connections:
			connection.close()
