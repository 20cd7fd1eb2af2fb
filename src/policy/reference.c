#include "policy/reference.h"
#include "http/uri.h"

/* The distinct ports of one service. */
struct ports {
	int64_t list[256];
	unsigned n;
};

static void add_port(struct ports *ports, int64_t port)
{
	for (unsigned i = 0; i < ports->n; i++)
		if (ports->list[i] == port)
			return;
	if (ports->n < sizeof(ports->list) / sizeof(ports->list[0]))
		ports->list[ports->n++] = port;
}

static int64_t port_number(const struct json *port)
{
	const struct json *number = json_get(port, "port");

	return number && number->type == JSON_INT ? number->integer : 0;
}

static const struct json *first_item(const struct json *object, const char *list)
{
	const struct json *v = json_get(object, list);

	return v && v->type == JSON_ARRAY ? v->child : NULL;
}

static void collect_ports(const struct json *service, struct ports *ports)
{
	*ports = (struct ports){ 0 };
	for (const struct json *p = first_item(service, "ports"); p; p = p->next)
		add_port(ports, port_number(p));
	for (const struct json *a = first_item(service, "addresses"); a; a = a->next) {
		struct str text = a->type == JSON_STRING ? a->string : json_text(a, "address"), host;
		uint16_t port;

		if (uri_split_authority(text, &host, &port) && port)
			add_port(ports, port);
	}
}

bool reference_service(const struct attach_target *t, struct str id, const char *field,
	const struct json **service,
	struct problem *why)
{
	const struct json *found = t->find(t, "service", id);

	if (!found)
		return problem(why, field, "there is no service \"%.*s\"", STR_FMT(id));
	if (!str_equal(json_text(found, "gatewayId"), t->gateway_id))
		return problem(why, field, "service \"%.*s\" belongs to another gateway", STR_FMT(id));
	*service = found;
	return true;
}

bool reference_port(const struct json *service, struct str port, const char *field, struct problem *why)
{
	struct ports ports;
	uint64_t number = 0;

	collect_ports(service, &ports);
	if (port.n == 0)
		return ports.n < 2 || problem(why, field, "is required, the service has %u ports", ports.n);
	for (unsigned i = 0; i < ports.n; i++)
		if (str_to_u64(port, 65535, &number) && ports.list[i] == (int64_t)number)
			return true;
	return problem(why, field, "the service has no port %.*s", STR_FMT(port));
}

bool reference_version(const struct json *service, struct str version, const char *field, struct problem *why)
{
	if (version.n == 0)
		return true;
	for (const struct json *v = first_item(service, "versions"); v; v = v->next)
		if (str_equal(json_text(v, "name"), version))
			return true;
	return problem(why, field, "the service has no version \"%.*s\"", STR_FMT(version));
}

struct str reference_protocol(const struct json *service, struct str port)
{
	struct str protocol = STR("HTTP");
	uint64_t number = 0;
	bool is_given = str_to_u64(port, 65535, &number);

	for (const struct json *p = first_item(service, "ports"); p; p = p->next) {
		if (is_given && port_number(p) != (int64_t)number)
			continue;
		return json_text(p, "protocol").n ? json_text(p, "protocol") : protocol;
	}
	return protocol;
}
