/*
 * auth_resource.h -- the requests that a list of exceptions is about: by host, path and headers. JWTAuth's
 * authResources and resources.
 *
 * The path is compared in the form that is routed and sent on (uri.h), without the query. What some servers read
 * otherwise than we do (";", an escaped slash, backslash, semicolon or percent sign), and a pattern that came to its
 * step limit, match or do not match as the caller says: whichever asks for more.
 */
#pragma once
#include "core/field.h"
#include "proxy/policy.h"

#define AUTH_RESOURCES_MAX 256

struct regex;

struct header_rule {
	struct str headerKey;
	int headerMethod;
	struct str headerValue;
	/* prepared */
	const struct regex *regex;
};

struct auth_resource {
	struct str domainName, domainId, path;
	int matchType;
	bool ignoreCase;
	struct items headers;             /* struct header_rule */
	/* prepared */
	const struct regex *regex;
	struct str form;                  /* path as requests have it */
};

extern const struct field auth_resource_fields[];

/* Lists are struct items of struct auth_resource; `name` is that of the member, for paths of problems. */
bool auth_resources_check(const struct items *list, const char *name, struct arena *a, struct problem *why);
/* The objects in a text that holds a JSON list. */
MUST_USE bool auth_resources_read(struct str text, struct arena *a, struct items *out, struct problem *why);
bool auth_resources_attach(const struct items *list, const char *name, const struct attach_target *t,
			   struct problem *why);
/* Of lists that were checked. */
MUST_USE bool auth_resources_prepare(const struct items *list, struct arena *a, struct problem *why);
/* Whether the request is one of those; in_doubt: what counts where it cannot be told. */
bool auth_resources_match(const struct items *list, struct exchange *x, bool in_doubt);
