/*
 * resolver.h -- names to addresses, asynchronously, on one thread's loop, with a cache.
 *
 * Answers are kept for their TTL (at least 1 s, at most 1 h), the absence of a name for 1 s. When the
 * servers fail, the last good answer serves for up to an hour more: the first question waits for the
 * failure, later ones get the stale answer at once while a new attempt is made each second. Equal questions
 * in flight are asked once. IP literals, localhost and /etc/hosts are answered without asking anybody. One
 * resolver per worker; nothing is shared between threads.
 *
 *   lookup ──► literal, localhost ──────────────► answered
 *         └──► cache: fresh, or known to fail ──► answered
 *                    └──► join who asks, or ask ──► c-ares ──► done()   good, or stale when the servers fail
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/cidr.h"
#include "core/list.h"
#include "core/loop.h"
#include "core/str.h"

#define RESOLVER_MAX_ADDRESSES 16
#define RESOLVER_MAX_NAME 255              /* longer names are answered as not found */

enum resolver_status {
	RESOLVER_OK,                       /* n >= 1 */
	RESOLVER_NOT_FOUND,                /* the name does not exist, has no address or is none */
	RESOLVER_FAILED,                   /* no server answered, and there is no stale answer */
};

/* One question. Embedded by its owner, who keeps it until `done` was called or resolver_cancel() was. */
struct resolver_query {
	struct list node;
	/* On the resolver's thread, never inside resolver_lookup(). May look up again with the same struct. */
	void (*done)(struct resolver_query *q);
	bool is_waiting;                   /* private */
	/* The answer: */
	enum resolver_status status;
	struct ip addresses[RESOLVER_MAX_ADDRESSES];   /* IPv4 first */
	unsigned n;
	unsigned ttl_s;                    /* ask again after this; 1 for stale answers */
	bool is_stale;
};

struct resolver;
/*
 * `servers`: "127.0.0.1:5353,[::1]:53" in place of /etc/resolv.conf (NULL returned when it cannot be read);
 * NULL for the system's. `attempt_ms` is the time for one try (there are two per server); 0 means 2000.
 */
struct resolver *resolver_new(struct loop *l, const char *servers, unsigned attempt_ms);
void resolver_free(struct resolver *r);    /* outstanding queries are dropped; `done` is not called */
/* Sets q->done first. Returns true when the answer is there already (literal, cache): then `done` is not called. */
MUST_USE bool resolver_lookup(struct resolver *r, struct str host, struct resolver_query *q);
void resolver_cancel(struct resolver_query *q);   /* harmless when nothing is asked */
unsigned resolver_cached(const struct resolver *r);    /* names held, for reports and tests */
