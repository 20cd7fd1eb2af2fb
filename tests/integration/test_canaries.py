"""Secrets that were planted everywhere: none of them is in an answer of the API, a log, a metric, the database or a core file."""
import hashlib
import json
import pathlib
import re
import secrets

import pytest
from backends import Backend
from consumer_kit import b64, basic, bearer
from gw import Gateway, numbers
from pki import self_signed
from policy_kit import raw_get

# Every member that the API calls writeOnly, and where a canary for it is planted below.
PLANTED = {
	"Certificate.privateKey", "Service.aiServiceConfig.apiKeys", "Service.agentServiceConfig.dashScopeConfig.appCredentials.apiKey",
	"Service.agentServiceConfig.difyConfig.apiKey", "Service.agentServiceConfig.customConfig.apiKey",
	"Consumer.identities.apiKey.credentials.apikey", "Consumer.identities.basic.password", "Consumer.identities.jwt.jwks",
	"AiTokenRateLimitConfig.redisConfig.password", "AiCacheConfig.redisConfig.password", "AiCacheConfig.vectorConfig.apiKey",
	"AiNetworkSearchConfig.apiKey", "OIDCAuthConfig.clientSecret",
}
# Made by the gateway itself of what was planted.
DERIVED = {"Consumer.identities.apiKey.credentials.digest", "Consumer.identities.basic.passwordHash", "Token.digest"}
SECRET_FEATURES = {"ai.guard.access_key_secret", "ai.guard.security_token"}
LISTS = ["/v2/meshes", "/v2/meshes/default/gateways", "/api/v1/gateways", "/api/v1/environments", "/api/v1/domains", "/api/v1/certificates",
	"/api/v1/services", "/api/v1/routes", "/api/v1/http-apis", "/api/v1/llm-apis", "/api/v1/agent-apis", "/api/v1/consumers",
	"/api/v2/policies", "/api/v1/policy-attachments", "/api/v1/policy-classes", "/api/v1/tokens"]


class Planter:
	"""Makes canaries, and remembers what must be seen nowhere."""

	def __init__(self):
		self.unseen = {}

	def canary(self, where):
		text = f"canary-{secrets.token_hex(16)}"
		self.hide(where, text)
		return text

	def hide(self, where, text):
		self.unseen[text] = where

	def jwks(self, where):
		secret = self.canary(where)
		self.hide(f"{where}, as it is spelt", b64(secret.encode()))
		return json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "1", "k": b64(secret.encode())}]})

	def found_in(self, text):
		data = text if isinstance(text, bytes) else text.encode()
		return sorted(where for secret, where in self.unseen.items() if secret.encode() in data)


def write_only_members(node, path=""):
	"""Paths of writeOnly members in a document of OpenAPI, lists without their brackets."""
	if node.get("writeOnly"):
		yield path
	for name, member in node.get("properties", {}).items():
		yield from write_only_members(member, f"{path}.{name}" if path else name)
	if "items" in node:
		yield from write_only_members(node["items"], path)


def consumer_body(p, name, n_keys):
	return {"name": name, "enable": True, "identities": {
		"apiKey": {"credentials": [{"apikey": p.canary("an API key"), "generateMode": "Custom"} for _ in range(n_keys)]},
		"basic": {"username": f"user-{name}", "password": p.canary("a password")},
		"jwt": {"secretType": "Symmetry", "jwks": p.jwks("a key set of a consumer"), "jwtPayloadConfig": {"payloadKeyValue": name}}}}


def service_bodies(p, site):
	shared = {"gatewayId": site.id, "addresses": ["127.0.0.1:9"]}
	agent = {"address": "http://127.0.0.1:9"}
	yield {**shared, "sourceType": "AI", "aiServiceConfig": {"provider": "openai", "address": "http://127.0.0.1:9",
		"apiKeys": [p.canary("a key of an AI service") for _ in range(3)]}}
	yield {**shared, "sourceType": "AGENT", "agentServiceConfig": {**agent, "dashScopeConfig": {"appCredentials": [
		{"appId": f"app-{i}", "apiKey": p.canary("a key of an app")} for i in range(3)]}}}
	yield {**shared, "sourceType": "AGENT", "agentServiceConfig": {**agent, "difyConfig": {"apiKey": p.canary("a key of Dify")}}}
	yield {**shared, "sourceType": "AGENT", "agentServiceConfig": {**agent, "customConfig": {"apiKey": p.canary("a key of an agent")}}}


def policy_configs(p, embedding):
	redis = {"serviceHost": "127.0.0.1", "servicePort": 9}
	yield "AiTokenRateLimit", {"rules": [{"limitType": "LimitByConsumer", "threshold": 1, "timeWindow": 60}],
		"redisConfig": {**redis, "password": p.canary("a password of Redis")}}
	yield "AiCache", {"cacheMode": "semantic", "cacheKeyStrategy": "lastQuestion", "cacheTTL": 60,
		"redisConfig": {**redis, "password": p.canary("a password of Redis (cache)")},
		"embeddingConfig": {"type": "dashscope", "serviceId": embedding},
		"vectorConfig": {"type": "adb-postgres", "serviceHost": "127.0.0.1:9/cache", "apiKey": f"user:{p.canary('a password of a vector store')}",
			"timeout": 100, "collectionId": "ai_cache", "threshold": 0.9}}
	yield "AiNetworkSearch", {"provider": "bing", "apiKey": p.canary("a key of a search engine"), "maxResults": 3, "timeout": 100}
	yield "OIDCAuth", {"issuer": "http://127.0.0.1:9", "clientId": "c", "clientSecret": p.canary("a client secret"),
		"redirectUri": f"http://127.0.0.1/callback-{next(numbers)}", "scopes": ["openid"]}
	yield "JWTAuth", {"name": "j", "issuer": "i", "jwks": p.jwks("a key set of JWTAuth"), "tokenPosition": "header",
		"tokenName": "Authorization", "tokenNamePrefix": "Bearer ", "tokenPass": False}


def everything_readable(gw, site):
	"""What the API says of all there is, and the metrics."""
	texts = []
	for path in LISTS:
		status, answer, _ = gw.api("GET", f"{path}?pageSize=100")
		assert status == 200, (path, answer)
		texts.append(json.dumps(answer))
	for name in ("services", "routes", "consumers", "certificates"):
		answer = gw.ask("GET", f"/api/v1/{name}?pageSize=100")
		for item in answer["items"]:
			path = f"/api/v1/{name}/{item[name.rstrip('s') + 'Id']}"
			texts.append(json.dumps(gw.ask("GET", path)))
			if name == "routes":
				texts.append(json.dumps(gw.ask("GET", f"{path}/effective-policies")))
	texts.append(json.dumps(gw.ask("GET", f"/api/v1/gateways/{site.id}/gateway-features")))
	texts.append(json.dumps(gw.ask("GET", "/openapi.json")))
	texts.append(raw_get(gw, "/metrics")[1])
	return texts


def test_every_secret_of_the_api_is_planted():
	"""A new secret member needs a canary in this file."""
	with Gateway() as gw:
		schemas = gw.ask("GET", "/openapi.json")["components"]["schemas"]
		features = gw.ask("GET", f"/api/v1/gateways/{gw.default.id}/gateway-features?pageSize=100")
	found = {f"{name}.{path}" for name, schema in schemas.items() if not name.endswith("Item") for path in write_only_members(schema)}
	assert found == PLANTED | DERIVED
	names = {item["name"] for item in features["items"]}
	assert SECRET_FEATURES <= names
	assert {name for name in names if re.search(r"secret|password|token$", name)} == SECRET_FEATURES


def trace(gw, texts, method, path, fields=()):
	"""A dry run: what would be sent where, and why."""
	texts.append(json.dumps(gw.ask("POST", "/api/v1/trace", {"method": method, "url": path, "listener": str(gw.port),
		"headers": [{"name": name, "value": value} for name, value in fields]})))


def trace_everything(gw, texts, services):
	"""Dry runs that come to each of the services that have a key, and past each policy that has a secret."""
	site = gw.default
	json_body = [("Content-Type", "application/json")]
	for name, path, more in (("llm-apis", "/v1/chat/completions", {"aiProtocols": ["OpenAI/v1"]}),
		("agent-apis", "/api/v1/apps/app-1/completion", {"protocol": "DashScope"}),
		("agent-apis", "/v1/chat-messages", {"protocol": "Dify"}), ("agent-apis", "/anything", {"protocol": "Custom"})):
		base = f"/api-{next(numbers)}"
		gw.ask("POST", f"/api/v1/{name}", {"name": base[1:], "gatewayId": site.id, "environmentId": site.environment, "domainIds": [],
			"basePath": base, "services": [{"serviceId": services.pop(0).id, "weight": 100}], **more})
		trace(gw, texts, "POST", base + path, json_body)
	for route in gw.ask("GET", "/api/v1/routes?pageSize=100")["items"]:
		trace(gw, texts, "GET", route["match"]["path"]["value"], [("Accept", "text/html")])


def refuse(gw, texts, method, path, body):
	status, answer, _ = gw.api(method, path, body)
	assert status in (400, 409), (status, answer)
	texts.append(json.dumps(answer))


def plant_refused(gw, p, texts, site, consumer):
	"""Writes that are refused, with canaries in what they say."""
	path = "/api/v1/consumers"
	for member in ({"apiKey": {"credentials": [{"apikey": [p.canary("a key of another type")]}]}},
		{"basic": {"username": "u:v", "password": p.canary("a password of a refused user")}},
		{"basic": {"username": f"user-{consumer['name']}", "password": p.canary("a password of a user that there is")}},
		{"jwt": {"jwks": p.canary("no key set"), "jwtPayloadConfig": {"payloadKeyValue": "x"}}},
		{"apiKey": {"credentials": consumer["identities"]["apiKey"]["credentials"]}}):
		refuse(gw, texts, "POST", path, {"name": f"refused-{next(numbers)}", "identities": member})
	for bad in (p.canary("no key set") + " {", "{" + p.canary("half a key set"), {"keys": [{"kty": "oct", "k": p.canary("a key set, no text")}]},
		json.dumps({"keys": [{"kty": "oct", "k": p.canary("a key for another use"), "use": "enc"}]})):
		config = {"enable": True, "name": "j", "issuer": "i", "jwks": bad, "tokenPosition": "header", "tokenName": "Authorization",
			"tokenPass": False}
		refuse(gw, texts, "POST", "/api/v2/policies", {"name": "x", "className": "JWTAuth", "config": json.dumps(config)})
	refuse(gw, texts, "POST", "/api/v1/certificates", {"name": "x", "namespace": "default", "certificate": "no certificate",
		"privateKey": p.canary("no private key")})
	refuse(gw, texts, "PUT", f"/api/v1/gateways/{site.id}/gateway-features/ai.guard.access_key_secret",
		{"value": [p.canary("a setting of another type")]})


def plant_traffic(gw, p, backend, consumers):
	"""Requests with good and bad credentials."""
	key = gw.route(f"/keys-{next(numbers)}", backend)
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=key)
	path = key.body["match"]["path"]["value"]
	for text in (consumers[0]["identities"]["apiKey"]["credentials"][0]["apikey"], p.canary("an unknown key")):
		gw.get(f"{path}?apikey={text}", bearer(text))
		gw.get(path, {"x-api-key": text})
	user = gw.route(f"/users-{next(numbers)}", backend)
	gw.attach("Authentication", {"authenticationType": "basic-auth"}, to=user)
	path = user.body["match"]["path"]["value"]
	for text in (consumers[0]["identities"]["basic"]["password"], p.canary("a wrong password")):
		fields = basic(consumers[0]["identities"]["basic"]["username"], text)
		p.hide("a password in a header", fields["Authorization"].split()[1])
		gw.get(path, fields)


@pytest.fixture(scope="module")
def planted():
	"""All of it planted, changed, used and refused: (planter, gateway, texts that it said, folder)."""
	p, texts = Planter(), []
	with Gateway() as gw, Backend() as backend:
		site = gw.default
		p.hide("the admin's token", gw.token)
		token = gw.ask("POST", "/api/v1/tokens", {"name": "t", "actions": ["*"]})
		p.hide("a token's digest", hashlib.sha256(token["token"].encode()).hexdigest())
		p.hide("a token", token["token"])
		_, pair = self_signed("a.test")
		for line in pair.key.strip().split("\n")[1:-1]:
			if len(line) > 40:
				p.hide("a private key", line)
		certificate = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": "c", "namespace": "default",
			"certificate": pair.cert, "privateKey": pair.key})
		services = [gw.create("Service", "/api/v1/services", "serviceId", {"name": f"s-{i}", **body})
			for i, body in enumerate(service_bodies(p, site))]
		bodies = [consumer_body(p, f"c-{i}", 5) for i in range(3)]
		consumers = [gw.create("Consumer", "/api/v1/consumers", "consumerId", body) for body in bodies]
		made = gw.ask("POST", "/api/v1/consumers", {"name": "made", "identities": {"apiKey": {"credentials": [{"generateMode": "System"}]}}})
		p.hide("a key that the gateway made", made["apiKeys"][0])
		for body in bodies:
			for item in body["identities"]["apiKey"]["credentials"]:
				p.hide("a key's digest", hashlib.sha256(item["apikey"].encode()).hexdigest())
		policies = []
		for name, config in policy_configs(p, services[0].id):
			policies.append(gw.attach(name, config, to=gw.route(f"/planted-{next(numbers)}", backend)).policy)
		for name in sorted(SECRET_FEATURES):
			gw.feature(name, p.canary(name))
		for thing in (certificate, *services, *consumers, *policies):
			read = gw.ask("GET", thing.path)
			texts += [json.dumps(read), json.dumps(gw.ask("PUT", thing.path, read))]
		# And once more with others: those before must be gone as well.
		for thing, (_, config) in zip(policies, policy_configs(p, services[0].id)):
			gw.change_policy(thing, config)
		for thing, body in zip(services, service_bodies(p, site)):
			gw.ask("PUT", thing.path, {**gw.ask("GET", thing.path), **body})
		plant_refused(gw, p, texts, site, bodies[0])
		plant_traffic(gw, p, backend, bodies)
		trace_everything(gw, texts, services)
		texts += everything_readable(gw, site)
		gw.restart()
		texts += everything_readable(gw, site)
		yield p, gw, texts


def test_50_canaries_are_planted(planted):
	p, _, _ = planted
	assert len(p.unseen) >= 50


def test_no_canary_is_in_an_answer(planted):
	p, _, texts = planted
	for text in texts:
		assert p.found_in(text) == []


def test_no_canary_is_in_a_log(planted):
	p, gw, _ = planted
	for path in pathlib.Path(gw.own_folder).glob("stderr.*"):
		assert p.found_in(path.read_bytes()) == []


def test_no_canary_is_in_the_data_folder(planted):
	"""The database, its log of changes, and whatever else lies there, but for the admin's token, which is for the admin to read."""
	p, gw, _ = planted
	files = [path for path in pathlib.Path(gw.data).rglob("*") if path.is_file() and path.name != "admin.token"]
	assert any(b"SQLite format 3" in path.read_bytes() for path in files)
	for path in files:
		assert p.found_in(path.read_bytes()) == [], path


def test_a_core_file_holds_no_memory(planted):
	"""Neither a file, nor what a program gets that cores are piped to; unless it is asked for."""
	_, gw, _ = planted
	folder = pathlib.Path(f"/proc/{gw.process.pid}")
	assert int((folder / "coredump_filter").read_text(), 16) == 0
	assert re.search(r"Max core file size +0 +0 ", (folder / "limits").read_text())
	with Gateway(core_dumps=True) as other:
		assert int(pathlib.Path(f"/proc/{other.process.pid}/coredump_filter").read_text(), 16) != 0


def test_canaries_that_were_kept_still_work(planted):
	"""What is not shown is there all the same: a consumer that was put back as it was read passes with its key, its password and its token."""
	p, gw, _ = planted
	key = next(text for text, where in p.unseen.items() if where == "an API key")
	path = next(route["match"]["path"]["value"] for route in gw.ask("GET", "/api/v1/routes?pageSize=100")["items"]
		if route["match"]["path"]["value"].startswith("/keys-"))
	answer = gw.get(path, bearer(key))
	assert (answer.status, answer.json["errorMessage"]) == (403, "Unauthorized consumer")
