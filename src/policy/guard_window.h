/*
 * guard_window.h -- events of an answer, held until the moderation service has seen what they say.
 *
 *      add ──► [ under judgement | gathering ] ── pass ──► out, unchanged and in order
 *                       ▲  close: the text of what gathered, with the end of the text before it
 *
 * A window closes when its text has reached the limit, 3 s after its first text, when it holds too many bytes, and at
 * the end of the answer. Events that say nothing wait only behind such that do. One window is under judgement at a
 * time; what comes meanwhile gathers in the next one.
 *
 * Held bytes count for the thread's memory budget.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "ai/render.h"
#include "core/str.h"

#define WINDOW_MS 3000
#define WINDOW_HELD_MAX (1024 * 1024)     /* bytes: a window with more closes */

struct guard_window {                     /* zero-initialise, then set limit */
	size_t limit;                     /* code points of one window */
	struct sbuf held;                 /* events under judgement, then those that gather */
	size_t n_judged;                  /* bytes of them under judgement */
	bool is_judging;
	struct sbuf text;                 /* what the gathering events say */
	size_t points;                    /* of it, in code points */
	int64_t since_ms;                 /* when its first text came */
	struct sbuf judged;               /* the text under judgement, or of the last window; overlap in front */
	bool is_over;                     /* nothing more will be added */
	/* What the client has seen: after what gathers, after what is judged, up to now. */
	struct render_seen gathered_seen, judged_seen, seen;
	size_t counted;                   /* bytes in the budget */
};

/* An event and the text that it adds, which may be empty. */
void window_add(struct guard_window *w, struct str raw, struct str text, int64_t now_ms);
/* What needs no judgement leaves, appended to `out`. */
void window_let_go(struct guard_window *w, struct sbuf *out);
/* Whether to close it: there is text, nothing is under judgement, and it is time. */
bool window_is_due(const struct guard_window *w, int64_t now_ms);
/* When it is due if nothing more comes; 0 = then not at all. */
int64_t window_due_ms(const struct guard_window *w);
/* Its text, until the next close. */
struct str window_close(struct guard_window *w);
/* The verdict: it may go, appended to `out`. */
void window_pass(struct guard_window *w, struct sbuf *out);
/* It may not: all that is held is gone. */
void window_drop(struct guard_window *w);
static inline bool window_is_empty(const struct guard_window *w)
{
	return w->held.n == 0;
}
void window_free(struct guard_window *w);
