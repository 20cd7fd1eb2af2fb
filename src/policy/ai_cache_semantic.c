#include "policy/ai_cache_semantic.h"

void cache_part_up(struct cache_health *h, enum cache_part part)
{
	unsigned before;

	if (!(atomic_load_explicit(&h->down, memory_order_relaxed) & part))
		return;
	before = atomic_fetch_and_explicit(&h->down, ~(unsigned)part, memory_order_relaxed);
	if ((before & ~(unsigned)part) == 0)
		dependency_up(&h->shown);
}

void cache_part_down(struct cache_health *h, enum cache_part part, const char *reason, struct str error)
{
	atomic_fetch_or_explicit(&h->down, part, memory_order_relaxed);
	dependency_down(&h->shown, reason, error);
}
