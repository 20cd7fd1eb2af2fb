"""Upstreams that answer each request as the test says: the n-th request by the n-th answer, all further ones by the last. The same
answers over HTTP/1.1 and HTTP/2, so that a test can run over both.

    with upstream("h2", Reply(503), Reply(200, b"good")) as u:
        gw.route("/a", u.service(gw))
        assert gw.get("/a").status == 200 and len(u.hits) == 2
"""
import socket
import struct
import threading
import time

import hpack
import h2wire
from h2wire import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame, rst, settings, window_update
from scripted import take_over
from wire import wait_until


class Reply:
	"""A whole answer, `delay` seconds after the request. `early`: as soon as the head of the request is there."""

	def __init__(self, status=200, body=b"", fields=(), delay=0, early=False):
		self.status, self.body, self.fields, self.delay, self.early = status, body, list(fields), delay, early

	def __repr__(self):
		return f"<reply {self.status}>"


class Stream:
	"""A head with these fields after `delay`, then each piece after `pause`. `cut`: the connection (HTTP/2: the stream) is reset instead
	of an end."""
	status, early = 200, False

	def __init__(self, *pieces, fields=(), pause=0, delay=0, cut=False, length=None):
		self.pieces, self.fields, self.pause, self.delay, self.cut, self.length = pieces, list(fields), pause, delay, cut, length


HANG = "hang"        # no answer, the connection stays open
RESET = "reset"      # the connection (HTTP/2: the stream) ends without an answer
REFUSE = "refuse"    # HTTP/2: REFUSED_STREAM
GARBAGE = "garbage"  # no HTTP


class Hit:
	"""A request as it came."""

	def __init__(self, method, path, fields, body, connection):
		self.method, self.path, self.fields, self.body, self.connection = method, path, fields, body, connection
		self.at = time.monotonic()

	def header(self, name):
		values = [value for key, value in self.fields if key.lower() == name]
		assert len(values) <= 1, values
		return values[0] if values else None


class Upstream:
	"""`hits`: requests that were answered, in order; `open`: connections now; `ended`: connections that the gateway closed."""
	protocol = None

	def __init__(self, *answers, address=("127.0.0.1", 0)):
		self.answers, self.hits, self.errors = list(answers), [], []
		self.lock, self.open, self.ended, self.cancelled, self.opened = threading.Lock(), 0, 0, 0, 0
		self.listener = socket.create_server(address, backlog=512)
		self.port = self.listener.getsockname()[1]
		self.address = f"{address[0]}:{self.port}"
		threading.Thread(target=self.accept, daemon=True).start()

	def accept(self):
		while True:
			try:
				sock = self.listener.accept()[0]
			except OSError:
				return
			threading.Thread(target=self.run, args=(take_over(sock, 60),), daemon=True).start()

	def run(self, connection):
		with self.lock:
			self.open += 1
			self.opened += 1
		try:
			self.serve(connection)
		except Exception as error:    # the test looks at it
			self.errors.append(error)
		finally:
			connection.close()
			with self.lock:
				self.open -= 1

	def hit(self, *what):
		"""Notes a request and returns its answer."""
		with self.lock:
			self.hits.append(Hit(*what))
			return self.answers[min(len(self.hits), len(self.answers)) - 1]

	def next_is_early(self):
		answer = self.answers[min(len(self.hits) + 1, len(self.answers)) - 1]
		return getattr(answer, "early", False)

	def service(self, gw, **more):
		return gw.service([self.address], ports=[{"name": "p", "port": self.port, "protocol": self.protocol}], **more)

	def wait_hits(self, n, seconds=10):
		wait_until(lambda: len(self.hits) >= n, seconds, f"{n} requests at the upstream")

	def __enter__(self):
		return self

	def __exit__(self, *_):
		# A thread in accept() holds the socket: only shutdown() makes it let go.
		try:
			self.listener.shutdown(socket.SHUT_RDWR)
		except OSError:
			pass
		self.listener.close()


class Http1(Upstream):
	protocol = "HTTP"

	def serve(self, connection):
		number = self.opened
		while connection.buffer or connection.fill():
			head = connection.take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
			method, path, _ = head[0].split(" ")
			fields = [tuple(line.split(": ", 1)) for line in head[1:]]
			named = {name.lower(): value for name, value in fields}
			body = b""
			early = self.next_is_early()
			if not early and "content-length" in named:
				body = connection.take(int(named["content-length"]))
			elif not early and "transfer-encoding" in named:
				while part := connection.read_chunk():
					body += part
				connection.read_trailers()
			if not self.answer(connection, self.hit(method, path, fields, body, number), method):
				return
			if early:
				self.wait_end(connection)
				return

	def wait_end(self, connection):
		"""The gateway closes."""
		connection.buffer = b""
		while connection.fill():
			connection.buffer = b""
		with self.lock:
			self.ended += 1

	def answer(self, connection, answer, method):
		"""False: the connection is over."""
		if answer == RESET:
			connection.reset()
			return False
		if answer == HANG:
			self.wait_end(connection)
			return False
		if answer == GARBAGE:
			connection.send(b"this is no HTTP\r\n\r\n")
			return False
		if answer.delay and connection.is_closed(answer.delay):
			self.ended += 1
			return False
		lines = [f"HTTP/1.1 {answer.status} As Asked", *(f"{name}: {value}" for name, value in answer.fields)]
		if isinstance(answer, Reply):
			lines.append(f"Content-Length: {len(answer.body)}")
			connection.send(("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if method == "HEAD" else answer.body))
			return True
		return self.stream(connection, answer, lines)

	def stream(self, connection, answer, lines):
		lines.append("Transfer-Encoding: chunked" if answer.length is None else f"Content-Length: {answer.length}")
		connection.send(("\r\n".join(lines) + "\r\n\r\n").encode())
		for piece in answer.pieces:
			if answer.pause and connection.is_closed(answer.pause):
				self.ended += 1
				return False
			connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if answer.length is None else piece)
		if answer.cut:
			time.sleep(0.1)    # what was sent arrives before the reset
			connection.reset()
			return False
		if answer.length is None:
			connection.send(b"0\r\n\r\n")
		return True


class Http2(Upstream):
	protocol = "HTTP2"

	def serve(self, connection):
		number, streams = self.opened, {}
		decoder, lock = hpack.Decoder(), threading.Lock()
		assert (got := connection.take(24)) == PREFACE, got
		connection.send(settings() + window_update(0, 1 << 24))
		while connection.buffer or connection.fill():
			start = connection.take(9)
			kind, flags, sid = start[3], start[4], struct.unpack("!I", start[5:])[0]
			payload = connection.take(int.from_bytes(start[:3], "big"))
			if kind == SETTINGS and not flags & ACK:
				self.send(connection, lock, frame(SETTINGS, ACK, 0))
			if kind == HEADERS:
				streams[sid] = [decoder.decode(payload), b"", False]
				if self.next_is_early():
					self.begin(connection, lock, streams, sid, number)
			elif kind == DATA and sid in streams:
				streams[sid][1] += payload
				if payload:
					self.send(connection, lock, window_update(0, len(payload)) + window_update(sid, len(payload)))
			elif kind == RST_STREAM:
				self.cancelled += 1
				streams.pop(sid, None)
			if kind in (HEADERS, DATA) and flags & END_STREAM and sid in streams and not streams[sid][2]:
				self.begin(connection, lock, streams, sid, number)
		self.ended += 1

	def send(self, connection, lock, data):
		with lock:
			try:
				connection.send(data)
			except OSError:
				pass    # the reader sees the end

	def begin(self, connection, lock, streams, sid, number):
		fields, body, _ = streams[sid]
		streams[sid][2] = True
		fields = [(str(name), str(value)) for name, value in fields]
		named = dict(fields)
		answer = self.hit(named[":method"], named[":path"], fields, body, number)
		threading.Thread(target=self.answer, args=(connection, lock, streams, sid, answer), daemon=True).start()

	def answer(self, connection, lock, streams, sid, answer):
		def send(data):
			self.send(connection, lock, data)

		if answer == HANG:
			return
		if answer in (RESET, REFUSE, GARBAGE):
			send(rst(sid, {RESET: h2wire.INTERNAL_ERROR, REFUSE: h2wire.REFUSED_STREAM, GARBAGE: h2wire.PROTOCOL_ERROR}[answer])
				if answer != GARBAGE else frame(HEADERS, END_HEADERS, sid, block([("x-no-status", "1")])))
			return
		time.sleep(answer.delay)
		fields = [(":status", str(answer.status)), *((name.lower(), value) for name, value in answer.fields)]
		if isinstance(answer, Reply):
			fields.append(("content-length", str(len(answer.body)))) if answer.body else None
			send(frame(HEADERS, END_HEADERS | (0 if answer.body else END_STREAM), sid, block(fields)))
			if answer.body:
				send(frame(DATA, END_STREAM, sid, answer.body))
			return
		if answer.length is not None:
			fields.append(("content-length", str(answer.length)))
		send(frame(HEADERS, END_HEADERS, sid, block(fields)))
		for piece in answer.pieces:
			time.sleep(answer.pause)
			if sid not in streams:
				return
			send(frame(DATA, 0, sid, piece))
		send(rst(sid, h2wire.INTERNAL_ERROR) if answer.cut else frame(DATA, END_STREAM, sid))


def upstream(protocol, *answers, **options):
	return (Http2 if protocol == "h2" else Http1)(*answers, **options)


def metric(gw, name, **labels):
	"""The value of one series, 0 when it is not there."""
	from policy_kit import raw_get
	for line in raw_get(gw, "/metrics")[1].split("\n"):
		if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
			return int(float(line.rsplit(" ", 1)[1]))
	return 0
