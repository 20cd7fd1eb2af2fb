/*
 * compile_api.c -- REST APIs: each operation is a route below the base path; an API without any is one prefix.
 *
 * An operation inherits gateway, domains, policies and (unless it has its own) the backend of its API. Once
 * an API has an operation, only what its operations describe is served.
 */
#include "control/compile_state.h"
#include "core/mem.h"

static struct api_state *api_get(struct compiler *c, struct str id)
{
	struct api_state *api = map_get(&c->api_states, id);

	if (!api) {
		api = state_new(&c->api_states, sizeof(*api), offsetof(struct api_state, id), id);
		list_init(&api->operations);
	}
	return api;
}

static void api_forget(struct compiler *c, struct api_state *api)
{
	if (api->resource || !list_is_empty(&api->operations))
		return;
	map_remove(&c->api_states, api->id);
	mem_free(api);
}

void api_mark_dirty(struct compiler *c, struct str api_id)
{
	struct api_state *api = map_get(&c->api_states, api_id);

	if (!api)
		return;
	LIST_EACH(node, &api->operations)
		mark_dirty(&c->dirty_routes, &CONTAINER(node, struct route_state, of_api)->dirty);
	if (api->own)
		mark_dirty(&c->dirty_routes, &api->own->dirty);
}

/* ---------- documents to routes ---------- */

/* "/v1" and "/pets" give "/v1/pets"; a base path "/" or one with a slash at its end adds none. */
static struct str join(struct arena *a, struct str base, struct str path)
{
	while (base.n && base.p[base.n - 1] == '/')
		base.n--;
	return arena_printf(a, "%.*s%s%.*s", STR_FMT(base), path.n && path.p[0] == '/' ? "" : "/", STR_FMT(path));
}

static bool has_parameter(struct str path)
{
	struct str segment;

	while (str_split(&path, '/', &segment))
		if (segment.n > 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}')
			return true;
	return false;
}

static struct route_base *decode_operation(struct compiler *c, const struct resource *api,
					   struct resource *r, struct problem *why)
{
	struct arena scratch = { 0 };
	struct api_doc parent = { 0 };
	struct operation_doc doc = { 0 };
	struct route_base *base = NULL;

	if (resource_decode(api, &scratch, &parent, why) && resource_decode(r, &scratch, &doc, why)) {
		const struct backend *inherited = parent.has_backend ? &parent.backend : NULL;

		base = route_base_new(c, &(struct route_source){
			.resource = r, .type = "Operation", .gateway_id = parent.gatewayId,
			.domain_ids = &parent.domainIds, .backend = doc.has_backend ? &doc.backend : inherited,
			.match = has_parameter(doc.path) ? MATCH_TEMPLATE : MATCH_EXACT, .path_field = "path",
			.path = join(&scratch, parent.basePath, doc.path), .base_path = parent.basePath,
			.api_id = api->id, .method = doc.method }, why);
	}
	arena_free(&scratch);
	return base;
}

/* The API's own prefix. *ok is false only when *why is filled; NULL with *ok: it has none. */
static struct route_base *decode_api(struct compiler *c, struct resource *api, bool *ok, struct problem *why)
{
	struct arena scratch = { 0 };
	struct api_doc doc = { 0 };
	struct route_base *base = NULL;

	*ok = resource_decode(api, &scratch, &doc, why);
	if (*ok && doc.has_backend) {
		base = route_base_new(c, &(struct route_source){
			.resource = api, .type = "Api", .gateway_id = doc.gatewayId,
			.domain_ids = &doc.domainIds, .backend = &doc.backend,
			.match = MATCH_PREFIX, .path_field = "basePath", .path = doc.basePath }, why);
		*ok = base != NULL;
	}
	arena_free(&scratch);
	return base;
}

/* ---------- changes ---------- */

/* The API's own route is there exactly while it has no operation. */
static bool want_own(struct compiler *c, struct api_state *api, struct problem *why)
{
	struct route_base *base = NULL;
	bool ok = true;

	if (api->resource && list_is_empty(&api->operations))
		base = decode_api(c, api->resource, &ok, why);
	if (!ok)
		return false;
	if (base && !api->own)
		api->own = route_state_get(c, api->id);
	if (api->own)
		route_want(c, api->own, base);
	if (!base)
		api->own = NULL;
	return true;
}

static void hold_resource(struct resource **slot, struct resource *r)
{
	resource_hold(r);
	resource_drop(*slot);
	*slot = r;
}

struct operation_bases {
	struct arena scratch;
	struct route_base **list;
	unsigned n;
};

static bool decode_operations(struct compiler *c, const struct api_state *api, struct resource *r,
			      struct operation_bases *out, struct problem *why)
{
	unsigned count = 0;

	LIST_EACH(node, &api->operations)
		count++;
	out->list = NEW_N(&out->scratch, struct route_base *, count);
	LIST_EACH(node, &api->operations) {
		const struct route_state *operation = CONTAINER(node, struct route_state, of_api);

		out->list[out->n] = decode_operation(c, r, operation->resource, why);
		if (!out->list[out->n])
			return false;
		out->n++;
	}
	return true;
}

static bool replace_api(struct compiler *c, struct api_state *api, struct resource *r, struct problem *why)
{
	struct operation_bases bases = { 0 };
	struct resource *before = api->resource;
	bool ok = !r || decode_operations(c, api, r, &bases, why);
	unsigned i = 0;

	if (ok) {
		api->resource = r;
		ok = want_own(c, api, why);
		api->resource = before;
	}
	if (ok) {
		hold_resource(&api->resource, r);
		LIST_EACH(node, &api->operations)
			route_want(c, CONTAINER(node, struct route_state, of_api), r ? bases.list[i++] : NULL);
	}
	for (i = 0; !ok && i < bases.n; i++)
		part_drop(&bases.list[i]->part);
	arena_free(&bases.scratch);
	return ok;
}

bool api_change(struct compiler *c, const struct change *change, struct problem *why)
{
	struct api_state *api = api_get(c, change->after ? change->after->id : change->before->id);
	bool ok = replace_api(c, api, change->after, why);

	api_forget(c, api);
	return ok;
}

static bool add_operation(struct compiler *c, struct resource *r, struct problem *why)
{
	struct api_state *api = api_get(c, json_text(r->doc, "httpApiId"));
	struct route_base *base = NULL;
	struct route_state *operation;

	if (api->resource) {
		base = decode_operation(c, api->resource, r, why);
		if (!base) {
			api_forget(c, api);
			return false;
		}
	}
	operation = route_state_get(c, r->id);
	hold_resource(&operation->resource, r);
	operation->parent_id = api->id;
	if (list_is_empty(&operation->of_api))
		list_append(&api->operations, &operation->of_api);
	route_want(c, operation, base);
	return want_own(c, api, why);
}

static bool remove_operation(struct compiler *c, const struct resource *r, struct problem *why)
{
	struct route_state *operation = map_get(&c->route_states, r->id);
	struct api_state *api = map_get(&c->api_states, json_text(r->doc, "httpApiId"));
	bool ok;

	if (!operation || !api)
		return true;
	list_remove(&operation->of_api);
	ok = want_own(c, api, why);
	if (!ok) {
		list_append(&api->operations, &operation->of_api);
		return false;
	}
	hold_resource(&operation->resource, NULL);
	operation->parent_id = (struct str){ NULL, 0 };
	route_want(c, operation, NULL);
	api_forget(c, api);
	return true;
}

bool operation_change(struct compiler *c, const struct change *change, struct problem *why)
{
	return change->after ? add_operation(c, change->after, why) : remove_operation(c, change->before, why);
}

void apis_free(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->api_states, &i));) {
		struct api_state *api = e->value;

		resource_drop(api->resource);
		mem_free(api);
	}
	map_free(&c->api_states);
}
