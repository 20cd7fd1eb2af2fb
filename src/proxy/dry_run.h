/*
 * dry_run.h -- what would become of a request: found out without sending, counting or consuming anything.
 *
 * The exchange of a dry run is a real one, matched by the router and walked by the pipeline like any other, but it has
 * no connection, no worker and no call. Its steps say what they would do by their explain hook, or, when their class
 * is pure, by their own hooks (policy.h). What nobody can tell without doing it is said to be unjudged, and the dry
 * run goes on as if it had passed.
 *
 * Runs on the control thread, over parts that it holds anyway: workers notice nothing.
 */
#pragma once
#include <stdbool.h>
#include "core/arena.h"
#include "core/problem.h"
#include "proxy/exchange.h"

enum dry_verdict {
	DRY_PASSES,
	DRY_ANSWERS,                      /* dry_run.x.res is the answer */
	DRY_CLOSES,                       /* the connection, without a byte */
	DRY_FAILS,                        /* a dependency is broken, and the class refuses then */
	DRY_UNJUDGED,
	DRY_UNREACHED,                    /* something before it ends the request */
};
const char *dry_verdict_name(enum dry_verdict v);         /* "Passes" ... */

/* One step, in the order in which they act. */
struct dry_step {
	const struct step *step;
	enum leg leg;
	enum dry_verdict verdict;
	struct str note;                  /* a sentence for people; absent = nothing to say */
};

/* A route whose path fits and that was passed over for a better reason. */
struct dry_miss {
	const struct route *route;
	struct str why;
};

struct dry_request {
	struct str head;                  /* as on the wire, HTTP/1.1, empty line included; strictly judged */
	struct ip peer;
	uint16_t peer_port;
	bool is_tls, keeps_underscores;
	struct str request_id;
	struct str service_id;            /* the target to follow; absent = the one with the largest share */
	const struct binding *binding;
	const struct snapshot *snapshot;  /* paths and services are read */
};

struct dry_run {
	struct exchange x;                /* site, route, service, stream.req as in the end; res when is_local */
	struct arena *arena;
	const struct service *service;    /* that it goes to, of the snapshot; x.service is a copy */
	const struct service *meant;      /* the route's, when it has no endpoint and a fallback takes its place */
	const struct endpoint *endpoint;  /* that it would go to, as far as that is sure; NULL otherwise */
	bool *may_pick;                   /* by index in the service's endpoints: it might go there */
	const char *picked;               /* how one of these is chosen; NULL: it does not come to that */
	struct dry_step *steps;
	unsigned n_steps, room;
	struct dry_miss *misses;
	unsigned n_misses, misses_room;
	bool is_answered;                 /* by the gateway: by `answered_by`, or for the exchange's reason */
	bool is_closed;
	const char *answered_for;         /* a sentence, when no policy answered; NULL otherwise */
	bool is_refused;                  /* by the parser: x.res.status and `answered_for` are all that is known */
	struct view view;
	struct arena_defer end;
	/* of the step being run */
	const char *unjudged;
	struct str note;
};

/*
 * Matches, judges and runs the request leg; then for one target of the route the service and attempt legs, and the
 * response leg, for which an upstream's answer is taken to be a bare 200. Everything lives as long as `a`. NULL fills
 * *why: the route does not lead to the service ("serviceId").
 */
struct dry_run *dry_run_new(struct arena *a, const struct dry_request *r, struct problem *why);
