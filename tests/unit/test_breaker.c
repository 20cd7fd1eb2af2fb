/* test_breaker.c -- the circuit breaker's state machine, at times that the test says. */
/* room: policy */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "policy/breaker.h"
#include <cmocka.h>

#define START 1000000

static const struct breaker_rules half = { .least = 10, .percent = 50, .window_ms = 30000, .recovery_ms = 2000 };
static struct breaker b;
static int64_t now;

static int set_up(void **state)
{
	(void)state;
	now = START;
	b = (struct breaker){ 0 };
	breaker_init(&b, &half, now);
	return 0;
}

static struct breaker_ticket pass(enum breaker_pass expected)
{
	struct breaker_ticket t;

	assert_int_equal(breaker_admit(&b, now, 2000, &t), expected);
	return t;
}

/* Whether the phase changed. */
static bool call(const struct breaker_rules *rules, enum breaker_call what)
{
	return breaker_report(&b, rules, pass(BREAKER_PASSES), what, now);
}

static void calls(const struct breaker_rules *rules, unsigned n, enum breaker_call what)
{
	while (n-- > 0)
		assert_false(call(rules, what));
}

static void trip(void)
{
	calls(&half, 9, BREAKER_BAD);
	assert_true(call(&half, BREAKER_BAD));
	assert_int_equal(breaker_phase(&b), BREAKER_OPEN);
}

static void opens_at_the_least_number_of_calls(void **state)
{
	(void)state;
	trip();
	pass(BREAKER_REFUSES);
}

static void opens_above_the_ratio_only(void **state)
{
	(void)state;
	calls(&half, 5, BREAKER_GOOD);
	calls(&half, 5, BREAKER_BAD);
	assert_true(call(&half, BREAKER_BAD));
}

static void all_bad_opens_at_100_percent(void **state)
{
	const struct breaker_rules all = { .least = 5, .percent = 100, .window_ms = 1000, .recovery_ms = 1000 };

	(void)state;
	calls(&all, 1, BREAKER_GOOD);
	calls(&all, 30, BREAKER_BAD);
	assert_int_equal(breaker_phase(&b), BREAKER_CLOSED);
	now += 1100;
	calls(&all, 4, BREAKER_BAD);
	assert_true(call(&all, BREAKER_BAD));
}

static void calls_leave_the_window(void **state)
{
	(void)state;
	calls(&half, 9, BREAKER_BAD);
	now += 30000;
	calls(&half, 9, BREAKER_BAD);
	now += 15000;
	assert_true(call(&half, BREAKER_BAD));    /* the first nine are gone, the others are not */
}

static void a_window_slides(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 9; i++, now += 3000)
		calls(&half, 1, BREAKER_BAD);
	assert_true(call(&half, BREAKER_BAD));
	set_up(NULL);
	for (unsigned i = 0; i < 100; i++, now += 3400)
		calls(&half, 1, BREAKER_BAD);     /* nine of them at most stand in a window */
}

static void long_windows_count_much(void **state)
{
	const struct breaker_rules big = { .least = 1000000, .percent = 1, .window_ms = 3600000, .recovery_ms = 1000 };

	(void)state;
	breaker_init(&b, &big, now);
	calls(&big, 999999, BREAKER_BAD);
	assert_true(call(&big, BREAKER_BAD));
}

static void one_probe_after_recovery(void **state)
{
	struct breaker_ticket probe;

	(void)state;
	trip();
	now += 1999;
	pass(BREAKER_REFUSES);
	now += 1;
	assert_int_equal(breaker_look(&b, now), BREAKER_PROBES);
	probe = pass(BREAKER_PROBES);
	assert_true(breaker_is_probe(probe));
	for (unsigned i = 0; i < 20; i++)
		pass(BREAKER_REFUSES);
	assert_true(breaker_report(&b, &half, probe, BREAKER_GOOD, now));
	assert_int_equal(breaker_phase(&b), BREAKER_CLOSED);
	calls(&half, 9, BREAKER_BAD);             /* what was counted before is forgotten */
	assert_true(call(&half, BREAKER_BAD));
}

static void a_bad_probe_costs_the_whole_recovery(void **state)
{
	(void)state;
	trip();
	now += 2500;
	assert_true(breaker_report(&b, &half, pass(BREAKER_PROBES), BREAKER_BAD, now));
	assert_int_equal(breaker_wait_ms(&b, now), 2000);
	now += 1999;
	pass(BREAKER_REFUSES);
	now += 1;
	pass(BREAKER_PROBES);
}

static void a_stopped_probe_costs_nothing(void **state)
{
	(void)state;
	trip();
	now += 2000;
	assert_true(breaker_report(&b, &half, pass(BREAKER_PROBES), BREAKER_UNSEEN, now));
	assert_int_equal(breaker_phase(&b), BREAKER_OPEN);
	pass(BREAKER_PROBES);
}

static void a_lost_probe_keeps_its_lease(void **state)
{
	struct breaker_ticket lost, next;

	(void)state;
	trip();
	now += 2000;
	assert_int_equal(breaker_admit(&b, now, 5000, &lost), BREAKER_PROBES);
	assert_false(breaker_report(&b, &half, lost, BREAKER_LOST, now));
	now += 4999;
	pass(BREAKER_REFUSES);
	now += 1;
	next = pass(BREAKER_PROBES);
	/* The first one reports after all: nobody waits for it any more. */
	assert_false(breaker_report(&b, &half, lost, BREAKER_BAD, now));
	assert_false(breaker_report(&b, &half, lost, BREAKER_GOOD, now));
	assert_int_equal(breaker_phase(&b), BREAKER_HALF_OPEN);
	assert_true(breaker_report(&b, &half, next, BREAKER_GOOD, now));
}

static void calls_of_an_earlier_epoch_change_nothing(void **state)
{
	struct breaker_ticket early[30], probe;

	(void)state;
	for (unsigned i = 0; i < 30; i++)
		early[i] = pass(BREAKER_PASSES);
	trip();
	for (unsigned i = 0; i < 10; i++)
		assert_false(breaker_report(&b, &half, early[i], BREAKER_BAD, now));
	now += 2000;
	probe = pass(BREAKER_PROBES);
	for (unsigned i = 10; i < 20; i++)
		assert_false(breaker_report(&b, &half, early[i], i % 2 ? BREAKER_BAD : BREAKER_GOOD, now));
	assert_true(breaker_report(&b, &half, probe, BREAKER_GOOD, now));
	for (unsigned i = 20; i < 30; i++)
		assert_false(breaker_report(&b, &half, early[i], BREAKER_BAD, now));
	assert_int_equal(breaker_phase(&b), BREAKER_CLOSED);
	/* Nor were they counted. */
	trip();
}

static void what_was_not_seen_is_not_counted(void **state)
{
	(void)state;
	calls(&half, 9, BREAKER_BAD);
	calls(&half, 20, BREAKER_LOST);
	calls(&half, 20, BREAKER_UNSEEN);
	assert_true(call(&half, BREAKER_BAD));
}

static void wait_is_what_is_left(void **state)
{
	(void)state;
	assert_int_equal(breaker_wait_ms(&b, now), 0);
	trip();
	assert_int_equal(breaker_wait_ms(&b, now + 1), 1999);
	assert_int_equal(breaker_wait_ms(&b, now + 2000), 0);
	now += 2000;
	pass(BREAKER_PROBES);
	assert_int_equal(breaker_wait_ms(&b, now), 0);
}

static void a_clock_that_is_behind_counts_too(void **state)
{
	struct breaker_ticket t = pass(BREAKER_PASSES);

	(void)state;
	now += 3000;
	calls(&half, 8, BREAKER_BAD);
	assert_false(breaker_report(&b, &half, t, BREAKER_BAD, now - 3000));
	assert_true(call(&half, BREAKER_BAD));
}

/* ---------- by several threads ---------- */

#define THREADS 4
#define ROUNDS 20000

static const struct breaker_rules quick = { .least = 8, .percent = 50, .window_ms = 1000, .recovery_ms = 50 };
static atomic_llong clock_of_all;
static atomic_int probing, most_probing, opened, closed;

static void *work(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		int64_t at = atomic_fetch_add(&clock_of_all, 1);
		struct breaker_ticket t;
		enum breaker_pass how = breaker_admit(&b, at, 1000000, &t);

		seed = seed * 1103515245 + 12345;
		if (how == BREAKER_REFUSES)
			continue;
		if (how == BREAKER_PROBES && atomic_fetch_add(&probing, 1) > 0)
			atomic_store(&most_probing, 2);
		/* It ends before the report: who reports frees the place of the next one. */
		if (how == BREAKER_PROBES)
			atomic_fetch_sub(&probing, 1);
		if (breaker_report(&b, &quick, t, seed >> 16 & 3 ? BREAKER_BAD : BREAKER_GOOD, at))
			atomic_fetch_add(breaker_is_probe(t) ? &closed : &opened, 1);
	}
	return NULL;
}

static void threads_share_it(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	atomic_store(&clock_of_all, START);
	breaker_init(&b, &quick, START);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&most_probing), 0);
	assert_true(atomic_load(&opened) > 0);
	assert_true(atomic_load(&closed) >= atomic_load(&opened) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(opens_at_the_least_number_of_calls, set_up),
		cmocka_unit_test_setup(opens_above_the_ratio_only, set_up),
		cmocka_unit_test_setup(all_bad_opens_at_100_percent, set_up),
		cmocka_unit_test_setup(calls_leave_the_window, set_up),
		cmocka_unit_test_setup(a_window_slides, set_up),
		cmocka_unit_test_setup(long_windows_count_much, set_up),
		cmocka_unit_test_setup(one_probe_after_recovery, set_up),
		cmocka_unit_test_setup(a_bad_probe_costs_the_whole_recovery, set_up),
		cmocka_unit_test_setup(a_stopped_probe_costs_nothing, set_up),
		cmocka_unit_test_setup(a_lost_probe_keeps_its_lease, set_up),
		cmocka_unit_test_setup(calls_of_an_earlier_epoch_change_nothing, set_up),
		cmocka_unit_test_setup(what_was_not_seen_is_not_counted, set_up),
		cmocka_unit_test_setup(wait_is_what_is_left, set_up),
		cmocka_unit_test_setup(a_clock_that_is_behind_counts_too, set_up),
		cmocka_unit_test_setup(threads_share_it, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
