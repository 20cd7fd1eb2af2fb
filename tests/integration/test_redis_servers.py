"""Redis as it is deployed: with users and passwords, TLS, clusters, restarts; and servers that do harm. Seen through AiTokenRateLimit."""
import contextlib
import socket
import time

import pytest
from ai_kit import ModelServer, Usage, ai_route, chat, metric
from gw import Gateway
from pki import Authority
from policy_kit import phase
from redis_kit import RedisCluster, RedisServer, Scripted
from wire import wait_until


@pytest.fixture(scope="module")
def model():
	with ModelServer() as server:
		server.say("fine", usage=Usage(40, 20))
		yield server


@pytest.fixture(scope="module", autouse=True)
def patience(gw):
	gw.feature("ai.token_limit.wait_ms", 1000)


def limited(gw, model, config, threshold=100):
	route = ai_route(gw, model)
	rule = {"limitType": "LimitByConsumer", "threshold": threshold, "timeWindow": 60}
	route.attachment = gw.attach("AiTokenRateLimit", {"rules": [rule], "redisConfig": config}, to=route)
	return route


def spend(gw, route, n):
	return [chat(gw, route.base, "Hi").status for _ in range(n)]


def wait_counter(server, route, tokens):
	def counted():
		keys = server.keys(f"*{route.id}*")
		return keys and int(server("GET", keys[0])) == tokens
	wait_until(counted, 20, f"{tokens} in Redis")


def wait_trouble(gw, route, text):
	def status():
		return gw.ask("GET", route.attachment.path)["status"]
	wait_until(lambda: status()["phase"] == "Degraded" and text in status()["lastError"], 20, f"Degraded: {text}")


def test_a_password(gw, model):
	with RedisServer(requirepass="secret") as redis:
		route = limited(gw, model, {**redis.config, "password": "secret"})
		assert spend(gw, route, 3) == [200, 200, 429]
		wait_counter(redis, route, 120)
		route = limited(gw, model, {**redis.config, "password": "wrong"})
		wait_trouble(gw, route, "WRONGPASS")
		route = limited(gw, model, redis.config)
		wait_trouble(gw, route, "NOAUTH")
		assert spend(gw, route, 3) == [200, 200, 429]


def test_a_user_with_few_rights_and_a_database(gw, model):
	with RedisServer() as redis:
		redis("ACL", "SETUSER", "gateway", "on", ">pass word", "~sluice:*", "+eval", "+evalsha", "+get", "+pttl", "+expire",
			"+incrby", "+select")
		route = limited(gw, model, {**redis.config, "username": "gateway", "password": "pass word", "database": 3})
		assert spend(gw, route, 3) == [200, 200, 429]
		client = redis.client()
		client("SELECT", 3)
		wait_until(lambda: client("KEYS", f"*{route.id}*"), 10, "a counter in database 3")
		client.close()
		redis("ACL", "SETUSER", "nothing", "on", ">pass", "+select")
		route = limited(gw, model, {**redis.config, "username": "nothing", "password": "pass"})
		assert spend(gw, route, 3) == [200, 200, 429]
		wait_trouble(gw, route, "NOPERM")
		route = limited(gw, model, {**redis.config, "database": 99})
		wait_trouble(gw, route, "SELECT")


def test_tls(model):
	authority = Authority()
	pair = authority.issue("localhost")
	with RedisServer(pair=pair) as redis, Gateway(environment={"SSL_CERT_FILE": authority.file}) as gw:
		gw.feature("ai.token_limit.wait_ms", 1000)
		route = limited(gw, model, {"serviceHost": "rediss://localhost", "servicePort": redis.port})
		assert spend(gw, route, 3) == [200, 200, 429]
		wait_counter(redis, route, 120)
		route = limited(gw, model, {"serviceHost": f"rediss://127.0.0.1:{redis.port}", "servicePort": redis.port})
		wait_trouble(gw, route, "name")
		route = limited(gw, model, {"serviceHost": "localhost", "servicePort": redis.port})
		wait_trouble(gw, route, f"localhost:{redis.port}")


def test_tls_of_an_unknown_authority(gw, model):
	with RedisServer(pair=Authority("Other").issue("localhost")) as redis:
		route = limited(gw, model, {"serviceHost": "rediss://localhost", "servicePort": redis.port})
		wait_trouble(gw, route, f"localhost:{redis.port}")
		assert spend(gw, route, 3) == [200, 200, 429]


def test_a_cluster(gw, model):
	with RedisCluster() as cluster:
		routes = [limited(gw, model, cluster.nodes[0].config) for _ in range(8)]
		for route in routes:
			assert spend(gw, route, 3) == [200, 200, 429]
		wait_until(lambda: len(cluster.keys()) == len(routes), 10, "the counters")
		# They are spread over nodes, though only one is configured.
		assert sum(bool(node.keys()) for node in cluster.nodes) >= 2
		assert {cluster.get(key) for key in cluster.keys()} == {"120"}


def test_a_cluster_moves_a_slot(gw, model):
	with RedisCluster() as cluster:
		route = limited(gw, model, cluster.nodes[0].config, threshold=200)
		assert spend(gw, route, 1) == [200]
		wait_until(cluster.keys, 10, "the counter")
		key = cluster.keys()[0]
		slot = cluster.nodes[0]("CLUSTER", "KEYSLOT", key)
		source = next(node for node in cluster.nodes if node.keys())
		target = next(node for node in cluster.nodes if node is not source)
		wait_until(lambda: source("GET", key) == "60", 10, "the charge")
		ids = {node: node("CLUSTER", "MYID") for node in cluster.nodes}
		target("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
		source("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
		source("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
		degraded = metric(gw, "token_ratelimit_degraded")
		assert spend(gw, route, 1) == [200]    # by ASK
		for node in cluster.nodes:
			node("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
		assert spend(gw, route, 3) == [200, 200, 429]    # by MOVED
		assert metric(gw, "token_ratelimit_degraded") == degraded
		wait_until(lambda: target("GET", key) == "240", 10, "the charges")


def test_a_cluster_goes_on_without_the_node_that_is_configured(gw, model):
	with RedisCluster(cluster_require_full_coverage="no") as cluster:
		seed = cluster.nodes[0]
		routes = []
		while sum(any(route.id in key for key in node.keys()) for route in routes for node in cluster.nodes[1:]) < 2:
			routes.append(limited(gw, model, seed.config, threshold=10000))
			assert spend(gw, routes[-1], 1) == [200]
			wait_until(lambda: any(routes[-1].id in key for key in cluster.keys()), 10, "its counter")
		elsewhere = next(route for route in routes if not any(route.id in key for key in seed.keys()))
		seed.stop()

		def is_asked():
			degraded = metric(gw, "token_ratelimit_degraded")
			assert spend(gw, elsewhere, 1) == [200]
			return metric(gw, "token_ratelimit_degraded") == degraded
		wait_until(is_asked, 20, "a request that a node was asked for")


def test_a_restart_in_the_middle(gw, model):
	with RedisServer() as redis:
		route = limited(gw, model, redis.config, threshold=10000)
		assert spend(gw, route, 3) == [200] * 3
		wait_counter(redis, route, 180)
		for _ in range(3):
			redis.stop()
			redis.start()
			# Its connection is gone, which is seen before or with the next request: that one may be judged here.
			assert spend(gw, route, 2) == [200, 200]
			wait_until(lambda: phase(gw, route.attachment) == "Active", 20, "Active")
		degraded = metric(gw, "token_ratelimit_degraded")
		assert spend(gw, route, 3) == [200] * 3
		assert metric(gw, "token_ratelimit_degraded") == degraded


def test_connections_are_few(gw, model):
	with RedisServer() as redis:
		routes = [limited(gw, model, redis.config, threshold=10000) for _ in range(5)]
		for route in routes:
			assert spend(gw, route, 2) == [200, 200]
		clients = [line for line in redis("CLIENT", "LIST").split("\n") if line and "cmd=client" not in line]
		assert len(clients) <= 2    # one for each worker that asks


# ---- servers that do harm ----

def read_hello(connection):
	connection.recv(4096)


def garbage(connection):
	read_hello(connection)
	connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	connection.recv(4096)


def huge(connection):
	read_hello(connection)
	connection.sendall(b"+OK\r\n")
	connection.recv(4096)
	connection.sendall(b"$999999999999\r\n")
	with contextlib.suppress(OSError):
		while True:
			connection.sendall(b"x" * 65536)


def deep(connection):
	read_hello(connection)
	connection.sendall(b"+OK\r\n")
	connection.recv(4096)
	connection.sendall(b"*1\r\n" * 100000)
	connection.recv(4096)


def endless(connection):
	"""One item after the other, all of them allowed."""
	read_hello(connection)
	connection.sendall(b"+OK\r\n")
	connection.recv(4096)
	connection.sendall(b"*60000\r\n")
	with contextlib.suppress(OSError):
		while True:
			connection.sendall(b"$1000\r\n" + b"x" * 1000 + b"\r\n")


def trickle(connection):
	read_hello(connection)
	with contextlib.suppress(OSError):
		while True:
			connection.sendall(b"+")
			time.sleep(0.2)


def silent(connection):
	connection.recv(4096)
	time.sleep(30)


def wrong_answers(connection):
	read_hello(connection)
	connection.sendall(b"+OK\r\n")
	while connection.recv(4096):
		connection.sendall(b"*1\r\n:99\r\n")


def closes(connection):
	connection.close()


def moves_for_ever(connection):
	read_hello(connection)
	connection.sendall(b"+OK\r\n")
	port = connection.getsockname()[1]
	n = 0
	while connection.recv(4096):
		n += 1
		connection.sendall(f"-MOVED {n % 16384} 127.0.0.1:{port}\r\n".encode())


def moves_to_metadata(connection):
	read_hello(connection)
	connection.sendall(b"+OK\r\n")
	while connection.recv(4096):
		connection.sendall(b"-MOVED 1 169.254.169.254:80\r\n")


@pytest.mark.parametrize("serve", [garbage, huge, deep, endless, trickle, silent, wrong_answers, closes, moves_for_ever,
	moves_to_metadata])
def test_hostile_servers_hold_nobody_up(gw, model, serve):
	with Scripted(serve) as server:
		before = gw.rss_kb()
		route = limited(gw, model, server.config)
		at = time.monotonic()
		assert spend(gw, route, 3) == [200, 200, 429]
		assert time.monotonic() - at < 15
		wait_until(lambda: phase(gw, route.attachment) == "Degraded", 20, "Degraded")
		assert gw.rss_kb() - before < 200 * 1024
		gw.delete(route.attachment)


def test_a_port_that_nobody_answers_at(gw, model):
	"""Connections wait in the queue of a listener that takes none."""
	with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
		config = {"serviceHost": "127.0.0.1", "servicePort": listener.getsockname()[1]}
		route = limited(gw, model, config)
		assert spend(gw, route, 3) == [200, 200, 429]
		wait_until(lambda: phase(gw, route.attachment) == "Degraded", 20, "Degraded")
