/*
 * rate_limit.c -- RateLimit: admits at most `threshold` requests in any second, and refuses the rest at once.
 *
 * The count belongs to one attachment on one resource and is shared by all workers. At a service, a client
 * request counts once however often it is tried. A request refused later is not given back.
 */
#include "core/clock.h"
#include "policy/rate_window.h"
#include "policy/refusal.h"

#define RETRY_AFTER_S 1
#define GRPC_RESOURCE_EXHAUSTED 8

enum outcome { ADMITTED, REFUSED };

struct rate_limit {
	int64_t threshold;
	struct refusal refusal;
	bool enable;
};

static const struct field fields[] = {
	INT(struct rate_limit, threshold, REQUIRED, RANGE(1, 2147483647), UNIT("requests/second"),
	    EXAMPLE("100"),
	    DOC("Requests admitted in any second, on this node as a whole.")),
	INLINE(struct rate_limit, refusal, refusal_fields),
	BOOL(struct rate_limit, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct rate_limit *limit = conf;

	return refusal_check(&limit->refusal, why);
}

static void open_window(void *cell, const void *conf)
{
	(void)conf;
	rate_window_init(cell, clock_us());
}

static enum verdict admit(struct exchange *x, const struct step *s)
{
	const struct rate_limit *limit = s->conf;

	if (LIKELY(rate_window_admit(s->cell, clock_us(), (uint32_t)limit->threshold))) {
		policy_count(s, ADMITTED);
		return next();
	}
	policy_count(s, REFUSED);
	exchange_keep_flag(x, "RL");
	return refuse(x, &limit->refusal, RETRY_AFTER_S, GRPC_RESOURCE_EXHAUSTED);
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	const struct rate_limit *limit = s->conf;
	uint32_t used = rate_window_used(s->cell, clock_us());

	exchange_note(x, "%u of %lld were admitted in the last second", used, (long long)limit->threshold);
	return used < limit->threshold ? next() : refuse(x, &limit->refusal, RETRY_AFTER_S, GRPC_RESOURCE_EXHAUSTED);
}

const struct policy_class rate_limit = {
	.name = "RateLimit",
	.alias = "Rate limiting",
	.summary = "Limits how many requests per second are admitted.",
	.group = "Throttling",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN | SCOPE_SERVICE,
	.stage = STAGE_RATE,
	.service_stage = STAGE_SERVICE_RATE,
	.combine = COMBINE_ADD,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 600,
	.fields = fields,
	.conf_size = sizeof(struct rate_limit),
	.enable_at = offsetof(struct rate_limit, enable),
	.cell_size = sizeof(struct rate_window),
	.outcomes = { [ADMITTED] = "admitted", [REFUSED] = "refused" },
	.check = check,
	.cell_init = open_window,
	.request = admit,
	.service = admit,
	.explain = explain,
};
