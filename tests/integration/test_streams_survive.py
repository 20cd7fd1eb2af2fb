# serial: it holds a thousand connections.
"""Long-lived streams outlive changes that have nothing to do with them: none is cut, none stops."""
import os
import selectors
import socket
import threading
import time

import pytest
from backends import Backend
from gw import Gateway
from wire import Connection, pattern, wait_until

CHANGES = int(os.environ.get("SLUICE_CHANGES", "1000"))
STREAMS = int(os.environ.get("SLUICE_STREAMS", "500"))
LIMIT = {"threshold": 1000, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}


class Switcher:
	"""An upstream that agrees to every upgrade and then returns what it gets."""

	def __init__(self):
		self.listener = socket.socket()
		self.listener.bind(("127.0.0.1", 0))
		self.listener.listen(1000)
		self.port = self.listener.getsockname()[1]
		self.selector = selectors.DefaultSelector()
		self.selector.register(self.listener, selectors.EVENT_READ, None)
		self.is_over = False
		self.thread = threading.Thread(target=self.run)
		self.thread.start()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.is_over = True
		self.thread.join()
		for key in list(self.selector.get_map().values()):
			key.fileobj.close()
		self.selector.close()

	def run(self):
		while not self.is_over:
			for key, _ in self.selector.select(0.1):
				if key.data is None:
					peer, _ = self.listener.accept()
					self.selector.register(peer, selectors.EVENT_READ, {"head": b""})
				else:
					self.serve(key.fileobj, key.data)

	def serve(self, peer, state):
		try:
			data = peer.recv(65536)
		except OSError:
			data = b""
		if not data:
			self.selector.unregister(peer)
			peer.close()
		elif state["head"] is None:
			peer.sendall(data)
		else:
			state["head"] += data
			if b"\r\n\r\n" in state["head"]:
				peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
					b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
				state["head"] = None


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


def change_much(gw, backend, n):
	"""Everything but what the streams go through: other routes, services, domains, policies, settings, gateways."""
	site = gw.gateway()
	service = gw.service(backend, site)
	routes = [gw.route(f"/r{i}", service, site=site) for i in range(5)]
	attachment = gw.attach("RateLimit", LIMIT, to=routes[0])
	done = 13
	while done < n:
		kind = done % 6
		if kind == 0:
			gw.change_policy(attachment, {**LIMIT, "threshold": 1000 + done})
		elif kind == 1:
			gw.delete(routes.pop(1))
			routes.append(gw.route(f"/n{done}", service, site=site))
			done += 1
		elif kind == 2:
			gw.feature("xffTrustedNum", done % 10, site=site)
		elif kind == 3:
			item = gw.ask("GET", service.path)
			gw.ask("PUT", service.path, {**item, "addresses": [backend.peers[done % 4]]})
		elif kind == 4:
			gw.delete(gw.domain(f"d{done}.test", site))
			done += 1
		elif done % 60 == 5:
			gw.delete(gw.gateway())
			done += 1
		else:
			gw.change_policy(attachment, {**LIMIT, "threshold": done})
		done += 1
	return done


def test_responses_that_do_not_end(gw):
	with Backend() as backend:
		gw.route("/", backend)
		streams = [Connection(gw.port) for _ in range(STREAMS)]
		try:
			for stream in streams:
				stream.start("GET", "/slow/1000000/200")
			for stream in streams:
				assert stream.read_head().status == 200
			assert change_much(gw, backend, CHANGES) >= CHANGES
			backlog = [stream for stream in streams if stream.is_closed(0)]
			assert not backlog, f"{len(backlog)} streams were cut"
			had = [len(stream.buffer) for stream in streams]
			for stream, before in zip(streams, had):
				while len(stream.buffer) < before + 2:
					assert stream.fill(), "a stream was cut"
				assert stream.buffer == pattern(len(stream.buffer)), "a byte is missing"
		finally:
			for stream in streams:
				stream.close()


def upgrade(connection):
	connection.start("GET", "/", {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}, host="ws.test")
	return connection.read_head()


def test_connections_that_were_upgraded(gw):
	with Switcher() as switcher, Backend() as backend:
		site = gw.gateway()
		gw.route("/", switcher.port, site=site)
		with Connection(site.port) as first:
			assert upgrade(first).status == 101
		sockets = [Connection(site.port) for _ in range(STREAMS)]
		try:
			for one in sockets:
				assert upgrade(one).status == 101
			assert change_much(gw, backend, CHANGES) >= CHANGES
			for i, one in enumerate(sockets):
				one.send(b"still here %d" % i)
			for i, one in enumerate(sockets):
				assert one.take(len(b"still here %d" % i)) == b"still here %d" % i
		finally:
			for one in sockets:
				one.close()


def test_their_own_route_may_go_and_they_end_in_peace(gw):
	"""An exchange ends under the configuration that it began with."""
	with Backend() as backend:
		site = gw.gateway()
		route = gw.route("/", backend, site=site)
		with Connection(site.port) as stream:
			stream.start("GET", "/slow/20/100")
			assert stream.read_head().status == 200
			gw.delete(route)
			wait_until(lambda: gw.get("/slow/1/1", site=site).status == 404, 5, "the route is gone")
			start = time.monotonic()
			assert stream.take(20) == pattern(20)
			assert time.monotonic() - start < 20
