/*
 * ai_statistics.c -- AiStatistics: one record of model, tokens, durations and (if wanted) content for each AI
 * request, and metrics.
 *
 * It observes only: it never changes an answer and never holds one back. What it asks for is that upstreams say what
 * streams cost (USE-4), and that content is kept while the answer passes.
 *
 *      ai.record ──► (refused: no key, a limit, too long, no such model ...) ──────────► ending: ai_log
 *          └─► ai.statistics: watched ──► over: tokens and durations are counted ──────────┘
 */
#include "ai/chat.h"
#include "ai/chat_facts.h"
#include "core/clock.h"
#include "core/list.h"
#include "core/mem.h"
#include "policy/ai_metrics.h"
#include "policy/ai_record.h"

struct ai_statistics_config {
	bool logRequestContent, logResponseContent;
};

struct ai_statistics {
	bool enable;
	struct ai_statistics_config aiStatisticsConfig;
};

static const struct field content_fields[] = {
	BOOL(struct ai_statistics_config, logRequestContent, DEFAULT("true"),
	     DOC("Whether the question, the system prompt and the messages are logged.")),
	BOOL(struct ai_statistics_config, logResponseContent, DEFAULT("true"),
	     DOC("Whether the answer, the reasoning and the tool calls are logged.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct ai_statistics, enable, REQUIRED, DOC("Whether the policy acts.")),
	OBJECT(struct ai_statistics, aiStatisticsConfig, content_fields, DEFAULT("{}"),
	       DOC("Which content goes into the record; numbers are always there.")),
	FIELDS_END
};

enum outcome { OUTCOME_RECORDED, OUTCOME_ESTIMATED, OUTCOME_ABORTED };

/* Of one request. */
struct watched {
	struct chat_watcher watcher;
	struct str session;
	int64_t start_us;                 /* the head was there */
	int64_t end_us;
	bool is_watched, is_over, is_ending;
};

/* ---------- settings ---------- */

struct bound {
	struct part part;
	size_t max_series;
	bool is_text;                     /* ai_log is a string */
};

static void destroy_bound(struct part *part)
{
	mem_free(CONTAINER(part, struct bound, part));
}

static struct part *bind(const void *conf, void *cell, const struct attach_target *t)
{
	struct bound *b = MEM_NEW(struct bound);

	(void)conf;
	(void)cell;
	ai_metrics_open();
	b->part = (struct part){ 1, destroy_bound };
	b->max_series = (size_t)t->setting(t, "ai.metrics.max_series")->integer;
	b->is_text = str_equal(t->setting(t, "ai.log.format")->string, STR("string"));
	return &b->part;
}

/* NULL: there are no settings. */
static const struct bound *bound_of(const struct step *s)
{
	return s->bound ? CONTAINER(s->bound, struct bound, part) : NULL;
}

static size_t max_series(const struct step *s)
{
	const struct bound *b = bound_of(s);

	return b ? b->max_series : 0;
}

/* ---------- metrics ---------- */

static struct str operation_of(enum ai_kind kind)
{
	switch (kind) {
	case AI_NONE:
		return STR("other");
	case AI_COMPLETIONS:
		return STR("text_completion");
	case AI_EMBEDDINGS:
		return STR("embeddings");
	case AI_APP:
	case AI_DIFY_CHAT:
	case AI_DIFY_COMPLETION:
	case AI_DIFY_WORKFLOW:
		return STR("invoke_agent");
	default:
		return STR("chat");
	}
}

static struct str provider_of(struct str configured, const struct chat *c)
{
	static const struct str families[] = {
		[AI_FAMILY_OPENAI] = { "openai", 6 },
		[AI_FAMILY_ANTHROPIC] = { "anthropic", 9 },
		[AI_FAMILY_DASHSCOPE] = { "dashscope", 9 },
		[AI_FAMILY_DIFY] = { "dify", 4 },
	};

	return configured.n > 0 ? configured : families[c->family];
}

static void count(struct exchange *x, const struct step *s, const struct watched *w, const struct chat *c)
{
	const struct chat_facts facts = chat_facts(x);
	const struct str answered = sbuf_str(&c->answer.model);
	bool is_answered = c->status >= 200 && c->status < 300;
	int64_t gaps = c->usage.of[USAGE_OUTPUT] - 1;
	struct ai_measure m = {
		.route = facts.route, .service = facts.service, .consumer = exchange_consumer(x),
		.model = answered.n > 0 ? answered : c->model, .request_model = c->model,
		.response_model = answered, .operation = operation_of(c->kind),
		.provider = provider_of(facts.provider, c), .is_answered = is_answered,
		.has_usage = usage_is_known(&c->usage),
		.input = c->usage.of[USAGE_INPUT], .output = c->usage.of[USAGE_OUTPUT],
		.service_us = w->end_us - w->start_us,
	};

	if (m.has_usage)
		m.total = usage_total(&c->usage, c->answer.kind);
	if (c->is_answer_stream && c->first_token_us > w->start_us)
		m.first_token_us = c->first_token_us - w->start_us;
	if (m.first_token_us && gaps > 0)
		m.token_us = (c->last_token_us - c->first_token_us) / gaps;
	ai_metrics_count(&m, max_series(s));
}

/* ---------- the request ---------- */

static enum body_wish want_no_body(struct exchange *x, const struct step *s, size_t *most)
{
	(void)x;
	(void)s;
	(void)most;
	return BODY_UNWANTED;
}

static struct str read_session(struct exchange *x)
{
	static const struct str names[] = { { "x-session-id", 12 }, { "x-agent-session", 15 } };

	for (unsigned i = 0; i < 2; i++) {
		const struct header *h = message_find_name(exchange_request(x), names[i]);

		if (h && h->value.n > 0)
			return arena_copy(exchange_arena(x), h->value);
	}
	return (struct str){ NULL, 0 };
}

/* Before it is known what the request is: whatever becomes of it is recorded. */
static enum verdict begin(struct exchange *x, const struct step *s)
{
	struct watched *w = exchange_state(x, s);

	w->start_us = clock_us() - chat_facts(x).waited_us;
	w->session = read_session(x);
	return next();
}

static void over(struct exchange *x, const struct step *s, struct chat *c);

static enum verdict watch(struct exchange *x, const struct step *s)
{
	const struct ai_statistics *conf = s->conf;
	struct watched *w = exchange_state(x, s);
	struct chat *c = exchange_chat(x);

	if (!c)
		return next();
	c->wants_usage = true;
	c->wants_text |= conf->aiStatisticsConfig.logResponseContent;
	w->watcher = (struct chat_watcher){ .over = over, .step = s };
	w->is_watched = true;
	chat_watch(c, &w->watcher);
	return next();
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	(void)x;
	(void)s;
	return next();
}

/* ---------- the end ---------- */

static void record(struct exchange *x, const struct step *s, struct watched *w)
{
	const struct ai_statistics *conf = s->conf;
	const struct chat_facts facts = chat_facts(x);
	struct chat *c = exchange_chat(x);
	struct sbuf out = { 0 };

	/* A browser asks whether it may ask. */
	if (!c && exchange_request(x)->method == METHOD_OPTIONS)
		return;
	ai_record_write(&out, &(struct ai_record){
		.x = x, .chat = c, .api = facts.route, .session = w->session,
		.is_stream = facts.is_events || (c && c->is_answer_stream), .names_model = facts.names_model,
		.has_request_content = conf->aiStatisticsConfig.logRequestContent,
		.has_response_content = conf->aiStatisticsConfig.logResponseContent,
		.is_text = bound_of(s) && bound_of(s)->is_text,
		.start_us = w->start_us, .end_us = w->is_over ? w->end_us : clock_us(),
	});
	exchange_keep_member(x, arena_copy(exchange_arena(x), sbuf_str(&out)));
	sbuf_free(&out);
	policy_count(s, OUTCOME_RECORDED);
	if (c ? c->kind != AI_NONE || c->is_model_api || c->is_agent_api : facts.is_ai)
		ai_metrics_count_status(facts.status);
}

static void over(struct exchange *x, const struct step *s, struct chat *c)
{
	struct watched *w = exchange_state(x, s);

	w->is_over = true;
	w->end_us = clock_us();
	if (c->end == CHAT_ABORTED)
		policy_count(s, OUTCOME_ABORTED);
	if (c->usage_is_estimated) {
		policy_count(s, OUTCOME_ESTIMATED);
		ai_metrics_count_estimate();
	}
	if ((c->kind != AI_NONE || usage_is_known(&c->usage)) && c->end != CHAT_LOCAL)
		count(x, s, w, c);
	if (w->is_ending)
		record(x, s, w);
}

/* The step that reads answers may end after this one, and calls over() then. */
static void ending(struct exchange *x, const struct step *s)
{
	struct watched *w = exchange_state(x, s);

	w->is_ending = true;
	if (!w->is_watched || w->is_over)
		record(x, s, w);
}

/* Its being there has the step remembered until the end. */
static void done(struct exchange *x, const struct step *s)
{
	(void)x;
	(void)s;
}

const struct policy_class ai_statistics = {
	.name = "AiStatistics",
	.alias = "AI statistics",
	.summary = "Records model, tokens, durations and content of AI requests.",
	.group = "AI",
	.wants = WANTS_CHAT,
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_STATISTICS,
	.response_stage = RESPONSE_AI,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginStatistic",
	.execute_priority = 558,
	.fields = fields,
	.conf_size = sizeof(struct ai_statistics),
	.enable_at = offsetof(struct ai_statistics, enable),
	.state_size = sizeof(struct watched),
	.outcomes = { "recorded", "estimated", "aborted" },
	.bind = bind,
	.body = begin,
	.body_stage = STAGE_AI_RECORD,
	.wants_body = want_no_body,
	.request = watch,
	.ending = ending,
	.done = done,
	.explain = explain,
};
