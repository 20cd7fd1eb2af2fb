/*
 * ring.h -- consistent hashing: points of all hosts on a circle of 64-bit numbers; a key belongs to the host of the
 * first point at or after its hash.
 *
 * Point k of a host is xxHash64(name "_" k), so the same hosts make the same ring on every worker and node, whatever
 * their order. A host has points in proportion to its weight, at least one: `points` for a weight that is the largest
 * power of two not above the largest weight, so at least `points` in all. Its points do not depend on the other hosts
 * (but on that power of two): a host that goes moves its own keys and no others, a host that comes takes its share and
 * moves no other key. Above RING_POINTS_MAX in all they are scaled down.
 *
 * A ring is immutable once made; a part that snapshots share.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/pmap.h"
#include "core/str.h"

#define RING_POINTS_MAX 8388608U

struct ring_host {
	struct str name;                  /* "127.0.0.1:9001" */
	uint32_t weight;                  /* 0: it gets no points */
};
struct ring;

struct ring *ring_new(const struct ring_host *hosts, unsigned n, uint32_t points);   /* names are copied; one hold */
bool ring_is_of(const struct ring *r, const struct ring_host *hosts, unsigned n, uint32_t points);
struct part *ring_part(struct ring *r);

uint32_t ring_size(const struct ring *r);                         /* points; 0 only when no host has a weight */
uint32_t ring_find(const struct ring *r, uint64_t hash);          /* the point that owns the hash; ring_size() > 0 */
uint32_t ring_host_at(const struct ring *r, uint32_t point);      /* index of its host */
