/* test_cache_parts.c -- entries of AiCache as text, and those on their way to Redis. room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "core/mem.h"
#include "policy/cache_entry.h"
#include "policy/cache_pending.h"
#include <cmocka.h>

static const struct cache_entry sample = { .kind = AI_CHAT, .created_s = 1790000000, .model = STR("gpt-4"),
	.text = STR("\"quotes\"\n%s \xf0\x9f\x98\x80"), .reasoning = STR("why") };

static void test_entries_come_back(void **state)
{
	struct arena a = { 0 };
	struct cache_entry e;
	struct str text = cache_entry_write(&sample, &a);

	(void)state;
	assert_true(cache_entry_read(&e, &a, AI_CHAT, text));
	assert_int_equal(e.created_s, sample.created_s);
	assert_true(str_equal(e.model, sample.model));
	assert_true(str_equal(e.text, sample.text));
	assert_true(str_equal(e.reasoning, sample.reasoning));
	assert_null(e.body.p);
	assert_false(cache_entry_read(&e, &a, AI_MESSAGES, text));
	arena_free(&a);
}

static void test_bodies_come_back(void **state)
{
	struct arena a = { 0 };
	struct cache_entry e;
	struct cache_entry body = { .kind = AI_EMBEDDINGS, .created_s = 1, .body = STR("{\"data\":[\"\xc3\xa9\"]}") };
	struct str text = cache_entry_write(&body, &a);

	(void)state;
	assert_true(cache_entry_read(&e, &a, AI_EMBEDDINGS, text));
	assert_true(str_equal(e.body, body.body));
	body.body = STR("no JSON");
	assert_false(cache_entry_read(&e, &a, AI_EMBEDDINGS, cache_entry_write(&body, &a)));
	arena_free(&a);
}

static void test_long_ones_are_not_written(void **state)
{
	struct arena a = { 0 };
	struct cache_entry e = sample;
	char *text = mem_alloc(CACHE_ENTRY_MAX);

	(void)state;
	memset(text, 'x', CACHE_ENTRY_MAX);
	e.text = (struct str){ text, CACHE_ENTRY_MAX };
	assert_null(cache_entry_write(&e, &a).p);
	e.text.n -= 200;
	assert_non_null(cache_entry_write(&e, &a).p);
	mem_free(text);
	arena_free(&a);
}

/* Every text that an entry can be cut to, or that lacks one byte, is none, or one that is as good. */
static void test_cut_entries_are_none(void **state)
{
	struct arena a = { 0 };
	struct str text = cache_entry_write(&sample, &a);
	struct cache_entry e;

	(void)state;
	for (size_t n = 0; n < text.n; n++)
		assert_false(cache_entry_read(&e, &a, AI_CHAT, (struct str){ text.p, n }));
	arena_free(&a);
}

static void test_what_is_on_its_way(void **state)
{
	struct arena a = { 0 };
	struct cache_pending *first, *second;

	(void)state;
	assert_null(cache_pending_get(&a, STR("k")).p);
	first = cache_pending_put(STR("k"), STR("one"));
	assert_true(str_equal(cache_pending_get(&a, STR("k")), STR("one")));
	assert_null(cache_pending_get(&a, STR("other")).p);
	second = cache_pending_put(STR("k"), STR("two"));
	assert_true(str_equal(cache_pending_get(&a, STR("k")), STR("two")));
	/* The one that was replaced takes nothing with it. */
	cache_pending_end(first);
	assert_true(str_equal(cache_pending_get(&a, STR("k")), STR("two")));
	cache_pending_end(second);
	assert_null(cache_pending_get(&a, STR("k")).p);
	cache_pending_end(NULL);
	arena_free(&a);
}

static void test_it_is_bounded(void **state)
{
	struct cache_pending *all[CACHE_PENDING_MAX];
	struct arena a = { 0 };
	char *much = mem_alloc(CACHE_PENDING_BYTES);

	(void)state;
	memset(much, 'x', CACHE_PENDING_BYTES);
	assert_null(cache_pending_put(STR("k"), (struct str){ much, CACHE_PENDING_BYTES }));
	all[0] = cache_pending_put(STR("k"), (struct str){ much, CACHE_PENDING_BYTES - 1 });
	assert_non_null(all[0]);
	assert_null(cache_pending_put(STR("l"), STR("v")));
	cache_pending_end(all[0]);
	for (unsigned i = 0; i < CACHE_PENDING_MAX; i++) {
		all[i] = cache_pending_put(arena_printf(&a, "key %u", i), STR("v"));
		assert_non_null(all[i]);
	}
	assert_null(cache_pending_put(STR("l"), STR("v")));
	assert_true(str_equal(cache_pending_get(&a, STR("key 7")), STR("v")));
	for (unsigned i = 0; i < CACHE_PENDING_MAX; i++)
		cache_pending_end(all[i]);
	assert_null(cache_pending_get(&a, STR("key 7")).p);
	mem_free(much);
	arena_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries_come_back),
		cmocka_unit_test(test_bodies_come_back),
		cmocka_unit_test(test_long_ones_are_not_written),
		cmocka_unit_test(test_cut_entries_are_none),
		cmocka_unit_test(test_what_is_on_its_way),
		cmocka_unit_test(test_it_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
