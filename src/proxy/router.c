/*
 * One buffer holds the key: kind and vhost number in front of the path, so the path is copied once and each
 * kind of key is made by overwriting the front. Ends of segments are found once, prefix hashes are taken in
 * one pass from left to right and looked up from the longest to the shortest, and only for numbers of
 * segments that occur among the vhost's prefixes.
 */
#include "proxy/router.h"
#include "http/uri.h"

enum {
	FRONT = 5,                                 /* kind, vhost number */
	SLACK = 8,                                 /* bytes after a key that may be read */
	STACK_PATH = 256,                          /* longer paths use the arena */
	STACK_KEY = FRONT + STACK_PATH + SLACK,
	STACK_ENDS = STACK_PATH + 1,
	DEEPEST = 63,                              /* depth bits: this many segments or more */
	NAME_MAX_DNS = 255,
};

/* Buffers that are written before they are read: clearing them would cost more than the search. */
#define UNCLEARED __attribute__((uninitialized))

struct search {
	const struct snapshot *snapshot;
	const struct message *req;
	enum method method;
	struct str method_name;
	struct str path;
	char *key;                                 /* front, path, SLACK */
	char *folded;                              /* the same in lower case; NULL when not made yet */
	size_t *ends;                              /* of the segments, as lengths of the path up to them */
	unsigned n_ends;
	bool has_slash;                            /* at the end: an empty last segment, not counted in n_ends */
	const struct router_listener *listener;    /* NULL: nobody asks */
};

/* A prefix that may exist. */
struct mark {
	size_t length;                             /* of the path up to it */
	uint64_t hash, folded_hash;
};

/* ---------- keys ---------- */

/* ASCII letters of 8 bytes in lower case; other bytes stay. */
static inline uint64_t fold_word(uint64_t word)
{
	const uint64_t each = UINT64_C(0x0101010101010101);
	uint64_t low = word & each * 0x7f;
	uint64_t from_a = low + each * (0x80 - 'A'), past_z = low + each * (0x7f - 'Z');

	return word | ((from_a ^ past_z) & ~word & each * 0x80) >> 2;
}

/* Whole words: up to 7 bytes after the text change too. */
static void fold(char *text, size_t n)
{
	uint64_t word;

	for (size_t i = 0; i < n; i += sizeof(word)) {
		memcpy(&word, text + i, sizeof(word));
		word = fold_word(word);
		memcpy(text + i, &word, sizeof(word));
	}
}

/* The first n bytes (less than 8) at p, of which 8 may be read, as pmap_hash_end wants them. */
static inline uint64_t rest_word(const char *p, size_t n)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return word & ((UINT64_C(1) << 8 * n) - 1);
#else
	return n ? word >> (64 - 8 * n) << (64 - 8 * n) : 0;
#endif
}

/* Hashes of longer and longer parts of one key. */
struct roll {
	const char *key;
	size_t fed;
	uint64_t state;
};

static inline uint64_t roll_to(struct roll *r, size_t size)
{
	uint64_t word;

	for (; r->fed + sizeof(word) <= size; r->fed += sizeof(word)) {
		memcpy(&word, r->key + r->fed, sizeof(word));
		r->state = pmap_hash_word(r->state, word);
	}
	return pmap_hash_end(r->state, rest_word(r->key + r->fed, size - r->fed), size);
}

static inline void write_front(char *key, char kind, uint32_t vhost)
{
	key[0] = kind;
	memcpy(key + 1, &vhost, sizeof(vhost));
}

struct str router_key(struct arena *a, char kind, uint32_t vhost, struct str path)
{
	char *key = arena_take(a, FRONT + path.n + SLACK);

	write_front(key, kind, vhost);
	memset(key + FRONT + path.n, 0, SLACK);
	memcpy(key + FRONT, path.p, path.n);
	if (kind >= 'a')
		fold(key + FRONT, path.n);
	return (struct str){ key, FRONT + path.n };
}

unsigned router_depth(struct str path)
{
	unsigned slashes = 0;

	for (size_t i = 0; i < path.n; i++)
		slashes += path.p[i] == '/';
	return path.n == 1 ? 0 : slashes;
}

/* ---------- conditions ---------- */

static bool satisfies(const struct condition *c, struct str value)
{
	switch (c->type) {
	case MATCH_EXACT:
		return str_equal(value, c->value);
	case MATCH_PREFIX:
		return str_starts(value, c->value);
	case MATCH_REGEX:
		return regex_match_whole(c->regex, value) == REGEX_YES;
	case MATCH_TEMPLATE:
		break;
	}
	return false;
}

static bool has_headers(const struct search *q, const struct route *r)
{
	for (unsigned i = 0; i < r->n_headers; i++) {
		struct str value = message_join(q->req, r->headers[i].name);

		if (!value.p && !message_find_name(q->req, r->headers[i].name))
			return false;
		if (!satisfies(&r->headers[i], value))
			return false;
	}
	return true;
}

/* The first parameter of that name, both decoded; absent str when there is none, or its value has a bad escape. */
static struct str find_query(const struct search *q, struct str name)
{
	struct str rest = q->req->query, part;

	while (str_split(&rest, '&', &part)) {
		size_t equals = str_find(part, '=');
		struct str decoded = uri_decode(q->req->arena, (struct str){ part.p, equals }, true);

		if (!decoded.p || !str_equal(decoded, name))
			continue;
		if (equals == part.n)
			return STR("");
		return uri_decode(q->req->arena, (struct str){ part.p + equals + 1, part.n - equals - 1 }, true);
	}
	return (struct str){ NULL, 0 };
}

static bool has_queries(const struct search *q, const struct route *r)
{
	for (unsigned i = 0; i < r->n_queries; i++) {
		struct str value = find_query(q, r->queries[i].name);

		if (!value.p || !satisfies(&r->queries[i], value))
			return false;
	}
	return true;
}

static bool has_other_method(const struct search *q, const struct route *r)
{
	for (unsigned i = 0; i < r->n_other_methods; i++)
		if (str_equal(r->other_methods[i], q->method_name))
			return true;
	return false;
}

static inline bool has_method(const struct search *q, const struct route *r)
{
	if (q->method == METHOD_OTHER || r->methods == 0)
		return (r->methods | r->n_other_methods) == 0 ||
		       (q->method == METHOD_OTHER && has_other_method(q, r));
	return r->methods >> q->method & 1;
}

static inline bool accepts(const struct search *q, const struct route *r)
{
	return has_method(q, r) && (r->n_headers == 0 || has_headers(q, r)) &&
	       (r->n_queries == 0 || has_queries(q, r));
}

static void tell(const struct search *q, const struct route *r, struct str why)
{
	q->listener->passed_over(q->listener->arg, r, why);
}

/* Which condition it was, in the order of accepts(). */
__attribute__((cold)) static void tell_miss(const struct search *q, const struct route *r)
{
	struct arena *a = q->req->arena;

	if (!has_method(q, r)) {
		tell(q, r, arena_printf(a, "its methods do not include %.*s", STR_FMT(q->method_name)));
		return;
	}
	for (unsigned i = 0; i < r->n_headers; i++) {
		const struct condition *c = &r->headers[i];
		struct str value = message_join(q->req, c->name);

		if (!message_find_name(q->req, c->name))
			tell(q, r, arena_printf(a, "the header %.*s is missing", STR_FMT(c->name)));
		else if (!satisfies(c, value))
			tell(q, r, arena_printf(a, "the header %.*s does not fit", STR_FMT(c->name)));
		else
			continue;
		return;
	}
	for (unsigned i = 0; i < r->n_queries; i++) {
		const struct condition *c = &r->queries[i];
		struct str value = find_query(q, c->name);

		if (value.p && satisfies(c, value))
			continue;
		tell(q, r, arena_printf(a, "the query parameter %.*s %s", STR_FMT(c->name),
					value.p ? "does not fit" : "is missing"));
		return;
	}
}

/* ---------- paths ---------- */

static const struct route *probe(const struct search *q, const char *key, size_t size, uint64_t hash)
{
	struct part *found = pmap_get_hashed(q->snapshot->paths, (struct str){ key, size }, hash);

	if (!found)
		return NULL;
	const struct candidates *c = CONTAINER(found, struct candidates, part);

	for (unsigned i = 0; i < c->n; i++) {
		if (accepts(q, c->routes[i]))
			return c->routes[i];
		if (UNLIKELY(q->listener != NULL))
			tell_miss(q, c->routes[i]);
	}
	return NULL;
}

static const char *fold_key(struct search *q)
{
	if (!q->folded) {
		q->folded = arena_take(q->req->arena, FRONT + q->path.n + SLACK);
		memcpy(q->folded, q->key, FRONT + q->path.n + SLACK);
		fold(q->folded + FRONT, q->path.n);
	}
	return q->folded;
}

static const struct route *find_exact(struct search *q, const struct vhost *v)
{
	const size_t size = FRONT + q->path.n;
	const struct route *r;

	write_front(q->key, 'E', v->number);
	r = probe(q, q->key, size, roll_to(&(struct roll){ .key = q->key }, size));
	if (r || !v->has_nocase)
		return r;
	fold_key(q);
	write_front(q->folded, 'e', v->number);
	return probe(q, q->folded, size, roll_to(&(struct roll){ .key = q->folded }, size));
}

/* Writes the key of a template behind `front`; returns its size, 0 when a parameter would be empty. */
static size_t write_template(const struct search *q, const struct template_mask *t, const char *path, char *key)
{
	size_t size = FRONT, from = 0;

	for (unsigned i = 0; i < q->n_ends; i++) {
		struct str segment = { path + from, q->ends[i] - from };

		if (t->parameters >> i & 1)
			segment = STR("/{}");
		memcpy(key + size, segment.p, segment.n);
		size += segment.n;
		from = q->ends[i];
	}
	if (!q->has_slash)
		return size;
	if (t->parameters >> q->n_ends & 1)
		return 0;
	key[size++] = '/';
	return size;
}

static const struct route *find_template(struct search *q, const struct vhost *v)
{
	const unsigned segments = q->n_ends + q->has_slash;
	char *key = NULL;

	for (unsigned i = 0; i < v->n_templates; i++) {
		const struct template_mask *t = &v->templates[i];
		const struct route *r;
		size_t size;

		if (t->segments != segments)
			continue;
		if (!key)
			key = arena_take(q->req->arena, FRONT + q->path.n + segments + SLACK);
		size = write_template(q, t, q->path.p, key);
		if (size == 0)
			continue;
		write_front(key, 'T', v->number);
		r = probe(q, key, size, roll_to(&(struct roll){ .key = key }, size));
		if (!r && v->has_nocase) {
			size = write_template(q, t, fold_key(q) + FRONT, key);
			write_front(key, 't', v->number);
			r = probe(q, key, size, roll_to(&(struct roll){ .key = key }, size));
		}
		if (r)
			return r;
	}
	return NULL;
}

/* One probe for each number of segments that occurs: the usual vhost has prefixes of one or two lengths. */
static const struct route *find_plain_prefix(const struct search *q, const struct vhost *v)
{
	uint64_t depths = v->prefix_depths & ((UINT64_C(2) << q->n_ends) - 1);
	UNCLEARED uint64_t hashes[DEEPEST];
	struct roll roll = { .key = q->key };

	write_front(q->key, 'P', v->number);
	for (uint64_t left = depths; left; left &= left - 1) {
		unsigned depth = (unsigned)__builtin_ctzll(left);

		hashes[depth] = roll_to(&roll, FRONT + (depth ? q->ends[depth - 1] : 1));
	}
	while (depths) {
		unsigned depth = 63 - (unsigned)__builtin_clzll(depths);
		const struct route *r = probe(q, q->key, FRONT + (depth ? q->ends[depth - 1] : 1), hashes[depth]);

		if (r)
			return r;
		depths ^= UINT64_C(1) << depth;
	}
	return NULL;
}

static inline bool has_depth(uint64_t depths, unsigned depth)
{
	return depths >> (depth < DEEPEST ? depth : DEEPEST) & 1;
}

/* All lengths at which the vhost may have a prefix, shortest first. */
static unsigned mark_prefixes(const struct search *q, const struct vhost *v, struct mark *marks)
{
	unsigned n = 0;

	if (v->prefix_depths & 1)
		marks[n++].length = 1;
	for (unsigned i = 0; i < q->n_ends; i++) {
		if (has_depth(v->prefix_depths, i + 1))
			marks[n++].length = q->ends[i];
		if (has_depth(v->slash_depths, i + 2) && q->ends[i] < q->path.n)
			marks[n++].length = q->ends[i] + 1;
	}
	return n;
}

/* Any length, prefixes that end in '/', and those that ignore the case. */
static const struct route *find_any_prefix(struct search *q, const struct vhost *v)
{
	struct mark *marks = arena_take(q->req->arena, (2 * q->n_ends + 1) * sizeof(*marks));
	struct roll plain = { .key = q->key }, folded = { .key = NULL };
	unsigned n = mark_prefixes(q, v, marks);

	write_front(q->key, 'P', v->number);
	if (v->has_nocase) {
		folded.key = fold_key(q);
		write_front(q->folded, 'p', v->number);
	}
	for (unsigned i = 0; i < n; i++) {
		marks[i].hash = roll_to(&plain, FRONT + marks[i].length);
		if (folded.key)
			marks[i].folded_hash = roll_to(&folded, FRONT + marks[i].length);
	}
	while (n-- > 0) {
		const struct route *r = probe(q, q->key, FRONT + marks[n].length, marks[n].hash);

		if (!r && folded.key)
			r = probe(q, q->folded, FRONT + marks[n].length, marks[n].folded_hash);
		if (r)
			return r;
	}
	return NULL;
}

static const struct route *find_regex(const struct search *q, const struct vhost *v)
{
	for (unsigned i = 0; i < v->n_regexes; i++) {
		const struct route *r = v->regexes[i];

		if (!has_method(q, r) && !q->listener)
			continue;
		if (regex_match_whole(r->regex, q->path) != REGEX_YES)
			continue;
		if (accepts(q, r))
			return r;
		if (q->listener)
			tell_miss(q, r);
	}
	return NULL;
}

static const struct route *search_vhost(struct search *q, const struct vhost *v)
{
	const struct route *r = NULL;

	if (!v)
		return NULL;
	if (v->has_exact)
		r = find_exact(q, v);
	if (!r && v->n_templates)
		r = find_template(q, v);
	if (!r && (v->slash_depths || v->has_nocase || q->n_ends >= DEEPEST))
		r = find_any_prefix(q, v);
	else if (!r && v->prefix_depths)
		r = find_plain_prefix(q, v);
	if (!r && v->n_regexes)
		r = find_regex(q, v);
	return r;
}

/* Bit 7 of each byte of the word that is a slash. */
static inline uint64_t slashes_of(uint64_t word)
{
	const uint64_t each = UINT64_C(0x0101010101010101);
	uint64_t x = word ^ each * '/';

	return ~(((x & each * 0x7f) + each * 0x7f) | x) & each * 0x80;
}

/* Fills ends from the copy of the path in the key, behind which SLACK zeros stand; room for all slashes and one. */
static void find_ends(struct search *q)
{
	const char *path = q->key + FRONT;
	unsigned n = 0;
	uint64_t word;

	for (size_t at = 0; at < q->path.n; at += sizeof(word)) {
		memcpy(&word, path + at, sizeof(word));
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
		word = __builtin_bswap64(word);
#endif
		for (uint64_t found = slashes_of(word); found; found &= found - 1)
			q->ends[n++] = at + (unsigned)__builtin_ctzll(found) / 8;
	}
	/* Each slash but the first ends a segment; so does the end of the path, unless a slash stands there. */
	q->has_slash = q->path.n > 1 && path[q->path.n - 1] == '/';
	q->ends[n] = q->path.n;
	q->ends++;
	q->n_ends = q->has_slash || q->path.n == 1 ? n - 1 : n;
}

const struct route *router_match(const struct snapshot *s, const struct site *site, const struct message *req,
				 struct str preflight)
{
	return router_match_telling(s, site, req, preflight, NULL);
}

const struct route *router_match_telling(const struct snapshot *s, const struct site *site, const struct message *req,
					 struct str preflight, const struct router_listener *listener)
{
	UNCLEARED char key[STACK_KEY];
	UNCLEARED size_t ends[STACK_ENDS];
	struct search q = { .snapshot = s, .req = req, .path = req->path, .key = key, .ends = ends,
			    .listener = listener };
	const struct route *r;

	if (req->path.n == 0 || req->path.p[0] != '/')
		return NULL;
	q.method = preflight.p ? method_lookup(preflight) : req->method;
	q.method_name = preflight.p ? preflight : req->method_name;
	if (UNLIKELY(req->path.n > STACK_PATH)) {
		q.key = arena_take(req->arena, FRONT + req->path.n + SLACK);
		q.ends = arena_take(req->arena, (router_depth(req->path) + 2) * sizeof(*q.ends));
	}
	memcpy(q.key + FRONT, req->path.p, req->path.n);
	memset(q.key + FRONT + req->path.n, 0, SLACK);
	find_ends(&q);
	r = search_vhost(&q, site->domain_routes);
	return r ? r : search_vhost(&q, site->gateway_routes);
}

/* ---------- hosts ---------- */

/* Folds n bytes, behind which SLACK zeros stand, and hashes them as pmap_hash does. */
static uint64_t fold_and_hash(char *text, size_t n)
{
	uint64_t state = 0, word;
	size_t at = 0;

	for (;; at += sizeof(word)) {
		memcpy(&word, text + at, sizeof(word));
		word = fold_word(word);
		memcpy(text + at, &word, sizeof(word));
		if (n - at < sizeof(word))
			return pmap_hash_end(state, word, n);
		state = pmap_hash_word(state, word);
	}
}

static inline const struct site *look_up_host(const struct pmap *hosts, struct str name, uint64_t hash)
{
	struct part *found = pmap_get_hashed(hosts, name, hash);

	return found ? CONTAINER(found, struct site, part) : NULL;
}

const struct site *router_site(const struct binding *b, struct str host)
{
	UNCLEARED char name[NAME_MAX_DNS + 1 + SLACK];
	const struct site *site;

	if (host.n && host.p[host.n - 1] == '.')
		host.n--;
	if (host.n == 0 || host.n > NAME_MAX_DNS || !b->hosts || pmap_count(b->hosts) == 0)
		return b->any;
	memcpy(name, host.p, host.n);
	memset(name + host.n, 0, SLACK);
	site = look_up_host(b->hosts, (struct str){ name, host.n }, fold_and_hash(name, host.n));
	/* "*" takes the place of the byte before each dot: nothing left of it is needed again. */
	for (size_t i = 1; !site && i < host.n; i++) {
		struct str suffix = { name + i - 1, host.n - i + 1 };

		if (name[i] != '.')
			continue;
		name[i - 1] = '*';
		site = look_up_host(b->hosts, suffix, pmap_hash(suffix));
	}
	return site ? site : b->any;
}
