"""JWTAuth on live traffic: the acceptance examples of its contract, its rules (JWT-n) and forged tokens. test_ex<n> are the contract's
examples. Where the keys come from: test_jwt_keys.py."""
import json
import time

import pytest
from gw import IS_SANITIZED, numbers
from h2wire import H2
from pki import openssl
from policy_kit import as_text, check_error, cors, direct, headers, is_enforced, op, outcomes, phase, preflight, raw_get, rest_api
from scripted import UPGRADE, Scripted, echo_frames, frame, read_frame
from side_services import SideService, plain
from tokens import (ISSUER, Issuer, Key, b64, bearer, compact, fault, good, jwt_auth, key, sign_hmac, symmetric, unsigned)
from wire import wait_until

SECRET = b"a secret of the issuer, 32 bytes."
EC = [("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512")]


@pytest.fixture(scope="module")
def issuer():
	with Issuer(key()) as made:
		yield made


def guarded(gw, backend, keys, target=None, **more):
	"""A new route behind JWTAuth: its path. `keys`: as jwt_auth() takes them."""
	base = f"/jwt-{next(numbers)}"
	guarded.route = gw.route(base, target if target is not None else backend)
	guarded.attachment = gw.attach("JWTAuth", jwt_auth(keys, **more), to=guarded.route)
	return base


@pytest.fixture
def path(gw, backend, issuer):
	return guarded(gw, backend, issuer)


def ask(gw, path, token, **more):
	return gw.get(f"{path}/echo", bearer(token), **more)


def counted(gw, outcome):
	return outcomes(gw, guarded.attachment).get((guarded.route.name, outcome), 0)


# ---- examples of the contract ----

def test_ex1_a_good_token_passes(gw, backend, path):
	token = key().sign()
	seen = gw.echo(f"{path}/echo", bearer(token))
	assert seen["fields"]["authorization"] == [f"Bearer {token}"]
	assert "x-mse-consumer" not in seen["fields"]
	assert counted(gw, "passed") == 1


def test_ex1_a_changed_payload_does_not(gw, backend, path):
	head, payload, signature = key().sign().split(".")
	for claims in (good(sub="admin"), good(exp=int(time.time()) + 9999)):
		assert fault(ask(gw, path, f"{head}.{b64(compact(claims))}.{signature}")) == "signature"
	other = key().sign(sub="bob").split(".")
	assert fault(ask(gw, path, f"{head}.{payload}.{other[2]}")) == "signature"
	assert backend.requests() == []


def test_ex1_another_issuer_does_not(gw, backend, path):
	for iss in (f"{ISSUER}/", ISSUER.upper(), "https://evil.test", "", [ISSUER], {"iss": ISSUER}, 1, True):
		assert fault(ask(gw, path, key().sign(iss=iss))) == "issuer", iss
	assert fault(ask(gw, path, key().sign(iss=None))) == "issuer"
	assert backend.requests() == []


def test_ex1_expiry_has_a_leeway_of_60_s(gw, backend, path):
	now = int(time.time())
	assert fault(ask(gw, path, key().sign(exp=now - 61))) == "expired"
	assert ask(gw, path, key().sign(exp=now - 30)).status == 200


def test_ex2_alg_none(gw, backend, path):
	for alg in ("none", "None", "NONE", "nOnE"):
		for signature in (b"", b"x"):
			assert fault(ask(gw, path, unsigned({"alg": alg, "typ": "JWT"}, signature=signature))) == "algorithm", alg
			assert fault(ask(gw, path, unsigned({"alg": alg, "kid": "k1"}, signature=signature))) == "algorithm"
	token = key().sign()
	assert fault(ask(gw, path, token[:token.rindex(".") + 1])) == "malformed"
	assert fault(ask(gw, path, token[:token.rindex(".")])) == "malformed"
	assert backend.requests() == []


def test_ex2_a_public_key_is_no_shared_secret(gw, backend, path):
	public = key()
	for secret in (public.pem.encode(), public.pem.strip().encode(), public.der, public.jwk()["n"].encode(), b"", b"AQAB"):
		for algorithm in ("HS256", "HS384", "HS512"):
			assert fault(ask(gw, path, sign_hmac(secret, algorithm=algorithm))) == "algorithm"
			assert fault(ask(gw, path, sign_hmac(secret, algorithm=algorithm, header={"kid": "k1"}))) == "algorithm"
	assert backend.requests() == []


def test_ex2_an_inline_secret_and_a_public_key_side_by_side(gw, backend):
	base = guarded(gw, backend, [key(), symmetric(SECRET, kid="s")])
	assert ask(gw, base, sign_hmac(SECRET, header={"kid": "s"})).status == 200
	assert ask(gw, base, sign_hmac(SECRET)).status == 200
	assert ask(gw, base, key().sign()).status == 200
	assert fault(ask(gw, base, sign_hmac(SECRET, header={"kid": "k1"}))) == "algorithm"
	assert fault(ask(gw, base, sign_hmac(key().pem.encode(), header={"kid": "k1"}))) == "algorithm"
	assert fault(ask(gw, base, sign_hmac(key().der))) == "signature"


@pytest.mark.parametrize("kid", ["../x", "../../../../dev/null", "/etc/passwd", "k1\u0001", "k", "k11", "K1", "", "' OR 1=1 --", "k1' UNION",
	"http://127.0.0.1/k1", "%00", "k" * 5000, "k1 ", "\u00e9"])
def test_ex2_a_key_id_that_is_not_there(gw, backend, path, kid):
	assert fault(ask(gw, path, key().sign(header={"kid": kid}))) == "unknown key"
	assert backend.requests() == []


def test_ex2_a_key_that_comes_with_the_token(gw, backend, path):
	mine = key("RSA", "mine")
	with SideService(plain(200, [("Content-Type", "application/json")], json.dumps({"keys": [mine.jwk()]}).encode())) as evil:
		for more in ({"jwk": mine.jwk()}, {"jku": f"{evil.url}/jwks"}, {"x5u": f"{evil.url}/cert"}, {"x5c": [b64(mine.der)]}):
			assert fault(ask(gw, path, mine.sign(header={**more, "kid": None}))) == "signature"
			assert fault(ask(gw, path, mine.sign(header={**more, "kid": "k1"}))) == "signature"
			assert fault(ask(gw, path, mine.sign(header=more))) == "unknown key"
			# And they are no reason against a token that is good.
			assert ask(gw, path, key().sign(header=more)).status == 200
		assert evil.asked == []


def test_ex5_white_list(gw, backend, issuer):
	base = guarded(gw, backend, issuer, whiteOrBlack="White", authResources=[])
	gw.change_policy(guarded.attachment, jwt_auth(issuer, whiteOrBlack="White",
		authResources=[{"path": f"{base}/public", "matchType": "PRE"}]))
	assert gw.get(f"{base}/public/x").status == 200
	assert gw.get(f"{base}/public").status == 200
	assert gw.get(f"{base}/PUBLIC/x").status == 200
	assert counted(gw, "exempt") == 3
	backend.clear()
	for target in ("/private", "/public/../private", "/public/%2e%2e/private", "/%70ublic/..//private", "/publicx", "/publi"):
		assert fault(gw.get(base + target)) == "", target
		assert ask(gw, base + target, key().sign()).status == 200
	# The router refuses these before anybody asks what they mean.
	for target in ("/public%2f..%2fprivate", "/public/..%2fprivate", "/public/..;/private", "/public/%2e%2e%5cprivate", "/public/.;/x"):
		assert gw.get(base + target).status == 400, target
	assert all("private" not in record.target or record.header("Authorization") for record in backend.requests())


def test_ex6_black_list(gw, backend, issuer):
	base = guarded(gw, backend, issuer)
	gw.change_policy(guarded.attachment, jwt_auth(issuer, whiteOrBlack="blacklist",
		authResources=[{"path": f"{base}/admin", "matchType": "PRE"}]))
	for target in ("/admin", "/admin/x", "/x/../admin", "//admin", "/%61dmin", "/ADMIN", "/admin?x=/y"):
		assert fault(gw.get(base + target)) == "", target
	for target in ("/x", "/", "/administrator", "/x/admin"):
		assert gw.get(base + target).status == 200, target
	assert ask(gw, f"{base}/admin", key().sign()).status == 200


@pytest.mark.parametrize("query, left", [
	("token=T", ""), ("a=1&token=T&b=2", "a=1&b=2"), ("token=T&b", "b"), ("a&token=T", "a"), ("b=%20+&token=T&a=%2F&a=1&=", "b=%20+&a=%2F&a=1&="),
	("&&token=T&x", "&&x"), ("to%6ben=T&b", "b"), ("xtoken=1&tokenx=2&token=T", "xtoken=1&tokenx=2"), ("Token=1&token=T", "Token=1")])
def test_ex7_in_the_query_and_not_passed_on(gw, backend, issuer, query, left):
	base = guarded(gw, backend, issuer, tokenPosition="query", tokenName="token", tokenNamePrefix=None, tokenPass=False)
	query = "&".join(f"{part[:-1]}{key().sign()}" if part.endswith("=T") else part for part in query.split("&"))
	assert gw.get(f"{base}/x?{query}").status == 200
	assert backend.last().target == f"{base}/x" + (f"?{left}" if left else "")


@pytest.mark.parametrize("prefix", ["Bearer", "Bearer ", "bearer", "BEARER  "])
def test_ex8_prefix(gw, backend, issuer, prefix):
	base = guarded(gw, backend, issuer, tokenNamePrefix=prefix)
	token = key().sign()
	for value in (f"bearer {token}", f"Bearer {token}", f"BEARER    {token}", f"Bearer \t {token}"):
		assert gw.get(base, {"Authorization": value}).status == 200, value
	for value in (token, f"Bearer{token}", "Bearer", "Bearer ", f"Basic {token}", f"xBearer {token}", ""):
		assert fault(gw.get(base, {"Authorization": value})) == "", value


# ---- which requests ----

def test_JWT1_lists_without_entries(gw, backend, issuer):
	assert fault(gw.get(guarded(gw, backend, issuer, whiteOrBlack="White"))) == ""
	assert gw.get(guarded(gw, backend, issuer, whiteOrBlack="Black")).status == 200
	assert fault(gw.get(guarded(gw, backend, issuer, whiteOrBlack="", authResources=[{"path": "/"}]))) == ""


def rules(gw, base, issuer, listed, mode="White", **more):
	gw.change_policy(guarded.attachment, jwt_auth(issuer, whiteOrBlack=mode, authResources=listed, **more))
	return lambda target="", fields=(), **options: gw.get(base + target, fields, **options).status == 200


def test_JWT2_paths(gw, backend, issuer):
	base = guarded(gw, backend, issuer)
	free = rules(gw, base, issuer, [{"path": f"{base}/Exact"}])
	assert [free(target) for target in ("/Exact", "/exact", "/Exact/", "/Exact/x", "/Exact?a=b")] == [True, True, False, False, True]
	free = rules(gw, base, issuer, [{"path": f"{base}/Exact", "ignoreCase": False}, {"path": f"{base}/p/", "matchType": "PRE"}])
	assert [free(target) for target in ("/Exact", "/exact", "/p", "/p/", "/p/x")] == [True, False, False, True, True]
	free = rules(gw, base, issuer, [{"path": f"{base}/[a-c]+", "matchType": "ERGULAR", "ignoreCase": False}])
	assert [free(target) for target in ("/abc", "/abcd", "/ABC", "/x/abc")] == [True, False, False, False]
	free = rules(gw, base, issuer, [{"path": f"{base}/%7Eu/../r", "matchType": "EQUAL"}])
	assert [free(target) for target in ("/r", "/%72", "/~u/../r", "/~u")] == [True, True, True, False]


def test_JWT2_what_servers_read_differently_needs_a_token(gw, backend, issuer):
	base = guarded(gw, backend, issuer)
	odd = ("/open;/../secret", "/open;x=1", "/open/a%2Fb", "/open/a%5Cb", "/open/%3Ba", "/open/%252e%252e/secret")
	free = rules(gw, base, issuer, [{"path": f"{base}/open", "matchType": "PRE"}, {"path": f"{base}/o.*", "matchType": "REGEX"}])
	assert free("/open/x")
	assert [target for target in odd if free(target)] == []
	free = rules(gw, base, issuer, [{"path": f"{base}/secret", "matchType": "PRE"}], mode="Black")
	assert free("/open/x")
	assert [target for target in odd[1:] if free(target)] == []
	free = rules(gw, base, issuer, [{"path": f"{base}/a;b"}, {"path": f"{base}/c%2fd"}])
	assert [free(target) for target in ("/a;b", "/a;c", "/c%2Fd", "/c/d")] == [True, False, True, False]


def test_JWT2_domains(gw, backend, issuer):
	site = gw.gateway()
	domain = gw.domain("*.by-id.test", site)
	base = f"/jwt-{next(numbers)}"
	gw.route(base, backend, site=site)
	attachment = gw.attach("JWTAuth", jwt_auth(issuer, whiteOrBlack="White", authResources=[{"domainName": "a.test"},
		{"domainName": "*.wild.test"}, {"domainId": domain.id}, {"domainName": "127.0.0.9"}]), to=site)
	hosts = {"a.test": True, "A.TEST": True, "a.test:80": True, "a.test.": True, "b.a.test": False, "xa.test": False, "wild.test": False,
		"x.wild.test": True, "x.y.wild.test": True, "xwild.test": False, "x.by-id.test": True, "by-id.test": False, "127.0.0.9": True,
		"a.test.evil.test": False}
	assert {host: gw.get(base, site=site, host=host).status == 200 for host in hosts} == hosts
	gw.delete(attachment)


def test_JWT2_headers(gw, backend, issuer):
	base = guarded(gw, backend, issuer)
	cases = [("EQUAL", "v", {"v": True, "V": False, "vv": False, None: False}), ("NOT_EQUAL", "v", {"v": False, "w": True, None: True}),
		("PREFIX", "ab", {"abc": True, "ab": True, "a": False, None: False}), ("suffix", "bc", {"abc": True, "bcd": False, None: False}),
		("INCLUDE", "b", {"abc": True, "ac": False, None: False}), ("EXCLUDE", "b", {"abc": False, "ac": True, None: True}),
		("REGEX", "a+", {"aa": True, "aab": False, None: False}), ("EXIST", None, {"": True, "x": True, None: False}),
		("NOT_EXIST", None, {"": False, "x": False, None: True})]
	for method, value, expected in cases:
		rule = {"headerKey": "X-Env", "headerMethod": method, **({"headerValue": value} if value else {})}
		free = rules(gw, base, issuer, [{"headers": [rule]}])
		assert {sent: free("", {} if sent is None else {"x-env": sent}) for sent in expected} == expected, method
	both = [{"headerKey": "a", "headerMethod": "EXIST"}, {"headerKey": "b", "headerMethod": "EQUAL", "headerValue": "1"}]
	free = rules(gw, base, issuer, [{"path": f"{base}/x", "headers": both}])
	assert [free("/x", {"a": "", "b": "1"}), free("/x", {"a": ""}), free("/y", {"a": "", "b": "1"})] == [True, False, False]


def test_JWT2_resources_are_more_of_the_same(gw, backend, issuer):
	base = guarded(gw, backend, issuer)
	free = rules(gw, base, issuer, [{"path": f"{base}/a"}], resources=json.dumps([{"path": f"{base}/b"}, {"path": f"{base}/c"}]))
	assert [free(target) for target in ("/a", "/b", "/c", "/d")] == [True, True, True, False]
	free = rules(gw, base, issuer, [], resources=json.dumps([{"path": f"{base}/b"}]))
	assert [free(target) for target in ("/a", "/b")] == [False, True]


def test_JWT2_a_pattern_at_its_limit_does_not_open_a_door(gw, backend, issuer):
	base = guarded(gw, backend, issuer)
	slow = {"path": f"{base}/(a|aa)+(a|aa)+(a|aa)+[bc]", "matchType": "REGEX"}
	target = "/" + "a" * 3000
	assert fault(gw.get(base + target)) == ""
	assert not rules(gw, base, issuer, [slow])(target)
	assert not rules(gw, base, issuer, [slow], mode="Black")(target)


# ---- finding the token ----

def test_JWT3_several_tokens_are_none(gw, backend, issuer):
	a, b = key().sign(), key().sign(sub="bob")
	base = guarded(gw, backend, issuer)
	for lines in ([a, a], [a, b], [a, "x"]):
		assert fault(gw.get(base, [("Authorization", f"Bearer {one}") for one in lines])) == "several tokens"
	assert fault(gw.get(base, [("Authorization", f"Bearer {a}"), ("authorization", "Basic eDp5")])) == "several tokens"
	assert fault(gw.get(base, {"Authorization": f"Bearer {a}, Bearer {b}"})) == "malformed"
	base = guarded(gw, backend, issuer, tokenPosition="QUERY", tokenName="token")
	for query in (f"token={a}&token={a}", f"token={a}&x=1&token=", f"token=&token={a}", f"token={a}&%74oken={b}", f"token={a}&token"):
		assert fault(gw.get(f"{base}?{query}")) == "several tokens", query
	base = guarded(gw, backend, issuer, tokenPosition="cookie", tokenName="tok")
	assert fault(gw.get(base, {"Cookie": f"tok={a}; tok={a}"})) == "several tokens"
	assert fault(gw.get(base, [("Cookie", f"tok={a}"), ("Cookie", f"x=y; tok={b}")])) == "several tokens"
	assert backend.requests() == []


def test_JWT3_a_header_of_its_own(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenName="X-Token", tokenNamePrefix="")
	token = key().sign()
	assert gw.get(base, {"x-token": token}).status == 200
	assert gw.get(base, {"x-token": f"  {token} "}).status == 200
	assert fault(gw.get(base, {"x-token": f"Bearer {token}"})) == "malformed"
	assert fault(gw.get(base, bearer(token))) == ""
	base = guarded(gw, backend, issuer, tokenName="X-Token", tokenNamePrefix="v1=")
	assert gw.get(base, {"X-Token": f"V1={token}"}).status == 200
	assert gw.get(base, {"X-Token": f"v1= {token}"}).status == 200
	assert fault(gw.get(base, {"X-Token": token})) == ""


def test_JWT3_query(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPosition="query", tokenName="the token", tokenNamePrefix="Bearer")
	token = key().sign()
	for query in (f"the+token={token}", f"the%20token={token}", f"x&the%20token={token.replace('.', '%2E')}&y"):
		assert gw.get(f"{base}?{query}").status == 200, query
	for query in ("", f"the-token={token}", "the+token=", "the+token"):
		assert fault(gw.get(f"{base}?{query}")) == "", query
	assert fault(gw.get(f"{base}?the+token=%zz{token}")) == "malformed"
	assert fault(gw.get(f"{base}?the+token=Bearer+{token}")) == "malformed"


def test_JWT3_cookie(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPosition="cookie", tokenName="tok", tokenNamePrefix="Bearer")
	token = key().sign()
	for value in (f"tok={token}", f'tok="{token}"', f"a=b; tok={token}; c=d", f"atok=x;tok={token};toka=y"):
		assert gw.get(base, {"Cookie": value}).status == 200, value
	for value in (f"Tok={token}", f"xtok={token}", "tok=", 'tok=""', "tok", f"a=tok={token}"):
		assert fault(gw.get(base, {"Cookie": value})) == "", value


# ---- answers ----

def test_JWT4_answers(gw, backend, path):
	answer = gw.get(path)
	assert answer.header("WWW-Authenticate") == 'Bearer realm="sluice"'
	assert answer.header("Content-Type").startswith("application/json")
	assert set(answer.json) == {"errorCode", "errorMessage", "requestId"}
	assert (answer.json["errorCode"], answer.json["errorMessage"]) == ("ErrUnauthorized", "a token is required")
	record = gw.wait_record(path=path, status=401)
	assert (record["flag"], record["policy"]) == ("UA", "JWTAuth")
	token = key().sign(exp=1)
	answer = ask(gw, path, token)
	assert answer.header("WWW-Authenticate") == 'Bearer realm="sluice", error="invalid_token", error_description="expired"'
	assert answer.json["errorMessage"] == "the token is not accepted: expired"
	assert "jwtSub" not in gw.wait_record(path=f"{path}/echo", status=401)
	assert counted(gw, "missing") == 1 and counted(gw, "invalid") == 1


def test_JWT4_tokens_are_in_no_answer_and_no_log(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPosition="query", tokenName="token")
	good_one = key().sign(sub="somebody", canary="canary-claim-3041")
	bad = [good_one[:-8], good_one + "x", unsigned({"alg": "none", "canary": "canary-head-3041"}), key().sign(exp=5, canary="canary-claim-3041"),
		"canary-text-3041", key().sign(header={"kid": "canary-kid-3041"})]
	assert gw.get(f"{base}?token={good_one}").status == 200
	texts = []
	for token in bad:
		answer = gw.get(f"{base}?token={token}")
		assert answer.status == 401
		texts.append(answer.head.decode("latin-1") + answer.text)
	wait_until(lambda: len(gw.records(path=base)) == len(bad) + 1, 5, "all records")
	texts += [gw.stderr(), raw_get(gw, "/metrics")[1], json.dumps(gw.ask("GET", guarded.attachment.path))]
	for text in texts:
		for token in [*bad, good_one]:
			assert "canary" not in text
			assert token not in text and max(token.split("."), key=len)[:40] not in text
			assert not token.split(".")[-1] or token.split(".")[-1][:24] not in text


def test_JWT4_grpc_clients_get_a_status_they_understand(gw, backend, path):
	answer = gw.request("POST", path, {"Content-Type": "application/grpc", "TE": "trailers"}, b"")
	assert (answer.status, answer.header("grpc-status"), answer.header("Content-Type")) == (200, "16", "application/grpc")


# ---- form ----

def test_JWT5_only_three_parts(gw, backend, path):
	token = key().sign()
	head, payload, signature = token.split(".")
	for text in ("x", "..", "...", ".", f"{head}.{payload}", f"{token}.", f".{token}", f"{token}.x", f"{head}..{signature}", f".{payload}.{signature}",
		f"{token}.a.b", f"{head}.{payload}.{signature}=", f"{head}=.{payload}.{signature}", f"{head}.{payload}.{signature}/",
		f"{head}.{payload}.{signature[:-1]}+", f"{head} .{payload}.{signature}", f"{head}.{payload}.{signature} x"):
		assert fault(ask(gw, path, text)) == "malformed", text
	assert fault(ask(gw, path, f"{head}.{payload}.{signature[:-2]}")) == "signature"    # a byte less
	assert backend.requests() == []


@pytest.mark.parametrize("header, claims", [
	('{"alg":"RS256","alg":"none"}', None), ('{"alg":"none","alg":"RS256"}', None), ('["RS256"]', None), ('"RS256"', None), ("null", None),
	('{"alg":null}', None), ('{"alg":["RS256"]}', None), ("{}", None), ('{"alg":"RS256",}', None), ('{"alg":"RS256"}x', None),
	('{"alg":"RS256","kid":7}', None), ('{"alg":"RS256","kid":["k1"]}', None), ('{"alg":"RS256","kid":"k1","kid":"k2"}', None),
	('{"alg":"RS256","crit":["exp"],"exp":1}', None), ('{"alg":"RS256","crit":[]}', None), ('{"alg":"RS256","crit":["b64"],"b64":false}', None),
	('{"alg":"RS256","b64":false}', None), ('{"alg":"RSA-OAEP","enc":"A256GCM"}', None), ('{"alg":"RS256","zip":"DEF"}', None),
	(None, '{"iss":"https://issuer.test","iss":"https://issuer.test"}'), (None, '{"iss":"https://issuer.test","exp":1,"exp":99999999999}'),
	(None, "[]"), (None, '"x"'), (None, "null"), (None, ""), (None, '{"iss":"https://issuer.test"'), (None, b'{"iss":"\xff"}'),
	(None, '{"a":' + "[" * 200 + "]" * 200 + "}"), (None, '{"iss":"https://issuer.test","x":{"a":1,"a":2}}')])
def test_JWT5_parts_that_are_no_plain_objects(gw, backend, path, header, claims):
	text = f"{b64(header or compact({'alg': 'RS256', 'kid': 'k1'}))}.{b64(compact(good()) if claims is None else claims)}"
	assert fault(ask(gw, path, f"{text}.{b64(key().signature(text.encode(), 'RS256'))}")) == "malformed"
	assert backend.requests() == []


def test_JWT5_at_most_16_KiB(gw, backend, path):
	fits = key().sign(pad="x" * ((16384 - len(key().sign(pad=""))) * 3 // 4 - 3))
	assert 16370 < len(fits) <= 16384
	assert ask(gw, path, fits).status == 200
	assert ask(gw, path, fits).status == 200
	large = key().sign(pad="x" * 12400)
	assert 16384 < len(large) < 20000
	assert fault(ask(gw, path, large)) == "malformed"
	assert ask(gw, path, "x" * 40000).status == 431


# ---- algorithms and keys ----

@pytest.mark.parametrize("kind, algorithm", [("RSA", "RS256"), ("RSA", "RS384"), ("RSA", "RS512"), ("RSA", "PS256"), ("RSA", "PS384"),
	("RSA", "PS512"), *EC, ("Ed25519", "EdDSA")])
def test_JWT6_algorithms(gw, backend, kind, algorithm):
	one = key(kind, "k1" if kind == "RSA" else kind)
	base = guarded(gw, backend, one)
	assert ask(gw, base, one.sign(algorithm=algorithm)).status == 200
	head, payload, signature = one.sign(algorithm=algorithm).split(".")
	flipped = signature[:-6] + ("A" if signature[-6] != "A" else "B") + signature[-5:]
	assert fault(ask(gw, base, f"{head}.{payload}.{flipped}")) == "signature"


def test_JWT6_elliptic_signatures_are_raw(gw, backend):
	one = key("P-256", "P-256")
	base = guarded(gw, backend, one)
	head, payload, signature = one.sign().split(".")
	text = f"{head}.{payload}"
	zeros = b64(bytes(64))
	for bad in (zeros, b64(bytes(63) + b"\x01"), b64(b"\x00" * 31 + b"\x01" + b"\x00" * 31 + b"\x01"), signature[:-2], signature + "AA", b64(b"\xff" * 64)):
		assert fault(ask(gw, base, f"{text}.{bad}")) in ("signature", "malformed"), bad
	path = key("P-256", "P-256").file + ".text"
	with open(path, "w") as file:
		file.write(text)
	assert fault(ask(gw, base, f"{text}.{b64(openssl('dgst', '-sha256', '-sign', one.file, path))}")) == "signature"


def test_JWT6_another_algorithm_of_the_same_key(gw, backend):
	base = guarded(gw, backend, [key().jwk(alg="RS256"), key("P-256", "P-256")])
	assert ask(gw, base, key().sign()).status == 200
	for algorithm in ("RS384", "PS256"):
		assert fault(ask(gw, base, key().sign(algorithm=algorithm))) == "algorithm"
	assert fault(ask(gw, base, key().sign(header={"kid": "P-256"}))) == "algorithm"
	assert fault(ask(gw, base, key("P-256", "P-256").sign(header={"kid": "k1"}))) == "algorithm"
	for algorithm in ("ES256K", "RS1", "HS1", "rs256", "RSA1_5", "dir", "A128KW", "RS2560", ""):
		assert fault(ask(gw, base, key().sign(header={"alg": algorithm}))) == "algorithm", algorithm


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_JWT6_secrets_only_inline(gw, backend, algorithm):
	base = guarded(gw, backend, symmetric(SECRET))
	assert ask(gw, base, sign_hmac(SECRET, algorithm=algorithm)).status == 200
	assert fault(ask(gw, base, sign_hmac(SECRET + b"x", algorithm=algorithm))) == "signature"
	with Issuer(key(), symmetric(SECRET, kid="s")) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		assert fault(ask(gw, base, sign_hmac(SECRET, algorithm=algorithm))) == "algorithm"
		assert fault(ask(gw, base, sign_hmac(SECRET, algorithm=algorithm, header={"kid": "s"}))) == "unknown key"


@pytest.mark.parametrize("alg, least", [(None, 32), ("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_JWT6_secrets_are_as_long_as_what_they_make(gw, alg, least):
	"""RFC 7518 3.2; also beside keys that are good."""
	def put(n):
		jwks = {"keys": [key().jwk(), symmetric(b"s" * n, **({"alg": alg} if alg else {}))]}
		return gw.api("POST", "/api/v2/policies?dryRun=true", {"name": "p", "className": "JWTAuth", "config": json.dumps(jwt_auth(json.dumps(jwks)))})

	status, answer, _ = put(least - 1)
	assert status == 400, answer
	assert answer["errorMessage"].startswith("Invalid parameter: config.jwks: "), answer
	assert f"keys[1].k has {least - 1} bytes; at least {least} are needed" in answer["errorMessage"]
	assert put(least)[0] == 200


def shown_config(gw, policy):
	return json.loads(gw.ask("GET", policy.path)["config"])


def test_CFG6_shared_secrets_are_not_read_back(gw, backend):
	"""A key set with a secret in it is not shown, and stays when what was read is put back; what is public is shown."""
	base = guarded(gw, backend, symmetric(SECRET))
	policy = guarded.attachment.policy
	for config in (shown_config(gw, policy), {**shown_config(gw, policy), "tokenPass": True}):
		assert "jwks" not in config
		item = gw.ask("PUT", policy.path, {**policy.body, "config": json.dumps(config)})
		assert b64(SECRET) not in json.dumps(item)
		assert ask(gw, base, sign_hmac(SECRET)).status == 200
	assert b64(SECRET) not in json.dumps(gw.ask("GET", "/api/v2/policies?pageSize=100"))
	gw.change_policy(policy, jwt_auth("https://issuer.test/keys"))
	assert shown_config(gw, policy)["jwks"] == "https://issuer.test/keys"
	gw.change_policy(policy, jwt_auth([key().jwk()]))
	assert json.loads(shown_config(gw, policy)["jwks"])["keys"][0]["n"] == key().jwk()["n"]
	private = {**key().jwk(), "d": b64(b"a private exponent"), "p": "AQ"}
	gw.change_policy(policy, jwt_auth([private]))
	assert "jwks" not in shown_config(gw, policy)
	assert ask(gw, base, key().sign()).status == 200
	masked = {**policy.body, "config": json.dumps(jwt_auth("******"))}
	check_error(gw.api("PUT", policy.path, masked), 400, "ErrInvalidParameter", "config.jwks")


def test_JWT6_small_keys_are_passed_over_with_a_warning(gw, backend):
	small = Key("RSA", "small", bits=1024)
	base = guarded(gw, backend, [small, key()])
	assert fault(ask(gw, base, small.sign())) == "unknown key"
	assert ask(gw, base, key().sign()).status == 200
	wait_until(lambda: gw.events("keys.passed_over"), 5, "a warning")
	assert gw.events("keys.passed_over")[-1]["level"] == "warn"


def test_JWT7_without_a_key_id_all_that_fit_are_tried(gw, backend):
	others = [key("RSA", f"o{i}") for i in range(3)]
	base = guarded(gw, backend, [*others, key("P-256", "P-256"), key().jwk(kid=None)])
	assert ask(gw, base, key().sign(header={"kid": None})).status == 200
	assert ask(gw, base, key("P-256", "P-256").sign(header={"kid": None})).status == 200
	assert fault(ask(gw, base, key("RSA", "stranger").sign(header={"kid": None}))) == "signature"
	# Keys without an id are not for tokens with one.
	assert fault(ask(gw, base, key().sign())) == "unknown key"


def test_JWT7_keys_for_other_uses(gw, backend):
	base = guarded(gw, backend, [key().jwk(use="enc"), key("P-256", "P-256"), key("RSA", "o1").jwk(use=None)])
	assert fault(ask(gw, base, key().sign())) == "unknown key"
	assert ask(gw, base, key("RSA", "o1").sign()).status == 200


# ---- claims ----

@pytest.mark.parametrize("claims, said", [
	({"exp": None}, 200), ({"exp": "9999999999"}, "claims"), ({"exp": [9999999999]}, "claims"), ({"exp": True}, "claims"), ({"exp": 1e300}, "claims"),
	({"exp": 9999999999.5}, 200), ({"exp": 0}, "expired"), ({"exp": -1}, "expired"), ({"exp": 2 ** 62}, "claims"), ({"exp": 10 ** 30}, "claims"),
	({"nbf": 5}, 200), ({"nbf": "5"}, "claims"), ({"nbf": 30}, 200), ({"nbf": 120}, "not yet valid"), ({"iat": 120}, "not yet valid"),
	({"iat": 30}, 200), ({"iat": "now"}, "claims"), ({"iat": {}}, "claims"), ({"aud": "anybody"}, 200), ({"aud": ["a", "b"]}, 200),
	({"sub": None}, 200), ({"sub": 7}, 200)])
def test_JWT8_claims(gw, backend, path, claims, said):
	moved = {name: value + int(time.time()) if name in ("nbf", "iat") and type(value) is int and value > 5 else value
		for name, value in claims.items()}
	token = key().sign({"iss": ISSUER, **{n: v for n, v in {"exp": int(time.time()) + 600, **moved}.items() if v is not None}})
	answer = ask(gw, path, token)
	assert (answer.status if answer.status == 200 else fault(answer)) == said
	if said == 200:
		assert ask(gw, path, token).status == 200    # from memory


def test_JWT8_tokens_without_an_end_are_counted(gw, backend, path):
	token = key().sign(exp=None)
	for _ in range(3):
		assert ask(gw, path, token).status == 200
	assert ask(gw, path, key().sign()).status == 200
	assert (counted(gw, "jwt_no_exp"), counted(gw, "passed")) == (3, 4)


def test_JWT8_subject(gw, backend, issuer):
	base = guarded(gw, backend, issuer, sub="alice")
	assert ask(gw, base, key().sign()).status == 200
	for sub in ("bob", "Alice", "alice ", "", None, ["alice"], 1):
		assert fault(ask(gw, base, key().sign(sub=sub))) == "subject", sub


# ---- what goes on to the upstream ----

def test_JWT10_header(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPass=False)
	for _ in range(2):
		seen = gw.echo(f"{base}/echo", {**bearer(key().sign()), "X-Other": "stays", "Cookie": "a=b"})
		assert "authorization" not in seen["fields"]
		assert (seen["fields"]["x-other"], seen["fields"]["cookie"]) == (["stays"], ["a=b"])


@pytest.mark.parametrize("cookies, left", [
	(["tok=T"], []), (["a=b; tok=T; c=d"], ["a=b; c=d"]), (["tok=T; a=b"], ["a=b"]), (["a=b;tok=T"], ["a=b"]),
	(["xtok=1; tok=T; tokx=2; Tok=3"], ["xtok=1; tokx=2; Tok=3"]), (['a="x y"; tok="T"'], ['a="x y"']),
	(["a=b", "tok=T", "c=d"], ["a=b", "c=d"]), (["a=tok=T; tok=T"], ["a=tok=T"])])
def test_JWT10_cookie(gw, backend, issuer, cookies, left):
	base = guarded(gw, backend, issuer, tokenPosition="cookie", tokenName="tok", tokenPass=False)
	token = key().sign()
	seen = gw.echo(f"{base}/echo", [("Cookie", value.replace("T", token).replace(token + "ok", "Tok")) for value in cookies])
	assert [value.replace(token, "T") for value in seen["fields"].get("cookie", [])] == left


def test_JWT10_passed_on_as_it_came(gw, backend, issuer):
	token = key().sign()
	base = guarded(gw, backend, issuer, tokenPosition="query", tokenName="token")
	assert gw.get(f"{base}/x?a=1&token={token}&b=%20").status == 200
	assert backend.last().target == f"{base}/x?a=1&token={token}&b=%20"
	base = guarded(gw, backend, issuer, tokenPosition="cookie", tokenName="tok")
	assert gw.echo(f"{base}/echo", {"Cookie": f"a=b;  tok={token};c"})["fields"]["cookie"] == [f"a=b;  tok={token};c"]


def test_JWT10_what_is_exempt_is_left_alone(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPass=False, whiteOrBlack="White", authResources=[{"path": "/jwt", "matchType": "EQUAL"}])
	free = {"path": f"{base}/free/echo"}
	gw.change_policy(guarded.attachment, jwt_auth(issuer, tokenPass=False, whiteOrBlack="White", authResources=[free]))
	assert gw.echo(f"{base}/free/echo", {"Authorization": "Basic eDp5"})["fields"]["authorization"] == ["Basic eDp5"]


UNSEEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"

@pytest.mark.parametrize("place, fields, query, left", [
	({}, {"Authorization": f"Bearer {UNSEEN}"}, "", {}), ({}, [("Authorization", f"Bearer {UNSEEN}"), ("Authorization", "Bearer U")], "", {}),
	({"tokenPosition": "cookie", "tokenName": "tok"}, {"Cookie": f"a=b; tok={UNSEEN}"}, "", {"cookie": ["a=b"]}),
	({"tokenPosition": "query", "tokenName": "tok"}, {}, f"?a=1&tok={UNSEEN}", {}),
], ids=["header", "two headers", "cookie", "query"])
def test_JWT10_a_token_that_was_not_verified_goes_no_further(gw, backend, issuer, place, fields, query, left):
	"""tokenPass false holds for requests that need no token as well: the upstream might believe what nobody has looked at."""
	base = guarded(gw, backend, issuer, tokenPass=False)
	free = {"path": f"{base}/free", "matchType": "PRE"}
	for passes in (False, True):
		gw.change_policy(guarded.attachment, jwt_auth(issuer, tokenPass=passes, whiteOrBlack="White", authResources=[free], **place))
		assert gw.get(f"{base}/free{query}", fields).status == 200
		record = backend.last()
		if passes:
			assert record.target == f"{base}/free{query}" and record.all("Authorization") + record.all("Cookie") == [v for _, v in dict_items(fields)]
		else:
			assert record.target == f"{base}/free{'?a=1' if query else ''}"
			assert {name: record.all(name) for name in ("authorization", "cookie") if record.all(name)} == left


def test_JWT10_what_is_no_token_is_left_to_others(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPass=False)
	gw.change_policy(guarded.attachment, jwt_auth(issuer, tokenPass=False, whiteOrBlack="White", authResources=[{"path": base, "matchType": "PRE"}]))
	assert gw.get(f"{base}/free", {"Authorization": "Bearer a-key-of-somebody"}).status == 200
	assert backend.last().all("Authorization") == ["Bearer a-key-of-somebody"]


def dict_items(fields):
	return list(fields.items()) if isinstance(fields, dict) else fields


def test_JWT11_record_and_properties(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPass=False)
	names = ["sub", "org.id", "n", "real", "admin", "nothing", "list", "object", "absent", "https://claims.test/x"]
	gw.attach("HeaderModify", headers(*[op("Request", "Add", f"X-Claim-{i}", f"jwt.claim.{name}", "Reference") for i, name in enumerate(names)]),
		to=guarded.route)
	token = key().sign(**{"sub": "al\u00efce", "org.id": "o-1", "n": 12, "real": 1.50, "admin": True, "nothing": None, "list": [1], "object": {},
		"https://claims.test/x": "y\r\nX-Evil: 1"})
	for _ in range(2):    # verified, and from memory
		seen = gw.echo(f"{base}/echo", bearer(token))["fields"]
		got = [seen.get(f"x-claim-{i}", [None])[0] for i in range(len(names))]
		assert got[1:9] == ["o-1", "12", "1.5", "true", None, None, None, None]
		assert "x-evil" not in seen and got[9] is None
	wait_until(lambda: len(gw.records(path=f"{base}/echo")) == 2, 5, "both records")
	for record in gw.records(path=f"{base}/echo"):
		assert record["jwtIss"] == ISSUER
		assert record["jwtSub"].encode("latin-1").decode() == "al\u00efce"
		assert "consumer" not in record


def test_JWT11_without_a_token_there_are_no_claims(gw, backend, issuer):
	base = f"/jwt-{next(numbers)}"
	route = gw.route(base, backend)
	gw.attach("HeaderModify", headers(op("Request", "Add", "X-Claim", "jwt.claim.sub", "Reference")), to=route)
	assert "x-claim" not in gw.echo(f"{base}/echo", bearer(key().sign()))["fields"]


# ---- what is remembered ----

def test_JWT12_a_changed_config_forgets(gw, backend, issuer):
	base = guarded(gw, backend, issuer)
	token = key().sign()
	for _ in range(8):
		with gw.connect() as connection:    # both workers
			assert connection.request("GET", base, bearer(token)).status == 200
	gw.change_policy(guarded.attachment, jwt_auth(issuer, issuer="https://other.test"))
	for _ in range(8):
		with gw.connect() as connection:
			assert fault(connection.request("GET", base, bearer(token))) == "issuer"


def test_JWT12_two_routes_do_not_share_what_they_know(gw, backend, issuer):
	token = key().sign()
	first = guarded(gw, backend, issuer)
	second = guarded(gw, backend, issuer, sub="bob")
	for _ in range(4):
		assert ask(gw, first, token).status == 200
		assert fault(ask(gw, second, token)) == "subject"


def test_JWT12_no_longer_than_the_token_says(gw, backend, path):
	token = key().sign(exp=int(time.time()) - 57)
	assert ask(gw, path, token).status == 200
	wait_until(lambda: ask(gw, path, token).status == 401, 20, "the end of the leeway")
	assert fault(ask(gw, path, token)) == "expired"


def test_JWT12_is_bounded(gw, backend):
	base = guarded(gw, backend, symmetric(SECRET))
	with gw.connect() as connection:
		assert connection.request("GET", base, bearer(sign_hmac(SECRET))).status == 200
		before = gw.rss_kb()
		for i in range(0, 3000, 50):
			for n in range(i, i + 50):
				connection.start("GET", base, bearer(sign_hmac(SECRET, good(sub=f"user-{n}" + "x" * 100))))
			for _ in range(50):
				assert connection.read_response().status == 200
		assert gw.rss_kb() - before < (100_000 if IS_SANITIZED else 20_000)


# ---- levels, and others on the way ----

def test_the_most_specific_acts_alone(gw, backend, issuer):
	site = gw.gateway()
	base = f"/jwt-{next(numbers)}"
	route = gw.route(base, backend, site=site)
	gw.attach("JWTAuth", jwt_auth(key("RSA", "o1")), to=site)
	own = gw.attach("JWTAuth", jwt_auth(issuer), to=route)
	assert gw.get(base, bearer(key().sign()), site=site).status == 200
	assert gw.get(base, bearer(key("RSA", "o1").sign()), site=site).status == 401
	# One that is off does not open the door that the gateway's keeps shut.
	gw.change_policy(own, jwt_auth(issuer, enable=False))
	assert fault(gw.get(base, site=site)) == ""
	assert gw.get(base, bearer(key("RSA", "o1").sign()), site=site).status == 200
	assert gw.get("/nowhere", site=site).status == 401
	assert gw.get("/nowhere", bearer(key("RSA", "o1").sign()), site=site).status == 404


def test_on_a_domain_and_on_an_api(gw, backend, issuer):
	site = gw.gateway()
	domain = gw.domain("api.test", site)
	base = f"/jwt-{next(numbers)}"
	gw.route(base, backend, site=site)
	gw.attach("JWTAuth", jwt_auth(issuer), to=domain)
	assert [gw.get(base, site=site, host=host).status for host in ("api.test", "other.test")] == [401, 200]
	api = rest_api(gw, backend)
	first, second = api.operation("GET", "/a"), api.operation("GET", "/b")
	gw.attach("JWTAuth", jwt_auth(issuer), to=api)
	gw.attach("JWTAuth", jwt_auth(issuer, sub="bob"), to=second)
	assert [ask_operation(gw, api, "/a", sub) for sub in ("alice", "bob")] == [200, 200]
	assert [ask_operation(gw, api, "/b", sub) for sub in ("alice", "bob")] == [401, 200]
	assert first.id != second.id


def ask_operation(gw, api, path, sub):
	return gw.get(api.base + path, bearer(key().sign(sub=sub))).status


def test_B2_the_authorization_service_comes_first(gw, backend, path):
	with SideService(plain(403, [], b"no")) as auth:
		gw.attach("ExternalZAuth", {"authServiceUrl": auth.url, "timeout": 5000, "enable": True}, to=guarded.route)
		assert gw.get(path).status == 403
		auth.answer = plain(200)
		assert fault(gw.get(path)) == ""
		assert ask(gw, path, key().sign()).status == 200


def test_X4_refusals_carry_the_cors_headers(gw, backend, path):
	gw.attach("Cors", cors(), to=guarded.route)
	assert preflight(gw, path).status == 200
	answer = gw.get(path, {"Origin": "https://example.com"})
	assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (401, "https://example.com")


def test_B1_terminal_policies_come_after(gw, issuer):
	base = f"/jwt-{next(numbers)}"
	route = gw.route(base, None)
	gw.attach("DirectResponse", direct(), to=route)
	gw.attach("JWTAuth", jwt_auth(issuer), to=route)
	assert gw.get(base).status == 401
	assert gw.get(base, bearer(key().sign())).body == b"direct"


def test_http2(gw, backend, issuer):
	base = guarded(gw, backend, issuer, tokenPosition="cookie", tokenName="tok", tokenPass=False)
	token = key().sign()
	with H2(gw.port) as connection:
		answer = connection.get(f"{base}/echo", more=[("cookie", "a=b"), ("cookie", f"tok={token}"), ("cookie", "c=d")])
		assert answer.status == 200
		assert "tok=" not in str(backend.last().all("Cookie")) and "a=b" in str(backend.last().all("Cookie"))
		assert connection.get(base, more=[("cookie", f"tok={token}"), ("cookie", f"tok={token}")]).status == 401
		answer = connection.get(base)
		assert (answer.status, answer.header("www-authenticate")) == (401, 'Bearer realm="sluice"')
	base = guarded(gw, backend, issuer)
	with H2(gw.port) as connection:
		assert connection.get(base, more=[("authorization", f"Bearer {token}")]).status == 200
		assert connection.get(base, more=[("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]).status == 401


def test_a_web_socket_with_its_token_in_the_query(gw, backend, issuer):
	with Scripted(echo_frames) as upstream:
		base = guarded(gw, backend, issuer, target=upstream.port, tokenPosition="query", tokenName="access_token", tokenPass=False)
		assert fault(gw.get(base, UPGRADE)) == ""
		with gw.connect() as connection:
			connection.start("GET", f"{base}?access_token={key().sign()}&room=1", UPGRADE)
			assert connection.read_head().status == 101
			connection.send(frame(b"hello", mask=True))
			assert read_frame(connection)[1] == b"hello"


# ---- what it shows ----

def test_is_enforced_and_active(gw, backend, path):
	assert is_enforced(gw, "JWTAuth")
	assert phase(gw, guarded.attachment) == "Active"


def trace(gw, target, fields=()):
	question = {"method": "GET", "url": f"http://gw.test:{gw.port}{target}", "headers": [{"name": n, "value": v} for n, v in dict(fields).items()]}
	answer = gw.ask("POST", "/api/v1/trace", question)
	return answer, {item["className"]: item["verdict"] for item in answer["policies"] if item["leg"] == "request"}["JWTAuth"]


def test_a_dry_run_says_what_would_become_of_it(gw, backend, issuer):
	base = guarded(gw, backend, issuer, whiteOrBlack="White", authResources=[{"path": "/free"}])
	assert ask(gw, base, key().sign()).status == 200
	before = counted(gw, "passed"), counted(gw, "missing")
	assert trace(gw, base, bearer(key().sign()))[1] == "Passes"
	answer, verdict = trace(gw, base)
	assert verdict == "Answers" and answer["answer"]["status"] == 401
	answer, _ = trace(gw, base, bearer(key().sign(exp=1)))
	assert "expired" in json.dumps(answer["answer"])
	assert (counted(gw, "passed"), counted(gw, "missing")) == before


@pytest.mark.parametrize("member, value", [("issuer", ""), ("tokenPosition", "body"), ("tokenPass", "true"), ("name", "x" * 65)])
def test_rejects_name_the_field(gw, member, value):
	answer = gw.api("POST", "/api/v2/policies", {"name": "bad", "className": "JWTAuth", "config": as_text(jwt_auth(key(), **{member: value}))})
	check_error(answer, 400, "ErrInvalidParameter", f"config.{member}")
