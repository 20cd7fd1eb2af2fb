/*
 * jwks.h -- sets of public keys (RFC 7517) that tokens are verified with.
 *
 * A key is usable if its type and members fit one of our algorithms: RSA of 2048 bits or more, EC on P-256,
 * P-384 or P-521, Ed25519, and symmetric keys where the set stands in the config itself. Keys for encryption
 * are not.
 */
#pragma once
#include "core/arena.h"
#include "core/json.h"
#include "core/problem.h"

#define JWKS_TEXT_MAX (64 * 1024)

/* Whether the JWK could verify a token. `inline_set`: symmetric keys count. */
bool jwk_is_usable(const struct json *jwk, bool inline_set, struct arena *a);
/* Whether `text` is a key set written into a config, with at least one usable key; else fills why->text. */
MUST_USE bool jwks_check(struct str text, struct problem *why);
/*
 * RFC 7518 3.2: a shared secret is at least as long as what it makes: 32 bytes (HS256), 48 or 64 where its `alg` says
 * HS384 or HS512. Asked wherever inline sets are read: one that was stored before this was asked is in force no more.
 */
MUST_USE bool jwks_check_secrets(struct str text, struct problem *why);
/*
 * Whether the text must not be shown: a key set with a shared secret or a private key in it, or one that cannot be
 * read; and whatever is neither a key set nor a URL, as what is sealed.
 */
bool jwks_is_secret(struct str text);
/* A config's key set stands inline if its first character that is no blank is '{'; otherwise it is a URL. */
bool jwks_is_inline(struct str text);
