"""Active checks of protocol GRPC (grpc.health.v1), and checks of protocol HTTP at upstreams that speak HTTP/2."""
import contextlib
import socket
import threading

import node
import pytest
from h2wire import *    # noqa: F403 -- the vocabulary of frames
from h2wire import PREFACE, block, frame, settings
from wire import wait_until

SERVING = b"\0\0\0\0\x02\x08\x01"
GOOD = [(":status", "200"), ("content-type", "application/grpc")]


def checked(gw, port, protocol="GRPC", port_protocol="GRPC", **more):
	check = {"enable": True, "protocol": protocol, "interval": 1, "timeout": 1, "healthyThreshold": 1, "unhealthyThreshold": 1, **more}
	return gw.service(port, ports=[{"port": port, "protocol": port_protocol}], healthCheckConfig=check)


def changes(gw, service, name):
	return [r for r in gw.events(f"endpoint.{name}") if r["service"] == service.name]


def becomes(gw, service, name, times=1):
	wait_until(lambda: len(changes(gw, service, name)) >= times, 20, f"endpoint.{name}")


def test_server_that_says_how_it_is(gw, tmp_path):
	"""@grpc/grpc-js answers; the health of the server as such changes."""
	state = tmp_path / "health"
	state.write_text("1")
	with node.Server("grpc_health.js", state) as server:
		service = checked(gw, server.port)
		route = gw.route("/test.Checked", service)
		wait_until(lambda: gw.request("POST", "/test.Checked/x", {"Content-Type": "application/grpc"}).status == 200, 10, "an answer")
		state.write_text("2")
		becomes(gw, service, "unhealthy")
		# 503 in the words of gRPC.
		answer = gw.request("POST", "/test.Checked/x", {"Content-Type": "application/grpc"})
		assert answer.header("grpc-status") == "14"
		state.write_text("1")
		becomes(gw, service, "healthy")
		gw.delete(route)
		gw.delete(service)


def test_services_are_asked_about_by_name(gw, tmp_path):
	state = tmp_path / "health"
	state.write_text("2")
	with node.Server("grpc_health.js", state) as server:
		bad = [checked(gw, server.port, httpPath=path) for path in ("/", "/down", "/unknown")]
		good = checked(gw, server.port, httpPath="/up")
		for service in bad:
			becomes(gw, service, "unhealthy")
		assert not changes(gw, good, "unhealthy")
		for service in [*bad, good]:
			gw.delete(service)


class Upstream:
	"""Answers each request with frames: those of `answers` in turn, the last one again and again. `heads`: fields of the requests."""

	def __init__(self, *answers):
		import hpack
		self.hpack = hpack
		self.listener = socket.create_server(("127.0.0.1", 0))
		self.port = self.listener.getsockname()[1]
		self.answers, self.heads, self.bodies = list(answers), [], []
		threading.Thread(target=self.loop, daemon=True).start()

	def loop(self):
		with contextlib.suppress(OSError):
			while True:
				peer, _ = self.listener.accept()
				threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

	def serve(self, peer):
		with contextlib.suppress(OSError), peer:
			reader = peer.makefile("rb")
			if reader.read(24) != PREFACE:
				return
			peer.sendall(settings())
			decoder = self.hpack.Decoder()
			while len(start := reader.read(9)) == 9:
				payload = reader.read(int.from_bytes(start[:3], "big"))
				if start[3] == SETTINGS and not start[4] & ACK:
					peer.sendall(frame(SETTINGS, ACK, 0))
				elif start[3] == HEADERS:
					self.heads.append([(str(n), str(v)) for n, v in decoder.decode(payload)])
				elif start[3] == DATA:
					self.bodies.append(payload)
				if start[3] in (HEADERS, DATA) and start[4] & END_STREAM:
					answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
					stream = int.from_bytes(start[5:], "big")
					peer.sendall(b"".join(frame(kind, flags, stream, payload) for kind, flags, payload in answer))

	def close(self):
		self.listener.close()


def whole(fields=GOOD, message=SERVING, trailers=(("grpc-status", "0"),)):
	return [(HEADERS, END_HEADERS, block(fields)), (DATA, 0, message), (HEADERS, END_HEADERS | END_STREAM, block(trailers))]


def test_request_of_a_check(gw):
	upstream = Upstream(whole())
	with contextlib.closing(upstream):
		service = checked(gw, upstream.port, httpPath="/pkg.Service", httpHost="check.test")
		wait_until(lambda: upstream.bodies, 10, "a check")
		fields = dict(upstream.heads[0])
		assert fields[":method"] == "POST" and fields[":path"] == "/grpc.health.v1.Health/Check" and fields[":authority"] == "check.test"
		assert fields["content-type"] == "application/grpc" and fields["te"] == "trailers"
		assert upstream.bodies[0] == b"\0\0\0\0\x0d\x0a\x0bpkg.Service"
		wait_until(lambda: len(upstream.bodies) >= 2, 10, "the next check")
		assert not changes(gw, service, "unhealthy")
		gw.delete(service)


BAD = {
	"not-serving": whole(message=b"\0\0\0\0\x02\x08\x02"),
	"service-unknown": whole(message=b"\0\0\0\0\x02\x08\x03"),
	"no-message": [(HEADERS, 5, block([*GOOD, ("grpc-status", "0")]))],
	"unimplemented": [(HEADERS, 5, block([*GOOD, ("grpc-status", "12")]))],
	"failed-after-the-message": whole(trailers=(("grpc-status", "2"),)),
	"no-status": [(HEADERS, 4, block(GOOD)), (DATA, 1, SERVING)],
	"http-status": whole(fields=[(":status", "404"), ("content-type", "text/plain")]),
	"compressed": whole(message=b"\1" + SERVING[1:]),
	"cut-off": whole(message=SERVING[:-1]),
	"too-long": whole(message=SERVING + b"x" * 1000),
	"reset": [(RST_STREAM, 0, b"\0\0\0\x02")],
	"silence": [],
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_bad_and_a_good_answer_heals(gw, name):
	with contextlib.closing(Upstream(BAD[name], whole())) as upstream:
		service = checked(gw, upstream.port)
		becomes(gw, service, "unhealthy")
		becomes(gw, service, "healthy")
		gw.delete(service)


def test_server_of_http1_is_bad(gw, backend):
	service = checked(gw, backend.port)
	becomes(gw, service, "unhealthy")
	gw.delete(service)


def test_http_check_at_an_upstream_of_http2(gw):
	ok, bad = [(HEADERS, 5, block([(":status", "204")]))], [(HEADERS, 5, block([(":status", "500")]))]
	with contextlib.closing(Upstream(ok, bad, ok)) as upstream:
		service = checked(gw, upstream.port, "HTTP", "HTTP2", httpPath="/health")
		becomes(gw, service, "unhealthy")
		becomes(gw, service, "healthy")
		fields = dict(upstream.heads[0])
		assert fields[":method"] == "GET" and fields[":path"] == "/health" and fields["user-agent"] == "sluice-health-check"
		gw.delete(service)
