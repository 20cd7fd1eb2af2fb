"""HTTP clients of other makers. (curl, nghttp, h2load and node's http2 stand in test_http2.py, ws in test_upgrade.py, gRPC in test_grpc.py,
Chromium in test_chromium.py.)"""
import node
import pytest
from gw import numbers
from pki import Authority


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_node_fetch(gw, backend, is_tls):
	ca = Authority()
	pair = ca.issue("localhost")
	if is_tls:
		certificate = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": f"cert-{next(numbers)}",
			"namespace": "default", "certificate": pair.cert, "privateKey": pair.key})
		site = gw.gateway(protocol="HTTPS", certList=[{"secretName": certificate.name}])
	else:
		site = gw.gateway()
	gw.route("/", backend, site=site)
	url = f"{'https' if is_tls else 'http'}://localhost:{site.port}"
	assert node.run("fetch.js", url, environment={"NODE_EXTRA_CA_CERTS": ca.file}) == "ok"
