/*
 * chat_try.c -- what each service gets of a request: its model, its API, its credentials.
 *
 * The request that policies left is kept before the first try; each service that is turned to has it made anew from
 * there, so that nothing of one service (key, host, model, API) reaches another. Tries at the same service send the
 * same.
 */
#include "ai/chat_parts.h"
#include "core/clock.h"

/* ---------- the request as policies left it ---------- */

static void copy_rows(struct message *m)
{
	struct header *rows = arena_take(m->arena, (m->n + 1) * sizeof *rows);

	if (m->n > 0)
		memcpy(rows, m->headers, m->n * sizeof *rows);
	m->headers = rows;
	m->cap = m->n + 1;
}

static void keep_request(struct chat *c)
{
	c->shape->request = c->x->stream.req;
	copy_rows(&c->shape->request);
}

static void restore_request(struct chat *c)
{
	struct message *req = &c->x->stream.req;

	*req = c->shape->request;
	copy_rows(req);
}

void chat_undo_try(struct exchange *x)
{
	struct chat *c = x->chat;

	chat_give_peek_up(c);
	if (c->shape->turn == 0)
		return;
	restore_request(c);
	if (c->shape->body_was_replaced)
		exchange_replace_request_body(x, c->raw);
	c->shape->body_was_replaced = c->shape->converts = false;
	c->shape->turn = ~0U;
}

bool chat_shape_copy(struct exchange *x, const struct service *to, struct message *req)
{
	const struct message sent = x->stream.req;
	struct chat_shape shape = { .below = sent.path };
	struct chat plain = { .x = x, .sent_model = STR("unknown"), .shape = &shape };
	struct chat *c = x->chat ? x->chat : &plain;

	if (c->shape->turn > 0)
		restore_request(c);
	else
		copy_rows(&x->stream.req);
	/* Copies have none, and what is taken off here stays with the request. */
	x->stream.req.trailers = NULL;
	chat_address(c, to->ai);
	*req = x->stream.req;
	x->stream.req = sent;
	return to->ai && to->ai->authority.n > 0;
}

/* ---------- the body ---------- */

static unsigned protocol_of(enum ai_kind kind)
{
	switch (ai_kind_family(kind)) {
	case AI_FAMILY_OPENAI:
		return CHAT_OPENAI;
	case AI_FAMILY_ANTHROPIC:
		return CHAT_ANTHROPIC;
	case AI_FAMILY_DASHSCOPE:
		return CHAT_DASHSCOPE;
	case AI_FAMILY_DIFY:
		break;
	}
	return 0;
}

/* The client's own where the service speaks it; else one that it can be converted to; else the client's. */
static enum ai_kind kind_for(const struct chat *c, const struct chat_service *to)
{
	static const struct { unsigned protocol; enum ai_kind kind; } others[] = {
		{ CHAT_OPENAI, AI_CHAT }, { CHAT_ANTHROPIC, AI_MESSAGES }, { CHAT_DASHSCOPE, AI_GENERATION },
	};

	if (!c->body || c->kind == AI_NONE || !to || !to->protocols || (to->protocols & protocol_of(c->kind)))
		return c->kind;
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		if ((to->protocols & others[i].protocol) && convert_can(c->kind, others[i].kind))
			return others[i].kind;
	return c->kind;
}

static struct str quoted(struct arena *a, struct str text)
{
	struct sbuf out = { 0 };
	struct str copy;

	json_quote(&out, text);
	copy = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return copy;
}

/* Bodies of agents name none: the service knows. */
static bool names_models(const struct chat *c)
{
	switch (c->kind) {
	case AI_NONE:
		return c->is_model_api;
	case AI_APP: case AI_DIFY_CHAT: case AI_DIFY_COMPLETION: case AI_DIFY_WORKFLOW:
		return false;
	default:
		return true;
	}
}

static void name_model(struct chat *c)
{
	const struct json *model = json_get(c->body, "model");

	if (str_equal(c->sent_model, c->model) && (!model || c->shape->turn <= 1))
		return;
	if (model)
		edits_replace(&c->edits, model, quoted(&c->x->arena, c->sent_model));
	else if (names_models(c))
		edits_add(&c->edits, c->body, STR("model"), quoted(&c->x->arena, c->sent_model));
}

/* USE-4: the chunk of usage is asked for where a policy counts and the client did not say. */
static void ask_usage(struct chat *c)
{
	const struct json *options = json_get(c->body, "stream_options");

	if (!c->wants_usage || !c->is_stream || c->shape->asked_usage)
		return;
	if (c->kind != AI_CHAT && c->kind != AI_COMPLETIONS)
		return;
	if (options && options->type == JSON_OBJECT) {
		if (json_get(options, "include_usage"))
			return;
		edits_add(&c->edits, options, STR("include_usage"), STR("true"));
	} else if (options) {
		edits_replace(&c->edits, options, STR("{\"include_usage\":true}"));
	} else {
		edits_add(&c->edits, c->body, STR("stream_options"), STR("{\"include_usage\":true}"));
	}
	c->shape->asked_usage = c->usage_was_added = true;
}

static bool client_asked_usage(const struct chat *c)
{
	return json_is_true(json_get(c->body, "stream_options"), "include_usage");
}

static void put_body(struct chat *c, struct str text)
{
	if (text.p == c->raw.p && !c->shape->body_was_replaced)
		return;
	c->shape->body_was_replaced = true;
	exchange_replace_request_body(c->x, text);
}

static bool convert(struct chat *c, struct problem *why)
{
	struct exchange *x = c->x;
	struct conversion *to = &c->shape->conversion;
	const struct json *body = c->body;
	struct sbuf out = { 0 };
	bool ok = true;

	*to = (struct conversion){ .client = c->kind, .upstream = c->upstream_kind, .model = c->sent_model,
				   .created = clock_wall_ms() / 1000, .is_stream = c->is_stream,
				   .include_usage = client_asked_usage(c) };
	if (!edits_are_none(&c->edits))
		body = json_parse(&x->arena, edits_apply(&c->edits, &x->arena), why);
	ok = body && convert_request(to, body, &out, why);
	if (ok)
		put_body(c, arena_copy(&x->arena, sbuf_str(&out)));
	sbuf_free(&out);
	return ok;
}

static bool shape_body(struct chat *c, const struct chat_service *to, struct problem *why)
{
	c->upstream_kind = kind_for(c, to);
	c->shape->converts = c->upstream_kind != c->kind;
	if (!c->body)
		return true;
	if (c->shape->converts)
		return convert(c, why);
	name_model(c);
	if (c->kind != AI_NONE)
		ask_usage(c);
	put_body(c, edits_apply(&c->edits, &c->x->arena));
	return true;
}

/* ---------- a try ---------- */

/* Which of the services it is, and the model that goes there. */
static void note_turn(struct chat *c, unsigned turn)
{
	const struct chat_entry *entry = c->shape->entry;

	c->try_at = turn <= c->n_candidates ? turn : 0;
	c->fallback_from = c->try_at > 0 ? c->meant : (struct str){ NULL, 0 };
	if (c->try_at > 0)
		c->sent_model = c->candidates[turn - 1].model;
	else
		c->sent_model = entry && entry->model.n > 0 ? entry->model : c->model;
	c->is_guarded = false;
}

/* A key for the app; without one the app is none of this service's. */
static bool knows_app(const struct chat *c, const struct chat_service *to)
{
	return !to || to->n_apps == 0 || chat_find_app(to, c->shape->below);
}

enum verdict chat_shape_try(struct exchange *x, const struct step *s)
{
	struct chat *c = x->chat;
	const struct chat_service *to = x->service->ai;
	const unsigned turn = exchange_service_turn(x);
	struct problem why = { 0 };

	(void)s;
	if (!c || c->shape->turn == turn + 1)
		return next();
	if (c->shape->turn == 0)
		keep_request(c);
	else
		restore_request(c);
	c->shape->turn = turn + 1;
	note_turn(c, turn);
	if (!shape_body(c, to, &why))
		return chat_reply_error(x, 400, "invalid_request_error", "ErrInvalidParameter",
			arena_printf(&x->arena, "`%s` cannot be converted for this model: %s", why.field, why.text));
	if (!knows_app(c, to))
		return chat_reply_error(x, 404, "not_found", "ErrNotFound", STR("There is no app with this id"));
	if (c->kind != AI_NONE)
		message_set_id(&x->stream.req, HEADER_ACCEPT_ENCODING, STR("identity"));
	chat_address(c, to);
	return next();
}

void chat_explain_try(struct exchange *x, const struct step *s, struct str below, enum ai_kind kind)
{
	const struct chat_service *to = x->service->ai;
	struct chat_shape shape = { .below = below };
	struct chat c = { .x = x, .kind = kind, .upstream_kind = kind, .sent_model = STR("MODEL"), .shape = &shape };

	/* Services of models have the step themselves: theirs is the one that speaks. */
	if (!to == (s->level == LEVEL_SERVICE))
		return;
	if (kind != AI_NONE)
		message_set_id(&x->stream.req, HEADER_ACCEPT_ENCODING, STR("identity"));
	chat_address(&c, to);
}
