/* rotation.c -- lists of candidates, and the ways to choose one of them. */
#include "proxy/rotation.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "proxy/ring.h"

#define WEIGHT_UNIT 1000                 /* of an endpoint's weight */
#define WARM_LEAST 100                   /* thousandths: what one that warms up has from the start */
#define BUSY_UNIT 256                    /* finer still, before a division by the requests in flight */
#define HEAD_START_MAX 256               /* picks done in advance, so that workers do not all begin with the heaviest */

/* ---------- groups ---------- */

static void free_group(struct group *g)
{
	mem_free(g->members);
	mem_free(g->has);
	mem_free(g->credits);
	mem_free(g);
}

static void destroy_rotation(struct part *p)
{
	struct rotation *r = CONTAINER(p, struct rotation, part);

	for (unsigned i = 0; i < WORKERS_MAX; i++)
		for (struct group *g = r->groups[i], *next; g; g = next) {
			next = g->next;
			free_group(g);
		}
	mem_free(r);
}

struct rotation *rotation_new(void)
{
	struct rotation *r = MEM_NEW(struct rotation);

	r->part = (struct part){ 1, destroy_rotation };
	crypto_random(&r->salt, sizeof(r->salt));
	return r;
}

struct part *rotation_part(struct rotation *r)
{
	return &r->part;
}

uint32_t rotation_tag(const struct service *s, struct str name)
{
	for (unsigned i = 0; i < s->n_tags; i++)
		if (str_equal(s->tags[i], name))
			return i + 1;
	return 0;
}

static bool is_lane(const struct lane_names *lanes, struct str version)
{
	for (unsigned i = 0; lanes && version.n && i < lanes->n; i++)
		if (str_equal(lanes->names[i], version))
			return true;
	return false;
}

struct filter {
	const struct service *service;
	const struct group_key *key;
	const struct lane_names *lanes;
	bool takes_tagged;                /* BASELINE: there is no endpoint without a tag */
};

static bool fits(const struct filter *f, const struct endpoint *e)
{
	const struct group_key *key = f->key;
	const struct str *tags = f->service->tags;

	if (key->port && key->port != e->port)
		return false;
	switch (key->kind) {
	case GROUP_VERSION:
		return str_equal(e->version, tags[key->tag]);
	case GROUP_TAGGED:
		return str_equal(e->tag, tags[key->tag]) || str_equal(e->version, tags[key->tag]);
	case GROUP_BASELINE:
		return f->takes_tagged || (e->tag.n == 0 && !is_lane(f->lanes, e->version));
	case GROUP_ALL:
		break;
	}
	return true;
}

static bool fits_any(const struct filter *f)
{
	for (unsigned i = 0; i < f->service->n_endpoints; i++)
		if (fits(f, &f->service->endpoints[i]))
			return true;
	return false;
}

static const struct endpoint *member(const struct service *s, const struct group *g, unsigned i)
{
	return &s->endpoints[g->members[i]];
}

/* Endpoints of weight 0 get nothing, not even in a panic. */
static void fill(struct group *g, const struct filter *f)
{
	const struct service *s = f->service;

	g->members = mem_alloc((s->n_endpoints + 1) * sizeof(*g->members));
	g->has = mem_alloc(s->n_endpoints + 1);
	g->is_even = true;
	for (uint32_t i = 0; i < s->n_endpoints; i++) {
		const struct endpoint *e = &s->endpoints[i];

		if (e->weight == 0 || !fits(f, e))
			continue;
		g->has[i] = true;
		g->members[g->n++] = i;
		g->is_even = g->is_even && e->weight == member(s, g, 0)->weight;
	}
	g->credits = mem_alloc((g->n + 1) * sizeof(*g->credits));
}

static struct group *new_group(const struct service *s, const struct group_key *key, const struct lane_names *lanes,
			       uint64_t random)
{
	struct group *g = MEM_NEW(struct group);
	struct filter f = { .service = s, .key = key, .lanes = lanes };

	f.takes_tagged = key->kind == GROUP_BASELINE && !fits_any(&f);
	g->key = *key;
	fill(g, &f);
	if (g->n == 0)
		return g;
	g->at = (unsigned)(random % g->n);
	for (uint64_t steps = g->is_even ? 0 : (random >> 32) % HEAD_START_MAX; steps > 0; steps--)
		rotation_pick(&(struct pick){ .service = s, .group = g, .panics = true });
	return g;
}

static bool same_key(const struct group_key *a, const struct group_key *b)
{
	return a->kind == b->kind && a->port == b->port && a->tag == b->tag && a->lanes == b->lanes;
}

static struct group *find_group(struct group **list, const struct group_key *key)
{
	unsigned n = 0;

	for (struct group **at = list; *at; at = &(*at)->next) {
		struct group *g = *at;

		if (same_key(&g->key, key)) {
			*at = g->next;
			g->next = *list;
			return *list = g;
		}
		if (++n == ROTATION_GROUPS_MAX && !g->next) {
			*at = NULL;
			free_group(g);
			break;
		}
	}
	return NULL;
}

struct group *rotation_group(const struct service *s, unsigned worker, const struct group_key *key,
			     const struct lane_names *lanes, uint64_t random)
{
	struct group **list = &s->rotation->groups[worker], *g = *list;

	if (LIKELY(g && same_key(&g->key, key)))
		return g;
	g = find_group(list, key);
	if (!g) {
		g = new_group(s, key, lanes, random);
		g->next = *list;
		*list = g;
	}
	return g;
}

/* ---------- who may be picked ---------- */

static bool was_tried(const struct pick *p, const struct endpoint *e)
{
	for (unsigned i = 0; i < p->n_tried; i++)
		if (p->tried[i] == e)
			return true;
	return false;
}

static bool is_usable(const struct pick *p, const struct endpoint *e)
{
	return (p->panics || endpoint_is_up(e, p->now_ms)) && !(p->is_fresh && was_tried(p, e));
}

bool rotation_has(const struct pick *p)
{
	for (unsigned i = 0; i < p->group->n; i++)
		if (is_usable(p, member(p->service, p->group, i)))
			return true;
	return false;
}

bool rotation_may_pick(const struct pick *p, unsigned index)
{
	return p->group->has[index] && is_usable(p, &p->service->endpoints[index]);
}

bool rotation_panics(const struct pick *p)
{
	unsigned up = 0, n = p->group->n;

	for (unsigned i = 0; i < n; i++)
		up += endpoint_is_up(member(p->service, p->group, i), p->now_ms);
	return 100.0 * up < p->service->panic_percent * n;
}

/* ---------- weights ---------- */

/* When the endpoint came, came back, or will: what it warms up from. */
static int64_t warm_from_ms(const struct endpoint *e)
{
	int64_t from = atomic_load_explicit(&e->cell->warm_from_ms, memory_order_relaxed);
	int64_t ejected = atomic_load_explicit(&e->cell->ejected_until_ms, memory_order_relaxed);

	return ejected > from ? ejected : from;
}

static bool is_warming(const struct balance *b, const struct endpoint *e, int64_t now_ms)
{
	return now_ms - warm_from_ms(e) < b->warmup_ms;
}

int64_t rotation_weight(const struct balance *b, const struct endpoint *e, int64_t now_ms)
{
	int64_t weight = (int64_t)e->weight * WEIGHT_UNIT, age, share;

	if (!b || b->warmup_ms == 0 || !is_warming(b, e, now_ms))
		return weight;
	age = now_ms - warm_from_ms(e);
	share = age > 0 ? weight * age / b->warmup_ms : 0;
	return share > e->weight * WARM_LEAST ? share : e->weight * WARM_LEAST;
}

static int64_t weight_for(const struct pick *p, const struct endpoint *e)
{
	int64_t weight = rotation_weight(p->balance, e, p->now_ms), busy;

	if (!p->balance || p->balance->method != BALANCE_LEAST_BUSY)
		return weight;
	busy = atomic_load_explicit(&e->cell->active, memory_order_relaxed);
	weight = weight * BUSY_UNIT / ((busy > 0 ? busy : 0) + 1);
	return weight > 0 ? weight : 1;
}

/* Whether all weights are the same at this moment. */
static bool is_even(const struct pick *p)
{
	const struct group *g = p->group;

	if (!g->is_even || !p->balance || p->balance->warmup_ms == 0)
		return g->is_even;
	for (unsigned i = 0; i < g->n; i++)
		if (is_warming(p->balance, member(p->service, g, i), p->now_ms))
			return false;
	return true;
}

/* ---------- ways to choose ---------- */

static const struct endpoint *pick_next(const struct pick *p)
{
	struct group *g = p->group;

	for (unsigned i = 0; i < g->n; i++) {
		const struct endpoint *e = member(p->service, g, g->at);

		g->at = g->at + 1 < g->n ? g->at + 1 : 0;
		if (is_usable(p, e))
			return e;
	}
	return NULL;
}

/* Those that may not be picked neither earn nor pay. Ties go round from where this worker began. */
static const struct endpoint *pick_smooth(const struct pick *p)
{
	struct group *g = p->group;
	const struct endpoint *best = NULL;
	unsigned best_at = 0;
	int64_t sum = 0;

	for (unsigned i = 0, at = g->at; i < g->n; i++, at = at + 1 < g->n ? at + 1 : 0) {
		const struct endpoint *e = member(p->service, g, at);
		int64_t weight;

		if (!is_usable(p, e))
			continue;
		weight = weight_for(p, e);
		sum += weight;
		g->credits[at] += weight;
		if (best && g->credits[at] <= g->credits[best_at])
			continue;
		best = e;
		best_at = at;
	}
	if (best)
		g->credits[best_at] -= sum;
	return best;
}

/* A number below n from 32 random bits. */
static uint64_t below(uint64_t n, uint32_t random)
{
	return n * random >> 32;
}

/* The k-th of those that may be picked, `but` left out; the last one when fewer are there than a moment ago. */
static const struct endpoint *usable_at(const struct pick *p, uint64_t k, const struct endpoint *but)
{
	const struct endpoint *last = NULL;

	for (unsigned i = 0; i < p->group->n; i++) {
		const struct endpoint *e = member(p->service, p->group, i);

		if (e == but || !is_usable(p, e))
			continue;
		if (k-- == 0)
			return e;
		last = e;
	}
	return last;
}

static const struct endpoint *less_busy(const struct endpoint *first, const struct endpoint *second)
{
	if (!first || !second)
		return first;
	return atomic_load_explicit(&second->cell->active, memory_order_relaxed) <
	       atomic_load_explicit(&first->cell->active, memory_order_relaxed) ? second : first;
}

/* The first draw is among all members, which mostly does; when it meets one that is down, those up are counted. */
static const struct endpoint *pick_less_busy(const struct pick *p)
{
	uint32_t low = (uint32_t)p->random, high = (uint32_t)(p->random >> 32);
	const struct endpoint *first, *second;
	uint64_t n = p->group->n, a, b;

	if (n > 1) {
		a = below(n, low);
		b = below(n - 1, high);
		first = member(p->service, p->group, (unsigned)a);
		second = member(p->service, p->group, (unsigned)(b + (b >= a)));
		if (is_usable(p, first) && is_usable(p, second))
			return less_busy(first, second);
	}
	n = 0;
	for (unsigned i = 0; i < p->group->n; i++)
		n += is_usable(p, member(p->service, p->group, i));
	/* Other bits of the same number: the draw must not depend on the one that failed. */
	low = (uint32_t)(p->random * UINT64_C(0x9e3779b97f4a7c15) >> 32);
	high = (uint32_t)(p->random * UINT64_C(0xd6e8feb86659fd93) >> 32);
	first = usable_at(p, below(n, low), NULL);
	return n < 2 ? first : less_busy(first, usable_at(p, below(n - 1, high), first));
}

static const struct endpoint *pick_at_random(const struct pick *p)
{
	const struct endpoint *last = NULL;
	uint64_t sum = 0, at;

	for (unsigned i = 0; i < p->group->n; i++) {
		const struct endpoint *e = member(p->service, p->group, i);

		sum += is_usable(p, e) ? e->weight : 0;
	}
	at = below(sum, (uint32_t)(p->random >> 32));
	for (unsigned i = 0; i < p->group->n; i++) {
		const struct endpoint *e = member(p->service, p->group, i);

		if (!is_usable(p, e))
			continue;
		if (at < e->weight)
			return e;
		at -= e->weight;
		last = e;
	}
	/* One went down between the two passes: the last of those that did not. */
	return last;
}

/*
 * Clockwise to the first host that may be picked. The ring has all hosts of the service, so that what happens to one
 * moves the keys of no other. Whether there is any is asked once the nearest ones were none.
 */
static const struct endpoint *pick_on_ring(const struct pick *p)
{
	const struct ring *ring = p->service->ring;
	uint32_t size = ring_size(ring), at;

	if (size == 0)
		return NULL;
	at = ring_find(ring, p->key_hash);
	for (uint32_t i = 0; i < size; i++, at = at + 1 < size ? at + 1 : 0) {
		uint32_t host = ring_host_at(ring, at);

		if (p->group->has[host] && is_usable(p, &p->service->endpoints[host]))
			return &p->service->endpoints[host];
		if (i == 4 && !rotation_has(p))
			return NULL;
	}
	return NULL;
}

const struct endpoint *rotation_pick(const struct pick *p)
{
	switch (p->balance ? p->balance->method : BALANCE_IN_TURN) {
	case BALANCE_IN_TURN:
		return is_even(p) ? pick_next(p) : pick_smooth(p);
	case BALANCE_LEAST_BUSY:
		return is_even(p) ? pick_less_busy(p) : pick_smooth(p);
	case BALANCE_AT_RANDOM:
		break;
	case BALANCE_BY_HASH:
		if (p->has_key && p->service->ring)
			return pick_on_ring(p);
		break;
	}
	return pick_at_random(p);
}
