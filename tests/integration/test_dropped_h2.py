"""An answer in HTTP/2 that is dropped for another try in the middle of its trailers: what is left of the block comes when the request and its memory
are gone. (Of HTTP/1.1: test_retry.py.)"""
import threading

import pytest
from gw import numbers
from h2wire import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, MAX_CONCURRENT_STREAMS, PING, PREFACE, RST_STREAM, SETTINGS, block,
	frame, literal, settings)
from scripted import Scripted
from tries import metric
from wire import wait_until

HEAD = [(":status", "503"), ("content-length", "0")]
LATE = [literal("x-late", "b" * 3000), literal("x-later", "c" * 3000)]


def read(connection, kind):
	"""The next frame of that kind; settings are acknowledged."""
	while True:
		start = connection.take(9)
		got = Frame(start[3], start[4], int.from_bytes(start[5:], "big") & 0x7fffffff, connection.take(int.from_bytes(start[:3], "big")))
		if got.kind == SETTINGS and not got.flags & ACK:
			connection.send(frame(SETTINGS, ACK, 0))
		if got.kind == kind:
			return got


class Upstream(Scripted):
	"""Its first connection answers 503, begins the trailers in the same piece, and goes on when `is_over` is set. It takes one stream at a time, so the
	next try has a connection of its own; that one answers when `may_answer` is set."""

	def __init__(self, *rest, ends=END_HEADERS):
		super().__init__(self.talk)
		self.rest, self.ends = rest, ends
		self.is_over, self.may_answer, self.is_tried_again, self.is_done = (threading.Event() for _ in range(4))
		self.places = iter(range(1000))

	def talk(self, connection):
		place = next(self.places)
		assert connection.take(len(PREFACE)) == PREFACE
		connection.send(settings((MAX_CONCURRENT_STREAMS, 1)))
		stream = read(connection, HEADERS).stream
		if place == 0:
			self.drop(connection, stream)
			return
		self.is_tried_again.set()
		self.may_answer.wait(10)
		while True:
			connection.send(frame(HEADERS, END_HEADERS, stream, block([(":status", "200")])) + frame(DATA, END_STREAM, stream, b"good"))
			stream = read(connection, HEADERS).stream

	def drop(self, connection, stream):
		connection.send(frame(HEADERS, END_HEADERS, stream, block(HEAD)) + frame(HEADERS, END_STREAM, stream, literal("x-early", "a" * 300)))
		self.is_over.wait(10)
		for part in self.rest:
			connection.send(frame(CONTINUATION, 0, stream, part))
		if self.ends is None:
			connection.reset()
			self.is_done.set()
			return
		connection.send(frame(CONTINUATION, END_HEADERS, stream) + frame(PING, 0, 0, b"read-all"))
		assert read(connection, PING).payload == b"read-all"
		self.is_done.set()
		read(connection, RST_STREAM)    # holds it open until the gateway ends


def place(gw, server):
	path = f"/dropped-{next(numbers)}"
	service = gw.service(server.port, ports=[{"protocol": "HTTP2", "port": server.port}])
	gw.attach("Retry", {"attempts": 3, "retryOn": ["5xx"], "enable": True}, to=gw.route(path, service))
	return path, service


def go_on(server):
	"""What is left of the block comes, and was read."""
	server.is_over.set()
	wait_until(lambda: server.is_done.is_set() or server.errors, 10, "the end of the trailers")
	assert not server.errors


def tries(gw, service):
	return metric(gw, "sluice_upstream_retries_total", service=service.name, outcome="succeeded")


@pytest.mark.parametrize("rest, ends", [(LATE, END_HEADERS), ((), END_HEADERS), ([literal("content-length", "1")], END_HEADERS),
	([b"".join(literal(f"x-{i}", "v" * 100) for i in range(70))], END_HEADERS), (LATE, None)], ids=["fields", "nothing", "refused", "too-many", "cut"])
def test_trailers_outlive_the_request(gw, rest, ends):
	with Upstream(*rest, ends=ends) as server:
		path, service = place(gw, server)
		server.may_answer.set()
		assert gw.get(path).body == b"good"
		gw.wait_record(path=path)
		go_on(server)
		for _ in range(5):
			assert gw.get(path).body == b"good"
		assert tries(gw, service) == 1


def test_trailers_outlive_a_client_that_leaves(gw):
	with Upstream(*LATE) as server:
		path, _ = place(gw, server)
		with gw.connect() as client:
			client.start("GET", path)
			assert server.is_tried_again.wait(10)
			client.reset()
		gw.wait_record(path=path)
		go_on(server)
		assert gw.get("/nowhere").status == 404


def test_trailers_end_while_the_next_try_waits(gw):
	"""The request is there still; what comes is no answer to it."""
	with Upstream(*LATE) as server:
		path, service = place(gw, server)
		with gw.connect() as client:
			client.start("GET", path)
			assert server.is_tried_again.wait(10)
			go_on(server)
			server.may_answer.set()
			answer = client.read_response()
		assert answer.status == 200 and answer.body == b"good" and answer.header("x-late") is None
		assert tries(gw, service) == 1
