/*
 * router.h -- finds the site of a Host and the route of a request in a snapshot, at a cost that does not
 * grow with how many there are.
 *
 * Host: exact name, then "*.suffix" from the longest suffix on, then the listener's catch-all. Path, within
 * the domain's routes and then within the gateway's: Exact, then templates ({parameter} segments; fewest
 * parameters first), then the longest Prefix (whole segments), then Regex. At each step the candidates are
 * tried in order: more header conditions, more query conditions, older; the first whose methods, headers and
 * queries all match wins. For a CORS preflight the method asked for counts.
 *
 * Keys of snapshot.paths: kind byte, vhost number (4 bytes), path. Kinds: 'E' exact, 'P' prefix, 'T'
 * template with "{}" for each parameter, and 'e', 'p', 't' with a lower-case path for routes that ignore the
 * case.
 */
#pragma once
#include "core/arena.h"
#include "http/message.h"
#include "proxy/snapshot.h"

/* Hears of the routes that a search passed over. */
struct router_listener {
	void (*passed_over)(void *arg, const struct route *r, struct str why);
	void *arg;
};

/* host: without port, any case. NULL: nobody serves it here. */
const struct site *router_site(const struct binding *b, struct str host);
/* `preflight`: use this method name instead of the request's (absent = the request's own). NULL: no match. */
const struct route *router_match(const struct snapshot *s, const struct site *site, const struct message *req,
				 struct str preflight);
/* The same, and the listener hears of routes whose path fits and that a condition passed over; why: in req->arena. */
const struct route *router_match_telling(const struct snapshot *s, const struct site *site, const struct message *req,
					 struct str preflight, const struct router_listener *listener);
/* Writes the key into a; shared with the compiler. */
struct str router_key(struct arena *a, char kind, uint32_t vhost, struct str path);
/* Number of segments of a path: "/" 0, "/a" 1, "/a/" 2 (an empty last segment counts), "/a/b" 2. */
unsigned router_depth(struct str path);
