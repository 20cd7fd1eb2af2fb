#include "policy/oidc_token.h"
#include "core/crypto.h"
#include "http/message.h"

#define EXPIRES_IN_MAX (INT64_C(10) * 366 * 86400)

/* ---------- answers ---------- */

/* Seconds as a number, or as digits in a text, as some providers write it; -1: there is nothing of the kind. */
static int64_t read_seconds(const struct json *v)
{
	uint64_t n;

	if (!v)
		return -1;
	if (v->type == JSON_INT && v->integer >= 0)
		return v->integer < EXPIRES_IN_MAX ? v->integer : EXPIRES_IN_MAX;
	if (v->type == JSON_REAL && v->real >= 0 && v->real < EXPIRES_IN_MAX)
		return (int64_t)v->real;
	if (v->type == JSON_STRING && str_to_u64(v->string, (uint64_t)EXPIRES_IN_MAX, &n))
		return (int64_t)n;
	return -1;
}

/* False: it is there and no token. Line ends and the like would not come back whole. */
static bool read_token(const struct json *answer, const char *name, size_t max, struct str *out)
{
	const struct json *v = json_get(answer, name);

	*out = (struct str){ NULL, 0 };
	if (!v || v->type == JSON_NULL)
		return true;
	if (v->type != JSON_STRING || v->string.n > max || !header_is_value(v->string))
		return false;
	if (v->string.n > 0)
		*out = v->string;
	return true;
}

const char *oidc_tokens_read(struct arena *a, struct str body, int64_t now_s, struct oidc_tokens *out)
{
	struct problem why;
	const struct json *answer = json_parse(a, body, &why);
	const struct json *type = json_get(answer, "token_type");
	int64_t seconds;

	*out = (struct oidc_tokens){ 0 };
	if (!answer || answer->type != JSON_OBJECT)
		return "its answer is no JSON object";
	if (type && (type->type != JSON_STRING || !str_equal_nocase(type->string, STR("Bearer"))))
		return "its tokens are no bearer tokens";
	if (!read_token(answer, "id_token", JWT_BYTES_MAX, &out->id_token))
		return "its ID token is too long, or no token";
	if (!read_token(answer, "access_token", OIDC_TOKEN_MAX, &out->access_token) ||
	    !read_token(answer, "refresh_token", OIDC_TOKEN_MAX, &out->refresh_token))
		return "one of its tokens is too long, or no token";
	seconds = read_seconds(json_get(answer, "expires_in"));
	if (seconds >= 0 && out->access_token.p)
		out->access_expires_s = now_s + seconds;
	return NULL;
}

const char *oidc_error_read(struct arena *a, struct str body)
{
	static const char *const words[] = {
		"invalid_grant", "invalid_client", "invalid_request", "unauthorized_client", "unsupported_grant_type",
		"invalid_scope", "server_error", "temporarily_unavailable",
	};
	struct problem why;
	const struct str word = json_text(json_parse(a, body, &why), "error");

	for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
		if (str_equal(word, str_of(words[i])))
			return words[i];
	return "";
}

/* ---------- ID tokens ---------- */

/* clientId is an audience; with others beside it, azp says that it was meant. */
static bool check_audience(const struct json *payload, struct str client_id)
{
	const struct json *audience = json_get(payload, "aud"), *party = json_get(payload, "azp");
	bool is_named = false;

	if (party && (party->type != JSON_STRING || !str_equal(party->string, client_id)))
		return false;
	if (!audience)
		return false;
	if (audience->type == JSON_STRING)
		return str_equal(audience->string, client_id);
	if (audience->type != JSON_ARRAY || (audience->n > 1 && !party))
		return false;
	for (const struct json *v = audience->child; v; v = v->next)
		is_named = is_named || (v->type == JSON_STRING && str_equal(v->string, client_id));
	return is_named;
}

/* Left half of the digest that the algorithm of the signature uses. */
static bool check_access_hash(const struct jwt *t, struct str claim, struct str access_token)
{
	uint8_t digest[64], half[32];
	char given[64];
	size_t n = 32, given_n = 0;

	switch (t->algorithm) {
	case CRYPTO_RS384: case CRYPTO_PS384: case CRYPTO_ES384: case CRYPTO_HS384:
		crypto_sha384(access_token, digest);
		n = 48;
		break;
	case CRYPTO_RS512: case CRYPTO_PS512: case CRYPTO_ES512: case CRYPTO_HS512: case CRYPTO_EdDSA:
		crypto_sha512(access_token, digest);
		n = 64;
		break;
	default:
		crypto_sha256(access_token, digest);
		break;
	}
	memcpy(half, digest, n / 2);
	if (claim.n > sizeof given || !crypto_base64url_strict(claim, given, &given_n))
		return false;
	return str_equal_secret((struct str){ given, given_n }, (struct str){ (const char *)half, n / 2 });
}

/* A text claim for people; absent when it is not one that can be passed on in a field. */
static struct str read_text(const struct json *payload, const char *name)
{
	const struct json *v = json_get(payload, name);

	if (!v || v->type != JSON_STRING || v->string.n == 0 || v->string.n > OIDC_TEXT_MAX ||
	    !header_is_value(v->string))
		return (struct str){ NULL, 0 };
	return v->string;
}

/* One that the provider says it did not verify might be anybody's. */
static struct str read_email(const struct json *payload)
{
	const struct json *verified = json_get(payload, "email_verified");
	const bool is_denied = verified && ((verified->type == JSON_BOOL && !verified->boolean) ||
		(verified->type == JSON_STRING && str_equal_nocase(verified->string, STR("false"))));

	return is_denied ? (struct str){ NULL, 0 } : read_text(payload, "email");
}

static bool check_nonce(const struct json *payload, struct str expected)
{
	const struct json *nonce = json_get(payload, "nonce");

	return nonce && nonce->type == JSON_STRING && str_equal_secret(nonce->string, expected);
}

const char *oidc_claims_check(const struct jwt *t, const struct oidc_expected *expected, struct oidc_identity *out)
{
	const struct jwt_rules rules = {
		.issuer = expected->issuer, .subject = expected->subject, .now_s = expected->now_s,
		.leeway_s = OIDC_SLACK_S,
	};
	const struct json *hash = json_get(t->payload, "at_hash");
	enum jwt_fault fault;

	*out = (struct oidc_identity){ .subject = read_text(t->payload, "sub") };
	fault = jwt_check_claims(t, &rules, &out->expires_s);
	if (fault != JWT_OK)
		return jwt_fault_text(fault);
	if (out->expires_s == INT64_MAX || !json_get(t->payload, "iat"))
		return "it does not say when it was issued and when it expires";
	if (!out->subject.p)
		return "subject";
	if (!check_audience(t->payload, expected->client_id))
		return "audience";
	if (expected->nonce.p && !check_nonce(t->payload, expected->nonce))
		return "nonce";
	if (hash && expected->access_token.p &&
	    (hash->type != JSON_STRING || !check_access_hash(t, hash->string, expected->access_token)))
		return "hash of the access token";
	out->email = read_email(t->payload);
	out->name = read_text(t->payload, "name");
	return NULL;
}
