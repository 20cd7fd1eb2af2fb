#include "http/trailers.h"

#define BIT(id) (UINT64_C(1) << (id))
#define REFUSED \
	(BIT(HEADER_CONTENT_LENGTH) | BIT(HEADER_TRANSFER_ENCODING) | BIT(HEADER_HOST) | BIT(HEADER_CONNECTION) | \
	 BIT(HEADER_TE) | BIT(HEADER_TRAILER) | BIT(HEADER_UPGRADE) | BIT(HEADER_EXPECT) | BIT(HEADER_KEEP_ALIVE) | \
	 BIT(HEADER_PROXY_CONNECTION) | BIT(HEADER_AUTHORIZATION) | BIT(HEADER_PROXY_AUTHORIZATION) | \
	 BIT(HEADER_COOKIE) | BIT(HEADER_SET_COOKIE) | BIT(HEADER_CONTENT_TYPE) | BIT(HEADER_CONTENT_ENCODING) | \
	 BIT(HEADER_CACHE_CONTROL) | BIT(HEADER_RANGE) | BIT(HEADER_X_FORWARDED_FOR) | \
	 BIT(HEADER_X_FORWARDED_PROTO) | BIT(HEADER_X_FORWARDED_HOST) | BIT(HEADER_X_FORWARDED_PORT) | \
	 BIT(HEADER_X_REAL_IP) | BIT(HEADER_FORWARDED) | BIT(HEADER_X_REQUEST_ID) | BIT(HEADER_X_AUTH_TOKEN) | \
	 BIT(HEADER_X_MSE_TAG) | BIT(HEADER_X_MSE_CONSUMER))

bool trailer_is_refused(struct str name)
{
	return name.n <= TRAILER_NAME_BYTES && (BIT(header_lookup(name)) & REFUSED);
}

void trailer_lines_add(struct trailer_lines *lines, struct arena *a, char c)
{
	if (lines->n == lines->cap) {
		uint32_t cap = lines->cap ? lines->cap * 2 : 256;
		char *p = arena_take(a, cap);

		if (lines->n)
			memcpy(p, lines->p, lines->n);
		lines->p = p;
		lines->cap = cap;
	}
	lines->p[lines->n++] = c;
	lines->fields += c == '\n';
}

struct message *trailer_lines_parse(const struct trailer_lines *lines, struct arena *a, bool keep_underscores)
{
	struct str rest = { lines->p, lines->n }, line;
	struct message *m;

	if (lines->fields == 0 || lines->fields > TRAILERS_MAX)
		return NULL;
	m = NEW(a, struct message);
	m->arena = a;
	while (str_split(&rest, '\n', &line)) {
		size_t colon = str_find(line, ':');
		struct str name = { line.p, colon };

		if (colon == line.n || (!keep_underscores && str_find(name, '_') < name.n))
			continue;
		line = str_trim((struct str){ line.p + colon + 1, line.n - colon - 2 });
		message_add(m, name, line);
	}
	return m;
}

size_t h1_last_chunk_bound(const struct message *trailers)
{
	size_t size = 5;

	for (unsigned i = 0; i < trailers->n; i++)
		size += trailers->headers[i].name.n + trailers->headers[i].value.n + 4;
	return size;
}

static char *put(char *out, struct str s)
{
	if (s.n)
		memcpy(out, s.p, s.n);
	return out + s.n;
}

size_t h1_write_last_chunk(const struct message *trailers, char *out)
{
	char *at = put(out, STR("0\r\n"));

	for (unsigned i = 0; i < trailers->n; i++) {
		const struct header *h = &trailers->headers[i];

		if (h->dropped)
			continue;
		at = put(at, h->name);
		at = put(at, STR(": "));
		at = put(at, h->value);
		at = put(at, STR("\r\n"));
	}
	return (size_t)(put(at, STR("\r\n")) - out);
}
