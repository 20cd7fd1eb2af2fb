/*
 * compile_tls.c -- certificates to what listeners show: by name of the client's hello.
 *
 *      certList ──► gateway_tls: names → tls_server, the first is the default      with the gateway's plan
 *      domain   ──► domain_tls: its own certificate, versions, client CAs          goes before certList
 *                       └─► binding_state.tls_servers: name → tls_server           one entry changed at a time
 *
 * One tls_server serves all who ask for the same certificate, versions and client CAs: a thousand domains with one
 * certificate cost one context. A certificate that changes makes new ones; connections keep those they began with.
 */
#include "control/compile_state.h"
#include "core/cidr.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/metric.h"

/* ---------- shared servers ---------- */

struct tls_shared {
	struct tls_server server;         /* first: its part is this one's */
	struct map *table;
	struct str key;                   /* behind the struct */
};

static void destroy_shared(struct part *p)
{
	struct tls_shared *s = CONTAINER(p, struct tls_shared, server.part);

	map_remove(s->table, s->key);
	tls_server_clear(&s->server);
	mem_free(s);
}

/* The server for this material; held for the caller. NULL fills *why. */
static struct tls_shared *share(struct compiler *c, const struct tls_material *m, struct problem *why)
{
	char key[2 * TLS_DIGEST + 2];
	struct tls_shared *s;

	crypto_sha256(m->certificate, (uint8_t *)key);
	tls_digest_ca(m->client_ca, (uint8_t *)key + TLS_DIGEST);
	key[2 * TLS_DIGEST] = (char)m->min;
	key[2 * TLS_DIGEST + 1] = (char)m->max;
	s = map_get(&c->tls_servers, (struct str){ key, sizeof key });
	if (s) {
		part_hold(&s->server.part);
		return s;
	}
	s = mem_alloc(sizeof *s + sizeof key);
	if (!tls_server_init(&s->server, m, why)) {
		mem_free(s);
		return NULL;
	}
	s->server.part.destroy = destroy_shared;
	s->table = &c->tls_servers;
	memcpy(s + 1, key, sizeof key);
	s->key = (struct str){ (char *)(s + 1), sizeof key };
	map_put(s->table, s->key, s);
	return s;
}

static void drop_shared(struct tls_shared *s)
{
	if (s)
		part_drop(&s->server.part);
}

/* ---------- certList of a gateway ---------- */

struct listed {                           /* an item of certList */
	struct tls_shared *server;        /* held; NULL: cannot be shown */
	struct resource *certificate;     /* held; NULL: there is none */
	struct str secret;
};

struct gateway_tls {
	struct arena arena;
	struct map names;                 /* → struct listed */
	struct listed *list;
	unsigned n;
	struct listed *fallback;          /* the first that can be shown, or the one for "*"; NULL */
	enum tls_version min, max;
	char trouble[200];
};

void gateway_tls_free(struct gateway_tls *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < t->n; i++) {
		drop_shared(t->list[i].server);
		if (t->list[i].certificate)
			resource_drop(t->list[i].certificate);
	}
	map_free(&t->names);
	arena_free(&t->arena);
	mem_free(t);
}

struct naming {
	struct gateway_tls *tls;
	struct listed *item;
};

/* The first certificate for a name is shown. */
static void enter_name(void *arg, struct str name)
{
	struct naming *n = arg;

	if (!map_get(&n->tls->names, name))
		map_put(&n->tls->names, arena_copy(&n->tls->arena, name), n->item);
}

static void enter_host(struct naming *n, struct str host)
{
	struct ip ip;

	if (str_equal(host, STR("*"))) {
		n->tls->fallback = n->item;
		return;
	}
	if (ip_parse(host, &ip))
		return;                   /* clients name no addresses */
	char *lower = arena_take(&n->tls->arena, host.n + 1);

	for (size_t i = 0; i < host.n; i++)
		lower[i] = str_lower(host.p[i]);
	enter_name(n, (struct str){ lower, host.n });
}

static void note_trouble(struct gateway_tls *t, struct str secret, const char *what)
{
	if (!t->trouble[0])
		snprintf(t->trouble, sizeof t->trouble, "certificate \"%.*s\" %s", STR_FMT(secret), what);
}

static struct tls_material material_of(const struct resource *certificate, enum tls_version min, enum tls_version max)
{
	return (struct tls_material){
		.certificate = json_text(certificate->doc, "certificate"),
		.key = json_text(certificate->doc, "privateKey"), .min = min, .max = max,
	};
}

/* Shows the certificate of the item's secret; nothing where there is none. False fills *why. */
static bool fill_item(struct compiler *c, struct gateway_tls *t, struct listed *item, const struct cert_server *in,
		      struct problem *why)
{
	struct naming naming = { t, item };
	struct tls_material m;

	if (!item->certificate) {
		note_trouble(t, item->secret, "does not exist");
		return true;
	}
	m = material_of(item->certificate, in->minProtocolVersion ? (enum tls_version)in->minProtocolVersion : t->min,
			in->maxProtocolVersion ? (enum tls_version)in->maxProtocolVersion : t->max);
	item->server = share(c, &m, why);
	if (!item->server)
		return false;
	if (tls_certificate_end_ms(m.certificate) <= clock_wall_ms())
		note_trouble(t, item->secret, "has expired");
	for (size_t i = 0; i < in->hosts.n; i++)
		enter_host(&naming, *ITEM(in->hosts, struct str, i));
	if (in->hosts.n == 0)
		tls_certificate_names(m.certificate, enter_name, &naming);
	return true;
}

struct gateway_tls *gateway_tls_new(struct compiler *c, const struct gateway_doc *doc, struct problem *why)
{
	struct gateway_tls *t = MEM_NEW(struct gateway_tls);
	char at[40];

	t->min = (enum tls_version)doc->minProtocolVersion;
	t->max = (enum tls_version)doc->maxProtocolVersion;
	t->list = NEW_N(&t->arena, struct listed, doc->certList.n + 1);
	for (size_t i = 0; i < doc->certList.n; i++) {
		const struct cert_server *in = ITEM(doc->certList, struct cert_server, i);
		struct listed *item = &t->list[t->n++];

		item->secret = arena_copy(&t->arena, in->secretName);
		item->certificate = certificate_find(c->model, doc->namespace, in->secretName);
		if (item->certificate)
			resource_hold(item->certificate);
		if (fill_item(c, t, item, in, why))
			continue;
		snprintf(at, sizeof at, "certList[%zu].secretName", i);
		problem_prefix(why, at);
		if (!c->settings.lenient) {
			gateway_tls_free(t);
			return NULL;
		}
		note_trouble(t, item->secret, "cannot be used");
	}
	for (unsigned i = 0; i < t->n && !t->fallback; i++)
		if (t->list[i].server)
			t->fallback = &t->list[i];
	return t;
}

/* What is wrong with it; absent when nothing is. *is_useless: there is nothing to show. */
struct str gateway_tls_trouble(const struct gateway_tls *t, bool *is_useless)
{
	*is_useless = !t->fallback;
	return t->trouble[0] ? str_of(t->trouble) : (struct str){ NULL, 0 };
}

/* ---------- domains ---------- */

struct domain_tls {
	struct arena arena;
	struct str certificate_id;        /* absent: the domain is not for TLS */
	struct str client_ca;
	enum tls_version min, max;
	bool force_https;
	struct tls_shared *server;        /* held; NULL: its gateway ends no TLS */
};

void domain_tls_free(struct domain_tls *t)
{
	if (!t)
		return;
	drop_shared(t->server);
	arena_free(&t->arena);
	mem_free(t);
}

/* Makes t->server anew, for a gateway (with or without TLS). False fills *why; then it is as it was. */
static bool make_server(struct compiler *c, struct domain_tls *t, const struct gateway_state *g, struct problem *why)
{
	const struct gateway_tls *of = g->plan ? g->plan->tls : NULL;
	const struct resource *certificate = model_get(c->model, RESOURCE_CERTIFICATE, t->certificate_id);
	struct tls_shared *server = NULL;

	if (of && certificate) {
		enum tls_version min = t->min ? t->min : of->min, max = t->max ? t->max : of->max;

		/* Where only one of them is the domain's, its word counts. */
		if (min > max && t->min)
			max = min;
		else if (min > max)
			min = max;
		struct tls_material m = material_of(certificate, min, max);
		m.client_ca = t->client_ca;
		server = share(c, &m, why);
		if (!server) {
			problem_prefix(why, "certIdentifier");
			return false;
		}
	}
	drop_shared(t->server);
	t->server = server;
	return true;
}

static void read_domain(struct domain_tls *t, const struct domain_doc *doc)
{
	if (doc->protocol != DOMAIN_HTTPS)
		return;
	t->certificate_id = arena_copy(&t->arena, doc->certIdentifier);
	if (doc->mTLSEnabled)
		t->client_ca = arena_copy(&t->arena, doc->clientCACert);
	t->min = (enum tls_version)doc->tlsMin;
	t->max = (enum tls_version)doc->tlsMax;
	t->force_https = doc->forceHttps;
}

struct domain_tls *domain_tls_new(struct compiler *c, const struct gateway_state *g, const struct resource *r,
				  struct problem *why)
{
	struct domain_tls *t = MEM_NEW(struct domain_tls);
	struct arena scratch = { 0 };
	struct domain_doc doc = { 0 };
	bool ok = resource_decode(r, &scratch, &doc, why);

	if (ok) {
		read_domain(t, &doc);
		ok = make_server(c, t, g, why) || c->settings.lenient;
	}
	arena_free(&scratch);
	if (ok)
		return t;
	domain_tls_free(t);
	return NULL;
}

/* ---------- into the bindings ---------- */

static const struct tls_server *serve(const struct gateway_state *g, struct str name)
{
	const struct domain_state *d = map_get(&g->tls_domains, name);
	const struct listed *listed;

	if (d && d->tls->server)
		return &d->tls->server->server;
	listed = g->plan && g->plan->tls ? map_get(&g->plan->tls->names, name) : NULL;
	return listed && listed->server ? &listed->server->server : NULL;
}

/* Puts what is shown for a name now: what its owner shows, else the first gateway that has something for it. */
static void place(struct compiler *c, struct binding_state *b, struct str name)
{
	const struct gateway_state *owner = map_get(&b->claims, name);
	const struct tls_server *server = owner ? serve(owner, name) : NULL;

	for (unsigned i = 0; i < b->n_users && !server; i++)
		server = serve(b->users[i], name);
	b->tls_servers =
		pmap_set(b->tls_servers, name, server ? (struct part *)(uintptr_t)&server->part : NULL);
	mark_dirty(&c->dirty_bindings, &b->dirty);
}

void tls_place_gateway(struct compiler *c, struct gateway_state *g, struct binding_state *b)
{
	struct map_entry *e;

	if (!g->plan || !g->plan->tls)
		return;
	for (size_t i = 0; (e = map_next(&g->plan->tls->names, &i));)
		place(c, b, e->key);
	for (size_t i = 0; (e = map_next(&g->tls_domains, &i));)
		place(c, b, e->key);
}

static void place_everywhere(struct compiler *c, struct gateway_state *g, struct str name)
{
	for (unsigned i = 0; i < g->n_bindings; i++)
		if (g->bindings[i]->is_tls)
			place(c, g->bindings[i], name);
}

/* The default is that of the gateway for every host, else of the first with a certificate. */
const struct tls_server *tls_fallback(const struct binding_state *b)
{
	const struct listed *found = NULL;

	for (unsigned i = 0; i < b->n_users; i++) {
		const struct gateway_plan *plan = b->users[i]->plan;

		if (plan->tls && plan->tls->fallback && (!found || plan->any_host))
			found = plan->tls->fallback;
	}
	return found ? &found->server->server : NULL;
}

/* ---------- changes ---------- */

void domain_tls_set(struct compiler *c, struct domain_state *d, struct domain_tls *t)
{
	struct gateway_state *g = d->gateway;
	struct domain_tls *old = d->tls;

	d->tls = t;
	if (g && old && old->certificate_id.n) {
		map_remove(&g->tls_domains, d->name);
		place_everywhere(c, g, d->name);
	}
	if (g && t && t->certificate_id.n) {
		map_put(&g->tls_domains, d->name, d);
		place_everywhere(c, g, d->name);
	}
	domain_tls_free(old);
}

/* The gateway's certificates or versions changed: so did those of its domains. */
void gateway_tls_refresh(struct compiler *c, struct gateway_state *g)
{
	struct problem why;
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&g->tls_domains, &i));) {
		struct domain_state *d = e->value;

		if (!make_server(c, d->tls, g, &why))
			log_error("domain.certificate_not_served", F_STR("domain", d->name),
				  F_TEXT("reason", why.text));
		place_everywhere(c, g, d->name);
	}
}

static bool names_certificate(const struct gateway_state *g, struct str name)
{
	const struct gateway_tls *t = g->plan ? g->plan->tls : NULL;

	for (unsigned i = 0; t && i < t->n; i++)
		if (str_equal(t->list[i].secret, name))
			return true;
	return false;
}

struct renewal {
	struct compiler *compiler;
	struct problem *why;
	bool ok;
};

static bool renew_domain(void *arg, struct resource *r)
{
	struct renewal *n = arg;

	if (r->kind != RESOURCE_DOMAIN)
		return true;
	struct domain_state *d = domain_get(n->compiler, r->id);

	if (!d->exists || !d->tls)
		return true;
	n->ok = make_server(n->compiler, d->tls, d->gateway, n->why);
	if (n->ok)
		place_everywhere(n->compiler, d->gateway, d->name);
	return n->ok;
}

static bool renew_gateways(struct compiler *c, struct str name, struct problem *why)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->gateway_states, &i));) {
		struct gateway_state *g = e->value;
		struct resource *r = g->exists && names_certificate(g, name) ?
			model_get(c->model, RESOURCE_GATEWAY, g->id) : NULL;

		if (r && !gateway_change(c, &(struct change){ .before = r, .after = r }, why))
			return false;
	}
	return true;
}

struct certificate_state {
	struct str id;                    /* behind the struct */
	struct series *end;
};

static void show_end(struct compiler *c, const struct change *change)
{
	const struct resource *r = change->after ? change->after : change->before;
	struct certificate_state *s = map_get(&c->certificate_states, r->id);
	struct str labels[] = { r->name, json_text(r->doc, "namespace") };

	if (!s && change->after) {
		s = state_new(&c->certificate_states, sizeof *s, offsetof(struct certificate_state, id), r->id);
		s->end = metric_series(METRIC_CERTIFICATE_END, labels);
	}
	if (change->after) {
		metric_set(s->end, tls_certificate_end_ms(json_text(r->doc, "certificate")) / 1000);
	} else if (s) {
		metric_series_drop(s->end);
		map_remove(&c->certificate_states, s->id);
		mem_free(s);
	}
}

bool certificate_change(struct compiler *c, const struct change *change, struct problem *why)
{
	const struct resource *r = change->after ? change->after : change->before;
	struct renewal renewal = { c, why, true };
	struct tls_shared *probe = NULL;

	/* What can be refused is refused here, before anything is touched. At start nothing is; a try takes 1 ms. */
	if (change->after && !c->settings.lenient && json_text(r->doc, "privateKey").n) {
		struct tls_material m = material_of(r, TLS_1_2, TLS_1_3);

		probe = share(c, &m, why);
		if (!probe)
			return false;
	}
	bool ok = renew_gateways(c, r->name, why);

	if (ok)
		model_referrers(c->model, RESOURCE_CERTIFICATE, r->id, renew_domain, &renewal);
	drop_shared(probe);
	if (ok && renewal.ok)
		show_end(c, change);
	return ok && renewal.ok;
}

/* ---------- what sites say ---------- */

static uint16_t port_of(const struct gateway_state *g)
{
	return g->plan->n_addrs ? addr_port(&g->plan->addrs[0]) : 0;
}

/* Where a host is served over TLS: by its own name, else by a gateway for every host; 443 when nowhere. */
static uint16_t find_https_port(const struct compiler *c, struct str name)
{
	struct map_entry *e;
	uint16_t other = 0;

	for (size_t i = 0; (e = map_next(&c->gateway_states, &i));) {
		const struct gateway_state *g = e->value;

		if (!g->exists || !g->plan->tls || !g->n_bindings)
			continue;
		if (map_get(&g->bindings[0]->claims, name) == g)
			return port_of(g);
		if (g->plan->any_host && (!other || port_of(g) < other))
			other = port_of(g);
	}
	return other ? other : 443;
}

void tls_guard_site(const struct compiler *c, struct site *s, const struct domain_state *d)
{
	const struct domain_tls *t = d->tls;

	if (!t)
		return;
	s->force_https = t->force_https;
	if (s->force_https)
		s->https_port = find_https_port(c, d->name);
	s->asks_client = t->client_ca.n > 0;
	tls_digest_ca(t->client_ca, s->client_ca);
	s->tls_min = t->min;
	s->is_guarded = s->force_https || s->asks_client || s->tls_min;
}

/* A gateway with TLS came, moved or went: redirections to it may change. */
void tls_mark_redirecting(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->domain_states, &i));) {
		struct domain_state *d = e->value;

		if (d->exists && d->tls && d->tls->force_https)
			mark_dirty(&c->dirty_domains, &d->dirty);
	}
}

void certificates_free(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->certificate_states, &i));) {
		struct certificate_state *s = e->value;

		metric_series_drop(s->end);
		mem_free(s);
	}
	map_free(&c->certificate_states);
	map_free(&c->tls_servers);
}
