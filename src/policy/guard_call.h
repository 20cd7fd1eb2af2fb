/*
 * guard_call.h -- one text is put to the moderation service: in pieces it takes, one call after the other.
 *
 *      guard_call_start(text) ──► piece 1 ──► piece 2 ... the last one, or one that blocks, or fails ──► over
 *
 * A piece has at most 1800 code points (the service takes 2000), and begins with the last 100 of the one before, so
 * that what lies across a cut is seen whole. All pieces of a text, and all windows of a stream, go under one session.
 */
#pragma once
#include "core/field.h"
#include "policy/acs_signature.h"
#include "policy/guard_verdict.h"
#include "proxy/side_call.h"

#define GUARD_PIECE_POINTS 1800
#define GUARD_OVERLAP_POINTS 100
#define GUARD_SESSION 20

/* Settings of the gateway; made by the policy's bind, held by its chain. */
struct guard_plan {
	struct part part;
	struct arena arena;
	struct acs_key key;
	bool fails_closed;
	int64_t timeout_ms;               /* of one call */
};

/* Which check of which service; lives as long as the config. */
struct guard_question {
	struct str url;
	struct str authority, target;     /* of what is sent, and signed */
	struct str action;
};

struct guard_call {
	/* set before the first start */
	struct exchange *x;
	const struct guard_question *question;
	const struct guard_plan *plan;
	const struct guard_bars *bars;
	void (*over)(struct guard_call *g);       /* from the loop, once for each start that is not cancelled */
	/* when it is over */
	struct guard_verdict verdict;
	struct str broken;                /* !verdict.is_read: why, for logs and the dependency's state */
	const char *broken_tag;           /* the same in static words */
	bool is_ours;                     /* it is our limit, not the service's fault */
	int64_t duration_us;
	/* private */
	char session[GUARD_SESSION];
	bool has_session, is_running;
	struct side_call *call;
	struct sbuf body;
	struct str text;
	size_t at;
	int64_t start_us;
};

/* The next piece from *at on; *at becomes where the one after it begins, text.n when this is the last. */
struct str guard_piece(struct str text, size_t *at);
/* ServiceParameters=... as a form. */
void guard_body(struct sbuf *out, struct str text, struct str session);
/* `text` is not empty and must not change until it is over. Not while one is running. */
void guard_call_start(struct guard_call *g, struct str text);
/* Ends it without a word if it runs, and gives back what it holds. Harmless when nothing was started. */
void guard_call_free(struct guard_call *g);
