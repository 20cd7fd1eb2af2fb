/* header.c -- well-known field names and methods by their spelling. */
#include "http/header_table.h"
#include "http/scan.h"

static const struct str names[HEADER_COUNT] = {
	[HEADER_OTHER] = { "", 0 },
#define HEADER(id, name) [HEADER_##id] = { (name), sizeof(name) - 1 },
#include "http/headers.def"
#undef HEADER
};
_Static_assert(HEADER_COUNT <= 64, "a message keeps the ids in one bit set");

/* Both are filled before main and only read afterwards. */
struct header_known header_known[HEADER_COUNT];
uint8_t header_sizes[HEADER_COUNT];
uint8_t header_slots[HEADER_SLOTS];
static char titles[HEADER_COUNT][HEADER_NAME_BYTES];
static uint8_t short_ids[8];
static unsigned n_short;

static void fill_known(struct header_known *known, struct str name)
{
	char *keep = (char *)known->keep;

	BUG_ON(name.n > HEADER_NAME_BYTES);
	memcpy(known->text, name.p, name.n);
	for (size_t i = 0; i < name.n; i++)
		keep[i] = (char)(name.p[i] == '-' ? 0xff : 0xdf);
}

/* As people write it: each word with a capital, some names in their own way. */
static void fill_title(char *title, enum header_id id)
{
	static const struct {
		enum header_id id;
		const char *text;
	} own[] = {
		{ HEADER_ETAG, "ETag" }, { HEADER_TE, "TE" }, { HEADER_WWW_AUTHENTICATE, "WWW-Authenticate" },
		{ HEADER_GRPC_STATUS, "grpc-status" }, { HEADER_X_REAL_IP, "X-Real-IP" },
	};
	bool is_first = true;

	for (size_t i = 0; i < names[id].n; i++) {
		char c = names[id].p[i];

		title[i] = (char)(is_first && c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
		is_first = c == '-';
	}
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		if (own[i].id == id)
			memcpy(title, own[i].text, names[id].n);
}

__attribute__((constructor)) static void fill_tables(void)
{
	for (unsigned id = 1; id < HEADER_COUNT; id++) {
		unsigned at;

		fill_known(&header_known[id], names[id]);
		fill_title(titles[id], (enum header_id)id);
		header_sizes[id] = (uint8_t)names[id].n;
		if (names[id].n < HEADER_HASHED_BYTES) {
			BUG_ON(n_short == sizeof short_ids);
			short_ids[n_short++] = (uint8_t)id;
			continue;
		}
		for (at = header_hash(names[id].p, names[id].n); header_slots[at];)
			at = (at + 1) % HEADER_SLOTS;
		header_slots[at] = (uint8_t)id;
	}
}

static bool is_name(struct str name, unsigned id)
{
	return names[id].n == name.n && scan_is_word(name.p, names[id].p, name.n);
}

enum header_id header_search(struct str name, unsigned at)
{
	if (name.n > HEADER_NAME_BYTES)
		return HEADER_OTHER;
	if (name.n >= HEADER_HASHED_BYTES) {
		while (header_slots[at] && !is_name(name, header_slots[at]))
			at = (at + 1) % HEADER_SLOTS;
		return (enum header_id)header_slots[at];
	}
	for (unsigned i = 0; i < n_short; i++)
		if (is_name(name, short_ids[i]))
			return (enum header_id)short_ids[i];
	return HEADER_OTHER;
}

enum header_id header_lookup(struct str name)
{
	return header_find(name);
}

struct str header_name(enum header_id id)
{
	BUG_ON((unsigned)id >= HEADER_COUNT);
	return names[id];
}

struct str header_title(enum header_id id)
{
	BUG_ON((unsigned)id >= HEADER_COUNT);
	return (struct str){ titles[id], names[id].n };
}

static enum method choose(struct str name, const char *text, enum method method)
{
	return memcmp(name.p, text, name.n) == 0 ? method : METHOD_OTHER;
}

enum method method_lookup(struct str name)
{
	switch (name.n) {
	case 3:
		if (memcmp(name.p, "GET", 3) == 0)
			return METHOD_GET;
		return choose(name, "PUT", METHOD_PUT);
	case 4:
		if (memcmp(name.p, "POST", 4) == 0)
			return METHOD_POST;
		return choose(name, "HEAD", METHOD_HEAD);
	case 5:
		if (memcmp(name.p, "PATCH", 5) == 0)
			return METHOD_PATCH;
		return choose(name, "TRACE", METHOD_TRACE);
	case 6:
		return choose(name, "DELETE", METHOD_DELETE);
	case 7:
		if (memcmp(name.p, "OPTIONS", 7) == 0)
			return METHOD_OPTIONS;
		return choose(name, "CONNECT", METHOD_CONNECT);
	default:
		return METHOD_OTHER;
	}
}

bool header_is_token(struct str s)
{
	return s.n > 0 && scan_class(s.p, s.p + s.n, SCAN_TOKEN) == s.p + s.n;
}

bool header_is_value(struct str s)
{
	return s.n == 0 || scan_value(s.p, s.p + s.n) == s.p + s.n;
}
