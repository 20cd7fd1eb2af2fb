"""Tokens of answers that no client got (contract A6, USE-9): read beside the next try, never waited for, and bounded."""
import json
import socket
import time

import pytest

from ai_kit import ANTHROPIC, OPENAI, ModelServer, ai_log, ai_service, anthropic, chat, llm_api, metric, stream
from gw import Gateway, numbers
from model_server import Event, Events, Whole
from scripted import Scripted, read_request
from tries import Reply, Stream, upstream
from wire import wait_until

COST = {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
ERROR = {"error": {"message": "overloaded"}, "usage": COST}


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


def wasted(gw):
	return metric(gw, "ai_wasted_tokens_total")


class Pair:
	"""A service that fails and one that is turned to, behind one model API with AiStatistics."""

	def __init__(self, gw, provider="openai", protocols=(OPENAI,)):
		self.gw, self.first, self.second = gw, ModelServer(), ModelServer("From the second.")
		self.primary = ai_service(gw, self.first, provider, protocols=protocols)
		self.backup = ai_service(gw, self.second, provider, protocols=protocols)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": self.backup.id, "model": "backup"}]}]}, self.primary)
		self.api = llm_api(gw, self.primary, protocols=protocols)
		gw.attach("AiStatistics", {}, to=self.api)
		self.base, self.before = self.api.base, wasted(gw)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.first.stop()
		self.second.stop()

	def falls(self, **more):
		answer = chat(self.gw, self.base, "Hello?", **more)
		assert answer.status == 200 and answer.json["choices"][0]["message"]["content"] == "From the second."
		return answer

	def wait_wasted(self, n):
		wait_until(lambda: wasted(self.gw) == self.before + n, 20, f"{n} wasted tokens")


@pytest.fixture
def pair(gw):
	with Pair(gw) as made:
		yield made


def test_USE9_what_an_error_says_it_cost(gw, pair):
	pair.first.answer(ERROR, 503)
	answer = pair.falls()
	pair.wait_wasted(42)
	assert ai_log(gw, answer)["total_token"] == answer.json["usage"]["total_tokens"], "what the client got is charged, and no more"


@pytest.mark.parametrize("how", [{"segment": 7}, {"framing": "chunked"}, {"framing": "close"}, {"coding": "gzip"}, {"coding": "br"},
	{"coding": "gzip", "framing": "chunked", "segment": 11}, {"first_delay": 0.2}])
def test_USE9_however_it_comes(gw, pair, how):
	pair.first.always(Whole(ERROR, 429, **how))
	pair.falls()
	pair.wait_wasted(42)


def test_USE9_the_next_service_does_not_wait_for_it(gw, pair):
	live = pair.first.live()
	with gw.connect() as connection:
		connection.start("POST", f"{pair.base}/v1/chat/completions", {"Content-Type": "application/json"},
			json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}).encode())
		live.head(503, "application/json")
		assert connection.read_response().status == 200, "before a byte of the body was sent"
	time.sleep(0.05)
	live.raw(json.dumps(ERROR).encode())
	live.end()
	pair.wait_wasted(42)


def test_USE9_it_ends_though_the_api_is_gone(gw, pair):
	"""What is read beside keeps the configuration that it began under."""
	live = pair.first.live()
	with gw.connect() as connection:
		connection.start("POST", f"{pair.base}/v1/chat/completions", {"Content-Type": "application/json"},
			json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}).encode())
		live.head(500, "application/json")
		assert connection.read_response().status == 200
	gw.delete(pair.api)
	live.raw(json.dumps(ERROR).encode())
	live.end()
	pair.wait_wasted(42)


def test_USE9_connections_outlive_refusals(gw, pair):
	pair.first.always(Whole(ERROR, 503, segment=50))
	for n in range(8):
		pair.falls()
		pair.wait_wasted(42 * (n + 1))
	assert pair.first.hits == 8 and len(pair.first.server.connections) <= 3


@pytest.mark.parametrize("answer", [
	Whole(b'{"usage":{"total_tokens":42},"pad":"' + b"x" * 70000 + b'"}', 503),
	Whole(b'{"usage":{"total_tokens":42},"pad":"' + b"x" * 70000 + b'"}', 503, framing="chunked"),
	Whole(ERROR, 503, cut_bytes=30), Whole(ERROR, 503, cut_bytes=30, reset=True),
	Whole(b"not json", 503), Whole(b"", 503), Whole(b"[1,2]", 503), Whole(b'{"usage":null}', 503),
	Whole(b'{"usage":{"total_tokens":-5,"prompt_tokens":1e99}}', 503), Whole(ERROR, 503, content_type="text/html"),
	Whole(ERROR, 503, coding="x-unknown")])
def test_USE9_what_says_nothing_counts_nothing(gw, pair, answer):
	pair.first.always(answer)
	pair.falls()
	pair.first.answer(ERROR, 503)
	pair.falls()
	pair.wait_wasted(42)


def test_USE9_a_body_that_never_ends_is_given_up(gw, pair):
	live = pair.first.live()
	with gw.connect() as connection:
		connection.start("POST", f"{pair.base}/v1/chat/completions", {"Content-Type": "application/json"},
			json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}).encode())
		live.head(503, "application/json")
		live.raw(b'{"error":')
		assert connection.read_response().status == 200
	assert live.closed.wait(20), "its time is over"
	assert wasted(gw) == pair.before


def test_USE9_retries_waste_too(gw, pair):
	gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx", "non_idempotent"]}, pair.primary)
	pair.first.answer(ERROR, 503)
	pair.falls()
	assert pair.first.hits == 3
	pair.wait_wasted(3 * 42)


def test_USE9_retries_without_a_fallback(gw):
	with ModelServer("Good.") as model:
		service = ai_service(gw, model)
		api = llm_api(gw, service)
		gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx", "non_idempotent"]}, service)
		before = wasted(gw)
		model.then(Whole(ERROR, 503), Whole(ERROR, 502))
		assert chat(gw, api.base, "Hello?").status == 200
		wait_until(lambda: wasted(gw) == before + 84, 20, "wasted tokens")


def test_USE9_the_last_failure_is_charged_and_not_wasted(gw, pair):
	"""The client gets it, so it is no waste (USE-8)."""
	pair.first.answer(ERROR, 503)
	pair.second.answer(ERROR, 500)
	answer = chat(gw, pair.base, "Hello?")
	assert answer.status == 500
	pair.wait_wasted(42)
	assert ai_log(gw, answer)["total_token"] == 42


def test_USE9_a_stream_that_breaks_before_its_content(gw):
	"""Its first event says what the prompt cost."""
	with Pair(gw, "anthropic", (ANTHROPIC,)) as pair:
		start = Event({"type": "message_start", "message": {"id": "m", "role": "assistant", "model": "c", "content": [],
			"usage": {"input_tokens": 30, "output_tokens": 1}}}, name="message_start")
		pair.first.always(Events([start, start], cut_after=1))
		answer = anthropic(gw, pair.base, "Hello?", stream=True)
		assert answer.status == 200 and "message_stop" in answer.text
		pair.wait_wasted(31)


def test_USE9_streams_with_content_waste_nothing(gw, pair):
	pair.first.say("Fine.")
	assert stream(gw, pair.base, "Hello?").text == "Fine."
	assert wasted(gw) == pair.before


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.parametrize("pieces", [False, True])
def test_USE9_of_plain_services(gw, protocol, pieces):
	body = json.dumps(ERROR).encode()
	kind = [("content-type", "application/json")]
	bad = Stream(body[:10], body[10:], fields=kind, pause=0.05) if pieces else Reply(503, body, kind)
	bad.status = 503
	good = Reply(200, json.dumps({"choices": [{"message": {"content": "Good."}}], "usage": COST}).encode(), kind)
	with upstream(protocol, bad, bad, good) as up:
		path = f"/waste-{next(numbers)}"
		route = gw.route(path, up.service(gw))
		gw.attach("AiStatistics", {}, to=route)
		gw.attach("Retry", {"attempts": 3, "retryOn": ["5xx", "non_idempotent"]}, route)
		before = wasted(gw)
		assert chat(gw, path, "Hello?").status == 200
		wait_until(lambda: wasted(gw) == before + 84, 20, "wasted tokens")
		assert len(up.hits) == 3


def test_USE9_a_stop_does_not_wait_for_it():
	with Gateway() as gw, Pair(gw) as pair:
		live = pair.first.live()
		with gw.connect() as connection:
			connection.start("POST", f"{pair.base}/v1/chat/completions", {"Content-Type": "application/json"},
				json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}).encode())
			live.head(503, "application/json")
			assert connection.read_response().status == 200
		start = time.monotonic()
		gw.stop()
		assert live.closed.wait(20) and time.monotonic() - start < 30


def test_USE9_a_burst_is_bounded(gw, pair):
	"""More silent bodies at a time than are read beside: all requests are answered, and no connection stays."""
	class Silent(Scripted):
		def __init__(self):
			super().__init__(self.talk)

		def talk(self, connection):
			read_request(connection)
			connection.send(b"HTTP/1.1 503 No\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
			while connection.fill():
				pass

	with Silent() as silent:
		service = ai_service(gw, silent.port)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [
			{"serviceId": pair.backup.id, "model": "backup"}]}]}, service)
		api = llm_api(gw, service)
		for _ in range(300):
			assert chat(gw, api.base, "Hello?").status == 200
		wait_until(lambda: all(is_over(connection) for connection in silent.connections), 20, "the end of all connections")


def is_over(connection):
	try:
		return connection.socket.fileno() < 0 or not connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
	except BlockingIOError:
		return False
	except OSError:
		return True
