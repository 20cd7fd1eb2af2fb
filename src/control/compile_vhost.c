/*
 * compile_vhost.c -- routes into the persistent map of paths, and what a vhost has to know to look for them.
 *
 * A change of one route touches the candidates under its own keys and nothing else. The vhost's summary
 * (which depths, which templates) is kept as counts, and made anew only when a count leaves or reaches zero.
 */
#include "ai/chat_conf.h"
#include "control/compile_state.h"
#include "core/mem.h"

/* ---------- candidates ---------- */

/* Whether a is tried before b. */
static bool goes_before(const struct route *a, const struct route *b)
{
	if (a->n_headers != b->n_headers)
		return a->n_headers > b->n_headers;
	if (a->n_queries != b->n_queries)
		return a->n_queries > b->n_queries;
	return a->age < b->age;
}

static void destroy_candidates(struct part *p)
{
	struct candidates *all = CONTAINER(p, struct candidates, part);

	for (unsigned i = 0; i < all->n; i++)
		part_drop(&all->routes[i]->part);
	mem_free(all);
}

/* `old` without `leaves` and with `joins`, each may be NULL; NULL when nothing is left. */
static struct candidates *change_candidates(const struct candidates *old, const struct route *leaves,
					    struct route *joins)
{
	struct candidates *all;
	const unsigned n = old ? old->n : 0;

	all = mem_alloc(sizeof(*all) + (n + 1) * sizeof(all->routes[0]));
	all->part = (struct part){ 1, destroy_candidates };
	for (unsigned i = 0; i < n; i++) {
		if (joins && old->routes[i] != leaves && goes_before(joins, old->routes[i])) {
			all->routes[all->n++] = joins;
			joins = NULL;
		}
		if (old->routes[i] != leaves)
			all->routes[all->n++] = old->routes[i];
	}
	if (joins)
		all->routes[all->n++] = joins;
	for (unsigned i = 0; i < all->n; i++)
		part_hold(&all->routes[i]->part);
	if (all->n)
		return all;
	part_drop(&all->part);
	return NULL;
}

static void put_route(struct compiler *c, const struct vhost_state *v, const struct route_base *base,
		      struct route *leaves, struct route *joins)
{
	struct arena scratch = { 0 };
	struct str key = router_key(&scratch, base->kind, v->number, base->key_path);
	struct part *found = pmap_get(c->paths, key);
	struct candidates *all =
		change_candidates(found ? CONTAINER(found, struct candidates, part) : NULL, leaves, joins);

	c->paths = pmap_set(c->paths, key, all ? &all->part : NULL);
	if (all)
		part_drop(&all->part);
	arena_free(&scratch);
}

/* ---------- summaries ---------- */

/* Adds by (1 or -1); true when the count left or reached zero. */
static bool count(unsigned *n, int by)
{
	BUG_ON(by < 0 && *n == 0);
	*n += (unsigned)by;
	return *n == (by > 0 ? 1 : 0);
}

static bool count_mask(struct vhost_state *v, struct template_mask mask, int by)
{
	for (unsigned i = 0; i < v->n_masks; i++) {
		struct mask_count *m = &v->masks[i];

		if (m->mask.segments != mask.segments || m->mask.parameters != mask.parameters)
			continue;
		if (!count(&m->count, by))
			return false;
		*m = v->masks[--v->n_masks];
		return true;
	}
	BUG_ON(by < 0);
	v->masks = mem_resize(v->masks, (v->n_masks + 1) * sizeof(*v->masks));
	v->masks[v->n_masks++] = (struct mask_count){ mask, 1 };
	return true;
}

static bool count_prefix(struct vhost_state *v, struct str path, int by)
{
	const unsigned depth = router_depth(path);
	const bool is_slash = path.n > 1 && path.p[path.n - 1] == '/';

	return count(&(is_slash ? v->slashes : v->prefixes)[depth < 63 ? depth : 63], by);
}

/* Returns whether the summary changes. */
static bool count_route(struct vhost_state *v, const struct route_base *base, int by)
{
	bool changes = count(&v->n_routes, by);

	if (base->content.ignore_case)
		changes |= count(&v->n_nocase, by);
	switch (base->content.match) {
	case MATCH_EXACT:
		return count(&v->n_exact, by) || changes;
	case MATCH_PREFIX:
		return count_prefix(v, base->key_path, by) || changes;
	case MATCH_TEMPLATE:
		return count_mask(v, base->mask, by) || changes;
	case MATCH_REGEX:
		break;
	}
	return true;
}

static bool regex_goes_before(const struct route *a, const struct route *b)
{
	return a->path.n != b->path.n ? a->path.n > b->path.n : goes_before(a, b);
}

static void change_regexes(struct vhost_state *v, const struct route *leaves, struct route *joins)
{
	unsigned n = 0, at;

	for (unsigned i = 0; i < v->n_regexes; i++)
		if (v->regexes[i] != leaves)
			v->regexes[n++] = v->regexes[i];
	v->n_regexes = n;
	if (!joins)
		return;
	v->regexes = mem_resize(v->regexes, (n + 1) * sizeof(struct route *));
	for (at = n; at > 0 && regex_goes_before(joins, v->regexes[at - 1]); at--)
		v->regexes[at] = v->regexes[at - 1];
	v->regexes[at] = joins;
	v->n_regexes++;
}

/* ---------- placement ---------- */

static struct vhost_state *vhost_of(struct compiler *c, const struct route_base *base, unsigned i)
{
	if (base->n_domain_ids)
		return &domain_get(c, base->domain_ids[i])->routes;
	return &gateway_get(c, base->gateway_id)->routes;
}

static void change_place(struct compiler *c, const struct route_base *base, struct route *leaves,
			 struct route *joins)
{
	const unsigned places = base->n_domain_ids ? base->n_domain_ids : 1;

	for (unsigned i = 0; i < places; i++) {
		struct vhost_state *v = vhost_of(c, base, i);
		bool changes = false;

		if (v->number == 0)
			v->number = ++c->vhost_numbers;
		if (!leaves || !joins)
			changes = count_route(v, base, joins ? 1 : -1);
		if (base->kind)
			put_route(c, v, base, leaves, joins);
		else
			change_regexes(v, leaves, joins);
		if (changes || !base->kind)
			mark_dirty(&c->dirty_vhosts, &v->dirty);
	}
}

static void destroy_route(struct part *p)
{
	struct route *r = CONTAINER(p, struct route, part);

	policies_drop(r->policies);
	parts_drop(r->held, r->n_held);
	mem_free(r);
}

static struct route *route_new(struct compiler *c, const struct route_state *state)
{
	struct route *r = MEM_NEW(struct route);

	*r = state->base->content;
	r->part = (struct part){ 1, destroy_route };
	r->policies = policies_compile(c, &(struct bearer){ LEVEL_ROUTE, r->id, r->name, state->parent_id,
							    r->ai != NULL });
	/* On such a route requests to models have errors of their API, others have not. */
	if (r->policies->wants & WANTS_CHAT)
		r->shape_error = chat_shape_error;
	r->held = mem_alloc(sizeof(struct part *));
	r->held[r->n_held++] = &state->base->part;
	part_hold(&state->base->part);
	return r;
}

void route_settle(struct compiler *c, struct route_state *state)
{
	struct route *r = state->base ? route_new(c, state) : NULL;

	list_remove(&state->dirty);
	if (state->placed && state->placed == state->base) {
		change_place(c, state->placed, state->route, r);
	} else {
		if (state->placed)
			change_place(c, state->placed, state->route, NULL);
		if (state->base)
			change_place(c, state->base, NULL, r);
	}
	if (state->route)
		part_drop(&state->route->part);
	if (state->placed)
		part_drop(&state->placed->part);
	state->route = r;
	state->placed = state->base;
	if (state->placed)
		part_hold(&state->placed->part);
	if (state->base || !list_is_empty(&state->of_api))
		return;
	map_remove(&c->route_states, state->id);
	resource_drop(state->resource);
	mem_free(state);
}

/* ---------- vhosts ---------- */

static void destroy_vhost(struct part *p)
{
	struct vhost *v = CONTAINER(p, struct vhost, part);

	parts_drop(v->held, v->n_held);
	arena_free(&v->arena);
	mem_free(v);
}

/* Fewer parameters first; then the one whose first parameter comes later. */
static bool mask_goes_before(const struct template_mask *a, const struct template_mask *b)
{
	const int of_a = __builtin_popcountll(a->parameters), of_b = __builtin_popcountll(b->parameters);
	const uint64_t differ = a->parameters ^ b->parameters;

	return of_a != of_b ? of_a < of_b : (differ & -differ & b->parameters) != 0;
}

static void add_masks(struct vhost *v, const struct vhost_state *state)
{
	v->templates = NEW_N(&v->arena, struct template_mask, state->n_masks);
	for (unsigned i = 0; i < state->n_masks; i++) {
		unsigned at = v->n_templates++;

		for (; at > 0 && mask_goes_before(&state->masks[i].mask, &v->templates[at - 1]); at--)
			v->templates[at] = v->templates[at - 1];
		v->templates[at] = state->masks[i].mask;
	}
}

static struct vhost *vhost_new(const struct vhost_state *state)
{
	struct vhost *v = MEM_NEW(struct vhost);

	v->part = (struct part){ 1, destroy_vhost };
	v->arena.is_small = true;
	v->number = state->number;
	v->has_exact = state->n_exact > 0;
	v->has_nocase = state->n_nocase > 0;
	for (unsigned i = 0; i < 64; i++) {
		v->prefix_depths |= (uint64_t)(state->prefixes[i] > 0) << i;
		v->slash_depths |= (uint64_t)(state->slashes[i] > 0) << i;
	}
	add_masks(v, state);
	v->regexes = NEW_N(&v->arena, struct route *, state->n_regexes);
	v->held = mem_alloc((state->n_regexes + 1) * sizeof(struct part *));
	for (; v->n_regexes < state->n_regexes; v->n_regexes++) {
		struct route *r = state->regexes[v->n_regexes];

		part_hold(&r->part);
		v->regexes[v->n_regexes] = r;
		v->held[v->n_held++] = &r->part;
	}
	return v;
}

void vhost_settle(struct compiler *c, struct vhost_state *state)
{
	list_remove(&state->dirty);
	if (state->vhost)
		part_drop(&state->vhost->part);
	state->vhost = state->n_routes ? vhost_new(state) : NULL;
	if (state->domain)
		mark_dirty(&c->dirty_domains, &state->domain->dirty);
	else
		gateway_mark(c, state->gateway, true);
}

void vhost_state_free(struct vhost_state *v)
{
	list_remove(&v->dirty);
	if (v->vhost)
		part_drop(&v->vhost->part);
	mem_free(v->masks);
	mem_free(v->regexes);
}

void routes_free(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->route_states, &i));) {
		struct route_state *r = e->value;

		if (r->route)
			part_drop(&r->route->part);
		if (r->placed)
			part_drop(&r->placed->part);
		if (r->base)
			part_drop(&r->base->part);
		resource_drop(r->resource);
		mem_free(r);
	}
	map_free(&c->route_states);
}
