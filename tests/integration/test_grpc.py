"""gRPC from end to end: client and server of @grpc/grpc-js, HTTP/2 on both sides, and the gateway's own refusals in between."""
import node
import pytest
from gw import free_port
from policy_kit import ip_list, rate
from wire import wait_until


@pytest.fixture(scope="module")
def server():
	with node.Server("grpc_server.js") as process:
		yield process


@pytest.fixture(scope="module")
def site(gw):
	return gw.gateway(protocol="GRPC")


def grpc_service(gw, site, port):
	return gw.service(port, site=site, ports=[{"port": port, "protocol": "GRPC"}])


def call(site, *arguments):
	return node.run("grpc_roundtrip.js", f"127.0.0.1:{site.port}", *arguments)


def test_every_kind_of_call(gw, site, server):
	route = gw.route("/test.Echo", grpc_service(gw, site, server.port), site=site)
	assert call(site, 10) == "ok"
	found = wait_until(lambda: len(rows := gw.records(route=route.name)) >= 80 and rows, what="the records")
	assert {r["status"] for r in found} == {200}
	gw.delete(route)


@pytest.mark.parametrize("how, status", [("limit", 8), ("list", 7), ("no route", 12), ("down", 14)])
def test_refusals_are_understood(gw, site, server, how, status):
	route = None
	if how != "no route":
		route = gw.route("/test.Echo", grpc_service(gw, site, free_port() if how == "down" else server.port), site=site)
	if how == "limit":
		gw.attach("RateLimit", rate(2), to=route)
	elif how == "list":
		gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1"), to=route)
	assert call(site, 1, status)
	if route:
		gw.delete(route)
