/* test_timer.c -- never early, at most one run late, whatever the distance and the jumps of the clock. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "core/mem.h"
#include "core/timer.h"

struct alarm {
	struct timer timer;
	unsigned fired;
	int64_t expected_ms;
};

static struct timer_wheel *wheel;
static int64_t now_ms, previous_ms;

static void note(struct timer *t)
{
	((struct alarm *)t)->fired++;
}

/* Due after the run before this one, and not before this one. */
static void check_time(struct timer *t)
{
	struct alarm *a = (struct alarm *)t;

	a->fired++;
	assert_true(a->expected_ms <= now_ms);
	assert_true(a->expected_ms > previous_ms);
}

static void run(int64_t at_ms)
{
	previous_ms = now_ms;
	now_ms = at_ms;
	timer_run(wheel, now_ms);
}

static int open_wheel(void **state)
{
	(void)state;
	now_ms = previous_ms = 1000003;
	wheel = timer_wheel_new(now_ms);
	return 0;
}

static int close_wheel(void **state)
{
	(void)state;
	timer_wheel_free(wheel);
	return 0;
}

static void test_fires_at_its_time(void **state)
{
	static const int64_t delays_ms[] = {
		1, 2, 63, 64, 65, 100, 4095, 4096, 4097, 60000, 262144, 3600000, 86400000, INT64_C(31536000000),
	};
	struct alarm a;

	(void)state;
	timer_init(&a.timer, note);
	for (size_t i = 0; i < sizeof(delays_ms) / sizeof(delays_ms[0]); i++) {
		int64_t due_ms = now_ms + delays_ms[i];

		a.fired = 0;
		timer_arm(wheel, &a.timer, due_ms);
		run(due_ms - 1);
		assert_int_equal(a.fired, 0);
		run(due_ms);
		assert_int_equal(a.fired, 1);
		assert_int_equal(a.timer.deadline_ms, 0);
		assert_int_equal(timer_next_ms(wheel, now_ms), -1);
	}
}

static void test_past_deadline_fires_in_the_next_run(void **state)
{
	struct alarm a = { 0 };

	(void)state;
	timer_init(&a.timer, note);
	timer_arm(wheel, &a.timer, now_ms - 500);
	assert_int_equal(timer_next_ms(wheel, now_ms), 0);
	run(now_ms);
	assert_int_equal(a.fired, 1);
	timer_arm(wheel, &a.timer, 0);
	run(now_ms);
	assert_int_equal(a.fired, 2);
}

static void test_moves_and_disarms(void **state)
{
	struct alarm a = { 0 };

	(void)state;
	timer_init(&a.timer, note);
	timer_disarm(&a.timer);
	timer_arm(wheel, &a.timer, now_ms + 100);
	timer_arm(wheel, &a.timer, now_ms + 5000);
	run(now_ms + 4999);
	assert_int_equal(a.fired, 0);
	timer_arm(wheel, &a.timer, now_ms + 100000);
	timer_arm(wheel, &a.timer, now_ms + 10);
	run(now_ms + 10);
	assert_int_equal(a.fired, 1);
	timer_arm(wheel, &a.timer, now_ms + 10);
	timer_disarm(&a.timer);
	assert_int_equal(timer_next_ms(wheel, now_ms), -1);
	run(now_ms + 1000000);
	assert_int_equal(a.fired, 1);
}

static void test_moving_later_does_not_relink(void **state)
{
	struct alarm a = { 0 };

	(void)state;
	timer_init(&a.timer, note);
	timer_arm(wheel, &a.timer, now_ms + 1000);
	int64_t slot_ms = a.timer.slot_ms;
	const struct list *next = a.timer.node.next;

	timer_arm(wheel, &a.timer, now_ms + 60000);
	assert_int_equal(a.timer.slot_ms, slot_ms);
	assert_ptr_equal(a.timer.node.next, next);
	timer_disarm(&a.timer);
}

static uint32_t next_random(void)
{
	static uint32_t seed = 99;

	seed = seed * 1664525 + 1013904223;
	return seed >> 4;
}

static void test_many_random_timers(void **state)
{
	enum { ALARMS = 2000 };
	struct alarm *alarms = mem_alloc(ALARMS * sizeof(*alarms));
	unsigned armed = 0, fired = 0;

	(void)state;
	for (unsigned i = 0; i < ALARMS; i++) {
		struct alarm *a = &alarms[i];

		timer_init(&a->timer, check_time);
		a->expected_ms = now_ms + 1 + next_random() % (1u << (next_random() % 24));
		timer_arm(wheel, &a->timer, a->expected_ms);
		armed++;
		if (i % 3 == 0) {
			a->expected_ms = now_ms + 1 + next_random() % (1u << (next_random() % 24));
			timer_arm(wheel, &a->timer, a->expected_ms);
		}
		if (i % 50 == 0) {
			timer_disarm(&a->timer);
			armed--;
		}
		if (i % 7 == 0)
			run(now_ms + next_random() % 5);
	}
	int64_t wait_ms;

	/* Sleeping as long as the wheel says, plus a little, must never make a timer late. */
	while ((wait_ms = timer_next_ms(wheel, now_ms)) >= 0) {
		int64_t earliest_ms = INT64_MAX;

		for (unsigned i = 0; i < ALARMS; i++)
			if (alarms[i].timer.deadline_ms && alarms[i].timer.deadline_ms < earliest_ms)
				earliest_ms = alarms[i].timer.deadline_ms;
		assert_true(now_ms + wait_ms <= earliest_ms);
		run(now_ms + wait_ms + next_random() % 3);
	}
	for (unsigned i = 0; i < ALARMS; i++)
		fired += alarms[i].fired;
	assert_int_equal(fired, armed);
	mem_free(alarms);
}

struct chain {
	struct timer timer;
	struct alarm *victim;
	struct alarm *freed;
	unsigned fired;
};

static void meddle(struct timer *t)
{
	struct chain *c = (struct chain *)t;

	c->fired++;
	timer_disarm(&c->victim->timer);
	if (c->freed) {
		timer_disarm(&c->freed->timer);
		mem_free(c->freed);
		c->freed = NULL;
	}
	timer_arm(wheel, t, now_ms);
}

static void test_callbacks_may_change_timers_of_the_slot(void **state)
{
	struct alarm victim = { 0 };
	struct chain c = { .victim = &victim, .freed = mem_alloc(sizeof(struct alarm)) };

	(void)state;
	timer_init(&c.timer, meddle);
	timer_init(&victim.timer, note);
	timer_init(&c.freed->timer, note);
	timer_arm(wheel, &c.timer, now_ms + 10);
	timer_arm(wheel, &c.freed->timer, now_ms + 10);
	timer_arm(wheel, &victim.timer, now_ms + 10);
	run(now_ms + 10);
	assert_int_equal(victim.fired, 0);
	/* Armed again for the present: once a run, not for ever in this one. */
	assert_int_equal(c.fired, 1);
	run(now_ms);
	assert_int_equal(c.fired, 2);
	timer_disarm(&c.timer);
}

static void test_a_long_deadline_costs_few_wakes(void **state)
{
	struct alarm a = { 0 };
	unsigned wakes = 0;
	int64_t wait_ms;

	(void)state;
	timer_init(&a.timer, note);
	timer_arm(wheel, &a.timer, now_ms + 7 * 3600 * 1000);
	while ((wait_ms = timer_next_ms(wheel, now_ms)) >= 0) {
		run(now_ms + wait_ms);
		wakes++;
	}
	assert_int_equal(a.fired, 1);
	assert_true(wakes <= 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fires_at_its_time, open_wheel, close_wheel),
		cmocka_unit_test_setup_teardown(test_past_deadline_fires_in_the_next_run, open_wheel, close_wheel),
		cmocka_unit_test_setup_teardown(test_moves_and_disarms, open_wheel, close_wheel),
		cmocka_unit_test_setup_teardown(test_moving_later_does_not_relink, open_wheel, close_wheel),
		cmocka_unit_test_setup_teardown(test_many_random_timers, open_wheel, close_wheel),
		cmocka_unit_test_setup_teardown(test_callbacks_may_change_timers_of_the_slot, open_wheel, close_wheel),
		cmocka_unit_test_setup_teardown(test_a_long_deadline_costs_few_wakes, open_wheel, close_wheel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
