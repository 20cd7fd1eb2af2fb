# serial, seconds: 4500: an hour at full scale; it measures memory and descriptors of the release program.
"""Everything at once for a long time (R1): HTTP/1.1, HTTP/2, TLS, events and WebSockets, models, with policies of all 29 kinds, each of which
acts on the traffic all the time. No request is lost, no stream is cut, and neither memory nor descriptors grow."""
import contextlib
import os
import statistics
import time

from gw import free_port
from hostile import PROGRAM, bench, result
from scale import FULL, sized
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame
from soak_kit import Attaching, Everything, Visitor, judge_h2load
from wire import pattern, wait_until

SECONDS = sized("SLUICE_SOAK_SECONDS", 12.0, 3600.0)
SHARE = sized("SLUICE_SOAK_SHARE", 0.0, 0.6)    # of the most that it can; 0: some 2,000 requests a second without asking
LOG = os.environ.get("SLUICE_SOAK_LOG")         # a file for a line a minute
STREAMS = 20
CLIENTS, AT_ONCE = 4, 10                        # of each load of HTTP/2
CONCURRENT = 8 + 4 * CLIENTS * AT_ONCE          # requests of all loads at once


class Streams:
	"""Events and WebSockets that have to go on."""

	def __init__(self, gw, stack):
		self.events = [stack.enter_context(gw.connect()) for _ in range(STREAMS)]
		self.sockets = [stack.enter_context(gw.connect()) for _ in range(STREAMS)]
		for one in self.events:
			one.start("GET", "/events/slow/100000000/200")
			assert one.read_head().status == 200
		for one in self.sockets:
			one.start("GET", "/socket", UPGRADE)
			assert one.read_response().status == 101
		self.seen = [0] * STREAMS

	def look(self):
		for i, one in enumerate(self.events):
			while not one.is_closed(0) and len(one.buffer) > 0:
				assert one.buffer == pattern(self.seen[i] + len(one.buffer))[self.seen[i]:], "a byte is missing"
				self.seen[i] += len(one.buffer)
				one.buffer = b""
			assert not one.eof, "events were cut"
		for one in self.sockets:
			one.send(frame(b"still here", 1, mask=True))
			assert read_frame(one) == (1, b"still here")


class Loads:
	"""What comes all the time: httpbench, h2load over both listeners (what costs little, and the guarded routes), visitors, questions."""

	def __init__(self, site, upstream, rate):
		gw, self.rate = site.gw, rate
		plain, guarded = max(1, round(rate * 0.1 / CLIENTS)), max(1, round(min(100, rate * 0.05) / CLIENTS))
		self.quick = bench(gw, upstream, SECONDS + 1, rate=rate * 0.75)
		time.sleep(0.5)
		options = [f"--duration={SECONDS:.0f}", f"--clients={CLIENTS}"]
		self.h2 = [site.h2load(where, *options, f"--max-concurrent-streams={AT_ONCE}", f"--rps={plain}", targets=["/b/1024"])
			for where in (gw.default, site.secure)]
		self.h2 += [site.h2load(where, *options, how, f"--rps={guarded}")
			for where, how in ((gw.default, "--h1"), (site.secure, f"--max-concurrent-streams={AT_ONCE}"))]
		self.visitors = [Visitor(site.visits(), 0.03), Visitor(site.questions(), 0.2)]

	@property
	def lost(self):
		return [lost for one in self.visitors for lost in one.lost]

	def end(self):
		"""How many requests there were of each; all of them were answered as they should be."""
		counts = [one.end() for one in self.visitors]
		counts += [judge_h2load(load, 120) for load in self.h2]
		seen = result(self.quick, 120)
		assert seen["errors"] == 0 and seen["status"]["2xx"] == seen["requests"] > 0, seen
		assert not self.lost, self.lost[:5]
		return dict(zip(("visits", "questions", "h2", "h2 and TLS", "guarded h1", "guarded h2 and TLS", "h1"), [*counts, seen["requests"]]))


def most(gw, upstream):
	"""Requests a second, the program and the load sharing the machine as they will."""
	result(bench(gw, upstream, 1.0, rate=0))
	seen = result(bench(gw, upstream, 5.0, rate=0))
	return seen["requests"] / seen["seconds"]


def note(text):
	if LOG:
		with open(LOG, "a", encoding="utf-8") as log:
			log.write(f"{time.strftime('%H:%M:%S')} {text}\n")


class Watch:
	"""Memory and descriptors while the loads run, and what the policies had done half way."""

	def __init__(self, site, loads, streams):
		self.rows, self.half, begin, noted = [], None, time.monotonic(), 0
		while (now := time.monotonic() - begin) < SECONDS - 1:
			self.rows.append((now, site.gw.rss_kb(), site.gw.descriptors()))
			if now >= noted:
				note(f"{now:.0f} s: {self.rows[-1][1]} KB, {self.rows[-1][2]} descriptors, lost {len(loads.lost)}, "
					f"visits {[one.count for one in loads.visitors]}")
				noted += 60
			if self.half is None and now > SECONDS / 2:
				self.half = site.gw.outcomes()
			streams.look()
			time.sleep(min(1.0, SECONDS / 20))

	def medians(self, first, last):
		"""KB and descriptors between these parts of the time."""
		part = [row for row in self.rows if first <= row[0] / self.rows[-1][0] <= last]
		return [statistics.median(row[i] for row in part) for i in (1, 2)]


def test_soak():
	upstream = free_port()
	with Attaching(program=PROGRAM, access_log=False, requests_per_connection=0) as gw, Scripted(echo_frames) as echo, \
			contextlib.ExitStack() as around:
		site = Everything(gw, around, upstream)
		gw.route("/socket", echo.port)
		gw.attach("HttpRewrite", {"pathType": "Prefix", "path": "/"}, to=gw.route("/events", site.backend))
		site.check_all_attached()
		idle, best = gw.descriptors(), most(gw, upstream) if SHARE else 0
		loads = Loads(site, upstream, best * SHARE if SHARE else 2000)
		note(f"{loads.rate:.0f} requests a second; the most were {best:.0f}; pid {gw.process.pid}")
		with contextlib.ExitStack() as stack:
			seen = Watch(site, loads, Streams(gw, stack))
			counts = loads.end()
		assert not echo.errors
		assert not site.missing(), site.missing()
		assert not FULL or not site.missing(seen.half), "it acted in the first half alone"
		site.check_ledgers()
		site.check_all_attached()
		# Upstreams that are still there lose their idle connections after a minute.
		wait_until(lambda: gw.descriptors() <= idle + (8 if FULL else CONCURRENT), 120, f"{idle} descriptors again; there are {gw.descriptors()}")
	# Of an hour: minutes 10 to 15, and the last five.
	early, late = seen.medians(1 / 6, 1 / 4), seen.medians(11 / 12, 1)
	told = f"{counts}; {early[0] / 1024:.1f} MB, half way {seen.rows[len(seen.rows) // 2][1] / 1024:.1f}, later {late[0] / 1024:.1f}; " \
		f"{early[1]} descriptors, later {late[1]}, idle {idle}"
	print(told)
	note(told)
	assert late[0] < early[0] * 1.02 + (0 if FULL else 8192), (early, late)
	# Upstream connections: as many as requests ever were under way at once, however busy the machine was.
	assert late[1] <= early[1] + CONCURRENT, (early, late)
