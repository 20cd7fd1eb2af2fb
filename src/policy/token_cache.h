/*
 * token_cache.h -- tokens that this worker has verified lately, so that a client's next request does not cost a
 * signature again.
 *
 * Each worker has one of its own, of bounded size, made with its first token. An entry is a token's SHA-256 under who
 * verified it (one configuration of a policy on one resource) and which version of the keys it was verified with: a
 * changed configuration or a new key set finds nothing, so nothing has to be flushed. Only tokens that were good are
 * remembered, for as long as they say, at most TOKEN_CACHE_MS.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/str.h"

#define TOKEN_CACHE_MS 60000
#define TOKEN_CACHE_ENTRIES 8192
#define TOKEN_SUBJECT_MAX 120             /* longer ones are not remembered */

struct token_id {
	uint64_t owner, version;
	uint8_t digest[32];
};
struct token_id token_id(uint64_t owner, uint64_t version, struct str token);

struct token_entry {
	struct token_id id;
	int64_t until_ms;                 /* clock_ms(); 0: a free place */
	bool says_no_end;                 /* no `exp` */
	uint8_t subject_n;
	char subject[TOKEN_SUBJECT_MAX];
};
/* NULL: not there, or no longer good. Until the next call that puts one. */
const struct token_entry *token_cache_find(const struct token_id *id);
/* expires_s: its `exp`, INT64_MAX when it does not say. One that has expired (within the leeway) is not put. */
void token_cache_put(const struct token_id *id, struct str subject, int64_t expires_s);
/* A number that no other owner has. */
uint64_t token_cache_owner(void);
