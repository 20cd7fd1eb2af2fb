/*
 * ai_fallback.c -- AiFallback: when an AI service fails, the same request goes to other services and models,
 * in order.
 *
 * Attached to the first service. Keyed by the model that would be sent to it: exact names before the longest
 * prefix before "*". The tries are made by proxy/attempt.c and shaped by ai/; this file says where to, and counts what
 * became of them.
 */
#include "policy/ai_fallback.h"
#include "ai/chat.h"
#include "core/list.h"
#include "core/mem.h"
#include "core/metric.h"
#include "policy/formats.h"
#include "policy/reference.h"
#include "proxy/policy.h"

struct candidate {
	struct str serviceId, model;
};

struct mapping {
	struct str model;
	struct items fallbackModels;
	struct chat_candidate *candidates;        /* the same */
};

struct ai_fallback {
	bool enable;
	struct items fallbackModelMappings;
};

#define MODEL_MAX 256

static bool check_model(struct str value, struct problem *why)
{
	size_t star = str_find(value, '*');

	if (!format_line(value, why))
		return false;
	if (star + 1 < value.n)
		return problem(why, "", "may have one \"*\", at the end: \"qwen-*\" for a prefix, \"*\" for "
			"any model");
	return true;
}

static const struct field candidate_fields[] = {
	TEXT(struct candidate, serviceId, REQUIRED, RANGE(1, 128), REFERS("service"),
	     EXAMPLE("\"backup-service-1\""),
	     DOC("Id of a service of the same gateway; it may be the first service itself, with another "
	     "model.")),
	TEXT(struct candidate, model, REQUIRED, RANGE(1, MODEL_MAX), FORMAT(format_line),
	     EXAMPLE("\"gpt-3.5-turbo\""),
	     DOC("Name of the model that is sent to that service.")),
	FIELDS_END
};

static const struct field mapping_fields[] = {
	TEXT(struct mapping, model, REQUIRED, RANGE(1, MODEL_MAX), FORMAT(check_model), EXAMPLE("\"gpt-4\""),
	     DOC("Name of the model that failed. A \"*\" at the end makes it a prefix, \"*\" alone stands "
	     "for any model.")),
	LIST(struct mapping, fallbackModels, struct candidate, candidate_fields, REQUIRED, RANGE(1, 8),
	     DOC("Where to try next, in this order.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct ai_fallback, enable, REQUIRED, DOC("Whether the policy acts.")),
	LIST(struct ai_fallback, fallbackModelMappings, struct mapping, mapping_fields, REQUIRED, RANGE(1,
	     64),
	     DOC("What to try instead of which model; each model at most once.")),
	FIELDS_END
};

static const struct mapping *mapping_at(const struct ai_fallback *conf, size_t i)
{
	return ITEM(conf->fallbackModelMappings, const struct mapping, i);
}

static const struct candidate *candidate_at(const struct mapping *m, size_t j)
{
	return ITEM(m->fallbackModels, const struct candidate, j);
}

static bool check_candidates(const struct mapping *m, size_t at, struct problem *why)
{
	size_t i, j;

	for (j = 1; j < m->fallbackModels.n; j++) {
		const struct candidate *c = candidate_at(m, j);

		for (i = 0; i < j; i++) {
			char path[96];

			if (!str_equal(c->serviceId, candidate_at(m, i)->serviceId) || !str_equal(c->model,
				candidate_at(m, i)->model))
				continue;
			snprintf(path, sizeof(path), "fallbackModelMappings[%zu].fallbackModels[%zu]", at, j);
			return problem(why, path, "has the same service and model as item %zu", i);
		}
	}
	return true;
}

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_fallback *conf = vconf;
	size_t i, j;

	for (j = 0; j < conf->fallbackModelMappings.n; j++) {
		const struct mapping *m = mapping_at(conf, j);

		for (i = 0; i < j; i++) {
			char path[96];

			if (!str_equal(m->model, mapping_at(conf, i)->model))
				continue;
			snprintf(path, sizeof(path), "fallbackModelMappings[%zu].model", j);
			return problem(why, path, "\"%.*s\" is there twice", STR_FMT(m->model));
		}
		if (!check_candidates(m, j, why))
			return false;
	}
	return true;
}

static bool attach_candidate(const struct mapping *m, const struct candidate *c, const struct attach_target *t,
                             struct problem *why)
{
	const struct json *service;

	if (!reference_service(t, c->serviceId, "serviceId", &service, why))
		return false;
	if ((service == t->resource || json_equal(service, t->resource)) && str_equal(c->model, m->model))
		return problem(why, "", "is the failed service and model again; name another service or model");
	return true;
}

static bool attach(const void *vconf, const struct attach_target *t, struct problem *why)
{
	const struct ai_fallback *conf = vconf;
	size_t i, j;

	for (i = 0; i < conf->fallbackModelMappings.n; i++) {
		const struct mapping *m = mapping_at(conf, i);

		for (j = 0; j < m->fallbackModels.n; j++) {
			char path[96];

			if (attach_candidate(m, candidate_at(m, j), t, why))
				continue;
			snprintf(path, sizeof(path), "fallbackModelMappings[%zu].fallbackModels[%zu]", i, j);
			problem_prefix(why, path);
			return false;
		}
	}
	return true;
}

static bool prepare(void *vconf, struct arena *a, struct problem *why)
{
	const struct ai_fallback *conf = vconf;

	(void)why;
	for (size_t i = 0; i < conf->fallbackModelMappings.n; i++) {
		struct mapping *m = ITEM(conf->fallbackModelMappings, struct mapping, i);

		m->candidates = NEW_N(a, struct chat_candidate, m->fallbackModels.n);
		for (size_t j = 0; j < m->fallbackModels.n; j++)
			m->candidates[j] = (struct chat_candidate){ candidate_at(m, j)->serviceId,
								    candidate_at(m, j)->model };
	}
	return true;
}

/* ---------- which answers are failures, and the counters ---------- */

static const char *const reasons[] = { "connect", "reset", "timeout", "malformed", "4xx", "5xx", "answer", "refused",
	"unavailable" };
enum { REASONS = sizeof reasons / sizeof reasons[0] };

struct route_count {
	struct str to;
	struct series *by[REASONS];
};

/* What a step needs beyond its config: of the settings, and counters. */
struct plan {
	struct part part;
	struct arena arena;
	uint64_t fails[4];                /* bit i: status 400 + i */
	struct route_count *counts;
	unsigned n_counts;
};

/* Bounds of the statuses that a text stands for; false: it is none. */
static bool read_statuses(struct str text, unsigned *from, unsigned *to)
{
	uint64_t number;

	if (str_equal(text, STR("4xx")) || str_equal(text, STR("5xx"))) {
		*from = text.p[0] == '4' ? 400 : 500;
		*to = *from + 99;
		return true;
	}
	if (text.n != 3 || !str_to_u64(text, 599, &number) || number < 400)
		return false;
	*from = *to = (unsigned)number;
	return true;
}

bool ai_fallback_check_status(struct str text, struct problem *why)
{
	unsigned from, to;

	return read_statuses(text, &from, &to) ||
	       problem(why, "", "must be \"4xx\", \"5xx\" or a status from 400 to 599 such as \"429\"");
}

static void destroy_plan(struct part *part)
{
	struct plan *plan = CONTAINER(part, struct plan, part);

	for (unsigned i = 0; i < plan->n_counts; i++)
		for (unsigned k = 0; k < REASONS; k++)
			metric_series_drop(plan->counts[i].by[k]);
	arena_free(&plan->arena);
	mem_free(plan);
}

static struct route_count *find_count(const struct plan *plan, struct str to)
{
	for (unsigned i = 0; i < plan->n_counts; i++)
		if (str_equal(plan->counts[i].to, to))
			return &plan->counts[i];
	return NULL;
}

static void add_count(struct plan *plan, struct str from, struct str to)
{
	struct route_count *count;

	if (find_count(plan, to))
		return;
	count = &plan->counts[plan->n_counts++];
	count->to = arena_copy(&plan->arena, to);
	for (unsigned k = 0; k < REASONS; k++)
		count->by[k] = metric_series(METRIC_AI_FALLBACK, (struct str[]){ from, to, str_of(reasons[k]) });
}

static struct part *bind(const void *vconf, void *cell, const struct attach_target *t)
{
	const struct ai_fallback *conf = vconf;
	const struct json *on = t->setting(t, "ai.fallback.on");
	struct plan *plan = MEM_NEW(struct plan);
	size_t most = 0;

	(void)cell;
	chat_open_waste();
	plan->part = (struct part){ 1, destroy_plan };
	plan->arena.is_small = true;
	for (const struct json *v = on ? on->child : NULL; v; v = v->next) {
		unsigned from = 1, to = 0;

		if (!read_statuses(v->string, &from, &to))
			continue;
		for (unsigned i = from - 400; i <= to - 400; i++)
			plan->fails[i / 64] |= UINT64_C(1) << i % 64;
	}
	for (size_t i = 0; i < conf->fallbackModelMappings.n; i++)
		most += mapping_at(conf, i)->fallbackModels.n;
	plan->counts = NEW_N(&plan->arena, struct route_count, most);
	for (size_t i = 0; i < conf->fallbackModelMappings.n; i++)
		for (size_t j = 0; j < mapping_at(conf, i)->fallbackModels.n; j++)
			add_count(plan, t->resource_id, candidate_at(mapping_at(conf, i), j)->serviceId);
	return &plan->part;
}

/* ---------- requests ---------- */

enum outcome { OUTCOME_PRIMARY, OUTCOME_FALLBACK, OUTCOME_EXHAUSTED };

struct fallback_state {
	struct chat_watcher watcher;
};

/* Of exact names, the longest prefix and "*" the first that fits; NULL: none. */
static const struct mapping *find_mapping(const struct ai_fallback *conf, struct str model)
{
	const struct mapping *best = NULL;

	for (size_t i = 0; i < conf->fallbackModelMappings.n; i++) {
		const struct mapping *m = mapping_at(conf, i);
		bool is_prefix = m->model.p[m->model.n - 1] == '*';

		if (!is_prefix && str_equal(m->model, model))
			return m;
		if (is_prefix && str_starts(model, (struct str){ m->model.p, m->model.n - 1 }) &&
		    (!best || m->model.n > best->model.n))
			best = m;
	}
	return best;
}

/* The same model of the same service again would be a repetition: that is what Retry is for. */
static unsigned pick(const struct mapping *m, const struct chat *c, struct chat_candidate *out)
{
	struct str own = exchange_service_id(c->x);
	unsigned n = 0;

	for (size_t i = 0; i < m->fallbackModels.n; i++)
		if (!str_equal(m->candidates[i].service_id, own) || !str_equal(m->candidates[i].model, c->sent_model))
			out[n++] = m->candidates[i];
	return n;
}

static void tell_client(struct exchange *x, const struct step *s, struct chat *c)
{
	const unsigned turn = exchange_service_turn(x);
	struct message *res = exchange_response(x);

	(void)s;
	if (turn == 0 || turn > c->n_candidates)
		return;
	message_set(res, STR("X-Sluice-Fallback-From"), c->meant);
	message_set(res, STR("X-Sluice-Fallback-Index"), arena_printf(exchange_arena(x), "%u", turn));
}

static unsigned reason_of(const struct left_service *left)
{
	const char *why = strcmp(left->why, "status") != 0 ? left->why : left->status < 500 ? "4xx" : "5xx";

	for (unsigned k = 0; k < REASONS; k++)
		if (strcmp(reasons[k], why) == 0)
			return k;
	return REASONS - 1;
}

static void count_turns(struct exchange *x, const struct plan *plan, const struct chat *c)
{
	unsigned n;
	const struct left_service *left = exchange_left_services(x, &n);

	for (unsigned i = 0; i < n && i < c->n_candidates; i++) {
		struct str to = i + 1 < n ? left[i + 1].id : exchange_service_id(x);
		const struct route_count *count = find_count(plan, to);

		if (count)
			metric_add(count->by[reason_of(&left[i])], 1);
	}
}

static void count_end(struct exchange *x, const struct step *s, struct chat *c)
{
	const struct plan *plan = CONTAINER(s->bound, struct plan, part);
	unsigned n;

	exchange_left_services(x, &n);
	count_turns(x, plan, c);
	if (n == 0)
		policy_count(s, OUTCOME_PRIMARY);
	else
		policy_count(s, c->status >= 200 && c->status < 400 ? OUTCOME_FALLBACK : OUTCOME_EXHAUSTED);
}

static enum verdict choose(struct exchange *x, const struct step *s)
{
	struct chat *c = exchange_chat(x);
	const struct mapping *m;
	struct fallback_state *state;
	struct chat_candidate *candidates;
	unsigned n;

	if (!c || !c->body || exchange_service_turn(x) > 0)
		return next();
	m = find_mapping(s->conf, c->sent_model);
	if (!m)
		return next();
	candidates = NEW_N(exchange_arena(x), struct chat_candidate, m->fallbackModels.n);
	n = pick(m, c, candidates);
	if (n == 0)
		return next();
	state = exchange_state(x, s);
	state->watcher = (struct chat_watcher){ .head = tell_client, .over = count_end, .step = s };
	chat_watch(c, &state->watcher);
	chat_fall_back(c, candidates, n, CONTAINER(s->bound, struct plan, part)->fails);
	return next();
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	const struct ai_fallback *conf = s->conf;

	exchange_note(x, "where this service fails, others are turned to by %zu mapping%s of models",
		conf->fallbackModelMappings.n, conf->fallbackModelMappings.n == 1 ? "" : "s");
	return next();
}

const struct policy_class ai_fallback = {
	.name = "AiFallback",
	.alias = "AI fallback",
	.summary = "Sends a request that an AI service failed to other services and models.",
	.group = "AI",
	.wants = WANTS_CHAT,
	.scopes = SCOPE_SERVICE,
	.stage = STAGE_SETTING,
	.service_stage = STAGE_AI_FALLBACK,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginPost",
	.execute_priority = 490,
	.fields = fields,
	.conf_size = sizeof(struct ai_fallback),
	.enable_at = offsetof(struct ai_fallback, enable),
	.state_size = sizeof(struct fallback_state),
	.outcomes = { [OUTCOME_PRIMARY] = "primary", [OUTCOME_FALLBACK] = "fallback",
		      [OUTCOME_EXHAUSTED] = "exhausted" },
	.check = check,
	.prepare = prepare,
	.attach = attach,
	.bind = bind,
	.service = choose,
	.explain = explain,
};
