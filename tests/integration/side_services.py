"""Services that the gateway calls by itself, as tests drive them: an authorization service, a target of copies, a name server."""
import socket
import struct
import threading

from scripted import Scripted, field, read_request
from tls_backends import TlsScripted


class Asked:
	"""One request as a side service got it."""

	def __init__(self, lines, body):
		self.method, self.target, self.version = lines[0].split(" ")
		self.lines = lines[1:]
		self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
		self.body = body

	def all(self, name):
		return [value for key, value in self.headers if key.lower() == name.lower()]

	def header(self, name):
		values = self.all(name)
		assert len(values) <= 1, (name, values)
		return values[0] if values else None

	def __repr__(self):
		return f"<{self.method} {self.target} {self.headers}>"


def plain(status=200, fields=(), body=b"", reason="Said"):
	"""An answer as bytes. `fields`: pairs."""
	lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
	if status >= 200 and status not in (204, 304):
		lines.append(f"Content-Length: {len(body)}")
	return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class SideService:
	"""Answers each request with `answer`: bytes, or a function of (request, connection) that returns bytes, or None when it has done
	it all itself and the connection shall end. `asked`: requests so far. `opened`: connections that brought one; `lost`: how many of
	them the gateway closed. `context`: of TLS."""

	def __init__(self, answer=None, context=None, **options):
		self.answer = answer if answer is not None else plain()
		self.asked, self.opened, self.lost, self.lock = [], 0, 0, threading.Lock()
		self.server = TlsScripted(self.serve, context) if context else Scripted(self.serve, **options)
		self.port = self.server.port
		self.url = f"https://localhost:{self.port}" if context else f"http://127.0.0.1:{self.port}"
		self.address = f"127.0.0.1:{self.port}"

	def read_body(self, connection, lines):
		if (field(lines, "Transfer-Encoding") or "").lower() == "chunked":
			parts = []
			while part := connection.read_chunk():
				parts.append(part)
			connection.read_trailers()
			return b"".join(parts)
		return connection.take(int(field(lines, "Content-Length") or 0))

	def serve(self, connection):
		is_first = True
		try:
			while connection.buffer or connection.fill():
				lines = read_request(connection)
				request = Asked(lines, self.read_body(connection, lines))
				with self.lock:
					self.asked.append(request)
					self.opened += is_first
				is_first = False
				answer = self.answer(request, connection) if callable(self.answer) else self.answer
				if answer is None:
					return
				connection.send(answer)
		except (AssertionError, OSError):
			pass    # the gateway went away
		finally:
			with self.lock:
				self.lost += 1

	@property
	def last(self):
		return self.asked[-1]

	def clear(self):
		with self.lock:
			self.asked, self.opened, self.lost = [], 0, 0

	def __enter__(self):
		return self

	def __exit__(self, *exits):
		try:
			self.server.listener.shutdown(socket.SHUT_RDWR)    # else the accept() under way takes one more
		except OSError:
			pass
		self.server.__exit__(*exits)
		for connection in self.server.connections:
			try:
				connection.socket.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass


class NameServer:
	"""Answers A questions from `names` {name: [address, ...]}, which may be changed; no such name otherwise. TTL 1 s."""

	def __init__(self, names):
		self.names = names
		self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		self.socket.bind(("127.0.0.1", 0))
		self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
		threading.Thread(target=self.serve, daemon=True).start()

	def serve(self):
		while True:
			try:
				question, peer = self.socket.recvfrom(4096)
			except OSError:
				return
			self.socket.sendto(self.answer(question), peer)

	def answer(self, question):
		labels, at = [], 12
		while question[at]:
			labels.append(question[at + 1:at + 1 + question[at]].decode())
			at += 1 + question[at]
		kind = struct.unpack(">H", question[at + 1:at + 3])[0]
		name = ".".join(labels).lower()
		addresses = self.names.get(name, []) if kind == 1 else []
		code = 0 if name in self.names else 3
		head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(addresses), 0, 0)
		records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(one) for one in addresses)
		return head + question[12:at + 5] + records

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.socket.close()
