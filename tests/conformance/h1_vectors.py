"""HTTP/1 requests and what the gateway has to do with them, written from RFC 9110, RFC 9112 and RFC 3986.

Data only: a runner sends `payload` over a fresh connection and looks at the first answer.

`expected` is
  an integer   the status of the answer (the connection is closed after it, and nothing reached the upstream), or
  FORWARDED    the request reached the upstream, whose answer came back, or
  INCOMPLETE   no answer: the gateway waits for more of the request (and nothing is complete upstream).

Of a forwarded request, the optional members say what the upstream saw: `target` the request target, `host` the Host value,
`body` the decoded body, `absent` field names that must not be there, `fields` those that must, with their values.
`answers` is how many answers come in total (pipelined requests), 1 unless given. `closes` tells that the gateway closes the
connection after the answer even though it is a good one.

The host name is a.test throughout: a runner routes it, and "/" with all methods, to an upstream that records.
"""

FORWARDED = "forwarded"
INCOMPLETE = "incomplete"

HOST = b"Host: a.test\r\n"
END = b"\r\n"
LINE = b"GET / HTTP/1.1\r\n"
GET = LINE + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

VECTORS = []


def case(group, name, payload, expected, **seen):
	VECTORS.append({"id": f"{group}-{name}", "group": group, "payload": payload, "expected": expected, **seen})


def field(group, name, line, expected, **seen):
	"""One field line in a GET."""
	case(group, name, GET + line + b"\r\n\r\n", expected, **seen)


def path(name, raw, expected, **seen):
	case("normal", name, b"GET " + raw + b" HTTP/1.1\r\n" + HOST + END, expected, **seen)


# --- compliance: what has to work ---------------------------------------------------------------------------------------
case("compliance", "get", GET + END, FORWARDED, target="/", host="a.test", body=b"")
case("compliance", "host-port", LINE + b"Host: a.test:8080\r\n\r\n", FORWARDED, host="a.test:8080")
case("compliance", "host-any-case", LINE + b"hOsT: a.test\r\n\r\n", FORWARDED, host="a.test")
case("compliance", "host-no-blank", LINE + b"Host:a.test\r\n\r\n", FORWARDED, host="a.test")
case("compliance", "host-blanks", LINE + b"Host: \t a.test \t\r\n\r\n", FORWARDED, host="a.test")
case("compliance", "host-last", LINE + b"X-A: 1\r\n" + HOST + END, FORWARDED, fields={"X-A": "1"})
case("compliance", "one-empty-line-before", END + GET + END, FORWARDED)
case("compliance", "two-empty-lines-before", END + END + GET + END, 400)
case("compliance", "pipelined", GET + END + GET + END + GET + END, FORWARDED, answers=3)
case("compliance", "pipelined-after-body", POST + b"Content-Length: 5\r\n\r\nhello" + GET + END, FORWARDED, answers=2)
case("compliance", "pipelined-after-chunks", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + GET + END, FORWARDED, answers=2)
case("compliance", "http10", b"GET / HTTP/1.0\r\n" + HOST + END, FORWARDED, closes=True)
case("compliance", "http10-keep-alive", b"GET / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n" + GET + END,
     FORWARDED, answers=2)
case("compliance", "close", GET + b"Connection: close\r\n\r\n", FORWARDED, closes=True, absent=["Connection"])
case("compliance", "close-any-case", GET + b"connection: CLOSE\r\n\r\n", FORWARDED, closes=True)
case("compliance", "close-in-list", GET + b"Connection: x-a, close\r\n\r\n", FORWARDED, closes=True)
case("compliance", "close-wins", GET + b"Connection: keep-alive\r\nConnection: close\r\n\r\n", FORWARDED, closes=True)
case("compliance", "absolute-form", b"GET http://a.test/x?y HTTP/1.1\r\n" + HOST + END, FORWARDED, target="/x?y",
     host="a.test")
case("compliance", "absolute-form-wins", b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", FORWARDED, host="a.test")
case("compliance", "absolute-form-no-path", b"GET http://a.test HTTP/1.1\r\n" + HOST + END, FORWARDED, target="/")
case("compliance", "absolute-form-query-only", b"GET http://a.test?x HTTP/1.1\r\n" + HOST + END, FORWARDED, target="/?x")
case("compliance", "absolute-form-scheme-case", b"GET HTTP://a.test/ HTTP/1.1\r\n" + HOST + END, FORWARDED)
case("compliance", "post-length", POST + b"Content-Length: 5\r\n\r\nhello", FORWARDED, body=b"hello")
case("compliance", "post-length-zero", POST + b"Content-Length: 0\r\n\r\n", FORWARDED, body=b"")
case("compliance", "post-no-length", POST + END, FORWARDED, body=b"")
case("compliance", "post-length-short", POST + b"Content-Length: 10\r\n\r\nhello", INCOMPLETE)
case("compliance", "get-with-body", GET + b"Content-Length: 5\r\n\r\nhello", FORWARDED, body=b"hello")
case("compliance", "chunked", CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", FORWARDED, body=b"hello world")
case("compliance", "chunked-any-case", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n", FORWARDED, body=b"x")
case("compliance", "chunked-empty", CHUNKED + b"0\r\n\r\n", FORWARDED, body=b"")
case("compliance", "chunked-hex-case", CHUNKED + b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", FORWARDED,
     body=b"01234567890123456789")
case("compliance", "chunked-leading-zeros", CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n", FORWARDED, body=b"hello")
case("compliance", "chunked-extension", CHUNKED + b"5;a=b;c=\"d;\\\"e\"\r\nhello\r\n0;f\r\n\r\n", FORWARDED, body=b"hello")
case("compliance", "chunked-trailer", CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", FORWARDED, body=b"hello",
     absent=["X-Sum"])
case("compliance", "chunked-unfinished", CHUNKED + b"5\r\nhello\r\n", INCOMPLETE)
case("compliance", "head-unfinished", GET, INCOMPLETE)
case("compliance", "expect-continue", POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", FORWARDED, body=b"hello")
case("compliance", "expect-unknown", POST + b"Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello", 417)
case("compliance", "expect-http10", b"POST / HTTP/1.0\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
     FORWARDED, closes=True, body=b"x")
case("compliance", "unknown-method", b"BREW / HTTP/1.1\r\n" + HOST + END, FORWARDED)
case("compliance", "connect", b"CONNECT a.test:443 HTTP/1.1\r\n" + HOST + END, 405)
case("compliance", "options-origin", b"OPTIONS /x HTTP/1.1\r\n" + HOST + END, FORWARDED, target="/x")
case("compliance", "empty-value", GET + b"X-A:\r\n\r\n", FORWARDED, fields={"X-A": ""})
case("compliance", "value-inner-blanks", GET + b"X-A: a  b\tc\r\n\r\n", FORWARDED, fields={"X-A": "a  b\tc"})
case("compliance", "value-obs-text", GET + b"X-A: \xe9\r\n\r\n", FORWARDED)
case("compliance", "same-field-twice", GET + b"X-A: 1\r\nX-A: 2\r\n\r\n", FORWARDED)
case("compliance", "token-name", GET + b"X!#$%&'*+-.^`|~: 1\r\n\r\n", FORWARDED)
field("compliance", "hop-by-hop", b"TE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTrailer: x", FORWARDED,
      absent=["TE", "Keep-Alive", "Proxy-Connection", "Trailer"])
field("compliance", "nominated", b"Connection: X-A\r\nX-A: 1\r\nX-B: 2", FORWARDED, absent=["X-A", "Connection"],
      fields={"X-B": "2"})
field("compliance", "upgrade-not-passed-on", b"Upgrade: h2c", FORWARDED, absent=["Upgrade"])
case("compliance", "version-1.2", b"GET / HTTP/1.2\r\n" + HOST + END, 505)
case("compliance", "version-2.0", b"GET / HTTP/2.0\r\n" + HOST + END, 505)
case("compliance", "version-0.9", b"GET / HTTP/0.9\r\n" + HOST + END, 505)
case("compliance", "http2-preface-that-is-none", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505)
case("compliance", "no-host", LINE + END, 400)
case("compliance", "no-host-absolute-form", b"GET http://a.test/ HTTP/1.1\r\n\r\n", 400)
case("compliance", "two-hosts", GET + b"Host: b.test\r\n\r\n", 400)
case("compliance", "two-equal-hosts", GET + HOST + END, 400)
case("compliance", "two-hosts-http10", b"GET / HTTP/1.0\r\n" + HOST + HOST + END, 400)
for name, value in (("empty", b""), ("list", b"a.test, b.test"), ("userinfo", b"u@a.test"), ("path", b"a.test/x"),
                    ("blank", b"a.test b.test"), ("port-text", b"a.test:http"), ("port-large", b"a.test:65536"),
                    ("two-ports", b"a.test:1:2"), ("open-bracket", b"[::1"), ("bare-ipv6", b"::1"), ("query", b"a.test?x"),
                    ("escape", b"a%2etest"), ("obs-text", b"\xe9.test")):
	case("compliance", "host-" + name, LINE + b"Host: " + value + b"\r\n\r\n", 400)

# --- smuggling: where two readers could see two messages ----------------------------------------------------------------
BODY = b"\r\n0\r\n\r\n"
case("smuggling", "length-and-chunked", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" + BODY, 400)
case("smuggling", "chunked-and-length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" + BODY, 400)
case("smuggling", "two-lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400)
case("smuggling", "two-equal-lengths", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400)
for name, value in (("list", b"5, 5"), ("list-different", b"5, 6"), ("empty", b""), ("plus", b"+5"), ("minus", b"-5"),
                    ("minus-zero", b"-0"), ("zeros", b"005"), ("two-zeros", b"00"), ("hex", b"0x5"), ("octal", b"0o5"),
                    ("underscore", b"1_0"), ("inner-blank", b"1 0"), ("fraction", b"5.0"), ("exponent", b"5e0"),
                    ("letters", b"five"), ("quoted", b"\"5\""), ("beyond-63-bits", b"9223372036854775808"),
                    ("beyond-64-bits", b"18446744073709551621"), ("vertical-tab", b"\x0b5"), ("arabic", b"\xd9\xa5")):
	case("smuggling", "length-" + name, POST + b"Content-Length: " + value + b"\r\n\r\nhello", 400)
for name, value, status in (
		("empty", b"", 400), ("twice", b"chunked, chunked", 400), ("not-last", b"chunked, gzip", 400),
		("comma-before", b", chunked", 400), ("comma-after", b"chunked,", 400), ("parameter", b"chunked;q=1", 400),
		("quoted", b"\"chunked\"", 400), ("vertical-tab", b"\x0bchunked", 400), ("form-feed", b"\x0cchunked", 400),
		("nul", b"chunked\0", 400), ("two-words", b"chunked x", 400), ("gzip-first", b"gzip, chunked", 501),
		("gzip", b"gzip", 501), ("identity", b"identity", 501), ("prefix", b"xchunked", 501), ("suffix", b"chunkedx", 501)):
	case("smuggling", "coding-" + name, POST + b"Transfer-Encoding: " + value + b"\r\n" + BODY, status)
	case("smuggling", "coding-" + name + "-and-length",
	     POST + b"Transfer-Encoding: " + value + b"\r\nContent-Length: 5\r\n" + BODY, 400)
case("smuggling", "coding-two-lines", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + BODY, 400)
case("smuggling", "coding-two-equal-lines", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + BODY, 400)
case("smuggling", "coding-folded", POST + b"Transfer-Encoding:\r\n chunked\r\n" + BODY, 400)
case("smuggling", "coding-http10", b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" + BODY, 400)
case("smuggling", "coding-space-before-colon", POST + b"Transfer-Encoding : chunked\r\n" + BODY, 400)
case("smuggling", "length-space-before-colon", POST + b"Content-Length : 5\r\n\r\nhello", 400)
case("smuggling", "length-tab-in-name", POST + b"Content\tLength: 5\r\n\r\nhello", 400)
case("smuggling", "length-cr-in-name", POST + b"Content\rLength: 5\r\n\r\nhello", 400)
case("smuggling", "coding-name-underscore", POST + b"Transfer_Encoding: chunked\r\n\r\n", 400)
case("smuggling", "length-name-underscore", POST + b"Content_Length: 5\r\n\r\n", 400)
field("smuggling", "nominates-length", b"Connection: content-length\r\nContent-Length: 0", 400)
field("smuggling", "nominates-coding", b"Connection: close, Transfer-Encoding", 400)
field("smuggling", "nominates-host", b"Connection: host", 400)
field("smuggling", "underscore-dropped", b"X_User: root", FORWARDED, absent=["X_User", "X-User"])
for name, chunks in (
		("size-empty", b"\r\nhello\r\n0\r\n\r\n"), ("size-plus", b"+5\r\nhello\r\n0\r\n\r\n"),
		("size-minus", b"-1\r\nhello\r\n0\r\n\r\n"), ("size-hex-prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
		("size-underscore", b"1_0\r\nhello\r\n0\r\n\r\n"), ("size-blank-before", b" 5\r\nhello\r\n0\r\n\r\n"),
		("size-blank-after", b"5 \r\nhello\r\n0\r\n\r\n"), ("size-letters", b"five\r\nhello\r\n0\r\n\r\n"),
		("size-16-digits-too-large", b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
		("size-17-digits", b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
		("size-wraps", b"10000000000000005\r\nhello\r\n0\r\n\r\n"), ("size-lf", b"5\nhello\r\n0\r\n\r\n"),
		("size-cr", b"5\rhello\r\n0\r\n\r\n"), ("no-end", b"5\r\nhello0\r\n\r\n"), ("end-lf", b"5\r\nhello\n0\r\n\r\n"),
		("end-cr", b"5\r\nhello\r0\r\n\r\n"), ("spill", b"5\r\nhello!!\r\n0\r\n\r\n"),
		("extension-empty", b"5;\r\nhello\r\n0\r\n\r\n"), ("extension-lf", b"5;\nhello\r\n0\r\n\r\n"),
		("extension-lf-after", b"5;a\nhello\r\n0\r\n\r\n"), ("extension-cr", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
		("extension-nul", b"5;\0a\r\nhello\r\n0\r\n\r\n"), ("extension-token", b"5;a[=b\r\nhello\r\n0\r\n\r\n"),
		("extension-open-quote", b"5;a=\"b\r\nhello\r\n0\r\n\r\n"), ("extension-long", b"5;" + b"a" * 5000 + b"\r\n"),
		("last-lf", b"5\r\nhello\r\n0\n\r\n"), ("trailer-end-lf", b"5\r\nhello\r\n0\r\n\n"),
		("trailer-length", b"0\r\nContent-Length: 5\r\n\r\n"), ("trailer-coding", b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
		("trailer-host", b"0\r\nHost: b.test\r\n\r\n"), ("trailer-authorization", b"0\r\nAuthorization: x\r\n\r\n"),
		("trailer-fold", b"0\r\nX-A: 1\r\n 2\r\n\r\n"), ("trailer-space-before-colon", b"0\r\nX-A : 1\r\n\r\n"),
		("trailer-lf", b"0\r\nX-A: 1\nX-B: 2\r\n\r\n"), ("trailer-long", b"0\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n")):
	case("smuggling", "chunk-" + name, CHUNKED + chunks, 400)

# --- malformed: what is no request --------------------------------------------------------------------------------------
case("malformed", "tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400)
case("malformed", "blank-first", b" GET / HTTP/1.1\r\n" + HOST + END, 400)
case("malformed", "nul-first", b"\0GET / HTTP/1.1\r\n" + HOST + END, 400)
case("malformed", "request-line-lf", b"GET / HTTP/1.1\n" + HOST + END, 400)
case("malformed", "all-lf", b"GET / HTTP/1.1\nHost: a.test\n\n", 400)
case("malformed", "field-lf", GET + b"X-A: 1\nX-B: 2\r\n\r\n", 400)
case("malformed", "empty-line-lf", GET + b"\n", 400)
case("malformed", "request-line-cr", b"GET / HTTP/1.1\r" + HOST + END, 400)
for name, line in (("two-blanks-before-target", b"GET  / HTTP/1.1"), ("two-blanks-after-target", b"GET /  HTTP/1.1"),
                   ("blank-at-end", b"GET / HTTP/1.1 "), ("tab", b"GET\t/ HTTP/1.1"), ("no-target", b"GET HTTP/1.1"),
                   ("no-version", b"GET /"), ("version-case", b"GET / http/1.1"), ("version-short", b"GET / HTTP/1"),
                   ("version-long", b"GET / HTTP/1.1.1"), ("version-zeros", b"GET / HTTP/01.1"), ("version-text", b"GET / FTP/1.1"),
                   ("method-bad", b"G[T / HTTP/1.1"), ("method-obs-text", b"G\xe9T / HTTP/1.1"), ("method-long", b"G" * 100 + b" / HTTP/1.1"),
                   ("target-blank", b"GET /a b HTTP/1.1"), ("target-control", b"GET /a\x01 HTTP/1.1"),
                   ("target-nul", b"GET /a\0 HTTP/1.1"), ("target-del", b"GET /a\x7f HTTP/1.1"),
                   ("target-obs-text", b"GET /\xe9 HTTP/1.1"), ("target-fragment", b"GET /a#b HTTP/1.1"),
                   ("target-relative", b"GET a HTTP/1.1"), ("target-asterisk", b"GET * HTTP/1.1"),
                   ("target-authority", b"GET a.test:80 HTTP/1.1"), ("target-scheme", b"GET ftp://a.test/ HTTP/1.1"),
                   ("target-userinfo", b"GET http://u:p@a.test/ HTTP/1.1"), ("target-no-authority", b"GET http:///a HTTP/1.1"),
                   ("query-fragment", b"GET /a?b#c HTTP/1.1"), ("query-obs-text", b"GET /a?\xe9 HTTP/1.1")):
	case("malformed", name, line + b"\r\n" + HOST + END, 400)
case("malformed", "target-long", b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\n" + HOST + END, 414)
case("malformed", "head-large", GET + b"X-A: " + b"a" * 40000 + b"\r\n\r\n", 431)
case("malformed", "many-fields", GET + b"X-A: 1\r\n" * 101 + END, 431)
case("malformed", "many-crumbs", GET + b"Cookie: " + b"; ".join([b"a=1"] * 101) + b"\r\n\r\n", 431)
for name, line in (("name-empty", b": 1"), ("no-colon", b"X-A"), ("name-bad", b"X[A: 1"), ("name-blank", b"X A: 1"),
                   ("space-before-colon", b"X-A : 1"), ("tab-before-colon", b"X-A\t: 1"), ("name-obs-text", b"X\xe9: 1"),
                   ("name-nul", b"X\0A: 1"), ("value-nul", b"X-A: a\0b"), ("value-control", b"X-A: a\x01b"),
                   ("value-del", b"X-A: a\x7fb"), ("value-cr", b"X-A: a\rb"), ("fold-blank", b"X-A: 1\r\n 2"),
                   ("fold-tab", b"X-A: 1\r\n\t2"), ("connection-bad", b"Connection: a b"),
                   ("connection-many", b"Connection: " + b",".join([b"a"] * 40))):
	field("malformed", name, line, 400)
case("malformed", "fold-first", LINE + b" X-A: 1\r\n" + HOST + END, 400)

# --- normalisation: one form for matching, upstream and logs ------------------------------------------------------------
path("unreserved-decoded", b"/%61%2d%2E%7e", FORWARDED, target="/a-.~")
path("hex-upper-case", b"/%e2%82%ac", FORWARDED, target="/%E2%82%AC")
path("escape-kept", b"/a%20b", FORWARDED, target="/a%20b")
path("slash-kept-escaped", b"/a%2fb", FORWARDED, target="/a%2Fb")
path("backslash-kept-escaped", b"/a%5cb", FORWARDED, target="/a%5Cb")
path("dot", b"/a/./b", FORWARDED, target="/a/b")
path("dot-dot", b"/a/../b", FORWARDED, target="/b")
path("dot-last", b"/a/.", FORWARDED, target="/a/")
path("dot-dot-last", b"/a/b/..", FORWARDED, target="/a/")
path("dots-escaped", b"/a/%2e%2E/b", FORWARDED, target="/b")
path("double-slash", b"/a//b///c", FORWARDED, target="/a/b/c")
path("double-slash-first", b"//a", FORWARDED, target="/a")
path("double-escape-kept", b"/%252e%252e/a", FORWARDED, target="/%252e%252e/a")
path("dots-in-name", b"/..a/b../...", FORWARDED, target="/..a/b../...")
path("well-known", b"/.well-known/x", FORWARDED, target="/.well-known/x")
path("parameters-kept", b"/a;v=1/b", FORWARDED, target="/a;v=1/b")
path("query-untouched", b"/a?b=/../c//%2e%zz", FORWARDED, target="/a?b=/../c//%2e%zz")
path("query-empty", b"/a?", FORWARDED, target="/a?")
path("above-root", b"/../a", 400)
path("above-root-escaped", b"/%2e%2e/a", 400)
path("above-root-later", b"/a/../../b", 400)
path("nul", b"/%00", 400)
path("control", b"/a%0d%0ab", 400)
path("delete", b"/%7f", 400)
path("escape-short", b"/a%2", 400)
path("escape-bad", b"/a%zz", 400)
path("percent-alone", b"/100%", 400)
path("backslash", b"/a\\b", 400)
path("dots-before-escaped-slash", b"/a/..%2fb", 400)
path("dots-after-escaped-slash", b"/a%2f..", 400)
path("dots-before-escaped-backslash", b"/a/..%5cb", 400)
path("escaped-dots-before-escaped-slash", b"/a/%2e%2e%2fb", 400)
path("dots-with-parameter", b"/a/..;/b", 400)
