/*
 * password_check.h -- a password against its slow hash, on a pool of threads: requests wait for it, workers do not.
 *
 *      password_check_join ──► the pool's queue ──► result, kept in proof_cache.h, all who joined go on
 *
 * Requests of one worker that bring the same password for the same user at the same time share one check: a client with
 * a hundred connections costs one hash. The queue is bounded; what does not fit is refused at once.
 */
#pragma once
#include "core/password.h"
#include "policy/proof_cache.h"
#include "proxy/side_call.h"

#define PASSWORD_QUEUE_MAX 128
#define PASSWORD_WAIT_MS 5000             /* of a request */
#define PASSWORD_GOOD_MS 60000            /* how long a result holds */
#define PASSWORD_BAD_MS 10000

struct password_check;

/*
 * NULL: too many wait already. Else the caller awaits e->wait, looks at the result, and leaves in any case, once. `p`
 * is proof_of(...) what is checked.
 */
struct password_check *password_check_join(struct exchange *x, struct waitlist_entry *e, const struct proof *p,
					   struct str password, struct str hash);
enum proof_found password_check_result(const struct password_check *c);   /* PROOF_NONE: not done in time */
void password_check_leave(struct password_check *c);
