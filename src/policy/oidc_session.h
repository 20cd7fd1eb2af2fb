/*
 * oidc_session.h -- what OIDCAuth lets the browser keep: the session of somebody who logged in, and the login that is
 * under way. Sealed (AES-256-GCM), so nobody but a gateway with the node's secret can read, make or change one.
 *
 *      text in the cookie:  <generation of the key>.<sealed>
 *
 * The policy's id is in the key and in what is authenticated: a cookie of one policy is none of another one's. What was
 * opened is trusted; that it is still good (its times) is for the caller to judge.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/str.h"

struct oidc_session {
	struct str subject, email, name;  /* of the ID token; email and name may be absent */
	struct str id_token, access_token, refresh_token;     /* the last two may be absent */
	int64_t expires_s;                /* when the access token or the ID token does, whichever is first */
	int64_t sealed_s;                 /* when the cookie was made */
	int64_t refreshed_s;              /* of the last refresh; 0: none yet */
};

struct oidc_login {
	struct str state, nonce, verifier;
	struct str target;                /* where the browser wanted to go: a path of this host */
	int64_t issued_s;
	bool is_restart;                  /* it replaced one whose state was not known */
};

struct oidc_seal {
	struct str policy_id;
	unsigned generation;              /* of the key in force; the one before opens too */
	bool packs;                       /* as short as can be: tokens taken apart, and all of it compressed */
};

struct str oidc_session_seal(struct arena *a, const struct oidc_seal *with, const struct oidc_session *s);
/* False: it is not one of ours, or was changed. *is_old: the key before sealed it. */
bool oidc_session_open(struct arena *a, const struct oidc_seal *with, struct str text, struct oidc_session *out,
		       bool *is_old);
struct str oidc_login_seal(struct arena *a, const struct oidc_seal *with, const struct oidc_login *l);
bool oidc_login_open(struct arena *a, const struct oidc_seal *with, struct str text, struct oidc_login *out);
