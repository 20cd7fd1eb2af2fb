/* side_pool.c -- connections of side calls: a pool for each kind and address, at most so many of them. */
#include "core/clock.h"
#include "core/map.h"
#include "core/mem.h"
#include "proxy/side_parts.h"
#include "proxy/worker.h"

#define POOLS_MAX 256                     /* of one worker: then the one that was not used for longest goes */

static void drop(struct side_calls *all, struct side_pool *p)
{
	pool_close(worker_client(all->worker), &p->pool);
	map_remove(&all->by_key, p->key);
	list_remove(&p->node);
	mem_free(p);
}

/* One that nobody uses now, if there are too many. */
static void make_room(struct side_calls *all)
{
	if (all->by_key.n < POOLS_MAX)
		return;
	LIST_EACH(node, &all->pools) {
		struct side_pool *p = CONTAINER(node, struct side_pool, node);

		if (p->in_flight == 0) {
			drop(all, p);
			return;
		}
	}
}

struct side_pool *side_pool_get(struct side_calls *all, enum side_kind kind, const struct addr *to)
{
	char text[ADDR_TEXT + 2];
	struct side_pool *p;
	size_t n;

	text[0] = (char)('a' + kind);
	n = 1 + addr_print(to, text + 1);
	p = map_get(&all->by_key, (struct str){ text, n });
	if (!p) {
		make_room(all);
		p = mem_alloc(sizeof *p + n);
		memcpy(p + 1, text, n);
		p->key = (struct str){ (const char *)(p + 1), n };
		list_init(&p->node);
		map_put(&all->by_key, p->key, p);
	}
	list_remove(&p->node);
	list_append(&all->pools, &p->node);
	return p;
}

void side_pools_close(struct side_calls *all)
{
	LIST_EACH(node, &all->pools)
		drop(all, CONTAINER(node, struct side_pool, node));
	map_free(&all->by_key);
}

static bool fits(const struct endpoint *e, const struct side_request *r, int64_t now_ms)
{
	return e->weight > 0 && (r->port == 0 || r->port == e->port) &&
	       (r->version.n == 0 || str_equal(r->version, e->version)) && endpoint_is_up(e, now_ms);
}

const struct endpoint *side_pick(struct worker *w, const struct snapshot *s, const struct side_request *r,
				 const struct service **service)
{
	struct part *part = pmap_get(s->services, r->service_id);
	int64_t now_ms = clock_ms();
	uint64_t sum = 0, at;

	if (!part)
		return NULL;
	*service = CONTAINER(part, struct service, part);
	for (unsigned i = 0; i < (*service)->n_endpoints; i++)
		if (fits(&(*service)->endpoints[i], r, now_ms))
			sum += (*service)->endpoints[i].weight;
	if (sum == 0)
		return NULL;
	at = (uint64_t)worker_random(w) * sum >> 32;
	for (unsigned i = 0; i < (*service)->n_endpoints; i++) {
		const struct endpoint *e = &(*service)->endpoints[i];

		if (!fits(e, r, now_ms))
			continue;
		if (at < e->weight)
			return e;
		at -= e->weight;
	}
	return NULL;
}
