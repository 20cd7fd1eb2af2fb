/*
 * api_explain.c -- questions about what would happen: the policies that act on a route, and what would become of a
 * request. Both are answered from the configuration in force; nothing is sent, counted or changed.
 */
#include "control/api.h"
#include "control/control_parts.h"
#include "control/effective.h"
#include "control/trace.h"

/* ---------- effective policies ---------- */

static const char *const effective_parameters[] = { "domainId", NULL };

static bool has_text(const struct json *list, struct str text)
{
	for (const struct json *item = list ? list->child : NULL; item; item = item->next)
		if (str_equal(item->string, text))
			return true;
	return false;
}

/* The domain whose hosts are meant: the one asked for, else the route's first; NULL with true: none. */
static bool choose_domain(struct api_call *call, const struct route_state *r, const struct domain_state **out,
			  struct problem *why)
{
	const struct compiler *c = call->control->compiler;
	const struct route_base *base = r->placed;
	struct str id = api_query(call, "domainId");
	const struct domain_state *d;
	bool is_own = base->n_domain_ids == 0;

	*out = NULL;
	if (!id.p && base->n_domain_ids == 0)
		return true;
	if (!id.p)
		id = base->domain_ids[0];
	for (unsigned i = 0; i < base->n_domain_ids; i++)
		is_own = is_own || str_equal(base->domain_ids[i], id);
	d = map_get(&c->domain_states, id);
	if (!d || !d->exists || !is_own || !d->gateway || !str_equal(d->gateway->id, base->gateway_id))
		return problem(why, "domainId", "\"%.*s\" is no domain under which the route is served",
			       (int)(id.n < 80 ? id.n : 80), id.p);
	*out = d;
	return true;
}

static const struct route_state *find_route(struct api_call *call, struct problem *why)
{
	const struct compiler *c = call->control->compiler;
	const struct resource *r = api_find_item(call, why);
	const struct route_state *state = r ? map_get(&c->route_states, r->id) : NULL;

	if (!r || (state && state->route && state->placed))
		return r ? state : NULL;
	if (r->kind == RESOURCE_API)
		problem_of(why, PROBLEM_CONFLICT, "httpApiId",
			   "the API has no route of its own: ask for one of its operations, "
			   "/api/v1/http-apis/%.*s/operations/OPERATION/effective-policies", STR_FMT(r->id));
	else
		problem_of(why, PROBLEM_CONFLICT, resource_classes[r->kind]->id_field,
			   "it is not in force on this node; the log says why");
	return NULL;
}

static struct json *text(struct arena *a, struct str s)
{
	return json_new_text(a, arena_copy(a, s));
}

static void put_resource(struct arena *a, struct json *in, const char *kind, struct str id, struct str name)
{
	json_put(a, in, arena_printf(a, "%sId", kind).p, text(a, id));
	json_put(a, in, arena_printf(a, "%sName", kind).p, text(a, name));
}

static struct json *list_domains(struct arena *a, const struct route_base *base)
{
	struct json *list = json_new(a, JSON_ARRAY);

	for (unsigned i = 0; i < base->n_domain_ids; i++)
		if (!has_text(list, base->domain_ids[i]))
			json_add(list, text(a, base->domain_ids[i]));
	return list;
}

static struct json *list_services(struct arena *a, const struct effective *e)
{
	struct json *list = json_new(a, JSON_ARRAY);

	for (unsigned i = 0; i < e->route->n_targets; i++) {
		const struct target *t = &e->route->targets[i];
		struct part *found = pmap_get_hashed(e->compiler->services, t->service_id, t->hash);
		const struct service *s = found ? CONTAINER(found, struct service, part) : NULL;
		struct json *item = json_new(a, JSON_OBJECT);

		put_resource(a, item, "service", t->service_id, s ? s->name : STR(""));
		if (t->port)
			json_put(a, item, "port", json_new_int(a, t->port));
		if (t->version.n)
			json_put(a, item, "version", text(a, t->version));
		json_put(a, item, "weight", json_new_int(a, t->weight));
		if (s)
			json_put(a, item, "settings", effective_settings(e, s, t->port, a));
		json_add(list, item);
	}
	return list;
}

bool api_effective(struct api_call *call, struct problem *why)
{
	struct arena *a = call->arena;
	struct json *body = json_new(a, JSON_OBJECT), *items = json_new(a, JSON_ARRAY);
	const struct compiler *c = call->control->compiler;
	const struct route_state *route;
	const struct domain_state *domain;
	struct effective *e;

	if (!api_check_query(call, effective_parameters, why))
		return false;
	route = find_route(call, why);
	if (!route || !choose_domain(call, route, &domain, why))
		return false;
	e = effective_new(c, route, domain, a);
	json_put(a, body, "resourceType", text(a, route->route->resource_type));
	put_resource(a, body, "resource", route->id, route->route->name);
	put_resource(a, body, "gateway", e->gateway->id, gateway_name(c, e->gateway->id));
	if (domain)
		put_resource(a, body, "domain", domain->id, domain->name);
	json_put(a, body, "domainIds", list_domains(a, route->placed));
	json_put(a, body, "version", json_new_int(a, (int64_t)c->version));
	for (unsigned i = 0; i < e->n; i++)
		json_add(items, effective_item(e, &e->rows[i], a));
	json_put(a, body, "items", items);
	json_put(a, body, "services", list_services(a, e));
	api_answer(call, 200, body);
	return true;
}

/* ---------- trace ---------- */

bool api_trace(struct api_call *call, struct problem *why)
{
	struct trace_doc doc = { 0 };
	struct json *body = api_body(call, why), *answer;
	static const char *const nothing[] = { NULL };

	if (!body || !api_check_query(call, nothing, why) ||
	    !fields_decode(trace_fields, body, &doc, call->arena, why))
		return false;
	doc.keeps_underscores = call->control->keeps_underscores;
	answer = trace_request(call->control->compiler, &doc, str_of(call->request_id), call->arena, why);
	if (answer)
		api_answer(call, 200, answer);
	return answer != NULL;
}
