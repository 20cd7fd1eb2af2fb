"""What goes wrong on the upstream's side, or on the client's while the upstream works."""
import socket
import time

import pytest
from backends import Backend
from gw import Gateway, free_port
from scale import FULL
from scripted import Scripted, read_request
from wire import Closed, Connection, pattern, wait_until


@pytest.fixture(scope="module")
def gw():
	with Gateway(connect_timeout_ms=300, upstream_idle_ms=400) as gateway:
		yield gateway


@pytest.fixture(scope="module")
def site(gw, backend_process):
	gw.route("/", backend_process)
	return gw


def check_error(answer, status):
	assert answer.status == status, answer
	assert set(answer.json) == {"errorCode", "errorMessage", "requestId"}
	assert answer.header("Content-Type").startswith("application/json")


# ---- documented codes ----

def test_refused_connection_is_503(gw):
	gw.route("/refused", free_port())
	check_error(gw.get("/refused"), 503)
	assert gw.wait_record(path="/refused")["flag"] == "UF"


def test_silent_host_is_503_after_the_connect_timeout(gw):
	"""A listener whose queue is full answers no SYN."""
	with socket.socket() as full:
		full.bind(("127.0.0.1", 0))
		full.listen(0)
		fillers = []
		for _ in range(8):
			filler = socket.socket()
			filler.setblocking(False)
			filler.connect_ex(full.getsockname())
			fillers.append(filler)
		gw.route("/silent", full.getsockname()[1])
		start = time.monotonic()
		check_error(gw.get("/silent"), 503)
		assert 0.25 < time.monotonic() - start < 9
		for filler in fillers:
			filler.close()


@pytest.mark.parametrize("body, fault", [(b"zz\r\nok\r\n", "chunk"), (b"0\r\nContent-Length: 9\r\n\r\n", "trailer")])
def test_chunks_that_are_none_break_the_protocol(gw, body, fault):
	"""The upstream closed nothing: its bytes are what is wrong."""
	def answer(connection):
		read_request(connection)
		connection.socket.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
		connection.socket.recv(1)    # until the gateway closes

	with Scripted(answer) as upstream:
		gw.route(f"/no-{fault}", upstream.port)
		check_error(gw.get(f"/no-{fault}"), 502)
	assert gw.wait_record(path=f"/no-{fault}")["flag"] == "UP"
	assert fault in gw.events("upstream.failed")[-1]["fault"]


@pytest.mark.parametrize("path", ["/closed", "/reset"])
def test_end_before_an_answer_is_503(site, backend, path):
	check_error(site.request("POST", path, body=b"x"), 503)
	assert len(backend.requests()) == 1, "a POST is not repeated"


def test_silence_is_504(site, backend):
	start = time.monotonic()
	check_error(site.get("/hang"), 504)
	assert 0.3 < time.monotonic() - start < 15
	assert site.wait_record(path="/hang")["flag"] == "UT"


@pytest.mark.parametrize("kind", ["text", "version", "status", "short-status", "no-colon", "space-colon", "empty-name", "two-lengths",
	"bad-length", "negative-length", "length-and-chunked", "coding", "control", "bare-cr", "fold", "http2", "switch"])
def test_malformed_answer_is_502(site, backend, kind):
	with site.connect() as connection:
		check_error(connection.get(f"/garbage/{kind}"), 502)
		assert connection.get("/echo").status == 200, "the client's connection goes on"


def test_oversized_answer_head_is_502(site, backend):
	check_error(site.get("/big-head/300000"), 502)


@pytest.mark.parametrize("path", ["/garbage/bad-chunk", "/garbage/no-chunk-end", "/garbage/huge-chunk", "/cut-chunked", "/cut-mid",
	"/reset-mid"])
def test_answer_that_breaks_off_does_not_look_complete(site, backend, path):
	with site.connect() as connection:
		with pytest.raises(Closed):
			answer = connection.get(path)
			# What arrived in one piece with the head may be refused as a whole.
			assert answer.status == 502, answer
			raise Closed
	assert site.get("/echo").status == 200


def test_pause_within_an_answer_breaks_it_off(site, backend):
	with site.connect() as connection:
		connection.start("GET", "/slow/5/2000")
		connection.read_head()
		assert connection.take(1) == pattern(1)
		with pytest.raises(Closed):
			connection.take(4)


def test_no_service_of_the_route(gw):
	gw.route("/nothing-behind", None)
	check_error(gw.get("/nothing-behind"), 503)


def test_unresolvable_name_is_503(gw):
	service = gw.service(["does-not-exist.invalid:80"], sourceType="DNS")
	gw.route("/unresolvable", service)
	check_error(gw.get("/unresolvable"), 503)


def test_name_is_resolved(gw, backend):
	gw.route("/by-name", gw.service([f"localhost:{backend.port}"], sourceType="DNS"))
	assert gw.get("/by-name/echo").json["port"] == backend.port


# ---- stale kept connections ----

def test_request_on_a_stale_connection_is_repeated(site, backend):
	"""The upstream closes a kept connection just as a request arrives on it."""
	with site.connect() as connection:
		for _ in range(5):
			assert connection.get("/stale-next").status == 200
			answer = connection.get("/echo")
			assert answer.status == 200, answer


def test_post_on_a_stale_connection_is_not_sent_twice(site, backend):
	with site.connect() as connection:
		assert connection.get("/stale-next").status == 200
		answer = connection.request("POST", "/echo", body=b"once")
		sent = [record for record in backend.requests() if record.method == "POST"]
		assert len(sent) == 1
		assert answer.status == 503


# ---- the client goes, or is slow ----

@pytest.mark.parametrize("path", ["/delay/5000", "/slow/100000/1", "/endless/0"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_abort_closes_the_upstream(gw, path, how):
	site = gw.gateway()
	with Backend() as backend:
		gw.route("/", backend, site=site)
		connection = gw.connect(site)
		connection.start("GET", path)
		wait_until(lambda: backend.requests(), 5, "the request at the upstream")
		assert backend.stats()["open"] == 1
		start = time.monotonic()
		getattr(connection, how)()
		backend.wait_open(0, seconds=15)
		# A second is the figure; others may load the machine.
		assert time.monotonic() - start <= (1.2 if FULL else 10)
	assert gw.wait_record(flag="DC")


def test_client_abort_within_its_body_closes_the_upstream(gw):
	site = gw.gateway()
	with Backend() as backend:
		gw.route("/", backend, site=site)
		with gw.connect(site) as connection:
			connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
			wait_until(lambda: backend.requests(), 5, "the request at the upstream")
			assert backend.stats()["open"] == 1
		backend.wait_open(0, seconds=1.5)
		assert not backend.requests()[0].complete


def test_reader_that_stalls_is_not_buffered_for():
	"""200 MB for a reader that reads nothing: the upstream is held back instead."""
	with Gateway(workers=1) as gw, Backend() as backend:
		gw.route("/", backend)
		assert gw.get("/size/1000000").status == 200    # warm
		before = gw.rss_kb()
		with gw.connect(receive_buffer=65536) as connection:
			connection.start("GET", "/size/200000000")
			connection.read_head()
			end = time.monotonic() + 2
			most = 0
			while time.monotonic() < end:
				most = max(most, gw.rss_kb() - before)
				time.sleep(0.05)
			assert most < 20_000
			# Then it goes on, whole.
			received = len(connection.buffer)
			connection.buffer = b""
			while received < 200_000_000:
				assert connection.fill(1 << 20)
				received += len(connection.buffer)
				connection.buffer = b""
			most = max(most, gw.rss_kb() - before)
		assert received == 200_000_000
		assert most < 20_000


def test_upstream_that_does_not_read_holds_the_client_back():
	with Gateway(workers=1) as gw, Backend() as backend:
		gw.route("/", backend)
		gw.get("/echo")
		before = gw.rss_kb()
		with gw.connect(timeout=0.5) as connection:
			connection.send("POST /stall-body/3000 HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n")
			sent = 0
			with pytest.raises(TimeoutError):
				for _ in range(200):
					connection.send(b"x" * 1_000_000)
					sent += 1
			assert sent < 100
			assert gw.rss_kb() - before < 20_000


def test_body_of_a_stalled_upstream_arrives_whole(site, backend):
	body = pattern(8_000_000)
	assert site.request("POST", "/stall-body/200", body=body).status == 200
	assert backend.last().body_bytes == len(body)


# ---- timers of the client's side ----

@pytest.fixture(scope="module")
def hurried(backend_process):
	with Gateway(header_timeout_ms=300, body_idle_ms=300, idle_timeout_ms=300, write_stall_ms=500, body_min_rate=0) as gateway:
		gateway.route("/", backend_process)
		yield gateway


def test_slow_header_is_408(hurried):
	with hurried.connect() as connection:
		start = time.monotonic()
		connection.send("GET / HTTP/1.1\r\nHost: a\r\n")
		answer = connection.read_response()
		assert answer.status == 408
		assert connection.is_closed()
		assert 0.2 < time.monotonic() - start < 15


def test_header_time_is_in_total(hurried):
	"""A byte now and then does not extend it."""
	with hurried.connect() as connection:
		start = time.monotonic()
		try:
			for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 200:
				connection.send(bytes([byte]))
				if connection.is_closed(0.02):
					break
		except (BrokenPipeError, ConnectionResetError):
			pass
		assert time.monotonic() - start < 15


def test_idle_connection_is_closed_without_a_word(hurried):
	with hurried.connect() as connection:
		assert connection.get("/echo").status == 200
		assert connection.is_closed(15)
		assert not connection.buffer


def test_connection_without_a_byte_is_closed(hurried):
	with hurried.connect() as connection:
		assert connection.is_closed(15)


def test_body_that_stalls_is_given_up(hurried, backend):
	with hurried.connect() as connection:
		connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
		assert connection.is_closed(15)
		assert not connection.buffer or connection.buffer.startswith(b"HTTP/1.1 408")
	assert not [record for record in backend.requests() if record.complete]


def test_client_that_reads_nothing_is_closed(hurried, backend):
	connection = Connection(hurried.port, receive_buffer=4096)
	connection.start("GET", "/endless/0")
	wait_until(lambda: backend.requests(), 5, "the request")
	wait_until(lambda: hurried.records(flag="DC"), 5, "the end of the exchange")
	connection.close()


def test_too_slow_body_is_given_up(backend_process):
	with Gateway(body_min_rate=100_000, body_idle_ms=2000) as gw:
		gw.route("/", backend_process)
		with gw.connect() as connection:
			connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
			start = time.monotonic()
			try:
				while not connection.is_closed(0.1) and time.monotonic() - start < 20:
					connection.send(b"x" * 10)
			except (BrokenPipeError, ConnectionResetError):
				pass
			assert time.monotonic() - start < 20


# ---- stopping ----

def test_stop_finishes_what_is_in_flight(backend_process):
	with Gateway() as gw:
		gw.route("/", backend_process)
		idle = gw.connect()
		assert idle.get("/echo").status == 200
		busy = gw.connect()
		busy.start("GET", "/delay/600")
		wait_until(lambda: any(r.target == "/delay/600" for r in backend_process.requests()), 5, "the request")
		gw.process.terminate()
		assert idle.is_closed(3)
		answer = busy.read_response()
		assert answer.status == 200
		assert busy.is_closed(3)
		assert gw.process.wait(10) == 0
		with pytest.raises(ConnectionRefusedError):
			gw.connect()


def test_second_signal_stops_at_once(backend_process):
	with Gateway(drain_timeout_ms=60_000) as gw:
		gw.route("/", backend_process)
		busy = gw.connect()
		busy.start("GET", "/hang")
		wait_until(lambda: any(r.target == "/hang" for r in backend_process.requests()), 5, "the request")
		gw.process.terminate()
		wait_until(lambda: gw.events("stop.drain"), 5, "the drain")
		gw.process.terminate()
		assert gw.process.wait(5) == 0
