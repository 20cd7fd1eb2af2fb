/* cache_key.c -- the parts of a request that make its key, and what is left of it without the question's text. */
#include "policy/cache_key.h"
#include "core/crypto.h"
#include "proxy/exchange.h"

enum { VERSION = 1, HEX = 64, SHORT_HEX = 16 };

extern const struct policy_class ai_security_guard;

/* Members that say how an answer travels, or who asks; of all kinds. */
static const struct str passing[] = {
	STR("stream"), STR("stream_options"), STR("user"), STR("metadata"), STR("safety_identifier"),
};

/* ---------- which requests ---------- */

bool cache_kind_is_known(enum ai_kind kind)
{
	return kind != AI_NONE && kind != AI_DIFY_WORKFLOW;
}

static bool says(const struct json *object, const char *name)
{
	const struct json *v = json_get(object, name);

	return v && v->type != JSON_NULL && !(v->type == JSON_STRING && v->string.n == 0);
}

bool cache_is_stateful(const struct chat *c)
{
	switch (c->kind) {
	case AI_RESPONSES:
		return json_is_true(c->body, "store") || json_is_true(c->body, "background") ||
		       says(c->body, "previous_response_id") || says(c->body, "conversation");
	case AI_APP:
		return says(json_get(c->body, "input"), "session_id") || says(json_get(c->body, "input"), "memory_id");
	case AI_DIFY_CHAT:
	case AI_DIFY_COMPLETION:
		return says(c->body, "conversation_id");
	default:
		return false;
	}
}

static bool wants_sound(const struct json *body)
{
	const struct json *list = json_get(body, "modalities"), *v;

	for (v = list && list->type == JSON_ARRAY ? list->child : NULL; v; v = v->next)
		if (v->type != JSON_STRING || !str_equal(v->string, STR("text")))
			return true;
	return says(body, "audio");
}

static bool is_more_than(const struct json *body, const char *name, double most)
{
	const struct json *v = json_get(body, name);

	return v && (v->type == JSON_INT || v->type == JSON_REAL) && json_number(v) > most;
}

bool cache_asks_for_more(const struct chat *c)
{
	const struct json *body = c->body, *parameters = json_get(body, "parameters");
	const struct json *prompt = json_get(body, "prompt");

	return is_more_than(body, "n", 1) || is_more_than(parameters, "n", 1) || is_more_than(body, "best_of", 1) ||
	       json_is_true(body, "logprobs") || is_more_than(body, "logprobs", -1) ||
	       is_more_than(body, "top_logprobs", 0) || json_is_true(parameters, "logprobs") || wants_sound(body) ||
	       (c->kind == AI_COMPLETIONS && prompt && prompt->type == JSON_ARRAY && prompt->n > 1);
}

/* ---------- the prefix ---------- */

static void put_hex(char *out, const uint8_t *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
}

static struct str digest(struct arena *a, struct str text, size_t n)
{
	uint8_t bytes[32];
	char *hex = arena_alloc(a, n + 1);

	crypto_sha256(text, bytes);
	put_hex(hex, bytes, n / 2);
	return (struct str){ hex, n };
}

/* What guards of a service judge by, appended. */
static void add_guards(struct sbuf *out, struct arena *a, const struct service *service)
{
	const struct chain *chain = &service->policies->legs[LEG_SERVICE];

	for (unsigned i = 0; i < chain->n; i++) {
		const struct step *s = &chain->steps[i];

		if (s->class != &ai_security_guard)
			continue;
		sbuf_add(out, service->id);
		json_canonical(out, fields_encode(s->class->fields, s->conf, a));
	}
}

/*
 * Answers that passed a guard are not given where another one would have judged them: its config is part of the
 * prefix. "-" where no service of the route has a guard.
 */
static struct str guards_of(const struct exchange *x, struct arena *a)
{
	struct sbuf all = { 0 };
	struct str made = STR("-");

	for (unsigned i = 0; i < x->route->n_targets; i++) {
		const struct target *t = &x->route->targets[i];
		struct part *part = pmap_get_hashed(x->view->snapshot->services, t->service_id, t->hash);

		if (part)
			add_guards(&all, a, CONTAINER(part, struct service, part));
	}
	if (all.n > 0)
		made = digest(a, sbuf_str(&all), SHORT_HEX);
	sbuf_free(&all);
	return made;
}

/* A consumer that only has a name (an authorization service said it) goes by its digest. */
static struct str consumer_of(struct exchange *x, struct arena *a)
{
	struct str id = exchange_consumer_id(x), name = exchange_consumer(x);

	if (id.n > 0)
		return id;
	return name.n > 0 ? digest(a, name, SHORT_HEX) : STR("-");
}

struct str cache_prefix(struct exchange *x, const struct cache_scope *scope)
{
	struct arena *a = exchange_arena(x);

	return arena_printf(a, "sluice:aic:%.*s:%.*s:%.*s:%.*s:", STR_FMT(scope->policy_id),
			    STR_FMT(scope->resource_id), STR_FMT(guards_of(x, a)),
			    STR_FMT(scope->shares_consumers ? STR("-") : consumer_of(x, a)));
}

/* ---------- the document ---------- */

/* A node that can stand in another list; what is below is shared. */
static struct json *borrow(struct arena *a, const struct json *v)
{
	struct json *copy = arena_take(a, sizeof(*copy));

	*copy = *v;
	copy->next = NULL;
	return copy;
}

static void append(struct json *to, struct json *v)
{
	if (to->last)
		to->last->next = v;
	else
		to->child = v;
	to->last = v;
	to->n++;
}

static void put(struct arena *a, struct json *object, const char *name, const struct json *v)
{
	struct json *copy = borrow(a, v);

	copy->name = str_of(name);
	append(object, copy);
}

static void put_text(struct arena *a, struct json *object, const char *name, struct str text)
{
	put(a, object, name, json_new_text(a, text));
}

static bool is_one_of(struct str name, const struct str *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (str_equal(name, names[i]))
			return true;
	return false;
}

/* `object` without these members. */
static struct json *without(struct arena *a, const struct json *object, const struct str *names, size_t n)
{
	struct json *made = json_new(a, JSON_OBJECT);

	if (!object || object->type != JSON_OBJECT)
		return object ? borrow(a, object) : json_new(a, JSON_NULL);
	for (const struct json *v = object->child; v; v = v->next)
		if (!is_one_of(v->name, names, n))
			append(made, borrow(a, v));
	return made;
}

/* Where the question stands; NULL: there is none. */
static const struct json *question_of(const struct chat *c)
{
	const struct json *input = json_get(c->body, "input"), *messages;

	switch (c->kind) {
	case AI_CHAT:
	case AI_MESSAGES:
		return json_get(c->body, "messages");
	case AI_COMPLETIONS:
		return json_get(c->body, "prompt");
	case AI_RESPONSES:
	case AI_EMBEDDINGS:
		return input;
	case AI_GENERATION:
	case AI_APP:
		messages = json_get(input, "messages");
		return messages ? messages : json_get(input, "prompt");
	case AI_DIFY_CHAT:
	case AI_DIFY_COMPLETION:
		return json_get(c->body, "query");
	default:
		return NULL;
	}
}

/* Everything of the body that is neither the question nor passing. */
static struct json *rest_of(struct arena *a, const struct chat *c, const struct json *question)
{
	static const struct str incremental = STR("incremental_output"), mode = STR("response_mode");
	struct json *made = json_new(a, JSON_OBJECT);

	for (const struct json *v = c->body->child; v; v = v->next) {
		struct json *kept;

		if (v == question || is_one_of(v->name, passing, sizeof(passing) / sizeof(*passing)))
			continue;
		if (c->kind >= AI_DIFY_CHAT && str_equal(v->name, mode))
			continue;
		if (str_equal(v->name, STR("parameters")))
			kept = without(a, v, &incremental, 1);
		else if (question && str_equal(v->name, STR("input")))
			kept = without(a, v, &question->name, 1);
		else
			kept = borrow(a, v);
		kept->name = v->name;
		append(made, kept);
	}
	return made;
}

/* ---------- the question by its strategy ---------- */

static bool has_role(const struct json *message, const char *role)
{
	return str_equal(json_text(message, "role"), str_of(role));
}

static bool is_instruction(const struct json *message)
{
	return has_role(message, "system") || has_role(message, "developer");
}

static bool is_list_with_user(const struct json *question)
{
	const struct json *v = question && question->type == JSON_ARRAY ? question->child : NULL;

	while (v && !has_role(v, "user"))
		v = v->next;
	return v != NULL;
}

/* Contents of users' messages (or of the last one), and of all instructions. */
static void put_contents(struct arena *a, struct json *doc, const struct json *list, bool is_last_only)
{
	struct json *users = json_new(a, JSON_ARRAY), *instructions = json_new(a, JSON_ARRAY);
	const struct json *last = NULL;

	for (const struct json *v = list->child; v; v = v->next) {
		const struct json *content = json_get(v, "content");

		if (!content)
			continue;
		if (is_instruction(v))
			append(instructions, borrow(a, content));
		else if (has_role(v, "user") && is_last_only)
			last = content;
		else if (has_role(v, "user"))
			append(users, borrow(a, content));
	}
	if (last)
		append(users, borrow(a, last));
	put(a, doc, "users", users);
	put(a, doc, "instructions", instructions);
}

static void put_question(struct arena *a, struct json *doc, const struct json *question, enum cache_strategy strategy)
{
	if (!question)
		return;
	if (strategy == CACHE_MESSAGES || !is_list_with_user(question))
		put(a, doc, "question", question);
	else
		put_contents(a, doc, question, strategy == CACHE_LAST_QUESTION);
}

/* ---------- semantic: all but the text ---------- */

/* The texts that are embedded: users', all of them or those of the last message; in the order they stand in. */
struct embedded {
	const struct json **texts;
	unsigned n, at;
};

/* Asked about values in the order they stand in, so that a long conversation costs no more than its length. */
static bool is_embedded(struct embedded *e, const struct json *v)
{
	while (e->at < e->n && e->texts[e->at]->at < v->at)
		e->at++;
	return e->at < e->n && e->texts[e->at] == v;
}

/* A copy in which embedded texts are null. Depth is that of JSON, bounded. */
static struct json *blank(struct arena *a, const struct json *v, struct embedded *e)
{
	struct json *copy = borrow(a, v);

	if (v->type == JSON_STRING && is_embedded(e, v))
		copy->type = JSON_NULL;
	if (v->type != JSON_ARRAY && v->type != JSON_OBJECT)
		return copy;
	copy->child = copy->last = NULL;
	copy->n = 0;
	for (const struct json *below = v->child; below; below = below->next)
		append(copy, blank(a, below, e));
	return copy;
}

static unsigned last_user_message(const struct prompt *p)
{
	unsigned last = 0;

	for (unsigned i = 0; i < p->n; i++)
		if (p->texts[i].role == PROMPT_USER)
			last = p->texts[i].message;
	return last;
}

static struct embedded texts_of(struct arena *a, const struct prompt *p, bool is_all)
{
	struct embedded e = { .texts = NEW_N(a, const struct json *, p->n) };
	unsigned last = last_user_message(p);

	for (unsigned i = 0; i < p->n; i++)
		if (p->texts[i].role == PROMPT_USER && (is_all || p->texts[i].message == last))
			e.texts[e.n++] = p->texts[i].text;
	return e;
}

/* ---------- all of it ---------- */

static bool is_blank(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] > ' ')
			return false;
	return true;
}

/*
 * Who the upstream would judge where the gateway knows no consumer: on an ordinary route the client's own credential
 * goes on, and what it bought is not given to others.
 */
static void put_credential(struct arena *a, struct json *doc, struct exchange *x)
{
	static const struct str names[] = { STR("authorization"), STR("x-api-key"), STR("api-key") };
	struct sbuf all = { 0 };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const struct header *h = message_find_name(exchange_request(x), names[i]);

		if (h)
			sbuf_add(&all, h->value);
		sbuf_addc(&all, '\n');
	}
	if (all.n > sizeof(names) / sizeof(*names))
		put_text(a, doc, "credential", digest(a, sbuf_str(&all), HEX));
	sbuf_free(&all);
}

static struct str digest_of(struct arena *a, const struct json *doc)
{
	struct sbuf text = { 0 };
	struct str made;

	json_canonical(&text, doc);
	made = digest(a, sbuf_str(&text), HEX);
	sbuf_free(&text);
	return made;
}

static struct json *open_document(struct arena *a, struct chat *c, const struct cache_scope *scope,
				  const struct json *question)
{
	struct json *doc = json_new(a, JSON_OBJECT);
	struct exchange *x = c->x;

	put(a, doc, "v", json_new_int(a, VERSION));
	put_text(a, doc, "class", ai_kind_name(c->kind));
	put_text(a, doc, "model", c->model);
	put_text(a, doc, "host", exchange_host(x));
	put_text(a, doc, "path", exchange_path(x));
	put_text(a, doc, "query", exchange_query(x));
	if (!scope->shares_consumers && !exchange_consumer(x).n && !exchange_consumer_id(x).n && !c->is_model_api &&
	    !c->is_agent_api)
		put_credential(a, doc, x);
	put(a, doc, "rest", rest_of(a, c, question));
	return doc;
}

/* What of the question is no text, so that the text alone does not say it. */
static bool is_only_text(const struct prompt *p)
{
	return !p->has_other_parts && !p->has_tool_messages;
}

static void ask_text(struct cache_question *q, struct chat *c, enum cache_strategy strategy,
		     const struct cache_scope *scope)
{
	struct arena *a = exchange_arena(c->x);
	const struct json *question = question_of(c);
	const struct prompt *p = chat_prompt(c);
	bool is_all = strategy == CACHE_ALL_QUESTIONS;
	struct embedded e;
	struct json *doc;

	if (!question || c->kind == AI_EMBEDDINGS || !is_only_text(p))
		return;
	q->text = is_all ? prompt_join(p, a, PROMPT_USER) : prompt_last_question(p, a);
	if (is_blank(q->text)) {
		q->text = (struct str){ NULL, 0 };
		return;
	}
	e = texts_of(a, p, is_all);
	doc = open_document(a, c, scope, question);
	put_text(a, doc, "strategy", STR("semantic"));
	put_question(a, doc, blank(a, question, &e), strategy);
	q->partition = digest_of(a, doc);
}

void cache_ask(struct cache_question *q, struct chat *c, enum cache_strategy strategy,
	       const struct cache_scope *scope, bool with_text)
{
	struct arena *a = exchange_arena(c->x);
	struct str prefix = cache_prefix(c->x, scope);
	const struct json *question = question_of(c);
	struct json *doc = open_document(a, c, scope, question);

	*q = (struct cache_question){ .text = { NULL, 0 } };
	put_question(a, doc, question, c->kind == AI_EMBEDDINGS ? CACHE_MESSAGES : strategy);
	q->key = arena_printf(a, "%.*s%.*s", STR_FMT(prefix), STR_FMT(digest_of(a, doc)));
	if (with_text)
		ask_text(q, c, strategy, scope);
	if (q->text.p)
		q->partition = arena_printf(a, "%.*s%.*s", STR_FMT(prefix), STR_FMT(q->partition));
}
