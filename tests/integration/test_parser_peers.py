"""Our HTTP/1 parser against node's (llhttp): the same bytes go to both. Of each connection we may serve fewer requests than node does, being
stricter; those we serve must be the same ones, with the same bodies. A request behind the bytes shows where both see their end."""
import base64
import contextlib
import hashlib
import json
import pathlib
import random
import socket
import sys
import threading

import node
import pytest
from scale import FULL

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))
from h1_vectors import VECTORS

LAST = b"GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
HEAD = b"POST /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n"
TEMPLATES = [
	b"GET /a HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\nCookie: a=b; c=d\r\n\r\n",
	HEAD + b"Content-Length: 5\r\n\r\nhello",
	HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
	HEAD + b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
	b"GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
]
BYTES = [b"\0", b"\t", b"\n", b"\r", b"\r\n", b"\x0b", b" ", b":", b";", b",", b'"', b"0", b"-", b"+", b"x", b"\x7f", b"\x80", b"\xff"]
FRAMINGS = [b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 05", b"Content-Length: +5", b"Content-Length: 5 ",
	b"Content-Length: 5, 5", b"Content-Length: 0x5", b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5\r\nContent-Length: 6",
	b"Content-Length:5", b"content-length: 5", b"Content-Length: ", b"Content-Length: 99999999999999999999", b"Content_Length: 5",
	b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: gzip, chunked",
	b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: identity", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked;a=b",
	b"Transfer-Encoding:\tchunked", b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b"Transfer-Encoding: \x0bchunked",
	b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"TE: chunked"]
CHUNKS = [b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"05\r\nhello\r\n00\r\n\r\n",
	b"5\nhello\n0\n\n", b"5\r\nhello0\r\n\r\n", b"5;a=\"b\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
	b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n \r\n\r\n"]

# Where we take what node does not, and why; names of cases. Beyond these, a method that node does not know ends its side of the comparison:
# to us any token is a method (RFC 9110 9.1), to node only those of a list.
DELIBERATE = {
	"compliance-hop-by-hop": "Proxy-Connection is a field of no RFC: node closes when it says so, we throw it away",
	**dict.fromkeys([r"insert-1-61-b'\t'", r"insert-2-70-b'\t'", r"insert-3-70-b'\t'", r"insert-4-52-b'\t'"],
		"a tab behind a value is white space like any other (RFC 9110 5.6.3); to node it is part of the length, coding or option"),
	**dict.fromkeys(["insert-2-86-b' '", r"insert-2-86-b'\t'"],
		"white space may stand behind the ';' of a chunk extension (RFC 9112 7.1.1); the extension is thrown away"),
}


def make_cases():
	cases = {vector["id"]: vector["payload"] for vector in VECTORS if len(vector["payload"]) < 20_000}
	for first in FRAMINGS:
		for i, body in enumerate(CHUNKS):
			cases[f"framing-{first!r}-{i}"] = HEAD + first + b"\r\n\r\n" + body
	for first in FRAMINGS:
		for second in FRAMINGS:
			cases[f"framings-{first!r}-{second!r}"] = HEAD + first + b"\r\n" + second + b"\r\n\r\n" + CHUNKS[0]
	mutations = {}
	for i, text in enumerate(TEMPLATES):
		for at in range(len(text) + 1):
			for byte in BYTES:
				mutations[f"insert-{i}-{at}-{byte!r}"] = text[:at] + byte + text[at:]
				mutations[f"replace-{i}-{at}-{byte!r}"] = text[:at] + byte + text[at + 1:]
			mutations[f"delete-{i}-{at}"] = text[:at] + text[at + 1:]
	names = sorted(mutations)
	chosen = names if FULL else random.Random(1).sample(names, 6000)
	return {name: payload + LAST for name, payload in {**cases, **{name: mutations[name] for name in chosen}}.items()}


def ask_node(payloads, tmp_path):
	path = tmp_path / "payloads.json"
	path.write_text(json.dumps([base64.b64encode(payload).decode() for payload in payloads]))
	return json.loads(node.run("h1_judge.js", path, seconds=280))


def source(index):
	return f"127.{2 + index // 62500}.{index // 250 % 250 + 1}.{index % 250 + 1}"


def send_one(port, address, payload, seconds):
	"""Sends it and reads to the end: the last request asks for the end. What is incomplete waits in vain."""
	with socket.socket() as s, contextlib.suppress(OSError):
		s.bind((address, 0))
		s.settimeout(seconds)
		s.connect(("127.0.0.1", port))
		s.sendall(payload)
		while s.recv(65536):
			pass


def ask_us(gw, backend, payloads, seconds):
	"""The complete requests that reached the upstream for each payload; told apart by the addresses they came from."""
	work = iter(list(enumerate(payloads)))
	lock = threading.Lock()

	def run():
		while True:
			with lock:
				index, payload = next(work, (None, None))
			if payload is None:
				return
			send_one(gw.port, source(index), payload, seconds)

	threads = [threading.Thread(target=run) for _ in range(32)]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join()
	seen = {source(index): [] for index in range(len(payloads))}
	for record in backend.requests():
		address = record.header("X-Real-IP")
		if record.complete and not record.malformed:
			seen[address].append((record.method, record.body_bytes if not record.body else len(decoded(record)), digest(record)))
	return list(seen.values())


def decoded(record):
	"""The body without chunks."""
	if record.header("Transfer-Encoding") is None:
		return record.body
	body, rest = b"", record.body
	while rest:
		line, _, rest = rest.partition(b"\r\n")
		size = int(line.split(b";")[0], 16)
		if size == 0:
			break
		body, rest = body + rest[:size], rest[size + 2:]
	return body


def digest(record):
	return hashlib.sha256(decoded(record)).hexdigest()


def compare(ours, theirs, methods):
	"""None when ours are the first of theirs."""
	seen = [(request["method"], request["bytes"], request["sha256"]) for request in theirs["requests"]]
	if theirs["error"] == "HPE_INVALID_METHOD" and len(ours) > len(seen) and ours[len(seen)][0] not in methods:
		ours = ours[:len(seen)]
	return None if ours == seen[:len(ours)] else (ours, seen)


@pytest.fixture(scope="module")
def site(gw, backend_process):
	gw.route("/", backend_process)
	return gw


def test_we_never_see_another_request_than_node(site, backend, tmp_path):
	cases = make_cases()
	names, payloads = list(cases), list(cases.values())
	judged = ask_node(payloads, tmp_path)
	theirs, methods = judged["verdicts"], judged["methods"]
	ours, differ = [], []
	for start in range(0, len(payloads), 500):
		backend.clear()
		ours += ask_us(site, backend, payloads[start:start + 500], 1.5)
	for i, name in enumerate(names):
		if compare(ours[i], theirs[i], methods):
			# Once more alone, with patience: the machine may have been busy.
			backend.clear()
			[again] = ask_us(site, backend, [payloads[i]], 5)
			if (what := compare(again, theirs[i], methods)) and name not in DELIBERATE:
				differ.append((name, payloads[i][:-len(LAST)], *what, theirs[i]["error"]))
	stricter = sum(len(ours[i]) < len(theirs[i]["requests"]) for i in range(len(names)))
	both = sum(bool(ours[i]) for i in range(len(names)))
	print(f"{len(names)} cases: {both} with requests that both saw, {stricter} where we are stricter")
	assert not differ, "\n".join(map(str, differ[:40])) + f"\n{len(differ)} in all"
	assert both > 100 and stricter > 20
