#include "policy/jwt.h"
#include <math.h>

const char *jwt_fault_text(enum jwt_fault f)
{
	static const char *const texts[JWT_FAULT_COUNT] = {
#define JWT_FAULT_TEXT(id, text) [JWT_##id] = (text),
		JWT_FAULTS(JWT_FAULT_TEXT)
#undef JWT_FAULT_TEXT
	};

	return texts[f];
}

static bool decode(struct arena *a, struct str text, struct str *out)
{
	char *bytes = arena_take(a, text.n * 3 / 4 + 1);

	out->p = bytes;
	return text.n > 0 && crypto_base64url_strict(text, bytes, &out->n);
}

static const struct json *decode_object(struct arena *a, struct str text)
{
	struct problem why = {0};
	struct str bytes;
	const struct json *v = decode(a, text, &bytes) ? json_parse(a, bytes, &why) : NULL;

	return v && v->type == JSON_OBJECT ? v : NULL;
}

/* `jwk`, `jku`, `x5u` and `x5c` are not looked at: keys come from the configuration alone. */
static enum jwt_fault read_header(const struct json *header, struct jwt *out)
{
	const struct json *alg = json_get(header, "alg"), *kid = json_get(header, "kid");

	if (!alg || alg->type != JSON_STRING || json_get(header, "crit") || (kid && kid->type != JSON_STRING))
		return JWT_MALFORMED;
	/* A header may say that the payload is not base64url, or is a token itself: we read neither. */
	if (json_get(header, "b64") || json_get(header, "enc") || json_get(header, "zip"))
		return JWT_MALFORMED;
	out->algorithm = crypto_algorithm_find(alg->string);
	if (out->algorithm == CRYPTO_ALGORITHM_COUNT)
		return JWT_ALGORITHM;
	if (kid)
		out->kid = kid->string;
	return JWT_OK;
}

enum jwt_fault jwt_parse(struct arena *a, struct str token, struct jwt *out)
{
	struct str rest = token, header, payload, signature, more;
	const struct json *head;

	*out = (struct jwt){0};
	if (token.n == 0 || token.n > JWT_BYTES_MAX || !str_split(&rest, '.', &header) ||
		!str_split(&rest, '.', &payload) || !str_split(&rest, '.', &signature) ||
		str_split(&rest, '.', &more))
		return JWT_MALFORMED;
	head = decode_object(a, header);
	if (!head)
		return JWT_MALFORMED;
	out->payload = decode_object(a, payload);
	out->signed_part = (struct str){token.p, header.n + 1 + payload.n};
	if (!out->payload)
		return JWT_MALFORMED;
	enum jwt_fault fault = read_header(head, out);
	/* An unsigned token is one of an algorithm that nobody takes, not a malformed one. */
	if (fault != JWT_OK)
		return fault;
	return decode(a, signature, &out->signature) ? JWT_OK : JWT_MALFORMED;
}

enum jwt_fault jwt_verify(const struct jwt *t, const struct key_set *keys)
{
	bool is_known = t->kid.p == NULL, fits = false;
	unsigned tried = 0;

	for (unsigned i = 0; i < keys->n && tried < JWT_KEYS_TRIED; i++) {
		const struct key_set_key *k = &keys->keys[i];

		if (t->kid.p && !str_equal(k->kid, t->kid))
			continue;
		is_known = true;
		if (!crypto_key_fits(k->key, t->algorithm) ||
			(k->algorithm != CRYPTO_ALGORITHM_COUNT && k->algorithm != t->algorithm))
			continue;
		fits = true;
		tried++;
		if (crypto_key_verify(k->key, t->algorithm, t->signed_part, t->signature))
			return JWT_OK;
	}
	if (!is_known)
		return JWT_UNKNOWN_KEY;
	return fits ? JWT_SIGNATURE : JWT_ALGORITHM;
}

/* A time in seconds, fractions cut off; *out is left alone when the claim is absent. */
static bool read_time(const struct json *payload, const char *name, int64_t *out)
{
	const struct json *v = json_get(payload, name);
	double seconds;

	if (!v)
		return true;
	if (v->type == JSON_INT) {
		*out = v->integer;
	} else if (v->type == JSON_REAL) {
		seconds = floor(v->real);
		if (!(fabs(seconds) < 9e15))
			return false;
		*out = (int64_t)seconds;
	} else {
		return false;
	}
	/* Adding the leeway must not overflow. */
	return *out > -(INT64_MAX / 4) && *out < INT64_MAX / 4;
}

enum jwt_fault jwt_check_claims(const struct jwt *t, const struct jwt_rules *rules, int64_t *expires_s)
{
	const struct json *issuer = json_get(t->payload, "iss"), *subject = json_get(t->payload, "sub");
	int64_t not_before = INT64_MIN, issued = INT64_MIN;

	*expires_s = INT64_MAX;
	if (!read_time(t->payload, "exp", expires_s) || !read_time(t->payload, "nbf", &not_before) ||
		!read_time(t->payload, "iat", &issued))
		return JWT_CLAIMS;
	if (*expires_s != INT64_MAX && *expires_s <= rules->now_s - rules->leeway_s)
		return JWT_EXPIRED;
	if ((not_before != INT64_MIN && not_before > rules->now_s + rules->leeway_s) ||
		(issued != INT64_MIN && issued > rules->now_s + rules->leeway_s))
		return JWT_NOT_YET_VALID;
	if (rules->issuer.n &&
		(!issuer || issuer->type != JSON_STRING || !str_equal(issuer->string, rules->issuer)))
		return JWT_ISSUER;
	if (rules->subject.n &&
		(!subject || subject->type != JSON_STRING || !str_equal(subject->string, rules->subject)))
		return JWT_SUBJECT;
	return JWT_OK;
}
