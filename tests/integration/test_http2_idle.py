"""HTTP/2 connections on which nothing comes: both sides ask by PING, and what they hold counts in the memory of the worker."""
import contextlib
import socket
import threading
import time

import pytest
from backends import Backend
from gw import Gateway
from h2wire import *    # noqa: F403 -- the vocabulary of frames
from h2wire import H2, block, frame, settings
from wire import wait_until

PING_MS, PATIENCE_MS = 200, 600


@pytest.fixture(scope="module")
def gw():
	with Gateway(http2_ping_ms=PING_MS, http2_ping_timeout_ms=PATIENCE_MS) as gateway:
		yield gateway


@pytest.fixture(scope="module")
def site(gw, backend_process):
	gw.route("/", backend_process)
	return gw


def is_ping(f):
	return f.kind == PING and not f.flags & ACK


def ends(gw, reason):
	_, text, _ = metrics(gw)
	return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
		if line.startswith("sluice_http2_ends_total") and f'reason="{reason}"' in line)


def metrics(gw):
	import urllib.request
	request = urllib.request.Request(f"http://{gw.admin}/metrics", headers={"X-Auth-Token": gw.token})
	with urllib.request.urlopen(request, timeout=20) as answer:
		return answer.status, answer.read().decode(), answer.headers


def test_client_that_is_gone_is_noticed(site, backend):
	before = ends(site, "ping_timeout")
	with H2(site.port) as h:
		start = time.monotonic()
		h.start(path="/hang")
		h.wait(is_ping)
		assert time.monotonic() - start >= PING_MS / 1000 * 0.9
		assert h.ended(20) == NO_ERROR
		assert time.monotonic() - start >= (PING_MS + PATIENCE_MS) / 1000 * 0.9
	wait_until(lambda: ends(site, "ping_timeout") > before, 5, "the count of it")
	wait_until(lambda: site.records(path="/hang"), 5, "the record of the request")


def test_client_that_answers_stays(site):
	with H2(site.port) as h:
		sid = h.start(path="/slow/4/500")
		pings = 0
		while not h.answers.get(sid) or not h.answers[sid].done:
			got = h.read()
			assert got is not None, h.frames
			if is_ping(got):
				pings += 1
				h.send(frame(PING, ACK, 0, got.payload))
		assert h.answers[sid].status == 200 and pings >= 2
		assert h.ping()


def test_connection_without_requests_is_not_asked(site):
	with H2(site.port) as h:
		assert h.get("/small").status in (200, 404)
		h.socket.settimeout(PING_MS * 4 / 1000)
		with contextlib.suppress(TimeoutError):
			while (got := h.read()) is not None:
				assert not is_ping(got), got


class Upstream:
	"""Takes one connection; never answers a request before told to. `answers`: whether PINGs are answered."""

	def __init__(self, answers):
		self.listener = socket.create_server(("127.0.0.1", 0))
		self.port = self.listener.getsockname()[1]
		self.answers, self.pings, self.streams, self.peers, self.is_over = answers, [], [], [], threading.Event()
		threading.Thread(target=self.loop, daemon=True).start()

	def loop(self):
		with contextlib.suppress(OSError):
			while True:
				peer, _ = self.listener.accept()
				self.peers.append(peer)
				self.serve(peer)
				self.is_over.set()

	def serve(self, peer):
		reader = peer.makefile("rb")
		reader.read(24)
		peer.sendall(settings())
		while len(start := reader.read(9)) == 9:
			payload = reader.read(int.from_bytes(start[:3], "big"))
			if start[3] == SETTINGS and not start[4] & ACK:
				peer.sendall(frame(SETTINGS, ACK, 0))
			elif start[3] == HEADERS:
				self.streams.append(int.from_bytes(start[5:], "big"))
			elif start[3] == PING and not start[4] & ACK:
				self.pings.append(time.monotonic())
				if self.answers:
					peer.sendall(frame(PING, ACK, 0, payload))

	def close(self):
		self.listener.close()
		for peer in self.peers:
			peer.close()


def service_of(gw, port):
	return gw.service(port, ports=[{"protocol": "HTTP2", "port": port}])


def test_upstream_that_is_gone_is_noticed(gw):
	upstream = Upstream(answers=False)
	with contextlib.closing(upstream):
		gw.route("/gone", service_of(gw, upstream.port))
		start = time.monotonic()
		answer = gw.request("POST", "/gone", body=b"x")
		assert answer.status == 503
		assert (PING_MS + PATIENCE_MS) / 1000 * 0.9 <= time.monotonic() - start < 30
		assert upstream.is_over.wait(10)


def test_upstream_that_answers_is_asked_once_in_a_silence(gw):
	"""Servers of gRPC take more PINGs within five minutes of silence for an attack, and end the connection."""
	upstream = Upstream(answers=True)
	with contextlib.closing(upstream):
		gw.route("/patient", service_of(gw, upstream.port))
		with gw.connect() as c:
			c.start("GET", "/patient")
			wait_until(lambda: upstream.pings, 10, "a PING")
			time.sleep((PING_MS * 3 + PATIENCE_MS) / 1000)
			assert len(upstream.pings) == 1 and not upstream.is_over.is_set()
			upstream.peers[0].sendall(frame(HEADERS, END_HEADERS, upstream.streams[0], block([(":status", "200")])))
			assert c.read_head().status == 200
			wait_until(lambda: len(upstream.pings) == 2, 10, "a PING of the next silence")
			upstream.peers[0].sendall(frame(DATA, END_STREAM, upstream.streams[0], b"late"))
			assert b"late" in c.take_until(b"0\r\n\r\n")


def test_pings_can_be_switched_off(backend_process):
	with Gateway(http2_ping_ms=0, http2_ping_timeout_ms=1) as gw:
		gw.route("/", backend_process)
		with H2(gw.port) as h:
			sid = h.start(path="/slow/2/600")
			assert h.answer(sid).status == 200
			assert not any(is_ping(f) for f in h.frames)


def shed(gw):
	_, text, _ = metrics(gw)
	return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
		if line.startswith("sluice_overload_connections_total") and "memory_holder" in line)


def test_memory_of_connections_counts():
	"""Each session holds about 32 KiB: 300 of them are more than the worker may hold, and some of them have to go."""
	with Backend() as upstream, Gateway(workers=1, worker_memory_bytes=4 << 20) as gw:
		gw.route("/", upstream)
		with contextlib.ExitStack() as stack:
			for _ in range(300):
				h = stack.enter_context(H2(gw.port, greet=False))
				h.send(PREFACE + settings())
				h.start(path="/hang")
			wait_until(lambda: shed(gw) > 0, 20, "a connection that went")
		wait_until(lambda: gw.get("/echo").status == 200, 20, "all that was held came back")


def test_memory_comes_back():
	"""Connections, streams, bodies that waited: with a limit just above what one round takes, many rounds are served."""
	with Backend() as upstream, Gateway(workers=1, worker_memory_bytes=8 << 20) as gw:
		gw.route("/", upstream)
		for _ in range(30):
			with H2(gw.port) as h:
				streams = [h.start(path="/size/60000") for _ in range(10)]
				assert all(h.answer(sid).status == 200 for sid in streams)
				assert h.request(head("/echo", method="POST"), body=bytes(50000)).status == 200
				cut = h.start(path="/endless")
				h.wait(lambda f: f.kind == DATA and f.stream == cut)
		assert shed(gw) == 0 and gw.get("/echo").status == 200
