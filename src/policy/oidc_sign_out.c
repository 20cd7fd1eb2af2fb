/*
 * oidc_sign_out.c -- ends the sessions of this host: the cookies go, and the browser goes on to the provider's own
 * sign-out where there is one, else to where it asked to go.
 *
 * Where it asks to go (`rd`) is anybody's text: a path of this host, or an address of this application, of the issuer
 * or of the provider's sign-out; anything else is "/".
 */
#include "policy/oidc_parts.h"
#include "policy/oidc_url.h"

#define HINT_MAX 6144                     /* bytes of an ID token in an address */

static bool is_allowed(const struct oidc_work *w, struct str target)
{
	const struct oidc_document *d = w->use.document;

	if (oidc_is_local(target))
		return true;
	return oidc_same_origin(target, oidc_conf(w)->redirectUri) || oidc_same_origin(target, oidc_conf(w)->issuer) ||
	       (d && d->end_session_endpoint.p && oidc_same_origin(target, d->end_session_endpoint));
}

static struct str read_target(struct exchange *x, const struct oidc_work *w)
{
	const struct header *h = message_find_name(exchange_request(x), STR("x-auth-request-redirect"));
	struct str target;

	if (!oidc_read_parameter(exchange_arena(x), exchange_query(x), "rd", &target))
		return STR("/");
	if (!target.p && h)
		target = h->value;
	return target.p && is_allowed(w, target) ? target : STR("/");
}

static struct str make_location(struct exchange *x, const struct oidc_work *w, struct str target)
{
	const struct oidc_auth *auth = oidc_conf(w);
	struct arena *a = exchange_arena(x);
	struct str absolute = target, location;
	struct sbuf url = { 0 };

	if (!w->use.document || !w->use.document->end_session_endpoint.p)
		return target;
	if (target.p[0] == '/')
		absolute = arena_printf(a, "%.*s%.*s", STR_FMT(auth->origin), STR_FMT(target));
	sbuf_add(&url, w->use.document->end_session_endpoint);
	if (w->session.id_token.n <= HINT_MAX)
		oidc_add_parameter(&url, "id_token_hint", w->session.id_token);
	oidc_add_parameter(&url, "client_id", auth->clientId);
	oidc_add_parameter(&url, "post_logout_redirect_uri", absolute);
	location = arena_copy(a, sbuf_str(&url));
	sbuf_free(&url);
	return location;
}

static enum verdict go_on(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);

	if (oidc_discover(x, w) == OIDC_AWAITED)
		return await(x, &w->use.wait.wait, go_on);
	return oidc_redirect(x, make_location(x, w, read_target(x, w)));
}

enum verdict oidc_sign_out(struct exchange *x, const struct step *s)
{
	struct oidc_work *w = oidc_work(x, s);
	struct oidc_session session;
	bool is_old, is_found = false;
	unsigned n;
	const struct step *steps = exchange_claims(x, &n);

	for (unsigned i = 0; i < n; i++) {
		if (!is_found && oidc_find_session(x, &steps[i], &session, &is_old)) {
			w->mine = &steps[i];
			w->session = session;
			is_found = true;
		}
		oidc_forget_session(x, &steps[i]);
	}
	return go_on(x, s);
}
