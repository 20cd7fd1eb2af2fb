"""The control API: one rule at a time, over all resources where the rule is general."""
import http.client
import json
import pathlib
import re
import socket

import pytest
from gw import free_port, numbers
from wire import Connection

RATE = {"threshold": 5, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}
MESHES = "/v2/meshes/default/gateways"


@pytest.fixture(scope="module")
def site(gw):
	return gw.default


@pytest.fixture(scope="module")
def world(gw, site):
	"""One resource of every kind that can be created, by collection path."""
	service = gw.service(["127.0.0.1:9"], site)
	api = gw.create("Api", "/api/v1/http-apis", "httpApiId", {"name": "world-api", "gatewayId": site.id, "basePath": "/world-api",
		"environmentId": site.environment, "backend": {"scene": "SingleService", "services": [{"serviceId": service.id}]}})
	consumer = gw.create("Consumer", "/api/v1/consumers", "consumerId", {"name": "world-consumer", "enable": True})
	route = gw.route("/world", service, site=site)
	made = [
		gw.create("Environment", "/api/v1/environments", "environmentId", {"name": "world-env", "alias": "w", "gatewayId": site.id}),
		gw.domain("world.test", site), service, route, api,
		gw.create("Operation", f"{api.path}/operations", "operationId", {"name": "world-op", "method": "GET", "path": "/{id}"}),
		gw.create("LLMApi", "/api/v1/llm-apis", "llmApiId", {"name": "world-llm", "gatewayId": site.id, "basePath": "/world-llm",
			"environmentId": site.environment, "removeBasePathOnForward": True, "aiProtocols": ["OpenAI/v1"],
			"services": [{"serviceId": service.id, "weight": 100}]}),
		gw.create("AgentApi", "/api/v1/agent-apis", "agentApiId", {"name": "world-agent", "gatewayId": site.id,
			"environmentId": site.environment, "basePath": "/world-agent", "protocol": "Dify",
			"services": [{"serviceId": service.id}]}),
		consumer, gw.policy("RateLimit", RATE), gw.attach("RateLimit", RATE, to=route),
	]
	return {thing.type: thing for thing in made}


KINDS = ["Environment", "Domain", "Service", "Route", "Api", "Operation", "LLMApi", "AgentApi", "Consumer", "Policy", "Attachment"]
REPLACEABLE = [kind for kind in KINDS if kind != "Attachment"]


def check_error(answer, status, code=None, mentions=None):
	got, body, headers = answer
	assert got == status, answer[:2]
	assert set(body) == {"errorCode", "errorMessage", "requestId"}, body
	assert headers["X-Request-Id"] == body["requestId"]
	if code:
		assert body["errorCode"] == code, body
	if mentions:
		assert mentions in body["errorMessage"], body


def check_asm(answer, status, code):
	got, body, _ = answer
	assert got == status, answer[:2]
	assert body["errorCode"] == code, body
	assert set(body) <= {"errorCode", "errorMsg", "requestId"}


def gateway_body(**more):
	port = more.pop("port", None) or free_port()
	return {"cluster": "local", "gateway": f"g-control-{next(numbers)}", "namespace": "default", "elbId": "elb",
		"externalPort": {"number": str(port), "protocol": more.pop("protocol", "HTTP"), "hosts": ["*"]},
		"serviceType": "LoadBalancer", "externalIPs": ["127.0.0.1"], "maxProtocolVersion": "TLSV1_3",
		"minProtocolVersion": "TLSV1_2", **more}


# ---- reading and replacing ----

@pytest.mark.parametrize("kind", KINDS)
def test_item_reads_back(gw, world, kind):
	thing = world[kind]
	status, item, headers = gw.api("GET", thing.path)
	assert status == 200
	assert thing.id in item.values()
	assert headers["ETag"]
	if thing.name:
		assert item["name"] == thing.name


@pytest.mark.parametrize("kind", REPLACEABLE)
def test_item_as_read_can_be_put(gw, world, kind):
	item = gw.ask("GET", world[kind].path)
	assert gw.ask("PUT", world[kind].path, item) == gw.ask("GET", world[kind].path)


@pytest.mark.parametrize("kind", REPLACEABLE)
def test_id_cannot_be_changed(gw, world, kind):
	item = gw.ask("GET", world[kind].path)
	member = next(name for name, value in item.items() if value == world[kind].id)
	for other in ("other", 7):
		status, answer, _ = gw.api("PUT", world[kind].path, {**item, member: other})
		assert status == 400 and f"{member}: cannot be changed" in str(answer)
	assert gw.ask("GET", world[kind].path) == item


@pytest.mark.parametrize("kind", REPLACEABLE)
def test_if_match(gw, world, kind):
	path = world[kind].path
	status, item, headers = gw.api("GET", path)
	old = headers["ETag"]
	check_error(gw.api("PUT", path, item, {"If-Match": '"no-such-version"'}), 412, "ErrPreconditionFailed")
	check_error(gw.api("DELETE", path, headers={"If-Match": '"no-such-version"'}), 412, "ErrPreconditionFailed")
	assert gw.api("GET", path)[2]["ETag"] == old
	member = "description" if "description" in item or kind in ("Policy", "Consumer", "Route") else None
	if member:
		status, _, headers = gw.api("PUT", path, {**item, member: f"changed {next(numbers)}"}, {"If-Match": old})
		assert status == 200
		assert gw.api("GET", path)[2]["ETag"] != old
		check_error(gw.api("PUT", path, item, {"If-Match": old}), 412)
		assert gw.api("PUT", path, item, {"If-Match": "*"})[0] == 200


def test_if_match_on_a_gateway_is_a_conflict(gw, site):
	item = gw.ask("GET", site.path)
	check_asm(gw.api("PUT", site.path, item, {"If-Match": '"no"'}), 409, "ASM.01010003")


@pytest.mark.parametrize("kind", REPLACEABLE)
def test_unknown_member_is_refused(gw, world, kind):
	item = gw.ask("GET", world[kind].path)
	check_error(gw.api("PUT", world[kind].path, {**item, "noSuchMember": 1}), 400, "ErrInvalidParameter", "noSuchMember")
	assert gw.ask("GET", world[kind].path) == item


@pytest.mark.parametrize("kind", KINDS)
def test_collection_lists_it(gw, world, kind):
	collection = world[kind].path.rsplit("/", 1)[0]
	listed, page = [], 1
	while True:
		answer = gw.ask("GET", f"{collection}?pageNumber={page}&pageSize=100")
		assert answer["pageNumber"] == page and answer["pageSize"] == 100
		listed += answer["items"]
		if len(listed) >= answer["totalSize"]:
			break
		page += 1
	assert [item for item in listed if world[kind].id in item.values()] == [gw.ask("GET", world[kind].path)]


def test_paging(gw):
	marker = f"paging-{next(numbers)}"
	ids = [gw.create("Consumer", "/api/v1/consumers", "consumerId", {"name": f"{marker}-{i}", "enable": True}).id for i in range(25)]
	total = gw.ask("GET", "/api/v1/consumers")["totalSize"]
	assert total >= 25
	first = gw.ask("GET", "/api/v1/consumers")
	assert (first["pageNumber"], first["pageSize"], len(first["items"])) == (1, 10, 10)
	seen, page = [], 1
	while items := gw.ask("GET", f"/api/v1/consumers?pageNumber={page}&pageSize=7")["items"]:
		seen += [item["consumerId"] for item in items]
		page += 1
	assert len(seen) == total == len(set(seen))
	assert set(ids) <= set(seen)
	found = gw.ask("GET", f"/api/v1/consumers?name={marker}-3")
	assert [item["name"] for item in found["items"]] == [f"{marker}-3"]
	assert found["totalSize"] == 1
	for bad in ("pageSize=0", "pageSize=101", "pageNumber=0", "pageSize=x", "pageNumber=-1"):
		check_error(gw.api("GET", f"/api/v1/consumers?{bad}"), 400, "ErrInvalidParameter", bad.split("=")[0])


LISTS = ["/api/v1/consumers", "/api/v1/routes", "/api/v2/policies", "/api/v1/policy-attachments", "/api/v1/gateways", "/api/v1/policy-classes",
	"/api/v1/gateways/{site}/gateway-features", MESHES, "/v2/meshes"]
BAD_QUERIES = [
	("pageSize=1&pageSize=2", 'pageSize: "1" is one of several values; give the parameter once'),
	("pageNumber=1&pageSize=1&pageNumber=1", 'pageNumber: "1" is one of several values; give the parameter once'),
	("pageSize=%zz", 'pageSize: "%zz" has a % without two hexadecimal digits; write % itself as %25'),
]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("query, said", BAD_QUERIES)
def test_a_list_takes_each_parameter_once_and_only_what_decodes(gw, site, path, query, said):
	"""The first of two values counted, and what does not decode was as if it were not there."""
	answer = gw.api("GET", f"{path.format(site=site.id)}?{query}")
	if path.startswith("/v2/"):
		check_asm(answer, 400, "ASM.01010001")
	else:
		check_error(answer, 400, "ErrInvalidParameter")
	assert said in answer[1].get("errorMessage", answer[1].get("errorMsg")), answer[1]


@pytest.mark.parametrize("query, field", [("name=a&name=b", "name"), ("name=%zz", "name"), ("name=a%2", "name"), ("name=%", "name"), ("enable&enable=true", "enable"),
	("name=100%", "name")])
def test_so_does_a_filter(gw, query, field):
	check_error(gw.api("GET", f"/api/v1/consumers?{query}"), 400, "ErrInvalidParameter", f"Invalid parameter: {field}: ")


def test_what_decodes_is_found(gw):
	name = f"100% of {next(numbers)}"
	gw.create("Consumer", "/api/v1/consumers", "consumerId", {"name": name, "enable": True})
	for text in (name.replace("%", "%25").replace(" ", "+"), name.replace("%", "%25").replace(" ", "%20")):
		assert [item["name"] for item in gw.ask("GET", f"/api/v1/consumers?&name={text}&")["items"]] == [name]


@pytest.mark.parametrize("query", ["dryRun=%zz", "dryRun=true&dryRun=false", "dryRun=true&dryRun=true", "dryRun=%"])
def test_a_rehearsal_that_is_not_understood_writes_nothing(gw, query):
	name = f"rehearsal-{next(numbers)}"
	check_error(gw.api("POST", f"/api/v1/consumers?{query}", {"name": name, "enable": True}), 400, "ErrInvalidParameter", "dryRun: ")
	assert gw.ask("GET", f"/api/v1/consumers?name={name}")["items"] == []


# ---- dry run ----

def test_dry_run_creates_nothing(gw, site):
	port = free_port()
	before = gw.ask("GET", MESHES)["totalSize"]
	assert gw.api("POST", f"{MESHES}?dryRun=true", gateway_body(port=port))[0] == 200
	assert gw.ask("GET", MESHES)["totalSize"] == before
	with pytest.raises(ConnectionRefusedError):
		Connection(port)


def test_dry_run_validates(gw, world):
	item = gw.ask("GET", world["Service"].path)
	check_error(gw.api("PUT", f"{world['Service'].path}?dryRun=true", {**item, "sourceType": "X"}), 400, mentions="sourceType")
	assert gw.api("PUT", f"{world['Service'].path}?dryRun=true", {**item, "addresses": ["127.0.0.1:10"]})[0] == 200
	assert gw.ask("GET", world["Service"].path) == item
	check_error(gw.api("DELETE", f"{world['Service'].path}?dryRun=true"), 409, "ErrConflict")
	assert gw.api("DELETE", f"{world['Attachment'].path}?dryRun=true")[0] == 200
	assert gw.api("GET", world["Attachment"].path)[0] == 200


# ---- who, from where, in which form ----

@pytest.mark.parametrize("headers", [{"X-Auth-Token": None}, {"X-Auth-Token": "wrong"}, {"X-Auth-Token": ""},
	{"X-Auth-Token": None, "Authorization": "Bearer wrong"}, {"X-Auth-Token": None, "Authorization": "Basic x"}])
@pytest.mark.parametrize("method, path", [("GET", "/api/v2/policies"), ("POST", "/api/v2/policies"), ("GET", "/openapi.json"),
	("GET", "/metrics"), ("DELETE", "/api/v1/routes/x"), ("GET", "/no/such/path")])
def test_without_the_token_is_401(gw, method, path, headers):
	check_error(gw.api(method, path, {} if method == "POST" else None, headers), 401, "ErrUnauthorized")


def test_gateway_call_without_the_token(gw):
	check_asm(gw.api("POST", MESHES, gateway_body(), {"X-Auth-Token": None}), 401, "ASM.01000001")


def test_bearer_token_is_as_good(gw):
	assert gw.api("GET", "/api/v2/policies", headers={"X-Auth-Token": None, "Authorization": f"Bearer {gw.token}"})[0] == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_token(gw, path):
	assert gw.api("GET", path, headers={"X-Auth-Token": None})[0] == 200


def test_token_with_few_rights(gw):
	made = gw.ask("POST", "/api/v1/tokens", {"name": f"few-{next(numbers)}", "actions": ["apig:Get*", "apig:List*"]})
	few = {"X-Auth-Token": made["token"]}
	assert gw.api("GET", "/api/v2/policies", headers=few)[0] == 200
	check_error(gw.api("POST", "/api/v2/policies", {"name": "x", "className": "Waf", "config": '{"enable":true}'}, few), 403,
		"ErrForbidden")
	check_asm(gw.api("POST", MESHES, gateway_body(), few), 403, "ASM.01000002")
	listed = gw.ask("GET", "/api/v1/tokens?pageSize=100")["items"]
	assert made["token"] not in json.dumps(listed), "shown once, at its creation"
	gw.ask("DELETE", f"/api/v1/tokens/{made['tokenId']}")
	assert gw.api("GET", "/api/v2/policies", headers=few)[0] == 401


def test_token_for_gateways_only(gw):
	made = gw.ask("POST", "/api/v1/tokens", {"name": f"mesh-{next(numbers)}", "actions": ["asm:mesh:createGateway"]})
	only = {"X-Auth-Token": made["token"]}
	body = gateway_body()
	assert gw.api("POST", MESHES, body, only)[0] == 200
	assert gw.api("DELETE", f"{MESHES}/{body['gateway']}", headers=only)[0] == 403
	assert gw.api("GET", "/api/v2/policies", headers=only)[0] == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
def test_other_content_types_are_415(gw, kind):
	body = b'{"name":"x","className":"Waf","config":"{\\"enable\\":true}"}'
	check_error(gw.api("POST", "/api/v2/policies", raw=body, headers={"Content-Type": kind}), 415, "ErrInvalidParameter")


def test_absent_content_type_is_415(gw):
	body = b'{"name":"x","className":"Waf","config":"{\\"enable\\":true}"}'
	check_error(gw.api("POST", "/api/v2/policies", raw=body, headers={"Content-Type": None}), 415)


@pytest.mark.parametrize("kind", ["application/json", "application/json;charset=utf-8", "Application/JSON; charset=UTF-8"])
def test_json_content_types(gw, kind):
	body = b'{"name":"x","className":"Waf","config":"{\\"enable\\":true}"}'
	assert gw.api("POST", "/api/v2/policies", raw=body, headers={"Content-Type": kind})[0] == 200


def test_content_type_of_a_gateway_call(gw):
	check_asm(gw.api("POST", MESHES, raw=b"{}", headers={"Content-Type": "text/plain"}), 400, "ASM.01010001")


def test_size_limit(gw):
	filler = b'{"name":"' + b"x" * (1 << 20) + b'"}'
	check_error(gw.api("POST", "/api/v2/policies", raw=filler), 413, "ErrInvalidParameter")
	check_asm(gw.api("POST", MESHES, raw=filler), 400, "ASM.01010001")


@pytest.mark.parametrize("host, status", [("evil.test", 421), ("evil.test:{port}", 421), ("127.0.0.1.evil.test:{port}", 421),
	("localhost:{port}", 200), ("127.0.0.1:{port}", 200), ("LOCALHOST:{port}", 200)])
def test_host_must_be_ours(gw, host, status):
	with Connection(gw.admin_port) as connection:
		answer = connection.get("/api/v2/policies", {"X-Auth-Token": gw.token}, host=host.format(port=gw.admin_port))
	assert answer.status == status
	if status == 421:
		assert answer.json["errorCode"] == "ErrForbidden"


def test_wrong_method_is_405(gw):
	status, body, headers = gw.api("PATCH", "/api/v2/policies", {})
	assert (status, body["errorCode"]) == (405, "ErrMethodNotAllowed")
	assert {"GET", "POST"} <= {method.strip() for method in headers["Allow"].split(",")}


def test_unknown_path_is_404(gw):
	check_error(gw.api("GET", "/api/v9/nothing"), 404, "ErrNotFound")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"nul", b'{"name":1,"name":2}', b"\xff\xfe{}", b'{"a":"\\ud800"}', b'{"a":01}',
	b"[" * 10000, b'{"name":"x"} x'])
def test_malformed_body(gw, raw):
	check_error(gw.api("POST", "/api/v2/policies", raw=raw), 400, "ErrInvalidParameter")
	check_asm(gw.api("POST", MESHES, raw=raw), 400, "ASM.01010001")


def test_malformed_requests_to_the_api(gw):
	for payload in (b"GET /api HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"\x16\x03\x01\x02\x00"):
		with Connection(gw.admin_port) as connection:
			connection.send(payload)
			assert connection.read_response().status == 400
			assert connection.is_closed()


def test_api_connection_is_kept(gw):
	connection = http.client.HTTPConnection(gw.admin, timeout=10)
	local = None
	for _ in range(50):
		connection.request("GET", "/api/v1/policy-classes", headers={"X-Auth-Token": gw.token})
		connection.getresponse().read()
		local = local or connection.sock.getsockname()
		assert connection.sock.getsockname() == local
	connection.close()


# ---- references ----

@pytest.mark.parametrize("member, value", [("gatewayId", "gw-none"), ("environmentId", "env-none"), ("domainIds", ["dom-none"]),
	("backend", {"scene": "SingleService", "services": [{"serviceId": "svc-none"}]})])
def test_route_cannot_point_at_nothing(gw, world, member, value):
	item = gw.ask("GET", world["Route"].path)
	body = {**item, "name": "dangling", member: value}
	body.pop("routeId")
	status, answer, _ = gw.api("POST", "/api/v1/routes", {name: part for name, part in body.items() if name != "status"})
	assert status in (400, 404), answer
	assert member in answer["errorMessage"] or "serviceId" in answer["errorMessage"]


def test_resource_of_another_gateway_is_refused(gw, world):
	other = gw.gateway()
	foreign = gw.service(["127.0.0.1:9"], other)
	item = gw.ask("GET", world["Route"].path)
	body = {**item, "backend": {"scene": "SingleService", "services": [{"serviceId": foreign.id}]}}
	assert gw.api("PUT", world["Route"].path, body)[0] == 400


@pytest.mark.parametrize("kind, user", [("Service", "Route"), ("Policy", None), ("Environment", None)])
def test_used_resource_is_not_deleted(gw, world, site, kind, user):
	thing = world[kind]
	if kind == "Policy":
		thing, user_id = world["Attachment"].policy, world["Attachment"].id
	elif kind == "Environment":
		user_id = gw.create("Route", "/api/v1/routes", "routeId", {"name": f"in-env-{next(numbers)}", "gatewayId": site.id,
			"environmentId": thing.id, "match": {"path": {"type": "Prefix", "value": "/in-env"}}}).id
	else:
		user_id = world[user].id
	status, answer, headers = gw.api("DELETE", thing.path)
	assert (status, answer["errorCode"]) == (409, "ErrConflict")
	assert gw.api("GET", thing.path)[0] == 200
	if kind == "Service":
		assert "world" in answer["errorMessage"] or user_id in answer["errorMessage"] or "route" in answer["errorMessage"]


def test_deleting_a_resource_deletes_its_attachments(gw, site):
	route = gw.route("/short-lived", None)
	attachment = gw.attach("RateLimit", RATE, to=route)
	gw.delete(route)
	assert gw.api("GET", attachment.path)[0] == 404
	gw.ask("DELETE", attachment.policy.path)


@pytest.mark.parametrize("kind", ["Environment", "Domain", "Service", "Route", "Api", "Operation", "Consumer"])
def test_name_is_unique(gw, world, kind):
	thing = world[kind]
	check_error(gw.api("POST", thing.path.rsplit("/", 1)[0], thing.body), 409, "ErrConflict")


def test_policy_names_need_not_be_unique(gw):
	body = {"name": "twin", "className": "Waf", "config": '{"enable":true}'}
	assert gw.ask("POST", "/api/v2/policies", body) != gw.ask("POST", "/api/v2/policies", body)


def test_second_attachment_of_a_class_is_refused(gw, world):
	route = world["Route"]
	policy = gw.policy("RateLimit", RATE)
	body = {"attachResourceId": route.id, "attachResourceType": "Route", "gatewayId": route.gateway,
		"environmentId": route.environment, "policyId": policy.id}
	check_error(gw.api("POST", "/api/v1/policy-attachments", body), 409, "ErrConflict")
	body["gatewayId"] = "gw-none"
	check_error(gw.api("POST", "/api/v1/policy-attachments", body), 404, "ErrNotFound", "gatewayId")


def test_attachment_tells_its_state(gw, site):
	route = gw.route("/state", None)
	active = gw.attach("RateLimit", RATE, to=route)
	assert gw.ask("GET", active.path)["status"]["phase"] == "Active"
	gw.change_policy(active, {**RATE, "enable": False})
	assert gw.ask("GET", active.path)["status"]["phase"] == "Disabled"


def test_class_without_enforcement_says_so(gw, site):
	classes = gw.ask("GET", "/api/v1/policy-classes?pageSize=100")["items"]
	assert len(classes) == 29
	text = {item["className"]: json.dumps(item) for item in classes}
	for name in ("RateLimit", "HeaderModify", "DirectResponse", "IpAccessControl", "Cors"):
		assert "not enforced" not in text[name]
	idle = [name for name in text if "not enforced by this build" in text[name]]
	if "Timeout" in idle:
		route = gw.route("/idle-class", None)
		attachment = gw.attach("Timeout", {"unitNum": 3, "timeUnit": "s"}, to=route)
		status = gw.ask("GET", attachment.path)["status"]
		assert (status["phase"], "not enforced by this build" in status["reason"]) == ("Degraded", True)


# ---- secrets ----

def test_secrets_are_never_returned(gw, site):
	secrets = [f"canary-{word}-{next(numbers)}" for word in ("key", "password", "client", "redis")]
	consumer = gw.create("Consumer", "/api/v1/consumers", "consumerId", {"name": f"secret-{next(numbers)}", "enable": True,
		"identities": {"apiKey": {"credentials": [{"apikey": secrets[0], "generateMode": "Custom"}], "source": {"source": "Default"}},
			"basic": {"username": "u", "password": secrets[1]}}})
	oidc = gw.policy("OIDCAuth", {"issuer": "https://id.test", "clientId": "c", "clientSecret": secrets[2],
		"redirectUri": "https://gw.test/callback", "scopes": ["openid"]})
	tokens = gw.policy("AiTokenRateLimit", {"rules": [{"limitType": "LimitByConsumer", "threshold": 1, "timeWindow": 60}],
		"redisConfig": {"serviceHost": "redis.test", "servicePort": 6379, "password": secrets[3]}})
	answers = [gw.ask("GET", thing.path) for thing in (consumer, oidc, tokens)]
	answers += [gw.ask("GET", "/api/v1/consumers?pageSize=100"), gw.ask("GET", "/api/v2/policies?pageSize=100")]
	# What was read can be put back without losing the secret, and still shows nothing.
	answers += [gw.ask("PUT", thing.path, gw.ask("GET", thing.path)) for thing in (consumer, oidc, tokens)]
	for secret in secrets:
		assert secret not in json.dumps(answers)
		assert secret not in gw.stderr()
		for path in filter(pathlib.Path.is_file, pathlib.Path(gw.data).iterdir()):
			assert secret.encode() not in path.read_bytes(), f"{path.name} holds a secret in the clear"


def test_key_files_are_private(gw):
	data = pathlib.Path(gw.data)
	assert data.stat().st_mode & 0o777 == 0o700
	assert (data / "admin.token").stat().st_mode & 0o777 == 0o600
	for path in data.iterdir():
		assert path.stat().st_mode & 0o077 == 0, f"{path.name} can be read by others"


# ---- listeners ----

def test_port_in_use(gw):
	with socket.socket() as taken:
		taken.bind(("127.0.0.1", 0))
		taken.listen()
		body = gateway_body(port=taken.getsockname()[1])
		before = gw.ask("GET", MESHES)["totalSize"]
		check_asm(gw.api("POST", MESHES, body), 500, "ASM.01040001")
		assert gw.ask("GET", MESHES)["totalSize"] == before
	# Nothing is left behind: now it works.
	assert gw.api("POST", MESHES, body)[0] == 200


def test_listeners_come_and_go_without_disturbing_others(gw, site, backend):
	gw.route("/stays", backend)
	with gw.connect() as kept:
		assert kept.get("/stays/echo").status == 200
		for _ in range(5):
			other = gw.gateway()
			with gw.connect(other) as connection:
				assert connection.get("/").status == 404
				assert kept.get("/stays/echo").status == 200
				gw.delete(other)
				assert kept.get("/stays/echo").status == 200
			with pytest.raises(ConnectionRefusedError):
				gw.connect(other)
			assert kept.get("/stays/echo").status == 200


def test_gateway_can_move_to_another_port(gw):
	moving = gw.gateway()
	item = gw.ask("GET", moving.path)
	new = free_port()
	gw.ask("PUT", moving.path, {**item, "externalPort": {**item["externalPort"], "number": str(new)}})
	assert Connection(new).get("/").status == 404
	with pytest.raises(ConnectionRefusedError):
		Connection(moving.port)


def test_gateway_status(gw, site):
	item = gw.ask("GET", f"/api/v1/gateways/{site.id}")
	assert item["status"]["phase"] == "Running"
	assert any(str(site.port) in str(address) for address in item["status"]["addresses"])
	assert item["defaultEnvironmentId"] == site.environment


def test_gateway_of_another_cluster_is_not_served(gw):
	body = gateway_body(cluster="elsewhere")
	gw.ask("POST", MESHES, body)
	assert gw.ask("GET", f"{MESHES}/{body['gateway']}")["status"]["phase"] == "Pending"
	with pytest.raises(ConnectionRefusedError):
		Connection(int(body["externalPort"]["number"]))


@pytest.mark.parametrize("protocol", ["TCP", "GRPC", "TLS"])
def test_protocols_that_need_no_certificate_are_served(gw, protocol):
	body = gateway_body(protocol=protocol)
	gw.ask("POST", MESHES, body)
	status = gw.ask("GET", f"{MESHES}/{body['gateway']}")["status"]
	assert status["phase"] == "Running" and status["addresses"]


def test_gateway_shapes(gw):
	for change, field in (({"gateway": "Abc"}, "gateway"), ({"gateway": "abc"}, "gateway"), ({"gateway": "abcd-"}, "gateway"),
			({"serviceType": "NodePort"}, "serviceType"), ({"minProtocolVersion": "TLSV1_3", "maxProtocolVersion": "TLSV1_2"}, "Version"),
			({"externalIPs": []}, "externalIPs"), ({"externalIPs": ["x"]}, "externalIPs")):
		status, answer, _ = gw.api("POST", MESHES, gateway_body(**change))
		assert (status, answer["errorCode"]) == (400, "ASM.01010001"), change
		assert field in answer["errorMsg"], answer
	body = gateway_body()
	body["externalPort"]["number"] = int(body["externalPort"]["number"])
	check_asm(gw.api("POST", MESHES, body), 400, "ASM.01010001")
	check_asm(gw.api("POST", "/v2/meshes/none/gateways", gateway_body()), 404, "ASM.01010002")
	body = gateway_body()
	gw.ask("POST", MESHES, body)
	check_asm(gw.api("POST", MESHES, {**gateway_body(), "gateway": body["gateway"]}), 409, "ASM.01010003")


@pytest.mark.parametrize("hosts", [["a.test", "a.test"], ["A.test", "a.TEST"], ["*.a.test", "b.test", "*.A.test"], ["*", "*"], ["10.0.0.1", "10.0.0.1"],
	["::1", "0:0::1"]])
def test_a_host_stands_once_in_a_gateway(gw, hosts):
	body = gateway_body()
	body["externalPort"]["hosts"] = hosts
	answer = gw.api("POST", MESHES, body)
	check_asm(answer, 400, "ASM.01010001")
	assert answer[1]["errorMsg"] == f"Invalid parameter: externalPort.hosts[{len(hosts) - 1}]: is listed twice"
	body["externalPort"]["hosts"] = [*hosts[:-1], "other.test"]
	gw.ask("POST", MESHES, body)


def test_deleting_a_gateway(gw):
	gone = gw.gateway()
	gw.delete(gone)
	assert gw.api("GET", gone.path)[0] == 404
	assert gw.api("GET", f"/api/v1/environments/{gone.environment}")[0] == 404
	check_asm(gw.api("DELETE", gone.path), 404, "ASM.01010002")
	# The documented form of the reference.
	other = gw.gateway()
	assert gw.api("POST", other.path, {"Namespace": "default"})[0] == 200
	assert gw.api("GET", other.path)[0] == 404


# ---- what the program says about itself ----

def test_openapi_describes_the_paths(gw):
	document = gw.ask("GET", "/openapi.json")
	assert document["openapi"].startswith("3.1")
	for path in ("/v2/meshes/{mesh_id}/gateways", "/api/v2/policies", "/api/v1/policy-attachments", "/api/v1/routes"):
		assert "post" in document["paths"][path], sorted(document["paths"])


def test_openapi_is_sound(gw):
	"""What its specification asks: every operationId once, every reference leads somewhere, every path parameter is described."""
	document = gw.ask("GET", "/openapi.json")
	operations = [(path, item) for path, methods in document["paths"].items() for item in methods.values() if "responses" in item]
	names = [item["operationId"] for _, item in operations]
	assert len(names) > 80 and len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
	for path, item in operations:
		described = {one["name"] for one in item["parameters"] if one.get("in") == "path"}
		assert described == set(re.findall(r"{(\w+)}", path)), path
	for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))):
		part = document
		for step in reference.split("/"):
			part = part[step]


def test_metrics_count_requests(gw, site, backend):
	gw.route("/counted", backend)
	assert gw.get("/counted/echo").status == 200
	with Connection(gw.admin_port) as connection:
		answer = connection.get("/metrics", {"X-Auth-Token": gw.token}, host=gw.admin)
	assert answer.header("Content-Type").startswith("text/plain")
	lines = [line for line in answer.text.split("\n") if line and not line.startswith("#")]
	assert any("request" in line for line in lines)
	for line in lines:
		name, _, value = line.rpartition(" ")
		assert name and "." not in name.split("{")[0]
		float(value)


def test_service_ports_are_made(gw, site):
	service = gw.service(["127.0.0.1:9001", "127.0.0.1:9002"], site)
	ports = gw.ask("GET", f"{service.path}/ports")["items"]
	assert sorted(port["port"] for port in ports) == [9001, 9002]
	assert all(port["servicePortId"].startswith("sp-") for port in ports)


def test_gateway_settings(gw, site):
	path = f"/api/v1/gateways/{site.id}/gateway-features/xffTrustedNum"
	assert gw.ask("GET", path)["value"] == 0
	gw.ask("PUT", path, {"value": 2})
	assert gw.ask("GET", path)["value"] == 2
	for bad in (11, -1, "1", None, 1.5):
		check_error(gw.api("PUT", path, {"value": bad}), 400, "ErrInvalidParameter", "value")
	assert gw.ask("GET", path)["value"] == 2
	gw.ask("PUT", path, {"value": 0})
	check_error(gw.api("GET", f"/api/v1/gateways/{site.id}/gateway-features/noSuchSetting"), 404)
