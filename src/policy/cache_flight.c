#include "policy/cache_flight.h"
#include "core/map.h"

static _Thread_local struct map flights;  /* of this worker, by key */

bool cache_flight_join(struct cache_flight *f, struct exchange *x, struct str key, int64_t limit_ms)
{
	struct cache_flight *first = map_get(&flights, key);

	if (first && !f->has_waited) {
		f->has_waited = true;
		waitlist_join(&first->waiting, &f->entry, exchange_worker(x), limit_ms);
		return true;
	}
	if (!first) {
		f->key = key;
		f->is_open = true;
		map_put(&flights, key, f);
	}
	return false;
}

void cache_flight_land(struct cache_flight *f)
{
	if (!f->is_open)
		return;
	f->is_open = false;
	map_remove(&flights, f->key);
	if (flights.n == 0)
		map_free(&flights);
	waitlist_wake(&f->waiting);
}
