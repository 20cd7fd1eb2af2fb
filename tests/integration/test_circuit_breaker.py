"""CircuitBreaker on live traffic: the state machine is walked by requests, and the upstream counts who came through."""
import time

import pytest
from gw import free_port, numbers, wait_millis
from policy_kit import Told, breaker, burst, concurrency, count, direct, gauge, outcomes, rate
from scripted import Scripted, read_request
from wire import wait_until

CLOSED, HALF_OPEN, OPEN = 0, 1, 2


@pytest.fixture
def upstream():
	with Told() as told:
		yield told


class Path(str):
	route = service = None


def new_path(gw, target, **options):
	path = Path(f"/breaker-{next(numbers)}")
	path.service = gw.service(target, **({"site": options["site"]} if "site" in options else {}))
	path.route = gw.route(path, path.service, **options)
	return path


def guarded(gw, target, **config):
	"""A new path behind a breaker; path.attachment is its."""
	path = new_path(gw, target)
	path.attachment = gw.attach("CircuitBreaker", breaker(**config), to=path.route)
	return path


def ask(gw, n, path, **options):
	"""Statuses of n requests in a row."""
	return [gw.get(path, **options).status for _ in range(n)]


def trip(gw, path, upstream, n=10):
	"""Opens the circuit. The moment at which it certainly was open, by this clock."""
	upstream.status = 500
	assert ask(gw, n, path) == [500] * n
	return time.monotonic()


def wait_for_probe(gw, path, seconds=10):
	"""The first answer that does not come from the breaker."""
	def probe():
		answer = gw.get(path)
		return answer if answer.text != "open" else None
	return wait_until(probe, seconds, "a probe")


def state(gw, path):
	return gauge(gw, path.attachment)[path.route.name]


# ---- examples of the contract ----

def test_ex1_minimum_of_requests(gw, upstream):
	path = guarded(gw, upstream.port)
	upstream.status = 500
	assert ask(gw, 9, path) == [500] * 9
	assert state(gw, path) == CLOSED
	assert ask(gw, 1, path) == [500]
	answer = gw.get(path)
	assert (answer.status, answer.text, answer.header("Content-Type")) == (503, "open", "text/plain; charset=utf-8")
	assert upstream.hits == 10
	assert state(gw, path) == OPEN


def test_ex2_strictly_greater(gw, upstream):
	path = guarded(gw, upstream.port)
	assert ask(gw, 5, path) == [200] * 5
	upstream.status = 500
	assert ask(gw, 5, path) == [500] * 5
	assert state(gw, path) == CLOSED
	assert ask(gw, 2, path) == [500, 503], "6 of 11 are more than half"
	assert upstream.hits == 11


def test_ex3_one_probe(gw, upstream):
	path = guarded(gw, upstream.port)
	opened = trip(gw, path, upstream)
	assert ask(gw, 1, path) == [503]
	upstream.status = 200
	upstream.hold()
	wait_millis(2000 - (time.monotonic() - opened) * 1000 + 5)
	connections = [gw.connect() for _ in range(20)]
	try:
		for connection in connections:
			connection.start("GET", path)
		wait_until(lambda: upstream.hits == 11, 5, "the probe at the upstream")
		waiting = list(connections)
		while len(waiting) > 1:
			for connection in list(waiting):
				connection.socket.settimeout(0.05)
				try:
					connection.fill()
				except TimeoutError:
					continue
				connection.socket.settimeout(20)
				answer = connection.read_response()
				assert (answer.status, answer.text) == (503, "open")
				waiting.remove(connection)
		assert upstream.hits == 11
		upstream.release()
		waiting[0].socket.settimeout(20)
		assert waiting[0].read_response().status == 200
	finally:
		for connection in connections:
			connection.close()
	assert ask(gw, 20, path) == [200] * 20
	assert state(gw, path) == CLOSED


def test_ex4_bad_probe_opens_again(gw, upstream):
	path = guarded(gw, upstream.port)
	trip(gw, path, upstream)
	assert wait_for_probe(gw, path).status == 500, "the backend's own answer"
	again = time.monotonic()
	assert upstream.hits == 11
	assert gw.get(path).text == "open"
	upstream.status = 200
	assert wait_for_probe(gw, path).status == 200
	assert time.monotonic() - again >= 1.9, "another full recoveryTimeoutSec"
	assert ask(gw, 5, path) == [200] * 5


def test_ex5_lost_probe(gw, upstream):
	"""The probe's client leaves while the backend hangs: the lease ends, and another request probes."""
	path = guarded(gw, upstream.port, recoveryTimeoutSec=2)
	trip(gw, path, upstream)
	upstream.status = 200
	upstream.hold()

	def starts_probe():
		connection = gw.connect()
		connection.start("GET", path)
		wait_until(lambda: upstream.hits == 11 or connection.is_closed(0.01) or connection.buffer, 5, "either")
		if upstream.hits == 11:
			return connection
		connection.close()
		return None
	probe = wait_until(starts_probe, 10, "a probe that hangs")
	began = time.monotonic()
	probe.close()
	assert gw.get(path).text == "open", "the lease still runs"
	upstream.release()
	assert wait_for_probe(gw, path).status == 200
	assert time.monotonic() - began < 8
	assert ask(gw, 5, path) == [200] * 5


@pytest.mark.parametrize("several", [False, True])
def test_lease_of_a_probe_is_the_timeout_when_that_is_longer(gw, upstream, several):
	"""A probe may take as long as the Timeout lets it, the longest one where the breaker's route has several services."""
	path = Path(f"/breaker-{next(numbers)}")
	services = [gw.service(upstream.port) for _ in range(2)]
	path.route = gw.route(path, [(service, 50) for service in services] if several else services[0])
	path.attachment = gw.attach("CircuitBreaker", breaker(recoveryTimeoutSec=1), to=path.route)
	gw.attach("Timeout", {"unitNum": 4, "timeUnit": "s", "enable": True}, to=services[0])
	gw.attach("Timeout", {"unitNum": 0.5, "timeUnit": "s", "enable": True}, to=services[1])
	trip(gw, path, upstream)
	upstream.status = 200
	upstream.hold()
	wait_millis(1100)    # the circuit's own clock
	probe = gw.connect()
	probe.start("GET", path)
	wait_until(lambda: upstream.hits == 11, 5, "the probe at the upstream")
	began = time.monotonic()
	probe.close()
	refused = 0
	while time.monotonic() - began < 2.5:
		refused += gw.get(path).text == "open"
	assert refused > 2 and upstream.hits == 11, "1 s is over, 4 s are not"
	upstream.release()
	assert wait_for_probe(gw, path).status == 200


def test_ex6_slow_calls(gw, upstream):
	path = guarded(gw, upstream.port, strategy=0, maxAllowedMs=100, minRequestAmount=5, triggerRatio=100)
	upstream.delay = 0.2
	assert ask(gw, 5, path) == [200] * 5
	assert gw.get(path).text == "open"
	assert upstream.hits == 5


def test_ex7_not_found_is_normal(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=5, triggerRatio=1)
	upstream.status = 404
	assert ask(gw, 30, path) == [404] * 30
	assert state(gw, path) == CLOSED


def test_ex7_refused_connections_open_it(gw):
	path = guarded(gw, free_port())
	answers = [gw.get(path) for _ in range(11)]
	assert [a.status for a in answers] == [503] * 11
	assert [a.text == "open" for a in answers] == [False] * 10 + [True]


def test_ex8_other_route_of_the_service(gw, upstream):
	path = guarded(gw, upstream.port)
	other = f"/breaker-{next(numbers)}"
	gw.route(other, path.service)
	trip(gw, path, upstream)
	assert ask(gw, 1, path) == [503]
	upstream.status = 200
	assert ask(gw, 20, other) == [200] * 20
	assert gw.get(path).text == "open"


# ---- what counts ----

@pytest.mark.parametrize("status, opens", [(499, False), (500, True), (501, True), (502, True), (599, True), (301, False)])
def test_abnormal_is_500_and_above(gw, upstream, status, opens):
	path = guarded(gw, upstream.port, minRequestAmount=5, triggerRatio=100)
	upstream.status = status
	assert ask(gw, 5, path) == [status] * 5
	assert (gw.get(path).text == "open") == opens


def test_100_percent_means_all(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=3, triggerRatio=100)
	assert ask(gw, 1, path) == [200]
	upstream.status = 500
	assert ask(gw, 20, path) == [500] * 20, "20 of 21"
	other = guarded(gw, upstream.port, minRequestAmount=3, triggerRatio=100)
	assert ask(gw, 4, other) == [500, 500, 500, 503]


@pytest.mark.parametrize("how, status", [("reset", 503), ("garbage/version", 502), ("closed", 503)])
def test_failures_of_the_upstream_count(gw, backend, how, status):
	path = guarded(gw, backend, minRequestAmount=5)
	assert ask(gw, 5, f"{path}/{how}") == [status] * 5
	assert gw.get(f"{path}/size/1").text == "open"


def test_no_endpoint_counts(gw, backend):
	"""503 because nothing is healthy stands for a failure of the upstream."""
	service = gw.service([f"127.0.0.1:{free_port()}"], healthCheckConfig={"enable": True, "protocol": "TCP", "interval": 1, "timeout": 1,
		"healthyThreshold": 1, "unhealthyThreshold": 1})
	path = f"/breaker-{next(numbers)}"
	route = gw.route(path, service)
	wait_until(lambda: gw.get(path).status == 503 and gw.records(path=path, flag="UH"), 10, "an unhealthy endpoint")
	attachment = gw.attach("CircuitBreaker", breaker(minRequestAmount=5), to=route)
	assert [gw.get(path).text == "open" for _ in range(6)] == [False] * 5 + [True]
	assert outcomes(gw, attachment)[(route.name, "opened")] == 1


def test_cut_within_the_body_counts(gw, backend):
	"""What the client got cannot be used, whatever its status was."""
	path = guarded(gw, backend, minRequestAmount=3)
	for _ in range(3):
		with gw.connect() as connection:
			connection.start("GET", f"{path}/cut-mid")
			assert connection.read_head().status == 200
			while connection.fill():
				pass
	wait_until(lambda: gw.get(f"{path}/size/1").text == "open", 5, "an open circuit")


def test_local_answers_are_not_counted(gw, upstream):
	"""Neither another policy's refusal nor the breaker's own."""
	path = guarded(gw, upstream.port, minRequestAmount=2)
	limit = gw.attach("RateLimit", rate(1, responseStatusCode=500), to=path.service)
	assert ask(gw, 1, path) == [200]
	assert count(burst(gw, 10, path))[500] >= 9
	assert state(gw, path) == CLOSED
	gw.delete(limit)
	assert ask(gw, 5, path) == [200] * 5
	trips = guarded(gw, upstream.port, minRequestAmount=3)
	trip(gw, trips, upstream, 3)
	assert [gw.get(trips).text for _ in range(30)] == ["open"] * 30
	assert outcomes(gw, trips.attachment)[(trips.route.name, "opened")] == 1


def test_terminal_answers_come_first(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=1)
	fixed = gw.attach("DirectResponse", direct("500", "fixed"), to=path.route)
	assert [gw.get(path).text for _ in range(5)] == ["fixed"] * 5
	gw.delete(fixed)
	assert ask(gw, 1, path) == [200]


def test_client_that_leaves_is_not_counted(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=1, triggerRatio=1)
	upstream.hold()
	for n in range(1, 4):
		with gw.connect() as connection:
			connection.start("GET", path)
			wait_until(lambda n=n: upstream.hits == n, 5, "the request at the upstream")
	wait_until(lambda: len(gw.records(path=path, flag="DC")) == 3, 5, "three clients gone")
	upstream.release()
	assert ask(gw, 3, path) == [200] * 3


def test_client_that_leaves_a_slow_call(gw, upstream):
	"""It has been slow by then already."""
	path = guarded(gw, upstream.port, strategy=0, maxAllowedMs=50, minRequestAmount=2, triggerRatio=100, recoveryTimeoutSec=60)
	upstream.hold()
	for n in range(1, 3):
		with gw.connect() as connection:
			connection.start("GET", path)
			wait_until(lambda n=n: upstream.hits == n, 5, "the request at the upstream")
			wait_millis(80)
	wait_until(lambda: len(gw.records(path=path, flag="DC")) == 2, 5, "two clients gone")
	wait_until(lambda: state(gw, path) == OPEN, 5, "the circuit open")
	upstream.release()
	assert gw.get(path).text == "open"


def test_client_that_leaves_early_is_no_slow_call(gw, upstream):
	path = guarded(gw, upstream.port, strategy=0, maxAllowedMs=60000, minRequestAmount=1, triggerRatio=1)
	upstream.hold()
	with gw.connect() as connection:
		connection.start("GET", path)
		wait_until(lambda: upstream.hits == 1, 5, "the request at the upstream")
	gw.wait_record(path=path, flag="DC")
	upstream.release()
	assert ask(gw, 3, path) == [200] * 3
	assert outcomes(gw, path.attachment)[(path.route.name, "admitted")] == 4


def test_slow_body_is_slow(gw, backend):
	"""The time is that of the last byte, not of the head."""
	path = guarded(gw, backend, strategy=0, maxAllowedMs=100, minRequestAmount=2, triggerRatio=100)
	assert [gw.get(f"{path}/slow/40/10").status for _ in range(2)] == [200, 200]
	assert gw.get(f"{path}/size/1").text == "open"


def test_events_are_judged_by_their_head(gw):
	def events(connection):
		read_request(connection)
		connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
		time.sleep(0.2)
		connection.send("data: 2\n\n")
	with Scripted(events) as upstream:
		path = guarded(gw, upstream.port, strategy=0, maxAllowedMs=100, minRequestAmount=1, triggerRatio=1)
		for _ in range(3):
			answer = gw.get(path)
			assert (answer.status, answer.body) == (200, b"data: 1\n\ndata: 2\n\n")
		assert state(gw, path) == CLOSED


def test_fast_failures_are_not_slow_but_heal_nothing(gw, upstream):
	"""With strategy 0 a refused connection is no slow call; as a probe it is a failure all the same."""
	path = guarded(gw, free_port(), strategy=0, maxAllowedMs=150, minRequestAmount=3, triggerRatio=100)
	assert ask(gw, 10, path) == [503] * 10
	assert state(gw, path) == CLOSED
	tripped = guarded(gw, upstream.port, strategy=0, maxAllowedMs=150, minRequestAmount=3, triggerRatio=100, recoveryTimeoutSec=1)
	upstream.delay = 0.25
	assert ask(gw, 3, tripped) == [200] * 3
	assert gw.get(tripped).text == "open"
	gw.ask("PUT", tripped.service.path, {**tripped.service.body, "addresses": [f"127.0.0.1:{free_port()}"]})
	assert wait_for_probe(gw, tripped).status == 503
	assert gw.get(tripped).text == "open", "instant refusal closed the circuit"


def test_retries_count_once(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=5)
	gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx"], "httpCodes": [], "perTryTimeout": 0}, to=path.route)
	upstream.status = 500
	assert ask(gw, 4, path) == [500] * 4
	assert upstream.hits == 12
	assert state(gw, path) == CLOSED, "four calls, however often they were tried"
	assert ask(gw, 2, path) == [500, 503]
	assert upstream.hits == 15


def test_retried_to_success_is_good(gw):
	turn = iter(range(1000))

	def alternating(connection):
		while connection.buffer or connection.fill():
			read_request(connection)
			connection.send(f"HTTP/1.1 {(503, 200)[next(turn) % 2]} Told\r\nContent-Length: 0\r\n\r\n")
	with Scripted(alternating) as upstream:
		path = guarded(gw, upstream.port, minRequestAmount=1, triggerRatio=1)
		gw.attach("Retry", {"attempts": 1, "retryOn": ["5xx"], "httpCodes": [], "perTryTimeout": 0}, to=path.route)
		assert ask(gw, 6, path) == [200] * 6


def test_timeouts_count(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=3)
	gw.attach("Timeout", {"unitNum": 0.1, "timeUnit": "s"}, to=path.route)
	upstream.hold()
	assert ask(gw, 3, path) == [504] * 3
	upstream.release()
	assert gw.get(path).text == "open"


# ---- traps ----

def test_probe_stopped_by_a_later_rule(gw, upstream):
	"""The route's probe is refused by the service's limit: the next request probes, nobody is locked out."""
	path = guarded(gw, upstream.port, recoveryTimeoutSec=1)
	limit = gw.attach("RateLimit", rate(1000), to=path.service)
	trip(gw, path, upstream)
	upstream.status = 200
	gw.change_policy(limit, rate(1, responseStatusCode=429))
	other = f"/breaker-{next(numbers)}"
	gw.route(other, path.service)

	def is_stopped():
		gw.get(other)    # spends what the service's limit admits
		return gw.get(path).status == 429
	wait_until(is_stopped, 10, "a probe that the service's limit stops")
	gw.delete(limit)
	assert gw.get(path).status == 200, "the next request probes at once"
	assert ask(gw, 3, path) == [200] * 3


def test_slow_call_from_before_changes_nothing(gw, upstream):
	"""A call that began before the circuit opened ends well while the probe is under way, and badly after the circuit has closed."""
	path = guarded(gw, upstream.port, recoveryTimeoutSec=1, minRequestAmount=2)
	upstream.hold()
	with gw.connect() as early, gw.connect() as late:
		early.start("GET", path)
		wait_until(lambda: upstream.hits == 1, 5, "the early call")
		upstream.status = 500
		late.start("GET", path)
		wait_until(lambda: upstream.hits == 2, 5, "the late call")
		other = Told(500)
		with other:
			gw.ask("PUT", path.service.path, {**path.service.body, "addresses": [f"127.0.0.1:{other.port}"]})
			assert ask(gw, 3, path) == [500, 500, 503]
			upstream.release()
			assert (early.read_response().status, late.read_response().status) == (200, 500)
			assert gw.get(path).text == "open", "a good answer from before closed the circuit"
			assert state(gw, path) == OPEN
			other.status = 200
			assert wait_for_probe(gw, path).status == 200
			assert ask(gw, 5, path) == [200] * 5


def test_levels_are_independent(gw, upstream):
	path = new_path(gw, upstream.port)
	at_route = gw.attach("CircuitBreaker", breaker(minRequestAmount=4, responseContentBody="route"), to=path.route)
	at_service = gw.attach("CircuitBreaker", breaker(minRequestAmount=2, responseContentBody="service"), to=path.service)
	upstream.status = 500
	assert ask(gw, 2, path) == [500, 500]
	assert [gw.get(path).text for _ in range(5)] == ["service"] * 5, "what the service's breaker refuses is none of the route's"
	assert gauge(gw, at_route) == {path.route.name: CLOSED}
	assert gauge(gw, at_service) == {path.service.name: OPEN}
	gw.change_policy(at_service, breaker(enable=False))
	assert ask(gw, 2, path) == [500, 500]
	assert gw.get(path).text == "route"


def test_shared_by_workers(gw, upstream):
	"""40 connections over all workers: no worker goes on calling."""
	path = guarded(gw, upstream.port, minRequestAmount=20, recoveryTimeoutSec=60)
	upstream.status = 500
	assert count(burst(gw, 20, path)) == {500: 20}
	answers = burst(gw, 40, path)
	assert count(answers) == {503: 40}
	assert upstream.hits == 20


def test_concurrency_is_given_back_by_refusals(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=1, recoveryTimeoutSec=60)
	gw.attach("ConcurrencyLimit", concurrency(2), to=path.route)
	trip(gw, path, upstream, 1)
	assert [gw.get(path).text for _ in range(50)] == ["open"] * 50


# ---- changes ----

def test_state_survives_other_changes(gw, upstream):
	path = guarded(gw, upstream.port, recoveryTimeoutSec=60)
	trip(gw, path, upstream)
	policy = path.attachment.policy
	gw.ask("PUT", policy.path, {**policy.body, "name": "renamed"})
	gw.change_policy(path.attachment, dict(reversed(breaker(recoveryTimeoutSec=60).items())))
	gw.attach("RateLimit", rate(100), to=path.route)
	gw.service(upstream.port)
	assert gw.get(path).text == "open"
	assert state(gw, path) == OPEN


def test_state_resets_with_its_own_change(gw, upstream):
	path = guarded(gw, upstream.port, recoveryTimeoutSec=60)
	trip(gw, path, upstream)
	assert gw.get(path).text == "open"
	upstream.status = 200
	gw.change_policy(path.attachment, breaker(recoveryTimeoutSec=59))
	assert state(gw, path) == CLOSED
	assert ask(gw, 5, path) == [200] * 5


# ---- how a refusal looks ----

def test_retry_after_is_what_is_left(gw, upstream):
	path = guarded(gw, upstream.port, recoveryTimeoutSec=30)
	trip(gw, path, upstream)
	answer = gw.get(path)
	assert answer.status == 503
	assert 25 <= int(answer.header("Retry-After")) <= 30
	assert answer.header("Content-Length") == "4"


def test_redirects_when_told(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=1, behaviorType=1, responseRedirectUrl="https://status.example/")
	trip(gw, path, upstream, 1)
	answer = gw.get(path)
	assert (answer.status, answer.header("Location"), answer.body) == (302, "https://status.example/", b"")


def test_grpc_gets_unavailable(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=1)
	trip(gw, path, upstream, 1)
	answer = gw.request("POST", path, {"Content-Type": "application/grpc"}, b"")
	assert (answer.status, answer.header("grpc-status"), answer.header("grpc-message")) == (200, "14", "open")


def test_record_and_metrics(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=2, recoveryTimeoutSec=1)
	trip(gw, path, upstream, 2)
	assert gw.get(path).text == "open"
	record = gw.wait_record(path=path, status=503)
	assert (record["flag"], record["policy"]) == ("CB", "CircuitBreaker")
	upstream.status = 200
	assert wait_for_probe(gw, path).status == 200
	found = {outcome: n for (_, outcome), n in outcomes(gw, path.attachment).items()}
	assert (found["admitted"], found["opened"], found["probed"], found["closed"]) == (2, 1, 1, 1)
	assert found["refused"] >= 1

	def told():
		return [(r["event"], r["resourceId"]) for r in gw.log() if r.get("attachmentId") == path.attachment.id]
	wait_until(lambda: len(told()) == 3, 5, "three changes in the log")
	assert told() == [(f"breaker.{what}", path.route.id) for what in ("opened", "half_open", "closed")]


def test_disabled(gw, upstream):
	path = guarded(gw, upstream.port, minRequestAmount=1, enable=False)
	upstream.status = 500
	assert ask(gw, 5, path) == [500] * 5
	gw.change_policy(path.attachment, breaker(minRequestAmount=1))
	assert ask(gw, 2, path) == [500, 503]
