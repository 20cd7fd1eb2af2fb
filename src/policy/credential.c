#include "policy/credential.h"
#include "http/uri.h"

struct collecting {
	struct exchange *x;
	struct str value;                 /* the first one */
	bool is_other;                    /* there was a different one */
	const struct str *wanted;         /* NULL, or: only whether this one is there */
	bool is_there;
};

static void note(struct collecting *c, struct str value)
{
	if (value.n == 0)
		return;
	if (c->wanted)
		c->is_there = c->is_there || str_equal_secret(value, *c->wanted);
	else if (!c->value.p)
		c->value = value;
	else if (!str_equal_secret(value, c->value))
		c->is_other = true;
}

/* What follows the prefix and at least one space; false: it does not stand there. */
static bool strip_prefix(struct str *value, struct str prefix)
{
	struct str head = { value->p, prefix.n }, rest;

	if (value->n <= prefix.n || !str_equal_nocase(head, prefix))
		return false;
	rest = (struct str){ value->p + prefix.n, value->n - prefix.n };
	if (rest.p[0] != ' ' && rest.p[0] != '\t')
		return false;
	*value = str_trim(rest);
	return true;
}

/* Whether the place's field holds a credential: *value without the prefix. */
static bool read_field(const struct place *p, struct str *value)
{
	*value = str_trim(*value);
	return p->prefix.n == 0 || strip_prefix(value, p->prefix) || p->prefix_optional;
}

static void collect_fields(struct collecting *c, const struct place *p)
{
	const struct message *req = exchange_request(c->x);

	for (const struct header *h = message_find_as(req, p->id, p->name); h; h = message_find_next(req, h)) {
		struct str value = h->value;

		if (read_field(p, &value))
			note(c, value);
	}
}

/* "name=value"; *value is raw. */
static bool is_parameter(struct str pair, struct str name, struct str *value)
{
	size_t mark = str_find(pair, '=');

	*value = mark < pair.n ? (struct str){ pair.p + mark + 1, pair.n - mark - 1 } : (struct str){ pair.p, 0 };
	return str_equal((struct str){ pair.p, mark }, name);
}

static void collect_parameters(struct collecting *c, const struct place *p)
{
	struct str rest = exchange_request(c->x)->query, pair, raw, value;

	while (str_split(&rest, '&', &pair)) {
		if (!is_parameter(pair, p->name, &raw))
			continue;
		value = uri_decode(exchange_arena(c->x), raw, false);
		note(c, value.p ? value : raw);
	}
}

static void collect(struct collecting *c, const struct place *p)
{
	if (p->is_query)
		collect_parameters(c, p);
	else
		collect_fields(c, p);
}

enum found credential_collect(struct exchange *x, const struct place *places, unsigned n, struct str *value)
{
	struct collecting c = { .x = x };

	for (unsigned i = 0; i < n; i++)
		collect(&c, &places[i]);
	*value = c.value;
	if (c.is_other)
		return FOUND_SEVERAL;
	return c.value.p ? FOUND_ONE : FOUND_NONE;
}

bool credential_is_at(struct exchange *x, const struct place *p, struct str value)
{
	struct collecting c = { .x = x, .wanted = &value };

	collect(&c, p);
	return c.is_there;
}

static void remove_fields(struct message *req, const struct place *p)
{
	const struct header *h = message_find_as(req, p->id, p->name);
	struct str kept[8];
	unsigned n = 0;

	/* Lines of the field that carry something else (another scheme) stay. */
	for (; h; h = message_find_next(req, h)) {
		struct str value = h->value;

		if (!read_field(p, &value) && n < sizeof kept / sizeof kept[0])
			kept[n++] = h->value;
	}
	message_remove_as(req, p->id, p->name);
	for (unsigned i = 0; i < n; i++)
		message_add_as(req, p->id, p->name, kept[i]);
}

static void remove_parameters(struct exchange *x, const struct place *p)
{
	struct message *req = exchange_request(x);
	struct str rest = req->query, pair, raw;
	char *out = arena_take(exchange_arena(x), req->query.n + 1), *end = out;
	bool is_first = true;

	if (!req->query.p)
		return;
	while (str_split(&rest, '&', &pair)) {
		if (is_parameter(pair, p->name, &raw))
			continue;
		if (!is_first)
			*end++ = '&';
		end = str_put(end, pair);
		is_first = false;
	}
	req->query = is_first ? (struct str){ NULL, 0 } : (struct str){ out, (size_t)(end - out) };
}

void credential_remove(struct exchange *x, const struct place *p)
{
	if (p->is_query)
		remove_parameters(x, p);
	else
		remove_fields(exchange_request(x), p);
}
