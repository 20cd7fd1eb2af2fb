#include "control/resource.h"

extern const struct resource_class mesh_class, gateway_class, feature_class, environment_class,
	certificate_class, domain_class, service_class, service_port_class, route_class, api_class,
	operation_class, llm_api_class, agent_api_class, consumer_class, rule_class, policy_class,
	attachment_class, token_class;

const struct resource_class *const resource_classes[RESOURCE_COUNT] = {
	[RESOURCE_MESH] = &mesh_class,
	[RESOURCE_GATEWAY] = &gateway_class,
	[RESOURCE_FEATURE] = &feature_class,
	[RESOURCE_ENVIRONMENT] = &environment_class,
	[RESOURCE_CERTIFICATE] = &certificate_class,
	[RESOURCE_DOMAIN] = &domain_class,
	[RESOURCE_SERVICE] = &service_class,
	[RESOURCE_SERVICE_PORT] = &service_port_class,
	[RESOURCE_ROUTE] = &route_class,
	[RESOURCE_API] = &api_class,
	[RESOURCE_OPERATION] = &operation_class,
	[RESOURCE_LLM_API] = &llm_api_class,
	[RESOURCE_AGENT_API] = &agent_api_class,
	[RESOURCE_CONSUMER] = &consumer_class,
	[RESOURCE_RULE] = &rule_class,
	[RESOURCE_POLICY] = &policy_class,
	[RESOURCE_ATTACHMENT] = &attachment_class,
	[RESOURCE_TOKEN] = &token_class,
};

const struct resource_class *resource_class_by_name(const char *name)
{
	for (unsigned i = 0; i < RESOURCE_COUNT; i++)
		if (strcmp(resource_classes[i]->name, name) == 0)
			return resource_classes[i];
	return NULL;
}

const struct resource_class *resource_class_by_attach_type(struct str type)
{
	for (unsigned i = 0; i < RESOURCE_COUNT; i++)
		if (resource_classes[i]->attach_type && str_equal(str_of(resource_classes[i]->attach_type), type))
			return resource_classes[i];
	return NULL;
}

const char *resource_name_field(const struct resource_class *class)
{
	return class->name_field ? class->name_field : "name";
}

/* Names of members, as the tables of fields spell them: documents need no copies. Below `depth` objects. */
static void note_names(struct map *names, const struct field *f, unsigned depth)
{
	for (; f && f->type != FIELD_END; f++) {
		if (f->name)
			map_put(names, str_of(f->name), (void *)(uintptr_t)f->name);
		if (depth)
			note_names(names, f->fields, depth - 1);
	}
}

void resource_keep(struct resource *r, const struct json *doc)
{
	enum { DEEPEST = 8 };
	static struct map names;

	for (unsigned i = 0; names.n == 0 && i < RESOURCE_COUNT; i++)
		note_names(&names, resource_classes[i]->fields, DEEPEST);
	r->doc = json_pack(&r->arena, doc, &names);
	r->name = json_text(r->doc, resource_name_field(resource_classes[r->kind]));
}

bool resource_decode(const struct resource *r, struct arena *a, void *out, struct problem *why)
{
	return fields_decode(resource_classes[r->kind]->fields, r->doc, out, a, why);
}
