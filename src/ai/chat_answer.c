/*
 * chat_answer.c -- the answer of a model on its way to the client: read for usage and content, converted to the
 * client's API, without the chunk of usage that only the gateway asked for.
 *
 *      head ──► JSON: held, read, converted ──► over
 *           └─► events: (the first ones are looked at where another service may be turned to) ──► pieces
 *      piece ──► events ──► answer_take_event ──► the same bytes, or what they become ──► ... the last ──► over
 *
 * What is neither passes as it is.
 */
#include "ai/chat_parts.h"
#include "core/clock.h"

#define OTHER_ANSWER_MAX (1u << 20)       /* of an answer that no kind describes */

static bool is_success(const struct chat *c)
{
	return c->status >= 200 && c->status < 300;
}

bool chat_is_json_like(struct str type)
{
	return chat_is_json(type) || str_ends(chat_bare_type(type), STR("+json"));
}

static bool is_events(struct str type)
{
	return str_equal_nocase(chat_bare_type(type), STR("text/event-stream"));
}

struct str chat_coding(const struct exchange *x)
{
	struct str coding = message_value(&x->res, HEADER_CONTENT_ENCODING);

	return str_equal_nocase(coding, STR("identity")) ? (struct str){ NULL, 0 } : coding;
}

/* ---------- whole answers ---------- */

static void put_answer(struct exchange *x, const struct sbuf *body)
{
	exchange_replace_response_body(x, arena_copy(&x->arena, sbuf_str(body)));
	message_set_id(&x->res, HEADER_CONTENT_TYPE, STR("application/json"));
}

/* False: it is not what the upstream's API says. */
static bool convert_answer(struct chat *c, struct str body, const struct json *doc)
{
	const struct conversion *how = &c->shape->conversion;
	struct sbuf out = { 0 };
	bool ok = true;

	if (is_success(c))
		ok = doc && convert_body(how, doc, &out);
	else
		convert_error(how, c->status, body, &out);
	if (ok)
		put_answer(c->x, &out);
	sbuf_free(&out);
	return ok;
}

/* Plain text of what the upstream compressed; where that cannot be read it is taken as it is. */
static struct str open_body(struct exchange *x, struct str body)
{
	struct str encoding = chat_coding(x);
	struct sbuf plain = { 0 };

	if (!encoding.n)
		return body;
	if (inflate_all(encoding, body, CHAT_ANSWER_MAX, &plain)) {
		body = arena_copy(&x->arena, sbuf_str(&plain));
		message_remove_id(&x->res, HEADER_CONTENT_ENCODING);
		exchange_replace_response_body(x, body);
	}
	sbuf_free(&plain);
	return body;
}

static enum verdict take_answer(struct exchange *x, const struct step *s)
{
	struct chat *c = x->chat;
	struct arena scratch = { 0 };
	const struct json *doc = NULL;
	bool is_whole, is_good = true;
	struct str body = exchange_response_body(x, &is_whole);
	struct problem why;

	(void)s;
	if (is_whole)
		body = open_body(x, body);
	if (is_whole)
		doc = json_parse_spans(&scratch, body, CHAT_NODES_MAX, &why);
	if (doc)
		answer_take_body(&c->answer, doc);
	if (is_success(c) && c->answer.has_error && exchange_may_refuse(x)) {
		chat_count_waste(&c->answer.usage, c->answer.kind);
		arena_free(&scratch);
		return refuse_answer(x);
	}
	chat_tell_head(c);
	if (c->shape->converts)
		is_good = is_whole && convert_answer(c, body, doc);
	arena_free(&scratch);
	if (!is_good)
		c->answer.has_error = true;
	/* Of what no kind describes, long answers (images) are not read. */
	is_whole |= c->kind == AI_NONE;
	chat_finish(c, is_success(c) && is_whole && !c->answer.has_error ? CHAT_COMPLETE : CHAT_FAILED);
	if (is_good)
		return next();
	return chat_reply_error(x, 502, "api_error", "ErrBadUpstream",
		STR("The answer of the model is not what its API says, so it cannot be converted"));
}

/* ---------- streams ---------- */

static void free_stream(struct arena_defer *d)
{
	struct chat_stream *r = CONTAINER(d, struct chat_stream, defer);

	sse_free(&r->sse);
	sbuf_free(&r->out);
	arena_free(&r->scratch);
	inflate_close(r->inflate);
	if (r->converter)
		converter_free(r->converter);
}

/* What cannot be read passes as it is. */
static void open_coding(struct chat_stream *r, struct exchange *x)
{
	struct str coding = chat_coding(x);

	if (!coding.n)
		return;
	r->inflate = inflate_open(coding);
	r->is_blind = !r->inflate;
	if (r->inflate)
		message_remove_id(&x->res, HEADER_CONTENT_ENCODING);
}

static struct chat_stream *open_stream(struct chat *c)
{
	struct exchange *x = c->x;
	struct chat_stream *r = NEW(&x->arena, struct chat_stream);

	r->chat = c;
	arena_defer(&x->arena, &r->defer, free_stream);
	c->is_answer_stream = true;
	c->reading = r;
	if (c->shape->converts)
		r->converter = converter_new(&x->arena, &c->shape->conversion);
	open_coding(r, x);
	r->rewrites = r->converter || r->inflate || (c->usage_was_added && !r->is_blind);
	if (r->rewrites)
		exchange_drop_length(x);
	return r;
}

static const struct json *read_data(struct chat_stream *r, const struct sse_event *e)
{
	struct problem why;

	arena_free(&r->scratch);
	if (e->data.n == 0 || e->data.p[0] != '{')
		return NULL;
	return json_parse_spans(&r->scratch, e->data, CHAT_NODES_MAX, &why);
}

static void note_times(struct chat *c, unsigned holds)
{
	if (!(holds & ANSWER_HOLDS_CONTENT))
		return;
	c->last_token_us = clock_us();
	if (!c->first_token_us)
		c->first_token_us = c->last_token_us;
}

static void take_event(struct chat_stream *r, const struct sse_event *e)
{
	struct chat *c = r->chat;
	const struct json *doc = read_data(r, e);
	unsigned holds = c->kind == AI_NONE ? 0 : answer_take_event(&c->answer, e, doc);

	note_times(c, holds);
	if (r->converter)
		converter_take(r->converter, e, doc, &r->out);
	else if (r->rewrites && !(c->usage_was_added && (holds & ANSWER_HOLDS_USAGE_ONLY)))
		sbuf_add(&r->out, e->raw);
}

/* An event that is too long: what follows passes as it is; what must be converted ends here. */
static void go_blind(struct chat_stream *r)
{
	r->is_blind = true;
	if (r->rewrites && !r->converter)
		sbuf_add(&r->out, sse_rest(&r->sse));
}

static void take_events(struct chat_stream *r, struct str piece)
{
	struct sse_event e;
	enum sse_result result;

	if (r->is_blind) {
		if (r->rewrites && !r->converter)
			sbuf_add(&r->out, piece);
		return;
	}
	sse_give(&r->sse, piece);
	while ((result = sse_next(&r->sse, &e)) == SSE_EVENT)
		take_event(r, &e);
	if (result == SSE_LONG)
		go_blind(r);
}

static void take_piece(struct chat_stream *r, struct str piece, bool is_last)
{
	struct sse_event e;
	struct str part;

	if (!r->inflate)
		take_events(r, piece);
	else
		for (inflate_give(r->inflate, piece); inflate_next(r->inflate, &part);)
			take_events(r, part);
	if (is_last && !r->is_blind && sse_end(&r->sse, &e))
		take_event(r, &e);
}

static enum chat_end end_of(const struct chat *c)
{
	if (c->answer.has_error)
		return CHAT_FAILED;
	return c->answer.is_complete || c->kind == AI_NONE ? CHAT_COMPLETE : CHAT_CUT;
}

enum verdict chat_read_piece(struct exchange *x, const struct step *s)
{
	struct chat *c = x->chat;
	struct chat_stream *r = c ? c->reading : NULL;
	bool is_last;
	struct str piece = exchange_piece(x, &is_last);

	if (!c || c->level != s->level)
		return next();
	if (!r) {
		if (is_last)
			chat_finish(c, is_success(c) ? CHAT_COMPLETE : CHAT_FAILED);
		return next();
	}
	r->out.n = 0;
	take_piece(r, piece, is_last);
	if (r->rewrites)
		exchange_replace_piece(x, sbuf_str(&r->out));
	if (is_last)
		chat_finish(c, end_of(c));
	if (r->converter && (r->is_blind || (r->inflate && inflate_is_broken(r->inflate))))
		return fail(x, "an event of the model cannot be read, so that it cannot be converted");
	return next();
}

enum verdict chat_begin_stream(struct exchange *x)
{
	chat_tell_head(x->chat);
	open_stream(x->chat);
	return next();
}

/* ---------- the head ---------- */

/* How a stream of DashScope tells its text, where that is known before it comes. */
static enum answer_pieces pieces_of(const struct chat *c)
{
	if (c->shape->converts)
		return c->shape->conversion.is_cumulative ? ANSWER_CUMULATIVE : ANSWER_INCREMENTAL;
	return json_is_true(json_get(c->body, "parameters"), "incremental_output") ? ANSWER_INCREMENTAL : ANSWER_UNTOLD;
}

/* What is known of an answer that another service's takes the place of. */
static void begin_answer(struct chat *c)
{
	c->status = c->x->res.status;
	answer_free(&c->answer);
	c->answer = (struct answer){ .kind = c->upstream_kind, .wants = c->wants_text ? ANSWER_TEXT : ANSWER_NOTHING,
				     .pieces = pieces_of(c) };
	c->reading = NULL;
	c->peeking = NULL;
	c->is_answer_stream = false;
	c->first_token_us = c->last_token_us = 0;
}

enum verdict chat_read_answer(struct exchange *x, const struct step *s)
{
	struct chat *c = x->chat;
	struct str type;

	if (c && c->level == s->level && x->is_local && x->service)
		chat_tell_head(c);
	if (!c || c->level != s->level || x->is_local || x->is_tunnel)
		return next();
	begin_answer(c);
	type = message_value(&x->res, HEADER_CONTENT_TYPE);
	if (is_success(c) && is_events(type)) {
		if (c->kind != AI_NONE && exchange_may_refuse(x))
			return chat_peek(x, chat_coding(x));
		return chat_begin_stream(x);
	}
	if ((c->kind != AI_NONE && chat_is_json_like(type)) || c->shape->converts)
		return await_response_body(x, CHAT_ANSWER_MAX, take_answer);
	/* Rerank and the like say what they cost too. */
	if (c->is_model_api && c->body && chat_is_json_like(type))
		return await_response_body(x, OTHER_ANSWER_MAX, take_answer);
	chat_tell_head(c);
	return next();
}
