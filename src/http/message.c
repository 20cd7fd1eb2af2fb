/* message.c -- finding, adding and removing fields of a message, cookies and query parameters. */
#include "http/message.h"
#include "http/scan.h"

#define FIRST_CAP 16U                     /* so that an exchange of usual heads fits in one block of its arena */

#define BIT(id) (UINT64_C(1) << (id))
/* What the writers make from the members of the message; a line of these would contradict them. */
#define FRAMING_FIELDS \
	(BIT(HEADER_CONNECTION) | BIT(HEADER_CONTENT_LENGTH) | BIT(HEADER_TRANSFER_ENCODING) | \
	 BIT(HEADER_KEEP_ALIVE) | BIT(HEADER_PROXY_CONNECTION) | BIT(HEADER_TE) | BIT(HEADER_TRAILER) | \
	 BIT(HEADER_UPGRADE))

static bool is_named(const struct header *h, enum header_id id, struct str name)
{
	if (id != HEADER_OTHER)
		return h->id == id;
	return h->id == HEADER_OTHER && h->name.n == name.n && str_equal_nocase(h->name, name);
}

static struct header *find(const struct message *m, unsigned from, enum header_id id, struct str name)
{
	if (id != HEADER_OTHER && !(m->present & BIT(id)))
		return NULL;
	for (unsigned i = from; i < m->n; i++)
		if (!m->headers[i].dropped && is_named(&m->headers[i], id, name))
			return &m->headers[i];
	return NULL;
}

struct header *message_find(const struct message *m, enum header_id id)
{
	return id == HEADER_OTHER ? NULL : find(m, 0, id, (struct str){ NULL, 0 });
}

struct header *message_find_name(const struct message *m, struct str name)
{
	return find(m, 0, header_lookup(name), name);
}

struct header *message_find_next(const struct message *m, const struct header *h)
{
	return find(m, (unsigned)(h - m->headers) + 1, (enum header_id)h->id, h->name);
}

struct str message_value(const struct message *m, enum header_id id)
{
	const struct header *h = message_find(m, id);

	return h ? h->value : (struct str){ NULL, 0 };
}

struct str message_upgrade(const struct message *m)
{
	for (unsigned i = 0; i < m->n; i++)
		if (m->headers[i].id == HEADER_UPGRADE)
			return m->headers[i].value;
	return (struct str){ NULL, 0 };
}

void message_grow(struct message *m)
{
	unsigned cap = m->cap ? m->cap * 2 : FIRST_CAP;
	struct header *headers = arena_take(m->arena, sizeof(*headers) * cap);

	if (m->n)
		memcpy(headers, m->headers, sizeof(*headers) * m->n);
	m->headers = headers;
	m->cap = cap;
}

/* The value, or a copy of it with a space for each byte that may not stand in a line. */
static struct str make_clean(struct message *m, struct str value)
{
	char *copy;

	if (header_is_value(value))
		return value;
	copy = arena_take(m->arena, value.n);
	for (size_t i = 0; i < value.n; i++)
		copy[i] = SCAN_IS(value.p[i], SCAN_VALUE) ? value.p[i] : ' ';
	return (struct str){ copy, value.n };
}

/* The value is clean, here and in set(). */
static void add(struct message *m, enum header_id id, struct str name, struct str value)
{
	if (BIT(id) & FRAMING_FIELDS)
		return;
	if (m->n == m->cap)
		message_grow(m);
	m->headers[m->n++] = (struct header){ .name = name, .value = value, .id = (uint16_t)id };
	m->present |= BIT(id);
}

static void set(struct message *m, enum header_id id, struct str name, struct str value)
{
	struct header *first = find(m, 0, id, name);

	if (!first) {
		unsigned before = m->n;

		add(m, id, name, value);
		if (id == HEADER_HOST && m->n > before)
			m->authority = m->headers[before].value;
		return;
	}
	first->value = value;
	first->is_line = false;
	for (struct header *h = first; (h = message_find_next(m, h));)
		h->dropped = true;
	if (id == HEADER_HOST)
		m->authority = first->value;
}

static unsigned drop(struct message *m, enum header_id id, struct str name)
{
	unsigned dropped = 0;

	if (id == HEADER_HOST)
		return 0;
	for (struct header *h = find(m, 0, id, name); h; h = message_find_next(m, h)) {
		h->dropped = true;
		dropped++;
	}
	return dropped;
}

void message_add(struct message *m, struct str name, struct str value)
{
	enum header_id id = header_lookup(name);

	if (id == HEADER_HOST)
		set(m, id, name, make_clean(m, value));
	else if (id != HEADER_OTHER || header_is_token(name))
		add(m, id, name, make_clean(m, value));
}

void message_add_id(struct message *m, enum header_id id, struct str value)
{
	BUG_ON(id == HEADER_OTHER);
	if (id == HEADER_HOST)
		set(m, id, header_title(id), make_clean(m, value));
	else
		add(m, id, header_title(id), make_clean(m, value));
}

void message_put_line(struct message *m, enum header_id id, const char *line, size_t value_n)
{
	struct str name = { line, header_name(id).n };
	struct header *row;

	if (m->present & BIT(id))
		drop(m, id, name);
	if (m->n == m->cap)
		message_grow(m);
	row = &m->headers[m->n++];
	row->name = name;
	row->value = (struct str){ line + name.n + 2, value_n };
	row->id = (uint16_t)id;
	row->dropped = false;
	row->is_line = true;
	m->present |= BIT(id);
}

void message_set(struct message *m, struct str name, struct str value)
{
	enum header_id id = header_lookup(name);

	if (id != HEADER_OTHER || header_is_token(name))
		set(m, id, name, make_clean(m, value));
}

void message_set_id(struct message *m, enum header_id id, struct str value)
{
	BUG_ON(id == HEADER_OTHER);
	set(m, id, header_title(id), make_clean(m, value));
}

unsigned message_remove(struct message *m, struct str name)
{
	return drop(m, header_lookup(name), name);
}

void message_remove_id(struct message *m, enum header_id id)
{
	BUG_ON(id == HEADER_OTHER);
	drop(m, id, header_name(id));
}

struct header *message_find_as(const struct message *m, enum header_id id, struct str name)
{
	return find(m, 0, id, name);
}

void message_add_as(struct message *m, enum header_id id, struct str name, struct str value)
{
	if (id == HEADER_HOST)
		set(m, id, name, value);
	else
		add(m, id, name, value);
}

void message_set_as(struct message *m, enum header_id id, struct str name, struct str value)
{
	set(m, id, name, value);
}

unsigned message_remove_as(struct message *m, enum header_id id, struct str name)
{
	return drop(m, id, name);
}

struct str message_join(const struct message *m, struct str name)
{
	const struct header *first = message_find_name(m, name);
	const struct header *h = first;
	size_t size = 0;
	char *out, *at;

	if (!first)
		return (struct str){ NULL, 0 };
	if (!message_find_next(m, first))
		return first->value;
	for (; h; h = message_find_next(m, h))
		size += h->value.n + 2;
	out = at = arena_take(m->arena, size);
	for (h = first; h; h = message_find_next(m, h)) {
		if (h != first) {
			memcpy(at, ", ", 2);
			at += 2;
		}
		if (h->value.n)
			memcpy(at, h->value.p, h->value.n);
		at += h->value.n;
	}
	return (struct str){ out, (size_t)(at - out) };
}

/* The value of the part "name=value"; absent str when the name is another. "name" alone has the empty value. */
static struct str match_pair(struct str part, struct str name)
{
	size_t equals = str_find(part, '=');

	if (equals != name.n || (name.n && memcmp(part.p, name.p, name.n) != 0))
		return (struct str){ NULL, 0 };
	if (equals == part.n)
		return (struct str){ part.p + part.n, 0 };
	return (struct str){ part.p + equals + 1, part.n - equals - 1 };
}

struct str message_cookie(const struct message *m, struct str name)
{
	for (const struct header *h = message_find(m, HEADER_COOKIE); h; h = message_find_next(m, h)) {
		struct str rest = h->value, part;

		while (str_split(&rest, ';', &part)) {
			struct str value;

			part = str_trim(part);
			value = match_pair(part, name);
			if (value.p && value.p > part.p + name.n)
				return value;
		}
	}
	return (struct str){ NULL, 0 };
}

struct str query_value(struct str query, struct str name)
{
	struct str part;

	while (str_split(&query, '&', &part)) {
		struct str value = match_pair(part, name);

		if (value.p)
			return value;
	}
	return (struct str){ NULL, 0 };
}
