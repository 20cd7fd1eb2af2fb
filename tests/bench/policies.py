"""What policies cost: a route with all the cheap ones beside a route with none, and long lists beside short ones. Part "policies".

Gateways of ours only, one worker, with the load on one core. The requests are those of tests/bench/run.
"""
import statistics

import peers
from peers import NO_LIMIT, Sluice, header_edits, sluice

REFUSAL = {"behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}


def addresses(count):
	"""So many networks, none of which has the load."""
	return ",".join(f"10.{i >> 8}.{i & 255}.0/24" for i in range(count))


def ip_list(count, route):
	return {"name": "bench", "ipAccessControlResourceName": route.name, "ipAccessControlResourceType": "Route",
		"ipAccessControlType": "Black", "ipAccessControlContent": addresses(count), "protocolLayer": "L7"}


def attach_all(gw, site, service, route):
	"""The ten cheap policies, RateLimit on each level that has one."""
	for level in (site, gw.host, route, service):
		gw.attach("RateLimit", NO_LIMIT, to=level)
	gw.attach("ConcurrencyLimit", {"maxConcurrency": 100_000, **REFUSAL}, to=route)
	gw.attach("Cors", {"allowOrigins": "https://example.com", "allowMethods": ["GET"], "allowHeaders": "Content-Type", "exposeHeaders": "",
		"timeUnit": "s", "unitNum": 3600, "allowCredentials": False}, to=route)
	gw.attach("HeaderModify", header_edits(), to=route)
	gw.attach("HttpRewrite", {"pathType": "Prefix", "path": "/r0/b"}, to=route)
	gw.attach("IpAccessControl", ip_list(10_000, route), to=route)
	gw.attach("CircuitBreaker", {"strategy": 0, "minRequestAmount": 100_000, "maxAllowedMs": 5000, "triggerRatio": 100,
		"statDurationSec": 30, "recoveryTimeoutSec": 30, **REFUSAL}, to=service)
	gw.attach("Timeout", {"unitNum": 30, "timeUnit": "s"}, to=service)
	gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx", "reset", "connect-failure"], "httpCodes": [], "perTryTimeout": 0}, to=service)


class Guarded(Sluice):
	"""One route /r0/b for the host of the load. Variants: none, ten, short, long."""

	def __init__(self, variant, upstream, core):
		self.variant, self.name = variant, variant
		self.gw = sluice.Gateway(program=peers.PROGRAM, prefix=["taskset", "-c", str(core)], workers=1, access_log=False,
			requests_per_connection=0)
		site = self.gw.default
		self.gw.host = self.gw.domain("bench.test")
		self.service = self.gw.service(upstream)
		route = self.gw.route("/r0/b", self.service, domains=[self.gw.host])
		if variant == "ten":
			attach_all(self.gw, site, self.service, route)
		elif variant != "none":
			self.gw.attach("IpAccessControl", ip_list({"short": 10, "long": 10_000}[variant], route), to=route)
		self.port = site.port


def measure_policies(options, report, goal, new_load):
	upstream = sluice.free_port()
	load = new_load(options, upstream)
	results, running = {}, []
	try:
		running.extend(Guarded(variant, upstream, 0) for variant in ("none", "ten", "short", "long"))
		for turn in range(options.rounds):
			for gateway in running[turn % 4:] + running[:turn % 4]:
				results.setdefault(gateway.name, []).append(load.run(gateway, 0, ["--connections=64", "--path=/r0/b/1024", "--routes=1"]))
	finally:
		for gateway in running:
			gateway.stop()
	cost = {name: statistics.median(one["cpu_us"] for one in rounds) for name, rounds in results.items()}
	print(f"\npolicies, CPU us per request: none {cost['none']:.2f}, ten of them {cost['ten']:.2f}, an IP list of 10 {cost['short']:.2f}, "
		f"of 10,000 {cost['long']:.2f}")
	goal("ten cheap policies on a route against none", cost["ten"] / cost["none"], 1.10)
	goal("an IP list of 10,000 against one of 10", cost["long"] / cost["short"], 1.02)
	report["policies"] = results
