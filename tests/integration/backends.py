"""The recording upstream of tests/tools/upstream/, driven from Python. What its paths do stands there."""
import json
import os
import pathlib
import subprocess
import tempfile

from wire import Connection, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


def find_program(name, folder, libraries=()):
	"""A test tool as CMake built it, or built here from the C files of its folder."""
	built = pathlib.Path(os.environ.get("SLUICE_TEST_PROGRAMS", ROOT / "build/asan/tests")) / name
	made = pathlib.Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}-{name}"
	newest = max(path.stat().st_mtime for path in [*folder.glob("*.c"), *folder.glob("*.h")])
	if built.exists() and built.stat().st_mtime >= newest:
		return str(built)
	if not made.exists() or made.stat().st_mtime < newest:
		sources = sorted(folder.glob("*.c"))
		subprocess.run(["cc", "-O2", "-g", "-D_GNU_SOURCE", *sources, "-o", f"{made}.{os.getpid()}", *libraries], check=True)
		os.replace(f"{made}.{os.getpid()}", made)
	return str(made)


class Record:
	"""One request as it arrived."""

	def __init__(self, row):
		self.port = row["port"]
		self.address = row["address"]
		self.connection = row["connection"]
		self.turn = row["turn"]
		self.wire = row["wire"].encode("latin-1")
		self.head = self.wire[:row["headBytes"]]
		self.body = self.wire[row["headBytes"]:]    # as on the wire, the first 64 KB at most
		self.body_bytes = row["bodyBytes"]
		self.sha256 = row["sha256"]
		self.complete = row["complete"]
		self.malformed = row["malformed"]
		lines = self.head.decode("latin-1").split("\r\n")
		self.method, self.target, self.version = (lines[0].split(" ") + ["", "", ""])[:3]
		self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:] if line)]

	def all(self, name):
		return [value for key, value in self.headers if key.lower() == name.lower()]

	def header(self, name, default=None):
		values = self.all(name)
		assert len(values) <= 1, f"{len(values)} lines of {name}: {values}"
		return values[0] if values else default

	def __repr__(self):
		return f"<{self.wire[:400]!r}>"


class Backend:
	"""A process with `n` ports: `address` is the first one's, `addresses` those of all. `peers` are four addresses with one port, on
	127.0.0.1 to 127.0.0.4: the endpoints of one service, because a route names the port when a service has several. `address`:
	where the first port shall be."""

	def __init__(self, n=1, address="0"):
		program = find_program("test_upstream", ROOT / "tests/tools/upstream", ["-lcrypto"])
		self.process = subprocess.Popen([program, "0", address, *["0"] * n, *(f"127.0.0.{i}:=" for i in (2, 3, 4))],
			stdout=subprocess.PIPE, text=True)
		line = self.process.stdout.readline().split()
		assert line and line[0] == "ready", f"test_upstream said {line}"
		self.control_port, *self.ports = map(int, line[1:])
		self.peers = [f"127.0.0.{i}:{self.ports[n]}" for i in (1, 2, 3, 4)]
		self.ports = self.ports[:n]
		self.addresses = [f"127.0.0.1:{port}" for port in self.ports]
		self.port, self.address = self.ports[0], address if ":" in address else self.addresses[0]
		self.control = Connection(self.control_port)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.stop()

	def stop(self):
		self.control.close()
		self.process.kill()
		self.process.wait()
		self.process.stdout.close()

	def ask(self, path):
		answer = self.control.get(path)
		return json.loads(answer.body) if answer.body else None

	def requests(self):
		return [Record(row) for row in self.ask("/record")]

	def last(self):
		return self.requests()[-1]

	def clear(self):
		self.ask("/clear")

	def stats(self):
		"""connections (opened since clear), open (now), requests."""
		return self.ask("/stats")

	def wait_open(self, n, seconds=5):
		wait_until(lambda: self.stats()["open"] == n, seconds, f"{n} open connections at the upstream")
