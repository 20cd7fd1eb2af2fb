/* test_offload.c -- slow work beside a loop: every job comes back once, on the loop's thread, whatever becomes of it.
 * Run with -DSLUICE_SANITIZE=thread too: jobs are handed between threads. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"
#include "core/offload.h"

struct sum {
	struct offload_job job;
	unsigned n;
	uint64_t result;
	pthread_t ran_on, over_on;
	unsigned times_over;
	atomic_bool *gate;                /* run waits for it */
	atomic_int *running;
};

static struct loop *loop;
static unsigned n_over;

static void add_up(struct offload_job *j)
{
	struct sum *s = CONTAINER(j, struct sum, job);

	s->ran_on = pthread_self();
	if (s->running)
		atomic_fetch_add(s->running, 1);
	while (s->gate && !atomic_load(s->gate))
		usleep(1000);
	for (unsigned i = 1; i <= s->n; i++)
		s->result += i;
}

static void over(struct offload_job *j)
{
	struct sum *s = CONTAINER(j, struct sum, job);

	s->over_on = pthread_self();
	s->times_over++;
	n_over++;
}

static void prepare(struct sum *s, unsigned n)
{
	*s = (struct sum){ .n = n };
	s->job.run = add_up;
	s->job.over = over;
}

/* A test that hangs here fails by its time limit. */
static void run_until(unsigned wanted)
{
	while (n_over < wanted)
		loop_run_once(loop, 1000);
}

static int setup(void **state)
{
	(void)state;
	n_over = 0;
	loop = loop_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	offload_stop_all();
	loop_free(loop);
	return 0;
}

static void test_results_come_back_on_the_loop(void **state)
{
	static struct offload pool = OFFLOAD_POOL("sum", 3, 1000);
	static struct sum sums[500];

	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		prepare(&sums[i], i);
		assert_true(offload_submit(&pool, &sums[i].job, loop));
	}
	run_until(500);
	for (unsigned i = 0; i < 500; i++) {
		assert_int_equal(sums[i].result, (uint64_t)i * (i + 1) / 2);
		assert_int_equal(sums[i].job.end, OFFLOAD_RAN);
		assert_int_equal(sums[i].times_over, 1);
		assert_true(pthread_equal(sums[i].over_on, pthread_self()));
		assert_false(pthread_equal(sums[i].ran_on, pthread_self()));
	}
}

static void wait_for(atomic_int *count, int wanted)
{
	while (atomic_load(count) < wanted)
		sched_yield();
}

static void test_a_full_queue_refuses(void **state)
{
	static struct offload pool = OFFLOAD_POOL("full", 1, 2);
	static struct sum sums[4];
	atomic_bool gate = false;
	atomic_int running = 0;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		prepare(&sums[i], 10);
		sums[i].gate = &gate;
		sums[i].running = &running;
	}
	assert_true(offload_submit(&pool, &sums[0].job, loop));
	wait_for(&running, 1);
	assert_true(offload_submit(&pool, &sums[1].job, loop));
	assert_true(offload_submit(&pool, &sums[2].job, loop));
	assert_false(offload_submit(&pool, &sums[3].job, loop));
	atomic_store(&gate, true);
	run_until(3);
	assert_int_equal(sums[3].times_over, 0);
	assert_true(offload_submit(&pool, &sums[3].job, loop));
	run_until(4);
	assert_int_equal(sums[3].result, 55);
}

static void test_late_and_cancelled_jobs_do_not_run(void **state)
{
	static struct offload pool = OFFLOAD_POOL("late", 1, 9);
	static struct sum blocker, late, unwanted;
	atomic_bool gate = false;
	atomic_int running = 0;

	(void)state;
	prepare(&blocker, 1);
	blocker.gate = &gate;
	blocker.running = &running;
	prepare(&late, 1);
	late.job.deadline_us = clock_now_us() - 1;
	prepare(&unwanted, 1);
	assert_true(offload_submit(&pool, &blocker.job, loop));
	wait_for(&running, 1);
	assert_true(offload_submit(&pool, &late.job, loop));
	assert_true(offload_submit(&pool, &unwanted.job, loop));
	offload_cancel(&unwanted.job);
	atomic_store(&gate, true);
	run_until(3);
	assert_int_equal(late.job.end, OFFLOAD_LATE);
	assert_int_equal(late.result, 0);
	assert_int_equal(unwanted.job.end, OFFLOAD_DROPPED);
	assert_int_equal(unwanted.result, 0);
}

static void *open_later(void *gate)
{
	usleep(20000);
	atomic_store((atomic_bool *)gate, true);
	return NULL;
}

static void test_a_loop_that_ends_gets_everything_back(void **state)
{
	static struct offload pool = OFFLOAD_POOL("settle", 1, 9);
	static struct sum sums[5], other;
	struct loop *second = loop_new();
	atomic_bool gate = false;
	atomic_int running = 0;
	pthread_t opener;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		prepare(&sums[i], 3);
		sums[i].gate = &gate;
		sums[i].running = &running;
		assert_true(offload_submit(&pool, &sums[i].job, loop));
	}
	prepare(&other, 3);
	assert_true(offload_submit(&pool, &other.job, second));
	wait_for(&running, 1);
	pthread_create(&opener, NULL, open_later, &gate);
	offload_settle(loop);
	assert_int_equal(n_over, 0);
	loop_run_once(loop, 0);
	assert_int_equal(n_over, 5);
	assert_int_equal(sums[0].result, 6);
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(sums[i].job.end, OFFLOAD_DROPPED);
	/* It gives nothing more away: nobody would be there to take it back. */
	prepare(&sums[0], 3);
	assert_false(offload_submit(&pool, &sums[0].job, loop));
	while (other.times_over == 0)
		loop_run_once(second, 1000);
	assert_int_equal(other.result, 6);
	pthread_join(opener, NULL);
	loop_free(second);
}

static void note_class(struct offload_job *j)
{
	struct sum *s = CONTAINER(j, struct sum, job);

	s->result = (uint64_t)sched_getscheduler(0);
}

static uint64_t class_of_job(struct offload *pool)
{
	static struct sum one;

	prepare(&one, 0);
	one.job.run = note_class;
	assert_true(offload_submit(pool, &one.job, loop));
	run_until(n_over + 1);
	return one.result;
}

static void *leave_class(void *arg)
{
	static const struct sched_param none = { 0 };

	*(bool *)arg = pthread_setschedparam(pthread_self(), SCHED_IDLE, &none) == 0 &&
		       pthread_setschedparam(pthread_self(), SCHED_OTHER, &none) == 0;
	return NULL;
}

/* The lowest class there is, where the process can leave it again: for as long as the pool has to hurry. */
static void test_a_pool_yields_unless_it_is_hurried(void **state)
{
	static struct offload yielding = OFFLOAD_POOL("yielding", 1, 9, .yields = true);
	static struct offload plain = OFFLOAD_POOL("plain", 1, 9, .nice = 5);
	bool can_leave;
	pthread_t thread;

	(void)state;
	pthread_create(&thread, NULL, leave_class, &can_leave);
	pthread_join(thread, NULL);
	assert_int_equal(class_of_job(&plain), SCHED_OTHER);
	assert_int_equal(class_of_job(&yielding), can_leave ? SCHED_IDLE : SCHED_OTHER);
	offload_hurry(&yielding, 60000000);
	offload_hurry(&plain, 60000000);
	assert_int_equal(class_of_job(&yielding), SCHED_OTHER);
	assert_int_equal(class_of_job(&plain), SCHED_OTHER);
	offload_hurry(&yielding, 0);
	assert_int_equal(class_of_job(&yielding), can_leave ? SCHED_IDLE : SCHED_OTHER);
}

static void note_both(struct offload_job *j)
{
	struct sum *s = CONTAINER(j, struct sum, job);

	atomic_fetch_add(s->running, 1);
	while (sched_getscheduler(0) != SCHED_OTHER)
		usleep(1000);
}

/* A test that hangs here fails by its time limit. */
static void test_a_job_under_way_is_hurried_too(void **state)
{
	static struct offload pool = OFFLOAD_POOL("under-way", 1, 9, .yields = true);
	static struct sum one;
	atomic_int running = 0;

	(void)state;
	prepare(&one, 0);
	one.job.run = note_both;
	one.running = &running;
	assert_true(offload_submit(&pool, &one.job, loop));
	wait_for(&running, 1);
	offload_hurry(&pool, 60000000);
	run_until(1);
}

static void test_stops_and_starts_again(void **state)
{
	static struct offload pool = OFFLOAD_POOL("again", 2, 9);
	static struct sum first, second;

	(void)state;
	prepare(&first, 4);
	assert_true(offload_submit(&pool, &first.job, loop));
	run_until(1);
	offload_stop_all();
	prepare(&second, 4);
	assert_true(offload_submit(&pool, &second.job, loop));
	run_until(2);
	assert_int_equal(second.result, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_results_come_back_on_the_loop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_queue_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_late_and_cancelled_jobs_do_not_run, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_loop_that_ends_gets_everything_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_pool_yields_unless_it_is_hurried, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_job_under_way_is_hurried_too, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stops_and_starts_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
