"""Policies as resources: what may be created, where it may be attached and beside whom, what an attachment says of itself, and how
several classes on one request go together. policy_rejects.json has the reject lists of the contracts: class, rule, members that are
put into the sample of the reference (null takes one out), and the path that the complaint has to name.
"""
import json
import pathlib
import threading

import pytest
from gw import numbers
from policy_kit import (as_text, burst, check_error, cors, count, direct, headers, ip_list, op, phase, preflight, rate,
	rest_api)
from wire import wait_until

HERE = pathlib.Path(__file__).parent
SAMPLES = HERE.parent / "seeds/data"
REJECTS = json.loads((HERE / "policy_rejects.json").read_text())
POLICIES, ATTACHMENTS = "/api/v2/policies", "/api/v1/policy-attachments"

# The scope matrix of the contract. LLMApi and AgentApi go where Route goes but for four classes.
ROUTE_ONLY = ["Route", "Operation"]
WITH_APIS = ["Route", "Api", "Operation"]
EVERY_ROUTE = [*WITH_APIS, "LLMApi", "AgentApi"]
EDGES = [*EVERY_ROUTE, "Gateway", "Domain"]
SCOPES = {
	"RateLimit": [*EDGES, "Service"], "ConcurrencyLimit": EDGES, "CircuitBreaker": [*EVERY_ROUTE, "Service"],
	"Timeout": [*EVERY_ROUTE, "Service"], "Retry": [*EVERY_ROUTE, "Service"], "HttpRewrite": WITH_APIS, "HeaderModify": EDGES,
	"Redirect": ROUTE_ONLY, "DirectResponse": ROUTE_ONLY, "Fallback": [*ROUTE_ONLY, "Service"], "DynamicRoute": ["Gateway"],
	"AiStatistics": EVERY_ROUTE, "AiSecurityGuard": ["Service"], "AiFallback": ["Service"], "AiTokenRateLimit": EVERY_ROUTE,
	"AiCache": EVERY_ROUTE, "AiNetworkSearch": EVERY_ROUTE, "AiToolSelection": EVERY_ROUTE, "Authentication": EDGES,
	"JWTAuth": EDGES, "OIDCAuth": EDGES, "ExternalZAuth": EDGES, "Waf": EDGES, "IpAccessControl": EDGES, "Cors": EDGES,
	"FlowCopy": EVERY_ROUTE, "ServiceTls": ["Service"], "ServiceLb": ["Service"], "ServicePortTls": ["ServicePort"],
}
NEED_ENVIRONMENT = ["Route", "Api", "Operation", "LLMApi", "AgentApi"]
NEED_GATEWAY = ["Route", "Gateway", "Domain", "Service", "ServicePort", "LLMApi", "AgentApi"]
# Some whose sample fits any route.
SIMPLE = ["RateLimit", "HeaderModify", "DirectResponse", "IpAccessControl", "Cors"]


def sample(name):
	return json.loads((SAMPLES / f"config-{'ServiceTls' if name == 'ServicePortTls' else name}.json").read_text())


def create(gw, name, config):
	return gw.api("POST", POLICIES, {"name": f"policy-{next(numbers)}", "className": name, "config": as_text(config)})


def attach(gw, policy, to, **more):
	"""The API's answer. A member given as None is left out."""
	body = {"attachResourceId": to.id, "attachResourceType": to.type, "gatewayId": to.gateway, "environmentId": to.environment,
		"policyId": policy.id, **more}
	return gw.api("POST", ATTACHMENTS, {name: value for name, value in body.items() if value is not None})


def body_of(policy, to, **more):
	return {"attachResourceId": to.id, "attachResourceType": to.type, "gatewayId": to.gateway, "environmentId": to.environment,
		"policyId": policy.id, **more}


def refuse(gw, policy, to, status, field, **more):
	code = {400: "ErrInvalidParameter", 404: "ErrNotFound", 409: "ErrConflict"}[status]
	before = gw.ask("GET", ATTACHMENTS)["totalSize"]
	answer = attach(gw, policy, to, **more)
	check_error(answer, status, code, field)
	assert gw.ask("GET", ATTACHMENTS)["totalSize"] == before
	return answer[1]["errorMessage"]


@pytest.fixture(scope="module")
def holders(gw, backend_process):
	"""One resource of each type that policies can be attached to."""
	site = gw.gateway()
	service = gw.service(backend_process, site)
	api = rest_api(gw, service, site)
	port = gw.ask("GET", f"{service.path}/ports")["items"][0]
	ai = {"gatewayId": site.id, "environmentId": site.environment, "services": [{"serviceId": service.id, "weight": 100}]}
	llm = gw.create("LLMApi", "/api/v1/llm-apis", "llmApiId", {"name": "holder-llm", "basePath": "/holder-llm", "aiProtocols": ["OpenAI/v1"],
		"removeBasePathOnForward": True, **ai})
	agent = gw.create("AgentApi", "/api/v1/agent-apis", "agentApiId", {"name": "holder-agent", "basePath": "/holder-agent", "protocol": "Dify",
		**ai, "services": [{"serviceId": service.id}]})
	made = [site, gw.domain("holder.test", site), gw.route("/holder", service, site=site), api, api.operation("GET", "/x"), service, llm, agent,
		type(site)("ServicePort", port["servicePortId"], None)]
	for holder in made[1:]:
		holder.gateway, holder.environment = site.id, site.environment if holder.type in NEED_ENVIRONMENT else None
	return {holder.type: holder for holder in made}


@pytest.fixture
def new_route(gw, backend):
	def make(site=None):
		base = f"/policies-{next(numbers)}"
		route = gw.route(base, backend, site=site)
		route.base, route.echo = base, f"{base}/echo"
		return route
	return make


# ---- configs ----

@pytest.mark.parametrize("name", SCOPES)
def test_reject_list(gw, name):
	wrong, rows = [], [row for row in REJECTS if row[0] == name]
	before = gw.ask("GET", POLICIES)["totalSize"]
	for _, rule, members, path in rows:
		config = {key: value for key, value in {**sample(name), **members}.items() if value is not None}
		status, answer, _ = create(gw, name, config)
		message = (answer or {}).get("errorMessage", "")
		start = f"Invalid parameter: config.{path}"
		if status != 400 or answer["errorCode"] != "ErrInvalidParameter" or not (message == start or message.startswith(start + ":")):
			wrong.append(f"{rule}: {status} {answer}")
	assert not wrong, f"{len(wrong)} of {len(rows)}:\n" + "\n".join(wrong)
	assert rows and gw.ask("GET", POLICIES)["totalSize"] == before


@pytest.mark.parametrize("text", ['{"unitNum":NaN,"timeUnit":"s","enable":true}', '{"unitNum":Infinity,"timeUnit":"s","enable":true}',
	'{"unitNum":1e999,"timeUnit":"s","enable":true}', '{"unitNum":-1e999,"timeUnit":"s","enable":true}'])
def test_numbers_that_are_none(gw, text):
	status, answer, _ = gw.api("POST", POLICIES, {"name": "p", "className": "Timeout", "config": text})
	assert status == 400 and answer["errorMessage"].startswith("Invalid parameter: config"), answer


def test_update_is_judged_like_create(gw, new_route):
	"""A bad config changes nothing: what was in force stays."""
	route = new_route()
	attachment = gw.attach("DirectResponse", direct("200", "one"), to=route)
	policy = attachment.policy
	for config, member in ((direct("302"), "code"), ({"code": "200", "enable": True}, "body"), (direct("200", "x", more=1), "more")):
		answer = gw.api("PUT", policy.path, {**policy.body, "config": as_text(config)})
		check_error(answer, 400, "ErrInvalidParameter", f"config.{member}")
		assert gw.get(route.echo).text == "one"
	check_error(gw.api("PUT", policy.path, {**policy.body, "className": "Cors", "config": as_text(cors())}), 400, "ErrInvalidParameter", "className")
	assert json.loads(gw.ask("GET", policy.path)["config"]) == direct("200", "one")
	assert gw.get(route.echo).text == "one"


# ---- scopes ----

@pytest.mark.parametrize("name", SCOPES)
def test_scope_matrix(gw, holders, name):
	wrong = []
	for kind, holder in holders.items():
		config = sample(name)
		if name == "IpAccessControl":
			config["ipAccessControlResourceType"] = kind if kind in ("Gateway", "Domain") else "Route"
		policy = gw.policy(name, config)
		status, answer, _ = attach(gw, policy, holder)
		about_scope = status == 400 and answer["errorMessage"].startswith("Invalid parameter: attachResourceType:")
		if about_scope == (kind in SCOPES[name]):
			wrong.append(f"{kind}: {status} {answer}")
		if status == 200:
			gw.ask("DELETE", f"{ATTACHMENTS}/{answer['policyAttachmentId']}")
		gw.ask("DELETE", policy.path)
	assert not wrong, "\n".join(wrong)


def test_listing_of_classes(gw):
	page = gw.ask("GET", "/api/v1/policy-classes?pageSize=100")
	items = {item["className"]: item for item in page["items"]}
	assert page["totalSize"] == len(page["items"]) == 29
	assert list(items) == list(SCOPES), "the order of the reference"
	for name, item in items.items():
		assert sorted(item["attachableResourceTypes"]) == sorted(SCOPES[name]), name
		assert {"alias", "classId", "configExample", "deprecated", "direction", "executeStage", "executePriority", "version"} <= set(item)
		assert item["direction"] in ("InBound", "OutBound", "Both")
	assert all(item["enforced"] for item in items.values())


def test_listed_examples_are_accepted(gw):
	items = gw.ask("GET", "/api/v1/policy-classes?pageSize=100")["items"]
	refused = {item["className"]: create(gw, item["className"], json.loads(item["configExample"]))[1].get("errorMessage") for item in items}
	assert not {name: message for name, message in refused.items() if message}


def test_listing_tells_the_order_of_execution(gw):
	items = {item["className"]: item for item in gw.ask("GET", "/api/v1/policy-classes?pageSize=100")["items"]}
	named = {"IpAccessControl": ("PluginAuthorization", 900), "Cors": ("PluginPre", 800), "JWTAuth": ("PluginAuthentication", 700),
		"RateLimit": ("PluginDefault", 600), "ConcurrencyLimit": ("PluginDefault", 590), "Redirect": ("PluginDefault", 580),
		"CircuitBreaker": ("PluginDefault", 570), "DynamicRoute": ("PluginDefault", 560), "HeaderModify": ("PluginDefault", 540),
		"HttpRewrite": ("PluginDefault", 530), "FlowCopy": ("PluginPost", 510), "Timeout": ("PluginPost", 500), "Retry": ("PluginPost", 500)}
	assert {name: (items[name]["executeStage"], items[name]["executePriority"]) for name in named} == named
	between = [("Cors", "Waf", "JWTAuth"), ("JWTAuth", "Authentication", "RateLimit"), ("ConcurrencyLimit", "DirectResponse", "CircuitBreaker"),
		("DynamicRoute", "AiStatistics", "HeaderModify"), ("HttpRewrite", "AiSecurityGuard", "FlowCopy")]
	for names in between:
		priorities = [items[name]["executePriority"] for name in names]
		assert priorities == sorted(priorities, reverse=True), names
	stages = {"PluginStatistic", "PluginAuthorization", "PluginPre", "PluginAuthentication", "PluginDefault", "PluginPost"}
	assert {item["executeStage"] for item in items.values()} <= stages


def test_listing_can_be_filtered(gw):
	for kind in ("Gateway", "Service", "ServicePort", "LLMApi"):
		page = gw.ask("GET", f"/api/v1/policy-classes?attachResourceType={kind}&pageSize=100")
		assert {item["className"] for item in page["items"]} == {name for name, kinds in SCOPES.items() if kind in kinds}
	page = gw.ask("GET", "/api/v1/policy-classes?pageNumber=3")
	assert (len(page["items"]), page["totalSize"], page["pageNumber"], page["pageSize"]) == (9, 29, 3, 10)
	check_error(gw.api("GET", "/api/v1/policy-classes?attachResourceType=Planet"), 400, "ErrInvalidParameter", "attachResourceType")


# ---- members of an attachment ----

@pytest.mark.parametrize("kind", NEED_ENVIRONMENT)
def test_environment_is_required(gw, holders, kind):
	policy = gw.policy("HeaderModify", sample("HeaderModify"))
	for value in (None, "", "*"):
		refuse(gw, policy, holders[kind], 400, "environmentId", environmentId=value)


@pytest.mark.parametrize("kind", NEED_GATEWAY)
def test_gateway_is_required(gw, holders, kind):
	policy = gw.policy("RateLimit", rate(1))
	for value in (None, ""):
		refuse(gw, policy, holders[kind], 400, "gatewayId", gatewayId=value)


@pytest.mark.parametrize("member", ["attachResourceId", "attachResourceType", "policyId"])
def test_members_are_required(gw, holders, member):
	refuse(gw, gw.policy("RateLimit", rate(1)), holders["Route"], 400, member, **{member: None})


@pytest.mark.parametrize("kind", SCOPES["HeaderModify"])
def test_consistent_ids_are_accepted_and_completed(gw, holders, kind):
	"""Ids that are not needed may be given; they are read back, "*" where no environment applies."""
	holder, site = holders[kind], holders["Gateway"]
	for extra in ({}, {"gatewayId": site.id, "environmentId": site.environment}):
		policy = gw.policy("HeaderModify", sample("HeaderModify"))
		status, answer, _ = attach(gw, policy, holder, **extra)
		assert status == 200, answer
		assert set(answer) == {"policyAttachmentId", "policyId"} and answer["policyId"] == policy.id
		path = f"{ATTACHMENTS}/{answer['policyAttachmentId']}"
		item = gw.ask("GET", path)
		assert (item["attachResourceType"], item["attachResourceId"], item["attachResourceIds"]) == (kind, holder.id, [holder.id])
		assert (item["gatewayId"], item["environmentId"]) == (site.id, site.environment if kind in NEED_ENVIRONMENT else "*")
		gw.ask("DELETE", path)


@pytest.mark.parametrize("alias, kind", [("HttpApi", "Api"), ("GatewayRoute", "Route"), ("GatewayService", "Service"),
	("GatewayServicePort", "ServicePort")])
def test_aliases(gw, holders, alias, kind):
	name = "ServicePortTls" if kind == "ServicePort" else "RateLimit"
	policy = gw.policy(name, {"mode": "DISABLE"} if name == "ServicePortTls" else rate(1000))
	status, answer, _ = attach(gw, policy, holders[kind], attachResourceType=alias)
	assert status == 200, answer
	path = f"{ATTACHMENTS}/{answer['policyAttachmentId']}"
	assert gw.ask("GET", path)["attachResourceType"] == kind
	refuse(gw, gw.policy(name, json.loads(policy.body["config"])), holders[kind], 409, "attachResourceId")
	gw.ask("DELETE", path)


@pytest.mark.parametrize("member, value, status", [
	("attachResourceId", "route-none", 404), ("gatewayId", "gw-none", 404), ("environmentId", "env-none", 404), ("policyId", "policy-none", 404),
	("attachResourceType", "Planet", 400), ("attachResourceType", "route", 400), ("attachResourceId", ",", 400)])
def test_ids_that_do_not_exist(gw, holders, member, value, status):
	refuse(gw, gw.policy("RateLimit", rate(1)), holders["Route"], status, member, **{member: value})


def test_ids_that_do_not_belong_together(gw, holders):
	other = gw.gateway()
	policy = gw.policy("RateLimit", rate(1))
	refuse(gw, policy, holders["Route"], 400, "environmentId", environmentId=other.environment)
	refuse(gw, policy, holders["Service"], 400, "gatewayId", gatewayId=other.id)
	refuse(gw, policy, holders["Domain"], 400, "gatewayId", gatewayId=other.id)
	refuse(gw, policy, holders["Gateway"], 400, "gatewayId", gatewayId=other.id, environmentId=None)
	second = gw.create("Environment", "/api/v1/environments", "environmentId",
		{"name": f"second-{next(numbers)}", "alias": "s", "gatewayId": holders["Gateway"].id})
	refuse(gw, policy, holders["Route"], 400, "environmentId", environmentId=second.id)
	# The id is of another type of resource.
	refuse(gw, policy, holders["Route"], 404, "attachResourceId", attachResourceId=holders["Service"].id)


def test_several_resources_all_or_nothing(gw, new_route):
	one, two = new_route(), new_route()
	policy = gw.policy("DirectResponse", direct())
	refuse(gw, policy, one, 404, "attachResourceId", attachResourceId=f"{one.id},route-none,{two.id}")
	refuse(gw, policy, one, 400, "attachResourceId", attachResourceId=f"{one.id},,{two.id}")
	refuse(gw, policy, one, 400, "attachResourceId", attachResourceId=f"{one.id},{one.id}")
	assert gw.get(one.echo).text != "direct"
	status, answer, _ = attach(gw, policy, one, attachResourceId=f" {one.id} , {two.id}")
	assert status == 200, answer
	item = gw.ask("GET", f"{ATTACHMENTS}/{answer['policyAttachmentId']}")
	assert (item["attachResourceIds"], item["attachResourceId"]) == ([one.id, two.id], f"{one.id},{two.id}")
	assert [gw.get(route.echo).text for route in (one, two)] == ["direct", "direct"]
	# A second one of the class is refused at each of them, and by that for all.
	refuse(gw, gw.policy("DirectResponse", direct()), one, 409, "attachResourceId", attachResourceId=f"{new_route().id},{two.id}")


def test_deleting_one_of_several_resources(gw, new_route):
	"""The others keep their policy."""
	one, two = new_route(), new_route()
	attachment = gw.attach("DirectResponse", direct(), to=one, attachResourceId=f"{one.id},{two.id}")
	gw.ask("DELETE", one.path)
	assert gw.get(two.echo).text == "direct"
	assert gw.ask("GET", attachment.path)["attachResourceIds"] == [two.id]
	gw.ask("DELETE", two.path)
	assert gw.api("GET", attachment.path)[0] == 404


# ---- beside whom ----

@pytest.mark.parametrize("kind", SCOPES["RateLimit"])
def test_class_twice_on_one_resource(gw, holders, kind):
	first = gw.attach("RateLimit", rate(100000), to=holders[kind])
	second = gw.policy("RateLimit", rate(200000))
	refuse(gw, second, holders[kind], 409, "attachResourceId")
	refuse(gw, first.policy, holders[kind], 409, "policyId")
	gw.delete(first)
	status, answer, _ = attach(gw, second, holders[kind])
	assert status == 200, "the place is free again"
	gw.ask("DELETE", f"{ATTACHMENTS}/{answer['policyAttachmentId']}")


def test_class_twice_even_when_disabled(gw, new_route):
	route = new_route()
	gw.attach("Cors", cors(enable=False), to=route)
	refuse(gw, gw.policy("Cors", cors()), route, 409, "attachResourceId")


def test_several_address_lists_are_legal(gw, new_route):
	route = new_route()
	for content in ("127.0.0.1", "127.0.0.0/8", "0.0.0.0/0"):
		gw.attach("IpAccessControl", ip_list("White", content), to=route)
	assert gw.get(route.echo).status == 200


def test_two_terminals_on_one_route(gw, new_route):
	for names in (("Redirect", "DirectResponse"), ("DirectResponse", "Redirect")):
		route = new_route()
		configs = {"Redirect": sample("Redirect"), "DirectResponse": direct()}
		gw.attach(names[0], configs[names[0]], to=route)
		refuse(gw, gw.policy(names[1], configs[names[1]]), route, 409, "attachResourceId")


def test_different_classes_and_different_resources_do_not_conflict(gw, new_route):
	route, other = new_route(), new_route()
	for to in (route, other):
		for name in SIMPLE:
			gw.attach(name, {**sample(name), "ipAccessControlType": "Black"} if name == "IpAccessControl" else sample(name), to=to)


# ---- what the config refers to ----

def test_attach_checks_services(gw, backend):
	site, other = gw.gateway(), gw.gateway()
	primary, second, foreign = gw.service(backend, site), gw.service(backend, site), gw.service(backend, other)
	grpc = gw.service("127.0.0.1:50051", site, ports=[{"name": "g", "port": 50051, "protocol": "GRPC"}])
	route = gw.route(f"/policies-{next(numbers)}", primary, site=site)

	def fallback(service_id, **more):
		return gw.policy("Fallback", {"fallBackDestination": [{"serviceId": second.id}, {"serviceId": service_id, **more}]})

	place = "config.fallBackDestination[1]"
	for service_id in ("svc-none", foreign.id, primary.id):
		refuse(gw, fallback(service_id), route, 400, f"{place}.serviceId")
	refuse(gw, fallback(second.id, port="1"), route, 400, f"{place}.port")
	refuse(gw, fallback(second.id, serviceVersion="v9"), route, 400, f"{place}.serviceVersion")
	for service_id in ("svc-none", foreign.id, grpc.id):
		refuse(gw, gw.policy("FlowCopy", {"targetServiceId": service_id}), route, 400, "config.targetServiceId")
	for target in (second, primary):
		policy = gw.policy("FlowCopy", {"targetServiceId": target.id})
		status, answer, _ = attach(gw, policy, route)
		assert status == 200, answer
		gw.ask("DELETE", f"{ATTACHMENTS}/{answer['policyAttachmentId']}")
	mapping = {"fallbackModelMappings": [{"model": "m", "fallbackModels": [{"serviceId": "svc-none", "model": "n"}]}]}
	refuse(gw, gw.policy("AiFallback", mapping), primary, 400, "config.fallbackModelMappings[0].fallbackModels[0].serviceId")


def test_attach_checks_routes(gw, backend):
	pattern = gw.route("^/policies-regex/.*$", backend, type="Regex")
	refuse(gw, gw.policy("HttpRewrite", {**sample("HttpRewrite"), "pathType": "Prefix"}), pattern, 400, "config.pathType")
	exact = gw.route("/policies-exact", backend, type="Exact")
	refuse(gw, gw.policy("Redirect", {"code": "302", "host": "", "path": "/policies-exact"}), exact, 400, "config.path")


@pytest.mark.parametrize("config, member", [
	({"mode": "ISTIO_MUTUAL"}, "mode"), ({"mode": "MUTUAL", "certId": "cert-none"}, "certId"), ({"mode": "SIMPLE", "caCertId": "cert-none"}, "caCertId"),
	({"mode": "SIMPLE", "caCertContent": "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----"}, "caCertContent"),
	({"mode": "SIMPLE", "caCertContent": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"}, "caCertContent")])
def test_attach_checks_certificates(gw, holders, config, member):
	refuse(gw, gw.policy("ServiceTls", config), holders["Service"], 400, f"config.{member}")
	refuse(gw, gw.policy("ServicePortTls", config), holders["ServicePort"], 400, f"config.{member}")


# ---- life and death ----

def test_policy_with_attachments_stays(gw, new_route):
	one, two = new_route(), new_route()
	first = gw.attach("HeaderModify", headers(op("Response", "Update", "X-M", "1")), to=one)
	second = gw.ask("POST", ATTACHMENTS, body_of(first.policy, two))["policyAttachmentId"]
	answer = gw.api("DELETE", first.policy.path)
	check_error(answer, 409, "ErrConflict", "policyId")
	assert "2" in answer[1]["errorMessage"], "names the count"
	gw.ask("DELETE", f"{ATTACHMENTS}/{second}")
	check_error(gw.api("DELETE", first.policy.path), 409, "ErrConflict", "policyId")
	assert [gw.get(route.echo).header("X-M") for route in (one, two)] == ["1", None]
	gw.ask("DELETE", first.path)
	gw.ask("DELETE", first.policy.path)
	assert gw.api("GET", first.policy.path)[0] == 404


@pytest.mark.parametrize("kind", ["Gateway", "Domain", "Service", "Route", "Api", "Operation"])
def test_deleting_a_resource_deletes_its_attachments(gw, backend, kind):
	site = gw.gateway()
	if kind in ("Api", "Operation"):
		holder = rest_api(gw, backend, site)
		holder = holder if kind == "Api" else holder.operation("GET", "/x")
	else:
		holder = {"Gateway": lambda: site, "Domain": lambda: gw.domain("gone.test", site), "Service": lambda: gw.service(backend, site),
			"Route": lambda: gw.route("/gone", backend, site=site)}[kind]()
	attachment = gw.attach("RateLimit", rate(1), to=holder)
	check_error(gw.api("DELETE", attachment.policy.path), 409, "ErrConflict", "policyId")
	gw.ask("DELETE", holder.path)
	assert gw.api("GET", attachment.path)[0] == 404
	gw.ask("DELETE", attachment.policy.path)


def test_attachment_has_no_update(gw, new_route):
	attachment = gw.attach("RateLimit", rate(1), to=new_route())
	item = gw.ask("GET", attachment.path)
	status, answer, _ = gw.api("PUT", attachment.path, item)
	assert (status, answer["errorCode"]) == (405, "ErrMethodNotAllowed")


def test_attachments_can_be_found(gw, new_route):
	route = new_route()
	one = gw.attach("RateLimit", rate(1), to=route)
	two = gw.attach("Cors", cors(), to=route)
	for query, expected in ((f"attachResourceId={route.id}", {one.id, two.id}), (f"policyId={two.policy.id}", {two.id})):
		items = gw.ask("GET", f"{ATTACHMENTS}?{query}")["items"]
		assert {item["policyAttachmentId"] for item in items} == expected
	assert {item["className"] for item in gw.ask("GET", f"{ATTACHMENTS}?attachResourceId={route.id}")["items"]} == {"RateLimit", "Cors"}


# ---- values of a variant that was not chosen (C6) ----

UNUSED = [
	("RateLimit", {"responseRedirectUrl": "x" * 3000}, {"responseRedirectUrl": 5}, "responseRedirectUrl"),
	("CircuitBreaker", {"strategy": 1, "maxAllowedMs": -5}, {"strategy": 1, "maxAllowedMs": "5"}, "maxAllowedMs"),
	("ServiceLb", {"loadBalancerType": "RANDOM", "consistentHashLBConfig": {"minimumRingSize": -1}},
		{"loadBalancerType": "RANDOM", "consistentHashLBConfig": {"minimumRingSize": "many"}}, "consistentHashLBConfig"),
]


@pytest.mark.parametrize("name,good,bad,field", UNUSED, ids=[row[0] for row in UNUSED])
def test_values_of_a_variant_that_was_not_chosen(gw, name, good, bad, field):
	"""Passed over whatever they are, but of the right type."""
	status, answer, _ = create(gw, name, {**sample(name), **good})
	assert status == 200, answer
	status, answer, _ = create(gw, name, {**sample(name), **bad})
	assert status == 400 and f"config.{field}" in answer["errorMessage"], answer


# ---- status ----

@pytest.mark.parametrize("name", SIMPLE)
def test_status_of_an_enforced_class(gw, new_route, name):
	config = sample(name)
	attachment = gw.attach(name, config, to=new_route())
	assert phase(gw, attachment) == "Active"
	gw.change_policy(attachment, {**config, "enable": False})
	assert phase(gw, attachment) == "Disabled"
	gw.change_policy(attachment, config)
	assert phase(gw, attachment) == "Active"


@pytest.mark.parametrize("kind", ["LLMApi", "AgentApi"])
def test_status_at_apis_of_models_and_agents(gw, holders, kind):
	attachment = gw.attach("RateLimit", rate(1), to=holders[kind])
	assert phase(gw, attachment) == "Active"
	gw.delete(attachment)


# ---- several classes on one request ----

def test_order_of_the_request_leg(gw, new_route):
	"""Address, CORS, limit, fixed answer: each in front is taken away in turn, and the next one answers."""
	route = new_route()
	steps = [
		gw.attach("DirectResponse", direct("418"), to=route),
		gw.attach("RateLimit", rate(1, responseStatusCode=429), to=route),
		gw.attach("Cors", cors(), to=route),
		gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=route),
	]
	for _ in range(3):
		assert preflight(gw, route.echo).status == 403
	gw.delete(steps.pop())
	assert (preflight(gw, route.echo).status, preflight(gw, route.echo, "https://evil.test").status) == (200, 403)
	assert count(burst(gw, 3, route.echo)) == {418: 1, 429: 2}, "what was denied before has not been counted"
	gw.delete(steps.pop())
	gw.delete(steps.pop())
	assert count(burst(gw, 3, route.echo)) == {418: 3}
	gw.delete(steps.pop())
	assert gw.get(route.echo).status == 200


def test_order_is_not_that_of_attaching(gw, new_route):
	route = new_route()
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=route)
	gw.attach("Cors", cors(), to=route)
	gw.attach("RateLimit", rate(1), to=route)
	gw.attach("DirectResponse", direct(), to=route)
	assert gw.get(route.echo).status == 403


def test_stage_goes_before_level(gw, backend):
	"""The route's address list runs before the gateway's limit."""
	site = gw.gateway()
	denied, free = (gw.route(base, backend, site=site) for base in ("/denied", "/free"))
	gw.attach("RateLimit", rate(2), to=site)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=denied)
	assert count(burst(gw, 5, "/denied/size/1", site)) == {403: 5}
	assert count(burst(gw, 3, "/free/size/1", site)) == {200: 2, 429: 1}
	assert free.id != denied.id


def test_response_leg_of_every_refusal(gw, backend):
	"""429, 403, 404 and a fixed answer all get the headers of HeaderModify and of Cors, CORS last."""
	site = gw.gateway()
	limited, denied, fixed = (gw.route(base, backend, site=site) for base in ("/limited", "/denied", "/fixed"))
	gw.attach("HeaderModify", headers(op("Response", "Update", "X-Mark", "1"), op("Response", "Update", "Access-Control-Allow-Origin", "x")), to=site)
	gw.attach("Cors", cors(), to=site)
	gw.attach("RateLimit", rate(1), to=limited)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8"), to=denied)
	gw.attach("DirectResponse", direct("204", ""), to=fixed)
	gw.get("/limited/size/1", site=site)
	for target, status in (("/limited/size/1", 429), ("/denied", 403), ("/none", 404), ("/fixed", 204)):
		for method in ("GET", "HEAD"):
			answer = gw.request(method, target, {"Origin": "https://example.com"}, site=site)
			assert answer.status == status
			assert (answer.header("X-Mark"), answer.header("Access-Control-Allow-Origin")) == ("1", "https://example.com")


def test_without_a_route_only_judges_act(gw):
	"""IP lists and CORS of gateway and domain judge, limits do not count, then 404."""
	site = gw.gateway()
	domain = gw.domain("judged.test", site)
	gw.attach("RateLimit", rate(1), to=site)
	gw.attach("RateLimit", rate(1), to=domain)
	answers = [gw.get("/none", host="judged.test", site=site) for _ in range(5)]
	assert {answer.status for answer in answers} == {404}
	assert answers[0].json["errorCode"] == "ErrNotFound"
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8", "Domain"), to=domain)
	assert gw.get("/none", host="judged.test", site=site).status == 403
	assert gw.get("/none", host="else.test", site=site).status == 404


# ---- changes under traffic ----

def test_changes_drop_no_connection(gw, backend):
	"""Clients on kept connections while all five classes come, change and go."""
	route = gw.route("/policies-busy", backend)
	stop, problems, answered = threading.Event(), [], []

	def ask():
		try:
			while not stop.is_set():
				ask_many()
		except BaseException as problem:
			problems.append(problem)

	def ask_many():
		"""Fewer than a connection may carry."""
		with gw.connect() as connection:
			for _ in range(5000):
				if stop.is_set():
					return
				answer = connection.get("/policies-busy/size/3", {"Origin": "https://example.com"})
				assert answer.status in (200, 418, 403, 429), answer
				assert answer.header("Connection") != "close"
				answered.append(answer.status)

	threads = [threading.Thread(target=ask) for _ in range(3)]
	for thread in threads:
		thread.start()
	configs = {"RateLimit": [rate(100000), rate(1)], "HeaderModify": [headers(op("Request", "Update", "X-A", str(i))) for i in range(2)],
		"DirectResponse": [direct("418", "x"), direct("200", "abc")], "IpAccessControl": [ip_list("White", "127.0.0.1"), ip_list("Black", "127.0.0.1")],
		"Cors": [cors(), cors("*")]}
	try:
		for _ in range(4):
			attached = [(gw.attach(name, config[0], to=route), config) for name, config in configs.items()]
			for attachment, config in attached:
				gw.change_policy(attachment, config[1])
				gw.change_policy(attachment, {**config[0], "enable": False})
				gw.change_policy(attachment, config[0])
			for attachment, _ in attached:
				gw.delete(attachment)
		before = len(answered)
		wait_until(lambda: len(answered) > before + 20 or problems, 10, "traffic after the changes")
	finally:
		stop.set()
		for thread in threads:
			thread.join()
	assert not problems
	assert {200, 418, 403} <= set(answered)
