/* timeout.c -- Timeout: bounds the whole exchange with the service, retries included. proxy/attempt.c has the clock. */
#include "policy/formats.h"
#include "proxy/policy.h"

#define MAX_S (24 * 3600)

struct timeout {
	double unitNum;
	int timeUnit;
	bool enable;
};

static const struct field fields[] = {
	NUMBER(struct timeout, unitNum, REQUIRED, RANGE(0, MAX_S), EXAMPLE("30"),
	       DOC("Total time for the answer of the service, retries included; 0 waits without limit, at "
	       "most 24 hours.")),
	CHOICE(struct timeout, timeUnit, time_units, REQUIRED, DOC("Unit of unitNum.")),
	BOOL(struct timeout, enable, REQUIRED,
	     DOC("Whether the policy acts. When false on a route, the timeout of its service does not act "
	     "either.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct timeout *timeout = conf;

	if (timeout->unitNum * timeout->timeUnit > MAX_S)
		return problem(why, "unitNum", "must be at most 24 hours");
	return true;
}

/* A disabled policy is there too: it lets the requests of its route wait. */
static void apply(const void *conf, struct settings *settings)
{
	const struct timeout *timeout = conf;

	settings->has_timeout = true;
	/* What is more than nothing is at least the resolution. */
	settings->timeout_ms = timeout->enable ? seconds_to_ms(timeout->unitNum * timeout->timeUnit) : 0;
}

const struct policy_class timeout = {
	.name = "Timeout",
	.alias = "Timeout control",
	.summary = "Bounds the time a service may take for its answer.",
	.group = "Throttling",
	.scopes = SCOPE_ROUTES | SCOPE_SERVICE,
	.stage = STAGE_SETTING,
	.combine = COMBINE_OVERRIDE,
	.is_enforced = true,
	.execute_stage = "PluginPost",
	.execute_priority = 500,
	.fields = fields,
	.conf_size = sizeof(struct timeout),
	.enable_at = offsetof(struct timeout, enable),
	.check = check,
	.apply = apply,
	.setting = SETTING_TIMEOUT,
	.outcomes = { "expired" },
};
