#include "http/identity_field.h"
#include "http/address_field.h"

static char fold(char c)
{
	return c == '_' ? '-' : str_lower(c);
}

bool field_reads_as(struct str name, struct str known)
{
	if (name.n != known.n)
		return false;
	for (size_t i = 0; i < name.n; i++)
		if (fold(name.p[i]) != fold(known.p[i]))
			return false;
	return true;
}

bool field_begins_as(struct str name, struct str prefix)
{
	return name.n > prefix.n && field_reads_as((struct str){ name.p, prefix.n }, prefix);
}

bool identity_field_is(struct str name)
{
	static const char *const names[] = {
		"x-mse-consumer", "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "remote-user",
		"remote-groups", "remote-name", "remote-email",
	};

	/* Most names begin otherwise. */
	if (name.n < 8 || (str_lower(name.p[0]) != 'x' && str_lower(name.p[0]) != 'r'))
		return false;
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (field_reads_as(name, str_of(names[i])))
			return true;
	return field_begins_as(name, STR("x-auth-request-")) || field_begins_as(name, STR("x-user-"));
}

void identity_field_remove(struct message *m, struct str known)
{
	/* Rows do not move while others are dropped. */
	for (unsigned i = 0; i < m->n; i++)
		if (!m->headers[i].dropped && field_reads_as(m->headers[i].name, known))
			message_remove(m, m->headers[i].name);
}

static bool is_guarded(const struct message *req, struct str name)
{
	for (const struct guarded_name *g = req->guarded; g; g = g->next)
		if (field_reads_as(name, g->name))
			return true;
	return false;
}

void identity_trailers_strip(const struct message *req)
{
	struct message *trailers = req->trailers;

	for (unsigned i = 0; trailers && i < trailers->n; i++) {
		struct header *h = &trailers->headers[i];

		if (identity_field_is(h->name) || field_begins_as(h->name, STR("x-sluice-")) ||
		    is_guarded(req, h->name) || (req->hides_addresses && address_field_is(h->name)))
			h->dropped = true;
	}
}

void identity_guard(struct message *req, struct str name)
{
	struct guarded_name *g;

	if (req->framing == FRAMING_NONE || is_guarded(req, name))
		return;
	g = NEW(req->arena, struct guarded_name);
	*g = (struct guarded_name){ req->guarded, name };
	req->guarded = g;
	identity_trailers_strip(req);
}
