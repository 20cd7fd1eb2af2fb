#include "policy/token_place.h"
#include "http/uri.h"

#define ABSENT ((struct str){ NULL, 0 })

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct str trim_end(struct str s)
{
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

static bool is_word(char c)
{
	return (c >= '0' && c <= '9') || (str_lower(c) >= 'a' && str_lower(c) <= 'z');
}

/*
 * What follows the prefix; absent when it is not there. A prefix that ends like a word ends with it: "Bearerx" does not
 * begin with "Bearer".
 */
static struct str after_prefix(struct str value, struct str prefix)
{
	struct str rest;

	prefix = trim_end(prefix);
	if (value.n <= prefix.n || !str_equal_nocase((struct str){ value.p, prefix.n }, prefix))
		return ABSENT;
	rest = (struct str){ value.p + prefix.n, value.n - prefix.n };
	if (prefix.n > 0 && is_word(prefix.p[prefix.n - 1]) && !is_blank(rest.p[0]))
		return ABSENT;
	return str_trim(rest);
}

static enum token_found find_header(const struct message *req, const struct token_place *at, struct str *token)
{
	const struct header *h = message_find_name(req, at->name);

	if (!h)
		return TOKEN_NONE;
	if (message_find_next(req, h))
		return TOKEN_SEVERAL;
	*token = after_prefix(h->value, at->prefix);
	return token->n > 0 ? TOKEN_ONE : TOKEN_NONE;
}

/* ---------- query ---------- */

/* As an upstream would read it; as it stands when it cannot be read. */
static struct str read_form(struct arena *a, struct str s)
{
	struct str text = ABSENT;

	if (str_find(s, '%') < s.n || str_find(s, '+') < s.n)
		text = uri_decode(a, s, true);
	return text.p ? text : s;
}

static bool is_parameter(struct arena *a, struct str part, struct str name)
{
	part.n = str_find(part, '=');
	return str_equal(read_form(a, part), name);
}

static enum token_found find_parameter(const struct message *req, const struct token_place *at, struct str *token)
{
	enum token_found found = TOKEN_NONE;
	struct str rest = req->query, part;

	while (str_split(&rest, '&', &part)) {
		size_t equals = str_find(part, '=');

		if (!is_parameter(req->arena, part, at->name))
			continue;
		if (found == TOKEN_ONE)
			return TOKEN_SEVERAL;
		found = TOKEN_ONE;
		equals += equals < part.n;
		*token = read_form(req->arena, (struct str){ part.p + equals, part.n - equals });
	}
	return found == TOKEN_ONE && token->n == 0 ? TOKEN_NONE : found;
}

static void remove_parameter(struct message *req, struct str name)
{
	struct str rest = req->query, part;
	char *out, *end;

	if (!rest.n)
		return;
	out = end = arena_take(req->arena, rest.n + 1);
	while (str_split(&rest, '&', &part)) {
		if (is_parameter(req->arena, part, name))
			continue;
		end = str_put(end, part);
		*end++ = '&';
	}
	/* Nothing else was there: nor is the question mark. */
	req->query = end > out ? (struct str){ out, (size_t)(end - out) - 1 } : ABSENT;
}

/* ---------- cookies ---------- */

static bool is_cookie(struct str pair, struct str name)
{
	size_t equals = str_find(pair, '=');

	return equals < pair.n && str_equal(str_trim((struct str){ pair.p, equals }), name);
}

static struct str cookie_value(struct str pair)
{
	size_t equals = str_find(pair, '=');
	struct str v = str_trim((struct str){ pair.p + equals + 1, pair.n - equals - 1 });

	if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"')
		v = (struct str){ v.p + 1, v.n - 2 };
	return v;
}

static enum token_found find_cookie(const struct message *req, const struct token_place *at, struct str *token)
{
	enum token_found found = TOKEN_NONE;

	for (const struct header *h = message_find(req, HEADER_COOKIE); h; h = message_find_next(req, h)) {
		struct str rest = h->value, pair;

		while (str_split(&rest, ';', &pair)) {
			if (!is_cookie(pair, at->name))
				continue;
			if (found == TOKEN_ONE)
				return TOKEN_SEVERAL;
			found = TOKEN_ONE;
			*token = cookie_value(pair);
		}
	}
	return found == TOKEN_ONE && token->n == 0 ? TOKEN_NONE : found;
}

/* The pairs of one line but those of that name; absent when none is left. */
static struct str other_cookies(struct arena *a, struct str line, struct str name)
{
	struct str rest = line, pair;
	char *out = arena_take(a, 2 * line.n + 2), *end = out;

	while (str_split(&rest, ';', &pair)) {
		if (is_cookie(pair, name))
			continue;
		end = str_put(end, str_trim(pair));
		*end++ = ';';
		*end++ = ' ';
	}
	return end > out ? (struct str){ out, (size_t)(end - out) - 2 } : ABSENT;
}

static bool has_cookie(struct str line, struct str name)
{
	struct str pair;

	while (str_split(&line, ';', &pair))
		if (is_cookie(pair, name))
			return true;
	return false;
}

static void remove_cookie(struct message *req, struct str name)
{
	for (unsigned i = 0; i < req->n; i++) {
		struct header *h = &req->headers[i];

		if (h->id != HEADER_COOKIE || h->dropped || !has_cookie(h->value, name))
			continue;
		h->value = other_cookies(req->arena, h->value, name);
		h->is_line = false;
		h->dropped = !h->value.p;
	}
}

enum token_found token_find(const struct message *req, const struct token_place *at, struct str *token)
{
	*token = ABSENT;
	switch (at->position) {
	case TOKEN_QUERY:
		return find_parameter(req, at, token);
	case TOKEN_COOKIE:
		return find_cookie(req, at, token);
	case TOKEN_HEADER:
		break;
	}
	return find_header(req, at, token);
}

void token_remove(struct message *req, const struct token_place *at)
{
	switch (at->position) {
	case TOKEN_HEADER:
		message_remove(req, at->name);
		break;
	case TOKEN_QUERY:
		remove_parameter(req, at->name);
		break;
	case TOKEN_COOKIE:
		remove_cookie(req, at->name);
		break;
	}
}
