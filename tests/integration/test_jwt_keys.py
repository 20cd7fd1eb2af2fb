"""Where the keys of JWTAuth come from: key sets at a URL, fetched, kept, rotated, and served by issuers that are slow, broken or hostile.
test_ex<n> are the contract's examples."""
import concurrent.futures
import json
import threading
import time

import pytest
from gw import IS_SANITIZED, Gateway, free_port, numbers
from pki import Authority
from policy_kit import gauge, outcomes, phase, raw_get
from side_services import SideService, plain
from tls_backends import server_context
from tokens import Issuer, bearer, fault, jwt_auth, key, key_set, unsigned
from wire import wait_until

TEXT = json.dumps(key_set(key())).encode()


def guarded(gw, backend, keys, **more):
	"""A new route behind JWTAuth: its path. `keys`: as jwt_auth() takes them."""
	base = f"/keys-{next(numbers)}"
	guarded.route = gw.route(base, backend)
	guarded.attachment = gw.attach("JWTAuth", jwt_auth(keys, **more), to=guarded.route)
	return base


def ask(gw, path, token):
	return gw.get(path, bearer(token))


def status_of(gw, attachment):
	return gw.ask("GET", attachment.path)["status"]


def is_unavailable(answer):
	return answer.status == 503 and answer.header("Retry-After") == "5" and answer.json["errorCode"] == "ErrPolicyUnavailable"


def with_kid(kid):
	"""A token with a key id of choice whose signature nobody looks at."""
	return unsigned({"alg": "RS256", "kid": kid}, signature=b"x" * 256)


# ---- examples of the contract ----

def test_ex3_a_rotated_key_is_fetched_once(gw, backend):
	new = key("RSA", "k2")
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		issuer.keys = [new]
		assert ask(gw, base, new.sign()).status == 200
		assert len(issuer.asked) == 2
		# The old key is gone with it, whatever was remembered, on every worker.
		for _ in range(8):
			with gw.connect() as connection:
				assert connection.request("GET", base, bearer(key().sign())).status == 401
		assert len(issuer.asked) == 2


def test_ex3_random_key_ids_bring_one_fetch(gw, backend):
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		with concurrent.futures.ThreadPoolExecutor(10) as pool:
			answers = list(pool.map(lambda i: ask(gw, base, with_kid(f"random-{i}")), range(100)))
		assert {fault(answer) for answer in answers} == {"unknown key"}
		assert len(issuer.asked) == 2
		assert ask(gw, base, key().sign()).status == 200


def test_ex4_down_after_the_first_fetch(gw, backend):
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		attachment = guarded.attachment
	assert ask(gw, base, key().sign(sub="bob")).status == 200
	assert fault(ask(gw, base, with_kid("other"))) == "unknown key"    # this one asked in vain
	assert ask(gw, base, key().sign(sub="carol")).status == 200
	status = wait_until(lambda: status_of(gw, attachment) if phase(gw, attachment) == "Degraded" else None, 10, "Degraded")
	assert status["reason"] == "the key set cannot be fetched"
	assert status["lastError"].startswith("it could not be connected to")
	assert gauge(gw, attachment, "sluice_dependency_up")[guarded.route.name] == 0


def test_ex4_down_from_the_start_and_then_there(gw, backend):
	port = free_port()
	base = guarded(gw, backend, f"http://127.0.0.1:{port}/jwks")
	attachment, route = guarded.attachment, guarded.route
	answer = ask(gw, base, key().sign())
	assert is_unavailable(answer)
	assert fault(gw.get(base)) == ""                    # without a token there is nothing to verify
	assert fault(ask(gw, base, "garbage")) == "malformed"
	record = gw.wait_record(path=base, status=503)
	assert (record["flag"], record["policy"]) == ("PF", "JWTAuth")
	assert outcomes(gw, attachment)[route.name, "unavailable"] == 1
	assert phase(gw, attachment) == "Degraded"
	with Issuer(key(), address=("127.0.0.1", port)):    # whatever the path
		# By itself, within 5 s and a tick.
		wait_until(lambda: phase(gw, attachment) == "Active", 20, "Active")
		assert ask(gw, base, key().sign()).status == 200
		assert gauge(gw, attachment, "sluice_dependency_up")[route.name] == 1


# ---- one fetch, for all ----

def test_JWT9_is_fetched_before_the_first_request(gw, backend):
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		wait_until(lambda: issuer.asked, 10, "a fetch")
		wait_until(lambda: [e for e in gw.events("keys.fetched") if e["url"] == issuer.jwks], 10, "an event")
		assert ask(gw, base, key().sign()).status == 200
		assert [(one.method, one.target) for one in issuer.asked] == [("GET", issuer.path)]
		assert "json" in issuer.last.header("Accept")


def test_requests_wait_for_the_first_fetch(gw, backend):
	gate = threading.Event()
	with Issuer(key()) as issuer:
		issuer.answer = lambda request, connection: gate.wait(30) and plain(200, [], TEXT)
		base = guarded(gw, backend, issuer)
		wait_until(lambda: issuer.asked, 10, "a fetch")
		connections = [gw.connect() for _ in range(20)]
		try:
			for connection in connections:
				connection.start("GET", base, bearer(key().sign()))
			gone = gw.connect()
			gone.start("GET", base, bearer(key().sign()))
			gone.close()                # one that does not want to know any more
			gate.set()
			assert {connection.read_response().status for connection in connections} == {200}
		finally:
			gate.set()
			for connection in connections:
				connection.close()
		assert len(issuer.asked) == 1
	record = gw.wait_record(path=base, status=200)
	assert record.get("waitedFor", "JWTAuth") == "JWTAuth"


def test_nobody_waits_longer_than_five_seconds(gw, backend):
	gate = threading.Event()
	with Issuer() as issuer:
		issuer.answer = lambda request, connection: gate.wait(60) and plain(200, [], TEXT)
		base = guarded(gw, backend, issuer)
		try:
			begin = time.monotonic()
			assert is_unavailable(ask(gw, base, key().sign()))
			assert time.monotonic() - begin < 15
			assert gw.get(f"/none-{next(numbers)}").status == 404    # others do not wait at all
			wait_until(lambda: status_of(gw, guarded.attachment)["phase"] == "Degraded", 10, "Degraded")
			assert status_of(gw, guarded.attachment)["lastError"].startswith("it took too long")
		finally:
			gate.set()


def test_policies_with_one_url_share_the_set(gw, backend):
	with Issuer(key()) as issuer:
		first = guarded(gw, backend, issuer)
		assert ask(gw, first, key().sign()).status == 200
		second = guarded(gw, backend, issuer, sub="alice")
		third = guarded.attachment
		assert ask(gw, second, key().sign()).status == 200
		# A change of the config does not cost the keys.
		gw.change_policy(third, jwt_auth(issuer, sub="bob"))
		assert fault(ask(gw, second, key().sign())) == "subject"
		assert len(issuer.asked) == 1
		for _ in range(3):
			assert fault(ask(gw, first, with_kid("x"))) == fault(ask(gw, second, with_kid("x"))) == "unknown key"
		assert len(issuer.asked) == 2
	assert fault(ask(gw, first, with_kid("y"))) == "unknown key"


def test_the_last_user_takes_the_set_with_it(gw, backend):
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		gw.delete(guarded.attachment)
		gw.delete(guarded.route)
		wait_until(lambda: gw.get(base).status == 404, 5, "the route to go")
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200


def test_5000_bad_tokens_bring_one_fetch(gw, backend):
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		begin = time.monotonic()

		def send(worker):
			with gw.connect(timeout=120) as connection:
				for i in range(0, 1250, 50):
					for n in range(i, i + 50):
						connection.start("GET", base, bearer(with_kid(f"flood-{worker}-{n}")))
					for _ in range(50):
						assert connection.read_response().status == 401
			return True
		with concurrent.futures.ThreadPoolExecutor(4) as pool:
			assert all(pool.map(send, range(4)))
		took = time.monotonic() - begin
		assert len(issuer.asked) - 1 <= 1 + took // 30, took
		assert ask(gw, base, key().sign()).status == 200
		assert outcomes(gw, guarded.attachment)[guarded.route.name, "invalid"] == 5000


def test_a_flood_while_the_issuer_hangs_parks_few(gw, backend):
	"""Requests with unknown key ids wait for the fetch they asked for, at most 1,024 of them; those with a known key do not."""
	gate = threading.Event()
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		issuer.answer = lambda request, connection: gate.wait(60) and plain(200, [], TEXT)
		connections = [gw.connect(timeout=60) for _ in range(1100)]
		try:
			for n, connection in enumerate(connections):
				connection.start("GET", base, bearer(with_kid(f"hang-{n}")))
			begin = time.monotonic()
			assert ask(gw, base, key().sign(sub="bob")).status == 200
			assert time.monotonic() - begin < 5
			assert {connection.read_response().status for connection in connections} == {401}
			assert len(issuer.asked) == 2
		finally:
			gate.set()
			for connection in connections:
				connection.close()


# ---- redirects, TLS, addresses ----

def test_JWT9_follows_redirects(gw, backend):
	with Issuer(key()) as issuer:
		hops = iter(range(10))

		def serve(request, connection):
			if request.target == "/end":
				return plain(200, [], TEXT)
			n = next(hops)
			return plain(302, [("Location", "/end" if n == 2 else f"/hop{n}")])
		issuer.answer = serve
		assert ask(gw, guarded(gw, backend, issuer), key().sign()).status == 200
		assert [one.target for one in issuer.asked] == [issuer.path, "/hop0", "/hop1", "/end"]


def test_JWT9_https_is_verified(backend):
	authority, stranger = Authority(), Authority("Stranger")
	with Issuer(key(), context=server_context(authority.issue("localhost"))) as good_one, \
		Issuer(key(), context=server_context(stranger.issue("localhost"))) as bad_one, \
		Gateway(environment={"SSL_CERT_FILE": authority.file}) as gw:
		assert ask(gw, guarded(gw, backend, good_one), key().sign()).status == 200
		assert is_unavailable(ask(gw, guarded(gw, backend, bad_one), key().sign()))
		assert status_of(gw, guarded.attachment)["phase"] == "Degraded"    # localhost may have another address that refuses
		# Not from https to http either.
		with Issuer(key()) as clear:
			good_one.answer = plain(302, [("Location", clear.jwks)])
			base = guarded(gw, backend, f"{good_one.url}/moved")
			assert is_unavailable(ask(gw, base, key().sign()))
			assert clear.asked == []


def test_JWT9_addresses_that_may_not_be_called(gw, backend):
	with Issuer(key()) as issuer:
		issuer.answer = plain(302, [("Location", f"http://127.0.0.1:{gw.admin_port}/openapi.json")])
		base = guarded(gw, backend, issuer)
		assert is_unavailable(ask(gw, base, key().sign()))
		assert "may be called" in status_of(gw, guarded.attachment)["lastError"]
	answer = gw.api("POST", "/api/v2/policies", {"name": "x", "className": "JWTAuth",
		"config": json.dumps(jwt_auth("http://169.254.169.254/latest/meta-data"))})
	assert answer[0] == 400 and "config.jwks" in answer[1]["errorMessage"]


# ---- answers that are no good ----

def chunked(request, connection):
	connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
	for _ in range(16384):    # 1 GiB
		connection.send(piece)


def drip(request, connection):
	connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
	for _ in range(200):
		connection.send(b" ")
		time.sleep(0.1)


def drip_head(request, connection):
	for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200:
		connection.send(bytes([byte]))
		time.sleep(0.1)


def cut(request, connection):
	connection.send(plain(200, [], TEXT)[:-10])


HOSTILE = {
	"1 GB promised": plain(200, [("Content-Type", "application/json")]).replace(b"Content-Length: 0", b"Content-Length: 1000000000"),
	"1 GB in chunks": chunked, "slow body": drip, "slow head": drip_head, "cut": cut, "closed": lambda request, connection: None,
	"a loop": lambda request, connection: plain(302, [("Location", request.target)]),
	"a longer loop": lambda request, connection: plain(307, [("Location", request.target + "x")]),
	"a redirect to nowhere": plain(302, [("Location", "ftp://x/")]), "a redirect without a place": plain(302),
	"no HTTP": b"\x00\x01\x02 garbage\r\n\r\n", "garbage": plain(200, [], bytes(range(256)) * 20), "empty": plain(200),
	"HTML": plain(200, [("Content-Type", "text/html")], b"<html><body>Sign in</body></html>"), "no JSON": plain(200, [], b'{"keys":['),
	"a list": plain(200, [], json.dumps([key().jwk()]).encode()), "a key": plain(200, [], json.dumps(key().jwk()).encode()),
	"a string": plain(200, [], b'"keys"'), "null": plain(200, [], b"null"), "keys: object": plain(200, [], b'{"keys":{}}'),
	"keys: string": plain(200, [], b'{"keys":"x"}'), "no keys": plain(200, [], b'{"keys":[]}'), "odd keys": plain(200, [], b'{"keys":[1,null,[],"x",{}]}'),
	"twice": plain(200, [], b'{"keys":[],' + TEXT[1:]), "deep": plain(200, [], b'{"keys":' + b"[" * 100000),
	"only secrets": plain(200, [], b'{"keys":[{"kty":"oct","k":"' + b"A" * 43 + b'"}]}'), "404": plain(404, [], TEXT), "500": plain(500, [], TEXT),
	"204": plain(204), "206": plain(206, [], TEXT), "401": plain(401, [("WWW-Authenticate", "Basic")], TEXT),
	"a million numbers": plain(200, [], b'{"keys":[' + b"1," * 500000 + b"1]}"),
}


def test_hostile_issuers_from_the_start(gw, backend):
	"""None lets a token pass, holds a worker, fills memory or is believed."""
	services = {name: SideService(answer) for name, answer in HOSTILE.items()}
	calm = f"/calm-{next(numbers)}"
	gw.route(calm, backend)
	try:
		before = gw.rss_kb()
		bases = {name: (guarded(gw, backend, f"{service.url}/jwks{next(numbers)}"), guarded.attachment) for name, service in services.items()}
		stop, slowest = threading.Event(), []

		def watch():
			while not stop.is_set():
				begin = time.monotonic()
				assert gw.get(calm).status == 200
				slowest.append(time.monotonic() - begin)
		watcher = threading.Thread(target=watch)
		watcher.start()
		with concurrent.futures.ThreadPoolExecutor(len(bases)) as pool:
			answers = dict(zip(bases, pool.map(lambda one: ask(gw, one[0], key().sign()), bases.values())))
		stop.set()
		watcher.join()
		assert [name for name, answer in answers.items() if not is_unavailable(answer)] == []
		assert max(slowest) < 8 and len(slowest) > 20
		assert gw.rss_kb() - before < (400_000 if IS_SANITIZED else 60_000)
		for name, (_, attachment) in bases.items():
			status = status_of(gw, attachment)
			assert (status["phase"], status["reason"]) == ("Degraded", "the key set cannot be fetched"), name
			assert status["lastError"], name
		# Each would be tried again every 5 s, and their events be all that the log has room for in that second.
		for _, attachment in bases.values():
			gw.delete(attachment)
	finally:
		for service in services.values():
			service.__exit__(None)


@pytest.mark.parametrize("name", ["1 GB promised", "a loop", "garbage", "no keys", "404", "only secrets", "closed"])
def test_hostile_answers_do_not_replace_a_good_set(gw, backend, name):
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, key().sign()).status == 200
		issuer.answer = HOSTILE[name]
		assert fault(ask(gw, base, with_kid("x"))) == "unknown key"
		assert len(issuer.asked) >= 2
		wait_until(lambda: phase(gw, guarded.attachment) == "Degraded", 10, "Degraded")
		assert ask(gw, base, key().sign(sub=name)).status == 200


def test_a_set_of_many_keys(gw, backend):
	last = key("RSA", "last")
	with Issuer(*[key().jwk(kid=f"n{i}") for i in range(63)], last, key().jwk(kid="n64")) as issuer:
		base = guarded(gw, backend, issuer)
		assert ask(gw, base, last.sign()).status == 200
		assert fault(ask(gw, base, key().sign(header={"kid": "n64"}))) == "unknown key"
		event = wait_until(lambda: [e for e in gw.events("keys.passed_over") if e["url"] == issuer.jwks], 5, "a warning")[0]
		assert (event["keys"], event["passedOver"]) == (64, 1)


def test_any_content_type_is_read(gw, backend):
	for kind in ("text/plain", "application/octet-stream", "application/jwk-set+json; charset=utf-8"):
		with SideService(plain(200, [("Content-Type", kind)], TEXT)) as service:
			assert ask(gw, guarded(gw, backend, f"{service.url}/jwks{next(numbers)}"), key().sign()).status == 200


def test_a_query_of_the_url_is_not_logged(gw, backend):
	with SideService(plain(500)) as service:
		path = f"/jwks{next(numbers)}"
		base = guarded(gw, backend, f"{service.url}{path}?client_secret=canary-7719")
		assert is_unavailable(ask(gw, base, key().sign()))
		assert service.asked[0].target == f"{path}?client_secret=canary-7719"
		wait_until(lambda: [e for e in gw.events("keys.fetch_failed") if e["url"] == service.url + path], 5, "an event")
		assert "canary-7719" not in gw.stderr()
		assert "canary-7719" not in raw_get(gw, "/metrics")[1]


def test_restart_and_stop_while_a_fetch_hangs(backend):
	gate = threading.Event()
	with Gateway(drain_timeout_ms=300) as gw, Issuer() as issuer:
		issuer.answer = lambda request, connection: gate.wait(60) and plain(200, [], TEXT)
		base = guarded(gw, backend, issuer)
		wait_until(lambda: issuer.asked, 10, "a fetch")
		with gw.connect() as connection:
			connection.start("GET", base, bearer(key().sign()))
			gw.stop()    # and no sanitizer complains
		gate.set()
		issuer.answer = issuer.serve_keys
		issuer.keys = [key()]
		gw.start()
		assert ask(gw, base, key().sign()).status == 200


def test_changes_under_traffic(gw, backend):
	"""Policies come and go, the set is replaced, and nobody sees anything but 200 for a good token."""
	with Issuer(key()) as issuer:
		base = guarded(gw, backend, issuer)
		attachment = guarded.attachment
		stop, wrong = threading.Event(), []
		tokens = [key().sign(sub=f"u{i}") for i in range(20)]

		def send():
			i = 0
			while not stop.is_set():
				answer = ask(gw, base, tokens[i % 20])
				if answer.status != 200:
					wrong.append(answer)
				i += 1
		threads = [threading.Thread(target=send) for _ in range(3)]
		for thread in threads:
			thread.start()
		try:
			for i in range(15):
				gw.change_policy(attachment, jwt_auth(issuer, name=f"n{i}"))
				extra = gw.attach("JWTAuth", jwt_auth(issuer), to=gw.route(f"{base}-{i}", backend))
				if i == 5:
					issuer.keys = [key(), key("RSA", "k2")]
					assert ask(gw, base, key("RSA", "k2").sign()).status == 200
				gw.delete(extra)
		finally:
			stop.set()
			for thread in threads:
				thread.join()
		assert wrong == []
