"""OIDCAuth on live traffic: the acceptance examples of its contract. test_ex<n> are the examples."""
import base64
import hashlib
import json
import os
import subprocess
import threading
import time
import urllib.parse

import pytest
from backends import Backend
from gw import Gateway, numbers
from oidc_kit import PAGE, App, Browser, app, challenge, config, decode_part, expire, own, parameters, provider
from policy_kit import outcomes, phase
from side_services import plain
from tokens import Key, b64, key, sign_hmac, unsigned
from wire import wait_until


# ---- 1: the whole flow ----

def test_ex1_a_browser_logs_in_and_lands_where_it_wanted(gw, backend, provider, app):
	browser = app.browser()
	answer = browser.get(f"{app.path}?x=1")
	assert answer.status == 302
	assert answer.header("Cache-Control") == "no-store"
	location = answer.header("Location")
	assert location.startswith(f"{provider.url}/authorize?")
	asked = parameters(location)
	assert asked["response_type"] == "code" and asked["client_id"] == "app" and asked["scope"] == "openid email"
	assert asked["redirect_uri"] == f"http://{app.host}/callback"
	assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
	assert len(asked["state"]) == 43 and len(asked["nonce"]) == 43 and asked["state"] != asked["nonce"]
	line, = answer.all("Set-Cookie")
	assert line.startswith("sluice_oidc_st_") and "; HttpOnly" in line and "; SameSite=Lax" in line and "; Path=/" in line
	assert "; Max-Age=600" in line and "Secure" not in line and "Domain" not in line
	answer = browser.come_back(provider, location)
	assert answer.status == 302
	assert answer.header("Location") == f"{app.path}?x=1"
	kept, gone = sorted(answer.all("Set-Cookie"), key=lambda text: "Max-Age=0" in text)
	assert kept.startswith(f"sluice_oidc_{app.attachment.policy.id.split('-')[1][:8]}=")
	assert "; HttpOnly" in kept and "; SameSite=Lax" in kept and "; Path=/" in kept and "; Max-Age=604800" in kept
	assert gone.startswith("sluice_oidc_st_")
	answer = browser.get(answer.header("Location"), {**PAGE, "Cookie": "mine=1"})
	assert answer.status == 200
	record = backend.last()
	token = record.header("Authorization").split(" ")[1]
	assert decode_part(token, 1)["sub"] == "alice"
	assert record.header("Cookie") == "mine=1"
	assert record.header("X-Forwarded-User") == "alice"
	assert record.header("X-Forwarded-Email") == "alice@example.com"
	call, = provider.asked_at("/token")
	form = dict(urllib.parse.parse_qsl(call.body.decode()))
	assert form["grant_type"] == "authorization_code" and form["redirect_uri"] == asked["redirect_uri"]
	assert challenge(form["code_verifier"]) == asked["code_challenge"]
	assert call.header("Authorization") == "Basic " + base64.b64encode(b"app:client-SECRET").decode()
	assert browser.get(app.path).status == 200
	assert len(provider.asked_at("/token")) == 1
	counts = outcomes(gw, app.attachment)
	assert counts[app.route.name, "passed"] == 2 and counts[app.route.name, "login"] == 1
	assert phase(gw, app.attachment) == "Active"


# ---- 2: who is no browser ----

@pytest.mark.parametrize("method, fields", [
	("GET", {"Accept": "application/json"}), ("GET", {"Accept": "application/json, text/plain, */*"}), ("GET", {}),
	("GET", {**PAGE, "X-Requested-With": "XMLHttpRequest"}), ("GET", {**PAGE, "Sec-Fetch-Mode": "cors"}),
	("GET", {**PAGE, "Sec-Fetch-Mode": "no-cors"}), ("POST", PAGE), ("PUT", PAGE), ("OPTIONS", PAGE),
	("GET", {**PAGE, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 24}),
])
def test_ex2_what_is_no_page_gets_401(gw, backend, app, method, fields):
	answer = app.browser().request(method, app.path, fields, b"" if method in ("POST", "PUT") else None)
	assert answer.status == 401
	assert answer.header("Location") is None
	assert answer.header("WWW-Authenticate").startswith("Bearer")
	assert answer.header("Cache-Control") == "no-store"
	assert answer.all("Set-Cookie") == []
	assert answer.json["errorCode"] == "ErrUnauthorized"
	assert backend.requests() == []


@pytest.mark.parametrize("method, fields", [
	("GET", {"Accept": "*/*"}), ("HEAD", PAGE), ("GET", {**PAGE, "Sec-Fetch-Mode": "navigate"}), ("GET", {"Accept": "text/html"}),
])
def test_ex2_what_is_a_page_is_sent_to_the_provider(gw, app, method, fields):
	assert app.browser().request(method, app.path, fields).status == 302


# ---- 3: states that are not ours ----

def test_ex3_a_forged_state_makes_no_call(gw, provider, app):
	browser = app.browser()
	answer = browser.get("/callback?code=stolen&state=forged")
	assert answer.status == 302                       # once more, from the start
	assert answer.header("Location").startswith(f"{provider.url}/authorize?")
	assert provider.asked_at("/token") == []
	assert browser.get("/callback?code=stolen&state=forged2").status == 400
	assert provider.asked_at("/token") == []
	assert browser.outstanding == {}
	assert browser.login(provider, app.path).status == 200


def test_ex3_the_restarted_login_lands_at_the_root(gw, provider, app):
	browser = app.browser()
	location = browser.begin("/callback?code=x&state=forged")
	answer = browser.come_back(provider, location)
	assert (answer.status, answer.header("Location")) == (302, "/")
	assert browser.get(app.path).status == 200


def test_ex3_a_browser_without_cookies_gets_no_loop(gw, provider, app):
	browser = app.browser()
	browser.takes_cookies = False
	answer = browser.come_back(provider, browser.begin(app.path))
	assert answer.status == 302
	answer = browser.come_back(provider, answer.header("Location"))
	assert answer.status == 400
	assert "Cookies have to be allowed" in answer.text
	assert provider.asked_at("/token") == []


def test_ex3_a_replayed_callback_makes_no_call(gw, provider, app):
	browser = app.browser()
	location = browser.begin(app.path)
	cookies = dict(browser.cookies)
	assert browser.come_back(provider, location).status == 302
	assert len(provider.asked_at("/token")) == 1
	answer = browser.get(browser.callback)            # the session is there
	assert (answer.status, answer.header("Location")) == (302, "/")
	thief = app.browser()
	thief.cookies = cookies                           # even with the cookie of that login
	answer = thief.get(browser.callback)
	assert answer.status == 302 and answer.header("Location").startswith(provider.url)
	assert len(provider.asked_at("/token")) == 1


def test_ex3_the_login_of_another_browser_is_none(gw, provider, app):
	victim, attacker = app.browser(), app.browser()
	_, location = provider.visit(attacker.begin(app.path))
	answer = victim.get(own(location, app.host))
	assert answer.status == 302 and answer.header("Location").startswith(provider.url)
	assert victim.session == {} and provider.asked_at("/token") == []


@pytest.mark.parametrize("query", ["", "?code=x", "?state=", "?code=x&state=" + "a" * 3000, "?code=%00&state=%ff", "?state=r.x&code=1"],
	ids=["none", "no state", "empty state", "long state", "bytes", "marked"])
def test_ex3_callbacks_of_no_login(gw, provider, app, query):
	answer = app.browser().get(f"/callback{query}")
	assert answer.status in (302, 400)
	assert provider.asked_at("/token") == []


@pytest.mark.parametrize("query", ["?code=x&code=y&state=a", "?code=x&state=a&state=b", "?code=%zz&state=a"])
def test_ex3_damaged_callbacks(gw, provider, app, query):
	assert app.browser().get(f"/callback{query}").status == 400


# ---- 4: tabs ----

@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ex4_two_tabs_log_in_in_either_order(gw, provider, app, order):
	browser = app.browser()
	locations = [browser.begin(f"{app.path}/{tab}") for tab in "ab"]
	assert len(browser.outstanding) == 2
	for i in order:
		answer = browser.come_back(provider, locations[i])
		assert (answer.status, answer.header("Location")) == (302, f"{app.path}/{'ab'[i]}")
	assert browser.outstanding == {}
	assert browser.get(app.path).status == 200


def test_at_most_seven_logins_are_outstanding(gw, provider, app):
	browser = app.browser()
	locations = [browser.begin(f"{app.path}/{i}") for i in range(9)]
	assert len(browser.outstanding) == 7
	answer = browser.come_back(provider, locations[8])
	assert answer.header("Location") == f"{app.path}/8"


# ---- 5: ID tokens that are not good ----

BAD = {
	"nonce": {"nonce": "another"}, "no nonce": {"nonce": None}, "audience": {"aud": "other"}, "no audience": {"aud": None},
	"audiences without azp": {"aud": ["app", "other"]}, "azp": {"aud": ["app", "other"], "azp": "other"}, "azp alone": {"azp": "other"},
	"issuer": {"iss": "https://evil.example"}, "expired": {"exp": int(time.time()) - 300}, "no exp": {"exp": None},
	"from the future": {"iat": int(time.time()) + 6000}, "no iat": {"iat": None}, "no sub": {"sub": None}, "sub": {"sub": 7},
	"sub with a line end": {"sub": "alice\r\nX-Admin: 1"}, "at_hash": {"at_hash": b64(b"x" * 16)}, "at_hash type": {"at_hash": 1},
	"exp type": {"exp": "tomorrow"},
}


@pytest.mark.parametrize("name", BAD)
def test_ex5_an_id_token_with_bad_claims_opens_no_session(gw, backend, provider, app, name):
	provider.claims = BAD[name]
	refuses_login(gw, provider, app)


def refuses_login(gw, provider, app):
	browser = app.browser()
	answer = browser.come_back(provider, browser.begin(app.path))
	assert answer.status == 401
	assert answer.header("Cache-Control") == "no-store"
	assert browser.session == {} and browser.outstanding == {}
	assert browser.get(app.path).status == 302
	wait_until(lambda: gw.events("oidc.login_failed"), 5, "a line in the log")


SIGNERS = {
	"alg none": lambda claims: unsigned({"alg": "none"}, claims),
	"HS256 with the secret": lambda claims: sign_hmac(b"client-SECRET", claims),
	"HS256 with the public key": lambda claims: sign_hmac(key().pem.encode(), claims, header={"kid": "k1"}),
	"another key": lambda claims: Key("RSA", "k1").sign(claims),
	"unknown kid": lambda claims: key().sign(claims, header={"kid": "k9"}),
	"crit": lambda claims: key().sign(claims, header={"crit": ["x"]}),
	"no token": lambda claims: "a.b.c", "empty": lambda claims: "", "huge": lambda claims: key().sign({**claims, "x": "y" * 20000}),
}


@pytest.mark.parametrize("name", SIGNERS)
def test_ex5_an_id_token_with_a_bad_signature_opens_no_session(gw, backend, provider, app, name):
	provider.make_token = SIGNERS[name]
	browser = app.browser()
	answer = browser.come_back(provider, browser.begin(app.path))
	assert answer.status == (502 if name in ("empty", "huge") else 401)
	assert browser.session == {}


@pytest.mark.parametrize("claims", [{"aud": ["app"]}, {"aud": ["app", "other"], "azp": "app"}, {"at_hash": None}, {"email": None},
	{"iat": 60}, {"exp": -60}], ids=str)
def test_id_tokens_that_are_good(gw, provider, app, claims):
	"""Times are seconds from now."""
	provider.claims = {name: int(time.time()) + value if isinstance(value, int) else value for name, value in claims.items()}
	browser = app.browser()
	assert browser.come_back(provider, browser.begin(app.path)).status == 302
	assert browser.session != {}


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519"])
def test_other_algorithms_and_their_access_token_hash(gw, provider, app, kind):
	name = {"P-256": "sha256", "P-384": "sha384", "Ed25519": "sha512"}[kind]
	provider.keys = [key(kind, "other")]

	def sign(claims):
		digest = hashlib.new(name, f"access-{provider.count}-SECRET".encode()).digest()
		return key(kind, "other").sign({**claims, "at_hash": b64(digest[:len(digest) // 2])})

	provider.make_token = sign
	assert app.browser().login(provider, app.path).status == 200


# ---- 6: refresh ----

def test_ex6_parallel_requests_bring_one_refresh(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	answer = browser.come_back(provider, browser.begin(app.path))
	provider.expires_in = 3600
	cookies, before = browser.cookie_field(), len(provider.asked_at("/token"))
	statuses, lines, lock = [], [], threading.Lock()

	def ask():
		with gw.connect() as connection:
			answer = connection.get(app.path, {**PAGE, "Cookie": cookies}, host=app.host)
		with lock:
			statuses.append(answer.status)
			lines.extend(answer.all("Set-Cookie"))

	threads = [threading.Thread(target=ask) for _ in range(20)]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join()
	assert statuses == [200] * 20
	assert len(provider.asked_at("/token")) == before + 1
	assert len(lines) == 20 and all("Max-Age=604800" in line for line in lines)
	form = provider.token_calls[-1]
	assert form["grant_type"] == "refresh_token" and form["refresh_token"].startswith("refresh-1-")
	assert answer.status == 302
	# The new session is good, and the old cookie still is for a while.
	assert browser.get(app.path).status == 200
	assert browser.get(app.path).status == 200
	assert len(provider.asked_at("/token")) == before + 1
	assert outcomes(gw, app.attachment)[app.route.name, "refreshed"] == 21


def test_ex6_an_expired_session_is_refreshed(gw, backend, provider, app):
	provider.gives_refresh, provider.expires_in = True, 1
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	time.sleep(1.5)                                   # the access token has to be over
	provider.expires_in = 3600
	old = browser.cookie_field()
	assert browser.request("POST", app.path, {"Accept": "application/json"}, b"body").status == 200
	assert backend.last().body == b"body"
	assert browser.cookie_field() != old
	token = backend.last().header("Authorization")
	assert browser.get(app.path).status == 200
	assert backend.last().header("Authorization") == token
	assert len(provider.asked_at("/token")) == 2


def test_ex6_a_refresh_token_that_was_revoked_leads_to_a_login(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	provider.revoked = True
	answer = browser.get(app.path)
	assert answer.status == 302 and answer.header("Location").startswith(provider.url)
	assert browser.session == {}
	assert backend.requests() == []


def test_a_revoked_session_of_a_script_gets_401(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	provider.revoked = True
	assert browser.request("POST", app.path, PAGE, b"x").status == 401
	assert backend.requests() == []


def test_a_session_that_is_good_outlives_a_provider_that_is_down(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	provider.on_token = plain(503)
	old = browser.cookie_field()
	calls = len(provider.asked_at("/token"))
	for _ in range(5):
		assert browser.get(app.path).status == 200
	assert len(provider.asked_at("/token")) == calls + 1      # it is not asked by every request
	assert browser.cookie_field() == old
	assert phase(gw, app.attachment) == "Degraded"
	assert "does not refresh" in gw.ask("GET", app.attachment.path)["status"]["reason"]


def test_a_session_that_is_over_fails_closed_while_the_provider_is_down(gw, backend, provider, app):
	provider.gives_refresh, provider.expires_in = True, 1
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	time.sleep(1.5)
	provider.on_token = plain(503)
	answer = browser.get(app.path)
	assert answer.status == 503
	assert answer.header("Retry-After") == "5"
	assert browser.session != {}                      # it may be refreshed later
	assert backend.requests() == []


@pytest.mark.parametrize("claims, signer", [({"sub": "mallory"}, None), ({"aud": "other"}, None), ({}, "another key"), ({}, "alg none")])
def test_a_refresh_that_brings_a_bad_id_token_ends_the_session(gw, backend, provider, app, claims, signer):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	provider.claims = claims
	if signer:
		provider.make_token = SIGNERS[signer]
	assert browser.get(app.path).status == 302
	assert browser.session == {} and backend.requests() == []


def test_a_refresh_without_an_id_token_keeps_the_one_there_is(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	provider.expires_in, provider.token_answer = 3600, {"id_token": None, "refresh_token": None}
	assert browser.get(app.path).status == 200
	assert browser.get(app.path).status == 200
	assert len(provider.asked_at("/token")) == 2
	assert backend.last().header("X-Forwarded-User") == "alice"


def test_tokens_that_live_for_seconds_are_not_refreshed_with_every_request(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	for _ in range(10):
		assert browser.get(app.path).status == 200
	assert len(provider.asked_at("/token")) == 2


@pytest.mark.parametrize("what", ["expires_in", "exp", "both"])
def test_a_session_that_begins_expired_is_no_endless_redirect(gw, backend, provider, app, what):
	"""A provider whose clock is behind ours (the ID token is accepted within the slack), or that says nothing of use about the end."""
	if what != "exp":
		provider.expires_in = 0
	if what != "expires_in":
		provider.claims = {"exp": int(time.time()) - 60, "iat": int(time.time()) - 90}
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	assert browser.get(app.path).status == 200


def test_a_client_that_leaves_does_not_end_the_refresh(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	gate, reached = threading.Event(), threading.Event()

	def slow(request, connection):
		reached.set()
		assert gate.wait(30)
		provider.expires_in = 3600
		return provider.give_tokens(request)

	provider.on_token = slow
	try:
		connection = gw.connect()
		connection.start("GET", app.path, {**PAGE, "Cookie": browser.cookie_field()}, host=app.host)
		assert reached.wait(20)
		connection.close()
	finally:
		gate.set()
	assert browser.get(app.path).status == 200
	assert len(provider.asked_at("/token")) == 2


# ---- 7: cookies that were changed, keys that were rotated ----

def test_ex7_a_session_with_a_flipped_byte_is_none(gw, backend, provider, app):
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	(name, value), = browser.session.items()
	backend.clear()
	for i in [*range(0, 24), *range(24, len(value), 97), len(value) - 1]:
		for other in ("A", "-", "_", "+", "/"):
			if value[i] == other:
				continue
			browser.cookies = {name: value[:i] + other + value[i + 1:]}
			assert browser.get(app.path).status == 302, (i, other)
	for cut in ("", value[:-1], value + "A", value + "=", value.replace(".", "", 1), "2." + value.split(".")[1], "." + value, "x" * 5000):
		browser.cookies = {name: cut} if cut else {}
		assert browser.get(app.path).status == 302, cut[:40]
	assert backend.requests() == []
	browser.cookies = {name: value}
	assert browser.get(app.path).status == 200


def test_ex7_rotated_keys(gw, backend, provider):
	site = gw.gateway()
	host = f"app{next(numbers)}.test"
	route = gw.route("/app", backend, site=site)
	gw.attach("OIDCAuth", config(provider, host), to=route)
	browser = Browser(gw, host, site)
	assert browser.login(provider, "/app").status == 200
	name, = browser.session
	first = browser.session[name]
	assert first.startswith("1.")
	gw.feature("sessionKeyGeneration", 2, site)
	assert browser.get("/app").status == 200
	assert browser.session[name].startswith("2.")     # it got the new key by the way
	fresh = Browser(gw, host, site)
	assert fresh.login(provider, "/app").status == 200
	assert fresh.session[name].startswith("2.")
	old = Browser(gw, host, site)
	old.cookies = {name: first}
	assert old.get("/app").status == 200
	gw.feature("sessionKeyGeneration", 3, site)
	old.cookies = {name: first}
	assert old.get("/app").status == 302
	assert browser.get("/app").status == 200


def test_a_session_outlives_a_restart(provider):
	with Gateway() as gw, Backend() as backend:
		app = App(gw, backend, provider)
		browser = app.browser()
		assert browser.login(provider, app.path).status == 200
		other = app.browser()
		location = other.begin(app.path)
		gw.restart()
		assert browser.get(app.path).status == 200
		assert other.come_back(provider, location).header("Location") == app.path


def test_a_session_of_one_policy_is_none_of_another(gw, backend, provider, app):
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	other = App(gw, backend, provider, host=app.host)
	value, = browser.session.values()
	name = f"sluice_oidc_{other.attachment.policy.id.split('-')[1][:8]}"
	browser.cookies = {name: value}
	assert browser.get(other.path).status == 302


# ---- 8: sign-out, and long tokens ----

EVIL = ["https://evil.example", "//evil.example", "/\\evil.example", "\\/evil.example", "/%09/evil.example", "/%0d%0a/evil.example",
	"https:evil.example", "https:///evil.example", "javascript:alert(1)", "data:text/html,x", "http://app.test.evil.example/",
	"http://evil.example@app.test/", "https://app.test@evil.example/", "%2F%2Fevil.example", "//evil.example/%2e%2e",
	" //evil.example", "http://evil.example:80#@app.test/", "http://evil.example%2f@app.test"]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("target", EVIL)
def test_ex8_sign_out_does_not_lead_to_evil(gw, provider, target, backend, ends):
	if not ends:
		provider.document = {"end_session_endpoint": None}
	app = App(gw, backend, provider)
	answer = app.browser().get(f"/oauth2/sign_out?rd={target if '%' in target else urllib.parse.quote(target)}")
	assert answer.status == 302
	if ends:
		assert answer.header("Location").startswith(f"{provider.url}/end?")
		assert parameters(answer.header("Location"))["post_logout_redirect_uri"] == f"http://{app.host}/"
	else:
		assert answer.header("Location") == "/"


def test_ex8_sign_out_ends_the_session_and_goes_to_the_provider(gw, backend, provider, app):
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	token = backend.last().header("Authorization").split(" ")[1]
	answer = browser.get(f"/oauth2/sign_out?rd={app.path}/bye")
	assert answer.status == 302
	asked = parameters(answer.header("Location"))
	assert answer.header("Location").startswith(f"{provider.url}/end?")
	assert asked["id_token_hint"] == token and asked["post_logout_redirect_uri"] == f"http://{app.host}{app.path}/bye"
	assert browser.cookies == {}
	assert browser.get(app.path).status == 302


def test_ex8_where_sign_out_may_lead(gw, backend, provider):
	provider.document = {"end_session_endpoint": None}
	app = App(gw, backend, provider)
	browser = app.browser()
	for target in ("/", "/a?b=c", f"http://{app.host}/x", f"{provider.url}/other"):
		assert browser.get(f"/oauth2/sign_out?rd={urllib.parse.quote(target, safe='')}").header("Location") == target
	answer = browser.get("/oauth2/sign_out", {**PAGE, "X-Auth-Request-Redirect": "/there"})
	assert answer.header("Location") == "/there"
	for target in (f"https://{app.host}/x", f"http://{app.host}:81/x", "https://evil.example/"):
		assert browser.get(f"/oauth2/sign_out?rd={urllib.parse.quote(target, safe='')}").header("Location") == "/"
	assert browser.get("/oauth2/sign_out?rd=/a&rd=/b").header("Location") == "/"


def test_ex8_a_long_id_token_is_kept_in_several_cookies(gw, backend, provider, app):
	provider.claims = {"groups": "g" * 4400}          # 6 KiB as a token
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	names = sorted(browser.session)
	assert len(names) in (2, 3) and names[0].endswith("_0")
	assert len(backend.last().header("Authorization")) > 6000
	assert backend.last().header("Cookie") is None
	assert browser.get(app.path).status == 200
	# Without one of them, or in another order, it is no session.
	whole = dict(browser.cookies)
	for name in names:
		browser.cookies = {other: value for other, value in whole.items() if other != name}
		assert browser.get(app.path).status == 302
	browser.cookies = {**whole, names[0]: whole[names[1]], names[1]: whole[names[0]]}
	assert browser.get(app.path).status == 302
	browser.cookies = whole
	browser.get("/oauth2/sign_out")
	assert browser.session == {}


def test_a_session_that_grew_or_shrank_leaves_no_cookies_behind(gw, backend, provider, app):
	expire(provider)
	provider.claims = {"groups": "g" * 4400}
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	assert len(browser.session) > 1
	provider.claims = {}
	assert browser.get(app.path).status == 200
	assert len(browser.session) == 1 and "_0" not in list(browser.session)[0][-2:]


def test_the_longest_session_that_fits(gw, backend, provider, app):
	provider.claims, provider.token_answer = {"groups": "g" * 9300}, {"access_token": "a" * 9000, "refresh_token": "r" * 900}
	provider.claims["at_hash"] = b64(hashlib.sha256(b"a" * 9000).digest()[:16])
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200    # the access token had to go
	assert len(browser.session) == 5
	assert len(backend.last().header("Authorization")) > 13000
	done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge", "-H", f"Host: {app.host}",
		"-H", f"Cookie: {browser.cookie_field()}", f"http://127.0.0.1:{gw.port}{app.path}"], capture_output=True, text=True, timeout=60)
	assert done.stdout == "200", done


def noise(n):
	"""Text that nothing makes shorter than three quarters."""
	return b64(os.urandom(n))[:n]


@pytest.mark.parametrize("groups", [[f"/departments/{i}/engineers-of-{i * 7}" for i in range(320)], "g" * 11000], ids=["groups", "one"])
def test_OID7_a_session_of_the_longest_id_token_fits(gw, backend, provider, app, groups):
	"""Compressed, as there is no store of sessions: what upstreams get is the token as it came."""
	provider.claims, provider.token_answer = {"groups": groups}, {"refresh_token": key().sign({"sub": "alice", "groups": groups[:50]})}
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	assert len(browser.session) <= 5
	token = backend.last().header("Authorization").split()[1]
	assert 15000 < len(token) <= 16384
	claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
	assert claims["groups"] == groups
	assert browser.get(app.path).status == 200
	for name in list(browser.session)[:1]:
		browser.cookies[name] = browser.cookies[name][:-1] + ("A" if browser.cookies[name][-1] != "A" else "B")
	assert browser.get(app.path).status == 302


@pytest.mark.parametrize("bytes", [12000, 60000])
def test_a_session_that_does_not_fit_is_refused_and_said_so(gw, backend, provider, app, bytes):
	provider.claims, provider.token_answer = {"groups": noise(9700)}, {"refresh_token": noise(bytes)}
	browser = app.browser()
	result = browser.come_back(provider, browser.begin(app.path))
	assert result.status == 502
	assert "too long to be kept" in result.text
	assert browser.cookies == {}
	policy_id = app.attachment.policy.id
	found = wait_until(lambda: [r for r in gw.events("oidc.session_too_large") if r["policyId"] == policy_id], 5, "a line in the log")
	assert found[0]["bytes"] > 13000
	status = wait_until(lambda: s if (s := gw.ask("GET", app.attachment.path)["status"])["phase"] == "Degraded" else None, 5, "Degraded")
	assert status["reason"] == "sessions do not fit into cookies" and "claims" in status["lastError"]
	provider.claims, provider.token_answer = {}, {}
	assert app.browser().login(provider, app.path).status == 200
	wait_until(lambda: gw.ask("GET", app.attachment.path)["status"]["phase"] == "Active", 5, "Active")


def test_a_refresh_that_makes_it_too_long_fails_closed(gw, backend, provider, app):
	expire(provider)
	browser = app.browser()
	browser.come_back(provider, browser.begin(app.path))
	provider.token_answer = {"refresh_token": noise(30000)}
	assert browser.get(app.path).status == 503
	assert backend.requests() == []
