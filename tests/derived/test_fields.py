"""Every field of every policy class, asked from its own schema: each wrong value must be refused by name and leave no trace.

The program prints the schema and a sample config of a class; everything else here follows from the two. So a new field has its
tests on the day it is added.
"""
import copy
import json
import re
import subprocess

import pytest
from gw import PROGRAM
from raw_api import running_api

POLICIES = "/api/v2/policies"
# The 29 classes of the API reference, in its order.
CLASSES = """RateLimit ConcurrencyLimit CircuitBreaker Timeout Retry HttpRewrite HeaderModify Redirect DirectResponse Fallback
	DynamicRoute AiStatistics AiSecurityGuard AiFallback AiTokenRateLimit AiCache AiNetworkSearch AiToolSelection
	Authentication JWTAuth OIDCAuth ExternalZAuth Waf IpAccessControl Cors FlowCopy ServiceTls ServiceLb
	ServicePortTls""".split()
# One value of each JSON type; null is treated apart.
VALUES = {"boolean": True, "integer": 7, "fraction": 1.5, "string": "7", "array": [], "object": {}}
FITTING = {"boolean": {"boolean"}, "integer": {"integer"}, "number": {"integer", "fraction"}, "string": {"string"},
	"array": {"array"}, "object": {"object"}}
CONFIG_MAX = 512 * 1024
UNKNOWN = "noSuchMember"


def ask(*arguments):
	answer = subprocess.run([PROGRAM, "policy", *arguments], capture_output=True, text=True, check=False, timeout=60)
	assert answer.returncode == 0, answer.stderr
	return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def api():
	with running_api() as running:
		yield running


@pytest.fixture(scope="module", params=CLASSES)
def subject(request, api):
	return Subject(request.param, api)


def fill(schema):
	"""A value for a member that the sample does not show."""
	if "examples" in schema:
		return copy.deepcopy(schema["examples"][0])
	if schema.get("default") not in (None, ""):
		return copy.deepcopy(schema["default"])
	if "enum" in schema:
		return schema["enum"][0]
	kind = schema.get("type")
	if kind == "object":
		return {name: fill(member) for name, member in schema["properties"].items()}
	if kind == "array":
		return [fill(schema["items"])]
	return {"boolean": True, "integer": int(schema.get("minimum", 1)), "number": schema.get("minimum", 1),
		"string": "a"}.get(kind, {})


def complete(value, schema):
	"""The value with every member of the schema in it, at every depth."""
	if schema.get("type") == "object" and isinstance(value, dict):
		for name, member in schema["properties"].items():
			value[name] = complete(value.get(name) if name in value else fill(member), member)
	elif schema.get("type") == "array" and isinstance(value, list):
		value = [complete(item, schema["items"]) for item in value or [fill(schema["items"])]]
	return value


class Subject:
	"""A class under test: its schema, a config that shows every member, and where each of them is."""

	def __init__(self, class_name, api):
		self.class_name = class_name
		self.api = api
		self.schema = ask("schema", class_name)
		self.sample = ask("example", class_name)
		self.base = complete(copy.deepcopy(self.sample), self.schema)
		self.members = list(self.walk(self.schema, []))
		self.objects = list(self.walk_objects(self.schema, []))

	def walk(self, schema, way):
		"""(way, schema) of every member and every item of a list; a way is a list of names and of 0."""
		if schema.get("type") == "object":
			for name, member in schema["properties"].items():
				yield way + [name], member
				yield from self.walk(member, way + [name])
		elif schema.get("type") == "array":
			yield way + [0], schema["items"]
			yield from self.walk(schema["items"], way + [0])

	def walk_objects(self, schema, way):
		if schema.get("type") == "object":
			yield way, schema
			for name, member in schema["properties"].items():
				yield from self.walk_objects(member, way + [name])
		elif schema.get("type") == "array":
			yield from self.walk_objects(schema["items"], way + [0])

	def send(self, config):
		return self.api.send("POST", POLICIES,
			{"name": "derived", "className": self.class_name, "config": json.dumps(config)})

	def changed(self, way, value):
		"""The base with another value at `way`, where the siblings are such that it counts."""
		config = copy.deepcopy(self.base)
		schema, at = self.schema, config
		for step in way:
			for rule in schema.get("allOf", []):
				if step in rule["then"]["required"]:
					(sibling, wanted), = rule["if"]["properties"].items()
					at[sibling] = wanted["const"]
			schema = schema["items"] if step == 0 else schema["properties"].get(step, {})
			at = at[step] if step in at or step == 0 else None
		reach(config, way[:-1])[way[-1]] = value
		return config

	def without(self, way):
		config = copy.deepcopy(self.base)
		del reach(config, way[:-1])[way[-1]]
		return config

	def stored(self):
		answer = self.api.send("GET", POLICIES)
		assert answer.status == 200, answer
		return answer.json["totalSize"]

	def refuse_all(self, cases):
		"""Sends each (what, config, way); all must be refused at their way. Lists every one that is not."""
		before, wrong, count = self.stored(), [], 0
		for what, config, way in cases:
			count += 1
			answer = self.send(config)
			if not is_refused(answer, spell(way)):
				wrong.append(f"{spell(way)} {what}: {answer}")
		assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong)
		assert self.stored() == before
		return count


def reach(config, way):
	for step in way:
		config = config[step]
	return config


def spell(way):
	"""config.rules[0].threshold"""
	return "config" + "".join("[0]" if step == 0 else f".{step}" for step in way)


def is_refused(answer, path):
	if answer.status != 400 or answer.json.get("errorCode") != "ErrInvalidParameter":
		return False
	return re.match(r"Invalid parameter: " + re.escape(path) + r"(:|$)", answer.json["errorMessage"]) is not None


def is_required(subject, way):
	if way[-1] == 0:
		return False
	owner = next(schema for at, schema in subject.objects if at == way[:-1])
	return way[-1] in owner.get("required", [])


# ---- the schema itself ----

def test_sample_is_accepted(subject):
	answer = subject.send(subject.sample)
	assert answer.status == 200, answer


def test_base_shows_every_member(subject):
	"""What the other tests change must be good before; a rule between members may still forbid the combination."""
	answer = subject.send(subject.base)
	if answer.status != 200:
		path = re.match(r"Invalid parameter: (\S+?)(:|$)", answer.json["errorMessage"]).group(1)
		assert not any(spell(way) == path and "examples" in schema for way, schema in subject.members), answer
	for way, schema in subject.members:
		reach(subject.base, way)
		assert "type" in schema, spell(way)


def test_openapi_has_the_same_schema(subject):
	answer = subject.api.send("GET", "/openapi.json")
	assert answer.status == 200, answer
	assert answer.json["openapi"].startswith("3.1")
	assert subject.schema in answer.json["components"]["schemas"].values()


def test_every_member_is_described(subject):
	for way, schema in subject.members:
		if way[-1] != 0:
			assert schema.get("description"), spell(way)
		assert len(schema.get("x-enum-descriptions", [])) == len(schema.get("enum", []))


def test_enable_is_required(subject):
	assert "enable" in subject.schema["required"]


# ---- wrong values ----

def test_missing_member(subject):
	def cases():
		for way, schema in subject.objects:
			for name in schema.get("required", []):
				yield "absent", subject.without(way + [name]), way + [name]
				yield "null", subject.changed(way + [name], None), way + [name]
	assert subject.refuse_all(cases()) > 0


def test_empty_required_text(subject):
	def cases():
		for way, schema in subject.members:
			if schema["type"] == "string" and schema.get("minLength", 0) > 0 and is_required(subject, way):
				yield "empty", subject.changed(way, ""), way
	subject.refuse_all(cases())


def test_conditional_member(subject):
	def cases():
		for way, schema in subject.objects:
			for rule in schema.get("allOf", []):
				(sibling, value), = rule["if"]["properties"].items()
				(name,) = rule["then"]["required"]
				config = subject.without(way + [name])
				reach(config, way)[sibling] = value["const"]
				yield f"absent with {sibling} {value['const']}", config, way + [name]
				config = copy.deepcopy(config)
				reach(config, way)[name] = None
				yield f"null with {sibling} {value['const']}", config, way + [name]
	subject.refuse_all(cases())


def test_condition_that_does_not_hold(subject):
	"""With another value of the sibling, nobody misses the member."""
	for way, schema in subject.objects:
		for rule in schema.get("allOf", []):
			(sibling, value), = rule["if"]["properties"].items()
			(name,) = rule["then"]["required"]
			other = schema["properties"][sibling]
			for choice in other.get("enum", [True, False] if other["type"] == "boolean" else []):
				if choice == value["const"]:
					continue
				config = subject.without(way + [name])
				reach(config, way)[sibling] = choice
				assert not is_refused(subject.send(config), spell(way + [name])), (sibling, choice)


def test_wrong_type(subject):
	def cases():
		for way, schema in subject.members:
			for kind, value in VALUES.items():
				if kind not in FITTING[schema["type"]]:
					yield kind, subject.changed(way, value), way
			if way[-1] == 0:
				yield "null", subject.changed(way, None), way
	assert subject.refuse_all(cases()) > 0


def test_out_of_range(subject):
	def cases():
		for way, schema in subject.members:
			step = 1 if schema["type"] == "integer" else 0.001
			for limit, by in (("minimum", -step), ("maximum", step)):
				if limit in schema:
					bound = int(schema[limit]) if schema["type"] == "integer" else schema[limit]
					yield f"{limit} {bound}", subject.changed(way, bound + by), way
	subject.refuse_all(cases())


def test_within_range(subject):
	"""The bounds themselves are no offence of the member."""
	for way, schema in subject.members:
		for limit in ("minimum", "maximum"):
			if limit in schema:
				bound = int(schema[limit]) if schema["type"] == "integer" else schema[limit]
				answer = subject.send(subject.changed(way, bound))
				shown = "" if answer.status == 200 else answer.json["errorMessage"]
				assert not re.search("must be an? (integer|number) (between|of at)", shown), (spell(way), answer)


def test_wrong_length(subject):
	def cases():
		for way, schema in subject.members:
			if schema["type"] != "string" or "enum" in schema:
				continue
			longest = schema.get("maxLength", CONFIG_MAX)
			if longest < CONFIG_MAX // 2:
				yield f"{longest + 1} bytes", subject.changed(way, "a" * (longest + 1)), way
			if schema.get("minLength", 0) > 1:
				yield "too short", subject.changed(way, "a" * (schema["minLength"] - 1)), way
	subject.refuse_all(cases())


def test_wrong_count(subject):
	def cases():
		for way, schema in subject.members:
			if schema["type"] != "array":
				continue
			item = reach(subject.base, way + [0])
			for count in (schema.get("minItems", 0) - 1, schema.get("maxItems", -2) + 1):
				count = int(count)
				if 0 <= count and count * (len(json.dumps(item)) + 2) < CONFIG_MAX // 2:
					yield f"{count} items", subject.changed(way, [item] * count), way
	subject.refuse_all(cases())


def test_unknown_choice(subject):
	def cases():
		for way, schema in subject.members:
			if "enum" not in schema:
				continue
			if schema["type"] == "integer":
				yield "choice", subject.changed(way, max(schema["enum"]) + 1), way
				yield "choice", subject.changed(way, min(schema["enum"]) - 1), way
			else:
				yield "choice", subject.changed(way, "no-such-choice"), way
	subject.refuse_all(cases())


def test_every_choice(subject):
	"""The words of the schema are those the decoder knows."""
	for way, schema in subject.members:
		for choice in schema.get("enum", []):
			answer = subject.send(subject.changed(way, choice))
			if answer.status != 200:
				assert "must be one of" not in answer.json["errorMessage"], (spell(way), choice, answer)


def test_unknown_member(subject):
	def cases():
		for way, _ in subject.objects:
			yield "unknown", subject.changed(way + [UNKNOWN], 1), way + [UNKNOWN]
			# Before anything else that is wrong: a misspelt name explains what seems to be missing.
			if way:
				config = subject.changed(way + [UNKNOWN], 1)
				config["enable"] = "yes"
				yield "unknown first", config, way + [UNKNOWN]
	assert subject.refuse_all(cases()) > 0


def test_member_that_is_there_twice(subject):
	"""JSON with a duplicate name: refused as a whole, whoever comes last does not win."""
	before = subject.stored()
	text = json.dumps(subject.sample)
	for name in subject.sample:
		twice = text[:-1] + f', "{name}": {json.dumps(subject.sample[name])}' + "}"
		answer = subject.api.send("POST", POLICIES, {"name": "derived", "className": subject.class_name, "config": twice})
		assert answer.status == 400, answer
		assert answer.json["errorMessage"].startswith("Invalid parameter: config"), answer
	assert subject.stored() == before
