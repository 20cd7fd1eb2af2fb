/*
 * crypto_key.h -- keys that signatures of tokens are verified with: RSA, EC, Ed25519 and shared secrets, and the
 * algorithms of RFC 7518 and RFC 8037 over them.
 *
 * A key never changes once it is made, so any number of threads may verify with it at the same time. Which algorithm
 * fits which key is decided here and nowhere else: a public key is never taken for a shared secret.
 */
#pragma once
#include <stdbool.h>
#include "core/str.h"

#define CRYPTO_RSA_BITS_MIN 2048
#define CRYPTO_RSA_BITS_MAX 16384

enum crypto_key_kind { CRYPTO_RSA, CRYPTO_EC256, CRYPTO_EC384, CRYPTO_EC521, CRYPTO_ED25519, CRYPTO_SECRET };

#define CRYPTO_ALGORITHMS(A) \
	A(RS256) A(RS384) A(RS512) A(PS256) A(PS384) A(PS512) A(ES256) A(ES384) A(ES512) A(EdDSA) \
	A(HS256) A(HS384) A(HS512)
enum crypto_algorithm {
#define CRYPTO_ALGORITHM_ID(name) CRYPTO_##name,
	CRYPTO_ALGORITHMS(CRYPTO_ALGORITHM_ID)
#undef CRYPTO_ALGORITHM_ID
	CRYPTO_ALGORITHM_COUNT
};
/* By the name of the registry ("RS256", "EdDSA"), byte for byte; CRYPTO_ALGORITHM_COUNT: unknown, "none" included. */
enum crypto_algorithm crypto_algorithm_find(struct str name);

struct crypto_key;
/* All numbers are big-endian bytes. NULL: no such key exists, or it is weaker or larger than we take. */
struct crypto_key *crypto_key_rsa(struct str modulus, struct str exponent);
struct crypto_key *crypto_key_ec(enum crypto_key_kind kind, struct str x, struct str y);
struct crypto_key *crypto_key_ed25519(struct str x);
struct crypto_key *crypto_key_secret(struct str bytes);
void crypto_key_free(struct crypto_key *k);                  /* NULL is fine; secrets are wiped */

enum crypto_key_kind crypto_key_kind(const struct crypto_key *k);
bool crypto_key_fits(const struct crypto_key *k, enum crypto_algorithm a);
/* ES*: the signature is r || s, of exactly twice the curve's size. False also when the algorithm does not fit. */
bool crypto_key_verify(const struct crypto_key *k, enum crypto_algorithm a, struct str data, struct str signature);

/* base64url without padding, strictly (RFC 7515 2): no other byte, no stray bits. `out` has n * 3 / 4 bytes of room. */
MUST_USE bool crypto_base64url_strict(struct str text, char *out, size_t *n);
