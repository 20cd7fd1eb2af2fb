/* environment.c -- routes and APIs of a gateway live in environments; one called "default" comes with each gateway. */
#include "control/resources/shared.h"
#include "control/control_parts.h"
#include "control/write.h"

static const struct field fields[] = {
	TEXT(struct environment_doc, name, REQUIRED, RANGE(1, 512), FORMAT(format_title),
		EXAMPLE("\"staging\""), DOC("Name, unique in the gateway.")),
	TEXT(struct environment_doc, alias, RANGE(1, 512), FORMAT(format_title), EXAMPLE("\"Staging\""),
		DOC("Name for people.")),
	TEXT(struct environment_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway it belongs to.")),
	FIELDS_END
};

static bool refuse_default(struct write *w, struct resource *r, struct problem *why)
{
	const struct resource *gateway =
		model_get(w->control->model, RESOURCE_GATEWAY, json_text(r->doc, "gatewayId"));

	if (!gateway || gateway == w->deleting ||
		!str_equal(json_text(gateway->doc, "defaultEnvironmentId"), r->id))
		return true;
	return problem_of(why, PROBLEM_CONFLICT, "environmentId",
		"environment %.*s is the default of gateway %.*s and goes with it", STR_FMT(r->id),
		STR_FMT(json_text(r->doc, "gatewayId")));
}

const struct resource_class environment_class = {
	.kind = RESOURCE_ENVIRONMENT, .name = "environment", .noun = "Environment", .plural = "Environments",
	.id_field = "environmentId", .id_prefix = "env-", .path = "/api/v1/environments", .scope = { "gatewayId" },
	.has_unique_name = true, .fields = fields, .size = sizeof(struct environment_doc),
	.doc = "Where routes and APIs of a gateway are deployed.", .deleting = refuse_default,
};
