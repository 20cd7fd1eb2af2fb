/*
 * compile_upstream.c -- how endpoints are spoken to: wishes of policies and certificates become identities.
 *
 *      policy of the port ─► else of the service ─► else the port's protocol ──► tls_wish
 *                                                certificates, workloadIdentity ────┴──► tls_client ──► endpoint.tls
 *
 * One tls_client serves all who ask for the same: certificates, CAs, names, SNI. So it is another one exactly when one
 * of these changed, and then the endpoint's idle connections are closed. A wish that cannot be met (its certificate
 * broke since) becomes an identity that makes no connection: nothing is sent in the clear, or unverified, instead.
 */
#include "control/compile_state.h"
#include "control/feature.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/mem.h"
#include "net/tls_client.h"

#define IDENTITY_SETTING "workloadIdentity"

/* ---------- shared identities ---------- */

struct identity {
	struct tls_client client;         /* first: its part is this one's */
	struct map *table;
	struct str key, sni;              /* behind the struct */
};

static void destroy_identity(struct part *p)
{
	struct identity *i = CONTAINER(p, struct identity, client.part);

	map_remove(i->table, i->key);
	tls_client_clear(&i->client);
	mem_free(i);
}

static void add_text(struct sbuf *out, struct str s)
{
	sbuf_addf(out, "%zu:", s.n);
	sbuf_add(out, s);
}

static void digest(const struct tls_client_material *m, struct str sni, const char *trouble, uint8_t out[TLS_DIGEST])
{
	struct sbuf all = { 0 };
	size_t room = m->ca.n + m->certificate.n + m->key.n + sni.n + 1024;

	/* At once, so that growing leaves no copies of a private key behind. */
	for (size_t i = 0; i < m->n_names; i++)
		room += m->names[i].n + 24;
	sbuf_reserve(&all, room);
	add_text(&all, m->ca);
	add_text(&all, m->certificate);
	add_text(&all, m->key);
	add_text(&all, sni);
	add_text(&all, str_of(trouble));
	sbuf_addf(&all, "%d:%zu:", m->is_spiffe, m->n_names);
	for (size_t i = 0; i < m->n_names; i++)
		add_text(&all, m->names[i]);
	crypto_sha256(sbuf_str(&all), out);
	explicit_bzero(all.p, all.n);
	sbuf_free(&all);
}

/* trouble "": there is none. */
static void fill(struct tls_client *client, const struct tls_client_material *m, const char *trouble)
{
	struct problem why;

	if (trouble[0]) {
		tls_client_init_broken(client, trouble);
	} else if (!tls_client_init(client, m, &why)) {
		tls_client_init_broken(client, why.text);
	} else if (!m->ca.n && !tls_system_ca(&why)) {
		log_warn("upstream.no_system_ca", F_TEXT("reason", why.text));
	}
}

/* The identity for this; held for the caller. */
static struct identity *share(struct compiler *c, const struct tls_client_material *m, struct str sni,
			      const char *trouble)
{
	uint8_t key[TLS_DIGEST];
	struct identity *i;

	digest(m, sni, trouble, key);
	i = map_get(&c->tls_clients, (struct str){ (char *)key, sizeof key });
	if (i) {
		part_hold(&i->client.part);
		return i;
	}
	i = mem_alloc(sizeof *i + sizeof key + sni.n);
	fill(&i->client, m, trouble);
	i->client.part.destroy = destroy_identity;
	i->table = &c->tls_clients;
	char *behind = (char *)(i + 1);

	memcpy(behind, key, sizeof key);
	i->key = (struct str){ behind, sizeof key };
	if (sni.n) {
		memcpy(behind + sizeof key, sni.p, sni.n);
		i->client.sni = (struct str){ behind + sizeof key, sni.n };
	}
	map_put(i->table, i->key, i);
	return i;
}

/* ---------- wishes to material ---------- */

static struct str ca_of(const struct resource *r)
{
	struct str ca = json_text(r->doc, "caCertificate");

	return ca.n ? ca : json_text(r->doc, "certificate");
}

static const struct resource *find_certificate(const struct compiler *c, struct str id, char trouble[160])
{
	const struct resource *r = model_get(c->model, RESOURCE_CERTIFICATE, id);

	if (!r)
		snprintf(trouble, 160, "there is no certificate \"%.*s\"", STR_FMT(id));
	return r;
}

/* What is shown. */
static void take_own(const struct resource *r, struct tls_client_material *m, char trouble[160])
{
	if (!r)
		return;
	m->certificate = json_text(r->doc, "certificate");
	m->key = json_text(r->doc, "privateKey");
	if (!m->certificate.n || !m->key.n)
		snprintf(trouble, 160, "certificate \"%.*s\" has no private key", STR_FMT(r->id));
}

static void take_workload(const struct compiler *c, struct str gateway_id, struct tls_client_material *m,
			  char trouble[160])
{
	struct str id = feature_value(c->model, gateway_id, IDENTITY_SETTING)->string;
	const struct resource *r;

	if (!id.n) {
		snprintf(trouble, 160, "the gateway has no workload identity");
		return;
	}
	r = find_certificate(c, id, trouble);
	take_own(r, m, trouble);
	if (!r)
		return;
	m->ca = json_text(r->doc, "caCertificate");
	m->is_spiffe = true;
	if (!m->ca.n)
		snprintf(trouble, 160, "certificate \"%.*s\" has no caCertificate", STR_FMT(r->id));
}

static struct identity *meet(struct compiler *c, struct str gateway_id, const struct tls_wish *wish)
{
	struct tls_client_material m = { .ca = wish->ca_pem, .names = wish->names, .n_names = wish->n_names };
	const struct resource *ca;
	char trouble[160] = "";

	if (wish->mode == TLS_WISH_WORKLOAD) {
		take_workload(c, gateway_id, &m, trouble);
	} else {
		ca = !m.ca.n && wish->ca_id.n ? find_certificate(c, wish->ca_id, trouble) : NULL;
		if (ca)
			m.ca = ca_of(ca);
		if (ca && !m.ca.n)
			snprintf(trouble, sizeof trouble, "\"%.*s\" holds no certificate", STR_FMT(wish->ca_id));
		if (wish->mode == TLS_WISH_MUTUAL)
			take_own(find_certificate(c, wish->certificate_id, trouble), &m, trouble);
	}
	return share(c, &m, wish->sni, trouble);
}

/* ---------- endpoints ---------- */

struct port_wish {
	int64_t port;
	struct policies *policies;        /* held */
};

struct port_wishes {
	struct compiler *compiler;
	struct port_wish *list;
	unsigned n, cap;
};

static bool add_port(void *arg, struct resource *r)
{
	struct port_wishes *all = arg;
	struct policies *p;

	if (r->kind != RESOURCE_SERVICE_PORT || !attached_find(all->compiler, r->id))
		return true;
	p = policies_compile(all->compiler, &(struct bearer){ LEVEL_SERVICE, r->id, r->name, { NULL, 0 }, false });
	if (all->n == all->cap) {
		all->cap = all->cap ? 2 * all->cap : 8;
		all->list = mem_resize(all->list, all->cap * sizeof *all->list);
	}
	all->list[all->n++] = (struct port_wish){ json_get(r->doc, "port")->integer, p };
	return true;
}

/* *by: the policies that say so; NULL: the protocol of the port does. */
static const struct tls_wish *wish_for(const struct service *s, const struct endpoint *e,
				       const struct port_wishes *ports, struct policies **by)
{
	static const struct tls_wish by_protocol[] = { { .mode = TLS_WISH_PLAIN }, { .mode = TLS_WISH_SERVER } };
	const struct tls_wish *wish = s->policies->settings.tls;

	*by = s->policies;
	for (unsigned i = 0; i < ports->n; i++)
		if (ports->list[i].port == e->port && ports->list[i].policies->settings.tls) {
			wish = ports->list[i].policies->settings.tls;
			*by = ports->list[i].policies;
		}
	if (!wish || wish->mode == TLS_WISH_PROTOCOL) {
		wish = &by_protocol[e->protocol == UPSTREAM_HTTPS];
		*by = NULL;
	}
	return wish;
}

/* Gives the service endpoints of its own, for others of its base may speak otherwise. */
static struct endpoint *own_endpoints(struct service *s, const struct service_base *base)
{
	struct endpoint *copy;

	if (s->endpoints != base->content.endpoints)
		return s->endpoints;
	copy = NEW_N(&s->arena, struct endpoint, s->n_endpoints);
	memcpy(copy, s->endpoints, s->n_endpoints * sizeof *copy);
	/* One for the TLS of each, one for the policies that say so. */
	s->held = mem_resize(s->held, (s->n_held + 2 * s->n_endpoints) * sizeof(struct part *));
	s->endpoints = copy;
	return copy;
}

void upstream_secure_service(struct compiler *c, struct service *s, const struct service_base *base)
{
	struct port_wishes ports = { .compiler = c };
	const struct tls_wish *last = NULL;
	struct identity *identity = NULL;

	if (c->n_port_attachments)
		model_referrers(c->model, RESOURCE_SERVICE, s->id, add_port, &ports);
	for (unsigned i = 0; i < s->n_endpoints; i++) {
		struct policies *by;
		const struct tls_wish *wish = wish_for(s, &s->endpoints[i], &ports, &by);

		if (wish->mode == TLS_WISH_PLAIN)
			continue;
		if (wish == last)
			part_hold(&identity->client.part);
		else
			identity = meet(c, base->gateway_id, wish);
		last = wish;
		own_endpoints(s, base)[i].tls = &identity->client;
		s->held[s->n_held++] = &identity->client.part;
		if (!by)
			continue;
		own_endpoints(s, base)[i].tls_counts = by->settings.counts[SETTING_TLS];
		if (by != s->policies)
			s->held[s->n_held++] = &policies_hold(by)->part;
	}
	for (unsigned i = 0; i < ports.n; i++)
		policies_drop(ports.list[i].policies);
	mem_free(ports.list);
}

void upstream_note_changes(struct compiler *c, const struct service *before, const struct service *after)
{
	for (unsigned i = 0; before && after && i < before->n_endpoints; i++) {
		const struct endpoint *old = &before->endpoints[i];

		for (unsigned at = 0; at < after->n_endpoints; at++) {
			if (after->endpoints[at].cell != old->cell || after->endpoints[at].tls == old->tls)
				continue;
			if (c->n_changed_cells == c->changed_cap) {
				c->changed_cap = c->changed_cap ? 2 * c->changed_cap : 16;
				c->changed_cells = mem_resize(c->changed_cells,
							      c->changed_cap * sizeof *c->changed_cells);
			}
			part_hold(&old->cell->part);
			c->changed_cells[c->n_changed_cells++] = old->cell;
		}
	}
}

void upstreams_publish(struct compiler *c, struct snapshot *s)
{
	s->changed = NEW_N(&s->arena, struct endpoint_cell *, c->n_changed_cells + 1);
	for (unsigned i = 0; i < c->n_changed_cells; i++)
		s->changed[s->n_changed++] = c->changed_cells[i];
	c->n_changed_cells = 0;
}

void upstreams_free(struct compiler *c)
{
	for (unsigned i = 0; i < c->n_changed_cells; i++)
		part_drop(&c->changed_cells[i]->part);
	mem_free(c->changed_cells);
	map_free(&c->tls_clients);
}

/* ---------- what else they depend on ---------- */

bool identity_change(const struct compiler *c, const struct change *change, struct problem *why)
{
	const struct json *value = change->after ? json_get(change->after->doc, "value") : NULL;
	char trouble[160] = "";
	struct tls_client_material m = { .n_names = 0 };

	/* At the start certificates come later. */
	if (c->settings.lenient || !value || !str_equal(change->after->name, STR(IDENTITY_SETTING)) || !value->string.n)
		return true;
	take_workload(c, json_text(change->after->doc, "gatewayId"), &m, trouble);
	return !trouble[0] || problem(why, "value", "%s", trouble);
}

void identity_recheck(struct compiler *c, const struct resource *changed)
{
	size_t i = 0;

	if (changed->kind == RESOURCE_FEATURE && str_equal(changed->name, STR(IDENTITY_SETTING)))
		attachments_recheck_gateway(c, json_text(changed->doc, "gatewayId"));
	if (changed->kind != RESOURCE_CERTIFICATE)
		return;
	for (const struct resource *r; (r = model_next(c->model, RESOURCE_FEATURE, &i));)
		if (str_equal(r->name, STR(IDENTITY_SETTING)) &&
		    str_equal(json_get(r->doc, "value")->string, changed->id))
			attachments_recheck_gateway(c, json_text(r->doc, "gatewayId"));
}
