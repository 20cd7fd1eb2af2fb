/*
 * map.h -- a hash map from byte strings to pointers, for one thread. Hashes are keyed per process, so peers cannot
 * choose collisions. Keys are not copied: their bytes must live as long as the entry. The table grows and shrinks with
 * what is in it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "core/str.h"

struct map_entry {
	struct str key;
	void *value;
	uint64_t hash;                    /* 0: a free place */
};

struct map {                              /* zero-initialise */
	struct map_entry *entries;        /* open addressing, power of two */
	size_t n, cap;
};
void *map_get(const struct map *m, struct str key);            /* NULL when absent */
void *map_put(struct map *m, struct str key, void *value);     /* returns the value it replaced, or NULL */
void *map_remove(struct map *m, struct str key);               /* returns the value removed, or NULL */
void map_free(struct map *m);                                  /* not the values */
/* for (size_t i = 0; (e = map_next(m, &i));) in no particular order; no put or remove meanwhile */
struct map_entry *map_next(const struct map *m, size_t *i);
