/*
 * guard_stream.c -- answers that are events: held until the moderation service has seen what they say.
 *
 *      piece ──► events ──► window ──┬── says nothing, nothing before it waits ──────────────► client
 *                                    └── closed ──► service, one call at a time ──► verdict ──► client
 *                                                                                     └─ no: the rest is dropped,
 *      the upstream is read on meanwhile, up to 1 MiB                                    a refusal ends the stream
 */
#include "core/budget.h"
#include "core/clock.h"
#include "policy/guard_parts.h"
#include "proxy/worker.h"

#define NODES_MAX 50000                   /* values of an event's JSON */
#define OUT_KEPT 65536                    /* room that is kept from piece to piece */

static void fire(struct timer *t)
{
	exchange_poke_pieces(CONTAINER(t, struct guard_stream, timer)->x);
}

void guard_stream_open(struct exchange *x, const struct step *s)
{
	const struct ai_security_guard *conf = s->conf;
	struct guard_state *state = exchange_state(x, s);

	state->stream = NEW(exchange_arena(x), struct guard_stream);
	state->stream->x = x;
	state->stream->window.limit = (size_t)conf->bufferLimit;
	timer_init(&state->stream->timer, fire);
	exchange_drop_length(x);
}

void guard_stream_free(struct guard_stream *stream)
{
	timer_disarm(&stream->timer);
	sse_free(&stream->sse);
	window_free(&stream->window);
	sbuf_free(&stream->text);
	sbuf_free(&stream->said);
	sbuf_free(&stream->reading);
	sbuf_free(&stream->waiting);
	sbuf_free(&stream->out);
	budget_add(-(int64_t)stream->counted);
	stream->counted = 0;
}

/* ---------- events ---------- */

/* DashScope may repeat in each event what the ones before said: only what is new counts, where that is certain. */
static struct str what_is_new(struct guard_stream *stream, const struct chat *c)
{
	struct str now = sbuf_str(&stream->text);
	size_t known = stream->said.n;

	if (ai_kind_family(c->kind) != AI_FAMILY_DASHSCOPE || now.n == 0)
		return now;
	if (c->answer.pieces != ANSWER_CUMULATIVE || !str_starts(now, sbuf_str(&stream->said)))
		known = 0;
	stream->said.n = 0;
	sbuf_add(&stream->said, now);
	return (struct str){ now.p + known, now.n - known };
}

/* What cannot be read as JSON is judged as it stands. */
static void add_event(struct guard_stream *stream, const struct sse_event *e)
{
	const struct chat *c = exchange_chat(stream->x);
	struct guard_window *w = &stream->window;
	struct arena scratch = { 0 };
	const struct json *doc = NULL;
	bool is_done = str_equal(e->data, STR("[DONE]"));
	struct problem why;

	if (e->data.n > 0 && !is_done)
		doc = json_parse_spans(&scratch, e->data, NODES_MAX, &why);
	stream->text.n = 0;
	if (doc)
		answer_event_text(c->kind, e, doc, &stream->text);
	else if (!is_done)
		sbuf_add(&stream->text, e->data);
	window_add(w, e->raw, what_is_new(stream, c), clock_ms());
	render_see(&w->gathered_seen, exchange_arena(stream->x), c->kind, doc);
	w->is_over |= is_done;
	arena_free(&scratch);
}

/* More bytes for the reader, once it has read what it was given. */
static bool give_more(struct guard_stream *stream)
{
	struct sbuf empty = stream->reading;

	if (stream->waiting.n == 0)
		return false;
	empty.n = 0;
	stream->reading = stream->waiting;
	stream->waiting = empty;
	stream->has_bytes = true;
	sse_give(&stream->sse, sbuf_str(&stream->reading));
	return true;
}

/* One event, or the end. False: there is nothing to read now. */
static bool read_one(struct guard_stream *stream, enum sse_result *result)
{
	struct sse_event e;

	*result = stream->has_bytes ? sse_next(&stream->sse, &e) : SSE_MORE;
	if (*result == SSE_EVENT) {
		add_event(stream, &e);
		return true;
	}
	if (*result == SSE_LONG)
		return false;
	stream->has_bytes = false;
	if (give_more(stream))
		return true;
	if (stream->is_over && !stream->is_read && sse_end(&stream->sse, &e))
		add_event(stream, &e);
	stream->is_read |= stream->is_over;
	stream->window.is_over |= stream->is_over;
	return false;
}

/* From here on bytes are no events: they go behind what waits, and nobody can say what they mean. */
static void go_blind(struct guard_stream *stream)
{
	struct str nothing = { NULL, 0 };

	if (!stream->is_unread)
		window_add(&stream->window, sse_rest(&stream->sse), nothing, clock_ms());
	stream->is_unread = true;
	stream->has_bytes = false;
	window_add(&stream->window, sbuf_str(&stream->waiting), nothing, clock_ms());
	stream->waiting.n = 0;
	stream->window.is_over |= stream->is_over;
}

/* ---------- the end ---------- */

static enum verdict break_off(struct exchange *x, const struct step *s, enum guard_ruling ruling)
{
	struct guard_state *state = exchange_state(x, s);
	struct guard_stream *stream = state->stream;
	struct chat *c = exchange_chat(x);
	struct str end = guard_stream_end(x, s, ruling);

	c->guard_cut = true;
	stream->is_refused = true;
	guard_call_free(&state->call);
	timer_disarm(&stream->timer);
	window_drop(&stream->window);
	exchange_hold_upstream(x, false);
	sbuf_add(&stream->out, end);
	exchange_replace_piece(x, sbuf_str(&stream->out));
	exchange_end_pieces(x);
	return next();
}

/* ---------- pieces ---------- */

/* The next window is complete, and the one before has no verdict yet. */
static bool has_enough(const struct guard_window *w)
{
	return w->is_judging && w->points >= w->limit;
}

/* What may go, goes; a window that is due goes to the service. */
static void advance(struct exchange *x, const struct step *s, struct guard_stream *stream)
{
	struct guard_window *w = &stream->window;

	window_let_go(w, &stream->out);
	if (window_is_due(w, clock_ms()))
		guard_ask(x, s, GUARD_OF_RESPONSE, window_close(w));
}

/* Reads on as far as windows allow. */
static enum guard_ruling read_on(struct exchange *x, const struct step *s)
{
	struct guard_stream *stream = ((struct guard_state *)exchange_state(x, s))->stream;
	enum sse_result result = SSE_MORE;
	bool goes_on = true;

	advance(x, s, stream);
	while (goes_on) {
		goes_on = !stream->is_unread && !has_enough(&stream->window) && read_one(stream, &result);
		if (stream->is_unread || result == SSE_LONG)
			go_blind(stream);
		advance(x, s, stream);
	}
	return result == SSE_LONG ? guard_rule_unread(x, s, GUARD_OF_RESPONSE, "an event of the answer is too long") :
		RULING_PASS;
}

static void count(struct guard_stream *stream)
{
	size_t now = stream->reading.cap + stream->waiting.cap + stream->out.cap;

	budget_add((int64_t)now - (int64_t)stream->counted);
	stream->counted = now;
}

/* Until when nothing has to be done, and whether the model may go on. */
static void set_watch(struct exchange *x, struct guard_stream *stream)
{
	const struct guard_window *w = &stream->window;
	size_t waiting = w->held.n + stream->reading.n + stream->waiting.n;
	int64_t due = window_due_ms(w);

	if (due > 0)
		timer_arm(loop_timers(worker_loop(exchange_worker(x))), &stream->timer, due);
	else
		timer_disarm(&stream->timer);
	exchange_hold_upstream(x, w->is_judging && waiting >= WINDOW_HELD_MAX);
	count(stream);
}

static void finish(struct exchange *x, const struct step *s)
{
	struct guard_stream *stream = ((struct guard_state *)exchange_state(x, s))->stream;

	if (!stream->is_over)
		return;
	if (!window_is_empty(&stream->window) || stream->has_bytes) {
		exchange_hold_end(x);
	} else if (!stream->is_told) {
		stream->is_told = true;
		guard_tell_passed(x, s, GUARD_OF_RESPONSE);
	}
}

/* The buffer of what was sent last is free again. */
static void take(struct guard_stream *stream, struct str piece, bool is_last)
{
	stream->out.n = 0;
	if (stream->out.cap > OUT_KEPT)
		sbuf_free(&stream->out);
	sbuf_add(&stream->waiting, piece);
	stream->is_over |= is_last;
}

enum verdict guard_take_piece(struct exchange *x, const struct step *s)
{
	struct guard_stream *stream = ((struct guard_state *)exchange_state(x, s))->stream;
	enum guard_ruling ruling = RULING_PASS;
	bool is_last;
	struct str piece = exchange_piece(x, &is_last);

	if (!stream || stream->is_refused)
		return next();
	take(stream, piece, is_last);
	if (stream->is_judged) {
		stream->is_judged = false;
		ruling = guard_rule(x, s, GUARD_OF_RESPONSE);
		if (ruling == RULING_PASS)
			window_pass(&stream->window, &stream->out);
	}
	if (ruling == RULING_PASS)
		ruling = read_on(x, s);
	if (ruling != RULING_PASS)
		return break_off(x, s, ruling);
	set_watch(x, stream);
	finish(x, s);
	exchange_replace_piece(x, sbuf_str(&stream->out));
	return next();
}
