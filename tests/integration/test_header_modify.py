"""HeaderModify on live traffic: what the upstream gets, and what the client gets from the upstream and from the gateway itself."""
import re
import time

import pytest
from gw import numbers
from policy_kit import (Canned, as_text, burst, check_error, cors, direct, headers, ip_list, op, outcomes, preflight, rate, rest_api,
	seen)


@pytest.fixture
def path(gw, backend):
	return new_path(gw, backend)


class Path(str):
	"""The upstream's /echo behind a route of its own; path.base is the route's prefix."""
	route = base = None


def new_path(gw, target, **options):
	base = f"/headers-{next(numbers)}"
	made = Path(f"{base}/echo")
	made.base = base
	made.route = gw.route(base, target, **options)
	return made


# ---- examples of the contract ----

def test_example_1_add(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Add", "X-Custom-Header", "custom-value")), to=path.route)
	assert seen(gw.echo(path), "X-Custom-Header") == "custom-value"
	assert re.fullmatch("a, ?custom-value", seen(gw.echo(path, {"X-Custom-Header": "a"}), "X-Custom-Header"))


def test_example_2_update_is_literal(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Update", "Authorization", "Bearer {{token}}")), to=path.route)
	for sent in ([], [("Authorization", "Basic x")], [("authorization", "Basic x"), ("Authorization", "Basic y")]):
		assert seen(gw.echo(path, sent), "Authorization") == "Bearer {{token}}"


def test_example_3_remove(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Remove", "X-Debug-Mode")), to=path.route)
	fields = gw.echo(path, [("x-debug-mode", "1"), ("X-Kept", "1"), ("x-debug-mode", "2")])
	assert seen(fields, "X-Debug-Mode") is None
	assert seen(fields, "X-Kept") == "1"


def test_example_4_client_ip_is_not_spoofed(gw, backend):
	site = gw.gateway()
	path = new_path(gw, backend, site=site)
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Client", "client.ip", "Reference")), to=path.route)
	sent = [("X-Forwarded-For", "6.6.6.6"), ("X-Client", "6.6.6.6")]
	assert seen(gw.echo(path, sent, site=site), "X-Client") == "127.0.0.1"
	gw.feature("xffTrustedNum", 1, site)
	assert seen(gw.echo(path, [("X-Forwarded-For", "6.6.6.6, 203.0.113.7")], site=site), "X-Client") == "203.0.113.7"


def test_example_5_the_narrowest_wins(gw, backend):
	site = gw.gateway()
	domain = gw.domain("env.test", site)
	path = new_path(gw, backend, site=site)
	for holder, value in ((site, "gw"), (domain, "dom"), (path.route, "rt")):
		gw.attach("HeaderModify", headers(op("Request", "Update", "X-Env", value), op("Response", "Update", "X-Env", value),
			op("Request", "Add", "X-Trace", value), op("Response", "Add", "X-Trace", value)), to=holder)
	answer = gw.get(path, host="env.test", site=site)
	assert answer.header("X-Env") == "rt"
	assert answer.header("X-Trace").replace(" ", "") == "gw,dom,rt"
	fields = gw.echo(path, host="env.test", site=site)
	assert seen(fields, "X-Env") == "rt"
	assert seen(fields, "X-Trace").replace(" ", "") == "gw,dom,rt"
	assert gw.get(path, host="other.test", site=site).header("X-Trace").replace(" ", "") == "gw,rt"


def test_example_6_set_cookie_is_never_merged(gw):
	with Canned([("Set-Cookie", "b=2"), ("Set-Cookie", "c=3")]) as upstream:
		path = new_path(gw, upstream.port)
		gw.attach("HeaderModify", headers(op("Response", "Add", "Set-Cookie", "a=1")), to=path.route)
		assert sorted(gw.get(path).all("Set-Cookie")) == ["a=1", "b=2", "c=3"]


def test_example_7_on_429_and_404(gw, path):
	gw.attach("HeaderModify", headers(op("Response", "Update", "Strict-Transport-Security", "max-age=1")), to=path.route)
	gw.attach("RateLimit", rate(1), to=path.route)
	answers = [gw.get(f"{path.base}/status/404") for _ in range(2)]
	assert [(answer.status, answer.header("Strict-Transport-Security")) for answer in answers] == [(404, "max-age=1"), (429, "max-age=1")]


@pytest.mark.parametrize("item, member", [
	(op("Request", "Add", "Host", "a"), "key"), (op("Request", "Add", "X Y", "a"), "key"),
	(op("Request", "Add", "X", "a\r\nb"), "value"), (op("Request", "Add", "X", "request.foo", "Reference"), "value")])
def test_example_8_refused(gw, item, member):
	config = headers(op("Request", "Remove", "X-Fine"), item)
	answer = gw.api("POST", "/api/v2/policies", {"name": "bad", "className": "HeaderModify", "config": as_text(config)})
	check_error(answer, 400, "ErrInvalidParameter", f"config.headerOpItems[1].{member}")


# ---- operations ----

def test_add_merges_several_lines(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Add", "X-List", "c")), to=path.route)
	value = seen(gw.echo(path, [("X-List", "a"), ("x-list", "b")]), "X-List")
	assert value.replace(" ", "") == "a,b,c"


def test_add_to_cookie(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Add", "Cookie", "b=2")), to=path.route)
	assert seen(gw.echo(path, {"Cookie": "a=1"}), "Cookie") == "a=1; b=2"
	assert seen(gw.echo(path), "Cookie") == "b=2"


def test_order_of_the_list(gw, path):
	gw.attach("HeaderModify", headers(
		op("Request", "Add", "X-A", "1"), op("Request", "Remove", "X-A"), op("Request", "Add", "X-A", "2"),
		op("Request", "Add", "X-B", "1"), op("Request", "Remove", "x-b"),
		op("Request", "Update", "X-C", "1"), op("Request", "Add", "X-C", "2"), op("Request", "Update", "X-D", "3")), to=path.route)
	fields = gw.echo(path, {"X-A": "0", "X-B": "0", "X-C": "0"})
	assert seen(fields, "X-A") == "2"
	assert seen(fields, "X-B") is None
	assert seen(fields, "X-C").replace(" ", "") == "1,2"
	assert seen(fields, "X-D") == "3"


def test_directions_do_not_mix(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Up", "1"), op("Response", "Update", "X-Down", "1")), to=path.route)
	answer = gw.get(path)
	assert (answer.header("X-Down"), answer.header("X-Up")) == ("1", None)
	names = [name.lower() for name, _ in answer.json["headers"]]
	assert "x-up" in names and "x-down" not in names


@pytest.mark.parametrize("value", ["100%", "%REQ(:path)%", "$host", "${client.ip}", "{{token}}", "client.ip", "a  b", "\u00fc", '"q"'])
def test_custom_value_is_literal(gw, path, value):
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-V", value), op("Response", "Update", "X-V", value)), to=path.route)
	wire = value.encode().decode("latin-1")
	assert seen(gw.echo(path), "X-V") == wire
	assert gw.get(path).header("X-V") == wire


def test_sixty_four_items(gw, path):
	gw.attach("HeaderModify", headers(*[op("Request", "Update", f"X-Item-{i}", str(i)) for i in range(64)]), to=path.route)
	fields = gw.echo(path)
	assert [seen(fields, f"X-Item-{i}") for i in range(64)] == [str(i) for i in range(64)]


def test_largest_value(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Big", "v" * 8192), op("Response", "Update", "X-Big", "w" * 8192)), to=path.route)
	assert seen(gw.echo(path), "X-Big") == "v" * 8192
	assert gw.get(path).header("X-Big") == "w" * 8192


def test_response_of_the_upstream(gw):
	with Canned([("X-Old", "1"), ("Server", "secret/1.0"), ("X-List", "a"), ("X-List", "b"), ("Content-Type", "text/a")]) as upstream:
		path = new_path(gw, upstream.port)
		gw.attach("HeaderModify", headers(op("Response", "Remove", "server"), op("Response", "Update", "X-Old", "2"),
			op("Response", "Add", "X-List", "c"), op("Response", "Update", "Content-Type", "text/b")), to=path.route)
		for method in ("GET", "HEAD"):
			answer = gw.request(method, path)
			assert answer.header("Server") is None
			assert (answer.header("X-Old"), answer.header("Content-Type")) == ("2", "text/b")
			assert answer.header("X-List").replace(" ", "") == "a,b,c"
			assert answer.header("Content-Length") == "6"


# ---- references ----

def test_request_properties(gw, backend):
	site = gw.gateway()
	domain = gw.domain("props.test", site)
	service = gw.service(backend, site)
	base = f"/props-{next(numbers)}"
	route = gw.route(base, service, site=site, domains=[domain])
	expected = {"request.method": "PUT", "request.scheme": "http", "request.host": "props.test", "request.path": f"{base}/echo",
		"request.uri": f"{base}/echo?q=a%20b&r=1", "request.query.q": "a b", "request.header.X-In": "in", "request.cookie.c": "1 2",
		"request.id": "abc-123", "client.ip": "127.0.0.1", "gateway.id": site.id, "domain.name": "props.test", "route.id": route.id,
		"route.name": route.name, "service.id": service.id}
	names = [*expected, "client.port", "time.unix", "time.iso8601"]
	gw.attach("HeaderModify", headers(*[op("Request", "Update", f"X-P{i}", name, "Reference") for i, name in enumerate(names)]), to=route)
	with gw.connect(site) as connection:
		fields = {"X-In": "in", "Cookie": "b=0; c=1%202", "X-Request-Id": "abc-123"}
		answer = connection.request("PUT", f"{base}/echo?q=a%20b&r=1", fields, b"", host="props.test:81")
		client_port = connection.socket.getsockname()[1]
	got = {name.lower(): value for name, value in answer.json["headers"]}
	got = {name: got.get(f"x-p{i}") for i, name in enumerate(names)}
	assert got.pop("client.port") == str(client_port)
	assert abs(int(got.pop("time.unix")) - time.time()) < 10
	assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", got.pop("time.iso8601"))
	got["request.host"] = got["request.host"].split(":")[0]
	assert got == expected


def test_response_properties(gw, backend):
	with Canned([("ETag", '"x"'), ("X-Two", "a"), ("X-Two", "b")], status=203) as upstream:
		path = new_path(gw, upstream.port)
		names = ["response.status", "response.header.etag", "response.header.x-two", "upstream.address", "upstream.duration_ms", "request.method",
			"request.path"]
		gw.attach("HeaderModify", headers(*[op("Response", "Update", f"X-P{i}", name, "Reference") for i, name in enumerate(names)]), to=path.route)
		answer = gw.get(path)
		got = [answer.header(f"X-P{i}") for i in range(len(names))]
		assert got[:2] == ["203", '"x"']
		assert got[2].replace(" ", "") == "a,b"
		assert got[3] == f"127.0.0.1:{upstream.port}"
		assert 0 <= int(got[4]) < 5000
		assert got[5:] == ["GET", str(path)]


@pytest.mark.parametrize("name", ["consumer.id", "consumer.name", "jwt.claim.sub", "lane.tag", "request.query.none", "request.header.x-none",
	"request.cookie.none", "domain.name", "request.header.x-empty", "request.query.empty"])
def test_missing_property_skips_the_item(gw, path, name):
	"""An Update does not blank the header, an Add adds nothing."""
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-V", name, "Reference"), op("Request", "Add", "X-W", name, "Reference")), to=path.route)
	fields = gw.echo(f"{path}?empty=", {"X-V": "mine", "X-Empty": ""})
	assert seen(fields, "X-V") == "mine"
	assert seen(fields, "X-W") is None


@pytest.mark.parametrize("name", ["upstream.address", "upstream.duration_ms", "response.header.x-none"])
def test_missing_property_of_a_response(gw, name):
	base = f"/headers-{next(numbers)}"
	route = gw.route(base, None)
	gw.attach("DirectResponse", direct(), to=route)
	gw.attach("HeaderModify", headers(op("Response", "Update", "X-V", name, "Reference")), to=route)
	assert gw.get(base).header("X-V") is None


def test_consumer_cannot_be_claimed(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-V", "consumer.name", "Reference")), to=path.route)
	assert seen(gw.echo(path, {"X-Mse-Consumer": "root"}), "X-V") is None


def test_forwarded_fields_can_be_edited(gw, backend):
	"""What the gateway says of the client is there before the items run: they have the last word."""
	base = f"/headers-{next(numbers)}"
	route = gw.route(base, backend)
	changed = gw.attach("HeaderModify", headers(op("Request", "Remove", "X-Forwarded-For"), op("Request", "Update", "X-Forwarded-Proto", "https"),
		op("Request", "Add", "X-Real-IP", "192.0.2.1"), op("Request", "Update", "X-Request-Id", "mine")), to=route)
	got = gw.echo(f"{base}/echo", {"X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "http"}, host="h.test")
	assert [seen(got, name) for name in ("x-forwarded-for", "x-forwarded-proto", "x-real-ip", "x-request-id", "x-forwarded-host")] == \
		[None, "https", "127.0.0.1,192.0.2.1", "mine", "h.test"]
	gw.change_policy(changed, headers(op("Request", "Update", "X-Other", "1")))
	got = gw.echo(f"{base}/echo", {"X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "https"}, host="h.test")
	assert [seen(got, name) for name in ("x-forwarded-for", "x-forwarded-proto", "x-real-ip")] == ["192.0.2.9, 127.0.0.1", "http", "127.0.0.1"]


def test_references_see_what_ran_before(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-A", "1"), op("Request", "Update", "X-B", "request.header.x-a", "Reference"),
		op("Request", "Add", "X-A", "2"), op("Request", "Update", "X-C", "request.header.X-A", "Reference"), op("Request", "Remove", "X-A"),
		op("Request", "Update", "X-D", "request.header.X-A", "Reference")), to=path.route)
	fields = gw.echo(path)
	assert (seen(fields, "X-B"), seen(fields, "X-C").replace(" ", ""), seen(fields, "X-D")) == ("1", "1,2", None)


def test_remove_ignores_the_value(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Remove", "X-A", "request.foo", "Reference")), to=path.route)
	assert seen(gw.echo(path, {"X-A": "1"}), "X-A") is None


@pytest.mark.parametrize("raw", ["%0d%0aX-Evil:%201", "a%0ab", "a%00b", "%0D%0A%0D%0Abody", "%ff%fe", "%zz"])
def test_reference_cannot_inject(gw, path, raw):
	"""What does not decode to printable ASCII stays as it came."""
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-V", "request.query.v", "Reference"),
		op("Response", "Update", "X-V", "request.query.v", "Reference")), to=path.route)
	fields = gw.echo(f"{path}?v={raw}")
	assert seen(fields, "X-V") in (raw, None)
	assert seen(fields, "X-Evil") is None
	answer = gw.get(f"{path}?v={raw}")
	assert answer.header("X-Evil") is None
	assert answer.header("X-V") in (raw, None)


def test_reference_is_cut_at_8_kib(gw, path):
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-V", "request.header.x-long", "Reference")), to=path.route)
	assert seen(gw.echo(path, {"X-Long": "l" * 9000}), "X-V") == "l" * 8192


# ---- answers of the gateway itself ----

MARK = headers(op("Response", "Update", "X-Mark", "1"))


def test_on_every_answer_of_the_gateway(gw, backend):
	"""Refusals, fixed answers, failures of the upstream: whoever answers, the levels matched so far shape it."""
	site = gw.gateway()
	gw.attach("HeaderModify", MARK, to=site)
	plain = new_path(gw, backend, site=site)
	dead = new_path(gw, "127.0.0.1:1", site=site)
	gone = new_path(gw, None, site=site)
	fixed = new_path(gw, None, site=site)
	denied = new_path(gw, backend, site=site)
	gw.attach("DirectResponse", direct("200"), to=fixed.route)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=denied.route)
	asked = {str(plain): 200, f"{plain.base}/status/500": 500, f"{plain.base}/status/304": 304, "/none": 404, str(dead): 503, str(gone): 503,
		str(fixed): 200, str(denied): 403, f"{plain.base}/reset": 503, f"{plain.base}/garbage/status": 502}
	got = {target: gw.get(target, site=site) for target in asked}
	assert {target: answer.header("X-Mark") for target, answer in got.items()} == dict.fromkeys(asked, "1")
	wrong = {target: answer.status for target, answer in got.items() if answer.status != asked[target]}
	assert not wrong
	for method in ("HEAD", "OPTIONS", "POST"):
		assert gw.request(method, "/none", site=site).header("X-Mark") == "1"


def test_levels_matched_so_far(gw, backend):
	"""No route: gateway and domain shape the 404. An address denied at the gateway: the route's still runs, it had matched."""
	site = gw.gateway()
	domain = gw.domain("shaped.test", site)
	path = new_path(gw, backend, site=site)
	for holder, name in ((site, "X-Gateway"), (domain, "X-Domain"), (path.route, "X-Route")):
		gw.attach("HeaderModify", headers(op("Response", "Update", name, "1")), to=holder)

	def marks(target, host):
		answer = gw.get(target, host=host, site=site)
		return answer.status, [name for name in ("X-Gateway", "X-Domain", "X-Route") if answer.header(name)]

	assert marks("/none", "shaped.test") == (404, ["X-Gateway", "X-Domain"])
	assert marks("/none", "other.test") == (404, ["X-Gateway"])
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1", "Gateway"), to=site)
	assert marks(path, "shaped.test") == (403, ["X-Gateway", "X-Domain", "X-Route"])
	assert marks("/none", "shaped.test") == (403, ["X-Gateway", "X-Domain"])


def test_request_items_need_a_route(gw):
	"""Nothing is sent anywhere, so nothing fails either."""
	site = gw.gateway()
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-A", "1"), op("Response", "Update", "X-B", "request.header.x-a", "Reference")), to=site)
	answer = gw.get("/none", site=site)
	assert (answer.status, answer.header("X-B")) == (404, None)


def test_preflights_are_left_alone(gw, path):
	gw.attach("HeaderModify", MARK, to=path.route)
	gw.attach("Cors", cors(), to=path.route)
	assert preflight(gw, path).header("X-Mark") is None
	refused = preflight(gw, path, origin="https://evil.test")
	assert (refused.status, refused.header("X-Mark")) == (403, None)
	assert gw.get(path, {"Origin": "https://example.com"}).header("X-Mark") == "1"
	assert gw.request("OPTIONS", path).header("X-Mark") == "1", "a plain OPTIONS is an ordinary request"


def test_cors_cannot_be_broken(gw, path):
	gw.attach("Cors", cors(), to=path.route)
	gw.attach("HeaderModify", headers(op("Response", "Update", "Access-Control-Allow-Origin", "*"),
		op("Response", "Update", "Access-Control-Allow-Credentials", "false"), op("Response", "Remove", "Vary")), to=path.route)
	answer = gw.get(path, {"Origin": "https://example.com"})
	assert answer.header("Access-Control-Allow-Origin") == "https://example.com"
	assert answer.header("Access-Control-Allow-Credentials") == "true"
	assert answer.header("Vary") == "Origin"


def test_fixed_answer_with_another_type(gw):
	base = f"/headers-{next(numbers)}"
	route = gw.route(base, None)
	gw.attach("DirectResponse", direct("200", "<p>"), to=route)
	gw.attach("HeaderModify", headers(op("Response", "Update", "Content-Type", "text/html")), to=route)
	answer = gw.get(base)
	assert (answer.header("Content-Type"), answer.header("Content-Length")) == ("text/html", "3")


# ---- where it is attached ----

def test_api_and_operation(gw, backend):
	"""An operation's own policy replaces that of its API; the others inherit it."""
	api = rest_api(gw, backend)
	one = api.operation("GET", "/a/echo")
	api.operation("GET", "/b/echo")
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Api", "1")), to=api)
	own = gw.attach("HeaderModify", headers(op("Request", "Update", "X-Own", "1")), to=one)

	def marks(name):
		fields = gw.echo(f"{api.base}/{name}/echo")
		return seen(fields, "X-Api"), seen(fields, "X-Own")

	assert marks("a") == (None, "1")
	assert marks("b") == ("1", None)
	gw.change_policy(own, headers(op("Request", "Update", "X-Own", "1"), enable=False))
	assert marks("a") == ("1", None), "disabled is as if absent"
	gw.delete(own)
	assert marks("a") == ("1", None)


def test_disabled_is_absent(gw, backend):
	site = gw.gateway()
	path = new_path(gw, backend, site=site)
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Env", "gw")), to=site)
	own = gw.attach("HeaderModify", headers(op("Request", "Update", "X-Env", "rt"), enable=False), to=path.route)
	assert seen(gw.echo(path, site=site), "X-Env") == "gw"
	gw.change_policy(own, headers(op("Request", "Update", "X-Env", "rt")))
	assert seen(gw.echo(path, site=site), "X-Env") == "rt"


def test_change_is_in_force_with_its_answer(gw, path):
	attachment = gw.attach("HeaderModify", headers(op("Request", "Update", "X-N", "0")), to=path.route)
	with gw.connect() as connection:
		for n in range(1, 20):
			gw.change_policy(attachment, headers(op("Request", "Update", "X-N", str(n))))
			got = dict(connection.get(path).json["headers"])
			assert got["X-N"] == str(n)


def test_runs_once_for_each_request(gw, path):
	attachment = gw.attach("HeaderModify", headers(op("Request", "Add", "X-A", "1")), to=path.route)
	assert {answer.status for answer in burst(gw, 7, path)} == {200}
	assert outcomes(gw, attachment) == {(path.route.name, "applied"): 7}
