"""Equal questions at a time (contract C5, CAC-10): with `ai.cache.coalesce_ms` they wait for the first of them, within bounds."""
import threading
import time

import pytest

from ai_kit import at_once
from cache_kit import Cached, cached, status_of, text_of
from gw import Gateway
from model_server import ModelServer
from redis_kit import RedisServer


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


@pytest.fixture(scope="module")
def gw():
	"""One worker: equal questions meet."""
	with Gateway(workers=1) as gateway:
		gateway.feature("ai.cache.coalesce_ms", 20000)
		yield gateway


@pytest.fixture
def one(gw, redis):
	with cached(gw, redis) as made:
		yield made


class Asking:
	"""Requests under way: `answers` when they are over."""

	def __init__(self, *calls):
		self.thread = threading.Thread(target=self.run, args=calls)
		self.answers = None
		self.thread.start()

	def run(self, *calls):
		self.answers = at_once(*calls)

	def wait(self):
		self.thread.join(60)
		assert self.answers is not None
		return self.answers



def test_cac10_equal_questions_ask_the_model_once(gw, one):
	one.model.then(slow(one.model))
	asking = Asking(*[lambda: one.chat("What?")] * 10)
	answers = asking.wait()
	assert [answer.status for answer in answers] == [200] * 10
	assert one.model.hits == 1
	assert sorted(map(status_of, answers)) == ["hit"] * 9 + ["miss"]
	assert len({text_of(answer) for answer in answers}) == 1

	assert one.outcomes() == {"hit": 9, "miss": 1, "stored": 1}


def slow(model, seconds=0.5, text="Slowly."):
	return model.saying(text, {"first_delay": seconds})


def test_cac10_others_do_not_wait(one):
	"""Another question, and a stream of the same one."""
	live = one.model.live()
	first = Asking(lambda: one.chat("What?"))
	live.asked()
	assert one.chat("Something else?").status == 200
	assert one.stream("What?").is_done
	live.head(200, "application/json")
	live.raw(b'{"id":"c","object":"chat.completion","model":"gpt-4","choices":[{"index":0,"message":{"role":"assistant","content":"Said."},'
		b'"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}')
	live.end()
	assert first.wait()[0].status == 200


@pytest.mark.parametrize("how", ["fails", "is not kept", "leaves"])
def test_cac10_who_waited_for_nothing_asks_for_itself(gw, one, how):
	live = one.model.live()
	leader = open_chat_whole(gw, one)
	live.asked()
	followers = Asking(*[lambda: one.chat("What?")] * 3)
	time.sleep(0.3)    # they wait; that is no state that shows
	assert one.model.hits == 1
	if how == "leaves":
		leader.close()
	elif how == "fails":
		live.head(503, "application/json").raw(b"{}")
		live.end()
	else:
		live.head(200, "application/json")
		live.raw(b'{"id":"c","object":"chat.completion","model":"gpt-4","choices":[{"index":0,"message":{"role":"assistant","content":"Cut."},'
			b'"finish_reason":"length"}]}')
		live.end()
	answers = followers.wait()
	assert [answer.status for answer in answers] == [200] * 3 and all(text_of(answer) == "Hello from the model." for answer in answers)
	assert 2 <= one.model.hits <= 4
	leader.close()


def open_chat_whole(gw, one):
	"""The first request, whose answer nobody reads yet."""
	connection = gw.connect()
	connection.start("POST", f"{one.base}/v1/chat/completions", {"Content-Type": "application/json"},
		b'{"model": "gpt-4", "messages": [{"role": "user", "content": "What?"}]}')
	return connection


def test_cac10_nobody_waits_longer_than_the_limit(redis):
	with Gateway(workers=1) as gw, ModelServer() as model:
		gw.feature("ai.cache.coalesce_ms", 200)
		one = Cached(gw, redis, model)
		live = model.live()
		leader = open_chat_whole(gw, one)
		live.asked()
		start = time.monotonic()
		answer = one.chat("What?")
		assert answer.status == 200 and status_of(answer) == "miss" and time.monotonic() - start >= 0.2
		assert model.hits == 2
		leader.close()


def test_cac10_followers_may_leave(gw, one):
	live = one.model.live()
	leader = open_chat_whole(gw, one)
	live.asked()
	for _ in range(5):
		open_chat_whole(gw, one).close()
	live.head(200, "application/json")
	live.raw(b'{"id":"c","object":"chat.completion","model":"gpt-4","choices":[{"index":0,"message":{"role":"assistant","content":"Said."},'
		b'"finish_reason":"stop"}]}')
	live.end()
	assert leader.read_response().status == 200
	assert status_of(one.chat("What?")) == "hit" and one.model.hits == 1
	leader.close()


def test_cac10_each_asks_for_itself_unless_it_is_set(redis):
	with Gateway(workers=1) as gw, ModelServer() as model:
		one = Cached(gw, redis, model)
		model.always(slow(model, 0.3))
		answers = at_once(*[lambda: one.chat("What?")] * 4)
		assert [answer.status for answer in answers] == [200] * 4 and model.hits == 4
