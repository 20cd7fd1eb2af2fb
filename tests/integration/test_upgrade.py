"""Upgrades to WebSocket: what is asked for, what is answered, and the tunnel in between."""
import hashlib
import os
import socket
import threading
import time

import node
import pytest
from gw import Gateway, free_port, numbers, wait_millis
from pki import Authority
from policy_kit import ip_list, op, headers, outcomes, rate
from scripted import KEY, UPGRADE, Scripted, accept_key, echo_frames, field, frame, read_frame, read_request, switch
from wire import pattern, wait_until

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def echo(gw):
	with Scripted(echo_frames) as server:
		gw.route("/echo", server.port)
		yield server
		assert not server.errors


def upgrade(gw, path="/echo", extra=(), site=None, **options):
	connection = gw.connect(site, **options)
	connection.start("GET", path, {**UPGRADE, **dict(extra)})
	return connection, connection.read_response()


def test_switches_and_passes_frames(gw, echo):
	connection, answer = upgrade(gw)
	with connection:
		assert answer.status == 101
		assert (answer.header("Upgrade"), answer.header("Connection")) == ("websocket", "Upgrade")
		assert answer.header("Sec-WebSocket-Accept") == accept_key(KEY)
		assert answer.header("Content-Length") is None and answer.header("Transfer-Encoding") is None
		for payload in (b"", b"one", os.urandom(70000), b"last"):
			connection.send(frame(payload, mask=True))
			assert read_frame(connection) == (2, payload)
		connection.send(frame(b"", opcode=8, mask=True))
		assert read_frame(connection) == (8, b"")
		assert connection.is_closed()
	record = gw.wait_record(path="/echo", status=101)
	assert (record["protocol"], record["reason"]) == ("websocket", "both sides closed")
	assert record["bytesIn"] > 70000 and record["bytesOut"] > 70000


def test_upstream_sees_the_upgrade(gw):
	seen = []

	def script(connection):
		seen.append(read_request(connection))
		switch(connection, seen[-1], extra=b"at once")
		connection.take_until(b"end")

	with Scripted(script) as server:
		gw.route("/seen", server.port)
		connection, answer = upgrade(gw, "/seen?a=1", {"Sec-WebSocket-Protocol": "chat", "Sec-WebSocket-Extensions": "x"})
		with connection:
			assert answer.status == 101
			assert connection.take(7) == b"at once"
			connection.send(b"end")
			assert connection.is_closed()
		assert not server.errors
	lines = seen[0]
	assert lines[0] == "GET /seen?a=1 HTTP/1.1"
	assert (field(lines, "Connection").lower(), field(lines, "Upgrade")) == ("upgrade", "websocket")
	assert (field(lines, "Sec-WebSocket-Protocol"), field(lines, "Sec-WebSocket-Extensions")) == ("chat", "x")
	assert field(lines, "X-Forwarded-For") == "127.0.0.1"
	assert field(lines, "Content-Length") is None and field(lines, "Transfer-Encoding") is None


def test_bytes_sent_with_the_request_are_not_lost(gw):
	def script(connection):
		switch(connection, read_request(connection))
		connection.send(connection.take(5))

	with Scripted(script) as server:
		gw.route("/early", server.port)
		with gw.connect() as connection:
			lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
			connection.send(f"GET /early HTTP/1.1\r\nHost: a\r\n{lines}\r\nearly")
			assert connection.read_response().status == 101
			assert connection.take(5) == b"early"
		assert not server.errors


@pytest.mark.parametrize("fields", [
	{"Connection": "Upgrade", "Upgrade": "h2c"},
	{"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"},
	{"Connection": "Upgrade", "Upgrade": "TLS/1.0"},
	{"Connection": "Upgrade", "Upgrade": "websocket, h2c"},
	{"Connection": "keep-alive", "Upgrade": "websocket"},
	{"Upgrade": "websocket"},
	{"Connection": "Upgrade"},
], ids=str)
def test_other_upgrades_are_plain_requests(gw, backend, fields):
	gw.route("/plain", backend)
	answer = gw.get("/plain", fields)
	assert answer.status != 101
	request = backend.last()
	assert request.all("Upgrade") == [] and request.all("HTTP2-Settings") == []
	assert "upgrade" not in [value.lower() for value in request.all("Connection")]


@pytest.mark.parametrize("method, body", [("POST", None), ("POST", b"abc"), ("GET", b"abc"), ("HEAD", None)])
def test_only_a_get_without_a_body_upgrades(gw, backend, method, body):
	gw.route("/only-get", backend)
	answer = gw.request(method, "/only-get", UPGRADE, body)
	assert answer.status != 101
	assert backend.last().all("Upgrade") == []


def test_http10_does_not_upgrade(gw, backend):
	gw.route("/old", backend)
	with gw.connect() as connection:
		connection.start("GET", "/old", UPGRADE, version="1.0")
		assert connection.read_response().status != 101
	assert backend.last().all("Upgrade") == []


def answer_with(text):
	def script(connection):
		while True:
			read_request(connection)
			connection.send(text)

	return script


def test_another_answer_is_an_ordinary_response(gw):
	with Scripted(answer_with(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")) as server:
		gw.route("/denied", server.port)
		connection, answer = upgrade(gw, "/denied")
		with connection:
			assert (answer.status, answer.body) == (403, b"no")
			assert connection.get("/denied").status == 403    # the connection goes on as HTTP


@pytest.mark.parametrize("text", [
	b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
	b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
	b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n"
	b"Transfer-Encoding: chunked\r\n\r\n",
])
def test_a_wrong_101_is_a_bad_gateway(gw, text):
	with Scripted(answer_with(text)) as server:
		path = f"/wrong-{server.port}"
		gw.route(path, server.port)
		connection, answer = upgrade(gw, path)
		connection.close()
		assert answer.status == 502


def test_a_101_nobody_asked_for_is_a_bad_gateway(gw):
	with Scripted(answer_with(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")) as server:
		gw.route("/unasked", server.port)
		assert gw.get("/unasked").status == 502
		# Nor when what was asked for is not passed on.
		assert gw.get("/unasked", {"Connection": "Upgrade", "Upgrade": "h2c"}).status == 502


def test_half_closes_pass(gw):
	got = []

	def script(connection):
		switch(connection, read_request(connection))
		while connection.fill():
			pass
		got.append(connection.buffer)
		connection.send(b"after your end")

	with Scripted(script) as server:
		gw.route("/half", server.port)
		connection, _ = upgrade(gw, "/half")
		with connection:
			connection.send(b"before my end")
			connection.socket.shutdown(socket.SHUT_WR)
			assert connection.take(14) == b"after your end"
			assert connection.is_closed()
		assert got == [b"before my end"] and not server.errors


def test_the_upstreams_half_close_passes(gw):
	got = []

	def script(connection):
		switch(connection, read_request(connection))
		connection.send(b"my end")
		connection.socket.shutdown(socket.SHUT_WR)
		while connection.fill():
			pass
		got.append(connection.buffer)

	with Scripted(script) as server:
		gw.route("/half-up", server.port)
		connection, _ = upgrade(gw, "/half-up")
		with connection:
			assert connection.take(6) == b"my end" and connection.is_closed()
			connection.send(b"still here")
			connection.socket.shutdown(socket.SHUT_WR)
			wait_until(lambda: got == [b"still here"], what="the bytes after the upstream's end")
		assert not server.errors


def test_a_client_that_breaks_off_ends_the_upstream(gw):
	ended = threading.Event()

	def script(connection):
		switch(connection, read_request(connection))
		while connection.fill():
			pass
		ended.set()

	with Scripted(script) as server:
		gw.route("/break", server.port)
		connection, _ = upgrade(gw, "/break")
		connection.send(b"x")
		connection.reset()
		assert ended.wait(5)
	assert gw.wait_record(path="/break")["flag"] == "DC"


def test_an_upstream_that_breaks_off_resets_the_client(gw):
	def script(connection):
		switch(connection, read_request(connection))
		connection.take(1)
		connection.reset()

	with Scripted(script) as server:
		gw.route("/break-up", server.port)
		connection, _ = upgrade(gw, "/break-up")
		with connection:
			connection.send(b"x")
			assert connection.is_closed()
	assert gw.wait_record(path="/break-up")["flag"] == "UR"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_back_pressure(gw, direction):
	"""64 MB against a side that does not read: the gateway holds little, and everything arrives once it reads."""
	size = 64 * MEGABYTE
	data = pattern(size)
	go, sums = threading.Event(), []

	def consume(connection):
		go.wait(30)
		sums.append(hashlib.sha256(connection.take(size)).hexdigest())

	def script(connection):
		switch(connection, read_request(connection))
		if direction == "up":
			consume(connection)
		else:
			connection.send(data)

	with Scripted(script) as server:
		gw.route(f"/pressure-{direction}", server.port)
		connection, _ = upgrade(gw, f"/pressure-{direction}")
		before = gw.rss_kb()
		with connection:
			if direction == "up":
				sender = threading.Thread(target=connection.send, args=(data,))
				sender.start()
			wait_millis(300)    # as much as will go in is in
			assert gw.rss_kb() - before < 16 * 1024
			go.set()
			if direction == "down":
				consume(connection)
			else:
				sender.join(60)
				wait_until(lambda: sums, 60)
		assert sums == [hashlib.sha256(data).hexdigest()] and not server.errors


def test_policies_run_and_it_counts_as_one_request(gw, echo):
	route = gw.route("/limited", echo.port)
	limit = gw.attach("RateLimit", rate(2), to=route)
	gw.attach("HeaderModify", headers(op("Response", "Add", "X-Added", "yes")), to=route)
	open_now = [upgrade(gw, "/limited") for _ in range(3)]
	statuses = sorted(answer.status for _, answer in open_now)
	assert statuses == [101, 101, 429]
	assert all(answer.header("X-Added") == "yes" for _, answer in open_now)
	for connection, answer in open_now:
		if answer.status == 101:
			for _ in range(5):
				connection.send(frame(b"x", mask=True))
				assert read_frame(connection) == (2, b"x")
		connection.close()
	assert outcomes(gw, limit) and sum(outcomes(gw, limit).values()) == 3


def test_a_refusal_by_address_is_an_ordinary_answer(gw, echo):
	route = gw.route("/blocked", echo.port)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=route)
	connection, answer = upgrade(gw, "/blocked")
	connection.close()
	assert answer.status == 403


def test_silence_ends_it():
	with Gateway(upstream_idle_ms=100) as gw, Scripted(echo_frames) as server:
		gw.feature("streamIdleTimeoutMs", 400)
		gw.route("/", server.port)
		connection, answer = upgrade(gw, "/silent")
		with connection:
			assert answer.status == 101
			start = time.monotonic()
			for _ in range(6):    # traffic one way and back keeps it
				connection.send(frame(b"x", mask=True))
				assert read_frame(connection) == (2, b"x")
				wait_millis(150)
			assert time.monotonic() - start > 0.8
			assert connection.is_closed(5)
		assert gw.wait_record(path="/silent")["flag"] == "SI"


def test_survives_changes_and_drains(gw, echo):
	connection, _ = upgrade(gw)
	with connection:
		for _ in range(20):
			gw.delete(gw.route("/other", free_port()))
			connection.send(frame(b"still", mask=True))
			assert read_frame(connection) == (2, b"still")


def test_the_upstream_connection_is_never_reused(gw):
	"""Its bytes are no HTTP: a later request gets a new connection."""
	firsts = []

	def script(connection):
		lines = read_request(connection)
		firsts.append(lines[0])
		if field(lines, "Upgrade"):
			switch(connection, lines)
			while connection.fill():
				pass
			return
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		assert not connection.fill()

	with Scripted(script) as server:
		gw.route("/fresh", server.port)
		connection, _ = upgrade(gw, "/fresh?1")
		connection.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		connection.close()
		assert gw.get("/fresh?2").status == 200
		assert firsts == ["GET /fresh?1 HTTP/1.1", "GET /fresh?2 HTTP/1.1"]


def test_connect_is_refused(gw, echo):
	with gw.connect() as connection:
		connection.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
		assert connection.read_response("CONNECT").status == 405
		assert connection.is_closed()


@pytest.mark.parametrize("compression", ["deflate", "plain"])
def test_the_ws_package(gw, compression):
	"""Client and server that others wrote: 20 connections at once, extensions, subprotocols, pings, close codes."""
	path = f"/ws-{compression}"
	with node.Server("ws_echo.js") as server:
		gw.route(path, server.port)
		assert node.run("ws_roundtrip.js", f"ws://127.0.0.1:{gw.port}{path}", 20, compression) == "ok"
	found = wait_until(lambda: len(rows := gw.records(path=path)) == 20 and rows)
	assert {(r["status"], r["reason"]) for r in found} == {(101, "both sides closed")}


@pytest.mark.parametrize("compression", ["deflate", "plain"])
def test_the_ws_package_over_tls(gw, compression):
	ca = Authority()
	pair = ca.issue("localhost")
	certificate = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": f"cert-{next(numbers)}",
		"namespace": "default", "certificate": pair.cert, "privateKey": pair.key})
	site = gw.gateway(protocol="HTTPS", certList=[{"secretName": certificate.name}])
	with node.Server("ws_echo.js") as server:
		gw.route("/wss", server.port, site=site)
		url = f"wss://localhost:{site.port}/wss"
		assert node.run("ws_roundtrip.js", url, 10, compression, environment={"NODE_EXTRA_CA_CERTS": ca.file}) == "ok"


# ---- over HTTP/2: extended CONNECT (RFC 8441) ----

def test_extended_connect(gw):
	"""20 WebSockets on one connection, to an upstream of HTTP/1.1."""
	seen = []

	def script(connection):
		lines = read_request(connection)
		seen.append(lines)
		switch(connection, lines)
		while connection.buffer or connection.fill():
			opcode, payload = read_frame(connection)
			connection.send(frame(payload, opcode))

	with Scripted(script) as server:
		gw.route("/h2-ws", server.port)
		assert node.run("h2_websocket.js", f"http://127.0.0.1:{gw.port}", "/h2-ws?a=1", 20) == "ok"
		assert len(seen) == 20 and not server.errors
	lines = seen[0]
	assert lines[0] == "GET /h2-ws?a=1 HTTP/1.1"
	assert (field(lines, "Connection").lower(), field(lines, "Upgrade")) == ("upgrade", "websocket")
	assert field(lines, "Sec-WebSocket-Version") == "13" and field(lines, "Sec-WebSocket-Protocol") == "echo"
	assert len({field(one, "Sec-WebSocket-Key") for one in seen}) == 20
	assert field(lines, "Content-Length") is None and field(lines, "Transfer-Encoding") is None
	found = wait_until(lambda: len(rows := gw.records(path="/h2-ws")) == 20 and rows)
	assert {(r["protocol"], r["method"]) for r in found} == {("websocket", "GET")}


def test_extended_connect_is_judged_by_policies(gw, echo):
	route = gw.route("/h2-denied", echo.port)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=route)
	url = f"http://127.0.0.1:{gw.port}"
	assert node.run("h2_websocket.js", url, "/h2-denied", 1, 403) == "ok"
	assert node.run("h2_websocket.js", url, "/h2-nowhere", 1, 404) == "ok"


def test_extended_connect_for_other_protocols_is_refused(gw, echo):
	assert node.run("h2_websocket.js", f"http://127.0.0.1:{gw.port}", "/echo", 1, 405, "connect-udp") == "ok"


def test_what_is_sent_before_the_answer_waits(gw):
	"""Bytes behind an extended CONNECT reach nobody unless the upstream switches."""
	got = []

	def script(connection):
		read_request(connection)
		got.append(connection.buffer)
		connection.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
		while connection.fill():
			pass
		got.append(connection.buffer)

	with Scripted(script) as server:
		gw.route("/h2-early", server.port)
		with gw.connect() as connection:
			def block(name, value):
				return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

			def send(kind, flags, stream, payload):
				connection.send(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

			connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			send(4, 0, 0, b"")
			fields = {b":method": b"CONNECT", b":protocol": b"websocket", b":scheme": b"http", b":path": b"/h2-early", b":authority": b"a"}
			send(1, 4, 1, b"".join(block(name, value) for name, value in fields.items()))
			send(0, 0, 1, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			wait_until(lambda: gw.records(path="/h2-early"))
		wait_until(lambda: got, what="the request")
	assert gw.records(path="/h2-early")[0]["status"] == 403
	assert b"smuggled" not in b"".join(got)
