/*
 * fallback.c -- Fallback: other services that take over when a service has no endpoint that can be used.
 * proxy/attempt.c turns to them.
 */
#include "policy/formats.h"
#include "policy/reference.h"
#include "proxy/snapshot.h"

struct destination {
	struct str serviceId;
	struct str serviceName;
	struct str serviceVersion;
	struct str port;
};

struct fallback {
	bool enable;
	struct items fallBackDestination;
	struct fallback_rules rules;
};

static const struct field destination_fields[] = {
	TEXT(struct destination, serviceId, REQUIRED, RANGE(1, 256), FORMAT(format_name), REFERS("service"),
	     EXAMPLE("\"backup-service-1\""), DOC("Service that takes over.")),
	TEXT(struct destination, serviceName, RANGE(0, 256), FORMAT(format_name),
	     DOC("Its name, for people; when given it has to be right.")),
	TEXT(struct destination, serviceVersion, RANGE(0, 256), FORMAT(format_name), EXAMPLE("\"v1\""),
	     DOC("Version of the service; without it every endpoint.")),
	TEXT(struct destination, port, RANGE(0, 16), FORMAT(format_port), EXAMPLE("\"8080\""),
	     DOC("Port of the service, as text; needed when the service has several.")),
	FIELDS_END
};

static const struct field fields[] = {
	BOOL(struct fallback, enable, REQUIRED,
	     DOC("Whether the policy acts. When false on a route, the fallback of its service does not act "
	     "either.")),
	LIST(struct fallback, fallBackDestination, struct destination, destination_fields, REQUIRED, RANGE(1,
	     10),
	     DOC("Services in the order they are tried.")),
	FIELDS_END
};

/* The only service a route sends to, when there is exactly one. */
static const struct json *only_primary(const struct attach_target *t)
{
	const struct json *services = json_get(json_get(t->resource, "backend"), "services");

	return services && services->type == JSON_ARRAY && services->n == 1 ? services->child : NULL;
}

static bool is_same_port(struct str port, const struct json *primary)
{
	const struct json *own = json_get(primary, "port");
	uint64_t number;

	if (!own || own->type != JSON_INT || !str_to_u64(port, 65535, &number))
		return true;
	return own->integer == (int64_t)number;
}

static bool is_primary(const struct attach_target *t, const struct destination *to, const struct json *service)
{
	const struct json *primary = only_primary(t);

	/* Both are of one gateway, where names are unique. */
	if (t->scope == SCOPE_SERVICE)
		return str_equal(json_text(service, "name"), json_text(t->resource, "name"));
	return primary && str_equal(json_text(primary, "serviceId"), to->serviceId) &&
	       str_equal(json_text(primary, "version"), to->serviceVersion) && is_same_port(to->port, primary);
}

static bool check_destination(const struct attach_target *t, const struct destination *to,
	struct problem *why)
{
	const struct json *service;

	if (!reference_service(t, to->serviceId, "serviceId", &service, why))
		return false;
	if (is_primary(t, to, service))
		return problem(why, "serviceId", "is the service that the fallback stands in for; choose "
			"another one");
	if (to->serviceName.n && !str_equal(json_text(service, "name"), to->serviceName))
		return problem(why, "serviceName", "the service's name is \"%.*s\"",
			STR_FMT(json_text(service, "name")));
	return reference_version(service, to->serviceVersion, "serviceVersion", why) &&
	       reference_port(service, to->port, "port", why);
}

static bool attach(const void *conf, const struct attach_target *t, struct problem *why)
{
	const struct fallback *fallback = conf;

	for (size_t i = 0; i < fallback->fallBackDestination.n; i++)
		if (!check_destination(t, ITEM(fallback->fallBackDestination, struct destination, i), why))
			return problem_in(why, "fallBackDestination", i);
	return true;
}

static bool prepare(void *conf, struct arena *a, struct problem *why)
{
	struct fallback *fallback = conf;
	const unsigned n = (unsigned)fallback->fallBackDestination.n;
	struct target *targets = NEW_N(a, struct target, n);
	uint64_t port;

	(void)why;
	for (unsigned i = 0; i < n; i++) {
		const struct destination *to = ITEM(fallback->fallBackDestination, struct destination, i);

		targets[i] = (struct target){
			.service_id = to->serviceId, .hash = pmap_hash(to->serviceId), .version = to->serviceVersion,
			.weight = 1,
		};
		if (str_to_u64(to->port, 65535, &port))
			targets[i].port = (uint16_t)port;
	}
	fallback->rules = (struct fallback_rules){ targets, n };
	return true;
}

/* A disabled policy is there too: it keeps the fallback of the service from its route. */
static void apply(const void *conf, struct settings *settings)
{
	const struct fallback *fallback = conf;

	settings->has_fallback = true;
	settings->fallback = fallback->enable ? &fallback->rules : NULL;
}

const struct policy_class fallback = {
	.name = "Fallback",
	.alias = "Fallback policy",
	.summary = "Sends requests to another service when the own one has no usable endpoint.",
	.group = "Routing",
	.scopes = SCOPE_ROUTE | SCOPE_OPERATION | SCOPE_SERVICE,
	.stage = STAGE_SETTING,
	.combine = COMBINE_OVERRIDE,
	.suits_bytes = true,
	.is_enforced = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 520,
	.fields = fields,
	.conf_size = sizeof(struct fallback),
	.enable_at = offsetof(struct fallback, enable),
	.prepare = prepare,
	.attach = attach,
	.apply = apply,
	.setting = SETTING_FALLBACK,
	.outcomes = { "turned" },
};
