"""The program as its users start it: commands, settings from four places, the data directory, tokens, signals, the demo."""
import json
import os
import re
import signal
import stat
import subprocess

import pytest
from backends import ROOT
from gw import PROGRAM, Gateway, free_port
from shell import START, STOP, run_blocks
from wire import wait_until

EXAMPLES = ROOT / "docs/examples"
RATE_LIMIT = {"threshold": 5, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429, "enable": True}


def sluice(*arguments, environment=None, **options):
	return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
		stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}, **options)


def refusal(*arguments, code=1, **options):
	"""What it says before it ends, having done nothing."""
	done = sluice(*arguments, **options)
	assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
	assert "Sanitizer" not in done.stderr and done.stdout == ""
	return done.stderr.strip()


def policy_classes():
	return [line.split()[0] for line in sluice("policy", "classes").stdout.splitlines()]


def setting_names():
	"""As the table's source has them, so that a row that is not printed is noticed."""
	text = (ROOT / "src/cli/settings_table.c").read_text()
	return re.findall(r"^\t(?:TEXT|TEXTS|INT|BOOL)\(struct program_settings, (\w+)", text, re.M)


def spell(name, before, between):
	return before + re.sub("([A-Z])", rf"{between}\1", name)


# ---- commands ----

@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments):
	done = sluice(*arguments)
	assert done.returncode == 0 and re.fullmatch(r"sluice \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments):
	done = sluice(*arguments)
	assert done.returncode == 0
	for command in ("run", "check", "policy classes", "policy schema", "policy example", "policy manual", "policy effective",
			"status", "trace", "version", "help"):
		assert re.search(rf"^  {command}( |$)", done.stdout, re.M), command


@pytest.mark.parametrize("command", ["run", "check", "policy", "status", "trace", "version"])
def test_each_command_has_a_help(command):
	for arguments in ([command, "--help"], [command, "-h"], ["help", command]):
		done = sluice(*arguments)
		assert done.returncode == 0 and command in done.stdout and done.stderr == ""


def test_help_of_run_lists_every_setting():
	text = sluice("run", "--help").stdout
	assert len(setting_names()) > 25 and "--config" in text
	for name in setting_names():
		assert f"  --{spell(name, '', '-').lower()}" in text and f" {name}\n" in text
		assert f" {spell(name, 'SLUICE_', '_').upper()}," in text


def test_reference_pages_name_every_setting_class_and_resource():
	settings = sluice("help", "settings").stdout
	assert all(f"| `{name}` |" in settings for name in setting_names())
	api = sluice("help", "api").stdout
	assert all(f"\n## {name}\n" in api for name in ("Gateway", "Domain", "Service", "Route", "Policy", "PolicyAttachment"))
	manual = sluice("policy", "manual").stdout
	assert all(f"\n## {name}\n" in manual for name in policy_classes())


@pytest.mark.parametrize("arguments, words", [
	(["serve"], "no such command: serve"),
	(["help", "serve"], "no such command: serve"),
	(["policy"], "classes, schema, example, manual or effective"),
	(["policy", "list"], "no such subcommand: list"),
	(["policy", "schema"], "name a policy class"),
	(["policy", "example", "RateLimits"], "no such policy class: RateLimits"),
	(["check"], "Usage: sluice check FILE"),
])
def test_wrong_usage_exits_with_2(arguments, words):
	assert words in refusal(*arguments, code=2)


# ---- settings ----

@pytest.mark.parametrize("arguments, words", [
	(["--worker", "2"], "--worker: is not a known flag"),
	(["--no-such"], "--no-such: is not a known flag"),
	(["workers"], "workers: is not a flag"),
	(["--workers"], "--workers: needs a value"),
	(["--config"], "--config: needs a value"),
	(["--workers", "two"], '--workers: must be an integer, not "two"'),
	(["--workers=2.5"], '--workers: must be an integer, not "2.5"'),
	(["--workers="], '--workers: must be an integer, not ""'),
	(["--workers", "65"], "--workers: must be an integer between 0 and 64, not 65"),
	(["--demo=maybe"], '--demo: must be true or false, not "maybe"'),
	(["--head-bytes", "1"], "--head-bytes: must be an integer between 256 and 1048576, not 1"),
	(["--log-level", "loud"], '--log-level: must be debug, info, warn or error, not "loud"'),
	(["--admin", "here"], '--admin: must be an address and a port such as 127.0.0.1:9070, not "here"'),
	(["--store", "postgres://x"], "--store: must be sqlite:PATH"),
	(["--redis", "redis://x"], "--redis: is not served by this build"),
	(["--cluster", 'a"b'], "--cluster: must consist of letters, digits"),
	(["--dns-servers", "garbage"], '--dns-servers: must be addresses such as 127.0.0.1:53, comma separated; "garbage" is none'),
	(["--dns-servers", "127.0.0.1:53,,"], "--dns-servers: must be addresses"),
	(["--config", "/does/not/exist.yaml"], "/does/not/exist.yaml: cannot be read: No such file"),
	(["--admin", "0.0.0.0:9070"], "--admin: is not a loopback address"),
	(["--admin", "[::]:9070"], "--admin: is not a loopback address"),
	(["--admin", "192.0.2.1:9070"], "--admin-insecure"),
])
def test_bad_flags_name_the_flag_and_change_nothing(arguments, words, tmp_path):
	assert words in refusal("run", *arguments, cwd=tmp_path)
	assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variable, value, words", [
	("SLUICE_WORKERS", "two", 'SLUICE_WORKERS: must be an integer, not "two"'),
	("SLUICE_WORKERS", "65", "SLUICE_WORKERS: must be an integer between 0 and 64, not 65"),
	("SLUICE_ACCESS_LOG", "maybe", "SLUICE_ACCESS_LOG: must be true or false"),
	("SLUICE_ADMIN", "0.0.0.0:1", "SLUICE_ADMIN: is not a loopback address"),
	("SLUICE_DNS_SERVERS", "x", "SLUICE_DNS_SERVERS: must be addresses"),
	("SLUICE_CONFIG", "/does/not/exist.yaml", "/does/not/exist.yaml: cannot be read"),
])
def test_bad_variables_are_named(variable, value, words, tmp_path):
	assert words in refusal("run", environment={variable: value}, cwd=tmp_path)
	assert not list(tmp_path.iterdir())


BAD_FILES = [
	("workers: two\n", 1, "workers: must be an integer"),
	("# a comment\n\nworkers: 65\n", 3, "workers: must be an integer between 0 and 64, not 65"),
	("workers: 1\nnosuch: 1\n", 2, "nosuch: "),
	("workers: 1\nworkers: 2\n", 2, "given before"),
	("workers: [\n", 2, ""),
	("adminHosts:\n  - a\n  - 5\n", 3, "adminHosts[1]: must be a string"),
	("gatewayFeatures:\n  xffTrustedNum: 1\n  nosuch: 1\n", 3, "gatewayFeatures.nosuch: is no gateway setting"),
	("gatewayFeatures:\n  xffTrustedNum: many\n", 2, "gatewayFeatures.xffTrustedNum: must be an integer"),
	("gatewayFeatures:\n  trustedProxies:\n    - 10.0.0.0/8\n    - x\n", 4, "gatewayFeatures.trustedProxies[1]: must be an address"),
	("gatewayFeatures: 5\n", 1, "gatewayFeatures: must be an object"),
	("logLevel: loud\n", 1, "logLevel: must be debug"),
	("admin: 192.0.2.1:80\n", 1, "admin: is not a loopback address"),
	("- a\n", 1, "mapping"),
	("workers: 1\n---\nworkers: 2\n", None, "must hold one mapping"),
]


@pytest.mark.parametrize("text, line, words", BAD_FILES)
def test_bad_files_name_the_line(text, line, words, tmp_path):
	path = tmp_path / "settings.yaml"
	path.write_text(text)
	said = refusal("run", "--config", path, "--data", tmp_path / "data")
	assert str(path) in said and words in said
	if line and words != "mapping":
		assert f"{path}:{line}: " in said or f"line {line}," in said
	assert not (tmp_path / "data").exists()


def started_workers(file=None, environment=None, **settings):
	gateway = Gateway(start=False, file=file, environment=environment, **settings)
	if "workers" not in settings:
		del gateway.settings["workers"]
	with gateway.start():
		return gateway.events("start")[0]["workers"]


def test_flag_wins_over_variable_over_file_over_default():
	assert started_workers() == len(os.sched_getaffinity(0))
	assert started_workers(file="workers: 5\n") == 5
	assert started_workers(file="workers: 5\n", environment={"SLUICE_WORKERS": "3"}) == 3
	assert started_workers(file="workers: 5\n", environment={"SLUICE_WORKERS": "3"}, workers=4) == 4


def test_an_empty_settings_file_means_defaults(tmp_path):
	assert started_workers(file="# nothing\n") == len(os.sched_getaffinity(0))


def test_a_bad_value_in_the_file_is_refused_although_a_flag_overrides_it(tmp_path):
	path = tmp_path / "settings.yaml"
	path.write_text("workers: 65\n")
	assert f"{path}:1: workers" in refusal("run", "--config", path, "--workers", "1", cwd=tmp_path)


def test_settings_file_of_the_environment(tmp_path):
	path = tmp_path / "settings.yaml"
	path.write_text("workers: 5\n")
	assert started_workers(environment={"SLUICE_CONFIG": str(path)}) == 5


def test_admin_on_every_address_when_asked_for():
	with Gateway(admin="0.0.0.0:0", admin_insecure=True) as gateway:
		assert gateway.api("GET", "/readyz")[0] == 200


# ---- check ----

def check(path):
	done = sluice("check", path)
	assert done.stderr == ""
	return done.returncode, done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_examples_pass_the_check(path):
	assert check(path) == (0, "1 file checked, no problem found\n")


def test_check_takes_several_files_and_documents(tmp_path):
	path = tmp_path / "all.yaml"
	path.write_text("".join(f"---\n{one.read_text()}" for one in sorted(EXAMPLES.glob("*.json"))))
	done = sluice("check", path, *EXAMPLES.iterdir())
	assert done.returncode == 0 and "no problem found" in done.stdout


@pytest.mark.parametrize("text, line, words", BAD_FILES[:-1])
def test_check_finds_bad_settings(text, line, words, tmp_path):
	path = tmp_path / "settings.yaml"
	path.write_text(text)
	code, said = check(path)
	assert code == 1 and said.startswith(f"{path}:{line}: ") and words in said
	assert len(said.splitlines()) == 1


BAD_RESOURCES = [
	("kind: Nothing\nname: a\n", 1, 'kind: "Nothing" is no kind of resource'),
	("kind: Route\nname: 5\n", 2, "name: must be a string"),
	("kind: Route\nname: a\nnosuch: 1\n", 3, "nosuch: "),
	("kind: Route\nname: a\ngatewayId: gw-1\nmatch:\n  path:\n    type: Suffix\n    value: /\n", 6, "match.path.type: "),
	("kind: Gateway\ncluster: local\n", 1, "gateway: is required"),
	('kind: Policy\nname: a\nclassName: RateLimit\nconfig: "{}"\n', 4, "config.threshold: is required"),
	("kind: Policy\nname: a\nclassName: Nothing\nconfig: '{}'\n", 3, "className: "),
	("kind: Service\nname: a\ngatewayId: gw-1\nsourceType: VIP\naddresses:\n- 127.0.0.1:80\n- weight: 5\n", 7, "addresses[1]"),
]


@pytest.mark.parametrize("text, line, words", BAD_RESOURCES)
def test_check_finds_bad_resources(text, line, words, tmp_path):
	path = tmp_path / "resource.yaml"
	path.write_text(text)
	code, said = check(path)
	assert code == 1 and words in said and said.startswith(f"{path}:{line}: "), said


def test_check_reports_each_document(tmp_path):
	path = tmp_path / "all.yaml"
	path.write_text("---\n".join(text for text, _, _ in BAD_RESOURCES))
	code, said = check(path)
	assert code == 1 and len(said.splitlines()) == len(BAD_RESOURCES)


def test_check_of_a_missing_file(tmp_path):
	code, said = check(tmp_path / "none")
	assert code == 1 and said == f"{tmp_path}/none:1: -: cannot be read: No such file or directory\n"


def test_check_of_a_directory(tmp_path):
	"""It was an "Input/output error"."""
	(tmp_path / "a.yaml").write_text("workers: 1\n")
	assert check(tmp_path) == (1, f"{tmp_path}:1: -: is a directory; name the file in it that is meant, or each of them\n")
	assert f"{tmp_path}: is a directory" in refusal("run", "--config", tmp_path)


# ---- policy ----

def test_there_are_29_classes_and_it_is_said_which_act():
	lines = sluice("policy", "classes").stdout.splitlines()
	assert len(lines) == 29
	acting = {line.split()[0] for line in lines if "not enforced by this build" not in line}
	assert acting >= {"RateLimit", "HeaderModify", "DirectResponse", "IpAccessControl", "Cors"}


@pytest.mark.parametrize("name", policy_classes())
def test_class_has_schema_manual_and_an_example_that_is_accepted(name, gw):
	schema = json.loads(sluice("policy", "schema", name).stdout)
	assert schema["type"] == "object" and "enable" in schema["properties"]
	manual = sluice("policy", "manual", name).stdout
	assert f"## {name}\n" in manual and all(f"`{field}`" in manual for field in schema["properties"])
	example = json.loads(sluice("policy", "example", name).stdout)
	assert set(example) <= set(schema["properties"]) and set(schema["required"]) <= set(example)
	gw.ask("POST", "/api/v2/policies", {"name": name, "className": name, "config": json.dumps(example)})


@pytest.mark.parametrize("what", ["classes", "manual", "schema", "example"])
def test_output_that_cannot_be_written_is_told(what):
	with open("/dev/full", "wb") as full:
		done = subprocess.run([PROGRAM, "policy", what, *(["Cors"] if what != "classes" else [])], stdout=full, stderr=subprocess.PIPE)
	assert done.returncode == 1 and b"cannot be written" in done.stderr


# ---- examples ----

def test_example_files_are_accepted_by_the_api(gw):
	ids = {'"8081"': f'"{free_port()}"'}

	def post(path, file, member):
		text = (EXAMPLES / file).read_text()
		for placeholder, value in ids.items():
			text = text.replace(placeholder, value)
		body = json.loads(text)
		del body["kind"]
		answer = gw.ask("POST", path, body)
		return answer[member]

	ids["GATEWAY_ID"] = post("/v2/meshes/default/gateways", "gateway.json", "gatewayId")
	ids["ENVIRONMENT_ID"] = gw.ask("GET", f"/api/v1/gateways/{ids['GATEWAY_ID']}")["defaultEnvironmentId"]
	post("/api/v1/domains", "domain.json", "domainId")
	ids["SERVICE_ID"] = post("/api/v1/services", "service.json", "serviceId")
	ids["ROUTE_ID"] = post("/api/v1/routes", "route.json", "routeId")
	policies = sorted(EXAMPLES.glob("policy-*.json"))
	assert len(policies) >= 5
	for path in policies:
		ids["POLICY_ID"] = post("/api/v2/policies", path.name, "policyId")
		attachment = post("/api/v1/policy-attachments", "attachment.json", "policyAttachmentId")
		item = gw.ask("GET", f"/api/v1/policy-attachments/{attachment}")
		assert item["status"]["phase"] == "Active", (path, item)


# ---- data directory and token ----

def mode(path):
	return stat.S_IMODE(os.stat(path).st_mode)


def test_data_directory_and_token():
	with Gateway() as gateway:
		assert mode(gateway.data) == 0o700
		for name in ("admin.token", "secret.key", "sluice.db"):
			assert mode(os.path.join(gateway.data, name)) == 0o600, name
		said = gateway.stderr()
		assert said.count("admin.token") == 1 and f"{gateway.data}/admin.token" in said
		assert gateway.token not in said and len(gateway.token) >= 32
		token = gateway.token
		gateway.restart()
		assert gateway.token == token and "admin.token" not in gateway.stderr()
		assert gateway.api("GET", "/api/v1/routes")[0] == 200
		assert gateway.api("GET", "/api/v1/routes", headers={"X-Auth-Token": None})[0] == 401
		assert gateway.api("GET", "/api/v1/routes", headers={"X-Auth-Token": token[:-1] + "~"})[0] == 401


def test_two_first_starts_have_two_tokens():
	with Gateway() as one, Gateway() as other:
		assert one.token != other.token


def test_data_directory_that_cannot_be_made(tmp_path):
	(tmp_path / "file").write_text("")
	said = refusal("run", "--admin", "127.0.0.1:0", "--data", tmp_path / "file" / "data")
	assert str(tmp_path / "file") in said


def test_admin_port_in_use(gw, tmp_path):
	said = refusal("run", "--admin", gw.admin, "--data", tmp_path / "data")
	assert gw.admin in said and "in use" in said


def test_data_directory_in_use(gw):
	said = refusal("run", "--admin", "127.0.0.1:0", "--data", gw.data)
	assert "in use by another process" in said


# ---- readiness and signals ----

def test_readiness_needs_no_token(gw):
	for path in ("/readyz", "/livez"):
		status, answer, _ = gw.api("GET", path, headers={"X-Auth-Token": None})
		assert (status, answer["status"]) == (200, "ready" if path == "/readyz" else "live")
	assert gw.stderr().split("\n").count("ready") == 1


def start_request(gateway, backend):
	"""A request whose head is at the upstream and whose body is not complete."""
	connection = gateway.connect()
	connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
	wait_until(backend.requests, 5, "the head at the upstream")
	return connection


def is_refused(gateway):
	try:
		gateway.connect().close()
		return False
	except (ConnectionRefusedError, ConnectionResetError):
		return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_readiness_back_and_finishes_what_is_in_flight(number, backend):
	with Gateway(drain_timeout_ms=30000) as gateway:
		gateway.route("/", backend)
		idle = gateway.connect()
		assert idle.get("/echo").status == 200
		backend.clear()
		with start_request(gateway, backend) as connection:
			gateway.process.send_signal(number)
			wait_until(lambda: gateway.api("GET", "/readyz")[0] == 503, 5, "readiness to go")
			assert gateway.api("GET", "/livez")[0] == 200
			assert idle.is_closed(5)
			# Each worker closes its own listener: the other may be a moment behind.
			wait_until(lambda: is_refused(gateway), 5, "new connections to be refused")
			# What cannot be told from a file: writes still work while it drains.
			gateway.policy("RateLimit", RATE_LIMIT)
			assert gateway.process.poll() is None
			connection.send("world")
			answer = connection.read_response()
			assert answer.status == 200 and answer.json["bodyBytes"] == 10
			assert (answer.header("Connection") or "").lower() == "close"
		assert gateway.process.wait(10) == 0
		events = [record["event"] for record in gateway.log()]
		assert events.count("stop.drain") == 1 and "stop.now" not in events


def test_a_second_signal_stops_at_once(backend):
	with Gateway(drain_timeout_ms=600000, workers=3) as gateway:
		gateway.route("/", backend)
		with start_request(gateway, backend) as connection:
			gateway.process.send_signal(signal.SIGTERM)
			wait_until(lambda: gateway.events("stop.drain"), 5, "the drain")
			gateway.process.send_signal(signal.SIGTERM)
			assert gateway.process.wait(10) == 0
			assert connection.is_closed(5)
		assert gateway.events("stop.now")


def test_the_drain_ends_after_its_time(backend):
	with Gateway(drain_timeout_ms=200) as gateway:
		gateway.route("/", backend)
		with start_request(gateway, backend):
			gateway.process.send_signal(signal.SIGTERM)
			assert gateway.process.wait(10) == 0


def test_without_connections_it_ends_at_once():
	with Gateway(drain_timeout_ms=600000) as gateway:
		gateway.process.send_signal(signal.SIGTERM)
		assert gateway.process.wait(4) == 0


# ---- demo ----

ASK = "curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8080/hello\n"


def test_demo_prints_three_lines_works_and_starts_again(tmp_path):
	outputs = run_blocks([START, "grep -v '^{' server.log", "for i in 1 2 3 4 5 6 7; do " + ASK.strip() + "; done", STOP,
		"cat server.status", START, "grep -v '^{' server.log", ASK, STOP, "cat server.status"], tmp_path)
	token = "sluice-data/admin.token"
	three = f"admin  http://127.0.0.1:9070\ntoken  {token}\ntry    curl -i http://127.0.0.1:8080/hello\nready\n"
	assert outputs[1] == f"sluice: the admin token is in {token}\n{three}"
	codes = outputs[2].split()
	assert codes[:5] == ["200"] * 5 and "429" in codes[5:]
	assert outputs[6] == three
	assert outputs[7].strip() == "200"
	assert outputs[4].strip() == outputs[9].strip() == "0"


def test_demo_whose_port_is_taken_says_so(tmp_path):
	out = run_blocks(["python3 -m http.server 8080 --bind 127.0.0.1 >/dev/null 2>&1 &\n"
		"until curl -s -o /dev/null http://127.0.0.1:8080/; do sleep 0.05; done",
		'"$SLUICE_BIN" run --demo --data sluice-data; echo "exit $?"', "kill %1"], tmp_path)[1]
	assert "8080" in out and "in use" in out and "--demo" in out and out.strip().endswith("exit 1")
	assert "Sanitizer" not in out
