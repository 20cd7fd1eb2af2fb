/* test_loop.c -- turns, wake-ups from other threads, and events of things removed meanwhile.
 * Run with -DSLUICE_SANITIZE=thread too: the wake-up is shared between threads. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/thread.h"

static _Atomic unsigned writes;

/* In place of the C library's: counts the system calls that a wake-up makes. */
ssize_t write(int fd, const void *bytes, size_t size)
{
	writes++;
	return syscall(SYS_write, fd, bytes, size);
}

struct end {
	struct watch watch;
	struct end *other;                 /* removed when this one becomes ready */
	struct loop *loop;
	unsigned calls;
	uint32_t events;
};

static void note_events(struct watch *w, uint32_t events)
{
	struct end *e = (struct end *)w;

	e->calls++;
	e->events |= events;
	if (e->other)
		loop_remove(e->loop, &e->other->watch);
}

static void open_pipe(int fds[2])
{
	assert_int_equal(pipe(fds), 0);
}

static void close_pipe(const int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

static void test_delivers_edges_once(void **state)
{
	struct loop *l = loop_new();
	struct end e = { .loop = l };
	int fds[2];

	(void)state;
	open_pipe(fds);
	e.watch = (struct watch){ fds[0], note_events };
	assert_true(loop_add(l, &e.watch, 0));
	assert_false(loop_add(l, &e.watch, 0));
	loop_run_once(l, 0);
	assert_int_equal(e.calls, 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	loop_run_once(l, -1);
	assert_int_equal(e.calls, 1);
	assert_true(e.events & EPOLLIN);
	loop_run_once(l, 0);
	assert_int_equal(e.calls, 1);
	assert_true(loop_modify(l, &e.watch, EPOLLIN));
	loop_run_once(l, 0);
	loop_run_once(l, 0);
	assert_int_equal(e.calls, 3);
	loop_remove(l, &e.watch);
	loop_run_once(l, 0);
	assert_int_equal(e.calls, 3);
	close_pipe(fds);
	loop_free(l);
}

static void test_no_event_after_remove_in_the_same_turn(void **state)
{
	struct loop *l = loop_new();
	struct end a = { .loop = l }, b = { .loop = l };
	int first[2], second[2];

	(void)state;
	open_pipe(first);
	open_pipe(second);
	a.watch = (struct watch){ first[0], note_events };
	b.watch = (struct watch){ second[0], note_events };
	a.other = &b;
	b.other = &a;
	assert_true(loop_add(l, &a.watch, 0));
	assert_true(loop_add(l, &b.watch, 0));
	assert_int_equal(write(first[1], "x", 1), 1);
	assert_int_equal(write(second[1], "x", 1), 1);
	loop_run_once(l, -1);
	assert_int_equal(a.calls + b.calls, 1);
	close_pipe(first);
	close_pipe(second);
	loop_free(l);
}

struct job {
	struct task task;
	struct loop *loop;
	unsigned runs, again;
	struct garbage garbage;
	unsigned released;
};

static void work(struct task *t)
{
	struct job *j = (struct job *)t;

	j->runs++;
	assert_int_equal(j->released, 0);
	if (j->again) {
		j->again--;
		loop_defer(j->loop, t);
	}
}

static void release(struct garbage *g)
{
	CONTAINER(g, struct job, garbage)->released++;
}

static void test_ready_list_and_garbage(void **state)
{
	struct loop *l = loop_new();
	struct job j = { .loop = l, .again = 1, .garbage.release = release };

	(void)state;
	task_init(&j.task, work);
	loop_defer(l, &j.task);
	loop_defer(l, &j.task);
	/* With something to do it does not wait, whatever it may. */
	loop_run_once(l, -1);
	assert_int_equal(j.runs, 1);
	loop_free_later(l, &j.garbage);
	loop_run_once(l, -1);
	assert_int_equal(j.runs, 2);
	assert_int_equal(j.released, 1);
	loop_run_once(l, 0);
	assert_int_equal(j.runs, 2);
	assert_int_equal(j.released, 1);
	j.released = 0;
	loop_free_later(l, &j.garbage);
	loop_free(l);
	assert_int_equal(j.released, 1);
}

struct bell {
	struct timer timer;
	struct loop *loop;
	unsigned rings;
};

static void ring(struct timer *t)
{
	struct bell *b = (struct bell *)t;

	b->rings++;
	loop_stop(b->loop);
}

static void test_timers_follow_the_injected_clock(void **state)
{
	struct bell b = { 0 };

	(void)state;
	clock_set(INT64_C(7000000000), 0);
	b.loop = loop_new();
	timer_init(&b.timer, ring);
	loop_arm(b.loop, &b.timer, 3600000);
	clock_set(INT64_C(7000000000) + INT64_C(3599999000), 0);
	loop_run_once(b.loop, 0);
	assert_int_equal(b.rings, 0);
	clock_set(INT64_C(7000000000) + INT64_C(3600000000), 0);
	loop_run_once(b.loop, -1);
	assert_int_equal(b.rings, 1);
	clock_set_real();
	loop_free(b.loop);
}

static void test_waits_for_a_timer(void **state)
{
	struct bell b = { .loop = loop_new() };
	int64_t armed_us;

	(void)state;
	timer_init(&b.timer, ring);
	clock_update();
	armed_us = clock_us();
	loop_arm(b.loop, &b.timer, 5);
	loop_run(b.loop, NULL, NULL);
	assert_int_equal(b.rings, 1);
	assert_true(clock_us() >= armed_us + 5000);
	loop_free(b.loop);
}

static void test_wakes_without_calls_while_awake(void **state)
{
	struct loop *l = loop_new();

	(void)state;
	writes = 0;
	for (unsigned i = 0; i < 1000; i++)
		loop_wake(l);
	assert_int_equal(writes, 0);
	/* Would wait for ever if the wake-up were lost. */
	loop_run_once(l, -1);
	loop_free(l);
}

struct worker {
	struct loop *loop;
	struct inbox inbox;
	sem_t taken;
	unsigned total, stop_at;
};

static void take_all(void *arg)
{
	struct worker *w = arg;

	for (struct inbox_item *item = inbox_take(&w->inbox), *next; item; item = next) {
		next = item->next;
		mem_free(item);
		w->total++;
		sem_post(&w->taken);
	}
	if (w->total == w->stop_at)
		loop_stop(w->loop);
}

static void *run_worker(void *arg)
{
	struct worker *w = arg;

	loop_run(w->loop, take_all, w);
	return NULL;
}

static void hand_over(struct worker *w)
{
	if (inbox_put(&w->inbox, MEM_NEW(struct inbox_item)))
		loop_wake(w->loop);
}

static void test_no_wake_up_is_lost(void **state)
{
	enum { ROUNDS = 3000, BURST = 5 };
	struct worker w = { .loop = loop_new(), .stop_at = ROUNDS + ROUNDS * BURST };

	(void)state;
	sem_init(&w.taken, 0, 0);
	pthread_t thread = thread_start("worker", run_worker, &w);

	for (unsigned i = 0; i < ROUNDS; i++) {
		hand_over(&w);
		sem_wait(&w.taken);
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		for (unsigned n = 0; n < BURST; n++)
			hand_over(&w);
		for (unsigned n = 0; n < BURST; n++)
			sem_wait(&w.taken);
	}
	pthread_join(thread, NULL);
	assert_int_equal(w.total, w.stop_at);
	sem_destroy(&w.taken);
	loop_free(w.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delivers_edges_once),
		cmocka_unit_test(test_no_event_after_remove_in_the_same_turn),
		cmocka_unit_test(test_ready_list_and_garbage),
		cmocka_unit_test(test_timers_follow_the_injected_clock),
		cmocka_unit_test(test_waits_for_a_timer),
		cmocka_unit_test(test_wakes_without_calls_while_awake),
		cmocka_unit_test(test_no_wake_up_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
