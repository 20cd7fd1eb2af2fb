"""What is said to act on a route: GET .../effective-policies and `sluice policy effective`, against what traffic shows."""
import json
import os
import subprocess

import pytest
from ai_kit import ModelServer, agent_api, agent_service, ai_service, llm_api
from gw import PROGRAM, numbers
from policy_kit import check_error, concurrency, cors, direct, headers, ip_list, op, preflight, rate, rest_api

STAGES = ["ip", "cors", "waf.head", "auth.external", "auth.oidc", "auth.jwt", "auth.consumer", "rate", "concurrency", "terminal",
	"breaker", "lane", "waf.body", "ai.statistics", "ai.cache", "ai.token", "ai.tools", "ai.search", "headers", "rewrite", "pick"]
LEGS = ["connect", "request", "service", "setting", "attempt", "response", "data"]


@pytest.fixture
def path():
	return f"/effective-{next(numbers)}"


def effective(gw, route, query=""):
	return gw.ask("GET", f"{route.path}/effective-policies{query}")


def rows(answer, **wanted):
	return [item for item in answer["items"] if all(item.get(name) == value for name, value in wanted.items())]


def brief(answer, **wanted):
	return [(item["className"], item["level"], item["effect"]) for item in rows(answer, **wanted)]


def sluice(gw, *arguments):
	flags = ["--server", f"http://{gw.admin}", "--token-file", os.path.join(gw.data, "admin.token")]
	return subprocess.run([PROGRAM, "policy", "effective", *flags, *arguments], capture_output=True, text=True, timeout=60,
		stdin=subprocess.DEVNULL, check=False)


# ---- order ----

def test_a_bare_route_has_no_rows(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	answer = effective(gw, route)
	assert answer["items"] == [] and answer["resourceId"] == route.id and answer["resourceType"] == "Route"
	assert answer["gatewayId"] == site.id and "domainId" not in answer and answer["version"] > 0
	assert [service["settings"] for service in answer["services"]] == [[]]


def test_rows_stand_in_the_order_of_execution(gw, backend, path):
	site = gw.gateway()
	domain = gw.domain("order.test", site)
	route = gw.route(path, backend, site=site, domains=[domain])
	service = gw.ask("GET", "/api/v1/services?pageSize=100&gatewayId=" + site.id)["items"][-1]
	on_service = type(route)("Service", service["serviceId"], "", gateway=site.id, environment=None)
	for to in (route, domain, site):                   # the reverse of how they act
		gw.attach("HeaderModify", headers(op("Request", "Update", f"x-{to.type}", "1"), op("Response", "Update", "x", to.type)), to=to)
		gw.attach("RateLimit", rate(1000), to=to)
	gw.attach("ConcurrencyLimit", concurrency(100), to=route)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.1", "Domain"), to=domain)
	gw.attach("Cors", cors(), to=route)
	gw.attach("RateLimit", rate(1000), to=on_service)
	answer = effective(gw, route)
	assert brief(answer) == [(name, level, "Runs") for name, level in [
		("IpAccessControl", "Domain"), ("Cors", "Route"),
		("RateLimit", "Gateway"), ("RateLimit", "Domain"), ("RateLimit", "Route"), ("ConcurrencyLimit", "Route"),
		("HeaderModify", "Gateway"), ("HeaderModify", "Domain"), ("HeaderModify", "Route"),
		("RateLimit", "Service"),
		("HeaderModify", "Gateway"), ("HeaderModify", "Domain"), ("HeaderModify", "Route"), ("Cors", "Route")]]
	legs = [LEGS.index(item["leg"]) for item in answer["items"]]
	assert legs == sorted(legs)
	stages = [STAGES.index(item["stage"]) for item in rows(answer, leg="request")]
	assert stages == sorted(stages)
	assert [item["stage"] for item in rows(answer, leg="service")] == ["service.rate"]
	assert [item["stage"] for item in rows(answer, leg="response")] == ["headers"] * 3 + ["cors"]
	# And so it is: of three levels that write the same field the last one named wins.
	assert gw.get(f"{path}/size/1", host="order.test", site=site).header("x") == "Route"


def test_ties_go_by_age(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	lists = [gw.attach("IpAccessControl", ip_list("Black", f"192.0.2.{n}"), to=route) for n in (1, 2, 3)]
	assert [item["attachmentId"] for item in effective(gw, route)["items"]] == [one.id for one in lists]


def test_lists_of_connections_stand_first_where_they_act_at_accept(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.1", "Gateway", "L4"), to=site)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.2", "Gateway", "L7"), to=site)
	assert [item["leg"] for item in effective(gw, route)["items"]] == ["connect", "request", "request"]
	gw.gateway(port=site.port, hosts=["other.test"])       # from now on the listener is not the gateway's alone
	assert [item["leg"] for item in effective(gw, route)["items"]] == ["request", "request"]


# ---- who hides whom ----

def test_the_most_specific_hides_the_others(gw, backend, path):
	site = gw.gateway()
	domain = gw.domain("hide.test", site)
	route = gw.route(path, backend, site=site, domains=[domain])
	attachments = [gw.attach("Cors", cors(f"https://{to.type.lower()}.example"), to=to) for to in (site, domain, route)]
	answer = effective(gw, route)
	assert brief(answer, leg="request") == [("Cors", "Gateway", "Hidden"), ("Cors", "Domain", "Hidden"), ("Cors", "Route", "Runs")]
	for item in rows(answer, effect="Hidden"):
		assert item["hiddenBy"] == {"level": "Route", "policyId": attachments[2].policy.id, "policyName": attachments[2].policy.name,
			"attachmentId": attachments[2].id}
	assert preflight(gw, f"{path}/size/1", "https://route.example", host="hide.test", site=site).status == 200
	assert preflight(gw, f"{path}/size/1", "https://domain.example", host="hide.test", site=site).status == 403
	gw.delete(attachments[2])
	answer = effective(gw, route)
	assert brief(answer, leg="request") == [("Cors", "Gateway", "Hidden"), ("Cors", "Domain", "Runs")]
	assert rows(answer, effect="Hidden")[0]["hiddenBy"]["attachmentId"] == attachments[1].id


def test_a_disabled_one_opts_out_where_its_class_says_so(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("Cors", cors(), to=site)
	off = gw.attach("Cors", cors(enable=False), to=route)
	gw.attach("RateLimit", rate(5), to=site)
	gw.attach("RateLimit", rate(5, enable=False), to=route)
	answer = effective(gw, route)
	assert brief(answer, className="Cors") == [("Cors", "Gateway", "Hidden"), ("Cors", "Route", "OptsOut")]
	assert rows(answer, effect="Hidden")[0]["hiddenBy"]["attachmentId"] == off.id
	assert brief(answer, className="RateLimit") == [("RateLimit", "Gateway", "Runs"), ("RateLimit", "Route", "Disabled")]
	assert {item["status"]["phase"] for item in rows(answer, level="Route")} == {"Disabled"}
	assert not gw.get(f"{path}/size/1", {"Origin": "https://example.com"}, site=site).header("Access-Control-Allow-Origin")


def test_operations_replace_what_their_api_has(gw, backend, path):
	site = gw.gateway()
	api = rest_api(gw, backend, site=site, base=path)
	own, inherits = api.operation("GET", "/size/1"), api.operation("GET", "/size/2")
	for to in (api, own):
		gw.attach("RateLimit", rate(5), to=to)
	gw.attach("HeaderModify", headers(op("Response", "Update", "x", "api")), to=api)
	shapes = [("HeaderModify", "Api", "Runs")] * 2          # of the request, of the response
	answer = effective(gw, own)
	assert answer["resourceType"] == "Operation"
	assert brief(answer) == [("RateLimit", "Api", "Hidden"), ("RateLimit", "Operation", "Runs")] + shapes
	assert rows(answer, effect="Hidden")[0]["hiddenBy"]["level"] == "Operation"
	assert brief(effective(gw, inherits)) == [("RateLimit", "Api", "Runs")] + shapes
	assert {item["resourceName"] for item in rows(answer, level="Api")} == {api.name}
	check_error(gw.api("GET", f"{api.path}/effective-policies"), 409, "ErrConflict", "httpApiId")


def test_an_api_without_operations_is_a_route_of_its_own(gw, backend, path):
	site = gw.gateway()
	api = rest_api(gw, backend, site=site, base=path)
	gw.attach("RateLimit", rate(5), to=api)
	answer = effective(gw, api)
	assert answer["resourceType"] == "Api" and brief(answer) == [("RateLimit", "Api", "Runs")]


# ---- settings ----

def test_settings_of_the_route_beat_those_of_each_service(gw, backend, path):
	site = gw.gateway()
	first, second = gw.service(backend, site), gw.service(backend, site)
	route = gw.route(path, [(first, 75), (second, 25)], site=site)
	gw.attach("Timeout", {"unitNum": 5, "timeUnit": "s"}, to=first)
	gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx"]}, to=second)
	answer = effective(gw, route)
	settings = {service["serviceId"]: {item["className"]: item["config"] for item in service["settings"]} for service in answer["services"]}
	assert set(settings[first.id]) == {"Timeout"} and settings[first.id]["Timeout"]["unitNum"] == 5
	assert set(settings[second.id]) == {"Retry"} and settings[second.id]["Retry"]["attempts"] == 2
	own = gw.attach("Timeout", {"unitNum": 1, "timeUnit": "s"}, to=route)
	answer = effective(gw, route)
	assert brief(answer, className="Timeout") == [("Timeout", "Route", "Runs"), ("Timeout", "Service", "Hidden")]
	assert rows(answer, effect="Hidden")[0]["hiddenBy"]["attachmentId"] == own.id
	for service in answer["services"]:
		assert [item["config"]["unitNum"] for item in service["settings"] if item["className"] == "Timeout"] == [1]
	gw.change_policy(own, {"unitNum": 1, "timeUnit": "s", "enable": False})
	answer = effective(gw, route)
	assert brief(answer, className="Timeout") == [("Timeout", "Route", "OptsOut"), ("Timeout", "Service", "Hidden")]
	assert not [item for service in answer["services"] for item in service["settings"] if item["className"] == "Timeout"]


def test_weights_are_shown(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, [(gw.service(backend, site), 3), (gw.service(backend, site), 1)], site=site)
	assert [service["weight"] for service in effective(gw, route)["services"]] == [3, 1]


def test_tls_of_a_port_takes_the_place_of_the_services(gw, path):
	site = gw.gateway()
	service = gw.service(["127.0.0.1:9443", "127.0.0.1:9080"], site)
	route = gw.route(path, service, site=site)
	ports = {item["port"]: item for item in gw.ask("GET", f"{service.path}/ports?pageSize=100")["items"]}
	gw.attach("ServiceTls", {"mode": "SIMPLE"}, to=service)

	def on_port(number):
		port = type(route)("ServicePort", ports[number]["servicePortId"], "", gateway=site.id, environment=None)
		return gw.attach("ServicePortTls", {"mode": "DISABLE"}, to=port)

	on_port(9080)
	answer = effective(gw, route)
	assert brief(answer) == [("ServiceTls", "Service", "Runs"), ("ServicePortTls", "ServicePort", "Runs")]
	assert [item.get("port") for item in answer["items"]] == [None, 9080]
	last = on_port(9443)
	answer = effective(gw, route)
	assert brief(answer, className="ServiceTls") == [("ServiceTls", "Service", "Hidden")]
	assert rows(answer, className="ServiceTls")[0]["hiddenBy"]["level"] == "ServicePort"
	gw.delete(last)
	assert brief(effective(gw, route), className="ServiceTls") == [("ServiceTls", "Service", "Runs")]


# ---- what cannot act ----

def degraded_class(gw):
	classes = [item for page in (1, 2, 3) for item in gw.ask("GET", f"/api/v1/policy-classes?pageSize=10&pageNumber={page}")["items"]]
	return next((item for item in classes if not item["enforced"] and "Route" in item["attachableResourceTypes"]), None)


def test_what_cannot_act_says_why(gw, backend, path):
	found = degraded_class(gw)
	if not found:
		pytest.skip("every class acts")
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach(found["className"], json.loads(found["configExample"]), to=route)
	item = effective(gw, route)["items"][0]
	assert (item["className"], item["effect"], item["status"]["phase"]) == (found["className"], "CannotRun", "Degraded")
	assert item["status"]["reason"]


# ---- domains ----

def test_the_domain_may_be_chosen(gw, backend, path):
	site, other = gw.gateway(), gw.gateway()
	one, two = gw.domain("one.test", site), gw.domain("two.test", site)
	route = gw.route(path, backend, site=site, domains=[one, two])
	anywhere = gw.route(f"{path}/any", backend, site=site)
	gw.attach("RateLimit", rate(5), to=two)
	assert effective(gw, route)["domainId"] == one.id and effective(gw, route)["items"] == []
	assert effective(gw, route)["domainIds"] == [one.id, two.id]
	answer = effective(gw, route, f"?domainId={two.id}")
	assert (answer["domainName"], brief(answer)) == ("two.test", [("RateLimit", "Domain", "Runs")])
	assert "domainId" not in effective(gw, anywhere)
	assert brief(effective(gw, anywhere, f"?domainId={two.id}")) == [("RateLimit", "Domain", "Runs")]
	for wrong in ("dom-none", gw.domain("three.test", other).id, gw.domain("four.test", site).id):
		check_error(gw.api("GET", f"{route.path}/effective-policies?domainId={wrong}"), 400, "ErrInvalidParameter", "domainId")
	check_error(gw.api("GET", f"{route.path}/effective-policies?domain=1"), 400, "ErrInvalidParameter", "domain")


def test_what_is_not_there(gw):
	check_error(gw.api("GET", "/api/v1/routes/route-none/effective-policies"), 404, "ErrNotFound", "routeId")
	check_error(gw.api("POST", "/api/v1/routes/route-none/effective-policies", {}), 405, "ErrMethodNotAllowed", "")


def test_a_token_may_be_allowed_to_ask_only(gw, backend, path):
	route = gw.route(path, backend)
	token = gw.ask("POST", "/api/v1/tokens", {"name": f"reader-{next(numbers)}", "actions": ["apig:Get*"]})["token"]
	fields = {"X-Auth-Token": token}
	assert gw.api("GET", f"{route.path}/effective-policies", headers=fields)[0] == 200
	assert gw.api("POST", "/api/v1/trace", {"url": f"http://a:{gw.port}{path}"}, headers=fields)[0] == 200
	assert gw.api("DELETE", route.path, headers=fields)[0] == 403


# ---- the command ----

def test_command_shows_the_rows(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("Cors", cors(), to=site)
	own = gw.attach("Cors", cors(), to=route)
	gw.attach("DirectResponse", direct(), to=route)
	for wanted in (route.id, route.name):
		done = sluice(gw, "--route", wanted)
		assert (done.returncode, done.stderr) == (0, "")
		lines = done.stdout.splitlines()
		assert route.name in lines[0] and lines[1].split()[:5] == ["LEG", "STAGE", "CLASS", "LEVEL", "EFFECT"]
		assert [line.split()[2:5] for line in lines[2:]] == [["Cors", "Gateway", "Hidden"], ["Cors", "Route", "Runs"],
			["DirectResponse", "Route", "Runs"], ["Cors", "Route", "Runs"]]
		assert f"Route attachment {own.id} acts instead" in lines[2]
		assert "\033" not in done.stdout
	assert json.loads(sluice(gw, "--route", route.id, "-o", "json").stdout) == effective(gw, route)
	quiet = sluice(gw, f"--route={route.id}", "--quiet").stdout
	assert quiet.startswith("LEG")


def test_command_of_an_operation(gw, backend, path):
	api = rest_api(gw, backend, base=path)
	operation = api.operation("GET", "/size/1")
	gw.attach("RateLimit", rate(5), to=operation)
	done = sluice(gw, "--api", api.name, "--operation", operation.name)
	assert done.returncode == 0 and "RateLimit" in done.stdout
	done = sluice(gw, "--api", api.id)
	assert done.returncode == 1 and "ask for one of its operations" in done.stderr


def test_model_and_agent_apis_have_theirs(gw):
	with ModelServer() as model:
		service, agent = ai_service(gw, model), agent_service(gw, model, customConfig={"apiKey": "app-1"})
		models, agents = llm_api(gw, service), agent_api(gw, agent, "Custom")
		for api in (models, agents):
			gw.attach("RateLimit", rate(5), to=api)
			gw.attach("AiStatistics", {}, to=api)
		gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "a", "fallbackModels": [{"serviceId": service.id, "model": "b"}]}]}, service)
		answer = effective(gw, models)
		assert (answer["resourceType"], answer["resourceId"]) == ("LLMApi", models.id)
		assert ("RateLimit", "LLMApi", "Runs") in brief(answer) and ("AiFallback", "Service", "Runs") in brief(answer)
		assert {name for name, *_ in brief(answer)} == {"RateLimit", "AiStatistics", "AiFallback"}
		answer = effective(gw, agents)
		assert answer["resourceType"] == "AgentApi" and ("AiStatistics", "AgentApi", "Runs") in brief(answer)
		for flag, api in (("--llm-api", models), ("--agent-api", agents)):
			done = sluice(gw, flag, api.name)
			assert done.returncode == 0 and "AiStatistics" in done.stdout and api.name in done.stdout, done


@pytest.mark.parametrize("arguments, code, words", [
	([], 2, "name a route"),
	(["--llm-api", "a", "--agent-api", "b"], 2, "name a route"),
	(["--route", "a", "--api", "b"], 2, "name a route"),
	(["--route"], 2, "--route: needs a value"),
	(["--rout", "a"], 2, "--rout: is not a known flag"),
	(["--route", "a", "b"], 2, "b: is one argument too many"),
	(["--route", "a", "--quiet=1"], 2, "--quiet: takes no value"),
	(["--route", "a", "-o", "xml"], 2, '--output: must be table or json, not "xml"'),
	(["--operation", "o", "--route", "r"], 2, "--operation: needs --api"),
	(["--route", "no-such-route"], 1, 'nothing in /api/v1/routes has the id or the name "no-such-route"'),
])
def test_command_refuses(gw, arguments, code, words):
	done = sluice(gw, *arguments)
	assert (done.returncode, done.stdout) == (code, "") and words in done.stderr, done


def ask_at(server, gw, token=None, **environment):
	return subprocess.run([PROGRAM, "policy", "effective", "--route", "x", "--server", server, "--token-file",
		token or os.path.join(gw.data, "admin.token")], capture_output=True, text=True, timeout=60, check=False,
		stdin=subprocess.DEVNULL, env={**os.environ, **environment})


def test_servers_that_cannot_be_asked(gw, tmp_path):
	for server, code, words in [
		("http://127.0.0.1:1", 3, "cannot be reached: Connection refused"),
		("http://192.0.2.1:9070", 2, "is not this machine: the token goes with every call, so use https"),
		("127.0.0.1:9070", 2, "is no URL such as http://127.0.0.1:9070"),
		(f"http://{gw.admin}/api", 2, "is no URL such as"),
		("http://no-such-host.invalid:1", 2, "does not resolve"),
		(f"https://{gw.admin}", 3, f"https://{gw.admin} "),
		(f"http://localhost:{gw.default.port}", 3, ""),
	]:
		done = ask_at(server, gw)
		assert done.returncode == code or (code == 3 and done.returncode == 1), (server, done)
		assert words in done.stderr and done.stdout == "" and "Sanitizer" not in done.stderr, (server, done)
	empty = tmp_path / "token"
	empty.write_text("\n")
	for token, words in [(str(tmp_path / "none"), "cannot be read: No such file"), (str(empty), "holds no token")]:
		done = ask_at(f"http://{gw.admin}", gw, token)
		assert done.returncode == 2 and words in done.stderr
	empty.write_text("x" * 40)
	done = ask_at(f"http://{gw.admin}", gw, str(empty))
	assert done.returncode == 1 and "401 ErrUnauthorized: the token is not valid" in done.stderr


def test_server_and_token_from_the_environment(gw, backend, path):
	route = gw.route(path, backend)
	environment = {**os.environ, "SLUICE_SERVER": f"http://{gw.admin}/", "SLUICE_DATA": gw.data}
	done = subprocess.run([PROGRAM, "policy", "effective", "--route", route.id], capture_output=True, text=True, timeout=60, check=False,
		stdin=subprocess.DEVNULL, env=environment)
	assert done.returncode == 0 and route.name in done.stdout
