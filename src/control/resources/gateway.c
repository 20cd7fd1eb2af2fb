/*
 * gateway.c -- an entry point: where it listens, under which protocol and for which hosts. Fields and order are
 * the seed's.
 */
#include "control/resources/shared.h"
#include <stdio.h>
#include "control/compile.h"
#include "control/control.h"
#include "control/rest.h"
#include "core/cidr.h"
#include "core/crypto.h"
#include "http/uri.h"

static const struct choice protocols[] = {
	{ GATEWAY_HTTP, "HTTP", "HTTP/1.1 in the clear", NULL },
	{ GATEWAY_HTTPS, "HTTPS", "HTTP over TLS, which ends here", NULL },
	{ GATEWAY_GRPC, "GRPC", "gRPC in the clear", NULL },
	{ GATEWAY_TCP, "TCP", "a byte stream", NULL },
	{ GATEWAY_TLS, "TLS", "a byte stream over TLS, which ends here or passes through", NULL },
	{ 0, NULL, NULL, NULL },
};

static bool check_name(struct str s, struct problem *why)
{
	bool ok = s.n >= 4 && s.n <= 64 && s.p[0] >= 'a' && s.p[0] <= 'z' && s.p[s.n - 1] != '-';

	for (size_t i = 0; ok && i < s.n; i++)
		ok = (s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '-';
	return ok || problem(why, "",
			     "must have 4 to 64 lower-case letters, digits and hyphens, a letter first and "
			     "no hyphen last");
}

static bool check_port(struct str s, struct problem *why)
{
	uint64_t port;

	if (str_to_u64(s, 65535, &port) && port > 0)
		return true;
	return problem(why, "", "must be a port as a string of digits, \"1\" to \"65535\"");
}

static bool check_host(struct str s, struct problem *why)
{
	struct ip ip;

	if (str_equal(s, STR("*")) || ip_parse(s, &ip) || uri_is_dns_name(s, true))
		return true;
	return problem(why, "", "must be an IP address, a name, *.name or *");
}

static bool check_ip(struct str s, struct problem *why)
{
	struct ip ip;

	return ip_parse(s, &ip) || problem(why, "", "must be an IPv4 or IPv6 address");
}

static bool check_load_balancer(struct str s, struct problem *why)
{
	return str_equal(s, STR("LoadBalancer")) || problem(why, "", "must be \"LoadBalancer\"");
}

static bool check_simple(struct str s, struct problem *why)
{
	return str_equal(s, STR("SIMPLE")) || problem(why, "", "must be \"SIMPLE\"");
}

static bool check_boolean_text(struct str s, struct problem *why)
{
	return str_equal(s, STR("true")) || str_equal(s, STR("false")) ||
	       problem(why, "", "must be \"true\" or \"false\"");
}

static const struct field port_fields[] = {
	TEXT(struct external_port, number, REQUIRED, FORMAT(check_port), EXAMPLE("\"8080\""),
		DOC("Port to listen on, as a string.")),
	CHOICE(struct external_port, protocol, protocols, REQUIRED, ANY_CASE,
		DOC("Protocol of the listener.")),
	TEXTS(struct external_port, hosts, REQUIRED, RANGE(1, 64), TEXT_MAX(253), FORMAT(check_host),
		EXAMPLE("[\"*\"]"),
		DOC("Hosts it answers for: names, *.name; an IP address or * stands for every host.")),
	FIELDS_END
};

static const struct field cert_fields[] = {
	TEXT(struct cert_server, secretName, RANGE(1, 128), DOC("Name of the certificate.")),
	TEXTS(struct cert_server, hosts, RANGE(0, 64), TEXT_MAX(253), FORMAT(check_host),
		EXAMPLE("[\"a.example.com\"]"),
		DOC("Names (SNI) it is shown for; those of the certificate when left out.")),
	CHOICE(struct cert_server, maxProtocolVersion, tls_versions,
		DOC("Latest TLS version; the gateway's when left out.")),
	CHOICE(struct cert_server, minProtocolVersion, tls_versions,
		DOC("Earliest TLS version; the gateway's when left out.")),
	FIELDS_END
};

static const struct field fields[] = {
	TEXT(struct gateway_doc, meshId, IMMUTABLE, RANGE(1, 64),
		REFERS("mesh"), DOC("Mesh it belongs to; from the path.")),
	TEXT(struct gateway_doc, cluster, REQUIRED, RANGE(1, 64), FORMAT(format_title), EXAMPLE("\"local\""),
		DOC("Cluster that serves it: nodes started with the same --cluster.")),
	TEXT(struct gateway_doc, gateway, REQUIRED, IMMUTABLE, FORMAT(check_name), EXAMPLE("\"shop\""),
		DOC("Name, unique in the mesh and namespace.")),
	TEXT(struct gateway_doc, namespace, REQUIRED, IMMUTABLE, FORMAT(format_dns_label),
		EXAMPLE("\"default\""), DOC("Namespace.")),
	TEXT(struct gateway_doc, elbId, REQUIRED, RANGE(1, 64), FORMAT(format_title), EXAMPLE("\"elb-1\""),
		DOC("Load balancer in front of it.")),
	OBJECT(struct gateway_doc, externalPort, port_fields, REQUIRED, DOC("What it listens on.")),
	TEXT(struct gateway_doc, serviceType, REQUIRED, FORMAT(check_load_balancer),
		EXAMPLE("\"LoadBalancer\""), DOC("Only LoadBalancer.")),
	BOOL(struct gateway_doc, tlsTerminationEnable,
		DOC("Whether TLS ends here; for HTTPS it always does.")),
	LIST(struct gateway_doc, certList, struct cert_server, cert_fields, RANGE(0, 64),
		DOC("Certificates, needed where TLS ends here.")),
	TEXT(struct gateway_doc, tlsMode, FORMAT(check_simple), EXAMPLE("\"SIMPLE\""),
		DOC("Only SIMPLE: no certificates of clients.")),
	TEXTS(struct gateway_doc, externalIPs, REQUIRED, RANGE(1, 64), TEXT_MAX(45), FORMAT(check_ip),
		EXAMPLE("[\"127.0.0.1\"]"),
		DOC("Addresses to bind; when none is local, the wildcard address is bound.")),
	CHOICE(struct gateway_doc, maxProtocolVersion, tls_versions, REQUIRED, DOC("Latest TLS version.")),
	CHOICE(struct gateway_doc, minProtocolVersion, tls_versions, REQUIRED, DOC("Earliest TLS version.")),
	TEXT(struct gateway_doc, ipv6Enable, FORMAT(check_boolean_text), EXAMPLE("\"false\""),
		DOC("Whether IPv6 addresses are allowed, as a string.")),
	TEXT(struct gateway_doc, defaultEnvironmentId, READ_ONLY, DOC("Environment made with the gateway.")),
	FIELDS_END
};

static void adapt(struct json *doc, struct arena *a)
{
	struct json *list = json_get(doc, "certList"), *ipv6 = json_get(doc, "ipv6Enable");
	struct json *port = json_get(doc, "externalPort");
	struct json *hosts = port ? json_get(port, "hosts") : NULL;

	adapt_tls_version(doc, "maxProtocolVersion", a);
	adapt_tls_version(doc, "minProtocolVersion", a);
	for (struct json *item = list ? list->child : NULL; item; item = item->next) {
		adapt_tls_version(item, "maxProtocolVersion", a);
		adapt_tls_version(item, "minProtocolVersion", a);
	}
	if (ipv6 && ipv6->type == JSON_BOOL)
		json_put(a, doc, "ipv6Enable", json_new_text(a, ipv6->boolean ? STR("true") : STR("false")));
	for (struct json *host = hosts ? hosts->child : NULL; host; host = host->next)
		adapt_lower_text(host, a);
}

/* ---------- rules within the document ---------- */

static bool check_certificates(const struct gateway_doc *g, struct problem *why)
{
	char at[48];

	for (size_t i = 0; i < g->certList.n; i++) {
		const struct cert_server *c = ITEM(g->certList, struct cert_server, i);
		int min = c->minProtocolVersion ? c->minProtocolVersion : g->minProtocolVersion;
		int max = c->maxProtocolVersion ? c->maxProtocolVersion : g->maxProtocolVersion;

		if (min > max) {
			snprintf(at, sizeof at, "certList[%zu].minProtocolVersion", i);
			return problem(why, at, "must not be later than maxProtocolVersion");
		}
	}
	return true;
}

static bool check_addresses(const struct gateway_doc *g, struct problem *why)
{
	bool ipv6 = str_equal(g->ipv6Enable, STR("true"));
	char at[32];

	for (size_t i = 0; i < g->externalIPs.n; i++) {
		struct ip ip, other;

		snprintf(at, sizeof at, "externalIPs[%zu]", i);
		if (!ip_parse(*ITEM(g->externalIPs, struct str, i), &ip))
			return problem(why, at, "must be an IPv4 or IPv6 address");
		if (!ip_is_v4(&ip) && !ipv6)
			return problem(why, at, "is an IPv6 address, but ipv6Enable is not \"true\"");
		for (size_t j = 0; j < i; j++)
			if (ip_parse(*ITEM(g->externalIPs, struct str, j), &other) &&
				memcmp(&ip, &other, sizeof ip) == 0)
				return problem(why, at, "is listed twice");
	}
	return true;
}

static bool same_host(struct str a, struct str b)
{
	struct ip x, y;

	if (ip_parse(a, &x) && ip_parse(b, &y))
		return memcmp(&x, &y, sizeof x) == 0;
	return str_equal_nocase(a, b);
}

static bool check_hosts(const struct gateway_doc *g, struct problem *why)
{
	const struct items *hosts = &g->externalPort.hosts;
	char at[32];

	for (size_t i = 0; i < hosts->n; i++)
		for (size_t j = 0; j < i; j++)
			if (same_host(*ITEM(*hosts, struct str, i), *ITEM(*hosts, struct str, j))) {
				snprintf(at, sizeof at, "externalPort.hosts[%zu]", i);
				return problem(why, at, "is listed twice");
			}
	return true;
}

static bool check(const void *in, struct problem *why)
{
	const struct gateway_doc *g = in;
	int protocol = g->externalPort.protocol;
	bool has_tls = protocol == GATEWAY_HTTPS || protocol == GATEWAY_TLS;

	if (g->tlsTerminationEnable && !has_tls)
		return problem(why, "tlsTerminationEnable",
			"must be false or left out when externalPort.protocol is \"%s\"",
			choice_text(protocols, protocol));
	if (g->minProtocolVersion > g->maxProtocolVersion)
		return problem(why, "minProtocolVersion", "must not be later than maxProtocolVersion");
	return check_hosts(g, why) && check_certificates(g, why) && check_addresses(g, why);
}

/* ---------- rules that need the model ---------- */

struct resource *certificate_find(const struct model *m, struct str namespace, struct str name)
{
	struct resource *r = model_find(m, RESOURCE_CERTIFICATE, &namespace, name);
	struct str other = STR("default");

	return r ? r : model_find(m, RESOURCE_CERTIFICATE, &other, name);
}

static bool check_cert_list(const struct draft *d, const struct gateway_doc *g, struct problem *why)
{
	char at[32];

	if (g->certList.n == 0)
		return problem(why, "certList", "must name a certificate, for TLS ends at this gateway");
	for (size_t i = 0; i < g->certList.n; i++) {
		struct str name = ITEM(g->certList, struct cert_server, i)->secretName;

		snprintf(at, sizeof at, "certList[%zu].secretName", i);
		if (!name.n)
			return problem(why, at, "is required");
		const struct resource *r = certificate_find(d->model, g->namespace, name);

		if (!r)
			return problem(why, at, "no certificate has the name \"%.*s\"", STR_FMT(name));
		if (!json_text(r->doc, "privateKey").n)
			return problem(why, at, "the certificate \"%.*s\" has no private key", STR_FMT(name));
	}
	return true;
}

/* 't' a name, 'w' *.name, '*' everything. */
static char host_kind(struct str host)
{
	struct ip ip;

	if (str_equal(host, STR("*")) || ip_parse(host, &ip))
		return '*';
	return str_starts(host, STR("*.")) ? 'w' : 't';
}

static bool covers(struct str wildcard, struct str name)
{
	return str_ends(name, (struct str){ wildcard.p + 1, wildcard.n - 1 });
}

/* A request could belong to both. A name beside "*" is no overlap: the name goes first. */
static bool hosts_overlap(struct str a, struct str b)
{
	char x = host_kind(a), y = host_kind(b);

	if (x == '*' || y == '*')
		return x == y;
	return str_equal(a, b) || (x == 'w' && covers(a, b)) || (y == 'w' && covers(b, a));
}

static const struct json *find_overlap(const struct json *a, const struct json *b)
{
	for (const struct json *x = a ? a->child : NULL; x; x = x->next)
		for (const struct json *y = b ? b->child : NULL; y; y = y->next)
			if (hosts_overlap(x->string, y->string))
				return x;
	return NULL;
}

static bool share_address(const struct json *a, const struct json *b)
{
	const struct json *x = json_get(a, "externalIPs"), *y = json_get(b, "externalIPs");
	struct ip ip, other;

	if (str_equal(json_text(a, "elbId"), json_text(b, "elbId")))
		return true;
	for (const struct json *v = x ? x->child : NULL; v; v = v->next)
		for (const struct json *w = y ? y->child : NULL; w; w = w->next)
			if (ip_parse(v->string, &ip) && ip_parse(w->string, &other) &&
				memcmp(&ip, &other, sizeof ip) == 0)
				return true;
	return false;
}

/* Byte streams cannot be told apart by host; TLS that passes through neither here. */
static bool owns_port(const struct json *doc)
{
	struct str protocol = json_text(json_get(doc, "externalPort"), "protocol");

	return str_equal(protocol, STR("TCP")) ||
	       (str_equal(protocol, STR("TLS")) && !json_is_true(doc, "tlsTerminationEnable"));
}

static bool is_tls(const struct json *doc)
{
	struct str protocol = json_text(json_get(doc, "externalPort"), "protocol");

	return str_equal(protocol, STR("TLS")) || str_equal(protocol, STR("HTTPS"));
}

static bool check_conflict(const struct draft *d, const struct resource *other, struct problem *why)
{
	const struct json *mine = json_get(d->doc, "externalPort"), *theirs = json_get(other->doc, "externalPort");

	if (str_equal(other->id, d->id) ||
		!str_equal(json_text(d->doc, "cluster"), json_text(other->doc, "cluster")) ||
		!str_equal(json_text(mine, "number"), json_text(theirs, "number")) ||
		!share_address(d->doc, other->doc))
		return true;
	if (owns_port(d->doc) || owns_port(other->doc) || is_tls(d->doc) != is_tls(other->doc))
		return problem_of(why, PROBLEM_CONFLICT, "externalPort.number",
			"port %.*s of this load balancer or address is used by "
			"gateway %.*s (%s)",
			STR_FMT(json_text(mine, "number")), STR_FMT(other->name), other->id.p);
	const struct json *host = find_overlap(json_get(mine, "hosts"), json_get(theirs, "hosts"));

	if (!host)
		return true;
	return problem_of(why, PROBLEM_CONFLICT, "externalPort.hosts",
		"\"%.*s\" overlaps with a host of gateway %.*s (%s) on port %.*s", STR_FMT(host->string),
		STR_FMT(other->name), other->id.p, STR_FMT(json_text(mine, "number")));
}

static bool complete(struct draft *d, struct problem *why)
{
	const struct gateway_doc *g = d->in;
	int protocol = g->externalPort.protocol;
	const struct json *terminate = json_get(d->doc, "tlsTerminationEnable");
	bool ends_here = g->tlsTerminationEnable || protocol == GATEWAY_HTTPS ||
			 (protocol == GATEWAY_TLS && !terminate && g->certList.n);
	size_t i = 0;

	if (protocol == GATEWAY_HTTPS && terminate && !terminate->boolean)
		return problem(why, "tlsTerminationEnable",
			"must be true or left out when externalPort.protocol is \"HTTPS\"");
	if (ends_here && !check_cert_list(d, g, why))
		return false;
	json_put(d->arena, d->doc, "tlsTerminationEnable", json_new_bool(d->arena, ends_here));
	for (const struct resource *other; (other = model_next(d->model, RESOURCE_GATEWAY, &i));)
		if (!check_conflict(d, other, why))
			return false;
	char random[21];

	crypto_id(random, 20);
	json_put(d->arena, d->doc, "defaultEnvironmentId",
	         d->before ? json_clone(d->arena, json_get(d->before->doc, "defaultEnvironmentId"))
	                   : json_new_text(d->arena, arena_printf(d->arena, "env-%s", random)));
	return true;
}

static bool make_environment(struct write *w, struct resource *r, struct problem *why)
{
	struct arena a = { 0 };
	struct json *body = json_new(&a, JSON_OBJECT);
	struct resource *environment;
	struct rest_input in = {
		.class = resource_classes[RESOURCE_ENVIRONMENT],
		.body = body,
		.id = json_text(r->doc, "defaultEnvironmentId"),
	};

	json_put(&a, body, "name", json_new_text(&a, STR("default")));
	json_put(&a, body, "alias", json_new_text(&a, STR("default")));
	json_put(&a, body, "gatewayId", json_new_text(&a, r->id));
	bool ok = rest_create(w, &in, &environment, why);

	arena_free(&a);
	return ok;
}

/* The environment and the settings that came with it go with it. */
static bool owns(const struct resource *r, const struct resource *user)
{
	return user->kind == RESOURCE_FEATURE ||
	       (user->kind == RESOURCE_ENVIRONMENT &&
		       str_equal(user->id, json_text(r->doc, "defaultEnvironmentId")));
}

static void render(const struct control *c, const struct resource *r, struct json *item, struct arena *a)
{
	struct status status = compile_gateway_status(control_compiler(c), r->id);
	struct json *shown = json_new(a, JSON_OBJECT), *addresses = json_new(a, JSON_ARRAY);

	json_put(a, shown, "phase", json_new_text(a, str_of(phase_name(status.phase))));
	if (status.reason.n)
		json_put(a, shown, "reason", json_new_text(a, arena_copy(a, status.reason)));
	if (status.last_error.n)
		json_put(a, shown, "lastError", json_new_text(a, arena_copy(a, status.last_error)));
	for (unsigned i = 0; i < status.n_addresses; i++)
		json_add(addresses, json_new_text(a, arena_copy(a, status.addresses[i])));
	json_put(a, shown, "addresses", addresses);
	json_put(a, item, "status", shown);
}

static const char *const read_only[] = { "defaultEnvironmentId", "status", NULL };

const struct resource_class gateway_class = {
	.kind = RESOURCE_GATEWAY,
	.name = "gateway",
	.noun = "Gateway",
	.plural = "Gateways",
	.attach_type = "Gateway",
	.id_field = "gatewayId",
	.id_prefix = "gw-",
	.path = "/v2/meshes/{meshId}/gateways",
	.scope = { "meshId", "namespace" },
	.has_unique_name = true,
	.name_field = "gateway",
	.read_only = read_only,
	.fields = fields,
	.size = sizeof(struct gateway_doc),
	.doc = "An entry point: addresses, port, protocol and hosts.",
	.adapt = adapt,
	.check = check,
	.complete = complete,
	.created = make_environment,
	.owns = owns,
	.render = render,
};
