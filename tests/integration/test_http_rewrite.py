"""HttpRewrite on live traffic: what the upstream sees is compared byte for byte."""
import json

import pytest
from policy_kit import Canned, Told, count, burst, direct, headers, op, outcomes, rate, refuse_attach, rest_api, seen


def rewrite(kind="Exact", path="", pattern="", substitution="", host="", **more):
	"""HttpRewrite, with the empty members that the reference's examples have."""
	return {"pathType": kind, "path": path, "pattern": pattern, "substitution": substitution, "host": host, "enable": True, **more}


@pytest.fixture(scope="module")
def upstream():
	"""Answers whatever the path is."""
	with Told() as told:
		yield told


def site_of(gw):
	"""A gateway of its own, so that routes may have the paths of the contract."""
	return gw.gateway()


def target(gw, upstream, config, asked, path="/", type="Prefix", site=None, **options):
	"""What the upstream was asked for when a client asks for `asked` on a route with this rewrite."""
	site = site or site_of(gw)
	gw.attach("HttpRewrite", config, to=gw.route(path, upstream.port, site=site, type=type))
	answer = gw.get(asked, site=site, **options)
	assert answer.status == 200, answer
	return upstream.targets[-1]


# ---- examples of the contract ----

def test_ex1_exact(gw, upstream):
	assert target(gw, upstream, rewrite("Exact", "/v2/api"), "/old?a=1&b=%20") == "/v2/api?a=1&b=%20"


@pytest.mark.parametrize("route, asked, expected", [("/app/", "/app/test", "/test"), ("/app", "/app/test", "/test"), ("/app", "/app", "/")])
def test_ex2_prefix_to_root(gw, upstream, route, asked, expected):
	assert target(gw, upstream, rewrite("Prefix", "/"), asked, route) == expected


def test_ex3_escapes_stay(gw, upstream):
	assert target(gw, upstream, rewrite("Prefix", "/v2"), "/v1/x%2Fy", "/v1") == "/v2/x%2Fy"


@pytest.mark.parametrize("substitution", [r"\2/instance/\1", "$2/instance/$1", "${2}/instance/${1}"])
def test_ex4_captures(gw, upstream, substitution):
	config = rewrite("Regex", pattern="^/service/([^/]+)(/.*)$", substitution=substitution)
	assert target(gw, upstream, config, "/service/foo/v1/api") == "/v1/api/instance/foo"


def test_ex5_every_match(gw, upstream):
	config = rewrite("Regex", pattern="one", substitution="two")
	assert target(gw, upstream, config, "/xxx/one/yyy/one/zzz") == "/xxx/two/yyy/two/zzz"


def test_ex6_host(gw, backend):
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite(host="new-backend.example.com"), to=gw.route("/", backend, site=site))
	got = gw.echo("/a/echo?x=1", host="first.example:8080", site=site)
	assert (got["target"], seen(got, "host")) == ("/a/echo?x=1", "new-backend.example.com")
	assert seen(got, "x-forwarded-host") == "first.example:8080"


@pytest.mark.parametrize("config, member", [
	(rewrite("Regex", pattern="(", substitution="x"), "config.pattern"),
	(rewrite("Regex", pattern="(a)(b)", substitution=r"\3"), "config.substitution"),
	(rewrite("Regex", pattern="(a)(b)", substitution="${3}"), "config.substitution"),
	(rewrite("Regex", pattern="a", substitution="/x?a=1"), "config.substitution"),
	(rewrite("Regex", pattern="a", substitution="/a b"), "config.substitution"),
	(rewrite("Regex", pattern="a", substitution="/\u00fc"), "config.substitution"),
	(rewrite("Exact", "/a%00b"), "config.path"),
	(rewrite("Exact", "/a%zz"), "config.path"),
	(rewrite("Prefix", "/..%2Fa"), "config.path"),
])
def test_ex7_rejects(gw, config, member):
	status, answer, _ = gw.api("POST", "/api/v2/policies", {"name": "r", "className": "HttpRewrite", "config": json.dumps(config)})
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	assert answer["errorMessage"].startswith(f"Invalid parameter: {member}:")


def test_ex8_slash_at_the_seam(gw, upstream):
	assert target(gw, upstream, rewrite("Prefix", "/b"), "/a/x", "/a/") == "/b/x"


# ---- the seam ----

@pytest.mark.parametrize("route, path, asked, expected", [
	("/a", "/b", "/a", "/b"), ("/a", "/b", "/a/x", "/b/x"), ("/a", "/b/", "/a/x", "/b/x"), ("/a", "/b/", "/a", "/b/"),
	("/a/", "/b", "/a/", "/b/"), ("/a/", "/b/", "/a/x", "/b/x"), ("/", "/b", "/x", "/b/x"), ("/", "/b/", "/x/y", "/b/x/y"),
	("/", "/", "/x", "/x"), ("/a", "/b/c", "/a/x/", "/b/c/x/"), ("/a", "/", "/a/x//y", "/x/y"), ("/a/b", "/", "/a/b/c", "/c"),
	("/a", "/b", "/a?q=/a", "/b?q=/a"), ("/a", "/b", "/a?", "/b?"), ("/a", "/b", "/a/a/a", "/b/a/a"),
])
def test_prefix(gw, upstream, route, path, asked, expected):
	assert target(gw, upstream, rewrite("Prefix", path), asked, route) == expected


def test_prefix_without_regard_to_case(gw, upstream):
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite("Prefix", "/b"), to=gw.route("/app", upstream.port, site=site, ignoreUriCase=True))
	assert gw.get("/APP/X", site=site).status == 200
	assert upstream.targets[-1] == "/b/X"


def test_prefix_on_an_exact_route_is_the_whole_path(gw, upstream):
	assert target(gw, upstream, rewrite("Prefix", "/b"), "/old?x", "/old", "Exact") == "/b?x"


def test_exact_on_every_kind_of_route(gw, upstream):
	for route, kind in (("/old", "Exact"), ("/old", "Prefix"), ("/o[a-z]+", "Regex")):
		assert target(gw, upstream, rewrite("Exact", "/new/"), "/old?x", route, kind) == "/new/?x", "the slash at its end stays"


def test_regex_on_a_regex_route(gw, upstream):
	assert target(gw, upstream, rewrite("Regex", pattern="o(.)", substitution=r"0\1"), "/old", "/o[a-z]+", "Regex") == "/0ld"


def test_prefix_on_a_regex_route_is_refused(gw, upstream):
	site = site_of(gw)
	route = gw.route("/o[a-z]+", upstream.port, site=site, type="Regex")
	refuse_attach(gw, gw.policy("HttpRewrite", rewrite("Prefix", "/b")), route, 400, "config.pathType")
	gw.attach("HttpRewrite", rewrite("Prefix", "", host="h.example"), to=route)    # host alone


def test_route_that_becomes_one_of_a_pattern(gw, upstream):
	"""The attachment shows it; the path goes as it is."""
	site = site_of(gw)
	route = gw.route("/old", upstream.port, site=site)
	attachment = gw.attach("HttpRewrite", rewrite("Prefix", "/new"), to=route)
	gw.ask("PUT", route.path, {**route.body, "match": {"path": {"type": "Regex", "value": "/old.*"}}})
	status = gw.ask("GET", attachment.path)["status"]
	assert (status["phase"], "pathType" in status["reason"]) == ("Degraded", True)
	assert gw.get("/old/x", site=site).status == 200
	assert upstream.targets[-1] == "/old/x"


# ---- patterns ----

@pytest.mark.parametrize("pattern, substitution, asked, expected", [
	("^/a", "", "/a/b", "/b"),
	("^/a/(.*)$", r"\1", "/a/b", "/b"),                 # no slash at its beginning: one is put there
	("^/a$", "", "/a?x=1", "/a?x=1"),                   # nothing is left: the original
	("nothing", "x", "/a/b?c", "/a/b?c"),
	("(?i)ONE", "two", "/oNe", "/two"),
	("a(x)?b", r"[\1]", "/ab", "/[]"),                  # a group that took no part
	("b", r"\0\0", "/abc", "/abbc"),
	("b", r"$$\\", "/abc", None),                       # a backslash cannot stand in a path
	("b", "$$", "/abc", "/a$c"),
	("b", "$x", "/abc", "/a$xc"),
	("b", "${x}", "/abc", "/a${x}c"),
	("x%2Fy", "z", "/a/x%2fy", "/a/z"),                 # the normal form has capital letters
	("%2F", "/", "/a%2Fb", "/a/b"),
	("$", "/end", "/a", "/a/end"),
	("x*", "-", "/ab", "/-/-a-b-"),
	("/+$", "", "/a/", "/a"),
	("(a+)(b+)", r"\2\1", "/aabb/ab", "/bbaa/ba"),
	("q=1", "q=2", "/a?q=1", "/a?q=1"),                 # the query is not looked at
])
def test_regex(gw, upstream, pattern, substitution, asked, expected):
	site = site_of(gw)
	attachment = gw.attach("HttpRewrite", rewrite("Regex", pattern=pattern, substitution=substitution), to=gw.route("/", upstream.port, site=site))
	before = len(upstream.targets)
	answer = gw.get(asked, site=site)
	if expected is None:
		assert (answer.status, answer.json["errorCode"]) == (400, "ErrInvalidPath")
		assert len(upstream.targets) == before
		assert {outcome: n for (_, outcome), n in outcomes(gw, attachment).items()} == {"rewritten": 0, "refused": 1}
	else:
		assert (answer.status, upstream.targets[-1]) == (200, expected)


# ---- unsafe results ----

@pytest.mark.parametrize("pattern, substitution, asked", [
	("^/f/(.*)x$", r"/safe/\1/secret", "/f/..x"),       # a capture that is a dot segment
	("^/f/(.*)x$", r"/safe/\1/secret", "/f/.x"),
	("x", "", "/f/.x./secret"),
	("x", "", "/f/%x2Fetc"),                            # an escape that comes together
	("x", "", "/f/%2xe%2xe/secret"),
	("x", "", "/f/%x00"),
	("x", "%2F", "/f/..x"),
	("z", "", "/f/..z;x/b"),
	("-", ";", "/f/..-a/b"),
	("(..)(..)", r"\1%\2", "/f/0000"),
])
def test_unsafe_results_are_refused(gw, upstream, pattern, substitution, asked):
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite("Regex", pattern=pattern, substitution=substitution), to=gw.route("/f", upstream.port, site=site))
	before = len(upstream.targets)
	answer = gw.get(asked, site=site)
	assert answer.status == 400, upstream.targets[before:]
	assert len(upstream.targets) == before


def test_pattern_that_takes_too_long(gw, upstream):
	"""The request fails; the original path does not reach the upstream instead. Others are served meanwhile."""
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite("Regex", pattern="(a|aa)+[bd]", substitution="/x"), to=gw.route("/f", upstream.port, site=site))
	before = len(upstream.targets)
	answer = gw.get("/f/" + "a" * 5000 + "c", site=site)
	assert answer.status == 500
	assert len(upstream.targets) == before
	assert gw.get("/f/aab", site=site).status == 200
	record = gw.wait_record(status=500, flag="PF")
	assert record["broken"] == "the pattern takes too many steps on this path"


def test_result_that_would_be_huge(gw, upstream):
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite("Regex", pattern="[a-z]", substitution="x" * 4000), to=gw.route("/", upstream.port, site=site))
	before = len(upstream.targets)
	assert gw.get("/" + "a" * 8000, site=site).status == 500
	assert len(upstream.targets) == before
	assert gw.get("/aaa", site=site).status == 200
	assert upstream.targets[-1] == "/" + "x" * 12000


# ---- once, and after everything that looks at the path ----

def test_host_with_port(gw, backend):
	for host in ("h.example:8443", "[::1]:80", "127.0.0.1"):
		site = site_of(gw)
		gw.attach("HttpRewrite", rewrite("Exact", "/echo", host=host), to=gw.route("/", backend, site=site))
		got = gw.echo("/x", site=site)
		assert (seen(got, "host"), got["target"]) == (host, "/echo")


def test_forwarded_host_of_a_trusted_peer_stays(gw, backend):
	site = site_of(gw)
	gw.feature("xffTrustedNum", 1, site)
	gw.attach("HttpRewrite", rewrite(host="h.example"), to=gw.route("/", backend, site=site))
	got = gw.echo("/echo", {"X-Forwarded-Host": "first.example"}, site=site)
	assert (seen(got, "x-forwarded-host"), seen(got, "host")) == ("first.example", "h.example")


def test_routes_are_not_matched_again(gw, upstream):
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite("Prefix", "/b"), to=gw.route("/a", upstream.port, site=site))
	other = gw.route("/b", None, site=site)
	gw.attach("DirectResponse", direct("200", "other"), to=other)
	assert gw.get("/a/x", site=site).text == "told"
	assert upstream.targets[-1] == "/b/x"


def test_limits_count_the_original(gw, upstream):
	site = site_of(gw)
	route = gw.route("/a", upstream.port, site=site)
	gw.attach("HttpRewrite", rewrite("Exact", "/b"), to=route)
	gw.attach("RateLimit", rate(2), to=route)
	before = len(upstream.targets)
	assert count(burst(gw, 4, "/a", site)) == {200: 2, 429: 2}
	assert upstream.targets[before:] == ["/b", "/b"]


def test_headers_see_the_original(gw, backend):
	site = site_of(gw)
	route = gw.route("/a", backend, site=site)
	gw.attach("HttpRewrite", rewrite("Prefix", "/b", host="h.example"), to=route)
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Path", "request.path", "Reference"), op("Request", "Update", "X-Host",
		"request.host", "Reference")), to=route)
	got = gw.echo("/a/echo", site=site, host="first.example")
	assert (seen(got, "x-path"), seen(got, "x-host"), got["target"]) == ("/a/echo", "first.example", "/b/echo")


def test_record_has_both_paths(gw, upstream):
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite("Prefix", "/new"), to=gw.route("/record-old", upstream.port, site=site))
	gw.get("/record-old/x?secret=1", site=site)
	record = gw.wait_record(path="/record-old/x")
	assert record["upstreamPath"] == "/new/x"
	gw.route("/record-same", upstream.port, site=site)
	gw.get("/record-same", site=site)
	assert "upstreamPath" not in gw.wait_record(path="/record-same")


def test_body_and_method_stay(gw, backend):
	site = site_of(gw)
	gw.attach("HttpRewrite", rewrite("Exact", "/echo"), to=gw.route("/", backend, site=site))
	got = gw.echo("/x", method="PUT", body=b"z" * 100000, site=site)
	assert (got["method"], got["target"], got["bodyBytes"]) == ("PUT", "/echo", 100000)


def test_locations_of_the_upstream_stay(gw, backend):
	site = site_of(gw)
	with Canned([("Location", "http://h.example/b/next")], b"", status=302) as canned:
		gw.attach("HttpRewrite", rewrite("Prefix", "/b", host="h.example"), to=gw.route("/a", canned.port, site=site))
		assert gw.get("/a/x", site=site).header("Location") == "http://h.example/b/next"


def test_disabled(gw, upstream):
	assert target(gw, upstream, rewrite("Exact", "/new", enable=False), "/old") == "/old"


# ---- APIs ----

def test_api_prefix_is_its_base_path(gw, upstream):
	site = site_of(gw)
	api = rest_api(gw, upstream.port, site, "/v1")
	gw.attach("HttpRewrite", rewrite("Prefix", "/v2"), to=api)
	assert gw.get("/v1/pets", site=site).status == 200
	assert upstream.targets[-1] == "/v2/pets", "without operations it is one prefix"
	api.operation("GET", "/pets")
	api.operation("GET", "/pets/{id}/toys")
	for asked, expected in (("/v1/pets?x", "/v2/pets?x"), ("/v1/pets/a%2Fb/toys", "/v2/pets/a%2Fb/toys")):
		assert gw.get(asked, site=site).status == 200
		assert upstream.targets[-1] == expected


def test_operation_replaces_api(gw, upstream):
	site = site_of(gw)
	api = rest_api(gw, upstream.port, site, "/")
	own, _ = api.operation("GET", "/pets"), api.operation("GET", "/toys")
	gw.attach("HttpRewrite", rewrite("Prefix", "/all"), to=api)
	gw.attach("HttpRewrite", rewrite("Exact", "/own"), to=own)
	for asked, expected in (("/pets", "/own"), ("/toys", "/all/toys")):
		assert gw.get(asked, site=site).status == 200
		assert upstream.targets[-1] == expected
