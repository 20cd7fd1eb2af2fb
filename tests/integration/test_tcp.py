"""TCP gateways and TLS gateways that pass through: bytes both ways, ends, choices by name, lists, limits and records."""
import hashlib
import socket
import ssl
import subprocess
import threading

import pytest
from gw import Gateway, free_port, numbers, wait_millis
from pki import Authority
from policy_kit import ip_list, phase, rate
from scripted import Scripted
from wire import Connection, pattern, wait_until

MEGABYTE = 1 << 20


def echo_bytes(connection):
	while connection.fill():
		connection.send(connection.buffer)
		connection.buffer = b""


def greet(name):
	def script(connection):
		connection.send(name)
		echo_bytes(connection)

	return script


@pytest.fixture(scope="module")
def tcp(gw):
	return gw.gateway(protocol="TCP")


@pytest.fixture(scope="module")
def echo(gw, tcp):
	with Scripted(echo_bytes) as server:
		server.route = gw.route("/", server.port, site=tcp)
		yield server
		assert not server.errors


def records(gw, site, n=1):
	return wait_until(lambda: len(found := [r for r in gw.events("access") if r.get("gateway") == site.name]) >= n and found, what="the records")


def is_turned_away(gw, site, **options):
	"""A connection is closed or reset without a byte."""
	try:
		with gw.connect(site, **options) as connection:
			return connection.is_closed() and connection.buffer == b""
	except ConnectionResetError:
		return True


def test_is_running(gw, tcp):
	assert gw.ask("GET", tcp.path)["status"]["phase"] == "Running"


def test_bytes_go_both_ways(gw, tcp, echo):
	with gw.connect(tcp) as connection:
		for data in (b"\0\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", pattern(300_000)):
			sender = threading.Thread(target=connection.send, args=(data,))
			sender.start()
			assert connection.take(len(data)) == data
			sender.join()
		connection.socket.shutdown(socket.SHUT_WR)
		assert connection.is_closed()
	record = records(gw, tcp)[-1]
	assert (record["protocol"], record["client"], record["route"]) == ("tcp", "127.0.0.1", echo.route.name)
	assert record["bytesIn"] == record["bytesOut"] == 300_000 + 6 + 18
	assert record["reason"] == "both sides closed" and "flag" not in record and "status" not in record
	assert record["durationUs"] > 0 and record["upstream"] == f"127.0.0.1:{echo.port}"


def test_the_server_may_speak_first(gw):
	site = gw.gateway(protocol="TCP")
	with Scripted(greet(b"220 hello\r\n")) as server:
		gw.route("/", server.port, site=site)
		with gw.connect(site) as connection:
			assert connection.take(11) == b"220 hello\r\n"


def test_half_closes_pass(gw):
	site = gw.gateway(protocol="TCP")

	def script(connection):
		connection.send(b"first")
		connection.socket.shutdown(socket.SHUT_WR)
		while connection.fill():
			pass
		seen.append(connection.buffer)

	seen = []
	with Scripted(script) as server:
		gw.route("/", server.port, site=site)
		with gw.connect(site) as connection:
			assert connection.take(5) == b"first" and connection.is_closed()
			connection.send(b"later")
			connection.socket.shutdown(socket.SHUT_WR)
			wait_until(lambda: seen == [b"later"])


def test_a_reset_passes(gw):
	site = gw.gateway(protocol="TCP")

	def script(connection):
		connection.take(1)
		connection.reset()

	with Scripted(script) as server:
		gw.route("/", server.port, site=site)
		with gw.connect(site) as connection:
			connection.send(b"x")
			with pytest.raises(ConnectionResetError):
				while connection.socket.recv(100):
					pass
	assert records(gw, site)[-1]["flag"] == "UR"


def test_refused_upstream_closes(gw):
	site = gw.gateway(protocol="TCP")
	gw.route("/", free_port(), site=site)
	assert is_turned_away(gw, site)
	assert records(gw, site)[-1]["flag"] == "UF"


def test_without_a_route_it_closes(gw):
	site = gw.gateway(protocol="TCP")
	assert is_turned_away(gw, site)
	assert records(gw, site)[-1]["flag"] == "NR"


def test_the_route_of_the_root_is_taken(gw):
	"""Others than "/" do not match."""
	site = gw.gateway(protocol="TCP")
	with Scripted(greet(b"root")) as root, Scripted(greet(b"else")) as other:
		gw.route("/sub", other.port, site=site)
		assert is_turned_away(gw, site)
		made = gw.route("/", root.port, site=site)
		with gw.connect(site) as connection:
			assert connection.take(4) == b"root"
			gw.delete(made)
			connection.send(b"goes on")
			assert connection.take(7) == b"goes on"


def test_endpoints_take_turns(gw):
	site = gw.gateway(protocol="TCP")
	with Scripted(greet(b"a")) as a, Scripted(greet(b"b"), address=("127.0.0.2", 0)) as b:
		gw.route("/", [f"127.0.0.1:{a.port}", f"127.0.0.2:{b.port}"], site=site)
		got = []
		for _ in range(6):
			with gw.connect(site) as connection:
				got.append(connection.take(1))
	# In turns at each worker, which start where they like.
	assert abs(got.count(b"a") - got.count(b"b")) <= gw.settings["workers"], got


@pytest.mark.parametrize("direction", ["up", "down"])
def test_back_pressure(gw, direction):
	size, go, sums = 64 * MEGABYTE, threading.Event(), []
	data = pattern(size)
	site = gw.gateway(protocol="TCP")

	def consume(connection):
		go.wait(30)
		sums.append(hashlib.sha256(connection.take(size)).hexdigest())

	with Scripted(consume if direction == "up" else lambda connection: connection.send(data)) as server:
		gw.route("/", server.port, site=site)
		before = gw.rss_kb()
		with gw.connect(site) as connection:
			sender = threading.Thread(target=connection.send, args=(data if direction == "up" else b"",))
			sender.start()
			wait_millis(300)    # as much as will go in is in
			assert gw.rss_kb() - before < 16 * 1024
			go.set()
			if direction == "down":
				consume(connection)
			sender.join(60)
			wait_until(lambda: sums, 60)
		assert sums == [hashlib.sha256(data).hexdigest()] and not server.errors


def test_silence_ends_it():
	with Gateway(upstream_idle_ms=300) as gw, Scripted(echo_bytes) as server:
		site = gw.gateway(protocol="TCP")
		gw.route("/", server.port, site=site)
		with gw.connect(site) as connection:
			for _ in range(5):
				connection.send(b"x")
				assert connection.take(1) == b"x"
				wait_millis(100)
			assert connection.is_closed(5)
		assert records(gw, site)[-1]["flag"] == "SI"


# ---- policies ----

def test_lists_of_gateway_and_route(gw):
	with Scripted(greet(b"in")) as server:
		for level in ("Gateway", "Route"):
			site = gw.gateway(protocol="TCP")
			route = gw.route("/", server.port, site=site)
			policy = ip_list("Black", "127.0.0.7", resource=level, layer="L4")
			gw.attach("IpAccessControl", policy, to=site if level == "Gateway" else route)
			with gw.connect(site) as connection:
				assert connection.take(2) == b"in"
			assert is_turned_away(gw, site, source="127.0.0.7")


def test_other_policies_are_degraded(gw):
	site = gw.gateway(protocol="TCP")
	with Scripted(greet(b"in")) as server:
		route = gw.route("/", server.port, site=site)
		limit = gw.attach("RateLimit", rate(1), to=route)
		by_request = gw.attach("IpAccessControl", ip_list("Black", "127.0.0.7"), to=route)
		listed = gw.attach("IpAccessControl", ip_list("Black", "127.0.0.7", layer="L4"), to=route)
		assert phase(gw, limit) == "Degraded" and phase(gw, listed) == "Active"
		assert phase(gw, by_request) == "Degraded"
		assert "no requests" in gw.ask("GET", limit.path)["status"]["reason"]
		for _ in range(3):
			with gw.connect(site) as connection:
				assert connection.take(2) == b"in"


# ---- the port ----

def test_port_belongs_to_one(gw, tcp):
	body = {**tcp.body, "gateway": "second-of-port", "elbId": "other"}
	for protocol in ("TCP", "HTTP", "TLS"):
		status, answer, _ = gw.api("POST", "/v2/meshes/default/gateways",
			{**body, "externalPort": {**body["externalPort"], "protocol": protocol}})
		assert status == 409, answer
	site = gw.gateway()
	status, answer, _ = gw.api("POST", "/v2/meshes/default/gateways", {**site.body, "gateway": "tcp-of-port", "elbId": "other",
		"externalPort": {**site.body["externalPort"], "protocol": "TCP", "hosts": ["a.test"]}})
	assert status == 409, answer


# ---- TLS that passes through ----

@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
	folder = tmp_path_factory.mktemp("tls")
	subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
		"/CN=upstream.test", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
	return folder


class Secure(Scripted):
	"""A TLS server that says its name and the one it was asked for."""

	def __init__(self, folder, name):
		self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
		self.context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
		self.context.sni_callback = lambda sock, asked, _: setattr(sock, "asked", asked)
		super().__init__(lambda connection: self.answer(connection, name))

	def answer(self, connection, name):
		with self.context.wrap_socket(connection.socket, server_side=True) as secured:
			secured.sendall(f"{name} {getattr(secured, 'asked', None)}\n".encode())
			secured.recv(100)


def ask(site, name, **options):
	"""What the server says to a client that asks for a name; None when the connection was closed before."""
	context = ssl.create_default_context()
	context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
	try:
		with socket.create_connection(("127.0.0.1", site.port), timeout=10, **options) as sock:
			with context.wrap_socket(sock, server_hostname=name) as secured:
				return secured.recv(200).decode().strip()
	except (OSError, ssl.SSLError):
		return None


@pytest.fixture(scope="module")
def passing(gw, certificate):
	site = gw.gateway(protocol="TLS", hosts=["b.test", "*.wild.test"])
	domain = gw.domain("a.test", site, protocol="HTTP")
	with Secure(certificate, "A") as a, Secure(certificate, "B") as b:
		gw.route("/", a.port, site=site, domains=[domain])
		gw.route("/", b.port, site=site)
		yield site


def test_the_name_decides(gw, passing):
	assert ask(passing, "a.test") == "A a.test"
	assert ask(passing, "A.TEST") in ("A A.TEST", "A a.test")
	assert ask(passing, "b.test") == "B b.test"
	assert ask(passing, "x.wild.test") == "B x.wild.test"
	assert ask(passing, "other.test") is None
	assert ask(passing, None) is None
	found = records(gw, passing, 4)
	assert {r["serverName"]: r.get("domain") for r in found} == {"a.test": "a.test", "b.test": None, "x.wild.test": None}
	unknown = wait_until(lambda: [r for r in gw.events("access") if r.get("serverName") == "other.test"])
	assert unknown[0]["flag"] == "NG"


def test_any_host_is_for_the_rest(gw, certificate):
	site = gw.gateway(protocol="TLS", hosts=["*"])
	with Secure(certificate, "any") as server:
		gw.route("/", server.port, site=site)
		assert ask(site, "whatever.test") == "any whatever.test"
		assert ask(site, None) == "any None"


def client_hello(name):
	incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
	context = ssl.create_default_context()
	context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
	try:
		context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
	except ssl.SSLWantReadError:
		return outgoing.read()


def test_a_hello_in_small_pieces(gw):
	"""Byte by byte, and over several records: it arrives as it was sent."""
	site = gw.gateway(protocol="TLS", hosts=["pieces.test"])
	hello = client_hello("pieces.test")
	body = hello[5:]
	split = b"".join(hello[:3] + len(part).to_bytes(2, "big") + part for part in (body[:1], body[1:100], body[100:]))
	got = []

	def script(connection):
		got.append(connection.take(len(hello)) if len(got) == 0 else connection.take(len(split)))
		connection.send(b"done")

	with Scripted(script) as server:
		gw.route("/", server.port, site=site)
		with gw.connect(site) as connection:
			for at in range(len(hello)):
				connection.send(hello[at:at + 1])
			assert connection.take(4) == b"done"
		with gw.connect(site) as connection:
			connection.send(split)
			assert connection.take(4) == b"done"
		assert got == [hello, split]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", b"\x16\x02\x01\x00\x05",
	b"\x16\x03\x01\xff\xff" + b"\x01\x00\xff\xff" + b"x" * 20000, b"\0" * 50], ids=["http", "no hello", "version", "huge", "zeros"])
def test_what_is_no_hello_is_closed(gw, passing, data):
	with gw.connect(passing) as connection:
		connection.send(data)
		assert connection.is_closed() and connection.buffer == b""


def test_a_hello_has_its_time():
	with Gateway(header_timeout_ms=300) as gw:
		site = gw.gateway(protocol="TLS")
		with gw.connect(site) as silent, gw.connect(site) as partial:
			partial.send(client_hello("a.test")[:50])
			assert silent.is_closed(5) and partial.is_closed(5)


def test_an_end_within_a_hello_is_noticed(gw, passing):
	with gw.connect(passing) as connection:
		connection.send(client_hello("a.test")[:50])
		connection.socket.shutdown(socket.SHUT_WR)
		assert connection.is_closed()


def test_many_connections(gw, tcp, echo):
	connections = [gw.connect(tcp) for _ in range(200)]
	for i, connection in enumerate(connections):
		connection.send(b"%4d" % i)
	for i, connection in enumerate(connections):
		assert connection.take(4) == b"%4d" % i
	before = gw.descriptors()
	for connection in connections:
		connection.close()
	wait_until(lambda: gw.descriptors() <= before - 400, what="the descriptors given back")


# ---- TLS that ends here ----

@pytest.fixture(scope="module")
def ca():
	return Authority()


def put_certificate(gw, pair):
	body = {"name": f"cert-{next(numbers)}", "namespace": "default", "certificate": pair.cert, "privateKey": pair.key}
	return gw.create("Certificate", "/api/v1/certificates", "certificateId", body)


class Client(Connection):
	"""Bytes over TLS."""

	def __init__(self, site, name, ca, cert=None):
		super().__init__(site.port)
		self.context = ssl.create_default_context(cafile=ca.file)
		if cert:
			self.context.load_cert_chain(cert)
		self.socket = self.context.wrap_socket(self.socket, server_hostname=name)

	def fill(self, n=65536):
		try:
			return super().fill(n)
		except ssl.SSLError:
			self.eof = True
			return False


def test_tls_that_ends_here(gw, ca):
	"""What is inside goes to the service of the name, in the clear; both ends pass."""
	certificate = put_certificate(gw, ca.issue("a.ends.test", "b.ends.test"))
	site = gw.gateway(protocol="TLS", tlsTerminationEnable=True, certList=[{"secretName": certificate.name}], hosts=["b.ends.test"])
	got = []

	def script(connection):
		while connection.fill():
			pass
		got.append(connection.buffer)
		connection.send(b"after your end" + pattern(300_000))

	with Scripted(script) as a, Scripted(greet(b"b")) as b:
		gw.route("/", a.port, site=site, domains=[gw.domain("a.ends.test", site, protocol="HTTPS", certIdentifier=certificate.id)])
		gw.route("/", b.port, site=site)
		with Client(site, "b.ends.test", ca) as client:
			assert client.take(1) == b"b"
		with Client(site, "a.ends.test", ca) as client:
			client.send(b"x" * 200_000)
			# Without close_notify: the end of the bytes counts.
			socket.socket.shutdown(client.socket, socket.SHUT_WR)
			wait_until(lambda: got == [b"x" * 200_000], what="the client's bytes and end")
		# Two workers may have served them: their records come in any order.
		seen = {(r["protocol"], r["serverName"], r["tls"]) for r in records(gw, site, 2)}
		assert seen == {("tcp", "a.ends.test", "TLSv1.3"), ("tcp", "b.ends.test", "TLSv1.3")}


def test_clients_have_to_prove_themselves(gw, ca):
	clients = Authority("Clients")
	certificate = put_certificate(gw, ca.issue("m.ends.test"))
	site = gw.gateway(protocol="TLS", tlsTerminationEnable=True, certList=[{"secretName": certificate.name}])
	with Scripted(greet(b"in")) as server:
		domain = gw.domain("m.ends.test", site, protocol="HTTPS", certIdentifier=certificate.id, mTLSEnabled=True, clientCACert=clients.cert)
		gw.route("/", server.port, site=site, domains=[domain])
		with Client(site, "m.ends.test", ca, clients.issue("me").file) as client:
			assert client.take(2) == b"in"
		try:
			with Client(site, "m.ends.test", ca) as client:
				assert client.is_closed() and client.buffer == b""
		except (OSError, ssl.SSLError):
			pass
		assert len(server.connections) == 1
