/*
 * circuit_breaker.c -- CircuitBreaker: stops calling a service whose answers are slow or wrong, and probes it
 * later.
 */
#include "policy/refusal.h"

enum strategy { STRATEGY_SLOW, STRATEGY_ABNORMAL };

struct circuit_breaker {
	int strategy;
	int64_t minRequestAmount;
	int64_t maxAllowedMs;
	int64_t triggerRatio;
	int64_t statDurationSec;
	int64_t recoveryTimeoutSec;
	struct refusal refusal;
	bool enable;
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
	INT(struct circuit_breaker, maxAllowedMs, WHEN("strategy", STRATEGY_SLOW), RANGE(0, 3600000),
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

const struct policy_class circuit_breaker = {
	.name = "CircuitBreaker",
	.alias = "Circuit breaking",
	.summary = "Stops calling a service whose answers are slow or wrong, and probes it later.",
	.group = "Throttling",
	.scopes = SCOPE_ROUTES | SCOPE_SERVICE,
	.stage = STAGE_BREAKER,
	.service_stage = STAGE_SERVICE_BREAKER,
	.combine = COMBINE_ADD,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 570,
	.fields = fields,
	.conf_size = sizeof(struct circuit_breaker),
	.enable_at = offsetof(struct circuit_breaker, enable),
	.outcomes = { "admitted", "refused", "opened", "closed" },
	.check = check,
};
