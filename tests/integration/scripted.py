"""Upstreams that do what a function says, byte by byte: for protocols that are no HTTP, and for answers no server would give."""
import base64
import hashlib
import os
import socket
import struct
import threading

from wire import Connection


def take_over(sock, timeout=20):
	"""A socket as a wire.Connection."""
	connection = Connection.__new__(Connection)
	sock.settimeout(timeout)
	sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
	connection.socket, connection.buffer, connection.eof, connection.port = sock, b"", False, None
	return connection


class Scripted:
	"""Calls `script` with each connection (a wire.Connection) in a thread; closes it afterwards. `errors`: what went wrong there."""

	def __init__(self, script, address=("127.0.0.1", 0), backlog=1024):
		self.script = script
		self.errors = []
		self.connections = []
		self.listener = socket.create_server(address, backlog=backlog)
		self.port = self.listener.getsockname()[1]
		threading.Thread(target=self.accept, daemon=True).start()

	def accept(self):
		while True:
			try:
				sock = self.listener.accept()[0]
			except OSError:
				return
			connection = take_over(sock)
			self.connections.append(connection)
			threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

	def serve(self, connection):
		try:
			with connection:
				self.script(connection)
		except Exception as error:    # the test looks at it
			self.errors.append(error)

	def __enter__(self):
		return self

	def __exit__(self, kind, *_):
		self.listener.close()
		for connection in self.connections:
			connection.close()


# ---- WebSocket (RFC 6455), enough of it ----

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}


def accept_key(key):
	return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


def frame(payload, opcode=2, mask=False):
	size = len(payload)
	head = bytes([0x80 | opcode])
	bit = 0x80 if mask else 0
	if size < 126:
		head += bytes([bit | size])
	elif size < 65536:
		head += bytes([bit | 126]) + struct.pack(">H", size)
	else:
		head += bytes([bit | 127]) + struct.pack(">Q", size)
	if not mask:
		return head + payload
	key = os.urandom(4)
	repeated = (key * (size // 4 + 1))[:size]
	return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def read_frame(connection):
	"""(opcode, payload) of the next frame."""
	first, second = connection.take(2)
	size = second & 0x7f
	if size == 126:
		size = struct.unpack(">H", connection.take(2))[0]
	elif size == 127:
		size = struct.unpack(">Q", connection.take(8))[0]
	key = connection.take(4) if second & 0x80 else None
	payload = connection.take(size)
	if key:
		repeated = (key * (size // 4 + 1))[:size]
		payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
	return first & 0x0f, payload


def read_request(connection):
	"""The head of a request as lines, request line first."""
	return connection.take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]


def field(lines, name):
	values = [line.split(":", 1)[1].strip() for line in lines[1:] if line.split(":", 1)[0].lower() == name.lower()]
	assert len(values) <= 1, lines
	return values[0] if values else None


def switch(connection, lines, extra=b""):
	"""Answers 101; `extra` is sent in the same piece."""
	connection.send(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		f"Sec-WebSocket-Accept: {accept_key(field(lines, 'Sec-WebSocket-Key'))}\r\n\r\n").encode() + extra)


def echo_frames(connection):
	"""A WebSocket server that sends back what it gets, until the end or a close frame, which it answers."""
	switch(connection, read_request(connection))
	while connection.buffer or connection.fill():
		opcode, payload = read_frame(connection)
		connection.send(frame(payload, opcode))
		if opcode == 8:
			return
