/*
 * sse.h -- events of a text/event-stream (WHATWG HTML 9.2), from pieces cut at any byte.
 *
 *      sse_give(piece) ──► sse_next ... sse_next == SSE_MORE ──► sse_give(next piece) ... sse_end
 *
 * An event that lies whole in a piece is not copied. What is kept of an incomplete one is bounded by the limit; a
 * longer one ends the reading (SSE_LONG): from then on bytes are no events any more.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "core/str.h"

#define SSE_EVENT_MAX (1024 * 1024)

struct sse_event {
	struct str raw;                   /* all its bytes: comments before it and the blank line are part of it */
	struct str type;                  /* of "event:"; empty = none */
	struct str id;                    /* of "id:"; empty = none */
	struct str data;                  /* "data:" lines joined by a newline; empty = none, or empty ones */
	bool has_data;                    /* there was such a line */
};

enum sse_result { SSE_EVENT, SSE_MORE, SSE_LONG };

struct sse {                              /* zero-initialise; sse_free gives its memory back */
	struct str piece;
	char *kept, *joined;
	size_t n_kept, kept_room, joined_room;
	size_t limit;                     /* of one event; 0 = SSE_EVENT_MAX */
	size_t scanned;                   /* bytes of the present event that were looked at */
	bool line_began, skip_lf, is_long;
	size_t held;                      /* bytes counted in the memory budget */
};

/* Must not change until sse_next() said SSE_MORE. */
void sse_give(struct sse *s, struct str piece);
/* Texts of the event are good until the next call. */
enum sse_result sse_next(struct sse *s, struct sse_event *e);
/* The stream is over: what stands there without a blank line behind it, as an event. False: nothing. */
bool sse_end(struct sse *s, struct sse_event *e);
/* Bytes that were given and belong to no event yet. */
struct str sse_rest(const struct sse *s);
void sse_free(struct sse *s);
