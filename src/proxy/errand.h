/*
 * errand.h -- slow work for one exchange, on a pool of threads (core/offload.h): the exchange waits, its worker does
 * not.
 *
 *      hook ── errand_start, await ──► WAIT ... run (pool's thread) ... ──► then ── errand_leave ──► verdict
 *
 * The errand is memory of its own (mem_alloc), for the work may outlast the exchange: it is released once both the work
 * is over and the exchange has left it, which happens by itself when the exchange ends while it waits. `run` sees the
 * errand only: what it needs was copied there, or is held by it.
 */
#pragma once
#include "core/offload.h"
#include "proxy/policy.h"

/* DONE: it ran. LATE: not over within the limit. FULL: too much waits already. */
enum errand_end { ERRAND_DONE, ERRAND_LATE, ERRAND_FULL };

struct errand {
	struct wait wait;                 /* first */
	void (*run)(struct errand *e);
	void (*release)(struct errand *e);    /* worker's thread */
	enum errand_end end;
	/* private */
	struct offload_job job;
	struct timer limit;
	bool is_over, is_left;
};

/*
 * run and release are set, the rest is zero. Then await(x, &e->wait, ...) in any case: an errand that was refused is
 * over at once. `then` looks at e->end, takes the results of an errand that is DONE, and leaves it; of a LATE one `run`
 * may still be under way.
 */
void errand_start(struct exchange *x, struct errand *e, struct offload *pool, int64_t limit_ms);
void errand_leave(struct errand *e);
