/*
 * ai_token_rate_limit.c -- AiTokenRateLimit: how many model tokens a consumer, a model or everybody may use
 * in a time window.
 *
 * A request is admitted if every rule has budget left; the tokens are charged when the answer is complete.
 */
#include "policy/redis_config.h"
#include "proxy/policy.h"

enum limit_type { LIMIT_BY_CONSUMER, LIMIT_BY_MODEL, LIMIT_BY_GLOBAL };

struct token_rule {
	int limitType;
	int64_t threshold, timeWindow, responseStatusCode;
	struct str responseContentBody;
};

struct ai_token_rate_limit {
	bool enable, enableGlobalRules;
	struct items rules, globalRules;
	struct redis_config redisConfig;
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

static bool check_bodies(const struct items *rules, const char *name, struct problem *why)
{
	size_t i;

	for (i = 0; i < rules->n; i++) {
		const struct token_rule *rule = ITEM(*rules, const struct token_rule, i);
		int64_t status = rule->responseStatusCode;
		char path[96];

		if (!rule->responseContentBody.n || (status != 204 && status != 205 && status != 304))
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

const struct policy_class ai_token_rate_limit = {
	.name = "AiTokenRateLimit",
	.alias = "AI token rate limiting",
	.summary = "Limits how many model tokens are used in a time window, by consumer, by model or in all.",
	.group = "AI",
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_TOKEN,
	.response_stage = RESPONSE_AI,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 554,
	.fields = fields,
	.conf_size = sizeof(struct ai_token_rate_limit),
	.enable_at = offsetof(struct ai_token_rate_limit, enable),
	.outcomes = { "admitted", "limited", "degraded" },
	.check = check,
};
