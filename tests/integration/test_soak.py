# serial, seconds: 4200: an hour at full scale; it measures memory and descriptors of the release program.
"""Everything at once for a long time (R1): HTTP/1.1, HTTP/2, TLS, events and WebSockets, policies on every route. No request is lost, no stream
is cut, and neither memory nor descriptors grow."""
import contextlib
import statistics
import subprocess
import time

from backends import Backend
from gw import Gateway, free_port, numbers
from hostile import PROGRAM, bench, result
from pki import Authority
from policy_kit import concurrency, cors, headers, ip_list, op, rate
from scale import FULL, sized
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame
from wire import pattern, wait_until

SECONDS = sized("SLUICE_SOAK_SECONDS", 12.0, 3600.0)
STREAMS = 20
CONCURRENT = 8 + 2 * 4 * 10            # requests of the three loads at once


def secure_site(gw):
	pair = Authority().issue("localhost")
	made = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": f"cert-{next(numbers)}", "namespace": "default",
		"certificate": pair.cert, "privateKey": pair.key})
	return gw.gateway(protocol="HTTPS", certList=[{"secretName": made.name}])


def attach_much(gw, route):
	gw.attach("RateLimit", rate(1_000_000), to=route)
	gw.attach("HeaderModify", headers(op("Response", "Add", "X-Soak", "yes"), op("Request", "Update", "X-Asked", "soak")), to=route)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.0/24"), to=route)
	gw.attach("Cors", cors(), to=route)
	gw.attach("Timeout", {"unitNum": 30, "timeUnit": "s"}, to=route)
	gw.attach("ConcurrencyLimit", concurrency(10_000), to=route)


def h2load(url, seconds):
	return subprocess.Popen(["h2load", f"--duration={seconds:.0f}", "--clients=4", "--max-concurrent-streams=10", "--rps=50", url],
		stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def judge_h2load(process):
	text, _ = process.communicate(timeout=60)
	line = next(line for line in text.splitlines() if line.startswith("requests:"))
	assert ", 0 failed, 0 errored, 0 timeout" in line, text
	return int(line.split(" succeeded")[0].rsplit(" ", 1)[1])


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


def test_soak():
	upstream = free_port()
	with Gateway(program=PROGRAM, access_log=False, requests_per_connection=0) as gw, Backend() as backend, Scripted(echo_frames) as echo, \
			contextlib.ExitStack() as stack:
		secure = secure_site(gw)
		for site in (gw.default, secure):
			attach_much(gw, gw.route("/b", upstream, site=site))
		gw.route("/socket", echo.port)
		events = gw.route("/events", backend)
		gw.attach("HttpRewrite", {"pathType": "Prefix", "path": "/"}, to=events)
		idle = gw.descriptors()
		quick = bench(gw, upstream, SECONDS + 1, rate=1500)
		time.sleep(0.5)
		loads = [h2load(f"http://127.0.0.1:{gw.port}/b/1024", SECONDS), h2load(f"https://127.0.0.1:{secure.port}/b/1024", SECONDS)]
		streams = Streams(gw, stack)
		rows, begin = [], time.monotonic()
		while (now := time.monotonic() - begin) < SECONDS - 1:
			rows.append((now, gw.rss_kb(), gw.descriptors()))
			streams.look()
			time.sleep(min(1.0, SECONDS / 20))
		served = [judge_h2load(load) for load in loads]
		seen = result(quick)
		assert not echo.errors
		stack.close()
		wait_until(lambda: gw.descriptors() <= idle + 4, 90, f"{idle} descriptors again; there are {gw.descriptors()}")
	assert seen["errors"] == 0 and seen["status"]["2xx"] == seen["requests"] > 0, seen
	early = [row for row in rows if SECONDS / 6 < row[0] < SECONDS / 3]
	late = [row for row in rows if row[0] > SECONDS * 5 / 6]
	memory = [statistics.median(row[1] for row in part) for part in (early, late)]
	descriptors = [statistics.median(row[2] for row in part) for part in (early, late)]
	print(f"{seen['requests']} requests, {served} of HTTP/2; {memory[0] / 1024:.1f} MB, later {memory[1] / 1024:.1f}; {descriptors} descriptors")
	assert memory[1] < memory[0] * 1.02 + (0 if FULL else 4096), memory
	# Upstream connections: as many as requests ever were under way at once, however busy the machine was.
	assert descriptors[1] <= descriptors[0] + CONCURRENT, descriptors
