/* room: policy */
/* What a worker remembers of tokens: for how long, of whom, and no more than it has room for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/clock.h"
#include "core/thread.h"
#include "policy/token_cache.h"

#define NOW_S INT64_C(1700000000)
#define NOW_US INT64_C(5000000000)

static int start(void **state)
{
	(void)state;
	clock_set(NOW_US, NOW_S * 1000);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	clock_set_real();
	return 0;
}

static void pass_ms(int64_t ms)
{
	clock_set(NOW_US + ms * 1000, NOW_S * 1000 + ms);
}

static bool is_there(const struct token_id *id)
{
	return token_cache_find(id) != NULL;
}

static void test_found_for_a_minute(void **state)
{
	struct token_id id = token_id(token_cache_owner(), 1, STR("a.b.c"));
	const struct token_entry *e;

	(void)state;
	assert_false(is_there(&id));
	token_cache_put(&id, STR("alice"), NOW_S + 3600);
	e = token_cache_find(&id);
	assert_non_null(e);
	assert_true(str_equal((struct str){ e->subject, e->subject_n }, STR("alice")));
	assert_false(e->says_no_end);
	pass_ms(59999);
	assert_true(is_there(&id));
	pass_ms(60000);
	assert_false(is_there(&id));
}

static void test_no_longer_than_it_says(void **state)
{
	const struct {
		int64_t expires_s, good_ms;
	} rows[] = { { NOW_S + 10, 10000 }, { NOW_S + 60, 60000 }, { NOW_S + 61, 60000 }, { INT64_MAX, 60000 },
		     { INT64_MAX / 4, 60000 }, { NOW_S, 0 }, { NOW_S - 30, 0 }, { -5, 0 }, { -(INT64_MAX / 4), 0 },
		     { INT64_MIN, 0 } };

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct token_id id = token_id(token_cache_owner(), 1, STR("a.b.c"));

		pass_ms(0);
		token_cache_put(&id, STR("alice"), rows[i].expires_s);
		assert_int_equal(is_there(&id), rows[i].good_ms > 0);
		if (rows[i].good_ms == 0)
			continue;
		assert_int_equal(token_cache_find(&id)->says_no_end, rows[i].expires_s == INT64_MAX);
		pass_ms(rows[i].good_ms - 1);
		assert_true(is_there(&id));
		pass_ms(rows[i].good_ms);
		assert_false(is_there(&id));
	}
}

static void test_only_for_who_verified_it_and_with_which_keys(void **state)
{
	const uint64_t one = token_cache_owner(), two = token_cache_owner();
	struct token_id id = token_id(one, 7, STR("a.b.c")), other;

	(void)state;
	assert_true(one != two && one != 0);
	token_cache_put(&id, STR("alice"), INT64_MAX);
	other = token_id(two, 7, STR("a.b.c"));
	assert_false(is_there(&other));
	other = token_id(one, 8, STR("a.b.c"));
	assert_false(is_there(&other));
	other = token_id(one, 7, STR("a.b.d"));
	assert_false(is_there(&other));
	other = token_id(one, 7, STR("a.b.c"));
	assert_true(is_there(&other));
}

static void test_long_subjects_are_not_remembered(void **state)
{
	char text[TOKEN_SUBJECT_MAX + 1];
	struct token_id id = token_id(token_cache_owner(), 1, STR("x"));

	(void)state;
	memset(text, 'x', sizeof text);
	token_cache_put(&id, (struct str){ text, sizeof text }, INT64_MAX);
	assert_false(is_there(&id));
	token_cache_put(&id, (struct str){ text, sizeof text - 1 }, INT64_MAX);
	assert_true(is_there(&id));
	assert_int_equal(token_cache_find(&id)->subject_n, TOKEN_SUBJECT_MAX);
}

static void test_new_ones_take_the_place_of_old_ones(void **state)
{
	const uint64_t owner = token_cache_owner();
	unsigned kept = 0;
	char text[16];

	(void)state;
	for (unsigned i = 0; i < 4 * TOKEN_CACHE_ENTRIES; i++) {
		snprintf(text, sizeof text, "t%u", i);
		struct token_id id = token_id(owner, 1, str_of(text));

		token_cache_put(&id, str_of(text), INT64_MAX);
		assert_true(is_there(&id));
	}
	for (unsigned i = 0; i < 4 * TOKEN_CACHE_ENTRIES; i++) {
		snprintf(text, sizeof text, "t%u", i);
		struct token_id id = token_id(owner, 1, str_of(text));
		const struct token_entry *e = token_cache_find(&id);

		kept += e != NULL;
		if (e)
			assert_true(str_equal((struct str){ e->subject, e->subject_n }, str_of(text)));
	}
	assert_true(kept <= TOKEN_CACHE_ENTRIES && kept > TOKEN_CACHE_ENTRIES / 2);
}

static void test_twice_is_once(void **state)
{
	struct token_id id = token_id(token_cache_owner(), 1, STR("x"));

	(void)state;
	token_cache_put(&id, STR("one"), NOW_S + 5);
	token_cache_put(&id, STR("two"), NOW_S + 50);
	assert_int_equal(token_cache_find(&id)->subject[0], 't');
	pass_ms(10000);
	assert_true(is_there(&id));
}

static void *look(void *arg)
{
	struct token_id own = token_id(token_cache_owner(), 1, STR("own"));

	clock_set(NOW_US, NOW_S * 1000);
	assert_false(is_there(arg));
	token_cache_put(&own, STR("x"), INT64_MAX);
	assert_true(is_there(&own));
	return NULL;
}

/* And what it had goes with it: the leak checker looks. */
static void test_a_thread_has_its_own(void **state)
{
	struct token_id id = token_id(token_cache_owner(), 1, STR("x"));

	(void)state;
	token_cache_put(&id, STR("x"), INT64_MAX);
	pthread_join(thread_start("other", look, &id), NULL);
	assert_true(is_there(&id));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(test_found_for_a_minute),
		TEST(test_no_longer_than_it_says),
		TEST(test_only_for_who_verified_it_and_with_which_keys),
		TEST(test_long_subjects_are_not_remembered),
		TEST(test_new_ones_take_the_place_of_old_ones),
		TEST(test_twice_is_once),
		TEST(test_a_thread_has_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
