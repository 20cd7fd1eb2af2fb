"""ServiceTls and ServicePortTls: who is believed, for which name, and what is refused."""
import json
import re
import ssl

import pytest
from gw import numbers
from pki import Authority
from policy_kit import phase
from service_tls_kit import *    # noqa: F403 -- the vocabulary and its fixtures
from tls_backends import TlsScripted, server_context
from wire import wait_until

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
	"""By servers that close after each answer."""
	for name in ("once", "once of 1.2"):
		service = Secured(single, nginx.ports[name], simple(ca))
		full, resumed = (series(single, GOOD, result=result) for result in ("full", "resumed"))
		seen = [service.see() for _ in range(4)]
		assert [one["reused"] for one in seen] == [".", "r", "r", "r"], name
		assert len({one["connection"] for one in seen}) == 4
		assert (series(single, GOOD, result="full"), series(single, GOOD, result="resumed")) == (full + 1, resumed + 3)


def test_trap_session_of_another_name_is_not_resumed(single, nginx, ca):
	service = Secured(single, nginx.ports["once"], simple(ca))
	assert [service.see(host)["reused"] for host in ("a.example", "b.example", "a.example")] == [".", ".", "r"]
	assert service.refused("c.example") == "name_mismatch"


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
	before = series(gw, GOOD, result="full")
	Secured(gw, nginx.ports["good"], simple(ca)).see()
	assert series(gw, GOOD, result="full") == before + 1
	for reason in ("untrusted", "expired", "name_mismatch", "closed_by_upstream", "timeout"):
		assert reason in failures(gw)


def test_no_secret_is_printed(gw, nginx, ca, client_ca):
	pair = client_ca.issue("client.test")
	shown = put_certificate(gw, pair)
	service = Secured(gw, nginx.ports["mutual"], {"mode": "MUTUAL", "certId": shown.id, "caCertContent": ca.cert})
	service.see()
	secret = pair.key.split("\n")[1]
	assert secret not in json.dumps(gw.ask("GET", shown.path)) and secret not in gw.stderr()
	assert secret not in scrape(gw)
