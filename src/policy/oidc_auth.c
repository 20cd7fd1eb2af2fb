/*
 * oidc_auth.c -- OIDCAuth: browsers log in at an OpenID Connect provider (authorization code flow with PKCE).
 *
 * A session is a sealed cookie: who has one passes, with the ID token for the upstream. Without one a page request is
 * sent to the provider, anything else gets 401. The callback lives at the path of redirectUri, and the sign-out at
 * /oauth2/sign_out: the gateway answers both itself.
 *
 *      request leg:  admit ──► pass
 *                          ──► refresh ──► ask ──► judge ──► (ID token) ──► renew ──► pass
 *                          ──► login, or 401
 */
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/mem.h"
#include "http/identity_field.h"
#include "policy/oidc_parts.h"
#include "policy/oidc_url.h"
#include "policy/side_url.h"

#define REFRESH_S 60                      /* before the end of a session */
#define REFRESH_AGAIN_S 10                /* at least, between refreshes of one that is still good */

static bool has_query(struct str url)
{
	return str_find(url, '?') < url.n;
}

static bool check_issuer(struct str value, struct problem *why)
{
	struct url url;

	if (!side_url_format(value, why) || !url_parse(value, &url))
		return false;
	if (has_query(value))
		return problem(why, "", "must not have a query");
	if (!url.is_https && !side_url_is_private_host(url.host))
		return problem(why, "", "must be https; plain http is for loopback and private hosts only");
	return true;
}

static bool check_path(struct str target, struct problem *why)
{
	struct arena scratch = { 0 };
	struct str path, query;
	bool is_path = uri_normalise(&scratch, target, &path, &query) == URI_OK;
	bool is_root = is_path && str_equal(path, STR("/"));
	bool is_sign_out = is_path && str_equal(path, STR(OIDC_SIGN_OUT));

	arena_free(&scratch);
	if (!is_path)
		return problem(why, "", "must have a path that a request could have");
	if (is_root)
		return problem(why, "", "must have a path of its own, such as /callback; \"/\" would hide "
			"the application");
	return !is_sign_out || problem(why, "", "must not be " OIDC_SIGN_OUT ", where users sign out");
}

static bool check_redirect(struct str value, struct problem *why)
{
	struct url url;

	if (!side_url_format(value, why) || !url_parse(value, &url))
		return false;
	if (has_query(value))
		return problem(why, "", "must not have a query");
	return check_path(url.target, why);
}

/* RFC 6749 3.3: visible ASCII without quote and backslash. */
static bool check_scope(struct str value, struct problem *why)
{
	size_t i;

	for (i = 0; i < value.n; i++)
		if (value.p[i] <= ' ' || value.p[i] > '~' || value.p[i] == '"' || value.p[i] == '\\')
			return problem(why, "", "must be one scope: visible ASCII without blanks, quotes and "
				"backslashes");
	return true;
}

static const struct field fields[] = {
	TEXT(struct oidc_auth, issuer, REQUIRED, RANGE(1, SIDE_URL_MAX), FORMAT(check_issuer),
	     EXAMPLE("\"https://accounts.google.com\""),
	     DOC("URL of the provider, as its discovery document spells it.")),
	TEXT(struct oidc_auth, clientId, REQUIRED, RANGE(1, 512), FORMAT(format_line),
	     EXAMPLE("\"your-client-id\""),
	     DOC("Id of this application at the provider.")),
	TEXT(struct oidc_auth, clientSecret, REQUIRED, SECRET_SENT_TO("issuer"), RANGE(1, 4096),
	     EXAMPLE("\"your-client-secret\""),
	     DOC("Secret of this application at the provider.")),
	TEXT(struct oidc_auth, redirectUri, REQUIRED, RANGE(1, SIDE_URL_MAX), FORMAT(check_redirect),
	     EXAMPLE("\"https://your-app.com/callback\""),
	     DOC("URL of the callback, registered at the provider; the gateway answers its path itself.")),
	TEXTS(struct oidc_auth, scopes, REQUIRED, RANGE(1, 64), TEXT_MAX(256), FORMAT(check_scope),
	      EXAMPLE("[\"openid\", \"profile\", \"email\"]"),
	      DOC("Scopes that are asked for; \"openid\" is added if it is missing.")),
	BOOL(struct oidc_auth, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

/* ---------- prepared ---------- */

static struct str make_scope(const struct oidc_auth *auth, struct arena *a)
{
	struct sbuf text = { 0 };
	struct str scope;
	bool has_openid = false;

	for (size_t i = 0; i < auth->scopes.n; i++)
		has_openid = has_openid || str_equal(*ITEM(auth->scopes, const struct str, i), STR("openid"));
	if (!has_openid)
		SBUF_LIT(&text, "openid");
	for (size_t i = 0; i < auth->scopes.n; i++) {
		if (text.n > 0)
			sbuf_addc(&text, ' ');
		sbuf_add(&text, *ITEM(auth->scopes, const struct str, i));
	}
	scope = arena_copy(a, sbuf_str(&text));
	sbuf_free(&text);
	return scope;
}

/* RFC 6749 2.3.1: both are encoded before they are put together. */
static struct str make_basic(const struct oidc_auth *auth, struct arena *a)
{
	struct sbuf text = { 0 };
	struct str basic;

	oidc_add_encoded(&text, auth->clientId);
	sbuf_addc(&text, ':');
	oidc_add_encoded(&text, auth->clientSecret);
	basic = arena_printf(a, "Basic %.*s", STR_FMT(crypto_base64(a, sbuf_str(&text))));
	mem_wipe(text.p, text.n);
	sbuf_free(&text);
	return basic;
}

static struct str make_host(struct str authority, struct arena *a)
{
	struct str host = { NULL, 0 };
	uint16_t port;
	char *out;

	if (!uri_split_authority(authority, &host, &port))
		return host;
	out = arena_take(a, host.n + 1);
	for (size_t i = 0; i < host.n; i++)
		out[i] = str_lower(host.p[i]);
	return (struct str){ out, host.n };
}

static bool prepare(void *vconf, struct arena *a, struct problem *why)
{
	struct oidc_auth *auth = vconf;
	struct str query;
	struct url url;

	if (!url_parse(auth->redirectUri, &url) || uri_normalise(a, url.target, &auth->path, &query) != URI_OK)
		return problem(why, "redirectUri", "must be an absolute http or https URL");
	auth->host = make_host(url.authority, a);
	auth->origin = (struct str){ auth->redirectUri.p, (size_t)(url.authority.p + url.authority.n -
								  auth->redirectUri.p) };
	auth->is_secure = url.is_https;
	auth->scope = make_scope(auth, a);
	auth->basic = make_basic(auth, a);
	return true;
}

static unsigned claim_paths(const void *vconf, struct claimed_path out[CLAIMS_MAX])
{
	const struct oidc_auth *auth = vconf;

	out[0] = (struct claimed_path){ auth->host, auth->path };
	out[1] = (struct claimed_path){ auth->host, STR(OIDC_SIGN_OUT) };
	return 2;
}

static void open_provider(void *vcell, const void *vconf)
{
	const struct oidc_auth *auth = vconf;
	struct oidc_cell *cell = vcell;

	oidc_provider_open(&cell->provider, auth->issuer, &cell->dependency);
}

static void close_provider(void *vcell)
{
	oidc_provider_close(&((struct oidc_cell *)vcell)->provider);
}

/* ---------- a good session ---------- */

static struct str payload_of(struct str token)
{
	struct str part = { NULL, 0 };

	for (unsigned i = 0; i < 2 && str_split(&token, '.', &part); i++)
		;
	return part;
}

/* What the upstream hears is what we say; what the client said of the same is gone. */
static enum verdict pass(struct exchange *x, const struct step *s, const struct oidc_session *session)
{
	struct message *req = exchange_request(x);
	struct arena *a = exchange_arena(x);
	struct token_facts *facts = NEW(a, struct token_facts);

	policy_count(s, OIDC_PASSED);
	message_set_id(req, HEADER_AUTHORIZATION, arena_printf(a, "Bearer %.*s", STR_FMT(session->id_token)));
	identity_field_remove(req, STR("X-Forwarded-User"));
	identity_field_remove(req, STR("X-Forwarded-Email"));
	message_add(req, STR("X-Forwarded-User"), session->subject);
	if (session->email.p)
		message_add(req, STR("X-Forwarded-Email"), session->email);
	*facts = (struct token_facts){
		.issuer = ((const struct oidc_auth *)s->conf)->issuer, .subject = session->subject,
		.payload = payload_of(session->id_token),
	};
	exchange_set_token(x, facts);
	return next();
}

/* ---------- a session that is about to end ---------- */

/* While it is still good, a provider that does not answer changes nothing. */
static enum verdict go_without(struct exchange *x, const struct step *s, const char *why)
{
	const struct oidc_work *w = oidc_work(x, s);

	log_warn("oidc.refresh_failed", F_STR("policyId", s->policy_id), F_TEXT("why", why));
	dependency_down(&oidc_cell(w)->dependency, "the identity provider does not refresh sessions", str_of(why));
	if (clock_wall_ms() / 1000 < w->session.expires_s)
		return pass(x, s, &w->session);
	return oidc_unavailable(x, s, why);
}

/* `why`: of an ID token that is not accepted, or NULL. */
static enum verdict renew(struct exchange *x, const struct step *s, const char *why)
{
	struct oidc_work *w = oidc_work(x, s);
	struct oidc_session session;

	if (why) {
		log_warn("oidc.refresh_failed", F_STR("policyId", s->policy_id), F_TEXT("why", why));
		oidc_forget_session(x, s);
		return oidc_ask_login(x, s);
	}
	dependency_up(&oidc_cell(w)->dependency);
	session = oidc_make_session(w, &w->session);
	policy_count(s, OIDC_REFRESHED);
	if (!oidc_keep_session(x, s, &session))
		return oidc_unavailable(x, s, "the tokens of the identity provider are too long to be kept");
	return pass(x, s, &session);
}

static enum verdict judge(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	struct str body;
	const char *why;

	switch (oidc_refresh_result(&w->refresh, &body, &w->tokens_at_s, &why)) {
	case OIDC_REFRESH_REFUSED:
		oidc_forget_session(x, s);
		return oidc_ask_login(x, s);
	case OIDC_REFRESH_FAILED:
		return go_without(x, s, why);
	case OIDC_REFRESH_TOKENS:
		break;
	}
	why = oidc_tokens_read(exchange_arena(x), body, w->tokens_at_s, &w->tokens);
	if (!why && !w->tokens.id_token.p && !w->tokens.access_token.p)
		why = "its answer has no token";
	if (why)
		return go_without(x, s, why);
	if (!w->tokens.id_token.p)
		return renew(x, s, NULL);
	w->expected.subject = w->session.subject;
	w->verified = renew;
	w->no_keys = go_without;
	return oidc_verify(x, s);
}

static void digest_refresh(const struct step *s, struct str token, uint8_t out[32])
{
	crypto_hmac_sha256(s->policy_id, token, out);
}

static enum verdict refresh(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	struct sbuf form = { 0 };
	struct side_request request;
	uint8_t key[32];

	switch (oidc_discover(x, w)) {
	case OIDC_AWAITED:
		return await(x, &w->use.wait.wait, refresh);
	case OIDC_NONE:
		return go_without(x, s, "the identity provider cannot be discovered");
	case OIDC_HELD:
		break;
	}
	SBUF_LIT(&form, "grant_type=refresh_token&refresh_token=");
	oidc_add_encoded(&form, w->session.refresh_token);
	request = oidc_token_request(x, w, &form);
	digest_refresh(s, w->session.refresh_token, key);
	if (!oidc_refresh_join(&w->refresh, x, key, &request))
		return go_without(x, s, "too many sessions are being refreshed");
	return await(x, &w->refresh.wait.wait, judge);
}

/* ---------- a request ---------- */

static bool needs_refresh(const struct oidc_session *session)
{
	const int64_t now_s = clock_wall_ms() / 1000;

	if (now_s < session->expires_s - REFRESH_S || !session->refresh_token.p)
		return false;
	/* Tokens that live for less than a minute are not refreshed with every request. */
	return now_s >= session->expires_s || now_s - session->refreshed_s >= REFRESH_AGAIN_S;
}

static enum verdict admit(struct exchange *x, const struct step *s)
{
	struct oidc_session session;
	bool is_old;

	if (!oidc_find_session(x, s, &session, &is_old))
		return oidc_ask_login(x, s);
	if (UNLIKELY(needs_refresh(&session))) {
		oidc_work(x, s)->session = session;
		return refresh(x, s);
	}
	/* Sealed with the key before: the browser gets it under the one in force. */
	if (UNLIKELY(is_old) && !oidc_keep_session(x, s, &session))
		return oidc_ask_login(x, s);
	return pass(x, s, &session);
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	struct oidc_session session;
	bool is_old;

	if (oidc_find_session(x, s, &session, &is_old)) {
		exchange_note(x, "there is a session");
		return needs_refresh(&session) ? cannot_judge(x, "the session would be refreshed at the provider") :
		       pass(x, s, &session);
	}
	if (!oidc_is_page_request(exchange_request(x)))
		return oidc_ask_login(x, s);
	exchange_note(x, "no session: the browser is sent to %.*s",
		      STR_FMT(((const struct oidc_auth *)s->conf)->issuer));
	return reply(x, 302, (struct str){ NULL, 0 }, (struct str){ NULL, 0 });
}

const struct policy_class oidc_auth = {
	.name = "OIDCAuth",
	.alias = "OpenID Connect login",
	.summary = "Has users log in at an OpenID Connect provider.",
	.group = "Security",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_AUTH_OIDC,
	.combine = COMBINE_SPECIFIC,
	.is_enforced = true,
	.fail_status = 503,
	.execute_stage = "PluginAuthentication",
	.execute_priority = 710,
	.fields = fields,
	.conf_size = sizeof(struct oidc_auth),
	.enable_at = offsetof(struct oidc_auth, enable),
	.cell_size = sizeof(struct oidc_cell),
	.dependency = "identity",
	.dependency_at = offsetof(struct oidc_cell, dependency),
	.state_size = sizeof(struct oidc_work *),
	.outcomes = {
		[OIDC_PASSED] = "passed", [OIDC_LOGIN] = "login", [OIDC_UNAUTHENTICATED] = "unauthenticated",
		[OIDC_REFRESHED] = "refreshed", [OIDC_UNAVAILABLE] = "unavailable",
		[OIDC_LOGIN_FAILED] = "login_failed",
	},
	.prepare = prepare,
	.cell_init = open_provider,
	.cell_free = close_provider,
	.adopted = oidc_providers_tend,
	.claims = claim_paths,
	.own_cookies = OIDC_COOKIES,
	.claimed = oidc_claimed,
	.request = admit,
	.explain = explain,
};
