/* room: policy */
/* Tokens are signed here with OpenSSL itself, so that the verifier is not tested with its own idea of a signature. */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "core/crypto.h"
#include "policy/jwt.h"

#define SECRET "a shared secret of thirty-two by"

static struct arena arena;
static EVP_PKEY *rsa, *other_rsa, *weak_rsa, *ec256, *ec384, *ec521, *ed25519;

static struct str number(EVP_PKEY *key, const char *name, size_t size)
{
	BIGNUM *v = NULL;
	unsigned char bytes[512];

	assert_int_equal(EVP_PKEY_get_bn_param(key, name, &v), 1);
	size_t n = size ? size : (size_t)BN_num_bytes(v);

	assert_int_equal(BN_bn2binpad(v, bytes, (int)n), n);
	BN_free(v);
	return crypto_base64url(&arena, (struct str){(char *)bytes, n});
}

static struct str rsa_jwk(EVP_PKEY *key, const char *more)
{
	return arena_printf(&arena, "{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\"%s}", number(key, "n", 0).p,
		number(key, "e", 0).p, more);
}

static struct str ec_jwk(EVP_PKEY *key, const char *curve, size_t size, const char *more)
{
	return arena_printf(&arena, "{\"kty\":\"EC\",\"crv\":\"%s\",\"x\":\"%s\",\"y\":\"%s\"%s}", curve,
		number(key, OSSL_PKEY_PARAM_EC_PUB_X, size).p, number(key, OSSL_PKEY_PARAM_EC_PUB_Y, size).p,
		more);
}

static struct str ed_jwk(const char *more)
{
	unsigned char x[32];
	size_t n = sizeof x;

	assert_int_equal(EVP_PKEY_get_raw_public_key(ed25519, x, &n), 1);
	return arena_printf(&arena, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"%s\"%s}",
		crypto_base64url(&arena, (struct str){(char *)x, n}).p, more);
}

static struct str oct_jwk(void)
{
	return arena_printf(
		&arena, "{\"kty\":\"oct\",\"k\":\"%s\"}", crypto_base64url(&arena, STR(SECRET)).p);
}

static struct key_set *set_of(struct str jwk)
{
	struct problem why = {0};
	struct key_set *s = key_set_read(arena_printf(&arena, "{\"keys\":[%.*s]}", STR_FMT(jwk)), true, &why);

	if (!s)
		fail_msg("%s", why.text);
	return s;
}

static struct str sign_public(EVP_PKEY *key, const EVP_MD *md, bool pss, struct str data)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_PKEY_CTX *p = NULL;
	unsigned char *out = arena_alloc(&arena, 1024);
	size_t n = 1024;

	assert_int_equal(EVP_DigestSignInit(c, &p, md, NULL, key), 1);
	if (pss) {
		EVP_PKEY_CTX_set_rsa_padding(p, RSA_PKCS1_PSS_PADDING);
		EVP_PKEY_CTX_set_rsa_pss_saltlen(p, RSA_PSS_SALTLEN_DIGEST);
	}
	assert_int_equal(EVP_DigestSign(c, out, &n, (const unsigned char *)data.p, data.n), 1);
	EVP_MD_CTX_free(c);
	return (struct str){(char *)out, n};
}

/* DER to r || s. */
static struct str sign_ec(EVP_PKEY *key, const EVP_MD *md, size_t size, struct str data)
{
	struct str der = sign_public(key, md, false, data);
	const unsigned char *at = (const unsigned char *)der.p;
	ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)der.n);
	unsigned char *out = arena_alloc(&arena, 2 * size);

	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(pair), out, (int)size), size);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(pair), out + size, (int)size), size);
	ECDSA_SIG_free(pair);
	return (struct str){(char *)out, 2 * size};
}

static struct str sign_hmac(const EVP_MD *md, struct str secret, struct str data)
{
	unsigned char *out = arena_alloc(&arena, EVP_MAX_MD_SIZE);
	unsigned n = 0;

	HMAC(md, secret.p, (int)secret.n, (const unsigned char *)data.p, data.n, out, &n);
	return (struct str){(char *)out, n};
}

static struct str parts(const char *header, const char *payload)
{
	return arena_printf(&arena, "%s.%s", crypto_base64url(&arena, str_of(header)).p,
		crypto_base64url(&arena, str_of(payload)).p);
}

static struct str join(struct str signed_part, struct str signature)
{
	return arena_printf(&arena, "%.*s.%s", STR_FMT(signed_part), crypto_base64url(&arena, signature).p);
}

static enum jwt_fault judge(struct str token, struct key_set *keys)
{
	struct jwt t;
	enum jwt_fault fault = jwt_parse(&arena, token, &t);

	if (fault == JWT_OK)
		fault = jwt_verify(&t, keys);
	key_set_drop(keys);
	return fault;
}

static struct str rs256(EVP_PKEY *key, const char *header, const char *payload)
{
	struct str text = parts(header, payload);

	return join(text, sign_public(key, EVP_sha256(), false, text));
}

/* ---------- */

static void every_algorithm_verifies(void **state)
{
	const EVP_MD *const md[] = {EVP_sha256(), EVP_sha384(), EVP_sha512()};
	EVP_PKEY *const ec[] = {ec256, ec384, ec521};
	static const char *const curve[] = {"P-256", "P-384", "P-521"};
	static const size_t size[] = {32, 48, 66};
	static const int bits[] = {256, 384, 512};
	struct str text;

	(void)state;
	for (int i = 0; i < 3; i++) {
		char header[40];

		snprintf(header, sizeof header, "{\"alg\":\"RS%d\"}", bits[i]);
		text = parts(header, "{}");
		assert_int_equal(
			judge(join(text, sign_public(rsa, md[i], false, text)), set_of(rsa_jwk(rsa, ""))),
			JWT_OK);
		/* The padding of the other family is none. */
		assert_int_equal(
			judge(join(text, sign_public(rsa, md[i], true, text)), set_of(rsa_jwk(rsa, ""))),
			JWT_SIGNATURE);
		snprintf(header, sizeof header, "{\"alg\":\"PS%d\"}", bits[i]);
		text = parts(header, "{}");
		assert_int_equal(
			judge(join(text, sign_public(rsa, md[i], true, text)), set_of(rsa_jwk(rsa, ""))),
			JWT_OK);
		snprintf(header, sizeof header, "{\"alg\":\"ES%d\"}", bits[i]);
		text = parts(header, "{}");
		struct str signature = sign_ec(ec[i], md[i], size[i], text);

		assert_int_equal(
			judge(join(text, signature), set_of(ec_jwk(ec[i], curve[i], size[i], ""))), JWT_OK);
		signature.n--;
		assert_int_equal(judge(join(text, signature), set_of(ec_jwk(ec[i], curve[i], size[i], ""))),
			JWT_SIGNATURE);
		/* DER is what other libraries call the signature: not here. */
		assert_int_equal(judge(join(text, sign_public(ec[i], md[i], false, text)),
					 set_of(ec_jwk(ec[i], curve[i], size[i], ""))),
			JWT_SIGNATURE);
		snprintf(header, sizeof header, "{\"alg\":\"HS%d\"}", bits[i]);
		text = parts(header, "{}");
		assert_int_equal(
			judge(join(text, sign_hmac(md[i], STR(SECRET), text)), set_of(oct_jwk())), JWT_OK);
		assert_int_equal(judge(join(text, sign_hmac(md[i], STR("another"), text)), set_of(oct_jwk())),
			JWT_SIGNATURE);
	}
	text = parts("{\"alg\":\"EdDSA\"}", "{}");
	assert_int_equal(
		judge(join(text, sign_public(ed25519, NULL, false, text)), set_of(ed_jwk(""))), JWT_OK);
}

static void a_changed_byte_is_found(void **state)
{
	struct str token = rs256(rsa, "{\"alg\":\"RS256\"}", "{\"sub\":\"a\"}");
	char *copy = arena_alloc(&arena, token.n);
	struct str other = rs256(rsa, "{\"alg\":\"RS256\"}", "{\"sub\":\"b\"}");
	size_t dot = token.n, second = other.n;

	(void)state;
	/* The payload of one, the signature of the other. */
	while (token.p[dot - 1] != '.')
		dot--;
	while (other.p[second - 1] != '.')
		second--;
	memcpy(copy, token.p, dot);
	memcpy(copy + dot, other.p + second, token.n - dot);
	assert_int_equal(judge((struct str){copy, token.n}, set_of(rsa_jwk(rsa, ""))), JWT_SIGNATURE);
	assert_int_equal(judge(token, set_of(rsa_jwk(other_rsa, ""))), JWT_SIGNATURE);
	/* A signature of nothing. */
	assert_int_equal(judge((struct str){token.p, dot}, set_of(rsa_jwk(rsa, ""))), JWT_MALFORMED);
}

static void unsigned_tokens_are_refused(void **state)
{
	static const char *const names[] = {"none", "None", "NONE", "nOnE", "", "RS256 ", "rs256", "RS1",
		"HS1", "ES256K", "A128KW", "dir"};

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct str text = parts(arena_printf(&arena, "{\"alg\":\"%s\"}", names[i]).p, "{}");

		assert_int_equal(
			judge(arena_printf(&arena, "%.*s.", STR_FMT(text)), set_of(rsa_jwk(rsa, ""))),
			JWT_ALGORITHM);
		assert_int_equal(judge(join(text, STR("x")), set_of(rsa_jwk(rsa, ""))), JWT_ALGORITHM);
	}
}

static void a_public_key_is_no_secret(void **state)
{
	struct str text = parts("{\"alg\":\"HS256\"}", "{}"), jwk = rsa_jwk(rsa, "");
	unsigned char *der = NULL;
	int n = i2d_PUBKEY(rsa, &der);

	(void)state;
	assert_true(n > 0);
	assert_int_equal(
		judge(join(text, sign_hmac(EVP_sha256(), (struct str){(char *)der, (size_t)n}, text)),
			set_of(jwk)),
		JWT_ALGORITHM);
	assert_int_equal(judge(join(text, sign_hmac(EVP_sha256(), jwk, text)), set_of(jwk)), JWT_ALGORITHM);
	OPENSSL_free(der);
	/* Nor is a secret in a set that was fetched. */
	struct problem why = {0};
	assert_null(key_set_read(arena_printf(&arena, "{\"keys\":[%s]}", oct_jwk().p), false, &why));
	assert_string_equal(why.text, "has no key that can verify a token");
}

static void the_key_id_decides(void **state)
{
	struct str both = arena_printf(&arena, "%s,%s", rsa_jwk(other_rsa, ",\"kid\":\"one\"").p,
		rsa_jwk(rsa, ",\"kid\":\"two\"").p);

	(void)state;
	assert_int_equal(
		judge(rs256(rsa, "{\"alg\":\"RS256\",\"kid\":\"two\"}", "{}"), set_of(both)), JWT_OK);
	assert_int_equal(
		judge(rs256(rsa, "{\"alg\":\"RS256\",\"kid\":\"one\"}", "{}"), set_of(both)), JWT_SIGNATURE);
	assert_int_equal(judge(rs256(rsa, "{\"alg\":\"RS256\",\"kid\":\"../../x\"}", "{}"), set_of(both)),
		JWT_UNKNOWN_KEY);
	assert_int_equal(
		judge(rs256(rsa, "{\"alg\":\"RS256\",\"kid\":\"\"}", "{}"), set_of(both)), JWT_UNKNOWN_KEY);
	assert_int_equal(judge(rs256(rsa, "{\"alg\":\"RS256\"}", "{}"), set_of(both)), JWT_OK);
	/* What the key says it is for. */
	assert_int_equal(
		judge(rs256(rsa, "{\"alg\":\"RS256\"}", "{}"), set_of(rsa_jwk(rsa, ",\"alg\":\"RS512\""))),
		JWT_ALGORITHM);
	assert_int_equal(
		judge(rs256(rsa, "{\"alg\":\"RS256\"}", "{}"), set_of(rsa_jwk(rsa, ",\"use\":\"sig\""))),
		JWT_OK);
}

static void keys_of_the_token_itself_are_ignored(void **state)
{
	struct str header = arena_printf(&arena,
		"{\"alg\":\"RS256\",\"jwk\":%s,\"jku\":\"http://127.0.0.1/k\",\"x5c\":[\"x\"]}",
		rsa_jwk(other_rsa, "").p);

	(void)state;
	assert_int_equal(judge(rs256(other_rsa, header.p, "{}"), set_of(rsa_jwk(rsa, ""))), JWT_SIGNATURE);
	assert_int_equal(judge(rs256(rsa, header.p, "{}"), set_of(rsa_jwk(rsa, ""))), JWT_OK);
}

static void weak_and_wrong_keys_are_passed_over(void **state)
{
	struct problem why = {0};
	struct str bad_point = arena_printf(&arena,
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"%s\",\"y\":\"%s\"}",
		number(ec256, OSSL_PKEY_PARAM_EC_PUB_X, 32).p, number(ec256, OSSL_PKEY_PARAM_EC_PUB_X, 32).p);
	struct str good = rsa_jwk(rsa, "");
	struct key_set *s = set_of(arena_printf(&arena, "%s,%s,%s,5,null,{\"kty\":\"XX\"},%s",
		rsa_jwk(weak_rsa, "").p, bad_point.p, rsa_jwk(rsa, ",\"use\":\"enc\"").p, good.p));

	(void)state;
	assert_int_equal(s->n, 1);
	assert_int_equal(s->passed_over, 6);
	key_set_drop(s);
	assert_null(key_set_read(arena_printf(&arena, "{\"keys\":[%s]}", bad_point.p), true, &why));
	assert_null(key_set_read(STR("{\"keys\":[]}"), true, &why));
	assert_null(key_set_read(STR("[]"), true, &why));
	assert_null(key_set_read(STR("<html>"), true, &why));
}

static void malformed_tokens(void **state)
{
	struct str good = rs256(rsa, "{\"alg\":\"RS256\"}", "{\"sub\":\"a\"}");
	struct jwt t;
	static const char *const rows[] = {"", ".", "..", "a.b.c", "e30.e30.", "e30.e30.AA", "e30.e30.AA.AA",
		"....", "W10.e30.AA",
		/* {"alg":"RS256"} with a space, padding, another alphabet, stray bits */
		"eyJhbGciOiJSUzI1NiJ9 .e30.AA", "eyJhbGciOiJSUzI1NiJ9.e30=.AA", "eyJhbGciOiJSUzI1NiJ9.e30.A+",
		"eyJhbGciOiJSUzI1NiJ9.e30.AB", "eyJhbGciOiJSUzI1NiJ9.e30.A", "eyJhbGciOiJSUzI1NiJ9.W10.AA"};

	(void)state;
	assert_int_equal(jwt_parse(&arena, good, &t), JWT_OK);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_int_equal(jwt_parse(&arena, str_of(rows[i]), &t), JWT_MALFORMED);
	static const char *const headers[] = {"{\"alg\":\"RS256\",\"crit\":[\"exp\"]}",
		"{\"alg\":\"RS256\",\"crit\":[]}", "{\"alg\":\"RS256\",\"alg\":\"none\"}", "{\"alg\":1}",
		"{\"alg\":[\"RS256\"]}", "{\"alg\":\"RS256\",\"kid\":1}", "{}",
		"{\"alg\":\"RS256\",\"b64\":false}", "{\"alg\":\"RS256\",\"enc\":\"A128GCM\"}",
		"{\"alg\":\"RS256\",\"zip\":\"DEF\"}"};
	for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
		assert_int_equal(
			judge(rs256(rsa, headers[i], "{}"), set_of(rsa_jwk(rsa, ""))), JWT_MALFORMED);
	static const char *const payloads[] = {
		"", "[]", "{\"exp\":1,\"exp\":99999999999}", "{\"a\":\"\\ud800\"}", "{\"a\":1}x", "\xff"};
	for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++)
		assert_int_equal(
			judge(rs256(rsa, "{\"alg\":\"RS256\"}", payloads[i]), set_of(rsa_jwk(rsa, ""))),
			JWT_MALFORMED);
	char *huge = arena_alloc(&arena, JWT_BYTES_MAX + 2);
	memset(huge, 'A', JWT_BYTES_MAX + 1);
	assert_int_equal(jwt_parse(&arena, (struct str){huge, JWT_BYTES_MAX + 1}, &t), JWT_MALFORMED);
}

static enum jwt_fault claims(const char *payload, int64_t *expires)
{
	const struct jwt_rules rules = {
		.issuer = STR("https://i"), .subject = STR("s"), .now_s = 1000, .leeway_s = 60};
	struct jwt t;
	int64_t ignored;

	assert_int_equal(
		jwt_parse(&arena, arena_printf(&arena, "%s.AA", parts("{\"alg\":\"RS256\"}", payload).p), &t),
		JWT_OK);
	return jwt_check_claims(&t, &rules, expires ? expires : &ignored);
}

static void claims_are_judged(void **state)
{
	static const struct {
		const char *payload;
		enum jwt_fault fault;
	} rows[] = {
		{"{\"iss\":\"https://i\",\"sub\":\"s\"}", JWT_OK},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":941}", JWT_OK},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":940}", JWT_EXPIRED},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":941.9}", JWT_OK},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":\"2000\"}", JWT_CLAIMS},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":null}", JWT_CLAIMS},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":1e300}", JWT_CLAIMS},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":9223372036854775807}", JWT_CLAIMS},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"nbf\":1060}", JWT_OK},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"nbf\":1061}", JWT_NOT_YET_VALID},
		{"{\"iss\":\"https://i\",\"sub\":\"s\",\"iat\":1061}", JWT_NOT_YET_VALID},
		{"{\"iss\":\"https://i/\",\"sub\":\"s\"}", JWT_ISSUER},
		{"{\"iss\":[\"https://i\"],\"sub\":\"s\"}", JWT_ISSUER},
		{"{\"sub\":\"s\"}", JWT_ISSUER},
		{"{\"iss\":\"https://i\"}", JWT_SUBJECT},
		{"{\"iss\":\"https://i\",\"sub\":\"S\"}", JWT_SUBJECT},
	};
	int64_t expires;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (claims(rows[i].payload, NULL) != rows[i].fault)
			fail_msg("%s: %s", rows[i].payload, jwt_fault_text(claims(rows[i].payload, NULL)));
	claims("{\"iss\":\"https://i\",\"sub\":\"s\",\"exp\":2000}", &expires);
	assert_int_equal(expires, 2000);
	claims("{\"iss\":\"https://i\",\"sub\":\"s\"}", &expires);
	assert_int_equal(expires, INT64_MAX);
}

static int start(void **state)
{
	(void)state;
	rsa = EVP_RSA_gen(2048);
	other_rsa = EVP_RSA_gen(2048);
	weak_rsa = EVP_RSA_gen(1024);
	ec256 = EVP_EC_gen("P-256");
	ec384 = EVP_EC_gen("P-384");
	ec521 = EVP_EC_gen("P-521");
	ed25519 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	return rsa && other_rsa && weak_rsa && ec256 && ec384 && ec521 && ed25519 ? 0 : -1;
}

static int stop(void **state)
{
	EVP_PKEY *const keys[] = {rsa, other_rsa, weak_rsa, ec256, ec384, ec521, ed25519};

	(void)state;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		EVP_PKEY_free(keys[i]);
	arena_free(&arena);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_algorithm_verifies),
		cmocka_unit_test(a_changed_byte_is_found),
		cmocka_unit_test(unsigned_tokens_are_refused),
		cmocka_unit_test(a_public_key_is_no_secret),
		cmocka_unit_test(the_key_id_decides),
		cmocka_unit_test(keys_of_the_token_itself_are_ignored),
		cmocka_unit_test(weak_and_wrong_keys_are_passed_over),
		cmocka_unit_test(malformed_tokens),
		cmocka_unit_test(claims_are_judged),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
