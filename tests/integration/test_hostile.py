# serial: it measures memory, CPU and latency of the release program under attack.
"""Clients that mean harm: what they cost is bounded, their time ends, and others are served meanwhile."""
import contextlib
import socket
import threading
import time

import pytest
from gw import free_port
from hostile import TIMES, Crowd, cpu_seconds, good_traffic, is_quiet, metric, rss_per_connection, site
from scale import sized
from wire import Closed, Connection, wait_until

CROWD = sized("SLUICE_CROWD", 3000, 10_000)    # connections of a flood


def test_idle_flood():
	"""Connections that say nothing: at most 10 KB each, and gone when the time for a head is over."""
	with site() as gw:
		before = gw.rss_kb()
		with Crowd(gw.port, CROWD) as crowd:
			start = time.monotonic()
			each = rss_per_connection(gw, before, CROWD)
			with good_traffic(gw, 1.0):
				pass
			wait_until(crowd.is_gone, 20, "the end of all idle connections")
			assert time.monotonic() - start < TIMES["header_timeout_ms"] / 1000 + 10
		print(f"{each:.2f} KB for each of {CROWD} idle connections")
		assert each <= 10, f"{each:.1f} KB for an idle connection"


def test_slow_heads():
	with site() as gw:
		before, cpu = gw.rss_kb(), cpu_seconds(gw)
		sent = 0
		answers = []
		with Crowd(gw.port, CROWD, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ") as crowd, good_traffic(gw):
			each = rss_per_connection(gw, before, CROWD)
			end = time.monotonic() + 10
			while crowd.sockets and time.monotonic() < end:
				crowd.send(b"b")
				sent += len(crowd.sockets)
				answers += crowd.reap()
				time.sleep(0.1)
			assert not crowd.sockets, f"{len(crowd.sockets)} slow heads are still open"
		print(f"{each:.2f} KB for each of {CROWD} slow heads, {(cpu_seconds(gw) - cpu) / sent * 1e6:.1f} us of CPU for a byte, good traffic included")
		assert each <= 10, f"{each:.1f} KB for a slow head"
		assert any(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
		# One event and one receive for each byte, and good traffic beside it.
		assert cpu_seconds(gw) - cpu < 2 + sent * 40e-6, f"{cpu_seconds(gw) - cpu:.2f} s for {sent} bytes"


def test_slow_bodies():
	"""Each byte comes in time, the whole does not: 20 bytes a second are less than 240."""
	with site() as gw:
		before = gw.rss_kb()
		with Crowd(gw.port, 500, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n") as crowd, good_traffic(gw):
			end = time.monotonic() + 10
			while crowd.sockets and time.monotonic() < end:
				crowd.send(b"x")
				crowd.reap()
				time.sleep(0.05)
			assert not crowd.sockets, f"{len(crowd.sockets)} slow bodies are still open"
		assert gw.rss_kb() - before < 500 * 40


@pytest.mark.parametrize("taken", [0, 1], ids=["nothing", "a byte now and then"])
def test_slow_readers(taken):
	"""They ask for much and take nearly nothing: cut off in their time; what is kept for them meanwhile is bounded."""
	n = 400
	with site(worker_memory_bytes=16 << 20) as gw:
		before = gw.rss_kb()
		with Crowd(gw.port, n, b"GET /b/4000000 HTTP/1.1\r\nHost: a\r\n\r\n", receive_buffer=4096) as crowd:
			most, end = 0, time.monotonic() + 15
			while crowd.sockets and time.monotonic() < end:
				most = max(most, gw.rss_kb() - before)
				if taken:
					crowd.reap(taken)
				time.sleep(0.05)
				if not gw.ask("GET", "/livez") or is_quiet(gw):
					break
			assert is_quiet(gw), "slow readers are still served"
		# Two workers of 16 MB, and what the allocator rounds up to.
		assert most < 2 * 16 * 1024 + 48 * 1024, f"{most} KB more"
		with good_traffic(gw, 0.5):
			pass


def test_connections_that_come_and_go():
	with site() as gw:
		cpu, n = cpu_seconds(gw), 4000
		with good_traffic(gw):
			for i in range(n):
				s = socket.socket()
				s.connect(("127.0.0.1", gw.port))
				if i % 2:
					s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
				s.close()
		assert cpu_seconds(gw) - cpu < 1.5 + n * 200e-6
		wait_until(lambda: metric(gw, "sluice_downstream_connections") < 20, 20, "the end of all")


def few_descriptors(n):
	return {"prefix": ["prlimit", f"--nofile={n}:{n}"], "workers": 2}


def test_without_descriptors_idle_connections_make_room():
	with site(**few_descriptors(160), header_timeout_ms=60000, idle_timeout_ms=60000) as gw:
		with Crowd(gw.port, 300) as crowd:
			time.sleep(1.1)    # what is younger than a second is left alone
			with good_traffic(gw):
				pass
			assert gw.api("GET", "/readyz")[0] == 200
			assert gw.descriptors() <= 160
			crowd.reap()
			assert len(crowd.sockets) < 160
		assert metric(gw, "sluice_overload_connections_total") > 0


def test_without_descriptors_nothing_spins_and_the_api_answers():
	"""All of them are busy: nobody can make room."""
	with site(**few_descriptors(160), header_timeout_ms=60000) as gw:
		slow = gw.service(silent := free_port())
		gw.route("/hang", slow)
		with socket.socket() as listener:
			listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
			listener.bind(("127.0.0.1", silent))
			listener.listen(1000)
			with Crowd(gw.port, 400, b"POST /hang HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n") as crowd:
				time.sleep(0.3)
				cpu = cpu_seconds(gw)
				time.sleep(1)
				assert cpu_seconds(gw) - cpu < 0.3, "the process spins"
				assert gw.api("GET", "/readyz")[0] == 200
				gw.feature("xffTrustedNum", 1)    # the store can be written
				crowd.reap()
		# It passes by itself.
		wait_until(lambda: metric(gw, "sluice_downstream_connections") < 20, 20, "the end of all")
		with good_traffic(gw, 0.5):
			pass


def test_connections_beyond_the_limit_are_refused_quickly():
	with site(workers=1, max_connections=50, header_timeout_ms=60000) as gw:
		with Crowd(gw.port, 50) as crowd:
			wait_until(lambda: metric(gw, "sluice_downstream_connections") == 50, 20, "the limit")
			start = time.monotonic()
			for _ in range(20):
				with contextlib.suppress(ConnectionResetError), Connection(gw.port) as one:
					assert one.is_closed(2)
			assert time.monotonic() - start < 10
			assert gw.api("GET", "/livez")[0] == 200
			crowd.reap()
			assert len(crowd.sockets) == 50
		wait_until(lambda: metric(gw, "sluice_downstream_connections") == 0, 20, "the end of all")
		with good_traffic(gw, 0.5):
			pass
		assert metric(gw, "sluice_overload_connections_total") >= 20


def test_pipelined_requests_without_end():
	"""Answers are not taken, requests go on: they stay in the sender's kernel."""
	with site() as gw:
		before, cpu = gw.rss_kb(), cpu_seconds(gw)
		piece = b"GET /b/1024 HTTP/1.1\r\nHost: a\r\n\r\n" * 500
		sent = 0
		with Crowd(gw.port, 100, receive_buffer=4096) as crowd, good_traffic(gw):
			for _ in range(40):
				for s in crowd.sockets:
					with contextlib.suppress(OSError):
						sent += s.send(piece)
				time.sleep(0.02)
			more = gw.rss_kb() - before
		# At most 64 KB sent ahead and the answers that were backed up, for each.
		assert more < 100 * 200, f"{more} KB for 100 connections"
		assert cpu_seconds(gw) - cpu < 3 + sent / 34 * 100e-6


def test_heads_as_large_as_allowed():
	"""Each keeps 31 KB of a head that does not end."""
	n = 300
	with site() as gw:
		before = gw.rss_kb()
		field = b"X-A: " + b"a" * 1000 + b"\r\n"
		with Crowd(gw.port, n, b"GET / HTTP/1.1\r\nHost: a\r\n" + field * 30) as crowd, good_traffic(gw, 1.0):
			time.sleep(0.3)
			more = gw.rss_kb() - before
			crowd.send(field * 3)    # beyond 32 KB
			time.sleep(0.3)
			answers = crowd.reap()
		assert more < n * 48, f"{more} KB for {n} heads"
		assert len(answers) == n and all(answer.startswith(b"HTTP/1.1 431 ") for answer in answers)


def refused(gw, data):
	"""Sends until the other side ends it. Returns the status, None when it said nothing."""
	with Connection(gw.port) as c:
		try:
			c.send(data)
			return c.read_head().status
		except (OSError, Closed):
			return None


def test_fields_and_cookies_are_counted():
	with site() as gw:
		assert refused(gw, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n") == 431
		crumbs = b"; ".join(b"a%d=b" % i for i in range(200))
		assert refused(gw, b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + crumbs + b"\r\n\r\n") == 431


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("flood", [b"1;" + b"a" * (1 << 20), b"1\r\na\r\n0\r\n" + b"X-T: " + b"a" * (1 << 20),
	b"1\r\na\r\n0\r\n" + b"X-T: a\r\n" * 100_000, b"0" * (1 << 20) + b"1\r\n"], ids=["extension", "trailer", "trailers", "size"])
def test_what_surrounds_chunks_is_bounded(flood):
	with site() as gw:
		before, cpu = gw.rss_kb(), cpu_seconds(gw)
		for _ in range(20):
			assert refused(gw, CHUNKED + flood) in (None, 400, 413, 431)
		assert gw.rss_kb() - before < 8 * 1024
		assert cpu_seconds(gw) - cpu < 1.5


def test_extensions_on_every_chunk():
	"""Each is small, together they are most of the bytes: no memory, and CPU in proportion to what is sent."""
	with site() as gw, Connection(gw.port) as c:
		before, cpu, n = gw.rss_kb(), cpu_seconds(gw), 50_000
		with contextlib.suppress(OSError):
			c.send(CHUNKED + (b"1;a=" + b"b" * 60 + b"\r\nx\r\n") * n + b"0\r\n\r\n")
		with contextlib.suppress(Closed):
			assert c.read_head().status in (200, 400, 404, 413, 503)
		assert gw.rss_kb() - before < 8 * 1024
		assert cpu_seconds(gw) - cpu < 1 + n * 20e-6


def test_chunks_of_one_byte():
	"""10 MB of body in pieces of a byte: 60 MB on the wire."""
	n = sized("SLUICE_TINY_CHUNKS", 2_000_000, 10_000_000)
	with site() as gw:
		with socket.socket() as listener:
			listener.bind(("127.0.0.1", 0))
			listener.listen()
			gw.route("/upload", listener.getsockname()[1])
			took = []

			def swallow():
				peer, _ = listener.accept()
				with peer:
					last = b""
					while data := peer.recv(1 << 20):
						took.append(len(data))
						last = (last + data)[-7:]
						if last.endswith(b"\r\n0\r\n\r\n"):
							peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
							return

			thread = threading.Thread(target=swallow)
			thread.start()
			before, cpu = gw.rss_kb(), cpu_seconds(gw)
			with Connection(gw.port) as c, good_traffic(gw):
				c.send(CHUNKED.replace(b"/ ", b"/upload ", 1))
				for _ in range(n // 10_000):
					c.send(b"1\r\nx\r\n" * 10_000)
				c.send(b"0\r\n\r\n")
				assert c.read_response().status == 200
			thread.join()
		assert sum(took) >= n
		assert gw.rss_kb() - before < 8 * 1024
		spent = cpu_seconds(gw) - cpu
		print(f"{spent / n * 1e9:.0f} ns for a chunk of one byte")
		assert spent < 1 + n * 0.4e-6, f"{spent:.2f} s for {n} chunks"
