/*
 * jwt.h -- signed tokens (RFC 7519 in the compact form of RFC 7515): taken apart strictly, and judged.
 *
 * Pure: no clock, no network, no configuration. Nothing of an unverified token is used but its key id and, by whoever
 * asks for it, the claim that tells whose keys to try.
 */
#pragma once
#include "core/arena.h"
#include "core/crypto_key.h"
#include "core/json.h"
#include "policy/key_set.h"

#define JWT_BYTES_MAX 16384
#define JWT_LEEWAY_S 60
#define JWT_KEYS_TRIED 8                  /* without a key id */

/* Why not; the text is for `error_description` and logs, and says nothing of the token. */
#define JWT_FAULTS(F) \
	F(OK, "ok") F(MALFORMED, "malformed") F(ALGORITHM, "algorithm") F(UNKNOWN_KEY, "unknown key") \
	F(SIGNATURE, "signature") F(EXPIRED, "expired") F(NOT_YET_VALID, "not yet valid") F(ISSUER, "issuer") \
	F(SUBJECT, "subject") F(CLAIMS, "claims")
enum jwt_fault {
#define JWT_FAULT_ID(id, text) JWT_##id,
	JWT_FAULTS(JWT_FAULT_ID)
#undef JWT_FAULT_ID
	JWT_FAULT_COUNT
};
const char *jwt_fault_text(enum jwt_fault f);

struct jwt {
	enum crypto_algorithm algorithm;
	struct str kid;                   /* absent: none */
	const struct json *payload;
	struct str signed_part;           /* header.payload, as it came */
	struct str signature;
};

/* Trees and texts live in `a` and point into `token`. MALFORMED or ALGORITHM when it is none of ours. */
enum jwt_fault jwt_parse(struct arena *a, struct str token, struct jwt *out);
/*
 * With a key id only the keys of that id are tried, else all that fit, at most JWT_KEYS_TRIED. UNKNOWN_KEY: the set
 * has no key of that id; a newer set may have one.
 */
enum jwt_fault jwt_verify(const struct jwt *t, const struct key_set *keys);

struct jwt_rules {
	struct str issuer;                /* absent = not checked */
	struct str subject;               /* absent = not checked */
	int64_t now_s, leeway_s;
};
/*
 * iss, sub, exp, nbf, iat. *expires_s: when the token stops being good without leeway, INT64_MAX when it does not say.
 */
enum jwt_fault jwt_check_claims(const struct jwt *t, const struct jwt_rules *rules, int64_t *expires_s);
