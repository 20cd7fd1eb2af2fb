/*
 * oidc_callback.c -- a browser comes back from the provider.
 *
 *      callback ──► which login (its cookie) ──► ask for tokens ──► tokens ──► ID token ──► session, target
 *                        └── unknown: on to "/", or once more from the start, or 400
 *
 * No call is made before the state is known to be one that this browser was given, and none for the same state twice.
 */
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "policy/oidc_parts.h"
#include "policy/oidc_url.h"
#include "policy/once.h"

#define MARKED_READ 16
#define WORD_MAX 64

/* ---------- how it may fail ---------- */

static enum verdict give_up(struct exchange *x, const struct oidc_work *w, int status, const char *why)
{
	policy_count(w->mine, OIDC_LOGIN_FAILED);
	exchange_keep_flag(x, status < 500 ? "UA" : "PF");
	log_warn("oidc.login_failed", F_STR("policyId", w->mine->policy_id), F_TEXT("why", why));
	if (status >= 500)
		return oidc_page(x, status, "Login not possible",
				 STR("The identity provider does not answer as it should. Please try again later."));
	return oidc_page(x, status, "Login failed", STR("The identity provider's answer was not accepted."));
}

/* The word of an answer like "access_denied", when it is one: it is shown. */
static struct str read_word(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || s.p[i] == '_'))
			return STR("unknown");
	return s.n > 0 && s.n <= WORD_MAX ? s : STR("unknown");
}

static enum verdict refused(struct exchange *x, const struct step *policy, struct str error)
{
	const struct str word = read_word(error);

	policy_count(policy, OIDC_LOGIN_FAILED);
	exchange_keep_flag(x, "UA");
	log_info("oidc.login_refused", F_STR("policyId", policy->policy_id), F_STR("error", word));
	return oidc_page(x, 401, "Login refused", arena_printf(exchange_arena(x),
			 "The identity provider refused the login (%.*s).", STR_FMT(word)));
}

/* ---------- the session ---------- */

static enum verdict too_long(struct exchange *x, const struct oidc_work *w)
{
	policy_count(w->mine, OIDC_LOGIN_FAILED);
	return oidc_page(x, 502, "Login not possible", STR("The identity provider's tokens are too long to be kept. "
		"Its administrator can leave claims out of them."));
}

static enum verdict open_session(struct exchange *x, const struct step *s, const char *why)
{
	struct oidc_work *w = oidc_work(x, s);
	struct oidc_session session;

	if (why)
		return give_up(x, w, 401, arena_printf(exchange_arena(x), "its ID token is not accepted: %s", why).p);
	session = oidc_make_session(w, NULL);
	if (!oidc_keep_session(x, w->mine, &session))
		return too_long(x, w);
	dependency_up(&oidc_cell(w)->dependency);
	return oidc_redirect(x, w->login.target);
}

/* ---------- tokens ---------- */

static struct str describe(struct exchange *x, const struct side_call *c)
{
	struct arena *a = exchange_arena(x);

	if (c->failure == SIDE_ANSWERED)
		return arena_printf(a, "its token endpoint answered %d %s", c->res.status, oidc_error_read(a, c->body));
	return arena_printf(a, "its token endpoint: %.*s", STR_FMT(side_call_describe(c, a)));
}

static enum verdict no_tokens(struct exchange *x, const struct oidc_work *w, struct str why)
{
	dependency_down(&oidc_cell(w)->dependency, "the identity provider does not give tokens", why);
	return give_up(x, w, 502, why.p);
}

static enum verdict no_keys(struct exchange *x, const struct step *s, const char *why)
{
	return no_tokens(x, oidc_work(x, s), str_of(why));
}

static enum verdict take_tokens(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	const struct side_call *c = w->call;
	const char *why;

	if (c->failure != SIDE_ANSWERED || c->res.status != 200) {
		const bool is_spent = c->failure == SIDE_ANSWERED && c->res.status < 500 &&
				      strcmp(oidc_error_read(exchange_arena(x), c->body), "invalid_grant") == 0;

		/* A code that is spent, or was never one, says nothing of the provider. */
		return is_spent ? give_up(x, w, 401, "the code is not good any more") :
		       no_tokens(x, w, describe(x, c));
	}
	w->tokens_at_s = clock_wall_ms() / 1000;
	why = oidc_tokens_read(exchange_arena(x), c->body, w->tokens_at_s, &w->tokens);
	if (!why && !w->tokens.id_token.p)
		why = "its answer has no ID token";
	if (why)
		return no_tokens(x, w, str_of(why));
	w->expected.nonce = w->login.nonce;
	w->verified = open_session;
	w->no_keys = no_keys;
	return oidc_verify(x, s);
}

static bool is_used(struct str state)
{
	uint8_t digest[32];

	crypto_sha256(state, digest);
	return !once_use(digest, OIDC_LOGIN_AGE_S * INT64_C(1000));
}

static enum verdict start_over(struct exchange *x, const struct step *s, struct str state);

static void forget_login(struct exchange *x, const struct oidc_work *w)
{
	struct oidc_lines lines = oidc_lines_for(x, w->mine);

	oidc_cookie_line(&lines, oidc_login_name(lines.a, w->login.state), STR(""), 0);
	oidc_set_lines(x, &lines);
}

static enum verdict ask_tokens(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	struct sbuf form = { 0 };
	struct side_request request;

	switch (oidc_discover(x, w)) {
	case OIDC_AWAITED:
		return await(x, &w->use.wait.wait, ask_tokens);
	case OIDC_NONE:
		return oidc_unavailable(x, w->mine, "the identity provider cannot be discovered");
	case OIDC_HELD:
		break;
	}
	forget_login(x, w);
	if (w->issuer.p && !str_equal(w->issuer, w->use.document->issuer))
		return give_up(x, w, 401, "the answer is of another issuer");
	if (is_used(w->login.state))
		return start_over(x, s, w->login.state);
	SBUF_LIT(&form, "grant_type=authorization_code&code=");
	oidc_add_encoded(&form, w->code);
	SBUF_LIT(&form, "&redirect_uri=");
	oidc_add_encoded(&form, oidc_conf(w)->redirectUri);
	SBUF_LIT(&form, "&code_verifier=");
	oidc_add_encoded(&form, w->login.verifier);
	request = oidc_token_request(x, w, &form);
	w->call = side_call_for(x);
	side_call_start(w->call, &request);
	return await(x, &w->call->wait, take_tokens);
}

/* ---------- a login that is not known ---------- */

static bool has_session(struct exchange *x)
{
	unsigned n;
	const struct step *steps = exchange_claims(x, &n);
	struct oidc_session session;
	bool is_old;

	for (unsigned i = 0; i < n; i++)
		if (oidc_find_session(x, &steps[i], &session, &is_old))
			return true;
	return false;
}

static bool is_fresh(const struct oidc_login *l)
{
	return clock_wall_ms() / 1000 - l->issued_s <= OIDC_LOGIN_AGE_S;
}

/* Whether a login was begun anew for this browser already. The cookies that say so have done their duty. */
static bool take_marks(struct exchange *x)
{
	struct oidc_login_cookie found[MARKED_READ];
	const unsigned n_found = oidc_login_cookies(exchange_own_cookies(x), found, MARKED_READ);
	unsigned n;
	const struct step *steps = exchange_claims(x, &n);
	struct oidc_lines lines = oidc_lines_for(x, steps);
	struct oidc_login login;

	for (unsigned i = 0; i < n_found * n && lines.n < OIDC_LINES_MAX; i++) {
		const struct step *policy = &steps[i % n];
		const struct oidc_seal seal = { policy->policy_id, exchange_key_generation(x), false };

		if (oidc_login_open(exchange_arena(x), &seal, found[i / n].value, &login) && login.is_restart &&
		    is_fresh(&login))
			oidc_cookie_line(&lines, found[i / n].name, STR(""), 0);
	}
	oidc_set_lines(x, &lines);
	return lines.n > 0;
}

/* The state is not known here: forged, too old, spent, or this browser keeps no cookies. */
static enum verdict start_over(struct exchange *x, const struct step *s, struct str state)
{
	if (has_session(x))
		return oidc_redirect(x, STR("/"));
	if (take_marks(x) || str_starts(state, STR(OIDC_RESTART_MARK))) {
		policy_count(s, OIDC_LOGIN_FAILED);
		return oidc_page(x, 400, "Login not known", STR("This login was not begun here, or it took too long. "
			"Cookies have to be allowed for this site."));
	}
	return oidc_begin_login(x, s, STR("/"), true);
}

/* ---------- the callback ---------- */

/* The login of that state, and whose policy it is. */
static bool find_login(struct exchange *x, struct oidc_work *w, struct str state)
{
	struct arena *a = exchange_arena(x);
	struct str value;
	unsigned n;
	const struct step *steps = exchange_claims(x, &n);

	if (state.n == 0 || state.n > 128)
		return false;
	value = message_cookie(exchange_own_cookies(x), oidc_login_name(a, state));
	for (unsigned i = 0; value.n > 0 && i < n; i++) {
		const struct oidc_seal seal = { steps[i].policy_id, exchange_key_generation(x), false };

		if (!oidc_login_open(a, &seal, value, &w->login) || !str_equal_secret(w->login.state, state) ||
		    !is_fresh(&w->login) || !oidc_is_local(w->login.target))
			continue;
		w->mine = &steps[i];
		return true;
	}
	return false;
}

static enum verdict refuse_method(struct exchange *x)
{
	enum verdict verdict = reply_error(x, 405, "ErrMethodNotAllowed", STR("this path takes GET"));

	message_add(exchange_response(x), STR("Allow"), STR("GET"));
	return verdict;
}

static enum verdict callback(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	struct arena *a = exchange_arena(x);
	const struct str query = exchange_query(x);
	struct str state, error;

	if (exchange_request(x)->method != METHOD_GET)
		return refuse_method(x);
	if (!oidc_read_parameter(a, query, "state", &state) || !oidc_read_parameter(a, query, "code", &w->code) ||
	    !oidc_read_parameter(a, query, "error", &error) || !oidc_read_parameter(a, query, "iss", &w->issuer))
		return oidc_page(x, 400, "Login not understood", STR("The address of this page is damaged."));
	if (!find_login(x, w, state)) {
		w->mine = s;
		return error.p ? refused(x, s, error) : start_over(x, s, state);
	}
	if (error.p || w->code.n == 0)
		forget_login(x, w);
	if (error.p)
		return refused(x, w->mine, error);
	if (w->code.n == 0)
		return oidc_page(x, 400, "Login not understood", STR("The identity provider sent no code."));
	return ask_tokens(x, s);
}

enum verdict oidc_claimed(struct exchange *x, const struct step *s)
{
	return str_equal(exchange_path(x), STR(OIDC_SIGN_OUT)) ? oidc_sign_out(x, s) : callback(x, s);
}
