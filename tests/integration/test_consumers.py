"""Consumers and their rules through the API: what is kept and shown of credentials, what belongs to one consumer only, and how fast a
change counts."""
import json
import os
import pathlib
import threading

import pytest
from backends import ROOT, Backend
from consumer_kit import Signer, allow, b64, basic, bearer, change, consumer, key, keys
from gw import Gateway, numbers
from policy_kit import check_error, raw_get
from shell import START, STOP, run_blocks
from test_quickstart import fits, read_blocks
from wire import wait_until

PATH = "/api/v1/consumers"


@pytest.fixture
def path():
	return f"/consumers-{next(numbers)}"


def refuse(gw, status, field, identities, method="POST", path=PATH, name=None):
	body = {"name": name or f"refused-{next(numbers)}", "identities": identities}
	answer = gw.api(method, path, body)
	check_error(answer, status, {400: "ErrInvalidParameter", 409: "ErrConflict"}[status], field)
	return answer[1]


def guarded(gw, backend, path, kind="key-auth"):
	route = gw.route(path, backend)
	gw.attach("Authentication", {"authenticationType": kind, "enable": True}, to=route)
	return route


def opens(gw, path, k):
	return gw.get(path, bearer(k)).status == 200


# ---- keys ----

def test_made_keys_are_shown_once(gw, backend, path):
	route = guarded(gw, backend, path)
	answer = gw.ask("POST", PATH, {"name": f"made-{next(numbers)}", "identities": {"apiKey": {"credentials": [
		{"generateMode": "System"}, {"apikey": "a-custom-key-0001"}, {"generateMode": "system"}]}}})
	first, second = answer["apiKeys"]
	assert len(first) >= 32 and first != second
	who = f"{PATH}/{answer['consumerId']}"
	item = gw.ask("GET", who)
	ids = [one["credentialId"] for one in item["identities"]["apiKey"]["credentials"]]
	assert len(set(ids)) == 3
	assert item["identities"]["apiKey"]["credentials"] == [{"credentialId": ids[0], "generateMode": "System"},
		{"credentialId": ids[1], "generateMode": "Custom"}, {"credentialId": ids[2], "generateMode": "System"}]
	gw.ask("POST", f"{who}/authorization-rules", {"resourceType": "Route", "resourceId": route.id})
	assert all(opens(gw, path, k) for k in (first, second, "a-custom-key-0001"))
	# What was read is written back: nothing changes, and nothing is shown again.
	assert "apiKeys" not in gw.ask("PUT", who, item)
	assert all(opens(gw, path, k) for k in (first, second, "a-custom-key-0001"))
	assert gw.ask("GET", who)["identities"] == item["identities"]


def test_keys_are_kept_dropped_and_renewed_by_name(gw, backend, path):
	route = guarded(gw, backend, path)
	ks = [key() for _ in range(3)]
	who = consumer(gw, apiKey=keys(*ks))
	allow(gw, who, route)
	a, b, c = (one["credentialId"] for one in gw.ask("GET", who.path)["identities"]["apiKey"]["credentials"])

	def put(*credentials):
		return gw.ask("PUT", who.path, {"name": who.name, "identities": {"apiKey": {"credentials": list(credentials)}}})
	put({"credentialId": c}, {"credentialId": a})
	assert [opens(gw, path, k) for k in ks] == [True, False, True]
	put({"credentialId": a}, {"credentialId": c})
	assert [opens(gw, path, k) for k in ks] == [True, False, True]
	new = key()
	put({"credentialId": a, "apikey": new}, {"credentialId": c})
	assert [opens(gw, path, k) for k in (*ks, new)] == [False, False, True, True]
	made = put({"credentialId": c}, {"generateMode": "System"}, {"generateMode": "System"})
	assert len(gw.ask("GET", who.path)["identities"]["apiKey"]["credentials"]) == 3
	assert opens(gw, path, ks[2]) and not opens(gw, path, new)
	assert all(opens(gw, path, k) for k in made["apiKeys"])
	refuse(gw, 400, "identities.apiKey.credentials[0].credentialId", {"apiKey": {"credentials": [{"credentialId": b}]}}, "PUT", who.path,
		who.name)


def test_CFG6_a_new_key_takes_the_place_of_the_old_one(gw, backend, path):
	"""As many keys as before, but without their names: none of them is kept."""
	route = guarded(gw, backend, path)
	old = key()
	who = consumer(gw, apiKey=keys(old))
	allow(gw, who, route)
	for _ in range(2):
		made = gw.ask("PUT", who.path, {"name": who.name, "identities": {"apiKey": {"credentials": [{"generateMode": "System"}]}}})
		assert opens(gw, path, made["apiKeys"][0]) and not opens(gw, path, old)
		old = made["apiKeys"][0]
	refuse(gw, 400, "identities.apiKey.credentials[0].apikey", {"apiKey": {"credentials": [{"generateMode": "Custom"}]}}, "PUT", who.path,
		who.name)
	assert opens(gw, path, old)


def test_a_key_cannot_be_planted_by_its_digest(gw, backend, path):
	"""What is kept is no member that a client may write."""
	import hashlib
	route = guarded(gw, backend, path)
	k = key()
	digest = hashlib.sha256(k.encode()).hexdigest()
	refuse(gw, 400, "identities.apiKey.credentials[0].apikey", {"apiKey": {"credentials": [{"digest": digest}]}})
	refuse(gw, 400, "identities.basic.password", {"basic": {"username": f"u{next(numbers)}", "passwordHash": "$y$j9T$x$y"}})
	who = consumer(gw, apiKey=keys(key()))
	allow(gw, who, route)
	refuse(gw, 400, "identities.apiKey.credentials[0].apikey", {"apiKey": {"credentials": [{"digest": digest}]}}, "PUT", who.path, who.name)
	assert not opens(gw, path, k)


def test_what_a_consumer_must_have(gw):
	one = {"apiKey": {"credentials": [{"generateMode": "Custom"}]}}
	refuse(gw, 400, "identities.apiKey.credentials[0].apikey", one)
	refuse(gw, 400, "identities.apiKey.credentials[0].apikey", {"apiKey": {"credentials": [{"apikey": "1234567"}]}})
	refuse(gw, 400, "identities.apiKey.credentials[1].apikey", {"apiKey": {"credentials": [{"apikey": key()}, {"apikey": "a\r\nb-12345"}]}})
	refuse(gw, 400, "identities.apiKey.credentials[1].apikey", {"apiKey": {"credentials": [{"apikey": "twice-the-same"}] * 2}})
	refuse(gw, 400, "identities.apiKey.credentials", {"apiKey": {"credentials": []}})
	refuse(gw, 400, "identities.apiKey.credentials[0].generateMode", {"apiKey": {"credentials": [{"generateMode": "Random"}]}})
	refuse(gw, 400, "identities.apiKey.source.value", {"apiKey": keys(key(), source="Header")})
	refuse(gw, 400, "identities.apiKey.source.value", {"apiKey": keys(key(), source="Header", value="not a name")})
	refuse(gw, 400, "identities.apiKey.source.value", {"apiKey": keys(key(), source="QueryString")})
	refuse(gw, 400, "identities.apiKey.source.source", {"apiKey": keys(key(), source="Cookie", value="k")})
	refuse(gw, 400, "identities.basic.password", {"basic": {"username": "u"}})
	refuse(gw, 400, "identities.basic.password", {"basic": {"username": "u", "password": "x" * 257}})
	refuse(gw, 400, "identities.basic.username", {"basic": {"username": "a:b", "password": "x"}})
	signer = Signer()
	refuse(gw, 400, "identities.jwt.jwks", {"jwt": {"jwtPayloadConfig": {"payloadKeyValue": "u"}}})
	refuse(gw, 400, "identities.jwt.jwks", {"jwt": signer.identity("u", remoteJwks={"uri": "https://id.test/keys"})})
	for bad in ("{}", "{\"keys\":[]}", "no json", "{\"keys\":[{\"kty\":\"oct\"}]}", "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}"):
		refuse(gw, 400, "identities.jwt.jwks", {"jwt": {**signer.identity("u"), "jwks": bad}})
	for alg, most in ((None, 31), ("HS256", 31), ("HS384", 47), ("HS512", 63)):
		jwk = {"kty": "oct", **({"alg": alg} if alg else {})}
		short, enough = ({"keys": [{**jwk, "k": b64(b"s" * n)}]} for n in (most, most + 1))
		answer = refuse(gw, 400, "identities.jwt.jwks", {"jwt": {**signer.identity("u"), "jwks": json.dumps(short)}})
		assert f"keys[0].k has {most} bytes; at least {most + 1} are needed" in answer["errorMessage"], answer
		assert gw.api("POST", "/api/v1/consumers?dryRun=true", {"name": "long-enough", "identities": {
			"jwt": {**signer.identity("u"), "jwks": json.dumps(enough)}}})[0] == 200
	for bad in ("ftp://h/", "http://u:p@h/", "/keys", "http://"):
		refuse(gw, 400, "identities.jwt.remoteJwks.uri", {"jwt": {"remoteJwks": {"uri": bad}, "jwtPayloadConfig": {"payloadKeyValue": "u"}}})
	refuse(gw, 400, "identities.jwt.jwtPayloadConfig.payloadKeyValue", {"jwt": {"jwks": signer.jwks, "jwtPayloadConfig": {}}})
	refuse(gw, 400, "identities.jwt.jwtTokenConfig.key", {"jwt": signer.identity("u", jwtTokenConfig={"position": "Header"})})
	refuse(gw, 400, "identities.jwt.claimsToHeadersConfigs[0].header",
		{"jwt": signer.identity("u", claimsToHeadersConfigs=[{"claim": "a", "header": "b c"}])})
	refuse(gw, 400, "identities.keys", {"keys": {}})
	check_error(gw.api("POST", PATH, {"name": "x" * 65}), 400, "ErrInvalidParameter", "name")
	check_error(gw.api("POST", PATH, {"name": ""}), 400, "ErrInvalidParameter", "name")


@pytest.mark.parametrize("header", ["X-Mse-Consumer", "Host", "Content-Length", "Connection", "Transfer-Encoding", "Upgrade"])
def test_claims_cannot_go_into_headers_that_mean_something_else(gw, header):
	identity = Signer().identity(f"u{next(numbers)}", claimsToHeadersConfigs=[{"claim": "a", "header": header.lower()}])
	refuse(gw, 400, "identities.jwt.claimsToHeadersConfigs[0].header", {"jwt": identity})


def test_short_keys_are_warned_about(gw):
	k = f"short{next(numbers):05}"
	who = consumer(gw, apiKey=keys(k))
	record = wait_until(lambda: [r for r in gw.events("consumer.short_key") if r["consumer"] == who.id], what="a warning")[0]
	assert record["field"] == "identities.apiKey.credentials[0]" and k not in gw.stderr()


def test_keys_of_tokens_change_between_inline_and_fetched(gw):
	signer, user = Signer(), f"u{next(numbers)}"
	who = consumer(gw, jwt=signer.identity(user))
	payload = {"jwtPayloadConfig": {"payloadKeyValue": user}}
	fetched = {**payload, "remoteJwks": {"uri": "https://id.test/keys"}}
	refuse(gw, 400, "identities.jwt.jwks", {"jwt": {**fetched, "jwks": Signer().jwks}}, "PUT", who.path, who.name)
	for identity, is_fetched in ((payload, False), (fetched, True), ({**payload, "jwks": signer.jwks}, False)):
		gw.ask("PUT", who.path, {"name": who.name, "identities": {"jwt": identity}})
		assert ("remoteJwks" in gw.ask("GET", who.path)["identities"]["jwt"]) == is_fetched
	gw.ask("PUT", who.path, {"name": who.name, "identities": {"jwt": fetched}})
	refuse(gw, 400, "identities.jwt.jwks", {"jwt": payload}, "PUT", who.path, who.name)


# ---- one credential, one consumer ----

def test_what_one_has_is_refused_to_others(gw):
	k, user, signer = key(), f"user{next(numbers)}", Signer()
	first = consumer(gw, apiKey=keys(key(), k), basic={"username": user, "password": "p"}, jwt=signer.identity(user))
	refuse(gw, 409, "identities.apiKey.credentials[1].apikey", {"apiKey": keys(key(), k)})
	refuse(gw, 409, "identities.apiKey.credentials[0].apikey", {"apiKey": keys(k, source="QueryString", value="k")})
	refuse(gw, 409, "identities.basic.username", {"basic": {"username": user, "password": "q"}})
	refuse(gw, 409, "identities.jwt.jwtPayloadConfig.payloadKeyValue", {"jwt": Signer().identity(user)})
	second = consumer(gw, jwt=signer.identity(user, "sub"))
	refuse(gw, 409, "identities.apiKey.credentials[0].apikey", {"apiKey": keys(k)}, "PUT", second.path, second.name)
	change(gw, first, enable=False)
	refuse(gw, 409, "identities.apiKey.credentials[0].apikey", {"apiKey": keys(k)})
	gw.ask("PUT", first.path, {"name": first.name, "identities": {"apiKey": keys(key())}})
	third = consumer(gw, apiKey=keys(k), basic={"username": user, "password": "p"})
	gw.ask("DELETE", third.path)
	consumer(gw, apiKey=keys(k), basic={"username": user, "password": "p"}, jwt=signer.identity(user))


def test_names_are_unique(gw):
	who = consumer(gw)
	check_error(gw.api("POST", PATH, {"name": who.name}), 409, "ErrConflict", "name")


def test_a_dry_run_takes_nothing(gw, backend, path):
	route = guarded(gw, backend, path)
	k = key()
	assert gw.ask("POST", f"{PATH}?dryRun=true", {"name": f"dry-{next(numbers)}", "identities": {"apiKey": keys(k)}}) is not None
	assert not opens(gw, path, k)
	allow(gw, consumer(gw, apiKey=keys(k)), route)
	assert opens(gw, path, k)


# ---- rules ----

def test_rules(gw, backend, path):
	route = guarded(gw, backend, path)
	who = consumer(gw, apiKey=keys(key()))
	rules = f"{who.path}/authorization-rules"

	def refuse_rule(field, **body):
		check_error(gw.api("POST", rules, {"resourceType": "Route", "resourceId": route.id, **body}), 400, "ErrInvalidParameter", field)
	refuse_rule("resourceType", resourceType="Gateway")
	refuse_rule("resourceType", resourceType="Service")
	refuse_rule("resourceId", resourceId="route-none")
	refuse_rule("resourceId", resourceType="Api")
	refuse_rule("environmentId", environmentId="env-none")
	refuse_rule("expireMode", expireMode="Sometimes")
	refuse_rule("expireTimestamp", expireMode="ShortTerm")
	refuse_rule("expireTimestamp", expireMode="ShortTerm", expireTimestamp="2030-01-01")
	refuse_rule("expires", expires=1)
	rule = allow(gw, who, route)
	item = gw.ask("GET", rule.path)
	assert (item["resourceType"], item["resourceId"], item["environmentId"], item["expireMode"], item["consumerId"]) == (
		"Route", route.id, route.environment, "LongTerm", who.id)
	assert [one["authorizationRuleId"] for one in gw.ask("GET", rules)["items"]] == [rule.id]
	assert opens(gw, path, who.body["identities"]["apiKey"]["credentials"][0]["apikey"])
	gw.ask("DELETE", who.path)
	assert gw.api("GET", rule.path)[0] == 404
	assert gw.api("GET", rules)[0] == 404


def test_a_rule_holds_what_it_is_for(gw, backend, path):
	route = guarded(gw, backend, path)
	who = consumer(gw, apiKey=keys(key()))
	rule = allow(gw, who, route)
	status, answer, _ = gw.api("DELETE", route.path)
	assert status in (200, 409), answer
	if status == 409:
		assert rule.id in answer["errorMessage"]
		gw.ask("DELETE", rule.path)
		gw.ask("DELETE", route.path)


# ---- in force ----

def test_changes_count_before_they_are_answered(gw, backend, path):
	route = guarded(gw, backend, path)
	first, second = key(), key()
	who = consumer(gw, apiKey=keys(first))
	allow(gw, who, route)
	with gw.connect() as connection:
		for _ in range(10):
			assert connection.get(path, bearer(first)).status == 200
			gw.ask("PUT", who.path, {"name": who.name, "identities": {"apiKey": keys(second)}})
			assert connection.get(path, bearer(first)).status == 401
			first, second = second, first
	renamed = f"renamed-{next(numbers)}"
	change(gw, who, name=renamed)
	assert gw.get(path, bearer(first)).status == 200 and backend.last().header("X-Mse-Consumer") == renamed
	gw.ask("DELETE", who.path)
	assert gw.get(path, bearer(first)).status == 401


def test_a_key_that_changes_hands(gw, backend, path):
	route = guarded(gw, backend, path)
	k = key()
	one, two = consumer(gw, apiKey=keys(k)), consumer(gw)
	for who in (one, two):
		allow(gw, who, route)
	gw.ask("PUT", one.path, {"name": one.name})
	gw.ask("PUT", two.path, {"name": two.name, "identities": {"apiKey": keys(k)}})
	assert gw.get(path, bearer(k)).status == 200 and backend.last().header("X-Mse-Consumer") == two.name


def test_everything_is_there_after_a_restart():
	with Gateway() as own, Backend() as backend:
		routes = {kind: guarded(own, backend, f"/{kind}", kind) for kind in ("key-auth", "basic-auth", "jwt-auth")}
		k, signer = key(), Signer()
		who = consumer(own, apiKey=keys(k), basic={"username": "user", "password": "pass:word"}, jwt=signer.identity("u1"))
		for route in routes.values():
			allow(own, who, route)
		made = own.ask("POST", PATH, {"name": "made", "identities": {"apiKey": {"credentials": [{"generateMode": "System"}]}}})["apiKeys"][0]
		for restart in (False, True):
			if restart:
				own.restart()
			assert own.get("/key-auth", bearer(k)).status == 200
			assert own.get("/key-auth", bearer(made)).status == 403
			assert own.get("/basic-auth", basic("user", "pass:word")).status == 200
			assert own.get("/jwt-auth", bearer(signer.token("u1"))).status == 200
			refuse(own, 409, "identities.apiKey.credentials[0].apikey", {"apiKey": keys(k)})


def test_changes_while_requests_come(gw, backend, path):
	"""Every request is judged by one configuration: the old or the new one."""
	route = guarded(gw, backend, path)
	k = key()
	who = consumer(gw, apiKey=keys(k))
	allow(gw, who, route)
	stopped, statuses = threading.Event(), []

	def ask():
		with gw.connect() as connection:
			while not stopped.is_set():
				statuses.append(connection.get(path, bearer(k)).status)
	threads = [threading.Thread(target=ask) for _ in range(2)]
	for thread in threads:
		thread.start()
	for i in range(40):
		change(gw, who, enable=i % 2 == 1)
	stopped.set()
	for thread in threads:
		thread.join()
	assert set(statuses) <= {200, 401} and len(statuses) > 20
	assert opens(gw, path, k)


# ---- secrets ----

def memory_of(pid):
	"""Everything writable in the process, as a core image would have it."""
	with open(f"/proc/{pid}/mem", "rb", 0) as memory:
		for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
			span, mode, _, _, _, *name = line.split(maxsplit=5)
			low, high = (int(part, 16) for part in span.split("-"))
			if "w" not in mode or (name and name[0].startswith(("[vvar", "[vsyscall"))) or high - low > 1 << 28:
				continue
			try:
				memory.seek(low)
				yield memory.read(high - low)
			except (OSError, ValueError, OverflowError):
				continue


def test_fifty_canaries_stay_out_of_everything():
	with Gateway() as own, Backend() as backend:
		canaries = [f"canary{i:02}-{os.urandom(12).hex()}" for i in range(50)]
		routes = {kind: guarded(own, backend, f"/{kind}", kind) for kind in ("key-auth", "basic-auth", "jwt-auth")}
		made = []
		for i in range(0, 48, 3):
			answer = own.ask("POST", PATH, {"name": f"c{i}", "identities": {"apiKey": {"credentials": [{"apikey": canaries[i]},
				{"generateMode": "System"}]}, "basic": {"username": f"u{i}", "password": canaries[i + 1]},
				"jwt": Signer(canaries[i + 2]).identity(f"s{i}")}})
			made += answer["apiKeys"]
			who = f"{PATH}/{answer['consumerId']}"
			for route in routes.values():
				own.ask("POST", f"{who}/authorization-rules", {"resourceType": "Route", "resourceId": route.id})
			own.ask("PUT", who, {**own.ask("GET", who), "description": "changed"})
			assert own.get("/key-auth", bearer(canaries[i])).status == 200
		query = own.ask("POST", PATH, {"name": "q", "identities": {"apiKey": keys(canaries[48], source="QueryString", value="k")}})
		own.ask("POST", PATH, {"name": "q2", "identities": {"apiKey": keys(canaries[49], source="Header", value="X-K")}})
		assert own.get(f"/key-auth?k={canaries[48]}").status == 403
		assert own.get("/basic-auth", basic("u0", canaries[1])).status == 200
		assert own.get("/basic-auth", basic("u3", canaries[1])).status == 401
		assert own.get("/jwt-auth", bearer(Signer(canaries[2]).token("s0"))).status == 200
		# Refused writes, and errors that could quote.
		refuse(own, 409, "identities.apiKey.credentials[0].apikey", {"apiKey": keys(canaries[0])})
		refuse(own, 400, "identities.basic.username", {"basic": {"username": "a:b", "password": canaries[1]}})
		own.api("PUT", f"{PATH}/{query['consumerId']}", raw=b'{"name": "q", "identities": {"apiKey": "%s"}}' % canaries[48].encode())

		secrets = canaries + made
		answers = [own.ask("GET", f"{PATH}?pageSize=100"), own.ask("GET", "/openapi.json"), own.ask("GET", f"/api/v1/gateways/{own.default.id}")]
		answers += [own.ask("GET", f"{PATH}/{item['consumerId']}") for item in answers[0]["items"]]
		answers.append(raw_get(own, "/metrics")[1])
		shown = json.dumps(answers)
		logs = own.stderr()
		for secret in secrets:
			assert secret not in shown and secret not in logs
		own.stop()
		files = [file for file in pathlib.Path(own.data).rglob("*") if file.is_file()]
		assert files
		for file in files:
			data = file.read_bytes()
			for secret in secrets:
				assert secret.encode() not in data, f"{file.name} holds a secret in the clear"


def test_keys_and_passwords_are_not_kept_in_memory():
	"""What a core image would show, right after they were given and after a start: nothing that proves anything."""
	with Gateway() as own, Backend() as backend:
		guarded(own, backend, "/key-auth")
		canaries = [f"canary{i:02}-{os.urandom(12).hex()}" for i in range(20)]
		for i in range(0, 20, 2):
			consumer(own, apiKey=keys(canaries[i]), basic={"username": f"u{i}", "password": canaries[i + 1]})
		for restart in (False, True):
			if restart:
				own.restart()
			assert own.get("/key-auth", bearer("some other key")).status == 401
			found = [canary for block in memory_of(own.process.pid) for canary in canaries if canary.encode() in block]
			assert found == []


# ---- the guide ----

def test_the_guide_prints_what_it_says(tmp_path):
	"""docs/guide/consumers.md, literally."""
	page = (ROOT / "docs/guide/consumers.md").read_text()
	blocks = [block for block in read_blocks(page) if block[0].strip() != "make run"]
	outputs = run_blocks([START, *(commands for commands, _ in blocks), STOP], tmp_path)[1:-1]
	assert len(blocks) == len(outputs) >= 4
	for (commands, expected), output in zip(blocks, outputs):
		want, have = expected.rstrip().split("\n"), output.rstrip().split("\n")
		assert len(want) == len(have) and all(map(fits, want, have)), f"{commands}\nprinted\n{output}\nand not\n{expected}"
