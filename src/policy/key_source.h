/*
 * key_source.h -- where the keys come from that tokens are verified with: a key set at a URL, kept fresh, or one that
 * stands in the configuration.
 *
 *      cell_init   key_user_open ──► the key set of that URL; one for the whole process (remote_document.h)
 *      adoption    key_sources_tend: worker 0 makes the first fetch, and from then on each one that is due
 *      a request   key_use_begin ──► KEYS_HELD, KEYS_AWAITED (await(x, &use->wait, again)), KEYS_NONE (503)
 *      cell_free   key_user_close
 *
 * A set is refreshed in the background when its Cache-Control says (60 s .. 24 h), else every 300 s. A token whose key
 * id is not in the set brings one more fetch at once, but at most one in 30 s, whatever comes. How long an old set is
 * used, what is tried meanwhile and who waits is remote_document.h's; there is nothing of that on the path of a token
 * that was verified before (key_source_version() takes no lock).
 *
 * A set of the configuration is its user's own. It is there from the open to the close, has all it will ever have, and
 * is never down.
 */
#pragma once
#include "policy/key_set.h"
#include "policy/remote_document.h"

#define KEY_REFRESH_S 300                 /* when the answer does not say */
#define KEY_REFRESH_MIN_S 60
#define KEY_REFRESH_MAX_S 86400
#define KEY_WAITING_MAX REMOTE_WAITING_MAX

/* Somebody who needs the keys: a policy's cell has one for each set. Any thread. Private. */
struct key_user {
	struct remote_user remote;        /* open: there is a URL */
	struct key_set *set;              /* else: of the configuration; NULL: it is not usable */
	uint64_t version;                 /* of that */
};
/*
 * `jwks`: a URL, or a set as JSON (jwks_is_inline), both checked before. The dependency, which may be NULL, is told
 * from any worker what becomes of fetches, until key_user_close(). `u` does not move meanwhile.
 */
void key_user_open(struct key_user *u, struct str jwks, struct dependency *d);
void key_user_close(struct key_user *u);              /* of one that was not opened: nothing */

/* policy_class.adopted of all classes that have users. */
void key_sources_tend(struct worker *w);

/*
 * Which set is in force: another number for each new set, 0 while there is none that may be used. What was verified
 * under one version must be verified again under another. Two loads, no lock.
 */
uint64_t key_source_version(const struct key_user *u);

enum key_answer { KEYS_HELD = REMOTE_HELD, KEYS_AWAITED = REMOTE_AWAITED, KEYS_NONE = REMOTE_NONE };

/* One request's need for keys: in its exchange_state() or arena, zeroed at first. */
struct key_use {
	union {
		struct remote_use remote; /* private; begins with the wait */
		struct wait wait;         /* what await() takes */
	};
	struct key_set *set;              /* of KEYS_HELD, until key_use_end() */
	uint64_t version;                 /* its number */
	/* private */
	struct str kid;
};
/*
 * KEYS_HELD: verify with u->set, then key_use_end(). `kid` is the token's key id, absent when it has none; a set that
 * does not have it is held only when asking the issuer again did not help or is not due.
 * KEYS_AWAITED: await(x, &u->wait, h); h calls this again with the same arguments. At most REMOTE_WAIT_MS in all.
 * KEYS_NONE: there is nothing to verify with, answer 503.
 */
enum key_answer key_use_begin(struct key_use *u, const struct key_user *of, struct exchange *x, struct str kid);
void key_use_end(struct key_use *u);
/* The set as it is now, for looking only (dry runs); NULL: none. The caller drops it. */
struct key_set *key_source_look(const struct key_user *u);
