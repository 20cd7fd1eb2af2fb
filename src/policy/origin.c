#include "policy/origin.h"
#include "http/uri.h"

static bool is_alpha(char c)
{
	c = str_lower(c);
	return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_scheme(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_alpha(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '+' && s.p[i] != '-' && s.p[i] != '.')
			return false;
	return s.n > 0 && is_alpha(s.p[0]);
}

/* Letters, digits, '-', '.' and '_' (which browsers allow in names). */
static bool is_name(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_alpha(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '-' && s.p[i] != '.' && s.p[i] != '_')
			return false;
	return s.n > 0;
}

static uint16_t default_port(struct str scheme)
{
	if (str_equal_nocase(scheme, STR("http")))
		return 80;
	return str_equal_nocase(scheme, STR("https")) ? 443 : 0;
}

/* Splits "host[:port]"; the colons of an IPv6 literal stand inside its brackets. */
static bool split_port(struct str text, struct str *host, struct str *port)
{
	size_t end = text.n && text.p[0] == '[' ? str_find(text, ']') : str_find(text, ':');

	if (text.n && text.p[0] == '[')
		end += end < text.n;
	*host = (struct str){ text.p, end };
	*port = (struct str){ text.p + end, text.n - end };
	if (port->n == 0)
		return true;
	if (port->p[0] != ':')
		return false;
	*port = (struct str){ port->p + 1, port->n - 1 };
	return port->n > 0;
}

bool origin_parse(struct str text, struct origin *out)
{
	size_t colon = str_find(text, ':');
	struct str scheme = { text.p, colon }, rest = { text.p + colon, text.n - colon }, host, port;
	uint64_t number = 0;

	*out = (struct origin){ .is_null = str_equal(text, STR("null")) };
	if (out->is_null)
		return true;
	if (!is_scheme(scheme) || !str_starts(rest, STR("://")))
		return false;
	rest = (struct str){ rest.p + 3, rest.n - 3 };
	if (!split_port(rest, &host, &port) || host.n == 0)
		return false;
	if (port.n && (!str_to_u64(port, 65535, &number) || number == 0))
		return false;
	if (host.p[0] == '[' ? !uri_is_host(host) : !is_name(host))
		return false;
	out->scheme = scheme;
	out->host = host;
	out->port = port.n ? (uint16_t)number : default_port(scheme);
	return true;
}

/* A rule with a wildcard keeps its host without the star, so that it begins with the dot. */
static bool parse_rule(struct str text, struct origin_rule *out)
{
	size_t colon = str_find(text, ':');
	struct str rest = { text.p + colon, text.n - colon }, host, port;
	uint64_t number = 0;

	*out = (struct origin_rule){ .is_wildcard = str_starts(rest, STR("://*.")) };
	if (!out->is_wildcard)
		return origin_parse(text, &out->origin) &&
		       (out->origin.is_null || uri_is_host(out->origin.host) || is_name(out->origin.host));
	rest = (struct str){ rest.p + 3, rest.n - 3 };
	out->origin.scheme = (struct str){ text.p, colon };
	if (!is_scheme(out->origin.scheme) || !split_port(rest, &host, &port) || !uri_is_dns_name(host, true))
		return false;
	if (port.n && (!str_to_u64(port, 65535, &number) || number == 0))
		return false;
	out->origin.host = (struct str){ host.p + 1, host.n - 1 };
	out->origin.port = port.n ? (uint16_t)number : default_port(out->origin.scheme);
	return true;
}

bool origin_check(struct str text, struct problem *why)
{
	struct origin_rule rule;

	if (!str_equal(text, STR("*")) && !parse_rule(text, &rule))
		return problem(why, "", "is no origin; write scheme://host, scheme://host:port, "
			"scheme://*.domain, null or *, without a path or a slash at the end");
	return true;
}

void origins_parse(struct str list, struct arena *a, struct origins *out)
{
	struct str rest = list, part;
	size_t commas = 1;

	for (size_t i = 0; i < list.n; i++)
		commas += list.p[i] == ',';
	*out = (struct origins){ .rules = NEW_N(a, struct origin_rule, commas) };
	while (str_split(&rest, ',', &part)) {
		part = str_trim(part);
		if (str_equal(part, STR("*")))
			out->any = true;
		else if (parse_rule(part, &out->rules[out->n]))
			out->n++;
	}
}

static bool matches(const struct origin_rule *rule, const struct origin *o)
{
	const struct str host = rule->origin.host;

	if (rule->origin.is_null || o->is_null)
		return rule->origin.is_null && o->is_null;
	if (rule->origin.port != o->port || !str_equal_nocase(rule->origin.scheme, o->scheme))
		return false;
	if (!rule->is_wildcard)
		return str_equal_nocase(host, o->host);
	return o->host.n > host.n && o->host.p[0] != '.' &&
	       str_equal_nocase(host, (struct str){ o->host.p + o->host.n - host.n, host.n });
}

bool origins_match(const struct origins *o, struct str origin)
{
	struct origin parsed;

	if (o->any)
		return true;
	if (!origin_parse(origin, &parsed))
		return false;
	for (unsigned i = 0; i < o->n; i++)
		if (matches(&o->rules[i], &parsed))
			return true;
	return false;
}
