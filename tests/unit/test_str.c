/* test_str.c -- byte ranges, numbers, UTF-8 and the text buffer; problems, which are text too. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/problem.h"
#include "core/str.h"

static void test_compares(void **state)
{
	(void)state;
	assert_true(str_equal_nocase(STR("Content-TYPE"), STR("content-type")));
	assert_false(str_equal_nocase(STR("a@"), STR("a`")));
	assert_false(str_equal_nocase(STR("ab"), STR("abc")));
	assert_true(str_compare(STR("a"), STR("b")) < 0);
	assert_true(str_compare(STR("a"), STR("ab")) < 0);
	assert_true(str_compare(STR("\xff"), STR("a")) > 0);
	assert_int_equal(str_compare((struct str){ NULL, 0 }, STR("")), 0);
	assert_true(str_starts(STR("/api/v1"), STR("/api")));
	assert_false(str_starts(STR("/ap"), STR("/api")));
	assert_true(str_ends(STR("a.example.com"), STR(".example.com")));
	assert_false(str_ends(STR("com"), STR(".com")));
	assert_true(str_ends(STR("x"), (struct str){ NULL, 0 }));
	assert_true(str_equal_secret(STR("token"), STR("token")));
	assert_false(str_equal_secret(STR("token"), STR("tokem")));
	assert_false(str_equal_secret(STR("token"), STR("toke")));
}

static void test_splits_and_trims(void **state)
{
	struct str rest = STR("a,,b"), part;

	(void)state;
	assert_true(str_split(&rest, ',', &part));
	assert_true(str_equal(part, STR("a")));
	assert_true(str_split(&rest, ',', &part));
	assert_int_equal(part.n, 0);
	assert_non_null(part.p);
	assert_true(str_split(&rest, ',', &part));
	assert_true(str_equal(part, STR("b")));
	assert_false(str_split(&rest, ',', &part));

	rest = STR("a,");
	assert_true(str_split(&rest, ',', &part));
	assert_true(str_split(&rest, ',', &part));
	assert_int_equal(part.n, 0);
	assert_false(str_split(&rest, ',', &part));

	assert_true(str_equal(str_trim(STR(" \t a b\t ")), STR("a b")));
	assert_int_equal(str_trim(STR("  \t")).n, 0);
	assert_int_equal(str_find(STR("abc"), 'c'), 2);
	assert_int_equal(str_find(STR("abc"), 'x'), 3);
	assert_int_equal(str_find((struct str){ NULL, 0 }, 'x'), 0);
}

static void test_reads_numbers(void **state)
{
	static const char *const refused[] = {
		"", "+1", "-1", " 1", "1 ", "01", "00", "1a", "0x1", "18446744073709551616", "99999999999999999999",
		"100000000000000000000", "1.0", "1e3",
	};
	uint64_t v = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		assert_false(str_to_u64(str_of(refused[i]), UINT64_MAX, &v));
	assert_int_equal(v, 7);
	assert_true(str_to_u64(STR("0"), 0, &v));
	assert_int_equal(v, 0);
	assert_true(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &v));
	assert_true(v == UINT64_MAX);
	assert_true(str_to_u64(STR("65535"), 65535, &v));
	assert_false(str_to_u64(STR("65536"), 65535, &v));
	assert_int_equal(v, 65535);
}

static void test_knows_utf8(void **state)
{
	static const char *const good[] = {
		"", "plain", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80",
		"\xf4\x8f\xbf\xbf", ("12345678\xc3\xa9" "12345678"),
	};
	static const char *const bad[] = {
		"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
		"\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", ("12345678\xff" "1234567"),
		"1234567\xe2", "\xe2\x82\x41", "\xf0\x9f\x98\x41",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(str_is_utf8(str_of(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(str_is_utf8(str_of(bad[i])));
	assert_int_equal(str_code_points(STR("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")), 4);
}

static void test_hashes_every_byte(void **state)
{
	char bytes[40] = { 0 };
	uint64_t plain = str_hash((struct str){ bytes, sizeof(bytes) });

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = 1;
		assert_true(str_hash((struct str){ bytes, sizeof(bytes) }) != plain);
		bytes[i] = 0;
		assert_true(str_hash((struct str){ bytes, i }) != plain);
	}
	assert_true(str_hash((struct str){ bytes, sizeof(bytes) }) == plain);
	assert_true(str_hash((struct str){ NULL, 0 }) == str_hash(STR("")));
}

static void test_builds_text(void **state)
{
	struct sbuf b = { 0 };

	(void)state;
	assert_null(sbuf_str(&b).p);
	sbuf_add(&b, (struct str){ NULL, 0 });
	assert_string_equal(b.p, "");
	for (unsigned i = 0; i < 100; i++)
		sbuf_addf(&b, "%u,", i);
	sbuf_addc(&b, '.');
	SBUF_LIT(&b, "end");
	assert_int_equal(b.n, 10 * 2 + 90 * 3 + 4);
	assert_string_equal(b.p + b.n - 7, "99,.end");
	sbuf_free(&b);
	sbuf_addf(&b, "%200s|", "x");
	assert_int_equal(b.n, 201);
	assert_string_equal(b.p + 199, "x|");
	sbuf_free(&b);
	assert_null(b.p);
}

static void test_problem_tells_field_and_text(void **state)
{
	struct problem why;

	(void)state;
	assert_false(problem(&why, "[2].key", "must be at most %d characters", 64));
	assert_int_equal(why.kind, PROBLEM_INVALID);
	assert_string_equal(why.text, "must be at most 64 characters");
	problem_prefix(&why, "items");
	problem_prefix(&why, "config");
	problem_prefix(&why, "");
	assert_string_equal(why.field, "config.items[2].key");
	assert_false(problem_of(&why, PROBLEM_CONFLICT, "", "%s", why.text));
	assert_int_equal(why.kind, PROBLEM_CONFLICT);
	assert_string_equal(why.text, "must be at most 64 characters");
	problem_prefix(&why, "config");
	assert_string_equal(why.field, "config");
}

static void test_problem_cuts_between_characters(void **state)
{
	struct problem why;
	char text[sizeof(why.text) + 8];

	(void)state;
	for (size_t shift = 0; shift < 3; shift++) {
		memset(text, 'a', shift);
		for (size_t i = shift; i + 3 <= sizeof(text) - 1; i += 3)
			memcpy(text + i, "\xe2\x82\xac", 3);
		text[sizeof(text) - 3] = '\0';
		problem(&why, text, "%s", text);
		assert_true(str_is_utf8(str_of(why.text)));
		assert_true(strlen(why.text) > sizeof(why.text) - 5);
		assert_true(str_is_utf8(str_of(why.field)));
		problem_prefix(&why, "a");
		problem_prefix(&why, "b");
		assert_true(str_is_utf8(str_of(why.field)));
		assert_true(str_starts(str_of(why.field), STR("b.a.")));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compares),
		cmocka_unit_test(test_splits_and_trims),
		cmocka_unit_test(test_reads_numbers),
		cmocka_unit_test(test_knows_utf8),
		cmocka_unit_test(test_hashes_every_byte),
		cmocka_unit_test(test_builds_text),
		cmocka_unit_test(test_problem_tells_field_and_text),
		cmocka_unit_test(test_problem_cuts_between_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
