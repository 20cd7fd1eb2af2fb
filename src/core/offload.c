#include "core/offload.h"
#include <sys/resource.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fault.h"
#include "core/thread.h"

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

static void *serve(void *arg)
{
	struct offload *o = arg;

	/* Of a thread, here: where it is not allowed it stays as it is. */
	if (o->nice > 0)
		setpriority(PRIO_PROCESS, (id_t)gettid(), getpriority(PRIO_PROCESS, (id_t)gettid()) + o->nice);
	pthread_mutex_lock(&o->lock);
	for (;;) {
		while (list_is_empty(&o->queue) && !o->is_stopping)
			pthread_cond_wait(&o->work, &o->lock);
		if (list_is_empty(&o->queue))
			break;
		struct offload_job *j = CONTAINER(o->queue.next, struct offload_job, node);

		list_remove(&j->node);
		o->n_queued--;
		list_append(&o->running, &j->node);
		pthread_mutex_unlock(&o->lock);
		work_on(o, j);
		pthread_mutex_lock(&o->lock);
	}
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

static unsigned choose_threads(const struct offload *o)
{
	unsigned n = o->threads;

	if (n == 0)
		n = thread_cpus() > 1 ? thread_cpus() - 1 : 1;
	return n < OFFLOAD_THREADS_MAX ? n : OFFLOAD_THREADS_MAX;
}

/* Both locks are held. */
static void start(struct offload *o)
{
	unsigned wanted = choose_threads(o);

	list_init(&o->queue);
	list_init(&o->running);
	o->is_stopping = false;
	for (o->n_threads = 0; o->n_threads < wanted; o->n_threads++)
		o->ids[o->n_threads] = thread_start(o->name, serve, o);
	o->next = started;
	started = o;
}

static void start_once(struct offload *o)
{
	pthread_mutex_lock(&registry);
	pthread_mutex_lock(&o->lock);
	if (o->n_threads == 0)
		start(o);
	pthread_mutex_unlock(&o->lock);
	pthread_mutex_unlock(&registry);
}

/* The lock is held. */
static bool enqueue(struct offload *o, struct offload_job *j)
{
	if (o->is_stopping || o->n_queued >= o->queue_max)
		return false;
	list_append(&o->queue, &j->node);
	o->n_queued++;
	pthread_cond_signal(&o->work);
	return true;
}

bool offload_submit(struct offload *o, struct offload_job *j, struct loop *l)
{
	bool taken = false, has_threads;

	if (l == ending)
		return false;
	list_init(&j->node);
	j->loop = l;
	atomic_store_explicit(&j->is_cancelled, false, memory_order_relaxed);
	pthread_mutex_lock(&o->lock);
	has_threads = o->n_threads > 0;
	if (has_threads)
		taken = enqueue(o, j);
	pthread_mutex_unlock(&o->lock);
	if (has_threads)
		return taken;
	start_once(o);
	pthread_mutex_lock(&o->lock);
	taken = enqueue(o, j);
	pthread_mutex_unlock(&o->lock);
	return taken;
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
	LIST_EACH(node, &o->queue) {
		struct offload_job *j = CONTAINER(node, struct offload_job, node);

		if (l && j->loop != l)
			continue;
		list_remove(&j->node);
		o->n_queued--;
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
	pthread_mutex_lock(&o->lock);
	o->is_stopping = true;
	drop_queued(o, NULL);
	pthread_cond_broadcast(&o->work);
	pthread_mutex_unlock(&o->lock);
	for (unsigned i = 0; i < o->n_threads; i++)
		pthread_join(o->ids[i], NULL);
	pthread_mutex_lock(&o->lock);
	o->n_threads = 0;
	pthread_mutex_unlock(&o->lock);
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
