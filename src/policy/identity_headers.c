#include "policy/identity_headers.h"

static bool starts(struct str name, struct str prefix)
{
	return name.n >= prefix.n && str_equal_nocase((struct str){ name.p, prefix.n }, prefix);
}

bool identity_header_is(struct str name)
{
	static const char *const names[] = {
		"x-mse-consumer", "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "remote-user",
		"remote-groups", "remote-name", "remote-email",
	};

	/* Most names begin otherwise. */
	if (name.n < 8 || (str_lower(name.p[0]) != 'x' && str_lower(name.p[0]) != 'r'))
		return false;
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (str_equal_nocase(name, str_of(names[i])))
			return true;
	return starts(name, STR("x-auth-request-")) || starts(name, STR("x-user-"));
}


void identity_headers_strip(struct message *req)
{
	/* Rows do not move while others are dropped. */
	for (unsigned i = 0; i < req->n; i++)
		if (!req->headers[i].dropped &&
		    (identity_header_is(req->headers[i].name) || starts(req->headers[i].name, STR("x-sluice-"))))
			message_remove(req, req->headers[i].name);
}
