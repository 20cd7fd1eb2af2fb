"""WebSockets towards upstreams of HTTP/2: an upgrade, or an extended CONNECT, of the client becomes an extended CONNECT (RFC 8441)."""
import contextlib
import socket
import threading

import node
import pytest
from h2wire import *    # noqa: F403 -- the vocabulary of frames
from h2wire import PREFACE, block, frame, rst, settings
from scripted import KEY, UPGRADE, accept_key, read_frame
from scripted import frame as message
from wire import wait_until

ENABLE_CONNECT_PROTOCOL = 8


def service_of(gw, port):
	return gw.service(port, ports=[{"protocol": "HTTP2", "port": port}])


@pytest.fixture(scope="module")
def echo(gw):
	with node.Server("h2_ws_echo.js") as server:
		gw.route("/h2-echo", service_of(gw, server.port))
		yield server


def test_from_http1(gw, echo):
	"""Client and server are the ws package's; the client checks the Accept that the gateway has to make."""
	assert node.run("ws_roundtrip.js", f"ws://127.0.0.1:{gw.port}/h2-echo/one", 20, "plain") == "ok"
	found = wait_until(lambda: len(rows := gw.records(path="/h2-echo/one")) == 20 and rows)
	assert {(r["status"], r["reason"], r["protocol"]) for r in found} == {(101, "both sides closed", "websocket")}


def test_from_http2(gw, echo):
	assert node.run("h2_websocket.js", f"http://127.0.0.1:{gw.port}", "/h2-echo/two?a=1", 20) == "ok"


def upgrade(gw, path):
	connection = gw.connect()
	connection.start("GET", path, UPGRADE)
	return connection, connection.read_response()


def test_head_of_the_answer(gw, echo):
	connection, answer = upgrade(gw, "/h2-echo/three?q=1")
	with connection:
		assert answer.status == 101 and answer.header("Sec-WebSocket-Accept") == accept_key(KEY)
		assert answer.header("Upgrade") == "websocket" and answer.header("Connection").lower() == "upgrade"
		assert answer.header("x-path") == "/h2-echo/three?q=1"
		assert answer.header("Content-Length") is None and answer.header("Transfer-Encoding") is None
		connection.send(message(b"hello", 1, mask=True))
		assert read_frame(connection) == (1, b"hello")


def test_a_refusal_is_an_ordinary_answer(gw, echo):
	connection, answer = upgrade(gw, "/h2-echo/no")
	connection.close()
	assert answer.status == 403 and answer.body == b"no: "
	assert node.run("h2_websocket.js", f"http://127.0.0.1:{gw.port}", "/h2-echo/no", 1, 403) == "ok"


def test_upstream_without_the_offer(gw):
	with node.Server("h2_ws_echo.js", "off") as server:
		gw.route("/off", gw.service(server.port, ports=[{"protocol": "HTTP2", "port": server.port}],
			outlierDetectionConfig={"enable": True, "consecutive5xx": 1, "interval": 10, "baseEjectionTime": 30, "maxEjectionPercent": 100}))
		for _ in range(3):
			connection, answer = upgrade(gw, "/off")
			connection.close()
			assert answer.status == 502 and answer.json["errorCode"] == "ErrBadUpstream"
		assert node.run("h2_websocket.js", f"http://127.0.0.1:{gw.port}", "/off", 1, 502) == "ok"
		record = gw.wait_record(path="/off", flag="UP")
		assert "RFC 8441" in record["reason"]
		# Nothing is held against the endpoint.
		assert gw.get("/off").body == b"plain"


class Upstream:
	"""One connection after the other, each with one extended CONNECT, by hand: `script` gets what it can send with, and the stream."""

	def __init__(self, script, late=None):
		self.listener = socket.create_server(("127.0.0.1", 0))
		self.port = self.listener.getsockname()[1]
		self.script, self.late, self.got, self.ends, self.seen, self.peers = script, late, b"", 0, [], []
		threading.Thread(target=self.loop, daemon=True).start()

	def loop(self):
		with contextlib.suppress(OSError):
			while True:
				peer, _ = self.listener.accept()
				self.peers.append(peer)
				threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

	def serve(self, peer):
		reader = peer.makefile("rb")
		assert reader.read(24) == PREFACE
		if self.late:
			self.late.wait(20)
		peer.sendall(settings((ENABLE_CONNECT_PROTOCOL, 1)))
		with contextlib.suppress(OSError):
			while len(start := reader.read(9)) == 9:
				payload = reader.read(int.from_bytes(start[:3], "big"))
				stream = int.from_bytes(start[5:], "big")
				self.seen.append(start[3])
				if start[3] == SETTINGS and not start[4] & ACK:
					peer.sendall(frame(SETTINGS, ACK, 0))
				elif start[3] == HEADERS:
					self.script(peer, stream)
				elif start[3] == DATA:
					self.got += payload
					self.ends += start[4] & END_STREAM

	def close(self):
		self.listener.close()
		for peer in self.peers:
			peer.close()


@contextlib.contextmanager
def by_hand(gw, path, script, **options):
	with contextlib.closing(Upstream(script, **options)) as upstream:
		gw.route(path, service_of(gw, upstream.port))
		yield upstream


def agree(peer, stream, *more):
	peer.sendall(frame(HEADERS, END_HEADERS, stream, block([(":status", "200")])) + b"".join(more))


def test_nothing_is_asked_before_the_offer(gw):
	late = threading.Event()
	with by_hand(gw, "/late", agree, late=late) as upstream, gw.connect() as connection:
		connection.start("GET", "/late", UPGRADE)
		wait_until(lambda: upstream.peers, 10, "the connection")
		assert HEADERS not in upstream.seen
		late.set()
		assert connection.read_response().status == 101
		connection.send(b"abc")
		wait_until(lambda: upstream.got == b"abc", 10, "the bytes")


def test_each_direction_ends_alone(gw):
	"""The upstream's end first, with bytes just before it; then the client's."""
	with by_hand(gw, "/ends", lambda peer, sid: agree(peer, sid, frame(DATA, 0, sid, b"my "), frame(DATA, END_STREAM, sid, b"end"))) as upstream:
		connection, answer = upgrade(gw, "/ends")
		with connection:
			assert answer.status == 101 and connection.take(6) == b"my end" and connection.is_closed()
			connection.send(b"still here")
			connection.socket.shutdown(socket.SHUT_WR)
			wait_until(lambda: upstream.got == b"still here" and upstream.ends == 1, 10, "the client's end")
		assert gw.wait_record(path="/ends")["reason"] == "both sides closed"


def test_the_clients_end_first(gw):
	streams = []

	def script(peer, sid):
		streams.append((peer, sid))
		agree(peer, sid)

	with by_hand(gw, "/ends-too", script) as upstream:
		connection, answer = upgrade(gw, "/ends-too")
		with connection:
			connection.send(b"x" * 200000)
			connection.socket.shutdown(socket.SHUT_WR)
			peer, sid = streams[0]
			# The window is the first 64 KiB; the rest comes, and the end with it, when there is more.
			wait_until(lambda: len(upstream.got) == 65535, 10, "a window full")
			assert upstream.ends == 0
			peer.sendall(window_update(0, 1 << 20) + window_update(sid, 1 << 20))
			wait_until(lambda: upstream.ends == 1, 10, "the end")
			assert len(upstream.got) == 200000
			peer.sendall(frame(DATA, END_STREAM, sid, b"after your end"))
			assert connection.take(14) == b"after your end" and connection.is_closed()


def test_end_with_the_head(gw):
	with by_hand(gw, "/at-once", lambda peer, sid: peer.sendall(frame(HEADERS, 5, sid, block([(":status", "200")])))):
		connection, answer = upgrade(gw, "/at-once")
		with connection:
			assert answer.status == 101 and connection.is_closed()


def test_a_reset_is_passed_on(gw):
	with by_hand(gw, "/reset", lambda peer, sid: agree(peer, sid, frame(DATA, 0, sid, b"x"), rst(sid, CANCEL))):
		connection, answer = upgrade(gw, "/reset")
		with connection:
			assert answer.status == 101
			connection.is_closed()
		assert gw.wait_record(path="/reset")["flag"] == "UR"


def test_an_upstream_that_ends_and_takes_nothing_more(gw):
	"""END_STREAM, then RST_STREAM with NO_ERROR: what the client still sends goes nowhere, and its end ends it well."""
	with by_hand(gw, "/enough", lambda peer, sid: agree(peer, sid, frame(DATA, END_STREAM, sid, b"x"), rst(sid, NO_ERROR))):
		connection, answer = upgrade(gw, "/enough")
		with connection:
			assert answer.status == 101 and connection.take(1) == b"x" and connection.is_closed()
			connection.send(b"y" * 1000000)
			connection.socket.shutdown(socket.SHUT_WR)
			assert gw.wait_record(20, path="/enough")["reason"] == "both sides closed"


def test_a_client_that_leaves_resets_the_stream(gw):
	with by_hand(gw, "/leave", agree) as upstream:
		connection, _ = upgrade(gw, "/leave")
		connection.send(b"x")
		wait_until(lambda: upstream.got == b"x", 10, "the byte")
		connection.reset()
		wait_until(lambda: RST_STREAM in upstream.seen, 10, "the reset")
