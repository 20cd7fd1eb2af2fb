"""Retry on live traffic, over HTTP/1.1 and HTTP/2 upstreams."""
import hashlib
import os
import random
import threading
import time

import pytest
from gw import Gateway, free_port, numbers
from h2wire import H2, head
from policy_kit import check_error, is_enforced, phase, raw_get, rest_api
from scripted import Scripted, UPGRADE, read_request
from tries import GARBAGE, HANG, Http1, REFUSE, RESET, Reply, Stream, metric, upstream
from wire import Closed, wait_until


def retry(attempts=3, *on, **more):
	return {"attempts": attempts, "retryOn": list(on), "enable": True, **more}


@pytest.fixture(params=["h1", "h2"])
def protocol(request):
	return request.param


def place(gw, target, *policies):
	"""A new route to an upstream or a service, with policies as (class, config): its path and resources."""
	path = f"/retry-{next(numbers)}"
	service = target.service(gw) if hasattr(target, "service") else target
	route = gw.route(path, service)
	for name, config in policies:
		gw.attach(name, config, to=route)
	return path, route, service


def counts(gw, service):
	"""(succeeded, failed, attempts used up, budget spent)"""
	return tuple(metric(gw, "sluice_upstream_retries_total", service=service.name, outcome=outcome) for outcome in ("succeeded", "failed")) + \
		tuple(metric(gw, "sluice_upstream_retries_denied_total", service=service.name, reason=reason) for reason in ("attempts", "budget"))


# ---- examples of the contract ----

def test_ex1_two_failures_then_an_answer(gw, protocol):
	with upstream(protocol, Reply(503), Reply(503), Reply(200, b"good")) as up:
		path, _, service = place(gw, up, ("Retry", retry(3, "5xx")))
		answer = gw.get(path)
		assert answer.status == 200 and answer.body == b"good"
		assert len(up.hits) == 3
		assert len({hit.header("x-request-id") for hit in up.hits}) == 1
		assert {hit.header("x-envoy-attempt-count") for hit in up.hits} == {None}
		record = gw.wait_record(path=path)
		assert record["attempts"] == 3 and "flag" not in record
		assert counts(gw, service) == (1, 1, 0, 0)


def test_ex2_the_last_answer_is_the_clients(gw, protocol):
	last = Reply(503, b"B", fields=[("X-Own", "yes")])
	with upstream(protocol, Reply(503, b"A"), last) as up:
		path, _, service = place(gw, up, ("Retry", retry(2, "5xx")))
		answer = gw.get(path)
		assert answer.status == 503 and answer.body == b"B" and answer.header("X-Own") == "yes"
		assert answer.header("Retry-After") is None
		assert len(up.hits) == 3
		assert gw.wait_record(path=path)["flag"] == "URX"
		assert counts(gw, service) == (0, 2, 1, 0)


def test_ex3_a_dead_endpoint_is_not_noticed(gw, backend):
	dead = f"127.0.0.5:{backend.port}"
	service = gw.service([dead, backend.peers[0]], ports=[{"name": "p", "port": backend.port, "protocol": "HTTP"}])
	path, _, _ = place(gw, service, ("Retry", retry(1, "connect-failure")))
	assert {gw.get(f"{path}/echo").status for _ in range(20)} == {200}


def test_ex3_of_many_endpoints_the_untried_come_first(gw, backend):
	"""Two dead, one alive: two retries always reach it."""
	dead = [f"127.0.0.{i}:{backend.port}" for i in (5, 6)]
	service = gw.service([*dead, backend.peers[0]], ports=[{"name": "p", "port": backend.port, "protocol": "HTTP"}])
	path, _, _ = place(gw, service, ("Retry", retry(2, "connect-failure")))
	assert {gw.get(f"{path}/echo").status for _ in range(20)} == {200}


def test_ex4_codes_are_enough(gw, protocol):
	with upstream(protocol, Reply(429), Reply(200, b"good"), Reply(500)) as up:
		path, _, _ = place(gw, up, ("Retry", retry(3, "connect-failure", httpCodes=["429"])))
		assert gw.get(path).body == b"good" and len(up.hits) == 2
		assert gw.get(path).status == 500 and len(up.hits) == 3


def test_ex4_codes_without_a_condition_and_with_the_word(gw):
	for on in ([], ["retriable-status-codes"]):
		with upstream("h1", Reply(404), Reply(200, b"good")) as up:
			path, _, _ = place(gw, up, ("Retry", retry(1, *on, httpCodes=["404"])))
			assert gw.get(path).body == b"good"


def test_ex5_limit_of_one_try(gw, protocol):
	with upstream(protocol, HANG, Reply(200, b"good")) as up:
		path, _, service = place(gw, up, ("Retry", retry(2, "reset", perTryTimeout=0.2)))
		start = time.monotonic()
		assert gw.get(path).body == b"good"
		assert 0.19 < time.monotonic() - start < 3
		assert len(up.hits) == 2
		wait_until(lambda: up.ended == 1 if protocol == "h1" else up.cancelled == 1, 5, "the end of the first try")
		assert metric(gw, "sluice_upstream_timeouts_total", service=service.name, limit="try") == 1
	with upstream(protocol, HANG) as up:
		path, _, _ = place(gw, up, ("Retry", retry(2, "connect-failure", perTryTimeout=0.2)))
		assert gw.get(path).status == 504
		assert len(up.hits) == 1
		assert gw.wait_record(path=path)["flag"] == "UT"


def test_limit_of_one_try_is_over_with_its_head(gw, protocol):
	"""The body may take longer, of the first try and of a later one."""
	with upstream(protocol, Stream(b"a", b"b", b"c", pause=0.4), HANG, Stream(b"a", b"b", b"c", pause=0.4)) as up:
		path, _, service = place(gw, up, ("Retry", retry(1, "reset", perTryTimeout=0.8)))
		assert gw.get(path).body == b"abc" and len(up.hits) == 1
		assert gw.get(path).body == b"abc" and len(up.hits) == 3
		assert metric(gw, "sluice_upstream_timeouts_total", service=service.name, limit="try") == 1


def test_ex6_post(gw, protocol):
	with upstream(protocol, Reply(503), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(2, "5xx")))
		assert gw.request("POST", path, body=b"x").status == 503 and len(up.hits) == 1
	with upstream(protocol, Reply(503), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(2, "5xx", "non_idempotent")))
		answer = gw.request("POST", path, body=b"x" * 1000)
		assert answer.body == b"good" and [hit.body for hit in up.hits] == [b"x" * 1000] * 2


def test_ex6_post_to_a_dead_endpoint(gw, backend):
	service = gw.service([f"127.0.0.5:{backend.port}", backend.peers[0]], ports=[{"name": "p", "port": backend.port, "protocol": "HTTP"}])
	path, _, _ = place(gw, service, ("Retry", retry(1, "connect-failure")))
	for _ in range(8):
		assert gw.request("POST", f"{path}/echo", body=b"once").status == 200
	sent = [record for record in backend.requests() if record.method == "POST"]
	assert len(sent) == 8 and {record.body for record in sent} == {b"once"}


def test_ex7_large_bodies_are_sent_once_and_small_ones_again(gw, protocol):
	with upstream(protocol, Reply(503, b"sorry")) as up:
		path, _, service = place(gw, up, ("Retry", retry(2, "5xx")))
		answer = gw.request("PUT", path, body=os.urandom(5 << 20))
		assert answer.status == 503 and answer.body == b"sorry"
		assert len(up.hits) == 1 and len(up.hits[0].body) == 5 << 20
		assert metric(gw, "sluice_retry_or_shadow_abandoned_total", service=service.name) == 1
	body = os.urandom(512 << 10)
	with upstream(protocol, Reply(503), Reply(503), Reply(200, b"good")) as up:
		path, _, service = place(gw, up, ("Retry", retry(2, "5xx")))
		assert gw.request("PUT", path, body=body).body == b"good"
		assert {hashlib.sha256(hit.body).digest() for hit in up.hits} == {hashlib.sha256(body).digest()}
		assert len(up.hits) == 3
		assert metric(gw, "sluice_retry_or_shadow_abandoned_total", service=service.name) == 0


def test_ex8_an_answer_that_breaks_off_is_not_repeated(gw, protocol):
	with upstream(protocol, Stream(b"half", length=8, cut=True), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(3, "5xx", "reset")))
		with gw.connect() as connection:
			with pytest.raises(Closed):
				connection.get(path)
		assert len(up.hits) == 1


# ---- conditions ----

@pytest.mark.parametrize("on, answer, hits", [
	("5xx", Reply(500), 2), ("5xx", Reply(599), 2), ("5xx", Reply(499), 1), ("5xx", RESET, 2), ("5xx", GARBAGE, 2),
	("gateway-error", Reply(500), 1), ("gateway-error", Reply(502), 2), ("gateway-error", Reply(503), 2),
	("gateway-error", Reply(504), 2), ("gateway-error", Reply(505), 1), ("gateway-error", RESET, 2),
	("reset", RESET, 2), ("reset", Reply(503), 1), ("connect-failure", RESET, 1), ("connect-failure", Reply(503), 1),
	("refused-stream", RESET, 1), ("refused-stream", Reply(503), 1),
])
def test_conditions(gw, protocol, on, answer, hits):
	with upstream(protocol, answer, Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(1, on)))
		assert (gw.get(path).body == b"good") == (hits == 2)
		assert len(up.hits) == hits


@pytest.mark.parametrize("on", ["5xx", "gateway-error", "reset", "connect-failure"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_connection_is_among_what_these_mean(gw, backend, on, method):
	service = gw.service([f"127.0.0.5:{backend.port}", backend.peers[0]], ports=[{"name": "p", "port": backend.port, "protocol": "HTTP"}])
	path, _, _ = place(gw, service, ("Retry", retry(1, on)))
	assert {gw.request(method, f"{path}/echo").status for _ in range(6)} == {200}


def test_refused_streams(gw):
	with upstream("h2", REFUSE, REFUSE, REFUSE, REFUSE, Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(5, "refused-stream")))
		assert gw.request("POST", path, body=b"x").body == b"good"
		assert [hit.body for hit in up.hits] == [b"x"] * 5


def test_refused_streams_use_up_attempts(gw):
	"""A policy that speaks of them decides about them: nothing is tried beside it."""
	with upstream("h2", REFUSE) as up:
		path, _, service = place(gw, up, ("Retry", retry(1, "refused-stream")))
		assert gw.get(path).status == 503 and len(up.hits) == 2
		assert counts(gw, service) == (0, 1, 1, 0)


@pytest.mark.parametrize("method, again", [("GET", True), ("HEAD", True), ("OPTIONS", True), ("TRACE", True), ("PUT", True),
	("DELETE", True), ("POST", False), ("PATCH", False), ("LOCK", False)])
def test_methods(gw, method, again):
	with upstream("h1", Reply(503), Reply(200)) as up:
		path, _, _ = place(gw, up, ("Retry", retry(1, "5xx")))
		assert gw.request(method, path).status == (200 if again else 503)
	with upstream("h1", Reply(503), Reply(200)) as up:
		path, _, _ = place(gw, up, ("Retry", retry(1, "5xx", "non_idempotent")))
		assert gw.request(method, path).status == 200


GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


@pytest.mark.parametrize("on, status", [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13),
	("unavailable", 14)])
def test_grpc_statuses_in_the_head(gw, on, status):
	refusal = Reply(200, fields=[("content-type", "application/grpc"), ("grpc-status", str(status))])
	with upstream("h2", refusal, Reply(200, b"good", fields=[("content-type", "application/grpc")])) as up:
		path, _, _ = place(gw, up, ("Retry", retry(1, on)))
		with H2(gw.port) as client:
			assert client.request(head(path, method="POST", more=GRPC), body=b"call").body == b"good"
		assert [hit.body for hit in up.hits] == [b"call"] * 2
	with upstream("h2", refusal) as up:
		other = "cancelled" if on != "cancelled" else "internal"
		path, _, _ = place(gw, up, ("Retry", retry(1, other)))
		with H2(gw.port) as client:
			assert client.request(head(path, method="POST", more=GRPC), body=b"call").header("grpc-status") == str(status)
		assert len(up.hits) == 1


@pytest.mark.parametrize("marker", ["x-envoy-overloaded", "x-envoy-ratelimited"])
def test_marked_answers_are_left_alone(gw, marker):
	with upstream("h1", Reply(503, fields=[(marker, "true")]), Reply(200)) as up:
		path, _, _ = place(gw, up, ("Retry", retry(3, "5xx")))
		assert gw.get(path).status == 503 and len(up.hits) == 1


def test_no_attempts_is_no_retry(gw):
	with upstream("h1", Reply(503), Reply(200)) as up:
		path, _, service = place(gw, up, ("Retry", retry(0, "5xx")))
		assert gw.get(path).status == 503 and len(up.hits) == 1
		assert "flag" not in gw.wait_record(path=path) and counts(gw, service) == (0, 0, 0, 0)


# ---- levels ----

def test_the_route_beats_the_service_and_a_disabled_policy_opts_out(gw):
	with upstream("h1", Reply(503)) as up:
		path, route, service = place(gw, up)
		gw.attach("Retry", retry(1, "5xx"), to=service)
		assert gw.get(path).status == 503 and len(up.hits) == 2
		own = gw.attach("Retry", retry(2, "5xx"), to=route)
		assert gw.get(path).status == 503 and len(up.hits) == 5
		gw.change_policy(own, retry(2, "5xx", enable=False))
		assert gw.get(path).status == 503 and len(up.hits) == 6
		gw.delete(own)
		assert gw.get(path).status == 503 and len(up.hits) == 8


def test_of_an_api(gw):
	with upstream("h1", Reply(503), Reply(200)) as up:
		api = rest_api(gw, up.service(gw))
		api.operation("GET", "/a")
		attachment = gw.attach("Retry", retry(1, "5xx"), to=api)
		assert phase(gw, attachment) == "Active"
		assert gw.get(f"{api.base}/a").status == 200


# ---- what is never repeated ----

def test_an_answer_of_a_policy_is_not_repeated(gw):
	with upstream("h1", Reply(200)) as up:
		path, route, _ = place(gw, up, ("Retry", retry(3, "5xx")), ("DirectResponse", {"code": "503", "body": "x", "enable": True}))
		assert gw.get(path).status == 503 and not up.hits


def test_a_limit_of_the_service_counts_once(gw):
	with upstream("h1", Reply(503), Reply(503), Reply(200)) as up:
		path, _, service = place(gw, up, ("Retry", retry(3, "5xx")))
		gw.attach("RateLimit", {"threshold": 1, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429, "enable": True}, to=service)
		assert gw.get(path).status == 200 and len(up.hits) == 3


def test_an_upgrade_may_be_refused_and_tried_again_but_no_tunnel(gw):
	seen = []

	def serve(connection):
		from scripted import switch
		lines = read_request(connection)
		seen.append(lines)
		if len(seen) == 1:
			connection.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
			return
		switch(connection, lines)
		connection.take(1)
		connection.reset()

	with Scripted(serve) as server:
		path, _, _ = place(gw, gw.service(server.port), ("Retry", retry(3, "5xx", "reset")))
		with gw.connect() as connection:
			connection.start("GET", path, UPGRADE)
			assert connection.read_head().status == 101
			connection.send(b"x")
			assert connection.is_closed(5)
		assert len(seen) == 2


def test_nothing_is_repeated_after_an_interim_answer(gw):
	"""A byte of this try's answer is with the client."""
	seen = []

	def serve(connection):
		while connection.buffer or connection.fill():
			seen.append(read_request(connection))
			connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")

	with Scripted(serve) as server:
		path, _, _ = place(gw, gw.service(server.port), ("Retry", retry(3, "5xx", "reset")))
		with gw.connect() as connection:
			answer = connection.get(path)
		assert (answer.status, answer.body, [one.status for one in answer.interim]) == (503, b"no", [103])
		assert len(seen) == 1


# ---- budget ----

def test_budget_bounds_retries_of_a_service():
	"""Of twelve requests at the same time three may be retried at once; the others get what there is."""
	with Gateway() as gw, upstream("h1", *[Reply(503, delay=0.5)] * 12, Reply(503, delay=3)) as up:
		path, _, service = place(gw, up, ("Retry", retry(1, "5xx")))
		connections = [gw.connect() for _ in range(12)]
		for connection in connections:
			connection.start("GET", path)
		for connection in connections:
			assert connection.read_response().status == 503
			connection.close()
		assert len(up.hits) == 15
		assert counts(gw, service) == (0, 3, 3, 9)
		wait_until(lambda: len(gw.records(path=path)) == 12)
		assert {record["flag"] for record in gw.records(path=path)} == {"URX"}
		# It comes back: none is under way any more.
		up.answers = [Reply(503)] * 15 + [Reply(503)] + [Reply(200)]
		assert gw.get(path).status == 200


def test_budget_is_given_back_by_clients_that_leave():
	class Server(Http1):
		"""Fails the first try of each request, in whatever order they and the retries arrive; then as `answers` say."""

		def hit(self, method, path, fields, *more):
			answer = super().hit(method, path, fields, *more)
			return answer if len(self.answers) > 1 or ("x-envoy-attempt-count", "1") in fields else HANG

	with Gateway() as gw, Server(Reply(503)) as up:
		gw.feature("attemptCountHeader", True)
		path, _, _ = place(gw, up, ("Retry", retry(1, "5xx")))
		connections = [gw.connect() for _ in range(3)]
		for connection in connections:
			connection.start("GET", path)
		up.wait_hits(6)
		for connection in connections:
			connection.reset()
		wait_until(lambda: up.ended == 3)
		up.answers = [HANG] * 6 + [Reply(503), Reply(200)]
		assert gw.get(path).status == 200


# ---- pauses ----

def test_pauses_are_short_and_random(gw):
	"""Ten retries pause 25 + 75 + 175 + 7 * 250 ms at most."""
	with upstream("h1", Reply(503)) as up:
		path, _, _ = place(gw, up, ("Retry", retry(10, "5xx")))
		for _ in range(3):
			gw.get(path)
		assert len(up.hits) == 33
		gaps = [up.hits[i + 1].at - up.hits[i].at for i in range(32) if i % 11 != 10]
		assert len({round(gap, 4) for gap in gaps}) > 10
		assert min(gaps) < 0.1 and sum(gaps) < 3 * 2.025 * 2


def test_a_client_that_leaves_within_a_pause(gw):
	with upstream("h1", Reply(503)) as up:
		path, _, _ = place(gw, up, ("Retry", retry(10, "5xx")))
		for _ in range(5):
			connection = gw.connect()
			connection.start("GET", path)
			up.wait_hits(len(up.hits) + 3)
			connection.reset()
		wait_until(lambda: len(gw.records(path=path)) == 5)
		assert {record["flag"] for record in gw.records(path=path)} <= {"DC", "URX"}


# ---- bodies ----

def test_body_under_way_is_continued(gw, protocol):
	"""The upstream refuses early: what came is sent again, what still comes goes on to the second try."""
	with upstream(protocol, Reply(503, early=True), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(2, "5xx")))
		body = os.urandom(100_000)
		with gw.connect() as connection:
			connection.send(f"PUT {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:30_000])
			up.wait_hits(1)
			connection.send(body[30_000:60_000])
			time.sleep(0.1)
			connection.send(body[60_000:])
			assert connection.read_response().body == b"good"
		assert up.hits[1].body == body


def test_chunks_are_sent_again(gw, protocol):
	with upstream(protocol, Reply(503), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(2, "5xx")))
		with gw.connect() as connection:
			connection.send(f"PUT {path} HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			time.sleep(0.05)
			connection.send("6\r\n world\r\n0\r\n\r\n")
			assert connection.read_response().body == b"good"
		assert [hit.body for hit in up.hits] == [b"hello world"] * 2


@pytest.mark.parametrize("pieces", [["5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n"], ["5\r\nhello\r\n", "6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n"]])
def test_trailers_are_sent_again(gw, pieces):
	seen = []

	def serve(connection):
		while connection.buffer or connection.fill():
			read_request(connection)
			body = b"".join(iter(connection.read_chunk, b""))
			seen.append((body, connection.read_trailers()))
			connection.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % (503 if len(seen) < 3 else 200))

	with Scripted(serve) as server:
		path, _, _ = place(gw, gw.service(server.port), ("Retry", retry(2, "5xx")))
		with gw.connect() as connection:
			connection.send(f"PUT {path} HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
			for piece in pieces:
				time.sleep(0.05)
				connection.send(piece)
			assert connection.read_response().status == 200
		assert [(body, [(name.lower(), value) for name, value in trailers]) for body, trailers in seen] == \
			[(b"hello world", [("x-sum", "11")])] * 3


def test_expect_continue_is_answered_once(gw, protocol):
	with upstream(protocol, Reply(503), Reply(503), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(2, "5xx")))
		with gw.connect() as connection:
			connection.send(f"PUT {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			assert connection.read_head().status == 100
			connection.send("hello")
			answer = connection.read_head()
			assert answer.status == 200 and connection.take(4) == b"good"
		assert [hit.body for hit in up.hits] == [b"hello"] * 3


def test_large_body_meets_a_dead_endpoint(gw, backend):
	"""Nothing of the body beyond the first piece is taken before there is a connection: it can go elsewhere."""
	service = gw.service([f"127.0.0.5:{backend.port}", backend.peers[0]], ports=[{"name": "p", "port": backend.port, "protocol": "HTTP"}])
	path, _, _ = place(gw, service, ("Retry", retry(1, "connect-failure")))
	body = os.urandom(4 << 20)
	for _ in range(4):
		assert gw.request("PUT", f"{path}/echo", body=body).status == 200
	sent = [record for record in backend.requests() if record.method == "PUT"]
	assert [record.sha256 for record in sent] == [hashlib.sha256(body).hexdigest()] * 4


def test_the_limit_of_kept_bodies_is_a_setting():
	with Gateway() as gw:
		gw.feature("retryBufferBytes", 1000)
		gw.feature("attemptCountHeader", True)
		with upstream("h1", Reply(503), Reply(200, b"good")) as up:
			path, _, _ = place(gw, up, ("Retry", retry(2, "5xx")))
			assert gw.request("PUT", path, {"X-Envoy-Attempt-Count": "77"}, body=b"x" * 1000).body == b"good"
			assert [hit.header("x-envoy-attempt-count") for hit in up.hits] == ["1", "2"]
		with upstream("h1", Reply(503), Reply(200, b"good")) as up:
			path, _, service = place(gw, up, ("Retry", retry(2, "5xx")))
			assert gw.request("PUT", path, body=b"x" * 1001).status == 503 and len(up.hits) == 1
			assert metric(gw, "sluice_retry_or_shadow_abandoned_total", service=service.name) == 1
		gw.feature("retryBufferBytes", 0)
		with upstream("h1", Reply(200, b"good")) as up:
			service = gw.service([f"127.0.0.5:{up.port}", up.address], ports=[{"name": "p", "port": up.port, "protocol": "HTTP"}])
			path, _, _ = place(gw, service, ("Retry", retry(1, "connect-failure")))
			assert {gw.request("POST", path, body=b"x" * 5000).status for _ in range(4)} == {200}
			assert {len(hit.body) for hit in up.hits} == {5000}


# ---- other ----

def test_after_an_answer_nobody_waits_for(gw, protocol):
	"""A refused answer with a long body is let go; its connection carries no further one."""
	with upstream(protocol, Stream(b"x" * 1000, b"y" * 1000, length=1_000_000), Reply(200, b"good")) as up:
		up.answers[0].status = 503
		path, _, _ = place(gw, up, ("Retry", retry(2, "5xx")))
		assert gw.get(path).body == b"good"


def test_name_that_does_not_resolve_is_a_failed_connection(gw, backend):
	service = gw.service([f"does-not-exist.invalid:{backend.port}", backend.peers[0]], sourceType="DNS",
		ports=[{"name": "p", "port": backend.port, "protocol": "HTTP"}])
	path, _, _ = place(gw, service, ("Retry", retry(1, "connect-failure")))
	assert {gw.get(f"{path}/echo").status for _ in range(4)} == {200}


def test_all_dead(gw):
	path, _, _ = place(gw, gw.service([f"127.0.0.1:{free_port()}"]), ("Retry", retry(2, "connect-failure")))
	answer = gw.get(path)
	assert answer.status == 503 and answer.header("Retry-After") == "1"
	record = gw.wait_record(path=path)
	assert record["flag"] == "URX,UF" and record["attempts"] == 3


def test_stale_connections_do_not_use_up_attempts(gw, backend):
	"""The upstream closes a kept connection just as a request arrives on it: that is no try."""
	path, _, service = place(gw, gw.service(backend), ("Retry", retry(1, "5xx", "reset")))
	with gw.connect() as connection:
		for _ in range(5):
			assert connection.get(f"{path}/stale-next").status == 200
			assert connection.get(f"{path}/echo").status == 200
	assert counts(gw, service) == (0, 0, 0, 0)


def test_after_a_broken_connection_comes_a_new_one():
	"""All kept connections are as stale as the first: the one retry of a POST does not meet the next of them."""
	class Stale(Http1):
		"""Answers one request of each connection."""
		served = set()

		def hit(self, *what):
			super().hit(*what)
			if threading.current_thread() in self.served:
				return RESET
			self.served.add(threading.current_thread())
			return Reply(200, b"good", delay=0.3)

	with Gateway(workers=1) as gw, Stale(Reply()) as up:
		path, _, _ = place(gw, up, ("Retry", retry(1, "reset", "non_idempotent")))
		connections = [gw.connect() for _ in range(4)]
		for connection in connections:
			connection.start("GET", path)
		for connection in connections:
			assert connection.read_response().body == b"good"
			connection.close()
		assert up.open == 4
		for _ in range(2):
			assert gw.request("POST", path, body=b"x").body == b"good"


class Refusing(Scripted):
	"""Answers 503 in these pieces, a millisecond apart, None = a reset, an Event is waited for; every fourth (`good`) request gets 200."""

	def __init__(self, *pieces, good=4):
		super().__init__(self.talk)
		self.pieces, self.good, self.hits, self.ended = pieces, good, 0, 0

	def talk(self, connection):
		while connection.buffer or connection.fill():
			read_request(connection)
			self.hits += 1
			if self.good and self.hits % self.good == 0:
				connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
				continue
			for piece in self.pieces:
				if piece is None:
					connection.reset()
					return
				if isinstance(piece, threading.Event):
					piece.wait(5)
					continue
				connection.send(piece)
				time.sleep(0.001)
		self.ended += 1


def test_the_rest_of_a_dropped_answer_is_read(gw):
	"""The connection is used again, though the answer was not whole when the next try was decided: mostly, for a pause may be short."""
	for pieces in ((b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n", b"over", b"loade"),
			(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nover\r\n", b"0\r\n\r\n")):
		with Refusing(*pieces) as server:
			path, _, _ = place(gw, gw.service(server.port), ("Retry", retry(3, "5xx")))
			for _ in range(10):
				assert gw.get(path).body == b"good"
			assert server.hits == 40 and len(server.connections) <= 20


@pytest.mark.parametrize("pieces", [
	(b"HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\n", b"x" * 1000),             # longer than is worth it
	(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"11170\r\n" + b"x" * 70000),
	(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n", b"over"),                       # does not come
	(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n", b"over", None),                 # is cut
	(b"HTTP/1.0 503 No\r\n\r\n", b"over"),                                            # ends with the connection
])
def test_what_is_not_read_of_a_dropped_answer(gw, pieces):
	"""Nobody waits for it and nobody sees it; the next try has another connection."""
	with Refusing(*pieces) as server:
		path, _, service = place(gw, gw.service(server.port), ("Retry", retry(3, "5xx")))
		for _ in range(3):
			start = time.monotonic()
			assert gw.get(path).body == b"good"
			assert time.monotonic() - start < 5
		assert server.hits == 12
		if None not in pieces:
			wait_until(lambda: server.ended + len(server.errors) >= 9, 5, "the end of connections with the rest of an answer")
		assert counts(gw, service) == (3, 6, 0, 0)


@pytest.mark.parametrize("head, rest", [
	(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"),
	(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nover\r\n", b"-1\r\n")])
def test_what_is_bad_behind_the_head_of_a_dropped_answer(gw, head, rest):
	"""The status asks for another try, so what follows it does not matter, whether it comes with the head or later."""
	for pieces in ((head + rest,), (head, rest)):
		with Refusing(*pieces) as server:
			path, _, service = place(gw, gw.service(server.port), ("Retry", retry(3, "5xx")))
			assert gw.get(path).body == b"good"
			assert server.hits == 4 and counts(gw, service) == (1, 2, 0, 0)
	with Refusing(head.replace(b"503 No", b"200 OK") + rest) as server:
		path, _, _ = place(gw, gw.service(server.port), ("Retry", retry(3, "5xx")))
		assert gw.get(path).status == 502 and server.hits == 1, "of an answer that is wanted it does"


def test_trailers_of_a_dropped_answer_outlive_its_request(gw):
	"""They have begun when the next try is decided, and go on when the request and its memory are gone."""
	is_over = threading.Event()
	head = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n"
	with Refusing(head + b"0\r\nX-Late: a", is_over, b"b" * 3000, b"c\r\n\r\n") as server:
		path, _, _ = place(gw, gw.service(server.port), ("Retry", retry(3, "5xx")))
		assert gw.get(path).body == b"good"
		is_over.set()
		for _ in range(10):
			assert gw.get(path).body == b"good"


@pytest.mark.parametrize("limit", [0, 0.15])
def test_a_dropped_answer_ends_with_its_request(gw, limit):
	"""The client leaves, or the Timeout is over, in a pause: what was being read of the last answer ends too."""
	with Refusing(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n", b"over", good=0) as server:
		path, route, service = place(gw, gw.service(server.port), ("Retry", retry(10, "5xx")))
		gw.attach("Timeout", {"unitNum": limit, "timeUnit": "s", "enable": True}, to=route)
		for _ in range(5):
			hits = server.hits
			with gw.connect() as connection:
				connection.start("GET", path)
				if limit:
					assert connection.read_response().status == 504
				else:
					wait_until(lambda hits=hits: server.hits > hits + 2)
					connection.reset()
		wait_until(lambda: server.ended + len(server.errors) == server.hits == len(server.connections), 5, "the end of all connections")
		assert metric(gw, "sluice_upstream_timeouts_total", service=service.name, limit="total") == (5 if limit else 0)


def test_concurrent_retries_do_not_mix(gw):
	with upstream("h1", *[Reply(503), Reply(200, b"good")] * 60) as up:
		path, _, _ = place(gw, up, ("Retry", retry(10, "5xx", "non_idempotent")))
		bad = []

		def run(name):
			body = name * 5000
			answer = gw.request("POST", path, {"X-Name": name.decode()}, body=body)
			if answer.status not in (200, 503):
				bad.append(answer)

		threads = [threading.Thread(target=run, args=(b"%02d" % i,)) for i in range(20)]
		for thread in threads:
			thread.start()
		for thread in threads:
			thread.join()
		assert not bad and not up.errors
		assert all(hit.body == hit.header("x-name").encode() * 5000 for hit in up.hits)


def test_clients_of_http2(gw, protocol):
	"""Their bodies wait in their own queues while a try is repeated."""
	body = os.urandom(60_000)
	with upstream(protocol, Reply(503, early=protocol == "h1"), Reply(503), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, ("Retry", retry(3, "5xx")))
		with H2(gw.port) as client:
			stream = client.start(head(path, method="PUT", more=[("content-length", str(len(body)))]), end=False)
			client.send_body(stream, body[:20_000], end=False)
			time.sleep(0.1)
			client.send_body(stream, body[20_000:])
			assert client.answer(stream).body == b"good"
		assert up.hits[-1].body == body


def test_everything_at_once():
	"""Clients that leave, upstreams that fail in every way, all three policies: nothing stays behind and no answer is mixed up."""
	chance = random.Random(4)

	def behave():
		return chance.choice([Reply(200, b"g" * 5000), Reply(200, b"g" * 200_000), Reply(503, b"s" * 100_000), Reply(503, early=True), RESET,
			HANG, GARBAGE, Reply(200, b"late", delay=0.4), Stream(*[b"g" * 1000] * 5, pause=0.02, cut=True), Stream(*[b"g" * 1000] * 5)])

	bad = []

	def run(gw, paths, end, seed):
		chance = random.Random(seed)
		while time.monotonic() < end:
			path, body = chance.choice(paths), b"x" * chance.choice([0, 10, 50_000, 100_000, 100_001, 400_000])
			connection = gw.connect()
			try:
				connection.start(chance.choice(["PUT", "POST"]) if body else "GET", path, body=body or None)
				if chance.random() < 0.2:
					time.sleep(chance.random() * 0.1)
					connection.reset()
					continue
				answer = connection.read_response()
				if answer.status not in (200, 502, 503, 504) or (answer.status == 200 and set(answer.body) - set(b"glate")):
					bad.append(answer)
			except (Closed, BrokenPipeError, ConnectionResetError):
				pass    # cut in the middle, or answered early
			finally:
				connection.close()

	with Gateway() as gw:
		gw.feature("retryBufferBytes", 100_000)
		backup = gw.service([f"127.0.0.1:{free_port()}"])
		paths, ups = [], [upstream(kind, *[behave() for _ in range(2000)]) for kind in ("h1", "h2")]
		for up in ups:
			service = gw.service([up.address, f"127.0.0.9:{up.port}"], ports=[{"name": "p", "port": up.port, "protocol": up.protocol}])
			for limit in (0, 0.1):
				paths.append(place(gw, service, ("Timeout", {"unitNum": 0.5, "timeUnit": "s", "enable": True}),
					("Retry", retry(4, "5xx", "non_idempotent", perTryTimeout=limit)),
					("Fallback", {"fallBackDestination": [{"serviceId": backup.id}], "enable": True}))[0])
		end = time.monotonic() + 4
		threads = [threading.Thread(target=run, args=(gw, paths, end, seed)) for seed in range(10)]
		for thread in threads:
			thread.start()
		for thread in threads:
			thread.join()
		assert not bad, bad[:3]
		wait_until(lambda: "\nsluice_requests_in_flight 0\n" in raw_get(gw, "/metrics")[1], 20, "the end of all requests")
		for up in ups:
			up.__exit__()


@pytest.mark.parametrize("config, field", [
	({"attempts": -1, "retryOn": ["5xx"]}, "config.attempts"), ({"attempts": 11, "retryOn": ["5xx"]}, "config.attempts"),
	({"attempts": 1, "retryOn": []}, "config.retryOn"), ({"attempts": 1, "retryOn": [], "httpCodes": []}, "config.retryOn"),
	({"attempts": 1, "retryOn": ["4xx"]}, "config.retryOn[0]"), ({"attempts": 1, "retryOn": ["5xx", "5XX"]}, "config.retryOn[1]"),
	({"attempts": 1, "retryOn": ["5xx"], "httpCodes": ["399"]}, "config.httpCodes[0]"),
	({"attempts": 1, "retryOn": ["5xx"], "httpCodes": ["600"]}, "config.httpCodes[0]"),
	({"attempts": 1, "retryOn": ["5xx"], "httpCodes": ["0503"]}, "config.httpCodes[0]"),
	({"attempts": 1, "retryOn": ["5xx"], "httpCodes": ["5xx"]}, "config.httpCodes[0]"),
	({"attempts": 1, "retryOn": ["5xx"], "perTryTimeout": -0.1}, "config.perTryTimeout"),
])
def test_rejects(gw, config, field):
	import json
	answer = gw.api("POST", "/api/v2/policies", {"name": "r", "className": "Retry", "config": json.dumps({**config, "enable": True})})
	check_error(answer, 400, "ErrInvalidParameter", field)


def test_is_enforced(gw):
	assert is_enforced(gw, "Retry")
