/*
 * test_inflate.c -- compressed answers: every encoding, pieces cut anywhere, what is broken, what goes on for ever.
 */
/* room: ai */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ai/inflate.h"
#include "core/budget.h"

/* "data: {\"a\":1}\n\n" three times, as zlib 1.2.13 and brotli 1.0.9 write it. */
#define PLAIN "data: {\"a\":1}\n\ndata: {\"a\":1}\n\ndata: {\"a\":1}\n\n"
static const unsigned char gzipped[] = {
	0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0x49, 0x2c, 0x49, 0xb4, 0x52,
	0xa8, 0x56, 0x4a, 0x54, 0xb2, 0x32, 0xac, 0xe5, 0xe2, 0x4a, 0xc1, 0xcb, 0x05, 0x00, 0xe5, 0x35,
	0x3e, 0x79, 0x2d, 0x00, 0x00, 0x00
};
static const unsigned char zlibbed[] = {
	0x78, 0x9c, 0x4b, 0x49, 0x2c, 0x49, 0xb4, 0x52, 0xa8, 0x56, 0x4a, 0x54, 0xb2, 0x32, 0xac, 0xe5,
	0xe2, 0x4a, 0xc1, 0xcb, 0x05, 0x00, 0x28, 0x07, 0x0c, 0x31
};
static const unsigned char deflated[] = {
	0x4b, 0x49, 0x2c, 0x49, 0xb4, 0x52, 0xa8, 0x56, 0x4a, 0x54, 0xb2, 0x32, 0xac, 0xe5, 0xe2, 0x4a,
	0xc1, 0xcb, 0x05, 0x00
};
static const unsigned char brotlied[] = {
	0x13, 0x2c, 0x00, 0x00, 0xc4, 0x31, 0xce, 0x17, 0xba, 0xc1, 0xd6, 0xcd, 0x16, 0xbe, 0x6b, 0x90,
	0xa2, 0x4a, 0x38, 0x45, 0x96, 0x21, 0x9c, 0xaa, 0xf8, 0x00
};
/* Zeros: 258 to begin with, then 64 KiB each time it is repeated; 4 MiB in a few bytes. */
static const unsigned char zeros_start[] = {
	0x78, 0xda, 0x62, 0x60, 0x18, 0xe9, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff
};
static const unsigned char zeros_again[] = {
	0xec, 0xc1, 0x01, 0x01, 0x00, 0x00, 0x00, 0x80, 0x90, 0xfe, 0xaf, 0xee, 0x08, 0x0a, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x6a, 0x00, 0x00,
	0x00, 0xff, 0xff
};
static const unsigned char br_zeros[] = {
	0x9b, 0xff, 0xff, 0x3f, 0x00, 0x24, 0x00, 0xe2, 0xb1, 0x40, 0x72, 0xef, 0x7f, 0x00
};
#define SAMPLE(a) ((struct str){ (const char *)(a), sizeof(a) })

/* In pieces of `size` bytes. */
static bool run(const char *encoding, struct str packed, size_t size, struct sbuf *out)
{
	struct inflate *i = inflate_open(str_of(encoding));
	struct str part;
	bool is_good;

	assert_non_null(i);
	for (size_t at = 0; at < packed.n; at += size) {
		inflate_give(i, (struct str){ packed.p + at, packed.n - at < size ? packed.n - at : size });
		while (inflate_next(i, &part)) {
			assert_true(part.n <= INFLATE_PART);
			sbuf_add(out, part);
		}
	}
	is_good = inflate_is_over(i) && !inflate_is_broken(i);
	inflate_close(i);
	assert_int_equal(budget.used, 0);
	return is_good;
}

static void every_encoding_in_pieces(void **state)
{
	static const struct {
		const char *encoding;
		struct str packed;
	} cases[] = {
		{ "gzip", { (const char *)gzipped, sizeof(gzipped) } },
		{ "X-Gzip", { (const char *)gzipped, sizeof(gzipped) } },
		{ "deflate", { (const char *)zlibbed, sizeof(zlibbed) } },
		{ "deflate", { (const char *)deflated, sizeof(deflated) } },
		{ "BR", { (const char *)brotlied, sizeof(brotlied) } },
	};

	(void)state;
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
		for (size_t size = 1; size <= cases[c].packed.n; size++) {
			struct sbuf out = { 0 };

			assert_true(run(cases[c].encoding, cases[c].packed, size, &out));
			assert_true(str_equal(sbuf_str(&out), STR(PLAIN)));
			sbuf_free(&out);
		}
}

static void encodings_that_are_not_read(void **state)
{
	static const char *const names[] = { "", "identity", "zstd", "gzip, br", "gzip,gzip", "compress" };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_null(inflate_open(str_of(names[i])));
	assert_int_equal(budget.used, 0);
}

static void two_gzip_streams_in_a_row(void **state)
{
	char both[2 * sizeof(gzipped)];
	struct sbuf out = { 0 };

	(void)state;
	memcpy(both, gzipped, sizeof(gzipped));
	memcpy(both + sizeof(gzipped), gzipped, sizeof(gzipped));
	for (size_t size = 1; size <= sizeof(both); size += 7) {
		out.n = 0;
		assert_true(run("gzip", (struct str){ both, sizeof(both) }, size, &out));
		assert_true(str_equal(sbuf_str(&out), STR(PLAIN PLAIN)));
	}
	sbuf_free(&out);
}

static void what_is_broken_or_cut(void **state)
{
	char bad[sizeof(gzipped)];
	struct sbuf out = { 0 };

	(void)state;
	assert_false(run("gzip", STR("{\"usage\":{}}"), 3, &out));
	assert_false(run("br", STR("{\"usage\":{\"prompt_tokens\":1}}"), 3, &out));
	assert_false(run("deflate", STR("{\"usage\":{}}"), 1, &out));
	assert_false(run("gzip", (struct str){ (const char *)gzipped, sizeof(gzipped) - 1 }, 5, &out));
	assert_false(run("br", (struct str){ (const char *)brotlied, sizeof(brotlied) - 1 }, 5, &out));
	memcpy(bad, gzipped, sizeof(bad));
	bad[sizeof(bad) - 5] ^= 1;
	out.n = 0;
	assert_false(run("gzip", (struct str){ bad, sizeof(bad) }, 5, &out));
	assert_true(str_starts(STR(PLAIN), sbuf_str(&out)));
	sbuf_free(&out);
}

static void a_whole_body(void **state)
{
	struct sbuf out = { 0 };

	(void)state;
	assert_true(inflate_all(STR("gzip"), SAMPLE(gzipped), strlen(PLAIN), &out));
	assert_true(str_equal(sbuf_str(&out), STR(PLAIN)));
	out.n = 0;
	assert_false(inflate_all(STR("gzip"), SAMPLE(gzipped), strlen(PLAIN) - 1, &out));
	assert_false(inflate_all(STR("identity"), SAMPLE(gzipped), 1000, &out));
	assert_false(inflate_all(STR("br"), (struct str){ NULL, 0 }, 1000, &out));
	sbuf_free(&out);
	assert_int_equal(budget.used, 0);
}

/* Zeros, a thousand times more than what comes in. */
static void check_bomb(const char *encoding, struct str start, struct str again)
{
	struct inflate *i = inflate_open(str_of(encoding));
	struct str part;
	size_t made = 0, given = start.n;

	inflate_give(i, start);
	while (inflate_next(i, &part))
		made += part.n;
	for (int n = 0; n < 100000 && !inflate_is_broken(i); n++) {
		inflate_give(i, again);
		given += again.n;
		while (inflate_next(i, &part))
			made += part.n;
	}
	assert_true(inflate_is_broken(i));
	assert_true(made >= 1024 * 1024);
	assert_true(made <= (1 << 20) + INFLATE_PART + INFLATE_RATIO * given);
	inflate_close(i);
	assert_int_equal(budget.used, 0);
}

static void what_goes_on_for_ever(void **state)
{
	(void)state;
	check_bomb("deflate", SAMPLE(zeros_start), SAMPLE(zeros_again));
	check_bomb("br", SAMPLE(br_zeros), SAMPLE(br_zeros));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_encoding_in_pieces),
		cmocka_unit_test(encodings_that_are_not_read),
		cmocka_unit_test(two_gzip_streams_in_a_row),
		cmocka_unit_test(what_is_broken_or_cut),
		cmocka_unit_test(a_whole_body),
		cmocka_unit_test(what_goes_on_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
