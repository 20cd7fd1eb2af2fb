/*
 * flow_copy.c -- FlowCopy: sends a copy of a share of the requests to a second service, whose answers are
 * dropped.
 */
#include "policy/formats.h"
#include "policy/reference.h"

struct flow_copy {
	struct str targetServiceId;
	struct str targetServiceName;
	struct str port;
	int64_t percentage;
	bool enable;
};

static const struct field fields[] = {
	TEXT(struct flow_copy, targetServiceId, REQUIRED, RANGE(1, 256), FORMAT(format_name),
	     REFERS("service"),
	     EXAMPLE("\"test-service-id\""), DOC("Service that gets the copies; its protocol has to be HTTP "
	     "or HTTPS.")),
	TEXT(struct flow_copy, targetServiceName, RANGE(0, 256), FORMAT(format_name), DOC("Its name, for "
	     "people.")),
	TEXT(struct flow_copy, port, RANGE(0, 16), FORMAT(format_port), EXAMPLE("\"8080\""),
	     DOC("Port of the service, as text; needed when the service has several.")),
	INT(struct flow_copy, percentage, RANGE(1, 100), UNIT("%"), DEFAULT("100"), EXAMPLE("10"),
	    DOC("Share of the requests that is copied.")),
	BOOL(struct flow_copy, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool attach(const void *conf, const struct attach_target *t, struct problem *why)
{
	const struct flow_copy *copy = conf;
	const struct json *service;
	struct str protocol;

	if (!reference_service(t, copy->targetServiceId, "targetServiceId", &service, why) ||
	    !reference_port(service, copy->port, "port", why))
		return false;
	protocol = reference_protocol(service, copy->port);
	if (!str_equal_nocase(protocol, STR("HTTP")) && !str_equal_nocase(protocol, STR("HTTPS")))
		return problem(why, "targetServiceId", "speaks %.*s; copies go to HTTP and HTTPS only",
			STR_FMT(protocol));
	return true;
}

const struct policy_class flow_copy = {
	.name = "FlowCopy",
	.alias = "Traffic replication",
	.summary = "Copies a share of the requests to a second service, whose answers are dropped.",
	.group = "Cross-domain",
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_MIRROR,
	.combine = COMBINE_SPECIFIC,
	.fails_open = true,
	.execute_stage = "PluginPost",
	.execute_priority = 510,
	.fields = fields,
	.conf_size = sizeof(struct flow_copy),
	.enable_at = offsetof(struct flow_copy, enable),
	.outcomes = { "copied", "abandoned" },
	.attach = attach,
};
