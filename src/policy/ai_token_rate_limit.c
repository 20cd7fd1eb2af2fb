/*
 * ai_token_rate_limit.c -- AiTokenRateLimit: how many model tokens a consumer, a model or everybody may use in a time
 * window.
 *
 * A request is admitted if every rule has budget left. What its prompt takes by estimate counts from then on, the rest
 * when the answer is over. Budgets belong to one attachment on one resource; they are in Redis, and in the ledger of
 * the process (token_ledger.h) while Redis cannot be asked.
 */
#include "ai/chat.h"
#include "ai/chat_facts.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "policy/redis_config.h"
#include "policy/token_ledger.h"
#include "policy/token_series.h"
#include "proxy/side_call.h"

enum limit_type { LIMIT_BY_CONSUMER, LIMIT_BY_MODEL, LIMIT_BY_GLOBAL };
enum outcome { ADMITTED, LIMITED, DEGRADED };

struct token_rule {
	int limitType;
	int64_t threshold, timeWindow, responseStatusCode;
	struct str responseContentBody;
};

/* A rule in force. */
struct token_limit {
	const struct token_rule *rule;
	struct str middle;                /* of its keys, between prefix and value: ":0:LimitByConsumer:60:" */
	struct str name;                  /* "rules[0]" */
	struct str content_type;          /* of its body */
};

struct ai_token_rate_limit {
	bool enable, enableGlobalRules;
	struct items rules, globalRules;
	struct redis_config redisConfig;
	/* derived */
	struct token_limit *limits;       /* in the order in which they answer */
	unsigned n_limits;
};

struct cell {
	struct dependency redis;
	struct redis_user user;
};

/* What the gateway's settings say. */
struct plan {
	struct part part;
	bool reserves;
	int64_t wait_ms;
	size_t environment_n;
	char environment[];
};

struct admission {
	struct token_asker asker;
	struct chat_watcher watcher;
	bool has_numbers;                 /* for the response's fields: of the rule with the least left */
	int64_t limit, remaining, reset_s;
};

static const struct choice limit_types[] = {
	{ LIMIT_BY_CONSUMER, "LimitByConsumer", "One budget for each consumer; all anonymous callers share "
		"one.", NULL },
	{ LIMIT_BY_MODEL, "LimitByModel", "One budget for each model the client asks for.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice global_limit_types[] = {
	{ LIMIT_BY_GLOBAL, "LimitByGlobal", "One budget for all requests.", NULL },
	{ 0, NULL, NULL, NULL }
};

/* 2^53: what a JSON number carries exactly everywhere. */
#define THRESHOLD_MAX 9007199254740992.0
#define WINDOW_MAX (365 * 24 * 3600)
#define BODY_MAX (64 * 1024)
#define RULES_MAX 32

#define LIMIT_FIELDS \
	INT(struct token_rule, threshold, REQUIRED, RANGE(1, THRESHOLD_MAX), UNIT("tokens"), EXAMPLE("10000"), \
	    DOC("Tokens that may be used in one window.")), \
	INT(struct token_rule, timeWindow, REQUIRED, RANGE(1, WINDOW_MAX), UNIT("seconds"), EXAMPLE("60"), \
	    DOC("Length of the window, which starts with the first charge.")), \
	INT(struct token_rule, responseStatusCode, RANGE(200, 599), DEFAULT("429"), \
	    DOC("Status of the answer when this rule refuses.")), \
	TEXT(struct token_rule, responseContentBody, RANGE(0, BODY_MAX), \
	     EXAMPLE("\"{\\\"error\\\":\\\"Token limit exceeded\\\"}\""), \
	     DOC("Body of the answer when this rule refuses; absent: an error in the shape of the client's " \
	         "protocol.")), \
	FIELDS_END

static const struct field rule_fields[] = {
	CHOICE(struct token_rule, limitType, limit_types, REQUIRED, DOC("What a budget belongs to.")),
	LIMIT_FIELDS
};

static const struct field global_rule_fields[] = {
	CHOICE(struct token_rule, limitType, global_limit_types, REQUIRED, DOC("What a budget belongs to.")),
	LIMIT_FIELDS
};

static const struct field fields[] = {
	BOOL(struct ai_token_rate_limit, enable, REQUIRED, DOC("Whether the policy acts.")),
	LIST(struct ai_token_rate_limit, rules, struct token_rule, rule_fields, RANGE(0, RULES_MAX),
	     WHEN("enableGlobalRules", false), DOC("Rules by consumer or model; all of them must admit.")),
	BOOL(struct ai_token_rate_limit, enableGlobalRules, DEFAULT("false"), EXAMPLE("true"),
	     DOC("Whether `globalRules` act.")),
	LIST(struct ai_token_rate_limit, globalRules, struct token_rule, global_rule_fields, RANGE(0,
	     RULES_MAX),
	     WHEN("enableGlobalRules", true), DOC("Rules for all requests together.")),
	OBJECT(struct ai_token_rate_limit, redisConfig, redis_config_fields, REQUIRED,
	       DOC("Where the counters live.")),
	FIELDS_END
};

static bool is_bodiless(int64_t status)
{
	return status == 204 || status == 205 || status == 304;
}

static bool check_bodies(const struct items *rules, const char *name, struct problem *why)
{
	size_t i;

	for (i = 0; i < rules->n; i++) {
		const struct token_rule *rule = ITEM(*rules, const struct token_rule, i);
		int64_t status = rule->responseStatusCode;
		char path[96];

		if (!rule->responseContentBody.n || !is_bodiless(status))
			continue;
		snprintf(path, sizeof(path), "%s[%zu].responseContentBody", name, i);
		return problem(why, path, "must be empty: an answer with status %lld has no body",
			(long long)status);
	}
	return true;
}

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_token_rate_limit *conf = vconf;

	if (!check_bodies(&conf->rules, "rules", why))
		return false;
	if (!conf->rules.n && !conf->enableGlobalRules)
		return problem(why, "rules", "is empty and the global rules are off; give at least one rule");
	if (conf->enableGlobalRules && !conf->globalRules.n)
		return problem(why, "globalRules",
			"is empty; enableGlobalRules needs at least one rule here");
	return check_bodies(&conf->globalRules, "globalRules", why) && redis_config_check(&conf->redisConfig,
		why);
}

static bool is_json(struct str s)
{
	struct arena scratch = { 0 };
	struct problem unused;
	bool yes = json_parse(&scratch, s, &unused) != NULL;

	arena_free(&scratch);
	return yes;
}

static void add_limits(struct ai_token_rate_limit *conf, const struct items *rules, const char *name, struct arena *a)
{
	static const char *const names[] = {
		[LIMIT_BY_CONSUMER] = "LimitByConsumer", [LIMIT_BY_MODEL] = "LimitByModel",
		[LIMIT_BY_GLOBAL] = "LimitByGlobal",
	};

	for (size_t i = 0; i < rules->n; i++) {
		const struct token_rule *rule = ITEM(*rules, const struct token_rule, i);

		conf->limits[conf->n_limits++] = (struct token_limit){
			.rule = rule,
			.name = arena_printf(a, "%s[%zu]", name, i),
			.middle = arena_printf(a, ":%zu:%s:%lld:", i, names[rule->limitType],
					       (long long)rule->timeWindow),
			.content_type = is_json(rule->responseContentBody) ? STR("application/json") :
									     STR("text/plain; charset=utf-8"),
		};
	}
}

static bool prepare(void *vconf, struct arena *a, struct problem *why)
{
	struct ai_token_rate_limit *conf = vconf;

	(void)why;
	conf->limits = NEW_N(a, struct token_limit, TOKEN_BUDGETS_MAX);
	add_limits(conf, &conf->rules, "rules", a);
	if (conf->enableGlobalRules)
		add_limits(conf, &conf->globalRules, "globalRules", a);
	return true;
}

static void destroy_plan(struct part *part)
{
	mem_free(CONTAINER(part, struct plan, part));
}

/* Of the resource it is attached to: all that it goes on have one. */
static struct str environment_of(const struct attach_target *t)
{
	static const struct {
		enum scope scope;
		const char *kind;
	} kinds[] = {
		{ SCOPE_ROUTE, "route" }, { SCOPE_API, "httpApi" }, { SCOPE_OPERATION, "operation" },
		{ SCOPE_LLM_API, "llmApi" }, { SCOPE_AGENT_API, "agentApi" },
	};
	const struct json *doc = NULL, *id;

	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (kinds[i].scope == t->scope)
			doc = t->find(t, kinds[i].kind, t->resource_id);
	id = doc ? json_get(doc, "environmentId") : NULL;
	return id && id->type == JSON_STRING ? id->string : STR("-");
}

static struct part *bind(const void *conf, void *cell, const struct attach_target *t)
{
	struct str id = environment_of(t);
	struct plan *plan = mem_alloc(sizeof *plan + id.n);

	(void)conf;
	(void)cell;
	token_ledger_metrics();
	plan->part = (struct part){ 1, destroy_plan };
	plan->reserves = str_equal(t->setting(t, "ai.token_limit.reserve")->string, STR("on"));
	plan->wait_ms = t->setting(t, "ai.token_limit.wait_ms")->integer;
	plan->environment_n = id.n;
	str_put(plan->environment, id);
	return &plan->part;
}

static void begin_cell(void *memory, const void *vconf)
{
	const struct ai_token_rate_limit *conf = vconf;
	struct cell *cell = memory;

	redis_user_begin(&cell->user, &conf->redisConfig, &cell->redis);
}

static void end_cell(void *memory)
{
	struct cell *cell = memory;

	redis_user_end(&cell->user);
}

/* ---------- budgets ---------- */

/* 16 digits that say nothing of what they stand for, and are the same on every node. */
static struct str digest_of(struct arena *a, const char *prefix, struct str text)
{
	uint8_t d[32];

	crypto_sha256(text, d);
	return arena_printf(a, "%s%02x%02x%02x%02x%02x%02x%02x%02x", prefix, d[0], d[1], d[2], d[3], d[4], d[5], d[6],
			    d[7]);
}

/* Who shares a budget. A consumer that only has a name (an authorization service said it) goes by its digest. */
static struct str value_of(struct exchange *x, const struct chat *c, int limit_type)
{
	struct str id = exchange_consumer_id(x), name = exchange_consumer(x);

	if (limit_type == LIMIT_BY_GLOBAL)
		return STR("-");
	if (limit_type == LIMIT_BY_MODEL)
		return digest_of(exchange_arena(x), "", c->model);
	if (id.n > 0)
		return id;
	return name.n > 0 ? digest_of(exchange_arena(x), "name-", name) : STR("none");
}

/* The braces keep all keys of a request in one slot of a cluster. */
static struct str make_key(struct exchange *x, const struct step *s, const struct token_limit *l, struct str value)
{
	const struct plan *plan = CONTAINER(s->bound, struct plan, part);

	return arena_printf(exchange_arena(x), "sluice:trl:{%.*s:%.*s:%.*s}%.*s%.*s", STR_FMT(s->policy_id),
			    STR_FMT(s->resource_id), (int)plan->environment_n, plan->environment, STR_FMT(l->middle),
			    STR_FMT(value));
}

static struct token_ticket *make_ticket(struct exchange *x, const struct step *s, struct chat *c)
{
	const struct ai_token_rate_limit *conf = s->conf;
	const struct plan *plan = CONTAINER(s->bound, struct plan, part);
	const struct cell *cell = s->cell;
	struct token_budget budgets[TOKEN_BUDGETS_MAX] = { 0 };
	struct token_ticket *t;

	for (unsigned i = 0; i < conf->n_limits; i++) {
		const struct token_limit *l = &conf->limits[i];

		budgets[i].key = make_key(x, s, l, value_of(x, c, l->rule->limitType));
		budgets[i].threshold = l->rule->threshold;
		budgets[i].window_s = l->rule->timeWindow;
	}
	t = token_ticket_new(cell->user.target, conf->n_limits, budgets);
	t->reserve = plan->reserves ? chat_prompt_estimate(c) : 0;
	t->wait_ms = plan->wait_ms;
	return t;
}

/* ---------- requests ---------- */

static int64_t reset_of(const struct token_budget *b)
{
	return b->left_ms > 0 ? (b->left_ms + 999) / 1000 : b->window_s;
}

static void put_number(struct exchange *x, struct str name, int64_t n)
{
	message_set(exchange_response(x), name, arena_printf(exchange_arena(x), "%lld", (long long)n));
}

static void put_numbers(struct exchange *x, const struct admission *a)
{
	put_number(x, STR("X-TokenRateLimit-Limit"), a->limit);
	put_number(x, STR("X-TokenRateLimit-Remaining"), a->remaining);
	put_number(x, STR("X-TokenRateLimit-Reset"), a->reset_s);
}

static enum verdict refuse(struct exchange *x, const struct step *s, const struct token_ticket *t)
{
	const struct ai_token_rate_limit *conf = s->conf;
	const struct token_limit *l = &conf->limits[t->refused_by];
	const struct token_rule *rule = l->rule;
	const struct token_budget *b = &t->budgets[t->refused_by];
	const struct admission numbers = { .limit = b->threshold, .reset_s = reset_of(b) };
	enum verdict verdict;

	policy_count(s, LIMITED);
	token_series_count(exchange_worker(x), chat_facts(x).route, exchange_consumer(x), l->name);
	exchange_keep_flag(x, "TL");
	exchange_chat(x)->token_limited = true;
	if (rule->responseContentBody.n > 0 || is_bodiless(rule->responseStatusCode))
		verdict = reply(x, (int)rule->responseStatusCode,
				rule->responseContentBody.n ? l->content_type : (struct str){ NULL, 0 },
				rule->responseContentBody);
	else
		verdict = chat_reply_error(x, (int)rule->responseStatusCode, "rate_limit_exceeded", "ErrRateLimited",
					   arena_printf(exchange_arena(x), "The limit of %lld tokens in %lld s is used "
							"up; try again in %lld s", (long long)rule->threshold,
							(long long)rule->timeWindow, (long long)numbers.reset_s));
	put_numbers(x, &numbers);
	put_number(x, STR("Retry-After"), numbers.reset_s);
	return verdict;
}

/* Of the rule that has the least left. */
static void keep_numbers(struct admission *a, const struct token_ticket *t)
{
	for (unsigned i = 0; i < t->n; i++) {
		const struct token_budget *b = &t->budgets[i];
		int64_t remaining = b->threshold > b->used ? b->threshold - b->used : 0;

		if (a->has_numbers && remaining >= a->remaining)
			continue;
		a->has_numbers = true;
		a->limit = b->threshold;
		a->remaining = remaining;
		a->reset_s = reset_of(b);
	}
}

static enum verdict judged(struct exchange *x, const struct step *s)
{
	struct admission *a = exchange_state(x, s);
	const struct token_ticket *t = token_ticket_answer(&a->asker);
	struct cell *cell = s->cell;

	if (t && !t->is_degraded)
		dependency_up(&cell->redis);
	else if (t && t->error)
		dependency_down(&cell->redis, REDIS_DOWN_REASON, str_of(t->error));
	if (t && t->answer == TICKET_REFUSED)
		return refuse(x, s, t);
	policy_count(s, !t || t->is_degraded ? DEGRADED : ADMITTED);
	if (t)
		keep_numbers(a, t);
	return next();
}

static void over(struct exchange *x, const struct step *s, struct chat *c)
{
	struct admission *a = exchange_state(x, s);

	token_ticket_settle(&a->asker, c->cost);
}

static enum verdict admit(struct exchange *x, const struct step *s)
{
	struct chat *c = exchange_chat_readable(x);
	struct admission *a;

	if (!c || !s->bound)
		return next();
	a = exchange_state(x, s);
	a->watcher = (struct chat_watcher){ .over = over, .step = s };
	c->wants_usage = true;
	chat_watch(c, &a->watcher);
	token_ticket_ask(x, &a->asker, make_ticket(x, s, c));
	return await(x, &a->asker.wait, judged);
}

static enum verdict respond(struct exchange *x, const struct step *s)
{
	const struct admission *a = exchange_state(x, s);

	if (a->has_numbers)
		put_numbers(x, a);
	return next();
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	(void)s;
	return cannot_judge(x, "how much is used is asked of Redis for requests to models only");
}

const struct policy_class ai_token_rate_limit = {
	.name = "AiTokenRateLimit",
	.alias = "AI token rate limiting",
	.summary = "Limits how many model tokens are used in a time window, by consumer, by model or in all.",
	.group = "AI",
	.wants = WANTS_CHAT,
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_TOKEN,
	.response_stage = RESPONSE_AI,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 554,
	.fields = fields,
	.conf_size = sizeof(struct ai_token_rate_limit),
	.enable_at = offsetof(struct ai_token_rate_limit, enable),
	.cell_size = sizeof(struct cell),
	.state_size = sizeof(struct admission),
	.outcomes = { [ADMITTED] = "admitted", [LIMITED] = "limited", [DEGRADED] = "degraded" },
	.check = check,
	.prepare = prepare,
	.bind = bind,
	.cell_init = begin_cell,
	.cell_free = end_cell,
	.adopted = token_ledger_tend,
	.dependency = "redis",
	.dependency_at = offsetof(struct cell, redis),
	.request = admit,
	.response = respond,
	.explain = explain,
};
