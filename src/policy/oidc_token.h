/*
 * oidc_token.h -- answers of a provider's token endpoint, and what an ID token has to say to be believed (OpenID
 * Connect Core 3.1.3.7). Pure: no clock, no network; the signature is jwt_verify()'s.
 */
#pragma once
#include "core/json.h"
#include "policy/jwt.h"

#define OIDC_TOKEN_MAX 65536              /* bytes of an access or refresh token */
#define OIDC_SLACK_S 120                  /* between the provider's clock and ours */
#define OIDC_TEXT_MAX 320                 /* bytes of a name or an address that is kept */

struct oidc_tokens {
	struct str id_token, access_token, refresh_token;     /* absent: not given */
	int64_t access_expires_s;         /* 0: the answer does not say */
};

/* Of a 200. NULL, or why not: static text that says nothing of the tokens. Texts point into the tree in `a`. */
const char *oidc_tokens_read(struct arena *a, struct str body, int64_t now_s, struct oidc_tokens *out);
/* The member `error` of an answer that is none, when it is one of the words of RFC 6749; else "". */
const char *oidc_error_read(struct arena *a, struct str body);

struct oidc_expected {
	struct str issuer, client_id;
	struct str nonce;                 /* absent: not checked (a refresh) */
	struct str subject;               /* absent: any */
	struct str access_token;          /* what at_hash is of; absent: not checked */
	int64_t now_s;
};
struct oidc_identity {
	struct str subject, email, name;
	int64_t expires_s;
};
/* NULL, or why the claims are not accepted: static text. *out is filled when they are. */
const char *oidc_claims_check(const struct jwt *t, const struct oidc_expected *expected, struct oidc_identity *out);
