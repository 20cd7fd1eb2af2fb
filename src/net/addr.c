#include "net/addr.h"
#include <ifaddrs.h>
#include <stdio.h>
#include "core/fault.h"

static const struct ip v4_zero = { { [10] = 0xff, [11] = 0xff } };

bool addr_parse(struct str text, struct addr *out)
{
	struct str host = text, port;
	bool bracketed = text.n && text.p[0] == '[';
	size_t colon;
	uint64_t number;
	struct ip ip;

	if (bracketed) {
		size_t close = str_find(text, ']');

		if (close + 1 >= text.n || text.p[close + 1] != ':')
			return false;
		host = (struct str){ text.p + 1, close - 1 };
		colon = close + 1;
	} else {
		colon = str_find(text, ':');
		if (colon == text.n)
			return false;
		host.n = colon;
	}
	port = (struct str){ text.p + colon + 1, text.n - colon - 1 };
	if (!str_to_u64(port, 65535, &number) || !ip_parse(host, &ip) || bracketed != (str_find(host, ':') < host.n))
		return false;
	*out = addr_of_ip(&ip, (uint16_t)number);
	return true;
}

struct addr addr_of_ip(const struct ip *ip, uint16_t port)
{
	struct addr a;

	memset(&a, 0, sizeof a);
	if (ip_is_v4(ip)) {
		a.storage.v4.sin_family = AF_INET;
		a.storage.v4.sin_port = htons(port);
		memcpy(&a.storage.v4.sin_addr, ip->bytes + 12, 4);
		a.length = sizeof a.storage.v4;
	} else {
		a.storage.v6.sin6_family = AF_INET6;
		a.storage.v6.sin6_port = htons(port);
		memcpy(&a.storage.v6.sin6_addr, ip->bytes, 16);
		a.length = sizeof a.storage.v6;
	}
	return a;
}

struct addr addr_any(bool v6, uint16_t port)
{
	static const struct ip v6_zero = { { 0 } };

	return addr_of_ip(v6 ? &v6_zero : &v4_zero, port);
}

/* Of a socket address of the kernel's; false for other families. */
static bool take_ip(const struct sockaddr *from, struct ip *out)
{
	if (from && from->sa_family == AF_INET) {
		*out = v4_zero;
		memcpy(out->bytes + 12, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
		return true;
	}
	if (from && from->sa_family == AF_INET6) {
		memcpy(out->bytes, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr, 16);
		return true;
	}
	return false;
}

struct ip addr_ip(const struct addr *a)
{
	struct ip ip = { { 0 } };

	BUG_ON(!take_ip(&a->storage.any, &ip));
	return ip;
}

uint16_t addr_port(const struct addr *a)
{
	return ntohs(a->storage.any.sa_family == AF_INET ? a->storage.v4.sin_port : a->storage.v6.sin6_port);
}

size_t addr_print(const struct addr *a, char out[ADDR_TEXT])
{
	char ip[46];
	bool bare;

	addr_print_ip(a, ip);
	bare = !strchr(ip, ':');
	return (size_t)snprintf(out, ADDR_TEXT, bare ? "%s:%u" : "[%s]:%u", ip, addr_port(a));
}

size_t addr_print_ip(const struct addr *a, char out[46])
{
	struct ip ip = addr_ip(a);

	return ip_print(&ip, out);
}

static bool ip_equal(const struct ip *a, const struct ip *b)
{
	return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	if (a->length == 0 || b->length == 0)
		return a->length == b->length;
	struct ip x = addr_ip(a), y = addr_ip(b);

	return ip_equal(&x, &y) && addr_port(a) == addr_port(b);
}

bool addr_is_loopback(const struct ip *ip)
{
	static const struct ip v6_loopback = { { [15] = 1 } };

	return ip_is_v4(ip) ? ip->bytes[12] == 127 : ip_equal(ip, &v6_loopback);
}

bool addr_is_wildcard(const struct ip *ip)
{
	static const struct ip v6_zero = { { 0 } };

	return ip_equal(ip, &v4_zero) || ip_equal(ip, &v6_zero);
}

bool addr_is_local(const struct ip *ip)
{
	struct ifaddrs *all, *at;
	bool found = false;
	struct ip have;

	if (addr_is_loopback(ip))
		return true;
	if (getifaddrs(&all) != 0)
		return false;
	for (at = all; at && !found; at = at->ifa_next)
		found = take_ip(at->ifa_addr, &have) && ip_equal(&have, ip);
	freeifaddrs(all);
	return found;
}
