"""AiCache in exact mode: the examples of its contract, what makes a key, what is kept and what is given again (contract C5)."""
import json
import threading
import time

import pytest

from ai_kit import (ANTHROPIC, DASHSCOPE, ai_log, ai_route, ai_service, anthropic, at_once, chat, chat_body, completion, embeddings,
	generation, llm_api, open_chat, post, responses, stream_of)
from cache_kit import Cached, cache_config, cached, status_of, text_of
from consumer_kit import allow, bearer, consumer, key, keys
from gw import Gateway
from model_server import Events, Failure, ModelServer, Nothing, Said, Usage, Whole
from policy_kit import phase
from redis_kit import RedisServer
from wire import wait_until

NASTY = "He said \"hi\\\" %s %n %d\r\n\ndata: [DONE]\n\n{\"a\":1}</script>\té 你好 👩‍🚀 \x01"


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


# ---------- the examples of the contract ----------

def test_ex1_the_same_request_twice(gw, redis):
	with cached(gw, redis, cacheTTL=700) as one:
		one.model.say("It is four.", usage=Usage(11, 22))
		first = one.chat("What is 2+2?")
		assert (first.status, status_of(first), first.header("Age")) == (200, "miss", None)
		assert first.json["usage"]["total_tokens"] == 33
		again = one.chat("What is 2+2?")
		assert (again.status, status_of(again)) == (200, "hit")
		assert int(again.header("Age")) >= 0 and again.header("X-Cache-Similarity") is None
		assert text_of(again) == text_of(first) == "It is four."
		assert again.json["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
		assert again.json["object"] == "chat.completion" and again.json["model"] == first.json["model"]
		assert again.json["choices"][0]["finish_reason"] == "stop" and again.json["id"] != first.json["id"]
		assert one.model.hits == 1
		# Its time is over: Redis is told a shorter one.
		key, = wait_until(one.keys, 10, "an entry")
		assert 600 < redis("TTL", key) <= 700
		redis("PEXPIRE", key, 1)
		wait_until(lambda: one.keys() == [], 10, "the entry's end")
		assert status_of(one.chat("What is 2+2?")) == "miss"
		assert one.model.hits == 2
		assert one.outcomes() == {"miss": 2, "hit": 1, "stored": 2}


def test_ex1_entries_end_by_themselves(gw, redis):
	with cached(gw, redis, cacheTTL=1) as one:
		sets = redis.calls().get("set", 0)
		one.chat("Hi")
		wait_until(lambda: redis.calls().get("set", 0) > sets and one.keys() == [], 20, "the entry's end")
		assert status_of(one.chat("Hi")) == "miss" and one.model.hits == 2


def test_ex2_whole_first_then_as_a_stream(gw, redis):
	with cached(gw, redis) as one:
		one.model.say("A text of some words, for a stream.")
		whole = one.chat("Tell me.")
		events = one.stream("Tell me.")
		assert events.status == 200 and status_of(events) == "hit"
		assert events.header("Content-Type").startswith("text/event-stream")
		assert events.text == text_of(whole) and events.is_done
		assert [doc["choices"][0]["finish_reason"] for doc in events.docs][-1] == "stop"
		assert events.docs[0]["choices"][0]["delta"]["role"] == "assistant"
		assert events.usage is None
		asked = one.stream("Tell me.", stream_options={"include_usage": True})
		assert status_of(asked) == "hit" and asked.usage["total_tokens"] == 0 and asked.docs[-1]["choices"] == []
		assert one.model.hits == 1


def test_ex2_a_stream_first_then_whole(gw, redis):
	with cached(gw, redis) as one:
		one.model.say("A text of some words, from a stream.")
		events = one.stream("Tell me.")
		assert status_of(events) == "miss"
		whole = one.chat("Tell me.")
		assert status_of(whole) == "hit" and text_of(whole) == events.text == "A text of some words, from a stream."
		assert one.model.hits == 1


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"model": "gpt-4o"}, {"seed": 1}, {"max_tokens": 9}, {"top_p": 0.1},
	{"stop": ["x"]}, {"response_format": {"type": "json_object"}}, {"tools": [{"type": "function", "function": {"name": "f"}}]},
	{"tool_choice": "none"}, {"reasoning_effort": "low"}, {"n": 2}, {"anything": {"new": 1}}], ids=lambda change: next(iter(change)))
def test_ex3_what_shapes_an_answer_splits_the_key(gw, redis, change):
	with cached(gw, redis) as one:
		assert status_of(one.chat("Hi")) == "miss"
		assert status_of(one.chat("Hi", **change)) == "miss"
		assert status_of(one.chat("Hi")) == "hit"
		assert one.model.hits == 2


def test_ex3_the_system_prompt_splits_the_key(gw, redis):
	def turns(system):
		return [{"role": "system", "content": system}, {"role": "user", "content": "Hi"}]

	for strategy in ("messages", "lastQuestion", "allQuestions"):
		with cached(gw, redis, cacheKeyStrategy=strategy) as one:
			assert status_of(one.chat(turns("Be kind."))) == "miss"
			assert status_of(one.chat(turns("Be rude."))) == "miss"
			assert status_of(one.chat([{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hi"}])) in ("miss", "hit")
			assert status_of(one.chat(turns("Be kind."))) == "hit"


@pytest.mark.parametrize("passing", [{"user": "u-1"}, {"metadata": {"a": "b"}}, {"safety_identifier": "s"}], ids=lambda one: next(iter(one)))
def test_what_says_who_asks_does_not(gw, redis, passing):
	with cached(gw, redis) as one:
		assert status_of(one.chat("Hi")) == "miss"
		assert status_of(one.chat("Hi", **passing)) == "hit"


def test_order_and_numbers_of_members_do_not(gw, redis):
	with cached(gw, redis) as one:
		target = f"{one.base}/v1/chat/completions"
		assert status_of(post(gw, target, b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"temperature":1.0}')) == "miss"
		same = post(gw, target, b'{ "temperature" : 1, "messages":[{"content":"\\u0048i","role":"user"}], "model":"m" }')
		assert status_of(same) == "hit"


@pytest.mark.parametrize("other", ["hi", "Hi ", " Hi", "Hi\n"])
def test_spaces_and_case_count(gw, redis, other):
	with cached(gw, redis) as one:
		assert status_of(one.chat("Hi")) == "miss"
		assert status_of(one.chat(other)) == "miss"


def test_ex4_any_text_is_given_again_as_it_was(gw, redis):
	with cached(gw, redis) as one:
		one.model.say(NASTY)
		assert text_of(one.chat("Say it.")) == NASTY
		again = one.chat("Say it.")
		assert status_of(again) == "hit" and text_of(again) == NASTY
		events = one.stream("Say it.")
		assert status_of(events) == "hit" and events.text == NASTY and events.is_done


@pytest.mark.parametrize("how", ["tools", "length", "error", "cut", "blank", "no_end", "filter", "error_event"])
def test_ex5_what_is_not_kept(gw, redis, how):
	with cached(gw, redis) as one:
		tool = {"id": "call-1", "name": "f", "arguments": "{}"}
		is_stream = how in ("cut", "no_end", "error_event")
		if how == "tools":
			one.model.say("", tools=(tool,))
		elif how == "length":
			one.model.say("Half of a", finish="length")
		elif how == "filter":
			one.model.say("Not this", finish="content_filter")
		elif how == "blank":
			one.model.say(" \n")
		elif how == "error":
			one.model.fail(500)
		else:
			one.model.manner(**{"cut": {"cut_after": 3}, "no_end": {"has_end": False}, "error_event": {"error_after": 2}}[how])
		for _ in range(2):
			answer = one.stream("Hi") if is_stream else one.chat("Hi")
			assert status_of(answer) == "miss"
		assert one.model.hits == 2 and one.keys() == []
		assert "stored" not in one.outcomes()


def test_ex5_tools_in_a_stream_are_not_kept(gw, redis):
	with cached(gw, redis) as one:
		one.model.say("I call.", tools=({"id": "call-1", "name": "f", "arguments": "{}"},))
		one.stream("Hi")
		assert status_of(one.stream("Hi")) == "miss" and one.keys() == []


def test_ex6_bypass(gw, redis):
	with cached(gw, redis) as one:
		assert status_of(one.chat("Hi")) == "miss"
		skipped = one.chat("Hi", headers={"X-Higress-Skip-AI-Cache": "on"})
		assert status_of(skipped) == "skip" and one.model.hits == 2
		assert one.model.last.header("x-higress-skip-ai-cache") is None
		assert status_of(one.chat("Hi", headers={"x-higress-skip-ai-cache": "off"})) == "hit"
		assert status_of(one.chat("Hi", headers={"Cache-Control": "max-age=0, No-Store"})) == "skip" and one.model.hits == 3
		one.model.say("Something new.")
		renewed = one.chat("Hi", headers={"Cache-Control": "no-cache"})
		assert status_of(renewed) == "miss" and text_of(renewed) == "Something new."
		assert text_of(one.chat("Hi")) == "Something new." and one.model.hits == 4


def test_ex6_skipped_requests_are_not_kept(gw, redis):
	with cached(gw, redis) as one:
		one.chat("Hi", headers={"x-higress-skip-ai-cache": "on"})
		one.chat("Hi", headers={"Cache-Control": "no-store"})
		assert one.keys() == [] and status_of(one.chat("Hi")) == "miss"


def test_ex8_the_last_question(gw, redis):
	def turns(*before):
		return [*before, {"role": "user", "content": "And now?"}]

	earlier = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
	with cached(gw, redis, cacheKeyStrategy="lastQuestion") as one:
		assert status_of(one.chat(turns())) == "miss"
		assert status_of(one.chat(turns(*earlier))) == "hit"
	with cached(gw, redis, cacheKeyStrategy="messages") as one:
		assert status_of(one.chat(turns())) == "miss"
		assert status_of(one.chat(turns(*earlier))) == "miss"
		assert status_of(one.chat(turns(*earlier))) == "hit"


def test_all_questions(gw, redis):
	def turns(said, first="A"):
		return [{"role": "user", "content": first}, {"role": "assistant", "content": said}, {"role": "user", "content": "And now?"}]

	with cached(gw, redis, cacheKeyStrategy="allQuestions") as one:
		assert status_of(one.chat(turns("one"))) == "miss"
		assert status_of(one.chat(turns("two"))) == "hit"
		assert status_of(one.chat(turns("one", "other"))) == "miss"


def test_disabled_strategy(gw, redis):
	with cached(gw, redis, cacheKeyStrategy="disabled") as one:
		for _ in range(2):
			assert status_of(one.chat("Hi")) == "skip"
		assert one.model.hits == 2 and one.keys() == []
