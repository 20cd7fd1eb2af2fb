"""Every vector of tests/conformance/h1_vectors.py against the real listener: what is refused is answered, closed and never forwarded."""
import pathlib
import sys

import pytest
from wire import Closed

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))
from h1_vectors import FORWARDED, INCOMPLETE, VECTORS

HOST = b"Host: a.test\r\n"
PARTS = [vector for vector in VECTORS if vector["expected"] == 400 and len(vector["payload"]) < 300]


@pytest.fixture(scope="module")
def site(gw, backend_process):
	gw.route("/", backend_process)
	return gw


def requests(vectors):
	return pytest.mark.parametrize("vector", vectors, ids=[vector["id"] for vector in vectors])


def first_method(payload):
	return payload.lstrip(b"\r\n").split(b" ")[0].decode("latin-1")


def check_refused(connection, vector, backend):
	answer = connection.read_response()
	assert answer.status == vector["expected"], answer
	assert answer.header("Connection") == "close"
	assert answer.header("Content-Length") == str(len(answer.body))
	assert connection.is_closed(), f"open after {answer}"
	assert not connection.buffer, "more than one answer"
	# Of a body that turns out to be malformed the beginning may have gone out; a whole request never does.
	reached = backend.requests()
	assert not [record for record in reached if record.complete or record.malformed], reached
	if not vector["id"].startswith("smuggling-chunk-"):
		assert not reached


def check_forwarded(connection, vector, backend):
	answers = [connection.read_response(first_method(vector["payload"])) for _ in range(vector.get("answers", 1))]
	assert [answer.status for answer in answers] == [200] * len(answers)
	assert not connection.buffer
	if vector.get("closes"):
		assert answers[-1].header("Connection") == "close"
		assert connection.is_closed()
	reached = backend.requests()
	assert len(reached) == len(answers)
	assert not [record for record in reached if record.malformed]
	seen = reached[0]
	if "target" in vector:
		assert seen.target == vector["target"]
	if "host" in vector:
		assert seen.header("Host") == vector["host"]
	if "body" in vector:
		assert seen.body_bytes == len(vector["body"])
		if seen.header("Transfer-Encoding") is None:
			assert seen.body == vector["body"]
	for name in vector.get("absent", []):
		assert not seen.all(name), seen
	for name, value in vector.get("fields", {}).items():
		assert seen.header(name) == value


@requests([vector for vector in VECTORS if isinstance(vector["expected"], int)])
def test_refuses(site, backend, vector):
	with site.connect() as connection:
		connection.send(vector["payload"])
		check_refused(connection, vector, backend)


@requests([vector for vector in VECTORS if vector["expected"] == FORWARDED])
def test_forwards(site, backend, vector):
	with site.connect() as connection:
		connection.send(vector["payload"])
		check_forwarded(connection, vector, backend)


@requests([vector for vector in VECTORS if vector["expected"] == INCOMPLETE])
def test_waits_for_the_rest(site, backend, vector):
	with site.connect() as connection:
		connection.send(vector["payload"])
		assert connection.is_idle(0.1)
		assert not [record for record in backend.requests() if record.complete or record.malformed]


@requests(PARTS)
def test_refuses_the_same_byte_for_byte(site, backend, vector):
	"""However the bytes are cut into segments, the answer is the same."""
	with site.connect() as connection:
		try:
			for at in range(len(vector["payload"])):
				connection.send(vector["payload"][at:at + 1])
		except (ConnectionResetError, BrokenPipeError):
			pass    # it was refused before the end
		try:
			check_refused(connection, vector, backend)
		except Closed:
			# What we sent after the answer reset the connection; the requirement that nothing is forwarded stands.
			assert not [record for record in backend.requests() if record.complete or record.malformed]


def test_a_refused_request_ends_the_pipeline(site, backend):
	"""What stands behind a malformed request is not taken for a request."""
	with site.connect() as connection:
		connection.send(b"GET /one HTTP/1.1\r\n" + HOST + b"\r\n"
			+ b"POST /two HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
			+ b"GET /three HTTP/1.1\r\n" + HOST + b"\r\n")
		assert connection.read_response().status == 200
		assert connection.read_response().status == 400
		assert connection.is_closed()
		assert not connection.buffer
	assert [record.target for record in backend.requests()] == ["/one"]


def test_a_refusal_is_recorded(site, backend):
	with site.connect() as connection:
		connection.send(b"GET /refused-and-recorded HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
		answer = connection.read_response()
	assert answer.status == 400
	assert set(answer.json) == {"errorCode", "errorMessage", "requestId"}
	assert site.wait_record(status=400)


def test_others_are_served_while_one_is_refused(site, backend):
	with site.connect() as good:
		assert good.get("/").status == 200
		with site.connect() as bad:
			bad.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
			assert bad.read_response().status == 400
		assert good.get("/").status == 200
