"""Real Redis servers for tests: plain, with password, users, TLS, and a cluster; and servers that misbehave.

    with RedisServer() as redis:
        gw.attach("AiTokenRateLimit", {..., "redisConfig": redis.config}, to=api)
        redis("GET", "key"); redis.stop(); redis.start()
"""
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from gw import free_port
from wire import wait_until


class Error(Exception):
	"""An error reply."""


class Client:
	"""Commands over one connection."""

	def __init__(self, port, timeout=10, tls=None):
		self.socket = socket.create_connection(("127.0.0.1", port), timeout)
		if tls:
			self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
		self.file = self.socket.makefile("rb")

	def __call__(self, *words):
		made = b"*%d\r\n" % len(words)
		for word in words:
			data = word if isinstance(word, bytes) else str(word).encode()
			made += b"$%d\r\n%s\r\n" % (len(data), data)
		self.socket.sendall(made)
		return self.read()

	def read(self):
		line = self.file.readline()
		if not line:
			raise ConnectionError("closed")
		kind, rest = line[:1], line[1:-2].decode()
		if kind == b"-":
			raise Error(rest)
		if kind == b":":
			return int(rest)
		if kind == b"$":
			return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
		if kind == b"*":
			return None if rest == "-1" else [self.read() for _ in range(int(rest))]
		return rest

	def close(self):
		self.file.close()
		self.socket.close()


class RedisServer:
	"""`options`: lines of its configuration, with _ for -, e.g. requirepass="secret". `pair`: a pki.Pair for TLS alone."""

	def __init__(self, port=None, pair=None, start=True, **options):
		self.port = port or free_port()
		self.folder = tempfile.mkdtemp(prefix="sluice-redis-")
		self.pair, self.process, self.starts = pair, None, 0
		self.lines = [f"{name.replace('_', '-')} {value}" for name, value in options.items()]
		self.login = ["AUTH", options["requirepass"]] if "requirepass" in options else None
		if start:
			self.start()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.stop()
		shutil.rmtree(self.folder, ignore_errors=True)

	def start(self):
		lines = ["bind 127.0.0.1", 'save ""', "appendonly no", f"dir {self.folder}", "daemonize no", *self.lines]
		if self.pair:
			lines += ["port 0", f"tls-port {self.port}", f"tls-cert-file {self.pair.cert_file}", f"tls-key-file {self.pair.key_file}",
				"tls-auth-clients no", f"tls-ca-cert-file {self.pair.cert_file}"]
		else:
			lines.append(f"port {self.port}")
		path = pathlib.Path(self.folder, "redis.conf")
		path.write_text("\n".join(lines) + "\n")
		self.log = open(os.path.join(self.folder, "log"), "ab")
		self.process = subprocess.Popen(["redis-server", str(path)], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
		self.starts += 1
		wait_until(self.is_ready, 30, "Redis")
		return self

	def client(self):
		context = None
		if self.pair:
			context = ssl.create_default_context()
			context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
		made = Client(self.port, tls=context)
		if self.login:
			made(*self.login)
		return made

	def is_ready(self):
		assert self.process.poll() is None, pathlib.Path(self.folder, "log").read_text()
		try:
			return self("PING") == "PONG"
		except (OSError, Error):
			return False

	def __call__(self, *words):
		client = self.client()
		try:
			return client(*words)
		finally:
			client.close()

	def stop(self):
		if not self.process:
			return
		self.freeze(False)
		self.process.kill()
		self.process.wait()
		self.process = None
		self.log.close()

	def freeze(self, is_frozen=True):
		"""It keeps its connections and does not answer."""
		self.process.send_signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)

	def calls(self):
		"""{command: how often}, of all clients."""
		found = {}
		for line in self("INFO", "commandstats").split("\r\n"):
			if line.startswith("cmdstat_"):
				name, _, rest = line[len("cmdstat_"):].partition(":")
				found[name] = int(rest.split(",")[0].split("=")[1])
		return found

	def keys(self, pattern="sluice:trl:*"):
		return sorted(self("KEYS", pattern))

	@property
	def config(self):
		return {"serviceHost": "127.0.0.1", "servicePort": self.port}


class RedisCluster:
	"""Three masters. `options`: of each."""

	def __init__(self, **options):
		self.nodes, self.options = [], options

	def __enter__(self):
		self.nodes = [RedisServer(cluster_enabled="yes", cluster_node_timeout=2000, cluster_port=free_port(), **self.options)
			for _ in range(3)]
		addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
		for node in self.nodes[1:]:
			port, bus = self.nodes[0].port, self.nodes[0].lines[2].split()[1]
			node("CLUSTER", "MEET", "127.0.0.1", port, bus)
		bounds = [0, 5461, 10923, 16384]
		for i, node in enumerate(self.nodes):
			node("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
		wait_until(lambda: all(self.is_whole(node) for node in self.nodes), 30, f"a cluster of {addresses}")
		return self

	def __exit__(self, *_):
		for node in self.nodes:
			node.__exit__()

	def is_whole(self, node):
		info = node("CLUSTER", "INFO")
		return "cluster_state:ok" in info and "cluster_known_nodes:3" in info

	def keys(self):
		return sorted(key for node in self.nodes if node.process for key in node.keys())

	def get(self, key):
		for node in self.nodes:
			try:
				return node("GET", key)
			except Error:
				continue
		return None


class Scripted:
	"""A port that takes connections and does with each what `serve(socket)` says: slow, huge, garbage."""

	def __init__(self, serve=None):
		self.listener = socket.create_server(("127.0.0.1", 0))
		self.port = self.listener.getsockname()[1]
		self.serve, self.open, self.connections = serve, True, []
		self.thread = threading.Thread(target=self.accept, daemon=True)
		self.thread.start()

	def accept(self):
		while self.open:
			try:
				connection, _ = self.listener.accept()
			except OSError:
				return
			self.connections.append(connection)
			if self.serve:
				threading.Thread(target=self.run, args=(connection,), daemon=True).start()

	def run(self, connection):
		try:
			self.serve(connection)
		except OSError:
			pass

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.open = False
		self.listener.close()
		for connection in self.connections:
			connection.close()

	@property
	def config(self):
		return {"serviceHost": "127.0.0.1", "servicePort": self.port}


class SlowLink:
	"""Between a gateway and a Redis: what either says arrives `delay` seconds later."""

	def __init__(self, target, delay=0.0):
		self.target, self.delay = target, delay
		self.front = Scripted(self.serve)
		self.config = self.front.config

	def serve(self, connection):
		with socket.create_connection(("127.0.0.1", self.target.port)) as other:
			back = threading.Thread(target=self.carry, args=(other, connection), daemon=True)
			back.start()
			self.carry(connection, other)
			back.join(10)

	def carry(self, source, sink):
		waiting, there = [], threading.Condition()

		def send():
			while True:
				with there:
					while not waiting:
						there.wait()
					at, data = waiting.pop(0)
				time.sleep(max(0, at - time.monotonic()))
				try:
					if not data:
						sink.shutdown(socket.SHUT_RDWR)
						return
					sink.sendall(data)
				except OSError:
					return
		sender = threading.Thread(target=send, daemon=True)
		sender.start()
		data = b"-"
		while data:
			try:
				data = source.recv(65536)
			except OSError:
				data = b""
			with there:
				waiting.append((time.monotonic() + self.delay, data))
				there.notify()
		sender.join(10)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.front.__exit__()
