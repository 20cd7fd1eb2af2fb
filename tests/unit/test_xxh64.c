/*
 * test_xxh64.c -- against the published self-test of xxHash (xxhsum --benchmark's sanity buffer) and well-known texts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "core/xxh64.h"

#define PRIME32 UINT64_C(2654435761)
#define PRIME64 UINT64_C(11400714785074694797)

/* The buffer that every implementation is checked with. */
static void fill(char *out, size_t n)
{
	uint64_t v = PRIME32;

	for (size_t i = 0; i < n; i++, v *= PRIME64)
		out[i] = (char)(v >> 56);
}

static void published_values(void **state)
{
	static const struct {
		size_t n;
		uint64_t seed, hash;
	} cases[] = {
		{ 0, 0, UINT64_C(0xef46db3751d8e999) }, { 0, PRIME32, UINT64_C(0xac75fda2929b17ef) },
		{ 1, 0, UINT64_C(0xe934a84adb052768) }, { 1, PRIME32, UINT64_C(0x5014607643a9b4c3) },
		{ 4, 0, UINT64_C(0x9136a0dca57457ee) }, { 14, 0, UINT64_C(0x8282dcc4994e35c8) },
		{ 14, PRIME32, UINT64_C(0xc3bd6bf63deb6df0) }, { 222, 0, UINT64_C(0xb641ae8cb691c174) },
		{ 222, PRIME32, UINT64_C(0x20cb8ab7ae10c14a) },
	};
	char buffer[222];

	(void)state;
	fill(buffer, sizeof(buffer));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_true(xxh64((struct str){ buffer, cases[i].n }, cases[i].seed) == cases[i].hash);
}

static void well_known_texts(void **state)
{
	(void)state;
	assert_true(xxh64(STR("a"), 0) == UINT64_C(0xd24ec4f1a98c6e5b));
	assert_true(xxh64(STR("abc"), 0) == UINT64_C(0x44bc2cf5ad770999));
	assert_true(xxh64((struct str){ NULL, 0 }, 0) == UINT64_C(0xef46db3751d8e999));
}

/* Wherever the bytes lie. */
static void alignment_does_not_matter(void **state)
{
	char buffer[222], moved[230];

	(void)state;
	fill(buffer, sizeof(buffer));
	for (size_t at = 0; at < 8; at++) {
		memcpy(moved + at, buffer, sizeof(buffer));
		for (size_t n = 0; n <= sizeof(buffer); n++)
			assert_true(xxh64((struct str){ moved + at, n }, 7) == xxh64((struct str){ buffer, n }, 7));
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_values),
		cmocka_unit_test(well_known_texts),
		cmocka_unit_test(alignment_does_not_matter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
