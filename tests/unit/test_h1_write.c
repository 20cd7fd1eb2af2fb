/* test_h1_write.c -- heads and chunk sizes as bytes; the date. */
/* room: http */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "core/clock.h"
#include "http/h1.h"

static struct arena arena;

static int drop_arena(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

/* In a block of the promised size, so that the sanitizer sees a byte too much. */
static void assert_written(const struct message *m, size_t (*write)(const struct message *, char *),
	const char *expected)
{
	size_t bound = h1_head_bound(m);
	char *out = malloc(bound);
	size_t n = write(m, out);

	assert_true(n <= bound);
	if (n != strlen(expected) || memcmp(out, expected, n) != 0)
		fail_msg("wrote\n%.*sexpected\n%s", (int)n, out, expected);
	free(out);
}

static struct message read_request(const char *head)
{
	struct message m = { .arena = &arena };

	assert_int_equal(h1_parse_request(&m, str_of(head), &h1_default_limits), H1_FAULT_NONE);
	return m;
}

static struct message read_answer(const char *head, enum method method)
{
	struct message m = { .arena = &arena };

	assert_int_equal(h1_parse_response(&m, str_of(head), &h1_default_limits, method), H1_FAULT_NONE);
	return m;
}

static void test_requests(void **state)
{
	struct message m = read_request("GET /a/./b?c=d HTTP/1.1\r\nAccept: x\r\nHost: a.test:81\r\nX-One:1\r\n"
		"X-Two:   2  \r\n"
	                                "Connection: X-Gone\r\nX-Gone: 1\r\nX-Three: 3\r\nX-Empty:\r\n"
		"X-Four: 4\r\n\r\n");

	(void)state;
	assert_written(&m, h1_write_request,
		"GET /a/b?c=d HTTP/1.1\r\nHost: a.test:81\r\nAccept: x\r\nX-One: 1\r\nX-Two: 2\r\n"
	               "X-Three: 3\r\nX-Empty: \r\nX-Four: 4\r\n\r\n");
	message_add(&m, STR("X-Added"), STR("5"));
	message_set(&m, STR("Accept"), STR("y"));
	message_remove(&m, STR("x-four"));
	message_set(&m, STR("Host"), STR("b.test"));
	m.keep_alive = false;
	assert_written(&m, h1_write_request,
		"GET /a/b?c=d HTTP/1.1\r\nHost: b.test\r\nAccept: y\r\nX-One: 1\r\nX-Two: 2\r\n"
	               "X-Three: 3\r\nX-Empty: \r\nX-Added: 5\r\nConnection: close\r\n\r\n");
}

static void test_requests_with_bodies(void **state)
{
	struct message m = read_request("POST /? HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709\r\n\r\n");

	(void)state;
	assert_written(&m, h1_write_request, "POST /? HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709\r\n\r\n");
	m.framing = FRAMING_CHUNKED;
	assert_written(&m, h1_write_request, "POST /? HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	m = read_request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_written(&m, h1_write_request, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
	m = read_request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTE: trailers\r\nUpgrade: x\r\n\r\n");
	assert_written(&m, h1_write_request, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
}

static void test_answers(void **state)
{
	struct message m = read_answer("HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 12\r\nX: y\r\n\r\n",
		METHOD_GET);

	(void)state;
	assert_written(&m, h1_write_response, "HTTP/1.1 200 Fine\r\nServer: x\r\nX: y\r\nContent-Length: 12\r\n\r\n");
	m = read_answer("HTTP/1.0 404\r\nX: y\r\n\r\n", METHOD_GET);
	assert_written(&m, h1_write_response, "HTTP/1.1 404 Not Found\r\nX: y\r\nConnection: close\r\n\r\n");
	m.framing = FRAMING_CHUNKED;
	m.keep_alive = true;
	assert_written(&m, h1_write_response, "HTTP/1.1 404 Not Found\r\nX: y\r\nTransfer-Encoding: chunked\r\n"
	               "Connection: keep-alive\r\n\r\n");
	m = (struct message){ .arena = &arena, .status = 599, .minor = 1, .keep_alive = true,
		.framing = FRAMING_LENGTH };
	assert_written(&m, h1_write_response, "HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n");
}

static void test_answers_without_body(void **state)
{
	struct message m = read_answer("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", METHOD_GET);

	(void)state;
	assert_written(&m, h1_write_response, "HTTP/1.1 204 No Content\r\n\r\n");
	m = read_answer("HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n", METHOD_GET);
	assert_written(&m, h1_write_response, "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n");
	m = read_answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", METHOD_HEAD);
	assert_written(&m, h1_write_response, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
	m = read_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", METHOD_HEAD);
	assert_written(&m, h1_write_response, "HTTP/1.1 200 OK\r\n\r\n");
	m = (struct message){ .arena = &arena, .status = 403, .minor = 1, .keep_alive = true };
	assert_written(&m, h1_write_response, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
	m.status = 100;
	m.keep_alive = false;
	assert_written(&m, h1_write_response, "HTTP/1.1 100 Continue\r\n\r\n");
}

/* What is written is read back as the same message. */
static void test_round_trip(void **state)
{
	struct message m = read_request("PUT /%7Ea//b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
		"Connection: a\r\nA: 1\r\n"
	                                "X-Long: 0123456789012345678901234567890123456789\r\n\r\n"), again;
	char out[1024];
	size_t n = h1_write_request(&m, out);

	(void)state;
	again = (struct message){ .arena = &arena };
	assert_int_equal(h1_parse_request(&again, (struct str){ out, n }, &h1_default_limits), H1_FAULT_NONE);
	assert_true(str_equal(again.path, STR("/~a/b")));
	assert_int_equal(again.framing, FRAMING_CHUNKED);
	assert_int_equal(again.content_length, 0);
	assert_null(message_find_name(&again, STR("A")));
	assert_int_equal(message_find_name(&again, STR("X-Long"))->value.n, 40);
}

static void test_chunk_sizes(void **state)
{
	static const struct {
		size_t n;
		const char *text;
	} cases[] = {
		{ 0, "0\r\n" }, { 1, "1\r\n" }, { 15, "f\r\n" }, { 16, "10\r\n" }, { 0x1a2b, "1a2b\r\n" },
		{ SIZE_MAX, "ffffffffffffffff\r\n" },
	};
	char out[20];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(h1_write_chunk_size(out, cases[i].n), strlen(cases[i].text));
		assert_memory_equal(out, cases[i].text, strlen(cases[i].text));
	}
}

static void test_date(void **state)
{
	struct str date;

	(void)state;
	clock_set(0, INT64_C(784111777000));
	date = http_date_now();
	assert_int_equal(date.n, 29);
	assert_memory_equal(date.p, "Sun, 06 Nov 1994 08:49:37 GMT", 29);
	clock_set(0, INT64_C(784111777999));
	assert_memory_equal(http_date_now().p, "Sun, 06 Nov 1994 08:49:37 GMT", 29);
	clock_set(0, INT64_C(951782400000));
	assert_memory_equal(http_date_now().p, "Tue, 29 Feb 2000 00:00:00 GMT", 29);
	clock_set_real();
}

static void test_reasons(void **state)
{
	(void)state;
	assert_string_equal(h1_reason(200), "OK");
	assert_string_equal(h1_reason(511), "Network Authentication Required");
	assert_string_equal(h1_reason(299), "");
	assert_string_equal(h1_reason(-1), "");
	assert_string_equal(h1_reason(1000), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_requests, drop_arena),
		cmocka_unit_test_teardown(test_requests_with_bodies, drop_arena),
		cmocka_unit_test_teardown(test_answers, drop_arena),
		cmocka_unit_test_teardown(test_answers_without_body, drop_arena),
		cmocka_unit_test_teardown(test_round_trip, drop_arena),
		cmocka_unit_test(test_chunk_sizes),
		cmocka_unit_test(test_date),
		cmocka_unit_test(test_reasons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
