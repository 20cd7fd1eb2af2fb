/*
 * oidc_refresh.h -- refreshes of sessions: one call to the provider for one refresh token, however many requests need
 * it at the same time, on whatever worker.
 *
 *      first request   joins, starts the call ──► provider
 *      the others      join it, and wait
 *      all             take the same answer; so does, for 30 s, who still comes with the old cookie
 *
 * The call is not the first request's: it goes on when that client leaves, for the provider may have taken the old
 * refresh token out of use. An answer that says nothing is kept for 5 s: a provider that is down is not asked by every
 * request. The table is bounded; when it is full a refresh fails like one without an answer.
 */
#pragma once
#include "policy/poll_wait.h"
#include "proxy/side_call.h"

#define OIDC_REFRESH_KEEP_MS 30000
#define OIDC_REFRESH_FAILED_MS 5000
#define OIDC_REFRESHES_MAX 8192           /* under way or kept */
#define OIDC_ANSWER_BYTES_MAX (256 << 10) /* of a token endpoint */

/* TOKENS: a 200. REFUSED: the refresh token is not good any more. FAILED: anything else. */
enum oidc_refresh_end { OIDC_REFRESH_TOKENS, OIDC_REFRESH_REFUSED, OIDC_REFRESH_FAILED };

struct oidc_refresh;
/* One request's part; in its memory, zeroed at first. */
struct oidc_refresh_use {
	struct poll_wait wait;            /* first */
	struct oidc_refresh *refresh;
	/* private */
	struct arena_defer defer;
};
/*
 * `key`: the digest of policy and refresh token. The request is sent where there is no such refresh yet; its texts are
 * copied. Then: return await(x, &u->wait.wait, then). False: there are too many.
 */
MUST_USE bool oidc_refresh_join(struct oidc_refresh_use *u, struct exchange *x, const uint8_t key[32],
				const struct side_request *r);
/* After the wait. body: of TOKENS, until the exchange ends; at_s: when it came; what: of FAILED, for people. */
enum oidc_refresh_end oidc_refresh_result(const struct oidc_refresh_use *u, struct str *body, int64_t *at_s,
					  const char **what);
