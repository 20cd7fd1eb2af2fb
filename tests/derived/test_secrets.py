"""No stored secret is led to somebody else: what says where it is sent cannot be changed without giving the secret again.

Which members say so stands in the field tables (`x-sent-to` of the schemas), and so these tests follow from them: each secret of each
policy class and of each resource, with each of its destinations. Whoever may write but not read would else point an address at a
server of his own and read there what the gateway sends.
"""
import copy
import json
import re

import pytest
from raw_api import running_api
from test_fields import CLASSES, Subject, reach

SERVICES = "/api/v1/services"
# A sample of each secret of a resource that is sent: the way to it, and the document. A new one needs a line here.
AI = {"sourceType": "AI", "addresses": ["127.0.0.1:9001"], "ports": [{"name": "http", "port": 9001, "protocol": "HTTP"}]}
AGENT = {**AI, "sourceType": "AGENT"}
ADDRESS = {"address": "https://models.example.com"}
RESOURCES = [
	(["aiServiceConfig", "apiKeys"], {**AI, "aiServiceConfig": {**ADDRESS, "provider": "openai", "apiKeys": ["sk-1", "sk-2"]}}),
	(["agentServiceConfig", "dashScopeConfig", "appCredentials", 0, "apiKey"],
		{**AGENT, "agentServiceConfig": {**ADDRESS, "dashScopeConfig": {"appCredentials": [{"appId": "a", "apiKey": "sk-1"}]}}}),
	(["agentServiceConfig", "difyConfig", "apiKey"], {**AGENT, "agentServiceConfig": {**ADDRESS, "difyConfig": {"apiKey": "sk-1"}}}),
	(["agentServiceConfig", "customConfig", "apiKey"], {**AGENT, "agentServiceConfig": {**ADDRESS, "customConfig": {"apiKey": "sk-1"}}}),
]


@pytest.fixture(scope="module")
def api():
	with running_api() as running:
		yield running


@pytest.fixture(scope="module", params=CLASSES)
def subject(request, api):
	return Subject(request.param, api)


def spell(way):
	return "".join("[0]" if step == 0 else f".{step}" for step in way)[1:]


def others(value):
	"""Other values of a destination, in the hope that one of them is valid."""
	if isinstance(value, list):
		first = copy.deepcopy(value[0])
		if isinstance(first, dict):
			first["port"] += 1
		else:
			first = "127.0.0.1:9002"
		return [[first], []]
	if isinstance(value, int):
		return [value + 1]
	return [re.sub(r"^([a-z]+://)?", r"\1elsewhere.", value, count=1)]


def outward(document, way, name):
	"""The way to the member of that name which is nearest to the secret."""
	for depth in range(len(way) - 1, -1, -1):
		holder = reach(document, way[:depth])
		if isinstance(holder, dict) and name in holder:
			return [*way[:depth], name]
	raise AssertionError(f"{spell(way)}: there is no {name}")


def put(document, way, value):
	changed = copy.deepcopy(document)
	reach(changed, way[:-1])[way[-1]] = value
	return changed


def without(document, way):
	changed = copy.deepcopy(document)
	del reach(changed, way[:-1])[way[-1]]
	return changed


def is_kept_apart(send, document, way, at, choices, path):
	"""With the secret the destination may change, without it may not, whatever way of leaving it out. The document is stored."""
	for choice in choices:
		moved = put(document, at, choice)
		if send(moved).status == 200:
			break
	else:
		raise AssertionError(f"{spell(at)} takes none of {choices}")
	assert send(document).status == 200
	for left_out in (without(moved, way), put(moved, way, None)):
		answer = send(left_out)
		assert answer.status == 400, (spell(way), spell(at), answer)
		assert answer.json["errorMessage"].startswith(f"Invalid parameter: {path}: must be given again, for {at[-1]} changes"), answer
	# What changes no destination needs no secret.
	assert send(without(document, way)).status == 200


def sent_members(subject):
	for way, schema in subject.members:
		if schema.get("x-sent-to"):
			yield way, schema


def test_every_secret_says_where_it_goes(subject):
	for way, schema in subject.members:
		assert ("x-sent-to" in schema) == bool(schema.get("writeOnly")), spell(way)
		for name in schema.get("x-sent-to", []):
			outward(subject.base, way, name)


def test_secret_of_a_policy_stays_with_its_destination(subject):
	base = copy.deepcopy(subject.base)
	for way, _ in sent_members(subject):
		holder = reach(base, way[:-1])
		if "servicePort" in holder:
			# Else host and port can only change together.
			holder["serviceHost"] = holder["serviceHost"].split(":")[0]
	if not list(sent_members(subject)):
		return
	document = {"name": "derived", "className": subject.class_name}
	made = subject.send(base)
	assert made.status == 200, made
	path = f"/api/v2/policies/{made.json['policyId']}"

	def send(config):
		return subject.api.send("PUT", path, {**document, "config": json.dumps(config)})

	for way, schema in sent_members(subject):
		for name in schema["x-sent-to"]:
			at = outward(base, way, name)
			words = reach(subject.schema, [step for part in at[:-1] for step in ("properties", part)] + ["properties", name]).get("enum")
			choices = [word for word in words if word != reach(base, at)] if words else others(reach(base, at))
			if words and not choices:
				continue                # of one word only
			is_kept_apart(send, base, way, at, choices, f"config.{spell(way)}")


def walk(schema, way, schemas):
	while "$ref" in schema:
		schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
	if schema.get("x-sent-to"):
		yield way
	for name, member in schema.get("properties", {}).items():
		yield from walk(member, [*way, name], schemas)
	if "items" in schema:
		yield from walk(schema["items"], [*way, 0] if schema["items"].get("type") == "object" else way, schemas)


def test_every_secret_of_a_resource_is_tried(api):
	schemas = api.send("GET", "/openapi.json").json["components"]["schemas"]
	known = {tuple(way) for way, _ in RESOURCES}
	policies = [schema for name in CLASSES for schema in [Subject(name, api).schema]]
	found = {tuple(way) for schema in schemas.values() if schema not in policies and "items" not in schema.get("properties", {})
		for way in walk(schema, [], schemas)}
	assert found == known


@pytest.fixture(scope="module")
def gateway(api):
	# Of another cluster: stored, not served.
	made = api.send("POST", "/v2/meshes/default/gateways", {"cluster": "elsewhere", "gateway": "elsewhere", "namespace": "default",
		"elbId": "elb-1", "externalPort": {"number": "8080", "protocol": "http", "hosts": ["a.example.com"]},
		"serviceType": "LoadBalancer", "externalIPs": ["127.0.0.1"], "maxProtocolVersion": "TLS 1.3", "minProtocolVersion": "TLSv1.2"})
	assert made.status == 200, made
	return made.json["gatewayId"]


@pytest.mark.parametrize("way, sample", RESOURCES, ids=[spell(way) for way, _ in RESOURCES])
def test_secret_of_a_service_stays_with_its_destination(api, gateway, way, sample):
	document = {"name": spell(way), "gatewayId": gateway, **sample}
	made = api.send("POST", SERVICES, document)
	assert made.status == 200, made
	path = f"{SERVICES}/{made.json['serviceId']}"
	for name in ("address", "addresses", "ports"):
		at = outward(document, way, name)
		is_kept_apart(lambda body: api.send("PUT", path, body), document, way, at, others(reach(document, at)), spell(way))


def test_optional_secret_can_be_taken_off_with_the_move(api):
	"""A Redis without password after one with: "" says that there is none."""
	redis = {"serviceHost": "redis-1", "servicePort": 6379, "password": "redis-SECRET"}
	config = {"enable": True, "cacheTTL": 60, "cacheMode": "exact", "redisConfig": redis}
	document = {"name": "moves", "className": "AiCache"}
	made = api.send("POST", "/api/v2/policies", {**document, "config": json.dumps(config)})
	assert made.status == 200, made
	config["redisConfig"] = {"serviceHost": "redis-2", "servicePort": 6379, "password": ""}
	answer = api.send("PUT", f"/api/v2/policies/{made.json['policyId']}", {**document, "config": json.dumps(config)})
	assert answer.status == 200, answer
	# Nor does it come back with the old address.
	config["redisConfig"] = {"serviceHost": "redis-3", "servicePort": 6379}
	answer = api.send("PUT", f"/api/v2/policies/{made.json['policyId']}", {**document, "config": json.dumps(config)})
	assert answer.status == 200, answer
