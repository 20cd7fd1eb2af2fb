"""TLS towards services: WebSocket, TCP and HTTP/2 through it, hostile servers, health checks, and changes of configuration."""
import contextlib
import re
import socket
import ssl
import subprocess
import time

import pytest
from gw import Gateway, free_port, numbers
from pki import Authority
from policy_kit import burst, count, phase
from scripted import UPGRADE, Scripted, accept_key
from service_tls_kit import *    # noqa: F403 -- the vocabulary and its fixtures
from tls_backends import TlsScripted, server_context
from wire import wait_until

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
		attachment = gw.attach("ServiceTls", simple(ca, sni="db.internal"), to=service)
		assert phase(gw, attachment) == "Active"
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
		# The reset may be there before connect() has looked.
		with contextlib.suppress(ConnectionResetError), gw.connect(site) as connection:
			assert not connection.fill()
		assert not server.connections or all(not c.buffer for c in server.connections)


def test_tls_that_passes_through_gets_no_second_one(gw, ca):
	pair = ca.issue("db.internal")
	with TlsScripted(serve, server_context(pair)) as server:
		site = gw.gateway(protocol="TLS", hosts=("db.internal",))
		service = gw.service(f"127.0.0.1:{server.port}", site, ports=[{"name": "a", "port": server.port, "protocol": "HTTPS"}])
		gw.route("/", service, site)
		context = ssl.create_default_context(cadata=ca.cert)
		with socket.create_connection(("127.0.0.1", site.port)) as plain, context.wrap_socket(plain, server_hostname="db.internal") as client:
			client.sendall(b"GET / HTTP/1.1\r\n\r\n")
			assert client.recv(100).startswith(b"HTTP/1.1 200")
		policy = gw.policy("ServiceTls", simple(ca))
		status, answer, _ = gw.api("POST", "/api/v1/policy-attachments", {"attachResourceId": service.id, "attachResourceType": "Service",
			"gatewayId": site.id, "policyId": policy.id})
		assert status == 400 and answer["errorMessage"].startswith("Invalid parameter: config.mode"), answer


def test_many_handshakes_at_once(gw, nginx, ca):
	"""They take turns; none is forgotten."""
	for name, protocol in (("good", "HTTP"), ("h2", "HTTP2")):
		port = nginx.ports[name]
		service = Secured(gw, f"127.0.0.1:{port}", simple(ca), ports=[{"name": "a", "port": port, "protocol": protocol}])
		assert count(burst(gw, 100, service.path)) == {200: 100}


def test_hostile_http2_upstreams(gw, ca):
	for what, reason in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "not_tls"), (b"", "closed_by_upstream")):
		def script(connection, what=what):
			connection.fill()
			connection.send(what)

		with Scripted(script) as server:
			service = Secured(gw, f"127.0.0.1:{server.port}", simple(ca), ports=[{"name": "a", "port": server.port, "protocol": "GRPC"}])
			assert [service.refused() for _ in range(2)] == [reason] * 2


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
], ids=["http", "alert", "huge record", "half a hello", "end"])
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


def test_renegotiation_is_not_done(gw, ca):
	"""A server of TLS 1.2 that asks for it in the middle of an answer is told no. OpenSSL's ends the connection for that."""
	pair = ca.issue("gw.test")
	port = free_port()
	server = subprocess.Popen(["openssl", "s_server", "-4", "-accept", str(port), "-cert", str(pair.cert_file), "-key", str(pair.key_file),
		"-tls1_2", "-naccept", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
	try:
		wait_until(lambda: is_listening(port), what="s_server")
		service = Secured(gw, port, simple(ca))
		with gw.connect() as connection:
			connection.start("GET", service.path, host="gw.test")
			line = b""
			while b"GET " not in line:
				line = server.stdout.readline()
			write_raw(server, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
			assert connection.read_head().status == 200 and connection.take(5) == b"first"
			write_raw(server, b"R\n")
			assert connection.is_closed()
		record = gw.wait_record(path=service.path)
		assert record["reason"] == "the upstream closed within the body", record
		assert b"renegotiation" in server.communicate(timeout=20)[0]
	finally:
		server.kill()
		server.wait()


def write_raw(server, data):
	server.stdin.write(data)
	server.stdin.flush()


def is_listening(port):
	"""Looks without connecting: s_server takes one connection."""
	with open("/proc/net/tcp", encoding="ascii") as table:
		return any(f":{port:04X} 00000000:0000 0A" in line for line in table)


def test_server_that_refuses_us_late(gw, nginx, ca, client_ca):
	"""TLS 1.3: the alert comes after we have sent the request. Nothing of it was read: it goes elsewhere, whatever its method."""
	version = ssl.TLSVersion.TLSv1_3
	with TlsScripted(serve, server_context(ca.issue("gw.test"), client_ca, (version, version))) as server:
		service = Secured(gw, [f"127.0.0.1:{server.port}", f"127.0.0.1:{nginx.ports['good']}"], simple(ca))
		gw.attach("Retry", {"attempts": 3, "retryOn": ["connect-failure"]}, to=service.route)
		for method, body in (("GET", None), ("POST", b"body"), ("GET", None), ("POST", b"body")):
			assert gw.request(method, service.path, body=body, host="gw.test").status == 200
		wait_until(lambda: server.refused, what="a refused handshake")
		assert not server.connections


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
	assert series(gw, "sluice_upstream_failures_total", service=service.service.name, reason="connect") == 1


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
	return series(gw, "sluice_endpoint_healthy", service=service.service.name, endpoint=endpoint)


@pytest.mark.parametrize("protocol", ["HTTP", "TCP"])
def test_health_checks_speak_tls(gw, nginx, ca, protocol):
	good, expired = (f"127.0.0.1:{nginx.ports[name]}" for name in ("good", "expired"))
	service = Secured(gw, [good, expired], simple(ca), healthCheckConfig=health(protocol))
	wait_until(lambda: (healthy(gw, service, good), healthy(gw, service, expired)) == (1, 0), 30, "the good one alone, though no name is given")
	for _ in range(6):
		assert service.see()["port"] == str(nginx.ports["good"])


def test_health_check_of_an_https_service(gw, nginx):
	port = nginx.ports["system"]
	service = Secured(gw, f"127.0.0.1:{port}", ports=[{"name": "a", "port": port, "protocol": "HTTPS"}],
		healthCheckConfig=health(httpHost="gw.test"))
	wait_until(lambda: series(gw, GOOD, result="full") + series(gw, GOOD, result="resumed") > 0, 20, "handshakes")
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
