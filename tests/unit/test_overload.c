/* test_overload.c -- when a worker is behind its work, when it is no more, and what refusing may cost. */
/* room: proxy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "core/budget.h"
#include "core/metric.h"
#include "proxy/overload.h"
#include <cmocka.h>

static int64_t now_us;

static int setup(void **state)
{
	(void)state;
	metric_start(1);
	metric_thread(0);
	overload_metrics();
	now_us = 1000000;
	budget = (struct budget){ 0 };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	metric_stop();
	return 0;
}

/* So many turns of this length. Returns how often it began or ended. */
static unsigned turns(struct overload *o, int n, int64_t lag_us, int64_t slept_us)
{
	unsigned changes = 0;

	for (int i = 0; i < n; i++) {
		now_us += lag_us + slept_us;
		changes += overload_turn(o, now_us, lag_us, slept_us);
	}
	return changes;
}

static unsigned refused(struct overload *o, unsigned asked)
{
	unsigned n = 0;

	for (unsigned i = 0; i < asked; i++) {
		if (overload_judge(o) == OVERLOAD_NO)
			continue;
		overload_pay(o, 5);
		n++;
	}
	return n;
}

static void begins_when_most_turns_are_late(void **state)
{
	struct overload o;

	(void)state;
	overload_init(&o, 100);
	assert_int_equal(turns(&o, 100, 100000, 0), 0);       /* as long as allowed */
	assert_int_equal(turns(&o, 16, 100001, 0), 0);
	assert_false(o.is_lagging);
	assert_int_equal(turns(&o, 1, 100001, 0), 1);
	assert_true(o.is_lagging);
}

static void one_long_turn_is_none(void **state)
{
	struct overload o;

	(void)state;
	overload_init(&o, 100);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(turns(&o, 1, 5000000, 0), 0);
		assert_int_equal(turns(&o, 2, 1000, 0), 0);
	}
	assert_int_equal(refused(&o, 10), 0);
}

static void ends_when_hardly_any_turn_is_late(void **state)
{
	struct overload o;

	(void)state;
	overload_init(&o, 100);
	turns(&o, 32, 200000, 0);
	assert_int_equal(turns(&o, 28, 1000, 0), 0);          /* four late ones are left */
	assert_true(o.is_lagging);
	assert_int_equal(turns(&o, 1, 1000, 0), 1);
	assert_false(o.is_lagging);
	assert_int_equal(refused(&o, 10), 0);
}

static void ends_when_there_is_nothing_to_do(void **state)
{
	struct overload o;

	(void)state;
	overload_init(&o, 100);
	turns(&o, 32, 200000, 0);
	assert_int_equal(turns(&o, 1, 200000, 40000), 1);
	assert_false(o.is_lagging);
}

static void refusing_costs_a_small_share_of_the_time(void **state)
{
	struct overload o;
	unsigned n = 0;

	(void)state;
	overload_init(&o, 100);
	turns(&o, 32, 200000, 0);
	/* What was saved up is bounded: 20 ms. 5 us are seen of each 10. */
	assert_int_equal(refused(&o, 1000000), 2000);
	/* 4 s in turns of 200 ms: a sixteenth is 250 ms; 20 ms of it at most in one turn. */
	for (int i = 0; i < 20; i++) {
		turns(&o, 1, 200000, 0);
		n += refused(&o, 1000000);
	}
	assert_int_equal(n, 20 * 1250);
}

static void zero_means_never(void **state)
{
	struct overload o;

	(void)state;
	overload_init(&o, 0);
	assert_int_equal(turns(&o, 100, 10000000, 0), 0);
	assert_int_equal(refused(&o, 10), 0);
}

static void a_spent_budget_refuses_all(void **state)
{
	struct overload o;

	(void)state;
	overload_init(&o, 100);
	budget.limit = 1 << 20;
	budget_add((1 << 20) - 1);
	assert_int_equal(refused(&o, 10), 0);
	assert_int_equal(budget_piece(131072), 16384);
	budget_add(1);
	assert_int_equal(refused(&o, 10), 10);
	assert_int_equal(overload_judge(&o), OVERLOAD_MEMORY);
	budget_add(-(1 << 19) - 1);
	assert_int_equal(refused(&o, 10), 0);
	assert_int_equal(budget_piece(131072), 131072);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(begins_when_most_turns_are_late), CASE(one_long_turn_is_none),
		CASE(ends_when_hardly_any_turn_is_late), CASE(ends_when_there_is_nothing_to_do),
		CASE(refusing_costs_a_small_share_of_the_time), CASE(zero_means_never),
		CASE(a_spent_budget_refuses_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
