/*
 * loop.h -- one epoll loop per thread: watched descriptors, timers, a ready list, and a wake-up from other threads.
 *
 * Descriptors are registered once, edge-triggered, for reading and writing; the owner keeps reading until short.
 * What is closed in a turn is freed at its end (loop_free_later), so late events of the same turn meet a closed
 * thing and not freed memory. `struct watch` is embedded by its owner.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/list.h"
#include "core/thread.h"
#include "core/timer.h"

struct watch {
	int fd;
	void (*ready)(struct watch *w, uint32_t events);  /* EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR */
};

/* Something to run later in this turn (or the next, when added while the ready list runs). */
struct task {
	struct list node;
	void (*run)(struct task *t);
};

/* Something that another thread has ready for this loop: run on the loop's thread, in the order of posting. */
struct post {
	struct inbox_item item;
	void (*run)(struct post *p);
};

struct garbage {                       /* embedded by what loop_free_later frees */
	struct garbage *next;
	void (*release)(struct garbage *g);
};

/* What a room to the right keeps with the loop of a thread: embedded there. */
struct loop_guest {
	void (*before_wait)(struct loop_guest *g);   /* of the loop: each time, and at the end of a turn */
	void (*release)(struct loop_guest *g);       /* the loop is freed */
};

struct loop;
struct loop *loop_new(void);
void loop_free(struct loop *l);
/* Runs until loop_stop(). `turn` is called at the top of each turn (a worker adopts snapshots there); may be NULL. */
void loop_run(struct loop *l, void (*turn)(void *arg), void *arg);
void loop_run_once(struct loop *l, int max_wait_ms);
/* number of the present turn: its events were collected at its start */
uint64_t loop_turn(const struct loop *l);
/*
 * How long what became ready waited for its turn, as measured last: the length of a turn, or of the queue of those
 * that one turn cannot take. For the owner's `turn`.
 */
int64_t loop_lag_us(const struct loop *l);
int64_t loop_turn_us(const struct loop *l);     /* the last turn that was over, from its events to the next wait */
int64_t loop_slept_us(const struct loop *l);          /* of the wait before that: 0 = there was work at once */
void loop_stop(struct loop *l);                       /* own thread only */
void loop_wake(struct loop *l);                       /* any thread: ends the wait of the loop */
/* Any thread, while the loop is there. p is the loop's until it runs; what is not run when the loop ends never is. */
void loop_post(struct loop *l, struct post *p);
/* false with errno set when the kernel refuses. events = 0 means the edge-triggered default for streams. */
bool loop_add(struct loop *l, struct watch *w, uint32_t events);
void loop_remove(struct loop *l, struct watch *w);
/* Only for a descriptor that nobody else holds, right before its close(), which ends the watch in the kernel. */
void loop_forget(struct loop *l, struct watch *w);
bool loop_modify(struct loop *l, struct watch *w, uint32_t events);
void task_init(struct task *t, void (*run)(struct task *));
void loop_defer(struct loop *l, struct task *t);      /* onto the ready list, once */
void loop_free_later(struct loop *l, struct garbage *g);
struct timer_wheel *loop_timers(struct loop *l);
struct loop_guest *loop_guest(const struct loop *l);  /* NULL: it has none */
void loop_set_guest(struct loop *l, struct loop_guest *g);  /* once */
void loop_arm(struct loop *l, struct timer *t, int64_t delay_ms);
