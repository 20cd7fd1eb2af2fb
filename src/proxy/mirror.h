/*
 * mirror.h -- a copy of a request to a second service, whose answer is thrown away.
 *
 *      request leg ── mirror_want ──► watches the body that is kept for it (retain.h)
 *      dispatch ... last byte sent ──► the end of that loop turn: the copy starts, a side call of its own
 *      exchange ends ── mirror_end ──► a body that was not complete is not copied
 *
 * The copy is what goes to the upstream: after all edits, once for each client request, however often it is tried.
 * Nothing that becomes of it can be felt by the request: it has its own connections and its own limit of copies at a
 * time, it starts after the request's bytes are on their way, and it is not made when memory is short.
 */
#pragma once
#include "core/loop.h"
#include "proxy/retain.h"
#include "proxy/snapshot.h"

struct exchange;
struct step;

#define MIRROR_COPIES_MAX 256             /* at a time to one service, on this node */

enum mirror_result {
	MIRROR_STARTED,
	MIRROR_TOO_LONG,                  /* the body is longer than is kept */
	MIRROR_TOO_MANY,                  /* copies to this service, or bytes held by this worker */
	MIRROR_NO_TARGET,                 /* the service is gone or has no endpoint that is up */
};

/* What one exchange's copy needs until it starts. Zero-initialised, in memory of the exchange. */
struct mirror {
	struct exchange *x;               /* NULL: none is wanted, or it is settled */
	const struct step *step;
	const struct target *target;
	void (*told)(const struct step *s, enum mirror_result r);
	struct retain_watch watch;
	struct task task;
};

/* For a hook of the last stage of the request leg: draws, and asks for a copy of `percentage` in 100 requests. */
void mirror_want(struct mirror *m, struct exchange *x, const struct step *s, unsigned percentage);
/* For its done hook. */
void mirror_end(struct mirror *m);
