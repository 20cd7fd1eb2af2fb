"""Which route a request finds: host, path, headers, query, age; REST APIs; several gateways on one address."""
import json

import pytest
from gw import free_port
from wire import Connection


@pytest.fixture
def site(gw):
	return gw.gateway()


@pytest.fixture
def place(gw, site):
	"""place(name, path, ...): a route that answers with its name, without an upstream."""
	def make(name, path, **match):
		route = gw.route(path, None, site=match.pop("site", site), **match)
		gw.attach("DirectResponse", {"code": "200", "body": name}, to=route)
		return route
	return make


@pytest.fixture
def find(gw, site):
	"""find(target): the name of the route that answers, or the status when none does."""
	def ask(target, headers=(), method="GET", at=None, **options):
		answer = gw.request(method, target, headers, site=at or site, **options)
		return answer.text if answer.status == 200 else answer.status
	return ask


# ---- path ----

def test_no_route_is_404(gw, site):
	answer = gw.get("/", site=site)
	assert answer.status == 404
	assert set(answer.json) == {"errorCode", "errorMessage", "requestId"}


def test_exact_is_exact(place, find):
	place("exact", "/a/b", type="Exact")
	assert find("/a/b") == "exact"
	assert find("/a/b?c=d") == "exact"
	for other in ("/a/b/", "/a/b/c", "/a", "/A/b", "/a/bc"):
		assert find(other) == 404


def test_prefix_matches_whole_segments(place, find):
	place("app", "/app")
	assert find("/app") == "app"
	assert find("/app/") == "app"
	assert find("/app/x/y") == "app"
	assert find("/app?x") == "app"
	assert find("/apple") == 404
	assert find("/") == 404


def test_prefix_with_slash_needs_it(place, find):
	place("slash", "/app/")
	assert find("/app/x") == "slash"
	assert find("/app") == 404


def test_root_prefix_matches_everything(place, find):
	place("root", "/")
	for target in ("/", "/x", "/x/y/z", "/?a"):
		assert find(target) == "root"


def test_regex_matches_the_whole_path(place, find):
	place("regex", "/v[0-9]+/items", type="Regex")
	assert find("/v1/items") == "regex"
	assert find("/v12/items?x=1") == "regex"
	assert find("/x/v1/items") == 404
	assert find("/v1/items/x") == 404


def test_order_is_exact_longest_prefix_regex(place, find):
	place("regex", "/a/.*", type="Regex")
	assert find("/a/b/c") == "regex"
	place("short", "/a")
	assert find("/a/b/c") == "short"
	place("long", "/a/b")
	assert find("/a/b/c") == "long"
	assert find("/a/x") == "short"
	place("exact", "/a/b/c", type="Exact")
	assert find("/a/b/c") == "exact"


def test_longer_regex_is_tried_first(place, find):
	place("short", "/r/.*", type="Regex")
	place("long", "/r/[a-z]+/x", type="Regex")
	assert find("/r/abc/x") == "long"
	assert find("/r/abc/y") == "short"


def test_case_can_be_ignored(place, find):
	place("any", "/Any", ignoreUriCase=True)
	place("exact", "/Exact", type="Exact", ignoreUriCase=True)
	assert find("/aNY/x") == "any"
	assert find("/EXACT") == "exact"
	place("kept", "/Kept")
	assert find("/kept") == 404


def test_matching_sees_the_normalised_path(place, find):
	place("admin", "/admin")
	place("rest", "/")
	for target in ("/admin", "/%61dmin", "/x/../admin", "//admin", "/./admin", "/x/%2e%2e/admin/y"):
		assert find(target) == "admin"
	assert find("/admin%2Fx") == "rest"


# ---- method, headers, query ----

@pytest.mark.parametrize("method", ["get", "Post", "dELETE"])
def test_methods_have_case(gw, rest, method):
	"""A spelling that no client sends would never match: it is refused with the right one."""
	body = {"name": "case", "gatewayId": gw.default.id, "match": {"path": {"type": "Exact", "value": "/case"}, "methods": ["PUT", method]}}
	status, answer, _ = gw.api("POST", "/api/v1/routes", body)
	assert status == 400 and "match.methods[1]" in answer["errorMessage"] and f'"{method.upper()}"' in answer["errorMessage"]
	status, answer, _ = gw.api("POST", f"{rest.path}/operations", {"name": "case", "method": method, "path": "/case"})
	assert status == 400 and ": method: " in answer["errorMessage"]
	body["match"]["methods"] = ["Report"]    # no method of HTTP in another case
	gw.delete(gw.create("Route", "/api/v1/routes", "routeId", body))


@pytest.mark.parametrize("method", ["*", "ANY", "CONNECT"])
def test_methods_that_no_request_has(gw, rest, method):
	"""They would be accepted and match nothing."""
	body = {"name": "none", "gatewayId": gw.default.id, "match": {"path": {"type": "Exact", "value": "/none"}, "methods": ["GET", method]}}
	status, answer, _ = gw.api("POST", "/api/v1/routes", body)
	assert status == 400 and "match.methods[1]: would never match" in answer["errorMessage"]


def test_methods(place, find):
	place("write", "/m", methods=["POST", "PUT"])
	place("read", "/m", methods=["GET"])
	assert find("/m", method="POST", body=b"") == "write"
	assert find("/m", method="PUT", body=b"") == "write"
	assert find("/m") == "read"
	assert find("/m", method="DELETE") == 404


@pytest.mark.parametrize("kind, value, yes, no", [("Exact", "v2", "v2", "v20"), ("Prefix", "v2", "v20", "xv2"),
	("Regex", "v[0-9]", "v7", "v77")])
def test_header_conditions(place, find, kind, value, yes, no):
	place("plain", "/h")
	place("wanted", "/h", headers=[{"name": "X-Version", "type": kind, "value": value}])
	assert find("/h", {"x-version": yes}) == "wanted"
	assert find("/h", {"X-Version": no}) == "plain"
	assert find("/h") == "plain"


@pytest.mark.parametrize("kind, value, yes, no", [("Exact", "v2", "v2", "v20"), ("Prefix", "v2", "v20", "xv2"),
	("Regex", "v[0-9]", "v7", "v77")])
def test_query_conditions(place, find, kind, value, yes, no):
	place("plain", "/q")
	place("wanted", "/q", queryParams=[{"name": "version", "type": kind, "value": value}])
	assert find(f"/q?version={yes}") == "wanted"
	assert find(f"/q?a=b&version={yes}&c") == "wanted"
	assert find(f"/q?version={no}") == "plain"
	assert find("/q?Version=v2&xversion=v2") == "plain"


def test_query_values_are_decoded(place, find):
	place("wanted", "/q", queryParams=[{"name": "na me", "type": "Exact", "value": "a&b"}])
	assert find("/q?na%20me=a%26b") == "wanted"
	assert find("/q?na+me=a%26b") == "wanted"


def test_all_conditions_must_hold(place, find):
	place("both", "/c", headers=[{"name": "a", "type": "Exact", "value": "1"}, {"name": "b", "type": "Exact", "value": "2"}])
	assert find("/c", {"a": "1", "b": "2"}) == "both"
	assert find("/c", {"a": "1"}) == 404


def test_more_headers_then_more_queries_then_older(place, find):
	header = {"name": "x-a", "type": "Exact", "value": "1"}
	query = {"name": "q", "type": "Exact", "value": "1"}
	place("older", "/o")
	place("younger", "/o")
	assert find("/o?q=1", {"x-a": "1"}) == "older"
	place("query", "/o", queryParams=[query])
	assert find("/o?q=1", {"x-a": "1"}) == "query"
	place("header", "/o", headers=[header])
	assert find("/o?q=1", {"x-a": "1"}) == "header"
	place("both", "/o", headers=[header], queryParams=[query])
	assert find("/o?q=1", {"x-a": "1"}) == "both"
	assert find("/o?q=1") == "query"
	assert find("/o") == "older"


def test_older_route_that_goes_makes_room(gw, place, find):
	old = place("older", "/o")
	place("younger", "/o")
	assert find("/o") == "older"
	gw.delete(old)
	assert find("/o") == "younger"


# ---- hosts ----

def test_domains_come_before_paths(gw, site, place, find):
	exact = gw.domain("a.example.test", site)
	wild = gw.domain("*.example.test", site)
	place("any", "/x")
	place("wild", "/", domains=[wild])
	place("exact", "/", domains=[exact])
	assert find("/x", host="a.example.test") == "exact"
	assert find("/x", host="A.Example.TEST:8080") == "exact"
	assert find("/x", host="a.example.test.") in ("exact", "any")
	assert find("/x", host="b.example.test") == "wild"
	assert find("/x", host="example.test") == "any"
	assert find("/x", host="other.test") == "any"


def test_domain_without_a_fitting_route_leaves_the_gateways(gw, site, place, find):
	"""A route without domains serves every host of the gateway, those with a domain of their own too."""
	domain = gw.domain("d.test", site)
	place("domain", "/only", domains=[domain])
	place("any", "/")
	assert find("/only", host="d.test") == "domain"
	assert find("/other", host="d.test") == "any"
	assert find("/only", host="e.test") == "any"


def test_route_of_several_domains(gw, site, place, find):
	place("both", "/", domains=[gw.domain("one.test", site), gw.domain("two.test", site)])
	assert find("/", host="one.test") == "both"
	assert find("/", host="two.test") == "both"
	assert find("/", host="three.test") == 404


def test_gateway_with_named_hosts_serves_those(gw, place, find):
	named = gw.gateway(hosts=["shop.test", "*.shop.test"])
	place("shop", "/", site=named)
	assert find("/", host="shop.test", at=named) == "shop"
	assert find("/", host="a.shop.test", at=named) == "shop"
	assert find("/", host="other.test", at=named) == 404


def test_two_gateways_share_an_address(gw, place, find):
	port = free_port()
	one, two = gw.gateway(port, hosts=["one.test"]), gw.gateway(port, hosts=["two.test"])
	place("first", "/", site=one)
	second = place("second", "/", site=two)
	assert find("/", host="one.test", at=one) == "first"
	assert find("/", host="two.test", at=one) == "second"
	assert find("/", host="three.test", at=one) == 404
	gw.delete(second)
	gw.delete(two)
	assert find("/", host="one.test", at=one) == "first"
	assert find("/", host="two.test", at=one) == 404


def test_overlapping_hosts_are_refused(gw):
	port = free_port()
	gw.gateway(port, hosts=["one.test", "two.test"])
	status, answer, _ = gw.api("POST", "/v2/meshes/default/gateways", {**gw.gateway().body, "gateway": "overlapping",
		"externalPort": {"number": str(port), "protocol": "HTTP", "hosts": ["two.test"]}})
	assert status == 409
	assert answer["errorCode"] == "ASM.01010003"


def test_a_specific_address_goes_before_the_wildcard_whatever_the_hosts(gw, place):
	"""docs/guide/operations.md says so: the kernel hands a connection to one of them before any byte of it is read."""
	port = free_port()
	anywhere, here = gw.gateway(port, externalIPs=["0.0.0.0"]), gw.gateway(port, hosts=["here.test"])
	everywhere, there = place("anywhere", "/", site=anywhere), place("here", "/", site=here)
	for site, address in ((anywhere, f"0.0.0.0:{port}"), (here, f"127.0.0.1:{port}")):
		assert gw.ask("GET", site.path)["status"] == {"phase": "Running", "addresses": [address]}

	def ask_on(connection, host):
		connection.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
		answer = connection.read_response()
		return answer.body.decode() if answer.status == 200 else answer.status

	def ask(address, host):
		with Connection(port, address) as connection:
			return ask_on(connection, host)

	assert [ask("127.0.0.1", host) for host in ("here.test", "other.test")] == ["here", 404]
	assert [ask("127.0.0.2", host) for host in ("here.test", "other.test")] == ["anywhere", "anywhere"]
	with Connection(port, "127.0.0.1") as kept:
		assert ask_on(kept, "here.test") == "here"
		gw.delete(there)
		gw.delete(here)
		assert [ask("127.0.0.1", host) for host in ("here.test", "other.test")] == ["anywhere", "anywhere"]
		assert ask_on(kept, "here.test") == 404, "it stays with the address at which it arrived"
	with Connection(port, "127.0.0.1") as kept:
		assert ask_on(kept, "here.test") == "anywhere"
		here = gw.gateway(port, protocol="TCP")
		assert gw.ask("GET", here.path)["status"]["phase"] == "Running", "protocols need not be the same"
		assert ask_on(kept, "here.test") == "anywhere"
		gw.delete(everywhere)
		gw.delete(anywhere)
	with pytest.raises(ConnectionRefusedError):
		Connection(port, "127.0.0.2")


def test_two_that_share_the_wildcard_meet_by_their_hosts(gw):
	"""Addresses of somebody else both become the wildcard."""
	port = free_port()
	gw.gateway(port, externalIPs=["203.0.113.5"])
	status, answer, _ = gw.api("POST", "/v2/meshes/default/gateways", {**gw.default.body, "gateway": "also-anywhere", "elbId": "elb-also",
		"externalPort": {"number": str(port), "protocol": "HTTP", "hosts": ["*"]}, "externalIPs": ["203.0.113.6"]})
	assert (status, answer["errorCode"]) == (409, "ASM.01010003") and "externalPort.hosts" in answer["errorMsg"]
	assert "already" in answer["errorMsg"]


@pytest.mark.parametrize("protocol, hosts, at, status", [("HTTP", ["*"], "externalPort.hosts", 409), ("TCP", ["other.test"], "externalPort.number", 409),
	("GRPC", ["other.test"], None, 200)])
def test_of_one_load_balancer_addresses_make_no_difference(gw, protocol, hosts, at, status):
	one = gw.gateway(hosts=["*", "one.test"], externalIPs=["0.0.0.0"])
	got, answer, _ = gw.api("POST", "/v2/meshes/default/gateways", {**one.body, "gateway": f"{one.name}-too",
		"externalPort": {"number": str(one.port), "protocol": protocol, "hosts": hosts}, "externalIPs": ["127.0.0.1"]})
	assert got == status and (at is None or f"{at}: " in answer["errorMsg"]), answer


# ---- REST APIs ----

@pytest.fixture
def rest(gw, site, backend):
	service = gw.service(backend, site)
	api = gw.create("Api", "/api/v1/http-apis", "httpApiId", {"name": "pets", "gatewayId": site.id, "environmentId": site.environment,
		"domainIds": [], "basePath": "/pets", "backend": {"scene": "SingleService", "services": [{"serviceId": service.id}]}})

	def operation(method, path):
		made = gw.create("Operation", f"{api.path}/operations", "operationId", {"name": f"{method}{path}", "method": method, "path": path})
		made.gateway, made.environment = site.id, site.environment
		gw.attach("DirectResponse", {"code": "200", "body": f"{method} {path}"}, to=made)
		return made
	api.operation = operation
	return api


def test_operations_with_parameters(rest, find):
	for method, path in (("GET", "/"), ("GET", "/{id}"), ("DELETE", "/{id}"), ("GET", "/{id}/photos/{photo}"), ("GET", "/new")):
		rest.operation(method, path)
	assert find("/pets/7") == "GET /{id}"
	assert find("/pets/7", method="DELETE") == "DELETE /{id}"
	assert find("/pets/7/photos/2") == "GET /{id}/photos/{photo}"
	assert find("/pets/new") == "GET /new", "a fixed segment is more exact than a parameter"
	assert find("/pets/7/photos") == 404
	assert find("/pets/7", method="POST", body=b"") == 404
	assert find("/pet/7") == 404


def test_api_sends_to_its_backend(gw, site, rest, backend):
	rest.operation("GET", "/other")
	made = gw.create("Operation", f"{rest.path}/operations", "operationId", {"name": "echo", "method": "GET", "path": "/{id}/echo"})
	answer = gw.get("/pets/5/echo?x=1", site=site)
	assert answer.json["target"] == "/pets/5/echo?x=1"
	gw.delete(made)
	assert gw.get("/pets/5/echo", site=site).status == 404


# ---- backends ----

def test_services_by_ratio(gw, site, backend):
	services = [(gw.service(address, site), weight) for address, weight in zip(backend.addresses[:2], (75, 25))]
	gw.route("/ratio", services, site=site)
	seen = [gw.get("/ratio/echo", site=site).json["port"] for _ in range(400)]
	share = seen.count(backend.ports[0]) / len(seen)
	assert 0.65 < share < 0.85
	assert set(seen) == set(backend.ports[:2])


def test_weight_zero_gets_nothing(gw, site, backend):
	services = [(gw.service(address, site), weight) for address, weight in zip(backend.addresses[:2], (100, 0))]
	gw.route("/zero", services, site=site)
	assert {gw.get("/zero/echo", site=site).json["port"] for _ in range(50)} == {backend.ports[0]}


def test_endpoints_take_turns(gw, site, backend):
	gw.route("/turns", gw.service(backend.peers[:3], site), site=site)
	seen = [gw.get("/turns/echo", site=site).json["address"] for _ in range(30)]
	assert [seen.count(address) for address in backend.peers[:3]] == [10, 10, 10]


def test_endpoint_weights(gw, site, backend):
	addresses = [{"address": backend.peers[0], "weight": 300}, {"address": backend.peers[1], "weight": 100}]
	gw.route("/weights", gw.service(addresses, site), site=site)
	seen = [gw.get("/weights/echo", site=site).json["address"] for _ in range(100)]
	assert 65 <= seen.count(backend.peers[0]) <= 85


def test_port_and_version_select_endpoints(gw, site, backend):
	addresses = [{"address": backend.peers[0], "version": "v1"}, {"address": backend.peers[1], "version": "v2"}]
	service = gw.service(addresses, site, versions=[{"name": "v1"}, {"name": "v2"}])
	for version, address in zip(("v1", "v2"), backend.peers):
		gw.route(f"/{version}", {"scene": "SingleService", "services": [{"serviceId": service.id, "version": version}]}, site=site)
		assert {gw.get(f"/{version}/echo", site=site).json["address"] for _ in range(10)} == {address}
	service = gw.service(backend.addresses[:2], site)
	gw.route("/port", {"scene": "SingleService", "services": [{"serviceId": service.id, "port": backend.ports[1]}]}, site=site)
	assert {gw.get("/port/echo", site=site).json["port"] for _ in range(10)} == {backend.ports[1]}


def test_port_must_be_named_when_an_address_stands_for_several(gw, site, backend):
	ports = [{"name": f"p{port}", "port": port, "protocol": "HTTP"} for port in backend.ports[:2]]
	service = gw.service(["127.0.0.1"], site, ports=ports)
	status, answer, _ = gw.api("POST", "/api/v1/routes", {"name": "which-port", "gatewayId": site.id,
		"match": {"path": {"type": "Prefix", "value": "/which"}},
		"backend": {"scene": "SingleService", "services": [{"serviceId": service.id}]}})
	assert status == 400
	assert "backend.services[0].port" in answer["errorMessage"]


def test_address_without_port_is_combined_with_the_ports(gw, site, backend):
	service = gw.service(["127.0.0.1"], site, ports=[{"name": "a", "port": backend.ports[2], "protocol": "HTTP"}])
	gw.route("/combined", service, site=site)
	assert gw.get("/combined/echo", site=site).json["port"] == backend.ports[2]


def test_changed_route_is_in_force_at_once(gw, site, place, find):
	route = place("here", "/before")
	assert find("/before") == "here"
	item = gw.ask("GET", route.path)
	item["match"]["path"]["value"] = "/after"
	gw.ask("PUT", route.path, json.loads(json.dumps(item)))
	assert find("/before") == 404
	assert find("/after") == "here"
