/* crypto.h -- random bytes, digests, sealing and encodings; the only door to OpenSSL in core. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/str.h"

void crypto_random(void *out, size_t n);                       /* from the kernel; cannot fail */
void crypto_sha256(struct str data, uint8_t out[32]);
void crypto_sha384(struct str data, uint8_t out[48]);
void crypto_sha512(struct str data, uint8_t out[64]);
void crypto_sha1(struct str data, uint8_t out[20]);             /* where a protocol asks for it; proves nothing */
void crypto_hmac_sha256(struct str key, struct str data, uint8_t out[32]);
/*
 * AES-256-GCM with a random 96-bit nonce. The sealed form is base64url text of version byte, nonce,
 * ciphertext, tag. `label` is authenticated with it, so a sealed value cannot be moved to another field.
 * unseal: absent str when the key, the label or a byte is wrong.
 */
struct str crypto_seal(struct arena *a, const uint8_t key[32], struct str label, struct str plain);
struct str crypto_unseal(struct arena *a, const uint8_t key[32], struct str label, struct str sealed);
struct str crypto_base64url(struct arena *a, struct str bytes);                 /* no padding */
struct str crypto_base64(struct arena *a, struct str bytes);
bool crypto_base64_decode(struct arena *a, struct str text, struct str *out);   /* both alphabets, padding optional */
/* n random characters of [0-9a-z]: ids and tokens. out gets a NUL. */
void crypto_id(char *out, size_t n);
/* Whether `pem` holds at least one certificate / a private key that matches the first certificate. */
unsigned crypto_pem_certificates(struct str pem);
bool crypto_pem_has_private_key(struct str pem);
bool crypto_pem_pair_matches(struct str certificate_pem, struct str key_pem);
