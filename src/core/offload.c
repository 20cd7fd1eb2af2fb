#include "core/offload.h"
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fault.h"
#include "core/thread.h"

#define STOP_US 3600000000                /* what is waited for at the end is not put off */

/* Pools that have threads; never taken while a pool's own lock is held. */
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct offload *started;
/* The loop of this thread that is about to end, or NULL: who posted to it later would meet freed memory. */
static _Thread_local const struct loop *ending;

static void finish(struct post *p)
{
	struct offload_job *j = CONTAINER(p, struct offload_job, post);

	j->over(j);
}

/* The job is the loop's from here on. */
static void give_back(struct offload_job *j, enum offload_end end)
{
	j->end = end;
	j->post.run = finish;
	loop_post(j->loop, &j->post);
}

static void work_on(struct offload *o, struct offload_job *j)
{
	enum offload_end end = OFFLOAD_RAN;

	if (offload_is_cancelled(j))
		end = OFFLOAD_DROPPED;
	else if (j->deadline_us && clock_now_us() > j->deadline_us)
		end = OFFLOAD_LATE;
	else
		j->run(j);
	pthread_mutex_lock(&o->lock);
	/* Off the list and handed over in one step: who waits for the list to be empty finds the job in the loop. */
	list_remove(&j->node);
	give_back(j, end);
	pthread_cond_broadcast(&o->idle);
	pthread_mutex_unlock(&o->lock);
}

/* The lock is held. */
static void collect(struct offload *o)
{
	for (struct inbox_item *item = inbox_take(&o->submitted), *following; item; item = following) {
		struct offload_job *j = CONTAINER(CONTAINER(item, struct post, item), struct offload_job, post);

		following = item->next;
		list_append(&o->queue, &j->node);
	}
}

/* The lock is held. */
static struct offload_job *take_job(struct offload *o)
{
	struct offload_job *j;

	collect(o);
	if (list_is_empty(&o->queue))
		return NULL;
	j = CONTAINER(o->queue.next, struct offload_job, node);
	list_remove(&j->node);
	list_append(&o->running, &j->node);
	atomic_fetch_sub_explicit(&o->n_waiting, 1, memory_order_relaxed);
	return j;
}

static void call(struct offload *o)
{
	BUG_ON(sem_post(&o->work) != 0 && errno != EOVERFLOW);
}

static bool set_class(pthread_t thread, int class)
{
	static const struct sched_param none = { 0 };

	return pthread_setschedparam(thread, class, &none) == 0;
}

static bool is_hurried(const struct offload *o)
{
	int64_t until_us = atomic_load_explicit(&o->hurried_until_us, memory_order_relaxed);

	return until_us && clock_now_us() < until_us;
}

/* Before a job. Its class may have been changed by offload_hurry(), so that is what is looked at. */
static void choose_class(const struct offload *o)
{
	int wanted = is_hurried(o) ? SCHED_OTHER : SCHED_IDLE;

	if (o->may_yield && sched_getscheduler(0) != wanted)
		set_class(pthread_self(), wanted);
}

/* Of the calling thread; where it is not allowed it stays as it is. */
static void lower_priority(const struct offload *o)
{
	if (o->nice > 0)
		setpriority(PRIO_PROCESS, (id_t)gettid(), getpriority(PRIO_PROCESS, (id_t)gettid()) + o->nice);
}

static void *serve(void *arg)
{
	struct offload *o = arg;

	lower_priority(o);
	while (!atomic_load_explicit(&o->is_stopping, memory_order_acquire)) {
		struct offload_job *j;

		if (sem_wait(&o->work) != 0)
			continue;
		choose_class(o);
		pthread_mutex_lock(&o->lock);
		j = take_job(o);
		pthread_mutex_unlock(&o->lock);
		if (j)
			work_on(o, j);
	}
	return NULL;
}

/* A thread that ends afterwards: who cannot leave the class has to stay in it. */
static void *try_class(void *arg)
{
	struct offload *o = arg;

	lower_priority(o);
	o->may_yield = set_class(pthread_self(), SCHED_IDLE) && set_class(pthread_self(), SCHED_OTHER);
	return NULL;
}

static unsigned choose_threads(const struct offload *o)
{
	unsigned n = o->threads;

	if (n == 0)
		n = thread_cpus() > 1 ? thread_cpus() - 1 : 1;
	return n < OFFLOAD_THREADS_MAX ? n : OFFLOAD_THREADS_MAX;
}

/* The registry is locked. */
static void start(struct offload *o)
{
	unsigned wanted = choose_threads(o);

	list_init(&o->queue);
	list_init(&o->running);
	BUG_ON(sem_init(&o->work, 0, 0) != 0);
	atomic_store(&o->is_stopping, false);
	atomic_store(&o->hurried_until_us, 0);
	o->may_yield = false;
	if (o->yields)
		pthread_join(thread_start(o->name, try_class, o), NULL);
	for (o->n_threads = 0; o->n_threads < wanted; o->n_threads++)
		o->ids[o->n_threads] = thread_start(o->name, serve, o);
	o->next = started;
	started = o;
	atomic_store_explicit(&o->is_started, true, memory_order_release);
}

static void start_once(struct offload *o)
{
	pthread_mutex_lock(&registry);
	if (!atomic_load(&o->is_started))
		start(o);
	pthread_mutex_unlock(&registry);
}

bool offload_submit(struct offload *o, struct offload_job *j, struct loop *l)
{
	if (l == ending)
		return false;
	if (!atomic_load_explicit(&o->is_started, memory_order_acquire))
		start_once(o);
	if (atomic_load_explicit(&o->is_stopping, memory_order_relaxed))
		return false;
	if (atomic_fetch_add_explicit(&o->n_waiting, 1, memory_order_relaxed) >= o->queue_max) {
		atomic_fetch_sub_explicit(&o->n_waiting, 1, memory_order_relaxed);
		return false;
	}
	list_init(&j->node);
	j->loop = l;
	atomic_store_explicit(&j->is_cancelled, false, memory_order_relaxed);
	inbox_put(&o->submitted, &j->post.item);
	call(o);
	return true;
}

void offload_hurry(struct offload *o, int64_t us)
{
	if (!o->may_yield)
		return;
	atomic_store_explicit(&o->hurried_until_us, clock_now_us() + us, memory_order_relaxed);
	for (unsigned i = 0; i < o->n_threads; i++)
		set_class(o->ids[i], us > 0 ? SCHED_OTHER : SCHED_IDLE);
}

void offload_cancel(struct offload_job *j)
{
	atomic_store_explicit(&j->is_cancelled, true, memory_order_relaxed);
}

bool offload_is_cancelled(const struct offload_job *j)
{
	return atomic_load_explicit(&j->is_cancelled, memory_order_relaxed);
}

/* The lock is held. */
static void drop_queued(struct offload *o, const struct loop *l)
{
	collect(o);
	LIST_EACH(node, &o->queue) {
		struct offload_job *j = CONTAINER(node, struct offload_job, node);

		if (l && j->loop != l)
			continue;
		list_remove(&j->node);
		atomic_fetch_sub_explicit(&o->n_waiting, 1, memory_order_relaxed);
		give_back(j, OFFLOAD_DROPPED);
	}
}

/* The lock is held. */
static bool runs_for(const struct offload *o, const struct loop *l)
{
	LIST_EACH(node, (struct list *)(uintptr_t)&o->running) {
		const struct offload_job *j = CONTAINER(node, struct offload_job, node);

		if (j->loop == l)
			return true;
	}
	return false;
}

static void settle(struct offload *o, const struct loop *l)
{
	offload_hurry(o, STOP_US);
	pthread_mutex_lock(&o->lock);
	drop_queued(o, l);
	while (runs_for(o, l))
		pthread_cond_wait(&o->idle, &o->lock);
	pthread_mutex_unlock(&o->lock);
}

void offload_settle(struct loop *l)
{
	ending = l;
	pthread_mutex_lock(&registry);
	for (struct offload *o = started; o; o = o->next)
		settle(o, l);
	pthread_mutex_unlock(&registry);
}

static void stop(struct offload *o)
{
	atomic_store_explicit(&o->is_stopping, true, memory_order_release);
	pthread_mutex_lock(&o->lock);
	drop_queued(o, NULL);
	pthread_mutex_unlock(&o->lock);
	offload_hurry(o, STOP_US);
	for (unsigned i = 0; i < o->n_threads; i++)
		call(o);
	for (unsigned i = 0; i < o->n_threads; i++)
		pthread_join(o->ids[i], NULL);
	sem_destroy(&o->work);
	o->n_threads = 0;
	atomic_store(&o->is_started, false);
}

void offload_stop_all(void)
{
	ending = NULL;
	pthread_mutex_lock(&registry);
	while (started) {
		struct offload *o = started;

		started = o->next;
		stop(o);
	}
	pthread_mutex_unlock(&registry);
}
