/* uri.c -- hosts, authorities, percent-decoding and absolute URLs. */
#include "http/uri.h"
#include "core/cidr.h"
#include "http/scan.h"

#define DNS_NAME_BYTES 253U
#define DNS_LABEL_BYTES 63U

static bool is_ipv6(struct str text)
{
	struct ip ip;

	return str_find(text, ':') < text.n && ip_parse(text, &ip);
}

/* Where the host of an authority ends: at the first byte that is no host byte, or after ']'. 0: there is none. */
static size_t measure_host(struct str authority)
{
	const char *end = authority.p + authority.n, *stop;
	size_t n;

	if (authority.n == 0)
		return 0;
	if (authority.p[0] != '[')
		return (size_t)(scan_class(authority.p, end, SCAN_HOST) - authority.p);
	stop = scan_byte(authority.p, end, ']');
	if (stop == end)
		return 0;
	n = (size_t)(stop - authority.p);
	return is_ipv6((struct str){ authority.p + 1, n - 1 }) ? n + 1 : 0;
}

bool uri_split_authority(struct str authority, struct str *host, uint16_t *port)
{
	size_t n = measure_host(authority);
	struct str digits;
	uint64_t number;

	if (n == 0)
		return false;
	*host = (struct str){ authority.p, n };
	*port = 0;
	if (n == authority.n)
		return true;
	if (authority.p[n] != ':')
		return false;
	digits = (struct str){ authority.p + n + 1, authority.n - n - 1 };
	/* RFC 3986 3.2.3 allows the colon without a port. */
	if (digits.n == 0)
		return true;
	if (!str_to_u64(digits, UINT16_MAX, &number) || number == 0)
		return false;
	*port = (uint16_t)number;
	return true;
}

static bool is_label(struct str label)
{
	if (label.n == 0 || label.n > DNS_LABEL_BYTES || label.p[0] == '-' || label.p[label.n - 1] == '-')
		return false;
	for (size_t i = 0; i < label.n; i++)
		if (!SCAN_IS(label.p[i], SCAN_HOST) || label.p[i] == '_' || label.p[i] == '.')
			return false;
	return true;
}

static bool is_number(struct str label)
{
	return scan_class(label.p, label.p + label.n, SCAN_DIGIT) == label.p + label.n;
}

bool uri_is_dns_name(struct str host, bool allow_wildcard)
{
	struct str label = { NULL, 0 };

	if (host.n == 0 || host.n > DNS_NAME_BYTES)
		return false;
	if (allow_wildcard && str_starts(host, STR("*.")))
		host = (struct str){ host.p + 2, host.n - 2 };
	for (struct str rest = host; str_split(&rest, '.', &label);)
		if (!is_label(label))
			return false;
	/* A last label of digits would be taken for (part of) an IPv4 address. */
	return label.n > 0 && !is_number(label);
}

bool uri_is_host(struct str host)
{
	struct ip ip;

	if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
		return is_ipv6((struct str){ host.p + 1, host.n - 2 });
	return uri_is_dns_name(host, false) || (host.n > 0 && ip_parse(host, &ip));
}

struct str uri_decode(struct arena *a, struct str s, bool form)
{
	char *out = arena_take(a, s.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '%') {
			int high = s.n - i > 2 ? scan_hex(s.p[i + 1]) : -1;
			int low = s.n - i > 2 ? scan_hex(s.p[i + 2]) : -1;

			if (high < 0 || low < 0)
				return (struct str){ NULL, 0 };
			c = (char)(high << 4 | low);
			i += 2;
		} else if (c == '+' && form) {
			c = ' ';
		}
		out[n++] = c;
	}
	out[n] = '\0';
	return (struct str){ out, n };
}

static bool take_scheme(struct str text, struct url *out, size_t *n)
{
	static const struct str http = { "http://", 7 }, https = { "https://", 8 };

	out->is_https = text.n >= https.n && str_equal_nocase((struct str){ text.p, https.n }, https);
	*n = out->is_https ? https.n : http.n;
	return out->is_https || (text.n >= http.n && str_equal_nocase((struct str){ text.p, http.n }, http));
}

bool url_parse(struct str text, struct url *out)
{
	size_t skip;
	const char *p, *end = text.p + text.n, *stop;
	struct url url = { .target = STR("/") };

	if (!take_scheme(text, &url, &skip) || !uri_is_clean(text))
		return false;
	p = text.p + skip;
	for (stop = p; stop < end && *stop != '/' && *stop != '?';)
		stop++;
	url.authority = (struct str){ p, (size_t)(stop - p) };
	if (!uri_split_authority(url.authority, &url.host, &url.port) || !uri_is_host(url.host))
		return false;
	if (url.port == 0)
		url.port = url.is_https ? 443 : 80;
	if (url.host.p[0] == '[')
		url.host = (struct str){ url.host.p + 1, url.host.n - 2 };
	/* "http://host?x" has no path, and a target needs one: the text itself holds no "/" to point to. */
	if (stop < end && *stop == '?')
		return false;
	if (stop < end)
		url.target = (struct str){ stop, (size_t)(end - stop) };
	*out = url;
	return true;
}
