# serial, seconds: 1500: ten minutes at full scale; it measures memory and descriptors, of the release program too.
"""All seven policies for models at once, with real Redis and PostgreSQL, for a while: streams that end well, that clients leave, that models cut
or begin with an error, that guards refuse. Each is settled once: records, metrics and Redis say the same. Nothing of them stays behind."""
import collections
import contextlib
import itertools
import random
import statistics
import threading
import time

import pytest
from ai_kit import Event, asking, at_once, chat, chat_body, metric, open_chat
from ai_site import Site, check_ledgers
from gw import PROGRAM as CHECKED
from gw import Gateway
from model_server import Events
from hostile import PROGRAM as RELEASE
from policy_kit import phase
from postgres_kit import Postgres
from redis_kit import RedisServer
from scale import FULL, sized
from wire import Closed, wait_until

MIX_SECONDS = sized("SLUICE_AI_MIX_SECONDS", 3.0, 120.0)
EVENT_SECONDS = sized("SLUICE_AI_EVENT_SECONDS", 5.0, 600.0)
EVENTS_A_MINUTE = sized("SLUICE_AI_EVENTS_A_MINUTE", 300_000, 1_000_000)
EVENTS, STREAMS, CLIENTS = 1000, 16, 8    # events of a stream
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look_up", "delete_all")]


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


@pytest.fixture(scope="module")
def store():
	with Postgres() as server:
		yield server


class Mix:
	"""Clients that ask for one thing after the other. `asked`: {request id: what}."""
	WHAT = ("plain", "plain", "again", "leave", "cut", "reset", "errs", "breaks", "fails", "absent", "null", "zipped", "bytes", "taints",
		"forbidden", "gone", "whole", "whole-fails")

	def __init__(self, site):
		self.site, self.gw, self.base = site, site.gw, site.api.base
		self.asked, self.wrong, self.served, self.numbers = {}, [], collections.Counter(), itertools.count()

	def ask(self, what):
		n = next(self.numbers)
		do = what.removeprefix("whole-") if what != "whole" else "plain"
		text = f"do:{do} question {0 if what == 'again' else n}, {'forbidden' if what == 'forbidden' else 'allowed'}"
		if what == "gone":
			return self.go_at_once(text)
		if what.startswith("whole"):
			answer = chat(self.gw, self.base, text, tools=TOOLS)
			self.asked[answer.request_id] = what
			return answer.status == 200
		answer = open_chat(self.gw, self.base, text, tools=TOOLS)
		self.asked[answer.request_id] = what
		if what == "leave":
			for _ in range(n % 5):
				answer.next()
			answer.close()
			return True
		answer.rest()
		if what == "reset":    # what was not read yet is lost with it, and nothing may be left but a failure
			return answer.status in (200, 502)
		return answer.status == 200 and answer.is_cut == (what == "cut")

	def go_at_once(self, text):
		data, fields = asking(chat_body(text, stream=True), {})
		self.asked[fields["X-Request-Id"]] = "gone"
		with self.gw.connect() as connection:
			connection.start("POST", f"{self.base}/v1/chat/completions", fields, data)
			time.sleep(random.random() * 0.05)    # somewhere between the side calls and the answer
		return True

	def run(self, seconds):
		over = threading.Event()
		threads = [threading.Thread(target=self.work, args=(over, i), daemon=True) for i in range(CLIENTS)]
		for thread in threads:
			thread.start()
		over.wait(seconds)
		over.set()
		for thread in threads:
			thread.join(120)
			assert not thread.is_alive()

	def work(self, over, i):
		while not over.is_set():
			what = self.WHAT[i % len(self.WHAT)]
			i += 5    # no divisor of how many there are: each client does everything
			try:
				if not self.ask(what):
					self.wrong.append(what)
			except (AssertionError, Closed, OSError) as error:
				self.wrong.append((what, repr(error)))
			self.served[what] += 1

	def records(self):
		"""Of all that was asked, by request; those of who left at once may be missing where nothing was read yet."""
		def find():
			found = collections.defaultdict(list)
			for record in self.gw.log():
				if record.get("requestId") in self.asked and "status" in record:
					found[record["requestId"]].append(record)
			missing = [what for one, what in self.asked.items() if one not in found and what != "gone"]
			return None if missing else found
		return wait_until(find, 60, "a record of each request")


def check_all_settled(site, mix):
	"""Once each, and the three ledgers say the same."""
	gw, found = site.gw, mix.records()
	assert all(len(records) == 1 for records in found.values()), "a request has one record"
	logs = {one: records[0].get("ai_log") for one, records in found.items()}
	without = [mix.asked[one] for one, log in logs.items() if log is None or "total_token" not in log]
	assert not without, collections.Counter(without)
	total = sum(log["total_token"] for log in logs.values())
	assert total > 0
	check_ledgers(site, total)
	seen = {what: collections.Counter((logs[one]["total_token"], logs[one].get("cache_status")) for one, asked in mix.asked.items()
		if asked == what and one in logs) for what in set(mix.WHAT)}
	for what in ("plain", "whole", "zipped", "bytes", "errs", "fails"):
		assert all(tokens > 0 for tokens, cached in seen[what] if cached != "hit"), (what, seen[what])
	assert all(tokens == 0 for tokens, _ in seen["forbidden"]), seen["forbidden"]
	assert any(cached == "hit" and tokens == 0 for tokens, cached in seen["again"]), seen["again"]
	return total


def is_quiet(gw):
	return metric(gw, "sluice_exchanges_active") == 0


@pytest.mark.parametrize("program", [CHECKED, RELEASE][:1 + FULL], ids=["checked", "release"][:1 + FULL])
def test_a_mix_of_everything_is_settled_once_and_leaves_nothing(redis, store, program):
	with contextlib.ExitStack() as stack:
		gw = stack.enter_context(Gateway(program=program, drain_timeout_ms=20000))
		site = Site(gw, redis, store, stack)
		mix = Mix(site)
		assert mix.ask("again") and mix.ask("again")
		at_once(*[lambda: mix.ask("plain")] * CLIENTS)    # connections and pools are there
		idle, rows = gw.descriptors(), []
		for _ in range(3):
			mix.run(MIX_SECONDS / 3)
			assert not mix.wrong, mix.wrong[:5]
			wait_until(lambda: is_quiet(gw), 60, "no request under way")
			rows.append((len(mix.asked), gw.rss_kb(), gw.descriptors(), site.redis_connections(), site.postgres_connections()))
		total = check_all_settled(site, mix)
		print(f"{len(mix.asked)} requests, {total} tokens; {dict(mix.served)}; requests, KB, descriptors, connections of Redis and "
			f"PostgreSQL: {rows}")
		assert phase(gw, site.cache) == phase(gw, site.limit) == "Active"
		assert max(row[3] for row in rows) <= 2 and max(row[4] for row in rows) <= 16, rows    # two workers
		assert rows[-1][2] <= max(idle, rows[0][2]) + 16, (idle, rows)    # idle connections to the servers of this test
		if program == RELEASE:
			assert rows[-1][1] < rows[0][1] * 1.05 + 8192, rows
		gw.stop(seconds=60)
		wait_until(lambda: site.redis_connections() == 0 and site.postgres_connections() == 0, 20, "no connection left")


def test_a_mix_while_policies_come_and_go(redis, store):
	"""Whatever acted on a request: one record, and the ledgers agree."""
	with contextlib.ExitStack() as stack:
		gw = stack.enter_context(Gateway(drain_timeout_ms=20000))
		site = Site(gw, redis, store, stack)
		mix, over = Mix(site), threading.Event()

		def change():
			for name in itertools.cycle(site.attached):
				if over.is_set():
					return
				site.attach_again(name)

		changer = threading.Thread(target=change, daemon=True)
		changer.start()
		mix.run(MIX_SECONDS)
		over.set()
		changer.join(60)
		# Without AiFallback a failure is the client's; nothing else differs.
		assert {what for what in mix.wrong if what not in ("fails", "whole-fails")} == set(), mix.wrong[:5]
		wait_until(lambda: is_quiet(gw), 60, "no request under way")
		logs = [records[0]["ai_log"] for records in mix.records().values() if len(records) == 1 and "ai_log" in records[0]]
		gone = sum(what == "gone" for what in mix.asked.values())
		assert len(mix.asked) - gone <= len(logs) <= len(mix.asked)
		check_ledgers(site, sum(log["total_token"] for log in logs))


class Steady:
	"""Clients that read one long answer after the other, so many events a minute in all. `events`: those that arrived."""

	def __init__(self, site):
		self.site, self.over, self.lock = site, threading.Event(), threading.Lock()
		self.asked, self.events, self.wrong, self.begin = 0, 0, [], time.monotonic()
		self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(STREAMS)]
		for thread in self.threads:
			thread.start()

	def work(self):
		while not self.over.is_set():
			with self.lock:
				n, self.asked = self.asked, self.asked + 1
			self.over.wait(max(0, self.begin + n * EVENTS * 60 / EVENTS_A_MINUTE - time.monotonic()))
			answer = open_chat(self.site.gw, self.site.base, f"question {n}")
			while answer.read_piece():
				pass
			answer.close()
			found = answer.raw.count(b"data: {")
			with self.lock:
				self.events += found
				if found != EVENTS or not answer.raw.endswith(b"data: [DONE]\n\n"):
					self.wrong.append((answer.status, found, answer.raw[-200:]))

	def end(self):
		self.over.set()
		for thread in self.threads:
			thread.join(120)
			assert not thread.is_alive()
		assert not self.wrong, self.wrong[:3]


def long_answer():
	"""EVENTS events that clients see, in a few pieces, and the chunk of usage that only the gateway asked for."""
	chunks = [Event({"id": "c", "object": "chat.completion.chunk", "model": "gpt-4",
		"choices": [{"index": 0, "delta": {"content": f"word{i} "}, "finish_reason": None}]}).encode() for i in range(EVENTS)]
	usage = Event({"id": "c", "object": "chat.completion.chunk", "model": "gpt-4", "choices": [],
		"usage": {"prompt_tokens": 10, "completion_tokens": EVENTS, "total_tokens": EVENTS + 10}}).encode()
	return Events([b"".join(chunks[at:at + 100]) for at in range(0, EVENTS, 100)] + [usage, Event("[DONE]")])


def test_memory_is_flat_over_many_events(redis, store):
	"""Every event is read, judged, counted and kept for the cache; none is lost."""
	with contextlib.ExitStack() as stack:
		gw = stack.enter_context(Gateway(program=RELEASE))
		site = Site(gw, redis, store, stack)
		site.first.always(long_answer())
		steady, rows = Steady(site), []
		while (now := time.monotonic() - steady.begin) < EVENT_SECONDS:
			rows.append((now / EVENT_SECONDS, gw.rss_kb(), gw.descriptors()))
			time.sleep(min(1.0, EVENT_SECONDS / 50))    # sampling, not waiting
		steady.end()
		seconds = time.monotonic() - steady.begin
		wait_until(lambda: is_quiet(gw), 60, "no request under way")
		assert steady.events == steady.asked * EVENTS
		check_ledgers(site, steady.asked * (EVENTS + 10))
		assert len(site.guard.checks) > 3 * steady.asked and len(site.engine.asked) == len(site.first.requests) == steady.asked
	early, late = [[statistics.median(row[i] for row in rows if first <= row[0] <= last) for i in (1, 2)] for first, last in ((0.2, 0.5), (0.7, 1))]
	print(f"{steady.events} events, {steady.events / seconds * 60:.0f} a minute; {early[0] / 1024:.1f} MB, later {late[0] / 1024:.1f}; "
		f"{early[1]} descriptors, later {late[1]}")
	assert late[0] < early[0] * 1.02 + (1024 if FULL else 8192), rows[::10]
	assert late[1] <= early[1] + 24, rows[::10]
