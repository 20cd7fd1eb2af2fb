/*
 * cidr.c -- strict address forms, and prefix sets.
 *
 * A set is a pair of crit-bit trees (IPv4, IPv6) over prefixes none of which holds another: a prefix
 * swallows the ones inside it when it is added. An inner node names the first bit in which the prefixes
 * below it differ; a leaf is a prefix. So a lookup follows single bits down (at most 32 or 128, about log2
 * of the entries) and compares once, at the leaf. n prefixes take n leaves and n-1 inner nodes of 32 bytes
 * each.
 *
 *          bit 97            10.0.0.0/8 and 10.1.0.0/16 are one leaf: the first holds the second
 *         /      \
 *   10.0.0.0/8   bit 109
 *               /       \
 *      192.168.0.0/16   192.172.0.0/16
 */
#include "core/cidr.h"
#include <arpa/inet.h>
#include "core/fault.h"

#define BITS 128
#define V4_BITS 96                       /* where an IPv4 address starts */

struct node {
	uint8_t bit;                      /* inner node: the deciding bit; leaf: the prefix length */
	bool is_leaf;
	union {
		struct node *child[2];
		struct ip base;
	} u;
};

struct cidr_set {
	struct arena *a;
	struct node *v4, *v6;
	unsigned count;
};

static const uint8_t v4_mark[12] = { [10] = 0xff, [11] = 0xff };

bool ip_is_v4(const struct ip *ip)
{
	return memcmp(ip->bytes, v4_mark, sizeof v4_mark) == 0;
}

bool ip_parse(struct str text, struct ip *out)
{
	char z[INET6_ADDRSTRLEN];
	struct ip ip = { { 0 } };

	if (text.n == 0 || text.n >= sizeof z || memchr(text.p, '\0', text.n))
		return false;
	memcpy(z, text.p, text.n);
	z[text.n] = '\0';
	if (inet_pton(AF_INET, z, ip.bytes + 12) == 1)
		memcpy(ip.bytes, v4_mark, sizeof v4_mark);
	else if (inet_pton(AF_INET6, z, ip.bytes) != 1)
		return false;
	*out = ip;
	return true;
}

/* Each byte in digits with a dot behind them, and how many characters that is: filled before main. */
static struct {
	char text[4];
	uint8_t n;
} octets[256];

__attribute__((constructor)) static void fill_octets(void)
{
	for (unsigned v = 0; v < 256; v++) {
		char *end = str_put_u64(octets[v].text, v);

		octets[v].n = (uint8_t)(end + 1 - octets[v].text);
		*end = '.';
	}
}

/* Written for every request: without the formatting machinery of inet_ntop(). Up to 16 bytes. */
static size_t print_v4(const uint8_t *bytes, char *out)
{
	char *at = out;

	for (int i = 0; i < 4; i++) {
		memcpy(at, octets[bytes[i]].text, 4);
		at += octets[bytes[i]].n;
	}
	*--at = '\0';
	return (size_t)(at - out);
}

size_t ip_print(const struct ip *ip, char out[46])
{
	if (ip_is_v4(ip))
		return print_v4(ip->bytes + 12, out);
	BUG_ON(!inet_ntop(AF_INET6, ip->bytes, out, INET6_ADDRSTRLEN));
	return strlen(out);
}

static void mask(struct ip *ip, unsigned prefix)
{
	unsigned i = prefix / 8;

	if (i == sizeof ip->bytes)
		return;
	ip->bytes[i] = (uint8_t)(ip->bytes[i] & 0xff00 >> prefix % 8);
	memset(ip->bytes + i + 1, 0, sizeof ip->bytes - i - 1);
}

bool cidr_parse(struct str text, struct ip *base, unsigned *prefix)
{
	size_t slash = str_find(text, '/');
	struct str address = { text.p, slash };
	unsigned first = str_find(address, ':') < address.n ? 0 : V4_BITS;
	uint64_t bits = BITS - first;
	struct ip ip;

	if (!ip_parse(address, &ip))
		return false;
	if (slash < text.n && !str_to_u64((struct str){ text.p + slash + 1, text.n - slash - 1 }, bits, &bits))
		return false;
	*prefix = first + (unsigned)bits;
	mask(&ip, *prefix);
	*base = ip;
	return true;
}

static unsigned bit_of(const struct ip *ip, unsigned bit)
{
	return ip->bytes[bit / 8] >> (7 - bit % 8) & 1;
}

/* How many leading bits are the same. */
static unsigned common_bits(const struct ip *a, const struct ip *b)
{
	for (unsigned i = 0; i < sizeof a->bytes; i++) {
		unsigned difference = a->bytes[i] ^ b->bytes[i];

		if (difference)
			return i * 8 + (unsigned)__builtin_clz(difference) - 24;
	}
	return BITS;
}

struct cidr_set *cidr_set_new(struct arena *a)
{
	struct cidr_set *s = NEW(a, struct cidr_set);

	s->a = a;
	return s;
}

static struct node *new_leaf(struct cidr_set *s, const struct ip *base, unsigned prefix)
{
	struct node *leaf = NEW(s->a, struct node);

	leaf->is_leaf = true;
	leaf->bit = (uint8_t)prefix;
	leaf->u.base = *base;
	mask(&leaf->u.base, prefix);
	return leaf;
}

static const struct node *find_leaf(const struct node *n, const struct ip *ip)
{
	while (n && !n->is_leaf)
		n = n->u.child[bit_of(ip, n->bit)];
	return n;
}

/* The place in the tree on the way to `ip` below which everything shares its first `bits` bits. */
static struct node **find_place(struct node **at, const struct ip *ip, unsigned bits)
{
	while (!(*at)->is_leaf && (*at)->bit < bits)
		at = &(*at)->u.child[bit_of(ip, (*at)->bit)];
	return at;
}

static unsigned count_leaves(const struct node *n)
{
	return n->is_leaf ? 1 : count_leaves(n->u.child[0]) + count_leaves(n->u.child[1]);
}

void cidr_set_add(struct cidr_set *s, const struct ip *base, unsigned prefix)
{
	struct node **root = ip_is_v4(base) && prefix >= V4_BITS ? &s->v4 : &s->v6;
	struct node *leaf = new_leaf(s, base, prefix), *inner, **at;
	const struct node *near = find_leaf(*root, &leaf->u.base);
	unsigned same;

	BUG_ON(prefix > BITS);
	s->count++;
	if (!near) {
		*root = leaf;
		return;
	}
	same = common_bits(&leaf->u.base, &near->u.base);
	if (same >= near->bit && near->bit <= prefix) {
		s->count--;                   /* inside one that is there */
		return;
	}
	if (same >= prefix) {
		at = find_place(root, &leaf->u.base, prefix);
		s->count -= count_leaves(*at);
		*at = leaf;
		return;
	}
	at = find_place(root, &leaf->u.base, same);
	inner = NEW(s->a, struct node);
	inner->bit = (uint8_t)same;
	inner->u.child[bit_of(&leaf->u.base, same)] = leaf;
	inner->u.child[!bit_of(&leaf->u.base, same)] = *at;
	*at = inner;
}

bool cidr_set_has(const struct cidr_set *s, const struct ip *ip)
{
	const struct node *leaf = find_leaf(ip_is_v4(ip) ? s->v4 : s->v6, ip);

	return leaf && common_bits(&leaf->u.base, ip) >= leaf->bit;
}

unsigned cidr_set_count(const struct cidr_set *s)
{
	return s->count;
}
