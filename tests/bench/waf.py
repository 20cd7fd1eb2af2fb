"""Waf: what others feel of it while it has more to do than it can, and what a request costs. Part "waf" of tests/bench/run.

Saturated: 64 connections send bodies of some KB, attacks among them, to a route with the Core Rule Set as fast as answers come. At the
same time a paced load asks a route without Waf, and another one a route that the worker answers itself. Rounds in turn: quiet, saturated,
quiet. Layouts: "one core" has all threads of the gateway on core 0 and the loads on core 1; "two cores" has everything on both. What is
asked from outside are delays; the turns of the loop are the gateway's own metric.

Cost: CPU of a GET, and of a POST of some KB, beyond the same without Waf; nginx with its module and the same rules likewise, on core 0.
"""
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import time
import types
from urllib.parse import quote

import peers
from backends import find_program
from peers import ROOT, sluice
from policy_kit import raw_get

LAYOUTS = {"one core": ("0", "1"), "two cores": ("0,1", "0,1")}
PACE = {"other": 1000, "own": 200}    # requests a second
WORDS = ("order invoice street number letter customer please deliver to the house behind station before noon and ring twice thanks "
	"colour size quantity price discount total summer winter blue green large small with without paper leather cotton").split()
ATTACKS = ["1' OR '1'='1", "<script>alert(1)</script>", "; cat /etc/passwd", "1 UNION SELECT password FROM users--", "../../../../etc/passwd"]


def text(chance, n):
	words = []
	while sum(map(len, words)) + len(words) < n:
		words.append(chance.choice(WORDS))
	return " ".join(words)


def request(method, path, type="", body=b""):
	head = (f"{method} {path} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n"
		"Accept-Language: en\r\nCookie: session=0123456789abcdef\r\n")
	if body:
		head += f"Content-Type: {type}\r\nContent-Length: {len(body)}\r\n"
	return head.encode() + b"\r\n" + body


def requests_of(path, attack_each=5):
	"""JSON and forms of 1 to 8 KB; each fifth is an attack."""
	chance, made = random.Random(1), []
	for i in range(40):
		fields = {f"field{n}": text(chance, 200) for n in range((5, 10, 20, 40)[i % 4])}
		if attack_each and i % attack_each == 0:
			fields["field1"] = ATTACKS[i // attack_each % len(ATTACKS)]
		if i % 2:
			body = "&".join(f"{name}={quote(value)}" for name, value in fields.items())
			made.append(request("POST", f"{path}/b/1024", "application/x-www-form-urlencoded", body.encode()))
		else:
			made.append(request("POST", f"{path}/b/1024?page={i}", "application/json", json.dumps(fields).encode()))
	return made


def write_requests(folder, name, requests):
	file = pathlib.Path(folder, name)
	file.write_bytes(b"".join(b"%d\n%s" % (len(one), one) for one in requests))
	return str(file)


def bench(port, core, *arguments):
	program = find_program("test_httpbench", ROOT / "tests/bench")
	return subprocess.Popen(["taskset", "-c", core, program, f"--port={port}", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def result_of(process):
	result = json.loads(process.communicate()[0])
	if result["errors"] or not result["requests"]:
		raise SystemExit(f"the load broke: {result}")
	return result


class Guarded:
	"""/other goes to an upstream, /own is answered by the worker, /waf is guarded and has an upstream of its own."""

	def __init__(self, cores):
		self.upstreams = [sluice.free_port(), sluice.free_port()]
		self.gw = sluice.Gateway(program=peers.PROGRAM, prefix=["taskset", "-c", cores], workers=1, access_log=False,
			requests_per_connection=0)
		service, guarded = (self.gw.service(port) for port in self.upstreams)
		self.gw.route("/other", service)
		self.gw.attach("DirectResponse", {"code": "200", "body": "own"}, to=self.gw.route("/own", service))
		self.gw.attach("Waf", {}, to=self.gw.route("/waf", guarded))
		self.port = self.gw.default.port
		self.file = write_requests(self.gw.own_folder, "requests", requests_of("/waf"))

	def saturate(self, core):
		return bench(self.port, core, f"--upstream={self.upstreams[1]}", f"--raw={self.file}", "--connections=64", "--forever")

	def turns(self):
		"""{bound in seconds: turns of the loop that were not longer}"""
		text = raw_get(self.gw, "/metrics")[1]
		return {float(bound): int(n) for bound, n in re.findall(r'sluice_loop_turn_duration_seconds_bucket{le="([^"]+)"} (\d+)', text)}

	def rules_seconds(self):
		"""CPU of the threads that run rules."""
		total = 0
		for task in pathlib.Path(f"/proc/{self.gw.process.pid}/task").iterdir():
			name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
			if name == "waf":
				fields = rest.split()
				total += int(fields[11]) + int(fields[12])
		return total / os.sysconf("SC_CLK_TCK")

	def stop(self):
		self.gw.__exit__(None)


def paced(gateway, core, seconds):
	"""Both paced loads at once."""
	loads = {name: bench(gateway.port, core, f"--path=/{name}/b/1024", "--connections=16", f"--rate={rate}", f"--seconds={seconds}",
		*([f"--upstream={gateway.upstreams[0]}"] if name == "other" else [])) for name, rate in PACE.items()}
	return {name: result_of(load) for name, load in loads.items()}


def share_of_turns(before, after, within):
	turns = {bound: after[bound] - before.get(bound, 0) for bound in after}
	return turns[within] / max(1, turns[float("inf")])


def look(gateway, core, seconds):
	turns, rules, start = gateway.turns(), gateway.rules_seconds(), time.monotonic()
	found = paced(gateway, core, seconds)
	elapsed = time.monotonic() - start
	after = gateway.turns()
	return {**found, "rules_share": (gateway.rules_seconds() - rules) / elapsed,
		"turns_1ms": share_of_turns(turns, after, 0.001), "turns_2.5ms": share_of_turns(turns, after, 0.0025)}


def measure_layout(name, options):
	gateway_cores, load_core = LAYOUTS[name]
	gateway, found = Guarded(gateway_cores), {"quiet": [], "saturated": []}
	try:
		look(gateway, load_core, 0.5)
		for _ in range(options.rounds):
			found["quiet"].append(look(gateway, load_core, options.seconds))
			load = gateway.saturate(load_core)
			found["saturated"].append(look(gateway, load_core, options.seconds))
			found["saturated"][-1]["guarded"] = result_of(load)
			found["quiet"].append(look(gateway, load_core, options.seconds))
	finally:
		gateway.stop()
	return found


def middle(rounds, *path):
	values = []
	for one in rounds:
		for name in path:
			one = one[name]
		values.append(one)
	return statistics.median(values)


def measure_neighbours(options, report, goal):
	for name in LAYOUTS:
		found = measure_layout(name, options)
		report[f"waf, {name}"] = found
		print(f"\nWaf saturated, {name}: {middle(found['saturated'], 'guarded', 'rps'):.0f} guarded requests/s, their threads "
			f"{middle(found['saturated'], 'rules_share'):.2f} of a core")
		for state, rounds in found.items():
			print(f"  {state:10}" + "".join(f"  {what}: p50 {middle(rounds, what, 'p50_us'):5.0f} p99 {middle(rounds, what, 'p99_us'):5.0f} us;"
				for what in PACE) + f"  turns of the loop within 1 ms: {middle(rounds, 'turns_1ms'):.2%}")
		for percentile in ("p50_us", "p99_us"):
			ratio = middle(found["saturated"], "other", percentile) / middle(found["quiet"], "other", percentile)
			goal(f"{percentile[:3]} of unrelated routes, Waf saturated against quiet, {name}", ratio, 1.10)
		goal(f"stall of the loop while Waf is saturated, p99 of an answer of its own, {name}",
			middle(found["saturated"], "own", "p99_us") / 1000, 2, " ms")
		goal(f"turns of the loop within 1 ms while Waf is saturated, {name}", middle(found["saturated"], "turns_1ms"), 0.99, at_least=True)


# ---- cost ----

MODULE = "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so"
RULES = """
SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess On
SecResponseBodyMimeType text/plain text/html text/xml
SecResponseBodyLimit 1048576
SecResponseBodyLimitAction ProcessPartial
SecRequestBodyLimit 13107200
SecPcreMatchLimit 100000
SecAuditEngine Off
SecRule REQUEST_HEADERS:Content-Type "^application/json" "id:1,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON"
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf
"""


class GuardedNginx(peers.Nginx):
	"""/other and /waf, as the gateway of ours has them."""

	def configuration(self):
		rules = pathlib.Path(self.folder, "rules")
		rules.write_text(RULES)
		forward = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
		return super().configuration().replace("location /r0/", f"""location /other/ {{ {forward} }}
		location /waf/ {{ {forward} modsecurity on; modsecurity_rules_file {rules}; }}
		location /r0/""", 1).replace("daemon off;", f"load_module {MODULE}; daemon off; user root;", 1)


def cpu_of(gateway, upstream, file, seconds):
	"""us of a request"""
	load = bench(gateway.port, "1", f"--upstream={upstream}", f"--raw={file}", "--connections=8", f"--seconds={seconds}",
		"--cpu=" + ",".join(map(str, gateway.pids())))
	result = result_of(load)
	if result["status"]["2xx"] != result["requests"]:
		raise SystemExit(f"not all were let pass: {result['status']}")
	return result["cpu_us"]


def measure_cost(options, report, goal):
	if not os.path.exists(MODULE):
		print("\nlibnginx-mod-http-modsecurity is not installed: nothing to compare the cost of Waf with")
		return
	gateway = Guarded("0")
	upstream = gateway.upstreams[1]
	gateway.pids = lambda: [gateway.gw.process.pid]
	kinds = {"GET": lambda path: [request("GET", f"{path}/b/1024?page=2&sort=name")], "POST": lambda path: requests_of(path, 0)}
	files = {(kind, path): write_requests(gateway.gw.own_folder, kind + path[1:], make(path)) for kind, make in kinds.items()
		for path in ("/waf", "/other")}
	cost, nginx = {}, GuardedNginx("plain", upstream, 0)
	ours = types.SimpleNamespace(name="sluice", port=gateway.port, pids=gateway.pids)
	try:
		for turn in range(options.rounds):
			for (kind, path), file in files.items():
				for one in ([ours, nginx], [nginx, ours])[turn % 2]:
					behind = gateway.upstreams[0] if one is ours and path == "/other" else upstream
					cost.setdefault((one.name, kind, path), []).append(cpu_of(one, behind, file, options.seconds))
	finally:
		nginx.stop()
		gateway.stop()
	cost = {key: statistics.median(values) for key, values in cost.items()}
	print("\nCPU that Waf adds to a request, us, and nginx with its module and the same rules:")
	for kind in kinds:
		added = {name: cost[name, kind, "/waf"] - cost[name, kind, "/other"] for name in ("sluice", "nginx")}
		print(f"  {kind:4}  sluice {added['sluice']:5.0f}  nginx {added['nginx']:5.0f}")
		goal(f"CPU that Waf adds to a {kind}, against nginx", added["sluice"] / added["nginx"], 1.0)
	report["waf-cost"] = {" ".join(key): value for key, value in cost.items()}


def measure_waf(options, report, goal):
	measure_neighbours(options, report, goal)
	measure_cost(options, report, goal)
