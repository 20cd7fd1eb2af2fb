"""Proxying of HTTP/1.1: what the client sent arrives, what the upstream answered comes back, and nothing else."""
import hashlib
import re

import pytest
from policy_kit import ip_list
from wire import pattern, wait_until

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def site(gw, backend_process):
	"""The upstream's commands stand directly in the path."""
	gw.route("/", backend_process)
	return gw


def digest(data):
	return hashlib.sha256(data).hexdigest()


# ---- requests ----

@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH"])
def test_passes_every_method(site, backend, method):
	seen = site.echo("/echo?a=1&b=%20", method=method)
	assert (seen["method"], seen["target"], seen["version"]) == (method, "/echo?a=1&b=%20", "HTTP/1.1")


def test_passes_fields_in_order_and_as_written(site, backend):
	fields = [("X-One", "1"), ("Accept", "*/*"), ("x-tWo", "b , c"), ("X-One", "2"), ("Cookie", "a=1; b=2"), ("X-Latin", "caf\xe9")]
	seen = site.echo("/echo", fields)
	passed = [(name.lower(), value) for name, value in seen["headers"]]
	assert [pair for pair in passed if pair[0] in ("x-one", "accept", "x-two", "cookie", "x-latin")] == [
		(name.lower(), value) for name, value in fields]
	assert seen["fields"]["host"] == ["gw.test"]


@pytest.mark.parametrize("size", [0, 1, 100, 65535, 65536, 65537, 1 * MEGABYTE + 1])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_request_body_arrives(site, backend, size, chunked):
	body = pattern(size)
	parts = [body[at:at + 30011] for at in range(0, size, 30011)] if chunked else body
	seen = site.echo("/echo", method="POST", body=parts, chunked=chunked)
	assert (seen["bodyBytes"], seen["sha256"]) == (size, digest(body))
	if chunked:
		assert seen["fields"]["transfer-encoding"] == ["chunked"]
	else:
		assert seen["fields"]["content-length"] == [str(size)]


def test_large_bodies_go_through_both_ways(site, backend):
	body = pattern(50 * MEGABYTE)
	before = site.rss_kb()
	seen = site.echo("/echo", method="POST", body=body)
	assert (seen["bodyBytes"], seen["sha256"]) == (len(body), digest(body))
	seen = site.echo("/echo", method="PUT", body=[body[at:at + 200_003] for at in range(0, len(body), 200_003)], chunked=True)
	assert (seen["bodyBytes"], seen["sha256"]) == (len(body), digest(body))
	assert digest(site.get(f"/size/{len(body)}").body) == digest(body)
	assert digest(site.get(f"/chunked/{len(body)}").body) == digest(body)
	# Streamed, not stored.
	assert site.rss_kb() - before < 20_000


def test_one_byte_chunks_arrive(site, backend):
	seen = site.echo("/echo", method="POST", body=[b"%c" % (97 + i % 26) for i in range(1000)], chunked=True)
	assert seen["bodyBytes"] == 1000


def test_request_trailers_do_not_break_the_connection(site, backend):
	with site.connect() as connection:
		connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
			"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
		assert connection.read_response().json["bodyBytes"] == 3
		assert connection.get("/echo").status == 200


def test_body_is_forwarded_while_it_arrives(site, backend):
	"""The upstream gets the head before the body is complete."""
	with site.connect() as connection:
		connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
		record = wait_until(lambda: backend.requests(), 5, "the head at the upstream")[0]
		assert not record.complete
		connection.send("world")
		assert connection.read_response().json["bodyBytes"] == 10


# ---- responses ----

@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 1 * MEGABYTE + 7])
def test_response_body_comes_back(site, backend, size):
	answer = site.get(f"/size/{size}")
	assert answer.header("Content-Length") == str(size)
	assert answer.body == pattern(size)
	answer = site.get(f"/chunked/{size}")
	assert answer.header("Transfer-Encoding") == "chunked"
	assert answer.body == pattern(size)


def test_response_delimited_by_the_end_comes_back_whole(site, backend):
	with site.connect() as connection:
		answer = connection.get("/until-close/100000")
		assert answer.body == pattern(100000)
		assert answer.header("Transfer-Encoding") == "chunked", "the length is unknown, the connection can be kept"
		assert connection.get("/echo").status == 200


def test_response_trailers_come_back_or_are_dropped_whole(site, backend):
	with site.connect() as connection:
		answer = connection.get("/trailers/1000")
		assert answer.body == pattern(1000)
		assert answer.trailers in ([], [("X-Checksum", "abc"), ("X-More", "yes")], [("x-checksum", "abc"), ("x-more", "yes")])
		assert connection.get("/echo").status == 200


@pytest.mark.parametrize("status", [200, 201, 206, 301, 304, 400, 404, 418, 500, 502, 503, 599])
def test_status_comes_back(site, backend, status):
	answer = site.get(f"/status/{status}")
	assert answer.status == status
	assert answer.body == (b"" if status == 304 else b"as asked\n")


@pytest.mark.parametrize("status", [204, 304])
def test_no_body_no_length(site, backend, status):
	with site.connect() as connection:
		answer = connection.get(f"/status/{status}")
		assert answer.status == status
		assert answer.header("Transfer-Encoding") is None
		if status == 204:
			assert answer.header("Content-Length") is None
		assert connection.is_idle()
		assert connection.get("/echo").status == 200


@pytest.mark.parametrize("path, length", [("/size/1000", "1000"), ("/chunked/1000", None), ("/echo", ...), ("/status/404", "9")])
def test_head_has_the_fields_and_no_body(site, backend, path, length):
	with site.connect() as connection:
		answer = connection.request("HEAD", path)
		assert answer.status in (200, 404)
		if length is not ...:
			assert answer.header("Content-Length") == length
		assert connection.is_idle()
		assert connection.get("/echo").status == 200
	assert backend.requests()[0].method == "HEAD"


def test_first_bytes_are_not_held_back(site, backend):
	"""A slow upstream's bytes come as they are sent: nothing waits for a buffer to fill."""
	with site.connect(timeout=1) as connection:
		connection.start("GET", "/slow/4/150")
		assert connection.read_head().status == 200
		assert connection.take(1) == pattern(1)
		assert not connection.buffer
		assert connection.take(3) == pattern(3, 1)


def test_interim_answers_precede_the_final_one(site, backend):
	answer = site.get("/hints")
	assert (answer.status, answer.body) == (200, b"after 103\n")
	assert {interim.status for interim in answer.interim} <= {103}


# ---- 100-continue and early answers ----

def test_expectation_is_met_before_the_body(site, backend):
	with site.connect() as connection:
		connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		assert connection.read_head().status == 100
		connection.send("hello")
		answer = connection.read_response()
		assert answer.json["bodyBytes"] == 5
		assert connection.get("/echo").status == 200


def test_body_without_waiting_for_100_is_taken(site, backend):
	with site.connect() as connection:
		connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
		assert connection.read_response().json["bodyBytes"] == 5
		assert connection.get("/echo").status == 200


def test_http10_gets_no_100(site, backend):
	with site.connect() as connection:
		connection.send("POST /echo HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
		answer = connection.read_response()
		assert (answer.status, answer.interim) == (200, [])


def test_upstream_that_sends_100_unasked(site, backend):
	answer = site.get("/continue")
	assert (answer.status, answer.body) == (200, b"after 100\n")


def test_early_answer_while_the_body_is_sent(site, backend):
	"""The answer comes before the body is complete; the rest of the body is taken, then the connection goes on or is closed."""
	with site.connect() as connection:
		connection.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + "x" * 1000)
		answer = connection.read_response()
		assert (answer.status, answer.body) == (200, b"early\n")
		if answer.header("Connection") == "close":
			assert connection.is_closed()
		else:
			connection.send("x" * 99000)
			assert connection.get("/echo").status == 200


def test_early_refusal_reaches_a_client_that_is_still_sending(site, backend):
	with site.connect() as connection:
		connection.send("POST /early-close HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + "x" * 1000)
		answer = connection.read_response()
		assert (answer.status, answer.body) == (413, b"too large\n")


# ---- connections ----

def test_pipelined_requests_are_answered_in_order(site, backend):
	with site.connect() as connection:
		connection.send("".join(f"GET /echo?{i} HTTP/1.1\r\nHost: a\r\n\r\n" for i in range(10)))
		assert [connection.read_response().json["target"] for _ in range(10)] == [f"/echo?{i}" for i in range(10)]
		assert connection.is_idle()


def test_pipelined_requests_with_bodies(site, backend):
	with site.connect() as connection:
		connection.send("".join(f"POST /echo?{i} HTTP/1.1\r\nHost: a\r\nContent-Length: {i * 1000}\r\n\r\n" + "x" * (i * 1000)
			+ f"GET /slow/3/10?{i} HTTP/1.1\r\nHost: a\r\n\r\n" for i in range(5)))
		for i in range(5):
			seen = connection.read_response().json
			assert (seen["target"], seen["bodyBytes"]) == (f"/echo?{i}", i * 1000)
			assert connection.read_response().body == pattern(3)


def test_client_connection_is_kept(site, backend):
	with site.connect() as connection:
		for _ in range(200):
			assert connection.get("/size/10").status == 200


def test_upstream_connections_are_reused(site, backend):
	with site.connect() as connection:
		connection.get("/echo")
		backend.clear()
		for _ in range(50):
			assert connection.get("/echo").status == 200
	assert backend.stats()["connections"] == 0, "one client, one request at a time: the kept connection does"


def test_upstream_connections_are_reused_across_clients(site, backend):
	for _ in range(20):
		with site.connect() as connection:
			assert connection.get("/echo").status == 200
	# Two workers, each with a pool of its own.
	assert backend.stats()["connections"] <= 2


@pytest.mark.parametrize("path", ["/close", "/until-close/10", "/garbage/extra"])
def test_upstream_connection_that_ends_is_not_reused(site, backend, path):
	for _ in range(4):
		assert site.get(path).status == 200
	assert site.get("/size/5").body == pattern(5), "no byte of an earlier answer"
	assert backend.stats()["connections"] >= 4, "the first request may have found a kept one, the others cannot"


def test_connection_close_is_honoured(site, backend):
	with site.connect() as connection:
		answer = connection.get("/echo", {"Connection": "close"})
		assert answer.header("Connection") == "close"
		assert connection.is_closed()
	assert backend.last().header("Connection") != "close", "the upstream's connection is our own matter"


def test_upstreams_close_does_not_close_the_client(site, backend):
	with site.connect() as connection:
		answer = connection.get("/close")
		assert answer.header("Connection") != "close"
		assert connection.get("/echo").status == 200


def test_http10_client_is_answered_and_closed(site, backend):
	with site.connect() as connection:
		answer = connection.get("/echo", version="1.0")
		assert answer.json["version"] == "HTTP/1.1"
		assert connection.is_closed()


def test_http10_client_without_a_host(site, backend):
	with site.connect() as connection:
		answer = connection.get("/echo", version="1.0", host=None)
		assert answer.status == 200
		assert connection.is_closed()
	assert len(backend.last().all("Host")) == 1, "towards the upstream we speak 1.1"
	assert site.wait_record(path="/echo", method="GET", host="")


def test_http10_client_gets_no_chunks(site, backend):
	with site.connect() as connection:
		answer = connection.get("/chunked/100000", version="1.0")
		assert answer.header("Transfer-Encoding") is None
		assert answer.body == pattern(100000)


def test_http10_keep_alive(site, backend):
	with site.connect() as connection:
		answer = connection.get("/size/10", {"Connection": "keep-alive"}, version="1.0")
		assert answer.header("Connection", "").lower() == "keep-alive"
		assert connection.get("/size/10", version="1.0").status == 200


# ---- what is added and taken away ----

def test_hop_by_hop_fields_end_here(site, backend):
	seen = site.echo("/echo", {"Connection": "X-Nominated, keep-alive", "X-Nominated": "1", "Keep-Alive": "timeout=5",
		"Proxy-Connection": "keep-alive", "TE": "gzip", "Upgrade": "websocket", "Proxy-Authorization": "Basic x", "X-Kept": "1"})
	for name in ("x-nominated", "keep-alive", "proxy-connection", "te", "upgrade", "connection"):
		assert name not in seen["fields"], seen["headers"]
	assert seen["fields"]["x-kept"] == ["1"]


def test_hop_by_hop_fields_of_the_upstream_end_here(site, backend):
	answer = site.get("/hop")
	for name in ("X-Hop", "Keep-Alive", "Proxy-Connection"):
		assert not answer.all(name)
	assert answer.header("X-Kept") == "yes"
	assert answer.all("Set-Cookie") == ["a=1", "b=2"]
	assert not answer.all("Via")


def test_forwarded_fields_tell_the_truth(site, backend):
	fields = site.echo("/echo", host="shop.test:8080")["fields"]
	assert fields["host"] == ["shop.test:8080"]
	assert fields["x-forwarded-for"] == ["127.0.0.1"]
	assert fields["x-forwarded-proto"] == ["http"]
	assert fields["x-forwarded-host"][0].split(":")[0] == "shop.test"
	assert "via" not in fields


def test_forwarded_fields_cannot_be_spoofed(site, backend):
	fields = site.echo("/echo", [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "5.6.7.8"), ("X-Forwarded-Proto", "https"),
		("X-Forwarded-Host", "evil.test"), ("X-Forwarded-Port", "443"), ("X-Real-IP", "1.2.3.4")])["fields"]
	assert len(fields["x-forwarded-for"]) == 1
	assert re.split(r",\s*", fields["x-forwarded-for"][0])[-1] == "127.0.0.1", "the peer is the last entry"
	assert fields["x-forwarded-proto"] == ["http"]
	assert fields["x-forwarded-host"][0] != "evil.test"
	assert fields.get("x-forwarded-port", [""]) != ["443"]
	assert fields.get("x-real-ip", ["127.0.0.1"]) == ["127.0.0.1"]


def test_trusted_hops_are_believed(gw, backend):
	site = gw.gateway()
	gw.route("/", backend, site=site)
	gw.feature("xffTrustedNum", 1, site)
	fields = gw.echo("/echo", {"X-Forwarded-For": "9.9.9.9, 203.0.113.7", "X-Forwarded-Proto": "https"}, site=site)["fields"]
	assert re.split(r",\s*", fields["x-forwarded-for"][0]) == ["9.9.9.9", "203.0.113.7", "127.0.0.1"]
	assert fields["x-forwarded-proto"] == ["https"]
	assert fields["x-real-ip"] == ["203.0.113.7"]


def test_request_id_is_made_and_passed_on(site, backend):
	ids = {site.echo("/echo")["fields"]["x-request-id"][0] for _ in range(20)}
	assert len(ids) == 20
	assert all(re.fullmatch(r"[A-Za-z0-9-]{8,64}", one) for one in ids), ids


def test_request_id_of_an_untrusted_client_cannot_inject(site, backend):
	seen = site.echo("/echo", {"X-Request-Id": 'a"b<c> \\'})["fields"]["x-request-id"]
	assert len(seen) == 1
	assert seen[0] != 'a"b<c> \\'


def test_two_request_ids_are_none(site, backend):
	"""The upstream might log the other one of the two."""
	seen = site.echo("/echo", [("X-Request-Id", "one"), ("X-Request-Id", "two")])["fields"]["x-request-id"]
	assert len(seen) == 1 and seen[0] not in ("one", "two")


def test_trace_context_is_passed_on(site, backend):
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	fields = site.echo("/echo", {"traceparent": parent, "tracestate": "a=1,b=2"})["fields"]
	assert fields["traceparent"][0].split("-")[1] == parent.split("-")[1], "the same trace"
	assert fields["tracestate"] == ["a=1,b=2"]


def test_names_with_underscores_are_dropped(site, backend):
	fields = site.echo("/echo", {"X_Auth_User": "root", "X-Auth-Kept": "1"})["fields"]
	assert "x_auth_user" not in fields
	assert fields["x-auth-kept"] == ["1"]


def test_access_record_tells_what_happened(site, backend):
	answer = site.request("POST", "/echo/recorded?secret=1", {"User-Agent": "test"}, b"12345")
	assert answer.status == 200
	record = site.wait_record(path="/echo/recorded")
	assert record["method"] == "POST"
	assert record["status"] == 200
	text = str(record)
	assert backend.address in text, "which upstream"
	assert any(name.lower() == "x-request-id" and value in text for name, value in answer.json["headers"])


def test_options_about_the_server_itself(site, backend):
	with site.connect() as connection:
		connection.send(b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n")
		answer = connection.read_response()
	assert answer.status == 200
	assert "OPTIONS" in answer.header("Allow")
	assert backend.requests() == []


def test_options_about_the_server_itself_meets_the_policies(gw, backend):
	site = gw.gateway()
	gw.route("/", backend, site=site)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1", "Gateway"), to=site)
	assert gw.get("/size/1", site=site).status == 403
	with gw.connect(site=site) as connection:
		connection.send(b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n")
		assert connection.read_response().status == 403
	assert backend.requests() == []


def test_own_fields_are_written_one_way(gw, backend):
	"""Names have capitals, as Content-Length always had: programs that look for them letter by letter exist."""
	site = gw.gateway()    # the other tests' routes would answer for what is nowhere
	gw.route("/capitals", backend, site=site)
	with gw.connect(site) as c:
		answer = c.get("/capitals-nowhere/x")
		assert [name for name, _ in answer.headers] == ["Date", "Content-Type", "X-Request-Id", "Content-Length"], answer
		assert c.get("/capitals/echo").status == 200
	names = [name for name, _ in backend.last().headers]
	own = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "X-Request-Id", "Host")
	assert set(own) <= set(names), names
