/*
 * chat_request.c -- what a request to a model or an agent is, and which service it goes to.
 *
 * Runs once for each exchange, with the body whole: in the request leg where the route has the chat step, else when a
 * service that has it was chosen.
 */
#include "ai/chat_parts.h"
#include "ai/render.h"
#include "proxy/retain.h"

struct str chat_bare_type(struct str type)
{
	size_t end = str_find(type, ';');

	while (end > 0 && (type.p[end - 1] == ' ' || type.p[end - 1] == '\t'))
		end--;
	return (struct str){ type.p, end };
}

bool chat_is_json(struct str type)
{
	return str_equal_nocase(chat_bare_type(type), STR("application/json"));
}

/* A dry run has no body: unless it says otherwise the one that is meant is JSON. */
static bool has_json(const struct exchange *x)
{
	const struct message *req = &x->stream.req;
	struct str type = message_value(req, HEADER_CONTENT_TYPE);

	return req->method == METHOD_POST && (chat_is_json(type) || (type.n == 0 && x->dry));
}

enum body_wish chat_wants_body(struct exchange *x, const struct step *s, size_t *most)
{
	(void)s;
	if (x->chat || !has_json(x))
		return BODY_UNWANTED;
	if (!x->route->shape_error && ai_kind_detect(x->stream.req.path, NULL) != AI_NONE)
		exchange_shape_errors(x, chat_shape_error);
	*most = x->site->gateway->ai_body_bytes;
	return BODY_WHOLE;
}

/* ---------- classifying ---------- */

static struct str below_base(const struct exchange *x)
{
	const struct chat_api *api = x->route->ai;
	struct str path = x->stream.req.path;

	if (!api || path.n < api->base_path.n)
		return path;
	return (struct str){ path.p + api->base_path.n, path.n - api->base_path.n };
}

static bool asks_for_events(const struct message *req)
{
	struct str accept = message_join(req, STR("accept"));
	const struct str type = STR("text/event-stream");

	for (size_t i = 0; i + type.n <= accept.n; i++)
		if (str_equal_nocase((struct str){ accept.p + i, type.n }, type))
			return true;
	return false;
}

static void read_body(struct chat *c)
{
	struct exchange *x = c->x;
	struct message *req = &x->stream.req;
	const struct header *sse = message_find_name(req, STR("x-dashscope-sse"));
	const struct json *model;
	struct problem why = { 0 };

	c->raw = exchange_request_body(x);
	if (!c->raw.p)
		return;
	c->body = json_parse_spans(&x->arena, c->raw, CHAT_NODES_MAX, &why);
	if (c->body && c->body->type != JSON_OBJECT)
		c->body = NULL;
	c->parse_error = !c->body;
	if (why.kind != PROBLEM_INVALID)
		c->refused = arena_copy(&x->arena, str_of(why.text));
	c->kind = ai_kind_detect(c->shape->below, c->body);
	c->is_stream = ai_kind_streams(c->kind, c->body, sse && str_equal_nocase(sse->value, STR("enable")),
				       asks_for_events(req));
	model = json_get(c->body, "model");
	if (model && model->type == JSON_STRING && model->string.n > 0)
		c->model = model->string;
	edits_init(&c->edits, &x->arena, c->raw);
}

struct chat_memory {
	struct arena_defer defer;
	struct chat chat;
	struct retained *kept;            /* where `raw` lies, and all texts of the tree; NULL = nowhere */
};

static void free_answer(struct arena_defer *d)
{
	struct chat_memory *m = CONTAINER(d, struct chat_memory, defer);

	answer_free(&m->chat.answer);
	if (m->kept)
		retain_drop(m->kept);
}

static struct chat *open_chat(struct exchange *x, const struct step *s)
{
	struct chat_memory *m = NEW(&x->arena, struct chat_memory);
	struct chat *c = &m->chat;
	const struct chat_api *api = x->route->ai;

	arena_defer(&x->arena, &m->defer, free_answer);
	c->x = x;
	c->level = s->level;
	c->model = STR("unknown");
	c->safecheck_request_ms = c->safecheck_response_ms = c->search_ms = c->search_results = -1;
	c->tools_in = c->tools_out = -1;
	c->is_model_api = api && !api->is_agent;
	c->is_agent_api = api && api->is_agent;
	c->shape = NEW(&x->arena, struct chat_shape);
	c->shape->below = below_base(x);
	if (has_json(x))
		read_body(c);
	if (c->raw.p)
		m->kept = retain_hold(x->retained);
	c->family = api ? api->family : ai_path_family(c->shape->below);
	if (c->kind != AI_NONE)
		c->family = ai_kind_family(c->kind);
	c->sent_model = c->model;
	c->upstream_kind = c->kind;
	exchange_set_chat(x, c);
	exchange_watch_turns(x, chat_undo_try);
	exchange_watch_drops(x, chat_read_dropped);
	exchange_shape_copies(x, chat_shape_copy);
	if (c->kind != AI_NONE && !x->route->shape_error)
		exchange_shape_errors(x, chat_shape_error);
	return c;
}

/* ---------- model APIs ---------- */

/* Below the base path; no other path of a provider is opened to clients. */
static bool is_model_path(struct str path)
{
	static const struct str ends[] = {
		{ "/chat/completions", 17 }, { "/completions", 12 }, { "/embeddings", 11 }, { "/responses", 10 },
		{ "/messages", 9 }, { "/images/generations", 19 }, { "/audio/speech", 13 }, { "/rerank", 7 },
		{ "/models", 7 }, { "/text-generation/generation", 27 }, { "/multimodal-generation/generation", 33 },
		{ "/text-embedding/text-embedding", 30 },
	};

	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
		if (str_ends(path, ends[i]))
			return true;
	return false;
}

static bool is_list_of_models(const struct exchange *x, struct str path)
{
	const enum method method = x->stream.req.method;

	return (method == METHOD_GET || method == METHOD_HEAD) && str_ends(path, STR("/models"));
}

/* Names that the API's patterns spell out, in OpenAI's shape. Absent: there are none, so an upstream knows. */
static struct str list_models(struct exchange *x)
{
	const struct chat_api *api = x->route->ai;
	struct sbuf out = { 0 };
	struct str text = { NULL, 0 };
	unsigned n = 0;

	SBUF_LIT(&out, "{\"object\":\"list\",\"data\":[");
	for (unsigned i = 0; i < api->n_entries; i++) {
		struct str pattern = api->entries[i].pattern;

		if (pattern.n == 0 || str_find(pattern, '*') < pattern.n)
			continue;
		if (n++)
			sbuf_addc(&out, ',');
		SBUF_LIT(&out, "{\"id\":");
		json_quote(&out, pattern);
		SBUF_LIT(&out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"gateway\"}");
	}
	SBUF_LIT(&out, "]}");
	if (n > 0)
		text = arena_copy(&x->arena, sbuf_str(&out));
	sbuf_free(&out);
	return text;
}

/*
 * A model API reads what it lets pass: neither another method nor another type of body is a way around its limits and
 * guards, for upstreams may not look at either.
 */
static enum verdict refuse_form(struct exchange *x, struct str path)
{
	bool is_list;

	if (x->stream.req.method == METHOD_POST && !str_ends(path, STR("/models")))
		return chat_reply_error(x, 415, "unsupported_media_type", "ErrUnsupportedMediaType",
			STR("The body has to be JSON; Content-Type has to be application/json"));
	is_list = str_ends(path, STR("/models"));
	chat_reply_error(x, 405, "method_not_allowed", "ErrMethodNotAllowed",
			 is_list ? STR("Only GET is possible here") : STR("Only POST is possible here"));
	message_add(&x->res, STR("Allow"), is_list ? STR("GET, HEAD") : STR("POST"));
	return REPLY;
}

/* True: it is decided without a look at the body, which is no request to a model then. */
static bool decide_by_head(struct exchange *x, struct str path, enum verdict *verdict)
{
	struct str list;

	if (!is_model_path(path)) {
		*verdict = chat_reply_error(x, 404, "not_found", "ErrNotFound",
			arena_printf(&x->arena, "%.*s is none of the paths of a model API", STR_FMT(path)));
		return true;
	}
	if (!is_list_of_models(x, path)) {
		if (has_json(x) && !str_ends(path, STR("/models")))
			return false;
		*verdict = refuse_form(x, path);
		return true;
	}
	list = list_models(x);
	exchange_choose_target(x, x->route->ai->entries[0].target);
	*verdict = list.p ? reply(x, 200, STR("application/json"), list) : next();
	return true;
}

static enum verdict choose_model(struct exchange *x, struct chat *c)
{
	const struct chat_entry *entry;
	enum verdict verdict;

	if (decide_by_head(x, c->shape->below, &verdict))
		return verdict;
	entry = chat_choose(x->route->ai, c->body ? c->model : (struct str){ NULL, 0 }, exchange_random(x));
	if (!entry && c->parse_error)
		return chat_reply_error(x, 400, "invalid_request_error", "ErrInvalidParameter",
			STR("The body is no valid JSON object, so no model can be found in it"));
	if (!entry)
		return chat_reply_error(x, 404, "model_not_found", "ErrNotFound",
			arena_printf(&x->arena, "The model `%.*s` does not exist or you do not have access to it",
				     STR_FMT(c->model)));
	c->shape->entry = entry;
	if (entry->model.n > 0)
		c->sent_model = entry->model;
	exchange_choose_target(x, entry->target);
	return next();
}

/* ---------- agent APIs ---------- */

/* "/api/v1/apps/{id}/completion" */
static struct str app_of(struct str path)
{
	const struct str before = STR("/api/v1/apps/"), after = STR("/completion");

	if (!str_starts(path, before) || !str_ends(path, after) || path.n <= before.n + after.n)
		return (struct str){ NULL, 0 };
	return (struct str){ path.p + before.n, path.n - before.n - after.n };
}

const struct chat_app *chat_find_app(const struct chat_service *s, struct str path)
{
	struct str id = app_of(path);

	for (unsigned i = 0; id.p && i < s->n_apps; i++)
		if (str_equal(s->apps[i].id, id))
			return &s->apps[i];
	return NULL;
}

static const struct chat_service *service_of(const struct exchange *x, const struct target *t)
{
	struct part *part = pmap_get_hashed(x->view->snapshot->services, t->service_id, t->hash);

	return part ? CONTAINER(part, struct service, part)->ai : NULL;
}

static enum verdict choose_app(struct exchange *x, struct str path)
{
	for (unsigned i = 0; i < x->route->n_targets; i++) {
		const struct chat_service *s = service_of(x, &x->route->targets[i]);

		if (!s || !chat_find_app(s, path))
			continue;
		exchange_choose_target(x, i);
		return next();
	}
	return chat_reply_error(x, 404, "not_found", "ErrNotFound",
		STR("There is no app with this id; the path is /api/v1/apps/{appId}/completion"));
}

static bool is_dify_path(struct str path)
{
	return str_ends(path, STR("/v1/chat-messages")) || str_ends(path, STR("/v1/completion-messages")) ||
	       str_ends(path, STR("/v1/workflows/run"));
}

static enum verdict choose_agent(struct exchange *x, struct str path)
{
	switch (x->route->ai->agent) {
	case CHAT_AGENT_DASHSCOPE:
		return choose_app(x, path);
	case CHAT_AGENT_DIFY:
		if (is_dify_path(path))
			return next();
		return chat_reply_error(x, 404, "not_found", "ErrNotFound",
			STR("Paths of Dify are /v1/chat-messages, /v1/completion-messages and /v1/workflows/run"));
	case CHAT_AGENT_CUSTOM:
		break;
	}
	return next();
}

enum verdict chat_classify(struct exchange *x, const struct step *s)
{
	struct chat *c;

	if (x->chat)
		return next();
	c = open_chat(x, s);
	/* No limit, guard or table holds for what the model would read and we did not. */
	if (c->refused.p && (c->kind != AI_NONE || c->is_model_api || c->is_agent_api))
		return chat_reply_error(x, 400, "invalid_request_error", "ErrInvalidParameter", c->refused);
	if (c->is_agent_api)
		return choose_agent(x, c->shape->below);
	return c->is_model_api ? choose_model(x, c) : next();
}

enum verdict chat_explain(struct exchange *x, const struct step *s)
{
	const struct chat_api *api = x->route->ai;
	struct str path = below_base(x);
	enum verdict verdict;

	if (s->run == chat_shape_try) {
		chat_explain_try(x, s, path, has_json(x) ? ai_kind_detect(path, NULL) : AI_NONE);
		return next();
	}
	if (!api || s->level == LEVEL_SERVICE)
		return next();
	if (api->is_agent)
		return choose_agent(x, path);
	if (decide_by_head(x, path, &verdict))
		return verdict;
	return cannot_judge(x, "the model, which is in the body, decides about the service");
}

/* ---------- patterns ---------- */

bool chat_pattern_fits(struct str pattern, struct str model)
{
	size_t p = 0, m = 0, star = SIZE_MAX, mark = 0;

	while (m < model.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			star = p++;
			mark = m;
		} else if (p < pattern.n && pattern.p[p] == model.p[m]) {
			p++;
			m++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			m = ++mark;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*')
		p++;
	return p == pattern.n;
}

/* Higher fits better; 0: not at all. */
static size_t rank(const struct chat_entry *e, struct str model)
{
	if (e->pattern.n == 0)
		return 1;
	if (!model.p)
		return 0;
	if (str_find(e->pattern, '*') == e->pattern.n)
		return str_equal(e->pattern, model) ? SIZE_MAX : 0;
	return chat_pattern_fits(e->pattern, model) ? 1 + e->pattern.n : 0;
}

const struct chat_entry *chat_choose(const struct chat_api *api, struct str model, uint32_t random)
{
	const struct chat_entry *last = NULL;
	uint64_t sum = 0, at;
	size_t best = 1;

	for (unsigned i = 0; i < api->n_entries; i++) {
		size_t r = rank(&api->entries[i], model);

		best = r > best ? r : best;
	}
	for (unsigned i = 0; i < api->n_entries; i++)
		if (rank(&api->entries[i], model) == best)
			sum += api->entries[i].weight;
	at = (uint64_t)random * sum >> 32;
	for (unsigned i = 0; i < api->n_entries; i++) {
		const struct chat_entry *e = &api->entries[i];

		if (rank(e, model) != best || (sum > 0 && e->weight == 0))
			continue;
		last = e;
		if (at < e->weight)
			return e;
		at -= e->weight;
	}
	return last;
}
