"""Policies together: one class at several levels, APIs and their operations, who answers first, what is consumed by whom, and what survives changes."""
import h2wire
import pytest
from gw import numbers
from policy_kit import (Told, breaker, burst, concurrency, cors, count, gauge, headers, ip_list, op, outcomes, phase,
	preflight, rate, rest_api, seen)
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame
from wire import wait_until

HOST = "combined.test"


@pytest.fixture
def upstream():
	with Told() as told:
		yield told


class Levels:
	"""A gateway with one domain, one route and one service, and what can be attached to each."""

	def __init__(self, gw, target):
		self.gw = gw
		self.site = gw.gateway()
		self.domain = gw.domain(HOST, self.site)
		self.service = gw.service(target, self.site)
		self.base = f"/combined-{next(numbers)}"
		self.route = gw.route(self.base, self.service, site=self.site, domains=[self.domain])
		self.holders = {"Gateway": self.site, "Domain": self.domain, "Route": self.route, "Service": self.service}

	def attach(self, level, class_name, config):
		return self.gw.attach(class_name, config, to=self.holders[level])

	def get(self, method="GET", fields=(), path="", **options):
		return self.gw.request(method, self.base + path, fields, site=self.site, host=HOST, **options)

	def told(self, **fields):
		"""The newest record of the route."""
		return self.gw.wait_record(path=self.base, **fields)


@pytest.fixture
def levels(gw, upstream):
	return Levels(gw, upstream.port)


def refused_by(answers):
	return [answer.text for answer in answers]


# ---- one class at several levels ----

def test_rate_limits_of_four_levels_must_all_admit(levels):
	"""The tightest is felt first, then the next; each counts what came as far as it."""
	attached = {level: levels.attach(level, "RateLimit", rate(n, responseContentBody=f'"{level}"'))
		for level, n in (("Gateway", 8), ("Domain", 6), ("Route", 4), ("Service", 2))}
	answers = [levels.get() for _ in range(10)]
	assert refused_by(answers) == ["told"] * 2 + ['"Service"'] * 2 + ['"Route"'] * 2 + ['"Domain"'] * 2 + ['"Gateway"'] * 2
	admitted = {level: sum(n for (_, outcome), n in outcomes(levels.gw, attachment).items() if outcome == "admitted")
		for level, attachment in attached.items()}
	assert admitted == {"Gateway": 8, "Domain": 6, "Route": 4, "Service": 2}, "nothing was given back"


def test_concurrency_limits_of_three_levels_must_all_admit(gw, upstream, levels):
	for level, n in (("Gateway", 3), ("Domain", 2), ("Route", 1)):
		levels.attach(level, "ConcurrencyLimit", concurrency(n, responseContentBody=level))
	upstream.hold()
	other = gw.route(f"{levels.base}-other", levels.service, site=levels.site, domains=[levels.domain])
	free = gw.route(f"{levels.base}-free", levels.service, site=levels.site)
	connections = []
	for path, host, refusal in ((levels.base, HOST, "Route"), (f"{levels.base}-other", HOST, "Domain"), (f"{levels.base}-free", "x.test", "Gateway")):
		connection = gw.connect(levels.site)
		connections.append(connection)
		connection.start("GET", path, host=host)
		wait_until(lambda: upstream.hits == len(connections), 5, "one more at the upstream")
		assert gw.get(path, site=levels.site, host=host).text == refusal
	upstream.release()
	for connection in connections:
		assert connection.read_response().status == 200
		connection.close()
	assert other.id != free.id


def test_breakers_of_route_and_service_are_independent(gw, upstream, levels):
	"""An open one of the route leaves the service's closed, and the service's refusals count for nobody."""
	at_route = levels.attach("Route", "CircuitBreaker", breaker(minRequestAmount=2, responseContentBody="route"))
	at_service = levels.attach("Service", "CircuitBreaker", breaker(minRequestAmount=4, responseContentBody="service"))
	other = f"{levels.base}-other"
	gw.route(other, levels.service, site=levels.site)
	upstream.status = 500
	assert refused_by(levels.get() for _ in range(4)) == ["told", "told", "route", "route"]
	assert [gw.get(other, site=levels.site).text for _ in range(4)] == ["told", "told", "service", "service"]
	assert upstream.hits == 4
	assert (gauge(gw, at_route), gauge(gw, at_service)) == ({levels.route.name: 2}, {levels.service.name: 2})
	assert levels.get().text == "route", "the route's is asked first"


def test_lists_of_three_levels(gw, levels):
	"""Any black one denies, every white one must have the address."""
	gw.feature("xffTrustedNum", 1, levels.site)
	levels.attach("Gateway", "IpAccessControl", ip_list("White", "10.0.0.0/8", "Gateway"))
	levels.attach("Domain", "IpAccessControl", ip_list("Black", "10.9.0.0/16", "Domain"))
	levels.attach("Route", "IpAccessControl", ip_list("White", "10.1.0.0/16,10.9.0.0/16"))
	for address, status in (("10.1.0.1", 200), ("10.2.0.1", 403), ("10.9.0.1", 403), ("192.0.2.1", 403)):
		assert levels.get(fields={"X-Forwarded-For": address}).status == status, address


def test_header_edits_of_three_levels(gw, backend):
	"""All run, broad first, so the narrowest has the last word; requests and responses alike."""
	levels = Levels(gw, backend)
	for level in ("Gateway", "Domain", "Route"):
		levels.attach(level, "HeaderModify", headers(*(op(direction, action, name, level)
			for direction in ("Request", "Response") for action, name in (("Update", "X-Last"), ("Add", "X-All")))))
	answer = levels.get(path="/echo")
	got = {name.lower(): value for name, value in answer.json["headers"]}
	assert (got["x-last"], got["x-all"]) == ("Route", "Gateway,Domain,Route")
	assert (answer.header("X-Last"), answer.header("X-All")) == ("Route", "Gateway,Domain,Route")


def test_cors_of_three_levels(levels):
	"""The narrowest wins whole: nothing of the wider ones is mixed in."""
	origins = {level: f"https://{level.lower()}.test" for level in ("Gateway", "Domain", "Route")}
	attached = {level: levels.attach(level, "Cors", cors(origin, allowCredentials=level == "Gateway", exposeHeaders=f"X-{level}"))
		for level, origin in origins.items()}
	for narrowest in ("Route", "Domain", "Gateway"):
		for level, origin in origins.items():
			answer = levels.get(fields={"Origin": origin})
			expected = (origin, f"X-{level}") if level == narrowest else (None, None)
			assert (answer.header("Access-Control-Allow-Origin"), answer.header("Access-Control-Expose-Headers")) == expected, (narrowest, level)
			assert (answer.header("Access-Control-Allow-Credentials") == "true") == (level == narrowest == "Gateway")
		levels.gw.delete(attached[narrowest])


def test_timeout_of_route_beats_that_of_service(gw, upstream, levels):
	upstream.delay = 0.4
	levels.attach("Service", "Timeout", {"unitNum": 0.1, "timeUnit": "s"})
	assert levels.get().status == 504
	own = levels.attach("Route", "Timeout", {"unitNum": 20, "timeUnit": "s"})
	assert levels.get().status == 200
	gw.change_policy(own, {"unitNum": 1, "timeUnit": "s", "enable": False})
	assert levels.get().status == 200, "a disabled one is the opt-out"
	gw.delete(own)
	assert levels.get().status == 504


def test_retry_of_route_beats_that_of_service(gw, upstream, levels):
	upstream.status = 503
	retry = {"retryOn": ["5xx"], "httpCodes": [], "perTryTimeout": 0}
	levels.attach("Service", "Retry", {"attempts": 2, **retry})

	def tries():
		before = upstream.hits
		levels.get()
		return upstream.hits - before
	assert tries() == 3
	own = levels.attach("Route", "Retry", {"attempts": 1, **retry})
	assert tries() == 2
	gw.change_policy(own, {"attempts": 1, **retry, "enable": False})
	assert tries() == 1


# ---- APIs and operations ----

CLASSES = {
	"RateLimit": (lambda word: rate(1, responseContentBody=f'"{word}"'), lambda gw, path: [gw.get(path), gw.get(path)][1].text.strip('"')),
	"HeaderModify": (lambda word: headers(op("Response", "Update", "X-Word", word)), lambda gw, path: gw.get(path).header("X-Word")),
	"Cors": (lambda word: cors("https://a.test", exposeHeaders=word),
		lambda gw, path: gw.get(path, {"Origin": "https://a.test"}).header("Access-Control-Expose-Headers")),
	"CircuitBreaker": (lambda word: breaker(minRequestAmount=1, responseContentBody=word), lambda gw, path: [gw.get(path), gw.get(path)][1].text),
}


@pytest.mark.parametrize("name", ["RateLimit", "HeaderModify", "Cors", "CircuitBreaker"])
def test_operation_inherits_and_replaces(gw, upstream, name):
	"""An API's policy acts at each operation, unless the operation has one of the class itself; a disabled one of those counts only
	where it is the opt-out."""
	config, look = CLASSES[name]
	upstream.status = 500 if name == "CircuitBreaker" else 200
	api = rest_api(gw, upstream.port)
	one, two = api.operation("GET", "/one"), api.operation("GET", "/two")
	gw.attach(name, config("api"), to=api)
	own = gw.attach(name, config("own"), to=one)
	assert two.id
	assert look(gw, f"{api.base}/one") == "own"
	assert look(gw, f"{api.base}/two") == "api"
	gw.change_policy(own, {**config("own"), "enable": False})
	expected = None if name == "Cors" else "api"
	assert look(gw, f"{api.base}/one") == expected
	gw.delete(own)
	assert look(gw, f"{api.base}/one") == "api"


def test_rewrite_of_an_operation_replaces_the_apis(gw, upstream):
	api = rest_api(gw, upstream.port)
	one, _ = api.operation("GET", "/one"), api.operation("GET", "/two")
	gw.attach("HttpRewrite", {"pathType": "Exact", "path": "/api"}, to=api)
	own = gw.attach("HttpRewrite", {"pathType": "Exact", "path": "/own"}, to=one)
	for path in ("/one", "/two"):
		assert gw.get(api.base + path).status == 200
	assert upstream.targets[-2:] == ["/own", "/api"]
	gw.change_policy(own, {"pathType": "Exact", "path": "/own", "enable": False})
	gw.get(f"{api.base}/one")
	assert upstream.targets[-1] == "/api"


@pytest.mark.parametrize("name", ["RateLimit", "ConcurrencyLimit", "CircuitBreaker"])
def test_an_apis_state_is_kept_for_each_operation(gw, upstream, name):
	api = rest_api(gw, upstream.port)
	api.operation("GET", "/one"), api.operation("GET", "/two")
	config = {"RateLimit": rate(1), "ConcurrencyLimit": concurrency(1), "CircuitBreaker": breaker(minRequestAmount=1)}[name]
	gw.attach(name, config, to=api)
	if name == "CircuitBreaker":
		upstream.status = 500
	if name == "ConcurrencyLimit":
		upstream.hold()
	held = []
	for n, path in enumerate(("/one", "/two"), 1):
		connection = gw.connect()
		held.append(connection)
		connection.start("GET", api.base + path)
		if name != "ConcurrencyLimit":
			assert connection.read_response().text == "told"
		wait_until(lambda n=n: upstream.hits == n, 5, "it to be let in")
		assert gw.get(api.base + path).status in (429, 503)
		assert upstream.hits == n
	upstream.release()
	for connection in held:
		connection.close()


def test_gateway_and_operation_add_up(gw, upstream):
	"""An operation's limit replaces its API's, not the gateway's."""
	site = gw.gateway()
	api = rest_api(gw, upstream.port, site)
	one, _ = api.operation("GET", "/one"), api.operation("GET", "/two")
	gw.attach("RateLimit", rate(5, responseContentBody='"gateway"'), to=site)
	gw.attach("RateLimit", rate(1, responseContentBody='"api"'), to=api)
	gw.attach("RateLimit", rate(3, responseContentBody='"own"'), to=one)
	texts = [gw.get(f"{api.base}/one", site=site).text for _ in range(4)] + [gw.get(f"{api.base}/two", site=site).text for _ in range(2)]
	assert texts == ["told"] * 3 + ['"own"', "told", '"gateway"']


# ---- who answers first ----

def test_each_step_in_turn(gw, upstream, levels):
	"""Everything that can refuse is there; who is in front is taken away, and the next one answers. The record says who it was."""
	gw.feature("xffTrustedNum", 1, levels.site)
	upstream.status = 500
	stack = []

	def put(level, name, config, status, flag, text=None):
		stack.append((levels.attach(level, name, config), status, flag, text))

	put("Service", "CircuitBreaker", breaker(minRequestAmount=1, recoveryTimeoutSec=3600, responseContentBody="service breaker"), 503, "CB",
		"service breaker")
	assert levels.get().status == 500
	put("Service", "RateLimit", rate(1, responseContentBody='"service rate"'), 429, "RL", '"service rate"')
	put("Route", "Redirect", {"code": "302", "host": "h.test"}, 302, "RD")
	put("Route", "ConcurrencyLimit", concurrency(1), 302, "RD")
	put("Route", "RateLimit", rate(1, responseStatusCode=429, responseContentBody='"route rate"'), 429, "RL", '"route rate"')
	levels.get()    # spends it
	put("Gateway", "Cors", cors(), 429, "RL", '"route rate"')
	put("Domain", "IpAccessControl", ip_list("Black", "192.0.2.0/24", "Domain"), 403, "IP", "Access denied")
	seen_flags = []
	while stack:
		attachment, status, flag, text = stack[-1]
		answer = levels.get(fields={"X-Forwarded-For": "192.0.2.1", "X-Request-Id": f"turn-{len(stack)}"})
		if flag == "RL" and answer.status != status:    # a second went by
			answer = levels.get(fields={"X-Forwarded-For": "192.0.2.1", "X-Request-Id": f"turn-{len(stack)}"})
		assert answer.status == status, (flag, answer)
		if text:
			assert answer.text == text
		assert gw.wait_record(requestId=f"turn-{len(stack)}", status=status)["flag"] == flag
		seen_flags.append(flag)
		gw.delete(attachment)
		stack.pop()
	assert seen_flags == ["IP", "RL", "RL", "RD", "RD", "RL", "CB"]
	assert levels.get().text == "told"


def test_preflight_is_answered_before_everything_but_addresses(levels):
	gw = levels.gw
	levels.attach("Gateway", "Cors", cors())
	limits = [levels.attach("Gateway", "RateLimit", rate(1)), levels.attach("Route", "ConcurrencyLimit", concurrency(1)),
		levels.attach("Route", "Redirect", {"code": "302", "host": "h.test"})]
	for _ in range(5):
		answer = preflight(gw, levels.base, site=levels.site, host=HOST)
		assert answer.status == 200
	gw.wait_record(path=levels.base, method="OPTIONS", flag="CO", status=200)
	assert all(not any(outcomes(gw, one).values()) for one in limits)
	levels.attach("Route", "IpAccessControl", ip_list("Black", "127.0.0.1"))
	assert preflight(gw, levels.base, site=levels.site, host=HOST).status == 403


def test_the_same_over_http2(gw, levels):
	levels.attach("Gateway", "RateLimit", rate(3, responseContentBody='"rate"'))
	levels.attach("Route", "Redirect", {"code": "307", "host": "h.test"})
	with h2wire.H2(levels.site.port) as connection:
		answers = [connection.get(levels.base, authority=HOST) for _ in range(5)]
	assert [answer.status for answer in answers] == [307] * 3 + [429] * 2
	assert answers[0].header("location") == f"http://h.test{levels.base}"


# ---- what is consumed ----

def test_what_is_refused_consumes_nothing_later(gw, levels):
	site = levels.site
	gw.feature("xffTrustedNum", 1, site)
	levels.attach("Route", "IpAccessControl", ip_list("Black", "192.0.2.1"))
	limit = levels.attach("Route", "RateLimit", rate(2))
	flight = levels.attach("Route", "ConcurrencyLimit", concurrency(100))
	at_service = levels.attach("Service", "RateLimit", rate(100))
	for _ in range(10):
		assert levels.get(fields={"X-Forwarded-For": "192.0.2.1"}).status == 403
	assert not any(outcomes(gw, limit).values()), "denied by address, counted by nobody"
	answers = burst(gw, 6, levels.base, site, host=HOST)
	assert count(answers) == {200: 2, 429: 4}
	assert outcomes(gw, flight)[(levels.route.name, "admitted")] == 2
	assert outcomes(gw, at_service)[(levels.service.name, "admitted")] == 2


def test_what_is_refused_later_is_not_given_back(gw, upstream, levels):
	upstream.status = 500
	limit = levels.attach("Route", "RateLimit", rate(6))
	levels.attach("Service", "CircuitBreaker", breaker(minRequestAmount=1, recoveryTimeoutSec=3600))
	answers = [levels.get() for _ in range(8)]
	assert [answer.status for answer in answers] == [500] + [503] * 5 + [429] * 2
	assert outcomes(gw, limit)[(levels.route.name, "refused")] == 2


def test_every_refusal_is_shaped(gw, upstream, levels):
	"""Whoever refuses: HeaderModify of all levels and Cors last."""
	upstream.status = 500
	levels.attach("Gateway", "HeaderModify", headers(op("Response", "Update", "X-Gateway", "1"),
		op("Response", "Update", "Access-Control-Allow-Origin", "broken")))
	levels.attach("Route", "HeaderModify", headers(op("Response", "Update", "X-Route", "1")))
	levels.attach("Domain", "Cors", cors())

	def is_shaped(status, text):
		answer = levels.get(fields={"Origin": "https://example.com"})
		assert (answer.status, answer.text) == (status, text)
		assert (answer.header("X-Gateway"), answer.header("X-Route")) == ("1", "1")
		assert answer.header("Access-Control-Allow-Origin") == "https://example.com"
		assert "Origin" in answer.header("Vary")

	opened = levels.attach("Route", "CircuitBreaker", breaker(minRequestAmount=1, recoveryTimeoutSec=3600))
	is_shaped(500, "told")
	is_shaped(503, "open")
	gw.delete(opened)
	upstream.hold()
	flight = levels.attach("Route", "ConcurrencyLimit", concurrency(1))
	with gw.connect(levels.site) as connection:
		before = upstream.hits
		connection.start("GET", levels.base, host=HOST)
		wait_until(lambda: upstream.hits == before + 1, 5, "one at the upstream")
		is_shaped(503, "busy")
	gw.delete(flight)
	levels.attach("Route", "Redirect", {"code": "308", "host": "h.test"})
	is_shaped(308, "")


def test_an_upgrade_is_one_request(gw):
	"""For every policy: it is counted once, judged by its head, and its breaker closes while the tunnel is open."""
	with Scripted(echo_frames) as upstream:
		levels = Levels(gw, upstream.port)
		levels.attach("Gateway", "RateLimit", rate(2))
		opened = levels.attach("Route", "CircuitBreaker", breaker(strategy=0, maxAllowedMs=1000, minRequestAmount=1, triggerRatio=1))
		levels.attach("Route", "HttpRewrite", {"pathType": "Prefix", "path": "/socket"})
		levels.attach("Route", "HeaderModify", headers(op("Response", "Update", "X-Mark", "1")))
		with gw.connect(levels.site) as first, gw.connect(levels.site) as second, gw.connect(levels.site) as third:
			answers = [one.get(levels.base, UPGRADE, host=HOST) for one in (first, second, third)]
			assert [answer.status for answer in answers] == [101, 101, 429]
			assert answers[0].header("X-Mark") == "1"
			first.send(frame(b"x" * 1000, mask=True))
			assert read_frame(first) == (2, b"x" * 1000)
			assert gauge(gw, opened) == {levels.route.name: 0}
			assert outcomes(gw, opened)[(levels.route.name, "admitted")] == 2


# ---- what survives ----

def spend_all(gw, upstream, levels):
	"""One state of each kind: a spent window and an open circuit. The attachments."""
	upstream.status = 500
	opened = levels.attach("Service", "CircuitBreaker", breaker(minRequestAmount=2, recoveryTimeoutSec=3600, responseStatusCode=503))
	assert [levels.get().status for _ in range(3)] == [500, 500, 503]
	return opened


@pytest.mark.parametrize("change", ["route", "service", "domain", "gateway feature", "other policy", "another class here", "renamed policy",
	"other route", "environment"])
def test_state_survives_unrelated_changes(gw, upstream, levels, change):
	opened = spend_all(gw, upstream, levels)
	site = levels.site
	if change == "route":
		match = {**levels.route.body["match"], "methods": ["GET", "POST"]}
		gw.ask("PUT", levels.route.path, {**levels.route.body, "match": match})
	elif change == "service":
		gw.ask("PUT", levels.service.path, {**levels.service.body, "addresses": [f"127.0.0.2:{upstream.port}"]})
	elif change == "domain":
		gw.domain("more.test", site)
	elif change == "gateway feature":
		gw.feature("xffTrustedNum", 2, site)
	elif change == "other policy":
		gw.policy("RateLimit", rate(1))
	elif change == "another class here":
		levels.attach("Service", "RateLimit", rate(1000))
	elif change == "renamed policy":
		gw.ask("PUT", opened.policy.path, {**opened.policy.body, "name": f"renamed-{next(numbers)}", "description": "x"})
	elif change == "other route":
		gw.delete(gw.route(f"{levels.base}/more", levels.service, site=site))
	else:
		gw.ask("POST", "/api/v1/environments", {"name": "more", "gatewayId": site.id})
	assert levels.get().text == "open"
	assert phase(gw, opened) == "Active"


@pytest.mark.parametrize("change", ["config", "disabled and enabled", "attached again"])
def test_state_resets_with_its_own_change(gw, upstream, levels, change):
	opened = spend_all(gw, upstream, levels)
	config = breaker(minRequestAmount=2, recoveryTimeoutSec=3600, responseStatusCode=503)
	upstream.status = 200
	if change == "config":
		gw.change_policy(opened, {**config, "recoveryTimeoutSec": 3599})
	elif change == "disabled and enabled":
		gw.change_policy(opened, {**config, "enable": False})
		gw.change_policy(opened, config)
	else:
		gw.delete(opened)
		levels.attach("Service", "CircuitBreaker", config)
	assert [levels.get().text for _ in range(4)] == ["told"] * 4


def test_one_policy_on_several_resources_has_as_many_states(gw, upstream, levels):
	"""Comma-separated ids: one attachment, and a breaker for each route."""
	second = gw.route(f"{levels.base}-second", levels.service, site=levels.site)
	attachment = gw.attach("CircuitBreaker", breaker(minRequestAmount=1), to=levels.route,
		attachResourceId=f"{levels.route.id}, {second.id}")
	assert gw.ask("GET", attachment.path)["attachResourceIds"] == [levels.route.id, second.id]
	upstream.status = 500
	assert [levels.get().text for _ in range(2)] == ["told", "open"]
	upstream.status = 200
	assert [gw.get(f"{levels.base}-second", site=levels.site).text for _ in range(3)] == ["told"] * 3
	assert gauge(gw, attachment) == {levels.route.name: 2, second.name: 0}
	gw.ask("DELETE", levels.route.path)
	assert gauge(gw, attachment) == {second.name: 0}, "a state that is gone is not shown"


def test_everything_at_once(gw, backend):
	"""All classes of a plain route together; the request arrives shaped by each."""
	levels = Levels(gw, backend)
	levels.attach("Gateway", "RateLimit", rate(10000))
	levels.attach("Domain", "ConcurrencyLimit", concurrency(100))
	levels.attach("Gateway", "IpAccessControl", ip_list("White", "127.0.0.0/8", "Gateway"))
	levels.attach("Domain", "Cors", cors())
	levels.attach("Route", "CircuitBreaker", breaker())
	levels.attach("Service", "CircuitBreaker", breaker())
	levels.attach("Service", "RateLimit", rate(10000))
	levels.attach("Route", "HttpRewrite", {"pathType": "Prefix", "path": "/new", "host": "service.test"})
	levels.attach("Route", "HeaderModify", headers(op("Request", "Update", "X-Path", "request.path", "Reference")))
	with gw.connect(levels.site) as connection:
		for _ in range(50):
			answer = connection.get(f"{levels.base}/echo?x", {"Origin": "https://example.com"}, host=HOST)
			assert answer.status == 200
			got = {name.lower(): value for name, value in answer.json["headers"]}
			assert (answer.json["target"], got["host"], got["x-path"], got["x-forwarded-host"]) == \
				("/new/echo?x", "service.test", f"{levels.base}/echo", HOST)
			assert answer.header("Access-Control-Allow-Origin") == "https://example.com"


def test_disabled_ones_are_not_there(gw, backend):
	levels = Levels(gw, backend)
	for level, name, config in (("Route", "RateLimit", rate(1, enable=False)), ("Route", "ConcurrencyLimit", concurrency(1, enable=False)),
			("Route", "Redirect", {"code": "302", "host": "h", "enable": False}), ("Route", "CircuitBreaker", breaker(enable=False)),
			("Route", "HttpRewrite", {"pathType": "Exact", "path": "/none", "enable": False}),
			("Route", "IpAccessControl", ip_list("Black", "127.0.0.1", enable=False)),
			("Route", "HeaderModify", headers(op("Request", "Update", "X-A", "1"), enable=False))):
		assert phase(gw, levels.attach(level, name, config)) == "Disabled"
	got = gw.echo(f"{levels.base}/echo", site=levels.site, host=HOST)
	assert (got["target"], seen(got, "x-a")) == (f"{levels.base}/echo", None)
