"""Redirect on live traffic: Location, byte for byte, and nothing that reaches the backend."""
import json

import pytest
from gw import numbers
from pki import Authority
from policy_kit import Told, burst, cors, count, headers, op, outcomes, preflight, rate, refuse_attach, rest_api
from test_tls import Client, put_certificate, secure
from wire import Connection


def redirect(code="302", host="", path="", **more):
	return {"code": code, "host": host, "path": path, "enable": True, **more}


def redirected(gw, config, path="/", type="Prefix", site=None, target=None, **options):
	"""A gateway whose route has this redirection."""
	site = site or gw.gateway(**options)
	gw.attach("Redirect", config, to=gw.route(path, target, site=site, type=type))
	return site


def location(gw, site, asked, method="GET", fields=(), code=302, **options):
	answer = gw.request(method, asked, fields, site=site, **options)
	assert (answer.status, answer.body, answer.header("Content-Length")) == (code, b"", "0"), answer
	return answer.header("Location")


# ---- examples of the contract ----

def test_ex1_host_and_path(gw):
	site = redirected(gw, redirect("301", "new-domain.com", "/new-path"))
	assert location(gw, site, "/old?a=1", code=301) == "http://new-domain.com/new-path?a=1"


def test_ex2_host_only(gw):
	site = redirected(gw, redirect(host="new-domain.com"))
	assert location(gw, site, "/a/b%20c?x=1&y=%2F") == "http://new-domain.com/a/b%20c?x=1&y=%2F"


def test_ex3_configured_query_wins(gw):
	site = redirected(gw, redirect(path="/p?x=1"))
	assert location(gw, site, "/old?a=1", host="h.test") == "http://h.test/p?x=1"


def test_ex4_scheme_is_the_clients(gw):
	"""Only a trusted peer is believed; the https listener itself is in test_https_listener."""
	config = redirect(host="h.example")
	plain, trusting = redirected(gw, config), redirected(gw, config)
	gw.feature("xffTrustedNum", 1, trusting)
	said = {"X-Forwarded-Proto": "https"}
	assert location(gw, plain, "/x", fields=said) == "http://h.example/x"
	assert location(gw, trusting, "/x", fields=said) == "https://h.example/x"
	assert location(gw, trusting, "/x", fields={"X-Forwarded-Proto": "HTTPS"}) == "https://h.example/x"
	assert location(gw, trusting, "/x", fields={"X-Forwarded-Proto": "javascript"}) == "http://h.example/x"
	assert location(gw, trusting, "/x") == "http://h.example/x"


def test_ex5_ports(gw):
	same, other = redirected(gw, redirect(path="/p")), redirected(gw, redirect(host="b.com"))
	assert location(gw, same, "/x", host="a.com:8080") == "http://a.com:8080/p"
	assert location(gw, other, "/x", host="a.com:8080") == "http://b.com/x"


def test_ex6_post(gw):
	with Told() as upstream:
		site = redirected(gw, redirect("308", host="b.com"), target=upstream.port)
		assert location(gw, site, "/x", "POST", code=308, body=b"a=1") == "http://b.com/x"
		assert upstream.hits == 0


@pytest.mark.parametrize("config, member", [
	({"code": "300", "host": "h"}, "config.code"), ({"code": 301, "host": "h"}, "config.code"), ({"code": "302"}, "config.host"),
	({"code": "302", "host": "https://h"}, "config.host"), ({"code": "302", "host": "h/x"}, "config.host"),
	({"code": "302", "path": "x"}, "config.path"), ({"code": "302", "path": "//h"}, "config.path"),
	({"code": "302", "path": "/a\\b"}, "config.path"), ({"code": "302", "path": "/a\r\nb"}, "config.path"),
	({"code": "302", "path": "/a#b"}, "config.path"),
])
def test_ex7_rejects(gw, config, member):
	body = {"name": "r", "className": "Redirect", "config": json.dumps({"enable": True, **config})}
	status, answer, _ = gw.api("POST", "/api/v2/policies", body)
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	assert answer["errorMessage"].startswith(f"Invalid parameter: {member}"), answer


# ---- Location ----

@pytest.mark.parametrize("host, expected", [
	("a.com:80", "http://a.com/p"), ("a.com:443", "http://a.com:443/p"), ("a.com", "http://a.com/p"), ("[::1]:80", "http://[::1]/p"),
	("[::1]:8080", "http://[::1]:8080/p"), ("a.com:8080", "http://a.com:8080/p"), ("A.com", "http://A.com/p"),
])
def test_own_authority(gw, host, expected):
	site = redirected(gw, redirect(path="/p"))
	assert location(gw, site, "/x", host=host) == expected


def test_default_port_of_https(gw):
	site = redirected(gw, redirect(path="/p"))
	gw.feature("xffTrustedNum", 1, site)
	for host, expected in (("a.com:443", "https://a.com/p"), ("a.com:80", "https://a.com:80/p")):
		assert location(gw, site, "/x", fields={"X-Forwarded-Proto": "https"}, host=host) == expected


@pytest.mark.parametrize("config, asked, expected", [
	(redirect(host="h.example:8443", path="/p"), "/x?y", "http://h.example:8443/p?y"),
	(redirect(host="h.example"), "/x?", "http://h.example/x?"),
	(redirect(host="h.example"), "/x", "http://h.example/x"),
	(redirect(host="h.example", path="/p?"), "/x?y", "http://h.example/p?"),
	(redirect(host="h.example", path="/p/%2F"), "/x", "http://h.example/p/%2F"),
	(redirect(host="h.example"), "//evil.example/x", "http://h.example/evil.example/x"),
	(redirect(host="h.example"), "/a/../b/./c", "http://h.example/b/c"),
	(redirect(host="[2001:db8::1]:80"), "/x", "http://[2001:db8::1]:80/x"),
])
def test_location(gw, config, asked, expected):
	assert location(gw, redirected(gw, config), asked) == expected


def test_nothing_in_a_path_names_another_host(gw):
	"""Trap: an open redirect by //host, also when there is no host to put before it."""
	site = redirected(gw, redirect("302", path="/p"), "/fixed")
	gw.attach("Redirect", redirect(host="h.example"), to=gw.route("/", None, site=site))
	for asked in ("//evil.example", "/%2Fevil.example", "/\\evil.example", "/.//evil.example"):
		answer = gw.get(asked, site=site)
		assert answer.status == 400 or answer.header("Location").startswith("http://h.example/"), answer
	with Connection(site.port) as old:
		old.send("GET /fixed?a HTTP/1.0\r\n\r\n")
		answer = old.read_response()
		assert answer.status == 400 or answer.header("Location") == "/p?a", answer


def test_line_breaks_cannot_come_in(gw):
	site = redirected(gw, redirect(host="h.example"))
	for asked in ("/a%0d%0aSet-Cookie:x", "/x?a=%0d%0aSet-Cookie:x"):
		answer = gw.get(asked, site=site)
		assert answer.header("Set-Cookie") is None
		assert answer.status == 400 or "%0d%0a" in answer.header("Location")


@pytest.mark.parametrize("code", ["301", "302", "303", "307", "308"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "PATCH"])
def test_every_method_and_code(gw, code, method):
	site = redirected(gw, redirect(code, host="h.example"))
	with gw.connect(site) as connection:
		for _ in range(2):
			answer = connection.request(method, "/x")
			assert (answer.status, answer.header("Location"), answer.header("Content-Length")) == (int(code), "http://h.example/x", "0")
		assert connection.is_idle()


def test_body_is_not_waited_for(gw):
	site = redirected(gw, redirect("307", host="h.example"))
	with gw.connect(site) as connection:
		connection.start("POST", "/x", {"Content-Length": 1 << 20})
		answer = connection.read_response()
		assert (answer.status, answer.header("Connection")) == (307, "close")


def test_https_listener(gw):
	ca = Authority()
	site = secure(gw, put_certificate(gw, ca.issue("redirect.test")))
	gw.attach("Redirect", redirect(path="/p"), to=gw.route("/", None, site=site))
	for host, expected in (("redirect.test", "https://redirect.test/p?a"), ("redirect.test:443", "https://redirect.test/p?a"),
			("redirect.test:80", "https://redirect.test:80/p?a")):
		with Client(site.port, "redirect.test", ca) as client:
			answer = client.get("/x?a", {"X-Forwarded-Proto": "http"}, host=host)
			assert (answer.status, answer.header("Location")) == (302, expected)


# ---- loops ----

def test_loop_guard(gw):
	site = gw.gateway()
	exact = gw.route("/loop", None, site=site, type="Exact")
	for path in ("/loop", "/loop?a=1"):
		refuse_attach(gw, gw.policy("Redirect", redirect(path=path)), exact, 400, "config.path")
	gw.attach("Redirect", redirect(path="/loop/next"), to=exact)
	gw.attach("Redirect", redirect(host="h.example", path="/other"), to=gw.route("/other", None, site=site, type="Exact"))


def test_loop_guard_of_operations(gw, backend):
	api = rest_api(gw, backend)
	refuse_attach(gw, gw.policy("Redirect", redirect(path=f"{api.base}/a")), api.operation("GET", "/a"), 400, "config.path")
	gw.attach("Redirect", redirect(path=f"{api.base}/c"), to=api.operation("GET", "/b"))
	assert gw.get(f"{api.base}/b").status == 302


def test_route_that_becomes_a_loop(gw):
	site = gw.gateway()
	route = gw.route("/first", None, site=site, type="Exact")
	attachment = gw.attach("Redirect", redirect(path="/second"), to=route)
	gw.ask("PUT", route.path, {**route.body, "match": {"path": {"type": "Exact", "value": "/second"}}})
	assert gw.ask("GET", attachment.path)["status"]["phase"] == "Degraded"


# ---- order ----

def test_preflights_are_answered_first(gw):
	site = gw.gateway()
	route = gw.route("/", None, site=site)
	gw.attach("Redirect", redirect(host="h.example"), to=route)
	gw.attach("Cors", cors(), to=route)
	assert preflight(gw, "/x", site=site).status == 200
	answer = gw.get("/x", {"Origin": "https://example.com"}, site=site)
	assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (302, "https://example.com")


def test_limits_come_first(gw):
	site = gw.gateway()
	route = gw.route("/", None, site=site)
	gw.attach("Redirect", redirect(host="h.example"), to=route)
	gw.attach("RateLimit", rate(2), to=route)
	assert count(burst(gw, 4, "/x", site)) == {302: 2, 429: 2}


def test_response_headers_are_shaped(gw):
	site = gw.gateway()
	route = gw.route("/", None, site=site)
	gw.attach("Redirect", redirect(host="h.example"), to=route)
	gw.attach("HeaderModify", headers(op("Response", "Update", "Strict-Transport-Security", "max-age=1")), to=site)
	assert gw.get("/x", site=site).header("Strict-Transport-Security") == "max-age=1"


def test_on_an_operation(gw, backend):
	api = rest_api(gw, backend)
	one, _ = api.operation("GET", "/a/size/1"), api.operation("GET", "/b/size/1")
	gw.attach("Redirect", redirect("303", host="h.example"), to=one)
	assert [gw.get(f"{api.base}/{name}/size/1").status for name in "ab"] == [303, 200]


def test_disabled(gw, backend):
	base = f"/redirect-{next(numbers)}"
	gw.attach("Redirect", redirect(host="h.example", enable=False), to=gw.route(base, backend))
	assert gw.get(f"{base}/size/1").status == 200


def test_record_and_metrics(gw):
	base = f"/redirect-{next(numbers)}"
	route = gw.route(base, None)
	attachment = gw.attach("Redirect", redirect(host="h.example"), to=route)
	gw.get(base)
	record = gw.wait_record(path=base)
	assert (record["flag"], record["policy"], record["status"]) == ("RD", "Redirect", 302)
	assert outcomes(gw, attachment) == {(route.name, "redirected"): 1}
