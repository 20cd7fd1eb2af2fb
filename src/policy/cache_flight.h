/*
 * cache_flight.h -- equal questions at a time on one worker: one asks the model, the others wait for its answer.
 *
 *      miss ── first of its key? ── yes ──► asks the model ──► cache_flight_land ──► the others look again
 *                     └──────────── no ───► waits, within a limit ──► looks again ──► a hit, or asks for itself
 *
 * Who waited once does not wait again, so nobody waits longer than the limit.
 */
#pragma once
#include "proxy/side_call.h"

struct cache_flight {                     /* in the exchange's state: zeroed */
	struct str key;
	struct waitlist waiting;          /* for this one */
	struct waitlist_entry entry;      /* its own wait */
	bool is_open;                     /* it asks the model, and others may wait for it */
	bool has_waited;
};

/*
 * True: another one is under way; return await(x, &f->entry.wait, then). False: this one goes on, others may wait for
 * it.
 */
bool cache_flight_join(struct cache_flight *f, struct exchange *x, struct str key, int64_t limit_ms);
/* Its answer is kept, or never will be. Later calls do nothing. */
void cache_flight_land(struct cache_flight *f);
