/*
 * compile_route.c -- a route's document, decoded into what does not depend on policies.
 *
 * Paths are brought into the form that requests have when they are matched, so a difference in escapes never
 * keeps a route from matching.
 */
#include "control/compile_state.h"
#include "core/mem.h"
#include "http/uri.h"

#define PATH_FIELD_BYTES 64

/* ---------- parts of a route ---------- */

static void destroy_base(struct part *p)
{
	struct route_base *base = CONTAINER(p, struct route_base, part);

	series_drop(base->content.traffic);
	arena_free(&base->arena);
	resource_drop(base->resource);
	mem_free(base);
}

struct str gateway_name(const struct compiler *c, struct str gateway_id)
{
	const struct resource *r = model_get(c->model, RESOURCE_GATEWAY, gateway_id);

	return r && r->name.n ? r->name : gateway_id;
}

/* Names of operations are unique in their API only. */
static struct str label_of(const struct compiler *c, const struct route_source *s, struct arena *a)
{
	const struct resource *api = model_get(c->model, RESOURCE_API, json_text(s->resource->doc, "httpApiId"));

	if (s->resource->kind != RESOURCE_OPERATION || !api)
		return s->resource->name;
	return arena_printf(a, "%.*s/%.*s", STR_FMT(api->name), STR_FMT(s->resource->name));
}

static void open_series(const struct compiler *c, struct route_base *base, const struct route_source *s)
{
	base->content.traffic = traffic_series(gateway_name(c, base->gateway_id), label_of(c, s, &base->arena));
	base->content.record = record_fragment(&base->arena, "route", base->content.name);
}

static bool read_path(struct route_base *base, const struct route_source *s, struct problem *why)
{
	struct str path = { NULL, 0 }, query = { NULL, 0 };

	if (s->match == MATCH_REGEX) {
		base->content.path = arena_copy(&base->arena, s->path);
		base->content.regex = regex_compile(&base->arena, s->path, base->content.ignore_case, why);
		if (base->content.regex)
			return true;
		problem_prefix(why, s->path_field);
		return false;
	}
	struct str target = arena_copy(&base->arena, s->path);

	if (target.n == 0 || target.p[0] != '/' ||
	    uri_normalise(&base->arena, target, &path, &query) != URI_OK || query.p)
		return problem(why, s->path_field,
			       "\"%.*s\" is no path; it starts with \"/\" and has no query",
			       STR_FMT(s->path));
	base->content.path = path;
	base->key_path = path;
	return true;
}

/* "{}" for each parameter in the key, and which segments they are. */
static bool read_template(struct route_base *base, const char *field, struct problem *why)
{
	struct str rest = { base->content.path.p + 1, base->content.path.n - 1 }, segment;
	struct sbuf key = { 0 };
	unsigned n = 0;

	for (; str_split(&rest, '/', &segment); n++) {
		bool is_parameter = segment.n > 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';

		if (is_parameter && n < 64)
			base->mask.parameters |= UINT64_C(1) << n;
		sbuf_addc(&key, '/');
		sbuf_add(&key, is_parameter ? STR("{}") : segment);
	}
	base->mask.segments = (uint8_t)(n < 64 ? n : 64);
	base->key_path = arena_copy(&base->arena, sbuf_str(&key));
	sbuf_free(&key);
	return n <= 64 || problem(why, field, "has %u segments; at most 64 are possible with parameters", n);
}

static enum match_type match_of(int path_type)
{
	return path_type == PATH_EXACT ? MATCH_EXACT : path_type == PATH_PREFIX ? MATCH_PREFIX : MATCH_REGEX;
}

static bool read_conditions(struct arena *a, const struct items *in, const char *what, struct route *r,
			    struct problem *why)
{
	const bool is_header = strcmp(what, "headers") == 0;
	struct condition *out = NEW_N(a, struct condition, in->n);
	char field[PATH_FIELD_BYTES];

	for (size_t i = 0; i < in->n; i++) {
		const struct match_condition *from = ITEM(*in, struct match_condition, i);

		out[i].name = arena_copy(a, from->name);
		out[i].value = arena_copy(a, from->value);
		out[i].type = match_of(from->type);
		if (out[i].type != MATCH_REGEX)
			continue;
		out[i].regex = regex_compile(a, out[i].value, false, why);
		if (out[i].regex)
			continue;
		snprintf(field, sizeof(field), "match.%s[%zu].value", what, i);
		problem_prefix(why, field);
		return false;
	}
	*(is_header ? &r->headers : &r->queries) = out;
	*(is_header ? &r->n_headers : &r->n_queries) = (unsigned)in->n;
	return true;
}

static void add_method(struct arena *a, struct route *r, struct str name)
{
	enum method method = method_lookup(name);

	if (method != METHOD_OTHER)
		r->methods |= 1u << method;
	else
		r->other_methods[r->n_other_methods++] = arena_copy(a, name);
}

static void read_methods(struct arena *a, const struct route_source *s, struct route *r)
{
	const size_t n = s->conditions ? s->conditions->methods.n : 0;

	if (n || s->method.n)
		r->other_methods = NEW_N(a, struct str, n + 1);
	for (size_t i = 0; i < n; i++)
		add_method(a, r, *ITEM(s->conditions->methods, struct str, i));
	if (s->method.n)
		add_method(a, r, s->method);
}

static void read_targets(struct arena *a, const struct backend *b, struct route *r)
{
	if (!b || (b->scene != SCENE_SINGLE_SERVICE && b->scene != SCENE_MULTI_SERVICE_BY_RATIO))
		return;
	r->targets = NEW_N(a, struct target, b->services.n);
	for (size_t i = 0; i < b->services.n; i++) {
		const struct backend_service *from = ITEM(b->services, struct backend_service, i);
		struct target *to = &r->targets[r->n_targets++];

		to->service_id = arena_copy(a, from->serviceId);
		to->hash = pmap_hash(to->service_id);
		to->port = (uint16_t)from->port;
		if (from->version.n)
			to->version = arena_copy(a, from->version);
		to->weight = b->scene == SCENE_SINGLE_SERVICE ? 1 : (uint32_t)from->weight;
		r->weight_sum += to->weight;
	}
}

static char key_kind(const struct route *r)
{
	switch (r->match) {
	case MATCH_EXACT:
		return r->ignore_case ? 'e' : 'E';
	case MATCH_PREFIX:
		return r->ignore_case ? 'p' : 'P';
	case MATCH_TEMPLATE:
		return r->ignore_case ? 't' : 'T';
	case MATCH_REGEX:
		break;
	}
	return 0;
}

static void read_domains(struct route_base *base, const struct items *ids)
{
	struct str *copies = ids->n ? NEW_N(&base->arena, struct str, ids->n) : NULL;

	for (size_t i = 0; i < ids->n; i++)
		copies[i] = arena_copy(&base->arena, *ITEM(*ids, struct str, i));
	base->domain_ids = copies;
	base->n_domain_ids = (unsigned)ids->n;
}

static void read_base(struct route *r, struct str base_path)
{
	struct str segment;
	unsigned n = 0;

	r->has_base = base_path.n > 0;
	while (str_split(&base_path, '/', &segment))
		n += segment.n > 0;
	r->base_segments = (uint8_t)(n < UINT8_MAX ? n : UINT8_MAX);
}

struct route_base *route_base_new(struct compiler *c, const struct route_source *s, struct problem *why)
{
	struct route_base *base = MEM_NEW(struct route_base);
	struct arena *a = &base->arena;
	struct route *r = &base->content;
	bool ok;

	base->part = (struct part){ 1, destroy_base };
	a->is_small = true;
	base->gateway_id = arena_copy(a, s->gateway_id);
	base->resource = s->resource;
	resource_hold(base->resource);
	r->id = base->resource->id;
	r->name = base->resource->name;
	r->resource_type = str_of(s->type);
	if (s->api_id.n)
		r->api_id = arena_copy(a, s->api_id);
	r->age = s->resource->age;
	r->match = (enum match_type)s->match;
	r->ignore_case = s->conditions && s->conditions->ignoreUriCase;
	read_base(r, s->base_path);
	read_methods(a, s, r);
	read_targets(a, s->backend, r);
	read_domains(base, s->domain_ids);
	ok = read_path(base, s, why);
	if (ok && r->match == MATCH_TEMPLATE)
		ok = read_template(base, s->path_field, why);
	if (ok && s->conditions)
		ok = read_conditions(a, &s->conditions->headers, "headers", r, why) &&
		     read_conditions(a, &s->conditions->queryParams, "queryParams", r, why);
	base->kind = key_kind(r);
	if (!ok) {
		part_drop(&base->part);
		return NULL;
	}
	open_series(c, base, s);
	return base;
}

/* ---------- states ---------- */

struct route_state *route_state_get(struct compiler *c, struct str id)
{
	struct route_state *r = map_get(&c->route_states, id);

	if (!r) {
		r = state_new(&c->route_states, sizeof(*r), offsetof(struct route_state, id), id);
		list_init(&r->dirty);
		list_init(&r->of_api);
	}
	return r;
}

void route_want(struct compiler *c, struct route_state *r, struct route_base *base)
{
	if (r->base)
		part_drop(&r->base->part);
	r->base = base;
	mark_dirty(&c->dirty_routes, &r->dirty);
}

static struct route_base *decode_route(struct compiler *c, struct resource *r, struct problem *why)
{
	struct arena scratch = { 0 };
	struct route_doc doc = { 0 };
	struct route_base *base = NULL;

	if (resource_decode(r, &scratch, &doc, why))
		base = route_base_new(c, &(struct route_source){
			.resource = r, .type = "Route", .gateway_id = doc.gatewayId,
			.domain_ids = &doc.domainIds, .backend = doc.has_backend ? &doc.backend : NULL,
			.match = match_of(doc.match.path.type), .path_field = "match.path.value",
			.path = doc.match.path.value, .conditions = &doc.match }, why);
	arena_free(&scratch);
	return base;
}

bool route_change(struct compiler *c, const struct change *change, struct problem *why)
{
	struct route_base *base = NULL;

	if (change->after) {
		base = decode_route(c, change->after, why);
		if (!base)
			return false;
	}
	route_want(c, route_state_get(c, change->after ? change->after->id : change->before->id), base);
	return true;
}
