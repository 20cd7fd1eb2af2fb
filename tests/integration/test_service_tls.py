"""ServiceTls and ServicePortTls: TLS towards services, whose certificates are always verified."""
import json
import re
import socket
import ssl
import time

import pytest
from gw import Gateway, numbers
from pki import Authority, self_signed
from policy_kit import phase
from scripted import UPGRADE, Scripted, accept_key
from test_tls import metric
from tls_backends import Nginx, TlsScripted, server_context
from wire import Connection, wait_until

BAD = "sluice_upstream_tls_handshake_failures_total"
GOOD = "sluice_upstream_tls_handshakes_total"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def ca():
	return Authority()


@pytest.fixture(scope="module")
def system_ca():
	"""What the program takes for the system's."""
	return Authority("System CA")


@pytest.fixture(scope="module")
def client_ca():
	return Authority("Client CA")


@pytest.fixture(scope="module")
def gw(system_ca):
	with Gateway(environment={"SSL_CERT_FILE": system_ca.file}, connect_timeout_ms=3000) as gateway:
		yield gateway


@pytest.fixture(scope="module")
def nginx(ca, system_ca, client_ca):
	nobody, lonely = self_signed("gw.test")
	with Nginx({
		"good": {"pair": ca.issue("gw.test", "a.example", "b.example", "db.internal")},
		"wild": {"pair": ca.issue("*.wild.example")},
		"wrong": {"pair": ca.issue("other.test")},
		"expired": {"pair": ca.issue("gw.test", start="20200101000000Z", end="20200201000000Z")},
		"future": {"pair": ca.issue("gw.test", start="20400101000000Z", end="20410101000000Z")},
		"common": {"pair": ca.issue("gw.test", common_only=True)},
		"address": {"pair": ca.issue("IP:127.0.0.1", "URI:spiffe://mesh.local/ns/a/sa/b")},
		"self": {"pair": lonely},
		"system": {"pair": system_ca.issue("gw.test")},
		"mutual": {"pair": ca.issue("gw.test"), "client_ca": client_ca},
		"h2": {"pair": ca.issue("gw.test"), "h2": True},
		"old": {"pair": ca.issue("gw.test"), "versions": "TLSv1.2"},
		"plain": {},
	}) as server:
		server.nobody = nobody
		yield server


def simple(ca=None, **more):
	return {"mode": "SIMPLE", **({"caCertContent": ca.cert} if ca else {}), **more}


def put_certificate(gw, pair, **more):
	body = {"name": f"cert-{next(numbers)}", "namespace": "default", "certificate": pair.cert, "privateKey": pair.key, **more}
	return gw.create("Certificate", "/api/v1/certificates", "certificateId", body)


class Secured:
	"""A service of its own with a route. get() and see() ask it."""

	def __init__(self, gw, target, config=None, site=None, **more):
		self.gw, self.site = gw, site
		self.path = f"/tls-{next(numbers)}"
		self.service = gw.service(target, site, **more)
		self.route = gw.route(self.path, self.service, site)
		self.attachment = gw.attach("ServiceTls", config, to=self.service) if config else None

	def get(self, host="gw.test", path="", **options):
		return self.gw.get(self.path + path, host=host, site=self.site, **options)

	def see(self, host="gw.test", **options):
		"""What nginx saw."""
		answer = self.get(host, **options)
		assert answer.status == 200, answer
		return answer.json

	def refused(self, host="gw.test"):
		"""Why there is no connection, by the metric."""
		before = failures(self.gw)
		answer = self.get(host)
		assert answer.status == 503, answer
		assert answer.json["errorCode"] == "ErrUpstreamUnavailable"
		after = failures(self.gw)
		found = [reason for reason, n in after.items() if n > before.get(reason, 0)]
		assert len(found) == 1, (before, after)
		return found[0]


def failures(gw):
	with Connection(gw.admin_port) as connection:
		text = connection.get("/metrics", {"X-Auth-Token": gw.token}, host=gw.admin).text
	return {reason: float(n) for reason, n in re.findall(rf'^{BAD}{{reason="(\w+)"}} (\S+)$', text, re.M)}


def logged(gw, reason):
	"""The last record of a handshake that failed so."""
	return wait_until(lambda: [r for r in gw.events("upstream.tls_failed") if r["reason"] == reason], what="a record")[-1]


# ---- the examples ----

def test_ex1_private_ca_and_right_name(gw, nginx, ca):
	service = Secured(gw, nginx.ports["good"], simple(ca))
	seen = service.see()
	assert (seen["sni"], seen["version"], seen["alpn"], seen["http"]) == ("gw.test", "TLSv1.3", "http/1.1", "HTTP/1.1")
	assert phase(gw, service.attachment) == "Active"


def test_ex2_wrong_name(gw, nginx, ca):
	assert Secured(gw, nginx.ports["wrong"], simple(ca)).refused() == "name_mismatch"
	record = logged(gw, "name_mismatch")
	assert record["name"] == "gw.test" and record["address"].endswith(str(nginx.ports["wrong"]))


def test_ex3_self_signed_without_ca(gw, nginx):
	assert Secured(gw, nginx.ports["self"], simple()).refused() == "untrusted"
	record = logged(gw, "untrusted")
	assert "self-signed" in record["detail"] or "issuer" in record["detail"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_ex4_mutual(gw, nginx, ca, client_ca, version):
	shown = put_certificate(gw, client_ca.issue("client.test"))
	seen = Secured(gw, nginx.ports["mutual"], {"mode": "MUTUAL", "certId": shown.id, "caCertContent": ca.cert}).see()
	assert (seen["client"], seen["verify"]) == ("CN=client.test", "SUCCESS")

	def answer(connection):
		connection.fill()

	context = server_context(ca.issue("gw.test"), client_ca, (version, version))
	with TlsScripted(answer, context) as server:
		service = Secured(gw, server.port, simple(ca))
		assert service.get().status == 503
		wait_until(lambda: server.refused, what="a refused handshake")


def test_ex5_sni_is_not_the_host(gw, nginx, ca):
	seen = Secured(gw, nginx.ports["good"], simple(ca, sni="b.example")).see("a.example")
	assert (seen["sni"], seen["host"]) == ("b.example", "a.example")


def port_of(gw, service, port):
	"""The service-port resource, to attach to."""
	from gw import Resource
	items = gw.ask("GET", f"{service.path}/ports?pageSize=100")["items"]
	item = next(item for item in items if item["port"] == port)
	return Resource("ServicePort", item["servicePortId"], f"{service.path}/ports/{item['servicePortId']}", gateway=service.gateway, environment=None)


def two_ports(gw, nginx, config):
	"""(get(port), service) of one service with a plain and a TLS port."""
	plain, good = nginx.ports["plain"], nginx.ports["good"]
	service = gw.service([f"127.0.0.1:{plain}", f"127.0.0.1:{good}"])
	attachment = gw.attach("ServiceTls", config, to=service)
	paths = {}
	for port in (plain, good):
		paths[port] = f"/ports-{next(numbers)}"
		gw.route(paths[port], {"scene": "SingleService", "services": [{"serviceId": service.id, "port": port}]})
	return lambda port: gw.get(paths[port], host="gw.test"), service, attachment


def test_ex6_port_disable_replaces_the_service(gw, nginx, ca):
	get, service, _ = two_ports(gw, nginx, simple(ca))
	plain, good = nginx.ports["plain"], nginx.ports["good"]
	assert get(plain).status == 503
	at_port = gw.attach("ServicePortTls", {"mode": "DISABLE"}, to=port_of(gw, service, plain))
	assert phase(gw, at_port) == "Active"
	assert get(plain).json["version"] == "" and get(good).json["version"] == "TLSv1.3"
	gw.delete(at_port)
	assert get(plain).status == 503


def test_ex7_two_hosts_two_connections(gw, nginx, ca):
	service = Secured(gw, nginx.ports["good"], simple(ca))
	first, second, third = service.see("a.example"), service.see("b.example"), service.see("a.example")
	assert (first["sni"], second["sni"], third["sni"]) == ("a.example", "b.example", "a.example")
	assert first["connection"] != second["connection"]


def test_ex8_expired(gw, nginx, ca):
	assert Secured(gw, nginx.ports["expired"], simple(ca)).refused() == "expired"
	assert Secured(gw, nginx.ports["future"], simple(ca)).refused() == "expired"


# ---- who is believed ----

def test_system_bundle_is_the_default(gw, nginx, ca):
	assert Secured(gw, nginx.ports["system"], simple()).see()["sni"] == "gw.test"
	assert Secured(gw, nginx.ports["good"], simple()).refused() == "untrusted"
	assert Secured(gw, nginx.ports["system"], simple(ca)).refused() == "untrusted", "a given CA stands in for the system's"


def test_https_service_without_a_policy(gw, nginx):
	def of(name, protocol="HTTPS"):
		port = nginx.ports[name]
		return Secured(gw, f"127.0.0.1:{port}", ports=[{"name": "a", "port": port, "protocol": protocol}])

	assert of("system").see()["version"] == "TLSv1.3"
	assert of("good").refused() == "untrusted"
	assert of("self").refused() == "untrusted"
	assert of("plain", "HTTP").see()["version"] == ""


def test_https_port_beside_an_http_port(gw, nginx):
	plain, system = nginx.ports["plain"], nginx.ports["system"]
	service = gw.service([f"127.0.0.1:{plain}", f"127.0.0.1:{system}"], ports=[
		{"name": "plain", "port": plain, "protocol": "HTTP"}, {"name": "tls", "port": system, "protocol": "HTTPS"}])
	seen = []
	for port in (plain, system):
		path = f"/mixed-{next(numbers)}"
		gw.route(path, {"scene": "SingleService", "services": [{"serviceId": service.id, "port": port}]})
		seen.append(gw.get(path, host="gw.test").json["version"])
	assert seen == ["", "TLSv1.3"]


def test_disable_makes_an_https_service_plain(gw, nginx):
	port = nginx.ports["plain"]
	service = Secured(gw, f"127.0.0.1:{port}", {"mode": "DISABLE"}, ports=[{"name": "a", "port": port, "protocol": "HTTPS"}])
	assert service.see()["version"] == ""


def test_disabled_policy_leaves_it_to_the_protocol(gw, nginx, ca):
	assert Secured(gw, nginx.ports["plain"], simple(ca, enable=False)).see()["version"] == ""
	get, service, _ = two_ports(gw, nginx, simple(ca))
	gw.attach("ServicePortTls", simple(ca, enable=False), to=port_of(gw, service, nginx.ports["plain"]))
	assert get(nginx.ports["plain"]).json["version"] == ""


def test_ca_by_id_and_content_wins(gw, nginx, ca, system_ca):
	by_id = gw.create("Certificate", "/api/v1/certificates", "certificateId",
		{"name": f"ca-{next(numbers)}", "namespace": "default", "caCertificate": ca.cert})
	assert Secured(gw, nginx.ports["good"], {"mode": "SIMPLE", "caCertId": by_id.id}).see()["sni"] == "gw.test"
	both = Secured(gw, nginx.ports["good"], {"mode": "SIMPLE", "caCertId": by_id.id, "caCertContent": system_ca.cert})
	assert both.refused() == "untrusted"


def test_self_signed_certificate_may_be_named_itself(gw, nginx):
	pair = nginx.servers["self"]["pair"]
	assert Secured(gw, nginx.ports["self"], {"mode": "SIMPLE", "caCertContent": pair.cert}).see()["sni"] == "gw.test"


def test_intermediate_as_ca(gw, ca):
	lower = Authority("Lower CA", above=ca)
	pair = lower.issue("gw.test")
	with TlsScripted(lambda c: serve(c), server_context(pair)) as server:
		assert Secured(gw, server.port, simple(lower)).get().status == 200, "it is believed though its issuer is not known"
		assert Secured(gw, server.port, simple(ca)).refused() == "untrusted", "the server sends no chain"


# ---- names ----

def test_names_of_the_policy_replace_the_host(gw, nginx, ca):
	for names in (["other.test"], ["nobody.test", "OTHER.test"], ["*.test"]):
		assert Secured(gw, nginx.ports["wrong"], simple(ca, subjectAltNames=names)).see()["sni"] == "gw.test"
	for names in (["gw.test.test"], ["*.other.test"], ["127.0.0.1"], ["spiffe://other.test/a"]):
		assert Secured(gw, nginx.ports["wrong"], simple(ca, subjectAltNames=names)).refused() == "name_mismatch"
	assert Secured(gw, nginx.ports["good"], simple(ca, subjectAltNames=["nobody.test"])).refused() == "name_mismatch", \
		"the host does not help where names are given"


def test_wildcard_certificate_is_for_one_label(gw, nginx, ca):
	service = Secured(gw, nginx.ports["wild"], simple(ca))
	assert service.see("a.wild.example")["sni"] == "a.wild.example"
	assert service.see("A.WILD.example")["sni"].lower() == "a.wild.example"
	assert service.refused("wild.example") == "name_mismatch"
	assert service.refused("a.b.wild.example") == "name_mismatch"


def test_address_and_uri_names(gw, nginx, ca):
	port = nginx.ports["address"]
	assert Secured(gw, port, simple(ca)).see("127.0.0.1")["sni"] == "", "an address is not said, but it is verified"
	assert Secured(gw, nginx.ports["good"], simple(ca)).refused("127.0.0.1") == "name_mismatch"
	assert Secured(gw, port, simple(ca, subjectAltNames=["127.0.0.1"])).get("gw.test").status == 200
	assert Secured(gw, port, simple(ca, subjectAltNames=["127.0.0.2"])).refused() == "name_mismatch"
	assert Secured(gw, port, simple(ca, subjectAltNames=["spiffe://mesh.local/ns/a/sa/b"])).get().status == 200
	assert Secured(gw, port, simple(ca, subjectAltNames=["spiffe://mesh.local/ns/a/sa/c"])).refused() == "name_mismatch"


def test_common_name_is_no_name(gw, nginx, ca):
	assert Secured(gw, nginx.ports["common"], simple(ca)).refused() == "name_mismatch"


def test_sni_is_the_name_that_is_verified(gw, nginx, ca):
	assert Secured(gw, nginx.ports["wrong"], simple(ca, sni="other.test")).see()["sni"] == "other.test"
	assert Secured(gw, nginx.ports["good"], simple(ca, sni="other.test")).refused() == "name_mismatch"


def test_name_of_the_service_where_the_host_is_an_address(gw, ca):
	with TlsScripted(serve, server_context(ca.issue("localhost"))) as server:
		service = Secured(gw, f"localhost:{server.port}", simple(ca), sourceType="DNS")
		assert service.get("127.0.0.1").status == 200
		assert server.names[-1] == "localhost"
		assert service.refused("gw.test") == "name_mismatch", "a name of the client goes first"


def test_rewritten_host_is_the_name(gw, nginx, ca):
	service = Secured(gw, nginx.ports["good"], simple(ca))
	gw.attach("HttpRewrite", {"pathType": "Prefix", "path": service.path, "host": "db.internal"}, to=service.route)
	seen = service.see("gw.test")
	assert (seen["sni"], seen["host"]) == ("db.internal", "db.internal")


def test_host_with_a_port(gw, nginx, ca):
	seen = Secured(gw, nginx.ports["good"], simple(ca)).see("a.example:8443")
	assert (seen["sni"], seen["host"]) == ("a.example", "a.example:8443")


# ---- connections ----

def serve(connection):
	"""Answers each request with `ok`."""
	while True:
		while b"\r\n\r\n" not in connection.buffer:
			if not connection.fill():
				return
		connection.buffer = connection.buffer.split(b"\r\n\r\n", 1)[1]
		connection.send(OK)


def one_connection(service, n=4, **options):
	return {service.see(**options)["connection"] for _ in range(n)}


@pytest.fixture(scope="module")
def single(system_ca):
	"""One worker, so that pools can be seen."""
	with Gateway(environment={"SSL_CERT_FILE": system_ca.file}, workers=1) as gateway:
		yield gateway


def test_connections_are_kept(single, nginx, ca):
	service = Secured(single, nginx.ports["good"], simple(ca))
	assert len(one_connection(service)) == 1
	assert [service.see()["turn"] for _ in range(2)] == ["5", "6"]


def test_trap_connection_of_another_name_is_not_reused(single, nginx, ca):
	service = Secured(single, nginx.ports["good"], simple(ca))
	seen = [service.see(host) for host in ("a.example", "b.example", "a.example", "b.example", "gw.test", "a.example")]
	by_name = {}
	for one in seen:
		assert by_name.setdefault(one["sni"], one["connection"]) == one["connection"]
	assert len(set(by_name.values())) == 3


def test_trap_identity_of_another_service_is_not_reused(single, nginx, ca):
	"""Two services with the same endpoint: what one has verified says nothing about the other."""
	first = Secured(single, nginx.ports["good"], simple(ca))
	second = Secured(single, nginx.ports["good"], simple())
	assert first.see()["version"] == "TLSv1.3"
	assert second.refused() == "untrusted"


def test_trap_failed_handshake_is_failed_every_time(single, nginx, ca):
	service = Secured(single, nginx.ports["wrong"], simple(ca))
	assert [service.refused() for _ in range(3)] == ["name_mismatch"] * 3


def test_sessions_are_resumed(single, nginx, ca):
	for name in ("good", "old"):
		service = Secured(single, nginx.ports[name], simple(ca))
		before = metric(single, GOOD, result="resumed")
		assert service.see()["reused"] == "."
		close_idle(single, service, ca)
		assert service.see()["reused"] == "r", name
		assert metric(single, GOOD, result="resumed") == before + 1


def close_idle(gw, service, ca):
	"""The upstream asks for a close."""
	answer = service.get(path="/files/nginx.conf", headers={"Connection": "close"})
	assert answer.status in (200, 404)
	many = [gw.connect() for _ in range(2)]
	try:
		for connection in many:    # two at once: one of them needs a new connection
			connection.start("GET", service.path, host="gw.test")
		for connection in many:
			assert connection.read_response().status == 200
	finally:
		for connection in many:
			connection.close()


# ---- other protocols ----

def test_http2_upstream(gw, nginx, ca):
	port = nginx.ports["h2"]
	for protocol in ("HTTP2", "GRPC"):
		service = Secured(gw, f"127.0.0.1:{port}", simple(ca), ports=[{"name": "a", "port": port, "protocol": protocol}])
		seen = service.see()
		assert (seen["alpn"], seen["http"], seen["sni"]) == ("h2", "HTTP/2.0", "gw.test")
		seen = service.see("gw.test")
		assert int(seen["turn"]) >= 1


def test_http2_upstream_is_verified_too(gw, nginx, ca):
	port = nginx.ports["h2"]
	service = Secured(gw, f"127.0.0.1:{port}", simple(), ports=[{"name": "a", "port": port, "protocol": "HTTP2"}])
	assert service.refused() == "untrusted"


def test_http2_asked_of_a_server_that_has_none(gw, nginx, ca):
	port = nginx.ports["good"]
	service = Secured(gw, f"127.0.0.1:{port}", simple(ca), ports=[{"name": "a", "port": port, "protocol": "HTTP2"}])
	assert service.refused() == "no_application_protocol"


def test_websocket(gw, ca):
	def script(connection):
		head = connection.take_until(b"\r\n\r\n").decode()
		key = re.search(r"(?i)sec-websocket-key: (\S+)", head).group(1)
		connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
			f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\nhello")
		while connection.fill():
			connection.send(connection.buffer)
			connection.buffer = b""

	with TlsScripted(script, server_context(ca.issue("gw.test"))) as server:
		service = Secured(gw, server.port, simple(ca))
		with gw.connect() as connection:
			connection.start("GET", service.path, UPGRADE, host="gw.test")
			assert connection.read_head().status == 101
			assert connection.take(5) == b"hello"
			for size in (1, 1000, 200000):
				connection.send(b"x" * size)
				assert connection.take(size) == b"x" * size


def test_tcp_gateway(gw, ca):
	def script(connection):
		connection.send(b"welcome")
		while connection.fill():
			connection.send(connection.buffer)
			connection.buffer = b""
		connection.send(b"bye")
		connection.socket.unwrap()

	with TlsScripted(script, server_context(ca.issue("db.internal"), alpn=["nothing"])) as server:
		site = gw.gateway(protocol="TCP")
		service = gw.service(server.port, site)
		gw.route("/", service, site)
		gw.attach("ServiceTls", simple(ca, sni="db.internal"), to=service)
		with gw.connect(site) as connection:
			assert connection.take(7) == b"welcome"
			connection.send(b"y" * 100000)
			assert connection.take(100000) == b"y" * 100000
			connection.socket.shutdown(socket.SHUT_WR)
			assert connection.take(3) == b"bye"
			assert connection.is_closed()
		assert server.names == ["db.internal"]


def test_tcp_gateway_verifies(gw, ca):
	with TlsScripted(serve, server_context(ca.issue("db.internal"))) as server:
		site = gw.gateway(protocol="TCP")
		service = gw.service(server.port, site)
		gw.route("/", service, site)
		gw.attach("ServiceTls", simple(ca, sni="other.internal"), to=service)
		with gw.connect(site) as connection:
			assert not connection.fill()
		assert not server.connections or all(not c.buffer for c in server.connections)


def test_large_bodies_both_ways(gw, ca):
	size = 3 << 20

	def script(connection):
		head = connection.take_until(b"\r\n\r\n")
		length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
		body = connection.take(length)
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body)

	with TlsScripted(script, server_context(ca.issue("gw.test"))) as server:
		service = Secured(gw, server.port, simple(ca))
		data = bytes(range(256)) * (size // 256)
		assert gw.request("POST", service.path, body=data, host="gw.test").body == data
		assert not server.errors


# ---- hostile and broken servers ----

@pytest.mark.parametrize("what, reason", [
	(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "not_tls"),
	(b"\x15\x03\x03\x00\x02\x02\x28", "refused_by_upstream"),
	(b"\x16\x03\x03\xff\xff" + b"a" * 70000, None),
	(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", None),
	(b"", "closed_by_upstream"),
])
def test_hostile_no_hello(gw, ca, what, reason):
	def script(connection):
		connection.fill()
		connection.send(what)

	with Scripted(script) as server:
		service = Secured(gw, server.port, simple(ca))
		found = service.refused()
		assert found == reason if reason else found in ("protocol_error", "not_tls")


def test_hostile_silence_and_slow_drip(gw, ca):
	"""The handshake has the time of a connect, whatever trickles in."""
	def silent(connection):
		connection.fill()
		connection.socket.settimeout(30)
		while connection.fill():
			pass

	def slow(connection):
		connection.fill()
		try:
			for byte in b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + b"\x03" * 100:
				connection.send(bytes([byte]))
				time.sleep(0.1)
		except OSError:
			pass

	for script in (silent, slow):
		with Scripted(script) as server:
			service = Secured(gw, server.port, simple(ca))
			before = time.monotonic()
			assert service.refused() in ("timeout", "protocol_error")
			assert time.monotonic() - before < 15


def test_body_that_ends_without_a_goodbye_is_cut(gw, ca):
	def script(connection):
		connection.take_until(b"\r\n\r\n")
		connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart of it")
		if said_goodbye:
			connection.socket.unwrap()
		else:
			socket.socket(fileno=connection.socket.detach()).close()

	for said_goodbye in (True, False):
		with TlsScripted(script, server_context(ca.issue("gw.test"))) as server:
			service = Secured(gw, server.port, simple(ca))
			with gw.connect() as connection:
				connection.start("GET", service.path, host="gw.test")
				head = connection.read_head()
				assert head.status == 200 and head.header("Transfer-Encoding") == "chunked"
				assert connection.read_chunk() == b"part of it"
				if said_goodbye:
					assert connection.read_chunk() == b""
				else:
					assert connection.is_closed(), "no last chunk"
					gw.wait_record(path=service.path)


def test_versions_below_1_2_are_not_spoken(gw, ca):
	context = server_context(ca.issue("gw.test"))
	context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
	context.set_ciphers("ALL:@SECLEVEL=0")
	with TlsScripted(serve, context) as server:
		assert Secured(gw, server.port, simple(ca)).refused() in ("version", "refused_by_upstream")


def test_plain_service_is_not_spoken_to_in_tls(gw, nginx, ca):
	assert Secured(gw, nginx.ports["plain"], simple(ca)).refused() == "not_tls"


def test_failed_handshake_counts_as_connect_failure(gw, nginx, ca):
	service = Secured(gw, nginx.ports["wrong"], simple(ca))
	service.refused()
	record = gw.wait_record(path=service.path)
	assert record["status"] == 503 and "connect" in record["reason"], record
	assert metric(gw, "sluice_upstream_failures_total", service=service.service.name, reason="connect") == 1


def test_retry_goes_on_to_another_endpoint(gw, nginx, ca):
	"""A handshake that fails is a connect failure: nothing was sent."""
	service = Secured(gw, [f"127.0.0.1:{nginx.ports['wrong']}", f"127.0.0.1:{nginx.ports['good']}"], simple(ca))
	gw.attach("Retry", {"attempts": 2, "retryOn": ["connect-failure"]}, to=service.route)
	for _ in range(6):
		assert service.see()["sni"] == "gw.test"


def test_hosts_of_clients_do_not_eject_endpoints(gw, nginx, ca):
	service = Secured(gw, nginx.ports["good"], simple(ca), outlierDetectionConfig={
		"enable": True, "consecutive5xx": 2, "interval": 10, "baseEjectionTime": 30, "maxEjectionPercent": 100})
	for _ in range(5):
		assert service.refused("attack.test") == "name_mismatch"
	assert service.see()["sni"] == "gw.test"


# ---- health checks ----

def health(protocol="HTTP", **more):
	return {"enable": True, "protocol": protocol, "httpPath": "/health", "interval": 1, "timeout": 1, "healthyThreshold": 1, "unhealthyThreshold": 1, **more}


def healthy(gw, service, endpoint):
	return metric(gw, "sluice_endpoint_healthy", service=service.service.name, endpoint=endpoint)


@pytest.mark.parametrize("protocol", ["HTTP", "TCP"])
def test_health_checks_speak_tls(gw, nginx, ca, protocol):
	good, expired = (f"127.0.0.1:{nginx.ports[name]}" for name in ("good", "expired"))
	service = Secured(gw, [good, expired], simple(ca), healthCheckConfig=health(protocol))
	wait_until(lambda: (healthy(gw, service, good), healthy(gw, service, expired)) == (1, 0), 20, "the good one alone, though no name is given")
	for _ in range(6):
		assert service.see()["port"] == str(nginx.ports["good"])


def test_health_check_of_an_https_service(gw, nginx):
	port = nginx.ports["system"]
	service = Secured(gw, f"127.0.0.1:{port}", ports=[{"name": "a", "port": port, "protocol": "HTTPS"}],
		healthCheckConfig=health(httpHost="gw.test"))
	wait_until(lambda: metric(gw, GOOD, result="full") + metric(gw, GOOD, result="resumed") > 0, 20, "handshakes")
	wait_until(lambda: healthy(gw, service, f"127.0.0.1:{port}") == 1, 20, "a healthy endpoint")
	assert service.see()["port"] == str(port)


# ---- changes ----

def test_certificate_rotation(single, nginx, ca, client_ca):
	shown = put_certificate(single, client_ca.issue("first.test"))
	service = Secured(single, nginx.ports["mutual"], {"mode": "MUTUAL", "certId": shown.id, "caCertContent": ca.cert})
	first = service.see()
	assert first["client"] == "CN=first.test" and one_connection(service) == {first["connection"]}
	pair = client_ca.issue("second.test")
	single.ask("PUT", shown.path, {**shown.body, "certificate": pair.cert, "privateKey": pair.key})
	second = service.see()
	assert second["client"] == "CN=second.test" and second["connection"] != first["connection"]
	assert second["reused"] == ".", "no session of the old identity goes on"


def test_rotation_cuts_nothing(gw, ca, client_ca):
	started, go_on = [], []

	def script(connection):
		connection.take_until(b"\r\n\r\n")
		connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
		started.append(connection.socket.getpeercert()["subject"][0][0][1])
		wait_until(lambda: go_on, 20, "the test")
		connection.send(b"later")
		connection.fill()

	with TlsScripted(script, server_context(ca.issue("gw.test"), client_ca)) as server:
		shown = put_certificate(gw, client_ca.issue("first.test"))
		service = Secured(gw, server.port, {"mode": "MUTUAL", "certId": shown.id, "caCertContent": ca.cert})
		with gw.connect() as connection:
			connection.start("GET", service.path, host="gw.test")
			assert connection.read_head().status == 200
			assert connection.take(5) == b"first"
			pair = client_ca.issue("second.test")
			gw.ask("PUT", shown.path, {**shown.body, "certificate": pair.cert, "privateKey": pair.key})
			go_on.append(True)
			assert connection.take(5) == b"later"
		assert service.get().status == 200
		assert started == ["first.test", "second.test"]


def test_policy_changes_close_idle_connections(single, ca):
	with TlsScripted(serve, server_context(ca.issue("gw.test"))) as server:
		service = Secured(single, server.port, simple(ca))
		assert service.get().status == 200
		first = server.connections[0]
		single.change_policy(service.attachment, simple(ca, sni="gw.test"))
		wait_until(lambda: first.socket.fileno() == -1, what="the idle connection to be closed")
		assert service.get().status == 200 and len(server.connections) == 2
		single.change_policy(service.attachment, simple(ca, sni="gw.test", subjectAltNames=["no.test"]))
		assert service.refused() == "name_mismatch"


def test_unrelated_changes_keep_connections(single, nginx, ca):
	service = Secured(single, nginx.ports["good"], simple(ca))
	first = service.see()["connection"]
	other = Secured(single, nginx.ports["good"], simple(ca))
	single.attach("RateLimit", {"threshold": 1000, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}, to=service.service)
	single.delete(other.attachment)
	assert service.see()["connection"] == first


def test_from_plain_to_tls_and_back(single, nginx, ca):
	port = nginx.ports["good"]
	service = Secured(single, port)
	assert service.get().status == 400, "a plain request to a TLS port"
	attachment = single.attach("ServiceTls", simple(ca), to=service.service)
	assert service.see()["version"] == "TLSv1.3"
	single.delete(attachment)
	assert service.get().status == 400


def test_certificate_in_use_stays(gw, nginx, ca, client_ca):
	"""Its key cannot be taken away either: what a PUT leaves out is kept."""
	shown = put_certificate(gw, client_ca.issue("client.test"))
	service = Secured(gw, nginx.ports["mutual"], {"mode": "MUTUAL", "certId": shown.id, "caCertContent": ca.cert})
	assert gw.api("DELETE", shown.path)[0] == 409
	gw.ask("PUT", shown.path, {name: value for name, value in shown.body.items() if name != "privateKey"})
	assert service.see()["verify"] == "SUCCESS" and phase(gw, service.attachment) == "Active"


def test_ca_rotation(gw, nginx, ca, system_ca):
	bundle = gw.create("Certificate", "/api/v1/certificates", "certificateId",
		{"name": f"ca-{next(numbers)}", "namespace": "default", "caCertificate": system_ca.cert})
	service = Secured(gw, nginx.ports["good"], {"mode": "SIMPLE", "caCertId": bundle.id})
	assert service.refused() == "untrusted"
	gw.ask("PUT", bundle.path, {**bundle.body, "caCertificate": system_ca.cert + ca.cert})
	assert service.see()["sni"] == "gw.test"
	gw.ask("PUT", bundle.path, {**bundle.body, "caCertificate": system_ca.cert})
	assert service.refused() == "untrusted", "a CA that is not believed any more is not believed for old sessions either"


def test_restart_keeps_it(ca, client_ca, nginx):
	with Gateway(workers=1) as gw:
		shown = put_certificate(gw, client_ca.issue("client.test"))
		service = Secured(gw, nginx.ports["mutual"], {"mode": "MUTUAL", "certId": shown.id, "caCertContent": ca.cert})
		get, other, _ = two_ports(gw, nginx, simple(ca))
		gw.attach("ServicePortTls", {"mode": "DISABLE"}, to=port_of(gw, other, nginx.ports["plain"]))
		gw.restart()
		assert service.see()["client"] == "CN=client.test"
		assert get(nginx.ports["plain"]).json["version"] == "" and get(nginx.ports["good"]).json["version"] == "TLSv1.3"
		assert phase(gw, service.attachment) == "Active"


# ---- the mesh ----

def test_workload_identity(gw, client_ca):
	mesh, stranger = Authority("Mesh CA"), Authority("Other CA")
	mine = mesh.issue("URI:spiffe://mesh.local/ns/gateway/sa/sluice")
	site = gw.gateway()
	policy = gw.policy("ServiceTls", {"mode": "ISTIO_MUTUAL"})

	def attach(service):
		return gw.api("POST", "/api/v1/policy-attachments", {"attachResourceId": service.id, "attachResourceType": "Service",
			"gatewayId": site.id, "policyId": policy.id})

	status, answer, _ = attach(gw.service("127.0.0.1:9", site))
	assert status == 400 and answer["errorMessage"].startswith("Invalid parameter: config.mode"), answer
	identity = put_certificate(gw, mine, caCertificate=mesh.cert)
	bare = put_certificate(gw, mine)
	for wrong in ("cert-none", bare.id):
		status, answer, _ = gw.api("PUT", f"/api/v1/gateways/{site.id}/gateway-features/workloadIdentity", {"value": wrong})
		assert status == 400 and "value" in answer["errorMessage"], answer
	gw.feature("workloadIdentity", identity.id, site)
	assert gw.api("DELETE", identity.path)[0] == 409
	cases = [(mesh.issue("URI:spiffe://mesh.local/ns/a/sa/b"), 200), (mesh.issue("gw.test"), 503),
		(stranger.issue("URI:spiffe://mesh.local/ns/a/sa/b"), 503), (mesh.issue("URI:https://mesh.local/x"), 503),
		(mesh.issue("URI:spiffe://mesh.local/a", "URI:spiffe://mesh.local/b"), 503)]
	for pair, want in cases:
		with TlsScripted(serve, server_context(pair, mesh)) as server:
			service = gw.service(server.port, site)
			path = f"/mesh-{next(numbers)}"
			gw.route(path, service, site)
			status, answer, _ = attach(service)
			assert status == 200, answer
			assert gw.get(path, host="gw.test", site=site).status == want
			if want == 200:
				attachment = f"/api/v1/policy-attachments/{answer['policyAttachmentId']}"
				assert server.connections[0].socket.getpeercert()["subjectAltName"] == (("URI", "spiffe://mesh.local/ns/gateway/sa/sluice"),)
				for breaks, mends in (
						(lambda: gw.feature("workloadIdentity", "", site), lambda: gw.feature("workloadIdentity", identity.id, site)),
						(lambda: gw.ask("PUT", identity.path, {**identity.body, "caCertificate": None}), lambda: gw.ask("PUT", identity.path, identity.body))):
					breaks()
					status = gw.ask("GET", attachment)["status"]
					assert status["phase"] == "Degraded" and status["reason"].startswith("mode"), status
					before = failures(gw).get("unusable_policy", 0)
					assert gw.get(path, host="gw.test", site=site).status == 503, "never without the identity"
					assert failures(gw)["unusable_policy"] == before + 1
					mends()
					assert gw.ask("GET", attachment)["status"]["phase"] == "Active"
					assert gw.get(path, host="gw.test", site=site).status == 200


# ---- what is refused ----

def refused(gw, config, service):
	policy = gw.policy("ServiceTls", config)
	status, answer, _ = gw.api("POST", "/api/v1/policy-attachments", {"attachResourceId": service.id, "attachResourceType": "Service",
		"gatewayId": service.gateway, "policyId": policy.id})
	assert status == 400 and answer["errorCode"] == "ErrInvalidParameter", answer
	return re.match(r"Invalid parameter: ([^:]+)", answer["errorMessage"]).group(1)


@pytest.mark.parametrize("config, field", [
	({"mode": "TLS"}, "config.mode"), ({"mode": "simple"}, "config.mode"), ({"mode": "MUTUAL"}, "config.certId"),
	({"mode": "ISTIO_MUTUAL", "sni": "a.test"}, "config.sni"), ({"mode": "ISTIO_MUTUAL", "subjectAltNames": ["a.test"]}, "config.subjectAltNames"),
	({"mode": "SIMPLE", "sni": "127.0.0.1"}, "config.sni"), ({"mode": "SIMPLE", "sni": "a.test:443"}, "config.sni"),
	({"mode": "SIMPLE", "subjectAltNames": ["a b"]}, "config.subjectAltNames[0]"),
])
@pytest.mark.parametrize("name", ["ServiceTls", "ServicePortTls"])
def test_reject_config(gw, name, config, field):
	status, answer, _ = gw.api("POST", "/api/v2/policies", {"name": "p", "className": name, "config": json.dumps({"enable": True, **config})})
	assert status == 400 and answer["errorCode"] == "ErrInvalidParameter"
	assert answer["errorMessage"].startswith(f"Invalid parameter: {field}"), answer


def test_reject_at_attach(gw, ca, client_ca):
	service = gw.service("127.0.0.1:9")
	pair = client_ca.issue("client.test")
	keyless = gw.create("Certificate", "/api/v1/certificates", "certificateId",
		{"name": f"ca-{next(numbers)}", "namespace": "default", "caCertificate": ca.cert})
	no_key = gw.create("Certificate", "/api/v1/certificates", "certificateId",
		{"name": f"ca-{next(numbers)}", "namespace": "default", "certificate": pair.cert})
	garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	assert refused(gw, {"mode": "MUTUAL", "certId": "cert-none"}, service) == "config.certId"
	assert refused(gw, {"mode": "MUTUAL", "certId": no_key.id}, service) == "config.certId"
	assert refused(gw, {"mode": "MUTUAL", "certId": keyless.id}, service) == "config.certId"
	assert refused(gw, {"mode": "SIMPLE", "caCertId": "cert-none"}, service) == "config.caCertId"
	assert refused(gw, {"mode": "SIMPLE", "caCertContent": "nothing"}, service) == "config.caCertContent"
	assert refused(gw, {"mode": "SIMPLE", "caCertContent": garbage}, service) == "config.caCertContent"
	assert refused(gw, {"mode": "SIMPLE", "caCertContent": ca.cert + garbage}, service) == "config.caCertContent"
	assert refused(gw, {"mode": "SIMPLE", "caCertContent": ca.cert + pair.key}, service) == "config.caCertContent"
	assert refused(gw, {"mode": "ISTIO_MUTUAL"}, service) == "config.mode"


def test_reject_key_of_another_certificate(gw, client_ca):
	"""Such a certificate cannot be made at all."""
	one, other = client_ca.issue("one.test"), client_ca.issue("other.test")
	status, answer, _ = gw.api("POST", "/api/v1/certificates", {"name": "c", "namespace": "default", "certificate": one.cert, "privateKey": other.key})
	assert status == 400 and "privateKey" in answer["errorMessage"]


# ---- what is seen ----

def test_metrics(gw, nginx, ca):
	before = metric(gw, GOOD, result="full")
	Secured(gw, nginx.ports["good"], simple(ca)).see()
	assert metric(gw, GOOD, result="full") == before + 1
	for reason in ("untrusted", "expired", "name_mismatch", "closed_by_upstream", "timeout"):
		assert reason in failures(gw)


def test_no_secret_is_printed(gw, nginx, ca, client_ca):
	pair = client_ca.issue("client.test")
	shown = put_certificate(gw, pair)
	service = Secured(gw, nginx.ports["mutual"], {"mode": "MUTUAL", "certId": shown.id, "caCertContent": ca.cert})
	service.see()
	secret = pair.key.split("\n")[1]
	assert secret not in json.dumps(gw.ask("GET", shown.path)) and secret not in gw.stderr()
	with Connection(gw.admin_port) as connection:
		assert secret not in connection.get("/metrics", {"X-Auth-Token": gw.token}, host=gw.admin).text
