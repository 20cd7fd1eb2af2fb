/* route.c -- which requests go where: a match and a backend. */
#include "control/resources/shared.h"
#include <stdio.h>
#include "control/resources/match.h"

static const struct field fields[] = {
	TEXT(struct route_doc, name, REQUIRED, RANGE(1, 512), FORMAT(format_title), EXAMPLE("\"orders\""),
		DOC("Name, unique in the gateway.")),
	TEXT(struct route_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway it belongs to.")),
	TEXT(struct route_doc, environmentId, IMMUTABLE, RANGE(1, 64), REFERS("environment"),
		DOC("Environment; the gateway's default when left out.")),
	TEXTS(struct route_doc, domainIds, RANGE(0, 64), TEXT_MAX(64), REFERS("domain"),
		DOC("Domains; none = every host of the gateway.")),
	TEXT(struct route_doc, description, RANGE(0, 1024), FORMAT(format_description),
		DOC("Text for people.")),
	OBJECT(struct route_doc, match, route_match_fields, REQUIRED, DOC("Requests it takes.")),
	OBJECT(struct route_doc, backend, backend_fields, PRESENT(struct route_doc, has_backend),
		DOC("Where they go; without one only a policy can answer.")),
	FIELDS_END
};

static bool check(const void *in, struct problem *why)
{
	const struct route_doc *r = in;

	if (!route_match_check(&r->match, why)) {
		problem_prefix(why, "match");
		return false;
	}
	if (r->has_backend && !backend_check(&r->backend, why)) {
		problem_prefix(why, "backend");
		return false;
	}
	return true;
}

static bool complete(struct draft *d, struct problem *why)
{
	const struct route_doc *r = d->in;

	if (!complete_placement(d, why))
		return false;
	if (backend_check_services(d, &r->backend, why))
		return true;
	problem_prefix(why, "backend");
	return false;
}

static bool arrives(const struct json *doc, struct problem *why)
{
	const struct json *headers = json_get(json_get(doc, "match"), "headers");
	unsigned i = 0;
	char at[48];

	for (const struct json *v = headers ? headers->child : NULL; v; v = v->next) {
		snprintf(at, sizeof at, "match.headers[%u].name", i++);
		if (!check_arrives(json_text(v, "name"), at, why))
			return false;
	}
	return true;
}

const struct resource_class route_class = {
	.kind = RESOURCE_ROUTE, .name = "route", .noun = "Route", .plural = "Routes", .attach_type = "Route",
	.id_field = "routeId", .id_prefix = "route-", .path = "/api/v1/routes", .scope = { "gatewayId" },
	.has_unique_name = true, .fields = fields, .size = sizeof(struct route_doc),
	.doc = "Requests that match go to a backend.", .check = check, .complete = complete, .arrives = arrives,
};
