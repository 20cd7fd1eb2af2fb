"""Who somebody is, told by the client itself: in any case, with underscores, twice, behind the body. Upstreams that make variables of fields, as
CGI does, read X_Forwarded_User as X-Forwarded-User: the gateway here lets names with underscores pass, which is the worst case."""
import threading

import pytest
from consumer_kit import Signer, allow, bearer, consumer, key, keys
from gw import Gateway, numbers
from oidc_kit import App, Provider
from policy_kit import headers, op
from scripted import Scripted
from side_services import SideService, plain
from test_trailers import chunked, trailers_at

CONSUMER = ["X-Mse-Consumer", "x-mse-consumer", "X_Mse_Consumer", "x_mse-consumer", "X-MSE_CONSUMER"]
SERVICE = ["X-Forwarded-User", "X_Forwarded_User", "x-forwarded_groups", "REMOTE_USER", "Remote-Email", "X_User_Id", "x-user_roles", "X_Auth_Request_User",
	"x_auth-request_email"]
RESERVED = ["X-Sluice-User", "X_Sluice_User", "x_sluice_ext_auth", "X-Higress_Fallback-From", "X_Envoy_Auth_Failure_Mode_Allowed"]


@pytest.fixture(scope="module")
def gw():
	with Gateway(keep_underscores=True) as gateway:
		yield gateway


def said_by_client(record):
	"""Names under which the upstream got what the client said."""
	return [name for name, value in record.headers if value == "root"]


def ask(gw, path, names, fields=(), **more):
	return gw.get(path, [*fields, *((name, "root") for name in names)], **more)


def test_ID1_reserved_fields_in_any_spelling(gw, backend):
	path = f"/any-{next(numbers)}"
	gw.route(path, backend)
	assert ask(gw, path, CONSUMER + RESERVED).status == 200
	assert said_by_client(backend.last()) == []
	assert ask(gw, path, ["X_Other"]).status == 200
	assert said_by_client(backend.last()) == ["X_Other"]


def test_ID2_the_consumer_is_the_one_that_was_proven(gw, backend):
	path, text = f"/consumer-{next(numbers)}", key()
	route = gw.route(path, backend)
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=route)
	who = consumer(gw, apiKey=keys(text))
	allow(gw, who, route)
	assert ask(gw, path, CONSUMER, bearer(text).items()).status == 200
	assert said_by_client(backend.last()) == []
	assert backend.last().all("X-Mse-Consumer") == [who.name]


def test_AUT6_headers_of_claims(gw, backend):
	path, signer = f"/claims-{next(numbers)}", Signer()
	route = gw.route(path, backend)
	gw.attach("Authentication", {"authenticationType": "jwt-auth"}, to=route)
	uid = f"u-{next(numbers)}"
	who = consumer(gw, jwt={"secretType": "Symmetry", "jwks": signer.jwks, "jwtPayloadConfig": {"payloadKeyValue": uid},
		"claimsToHeadersConfigs": [{"claim": "role", "header": "X-Claimed-Role"}]})
	allow(gw, who, route)
	for claims in ({"uid": uid, "role": "reader"}, {"uid": uid}):
		assert ask(gw, path, ["X-Claimed-Role", "x_claimed_role", "X_CLAIMED-Role"], bearer(signer.sign(claims)).items()).status == 200
		assert said_by_client(backend.last()) == []
		assert backend.last().all("X-Claimed-Role") == ([claims["role"]] if "role" in claims else [])


def test_EXT6_what_the_service_did_not_say(gw, backend):
	path = f"/service-{next(numbers)}"
	with SideService(lambda request, connection: plain(200, [("X-User-Id", "7")])) as service:
		gw.attach("ExternalZAuth", {"authServiceUrl": service.url, "timeout": 5000}, to=gw.route(path, backend))
		assert ask(gw, path, CONSUMER + SERVICE + RESERVED).status == 200
		assert "root" not in [value for _, value in service.asked[-1].headers]
	assert said_by_client(backend.last()) == []
	assert backend.last().all("X-User-Id") == ["7"]


def test_OID9_what_the_provider_did_not_say(gw, backend):
	with Provider() as provider:
		provider.claims = {"email": None}
		app = App(gw, backend, provider)
		browser = app.browser()
		assert browser.login(provider, app.path).status == 200
		names = ["X_Forwarded_User", "X-FORWARDED_USER", "X_Forwarded_Email", "x-forwarded_email"]
		assert ask(gw, app.path, names, [("Accept", "text/html"), ("Cookie", browser.cookie_field())], host=app.host).status == 200
		assert said_by_client(backend.last()) == []
		assert backend.last().all("X-Forwarded-User") == ["alice"]


@pytest.mark.parametrize("name", [*SERVICE, *RESERVED[:2]])
def test_ID1_behind_the_body(gw, backend, name):
	"""An upstream that merges trailers into the head would believe them."""
	path = f"/behind-{next(numbers)}"
	gw.route(path, backend)
	with gw.connect() as connection:
		connection.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunked([(name, "root"), ("X-Sum", "1")]))
		assert connection.read_response("POST").status == 200
	assert trailers_at(backend) == [("X-Sum", "1")]


def behind(gw, path, trailers, fields=()):
	"""Status of a request with these trailers."""
	lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
	with gw.connect() as connection:
		connection.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{lines}\r\n".encode())
		connection.send(chunked(trailers))
		return connection.read_response("POST").status


@pytest.mark.parametrize("name", ["X-Claimed-Role", "x_claimed_role", "X_CLAIMED-Role"])
def test_AUT6_claims_behind_the_body(gw, backend, name):
	"""Whatever claims are written to, by the policies of the route."""
	path, signer = f"/claims-{next(numbers)}", Signer()
	route = gw.route(path, backend)
	gw.attach("Authentication", {"authenticationType": "jwt-auth"}, to=route)
	uid = f"u-{next(numbers)}"
	who = consumer(gw, jwt={"secretType": "Symmetry", "jwks": signer.jwks, "jwtPayloadConfig": {"payloadKeyValue": uid},
		"claimsToHeadersConfigs": [{"claim": "role", "header": "X-Claimed-Role"}]})
	allow(gw, who, route)
	for claims in ({"uid": uid, "role": "reader"}, {"uid": uid}):
		assert behind(gw, path, [(name, "root"), ("X-Sum", "1")], bearer(signer.sign(claims)).items()) == 200
		assert trailers_at(backend) == [("X-Sum", "1")]


def test_what_the_route_writes_is_not_said_behind_the_body(gw, backend):
	path = f"/edits-{next(numbers)}"
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Tenant", "consumer.name", "Reference"), op("Request", "Remove", "X-Admin"),
		op("Request", "Add", "X-More", "1")), to=gw.route(path, backend))
	assert behind(gw, path, [("X-Tenant", "root"), ("x_admin", "root"), ("X-More", "2"), ("X-Sum", "1")]) == 200
	assert trailers_at(backend) == [("X-More", "2"), ("X-Sum", "1")]


def test_AUT6_claims_that_come_long_after_the_policies_ran(gw):
	"""The request is at the upstream already when the client says more."""
	path, signer, began, got = f"/late-{next(numbers)}", Signer(), threading.Event(), []

	def serve(connection):
		head = connection.take_until(b"\r\n\r\n")
		began.set()
		got.append(head + connection.take_until(b"\r\n0\r\n") + connection.take_until(b"\r\n\r\n"))
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

	with Scripted(serve) as upstream:
		route = gw.route(path, upstream.port)
		gw.attach("Authentication", {"authenticationType": "jwt-auth"}, to=route)
		uid = f"u-{next(numbers)}"
		who = consumer(gw, jwt={"secretType": "Symmetry", "jwks": signer.jwks, "jwtPayloadConfig": {"payloadKeyValue": uid},
			"claimsToHeadersConfigs": [{"claim": "role", "header": "X-Claimed-Role"}]})
		allow(gw, who, route)
		with gw.connect() as connection:
			connection.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
				f"Authorization: Bearer {signer.sign({'uid': uid})}\r\n\r\n1\r\na\r\n".encode())
			assert began.wait(20)
			connection.send(chunked([("X-Claimed-Role", "root"), ("X-Sum", "1")]))
			assert connection.read_response("POST").status == 200
	assert b"X-Sum: 1" in got[0] and b"root" not in got[0]
