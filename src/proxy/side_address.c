#include "proxy/side_address.h"

/* Where the admin API listens; length 0 = nowhere. Written before the workers start. */
static struct addr admin;

/* The IPv4 address within an IPv6 one that leads to it: NAT64 (64:ff9b::/96), 6to4 (2002::/16). */
static struct ip unwrap(const struct ip *ip)
{
	static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b };
	struct ip out = { { [10] = 0xff, [11] = 0xff } };

	if (memcmp(ip->bytes, nat64, sizeof nat64) == 0)
		memcpy(out.bytes + 12, ip->bytes + 12, 4);
	else if (ip->bytes[0] == 0x20 && ip->bytes[1] == 0x02)
		memcpy(out.bytes + 12, ip->bytes + 2, 4);
	else
		return *ip;
	return out;
}

static bool is_v4_blocked(const uint8_t b[4])
{
	static const uint8_t metadata[][4] = {
		{ 100, 100, 100, 200 }, { 192, 0, 0, 192 }, { 168, 63, 129, 16 },
	};

	/* "This network", link-local (where most metadata services are), multicast and what is above it. */
	if (b[0] == 0 || (b[0] == 169 && b[1] == 254) || b[0] >= 224)
		return true;
	for (unsigned i = 0; i < sizeof metadata / sizeof metadata[0]; i++)
		if (memcmp(b, metadata[i], 4) == 0)
			return true;
	return false;
}

static bool is_v6_blocked(const uint8_t b[16])
{
	static const uint8_t unspecified[16] = { 0 };
	static const uint8_t metadata[][16] = {
		{ 0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54 },
		{ 0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54 },
	};

	/* Link-local, multicast. */
	if ((b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || b[0] == 0xff || memcmp(b, unspecified, 16) == 0)
		return true;
	for (unsigned i = 0; i < sizeof metadata / sizeof metadata[0]; i++)
		if (memcmp(b, metadata[i], 16) == 0)
			return true;
	return false;
}

bool side_address_is_blocked(const struct ip *ip)
{
	struct ip real = unwrap(ip);

	return ip_is_v4(&real) ? is_v4_blocked(real.bytes + 12) : is_v6_blocked(real.bytes);
}

void side_address_set_admin(const struct addr *at)
{
	admin = *at;
}

static bool is_admin(const struct addr *to)
{
	if (admin.length == 0 || addr_port(to) != addr_port(&admin))
		return false;
	struct ip ip = addr_ip(to), real = unwrap(&ip), own = addr_ip(&admin);

	if (memcmp(real.bytes, own.bytes, sizeof own.bytes) == 0)
		return true;
	return addr_is_wildcard(&own) && addr_is_local(&real);
}

bool side_address_may_call(const struct addr *to)
{
	struct ip ip = addr_ip(to);

	return !side_address_is_blocked(&ip) && !is_admin(to);
}
