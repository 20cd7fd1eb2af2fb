/*
 * authentication.c -- Authentication: the caller proves to be one of the consumers, by API key, password or
 * token.
 *
 * At a gateway or domain any enabled consumer passes; at a route the consumer also needs an authorization
 * rule.
 */
#include "proxy/policy.h"

enum authentication_type { AUTHENTICATION_KEY, AUTHENTICATION_BASIC, AUTHENTICATION_JWT };

struct authentication {
	int authenticationType;
	bool enable;
};

static const struct choice authentication_types[] = {
	{ AUTHENTICATION_KEY, "key-auth", "An API key of a consumer, in a header or in the query.", NULL },
	{ AUTHENTICATION_BASIC, "basic-auth", "User name and password of a consumer (HTTP Basic).", NULL },
	{ AUTHENTICATION_JWT, "jwt-auth", "A token signed with a key of a consumer.", NULL },
	{ 0, NULL, NULL, NULL }
};

static const struct field fields[] = {
	CHOICE(struct authentication, authenticationType, authentication_types, REQUIRED,
	       DOC("Which credential of a consumer counts.")),
	BOOL(struct authentication, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

const struct policy_class authentication = {
	.name = "Authentication",
	.alias = "Unified authentication",
	.summary = "Admits only requests that carry a credential of a consumer.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_CONSUMER,
	.combine = COMBINE_SPECIFIC,
	.fail_status = 503,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 690,
	.fields = fields,
	.conf_size = sizeof(struct authentication),
	.enable_at = offsetof(struct authentication, enable),
	.outcomes = { "passed", "unauthenticated", "unauthorized" },
};
