"""HTTP/2 of clients and upstreams on live traffic: real programs, flow control, policies, ends, and what hostile clients do."""
import hashlib
import os
import signal
import socket
import subprocess
import time

import node
import pytest
from backends import Backend
from gw import IS_SANITIZED, Gateway, free_port
from h2wire import *    # noqa: F403 -- the vocabulary of frames
from h2wire import H2, block, frame, head, integer, literal, rst, settings, window_update
from policy_kit import cors, headers, op, rate, raw_get
from wire import pattern, wait_until


@pytest.fixture(scope="module")
def gw():
	with Gateway(header_timeout_ms=1500, body_idle_ms=1500, write_stall_ms=1500, idle_timeout_ms=3000) as gateway:
		yield gateway


@pytest.fixture(scope="module")
def site(gw, backend_process):
	gw.route("/", backend_process)
	return gw


def run(*command, seconds=60, **more):
	return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds, **more)


def ends(site, reason):
	"""How often the gateway ended something of HTTP/2 for that reason."""
	_, text, _ = raw_get(site, "/metrics")
	for line in text.splitlines():
		if line.startswith(f'sluice_http2_ends_total{{reason="{reason}"}}'):
			return int(line.split()[-1])
	return 0


# ---- real clients ----

def test_curl(site):
	url = f"http://127.0.0.1:{site.port}"
	assert run("curl", "-s", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url + "/echo").stdout == b"2 200"
	assert run("curl", "-s", "--http2-prior-knowledge", url + "/size/300000").stdout == pattern(300000)


def test_curl_asking_for_an_upgrade_is_answered_over_http1(site):
	url = f"http://127.0.0.1:{site.port}/echo"
	assert run("curl", "-s", "--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url).stdout == b"1.1 200"


def test_curl_uploads(site, backend, tmp_path):
	body = os.urandom(3_000_000)
	(tmp_path / "body").write_bytes(body)
	for more in ([], ["-H", "Expect: 100-continue"]):
		out = run("curl", "-s", "--http2-prior-knowledge", "--data-binary", f"@{tmp_path}/body", *more, f"http://127.0.0.1:{site.port}/echo")
		assert hashlib.sha256(body).hexdigest().encode() in out.stdout, out


def test_nghttp(site):
	out = run("nghttp", "-v", "-n", f"http://127.0.0.1:{site.port}/size/100000")
	assert b":status: 200" in out.stdout and b"error_code=NO_ERROR" in out.stdout, out


def test_h2load(site):
	count = 2000 if IS_SANITIZED else 20000
	out = run("h2load", "-n", str(count), "-c", "4", "-m", "50", f"http://127.0.0.1:{site.port}/size/100").stdout.decode()
	assert f"{count} succeeded, 0 failed, 0 errored" in out, out


def test_h2load_beyond_the_requests_of_a_connection(backend_process):
	with Gateway(requests_per_connection=100) as gw:
		gw.route("/", backend_process)
		with H2(gw.port) as h:
			for _ in range(100):
				assert h.get("/echo").status == 200
			assert h.ended() == NO_ERROR


NODE = """
const http2 = require('http2'), crypto = require('crypto');
const client = http2.connect(process.argv[1]);
client.on('error', error => { console.error(error); process.exit(1); });
const one = path => new Promise((resolve, reject) => {
	const stream = client.request({ ':path': path }), hash = crypto.createHash('sha256');
	let status;
	stream.on('response', head => { status = head[':status']; });
	stream.on('data', data => hash.update(data));
	stream.on('end', () => resolve(status + ' ' + hash.digest('hex')));
	stream.on('error', reject);
	stream.end();
});
(async () => {
	const all = await Promise.all(Array.from({ length: 60 }, (_, i) => one('/size/' + (1000 * i + 1))));
	console.log(all.join('\\n'));
	client.close();
})();
"""


def test_node(site):
	out = run("node", "-e", NODE, f"http://127.0.0.1:{site.port}")
	assert out.stdout.decode().split("\n")[:-1] == [f"200 {hashlib.sha256(pattern(1000 * i + 1)).hexdigest()}" for i in range(60)], out


# ---- messages ----

def test_request_at_an_http1_upstream(site, backend):
	with H2(site.port) as h:
		answer = h.request(head("/echo//a/../b?x=%41", more=[("x-a", "b"), ("cookie", "a=1"), ("x_b", "c"), ("te", "trailers"),
			("cookie", "b=2"), ("trailer", "x-c")]))
	assert answer.status == 200
	seen = backend.last()
	assert seen.wire.startswith(b"GET /echo/b?x=%41 HTTP/1.1\r\nHost: gw.test\r\n")
	assert seen.header("Cookie") == "a=1; b=2" and seen.header("X-A") == "b"
	for name in ("x_b", "TE", "Trailer", "Transfer-Encoding", "Content-Length", "Connection", ":path"):
		assert seen.all(name) == [], name


def test_body_without_a_length_is_chunked_and_with_one_has_it(site, backend):
	with H2(site.port) as h:
		h.request(method="POST", body=b"abc")
		assert backend.last().header("Transfer-Encoding") == "chunked" and backend.last().body_bytes == 3
		h.request(head(method="POST", more=[("content-length", "3")]), body=b"abc")
		assert backend.last().header("Content-Length") == "3" and backend.last().body == b"abc"
		h.request(method="POST")
		assert backend.last().header("Content-Length") == "0"


def test_smuggled_length_is_counted_before_the_upstream_believes_it(site, backend):
	evil = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
	with H2(site.port) as h:
		sid = h.start(head(method="POST", more=[("content-length", "0")]), body=evil)
		assert h.answer(sid).reset == PROTOCOL_ERROR
		sid = h.start(head(method="POST", more=[("content-length", "3")]), body=b"abc", end=False)
		h.send(frame(DATA, END_STREAM, sid, evil))
		assert h.answer(sid).reset == PROTOCOL_ERROR
		assert [r for r in backend.requests() if r.complete] == []
		sid = h.start(head(method="POST"), body=b"0\r\n\r\n" + evil)
		assert h.answer(sid).status == 200
	assert all(b"/evil" not in r.head for r in backend.requests())
	assert [r.body_bytes for r in backend.requests()][-1] == len(evil) + 5


def test_hop_by_hop_fields_of_an_upstream_do_not_arrive(site):
	with H2(site.port) as h:
		for path in ("/hop", "/chunked/1000", "/until-close/1000"):
			answer = h.get(path)
			assert answer.status == 200, path
			for name, value in answer.headers:
				assert name == name.lower() and name not in ("connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection")


def test_head_204_and_304(site):
	with H2(site.port) as h:
		for fields in (head("/size/10", method="HEAD"), head("/status/204"), head("/status/304")):
			answer = h.request(fields)
			assert answer.done and answer.body == b"" and answer.reset is None, answer


@pytest.mark.parametrize("fields, statuses", [([("x-a", "b" * 9000)] * 4, (431,)), ([("x-a", "b")] * 101, (431,)),
	([("cookie", "a=1")] * 101, (431,)), ([("cookie", ";".join(["a=1"] * 101))], (431,))])
def test_large_heads_are_refused(site, backend, fields, statuses):
	data = block(head(more=fields))
	with H2(site.port) as h:
		pieces = [data[at:at + 16384] for at in range(0, len(data), 16384)]
		h.send(frame(HEADERS, END_STREAM | (END_HEADERS if len(pieces) == 1 else 0), 1, pieces[0]))
		for i, piece in enumerate(pieces[1:], 2):
			h.send(frame(CONTINUATION, END_HEADERS if i == len(pieces) else 0, 1, piece))
		answer = h.answer(1)
		assert answer.status in statuses and answer.json["errorCode"] == "ErrRequestTooLarge", answer
		assert h.get("/echo", stream=3).status == 200
	assert len(backend.requests()) == 1


def test_early_answer_stops_the_upload(site):
	with H2(site.port) as h:
		sid = h.start(head("/early", method="POST"), end=False)
		h.send_body(sid, b"x" * 1000, end=False)
		answer = h.answer(sid)
		assert answer.status and answer.done
		while answer.reset is None:
			assert h.read()
		assert answer.reset == NO_ERROR
		assert h.get("/echo").status == 200


# ---- policies ----

def test_policies_answer(gw, backend):
	limited = gw.route("/limited", backend)
	gw.attach("RateLimit", rate(2), to=limited)
	gw.attach("Cors", cors(), to=limited)
	gw.attach("HeaderModify", headers(op("Request", "Add", "X-Custom", "added"), op("Response", "Add", "X-Answer", "Yes")), to=limited)
	with H2(gw.port) as h:
		answers = [h.get("/limited/echo", more=[("origin", "https://example.com")]) for _ in range(6)]
		assert {200, 429} == {one.status for one in answers}
		for one in answers:
			assert one.header("access-control-allow-origin") == "https://example.com" and one.header("x-answer") == "Yes"
		refused = h.request(head("/limited/echo", method="OPTIONS", more=[("origin", "https://example.com"),
			("access-control-request-method", "PUT")]))
		assert refused.status in (200, 204) and "PUT" in refused.header("access-control-allow-methods")
	assert backend.last().header("X-Custom") == "added"


def test_streams_are_answered_side_by_side(site):
	with H2(site.port) as h:
		slow = h.start(path="/delay/400/echo")
		fast = [h.start(path="/echo") for _ in range(20)]
		for sid in fast:
			assert h.answer(sid).status == 200
		assert not h.answers.get(slow) or not h.answers[slow].done
		assert h.answer(slow).status == 200


# ---- flow control ----

def test_slow_reader_holds_the_upstream_back(site):
	"""60 streams that want 100 MB each and take nothing: what waits for them is bounded."""
	with H2(site.port, refill=False, window=0) as h:
		before = site.rss_kb()
		for _ in range(60):
			h.start(path="/size/100000000")
		most = 0
		for _ in range(8):
			assert h.ping()
			most = max(most, site.rss_kb() - before)
		assert most < (90000 if IS_SANITIZED else 30000), f"{most} KB"


def test_slow_upstream_holds_the_client_back(site):
	"""An upload that nobody reads gets the window, and no more."""
	with H2(site.port) as h:
		sid = h.start(head("/stall-body/4000", method="POST"), end=False)
		sent, left = 0, 65536
		h.socket.settimeout(0.3)
		before = site.rss_kb()
		for _ in range(4000):
			try:
				while left < 16384:
					got = h.read()
					if got.kind == WINDOW_UPDATE and got.stream == sid:
						left += int.from_bytes(got.payload, "big")
				h.send(frame(DATA, 0, sid, b"x" * 16384))
			except TimeoutError:
				break
			sent, left = sent + 16384, left - 16384
		assert 65536 <= sent < 4000 * 16384, sent
		assert site.rss_kb() - before < 20000
		h.send(rst(sid))
		h.socket.settimeout(10)
		assert h.ping()


def test_large_answers_are_whole(site):
	with H2(site.port) as h:
		streams = [h.start(path="/size/3000000") for _ in range(5)]
		for sid in streams:
			assert h.answer(sid).body == pattern(3000000)


# ---- ends ----

def test_reset_of_the_client_closes_the_upstream(site, backend):
	with H2(site.port) as h:
		sid = h.start(path="/hang")
		wait_until(lambda: backend.stats()["open"] >= 1 and any(r.target == "/hang" for r in backend.requests()), 5, "the request")
		before = backend.stats()["open"]
		h.send(rst(sid))
		wait_until(lambda: backend.stats()["open"] < before, 5, "the upstream connection to be closed")
		assert h.ping()
	assert site.wait_record(path="/hang")["flag"] == "DC"


@pytest.mark.parametrize("path", ["/cut-mid/1000", "/cut-chunked/1000", "/reset-mid/1000"])
def test_cut_answer_of_an_upstream_is_no_whole_one(site, path):
	with H2(site.port) as h:
		answer = h.get(path)
		assert not answer.done and answer.reset == INTERNAL_ERROR, answer
		assert h.ping()


def test_upstream_failures_are_answers(gw):
	gw.route("/refused", free_port())
	with H2(gw.port) as h:
		assert h.get("/refused").json["errorCode"] == "ErrUpstreamUnavailable"


def test_drain(backend_process):
	with Gateway() as gw:
		gw.route("/", backend_process)
		with H2(gw.port) as busy, H2(gw.port) as idle:
			sid = busy.start(path="/delay/600/echo")
			assert busy.ping() and idle.ping()
			gw.process.send_signal(signal.SIGTERM)
			assert idle.ended() == NO_ERROR
			assert busy.answer(sid).status == 200
			assert busy.goaways[0].last_stream == 0x7fffffff
			assert busy.ended() == NO_ERROR
			assert busy.goaways[-1].last_stream == sid
		assert gw.wait_exit() == 0


# ---- upstreams that speak HTTP/2 ----

@pytest.fixture(scope="module")
def h2_upstream(tmp_path_factory):
	folder, port = tmp_path_factory.mktemp("files"), free_port()
	for name, size in (("small", 10), ("large", 5_000_000)):
		(folder / name).write_bytes(pattern(size))
	process = subprocess.Popen(["nghttpd", "--no-tls", "--echo-upload", "-d", str(folder), str(port)], stdout=subprocess.DEVNULL,
		stderr=subprocess.DEVNULL)
	wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), 5, "nghttpd")
	yield port
	process.kill()
	process.wait()


@pytest.fixture(scope="module")
def h2_site(h2_upstream):
	with Gateway() as gw:
		gw.route("/", gw.service(h2_upstream, ports=[{"protocol": "HTTP2", "port": h2_upstream}]))
		yield gw


def test_http1_to_http2(h2_site):
	assert h2_site.get("/small").body == pattern(10)
	assert h2_site.get("/large").body == pattern(5_000_000)
	assert h2_site.request("HEAD", "/large").status == 200
	body = os.urandom(1_000_000)
	assert h2_site.request("POST", "/small", body=body).body == body


def test_http2_to_http2(h2_site):
	with H2(h2_site.port) as h:
		streams = [h.start(path="/large") for _ in range(5)] + [h.start(path="/small") for _ in range(50)]
		for sid in streams:
			assert h.answer(sid).status == 200 and len(h.answer(sid).body) in (10, 5_000_000)
		body = os.urandom(60_000)
		assert h.answer(h.start(head("/small", method="POST"), body=body)).body == body
	out = run("h2load", "-n", "2000", "-c", "4", "-m", "60", f"http://127.0.0.1:{h2_site.port}/small").stdout.decode()
	assert "2000 succeeded, 0 failed, 0 errored" in out, out


class H2Upstream:
	"""Frames of an upstream, by hand: `serve` gets an accepted socket whose preface and settings were exchanged, and its first request's
	stream."""

	def __init__(self, *serve):
		import threading
		self.listener = socket.create_server(("127.0.0.1", 0))
		self.port = self.listener.getsockname()[1]
		self.serve, self.opened = list(serve), 0
		threading.Thread(target=self.loop, daemon=True).start()

	def loop(self):
		for serve in self.serve:
			peer, _ = self.listener.accept()
			self.opened += 1
			peer.settimeout(10)
			reader = peer.makefile("rb")
			assert reader.read(24) == PREFACE
			peer.sendall(settings())
			while True:
				start = reader.read(9)
				if len(start) < 9:
					break
				reader.read(int.from_bytes(start[:3], "big"))
				if start[3] == SETTINGS and not start[4] & ACK:
					peer.sendall(frame(SETTINGS, ACK, 0))
				if start[3] == HEADERS:
					serve(peer, int.from_bytes(start[5:], "big"))
					if serve is not answer_well:
						break
			peer.shutdown(socket.SHUT_WR)
			while reader.read(1000):
				pass
			reader.close()
			peer.close()


def answer_well(peer, sid):
	peer.sendall(frame(HEADERS, END_HEADERS | END_STREAM, sid, block([(":status", "200"), ("x-who", "good")])))


def refuse(peer, sid):
	peer.sendall(rst(sid, REFUSED_STREAM))


def go_away(peer, sid):
	peer.sendall(frame(GOAWAY, 0, 0, bytes(8)))


@pytest.mark.parametrize("first", [refuse, go_away])
def test_request_that_an_upstream_did_not_touch_goes_elsewhere(gw, first):
	upstream = H2Upstream(first, answer_well)
	gw.route(f"/{first.__name__}", gw.service(upstream.port, ports=[{"protocol": "HTTP2", "port": upstream.port}]))
	answer = gw.request("POST", f"/{first.__name__}", body=b"x")
	assert answer.status == 200 and answer.header("x-who") == "good" and upstream.opened == 2


def test_upload_that_ends_after_the_whole_answer_came(gw):
	"""The upstream is done with the answer while the client still takes it and has not ended its upload: the stream is closed by our end,
	the call by the last of the answer."""
	size = 6_000_000
	with node.Server("h2_upload.js", size) as server:
		gw.route("/both-ways", gw.service(server.port, ports=[{"protocol": "HTTP2", "port": server.port}]))
		for left in (100_000, 400_000, 1_000_000, 1_500_000, 3_000_000):
			with gw.connect(receive_buffer=4096) as c:
				c.start("POST", "/both-ways", {"Transfer-Encoding": "chunked"})
				c.send(b"3\r\nabc\r\n")
				head = c.read_head()
				assert head.status == 200
				read = 0
				while read < size - left:
					read += len(read_chunk(c))
				c.send(b"3\r\ndef\r\n0\r\n\r\n")
				assert gw.get("/both-ways").status == 200
				while chunk := read_chunk(c):
					read += len(chunk)
				assert read == size


def read_chunk(c):
	data = c.take(int(c.take_until(b"\r\n")[:-2], 16))
	assert c.take(2) == b"\r\n"
	return data


@pytest.mark.parametrize("name, status, frames", [
	("connection-field", 502, [(HEADERS, 5, [(":status", "200"), ("connection", "close")])]),
	("coding", 502, [(HEADERS, 5, [(":status", "200"), ("transfer-encoding", "chunked")])]),
	("crlf", 502, [(HEADERS, 5, [(":status", "200"), ("x-a", "b\r\nSet-Cookie: evil=1")])]),
	("no-status", 502, [(HEADERS, 5, [("x-a", "b")])]),
	("status-text", 502, [(HEADERS, 5, [(":status", "2x0")])]),
	("upper-case", 502, [(HEADERS, 5, [(":status", "200"), ("X-A", "b")])]),
	("request-pseudo", 502, [(HEADERS, 5, [(":status", "200"), (":path", "/")])]),
	("switching", 502, [(HEADERS, 5, [(":status", "101")])]),
	("data-first", 502, [(DATA, 1, b"x")]),
	("two-lengths", 502, [(HEADERS, 4, [(":status", "200"), ("content-length", "1"), ("content-length", "2")])]),
	("reset", 503, [(RST_STREAM, 0, bytes(4))]),
])
def test_malformed_answer_of_an_http2_upstream(gw, name, status, frames):
	def serve(peer, sid):
		for kind, flags, what in frames:
			peer.sendall(frame(kind, flags, sid, block(what) if isinstance(what, list) else what))
		time.sleep(0.2)

	upstream = H2Upstream(serve)
	gw.route(f"/bad-{name}", gw.service(upstream.port, ports=[{"protocol": "HTTP2", "port": upstream.port}]))
	answer = gw.request("POST", f"/bad-{name}")
	assert answer.status == status, answer
	assert b"evil" not in answer.head


def test_http1_upstream_called_http2_is_an_answer(gw, backend):
	gw.route("/not-h2", gw.service(backend.port, ports=[{"protocol": "HTTP2", "port": backend.port}]))
	assert gw.get("/not-h2/echo").status in (502, 503)


# ---- hostile clients ----

def flood(site, data, times, reason, code=ENHANCE_YOUR_CALM, prepare=None):
	"""Sends until it is stopped; good traffic goes on and memory does not grow."""
	before, counted = site.rss_kb(), ends(site, reason)
	start = time.monotonic()
	with H2(site.port, refill=False) as h, H2(site.port) as good:
		if prepare:
			prepare(h)
		h.socket.settimeout(5)
		h.send(data * times)
		assert h.ended(5) in (code, "closed")
		assert time.monotonic() - start < 15
		assert good.get("/echo").status == 200
	assert ends(site, reason) > counted
	assert site.rss_kb() - before < (30000 if IS_SANITIZED else 5000)


def test_settings_flood(site):
	flood(site, settings(), 20000, "settings")


def test_ping_flood(site):
	flood(site, frame(PING, 0, 0, b"12345678"), 20000, "pings")


def test_priority_flood(site):
	flood(site, frame(PRIORITY, 0, 1, b"\0\0\0\3\xff"), 20000, "priorities")


def test_window_update_flood(site):
	flood(site, window_update(0, 1), 40000, "window_updates")


def test_empty_data_flood(site):
	flood(site, frame(DATA, 0, 1), 20000, "empty_data", prepare=lambda h: h.start(head("/stall-body/4000", method="POST"), end=False))


def test_extension_flood(site):
	flood(site, frame(0x77, 0, 0, b"x"), 20000, "extensions")


def test_continuation_flood(site):
	part = frame(CONTINUATION, 0, 1, literal("x-a", "b" * 1000))
	before = site.rss_kb()
	with H2(site.port, refill=False) as h:
		h.send(frame(HEADERS, END_STREAM, 1, block(head())))
		h.send(part * 20000)
		assert h.ended() is not None
	assert site.rss_kb() - before < (30000 if IS_SANITIZED else 5000)
	assert site.get("/echo").status == 200


def test_rapid_reset(site):
	"""Requests that are reset at once: the client is cut off, and others do not notice."""
	counted, before = ends(site, "resets"), site.rss_kb()
	start = time.monotonic()
	with H2(site.port, refill=False) as h, H2(site.port) as good:
		one = block(head("/hang"))
		for turn in range(40):
			h.send(b"".join(frame(HEADERS, 5, sid, one) + rst(sid) for sid in range(turn * 200 + 1, turn * 200 + 201, 2)))
			if turn % 10 == 0:
				assert good.get("/echo").status == 200
		assert h.ended() in (ENHANCE_YOUR_CALM, "closed"), h.goaways
		assert good.get("/echo").status == 200
	assert time.monotonic() - start < 30
	assert ends(site, "resets") > counted
	assert site.rss_kb() - before < (60000 if IS_SANITIZED else 20000)


def test_made_resets(site):
	"""Errors that make us reset count as resets of the client's own."""
	counted = ends(site, "stream_errors")
	with H2(site.port, refill=False) as h:
		one = block(head("/hang", more=[("X-Upper", "b")]))
		for sid in range(1, 4001, 2):
			h.send(frame(HEADERS, 5, sid, one))
			if sid % 100 == 99 and not h.ping():
				break
		assert h.ended() in (ENHANCE_YOUR_CALM, "closed"), h.goaways
	assert ends(site, "stream_errors") > counted


def test_header_bomb(site):
	"""A large field in the table, referred to by single bytes: refused by count, and what is kept is bounded."""
	before = site.rss_kb()
	with H2(site.port, refill=False, window=0) as h:
		h.send(frame(HEADERS, 5, 1, block(head()) + b"\x40\x03x-a" + integer(3900, 7) + b"b" * 3900))
		for sid in range(3, 2003, 2):
			h.send(frame(HEADERS, 5, sid, block(head()) + b"\xbe" * 8000))
		h.send(window_update(0, 1 << 20))
		for _ in range(20):
			if h.read() is None:
				break
	assert site.rss_kb() - before < (60000 if IS_SANITIZED else 20000)
	assert site.get("/echo").status == 200


def test_closed_windows_end_the_connection(site):
	"""All windows stay at zero: after the stall time the connection goes, with all it holds."""
	counted = ends(site, "write_stall")
	with H2(site.port, refill=False, window=0) as h:
		for _ in range(20):
			h.start(path="/size/100000")
		assert h.ended(20) == ENHANCE_YOUR_CALM, h.frames
	assert ends(site, "write_stall") > counted


def test_slow_head(site):
	with H2(site.port) as h:
		h.send(frame(HEADERS, END_STREAM, 1, block(head())))
		start = time.monotonic()
		assert h.ended(20) == ENHANCE_YOUR_CALM, h.frames
		assert 1 < time.monotonic() - start < 15
	assert ends(site, "header_timeout") >= 1


def test_timer_that_was_set_before_a_slow_head(backend_process):
	"""It fires while the head is under way: that is no slow body, and the rest of the head still finds its place."""
	with Gateway(header_timeout_ms=4000) as gw:
		gw.route("/", backend_process)
		with H2(gw.port) as h:
			time.sleep(2.5)    # of the 4 s until the timer of the new connection fires
			data = block(head(more=[("x-a", "b" * 3000)]))
			h.send(frame(HEADERS, END_STREAM, 1, data[:40]))
			time.sleep(2)
			h.send(frame(CONTINUATION, END_HEADERS, 1, data[40:]))
			assert h.answer(1).status == 200, h.frames


def test_slow_body(site):
	with H2(site.port) as h:
		sid = h.start(head("/echo", method="POST"), end=False)
		h.send(frame(DATA, 0, sid, b"x"))
		assert h.answer(sid).status == 408
	assert ends(site, "body_timeout") >= 1


def test_idle_connection(site):
	with H2(site.port) as h:
		assert h.get("/echo").status == 200
		assert h.ended(20) == NO_ERROR


def test_silent_connection_is_closed(site):
	with H2(site.port, greet=False) as h:
		h.send(PREFACE[:20])
		h.socket.settimeout(10)
		try:
			while h.socket.recv(1000):
				pass
		except ConnectionResetError:
			pass
