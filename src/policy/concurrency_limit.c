/* concurrency_limit.c -- ConcurrencyLimit: limits how many requests are in flight at the same time. */
#include "policy/refusal.h"

struct concurrency_limit {
	int64_t maxConcurrency;
	struct refusal refusal;
	bool enable;
};

static const struct field fields[] = {
	INT(struct concurrency_limit, maxConcurrency, REQUIRED, RANGE(1, 2147483647), UNIT("requests"),
	    EXAMPLE("50"),
	    DOC("Requests that may be in flight at the same time, on this node as a whole.")),
	INLINE(struct concurrency_limit, refusal, refusal_fields),
	BOOL(struct concurrency_limit, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct concurrency_limit *limit = conf;

	return refusal_check(&limit->refusal, why);
}

const struct policy_class concurrency_limit = {
	.name = "ConcurrencyLimit",
	.alias = "Concurrency limiting",
	.summary = "Limits how many requests are in flight at the same time.",
	.group = "Throttling",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_CONCURRENCY,
	.combine = COMBINE_ADD,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 590,
	.fields = fields,
	.conf_size = sizeof(struct concurrency_limit),
	.enable_at = offsetof(struct concurrency_limit, enable),
	.outcomes = { "admitted", "refused" },
	.check = check,
};
