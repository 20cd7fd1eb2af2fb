/*
 * waf.c -- Waf: requests and responses are inspected by the rules of the gateway.
 *
 *      head (before authentication) ──► phase 1; phase 2 too when there is no body to look at
 *      body, when it was read       ──► phase 2
 *      response's head              ──► phase 3; pages are held back first, and phase 4 looks at them
 *      done                         ──► phase 5, where it did not run yet
 *
 * The config only switches it: rules, levels and exclusions are gateway settings (waf.*), of which waf_rules.h makes a
 * plan. The phases run beside the loop (waf_inspection.h). A broken engine closes: 500.
 *
 * What is looked at is decided by what the body says it is and by the response, never by what a client asks for.
 */
#include <stdio.h>
#include "core/log.h"
#include "policy/waf_inspection.h"
#include "policy/waf_prompt.h"
#include "policy/waf_rules.h"
#include "proxy/dependency.h"

#define PAGE_BYTES 524288                 /* of a response, held and inspected; what follows goes on as it comes */

enum outcome { PASSED, BLOCKED, DETECTED, TIMEOUT, ERROR, REFUSED, OUTCOMES };

struct waf {
	bool enable;
};

struct cell {
	struct dependency rules;
};

struct state {
	struct inspection *inspection;    /* NULL: there are no rules */
	bool reads_body;
	unsigned n_told;                  /* hits that stand in the log already */
};

static const struct field fields[] = {
	BOOL(struct waf, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static const char *const outcome_names[OUTCOMES] = { "passed", "blocked", "detected", "timeout", "error", "refused" };

static struct {
	struct series *requests[OUTCOMES][5];     /* by phase */
	struct series *hits[WAF_TAG_COUNT];
	struct series *timeouts;
} metrics;

/* ---------- rules ---------- */

/* Before the first worker sees a step. */
static void open_metrics(void)
{
	static const char *const phases[] = { "", "1", "2", "3", "4" };

	if (metrics.timeouts)
		return;
	for (unsigned i = 0; i < OUTCOMES; i++)
		for (unsigned phase = 1; phase <= 4; phase++)
			metrics.requests[i][phase] = metric_series(METRIC_WAF_REQUESTS, (struct str[]){
				str_of(outcome_names[i]), str_of(phases[phase]) });
	for (unsigned i = 0; i < WAF_TAG_COUNT; i++)
		metrics.hits[i] = metric_series(METRIC_WAF_HITS, (struct str[]){ str_of(waf_tag_names[i]) });
	metrics.timeouts = metric_series(METRIC_WAF_TIMEOUTS, NULL);
}

static struct part *bind(const void *conf, void *memory, const struct attach_target *t)
{
	struct cell *cell = memory;
	struct problem why = { 0 };
	bool is_good;
	struct waf_plan *plan = waf_plan_get(t, &is_good, &why);

	(void)conf;
	open_metrics();
	if (is_good) {
		dependency_up(&cell->rules);
		return &plan->part;
	}
	dependency_down(&cell->rules, plan->rules ? "the rule set cannot be loaded; the one before is in force" :
			"there is no rule set: requests get 500", str_of(why.text));
	log_error("waf.rules_failed", F_STR("gatewayId", t->gateway_id), F_TEXT("reason", why.text),
		  F_TEXT("effect", plan->rules ? "the rules before stay in force" : "requests get 500"));
	return &plan->part;
}

static const struct waf_plan *plan_of(const struct step *s)
{
	return CONTAINER(s->bound, struct waf_plan, part);
}

/* ---------- what is found ---------- */

static void count(const struct step *s, enum outcome outcome, unsigned phase)
{
	policy_count(s, outcome);
	if (phase >= 1 && phase <= 4)
		metric_add(metrics.requests[outcome][phase], 1);
}

/* Comma-separated, each text once. */
static void add_once(struct sbuf *list, const char *text)
{
	struct str rest = sbuf_str(list), item;

	while (rest.n > 0 && str_split(&rest, ',', &item))
		if (str_equal(item, str_of(text)))
			return;
	if (list->n > 0)
		sbuf_addc(list, ',');
	sbuf_add(list, str_of(text));
}

static void describe(const struct inspection *in, unsigned first, struct sbuf out[3])
{
	char number[16];

	for (unsigned i = first; i < in->report.n; i++) {
		const struct waf_hit *hit = &in->report.hits[i];

		snprintf(number, sizeof number, "%u", (unsigned)hit->rule);
		add_once(&out[0], number);
		if (hit->variable[0])
			add_once(&out[1], hit->variable);
		if (hit->data[0] && out[2].n < 512)
			sbuf_addf(&out[2], "%s%s", out[2].n ? "; " : "", hit->data);
	}
}

/* What was found since it was told last, with the names of what matched but not the values, unless they are wanted. */
static void tell(struct exchange *x, const struct step *s, enum outcome outcome, unsigned phase)
{
	struct state *state = exchange_state(x, s);
	struct inspection *in = state->inspection;
	struct sbuf texts[3] = { { 0 }, { 0 }, { 0 } };
	bool is_inbound = phase <= 2;

	describe(in, state->n_told, texts);
	for (unsigned i = state->n_told; i < in->report.n; i++)
		metric_add(metrics.hits[in->report.hits[i].tag], 1);
	log_every(outcome == PASSED ? LOG_INFO : LOG_WARN, "waf.matched", LOG_FIELDS(
		F_TEXT("action", outcome_names[outcome]), F_INT("phase", phase),
		F_INT("score", is_inbound ? in->report.score_in : in->report.score_out),
		F_STR("rules", sbuf_str(&texts[0])), F_STR("variables", sbuf_str(&texts[1])),
		F_STR("data", plan_of(s)->logs_data ? sbuf_str(&texts[2]) : STR("")),
		F_STR("client", exchange_property(x, STR("client.ip"))), F_STR("path", exchange_path(x)),
		F_STR("routeId", exchange_route_id(x)), F_STR("policyId", s->policy_id),
		F_STR("requestId", exchange_property(x, STR("request.id")))));
	state->n_told = in->report.n;
	for (unsigned i = 0; i < 3; i++)
		sbuf_free(&texts[i]);
}

static enum verdict block(struct exchange *x, const struct step *s, int status)
{
	exchange_keep_flag(x, "WF");
	exchange_note(x, "refused by %s", s->class->name);
	if (status == 413)
		return reply_error(x, 413, "ErrRequestTooLarge", STR("The fields of the request are too long"));
	return reply_error(x, status, "WafBlocked", STR("Request blocked"));
}

/* The rules that compare scores matched, or would have. */
static bool is_over_threshold(const struct inspection *in, const struct waf_plan *plan, unsigned first, bool is_inbound)
{
	const struct waf_report *r = &in->report;

	for (unsigned i = first; i < r->n; i++)
		if (r->hits[i].rule / 1000 == (is_inbound ? 949 : 959))
			return true;
	return is_inbound ? r->score_in >= plan->threshold_in : r->score_out >= plan->threshold_out;
}

/* All phases so far ran. */
static enum verdict decide(struct exchange *x, const struct step *s, bool is_inbound)
{
	struct state *state = exchange_state(x, s);
	const struct inspection *in = state->inspection;
	const struct waf_plan *plan = plan_of(s);
	bool has_news = in->report.n > state->n_told;
	unsigned phase = !is_inbound ? 4 : in->report.phase == 1 ? 1 : 2;
	enum outcome outcome = PASSED;

	if (in->report.is_blocked)
		phase = in->report.blocked_in;
	if (plan->detects)
		outcome = has_news && is_over_threshold(in, plan, state->n_told, is_inbound) ? DETECTED : PASSED;
	else if (in->report.is_blocked)
		outcome = BLOCKED;
	count(s, outcome, phase);
	if (has_news || outcome != PASSED)
		tell(x, s, outcome, phase);
	return outcome == BLOCKED ? block(x, s, in->report.status) : next();
}

/* The rules took too long, and go on alone: only the scores may be looked at. */
static enum verdict decide_late(struct exchange *x, const struct step *s, bool is_inbound)
{
	struct state *state = exchange_state(x, s);
	const struct waf_plan *plan = plan_of(s);
	struct waf_report *r = &state->inspection->report;
	int score = atomic_load_explicit(is_inbound ? &r->score_in : &r->score_out, memory_order_relaxed);
	bool is_bad = score >= (is_inbound ? plan->threshold_in : plan->threshold_out);
	unsigned phase = is_inbound ? 2 : 4;

	metric_add(metrics.timeouts, 1);
	log_warn("waf.timeout", F_INT("score", score), F_INT("phase", phase), F_STR("path", exchange_path(x)),
		 F_TEXT("action", (is_bad || plan->closes_late) && !plan->detects ? "blocked" : "passed"),
		 F_STR("routeId", exchange_route_id(x)), F_STR("policyId", s->policy_id),
		 F_STR("requestId", exchange_property(x, STR("request.id"))));
	count(s, TIMEOUT, phase);
	if (!(is_bad || plan->closes_late) || plan->detects)
		return next();
	count(s, BLOCKED, phase);
	return block(x, s, 403);
}

/* Nothing can be said: it is refused, in the response leg too. */
static enum verdict refuse(struct exchange *x, const struct step *s, enum outcome outcome, unsigned phase)
{
	enum verdict verdict;

	count(s, outcome, phase);
	exchange_keep_flag(x, "PF");
	if (outcome == ERROR)
		return reply_error(x, 500, "ErrPolicyUnavailable", STR("Waf cannot decide at present"));
	verdict = reply_error(x, 503, "ErrPolicyUnavailable", STR("Waf has too much to do"));
	message_add_id(exchange_response(x), HEADER_RETRY_AFTER, STR("1"));
	return verdict;
}

static enum verdict judge(struct exchange *x, const struct step *s, bool is_inbound)
{
	const struct state *state = exchange_state(x, s);
	const unsigned phase = is_inbound ? 2 : 4;

	switch (state->inspection->end) {
	case INSPECTION_LATE:
		return decide_late(x, s, is_inbound);
	case INSPECTION_FULL:
		return refuse(x, s, REFUSED, phase);
	case INSPECTION_FAILED:
		log_error("waf.engine_failed", F_STR("path", exchange_path(x)), F_STR("policyId", s->policy_id));
		return refuse(x, s, ERROR, phase);
	case INSPECTION_DONE:
		break;
	}
	return decide(x, s, is_inbound);
}

static enum verdict judge_request(struct exchange *x, const struct step *s)
{
	return judge(x, s, true);
}

static enum verdict judge_response(struct exchange *x, const struct step *s)
{
	return judge(x, s, false);
}

/* `is_begun`: phases are under way. */
static enum verdict wait_for(struct exchange *x, const struct step *s, bool is_begun, hook *then)
{
	struct state *state = exchange_state(x, s);

	return is_begun ? await(x, &state->inspection->wait, then) : then(x, s);
}

/* ---------- the request ---------- */

enum kind { KIND_OTHER, KIND_FIELDS, KIND_MULTIPART };

static bool ends_with(struct str s, struct str end)
{
	return s.n >= end.n && str_equal_nocase((struct str){ s.p + s.n - end.n, end.n }, end);
}

static enum kind kind_of_type(struct str type)
{
	type.n = str_find(type, ';');
	type = str_trim(type);
	if (type.n > 10 && str_equal_nocase((struct str){ type.p, 10 }, STR("multipart/")))
		return KIND_MULTIPART;
	if (str_equal_nocase(type, STR("application/x-www-form-urlencoded")) || ends_with(type, STR("/json")) ||
	    ends_with(type, STR("+json")) || ends_with(type, STR("/xml")) || ends_with(type, STR("+xml")))
		return KIND_FIELDS;
	return KIND_OTHER;
}

/* By its content type alone. Of several any counts; with none it is taken for a form. */
static enum kind kind_of_body(const struct message *req)
{
	const struct header *h = message_find(req, HEADER_CONTENT_TYPE);
	enum kind kind = KIND_OTHER;

	if (req->framing == FRAMING_NONE || req->upgrade.n > 0)
		return KIND_OTHER;
	if (!h)
		return KIND_FIELDS;
	for (; h; h = message_find_next(req, h)) {
		enum kind one = kind_of_type(h->value);

		if (one != KIND_OTHER)
			kind = kind == KIND_FIELDS ? KIND_FIELDS : one;
	}
	return kind;
}

static enum verdict inspect_head(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);
	const struct waf_plan *plan = plan_of(s);
	struct str route = exchange_route_id(x);
	struct waf_rules *rules = waf_plan_rules(plan, route, exchange_api_id(x));
	bool is_begun;

	if (!rules) {
		count(s, ERROR, 1);
		return fail(x, "there is no rule set");
	}
	/* Without a route the body goes nowhere. */
	state->reads_body = route.p && kind_of_body(exchange_request(x)) != KIND_OTHER;
	state->inspection = inspection_open(x, rules, plan->budget_us);
	if (!plan->detects)
		state->inspection->fields_max = plan->fields_bytes;
	is_begun = inspection_request(state->inspection, x, !state->reads_body);
	if (plan->inspects_responses)
		message_set_id(exchange_request(x), HEADER_ACCEPT_ENCODING, STR("identity"));
	return wait_for(x, s, is_begun, judge_request);
}

static bool goes_on(const struct state *state)
{
	return state->inspection && !state->inspection->is_over;
}

static enum body_wish wants_body(struct exchange *x, const struct step *s, size_t *most)
{
	const struct state *state = exchange_state(x, s);
	const struct waf_plan *plan = plan_of(s);

	if (!goes_on(state) || !state->reads_body)
		return BODY_UNWANTED;
	*most = kind_of_body(exchange_request(x)) == KIND_MULTIPART ? plan->body_bytes : plan->fields_bytes;
	if (waf_is_for_models(x))
		*most = plan->ai_bytes;
	return plan->detects ? BODY_SHORT : BODY_WHOLE;
}

static enum verdict inspect_body(struct exchange *x, const struct step *s)
{
	const struct state *state = exchange_state(x, s);
	struct str stand_in = { NULL, 0 };

	if (!goes_on(state) || !state->reads_body)
		return next();
	if (!plan_of(s)->inspects_prompts && waf_is_for_models(x))
		stand_in = waf_without_prompts(x);
	return wait_for(x, s, inspection_body(state->inspection, x, stand_in), judge_request);
}

/* ---------- the response ---------- */

static bool is_page(const struct message *res)
{
	struct str type = message_value(res, HEADER_CONTENT_TYPE);
	struct str coding = message_value(res, HEADER_CONTENT_ENCODING);

	if (res->status < 200 || (coding.n > 0 && !str_equal_nocase(coding, STR("identity"))))
		return false;
	type.n = str_find(type, ';');
	type = str_trim(type);
	return str_equal_nocase(type, STR("text/html")) || str_equal_nocase(type, STR("text/plain")) ||
	       str_equal_nocase(type, STR("text/xml"));
}

static enum verdict inspect_page(struct exchange *x, const struct step *s)
{
	const struct state *state = exchange_state(x, s);
	bool is_whole;
	struct str page = exchange_response_body(x, &is_whole);

	return wait_for(x, s, inspection_page(state->inspection, x, page), judge_response);
}

static enum verdict inspect_response(struct exchange *x, const struct step *s)
{
	const struct state *state = exchange_state(x, s);

	if (!goes_on(state) || !exchange_is_upstream_response(x) || !plan_of(s)->inspects_responses)
		return next();
	if (is_page(exchange_response(x)))
		return await_response_body(x, PAGE_BYTES, inspect_page);
	return wait_for(x, s, inspection_response(state->inspection, x), judge_response);
}

static void forget(struct exchange *x, const struct step *s)
{
	struct state *state = exchange_state(x, s);

	if (state->inspection)
		inspection_close(state->inspection);
	state->inspection = NULL;
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	if (!waf_plan_rules(plan_of(s), exchange_route_id(x), exchange_api_id(x)))
		return fail(x, "there is no rule set");
	return cannot_judge(x, "a dry run does not run the rules");
}

const struct policy_class waf = {
	.name = "Waf",
	.alias = "Web application firewall",
	.summary = "Inspects requests and responses for attacks and blocks them.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_WAF_HEAD,
	.body_stage = STAGE_WAF_BODY,
	.response_stage = RESPONSE_WAF,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fail_status = 500,
	.wants = WANTS_REQUEST_BODY | WANTS_RESPONSE_BODY,
	.execute_stage = "PluginPre",
	.execute_priority = 780,
	.fields = fields,
	.conf_size = sizeof(struct waf),
	.enable_at = offsetof(struct waf, enable),
	.cell_size = sizeof(struct cell),
	.state_size = sizeof(struct state),
	.outcomes = { [PASSED] = "passed", [BLOCKED] = "blocked", [DETECTED] = "detected", [TIMEOUT] = "timeout",
		      [ERROR] = "error", [REFUSED] = "refused" },
	.dependency = "rules",
	.dependency_at = offsetof(struct cell, rules),
	.bind = bind,
	.request = inspect_head,
	.body = inspect_body,
	.wants_body = wants_body,
	.response = inspect_response,
	.done = forget,
	.explain = explain,
};
