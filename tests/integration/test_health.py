"""Endpoints that fail go out of rotation and come back: active checks and passive ejection."""
import time

import pytest
from backends import Backend
from gw import free_port
from wire import wait_until


@pytest.fixture
def site(gw):
	return gw.gateway()


def ports_used(gw, site, path, n=20):
	"""Which upstream ports answered n requests; an error stands as its status."""
	answers = [gw.get(path, site=site) for _ in range(n)]
	return {answer.json["port"] if answer.status == 200 else answer.status for answer in answers}


def check(protocol="TCP", **more):
	return {"enable": True, "protocol": protocol, "interval": 1, "timeout": 1, "healthyThreshold": 1, "unhealthyThreshold": 1, **more}


def test_tcp_check_takes_a_dead_endpoint_out_and_back(gw, site, backend):
	port = free_port()
	gw.route("/", gw.service([backend.address, f"127.0.0.1:{port}"], site, healthCheckConfig=check()), site=site)
	wait_until(lambda: ports_used(gw, site, "/echo") == {backend.port}, 6, "the dead endpoint out of rotation")
	assert ports_used(gw, site, "/echo", 50) == {backend.port}
	with Backend() as revived:
		# The same port cannot be asked for; a new endpoint stands for the recovered one.
		gw.route("/second", gw.service([backend.address, revived.address], site, healthCheckConfig=check()), site=site)
		wait_until(lambda: ports_used(gw, site, "/second/echo") == {backend.port, revived.port}, 6, "both in rotation")
	wait_until(lambda: ports_used(gw, site, "/second/echo") == {backend.port}, 6, "the stopped one out of rotation")


def test_http_check_judges_the_status(gw, site, backend):
	"""The paths of the two services are the same, so that their endpoints' answers differ by service."""
	good = gw.service(backend.addresses[:1], site, healthCheckConfig=check("HTTP", httpPath="/status/200", httpHost="check.test"))
	bad = gw.service(backend.addresses[1:2], site, healthCheckConfig=check("HTTP", httpPath="/status/500", httpHost="check.test"))
	gw.route("/good", good, site=site)
	gw.route("/bad", bad, site=site)
	wait_until(lambda: gw.get("/bad/echo", site=site).status == 503, 6, "the unhealthy endpoint out of rotation")
	assert gw.get("/good/echo", site=site).status == 200
	checks = [record for record in backend.requests() if record.target.startswith("/status/")]
	assert {record.header("Host") for record in checks} == {"check.test"}
	assert all(record.method == "GET" for record in checks)


def test_http_check_times_out(gw, site, backend):
	gw.route("/", gw.service([backend.address], site, healthCheckConfig=check("HTTP", httpPath="/hang")), site=site)
	wait_until(lambda: gw.get("/echo", site=site).status == 503, 8, "the silent endpoint out of rotation")


def test_removed_endpoint_is_checked_no_more(gw, site, backend):
	service = gw.service(backend.addresses[:2], site, healthCheckConfig=check("HTTP", httpPath="/status/200"))
	gw.route("/", service, site=site)
	wait_until(lambda: {record.port for record in backend.requests()} == set(backend.ports[:2]), 6, "checks of both")
	item = gw.ask("GET", service.path)
	gw.ask("PUT", service.path, {**item, "addresses": [backend.addresses[0]],
		"ports": [port for port in item.get("ports", []) if port["port"] != backend.ports[1]]})
	backend.clear()
	wait_until(lambda: len([r for r in backend.requests() if r.port == backend.ports[0]]) >= 2, 6, "two more checks")
	assert not [record for record in backend.requests() if record.port == backend.ports[1]]


def test_check_can_be_switched_off(gw, site, backend):
	service = gw.service([backend.address], site, healthCheckConfig=check("HTTP", httpPath="/status/500"))
	gw.route("/", service, site=site)
	wait_until(lambda: gw.get("/echo", site=site).status == 503, 6, "out of rotation")
	item = gw.ask("GET", service.path)
	gw.ask("PUT", service.path, {**item, "healthCheckConfig": {**item["healthCheckConfig"], "enable": False}})
	assert gw.get("/echo", site=site).status == 200


def ejection(**more):
	return {"enable": True, "consecutive5xx": 3, "interval": 1, "baseEjectionTime": 1, "maxEjectionPercent": 50, **more}


def test_consecutive_errors_eject_an_endpoint_for_a_while(gw, site, backend):
	port = free_port()
	gw.route("/", gw.service([backend.address, f"127.0.0.1:{port}"], site, outlierDetectionConfig=ejection()), site=site)
	first = [gw.get("/echo", site=site).status for _ in range(10)]
	assert first.count(503) == 3, "it is out after three in a row"
	assert ports_used(gw, site, "/echo", 10) == {backend.port}
	time.sleep(1.2)    # the ejection time itself is what is tested
	assert 503 in [gw.get("/echo", site=site).status for _ in range(4)], "it is back and tried again"


def test_answers_with_5xx_count(gw, site, backend):
	gw.route("/", gw.service(backend.addresses[:2], site, outlierDetectionConfig=ejection(consecutive5xx=2)), site=site)
	for _ in range(4):
		assert gw.get("/status/500", site=site).status == 500
	# At most half of the endpoints are ejected.
	assert len(ports_used(gw, site, "/echo", 10)) == 1


def test_good_answers_break_the_row(gw, site, backend):
	gw.route("/", gw.service(backend.addresses[:2], site, outlierDetectionConfig=ejection()), site=site)
	for _ in range(6):
		for path in ("/status/500", "/status/500", "/echo", "/echo"):
			gw.get(path, site=site)
	assert len(ports_used(gw, site, "/echo", 10)) == 2


def test_never_more_than_the_share_is_ejected(gw, site, backend):
	gw.route("/", gw.service(backend.addresses[:2], site, outlierDetectionConfig=ejection(maxEjectionPercent=10)), site=site)
	for _ in range(20):
		gw.get("/status/500", site=site)
	assert len(ports_used(gw, site, "/echo", 10)) == 2


def test_change_of_another_resource_keeps_the_ejection(gw, site, backend):
	port = free_port()
	gw.route("/", gw.service([backend.address, f"127.0.0.1:{port}"], site, outlierDetectionConfig=ejection(baseEjectionTime=60)),
		site=site)
	for _ in range(10):
		gw.get("/echo", site=site)
	gw.route("/unrelated", backend, site=site)
	assert ports_used(gw, site, "/echo", 20) == {backend.port}
