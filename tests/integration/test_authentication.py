"""Authentication on live traffic: the acceptance examples of its contract (test_ex<n>), its rules AUT-n and ID-n, and its traps."""
import base64
import json
import threading
import time

import pytest
from backends import Backend
from consumer_kit import Signer, allow, b64, basic, bearer, change, consumer, key, keys
from gw import Gateway, free_port, numbers
from h2wire import H2
from pki import openssl
from policy_kit import cors, headers, op, outcomes, phase, preflight, raw_get, rest_api
from scripted import UPGRADE
from side_services import SideService, plain
from wire import wait_until


def auth(kind="key-auth", **more):
	return {"authenticationType": kind, "enable": True, **more}


@pytest.fixture
def path():
	return f"/authentication-{next(numbers)}"


def guarded(gw, backend, path, kind="key-auth"):
	"""A route behind Authentication."""
	route = gw.route(path, backend)
	route.attachment = gw.attach("Authentication", auth(kind), to=route)
	return route


def user_of(gw, route, **identities):
	"""A consumer that may call the route."""
	who = consumer(gw, **identities)
	allow(gw, who, route)
	return who


def is_refused(answer, message, challenge='Key realm="sluice"'):
	assert answer.status == 401, answer
	assert answer.header("WWW-Authenticate") == challenge
	assert answer.json["errorCode"] == "ErrUnauthorized" and answer.json["errorMessage"] == message
	assert answer.json["requestId"] == answer.header("X-Request-Id")
	return True


NO_KEY, BAD_KEY, MANY_KEYS = "No API key found in request", "Invalid API key", "Multiple API keys found in request"
BASIC, BAD_BASIC = 'Basic realm="sluice", charset="UTF-8"', "Invalid user name or password"
BEARER, BAD_BEARER = 'Bearer realm="sluice"', 'Bearer realm="sluice", error="invalid_token"'


def is_unauthorized(answer):
	assert answer.status == 403 and answer.json["errorCode"] == "ErrForbidden", answer
	assert answer.json["errorMessage"] == "Unauthorized consumer" and answer.header("WWW-Authenticate") is None
	return True


# ---- examples of the contract ----

def test_ex1_key_of_an_authorized_consumer(gw, backend, path):
	route = guarded(gw, backend, path)
	mine, others = key(), key()
	c1 = user_of(gw, route, apiKey=keys(mine))
	c2 = consumer(gw, apiKey=keys(others))
	assert gw.get(path, bearer(mine)).status == 200
	assert backend.last().all("X-Mse-Consumer") == [c1.name]
	backend.clear()
	assert is_refused(gw.get(path), NO_KEY)
	assert is_refused(gw.get(path, bearer("no such key")), BAD_KEY)
	assert is_unauthorized(gw.get(path, bearer(others)))
	assert backend.requests() == []
	counts = outcomes(gw, route.attachment)
	assert [counts[route.name, what] for what in ("passed", "unauthenticated", "unauthorized")] == [1, 2, 1]
	# ID-3: who was recognised is in the record, also where he may not pass.
	wait_until(lambda: len(gw.records(path=path)) == 4, what="records")
	assert {r.get("consumer") for r in gw.records(path=path)} == {c1.name, c2.name, None}
	assert phase(gw, route.attachment) == "Active"


@pytest.mark.parametrize("name", ["X-Mse-Consumer", "x-mse-consumer", "X-MSE-CONSUMER", "X_Mse_Consumer", "x-mse_consumer"])
def test_ex2_a_client_cannot_say_who_it_is(gw, backend, path, name):
	route = guarded(gw, backend, path)
	mine = key()
	c1 = user_of(gw, route, apiKey=keys(mine))
	seen = gw.echo(f"{path}/echo", [("Authorization", f"Bearer {mine}"), (name, "admin"), (name, "root")])
	assert {k: v for k, v in seen["fields"].items() if k.replace("_", "-") == "x-mse-consumer"} == {"x-mse-consumer": [c1.name]}
	assert gw.get(path, {name: c1.name}).status == 401


def test_ex3_two_keys(gw, backend, path):
	route = guarded(gw, backend, path)
	k1, k2, parameter = key(), key(), f"apikey{next(numbers)}"
	user_of(gw, route, apiKey=keys(k1))
	user_of(gw, route, apiKey=keys(k2, source="QueryString", value=parameter))
	assert is_refused(gw.get(f"{path}?{parameter}={k2}", bearer(k1)), MANY_KEYS)
	assert gw.get(f"{path}?{parameter}={k2}").status == 200
	# A key counts only where its consumer carries it.
	assert is_refused(gw.get(f"{path}?{parameter}={k1}"), BAD_KEY)
	assert is_refused(gw.get(path, bearer(k2)), BAD_KEY)
	assert gw.get(f"{path}?{parameter}={k1}", bearer(k1)).status == 200
	assert gw.get(path, {**bearer(k1), "x-api-key": k1}).status == 200
	assert is_refused(gw.get(path, [("x-api-key", k1), ("x-api-key", k2)]), MANY_KEYS)
	assert is_refused(gw.get(f"{path}?{parameter}={k2}&{parameter}={k1}"), MANY_KEYS)
	assert gw.get(f"{path}?{parameter}={k2}&{parameter}={k2}").status == 200


def test_ex4_query_keys_are_percent_decoded(gw, backend, path):
	route = guarded(gw, backend, path)
	user_of(gw, route, apiKey=keys("abcdefg+h", source="QueryString", value="apikey"))
	assert gw.get(f"{path}?apikey=abcdefg%2Bh").status == 200
	assert gw.get(f"{path}?a=1&apikey=%61bcdefg%2bh&b=2").status == 200
	assert backend.last().target.endswith("?a=1&apikey=%61bcdefg%2bh&b=2"), "AUT-10: kept towards plain services"
	for bad in ("abcdefg%20h", "abcdefg", "", "abcdefg%2", "abcdefg%zzh"):
		assert gw.get(f"{path}?apikey={bad}").status == 401
	assert gw.get(f"{path}?APIKEY=abcdefg%2Bh").status == 401


def test_ex5_basic(gw, backend, path):
	route = guarded(gw, backend, path, "basic-auth")
	name = f"user{next(numbers)}"
	who = user_of(gw, route, basic={"username": name, "password": "pa:ss"})
	assert gw.get(path, basic(name, "pa:ss")).status == 200
	assert backend.last().header("X-Mse-Consumer") == who.name
	assert is_refused(gw.get(path, {"Authorization": "Basic ///!"}), BAD_BASIC, BASIC)
	assert is_refused(gw.get(path, basic(name, "pa")), BAD_BASIC, BASIC)
	assert is_refused(gw.get(path), "No user name and password found in request", BASIC)


def test_ex6_levels(gw, backend, path):
	"""At a gateway any consumer passes; at a route a rule has to let him."""
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	k = key()
	who = consumer(gw, apiKey=keys(k))
	gw.attach("Authentication", auth(), to=site)
	assert gw.get(path, bearer(k), site=site).status == 200
	assert gw.get(path, site=site).status == 401
	narrow = gw.attach("Authentication", auth(), to=route)
	assert is_unauthorized(gw.get(path, bearer(k), site=site))
	now = int(time.time() * 1000)
	rule = allow(gw, who, route, expireMode="ShortTerm", expireTimestamp=now - 1)
	assert is_unauthorized(gw.get(path, bearer(k), site=site))
	gw.ask("PUT", rule.path, {**rule.body, "expireTimestamp": now + 600000})
	assert gw.get(path, bearer(k), site=site).status == 200
	gw.ask("DELETE", rule.path)
	assert is_unauthorized(gw.get(path, bearer(k), site=site))
	# Disabled at the narrow level: as if absent, the wide one still asks.
	gw.change_policy(narrow, auth(enable=False))
	assert gw.get(path, bearer(k), site=site).status == 200
	assert gw.get(path, site=site).status == 401


def test_ex6_a_rule_ends_while_requests_come(gw, backend, path):
	"""AUT-8: nothing has to be published for it."""
	route = guarded(gw, backend, path)
	k = key()
	who = consumer(gw, apiKey=keys(k))
	allow(gw, who, route, expireMode="ShortTerm", expireTimestamp=int(time.time() * 1000) + 1500)
	connection = gw.connect()
	assert connection.get(path, bearer(k)).status == 200
	wait_until(lambda: connection.get(path, bearer(k)).status == 403, 20, "the rule to end")


def test_ex7_a_token_for_another_ones_name(gw, backend, path):
	route = guarded(gw, backend, path, "jwt-auth")
	s1, s2 = Signer(), Signer()
	u1, u2 = f"u{next(numbers)}", f"u{next(numbers)}"
	c1 = user_of(gw, route, jwt=s1.identity(u1))
	user_of(gw, route, jwt=s2.identity(u2))
	assert gw.get(path, bearer(s1.token(u1))).status == 200
	assert backend.last().header("X-Mse-Consumer") == c1.name
	assert is_refused(gw.get(path, bearer(s2.token(u1))), "Invalid token", BAD_BEARER)
	assert is_refused(gw.get(path, bearer(s1.token(u2))), "Invalid token", BAD_BEARER)
	assert is_refused(gw.get(path, bearer(s1.token("nobody"))), "Invalid token", BAD_BEARER)
	assert is_refused(gw.get(path), "No token found in request", BEARER)


def test_ex8_disabling(gw, backend, path):
	route = guarded(gw, backend, path)
	k = key()
	who = user_of(gw, route, apiKey=keys(k))
	with gw.connect() as connection:
		assert connection.get(path, bearer(k)).status == 200
		change(gw, who, enable=False)
		assert is_refused(connection.get(path, bearer(k)), BAD_KEY)
		change(gw, who, enable=True)
		assert connection.get(path, bearer(k)).status == 200


# ---- key-auth ----

def test_aut1_only_identities_of_the_type_count(gw, backend, path):
	route = guarded(gw, backend, path)
	k, signer, user = key(), Signer(), f"user{next(numbers)}"
	user_of(gw, route, apiKey=keys(k), basic={"username": user, "password": k}, jwt=signer.identity(user))
	assert gw.get(path, bearer(k)).status == 200
	assert is_refused(gw.get(path, basic(user, k)), NO_KEY)
	assert is_refused(gw.get(path, bearer(signer.token(user))), BAD_KEY)
	gw.change_policy(route.attachment, auth("basic-auth"))
	assert gw.get(path, basic(user, k)).status == 200
	assert gw.get(path, bearer(k)).status == 401
	gw.change_policy(route.attachment, auth("jwt-auth"))
	assert gw.get(path, bearer(signer.token(user))).status == 200
	assert gw.get(path, basic(user, k)).status == 401


def test_aut2_default_places(gw, backend, path):
	route = guarded(gw, backend, path)
	k = key()
	user_of(gw, route, apiKey=keys(k))
	for fields in ({"Authorization": f"bearer {k}"}, {"authorization": f"BEARER   {k} "}, {"x-api-key": k}, {"X-API-KEY": f" {k}"}):
		assert gw.get(path, fields).status == 200, fields
	for fields in ({"Authorization": k}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"x-api-key": ""},
			{"Authorization": f"Token {k}"}):
		assert is_refused(gw.get(path, fields), NO_KEY), fields
	for fields in ({"x-api-key": f"Bearer {k}"}, {"x-api-key": k.upper()}, {"x-api-key": k[:-1]}, {"x-api-key": k + "x"}):
		assert gw.get(path, fields).status == 401, fields


def test_aut2_header(gw, backend, path):
	route = guarded(gw, backend, path)
	k, in_authorization, name = key(), key(), f"X-Key-{next(numbers)}"
	user_of(gw, route, apiKey=keys(k, source="Header", value=name))
	user_of(gw, route, apiKey=keys(in_authorization, source="Header", value="Authorization"))
	assert gw.get(path, {name.lower(): k}).status == 200
	assert backend.last().header(name) == k
	assert gw.get(path, {name: f"Bearer {k}"}).status == 401
	# In Authorization with or without the scheme.
	for value in (in_authorization, f"Bearer {in_authorization}", f"bearer {in_authorization}"):
		assert gw.get(path, {"Authorization": value}).status == 200, value
	assert gw.get(path, {"Authorization": k}).status == 401


def test_several_keys_of_one_consumer(gw, backend, path):
	route = guarded(gw, backend, path)
	ks = [key() for _ in range(3)]
	who = user_of(gw, route, apiKey=keys(*ks))
	for k in ks:
		assert gw.get(path, bearer(k)).status == 200
		assert backend.last().header("X-Mse-Consumer") == who.name


def test_without_any_consumer():
	with Gateway(workers=1) as own, Backend() as backend:
		for kind, fields, message in (("key-auth", {"x-api-key": "12345678"}, BAD_KEY), ("key-auth", {}, NO_KEY),
				("jwt-auth", {}, "No token found in request"), ("jwt-auth", bearer("x"), "Invalid token"),
				("basic-auth", basic("u", "p"), BAD_BASIC)):
			route = guarded(own, backend, f"/none-{next(numbers)}", kind)
			answer = own.get(route.body["match"]["path"]["value"], fields)
			assert answer.status == 401 and answer.json["errorMessage"] == message


# ---- basic-auth ----

def encoded(data):
	return {"Authorization": "Basic " + base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()}


def test_aut5_forms(gw, backend, path):
	route = guarded(gw, backend, path, "basic-auth")
	user, password = f"jürgen{next(numbers)}", "pässwörd ✓:"
	user_of(gw, route, basic={"username": user, "password": password})
	good = encoded(f"{user}:{password}")["Authorization"].split(" ")[1]
	for value in (f"Basic {good}", f"basic {good}", f"BASIC    {good}", f"Basic {good.rstrip('=')}"):
		assert gw.get(path, {"Authorization": value}).status == 200, value
	assert gw.get(path, [("Authorization", f"Basic {good}"), ("Authorization", f"basic {good}")]).status == 200
	assert gw.get(path, [("Authorization", f"Bearer {good}"), ("Authorization", f"Basic {good}")]).status == 200
	for value in (f"Bearer {good}", good, "Basic", "Basic ", f"Basic{good}"):
		answer = gw.get(path, {"Authorization": value})
		assert is_refused(answer, "No user name and password found in request", BASIC), value
	answer = gw.get(path, [("Authorization", f"Basic {good}"), ("Authorization", "Basic eDp5")])
	assert is_refused(answer, "Multiple credentials found in request", BASIC)


@pytest.mark.parametrize("data", ["no colon", ":", "", b"\xff\xfe:x", b"user\0:x", b"user:pass\0word", "user:" + "x" * 300, "user:" + "x" * 600])
def test_aut5_what_is_no_user_and_password(gw, backend, path, data):
	guarded(gw, backend, path, "basic-auth")
	answer = gw.get(path, encoded(data))
	assert answer.status == 401 and answer.header("WWW-Authenticate") == BASIC
	assert backend.requests() == []


def test_aut5_failures_take_the_same_time(gw, backend, path):
	"""An unknown user, a disabled one, a wrong password, one that was wrong before: nobody can tell them apart by time."""
	route = guarded(gw, backend, path, "basic-auth")
	users = [f"user{next(numbers)}" for _ in range(2)]
	for user in users:
		who = user_of(gw, route, basic={"username": user, "password": "right"})
	change(gw, who, enable=False)
	for fields in (basic(users[0], "wrong"), basic(users[0], "wrong"), basic(users[1], "right"), basic("nobody", "x"), basic("", ""),
			encoded("none")):
		start = time.monotonic()
		assert is_refused(gw.get(path, fields), BAD_BASIC, BASIC)
		assert time.monotonic() - start >= 0.19, "no failure is answered early"


def test_aut5_a_result_is_kept(gw, backend, path):
	route = guarded(gw, backend, path, "basic-auth")
	user = f"user{next(numbers)}"
	who = user_of(gw, route, basic={"username": user, "password": "first"})
	assert gw.get(path, basic(user, "first")).status == 200
	for _ in range(20):
		assert gw.get(path, basic(user, "first")).status == 200
	wait_until(lambda: len(gw.records(path=path)) == 21, what="records")
	waited = [r.get("waitedFor") for r in gw.records(path=path, status=200)]
	assert waited.count("Authentication") <= 2, "once for each worker"
	# A changed password makes what was kept worthless, at once.
	change(gw, who, identities={"basic": {"username": user, "password": "second"}})
	assert gw.get(path, basic(user, "first")).status == 401
	assert gw.get(path, basic(user, "second")).status == 200
	change(gw, who, enable=False)
	assert gw.get(path, basic(user, "second")).status == 401


def test_aut5_many_at_once_share_one_check(gw, backend, path):
	"""More connections than the queue has places, all with the same password."""
	route = guarded(gw, backend, path, "basic-auth")
	user = f"user{next(numbers)}"
	user_of(gw, route, basic={"username": user, "password": "shared"})
	connections = [gw.connect() for _ in range(300)]
	for connection in connections:
		connection.start("GET", path, basic(user, "shared"))
	assert [connection.read_response().status for connection in connections] == [200] * 300
	for connection in connections:
		connection.close()


def test_aut5_a_flood_of_passwords(gw, backend, path):
	"""Too many different ones: 503 with Retry-After, while other routes and known passwords go on."""
	route = guarded(gw, backend, path, "basic-auth")
	gw.route(f"{path}-open", backend)
	user = f"user{next(numbers)}"
	user_of(gw, route, basic={"username": user, "password": "right"})
	assert gw.get(path, basic(user, "right")).status == 200
	connections = [gw.connect() for _ in range(400)]
	for i, connection in enumerate(connections):
		connection.start("GET", path, basic(user, f"wrong {i}"))
	for _ in range(20):
		assert gw.get(f"{path}-open").status == 200
	answers = []
	for connection in connections:
		answers.append(connection.read_response())
		connection.close()
	refused = [answer for answer in answers if answer.status == 503]
	assert {answer.status for answer in answers} <= {401, 503} and len(refused) >= 100
	assert {answer.header("Retry-After") for answer in refused} == {"1"}
	assert gw.get(path, basic(user, "right")).status == 200


def test_a_flood_of_guesses_delays_nobody_else(gw, backend, path):
	"""While all guess at one user's password, and at users that there are not: every other user gets through at once, and the user
	himself from where he is."""
	route = guarded(gw, backend, path, "basic-auth")
	users = [f"user{next(numbers)}" for _ in range(6)]
	for user in users:
		user_of(gw, route, basic={"username": user, "password": "right"})
	victim, known, *others = users
	assert gw.get(path, basic(known, "right")).status == 200

	def ask(user):
		start = time.monotonic()
		with gw.connect(source="127.0.0.2", timeout=60) as connection:
			connection.start("GET", path, basic(user, "right"))
			return connection.read_response().status, time.monotonic() - start

	connections = [gw.connect(timeout=120) for _ in range(600)]
	for i, connection in enumerate(connections):
		connection.start("GET", path, basic(f"nobody{i}" if i % 2 else victim, f"guess {i}"))
	answers = [ask(user) for user in (*others, victim, known)]
	for i, connection in enumerate(connections[:100]):
		connection.start("GET", path, basic(f"none{i}" if i % 2 else victim, f"another guess {i}"))
	assert gw.get(path, basic(known, "right")).status == 200, "what is known waits for nobody"
	assert [status for status, _ in answers] == [200] * 6, answers
	for connection in connections:
		connection.close()
	assert gw.get(path, basic(victim, "right")).status == 200


def test_clients_that_leave_while_their_password_is_checked(gw, backend, path):
	route = guarded(gw, backend, path, "basic-auth")
	user = f"user{next(numbers)}"
	user_of(gw, route, basic={"username": user, "password": "right"})
	for i in range(60):
		with gw.connect() as connection:
			connection.start("GET", path, basic(user, f"left {i // 2}"))
	assert gw.get(path, basic(user, "right")).status == 200


# ---- jwt-auth ----

def test_aut6_places(gw, backend, path):
	route = guarded(gw, backend, path, "jwt-auth")
	signer = Signer()
	names = [f"place{next(numbers)}" for _ in range(4)]
	user_of(gw, route, jwt=signer.identity(names[0], jwtTokenConfig={"position": "Header", "key": f"X-{names[0]}"}))
	user_of(gw, route, jwt=signer.identity(names[1], jwtTokenConfig={"position": "Header", "key": f"X-{names[1]}", "prefix": "JWT"}))
	user_of(gw, route, jwt=signer.identity(names[2], jwtTokenConfig={"position": "QueryString", "key": names[2]}))
	user_of(gw, route, jwt=signer.identity(names[3]))
	tokens = [signer.token(name) for name in names]
	assert gw.get(path, {f"x-{names[0]}": tokens[0]}).status == 200
	assert gw.get(path, {f"x-{names[1]}": f"jwt  {tokens[1]}"}).status == 200
	assert gw.get(f"{path}?{names[2]}={tokens[2]}").status == 200
	assert gw.get(path, {"Authorization": f"bearer {tokens[3]}"}).status == 200
	# Each only where its consumer carries it.
	assert gw.get(path, {f"x-{names[1]}": tokens[1]}).status == 401
	assert gw.get(path, bearer(tokens[0])).status == 401
	assert gw.get(f"{path}?{names[2]}={tokens[3]}").status == 401
	answer = gw.get(path, {f"x-{names[0]}": tokens[0], "Authorization": f"Bearer {tokens[3]}"})
	assert is_refused(answer, "Multiple tokens found in request", BAD_BEARER)


def test_aut6_pass_false_takes_the_token_away(gw, backend, path):
	route = guarded(gw, backend, path, "jwt-auth")
	signer = Signer()
	in_header, in_query = f"u{next(numbers)}", f"u{next(numbers)}"
	user_of(gw, route, jwt=signer.identity(in_header, jwtTokenConfig={"position": "Default", "pass": False}))
	user_of(gw, route, jwt=signer.identity(in_query, jwtTokenConfig={"position": "QueryString", "key": "jwt", "pass": False}))
	assert gw.get(path, bearer(signer.token(in_header))).status == 200
	assert backend.last().all("Authorization") == []
	assert gw.get(path, [("Authorization", "Basic eDp5"), ("Authorization", f"Bearer {signer.token(in_header)}")]).status == 200
	assert backend.last().all("Authorization") == ["Basic eDp5"]
	token = signer.token(in_query)
	for query, left in ((f"a=1&jwt={token}&b=%20&&c", "?a=1&b=%20&&c"), (f"jwt={token}", ""), (f"jwt={token}&jwt={token}&jwtx=1", "?jwtx=1")):
		assert gw.get(f"{path}?{query}").status == 200
		assert backend.last().target == path + left


def test_aut6_claims_to_headers(gw, backend, path):
	route = guarded(gw, backend, path, "jwt-auth")
	signer = Signer()
	one, two, role, team, tag = (f"{word}{next(numbers)}" for word in ("one", "two", "x-role", "x-team", "x-tag"))
	claims = [{"claim": "role", "header": role}, {"claim": "team", "header": team},
		{"claim": "tag", "header": tag, "override": False}]
	user_of(gw, route, jwt=signer.identity(one, claimsToHeadersConfigs=claims))
	user_of(gw, route, jwt=signer.identity(two))
	forged = [(role.upper(), "root"), (team, "root"), (tag, "mine")]
	seen = gw.echo(f"{path}/echo", [*bearer(signer.token(one, role="reader", team=7, tag="theirs")).items(), *forged])["fields"]
	assert (seen[role], seen[team], sorted(seen[tag])) == (["reader"], ["7"], ["mine", "theirs"])
	# A claim that is not there, or is no text: the client's own header does not pass for it.
	seen = gw.echo(f"{path}/echo", [*bearer(signer.token(one, role=["x"])).items(), *forged])["fields"]
	assert role not in seen and team not in seen
	# Nor for a consumer without the claim.
	seen = gw.echo(f"{path}/echo", [*bearer(signer.token(two)).items(), *forged])["fields"]
	assert role not in seen and team not in seen and seen[tag] == ["mine"]
	# A claim cannot end a line early.
	seen = gw.echo(f"{path}/echo", bearer(signer.token(one, role="a\r\nX-Evil: 1")))["fields"]
	assert role not in seen and "x-evil" not in seen


def test_aut6_other_claims_and_numbers(gw, backend, path):
	route = guarded(gw, backend, path, "jwt-auth")
	s1, s2 = Signer(), Signer()
	number, name = next(numbers) + 100000, f"claim{next(numbers)}"
	c1 = user_of(gw, route, jwt=s1.identity(str(number), name))
	c2 = user_of(gw, route, jwt=s2.identity(f"u{number}"))
	assert gw.get(path, bearer(s1.token(number, name))).status == 200
	assert backend.last().header("X-Mse-Consumer") == c1.name
	# Claims of both: whose key signed it decides.
	both = {name: str(number), "uid": f"u{number}"}
	for signer, who in ((s1, c1), (s2, c2)):
		assert gw.get(path, bearer(signer.sign(both))).status == 200
		assert backend.last().header("X-Mse-Consumer") == who.name
	for bad in (None, True, [str(number)], {"a": str(number)}, number + 0.5, ""):
		assert gw.get(path, bearer(s1.token(bad, name))).status == 401, bad


@pytest.mark.parametrize("what", ["expired", "early", "future", "text", "fraction", "none", "NONE", "other", "crit", "tampered", "truncated",
	"four", "empty", "huge", "duplicate", "padded", "spaces"])
def test_aut6_tokens_that_are_no_good(gw, backend, path, what):
	route = guarded(gw, backend, path, "jwt-auth")
	signer, user, now = Signer(), f"u{next(numbers)}", int(time.time())
	user_of(gw, route, jwt=signer.identity(user))
	good = signer.token(user)
	head, payload, signature = good.split(".")
	unsigned = b64(json.dumps({"alg": "none"}).encode())
	tokens = {"expired": signer.token(user, exp=now - 75), "early": signer.token(user, nbf=now + 300), "future": signer.token(user, iat=now + 300),
		"text": signer.token(user, exp=str(now + 100)), "fraction": signer.token(user, exp=now - 75.5),
		"none": f"{unsigned}.{payload}.", "NONE": f"{b64(json.dumps({'alg': 'nOnE'}).encode())}.{payload}.{signature}",
		"other": Signer().token(user), "crit": signer.sign({"uid": user}, {"crit": ["exp"]}),
		"tampered": f"{head}.{b64(json.dumps({'uid': user, 'role': 'root'}).encode())}.{signature}", "truncated": good[:-4],
		"four": good + ".x", "empty": "..", "huge": signer.token(user, pad="x" * 20000),
		"duplicate": f"{head}.{b64(b'{%cuid%c:%c%s%c,%cuid%c:%cx%c}' % (34, 34, 34, user.encode(), 34, 34, 34, 34, 34))}.{signature}",
		"padded": good + "=", "spaces": good.replace(".", ". ")}
	answer = gw.get(path, bearer(tokens[what]))
	assert is_refused(answer, "Invalid token", BAD_BEARER)
	assert gw.get(path, bearer(good)).status == 200
	for leeway in ({"exp": now - 30}, {"nbf": now + 30}, {"iat": now + 30}, {"exp": now + 10.5}):
		assert gw.get(path, bearer(signer.token(user, **leeway))).status == 200, leeway


class KeyPair:
	"""RS256."""

	def __init__(self, folder, kid):
		self.file, self.kid = str(folder / f"{kid}.pem"), kid
		openssl("genrsa", "-out", self.file, "2048")
		self.modulus = bytes.fromhex(openssl("rsa", "-in", self.file, "-noout", "-modulus").decode().strip().split("=")[1])
		self.jwk = {"kty": "RSA", "kid": kid, "n": b64(self.modulus), "e": "AQAB"}

	def sign(self, claims, **header):
		head = {key: value for key, value in {"alg": "RS256", "kid": self.kid, **header}.items() if value is not None}
		signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
		return f"{signed}.{b64(openssl('dgst', '-sha256', '-sign', self.file, data=signed.encode()))}"


def key_set(*pairs):
	return json.dumps({"keys": [pair.jwk for pair in pairs]})


def test_aut6_public_keys(gw, backend, path, tmp_path):
	"""RS256 with a public key; that key is no secret that a token could be signed with."""
	route = guarded(gw, backend, path, "jwt-auth")
	pair, user = KeyPair(tmp_path, "k1"), f"u{next(numbers)}"
	who = user_of(gw, route, jwt={"jwks": key_set(pair), "jwtPayloadConfig": {"payloadKeyValue": user}})
	good = pair.sign({"uid": user})
	for _ in range(3):
		assert gw.get(path, bearer(good)).status == 200
		assert backend.last().header("X-Mse-Consumer") == who.name
	assert gw.get(path, bearer(pair.sign({"uid": user}, kid="k2"))).status == 401
	assert gw.get(path, bearer(pair.sign({"uid": user}, kid=None))).status == 200
	pem, der = openssl("rsa", "-in", pair.file, "-pubout"), openssl("rsa", "-in", pair.file, "-pubout", "-outform", "DER")
	for secret in (pem, pem.strip(), der, pair.modulus, key_set(pair).encode()):
		confused = Signer("x")
		confused.secret = secret
		assert gw.get(path, bearer(confused.sign({"uid": user}, {"kid": "k1"}))).status == 401


def test_aut6_keys_that_are_fetched(gw, backend, path, tmp_path):
	route = guarded(gw, backend, path, "jwt-auth")
	old, new, user = KeyPair(tmp_path, "old"), KeyPair(tmp_path, "new"), f"u{next(numbers)}"
	with SideService(plain(200, body=key_set(old).encode())) as issuer:
		who = user_of(gw, route, jwt={"remoteJwks": {"uri": f"{issuer.url}/keys"}, "jwtPayloadConfig": {"payloadKeyValue": user}})
		for _ in range(3):
			assert gw.get(path, bearer(old.sign({"uid": user}))).status == 200
			assert gw.ask("GET", who.path)["status"] == {"phase": "Active"}
			assert backend.last().header("X-Mse-Consumer") == who.name
		assert gw.get(path, bearer(new.sign({"uid": user}, kid="old"))).status == 401
		assert len(issuer.asked) == 1 and issuer.asked[0].target == "/keys"
		# Rotated: a key id that is not known brings one more fetch.
		issuer.answer = plain(200, body=key_set(new, old).encode())
		assert gw.get(path, bearer(new.sign({"uid": user}))).status == 200
		for i in range(20):
			assert gw.get(path, bearer(old.sign({"uid": user}, kid=f"k{i}"))).status == 401
		assert len(issuer.asked) == 2
	# The issuer is down: what is known goes on.
	assert gw.get(path, bearer(new.sign({"uid": user, "n": 1}))).status == 200
	assert gw.get(path, bearer(old.sign({"uid": user, "n": 2}))).status == 200


def test_aut6_keys_that_cannot_be_fetched(gw, backend, path, tmp_path):
	route = guarded(gw, backend, path, "jwt-auth")
	pair, user = KeyPair(tmp_path, "k"), f"u{next(numbers)}"
	who = user_of(gw, route, jwt={"remoteJwks": {"uri": f"http://127.0.0.1:{free_port()}/"}, "jwtPayloadConfig": {"payloadKeyValue": user}})
	answer = gw.get(path, bearer(pair.sign({"uid": user})))
	assert (answer.status, answer.json["errorCode"]) == (503, "ErrPolicyUnavailable") and answer.header("Retry-After")
	status = wait_until(lambda: s if (s := gw.ask("GET", who.path)["status"])["phase"] == "Degraded" else None, 5, "Degraded")
	assert set(status) == {"phase", "reason", "lastError", "since"} and "key set" in status["reason"]
	change(gw, who, description="put back as it was read")
	# It is nobody else's trouble.
	assert gw.get(path, bearer(pair.sign({"uid": "another"}))).status == 401
	signer, other = Signer(), f"u{next(numbers)}"
	user_of(gw, route, jwt=signer.identity(other))
	assert gw.get(path, bearer(signer.token(other))).status == 200


def dependency(gw, attachment):
	"""Phase and last error of the attachment; the metric says the same."""
	status = gw.ask("GET", attachment.path)["status"]
	lines = [line for line in raw_get(gw, "/metrics")[1].splitlines() if line.startswith("sluice_dependency_up{") and attachment.id in line]
	assert [line.rsplit(" ", 1)[1] for line in lines] == ["0" if status["phase"] == "Degraded" else "1"], lines
	assert 'kind="keys"' in lines[0]
	return status["phase"], status.get("lastError")


def test_issuers_of_consumers_are_told_of_by_the_attachment(gw, backend, path, tmp_path):
	"""Who cannot fetch the keys of a consumer says so, with the consumer's name, where that consumer may call."""
	route, other = guarded(gw, backend, path, "jwt-auth"), guarded(gw, backend, f"{path}-other", "jwt-auth")
	site = gw.gateway()
	wide = gw.attach("Authentication", auth("jwt-auth"), to=site)
	pair, user = KeyPair(tmp_path, "k"), f"u{next(numbers)}"
	assert dependency(gw, route.attachment) == ("Active", None)
	port = free_port()
	who = user_of(gw, route, jwt={"remoteJwks": {"uri": f"http://127.0.0.1:{port}/keys"}, "jwtPayloadConfig": {"payloadKeyValue": user}})
	token = pair.sign({"uid": user})
	assert gw.get(path, bearer(token)).status == 503
	phase, error = wait_until(lambda: d if (d := dependency(gw, route.attachment))[0] == "Degraded" else None, 10, "Degraded")
	assert error.startswith(f"consumer {who.name}: "), error
	status = gw.ask("GET", route.attachment.path)["status"]
	assert "consumer" in status["reason"] and status["since"], status
	assert dependency(gw, wide)[0] == "Degraded", "at a gateway any consumer may call"
	# A consumer that may not call here is no trouble of this route, nor of one that asks for keys only.
	assert dependency(gw, other.attachment) == ("Active", None)
	allow(gw, who, other)
	assert dependency(gw, other.attachment)[0] == "Degraded"
	plain_keys = guarded(gw, backend, f"{path}-keys", "key-auth")
	allow(gw, who, plain_keys)
	assert gw.ask("GET", plain_keys.attachment.path)["status"]["phase"] == "Active"
	change(gw, who, enable=False)
	assert dependency(gw, route.attachment) == ("Active", None)
	change(gw, who, enable=True)
	with SideService(plain(200, body=key_set(pair).encode())) as issuer:
		item = gw.ask("GET", who.path)
		item["identities"]["jwt"]["remoteJwks"]["uri"] = f"{issuer.url}/keys"
		change(gw, who, identities=item["identities"])
		assert gw.get(path, bearer(token)).status == 200
		assert dependency(gw, route.attachment) == ("Active", None)
		# Others of this node may still be in trouble.
		assert f"consumer {who.name}:" not in (dependency(gw, wide)[1] or "")


def test_aut6_a_changed_key_set_counts_at_once(gw, backend, path):
	route = guarded(gw, backend, path, "jwt-auth")
	old, new, user = Signer(), Signer(), f"u{next(numbers)}"
	who = user_of(gw, route, jwt=old.identity(user))
	token = old.token(user)
	assert gw.get(path, bearer(token)).status == 200
	assert gw.get(path, bearer(token)).status == 200
	change(gw, who, identities={"jwt": new.identity(user)})
	assert gw.get(path, bearer(token)).status == 401
	assert gw.get(path, bearer(new.token(user))).status == 200


# ---- levels, rules ----

def test_aut7_rules_of_an_api_and_its_operations(gw, backend):
	api = rest_api(gw, backend)
	one, two = api.operation("GET", "/one"), api.operation("GET", "/two/{id}")
	gw.attach("Authentication", auth(), to=api)
	k = [key() for _ in range(3)]
	consumers = [consumer(gw, apiKey=keys(text)) for text in k]
	allow(gw, consumers[0], api)
	allow(gw, consumers[1], one)

	def status(i):
		return [gw.get(api.base + path, bearer(k[i])).status for path in ("/one", "/two/5")]
	assert status(0) == [200, 200]
	assert status(1) == [200, 403]
	assert status(2) == [403, 403]
	allow(gw, consumers[1], two)
	assert status(1) == [200, 200]
	assert gw.get(f"{api.base}/none", bearer(k[0])).status == 404


def test_aut7_a_rule_for_one_route_is_for_no_other(gw, backend, path):
	mine, other = guarded(gw, backend, f"{path}/mine"), guarded(gw, backend, f"{path}/other")
	k = key()
	user_of(gw, mine, apiKey=keys(k))
	assert gw.get(f"{path}/mine", bearer(k)).status == 200
	assert is_unauthorized(gw.get(f"{path}/other", bearer(k)))


def test_aut7_domain_level_asks_no_rule(gw, backend, path):
	domain = gw.domain(f"d{next(numbers)}.test")
	gw.route(path, backend, domains=[domain])
	gw.attach("Authentication", auth(), to=domain)
	k = key()
	consumer(gw, apiKey=keys(k))
	assert gw.get(path, bearer(k), host=domain.name).status == 200
	assert gw.get(path, host=domain.name).status == 401
	assert gw.get("/nothing-here", host=domain.name).status == 401, "also where no route matches"


def test_the_longest_rule_counts(gw, backend, path):
	route = guarded(gw, backend, path)
	k = key()
	who = consumer(gw, apiKey=keys(k))
	now = int(time.time() * 1000)
	rules = [allow(gw, who, route, expireMode="ShortTerm", expireTimestamp=now + offset) for offset in (-1000, 600000, -5000)]
	assert gw.get(path, bearer(k)).status == 200
	gw.ask("DELETE", rules[1].path)
	assert gw.get(path, bearer(k)).status == 403
	allow(gw, who, route)
	assert gw.get(path, bearer(k)).status == 200


# ---- together with others ----

def test_aut12_preflights_and_cors_headers(gw, backend, path):
	route = guarded(gw, backend, path)
	assert preflight(gw, path).status == 401, "without Cors it is a request like any other"
	gw.attach("Cors", cors(), to=route)
	answer = preflight(gw, path)
	assert answer.status < 300 and answer.header("Access-Control-Allow-Origin") == "https://example.com"
	for fields, status in (({}, 401), (bearer("unknown key"), 401)):
		answer = gw.get(path, {**fields, "Origin": "https://example.com"})
		assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (status, "https://example.com")
	k = key()
	consumer(gw, apiKey=keys(k))
	answer = gw.get(path, {**bearer(k), "Origin": "https://example.com"})
	assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (403, "https://example.com")


def test_the_consumer_is_a_property_of_the_request(gw, backend, path):
	route = guarded(gw, backend, path)
	k = key()
	who = user_of(gw, route, apiKey=keys(k))
	gw.attach("HeaderModify", headers(op("Request", "Add", "X-Who", "consumer.name", "Reference"),
		op("Request", "Add", "X-Id", "consumer.id", "Reference"), op("Response", "Add", "X-Who", "consumer.name", "Reference")), to=route)
	answer = gw.get(f"{path}/echo", bearer(k))
	seen = {name.lower(): value for name, value in answer.json["headers"]}
	assert (seen["x-who"], seen["x-id"], answer.header("X-Who")) == (who.name, who.id, who.name)
	assert gw.wait_record(path=f"{path}/echo")["consumer"] == who.name


def test_keys_and_tokens_stay_out_of_the_log(gw, backend, path):
	route = guarded(gw, backend, path)
	k, signer, user = f"canary-in-url-{next(numbers)}", Signer(), f"u{next(numbers)}"
	user_of(gw, route, apiKey=keys(k, source="QueryString", value="apikey"), jwt=signer.identity(user))
	assert gw.get(f"{path}?apikey={k}").status == 200
	assert gw.get(f"{path}?apikey={k}x").status == 401
	assert gw.get(path, {"Authorization": f"Bearer {k}y"}).status == 401
	token = signer.token(user)
	gw.change_policy(route.attachment, auth("jwt-auth"))
	assert gw.get(path, bearer(token)).status == 200
	assert gw.get(path, bearer(token + "x")).status == 401
	wait_until(lambda: len(gw.records(path=path)) == 5, what="records")
	assert k not in gw.stderr() and token not in gw.stderr()


def test_over_http2(gw, backend, path):
	route = guarded(gw, backend, path)
	k = key()
	who = user_of(gw, route, apiKey=keys(k))
	with H2(gw.port) as connection:
		answer = connection.get(f"{path}/echo", more=[("authorization", f"Bearer {k}"), ("x-mse-consumer", "admin")])
		assert answer.status == 200
		assert backend.last().all("X-Mse-Consumer") == [who.name]
		assert connection.get(path).header("www-authenticate") == 'Key realm="sluice"'


def test_upgrades_are_authenticated(gw, backend, path):
	guarded(gw, backend, path)
	with gw.connect() as connection:
		connection.start("GET", path, UPGRADE)
		assert connection.read_response().status == 401


def test_a_dry_run_tells_who_would_pass(gw, backend, path):
	route = guarded(gw, backend, path)
	k, user, signer = key(), f"u{next(numbers)}", Signer()
	who = user_of(gw, route, apiKey=keys(k), basic={"username": user, "password": k}, jwt=signer.identity(user))

	def verdict(fields):
		question = {"method": "GET", "url": f"http://gw.test:{gw.port}{path}",
			"headers": [{"name": name, "value": value} for name, value in fields.items()]}
		answer = gw.ask("POST", "/api/v1/trace", question)
		step = [item for item in answer["policies"] if item["className"] == "Authentication"][0]
		return step["verdict"], step.get("note", ""), answer.get("answer", {}).get("status")
	before = outcomes(gw, route.attachment)
	assert verdict(bearer(k)) == ("Passes", f"consumer {who.name}", None)
	assert verdict({})[0] == "Answers" and verdict({})[2] == 401
	gw.change_policy(route.attachment, auth("jwt-auth"))
	assert verdict(bearer(signer.token(user)))[0] == "Passes"
	gw.change_policy(route.attachment, auth("basic-auth"))
	assert verdict(basic(user, k))[0] == "NotJudged"
	assert gw.get(path, basic(user, k)).status == 200
	assert verdict(basic(user, k))[0] == "Passes"
	after = outcomes(gw, route.attachment)
	assert {name: n - before[name] for name, n in after.items() if n > before[name]} == {(route.name, "passed"): 1}, "the real request alone"


def test_streams_go_on_while_consumers_change(gw, backend, path):
	"""AUT-11: no connection is dropped, and what runs ends as it began."""
	route = guarded(gw, backend, path)
	k = key()
	who = user_of(gw, route, apiKey=keys(k))
	stopped, statuses = threading.Event(), []

	def ask():
		with gw.connect() as connection:
			while not stopped.is_set():
				statuses.append(connection.get(path, bearer(k)).status)
	threads = [threading.Thread(target=ask) for _ in range(2)]
	for thread in threads:
		thread.start()
	for i in range(30):
		consumer(gw, apiKey=keys(key()))
		change(gw, who, description=f"change {i}")
	stopped.set()
	for thread in threads:
		thread.join()
	assert set(statuses) == {200} and len(statuses) > 30
