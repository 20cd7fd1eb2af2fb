/*
 * test_rate_window.c -- the arithmetic of the sliding window, on an injected clock and with several threads.
 */
/* room: policy */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "policy/rate_window.h"

#define SECOND INT64_C(1000000)
#define DAY (24 * 3600 * SECOND)

static unsigned admit_many(struct rate_window *w, int64_t now_us, uint32_t threshold, unsigned n)
{
	unsigned admitted = 0;

	for (unsigned i = 0; i < n; i++)
		admitted += rate_window_admit(w, now_us, threshold);
	return admitted;
}

static void cold_burst_is_exact(void **state)
{
	static const uint32_t thresholds[] = { 1, 5, 100, 12345 };

	(void)state;
	for (unsigned i = 0; i < sizeof(thresholds) / sizeof(thresholds[0]); i++) {
		struct rate_window w = { 0 };
		uint32_t threshold = thresholds[i];

		rate_window_init(&w, 777777);
		assert_int_equal(admit_many(&w, 777777, threshold, threshold - 1), threshold - 1);
		assert_int_equal(admit_many(&w, 777777, threshold, 3), 1);
	}
}

/*
 * Whatever the phase of the burst within its slot, one second later all of it is forgotten and not earlier
 * than 0.9 s.
 */
static void a_second_later_all_pass(void **state)
{
	(void)state;
	for (int64_t start = 5 * SECOND; start < 5 * SECOND + 2 * RATE_SLOT_US; start += 997) {
		struct rate_window w = { 0 };

		rate_window_init(&w, start);
		assert_int_equal(admit_many(&w, start, 5, 8), 5);
		assert_int_equal(admit_many(&w, start + 900000, 5, 8), 0);
		assert_int_equal(admit_many(&w, start + SECOND, 5, 8), 5);
	}
}

static void idle_time_is_forgotten(void **state)
{
	static const int64_t pauses[] = { 2 * SECOND, 3600 * SECOND, 30 * DAY, 1200 * DAY, 1600 * DAY };
	struct rate_window w = { 0 };
	int64_t now = 1700 * DAY;

	(void)state;
	rate_window_init(&w, now);
	for (unsigned i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
		assert_int_equal(admit_many(&w, now, 7, 20), 7);
		now += pauses[i];
		assert_int_equal(admit_many(&w, now, 7, 20), 7);
		now += SECOND;
	}
}

/* Slot numbers wrap at 2^32; the window neither opens nor closes there. */
static void slots_wrap(void **state)
{
	int64_t wrap = (INT64_C(1) << 32) * RATE_SLOT_US, now = wrap - 3 * SECOND;
	struct rate_window w = { 0 };

	(void)state;
	rate_window_init(&w, now);
	for (unsigned i = 0; i < 6; i++, now += SECOND) {
		assert_int_equal(admit_many(&w, now, 3, 9), 3);
		assert_int_equal(admit_many(&w, now + 900000, 3, 9), 0);
	}
}

/* A thread whose cached clock lags counts into the newest slot. */
static void lagging_clock_opens_nothing(void **state)
{
	struct rate_window w = { 0 };
	int64_t now = 100 * SECOND;

	(void)state;
	rate_window_init(&w, now);
	assert_int_equal(admit_many(&w, now + 500000, 4, 2), 2);
	assert_int_equal(admit_many(&w, now, 4, 9), 2);
	assert_int_equal(admit_many(&w, now + 999999, 4, 9), 0);
	assert_int_equal(admit_many(&w, now + 500000 + SECOND, 4, 9), 4);
}

/*
 * Attempts come faster than they are admitted, with an irregular beat; times of the admitted ones are kept.
 */
static unsigned overload(struct rate_window *w, uint32_t threshold, int64_t duration_us, int64_t *times)
{
	int64_t now = 50 * SECOND + 12345, end = now + duration_us;
	uint32_t random = 1;
	unsigned n = 0;

	rate_window_init(w, now);
	while (now < end) {
		if (rate_window_admit(w, now, threshold))
			times[n++] = now;
		random = random * 1664525 + 1013904223;
		now += random >> 22;
	}
	return n;
}

static void sustained_overload_stays_within_its_bounds(void **state)
{
	static int64_t times[2000];
	const uint32_t threshold = 100;
	struct rate_window w = { 0 };

	(void)state;
	for (unsigned seconds = 1; seconds <= 10; seconds++) {
		unsigned n = overload(&w, threshold, seconds * SECOND, times);

		assert_true(n * 100 >= 95 * threshold * seconds);
		assert_true(n <= threshold * (seconds + 1));
		for (unsigned i = threshold; i < n; i++)
			assert_true(times[i] - times[i - threshold] >= 900000);
	}
}

/* Evenly spaced requests at the threshold are not refused. */
/* What is said to be used is what an admission at that moment goes by, and saying it changes nothing. */
static void looking_tells_what_an_admission_would_find(void **state)
{
	uint32_t random = 12345;
	struct rate_window w = { 0 };
	int64_t now_us = 3 * DAY;

	(void)state;
	rate_window_init(&w, now_us);
	for (unsigned i = 0; i < 20000; i++) {
		struct rate_window copy;

		random = random * 1664525 + 1013904223;
		now_us += random % 7 ? random >> 16 : random >> 9;
		memcpy(&copy, &w, sizeof(w));
		assert_int_equal(rate_window_used(&w, now_us) < 20, rate_window_admit(&copy, now_us, 20));
		if (random % 3)
			rate_window_admit(&w, now_us, 20);
	}
}

static void the_threshold_itself_passes(void **state)
{
	struct rate_window w = { 0 };
	unsigned refused = 0;

	(void)state;
	rate_window_init(&w, SECOND);
	for (unsigned i = 0; i < 1000; i++)
		refused += !rate_window_admit(&w, SECOND + i * SECOND / 100, 100);
	assert_int_equal(refused, 0);
}

#define THREADS 4
#define TRIES 20000

struct team {
	struct rate_window window;
	pthread_barrier_t start;
	_Atomic int64_t now_us;
	_Atomic unsigned admitted;
	uint32_t threshold;
	bool moves;
};

/* Each thread tries; the clock, when it moves, is pushed on by all of them. */
static void *try_often(void *arg)
{
	struct team *team = arg;
	unsigned admitted = 0;

	pthread_barrier_wait(&team->start);
	for (unsigned i = 0; i < TRIES; i++) {
		int64_t now = team->moves ? atomic_fetch_add(&team->now_us, 100) : atomic_load(&team->now_us);

		admitted += rate_window_admit(&team->window, now, team->threshold);
	}
	atomic_fetch_add(&team->admitted, admitted);
	return NULL;
}

static unsigned run_team(struct team *team)
{
	pthread_t threads[THREADS];

	atomic_store(&team->now_us, 40 * SECOND);
	rate_window_init(&team->window, 40 * SECOND);
	pthread_barrier_init(&team->start, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, try_often, team), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&team->start);
	return atomic_load(&team->admitted);
}

static void threads_share_one_count(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		struct team team = { .threshold = 1000 + round };

		assert_int_equal(run_team(&team), 1000 + round);
	}
}

/*
 * 80,000 tries over 8 seconds of a clock that all threads push: nothing is lost, nothing is admitted twice.
 */
static void threads_share_one_count_while_slots_change(void **state)
{
	struct team team = { .threshold = 500, .moves = true };
	unsigned admitted = run_team(&team);

	(void)state;
	assert_true(admitted >= 475 * 8);
	assert_true(admitted <= 500 * 9);
	assert_int_equal((uint32_t)atomic_load(&team.window.head), admitted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cold_burst_is_exact),
		cmocka_unit_test(a_second_later_all_pass),
		cmocka_unit_test(idle_time_is_forgotten),
		cmocka_unit_test(slots_wrap),
		cmocka_unit_test(lagging_clock_opens_nothing),
		cmocka_unit_test(sustained_overload_stays_within_its_bounds),
		cmocka_unit_test(looking_tells_what_an_admission_would_find),
		cmocka_unit_test(the_threshold_itself_passes),
		cmocka_unit_test(threads_share_one_count),
		cmocka_unit_test(threads_share_one_count_while_slots_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
