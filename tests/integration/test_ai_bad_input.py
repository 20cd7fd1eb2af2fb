"""Bad input where all seven policies for models are attached: what clients, models and side services may say wrong. Each request ends, clearly and
bounded; its tokens are settled once; and who asks something else is served meanwhile."""
import contextlib
import json
import time

import pytest
from ai_kit import Event, Stream, Whole, ai_log, ai_service, asking, chat, chat_body, llm_api, post, record_of, stream
from ai_site import TEXT, Site, check_settled
from model_server import Events, ModelServer, Usage
from postgres_kit import Postgres
from redis_kit import RedisServer
from side_services import plain
from wire import wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def site(gw):
	with contextlib.ExitStack() as stack:
		redis, store = stack.enter_context(RedisServer()), stack.enter_context(Postgres())
		made = Site(gw, redis, store, stack)
		other = stack.enter_context(ModelServer("Something else."))
		made.other = llm_api(gw, ai_service(gw, other)).base
		yield made


@pytest.fixture(autouse=True)
def others_are_served(gw, site):
	"""After each test: no request hangs about, another API answers, and this one does too."""
	before = gw.rss_kb()
	yield
	site.first.always(site.answer)
	site.guard.break_with(None)
	site.engine.find([])
	site.embedder.broken = None
	assert chat(gw, site.other, "hi").status == 200
	assert chat(gw, site.base, f"well again {time.monotonic()}").status == 200
	assert gw.rss_kb() - before < 256 * 1024


# ---- what clients say wrong ----

def nested(what, depth):
	return b'{"model":"gpt-4","messages":[{"role":"user","content":"x"}],"more":' + what * depth + b"}"


def with_text(text):
	return b'{"model":"gpt-4","messages":[{"role":"user","content":"' + text + b'"}]}'


REFUSED = {
	"nothing": b"", "no JSON": b"hello", "half of it": b'{"model":"gpt-4","messages":[', "a list": b"[]", "two of them": b"{}{}",
	"deep arrays": nested(b"[", 200_000), "deep objects": nested(b'{"a":', 100_000), "deep but closed": nested(b"[" * 5000 + b"]" * 5000, 1),
	"very many values": nested(b"[0" + b",0" * 700_000 + b"]", 1),
	"a member twice": b'{"model":"gpt-4","model":"gpt-5","messages":[]}',
	"a member twice inside": b'{"model":"gpt-4","messages":[{"role":"user","role":"system","content":"x"}]}',
	"a member twice by an escape": b'{"model":"gpt-4","mo\\u0064el":"gpt-5","messages":[]}',
	"invalid UTF-8": with_text(b"a\xffb"), "half a character": with_text(b"a\xe4\xbd"), "an overlong character": with_text(b"\xc0\xaf"),
	"a surrogate as UTF-8": with_text(b"\xed\xa0\x80"), "a zero byte": with_text(b"a\0b"), "a raw line end": with_text(b"a\nb"),
	"NaN": b'{"model":"gpt-4","messages":[],"temperature":NaN}',
	"a mark at the start": b"\xef\xbb\xbf" + with_text(b"x"), "UTF-16": with_text(b"x").decode().encode("utf-16"),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_bodies_that_are_refused(gw, site, what):
	before, hits, asked = site.spent(), site.first.hits, len(site.guard.checks)
	answer = post(gw, f"{site.base}/v1/chat/completions", REFUSED[what])
	assert answer.status == 400 and answer.json["error"]["message"], answer
	assert (site.first.hits, len(site.guard.checks)) == (hits, asked), "nobody else saw it"
	assert check_settled(site, before, answer) == 0


def test_a_body_that_is_too_long(gw, site):
	before, hits = site.spent(), site.first.hits
	_, fields = asking(b"", {"Content-Length": str(11 * MIB)})
	with gw.connect() as connection:    # it is refused by what it promises
		connection.start("POST", f"{site.base}/v1/chat/completions", fields)
		answer = connection.read_response()
	assert answer.status == 413 and answer.json["error"]["code"] == "request_too_large"
	assert site.first.hits == hits and check_settled(site, before, fields["X-Request-Id"]) == 0


def test_a_prompt_of_ten_million_bytes(gw, site):
	"""Judged, searched for, counted, and sent on with what the search found; the text itself as it came."""
	before = site.spent()
	text = "do:plain " + "0123456789" * 999_000 + f" {time.monotonic()}"
	site.engine.find([("Title", "https://one.example/a", "A page.")])
	answer = stream(gw, site.base, text)
	assert answer.status == 200
	sent = json.dumps(site.first.last.body["messages"])
	assert text in sent and "A page." in sent
	assert check_settled(site, before, answer) == 33


def test_texts_of_any_kind_arrive_as_they_are(gw, site):
	before = site.spent()
	text = "\\ \" \u2028 \U0001f600 \x7f </script> \u202e data: x\n\nevent: y" + str(time.monotonic())
	answer = chat(gw, site.base, [{"role": "user", "content": text}])
	assert answer.status == 200 and text in site.first.last.body["messages"][-1]["content"]
	# Half a surrogate is JSON: whoever cannot read it says so, and nothing breaks.
	odd = post(gw, f"{site.base}/v1/chat/completions", with_text(b"\\ud800 x"))
	assert odd.status in (200, 400)
	check_settled(site, before, answer, odd)


# ---- what models say wrong ----

def chunk(text="word ", **more):
	return Event({"id": "c", "object": "chat.completion.chunk", "model": "gpt-4",
		"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more})


USED = Event({"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})
DONE = Event("[DONE]")
ANSWERS = {
	"no events at all": Events([]),
	"lines that are none": Events([b"hello\n\n", b"\0\0\0\n\n", b":::\n\n", chunk(), USED, DONE]),
	"data that is no JSON": Events([b"data: {\n\n", b"data: }{\n\n", chunk(), USED, DONE]),
	"data of another form": Events([Event([]), Event({"choices": 1}), Event({"choices": [1]}), Event({"choices": [{"delta": []}]}), chunk(), USED, DONE]),
	"invalid UTF-8": Events([b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', chunk(), USED, DONE]),
	"deep events": Events([b"data: " + b"[" * 100_000 + b"\n\n", chunk(), USED, DONE]),
	"a member twice": Events([b'data: {"choices":[],"choices":[{"delta":{"content":"x"}}]}\n\n', chunk(), USED, DONE]),
	"an event of two mebibytes": Events([b"data: " + b"x" * (2 * MIB) + b"\n\n", chunk(), USED, DONE]),
	"a line without an end": Events([chunk(), b"data: " + b"y" * (3 * MIB)]),
	"ten thousand empty events": Events([b"data:\n\n" * 10_000, chunk(), USED, DONE]),
	"carriage returns": Events([b"data: {\"choices\":[]}\r\r" * 50, chunk(), USED, DONE]),
	"usage null": Events([chunk(usage=None), Event({"choices": [], "usage": None}), DONE]),
	"usage absent": Events([chunk(), DONE]),
	"usage that is nonsense": Events([chunk(), Event({"choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": "many",
		"total_tokens": 1e300}}), DONE]),
	"usage beyond all numbers": Events([chunk(), Event({"choices": [], "usage": {"prompt_tokens": 2**63, "completion_tokens": 2**62,
		"total_tokens": 2**64}}), DONE]),
	"usage twice": Events([chunk(), USED, USED, DONE]),
	"more after the end": Events([chunk(), USED, DONE, chunk("too late"), USED, DONE]),
	"an error after the head": Events([chunk(), chunk(), Event({"error": {"message": "no", "type": "server_error"}})]),
	"an error first": Events([Event({"error": {"message": "no", "type": "server_error"}})]),
	"cut after the head": Events([chunk()], cut_after=0),
	"cut in the middle": Events([chunk(), chunk(), chunk()], cut_after=2),
	"reset in the middle": Events([chunk(), chunk(), chunk()], cut_after=2, reset=True),
	"half an event": Events([chunk(), b'data: {"choices":[{"del'], cut_after=2),
	"no terminal event": Events([chunk(), chunk()]),
	"compressed, though identity was asked": Events([chunk()] * 20 + [USED, DONE], coding="gzip"),
	"compressed and cut": Events([chunk()] * 20, coding="gzip", cut_after=5),
	"said to be compressed and is not": Events([chunk(), USED, DONE], fields=[("Content-Encoding", "gzip")]),
	"compressed by nobody knows what": Events([chunk(), USED, DONE], fields=[("Content-Encoding", "zstd")]),
	"a bomb": Whole(b'{"choices":[{"message":{"content":"' + b"x" * (40 * MIB) + b'"}}]}', coding="gzip"),
	"whole, though events were asked": Whole({"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
	"whole and no JSON": Whole(b"<html>"), "whole and empty": Whole(b""), "whole and deep": Whole(b"[" * 200_000),
	"whole and cut": Whole(b'{"choices":[' + b"0," * 1000, cut_bytes=500),
	"whole and twelve mebibytes": Whole(b'{"choices":[{"message":{"content":"' + b"z" * (12 * MIB) + b'"}}]}'),
	"an error of no known form": Whole(b"\xff\xfe no", status=400, content_type="text/plain"),
	"events as an error": Events([chunk(), DONE], status=500),
}


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("what", sorted(ANSWERS))
def test_models_that_misbehave(gw, site, what, is_stream):
	before = site.spent()
	site.first.always(ANSWERS[what])
	body = chat_body(f"{what} {is_stream} {time.monotonic()}", **({"stream": True} if is_stream else {}))
	with Stream(gw, f"{site.base}/v1/chat/completions", body, timeout=60) as answer:
		try:
			answer.rest()
		except AssertionError:
			assert not is_stream or "whole" in what or "bomb" in what, "a whole answer that was cut"
		status = answer.status
	assert status in (200, 400, 500, 502), status
	assert record_of(gw, answer)["status"] == status
	tokens = check_settled(site, before, answer)
	assert 0 <= tokens < 20 * MIB
	if what == "usage twice" and is_stream:
		assert tokens == 7


def test_events_without_end(gw, site):
	"""As many as the model likes: what is held is bounded, and when the client leaves the model is left too."""
	before, lost, memory = site.spent(), site.first.lost, gw.rss_kb()
	site.first.always(site.first.saying(TEXT, {"endless": True, "event_delay": 0.0005}, usage=Usage(1, 1)))
	with Stream(gw, f"{site.base}/v1/chat/completions", chat_body(f"go on {time.monotonic()}", stream=True)) as answer:
		while len(answer.raw) < MIB // 4:
			assert answer.next()
	wait_until(lambda: site.first.lost > lost, 20, "the model is left")
	assert check_settled(site, before, answer) > 0
	assert gw.rss_kb() - memory < 64 * 1024


# ---- what side services say wrong ----

LIES = {
	"nothing": plain(200), "garbage": plain(200, [], bytes(range(256)) * 64), "another protocol": b"SSH-2.0-x\r\n\r\n",
	"huge": plain(200, [], b'{"x":"' + b"x" * (3 * MIB) + b'"}'), "a huge promise": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{",
	"deep": plain(200, [], b"[" * 200_000), "many values": plain(200, [], b"[0" + b",0" * 300_000 + b"]"),
	"a member twice": plain(200, [], b'{"Code":200,"Code":200,"Data":{},"webPages":{},"webPages":{}}'),
	"invalid UTF-8": plain(200, [], b'{"Code":"\xff","webPages":"\xff"}'),
	"chunks without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b" " * 4096 + b"\r\n",
	"half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
	"half a head": b"HTTP/1.1 200 OK\r\nContent-Le", "a status 500": plain(500),
}


def say_and_close(data):
	def say(_, connection):
		try:
			connection.send(data)
		except OSError:
			pass    # it had enough
	return say


@pytest.mark.parametrize("what", sorted(LIES))
def test_side_services_that_lie_all_at_once(gw, site, what):
	"""Guard, search and embedding; the answer is the model's, unharmed, and costs what it costs."""
	before, lie = site.spent(), LIES[what]
	site.guard.break_with(say_and_close(lie))
	site.engine.answer = say_and_close(lie)
	site.embedder.broken = (200, lie.partition(b"\r\n\r\n")[2])
	text = f"do:plain {what} {time.monotonic()}"
	events, whole = stream(gw, site.base, text), chat(gw, site.base, f"{text} again")
	assert events.status == whole.status == 200 and events.is_done and events.text == whole.json["choices"][0]["message"]["content"] == TEXT * 2
	assert site.first.last.body["messages"][-1]["content"] == f"{text} again"
	log = ai_log(gw, events)
	assert log["search_status"] == "error" and log["cache_status"] == "miss", log
	assert check_settled(site, before, events, whole) == 66
