/*
 * header.c -- well-known field names and methods by their spelling.
 *
 * header_lookup hashes length, first, middle and last letter into a sparse table, then compares once. Names of
 * headers.def hold letters and '-' only, so a byte of the canonical name has bit 0x40 exactly when it is a letter; that
 * bit, moved to 0x20, says where a difference in case is allowed. Eight bytes are compared at a time.
 */
#include "http/message.h"
#include "http/scan.h"

#define NAME_MAX_BYTES 32
#define SLOTS 256U

static const struct str names[HEADER_COUNT] = {
	[HEADER_OTHER] = { "", 0 },
#define HEADER(id, name) [HEADER_##id] = { (name), sizeof(name) - 1 },
#include "http/headers.def"
#undef HEADER
};
_Static_assert(HEADER_COUNT <= 64, "a message keeps the ids in one bit set");
/* Open addressing; 0 (HEADER_OTHER) ends a search. Filled before main, read only afterwards. */
static uint8_t slots[SLOTS];

static unsigned hash_name(const char *p, size_t n)
{
	unsigned first = (unsigned char)p[0] | 0x20U, middle = (unsigned char)p[n / 2] | 0x20U;
	unsigned last = (unsigned char)p[n - 1] | 0x20U;

	return ((unsigned)n * 5 + first * 3 + middle * 17 + last * 31) % SLOTS;
}

__attribute__((constructor)) static void fill_slots(void)
{
	for (unsigned id = 1; id < HEADER_COUNT; id++) {
		unsigned at = hash_name(names[id].p, names[id].n);

		while (slots[at])
			at = (at + 1) % SLOTS;
		slots[at] = (uint8_t)id;
	}
}

static uint64_t differ8(const char *p, const char *canonical)
{
	uint64_t x, c;

	memcpy(&x, p, 8);
	memcpy(&c, canonical, 8);
	return (x ^ c) & ~((c & 0x4040404040404040U) >> 1);
}

static uint32_t differ4(const char *p, const char *canonical)
{
	uint32_t x, c;

	memcpy(&x, p, 4);
	memcpy(&c, canonical, 4);
	return (x ^ c) & ~((c & 0x40404040U) >> 1);
}

static bool is_same(const char *p, const char *canonical, size_t n)
{
	if (n >= 8) {
		uint64_t differs = differ8(p + n - 8, canonical + n - 8);

		for (size_t i = 0; i + 8 < n; i += 8)
			differs |= differ8(p + i, canonical + i);
		return differs == 0;
	}
	if (n >= 4)
		return (differ4(p, canonical) | differ4(p + n - 4, canonical + n - 4)) == 0;
	for (size_t i = 0; i < n; i++) {
		int allowed = (canonical[i] & 0x40) >> 1;

		if ((p[i] ^ canonical[i]) & ~allowed)
			return false;
	}
	return true;
}

enum header_id header_lookup(struct str name)
{
	if (name.n < 2 || name.n > NAME_MAX_BYTES)
		return HEADER_OTHER;
	for (unsigned at = hash_name(name.p, name.n);; at = (at + 1) % SLOTS) {
		unsigned id = slots[at];

		if (id == HEADER_OTHER)
			return HEADER_OTHER;
		if (names[id].n == name.n && is_same(name.p, names[id].p, name.n))
			return (enum header_id)id;
	}
}

struct str header_name(enum header_id id)
{
	BUG_ON((unsigned)id >= HEADER_COUNT);
	return names[id];
}

enum method method_lookup(struct str name)
{
	static const struct {
		struct str name;
		enum method method;
	} methods[] = {
		{ { "GET", 3 }, METHOD_GET },         { { "POST", 4 }, METHOD_POST },
		{ { "PUT", 3 }, METHOD_PUT },         { { "HEAD", 4 }, METHOD_HEAD },
		{ { "DELETE", 6 }, METHOD_DELETE },   { { "PATCH", 5 }, METHOD_PATCH },
		{ { "OPTIONS", 7 }, METHOD_OPTIONS }, { { "CONNECT", 7 }, METHOD_CONNECT },
		{ { "TRACE", 5 }, METHOD_TRACE },
	};

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (str_equal(name, methods[i].name))
			return methods[i].method;
	return METHOD_OTHER;
}

bool header_is_token(struct str s)
{
	return s.n > 0 && scan_class(s.p, s.p + s.n, SCAN_TOKEN) == s.p + s.n;
}

bool header_is_value(struct str s)
{
	return s.n == 0 || scan_value(s.p, s.p + s.n) == s.p + s.n;
}
