"""HTTP/1.1 on a bare socket: sends exactly the bytes it is told, reads answers strictly and keeps their bytes."""
import socket
import time


class Malformed(AssertionError):
	"""What came is no HTTP/1.1 answer."""


class Closed(AssertionError):
	"""The other side closed before a whole answer was there."""


class Response:
	def __init__(self, head):
		self.head = head
		lines = head[:-4].split(b"\r\n")
		parts = lines[0].split(b" ", 2)
		if len(parts) < 2 or parts[0] not in (b"HTTP/1.1", b"HTTP/1.0") or not parts[1].isdigit() or len(parts[1]) != 3:
			raise Malformed(f"status line {lines[0]!r}")
		self.version = parts[0].decode()
		self.status = int(parts[1])
		self.headers = []
		for line in lines[1:]:
			name, colon, value = line.partition(b":")
			if not colon or not name or name != name.strip() or b"\n" in line or b"\r" in line:
				raise Malformed(f"header line {line!r}")
			self.headers.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
		self.body = b""
		self.trailers = []
		self.interim = []    # of 1xx answers before it
		self.chunks = []     # sizes

	def all(self, name):
		return [value for key, value in self.headers if key.lower() == name.lower()]

	def header(self, name, default=None):
		"""The value of a field that may stand there once."""
		values = self.all(name)
		if len(values) > 1:
			raise Malformed(f"{len(values)} lines of {name}: {values}")
		return values[0] if values else default

	@property
	def json(self):
		import json
		return json.loads(self.body)

	@property
	def text(self):
		return self.body.decode("latin-1")

	def __repr__(self):
		return f"<{self.status} {self.headers} {self.body[:200]!r}>"


class Connection:
	"""A kept connection to 127.0.0.1:port (or another host)."""

	def __init__(self, port, host="127.0.0.1", timeout=20, source=None, receive_buffer=None):
		self.port = port
		family = socket.AF_INET6 if ":" in host else socket.AF_INET
		self.socket = socket.socket(family)
		self.socket.settimeout(timeout)
		if receive_buffer:
			self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
		if source:
			self.socket.bind((source, 0))
		self.socket.connect((host, port))
		self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		self.buffer = b""
		self.eof = False

	@classmethod
	def of(cls, accepted, timeout=20):
		"""The other end: of a socket that was accepted."""
		made = cls.__new__(cls)
		accepted.settimeout(timeout)
		made.socket, made.buffer, made.eof = accepted, b"", False
		made.port = accepted.getpeername()[1]
		return made

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.close()

	def close(self):
		self.socket.close()

	def reset(self):
		"""Closes with RST."""
		self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
		self.socket.close()

	def send(self, data):
		if isinstance(data, str):
			data = data.encode("latin-1")
		self.socket.sendall(data)

	def fill(self, n=65536):
		"""Receives some bytes; False at the end of the stream (or a reset)."""
		if self.eof:
			return False
		try:
			data = self.socket.recv(n)
		except ConnectionResetError:
			data = b""
		self.buffer += data
		self.eof = not data
		return not self.eof

	def take(self, n):
		parts, have = [self.buffer[:n]], min(n, len(self.buffer))
		self.buffer = self.buffer[n:]
		while have < n:
			if not self.fill(min(1 << 20, n - have)):
				raise Closed(f"{have} of {n} bytes")
			parts.append(self.buffer)
			have += len(self.buffer)
			self.buffer = b""
		return b"".join(parts)

	def take_until(self, mark, most=1 << 20):
		while mark not in self.buffer:
			if len(self.buffer) > most:
				raise Malformed(f"no {mark!r} in {len(self.buffer)} bytes")
			if not self.fill():
				raise Closed(f"after {self.buffer[:200]!r}")
		at = self.buffer.index(mark) + len(mark)
		taken, self.buffer = self.buffer[:at], self.buffer[at:]
		return taken

	def read_head(self):
		return Response(self.take_until(b"\r\n\r\n"))

	def read_chunk(self):
		"""The next chunk's bytes; b"" = the last one (trailers not read yet)."""
		line = self.take_until(b"\r\n", 4096)[:-2]
		if not line or any(byte not in b"0123456789abcdefABCDEF" for byte in line):
			raise Malformed(f"chunk size {line!r}")
		size = int(line, 16)
		if size == 0:
			return b""
		data = self.take(size)
		if self.take(2) != b"\r\n":
			raise Malformed("a chunk does not end in CRLF")
		return data

	def read_trailers(self):
		trailers = []
		while (line := self.take_until(b"\r\n", 65536)) != b"\r\n":
			name, colon, value = line[:-2].partition(b":")
			if not colon:
				raise Malformed(f"trailer {line!r}")
			trailers.append((name.decode("latin-1"), value.strip().decode("latin-1")))
		return trailers

	def read_response(self, method="GET"):
		"""A whole answer, with the interim ones before it."""
		interim = []
		while (response := self.read_head()).status < 200 and response.status != 101:
			interim.append(response)
		response.interim = interim
		coding = response.header("Transfer-Encoding")
		length = response.header("Content-Length")
		if coding is not None and length is not None:
			raise Malformed("both Transfer-Encoding and Content-Length")
		if response.status in (204, 304) or method == "HEAD" or response.status == 101:
			return response
		if coding is not None:
			if coding.lower() != "chunked":
				raise Malformed(f"Transfer-Encoding: {coding}")
			parts = []
			while part := self.read_chunk():
				parts.append(part)
			response.chunks = [len(part) for part in parts]
			response.body = b"".join(parts)
			response.trailers = self.read_trailers()
		elif length is not None:
			if not length.isdigit():
				raise Malformed(f"Content-Length: {length}")
			response.body = self.take(int(length))
		else:
			while self.fill():
				pass
			response.body, self.buffer = self.buffer, b""
		return response

	def start(self, method, target, headers=(), body=None, chunked=False, host="gw.test", version="1.1"):
		"""Sends a request. `headers`: dict or list of pairs; `body` is bytes, or a list of chunks with `chunked`."""
		pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
		lines = [f"{method} {target} HTTP/{version}"]
		if host is not None and not any(name.lower() == "host" for name, _ in pairs):
			lines.append(f"Host: {host}")
		lines += [f"{name}: {value}" for name, value in pairs]
		if chunked:
			lines.append("Transfer-Encoding: chunked")
		elif body is not None:
			lines.append(f"Content-Length: {len(body)}")
		data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
		if chunked:
			data += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in body if part) + b"0\r\n\r\n"
		elif body:
			data += body
		self.send(data)

	def request(self, method, target, *arguments, **options):
		self.start(method, target, *arguments, **options)
		return self.read_response(method)

	def get(self, target, headers=(), **options):
		return self.request("GET", target, headers, **options)

	def is_closed(self, within=2.0):
		"""The other side ends the connection within some seconds; bytes that come before it are kept in the buffer."""
		before = self.socket.gettimeout()
		end = time.monotonic() + within
		try:
			while not self.eof:
				left = max(0.0, end - time.monotonic())
				self.socket.settimeout(left)
				try:
					self.fill()
				except (TimeoutError, BlockingIOError):
					if left == 0.0 or time.monotonic() >= end:
						return False
			return True
		finally:
			self.socket.settimeout(before)

	def is_idle(self, for_seconds=0.05):
		"""Open, and nothing arrives."""
		return not self.is_closed(for_seconds) and not self.buffer


def pattern(n, start=0):
	"""The body that the test upstream streams: its letters follow from their position."""
	period = bytes(ord("!") + i % 89 for i in range(89))
	at = start % 89
	return (period * (n // 89 + 2))[at:at + n]


def wait_until(condition, seconds=10, what="the condition"):
	"""Polls until condition() is true and returns its value."""
	end = time.monotonic() + seconds
	while not (value := condition()):
		if time.monotonic() > end:
			raise AssertionError(f"{what} did not come true within {seconds} s")
		time.sleep(0.005)
	return value
