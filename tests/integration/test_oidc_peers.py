"""OIDCAuth with a provider of another maker (npm oidc-provider), by a client that keeps cookies and by Chromium."""
import http.client
import json
import os
import signal
import subprocess
import urllib.parse

import node
import pytest
from gw import numbers
from oidc_kit import Browser, config, decode_part, own
from pki import Authority
from policy_kit import outcomes
from side_services import SideService, plain
from test_chromium import BROWSER
from wire import wait_until

SECRET = "client-SECRET-of-thirty-two-bytes"


def walk(location, host, jar):
	"""Follows the provider until it leads back to the application: that URL. `jar`: the cookies it has there."""
	for _ in range(10):
		parts = urllib.parse.urlsplit(location)
		if parts.netloc == host:
			return location
		connection = http.client.HTTPConnection(parts.netloc, timeout=20)
		fields = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())} if jar else {}
		connection.request("GET", f"{parts.path}?{parts.query}", headers=fields)
		answer = connection.getresponse()
		body = answer.read()
		for line in answer.headers.get_all("Set-Cookie") or []:
			name, _, value = line.split(";")[0].partition("=")
			jar[name] = value
		connection.close()
		assert answer.status in (302, 303), (location, answer.status, body[:2000])
		location = urllib.parse.urljoin(location, answer.headers["Location"])
	raise AssertionError("the provider leads nowhere")


def log_in(browser, target, jar):
	location = walk(browser.begin(target), browser.host, jar)
	answer = browser.get(own(location, browser.host))
	assert answer.status == 302, answer
	return browser.get(answer.header("Location"))


def guard(gw, backend, server, host, **more):
	route = gw.route(f"/app-{next(numbers)}", backend)
	issuer = f"http://127.0.0.1:{server.port}"
	scopes = ["openid", "email", "profile", "offline_access"]
	return route, gw.attach("OIDCAuth", config(issuer, host, clientSecret=SECRET, scopes=scopes, **more), to=route)


def test_login_refresh_and_sign_out(gw, backend):
	host = f"app{next(numbers)}.test"
	with node.Server("oidc_provider.js", f"http://{host}/callback", 50) as server:
		route, attachment = guard(gw, backend, server, host)
		path = route.body["match"]["path"]["value"]
		browser, jar = Browser(gw, host), {}
		assert log_in(browser, f"{path}?x=1", jar).status == 200
		record = backend.last()
		claims = decode_part(record.header("Authorization").split(" ")[1], 1)
		assert (claims["sub"], claims["email"], claims["aud"]) == ("alice", "alice@example.com", "app")
		assert record.header("X-Forwarded-User") == "alice" and record.header("X-Forwarded-Email") == "alice@example.com"
		assert record.target == f"{path}?x=1" and record.header("Cookie") is None
		# Its tokens live for 50 s, so that request came with a refresh already, by a refresh token that is good once.
		assert outcomes(gw, attachment)[route.name, "refreshed"] == 1
		first = record.header("Authorization")
		assert browser.get(path).status == 200
		assert backend.last().header("Authorization") == first
		# A second login at once: the provider knows the person by its own session.
		other = Browser(gw, host)
		assert log_in(other, path, jar).status == 200
		answer = browser.get("/oauth2/sign_out")
		assert answer.status == 302 and browser.session == {}
		parts = urllib.parse.urlsplit(answer.header("Location"))
		assert parts.netloc == f"127.0.0.1:{server.port}" and "id_token_hint" in parts.query
		connection = http.client.HTTPConnection(parts.netloc, timeout=20)
		connection.request("GET", f"{parts.path}?{parts.query}")
		assert connection.getresponse().status == 200    # it asks whether to end its own session
		connection.close()


def test_a_wrong_secret_is_refused_by_the_provider(gw, backend):
	host = f"app{next(numbers)}.test"
	with node.Server("oidc_provider.js", f"http://{host}/callback") as server:
		route, _ = guard(gw, backend, server, host)
		path = route.body["match"]["path"]["value"]
		gw.attach("OIDCAuth", config(f"http://127.0.0.1:{server.port}", host, clientSecret="wrong"), to=gw.route("/wrong", backend))
		browser = Browser(gw, host)
		location = walk(browser.begin("/wrong"), host, {})
		assert browser.get(own(location, host)).status == 502
		assert browser.session == {}
		assert log_in(Browser(gw, host), path, {}).status == 200


def asked_for(service, target):
	return [request for request in service.asked if request.target.split("?")[0] == target]


PAGE = b"""<!doctype html><title>app</title><script>
(async () => {
	const plain = await fetch("/app/data", { headers: { Accept: "application/json" } });
	const seen = { data: plain.status, cookies: document.cookie, at: location.pathname + location.search };
	if (location.search === "?first") {
		await fetch("/app/report", { method: "POST", body: JSON.stringify(seen) });
		location.href = "/oauth2/sign_out";
	}
})();
</script>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium here (220 MB): SLUICE_TEST_CHROMIUM=1 tools/install_deps test installs it")
def test_a_browser_logs_in_over_https(gw, tmp_path):
	pair = Authority().issue("localhost")
	certificate = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": f"cert-{next(numbers)}",
		"namespace": "default", "certificate": pair.cert, "privateKey": pair.key})
	site = gw.gateway(protocol="HTTPS", certList=[{"secretName": certificate.name}])
	callback = f"https://localhost:{site.port}/callback"
	log = tmp_path / "browser.log"
	with node.Server("oidc_provider.js", callback) as server, SideService(plain(200, [("Content-Type", "text/html")], PAGE)) as upstream:
		issuer = f"http://127.0.0.1:{server.port}"
		route = gw.route("/app", upstream.port, site=site)
		gw.attach("OIDCAuth", config(issuer, "-", clientSecret=SECRET, scopes=["openid", "email"], redirectUri=callback), to=route)
		with log.open("wb") as output:
			browser = subprocess.Popen([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
				"--ignore-certificate-errors", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}",
				f"https://localhost:{site.port}/app/page?first"], stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)
			try:
				wait_until(lambda: asked_for(upstream, "/app/report"), 90, f"a report; the browser said {log.read_text()[-2000:]}")
				wait_until(lambda: gw.records(path="/oauth2/sign_out"), 30, "the sign-out")
			finally:
				# The program on the path starts the browser proper.
				os.killpg(browser.pid, signal.SIGKILL)
				browser.wait()
	report = json.loads(asked_for(upstream, "/app/report")[0].body)
	assert report == {"data": 200, "cookies": "", "at": "/app/page?first"}
	for request in upstream.asked:
		assert request.header("Cookie") is None
		assert decode_part(request.header("Authorization").split(" ")[1], 1)["sub"] == "alice"
	assert gw.records(path="/oauth2/sign_out")[0]["status"] == 302
