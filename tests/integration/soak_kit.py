"""A site with every kind of policy, traffic on which each of them acts, and the proof by the gateway's metrics that it did.

    with Attaching(program=PROGRAM) as gw, contextlib.ExitStack() as stack:
        site = Everything(gw, stack)
        loads = site.loads(seconds)                  # h2load over the guarded routes of both listeners
        visitors = [Visitor(site.visits(), 0.05), Visitor(site.questions(), 0.2)]
        ...
        site.check_all_acted()
"""
import ctypes
import itertools
import os
import re
import subprocess
import threading
import time

from ai_kit import chat, open_chat
from ai_site import Site
from backends import Backend
from consumer_kit import allow, consumer, keys
from consumer_kit import bearer as key_field
from consumer_kit import key as new_key
from gw import Gateway, Resource, free_port, numbers
from oidc_kit import App, Provider
from pki import Authority
from policy_kit import breaker, concurrency, cors, direct, headers, ip_list, op, preflight, rate, raw_get
from postgres_kit import Postgres
from redis_kit import RedisServer
from tls_backends import Nginx
from tokens import good, jwt_auth, key

# What each kind has to have done, by the outcomes it counts.
ACTED = {
	"RateLimit": ("admitted", "refused"), "ConcurrencyLimit": ("admitted",), "CircuitBreaker": ("admitted", "opened", "refused"),
	"Timeout": ("expired",), "Retry": ("failed", "exhausted"), "HttpRewrite": ("rewritten",), "HeaderModify": ("applied",),
	"Redirect": ("redirected",), "DirectResponse": ("answered",), "Fallback": ("turned",), "DynamicRoute": ("lane", "baseline"),
	"AiStatistics": ("recorded",), "AiSecurityGuard": ("passed", "request_denied"), "AiFallback": ("primary", "fallback"),
	"AiTokenRateLimit": ("admitted",), "AiCache": ("hit", "miss", "stored"), "AiNetworkSearch": ("searched",), "AiToolSelection": ("filtered",),
	"Authentication": ("passed", "unauthenticated"), "JWTAuth": ("passed", "missing"), "OIDCAuth": ("passed", "login"),
	"ExternalZAuth": ("passed", "refused"), "Waf": ("passed", "blocked"), "IpAccessControl": ("admitted", "denied"),
	"Cors": ("allowed", "preflight_allowed"), "FlowCopy": ("copied",), "ServiceTls": ("secured",), "ServiceLb": ("chosen",),
	"ServicePortTls": ("secured",),
}
TAG = "lane-v2"
LANE = {"swimmingLaneGroupId": 1001, "swimmingLaneId": 2001, "canaryModel": 0, "swimmingLaneTag": TAG, "matchCondition": "And", "enable": True,
	"predicates": [{"type": "Header", "name": "x-env", "condition": "==", "value": "test"}]}
ORIGIN = {"Origin": "https://example.com"}
AGENT = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0", "Accept": "*/*"}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look_up", "delete_all")]
FOREVER = 10 * 86400


def has_waf(program):
	"""The library is not instrumented for threads: its own synchronisation would not be seen."""
	try:
		ctypes.CDLL("libmodsecurity.so.3")
	except OSError:
		return False
	return "tsan" not in program and os.path.exists("/usr/share/modsecurity-crs/owasp-crs.load")


class Attaching(Gateway):
	"""A gateway that remembers what was attached: {class: [attachment]}."""

	def __init__(self, **settings):
		self.attached = {}
		super().__init__(**settings)

	def attach(self, class_name, config, to, **more):
		made = super().attach(class_name, config, to, **more)
		self.attached.setdefault(class_name, []).append(made)
		return made

	def outcomes(self):
		"""{class: {outcome: count}}, all its attachments together."""
		classes = {one.id: name for name, listed in self.attached.items() for one in listed}
		found = {name: {} for name in self.attached}
		for line in raw_get(self, "/metrics")[1].split("\n"):
			if line.startswith("sluice_policy_outcomes_total{"):
				name = classes.get(re.search(r'attachment="([^"]*)"', line).group(1))
				outcome = re.search(r'outcome="([^"]*)"', line).group(1)
				if name:
					found[name][outcome] = found[name].get(outcome, 0) + int(float(line.rsplit(" ", 1)[1]))
		return found


def secure_site(gw):
	pair = Authority().issue("localhost")
	made = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": f"cert-{next(numbers)}", "namespace": "default",
		"certificate": pair.cert, "privateKey": pair.key})
	return gw.gateway(protocol="HTTPS", certList=[{"secretName": made.name}])


class Everything:
	"""`secure`: the HTTPS gateway beside gw.default. `upstream`: the port of a load program that is the upstream of /b as well."""

	def __init__(self, gw, stack, upstream=None):
		self.gw, self.stack, self.enter = gw, stack, stack.enter_context
		self.backend = self.enter(Backend(4))
		self.secure = secure_site(gw)
		self.has_waf = has_waf(gw.program)
		self.ca = Authority()
		self.nginx = self.enter(Nginx({"good": {"pair": self.ca.issue("gw.test"), "more": "keepalive_requests 200;"},
			"ported": {"pair": self.ca.issue("gw.test"), "more": "keepalive_requests 200;"}}))
		self.key, self.token = new_key(), key().sign(good(exp=int(time.time()) + FOREVER))
		self.caller = consumer(gw, apiKey=keys(self.key))
		for site in (gw.default, self.secure):
			self.plain(site, upstream or self.backend)
			self.guards(site)
		self.turned(gw.default)
		self.provider = self.enter(Provider())
		self.app = App(gw, self.backend, self.provider)
		self.browser, self.logins = self.app.browser(), 0
		self.ai = Site(gw, self.enter(RedisServer()), self.enter(Postgres()), stack)

	# ---- what is attached ----

	def plain(self, site, upstream):
		"""/b: what costs little, on each request of the large loads."""
		gw, service = self.gw, self.gw.service(upstream, site)
		route = gw.route("/b", service, site=site)
		gw.attach("RateLimit", rate(100_000_000), to=route)
		gw.attach("HeaderModify", headers(op("Response", "Add", "X-Soak", "yes"), op("Request", "Update", "X-Asked", "soak")), to=route)
		gw.attach("IpAccessControl", ip_list("Black", "192.0.2.0/24"), to=route)
		gw.attach("Cors", cors(), to=route)
		gw.attach("Timeout", {"unitNum": 30, "timeUnit": "s"}, to=route)
		gw.attach("Retry", {"attempts": 2, "retryOn": ["reset", "connect-failure"], "httpCodes": [], "perTryTimeout": 0}, to=route)
		gw.attach("ConcurrencyLimit", concurrency(10_000), to=route)
		gw.attach("HttpRewrite", {"pathType": "Prefix", "path": "/x/b"}, to=route)
		gw.attach("CircuitBreaker", breaker(minRequestAmount=100_000), to=service)
		gw.attach("ServiceLb", {"loadBalancerType": "ROUND_ROBIN"}, to=service)
		gw.attach("DynamicRoute", {"dynamicRouteSwimmingLaneConfigs": [LANE]}, to=site)

	def guards(self, site):
		"""Routes with one policy each, which loads pass with the header fields of `fields`."""
		gw, backend = self.gw, self.backend
		known = gw.route("/key", backend, site=site)
		gw.attach("Authentication", {"authenticationType": "key-auth"}, to=known)
		allow(gw, self.caller, known)
		gw.attach("JWTAuth", jwt_auth(key(), tokenName="X-Token", tokenNamePrefix=""), to=gw.route("/jwt", backend, site=site))
		if self.has_waf:
			gw.attach("Waf", {}, to=gw.route("/waf", backend, site=site))
		gw.attach("ExternalZAuth", {"authServiceUrl": f"http://{backend.addresses[1]}/status/200", "timeout": 10000},
			to=gw.route("/ext", backend, site=site))
		copies = gw.service(backend.addresses[2], site=site)
		gw.attach("FlowCopy", {"targetServiceId": copies.id, "percentage": 50}, to=gw.route("/copy", backend, site=site))
		gw.route("/lane", gw.service([backend.peers[0], {"address": backend.peers[1], "labels": {"alicloud.service.tag": TAG}}], site=site), site=site)
		dead, spare = gw.service([f"127.0.0.1:{free_port()}"], site=site), gw.service(backend.addresses[3], site=site)
		gw.attach("Fallback", {"fallBackDestination": [{"serviceId": spare.id}]}, to=gw.route("/dead", dead, site=site))
		gw.attach("Redirect", {"code": "301", "host": "new.test", "path": "/new"}, to=gw.route("/moved", backend, site=site))
		gw.attach("DirectResponse", direct(), to=gw.route("/direct", backend, site=site))
		self.encrypted(site)

	def encrypted(self, site):
		"""Services with TLS, by a policy of the service and by one of its port."""
		gw, config = self.gw, {"mode": "SIMPLE", "caCertContent": self.ca.cert, "sni": "gw.test"}
		service = gw.service(self.nginx.ports["good"], site=site)
		gw.attach("ServiceTls", config, to=service)
		gw.route("/tls", service, site=site)
		service = gw.service(self.nginx.ports["ported"], site=site)
		items = gw.ask("GET", f"{service.path}/ports?pageSize=100")["items"]
		port = items[0]["servicePortId"]
		gw.attach("ServicePortTls", config, to=Resource("ServicePort", port, f"{service.path}/ports/{port}", gateway=site.id, environment=None))
		gw.route("/port", service, site=site)

	def turned(self, site):
		"""Routes where the policy says no, or the upstream does; only visits() goes there."""
		gw, backend = self.gw, self.backend
		gw.attach("RateLimit", rate(3), to=gw.route("/few", backend, site=site))
		gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1"), to=gw.route("/listed", backend, site=site))
		gw.attach("Timeout", {"unitNum": 0.1, "timeUnit": "s"}, to=gw.route("/late", backend, site=site))
		gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx"], "httpCodes": [], "perTryTimeout": 0}, to=gw.route("/again", backend, site=site))
		gw.attach("CircuitBreaker", breaker(minRequestAmount=5, statDurationSec=5), to=gw.route("/broken", backend, site=site))
		gw.attach("ExternalZAuth", {"authServiceUrl": f"http://{backend.addresses[1]}/status/401", "timeout": 10000},
			to=gw.route("/never", backend, site=site))

	# ---- traffic ----

	@property
	def fields(self):
		return {**AGENT, **ORIGIN, **key_field(self.key), "X-Token": self.token}

	@property
	def targets(self):
		"""What the loads ask for in turn; all of it is answered with 2xx or 3xx."""
		made = ["/b/1024", "/key/size/100", "/jwt/chunked/5000", "/ext/size/10", "/copy/size/2000", "/lane/size/300", "/dead/size/1000", "/moved",
			"/direct", "/tls", "/port"]
		return made + ["/waf/size/700"] * self.has_waf

	def h2load(self, site, *options, targets=None, fields=None):
		"""Starts it on these targets in turn. `options`: how, how many, how fast."""
		base = f"{'https' if site is self.secure else 'http'}://127.0.0.1:{site.port}"
		lines = [f"--header={name}: {value}" for name, value in (fields or self.fields).items()]
		return subprocess.Popen(["h2load", *options, *lines, *(base + target for target in targets or self.targets)],
			stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

	def visits(self):
		"""(what, call) without end: a call returns whether the answer was as it should be."""
		gw = self.gw

		def status(path, *wanted, fields=(), **options):
			return lambda: gw.get(path, fields, **options).status in wanted
		listed = [
			("few", status("/few/size/1", 200, 429)), ("few", status("/few/size/1", 200, 429)), ("few", status("/few/size/1", 200, 429)),
			("few", status("/few/size/1", 200, 429)), ("few", status("/few/size/1", 200, 429)),
			("listed", status("/listed/size/1", 403)), ("late", status("/late/hang", 504)), ("again", status("/again/status/503", 503)),
			("broken", status("/broken/status/500", 500, 503)), ("never", status("/never/size/1", 401)),
			("no key", status("/key/size/1", 401)), ("no token", status("/jwt/size/1", 401)),
			("lane", lambda: gw.get("/lane/echo", {"X-Env": "test"}).json["address"] == self.backend.peers[1]),
			("no lane", lambda: gw.get("/lane/echo").json["address"] == self.backend.peers[0]),
			("preflight", lambda: preflight(gw, "/b/1").header("Access-Control-Allow-Origin") == ORIGIN["Origin"]),
			("stranger", lambda: gw.get("/b/1", {"Origin": "https://evil.test"}).header("Access-Control-Allow-Origin") is None),
			("body", lambda: gw.request("POST", "/b/1", body=[b"abc"] * 100, chunked=True).status == 200),
			("page", self.page),
		]
		if self.has_waf:    # 503: the machine left it no CPU for 5 s
			listed.append(("attack", status("/waf/size/1?q=%27%20or%201%3D1%20--%20", 403, 503, fields=AGENT)))
			listed.append(("attack", status("/waf/size/1?q=%3Cscript%3Ealert(1)%3C/script%3E", 403, 503, fields=AGENT)))
		return itertools.cycle(listed)

	def page(self):
		"""A page behind the login; every 20th time by somebody new."""
		self.logins += 1
		if self.logins % 20 == 1:
			self.browser = self.app.browser()
			return self.browser.login(self.provider, f"{self.app.path}/size/10").status == 200
		return self.browser.get(f"{self.app.path}/size/10").status == 200

	def questions(self):
		"""As visits(), to the model."""
		gw, base, turns = self.gw, self.ai.base, itertools.count()

		def whole(what):
			return lambda: chat(gw, base, f"do:{what} question {next(turns)}, allowed", tools=TOOLS).status == 200

		def streamed(what):
			return lambda: open_chat(gw, base, f"do:{what} question {next(turns)}, allowed", tools=TOOLS).rest().is_done
		return itertools.cycle([
			("whole", whole("plain")), ("stream", streamed("plain")), ("zipped", streamed("zipped")), ("fails", whole("fails")),
			("fails", streamed("fails")), ("same", lambda: chat(gw, base, "do:plain the same question, allowed", tools=TOOLS).status == 200),
			("denied", lambda: chat(gw, base, f"do:plain forbidden {next(turns)}").header("X-Guard-Status") == "request-denied"),
		])

	# ---- what became of it ----

	def missing(self, since=None):
		"""Outcomes that did not come (since those of gw.outcomes() then)."""
		found, since = self.gw.outcomes(), since or {}
		return [(name, outcome) for name, wanted in ACTED.items() for outcome in wanted
			if (name != "Waf" or self.has_waf) and found.get(name, {}).get(outcome, 0) <= since.get(name, {}).get(outcome, 0)]

	def check_all_attached(self):
		"""Every class that the program knows, and each attachment is in force."""
		known = {one["className"] for one in self.gw.ask("GET", "/api/v1/policy-classes?pageSize=100")["items"]}
		assert known == set(ACTED), known ^ set(ACTED)
		assert known - set(self.gw.attached) <= (set() if self.has_waf else {"Waf"}), known - set(self.gw.attached)
		for name, listed in self.gw.attached.items():
			for one in listed:
				status = self.gw.ask("GET", one.path)["status"]
				assert status["phase"] == "Active", (name, status)

	def check_ledgers(self):
		"""Redis and the metrics name the same sum of tokens."""
		spent, used = self.ai.spent(), self.ai.used()
		assert spent == used > 0, (spent, used)


class Visitor:
	"""Somebody who makes one visit after the other, so many seconds apart. `lost`: those that did not end as they should."""

	def __init__(self, visits, pause):
		self.visits, self.pause, self.count, self.lost, self.over = visits, pause, 0, [], threading.Event()
		self.thread = threading.Thread(target=self.work, daemon=True)
		self.thread.start()

	def work(self):
		while not self.over.is_set():
			what, call = next(self.visits)
			try:
				if not call():
					self.lost.append((what, "another answer"))
			except Exception as error:    # whatever it was, the visit is lost
				self.lost.append((what, repr(error)))
			self.count += 1
			self.over.wait(self.pause)

	def end(self):
		self.over.set()
		self.thread.join(120)
		assert not self.thread.is_alive()
		return self.count


def judge_h2load(process, seconds=60):
	"""How many requests were answered: all that were sent."""
	text, _ = process.communicate(timeout=seconds)
	line = next((line for line in text.splitlines() if line.startswith("requests:")), None)
	assert line and ", 0 failed, 0 errored, 0 timeout" in line, text
	return int(line.split(" succeeded")[0].rsplit(" ", 1)[1])
