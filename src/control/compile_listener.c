/*
 * compile_listener.c -- where gateways listen, who answers for which host there, and the sockets.
 *
 * A binding is one address and port. Several gateways may share it when their hosts differ; the kernel lets a
 * wildcard address and a specific one of the same port live side by side, and prefers the specific one.
 * Sockets are opened while a change is checked, so that a port in use refuses it, and closed at once when the
 * change is undone before it was published.
 */
#include <unistd.h>
#include "control/compile_state.h"
#include "core/log.h"
#include "core/mem.h"
#include "net/listener.h"

#define PORT_FIELD "externalPort.number"
#define HOSTS_FIELD "externalPort.hosts"
/* Whether TLS clients are offered HTTP/2. */
#define GATEWAY_SPEAKS_H2 true

/* ---------- sockets ---------- */

static void close_sockets(const struct compiler *c, struct binding_state *b)
{
	for (unsigned i = 0; b->fds && i < c->settings.workers; i++)
		if (b->fds[i] >= 0)
			close(b->fds[i]);
	mem_free(b->fds);
	b->fds = NULL;
}

/* Whether one of ours listens at the port on an address that overlaps this one: a probe would meet it. */
static bool overlaps_own(const struct compiler *c, const struct addr *addr)
{
	const struct ip ip = addr_ip(addr);
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->binding_states, &i));) {
		const struct addr *other = &((const struct binding_state *)e->value)->addr;
		const struct ip other_ip = addr_ip(other);

		if (addr_port(other) == addr_port(addr) && ip_is_v4(&other_ip) == ip_is_v4(&ip) &&
		    (addr_is_wildcard(&ip) || addr_is_wildcard(&other_ip)))
			return true;
	}
	return false;
}

static bool open_sockets(const struct compiler *c, struct binding_state *b, struct problem *why)
{
	bool ok = overlaps_own(c, &b->addr) || listener_probe(&b->addr, why);

	b->fds = mem_alloc((c->settings.workers + 1) * sizeof(int));
	for (unsigned i = 0; i < c->settings.workers; i++)
		b->fds[i] = -1;
	for (unsigned i = 0; ok && i < c->settings.workers; i++) {
		b->fds[i] = listener_open(&b->addr, true, why);
		ok = b->fds[i] >= 0;
	}
	if (ok)
		return true;
	close_sockets(c, b);
	problem_prefix(why, PORT_FIELD);
	why->kind = PROBLEM_INTERNAL;
	return false;
}

/* ---------- binding states ---------- */

static struct binding_state *binding_open(struct compiler *c, struct str key, const struct addr *addr,
					  struct problem *why)
{
	struct binding_state probe = { .addr = *addr }, *b;

	if (!open_sockets(c, &probe, why))
		return NULL;
	b = state_new(&c->binding_states, sizeof(*b), offsetof(struct binding_state, key), key);
	b->addr = *addr;
	b->fds = probe.fds;
	b->hosts = pmap_new();
	b->tls_servers = pmap_new();
	list_init(&b->dirty);
	return b;
}

static void binding_free(struct compiler *c, struct binding_state *b)
{
	close_sockets(c, b);
	list_remove(&b->dirty);
	pmap_drop(b->hosts);
	pmap_drop(b->tls_servers);
	if (b->binding)
		part_drop(&b->binding->part);
	map_free(&b->claims);
	mem_free(b->users);
	mem_free(b);
}

static void binding_forget(struct compiler *c, struct binding_state *b)
{
	map_remove(&c->binding_states, b->key);
	binding_free(c, b);
}

/* ---------- plans ---------- */

static void add_address(struct gateway_plan *plan, const struct ip *ip, uint16_t port)
{
	struct addr addr = addr_of_ip(ip, port);
	char text[ADDR_TEXT];

	for (unsigned i = 0; i < plan->n_addrs; i++)
		if (addr_equal(&plan->addrs[i], &addr))
			return;
	addr_print(&addr, text);
	plan->keys[plan->n_addrs] = arena_copy(&plan->arena, str_of(text));
	plan->addrs[plan->n_addrs++] = addr;
}

/* Local addresses are bound; when none is (traffic comes through a load balancer), the wildcard of each family. */
static void plan_addresses(struct gateway_plan *plan, const struct gateway_doc *doc, uint16_t port)
{
	struct ip ip;
	bool v4 = false, v6 = false;

	plan->addrs = NEW_N(&plan->arena, struct addr, doc->externalIPs.n + 2);
	plan->keys = NEW_N(&plan->arena, struct str, doc->externalIPs.n + 2);
	plan->lost = NEW_N(&plan->arena, struct addr, doc->externalIPs.n + 2);
	plan->lost_keys = NEW_N(&plan->arena, struct str, doc->externalIPs.n + 2);
	for (size_t i = 0; i < doc->externalIPs.n; i++) {
		if (!ip_parse(*ITEM(doc->externalIPs, struct str, i), &ip))
			continue;
		if (addr_is_wildcard(&ip) || addr_is_local(&ip))
			add_address(plan, &ip, port);
		*(ip_is_v4(&ip) ? &v4 : &v6) = true;
	}
	if (plan->n_addrs)
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct addr any = addr_any(i == 1, port);
		struct ip any_ip = addr_ip(&any);

		if (i == 1 ? v6 : v4)
			add_address(plan, &any_ip, port);
	}
	plan->reason = STR("no address of externalIPs belongs to this node; listening on all addresses");
}

static void plan_hosts(struct gateway_plan *plan, const struct items *hosts)
{
	struct ip ip;

	plan->hosts = NEW_N(&plan->arena, struct str, hosts->n);
	for (size_t i = 0; i < hosts->n; i++) {
		struct str host = *ITEM(*hosts, struct str, i);

		if (str_equal(host, STR("*")) || ip_parse(host, &ip)) {
			plan->any_host = true;
			continue;
		}
		char *name = arena_take(&plan->arena, host.n + 1);

		for (size_t at = 0; at < host.n; at++)
			name[at] = str_lower(host.p[at]);
		plan->hosts[plan->n_hosts++] = (struct str){ name, host.n };
	}
}

/* TLS that ends here is passed on by the name that its client asked for, as TLS that does not. */
static enum carries carries_of(const struct gateway_doc *doc)
{
	switch ((enum gateway_protocol)doc->externalPort.protocol) {
	case GATEWAY_TCP:
		return CARRIES_BYTES;
	case GATEWAY_TLS:
		return CARRIES_TLS;
	case GATEWAY_HTTP:
	case GATEWAY_HTTPS:
	case GATEWAY_GRPC:
		break;
	}
	return CARRIES_HTTP;
}

/* What a gateway where TLS ends shows. False: it cannot; then *why is filled, or the plan says so. */
static bool plan_tls(struct compiler *c, struct gateway_plan *plan, const struct gateway_doc *doc, struct problem *why)
{
	bool is_useless;

	plan->tls = gateway_tls_new(c, doc, why);
	if (!plan->tls)
		return false;
	plan->last_error = gateway_tls_trouble(plan->tls, &is_useless);
	plan->reason = plan->last_error;
	if (!is_useless)
		return true;
	gateway_tls_free(plan->tls);
	plan->tls = NULL;
	plan->phase = PHASE_FAILED;
	plan->reason = plan->last_error = STR("no certificate of certList can be shown");
	return true;
}

static bool fill_plan(struct compiler *c, struct gateway_plan *plan, const struct gateway_doc *doc, uint16_t port,
		      struct problem *why)
{
	bool ends_tls = doc->externalPort.protocol == GATEWAY_HTTPS ||
			(doc->externalPort.protocol == GATEWAY_TLS && doc->tlsTerminationEnable);

	plan_hosts(plan, &doc->externalPort.hosts);
	plan->phase = PHASE_RUNNING;
	plan->carries = carries_of(doc);
	if (!str_equal(doc->cluster, c->settings.cluster)) {
		plan->phase = PHASE_PENDING;
		plan->reason = arena_printf(&plan->arena, "served by cluster \"%.*s\"; this node is of \"%.*s\"",
					    STR_FMT(doc->cluster), STR_FMT(c->settings.cluster));
	} else if (ends_tls && !plan_tls(c, plan, doc, why)) {
		return false;
	}
	if (plan->phase == PHASE_RUNNING)
		plan_addresses(plan, doc, port);
	return true;
}

struct gateway_plan *gateway_plan_new(struct compiler *c, const struct resource *r, struct problem *why)
{
	struct gateway_plan *plan = MEM_NEW(struct gateway_plan);
	struct arena scratch = { 0 };
	struct gateway_doc doc = { 0 };
	uint64_t port = 0;
	bool ok = resource_decode(r, &scratch, &doc, why);

	if (ok && !str_to_u64(doc.externalPort.number, UINT16_MAX, &port))
		ok = problem(why, PORT_FIELD, "\"%.*s\" is no port", STR_FMT(doc.externalPort.number));
	if (ok) {
		plan->name = arena_copy(&plan->arena, r->name);
		ok = fill_plan(c, plan, &doc, (uint16_t)port, why);
	}
	if (!ok) {
		gateway_plan_free(plan);
		plan = NULL;
	}
	arena_free(&scratch);
	return plan;
}

void gateway_plan_free(struct gateway_plan *p)
{
	if (!p)
		return;
	gateway_tls_free(p->tls);
	arena_free(&p->arena);
	mem_free(p);
}

/* ---------- hosts ---------- */

static bool check_claim(const struct binding_state *b, const struct gateway_state *g, struct str name,
			const char *field, struct problem *why)
{
	const struct gateway_state *owner = map_get(&b->claims, name);

	if (!owner || owner == g)
		return true;
	return problem_of(why, PROBLEM_CONFLICT, field,
			  "host \"%.*s\" on %.*s is served by gateway \"%.*s\" already", STR_FMT(name),
			  STR_FMT(b->key), STR_FMT(owner->plan->name));
}

bool gateway_claim(struct gateway_state *g, struct str name, const char *field, struct problem *why)
{
	for (unsigned i = 0; i < g->n_bindings; i++)
		if (!check_claim(g->bindings[i], g, name, field, why))
			return false;
	for (unsigned i = 0; i < g->n_bindings; i++)
		map_put(&g->bindings[i]->claims, name, g);
	return true;
}

void gateway_unclaim(struct gateway_state *g, struct str name)
{
	for (unsigned i = 0; i < g->n_bindings; i++)
		if (map_get(&g->bindings[i]->claims, name) == g)
			map_remove(&g->bindings[i]->claims, name);
}

void gateway_place(struct compiler *c, struct gateway_state *g, struct str name, struct site *site)
{
	for (unsigned i = 0; i < g->n_bindings; i++) {
		struct binding_state *b = g->bindings[i];

		b->hosts = pmap_set(b->hosts, name, site ? &site->part : NULL);
		mark_dirty(&c->dirty_bindings, &b->dirty);
	}
}

/* All names the gateway answers for under `plan`; stops and returns false when each does. */
static bool each_name(const struct gateway_state *g, const struct gateway_plan *plan,
		      bool (*each)(void *arg, struct str name), void *arg)
{
	for (unsigned i = 0; i < plan->n_hosts; i++)
		if (!each(arg, plan->hosts[i]))
			return false;
	LIST_EACH(node, &g->domains)
		if (!each(arg, CONTAINER(node, struct domain_state, of_gateway)->name))
			return false;
	return !plan->any_host || each(arg, STR("*"));
}

struct claiming {
	struct gateway_state *gateway;
	struct binding_state *binding;
	struct problem *why;
};

static bool check_name(void *arg, struct str name)
{
	const struct claiming *claiming = arg;

	return check_claim(claiming->binding, claiming->gateway, name, HOSTS_FIELD, claiming->why);
}

static bool claim_name(void *arg, struct str name)
{
	const struct claiming *claiming = arg;

	map_put(&claiming->binding->claims, name, claiming->gateway);
	return true;
}

static bool release_name(void *arg, struct str name)
{
	const struct claiming *claiming = arg;
	struct binding_state *b = claiming->binding;

	if (map_get(&b->claims, name) == claiming->gateway) {
		map_remove(&b->claims, name);
		b->hosts = pmap_set(b->hosts, name, NULL);
	}
	return true;
}

/* ---------- moving a gateway ---------- */

static void join_binding(struct compiler *c, struct gateway_state *g, struct binding_state *b)
{
	b->users = mem_resize(b->users, (b->n_users + 1) * sizeof(struct gateway_state *));
	b->users[b->n_users++] = g;
	g->bindings[g->n_bindings++] = b;
	each_name(g, g->plan, claim_name, &(struct claiming){ g, b, NULL });
	b->is_tls = g->plan->tls != NULL;
	tls_place_gateway(c, g, b);
	mark_dirty(&c->dirty_bindings, &b->dirty);
}

static void leave_binding(struct compiler *c, struct gateway_state *g, struct binding_state *b)
{
	unsigned n = 0;

	each_name(g, g->plan, release_name, &(struct claiming){ g, b, NULL });
	for (unsigned i = 0; i < b->n_users; i++)
		if (b->users[i] != g)
			b->users[n++] = b->users[i];
	b->n_users = n;
	tls_place_gateway(c, g, b);
	mark_dirty(&c->dirty_bindings, &b->dirty);
}

/* What a refused address means: at start the gateway goes without it, else the change is refused. */
static bool tolerate(const struct compiler *c, struct gateway_plan *plan, const struct problem *why)
{
	if (!c->settings.lenient)
		return false;
	plan->phase = PHASE_FAILED;
	plan->reason = why->kind == PROBLEM_INTERNAL
			       ? arena_printf(&plan->arena, "%s; it is tried again by itself", why->text)
			       : arena_copy(&plan->arena, str_of(why->text));
	plan->last_error = plan->reason;
	log_error("gateway.not_served", F_STR("gateway", plan->name), F_STR("reason", plan->reason));
	return true;
}

/* What connections carry must be known from their first byte, and those without names belong to one gateway. */
static bool check_carries(const struct binding_state *b, const struct gateway_state *g,
			  const struct gateway_plan *plan, struct problem *why)
{
	for (unsigned i = 0; i < b->n_users; i++) {
		const struct gateway_state *other = b->users[i];

		if (other == g || (other->plan->carries == plan->carries && !other->plan->tls == !plan->tls &&
				   plan->carries != CARRIES_BYTES))
			continue;
		return problem_of(why, PROBLEM_CONFLICT, PORT_FIELD,
				  "%.*s belongs to gateway \"%.*s\", and the two cannot be told apart there",
				  STR_FMT(b->key), STR_FMT(other->plan->name));
	}
	return true;
}

bool binding_prepare(struct compiler *c, struct str key, const struct addr *addr, struct problem *why)
{
	return map_get(&c->binding_states, key) || binding_open(c, key, addr, why);
}

/* What could not be bound is tried again (compile_retry.c); other conflicts end when what they are about changes. */
static void note_lost(struct gateway_plan *plan, unsigned i, const struct problem *why)
{
	if (why->kind != PROBLEM_INTERNAL)
		return;
	plan->lost[plan->n_lost] = plan->addrs[i];
	plan->lost_keys[plan->n_lost++] = plan->keys[i];
}

/* Opens what is not open; leaves the addresses that can be served in *plan. */
static bool open_plan(struct compiler *c, struct gateway_state *g, struct gateway_plan *plan, struct problem *why)
{
	unsigned n = 0;

	for (unsigned i = 0; i < plan->n_addrs; i++) {
		struct binding_state *b = map_get(&c->binding_states, plan->keys[i]);
		bool ok = b ? check_carries(b, g, plan, why) &&
				      each_name(g, plan, check_name, &(struct claiming){ g, b, why })
		            : binding_open(c, plan->keys[i], &plan->addrs[i], why) != NULL;

		if (!ok && !tolerate(c, plan, why))
			return false;
		if (!ok) {
			note_lost(plan, i, why);
			continue;
		}
		plan->addrs[n] = plan->addrs[i];
		plan->keys[n++] = plan->keys[i];
	}
	plan->n_addrs = n;
	return true;
}

/* Closes those of the addresses that nobody uses and no worker knows of. */
void bindings_sweep(struct compiler *c, const struct str *keys, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct binding_state *b = map_get(&c->binding_states, keys[i]);

		if (b && b->n_users == 0 && !b->is_published)
			binding_forget(c, b);
	}
}

bool gateway_move(struct compiler *c, struct gateway_state *g, struct gateway_plan *plan, struct problem *why)
{
	struct gateway_plan *before = g->plan;
	unsigned planned = plan ? plan->n_addrs : 0;

	if (plan && !open_plan(c, g, plan, why)) {
		bindings_sweep(c, plan->keys, planned);
		return false;
	}
	for (unsigned i = 0; i < g->n_bindings; i++)
		leave_binding(c, g, g->bindings[i]);
	g->n_bindings = 0;
	g->plan = plan;
	g->bindings = mem_resize(g->bindings, (plan ? plan->n_addrs + 1 : 1) * sizeof(struct binding_state *));
	for (unsigned i = 0; plan && i < plan->n_addrs; i++)
		join_binding(c, g, map_get(&c->binding_states, plan->keys[i]));
	if (before)
		bindings_sweep(c, before->keys, before->n_addrs);
	gateway_plan_free(before);
	return true;
}

/* ---------- into the snapshot ---------- */

static void destroy_binding(struct part *p)
{
	struct binding *b = CONTAINER(p, struct binding, part);

	pmap_drop(b->hosts);
	pmap_drop((struct pmap *)(uintptr_t)b->tls.servers);
	if (b->tls.fallback)
		part_drop((struct part *)(uintptr_t)&b->tls.fallback->part);
	if (b->any)
		part_drop(&b->any->part);
	if (b->only)
		part_drop(&b->only->part);
	arena_free(&b->arena);
	mem_free(b);
}

/* One of its gateways is enough: who sends the header stands before the Host that tells them apart. */
static bool has_proxy_header(const struct binding_state *state)
{
	for (unsigned i = 0; i < state->n_users; i++)
		if (state->users[i]->gateway && state->users[i]->gateway->has_proxy_header)
			return true;
	return false;
}

static void fill_tls(struct binding *b, const struct binding_state *state)
{
	b->is_tls = state->is_tls;
	b->tls = (struct tls_names){
		.servers = pmap_hold(state->tls_servers), .fallback = tls_fallback(state),
		.speaks_http = b->carries == CARRIES_HTTP, .is_h2 = GATEWAY_SPEAKS_H2,
	};
	if (b->tls.fallback)
		part_hold((struct part *)(uintptr_t)&b->tls.fallback->part);
}

static struct binding *binding_new(const struct binding_state *state)
{
	struct binding *b = MEM_NEW(struct binding);

	b->part = (struct part){ 1, destroy_binding };
	b->arena.is_small = true;
	b->addr = state->addr;
	b->key = arena_copy(&b->arena, state->key);
	b->hosts = pmap_hold(state->hosts);
	for (unsigned i = 0; i < state->n_users; i++)
		if (state->users[i]->plan->any_host || state->users[i]->plan->carries == CARRIES_BYTES)
			b->any = state->users[i]->site;
	if (b->any)
		part_hold(&b->any->part);
	b->carries = state->n_users ? state->users[0]->plan->carries : CARRIES_HTTP;
	fill_tls(b, state);
	b->has_proxy_header = has_proxy_header(state);
	b->only = state->n_users == 1 ? state->users[0]->gateway : NULL;
	if (b->only)
		part_hold(&b->only->part);
	return b;
}

void binding_settle(struct compiler *c, struct binding_state *b)
{
	list_remove(&b->dirty);
	if (b->binding)
		part_drop(&b->binding->part);
	b->binding = b->n_users ? binding_new(b) : NULL;
	c->bindings = pmap_set(c->bindings, b->key, b->binding ? &b->binding->part : NULL);
}

static void publish_binding(struct compiler *c, struct binding_state *b, struct snapshot *s)
{
	struct new_listener *l;

	if (b->n_users && b->fds) {
		l = &s->listeners[s->n_listeners++];
		l->addr = b->addr;
		l->key = arena_copy(&s->arena, b->key);
		l->fds = NEW_N(&s->arena, int, c->settings.workers + 1);
		memcpy(l->fds, b->fds, c->settings.workers * sizeof(int));
		mem_free(b->fds);
		b->fds = NULL;
		b->is_published = true;
	} else if (b->n_users == 0) {
		s->closed[s->n_closed++] = arena_copy(&s->arena, b->key);
	}
}

void bindings_publish(struct compiler *c, struct snapshot *s)
{
	struct map_entry *e;

	s->listeners = NEW_N(&s->arena, struct new_listener, c->binding_states.n);
	s->closed = NEW_N(&s->arena, struct str, c->binding_states.n);
	for (size_t i = 0; (e = map_next(&c->binding_states, &i));)
		publish_binding(c, e->value, s);
	for (unsigned i = 0; i < s->n_closed; i++)
		binding_forget(c, map_get(&c->binding_states, s->closed[i]));
}

void bindings_free(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->binding_states, &i));)
		binding_free(c, e->value);
	map_free(&c->binding_states);
}
