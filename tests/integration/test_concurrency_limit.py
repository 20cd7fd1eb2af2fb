"""ConcurrencyLimit on live traffic: what is in flight counts, however it ends it leaves."""
import socket
import threading
import time

import h2wire
import pytest
from gw import Gateway, free_port, numbers
from policy_kit import Told, breaker, concurrency, cors, direct, ip_list, outcomes, preflight, rate, rest_api
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame, read_request
from wire import wait_until


@pytest.fixture
def upstream():
	with Told() as told:
		yield told


class Path(str):
	route = service = None


def new_path(gw, target, **options):
	path = Path(f"/flight-{next(numbers)}")
	path.route = gw.route(path, target, **options)
	return path


def hold(gw, upstream, n, path, site=None):
	"""n requests that are at the upstream and wait there; connections."""
	before = upstream.hits
	upstream.hold()
	connections = [gw.connect(site) for _ in range(n)]
	for connection in connections:
		connection.start("GET", path)
	wait_until(lambda: upstream.hits == before + n, 5, f"{n} requests at the upstream")
	return connections


def finish(upstream, connections):
	upstream.release()
	for connection in connections:
		assert connection.read_response().status == 200
		connection.close()


def is_free(gw, upstream, n, path, site=None):
	"""Exactly n requests can be in flight (n + 1 is too much), waiting for ends that are on their way."""
	def fits():
		upstream.hold()
		before = upstream.hits
		connections = [gw.connect(site) for _ in range(n)]
		try:
			for connection in connections:
				connection.start("GET", path)
			end = time.monotonic() + 5
			while upstream.hits < before + n and time.monotonic() < end:
				if any(not c.is_closed(0) and c.buffer for c in connections):
					break    # one was refused
			full = upstream.hits == before + n
			refused = gw.get(path, site=site).text == "busy" if full else None
			upstream.release()
			for connection in connections:
				connection.read_response()
			return full and refused
		finally:
			upstream.release()
			for connection in connections:
				connection.close()
	wait_until(fits, 10, f"room for {n} requests in flight and not more")
	return True


# ---- examples of the contract ----

def test_ex1_third_is_refused(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	held = hold(gw, upstream, 2, path)
	begin = time.monotonic()
	answer = gw.get(path)
	assert time.monotonic() - begin < 1, "there is no queue"
	assert (answer.status, answer.text, answer.header("Retry-After")) == (503, "busy", "1")
	assert answer.header("Content-Type") == "text/plain; charset=utf-8"
	finish(upstream, held)
	assert upstream.hits == 2


def test_ex2_room_after_they_finish(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	for _ in range(20):
		finish(upstream, hold(gw, upstream, 2, path))
		with gw.connect() as other:
			assert other.get(path).status == 200, "whoever has the answer finds room, at whichever worker"
	assert is_free(gw, upstream, 2, path)


def test_ex3_killed_clients(gw, backend, upstream):
	"""Two are reset in the middle of their responses."""
	service = gw.service(backend)
	path = new_path(gw, service)
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	killed = [gw.connect(receive_buffer=4096) for _ in range(2)]
	for connection in killed:
		connection.start("GET", f"{path}/endless")
		assert connection.read_head().status == 200
	assert gw.get(f"{path}/size/1").status == 503
	for connection in killed:
		connection.reset()
	wait_until(lambda: gw.get(f"{path}/size/1").status == 200, 1, "room")
	with gw.connect() as one, gw.connect() as two:
		for connection in (one, two):
			connection.start("GET", f"{path}/endless")
			assert connection.read_head().status == 200
		assert gw.get(f"{path}/size/1").status == 503


def test_ex4_websockets(gw):
	with Scripted(echo_frames) as upstream:
		path = new_path(gw, upstream.port)
		gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
		sockets = [gw.connect() for _ in range(2)]
		for connection in sockets:
			assert connection.get(path, UPGRADE).status == 101
		refused = gw.get(path, UPGRADE)
		assert (refused.status, refused.text) == (503, "busy")
		for connection in sockets:    # they are not disturbed
			connection.send(frame(b"hello", mask=True))
			assert read_frame(connection) == (2, b"hello")
		sockets[0].close()

		def upgrades():
			connection = gw.connect()
			sockets.append(connection)
			return connection.get(path, UPGRADE).status == 101
		wait_until(upgrades, 5, "room for another one")
		assert gw.get(path, UPGRADE).status == 503
		for connection in sockets:
			connection.close()


def test_ex5_gateway_and_route(gw, upstream):
	site = gw.gateway()
	path, other = new_path(gw, upstream.port, site=site), new_path(gw, upstream.port, site=site)
	gw.attach("ConcurrencyLimit", concurrency(4, responseContentBody="gateway"), to=site)
	gw.attach("ConcurrencyLimit", concurrency(2, responseContentBody="route"), to=path.route)
	held = hold(gw, upstream, 2, path, site)
	assert [gw.get(path, site=site).text for _ in range(20)] == ["route"] * 20
	more = hold(gw, upstream, 2, other, site)
	assert gw.get(other, site=site).text == "gateway", "2 + 2: what the route refused was given back"
	finish(upstream, held + more)


def test_ex6_later_answers_give_back(gw, upstream):
	"""An open breaker, a thousand times (and a redirect, and a limit of the service)."""
	path = new_path(gw, gw.service(upstream.port))
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	opened = gw.attach("CircuitBreaker", breaker(minRequestAmount=1, recoveryTimeoutSec=3600), to=path.route)
	upstream.status = 500
	assert gw.get(path).status == 500
	wait_until(lambda: gw.get(path).text == "open", 5, "an open circuit")
	with gw.connect() as connection:
		for _ in range(1000):
			assert connection.get(path).text == "open"
	gw.delete(opened)
	upstream.status = 200
	assert is_free(gw, upstream, 2, path)


def test_ex7_lowered_limit(gw, upstream):
	path = new_path(gw, upstream.port)
	attachment = gw.attach("ConcurrencyLimit", concurrency(10), to=path.route)
	held = hold(gw, upstream, 8, path)
	gw.change_policy(attachment, concurrency(2))
	assert gw.get(path).text == "busy"
	upstream.release()
	for connection in held:
		assert connection.read_response().status == 200, "none was killed"
		connection.close()
	assert is_free(gw, upstream, 2, path)


def test_ex8_streams_of_http2(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	upstream.hold()
	with h2wire.H2(gw.port) as connection:
		first, second = connection.start(path=path), connection.start(path=path)
		wait_until(lambda: upstream.hits == 2, 5, "two at the upstream")
		third = connection.get(path)
		assert (third.status, third.body) == (503, b"busy")
		upstream.release()
		assert connection.answer(first).status == connection.answer(second).status == 200
	assert is_free(gw, upstream, 2, path)


# ---- every way to end ----

def test_client_leaves_before_the_answer(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	for connection in hold(gw, upstream, 2, path):
		connection.reset()
	wait_until(lambda: len(gw.records(path=path, flag="DC")) == 2, 5, "two clients gone")
	upstream.release()
	assert is_free(gw, upstream, 2, path)


def test_stream_of_http2_is_reset(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	upstream.hold()
	with h2wire.H2(gw.port) as connection:
		streams = [connection.start(path=path) for _ in range(2)]
		wait_until(lambda: upstream.hits == 2, 5, "two at the upstream")
		for stream in streams:
			connection.send(h2wire.rst(stream))
		wait_until(lambda: len(gw.records(path=path, flag="DC")) == 2, 5, "two streams gone")
		upstream.release()
	assert is_free(gw, upstream, 2, path)


@pytest.mark.parametrize("how", ["reset", "closed", "garbage/version", "cut-mid", "cut-chunked", "reset-mid"])
def test_upstream_fails(gw, backend, how):
	path = new_path(gw, gw.service(backend))
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	for _ in range(3):
		with gw.connect() as connection:
			connection.start("GET", f"{path}/{how}")
			assert connection.read_head().status in (200, 502, 503)
			wait_until(lambda: connection.buffer.endswith(b"}") or not connection.fill(), 5, "the end of the answer")
			assert b"busy" not in connection.buffer
		wait_until(lambda: gw.get(f"{path}/size/1").status == 200, 5, "room")


def test_nothing_listens(gw):
	path = new_path(gw, free_port())
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	with gw.connect() as connection:
		answers = [connection.get(path) for _ in range(20)]
	assert all(a.status == 503 and a.text != "busy" for a in answers), answers


def test_body_that_never_comes(gw, upstream):
	"""A client that does not finish its request holds its place until it goes."""
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	with gw.connect() as connection:
		connection.start("POST", path, {"Content-Length": 10})
		wait_until(lambda: upstream.hits == 1, 5, "its head at the upstream")
		assert gw.get(path).text == "busy"
		connection.reset()
	wait_until(lambda: gw.get(path).status == 200, 5, "room")


def test_answers_of_policies(gw, upstream):
	"""Redirect and DirectResponse answer behind the limit, and every answer gives back."""
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	with gw.connect() as connection:
		for class_name, config, status in (("DirectResponse", direct("200", "fixed"), 200), ("Redirect", {"code": "302", "host": "h"}, 302)):
			attached = gw.attach(class_name, config, to=path.route)
			assert [connection.get(path).status for _ in range(50)] == [status] * 50
			gw.delete(attached)
	assert is_free(gw, upstream, 1, path)


def test_slow_reader_holds_its_place(gw, backend):
	"""Until the last piece is on its way to it."""
	path = new_path(gw, gw.service(backend))
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	with gw.connect(receive_buffer=4096) as slow:
		slow.start("GET", f"{path}/size/{16 << 20}")
		assert slow.read_head().status == 200
		assert [gw.get(f"{path}/size/1").status for _ in range(20)] == [503] * 20
		left = (16 << 20) - len(slow.buffer)
		slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
		while left > 0:
			left -= len(slow.socket.recv(1 << 20))
		assert gw.get(f"{path}/size/1").status == 200


def test_events_hold_their_place(gw):
	"""A stream is in flight until it ends, not until its head."""
	ends = threading.Event()

	def events(connection):
		read_request(connection)
		connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
		ends.wait(20)
		connection.send("0\r\n\r\n")
	with Scripted(events) as upstream:
		path = new_path(gw, upstream.port)
		gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
		with gw.connect() as client:
			client.start("GET", path)
			assert client.read_head().status == 200
			assert client.read_chunk() == b"data: 1\n\n"
			assert gw.get(path).text == "busy"
			ends.set()
			assert client.read_chunk() == b""
			assert gw.get(path).status == 200


def test_sequential_requests_never_add_up(gw, upstream):
	"""Trap: counted cumulatively until all were blocked."""
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	with gw.connect() as connection:
		assert [connection.get(path).status for _ in range(200)] == [200] * 200


def test_two_levels_keep_their_own_tokens(gw, upstream):
	"""Trap: two instances shared what they remembered, one was given back twice and the other never."""
	site = gw.gateway()
	domain = gw.domain("levels.test", site)
	path = new_path(gw, upstream.port, site=site, domains=[domain])
	for holder, most in ((site, 3), (domain, 2), (path.route, 1)):
		gw.attach("ConcurrencyLimit", concurrency(most, responseContentBody=holder.type), to=holder)
	with gw.connect(site) as connection:
		for _ in range(20):
			assert connection.get(path, host="levels.test").status == 200
	upstream.hold()
	with gw.connect(site) as held:
		held.start("GET", path, host="levels.test")
		wait_until(lambda: upstream.hits == 21, 5, "one at the upstream")
		assert [gw.get(path, site=site, host="levels.test").text for _ in range(10)] == ["Route"] * 10
		upstream.release()
		assert held.read_response().status == 200


# ---- changes while requests are in flight ----

def test_detached_while_in_flight(gw, upstream):
	path = new_path(gw, upstream.port)
	attachment = gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	held = hold(gw, upstream, 1, path)
	gw.delete(attachment)
	held += hold(gw, upstream, 3, path)
	finish(upstream, held)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	assert is_free(gw, upstream, 1, path)


def test_attached_while_in_flight(gw, upstream):
	"""What was let in without a limit gives nothing back to it."""
	path = new_path(gw, upstream.port)
	held = hold(gw, upstream, 3, path)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	finish(upstream, held)
	assert is_free(gw, upstream, 1, path)


def test_route_deleted_while_in_flight(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	held = hold(gw, upstream, 1, path)
	gw.ask("DELETE", path.route.path)
	assert gw.get(path).status == 404
	finish(upstream, held)


def test_disabled_and_enabled_while_in_flight(gw, upstream):
	path = new_path(gw, upstream.port)
	attachment = gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	held = hold(gw, upstream, 2, path)
	gw.change_policy(attachment, concurrency(2, enable=False))
	held += hold(gw, upstream, 1, path)
	gw.change_policy(attachment, concurrency(2))
	assert gw.get(path).text == "busy", "in-flight counts never reset"
	finish(upstream, held)
	assert is_free(gw, upstream, 2, path)


def test_count_survives_other_changes(gw, upstream):
	path = new_path(gw, upstream.port)
	attachment = gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	held = hold(gw, upstream, 1, path)
	policy = attachment.policy
	gw.ask("PUT", policy.path, {**policy.body, "name": "renamed"})
	gw.change_policy(attachment, concurrency(1, responseContentBody="other"))
	gw.attach("RateLimit", rate(1000), to=path.route)
	assert gw.get(path).text == "other"
	finish(upstream, held)
	wait_until(lambda: gw.get(path).status == 200, 5, "room")


def test_stopped_with_requests_in_flight(upstream):
	"""The process ends in order: no request leaves a count behind that would stop it."""
	with Gateway(drain_timeout_ms=200) as gw:
		path = new_path(gw, upstream.port)
		gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
		held = hold(gw, upstream, 2, path)
		gw.stop()
		upstream.release()
		for connection in held:
			connection.close()


# ---- where ----

def test_at_domain(gw, upstream):
	site = gw.gateway()
	domain = gw.domain("one.test", site)
	path = new_path(gw, upstream.port, site=site)
	gw.attach("ConcurrencyLimit", concurrency(1), to=domain)
	upstream.hold()
	with gw.connect(site) as one:
		one.start("GET", path, host="one.test")
		wait_until(lambda: upstream.hits == 1, 5, "one at the upstream")
		assert gw.get(path, site=site, host="one.test").text == "busy"
		with gw.connect(site) as two:
			two.start("GET", path, host="two.test")
			wait_until(lambda: upstream.hits == 2, 5, "another host's")
			upstream.release()
			assert one.read_response().status == two.read_response().status == 200


def test_api_counts_for_each_operation(gw, upstream):
	api = rest_api(gw, upstream.port)
	for name in ("/a", "/b"):
		api.operation("GET", name)
	gw.attach("ConcurrencyLimit", concurrency(1), to=api)
	held = hold(gw, upstream, 1, f"{api.base}/a")
	assert gw.get(f"{api.base}/a").text == "busy"
	held += hold(gw, upstream, 1, f"{api.base}/b")
	finish(upstream, held)


def test_shared_by_workers(gw, upstream):
	"""40 connections over all workers: a count of each would let twice as many in."""
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(10), to=path.route)
	upstream.hold()
	connections = [gw.connect() for _ in range(40)]
	for connection in connections:
		connection.start("GET", path)
	waiting = list(connections)

	def is_judged():
		for connection in list(waiting):
			if not connection.is_closed(0) and connection.buffer:
				assert connection.read_response().text == "busy"
				waiting.remove(connection)
		return len(waiting) == 10
	wait_until(is_judged, 10, "30 refusals")
	wait_until(lambda: upstream.hits == 10, 5, "10 at the upstream")
	finish(upstream, waiting)
	for connection in connections:
		connection.close()


# ---- order and looks ----

def test_what_comes_before_takes_nothing(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	gw.attach("Cors", cors(), to=path.route)
	held = hold(gw, upstream, 1, path)
	assert [preflight(gw, path).status for _ in range(5)] == [200] * 5
	denied = gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1"), to=path.route)
	assert gw.get(path).status == 403
	gw.delete(denied)
	assert gw.get(path).text == "busy"
	finish(upstream, held)


def test_rate_limit_comes_first(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("RateLimit", rate(2), to=path.route)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	held = hold(gw, upstream, 1, path)
	assert [gw.get(path).status for _ in range(3)] == [503, 429, 429], "counted by the rate before it was refused"
	finish(upstream, held)


def test_refusal_of_grpc(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	held = hold(gw, upstream, 1, path)
	answer = gw.request("POST", path, {"Content-Type": "application/grpc"}, b"")
	assert (answer.status, answer.header("grpc-status"), answer.header("grpc-message")) == (200, "8", "busy")
	finish(upstream, held)


def test_redirects_when_told(gw, upstream):
	path = new_path(gw, upstream.port)
	gw.attach("ConcurrencyLimit", concurrency(1, behaviorType=1, responseRedirectUrl="/later"), to=path.route)
	held = hold(gw, upstream, 1, path)
	answer = gw.get(path)
	assert (answer.status, answer.header("Location"), answer.header("Retry-After")) == (302, "/later", None)
	finish(upstream, held)


def test_record_and_metrics(gw, upstream):
	path = new_path(gw, upstream.port)
	attachment = gw.attach("ConcurrencyLimit", concurrency(1), to=path.route)
	held = hold(gw, upstream, 1, path)
	gw.get(path)
	record = gw.wait_record(path=path, status=503)
	assert (record["flag"], record["policy"]) == ("CC", "ConcurrencyLimit")
	assert outcomes(gw, attachment) == {(path.route.name, "admitted"): 1, (path.route.name, "refused"): 1}
	finish(upstream, held)
