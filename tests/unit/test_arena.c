/* test_arena.c -- alignment, sizes, defers, and the cache of blocks. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/arena.h"

static void test_gives_aligned_zeroed_memory(void **state)
{
	struct arena a = { 0 };

	(void)state;
	for (size_t size = 0; size < 6000; size += 37) {
		char *p = arena_take(&a, size);

		assert_int_equal((uintptr_t)p % 16, 0);
		memset(p, 0xaa, size);
	}
	arena_free(&a);
	/* The same blocks come back from the cache, dirty. */
	for (size_t size = 0; size < 6000; size += 37) {
		const char *p = arena_alloc(&a, size);

		for (size_t i = 0; i < size; i++)
			assert_int_equal(p[i], 0);
	}
	arena_free(&a);
	arena_drop_cache();
}

static void test_pieces_do_not_overlap(void **state)
{
	enum { PIECES = 500 };
	struct arena a = { 0 };
	unsigned char *pieces[PIECES];
	size_t sizes[PIECES];

	(void)state;
	for (unsigned i = 0; i < PIECES; i++) {
		sizes[i] = (i * 7919u) % 5000 + 1;
		pieces[i] = arena_take(&a, sizes[i]);
		memset(pieces[i], (int)(i & 0xff), sizes[i]);
	}
	for (unsigned i = 0; i < PIECES; i++)
		for (size_t at = 0; at < sizes[i]; at++)
			assert_int_equal(pieces[i][at], i & 0xff);
	arena_free(&a);
}

static void test_counts_what_it_holds(void **state)
{
	struct arena a = { 0 };

	(void)state;
	assert_int_equal(arena_size(&a), 0);
	arena_take(&a, 10);
	assert_int_equal(arena_size(&a), 4096);
	arena_take(&a, 100);
	assert_int_equal(arena_size(&a), 4096);
	arena_take(&a, 100000);
	assert_true(arena_size(&a) >= 104096 && arena_size(&a) < 104400);
	size_t held = arena_size(&a);

	/* The large piece did not close the block before it. */
	arena_take(&a, 100);
	assert_int_equal(arena_size(&a), held);
	arena_free(&a);
	assert_int_equal(arena_size(&a), 0);
}

/* Many of them live long: they begin small, and are as others once they hold more. */
static void test_small_ones_begin_small(void **state)
{
	struct arena a = { .is_small = true };

	(void)state;
	arena_take(&a, 10);
	assert_true(arena_size(&a) <= 512);
	while (arena_size(&a) < 4096)
		memset(arena_take(&a, 100), 'x', 100);
	assert_true(arena_size(&a) <= 4096 + 512);
	size_t held = arena_size(&a);
	while (arena_size(&a) == held)
		arena_take(&a, 100);
	assert_int_equal(arena_size(&a), held + 4096);
	arena_free(&a);
	assert_true(a.is_small);
}

static void test_reuses_blocks(void **state)
{
	struct arena a = { 0 };

	(void)state;
	arena_drop_cache();
	const void *first = arena_take(&a, 8);

	arena_free(&a);
	assert_ptr_equal(arena_take(&a, 8), first);
	arena_free(&a);
	arena_drop_cache();
}

struct mark {
	struct arena_defer defer;
	int *order;
	int at;
};

static void note(struct arena_defer *d)
{
	struct mark *m = (struct mark *)d;

	m->at = ++*m->order;
}

static void test_runs_defers_newest_first(void **state)
{
	struct arena a = { 0 };
	struct mark first, second;
	int order = 0;

	(void)state;
	first.order = second.order = &order;
	arena_defer(&a, &first.defer, note);
	arena_defer(&a, &second.defer, note);
	arena_free(&a);
	assert_int_equal(second.at, 1);
	assert_int_equal(first.at, 2);
	arena_free(&a);
	assert_int_equal(order, 2);
}

static void test_copies_and_prints(void **state)
{
	struct arena a = { 0 };
	struct str s = arena_copy(&a, (struct str){ "abcdef", 3 });

	(void)state;
	assert_int_equal(s.n, 3);
	assert_string_equal(s.p, "abc");
	s = arena_copy(&a, (struct str){ NULL, 0 });
	assert_string_equal(s.p, "");
	s = arena_printf(&a, "%s-%d", "x", 5);
	assert_string_equal(s.p, "x-5");
	for (int width = 250; width < 262; width++) {
		s = arena_printf(&a, "%*d", width, 7);
		assert_int_equal(s.n, width);
		assert_int_equal(strlen(s.p), width);
		assert_int_equal(s.p[width - 1], '7');
	}
	arena_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gives_aligned_zeroed_memory),
		cmocka_unit_test(test_pieces_do_not_overlap),
		cmocka_unit_test(test_counts_what_it_holds),
		cmocka_unit_test(test_small_ones_begin_small),
		cmocka_unit_test(test_reuses_blocks),
		cmocka_unit_test(test_runs_defers_newest_first),
		cmocka_unit_test(test_copies_and_prints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
