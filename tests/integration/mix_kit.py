"""Kinds of requests, good and bad, for tests/bench/mix/mixbench.c against a site of soak_kit.Everything."""
import json
import pathlib
import subprocess
import sys

from backends import ROOT, find_program
from h2wire import (CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, SETTINGS, block, frame, head, rst,
	settings, window_update)

sys.path.insert(0, str(ROOT / "tests/conformance"))
from h1_vectors import FORWARDED, INCOMPLETE, VECTORS    # noqa: E402

PROGRAM = find_program("test_mixbench", ROOT / "tests/bench/mix")
END = b"\r\n\r\n"


class Kinds:
	"""A file of kinds. `name`s have no blanks; `statuses` as mixbench takes them."""

	def __init__(self, fields):
		self.fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
		self.listed = []

	def raw(self, name, data, statuses="200", weight=1, answers=1, pieces=1):
		assert " " not in name and data
		self.listed.append(b"%s %d %d %d %s %d\n%s\n" % (name.encode(), weight, answers, pieces, statuses.encode(), len(data), data))

	def request(self, name, target, statuses="200", method="GET", more="", body=b"", known=True, version="1.1", **options):
		"""`more`: lines of the head. `known`: with the fields that guarded routes ask for."""
		self.raw(name, self.bytes(target, method, more, body, known, version), statuses, **options)

	def bytes(self, target, method="GET", more="", body=b"", known=True, version="1.1"):
		return f"{method} {target} HTTP/{version}\r\nHost: gw.test\r\n{more}".encode() + (self.fields if known else b"") + b"\r\n" + body

	def write(self, path):
		pathlib.Path(path).write_bytes(b"".join(self.listed))
		return path


def chunked(*parts, trailers=""):
	return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + f"0\r\n{trailers}\r\n".encode()


def add_good(kinds, targets):
	"""What is answered by the upstream, framed in every way."""
	request = kinds.request
	for target in targets:    # Waf says 503 where the machine leaves it no CPU for 5 s
		request(f"get{target.replace('/', '-')}", target, "200,503" if target.startswith("/waf") else "200,301", weight=12)
	request("keep", "/b/size/1024", weight=600)
	request("large", "/b/size/100000", weight=3)
	request("close", "/b/size/1024", more="Connection: close\r\n", weight=60)
	request("http10", "/b/size/1024", version="1.0", weight=5)
	request("head", "/b/size/1024", method="HEAD", weight=10)
	request("pieces", "/b/size/10", weight=5, pieces=7)
	kinds.raw("pipelined", kinds.bytes("/b/size/100") * 8, weight=40, answers=8)
	kinds.raw("pipelined-bodies", (kinds.bytes("/b/echo", "POST", "Content-Length: 5\r\n", b"hello") + kinds.bytes("/b/chunked/100")) * 2,
		weight=5, answers=4, pieces=3)
	request("body", "/b/echo", method="POST", more="Content-Length: 3000\r\n", body=b"x" * 3000, weight=10, pieces=2)
	request("chunked-answer", "/b/chunked/20000", weight=8)
	request("trailers-answer", "/b/trailers/200", more="TE: trailers\r\n", weight=3)
	for name, target in (("chunked-body", "/b/size/10"), ("chunked-both", "/b/chunked/4000")):
		request(name, target, method="POST", more="Transfer-Encoding: chunked\r\n", body=chunked(b"a" * 10, b"b" * 5000, b"c"), weight=10, pieces=4)
	request("trailers", "/b/size/10", method="POST", more="Transfer-Encoding: chunked\r\n", body=chunked(b"abc", trailers="X-T: 1\r\n"), weight=3)
	request("expects", "/b/size/10", method="PUT", more="Content-Length: 3\r\nExpect: 100-continue\r\n", body=b"abc", weight=3)
	request("preflight", "/b/x", "200,204", method="OPTIONS", more="Access-Control-Request-Method: PUT\r\n", weight=3)
	request("empty", "/b/status/204", "204", weight=3)
	request("not-modified", "/b/status/304", "304", weight=3)
	request("hints", "/b/hints", weight=1)


def add_refused(kinds, has_waf):
	"""What a policy or the gateway refuses, and upstreams that fail."""
	request = kinds.request
	request("no-key", "/key/size/1", "401", known=False, weight=3)
	request("no-token", "/jwt/size/1", "401", known=False, weight=3)
	request("bad-token", "/jwt/size/1", "401", known=False, more="X-Token: a.b.c\r\n", weight=3)
	request("few", "/few/size/1", "200,429", weight=3)
	request("listed", "/listed/size/1", "403", weight=3)
	request("late", "/late/hang", "504")
	request("again", "/again/status/503", "503", weight=2)
	request("broken", "/broken/status/500", "500,503", weight=2)
	request("never", "/never/size/1", "401", weight=2)
	request("nowhere", "/nowhere", "404", weight=3)
	if has_waf:
		request("attack", "/waf/x?q=%27%20or%201%3D1%20--%20", "403,503", weight=2)
	for what in ("closed", "reset", *(f"garbage/{name}" for name in ("text", "version", "status", "no-colon", "two-lengths", "bad-length",
			"length-and-chunked", "control", "fold", "http2", "switch"))):
		request(f"upstream-{what.replace('/', '-')}", f"/plain/{what}", "502,503")
	for what in ("cut-mid", "cut-chunked", "garbage/bad-chunk", "garbage/no-chunk-end", "garbage/huge-chunk"):
		request(f"upstream-{what.replace('/', '-')}", f"/plain/{what}", "200,502,503,0")
	request("extra", "/plain/garbage/extra")


def add_vectors(kinds):
	"""Messages that are no good, or just so."""
	for vector in VECTORS:
		wanted, answers = vector["expected"], vector.get("answers", 1)
		if wanted != INCOMPLETE and vector["payload"]:
			kinds.raw(f"vector-{vector['id']}".replace(" ", "_"), vector["payload"], "200" if wanted == FORWARDED else str(wanted), answers=answers)


def add_frames(kinds):
	"""Connections of HTTP/2 that end in an error: what comes before it is fine."""
	begin = PREFACE + settings()
	get = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(head("/b/size/100")))
	listed = {
		"data-on-0": frame(DATA, 0, 0, b"x"), "headers-on-0": frame(HEADERS, END_HEADERS, 0, block(head())),
		"bad-hpack": frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" * 6), "lone-continuation": frame(CONTINUATION, END_HEADERS, 1, b""),
		"get-then-even": get + frame(HEADERS, END_HEADERS | END_STREAM, 2, block(head())), "short-ping": get + frame(PING, 0, 0, b"x"),
		"get-rst-bad-settings": get + rst(1) + frame(SETTINGS, 0, 0, b"x"), "window-overflow": get + window_update(0, 0x7fffffff),
		"half-headers-ping": frame(HEADERS, 0, 1, block(head())) + frame(PING, 0, 0, b"12345678"), "too-large": frame(DATA, 0, 1, b"", length=0x100000),
		"goaway-bad-priority": get + frame(GOAWAY, 0, 0, bytes(8)) + frame(PRIORITY, 0, 3, b"xx"), "no-settings": b"",
	}
	for name, data in listed.items():
		kinds.raw(f"h2-{name}", begin + data if data else PREFACE + frame(PING, 0, 0, bytes(8)), "0", weight=2)


def start(port, requests, kinds, connections=32, seed=1):
	return subprocess.Popen([PROGRAM, f"--port={port}", f"--requests={requests}", f"--kinds={kinds}", f"--connections={connections}",
		f"--seed={seed}"], stdout=subprocess.PIPE, text=True)


def judge(process, seconds):
	"""What mixbench tells, when everything was answered as its kind says."""
	text, _ = process.communicate(timeout=seconds)
	assert process.returncode == 0
	told = json.loads(text)
	assert told["errors"] == 0, told
	return told
