/*
 * arena.h -- memory that dies together. Nothing in an arena is freed singly.
 *
 * Blocks come from a cache per thread, so an exchange's arena costs no call into the allocator once warm. An arena
 * belongs to one thread at a time. Zero-initialise a struct arena (but for is_small and wipes) to make one.
 */
#pragma once
#include <stddef.h>
#include "core/str.h"

struct arena {
	struct arena_block *blocks;
	struct arena_defer *defers;
	char *next, *end;                  /* free space in the newest block */
	bool is_small;                     /* one of many that live long: its first blocks are small */
	bool wipes;                        /* secrets go through it: what is freed is zeroed before */
};

/* Work to do when the arena dies, newest first. Embedded by its owner. */
struct arena_defer {
	struct arena_defer *next;
	void (*run)(struct arena_defer *defer);
};

void *arena_alloc(struct arena *a, size_t size);             /* zeroed, aligned to 16 */
void *arena_take_slowly(struct arena *a, size_t size);       /* arena_take when the newest block has no room */
struct str arena_copy(struct arena *a, struct str s);        /* copy, with a NUL after it */
struct str arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);
void arena_defer(struct arena *a, struct arena_defer *d, void (*run)(struct arena_defer *));
void arena_free(struct arena *a);                            /* runs the defers; the arena is empty and usable after */
size_t arena_size(const struct arena *a);                    /* bytes held, for budgets and reports */
void arena_drop_cache(void);                                 /* gives this thread's cached blocks back */

#define ARENA_ALIGNMENT ((size_t)16)
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS 1
#endif

/* Not zeroed, aligned to 16. */
static inline void *arena_take(struct arena *a, size_t size)
{
#ifndef ARENA_POISONS
	char *p = a->next;

	/* Free space is a multiple of the alignment: the rounded size fits as well. 0 takes the slow way. */
	if (LIKELY(size - 1 < (size_t)(a->end - p))) {
		a->next = p + ((size + ARENA_ALIGNMENT - 1) & ~(ARENA_ALIGNMENT - 1));
		return p;
	}
#endif
	return arena_take_slowly(a, size);
}
#define NEW(a, T) ((T *)arena_alloc((a), sizeof(T)))
#define NEW_N(a, T, n) ((T *)arena_alloc((a), sizeof(T) * (n)))
