"""Endpoints that fail go out of rotation and come back: active checks and passive ejection."""
import time

import pytest
from backends import Backend
from wire import wait_until


@pytest.fixture
def site(gw):
	return gw.gateway()


def used(gw, site, path, n=20):
	"""Which endpoints answered n requests; an error stands as its status."""
	answers = [gw.get(path, site=site) for _ in range(n)]
	return {answer.json["address"] if answer.status == 200 else answer.status for answer in answers}


def dead(backend):
	"""An endpoint with the port of backend.peers on which nobody listens."""
	return "127.0.0.9:" + backend.peers[0].split(":")[1]


def check(protocol="TCP", **more):
	return {"enable": True, "protocol": protocol, "interval": 1, "timeout": 1, "healthyThreshold": 1, "unhealthyThreshold": 1, **more}


def test_tcp_check_takes_a_dead_endpoint_out_and_back(gw, site, backend):
	gw.route("/", gw.service([backend.peers[0], dead(backend)], site, healthCheckConfig=check()), site=site)
	wait_until(lambda: used(gw, site, "/echo") == {backend.peers[0]}, 6, "the dead endpoint out of rotation")
	assert used(gw, site, "/echo", 50) == {backend.peers[0]}
	with Backend(address=dead(backend)) as revived:
		wait_until(lambda: used(gw, site, "/echo") == {backend.peers[0], revived.address}, 6, "the endpoint back in rotation")
	wait_until(lambda: used(gw, site, "/echo") == {backend.peers[0]}, 6, "it is out again")


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
	service = gw.service(backend.peers[:2], site, healthCheckConfig=check("HTTP", httpPath="/status/200"))
	gw.route("/", service, site=site)
	wait_until(lambda: {record.address for record in backend.requests()} >= set(backend.peers[:2]), 6, "checks of both")
	item = gw.ask("GET", service.path)
	gw.ask("PUT", service.path, {**item, "addresses": [backend.peers[0]]})
	backend.clear()
	wait_until(lambda: len([r for r in backend.requests() if r.address == backend.peers[0]]) >= 2, 6, "two more checks")
	assert not [record for record in backend.requests() if record.address == backend.peers[1]]


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
	gw.route("/", gw.service([backend.peers[0], dead(backend)], site, outlierDetectionConfig=ejection()), site=site)
	first = [gw.get("/echo", site=site).status for _ in range(10)]
	assert first.count(503) == 3, "it is out after three in a row"
	assert used(gw, site, "/echo", 10) == {backend.peers[0]}
	time.sleep(1.2)    # the ejection time itself is what is tested
	assert 503 in [gw.get("/echo", site=site).status for _ in range(4)], "it is back and tried again"


def test_answers_with_5xx_count(gw, site, backend):
	gw.route("/", gw.service(backend.peers[:2], site, outlierDetectionConfig=ejection(consecutive5xx=2)), site=site)
	for _ in range(4):
		assert gw.get("/status/500", site=site).status == 500
	# At most half of the endpoints are ejected.
	assert len(used(gw, site, "/echo", 10)) == 1


def test_good_answers_break_the_row(gw, site, backend):
	gw.route("/", gw.service(backend.peers[:2], site, outlierDetectionConfig=ejection()), site=site)
	for _ in range(6):
		for path in ("/status/500", "/status/500", "/echo", "/echo"):
			gw.get(path, site=site)
	assert len(used(gw, site, "/echo", 10)) == 2


def test_share_of_zero_ejects_nothing(gw, site, backend):
	gw.route("/", gw.service(backend.peers[:2], site, outlierDetectionConfig=ejection(maxEjectionPercent=0)), site=site)
	for _ in range(20):
		gw.get("/status/500", site=site)
	assert len(used(gw, site, "/echo", 10)) == 2


def test_change_of_another_resource_keeps_the_ejection(gw, site, backend):
	gw.route("/", gw.service([backend.peers[0], dead(backend)], site, outlierDetectionConfig=ejection(baseEjectionTime=60)), site=site)
	for _ in range(10):
		gw.get("/echo", site=site)
	gw.route("/unrelated", backend, site=site)
	assert used(gw, site, "/echo", 20) == {backend.peers[0]}
