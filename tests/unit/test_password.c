/* test_password.c -- slow hashes of passwords. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/password.h"

static void test_a_password_matches_its_hash_alone(void **state)
{
	char first[PASSWORD_HASH_MAX], second[PASSWORD_HASH_MAX];

	(void)state;
	password_hash(STR("pa:ss w\xc3\xb6rd"), first);
	password_hash(STR("pa:ss w\xc3\xb6rd"), second);
	assert_string_not_equal(first, second);
	assert_int_equal(strncmp(first, "$y$", 3), 0);
	assert_null(strstr(first, "pa:ss"));
	assert_true(password_matches(STR("pa:ss w\xc3\xb6rd"), str_of(first)));
	assert_true(password_matches(STR("pa:ss w\xc3\xb6rd"), str_of(second)));
	assert_false(password_matches(STR("pa:ss"), str_of(first)));
	assert_false(password_matches(STR("PA:SS W\xc3\xb6RD"), str_of(first)));
	assert_false(password_matches(STR(""), str_of(first)));
}

static void test_the_longest_and_what_is_longer(void **state)
{
	char text[PASSWORD_BYTES_MAX + 1], hash[PASSWORD_HASH_MAX];

	(void)state;
	memset(text, 'x', sizeof(text));
	password_hash((struct str){ text, PASSWORD_BYTES_MAX }, hash);
	assert_true(password_matches((struct str){ text, PASSWORD_BYTES_MAX }, str_of(hash)));
	/* Every byte counts. */
	assert_false(password_matches((struct str){ text, PASSWORD_BYTES_MAX - 1 }, str_of(hash)));
	assert_false(password_matches((struct str){ text, PASSWORD_BYTES_MAX + 1 }, str_of(hash)));
}

static void test_what_is_no_hash_matches_nothing(void **state)
{
	static const char *const bad[] = { "", "x", "*", "*0", "$y$", "$y$j9T$", "secret", PASSWORD_HASH_OF_NONE };
	char hash[PASSWORD_HASH_MAX];

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(password_matches(STR("secret"), str_of(bad[i])));
		assert_false(password_matches(STR(""), str_of(bad[i])));
		assert_false(password_matches(str_of(bad[i]), str_of(bad[i])));
	}
	assert_false(password_matches(STR("secret"), (struct str){ NULL, 0 }));
	/* What stands behind a NUL would not count, so nothing does. */
	password_hash(STR("secret"), hash);
	assert_false(password_matches(STR("secret\0more"), str_of(hash)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_password_matches_its_hash_alone),
		cmocka_unit_test(test_the_longest_and_what_is_longer),
		cmocka_unit_test(test_what_is_no_hash_matches_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
