/*
 * circuit_breaker.c -- CircuitBreaker: stops calling a service whose answers are slow or wrong, and probes it later.
 *
 * A call is judged by what became of the upstream exchange in the end, after all attempts, and before the last of the
 * answer goes to the client: who sends its next request then meets a breaker that knows. An answer of the gateway's own
 * counts where it stands for a failure of the upstream, and not where a policy gave it.
 */
#include "core/clock.h"
#include "core/log.h"
#include "policy/breaker.h"
#include "policy/refusal.h"

#define GRPC_UNAVAILABLE 14

enum strategy { STRATEGY_SLOW, STRATEGY_ABNORMAL };
enum outcome { ADMITTED, REFUSED, PROBED, OPENED, CLOSED };

struct circuit_breaker {
	int strategy;
	int64_t minRequestAmount;
	int64_t maxAllowedMs;
	int64_t triggerRatio;
	int64_t statDurationSec;
	int64_t recoveryTimeoutSec;
	struct refusal refusal;
	bool enable;
	struct breaker_rules rules;       /* made by prepare() */
};

/* Of one exchange. */
struct admitted {
	struct breaker_ticket ticket;
	bool owes_report;
};

static const struct choice strategies[] = {
	{ STRATEGY_SLOW, NULL, "ratio of calls slower than maxAllowedMs", NULL },
	{ STRATEGY_ABNORMAL, NULL, "ratio of abnormal responses (5xx and failed calls)", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field fields[] = {
	CHOICE(struct circuit_breaker, strategy, strategies, REQUIRED, DOC("What counts against the "
	       "service.")),
	INT(struct circuit_breaker, minRequestAmount, REQUIRED, RANGE(1, 1000000), UNIT("requests"),
	    EXAMPLE("10"),
	    DOC("Requests within the statistics window before the circuit may open.")),
	INT(struct circuit_breaker, maxAllowedMs, ONLY_WHEN("strategy", STRATEGY_SLOW), RANGE(0, 3600000),
	    UNIT("ms"),
	    EXAMPLE("5000"), DOC("A call that takes longer is slow; at least 1 with strategy 0, not used "
	    "otherwise.")),
	INT(struct circuit_breaker, triggerRatio, REQUIRED, RANGE(1, 100), UNIT("%"), EXAMPLE("50"),
	    DOC("The circuit opens when the ratio is greater than this; 100 opens when all calls count "
	    "against it.")),
	INT(struct circuit_breaker, statDurationSec, REQUIRED, RANGE(1, 3600), UNIT("s"), EXAMPLE("30"),
	    DOC("Length of the statistics window.")),
	INT(struct circuit_breaker, recoveryTimeoutSec, REQUIRED, RANGE(1, 3600), UNIT("s"), EXAMPLE("30"),
	    DOC("How long the circuit stays open before one request probes the service.")),
	INLINE(struct circuit_breaker, refusal, refusal_breaker_fields),
	BOOL(struct circuit_breaker, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct circuit_breaker *breaker = conf;

	if (breaker->strategy == STRATEGY_SLOW && breaker->maxAllowedMs < 1)
		return problem(why, "maxAllowedMs", "must be an integer from 1 to 3600000 when strategy is "
			"0");
	return refusal_check(&breaker->refusal, why);
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct circuit_breaker *breaker = conf;

	(void)a;
	(void)why;
	breaker->rules = (struct breaker_rules){
		.least = (uint32_t)breaker->minRequestAmount,
		.percent = (uint32_t)breaker->triggerRatio,
		.window_ms = breaker->statDurationSec * 1000,
		.recovery_ms = breaker->recoveryTimeoutSec * 1000,
	};
	return true;
}

static void close_circuit(void *cell, const void *conf)
{
	const struct circuit_breaker *breaker = conf;

	breaker_init(cell, &breaker->rules, clock_ms());
}

static int64_t show_phase(const void *cell)
{
	return breaker_phase(cell);
}

/* The phase changed. */
static void tell(const struct step *s)
{
	static const char *const events[] = {
		[BREAKER_CLOSED] = "breaker.closed", [BREAKER_HALF_OPEN] = "breaker.half_open",
		[BREAKER_OPEN] = "breaker.opened",
	};

	policy_gauge(s);
	log_warn(events[breaker_phase(s->cell)], F_STR("policy", s->policy_name),
		 F_STR("attachmentId", s->attachment_id), F_STR("resourceId", s->resource_id));
}

/* ---------- admission ---------- */

static enum verdict refuse_call(struct exchange *x, const struct step *s)
{
	const struct circuit_breaker *breaker = s->conf;
	int64_t wait_s = (breaker_wait_ms(s->cell, clock_ms()) + 999) / 1000;

	policy_count(s, REFUSED);
	exchange_keep_flag(x, "CB");
	return refuse(x, &breaker->refusal, wait_s < 1 ? 1 : wait_s, GRPC_UNAVAILABLE);
}

static enum verdict admit(struct exchange *x, const struct step *s)
{
	const struct circuit_breaker *breaker = s->conf;
	int64_t lease_ms = breaker->rules.recovery_ms, timeout_ms = 0;
	struct breaker_ticket ticket;
	enum breaker_pass pass;
	struct admitted *admitted;

	if (UNLIKELY(breaker_phase(s->cell) != BREAKER_CLOSED))
		timeout_ms = exchange_timeout_ms(x);
	pass = breaker_admit(s->cell, clock_ms(), timeout_ms > lease_ms ? timeout_ms : lease_ms, &ticket);
	if (UNLIKELY(pass == BREAKER_REFUSES))
		return refuse_call(x, s);
	admitted = exchange_state(x, s);
	*admitted = (struct admitted){ ticket, true };
	if (pass == BREAKER_PROBES) {
		policy_count(s, PROBED);
		tell(s);
	} else {
		policy_count(s, ADMITTED);
	}
	return next();
}

/* ---------- what became of it ---------- */

/* How long the service took: until its head for what lasts as long as the peers want, else until the last byte. */
static int64_t elapsed_us(const struct upstream_outcome *o)
{
	int64_t end_us = o->is_stream && o->head_us ? o->head_us : o->end_us;

	if (o->dispatch_us == 0)
		return 0;
	if (o->end == OUTCOME_CLIENT_GONE && !o->is_stream)
		end_us = clock_us();
	return end_us > o->dispatch_us ? end_us - o->dispatch_us : 0;
}

static enum breaker_call judge_time(const struct circuit_breaker *breaker, const struct upstream_outcome *o,
				    bool probes)
{
	bool is_slow = elapsed_us(o) > breaker->maxAllowedMs * 1000;

	if (is_slow)
		return BREAKER_BAD;
	if (o->end == OUTCOME_CLIENT_GONE && !o->is_stream)
		return BREAKER_LOST;
	/* A refused connection is fast, and no reason to trust the service again. */
	return probes && (o->from == OUTCOME_FAILURE || o->end == OUTCOME_CUT) ? BREAKER_BAD : BREAKER_GOOD;
}

static enum breaker_call judge_answer(const struct upstream_outcome *o)
{
	if (o->from == OUTCOME_LOCAL)
		return BREAKER_LOST;
	return o->from == OUTCOME_FAILURE || o->status >= 500 || o->end == OUTCOME_CUT ? BREAKER_BAD : BREAKER_GOOD;
}

static enum breaker_call judge(const struct circuit_breaker *breaker, const struct upstream_outcome *o, bool probes)
{
	/* Another policy answered. */
	if (o->from == OUTCOME_LOCAL && o->end != OUTCOME_CLIENT_GONE)
		return BREAKER_UNSEEN;
	return breaker->strategy == STRATEGY_SLOW ? judge_time(breaker, o, probes) : judge_answer(o);
}

/* The upstream's part is over, or the whole exchange: whichever comes first. */
static void report(struct exchange *x, const struct step *s)
{
	const struct circuit_breaker *breaker = s->conf;
	struct admitted *admitted = exchange_state(x, s);
	const struct upstream_outcome o = exchange_outcome(x);
	bool probes;

	if (!admitted->owes_report)
		return;
	admitted->owes_report = false;
	probes = breaker_is_probe(admitted->ticket);
	if (!breaker_report(s->cell, &breaker->rules, admitted->ticket, judge(breaker, &o, probes), clock_ms()))
		return;
	policy_count(s, breaker_phase(s->cell) == BREAKER_CLOSED ? CLOSED : OPENED);
	tell(s);
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	int64_t wait_ms = breaker_wait_ms(s->cell, clock_ms());

	switch (breaker_look(s->cell, clock_ms())) {
	case BREAKER_PASSES:
		exchange_note(x, "the circuit is closed");
		return next();
	case BREAKER_PROBES:
		exchange_note(x, "the circuit is open, and the next request probes the service");
		return next();
	case BREAKER_REFUSES:
		break;
	}
	if (wait_ms > 0)
		exchange_note(x, "the circuit is open for another %lld ms", (long long)wait_ms);
	else
		exchange_note(x, "the circuit is open, and a request is probing the service");
	return refuse(x, &((const struct circuit_breaker *)s->conf)->refusal, (wait_ms + 999) / 1000 + (wait_ms == 0),
		      GRPC_UNAVAILABLE);
}

const struct policy_class circuit_breaker = {
	.name = "CircuitBreaker",
	.alias = "Circuit breaking",
	.summary = "Stops calling a service whose answers are slow or wrong, and probes it later.",
	.group = "Throttling",
	.scopes = SCOPE_ROUTES | SCOPE_SERVICE,
	.speaks_for_service = true,
	.stage = STAGE_BREAKER,
	.service_stage = STAGE_SERVICE_BREAKER,
	.combine = COMBINE_ADD,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 570,
	.fields = fields,
	.conf_size = sizeof(struct circuit_breaker),
	.enable_at = offsetof(struct circuit_breaker, enable),
	.cell_size = sizeof(struct breaker),
	.state_size = sizeof(struct admitted),
	.outcomes = { [ADMITTED] = "admitted", [REFUSED] = "refused", [PROBED] = "probed", [OPENED] = "opened",
		      [CLOSED] = "closed" },
	.check = check,
	.prepare = prepare,
	.cell_init = close_circuit,
	.gauge = METRIC_BREAKER_STATE,
	.measure = show_phase,
	.request = admit,
	.service = admit,
	.settled = report,
	.done = report,
	.explain = explain,
};
