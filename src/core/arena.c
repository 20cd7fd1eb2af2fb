#include "core/arena.h"
#include <stdarg.h>
#include <stdio.h>
#include "core/budget.h"
#include "core/mem.h"

#ifdef ARENA_POISONS
#include <sanitizer/asan_interface.h>
#define POISON(p, n) __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
enum { RED_ZONE = 16 };
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
enum { RED_ZONE = 0 };
#endif

enum {
	BLOCK_SIZE = 4096,
	SMALL_SIZE = 256,                  /* of an arena that is_small, until it holds BLOCK_SIZE */
	CACHED_BLOCKS = 512,               /* a burst of so many exchanges costs no call into the allocator */
	GROWN_FROM = 64 * BLOCK_SIZE,      /* an arena this large takes its memory in larger pieces */
	GROWN_SIZE = 16 * BLOCK_SIZE,
};

/* The newest block is first; only the first one has a `held` that counts. */
struct arena_block {
	struct arena_block *next;
	size_t size;                       /* of all of it, this header included */
	size_t held;                       /* sum of size over this and the older blocks */
	size_t padding;
};
_Static_assert(sizeof(struct arena_block) % ARENA_ALIGNMENT == 0, "what follows the header is aligned");

static _Thread_local struct arena_block *cache;
static _Thread_local unsigned cached;

static struct arena_block *take_block(size_t size)
{
	budget_add((int64_t)size);
	if (size == BLOCK_SIZE && cache) {
		struct arena_block *block = cache;

		cache = block->next;
		cached--;
		return block;
	}
	struct arena_block *block = mem_resize(NULL, size);

	block->size = size;
	POISON(block + 1, size - sizeof(*block));
	return block;
}

static void give_block(struct arena_block *block)
{
	budget_add(-(int64_t)block->size);
	if (block->size == BLOCK_SIZE && cached < CACHED_BLOCKS) {
		POISON(block + 1, block->size - sizeof(*block));
		block->next = cache;
		cache = block;
		cached++;
		return;
	}
	UNPOISON(block + 1, block->size - sizeof(*block));
	mem_free(block);
}

static void wipe_block(struct arena_block *block)
{
	UNPOISON(block + 1, block->size - sizeof(*block));
	mem_wipe(block + 1, block->size - sizeof(*block));
}

/* `size` bytes (rounded) do not fit any more. The block with more room left is where the next ones come from. */
static void *take_from_new_block(struct arena *a, size_t size)
{
	struct arena_block *newest = a->blocks;
	size_t held = newest ? newest->held : 0;
	size_t block_size = held < GROWN_FROM ? BLOCK_SIZE : GROWN_SIZE;

	if (a->is_small && held < BLOCK_SIZE)
		block_size = SMALL_SIZE;
	if (size > block_size - sizeof(struct arena_block))
		block_size = size + sizeof(struct arena_block);
	struct arena_block *block = take_block(block_size);
	char *start = (char *)(block + 1), *end = (char *)block + block_size;

	if (newest && (size_t)(end - start) - size < (size_t)(a->end - a->next)) {
		block->next = newest->next;
		newest->next = block;
		newest->held = held + block_size;
	} else {
		block->next = newest;
		block->held = held + block_size;
		a->blocks = block;
		a->next = start + size;
		a->end = end;
	}
	return start;
}

void *arena_take_slowly(struct arena *a, size_t size)
{
	BUG_ON(size > SIZE_MAX / 2);
	size_t rounded = (size + (size == 0) + RED_ZONE + ARENA_ALIGNMENT - 1) & ~(ARENA_ALIGNMENT - 1);
	char *p = a->next;

	if (LIKELY(rounded <= (size_t)(a->end - p)))
		a->next = p + rounded;
	else
		p = take_from_new_block(a, rounded);
	UNPOISON(p, size);
	return p;
}

void *arena_alloc(struct arena *a, size_t size)
{
	return memset(arena_take(a, size), 0, size);
}

struct str arena_copy(struct arena *a, struct str s)
{
	char *p = arena_take(a, s.n + 1);

	if (s.n)
		memcpy(p, s.p, s.n);
	p[s.n] = '\0';
	return (struct str){ p, s.n };
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
	char text[256];
	va_list args, again;

	va_start(args, fmt);
	va_copy(again, args);
	int n = vsnprintf(text, sizeof(text), fmt, args);

	BUG_ON(n < 0);
	struct str s = { text, (size_t)n };

	if (s.n < sizeof(text)) {
		s = arena_copy(a, s);
	} else {
		char *p = arena_take(a, s.n + 1);

		vsnprintf(p, s.n + 1, fmt, again);
		s.p = p;
	}
	va_end(again);
	va_end(args);
	return s;
}

void arena_defer(struct arena *a, struct arena_defer *d, void (*run)(struct arena_defer *))
{
	d->run = run;
	d->next = a->defers;
	a->defers = d;
}

void arena_free(struct arena *a)
{
	while (a->defers) {
		struct arena_defer *d = a->defers;

		a->defers = d->next;
		d->run(d);
	}
	struct arena_block *next;

	for (struct arena_block *block = a->blocks; block; block = next) {
		next = block->next;
		if (a->wipes)
			wipe_block(block);
		give_block(block);
	}
	*a = (struct arena){ .is_small = a->is_small, .wipes = a->wipes };
}

size_t arena_size(const struct arena *a)
{
	return a->blocks ? a->blocks->held : 0;
}

void arena_drop_cache(void)
{
	while (cache) {
		struct arena_block *block = cache;

		cache = block->next;
		UNPOISON(block + 1, block->size - sizeof(*block));
		mem_free(block);
	}
	cached = 0;
}
