/*
 * ring.c -- makes rings and finds points in them.
 *
 * Hashes and owners stand in two arrays, so that a search touches hashes only. Points are sorted by the digits of the
 * upper half of their hashes, which leaves few out of place.
 */
#include "proxy/ring.h"
#include <string.h>
#include "core/arena.h"
#include "core/list.h"
#include "core/mem.h"
#include "core/xxh64.h"

#define NAME_MAX_BYTES 300               /* of an endpoint: a DNS name, a colon and a port fit */
#define SORTED_FROM 32                   /* the bit of the hash from which on digits are sorted */
#define DIGIT_BITS 8
#define DIGITS 256

struct ring {
	struct part part;
	uint64_t *hashes;                 /* ascending */
	uint32_t *owners;
	uint32_t n;
	/* what it was made of */
	struct arena arena;
	struct ring_host *hosts;
	unsigned n_hosts;
	uint32_t points;
};

static void destroy_ring(struct part *p)
{
	struct ring *r = CONTAINER(p, struct ring, part);

	mem_free(r->hashes);
	mem_free(r->owners);
	arena_free(&r->arena);
	mem_free(r);
}

static uint64_t ceil_divide(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

/* The weight that has r->points points: the largest power of two not above the largest weight. */
static uint32_t unit_weight(const struct ring *r)
{
	uint32_t most = 1, unit = 1;

	for (unsigned i = 0; i < r->n_hosts; i++)
		if (r->hosts[i].weight > most)
			most = r->hosts[i].weight;
	while (unit <= most / 2)
		unit *= 2;
	return unit;
}

/*
 * Points of each host into counts[]; returns their sum. More than RING_POINTS_MAX are scaled down, and then rounded
 * down, so that the bound holds.
 */
static uint32_t count_points(const struct ring *r, uint32_t *counts)
{
	uint64_t unit = unit_weight(r), sum = 0, kept = 0;

	for (unsigned i = 0; i < r->n_hosts; i++)
		sum += ceil_divide((uint64_t)r->hosts[i].weight * r->points, unit);
	for (unsigned i = 0; i < r->n_hosts; i++) {
		uint64_t count = ceil_divide((uint64_t)r->hosts[i].weight * r->points, unit);

		if (sum > RING_POINTS_MAX)
			count = count * (RING_POINTS_MAX - r->n_hosts) / sum;
		counts[i] = r->hosts[i].weight > 0 && count == 0 ? 1 : (uint32_t)count;
		kept += counts[i];
	}
	return (uint32_t)kept;
}

/* Points of one host are hashed one after the other: its name is copied once. */
struct spelling {
	char text[NAME_MAX_BYTES + 12];
	size_t n;
};

static struct spelling spell(struct str name)
{
	struct spelling s;

	s.n = name.n < NAME_MAX_BYTES ? name.n : NAME_MAX_BYTES;
	memcpy(s.text, name.p, s.n);
	s.text[s.n++] = '_';
	return s;
}

static uint64_t hash_point(struct spelling *s, uint32_t k)
{
	size_t n = s->n, digits = 1;

	for (uint32_t rest = k / 10; rest > 0; rest /= 10)
		digits++;
	for (size_t i = digits; i-- > 0; k /= 10)
		s->text[n + i] = (char)('0' + k % 10);
	return xxh64((struct str){ s->text, n + digits }, 0);
}

struct point {
	uint64_t hash;
	uint32_t owner;
};

/* Two points on one place: the name decides, so that the order of the hosts does not. */
static bool is_before(const struct ring *r, const struct point *a, const struct point *b)
{
	if (a->hash != b->hash)
		return a->hash < b->hash;
	return str_compare(r->hosts[a->owner].name, r->hosts[b->owner].name) < 0;
}

/* The lowest digit first: after all digits points are in the order of the upper half of their hashes. */
static void sort_by_digits(struct point **points, struct point **other, uint32_t n)
{
	for (unsigned shift = SORTED_FROM; shift < 64; shift += DIGIT_BITS) {
		uint32_t starts[DIGITS + 1] = { 0 };
		const struct point *from = *points;
		struct point *to = *other;

		for (uint32_t i = 0; i < n; i++)
			starts[(from[i].hash >> shift) % DIGITS + 1]++;
		for (unsigned digit = 0; digit < DIGITS; digit++)
			starts[digit + 1] += starts[digit];
		for (uint32_t i = 0; i < n; i++)
			to[starts[(from[i].hash >> shift) % DIGITS]++] = from[i];
		*other = *points;
		*points = to;
	}
}

/* Few points share the upper half: they are moved into place one by one. */
static void settle(const struct ring *r, struct point *points)
{
	for (uint32_t i = 1; i < r->n; i++) {
		struct point p = points[i];
		uint32_t at = i;

		for (; at > 0 && is_before(r, &p, &points[at - 1]); at--)
			points[at] = points[at - 1];
		points[at] = p;
	}
}

static void place_points(struct ring *r, const uint32_t *counts)
{
	struct point *points = mem_alloc(r->n * sizeof(*points)), *other = mem_alloc(r->n * sizeof(*other));
	uint32_t n = 0;

	for (uint32_t host = 0; host < r->n_hosts; host++) {
		struct spelling name = spell(r->hosts[host].name);

		for (uint32_t k = 0; k < counts[host]; k++)
			points[n++] = (struct point){ hash_point(&name, k), host };
	}
	sort_by_digits(&points, &other, n);
	settle(r, points);
	for (uint32_t i = 0; i < n; i++) {
		r->hashes[i] = points[i].hash;
		r->owners[i] = points[i].owner;
	}
	mem_free(points);
	mem_free(other);
}

struct ring *ring_new(const struct ring_host *hosts, unsigned n, uint32_t points)
{
	struct ring *r = MEM_NEW(struct ring);
	uint32_t *counts = mem_alloc((n + 1) * sizeof(*counts));

	r->part = (struct part){ 1, destroy_ring };
	r->points = points;
	r->arena.is_small = true;
	r->n_hosts = n;
	r->hosts = NEW_N(&r->arena, struct ring_host, n + 1);
	for (unsigned i = 0; i < n; i++)
		r->hosts[i] = (struct ring_host){ arena_copy(&r->arena, hosts[i].name), hosts[i].weight };
	r->n = count_points(r, counts);
	r->hashes = mem_alloc((r->n + 1) * sizeof(*r->hashes));
	r->owners = mem_alloc((r->n + 1) * sizeof(*r->owners));
	if (r->n > 0)
		place_points(r, counts);
	mem_free(counts);
	return r;
}

bool ring_is_of(const struct ring *r, const struct ring_host *hosts, unsigned n, uint32_t points)
{
	if (r->n_hosts != n || r->points != points)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (r->hosts[i].weight != hosts[i].weight || !str_equal(r->hosts[i].name, hosts[i].name))
			return false;
	return true;
}

struct part *ring_part(struct ring *r)
{
	return &r->part;
}

uint32_t ring_size(const struct ring *r)
{
	return r->n;
}

uint32_t ring_find(const struct ring *r, uint64_t hash)
{
	uint32_t low = 0, high = r->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (r->hashes[middle] < hash)
			low = middle + 1;
		else
			high = middle;
	}
	return low < r->n ? low : 0;
}

uint32_t ring_host_at(const struct ring *r, uint32_t point)
{
	return r->owners[point];
}
