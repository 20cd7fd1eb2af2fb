/* api.c -- a REST API: a base path, a backend, and operations below it. */
#include "control/resources/shared.h"

static const struct field fields[] = {
	TEXT(struct api_doc, name, REQUIRED, RANGE(1, 512), FORMAT(format_title), EXAMPLE("\"orders\""),
		DOC("Name, unique in the gateway.")),
	TEXT(struct api_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway it belongs to.")),
	TEXT(struct api_doc, environmentId, IMMUTABLE, RANGE(1, 64), REFERS("environment"),
		DOC("Environment; the gateway's default when left out.")),
	TEXTS(struct api_doc, domainIds, RANGE(0, 64), TEXT_MAX(64), REFERS("domain"),
		DOC("Domains; none = every host of the gateway.")),
	TEXT(struct api_doc, description, RANGE(0, 1024), FORMAT(format_description),
		DOC("Text for people.")),
	TEXT(struct api_doc, basePath, RANGE(1, 256), DEFAULT("\"/\""), FORMAT(format_base_path),
		DOC("What its paths start with.")),
	OBJECT(struct api_doc, backend, backend_fields, PRESENT(struct api_doc, has_backend),
		DOC("Backend of its operations.")),
	FIELDS_END
};

static bool check(const void *in, struct problem *why)
{
	const struct api_doc *a = in;

	if (!a->has_backend || backend_check(&a->backend, why))
		return true;
	problem_prefix(why, "backend");
	return false;
}

static bool complete(struct draft *d, struct problem *why)
{
	const struct api_doc *a = d->in;

	if (!complete_placement(d, why))
		return false;
	if (backend_check_services(d, &a->backend, why))
		return true;
	problem_prefix(why, "backend");
	return false;
}

static bool owns(const struct resource *r, const struct resource *user)
{
	(void)r;
	return user->kind == RESOURCE_OPERATION;
}

const struct resource_class api_class = {
	.kind = RESOURCE_API, .name = "httpApi", .noun = "HttpApi", .plural = "HttpApis", .attach_type = "Api",
	.id_field = "httpApiId", .id_prefix = "api-", .path = "/api/v1/http-apis", .scope = { "gatewayId" },
	.has_unique_name = true, .fields = fields, .size = sizeof(struct api_doc),
	.doc = "A REST API: operations below a base path.", .check = check, .complete = complete, .owns = owns,
};
