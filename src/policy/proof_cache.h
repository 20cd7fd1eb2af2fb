/*
 * proof_cache.h -- what was proven lately, so that it need not be proven again for a while: a password against its slow
 * hash, a token against its keys.
 *
 * A proof is known by a MAC, with a key of this process, of the credential and of what it was held against: a changed
 * password or key set has other proofs, so nothing has to be flushed. Neither can be found from what is kept. All
 * workers share a table of fixed size without waiting for each other: a slot that somebody is at counts as empty.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/str.h"

#define PROOF_LASTS_MAX_MS 60000

struct proof {
	uint8_t mac[32];
};
struct proof proof_of(struct str credential, struct str against);
enum proof_found { PROOF_NONE, PROOF_GOOD, PROOF_BAD };
enum proof_found proof_find(const struct proof *p, int64_t now_ms);      /* clock_ms() */
/* until_ms: at most PROOF_LASTS_MAX_MS from now. */
void proof_keep(const struct proof *p, bool is_good, int64_t now_ms, int64_t until_ms);
