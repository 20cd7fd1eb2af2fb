/*
 * key_source.h -- where the keys come from that tokens are verified with: a key set at a URL, kept fresh, or one that
 * stands in the configuration.
 *
 *      cell_init   key_user_open ──► the source of that URL, made when it is new; one for the whole process
 *      adoption    key_sources_tend: worker 0 makes the first fetch, and from then on each one that is due
 *      a request   key_use_begin ──► KEYS_HELD, KEYS_AWAITED (await(x, &use->wait, again)), KEYS_NONE (503)
 *      cell_free   key_user_close
 *
 * A set is refreshed in the background when its Cache-Control says (60 s .. 24 h), else every 300 s. A token whose key
 * id is not in the set brings one more fetch at once, but at most one in 30 s, whatever comes. There is one fetch of a
 * URL at a time on a node. The last good set is used until an hour after it was due; then, or when there never was
 * one, there is nothing to verify with, and the next fetch is tried every 5 s.
 *
 * Sources are shared by all workers and are looked at under one lock, which is held for some loads and stores and never
 * over a call to anything that takes time: a set can only be counted up safely while nobody replaces it, and there is
 * no such access on the path of a token that was verified before (key_source_version() is one load). Waiting for a
 * fetch, maybe of another worker, is a timer that looks every KEY_POLL_MS: it happens once after a start or a rotation.
 */
#pragma once
#include "core/list.h"
#include "core/timer.h"
#include "policy/key_set.h"
#include "proxy/dependency.h"
#include "proxy/policy.h"

#define KEY_FETCH_TIMEOUT_MS 5000
#define KEY_WAIT_MS 5000                  /* of a request, in all */
#define KEY_POLL_MS 20
#define KEY_SET_BYTES_MAX (1 << 20)
#define KEY_REDIRECTS_MAX 3
#define KEY_REFRESH_S 300                 /* when the answer does not say */
#define KEY_REFRESH_MIN_S 60
#define KEY_REFRESH_MAX_S 86400
#define KEY_STALE_S 3600                  /* after a refresh was due */
#define KEY_UNKNOWN_MS 30000              /* between fetches for unknown key ids; and after a failed refresh */
#define KEY_RETRY_MS 5000                 /* between fetches while there is no set */
#define KEY_WAITING_MAX 1024              /* requests that wait for one source; more are answered at once */

struct exchange;
struct key_source;
struct worker;

/* Somebody who needs the keys: a policy's cell has one for each set. Any thread. */
struct key_user {
	struct key_source *source;
	/* private */
	struct list node;
	struct dependency *dependency;
};
/*
 * `jwks`: a URL, or a set as JSON (jwks_is_inline), both checked before. The dependency, which may be NULL, is told
 * from any worker what becomes of fetches, until key_user_close(); an inline set is never down. `u` does not move
 * meanwhile.
 */
void key_user_open(struct key_user *u, struct str jwks, struct dependency *d);
void key_user_close(struct key_user *u);              /* of one that was not opened: nothing */

/* policy_class.adopted of all classes that have users: worker 0 fetches what was opened and what is due. */
void key_sources_tend(struct worker *w);

/*
 * Which set is in force: another number for each new set, 0 while there is none that may be used. What was verified
 * under one version must be verified again under another. One load.
 */
uint64_t key_source_version(const struct key_user *u);

enum key_answer { KEYS_HELD, KEYS_AWAITED, KEYS_NONE };

/* One request's need for keys: in its exchange_state() or arena, zeroed at first. */
struct key_use {
	struct wait wait;                 /* first: what await() takes */
	struct key_set *set;              /* of KEYS_HELD, until key_use_end() */
	uint64_t version;                 /* its number */
	/* private */
	struct timer poll;
	struct key_source *source;        /* being waited for */
	int64_t until_ms;                 /* of its patience; 0 = it has not waited yet */
};
/*
 * KEYS_HELD: verify with u->set, then key_use_end(). `kid` is the token's key id, absent when it has none; a set that
 * does not have it is held only when asking the issuer again did not help or is not due.
 * KEYS_AWAITED: await(x, &u->wait, h); h calls this again with the same arguments. At most KEY_WAIT_MS in all.
 * KEYS_NONE: there is nothing to verify with, answer 503.
 */
enum key_answer key_use_begin(struct key_use *u, const struct key_user *of, struct exchange *x, struct str kid);
void key_use_end(struct key_use *u);
/* The set as it is now, for looking only (dry runs); NULL: none. The caller drops it. */
struct key_set *key_source_look(const struct key_user *u);
