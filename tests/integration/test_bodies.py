"""Request bodies that a policy has read whole before they go on, with Waf as the policy: bounds, timers, back-pressure, both versions of
HTTP, copies and retries. What policies themselves may do with bodies is in tests/unit/test_bodies.c."""
import hashlib
import json
import threading

import pytest
from gw import Gateway, numbers
from h2wire import H2, WINDOW_UPDATE
from scripted import Scripted
from side_services import SideService, plain
from test_waf import BROWSER, count, has_packages
from wire import wait_until

pytestmark = pytest.mark.skipif(not has_packages(), reason="libmodsecurity3 and modsecurity-crs are not installed")
JSON = {**BROWSER, "Content-Type": "application/json"}
UPLOAD = {**BROWSER, "Content-Type": "multipart/form-data; boundary=x"}


def guard(gw, upstream, **policies):
	base = f"/bodies-{next(numbers)}"
	route = gw.route(base, upstream)
	gw.attach("Waf", {}, to=route)
	for name, config in policies.items():
		gw.attach(name, config, to=route)
	return base


def file_part(n):
	return b"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n\r\n" + b"0123456789abcdef" * (n // 16) + b"\r\n--x--\r\n"


def test_nothing_reaches_the_upstream_before_the_end(gw):
	with SideService() as upstream:
		base = guard(gw, upstream.port)
		with gw.connect() as connection:
			connection.send(f"POST {base} HTTP/1.1\r\nHost: gw.test\r\nUser-Agent: a\r\nAccept: */*\r\nContent-Type: application/json\r\n"
				"Content-Length: 10\r\n\r\n".encode())
			connection.send(b'{"a":')
			assert connection.is_idle(0.3)
			assert upstream.asked == []
			connection.send(b'"bc"}')
			assert connection.read_response("POST").status == 200
		assert upstream.asked[0].body == b'{"a":"bc"}'
		assert upstream.opened == 1


@pytest.mark.parametrize("trailing", [b"", b"X-Sum: 7\r\n"])
def test_chunks_become_a_length_unless_fields_follow(gw, trailing):
	with SideService() as upstream:
		base = guard(gw, upstream.port)
		with gw.connect() as connection:
			connection.send(f"POST {base} HTTP/1.1\r\nHost: gw.test\r\nUser-Agent: a\r\nAccept: */*\r\nContent-Type: application/json\r\n"
				"Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum\r\n\r\n".encode() + b"2\r\n{}\r\n0\r\n" + trailing + b"\r\n")
			assert connection.read_response("POST").status == 200
		seen = upstream.asked[0]
		assert seen.body == b"{}"
		assert (seen.header("Content-Length"), seen.header("Transfer-Encoding")) == ((None, "chunked") if trailing else ("2", None))


def test_another_request_follows_on_the_connection(gw):
	with SideService() as upstream:
		base = guard(gw, upstream.port)
		with gw.connect() as connection:
			connection.start("POST", base, JSON, b'{"a":1}')
			connection.start("POST", base, JSON, b'{"a":2}')
			connection.start("GET", base, BROWSER)
			assert [connection.read_response(method).status for method in ("POST", "POST", "GET")] == [200, 200, 200]
		assert [request.body for request in upstream.asked] == [b'{"a":1}', b'{"a":2}', b""]


def test_a_body_that_stops_coming_ends_with_408(backend):
	with Gateway(body_idle_ms=300) as gw:
		base = guard(gw, backend)
		with gw.connect() as connection:
			connection.send(f"POST {base} HTTP/1.1\r\nHost: gw.test\r\nUser-Agent: a\r\nAccept: */*\r\nContent-Type: application/json\r\n"
				"Content-Length: 10\r\n\r\n{".encode())
			assert connection.read_response("POST").status == 408
		wait_until(lambda: count(gw, "sluice_requests_in_flight") == 0, 10, "the end of the request")


def upload(h2, stream, body):
	"""As fast as the windows of stream and connection allow."""
	window = {0: 65535, stream: dict(h2.settings).get(4, 65535)}
	at = 0

	def grows(got):
		if got.kind == WINDOW_UPDATE and got.stream in window:
			window[got.stream] += int.from_bytes(got.payload, "big")
		return min(window.values()) >= 16384

	while at < len(body):
		if min(window.values()) < 16384:
			h2.wait(grows)
		part = body[at:at + 16384]
		at += len(part)
		for key in window:
			window[key] -= len(part)
		h2.send_body(stream, part, end=at >= len(body))


def test_http2_uploads_larger_than_any_window(gw):
	body = file_part(1 << 20)
	with SideService() as upstream:
		base = guard(gw, upstream.port)
		with H2(gw.port) as h2:
			more = [("user-agent", "a"), ("accept", "*/*"), ("content-type", UPLOAD["Content-Type"])]
			stream = h2.start(path=base, method="POST", more=more, end=False)
			upload(h2, stream, body)
			assert h2.answer(stream).status == 200
		assert hashlib.sha256(upstream.asked[0].body).digest() == hashlib.sha256(body).digest()
		assert upstream.asked[0].header("Content-Length") == str(len(body))


def test_a_slow_upstream_gets_it_as_it_likes(gw):
	"""The upstream reads nothing for a while: the gateway holds the body once, and other requests go on."""
	body, go, got = file_part(8 << 20), threading.Event(), []

	def script(connection):
		head = connection.take_until(b"\r\n\r\n").lower()
		assert go.wait(30)
		length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
		got.append(hashlib.sha256(connection.take(length)).digest())
		connection.send(plain())

	with Scripted(script) as upstream:
		base = guard(gw, upstream.port)
		other = guard(gw, upstream.port)
		assert other != base
		with gw.connect() as connection:
			connection.start("POST", base, UPLOAD, body)
			wait_until(lambda: upstream.connections, 60, "the upstream")
			assert gw.get("/no-such-route").status == 404
			go.set()
			assert connection.read_response("POST").status == 200
		assert upstream.errors == []
	assert got == [hashlib.sha256(body).digest()]


def test_it_is_copied_and_tried_again_from_the_same_bytes(gw):
	body = json.dumps({"a": "b" * 100_000}).encode()
	seen = []

	def script(connection):
		head = connection.take_until(b"\r\n\r\n").lower()
		seen.append(connection.take(int(head.split(b"content-length:")[1].split(b"\r\n")[0])))
		if len(seen) > 1:
			connection.send(plain())

	with Scripted(script) as upstream, SideService() as mirror:
		target = gw.service(mirror.port)
		base = guard(gw, upstream.port, Retry={"attempts": 2, "retryOn": ["reset", "non_idempotent"]},
			FlowCopy={"targetServiceId": target.id, "targetServiceName": "", "port": "", "percentage": 100})
		assert gw.request("POST", base, JSON, body).status == 200
		wait_until(lambda: mirror.asked, 10, "the copy")
	assert seen == [body, body]
	assert [request.body for request in mirror.asked] == [body]


def test_what_a_worker_may_hold_is_bounded(backend):
	with Gateway(worker_memory_bytes=4 << 20, workers=1) as gw:
		base = guard(gw, backend)
		assert gw.request("POST", base, UPLOAD, file_part(64 << 10)).status == 200
		statuses = []
		with gw.connect() as connection:
			try:
				connection.start("POST", base, UPLOAD, file_part(8 << 20))
			except OSError:
				pass
			try:
				statuses.append(connection.read_response("POST").status)
			except Exception:    # cut off: it held most of what is short
				statuses.append(None)
		assert statuses[0] in (503, None)
		wait_until(lambda: gw.request("POST", base, UPLOAD, file_part(64 << 10)).status == 200, 20, "memory for the next one")
