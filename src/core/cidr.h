/*
 * cidr.h -- sets of IPv4/IPv6 prefixes with a lookup whose cost does not depend on how many there are.
 *
 * Addresses are 16 bytes in network order; IPv4 is kept as IPv4-mapped IPv6, so ::ffff:1.2.3.4 and 1.2.3.4
 * are one address. 0.0.0.0/0 covers IPv4 only, ::/0 IPv6 only. Host bits are masked off. Zone ids are
 * refused.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/str.h"

struct ip {
	uint8_t bytes[16];
};
bool ip_parse(struct str text, struct ip *out);                  /* strict: inet_pton forms only, no zone */
bool ip_is_v4(const struct ip *ip);
size_t ip_print(const struct ip *ip, char out[46]);              /* v4 dotted when mapped; returns length */
bool cidr_parse(struct str text, struct ip *base, unsigned *prefix);  /* prefix counts in 128 bits; "a.b.c.d" = host */

struct cidr_set;
struct cidr_set *cidr_set_new(struct arena *a);
void cidr_set_add(struct cidr_set *s, const struct ip *base, unsigned prefix);
bool cidr_set_has(const struct cidr_set *s, const struct ip *ip);
unsigned cidr_set_count(const struct cidr_set *s);                /* a prefix inside another one does not count */
