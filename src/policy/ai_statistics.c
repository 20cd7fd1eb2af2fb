/*
 * ai_statistics.c -- AiStatistics: one record of model, tokens, durations and (if wanted) content for each AI
 * request.
 *
 * It observes only: it never changes an answer and never holds one back.
 */
#include "proxy/policy.h"

struct ai_statistics_config {
	bool logRequestContent, logResponseContent;
};

struct ai_statistics {
	bool enable;
	struct ai_statistics_config aiStatisticsConfig;
};

static const struct field content_fields[] = {
	BOOL(struct ai_statistics_config, logRequestContent, DEFAULT("true"),
	     DOC("Whether the question, the system prompt and the messages are logged.")),
	BOOL(struct ai_statistics_config, logResponseContent, DEFAULT("true"),
	     DOC("Whether the answer, the reasoning and the tool calls are logged.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct ai_statistics, enable, REQUIRED, DOC("Whether the policy acts.")),
	OBJECT(struct ai_statistics, aiStatisticsConfig, content_fields, DEFAULT("{}"),
	       DOC("Which content goes into the record; numbers are always there.")),
	FIELDS_END
};

const struct policy_class ai_statistics = {
	.name = "AiStatistics",
	.alias = "AI statistics",
	.summary = "Records model, tokens, durations and content of AI requests.",
	.group = "AI",
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_AI_STATISTICS,
	.response_stage = RESPONSE_AI,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginStatistic",
	.execute_priority = 558,
	.fields = fields,
	.conf_size = sizeof(struct ai_statistics),
	.enable_at = offsetof(struct ai_statistics, enable),
	.outcomes = { "recorded", "estimated", "aborted" },
};
