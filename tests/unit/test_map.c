/* test_map.c -- the map against a plain table, over many random changes. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/map.h"

enum { KEYS = 300 };

static char keys[KEYS][8];

static struct str key_of(unsigned i)
{
	snprintf(keys[i], sizeof(keys[i]), "k%u", i);
	return str_of(keys[i]);
}

static unsigned next_random(void)
{
	static uint32_t seed = 12345;

	seed = seed * 1664525 + 1013904223;
	return seed >> 8;
}

static void test_puts_replaces_removes(void **state)
{
	struct map m = { 0 };
	int one, two;

	(void)state;
	assert_null(map_get(&m, STR("a")));
	assert_null(map_remove(&m, STR("a")));
	assert_null(map_put(&m, STR("a"), &one));
	assert_null(map_put(&m, STR(""), &two));
	assert_ptr_equal(map_get(&m, STR("a")), &one);
	assert_ptr_equal(map_get(&m, STR("")), &two);
	assert_null(map_get(&m, STR("b")));
	assert_ptr_equal(map_put(&m, STR("a"), &two), &one);
	assert_int_equal(m.n, 2);
	assert_ptr_equal(map_remove(&m, STR("a")), &two);
	assert_null(map_get(&m, STR("a")));
	assert_int_equal(m.n, 1);
	map_free(&m);
	assert_int_equal(m.n, 0);
}

static void check_same(const struct map *m, void *const *expected)
{
	size_t n = 0, i = 0;
	struct map_entry *e;

	for (unsigned k = 0; k < KEYS; k++) {
		assert_ptr_equal(map_get(m, key_of(k)), expected[k]);
		n += expected[k] != NULL;
	}
	assert_int_equal(m->n, n);
	while ((e = map_next(m, &i))) {
		assert_ptr_equal(map_get(m, e->key), e->value);
		n--;
	}
	assert_int_equal(n, 0);
}

static void test_agrees_with_a_table(void **state)
{
	void *expected[KEYS] = { 0 };
	struct map m = { 0 };

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		unsigned k = next_random() % KEYS;

		if (next_random() % 2) {
			assert_ptr_equal(map_put(&m, key_of(k), &keys[next_random() % KEYS]), expected[k]);
			expected[k] = map_get(&m, key_of(k));
			assert_non_null(expected[k]);
		} else {
			assert_ptr_equal(map_remove(&m, key_of(k)), expected[k]);
			expected[k] = NULL;
		}
		if (round % 1000 == 0)
			check_same(&m, expected);
	}
	check_same(&m, expected);
	map_free(&m);
}

/* A map that was large gives its table back, and is the same map. */
static void test_shrinks_when_it_empties(void **state)
{
	enum { MANY = 5000 };
	static char names[MANY][8];
	struct map m = { 0 };
	size_t largest;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof(names[i]), "n%u", i);
		map_put(&m, str_of(names[i]), names[i]);
	}
	largest = m.cap;
	for (unsigned i = 0; i < MANY - 10; i++)
		assert_ptr_equal(map_remove(&m, str_of(names[i])), names[i]);
	assert_true(m.cap <= largest / 16);
	assert_int_equal(m.n, 10);
	for (unsigned i = 0; i < MANY; i++)
		assert_ptr_equal(map_get(&m, str_of(names[i])), i < MANY - 10 ? NULL : names[i]);
	map_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_puts_replaces_removes),
		cmocka_unit_test(test_agrees_with_a_table),
		cmocka_unit_test(test_shrinks_when_it_empties),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
