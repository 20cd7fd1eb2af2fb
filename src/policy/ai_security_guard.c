/*
 * ai_security_guard.c -- AiSecurityGuard: prompts and answers of an AI service are judged by a moderation service.
 *
 *      service leg     texts of the last turn ──► service ──► on, or a refusal: the upstream gets nothing
 *      response leg    whole answers (guard_answer.c)
 *      data leg        answers that are events (guard_stream.c)
 *
 * A broken service lets traffic pass unless the gateway setting ai.guard.fail_mode says closed; either way it is
 * counted and stands in the record: what was not judged never counts as passed. What
 * clients and models said is not logged.
 */
#include "core/budget.h"
#include "core/log.h"
#include "core/mem.h"
#include "policy/guard_parts.h"
#include "policy/side_url.h"

enum check_service { CHECK_LLM, CHECK_SECURITY };

struct risk_bar {
	int type, level;
};

static const struct choice levels[] = {
	{ GUARD_LOW, "low", "Blocks what is rated low or above.", NULL },
	{ GUARD_MEDIUM, "medium", "Blocks what is rated medium or above.", NULL },
	{ GUARD_HIGH, "high", "Blocks what is rated high.", NULL },
	{ GUARD_MAX, "max", "Detects and logs, never blocks.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice services[] = {
	{ CHECK_LLM, "LLM", "Text moderation for language models.", NULL },
	{ CHECK_SECURITY, "Security", "The guard that also knows attacks, sensitive data and malicious "
		"URLs.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct choice types[] = {
	{ RISK_GLOBAL, "Global", "All risks without a row of their own.", NULL },
	{ RISK_CONTENT, "ContentModeration", "Content that violates rules.", NULL },
	{ RISK_ATTACK, "PromptAttack", "Prompts that try to override instructions.", NULL },
	{ RISK_SENSITIVE, "SensitiveData", "Personal and other sensitive data.", NULL },
	{ RISK_URL, "MaliciousUrl", "Links to malicious sites.", NULL },
	{ RISK_HALLUCINATION, "ModelHallucination", "Answers without ground.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field risk_fields[] = {
	CHOICE(struct risk_bar, type, types, REQUIRED, DOC("Kind of risk; each at most once.")),
	CHOICE(struct risk_bar, level, levels, REQUIRED, DOC("Level from which this kind blocks.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct ai_security_guard, enable, REQUIRED, DOC("Whether the policy acts.")),
	TEXT(struct ai_security_guard, serviceAddress, REQUIRED, RANGE(1, SIDE_URL_MAX),
	     FORMAT(side_url_format),
	     EXAMPLE("\"http://security-guard-service:8080\""), DOC("URL of the moderation service.")),
	BOOL(struct ai_security_guard, checkRequest, REQUIRED,
	     DOC("Whether prompts are checked before they leave.")),
	BOOL(struct ai_security_guard, checkResponse, REQUIRED, EXAMPLE("true"),
	     DOC("Whether answers are checked before the client gets them. At least one of the two checks "
	     "must be on.")),
	CHOICE(struct ai_security_guard, riskAlertLevel, levels, REQUIRED, EXAMPLE("\"medium\""),
	       DOC("Level from which a risk blocks, unless `riskConfig` says otherwise for its kind.")),
	CHOICE(struct ai_security_guard, requestCheckService, services, DEFAULT("\"Security\""),
	       DOC("Which check of the moderation service judges prompts.")),
	CHOICE(struct ai_security_guard, responseCheckService, services, DEFAULT("\"Security\""),
	       DOC("Which check of the moderation service judges answers.")),
	INT(struct ai_security_guard, bufferLimit, RANGE(1, 1500), DEFAULT("1000"), UNIT("characters"),
	    DOC("How much of a streamed answer is held for one check.")),
	LIST(struct ai_security_guard, riskConfig, struct risk_bar, risk_fields, RANGE(0, 6),
	     DOC("Levels for single kinds of risk; a kind's own row wins over Global, Global over "
	     "`riskAlertLevel`.")),
	FIELDS_END
};

static bool check(const void *vconf, struct problem *why)
{
	const struct ai_security_guard *conf = vconf;
	bool seen[RISK_TYPES] = { false };
	size_t i;

	if (!conf->checkRequest && !conf->checkResponse)
		return problem(why, "checkRequest",
			"and checkResponse are both false; set one of them, or disable the policy");
	for (i = 0; i < conf->riskConfig.n; i++) {
		const struct risk_bar *bar = ITEM(conf->riskConfig, const struct risk_bar, i);
		char path[96];

		snprintf(path, sizeof(path), "riskConfig[%zu].type", i);
		if (seen[bar->type])
			return problem(why, path, "\"%s\" is there twice", choice_text(types, bar->type));
		seen[bar->type] = true;
	}
	return true;
}

/* ---------- what is asked ---------- */

/* "/" and the address's query, then Service=...; Alibaba's service has other codes in Singapore. */
static void make_question(const struct ai_security_guard *conf, struct arena *a, bool is_request,
			  struct guard_question *q)
{
	int service = is_request ? conf->requestCheckService : conf->responseCheckService;
	const char *code = is_request ? "query_security_check" : "response_security_check", *suffix = "";
	struct url url;

	BUG_ON(!url_parse(conf->serviceAddress, &url));
	if (service == CHECK_LLM)
		code = is_request ? "llm_query_moderation" : "llm_response_moderation";
	if (str_ends(url.host, STR(".ap-southeast-1.aliyuncs.com")))
		suffix = "_intl";
	q->url = conf->serviceAddress;
	q->authority = url.authority;
	q->action = service == CHECK_LLM ? STR("TextModerationPlus") : STR("MultiModalGuard");
	q->target = arena_printf(a, "%.*s%sService=%s%s", STR_FMT(url.target),
				 str_find(url.target, '?') < url.target.n ? "&" : "?", code, suffix);
}

static bool prepare(void *vconf, struct arena *a, struct problem *why)
{
	struct ai_security_guard *conf = vconf;
	bool has_own[RISK_TYPES] = { false };

	(void)why;
	conf->bars.of[RISK_GLOBAL] = (enum guard_level)conf->riskAlertLevel;
	for (size_t i = 0; i < conf->riskConfig.n; i++) {
		const struct risk_bar *bar = ITEM(conf->riskConfig, const struct risk_bar, i);

		conf->bars.of[bar->type] = (enum guard_level)bar->level;
		has_own[bar->type] = true;
	}
	for (int i = RISK_GLOBAL + 1; i < RISK_TYPES; i++)
		if (!has_own[i])
			conf->bars.of[i] = conf->bars.of[RISK_GLOBAL];
	make_question(conf, a, true, &conf->of_request);
	make_question(conf, a, false, &conf->of_response);
	return true;
}

/* ---------- settings ---------- */

static struct {
	struct series *denied[2];         /* by enum guard_side */
} metrics;

static void destroy_plan(struct part *part)
{
	struct guard_plan *plan = CONTAINER(part, struct guard_plan, part);

	arena_free(&plan->arena);
	mem_free(plan);
}

static struct str read_text(const struct attach_target *t, const char *name, struct arena *a)
{
	return arena_copy(a, t->setting(t, name)->string);
}

static struct part *bind(const void *conf, void *cell, const struct attach_target *t)
{
	struct guard_plan *plan = MEM_NEW(struct guard_plan);

	(void)conf;
	(void)cell;
	if (!metrics.denied[GUARD_OF_REQUEST]) {
		metrics.denied[GUARD_OF_REQUEST] = metric_series(METRIC_GUARD_REQUEST_DENY, NULL);
		metrics.denied[GUARD_OF_RESPONSE] = metric_series(METRIC_GUARD_RESPONSE_DENY, NULL);
	}
	plan->part = (struct part){ 1, destroy_plan };
	plan->arena.is_small = plan->arena.wipes = true;
	plan->key.id = read_text(t, "ai.guard.access_key_id", &plan->arena);
	plan->key.secret = read_text(t, "ai.guard.access_key_secret", &plan->arena);
	plan->key.token = read_text(t, "ai.guard.security_token", &plan->arena);
	plan->fails_closed = str_equal(t->setting(t, "ai.guard.fail_mode")->string, STR("closed"));
	plan->timeout_ms = t->setting(t, "ai.guard.timeout_ms")->integer;
	if ((plan->key.id.n > 0) != (plan->key.secret.n > 0))
		log_warn("guard.half_a_key", F_STR("gatewayId", t->gateway_id),
			 F_TEXT("effect", "one of ai.guard.access_key_id and ai.guard.access_key_secret is missing: "
			        "calls to the guard are not signed"));
	return &plan->part;
}

/* ---------- asking ---------- */

static void wake(struct guard_call *g)
{
	struct guard_state *state = CONTAINER(g, struct guard_state, call);

	if (!state->stream) {
		wait_done(&state->wait);
		return;
	}
	state->stream->is_judged = true;
	exchange_poke_pieces(g->x);
}

void guard_ask(struct exchange *x, const struct step *s, enum guard_side side, struct str text)
{
	const struct ai_security_guard *conf = s->conf;
	struct guard_state *state = exchange_state(x, s);
	struct guard_call *g = &state->call;
	const struct guard_question *q = side == GUARD_OF_REQUEST ? &conf->of_request : &conf->of_response;

	if (g->question != q)
		g->has_session = false;
	g->x = x;
	g->question = q;
	g->plan = CONTAINER(s->bound, struct guard_plan, part);
	g->bars = &conf->bars;
	g->over = wake;
	guard_call_start(g, text);
}

void guard_drop_text(struct guard_state *state)
{
	sbuf_free(&state->text);
	budget_add(-(int64_t)state->counted);
	state->counted = 0;
}

enum verdict guard_await(struct exchange *x, const struct step *s, enum guard_side side, hook *then)
{
	struct guard_state *state = exchange_state(x, s);

	state->counted = state->text.cap;
	budget_add((int64_t)state->counted);
	state->wait = (struct wait){ .x = NULL };
	guard_ask(x, s, side, sbuf_str(&state->text));
	return await(x, &state->wait, then);
}

/* ---------- what it means ---------- */

/* A refusal stays in the record, then a broken service, then the last that passed. */
static void tell_status(struct chat *c, struct str status)
{
	if (str_ends(c->safecheck_status, STR(" deny")))
		return;
	if (str_equal(c->safecheck_status, STR("error")) && !str_ends(status, STR(" deny")))
		return;
	c->safecheck_status = status;
}

static void tell_log(struct exchange *x, const struct step *s, enum guard_side side, const char *action)
{
	const struct guard_state *state = exchange_state(x, s);
	const struct guard_verdict *v = &state->call.verdict;
	char said[GUARD_LEVELS_TEXT];

	guard_describe_levels(v, said);
	log_every(LOG_WARN, "guard.matched", LOG_FIELDS(
		F_TEXT("action", action), F_TEXT("direction", side == GUARD_OF_REQUEST ? "request" : "response"),
		F_TEXT("levels", said), F_TEXT("labels", v->label), F_TEXT("guardRequestId", v->request_id),
		F_STR("serviceId", s->resource_id), F_STR("policyId", s->policy_id),
		F_STR("requestId", exchange_property(x, STR("request.id")))));
}

static enum guard_ruling rule_broken(struct exchange *x, const struct step *s, enum guard_side side, struct str why)
{
	const struct guard_plan *plan = CONTAINER(s->bound, struct guard_plan, part);

	policy_count(s, GUARD_ERROR);
	tell_status(exchange_chat(x), STR("error"));
	log_event(LOG_WARN, "guard.unavailable", LOG_FIELDS(
		F_STR("reason", why), F_TEXT("direction", side == GUARD_OF_REQUEST ? "request" : "response"),
		F_TEXT("effect", plan->fails_closed ? "refused" : "passed without a verdict"),
		F_STR("serviceId", s->resource_id), F_STR("policyId", s->policy_id),
		F_STR("requestId", exchange_property(x, STR("request.id")))));
	return plan->fails_closed ? RULING_UNAVAILABLE : RULING_PASS;
}

enum guard_ruling guard_rule_unread(struct exchange *x, const struct step *s, enum guard_side side, const char *what)
{
	exchange_keep_broken(x, what);
	return rule_broken(x, s, side, str_of(what));
}

void guard_tell_passed(struct exchange *x, const struct step *s, enum guard_side side)
{
	policy_count(s, GUARD_PASSED);
	tell_status(exchange_chat(x), side == GUARD_OF_REQUEST ? STR("request pass") : STR("response pass"));
}

static void keep_facts(struct exchange *x, const struct guard_call *g, enum guard_side side)
{
	struct chat *c = exchange_chat(x);
	int64_t *ms = side == GUARD_OF_REQUEST ? &c->safecheck_request_ms : &c->safecheck_response_ms;

	/* Of a stream: all its windows. */
	*ms = (*ms > 0 ? *ms : 0) + g->duration_us / 1000;
	if (g->verdict.label[0])
		c->safecheck_risk_label = arena_copy(exchange_arena(x), str_of(g->verdict.label));
	if (g->verdict.request_id[0])
		c->safecheck_request_id = arena_copy(exchange_arena(x), str_of(g->verdict.request_id));
}

enum guard_ruling guard_rule(struct exchange *x, const struct step *s, enum guard_side side)
{
	const struct guard_state *state = exchange_state(x, s);
	const struct guard_call *g = &state->call;
	struct guard_cell *cell = s->cell;
	bool is_request = side == GUARD_OF_REQUEST;

	keep_facts(x, g, side);
	if (!g->verdict.is_read) {
		exchange_keep_broken(x, g->broken_tag);
		if (!g->is_ours)
			dependency_down(&cell->service, "the guard does not answer as it should", g->broken);
		return rule_broken(x, s, side, g->broken);
	}
	dependency_up(&cell->service);
	if (!g->verdict.blocks) {
		if (guard_worst(&g->verdict) > GUARD_NONE)
			tell_log(x, s, side, "passed");
		return RULING_PASS;
	}
	policy_count(s, is_request ? GUARD_REQUEST_DENIED : GUARD_RESPONSE_DENIED);
	metric_add(metrics.denied[side], 1);
	tell_status(exchange_chat(x), is_request ? STR("request deny") : STR("response deny"));
	tell_log(x, s, side, "denied");
	return RULING_DENY;
}

/* ---------- the request ---------- */

static enum verdict judge_request(struct exchange *x, const struct step *s)
{
	struct guard_state *state = exchange_state(x, s);

	guard_drop_text(state);
	switch (guard_rule(x, s, GUARD_OF_REQUEST)) {
	case RULING_DENY:
		return guard_refuse(x, s, GUARD_OF_REQUEST);
	case RULING_UNAVAILABLE:
		return guard_unavailable(x);
	case RULING_PASS:
		break;
	}
	if (state->call.verdict.is_read)
		guard_tell_passed(x, s, GUARD_OF_REQUEST);
	return next();
}

/*
 * Where the last turn begins when the client wrote the beginning of the answer itself: that is none of the model's,
 * and what stands before it is asked now.
 */
static unsigned find_turn(const struct prompt *p)
{
	unsigned at = p->n;

	if (p->last_role != PROMPT_ASSISTANT)
		return p->n;
	while (at > 0 && p->texts[at - 1].role == PROMPT_ASSISTANT)
		at--;
	while (at > 0 && p->texts[at - 1].role != PROMPT_ASSISTANT)
		at--;
	return at;
}

/* What the model is asked now: the system's words, and all that came after its last answer. */
static void gather(struct chat *c, struct sbuf *out)
{
	const struct prompt *p = chat_prompt(c);
	unsigned turn = find_turn(p);

	for (unsigned i = 0; i < p->n; i++) {
		struct str text = p->texts[i].text->string;

		if ((!p->texts[i].is_last_turn && i < turn) || text.n == 0)
			continue;
		if (out->n > 0)
			sbuf_addc(out, '\n');
		sbuf_add(out, text);
	}
}

/*
 * A body that is for a model and says that it is something else than JSON: many servers read it as JSON all the same.
 */
static bool is_disguised(struct exchange *x, const struct chat *c)
{
	const struct message *req = exchange_request(x);

	return !c->raw.p && req->method == METHOD_POST && req->framing != FRAMING_NONE &&
		ai_kind_detect(exchange_path(x), NULL) != AI_NONE;
}

static enum verdict refuse_unreadable(struct exchange *x)
{
	return chat_reply_error(x, 400, "invalid_json", "ErrInvalidParameter",
				STR("the request body is no JSON that could be checked"));
}

static enum verdict check_request(struct exchange *x, const struct step *s)
{
	const struct ai_security_guard *conf = s->conf;
	struct guard_state *state = exchange_state(x, s);
	struct chat *c = exchange_chat(x);

	if (!c || !conf->checkRequest)
		return next();
	if (c->parse_error || is_disguised(x, c))
		return refuse_unreadable(x);
	if (!exchange_chat_readable(x))
		return next();
	gather(c, &state->text);
	if (state->text.n == 0) {
		guard_tell_passed(x, s, GUARD_OF_REQUEST);
		return next();
	}
	return guard_await(x, s, GUARD_OF_REQUEST, judge_request);
}

static void forget(struct exchange *x, const struct step *s)
{
	struct guard_state *state = exchange_state(x, s);

	guard_call_free(&state->call);
	guard_drop_text(state);
	if (state->stream)
		guard_stream_free(state->stream);
	state->stream = NULL;
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	(void)s;
	return cannot_judge(x, "a dry run asks no guard");
}

const struct policy_class ai_security_guard = {
	.name = "AiSecurityGuard",
	.alias = "AI guardrails",
	.summary = "Has prompts and answers of an AI service judged by a moderation service and blocks what "
		"is too risky.",
	.group = "AI",
	.scopes = SCOPE_SERVICE,
	.stage = STAGE_AI_GUARD,
	.service_stage = STAGE_AI_GUARD,
	.response_stage = RESPONSE_GUARD,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.wants = WANTS_CHAT,
	.fails_open = true,
	.fail_status = 503,
	.execute_stage = "PluginPost",
	.execute_priority = 515,
	.fields = fields,
	.conf_size = sizeof(struct ai_security_guard),
	.enable_at = offsetof(struct ai_security_guard, enable),
	.cell_size = sizeof(struct guard_cell),
	.dependency = "guard",
	.dependency_at = offsetof(struct guard_cell, service),
	.state_size = sizeof(struct guard_state),
	.outcomes = { [GUARD_PASSED] = "passed", [GUARD_REQUEST_DENIED] = "request_denied",
		      [GUARD_RESPONSE_DENIED] = "response_denied", [GUARD_ERROR] = "error" },
	.check = check,
	.prepare = prepare,
	.bind = bind,
	.service = check_request,
	.response = guard_check_answer,
	.data = guard_take_piece,
	.done = forget,
	.explain = explain,
};
