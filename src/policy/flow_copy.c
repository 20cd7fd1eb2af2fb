/*
 * flow_copy.c -- FlowCopy: sends a copy of a share of the requests to a second service, whose answers are
 * dropped.
 */
#include <stdatomic.h>
#include "core/log.h"
#include "policy/formats.h"
#include "policy/reference.h"
#include "proxy/mirror.h"

enum outcome { COPIED, ABANDONED, DROPPED, NO_TARGET };

struct flow_copy {
	struct str targetServiceId;
	struct str targetServiceName;
	struct str port;
	int64_t percentage;
	bool enable;
	struct target target;             /* prepared */
};

struct cell {
	atomic_bool is_logged;            /* that a body was too long: said once for each route */
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

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct flow_copy *copy = conf;
	uint64_t port = 0;

	(void)a;
	if (copy->port.n && !str_to_u64(copy->port, 65535, &port))
		return problem(why, "port", "must be a port such as \"8080\"");
	copy->target = (struct target){
		.service_id = copy->targetServiceId, .hash = pmap_hash(copy->targetServiceId), .port = (uint16_t)port,
		.weight = 1,
	};
	return true;
}

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

static void told(const struct step *s, enum mirror_result r)
{
	static const enum outcome outcomes[] = {
		[MIRROR_STARTED] = COPIED, [MIRROR_TOO_LONG] = ABANDONED, [MIRROR_TOO_MANY] = DROPPED,
		[MIRROR_NO_TARGET] = NO_TARGET,
	};
	struct cell *cell = s->cell;

	policy_count(s, outcomes[r]);
	if (r == MIRROR_TOO_LONG && !atomic_exchange_explicit(&cell->is_logged, true, memory_order_relaxed))
		log_warn("flow_copy.abandoned", F_STR("policyId", s->policy_id), F_STR("resourceId", s->resource_id),
			 F_TEXT("reason", "the body is longer than the gateway's setting retryBufferBytes; said once"));
}

static enum verdict want(struct exchange *x, const struct step *s)
{
	const struct flow_copy *copy = s->conf;
	struct mirror *m = exchange_state(x, s);

	m->target = &copy->target;
	m->told = told;
	mirror_want(m, x, s, (unsigned)copy->percentage);
	return next();
}

static void forget(struct exchange *x, const struct step *s)
{
	mirror_end(exchange_state(x, s));
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	const struct flow_copy *copy = s->conf;

	exchange_note(x, "%d %% of the requests are copied to %.*s", (int)copy->percentage,
		      STR_FMT(copy->targetServiceId));
	return next();
}

const struct policy_class flow_copy = {
	.name = "FlowCopy",
	.alias = "Traffic replication",
	.summary = "Copies a share of the requests to a second service, whose answers are dropped.",
	.group = "Cross-domain",
	.scopes = SCOPE_ROUTES,
	.stage = STAGE_MIRROR,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginPost",
	.execute_priority = 510,
	.fields = fields,
	.conf_size = sizeof(struct flow_copy),
	.enable_at = offsetof(struct flow_copy, enable),
	.cell_size = sizeof(struct cell),
	.cell_keeps = true,
	.state_size = sizeof(struct mirror),
	.outcomes = {
		[COPIED] = "copied", [ABANDONED] = "abandoned", [DROPPED] = "dropped", [NO_TARGET] = "no_target",
	},
	.prepare = prepare,
	.attach = attach,
	.request = want,
	.done = forget,
	.explain = explain,
};
