"""Real PostgreSQL servers for tests: Debian's, and PGlite (PostgreSQL as WebAssembly) with pgvector.

	with Postgres() as server:                 # password by SCRAM, no TLS
	    server.run("SELECT 1") == [["1"]]
	with Pglite() as server:                   # has the type vector; no password
	    ...
"""
import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

import node
import pki

PATIENCE_S = 120
USER, PASSWORD = "cache", "p:ss w'rd"


def free_port():
	with socket.socket() as s:
		s.bind(("127.0.0.1", 0))
		return s.getsockname()[1]


def programs():
	found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
	if not found:
		pytest.skip("there is no PostgreSQL server: tools/install_deps test")
	return os.path.dirname(found[-1])


def as_nobody_special():
	"""PostgreSQL refuses to run as root: then it runs as the user that its package made."""
	return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []


class Server:
	user, password, database = USER, PASSWORD, "cache"

	@property
	def address(self):
		return f"127.0.0.1:{self.port}/{self.database}"

	@property
	def key(self):
		"""As vectorConfig.apiKey."""
		return f"{self.user}:{self.password}"

	def run(self, sql):
		"""Rows as lists of texts."""
		done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
			"-U", self.user, "-d", self.database, "-c", sql], capture_output=True, text=True, timeout=PATIENCE_S,
			env={**os.environ, "PGPASSWORD": self.password, "PGSSLMODE": "disable" if self.is_plain else "prefer"})
		assert done.returncode == 0, done.stderr
		return [line.split("\x1f") for line in done.stdout.splitlines() if line]

	def wait(self):
		end = time.monotonic() + PATIENCE_S
		while True:
			assert self.process.poll() is None, "the server ended"
			try:
				return self.run("SELECT 1")
			except AssertionError:
				assert time.monotonic() < end, "the server does not answer"
				time.sleep(0.1)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.stop()


class Postgres(Server):
	def __init__(self, method="scram-sha-256", tls=False):
		self.folder = tempfile.mkdtemp(prefix="sluice-pg-")
		self.port, self.is_plain, self.process = free_port(), not tls, None
		data, secret = f"{self.folder}/data", f"{self.folder}/password"
		with open(secret, "w", encoding="utf-8") as file:
			file.write(self.password)
		if as_nobody_special():
			shutil.chown(self.folder, "postgres", "postgres")
			shutil.chown(secret, "postgres", "postgres")
		encryption = "md5" if method == "md5" else "scram-sha-256"
		subprocess.run([*as_nobody_special(), f"{programs()}/initdb", "-D", data, "-U", self.user, "-A", method, "--pwfile", secret,
			"-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"], check=True, capture_output=True, cwd="/")
		with open(f"{data}/postgresql.conf", "a", encoding="utf-8") as file:
			file.write(f"listen_addresses = '127.0.0.1,::1'\nport = {self.port}\nunix_socket_directories = ''\nfsync = off\n"
				f"password_encryption = '{encryption}'\nmax_connections = 50\nshared_buffers = '16MB'\n")
		if tls:
			self.add_certificate(data)
		self.start()
		self.database = "postgres"
		self.wait()
		self.run("CREATE DATABASE cache")
		self.database = "cache"

	def add_certificate(self, data):
		certificate = pki.Authority().issue("localhost")
		for name, text in (("server.crt", certificate.cert), ("server.key", certificate.key)):
			path = f"{data}/{name}"
			with open(path, "w", encoding="utf-8") as file:
				file.write(text)
			os.chmod(path, 0o600)
			if as_nobody_special():
				shutil.chown(path, "postgres", "postgres")
		with open(f"{data}/postgresql.conf", "a", encoding="utf-8") as file:
			file.write("ssl = on\n")

	def start(self):
		with open(f"{self.folder}/log", "ab") as log:
			self.process = subprocess.Popen([*as_nobody_special(), f"{programs()}/postgres", "-D", f"{self.folder}/data"],
				stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

	def halt(self):
		if self.process and self.process.poll() is None:
			self.process.send_signal(2)       # fast shutdown
			self.process.wait(PATIENCE_S)

	def stop(self):
		self.halt()
		shutil.rmtree(self.folder, ignore_errors=True)


class Pglite(Server):
	user, password, database, is_plain = "postgres", "any", "postgres", True

	def __init__(self):
		self.port = free_port()
		self.process = subprocess.Popen(node.command("node_modules/@electric-sql/pglite-socket/dist/scripts/server.js", "-p", self.port, "-h",
			"127.0.0.1", "-e", "@electric-sql/pglite-pgvector:vector", "-m", "10"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
			stderr=subprocess.DEVNULL, cwd=node.FOLDER)
		self.wait()
		self.run("CREATE EXTENSION IF NOT EXISTS vector")

	def stop(self):
		self.process.kill()
		self.process.wait()
