"""What the tests of TLS towards services share: certificates of every kind, nginx that shows them, services to ask."""
import re

import pytest
from gw import Gateway, Resource, numbers
from pki import Authority, self_signed
from tls_backends import Nginx
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
		"once": {"pair": ca.issue("gw.test", "a.example", "b.example"), "more": "keepalive_requests 1;"},
		"once of 1.2": {"pair": ca.issue("gw.test"), "versions": "TLSv1.2", "more": "keepalive_requests 1;"},
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


def scrape(gw):
	with Connection(gw.admin_port) as connection:
		return connection.get("/metrics", {"X-Auth-Token": gw.token}, host=gw.admin).text


def series(gw, name, **labels):
	"""The sum of the series with these labels, whatever others they have."""
	found = [(dict(re.findall(r'(\w+)="([^"]*)"', text)), float(n)) for text, n in re.findall(rf"^{name}{{(.*)}} (\S+)$", scrape(gw), re.M)]
	return sum(n for have, n in found if labels.items() <= have.items())


def failures(gw):
	text = scrape(gw)
	return {reason: float(n) for reason, n in re.findall(rf'^{BAD}{{reason="(\w+)"}} (\S+)$', text, re.M)}


def logged(gw, reason):
	"""The last record of a handshake that failed so."""
	return wait_until(lambda: [r for r in gw.events("upstream.tls_failed") if r["reason"] == reason], what="a record")[-1]


@pytest.fixture(scope="module")
def single(system_ca):
	"""One worker, so that pools can be seen."""
	with Gateway(environment={"SSL_CERT_FILE": system_ca.file}, workers=1) as gateway:
		yield gateway


def port_of(gw, service, port):
	"""The service-port resource, to attach to."""
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
