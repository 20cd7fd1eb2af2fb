# serial: it counts requests that are lost while one process follows another.
"""A new process takes sockets and store over from the running one: nothing is refused, nothing is lost, one of them writes."""
import http.client
import os
import pathlib
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import threading
import time

import pytest
from backends import Backend
from gw import PROGRAM, Gateway, free_port
from scale import sized
from wire import Connection, pattern, wait_until

UPGRADES = sized("SLUICE_UPGRADES", 5, 20)
MAGIC = b"sluiceHO"


class Load:
	"""Clients that ask again and again: some on kept connections, some on a new one each time. `lost`: what went wrong, strictly."""

	def __init__(self, port, path="/echo", kept=8, fresh=4):
		self.port, self.path = port, path
		self.lost, self.done, self.is_over = [], 0, False
		self.threads = [threading.Thread(target=self.run, args=(i < kept,)) for i in range(kept + fresh)]

	def __enter__(self):
		for thread in self.threads:
			thread.start()
		return self

	def __exit__(self, *_):
		self.is_over = True
		for thread in self.threads:
			thread.join()

	def run(self, keeps):
		connection = None
		while not self.is_over:
			try:
				connection = connection or Connection(self.port)
				answer = connection.get(self.path)
				if answer.status != 200:
					self.lost.append(answer)
				self.done += 1
				if not keeps or answer.all("Connection") == ["close"]:
					connection.close()
					connection = None
			except (OSError, AssertionError) as error:
				self.lost.append(repr(error))
				connection = None
			time.sleep(0.002)

	def wait(self, more):
		goal = self.done + more
		wait_until(lambda: self.done >= goal, 30, f"{more} more requests")


@pytest.fixture
def backend_process():
	with Backend() as backend:
		yield backend


@pytest.fixture
def data(tmp_path):
	return tmp_path / "data"


def successor(gw, **settings):
	"""Another process for the same data and admin address."""
	return Gateway(data=gw.data, start=False, **{"admin": gw.settings["admin"], "takeover": True, **settings})


def first(data, **settings):
	return Gateway(data=data, admin=f"127.0.0.1:{free_port()}", **settings)


def test_upgrades_under_load_lose_nothing(data, backend_process):
	gateways = [first(data)]
	site = gateways[0].gateway()
	gateways[0].route("/", backend_process, site=site)
	with Load(site.port) as load:
		for _ in range(UPGRADES):
			load.wait(30)
			old, new = gateways[-1], successor(gateways[-1])
			gateways.append(new)
			new.start()
			assert old.wait_exit() == 0
			assert "Sanitizer" not in old.stderr()
			load.wait(30)
			# It is the successor's store now.
			new.route("/more", backend_process, site=site)
	assert load.lost == []
	for old, new in zip(gateways, gateways[1:]):
		assert old.events("takeover.done")
		wait_until(lambda: new.events("takeover.taken"), 5, "the record")
		assert new.events("takeover.taken")[0]["unusedSockets"] == 0
		old.stop()
	items = gateways[-1].ask("GET", "/api/v1/routes?pageSize=100")
	assert len(items["items"]) == UPGRADES + 1
	gateways[-1].stop()


def test_a_successor_with_more_workers_opens_what_it_lacks(data, backend_process):
	with first(data, workers=1) as old:
		site = old.gateway()
		old.route("/", backend_process, site=site)
		with successor(old, workers=3) as new, Load(site.port) as load:
			load.wait(10)
			new.start()
			assert old.wait_exit() == 0
			load.wait(30)
		assert load.lost == []


def test_streams_of_the_old_process_end_in_their_own_time(data, backend_process):
	with first(data, drain_timeout_ms=20000) as old:
		site = old.gateway()
		old.route("/", backend_process, site=site)
		with successor(old) as new, Connection(site.port) as stream:
			stream.start("GET", "/slow/20/100")
			assert stream.read_head().status == 200
			new.start()
			with Connection(site.port) as other:
				assert other.get("/echo").status == 200
			assert stream.take(20) == pattern(20)
			assert old.wait_exit() == 0


def test_nobody_there_is_an_ordinary_start(data):
	with Gateway(data=data, takeover=True) as gw:
		assert not gw.events("takeover.taken")
		assert gw.api("GET", "/readyz")[0] == 200


def test_a_socket_of_a_dead_process_is_no_obstacle(data):
	with first(data) as gw:
		gw.kill9()
		assert (data / "sluice.sock").exists()
		with successor(gw) as new:
			new.start()
			assert new.api("GET", "/readyz")[0] == 200


def still_serves(gw, site, backend):
	"""As if nothing had happened: traffic, reads, and writes as soon as the store is back."""
	assert gw.get("/echo", site=site).status == 200
	wait_until(lambda: gw.api("PUT", f"/api/v1/gateways/{site.id}/gateway-features/xffTrustedNum", {"value": 1})[0] == 200, 20, "writes")


def test_a_successor_that_fails_changes_nothing(data, backend_process):
	with first(data) as old, socket.socket() as taken:
		site = old.gateway()
		old.route("/", backend_process, site=site)
		taken.bind(("127.0.0.1", 0))
		taken.listen()
		with Load(site.port) as load:
			for _ in range(3):
				with successor(old, admin=f"127.0.0.1:{taken.getsockname()[1]}") as new:
					new.start(wait=False)
					assert new.wait_exit() == 1
					assert "cannot listen on" in new.stderr()
				load.wait(10)
		assert load.lost == []
		still_serves(old, site, backend_process)
		wait_until(lambda: old.events("takeover.failed"), 5, "the record")
		with successor(old) as new:
			new.start()
			assert old.wait_exit() == 0
			still_serves(new, site, backend_process)


def hello(kind=3, version=1, magic=MAGIC):
	return magic + struct.pack("=II", version, kind)


def ask(gw):
	s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
	s.settimeout(10)
	s.connect(os.path.join(gw.data, "sluice.sock"))
	return s


def test_while_the_store_is_lent_writes_are_refused_and_reads_are_not(data, backend_process):
	with first(data) as gw:
		site = gw.gateway()
		gw.route("/", backend_process, site=site)
		path = f"/api/v1/gateways/{site.id}/gateway-features/xffTrustedNum"
		with ask(gw) as peer:
			peer.send(hello())
			received = []
			while True:
				message, control, _, _ = peer.recvmsg(64, socket.CMSG_SPACE(4 * 64))
				for _, _, descriptors in control:
					received += struct.unpack(f"={len(descriptors) // 4}i", descriptors)
				if struct.unpack("=II", message[8:])[1] == 5:
					break
			ports = []
			for descriptor in received:
				with socket.socket(fileno=descriptor) as one:
					ports.append(one.getsockname()[1])
			assert sorted(ports) == sorted([site.port, site.port, gw.admin_port])
			status, answer, _ = gw.api("PUT", path, {"value": 1})
			assert status == 503 and answer["errorCode"] == "ErrStoreUnavailable", answer
			wait_until(lambda: any("handed over" in event["why"] for event in gw.events("store.write_failed")), 5, "the record")
			assert gw.api("GET", site.path)[0] == 200
			assert gw.get("/echo", site=site).status == 200
			# A second successor has to wait.
			with ask(gw) as second:
				try:
					second.send(hello())
					assert struct.unpack("=II", second.recv(64)[8:])[1] == 8
				except (BrokenPipeError, ConnectionResetError):
					pass    # closed before our message was sent or read
		still_serves(gw, site, backend_process)
		assert gw.ask("GET", path)["value"] == 1


def test_what_a_lost_successor_wrote_is_not_overwritten(data, backend_process):
	"""It wrote and died before it was ready: our memory does not know what it wrote. Traffic goes on, writes are refused."""
	with first(data) as gw:
		site = gw.gateway()
		gw.route("/", backend_process, site=site)
		with ask(gw) as peer:
			peer.send(hello())
			wait_until(lambda: gw.events("takeover.asked"), 5, "the store is out")
			with sqlite3.connect(data / "sluice.db") as store:
				store.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'sequence'")
			store.close()
		wait_until(lambda: gw.events("takeover.store_is_out"), 5, "the refusal")
		assert gw.get("/echo", site=site).status == 200
		assert gw.api("PUT", f"/api/v1/gateways/{site.id}/gateway-features/xffTrustedNum", {"value": 3})[0] == 503
		# The way out.
		with successor(gw) as new:
			new.start()
			assert gw.wait_exit() == 0
			still_serves(new, site, backend_process)


@pytest.mark.parametrize("message", [b"", b"x", b"GET / HTTP/1.1\r\n\r\n" * 100, hello(magic=b"sluiceXX"), hello(version=2), hello(kind=99),
	hello(kind=6), hello() + b"x"], ids=["empty", "short", "http", "magic", "version", "kind", "order", "long"])
def test_garbage_on_the_socket_is_refused(data, message):
	with first(data) as gw:
		with ask(gw) as peer:
			peer.send(message)
			wait_until(lambda: gw.events("takeover.refused"), 5, "the refusal")
		assert gw.ask("POST", "/v2/meshes", {"meshId": "m1", "name": "m1"})
		with ask(gw) as peer:
			peer.send(hello())
			assert peer.recv(64)[:8] == MAGIC


def test_a_silent_peer_does_not_keep_others_out(data):
	with first(data) as gw:
		with ask(gw), successor(gw) as new:
			new.start(wait=False)
			assert new.wait_exit() == 1
			assert "does not hand over" in new.stderr()
			wait_until(lambda: gw.events("takeover.refused"), 10, "the end of its patience")
		with successor(gw) as new:
			new.start()
			assert gw.wait_exit() == 0


def test_another_version_is_told_so(data, tmp_path):
	os.makedirs(data, 0o700)
	with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as old:
		old.bind(str(data / "sluice.sock"))
		old.listen()
		with Gateway(data=data, takeover=True, start=False) as new:
			new.start(wait=False)
			peer, _ = old.accept()
			with peer:
				peer.send(hello(kind=5, version=7))
				assert new.wait_exit() == 1
			assert "another version of the hand-over" in new.stderr()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_processes_of_other_users_are_refused(data):
	with first(data) as gw:
		path = data / "sluice.sock"
		assert stat.S_IMODE(path.stat().st_mode) == 0o600
		# Even if somebody opened folder and socket to all.
		folders = [path, data, *data.parents]
		modes = [(folder, stat.S_IMODE(folder.stat().st_mode)) for folder in folders if folder.owner() == "root"]
		try:
			for folder, mode in modes:
				os.chmod(folder, mode | 0o077 if folder == path else mode | 0o011)
			script = ("import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(10)\n"
				f"s.connect({str(path)!r})\ntry:\n s.send({hello()!r}); sys.exit(len(s.recv(64)))\nexcept OSError: sys.exit(0)")
			assert subprocess.run(["/usr/bin/python3", "-c", script], user=65534, check=False).returncode == 0
		finally:
			for folder, mode in modes:
				os.chmod(folder, mode)
		wait_until(lambda: any("another user" in e["why"] for e in gw.events("takeover.refused")), 5, "the refusal")
		assert gw.ask("POST", "/v2/meshes", {"meshId": "m1", "name": "m1"})


def test_after_the_upgrade_signals_mean_the_same(data, backend_process):
	with first(data, drain_timeout_ms=600000) as old:
		site = old.gateway()
		old.route("/", backend_process, site=site)
		with successor(old) as new, Connection(site.port) as stream:
			stream.start("GET", "/hang")
			backend_process.wait_open(1)
			new.start()
			wait_until(lambda: old.events("stop.drain"), 5, "the drain")
			old.process.send_signal(signal.SIGTERM)
			assert old.wait_exit() == 0
			assert old.events("stop.now")
			assert new.api("GET", "/readyz")[0] == 200


def test_admin_clients_go_to_the_successor(data):
	with first(data) as old:
		kept = http.client.HTTPConnection(old.admin)
		kept.request("GET", "/livez")
		kept.getresponse().read()
		with successor(old) as new:
			new.start()
			for i in range(20):
				assert new.ask("POST", "/v2/meshes", {"meshId": f"m{i}", "name": f"m{i}"})
			assert old.wait_exit() == 0
			assert pathlib.Path(data, "sluice.sock").exists()
		kept.close()


def test_without_the_setting_a_second_process_is_kept_out(data):
	with first(data) as gw:
		with Gateway(data=data, start=False) as second:
			second.start(wait=False)
			assert second.wait_exit() == 1
			assert "in use by another process" in second.stderr()
		assert PROGRAM and gw.api("GET", "/readyz")[0] == 200
