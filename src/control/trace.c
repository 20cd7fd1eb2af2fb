/*
 * trace.c -- picks the listener that a request would reach, writes its head as it would come, and tells what the dry
 * run found.
 */
#include "control/trace.h"
#include "control/effective.h"
#include "core/clock.h"
#include "http/uri.h"
#include "proxy/dry_run.h"
#include "proxy/router.h"

#define HEADERS_MAX 100
#define LISTED_MAX 300               /* bytes of listeners named in a refusal */

static bool check_method(struct str s, struct problem *why)
{
	return header_is_token(s) || problem(why, "", "is no method");
}

static bool check_url(struct str s, struct problem *why)
{
	struct url url;

	return (s.p[0] == '/' && uri_is_clean(s)) || str_equal(s, STR("*")) || url_parse(s, &url) ||
	       problem(why, "", "must be an absolute http or https URL, a path that begins with /, or * for OPTIONS");
}

static bool check_name(struct str s, struct problem *why)
{
	return header_is_token(s) || problem(why, "", "is no header name");
}

static bool check_value(struct str s, struct problem *why)
{
	return header_is_value(s) || problem(why, "", "has control characters");
}

static bool check_ip(struct str s, struct problem *why)
{
	struct ip ip;

	return ip_parse(s, &ip) || problem(why, "", "is no IP address");
}

static const struct field header_fields[] = {
	TEXT(struct trace_header, name, REQUIRED, RANGE(1, 256), FORMAT(check_name), EXAMPLE("\"X-User\""),
	     DOC("Name of the header.")),
	TEXT(struct trace_header, value, EMPTY_OK, RANGE(0, 8192), FORMAT(check_value), EXAMPLE("\"7\""),
	     DOC("Its value.")),
	FIELDS_END
};

const struct field trace_fields[] = {
	TEXT(struct trace_doc, method, RANGE(1, 64), FORMAT(check_method), DEFAULT("\"GET\""),
	     DOC("Method of the request.")),
	TEXT(struct trace_doc, url, REQUIRED, RANGE(1, 8192), FORMAT(check_url),
	     EXAMPLE("\"http://www.example.com:8080/a?b=1\""),
	     DOC("URL as the client asks for it, or only its path, or *: the Host header then says which host.")),
	LIST(struct trace_doc, headers, struct trace_header, header_fields, RANGE(0, HEADERS_MAX),
	     DOC("Headers of the request.")),
	TEXT(struct trace_doc, clientIp, RANGE(2, 45), FORMAT(check_ip), DEFAULT("\"127.0.0.1\""),
	     DOC("Address of the TCP peer; a client behind trusted proxies is named by X-Forwarded-For as usual.")),
	TEXT(struct trace_doc, listener, RANGE(1, 64), EXAMPLE("\"127.0.0.1:8080\""),
	     DOC("Address that the gateway listens on, or its port; when left out, the URL's port says which.")),
	TEXT(struct trace_doc, serviceId, RANGE(1, 64),
	     DOC("Of several services of the route: the one to follow; when left out, the one with most weight.")),
	FIELDS_END
};

/* ---------- where it arrives ---------- */

struct question {
	const struct compiler *c;
	const struct trace_doc *doc;
	struct arena *arena;
	bool is_absolute;
	struct url url;
	struct str host, target;
	const struct binding *binding;
	struct json *notes;
};

static void note(struct question *q, struct str what)
{
	json_add(q->notes, json_new_text(q->arena, what));
}

static struct str host_without_port(struct str authority)
{
	struct str host;
	uint16_t port;

	return uri_split_authority(authority, &host, &port) ? host : authority;
}

static bool fits_listener(const struct question *q, const struct binding *b)
{
	struct str want = q->doc->listener;
	uint64_t port;

	if (!want.p)
		return true;
	if (want.p[0] == ':')
		want = (struct str){ want.p + 1, want.n - 1 };
	return str_equal(want, b->key) || (str_to_u64(want, 65535, &port) && port == addr_port(&b->addr));
}

/* The more of these are true, the likelier it is the one: port, protocol, serves the host, address. */
static unsigned rate_binding(const struct question *q, const struct binding *b)
{
	struct ip ip, own = addr_ip(&b->addr);
	const struct site *site;
	unsigned rate = 1;

	if (q->is_absolute) {
		rate += addr_port(&b->addr) == q->url.port ? 32 : 0;
		rate += b->is_tls == q->url.is_https ? 16 : 0;
		rate += ip_parse(q->url.host, &ip) && memcmp(&ip, &own, sizeof ip) == 0 ? 2 : 0;
	}
	site = router_site(b, host_without_port(q->host));
	return rate + (site ? 8 : 0) + (site && site != b->any ? 4 : 0);
}

static void list_listeners(const struct compiler *c, struct sbuf *out)
{
	const char *between = "";
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->binding_states, &i));) {
		const struct binding_state *b = e->value;

		if (!b->binding || b->binding->carries != CARRIES_HTTP)
			continue;
		sbuf_addf(out, "%s%.*s", between, STR_FMT(b->key));
		between = ", ";
	}
}

/* *n: how many there are to choose from. */
static const struct binding *best_binding(const struct question *q, unsigned *n)
{
	const struct binding *best = NULL;
	unsigned best_rate = 0;
	struct map_entry *e;

	*n = 0;
	for (size_t i = 0; (e = map_next(&q->c->binding_states, &i));) {
		const struct binding *b = ((const struct binding_state *)e->value)->binding;
		unsigned rate;

		if (!b || b->carries != CARRIES_HTTP || !fits_listener(q, b))
			continue;
		++*n;
		rate = rate_binding(q, b);
		if (rate > best_rate) {
			best = b;
			best_rate = rate;
		}
	}
	return best;
}

static bool refuse_listener(const struct question *q, bool is_ambiguous, struct problem *why)
{
	struct sbuf all = { 0 };
	int n;

	list_listeners(q->c, &all);
	n = (int)(all.n < LISTED_MAX ? all.n : LISTED_MAX);
	if (is_ambiguous)
		problem(why, "listener", "which one is meant? There are %.*s", n, all.p);
	else
		problem(why, q->doc->listener.p ? "listener" : "url",
			"no gateway listens there for HTTP; listeners: %.*s", n, all.n ? all.p : "");
	sbuf_free(&all);
	return false;
}

static bool find_listener(struct question *q, struct problem *why)
{
	unsigned n;
	const struct binding *b = q->binding = best_binding(q, &n);
	bool is_named = q->doc->listener.p != NULL, is_ambiguous = n > 1 && !q->is_absolute && !is_named;

	if (!b || is_ambiguous)
		return refuse_listener(q, is_ambiguous, why);
	if (!q->is_absolute)
		return true;
	if (!is_named && addr_port(&b->addr) != q->url.port)
		note(q, arena_printf(q->arena, "nothing listens on port %u: taken to arrive at %.*s", q->url.port,
				     STR_FMT(b->key)));
	if (b->is_tls != q->url.is_https)
		note(q, arena_printf(q->arena, "%.*s speaks %s", STR_FMT(b->key), b->is_tls ? "TLS" : "no TLS"));
	return true;
}

/* Host and target; a Host among the headers counts as it does on the wire. */
static void read_url(struct question *q)
{
	const struct trace_doc *doc = q->doc;

	q->is_absolute = url_parse(doc->url, &q->url);
	q->target = q->is_absolute ? q->url.target : doc->url;
	q->host = q->is_absolute ? q->url.authority : (struct str){ NULL, 0 };
	for (size_t i = 0; i < doc->headers.n; i++) {
		const struct trace_header *h = ITEM(doc->headers, struct trace_header, i);

		if (str_equal_nocase(h->name, STR("host")))
			q->host = h->value;
	}
}

static struct str write_head(const struct question *q)
{
	const struct trace_doc *doc = q->doc;
	struct sbuf out = { 0 };
	struct str head;

	sbuf_addf(&out, "%.*s %.*s HTTP/1.1\r\nHost: %.*s\r\n", STR_FMT(doc->method), STR_FMT(q->target),
		  STR_FMT(q->host));
	for (size_t i = 0; i < doc->headers.n; i++) {
		const struct trace_header *h = ITEM(doc->headers, struct trace_header, i);

		if (!str_equal_nocase(h->name, STR("host")))
			sbuf_addf(&out, "%.*s: %.*s\r\n", STR_FMT(h->name), STR_FMT(h->value));
	}
	sbuf_addf(&out, "\r\n");
	head = arena_copy(q->arena, sbuf_str(&out));
	sbuf_free(&out);
	return head;
}

/* Known before anything is judged: a step that misses the field is easier to understand. */
static void note_dropped(struct question *q)
{
	const struct trace_doc *doc = q->doc;

	for (size_t i = 0; i < doc->headers.n && !doc->keeps_underscores; i++) {
		struct str name = ITEM(doc->headers, struct trace_header, i)->name;

		if (str_find(name, '_') < name.n)
			note(q, arena_printf(q->arena, "%.*s is dropped, for its name has \"_\" and the setting "
				"keepUnderscores is off", STR_FMT(name)));
	}
}

/* ---------- what is told ---------- */

static void put(const struct question *q, struct json *in, const char *name, struct str value)
{
	json_put(q->arena, in, name, json_new_text(q->arena, arena_copy(q->arena, value)));
}

static void put_z(const struct question *q, struct json *in, const char *name, const char *value)
{
	put(q, in, name, str_of(value));
}

static struct json *put_object(const struct question *q, struct json *in, const char *name)
{
	struct json *v = json_new(q->arena, JSON_OBJECT);

	json_put(q->arena, in, name, v);
	return v;
}

static struct json *show_headers(const struct question *q, const struct message *m)
{
	struct json *list = json_new(q->arena, JSON_ARRAY);

	for (unsigned i = 0; i < m->n; i++) {
		const struct header *h = &m->headers[i];
		struct json *item;

		if (h->dropped || h->id == HEADER_HOST)
			continue;
		item = json_new(q->arena, JSON_OBJECT);
		put(q, item, "name", h->name);
		put(q, item, "value", h->value);
		json_add(list, item);
	}
	return list;
}

static void show_route(const struct question *q, struct json *in, const struct route *r)
{
	static const char *const types[] = {
		[MATCH_EXACT] = "Exact", [MATCH_PREFIX] = "Prefix", [MATCH_REGEX] = "Regex",
		[MATCH_TEMPLATE] = "Template",
	};

	put(q, in, "resourceType", r->resource_type);
	put(q, in, "resourceId", r->id);
	put(q, in, "resourceName", r->name);
	put_z(q, in, "matchType", types[r->match]);
	put(q, in, "path", r->path);
}

static void show_way(const struct question *q, struct json *out, const struct dry_run *d)
{
	const struct exchange *x = &d->x;
	struct json *in = put_object(q, out, "request"), *list = json_new(q->arena, JSON_ARRAY);

	put(q, in, "method", x->stream.req.method_name);
	put(q, in, "host", x->host);
	put(q, in, "path", x->path);
	if (x->query.p)
		put(q, in, "query", x->query);
	put(q, in, "clientIp", x->client_text);
	in = put_object(q, out, "listener");
	put(q, in, "address", q->binding->key);
	json_put(q->arena, in, "tls", json_new_bool(q->arena, q->binding->is_tls));
	if (x->site) {
		in = put_object(q, out, "gateway");
		put(q, in, "gatewayId", x->site->gateway->id);
		put(q, in, "name", x->site->gateway->name);
	}
	if (x->site && x->site->domain_id.n) {
		in = put_object(q, out, "domain");
		put(q, in, "domainId", x->site->domain_id);
		put(q, in, "name", x->site->domain_name);
	}
	if (x->route)
		show_route(q, put_object(q, out, "route"), x->route);
	for (unsigned i = 0; i < d->n_misses; i++) {
		in = json_new(q->arena, JSON_OBJECT);
		show_route(q, in, d->misses[i].route);
		put(q, in, "reason", d->misses[i].why);
		json_add(list, in);
	}
	json_put(q->arena, out, "passedOver", list);
}

static const char *level_of(const struct question *q, const struct step *s)
{
	const struct attachment_state *a = map_get(&q->c->attachment_states, s->attachment_id);

	return a ? scope_name(a->scope) : "";
}

static struct json *show_step(const struct question *q, const struct dry_step *step)
{
	static const char *const legs[LEG_COUNT] = {
		[LEG_CONNECT] = "connect", [LEG_REQUEST] = "request", [LEG_SERVICE] = "service",
		[LEG_ATTEMPT] = "attempt", [LEG_RESPONSE] = "response", [LEG_DATA] = "data",
	};
	const struct step *s = step->step;
	struct json *item = json_new(q->arena, JSON_OBJECT);

	put_z(q, item, "leg", legs[step->leg]);
	put_z(q, item, "stage", step->leg == LEG_RESPONSE ? response_stage_names[s->order] : stage_names[s->order]);
	put_z(q, item, "verdict", dry_verdict_name(step->verdict));
	put_z(q, item, "className", s->class->name);
	put_z(q, item, "level", level_of(q, s));
	put(q, item, "policyId", s->policy_id);
	put(q, item, "policyName", s->policy_name);
	put(q, item, "attachmentId", s->attachment_id);
	if (step->note.n)
		put(q, item, "note", step->note);
	return item;
}

static void show_answer(const struct question *q, struct json *out, const struct dry_run *d)
{
	const struct exchange *x = &d->x;
	struct json *in = put_object(q, out, "answer");

	if (x->answered_by) {
		put_z(q, in, "className", x->answered_by->class->name);
		put(q, in, "attachmentId", x->answered_by->attachment_id);
	}
	put_z(q, in, "reason", d->answered_for ? d->answered_for :
	      d->is_closed ? "the connection is closed without an answer" : reasons[REASON_POLICY_REPLY].text);
	if (d->is_closed)
		return;
	json_put(q->arena, in, "status", json_new_int(q->arena, x->res.status));
	json_put(q->arena, in, "headers", show_headers(q, &x->res));
}

static struct json *show_endpoints(const struct question *q, const struct dry_run *d)
{
	const struct service *s = d->x.service;
	struct json *list = json_new(q->arena, JSON_ARRAY);

	for (unsigned i = 0; i < s->n_endpoints; i++) {
		const struct endpoint *e = &s->endpoints[i];
		struct json *item = json_new(q->arena, JSON_OBJECT);

		put(q, item, "address", e->text);
		json_put(q->arena, item, "weight", json_new_int(q->arena, e->weight));
		if (e->version.n)
			put(q, item, "version", e->version);
		json_put(q->arena, item, "up", json_new_bool(q->arena, endpoint_is_up(e, clock_ms())));
		json_put(q->arena, item, "candidate", json_new_bool(q->arena, d->may_pick && d->may_pick[i]));
		json_put(q->arena, item, "requestsInFlight",
			 json_new_int(q->arena, atomic_load_explicit(&e->cell->active, memory_order_relaxed)));
		json_add(list, item);
	}
	return list;
}

static int64_t share_of(const struct route *r, const struct target *t)
{
	return r->n_targets <= 1 || r->weight_sum == 0 ? 100 : (int64_t)t->weight * 100 / r->weight_sum;
}

static void show_upstream(const struct question *q, struct json *out, const struct dry_run *d)
{
	static const char *const protocols[] = {
		[UPSTREAM_HTTP1] = "HTTP", [UPSTREAM_HTTPS] = "HTTPS", [UPSTREAM_HTTP2] = "HTTP2",
		[UPSTREAM_GRPC] = "GRPC", [UPSTREAM_TCP] = "TCP",
	};
	const struct exchange *x = &d->x;
	const struct message *req = &x->stream.req;
	const struct route_state *route = map_get(&q->c->route_states, x->route->id);
	const struct domain_state *domain =
		x->site->domain_id.n ? map_get(&q->c->domain_states, x->site->domain_id) : NULL;
	struct effective *e = effective_new(q->c, route, domain, q->arena);
	struct json *in = put_object(q, out, "upstream");

	if (d->meant) {
		put(q, in, "fallbackFrom", d->meant->id);
		effective_add_service(e, d->service);
	}
	put(q, in, "serviceId", x->service->id);
	put(q, in, "serviceName", x->service->name);
	if (!d->meant)
		json_put(q->arena, in, "sharePercent", json_new_int(q->arena, share_of(x->route, x->target)));
	put_z(q, in, "protocol", protocols[x->service->protocol]);
	put(q, in, "method", req->method_name);
	put(q, in, "host", req->authority);
	put(q, in, "target", req->query.p ? arena_printf(q->arena, "%.*s?%.*s", STR_FMT(req->path),
							 STR_FMT(req->query)) : req->path);
	json_put(q->arena, in, "headers", show_headers(q, req));
	json_put(q->arena, in, "settings",
		 effective_settings(e, d->service, d->endpoint ? d->endpoint->port : 0, q->arena));
	if (d->endpoint)
		put(q, in, "endpoint", d->endpoint->text);
	if (d->picked)
		put_z(q, in, "chosen", d->picked);
	json_put(q->arena, in, "endpoints", show_endpoints(q, d));
}

static struct json *tell(const struct question *q, const struct dry_run *d)
{
	struct json *out = json_new(q->arena, JSON_OBJECT), *list = json_new(q->arena, JSON_ARRAY);

	if (d->is_refused) {
		json_put(q->arena, put_object(q, out, "answer"), "status", json_new_int(q->arena, d->x.res.status));
		put(q, json_get(out, "answer"), "reason",
		    arena_printf(q->arena, "not understood, and refused: %s", d->answered_for));
		return out;
	}
	show_way(q, out, d);
	for (unsigned i = 0; i < d->n_steps; i++)
		json_add(list, show_step(q, &d->steps[i]));
	json_put(q->arena, out, "policies", list);
	if (d->is_answered)
		show_answer(q, out, d);
	else
		json_put(q->arena, put_object(q, out, "response"), "headers", show_headers(q, &d->x.res));
	if (d->x.service && !d->is_closed)
		show_upstream(q, out, d);
	json_put(q->arena, out, "notes", q->notes);
	return out;
}

struct json *trace_request(const struct compiler *c, const struct trace_doc *doc, struct str request_id,
			   struct arena *a, struct problem *why)
{
	struct question q = { .c = c, .doc = doc, .arena = a, .notes = json_new(a, JSON_ARRAY) };
	struct snapshot *now = NEW(a, struct snapshot);
	struct dry_request request = { .request_id = request_id, .service_id = doc->serviceId, .snapshot = now,
				       .peer_port = 0 };
	const struct dry_run *d;

	read_url(&q);
	if (!find_listener(&q, why))
		return NULL;
	if (!q.host.p)
		q.host = q.binding->key;
	compile_look(c, now);
	request.head = write_head(&q);
	request.binding = q.binding;
	request.is_tls = q.binding->is_tls;
	request.keeps_underscores = doc->keeps_underscores;
	note_dropped(&q);
	BUG_ON(!ip_parse(doc->clientIp, &request.peer));
	d = dry_run_new(a, &request, why);
	return d ? tell(&q, d) : NULL;
}
