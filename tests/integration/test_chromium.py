"""A browser: Chromium loads a page over TLS and HTTP/2 that fetches, uploads, takes events and speaks WebSocket."""
import json
import os
import shutil
import signal
import subprocess
import threading

import node
import pytest
from gw import numbers
from pki import Authority
from wire import wait_until

BROWSER = next((found for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium here (220 MB): SLUICE_TEST_CHROMIUM=1 tools/install_deps test installs it")


class Result(threading.Thread):
	"""The line that the page's server prints."""

	def __init__(self, server):
		super().__init__(daemon=True)
		self.server, self.seen = server, None
		self.start()

	def run(self):
		line = self.server.process.stdout.readline()
		self.seen = json.loads(line) if line else {"errors": ["no result"]}


def test_a_page_over_tls_and_http2(gw, tmp_path):
	pair = Authority().issue("localhost")
	certificate = gw.create("Certificate", "/api/v1/certificates", "certificateId", {"name": f"cert-{next(numbers)}",
		"namespace": "default", "certificate": pair.cert, "privateKey": pair.key})
	site = gw.gateway(protocol="HTTPS", certList=[{"secretName": certificate.name}])
	with node.Server("page.js") as server:
		gw.route("/", server.port, site=site)
		result = Result(server)
		log = tmp_path / "browser.log"
		with log.open("wb") as output:
			browser = subprocess.Popen([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
				"--ignore-certificate-errors", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}",
				f"https://localhost:{site.port}/"], stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)
			try:
				wait_until(lambda: result.seen or browser.poll() is not None, 90, f"a result; the browser said {log.read_text()[-2000:]}")
			finally:
				# The program on the path starts the browser proper.
				os.killpg(browser.pid, signal.SIGKILL)
				browser.wait()
	seen = result.seen
	assert seen and seen["errors"] == [], (seen, log.read_text()[-2000:])
	assert seen["protocols"] == ["h2"]
	assert seen["data"] == list(range(40)) and seen["upload"] == "1000000" and seen["large"] == 5_000_000
	assert seen["events"] == ["0", "1", "2", "3", "4"]
	assert seen["socket"] == [1, 70000, 1000, "echo"]
	assert (seen["abort"], seen["after"]) == (200, 200)
	# The browser asked for the WebSocket on the connection it had: an extended CONNECT.
	record = gw.wait_record(path="/socket")
	assert record["status"] in (101, 200) and record["protocol"] == "websocket"
