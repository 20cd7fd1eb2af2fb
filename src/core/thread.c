#include "core/thread.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include "core/arena.h"
#include "core/fault.h"
#include "core/mem.h"

struct birth {
	void *(*run)(void *);
	void *arg;
	char name[16];                             /* what the kernel keeps of it */
};

/* False: not known. */
static bool read_usable(cpu_set_t *set)
{
	CPU_ZERO(set);
	/* Of the main thread, which is never pinned. A machine with more CPUs than a cpu_set_t holds counts as one. */
	if (sched_getaffinity(getpid(), sizeof(*set), set) == 0 && CPU_COUNT(set) > 0)
		return true;
	CPU_SET(0, set);
	return false;
}

/* Who starts a thread may be pinned, and would hand that on. */
static void leave_pin(void)
{
	cpu_set_t usable;

	if (read_usable(&usable))
		pthread_setaffinity_np(pthread_self(), sizeof(usable), &usable);
}

static void *live(void *arg)
{
	struct birth birth = *(struct birth *)arg;

	mem_free(arg);
	pthread_setname_np(pthread_self(), birth.name);
	leave_pin();
	void *result = birth.run(birth.arg);

	arena_drop_cache();
	return result;
}

/* Signals are the main thread's; those a thread brings on itself must still reach their handlers. */
static void fill_blocked(sigset_t *set)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGPROF };

	sigfillset(set);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(set, own[i]);
}

pthread_t thread_start(const char *name, void *(*run)(void *), void *arg)
{
	struct birth *birth = MEM_NEW(struct birth);
	sigset_t blocked, before;
	pthread_t thread;

	birth->run = run;
	birth->arg = arg;
	snprintf(birth->name, sizeof(birth->name), "%s", name);
	fill_blocked(&blocked);
	pthread_sigmask(SIG_BLOCK, &blocked, &before);
	int failed = pthread_create(&thread, NULL, live, birth);

	pthread_sigmask(SIG_SETMASK, &before, NULL);
	BUG_ON(failed);
	return thread;
}

void thread_pin(int cpu)
{
	cpu_set_t usable, one;

	read_usable(&usable);
	int nth = cpu % CPU_COUNT(&usable);

	for (size_t i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &usable) || nth-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
		return;
	}
}

unsigned thread_cpus(void)
{
	cpu_set_t usable;

	read_usable(&usable);
	return (unsigned)CPU_COUNT(&usable);
}

bool inbox_put(struct inbox *in, struct inbox_item *item)
{
	struct inbox_item *head = atomic_load_explicit(&in->head, memory_order_relaxed);

	do {
		item->next = head;
	} while (!atomic_compare_exchange_weak_explicit(&in->head, &head, item, memory_order_release,
							memory_order_relaxed));
	/* Not item->next: the taker may own the item by now. */
	return head == NULL;
}

struct inbox_item *inbox_take(struct inbox *in)
{
	if (!atomic_load_explicit(&in->head, memory_order_relaxed))
		return NULL;
	struct inbox_item *newest_first = atomic_exchange_explicit(&in->head, NULL, memory_order_acquire);
	struct inbox_item *oldest_first = NULL;

	while (newest_first) {
		struct inbox_item *item = newest_first;

		newest_first = item->next;
		item->next = oldest_first;
		oldest_first = item;
	}
	return oldest_first;
}
