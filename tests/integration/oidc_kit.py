"""An OpenID provider of our own that can be told to misbehave, and a browser that keeps cookies as browsers do."""
import base64
import hashlib
import http.client
import json
import threading
import time
import urllib.parse

import pytest
from gw import numbers
from side_services import SideService, plain
from tokens import b64, key, key_set

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = [("Content-Type", "application/json")]


def json_answer(value, status=200, fields=()):
	return plain(status, [*JSON, *fields], json.dumps(value).encode())


class Provider(SideService):
	"""`document`, `claims`, `token_answer`: members that replace the usual ones, None leaves one out. `make_token(claims)`: the ID token.
	`on_token`, `on_discovery`: what answers instead, as bytes or functions of SideService. `spent`: codes and refresh tokens that were
	used. Every refresh token is good once unless `rotates` is off."""

	def __init__(self, **options):
		self.document, self.claims, self.token_answer = {}, {}, {}
		self.make_token = lambda claims: key().sign(claims)
		self.on_token = self.on_discovery = self.on_keys = None
		self.keys = [key()]
		self.expires_in = 3600
		self.rotates, self.gives_refresh, self.revoked = True, False, False
		self.codes, self.refreshes, self.spent, self.count = {}, {}, [], 0
		self.guard = threading.Lock()
		super().__init__(self.serve_provider, **options)
		self.issuer = self.url

	def asked_at(self, path):
		return [request for request in self.asked if request.target.split("?")[0] == path]

	@property
	def token_calls(self):
		return [dict(urllib.parse.parse_qsl(request.body.decode())) for request in self.asked_at("/token")]

	def discovery(self):
		document = {"issuer": self.issuer, "authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token",
			"jwks_uri": f"{self.url}/jwks", "end_session_endpoint": f"{self.url}/end", "response_types_supported": ["code"],
			"subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"], **self.document}
		return json_answer({name: value for name, value in document.items() if value is not None})

	def serve_provider(self, request, connection):
		path = request.target.split("?")[0]
		special = {"/.well-known/openid-configuration": self.on_discovery, "/token": self.on_token, "/jwks": self.on_keys}.get(path)
		if special:
			return special(request, connection) if callable(special) else special
		if path == "/.well-known/openid-configuration":
			return self.discovery()
		if path == "/jwks":
			return json_answer(key_set(*self.keys))
		if path == "/authorize":
			return self.authorize(dict(urllib.parse.parse_qsl(request.target.split("?")[1])))
		if path == "/token":
			return self.give_tokens(request)
		return plain(200, [], b"the provider")

	def authorize(self, asked):
		self.last_asked = asked
		code = f"code-{next(numbers)}"
		self.codes[code] = asked
		query = urllib.parse.urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
		return plain(302, [("Location", f"{asked['redirect_uri']}?{query}")])

	def give_tokens(self, request):
		form = dict(urllib.parse.parse_qsl(request.body.decode()))
		with self.guard:
			if form["grant_type"] == "authorization_code":
				asked = self.codes.pop(form["code"], None)
				if not asked or form["redirect_uri"] != asked["redirect_uri"] or challenge(form["code_verifier"]) != asked["code_challenge"]:
					return json_answer({"error": "invalid_grant"}, 400)
			else:
				asked = self.refreshes.get(form["refresh_token"])
				if not asked or self.revoked:
					return json_answer({"error": "invalid_grant"}, 400)
				if self.rotates:
					del self.refreshes[form["refresh_token"]]
			self.count += 1
			return json_answer(self.tokens(asked))

	def tokens(self, asked):
		access = f"access-{self.count}-SECRET"
		claims = {"iss": self.issuer, "sub": "alice", "aud": asked["client_id"], "exp": int(time.time()) + 3600, "iat": int(time.time()),
			"nonce": asked["nonce"], "email": "alice@example.com", "name": "Alice",
			"at_hash": b64(hashlib.sha256(access.encode()).digest()[:16]), **self.claims}
		answer = {"access_token": access, "token_type": "Bearer", "expires_in": self.expires_in,
			"id_token": self.make_token({name: value for name, value in claims.items() if value is not None})}
		if self.gives_refresh:
			answer["refresh_token"] = f"refresh-{self.count}-SECRET-{next(numbers)}"
			self.refreshes[answer["refresh_token"]] = asked
		return {name: value for name, value in {**answer, **self.token_answer}.items() if value is not None}

	def visit(self, url):
		"""What a browser gets from the provider: (status, Location)."""
		parts = urllib.parse.urlsplit(url)
		connection = http.client.HTTPConnection(parts.netloc, timeout=20)
		try:
			connection.request("GET", f"{parts.path}?{parts.query}")
			answer = connection.getresponse()
			answer.read()
			return answer.status, answer.headers["Location"]
		finally:
			connection.close()


def challenge(verifier):
	return b64(hashlib.sha256(verifier.encode()).digest())


class Browser:
	"""Keeps cookies for one host, and sends them. `takes_cookies`: off for one that does not."""

	def __init__(self, gw, host, site=None):
		self.gw, self.host, self.site = gw, host, site
		self.cookies, self.lines, self.takes_cookies = {}, [], True

	def keep(self, answer):
		for line in answer.all("Set-Cookie"):
			self.lines.append(line)
			pair, *attributes = [part.strip() for part in line.split(";")]
			name, _, value = pair.partition("=")
			attributes = {part.split("=")[0].lower(): part.partition("=")[2] for part in attributes}
			assert len(pair) <= 4096 and len(line) <= 4200, len(line)
			if not self.takes_cookies:
				continue
			if name.startswith("__Host-"):
				assert "secure" in attributes and attributes["path"] == "/" and "domain" not in attributes, line
			if attributes["max-age"] == "0":
				self.cookies.pop(name, None)
			else:
				self.cookies[name] = value

	def cookie_field(self):
		return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

	def request(self, method, target, fields=PAGE, body=None):
		sent = dict(fields)
		if self.cookies:
			sent["Cookie"] = self.cookie_field() + (f"; {sent['Cookie']}" if "Cookie" in sent else "")
		answer = self.gw.request(method, target, sent, body, host=self.host, **({"site": self.site} if self.site else {}))
		self.keep(answer)
		return answer

	def get(self, target, fields=PAGE):
		return self.request("GET", target, fields)

	def begin(self, target):
		"""A page that leads to the provider: where it leads to."""
		answer = self.get(target)
		assert answer.status == 302, answer
		return answer.header("Location")

	def come_back(self, provider, location):
		"""Logs in at the provider and takes the callback: its answer."""
		status, location = provider.visit(location)
		assert status == 302
		self.callback = own(location, self.host)
		return self.get(self.callback)

	def login(self, provider, target):
		"""The whole flow: the page it ends at."""
		answer = self.come_back(provider, self.begin(target))
		assert answer.status == 302, answer
		return self.get(answer.header("Location"))

	@property
	def session(self):
		"""Name and value of the session's cookies."""
		return {name: value for name, value in self.cookies.items() if "sluice_oidc_st_" not in name}

	@property
	def outstanding(self):
		return {name: value for name, value in self.cookies.items() if "sluice_oidc_st_" in name}


def own(location, host):
	"""Path and query of a URL of the application."""
	parts = urllib.parse.urlsplit(location)
	assert parts.hostname in (None, host.split(":")[0]), location
	return f"{parts.path}?{parts.query}" if parts.query else parts.path


def parameters(location):
	return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))


def config(provider, host, scheme="http", **more):
	return {"issuer": provider if isinstance(provider, str) else provider.issuer, "clientId": "app", "clientSecret": "client-SECRET",
		"redirectUri": f"{scheme}://{host}/callback", "scopes": ["openid", "email"], "enable": True, **more}


class App:
	"""A route behind OIDCAuth on a host of its own. `path`: of the route."""

	def __init__(self, gw, backend, provider, to=None, scheme="http", **more):
		self.gw, self.provider = gw, provider
		self.host = more.pop("host", None) or f"app{next(numbers)}.test"
		self.path = f"/app-{next(numbers)}"
		self.route = gw.route(self.path, backend)
		self.config = config(provider, self.host, scheme, **more)
		self.attachment = gw.attach("OIDCAuth", self.config, to=to or self.route)

	def browser(self):
		return Browser(self.gw, self.host)


def decode_part(token, i):
	text = token.split(".")[i]
	return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def expire(provider):
	"""Sessions from now on are about to end at once."""
	provider.gives_refresh, provider.expires_in = True, 30


@pytest.fixture
def provider():
	with Provider() as made:
		yield made


@pytest.fixture
def app(gw, backend, provider):
	return App(gw, backend, provider)
