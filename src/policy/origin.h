/*
 * origin.h -- the list of origins of a Cors policy, and whether a request's Origin is on it (Fetch: scheme,
 * host, port).
 *
 * Scheme and host are compared without regard to case; the default port of http and https equals no port.
 * "*.name" stands for one or more labels in front of the name, of the same scheme and port, and never for the
 * name itself. "null" matches only where it is listed. "*" anywhere in the list makes it admit every origin.
 */
#pragma once
#include <stdbool.h>
#include "core/arena.h"
#include "core/problem.h"
#include "core/str.h"

struct origin {
	bool is_null;
	struct str scheme, host;          /* host of an IPv6 literal keeps its brackets */
	uint16_t port;                    /* 0: the scheme has no default and none was given */
};

struct origin_rule {
	struct origin origin;
	bool is_wildcard;                 /* host begins with the dot: ".example.com" */
};

struct origins {
	bool any;
	struct origin_rule *rules;
	unsigned n;
};

bool origin_parse(struct str text, struct origin *out);
/* One element of a list, "*" included; fits list_check. */
bool origin_check(struct str text, struct problem *why);
/* A list that was checked. The rules point into `list`. */
void origins_parse(struct str list, struct arena *a, struct origins *out);
bool origins_match(const struct origins *o, struct str origin);
