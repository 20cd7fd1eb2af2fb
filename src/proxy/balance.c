/*
 * balance.c -- which endpoint gets the request: round robin over those that fit the target and are up.
 *
 * The position is shared by all workers, so the rotation is exact for the process. Unequal weights are spread by a
 * golden-ratio sequence: shares are exact in the long run and never bunched, and no state but the position is kept.
 */
#include "core/clock.h"
#include "proxy/exchange.h"

static bool fits(const struct endpoint *e, const struct target *t)
{
	return (t->port == 0 || t->port == e->port) && (t->version.n == 0 || str_equal(t->version, e->version));
}

static bool is_usable(const struct endpoint *e, const struct target *t, int64_t now_ms)
{
	return e->weight > 0 && fits(e, t) && endpoint_is_up(e, now_ms);
}

/* Sum of the weights of usable endpoints; *equal: they all have the same. */
static uint64_t usable_weight(const struct exchange *x, int64_t now_ms, unsigned *count, bool *equal)
{
	const struct service *s = x->service;
	uint64_t sum = 0;
	uint32_t first = 0;

	*count = 0;
	*equal = true;
	for (unsigned i = 0; i < s->n_endpoints; i++) {
		const struct endpoint *e = &s->endpoints[i];

		if (!is_usable(e, x->target, now_ms))
			continue;
		if (first == 0)
			first = e->weight;
		*equal = *equal && e->weight == first;
		sum += e->weight;
		(*count)++;
	}
	return sum;
}

const struct endpoint *balance_pick(struct exchange *x)
{
	const struct service *s = x->service;
	int64_t now_ms = clock_ms();
	unsigned count;
	bool equal;
	uint64_t sum, at;
	uint32_t turn;
	const struct endpoint *last = NULL;

	if (s->n_endpoints == 1)
		return is_usable(&s->endpoints[0], x->target, now_ms) ? &s->endpoints[0] : NULL;
	sum = usable_weight(x, now_ms, &count, &equal);
	if (sum == 0)
		return NULL;
	turn = s->turn ? atomic_fetch_add_explicit(s->turn, 1, memory_order_relaxed) : 0;
	at = equal ? turn % count : ((uint64_t)(turn * 2654435769u) * sum) >> 32;
	for (unsigned i = 0; i < s->n_endpoints; i++) {
		const struct endpoint *e = &s->endpoints[i];

		if (!is_usable(e, x->target, now_ms))
			continue;
		if (at < (equal ? 1 : e->weight))
			return e;
		at -= equal ? 1 : e->weight;
		last = e;
	}
	/* One went down between the two passes: the last of those that did not. */
	return last;
}
