/*
 * oidc_provider.h -- what OpenID providers say of themselves (OpenID Connect Discovery 1.0): fetched once for the whole
 * process, kept fresh, and with them the provider's key set.
 *
 *      cell_init   oidc_provider_open ──► the provider of that issuer, made when it is new
 *      adoption    oidc_providers_tend: worker 0 makes the first fetch, and from then on each one that is due
 *      a request   oidc_use_begin ──► OIDC_HELD, OIDC_AWAITED (await(x, &use->wait.wait, again)), OIDC_NONE (503)
 *      cell_free   oidc_provider_close
 *
 * A document is fetched anew every hour. The last good one is used for an hour after it was due; then, or when there
 * never was one, the next fetch is tried every 5 s. One fetch of an issuer at a time on a node. Documents are immutable
 * and counted; the one lock is held for loads and stores only, and not taken by requests that have a session.
 */
#pragma once
#include "core/list.h"
#include "policy/key_source.h"
#include "policy/poll_wait.h"
#include "proxy/dependency.h"

#define OIDC_FETCH_TIMEOUT_MS 5000
#define OIDC_WAIT_MS 5000                 /* of a request, for a first fetch */
#define OIDC_DOCUMENT_BYTES_MAX (1 << 20)
#define OIDC_REFRESH_MS INT64_C(3600000)
#define OIDC_STALE_MS INT64_C(3600000)
#define OIDC_RETRY_MS 5000                /* while there is none */
#define OIDC_RETRY_STALE_MS 30000         /* while there is an old one */
#define OIDC_WAITING_MAX 1024

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

struct oidc_provider;
struct oidc_provider_user {
	struct oidc_provider *provider;
	/* private */
	struct list node;
	struct dependency *dependency;
};
/* Any thread. The dependency is told what becomes of fetches, until the close. `u` does not move meanwhile. */
void oidc_provider_open(struct oidc_provider_user *u, struct str issuer, struct dependency *d);
void oidc_provider_close(struct oidc_provider_user *u);       /* of one that was not opened: nothing */
void oidc_providers_tend(struct worker *w);                   /* policy_class.adopted */

enum oidc_answer { OIDC_HELD, OIDC_AWAITED, OIDC_NONE };
/* One request's need; in its memory, zeroed at first. */
struct oidc_use {
	struct poll_wait wait;            /* first */
	struct oidc_document *document;   /* of OIDC_HELD, until oidc_use_end() */
	/* private */
	struct oidc_provider *provider;   /* being waited for */
};
enum oidc_answer oidc_use_begin(struct oidc_use *u, const struct oidc_provider_user *of, struct exchange *x);
void oidc_use_end(struct oidc_use *u);                        /* also when nothing is held */
