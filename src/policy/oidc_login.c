/* oidc_login.c -- sends a browser to the provider, with a state and a nonce that a sealed cookie remembers. */
#include "core/clock.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "policy/oidc_parts.h"
#include "policy/oidc_url.h"

#define OUTSTANDING_MAX 7                 /* logins of one browser at a time */
#define OUTSTANDING_READ 16

/* ---------- who asks ---------- */

static bool has_range(struct str accept, struct str range)
{
	struct str part;

	while (str_split(&accept, ',', &part)) {
		part.n = str_find(part, ';');
		if (str_equal_nocase(str_trim(part), range))
			return true;
	}
	return false;
}

/* Scripts say what they want: JSON before anything else. */
static bool accepts_pages(const struct message *req)
{
	const struct str accept = message_join(req, STR("accept"));

	if (has_range(accept, STR("text/html")))
		return true;
	return has_range(accept, STR("*/*")) && !has_range(accept, STR("application/json"));
}

static bool is_value(const struct message *req, const char *name, const char *value)
{
	const struct header *h = message_find_name(req, str_of(name));

	return h && str_equal_nocase(h->value, str_of(value));
}

bool oidc_is_page_request(const struct message *req)
{
	if ((req->method != METHOD_GET && req->method != METHOD_HEAD) || req->has_upgrade || req->upgrade.n > 0)
		return false;
	if (message_find_name(req, STR("sec-fetch-mode")) && !is_value(req, "sec-fetch-mode", "navigate"))
		return false;
	return !is_value(req, "x-requested-with", "XMLHttpRequest") && accepts_pages(req);
}

enum verdict oidc_ask_login(struct exchange *x, const struct step *s)
{
	const struct message *req = exchange_request(x);
	enum verdict verdict;

	if (oidc_is_page_request(req))
		return oidc_begin_login(x, s, oidc_return_target(exchange_arena(x), exchange_path(x),
								 exchange_query(x)), false);
	policy_count(s, OIDC_UNAUTHENTICATED);
	exchange_keep_flag(x, "UA");
	verdict = reply_error(x, 401, "ErrUnauthorized", STR("a login is required"));
	message_add_id(exchange_response(x), HEADER_WWW_AUTHENTICATE, STR("Bearer realm=\"sluice\""));
	message_add_id(exchange_response(x), HEADER_CACHE_CONTROL, STR("no-store"));
	return verdict;
}

/* ---------- a new login ---------- */

static struct str make_random(struct arena *a, const char *before)
{
	uint8_t bytes[32];

	crypto_random(bytes, sizeof bytes);
	return arena_printf(a, "%s%.*s", before,
			    STR_FMT(crypto_base64url(a, (struct str){ (const char *)bytes, sizeof bytes })));
}

/* Cookies of logins that were never finished: the oldest go, those that cannot be opened before all others. */
static void drop_outstanding(const struct oidc_seal *seal, struct oidc_lines *out)
{
	struct oidc_login_cookie found[OUTSTANDING_READ];
	int64_t ages[OUTSTANDING_READ];
	unsigned n = oidc_login_cookies(out->req, found, OUTSTANDING_READ), left = n;
	struct oidc_login login;

	for (unsigned i = 0; i < n; i++)
		ages[i] = oidc_login_open(out->a, seal, found[i].value, &login) ? login.issued_s : 0;
	while (left >= OUTSTANDING_MAX) {
		unsigned oldest = 0;

		for (unsigned i = 1; i < n; i++)
			if (ages[i] < ages[oldest])
				oldest = i;
		oidc_cookie_line(out, found[oldest].name, STR(""), 0);
		ages[oldest] = INT64_MAX;
		left--;
	}
}

static void keep_login(struct exchange *x, const struct oidc_work *w)
{
	const struct oidc_seal seal = { w->mine->policy_id, exchange_key_generation(x), false };
	struct arena *a = exchange_arena(x);
	struct oidc_lines lines = oidc_lines_for(x, w->mine);

	drop_outstanding(&seal, &lines);
	oidc_cookie_line(&lines, oidc_login_name(a, w->login.state), oidc_login_seal(a, &seal, &w->login),
			 OIDC_LOGIN_AGE_S);
	oidc_set_lines(x, &lines);
}

static struct str make_challenge(struct arena *a, struct str verifier)
{
	uint8_t digest[32];

	crypto_sha256(verifier, digest);
	return crypto_base64url(a, (struct str){ (const char *)digest, sizeof digest });
}

static struct str make_location(struct arena *a, const struct oidc_work *w)
{
	const struct oidc_auth *auth = oidc_conf(w);
	struct sbuf url = { 0 };
	struct str location;

	sbuf_add(&url, w->use.document->authorization_endpoint);
	oidc_add_parameter(&url, "response_type", STR("code"));
	oidc_add_parameter(&url, "client_id", auth->clientId);
	oidc_add_parameter(&url, "redirect_uri", auth->redirectUri);
	oidc_add_parameter(&url, "scope", auth->scope);
	oidc_add_parameter(&url, "state", w->login.state);
	oidc_add_parameter(&url, "nonce", w->login.nonce);
	oidc_add_parameter(&url, "code_challenge", make_challenge(a, w->login.verifier));
	oidc_add_parameter(&url, "code_challenge_method", STR("S256"));
	location = arena_copy(a, sbuf_str(&url));
	sbuf_free(&url);
	return location;
}

static enum verdict send_away(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);

	switch (oidc_discover(x, w)) {
	case OIDC_AWAITED:
		return await(x, &w->use.wait.wait, send_away);
	case OIDC_NONE:
		return oidc_unavailable(x, w->mine, "the identity provider cannot be discovered");
	case OIDC_HELD:
		break;
	}
	policy_count(w->mine, OIDC_LOGIN);
	keep_login(x, w);
	return oidc_redirect(x, make_location(exchange_arena(x), w));
}

enum verdict oidc_begin_login(struct exchange *x, const struct step *s, struct str target, bool is_restart)
{
	struct oidc_work *w = oidc_work(x, s);
	struct arena *a = exchange_arena(x);

	w->login = (struct oidc_login){
		.state = make_random(a, is_restart ? OIDC_RESTART_MARK : ""), .nonce = make_random(a, ""),
		.verifier = make_random(a, ""), .target = target, .issued_s = clock_wall_ms() / 1000,
		.is_restart = is_restart,
	};
	return send_away(x, s);
}
