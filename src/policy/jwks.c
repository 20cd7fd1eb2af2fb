#include "policy/jwks.h"
#include "core/crypto.h"

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 16384

/* A JWK member that holds bytes; false when it is missing or no base64url. */
static bool read_bytes(const struct json *jwk, const char *name, struct arena *a, struct str *out)
{
	struct str text = json_text(jwk, name);

	return text.n && crypto_base64_decode(a, text, out) && out->n;
}

static size_t count_bits(struct str number)
{
	size_t bits;
	unsigned char top;

	while (number.n && number.p[0] == '\0')
		number = (struct str){ number.p + 1, number.n - 1 };
	if (!number.n)
		return 0;
	bits = number.n * 8;
	for (top = (unsigned char)number.p[0]; !(top & 0x80); top = (unsigned char)(top << 1))
		bits--;
	return bits;
}

/* Whether `alg` is absent or among the names, which are separated by blanks. */
static bool fits_algorithm(const struct json *jwk, const char *names)
{
	struct str rest = str_of(names), name;
	const struct json *alg = json_get(jwk, "alg");

	if (!alg)
		return true;
	while (str_split(&rest, ' ', &name))
		if (alg->type == JSON_STRING && str_equal(alg->string, name))
			return true;
	return false;
}

static bool is_rsa(const struct json *jwk, struct arena *a)
{
	struct str n, e;

	if (!read_bytes(jwk, "n", a, &n) || !read_bytes(jwk, "e", a, &e))
		return false;
	return count_bits(n) >= RSA_BITS_MIN && count_bits(n) <= RSA_BITS_MAX && count_bits(e) >= 2 &&
	       fits_algorithm(jwk, "RS256 RS384 RS512 PS256 PS384 PS512");
}

static bool is_ec(const struct json *jwk, struct arena *a)
{
	static const struct {
		struct str crv;
		size_t bytes;
		const char *alg;
	} curves[] = { { { "P-256", 5 }, 32, "ES256" }, { { "P-384", 5 }, 48, "ES384" }, { { "P-521", 5 },
		66, "ES512" } };
	struct str x, y;
	size_t i;

	if (!read_bytes(jwk, "x", a, &x) || !read_bytes(jwk, "y", a, &y))
		return false;
	for (i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (str_equal(json_text(jwk, "crv"), curves[i].crv))
			return x.n == curves[i].bytes && y.n == curves[i].bytes && fits_algorithm(jwk,
				curves[i].alg);
	return false;
}

static bool is_ed25519(const struct json *jwk, struct arena *a)
{
	struct str x;

	return str_equal(json_text(jwk, "crv"), STR("Ed25519")) && read_bytes(jwk, "x", a, &x) && x.n == 32 &&
	       fits_algorithm(jwk, "EdDSA Ed25519");
}

static bool is_symmetric(const struct json *jwk, struct arena *a)
{
	struct str k;

	return read_bytes(jwk, "k", a, &k) && fits_algorithm(jwk, "HS256 HS384 HS512");
}

bool jwk_is_usable(const struct json *jwk, bool inline_set, struct arena *a)
{
	struct str kty = json_text(jwk, "kty");
	const struct json *use = json_get(jwk, "use");

	if (use && (use->type != JSON_STRING || !str_equal(use->string, STR("sig"))))
		return false;
	if (str_equal(kty, STR("RSA")))
		return is_rsa(jwk, a);
	if (str_equal(kty, STR("EC")))
		return is_ec(jwk, a);
	if (str_equal(kty, STR("OKP")))
		return is_ed25519(jwk, a);
	return inline_set && str_equal(kty, STR("oct")) && is_symmetric(jwk, a);
}

static bool check_set(struct str text, struct arena *a, struct problem *why)
{
	const struct json *set = json_parse(a, text, why), *keys, *key;

	if (!set)
		return false;
	keys = json_get(set, "keys");
	if (!keys || keys->type != JSON_ARRAY)
		return problem(why, "", "must be a key set: {\"keys\": [...]}");
	for (key = keys->child; key; key = key->next)
		if (jwk_is_usable(key, true, a))
			return true;
	return problem(why, "", "has no key that can verify a token (RSA of 2048 bits or more, EC "
		"P-256/384/521, Ed25519, oct)");
}

bool jwks_is_inline(struct str text)
{
	size_t i = 0;

	while (i < text.n && strchr(" \t\r\n", text.p[i]) && text.p[i])
		i++;
	return i < text.n && text.p[i] == '{';
}

bool jwks_check(struct str text, struct problem *why)
{
	struct arena scratch = { 0 };
	bool ok = check_set(text, &scratch, why);

	arena_free(&scratch);
	return ok;
}

static size_t secret_bytes_min(const struct json *jwk)
{
	const struct str alg = json_text(jwk, "alg");

	if (str_equal(alg, STR("HS512")))
		return 64;
	return str_equal(alg, STR("HS384")) ? 48 : 32;
}

static bool check_secrets(struct str text, struct arena *a, struct problem *why)
{
	const struct json *set = json_parse(a, text, why), *keys = json_get(set, "keys");
	struct str k;
	unsigned i = 0;

	for (const struct json *key = keys && keys->type == JSON_ARRAY ? keys->child : NULL; key; key = key->next, i++)
		if (str_equal(json_text(key, "kty"), STR("oct")) && read_bytes(key, "k", a, &k) &&
		    k.n < secret_bytes_min(key))
			return problem(why, "", "has a shared secret that is too short: keys[%u].k has %zu bytes; at "
				"least %zu are needed (RFC 7518 3.2)", i, k.n, secret_bytes_min(key));
	return true;
}

bool jwks_check_secrets(struct str text, struct problem *why)
{
	struct arena scratch = { .wipes = true };
	bool ok = check_secrets(text, &scratch, why);

	arena_free(&scratch);
	return ok;
}

static bool holds_secret(struct str text, struct arena *a)
{
	struct problem why;
	const struct json *keys = json_get(json_parse(a, text, &why), "keys");

	if (!keys || keys->type != JSON_ARRAY)
		return true;
	for (const struct json *key = keys->child; key; key = key->next)
		if (json_get(key, "k") || json_get(key, "d"))
			return true;
	return false;
}

bool jwks_is_secret(struct str text)
{
	struct arena scratch = { 0 };
	bool is_secret;

	if (!jwks_is_inline(text))
		return str_find(text, ':') == text.n;
	scratch.wipes = true;
	is_secret = holds_secret(text, &scratch);
	arena_free(&scratch);
	return is_secret;
}
