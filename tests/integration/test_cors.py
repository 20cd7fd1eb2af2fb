"""Cors on live traffic, with the requests that browsers send."""
import pytest
from gw import numbers
from policy_kit import (Canned, burst, cors, count, direct, headers, ip_list, op, outcomes, preflight, rate, rest_api)

ORIGIN = "https://example.com"
ALLOW = "Access-Control-Allow-"


@pytest.fixture
def path(gw, backend):
	return new_path(gw, backend)


class Path(str):
	route = base = None


def new_path(gw, target, **options):
	base = f"/cors-{next(numbers)}"
	made = Path(f"{base}/echo")
	made.base = base
	made.route = gw.route(base, target, **options)
	return made


def from_origin(gw, target, origin=ORIGIN, **options):
	return gw.get(target, {"Origin": origin} if origin is not None else {}, **options)


def grants(answer):
	"""All Access-Control-* of an answer as a dict; each may stand there once."""
	names = [name.lower() for name, _ in answer.headers if name.lower().startswith("access-control-")]
	assert len(names) == len(set(names)), answer.headers
	return {name.removeprefix("access-control-"): answer.header(name) for name in names}


def split(value):
	return [part.strip() for part in value.split(",")]


# ---- examples of the contract ----

def test_example_1_preflight(gw, backend, path):
	gw.attach("Cors", cors(), to=path.route)
	answer = preflight(gw, path, ask="content-type")
	assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "0")
	got = grants(answer)
	assert split(got.pop("allow-methods")) == ["GET", "POST", "PUT", "DELETE"]
	assert split(got.pop("allow-headers")) == ["Content-Type", "Authorization"]
	assert got == {"allow-origin": ORIGIN, "max-age": "3600", "allow-credentials": "true"}
	assert answer.header("Vary") == "Origin"
	assert backend.stats()["requests"] == 0


def test_example_2_request(gw, path):
	gw.attach("Cors", cors(), to=path.route)
	answer = from_origin(gw, path)
	assert answer.json["method"] == "GET"
	assert grants(answer) == {"allow-origin": ORIGIN, "allow-credentials": "true", "expose-headers": "X-Custom-Header"}
	assert answer.header("Vary") == "Origin"


def test_example_3_foreign_origin(gw, backend, path):
	gw.attach("Cors", cors(), to=path.route)
	answer = from_origin(gw, path, "https://evil.com")
	assert (answer.status, grants(answer), answer.header("Vary")) == (200, {}, "Origin")
	backend.clear()
	answer = preflight(gw, path, origin="https://evil.com")
	assert (answer.status, grants(answer), answer.header("Vary")) == (403, {}, "Origin")
	assert backend.stats()["requests"] == 0


def test_example_4_any_origin(gw, path):
	attachment = gw.attach("Cors", cors("*"), to=path.route)
	for answer in (from_origin(gw, path, "https://a.b"), preflight(gw, path, "https://a.b")):
		assert grants(answer)["allow-origin"] == "https://a.b"
		assert grants(answer)["allow-credentials"] == "true"
		assert answer.header("Vary") == "Origin"
	answer = from_origin(gw, path, None)
	assert "*" not in grants(answer).values()
	assert answer.header("Vary") == "Origin"
	gw.change_policy(attachment, cors("*", allowCredentials=False))
	for answer in (from_origin(gw, path, "https://a.b"), preflight(gw, path, "https://a.b")):
		assert grants(answer)["allow-origin"] == "*"
		assert "allow-credentials" not in grants(answer)
		assert answer.header("Vary") is None


def test_example_5_the_upstreams_own_headers(gw):
	own = [("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Credentials", "true"), ("access-control-expose-headers", "X-Secret"),
		("Access-Control-Allow-Private-Network", "true"), ("Vary", "Accept-Encoding")]
	with Canned([*own, *own]) as upstream:
		path = new_path(gw, upstream.port)
		gw.attach("Cors", cors(), to=path.route)
		answer = from_origin(gw, path)
		assert grants(answer) == {"allow-origin": ORIGIN, "allow-credentials": "true", "expose-headers": "X-Custom-Header"}
		assert "Origin" in answer.all("Vary") and "Accept-Encoding" in answer.all("Vary")
		for origin in ("https://evil.com", None):
			assert grants(from_origin(gw, path, origin)) == {}


def test_example_6_authentication(gw, path):
	gw.attach("Cors", cors(), to=path.route)
	gw.attach("JWTAuth", {"name": "j", "issuer": "i", "jwks": '{"keys":[{"kty":"oct","k":"' + "A" * 43 + '"}]}', "tokenPosition": "header",
		"tokenName": "Authorization", "tokenNamePrefix": "Bearer ", "tokenPass": True}, to=path.route)
	assert preflight(gw, path).status == 200
	answer = from_origin(gw, path)
	assert (answer.status, grants(answer)["allow-origin"]) == (401, ORIGIN)


def test_example_7_any_header(gw, path):
	gw.attach("Cors", cors(allowHeaders="*"), to=path.route)
	assert split(grants(preflight(gw, path, ask="authorization,x-a"))["allow-headers"]) == ["authorization", "x-a"]
	assert split(grants(preflight(gw, path, ask="authorization , x-a"))["allow-headers"]) == ["authorization", "x-a"]
	assert "allow-headers" not in grants(preflight(gw, path))


def test_example_8_switched_off_at_the_route(gw, backend):
	site = gw.gateway()
	path = new_path(gw, backend, site=site)
	gw.attach("Cors", cors(), to=site)
	own = gw.attach("Cors", cors(enable=False), to=path.route)
	answer = preflight(gw, path, site=site)
	assert answer.json["method"] == "OPTIONS", "the upstream's answer"
	assert grants(answer) == grants(from_origin(gw, path, site=site)) == {}
	gw.delete(own)
	assert preflight(gw, path, site=site).body == b""


# ---- preflights ----

@pytest.mark.parametrize("method, fields", [
	("OPTIONS", {}),
	("OPTIONS", {"Origin": ORIGIN}),
	("OPTIONS", {"Access-Control-Request-Method": "GET"}),
	("OPTIONS", {"Origin": "", "Access-Control-Request-Method": "GET"}),
	("OPTIONS", {"Origin": ORIGIN, "Access-Control-Request-Method": ""}),
	("GET", {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}),
	("POST", {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}),
])
def test_what_is_no_preflight_goes_to_the_upstream(gw, path, method, fields):
	gw.attach("Cors", cors(), to=path.route)
	assert gw.request(method, path, fields).json["method"] == method


@pytest.mark.parametrize("asked", ["PATCH", "BREW"])
def test_method_that_is_not_allowed(gw, path, asked):
	"""The configured list is told; the browser refuses."""
	gw.attach("Cors", cors(), to=path.route)
	answer = preflight(gw, path, method=asked, ask="x-not-listed")
	assert answer.status == 200
	assert split(grants(answer)["allow-methods"]) == ["GET", "POST", "PUT", "DELETE"]
	assert split(grants(answer)["allow-headers"]) == ["Content-Type", "Authorization"]


def test_any_method(gw, path):
	gw.attach("Cors", cors(allowMethods=["*"]), to=path.route)
	assert grants(preflight(gw, path, method="PATCH"))["allow-methods"] == "PATCH"
	assert "allow-methods" not in grants(preflight(gw, path, method="P T"))


def test_methods_are_told_in_upper_case(gw, path):
	gw.attach("Cors", cors(allowMethods=["get", "Post"]), to=path.route)
	assert split(grants(preflight(gw, path))["allow-methods"]) == ["GET", "POST"]


@pytest.mark.parametrize("asked", ["a b", "x-a,,x-b", "x(a)", "x-a, b\u00e9", "a:b"])
def test_echoed_headers_are_validated(gw, path, asked):
	gw.attach("Cors", cors(allowHeaders="*"), to=path.route)
	answer = preflight(gw, path, ask=asked)
	assert answer.status == 200
	told = grants(answer).get("allow-headers")
	assert told is None or (asked == "x-a,,x-b" and split(told) in (["x-a", "x-b"], ["x-a", "", "x-b"]))


@pytest.mark.parametrize("unit, number, seconds", [("s", 0, "0"), ("s", 3600, "3600"), ("m", 5, "300"), ("h", 2, "7200"), ("h", 720, "2592000")])
def test_max_age(gw, path, unit, number, seconds):
	gw.attach("Cors", cors(timeUnit=unit, unitNum=number), to=path.route)
	assert grants(preflight(gw, path))["max-age"] == seconds


def test_method_limited_routes(gw, backend):
	"""A preflight finds the route of the method that it asks about."""
	base = f"/cors-{next(numbers)}"
	get = gw.route(base, backend, methods=["GET"])
	post = gw.route(base, backend, methods=["POST"])
	gw.attach("Cors", cors("https://get.test"), to=get)
	gw.attach("Cors", cors("https://post.test"), to=post)
	target = f"{base}/echo"
	assert preflight(gw, target, "https://get.test", "GET").status == 200
	assert preflight(gw, target, "https://get.test", "POST").status == 403
	assert preflight(gw, target, "https://post.test", "POST").status == 200
	assert preflight(gw, target, "https://post.test", "DELETE").status == 404, "no route for that"
	assert gw.request("OPTIONS", target, {"Origin": "https://get.test"}).status == 404, "a plain OPTIONS is matched as OPTIONS"


def test_preflight_without_a_route(gw):
	"""Gateway and Domain still answer it; without a policy it is a 404 like others."""
	site = gw.gateway()
	assert preflight(gw, "/none", site=site).status == 404
	gw.attach("Cors", cors(), to=site)
	assert preflight(gw, "/none", site=site).status == 200
	answer = from_origin(gw, "/none", site=site)
	assert (answer.status, grants(answer)["allow-origin"]) == (404, ORIGIN)


def test_preflight_is_never_limited_nor_answered_by_others(gw):
	base = f"/cors-{next(numbers)}"
	route = gw.route(base, None)
	gw.attach("Cors", cors(), to=route)
	gw.attach("RateLimit", rate(1), to=route)
	gw.attach("DirectResponse", direct(), to=route)
	for _ in range(10):
		assert preflight(gw, base).body == b""
	assert count(burst(gw, 2, base)) == {200: 1, 429: 1}


def test_preflight_with_a_body_and_head(gw, path):
	gw.attach("Cors", cors(), to=path.route)
	with gw.connect() as connection:
		answer = connection.request("OPTIONS", path, {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}, b"body")
		assert (answer.status, answer.body) == (200, b"")
		answer = connection.request("HEAD", path, {"Origin": ORIGIN})
		assert grants(answer)["allow-origin"] == ORIGIN
		assert connection.get(path).status == 200


# ---- origins ----

LIST = "https://example.com, http://b.test:8080 ,https://*.wild.test,https://*.port.test:8443,http://[::1]:3000,http://10.0.0.1"


@pytest.mark.parametrize("origin", ["https://example.com", "HTTPS://EXAMPLE.COM", "https://example.com:443", "http://b.test:8080", "https://a.wild.test",
	"https://a.b.wild.test", "https://A.Wild.Test", "https://x.port.test:8443", "http://[::1]:3000", "http://10.0.0.1", "http://10.0.0.1:80"])
def test_origin_is_allowed(gw, listed, origin):
	assert grants(from_origin(gw, listed, origin))["allow-origin"] == origin
	assert preflight(gw, listed, origin).status == 200


@pytest.mark.parametrize("origin", ["http://example.com", "https://example.com:8443", "https://example.com.evil.test", "https://evil-example.com",
	"https://evilexample.com", "https://example.com/", "https://example.com/x", "https://example.com@evil.test", "https://user@example.com",
	"http://b.test", "http://b.test:80800", "https://wild.test", "https://evilwild.test", "http://a.wild.test", "https://a.wild.test:8443",
	"https://.wild.test", "https://x.port.test", "https://x.port.test.evil.test:8443", "null", "NULL", "example.com", "*", "https://*",
	"https://a.wild.test, https://example.com", "https://example.com https://evil.test", "https://", "https:example.com", "file://", "x",
	"https://example.com#.wild.test", "https://evil.test?.wild.test", "https://evil.test/.wild.test", "https://evil.test\\.wild.test"])
def test_origin_is_foreign(gw, listed, origin):
	answer = from_origin(gw, listed, origin)
	assert (answer.status, grants(answer), answer.header("Vary")) == (200, {}, "Origin")
	assert preflight(gw, listed, origin).status == 403


@pytest.fixture(scope="module")
def listed(gw, backend_process):
	path = new_path(gw, backend_process)
	gw.attach("Cors", cors(LIST), to=path.route)
	return path


def test_two_origins_are_nobodys(gw, listed):
	answer = gw.get(listed, [("Origin", ORIGIN), ("Origin", "https://evil.com")])
	assert "allow-origin" not in grants(answer) or answer.status == 400


def test_null_must_be_listed(gw, path):
	attachment = gw.attach("Cors", cors("null,https://example.com"), to=path.route)
	assert grants(from_origin(gw, path, "null"))["allow-origin"] == "null"
	gw.change_policy(attachment, cors("https://example.com"))
	assert grants(from_origin(gw, path, "null")) == {}


def test_star_among_others_is_star(gw, path):
	gw.attach("Cors", cors("https://example.com,*", allowCredentials=False), to=path.route)
	assert grants(from_origin(gw, path, "https://else.test"))["allow-origin"] == "*"


def test_without_an_origin(gw, path):
	"""A cache must not hand this answer to a script of a listed origin: Vary is there all the same."""
	gw.attach("Cors", cors(), to=path.route)
	answer = gw.get(path)
	assert (answer.status, grants(answer), answer.header("Vary")) == (200, {}, "Origin")


def test_vary_is_not_doubled(gw):
	for own, expected in ((["Origin"], ["Origin"]), (["accept, ORIGIN"], ["accept, ORIGIN"]), (["*"], ["*"]), (["Accept"], ["Accept", "Origin"])):
		with Canned([("Vary", value) for value in own]) as upstream:
			path = new_path(gw, upstream.port)
			gw.attach("Cors", cors(), to=path.route)
			assert split(", ".join(from_origin(gw, path).all("Vary"))) == split(", ".join(expected))


# ---- exposed headers ----

def test_nothing_exposed(gw, path):
	gw.attach("Cors", cors(exposeHeaders=""), to=path.route)
	assert "expose-headers" not in grants(from_origin(gw, path))


def test_any_exposed(gw):
	"""With credentials "*" is taken literally by browsers, so the names are told."""
	with Canned([("X-One", "1"), ("ETag", "2"), ("Set-Cookie", "a=1"), ("Access-Control-Allow-Origin", "*")]) as upstream:
		path = new_path(gw, upstream.port)
		attachment = gw.attach("Cors", cors(exposeHeaders="*"), to=path.route)
		gw.attach("HeaderModify", headers(op("Response", "Update", "X-Two", "2")), to=path.route)
		told = {name.lower() for name in split(grants(from_origin(gw, path))["expose-headers"])}
		assert {"x-one", "etag", "x-two"} <= told
		assert not told & {"set-cookie", "access-control-allow-origin", "*", ""}
		gw.change_policy(attachment, cors("*", exposeHeaders="*", allowCredentials=False))
		assert grants(from_origin(gw, path))["expose-headers"] == "*"


# ---- answers of the gateway ----

def test_on_every_answer_of_the_gateway(gw, backend):
	site = gw.gateway()
	gw.attach("Cors", cors(), to=site)
	plain, dead = new_path(gw, backend, site=site), new_path(gw, "127.0.0.1:1", site=site)
	limited, denied, fixed = (new_path(gw, backend, site=site) for _ in range(3))
	gw.attach("RateLimit", rate(1), to=limited.route)
	gw.attach("IpAccessControl", ip_list("White", "10.0.0.1"), to=denied.route)
	gw.attach("DirectResponse", direct("418"), to=fixed.route)
	gw.get(limited, site=site)
	asked = {f"{plain.base}/status/500": 500, f"{plain.base}/status/404": 404, "/none": 404, str(dead): 503, str(limited): 429,
		str(denied): 403, str(fixed): 418, f"{plain.base}/garbage/status": 502}
	got = {target: from_origin(gw, target, site=site) for target in asked}
	assert {target: answer.status for target, answer in got.items()} == asked
	expected = {"allow-origin": ORIGIN, "allow-credentials": "true", "expose-headers": "X-Custom-Header"}
	assert {target: grants(answer) for target, answer in got.items()} == dict.fromkeys(asked, expected)
	for answer in got.values():
		assert "Origin" in answer.all("Vary")


# ---- where it is attached ----

def test_the_narrowest_wins_whole(gw, backend):
	"""Nothing of the wider ones is mixed in."""
	site = gw.gateway()
	domain = gw.domain("whole.test", site)
	path = new_path(gw, backend, site=site)
	gw.attach("Cors", cors("https://gateway.test"), to=site)

	def allowed(host="whole.test"):
		names = ("gateway", "domain", "route")
		return [name for name in names if preflight(gw, path, f"https://{name}.test", host=host, site=site).status == 200]

	assert allowed() == ["gateway"]
	at_domain = gw.attach("Cors", cors("https://domain.test", allowCredentials=False, exposeHeaders=""), to=domain)
	assert (allowed(), allowed("other.test")) == (["domain"], ["gateway"])
	answer = from_origin(gw, path, "https://domain.test", host="whole.test", site=site)
	assert grants(answer) == {"allow-origin": "https://domain.test"}
	at_route = gw.attach("Cors", cors("https://route.test"), to=path.route)
	assert (allowed(), allowed("other.test")) == (["route"], ["route"])
	gw.delete(at_route)
	gw.change_policy(at_domain, cors(enable=False))
	assert grants(from_origin(gw, path, "https://gateway.test", host="whole.test", site=site)) == {}, "off for the domain"
	assert allowed("other.test") == ["gateway"]


def test_api_and_operation(gw, backend):
	api = rest_api(gw, backend)
	one = api.operation("GET", "/a/echo")
	api.operation("GET", "/b/echo")
	gw.attach("Cors", cors("https://api.test"), to=api)

	def allowed(name, method="GET"):
		origins = ("https://api.test", "https://own.test")
		return [origin for origin in origins if preflight(gw, f"{api.base}/{name}/echo", origin, method).status == 200]

	assert allowed("a") == allowed("b") == ["https://api.test"]
	own = gw.attach("Cors", cors("https://own.test"), to=one)
	assert (allowed("a"), allowed("b")) == (["https://own.test"], ["https://api.test"])
	gw.change_policy(own, cors("https://own.test", enable=False))
	assert preflight(gw, f"{api.base}/a/echo", "https://api.test", "GET").status != 200 or \
		grants(from_origin(gw, f"{api.base}/a/echo", "https://api.test")) == {}, "switched off for the operation"


def test_change_is_in_force_with_its_answer(gw, path):
	attachment = gw.attach("Cors", cors(), to=path.route)
	with gw.connect() as connection:
		for n in range(10):
			gw.change_policy(attachment, cors(f"https://n{n}.test"))
			assert grants(connection.get(path, {"Origin": f"https://n{n}.test"}))["allow-origin"] == f"https://n{n}.test"
			assert grants(connection.get(path, {"Origin": f"https://n{n - 1}.test"})) == {}


def test_record_and_metrics(gw, path):
	attachment = gw.attach("Cors", cors(), to=path.route)
	preflight(gw, path)
	assert gw.wait_record(path=str(path), method="OPTIONS")["flag"] == "CO"
	preflight(gw, path, "https://evil.com")
	from_origin(gw, path)
	from_origin(gw, path, "https://evil.com")
	from_origin(gw, path, "https://evil.com")
	name = path.route.name
	assert outcomes(gw, attachment) == {(name, "preflight_allowed"): 1, (name, "preflight_refused"): 1, (name, "allowed"): 1,
		(name, "foreign_origin"): 2}
