/*
 * fuzz_guard.c -- what a moderation service answers is a verdict or none, bounded in any case; texts lose nothing when
 * they are cut; windows lose nothing and let nothing go unseen.
 */
/* room: policy */
#include <stddef.h>
#include <stdint.h>
#include "policy/guard_call.h"
#include "policy/guard_window.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(struct str body)
{
	struct guard_bars bars;
	struct guard_verdict v, other;
	struct arena a = { 0 };
	char levels[GUARD_LEVELS_TEXT];

	for (int i = 0; i < RISK_TYPES; i++)
		bars.of[i] = GUARD_HIGH;
	guard_judge(&v, &a, body, &bars);
	BUG_ON(v.blocks && !v.is_read);
	BUG_ON(v.is_read == (v.broken != NULL));
	BUG_ON(v.is_read && guard_worst(&v) >= GUARD_HIGH && !v.blocks);
	BUG_ON(strlen(v.label) > GUARD_LABEL_MAX || strlen(v.request_id) > GUARD_ID_MAX);
	guard_describe_levels(&v, levels);
	other = v;
	guard_merge(&other, &v);
	BUG_ON(other.blocks != v.blocks || other.is_read != v.is_read || strcmp(other.label, v.label) != 0);
	arena_free(&a);
}

static void cut(struct str text)
{
	size_t at = 0, end = 0;

	while (at < text.n) {
		size_t begin = at;
		struct str piece = guard_piece(text, &at);

		BUG_ON(piece.n == 0 || begin > end || piece.p != text.p + begin);
		BUG_ON(at <= begin);
		end = begin + piece.n;
	}
	BUG_ON(end != text.n);
}

/* Each byte is an event that says something or nothing, or the end of time, or a verdict. */
static void hold(struct str steps)
{
	struct guard_window w = { .limit = 5 };
	struct sbuf in = { 0 }, out = { 0 }, said = { 0 };
	int64_t now = 1;
	size_t unseen;

	for (size_t i = 0; i < steps.n; i++) {
		const char c = steps.p[i];
		const struct str raw = { &steps.p[i], 1 };

		if (c == 'v' && w.is_judging)
			window_pass(&w, &out);
		else if (c == 't')
			now += WINDOW_MS;
		sbuf_add(&in, raw);
		window_add(&w, raw, c >= 'A' && c <= 'Z' ? raw : STR(""), now);
		window_let_go(&w, &out);
		if (window_is_due(&w, now))
			sbuf_add(&said, window_close(&w));
		/* What went out was judged: no text is in it that the service was not asked about. */
		unseen = 0;
		for (size_t k = 0; k < out.n; k++)
			unseen += out.p[k] >= 'A' && out.p[k] <= 'Z' &&
				(said.n == 0 || !memchr(said.p, out.p[k], said.n));
		BUG_ON(unseen > 0);
		BUG_ON(out.n + w.held.n != in.n || (out.n > 0 && memcmp(in.p, out.p, out.n) != 0));
	}
	w.is_over = true;
	while (!window_is_empty(&w)) {
		if (!w.is_judging)
			window_close(&w);
		window_pass(&w, &out);
	}
	BUG_ON(!str_equal(sbuf_str(&in), sbuf_str(&out)));
	window_free(&w);
	sbuf_free(&in);
	sbuf_free(&out);
	sbuf_free(&said);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str text = { (const char *)data, size };

	judge(text);
	cut(text);
	if (size < 512)
		hold(text);
	return 0;
}
