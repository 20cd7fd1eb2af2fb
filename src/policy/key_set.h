/*
 * key_set.h -- a JSON Web Key Set (RFC 7517) made ready to verify with.
 *
 * Immutable once read; counted, because the set in force may be replaced while another thread verifies with it. Keys
 * that cannot verify anything we accept (too weak, for encryption, unknown types) are passed over and counted.
 */
#pragma once
#include "core/crypto_key.h"
#include "core/json.h"

#define KEY_SET_MAX 64                    /* usable keys of one set; more are passed over */

struct key_set_key {
	struct str kid;                   /* absent: the key has none */
	enum crypto_algorithm algorithm;  /* its `alg`; CRYPTO_ALGORITHM_COUNT: any that fits */
	struct crypto_key *key;
};

struct key_set {
	struct key_set_key *keys;
	unsigned n, passed_over;
	uint8_t digest[32];               /* of the text: whether a fetched set is a new one */
	/* private */
	_Atomic(unsigned) refs;
	struct arena *arena;
};

/*
 * `is_inline`: the set stands in the configuration, so symmetric keys count. NULL fills *why: no JSON, no set, or no
 * usable key. The caller has one reference.
 */
struct key_set *key_set_read(struct str text, bool is_inline, struct problem *why);
struct key_set *key_set_hold(struct key_set *s);
void key_set_drop(struct key_set *s);                        /* NULL is fine */
