"""OIDCAuth: providers that are down, misbehave or want something special; what logs and dry runs say."""
import base64
import json
import pathlib
import time
import urllib.parse

import pytest
from backends import Backend
from gw import Gateway, free_port
from oidc_kit import PAGE, App, app, expire, json_answer, own, parameters, provider
from policy_kit import headers, phase
from side_services import plain
from tokens import key
from wire import wait_until


# ---- providers that misbehave ----

def wait_phase(gw, attachment, wanted, seconds=20):
	wait_until(lambda: phase(gw, attachment) == wanted, seconds, f"phase {wanted}")


def test_a_provider_that_is_down_from_the_start(gw, backend):
	app = App(gw, backend, f"http://127.0.0.1:{free_port()}")
	answer = app.browser().get(app.path)
	assert answer.status == 503
	assert answer.header("Retry-After") == "5"
	assert app.browser().request("POST", app.path, PAGE, b"x").status == 401
	wait_phase(gw, app.attachment, "Degraded")
	assert backend.requests() == []


def test_a_provider_that_comes_back(gw, backend, provider):
	provider.on_discovery = plain(500)
	app = App(gw, backend, provider)
	assert app.browser().get(app.path).status == 503
	provider.on_discovery = None
	wait_until(lambda: app.browser().get(app.path).status == 302, 20, "discovery")
	wait_phase(gw, app.attachment, "Active")


def test_sessions_go_on_while_the_provider_is_down(gw, backend, provider, app):
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	provider.__exit__(None, None, None)
	assert browser.get(app.path).status == 200


DOCUMENTS = {
	"another issuer": {"issuer": "https://evil.example"}, "no issuer": {"issuer": None}, "no token endpoint": {"token_endpoint": None},
	"no authorization endpoint": {"authorization_endpoint": None}, "no keys": {"jwks_uri": None},
	"a script": {"authorization_endpoint": "javascript:alert(1)"}, "user in a URL": {"token_endpoint": "http://a:b@127.0.0.1/"},
	"metadata service": {"token_endpoint": "http://169.254.169.254/token"}, "types": {"token_endpoint": ["x"]},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_discovery_documents_that_cannot_be_used(gw, backend, provider, name):
	provider.document = DOCUMENTS[name]
	app = App(gw, backend, provider)
	assert app.browser().get(app.path).status == 503
	wait_phase(gw, app.attachment, "Degraded")
	assert gw.ask("GET", app.attachment.path)["status"]["lastError"]


ANSWERS = {
	"no JSON": plain(200, [], b"hello"), "a list": plain(200, [], b"[]"), "duplicates": plain(200, [], b'{"issuer":"a","issuer":"b"}'),
	"nothing": plain(200), "404": plain(404), "rubbish": b"\x00\x01\x02\r\n\r\n", "1 GB": b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n" + b" " * 70000,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_to_discovery_that_are_none(gw, backend, provider, name):
	provider.on_discovery = ANSWERS[name]
	app = App(gw, backend, provider)
	assert app.browser().get(app.path).status == 503


def test_discovery_that_redirects_for_ever(gw, backend, provider):
	provider.on_discovery = lambda request, connection: plain(302, [("Location", f"{provider.url}/.well-known/openid-configuration")])
	app = App(gw, backend, provider)
	assert app.browser().get(app.path).status == 503
	assert len(provider.asked_at("/.well-known/openid-configuration")) <= 8


def drip(request, connection):
	connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
	try:
		while True:
			connection.send(b" ")
			time.sleep(0.1)
	except OSError:
		return None


def test_discovery_that_drips(gw, backend, provider):
	provider.on_discovery = drip
	app = App(gw, backend, provider)
	begin = time.monotonic()
	assert app.browser().get(app.path).status == 503
	assert time.monotonic() - begin < 15


def test_a_slash_at_the_end_of_the_issuer_means_nothing(gw, backend, provider):
	app = App(gw, backend, provider.url + "/")
	assert app.browser().login(provider, app.path).status == 200


TOKEN_ANSWERS = {
	"500": (plain(500), 502), "503": (plain(503), 502), "invalid_grant": (json_answer({"error": "invalid_grant"}, 400), 401),
	"invalid_client": (json_answer({"error": "invalid_client"}, 401), 502), "no JSON": (plain(200, [], b"x"), 502),
	"no ID token": (json_answer({"access_token": "x", "token_type": "Bearer"}), 502),
	"a mac token": (json_answer({"access_token": "x", "token_type": "mac", "id_token": "x"}), 502),
	"types": (json_answer({"access_token": 1, "id_token": {}}), 502), "redirect": (plain(302, [("Location", "/token2")]), 502),
	"1 GB": (b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n" + b" " * 70000, 502), "rubbish": (b"\x00\x01\r\n\r\n", 502),
	"closes": (lambda request, connection: None, 502), "drips": (drip, 502),
}


@pytest.mark.parametrize("name", TOKEN_ANSWERS)
def test_answers_of_the_token_endpoint_that_are_none(gw, backend, provider, app, name):
	browser = app.browser()
	location = browser.begin(app.path)
	provider.on_token, status = TOKEN_ANSWERS[name]
	begin = time.monotonic()
	answer = browser.come_back(provider, location)
	assert time.monotonic() - begin < 15
	assert answer.status == status
	assert browser.session == {}
	assert provider.asked_at("/token2") == []
	provider.on_token = None
	assert browser.login(provider, app.path).status == 200
	wait_phase(gw, app.attachment, "Active")


def test_keys_that_cannot_be_fetched(gw, backend, provider):
	provider.on_keys = plain(500)
	app = App(gw, backend, provider)
	browser = app.browser()
	assert browser.come_back(provider, browser.begin(app.path)).status == 502
	assert browser.session == {}


def test_keys_that_were_rotated(gw, backend, provider, app):
	assert app.browser().login(provider, app.path).status == 200
	fresh = key("RSA", "k2")
	provider.keys, provider.make_token = [fresh], fresh.sign
	assert app.browser().login(provider, app.path).status == 200


def test_an_answer_of_another_issuer(gw, provider, app):
	browser = app.browser()
	_, location = provider.visit(browser.begin(app.path))
	location = own(location, app.host).split("&iss=")[0]
	assert browser.get(location + "&iss=https%3A%2F%2Fevil.example").status == 401
	assert provider.asked_at("/token") == []
	browser = app.browser()
	_, location = provider.visit(browser.begin(app.path))
	assert browser.get(own(location, app.host).split("&iss=")[0]).status == 302    # not every provider says it


def test_a_login_that_the_provider_refuses(gw, provider, app):
	browser = app.browser()
	state = parameters(browser.begin(app.path))["state"]
	answer = browser.get(f"/callback?error=access_denied&state={state}&error_description=%3Cscript%3Ealert(1)%3C/script%3E")
	assert answer.status == 401
	assert "access_denied" in answer.text and "script" not in answer.text
	assert browser.outstanding == {}
	assert app.browser().get("/callback?error=%3Cb%3E").status == 401
	assert provider.asked_at("/token") == []


def test_the_secret_is_posted_where_that_is_all_a_provider_takes(gw, backend, provider):
	provider.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
	app = App(gw, backend, provider, clientSecret="a secret & more", clientId="a b")
	assert app.browser().login(provider, app.path).status == 200
	call, = provider.asked_at("/token")
	assert call.header("Authorization") is None
	form = dict(urllib.parse.parse_qsl(call.body.decode()))
	assert (form["client_id"], form["client_secret"]) == ("a b", "a secret & more")


def test_credentials_are_encoded_before_they_are_put_together(gw, backend, provider):
	app = App(gw, backend, provider, clientSecret="s:/%", clientId="a:b")
	assert app.browser().login(provider, app.path).status == 200
	call, = provider.asked_at("/token")
	assert base64.b64decode(call.header("Authorization").split(" ")[1]) == b"a%3Ab:s%3A%2F%25"


def test_openid_is_asked_for_in_any_case(gw, backend, provider):
	app = App(gw, backend, provider, scopes=["profile", "offline_access"])
	assert parameters(app.browser().begin(app.path))["scope"] == "openid profile offline_access"


def test_an_authorization_endpoint_with_a_query_keeps_it(gw, backend, provider):
	provider.document = {"authorization_endpoint": f"{provider.url}/authorize?tenant=7"}
	app = App(gw, backend, provider)
	browser = app.browser()
	location = browser.begin(app.path)
	assert location.startswith(f"{provider.url}/authorize?tenant=7&response_type=code&")
	assert browser.come_back(provider, location).status == 302


# ---- discovery is shared ----

def test_one_discovery_for_all_attachments_of_an_issuer(gw, backend, provider):
	apps = [App(gw, backend, provider) for _ in range(5)]
	for app in apps:
		assert app.browser().get(app.path).status == 302
	assert len(provider.asked_at("/.well-known/openid-configuration")) == 1


# ---- nothing of it in logs ----

def test_nothing_secret_is_logged(provider):
	with Gateway() as gw, Backend() as backend:
		app = App(gw, backend, provider)
		expire(provider)
		browser = app.browser()
		answer = browser.login(provider, app.path)
		assert answer.status == 200
		provider.revoked = True
		browser.get(app.path)
		for target in ("/callback?code=code-SECRET&state=state-SECRET", f"{app.path}?token=query-SECRET"):
			browser.get(target)
		provider.on_token = json_answer({"error": "error-SECRET", "error_description": "text-SECRET"}, 400)
		browser.cookies = {}
		browser.come_back(provider, browser.begin(app.path))
		status, metrics, _ = gw.api("GET", "/api/v1/policy-attachments")
		wait_until(lambda: gw.records(path="/callback"), 5, "records")
		gw.restart()
		text = gw.stderr() + open(gw.log_path.rsplit(".", 1)[0] + ".1").read() + json.dumps(metrics)
		for secret in ["SECRET", *(line.split("=", 1)[1].split(";")[0] for line in browser.lines if "Max-Age=0" not in line)]:
			assert secret not in text

		for path in pathlib.Path(gw.data).iterdir():
			if path.is_file():
				assert b"SECRET" not in path.read_bytes(), path


# ---- dry runs ----

def trace(gw, url, fields):
	lines = [{"name": name, "value": value} for name, value in fields.items()]
	answer = gw.ask("POST", "/api/v1/trace", {"method": "GET", "url": url, "headers": lines, "listener": str(gw.port)})
	return [item for item in answer["policies"] if item["className"] == "OIDCAuth"][0]


def test_dry_runs_say_what_a_request_would_get(gw, provider, app):
	browser = app.browser()
	browser.login(provider, app.path)
	url = f"http://{app.host}:{gw.port}{app.path}"
	calls = len(provider.asked)
	assert trace(gw, url, {**PAGE, "Cookie": browser.cookie_field()})["verdict"] == "Passes"
	found = trace(gw, url, PAGE)
	assert found["verdict"] == "Answers" and provider.issuer in found["note"]
	assert trace(gw, url, {"Accept": "application/json"})["verdict"] == "Answers"
	found = trace(gw, f"http://{app.host}:{gw.port}/callback?code=x&state=y", PAGE)
	assert found["verdict"] == "Answers" and "path to itself" in found["note"]
	assert len(provider.asked) == calls
