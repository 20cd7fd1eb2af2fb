/*
 * fuzz_cidr.c -- prefixes and addresses, one a line: a set must answer as a plain list of the same prefixes does.
 */
/* room: core */
#include <stddef.h>
#include <stdint.h>
#include "core/cidr.h"
#include "core/fault.h"

#define MOST 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct prefix {
	struct ip base;
	unsigned bits;
};

static bool covers(const struct prefix *p, const struct ip *ip)
{
	bool v4 = ip_is_v4(&p->base) && p->bits >= 96;

	if (v4 != ip_is_v4(ip))
		return false;
	for (unsigned i = 0; i < p->bits; i++)
		if ((p->base.bytes[i / 8] ^ ip->bytes[i / 8]) >> (7 - i % 8) & 1)
			return false;
	return true;
}

static void check_text(const struct ip *ip)
{
	char text[46];
	struct ip again;
	size_t n = ip_print(ip, text);

	BUG_ON(!ip_parse((struct str){ text, n }, &again) || memcmp(&again, ip, sizeof again) != 0);
}

/* The address itself and one with a bit turned at the prefix's edge. */
static void check(const struct cidr_set *set, const struct prefix *list, size_t n, const struct prefix *at)
{
	struct ip ip = at->base;

	for (unsigned turn = 0; turn < 3; turn++) {
		bool expected = false;

		for (size_t i = 0; i < n; i++)
			expected = expected || covers(&list[i], &ip);
		BUG_ON(cidr_set_has(set, &ip) != expected);
		unsigned bit = turn ? at->bits : at->bits - 1;
		if (bit < 128)
			ip.bytes[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = { 0 };
	struct cidr_set *set = cidr_set_new(&a);
	struct str rest = { (const char *)data, size }, line;
	struct prefix list[MOST];
	size_t n = 0;

	while (n < MOST && str_split(&rest, '\n', &line)) {
		if (!cidr_parse(line, &list[n].base, &list[n].bits))
			continue;
		check_text(&list[n].base);
		cidr_set_add(set, &list[n].base, list[n].bits);
		n++;
		BUG_ON(cidr_set_count(set) > n || cidr_set_count(set) == 0);
	}
	for (size_t i = 0; i < n; i++)
		check(set, list, n, &list[i]);
	arena_free(&a);
	return 0;
}
