"""What became of requests under Timeout, Retry, Fallback, ServiceLb and ServiceTls is counted for each policy and resource."""
import pytest
from policy_kit import Told, outcomes
from service_tls_kit import *    # noqa: F403 -- the vocabulary and its fixtures
from wire import wait_until


@pytest.fixture
def upstream():
	with Told() as server:
		yield server


def counted(gw, attachment, wanted, seconds=5):
	"""Waits until the outcomes, whatever the resource, are these."""
	def read():
		found = {}
		for (_, outcome), n in outcomes(gw, attachment).items():
			if n:
				found[outcome] = found.get(outcome, 0) + n
		return found
	wait_until(lambda: read() == wanted, seconds, f"outcomes {wanted}, not {read()}")


def test_timeouts(gw, upstream):
	route = gw.route("/counted-timeout", [f"127.0.0.1:{upstream.port}"])
	attachment = gw.attach("Timeout", {"unitNum": 0.1, "timeUnit": "s"}, to=route)
	assert gw.get("/counted-timeout").status == 200
	counted(gw, attachment, {})
	upstream.hold()
	assert gw.get("/counted-timeout").status == 504
	upstream.release()
	counted(gw, attachment, {"expired": 1})


def test_retries(gw, upstream):
	route = gw.route("/counted-retry", [f"127.0.0.1:{upstream.port}"])
	attachment = gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx"], "httpCodes": [], "perTryTimeout": 0}, to=route)
	upstream.status = 503
	assert gw.get("/counted-retry").status == 503
	counted(gw, attachment, {"failed": 2, "exhausted": 1})


def test_retries_of_a_route_are_not_those_of_its_service(gw, upstream):
	service = gw.service(f"127.0.0.1:{upstream.port}")
	route = gw.route("/counted-levels", service)
	retry = {"retryOn": ["5xx"], "httpCodes": [], "perTryTimeout": 0}
	of_service = gw.attach("Retry", {"attempts": 3, **retry}, to=service)
	of_route = gw.attach("Retry", {"attempts": 1, **retry}, to=route)
	upstream.status = 503
	assert gw.get("/counted-levels").status == 503
	counted(gw, of_route, {"failed": 1, "exhausted": 1})
	counted(gw, of_service, {})


def test_fallbacks(gw, upstream):
	service, other = gw.service("127.0.0.1:9"), gw.service(f"127.0.0.1:{upstream.port}")
	gw.route("/counted-fallback", service)
	attachment = gw.attach("Fallback", {"fallBackDestination": [{"serviceId": other.id}]}, to=service)
	assert gw.get("/counted-fallback").status == 200
	counted(gw, attachment, {"turned": 1})


def test_balance(gw, upstream):
	service = gw.service(f"127.0.0.1:{upstream.port}")
	gw.route("/counted-balance", service)
	attachment = gw.attach("ServiceLb", {"loadBalancerType": "ROUND_ROBIN"}, to=service)
	assert [gw.get("/counted-balance").status for _ in range(3)] == [200] * 3
	counted(gw, attachment, {"chosen": 3})


def test_tls(gw, nginx, ca):
	good = Secured(gw, nginx.ports["good"], simple(ca))
	assert good.see()
	counted(gw, good.attachment, {"secured": 1})
	bad = Secured(gw, nginx.ports["self"], simple())
	assert bad.refused() == "untrusted"
	counted(gw, bad.attachment, {"refused": 1})
