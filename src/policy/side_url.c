#include "policy/side_url.h"


static bool covers(const char *text, const struct ip *ip)
{
	struct ip base;
	unsigned bits, i;

	BUG_ON(!cidr_parse(str_of(text), &base, &bits));
	for (i = 0; i < bits; i++) {
		unsigned mask = 0x80u >> (i % 8);

		if ((base.bytes[i / 8] ^ ip->bytes[i / 8]) & mask)
			return false;
	}
	return true;
}

static bool is_in(const char *const *prefixes, const struct ip *ip)
{
	for (; *prefixes; prefixes++)
		if (covers(*prefixes, ip))
			return true;
	return false;
}

bool side_url_is_blocked(const struct ip *ip)
{
	/* Link-local carries the metadata services of most clouds; the last three are those that live elsewhere. */
	static const char *const prefixes[] = {
		"169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32", "192.0.0.192/32",
			NULL
	};

	return is_in(prefixes, ip);
}

bool side_url_is_private_host(struct str host)
{
	static const char *const prefixes[] = {
		"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", NULL
	};
	static const char *const endings[] = {
		".localhost", ".local", ".internal", ".svc", ".home.arpa", ".test", NULL
	};
	struct ip ip;
	unsigned i;

	if (ip_parse(host, &ip))
		return is_in(prefixes, &ip);
	if (str_find(host, '.') == host.n)
		return true;
	for (i = 0; endings[i]; i++) {
		struct str ending = str_of(endings[i]);

		if (host.n > ending.n && str_equal_nocase((struct str){ host.p + host.n - ending.n,
			ending.n }, ending))
			return true;
	}
	return false;
}

bool side_url_format(struct str value, struct problem *why)
{
	struct url url;
	struct ip ip;

	if (value.n > SIDE_URL_MAX)
		return problem(why, "", "is a URL of %zu bytes; at most %d are allowed", value.n,
			SIDE_URL_MAX);
	if (!url_parse(value, &url))
		return problem(why, "", "must be an absolute URL such as https://host:port/path, without "
			"user name and fragment");
	if (!ip_parse(url.host, &ip) && !uri_is_host(url.host))
		return problem(why, "", "has a host that is neither a name nor an address");
	if (ip_parse(url.host, &ip) && side_url_is_blocked(&ip))
		return problem(why, "", "points to a link-local or metadata address, which policies may not "
			"call");
	return true;
}
