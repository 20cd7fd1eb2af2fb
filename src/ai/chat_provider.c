/*
 * chat_provider.c -- the head of a request for a provider of models or agents: path, Host and credentials.
 *
 * What a client proved itself with at the gateway never goes to a provider: every place where any consumer carries a
 * credential is emptied, and cookies go too.
 */
#include "ai/chat_parts.h"
#include "proxy/consumers.h"

/* ---------- the path ---------- */

static struct str own_path(const struct chat *c)
{
	switch (c->upstream_kind) {
	case AI_CHAT:
		return STR("/v1/chat/completions");
	case AI_MESSAGES:
		return STR("/v1/messages");
	case AI_GENERATION:
		return c->shape->conversion.is_multimodal
			? STR("/api/v1/services/aigc/multimodal-generation/generation")
			: STR("/api/v1/services/aigc/text-generation/generation");
	default:
		return c->shape->below;
	}
}

static bool has_version(struct str path)
{
	return path.n >= 3 && path.p[path.n - 3] == '/' && path.p[path.n - 2] == 'v' && path.p[path.n - 1] >= '1' &&
	       path.p[path.n - 1] <= '9';
}

/* "https://host/v1" and "/v1/chat/completions" say the version once. */
static struct str join(struct arena *a, struct str base, struct str path)
{
	if (has_version(base) && path.n > 3 && path.p[0] == '/' && path.p[1] == 'v' && path.p[3] == '/')
		path = (struct str){ path.p + 3, path.n - 3 };
	if (base.n == 0)
		return path;
	return arena_printf(a, "%.*s%.*s", STR_FMT(base), STR_FMT(path));
}

/* A path segment of any text. */
static struct str escaped(struct arena *a, struct str text)
{
	struct sbuf out = { 0 };
	struct str copy;

	for (size_t i = 0; i < text.n; i++) {
		unsigned char ch = (unsigned char)text.p[i];
		bool is_plain = (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') ||
				ch == '-' || ch == '.' || ch == '_' || ch == '~';

		if (is_plain)
			sbuf_addc(&out, (char)ch);
		else
			sbuf_addf(&out, "%%%02X", ch);
	}
	copy = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return copy;
}

static struct str without_version(struct str path)
{
	return str_starts(path, STR("/v1/")) ? (struct str){ path.p + 3, path.n - 3 } : path;
}

/* Azure has a deployment for each model, and the version of its API in the query. */
static void address_azure(struct chat *c, const struct chat_service *to, struct str path)
{
	struct exchange *x = c->x;
	struct message *req = &x->stream.req;

	if (!str_starts(path, STR("/openai/")))
		path = arena_printf(&x->arena, "/openai/deployments/%.*s%.*s",
				    STR_FMT(escaped(&x->arena, c->sent_model)), STR_FMT(without_version(path)));
	req->path = join(&x->arena, to->path, path);
	if (!query_value(req->query, STR("api-version")).p)
		req->query = to->query.n > 0 ? to->query : STR("api-version=2024-10-21");
}

/* DashScope serves other APIs below paths of their own. */
static struct str dashscope_base(const struct chat *c, const struct chat_service *to)
{
	if (to->path.n > 0 || c->upstream_kind == AI_NONE)
		return to->path;
	switch (ai_kind_family(c->upstream_kind)) {
	case AI_FAMILY_OPENAI:
		return STR("/compatible-mode");
	case AI_FAMILY_ANTHROPIC:
		return STR("/apps/anthropic");
	default:
		return to->path;
	}
}

static bool speaks_openai(enum ai_kind kind)
{
	return kind == AI_NONE || ai_kind_family(kind) == AI_FAMILY_OPENAI;
}

static void address_path(struct chat *c, const struct chat_service *to)
{
	struct exchange *x = c->x;
	struct message *req = &x->stream.req;
	const struct chat_api *api = x->route->ai;
	/* A route without an API of ours may have rewritten the path: it stands. */
	struct str path = api ? c->shape->below : req->path, base = to->path;

	if (c->shape->converts)
		path = own_path(c);
	if (to->provider == PROVIDER_AZURE && speaks_openai(c->upstream_kind)) {
		address_azure(c, to, path);
		return;
	}
	if (to->provider == PROVIDER_DASHSCOPE)
		base = dashscope_base(c, to);
	if (base.n > 0 && !api && str_starts(path, base))
		base = (struct str){ NULL, 0 };
	req->path = join(&x->arena, base, path);
	if (to->query.n > 0)
		req->query = req->query.n > 0 ? arena_printf(&x->arena, "%.*s&%.*s", STR_FMT(to->query),
							     STR_FMT(req->query)) : to->query;
}

/* ---------- credentials ---------- */

static void remove_places(struct message *req, const struct place *places, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!places[i].is_query)
			message_remove_as(req, places[i].id, places[i].name);
}

static bool is_parameter(const struct place *p, struct str name)
{
	return p->is_query && str_equal(p->name, name);
}

/* The query without the parameters that consumers may carry credentials in. */
static struct str clean_query(struct exchange *x, const struct consumer_habits *habits)
{
	struct str rest = x->stream.req.query, part;
	struct sbuf out = { 0 };
	bool changed = false;

	while (rest.n > 0 && str_split(&rest, '&', &part)) {
		struct str name = { part.p, str_find(part, '=') };
		bool is_secret = false;

		for (unsigned i = 0; i < habits->n_key_places; i++)
			is_secret = is_secret || is_parameter(&habits->key_places[i], name);
		for (unsigned i = 0; i < habits->n_token_places; i++)
			is_secret = is_secret || is_parameter(&habits->token_places[i], name);
		changed = changed || is_secret;
		if (is_secret)
			continue;
		if (out.n > 0)
			sbuf_addc(&out, '&');
		sbuf_add(&out, part);
	}
	struct str query = changed ? arena_copy(&x->arena, sbuf_str(&out)) : x->stream.req.query;
	sbuf_free(&out);
	return query;
}

static void remove_credentials(struct exchange *x)
{
	struct message *req = &x->stream.req;
	const struct consumer_habits *habits = exchange_consumers(x)->habits;

	message_remove(req, STR("authorization"));
	message_remove(req, STR("x-api-key"));
	message_remove(req, STR("api-key"));
	message_remove(req, STR("cookie"));
	message_remove(req, STR("proxy-authorization"));
	remove_places(req, habits->key_places, habits->n_key_places);
	remove_places(req, habits->token_places, habits->n_token_places);
	for (const struct token_facts *t = x->token; t; t = t->before)
		if (t->remove)
			t->remove(req, t->place);
	if (req->query.n > 0)
		req->query = clean_query(x, habits);
}

static void bear(struct exchange *x, struct str key)
{
	message_add(&x->stream.req, STR("Authorization"), arena_printf(&x->arena, "Bearer %.*s", STR_FMT(key)));
}

static void put_credential(struct chat *c, const struct chat_service *to)
{
	struct exchange *x = c->x;
	struct message *req = &x->stream.req;
	const struct chat_app *app = to->n_apps > 0 ? chat_find_app(to, c->shape->below) : NULL;
	struct str key = { NULL, 0 };

	if (x->dry && (app || to->n_keys > 0))
		key = STR("******");
	else if (app)
		key = app->key;
	else if (to->n_keys > 0)
		key = to->keys[exchange_random(x) % to->n_keys];
	if (!key.p)
		return;
	if (to->provider == PROVIDER_AZURE)
		message_add(req, STR("api-key"), key);
	else if (to->provider == PROVIDER_ANTHROPIC)
		message_add(req, STR("x-api-key"), key);
	else
		bear(x, key);
}

/* What the provider's API wants beside them. */
static void put_fields(struct chat *c)
{
	struct message *req = &c->x->stream.req;

	if (c->upstream_kind == AI_MESSAGES && !message_find_name(req, STR("anthropic-version")))
		message_add(req, STR("anthropic-version"), STR("2023-06-01"));
	if (c->shape->converts && c->upstream_kind == AI_GENERATION && c->is_stream)
		message_set(req, STR("X-DashScope-SSE"), STR("enable"));
	if (c->shape->converts)
		message_set_id(req, HEADER_CONTENT_TYPE, STR("application/json"));
}

void chat_address(struct chat *c, const struct chat_service *to)
{
	struct message *req = &c->x->stream.req;

	if (!to) {
		if (c->shape->converts)
			req->path = own_path(c);
		else if (c->x->route->ai && c->x->route->ai->removes_base)
			req->path = c->shape->below.n > 0 ? c->shape->below : STR("/");
		return;
	}
	remove_credentials(c->x);
	/* It is asked in the name of whoever runs the gateway: where the clients are is not its business. */
	if (to->n_keys > 0 || to->n_apps > 0)
		exchange_hide_addresses(c->x);
	address_path(c, to);
	put_credential(c, to);
	put_fields(c);
	if (to->authority.n > 0)
		req->authority = to->authority;
}
