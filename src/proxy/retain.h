/*
 * retain.h -- keeps the body of a request while it passes through, for whoever has to send it again or somewhere else:
 * a retry, a fallback service, a copy.
 *
 *      retain_body(x, limit)   in a hook, before the request is sent: asks for it
 *      dispatch, body ────────► chunks (one copy, whoever reads) ──► retain_read() by any number of readers
 *      past the limit ────────► is_over: the chunks go, the request itself goes on untouched
 *
 * What is kept is what is sent to the upstream: after all edits. It begins to fill when the request is dispatched. The
 * bytes belong to the worker's thread, count for its memory budget, and live as long as somebody holds them, which may
 * be longer than the exchange.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "core/list.h"
#include "core/str.h"

struct exchange;
struct message;
struct retain_chunk;

struct retained {
	struct retain_chunk *first, *last;
	size_t n;                         /* bytes of the body that came so far */
	size_t limit;                     /* most of them that are kept: the largest that was asked for */
	bool is_whole;                    /* the body is complete, and all of it is here */
	bool is_over;                     /* it is longer than the limit: no reader gets all of it any more */
	const struct message *trailers;   /* fields after the body once it is whole, of the exchange's arena; or NULL */
	struct list watchers;             /* struct retain_watch */
	unsigned refs;
};

/*
 * Asks that the body be kept, up to so many bytes. For hooks of the request and the service leg, and before the call
 * starts. What several ask for is kept once. Counted as retry_or_shadow_abandoned when the body turns out longer.
 * The exchange holds the result (x->retained) until it ends.
 */
struct retained *retain_body(struct exchange *x, size_t limit);
/* The gateway's setting retryBufferBytes: what retries and copies are to ask for. */
size_t retain_limit(const struct exchange *x);
struct retained *retain_hold(struct retained *r);         /* one more holder; returns r */
void retain_drop(struct retained *r);

/*
 * For bodies that are read before they are sent (body.h): more of it, behind what is there, in one piece that may move.
 * `expected`: bytes in all, as far as it is known; 0 = unknown. retain_whole(): the piece.
 */
void retain_gather(struct retained *r, struct str data, size_t expected);
struct str retain_whole(const struct retained *r);
/* x->retained begins anew, for a body that is replaced before it is sent. Who holds what was there keeps it. */
void retain_renew(struct exchange *x);
/* Somebody has the body who did not fill it: tells the watchers. */
void retain_tell(struct retained *r);

/* A place in the body. Zero but for `of`: its beginning. */
struct retain_reader {
	struct retained *of;
	const struct retain_chunk *chunk;
	size_t at;                        /* in the chunk */
};
/* The next piece, good until more of the body comes (it may be too much); n == 0: no more for now, or is_over. */
struct str retain_read(struct retain_reader *reader);

/* Tells when there is more to read: bytes, the end (is_whole), or is_over. Embedded by its owner. */
struct retain_watch {
	struct list node;                 /* list_init() before use; list_remove() ends it */
	void (*changed)(struct retain_watch *w);
};
void retain_watch(struct retained *r, struct retain_watch *w);

/* For the data plane: bytes that are about to be sent to the upstream; `end` completes the body. */
void retain_add(struct exchange *x, struct str data, bool end);
