/*
 * cache_pending.h -- kept answers on their way to Redis: what the node knows already, for the requests that come before
 * the store has answered.
 *
 * One table of the process, for all workers. Bounded; what does not fit is not in it, and found in Redis a moment
 * later. Where nothing is on its way, a look costs one load.
 */
#pragma once
#include "core/arena.h"

#define CACHE_PENDING_MAX 1024
#define CACHE_PENDING_BYTES (16 << 20)

struct cache_pending;
/* Copied. NULL: there is no room. Of two with one key the later one is found. */
struct cache_pending *cache_pending_put(struct str key, struct str value);
/* It has arrived, or never will; NULL is fine. Any thread. */
void cache_pending_end(struct cache_pending *p);
/* A copy in the arena; absent: there is none. */
struct str cache_pending_get(struct arena *a, struct str key);
