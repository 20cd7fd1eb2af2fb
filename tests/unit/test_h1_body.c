/* test_h1_body.c -- bodies by length, by chunks and until the end of the connection, in pieces of every size. */
/* room: http */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "http/h1.h"
#include "http/trailers.h"

struct outcome {
	enum h1_result result;
	enum h1_fault fault;
	size_t used, n;
	char data[256];
};

/* Feeds `wire` in pieces of `step` bytes, each in a block of its own size. */
static struct outcome decode(struct str wire, size_t step)
{
	struct outcome o = { .result = H1_MORE };
	struct h1_body body;

	h1_body_init(&body, FRAMING_CHUNKED, 0);
	while (o.used < wire.n && o.result == H1_MORE) {
		size_t n = wire.n - o.used < step ? wire.n - o.used : step, used, size;
		char *piece = malloc(n);

		memcpy(piece, wire.p + o.used, n);
		o.result = h1_body_decode(&body, piece, n, &used, &size);
		assert_true(used <= n && size <= used && o.n + size <= sizeof(o.data));
		if (o.result == H1_MORE)
			assert_int_equal(used, n);
		memcpy(o.data + o.n, piece, size);
		o.n += size;
		o.used += used;
		free(piece);
	}
	o.fault = body.fault;
	assert_int_equal(h1_body_is_done(&body), o.result == H1_DONE);
	return o;
}

static void accept_body(const char *text, const char *data, size_t left)
{
	struct str wire = str_of(text);

	for (size_t step = 1; step <= wire.n; step++) {
		struct outcome o = decode(wire, step);

		if (o.result != H1_DONE)
			fail_msg("%s in steps of %zu: %s", text, step, h1_fault_tag(o.fault));
		assert_int_equal(o.used, wire.n - left);
		assert_int_equal(o.n, strlen(data));
		assert_memory_equal(o.data, data, o.n);
	}
}

static void test_good_chunks(void **state)
{
	(void)state;
	accept_body("0\r\n\r\n", "", 0);
	accept_body("5\r\nhello\r\n0\r\n\r\n", "hello", 0);
	accept_body("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /", "hello world", 5);
	accept_body("A\r\n0123456789\r\n00a\r\n0123456789\r\n000\r\n\r\n", "01234567890123456789", 0);
	accept_body("0000000000000001\r\nx\r\n0\r\n\r\n", "x", 0);
}

static void test_extensions_and_trailers(void **state)
{
	(void)state;
	accept_body("1;a;b=c;d=\"e\\\"\t;f\"; g\r\nx\r\n0;z\r\n\r\n", "x", 0);
	accept_body("0\r\nX-Sum: 1\r\nServer-Timing: a\r\nx-empty:\r\n\r\n", "", 0);
	accept_body("0\r\nA-Name-Longer-Than-Any-Forbidden-One: 1\r\n\r\n", "", 0);
	accept_body("0\r\nTransfer-Encoding-X: 1\r\n\r\n", "", 0);
}

/* Trailers as rows, written again; in pieces of every size. */
static void keep_trailers(const char *text, bool keep_underscores, const char *written)
{
	struct str wire = str_of(text);

	for (size_t step = 1; step <= wire.n; step++) {
		struct arena arena = { 0 };
		struct h1_body body;
		enum h1_result result = H1_MORE;
		char out[512];

		h1_body_init(&body, FRAMING_CHUNKED, 0);
		body.arena = &arena;
		body.keep_underscores = keep_underscores;
		for (size_t at = 0, used, size; at < wire.n && result == H1_MORE; at += used) {
			size_t n = wire.n - at < step ? wire.n - at : step;
			char piece[512];

			memcpy(piece, wire.p + at, n);
			result = h1_body_decode(&body, piece, n, &used, &size);
		}
		assert_int_equal(result, H1_DONE);
		assert_int_equal(body.trailers != NULL, written != NULL);
		if (written) {
			size_t n = h1_write_last_chunk(body.trailers, out);

			assert_true(n <= h1_last_chunk_bound(body.trailers));
			assert_int_equal(n, strlen(written));
			assert_memory_equal(out, written, n);
		}
		arena_free(&arena);
	}
}

static void test_trailers_are_kept(void **state)
{
	(void)state;
	keep_trailers("0\r\n\r\n", true, NULL);
	keep_trailers("1\r\nx\r\n0\r\nX-A:1\r\ngrpc-status: \t0 \r\n\r\n", true,
		      "0\r\nX-A: 1\r\ngrpc-status: 0\r\n\r\n");
	keep_trailers("0\r\nx_a: 1\r\nX-Empty:\r\n\r\n", true, "0\r\nx_a: 1\r\nX-Empty: \r\n\r\n");
	keep_trailers("0\r\nx_a: 1\r\nX-Empty:\r\n\r\n", false, "0\r\nX-Empty: \r\n\r\n");
}

struct refusal {
	struct str wire;
	enum h1_fault fault;
};
#define REFUSE(wire, fault) { { (wire), sizeof(wire) - 1 }, H1_FAULT_##fault }

static void test_bad_chunks(void **state)
{
	static const struct refusal cases[] = {
		REFUSE("\r\n", CHUNK_SIZE),
		REFUSE(";a\r\n", CHUNK_SIZE),
		REFUSE(" 5\r\n", CHUNK_SIZE),
		REFUSE("5 \r\n", CHUNK_SIZE),
		REFUSE("5 ;a\r\n", CHUNK_SIZE),
		REFUSE("+5\r\n", CHUNK_SIZE),
		REFUSE("-1\r\n", CHUNK_SIZE),
		REFUSE("0x5\r\n", CHUNK_SIZE),
		REFUSE("1_0\r\n", CHUNK_SIZE),
		REFUSE("5.0\r\n", CHUNK_SIZE),
		REFUSE("g\r\n", CHUNK_SIZE),
		REFUSE("\0005\r\n", CHUNK_SIZE),
		REFUSE("ffffffffffffffff\r\n", CHUNK_SIZE),
		REFUSE("8000000000000000\r\n", CHUNK_SIZE),
		REFUSE("00000000000000001\r\n", CHUNK_SIZE),
		REFUSE("5\nhello", BARE_LF),
		REFUSE("5\rhello", BARE_CR),
		REFUSE("5\r\nhello\n0\r\n\r\n", CHUNK_END),
		REFUSE("5\r\nhello0\r\n\r\n", CHUNK_END),
		REFUSE("5\r\nhello\r0\r\n\r\n", CHUNK_END),
		REFUSE("5\r\nhello!!\r\n0\r\n\r\n", CHUNK_END),
		REFUSE("5;\r\n", CHUNK_EXTENSION),
		REFUSE("5;a;\r\n", CHUNK_EXTENSION),
		REFUSE("5;=b\r\n", CHUNK_EXTENSION),
		REFUSE("5;a=\r\n", CHUNK_EXTENSION),
		REFUSE("5;a[=b\r\n", CHUNK_EXTENSION),
		REFUSE("5;a =b\r\n", CHUNK_EXTENSION),
		REFUSE("5;a=b c\r\n", CHUNK_EXTENSION),
		REFUSE("5;a=\"b\r\n", CHUNK_EXTENSION),
		REFUSE("5;a=\"b\"c\r\n", CHUNK_EXTENSION),
		REFUSE("5;\0a\r\n", CHUNK_EXTENSION),
		REFUSE("5;\nhello", CHUNK_EXTENSION),
		REFUSE("5;a\nhello", BARE_LF),
		REFUSE("5;a=\"\n", BARE_LF),
		REFUSE("5;a\rX\r\n", BARE_CR),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t step = 1; step <= cases[i].wire.n; step++) {
			struct outcome o = decode(cases[i].wire, step);

			assert_int_equal(o.result, H1_BAD);
			if (o.fault != cases[i].fault)
				fail_msg("case %zu: %s instead of %s", i, h1_fault_tag(o.fault),
					h1_fault_tag(cases[i].fault));
		}
	}
}

static void test_bad_trailers(void **state)
{
	static const char *const trailers[] = {
		"Content-Length: 5\r\n", "transfer-encoding: chunked\r\n", "HOST: a\r\n", "Authorization: x\r\n",
		"Cookie: a\r\n",
		"Content-Type: x\r\n", "Connection: x\r\n", "Proxy-Authorization: x\r\n", "Trailer: x\r\n",
		"Expect: x\r\n",
		"X : 1\r\n", " X: 1\r\n", ": 1\r\n", "NoColon\r\n", "X: a\nY: b\r\n", "X: a\rb\r\n", "X: \x01\r\n",
		"\n",
		"X: a\r\n fold\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(trailers) / sizeof(trailers[0]); i++) {
		char wire[128] = "0\r\n";

		memcpy(wire + 3, trailers[i], strlen(trailers[i]));
		memcpy(wire + 3 + strlen(trailers[i]), "\r\n", 2);
		for (size_t step = 1; step < 40; step++)
			if (decode(str_of(wire), step).result != H1_BAD)
				fail_msg("accepted in steps of %zu: %s", step, trailers[i]);
	}
}

static void feed(struct h1_body *body, const char *text, size_t times, enum h1_result expected)
{
	enum h1_result result = H1_MORE;

	for (size_t i = 0; i < times && result == H1_MORE; i++) {
		char piece[64];
		size_t used, size;

		memcpy(piece, text, strlen(text));
		result = h1_body_decode(body, piece, strlen(text), &used, &size);
	}
	assert_int_equal(result, expected);
}

static void test_lines_are_bounded(void **state)
{
	struct h1_body body;

	(void)state;
	h1_body_init(&body, FRAMING_CHUNKED, 0);
	feed(&body, "1;", 1, H1_MORE);
	feed(&body, "a", 4096, H1_BAD);
	assert_int_equal(body.fault, H1_FAULT_CHUNK_EXTENSION);
	h1_body_init(&body, FRAMING_CHUNKED, 0);
	feed(&body, "1;", 1, H1_MORE);
	feed(&body, "a", 4095, H1_MORE);
	h1_body_init(&body, FRAMING_CHUNKED, 0);
	feed(&body, "1;aaaaaaaaaaaaaa\r\nx\r\n", 1000, H1_MORE);
	feed(&body, "1;aaaaaaaaaaaaaa\r\nx\r\n", 1000, H1_BAD);
	h1_body_init(&body, FRAMING_CHUNKED, 0);
	feed(&body, "0\r\n", 1, H1_MORE);
	feed(&body, "a: b\r\n", 1300, H1_MORE);
	feed(&body, "a: b\r\n", 100, H1_BAD);
	assert_int_equal(body.fault, H1_FAULT_TRAILER);
	h1_body_init(&body, FRAMING_CHUNKED, 0);
	feed(&body, "1\r\nx\r\n", 100000, H1_MORE);
}

static void test_lengths(void **state)
{
	struct h1_body body;
	char data[] = "hello world";
	size_t used, size;

	(void)state;
	h1_body_init(&body, FRAMING_LENGTH, 8);
	assert_false(h1_body_is_done(&body));
	assert_int_equal(h1_body_decode(&body, data, 5, &used, &size), H1_MORE);
	assert_int_equal(used, 5);
	assert_int_equal(size, 5);
	assert_int_equal(h1_body_decode(&body, data + 5, 6, &used, &size), H1_DONE);
	assert_int_equal(used, 3);
	assert_int_equal(size, 3);
	assert_true(h1_body_is_done(&body));
	assert_int_equal(h1_body_decode(&body, data + 8, 3, &used, &size), H1_DONE);
	assert_int_equal(used, 0);
	h1_body_init(&body, FRAMING_LENGTH, 0);
	assert_true(h1_body_is_done(&body));
	h1_body_init(&body, FRAMING_NONE, 7);
	assert_true(h1_body_is_done(&body));
	h1_body_init(&body, FRAMING_CLOSE, 0);
	assert_int_equal(h1_body_decode(&body, data, 11, &used, &size), H1_MORE);
	assert_int_equal(used, 11);
	assert_int_equal(size, 11);
	assert_false(h1_body_is_done(&body));
}

static void test_a_fault_stays(void **state)
{
	struct h1_body body;
	char bad[] = "x", good[] = "0\r\n\r\n";
	size_t used, size;

	(void)state;
	h1_body_init(&body, FRAMING_CHUNKED, 0);
	assert_int_equal(h1_body_decode(&body, bad, 1, &used, &size), H1_BAD);
	assert_int_equal(h1_body_decode(&body, good, 5, &used, &size), H1_BAD);
	assert_int_equal(used, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_chunks),
		cmocka_unit_test(test_extensions_and_trailers),
		cmocka_unit_test(test_trailers_are_kept),
		cmocka_unit_test(test_bad_chunks),
		cmocka_unit_test(test_bad_trailers),
		cmocka_unit_test(test_lines_are_bounded),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_a_fault_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
