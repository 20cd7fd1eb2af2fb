/*
 * external_z_auth.c -- ExternalZAuth: an authorization service of the user decides on each request.
 *
 * The service sees method, path and headers, never the body. If it is down or slow, requests are refused.
 */
#include "policy/side_url.h"
#include "proxy/policy.h"

struct external_z_auth {
	struct str authServiceUrl;
	int64_t timeout;
	bool enable;
};

static const struct field fields[] = {
	TEXT(struct external_z_auth, authServiceUrl, REQUIRED, RANGE(1, SIDE_URL_MAX),
	     FORMAT(side_url_format),
	     EXAMPLE("\"https://auth-service.example.com/verify\""),
	     DOC("URL of the authorization service; the request's path is appended to its path.")),
	INT(struct external_z_auth, timeout, RANGE(1, 60000), DEFAULT("5000"), UNIT("ms"),
	    DOC("How long the whole exchange with the service may take.")),
	BOOL(struct external_z_auth, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

const struct policy_class external_z_auth = {
	.name = "ExternalZAuth",
	.alias = "External authentication",
	.summary = "Asks an authorization service about each request and relays its refusal.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_EXTERNAL,
	.combine = COMBINE_SPECIFIC,
	.fail_status = 403,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 720,
	.fields = fields,
	.conf_size = sizeof(struct external_z_auth),
	.enable_at = offsetof(struct external_z_auth, enable),
	.outcomes = { "passed", "refused", "unavailable" },
};
