/* test_proof_cache.c -- what was proven lately, by many threads at once.
 * Run with -DSLUICE_SANITIZE=thread too: all workers share the table. room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include "core/thread.h"
#include "policy/proof_cache.h"

static void test_keeps_what_was_proven_for_its_time(void **state)
{
	struct proof good = proof_of(STR("user:good"), STR("hash")), bad = proof_of(STR("user:bad"), STR("hash"));

	(void)state;
	assert_int_equal(proof_find(&good, 1000), PROOF_NONE);
	proof_keep(&good, true, 1000, 5000);
	proof_keep(&bad, false, 1000, 2000);
	assert_int_equal(proof_find(&good, 4999), PROOF_GOOD);
	assert_int_equal(proof_find(&good, 5000), PROOF_NONE);
	assert_int_equal(proof_find(&bad, 1999), PROOF_BAD);
	assert_int_equal(proof_find(&bad, 2000), PROOF_NONE);
	/* Never longer than the most, however long was asked for. */
	proof_keep(&good, true, 6000, 600000);
	assert_int_equal(proof_find(&good, 6000 + PROOF_LASTS_MAX_MS - 1), PROOF_GOOD);
	assert_int_equal(proof_find(&good, 6000 + PROOF_LASTS_MAX_MS), PROOF_NONE);
}

static void test_every_byte_of_both_parts_counts(void **state)
{
	static const char *const pairs[][2] = {
		{ "ab", "c" }, { "a", "bc" }, { "abc", "" }, { "", "abc" }, { "c", "ab" }, { "ab", "d" }, { "Ab", "c" },
	};
	struct proof first = proof_of(STR("ab"), STR("c"));

	(void)state;
	proof_keep(&first, true, 1, 100);
	for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct proof p = proof_of(str_of(pairs[i][0]), str_of(pairs[i][1]));

		assert_int_equal(proof_find(&p, 2), i == 0 ? PROOF_GOOD : PROOF_NONE);
	}
}

static struct proof numbered(const char *what, unsigned i)
{
	char text[32];

	return proof_of((struct str){ text, (size_t)snprintf(text, sizeof(text), "%s %u", what, i) }, STR("x"));
}

static void test_a_flood_of_failures_pushes_out_no_success(void **state)
{
	struct proof good = numbered("good", 0), p;
	unsigned kept = 0;

	(void)state;
	proof_keep(&good, true, 1, 50000);
	for (unsigned i = 0; i < 50000; i++) {
		p = numbered("bad", i);
		proof_keep(&p, false, 2, 60000);
	}
	assert_int_equal(proof_find(&good, 3), PROOF_GOOD);
	/* Successes do take the place of others: the table has a size. */
	for (unsigned i = 0; i < 50000; i++) {
		p = numbered("more", i);
		proof_keep(&p, true, 3, 60000);
		kept += proof_find(&p, 3) == PROOF_GOOD;
	}
	assert_int_equal(kept, 50000);
}

static void *hammer(void *arg)
{
	for (unsigned i = 0; i < 20000; i++) {
		struct proof p = numbered("shared", i % 300);

		/* Whoever keeps it says the same, so nobody may ever find another answer. */
		if (proof_find(&p, 1) == (i % 300 % 2 ? PROOF_BAD : PROOF_GOOD))
			continue;
		if (proof_find(&p, 1) == (i % 300 % 2 ? PROOF_GOOD : PROOF_BAD))
			*(unsigned *)arg += 1;
		proof_keep(&p, i % 300 % 2 == 0, 1, 50);
	}
	return NULL;
}

static void test_many_threads(void **state)
{
	unsigned wrong[4] = { 0 };
	pthread_t threads[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		threads[i] = thread_start("hammer", hammer, &wrong[i]);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(wrong[i], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_what_was_proven_for_its_time),
		cmocka_unit_test(test_every_byte_of_both_parts_counts),
		cmocka_unit_test(test_a_flood_of_failures_pushes_out_no_success),
		cmocka_unit_test(test_many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
