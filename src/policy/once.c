#include "policy/once.h"
#include <pthread.h>
#include "core/clock.h"
#include "core/list.h"
#include "core/map.h"
#include "core/mem.h"

struct used {
	struct list node;                 /* by age */
	int64_t until_ms;
	uint8_t digest[32];
};

static struct {
	pthread_mutex_t lock;
	struct map by_digest;
	struct list all;                  /* oldest first */
} once = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct str key_of(const struct used *u)
{
	return (struct str){ (const char *)u->digest, sizeof u->digest };
}

static void forget(struct used *u)
{
	map_remove(&once.by_digest, key_of(u));
	list_remove(&u->node);
	mem_free(u);
}

static void forget_old(void)
{
	while (!list_is_empty(&once.all)) {
		struct used *oldest = CONTAINER(once.all.next, struct used, node);

		if (once.by_digest.n < ONCE_MAX && clock_ms() < oldest->until_ms)
			return;
		forget(oldest);
	}
}

bool once_use(const uint8_t digest[32], int64_t keep_ms)
{
	struct used *u;
	bool is_new;

	pthread_mutex_lock(&once.lock);
	if (!once.all.next)
		list_init(&once.all);
	forget_old();
	is_new = !map_get(&once.by_digest, (struct str){ (const char *)digest, 32 });
	if (is_new) {
		u = MEM_NEW(struct used);
		memcpy(u->digest, digest, sizeof u->digest);
		u->until_ms = clock_ms() + keep_ms;
		list_append(&once.all, &u->node);
		map_put(&once.by_digest, key_of(u), u);
	}
	pthread_mutex_unlock(&once.lock);
	return is_new;
}
