"""Policies and those who mean harm: what clients put into what policies read, configs that are meant to hurt, and paths that try to be two
things at once. Each test says what the upstream sees, or that it sees nothing."""
import json
import time

import pytest
from gw import numbers
from policy_kit import Told, as_text, check_error, cors, headers, ip_list, op, rate, seen
from wire import Connection


@pytest.fixture(scope="module")
def upstream():
	with Told() as told:
		yield told


@pytest.fixture
def site(gw):
	return gw.gateway()


def create(gw, name, config):
	return gw.api("POST", "/api/v2/policies", {"name": f"policy-{next(numbers)}", "className": name,
		"config": config if isinstance(config, str) else as_text({"enable": True, **config})})


def raw_request(site, data):
	"""The first line of the answer to these bytes, and the whole answer."""
	with Connection(site.port) as connection:
		connection.send(data)
		answer = connection.read_response()
		return answer


# ---- header values through Reference ----

SOURCES = {
	"request.header.X-In": lambda value: ("/echo", [("X-In", value)]),
	"request.cookie.c": lambda value: ("/echo", [("Cookie", f"a=1; c={value}")]),
	"request.query.q": lambda value: (f"/echo?a=1&q={value}", []),
	"request.path": lambda value: (f"/{value}/echo", []),
	"request.uri": lambda value: (f"/{value}/echo?q={value}", []),
}
ENCODED = ["%0d%0aX-Evil:%201", "%0D%0A%0D%0AGET%20/evil%20HTTP/1.1", "a%00b", "%0a", "%0d", "%7f", "%1b[31m", "%E2%80%A8", "%c4%8d%c4%8a"]


@pytest.mark.parametrize("source", ["request.cookie.c", "request.query.q", "request.path", "request.uri"])
@pytest.mark.parametrize("value", ENCODED)
def test_encoded_line_breaks_stay_encoded(gw, backend, site, source, value):
	"""Whatever hides in a value: one request arrives, with no header that the config did not name."""
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Out", source, "Reference"), op("Response", "Update", "X-Back", source,
		"Reference")), to=gw.route("/", backend, site=site))
	path, fields = SOURCES[source](value)
	answer = gw.request("GET", path, fields, site=site)
	if answer.status == 400:    # the path alone is refused
		assert source in ("request.path", "request.uri")
		assert backend.requests() == []
		return
	assert len(backend.requests()) == 1
	request = backend.last()
	assert not request.malformed
	assert not request.all("X-Evil") and answer.header("X-Evil") is None
	for text in (*request.all("X-Out"), *answer.all("X-Back")):
		assert text.isprintable() and text.isascii()


@pytest.mark.parametrize("raw", [b"a\x0bb", b"a\x08b", b"a\x1bb", b"a\x7fb", b"a\rb", b"a\x00b"])
def test_raw_control_bytes_in_a_header(gw, backend, site, raw):
	"""The parser refuses them before any policy looks."""
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Out", "request.header.X-In", "Reference")), to=gw.route("/", backend, site=site))
	assert raw_request(site, b"GET /echo HTTP/1.1\r\nHost: a\r\nX-In: " + raw + b"\r\n\r\n").status == 400
	assert backend.requests() == []


def test_bytes_above_ascii_pass_unchanged(gw, backend, site):
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Out", "request.header.X-In", "Reference")), to=gw.route("/", backend, site=site))
	assert raw_request(site, b"GET /echo HTTP/1.1\r\nHost: a\r\nX-In: \xff\xfe\xe2\x80\xa8\r\n\r\n").status == 200
	assert backend.last().head.count(b"\xff\xfe\xe2\x80\xa8") == 2


def test_reference_cannot_name_the_framing(gw, backend, site):
	"""No key of a config can carry Content-Length, Transfer-Encoding, Host or Connection, however it is spelt."""
	for key in ("Content-Length", "content-LENGTH", "Transfer-Encoding", "Host", "Connection", "TE", "Trailer", "Upgrade", "Expect", ":path",
			"Keep-Alive", "Proxy-Connection"):
		for mode, value in (("Custom", "5"), ("Reference", "request.header.X-In")):
			check_error(create(gw, "HeaderModify", headers(op("Request", "Update", key, value, mode))), 400, "ErrInvalidParameter",
				"config.headerOpItems[0].key")
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Out", "request.header.Transfer-Encoding", "Reference")),
		to=gw.route("/", backend, site=site))
	assert gw.request("POST", "/echo", body=[b"abc"], chunked=True, site=site).status == 200
	assert backend.last().body_bytes == 3


def test_lists_joined_from_many_lines(gw, backend, site):
	"""A client that repeats a header 80 times: one line goes on, cut where the contract says."""
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Out", "request.header.X-In", "Reference")), to=gw.route("/", backend, site=site))
	answer = gw.request("GET", "/echo", [("X-In", f"{i:03}-" + "y" * 200) for i in range(80)], site=site)
	assert answer.status == 200
	out = backend.last().header("X-Out")
	assert out.startswith("000-y") and len(out) == 8192


# ---- patterns ----

def rewrite(pattern, substitution):
	return {"pathType": "Regex", "path": "", "pattern": pattern, "substitution": substitution, "host": "", "enable": True}


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y", "(?:a?){60}a{60}", "([a-z]+)*=",
	"(.+)+[^/]{200}$"])
def test_pattern_bombs(gw, upstream, site, pattern):
	"""However long the pattern might take, the worker is free soon, and the upstream sees a path only if the pattern was through."""
	gw.attach("HttpRewrite", rewrite(pattern, "/x"), to=gw.route("/bomb", upstream.port, site=site))
	gw.route("/calm", upstream.port, site=site)
	before, begin = len(upstream.targets), time.monotonic()
	answer = gw.get("/bomb/" + "a" * 4000 + "!", site=site)
	assert time.monotonic() - begin < 5
	assert answer.status in (200, 400, 500)
	assert len(upstream.targets) - before == (answer.status == 200)
	assert gw.get("/calm", site=site).status == 200


@pytest.mark.parametrize("pattern", ["(?=a)", "(?<!a)b", r"(a)\1", r"(?P<n>a)\k<n>", "(?R)", "(?1)", "(*COMMIT)a", r"a\Cb", "(?(1)a|b)", "(?C1)a"])
def test_patterns_beyond_the_subset(gw, pattern):
	check_error(create(gw, "HttpRewrite", rewrite(pattern, "/x")), 400, "ErrInvalidParameter", "config.pattern")


@pytest.mark.parametrize("pattern", ["(" * 300 + ")" * 300, "a{1,65536}", "[" , "a**", "(?i", "\\", "a" * 5000])
def test_patterns_that_do_not_compile(gw, pattern):
	status, answer, _ = create(gw, "HttpRewrite", rewrite(pattern, "/x"))
	assert (status, answer["errorMessage"].startswith("Invalid parameter: config.pattern")) == (400, True), answer


def test_large_repeats_are_bounded(gw, upstream, site):
	"""Compiles, or is refused; either way the program goes on."""
	status, answer, _ = create(gw, "HttpRewrite", rewrite("((((a{1,100}){1,100}){1,100}){1,100})", "/x"))
	assert status in (200, 400), answer
	assert gw.api("GET", "/readyz")[0] == 200


# ---- long lists and large numbers ----

def test_ten_thousand_addresses(gw, upstream, site):
	"""The last of them counts like the first; one more is refused by name of the field; requests do not get slower."""
	content = ",".join(f"10.{i // 250}.{i % 250}.0/24" for i in range(9999))
	route = gw.route("/", upstream.port, site=site)
	attachment = gw.attach("IpAccessControl", ip_list("Black", f"{content},127.0.0.1"), to=route)
	assert gw.get("/x", site=site).status == 403
	gw.change_policy(attachment, ip_list("Black", content))
	begin = time.monotonic()
	assert {gw.get("/x", site=site).status for _ in range(200)} == {200}
	assert time.monotonic() - begin < 5
	check_error(create(gw, "IpAccessControl", ip_list("Black", f"{content},127.0.0.1,127.0.0.2")), 400, "ErrInvalidParameter",
		"config.ipAccessControlContent")


def test_ten_thousand_elements_where_fewer_are_allowed(gw):
	"""Each list has its bound, and the answer names it; nothing takes long. What 10,000 times makes too large a config has fewer here."""
	cases = [
		("HeaderModify", headers(*(op("Request", "Update", f"X-{i}", "1") for i in range(2000))), "config.headerOpItems"),
		("Cors", cors(allowMethods=["GET"] * 10_000), "config.allowMethods"),
		("Retry", {"attempts": 1, "retryOn": ["5xx"] * 10_000}, "config.retryOn"),
		("Fallback", {"fallBackDestination": [{"serviceId": f"svc-{i}"} for i in range(10_000)]}, "config.fallBackDestination"),
		("DynamicRoute", {"dynamicRouteSwimmingLaneConfigs": [lane(i, 1) for i in range(1000)]}, "config.dynamicRouteSwimmingLaneConfigs"),
		("HeaderModify", headers(*(op("Request", "Update", f"X-{i}", "1") for i in range(5000))), "config"),
	]
	for name, config, member in cases:
		begin = time.monotonic()
		check_error(create(gw, name, config), 400, "ErrInvalidParameter", member)
		assert time.monotonic() - begin < 5
	assert create(gw, "HeaderModify", headers(*(op("Request", "Update", f"X-{i}", "1") for i in range(10_000))))[0] == 413


def test_thousand_names_of_a_lane(gw, backend, site):
	names = [f"user-{i}" for i in range(1000)]
	predicate = {"type": "Header", "name": "x-user", "condition": "List", "value": "", "names": names}
	gw.route("/", backend, site=site)
	attachment = gw.attach("DynamicRoute", {"dynamicRouteSwimmingLaneConfigs": [lane(1, 1, [predicate])]}, to=site)
	assert seen(gw.echo("/echo", {"x-user": "user-999"}, site=site), "x-mse-tag") == "lane-1"
	assert seen(gw.echo("/echo", {"x-user": "user-1000"}, site=site), "x-mse-tag") is None
	gw.delete(attachment)
	status, answer, _ = create(gw, "DynamicRoute", {"dynamicRouteSwimmingLaneConfigs": [lane(1, 1, [{**predicate, "names": [*names, "one"]}])]})
	assert (status, "names" in answer["errorMessage"]) == (400, True)


def lane(identifier, group, predicates=None):
	return {"swimmingLaneGroupId": group, "swimmingLaneId": identifier, "canaryModel": 0, "swimmingLaneTag": f"lane-{identifier}",
		"predicates": predicates or [{"type": "Header", "name": "x-env", "condition": "==", "value": "v"}], "matchCondition": "And", "enable": True}


BIG = 9_007_199_254_740_993    # 2^53 + 1: a double has it as 2^53


def test_lane_ids_above_2_53(gw, backend, site):
	"""They are read back digit for digit, their neighbours are other lanes, and what lies above int64 is refused."""
	config = {"dynamicRouteSwimmingLaneConfigs": [lane(BIG, BIG), lane(BIG - 1, BIG), lane(2**63 - 1, 2**63 - 1)], "enable": True}
	policy = gw.policy("DynamicRoute", config)
	stored = json.loads(gw.ask("GET", policy.path)["config"])["dynamicRouteSwimmingLaneConfigs"]
	assert [(one["swimmingLaneGroupId"], one["swimmingLaneId"]) for one in stored] == [(BIG, BIG), (BIG, BIG - 1), (2**63 - 1, 2**63 - 1)]
	assert str(BIG) in gw.ask("GET", policy.path)["config"]
	check_error(create(gw, "DynamicRoute", {"dynamicRouteSwimmingLaneConfigs": [lane(BIG, BIG), lane(BIG, BIG)]}), 400, "ErrInvalidParameter",
		"config.dynamicRouteSwimmingLaneConfigs[1].swimmingLaneId")
	for number in (str(2**63), "-1", "9007199254740993.0", "9.007e15", '"9007199254740993"', "1e400", "0x10", "00"):
		text = as_text({"enable": True, "dynamicRouteSwimmingLaneConfigs": [lane(424242, 1)]}).replace("424242", number, 1)
		status, answer, _ = create(gw, "DynamicRoute", text)
		assert status == 400, (number, answer)
	gw.route("/", backend, site=site)
	gw.attach("DynamicRoute", {"dynamicRouteSwimmingLaneConfigs": [
		lane(BIG - 1, BIG, [{"type": "Header", "name": "x-env", "condition": "==", "value": "low"}]),
		lane(BIG, BIG, [{"type": "Header", "name": "x-env", "condition": "==", "value": "high"}])]}, to=site)
	assert seen(gw.echo("/echo", {"x-env": "high"}, site=site), "x-mse-tag") == f"lane-{BIG}"
	assert seen(gw.echo("/echo", {"x-env": "low"}, site=site), "x-mse-tag") == f"lane-{BIG - 1}"


def test_config_of_the_largest_size(gw):
	"""512 KiB; one byte more is refused by name."""
	def padded(size):
		text = as_text(ip_list("Black", "10.0.0.1"))
		return text + " " * (size - len(text))
	assert create(gw, "IpAccessControl", padded(512 * 1024))[0] == 200
	check_error(create(gw, "IpAccessControl", padded(512 * 1024 + 1)), 400, "ErrInvalidParameter", "config")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, '{"enable":true,"enable":true}', '{"enable":tru', "\ud800", "{}{}", ""])
def test_configs_that_are_no_json(gw, text):
	status, answer, _ = create(gw, "RateLimit", text)
	assert status == 400, answer
	assert gw.api("GET", "/readyz")[0] == 200


# ---- paths that try to be two things ----

# What a client asks for, and what the upstream is asked for; None: refused, and the upstream sees nothing.
PATHS = [
	("/app/a%2Fb", "/app/a%2Fb"),
	("/app/a%2fb", "/app/a%2Fb"),
	("/app/a%5Cb", "/app/a%5Cb"),
	("/app/..%2Fsecret", None),
	("/app/%2e%2e/secret", "/secret"),
	("/app/%2E%2E%2Fsecret", None),
	("/app/.%2e/.%2e/secret", None),
	("/app/%2e%2e%5Csecret", None),
	("/app/..;/secret", None),
	("/app/..;a=b/secret", None),
	("/app/.;/secret", None),
	("/app/;/secret", "/app/;/secret"),
	("/app/a;b=..;/c", "/app/a;b=..;/c"),
	("/app//secret", "/app/secret"),
	("//app///x//", "/app/x/"),
	("/app/%00", None),
	("/app/a%00.png", None),
	("/app/%0d%0aX:1", None),
	("/app/%252e%252e%252fsecret", "/app/%252e%252e%252fsecret"),
	("/app/%c0%ae%c0%ae/secret", "/app/%C0%AE%C0%AE/secret"),
	("/app/%zz", None),
	("/app/%", None),
	("/app/%4", None),
	("/app/%41", "/app/A"),
	("/%61pp/x", "/app/x"),
	("/app/./x/../y", "/app/y"),
	("/app/../../x", None),
	("/app/x?a=/../%2e%2e//%00", "/app/x?a=/../%2e%2e//%00"),
	("/app/\\..\\secret", None),
	("/app/x#y", None),
	("/app/\u00fc", None),
	("/app/a+b", "/app/a+b"),
	("/app/a%2Bb%20c", "/app/a%2Bb%20c"),
]


@pytest.mark.parametrize("asked, expected", PATHS)
def test_what_the_upstream_sees(gw, upstream, site, asked, expected):
	gw.route("/", upstream.port, site=site)
	before = len(upstream.targets)
	answer = gw.get(asked, site=site)
	if expected is None:
		assert answer.status == 400
		assert upstream.targets[before:] == []
	else:
		assert (answer.status, upstream.targets[before:]) == (200, [expected])


@pytest.mark.parametrize("asked, expected", PATHS)
def test_nobody_leaves_a_prefix_by_rewriting(gw, upstream, site, asked, expected):
	"""A prefix is replaced: what arrives lies below the new one, in the bytes that came."""
	gw.attach("HttpRewrite", {"pathType": "Prefix", "path": "/jail", "pattern": "", "substitution": "", "host": ""},
		to=gw.route("/app", upstream.port, site=site))
	before = len(upstream.targets)
	answer = gw.get(asked, site=site)
	seen_there = upstream.targets[before:]
	if expected is None:
		assert (answer.status, seen_there) == (400, [])
	elif not expected.startswith("/app"):
		assert (answer.status, seen_there) == (404, [])
	else:
		assert (answer.status, seen_there) == (200, ["/jail" + expected.removeprefix("/app")])


@pytest.mark.parametrize("asked, expected", PATHS)
def test_nobody_gets_around_a_guarded_prefix(gw, upstream, site, asked, expected):
	"""A list guards /secret: whoever reaches it by another spelling meets the list, and no spelling of it reaches the upstream."""
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1"), to=gw.route("/secret", upstream.port, site=site))
	gw.route("/", upstream.port, site=site)
	before = len(upstream.targets)
	answer = gw.get(asked, site=site)
	seen_there = upstream.targets[before:]
	assert not any(target.startswith("/secret") for target in seen_there)
	if expected is None:
		assert (answer.status, seen_there) == (400, [])
	elif expected.startswith("/secret"):
		assert (answer.status, seen_there) == (403, [])
	else:
		assert (answer.status, seen_there) == (200, [expected])


def test_spellings_of_one_path_share_one_limit(gw, upstream, site):
	"""What is one path for the upstream is one for the route that counts."""
	gw.attach("RateLimit", rate(3), to=gw.route("/login", upstream.port, site=site, type="Exact"))
	gw.route("/", upstream.port, site=site)
	spellings = ["/login", "//login", "/%6cogin", "/./login", "/x/../login", "/%6C%6f%67%69%6E"]
	assert [gw.get(path, site=site).status for path in spellings] == [200] * 3 + [429] * 3


def test_host_tricks(gw, backend, site):
	"""A rewritten Host is the only one that arrives, whatever the client sends."""
	gw.attach("HttpRewrite", {"pathType": "Exact", "path": "/echo", "pattern": "", "substitution": "", "host": "service.test"},
		to=gw.route("/", backend, site=site))
	for data in (b"GET http://evil.test/x HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: evil.test\r\n\r\n",
			b"GET /x HTTP/1.1\r\nhOsT: evil.test:1\r\n\r\n"):
		answer = raw_request(site, data)
		if answer.status == 200:
			assert [value for name, value in answer.json["headers"] if name.lower() == "host"] == ["service.test"]
			assert len([1 for name, _ in answer.json["headers"] if name.lower() == "x-forwarded-host"]) == 1
	backend.clear()
	for data in (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a@b\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n"):
		assert raw_request(site, data).status == 400
	assert backend.requests() == []


# ---- a client that does not play along ----

def test_slow_reader_of_a_refusal(gw, site):
	"""A large refusal to a client that reads nothing holds no worker."""
	route = gw.route("/", None, site=site)
	gw.attach("DirectResponse", {"code": "200", "body": "x" * 65536}, to=route)
	gw.attach("RateLimit", rate(1_000_000), to=route)
	idle = [gw.connect(site, receive_buffer=2048) for _ in range(20)]
	for connection in idle:
		connection.socket.setblocking(False)
		try:
			for _ in range(50):
				connection.socket.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		except (BlockingIOError, ConnectionError):
			pass
	begin = time.monotonic()
	for _ in range(20):
		with gw.connect(site) as connection:
			assert connection.get("/").status == 200
	assert time.monotonic() - begin < 10
	for connection in idle:
		connection.close()


def test_headers_that_claim_to_be_ours(gw, backend, site):
	"""What the gateway says about the client is not what the client says about itself."""
	gw.route("/", backend, site=site)
	got = gw.echo("/echo", [("X-Forwarded-For", "10.0.0.1"), ("X-Real-IP", "10.0.0.1"), ("X-Forwarded-Proto", "https"),
		("x_forwarded_for", "10.0.0.1"), ("X-Forwarded-Host", "evil.test"), ("X-Mse-Consumer", "admin")], site=site, host="h.test")
	assert (seen(got, "x-forwarded-for"), seen(got, "x-real-ip"), seen(got, "x-forwarded-proto"), seen(got, "x-forwarded-host")) == \
		("10.0.0.1, 127.0.0.1", "127.0.0.1", "http", "h.test")
	assert seen(got, "x_forwarded_for") is None and seen(got, "x-mse-consumer") is None
