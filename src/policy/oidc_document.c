/* oidc_document.c -- reads the discovery document of a provider. */
#include <stdatomic.h>
#include "core/crypto.h"
#include "core/json.h"
#include "core/mem.h"
#include "policy/oidc_provider.h"
#include "policy/side_url.h"

static struct str without_slash(struct str url)
{
	return url.n > 0 && url.p[url.n - 1] == '/' ? (struct str){ url.p, url.n - 1 } : url;
}

static bool is_https(struct str text)
{
	struct url url;

	return url_parse(text, &url) && url.is_https;
}

/* A secret or a login must not leave https because a document says so. */
static bool read_url(const struct json *v, const char *name, struct str issuer, struct str *out, struct problem *why)
{
	const struct str text = json_text(v, name);
	struct problem what = { 0 };

	if (text.n == 0)
		return problem(why, "", "its discovery document has no %s", name);
	if (text.n > SIDE_URL_MAX || !side_url_format(text, &what))
		return problem(why, "", "%s of its discovery document cannot be used: %s", name, what.text);
	if (is_https(issuer) && !is_https(text))
		return problem(why, "", "%s of its discovery document is not https", name);
	*out = text;
	return true;
}

static bool lists(const struct json *list, struct str word)
{
	for (const struct json *v = list ? list->child : NULL; v; v = v->next)
		if (v->type == JSON_STRING && str_equal(v->string, word))
			return true;
	return false;
}

static bool read_document(struct oidc_document *d, struct str text, struct str issuer, struct problem *why)
{
	const struct json *v = json_parse(d->arena, arena_copy(d->arena, text), why), *methods;
	struct problem none;

	if (!v || v->type != JSON_OBJECT)
		return problem(why, "", "its discovery document is no JSON object");
	d->issuer = json_text(v, "issuer");
	if (!str_equal(without_slash(d->issuer), without_slash(issuer)))
		return problem(why, "", "its discovery document is of another issuer");
	if (!read_url(v, "authorization_endpoint", issuer, &d->authorization_endpoint, why) ||
	    !read_url(v, "token_endpoint", issuer, &d->token_endpoint, why) ||
	    !read_url(v, "jwks_uri", issuer, &d->jwks_uri, why))
		return false;
	if (!read_url(v, "end_session_endpoint", issuer, &d->end_session_endpoint, &none))
		d->end_session_endpoint = (struct str){ NULL, 0 };
	methods = json_get(v, "token_endpoint_auth_methods_supported");
	if (methods && methods->type == JSON_ARRAY)
		d->posts_secret = lists(methods, STR("client_secret_post")) &&
				  !lists(methods, STR("client_secret_basic"));
	return true;
}

struct oidc_document *oidc_document_read(struct str text, struct str issuer, struct problem *why)
{
	struct oidc_document *d = MEM_NEW(struct oidc_document);

	d->arena = MEM_NEW(struct arena);
	atomic_init(&d->refs, 1);
	crypto_sha256(text, d->digest);
	if (read_document(d, text, issuer, why))
		return d;
	oidc_document_drop(d);
	return NULL;
}

void oidc_document_drop(struct oidc_document *d)
{
	if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
		return;
	key_user_close(&d->keys);
	arena_free(d->arena);
	mem_free(d->arena);
	mem_free(d);
}
