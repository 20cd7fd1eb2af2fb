/*
 * header_table.h -- the well-known names, hashed, with the lookup that the parser has inline. Private to this room.
 *
 * The hash is made from length, first and last letters and leads into a sparse table; one comparison settles it. Names
 * of headers.def hold letters and '-' only, at most 32 of them.
 */
#pragma once
#include "http/message.h"

#define HEADER_NAME_BYTES 32
#define HEADER_HASHED_BYTES 4             /* shorter names are searched for one by one */
#define HEADER_SLOTS 256U
#define HEADER_SEED 0x58989009U           /* found by trial: no two names of headers.def share a slot */

struct header_known {
	_Alignas(64) uint64_t text[4];    /* lower case, zeros after it */
	uint64_t keep[4];                 /* without the bit that may differ: 0x20 of each letter */
};
extern struct header_known header_known[HEADER_COUNT];
extern uint8_t header_sizes[HEADER_COUNT];
extern uint8_t header_slots[HEADER_SLOTS];        /* open addressing; 0 (HEADER_OTHER) ends a search */

/* First and last four bytes, in lower case (other bytes are mixed up, which only costs a comparison). */
static inline unsigned header_hash(const char *p, size_t n)
{
	uint32_t first, last;

	memcpy(&first, p, 4);
	memcpy(&last, p + n - 4, 4);
	return (((first | 0x20202020U) + 5 * (last | 0x20202020U) + (uint32_t)n) * HEADER_SEED) >> 24;
}

static inline uint64_t header_differ8(const char *p, const struct header_known *known, size_t at)
{
	uint64_t x, w, keep;

	memcpy(&x, p + at, 8);
	memcpy(&w, (const char *)known->text + at, 8);
	memcpy(&keep, (const char *)known->keep + at, 8);
	return (x ^ w) & keep;
}

static inline uint32_t header_differ4(const char *p, const struct header_known *known, size_t at)
{
	uint32_t x, w, keep;

	memcpy(&x, p + at, 4);
	memcpy(&w, (const char *)known->text + at, 4);
	memcpy(&keep, (const char *)known->keep + at, 4);
	return (x ^ w) & keep;
}

/* n is at least HEADER_HASHED_BYTES; the same length was checked. */
static inline bool header_is_same(const char *p, const struct header_known *known, size_t n)
{
	uint64_t differs;

	if (n < 8)
		return (header_differ4(p, known, 0) | header_differ4(p, known, n - 4)) == 0;
	differs = header_differ8(p, known, 0) | header_differ8(p, known, n - 8);
	if (n > 16)
		differs |= header_differ8(p, known, 8) | header_differ8(p, known, n - 16);
	return differs == 0;
}

/* The first 32 bytes at p are readable; the same length was checked. */
static inline bool header_is_same_padded(const char *p, const struct header_known *known, size_t n)
{
	uint64_t differs = header_differ8(p, known, 0) | header_differ8(p, known, 8);

	if (n > 16)
		differs |= header_differ8(p, known, 16) | header_differ8(p, known, 24);
	return differs == 0;
}

/* From the slot `at` on; any length. */
enum header_id header_search(struct str name, unsigned at);

static inline enum header_id header_find(struct str name)
{
	unsigned at, id;

	if (UNLIKELY(name.n - HEADER_HASHED_BYTES > HEADER_NAME_BYTES - HEADER_HASHED_BYTES))
		return header_search(name, 0);
	at = header_hash(name.p, name.n);
	id = header_slots[at];
	if (id == HEADER_OTHER)
		return HEADER_OTHER;
	if (LIKELY(header_sizes[id] == name.n) && LIKELY(header_is_same(name.p, &header_known[id], name.n)))
		return (enum header_id)id;
	return header_search(name, at);
}

/* The same for a name behind which a block of the scans may be read. */
static inline enum header_id header_find_padded(struct str name)
{
	const struct header_known *known;
	unsigned at, id;

	if (UNLIKELY(name.n - HEADER_HASHED_BYTES > HEADER_NAME_BYTES - HEADER_HASHED_BYTES))
		return header_search(name, 0);
	at = header_hash(name.p, name.n);
	id = header_slots[at];
	known = &header_known[id];
	if (LIKELY(header_sizes[id] == name.n) && LIKELY(header_is_same_padded(name.p, known, name.n)))
		return (enum header_id)id;
	return id == HEADER_OTHER ? HEADER_OTHER : header_search(name, at);
}
