"""GET /metrics: what it counts, by which names, judged by Prometheus' own linter; and the guide that explains it."""
import http.client
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from backends import ROOT
from gw import PROGRAM, free_port, numbers
from policy_kit import Told, concurrency, cors, headers, op, preflight, raw_get, rate, rest_api
from wire import wait_until

GUIDE = ROOT / "docs/guide/observe.md"
DEFINED = re.findall(r'^METRIC\(\w+, "(\w+)", (METRIC_\w+), "([^"]*)"', (ROOT / "src/core/metrics.def").read_text(), re.M)
NAMES = {name for name, _, _ in DEFINED}
SAMPLE = re.compile(r'^(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[0-9.e+]+|\+Inf|NaN)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\\n]|\\.)*)"')


@pytest.fixture
def path():
	return f"/metric-{next(numbers)}"


def scrape(gw):
	status, text, fields = raw_get(gw, "/metrics")
	assert status == 200 and fields["Content-Type"].startswith("text/plain; version=0.0.4")
	return text


def samples(text):
	"""[(name, {label: value}, number)]"""
	found = []
	for line in text.splitlines():
		if line.startswith("#"):
			continue
		match = SAMPLE.match(line)
		assert match, line
		found.append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))
	return found


def value(gw, name, **labels):
	"""The sum of the samples with these labels."""
	return sum(number for found, has, number in samples(scrape(gw)) if found == name and labels.items() <= has.items())


def promtool(*arguments, text):
	tool = shutil.which("promtool")
	if not tool:
		pytest.skip("promtool is missing")
	done = subprocess.run([tool, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
	return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def busy(gw, backend_process):
	"""A scrape after traffic of many kinds, so that nearly every family has samples."""
	site = gw.gateway()
	service = gw.service(backend_process, site, outlierDetectionConfig={"enable": True, "consecutive5xx": 50})
	route = gw.route("/busy", service, site=site)
	for policy in [("RateLimit", rate(3)), ("Cors", cors()), ("ConcurrencyLimit", concurrency(5)),
			("HeaderModify", headers(op("Response", "Add", "x", "1"))), ("Retry", {"attempts": 1, "retryOn": ["5xx"]}),
			("Timeout", {"unitNum": 5, "timeUnit": "s"}), ("CircuitBreaker", {"strategy": 1, "minRequestAmount": 100,
				"triggerRatio": 100, "statDurationSec": 30, "recoveryTimeoutSec": 2, "responseStatusCode": 503, "bodyEncoding": 0,
				"behaviorType": 0})]:
		gw.attach(*policy, to=route)
	gw.attach("Fallback", {"fallBackDestination": [{"serviceId": gw.service(backend_process, site).id}]}, to=route)
	gw.get("/busy/status/500", site=site)
	for _ in range(6):
		gw.get("/busy/size/10", site=site)
	preflight(gw, "/busy", site=site)
	gw.get("/no/route", site=site)
	with gw.connect(site) as connection:
		connection.send(b"BAD\r\n\r\n")
		connection.is_closed(5)
	return scrape(gw)


# ---- the text ----

def test_linter_of_prometheus_has_nothing_to_say(busy):
	assert promtool("check", "metrics", text=busy) == (0, "")


def test_each_family_has_one_head_and_no_sample_comes_twice(busy):
	kinds, helps, current, seen = {}, set(), None, set()
	for line in busy.splitlines():
		if line.startswith("# HELP "):
			name = line.split()[2]
			assert name not in helps and len(line.split(" ", 3)[3]) > 10
			helps.add(name)
		elif line.startswith("# TYPE "):
			_, _, name, kind = line.split()
			assert name not in kinds and name in helps
			kinds[name], current = kind, name
		else:
			name = SAMPLE.match(line)[1]
			assert re.sub(r"_(bucket|sum|count)$", "", name) == current if kinds[current] == "histogram" else name == current, line
			series = line.rsplit(" ", 1)[0]
			assert series not in seen
			seen.add(series)
	assert set(kinds) <= NAMES and len(kinds) > 25


# Names and labels that the dashboards of other AI gateways know; models and consumers among them are bounded in number.
KNOWN_ELSEWHERE = ("ai_", "token_ratelimit_", "route_upstream_model_consumer_metric_", "gen_ai_")


@pytest.mark.parametrize("name, kind, labels", [row for row in DEFINED if not row[0].startswith(KNOWN_ELSEWHERE)])
def test_names_follow_the_conventions(name, kind, labels):
	assert re.fullmatch(r"(sluice|process)_[a-z][a-z0-9_]*", name)
	counts = kind in ("METRIC_COUNTER", "METRIC_BY_CLASS", "METRIC_SECONDS")
	assert name.endswith("_total") == counts
	assert not re.search(r"_(ms|us|millis|milliseconds|micros|minutes|kb|mb|kilobytes|megabytes|percent)(_|$)", name)
	if kind == "METRIC_HISTOGRAM":
		assert name.endswith(("_seconds", "_bytes"))
	names = labels.split(",") if labels else []
	assert len(names) == len(set(names)) <= 5
	assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) and label not in ("le", "job", "instance") for label in names)
	assert not set(names) & {"path", "url", "host", "client", "ip", "consumer", "request_id", "method"}, "what clients choose"


def test_buckets_only_grow(busy):
	for name, labels, _ in samples(busy):
		if not name.endswith("_count") or name[:-6] not in NAMES:
			continue
		rows = [(has["le"], number) for found, has, number in samples(busy) if found == f"{name[:-6]}_bucket"
			and {key: text for key, text in has.items() if key != "le"} == labels]
		counts = [number for _, number in rows]
		assert counts == sorted(counts) and rows[-1][0] == "+Inf"
		bounds = [float(bound) for bound, _ in rows]
		assert bounds == sorted(bounds) and bounds[0] <= 0.001 and bounds[-2] >= 30


def test_odd_names_are_escaped(gw, backend, path):
	site = gw.gateway()
	name = 'a "quoted\\ name {x="1"}, \N{SNOWMAN}'
	gw.route(path, backend, site=site, name=name)
	gw.get(f"{path}/size/1", site=site)
	text = scrape(gw)
	assert promtool("check", "metrics", text=text) == (0, "")
	escaped = name.replace("\\", "\\\\").replace('"', '\\"')
	assert f'sluice_requests_total{{gateway="{site.name}",route="{escaped}",code_class="2xx"}} 1\n' in text


# ---- what is counted ----

def test_requests_of_a_route(gw, backend, path):
	site = gw.gateway()
	labels = {"gateway": site.name, "route": gw.route(path, backend, site=site).name}
	assert value(gw, "sluice_requests_total", **labels) == 0, "there from the start"
	for status in (200, 201, 302, 404, 500, 503):
		gw.get(f"{path}/status/{status}", site=site)
	gw.request("POST", f"{path}/echo", body=b"x" * 1000, site=site)
	wait_until(lambda: value(gw, "sluice_requests_total", **labels) == 7, 5, "all counted")
	classes = {code: value(gw, "sluice_requests_total", code_class=code, **labels) for code in ("1xx", "2xx", "3xx", "4xx", "5xx")}
	assert classes == {"1xx": 0, "2xx": 3, "3xx": 1, "4xx": 1, "5xx": 2}
	assert value(gw, "sluice_request_duration_seconds_count", **labels) == 7
	assert 0 < value(gw, "sluice_request_duration_seconds_sum", **labels) < 60
	assert value(gw, "sluice_request_bytes_total", **labels) == 1000
	received = value(gw, "sluice_response_bytes_total", **labels)
	wait_until(lambda: len(gw.records(gateway=site.name)) == 7, 5, "all recorded")
	assert received == sum(record["bytesOut"] for record in gw.records(gateway=site.name))


def test_requests_without_a_route_count_for_the_gateway(gw):
	site = gw.gateway()
	gw.get("/nothing", site=site)
	wait_until(lambda: value(gw, "sluice_requests_total", gateway=site.name, route="", code_class="4xx") == 1, 5, "it is counted")


def test_operations_stand_under_their_api(gw, backend, path):
	site = gw.gateway()
	apis = [rest_api(gw, backend, site=site, base=f"{path}/{n}") for n in (1, 2)]
	body = {"name": "same-name", "method": "GET", "path": "/size/1"}
	for api in apis:
		gw.ask("POST", f"{api.path}/operations", body)
	gw.get(f"{path}/1/size/1", site=site)
	label = f"{apis[0].name}/same-name"
	wait_until(lambda: value(gw, "sluice_requests_total", gateway=site.name, route=label) == 1, 5, "it is counted")
	assert value(gw, "sluice_requests_total", gateway=site.name, route=f"{apis[1].name}/same-name") == 0


def test_services_of_two_gateways_may_have_one_name(gw, backend, path):
	sites = [gw.gateway(), gw.gateway()]
	name = f"twice-{next(numbers)}"
	for site in sites:
		body = {"name": name, "gatewayId": site.id, "sourceType": "VIP", "addresses": [backend.address]}
		service = gw.create("Service", "/api/v1/services", "serviceId", body)
		gw.route(path, service, site=site)
	for _ in range(3):
		gw.get(f"{path}/size/1", site=sites[0])
	counts = [value(gw, "sluice_upstream_requests_total", gateway=site.name, service=name) for site in sites]
	assert counts == [3, 0]
	assert value(gw, "sluice_endpoint_healthy", service=name) == 2


def test_attempts_times_and_connections_of_a_service(gw, backend, path):
	site = gw.gateway()
	service = gw.service(backend, site)
	gw.route(path, service, site=site)
	labels = {"gateway": site.name, "service": service.name}
	for status in (200, 404, 500):
		gw.get(f"{path}/status/{status}", site=site)
	assert {code: value(gw, "sluice_upstream_requests_total", code_class=code, **labels) for code in ("2xx", "4xx", "5xx")} == {
		"2xx": 1, "4xx": 1, "5xx": 1}
	assert value(gw, "sluice_upstream_request_duration_seconds_count", **labels) == 3
	assert 1 <= value(gw, "sluice_upstream_connects_total", **labels) <= 2      # one for each worker that was asked


def test_failures_have_reasons(gw, path):
	site = gw.gateway()
	service = gw.service(free_port(), site)
	gw.route(path, service, site=site)
	assert gw.get(path, site=site).status == 503
	assert value(gw, "sluice_upstream_failures_total", gateway=site.name, service=service.name, reason="connect") == 1
	assert value(gw, "sluice_upstream_requests_total", gateway=site.name, service=service.name) == 0
	assert value(gw, "sluice_upstream_request_duration_seconds_count", gateway=site.name, service=service.name) == 0


def test_requests_in_flight(gw, path):
	site = gw.gateway()
	with Told() as upstream:
		service = gw.service(upstream.port, site)
		gw.route(path, service, site=site)
		labels = {"gateway": site.name, "service": service.name, "endpoint": f"127.0.0.1:{upstream.port}"}
		assert value(gw, "sluice_endpoint_requests_in_flight", **labels) == 0
		upstream.hold()
		with gw.connect(site) as one, gw.connect(site) as two:
			for connection in (one, two):
				connection.start("GET", path)
			wait_until(lambda: value(gw, "sluice_endpoint_requests_in_flight", **labels) == 2, 10, "two under way")
			assert value(gw, "sluice_requests_in_flight") >= 2
			upstream.release()
			assert one.read_response().status == two.read_response().status == 200
		wait_until(lambda: value(gw, "sluice_endpoint_requests_in_flight", **labels) == 0, 10, "none under way")


def test_policies_count_by_outcome(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	limit = gw.attach("RateLimit", rate(2), to=route)
	for _ in range(3):
		gw.get(f"{path}/size/1", site=site)
	labels = {"attachment": limit.id, "resource": route.name, "policy": limit.policy.name}
	assert value(gw, "sluice_policy_outcomes_total", outcome="admitted", **labels) == 2
	assert value(gw, "sluice_policy_outcomes_total", outcome="refused", **labels) == 1


def test_the_process_tells_of_itself(gw):
	assert value(gw, "sluice_build_info", version=subprocess.run([PROGRAM, "version"], capture_output=True, text=True,
		check=True).stdout.split()[1]) == 1
	with open(f"/proc/{gw.process.pid}/stat", encoding="ascii") as stat:
		ticks = sum(int(field) for field in stat.read().rsplit(")", 1)[1].split()[11:13])
	assert ticks / 100 - 0.1 <= value(gw, "process_cpu_seconds_total") <= ticks / 100 + 30
	assert 0.5 < value(gw, "process_resident_memory_bytes") / (gw.rss_kb() * 1024) < 2
	assert abs(value(gw, "process_open_fds") - gw.descriptors()) <= 20
	assert value(gw, "process_max_fds") > value(gw, "process_open_fds") > 5
	assert value(gw, "process_start_time_seconds") > 1.7e9


# ---- how many series there are ----

def test_series_of_deleted_resources_are_gone(gw, backend, path):
	site = gw.gateway()
	service = gw.service(backend, site)
	route = gw.route(path, service, site=site)
	attachments = [gw.attach("RateLimit", rate(5), to=to) for to in (route, service, site)]
	gw.get(f"{path}/size/1", site=site)
	named = (route.name, service.name, site.name, *(one.id for one in attachments))
	text = scrape(gw)
	assert all(f'"{name}"' in text for name in named)
	for one in attachments:
		gw.delete(one)
	for one in (route, service, site):
		gw.ask("DELETE", one.path)

	def left():
		now = scrape(gw)
		return [name for name in named if f'"{name}"' in now]

	# They go with the last snapshot that knows them.
	wait_until(lambda: not left(), 20, "no series of what was deleted")


def test_a_new_resource_of_the_same_name_begins_at_zero(gw, backend, path):
	site = gw.gateway()
	name = f"again-{next(numbers)}"
	route = gw.route(path, backend, site=site, name=name)
	gw.get(f"{path}/size/1", site=site)
	wait_until(lambda: value(gw, "sluice_requests_total", gateway=site.name, route=name) == 1, 5, "it is counted")
	gw.ask("DELETE", route.path)
	wait_until(lambda: f'"{name}"' not in scrape(gw), 20, "the series is gone")
	gw.route(path, backend, site=site, name=name)
	assert value(gw, "sluice_requests_total", gateway=site.name, route=name) == 0


def test_a_changed_resource_goes_on_counting(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.get(f"{path}/size/1", site=site)
	gw.ask("PUT", route.path, {**route.body, "match": {"path": {"type": "Prefix", "value": path}, "methods": ["GET"]}})
	gw.get(f"{path}/size/1", site=site)
	wait_until(lambda: value(gw, "sluice_requests_total", gateway=site.name, route=route.name) == 2, 5, "both are counted")


def test_clients_cannot_make_series(gw, backend, path):
	site = gw.gateway()
	gw.route(path, backend, site=site)
	gw.get(f"{path}/size/1", site=site)

	def series():
		return {line.rsplit(" ", 1)[0] for line in scrape(gw).splitlines() if not line.startswith("#")}

	before = series()
	for n in range(30):
		gw.request(f"METHOD{n}", f"{path}/size/{n}?q={n}", {f"x-{n}": str(n), "User-Agent": f"agent {n}"}, site=site, host=f"host{n}.test")
		gw.get(f"/none/{n}", site=site, host=f"host{n}.test")
	assert series() == before


# ---- the guide ----

def test_reference_is_what_the_program_prints():
	printed = subprocess.run([PROGRAM, "help", "metrics"], capture_output=True, text=True, check=True).stdout
	assert (ROOT / "docs/reference/metrics.md").read_text().split("\n", 1)[1] == printed
	assert all(f"| `{name}` |" in printed for name in NAMES)


def test_guide_explains_every_metric_and_no_other():
	text = GUIDE.read_text()
	missing = [name for name in NAMES if name not in text]
	assert not missing, missing
	for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")]:
		for word in re.findall(r"\bsluice_[a-z0-9_]+\b", page.read_text()):
			if not word.startswith("sluice_oidc_"):    # names of cookies
				assert re.sub(r"_(bucket|sum|count)$", "", word) in NAMES, f"{page.name}: {word}"


def expressions():
	text = GUIDE.read_text()
	found = [line for block in re.findall(r"```promql\n(.*?)```", text, re.S) for line in block.splitlines() if line]
	for line in text.splitlines():
		if line.startswith("| ") and "sluice_" in line or "process_" in line and line.startswith("| "):
			found += [part.replace("\\|", "|") for part in re.findall(r"`([^`]+)`", line) if "sluice_" in part or "process_" in part]
	return found


def test_every_expression_of_the_guide_is_good_promql(tmp_path):
	rules = [{"record": f"guide:rule{n}", "expr": expression} for n, expression in enumerate(expressions())]
	assert len(rules) > 40
	file = tmp_path / "rules.yml"
	file.write_text(yaml.safe_dump({"groups": [{"name": "guide", "rules": rules}]}))
	code, said = promtool("check", "rules", "--lint=none", str(file), text="")
	assert code == 0 and f"{len(rules)} rules found" in said, said


def test_alerts_of_the_guide_are_good_rules(tmp_path):
	blocks = [block for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.S) if "groups:" in block]
	assert len(blocks) == 1
	file = tmp_path / "alerts.yml"
	file.write_text(blocks[0])
	code, said = promtool("check", "rules", str(file), text="")
	assert code == 0 and "8 rules found" in said, said


def test_guide_names_every_member_and_flag_of_records(gw, busy):
	text = GUIDE.read_text()
	members = {name for record in gw.records() for name in record}
	source = (ROOT / "src/proxy/record.c").read_text()
	members |= set(re.findall(r'(?:PLAIN|TEXT|NUMBER)\(out, "(\w+)"', source))
	assert not [name for name in members if f"`{name}`" not in text]
	table = "\n".join(line for line in text.splitlines() if line.startswith("| "))
	flags = set(re.findall(r'^REASON\(\w+, "(\w+)"', (ROOT / "src/proxy/reasons.def").read_text(), re.M))
	for folder in ("policy", "proxy"):
		for source in (ROOT / "src" / folder).glob("*.c"):
			flags |= set(re.findall(r'exchange_keep_flag\(x, "(\w+)"', source.read_text()))
	assert not [flag for flag in flags if not re.search(rf"\b{flag}\b", table)]


def test_a_token_may_be_for_metrics_alone(gw):
	made = gw.ask("POST", "/api/v1/tokens", {"name": f"prometheus-{next(numbers)}", "actions": ["apig:GetMetrics"]})
	connection = http.client.HTTPConnection(gw.admin, timeout=30)
	for target, status in (("/metrics", 200), ("/api/v1/routes", 403)):
		connection.request("GET", target, headers={"Authorization": f"Bearer {made['token']}"})
		answer = connection.getresponse()
		answer.read()
		assert answer.status == status
	connection.close()


@pytest.mark.parametrize("command", [line for block in re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.S)
	for line in block.splitlines() if line.startswith("sluice ")])
def test_commands_of_the_guide(gw, backend, command):
	site = gw.gateway(hosts=["shop.example.com"])
	route = gw.route("/orders", backend, site=site, name="orders")
	try:
		words = [word.replace(":8080", f":{site.port}") for word in shlex.split(command)]
		done = subprocess.run([PROGRAM, *words[1:], "--server", f"http://{gw.admin}", "--token-file", f"{gw.data}/admin.token"],
			capture_output=True, text=True, timeout=60, check=False)
		assert done.returncode == 0 and ("The gateway is ready." if words[1] == "status" else "orders") in done.stdout, done
	finally:
		gw.ask("DELETE", route.path)
