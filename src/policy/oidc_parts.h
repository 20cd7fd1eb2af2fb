/*
 * oidc_parts.h -- the parts of OIDCAuth among each other.
 *
 *      oidc_auth.c      the class: fields, and what becomes of a request that is for the application
 *      oidc_login.c     sends a browser to the provider
 *      oidc_callback.c  takes it back: code ──► tokens ──► ID token verified ──► session
 *      oidc_sign_out.c  ends a session, here and at the provider
 *      oidc_verify.c    the ladder that verifies an ID token, for login and refresh
 *
 * Pure, without exchange: oidc_cookie, oidc_session, oidc_token, oidc_url. Shared by the process: oidc_provider,
 * oidc_refresh, once.
 */
#pragma once
#include "policy/formats.h"
#include "policy/oidc_cookie.h"
#include "policy/oidc_provider.h"
#include "policy/oidc_refresh.h"
#include "policy/oidc_session.h"
#include "policy/oidc_token.h"
#include "proxy/dependency.h"
#include "proxy/policy.h"
#include "proxy/side_call.h"

#define OIDC_SIGN_OUT "/oauth2/sign_out"
#define OIDC_CALL_TIMEOUT_MS 5000
#define OIDC_RESTART_MARK "r."            /* of the state of a login that replaced an unknown one */

enum oidc_outcome {
	OIDC_PASSED, OIDC_LOGIN, OIDC_UNAUTHENTICATED, OIDC_REFRESHED, OIDC_UNAVAILABLE, OIDC_LOGIN_FAILED
};

struct oidc_auth {
	struct str issuer, clientId, clientSecret, redirectUri;
	struct items scopes;
	bool enable;
	/* prepared */
	struct str scope;                 /* as it is asked for: "openid email" */
	struct str host, path;            /* of redirectUri: lower case without port, and in normal form */
	struct str origin;                /* scheme and authority of redirectUri */
	struct str basic;                 /* the value of Authorization that shows clientId and clientSecret */
	bool is_secure;                   /* redirectUri is https: so are the cookies */
};

struct oidc_cell {
	struct dependency dependency;
	struct oidc_provider_user provider;
};

/* What one request needs beyond a good session; made when it does. */
struct oidc_work {
	const struct step *mine;          /* whose policy: of several that share a path, the one it is about */
	struct oidc_use use;
	struct arena_defer end_use;
	struct oidc_session session;      /* the one that the request has */
	struct oidc_login login;
	struct oidc_tokens tokens;
	int64_t tokens_at_s;
	struct str code, issuer;          /* of a callback */
	struct side_call *call;
	struct oidc_refresh_use refresh;
	struct oidc_expected expected;
	struct oidc_identity identity;
	struct jwt jwt;
	struct key_use keys;
	/* why: NULL when the ID token is good; else w->identity says nothing. */
	enum verdict (*verified)(struct exchange *x, const struct step *s, const char *why);
	/* There is nothing to verify it with. */
	enum verdict (*no_keys)(struct exchange *x, const struct step *s, const char *why);
};
struct oidc_work *oidc_work(struct exchange *x, const struct step *s);
static inline const struct oidc_auth *oidc_conf(const struct oidc_work *w)
{
	return w->mine->conf;
}
static inline struct oidc_cell *oidc_cell(const struct oidc_work *w)
{
	return w->mine->cell;
}

/* The provider's document into w->use, until the exchange ends. AWAITED: return await(x, &w->use.wait.wait, ...). */
enum oidc_answer oidc_discover(struct exchange *x, struct oidc_work *w);
/* Verifies w->tokens.id_token by w->expected, then calls w->verified or w->no_keys. */
enum verdict oidc_verify(struct exchange *x, const struct step *s);

/* The session of that policy that the request has; false: none that is good for anything. Times are judged. */
bool oidc_find_session(struct exchange *x, const struct step *policy, struct oidc_session *out, bool *is_old);
/* Into cookies of the response. False: it is too long to keep. */
MUST_USE bool oidc_keep_session(struct exchange *x, const struct step *policy, struct oidc_session *s);
void oidc_forget_session(struct exchange *x, const struct step *policy);
struct oidc_lines oidc_lines_for(struct exchange *x, const struct step *policy);
void oidc_set_lines(struct exchange *x, const struct oidc_lines *lines);
/* From w->tokens and w->identity; `before` is what was refreshed, or NULL. */
struct oidc_session oidc_make_session(const struct oidc_work *w, const struct oidc_session *before);

/* Answers a request without a session: to the provider, when it comes from a person who reads pages; else 401. */
enum verdict oidc_ask_login(struct exchange *x, const struct step *s);
/* To the provider, and back to `target`. */
enum verdict oidc_begin_login(struct exchange *x, const struct step *s, struct str target, bool is_restart);
/* The call to the token endpoint with these form fields, by the client's credentials. */
struct side_request oidc_token_request(struct exchange *x, const struct oidc_work *w, struct sbuf *form);

enum verdict oidc_claimed(struct exchange *x, const struct step *s);
enum verdict oidc_sign_out(struct exchange *x, const struct step *s);

enum verdict oidc_redirect(struct exchange *x, struct str location);
/* A small page for a person; `text` is HTML. */
enum verdict oidc_page(struct exchange *x, int status, const char *title, struct str text);
enum verdict oidc_unavailable(struct exchange *x, const struct step *policy, const char *what);
bool oidc_is_page_request(const struct message *req);
