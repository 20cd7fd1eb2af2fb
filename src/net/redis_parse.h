/*
 * redis_parse.h -- replies of a Redis server (RESP2 and RESP3), from bytes that come in any pieces.
 *
 *      redis_scan: is the next reply whole, and how long is it?      redis_read: its tree, over the same bytes
 *
 * The scan goes on where it stopped, so a reply that comes byte by byte costs no more than one that comes at once. What
 * it calls done, redis_read() reads without looking for errors again. Bounded: bytes, levels and items of one reply.
 * Attributes before a reply are passed over; streamed strings and aggregates, which no server sends, are refused.
 */
#pragma once
#include "core/arena.h"
#include "net/redis.h"

#define REDIS_ITEMS_MAX 65536             /* of one reply, on all its levels */
#define REDIS_LINE_MAX 65536              /* a simple string or error */

enum redis_scanned { REDIS_MORE, REDIS_WHOLE, REDIS_BAD };

struct redis_scan {                       /* zero-initialise for each reply */
	size_t at;                        /* bytes that are understood; when WHOLE the length of the reply */
	size_t looked;                    /* where the end of a line was looked for up to */
	size_t needs;                     /* when MORE: bytes from the beginning that are known to come; a hint */
	unsigned depth;
	uint32_t left[REDIS_DEPTH_MAX + 2];       /* items to come of each open level */
	bool is_attribute[REDIS_DEPTH_MAX + 2];
	size_t items;
	bool is_push;                     /* it answers no command */
};

/* `in`: all bytes from the reply's first one on; with each call the same ones and perhaps more. */
enum redis_scanned redis_scan(struct redis_scan *s, struct str in);
/* The tree of a reply that is WHOLE. Texts point into `in`, the rest is the arena's. */
const struct redis_reply *redis_read(struct arena *a, struct str in);
/* A copy of its own. */
const struct redis_reply *redis_reply_copy(struct arena *a, const struct redis_reply *r);
/* Which of the 16384 slots of a cluster a key is in: by what stands in its first {}, if there is something. */
unsigned redis_slot(struct str key);
