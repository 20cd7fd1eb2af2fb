#include "http/address_field.h"
#include "http/identity_field.h"

static bool ends_as(struct str name, struct str suffix)
{
	return name.n > suffix.n && field_reads_as((struct str){ name.p + name.n - suffix.n, suffix.n }, suffix);
}

bool address_field_is(struct str name)
{
	static const struct str names[] = {
		{ "via", 3 }, { "forwarded", 9 }, { "forwarded-for", 13 }, { "x-forwarded", 11 },
		{ "x-original-host", 15 }, { "x-azure-clientip", 16 }, { "x-azure-socketip", 16 },
		{ "x-envoy-external-address", 24 },
		{ "cf-connecting-ipv6", 18 }, { "cf-pseudo-ipv4", 14 }, { "cf-ipcountry", 12 },
		{ "cloudfront-viewer-address", 25 }, { "client-address", 14 }, { "x-client-address", 16 },
		{ "remote-addr", 11 }, { "x-remote-addr", 13 },
	};

	if (field_begins_as(name, STR("x-forwarded-")))
		return !identity_field_is(name);
	/* X-Real-IP, X-Client-IP, CF-Connecting-IP, True-Client-IP ... */
	if (ends_as(name, STR("-ip")) || ends_as(name, STR("-forwarded-for")))
		return true;
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (field_reads_as(name, names[i]))
			return true;
	return false;
}

void address_fields_remove(struct message *req)
{
	/* Rows do not move while others are dropped. */
	for (unsigned i = 0; i < req->n; i++) {
		struct header *h = &req->headers[i];

		if (!h->dropped && address_field_is(h->name))
			h->dropped = true;
	}
	req->hides_addresses = true;
	identity_trailers_strip(req);
}
