/*
 * compile_service.c -- services: addresses and ports to endpoints, whose state survives.
 *
 * An endpoint's cell is found again by service, host and port. When the last use goes, the cell is retired
 * with the next publish: workers that adopt it close its idle connections, and requests under way on older
 * views do not pool theirs any more.
 */
#include "ai/chat_conf.h"
#include "control/compile_state.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "http/uri.h"
#include "net/addr.h"
#include "proxy/balance.h"
#include "proxy/ring.h"

/* ---------- cells ---------- */

static void destroy_endpoint_cell(struct part *p)
{
	struct endpoint_cell *cell = CONTAINER(p, struct endpoint_cell, part);

	endpoint_close_series(cell);
	mem_free(cell);
}

static struct endpoint_state *endpoint_get(struct compiler *c, const struct resource *service, struct str text)
{
	struct sbuf key = { 0 };
	struct endpoint_state *e;

	sbuf_addf(&key, "%.*s\n%.*s", STR_FMT(service->id), STR_FMT(text));
	e = map_get(&c->endpoint_states, sbuf_str(&key));
	if (!e) {
		e = state_new(&c->endpoint_states, sizeof(*e), offsetof(struct endpoint_state, key),
			      sbuf_str(&key));
		list_init(&e->idle);
		/* Pools of different workers are neighbours; the counters at the front are everybody's. */
		e->cell = mem_alloc_aligned(64, (sizeof(*e->cell) + 63) / 64 * 64);
		e->cell->part = (struct part){ 1, destroy_endpoint_cell };
		endpoint_open_series(e->cell, gateway_name(c, json_text(service->doc, "gatewayId")), service->name,
				     text);
		atomic_store_explicit(&e->cell->warm_from_ms, clock_ms(), memory_order_relaxed);
		mark_dirty(&c->idle_endpoints, &e->idle);
	}
	sbuf_free(&key);
	return e;
}

static void use_endpoints(struct compiler *c, const struct service_base *base, bool use)
{
	for (unsigned i = 0; i < base->n_endpoints; i++) {
		struct endpoint_state *e = base->endpoints[i];

		BUG_ON(!use && e->uses == 0);
		e->uses += use ? 1 : -1;
		if (e->uses == 0)
			mark_dirty(&c->idle_endpoints, &e->idle);
	}
}

/* ---------- documents to services ---------- */

static void destroy_base(struct part *p)
{
	struct service_base *base = CONTAINER(p, struct service_base, part);

	service_close_series(&base->content);
	parts_drop(base->held, base->n_held);
	if (base->content.rotation)
		part_drop(rotation_part(base->content.rotation));
	arena_free(&base->arena);
	mem_free(base);
}

static bool has_labels(const struct json *labels, const struct json *wanted)
{
	if (!wanted || wanted->n == 0)
		return false;
	for (const struct json *w = wanted->child; w; w = w->next) {
		const struct json *is = json_get_str(labels, w->name);

		if (!is || !str_equal(is->string, w->string))
			return false;
	}
	return true;
}

/* The address's own version, else the first one whose labels it has. */
static struct str version_of(const struct service_doc *doc, const struct service_address *address)
{
	if (address->version.n)
		return address->version;
	for (size_t i = 0; address->labels && i < doc->versions.n; i++) {
		const struct service_version *v = ITEM(doc->versions, struct service_version, i);

		if (has_labels(address->labels, v->labels))
			return v->name;
	}
	return (struct str){ NULL, 0 };
}

/* The lane of its labels: what microservice engines of Alibaba Cloud set, else the short one. */
static struct str tag_of(const struct service_address *address)
{
	struct str tag = { NULL, 0 };

	if (address->labels)
		tag = json_text(address->labels, "alicloud.service.tag");
	return tag.n || !address->labels ? tag : json_text(address->labels, "tag");
}

/* Every version and tag once: lanes and targets are looked up here, so that what clients invent ends here. */
static void list_tags(struct service_base *base)
{
	struct service *s = &base->content;
	struct str *tags = NEW_N(&base->arena, struct str, 2 * s->n_endpoints + 1);

	s->tags = tags;
	for (unsigned i = 0; i < 2 * s->n_endpoints; i++) {
		const struct endpoint *e = &s->endpoints[i / 2];
		struct str tag = i % 2 ? e->tag : e->version;
		unsigned at = 0;

		while (at < s->n_tags && !str_equal(tags[at], tag))
			at++;
		if (tag.n && at == s->n_tags)
			tags[s->n_tags++] = tag;
	}
}

/* That of the port, else of the first one. */
static enum upstream_protocol protocol_of(const struct service_doc *doc, uint16_t port)
{
	static const enum upstream_protocol protocols[] = {
		[SERVICE_HTTP] = UPSTREAM_HTTP1, [SERVICE_HTTPS] = UPSTREAM_HTTPS, [SERVICE_HTTP2] = UPSTREAM_HTTP2,
		[SERVICE_GRPC] = UPSTREAM_GRPC, [SERVICE_TCP] = UPSTREAM_TCP,
	};

	struct url url;

	for (size_t i = 0; i < doc->ports.n; i++)
		if (ITEM(doc->ports, struct service_port_entry, i)->port == port)
			return protocols[ITEM(doc->ports, struct service_port_entry, i)->protocol];
	if (doc->ports.n)
		return protocols[ITEM(doc->ports, struct service_port_entry, 0)->protocol];
	return ai_service_url(doc, &url) && url.is_https ? UPSTREAM_HTTPS : UPSTREAM_HTTP1;
}

struct reading {
	struct compiler *compiler;
	const struct resource *resource;
	const struct service_doc *doc;
	struct service_base *base;
};

static bool is_known(const struct service *s, struct str text)
{
	for (unsigned i = 0; i < s->n_endpoints; i++)
		if (str_equal(s->endpoints[i].text, text))
			return true;
	return false;
}

static void add_endpoint(const struct reading *reading, const struct service_address *address,
			 struct str host, uint16_t port)
{
	struct service_base *base = reading->base;
	struct service *s = &base->content;
	struct endpoint e = { .port = port, .weight = (uint32_t)address->weight,
			      .protocol = (uint8_t)protocol_of(reading->doc, port) };
	struct str version = version_of(reading->doc, address), tag = tag_of(address);
	struct endpoint_state *state;
	char text[ADDR_TEXT];
	struct ip ip;

	if (ip_parse(host, &ip)) {
		e.addr = addr_of_ip(&ip, port);
		addr_print(&e.addr, text);
		e.text = arena_copy(&base->arena, str_of(text));
	} else {
		e.host = arena_copy(&base->arena, host);
		e.text = arena_printf(&base->arena, "%.*s:%u", STR_FMT(host), port);
	}
	if (is_known(s, e.text))
		return;
	e.record = record_fragment(&base->arena, "upstream", e.text);
	if (version.n)
		e.version = arena_copy(&base->arena, version);
	if (tag.n)
		e.tag = arena_copy(&base->arena, tag);
	state = endpoint_get(reading->compiler, reading->resource, e.text);
	e.cell = state->cell;
	part_hold(&e.cell->part);
	base->held[base->n_held++] = &e.cell->part;
	base->endpoints[base->n_endpoints++] = state;
	s->endpoints[s->n_endpoints++] = e;
}

/* A provider without addresses of its own is where its URL says. */
static void add_provider(const struct reading *reading, struct arena *scratch)
{
	struct service_base *base = reading->base;
	const struct service_address address = { .weight = 100 };
	struct url url;

	if (!ai_service_url(reading->doc, &url))
		return;
	base->endpoints = NEW_N(&base->arena, struct endpoint_state *, 1);
	base->content.endpoints = NEW_N(&base->arena, struct endpoint, 1);
	base->held = mem_alloc(2 * sizeof(struct part *));
	add_endpoint(reading, &address, arena_copy(scratch, url.host), url.port);
}

/* An address without a port stands for one with each of the service's ports. */
static bool read_endpoints(const struct reading *reading, struct arena *scratch, struct problem *why)
{
	const struct service_doc *doc = reading->doc;
	struct service_base *base = reading->base;
	struct items addresses;

	if (!service_addresses(doc, scratch, &addresses, why))
		return false;
	if (!doc->addresses)
		add_provider(reading, scratch);
	const size_t most = addresses.n * (doc->ports.n ? doc->ports.n : 1);

	if (base->content.n_endpoints > 0) {
		list_tags(base);
		base->content.rotation = rotation_new();
		return true;
	}

	base->endpoints = NEW_N(&base->arena, struct endpoint_state *, most);
	base->content.endpoints = NEW_N(&base->arena, struct endpoint, most);
	base->held = mem_alloc((most + 1) * sizeof(struct part *));
	for (size_t i = 0; i < addresses.n; i++) {
		const struct service_address *address = ITEM(addresses, struct service_address, i);
		struct str host;
		uint16_t port;

		if (!service_split_address(address->address, &host, &port))
			return problem(why, "addresses", "\"%.*s\" is no address", STR_FMT(address->address));
		if (port)
			add_endpoint(reading, address, host, port);
		for (size_t at = 0; !port && at < doc->ports.n; at++)
			add_endpoint(reading, address, host,
				     (uint16_t)ITEM(doc->ports, struct service_port_entry, at)->port);
	}
	list_tags(base);
	base->content.rotation = rotation_new();
	return true;
}

static void read_checks(const struct service_doc *doc, struct service_base *base)
{
	const struct health_check_config *h = &doc->healthCheckConfig;
	const struct outlier_detection_config *o = &doc->outlierDetectionConfig;
	static const int kinds[] = {
		[HEALTH_CHECK_TCP] = HEALTH_TCP, [HEALTH_CHECK_HTTP] = HEALTH_HTTP, [HEALTH_CHECK_GRPC] = HEALTH_GRPC,
	};

	base->content.protocol = protocol_of(doc, 0);
	if (doc->has_healthCheckConfig)
		base->content.health = (struct health_check){
			.enable = h->enable,
			.protocol = kinds[h->protocol],
			.path = arena_copy(&base->arena, h->httpPath.n ? h->httpPath : STR("/")),
			.host = arena_copy(&base->arena, h->httpHost),
			.interval_ms = h->interval * 1000,
			.timeout_ms = h->timeout * 1000,
			.healthy_threshold = (unsigned)h->healthyThreshold,
			.unhealthy_threshold = (unsigned)h->unhealthyThreshold,
		};
	base->content.panic_percent = doc->healthyPanicThreshold;
	if (doc->has_outlierDetectionConfig)
		base->content.outlier = (struct outlier_detection){
			.enable = o->enable,
			.consecutive_5xx = (unsigned)o->consecutive5xx,
			.interval_ms = o->interval * 1000,
			.base_ejection_ms = o->baseEjectionTime * 1000,
			.max_ejection_percent = (unsigned)o->maxEjectionPercent,
		};
}

static struct service_base *base_new(struct compiler *c, const struct resource *r, struct problem *why)
{
	struct service_base *base = MEM_NEW(struct service_base);
	struct arena scratch = { 0 };
	struct service_doc doc = { 0 };
	bool ok;

	base->part = (struct part){ 1, destroy_base };
	base->arena.is_small = true;
	base->content.id = arena_copy(&base->arena, r->id);
	base->content.name = arena_copy(&base->arena, r->name);
	base->content.record = record_fragment(&base->arena, "service", base->content.name);
	base->content.hash = pmap_hash(r->id);
	base->gateway_id = arena_copy(&base->arena, json_text(r->doc, "gatewayId"));
	ok = resource_decode(r, &scratch, &doc, why);
	if (ok)
		base->content.ai = ai_service_read(&base->arena, &doc);
	if (base->content.ai)
		base->content.shape_copy = chat_shape_copy;
	ok = ok && read_endpoints(&(struct reading){ c, r, &doc, base }, &scratch, why);
	if (ok) {
		read_checks(&doc, base);
		service_open_series(&base->content, gateway_name(c, base->gateway_id));
		base->content.retries = NEW(&base->arena, atomic_int);
		base->content.copies = NEW(&base->arena, atomic_int);
	} else {
		part_drop(&base->part);
		base = NULL;
	}
	arena_free(&scratch);
	return base;
}

/* ---------- states ---------- */

static struct service_state *service_get(struct compiler *c, struct str id)
{
	struct service_state *s = map_get(&c->service_states, id);

	if (s)
		return s;
	s = state_new(&c->service_states, sizeof(*s), offsetof(struct service_state, id), id);
	list_init(&s->dirty);
	return s;
}

void service_mark_dirty(struct compiler *c, struct str id)
{
	struct service_state *s = map_get(&c->service_states, id);

	if (s)
		mark_dirty(&c->dirty_services, &s->dirty);
}

bool service_change(struct compiler *c, const struct change *change, struct problem *why)
{
	struct service_base *base = change->after ? base_new(c, change->after, why) : NULL;
	struct service_state *s;

	if (change->after && !base)
		return false;
	s = service_get(c, change->after ? change->after->id : change->before->id);
	/* First the new ones: an endpoint in both is never out of use. */
	if (base)
		use_endpoints(c, base, true);
	if (s->base) {
		use_endpoints(c, s->base, false);
		part_drop(&s->base->part);
	}
	s->base = base;
	mark_dirty(&c->dirty_services, &s->dirty);
	return true;
}

/* ---------- into the snapshot ---------- */

static void destroy_service(struct part *p)
{
	struct service *s = CONTAINER(p, struct service, part);

	policies_drop(s->policies);
	parts_drop(s->held, s->n_held);
	arena_free(&s->arena);
	mem_free(s);
}

/*
 * The ring of a balance by hash: the one there is while hosts and weights are the same, whatever else changed. One of
 * many points takes a while to make, here on the control thread.
 */
static struct ring *ring_for(struct service_state *state, const struct service *s)
{
	struct ring_host *hosts = mem_alloc((s->n_endpoints + 1) * sizeof(*hosts));

	for (unsigned i = 0; i < s->n_endpoints; i++)
		hosts[i] = (struct ring_host){ s->endpoints[i].text, s->endpoints[i].weight };
	if (!state->ring || !ring_is_of(state->ring, hosts, s->n_endpoints, s->balance->ring_points)) {
		if (state->ring)
			part_drop(ring_part(state->ring));
		state->ring = ring_new(hosts, s->n_endpoints, s->balance->ring_points);
	}
	mem_free(hosts);
	return state->ring;
}

static void set_balance(struct service_state *state, struct service *s)
{
	s->balance = s->policies->settings.balance;
	if (s->balance && s->balance->method == BALANCE_BY_HASH) {
		s->ring = ring_for(state, s);
		part_hold(ring_part(s->ring));
		s->held[s->n_held++] = ring_part(s->ring);
	} else if (state->ring) {
		part_drop(ring_part(state->ring));
		state->ring = NULL;
	}
}

static struct service *service_new(struct compiler *c, struct service_state *state)
{
	struct service *s = MEM_NEW(struct service);

	*s = state->base->content;
	s->part = (struct part){ 1, destroy_service };
	s->policies = policies_compile(c, &(struct bearer){ LEVEL_SERVICE, s->id, s->name, { NULL, 0 },
							    s->ai != NULL });
	s->held = mem_alloc(2 * sizeof(struct part *));
	s->held[s->n_held++] = &state->base->part;
	part_hold(&state->base->part);
	set_balance(state, s);
	upstream_secure_service(c, s, state->base);
	return s;
}

void service_settle(struct compiler *c, struct service_state *state)
{
	struct service *s = state->base ? service_new(c, state) : NULL;
	struct part *before = pmap_get(c->services, state->id);

	list_remove(&state->dirty);
	if (before && s)
		upstream_note_changes(c, CONTAINER(before, struct service, part), s);
	c->services = pmap_set(c->services, state->id, s ? &s->part : NULL);
	if (s) {
		part_drop(&s->part);
		return;
	}
	map_remove(&c->service_states, state->id);
	if (state->ring)
		part_drop(ring_part(state->ring));
	mem_free(state);
}

void services_publish(struct compiler *c, struct snapshot *s)
{
	unsigned n = 0;

	LIST_EACH(counted, &c->idle_endpoints)
		n++;
	s->retired = NEW_N(&s->arena, struct endpoint_cell *, n);
	LIST_EACH(node, &c->idle_endpoints) {
		struct endpoint_state *e = CONTAINER(node, struct endpoint_state, idle);

		list_remove(&e->idle);
		if (e->uses)
			continue;
		__atomic_store_n(&e->cell->retired, true, __ATOMIC_RELAXED);
		/* The state's reference becomes the snapshot's. */
		s->retired[s->n_retired++] = e->cell;
		map_remove(&c->endpoint_states, e->key);
		mem_free(e);
	}
}

void compile_sample_endpoints(const struct compiler *c)
{
	int64_t now_ms = clock_ms();
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->endpoint_states, &i));) {
		const struct endpoint_state *state = e->value;
		const struct endpoint endpoint = { .cell = state->cell };

		metric_set(state->cell->healthy_series, endpoint_is_up(&endpoint, now_ms));
		metric_set(state->cell->active_series,
			   atomic_load_explicit(&state->cell->active, memory_order_relaxed));
	}
}

void services_free(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->service_states, &i));) {
		struct service_state *s = e->value;

		if (s->base)
			part_drop(&s->base->part);
		if (s->ring)
			part_drop(ring_part(s->ring));
		mem_free(s);
	}
	for (size_t i = 0; (e = map_next(&c->endpoint_states, &i));) {
		struct endpoint_state *state = e->value;

		part_drop(&state->cell->part);
		mem_free(state);
	}
	map_free(&c->service_states);
	map_free(&c->endpoint_states);
}
