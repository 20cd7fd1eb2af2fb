"""Fallback on live traffic. A dead address is one where nobody listens: connections to it are refused at once."""
import hashlib
import os
import socket
import time

import pytest
from gw import Gateway, free_port, numbers
from policy_kit import check_error, is_enforced, phase, rest_api
from scripted import Scripted
from tries import HANG, Http1, RESET, Reply, metric, upstream
from wire import wait_until


def fallback(*destinations, **more):
	return {"fallBackDestination": [to if isinstance(to, dict) else {"serviceId": to.id} for to in destinations], "enable": True, **more}


@pytest.fixture(params=["h1", "h2"])
def protocol(request):
	return request.param


@pytest.fixture
def backup():
	with upstream("h1", Reply(200, b"backup")) as up:
		yield up


def dead(gw, **more):
	return gw.service([f"127.0.0.1:{free_port()}"], **more)


def empty(gw):
	"""No endpoint at all."""
	return gw.service([], ports=[{"name": "p", "port": 80, "protocol": "HTTP"}])


def place(gw, primary, *destinations, **more):
	path = f"/fallback-{next(numbers)}"
	route = gw.route(path, primary)
	gw.attach("Fallback", fallback(*destinations, **more), to=route)
	return path, route


# ---- examples of the contract ----

def test_ex1_no_endpoints(gw, protocol):
	with upstream(protocol, Reply(200, b"backup")) as up:
		service = up.service(gw)
		path, _ = place(gw, empty(gw), service)
		answer = gw.get(path)
		assert answer.status == 200 and answer.body == b"backup"
		record = gw.wait_record(path=path)
		assert record["flag"] == "FB" and record["service"] == service.name and record["upstream"] == up.address
		assert metric(gw, "sluice_upstream_fallbacks_total", service=service.name) == 1


def test_ex2_an_unhealthy_primary_recovers(gw, backup):
	port = free_port()
	check = {"enable": True, "protocol": "TCP", "interval": 1, "timeout": 1, "healthyThreshold": 1, "unhealthyThreshold": 1}
	primary = gw.service([f"127.0.0.1:{port}"], ports=[{"name": "p", "port": port, "protocol": "HTTP"}], healthCheckConfig=check)
	path, _ = place(gw, primary, backup.service(gw))
	wait_until(lambda: gw.events("endpoint.unhealthy") and gw.get(path).body == b"backup")
	from tries import Http1
	with Http1(Reply(200, b"primary"), address=("127.0.0.1", port)):
		wait_until(lambda: gw.get(path).body == b"primary", 10, "the primary's return")
		assert {gw.get(path).body for _ in range(5)} == {b"primary"}
	wait_until(lambda: gw.get(path).body == b"backup", 10, "the backup again")


def test_ex3_errors_of_the_primary_are_the_clients(gw, backup, protocol):
	for answer in (Reply(500), Reply(503), Reply(404)):
		with upstream(protocol, answer) as up:
			path, _ = place(gw, up.service(gw), backup.service(gw))
			assert gw.get(path).status == answer.status
	with upstream(protocol, RESET) as up:
		path, _ = place(gw, up.service(gw), backup.service(gw))
		assert gw.get(path).status == 503
	with upstream(protocol, HANG) as up:
		path, route = place(gw, up.service(gw), backup.service(gw))
		gw.attach("Timeout", {"unitNum": 0.2, "timeUnit": "s", "enable": True}, to=route)
		assert gw.get(path).status == 504
	assert not backup.hits


def test_ex4_refused_connections_and_a_body(gw, protocol):
	body = os.urandom(300_000)
	with upstream(protocol, Reply(200, b"backup")) as up:
		path, _ = place(gw, dead(gw), up.service(gw))
		answer = gw.request("POST", path, {"X-Mine": "1"}, body=body)
		assert answer.status == 200 and answer.body == b"backup"
		assert [(hit.method, hashlib.sha256(hit.body).digest(), hit.header("x-mine")) for hit in up.hits] == \
			[("POST", hashlib.sha256(body).digest(), "1")]
		assert gw.wait_record(path=path)["flag"] == "FB"


def test_ex4_a_body_beyond_all_buffers(gw, backend):
	path, _ = place(gw, dead(gw), gw.service(backend))
	body = os.urandom(6 << 20)
	assert gw.request("POST", f"{path}/echo", body=body).status == 200
	records = [record for record in backend.requests() if record.method == "POST"]
	assert [record.sha256 for record in records] == [hashlib.sha256(body).hexdigest()]


def test_ex5_the_second_one_when_the_first_is_empty_too(gw, backup):
	path, _ = place(gw, empty(gw), empty(gw), backup.service(gw))
	assert gw.get(path).body == b"backup"
	path, _ = place(gw, dead(gw), dead(gw), dead(gw), backup.service(gw))
	assert gw.get(path).body == b"backup"


def test_ex6_all_empty(gw):
	path, _ = place(gw, empty(gw), empty(gw), empty(gw))
	answer = gw.get(path)
	assert answer.status == 503 and answer.header("Retry-After") == "1"
	assert gw.wait_record(path=path)["flag"] == "UH"
	path, _ = place(gw, dead(gw), dead(gw), dead(gw))
	assert gw.get(path).status == 503
	assert gw.wait_record(path=path)["flag"] == "FB,UF"


def test_ex7_a_version_of_the_service(gw, backend):
	addresses = [{"address": backend.peers[0], "version": "v1"}, {"address": backend.peers[1], "version": "v2"}]
	service = gw.service([], addresses=addresses, versions=[{"name": "v1", "labels": {"a": "1"}}, {"name": "v2", "labels": {"a": "2"}}])
	path, _ = place(gw, empty(gw), {"serviceId": service.id, "serviceVersion": "v1"})
	for _ in range(6):
		assert gw.get(f"{path}/echo").status == 200
	assert {record.address for record in backend.requests()} == {backend.peers[0]}


@pytest.mark.parametrize("n", [1, 2])
def test_ex7_a_version_without_endpoints(gw, backend, backup, n):
	"""Also where the service has one endpoint only, of another version."""
	addresses = [{"address": address, "version": "v1"} for address in backend.peers[:n]]
	service = gw.service([], addresses=addresses, versions=[{"name": name, "labels": {"a": name}} for name in ("v1", "v2")])
	version = {"serviceId": service.id, "serviceVersion": "v2"}
	path, _ = place(gw, empty(gw), version, backup.service(gw))
	assert gw.get(path).body == b"backup"
	path, _ = place(gw, empty(gw), version)
	assert gw.get(path).status == 503
	path = f"/version-{next(numbers)}"
	gw.route(path, {"scene": "SingleService", "services": [{"serviceId": service.id, "version": "v2"}]})
	assert gw.get(path).status == 503
	assert not backend.requests()


def test_ex8_disabled_at_the_route_over_one_of_the_service(gw, backup):
	primary = empty(gw)
	path = f"/fallback-{next(numbers)}"
	route = gw.route(path, primary)
	gw.attach("Fallback", fallback(backup.service(gw)), to=primary)
	assert gw.get(path).body == b"backup"
	off = gw.attach("Fallback", fallback(backup.service(gw), enable=False), to=route)
	assert gw.get(path).status == 503
	gw.delete(off)
	assert gw.get(path).body == b"backup"


# ---- which policies act there ----

def test_the_route_beats_the_service(gw, backup):
	with upstream("h1", Reply(200, b"other")) as other:
		primary = empty(gw)
		path, _ = place(gw, primary, backup.service(gw))
		gw.attach("Fallback", fallback(other.service(gw)), to=primary)
		assert gw.get(path).body == b"backup"


def test_it_is_not_recursive(gw, backup):
	"""Neither the first nor a further destination of the fallback service's own list is used."""
	first = dead(gw)
	gw.attach("Fallback", fallback(backup.service(gw), backup.service(gw)), to=first)
	for primary in (empty(gw), dead(gw)):
		path, _ = place(gw, primary, first)
		assert gw.get(path).status == 503 and not backup.hits
		service = empty(gw)
		gw.attach("Fallback", fallback(first), to=service)
		path = f"/fallback-{next(numbers)}"
		gw.route(path, service)
		assert gw.get(path).status == 503 and not backup.hits


def test_shape_of_the_request_is_kept(gw, backup):
	path, route = place(gw, dead(gw), backup.service(gw))
	gw.attach("HeaderModify", {"headerOpItems": [{"directionType": "Request", "opType": "Add", "key": "X-Shaped", "value": "once",
		"policyValueGenerateMode": "Custom"}], "enable": True}, to=route)
	assert gw.request("PUT", f"{path}/a?b=c", body=b"x").body == b"backup"
	hit, = backup.hits
	assert (hit.method, hit.path, hit.body, hit.header("x-shaped")) == ("PUT", f"{path}/a?b=c", b"x", "once")


def test_settings_of_the_fallback_service_act(gw):
	"""Timeout, Retry and RateLimit are those of the service that is used, and the primary's do not count."""
	with upstream("h1", Reply(503), Reply(200, b"backup"), Reply(200, delay=5)) as up:
		primary, second = dead(gw), up.service(gw)
		limit = {"threshold": 2, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429, "enable": True}
		gw.attach("Timeout", {"unitNum": 60, "timeUnit": "s", "enable": True}, to=primary)
		gw.attach("Timeout", {"unitNum": 0.3, "timeUnit": "s", "enable": True}, to=second)
		# What was tried at the primary does not use up the retries of the second.
		gw.attach("Retry", {"attempts": 1, "retryOn": ["connect-failure"], "enable": True}, to=primary)
		gw.attach("Retry", {"attempts": 1, "retryOn": ["5xx"], "enable": True}, to=second)
		gw.attach("RateLimit", limit, to=second)
		path, _ = place(gw, primary, second)
		assert gw.get(path).body == b"backup" and len(up.hits) == 2
		assert gw.get(path).status == 504
		assert [gw.get(path).status for _ in range(3)].count(429) >= 1


def test_retries_come_first(gw, backup):
	primary = dead(gw)
	path, route = place(gw, primary, backup.service(gw))
	gw.attach("Retry", {"attempts": 2, "retryOn": ["connect-failure"], "enable": True}, to=route)
	assert gw.get(path).body == b"backup"
	record = gw.wait_record(path=path)
	assert record["flag"] == "FB" and record["attempts"] == 4


def test_a_try_that_had_a_connection_rules_it_out(gw, backup):
	"""One endpoint resets, the other refuses connections: the request may have been processed."""
	with upstream("h1", RESET) as up:
		primary = gw.service([up.address, f"127.0.0.5:{up.port}"], ports=[{"name": "p", "port": up.port, "protocol": "HTTP"}])
		path, route = place(gw, primary, backup.service(gw))
		gw.attach("Retry", {"attempts": 5, "retryOn": ["connect-failure", "reset"], "enable": True}, to=route)
		assert gw.get(path).status == 503
		assert not backup.hits


def test_an_answer_rules_it_out(gw, backup):
	"""The only endpoint answers 503 and is gone: the retry finds nobody, but the request was processed."""
	class Leaving(Http1):
		def hit(self, *what):
			self.listener.shutdown(socket.SHUT_RDWR)
			self.listener.close()
			return super().hit(*what)

	with Leaving(Reply(503, fields=[("Connection", "close")])) as up:
		path, route = place(gw, up.service(gw), backup.service(gw))
		gw.attach("Retry", {"attempts": 1, "retryOn": ["5xx"], "enable": True}, to=route)
		assert gw.get(path).status == 503
		assert len(up.hits) == 1 and not backup.hits


def test_weighted_services_are_judged_one_by_one(gw, backup):
	with upstream("h1", Reply(200, b"primary")) as up:
		path, _ = place(gw, [(up.service(gw), 50), (empty(gw), 50)], backup.service(gw))
		answers = [gw.get(path).body for _ in range(60)]
		assert answers.count(b"primary") > 5 and answers.count(b"backup") > 5 and set(answers) == {b"primary", b"backup"}


def test_breaker_of_the_primary_hears_of_it(gw, backup):
	primary = dead(gw)
	second = backup.service(gw)
	breaker = {"strategy": 1, "triggerRatio": 50, "minRequestAmount": 3, "statDurationSec": 60, "recoveryTimeoutSec": 60,
		"behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429, "enable": True}
	gw.attach("CircuitBreaker", breaker, to=primary)
	gw.attach("CircuitBreaker", breaker, to=second)
	path, _ = place(gw, primary, second)
	assert [gw.get(path).status for _ in range(5)] == [200, 200, 200, 429, 429]
	wait_until(lambda: len(gw.records(path=path)) == 5)
	# An open breaker is no trigger; that of the fallback service has seen good answers only.
	other, _ = place(gw, dead(gw), second)
	assert {gw.get(other).body for _ in range(3)} == {b"backup"}


def test_an_ejected_primary(gw, backup):
	"""No health check, but outlier detection takes the only endpoint out: no more connections are tried."""
	primary = dead(gw, outlierDetectionConfig={"enable": True, "consecutive5xx": 2, "interval": 10, "baseEjectionTime": 60,
		"maxEjectionPercent": 100})
	path, _ = place(gw, primary, backup.service(gw))
	assert {gw.get(path).body for _ in range(6)} == {b"backup"}
	wait_until(lambda: len(gw.records(path=path)) == 6)
	assert gw.records(path=path)[-1]["attempts"] == 1


def test_of_an_operation(gw, backup):
	api = rest_api(gw, empty(gw))
	operation = api.operation("GET", "/a")
	attachment = gw.attach("Fallback", fallback(backup.service(gw)), to=operation)
	assert phase(gw, attachment) == "Active"
	assert gw.get(f"{api.base}/a").body == b"backup"


def test_of_a_tcp_gateway():
	def talk(connection):
		connection.send(b"backup")
		connection.wait = connection.fill()

	with Gateway() as gw, Scripted(talk) as server:
		site = gw.gateway(protocol="TCP")
		primary = gw.service([f"127.0.0.1:{free_port()}"], site=site)
		route = gw.route("/", primary, site=site)
		gw.attach("Fallback", fallback(gw.service(server.port, site=site)), to=route)
		with gw.connect(site) as connection:
			assert connection.take(6) == b"backup"


def test_nothing_is_added_to_the_answer(gw, backup):
	path, _ = place(gw, dead(gw), backup.service(gw))
	through = gw.get(path)
	direct_path = f"/fallback-{next(numbers)}"
	gw.route(direct_path, backup.service(gw))
	direct = gw.get(direct_path)
	names = [name.lower() for name, _ in through.headers]
	assert names == [name.lower() for name, _ in direct.headers]


# ---- rejects ----

def refuse(gw, config, to, field):
	policy = gw.policy("Fallback", config)
	answer = gw.api("POST", "/api/v1/policy-attachments", {"attachResourceId": to.id, "attachResourceType": to.type, "gatewayId": to.gateway,
		"policyId": policy.id, **({"environmentId": to.environment} if to.environment else {})})
	check_error(answer, 400, "ErrInvalidParameter", field)


@pytest.mark.parametrize("destinations, field", [
	([], "config.fallBackDestination"), ([{"serviceId": ""}], "config.fallBackDestination[0].serviceId"),
	([{"serviceId": "s"}] * 11, "config.fallBackDestination"), ([{}], "config.fallBackDestination[0].serviceId"),
	([{"serviceId": "s", "port": "0"}], "config.fallBackDestination[0].port"),
	([{"serviceId": "s"}, {"serviceId": "s", "port": "http"}], "config.fallBackDestination[1].port"),
	([{"serviceId": "s", "port": 80}], "config.fallBackDestination[0].port"),
])
def test_rejects(gw, destinations, field):
	import json
	answer = gw.api("POST", "/api/v2/policies", {"name": "f", "className": "Fallback",
		"config": json.dumps({"fallBackDestination": destinations, "enable": True})})
	check_error(answer, 400, "ErrInvalidParameter", field)


def test_rejects_at_attach(gw, backup):
	service = backup.service(gw)
	several = gw.service(["127.0.0.1:1001", "127.0.0.1:1002"])
	route = gw.route(f"/fallback-{next(numbers)}", service)
	refuse(gw, fallback({"serviceId": "svc-unknown"}), route, "config.fallBackDestination[0].serviceId")
	refuse(gw, fallback(service), route, "config.fallBackDestination[0].serviceId")
	refuse(gw, fallback(service), service, "config.fallBackDestination[0].serviceId")
	refuse(gw, fallback({"serviceId": several.id}), route, "config.fallBackDestination[0].port")
	refuse(gw, fallback({"serviceId": several.id, "port": "1003"}), route, "config.fallBackDestination[0].port")
	refuse(gw, fallback({"serviceId": several.id, "port": "1001", "serviceVersion": "v9"}), route,
		"config.fallBackDestination[0].serviceVersion")
	refuse(gw, fallback({"serviceId": several.id, "port": "1001", "serviceName": "other"}), route,
		"config.fallBackDestination[0].serviceName")
	gw.attach("Fallback", fallback({"serviceId": several.id, "port": "1001", "serviceName": several.name}), to=route)


def test_is_enforced(gw):
	assert is_enforced(gw, "Fallback")


class Swallowing:
	"""A port whose queue of connections is full: who connects gets no answer."""

	def __enter__(self):
		self.listener = socket.socket()
		self.listener.bind(("127.0.0.1", 0))
		self.listener.listen(0)
		self.port = self.listener.getsockname()[1]
		self.waiting = []
		while not self.waiting or self.waiting[-1].connect_ex(self.listener.getsockname()) == 0:
			self.waiting.append(socket.socket())
			self.waiting[-1].settimeout(0.3)
		return self

	def __exit__(self, *_):
		for one in (*self.waiting, self.listener):
			one.close()


def test_the_routes_timeout_goes_on_at_the_fallback():
	"""What the primary took of it is gone."""
	with Gateway(connect_timeout_ms=2000) as gw, Swallowing() as primary, upstream("h1", HANG) as up:
		path, route = place(gw, gw.service([f"127.0.0.1:{primary.port}"]), up.service(gw))
		gw.attach("Timeout", {"unitNum": 3, "timeUnit": "s", "enable": True}, to=route)
		start = time.monotonic()
		assert gw.get(path).status == 504
		assert 2.9 < time.monotonic() - start < 4.8
		assert len(up.hits) == 1 and up.hits[0].at - start > 1.9


def test_trap_a_primary_that_never_answers_connections():
	"""A host that swallows connections is no endpoint either, once connecting took too long."""
	with Gateway(connect_timeout_ms=300) as gw, upstream("h1", Reply(200, b"backup")) as up:
		path, _ = place(gw, gw.service(["192.0.2.1:9"]), up.service(gw))
		start = time.monotonic()
		assert gw.request("POST", path, body=b"once").body == b"backup"
		assert time.monotonic() - start < 5
		assert [hit.body for hit in up.hits] == [b"once"]
