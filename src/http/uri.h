/*
 * uri.h -- request targets and paths: split, validate, normalise once; and absolute http(s) URLs of configuration.
 *
 * Normal form (RFC 3986 6.2, product rule): unreserved escapes decoded, other escapes kept with upper-case hex, "." and
 * ".." segments resolved, "//" collapsed, %2F and %5C kept. Refused: %00 and other encoded controls, raw controls and
 * non-ASCII bytes, a bad escape, "\" or "#" raw, ".." above the root, and dots that others would see as a dot segment:
 * next to an encoded slash or backslash, or before ";". The query is kept as it came (no controls, non-ASCII or "#").
 * Matching, policies, the upstream and the logs all see this one form; normalising it again changes nothing.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/str.h"

enum uri_result { URI_OK, URI_BAD };

/* Splits off the query and normalises the path. Costs no allocation when the path is in normal form already. */
enum uri_result uri_normalise(struct arena *a, struct str target, struct str *path, struct str *query);
/* The same for a target that a space follows, then 15 bytes more that may be read: no tail needs care. */
enum uri_result uri_normalise_spaced(struct arena *a, struct str target, struct str *path, struct str *query);
/* host[:port] as a Host value: reg-name, IPv4 or [IPv6]; port 0 when absent. */
bool uri_split_authority(struct str authority, struct str *host, uint16_t *port);
bool uri_is_host(struct str host);                        /* DNS name, IPv4 or IPv6 (with or without brackets) */
bool uri_is_dns_name(struct str host, bool allow_wildcard);   /* RFC 1123 labels; wildcard: "*." in front */
/* Percent-decodes; '+' becomes a space when form is set. Absent str for a bad escape. */
struct str uri_decode(struct arena *a, struct str s, bool form);

/* Whether all bytes may stand in a request line as they are: for paths and queries that a rule puts together. */
bool uri_is_clean(struct str path_or_query);

struct url {
	bool is_https;
	struct str host;                  /* without brackets */
	uint16_t port;                    /* default filled in */
	struct str target;                /* path and query, at least "/" */
	struct str authority;             /* as it stands in the text */
};
/* Absolute http:// or https://; no userinfo, no fragment, no query without a path before it. */
bool url_parse(struct str text, struct url *out);
