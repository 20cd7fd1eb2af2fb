#include "policy/oidc_provider.h"
#include "core/log.h"

/* ---------- what a fetch brought ---------- */

static void read_answer(struct remote_news *n, const struct side_call *c, struct str issuer)
{
	struct problem why = { 0 };
	struct oidc_document *d = oidc_document_read(c->body, issuer, &why);

	if (!d) {
		snprintf(n->error, sizeof n->error, "%.190s", why.text);
		return;
	}
	/* Before anybody can see it; the key set itself is fetched by whoever tends, or needs it. */
	key_user_open(&d->keys, d->jwks_uri, NULL);
	n->content = d;
	n->digest = d->digest;
	n->fresh_ms = OIDC_REFRESH_MS;
}

static void log_fetch(struct str issuer, const struct remote_news *n)
{
	if (!n->content)
		log_warn("oidc.discovery_failed", F_STR("issuer", issuer), F_STR("why", str_of(n->error)));
	else
		log_info("oidc.discovered", F_STR("issuer", issuer));
}

static void hold(void *document)
{
	atomic_fetch_add_explicit(&((struct oidc_document *)document)->refs, 1, memory_order_relaxed);
}

static void drop(void *document)
{
	oidc_document_drop(document);
}

static const struct remote_kind discovery = {
	.side = SIDE_IDENTITY,
	.accept = STR("application/json"),
	.path = STR("/.well-known/openid-configuration"),
	.reason = "the identity provider cannot be discovered",
	.whose = "its discovery document: ",
	.read = read_answer, .log = log_fetch, .hold = hold, .drop = drop,
};

/* ---------- users ---------- */

void oidc_provider_open(struct oidc_provider_user *u, struct str issuer, struct dependency *d)
{
	remote_document_open(&u->remote, &discovery, issuer, d);
}

void oidc_provider_close(struct oidc_provider_user *u)
{
	remote_document_close(&u->remote);
}

void oidc_providers_tend(struct worker *w)
{
	remote_documents_tend(w);
}

/* ---------- what a request needs ---------- */

enum oidc_answer oidc_use_begin(struct oidc_use *u, const struct oidc_provider_user *of, struct exchange *x)
{
	enum remote_answer answer = remote_use_begin(&u->remote, &of->remote, x);

	if (answer == REMOTE_HELD)
		u->document = u->remote.content;
	return (enum oidc_answer)answer;
}

void oidc_use_end(struct oidc_use *u)
{
	oidc_document_drop(u->document);
	u->document = NULL;
}
