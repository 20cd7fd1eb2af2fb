"""ExternalZAuth on live traffic: the acceptance examples of its contract, its rules (EXT-n), hostile services, and what it shows when
the service is down. test_ex<n> are the contract's examples."""
import socket
import threading
import time

import pytest
from backends import Backend
from gw import Gateway, free_port, numbers
from h2wire import H2
from pki import Authority
from policy_kit import Told, cors, gauge, outcomes, phase, preflight, raw_get
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame
from side_services import NameServer, SideService, plain
from tls_backends import server_context
from wire import Closed, wait_until

UNAVAILABLE = "external authentication unavailable"


@pytest.fixture
def auth():
	with SideService() as service:
		yield service


def config(auth, path="", **more):
	return {"authServiceUrl": (auth if isinstance(auth, str) else auth.url) + path, "timeout": 5000, "enable": True, **more}


def guarded(gw, backend, auth, path="", target=None, **more):
	"""A new route behind ExternalZAuth: its path. `target`: an upstream of its own."""
	base = f"/auth-{next(numbers)}"
	guarded.route = gw.route(base, target if target is not None else backend)
	guarded.attachment = gw.attach("ExternalZAuth", config(auth, path, **more), to=guarded.route)
	return base


def is_refused(answer):
	return answer.status == 403 and answer.json["errorMessage"] == UNAVAILABLE


# ---- examples of the contract ----

def test_ex1_yes_reaches_the_upstream(gw, backend, auth):
	base = guarded(gw, backend, auth, "/verify")
	answer = gw.request("POST", f"{base}/v1/x?y=1", {"Authorization": "Bearer t", "Cookie": "a=b"}, b"secret body")
	assert answer.status == 200
	assert backend.last().method == "POST"
	assert backend.last().body == b"secret body"
	seen = auth.last
	assert (seen.method, seen.target) == ("POST", f"/verify{base}/v1/x?y=1")
	assert seen.header("Authorization") == "Bearer t"
	assert seen.header("Cookie") == "a=b"
	assert seen.header("Content-Length") == "0"
	assert seen.header("Transfer-Encoding") is None
	assert seen.body == b""
	assert outcomes(gw, guarded.attachment)[guarded.route.name, "passed"] == 1


def test_ex2_a_refusal_is_relayed_as_it_is(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(401, [("WWW-Authenticate", 'Bearer realm="x"'), ("Content-Type", "application/json"), ("X-Why", "expired")],
		b'{"why":"expired"}')
	answer = gw.get(base)
	assert answer.status == 401
	assert answer.header("WWW-Authenticate") == 'Bearer realm="x"'
	assert answer.header("Content-Type") == "application/json"
	assert answer.header("X-Why") == "expired"
	assert answer.body == b'{"why":"expired"}'
	assert answer.header("Content-Length") == "17"
	assert backend.requests() == []
	record = gw.wait_record(path=base)
	assert (record["flag"], record["policy"]) == ("UA", "ExternalZAuth")


def test_ex3_a_redirect_is_relayed(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(302, [("Location", "https://idp.example.com/login?next=%2F"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
	answer = gw.get(base)
	assert answer.status == 302
	assert answer.header("Location") == "https://idp.example.com/login?next=%2F"
	assert answer.all("Set-Cookie") == ["a=1", "b=2"]
	assert len(auth.asked) == 1
	assert backend.requests() == []


@pytest.mark.parametrize("status", [500, 502, 503, 599])
def test_ex4_an_error_of_the_service_refuses(gw, backend, auth, status):
	base = guarded(gw, backend, auth)
	auth.answer = plain(status, [], b"internals")
	answer = gw.get(base)
	assert is_refused(answer)
	assert b"internals" not in answer.body
	assert answer.json["errorCode"] == "ErrForbidden"
	assert backend.requests() == []
	assert gw.wait_record(path=base)["flag"] == "PF"


def test_ex4_a_service_that_is_down_refuses(gw, backend):
	assert is_refused(gw.get(guarded(gw, backend, f"http://127.0.0.1:{free_port()}")))
	assert backend.requests() == []


def test_ex4_a_slow_service_refuses_when_the_time_is_over(gw, backend, auth):
	base = guarded(gw, backend, auth, timeout=300)
	gate = threading.Event()
	auth.answer = lambda request, connection: gate.wait(30) and plain()
	try:
		begin = time.monotonic()
		assert is_refused(gw.get(base))
		assert 0.25 <= time.monotonic() - begin < 5
	finally:
		gate.set()


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_ex5_every_2xx_lets_pass(gw, backend, auth, status):
	auth.answer = plain(status)
	assert gw.get(guarded(gw, backend, auth) + "/echo").status == 200


def test_ex6_the_services_identity_replaces_the_clients(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(200, [("X-Mse-Consumer", "c9"), ("X-User-Role", "ops"), ("X-Auth-Request-Groups", "a"),
		("X-Auth-Request-Groups", "b"), ("Remote-User", "u"), ("X-Other", "no"), ("Set-Cookie", "no=1")])
	gw.get(base, {"X-Mse-Consumer": "admin", "X-User-Id": "0", "X-User-Role": "root", "X-Forwarded-User": "root",
		"x-FORWARDED-email": "root@x", "X-Forwarded-Groups": "wheel", "Remote-User": "root", "Remote-Groups": "wheel",
		"Remote-Name": "r", "Remote-Email": "r@x", "X-Auth-Request-User": "root", "X-Sluice-Anything": "1",
		"X-Higress-Fallback-From": "x", "X-Envoy-Auth-Failure-Mode-Allowed": "true", "X-Useful": "stays"})
	sent = backend.last()
	assert sent.header("X-Mse-Consumer") == "c9"
	assert sent.header("X-User-Role") == "ops"
	assert sent.header("Remote-User") == "u"
	assert sent.all("X-Auth-Request-Groups") == ["a", "b"]
	assert sent.header("X-Useful") == "stays"
	for name in ("X-User-Id", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "Remote-Groups", "Remote-Name",
		"Remote-Email", "X-Auth-Request-User", "X-Other", "X-Sluice-Anything", "X-Higress-Fallback-From", "Set-Cookie",
		"X-Envoy-Auth-Failure-Mode-Allowed", "X-Sluice-Ext-Auth"):
		assert sent.all(name) == [], name
	# What the client claims to be does not reach the service either.
	for name in ("X-Mse-Consumer", "X-User-Id", "Remote-User", "X-Forwarded-User", "X-Auth-Request-User"):
		assert auth.last.all(name) == [], name
	assert gw.wait_record(path=base)["consumer"] == "c9"


def test_ex6_the_consumer_is_the_requests(gw, backend, auth):
	base = guarded(gw, backend, auth)
	gw.attach("HeaderModify", {"headerOpItems": [{"directionType": "Request", "opType": "Add", "key": "X-Copy", "value": "consumer.name",
		"policyValueGenerateMode": "Reference"}], "enable": True}, to=guarded.route)
	auth.answer = plain(200, [("X-Mse-Consumer", "c9")])
	gw.get(base)
	assert backend.last().header("X-Copy") == "c9"


@pytest.mark.parametrize("path, form", [("//b/%2e%2e/c", "/c"), ("/a/./b//c", "/a/b/c"), ("/%7euser/x%2Fy", "/~user/x%2Fy"),
	("/a?q=%2e%2e//&&x", "/a?q=%2e%2e//&&x")])
def test_ex7_the_service_sees_the_form_that_the_upstream_gets(gw, backend, auth, path, form):
	base = guarded(gw, backend, auth, "/verify")
	assert gw.get(base + path).status == 200
	assert auth.last.target == f"/verify{base}{form}"
	assert backend.last().target == base + form
	assert auth.last.header("X-Original-Uri") == base + form


def test_ex8_a_large_upload_is_neither_sent_nor_held(gw, backend, auth):
	base = guarded(gw, backend, auth)
	size = 64 << 20
	before = gw.rss_kb()
	with gw.connect() as connection:
		connection.send(f"POST {base} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
		piece = b"x" * (1 << 20)
		for _ in range(size // len(piece)):
			connection.send(piece)
		assert connection.read_response().status == 200
	assert backend.last().body_bytes == size
	assert auth.last.body == b""
	assert auth.last.header("Content-Length") == "0"
	assert gw.rss_kb() - before < 40_000


def test_ID1_reserved_fields_of_clients_go_nowhere(gw, backend):
	base = f"/reserved-{next(numbers)}"
	gw.route(base, backend)
	gw.get(base, {"X-Mse-Consumer": "admin", "X-SLUICE-User": "admin", "x-higress-fallback-from": "x", "X-Sluice": "stays",
		"X-Envoy-Auth-Failure-Mode-Allowed": "true", "X-User-Id": "stays"})
	sent = backend.last()
	for name in ("X-Mse-Consumer", "X-Sluice-User", "X-Higress-Fallback-From", "X-Envoy-Auth-Failure-Mode-Allowed"):
		assert sent.all(name) == [], name
	assert sent.header("X-Sluice") == sent.header("X-User-Id") == "stays"


# ---- rules ----

@pytest.mark.parametrize("url, target, expected", [
	("", "/x", "/x"), ("/", "/x", "/x"), ("/v/", "/x/", "/v/x/"), ("/v?tenant=1", "/x?id=2", "/v/x?tenant=1&id=2"),
	("/v?tenant=1", "/x", "/v/x?tenant=1"), ("/v", "/x?", "/v/x?"), ("/a%20b//c", "/x", "/a%20b//c/x"),
])
def test_EXT1_path_and_query(gw, backend, auth, url, target, expected):
	base = guarded(gw, backend, auth, url)
	assert gw.get(base + target).status == 200
	path, _, query = expected.partition("?")
	at = len(path) - len(target.partition("?")[0])
	assert auth.last.target == path[:at] + base + path[at:] + ("?" + query if "?" in expected else "")


def test_EXT2_what_the_service_is_told(gw, backend, auth):
	base = guarded(gw, backend, auth)
	gw.request("POST", f"{base}?a=1", [("Host", "shop.example.com"), ("X-Request-Id", "trace-1"), ("X-Forwarded-For", "6.6.6.6"),
		("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"), ("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/evil"),
		("X-Original-Method", "GET"), ("X-Original-Uri", "/evil"), ("TE", "trailers"), ("Connection", "X-Hop"), ("X-Hop", "1"),
		("Accept-Encoding", "gzip"), ("Keep-Alive", "5"), ("Accept", "a"), ("Accept", "b"), ("Sec-WebSocket-Protocol", "x"),
		("Expect", "100-continue"), ("Proxy-Connection", "close"), ("Content-Type", "text/plain")], b"12345")
	seen = auth.last
	assert seen.version == "HTTP/1.1"
	assert seen.header("Host") == auth.address
	assert seen.header("X-Forwarded-For") == "127.0.0.1"
	assert seen.header("X-Forwarded-Proto") == "http"
	assert seen.header("X-Forwarded-Host") == "shop.example.com"
	assert seen.header("X-Forwarded-Method") == seen.header("X-Original-Method") == "POST"
	assert seen.header("X-Forwarded-Uri") == seen.header("X-Original-Uri") == f"{base}?a=1"
	assert seen.header("X-Request-Id") == "trace-1" == backend.last().header("X-Request-Id")
	assert seen.all("Accept") == ["a", "b"]
	assert seen.header("Content-Type") == "text/plain"
	assert seen.header("X-Sluice-Ext-Auth") == "1"
	for name in ("TE", "Connection", "X-Hop", "Accept-Encoding", "Keep-Alive", "Sec-WebSocket-Protocol", "Expect", "Proxy-Connection",
		"Transfer-Encoding", "Upgrade", "Trailer"):
		assert seen.all(name) == [], name


def test_EXT3_the_body_of_a_yes_is_thrown_away(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(200, [], b"x" * 5000)
	for _ in range(3):
		assert b"xxxx" not in gw.get(base).body
	assert auth.opened == 1


def test_EXT3_the_body_of_a_yes_is_not_waited_for(gw, backend, auth):
	base = guarded(gw, backend, auth, timeout=20000)
	gate = threading.Event()

	def answer(request, connection):
		connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345")
		gate.wait(30)

	auth.answer = answer
	try:
		assert gw.get(base).status == 200
	finally:
		gate.set()


@pytest.mark.parametrize("size, is_relayed", [(65536, True), (65537, False)])
@pytest.mark.parametrize("chunked", [False, True])
def test_EXT4_a_refusal_of_64_KiB_is_relayed_and_no_more(gw, backend, auth, size, is_relayed, chunked):
	base = guarded(gw, backend, auth)
	body = b"n" * size

	def answer(request, connection):
		if not chunked:
			return plain(403, [], body)
		connection.send(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (size, body))
		return b"0\r\n\r\n"

	auth.answer = answer
	answer = gw.get(base)
	if is_relayed:
		assert (answer.status, answer.body) == (403, body)
	else:
		assert is_refused(answer)


def test_EXT4_framing_and_hop_fields_of_the_refusal_stay_behind(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = (b"HTTP/1.1 418 Teapot\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nTransfer-Encoding: chunked\r\n"
		b"X-Request-Id: other\r\nServer: auth\r\n\r\n2\r\nno\r\n0\r\n\r\n")
	answer = gw.get(base, {"X-Request-Id": "mine"})
	assert (answer.status, answer.body) == (418, b"no")
	assert answer.header("X-Request-Id") == "mine"
	assert answer.header("Server") == "auth"
	assert answer.all("X-Hop") == answer.all("Keep-Alive") == answer.all("Transfer-Encoding") == []
	assert len(answer.all("Date")) == 1
	assert gw.get(base).status == 418    # the client's connection was kept


def test_EXT4_head_and_304(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(304, [("ETag", '"x"')])
	assert gw.get(base).status == 304
	auth.answer = b"HTTP/1.1 401 No\r\nContent-Length: 12\r\n\r\n"
	answer = gw.request("HEAD", base)
	assert (answer.status, answer.body) == (401, b"")
	assert auth.last.method == "HEAD"


def test_EXT7_connections_are_kept_and_calls_are_one_per_request(gw, backend, auth):
	base = guarded(gw, backend, auth)
	for _ in range(20):
		assert gw.get(base).status == 200
	assert len(auth.asked) == 20
	assert auth.opened == 1


def test_EXT7_one_call_however_often_the_request_is_tried(gw, auth):
	with Told(status=503) as upstream:
		base = guarded(gw, None, auth, target=upstream.port)
		gw.attach("Retry", {"attempts": 3, "retryOn": ["5xx"], "httpCodes": ["503"], "enable": True}, to=guarded.route)
		assert gw.get(base).status == 503
		assert upstream.hits == 4
	assert len(auth.asked) == 1


def test_EXT7_a_stale_connection_costs_nobody_anything(gw, backend, auth):
	base = guarded(gw, backend, auth)

	def answer(request, connection):
		connection.send(plain(200))
		return None

	auth.answer = answer
	for _ in range(10):
		assert gw.request("POST", base, body=b"x").status == 200


def test_EXT8_upgrade_is_asked_as_a_plain_get(gw, backend, auth):
	with Scripted(echo_frames) as upstream:
		base = guarded(gw, backend, auth, target=upstream.port)
		with gw.connect() as connection:
			connection.start("GET", base, UPGRADE)
			assert connection.read_head().status == 101
			connection.send(frame(b"hello", mask=True))
			assert read_frame(connection)[1] == b"hello"
	assert auth.last.method == "GET"
	for name in ("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
		assert auth.last.all(name) == [], name
	auth.answer = plain(401)
	assert gw.get(base, UPGRADE).status == 401


def test_EXT8_grpc_clients_get_a_status_they_understand(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(401, [("Content-Type", "text/html"), ("WWW-Authenticate", "Bearer")], b"<p>no</p>")
	answer = gw.request("POST", base, {"Content-Type": "application/grpc", "TE": "trailers"}, b"")
	assert (answer.status, answer.header("grpc-status"), answer.header("Content-Type")) == (200, "16", "application/grpc")
	auth.answer = plain(500)
	answer = gw.request("POST", base, {"Content-Type": "application/grpc", "TE": "trailers"}, b"")
	assert (answer.status, answer.header("grpc-status")) == (200, "7")


def test_EXT8_a_preflight_is_answered_before_the_service_is_asked(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(401)
	assert preflight(gw, base).status == 401    # without Cors it is a request like any other
	gw.attach("Cors", cors(), to=guarded.route)
	auth.clear()
	assert preflight(gw, base).status in (200, 204)
	assert auth.asked == []


def test_refusals_carry_cors(gw, backend, auth):
	base = guarded(gw, backend, auth)
	gw.attach("Cors", cors(), to=guarded.route)
	for status in (401, 500):
		auth.answer = plain(status, [("Access-Control-Allow-Origin", "*")])
		answer = gw.get(base, {"Origin": "https://example.com"})
		assert answer.header("Access-Control-Allow-Origin") == "https://example.com"


def test_EXT9_the_service_behind_the_route_that_asks_it(gw, backend):
	base = f"/loop-{next(numbers)}"
	route = gw.route(base, backend)
	attachment = gw.attach("ExternalZAuth", config(f"http://127.0.0.1:{gw.port}", base), to=route)
	answer = gw.get(base)
	assert is_refused(answer)    # the sub-request was answered 500
	assert backend.requests() == []
	assert outcomes(gw, attachment)[route.name, "loop"] == 1
	assert wait_until(lambda: gw.events("external_auth.loop"), 5, "a record of the loop")


def test_EXT9_another_policy_on_the_way_is_no_loop(gw, backend, auth):
	"""The authorization service of one route is itself guarded, by another policy."""
	inner = guarded(gw, backend, auth)
	outer = guarded(gw, backend, f"http://127.0.0.1:{gw.port}", inner)
	backend.clear()
	assert gw.get(f"{outer}/echo").status == 200
	assert [record.target for record in backend.requests()] == [f"{inner}{outer}/echo", f"{outer}/echo"]


def test_EXT10_names_are_written_once(gw, backend, auth):
	base = guarded(gw, backend, auth)
	gw.get(base, [("x-request-id", "a"), ("X-REQUEST-ID", "b")])
	names = [line.split(":")[0].lower() for line in auth.last.lines]
	assert len(names) == len(set(names)), names


def test_over_http2(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(200, [("X-Mse-Consumer", "c9")])
	with H2(gw.port) as connection:
		answer = connection.get(f"{base}/echo", more=[("x-mse-consumer", "admin"), ("cookie", "a=b")])
		assert answer.status == 200
		assert backend.last().header("X-Mse-Consumer") == "c9"
		assert auth.last.header("Cookie") == "a=b"
		auth.answer = plain(401, [("WWW-Authenticate", "Bearer")], b"no")
		answer = connection.get(base)
		assert (answer.status, answer.body) == (401, b"no")


def test_a_service_that_takes_its_time_is_no_slow_client(backend_process, auth):
	"""What the client's body waits for is us."""
	with Gateway(body_idle_ms=300, header_timeout_ms=500) as gw:
		base = guarded(gw, backend_process, auth)
		auth.answer = lambda request, connection: time.sleep(1.2) or plain()
		body = b"x" * 3_000_000
		with gw.connect() as connection:
			connection.send(f"POST {base} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:10000])
			wait_until(lambda: auth.asked, 10, "a question")
			connection.send(body[10000:])
			assert connection.read_response().status == 200
		assert backend_process.last().body_bytes == len(body)


def test_a_client_that_leaves_takes_the_call_along(gw, backend, auth):
	base = guarded(gw, backend, auth, timeout=60000)
	gate = threading.Event()
	auth.answer = lambda request, connection: gate.wait(60) and plain()
	with gw.connect() as connection:
		connection.start("GET", base)
		wait_until(lambda: auth.asked, 10, "a question")
		assert active_calls(gw) == 1
	wait_until(lambda: active_calls(gw) == 0, 10, "the end of the call")
	gate.set()
	assert backend.requests() == []


def test_a_restart_of_the_service_is_survived(gw, backend):
	port = free_port()
	base = guarded(gw, backend, f"http://127.0.0.1:{port}")
	for _ in range(2):
		with SideService(address=("127.0.0.1", port)) as service:
			assert gw.get(base).status == 200
			assert len(service.asked) == 1
		assert is_refused(gw.get(base))


# ---- levels ----

def test_the_narrower_attachment_acts_alone(gw, backend, auth):
	with SideService() as other:
		site = gw.gateway()
		first, second = gw.route("/one", backend, site=site), gw.route("/two", backend, site=site)
		gw.attach("ExternalZAuth", config(auth), to=site)
		own = gw.attach("ExternalZAuth", config(other), to=second)
		assert gw.get("/one", site=site).status == 200
		assert (len(auth.asked), len(other.asked)) == (1, 0)
		assert gw.get("/two", site=site).status == 200
		assert (len(auth.asked), len(other.asked)) == (1, 1)
		# Disabled it is as if it were not there: the door that the gateway's closed stays closed.
		gw.change_policy(own, config(other, enable=False))
		auth.answer = plain(403)
		assert gw.get("/two", site=site).status == 403
		assert len(other.asked) == 1
		assert first.id != second.id


def test_disabled_asks_nobody(gw, backend, auth):
	base = guarded(gw, backend, auth, enable=False)
	assert gw.get(base).status == 200
	assert auth.asked == []
	assert phase(gw, guarded.attachment) == "Disabled"


def test_requests_that_match_no_route_are_asked_about(gw, auth):
	site = gw.gateway()
	gw.attach("ExternalZAuth", config(auth), to=site)
	auth.answer = plain(401)
	assert gw.get("/nothing", site=site).status == 401
	auth.answer = plain(200)
	assert gw.get("/nothing", site=site).status == 404


# ---- rejects ----

@pytest.mark.parametrize("change, field", [
	({"authServiceUrl": None}, "authServiceUrl"), ({"authServiceUrl": ""}, "authServiceUrl"), ({"authServiceUrl": 5}, "authServiceUrl"),
	({"authServiceUrl": "auth.example.com/x"}, "authServiceUrl"), ({"authServiceUrl": "ftp://auth/x"}, "authServiceUrl"),
	({"authServiceUrl": "/x"}, "authServiceUrl"), ({"authServiceUrl": "http://"}, "authServiceUrl"),
	({"authServiceUrl": "http://u:p@auth/x"}, "authServiceUrl"), ({"authServiceUrl": "http://auth/x#f"}, "authServiceUrl"),
	({"authServiceUrl": "http://auth/x y"}, "authServiceUrl"), ({"authServiceUrl": "http://auth/\r\nX: y"}, "authServiceUrl"),
	({"authServiceUrl": "http://auth/" + "x" * 2048}, "authServiceUrl"), ({"authServiceUrl": "http://auth:65536/"}, "authServiceUrl"),
	({"authServiceUrl": "http://169.254.169.254/latest"}, "authServiceUrl"), ({"authServiceUrl": "http://[fe80::1]/"}, "authServiceUrl"),
	({"timeout": 0}, "timeout"), ({"timeout": -1}, "timeout"), ({"timeout": 60001}, "timeout"), ({"timeout": "5000"}, "timeout"),
	({"timeout": 1.5}, "timeout"), ({"enable": None}, "enable"), ({"enable": 1}, "enable"), ({"authUrl": "x"}, "authUrl"),
])
def test_rejects(gw, change, field):
	import json
	body = config("http://auth.example.com/verify")
	body = {name: value for name, value in {**body, **change}.items() if value is not None}
	status, answer, _ = gw.api("POST", "/api/v2/policies",
		{"name": "p", "className": "ExternalZAuth", "config": json.dumps(body)})
	assert (status, answer["errorCode"]) == (400, "ErrInvalidParameter")
	assert answer["errorMessage"].startswith(f"Invalid parameter: config.{field}"), answer


@pytest.mark.parametrize("timeout", [1, 5000, 60000, None])
def test_accepts(gw, timeout):
	body = config("http://name.that.does.not.resolve.invalid/x", timeout=timeout)
	gw.policy("ExternalZAuth", {name: value for name, value in body.items() if value is not None})


def test_rejects_a_service(gw, backend, auth):
	policy = gw.policy("ExternalZAuth", config(auth))
	service = gw.service(backend)
	status, answer, _ = gw.api("POST", "/api/v1/policy-attachments", {"policyId": policy.id, "attachResourceId": service.id,
		"attachResourceType": "Service", "gatewayId": service.gateway})
	assert status == 400
	assert answer["errorMessage"].startswith("Invalid parameter: attachResourceType"), answer


# ---- hostile services ----

def say(*pieces, hold=None):
	"""Sends the pieces; then waits for `hold`, or ends the connection."""
	def answer(request, connection):
		for piece in pieces:
			connection.send(piece)
		if hold:
			hold.wait(30)
	return answer


@pytest.mark.parametrize("what, pieces", [
	("closes", []), ("garbage", [b"\x16\x03\x01\x02\x00garbage\r\n\r\n"]), ("another protocol", [b"SSH-2.0-x\r\n\r\n"]),
	("half a head", [b"HTTP/1.1 200 OK\r\nX: "]), ("two lengths", [b"HTTP/1.1 401 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"]),
	("half a refusal", [b"HTTP/1.1 401 X\r\nContent-Length: 10\r\n\r\nhalf"]), ("huge head", [b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200000]),
	("many interim heads", [b"HTTP/1.1 100 Continue\r\n\r\n" * 100]), ("status 99", [b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"]),
	("status 600", [b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n"]), ("101", [b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"]),
	("bad chunk", [b"HTTP/1.1 401 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]),
])
def test_hostile_answers_refuse(gw, backend, auth, what, pieces):
	base = guarded(gw, backend, auth)
	auth.answer = say(*pieces)
	assert is_refused(gw.get(base)), what
	assert backend.requests() == []
	auth.answer = plain()
	assert gw.get(base).status == 200


def test_an_endless_refusal_is_cut(gw, backend, auth):
	"""1 GB is promised and sent as long as the gateway reads."""
	base = guarded(gw, backend, auth)
	sent = []

	def answer(request, connection):
		connection.send("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
		piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
		for _ in range(1 << 14):
			connection.send(piece)
			sent.append(65536)

	auth.answer = answer
	before = gw.rss_kb()
	assert is_refused(gw.get(base))
	wait_until(lambda: auth.lost == 1, 20, "the end of the connection")
	assert sum(sent) < 64 << 20
	assert gw.rss_kb() - before < 40_000


def test_an_endless_yes_is_cut(gw, backend, auth):
	base = guarded(gw, backend, auth)

	def answer(request, connection):
		connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		while True:
			connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

	auth.answer = answer
	assert gw.get(base).status == 200
	wait_until(lambda: auth.lost == 1, 20, "the end of the connection")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 401 No\r\nContent-Length: 1000\r\n\r\n"])
def test_a_slow_drip_is_over_when_the_time_is(gw, backend, auth, head):
	base = guarded(gw, backend, auth, timeout=400)

	def answer(request, connection):
		connection.send(head or b"HTTP/1.1 200 OK\r\nX: ")
		while True:
			connection.send(b"x")
			time.sleep(0.05)

	auth.answer = answer
	begin = time.monotonic()
	assert is_refused(gw.get(base))
	assert time.monotonic() - begin < 5
	wait_until(lambda: auth.lost == 1, 20, "the end of the connection")


def test_a_hanging_service_holds_nobody_else(gw, backend, auth):
	slow, gate = guarded(gw, backend, auth, timeout=60000), threading.Event()
	auth.answer = lambda request, connection: gate.wait(60) and plain()
	fast = f"/fast-{next(numbers)}"
	gw.route(fast, backend)
	connections = [gw.connect() for _ in range(60)]
	try:
		for connection in connections:
			connection.start("GET", slow)
		wait_until(lambda: len(auth.asked) == 60, 20, "60 questions")
		# Both workers wait for answers, and serve.
		for _ in range(8):
			with gw.connect() as connection:
				connection.socket.settimeout(10)
				assert connection.get(fast).status == 200
		gate.set()
		assert [connection.read_response().status for connection in connections] == [200] * 60
	finally:
		gate.set()
		for connection in connections:
			connection.close()


# ---- addresses ----

def test_our_own_admin_listener_is_not_called(gw, backend):
	for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
		base = guarded(gw, backend, f"http://{host}:{gw.admin_port}/livez?")
		assert is_refused(gw.get(base)), host
		status = gw.ask("GET", guarded.attachment.path)["status"]
		assert "may be called" in status["lastError"], status


def test_names_that_lead_to_forbidden_addresses(backend_process):
	names = {"meta.example.com": ["169.254.169.254"], "alibaba.example.com": ["100.100.100.200"], "zero.example.com": ["0.0.0.0"]}
	with NameServer(names) as server, Gateway(dns_servers=server.address) as gw, SideService() as auth:
		for name in names:
			assert is_refused(gw.get(guarded(gw, backend_process, f"http://{name}:{auth.port}")))
			assert "may be called" in gw.ask("GET", guarded.attachment.path)["status"]["lastError"]
		assert is_refused(gw.get(guarded(gw, backend_process, f"http://nobody.example.com:{auth.port}")))
		assert "did not resolve" in gw.ask("GET", guarded.attachment.path)["status"]["lastError"]
		# A name that changes its mind: allowed first, then not, though a connection to the first address is kept.
		names["fickle.example.com"] = ["127.0.0.1"]
		base = guarded(gw, backend_process, f"http://fickle.example.com:{auth.port}")
		assert gw.get(base).status == 200
		assert auth.last.header("Host") == f"fickle.example.com:{auth.port}"
		names["fickle.example.com"] = ["169.254.169.254"]
		wait_until(lambda: gw.get(base).status == 403, 20, "the new address")


# ---- TLS ----

def test_a_service_behind_tls_is_verified(backend_process):
	known, unknown = Authority("System CA"), Authority("Nobody")
	with Gateway(environment={"SSL_CERT_FILE": known.file}) as gw:
		with SideService(context=server_context(known.issue("localhost"))) as auth:
			base = guarded(gw, backend_process, auth, "/verify")
			for _ in range(5):
				assert gw.get(base).status == 200
			assert auth.last.target == f"/verify{base}"
			assert auth.last.header("Host") == f"localhost:{auth.port}"
			assert auth.opened == 1
			assert auth.server.names == ["localhost"]
			auth.answer = plain(401, [], b"no")
			assert (gw.get(base).status, gw.get(base).body) == (401, b"no")
			# By its address the same service bears no name that counts.
			base = guarded(gw, backend_process, f"https://127.0.0.1:{auth.port}")
			assert is_refused(gw.get(base))
			assert gw.ask("GET", guarded.attachment.path)["status"]["lastError"].startswith("a TLS connection to it could not be made: ")
		for pair in (unknown.issue("localhost"), known.issue("other.example.com"),
			known.issue("localhost", start="20200101000000Z", end="20200201000000Z")):
			with SideService(context=server_context(pair)) as auth:
				assert is_refused(gw.get(guarded(gw, backend_process, auth)))
				assert auth.asked == []
		with SideService(context=server_context(known.issue("IP:127.0.0.1"))) as auth:
			assert gw.get(guarded(gw, backend_process, f"https://127.0.0.1:{auth.port}")).status == 200
		with SideService() as clear:
			assert is_refused(gw.get(guarded(gw, backend_process, f"https://127.0.0.1:{clear.port}")))
			assert clear.asked == []


# ---- what people see ----

def active_calls(gw):
	text = raw_get(gw, "/metrics")[1]
	return int(next(line.rsplit(" ", 1)[1] for line in text.split("\n")
		if line.startswith('sluice_side_calls_in_flight{kind="authorization"}')))


def dependency(gw, attachment):
	return gauge(gw, attachment, "sluice_dependency_up")


def degraded(gw):
	text = raw_get(gw, "/metrics")[1]
	return int(next(line.rsplit(" ", 1)[1] for line in text.split("\n") if line.startswith("sluice_policy_attachments_degraded ")))


def test_a_service_that_is_down_shows(gw, backend, auth):
	base = guarded(gw, backend, auth)
	assert phase(gw, guarded.attachment) == "Active"
	assert dependency(gw, guarded.attachment) == {guarded.route.name: 1}
	before = degraded(gw)
	auth.answer = plain(503)
	assert is_refused(gw.get(base))
	status = gw.ask("GET", guarded.attachment.path)["status"]
	assert status["phase"] == "Degraded"
	assert "authorization service" in status["reason"]
	assert status["lastError"] == "it answered 503"
	assert status["since"].endswith("Z")
	assert dependency(gw, guarded.attachment) == {guarded.route.name: 0}
	assert degraded(gw) == before + 1
	auth.answer = plain(401)    # it answers
	assert gw.get(base).status == 401
	assert gw.ask("GET", guarded.attachment.path)["status"] == {"phase": "Active"}
	assert dependency(gw, guarded.attachment) == {guarded.route.name: 1}
	assert degraded(gw) == before


def test_a_changed_policy_begins_healthy(gw, backend, auth):
	base = guarded(gw, backend, auth)
	auth.answer = plain(500)
	assert is_refused(gw.get(base))
	assert phase(gw, guarded.attachment) == "Degraded"
	gw.change_policy(guarded.attachment, config(auth, timeout=4000))
	assert phase(gw, guarded.attachment) == "Active"
	gw.delete(guarded.attachment)
	assert dependency(gw, guarded.attachment) == {}


def test_a_dry_run_asks_nobody(gw, backend, auth):
	base = guarded(gw, backend, auth)
	answer = gw.ask("POST", "/api/v1/trace", {"method": "GET", "url": f"http://x:{gw.port}{base}"})
	step = next(item for item in answer["policies"] if item["className"] == "ExternalZAuth")
	assert step["verdict"] == "NotJudged"
	assert auth.asked == []


def test_results_are_counted(gw, backend, auth):
	def results():
		text = raw_get(gw, "/metrics")[1]
		return {line.split('result="')[1].split('"')[0]: int(line.rsplit(" ", 1)[1]) for line in text.split("\n")
			if line.startswith('sluice_side_calls_total{kind="authorization"')}

	base = guarded(gw, backend, auth)
	before = results()
	gw.get(base)
	auth.answer = say(b"garbage\r\n\r\n")
	gw.get(base)
	after = results()
	assert after["answered"] == before["answered"] + 1
	assert after["malformed"] == before["malformed"] + 1
	assert active_calls(gw) == 0


def test_the_wait_is_in_the_record(gw, backend, auth):
	base = guarded(gw, backend, auth)
	gw.get(base)
	assert gw.wait_record(path=base)["waitedFor"] == "ExternalZAuth"


def test_stopping_with_calls_under_way(backend_process):
	gate = threading.Event()
	with SideService(lambda request, connection: gate.wait(60) and plain()) as auth:
		with Gateway(drain_timeout_ms=300) as gw:
			base = guarded(gw, backend_process, auth, timeout=60000)
			with gw.connect() as connection:
				connection.start("GET", base)
				wait_until(lambda: auth.asked, 10, "a question")
				gw.stop()
				with pytest.raises((Closed, OSError)):
					connection.read_response()
		gate.set()
