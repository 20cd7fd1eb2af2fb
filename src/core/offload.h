/*
 * offload.h -- slow work (password hashes, rule engines) on threads of its own, so that no loop waits for it.
 *
 *      loop's thread                         a thread of the pool
 *      offload_submit ──► bounded queue ───► run
 *      over ◄──── the loop's posts ◄──────── done
 *
 * A pool is for one kind of work, so that a flood of one kind leaves the others alone. It is a static object; its
 * threads start with the first job and end in offload_stop_all(). A full queue refuses at once: that is the bound on
 * memory and on how old an answer can be.
 *
 * A loop never waits for a thread of a pool, which may have been put off the processor: submit takes no lock.
 *
 * A job belongs to the pool from submit until `over`, which is called exactly once, on the loop's thread, whatever
 * became of the job. What `run` needs must be in the job (or immutable and held by it): it runs beside the loop, and
 * may still run when whoever asked has gone. Pool threads do not log and do not count metrics.
 */
#pragma once
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "core/list.h"
#include "core/loop.h"

#define OFFLOAD_THREADS_MAX 16

/* LATE: its turn came after the deadline. DROPPED: cancelled, or the pool was stopped. Both: not run. */
enum offload_end { OFFLOAD_RAN, OFFLOAD_LATE, OFFLOAD_DROPPED };

struct offload_job {
	void (*run)(struct offload_job *j);
	void (*over)(struct offload_job *j);
	int64_t deadline_us;              /* clock_now_us(): not begun by then is not run; 0 = none */
	enum offload_end end;             /* for `over` */
	/* private */
	atomic_bool is_cancelled;
	struct loop *loop;
	struct list node;
	struct post post;
};

struct offload {
	const char *name;                 /* of its threads */
	unsigned threads;                 /* 0: one for each CPU but one, at least 1, at most OFFLOAD_THREADS_MAX */
	unsigned queue_max;               /* jobs that wait */
	int nice;                         /* of its threads, above the process's: 0 .. 19 */
	/*
	 * Beyond that, its threads compute only where no other thread wants the processor, and stop at once when one
	 * does (SCHED_IDLE). On a machine that is never idle they would not get far: see offload_hurry(). Only where
	 * the process may give that class up again; elsewhere they have their `nice`.
	 */
	bool yields;
	/* private */
	pthread_mutex_t lock;             /* between its threads; loops take it at their end only */
	pthread_cond_t idle;
	sem_t work;                       /* at least one for each job that a thread should look for */
	struct inbox submitted;           /* of struct offload_job.post */
	struct list queue, running;       /* struct offload_job */
	atomic_uint n_waiting;            /* in both */
	atomic_bool is_started, is_stopping;
	atomic_llong hurried_until_us;
	bool may_yield;
	unsigned n_threads;
	pthread_t ids[OFFLOAD_THREADS_MAX];
	struct offload *next;             /* of all that were started */
};
/* More members may follow: .nice = 5 */
#define OFFLOAD_POOL(name_, threads_, queue_max_, ...) { .name = (name_), .threads = (threads_), \
	.queue_max = (queue_max_), .lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER, __VA_ARGS__ }

/* False: the queue is full, or the pool is stopping; nothing was taken. run, over and deadline_us are set. */
bool offload_submit(struct offload *o, struct offload_job *j, struct loop *l);
/* The result is not wanted any more: `over` still comes. `run` may look (offload_is_cancelled) and end early. */
void offload_cancel(struct offload_job *j);
bool offload_is_cancelled(const struct offload_job *j);
/*
 * Of a pool that yields: its threads do not get on, as others want all there is of the processor. For so long they
 * have their `nice` and no more; the jobs that they run now go on so too. Any thread.
 */
void offload_hurry(struct offload *o, int64_t us);
/*
 * Before a loop ends, on its thread: drops what it has in the queues of all pools and waits until nothing of it runs.
 * `over` of all these comes with the loop's next turn; nothing more is taken from the loop.
 */
void offload_settle(struct loop *l);
void offload_stop_all(void);                      /* at the end of the process, after the loops */
