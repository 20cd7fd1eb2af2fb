"""Timeout on live traffic, over HTTP/1.1 and HTTP/2 upstreams. Bounds from above are generous: the machine may be busy."""
import time

import pytest
from gw import Gateway, numbers
from h2wire import H2, head
from policy_kit import check_error, is_enforced, phase, rest_api
from scripted import Scripted, echo_frames, frame, read_frame, UPGRADE
from tries import HANG, Reply, Stream, metric, upstream
from wire import Closed, wait_until

SSE = [("Content-Type", "text/event-stream")]


def timeout(n, unit="s", **more):
	return {"unitNum": n, "timeUnit": unit, "enable": True, **more}


@pytest.fixture(params=["h1", "h2"])
def protocol(request):
	return request.param


def place(gw, up, **config):
	"""A new route to the upstream with a Timeout: its path and resources."""
	path = f"/timeout-{next(numbers)}"
	service = up.service(gw)
	route = gw.route(path, service)
	if config:
		gw.attach("Timeout", config, to=route)
	return path, route, service


def timed(call):
	start = time.monotonic()
	answer = call()
	return answer, time.monotonic() - start


# ---- examples of the contract ----

def test_ex1_slow_answer_is_504_and_the_upstream_is_let_go(gw, protocol):
	with upstream(protocol, Reply(200, delay=6)) as up:
		path, _, service = place(gw, up, **timeout(1))
		answer, took = timed(lambda: gw.get(path))
		assert answer.status == 504 and answer.json["errorCode"] == "ErrUpstreamTimeout"
		assert 0.99 <= took < 4, took
		wait_until(lambda: up.ended == 1 if protocol == "h1" else up.cancelled == 1, 5, "the end of the call at the upstream")
		record = gw.wait_record(path=path)
		assert record["flag"] == "UT" and record["status"] == 504 and record["attempts"] == 1
		assert metric(gw, "sluice_upstream_timeouts_total", service=service.name, limit="total") == 1
		assert metric(gw, "sluice_upstream_failures_total", service=service.name, reason="timeout") == 1


def test_ex2_fractions_of_a_second(gw, protocol):
	with upstream(protocol, Reply(200, delay=5)) as up:
		path, _, _ = place(gw, up, **timeout(0.2))
		answer, took = timed(lambda: gw.get(path))
		assert answer.status == 504 and 0.19 <= took < 3, took


def test_less_than_a_millisecond_is_one(gw):
	"""Rounded down it would be no limit at all."""
	with upstream("h1", Reply(200, delay=5)) as up:
		path, _, _ = place(gw, up, **timeout(0.0001))
		answer, took = timed(lambda: gw.get(path))
		assert answer.status == 504 and took < 3, took


def test_ex3_zero_waits_without_limit(gw, protocol):
	with upstream(protocol, Reply(200, b"late", delay=1.5)) as up:
		path, _, _ = place(gw, up, **timeout(0))
		assert gw.get(path).body == b"late"


def test_ex4_the_route_beats_the_service(gw, protocol):
	with upstream(protocol, Reply(200, delay=5)) as up:
		path, route, service = place(gw, up)
		own = gw.attach("Timeout", timeout(0.3), to=route)
		gw.attach("Timeout", timeout(60), to=service)
		answer, took = timed(lambda: gw.get(path))
		assert answer.status == 504 and took < 4
	with upstream(protocol, Reply(200, b"late", delay=1)) as up:
		path, route, service = place(gw, up)
		gw.attach("Timeout", timeout(0.3), to=service)
		assert gw.get(path).status == 504
		off = gw.attach("Timeout", timeout(60, enable=False), to=route)
		assert gw.get(path).body == b"late"
		gw.delete(off)
		assert gw.get(path).status == 504


def test_ex5_events_are_bounded_to_their_head_only(gw, protocol):
	events = [b"data: %d\n\n" % i for i in range(6)]
	with upstream(protocol, Stream(*events, fields=SSE, pause=0.25), Stream(*events, fields=SSE, delay=5)) as up:
		path, _, _ = place(gw, up, **timeout(0.6))
		answer, took = timed(lambda: gw.get(path))
		assert answer.status == 200 and answer.body == b"".join(events) and took > 1.4
		assert gw.get(path).status == 504


def test_ex6_retries_and_pauses_are_within_the_total(gw, protocol):
	with upstream(protocol, Reply(503, delay=0.7)) as up:
		path, route, _ = place(gw, up, **timeout(1))
		gw.attach("Retry", {"attempts": 3, "retryOn": ["5xx"], "enable": True}, to=route)
		answer, took = timed(lambda: gw.get(path))
		assert answer.status == 504 and 0.99 <= took < 4
		record = gw.wait_record(path=path)
		assert record["flag"] == "UT"
		assert len(up.hits) <= 2


def test_ex7_a_body_that_takes_too_long_does_not_end_well(gw, protocol):
	pieces = [b"x" * 100] * 60
	with upstream(protocol, Stream(*pieces, pause=0.1, length=6000), Stream(*pieces, pause=0.1)) as up:
		path, _, _ = place(gw, up, **timeout(0.5))
		for _ in range(2):
			with gw.connect() as connection:
				with pytest.raises(Closed):
					connection.get(path)
				assert connection.is_closed(5)
		wait_until(lambda: len(gw.records(path=path)) == 2)
		assert {record["flag"] for record in gw.records(path=path)} == {"UT"}


def test_ex8_unknown_unit_is_refused(gw):
	for unit in ("ms", "S", "d", ""):
		answer = gw.api("POST", "/api/v2/policies", {"name": "t", "className": "Timeout",
			"config": f'{{"unitNum":1,"timeUnit":"{unit}","enable":true}}'})
		check_error(answer, 400, "ErrInvalidParameter", "config.timeUnit")


@pytest.mark.parametrize("n", ["-1", "-0.001", "NaN", "Infinity", "1e999", "86400.5"])
def test_other_rejects(gw, n):
	answer = gw.api("POST", "/api/v2/policies", {"name": "t", "className": "Timeout",
		"config": f'{{"unitNum":{n},"timeUnit":"s","enable":true}}'})
	assert answer[0] == 400, answer
	if n not in ("NaN", "Infinity", "1e999"):
		check_error(answer, 400, "ErrInvalidParameter", "config.unitNum")


def test_longest_times_are_accepted(gw, backend):
	for n, unit in ((86400, "s"), (1440, "m"), (24, "h")):
		gw.attach("Timeout", timeout(n, unit), to=gw.route(f"/long-{next(numbers)}", backend))
	answer = gw.api("POST", "/api/v2/policies", {"name": "t", "className": "Timeout",
		"config": '{"unitNum":24.001,"timeUnit":"h","enable":true}'})
	check_error(answer, 400, "ErrInvalidParameter", "config.unitNum")


# ---- traps ----

def test_trap_a_truncated_body_over_http2_is_reset(gw, protocol):
	with upstream(protocol, Stream(*[b"x" * 100] * 60, pause=0.1)) as up:
		path, _, _ = place(gw, up, **timeout(0.4))
		with H2(gw.port) as client:
			answer = client.get(path)
			assert answer.status == 200 and not answer.done and answer.reset is not None


def test_trap_a_body_of_an_http10_client_is_reset(gw):
	"""Its end is that of the connection: a clean one would look complete."""
	with upstream("h1", Stream(*[b"x" * 100] * 60, pause=0.1)) as up:
		path, _, _ = place(gw, up, **timeout(0.4))
		with gw.connect() as connection:
			connection.start("GET", path, version="1.0")
			assert connection.read_head().status == 200
			with pytest.raises(ConnectionResetError):
				while connection.socket.recv(65536):
					pass


def test_trap_late_bytes_are_for_nobody(gw):
	"""The connection of a try that took too long goes: the next request has one of its own."""
	with upstream("h1", Reply(200, b"late", delay=1.0), Reply(200, b"good")) as up:
		path, _, _ = place(gw, up, **timeout(0.3))
		assert gw.get(path).status == 504
		for _ in range(3):
			assert gw.get(path).body == b"good"
		assert up.hits[0].connection != up.hits[1].connection


def test_trap_upgraded_connections_live_on(gw):
	with Scripted(echo_frames) as server:
		path = f"/timeout-{next(numbers)}"
		gw.attach("Timeout", timeout(0.3), to=gw.route(path, server.port))
		with gw.connect() as connection:
			connection.start("GET", path, UPGRADE)
			assert connection.read_head().status == 101
			for _ in range(4):
				time.sleep(0.2)
				connection.send(frame(b"still", mask=True))
				assert read_frame(connection) == (2, b"still")


def test_trap_the_clock_starts_with_the_whole_request(gw, protocol):
	with upstream(protocol, Reply(200, b"good", delay=0.2)) as up:
		path, _, _ = place(gw, up, **timeout(0.8))
		with gw.connect() as connection:
			connection.send(f"PUT {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 6\r\n\r\n")
			for byte in b"abcdef":
				time.sleep(0.25)
				connection.send(bytes([byte]))
			answer = connection.read_response()
			assert answer.status == 200 and answer.body == b"good"
		assert up.hits[0].body == b"abcdef"


def test_an_early_answer_stops_the_clock_from_starting(gw):
	with upstream("h1", Reply(413, b"too long", early=True)) as up:
		path, _, _ = place(gw, up, **timeout(0.3))
		with gw.connect() as connection:
			connection.send(f"PUT {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 600\r\n\r\nabc")
			assert connection.read_response().status == 413
		assert gw.wait_record(path=path)["status"] == 413


def test_connecting_counts(gw):
	"""A host that swallows connections: the Timeout ends the wait for it."""
	path = f"/timeout-{next(numbers)}"
	gw.attach("Timeout", timeout(0.3), to=gw.route(path, gw.service(["192.0.2.1:9"])))
	answer, took = timed(lambda: gw.get(path))
	# Some networks refuse such an address at once.
	assert answer.status in (504, 503) and took < 4


def test_ends_with_the_last_byte_of_the_upstream(gw):
	"""A connection that waits for its next request is not counted, nor is the time the client takes."""
	with upstream("h1", Reply(200, b"x" * 3_000_000)) as up:
		path, _, _ = place(gw, up, **timeout(0.5))
		with gw.connect() as connection:
			assert len(connection.get(path).body) == 3_000_000
			time.sleep(0.7)
			assert len(connection.get(path).body) == 3_000_000


def test_change_and_removal_act_at_once(gw):
	with upstream("h1", Reply(200, b"late", delay=0.6)) as up:
		path, route, _ = place(gw, up)
		attachment = gw.attach("Timeout", timeout(0.1), to=route)
		assert phase(gw, attachment) == "Active"
		assert gw.get(path).status == 504
		gw.change_policy(attachment, timeout(30))
		assert gw.get(path).status == 200
		gw.change_policy(attachment, timeout(0.1))
		assert gw.get(path).status == 504
		gw.delete(attachment)
		assert gw.get(path).status == 200


def test_an_operation_beats_its_api(gw):
	with upstream("h1", Reply(200, b"late", delay=0.6)) as up:
		api = rest_api(gw, up.service(gw))
		slow, quick = api.operation("GET", "/slow"), api.operation("GET", "/quick")
		gw.attach("Timeout", timeout(0.1), to=api)
		gw.attach("Timeout", timeout(30), to=slow)
		assert gw.get(f"{api.base}/slow").status == 200
		assert gw.get(f"{api.base}/quick").status == 504
		assert quick.id


def test_is_enforced(gw):
	assert is_enforced(gw, "Timeout")


# ---- silence of streams: the gateway setting ----

@pytest.fixture(scope="module")
def quiet():
	"""Streams may be silent for half a second here."""
	with Gateway() as gw:
		gw.feature("streamIdleTimeoutMs", 500)
		yield gw


def test_silence_of_events_is_bounded(quiet, protocol):
	events = [b"data: %d\n\n" % i for i in range(4)]
	with upstream(protocol, Stream(*events, fields=SSE, pause=0.2), Stream(b"data: x\n\n", b"data: y\n\n", fields=SSE, pause=3)) as up:
		path, _, _ = place(quiet, up)
		assert quiet.get(path).body == b"".join(events)
		with quiet.connect() as connection:
			connection.start("GET", path)
			assert connection.read_head().status == 200
			answer, took = timed(lambda: connection.is_closed(5))
			assert answer and not connection.buffer and 0.3 < took < 2.9
		assert quiet.wait_record(path=path, status=200)["status"] == 200


def test_silence_of_a_websocket_is_bounded(quiet):
	with Scripted(echo_frames) as server:
		path = f"/timeout-{next(numbers)}"
		quiet.route(path, server.port)
		with quiet.connect() as connection:
			connection.start("GET", path, UPGRADE)
			assert connection.read_head().status == 101
			assert connection.is_closed(5)
		assert quiet.wait_record(path=path)["flag"] == "SI"


def test_silence_of_an_ordinary_body_is_not_meant(quiet, protocol):
	with upstream(protocol, Stream(b"a", b"b", pause=0.9)) as up:
		path, _, _ = place(quiet, up)
		assert quiet.get(path).body == b"ab"


def test_silence_of_grpc_is_bounded(quiet):
	fields = [("content-type", "application/grpc")]
	with upstream("h2", Stream(b"a" * 5, b"b" * 5, fields=fields, pause=3)) as up:
		path, _, _ = place(quiet, up)
		with H2(quiet.port) as client:
			answer, took = timed(lambda: client.request(head(path, method="POST", more=fields)))
			assert answer.status == 200 and not answer.done and answer.reset is not None and took < 2.9


def test_streams_without_limit():
	with Gateway(upstream_idle_ms=400) as gw:
		gw.feature("streamIdleTimeoutMs", 0)
		with upstream("h1", Stream(b"data: x\n\n", b"data: y\n\n", fields=SSE, pause=1)) as up:
			path, _, _ = place(gw, up)
			assert gw.get(path).body == b"data: x\n\ndata: y\n\n"


def test_a_hanging_upstream_is_let_go_when_the_client_leaves(gw, protocol):
	with upstream(protocol, HANG) as up:
		path, _, _ = place(gw, up, **timeout(30))
		with gw.connect() as connection:
			connection.start("GET", path)
			up.wait_hits(1)
		wait_until(lambda: up.ended == 1 if protocol == "h1" else up.cancelled == 1, 5, "the end of the call")
		assert gw.wait_record(path=path)["flag"] == "DC"
