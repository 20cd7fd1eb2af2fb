"""FlowCopy on live traffic: the examples, rejects and traps of its contract. test_ex<n> are the contract's examples."""
import hashlib
import json
import os
import threading
import time

import pytest
from gw import Gateway, free_port, numbers, wait_millis
from h2wire import H2
from pki import Authority
from policy_kit import Told, direct, headers, op, outcomes, rate, raw_get
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame
from side_services import SideService, plain
from tls_backends import server_context
from wire import wait_until

MANY = 10000 if os.environ.get("SLUICE_TEST_FULL") else 2000


@pytest.fixture
def shadow():
	with SideService() as service:
		yield service


def copied(gw, target, copies, site=None, **more):
	"""A new route to `target` whose requests are copied to `copies`: its path."""
	base = f"/copy-{next(numbers)}"
	copied.route = gw.route(base, target, site=site)
	copied.service = gw.service(copies if isinstance(copies, str) else copies.address, site=site)
	copied.attachment = gw.attach("FlowCopy", {"targetServiceId": copied.service.id, **more}, to=copied.route)
	return base


def wait_asked(service, n, seconds=10):
	wait_until(lambda: len(service.asked) >= n, seconds, f"{n} copies, there are {len(service.asked)}")
	assert len(service.asked) == n


def settled(gw):
	"""All copies under way have ended: what has not come by now never comes."""
	wait_until(lambda: in_flight(gw) == 0, 60, "the end of the copies")


def in_flight(gw):
	text = raw_get(gw, "/metrics")[1]
	return int(next(line.rsplit(" ", 1)[1] for line in text.split("\n") if line.startswith('sluice_side_calls_in_flight{kind="copy"}')))


def counted(gw, outcome):
	return outcomes(gw, copied.attachment).get((copied.route.name, outcome), 0)


def abandoned(gw):
	text = raw_get(gw, "/metrics")[1]
	return sum(int(line.rsplit(" ", 1)[1]) for line in text.split("\n") if line.startswith("sluice_retry_or_shadow_abandoned_total{"))


# ---- examples of the contract ----

def test_ex1_all_requests_are_copied(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	bodies = [os.urandom(i * 1000) for i in range(50)]
	for i, body in enumerate(bodies):
		assert gw.request("POST", f"{base}/{i}?n={i}", {"Host": "x", "X-Request-Id": f"id-{i}"}, body).status == 200
	wait_asked(shadow, 50)
	seen = {request.target: request for request in shadow.asked}
	for i, body in enumerate(bodies):
		copy = seen[f"{base}/{i}?n={i}"]
		assert copy.method == "POST"
		assert copy.header("Host") == "x-shadow"
		assert copy.header("X-Request-Id") == f"id-{i}"
		assert hashlib.sha256(copy.body).digest() == hashlib.sha256(body).digest()
	assert len(backend.requests()) == 50
	assert counted(gw, "copied") == 50


def test_ex2_a_share_is_copied(gw, backend):
	base = copied(gw, backend, backend.addresses[1], percentage=10)
	with gw.connect() as connection:
		for _ in range(MANY):
			assert connection.get(f"{base}/size/1").status == 200
	share = counted(gw, "copied") / MANY
	margin = 0.015 if MANY == 10000 else 0.035    # five standard deviations
	assert 0.1 - margin < share < 0.1 + margin


@pytest.mark.parametrize("kind", ["sleeps", "down", "resets", "never reads", "garbage", "endless"])
def test_ex3_the_target_cannot_be_felt(gw, backend, kind):
	gate = threading.Event()

	def script(connection):
		if kind == "never reads":
			gate.wait(30)
			return
		connection.take_until(b"\r\n\r\n")
		if kind == "sleeps":
			gate.wait(30)
		elif kind == "resets":
			connection.reset()
		elif kind == "garbage":
			connection.send(b"garbage\r\n\r\n")
		elif kind == "endless":
			connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			while not gate.is_set():
				connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

	with Scripted(script) as target:
		port = free_port() if kind == "down" else target.port
		base = copied(gw, backend, f"127.0.0.1:{port}")
		plain_base = f"/plain-{next(numbers)}"
		gw.route(plain_base, backend)

		def measure(path, n=60):
			times = []
			with gw.connect() as connection:
				for _ in range(n):
					begin = time.monotonic()
					answer = connection.request("POST", f"{path}/size/10", body=b"b" * 20000)
					times.append(time.monotonic() - begin)
					assert (answer.status, len(answer.body)) == (200, 10)
			return sorted(times)

		try:
			alone = measure(plain_base)
			with_copies = measure(base)
			# The machine is noisy: what must not be there is the target's time.
			assert with_copies[-2] < max(1.0, 5 * alone[-2]), (alone[-3:], with_copies[-3:])
			assert counted(gw, "copied") == 60
		finally:
			gate.set()


def test_ex4_a_body_that_is_too_long_is_not_copied(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	before = abandoned(gw)
	body = os.urandom(5 << 20)
	for _ in range(2):
		assert gw.request("POST", base, body=body).status == 200
	assert backend.last().sha256 == hashlib.sha256(body).hexdigest()
	wait_until(lambda: abandoned(gw) == before + 2, 5, "two abandoned bodies")
	assert counted(gw, "abandoned") == 2
	records = lambda: [one for one in gw.events("flow_copy.abandoned") if one["resourceId"] == copied.route.id]
	wait_until(records, 5, "the record")
	settled(gw)
	assert len(records()) == 1    # said once for each route
	assert shadow.asked == []


def test_ex5_a_refused_request_is_not_copied(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	gw.attach("RateLimit", rate(1), to=copied.route)
	assert [gw.get(base).status for _ in range(3)] == [200, 429, 429]
	wait_asked(shadow, 1)


def test_ex6_retries_are_one_copy(gw, shadow):
	with Told(status=503) as upstream:
		base = copied(gw, upstream.port, shadow)
		gw.attach("Retry", {"attempts": 3, "retryOn": ["5xx"], "httpCodes": ["503"], "enable": True}, to=copied.route)
		assert gw.get(base).status == 503
		assert upstream.hits == 4
		wait_asked(shadow, 1)
		settled(gw)
		assert len(shadow.asked) == 1


def test_ex7_the_copy_is_made_after_rewrite_and_header_edits(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	gw.attach("HttpRewrite", {"pathType": "Exact", "path": "/new/path", "host": "inner.example.com", "enable": True}, to=copied.route)
	gw.attach("HeaderModify", headers(op("Request", "Add", "X-Added", "yes"), op("Request", "Remove", "X-Gone")), to=copied.route)
	gw.get(f"{base}/old?q=1", {"X-Gone": "here", "Authorization": "Bearer t"})
	wait_asked(shadow, 1)
	copy, sent = shadow.last, backend.last()
	assert copy.target == sent.target == "/new/path?q=1"
	assert copy.header("Host") == "inner.example.com-shadow"
	assert copy.header("X-Added") == "yes"
	assert copy.header("X-Gone") is None
	assert copy.header("Authorization") == "Bearer t"    # credentials are copied
	ours = {name.lower(): value for name, value in copy.headers}
	theirs = {name.lower(): value for name, value in sent.headers}
	assert {**ours, "host": ""} == {**theirs, "host": ""}


def test_ex8_percentage_is_100_unless_said(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	for _ in range(20):
		gw.get(base)
	wait_asked(shadow, 20)
	status, answer, _ = gw.api("POST", "/api/v2/policies", {"name": "p", "className": "FlowCopy",
		"config": json.dumps({"targetServiceId": copied.service.id, "percentage": 0, "enable": True})})
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	assert answer["errorMessage"].startswith("Invalid parameter: config.percentage")


# ---- rejects ----

@pytest.mark.parametrize("change, field", [
	({"percentage": 0}, "percentage"), ({"percentage": 101}, "percentage"), ({"percentage": -1}, "percentage"),
	({"percentage": 0.5}, "percentage"), ({"percentage": "10"}, "percentage"), ({"targetServiceId": None}, "targetServiceId"),
	({"targetServiceId": ""}, "targetServiceId"), ({"port": 8080}, "port"), ({"port": "http"}, "port"), ({"enable": None}, "enable"),
	({"precentage": 5}, "precentage"),
])
def test_rejects(gw, change, field):
	body = {"targetServiceId": "svc-x", "percentage": 10, "enable": True, **change}
	body = {name: value for name, value in body.items() if value is not None}
	status, answer, _ = gw.api("POST", "/api/v2/policies", {"name": "p", "className": "FlowCopy", "config": json.dumps(body)})
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	assert answer["errorMessage"].startswith(f"Invalid parameter: config.{field}"), answer


def try_attach(gw, config, to):
	policy = gw.policy("FlowCopy", config)
	return gw.api("POST", "/api/v1/policy-attachments", {"policyId": policy.id, "attachResourceId": to.id, "attachResourceType": to.type,
		"gatewayId": to.gateway, **({"environmentId": to.environment} if to.environment and to.type != "Gateway" else {})})


def test_rejects_at_attach(gw, backend):
	route = gw.route(f"/rejects-{next(numbers)}", backend)
	two = gw.service(backend, ports=[{"name": "h", "port": 8001, "protocol": "HTTP"}, {"name": "t", "port": 8002, "protocol": "TCP"}])
	grpc = gw.service(backend, ports=[{"name": "g", "port": backend.port, "protocol": "GRPC"}])
	far = gw.service(backend, site=gw.gateway())
	for config, field in (({"targetServiceId": "svc-nope"}, "targetServiceId"), ({"targetServiceId": grpc.id}, "targetServiceId"),
		({"targetServiceId": far.id}, "targetServiceId"), ({"targetServiceId": two.id}, "port"),
		({"targetServiceId": two.id, "port": "8002"}, "targetServiceId"), ({"targetServiceId": two.id, "port": "9999"}, "port")):
		status, answer, _ = try_attach(gw, config, route)
		assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter"), config
		assert answer["errorMessage"].startswith(f"Invalid parameter: config.{field}"), (config, answer)
	for other in (gw.default, gw.domain(f"copy-{next(numbers)}.example.com"), gw.service(backend)):
		status, answer, _ = try_attach(gw, {"targetServiceId": gw.service(backend).id}, other)
		assert status == 400
		assert answer["errorMessage"].startswith("Invalid parameter: attachResourceType"), answer


def test_the_routes_own_service_may_be_the_target(gw, backend):
	base = f"/double-{next(numbers)}"
	service = gw.service(backend)
	route = gw.route(base, service)
	gw.attach("FlowCopy", {"targetServiceId": service.id}, to=route)
	assert gw.get(base, {"Host": "x"}).status == 200
	wait_until(lambda: len(backend.requests()) == 2, 10, "request and copy")
	assert sorted(one.header("Host") for one in backend.requests()) == ["x", "x-shadow"]


# ---- what is copied ----

@pytest.mark.parametrize("host, expected", [("a.com", "a.com-shadow"), ("a.com:8080", "a.com-shadow:8080"), ("10.0.0.1:80", "10.0.0.1-shadow:80"),
	("[::1]", "[::1]-shadow"), ("[2001:db8::1]:8080", "[2001:db8::1]-shadow:8080")])
def test_host_gets_a_suffix_before_the_port(gw, backend, shadow, host, expected):
	base = copied(gw, backend, shadow)
	gw.get(base, {"Host": host})
	wait_asked(shadow, 1)
	assert shadow.last.header("Host") == expected
	assert backend.last().header("Host") == host


def test_chunked_bodies_and_expect(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	with gw.connect() as connection:
		connection.send(f"POST {base} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		assert connection.read_head().status == 100
		connection.send(b"3\r\nabc\r\n")
		connection.send(b"4\r\ndefg\r\n0\r\n\r\n")
		assert connection.read_response().status == 200
	wait_asked(shadow, 1)
	assert shadow.last.body == b"abcdefg"
	assert shadow.last.header("Expect") is None


@pytest.mark.parametrize("size", [0, 1, 4096, 65536, 1 << 20])
def test_bodies_up_to_a_mebibyte_are_the_same(gw, backend, shadow, size):
	base = copied(gw, backend, shadow)
	body = os.urandom(size)
	assert gw.request("PUT", base, body=body).status == 200
	wait_asked(shadow, 1)
	assert shadow.last.body == body
	assert shadow.last.header("Content-Length") == str(size)


def test_the_limit_is_a_setting_of_the_gateway(gw, backend, shadow):
	site = gw.gateway()
	gw.feature("retryBufferBytes", 1000, site=site)
	base = copied(gw, backend, shadow, site=site)
	assert gw.request("POST", base, body=b"x" * 1001, site=site).status == 200
	assert gw.request("POST", base, body=b"x" * 1000, site=site).status == 200
	wait_asked(shadow, 1)
	assert len(shadow.last.body) == 1000


def test_http2_requests_are_copied(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	with H2(gw.port) as connection:
		answer = connection.request(path=f"{base}/x?y=1", method="POST", body=b"over h2", more=[("x-mine", "1")])
		assert answer.status == 200
	wait_asked(shadow, 1)
	copy = shadow.last
	assert (copy.method, copy.target, copy.body, copy.version) == ("POST", f"{base}/x?y=1", b"over h2", "HTTP/1.1")
	assert copy.header("Host") == "gw.test-shadow"
	assert copy.header("x-mine") == "1"


def test_the_answer_of_the_copy_is_dropped(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	shadow.answer = plain(500, [("Set-Cookie", "shadow=1")], b"x" * 300_000)
	for _ in range(10):
		answer = gw.get(f"{base}/size/2")
		assert (answer.status, len(answer.body), answer.all("Set-Cookie")) == (200, 2, [])
		settled(gw)
	assert len(shadow.asked) == 10
	assert shadow.opened == 1    # it is read to its end, so that the connection can be kept


# ---- what is not ----

def test_the_cookie_of_the_targets_balancing_is_not_the_clients(gw, backend, shadow):
	"""ServiceLb of the target places the copy; what it would tell its own clients stays unsaid, and the primary's is said."""
	def sticky(name):
		return {"loadBalancerType": "CONSISTENT_HASH",
			"consistentHashLBConfig": {"consistentHashLBType": "COOKIE", "httpCookie": {"name": name, "ttl": "60"}}}

	base = copied(gw, backend, shadow)
	gw.attach("ServiceLb", sticky("copy"), to=copied.service)
	assert gw.get(base).all("Set-Cookie") == []
	primary = gw.service(backend)
	gw.attach("ServiceLb", sticky("own"), to=primary)
	base = f"/copy-{next(numbers)}"
	route = gw.route(base, primary)
	gw.attach("FlowCopy", {"targetServiceId": copied.service.id}, to=route)
	assert [value.split("=")[0] for value in gw.get(base).all("Set-Cookie")] == ["own"]
	wait_asked(shadow, 2)


def test_answers_of_the_gateway_are_not_copied(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	attachment = gw.attach("DirectResponse", direct(), to=copied.route)
	assert gw.get(base).text == "direct"
	gw.delete(attachment)
	gw.attach("Cors", {"allowOrigins": "*", "allowMethods": ["GET"], "allowHeaders": "*", "timeUnit": "s", "unitNum": 10,
		"allowCredentials": False, "exposeHeaders": "", "enable": True}, to=copied.route)
	gw.request("OPTIONS", base, {"Origin": "https://a.com", "Access-Control-Request-Method": "GET"})
	assert gw.get(base).status == 200
	wait_asked(shadow, 1)
	assert shadow.last.method == "GET"


def test_requests_without_an_upstream_are_not_copied(gw, shadow):
	base = copied(gw, None, shadow)
	assert gw.get(base).status == 503
	settled(gw)
	assert shadow.asked == []


def test_upgrades_are_not_copied(gw, shadow):
	with Scripted(echo_frames) as upstream:
		base = copied(gw, upstream.port, shadow)
		with gw.connect() as connection:
			connection.start("GET", base, UPGRADE)
			assert connection.read_head().status == 101
			connection.send(frame(b"hello", mask=True))
			assert read_frame(connection)[1] == b"hello"
	settled(gw)
	assert shadow.asked == []


def test_a_client_that_leaves_within_its_body_is_not_copied(gw, backend, shadow):
	base = copied(gw, backend, shadow)
	with gw.connect() as connection:
		connection.send(f"POST {base} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n" + "x" * 5000)
		wait_until(lambda: backend.stats()["open"] > 0, 5)
		connection.reset()
	gw.wait_record(path=base)
	assert gw.get(base).status == 200
	wait_asked(shadow, 1)
	assert shadow.last.method == "GET"


def test_a_disabled_policy_copies_nothing(gw, backend, shadow):
	base = copied(gw, backend, shadow, enable=False)
	assert gw.get(base).status == 200
	settled(gw)
	assert shadow.asked == []


# ---- isolation ----

def test_copies_at_a_time_are_limited(gw, backend):
	gate = threading.Event()
	with SideService(lambda request, connection: gate.wait(60) and plain()) as shadow:
		base = copied(gw, backend, shadow)
		connections = [gw.connect() for _ in range(8)]
		try:
			for _ in range(40):
				for connection in connections:
					connection.start("GET", base)
				assert all(connection.read_response().status == 200 for connection in connections)
			assert in_flight(gw) == 256
			assert counted(gw, "copied") == 256
			assert counted(gw, "dropped") == 40 * 8 - 256
			gate.set()
			settled(gw)
			assert gw.get(base).status == 200
			wait_until(lambda: counted(gw, "copied") == 257, 5, "one more copy")
		finally:
			gate.set()
			for connection in connections:
				connection.close()


def test_the_primarys_connections_are_not_the_copies(gw, backend):
	"""Even where the target is the route's own service: the upstream sees copies on connections of their own."""
	service = gw.service(backend)
	base = f"/apart-{next(numbers)}"
	route = gw.route(base, service)
	gw.attach("FlowCopy", {"targetServiceId": service.id}, to=route)
	for _ in range(10):
		assert gw.get(base, {"Host": "x"}).status == 200
		settled(gw)
	by_connection = {}
	for record in backend.requests():
		by_connection.setdefault(record.connection, set()).add(record.header("Host"))
	assert all(len(hosts) == 1 for hosts in by_connection.values()), by_connection


def test_a_copy_ends_with_the_routes_timeout(gw, backend):
	gate = threading.Event()
	with SideService(lambda request, connection: gate.wait(60) and plain()) as shadow:
		base = copied(gw, backend, shadow)
		gw.attach("Timeout", {"unitNum": 1, "timeUnit": "s", "enable": True}, to=copied.route)
		begin = time.monotonic()
		assert gw.get(base).status == 200
		assert in_flight(gw) == 1
		settled(gw)
		assert time.monotonic() - begin < 20
		gate.set()


def test_a_target_that_is_gone_or_down_is_counted(gw, backend):
	base = copied(gw, backend, f"127.0.0.1:{free_port()}")
	assert gw.get(base).status == 200
	settled(gw)
	assert counted(gw, "copied") == 1
	sick = gw.service(f"127.0.0.1:{free_port()}", healthCheckConfig={"enable": True, "protocol": "TCP", "interval": 1, "timeout": 1,
		"healthyThreshold": 1, "unhealthyThreshold": 1})
	copied.route = gw.route(f"{base}-sick", backend)
	copied.attachment = gw.attach("FlowCopy", {"targetServiceId": sick.id}, to=copied.route)

	def is_seen():
		assert gw.get(f"{base}-sick").status == 200
		return counted(gw, "no_target") > 0
	wait_until(is_seen, 20, "a target without an endpoint")


def test_a_service_of_several_ports(gw, backend, shadow):
	service = gw.service("127.0.0.1", ports=[{"name": "a", "port": shadow.port, "protocol": "HTTP"},
		{"name": "b", "port": backend.port, "protocol": "HTTP"}])
	base = f"/ports-{next(numbers)}"
	route = gw.route(base, backend)
	gw.attach("FlowCopy", {"targetServiceId": service.id, "port": str(shadow.port)}, to=route)
	for _ in range(6):
		assert gw.get(base).status == 200
	wait_asked(shadow, 6)


def test_a_target_behind_tls(backend_process):
	"""The certificate is that of the host the client asked for; the suffix is no name of anybody."""
	ca = Authority("System CA")
	with Gateway(environment={"SSL_CERT_FILE": ca.file}) as gw, \
		SideService(context=server_context(ca.issue("shop.example.com"))) as shadow:
		service = gw.service(shadow.address, ports=[{"name": "s", "port": shadow.port, "protocol": "HTTPS"}])
		base = f"/tls-{next(numbers)}"
		route = gw.route(base, backend_process)
		gw.attach("FlowCopy", {"targetServiceId": service.id}, to=route)
		for _ in range(3):
			assert gw.request("POST", base, {"Host": "shop.example.com"}, b"body").status == 200
			settled(gw)
		assert [one.header("Host") for one in shadow.asked] == ["shop.example.com-shadow"] * 3
		assert shadow.last.body == b"body"
		assert shadow.opened == 1
		assert gw.request("POST", base, {"Host": "other.example.com"}, b"body").status == 200
		settled(gw)
		assert len(shadow.asked) == 3


def test_changes_while_copies_are_under_way(gw, backend):
	gate = threading.Event()
	with SideService(lambda request, connection: gate.wait(60) and plain()) as shadow:
		base = copied(gw, backend, shadow)
		for _ in range(5):
			assert gw.get(base).status == 200
		wait_until(lambda: len(shadow.asked) == 5, 10, "five copies")
		gw.delete(copied.attachment)
		gw.delete(copied.route)
		gw.delete(copied.service)
		wait_millis(50)
		gate.set()
		settled(gw)


def test_shutdown_does_not_wait_for_copies(backend_process):
	gate = threading.Event()
	with SideService(lambda request, connection: gate.wait(60) and plain()) as shadow:
		with Gateway() as gw:
			base = copied(gw, backend_process, shadow)
			for _ in range(5):
				assert gw.request("POST", base, body=b"x" * 100_000).status == 200
			wait_until(lambda: len(shadow.asked) == 5, 10, "five copies")
			begin = time.monotonic()
			gw.stop()
			assert time.monotonic() - begin < 5
		gate.set()
