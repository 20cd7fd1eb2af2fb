"""AiSecurityGuard on answers: whole ones, and streams that are held window by window (contract C2)."""
import contextlib
import json
import random
import subprocess
import threading
import time

import pytest

from ai_kit import (ANTHROPIC, DASHSCOPE, ai_service, at_once, chat_body, llm_api, metric, said_by, stream, stream_of)
from gw import Gateway
from guard_kit import (HIGH, SORRY, answers, both, check_denied, check_stream_end, chunk, event_with_text, guarded, matched, said_in, text_of)
from guard_server import level_data, said
from model_server import Event, ModelServer, Nothing, Whole
from policy_kit import raw_get
from side_services import plain
from wire import wait_until


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


# ---------- whole answers ----------

def test_answers_are_checked_before_they_are_seen(gw):
	with guarded(gw, **answers()) as one:
		one.guard.flag("bad", advice="No.", **HIGH)
		one.model.say("All is good.")
		good = one.chat()
		assert good.json["choices"][0]["message"]["content"] == "All is good." and good.header("X-Guard-Status") is None
		assert [check.content for check in one.guard.checks] == ["All is good."]
		before = metric(gw, "ai_sec_response_deny")
		one.model.say("This is bad.")
		refused = one.chat()
		check_denied(refused, "No.", "response-denied")
		assert metric(gw, "ai_sec_response_deny") == before + 1
		assert "This is bad" not in refused.text
		assert one.outcomes() == {"passed": 1, "response_denied": 1}
		assert one.guard.requests == []
		assert matched(gw, refused)[0]["direction"] == "response"


def test_all_that_an_answer_says_is_checked(gw):
	with guarded(gw, **answers()) as one:
		one.guard.flag("bad", **HIGH)
		one.model.say("fine", reasoning="bad")
		assert one.chat().header("X-Guard-Status") == "response-denied"
		one.model.say("", tools=({"id": "c", "name": "f", "arguments": '{"x":"bad"}'},))
		assert one.chat().header("X-Guard-Status") == "response-denied"
		one.model.say("fine")
		assert one.chat().header("X-Guard-Status") is None


def test_only_successes_are_checked(gw):
	with guarded(gw, **answers()) as one:
		one.guard.flag("bad", **HIGH)
		one.model.fail(429, "bad")
		assert one.chat().status == 429
		assert one.guard.checks == []
		one.model.answer(b"\x89PNG bad", content_type="image/png")
		assert one.chat().text
		assert one.guard.checks == []
		wait_until(lambda: gw.events("guard.not_inspected"), 10, "a word about it")


def test_answers_that_are_no_json(gw):
	with guarded(gw, **answers()) as one:
		one.guard.flag("bad", **HIGH)
		one.model.answer(b"plain and bad", content_type="text/plain")
		assert one.chat().header("X-Guard-Status") == "response-denied"
		one.model.answer(b"{ broken and bad", content_type="application/json")
		assert one.chat().header("X-Guard-Status") == "response-denied"
		one.model.answer(b"just a text", content_type="text/plain")
		assert one.chat().text == "just a text"
		one.model.answer(b"\xff\xfe binary", content_type="application/json")
		assert one.chat().status == 200
		assert one.outcomes()["error"] == 1


def test_long_answers_are_not_passed_unseen(gw):
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	with guarded(gw, site=site, **answers()) as one:
		one.model.answer(b'{"choices":[{"message":{"content":"x"}}],"padding":"' + b"x" * 11000000 + b'"}')
		assert one.chat().status == 503
		assert one.guard.checks == []
		gw.feature("ai.guard.fail_mode", "open", site)
		passed = one.chat()
		assert passed.status == 200 and len(passed.body) > 11000000 and passed.body.endswith(b'x"}')
		assert one.outcomes() == {"error": 2}


def test_answers_of_long_texts_are_cut(gw):
	with guarded(gw, **answers()) as one:
		one.model.say("é" * 4000)
		assert one.chat().status == 200
		assert [len(check.content) for check in one.guard.checks] == [1800, 1800, 600]
		assert len({check.session for check in one.guard.checks}) == 1


def test_an_answer_with_a_broken_guard(gw):
	with guarded(gw, **answers()) as one:
		one.guard.break_with(plain(500))
		assert one.chat().json["choices"][0]["message"]["content"] == "Hello from the model."
		assert one.outcomes() == {"error": 1}
		site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	with guarded(gw, site=site, **answers()) as one:
		one.guard.break_with(plain(500))
		answer = one.chat()
		assert answer.status == 503 and "Hello" not in answer.text


# ---------- streams ----------


def test_ex4_windows_wait_for_their_verdicts(gw):
	text = text_of(3000)
	with guarded(gw, **answers(bufferLimit=1000)) as one:
		one.model.say(text, pieces=said_in(text).pieces)
		got = one.stream()
		assert len(one.guard.checks) == 3
		assert [check.content for check in one.guard.checks] == [text[:1000], text[900:2000], text[1900:]]
		assert len({check.session for check in one.guard.checks}) == 1
		assert got.raw == said_by("openai.chat", said_in(text))
		assert got.header("X-Guard-Status") is None
		assert one.outcomes() == {"passed": 1}
		# each window only after its verdict
		one.guard.hold()
		live = one.open()
		wait_until(lambda: len(one.guard.checks) == 4, 20, "the first check")
		assert live.next().json["choices"][0]["delta"].get("content") in ("", None)
		assert live.text == ""
		one.guard.release()
		live.rest()
		assert live.text == text


def test_ex4_one_call_at_a_time(gw):
	text = text_of(3000)
	with guarded(gw, **answers(bufferLimit=1000)) as one:
		begun, over = [], []

		def slow(check, connection):
			begun.append(time.monotonic())
			time.sleep(0.5)
			over.append(time.monotonic())
			return said(level_data("none"))

		one.guard.break_with(slow)
		one.model.say(text, pieces=said_in(text).pieces)
		got = one.open()
		times = {}
		while got.next():
			times.setdefault(len(got.text) // 1000, time.monotonic())
		assert got.raw == said_by("openai.chat", said_in(text))
		assert len(begun) == 3
		for before, after in zip(over, begun[1:]):
			assert before <= after
		# windows leave one by one, though the model said all at once
		assert times[1] >= over[0] and times[2] >= over[1] and times[3] >= over[2]
		assert times[1] < over[2]


def test_ex5_a_refused_window_ends_the_stream(gw):
	first, second = text_of(1000), "b" * 600 + "BAD" + "c" * 397
	with guarded(gw, **answers(bufferLimit=1000)) as one:
		one.guard.flag("BAD", advice="Stop here.", **HIGH)
		live = one.model.live()
		got = one.open()
		live.head().event(chunk(role="assistant", content=""))
		live.event(chunk(content=first))
		while len(got.text) < 1000:
			assert got.next()
		for at in range(0, 1000, 100):
			live.event(chunk(content=second[at:at + 100]))
		begin = time.monotonic()
		assert live.closed.wait(20)
		took = time.monotonic() - begin
		got.rest()
		assert got.text == first + "Stop here." and "BAD" not in got.raw.decode() and "bbb" not in got.raw.decode()
		check_stream_end(got.events, "Stop here.")
		assert took < 10
		assert not got.is_cut
		assert got.docs[-1]["id"] == got.docs[0]["id"]
		assert one.outcomes() == {"response_denied": 1}
		wait_until(lambda: gw.records(requestId=got.request_id), 10, "a record")


def test_ex5_the_upstream_is_closed_at_once(gw):
	with guarded(gw, **answers(bufferLimit=10)) as one:
		one.guard.flag("BAD", **HIGH)
		took = [60]
		while min(took) > 0.1 and len(took) < 20:    # a busy machine may be slow now and then
			live = one.model.live()
			got = one.open()
			live.head().event(chunk(content="some BAD words"))
			check = wait_until(lambda: [check for check in one.guard.checks if check.at > got.at], 20, "a check")[0]
			assert live.closed.wait(20)
			took.append(time.monotonic() - check.at)
			got.rest()
			check_stream_end(got.events)
		assert min(took) < 0.1, took


def test_a_first_window_that_is_refused(gw):
	with guarded(gw, **answers()) as one:
		one.guard.flag("bad", **HIGH)
		one.model.say("all of this is bad and ugly")
		got = one.stream(stream_options={"include_usage": True})
		assert got.status == 200 and got.text == SORRY and got.is_done
		assert "ugly" not in got.raw.decode()
		assert got.docs[-1]["choices"] == [] and got.docs[-1]["usage"]
		assert len(one.guard.checks) == 1


def test_what_says_nothing_passes_at_once(gw):
	with guarded(gw, **answers()) as one:
		live = one.model.live()
		got = one.open()
		live.head().event(chunk(role="assistant", content=""))
		assert got.next().json["choices"][0]["delta"]["role"] == "assistant"
		live.raw(b": a comment\n\n")
		assert got.next().comment == "a comment"
		live.event(chunk(finish="stop")).event("[DONE]").end()
		got.rest()
		assert got.is_done and one.guard.checks == []


def test_a_window_closes_after_three_seconds(gw):
	with guarded(gw, **answers(bufferLimit=1500)) as one:
		live = one.model.live()
		got = one.open()
		live.head().event(chunk(content="a few words"))
		begin = time.monotonic()
		assert event_with_text(got) == "a few words"
		took = time.monotonic() - begin
		assert 2.5 < took < 12, took
		assert one.guard.last.content == "a few words"
		live.event(chunk(content=" more")).event("[DONE]").end()
		assert event_with_text(got) == " more"
		got.rest()
		assert one.guard.last.content == "a few words more"


@pytest.mark.parametrize("how", [dict(segment=1), dict(eol="\r\n"), dict(eol="\r"), dict(final_blank=False), dict(comments=True, pings=True),
	dict(framing="close"), dict(framing="length"), dict(has_end=False), dict(usage="every")])
def test_streams_of_any_form_come_as_they_are(gw, how):
	text = text_of(120)
	with guarded(gw, **answers(bufferLimit=50)) as free, ModelServer() as model:
		plain_api = llm_api(gw, ai_service(gw, model))
		for server in (free.model, model):
			server.say(text, pieces=said_in(text, 7).pieces).manner(**how)
		assert free.stream().raw == stream(gw, plain_api.base, "Hello").raw
		assert [check.content for check in free.guard.checks] == [text[:56], text[:112], text[12:]]
		free.guard.flag(text[100], **HIGH)
		got = free.stream()
		assert text[100] not in got.raw.decode() and SORRY in got.raw.decode()


def test_a_word_in_two_events_and_across_windows(gw):
	with guarded(gw, **answers(bufferLimit=10)) as one:
		one.guard.flag("forbidden", **HIGH)
		one.model.say("", pieces=("xx for", "bid", "den yy"))
		assert one.stream().text == SORRY
		one.model.say("", pieces=("0123456 for", "bidden yy and more"))
		got = one.stream()
		assert got.text == "0123456 for" + SORRY


def test_an_event_that_is_no_json_is_read_as_text(gw):
	with guarded(gw, **answers()) as one:
		one.guard.flag("bad", **HIGH)
		one.model.stream([b"data: plain bad text\n\n", b"data: [DONE]\n\n"])
		got = one.stream()
		assert "plain" not in got.raw.decode() and SORRY in got.raw.decode()


def test_an_answer_whole_though_a_stream_was_asked_for(gw):
	with guarded(gw, **answers()) as one:
		one.guard.flag("bad", **HIGH)
		one.model.answer({"choices": [{"message": {"role": "assistant", "content": "bad"}}]})
		got = one.stream()
		assert got.header("X-Guard-Status") == "response-denied"
		assert got.header("Content-Type") == "text/event-stream" and got.text == SORRY and got.is_done


def test_streams_of_anthropic(gw):
	with guarded(gw, protocol=ANTHROPIC, provider="anthropic", **answers(bufferLimit=20)) as one:
		body = {"model": "claude-3", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
		one.model.say("twenty characters of it and then bad words", pieces=("twenty characters of it", " and then bad words"))
		passed = stream_of(gw, f"{one.base}/v1/messages", body)
		assert passed.events[-1].name == "message_stop" and len(one.guard.checks) == 2
		one.guard.flag("bad", **HIGH)
		got = stream_of(gw, f"{one.base}/v1/messages", body)
		assert got.text == "twenty characters of it" + SORRY
		names = [event.name for event in got.events if event.name != "ping"]
		assert names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"]
		assert names.count("content_block_start") == names.count("content_block_stop") == names.count("message_start") or \
			names.count("content_block_start") == names.count("content_block_stop")
		assert "and then" not in got.raw.decode()


def test_streams_of_other_apis(gw):
	with guarded(gw, **answers(bufferLimit=10)) as one:
		one.guard.flag("bad", **HIGH)
		one.model.say("0123456789 bad", pieces=("0123456789", " bad"))
		got = stream_of(gw, f"{one.base}/v1/responses", {"model": "gpt-4", "input": "hi", "stream": True})
		assert got.text == "0123456789" + SORRY and got.events[-1].name == "response.completed"
		got = stream_of(gw, f"{one.base}/v1/completions", {"model": "gpt-4", "prompt": "hi", "stream": True})
		assert got.text == "0123456789" + SORRY and got.is_done
		assert got.docs[-1]["choices"][0]["finish_reason"] == "content_filter"
	with guarded(gw, protocol=DASHSCOPE, provider="dashscope", **answers(bufferLimit=10)) as one:
		one.guard.flag("bad", **HIGH)
		one.model.say("0123456789 bad", pieces=("0123456789", " bad"))
		body = {"model": "qwen-max", "input": {"messages": [{"role": "user", "content": "hi"}]},
			"parameters": {"result_format": "message", "incremental_output": True}}
		got = stream_of(gw, f"{one.base}/api/v1/services/aigc/text-generation/generation", body, {"X-DashScope-SSE": "enable"})
		assert got.text.startswith("0123456789") and "bad" not in got.raw.decode()
		assert got.events[-1].name == "error" and got.events[-1].json["code"] == "content_filter"


def test_a_cumulative_stream_is_not_judged_again_and_again(gw):
	with guarded(gw, protocol=DASHSCOPE, provider="dashscope", **answers(bufferLimit=100)) as one:
		words = ["one ", "two ", "three ", "four "]
		events = [Event({"output": {"choices": [{"message": {"role": "assistant", "content": "".join(words[:i + 1])},
			"finish_reason": "stop" if i == 3 else "null"}]}, "usage": {}, "request_id": "r"}, name="result", id=str(i + 1)) for i in range(4)]
		one.model.stream(events)
		body = {"model": "qwen-max", "input": {"messages": [{"role": "user", "content": "hi"}]}, "parameters": {"result_format": "message"}}
		stream_of(gw, f"{one.base}/api/v1/services/aigc/text-generation/generation", body, {"X-DashScope-SSE": "enable"})
		assert "".join(check.content for check in one.guard.checks).strip() == "one two three four"


def test_a_stream_with_a_broken_guard(gw):
	text = text_of(200)
	with guarded(gw, **answers(bufferLimit=100)) as one:
		one.guard.break_with(plain(500))
		one.model.say(text, pieces=said_in(text).pieces)
		got = one.stream()
		assert got.raw == said_by("openai.chat", said_in(text))
		assert one.outcomes() == {"error": 2, "passed": 1} or one.outcomes() == {"error": 2}
		site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	with guarded(gw, site=site, **answers(bufferLimit=100)) as one:
		one.model.say(text, pieces=said_in(text).pieces)
		asked = []

		def second_fails(check, connection):
			asked.append(check)
			return plain(500) if len(asked) == 2 else said(level_data("none"))

		one.guard.break_with(second_fails)
		got = one.stream()
		assert got.text == text[:100]
		assert got.events[-1].json["error"]["type"] == "api_error"
		assert gw.wait_record(requestId=got.request_id)["flag"] == "PF"


def test_a_client_that_leaves_a_stream(gw):
	with guarded(gw, **answers(bufferLimit=10)) as one:
		one.guard.hold()
		live = one.model.live()
		got = one.open()
		live.head().event(chunk(content="more than ten characters"))
		wait_until(lambda: one.guard.checks, 20, "a check")
		got.close()
		assert live.closed.wait(20)
		wait_until(lambda: metric(gw, "sluice_side_calls_in_flight", kind="guard") == 0, 10, "the end of the call")


def test_a_model_that_breaks_off_leaves_nothing_unseen(gw):
	with guarded(gw, **answers(bufferLimit=10)) as one:
		one.guard.hold()
		one.model.say("more than ten characters", pieces=("more than ten characters",)).manner(cut_after=2)
		got = one.stream()
		assert got.is_cut and "more than" not in got.raw.decode()
		one.guard.release()
		one.model.clear()
		assert one.chat("still there").status == 200


def test_held_bytes_are_bounded(gw):
	"""A guard that does not answer stops the model from being read, whatever it has to say."""
	site = gw.gateway()
	gw.feature("ai.guard.timeout_ms", 60000, site)
	with guarded(gw, site=site, **answers(bufferLimit=100)) as one:
		one.guard.hold()
		live = one.model.live()
		got = one.open()
		live.head()
		sent, event = [0], Event(chunk(content="x" * 1000)).encode()
		block = event * 64

		def pour():
			with contextlib.suppress(OSError):
				while sent[0] < 400 and not live.over.is_set():
					live.raw(block)
					sent[0] += 1

		before = gw.rss_kb()
		pouring = threading.Thread(target=pour, daemon=True)
		pouring.start()
		last = [-1]

		def is_stuck():
			stuck, last[0] = sent[0] == last[0], sent[0]
			time.sleep(0.3)
			return stuck and sent[0] > 5

		wait_until(is_stuck, 30, "a model that is not read")
		assert sent[0] * len(block) < 15_000_000, sent
		assert gw.rss_kb() - before < 30_000
		assert len(one.guard.checks) == 1
		got.close()
		live.over.set()
		one.guard.release()
		pouring.join(30)


def test_an_event_without_end(gw):
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	long = b'data: {"choices":[{"delta":{"content":"' + b"x" * 2_000_000 + b'"}}]}\n\n'
	with guarded(gw, site=site, **answers()) as one, guarded(gw, **answers()) as free:
		for which in (one, free):
			which.model.stream([Event(chunk(content="before")), long, Event("[DONE]")])
		got = one.stream()
		assert b"xxx" not in got.raw and got.events[-1].json["error"]["type"] == "api_error"
		passed = free.stream()
		assert passed.raw.count(b"x" * 2_000_000) == 1 and passed.is_done and free.outcomes()["error"] == 1


def test_streams_over_http2(gw):
	text = text_of(500)
	with guarded(gw, **both(bufferLimit=100)) as one:
		one.model.say(text, pieces=said_in(text, 20).pieces)
		ask = ["curl", "-sS", "-N", "--http2-prior-knowledge", "-H", "Content-Type: application/json", "-H", "Host: gw.test",
			"-d", json.dumps(chat_body("good", stream=True)), f"http://127.0.0.1:{gw.port}{one.base}/v1/chat/completions"]
		assert subprocess.run(ask, capture_output=True, timeout=60).stdout == said_by("openai.chat", said_in(text, 20))
		one.guard.flag(text[250], **HIGH)
		out = subprocess.run(ask, capture_output=True, timeout=60).stdout.decode()
		assert text[199] in out and text[200] not in out and SORRY in out and out.endswith("data: [DONE]\n\n")


def test_many_streams_at_once(gw):
	text = text_of(500)
	with guarded(gw, **answers(bufferLimit=100)) as one:
		one.guard.delay = 0.02
		one.model.say(text, pieces=said_in(text, 20).pieces)
		wanted = said_by("openai.chat", said_in(text, 20))
		found = at_once(*[one.stream] * 12)
		assert all(got.raw == wanted for got in found)
		assert len(one.guard.checks) == 60


def test_a_storm_leaves_nothing_behind(gw):
	"""Clients that leave at any moment, verdicts of every kind at any time: nothing unseen gets out, and nothing stays."""
	text, draw = text_of(600), random.Random(7)
	answers_of_guard = [None, None, None, plain(500), said(HIGH), plain(200, body=b"{")]
	with guarded(gw, **both(bufferLimit=50)) as one:
		one.model.say(text, pieces=said_in(text, 15).pieces)
		lock = threading.Lock()

		def any_verdict(check, connection):
			with lock:
				answer, delay = draw.choice(answers_of_guard), draw.random() * 0.02
			time.sleep(delay)
			return answer or said(level_data("none"))

		def visit(most):
			with one.open() as got:
				while len(got.events) < most and got.next():
					pass
				return got.text.replace(SORRY, "")

		one.guard.break_with(any_verdict)
		for _ in range(5):
			for seen in at_once(*[lambda most=most: visit(most) for most in [draw.randrange(60) for _ in range(16)]]):
				assert text.startswith(seen)
		one.guard.break_with(None)
		wait_until(lambda: metric(gw, "sluice_side_calls_in_flight", kind="guard") == 0, 20, "the end of all calls")
		assert one.stream().text == text


def test_compressed_answers_are_asked_not_to_be(gw):
	with guarded(gw, **answers()) as one:
		assert one.chat(headers={"Accept-Encoding": "gzip, br"}).status == 200
		assert one.model.last.header("Accept-Encoding") == "identity"


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_compressed_answers_are_read_all_the_same(gw, coding, is_stream):
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	with guarded(gw, site=site, **answers()) as one:
		one.guard.flag("bad", **HIGH)
		one.model.say("this is bad").manner(coding=coding)
		refused = one.chat(stream=is_stream)
		assert refused.status == 200 and SORRY in refused.text and "this is" not in refused.text
		one.model.say("this is good").manner(coding=coding)
		passed = one.chat(stream=is_stream)
		assert passed.status == 200 and "good" in passed.text and passed.header("Content-Encoding") is None


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_nobody_can_decompress_is_not_passed_unseen(gw, is_stream):
	site = gw.gateway()
	gw.feature("ai.guard.fail_mode", "closed", site)
	with guarded(gw, site=site, **answers()) as one:
		one.model.say("this is bad").manner(coding="zstd")
		assert one.chat(stream=is_stream).status == 503
		assert one.guard.checks == []
	with guarded(gw, **answers()) as one:
		one.model.say("this is bad").manner(coding="zstd")
		assert one.chat(stream=is_stream).status == 200
		assert one.outcomes() == {"error": 1}


def test_nothing_is_left_of_a_model_that_says_nothing(gw):
	with guarded(gw, **both()) as one:
		one.model.always(Nothing())
		assert one.chat().status == 503
		one.model.always(Whole(b"", content_type="application/json"))
		assert one.chat().status in (200, 502)
		assert "ai_sec_request_deny" in raw_get(gw, "/metrics")[1]
