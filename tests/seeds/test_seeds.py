"""Both seed documents: every JSON body they print is sent as printed, and every field of their tables is asked for.

The files in data/ are the bodies of the documents with the page's "//" remarks taken off. config-CLASS.json is a sample of the
"config" member; it travels as a JSON string, as the documents demand.
"""
import copy
import json
import pathlib
import re

import pytest
from gw import free_port
from raw_api import running_api

DATA = pathlib.Path(__file__).parent / "data"
POLICIES = "/api/v2/policies"
ATTACHMENTS = "/api/v1/policy-attachments"
GATEWAYS = "/v2/meshes/default/gateways"
SAMPLES = sorted(path.stem.removeprefix("config-") for path in DATA.glob("config-*.json"))

# "Configuration: Same as ServiceTls."
SAME_SAMPLE = {"ServicePortTls": "ServiceTls"}

# The table of the attachment request: who needs which of the two conditional members.
NEED_ENVIRONMENT = {"Route", "Api", "Operation", "LLMApi", "AgentApi"}
NEED_GATEWAY = {"Route", "Gateway", "Domain", "Service", "ServicePort", "LLMApi", "AgentApi"}
ATTACHABLE = {"Gateway": "RateLimit", "Domain": "RateLimit", "Route": "RateLimit", "Service": "RateLimit",
	"Api": "RateLimit", "Operation": "RateLimit", "LLMApi": "AiStatistics", "AgentApi": "AiStatistics",
	"ServicePort": "ServicePortTls"}


@pytest.fixture(scope="module")
def api():
	with running_api() as running:
		yield running


def read(name):
	"""The body as printed: the file's own newline is not part of it."""
	return (DATA / f"{name}.json").read_text().removesuffix("\n")


def stored(api, path):
	answer = api.send("GET", path)
	assert answer.status == 200, answer
	return answer.json["totalSize"]


def check_refused(answer, path, status=400):
	"""The error shape of the policy API, about exactly this field."""
	assert answer.status == status, answer
	assert set(answer.json) == {"errorCode", "errorMessage", "requestId"}
	assert answer.json["requestId"].startswith("req-")
	assert answer.headers["X-Request-Id"] == answer.json["requestId"]
	assert answer.headers["Content-Type"].startswith("application/json")
	if status == 400:
		assert answer.json["errorCode"] == "ErrInvalidParameter"
		assert re.match(r"Invalid parameter: " + re.escape(path) + r"(:|$)", answer.json["errorMessage"]), answer


def check_created(answer):
	"""Exactly the printed shape of a successful answer."""
	assert answer.status == 200, answer
	assert answer.json.keys() == json.loads(read("answer-success")).keys()
	assert answer.json["policyId"].startswith("policy-")
	return answer.json["policyId"]


def sample_policy(class_name, **more):
	text = read("config-" + SAME_SAMPLE.get(class_name, class_name))
	return {"name": f"sample {class_name}", "className": class_name, "config": text, **more}


# ---- policies ----

@pytest.mark.parametrize("class_name", SAMPLES + sorted(SAME_SAMPLE))
def test_sample_config_is_accepted_as_printed(api, class_name):
	policy_id = check_created(api.send("POST", POLICIES, sample_policy(class_name, description="from the reference")))
	answer = api.send("GET", f"{POLICIES}/{policy_id}")
	assert answer.status == 200
	assert answer.json["className"] == class_name
	assert answer.json["name"] == f"sample {class_name}"
	assert answer.json["description"] == "from the reference"
	assert json.loads(answer.json["config"])["enable"] is True


def test_there_is_a_sample_of_every_class(api):
	answer = api.send("GET", "/api/v1/policy-classes?pageSize=100")
	assert answer.status == 200
	assert sorted(item["className"] for item in answer.json["items"]) == sorted([*SAMPLES, *SAME_SAMPLE])
	assert len(SAMPLES) + len(SAME_SAMPLE) == 29


@pytest.mark.parametrize("name", ["curl-rate-limit", "corrected-1", "corrected-2"])
def test_printed_request_is_accepted(api, name):
	check_created(api.send("POST", POLICIES, read(name)))


@pytest.mark.parametrize("name, path", [
	("error-1-config-is-an-object", "config"),
	("error-2-enable-is-missing", "config.enable"),
	("create-policy-form", "className"),
])
def test_printed_mistake_is_refused(api, name, path):
	before = stored(api, POLICIES)
	answer = api.send("POST", POLICIES, read(name))
	check_refused(answer, path)
	assert answer.json.keys() == json.loads(read("answer-error")).keys()
	assert stored(api, POLICIES) == before


def test_unknown_class_gives_the_printed_error(api):
	printed = json.loads(read("answer-error"))
	answer = api.send("POST", POLICIES, {"name": "x", "className": "ratelimit", "config": "{\"enable\":true}"})
	check_refused(answer, "className")
	assert answer.json["errorCode"] == printed["errorCode"]
	assert answer.json["errorMessage"].startswith(printed["errorMessage"])


@pytest.mark.parametrize("member", ["name", "className", "config"])
@pytest.mark.parametrize("value", ["absent", "", None, 7, [], {}, True])
def test_member_of_a_policy_is_required_and_a_string(api, member, value):
	body = sample_policy("Waf")
	body[member] = value
	if value == "absent":
		del body[member]
	check_refused(api.send("POST", POLICIES, body), member)


def test_description_counts_characters(api):
	check_created(api.send("POST", POLICIES, sample_policy("Waf", description="\u4e2d" * 200)))
	check_refused(api.send("POST", POLICIES, sample_policy("Waf", description="d" * 201)), "description")
	check_refused(api.send("POST", POLICIES, sample_policy("Waf", description=7)), "description")


@pytest.mark.parametrize("config", ["", "{", "[]", "true", "{\"enable\":true}x", "{\"enable\":true,\"enable\":true}"])
def test_config_holds_one_json_object(api, config):
	answer = api.send("POST", POLICIES, {"name": "x", "className": "Waf", "config": config})
	assert answer.status == 400
	assert answer.json["errorMessage"].startswith("Invalid parameter: config"), answer


def test_request_without_token_is_refused(api):
	for headers in ({"X-Auth-Token": None}, {"X-Auth-Token": "wrong"}):
		check_refused(api.send("POST", POLICIES, read("curl-rate-limit"), headers), "", status=401)


# ---- attachments ----

@pytest.fixture(scope="module")
def gateway(api):
	answer = api.send("POST", GATEWAYS, gateway_body("attach-to-me"))
	assert answer.status == 200, answer
	return api.send("GET", f"{GATEWAYS}/attach-to-me").json


def test_attachment_form_is_refused_for_its_placeholder(api):
	before = stored(api, ATTACHMENTS)
	check_refused(api.send("POST", ATTACHMENTS, read("create-attachment-form")), "attachResourceType")
	assert stored(api, ATTACHMENTS) == before


def test_filled_attachment_form_is_accepted(api, gateway):
	policy_id = check_created(api.send("POST", POLICIES, sample_policy("RateLimit")))
	form = read("create-attachment-form")
	for placeholder, value in (("ResourceID1", gateway["gatewayId"]), ("Resource type", "Gateway"),
			("Environment ID", gateway["defaultEnvironmentId"]), ("Gateway ID", gateway["gatewayId"]),
			("Policy ID", policy_id)):
		assert f'"{placeholder}"' in form
		form = form.replace(f'"{placeholder}"', f'"{value}"')
	answer = api.send("POST", ATTACHMENTS, form)
	assert answer.status == 200, answer
	assert answer.json.keys() == {"policyAttachmentId", "policyId"}
	assert answer.json["policyId"] == policy_id
	assert answer.json["policyAttachmentId"].startswith("pr-")


@pytest.mark.parametrize("member", ["attachResourceId", "attachResourceType", "policyId"])
@pytest.mark.parametrize("value", ["absent", "", None, 7, [], {}])
def test_member_of_an_attachment_is_required_and_a_string(api, gateway, member, value):
	policy_id = check_created(api.send("POST", POLICIES, sample_policy("RateLimit")))
	body = {"attachResourceId": gateway["gatewayId"], "attachResourceType": "Gateway",
		"gatewayId": gateway["gatewayId"], "policyId": policy_id}
	body[member] = value
	if value == "absent":
		del body[member]
	check_refused(api.send("POST", ATTACHMENTS, body), member)


@pytest.mark.parametrize("scope", sorted(ATTACHABLE))
@pytest.mark.parametrize("member", ["environmentId", "gatewayId"])
def test_conditional_member_of_an_attachment(api, gateway, scope, member):
	policy_id = check_created(api.send("POST", POLICIES, sample_policy(ATTACHABLE[scope])))
	body = {"attachResourceId": "no-such-resource", "attachResourceType": scope, "policyId": policy_id,
		"gatewayId": gateway["gatewayId"], "environmentId": gateway["defaultEnvironmentId"]}
	del body[member]
	answer = api.send("POST", ATTACHMENTS, body)
	if scope in (NEED_ENVIRONMENT if member == "environmentId" else NEED_GATEWAY):
		check_refused(answer, member)
	else:
		# It is not missed; the resource is.
		check_refused(answer, "attachResourceId", status=404)


# ---- gateways ----

FIELDS = json.loads(read("gateway-fields"))
WRONG = {"String": [7, True, [], {}], "Boolean": ["true", 1, [], {}], "Array of strings": ["127.0.0.1", 7, {}, [7]],
	"ExternalPort object": ["8080", 8080, [], True], "Array of CertServer objects": ["a", {}, True, ["a"]]}


def gateway_body(name):
	"""A value for every mandatory row of the table."""
	return {"cluster": "local", "gateway": name, "namespace": "default", "elbId": f"elb-{name}",
		"externalPort": {"number": str(free_port()), "protocol": "HTTP", "hosts": ["*"]},
		"serviceType": "LoadBalancer", "externalIPs": ["127.0.0.1"],
		"maxProtocolVersion": "TLSV1_3", "minProtocolVersion": "TLSV1_2"}


def locate(body, path):
	"""The object that has the member, and the member's name; what is on the way is made."""
	*way, last = re.sub(r"\[0\]", ".0", path).split(".")
	for at, key in enumerate(way):
		if key == "0":
			body = body[0]
			continue
		body = body.setdefault(key, [{}] if at + 1 < len(way) and way[at + 1] == "0" else {})
	return body, last


def check_gateway_refused(answer, path, status=400, code="ASM.01010001"):
	assert answer.status == status, answer
	assert answer.json.keys() == {"errorCode", "errorMsg"}
	assert answer.json["errorCode"] == code
	assert path in answer.json["errorMsg"]


def test_gateway_with_the_mandatory_fields(api):
	answer = api.send("POST", GATEWAYS, gateway_body("mandatory-only"))
	assert answer.status == 200, answer
	assert answer.json["gatewayId"].startswith("gw-")
	shown = api.send("GET", f"{GATEWAYS}/mandatory-only").json
	assert shown["gatewayId"] == answer.json["gatewayId"]
	assert shown["externalPort"]["protocol"] == "HTTP"


def test_gateway_with_the_optional_fields(api):
	body = gateway_body("all-fields")
	body |= {"tlsTerminationEnable": False, "certList": [], "tlsMode": "SIMPLE", "ipv6Enable": "false"}
	top = {row["name"] for row in FIELDS if "." not in row["name"]}
	assert body.keys() == top
	answer = api.send("POST", GATEWAYS, body)
	assert answer.status == 200, answer


@pytest.mark.parametrize("path", [row["name"] for row in FIELDS if row["mandatory"]])
@pytest.mark.parametrize("value", ["absent", None])
def test_mandatory_field_of_a_gateway(api, path, value):
	before = stored(api, GATEWAYS)
	body = gateway_body("never-made")
	owner, name = locate(body, path)
	assert name in owner
	owner[name] = value
	if value == "absent":
		del owner[name]
	check_gateway_refused(api.send("POST", GATEWAYS, body), path)
	assert stored(api, GATEWAYS) == before


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: row["name"])
def test_type_of_a_gateway_field(api, row):
	for value in WRONG[row["type"]]:
		if row["name"] == "ipv6Enable" and value is True:
			continue              # also taken as a boolean
		body = gateway_body("never-made")
		owner, name = locate(body, row["name"])
		owner[name] = copy.deepcopy(value)
		check_gateway_refused(api.send("POST", GATEWAYS, body), row["name"])


@pytest.mark.parametrize("kind", ["application/json", "application/json;charset=utf-8", "Application/JSON; Charset=UTF-8"])
def test_content_type_of_a_gateway_request(api, kind):
	name = "content-" + re.sub(r"\W", "", kind).lower()[-20:]
	answer = api.send("POST", GATEWAYS, gateway_body(f"{name}{len(kind)}"), {"Content-Type": kind})
	assert answer.status == 200, answer


def test_wrong_content_type_of_a_gateway_request(api):
	for kind in ("text/plain", "application/x-www-form-urlencoded", None):
		answer = api.send("POST", GATEWAYS, gateway_body("never-made"), {"Content-Type": kind})
		check_gateway_refused(answer, "")


def test_gateway_request_needs_a_token(api):
	body = gateway_body("never-made")
	for headers in ({"X-Auth-Token": None}, {"X-Auth-Token": "wrong"}):
		answer = api.send("POST", GATEWAYS, body, headers)
		check_gateway_refused(answer, "", status=401, code="ASM.01000001")


def test_gateway_in_an_unknown_mesh(api):
	answer = api.send("POST", "/v2/meshes/no-such-mesh/gateways", gateway_body("never-made"))
	check_gateway_refused(answer, "", status=404, code="ASM.01010002")


def test_gateway_body_that_is_no_json(api):
	for body in ("", "{", "[]", "null", "{\"cluster\":\"a\",}"):
		check_gateway_refused(api.send("POST", GATEWAYS, body), "")
