/*
 * rotation.h -- candidates for requests, and the choice of one of them. balance.h says what is wanted; this knows
 * nothing of requests.
 *
 * A group is the endpoints of one service that fit a port, a version and a lane, made when the first request asks
 * for it. Each worker has its own groups, with its own position in them: nothing here is shared but the cells of the
 * endpoints. A rotation belongs to one version of a service's endpoints and holds at most ROTATION_GROUPS_MAX groups of
 * each worker; the one longest out of use makes room.
 *
 *      in turn       equal weights: one after the other. Unequal or warming up: smooth, each adds its weight to what it
 *                    has, the one that has most is chosen and pays the sum, so that shares are exact and never bunched
 *      least busy    equal weights: of two drawn at random the one with fewer requests in flight, the first one when
 *                    they have as many. Unequal or warming up: in turn by weight / (requests in flight + 1)
 *      at random     by weight
 *      by hash       the first host on the ring, from the key's place on, that is a candidate and usable
 *
 * Weights are counted in thousandths and one that warms up keeps at least a tenth, so none is ever rounded to nothing.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "core/fault.h"
#include "proxy/balance.h"

#define ROTATION_GROUPS_MAX 64

struct group_key {
	enum group_kind { GROUP_ALL, GROUP_VERSION, GROUP_TAGGED, GROUP_BASELINE } kind;
	uint16_t port;                    /* 0 = any */
	uint32_t tag;                     /* VERSION, TAGGED: index in service.tags */
	uint64_t lanes;                   /* BASELINE: hash of the names of the lanes */
};

struct group {
	struct group *next;               /* the most recently used one first */
	struct group_key key;
	unsigned n;                       /* endpoints with a weight; may be 0 */
	uint32_t *members;                /* their indexes in service.endpoints */
	bool *has;                        /* by index: is one of them */
	bool is_even;                     /* all weights are the same */
	unsigned at;                      /* whose turn it is */
	int64_t *credits;                 /* of the smooth turns, by position in members */
};

struct rotation {
	struct part part;
	uint64_t salt;                    /* of generated cookies: no client can know it */
	atomic_flag is_ejecting;          /* a worker is judging whether an endpoint may be ejected */
	struct group *groups[WORKERS_MAX];
};

/* One choice to be made. */
struct pick {
	const struct service *service;
	const struct balance *balance;    /* NULL = in turn */
	struct group *group;
	int64_t now_ms;
	uint64_t random;                  /* drawn for this pick */
	bool has_key;                     /* by hash: key_hash counts; without a key one is drawn */
	uint64_t key_hash;
	bool panics;                      /* health does not matter */
	bool misses_lane;                 /* the group is the baseline for want of the lane */
	bool is_fresh;                    /* not one of these */
	const struct endpoint *const *tried;
	unsigned n_tried;
};

/* Index + 1 of a version or tag among the service's; 0 when it has none of that name. */
uint32_t rotation_tag(const struct service *s, struct str name);
/* The worker's group of that key. `lanes`: of the key; NULL when there are none. `random` makes workers begin apart. */
struct group *rotation_group(const struct service *s, unsigned worker, const struct group_key *key,
			     const struct lane_names *lanes, uint64_t random);
/* Whether one of the group's endpoints may be picked. */
bool rotation_has(const struct pick *p);
/* Whether the endpoint of this index is in the group and may be picked. */
bool rotation_may_pick(const struct pick *p, unsigned index);
/* Whether so few of the group's endpoints are up that health must not matter. */
bool rotation_panics(const struct pick *p);
/* NULL when none may be. */
const struct endpoint *rotation_pick(const struct pick *p);
/* Weight of an endpoint in thousandths, warming up included. */
int64_t rotation_weight(const struct balance *b, const struct endpoint *e, int64_t now_ms);
