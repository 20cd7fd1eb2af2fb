/*
 * identity.c -- who the client is, as an authentication policy found out. Kept beside the request: what a header says
 * may have been changed by anybody. And the fields by which gateways tell upstreams such things, which no client may
 * send.
 */
#include "core/crypto_key.h"
#include "core/json.h"
#include "http/identity_field.h"
#include "proxy/exchange.h"

static bool is_reserved(struct str name)
{
	/* X-Sluice-Ext-Auth* says where a request comes from, to the policy that looks for loops and removes them. */
	if (field_begins_as(name, STR("x-sluice-")))
		return !str_equal_nocase(name, STR("x-sluice-ext-auth")) &&
		       !str_equal_nocase(name, STR("x-sluice-ext-auth-policy"));
	return field_reads_as(name, STR("x-mse-consumer")) || field_reads_as(name, STR("x-higress-fallback-from")) ||
	       field_reads_as(name, STR("x-envoy-auth-failure-mode-allowed"));
}

void exchange_strip_reserved(struct exchange *x)
{
	struct message *req = &x->stream.req;

	message_remove_id(req, HEADER_X_MSE_CONSUMER);
	if (!(req->present >> HEADER_OTHER & 1))
		return;
	for (unsigned i = 0; i < req->n; i++) {
		const struct header *h = &req->headers[i];

		if (UNLIKELY(h->id == HEADER_OTHER && h->name.n > 9 && (h->name.p[0] | 0x20) == 'x' &&
			     is_reserved(h->name)))
			message_remove(req, h->name);
	}
}

void exchange_set_consumer(struct exchange *x, struct str id, struct str name)
{
	x->consumer = name;
	x->consumer_id = id;
	message_set_id(&x->stream.req, HEADER_X_MSE_CONSUMER, name);
}

struct str exchange_consumer(const struct exchange *x)
{
	return x->consumer;
}

struct str exchange_consumer_id(const struct exchange *x)
{
	return x->consumer_id;
}

void exchange_set_token(struct exchange *x, struct token_facts *t)
{
	t->before = x->token;
	x->token = t;
}

static const struct json *read_claims(struct arena *a, struct str payload)
{
	struct problem why;
	struct str text = { arena_take(a, payload.n * 3 / 4 + 1), 0 };

	return crypto_base64url_strict(payload, (char *)(uintptr_t)text.p, &text.n) ? json_parse(a, text, &why) : NULL;
}

struct str exchange_claim(struct exchange *x, struct str name)
{
	const struct str absent = { NULL, 0 };
	const struct json *v;

	if (!x->token)
		return absent;
	if (!x->token->claims)
		x->token->claims = read_claims(&x->arena, x->token->payload);
	v = json_get_str(x->token->claims, name);
	if (!v)
		return absent;
	if (v->type == JSON_STRING || v->type == JSON_REAL)
		return v->string;
	if (v->type == JSON_INT)
		return arena_printf(&x->arena, "%lld", (long long)v->integer);
	if (v->type == JSON_BOOL)
		return v->boolean ? STR("true") : STR("false");
	return absent;
}

void exchange_keep_broken(struct exchange *x, const char *what)
{
	x->broken = what;
}
