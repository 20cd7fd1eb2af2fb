/*
 * ai_security_guard.c -- AiSecurityGuard: prompts and answers of an AI service are judged by a moderation
 * service.
 *
 * A broken guard lets traffic pass unless the gateway setting ai.guard.fail_mode says closed; either way it
 * is counted.
 */
#include "policy/side_url.h"
#include "proxy/policy.h"

enum risk_level { LEVEL_LOW = 1, LEVEL_MEDIUM, LEVEL_HIGH, LEVEL_MAX };
enum check_service { CHECK_LLM, CHECK_SECURITY };
enum risk_type { RISK_GLOBAL, RISK_CONTENT, RISK_ATTACK, RISK_SENSITIVE, RISK_URL, RISK_HALLUCINATION, RISK_TYPES };

struct risk_bar {
	int type, level;
};

struct ai_security_guard {
	bool enable, checkRequest, checkResponse;
	struct str serviceAddress;
	int riskAlertLevel;
	int requestCheckService, responseCheckService;
	int64_t bufferLimit;
	struct items riskConfig;
};

static const struct choice levels[] = {
	{ LEVEL_LOW, "low", "Blocks what is rated low or above.", NULL },
	{ LEVEL_MEDIUM, "medium", "Blocks what is rated medium or above.", NULL },
	{ LEVEL_HIGH, "high", "Blocks what is rated high.", NULL },
	{ LEVEL_MAX, "max", "Detects and logs, never blocks.", NULL },
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
	.fails_open = true,
	.fail_status = 503,
	.execute_stage = "PluginPost",
	.execute_priority = 515,
	.fields = fields,
	.conf_size = sizeof(struct ai_security_guard),
	.enable_at = offsetof(struct ai_security_guard, enable),
	.outcomes = { "passed", "request_denied", "response_denied", "error" },
	.check = check,
};
