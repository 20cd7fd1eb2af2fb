/*
 * api_gateway.c -- what is peculiar to gateways and services: gateways go by name or id, settings are named
 * values, and the ports
 * of a service are entries of its document.
 */
#include <stdio.h>
#include "control/api.h"
#include "control/control_parts.h"
#include "control/feature.h"
#include "control/rest.h"

/* ---------- gateways ---------- */

struct by_name {
	const struct model *model;
	struct str mesh_id, namespace, name;
	struct resource *found;
	unsigned n;
};

static void find_by_name(struct by_name *b)
{
	size_t i = 0;

	for (struct resource *r; (r = model_next(b->model, RESOURCE_GATEWAY, &i));) {
		if (!str_equal(r->name, b->name) || !str_equal(json_text(r->doc, "meshId"), b->mesh_id) ||
		    (b->namespace.n && !str_equal(json_text(r->doc, "namespace"), b->namespace)))
			continue;
		b->found = r;
		b->n++;
	}
}

static struct resource *find_in_mesh(struct api_call *call, struct str namespace, struct problem *why)
{
	struct by_name b = { call->control->model, call->parameters[0], namespace, call->parameters[1], NULL, 0 };
	struct resource *r = model_get(b.model, RESOURCE_GATEWAY, b.name);

	if (!model_get(b.model, RESOURCE_MESH, b.mesh_id)) {
		problem_of(why, PROBLEM_NOT_FOUND, "mesh_id", "no mesh has the id \"%.*s\"", STR_FMT(b.mesh_id));
		return NULL;
	}
	if (r && str_equal(json_text(r->doc, "meshId"), b.mesh_id) &&
	    (!namespace.n || str_equal(json_text(r->doc, "namespace"), namespace)))
		return r;
	find_by_name(&b);
	if (b.n > 1)
		problem_of(why, PROBLEM_CONFLICT, "namespace",
			"several gateways have the name \"%.*s\"; add ?namespace=", STR_FMT(b.name));
	else if (b.n == 0)
		problem_of(why, PROBLEM_NOT_FOUND, "gateway",
			"mesh %.*s has no gateway with the name or id \"%.*s\"", STR_FMT(b.mesh_id),
			STR_FMT(b.name));
	return b.n == 1 ? b.found : NULL;
}

static struct resource *find_gateway(struct api_call *call, struct problem *why)
{
	static const char *const known[] = { "namespace", "dryRun", NULL };

	if (!api_check_query(call, known, why))
		return NULL;
	return call->is_mesh ? find_in_mesh(call, api_query(call, "namespace"), why)
			     : api_find_gateway_by_id(call, why);
}

bool api_gateway_read(struct api_call *call, struct problem *why)
{
	const struct resource *r = find_gateway(call, why);

	if (r)
		api_show_item(call, r);
	return r;
}

bool api_gateway_replace(struct api_call *call, struct problem *why)
{
	struct resource *r = find_gateway(call, why);

	return r && api_replace_item(call, r, why);
}

bool api_gateway_delete(struct api_call *call, struct problem *why)
{
	struct resource *r = find_gateway(call, why);

	return r && api_delete_item(call, r, why);
}

/* The documented form: POST on the item, the namespace in the body. */
bool api_gateway_delete_by_post(struct api_call *call, struct problem *why)
{
	static const char *const known[] = { "dryRun", NULL };
	const struct json *body = api_check_query(call, known, why) ? api_body(call, why) : NULL;

	if (!body)
		return false;
	for (const struct json *v = body->child; v; v = v->next)
		if (!str_equal(v->name, STR("Namespace")) && !str_equal(v->name, STR("namespace")))
			return problem(why, v->name.p, "unknown field; known here is Namespace");
	if (!body->child)
		return problem(why, "Namespace", "is required");
	if (body->child->type != JSON_STRING || !body->child->string.n)
		return problem(why, "Namespace", "must be a string");
	struct resource *r = find_in_mesh(call, body->child->string, why);

	return r && api_delete_item(call, r, why);
}

/* ---------- settings ---------- */

struct resource *api_find_gateway_by_id(const struct api_call *call, struct problem *why)
{
	struct resource *r = model_get(call->control->model, RESOURCE_GATEWAY, call->parameters[0]);

	if (!r)
		problem_of(why, PROBLEM_NOT_FOUND, "gatewayId", "no gateway has the id \"%.*s\"",
			STR_FMT(call->parameters[0]));
	return r;
}

static const struct resource *stored_feature(const struct api_call *call, const struct feature *f)
{
	char id[FEATURE_ID_MAX];

	return model_get(
		call->control->model, RESOURCE_FEATURE, feature_id(call->parameters[0], str_of(f->name), id));
}

static struct json *feature_item(const struct api_call *call, const struct feature *f)
{
	struct arena *a = call->arena;
	struct json *item = json_new(a, JSON_OBJECT);

	json_put(a, item, "name", json_new_text(a, str_of(f->name)));
	if (!f->secret)
		json_put(a, item, "value",
			json_clone(a, feature_value(call->control->model, call->parameters[0], f->name)));
	json_put(a, item, "isDefault", json_new_bool(a, !stored_feature(call, f)));
	json_put(a, item, "enforced", json_new_bool(a, f->is_enforced));
	json_put(a, item, "description", json_new_text(a, str_of(f->doc)));
	return item;
}

bool api_feature_list(struct api_call *call, struct problem *why)
{
	static const char *const known[] = { "pageNumber", "pageSize", NULL };
	struct json *items = json_new(call->arena, JSON_ARRAY);
	struct page page;
	size_t total = 0;

	if (!api_find_gateway_by_id(call, why) || !api_check_query(call, known, why) || !api_page(call, &page, why))
		return false;
	size_t first = (size_t)((page.number - 1) * page.size);

	for (const struct feature *f = features; f->name; f++, total++)
		if (total >= first && total < first + (size_t)page.size)
			json_add(items, feature_item(call, f));
	api_answer_page(call, items, &page, total);
	return true;
}

static const struct feature *find_feature(const struct api_call *call, struct problem *why)
{
	const struct feature *f = api_find_gateway_by_id(call, why) ? feature_find(call->parameters[1]) : NULL;

	if (!f && model_get(call->control->model, RESOURCE_GATEWAY, call->parameters[0]))
		problem_of(why, PROBLEM_NOT_FOUND, "name", "\"%.*s\" is no gateway setting",
			STR_FMT(call->parameters[1]));
	return f;
}

bool api_feature_read(struct api_call *call, struct problem *why)
{
	const struct feature *f = find_feature(call, why);

	if (!f)
		return false;
	const struct resource *r = stored_feature(call, f);

	api_answer(call, 200, feature_item(call, f));
	call->etag = arena_printf(call->arena, "\"%llu\"", r ? (unsigned long long)r->version : 0ULL);
	return true;
}

static struct json *feature_body(struct api_call *call, const struct feature *f, struct problem *why)
{
	static const char *const ignored[] = { "isDefault", "enforced", "description", "name" };
	struct json *body = api_body(call, why), *value = body ? json_get(body, "value") : NULL;
	struct json *made = json_new(call->arena, JSON_OBJECT);

	if (!body)
		return NULL;
	for (unsigned i = 0; i < 4; i++)
		json_drop(body, ignored[i]);
	for (const struct json *v = body->child; v; v = v->next)
		if (v != value) {
			problem(why, v->name.p, "unknown field; known here is value");
			return NULL;
		}
	if (!value) {
		problem(why, "value", "is required");
		return NULL;
	}
	json_put(call->arena, made, "gatewayId", json_new_text(call->arena, call->parameters[0]));
	json_put(call->arena, made, "name", json_new_text(call->arena, str_of(f->name)));
	json_put(call->arena, made, "value", json_clone(call->arena, value));
	return made;
}

bool api_feature_replace(struct api_call *call, struct problem *why)
{
	static const char *const known[] = { "dryRun", NULL };
	const struct feature *f = api_check_query(call, known, why) ? find_feature(call, why) : NULL;
	struct rest_input in = { .class = resource_classes[RESOURCE_FEATURE], .internal = true };
	struct resource *before, *r;
	char id[FEATURE_ID_MAX];
	struct write w;

	if (!f)
		return false;
	in.id = feature_id(call->parameters[0], str_of(f->name), id);
	in.body = feature_body(call, f, why);
	before = model_get(call->control->model, RESOURCE_FEATURE, in.id);
	if (!in.body || (before && !api_check_match(call, before, why)))
		return false;
	write_begin(&w, call->control, call->arena);
	if (before ? rest_replace(&w, before, &in, &r, why) : rest_create(&w, &in, &r, why))
		return api_keep(call, &w, r, SHOW_FEATURE);
	write_undo(&w);
	return false;
}

void api_show_feature(struct api_call *call, const struct resource *r)
{
	const struct feature *f = feature_find(r->name);

	call->parameters[0] = json_text(r->doc, "gatewayId");
	if (f)
		api_answer(call, 200, feature_item(call, f));
}

/* ---------- service ports: entries of ports[] of the service ---------- */

static struct json *ports_of(struct api_call *call, const struct resource *service, struct json **body)
{
	struct json *ports;

	*body = json_clone(call->arena, service->doc);
	ports = json_get(*body, "ports");
	if (!ports) {
		ports = json_new(call->arena, JSON_ARRAY);
		json_put(call->arena, *body, "ports", ports);
	}
	return ports;
}

/* Writes the service with its changed ports; the port's resource follows from it. */
static bool put_service(struct api_call *call, struct write *w, struct resource *service, const struct json *body,
                        struct problem *why)
{
	struct rest_input in = { .class = resource_classes[RESOURCE_SERVICE], .body = body };
	struct resource *r;

	write_begin(w, call->control, call->arena);
	if (rest_replace(w, service, &in, &r, why))
		return true;
	write_undo(w);
	return false;
}

struct port_search {
	int64_t port;
	struct resource *found;
};

static bool look_at_port(void *arg, struct resource *r)
{
	struct port_search *s = arg;

	if (r->kind == RESOURCE_SERVICE_PORT && json_get(r->doc, "port")->integer == s->port)
		s->found = r;
	return !s->found;
}

static struct resource *find_port(const struct api_call *call, int64_t port)
{
	struct port_search s = { port, NULL };

	model_referrers(call->control->model, RESOURCE_SERVICE, call->parameters[0], look_at_port, &s);
	return s.found;
}

/* The members of a port that a service's document has. */
static struct json *entry_of(struct api_call *call, const struct json *body)
{
	static const char *const members[] = { "name", "port", "protocol" };
	struct json *entry = json_new(call->arena, JSON_OBJECT);

	for (unsigned i = 0; i < 3; i++) {
		const struct json *v = json_get(body, members[i]);

		if (v)
			json_put(call->arena, entry, members[i], json_clone(call->arena, v));
	}
	return entry;
}

/* Judges the body by the port's own table, so that complaints name its members. */
static const struct json *port_body(struct api_call *call, const struct resource *before, struct problem *why)
{
	const struct resource_class *class = resource_classes[RESOURCE_SERVICE_PORT];
	struct json *body = api_body(call, why);
	void *in = arena_alloc(call->arena, class->size);

	if (!body)
		return NULL;
	if (before) {
		json_drop(body, "servicePortId");
		json_drop(body, "createTimestamp");
		json_drop(body, "updateTimestamp");
		if (!json_get(body, "port"))
			json_put(call->arena, body, "port", json_clone(call->arena, json_get(before->doc, "port")));
	}
	return fields_decode(class->fields, body, in, call->arena, why) ? body : NULL;
}

bool api_port_create(struct api_call *call, struct problem *why)
{
	static const char *const known[] = { "dryRun", NULL };
	struct resource *service = model_get(call->control->model, RESOURCE_SERVICE, call->parameters[0]);
	const struct json *body;
	struct json *changed;
	struct write w;

	if (!api_check_query(call, known, why))
		return false;
	if (!service)
		return problem_of(why, PROBLEM_NOT_FOUND, "serviceId", "no service has the id \"%.*s\"",
			STR_FMT(call->parameters[0]));
	body = port_body(call, NULL, why);
	if (!body)
		return false;
	int64_t port = json_get(body, "port")->integer;

	if (find_port(call, port))
		return problem_of(why, PROBLEM_CONFLICT, "port", "service %.*s has port %lld already",
			STR_FMT(service->id), (long long)port);
	json_add(ports_of(call, service, &changed), entry_of(call, body));
	return put_service(call, &w, service, changed, why) && api_keep(call, &w, find_port(call, port), SHOW_ID);
}

static struct json *find_entry(struct json *ports, int64_t port)
{
	for (struct json *v = ports->child; v; v = v->next)
		if (json_get(v, "port") && json_get(v, "port")->integer == port)
			return v;
	return NULL;
}

bool api_port_replace(struct api_call *call, struct problem *why)
{
	static const char *const known[] = { "dryRun", NULL };
	struct resource *before = api_check_query(call, known, why) ? api_find_item(call, why) : NULL;
	const struct json *body =
		before && api_check_match(call, before, why) ? port_body(call, before, why) : NULL;
	struct json *changed, *ports, *entry;
	struct write w;

	if (!body)
		return false;
	int64_t port = json_get(before->doc, "port")->integer;

	if (json_get(body, "port")->integer != port)
		return problem(why, "port", "cannot be changed after the creation; it is %lld", (long long)port);
	ports = ports_of(call, model_get(call->control->model, RESOURCE_SERVICE, call->parameters[0]), &changed);
	entry = find_entry(ports, port);
	if (!entry) {
		entry = json_new(call->arena, JSON_OBJECT);
		json_add(ports, entry);
	}
	const struct json *now = entry_of(call, body);

	entry->child = now->child;
	entry->last = now->last;
	entry->n = now->n;
	return put_service(call, &w, model_get(call->control->model, RESOURCE_SERVICE, call->parameters[0]),
		       changed, why) &&
	       api_keep(call, &w, find_port(call, port), SHOW_ITEM);
}

bool api_port_delete(struct api_call *call, struct problem *why)
{
	static const char *const known[] = { "dryRun", NULL };
	struct resource *before = api_check_query(call, known, why) ? api_find_item(call, why) : NULL;
	struct json *changed, *ports, *left = json_new(call->arena, JSON_ARRAY), *next;
	struct write w;

	if (!before || !api_check_match(call, before, why))
		return false;
	struct resource *service = model_get(call->control->model, RESOURCE_SERVICE, call->parameters[0]);
	int64_t port = json_get(before->doc, "port")->integer;

	ports = ports_of(call, service, &changed);
	for (struct json *v = ports->child; v; v = next) {
		next = v->next;
		if (json_get(v, "port")->integer != port)
			json_add(left, v);
	}
	json_put(call->arena, changed, "ports", left);
	if (!put_service(call, &w, service, changed, why))
		return false;
	if (!find_port(call, port))
		return api_keep(call, &w, NULL, SHOW_NOTHING);
	write_undo(&w);
	return problem_of(why, PROBLEM_CONFLICT, "servicePortId",
		"port %lld is in an address of service %.*s", (long long)port, STR_FMT(service->id));
}
