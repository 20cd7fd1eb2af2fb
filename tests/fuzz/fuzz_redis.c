/*
 * fuzz_redis.c -- replies of a Redis server: what is whole at once is whole in pieces, at the same byte; trees stay
 * within their bounds.
 */
/* room: net */
#include <stddef.h>
#include <stdint.h>
#include "core/fault.h"
#include "net/redis_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count_items(const struct redis_reply *r, unsigned depth)
{
	size_t n = 1;

	BUG_ON(depth > REDIS_DEPTH_MAX);
	for (size_t i = 0; i < r->n; i++)
		n += count_items(&r->items[i], depth + 1);
	return n;
}

/* The first byte says in which pieces the rest comes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct redis_scan at_once = { 0 }, in_pieces = { 0 };
	enum redis_scanned first, second = REDIS_MORE;
	struct arena a = { 0 };
	struct str in;
	size_t step;

	if (size < 1)
		return 0;
	step = data[0] % 7 + 1;
	in = (struct str){ (const char *)data + 1, size - 1 };
	first = redis_scan(&at_once, in);
	for (size_t n = 0; second == REDIS_MORE && n < in.n;) {
		n = n + step < in.n ? n + step : in.n;
		second = redis_scan(&in_pieces, (struct str){ in.p, n });
	}
	BUG_ON(first == REDIS_WHOLE && (second != REDIS_WHOLE || in_pieces.at != at_once.at));
	BUG_ON(first == REDIS_MORE && second != REDIS_MORE);
	BUG_ON(first == REDIS_BAD && second == REDIS_WHOLE);
	if (first == REDIS_WHOLE)
		BUG_ON(count_items(redis_reply_copy(&a, redis_read(&a, (struct str){ in.p, at_once.at })), 0) >
		       REDIS_ITEMS_MAX + 1);
	arena_free(&a);
	return 0;
}
