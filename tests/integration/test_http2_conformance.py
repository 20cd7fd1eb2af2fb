"""What RFC 9113 and RFC 7541 ask of a server, section by section; the sections are those that h2spec covers."""
import struct

import pytest
from h2wire import *    # noqa: F403 -- the vocabulary of frames
from h2wire import H2, block, frame, head, integer, literal, rst, settings, window_update

CASES = []


def case(section, name, expected, greet=True):
	"""The function sends; `expected` says what must come: a status, "ping" (goes on), ("stream", codes) or ("connection", codes)."""
	def keep(function):
		CASES.append(pytest.param(function, expected, greet, id=f"{section}-{name}"))
		return function
	return keep


def stream(*codes):
	return ("stream", codes)


def connection(*codes):
	return ("connection", codes)


PROTOCOL, SIZE, FLOW, CLOSED, COMPRESSION = PROTOCOL_ERROR, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, COMPRESSION_ERROR
HEAD = block(head())
POST = block(head(method="POST"))


def get(h, payload=HEAD, flags=END_HEADERS | END_STREAM, sid=1):
	h.send(frame(HEADERS, flags, sid, payload))


def simple(section, name, expected, *frames, greet=True):
	"""A case that is nothing but frames."""
	case(section, name, expected, greet)(lambda h: h.send(b"".join(frames)))


# ---- 3.4 (3.5 of RFC 7540): the preface ----
simple("3.5", "preface-in-two-pieces", 200, PREFACE[:10], PREFACE[10:], settings(), frame(HEADERS, 5, 1, HEAD), greet=False)
simple("3.5", "invalid-preface", connection(PROTOCOL), b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", greet=False)
simple("3.5", "no-settings-after-preface", connection(PROTOCOL), PREFACE, frame(PING, 0, 0, b"12345678"), greet=False)
simple("3.5", "headers-before-settings", connection(PROTOCOL), PREFACE, frame(HEADERS, 5, 1, HEAD), greet=False)
simple("3.5", "settings-ack-first", connection(PROTOCOL), PREFACE, frame(SETTINGS, ACK, 0), greet=False)

# ---- 4.1 frames ----
simple("4.1", "unknown-type-is-ignored", "ping", frame(0x16, 0, 0, b"12345678"))
simple("4.1", "unknown-type-on-stream", "ping", frame(0x20, 0xff, 3, b"abc"))
simple("4.1", "unknown-flags-are-ignored", "ping", frame(PING, 0x16, 0, b"abcdefgh"))
simple("4.1", "reserved-bit-is-ignored", 200, frame(HEADERS, 5, 0x80000001, HEAD))
simple("4.1", "reserved-bit-of-ping", "ping", frame(PING, 0, 0x80000000, b"abcdefgh"))

# ---- 4.2 sizes ----
simple("4.2", "data-of-the-largest-size", 200, frame(HEADERS, 4, 1, POST), frame(DATA, 1, 1, b"x" * 16384))
simple("4.2", "data-too-large", connection(SIZE), frame(HEADERS, 4, 1, POST), frame(DATA, 1, 1, b"x" * 16385))
simple("4.2", "headers-too-large", connection(SIZE), frame(HEADERS, 5, 1, HEAD + literal("x-a", "y" * 17000)))
simple("4.2", "settings-not-a-multiple-of-six", connection(SIZE), frame(SETTINGS, 0, 0, b"\0\3\0\0\0"))
simple("4.2", "unknown-type-too-large", connection(SIZE), frame(0x16, 0, 0, b"x" * 16385))
simple("4.2", "ping-too-large", connection(SIZE), frame(PING, 0, 0, b"x" * 16385))

# ---- 4.3 header blocks ----
simple("4.3", "invalid-block", connection(COMPRESSION), frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
simple("4.3", "truncated-literal", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + b"\x00\x05ab"))
simple("4.3", "priority-inside-block", connection(PROTOCOL), frame(HEADERS, 1, 1, HEAD[:9]), frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"))
simple("4.3", "headers-of-other-stream-inside-block", connection(PROTOCOL), frame(HEADERS, 1, 1, HEAD[:9]), frame(HEADERS, 5, 3, HEAD))
simple("4.3", "block-in-three-frames", 200, frame(HEADERS, 1, 1, HEAD[:9]), frame(CONTINUATION, 0, 1, HEAD[9:20]),
	frame(CONTINUATION, 4, 1, HEAD[20:]))
simple("4.3", "ping-inside-block", connection(PROTOCOL), frame(HEADERS, 1, 1, HEAD[:9]), frame(PING, 0, 0, b"12345678"))

# ---- 5.1 states ----
# DATA of a closed stream are thrown away: nghttp2 tells nobody of them. Heads are errors.
for kind, payload in (("data", frame(DATA, 1, 1, b"x")), ("rst-stream", rst(1)), ("window-update", window_update(1, 100)),
		("continuation", frame(CONTINUATION, 4, 1, HEAD))):
	simple("5.1", f"idle-{kind}", connection(PROTOCOL), payload)
simple("5.1", "idle-priority", "ping", frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"))
simple("5.1", "half-closed-data", stream(CLOSED), frame(HEADERS, 5, 1, block(head("/hang"))), frame(DATA, 1, 1, b"x"))
simple("5.1", "half-closed-headers", stream(CLOSED), frame(HEADERS, 5, 1, block(head("/hang"))), frame(HEADERS, 5, 1, HEAD))
simple("5.1", "half-closed-continuation", connection(PROTOCOL, CLOSED), frame(HEADERS, 5, 1, block(head("/hang"))),
	frame(CONTINUATION, 4, 1, HEAD))
simple("5.1", "half-closed-window-update", "ping", frame(HEADERS, 5, 1, block(head("/hang"))), window_update(1, 10))
simple("5.1", "half-closed-priority", "ping", frame(HEADERS, 5, 1, block(head("/hang"))), frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"))
simple("5.1", "half-closed-reset", "ping", frame(HEADERS, 5, 1, block(head("/hang"))), rst(1))
simple("5.1", "closed-by-reset-data", "ping", frame(HEADERS, 4, 1, POST), rst(1), frame(DATA, 1, 1, b"x"))
simple("5.1", "closed-by-reset-headers", connection(CLOSED), frame(HEADERS, 4, 1, POST), rst(1), frame(HEADERS, 5, 1, HEAD))
simple("5.1", "closed-by-reset-continuation", connection(PROTOCOL, CLOSED), frame(HEADERS, 4, 1, POST), rst(1),
	frame(CONTINUATION, 4, 1, HEAD))
simple("5.1", "closed-by-reset-priority", "ping", frame(HEADERS, 4, 1, POST), rst(1), frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"))
simple("5.1", "closed-by-reset-window-update", "ping", frame(HEADERS, 4, 1, POST), rst(1), window_update(1, 1))


def after_end(name, expected, *frames):
	@case("5.1", f"closed-{name}", expected)
	def send(h):
		assert h.get("/echo").status == 200
		h.send(b"".join(frames))


after_end("data", "ping", frame(DATA, 1, 1, b"x"))
after_end("headers", connection(CLOSED), frame(HEADERS, 5, 1, HEAD))
after_end("continuation", connection(PROTOCOL, CLOSED), frame(CONTINUATION, 4, 1, HEAD))
after_end("window-update", "ping", window_update(1, 1))
after_end("reset", "ping", rst(1))
after_end("priority", "ping", frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"))



@case("5.1", "data-on-its-way-when-we-reset", "ping")
def send_into_reset(h):
	# A malformed trailer makes us reset: what was sent before the client could know is thrown away.
	h.send(frame(HEADERS, 4, 1, POST) + frame(HEADERS, 5, 1, block([(":path", "/b")])))
	while h.read().kind != RST_STREAM:
		pass
	h.send(frame(DATA, 0, 1, b"x") + frame(DATA, 1, 1, b"x") + frame(HEADERS, 5, 1, block([("x-a", "b")])))


@case("5.1", "upload-that-nobody-wants", "ping")
def send_into_answer(h):
	# The answer comes before the end of the upload; the rest is taken and forgotten.
	h.send(frame(HEADERS, 4, 1, block(head(method="POST", more=[("expect", "nothing")]))))
	while (got := h.read()).kind != RST_STREAM:
		assert got.kind != GOAWAY, got
	h.send(frame(DATA, 0, 1, b"x" * 1000) + frame(DATA, 1, 1, b"x"))


# ---- 5.1.1, 5.1.2 ----
simple("5.1.1", "even-stream", connection(PROTOCOL), frame(HEADERS, 5, 2, HEAD))
simple("5.1.1", "smaller-stream", connection(PROTOCOL), frame(HEADERS, 5, 5, HEAD), frame(HEADERS, 5, 3, HEAD))
simple("5.1.1", "data-on-smaller-stream", "ping", frame(HEADERS, 5, 5, HEAD), frame(DATA, 1, 3, b"x"))
simple("5.1.1", "smaller-stream-after-one-that-was-used", connection(PROTOCOL), frame(HEADERS, 5, 1, HEAD), frame(HEADERS, 5, 9, HEAD),
	frame(HEADERS, 5, 7, HEAD))
simple("5.1.1", "headers-on-stream-0", connection(PROTOCOL), frame(HEADERS, 5, 0, HEAD))


@case("5.1.2", "more-streams-than-allowed", stream(PROTOCOL, REFUSED_STREAM))
def open_many(h):
	limit = h.settings[MAX_CONCURRENT_STREAMS]
	for sid in range(3, 2 * limit + 3, 2):
		h.send(frame(HEADERS, 5, sid, block(head("/hang"))))
	h.last = 2 * limit + 3
	h.send(frame(HEADERS, 5, h.last, block(head("/hang"))))


# ---- 5.3.1 ----
simple("5.3.1", "headers-depend-on-themselves", stream(PROTOCOL), frame(HEADERS, 5 | PRIORITIZED, 1, b"\0\0\0\1\xff" + HEAD))
# Priorities of RFC 7540 are switched off by SETTINGS_NO_RFC7540_PRIORITIES: such a frame says nothing.
simple("5.3.1", "priority-depends-on-itself", "ping", frame(PRIORITY, 0, 1, b"\0\0\0\1\xff"))
simple("5.3.1", "headers-with-priority", 200, frame(HEADERS, 5 | PRIORITIZED, 1, b"\x80\0\0\3\xff" + HEAD))
# ---- 5.4.1, 5.5 ----
simple("5.4.1", "closes-after-error", connection(SIZE), frame(PING, 0, 0, b"12345"))
simple("5.5", "extension-inside-block", connection(PROTOCOL), frame(HEADERS, 1, 1, HEAD[:9]), frame(0x16, 0, 0, b"12345678"))
simple("5.5", "unknown-setting", "ping", settings((0x7777, 5)))

# ---- 6.1 DATA ----
simple("6.1", "data-on-stream-0", connection(PROTOCOL), frame(DATA, 1, 0, b"x"))
simple("6.1", "padding-too-long", connection(PROTOCOL), frame(HEADERS, 4, 1, POST), frame(DATA, 1 | PADDED, 1, b"\x06abcde"))
simple("6.1", "padded", 200, frame(HEADERS, 4, 1, POST), frame(DATA, 1 | PADDED, 1, b"\x02abc\0\0"))
simple("6.1", "padding-only", 200, frame(HEADERS, 4, 1, POST), frame(DATA, 1 | PADDED, 1, b"\x02\0\0"))
simple("6.1", "padded-without-length", connection(SIZE, PROTOCOL), frame(HEADERS, 4, 1, POST), frame(DATA, 1 | PADDED, 1, b""))
simple("6.1", "empty-end", 200, frame(HEADERS, 4, 1, POST), frame(DATA, 1, 1, b""))
# ---- 6.2 HEADERS ----
simple("6.2", "padded", 200, frame(HEADERS, 5 | PADDED, 1, b"\x04" + HEAD + b"\0\0\0\0"))
simple("6.2", "padding-too-long", connection(PROTOCOL), frame(HEADERS, 5 | PADDED, 1, b"\xff" + HEAD))
simple("6.2", "padded-with-priority", 200, frame(HEADERS, 5 | PADDED | PRIORITIZED, 1, b"\x01\0\0\0\0\x10" + HEAD + b"\0"))
simple("6.2", "priority-cut-off", connection(SIZE, PROTOCOL), frame(HEADERS, 5 | PRIORITIZED, 1, b"\0\0"))
# ---- 6.3 PRIORITY ----
simple("6.3", "priority-on-stream-0", connection(PROTOCOL), frame(PRIORITY, 0, 0, b"\0\0\0\1\xff"))
simple("6.3", "priority-of-wrong-size", stream(SIZE), frame(HEADERS, 4, 1, POST), frame(PRIORITY, 0, 1, b"\0\0\0\0"))
# ---- 6.4 RST_STREAM ----
simple("6.4", "reset-of-stream-0", connection(PROTOCOL), rst(0))
simple("6.4", "reset-of-idle", connection(PROTOCOL), rst(1))
simple("6.4", "reset-of-wrong-size", connection(SIZE), frame(HEADERS, 4, 1, POST), frame(RST_STREAM, 0, 1, b"\0\0\0"))
# ---- 6.5 SETTINGS ----
simple("6.5", "ack-with-payload", connection(SIZE), frame(SETTINGS, ACK, 0, b"\0\3\0\0\0\1"))
simple("6.5", "settings-on-stream", connection(PROTOCOL), frame(SETTINGS, 0, 1, b"\0\3\0\0\0\1"))
simple("6.5", "settings-are-acknowledged", "settings-ack", settings((MAX_CONCURRENT_STREAMS, 50)))
simple("6.5.2", "push-2", connection(PROTOCOL), settings((ENABLE_PUSH, 2)))
simple("6.5.2", "push-0", "ping", settings((ENABLE_PUSH, 0)))
simple("6.5.2", "window-too-large", connection(FLOW), settings((INITIAL_WINDOW_SIZE, 1 << 31)))
simple("6.5.2", "window-largest", "ping", settings((INITIAL_WINDOW_SIZE, (1 << 31) - 1)))
simple("6.5.2", "frame-too-small", connection(PROTOCOL), settings((MAX_FRAME_SIZE, 16383)))
simple("6.5.2", "frame-too-large", connection(PROTOCOL), settings((MAX_FRAME_SIZE, 1 << 24)))
simple("6.5.2", "frame-largest", "ping", settings((MAX_FRAME_SIZE, (1 << 24) - 1)))
simple("6.5.2", "table-0", 200, settings((HEADER_TABLE_SIZE, 0)), frame(HEADERS, 5, 1, HEAD))
simple("6.5.3", "many-values-last-one-counts", 200, settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 65535)),
	frame(HEADERS, 5, 1, HEAD))
# ---- 6.6 PUSH_PROMISE ----
simple("6.6", "client-pushes", connection(PROTOCOL), frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2" + HEAD))
# ---- 6.7 PING ----
simple("6.7", "ping-is-answered", "ping", frame(PING, 0, 0, b"abcdefgh"))
simple("6.7", "unasked-ack", "ping", frame(PING, ACK, 0, b"invalid!"))
simple("6.7", "ping-on-stream", connection(PROTOCOL), frame(PING, 0, 1, b"12345678"))
simple("6.7", "ping-of-wrong-size", connection(SIZE), frame(PING, 0, 0, b"123456"))
# ---- 6.8 GOAWAY ----
simple("6.8", "goaway-on-stream", connection(PROTOCOL), frame(GOAWAY, 0, 1, b"\0" * 8))
simple("6.8", "goaway-too-short", connection(SIZE), frame(GOAWAY, 0, 0, b"\0" * 4))
simple("6.8", "streams-go-on-after-goaway", 200, frame(HEADERS, 4, 1, POST), frame(GOAWAY, 0, 0, b"\0" * 8), frame(DATA, 1, 1, b"x"))
# ---- 6.9 WINDOW_UPDATE ----
simple("6.9", "increment-0-connection", connection(PROTOCOL), window_update(0, 0))
simple("6.9", "increment-0-stream", stream(PROTOCOL), frame(HEADERS, 4, 1, POST), window_update(1, 0))
simple("6.9", "wrong-size", connection(SIZE), frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"))
simple("6.9.1", "connection-window-overflow", connection(FLOW), window_update(0, 0x7fffffff), window_update(0, 0x7fffffff))
simple("6.9.1", "stream-window-overflow", stream(FLOW), frame(HEADERS, 4, 1, POST), window_update(1, 0x7fffffff),
	window_update(1, 0x7fffffff))


@case("6.9.1", "window-is-kept-to", "checked")
def keep_to_window(h):
	h.refill = False
	h.send(settings((INITIAL_WINDOW_SIZE, 1)) + frame(HEADERS, 5, 1, HEAD))
	data = h.wait(lambda f: f.kind == DATA)
	assert len(data.payload) == 1, data


@case("6.9.2", "change-of-window-counts-for-open-streams", "checked")
def change_window(h):
	h.refill = False
	h.send(settings((INITIAL_WINDOW_SIZE, 0)) + frame(HEADERS, 5, 1, HEAD))
	h.wait(lambda f: f.kind == HEADERS)
	h.send(settings((INITIAL_WINDOW_SIZE, 1)))
	data = h.wait(lambda f: f.kind == DATA)
	assert len(data.payload) == 1, data


@case("6.9.2", "negative-window", "checked")
def make_window_negative(h):
	h.refill = False
	h.send(settings((INITIAL_WINDOW_SIZE, 3)) + frame(HEADERS, 5, 1, HEAD))
	assert len(h.wait(lambda f: f.kind == DATA).payload) == 3
	h.send(settings((INITIAL_WINDOW_SIZE, 2)) + window_update(1, 2))
	data = h.wait(lambda f: f.kind == DATA)
	assert len(data.payload) == 1, data


# nghttp2 ends the stream, not the connection.
simple("6.9.2", "overflow-by-settings", stream(FLOW), frame(HEADERS, 4, 1, POST), window_update(1, 0x7fff0000),
	settings((INITIAL_WINDOW_SIZE, 0x7fffffff)))
# ---- 6.10 CONTINUATION ----
simple("6.10", "after-end-headers", connection(PROTOCOL), frame(HEADERS, 5, 1, block(head("/hang"))), frame(CONTINUATION, 4, 1, HEAD))
simple("6.10", "on-stream-0", connection(PROTOCOL), frame(HEADERS, 1, 1, HEAD[:9]), frame(CONTINUATION, 4, 0, HEAD[9:]))
simple("6.10", "on-other-stream", connection(PROTOCOL), frame(HEADERS, 1, 1, HEAD[:9]), frame(CONTINUATION, 4, 3, HEAD[9:]))
simple("6.10", "after-continuation-end", connection(PROTOCOL), frame(HEADERS, 1, 1, HEAD[:9]), frame(CONTINUATION, 4, 1, HEAD[9:]),
	frame(CONTINUATION, 4, 1, b""))
simple("6.10", "data-before-end", connection(PROTOCOL), frame(HEADERS, 0, 1, POST[:9]), frame(DATA, 1, 1, b"x"))
simple("6.10", "empty-continuation", 200, frame(HEADERS, 1, 1, HEAD), frame(CONTINUATION, 4, 1, b""))
# ---- 7 ----
simple("7", "unknown-error-of-goaway", "ping-or-end", frame(GOAWAY, 0, 0, struct.pack("!II", 0, 0xff)))
simple("7", "unknown-error-of-reset", "ping", frame(HEADERS, 4, 1, POST), rst(1, 0xff))

# ---- 8.1 ----
simple("8.1", "second-headers-without-end", stream(PROTOCOL), frame(HEADERS, 4, 1, POST), frame(HEADERS, 4, 1, block([("x-a", "b")])))
simple("8.1", "trailers", 200, frame(HEADERS, 4, 1, POST), frame(DATA, 0, 1, b"x"), frame(HEADERS, 5, 1, block([("x-a", "b")])))
simple("8.1", "head-request", 200, frame(HEADERS, 5, 1, block(head(method="HEAD"))))
simple("8.1.2", "trailers-with-pseudo", stream(PROTOCOL), frame(HEADERS, 4, 1, POST), frame(DATA, 0, 1, b"x"),
	frame(HEADERS, 5, 1, block([(":path", "/b")])))
for name, fields in {
	"upper-case": [("X-A", "b")], "connection": [("connection", "keep-alive")], "keep-alive": [("keep-alive", "timeout=5")],
	"proxy-connection": [("proxy-connection", "keep-alive")], "transfer-encoding": [("transfer-encoding", "chunked")],
	"upgrade": [("upgrade", "websocket")], "te-gzip": [("te", "gzip")], "te-trailers-deflate": [("te", "trailers, deflate")],
	"unknown-pseudo": [(":unknown", "x")], "response-pseudo": [(":status", "200")], "space-in-name": [("x a", "b")],
	"colon-in-name": [("x:a", "b")], "empty-name": [("", "b")], "control-in-name": [("x\x01", "b")], "non-ascii-name": [("x\xe4", "b")],
	"cr-in-value": [("x-a", "b\rc")], "lf-in-value": [("x-a", "b\nc")], "nul-in-value": [("x-a", "b\0c")],
	"crlf-request": [("x-a", "b\r\nGET /evil HTTP/1.1")], "leading-space": [("x-a", " b")], "trailing-space": [("x-a", "b ")],
	"leading-tab": [("x-a", "\tb")], "two-lengths": [("content-length", "0"), ("content-length", "0")],
	"list-of-lengths": [("content-length", "0, 0")], "signed-length": [("content-length", "+0")],
	"negative-length": [("content-length", "-1")], "hex-length": [("content-length", "0x1")],
	"host-differs": None, "host-twice": [("host", "gw.test"), ("host", "other.test")],
}.items():
	bad = frame(HEADERS, 5, 1, block(head(more=fields if fields is not None else [("host", "evil.test")])))
	simple("8.1.2.2", name, "refused", bad)
simple("8.1.2.2", "te-trailers", 200, frame(HEADERS, 5, 1, block(head(more=[("te", "trailers")]))))
simple("8.1.2.3", "host-instead-of-authority", 200,
	frame(HEADERS, 5, 1, block([(":method", "GET"), (":scheme", "http"), (":path", "/echo"), ("host", "gw.test")])))
simple("8.1.2.3", "same-host-and-authority", 200, frame(HEADERS, 5, 1, block(head(more=[("host", "gw.test")]))))
for name in (":method", ":scheme", ":path"):
	simple("8.1.2.3", f"without-{name[1:]}", stream(PROTOCOL), frame(HEADERS, 5, 1, block([f for f in head() if f[0] != name])))
	simple("8.1.2.3", f"two-of-{name[1:]}", stream(PROTOCOL), frame(HEADERS, 5, 1, block([f for f in head() if f[0] == name] + head())))
	simple("8.1.2.3", f"empty-{name[1:]}", "refused", frame(HEADERS, 5, 1, block([f if f[0] != name else (name, "") for f in head()])))
simple("8.1.2.3", "without-any-host", stream(PROTOCOL), frame(HEADERS, 5, 1, block([f for f in head() if f[0] != ":authority"])))
simple("8.1.2.3", "two-authorities", stream(PROTOCOL), frame(HEADERS, 5, 1, block([(":authority", "a.test"), *head()])))
simple("8.1.2.3", "pseudo-after-field", stream(PROTOCOL), frame(HEADERS, 5, 1, block([("x-a", "b"), *head()])))
for name, path in {"relative": "echo", "fragment": "/echo#a", "space": "/ec ho", "absolute": "http://gw.test/echo", "asterisk": "*",
		"above-root": "/../echo", "nul-escape": "/echo%00", "bad-escape": "/echo%zz", "crlf": "/echo HTTP/1.1\r\nX: y",
		"backslash": "/a\\b", "non-ascii": "/\xe4"}.items():
	simple("8.1.2.3", f"path-{name}", "refused", frame(HEADERS, 5, 1, block(head(path))))
for name, authority in {"userinfo": "user@gw.test", "space": "gw test", "crlf": "gw.test\r\nX: y", "bad-port": "gw.test:99999x",
		"slash": "gw.test/a"}.items():
	simple("8.1.2.3", f"authority-{name}", "refused", frame(HEADERS, 5, 1, block(head(authority=authority))))
for name, method in {"space": "GE T", "crlf": "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "tab": "GET\t"}.items():
	simple("8.1.2.3", f"method-{name}", "refused", frame(HEADERS, 5, 1, block(head(method=method))))
simple("8.1.2.3", "scheme-ftp", "refused", frame(HEADERS, 5, 1, block(head(scheme="ftp"))))
simple("8.1.2.3", "connect", "refused", frame(HEADERS, 5, 1, block([(":method", "CONNECT"), (":authority", "gw.test:80")])))
simple("8.1.2.3", "asterisk-of-options", (200, 204, 404), frame(HEADERS, 5, 1, block(head("*", method="OPTIONS"))))


def length(name, expected, promised, *frames):
	simple("8.1.2.6", name, expected, frame(HEADERS, 4, 1, block(head(method="POST", more=[("content-length", promised)]))), *frames)


length("right", 200, "3", frame(DATA, 1, 1, b"abc"))
length("right-in-two", 200, "4", frame(DATA, 0, 1, b"ab"), frame(DATA, 1, 1, b"cd"))
length("too-short", stream(PROTOCOL), "4", frame(DATA, 1, 1, b"abc"))
length("too-long", stream(PROTOCOL), "1", frame(DATA, 1, 1, b"abc"))
length("too-long-in-two", stream(PROTOCOL), "4", frame(DATA, 0, 1, b"abc"), frame(DATA, 1, 1, b"cde"))
length("too-short-by-trailers", stream(PROTOCOL), "4", frame(DATA, 0, 1, b"abc"), frame(HEADERS, 5, 1, block([("x-a", "b")])))
simple("8.1.2.6", "promised-without-body", "refused", frame(HEADERS, 5, 1, block(head(method="POST", more=[("content-length", "3")]))))
# ---- 8.2 (push) and HPACK ----
simple("8.2", "client-pushes-even", connection(PROTOCOL), frame(PUSH_PROMISE, 4, 2, b"\0\0\0\4" + HEAD))
simple("hpack-2.3.3", "index-outside-of-the-table", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + integer(70, 7, 0x80)))
simple("hpack-2.3.3", "name-index-outside-of-the-table", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + integer(70, 6, 0x40) + b"\1a"))
simple("hpack-4.2", "size-update-at-the-end", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + integer(1, 5, 0x20)))
simple("hpack-4.2", "size-update-first", 200, frame(HEADERS, 5, 1, integer(0, 5, 0x20) + HEAD))
simple("hpack-5.1", "endless-integer", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + b"\x7f" + b"\xff" * 20 + b"\1a"))
simple("hpack-5.2", "padding-longer-than-7-bits", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + b"\x00\x01a\x82\x1f\xff\xff"[:-1] + b"\xff"))
simple("hpack-5.2", "padding-of-zeros", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + b"\x00\x01a\x81\x18"))
simple("hpack-5.2", "eos-in-string", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + b"\x00\x01a\x84\xff\xff\xff\xff"))
simple("hpack-6.1", "index-0", connection(COMPRESSION), frame(HEADERS, 5, 1, HEAD + b"\x80"))
simple("hpack-6.2", "never-indexed", 200, frame(HEADERS, 5, 1, HEAD + b"\x10\x03x-a\x01b"))
simple("hpack-6.2", "indexed-and-used-again", 200, frame(HEADERS, 5, 1, HEAD + b"\x40\x03x-a\x01b" + integer(62, 7, 0x80)))
simple("hpack-6.3", "size-update-above-the-limit", connection(COMPRESSION), frame(HEADERS, 5, 1, integer(4097, 5, 0x20) + HEAD))


@pytest.fixture(scope="module")
def site(gw, backend_process):
	gw.route("/", backend_process)
	return gw


def check_stream(h, codes):
	sid = getattr(h, "last", 1)
	while (got := h.read()) is not None:
		if got.kind == RST_STREAM and got.stream == sid and got.code != NO_ERROR:
			assert got.code in codes, got
			return
	assert h.goaways and h.goaways[-1].code in codes, h.frames


def check_refused(h, backend):
	"""By a reset or an answer 4xx; nothing of it reached the upstream."""
	while True:
		got = h.read()
		answer = h.answers.get(1)
		if got is None:
			assert h.goaways and h.goaways[-1].code == PROTOCOL_ERROR, h.frames
			break
		if answer and (answer.reset is not None or answer.done):
			assert answer.reset == PROTOCOL_ERROR or answer.status in (400, 405), answer
			break
	assert backend.requests() == []


@pytest.mark.parametrize("send, expected, greet", CASES)
def test_section(site, backend, send, expected, greet):
	with H2(site.port, greet=greet) as h:
		send(h)
		match expected:
			case "checked":
				pass
			case "ping":
				assert h.ping(b"alive? !"), h.frames
				assert len([r for r in backend.requests() if r.complete]) <= 1
			case "ping-or-end":
				h.ping()
			case "settings-ack":
				h.wait(lambda f: f.kind == SETTINGS and f.flags & ACK)
			case "refused":
				check_refused(h, backend)
			case ("connection", codes):
				ended = h.ended()
				# Before the preface is complete nothing says that this is HTTP/2.
				assert ended in codes or (not greet and ended == "closed"), (ended, h.frames)
			case ("stream", codes):
				check_stream(h, codes)
			case _:
				answer = h.answer(1)
				assert answer.status in (expected if isinstance(expected, tuple) else (expected,)), answer
	assert site.get("/echo").status == 200


def test_number_of_cases():
	assert len(CASES) >= 140
