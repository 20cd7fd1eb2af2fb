"""PROXY headers in front of connections: who counts as the peer, what is refused, and where it is not looked for."""
import socket
import ssl
import struct
import zlib

import pytest
from gw import Gateway, numbers
from pki import Authority
from policy_kit import ip_list
from scripted import Scripted, UPGRADE, echo_frames, frame, read_frame
from wire import wait_until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source="203.0.113.7", destination="198.51.100.1", ports=(56324, 443), family=None):
	family = family or ("TCP6" if ":" in source else "TCP4")
	return f"PROXY {family} {source} {destination} {ports[0]} {ports[1]}\r\n".encode()


def v2(source="203.0.113.7", destination="198.51.100.1", ports=(56324, 443), command=0x21, family=None, more=b"", length=None):
	is_v6 = ":" in source
	pack = socket.AF_INET6 if is_v6 else socket.AF_INET
	addresses = socket.inet_pton(pack, source) + socket.inet_pton(pack, destination) + struct.pack(">HH", *ports)
	family = (0x21 if is_v6 else 0x11) if family is None else family
	body = addresses + more
	return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body) if length is None else length) + body


@pytest.fixture(scope="module")
def site(gw, backend_process):
	made = gw.gateway()
	gw.feature("proxyProtocol", True, made)
	gw.route("/", backend_process, site=made)
	return made


def ask(gw, site, header, target="/echo", fields=(), **options):
	"""The answer to a request behind a header; None when the connection was closed."""
	with gw.connect(site, **options) as connection:
		connection.send(header)
		try:
			connection.start("GET", target, fields)
			return connection.read_response()
		except (AssertionError, OSError):
			return None


def forwarded(answer):
	return next(value for name, value in answer.json["headers"] if name.lower() == "x-forwarded-for")


@pytest.mark.parametrize("header, peer", [
	(v1(), "203.0.113.7"),
	(v1("2001:db8::7", "2001:db8::1"), "2001:db8::7"),
	(v1("203.0.113.7", ports=(0, 65535)), "203.0.113.7"),
	(b"PROXY UNKNOWN\r\n", "127.0.0.1"),
	(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"),
	(v2(), "203.0.113.7"),
	(v2("2001:db8::7", "2001:db8::1"), "2001:db8::7"),
	(v2(more=b"\x04\x00\x03abc\x01\x00\x02h2"), "203.0.113.7"),
	(v2(more=b"\x04" + struct.pack(">H", 3000) + b"x" * 3000), "203.0.113.7"),
	(v2(command=0x20), "127.0.0.1"),
	(SIGNATURE + b"\x20\x00\x00\x00", "127.0.0.1"),
	(SIGNATURE + b"\x21\x00\x00\x00", "127.0.0.1"),
	(SIGNATURE + b"\x21\x31\x00\xd8" + b"u" * 216, "127.0.0.1"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_its_source_is_the_peer(gw, site, backend, header, peer):
	answer = ask(gw, site, header)
	assert answer.status == 200
	assert forwarded(answer) == peer
	assert wait_until(lambda: [r for r in gw.records(path="/echo") if r["client"] == peer])


def crc32c(data):
	crc = 0xffffffff
	for byte in data:
		crc ^= byte
		for _ in range(8):
			crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
	return crc ^ 0xffffffff


def test_checksum(gw, site, backend):
	assert crc32c(b"123456789") == 0xe3069283
	blank = v2(more=b"\x03\x00\x04\0\0\0\0")
	right = blank[:-4] + struct.pack(">I", crc32c(blank))
	assert ask(gw, site, right).status == 200
	assert ask(gw, site, blank) is None
	assert ask(gw, site, blank[:-4] + struct.pack(">I", zlib.crc32(blank))) is None


@pytest.mark.parametrize("header", [
	b"",
	b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\n",
	b"PROXY TCP4 203.0.113.7 198.51.100.1 56324\r\n",
	b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443 \r\n",
	b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443 1\r\n",
	b"PROXY  TCP4 203.0.113.7 198.51.100.1 56324 443\r\n",
	b"PROXY TCP4  203.0.113.7 198.51.100.1 56324 443\r\n",
	b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 65536\r\n",
	b"PROXY TCP4 203.0.113.7 198.51.100.1 056324 443\r\n",
	b"PROXY TCP4 203.0.113.7 198.51.100.1 -1 443\r\n",
	b"PROXY TCP4 203.0.113.07 198.51.100.1 1 443\r\n",
	b"PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n",
	b"PROXY TCP6 203.0.113.7 198.51.100.1 1 443\r\n",
	b"PROXY TCP6 fe80::1%1 2001:db8::1 1 443\r\n",
	b"PROXY UDP4 203.0.113.7 198.51.100.1 1 443\r\n",
	b"PROXY tcp4 203.0.113.7 198.51.100.1 1 443\r\n",
	b"PROXYTCP4 203.0.113.7 198.51.100.1 1 443\r\n",
	b"proxy TCP4 203.0.113.7 198.51.100.1 1 443\r\n",
	b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
	v2(command=0x22), v2(command=0x11), v2(command=0x01),
	v2(family=0x12), v2(family=0x22), v2(family=0x41), v2(family=0x13),
	v2(family=0x21), v2(length=11), v2(length=65535),
	v2(more=b"\x04"), v2(more=b"\x04\x00"), v2(more=b"\x04\x00\x02x"),
	b"\r\n\r\n\0\r\nQUIX\n\x21\x11\x00\x0c" + b"x" * 12,
], ids=str)
def test_what_is_none_is_closed(gw, site, header):
	assert ask(gw, site, header) is None


def test_in_small_pieces(gw, site, backend):
	for header in (v1(), v2(more=b"\x04\x00\x03abc")):
		with gw.connect(site) as connection:
			for at in range(len(header)):
				connection.send(header[at:at + 1])
			assert forwarded(connection.get("/echo")) == "203.0.113.7"
			assert forwarded(connection.get("/echo")) == "203.0.113.7"    # the connection's, for all its requests


def test_only_one_header(gw, site):
	answer = ask(gw, site, v1() + v1())
	assert answer.status == 400


def test_has_its_time():
	with Gateway(header_timeout_ms=300) as gw:
		gw.feature("proxyProtocol", True)
		with gw.connect() as silent, gw.connect() as partial:
			partial.send(b"PROXY TCP4 203")
			assert silent.is_closed(5) and partial.is_closed(5)
			assert silent.buffer == partial.buffer == b""


def test_an_end_within_it(gw, site):
	with gw.connect(site) as connection:
		connection.send(b"PROXY TCP4 203")
		connection.socket.shutdown(socket.SHUT_WR)
		assert connection.is_closed()


def test_is_not_looked_for_elsewhere(gw, backend):
	gw.route("/", backend)
	answer = ask(gw, gw.default, v1())
	assert answer.status == 400
	assert gw.ask("GET", f"/api/v1/gateways/{gw.default.id}/gateway-features/proxyProtocol")["value"] is False


def test_can_be_switched(gw, backend):
	site = gw.gateway()
	gw.route("/", backend, site=site)
	assert ask(gw, site, b"").status == 200
	gw.feature("proxyProtocol", True, site)
	assert ask(gw, site, b"") is None
	assert forwarded(ask(gw, site, v1())) == "203.0.113.7"
	gw.feature("proxyProtocol", False, site)
	assert ask(gw, site, b"").status == 200


def test_refusals_are_recorded(gw, site):
	ask(gw, site, b"PROXY nonsense\r\n")
	assert wait_until(lambda: [r for r in gw.records(flag="BR") if r["reason"] == "proxy_header"])


def test_lists_see_its_source(gw, backend):
	for layer, refused in (("L4", None), ("L7", 403)):
		site = gw.gateway()
		gw.feature("proxyProtocol", True, site)
		gw.route("/", backend, site=site)
		gw.attach("IpAccessControl", ip_list("Black", "203.0.113.0/24", resource="Gateway", layer=layer), to=site)
		answer = ask(gw, site, v1())
		assert (answer and answer.status) == refused
		assert ask(gw, site, v1("198.51.100.9")).status == 200


def test_trusted_hops_come_behind_it(gw, backend):
	"""X-Forwarded-For is believed when the source is a trusted proxy."""
	site = gw.gateway()
	gw.feature("proxyProtocol", True, site)
	gw.feature("trustedProxies", ["203.0.113.0/24"], site)
	gw.route("/", backend, site=site)
	answer = ask(gw, site, v1(), fields={"X-Forwarded-For": "192.0.2.1"})
	assert forwarded(answer) == "192.0.2.1, 203.0.113.7"
	assert gw.wait_record(client="192.0.2.1")


def test_upgrades_behind_it(gw):
	site = gw.gateway()
	gw.feature("proxyProtocol", True, site)
	with Scripted(echo_frames) as server:
		gw.route("/", server.port, site=site)
		with gw.connect(site) as connection:
			connection.send(v2())
			connection.start("GET", "/ws-behind", UPGRADE)
			assert connection.read_response().status == 101
			connection.send(frame(b"x", mask=True))
			assert read_frame(connection) == (2, b"x")
	assert gw.wait_record(path="/ws-behind")["client"] == "203.0.113.7"


@pytest.mark.parametrize("protocol", ["TCP", "TLS"])
def test_before_bytes(gw, protocol):
	"""A TCP gateway passes on what is behind the header, and judges its source."""
	from test_tcp import client_hello
	site = gw.gateway(protocol=protocol)
	gw.feature("proxyProtocol", True, site)
	data = client_hello("x.test") if protocol == "TLS" else b"bytes"
	got = []

	def script(connection):
		got.append(connection.take(len(data)))
		connection.send(b"done")

	with Scripted(script) as server:
		route = gw.route("/", server.port, site=site)
		with gw.connect(site) as connection:
			connection.send(v1() + data)
			assert connection.take(4) == b"done"
		assert got == [data]
		gw.attach("IpAccessControl", ip_list("Black", "203.0.113.7", layer="L4"), to=route)
		with gw.connect(site) as connection:
			connection.send(v2() + data)
			assert connection.is_closed() and connection.buffer == b""
	found = wait_until(lambda: [r for r in gw.events("access") if r.get("gateway") == site.name])
	assert found[0]["client"] == "203.0.113.7"


@pytest.mark.parametrize("header", [v1(), v2()], ids=["v1", "v2"])
def test_before_tls(gw, backend, header):
	ca = Authority()
	pair = ca.issue("p.test")
	certificate = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": f"cert-{next(numbers)}",
		"namespace": "default", "certificate": pair.cert, "privateKey": pair.key})
	site = gw.gateway(protocol="HTTPS", certList=[{"secretName": certificate.name}])
	gw.feature("proxyProtocol", True, site)
	gw.route("/", backend, site=site)
	with gw.connect(site) as connection:
		connection.send(header)
		connection.socket = ssl.create_default_context(cafile=ca.file).wrap_socket(connection.socket, server_hostname="p.test")
		assert forwarded(connection.get("/echo")) == "203.0.113.7"
