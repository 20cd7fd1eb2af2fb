/*
 * oidc_provider.h -- what OpenID providers say of themselves (OpenID Connect Discovery 1.0): fetched once for the whole
 * process, kept fresh, and with them the provider's key set.
 *
 *      cell_init   oidc_provider_open ──► the provider of that issuer, made when it is new
 *      adoption    oidc_providers_tend: worker 0 makes the first fetch, and from then on each one that is due
 *      a request   oidc_use_begin ──► OIDC_HELD, OIDC_AWAITED (await(x, &use->wait.wait, again)), OIDC_NONE (503)
 *      cell_free   oidc_provider_close
 *
 * A document is fetched anew every hour. How long an old one is used, what is tried meanwhile and who waits is
 * remote_document.h's. Documents are immutable and counted; requests that have a session need none.
 */
#pragma once
#include "policy/key_source.h"
#include "policy/remote_document.h"

#define OIDC_REFRESH_MS INT64_C(3600000)

/* What the document says, as far as it concerns us; every URL was checked. */
struct oidc_document {
	struct str issuer;                /* as the document spells it: what `iss` has to be */
	struct str authorization_endpoint, token_endpoint, jwks_uri;
	struct str end_session_endpoint;  /* absent: there is none */
	bool posts_secret;                /* client_secret_post is all it takes */
	struct key_user keys;
	uint8_t digest[32];
	/* private */
	_Atomic(unsigned) refs;
	struct arena *arena;
};
/* `issuer`: the configured one. NULL fills *why. One reference; its keys are not open yet. */
struct oidc_document *oidc_document_read(struct str text, struct str issuer, struct problem *why);
void oidc_document_drop(struct oidc_document *d);             /* NULL is fine */

struct oidc_provider_user {
	struct remote_user remote;        /* private */
};
/* Any thread. The dependency is told what becomes of fetches, until the close. `u` does not move meanwhile. */
void oidc_provider_open(struct oidc_provider_user *u, struct str issuer, struct dependency *d);
void oidc_provider_close(struct oidc_provider_user *u);       /* of one that was not opened: nothing */
void oidc_providers_tend(struct worker *w);                   /* policy_class.adopted */

enum oidc_answer { OIDC_HELD = REMOTE_HELD, OIDC_AWAITED = REMOTE_AWAITED, OIDC_NONE = REMOTE_NONE };
/* One request's need; in its memory, zeroed at first. */
struct oidc_use {
	union {
		struct remote_use remote; /* private; begins with the wait */
		struct poll_wait wait;    /* wait.wait is what await() takes */
	};
	struct oidc_document *document;   /* of OIDC_HELD, until oidc_use_end() */
};
enum oidc_answer oidc_use_begin(struct oidc_use *u, const struct oidc_provider_user *of, struct exchange *x);
void oidc_use_end(struct oidc_use *u);                        /* also when nothing is held */
