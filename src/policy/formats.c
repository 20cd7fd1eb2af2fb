#include "policy/formats.h"
#include "core/cidr.h"
#include "http/message.h"
#include "http/uri.h"

const struct choice time_units[] = {
	{ 1, "s", "seconds", NULL },
	{ 60, "m", "minutes", NULL },
	{ 3600, "h", "hours", NULL },
	{ 0, NULL, NULL, NULL }
};

int64_t seconds_to_ms(double seconds)
{
	/* 0.55 s are 550 ms, however the product is rounded. */
	double ms = seconds * 1000 - 1e-6;
	int64_t whole = (int64_t)ms;

	if (seconds <= 0)
		return 0;
	return ms > 0 && (double)whole == ms ? whole : whole + 1;
}

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

bool format_line(struct str s, struct problem *why)
{
	for (size_t i = 0; i < s.n; i++)
		if (is_control(s.p[i]))
			return problem(why, "", "must not contain line breaks, NUL or other control "
				"characters");
	return true;
}

bool format_name(struct str s, struct problem *why)
{
	if (!format_line(s, why))
		return false;
	if (str_trim(s).n == 0)
		return problem(why, "", "must not be blank");
	return true;
}

bool format_header_name(struct str s, struct problem *why)
{
	if (s.n > 256)
		return problem(why, "", "must have at most 256 bytes");
	if (!header_is_token(s))
		return problem(why, "", "must be a header name: letters, digits and !#$%%&'*+-.^_`|~");
	return true;
}

bool format_header_value(struct str s, struct problem *why)
{
	if (!header_is_value(s))
		return problem(why, "", "must not contain line breaks, NUL or other control characters");
	return true;
}

bool format_method(struct str s, struct problem *why)
{
	if (s.n > 64 || !header_is_token(s))
		return problem(why, "", "must be an HTTP method such as GET");
	return true;
}

bool format_host(struct str s, struct problem *why)
{
	struct str host;
	uint16_t port;

	if (s.n == 0 || !uri_split_authority(s, &host, &port) || !uri_is_host(host) || s.p[s.n - 1] == ':')
		return problem(why, "", "must be a host name or IP address, with :port if needed, without "
			"scheme or path");
	return true;
}

bool format_dns_name(struct str s, struct problem *why)
{
	struct ip ip;

	if (ip_parse(s, &ip) || !uri_is_dns_name(s, false))
		return problem(why, "", "must be a DNS name, without port; an IP address is none");
	return true;
}

bool format_port(struct str s, struct problem *why)
{
	uint64_t port;

	if (!str_to_u64(s, 65535, &port) || port == 0)
		return problem(why, "", "must be a port from \"1\" to \"65535\"");
	return true;
}

bool format_url(struct str s, struct problem *why)
{
	struct url url;

	if (!url_parse(s, &url))
		return problem(why, "", "must be an absolute http:// or https:// URL");
	return true;
}

static size_t count_digits(struct str s)
{
	size_t n = 0;

	while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
		n++;
	return n;
}

static struct str skip(struct str s, size_t n)
{
	return (struct str){ s.p + n, s.n - n };
}

bool format_duration(struct str s, struct problem *why)
{
	static const char *const units[] = { "", "ms", "s", "m", "h" };
	size_t whole = count_digits(s), part = 0;
	struct str unit = skip(s, whole);
	bool has_point = unit.n > 0 && unit.p[0] == '.';

	if (has_point) {
		part = count_digits(skip(unit, 1));
		unit = skip(unit, 1 + part);
	}
	if (s.n <= 32 && whole > 0 && (!has_point || part > 0))
		for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			if (str_equal(unit, str_of(units[i])))
				return true;
	return problem(why, "", "must be a duration such as 30s, 250ms, 5m or 1h; a bare number counts "
		"seconds");
}

/* Whether a segment is "." or "..", also when written with %2e. */
static bool is_dots(struct str segment)
{
	unsigned dots = 0;

	for (size_t i = 0; i < segment.n; dots++) {
		struct str rest = skip(segment, i);

		if (rest.p[0] == '.')
			i += 1;
		else if (rest.n >= 3 && str_equal_nocase((struct str){ rest.p, 3 }, STR("%2e")))
			i += 3;
		else
			return false;
	}
	return dots == 1 || dots == 2;
}

static bool is_path_byte(char c)
{
	return c > 0x20 && c < 0x7f && c != '\\' && c != '#';
}

bool path_check(struct str s, bool query_ok, struct problem *why)
{
	size_t end = str_find(s, '?');
	struct str rest = { s.p, end }, segment;

	if (s.n == 0 || s.p[0] != '/')
		return problem(why, "", "must begin with /");
	if (end < s.n && !query_ok)
		return problem(why, "", "must not contain a query");
	for (size_t i = 0; i < s.n; i++)
		if (!is_path_byte(s.p[i]))
			return problem(why, "",
				"must not contain blanks, control characters, #, \\ or non-ASCII bytes; "
					"escape them as %%XX");
	while (str_split(&rest, '/', &segment))
		if (is_dots(segment))
			return problem(why, "", "must not contain a . or .. segment");
	return true;
}

bool format_path(struct str s, struct problem *why)
{
	return path_check(s, false, why);
}

bool list_check(struct str s, bool (*item)(struct str part, struct problem *why), struct problem *why)
{
	struct str rest = s, part;

	while (str_split(&rest, ',', &part)) {
		part = str_trim(part);
		if (part.n == 0)
			return problem(why, "", "must not contain an empty element");
		if (!item(part, why)) {
			struct problem inner = *why;

			return problem(why, "", "\"%.*s\" %s", (int)(part.n > 64 ? 64 : part.n), part.p,
				inner.text);
		}
	}
	return true;
}

bool problem_in(struct problem *why, const char *list, size_t i)
{
	char index[32];

	snprintf(index, sizeof(index), "[%zu]", i);
	problem_prefix(why, index);
	problem_prefix(why, list);
	return false;
}
