/*
 * balance.h -- which endpoint of a service gets a request.
 *
 *      target, lane ──► candidates: the endpoints of that port, version and lane        (lists made once per worker)
 *      health, tries ──► those that are up and were not tried yet; any that is up; in a panic all of them
 *      ServiceLb ──────► one of them: in turn, least busy, at random, or by the hash of a key
 *
 * What ServiceLb asks for (struct balance) and the ring of a hash are immutable and made on the control thread. What
 * moves is one worker's own (positions in candidate lists) or an atomic of the endpoint's cell (requests in flight,
 * health, time of the last recovery). A service without ServiceLb is balanced in turn.
 *
 * Lanes (exchange.lane, set by a request step): absent = lanes mean nothing here, every endpoint is a candidate;
 * empty = baseline, endpoints without a tag only; else the endpoints that carry this tag, while one of them is up, and
 * the baseline's otherwise. An endpoint carries its label and is tagged by it; it carries the name of its version too,
 * and is tagged by it when a lane of the gateway has that name (exchange.lanes). A service that has no endpoint without
 * a tag uses all of them for the baseline. A target that names a version keeps to it, whatever the lane.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "core/pmap.h"
#include "core/str.h"
#include "proxy/snapshot.h"

struct exchange;

enum balance_method { BALANCE_IN_TURN, BALANCE_LEAST_BUSY, BALANCE_AT_RANDOM, BALANCE_BY_HASH };
enum balance_key { BALANCE_KEY_HEADER, BALANCE_KEY_COOKIE, BALANCE_KEY_ADDRESS, BALANCE_KEY_QUERY };

/* How a service is balanced. Immutable; lives as long as the snapshot parts that point to it. */
struct balance {
	enum balance_method method;
	enum balance_key key;             /* BY_HASH */
	struct str name;                  /* of the header, cookie or query parameter */
	uint16_t header_id;               /* enum header_id of a header's name */
	uint32_t ring_points;             /* of each endpoint of the largest weight, at least: see ring.h */
	struct str cookie_path;           /* absent = none is sent */
	int64_t cookie_age_s;             /* 0 = until the session ends */
	bool sets_cookie;                 /* a client without the cookie gets one */
	int64_t warmup_ms;                /* a new endpoint's share grows for so long; 0 = it has its share at once */
};

/* Names of lanes, enabled or not: versions named so are canaries. */
struct lane_names {
	const struct str *names;
	unsigned n;
	uint64_t hash;                    /* of all of them: the same names, the same candidates */
};

/* An endpoint of x->service that fits x->target and x->lane and is up, one not in x->tried if there is one; or NULL. */
const struct endpoint *balance_pick(struct exchange *x);
/* Whether balance_pick() would find one of s for t; changes nothing. */
bool balance_has_endpoint(const struct exchange *x, const struct service *s, const struct target *t);

/* ---------- control thread ---------- */

/*
 * For dry runs, of an exchange without a worker whose service has a rotation of its own: the endpoint that
 * balance_pick() would choose, where that is certain. may[i]: it might choose endpoint i. *how: by what it would choose
 * among them, static text.
 */
const struct endpoint *balance_look(struct exchange *x, bool *may, const char **how);

struct rotation;
/* The moving state of one version of a service's endpoints; one hold, the caller's. */
struct rotation *rotation_new(void);
struct part *rotation_part(struct rotation *r);
