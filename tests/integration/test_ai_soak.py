# serial, seconds: 1500: ten minutes at full scale; it measures memory and descriptors, of the release program too.
"""All seven policies for models at once, with real Redis and PostgreSQL, for a while: streams that end well, that clients leave, that models cut
or begin with an error, that guards refuse. Each is settled once: records, metrics and Redis say the same. Nothing of them stays behind."""
import collections
import contextlib
import itertools
import json
import random
import statistics
import subprocess
import threading
import time

import pytest
from ai_kit import asking, at_once, chat, chat_body, metric, open_chat
from ai_site import Site, check_ledgers
from backends import ROOT, find_program
from gw import PROGRAM as CHECKED
from gw import Gateway, free_port
from hostile import PROGRAM as RELEASE
from policy_kit import phase
from postgres_kit import Postgres
from redis_kit import RedisServer
from scale import FULL, sized
from wire import Closed, wait_until

MIX_SECONDS = sized("SLUICE_AI_MIX_SECONDS", 3.0, 120.0)
EVENT_SECONDS = sized("SLUICE_AI_EVENT_SECONDS", 5.0, 600.0)
EVENTS_A_MINUTE = sized("SLUICE_AI_EVENTS_A_MINUTE", 120_000, 1_000_000)
STREAMS, CLIENTS = 100, 8
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
		return answer.status == 200 and answer.is_cut == (what in ("cut", "reset"))

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
		assert not self.wrong, self.wrong[:5]

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


@pytest.mark.parametrize("program", [CHECKED, RELEASE], ids=["checked", "release"])
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


def start_events(gw, upstream, base):
	program = find_program("test_ssebench", ROOT / "tests/bench/sse")
	return subprocess.Popen([program, f"--port={gw.port}", f"--upstream={upstream}", f"--streams={STREAMS}", "--warmup=1", "--chat",
		f"--rate={EVENTS_A_MINUTE / 60 / STREAMS}", f"--seconds={EVENT_SECONDS - 1}", f"--path={base}/v1/chat/completions",
		f"--cpu={gw.process.pid}"], stdout=subprocess.PIPE, text=True)


def test_memory_is_flat_over_events_of_streams_without_end(redis, store):
	"""Streams that go on until their clients leave; every event is read, judged, counted, kept for a cache, and none is lost."""
	upstream = free_port()
	with contextlib.ExitStack() as stack:
		gw = stack.enter_context(Gateway(program=RELEASE))
		site = Site(gw, redis, store, stack, upstream)
		idle = gw.descriptors()
		load = start_events(gw, upstream, site.api.base)
		rows, begin = [], time.monotonic()
		while load.poll() is None:
			rows.append((time.monotonic() - begin, gw.rss_kb(), gw.descriptors()))
			time.sleep(min(1.0, EVENT_SECONDS / 50))
			assert time.monotonic() - begin < EVENT_SECONDS + 60
		seen = json.loads(load.communicate()[0])
		wait_until(lambda: is_quiet(gw), 60, "no request under way")
		logs = wait_until(lambda: len(gw.records()) >= STREAMS and [record["ai_log"] for record in gw.records()], 30, "all records")
		total = sum(log["total_token"] for log in logs)
		assert len(logs) == STREAMS and total > seen["received"] and len(site.guard.checks) > STREAMS
		check_ledgers(site, total)
		# Connections to the guard that nobody uses are kept for a minute.
		after = wait_until(lambda: gw.descriptors() <= idle + (24 if FULL else STREAMS + 24) and gw.descriptors(), 90, "no more descriptors")
	early, late = [statistics.median(row[1] for row in rows if first <= row[0] / rows[-1][0] <= last) for first, last in ((0.4, 0.6), (0.8, 1))]
	print(f"{seen}; {early / 1024:.1f} MB, later {late / 1024:.1f}; {idle} descriptors, then {after}")
	assert seen["errors"] == 0 and seen["received"] > 0
	assert late < early * 1.02 + (0 if FULL else 8192), rows
