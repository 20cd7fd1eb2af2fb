/* test_h1_parse.c -- heads of requests and responses: where they end, what they mean, what is refused. */
/* room: http */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "http/h1.h"

#define LINE "GET / HTTP/1.1\r\n"
#define HOST "Host: a.test\r\n"
#define GET LINE HOST
#define POST "POST / HTTP/1.1\r\n" HOST
#define OK "HTTP/1.1 200 OK\r\n"

static struct arena arena;

static int drop_arena(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static void assert_str(struct str actual, const char *expected)
{
	assert_non_null(actual.p);
	if (actual.n != strlen(expected) || memcmp(actual.p, expected, actual.n) != 0)
		fail_msg("got %.*s, expected %s", STR_FMT(actual), expected);
}

/* From a block of exactly its size, so that the sanitizer sees a read past it. The copy dies with the arena. */
static enum h1_fault parse(struct message *m, struct str head, const struct h1_limits *limits)
{
	char *copy = malloc(head.n);
	enum h1_fault fault;

	memcpy(copy, head.p, head.n);
	*m = (struct message){ .arena = &arena };
	fault = h1_parse_request(m, (struct str){ copy, head.n }, limits);
	free(copy);
	*m = (struct message){ .arena = &arena };
	assert_int_equal(h1_parse_request(m, head, limits), fault);
	return fault;
}

static struct message accept_request(const char *head)
{
	struct message m;
	enum h1_fault fault = parse(&m, str_of(head), &h1_default_limits);

	if (fault)
		fail_msg("%s: %s", h1_fault_tag(fault), head);
	return m;
}

static void test_finds_the_end_in_any_pieces(void **state)
{
	static const char text[] = "GET /a HTTP/1.1\r\nHost: a.test\r\nX-Long: 0123456789abcdef0123456789\r\n\r\n"
		"rest\r\n\r\n";
	size_t expected = sizeof(text) - 1 - 8, size = 0;

	(void)state;
	for (size_t step = 1; step < sizeof(text); step++) {
		struct h1_scan scan = { 0 };
		enum h1_result result = H1_MORE;
		size_t n = 0;

		while (result == H1_MORE && n < sizeof(text) - 1) {
			n = n + step < sizeof(text) - 1 ? n + step : sizeof(text) - 1;
			result = h1_find_head(&scan, text, n, &size);
			assert_int_equal(result, n >= expected ? H1_DONE : H1_MORE);
		}
		assert_int_equal(size, expected);
	}
}

/* The empty line at every distance from the start: all block and tail positions. */
static void test_finds_the_end_at_every_place(void **state)
{
	(void)state;
	for (size_t n = 5; n < 120; n++) {
		char *text = malloc(n);
		struct h1_scan scan = { 0 };
		size_t size = 0;

		memset(text, 'x', n);
		memcpy(text + n - 4, "\r\n\r\n", 4);
		assert_int_equal(h1_find_head(&scan, text, n - 1, &size), n - 1 > H1_METHOD_BYTES ? H1_BAD : H1_MORE);
		scan = (struct h1_scan){ 0 };
		assert_int_equal(h1_find_head(&scan, text, n, &size), H1_DONE);
		assert_int_equal(size, n);
		free(text);
	}
}

static void test_unfinished_heads_fail_early(void **state)
{
	static const struct {
		const char *text;
		enum h1_fault fault;
	} cases[] = {
		{ "GET / HTTP/1.1\n", H1_FAULT_BARE_LF },
		{ "GET / HTTP/1.1\r\nHost: a\n", H1_FAULT_BARE_LF },
		{ "GET / HTTP/1.1\r\nHost: a\r\n\n", H1_FAULT_BARE_LF },
		{ "\x16\x03\x01", H1_FAULT_LEADING },
		{ " GET", H1_FAULT_LEADING },
		{ "\nGET", H1_FAULT_LEADING },
		{ "\r\n\r\nGET", H1_FAULT_LEADING },
		{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", H1_FAULT_METHOD },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct h1_scan scan = { 0 };
		size_t size;

		assert_int_equal(h1_find_head(&scan, cases[i].text, strlen(cases[i].text), &size), H1_BAD);
		assert_int_equal(scan.fault, cases[i].fault);
	}
}

static void test_one_empty_line_is_skipped(void **state)
{
	struct h1_scan scan = { 0 };
	size_t size;

	(void)state;
	assert_int_equal(h1_skip_empty("\r\nGET", 5), 2);
	assert_int_equal(h1_skip_empty("\r", 1), 0);
	assert_int_equal(h1_skip_empty("GET", 3), 0);
	assert_int_equal(h1_find_head(&scan, "\r", 1, &size), H1_MORE);
	assert_int_equal(scan.seen, 0);
}

static void test_request_members(void **state)
{
	struct message m = accept_request("GET /a/../b?x=1 HTTP/1.1\r\nHost: A.test:8080\r\nAccept:text/html \t\r\n"
	                                  "X-Empty:\r\nX-Two: a\tb  c\r\nUser-Agent: \xc3\xa9\r\n\r\n");

	(void)state;
	assert_int_equal(m.method, METHOD_GET);
	assert_str(m.method_name, "GET");
	assert_str(m.target, "/a/../b?x=1");
	assert_str(m.path, "/b");
	assert_str(m.query, "x=1");
	assert_str(m.authority, "A.test:8080");
	assert_int_equal(m.minor, 1);
	assert_true(m.keep_alive);
	assert_false(m.expect_continue);
	assert_false(m.has_upgrade);
	assert_int_equal(m.framing, FRAMING_NONE);
	assert_str(message_value(&m, HEADER_ACCEPT), "text/html");
	assert_str(message_find_name(&m, STR("x-empty"))->value, "");
	assert_str(message_find_name(&m, STR("x-two"))->value, "a\tb  c");
	assert_str(message_value(&m, HEADER_USER_AGENT), "\xc3\xa9");
	assert_str(message_value(&m, HEADER_HOST), "A.test:8080");
}

static void test_forms_of_the_target(void **state)
{
	struct message m = accept_request("GET http://b.test:81/x?y HTTP/1.1\r\n" HOST "\r\n");

	(void)state;
	assert_str(m.authority, "b.test:81");
	assert_str(message_value(&m, HEADER_HOST), "b.test:81");
	assert_str(m.path, "/x");
	assert_str(m.query, "y");
	m = accept_request("GET HTTPS://b.test HTTP/1.1\r\n" HOST "\r\n");
	assert_str(m.path, "/");
	assert_null(m.query.p);
	m = accept_request("GET http://b.test?q HTTP/1.1\r\n" HOST "\r\n");
	assert_str(m.path, "/");
	assert_str(m.query, "q");
	m = accept_request("OPTIONS * HTTP/1.1\r\n" HOST "\r\n");
	assert_str(m.path, "*");
	m = accept_request("BREW /pot HTTP/1.1\r\n" HOST "\r\n");
	assert_int_equal(m.method, METHOD_OTHER);
	m = accept_request("GET / HTTP/1.0\r\n\r\n");
	assert_null(m.authority.p);
	assert_int_equal(m.minor, 0);
	assert_false(m.keep_alive);
}

static void test_framing_of_requests(void **state)
{
	struct message m = accept_request(POST "Content-Length: 0\r\n\r\n");

	(void)state;
	assert_int_equal(m.framing, FRAMING_LENGTH);
	assert_int_equal(m.content_length, 0);
	assert_null(message_find(&m, HEADER_CONTENT_LENGTH));
	m = accept_request(POST "content-length: 9223372036854775807\r\n\r\n");
	assert_true(m.content_length == INT64_MAX);
	m = accept_request(POST "TRANSFER-ENCODING: Chunked\r\n\r\n");
	assert_int_equal(m.framing, FRAMING_CHUNKED);
	assert_null(message_find(&m, HEADER_TRANSFER_ENCODING));
	m = accept_request(GET "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n");
	assert_true(m.expect_continue);
	assert_null(message_find(&m, HEADER_EXPECT));
	m = accept_request("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
	assert_false(m.expect_continue);
}

static void test_fields_for_this_hop_end_here(void **state)
{
	struct message m = accept_request(GET "X-Gone: 1\r\nConnection: close, x-gone, Accept ,,TE\r\nTE: trailers\r\n"
	                                  "Keep-Alive: 5\r\nAccept: a\r\nx-gone: 2\r\nProxy-Connection: x\r\n"
		"Trailer: x\r\n"
	                                  "Upgrade: h2c\r\nX-Stays: 1\r\n\r\n");
	unsigned kept = 0;

	(void)state;
	assert_false(m.keep_alive);
	assert_false(m.has_upgrade);
	for (unsigned i = 0; i < m.n; i++)
		kept += !m.headers[i].dropped;
	assert_int_equal(kept, 2);
	assert_non_null(message_find_name(&m, STR("x-stays")));
	assert_non_null(message_find(&m, HEADER_HOST));
	m = accept_request(GET "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n");
	assert_true(m.has_upgrade);
	assert_str(message_upgrade(&m), "websocket");
	assert_null(message_find(&m, HEADER_UPGRADE));
	assert_false(accept_request(GET "Connection: upgrade\r\n\r\n").has_upgrade);
	assert_true(accept_request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
	assert_false(accept_request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n"
		"Connection: Close\r\n\r\n").keep_alive);
	assert_false(accept_request(GET "Connection: keep-alive\r\nConnection: close\r\n\r\n").keep_alive);
	assert_false(accept_request(GET "Connection: close\r\nConnection: keep-alive\r\n\r\n").keep_alive);
}

static void test_underscores(void **state)
{
	struct h1_limits keep = h1_default_limits;
	struct message m = accept_request(GET "X_User: root\r\nX-Plain: 1\r\n\r\n");

	(void)state;
	assert_null(message_find_name(&m, STR("X_User")));
	assert_non_null(message_find_name(&m, STR("X-Plain")));
	keep.keep_underscores = true;
	assert_int_equal(parse(&m, STR(GET "X_User: root\r\n\r\n"), &keep), H1_FAULT_NONE);
	assert_str(message_find_name(&m, STR("x_user"))->value, "root");
	assert_int_equal(parse(&m, STR(GET "Transfer_Encoding: chunked\r\n\r\n"), &keep), H1_FAULT_HEADER_NAME);
	assert_int_equal(parse(&m, STR(GET "content_length: 1\r\n\r\n"), &h1_default_limits), H1_FAULT_HEADER_NAME);
}

static void test_limits(void **state)
{
	struct h1_limits limits = { .head_bytes = 200, .fields = 4, .target_bytes = 16 };
	struct message m;

	(void)state;
	assert_int_equal(parse(&m, STR(GET "A: 1\r\nB: 2\r\nC: 3\r\n\r\n"), &limits), H1_FAULT_NONE);
	assert_int_equal(parse(&m, STR(GET "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n"), &limits), H1_FAULT_HEADER_COUNT);
	assert_int_equal(parse(&m, STR(GET "A_: 1\r\nB_: 2\r\nC_: 3\r\nD_: 4\r\n\r\n"), &limits),
		H1_FAULT_HEADER_COUNT);
	assert_int_equal(parse(&m, STR(GET "Cookie: a=1; b=2; c=3\r\n\r\n"), &limits), H1_FAULT_NONE);
	assert_int_equal(parse(&m, STR(GET "Cookie: a=1; b=2; c=3; d\r\n\r\n"), &limits), H1_FAULT_HEADER_COUNT);
	assert_int_equal(parse(&m, STR("GET /234567890123456 HTTP/1.1\r\n" HOST "\r\n"), &limits), H1_FAULT_NONE);
	assert_int_equal(parse(&m, STR("GET /2345678901234567 HTTP/1.1\r\n" HOST "\r\n"), &limits),
		H1_FAULT_TARGET_LONG);
	limits.head_bytes = 31;
	assert_int_equal(parse(&m, STR(GET "\r\n"), &limits), H1_FAULT_HEAD_LARGE);
	limits.head_bytes = 32;
	assert_int_equal(parse(&m, STR(GET "\r\n"), &limits), H1_FAULT_NONE);
	assert_int_equal(h1_fault_status(H1_FAULT_HEAD_LARGE), 431);
	assert_int_equal(h1_fault_status(H1_FAULT_TARGET_LONG), 414);
}

struct refusal {
	struct str head;
	enum h1_fault fault;
};
#define REFUSE(head, fault) { { (head), sizeof(head) - 1 }, H1_FAULT_##fault }

static void check_refusals(const struct refusal *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct message m;
		enum h1_fault fault = parse(&m, cases[i].head, &h1_default_limits);

		if (fault != cases[i].fault)
			fail_msg("%s instead of %s: %.*s", h1_fault_tag(fault), h1_fault_tag(cases[i].fault),
				STR_FMT(cases[i].head));
	}
}

static void test_bad_request_lines(void **state)
{
	static const struct refusal cases[] = {
		REFUSE("", REQUEST_LINE),
		REFUSE("GET / HTTP/1.1\r\n", REQUEST_LINE),
		REFUSE("GET /\r\n\r\nxxxxxxxxxxxxx\r\n\r\n", REQUEST_LINE),
		REFUSE("GET  / HTTP/1.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET /  HTTP/1.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / HTTP/1.1 \r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET\t/ HTTP/1.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET HTTP/1.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("G(T / HTTP/1.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE(":ET / HTTP/1.1\r\n" HOST "\r\n", METHOD),
		REFUSE("G\0T / HTTP/1.1\r\n" HOST "\r\n", NUL_BYTE),
		REFUSE("GET / HTTP/1.1\n" HOST "\r\n", BARE_LF),
		REFUSE("GET / HTTP/1.1\r" HOST "\r\n", BARE_CR),
		REFUSE("GET /\r HTTP/1.1\r\n" HOST "\r\n", BARE_CR),
		REFUSE("GET / http/1.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / HTTP/1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / HTTP/1.\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / HTTP/1.11\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / HTTP/01.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / HTTP/1,1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / XTTP/1.1\r\n" HOST "\r\n", REQUEST_LINE),
		REFUSE("GET / HTTP/2.0\r\n" HOST "\r\n", VERSION),
		REFUSE("GET / HTTP/1.2\r\n" HOST "\r\n", VERSION),
		REFUSE("GET / HTTP/0.9\r\n" HOST "\r\n", VERSION),
		REFUSE("PRI * HTTP/2.0\r\n\r\n", VERSION),
		REFUSE("GET a HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET * HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET a.test:80 HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET /\x80 HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET /a\x7f HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET /a\0 HTTP/1.1\r\n" HOST "\r\n", NUL_BYTE),
		REFUSE("GET /a#b HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET /../a HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET /%00 HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET ftp://a.test/ HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET http:// HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET http:///x HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET http://u@a.test/ HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET http://a.test#f HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET http://a.test?a#f HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("GET http://a.test/%zz HTTP/1.1\r\n" HOST "\r\n", TARGET),
		REFUSE("CONNECT a.test:443 HTTP/1.1\r\n" HOST "\r\n", CONNECT),
		REFUSE("CONNECT / HTTP/1.1\r\n" HOST "\r\n", CONNECT),
	};

	(void)state;
	check_refusals(cases, sizeof(cases) / sizeof(cases[0]));
}

static void test_bad_fields(void **state)
{
	static const struct refusal cases[] = {
		REFUSE(GET ": x\r\n\r\n", HEADER_NAME),
		REFUSE(GET "NoColon\r\n\r\n", HEADER_NAME),
		REFUSE(GET "Bad[Name: x\r\n\r\n", HEADER_NAME),
		REFUSE(GET "Bad\x80Name: x\r\n\r\n", HEADER_NAME),
		REFUSE(GET "Two Words: x\r\n\r\n", HEADER_NAME),
		REFUSE(GET "X : x\r\n\r\n", SPACE_COLON),
		REFUSE(GET "X\t: x\r\n\r\n", SPACE_COLON),
		REFUSE(GET "Content-Length : 1\r\n\r\n", SPACE_COLON),
		REFUSE(GET " X: x\r\n\r\n", FOLD),
		REFUSE(GET "X: a\r\n b\r\n\r\n", FOLD),
		REFUSE(GET "X: a\r\n\tb\r\n\r\n", FOLD),
		REFUSE(LINE " \r\n" HOST "\r\n", FOLD),
		REFUSE(GET "X: a\n\r\n\r\n", BARE_LF),
		REFUSE(GET "X: a\nY: b\r\n\r\n", BARE_LF),
		REFUSE(GET "X\n: a\r\n\r\n", BARE_LF),
		REFUSE(GET "X: a\rb\r\n\r\n", BARE_CR),
		REFUSE(GET "X: a\r\r\n\r\n", BARE_CR),
		REFUSE(GET "X\r: a\r\n\r\n", BARE_CR),
		REFUSE(GET "Content\rLength: 1\r\n\r\n", BARE_CR),
		REFUSE(GET "\rX: a\r\n\r\n", BARE_CR),
		REFUSE(GET "X: a\0b\r\n\r\n", NUL_BYTE),
		REFUSE(GET "X\0: a\r\n\r\n", NUL_BYTE),
		REFUSE(GET "X: a\x01\r\n\r\n", HEADER_VALUE),
		REFUSE(GET "X: a\x7f\r\n\r\n", HEADER_VALUE),
		REFUSE(GET "X: a\x0b\r\n\r\n", HEADER_VALUE),
		REFUSE(GET "\r\nX: a\r\n\r\n", HEADER_NAME),
		REFUSE(LINE "\r\n", HOST_MISSING),
		REFUSE(LINE "X: 1\r\n\r\n", HOST_MISSING),
		REFUSE(GET HOST "\r\n", HOST_TWICE),
		REFUSE(GET "host: b.test\r\n\r\n", HOST_TWICE),
		REFUSE("GET / HTTP/1.0\r\n" HOST HOST "\r\n", HOST_TWICE),
		REFUSE(LINE "Host:\r\n\r\n", HOST_BAD),
		REFUSE(LINE "Host: a b\r\n\r\n", HOST_BAD),
		REFUSE(LINE "Host: a.test/x\r\n\r\n", HOST_BAD),
		REFUSE(LINE "Host: u@a.test\r\n\r\n", HOST_BAD),
		REFUSE(LINE "Host: a.test, b.test\r\n\r\n", HOST_BAD),
		REFUSE(LINE "Host: a.test:port\r\n\r\n", HOST_BAD),
		REFUSE("GET http://b.test/ HTTP/1.1\r\nHost: a/b\r\n\r\n", HOST_BAD),
		REFUSE("GET http://b.test/ HTTP/1.1\r\n\r\n", HOST_MISSING),
	};

	(void)state;
	check_refusals(cases, sizeof(cases) / sizeof(cases[0]));
}

static void test_bad_framing(void **state)
{
	static const struct refusal cases[] = {
		REFUSE(POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", LENGTH_TWICE),
		REFUSE(POST "Content-Length: 1\r\ncontent-length: 2\r\n\r\n", LENGTH_TWICE),
		REFUSE(POST "Content-Length: 1, 1\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length:\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: -1\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: +1\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 01\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 0x1\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 1 0\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 1;\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 9223372036854775808\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 18446744073709551617\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 99999999999999999999999999\r\n\r\n", LENGTH_BAD),
		REFUSE(POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", LENGTH_AND_CODING),
		REFUSE(POST "Transfer-Encoding: x\r\nContent-Length: 1\r\n\r\n", LENGTH_AND_CODING),
		REFUSE(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding: chunked, chunked\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding: chunked, gzip\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding: chunked,\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding: ,chunked\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding:\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding: chunked;q=1\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding: \"chunked\"\r\n\r\n", CODING_ORDER),
		REFUSE(POST "Transfer-Encoding: gzip, chunked\r\n\r\n", CODING),
		REFUSE(POST "Transfer-Encoding: gzip\r\n\r\n", CODING),
		REFUSE(POST "Transfer-Encoding: identity\r\n\r\n", CODING),
		REFUSE(POST "Transfer-Encoding: xchunked\r\n\r\n", CODING),
		REFUSE("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", CODING_VERSION),
		REFUSE(POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n", HEADER_VALUE),
		REFUSE(GET "Connection: host\r\n\r\n", CONNECTION),
		REFUSE(GET "Connection: close, Content-Length\r\n\r\n", CONNECTION),
		REFUSE(GET "Connection: transfer-encoding\r\n\r\n", CONNECTION),
		REFUSE(GET "Connection: a b\r\n\r\n", CONNECTION),
		REFUSE(GET "Connection: a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n\r\n",
			CONNECTION),
		REFUSE(GET "Expect: 200-ok\r\n\r\n", EXPECT),
		REFUSE(GET "Expect:\r\n\r\n", EXPECT),
		REFUSE(GET "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", EXPECT),
	};

	(void)state;
	check_refusals(cases, sizeof(cases) / sizeof(cases[0]));
	assert_int_equal(h1_fault_status(H1_FAULT_CODING), 501);
	assert_int_equal(h1_fault_status(H1_FAULT_EXPECT), 417);
	assert_int_equal(h1_fault_status(H1_FAULT_VERSION), 505);
}

/* Every proper prefix of a good head is unfinished, and every one of its bytes matters. */
static void test_cut_heads(void **state)
{
	static const char text[] = "POST /p?q HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nX-A: b\r\n\r\n";

	(void)state;
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		struct message m;

		assert_int_not_equal(parse(&m, (struct str){ text, n }, &h1_default_limits), H1_FAULT_NONE);
	}
}

static enum h1_fault parse_answer(struct message *m, const char *head, enum method method)
{
	size_t n = strlen(head);
	char *copy = malloc(n);
	enum h1_fault fault;

	memcpy(copy, head, n);
	*m = (struct message){ .arena = &arena };
	fault = h1_parse_response(m, (struct str){ copy, n }, &h1_default_limits, method);
	free(copy);
	*m = (struct message){ .arena = &arena };
	assert_int_equal(h1_parse_response(m, str_of(head), &h1_default_limits, method), fault);
	return fault;
}

static struct message accept_answer(const char *head, enum method method)
{
	struct message m;
	enum h1_fault fault = parse_answer(&m, head, method);

	if (fault)
		fail_msg("%s: %s", h1_fault_tag(fault), head);
	return m;
}

static void test_answers(void **state)
{
	struct message m = accept_answer("HTTP/1.1 200 Very well \xe9\r\nContent-Length: 5\r\nX_Under: 1\r\n"
		"Set-Cookie: a\r\n"
	                                 "Set-Cookie: b\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\r\n", METHOD_GET);

	(void)state;
	assert_int_equal(m.status, 200);
	assert_str(m.reason, "Very well \xe9");
	assert_int_equal(m.framing, FRAMING_LENGTH);
	assert_int_equal(m.content_length, 5);
	assert_true(m.keep_alive);
	assert_non_null(message_find_name(&m, STR("x_under")));
	assert_null(message_find_name(&m, STR("x-gone")));
	assert_str(message_find_next(&m, message_find(&m, HEADER_SET_COOKIE))->value, "b");
	m = accept_answer("HTTP/1.1 200\r\n\r\n", METHOD_GET);
	assert_int_equal(m.framing, FRAMING_CLOSE);
	assert_false(m.keep_alive);
	m = accept_answer("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", METHOD_GET);
	assert_int_equal(m.framing, FRAMING_CHUNKED);
	assert_int_equal(m.reason.n, 0);
	m = accept_answer("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", METHOD_GET);
	assert_false(m.keep_alive);
	m = accept_answer("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", METHOD_GET);
	assert_true(m.keep_alive);
	m = accept_answer(OK "Connection: close\r\nContent-Length: 1\r\n\r\n", METHOD_GET);
	assert_false(m.keep_alive);
}

static void test_answers_without_body(void **state)
{
	struct message m = accept_answer(OK "Content-Length: 5\r\n\r\n", METHOD_HEAD);

	(void)state;
	assert_int_equal(m.framing, FRAMING_NONE);
	assert_true(m.length_known);
	assert_int_equal(m.content_length, 5);
	assert_true(m.keep_alive);
	assert_int_equal(accept_answer(OK "Transfer-Encoding: chunked\r\n\r\n", METHOD_HEAD).framing, FRAMING_NONE);
	assert_int_equal(accept_answer("HTTP/1.1 204 No Content\r\n\r\n", METHOD_GET).framing, FRAMING_NONE);
	assert_int_equal(accept_answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", METHOD_GET).framing,
	                 FRAMING_NONE);
	assert_int_equal(accept_answer("HTTP/1.1 100 Continue\r\n\r\n", METHOD_POST).framing, FRAMING_NONE);
	assert_true(accept_answer("HTTP/1.1 204 No Content\r\n\r\n", METHOD_GET).keep_alive);
}

static void test_refused_answers(void **state)
{
	static const struct {
		const char *head;
		enum h1_fault fault;
	} cases[] = {
		{ "HTTP/1.1 099 X\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1 600 X\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1 20 OK\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1 2000 OK\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1 2x0 OK\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1  200 OK\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1\t200 OK\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/2.0 200 OK\r\n\r\n", H1_FAULT_VERSION },
		{ "http/1.1 200 OK\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "ICY 200 OK 123456\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1 200 O\x01K\r\n\r\n", H1_FAULT_STATUS_LINE },
		{ "HTTP/1.1 200 OK\n\r\n\r\n", H1_FAULT_BARE_LF },
		{ "HTTP/1.1 200 O\rK\r\n\r\n", H1_FAULT_BARE_CR },
		{ OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", H1_FAULT_LENGTH_AND_CODING },
		{ OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", H1_FAULT_LENGTH_TWICE },
		{ OK "Content-Length: 1x\r\n\r\n", H1_FAULT_LENGTH_BAD },
		{ OK "Transfer-Encoding: gzip\r\n\r\n", H1_FAULT_CODING },
		{ OK "Transfer-Encoding: chunked, chunked\r\n\r\n", H1_FAULT_CODING_ORDER },
		{ "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", H1_FAULT_CODING_VERSION },
		{ OK "Connection: content-length\r\nContent-Length: 1\r\n\r\n", H1_FAULT_CONNECTION },
		{ OK "X : 1\r\n\r\n", H1_FAULT_SPACE_COLON },
		{ OK "X: 1\r\n fold\r\n\r\n", H1_FAULT_FOLD },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct message m;
		enum h1_fault fault = parse_answer(&m, cases[i].head, METHOD_GET);

		if (fault != cases[i].fault)
			fail_msg("%s instead of %s: %s", h1_fault_tag(fault), h1_fault_tag(cases[i].fault),
				cases[i].head);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_the_end_in_any_pieces),
		cmocka_unit_test(test_finds_the_end_at_every_place),
		cmocka_unit_test(test_unfinished_heads_fail_early),
		cmocka_unit_test(test_one_empty_line_is_skipped),
		cmocka_unit_test_teardown(test_request_members, drop_arena),
		cmocka_unit_test_teardown(test_forms_of_the_target, drop_arena),
		cmocka_unit_test_teardown(test_framing_of_requests, drop_arena),
		cmocka_unit_test_teardown(test_fields_for_this_hop_end_here, drop_arena),
		cmocka_unit_test_teardown(test_underscores, drop_arena),
		cmocka_unit_test_teardown(test_limits, drop_arena),
		cmocka_unit_test_teardown(test_bad_request_lines, drop_arena),
		cmocka_unit_test_teardown(test_bad_fields, drop_arena),
		cmocka_unit_test_teardown(test_bad_framing, drop_arena),
		cmocka_unit_test_teardown(test_cut_heads, drop_arena),
		cmocka_unit_test_teardown(test_answers, drop_arena),
		cmocka_unit_test_teardown(test_answers_without_body, drop_arena),
		cmocka_unit_test_teardown(test_refused_answers, drop_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
