"""DirectResponse on live traffic: the fixed answer, exactly, whatever the client sends."""
import json
import time

import pytest
from gw import numbers
from policy_kit import as_text, check_error, count, burst, direct, outcomes, rate, rest_api
from wire import Closed

OK = '{"status":"ok"}'
JSON, TEXT = "application/json; charset=utf-8", "text/plain; charset=utf-8"


def fixed(gw, config=None, site=None):
	"""The path of a new route without a service that answers with this."""
	base = f"/fixed-{next(numbers)}"
	gw.attach("DirectResponse", config or direct("200", OK), to=gw.route(base, None, site=site))
	return base


# ---- examples of the contract ----

def test_example_1_json(gw):
	answer = gw.get(fixed(gw, direct("200", OK)))
	assert (answer.status, answer.text, answer.header("Content-Type")) == (200, OK, JSON)
	assert answer.header("Content-Length") == str(len(OK))
	assert answer.header("Cache-Control") is None


def test_example_2_text(gw):
	answer = gw.get(fixed(gw, direct("503", "Maintenance")))
	assert (answer.status, answer.text, answer.header("Content-Type")) == (503, "Maintenance", TEXT)


def test_example_3_head(gw):
	path = fixed(gw)
	with gw.connect() as connection:
		head, full = connection.request("HEAD", path), connection.get(path)
		assert connection.is_idle()
	hide = {"date", "x-request-id"}
	assert [pair for pair in head.headers if pair[0].lower() not in hide] == [pair for pair in full.headers if pair[0].lower() not in hide]
	assert head.header("Content-Length") == str(len(OK))


def test_example_4_post_of_a_megabyte(gw):
	"""The answer does not wait for the body: it is there before the client has sent it."""
	path = fixed(gw)
	with gw.connect() as connection:
		begin = time.monotonic()
		connection.start("POST", path, {"Content-Length": 1 << 20})
		answer = connection.read_response()
		assert time.monotonic() - begin < 2
		assert (answer.status, answer.text, answer.header("Connection")) == (200, OK, "close")
	with gw.connect() as connection:
		connection.start("POST", path, body=b"x" * (1 << 20))
		assert connection.read_response().text == OK, "nor is it lost when the client sends it all first"
		assert connection.is_closed()


def test_example_5_limits_run_before(gw):
	base = f"/fixed-{next(numbers)}"
	route = gw.route(base, None)
	gw.attach("DirectResponse", direct(), to=route)
	gw.attach("RateLimit", rate(1), to=route)
	assert count(burst(gw, 2, base)) == {200: 1, 429: 1}


def test_example_6_authentication_runs_before(gw):
	base = f"/fixed-{next(numbers)}"
	route = gw.route(base, None)
	key = json.dumps({"keys": [{"kty": "oct", "k": "A" * 43}]})
	gw.attach("DirectResponse", direct(), to=route)
	gw.attach("JWTAuth", {"name": "j", "issuer": "i", "jwks": key, "tokenPosition": "header", "tokenName": "Authorization",
		"tokenNamePrefix": "Bearer ", "tokenPass": True}, to=route)
	assert gw.get(base).status == 401


@pytest.mark.parametrize("config, member", [(direct("204", "x"), "body"), (direct("205", "x"), "body"), (direct("302"), "code"),
	(direct("199"), "code"), (direct("600"), "code"), (direct("20"), "code"), (direct(200), "code"), (direct("+20"), "code"),
	(direct("200", None), "body"), (direct("200", "x" * 65537), "body")])
def test_example_7_refused(gw, config, member):
	answer = gw.api("POST", "/api/v2/policies", {"name": "bad", "className": "DirectResponse", "config": as_text(config)})
	check_error(answer, 400, "ErrInvalidParameter", f"config.{member}")


# ---- the answer ----

@pytest.mark.parametrize("body, kind", [
	('[1,2]', JSON), ('{}', JSON), (' {"a": 1} \n', JSON), ('{"a":1', TEXT), ('"text"', TEXT), ("12", TEXT), ("null", TEXT),
	("<html></html>", TEXT), ("\u00fc \u2013 \U0001f600", TEXT), ('{"a":"\u00fc"}', JSON), ("", TEXT), ("${host} {{token}} %REQ(x)% $1", TEXT),
	("a\r\n\tb\x07", TEXT), ("x" * 65536, TEXT)], ids=lambda value: repr(value)[:14])
def test_body_is_sent_as_it_is(gw, body, kind):
	answer = gw.get(fixed(gw, direct("200", body)), {"Accept-Encoding": "gzip, br"})
	assert answer.body == body.encode()
	assert answer.header("Content-Length") == str(len(body.encode()))
	assert answer.header("Content-Encoding") is None
	if body:
		assert answer.header("Content-Type") == kind


@pytest.mark.parametrize("code", ["200", "201", "299", "400", "404", "418", "429", "500", "503", "599"])
def test_every_kind_of_status(gw, code):
	answer = gw.get(fixed(gw, direct(code, "b")))
	assert (answer.status, answer.text) == (int(code), "b")


@pytest.mark.parametrize("code, length", [("204", None), ("205", "0")])
def test_status_without_a_body(gw, code, length):
	path = fixed(gw, direct(code, ""))
	with gw.connect() as connection:
		for _ in range(2):
			answer = connection.get(path)
			assert answer.status == int(code)
			assert answer.header("Content-Length") == length
			assert answer.header("Content-Type") is None
			assert answer.header("Transfer-Encoding") is None
		assert connection.is_idle()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_every_method(gw, method):
	assert gw.request(method, fixed(gw)).text == OK


def test_backend_is_not_contacted(gw, backend):
	base = f"/fixed-{next(numbers)}"
	gw.attach("DirectResponse", direct(), to=gw.route(base, backend))
	for _ in range(3):
		assert gw.get(f"{base}/echo").text == "direct"
	assert backend.stats()["requests"] == 0


def test_at_an_operation(gw, backend):
	api = rest_api(gw, backend)
	mocked = api.operation("GET", "/mock/echo")
	api.operation("GET", "/real/echo")
	gw.attach("DirectResponse", direct("299", "mock"), to=mocked)
	assert gw.get(f"{api.base}/mock/echo").text == "mock"
	assert gw.get(f"{api.base}/real/echo").status == 200
	assert [one.target for one in backend.requests()] == [f"{api.base}/real/echo"]


def test_change_and_disabling(gw, backend):
	base = f"/fixed-{next(numbers)}"
	attachment = gw.attach("DirectResponse", direct("200", "one"), to=gw.route(base, backend))
	with gw.connect() as connection:
		assert connection.get(f"{base}/size/3").text == "one"
		gw.change_policy(attachment, direct("404", "two"))
		answer = connection.get(f"{base}/size/3")
		assert (answer.status, answer.text) == (404, "two")
		gw.change_policy(attachment, direct("404", "two", enable=False))
		assert connection.get(f"{base}/size/3").status == 200
		assert backend.stats()["requests"] == 1
		gw.delete(attachment)
		assert connection.get(f"{base}/size/3").status == 200


# ---- request bodies that nobody wants ----

@pytest.mark.parametrize("size", [0, 1, 1000, 65536])
@pytest.mark.parametrize("late", [False, True], ids=["along", "after"])
def test_small_body_is_drained(gw, size, late):
	"""The next request on the connection is understood."""
	path = fixed(gw)
	with gw.connect() as connection:
		for _ in range(3):
			connection.start("POST", path, {"Content-Length": size})
			if late:
				answer = connection.read_response()
			connection.send(b"G" * size)
			if not late:
				answer = connection.read_response()
			assert (answer.status, answer.text) == (200, OK)
			assert answer.header("Connection") != "close"
		assert connection.get(path).text == OK


def test_small_chunked_body(gw):
	path = fixed(gw)
	with gw.connect() as connection:
		for _ in range(3):
			answer = connection.request("POST", path, body=[b"abc", b"defg"], chunked=True)
			assert (answer.text, answer.header("Connection")) == (OK, None)
		assert connection.get(path).text == OK


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_client_that_does_not_stop_sending(gw, chunked):
	"""It gets its answer, and then an end: the connection is not kept for a body without one."""
	path = fixed(gw)
	with gw.connect() as connection:
		connection.start("POST", path, {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": 1 << 40})
		part = b"8000\r\n" + b"x" * 0x8000 + b"\r\n" if chunked else b"x" * 0x8000
		begin = time.monotonic()
		try:
			while time.monotonic() - begin < 20:
				connection.send(part)
		except OSError:
			pass
		assert time.monotonic() - begin < 15, "the gateway went on reading"
		try:
			assert connection.read_response().text == OK
		except (Closed, OSError):
			pass    # a reset may overtake the answer when we do not read while we send
	assert gw.get(path).text == OK


def test_client_that_waits_for_permission(gw):
	path = fixed(gw)
	with gw.connect() as connection:
		connection.start("POST", path, {"Content-Length": 5, "Expect": "100-continue"})
		answer = connection.read_response()
		assert (answer.status, answer.text) == (200, OK)
		assert answer.interim == [], "the body is not asked for"


def test_pipelined_requests(gw):
	path = fixed(gw)
	with gw.connect() as connection:
		for n in range(5):
			connection.start("POST", path, body=b"b" * n)
		assert [connection.read_response().text for _ in range(5)] == [OK] * 5


def test_http10(gw):
	path = fixed(gw)
	with gw.connect() as connection:
		answer = connection.get(path, version="1.0")
		assert (answer.text, answer.header("Content-Length")) == (OK, str(len(OK)))
		assert connection.is_closed()


def test_record_and_metrics(gw):
	base = f"/fixed-{next(numbers)}"
	route = gw.route(base, None)
	attachment = gw.attach("DirectResponse", direct(), to=route)
	gw.get(base)
	assert gw.wait_record(path=base)["flag"] == "DR"
	assert outcomes(gw, attachment) == {(route.name, "answered"): 1}
