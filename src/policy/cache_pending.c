/* cache_pending.c -- a map under a lock; entries that were replaced stay in the list until their own end. */
#include "policy/cache_pending.h"
#include <pthread.h>
#include <stdatomic.h>
#include "core/list.h"
#include "core/map.h"
#include "core/mem.h"

struct cache_pending {
	struct list node;
	struct str key, value;
	char bytes[];
};

static struct {
	pthread_mutex_t lock;
	atomic_uint n;
	size_t bytes;
	struct map by_key;
	struct list all;
} table = { .lock = PTHREAD_MUTEX_INITIALIZER, .all = LIST_INIT(table.all) };

struct cache_pending *cache_pending_put(struct str key, struct str value)
{
	size_t n = key.n + value.n;
	struct cache_pending *p = NULL;

	pthread_mutex_lock(&table.lock);
	if (atomic_load_explicit(&table.n, memory_order_relaxed) < CACHE_PENDING_MAX &&
	    table.bytes + n <= CACHE_PENDING_BYTES) {
		p = mem_alloc(sizeof(*p) + n);
		p->key = (struct str){ p->bytes, key.n };
		p->value = (struct str){ p->bytes + key.n, value.n };
		str_put(str_put(p->bytes, key), value);
		list_append(&table.all, &p->node);
		/* The key in the map must be the one that lives as long as the entry. */
		map_remove(&table.by_key, key);
		map_put(&table.by_key, p->key, p);
		table.bytes += n;
		atomic_fetch_add_explicit(&table.n, 1, memory_order_release);
	}
	pthread_mutex_unlock(&table.lock);
	return p;
}

void cache_pending_end(struct cache_pending *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&table.lock);
	if (map_get(&table.by_key, p->key) == p)
		map_remove(&table.by_key, p->key);
	list_remove(&p->node);
	table.bytes -= p->key.n + p->value.n;
	atomic_fetch_sub_explicit(&table.n, 1, memory_order_relaxed);
	pthread_mutex_unlock(&table.lock);
	mem_free(p);
}

struct str cache_pending_get(struct arena *a, struct str key)
{
	struct str found = { NULL, 0 };
	const struct cache_pending *p;

	if (atomic_load_explicit(&table.n, memory_order_acquire) == 0)
		return found;
	pthread_mutex_lock(&table.lock);
	p = map_get(&table.by_key, key);
	if (p)
		found = arena_copy(a, p->value);
	pthread_mutex_unlock(&table.lock);
	return found;
}
