/* operation.c -- one method and path template of a REST API. */
#include "control/resources/shared.h"
#include "control/resources/match.h"
#include "policy/formats.h"

static const struct field fields[] = {
	TEXT(struct operation_doc, httpApiId, IMMUTABLE, RANGE(1, 64),
		REFERS("httpApi"), DOC("Id of the REST API it belongs to; from the path.")),
	TEXT(struct operation_doc, name, REQUIRED, RANGE(1, 512), FORMAT(format_title),
		EXAMPLE("\"getOrder\""), DOC("Name, unique in the API.")),
	TEXT(struct operation_doc, method, REQUIRED, RANGE(1, 32), FORMAT(format_request_method), EXAMPLE("\"GET\""),
		DOC("Method.")),
	TEXT(struct operation_doc, path, REQUIRED, RANGE(1, 2048), FORMAT(format_template),
		EXAMPLE("\"/orders/{id}\""),
		DOC("Path below the API's base path; {name} stands for one segment.")),
	TEXT(struct operation_doc, gatewayId, READ_ONLY, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway of the API.")),
	TEXT(struct operation_doc, environmentId, READ_ONLY, RANGE(1, 64), REFERS("environment"),
		DOC("Environment of the API.")),
	TEXT(struct operation_doc, description, RANGE(0, 1024), FORMAT(format_description),
		DOC("Text for people.")),
	OBJECT(struct operation_doc, backend, backend_fields, PRESENT(struct operation_doc, has_backend),
		DOC("Instead of the API's backend.")),
	FIELDS_END
};

static bool check(const void *in, struct problem *why)
{
	const struct operation_doc *o = in;

	if (!o->has_backend || backend_check(&o->backend, why))
		return true;
	problem_prefix(why, "backend");
	return false;
}

/* {id} and {name} take the same paths. */
static bool same_template(struct str a, struct str b)
{
	struct str x, y;

	while (a.p && b.p) {
		if (!str_split(&a, '/', &x) || !str_split(&b, '/', &y))
			return false;
		if (!(x.n && y.n && x.p[0] == '{' && y.p[0] == '{') && !str_equal(x, y))
			return false;
	}
	return !a.p && !b.p;
}

struct search {
	const struct draft *draft;
	const struct resource *found;
};

static bool look_for_same(void *arg, struct resource *r)
{
	struct search *s = arg;

	if (r->kind == RESOURCE_OPERATION && !str_equal(r->id, s->draft->id) &&
	    str_equal(json_text(r->doc, "method"), json_text(s->draft->doc, "method")) &&
	    same_template(json_text(r->doc, "path"), json_text(s->draft->doc, "path")))
		s->found = r;
	return !s->found;
}

static bool complete(struct draft *d, struct problem *why)
{
	static const char *const inherited[] = { "gatewayId", "environmentId" };
	const struct operation_doc *o = d->in;
	const struct resource *api = model_get(d->model, RESOURCE_API, o->httpApiId);
	struct search same = { .draft = d };

	if (!api)
		return problem(why, "httpApiId", "no httpApi has the id \"%.*s\"", STR_FMT(o->httpApiId));
	for (unsigned i = 0; i < 2; i++)
		json_put(d->arena, d->doc, inherited[i],
		         json_new_text(d->arena, arena_copy(d->arena, json_text(api->doc, inherited[i]))));
	model_referrers(d->model, RESOURCE_API, api->id, look_for_same, &same);
	if (same.found)
		return problem_of(why, PROBLEM_CONFLICT, "path",
			"operation %.*s (\"%.*s\") has the same method and path", STR_FMT(same.found->id),
			STR_FMT(same.found->name));
	if (backend_check_services(d, &o->backend, why))
		return true;
	problem_prefix(why, "backend");
	return false;
}

static const char *const read_only[] = { "gatewayId", "environmentId", NULL };

const struct resource_class operation_class = {
	.kind = RESOURCE_OPERATION,
	.name = "operation",
	.noun = "Operation",
	.plural = "Operations",
	.attach_type = "Operation",
	.id_field = "operationId",
	.id_prefix = "op-",
	.path = "/api/v1/http-apis/{httpApiId}/operations",
	.scope = { "httpApiId" },
	.has_unique_name = true,
	.read_only = read_only,
	.fields = fields,
	.size = sizeof(struct operation_doc),
	.doc = "A method and a path of a REST API.",
	.check = check,
	.complete = complete,
};
