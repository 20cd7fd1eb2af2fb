"""TLS that ends at the gateway: which certificate, which versions, who may come in, and what happens when certificates change."""
import concurrent.futures
import hashlib
import json
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest
from backends import Backend
from gw import IS_SANITIZED, Gateway, Resource, free_port, numbers
from pki import Authority
from wire import Connection, pattern, wait_until


@pytest.fixture(scope="module")
def gw():
	with Gateway(header_timeout_ms=1000) as gateway:
		yield gateway


@pytest.fixture(scope="module")
def ca():
	return Authority()


def put_certificate(gw, pair, name=None, **more):
	body = {"name": name or f"cert-{next(numbers)}", "namespace": "default", "certificate": pair.cert, "privateKey": pair.key, **more}
	return gw.create("Certificate", "/api/v1/certificates", "certificateId", body)


def secure(gw, *certificates, versions=("TLSV1_2", "TLSV1_3"), **more):
	"""A gateway with TLS that shows certificates: resources, or items of certList."""
	items = [{"secretName": one.name} if isinstance(one, Resource) else one for one in certificates]
	return gw.gateway(protocol="HTTPS", certList=items, minProtocolVersion=versions[0], maxProtocolVersion=versions[1], **more)


def https(gw, name, site, certificate, **more):
	return gw.domain(name, site=site, protocol="HTTPS", certIdentifier=certificate.id, **more)


@pytest.fixture(scope="module")
def site(gw, ca, backend_process):
	"""a.test by default, b.test and *.w.test by name."""
	pairs = [ca.issue("a.test"), ca.issue("b.test", "b2.test"), ca.issue("*.w.test")]
	made = secure(gw, *(put_certificate(gw, pair) for pair in pairs))
	gw.route("/", backend_process, site=made)
	return made


class Client(Connection):
	"""HTTP/1.1 over TLS. `secured` is python's SSLSocket."""

	def __init__(self, port, name="a.test", ca=None, cert=None, versions=None, alpn=None, session=None, context=None, **options):
		super().__init__(port, **options)
		self.context = context or client_context(ca, cert, versions, alpn)
		try:
			self.socket = self.secured = self.context.wrap_socket(self.socket, server_hostname=name, session=session)
		except OSError:
			self.socket.close()
			raise

	def fill(self, n=65536):
		try:
			return super().fill(n)
		except ssl.SSLError as error:
			self.error = error
			self.eof = True
			return False

	def names(self):
		return [value for kind, value in self.secured.getpeercert()["subjectAltName"]]


def client_context(ca=None, cert=None, versions=None, alpn=None):
	context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
	context.check_hostname = False
	context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
	if ca:
		context.load_verify_locations(ca.file)
	if cert:
		context.load_cert_chain(cert.cert_file, cert.key_file)
	if versions:
		context.minimum_version, context.maximum_version = versions
		context.set_ciphers("ALL:@SECLEVEL=0")
	if alpn:
		context.set_alpn_protocols(alpn)
	return context


def shown(site, name, ca, **options):
	with Client(site.port, name, ca, **options) as client:
		return client.names()


def metric(gw, name, **labels):
	connection = Connection(gw.admin_port)
	with connection:
		text = connection.get("/metrics", {"X-Auth-Token": gw.token}, host=gw.admin).text
	want = ",".join(f'{key}="{value}"' for key, value in labels.items())
	found = re.search(rf"^{name}\{{{want}\}} (\S+)$", text, re.M)
	return float(found.group(1)) if found else 0.0


# ---- which certificate ----

@pytest.mark.parametrize("name, want", [
	("a.test", "a.test"), ("A.TEST", "a.test"), ("b.test", "b.test"), ("b2.test", "b.test"), ("x.w.test", "*.w.test"),
	("w.test", "a.test"), ("unknown.test", "a.test"), (None, "a.test"),
])
def test_certificate_by_name(site, ca, name, want):
	assert shown(site, name, ca)[0] == want


def test_request_and_what_the_upstream_learns(gw, site, ca, backend):
	with Client(site.port, "b.test", ca) as client:
		answer = client.get("/echo/tls", host="b.test")
		assert answer.status == 200
		assert client.get("/echo/again", host="b.test").status == 200
	seen = backend.requests()[0]
	assert seen.header("X-Forwarded-Proto") == "https"
	assert seen.header("X-Forwarded-Port") == str(site.port)
	record = gw.wait_record(path="/echo/tls")
	assert (record["tls"], record["sni"]) == ("TLSv1.3", "b.test")


def test_curl(site, ca, backend):
	done = subprocess.run(["curl", "-sS", "--cacert", ca.file, "--resolve", f"a.test:{site.port}:127.0.0.1", "-w", "%{http_code}",
		"-o", "/dev/null", f"https://a.test:{site.port}/echo"], capture_output=True, text=True)
	assert done.stdout == "200", done


def test_names_of_certlist_replace_those_of_the_certificate(gw, ca):
	one, two = put_certificate(gw, ca.issue("one.test")), put_certificate(gw, ca.issue("two.test"))
	made = secure(gw, one, {"secretName": two.name, "hosts": ["other.test", "*.deep.test"]})
	assert shown(made, "two.test", ca) == ["one.test"]
	assert shown(made, "other.test", ca) == ["two.test"]
	assert shown(made, "x.deep.test", ca) == ["two.test"]


def test_gateway_on_every_host_gives_the_default_of_a_shared_port(gw, ca):
	named, other = put_certificate(gw, ca.issue("named.test")), put_certificate(gw, ca.issue("star.test"))
	port = free_port()
	first = secure(gw, named, port=port, hosts=["named.test"])
	secure(gw, other, port=port, hosts=["*"], elbId=first.body["elbId"])
	assert shown(first, "named.test", ca) == ["named.test"]
	assert shown(first, "unknown.test", ca) == ["star.test"]


def test_chain_is_sent(gw, ca):
	middle = Authority("Middle CA", above=ca)
	leaf = middle.issue("chain.test")
	leaf.cert += middle.cert
	made = secure(gw, put_certificate(gw, leaf))
	assert shown(made, "chain.test", ca) == ["chain.test"]


def test_rsa_certificate(gw, ca):
	made = secure(gw, put_certificate(gw, ca.issue("rsa.test", key="2048")))
	assert shown(made, "rsa.test", ca) == ["rsa.test"]


# ---- versions ----

V = ssl.TLSVersion
ALL = [("TLSV1_0", V.TLSv1, "TLSv1"), ("TLSV1_1", V.TLSv1_1, "TLSv1.1"), ("TLSV1_2", V.TLSv1_2, "TLSv1.2"), ("TLSV1_3", V.TLSv1_3, "TLSv1.3")]


def check_versions(site, name, low, high):
	for i, (_, version, text) in enumerate(ALL):
		if low <= i <= high:
			with Client(site.port, name, versions=(version, version)) as client:
				assert client.secured.version() == text
		else:
			with pytest.raises(OSError):
				Client(site.port, name, versions=(version, version))


@pytest.mark.parametrize("low, high", [(i, j) for i in range(4) for j in range(i, 4)])
def test_versions_of_the_gateway(gw, ca, low, high):
	pair = ca.issue("v.test", key="2048")
	made = secure(gw, put_certificate(gw, pair), versions=(ALL[low][0], ALL[high][0]))
	check_versions(made, "v.test", low, high)


def test_versions_of_each_certificate(gw, ca):
	new, old = put_certificate(gw, ca.issue("new.test")), put_certificate(gw, ca.issue("old.test"))
	made = secure(gw, {"secretName": new.name, "minProtocolVersion": "TLSv1.3"}, {"secretName": old.name, "maxProtocolVersion": "TLS 1.2"})
	check_versions(made, "new.test", 3, 3)
	check_versions(made, "old.test", 2, 2)


def test_version_failures_are_counted(gw, site):
	before = metric(gw, "sluice_tls_handshake_failures_total", reason="version")
	with pytest.raises(OSError):
		Client(site.port, versions=(V.TLSv1_1, V.TLSv1_1))
	wait_until(lambda: metric(gw, "sluice_tls_handshake_failures_total", reason="version") == before + 1)


def test_versions_of_a_domain(gw, ca, backend_process):
	secret = put_certificate(gw, ca.issue("*.dv.test"))
	made = secure(gw, secret)
	https(gw, "strict.dv.test", made, secret, tlsMin="TLSV1_3")
	https(gw, "late.dv.test", made, secret, tlsMax="TLSV1_2")
	gw.route("/", backend_process, site=made)
	check_versions(made, "strict.dv.test", 3, 3)
	check_versions(made, "late.dv.test", 2, 2)
	check_versions(made, "other.dv.test", 2, 3)


def test_version_of_a_domain_cannot_be_passed_by_under_another_name(gw, ca, backend_process):
	secret = put_certificate(gw, ca.issue("*.by.test"))
	made = secure(gw, secret)
	strict = https(gw, "strict.by.test", made, secret, tlsMin="TLSV1_3")
	gw.route("/", backend_process, site=made)
	gw.route("/", backend_process, site=made, domains=[strict])
	with Client(made.port, "open.by.test", versions=(V.TLSv1_2, V.TLSv1_2)) as client:
		assert client.get("/echo", host="open.by.test").status == 200
		assert client.get("/echo", host="strict.by.test").status == 421
	with Client(made.port, "open.by.test") as client:
		assert client.get("/echo", host="strict.by.test").status == 200


def test_no_renegotiation_no_compression_one_ticket(site, ca):
	done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-tls1_2", "-servername", "a.test"],
		input=b"R\n", capture_output=True)
	text = (done.stdout + done.stderr).decode("latin-1")
	assert "no renegotiation" in text, text[-2000:]
	assert "Compression: NONE" in text
	with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-tls1_3", "-servername", "a.test", "-ign_eof"],
			stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
		process.stdin.write(b"GET /echo HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
		process.stdin.flush()
		text = process.stdout.read().decode("latin-1")
	assert text.count("Post-Handshake New Session Ticket arrived") == 1
	assert "Max Early Data: 0" in text
	assert "X25519" in text


# ---- ALPN ----

@pytest.mark.parametrize("offer, want", [
	(["http/1.1"], "http/1.1"), (None, None), (["foo", "http/1.1"], "http/1.1"), (["http/1.1", "h2"], "h2"), (["h2"], "h2"),
])
def test_alpn(site, offer, want):
	with Client(site.port, alpn=offer) as client:
		assert client.secured.selected_alpn_protocol() == want


def test_http2_after_the_handshake(gw, site, ca, backend):
	done = subprocess.run(["curl", "-sS", "--http2", "--cacert", ca.file, "--resolve", f"a.test:{site.port}:127.0.0.1", "-w",
		"%{http_version} %{http_code} %{size_download}\n", "-o", "/dev/null", f"https://a.test:{site.port}/size/300000",
		"-o", "/dev/null", f"https://a.test:{site.port}/size/70000"], capture_output=True, text=True)
	assert done.stdout == "2 200 300000\n2 200 70000\n", done
	assert backend.requests()[0].header("X-Forwarded-Proto") == "https"


def test_alpn_without_a_common_protocol(gw, site):
	before = metric(gw, "sluice_tls_handshake_failures_total", reason="no_application_protocol")
	with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
		Client(site.port, alpn=["spdy/1"])
	wait_until(lambda: metric(gw, "sluice_tls_handshake_failures_total", reason="no_application_protocol") == before + 1)


# ---- resumption ----

@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3])
def test_sessions_go_on_on_every_worker(gw, site, version):
	context = client_context(versions=(version, version))
	resumed_before = metric(gw, "sluice_tls_handshakes_total", result="resumed")
	with Client(site.port, context=context) as first:
		assert first.get("/echo", host="a.test").status == 200
		session = first.secured.session
		assert not first.secured.session_reused
	for _ in range(12):       # two workers: all on one of them is one chance in 2000
		with Client(site.port, context=context, session=session) as again:
			assert again.secured.session_reused
			assert again.get("/echo", host="a.test").status == 200
	wait_until(lambda: metric(gw, "sluice_tls_handshakes_total", result="resumed") == resumed_before + 12)


def test_session_of_another_certificate_is_not_resumed(site):
	context = client_context()
	with Client(site.port, "a.test", context=context) as first:
		first.get("/echo", host="a.test")
		session = first.secured.session
	with Client(site.port, "b.test", context=context, session=session) as other:
		assert not other.secured.session_reused
		assert other.get("/echo", host="b.test").status == 200


# ---- client certificates ----

@pytest.fixture(scope="module")
def guarded(gw, ca, backend_process):
	secret = put_certificate(gw, ca.issue("*.m.test"))
	made = secure(gw, secret)
	made.client_ca, made.secret = Authority("Client CA"), secret
	domain = https(gw, "secret.m.test", made, secret, mTLSEnabled=True, clientCACert=made.client_ca.cert)
	gw.route("/", backend_process, site=made)
	gw.route("/", backend_process, site=made, domains=[domain])
	made.domain = domain
	return made


def refused(port, name, **options):
	"""With TLS 1.3 a client learns of the refusal when it reads."""
	try:
		with Client(port, name, **options) as client:
			client.send(b"GET / HTTP/1.1\r\nHost: secret.m.test\r\n\r\n")
			return not client.fill() and b"HTTP" not in client.buffer
	except OSError:
		return True


@pytest.mark.parametrize("versions", [None, (V.TLSv1_2, V.TLSv1_2)])
def test_client_certificate(gw, guarded, versions):
	good, wrong = guarded.client_ca.issue("alice"), Authority("Other CA").issue("mallory")
	with Client(guarded.port, "secret.m.test", cert=good, versions=versions) as client:
		assert client.get("/echo", host="secret.m.test").status == 200
	reasons = ("client_certificate_missing", "client_certificate_refused")

	def counts():
		return [metric(gw, "sluice_tls_handshake_failures_total", reason=reason) for reason in reasons]

	before = counts()
	assert refused(guarded.port, "secret.m.test", versions=versions)
	assert refused(guarded.port, "secret.m.test", cert=wrong, versions=versions)
	wait_until(lambda: [after - was for was, after in zip(before, counts())] == [1, 1])


def test_expired_client_certificate(guarded):
	old = guarded.client_ca.issue("old", start="20200101000000Z", end="20210101000000Z")
	assert refused(guarded.port, "secret.m.test", cert=old)


def test_client_certificate_cannot_be_passed_by_under_another_name(guarded):
	with Client(guarded.port, "open.m.test") as client:
		assert client.get("/echo", host="open.m.test").status == 200
		assert client.get("/echo", host="secret.m.test").status == 421
	session_context = client_context()
	with Client(guarded.port, "open.m.test", context=session_context) as client:
		client.get("/echo", host="open.m.test")
		session = client.secured.session
	assert refused(guarded.port, "secret.m.test", context=session_context, session=session)


def test_session_with_client_certificate_is_resumed_with_it(guarded):
	context = client_context(cert=guarded.client_ca.issue("bob"))
	with Client(guarded.port, "secret.m.test", context=context) as client:
		assert client.get("/echo", host="secret.m.test").status == 200
		session = client.secured.session
	with Client(guarded.port, "secret.m.test", context=context, session=session) as client:
		assert client.secured.session_reused
		assert client.get("/echo", host="secret.m.test").status == 200


def test_client_ca_that_changes_counts_at_once(gw, guarded, ca, backend_process):
	first, second = Authority("First CA"), Authority("Second CA")
	alice, bob = first.issue("alice"), second.issue("bob")
	domain = https(gw, "swap.m.test", guarded, guarded.secret, mTLSEnabled=True, clientCACert=first.cert)
	gw.route("/", backend_process, site=guarded, domains=[domain])
	with Client(guarded.port, "swap.m.test", cert=alice) as client:
		assert client.get("/echo", host="swap.m.test").status == 200
		gw.ask("PUT", domain.path, {**domain.body, "clientCACert": second.cert})
		assert client.get("/echo", host="swap.m.test").status == 421, "what it proved is no longer asked"
	assert refused(guarded.port, "swap.m.test", cert=alice)
	with Client(guarded.port, "swap.m.test", cert=bob) as client:
		assert client.get("/echo", host="swap.m.test").status == 200
	gw.ask("PUT", domain.path, {"name": "swap.m.test", "gatewayId": guarded.id, "protocol": "HTTPS", "certIdentifier": guarded.secret.id})
	with Client(guarded.port, "swap.m.test") as client:
		assert client.get("/echo", host="swap.m.test").status == 200


# ---- certificates of domains ----

def test_certificate_of_a_domain(gw, ca, backend_process):
	made = secure(gw, put_certificate(gw, ca.issue("default.test")))
	own = put_certificate(gw, ca.issue("own.test"))
	assert shown(made, "own.test", ca) == ["default.test"]
	domain = https(gw, "own.test", made, own)
	assert shown(made, "own.test", ca) == ["own.test"]
	wild = https(gw, "*.own.test", made, own)
	assert shown(made, "x.own.test", ca) == ["own.test"]
	status, answer, _ = gw.api("DELETE", own.path)
	assert status == 409, answer
	gw.delete(domain)
	assert shown(made, "own.test", ca) == ["default.test"]
	gw.delete(wild)
	assert shown(made, "x.own.test", ca) == ["default.test"]
	gw.delete(own)


def test_certificate_of_a_domain_goes_before_the_gateway_s(gw, ca):
	made = secure(gw, put_certificate(gw, ca.issue("both.test", "listed.test")))
	own = put_certificate(gw, ca.issue("both.test"))
	domain = https(gw, "both.test", made, own)
	assert shown(made, "both.test", ca) == ["both.test"]
	gw.ask("PUT", domain.path, {"name": "both.test", "gatewayId": made.id, "protocol": "HTTP"})
	assert shown(made, "both.test", ca) == ["both.test", "listed.test"]


# ---- forceHttps ----

def test_force_https(gw, ca, backend_process, backend):
	secret = put_certificate(gw, ca.issue("*.f.test"))
	tls = secure(gw, secret, hosts=["*.f.test"])
	plain = gw.gateway()
	for site in (tls, plain):
		domain = https(gw, "shop.f.test", site, secret, forceHttps=True)
		gw.route("/", backend_process, site=site)
		gw.route("/", backend_process, site=site, domains=[domain])
	# The name belongs to the domain on the TLS gateway, so its port is the right one.
	answer = gw.request("POST", "/a%20b/../c?x=1&y=2", body=b"body", host=f"shop.f.test:{plain.port}", site=plain)
	assert (answer.status, answer.header("Location")) == (308, f"https://shop.f.test:{tls.port}/c?x=1&y=2")
	assert gw.wait_record(path="/c", status=308)["flag"] == "HS"
	assert gw.get("/echo", host="other.f.test", site=plain).status == 200
	with Client(tls.port, "shop.f.test") as client:
		assert client.get("/echo", host="shop.f.test").status == 200
	# A load balancer in front that is believed has ended TLS already.
	gw.feature("xffTrustedNum", 1, site=plain)
	assert gw.get("/echo", {"X-Forwarded-Proto": "https"}, host="shop.f.test", site=plain).status == 200
	gw.feature("xffTrustedNum", 0, site=plain)
	assert gw.get("/echo", {"X-Forwarded-Proto": "https"}, host="shop.f.test", site=plain).status == 308


def test_force_https_finds_the_port_whatever_comes_first(ca):
	with Gateway() as gw:
		secret, plain = put_certificate(gw, ca.issue("l.test")), gw.gateway()
		https(gw, "l.test", plain, secret, forceHttps=True)

		def location():
			return gw.get("/x", host="l.test", site=plain).header("Location")

		assert location() == "https://l.test/x", "443 while no gateway serves it over TLS"
		every = secure(gw, secret)
		assert location() == f"https://l.test:{every.port}/x"
		named = secure(gw, secret, hosts=["l.test"])
		assert location() == f"https://l.test:{named.port}/x"
		gw.delete(named)
		gw.delete(every)
		assert location() == "https://l.test/x"


# ---- replacement ----

def test_replacing_a_certificate_under_load_drops_nothing(gw, ca, backend_process):
	secret = put_certificate(gw, ca.issue("old.r.test", "r.test"))
	made = secure(gw, secret)
	gw.route("/", backend_process, site=made)
	stop, counts, failures = threading.Event(), [0, 0], []

	def keep(i):
		with Client(made.port, "r.test") as client:
			while not stop.is_set():
				answer = client.get("/echo", host="r.test")
				counts[0] += answer.status == 200

	def renew(i):
		while not stop.is_set():
			with Client(made.port, "r.test") as client:
				counts[1] += client.get("/echo", host="r.test").status == 200

	def watch(f, i):
		try:
			f(i)
		except Exception as error:
			failures.append(repr(error))

	with concurrent.futures.ThreadPoolExecutor(6) as pool:
		for i in range(6):
			pool.submit(watch, keep if i < 3 else renew, i)
		for n in range(10):
			pair = ca.issue(f"new{n}.r.test", "r.test")
			gw.ask("PUT", secret.path, {**secret.body, "certificate": pair.cert, "privateKey": pair.key})
			assert shown(made, "r.test", ca) == [f"new{n}.r.test", "r.test"], "in force when the answer is there"
		stop.set()
	assert not failures
	assert counts[0] > 20 and counts[1] > 20, counts


def test_certificate_in_the_gateway_s_own_namespace_goes_first(gw, ca):
	name = f"cert-{next(numbers)}"
	put_certificate(gw, ca.issue("default-ns.test"), name)
	made = secure(gw, {"secretName": name}, namespace="team")
	assert shown(made, None, ca) == ["default-ns.test"]
	own = put_certificate(gw, ca.issue("team.test"), name, namespace="team")
	assert shown(made, None, ca) == ["team.test"]
	assert gw.api("DELETE", own.path)[0] == 409


def test_versions_change_in_place(gw, ca):
	made = secure(gw, put_certificate(gw, ca.issue("change.test")))
	check_versions(made, "change.test", 2, 3)
	gw.ask("PUT", made.path, {**made.body, "minProtocolVersion": "TLSV1_3"})
	check_versions(made, "change.test", 3, 3)


def test_a_port_turns_to_tls_and_back(gw, ca, backend_process):
	secret = put_certificate(gw, ca.issue("turn.test"))
	made = gw.gateway()
	gw.route("/", backend_process, site=made)
	kept = Connection(made.port)
	assert kept.get("/echo").status == 200
	external = {**made.body["externalPort"], "protocol": "HTTPS"}
	gw.ask("PUT", made.path, {**made.body, "externalPort": external, "certList": [{"secretName": secret.name}]})
	with Client(made.port, "turn.test", ca) as client:
		assert client.get("/echo").status == 200
		assert kept.get("/echo").status == 200, "what is open goes on as it began"
		gw.ask("PUT", made.path, made.body)
		assert client.get("/echo").status == 200
	assert gw.get("/echo", site=made).status == 200


def test_restart(ca, tmp_path, backend_process):
	with Gateway(data=tmp_path / "data") as gw:
		made = secure(gw, put_certificate(gw, ca.issue("stay.test")))
		https(gw, "own.stay.test", made, put_certificate(gw, ca.issue("own.stay.test")))
		gw.restart()
		assert shown(made, "stay.test", ca) == ["stay.test"]
		assert shown(made, "own.stay.test", ca) == ["own.stay.test"]


# ---- what the API refuses ----

def refuse(gw, field, text, **body):
	status, answer, _ = gw.api("POST", "/api/v1/certificates", {"name": f"cert-{next(numbers)}", **body})
	message = answer["errorMessage"]
	assert status == 400 and message.startswith(f"Invalid parameter: {field}: ") and text in message, answer


def test_bad_certificates(gw, ca):
	pair, other = ca.issue("good.test"), ca.issue("other.test")
	expired = ca.issue("expired.test", start="20200101000000Z", end="20210203040506Z")
	weak = ca.issue("weak.test", key="1024")
	refuse(gw, "certificate", "2021-02-03T04:05:06Z", certificate=expired.cert, privateKey=expired.key)
	refuse(gw, "privateKey", "does not belong", certificate=pair.cert, privateKey=other.key)
	refuse(gw, "certificate", "must come first", certificate=ca.cert + pair.cert, privateKey=pair.key)
	refuse(gw, "certificate", "PEM", certificate="garbage", privateKey=pair.key)
	refuse(gw, "certificate", "PEM", certificate=pair.cert[:200], privateKey=pair.key)
	refuse(gw, "certificate", "PEM", certificate=pair.cert + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		privateKey=pair.key)
	refuse(gw, "privateKey", "private key", certificate=pair.cert, privateKey="garbage")
	refuse(gw, "privateKey", "private key", certificate=pair.cert, privateKey=pair.key[:80])
	refuse(gw, "certificate", "too small", certificate=weak.cert, privateKey=weak.key)


def test_refused_replacement_changes_nothing(gw, ca):
	secret = put_certificate(gw, ca.issue("keep.test"))
	made = secure(gw, secret)
	expired = ca.issue("keep.test", start="20200101000000Z", end="20210203040506Z")
	for pair in (expired, ca.issue("x.test")):
		key = pair.key if pair is expired else ca.issue("y.test").key
		status, answer, _ = gw.api("PUT", secret.path, {**secret.body, "certificate": pair.cert, "privateKey": key})
		assert status == 400, answer
		assert shown(made, "keep.test", ca) == ["keep.test"]


@pytest.mark.parametrize("change, field", [
	({"certList": [{"secretName": "nobody"}]}, "certList[0].secretName"),
	({"certList": []}, "certList"),
	({"certList": [{}]}, "certList[0].secretName"),
	({"minProtocolVersion": "TLSV1_3", "maxProtocolVersion": "TLSV1_2"}, "minProtocolVersion"),
	({"minProtocolVersion": "SSLV3"}, "minProtocolVersion"),
	({"maxProtocolVersion": "TLSV1_4"}, "maxProtocolVersion"),
	({"tlsTerminationEnable": False}, "tlsTerminationEnable"),
	({"tlsMode": "MUTUAL"}, "tlsMode"),
])
def test_bad_gateways(gw, site, change, field):
	body = {**site.body, "gateway": f"gateway-{next(numbers)}", "elbId": "elb-bad",
		"externalPort": {**site.body["externalPort"], "number": str(free_port())}, **change}
	status, answer, _ = gw.api("POST", "/v2/meshes/default/gateways", body)
	assert status == 400 and answer["errorMsg"].startswith(f"Invalid parameter: {field}: "), answer


def test_bad_versions_of_a_certificate_item(gw, site):
	name = site.body["certList"][0]["secretName"]
	body = {**site.body, "gateway": f"gateway-{next(numbers)}", "elbId": "elb-bad",
		"externalPort": {**site.body["externalPort"], "number": str(free_port())},
		"certList": [{"secretName": name, "minProtocolVersion": "TLSV1_3", "maxProtocolVersion": "TLSV1_2"}]}
	status, answer, _ = gw.api("POST", "/v2/meshes/default/gateways", body)
	assert status == 400 and answer["errorMsg"].startswith("Invalid parameter: certList[0].minProtocolVersion: "), answer


@pytest.mark.parametrize("change, field", [
	({"protocol": "HTTPS", "mTLSEnabled": True}, "clientCACert"),
	({"protocol": "HTTPS", "mTLSEnabled": True, "clientCACert": "garbage"}, "clientCACert"),
	({"protocol": "HTTP", "mTLSEnabled": True, "clientCACert": "CA"}, "mTLSEnabled"),
	({"protocol": "HTTP", "forceHttps": True}, "forceHttps"),
	({"protocol": "HTTPS", "tlsMin": "TLSV1_3", "tlsMax": "TLSV1_2"}, "tlsMin"),
	({"protocol": "HTTPS", "tlsMin": "TLSV9"}, "tlsMin"),
	({"protocol": "HTTPS", "certIdentifier": "cert-nobody"}, "certIdentifier"),
])
def test_bad_domains(gw, ca, site, change, field):
	change = {name: ca.cert if value == "CA" else value for name, value in change.items()}
	cert = gw.ask("GET", "/api/v1/certificates")["items"][0]["certificateId"] if change["protocol"] == "HTTPS" else None
	body = {"name": "bad.test", "gatewayId": site.id, **({"certIdentifier": cert} if cert else {}), **change}
	status, answer, _ = gw.api("POST", "/api/v1/domains", body)
	assert status == 400 and answer["errorMessage"].startswith(f"Invalid parameter: {field}: "), answer


def test_tls_and_plain_do_not_share_a_port(gw, site):
	body = {**site.body, "gateway": f"gateway-{next(numbers)}", "certList": [],
		"externalPort": {**site.body["externalPort"], "protocol": "HTTP", "hosts": ["p.test"]}}
	assert gw.api("POST", "/v2/meshes/default/gateways", body)[0] == 409


def test_expiry_is_a_metric(gw, ca):
	pair = ca.issue("metric.test")
	secret = put_certificate(gw, pair)
	end = ssl.cert_time_to_seconds(subprocess.run(["openssl", "x509", "-enddate", "-noout"], input=pair.cert.encode(),
		capture_output=True, check=True).stdout.decode().strip().partition("=")[2])
	assert metric(gw, "sluice_certificate_not_after_timestamp_seconds", certificate=secret.name, namespace="default") == end
	gw.delete(secret)
	assert metric(gw, "sluice_certificate_not_after_timestamp_seconds", certificate=secret.name, namespace="default") == 0


# ---- TLS in front of a byte stream ----

def test_tls_protocol_with_termination_carries_bytes(gw, ca, backend_process, backend):
	one, two = (put_certificate(gw, ca.issue(name)) for name in ("one.tcp.test", "two.tcp.test"))
	made = gw.gateway(protocol="TLS", tlsTerminationEnable=True, certList=[{"secretName": one.name}, {"secretName": two.name}])
	domain = gw.domain("two.tcp.test", site=made)
	gw.route("/", backend_process.ports[0], site=made)
	gw.route("/", backend_process.ports[1], site=made, domains=[domain])
	for name, port in (("one.tcp.test", backend_process.ports[0]), ("two.tcp.test", backend_process.ports[1])):
		with Client(made.port, name, ca, alpn=["anything"]) as client:
			assert client.names() == [name] and client.secured.selected_alpn_protocol() is None
			answer = client.get("/size/200000", host="whatever.test")
			assert len(answer.body) == 200000 and answer.header("X-Port") == str(port)
	assert backend.requests()[0].header("X-Forwarded-Proto") is None
	wait_until(lambda: [r for r in gw.log() if r.get("sni") == "two.tcp.test" and r.get("tls") == "TLSv1.3"])


# ---- hostile and odd clients ----

def test_plain_text_is_told_so(gw, site):
	with Connection(site.port) as client:
		answer = client.get("/x")
		assert answer.status == 400 and "TLS expected" in answer.json["errorMessage"]
		assert client.is_closed()
	with Connection(site.port) as client:
		client.send(b"\0\0\0\0")
		assert client.is_closed() and not client.buffer
	with Connection(site.port) as client:
		client.send(b"\x16\x03\x01\x00\x05hello")
		assert client.is_closed()


def test_proxy_header_before_the_handshake(gw, ca, backend_process, backend):
	made = secure(gw, put_certificate(gw, ca.issue("proxied.test")))
	gw.route("/", backend_process, site=made)
	gw.feature("proxyProtocol", True, site=made)
	connection = socket.create_connection(("127.0.0.1", made.port), timeout=10)
	connection.sendall(b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n")
	with client_context(ca).wrap_socket(connection, server_hostname="proxied.test") as secured:
		secured.sendall(b"GET /echo HTTP/1.1\r\nHost: proxied.test\r\nConnection: close\r\n\r\n")
		assert secured.recv(100).startswith(b"HTTP/1.1 200")
	assert backend.last().header("X-Real-IP") == "203.0.113.9"


def test_slow_handshake_is_closed(gw, site):
	silent, partial = Connection(site.port), Connection(site.port)
	partial.send(b"\x16\x03\x01\x02\x00\x01")
	start = time.monotonic()
	assert silent.is_closed(15) and partial.is_closed(15)
	assert 0.5 < time.monotonic() - start < 15
	wait_until(lambda: metric(gw, "sluice_tls_handshake_failures_total", reason="timeout") >= 1)


def hello_bytes(site):
	"""A client hello as python sends it."""
	incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
	session = client_context().wrap_bio(incoming, outgoing, server_hostname="a.test")
	with pytest.raises(ssl.SSLWantReadError):
		session.do_handshake()
	return outgoing.read()


def test_half_handshakes_are_bounded_and_others_are_served(gw, site):
	hello = hello_bytes(site)
	rss, open_before = gw.rss_kb(), gw.descriptors()
	halves = []
	for _ in range(300):
		half = Connection(site.port)
		half.send(hello)
		halves.append(half)
	with Client(site.port, timeout=20) as client:
		assert client.get("/echo", host="a.test").status == 200
	assert gw.rss_kb() - rss < (300 if IS_SANITIZED else 120) * 300
	for half in halves:
		assert half.is_closed(10)
		half.close()
	wait_until(lambda: gw.descriptors() <= open_before + 5)


def test_hello_in_single_bytes(site):
	hello = hello_bytes(site)
	with Connection(site.port) as client:
		for i in range(0, len(hello), 40):
			client.send(hello[i:i + 40])
		client.fill()
		assert client.buffer[0] == 22


@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3])
@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 100_000, 3_000_000])
def test_bodies_both_ways(gw, site, backend, version, size):
	body = pattern(size)
	backend.clear()
	with Client(site.port, versions=(version, version), timeout=60) as client:
		answer = client.request("POST", f"/echo/{size}", body=body, host="a.test")
		assert answer.status == 200
		seen = backend.last()
		assert (seen.body_bytes, seen.sha256) == (size, hashlib.sha256(body).hexdigest())
		answer = client.get(f"/size/{size}", host="a.test")
		assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()


def test_slow_reader_gets_everything(site):
	with Client(site.port, receive_buffer=4096, timeout=60) as client:
		client.start("GET", "/size/2000000", host="a.test")
		time.sleep(0.3)           # the gateway has to stop: there is no state of it to wait for
		assert hashlib.sha256(client.read_response().body).digest() == hashlib.sha256(pattern(2_000_000)).digest()


def test_pipelined_requests(site):
	with Client(site.port) as client:
		for i in range(20):
			client.start("GET", f"/echo/{i}", host="a.test")
		assert [client.read_response().status for _ in range(20)] == [200] * 20


def test_idle_connection_gets_a_goodbye(ca, backend_process):
	with Gateway(idle_timeout_ms=300, header_timeout_ms=300) as gw:
		made = secure(gw, put_certificate(gw, ca.issue("idle.test")))
		gw.route("/", backend_process, site=made)
		with Client(made.port, "idle.test") as client:
			assert client.get("/echo").status == 200
			assert client.is_closed(5) and not hasattr(client, "error"), "no truncation"
		with Client(made.port, "idle.test") as client:
			assert client.get("/echo", {"Connection": "close"}).status == 200
			assert client.is_closed(5) and not hasattr(client, "error")


def test_abrupt_client_end(gw, site):
	open_before = gw.descriptors()
	for _ in range(20):
		client = Client(site.port)
		client.start("GET", "/size/500000", host="a.test")
		client.reset()
	for _ in range(20):
		Client(site.port).secured.unwrap().close()
	wait_until(lambda: gw.descriptors() <= open_before + 5)
	with Client(site.port) as client:
		assert client.get("/echo", host="a.test").status == 200


def test_garbage_within_a_connection(gw, site):
	with Client(site.port) as client:
		assert client.get("/echo", host="a.test").status == 200
		raw = socket.socket(fileno=client.secured.detach())
		raw.settimeout(5)
		raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
		while True:
			try:
				if not raw.recv(65536):
					break
			except ConnectionResetError:
				break
		raw.close()


def test_drain_finishes_what_is_under_way(ca, backend_process):
	with Gateway() as gw:
		made = secure(gw, put_certificate(gw, ca.issue("drain.test")))
		gw.route("/", backend_process, site=made)
		client = Client(made.port, "drain.test")
		assert client.get("/echo").status == 200
		half = Connection(made.port)
		half.send(b"\x16")
		gw.stop()
		client.close()
		half.close()
