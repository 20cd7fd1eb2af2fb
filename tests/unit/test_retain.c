/* test_retain.c -- bodies that are kept: what readers get, where the limit is, and who frees the memory. */
/* room: proxy */
#include "proxy/exchange.h"
#include "proxy/retain.h"
#include "core/budget.h"
#include "core/mem.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static struct exchange *make(void)
{
	return MEM_NEW(struct exchange);
}

static void end(struct exchange *x)
{
	arena_free(&x->arena);
	mem_free(x);
}

/* All that the reader has for now, as one text. */
static struct str read_all(struct retain_reader *reader, struct arena *a)
{
	struct sbuf all = { 0 };
	struct str piece;

	while ((piece = retain_read(reader)).n > 0)
		sbuf_add(&all, piece);
	piece = arena_copy(a, sbuf_str(&all));
	sbuf_free(&all);
	return piece;
}

static void test_readers_are_independent(void **state)
{
	struct exchange *x = make();
	struct retained *r = retain_body(x, 1000);
	struct retain_reader first = { .of = r }, second = { .of = r };

	(void)state;
	assert_int_equal(retain_read(&first).n, 0);
	retain_add(x, STR("hello"), false);
	assert_true(str_equal(read_all(&first, &x->arena), STR("hello")));
	retain_add(x, STR(" world"), false);
	assert_true(str_equal(read_all(&first, &x->arena), STR(" world")));
	assert_false(r->is_whole);
	retain_add(x, STR(""), true);
	assert_true(r->is_whole);
	assert_int_equal(retain_read(&first).n, 0);
	assert_true(str_equal(read_all(&second, &x->arena), STR("hello world")));
	end(x);
}

static void test_pieces_of_every_size(void **state)
{
	struct exchange *x = make();
	struct retained *r = retain_body(x, 1 << 20);
	struct retain_reader reader = { .of = r };
	struct sbuf sent = { 0 };
	char piece[9000];

	(void)state;
	for (size_t n = 0; n < sizeof piece; n += 1 + n / 3) {
		for (size_t i = 0; i < n; i++)
			piece[i] = (char)(n * 31 + i * 7);
		sbuf_add(&sent, (struct str){ piece, n });
		retain_add(x, (struct str){ piece, n }, false);
	}
	assert_int_equal(r->n, sent.n);
	assert_true(str_equal(read_all(&reader, &x->arena), sbuf_str(&sent)));
	sbuf_free(&sent);
	end(x);
}

static void test_limit(void **state)
{
	struct exchange *x = make();
	struct retained *r = retain_body(x, 4);
	struct retain_reader reader = { .of = r };
	int64_t before = budget.used;

	(void)state;
	assert_ptr_equal(retain_body(x, 10), r);
	assert_ptr_equal(retain_body(x, 2), r);
	assert_int_equal(r->limit, 10);
	retain_add(x, STR("0123456789"), false);
	assert_false(r->is_over);
	assert_int_equal(retain_read(&reader).n, 10);
	assert_true(budget.used > before);
	retain_add(x, STR("x"), false);
	assert_true(r->is_over && !r->is_whole);
	assert_int_equal(retain_read(&reader).n, 0);
	assert_int_equal(budget.used, before);
	retain_add(x, STR("y"), true);
	assert_false(r->is_whole);
	assert_int_equal(r->n, 12);
	end(x);
}

static void test_a_spent_budget_keeps_nothing(void **state)
{
	struct exchange *x = make();
	struct retained *r = retain_body(x, 1000);

	(void)state;
	budget.limit = 1;
	budget_add(1);
	retain_add(x, STR("x"), true);
	assert_true(r->is_over);
	budget_add(-1);
	budget.limit = 0;
	end(x);
}

static void test_holders_outlive_the_exchange(void **state)
{
	int64_t before = budget.used;
	struct exchange *x = make();
	struct retained *r = retain_hold(retain_body(x, 100));
	struct retain_reader reader = { .of = r };

	(void)state;
	retain_add(x, STR("kept"), true);
	end(x);
	assert_true(str_equal(retain_read(&reader), STR("kept")));
	retain_drop(r);
	assert_int_equal(budget.used, before);
}

struct counter {
	struct retain_watch watch;
	unsigned calls;
};

static void count(struct retain_watch *w)
{
	CONTAINER(w, struct counter, watch)->calls++;
}

static void test_watchers(void **state)
{
	struct exchange *x = make();
	struct retained *r = retain_body(x, 3);
	struct counter c = { .watch.changed = count };

	(void)state;
	list_init(&c.watch.node);
	retain_watch(r, &c.watch);
	retain_add(x, STR("ab"), false);
	assert_int_equal(c.calls, 1);
	retain_add(x, STR("cd"), false);
	assert_true(c.calls == 2 && r->is_over);
	list_remove(&c.watch.node);
	retain_add(x, STR("ef"), true);
	assert_int_equal(c.calls, 2);
	end(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_are_independent),
		cmocka_unit_test(test_pieces_of_every_size),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_a_spent_budget_keeps_nothing),
		cmocka_unit_test(test_holders_outlive_the_exchange),
		cmocka_unit_test(test_watchers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
