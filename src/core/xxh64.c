/* xxh64.c -- xxHash64 as its specification describes it, on machines of either byte order. */
#include "core/xxh64.h"
#include <string.h>

#define PRIME1 UINT64_C(0x9e3779b185ebca87)
#define PRIME2 UINT64_C(0xc2b2ae3d27d4eb4f)
#define PRIME3 UINT64_C(0x165667b19e3779f9)
#define PRIME4 UINT64_C(0x85ebca77c2b2ae63)
#define PRIME5 UINT64_C(0x27d4eb2f165667c5)

#define STRIPE 32                        /* bytes that go through the four lanes at once */

static uint64_t rotate(uint64_t v, unsigned bits)
{
	return v << bits | v >> (64 - bits);
}

static uint64_t read64(const char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

static uint32_t read32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap32(v);
#endif
	return v;
}

static uint64_t mix(uint64_t lane, uint64_t word)
{
	return rotate(lane + word * PRIME2, 31) * PRIME1;
}

static uint64_t merge(uint64_t hash, uint64_t lane)
{
	return (hash ^ mix(0, lane)) * PRIME1 + PRIME4;
}

/* All whole stripes; *p is left behind them. */
static uint64_t hash_stripes(const char **p, const char *end, uint64_t seed)
{
	uint64_t lanes[4] = { seed + PRIME1 + PRIME2, seed + PRIME2, seed, seed - PRIME1 }, hash;

	for (; end - *p >= STRIPE; *p += STRIPE)
		for (unsigned i = 0; i < 4; i++)
			lanes[i] = mix(lanes[i], read64(*p + 8 * i));
	hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
	for (unsigned i = 0; i < 4; i++)
		hash = merge(hash, lanes[i]);
	return hash;
}

static uint64_t finish(uint64_t hash, const char *p, const char *end)
{
	for (; end - p >= 8; p += 8)
		hash = rotate(hash ^ mix(0, read64(p)), 27) * PRIME1 + PRIME4;
	if (end - p >= 4) {
		hash = rotate(hash ^ read32(p) * PRIME1, 23) * PRIME2 + PRIME3;
		p += 4;
	}
	for (; p < end; p++)
		hash = rotate(hash ^ (uint8_t)*p * PRIME5, 11) * PRIME1;
	hash = (hash ^ hash >> 33) * PRIME2;
	hash = (hash ^ hash >> 29) * PRIME3;
	return hash ^ hash >> 32;
}

uint64_t xxh64(struct str data, uint64_t seed)
{
	static const char empty[1];
	const char *p = data.n ? data.p : empty, *end = p + data.n;
	uint64_t hash = data.n >= STRIPE ? hash_stripes(&p, end, seed) : seed + PRIME5;

	return finish(hash + data.n, p, end);
}
