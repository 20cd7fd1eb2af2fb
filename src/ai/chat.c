/* chat.c -- the words of chat.h: what policies ask of a request to a model. */
#include "ai/chat_parts.h"
#include "ai/render.h"

struct chat *exchange_chat_readable(const struct exchange *x)
{
	struct chat *c = exchange_chat(x);

	return c && c->kind != AI_NONE && c->body ? c : NULL;
}

const struct prompt *chat_prompt(struct chat *c)
{
	if (!c->prompt_is_read) {
		c->prompt_is_read = true;
		prompt_read(&c->prompt, &c->x->arena, c->kind, c->body);
	}
	return &c->prompt;
}

int64_t chat_prompt_estimate(struct chat *c)
{
	return c->kind != AI_NONE && c->body ? prompt_estimate(chat_prompt(c)) : 0;
}

void chat_watch(struct chat *c, struct chat_watcher *w)
{
	struct chat_watcher **end = &c->watchers;

	while (*end)
		end = &(*end)->next;
	w->next = NULL;
	*end = w;
}

/* ---------- errors ---------- */

static const char *usual_code(int status)
{
	switch (status) {
	case 400:
		return "invalid_request_error";
	case 401:
		return "invalid_api_key";
	case 403:
		return "access_denied";
	case 404:
		return "not_found";
	case 413:
		return "request_too_large";
	case 429:
		return "rate_limit_exceeded";
	default:
		return "api_error";
	}
}

static struct str shaped(struct exchange *x, int status, const char *ai_code, struct str message)
{
	const struct chat *c = x->chat;
	enum ai_family family = c ? c->family : ai_path_family(x->stream.req.path);

	return render_error(&x->arena, &(struct render_fault){ .family = family, .status = status,
		.code = str_of(ai_code), .message = message, .request_id = x->request_id });
}

struct str chat_shape_error(struct exchange *x, int status, const char *code, struct str message)
{
	(void)code;
	if (!x->chat && !x->route->ai && ai_kind_detect(x->stream.req.path, NULL) == AI_NONE)
		return (struct str){ NULL, 0 };
	return shaped(x, status, usual_code(status), message);
}

enum verdict chat_reply_error(struct exchange *x, int status, const char *ai_code, const char *code, struct str message)
{
	if (!x->chat || (x->chat->kind == AI_NONE && !x->chat->is_model_api && !x->chat->is_agent_api))
		return reply_error(x, status, code, message);
	return reply(x, status, STR("application/json"), shaped(x, status, ai_code, message));
}

/* ---------- the end ---------- */

static int64_t max_of(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* Where the upstream said nothing, or not all: what was read is counted by its length. */
static void estimate(struct chat *c, bool is_whole)
{
	struct usage *u = &c->usage;
	int64_t output = usage_estimate_tokens(&c->answer.said);
	const unsigned both = 1U << USAGE_INPUT | 1U << USAGE_OUTPUT;

	if (is_whole && usage_is_known(u))
		return;
	u->of[USAGE_OUTPUT] = max_of(u->has & 1U << USAGE_OUTPUT ? u->of[USAGE_OUTPUT] : 0, output);
	if (!(u->has & 1U << USAGE_INPUT))
		u->of[USAGE_INPUT] = chat_prompt_estimate(c);    /* reads all of it */
	u->has = (u->has | both) & ~(1U << USAGE_TOTAL);
	c->usage_is_estimated = true;
}

/* USE-6 .. USE-8 of the contract. */
static void settle_usage(struct chat *c)
{
	/* The model had the prompt; who leaves before the answer begins pays for that. */
	if (c->end == CHAT_ABORTED && c->status == 0 && c->shape->turn > 0 && c->kind != AI_NONE) {
		estimate(c, false);
		c->cost = usage_total(&c->usage, c->kind);
		return;
	}
	if (c->end == CHAT_LOCAL || c->status == 0)
		return;
	c->usage = c->answer.usage;
	if (c->kind == AI_NONE)
		return;
	if (c->status >= 200 && c->status < 300)
		estimate(c, c->end == CHAT_COMPLETE || c->end == CHAT_FAILED);
	c->cost = usage_is_known(&c->usage) ? usage_total(&c->usage, c->answer.kind) : 0;
}

void chat_tell_head(struct chat *c)
{
	if (c->head_was_told)
		return;
	c->head_was_told = true;
	for (struct chat_watcher *w = c->watchers; w; w = w->next)
		if (w->head)
			w->head(c->x, w->step, c);
}

void chat_finish(struct chat *c, enum chat_end end)
{
	if (c->end != CHAT_RUNNING)
		return;
	c->end = end;
	settle_usage(c);
	for (struct chat_watcher *w = c->watchers; w; w = w->next)
		w->over(c->x, w->step, c);
}

/* ---------- fallbacks ---------- */

#define CARRIED(hook, at) { (const struct step[]){ { .class = &chat_step, .run = hook, .conf = &chat_step, \
	.order = at, .level = LEVEL_SERVICE, .class_index = 63 } }, 1 }

/* What runs at services that have no step of ours: they are turned to for a request to a model all the same. */
static const struct policies carried = { .legs = {
	[LEG_ATTEMPT] = CARRIED(chat_shape_try, STAGE_AI_CLASSIFY),
	[LEG_RESPONSE] = CARRIED(chat_read_answer, RESPONSE_CHAT),
	[LEG_DATA] = CARRIED(chat_read_piece, RESPONSE_CHAT),
} };

void chat_fall_back(struct chat *c, const struct chat_candidate *candidates, unsigned n, const uint64_t fails[4])
{
	struct target *targets;

	/* A fallback's own fallbacks are none. */
	if (exchange_service_turn(c->x) > 0)
		return;
	targets = NEW_N(&c->x->arena, struct target, n);
	for (unsigned i = 0; i < n; i++) {
		targets[i].service_id = candidates[i].service_id;
		targets[i].hash = pmap_hash(candidates[i].service_id);
	}
	c->meant = exchange_service_id(c->x);
	c->candidates = candidates;
	c->n_candidates = n;
	for (unsigned i = 0; i < 4; i++)
		c->shape->fails[i] = fails[i];
	c->shape->rules = (struct fallback_rules){ targets, n };
	exchange_set_fallback(c->x, &c->shape->rules, c->shape->fails);
	if (c->level == LEVEL_SERVICE)
		exchange_carry(c->x, &carried);
}
