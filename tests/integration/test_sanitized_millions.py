# serial, seconds: 30000: ten million requests at full scale.
"""Many requests of all kinds under the address, leak and undefined-behaviour sanitizers (R2): HTTP/1.1 kept, closed, pipelined, chunked both
ways, in pieces; HTTP/2; TLS; refusals, failing upstreams, broken messages of every vector; all kinds of policies act. No sanitizer reports
anything, nothing is lost, and the program ends well, without a leak."""
import collections
import contextlib
import os
import pathlib
import tempfile
import time

import mix_kit
from gw import COMPLAINTS, PROGRAM, numbers
from scale import FULL, sized
from soak_kit import Attaching, Everything, Visitor, judge_h2load
from wire import wait_until

REQUESTS = sized("SLUICE_MILLIONS_REQUESTS", 12_000, 10_000_000)
SECONDS = sized("SLUICE_MILLIONS_SECONDS", 120, 28_000)    # no further round after these
LOG = os.environ.get("SLUICE_MILLIONS_LOG")
ROUND = max(REQUESTS // 200, min(REQUESTS, 12_000))
PATIENCE = 3600 if FULL else 300           # seconds for one round


class Reports:
	"""Files that sanitizers write to: `environment` of the program. find(): the first report, or none."""

	def __init__(self, folder):
		self.folder = pathlib.Path(folder)
		common = f"log_path={folder}/report"
		self.environment = {
			"ASAN_OPTIONS": f"detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:{common}",
			"UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:{common}", "LSAN_OPTIONS": common,
			"TSAN_OPTIONS": f"halt_on_error=1:second_deadlock_stack=1:{common}"}

	@contextlib.contextmanager
	def first(self, gw):
		"""What a sanitizer wrote is told before whatever else failed because of it."""
		try:
			yield
		except Exception:
			found = self.find() or COMPLAINTS.search(gw.stderr().encode())
			assert not found, found if isinstance(found, str) else gw.stderr()[max(0, found.start() - 200):][:8000]
			raise

	def find(self):
		texts = [path.read_text("utf-8", "replace") for path in sorted(self.folder.iterdir())]
		return next((text[:8000] for text in texts if text), None)


def write_kinds(site, folder):
	kinds = mix_kit.Kinds(site.fields)
	mix_kit.add_good(kinds, [target.replace("/b/1024", "/b/size/10") for target in site.targets])
	mix_kit.add_refused(kinds, site.has_waf)
	mix_kit.add_vectors(kinds)
	mix_kit.add_frames(kinds)
	return kinds.write(os.path.join(folder, "kinds"))


def run_round(site, kinds, count):
	"""So many requests: six of ten of the mix, the others by h2load over HTTP/2, HTTP/1.1 and TLS."""
	share, guarded = count // 10, [target for target in site.targets if not target.startswith("/waf")]
	mixed = mix_kit.start(site.gw.port, count - 4 * share, kinds, seed=next(numbers))
	plain = ["/b/size/1024", "/b/chunked/3000", "/b/size/0", "/b/size/40000"]
	ways = [(site.gw.default, ["--clients=3", "--max-concurrent-streams=8"], plain), (site.secure, ["--clients=3", "--max-concurrent-streams=8"], plain),
		(site.secure, ["--clients=4", "--h1"], plain), (site.secure, ["--clients=2", "--max-concurrent-streams=4"], guarded)]
	loads = [site.h2load(where, f"--requests={share}", *how, targets=targets) for where, how, targets in ways]
	told = mix_kit.judge(mixed, PATIENCE)
	return told, told["requests"] + sum(judge_h2load(load, PATIENCE) for load in loads)


def note(text):
	if LOG:
		with open(LOG, "a", encoding="utf-8") as log:
			log.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def test_no_sanitizer_reports_anything():
	assert not FULL or all(word in pathlib.Path(PROGRAM).read_bytes() for word in (b"__asan_report", b"__ubsan_handle")), PROGRAM
	begin, done, statuses, kinds_sent = time.monotonic(), 0, collections.Counter(), collections.Counter()
	with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as reports_folder:
		reports = Reports(reports_folder)
		with Attaching(program=PROGRAM, environment=reports.environment, access_log=False, drain_timeout_ms=20000) as gw, \
				reports.first(gw), contextlib.ExitStack() as stack:
			site = Everything(gw, stack)
			gw.route("/plain", site.backend)
			gw.route("/", site.backend, domains=[gw.domain("a.test")])
			site.check_all_attached()
			kinds = write_kinds(site, folder)
			visitors = [Visitor(site.visits(), 0.1), Visitor(site.questions(), 0.3)]
			while done < REQUESTS and time.monotonic() - begin < SECONDS:
				told, count = run_round(site, kinds, min(ROUND, REQUESTS - done))
				done += count
				statuses.update(told["status"])
				kinds_sent.update(told["kinds"])
				assert gw.process.poll() is None and not reports.find(), (gw.process.poll(), reports.find())
				note(f"{done} requests, {time.monotonic() - begin:.0f} s, {gw.rss_kb()} KB, reports: none")
			wait_until(lambda: not site.missing(), 120, f"all kinds acting; {site.missing()}")
			visited = [visitor.end() for visitor in visitors]
			lost = [one for visitor in visitors for one in visitor.lost]
			assert not lost, lost[:5]
			gw.stop(seconds=120)    # ends with 0: the leak check is part of it
		found = reports.find()
	told = f"{done} requests of {sum(1 for n in kinds_sent.values() if n)} kinds and {visited} visits in {time.monotonic() - begin:.0f} s, " \
		f"of the mix {dict(statuses)}"
	print(told)
	note(f"{told}; reports: {found or 'none'}; ended with 0")
	assert not found, found
	assert done >= REQUESTS or time.monotonic() - begin >= SECONDS
