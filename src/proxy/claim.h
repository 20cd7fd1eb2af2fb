/*
 * claim.h -- paths that policies answer themselves (policy_class.claims), whatever routes there are.
 */
#pragma once
#include <stdbool.h>
#include "core/str.h"

struct exchange;

/* Gateway, host (any case) and path as a key of snapshot.claims; absent when it is longer than any key. */
#define CLAIM_KEY_MAX 2560
struct str claim_key(char out[CLAIM_KEY_MAX], struct str gateway_id, struct str host, struct str path);
/* Of an exchange with a site, where the snapshot has claims: sets x->claimed, NULL when its path is like any other. */
bool claim_find(struct exchange *x);
