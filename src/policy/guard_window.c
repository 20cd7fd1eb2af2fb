#include "policy/guard_window.h"
#include "core/budget.h"
#include "policy/guard_call.h"

static void count(struct guard_window *w)
{
	size_t now = w->held.cap + w->text.cap + w->judged.cap;

	budget_add((int64_t)now - (int64_t)w->counted);
	w->counted = now;
}

/* Starts of code points; the text may be cut anywhere. */
static size_t count_points(struct str s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
	return n;
}

void window_add(struct guard_window *w, struct str raw, struct str text, int64_t now_ms)
{
	sbuf_add(&w->held, raw);
	if (text.n > 0) {
		if (w->text.n == 0)
			w->since_ms = now_ms;
		sbuf_add(&w->text, text);
		w->points += count_points(text);
	}
	count(w);
}

static void take_out(struct guard_window *w, size_t n, struct sbuf *out)
{
	sbuf_add(out, (struct str){ w->held.p, n });
	if (n < w->held.n)
		memmove(w->held.p, w->held.p + n, w->held.n - n);
	w->held.n -= n;
}

void window_let_go(struct guard_window *w, struct sbuf *out)
{
	if (w->is_judging || w->text.n > 0 || w->held.n == 0)
		return;
	take_out(w, w->held.n, out);
	w->seen = w->gathered_seen;
}

bool window_is_due(const struct guard_window *w, int64_t now_ms)
{
	if (w->is_judging || w->text.n == 0)
		return false;
	return w->is_over || w->points >= w->limit || w->held.n >= WINDOW_HELD_MAX || now_ms - w->since_ms >= WINDOW_MS;
}

int64_t window_due_ms(const struct guard_window *w)
{
	return w->is_judging || w->text.n == 0 ? 0 : w->since_ms + WINDOW_MS;
}

/* The last code points of the text that was judged before stay in front. */
static void keep_overlap(struct guard_window *w)
{
	size_t at = w->judged.n;
	unsigned points = 0;

	while (at > 0 && points < GUARD_OVERLAP_POINTS) {
		at--;
		points += ((unsigned char)w->judged.p[at] & 0xc0) != 0x80;
	}
	if (at > 0)
		memmove(w->judged.p, w->judged.p + at, w->judged.n - at);
	w->judged.n -= at;
}

struct str window_close(struct guard_window *w)
{
	BUG_ON(w->is_judging || w->text.n == 0);
	keep_overlap(w);
	sbuf_add(&w->judged, sbuf_str(&w->text));
	w->text.n = 0;
	w->points = 0;
	w->n_judged = w->held.n;
	w->judged_seen = w->gathered_seen;
	w->is_judging = true;
	count(w);
	return sbuf_str(&w->judged);
}

void window_pass(struct guard_window *w, struct sbuf *out)
{
	BUG_ON(!w->is_judging);
	take_out(w, w->n_judged, out);
	w->n_judged = 0;
	w->is_judging = false;
	w->seen = w->judged_seen;
	window_let_go(w, out);
}

void window_drop(struct guard_window *w)
{
	w->held.n = w->text.n = w->points = w->n_judged = 0;
	w->is_judging = false;
}

void window_free(struct guard_window *w)
{
	sbuf_free(&w->held);
	sbuf_free(&w->text);
	sbuf_free(&w->judged);
	count(w);
}
