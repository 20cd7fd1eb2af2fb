/*
 * service.c -- where requests go: addresses, ports, versions, health. Its service ports are resources made from it.
 */
#include "control/resources/shared.h"
#include <stdio.h>
#include "control/control_parts.h"
#include "control/rest.h"
#include "core/cidr.h"
#include "http/uri.h"
#include "policy/formats.h"

enum { PORTS_MAX = 64, ADDRESSES_MAX = 1024 };

static const struct choice source_types[] = {
	{ SOURCE_VIP, "VIP", "fixed IP addresses", NULL },
	{ SOURCE_DNS, "DNS", "names, looked up again and again", NULL },
	{ SOURCE_AI, "AI", "a model provider: aiServiceConfig", NULL },
	{ SOURCE_AGENT, "AGENT", "an agent provider: agentServiceConfig", NULL },
	{ 0, NULL, NULL, NULL },
};
static const struct choice health_protocols[] = {
	{ HEALTH_CHECK_TCP, "TCP", "a connection is enough", NULL },
	{ HEALTH_CHECK_HTTP, "HTTP", "GET httpPath answers 2xx or 3xx", NULL },
	{ HEALTH_CHECK_GRPC, "GRPC", "grpc.health.v1 answers SERVING", NULL },
	{ 0, NULL, NULL, NULL },
};
static const struct choice ai_protocols[] = {
	{ 1, "OpenAI/v1", "OpenAI's API", NULL },
	{ 2, "Anthropic/v1", "Anthropic's API", NULL },
	{ 3, "DashScope/v1", "DashScope's own API", NULL },
	{ 0, NULL, NULL, NULL },
};

bool service_split_address(struct str address, struct str *host, uint16_t *port)
{
	struct ip ip;

	if (ip_parse(address, &ip)) {             /* "::1" without brackets */
		*host = address;
		*port = 0;
		return true;
	}
	if (!uri_split_authority(address, host, port))
		return false;
	if (host->n > 2 && host->p[0] == '[')
		*host = (struct str){ host->p + 1, host->n - 2 };
	return ip_parse(*host, &ip) || uri_is_dns_name(*host, false);
}

static bool check_address_text(struct str s, struct problem *why)
{
	struct str host;
	uint16_t port;

	return service_split_address(s, &host, &port) ||
	       problem(why, "", "must be an address such as \"10.0.0.1:8080\" or \"[::1]:8080\"");
}

static bool check_protocol(struct str s, struct problem *why)
{
	return choice_find(ai_protocols, s, true) ||
	       problem(why, "", "must be OpenAI/v1, Anthropic/v1 or DashScope/v1");
}

static const struct field address_fields[] = {
	TEXT(struct service_address, address, REQUIRED, RANGE(1, 270), FORMAT(check_address_text),
		EXAMPLE("\"127.0.0.1:9001\""),
		DOC("Host and port; without a port it has every port of the service.")),
	INT(struct service_address, weight, RANGE(0, 10000), DEFAULT("100"), DOC("Share of the requests.")),
	ANY(struct service_address, labels, DOC("Texts by name.")),
	TEXT(struct service_address, version, RANGE(1, 64), DOC("Version it runs.")),
	FIELDS_END
};

static const struct field port_fields[] = {
	TEXT(struct service_port_entry, name, RANGE(1, 63), FORMAT(format_title), EXAMPLE("\"http\""),
		DOC("Name of the port.")),
	INT(struct service_port_entry, port, REQUIRED, RANGE(1, 65535), EXAMPLE("9001"), DOC("Port number.")),
	CHOICE(struct service_port_entry, protocol, service_protocols, DEFAULT("\"HTTP\""), ANY_CASE,
		DOC("Protocol of the port.")),
	FIELDS_END
};

static const struct field version_fields[] = {
	TEXT(struct service_version, name, REQUIRED, RANGE(1, 64), FORMAT(format_title), EXAMPLE("\"v2\""),
		DOC("Name of the version.")),
	ANY(struct service_version, labels, DOC("Endpoints that have all these labels belong to it.")),
	FIELDS_END
};

static const struct field health_fields[] = {
	BOOL(struct health_check_config, enable, REQUIRED, DOC("Whether endpoints are checked.")),
	CHOICE(struct health_check_config, protocol, health_protocols, DEFAULT("\"TCP\""), ANY_CASE,
		DOC("How they are checked.")),
	TEXT(struct health_check_config, httpPath, DEFAULT("\"/\""), RANGE(1, 2048), FORMAT(format_path),
		DOC("Path asked for. Of GRPC: /NAME asks for the health of that gRPC service, / for the server's.")),
	TEXT(struct health_check_config, httpHost, RANGE(1, 255), FORMAT(format_host),
		DOC("Host sent; the endpoint's address when left out.")),
	INT(struct health_check_config, interval, RANGE(1, 3600), DEFAULT("5"), UNIT("seconds"),
		DOC("Time between two checks.")),
	INT(struct health_check_config, timeout, RANGE(1, 300), DEFAULT("2"), UNIT("seconds"),
		DOC("Longest wait for an answer.")),
	INT(struct health_check_config, healthyThreshold, RANGE(1, 100), DEFAULT("2"),
		DOC("Good checks in a row until it is used.")),
	INT(struct health_check_config, unhealthyThreshold, RANGE(1, 100), DEFAULT("3"),
		DOC("Bad checks in a row until it is not.")),
	FIELDS_END
};

static const struct field outlier_fields[] = {
	BOOL(struct outlier_detection_config, enable, REQUIRED,
		DOC("Whether endpoints that fail are left out for a while.")),
	INT(struct outlier_detection_config, consecutive5xx, RANGE(1, 1000), DEFAULT("5"),
		DOC("Failures in a row that eject.")),
	INT(struct outlier_detection_config, interval, RANGE(1, 3600), DEFAULT("10"), UNIT("seconds"),
		DOC("Each so long without an ejection makes up for one of those before.")),
	INT(struct outlier_detection_config, baseEjectionTime, RANGE(1, 3600), DEFAULT("30"), UNIT("seconds"),
		DOC("Time out of use, times the ejections in a row (10 at most).")),
	INT(struct outlier_detection_config, maxEjectionPercent, RANGE(0, 100), DEFAULT("50"),
		UNIT("percent"), DOC("At most this share is out of use; one of several may always be, unless 0.")),
	FIELDS_END
};

/* Its URL says where it is, unless the service has addresses. */
#define SENT_TO_PROVIDER SECRET_SENT_TO("address", "addresses", "ports")

static const struct field ai_fields[] = {
	TEXT(struct ai_service_config, provider, REQUIRED, RANGE(1, 64), FORMAT(format_title),
		EXAMPLE("\"openai\""), DOC("Model provider.")),
	TEXT(struct ai_service_config, address, REQUIRED, RANGE(1, 2048), FORMAT(format_url),
		EXAMPLE("\"https://api.openai.com\""), DOC("Its address.")),
	TEXTS(struct ai_service_config, apiKeys, SENT_TO_PROVIDER, RANGE(0, 64), TEXT_MAX(4096), FORMAT(format_line),
		EXAMPLE("[\"sk-1\"]"), DOC("Keys sent to it, in turn; never returned.")),
	TEXTS(struct ai_service_config, protocols, RANGE(0, 8), FORMAT(check_protocol),
		DEFAULT("[\"OpenAI/v1\"]"), DOC("What it speaks.")),
	FIELDS_END
};

static const struct field credential_fields[] = {
	TEXT(struct app_credential, appId, REQUIRED, RANGE(1, 256), FORMAT(format_line), EXAMPLE("\"app-1\""),
		DOC("Id of the app.")),
	TEXT(struct app_credential, apiKey, REQUIRED, SENT_TO_PROVIDER, RANGE(1, 4096), FORMAT(format_line),
		DOC("Its key; never returned.")),
	FIELDS_END
};

struct dash_scope { struct items appCredentials; };
struct dify { struct str apiKey, botType; };
struct custom { struct str apiKey; };

static const struct field dash_scope_fields[] = {
	LIST(struct dash_scope, appCredentials, struct app_credential, credential_fields, REQUIRED,
		RANGE(1, 256), DOC("Apps and keys.")),
	FIELDS_END
};
static const struct field dify_fields[] = {
	TEXT(struct dify, apiKey, REQUIRED, SENT_TO_PROVIDER, RANGE(1, 4096),
		FORMAT(format_line), DOC("Key; never returned.")),
	TEXT(struct dify, botType, RANGE(1, 64), FORMAT(format_line), EXAMPLE("\"Chat\""),
		DOC("Kind of app.")),
	FIELDS_END
};
static const struct field custom_fields[] = {
	TEXT(struct custom, apiKey, SENT_TO_PROVIDER, RANGE(1, 4096), FORMAT(format_line), DOC("Key; never returned.")),
	FIELDS_END
};

static const struct field agent_fields[] = {
	TEXT(struct agent_service_config, address, REQUIRED, RANGE(1, 2048), FORMAT(format_url),
		EXAMPLE("\"https://dashscope.aliyuncs.com\""), DOC("Its address.")),
	OBJECT(struct agent_service_config, dashScopeConfig, dash_scope_fields,
		PRESENT(struct agent_service_config, has_dashScopeConfig), DOC("Model Studio apps.")),
	OBJECT(struct agent_service_config, difyConfig, dify_fields,
		PRESENT(struct agent_service_config, has_difyConfig), DOC("Dify.")),
	OBJECT(struct agent_service_config, customConfig, custom_fields,
		PRESENT(struct agent_service_config, has_customConfig), DOC("Any other.")),
	FIELDS_END
};

static const struct field fields[] = {
	TEXT(struct service_doc, name, REQUIRED, RANGE(1, 512), FORMAT(format_title), EXAMPLE("\"orders\""),
		DOC("Name, unique in the gateway.")),
	TEXT(struct service_doc, gatewayId, REQUIRED, IMMUTABLE, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway it belongs to.")),
	CHOICE(struct service_doc, sourceType, source_types, DEFAULT("\"VIP\""), IMMUTABLE, ANY_CASE,
		DOC("Where its addresses come from.")),
	ANY(struct service_doc, addresses, EXAMPLE("[\"127.0.0.1:9001\"]"),
		DOC("Endpoints: \"host:port\", or objects of address, weight, labels and version.")),
	LIST(struct service_doc, ports, struct service_port_entry, port_fields, RANGE(0, PORTS_MAX),
		DOC("Ports.")),
	LIST(struct service_doc, versions, struct service_version, version_fields, RANGE(0, 64),
		DOC("Versions, by label.")),
	OBJECT(struct service_doc, healthCheckConfig, health_fields,
		PRESENT(struct service_doc, has_healthCheckConfig), DOC("Active checks.")),
	OBJECT(struct service_doc, outlierDetectionConfig, outlier_fields,
		PRESENT(struct service_doc, has_outlierDetectionConfig), DOC("Passive checks.")),
	NUMBER(struct service_doc, healthyPanicThreshold, RANGE(0, 100), DEFAULT("0"), UNIT("percent"),
		DOC("When fewer of the endpoints are up, all are used as if they were; 0: never.")),
	OBJECT(struct service_doc, aiServiceConfig, ai_fields,
		PRESENT(struct service_doc, has_aiServiceConfig), DOC("For sourceType AI.")),
	OBJECT(struct service_doc, agentServiceConfig, agent_fields,
		PRESENT(struct service_doc, has_agentServiceConfig), DOC("For sourceType AGENT.")),
	FIELDS_END
};

/* ---------- addresses ---------- */

static bool decode_address(const struct json *v, struct service_address *out, struct arena *a, struct problem *why)
{
	if (v->type != JSON_STRING)
		return fields_decode(address_fields, v, out, a, why);
	out->address = arena_copy(a, v->string);
	out->weight = 100;
	return check_address_text(v->string, why);
}

bool service_addresses(const struct service_doc *s, struct arena *a, struct items *out, struct problem *why)
{
	char at[24];
	unsigned i = 0;

	*out = (struct items){ 0 };
	if (!s->addresses)
		return true;
	if (s->addresses->type != JSON_ARRAY)
		return problem(why, "addresses", "must be a list");
	if (s->addresses->n > ADDRESSES_MAX)
		return problem(why, "addresses", "must have at most %d items, not %u", ADDRESSES_MAX,
			s->addresses->n);
	*out = (struct items){ NEW_N(a, struct service_address, s->addresses->n), s->addresses->n };
	for (const struct json *v = s->addresses->child; v; v = v->next, i++) {
		if (decode_address(v, ITEM(*out, struct service_address, i), a, why))
			continue;
		snprintf(at, sizeof at, "addresses[%u]", i);
		problem_prefix(why, at);
		return false;
	}
	return true;
}

static bool check_labels(const struct json *labels, const char *list, size_t i, struct problem *why)
{
	char at[48];
	bool ok = !labels || labels->type == JSON_OBJECT;

	for (const struct json *v = ok && labels ? labels->child : NULL; ok && v; v = v->next)
		ok = v->type == JSON_STRING && v->string.n <= 256 && v->name.n >= 1 && v->name.n <= 128;
	if (ok)
		return true;
	snprintf(at, sizeof at, "%s[%zu].labels", list, i);
	return problem(why, at, "must be an object of texts of at most 256 bytes");
}

static bool check_address(const struct service_doc *s, const struct items *list, size_t i, struct problem *why)
{
	const struct service_address *address = ITEM(*list, struct service_address, i);
	struct str host;
	struct ip ip;
	uint16_t port;
	char at[32];

	snprintf(at, sizeof at, "addresses[%zu]", i);
	if (!service_split_address(address->address, &host, &port))
		return problem(why, at, "must be an address such as \"10.0.0.1:8080\"");
	if (port == 0 && s->ports.n == 0)
		return problem(why, at, "must have a port, for ports is empty");
	if (s->sourceType == SOURCE_VIP && !ip_parse(host, &ip))
		return problem(why, at, "must be an IP address when sourceType is \"VIP\"; names need \"DNS\"");
	for (size_t j = 0; j < i; j++)
		if (str_equal(ITEM(*list, struct service_address, j)->address, address->address))
			return problem(why, at, "is listed twice");
	return check_labels(address->labels, "addresses", i, why);
}

/* ---------- the document ---------- */

static bool check_ports(const struct service_doc *s, struct problem *why)
{
	char at[32];

	for (size_t i = 0; i < s->ports.n; i++) {
		const struct service_port_entry *p = ITEM(s->ports, struct service_port_entry, i);

		for (size_t j = 0; j < i; j++) {
			const struct service_port_entry *other = ITEM(s->ports, struct service_port_entry, j);

			snprintf(at, sizeof at, "ports[%zu].%s", i, p->port == other->port ? "port" : "name");
			if (p->port == other->port || (p->name.n && str_equal(p->name, other->name)))
				return problem(why, at, "is listed twice");
		}
	}
	return true;
}

static bool check_versions(const struct service_doc *s, struct problem *why)
{
	char at[32];

	for (size_t i = 0; i < s->versions.n; i++) {
		const struct service_version *v = ITEM(s->versions, struct service_version, i);

		for (size_t j = 0; j < i; j++)
			if (str_equal(v->name, ITEM(s->versions, struct service_version, j)->name)) {
				snprintf(at, sizeof at, "versions[%zu].name", i);
				return problem(why, at, "is listed twice");
			}
		if (!check_labels(v->labels, "versions", i, why))
			return false;
	}
	return true;
}

static bool check_source(const struct service_doc *s, struct problem *why)
{
	bool is_ai = s->sourceType == SOURCE_AI, is_agent = s->sourceType == SOURCE_AGENT;

	/* An empty list is a service that has no endpoint at present; without one it was forgotten. */
	if (!is_ai && !is_agent && !s->addresses)
		return problem(why, "addresses", "is required when sourceType is \"%s\"; it may be an empty list",
			choice_text(source_types, s->sourceType));
	if (is_ai && !s->has_aiServiceConfig)
		return problem(why, "aiServiceConfig", "is required when sourceType is \"AI\"");
	if (is_agent && !s->has_agentServiceConfig)
		return problem(why, "agentServiceConfig", "is required when sourceType is \"AGENT\"");
	return true;
}

static bool check(const void *in, struct problem *why)
{
	const struct service_doc *s = in;
	struct arena a = { 0 };
	struct items addresses;
	bool ok = service_addresses(s, &a, &addresses, why);

	for (size_t i = 0; ok && i < addresses.n; i++)
		ok = check_address(s, &addresses, i, why);
	ok = ok && check_ports(s, why) && check_versions(s, why) && check_source(s, why);
	if (ok && s->has_healthCheckConfig && s->healthCheckConfig.timeout > s->healthCheckConfig.interval)
		ok = problem(why, "healthCheckConfig.timeout", "must not be longer than interval");
	arena_free(&a);
	return ok;
}

/* ---------- its ports ---------- */

struct wanted_port {
	int64_t port;
	struct str name, protocol;
};

struct ports {
	struct wanted_port wanted[PORTS_MAX + ADDRESSES_MAX];
	unsigned n;
	struct resource *have[PORTS_MAX + ADDRESSES_MAX];
	unsigned n_have;
};

static void want_port(struct ports *p, int64_t port, struct str name, struct str protocol)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->wanted[i].port == port)
			return;
	p->wanted[p->n++] = (struct wanted_port){ port, name, protocol };
}

static void list_wanted(struct ports *p, const struct json *doc, struct arena *a)
{
	const struct json *ports = json_get(doc, "ports"), *addresses = json_get(doc, "addresses");

	for (const struct json *v = ports ? ports->child : NULL; v; v = v->next)
		want_port(p, json_get(v, "port")->integer, json_text(v, "name"), json_text(v, "protocol"));
	for (const struct json *v = addresses ? addresses->child : NULL; v; v = v->next) {
		struct str host;
		uint16_t port;

		if (service_split_address(
			    v->type == JSON_STRING ? v->string : json_text(v, "address"), &host, &port) &&
			port)
			want_port(p, port, STR(""), STR("HTTP"));
	}
	for (unsigned i = 0; i < p->n; i++)
		if (!p->wanted[i].name.n)
			p->wanted[i].name = arena_printf(a, "port-%lld", (long long)p->wanted[i].port);
}

static bool collect_port(void *arg, struct resource *r)
{
	struct ports *p = arg;

	if (r->kind == RESOURCE_SERVICE_PORT && p->n_have < PORTS_MAX + ADDRESSES_MAX)
		p->have[p->n_have++] = r;
	return true;
}

static struct resource *find_port(const struct ports *p, int64_t port)
{
	for (unsigned i = 0; i < p->n_have; i++)
		if (json_get(p->have[i]->doc, "port")->integer == port)
			return p->have[i];
	return NULL;
}

static bool is_wanted(const struct ports *p, int64_t port)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->wanted[i].port == port)
			return true;
	return false;
}

static bool put_port(struct write *w, const struct resource *service, const struct wanted_port *wanted,
	struct resource *have, struct problem *why)
{
	struct arena a = { 0 };
	struct json *body = json_new(&a, JSON_OBJECT);
	struct rest_input in = {
		.class = resource_classes[RESOURCE_SERVICE_PORT],
		.body = body,
		.parent_id = service->id,
		.internal = true,
	};

	json_put(&a, body, "gatewayId", json_new_text(&a, json_text(service->doc, "gatewayId")));
	json_put(&a, body, "name", json_new_text(&a, wanted->name));
	json_put(&a, body, "port", json_new_int(&a, wanted->port));
	json_put(&a, body, "protocol", json_new_text(&a, wanted->protocol));
	bool ok = have ? rest_replace(w, have, &in, &have, why) : rest_create(w, &in, &have, why);

	arena_free(&a);
	return ok;
}

/* ---------- ports that go ---------- */

struct port_user {
	struct str service_id;
	int64_t port;
	struct resource *found;
};

static bool names_port(const struct json *services, const struct port_user *u)
{
	for (const struct json *v = services ? services->child : NULL; v; v = v->next) {
		const struct json *port = json_get(v, "port");

		if (port && port->integer == u->port && str_equal(json_text(v, "serviceId"), u->service_id))
			return true;
	}
	return false;
}

static bool look_for_user(void *arg, struct resource *r)
{
	struct port_user *u = arg;

	if (names_port(json_get(json_get(r->doc, "backend"), "services"), u) ||
		names_port(json_get(r->doc, "services"), u))
		u->found = r;
	return !u->found;
}

static bool remove_port(struct write *w, const struct resource *service, struct resource *port, struct problem *why)
{
	struct port_user u = { service->id, json_get(port->doc, "port")->integer, NULL };

	model_referrers(w->control->model, RESOURCE_SERVICE, service->id, look_for_user, &u);
	if (!u.found)
		return rest_delete(w, port, why);
	return problem_of(why, PROBLEM_CONFLICT, "ports", "port %lld is used by %s %.*s (\"%.*s\")", (long long)u.port,
		resource_classes[u.found->kind]->name, STR_FMT(u.found->id), STR_FMT(u.found->name));
}

/* First what is gone, so that its names are free. */
static bool sync_ports(struct write *w, struct resource *r, struct problem *why)
{
	struct arena a = { 0 };
	struct ports *p = NEW(&a, struct ports);
	bool ok = true;

	list_wanted(p, r->doc, &a);
	model_referrers(w->control->model, RESOURCE_SERVICE, r->id, collect_port, p);
	for (unsigned i = 0; ok && i < p->n_have; i++)
		if (!is_wanted(p, json_get(p->have[i]->doc, "port")->integer))
			ok = remove_port(w, r, p->have[i], why);
	for (unsigned i = 0; ok && i < p->n; i++)
		ok = put_port(w, r, &p->wanted[i], find_port(p, p->wanted[i].port), why);
	arena_free(&a);
	return ok;
}

static bool created(struct write *w, struct resource *r, struct problem *why)
{
	return sync_ports(w, r, why);
}

static bool replaced(struct write *w, struct resource *before, struct resource *r, struct problem *why)
{
	(void)before;
	return sync_ports(w, r, why);
}

static bool owns(const struct resource *r, const struct resource *user)
{
	(void)r;
	return user->kind == RESOURCE_SERVICE_PORT;
}

const struct resource_class service_class = {
	.kind = RESOURCE_SERVICE,
	.name = "service",
	.noun = "Service",
	.plural = "Services",
	.attach_type = "Service",
	.id_field = "serviceId",
	.id_prefix = "svc-",
	.path = "/api/v1/services",
	.scope = { "gatewayId" },
	.has_unique_name = true,
	.fields = fields,
	.size = sizeof(struct service_doc),
	.doc = "Endpoints that requests are sent to.",
	.check = check,
	.created = created,
	.replaced = replaced,
	.owns = owns,
};
