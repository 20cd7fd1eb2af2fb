/*
 * waf.c -- Waf: requests and responses are inspected by the web application firewall of the gateway.
 *
 * The config only switches it: engine, rule set, thresholds and exclusions are gateway settings (waf.*). A
 * broken engine closes.
 */
#include "proxy/policy.h"

struct waf {
	bool enable;
};

static const struct field fields[] = {
	BOOL(struct waf, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

const struct policy_class waf = {
	.name = "Waf",
	.alias = "Web application firewall",
	.summary = "Inspects requests and responses for attacks and blocks them.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_WAF_HEAD,
	.combine = COMBINE_SPECIFIC,
	.fail_status = 500,
	.execute_stage = "PluginPre",
	.execute_priority = 780,
	.fields = fields,
	.conf_size = sizeof(struct waf),
	.enable_at = offsetof(struct waf, enable),
	.outcomes = { "passed", "blocked", "detected", "timeout", "error" },
};
