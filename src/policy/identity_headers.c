#include "policy/identity_headers.h"
#include "http/identity_field.h"

void identity_headers_strip(struct message *req)
{
	/* Rows do not move while others are dropped. */
	for (unsigned i = 0; i < req->n; i++) {
		const struct str name = req->headers[i].name;

		if (!req->headers[i].dropped && (identity_field_is(name) || field_begins_as(name, STR("x-sluice-"))))
			message_remove(req, name);
	}
}
