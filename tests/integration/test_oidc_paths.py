"""OIDCAuth: its callback and sign-out beside routes, levels and other policies; what upstreams hear; where a login leads back to."""
import pytest
from gw import Gateway, numbers
from h2wire import H2
from oidc_kit import PAGE, App, Browser, Provider, app, config, own, parameters, provider
from policy_kit import cors, headers, ip_list, op, rate, rest_api
from side_services import SideService, plain
from scripted import UPGRADE, Scripted, echo_frames


# ---- the callback anywhere, hosts, levels ----

def test_the_callback_may_be_anywhere(gw, backend, provider):
	host = f"app{next(numbers)}.test"
	app = App(gw, backend, provider, host=host, redirectUri=f"http://{host}/a/b/login-back")
	gw.route("/a", backend)                           # a route of its own does not get it
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	assert browser.callback.startswith("/a/b/login-back?")
	assert [record.target for record in backend.requests()] == [app.path]
	assert gw.get("/a/b/login-back", host="other.test").status == 200    # of another host it is a path like others
	assert gw.get("/callback", host=host).status == 404


def test_callback_and_sign_out_never_reach_an_upstream(gw, backend, provider):
	host = f"app{next(numbers)}.test"
	domain = gw.domain(host)
	gw.route("/callback", backend, domains=[domain])
	gw.route("/oauth2", backend, domains=[domain])
	App(gw, backend, provider, host=host)
	for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
		for path in ("/callback", "/%63allback", "/x/../callback", "/oauth2/sign_out"):
			assert gw.request(method, path, PAGE, host=host).status in (302, 400, 405)
	assert backend.requests() == []


@pytest.mark.parametrize("level", ["gateway", "domain", "route", "operation", "api"])
def test_every_level_has_its_callback(gw, backend, provider, level):
	site = gw.gateway()
	host = f"app{next(numbers)}.test"
	domain = gw.domain(host, site)
	route = gw.route("/app", backend, site=site)
	to = {"gateway": site, "domain": domain, "route": route}.get(level)
	if not to:
		api = rest_api(gw, backend, site, "/app")
		operation = api.operation("GET", "/x")
		to = api if level == "api" else operation
	path = "/app" if level in ("gateway", "domain", "route") else "/app/x"
	attachment = gw.attach("OIDCAuth", config(provider, host), to=to)
	browser = Browser(gw, host, site)
	assert browser.login(provider, path).status == 200
	gw.delete(attachment)
	assert Browser(gw, host, site).get("/callback").status == 404
	assert Browser(gw, host, site).get(path).status == 200


def test_a_disabled_policy_has_no_callback(gw, backend, provider, app):
	gw.change_policy(app.attachment, {**app.config, "enable": False})
	assert app.browser().get("/callback").status == 404
	assert app.browser().get(app.path).status == 200
	gw.change_policy(app.attachment, app.config)
	assert app.browser().get("/callback").status == 302


def test_ip_lists_are_judged_before_the_callback(gw, backend, provider):
	site = gw.gateway()
	host = f"app{next(numbers)}.test"
	gw.attach("OIDCAuth", config(provider, host), to=gw.route("/app", backend, site=site))
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.0/8", "Gateway"), to=site)
	assert Browser(gw, host, site).get("/callback").status == 403


def test_limits_do_not_count_the_callback_and_cors_shapes_it(gw, backend, provider):
	site = gw.gateway()
	host = f"app{next(numbers)}.test"
	gw.attach("OIDCAuth", config(provider, host), to=gw.route("/app", backend, site=site))
	gw.attach("RateLimit", rate(1), to=site)
	gw.attach("Cors", cors(), to=site)
	for _ in range(5):
		answer = Browser(gw, host, site).get("/callback", {**PAGE, "Origin": "https://example.com"})
		assert answer.status == 302
		assert answer.header("Access-Control-Allow-Origin") == "https://example.com"


def test_two_applications_on_one_host(gw, backend, provider):
	with Provider() as second:
		host = f"app{next(numbers)}.test"
		one = App(gw, backend, provider, host=host)
		two = App(gw, backend, second, host=host)         # the same callback
		browser = one.browser()
		assert browser.login(provider, one.path).status == 200
		assert browser.login(second, two.path).status == 200
		assert len(browser.session) == 2
		assert browser.get(one.path).status == 200
		browser.get("/oauth2/sign_out")
		assert browser.cookies == {}


# ---- https ----

def test_cookies_of_https_are_bound_to_the_host(gw, backend, provider):
	app = App(gw, backend, provider, scheme="https")
	browser = app.browser()
	assert browser.login(provider, app.path).status == 200
	name, = browser.session
	assert name.startswith("__Host-sluice_oidc_")
	assert all("; Secure" in line for line in browser.lines)
	assert backend.last().header("Cookie") is None


# ---- what upstreams hear ----

def test_what_clients_say_of_themselves_is_gone(gw, backend, provider, app):
	provider.claims = {"email": None}
	browser = app.browser()
	browser.login(provider, app.path)
	fields = [("Accept", "text/html"), ("Authorization", "Bearer mine"), ("X-Forwarded-User", "root"), ("x-forwarded-email", "root@x"),
		("X-Forwarded-Email", "root2@x"), ("Cookie", f"a=1; {browser.cookie_field()}; b=2"), ("Cookie", "sluice_oidc_other=1"),
		("Cookie", "__host-SLUICE_oidc_x=1; c=3")]
	assert gw.request("GET", app.path, fields, host=app.host).status == 200
	record = backend.last()
	assert record.header("X-Forwarded-User") == "alice"
	assert record.all("X-Forwarded-Email") == []
	assert "mine" not in record.header("Authorization")
	assert "; ".join(record.all("Cookie")) == "a=1; b=2; c=3"


@pytest.mark.parametrize("claims, email", [({"email_verified": False}, None), ({"email_verified": "false"}, None),
	({"email_verified": True}, "alice@example.com"), ({"email": "a\r\nb"}, None), ({"email": 7}, None)])
def test_which_email_is_told(gw, backend, provider, app, claims, email):
	provider.claims = claims
	assert app.browser().login(provider, app.path).status == 200
	assert backend.last().header("X-Forwarded-Email") == email


def test_the_session_is_known_to_records_and_properties(gw, backend, provider, app):
	gw.attach("HeaderModify", headers(op("Request", "Add", "X-Who", "jwt.claim.name", "Reference")), to=app.route)
	assert app.browser().login(provider, app.path).status == 200
	assert backend.last().header("X-Who") == "Alice"


def test_a_websocket_needs_a_session(gw, provider):
	with Scripted(echo_frames) as upstream:
		app = App(gw, upstream.port, provider)
		assert app.browser().request("GET", app.path, UPGRADE).status == 401
		browser = app.browser()
		browser.come_back(provider, browser.begin(app.path))
		with gw.connect() as connection:
			connection.start("GET", app.path, {**dict(UPGRADE), "Cookie": browser.cookie_field()}, host=app.host)
			assert connection.read_head().status == 101


def test_over_http2(gw, backend, provider, app):
	browser = app.browser()
	browser.login(provider, app.path)
	with H2(gw.port) as h2:
		crumbs = [("cookie", f"{name}={value}") for name, value in [("a", "1"), *browser.cookies.items()]]
		answer = h2.get(app.path, authority=app.host, more=[("accept", "text/html"), *crumbs])
		assert answer.status == 200
		assert backend.last().header("Cookie") == "a=1"


# ---- X-Forwarded-*, targets ----

def test_nobody_says_where_we_are(gw, provider, app):
	answer = app.browser().get(app.path, {**PAGE, "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"})
	assert "evil" not in answer.header("Location")
	assert parameters(answer.header("Location"))["redirect_uri"] == f"http://{app.host}/callback"


@pytest.mark.parametrize("path, query, target", [
	("//evil.example", "", None), ("/a//b/../c", "", "/a/c"), ("/x", "?next=//evil.example", "/x?next=//evil.example"),
	("/x", "?" + "q" * 3000, "/x"), ("/" + "p" * 3000, "", "/"), ("/x?", "", "/x?"),
], ids=["slashes", "dots", "query", "long query", "long path", "empty query"])
def test_where_a_login_leads_back_to(gw, backend, provider, path, query, target):
	site = gw.gateway()
	host = f"app{next(numbers)}.test"
	gw.attach("OIDCAuth", config(provider, host), to=site)
	browser = Browser(gw, host, site)
	answer = browser.come_back(provider, browser.begin(path + query))
	assert answer.status == 302
	back = answer.header("Location")
	assert back.startswith("/") and not back.startswith("//")
	if target:
		assert back == target


# ---- cookies that let in are for us ----

def test_OID9_no_route_of_the_host_gets_our_cookies(gw, backend, app, provider):
	"""A browser sends them to every path and port of the host."""
	browser, path = app.browser(), f"/other-{next(numbers)}"
	gw.route(path, backend)
	elsewhere = gw.gateway()
	gw.route(path, backend, site=elsewhere)
	waiting = app.browser()
	waiting.begin(app.path)
	assert browser.login(provider, app.path).status == 200 and browser.session and waiting.outstanding
	for cookies in (browser.cookie_field(), waiting.cookie_field()):
		for site in (None, elsewhere):
			for sent, left in ((cookies, None), (f"mine=1; {cookies}; theirs=2", "mine=1; theirs=2")):
				assert gw.get(path, {"Cookie": sent}, host=app.host, site=site).status == 200
				assert backend.last().header("Cookie") == left
	with H2(gw.default.port) as connection:
		fields = [("cookie", "mine=1"), *(("cookie", crumb) for crumb in browser.cookie_field().split("; ")), ("cookie", "theirs=2")]
		assert connection.get(path, more=fields, authority=app.host).status == 200
	assert backend.last().header("Cookie") == "mine=1; theirs=2"
	# Switched off and on again, the sessions of before are good: so they are kept apart meanwhile too.
	gw.change_policy(app.attachment.policy, {**app.config, "enable": False})
	assert gw.get(path, {"Cookie": browser.cookie_field()}, host=app.host).status == 200
	assert backend.last().header("Cookie") is None
	gw.change_policy(app.attachment.policy, app.config)
	assert browser.get(app.path).status == 200
	gw.ask("DELETE", app.attachment.path)
	assert gw.get(path, {"Cookie": browser.cookie_field()}, host=app.host).status == 200
	assert backend.last().header("Cookie") is None


def test_OID9_nor_does_a_service_that_is_asked(gw, backend, app, provider):
	browser, path = app.browser(), f"/asked-{next(numbers)}"
	with SideService(plain(200)) as service:
		gw.attach("ExternalZAuth", {"authServiceUrl": service.url, "timeout": 5000}, to=gw.route(path, backend))
		assert browser.login(provider, app.path).status == 200
		assert gw.get(path, {"Cookie": f"mine=1; {browser.cookie_field()}"}, host=app.host).status == 200
		assert service.asked[-1].header("Cookie") == "mine=1"
