/*
 * pmap.h -- an immutable map from byte strings to parts: a change makes a new version that shares all but one page.
 *
 *      version 7 ──► directory ──► page 0, page 1, page 2 ...          (each page: a small open hash of entries)
 *      version 8 ──► directory'──► page 0, page 1', page 2 ...         (only page 1 was copied)
 *
 * Readers (workers) only look up, in versions handed to them whole, without counts or locks. All versions are made and
 * released by one thread (control), so reference counts are plain integers. Values are `struct part`s: the map holds
 * one reference for each entry.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/str.h"

/* Anything shared between versions. First member of its owner. Counted on the control thread only. */
struct part {
	uint32_t refs;
	void (*destroy)(struct part *p);   /* control thread, when the last reference goes */
};
static inline void part_hold(struct part *p)
{
	p->refs++;
}
void part_drop(struct part *p);                    /* NULL is fine */

struct pmap;
struct pmap *pmap_new(void);
struct pmap *pmap_hold(struct pmap *m);
void pmap_drop(struct pmap *m);
uint64_t pmap_hash(struct str key);                /* not keyed: only administrators choose keys */
/*
 * The same hash, word by word, for who looks up many prefixes of one text: start with 0, feed each whole word of 8
 * bytes, and end with what is left over (0 to 7 bytes, the others zero) and the length of the key. Ending does not use
 * the state up.
 */
#define PMAP_HASH_FACTOR UINT64_C(0xd6e8feb86659fd93)
static inline uint64_t pmap_hash_word(uint64_t state, uint64_t word)
{
	state = (state ^ word) * PMAP_HASH_FACTOR;
	return state ^ state >> 32;
}
static inline uint64_t pmap_hash_end(uint64_t state, uint64_t rest, size_t key_size)
{
	uint64_t hash = pmap_hash_word(state, rest);

	hash = (hash ^ key_size) * PMAP_HASH_FACTOR;
	return hash ^ hash >> 32;
}
struct part *pmap_get(const struct pmap *m, struct str key);
struct part *pmap_get_hashed(const struct pmap *m, struct str key, uint64_t hash);
/*
 * Returns the version with key -> value (NULL removes it). Consumes the caller's reference to m; when nobody else holds
 * m it is changed in place. The key is copied. Takes its own reference to value.
 */
struct pmap *pmap_set(struct pmap *m, struct str key, struct part *value);
size_t pmap_count(const struct pmap *m);
/* Calls each(arg, key, value) for all entries in no particular order; stops and returns false when each does. */
bool pmap_each(const struct pmap *m, bool (*each)(void *arg, struct str key, struct part *value), void *arg);
