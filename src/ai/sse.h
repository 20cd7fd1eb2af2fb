/*
 * sse.h -- events of a text/event-stream (WHATWG HTML 9.2), from pieces cut at any byte.
 *
 *      sse_give(piece) ──► sse_next ... sse_next == SSE_MORE ──► sse_give(next piece) ... sse_end
 *
 * The raw bytes of the events in their order are the bytes of the stream, none left out. An event that lies whole in a
 * piece is not copied. What is kept of an incomplete one is bounded by the limit; a longer one ends the reading
 * (SSE_LONG): from then on bytes are no events any more, and sse_rest() is what has to go on unread.
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
	struct str piece;                 /* what of it was not looked at */
	char *kept, *joined;
	size_t n_kept, kept_room, joined_room;
	size_t limit;                     /* of one event; 0 = SSE_EVENT_MAX */
	bool line_began;                  /* the line that the next byte belongs to has bytes */
	bool skip_lf;                     /* the byte before was a CR: an LF now is part of that line end */
	bool event_began_after_cr;        /* the same for the first byte of the present event */
	bool has_begun;                   /* the first event, which may begin with a BOM, is over */
	bool is_given;                    /* `kept` is an event that the caller has; the next call forgets it */
	bool is_long;
	size_t held;                      /* bytes counted in the memory budget */
};

/* Must not change until sse_next() said SSE_MORE. */
void sse_give(struct sse *s, struct str piece);
/* Texts of the event are good until the next call. */
enum sse_result sse_next(struct sse *s, struct sse_event *e);
/* The stream is over: what stands there without a blank line behind it, as an event. False: nothing. */
bool sse_end(struct sse *s, struct sse_event *e);
/* Bytes that were given and belong to no event yet. After SSE_LONG: until the next sse_give(). */
struct str sse_rest(const struct sse *s);
void sse_free(struct sse *s);
