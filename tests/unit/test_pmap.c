/* test_pmap.c -- versions keep what they had, share what they can, and let go of everything. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/list.h"
#include "core/mem.h"
#include "core/pmap.h"

struct thing {
	struct part part;
	unsigned number;
};

static unsigned living;

static void destroy(struct part *p)
{
	living--;
	mem_free(p);
}

/* The caller's reference is the only one. */
static struct part *make_thing(unsigned number)
{
	struct thing *t = MEM_NEW(struct thing);

	t->part.refs = 1;
	t->part.destroy = destroy;
	t->number = number;
	living++;
	return &t->part;
}

static struct str key_of(unsigned i)
{
	static char text[24];

	snprintf(text, sizeof(text), "route-%u", i);
	return str_of(text);
}

static struct pmap *set(struct pmap *m, unsigned key, unsigned number)
{
	struct part *p = make_thing(number);

	m = pmap_set(m, key_of(key), p);
	part_drop(p);
	return m;
}

static unsigned number_of(const struct pmap *m, unsigned key)
{
	struct part *p = pmap_get(m, key_of(key));

	return p ? CONTAINER(p, struct thing, part)->number : 0;
}

static bool count_entry(void *arg, struct str key, struct part *value)
{
	unsigned *n = arg;

	assert_true(str_starts(key, STR("route-")));
	assert_non_null(value);
	++*n;
	return true;
}

static bool stop_at_three(void *arg, struct str key, struct part *value)
{
	unsigned *n = arg;

	(void)key;
	(void)value;
	return ++*n < 3;
}

static void test_sets_gets_removes(void **state)
{
	struct pmap *m = pmap_new();

	(void)state;
	assert_null(pmap_get(m, STR("x")));
	m = pmap_set(m, STR("x"), NULL);
	assert_int_equal(pmap_count(m), 0);
	m = set(m, 1, 10);
	m = set(m, 1, 11);
	m = set(m, 2, 20);
	assert_int_equal(number_of(m, 1), 11);
	assert_int_equal(number_of(m, 2), 20);
	assert_int_equal(pmap_count(m), 2);
	assert_int_equal(living, 2);
	m = pmap_set(m, key_of(1), NULL);
	assert_null(pmap_get(m, key_of(1)));
	assert_int_equal(living, 1);
	pmap_drop(m);
	assert_int_equal(living, 0);
}

static void test_grows_and_shrinks(void **state)
{
	enum { KEYS = 5000 };
	struct pmap *m = pmap_new();
	unsigned n = 0;

	(void)state;
	for (unsigned i = 1; i <= KEYS; i++)
		m = set(m, i, i);
	assert_int_equal(pmap_count(m), KEYS);
	for (unsigned i = 1; i <= KEYS; i++)
		assert_int_equal(number_of(m, i), i);
	assert_null(pmap_get(m, STR("route-0")));
	assert_true(pmap_each(m, count_entry, &n));
	assert_int_equal(n, KEYS);
	n = 0;
	assert_false(pmap_each(m, stop_at_three, &n));
	assert_int_equal(n, 3);
	for (unsigned i = 1; i <= KEYS; i++) {
		m = pmap_set(m, key_of(i), NULL);
		assert_int_equal(number_of(m, i), 0);
		assert_int_equal(number_of(m, i + 1), i < KEYS ? i + 1 : 0);
	}
	assert_int_equal(pmap_count(m), 0);
	assert_int_equal(living, 0);
	pmap_drop(m);
}

static void test_old_versions_do_not_change(void **state)
{
	enum { KEYS = 400, VERSIONS = 40 };
	struct pmap *m = pmap_new(), *versions[VERSIONS];

	(void)state;
	for (unsigned i = 0; i < KEYS; i++)
		m = set(m, i, 1);
	for (unsigned v = 0; v < VERSIONS; v++) {
		versions[v] = pmap_hold(m);
		m = set(m, v, 1000 + v);
		m = pmap_set(m, key_of(KEYS - 1 - v), NULL);
		m = set(m, KEYS + v, 2000 + v);
		assert_ptr_not_equal(m, versions[v]);
	}
	for (unsigned v = 0; v < VERSIONS; v++) {
		assert_int_equal(pmap_count(versions[v]), KEYS);
		for (unsigned i = 0; i < VERSIONS; i++) {
			assert_int_equal(number_of(versions[v], i), i < v ? 1000 + i : 1);
			assert_int_equal(number_of(versions[v], KEYS - 1 - i), i < v ? 0 : 1);
			assert_int_equal(number_of(versions[v], KEYS + i), i < v ? 2000 + i : 0);
		}
	}
	/* Dropped in an order unlike that of their making. */
	for (unsigned v = 0; v < VERSIONS; v += 2)
		pmap_drop(versions[v]);
	pmap_drop(m);
	for (unsigned v = 1; v < VERSIONS; v += 2)
		pmap_drop(versions[v]);
	assert_int_equal(living, 0);
}

static void test_the_only_holder_changes_in_place(void **state)
{
	struct pmap *m = set(pmap_new(), 1, 1), *before = m;
	struct part *same;

	(void)state;
	m = set(m, 1, 2);
	assert_ptr_equal(m, before);
	pmap_hold(m);
	same = pmap_get(m, key_of(1));
	m = pmap_set(m, key_of(1), same);
	assert_ptr_equal(m, before);
	pmap_drop(m);
	pmap_drop(m);
	assert_int_equal(living, 0);
}

static void test_hash_given(void **state)
{
	struct pmap *m = set(pmap_new(), 7, 7);

	(void)state;
	assert_ptr_equal(pmap_get_hashed(m, key_of(7), pmap_hash(key_of(7))), pmap_get(m, key_of(7)));
	assert_true(pmap_hash(STR("a")) != pmap_hash((struct str){ "a\0", 2 }));
	assert_true(pmap_hash(STR("12345678a")) != pmap_hash(STR("12345678b")));
	pmap_drop(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sets_gets_removes),
		cmocka_unit_test(test_grows_and_shrinks),
		cmocka_unit_test(test_old_versions_do_not_change),
		cmocka_unit_test(test_the_only_holder_changes_in_place),
		cmocka_unit_test(test_hash_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
