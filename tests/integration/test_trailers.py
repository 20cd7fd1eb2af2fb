"""Fields after a body, interim responses, and the gateway's own answers to gRPC requests."""
import pytest
from gw import free_port
from policy_kit import headers, ip_list, op, rate
from scripted import Scripted, read_request
from wire import Closed, Malformed


def chunked(trailers, data=b"data"):
	lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers)
	return b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(data), data, lines)


# ---- of requests ----

def send(gw, path, ending, method="POST", extra=""):
	with gw.connect() as connection:
		connection.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{extra}\r\n".encode() + ending)
		try:
			return connection.read_response(method)
		except Closed:
			return None


@pytest.fixture(scope="module")
def upstream(gw, backend_process):
	gw.route("/echo", backend_process)
	return backend_process


def trailers_at(backend):
	"""What the upstream got behind the last chunk."""
	_, _, lines = (b"\r\n" + backend.last().body).partition(b"\r\n0\r\n")
	return [tuple(line.split(": ", 1)) for line in lines.decode("latin-1").split("\r\n") if line]


@pytest.mark.parametrize("trailers", [
	[("X-Checksum", "abc")],
	[("x-sum", "1"), ("X-Sum", "2"), ("Server-Timing", "a;dur=1, b"), ("Digest", "")],
	[("A-Name-Longer-Than-Any-Refused-One", "v" * 2000), ("grpc-status", "0")],
	[(f"X-{i}", str(i)) for i in range(64)],
], ids=len)
def test_of_a_request_arrive(gw, upstream, backend, trailers):
	assert send(gw, "/echo", chunked(trailers)).status == 200
	assert trailers_at(backend) == trailers
	assert [value.lower() for value in backend.last().all("Transfer-Encoding")] == ["chunked"]


def test_values_are_trimmed(gw, upstream, backend):
	assert send(gw, "/echo", b"0\r\nX-A: \t a b \t\r\nX-B:\r\nX-C:c\r\n\r\n").status == 200
	assert trailers_at(backend) == [("X-A", "a b"), ("X-B", ""), ("X-C", "c")]


def test_in_pieces(gw, upstream, backend):
	trailers = [("X-One", "first"), ("X-Two", "second")]
	with gw.connect() as connection:
		connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		for byte in chunked(trailers):
			connection.send(bytes([byte]))
		assert connection.read_response().status == 200
	assert trailers_at(backend) == trailers


def test_names_with_underscores_are_left_out(gw, upstream, backend):
	assert send(gw, "/echo", chunked([("X_Forwarded_For", "1.2.3.4"), ("X-Kept", "1"), ("content_length", "5")])).status == 200
	assert trailers_at(backend) == [("X-Kept", "1")]


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Host", "Connection", "Authorization", "Cookie", "Set-Cookie",
	"TE", "Trailer", "Upgrade", "Expect", "Content-Type", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded",
	"X-Request-Id", "x-mse-consumer", "x-mse-tag", "proxy-authorization", "PROXY-CONNECTION"])
def test_what_belongs_before_the_body_is_refused(gw, upstream, backend, name):
	answer = send(gw, "/echo", chunked([("X-Fine", "1"), (name, "x")]))
	assert answer is None or answer.status in (400, 503)
	assert not [r for r in backend.requests() if r.complete]


@pytest.mark.parametrize("ending", [b"0\r\nX-A: 1\n\r\n", b"0\r\nX A: 1\r\n\r\n", b"0\r\n: 1\r\n\r\n", b"0\r\nX-A : 1\r\n\r\n", b"0\r\nX-A\r\n\r\n",
	b"0\r\nX-A: 1\r\n folded\r\n\r\n", b"0\r\nX-A: \0\r\n\r\n", b"0\r\nX-A: 1\r\r\n\r\n",
	b"0\r\n" + b"X: y\r\n" * 65 + b"\r\n", b"0\r\nX-A: " + b"x" * 9000 + b"\r\n\r\n"], ids=lambda value: value[:24])
def test_malformed_ones_are_refused(gw, upstream, backend, ending):
	answer = send(gw, "/echo", ending)
	assert answer is None or answer.status == 400
	assert not [r for r in backend.requests() if r.complete]


def test_the_connection_goes_on(gw, upstream, backend):
	with gw.connect() as connection:
		for i in range(3):
			connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([("X-I", str(i))]))
			assert connection.read_response().status == 200
			assert trailers_at(backend) == [("X-I", str(i))], backend.last()
			assert connection.get("/echo").status == 200
	assert backend.stats()["connections"] <= 1


# ---- of responses ----

def answering(head, body):
	def script(connection):
		while connection.buffer or connection.fill():
			read_request(connection)
			connection.send(head + body)

	return script


@pytest.fixture(scope="module")
def answer_with(gw):
	servers = []

	def make(head, body):
		server = Scripted(answering(head, body))
		servers.append(server)
		path = f"/answer-{server.port}"
		gw.route(path, server.port)
		return path

	yield make
	for server in servers:
		server.__exit__(None)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("trailers", [[("grpc-status", "0"), ("Grpc-Message", "")], [("X_Under", "1"), ("Server-Timing", "a")]], ids=str)
@pytest.mark.parametrize("data", [b"data", b"x" * 200_000], ids=len)
def test_of_a_response_arrive(gw, answer_with, trailers, data):
	path = answer_with(CHUNKED, chunked(trailers, data))
	for _ in range(2):
		answer = gw.get(path)
		assert (answer.status, answer.body, answer.trailers) == (200, data, trailers)


def test_a_response_without_a_body_but_trailers(gw, answer_with):
	answer = gw.get(answer_with(CHUNKED, b"0\r\nX-A: 1\r\n\r\n"))
	assert (answer.body, answer.trailers) == (b"", [("X-A", "1")])


def test_are_left_out_for_http10(gw, answer_with):
	path = answer_with(CHUNKED, chunked([("X-A", "1")]))
	with gw.connect() as connection:
		connection.start("GET", path, version="1.0")
		answer = connection.read_response()
		assert (answer.body, answer.trailers) == (b"data", [])
		assert b"X-A" not in connection.buffer


def test_a_bad_one_cuts_the_response(gw, answer_with):
	path = answer_with(CHUNKED, chunked([("Content-Length", "1")], b"x" * 500_000))
	with pytest.raises((Closed, Malformed)):
		gw.get(path)


def test_a_bad_one_before_the_head_was_sent(gw, answer_with):
	assert gw.get(answer_with(CHUNKED, chunked([("Content-Length", "1")]))).status == 502


# ---- interim responses ----

EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-drop\r\nX-Drop: 1\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_early_hints_pass(gw, answer_with):
	answer = gw.get(answer_with(EARLY + b"HTTP/1.1 103 Early Hints\r\nLink: </b.js>\r\n\r\n", FINAL))
	assert (answer.status, answer.body) == (200, b"ok")
	assert [(one.status, one.all("Link")) for one in answer.interim] == [(103, ["</a.css>; rel=preload"]), (103, ["</b.js>"])]
	assert all(one.header("X-Drop") is None and one.header("Content-Length") is None for one in answer.interim)


def test_early_hints_come_early(gw):
	def script(connection):
		read_request(connection)
		connection.send(EARLY)
		connection.take_until(b"go")
		connection.send(FINAL)

	with Scripted(script) as server:
		gw.route("/early", server.port)
		with gw.connect() as connection:
			connection.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
			assert connection.read_head().status == 103
			connection.send("go")
			assert connection.read_response().status == 200
		assert not server.errors


def test_early_hints_are_not_for_http10(gw, answer_with):
	path = answer_with(EARLY, FINAL)
	with gw.connect() as connection:
		connection.start("GET", path, version="1.0")
		assert connection.read_head().status == 200


@pytest.mark.parametrize("status", [100, 102, 104, 199])
def test_others_are_consumed(gw, answer_with, status):
	answer = gw.get(answer_with(f"HTTP/1.1 {status} Hm\r\nX-A: 1\r\n\r\n".encode(), FINAL))
	assert (answer.status, answer.interim) == (200, [])


def test_endless_ones_are_a_bad_gateway(gw, answer_with):
	answer = gw.get(answer_with(EARLY * 17, FINAL))
	assert answer.status == 502


# ---- gRPC ----

GRPC = {"Content-Type": "application/grpc+proto", "TE": "trailers"}


def status_of(answer):
	assert answer.header("Content-Type") == "application/grpc" and answer.body == b""
	return answer.status, answer.header("grpc-status"), answer.header("grpc-message")


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+json", "application/grpc;x=1", "Application/GRPC"])
def test_no_route_is_unimplemented(gw, upstream, content_type):
	answer = gw.request("POST", "/nowhere", {"Content-Type": content_type}, b"")
	assert status_of(answer) == (200, "12", "no route matches")


def test_other_types_get_the_usual_answer(gw, upstream):
	for content_type in ("application/grpc-web", "application/json", "application/grpcx"):
		answer = gw.request("POST", "/nowhere", {"Content-Type": content_type}, b"")
		assert answer.status == 404 and answer.json["errorCode"] == "ErrNotFound"


def test_no_upstream_is_unavailable(gw):
	gw.route("/grpc-down", free_port())
	assert status_of(gw.request("POST", "/grpc-down", GRPC, b""))[:2] == (200, "14")


def test_a_broken_upstream_is_unavailable(gw):
	with Scripted(lambda connection: connection.send(b"nonsense\r\n\r\n")) as server:
		gw.route("/grpc-broken", server.port)
		assert status_of(gw.request("POST", "/grpc-broken", GRPC, b""))[:2] == (200, "14")


def test_refusals_are_mapped(gw, upstream, backend_process):
	route = gw.route("/echo/grpc-limited", backend_process)
	gw.attach("RateLimit", rate(1, responseContentBody='{"a":"100%"}'), to=route)
	answers = [gw.request("POST", "/echo/grpc-limited", GRPC, b"") for _ in range(2)]
	assert status_of(answers[1]) == (200, "8", '{"a":"100%25"}')
	denied = gw.route("/echo/grpc-denied", backend_process)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1"), to=denied)
	gw.attach("HeaderModify", headers(op("Response", "Add", "X-Added", "yes")), to=denied)
	answer = gw.request("POST", "/echo/grpc-denied", GRPC, b"")
	assert status_of(answer) == (200, "7", "Access denied") and answer.header("X-Added") == "yes"
