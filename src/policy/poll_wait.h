/*
 * poll_wait.h -- a request waits for what another worker does: it looks every 20 ms whether that is over. For what
 * happens rarely (a first fetch, a refresh), where a list of waiters of many threads would cost more than it saves.
 */
#pragma once
#include "core/timer.h"
#include "proxy/policy.h"

#define POLL_WAIT_MS 20

struct poll_wait {
	struct wait wait;                 /* first: what await() takes */
	int64_t until_ms;                 /* clock_ms() */
	/* Whether there is nothing more to wait for; any lock is its own. */
	bool (*is_over)(struct poll_wait *p);
	/* Once, when it ends in any way, before the exchange goes on; NULL: nothing. */
	void (*leave)(struct poll_wait *p);
	/* private */
	struct timer timer;
	struct worker *worker;
};

/* is_over, leave and until_ms are set. Then: return await(x, &p->wait, then). Lives in the exchange's memory. */
void poll_wait_start(struct poll_wait *p, struct exchange *x);
