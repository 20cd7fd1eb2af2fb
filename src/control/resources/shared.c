#include "control/resources/shared.h"
#include <stdio.h>
#include <time.h>
#include "core/crypto.h"
#include "http/uri.h"
#include "http/uri.h"
#include "policy/formats.h"

const struct choice tls_versions[] = {
	{ TLS_1_0, "TLSV1_0", "TLS 1.0; insecure, needs a lowered security level of OpenSSL", "TLSv1.0" },
	{ TLS_1_1, "TLSV1_1", "TLS 1.1; insecure, needs a lowered security level of OpenSSL", "TLSv1.1" },
	{ TLS_1_2, "TLSV1_2", "TLS 1.2", "TLSv1.2" },
	{ TLS_1_3, "TLSV1_3", "TLS 1.3", "TLSv1.3" },
	{ 0, NULL, NULL, NULL },
};

const struct choice service_protocols[] = {
	{ SERVICE_HTTP, "HTTP", "HTTP/1.1 in the clear", NULL },
	{ SERVICE_HTTPS, "HTTPS", "HTTP/1.1 over TLS", NULL },
	{ SERVICE_HTTP2, "HTTP2", "HTTP/2 in the clear (prior knowledge)", NULL },
	{ SERVICE_GRPC, "GRPC", "gRPC over HTTP/2", NULL },
	{ SERVICE_TCP, "TCP", "a byte stream", NULL },
	{ 0, NULL, NULL, NULL },
};

static const struct choice scenes[] = {
	{ SCENE_SINGLE_SERVICE, "SingleService", "all requests go to one service", NULL },
	{ SCENE_MULTI_SERVICE_BY_RATIO, "MultiServiceByRatio", "requests are spread over services by weight",
		NULL },
	{ SCENE_MOCK, "Mock", "no service; a DirectResponse policy answers", NULL },
	{ SCENE_REDIRECT, "Redirect", "no service; a Redirect policy answers", NULL },
	{ 0, NULL, NULL, NULL },
};

const struct field backend_service_fields[] = {
	TEXT(struct backend_service, serviceId, REQUIRED, RANGE(1, 64), REFERS("service"),
		DOC("Service that gets the requests.")),
	INT(struct backend_service, port, RANGE(1, 65535),
		DOC("Endpoints with this port; may be left out when there is one port.")),
	TEXT(struct backend_service, version, RANGE(1, 64),
		DOC("Only endpoints of this version of the service.")),
	INT(struct backend_service, weight, RANGE(0, 10000), DEFAULT("100"),
		DOC("Share of the requests, among the services listed.")),
	FIELDS_END
};

const struct field backend_fields[] = {
	CHOICE(struct backend, scene, scenes, REQUIRED, DOC("Where requests go.")),
	LIST(struct backend, services, struct backend_service, backend_service_fields, RANGE(0, 64),
		DOC("Services and their shares.")),
	FIELDS_END
};

bool format_title(struct str s, struct problem *why)
{
	if (!format_name(s, why))
		return false;
	return str_code_points(s) <= 128 ||
	       problem(why, "", "must have at most 128 characters, not %zu", str_code_points(s));
}

bool format_dns_label(struct str s, struct problem *why)
{
	bool ok = s.n >= 1 && s.n <= 63 && s.p[0] != '-' && s.p[s.n - 1] != '-';

	for (size_t i = 0; ok && i < s.n; i++)
		ok = (s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '-';
	return ok || problem(why, "",
			     "must be 1 to 63 lower-case letters, digits and hyphens, without a hyphen at "
			     "either end");
}

bool format_domain(struct str s, struct problem *why)
{
	return uri_is_dns_name(s, true) ||
	       problem(why, "", "must be a name such as a.example.com or *.example.com");
}

bool format_base_path(struct str s, struct problem *why)
{
	struct arena a = { 0 };
	struct str path = { NULL, 0 }, query = { NULL, 0 };

	bool ok = format_path(s, why);

	if (ok && (uri_normalise(&a, s, &path, &query) != URI_OK || query.p))
		ok = problem(why, "", "must be a path without a query");
	if (ok && !str_equal(path, s))
		ok = problem(why, "",
			"would never match, for paths are brought into normal form; write \"%.*s\"",
			STR_FMT(path));
	arena_free(&a);
	return ok;
}

bool check_arrives(struct str header, const char *field, struct problem *why)
{
	if (str_find(header, '_') == header.n)
		return true;
	return problem(why, field, "\"%.*s\" never arrives: fields of requests with \"_\" in their names are dropped; "
		       "use another name, or start the gateway with the setting keepUnderscores",
		       (int)(header.n < 80 ? header.n : 80), header.p);
}

bool format_description(struct str s, struct problem *why)
{
	size_t n = str_code_points(s);

	return n <= 200 || problem(why, "", "must have at most 200 characters, not %zu", n);
}

bool format_pem(struct str s, struct problem *why)
{
	return crypto_pem_certificates(s) > 0 || problem(why, "", "must hold at least one certificate in PEM");
}

void adapt_lower_text(struct json *v, struct arena *a)
{
	if (!v || v->type != JSON_STRING || !v->string.n)
		return;
	char *lower = arena_take(a, v->string.n + 1);

	for (size_t i = 0; i < v->string.n; i++)
		lower[i] = str_lower(v->string.p[i]);
	lower[v->string.n] = '\0';
	v->string.p = lower;
}

void adapt_lower(struct json *object, const char *member, struct arena *a)
{
	adapt_lower_text(json_get(object, member), a);
}

/* "tls", an optional "v" and blanks, "1", a separator, a digit. */
void adapt_tls_version(struct json *object, const char *member, struct arena *a)
{
	struct json *v = json_get(object, member);
	char seen[8] = "";
	size_t n = 0;

	if (!v || v->type != JSON_STRING || v->string.n < 5 || v->string.n > 16)
		return;
	for (size_t i = 0; i < v->string.n && n < sizeof seen - 1; i++)
		if (v->string.p[i] != ' ' && v->string.p[i] != '_' && v->string.p[i] != '.')
			seen[n++] = str_lower(v->string.p[i]);
	struct str s = { seen, n };

	if (!str_starts(s, STR("tls")))
		return;
	s = (struct str){ s.p + 3, s.n - 3 };
	if (s.n && s.p[0] == 'v')
		s = (struct str){ s.p + 1, s.n - 1 };
	if (s.n == 2 && s.p[0] == '1' && s.p[1] >= '0' && s.p[1] <= '3')
		v->string = arena_printf(a, "TLSV1_%c", s.p[1]);
}

bool backend_check(const struct backend *b, struct problem *why)
{
	bool none = b->scene == SCENE_MOCK || b->scene == SCENE_REDIRECT;
	int64_t sum = 0;

	if (none && b->services.n)
		return problem(
			why, "services", "must be empty when scene is \"%s\"", choice_text(scenes, b->scene));
	if (none)
		return true;
	if (b->services.n == 0)
		return problem(why, "services", "must name a service when scene is \"%s\"",
			choice_text(scenes, b->scene));
	if (b->scene == SCENE_SINGLE_SERVICE && b->services.n > 1)
		return problem(why, "services", "must have one item when scene is \"SingleService\", not %zu",
			b->services.n);
	for (size_t i = 0; i < b->services.n; i++)
		sum += ITEM(b->services, struct backend_service, i)->weight;
	return sum > 0 || problem(why, "services", "must have a weight above 0 in at least one item");
}

static bool has_version(const struct json *service, struct str version)
{
	const struct json *lists[] = { json_get(service, "versions"), json_get(service, "addresses") };
	const char *const members[] = { "name", "version" };

	for (unsigned i = 0; i < 2; i++)
		for (const struct json *v = lists[i] ? lists[i]->child : NULL; v; v = v->next)
			if (str_equal(json_text(v, members[i]), version))
				return true;
	return false;
}

struct port_search {
	int64_t port;
	unsigned n;
	bool found;
};

static bool look_at_port(void *arg, struct resource *r)
{
	struct port_search *p = arg;

	if (r->kind != RESOURCE_SERVICE_PORT)
		return true;
	const struct json *port = json_get(r->doc, "port");

	p->n++;
	p->found = p->found || (port && port->integer == p->port);
	return true;
}

/* Whether an address stands for one with each of several ports: then a route must say which of them it means. */
static bool is_ambiguous(const struct json *service)
{
	const struct json *ports = json_get(service, "ports"), *addresses = json_get(service, "addresses");

	if (!ports || ports->n < 2 || !addresses)
		return false;
	for (const struct json *a = addresses->child; a; a = a->next) {
		struct str text = a->type == JSON_STRING ? a->string : json_text(a, "address"), host;
		uint16_t port;

		if (!uri_split_authority(text, &host, &port) || port == 0)
			return true;
	}
	return false;
}

static bool check_backend_service(const struct draft *d, const struct backend_service *s, struct problem *why)
{
	const struct resource *service = model_get(d->model, RESOURCE_SERVICE, s->serviceId);
	struct port_search ports = { .port = s->port };

	if (!service)
		return true;                  /* refs_check() says so */
	model_referrers(d->model, RESOURCE_SERVICE, s->serviceId, look_at_port, &ports);
	if (s->port == 0 && is_ambiguous(service->doc))
		return problem(why, "port", "is required, for service \"%.*s\" has %u ports",
			STR_FMT(s->serviceId), ports.n);
	if (s->port && ports.n && !ports.found)
		return problem(why, "port", "%lld is no port of service \"%.*s\"", (long long)s->port,
			STR_FMT(s->serviceId));
	if (s->version.n && !has_version(service->doc, s->version))
		return problem(why, "version", "\"%.*s\" is no version of service \"%.*s\"",
			STR_FMT(s->version), STR_FMT(s->serviceId));
	return true;
}

bool backend_check_services(const struct draft *d, const struct backend *b, struct problem *why)
{
	char at[32];

	for (size_t i = 0; i < b->services.n; i++) {
		if (check_backend_service(d, ITEM(b->services, struct backend_service, i), why))
			continue;
		snprintf(at, sizeof at, "services[%zu]", i);
		problem_prefix(why, at);
		return false;
	}
	return true;
}

static bool check_once_each(const struct json *list, const char *name, struct problem *why)
{
	char at[48];
	unsigned i = 0;

	for (const struct json *v = list ? list->child : NULL; v; v = v->next, i++)
		for (const struct json *w = list->child; w != v; w = w->next)
			if (json_equal(v, w)) {
				snprintf(at, sizeof at, "%s[%u]", name, i);
				return problem(why, at, "is listed twice");
			}
	return true;
}

bool complete_placement(struct draft *d, struct problem *why)
{
	const struct resource *gateway = model_get(d->model, RESOURCE_GATEWAY, json_text(d->doc, "gatewayId"));

	if (gateway && !json_text(d->doc, "environmentId").n)
		json_put(d->arena, d->doc, "environmentId",
			json_new_text(d->arena,
				arena_copy(d->arena, json_text(gateway->doc, "defaultEnvironmentId"))));
	return check_once_each(json_get(d->doc, "domainIds"), "domainIds", why);
}

static bool share_domain(const struct json *a, const struct json *b)
{
	const struct json *x = json_get(a, "domainIds"), *y = json_get(b, "domainIds");

	if (!x || !y || !x->n || !y->n)
		return (!x || !x->n) && (!y || !y->n);
	for (const struct json *v = x->child; v; v = v->next)
		for (const struct json *w = y->child; w; w = w->next)
			if (json_equal(v, w))
				return true;
	return false;
}

/* "/a/" serves what "/a" does. */
static struct str base_of(const struct json *doc)
{
	struct str path = json_text(doc, "basePath");

	while (path.n > 0 && path.p[path.n - 1] == '/')
		path.n--;
	return path;
}

bool check_ai_api(const struct draft *d, struct problem *why)
{
	static const enum resource_kind kinds[] = { RESOURCE_LLM_API, RESOURCE_AGENT_API };

	for (unsigned k = 0; k < 2; k++) {
		size_t i = 0;

		for (const struct resource *r; (r = model_next(d->model, kinds[k], &i));) {
			if (str_equal(r->id, d->id) ||
				!str_equal(json_text(r->doc, "gatewayId"), json_text(d->doc, "gatewayId")))
				continue;
			if (str_equal(r->name, json_text(d->doc, "name")))
				return problem_of(why, PROBLEM_CONFLICT, "name",
					"\"%.*s\" is the name of %s %.*s already", STR_FMT(r->name),
					resource_classes[r->kind]->name, STR_FMT(r->id));
			if (str_equal(base_of(r->doc), base_of(d->doc)) && share_domain(r->doc, d->doc))
				return problem_of(why, PROBLEM_CONFLICT, "basePath",
					"is used on the same domain by %s %.*s",
					resource_classes[r->kind]->name, STR_FMT(r->id));
		}
	}
	return true;
}

/* "2026-11-26T09:30:00Z" */
static struct str print_time(struct arena *a, int64_t wall_ms)
{
	char text[32];
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	return arena_copy(a, (struct str){ text, strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) });
}

void put_status(struct arena *a, struct json *item, const struct status *s)
{
	struct json *shown = json_new(a, JSON_OBJECT);

	json_put(a, shown, "phase", json_new_text(a, str_of(phase_name(s->phase))));
	if (s->reason.n)
		json_put(a, shown, "reason", json_new_text(a, arena_copy(a, s->reason)));
	if (s->last_error.n)
		json_put(a, shown, "lastError", json_new_text(a, arena_copy(a, s->last_error)));
	if (s->since_ms)
		json_put(a, shown, "since", json_new_text(a, print_time(a, s->since_ms)));
	json_put(a, item, "status", shown);
}
