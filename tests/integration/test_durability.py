# seconds: 1800: hundreds of crashes at full scale.
"""An acknowledged write is there after a crash; a store that cannot be trusted is refused with a plain message."""
import http.client
import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import threading
import time

from gw import PROGRAM, Gateway, free_port
from scale import sized
from wire import wait_until

ROUNDS = sized("SLUICE_KILL_ROUNDS", 15, 500)
WRITERS = 4


def config(n):
	return json.dumps({"enable": True, "threshold": n, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429})


class Writer(threading.Thread):
	"""Creates, replaces and deletes policies until the program dies; remembers what was acknowledged."""

	def __init__(self, gw, number, known):
		super().__init__(daemon=True)
		self.gw, self.number, self.known = gw, number, known
		self.unsure = set()     # ids of writes without an answer
		self.error = None

	def run(self):
		try:
			for n in range(1, 100_000):
				self.write(n)
		except (OSError, http.client.HTTPException) as problem:
			self.error = problem

	def write(self, n):
		body = {"name": f"writer-{self.number}", "className": "RateLimit", "config": config(n)}
		mine = [one for one, (writer, _) in self.known.items() if writer == self.number]
		if n % 3 == 0 and mine:
			self.unsure.add(mine[0])
			self.gw.ask("PUT", f"/api/v2/policies/{mine[0]}", body)
			self.known[mine[0]] = (self.number, n)
			self.unsure.discard(mine[0])
		elif n % 7 == 0 and mine:
			self.unsure.add(mine[-1])
			self.gw.ask("DELETE", f"/api/v2/policies/{mine[-1]}")
			del self.known[mine[-1]]
			self.unsure.discard(mine[-1])
		else:
			made = self.gw.ask("POST", "/api/v2/policies", body)["policyId"]
			self.known[made] = (self.number, n)


def stored_policies(gw):
	found, page = {}, 1
	while True:
		answer = gw.ask("GET", f"/api/v2/policies?pageSize=100&pageNumber={page}")
		found.update({item["policyId"]: json.loads(item["config"])["threshold"] for item in answer["items"]})
		if page * 100 >= answer["totalSize"]:
			return found
		page += 1


def test_every_acknowledged_write_survives_kill_9():
	with Gateway() as gw:
		gateway = gw.gateway()
		known = {}
		for turn in range(ROUNDS):
			writers = [Writer(gw, number, known) for number in range(WRITERS)]
			before = len(known)
			for writer in writers:
				writer.start()
			wait_until(lambda: len(known) > before + 3, 20, "some writes")
			time.sleep((turn * 37 % 100) / 1000)    # at another moment each time
			gw.process.kill()
			for writer in writers:
				writer.join(30)
				assert not writer.is_alive()
			gw.kill9()
			with sqlite3.connect(os.path.join(gw.data, "sluice.db")) as database:
				assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
			database.close()
			gw.start()
			unsure = set().union(*(writer.unsure for writer in writers))
			found = stored_policies(gw)
			lost = {one: n for one, (_, n) in known.items() if one not in unsure and found.get(one) != n}
			assert not lost, f"round {turn}"
			extra = set(found) - set(known)
			assert len(extra) <= WRITERS, "only writes under way may be there unacknowledged"
			known = {one: (known[one][0] if one in known else 0, n) for one, n in found.items()}
			assert gw.get("/").status == 404, "the gateway serves again"
		assert gw.ask("GET", gateway.path)["status"]["phase"] == "Running"


def test_everything_is_there_after_a_restart(backend_process):
	with Gateway() as gw:
		route = gw.route("/kept", backend_process)
		gw.attach("HeaderModify", {"headerOpItems": [{"directionType": "Response", "opType": "Add", "key": "X-Kept", "value": "1",
			"policyValueGenerateMode": "Custom"}]}, to=route)
		kinds = ["/v2/meshes/default/gateways", "/api/v1/services", "/api/v1/routes", "/api/v2/policies", "/api/v1/policy-attachments",
			"/api/v1/environments"]
		before = [gw.api("GET", path)[1] for path in kinds]
		tags = [gw.api("GET", route.path)[2]["ETag"]]
		token = gw.token
		gw.restart()
		assert gw.token == token
		assert [gw.api("GET", path)[1] for path in kinds] == before
		assert [gw.api("GET", route.path)[2]["ETag"]] == tags
		assert gw.get("/kept/echo").header("X-Kept") == "1"


def make_data(tmp_path):
	with Gateway(data=tmp_path / "data") as gw:
		gw.gateway()
	return tmp_path / "data"


def check_refuses_to_start(data, *words):
	"""A plain message that names the file, exit code 1, and nothing is served."""
	ended = subprocess.run([PROGRAM, "run", f"--data={data}", f"--admin=127.0.0.1:{free_port()}"], capture_output=True, text=True,
		timeout=30, check=False)
	assert ended.returncode == 1, ended
	assert "\nready\n" not in "\n" + ended.stderr
	message = ended.stderr.strip().split("\n")[-1]
	for word in ("sluice.db", *words):
		assert word in message, message
	assert "Sanitizer" not in ended.stderr


def test_file_that_is_no_database(tmp_path):
	data = make_data(tmp_path)
	for path in data.glob("sluice.db-*"):
		path.unlink()
	(data / "sluice.db").write_bytes(b"this is not a database, it is text\n" * 1000)
	check_refuses_to_start(data)


def test_corrupt_database(tmp_path):
	data = make_data(tmp_path)
	file = data / "sluice.db"
	with sqlite3.connect(file) as database:
		database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
	database.close()
	text = bytearray(file.read_bytes())
	assert len(text) > 8192
	text[4096:] = b"\xa5" * (len(text) - 4096)
	file.write_bytes(text)
	check_refuses_to_start(data)


def test_truncated_database(tmp_path):
	data = make_data(tmp_path)
	file = data / "sluice.db"
	with sqlite3.connect(file) as database:
		database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
	database.close()
	file.write_bytes(file.read_bytes()[:len(file.read_bytes()) // 2 // 4096 * 4096 + 100])
	check_refuses_to_start(data)


def find_version(database):
	"""Where the schema version is kept: the header, or a table with that word in its name."""
	(version,) = database.execute("PRAGMA user_version").fetchone()
	if version:
		return "PRAGMA user_version = {}", version
	for (table,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
		for _, column, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
			if "version" in column and ("schema" in table or "meta" in table or "migration" in table):
				(version,) = database.execute(f"SELECT max({column}) FROM {table}").fetchone()
				return f"UPDATE {table} SET {column} = {{}}", version
	raise AssertionError("no schema version found")


def test_newer_schema(tmp_path):
	data = make_data(tmp_path)
	with sqlite3.connect(data / "sluice.db") as database:
		statement, version = find_version(database)
		database.execute(statement.format(int(version) + 1000))
	database.close()
	check_refuses_to_start(data, "version")


def test_sealed_values_without_their_key(tmp_path):
	"""The key file belongs to the store; without it secrets cannot be read, and that is said."""
	data = tmp_path / "data"
	with Gateway(data=data) as gw:
		gw.ask("POST", "/api/v1/consumers", {"name": "c", "enable": True, "identities": {"basic": {"username": "u", "password": "long-secret"}}})
	(data / "secret.key").unlink()
	ended = subprocess.run([PROGRAM, "run", f"--data={data}", f"--admin=127.0.0.1:{free_port()}"], capture_output=True, text=True,
		timeout=30, check=False)
	assert ended.returncode == 1
	assert "secret.key" in ended.stderr


def test_data_directory_of_a_running_program_is_refused(tmp_path):
	with Gateway(data=tmp_path / "data") as gw:
		ended = subprocess.run([PROGRAM, "run", f"--data={gw.data}", f"--admin=127.0.0.1:{free_port()}"], capture_output=True, text=True,
			timeout=30, check=False)
		assert ended.returncode == 1, "two programs on one store would overwrite each other"
		assert gw.api("GET", "/readyz")[0] == 200


def test_admin_address_in_use(tmp_path):
	with socket.socket() as taken:
		taken.bind(("127.0.0.1", 0))
		taken.listen()
		port = taken.getsockname()[1]
		ended = subprocess.run([PROGRAM, "run", f"--data={tmp_path / 'data'}", f"--admin=127.0.0.1:{port}"], capture_output=True,
			text=True, timeout=30, check=False)
	assert ended.returncode == 1
	assert str(port) in ended.stderr


def test_port_taken_at_start_fails_that_gateway_alone(tmp_path, backend_process):
	with Gateway(data=tmp_path / "data") as gw:
		good, bad = gw.gateway(), gw.gateway()
		gw.route("/", backend_process, site=good)
		gw.stop()
		with socket.socket() as taken:
			taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
			taken.bind(("127.0.0.1", bad.port))
			taken.listen()
			gw.start()
			assert gw.get("/echo", site=good).status == 200
			assert gw.ask("GET", bad.path)["status"]["phase"] == "Failed"
			assert str(bad.port) in json.dumps([record for record in gw.log() if record.get("level") in ("warn", "error")])


def test_store_that_fails_later_does_not_stop_traffic(tmp_path, backend_process):
	"""Writes are refused while the store is locked by somebody else; requests go on."""
	with Gateway(data=tmp_path / "data") as gw:
		gw.route("/", backend_process)
		assert gw.get("/echo").status == 200
		lock = sqlite3.connect(pathlib.Path(gw.data, "sluice.db"), timeout=0.1, isolation_level=None)
		try:
			try:
				lock.execute("BEGIN IMMEDIATE")
			except sqlite3.OperationalError:
				return    # the program holds the store for itself alone
			status, answer, _ = gw.api("POST", "/api/v2/policies", {"name": "x", "className": "Waf", "config": '{"enable":true}'})
			assert (status, answer["errorCode"]) == (503, "ErrStoreUnavailable")
			assert gw.get("/echo").status == 200
		finally:
			lock.close()
		assert gw.api("POST", "/api/v2/policies", {"name": "x", "className": "Waf", "config": '{"enable":true}'})[0] == 200


def test_port_that_is_free_again_is_served(tmp_path, backend_process):
	"""The gateway says why it failed and that it is tried again; when the port is free it runs, with all it has, and nothing is cut."""
	with Gateway(data=tmp_path / "data") as gw:
		good, bad = gw.gateway(), gw.gateway()
		gw.route("/", backend_process, site=good)
		gw.route("/", backend_process, site=bad)
		gw.domain("late.test", site=bad)
		gw.stop()
		with socket.socket() as taken:
			taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
			taken.bind(("127.0.0.1", bad.port))
			taken.listen()
			gw.start()
			status = gw.ask("GET", bad.path)["status"]
			assert status["phase"] == "Failed" and str(bad.port) in status["reason"] and "tried again" in status["reason"], status
			assert status.get("addresses", []) == []
			kept = gw.connect(good)
			assert kept.get("/echo").status == 200
			# Changes meanwhile belong to what is served later.
			added = gw.domain("added.test", site=bad)
			time.sleep(1.5)    # at least one more attempt meets the port still taken
			assert gw.ask("GET", bad.path)["status"]["phase"] == "Failed"
		wait_until(lambda: gw.ask("GET", bad.path)["status"]["phase"] == "Running", 40, "the gateway is served")
		status = gw.ask("GET", bad.path)["status"]
		assert status["addresses"] == [f"127.0.0.1:{bad.port}"] and not status.get("reason"), status
		for host in ("late.test", "added.test", "other.test"):
			assert gw.get("/echo", {"Host": host}, site=bad).status == 200
		assert kept.get("/echo").status == 200
		kept.close()
		wait_until(lambda: gw.events("gateway.served"), 5, "the record")
		gw.delete(added)
		gw.delete(gw.gateway())


def test_gateway_with_one_of_two_addresses_serves_that_one_meanwhile(tmp_path, backend_process):
	with Gateway(data=tmp_path / "data") as gw:
		site = gw.gateway(externalIPs=["127.0.0.1", "127.0.0.2"])
		gw.route("/", backend_process, site=site)
		gw.stop()
		with socket.socket() as taken:
			taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
			taken.bind(("127.0.0.2", site.port))
			taken.listen()
			gw.start()
			status = gw.ask("GET", site.path)["status"]
			assert status["phase"] == "Failed" and status["addresses"] == [f"127.0.0.1:{site.port}"], status
			kept = gw.connect(site)
			assert kept.get("/echo").status == 200
		wait_until(lambda: gw.ask("GET", site.path)["status"]["phase"] == "Running", 40, "the gateway is served")
		assert kept.get("/echo").status == 200
		kept.close()
		with gw.connect(site, host="127.0.0.2") as second:
			assert second.get("/echo").status == 200
