#include "policy/header_edit.h"

bool header_is_editable(struct str name)
{
	switch (header_lookup(name)) {
	case HEADER_HOST:
	case HEADER_CONNECTION:
	case HEADER_CONTENT_LENGTH:
	case HEADER_TRANSFER_ENCODING:
	case HEADER_KEEP_ALIVE:
	case HEADER_PROXY_CONNECTION:
	case HEADER_TE:
	case HEADER_TRAILER:
	case HEADER_UPGRADE:
	case HEADER_EXPECT:
		return false;
	default:
		return true;
	}
}

struct join {
	char *out;
	size_t n;
};

static void put(struct join *j, struct str s)
{
	if (s.n)
		memcpy(j->out + j->n, s.p, s.n);
	j->n += s.n;
}

/* All lines from `first` on with between[0] between two of them, then between[1] and the value. */
static struct str join(struct message *m, const struct header *first, struct str value,
	const struct str between[2])
{
	struct join j = { 0 };
	size_t size = between[1].n + value.n;

	for (const struct header *h = first; h; h = message_find_next(m, h))
		size += h->value.n + between[0].n;
	j.out = arena_take(m->arena, size);
	for (const struct header *h = first; h; h = message_find_next(m, h)) {
		if (h != first)
			put(&j, between[0]);
		put(&j, h->value);
	}
	if (j.n)
		put(&j, between[1]);
	put(&j, value);
	return (struct str){ j.out, j.n };
}

static void add(struct message *m, enum header_id id, struct str name, struct str value)
{
	static const struct str comma[2] = { { ", ", 2 }, { ",", 1 } }, semicolon[2] = { { "; ", 2 }, { "; ",
		2 } };
	const struct header *first = message_find_as(m, id, name);

	if (!first || id == HEADER_SET_COOKIE)
		message_add_as(m, id, name, value);
	else
		message_set_as(m, id, name, join(m, first, value, id == HEADER_COOKIE ? semicolon : comma));
}

void header_edit(struct message *m, const struct header_change *change, struct str value)
{
	switch (change->action) {
	case HEADER_ACTION_ADD:
		add(m, change->id, change->name, value);
		break;
	case HEADER_ACTION_UPDATE:
		message_set_as(m, change->id, change->name, value);
		break;
	case HEADER_ACTION_REMOVE:
		message_remove_as(m, change->id, change->name);
		break;
	}
}
