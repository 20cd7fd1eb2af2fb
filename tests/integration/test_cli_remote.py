"""How commands reach the control API: over https with authorities of one's own, and what they make of odd servers."""
import http.server
import json
import os
import pathlib
import socket
import ssl
import subprocess
import threading

import pytest
from gw import PROGRAM
from pki import Authority

ANSWER = {"items": [{"routeId": "route-1", "name": "r"}], "totalSize": 1}


class Handler(http.server.BaseHTTPRequestHandler):
	protocol_version = "HTTP/1.1"

	def log_message(self, *_):
		pass

	def do_GET(self):
		self.server.seen.append((self.path, self.headers.get("X-Auth-Token"), self.client_address[1]))
		self.server.answer(self)


def send(handler, status, body, **fields):
	handler.send_response(status)
	for name, value in fields.items():
		handler.send_header(name.replace("_", "-"), value)
	if "Transfer_Encoding" not in fields:
		handler.send_header("Content-Length", str(len(body)))
	handler.end_headers()
	handler.wfile.write(body)


def usual(handler):
	body = ANSWER if handler.path.startswith("/api/v1/routes?") else {"resourceType": "Route", "resourceName": "told", "items": []}
	send(handler, 200, json.dumps(body).encode(), Content_Type="application/json")


class Server:
	"""A control API that answers as it is told. `url` to reach it by."""

	def __init__(self, answer=usual, context=None, name="127.0.0.1"):
		self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
		self.server.answer, self.server.seen = answer, []
		if context:
			self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
		self.url = f"{'https' if context else 'http'}://{name}:{self.server.server_address[1]}"
		threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

	@property
	def seen(self):
		return self.server.seen

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.server.shutdown()
		self.server.server_close()


@pytest.fixture(scope="module")
def token(tmp_path_factory):
	path = tmp_path_factory.mktemp("token") / "token"
	path.write_text("secret-token-of-this-test\n")
	return path


def ask(server, token, *more):
	url = server if isinstance(server, str) else server.url
	done = subprocess.run([PROGRAM, "policy", "effective", "--route", "r", "--server", url, "--token-file", str(token), *map(str, more)],
		capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
	assert "Sanitizer" not in done.stderr and "secret-token" not in done.stdout + done.stderr
	return done


def test_one_connection_serves_all_calls(token):
	with Server() as server:
		done = ask(server, token)
	assert done.returncode == 0 and "told" in done.stdout
	assert [path for path, _, _ in server.seen] == ["/api/v1/routes?routeId=r", "/api/v1/routes/route-1/effective-policies"]
	assert {given for _, given, _ in server.seen} == {"secret-token-of-this-test"}
	assert len({port for _, _, port in server.seen}) == 1


def test_a_server_that_closes_each_connection(token):
	def answer(handler):
		usual(handler)
		handler.close_connection = True

	with Server(answer) as server:
		assert ask(server, token).returncode == 0


def test_chunked_answers(token):
	def answer(handler):
		body = json.dumps(ANSWER if "?" in handler.path else {"resourceName": "in pieces", "items": []}).encode()
		send(handler, 200, b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n", Transfer_Encoding="chunked")

	with Server(answer) as server:
		done = ask(server, token)
	assert done.returncode == 0 and "in pieces" in done.stdout


@pytest.mark.parametrize("status, body, code, words", [
	(404, b'{"errorCode":"ErrNotFound","errorMessage":"nothing here"}', 1, "404 ErrNotFound: nothing here"),
	(400, b'{"errorCode":"ASM.01010001","errorMsg":"bad"}', 1, "400 ASM.01010001: bad"),
	(503, b'{"errorCode":"ErrStoreUnavailable","errorMessage":"later"}', 3, "503 ErrStoreUnavailable: later"),
	(502, b"<html>\033[2Jproxy</html>", 3, "502 <html>?[2Jproxy</html>"),
	(200, b"no json", 3, "200 no json"),
	(403, b"", 1, "403 -"),
])
def test_refusals_and_what_is_no_control_api(token, status, body, code, words):
	with Server(lambda handler: send(handler, status, body)) as server:
		done = ask(server, token)
	assert (done.returncode, done.stdout) == (code, "") and words.rstrip(" -") in done.stderr, done


@pytest.mark.parametrize("said, words", [
	(b"", "closed the connection without an answer"),
	(b"nonsense\r\n\r\n", "answers something that is no HTTP"),
	(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "broke off its answer"),
])
def test_servers_that_break_off(token, said, words):
	with socket.create_server(("127.0.0.1", 0)) as listener:
		def serve():
			while True:
				try:
					peer = listener.accept()[0]
				except OSError:
					return
				with peer:
					peer.recv(65536)
					peer.sendall(said)

		threading.Thread(target=serve, daemon=True).start()
		done = ask(f"http://127.0.0.1:{listener.getsockname()[1]}", token)
		listener.shutdown(socket.SHUT_RDWR)
	assert done.returncode == 3 and words in done.stderr, done


# ---- https ----

@pytest.fixture(scope="module")
def authority():
	return Authority()


def context_of(authority, *names):
	made = authority.issue(*names)
	context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
	context.load_cert_chain(made.file)
	return context


def test_https_with_an_authority_of_ones_own(token, authority):
	with Server(context=context_of(authority, "localhost", "IP:127.0.0.1")) as server:
		for name in ("127.0.0.1", "localhost"):
			done = ask(server.url.replace("127.0.0.1", name), token, "--ca-file", authority.file)
			assert done.returncode == 0 and "told" in done.stdout, done


def test_https_is_verified(token, authority, tmp_path):
	with Server(context=context_of(authority, "other.test")) as server:
		done = ask(server, token, "--ca-file", authority.file)
		assert done.returncode == 3 and "cannot be reached: " in done.stderr and not server.seen
		done = ask(server, token)
		assert done.returncode == 3 and not server.seen, "nobody vouches for it"
	nothing = pathlib.Path(tmp_path, "ca.pem")
	nothing.write_text("no certificate")
	for arguments, words in [(("--ca-file", nothing), "--ca-file: "), (("--ca-file", tmp_path / "none"), "cannot be read")]:
		done = ask("https://127.0.0.1:1", token, *arguments)
		assert done.returncode == 2 and words in done.stderr
	assert "--ca-file: is for https" in ask("http://127.0.0.1:1", token, "--ca-file", authority.file).stderr


def test_colours_are_for_terminals(token):
	import pty
	with Server(lambda handler: usual(handler) if "?" in handler.path else send(handler, 200, json.dumps({"items": [
			{"leg": "request", "effect": "Runs", "className": "Cors", "status": {"phase": "Active"}}]}).encode())) as server:
		for more, has_colour in (([], True), (["--no-color"], False)):
			leader, follower = pty.openpty()
			command = [PROGRAM, "policy", "effective", "--route", "r", "--server", server.url, "--token-file", str(token), *more]
			environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
			subprocess.run(command, stdout=follower, stdin=subprocess.DEVNULL, timeout=60, check=True, env=environment)
			os.close(follower)
			assert (b"\033[32m" in os.read(leader, 65536)) == has_colour
			os.close(leader)
