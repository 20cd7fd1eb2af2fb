/* test_thread.c -- birth of threads, and the inbox under many producers.
 * Run with -DSLUICE_SANITIZE=thread too: the inbox is shared between threads. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include "core/arena.h"
#include "core/list.h"
#include "core/mem.h"
#include "core/thread.h"

struct report {
	char name[16];
	sigset_t blocked;
	int cpus;
};

static void *look_around(void *arg)
{
	struct report *r = arg;
	struct arena a = { 0 };
	cpu_set_t set;

	pthread_getname_np(pthread_self(), r->name, sizeof(r->name));
	pthread_sigmask(SIG_BLOCK, NULL, &r->blocked);
	thread_pin(1000);
	pthread_getaffinity_np(pthread_self(), sizeof(set), &set);
	r->cpus = CPU_COUNT(&set);
	/* Leaves blocks in this thread's cache: the leak checker sees whether they go with it. */
	arena_take(&a, 100);
	arena_free(&a);
	return arg;
}

static void test_starts_named_and_deaf(void **state)
{
	struct report r;
	void *result;
	sigset_t own;

	(void)state;
	pthread_join(thread_start("a-name-that-is-too-long", look_around, &r), &result);
	assert_ptr_equal(result, &r);
	assert_string_equal(r.name, "a-name-that-is-");
	assert_true(sigismember(&r.blocked, SIGTERM));
	assert_true(sigismember(&r.blocked, SIGPIPE));
	assert_false(sigismember(&r.blocked, SIGSEGV));
	assert_int_equal(r.cpus, 1);
	pthread_sigmask(SIG_BLOCK, NULL, &own);
	assert_false(sigismember(&own, SIGTERM));
	assert_true(thread_cpus() >= 1);
}

static void *count_cpus(void *arg)
{
	cpu_set_t set;

	pthread_getaffinity_np(pthread_self(), sizeof(set), &set);
	*(int *)arg = CPU_COUNT(&set);
	return NULL;
}

static void *start_pinned(void *arg)
{
	thread_pin(0);
	pthread_join(thread_start("child", count_cpus, arg), NULL);
	return NULL;
}

/* Fails where there are several CPUs only. */
static void test_a_pin_is_not_handed_on(void **state)
{
	cpu_set_t set;
	int cpus = 0;

	(void)state;
	pthread_getaffinity_np(pthread_self(), sizeof(set), &set);
	pthread_join(thread_start("parent", start_pinned, &cpus), NULL);
	assert_int_equal(cpus, CPU_COUNT(&set));
}

struct letter {
	struct inbox_item item;
	unsigned sender, number;
};

static void put_letter(struct inbox *in, unsigned sender, unsigned number)
{
	struct letter *letter = MEM_NEW(struct letter);

	letter->sender = sender;
	letter->number = number;
	inbox_put(in, &letter->item);
}

static void test_takes_oldest_first(void **state)
{
	struct inbox in = { NULL };
	struct letter a = { .number = 1 }, b = { .number = 2 };

	(void)state;
	assert_null(inbox_take(&in));
	assert_true(inbox_put(&in, &a.item));
	assert_false(inbox_put(&in, &b.item));
	assert_ptr_equal(inbox_take(&in), &a.item);
	assert_ptr_equal(a.item.next, &b.item);
	assert_null(b.item.next);
	assert_true(inbox_put(&in, &a.item));
}

enum { SENDERS = 4, LETTERS = 10000 };

struct sender {
	struct inbox *inbox;
	unsigned number;
};

static void *send_letters(void *arg)
{
	const struct sender *s = arg;

	for (unsigned i = 0; i < LETTERS; i++)
		put_letter(s->inbox, s->number, i);
	return NULL;
}

static void test_many_producers(void **state)
{
	struct inbox in = { NULL };
	struct sender senders[SENDERS];
	pthread_t threads[SENDERS];
	unsigned next[SENDERS] = { 0 }, total = 0;

	(void)state;
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ &in, i };
		threads[i] = thread_start("sender", send_letters, &senders[i]);
	}
	while (total < SENDERS * LETTERS) {
		struct inbox_item *item = inbox_take(&in);

		if (!item)
			sched_yield();
		while (item) {
			struct letter *letter = CONTAINER(item, struct letter, item);

			item = item->next;
			assert_int_equal(letter->number, next[letter->sender]);
			next[letter->sender]++;
			total++;
			mem_free(letter);
		}
	}
	for (unsigned i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	assert_null(inbox_take(&in));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starts_named_and_deaf),
		cmocka_unit_test(test_a_pin_is_not_handed_on),
		cmocka_unit_test(test_takes_oldest_first),
		cmocka_unit_test(test_many_producers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
