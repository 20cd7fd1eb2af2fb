/*
 * compile_gateway.c -- gateways and domains: the sites that Hosts lead to.
 *
 * A site belongs to a domain, or to a gateway for Hosts without one. All sites of a gateway hold its part and
 * its summary of routes, so they are made anew with it; a change of one domain makes one site.
 */
#include "control/compile_state.h"
#include "control/feature.h"
#include "core/mem.h"

/* ---------- states ---------- */

struct gateway_state *gateway_get(struct compiler *c, struct str id)
{
	struct gateway_state *g = map_get(&c->gateway_states, id);

	if (!g) {
		g = state_new(&c->gateway_states, sizeof(*g), offsetof(struct gateway_state, id), id);
		list_init(&g->dirty);
		list_init(&g->domains);
		list_init(&g->routes.dirty);
		g->routes.gateway = g;
	}
	return g;
}

struct domain_state *domain_get(struct compiler *c, struct str id)
{
	struct domain_state *d = map_get(&c->domain_states, id);

	if (!d) {
		d = state_new(&c->domain_states, sizeof(*d), offsetof(struct domain_state, id), id);
		list_init(&d->dirty);
		list_init(&d->of_gateway);
		list_init(&d->routes.dirty);
		d->routes.domain = d;
		d->policies_stale = true;
	}
	return d;
}

void gateway_mark(struct compiler *c, struct gateway_state *g, bool sites_only)
{
	g->sites_only = sites_only && (g->sites_only || list_is_empty(&g->dirty));
	mark_dirty(&c->dirty_gateways, &g->dirty);
}

static void free_gateway(struct gateway_state *g)
{
	list_remove(&g->dirty);
	vhost_state_free(&g->routes);
	if (g->gateway)
		part_drop(&g->gateway->part);
	if (g->site)
		part_drop(&g->site->part);
	gateway_plan_free(g->plan);
	map_free(&g->tls_domains);
	mem_free(g->bindings);
	mem_free(g);
}

static void free_domain(struct domain_state *d)
{
	list_remove(&d->dirty);
	vhost_state_free(&d->routes);
	policies_drop(d->policies);
	domain_tls_free(d->tls);
	if (d->site)
		part_drop(&d->site->part);
	mem_free((char *)(uintptr_t)d->name.p);
	mem_free(d);
}

/* ---------- parts ---------- */

static void destroy_gateway(struct part *p)
{
	struct gateway *g = CONTAINER(p, struct gateway, part);

	series_drop(g->traffic);
	policies_drop(g->policies);
	arena_free(&g->arena);
	mem_free(g);
}

static void read_trust(const struct compiler *c, struct gateway *g)
{
	const struct json *depth = feature_value(c->model, g->id, "xffTrustedNum");
	const struct json *proxies = feature_value(c->model, g->id, "trustedProxies");
	const struct json *proxy_protocol = feature_value(c->model, g->id, "proxyProtocol");
	const struct json *strip_tag = feature_value(c->model, g->id, "stripInboundTag");
	struct ip base;
	unsigned prefix;

	g->has_proxy_header = proxy_protocol && proxy_protocol->type == JSON_BOOL && proxy_protocol->boolean;
	g->strips_tag = strip_tag && strip_tag->type == JSON_BOOL && strip_tag->boolean;
	if (depth && depth->type == JSON_INT && depth->integer > 0)
		g->trust.xff_trusted_num = (unsigned)depth->integer;
	if (!proxies || proxies->type != JSON_ARRAY || proxies->n == 0)
		return;
	g->trust.proxies = cidr_set_new(&g->arena);
	for (const struct json *item = proxies->child; item; item = item->next)
		if (cidr_parse(item->string, &base, &prefix))
			cidr_set_add(g->trust.proxies, &base, prefix);
}

static unsigned read_key_generation(const struct compiler *c, const struct gateway *g)
{
	const struct json *generation = feature_value(c->model, g->id, "sessionKeyGeneration");

	return generation && generation->type == JSON_INT ? (unsigned)generation->integer : 1;
}

/* What upstream calls of its exchanges go by. Absent (no such setting): as if 0. */
static void read_attempts(const struct compiler *c, struct gateway *g)
{
	const struct json *buffer = feature_value(c->model, g->id, "retryBufferBytes");
	const struct json *idle = feature_value(c->model, g->id, "streamIdleTimeoutMs");
	const struct json *tells = feature_value(c->model, g->id, "attemptCountHeader");
	const struct json *body = feature_value(c->model, g->id, "maxBufferedBodyBytes");
	const struct json *ai = feature_value(c->model, g->id, "ai.max_request_body");

	g->retry_buffer_bytes = buffer && buffer->type == JSON_INT ? (size_t)buffer->integer : 0;
	g->body_buffer_bytes = body && body->type == JSON_INT ? (size_t)body->integer : 0;
	g->ai_body_bytes = ai && ai->type == JSON_INT ? (size_t)ai->integer : 0;
	g->stream_idle_ms = idle && idle->type == JSON_INT ? idle->integer : 0;
	g->tells_attempts = tells && tells->type == JSON_BOOL && tells->boolean;
}

static struct gateway *gateway_new(struct compiler *c, const struct gateway_state *state)
{
	struct gateway *g = MEM_NEW(struct gateway);

	g->arena.is_small = true;
	g->part = (struct part){ 1, destroy_gateway };
	g->id = arena_copy(&g->arena, state->id);
	g->name = arena_copy(&g->arena, state->plan->name);
	g->record = record_fragment(&g->arena, "gateway", g->name);
	read_trust(c, g);
	read_attempts(c, g);
	g->key_generation = read_key_generation(c, g);
	g->traffic = traffic_series(g->name, STR(""));
	g->policies = policies_compile(c, &(struct bearer){ LEVEL_GATEWAY, g->id, g->name, { NULL, 0 }, false });
	return g;
}

static void destroy_site(struct part *p)
{
	struct site *s = CONTAINER(p, struct site, part);

	policies_drop(s->domain_policies);
	parts_drop(s->held, s->n_held);
	arena_free(&s->arena);
	mem_free(s);
}

static struct part *hold_for(struct site *s, struct part *p)
{
	part_hold(p);
	s->held[s->n_held++] = p;
	return p;
}

/* d: NULL for the site of Hosts without a domain. */
static struct site *site_new(const struct compiler *c, const struct gateway_state *g, const struct domain_state *d)
{
	struct site *s = MEM_NEW(struct site);

	s->arena.is_small = true;
	s->part = (struct part){ 1, destroy_site };
	s->held = mem_alloc(3 * sizeof(struct part *));
	s->gateway = CONTAINER(hold_for(s, &g->gateway->part), struct gateway, part);
	if (g->routes.vhost)
		s->gateway_routes = CONTAINER(hold_for(s, &g->routes.vhost->part), struct vhost, part);
	s->domain_policies = policies_hold(d ? d->policies : (struct policies *)(uintptr_t)&policies_none);
	if (!d)
		return s;
	s->domain_id = arena_copy(&s->arena, d->id);
	s->domain_name = arena_copy(&s->arena, d->name);
	tls_guard_site(c, s, d);
	if (d->routes.vhost)
		s->domain_routes = CONTAINER(hold_for(s, &d->routes.vhost->part), struct vhost, part);
	return s;
}

static void set_site(struct site **slot, struct site *site)
{
	if (*slot)
		part_drop(&(*slot)->part);
	*slot = site;
}

/* ---------- settling ---------- */

static bool is_host(const struct gateway_state *g, struct str name)
{
	for (unsigned i = 0; i < g->plan->n_hosts; i++)
		if (str_equal(g->plan->hosts[i], name))
			return true;
	return false;
}

static const struct domain_state *find_domain(const struct gateway_state *g, struct str name)
{
	LIST_EACH(node, &g->domains) {
		const struct domain_state *d = CONTAINER(node, struct domain_state, of_gateway);

		if (str_equal(d->name, name))
			return d;
	}
	return NULL;
}

void gateway_settle(struct compiler *c, struct gateway_state *g)
{
	list_remove(&g->dirty);
	if (!g->exists) {
		set_site(&g->site, NULL);
		if (g->gateway)
			part_drop(&g->gateway->part);
		g->gateway = NULL;
		if (g->routes.n_routes == 0 && list_is_empty(&g->domains) && list_is_empty(&g->routes.dirty)) {
			map_remove(&c->gateway_states, g->id);
			free_gateway(g);
		}
		return;
	}
	if (!g->sites_only || !g->gateway) {
		struct gateway *made = gateway_new(c, g);

		if (g->gateway)
			part_drop(&g->gateway->part);
		g->gateway = made;
	}
	g->sites_only = false;
	set_site(&g->site, site_new(c, g, NULL));
	for (unsigned i = 0; i < g->plan->n_hosts; i++)
		if (!find_domain(g, g->plan->hosts[i]))
			gateway_place(c, g, g->plan->hosts[i], g->site);
	LIST_EACH(node, &g->domains)
		mark_dirty(&c->dirty_domains, &CONTAINER(node, struct domain_state, of_gateway)->dirty);
	for (unsigned i = 0; i < g->n_bindings; i++)
		mark_dirty(&c->dirty_bindings, &g->bindings[i]->dirty);
}

void domain_settle(struct compiler *c, struct domain_state *d)
{
	list_remove(&d->dirty);
	if (!d->exists) {
		if (d->routes.n_routes == 0 && list_is_empty(&d->routes.dirty)) {
			map_remove(&c->domain_states, d->id);
			free_domain(d);
		}
		return;
	}
	if (d->policies_stale) {
		struct policies *made =
			policies_compile(c, &(struct bearer){ LEVEL_DOMAIN, d->id, d->name, { NULL, 0 }, false });

		policies_drop(d->policies);
		d->policies = made;
		d->policies_stale = false;
	}
	if (!d->gateway->gateway)
		return;
	set_site(&d->site, site_new(c, d->gateway, d));
	gateway_place(c, d->gateway, d->name, d->site);
}

/* ---------- changes ---------- */

bool gateway_change(struct compiler *c, const struct change *change, struct problem *why)
{
	struct gateway_state *g = gateway_get(c, change->after ? change->after->id : change->before->id);
	struct gateway_plan *plan = NULL;

	gateway_mark(c, g, true);
	if (change->after) {
		plan = gateway_plan_new(c, change->after, why);
		if (!plan)
			return false;
	}
	if (!gateway_move(c, g, plan, why)) {
		gateway_plan_free(plan);
		return false;
	}
	g->exists = plan != NULL;
	gateway_mark(c, g, false);
	gateway_tls_refresh(c, g);
	tls_mark_redirecting(c);
	return true;
}

/* The domain leaves its gateway, if it has one. */
static void leave_gateway(struct compiler *c, struct domain_state *d)
{
	struct gateway_state *g = d->gateway;

	if (!g)
		return;
	domain_tls_set(c, d, NULL);
	list_remove(&d->of_gateway);
	if (g->plan && is_host(g, d->name)) {
		/* The name goes on as one of the gateway's own, whose bytes the claim is to stand on. */
		gateway_unclaim(g, d->name);
		for (unsigned i = 0; i < g->plan->n_hosts; i++)
			if (str_equal(g->plan->hosts[i], d->name))
				for (unsigned at = 0; at < g->n_bindings; at++)
					map_put(&g->bindings[at]->claims, g->plan->hosts[i], g);
		gateway_mark(c, g, true);
	} else {
		gateway_place(c, g, d->name, NULL);
		gateway_unclaim(g, d->name);
	}
	if (!g->exists)
		gateway_mark(c, g, true);
	mem_free((char *)(uintptr_t)d->name.p);
	d->name = (struct str){ NULL, 0 };
	d->gateway = NULL;
	d->exists = false;
}

static struct str copy_lower(struct str s)
{
	char *p = mem_alloc(s.n + 1);

	for (size_t i = 0; i < s.n; i++)
		p[i] = str_lower(s.p[i]);
	return (struct str){ p, s.n };
}

bool domain_change(struct compiler *c, const struct change *change, struct problem *why)
{
	struct domain_state *d = domain_get(c, change->after ? change->after->id : change->before->id);

	mark_dirty(&c->dirty_domains, &d->dirty);
	if (!change->after) {
		leave_gateway(c, d);
		return true;
	}
	struct gateway_state *g = gateway_get(c, json_text(change->after->doc, "gatewayId"));
	struct str name = copy_lower(json_text(change->after->doc, "name"));
	struct domain_tls *tls = domain_tls_new(c, g, change->after, why);

	if (tls && d->gateway == g && str_equal(d->name, name)) {
		mem_free((char *)(uintptr_t)name.p);
		domain_tls_set(c, d, tls);
		return true;
	}
	if (!tls || !gateway_claim(g, name, "name", why)) {
		domain_tls_free(tls);
		mem_free((char *)(uintptr_t)name.p);
		return false;
	}
	leave_gateway(c, d);
	d->name = name;
	d->gateway = g;
	d->exists = true;
	d->policies_stale = true;
	list_append(&g->domains, &d->of_gateway);
	domain_tls_set(c, d, tls);
	return true;
}

void gateways_free(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->domain_states, &i));)
		free_domain(e->value);
	for (size_t i = 0; (e = map_next(&c->gateway_states, &i));)
		free_gateway(e->value);
	map_free(&c->domain_states);
	map_free(&c->gateway_states);
}
