/*
 * password_check.h -- a password against its slow hash, on a pool of threads: requests wait for it, workers do not.
 *
 *      password_check_join ──► the user's lane ──► one from each lane in turn ──► the pool ──► result, kept in
 *      proof_cache.h, all who joined go on
 *
 * Requests of one worker that bring the same password for the same user at the same time share one check: a client with
 * a hundred connections costs one hash.
 *
 * A flood of wrong passwords delays nobody but those it is about. Each user has a lane of his own, and all users that
 * do not exist have one together; lanes take turns, so a check waits for as many others as there are users under
 * attack, not for as many as there are guesses. Lanes and their sum are bounded. Where there is no room, a check of the
 * address that has most there makes room for one of an address that has less, and is refused at once; so the user
 * himself gets through from where he is. Addresses of IPv6 count by their /64.
 */
#pragma once
#include "core/password.h"
#include "policy/proof_cache.h"
#include "proxy/side_call.h"

#define PASSWORD_LANE_MAX 8               /* checks of one user that wait, on one worker */
#define PASSWORD_QUEUE_MAX 64             /* of all users: what threads get done before they are too old */
#define PASSWORD_WAIT_MS 5000             /* of a request */
#define PASSWORD_GOOD_MS 60000            /* how long a result holds */
#define PASSWORD_BAD_MS 10000

struct password_check;

struct password_claim {
	struct proof proof;               /* proof_of(...) what is checked */
	struct str user;                  /* absent: there is no such user */
	struct str password, hash;
};

/*
 * NULL: too many wait already. Else the caller awaits e->wait, looks at the result, and leaves in any case, once.
 */
struct password_check *password_check_join(struct exchange *x, struct waitlist_entry *e,
	const struct password_claim *claim);
enum proof_found password_check_result(const struct password_check *c);   /* PROOF_NONE: not done in time */
void password_check_leave(struct password_check *c);
