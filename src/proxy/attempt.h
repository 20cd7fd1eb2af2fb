/*
 * attempt.h -- Timeout, Retry and Fallback at work: which tries an exchange makes at its upstream, and how long they
 * may take. The settings come compiled (struct settings); exchanges without any have no struct attempt, and nothing
 * here runs for them.
 *
 *      service chosen ──► attempt_choose ──► service leg ──► attempt leg ──► endpoint, call (upstream.c)
 *                            ▲                                  ▲                │
 *                            │ another service                  │ pause          ├─► head: attempt_refuses ─┐
 *                            └───────── attempt_goes_on ◄───────┴────────────────┴─► failure ◄──────────────┘
 *
 * Invariants: no try follows once a byte of a response went to the client. A try has ended before the next one begins:
 * the body of a dropped answer is read beside it (leftover.h), so that connections outlive the refusals of a service in
 * trouble. The clock of the Timeout starts once, when the whole request is there and a try is under way; it runs
 * through pauses and retries, and ends with the last byte from the upstream.
 */
#pragma once
#include "core/timer.h"
#include "http/client.h"
#include "proxy/exchange.h"
#include "proxy/retain.h"

struct attempt {
	struct exchange *x;
	const struct retry_rules *retry;          /* NULL = none */
	const struct fallback_rules *fallback;    /* of the service that was meant; NULL = none */
	int64_t timeout_ms;                       /* 0 = none */
	struct series *const *counts[SETTING_COUNT];      /* of the policies that these are of */
	struct timer total;               /* the Timeout */
	struct timer pace;                /* the limit of one try, or the pause before the next one */
	struct retain_reader replay;      /* how much of the kept body was sent again */
	unsigned retries;                 /* made */
	const uint64_t *fails;            /* exchange_set_fallback(): statuses that are failures; NULL = not asked */
	const struct policies *carried;   /* exchange_carry(); NULL = none */
	unsigned n_own;                   /* targets of it: the first ones; what follows are those of the Fallback */
	unsigned next_target;             /* of the fallback */
	unsigned turns;                   /* services that were turned to */
	unsigned tried_room;
	const char *why;                  /* of the try that ended, for `left` */
	int answered;                     /* its status; 0 = none */
	struct left_service *left;        /* services that were turned away from */
	unsigned n_left, left_room;
	bool has_own_timeout;             /* the Timeout is the route's: a fallback service does not change it */
	bool is_timed;                    /* the clock was started */
	bool is_pausing;                  /* between two tries */
	bool request_done;                /* the whole request is here */
	bool body_is_kept;                /* x->held is what came first of the body, sent or not */
	bool body_went_on;                /* more than that was sent */
	bool is_replaying;                /* kept bytes are being sent again */
	bool was_reached;                 /* a try at this service had a connection */
	bool is_retry;                    /* the try under way is one */
	bool holds_retry;                 /* and counts as one of the service's active ones */
	bool wants_fresh;                 /* the next try is not to use a pooled connection */
	/* for the record */
	bool fell_back, is_exhausted;
};

/* Whether policies of the route or the service ask for any of it. */
static inline bool attempt_is_asked(const struct exchange *x)
{
	return x->route->policies->settings.shapes_attempts ||
	       (x->service && x->service->policies->settings.shapes_attempts);
}

/*
 * A target and its service were picked, x->service = NULL when it does not exist: makes x->attempt, and turns to a
 * fallback service where that one has no endpoint. False: there is no service at all.
 */
bool attempt_choose(struct exchange *x);
/* balance_pick() found none after all. True: the exchange goes on at a fallback service. */
bool attempt_finds_none(struct exchange *x);
/* An endpoint was picked, the call is about to begin. */
void attempt_start(struct exchange *x);
/* The last byte of the request is here. */
void attempt_request_done(struct exchange *x);
/* x->held is about to be sent: what later tries need is kept. Also for an exchange with x->retained alone. */
void attempt_keep_body(struct exchange *x);
/*
 * Whether what was sent of the body is to be sent again, from its beginning, beyond x->held. attempt_replay() goes on
 * with it, after the head and whenever the upstream takes more.
 */
bool attempt_begin_replay(struct exchange *x);
void attempt_replay(struct exchange *x);
/* Bytes of the body beyond x->held, on their way to the upstream. Also for an exchange with x->retained alone. */
void attempt_pass_body(struct exchange *x, struct str data, bool end);
/* Whether all that was sent of the request can be sent again after this failure. */
bool attempt_can_replay(const struct exchange *x, enum call_failure what);
/* A pooled connection was found dead: the same try once more. */
void attempt_repeat(struct exchange *x);
/* The try ended without an answer. True: another one follows, here or elsewhere. */
bool attempt_goes_on(struct exchange *x, enum call_failure what);
/* x->res is the head of an answer. True: it is dropped for another try. Else the client gets it. */
bool attempt_refuses(struct exchange *x);
/* A policy refused the request for its service. True: the exchange goes on at another service. */
bool attempt_turns(struct exchange *x);
/* The answer goes to the client: no other service is turned to any more. */
void attempt_release(struct exchange *x);
/* No other try follows this one, whatever becomes of it. */
void attempt_settle(struct exchange *x);
/* The exchange with the upstream is over, whatever became of it. May be called again. */
void attempt_end(struct exchange *x);
/* Flags of the access record, before the reason's: "FB", "URX". Returns the end of what it wrote, at most 8 bytes. */
char *attempt_flags(const struct exchange *x, char *out);
