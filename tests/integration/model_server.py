"""A server of models as tests drive it: it speaks every API the product knows, says what it is told, and misbehaves on demand.

    with ModelServer() as model:
        model.say("Hello there.", usage=Usage(5, 7))              # from now on, whole or as events, as the request asks
        model.then(model.failure(503), Whole({"any": "json"}))    # the next two answers, one each
        model.manner(segment=1, usage="null")                     # how answers are sent from now on
        live = model.live()                                       # the next answer is sent by the test, event by event
        ...
        model.last.body["model"], model.last.header("Authorization")
"""
import dataclasses
import json
import socket
import threading
import time
import zlib

import model_shapes
from model_shapes import Event, Said, Usage, kind_of, wants_stream    # Usage: for those who import from here
from scripted import Scripted, read_request
from tls_backends import TlsScripted

__all__ = ["Event", "Live", "Manner", "ModelServer", "Said", "Usage", "Whole", "Events", "Nothing"]


class Request:
	"""A request as the model got it. `raw`: its body's bytes; `body`: them as JSON, None when they are none."""

	def __init__(self, lines, raw):
		self.method, self.target, self.version = lines[0].split(" ")
		self.path, _, self.query = self.target.partition("?")
		self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
		self.raw = raw
		try:
			self.body = json.loads(raw)
		except ValueError:
			self.body = None
		self.kind = kind_of(self.path, self.body)
		self.at = time.monotonic()

	def all(self, name):
		return [value for key, value in self.headers if key.lower() == name.lower()]

	def header(self, name):
		values = self.all(name)
		assert len(values) <= 1, (name, values)
		return values[0] if values else None

	@property
	def model(self):
		if isinstance(self.body, dict) and isinstance(self.body.get("model"), str):
			return self.body["model"]
		return "unknown"

	@property
	def is_stream(self):
		return wants_stream(self.kind, self.body, self.header)

	def __repr__(self):
		return f"<{self.method} {self.target} {self.headers} {self.raw[:200]!r}>"


@dataclasses.dataclass
class Manner:
	"""How an answer is sent. Delays are seconds. What stands at its default is what a good server does."""
	head_delay: float = 0
	first_delay: float = 0        # between the head and the first event (or the body)
	event_delay: float = 0        # before each event but the first
	segment: int = 0              # bytes of each TCP segment; 0: an event (or the body) each
	framing: str = "chunked"      # of events; "length", "close". Whole answers: "length", unless said
	coding: str = None            # "gzip", "deflate", "br", or a name of no coding: identity bytes that say so
	eol: str = "\n"
	final_blank: bool = True      # the last event ends in a blank line
	has_end: bool = True          # the terminal event is sent
	role_first: bool = True
	usage: str = "final"          # "absent", "null", "every"
	comments: bool = False        # one before each event
	pings: bool = False           # one before each event, as the API has them
	error_first: bool = False     # 200, and its first event is an error
	error_after: int = None       # so many events, then an error, then the end
	cut_after: int = None         # so many events (0: the head alone), then the connection ends
	cut_bytes: int = None         # of a whole answer: so many bytes of its body, then the connection ends
	reset: bool = False           # with cut_...: by RST
	empty: bool = False           # 200, no event at all
	endless: bool = False         # content events for ever
	fields: tuple = ()            # more header lines: pairs
	gate: threading.Event = None  # waited for before the first event


def brotli(data):
	"""Uncompressed meta-blocks of a brotli stream (RFC 7932, 9.2), byte-aligned; the caller writes its header and its end."""
	made = b""
	for at in range(0, len(data), 65536):
		part = data[at:at + 65536]
		bits = 0 | 0 << 1 | (len(part) - 1) << 3 | 1 << 19    # not the last, 4 nibbles of length, uncompressed
		made += bits.to_bytes(3, "little") + part
	return made


class Coder:
	"""Codes pieces so that each can be decoded when it is there."""

	def __init__(self, coding):
		self.coding = coding
		self.zlib = zlib.compressobj(wbits=31 if coding == "gzip" else 15) if coding in ("gzip", "deflate") else None
		self.started = False

	def piece(self, data):
		if self.zlib:
			return self.zlib.compress(data) + self.zlib.flush(zlib.Z_SYNC_FLUSH)
		if self.coding != "br" or not data:
			return data
		return self.begin() + brotli(data)

	def begin(self):
		"""A window of 16 bits in one byte: an empty metadata block fills it up."""
		if self.started:
			return b""
		self.started = True
		return b"\x0c"    # WBITS 0 (16), not last, MNIBBLES 3 (metadata), reserved 0, MSKIPBYTES 0, then aligned

	def end(self):
		if self.zlib:
			return self.zlib.flush(zlib.Z_FINISH)
		return self.begin() + b"\x03" if self.coding == "br" else b""


class Sender:
	"""One answer on its way."""

	def __init__(self, connection, manner):
		self.connection, self.manner = connection, manner
		self.coder = Coder(manner.coding)
		self.framing = manner.framing

	def write(self, data):
		step = self.manner.segment or len(data) or 1
		for at in range(0, len(data), step):
			self.connection.send(data[at:at + step])

	def head(self, status, fields):
		if self.manner.head_delay:
			time.sleep(self.manner.head_delay)
		lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in [*fields, *self.manner.fields])]
		if self.manner.coding:
			lines.append(f"Content-Encoding: {self.manner.coding}")
		if self.framing == "chunked":
			lines.append("Transfer-Encoding: chunked")
		elif self.framing == "close":
			lines.append("Connection: close")
		self.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

	def piece(self, data):
		self.frame(self.coder.piece(data))

	def frame(self, data):
		if data:
			self.write(b"%x\r\n%s\r\n" % (len(data), data) if self.framing == "chunked" else data)

	def end(self):
		"""Whether the connection may be used again."""
		self.frame(self.coder.end())
		if self.framing == "chunked":
			self.write(b"0\r\n\r\n")
		return self.framing != "close"

	def cut(self):
		if self.manner.reset:
			self.connection.reset()
		return False

	def first(self):
		if self.manner.gate:
			self.manner.gate.wait(60)
		if self.manner.first_delay:
			time.sleep(self.manner.first_delay)


class Whole:
	"""An answer with a body: bytes, or what is written as JSON. Other options are Manner's, over the server's."""

	def __init__(self, body=b"", status=200, fields=(), content_type="application/json", **manner):
		self.body = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
		self.status, self.fields, self.content_type, self.manner = status, list(fields), content_type, manner

	def serve(self, connection, request, manner):
		manner = dataclasses.replace(manner, **{"framing": "length", **self.manner})
		sender = Sender(connection, manner)
		coded = sender.coder.piece(self.body) + sender.coder.end()
		fields = [*([("Content-Type", self.content_type)] if self.content_type else []), *self.fields]
		sender.head(self.status, fields + ([("Content-Length", len(coded))] if manner.framing == "length" else []))
		sender.first()
		sender.coder = Coder(None)
		if manner.cut_bytes is not None:
			sender.frame(coded[:manner.cut_bytes])
			return sender.cut()
		sender.frame(coded)
		return sender.end()


class Events:
	"""An answer of events: Event objects, or bytes as they are."""

	def __init__(self, events, status=200, content_type="text/event-stream", fields=(), **manner):
		self.events, self.status, self.content_type, self.fields, self.manner = list(events), status, content_type, list(fields), manner

	def serve(self, connection, request, manner):
		manner = dataclasses.replace(manner, **self.manner)
		sender = Sender(connection, manner)
		encoded = self.encode(request, manner)
		fields = [("Content-Type", self.content_type), ("Cache-Control", "no-cache"), *self.fields]
		if manner.framing == "length":
			encoded = [sender.coder.piece(b"".join(encoded)) + sender.coder.end()]
			sender.coder = Coder(None)
			fields.append(("Content-Length", len(encoded[0])))
		sender.head(self.status, fields)
		sender.first()
		return self.send(sender, encoded, manner)

	def send(self, sender, encoded, manner):
		for i, data in enumerate(encoded):
			if manner.cut_after is not None and i >= manner.cut_after:
				return sender.cut()
			if i and manner.event_delay:
				time.sleep(manner.event_delay)
			sender.piece(data)
		if manner.cut_after is not None:
			return sender.cut()
		while manner.endless:
			sender.piece(encoded[min(1, len(encoded) - 1)])
			time.sleep(manner.event_delay or 0.001)
		return sender.end()

	def listed(self, request, manner):
		events = self.events
		if manner.empty:
			return []
		if manner.error_first:
			return [model_shapes.error_event(request.kind)]
		if manner.error_after is not None:
			return [*events[:manner.error_after], model_shapes.error_event(request.kind)]
		if manner.endless or not manner.has_end:
			return events[:-1]
		return events

	def encode(self, request, manner):
		made, events = [], self.listed(request, manner)
		for i, event in enumerate(events):
			if isinstance(event, bytes):
				made.append(event)
				continue
			blank = manner.final_blank or i + 1 < len(events)
			before = Event(comment=" keep-alive").encode(manner.eol) if manner.comments else b""
			if manner.pings:
				before += Event({"type": "ping"}, name="ping").encode(manner.eol)
			made.append(before + event.encode(manner.eol, blank))
		return made


class Model:
	"""What is said, whole or as events, as the request asks."""

	def __init__(self, said, status=200, fields=(), model=None, **manner):
		self.said, self.status, self.fields, self.model, self.manner = said, status, fields, model, manner

	def serve(self, connection, request, manner):
		how = dataclasses.replace(manner, **self.manner)
		model = self.model or request.model
		if request.is_stream:
			events = model_shapes.events(request.kind, self.said, model, request.body, how.role_first, how.usage)
			return Events(events, self.status, fields=self.fields, **self.manner).serve(connection, request, manner)
		said = self.said if how.usage in ("final", "every") else dataclasses.replace(self.said, usage=None)
		body = model_shapes.whole(request.kind, said, model, request.body)
		if how.usage == "null":
			body["usage"] = None
		return Whole(body, self.status, self.fields, **self.manner).serve(connection, request, manner)


class Failure:
	"""An error answer in the request's API."""

	def __init__(self, status, message, code=None, fields=(), **manner):
		self.status, self.message, self.code, self.fields, self.manner = status, message, code, fields, manner

	def serve(self, connection, request, manner):
		body = model_shapes.error(request.kind, self.status, self.message, self.code)
		return Whole(body, self.status, self.fields, **self.manner).serve(connection, request, manner)


class Nothing:
	"""The connection ends without an answer; hold: it stays open and silent until the other side closes."""

	def __init__(self, reset=False, hold=False):
		self.reset, self.hold = reset, hold

	def serve(self, connection, request, manner):
		while self.hold and connection.fill():
			pass
		if self.reset:
			connection.reset()
		return False


class Live:
	"""An answer that the test sends: `asked` waits for the request, then head(), event(), raw(), end() or cut(). `closed` is set when
	the gateway closed the connection."""

	def __init__(self):
		self.arrived, self.over, self.closed = threading.Event(), threading.Event(), threading.Event()
		self.request = self.sender = None
		self.keeps = False

	def serve(self, connection, request, manner):
		self.request, self.sender = request, Sender(connection, manner)
		self.arrived.set()
		threading.Thread(target=self.watch, args=(connection,), daemon=True).start()
		self.over.wait()
		return self.keeps

	def watch(self, connection):
		"""The other side's close is seen without taking a byte of a next request."""
		while not self.over.is_set():
			try:
				if not connection.socket.recv(1, socket.MSG_PEEK):
					break
			except TimeoutError:
				continue
			except OSError:
				break
			self.over.wait(0.01)
		else:
			return
		self.closed.set()
		self.over.set()

	def asked(self, seconds=20):
		assert self.arrived.wait(seconds), "no request came"
		return self.request

	def head(self, status=200, content_type="text/event-stream", fields=()):
		self.asked()
		self.sender.head(status, [("Content-Type", content_type), *fields])
		return self

	def event(self, data, name=None):
		"""Of data (text or JSON), or an Event."""
		return self.raw((data if isinstance(data, Event) else Event(data, name)).encode(self.sender.manner.eol))

	def raw(self, data):
		self.send(lambda: self.sender.piece(data))
		return self

	def send(self, write):
		"""What comes after the gateway's close is lost, as it would be on the wire."""
		try:
			return write()
		except OSError:
			if not self.closed.wait(5):
				raise
			return False

	def end(self):
		self.keeps = self.send(self.sender.end)
		self.over.set()

	def cut(self, reset=False):
		if reset:
			self.sender.connection.reset()
		self.over.set()


class ModelServer:
	"""`requests`: all so far. `lost`: connections that the other side closed or broke off while an answer was on its way. `context`: of TLS."""

	def __init__(self, text="Hello from the model.", context=None, name=None, address=("127.0.0.1", 0), **said):
		self.requests, self.queue, self.opened, self.lost, self.errors = [], [], 0, 0, []
		self.lock = threading.Lock()
		self.how = Manner()
		self.name = name
		self.say(text, **said)
		self.server = TlsScripted(self.serve, context) if context else Scripted(self.serve, address=address)
		self.port = self.server.port
		self.url = f"https://localhost:{self.port}" if context else f"http://127.0.0.1:{self.port}"
		self.address = f"127.0.0.1:{self.port}"

	# ---- what it is told ----

	def say(self, text="Hello from the model.", **said):
		"""From now on. `said`: members of Said."""
		self.default = Model(Said(text, **said), model=self.name)
		return self

	def always(self, answer):
		"""From now on: Whole, Events, Model, Failure, Nothing, or a function of the request that returns one."""
		self.default = answer
		return self

	def answer(self, body, status=200, **more):
		return self.always(Whole(body, status, **more))

	def stream(self, events, **more):
		return self.always(Events(events, **more))

	def fail(self, status=503, message="the model says no", code=None, **more):
		return self.always(Failure(status, message, code, **more))

	def failure(self, status=503, message="the model says no", code=None, **more):
		return Failure(status, message, code, **more)

	def saying(self, text, manner=None, **said):
		"""An answer for then() or always()."""
		return Model(Said(text, **said), model=self.name, **(manner or {}))

	def then(self, *answers):
		"""For the next requests, one each."""
		with self.lock:
			self.queue += answers
		return self

	def live(self):
		live = Live()
		self.then(live)
		return live

	def manner(self, **how):
		"""How answers are sent from now on; what is not named is at its default again."""
		self.how = Manner(**how)
		return self

	# ---- what it saw ----

	@property
	def last(self):
		return self.requests[-1]

	@property
	def hits(self):
		return len(self.requests)

	def clear(self):
		"""Forgets requests and what it was told."""
		with self.lock:
			self.requests, self.queue, self.opened, self.lost, self.errors = [], [], 0, 0, []
		self.how = Manner()
		return self.say()

	# ---- the server ----

	def read_body(self, connection, lines):
		fields = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:]}
		if fields.get("transfer-encoding", "").lower() == "chunked":
			parts = []
			while part := connection.read_chunk():
				parts.append(part)
			connection.read_trailers()
			return b"".join(parts)
		return connection.take(int(fields.get("content-length", 0)))

	def take(self, request):
		with self.lock:
			self.requests.append(request)
			answer = self.queue.pop(0) if self.queue else self.default
		return answer if hasattr(answer, "serve") else answer(request)

	def serve(self, connection):
		connection.socket.settimeout(120)
		with self.lock:
			self.opened += 1
		try:
			while connection.buffer or connection.fill():
				lines = read_request(connection)
				request = Request(lines, self.read_body(connection, lines))
				answer = self.take(request)
				answer = Whole(answer) if isinstance(answer, (dict, bytes)) else answer
				if not self.send(answer, connection, request):
					return
		except (AssertionError, OSError) as error:
			self.errors.append(error)    # the other side went away between answers

	def send(self, answer, connection, request):
		try:
			keeps = answer.serve(connection, request, self.how)
		except OSError:
			with self.lock:
				self.lost += 1
			return False
		if isinstance(answer, Live) and answer.closed.is_set():
			with self.lock:
				self.lost += 1
		return keeps

	def __enter__(self):
		return self

	def stop(self):
		"""Nobody listens any more, and what was open is closed."""
		try:
			self.server.listener.shutdown(socket.SHUT_RDWR)    # else the accept() under way takes one more
		except OSError:
			pass
		self.server.listener.close()
		for connection in self.server.connections:
			try:
				connection.socket.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass

	def __exit__(self, *_):
		self.stop()
