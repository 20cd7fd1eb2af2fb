"""HTTP/2 on a bare socket: sends exactly the frames it is told, reads what comes frame by frame. HPACK is Debian's python3-hpack."""
import socket
import struct
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, \
	COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(12)
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)


def frame(kind, flags, stream, payload=b"", length=None):
	return struct.pack("!I", len(payload) if length is None else length)[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def settings(*pairs):
	return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", key, value) for key, value in pairs))


def window_update(stream, more):
	return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", more))


def rst(stream, code=CANCEL):
	return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def literal(name, value):
	"""A field of the block without any table: what no encoder would send can be sent."""
	name, value = name.encode("latin-1"), value.encode("latin-1")
	return b"\x00" + integer(len(name), 7) + name + integer(len(value), 7) + value


def integer(value, bits, first=0):
	most = (1 << bits) - 1
	if value < most:
		return bytes([first | value])
	out, value = [first | most], value - most
	while value >= 128:
		out.append(value % 128 + 128)
		value //= 128
	return bytes([*out, value])


def block(fields):
	return b"".join(literal(name, value) for name, value in fields)


def head(path="/echo", method="GET", authority="gw.test", scheme="http", more=()):
	return [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path), *more]


class Frame:
	def __init__(self, kind, flags, stream, payload):
		self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

	@property
	def code(self):
		"""Of RST_STREAM and GOAWAY."""
		return struct.unpack("!I", self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8])[0]

	@property
	def last_stream(self):
		return struct.unpack("!I", self.payload[:4])[0] & 0x7fffffff

	@property
	def settings(self):
		return {key: value for key, value in struct.iter_unpack("!HI", self.payload)}

	def __repr__(self):
		return f"<{self.kind} flags {self.flags:x} stream {self.stream} {self.payload[:60]!r}>"


class Answer:
	def __init__(self):
		self.status, self.headers, self.body, self.trailers, self.reset, self.done, self.interim = None, [], b"", [], None, False, []

	def all(self, name):
		return [value for key, value in self.headers if key == name]

	def header(self, name, default=None):
		values = self.all(name)
		assert len(values) <= 1, f"{name}: {values}"
		return values[0] if values else default

	@property
	def json(self):
		import json
		return json.loads(self.body)

	def __repr__(self):
		return f"<{self.status} reset {self.reset} done {self.done} {self.headers} {self.body[:200]!r}>"


class H2:
	"""A connection; `answers` collects what came for each stream. With `greet` preface and settings are exchanged. `window`: what the
	server may send on a stream; `refill`: whether windows are opened again as data comes."""

	def __init__(self, port, greet=True, window=None, refill=True, timeout=10, receive_buffer=None, source=None):
		self.socket = socket.socket()
		self.socket.settimeout(timeout)
		if receive_buffer:
			self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
		if source:
			self.socket.bind((source, 0))
		self.socket.connect(("127.0.0.1", port))
		self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		self.buffer, self.eof, self.refill = b"", False, refill
		self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
		self.answers, self.next_stream, self.goaways, self.frames = {}, 1, [], []
		self.settings = None
		if greet:
			self.send(PREFACE + settings(*([(INITIAL_WINDOW_SIZE, window)] if window is not None else [])))
			self.settings = self.wait(lambda f: f.kind == SETTINGS and not f.flags & ACK).settings
			self.send(frame(SETTINGS, ACK, 0))
			self.wait(lambda f: f.kind == SETTINGS and f.flags & ACK)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.socket.close()

	close = __exit__

	def send(self, data):
		try:
			self.socket.sendall(data)
		except (BrokenPipeError, ConnectionResetError):
			pass    # the end is judged by what is read

	def start(self, fields=None, body=None, stream=None, end=True, **more):
		"""Sends a request (without an end if told so) and returns its stream."""
		stream = stream or self.next_stream
		self.next_stream = max(self.next_stream, stream) + 2
		fields = head(**more) if fields is None else fields
		self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end and body is None else 0), stream, block(fields)))
		if body is not None:
			self.send_body(stream, body, end)
		return stream

	def send_body(self, stream, body, end=True):
		for at in range(0, max(1, len(body)), 16384):
			part = body[at:at + 16384]
			self.send(frame(DATA, END_STREAM if end and at + 16384 >= len(body) else 0, stream, part))

	def take(self, n):
		while len(self.buffer) < n:
			try:
				data = self.socket.recv(1 << 18)
			except ConnectionResetError:
				data = b""
			if not data:
				self.eof = True
				return None
			self.buffer += data
		taken, self.buffer = self.buffer[:n], self.buffer[n:]
		return taken

	def read(self):
		"""The next frame, or None at the end. Raises TimeoutError."""
		start = self.take(9)
		if start is None:
			return None
		length = struct.unpack("!I", b"\0" + start[:3])[0]
		payload = self.take(length)
		if payload is None:
			return None
		got = Frame(start[3], start[4], struct.unpack("!I", start[5:])[0] & 0x7fffffff, payload)
		self.frames.append(got)
		self.note(got)
		return got

	def note(self, got):
		answer = self.answers.setdefault(got.stream, Answer())
		if got.kind == HEADERS:
			fields = [(str(n), str(v)) for n, v in self.decoder.decode(got.payload)]
			if answer.status and answer.status >= 200:
				answer.trailers = fields
			else:
				assert fields[0][0] == ":status", fields
				if answer.status:
					answer.interim.append(answer.status)
				answer.status, answer.headers = int(fields[0][1]), fields[1:]
		elif got.kind == DATA:
			answer.body += got.payload
			if self.refill and got.payload:
				self.send(window_update(0, len(got.payload)) + window_update(got.stream, len(got.payload)))
		elif got.kind == RST_STREAM:
			answer.reset = got.code
		elif got.kind == GOAWAY:
			self.goaways.append(got)
		if got.kind in (HEADERS, DATA) and got.flags & END_STREAM:
			answer.done = True

	def wait(self, condition):
		while (got := self.read()) is not None:
			if condition(got):
				return got
		raise AssertionError(f"the connection ended: {self.frames[-5:]}")

	def answer(self, stream):
		"""Reads until that stream has ended."""
		while not ((answer := self.answers.setdefault(stream, Answer())).done or answer.reset is not None):
			if self.read() is None:
				raise AssertionError(f"the connection ended before stream {stream}: {self.frames[-5:]}")
		return answer

	def request(self, *arguments, **more):
		return self.answer(self.start(*arguments, **more))

	def get(self, path, **more):
		return self.request(path=path, **more)

	def ping(self, payload=b"12345678"):
		"""True when the connection is alive: what was sent before was read."""
		self.send(frame(PING, 0, 0, payload))
		while (got := self.read()) is not None:
			if got.kind == PING and got.flags & ACK and got.payload == payload:
				return True
		return False

	def ended(self, seconds=5):
		"""Code of the GOAWAY with which the server ended the connection; "closed" without one, None when it is open still."""
		end = time.monotonic() + seconds
		while time.monotonic() < end:
			self.socket.settimeout(max(0.01, end - time.monotonic()))
			try:
				if self.read() is None:
					return self.goaways[-1].code if self.goaways else "closed"
			except TimeoutError:
				break
		return None
