/* oidc_verify.c -- what login and refresh share: discovery, the token endpoint, the ID token, the session. */
#include <stdio.h>
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/mem.h"
#include "policy/oidc_parts.h"
#include "policy/oidc_url.h"

#define LEAST_SESSION_S 60

struct oidc_work *oidc_work(struct exchange *x, const struct step *s)
{
	struct oidc_work **slot = exchange_state(x, s);

	if (!*slot) {
		*slot = NEW(exchange_arena(x), struct oidc_work);
		(*slot)->mine = s;
	}
	return *slot;
}

static void end_use(struct arena_defer *defer)
{
	oidc_use_end(&CONTAINER(defer, struct oidc_work, end_use)->use);
}

enum oidc_answer oidc_discover(struct exchange *x, struct oidc_work *w)
{
	enum oidc_answer answer;

	if (w->use.document)
		return OIDC_HELD;
	answer = oidc_use_begin(&w->use, &oidc_cell(w)->provider, x);
	if (answer == OIDC_HELD)
		arena_defer(exchange_arena(x), &w->end_use, end_use);
	return answer;
}

/* ---------- the token endpoint ---------- */

struct side_request oidc_token_request(struct exchange *x, const struct oidc_work *w, struct sbuf *form)
{
	const struct oidc_auth *auth = oidc_conf(w);
	struct header *lines = NEW_N(exchange_arena(x), struct header, 3);
	unsigned n = 0;
	struct str body;

	lines[n++] = (struct header){ .name = STR("Accept"), .value = STR("application/json"), .id = HEADER_ACCEPT };
	lines[n++] = (struct header){
		.name = STR("Content-Type"), .value = STR("application/x-www-form-urlencoded"),
		.id = HEADER_CONTENT_TYPE,
	};
	if (w->use.document->posts_secret) {
		SBUF_LIT(form, "&client_id=");
		oidc_add_encoded(form, auth->clientId);
		SBUF_LIT(form, "&client_secret=");
		oidc_add_encoded(form, auth->clientSecret);
	} else {
		lines[n++] = (struct header){
			.name = STR("Authorization"), .value = auth->basic, .id = HEADER_AUTHORIZATION,
		};
	}
	body = arena_copy(exchange_arena(x), sbuf_str(form));
	mem_wipe(form->p, form->n);
	sbuf_free(form);
	return (struct side_request){
		.kind = SIDE_IDENTITY, .url = w->use.document->token_endpoint, .method = STR("POST"),
		.headers = lines, .n_headers = n, .body = body, .says_length = true,
		.timeout_ms = OIDC_CALL_TIMEOUT_MS, .body_max = OIDC_ANSWER_BYTES_MAX,
	};
}

/* ---------- the ID token ---------- */

static enum verdict with_keys(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	enum jwt_fault fault;

	switch (key_use_begin(&w->keys, &w->use.document->keys, x, w->jwt.kid)) {
	case KEYS_AWAITED:
		return await(x, &w->keys.wait, with_keys);
	case KEYS_NONE:
		return w->no_keys(x, s, "the keys of the identity provider cannot be fetched");
	case KEYS_HELD:
		break;
	}
	fault = jwt_verify(&w->jwt, w->keys.set);
	key_use_end(&w->keys);
	return w->verified(x, s, fault == JWT_OK ? oidc_claims_check(&w->jwt, &w->expected, &w->identity) :
			   jwt_fault_text(fault));
}

enum verdict oidc_verify(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	enum jwt_fault fault = jwt_parse(exchange_arena(x), w->tokens.id_token, &w->jwt);

	w->expected.issuer = w->use.document->issuer;
	w->expected.client_id = oidc_conf(w)->clientId;
	w->expected.access_token = w->tokens.access_token;
	w->expected.now_s = clock_wall_ms() / 1000;
	return fault == JWT_OK ? with_keys(x, s) : w->verified(x, s, jwt_fault_text(fault));
}

/* ---------- sessions ---------- */

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

struct oidc_session oidc_make_session(const struct oidc_work *w, const struct oidc_session *before)
{
	const struct oidc_tokens *t = &w->tokens;
	struct oidc_session s = before ? *before : (struct oidc_session){ 0 };

	s.sealed_s = clock_wall_ms() / 1000;
	s.expires_s = t->access_expires_s;
	s.access_token = t->access_token;
	if (t->refresh_token.p)
		s.refresh_token = t->refresh_token;
	if (before)
		s.refreshed_s = w->tokens_at_s;
	if (t->id_token.p) {
		s.id_token = t->id_token;
		s.subject = w->identity.subject;
		s.email = w->identity.email;
		s.name = w->identity.name;
		s.expires_s = s.expires_s ? least(s.expires_s, w->identity.expires_s) : w->identity.expires_s;
	} else if (s.expires_s == 0) {
		/* A refresh that says neither: as good as what it replaced was for a short while. */
		s.expires_s = w->tokens_at_s + 300;
	}
	/* Over as soon as it is made, it would send browsers to and fro for ever: clocks differ, and some say "0". */
	if (!s.refresh_token.p && s.expires_s < s.sealed_s + LEAST_SESSION_S)
		s.expires_s = s.sealed_s + LEAST_SESSION_S;
	return s;
}

bool oidc_find_session(struct exchange *x, const struct step *policy, struct oidc_session *out, bool *is_old)
{
	const struct oidc_auth *auth = policy->conf;
	const struct oidc_seal seal = { policy->policy_id, exchange_key_generation(x), false };
	struct arena *a = exchange_arena(x);
	const int64_t now_s = clock_wall_ms() / 1000;
	struct str text = oidc_cookie_read(a, exchange_own_cookies(x),
					   oidc_session_name(a, policy->policy_id, auth->is_secure));

	if (!text.p || !oidc_session_open(a, &seal, text, out, is_old))
		return false;
	if (now_s - out->sealed_s > OIDC_SESSION_AGE_S)
		return false;
	return now_s < out->expires_s || out->refresh_token.p;
}

struct oidc_lines oidc_lines_for(struct exchange *x, const struct step *policy)
{
	return (struct oidc_lines){
		.a = exchange_arena(x), .req = exchange_own_cookies(x),
		.is_secure = ((const struct oidc_auth *)policy->conf)->is_secure,
	};
}

void oidc_set_lines(struct exchange *x, const struct oidc_lines *lines)
{
	for (unsigned i = 0; i < lines->n; i++)
		exchange_set_cookie(x, lines->lines[i]);
}

static void tell_too_long(const struct step *policy, size_t bytes)
{
	struct oidc_cell *cell = policy->cell;
	char why[DEPENDENCY_ERROR_MAX];

	snprintf(why, sizeof why, "%zu bytes of tokens are too long; the provider can leave claims out of them", bytes);
	log_warn("oidc.session_too_large", F_STR("policyId", policy->policy_id), F_INT("bytes", (int64_t)bytes));
	dependency_down(&cell->dependency, "sessions do not fit into cookies", str_of(why));
}

bool oidc_keep_session(struct exchange *x, const struct step *policy, struct oidc_session *s)
{
	const struct oidc_auth *auth = policy->conf;
	struct oidc_seal seal = { policy->policy_id, exchange_key_generation(x), false };
	struct arena *a = exchange_arena(x);
	const struct str name = oidc_session_name(a, policy->policy_id, auth->is_secure);
	struct oidc_lines lines = oidc_lines_for(x, policy);
	bool fits;

	s->sealed_s = clock_wall_ms() / 1000;
	fits = oidc_cookie_write(&lines, name, oidc_session_seal(a, &seal, s));
	if (!fits && s->access_token.p) {
		/* Nobody needs it any more: its hash was checked, and upstreams get the ID token. */
		s->access_token = (struct str){ NULL, 0 };
		fits = oidc_cookie_write(&lines, name, oidc_session_seal(a, &seal, s));
	}
	if (!fits) {
		seal.packs = true;
		fits = oidc_cookie_write(&lines, name, oidc_session_seal(a, &seal, s));
	}
	if (!fits) {
		tell_too_long(policy, s->id_token.n + s->refresh_token.n);
		return false;
	}
	oidc_set_lines(x, &lines);
	return true;
}

void oidc_forget_session(struct exchange *x, const struct step *policy)
{
	struct oidc_lines lines = oidc_lines_for(x, policy);

	oidc_cookie_clear(&lines, oidc_session_name(lines.a, policy->policy_id, lines.is_secure));
	oidc_set_lines(x, &lines);
}

/* ---------- answers ---------- */

enum verdict oidc_redirect(struct exchange *x, struct str location)
{
	enum verdict verdict = reply(x, 302, (struct str){ NULL, 0 }, (struct str){ NULL, 0 });
	struct message *res = exchange_response(x);

	message_add_id(res, HEADER_LOCATION, location);
	message_add_id(res, HEADER_CACHE_CONTROL, STR("no-store"));
	return verdict;
}

enum verdict oidc_page(struct exchange *x, int status, const char *title, struct str text)
{
	struct str body = arena_printf(exchange_arena(x),
		"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%s</title></head>\n"
		"<body><h1>%s</h1>\n<p>%.*s</p>\n<p><a href=\"/\">Start again</a></p>\n"
		"<p>Request %.*s</p></body></html>\n",
		title, title, STR_FMT(text), STR_FMT(exchange_property(x, STR("request.id"))));
	enum verdict verdict = reply(x, status, STR("text/html; charset=utf-8"), body);
	struct message *res = exchange_response(x);

	message_add_id(res, HEADER_CACHE_CONTROL, STR("no-store"));
	message_add(res, STR("Content-Security-Policy"), STR("default-src 'none'"));
	message_add(res, STR("X-Content-Type-Options"), STR("nosniff"));
	return verdict;
}

enum verdict oidc_unavailable(struct exchange *x, const struct step *policy, const char *what)
{
	enum verdict verdict;

	policy_count(policy, OIDC_UNAVAILABLE);
	exchange_keep_flag(x, "PF");
	exchange_keep_broken(x, what);
	verdict = reply_error(x, 503, "ErrPolicyUnavailable", STR("logins cannot be checked at present"));
	message_add_id(exchange_response(x), HEADER_RETRY_AFTER, STR("5"));
	message_add_id(exchange_response(x), HEADER_CACHE_CONTROL, STR("no-store"));
	return verdict;
}
