/* crypto_key.c -- keys by OpenSSL's EVP. Digests are looked up once for each process. */
#include "core/crypto_key.h"
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include "core/mem.h"

#define SECRET_MAX 1024

struct crypto_key {
	enum crypto_key_kind kind;
	EVP_PKEY *public_key; /* NULL for a secret */
	unsigned char *secret;
	size_t secret_n;
};

enum family { RSA_PKCS1, RSA_PSS, EC, ED25519, HMAC_SECRET };
static const struct algorithm {
	const char *name;
	enum family family;
	enum crypto_key_kind kind;
	const EVP_MD *(*digest)(void);
	size_t bytes; /* EC: of r and of s. HMAC: of the result */
} algorithms[CRYPTO_ALGORITHM_COUNT] = {
	[CRYPTO_RS256] = {"RS256", RSA_PKCS1, CRYPTO_RSA, EVP_sha256, 0},
	[CRYPTO_RS384] = {"RS384", RSA_PKCS1, CRYPTO_RSA, EVP_sha384, 0},
	[CRYPTO_RS512] = {"RS512", RSA_PKCS1, CRYPTO_RSA, EVP_sha512, 0},
	[CRYPTO_PS256] = {"PS256", RSA_PSS, CRYPTO_RSA, EVP_sha256, 0},
	[CRYPTO_PS384] = {"PS384", RSA_PSS, CRYPTO_RSA, EVP_sha384, 0},
	[CRYPTO_PS512] = {"PS512", RSA_PSS, CRYPTO_RSA, EVP_sha512, 0},
	[CRYPTO_ES256] = {"ES256", EC, CRYPTO_EC256, EVP_sha256, 32},
	[CRYPTO_ES384] = {"ES384", EC, CRYPTO_EC384, EVP_sha384, 48},
	[CRYPTO_ES512] = {"ES512", EC, CRYPTO_EC521, EVP_sha512, 66},
	[CRYPTO_EdDSA] = {"EdDSA", ED25519, CRYPTO_ED25519, NULL, 64},
	[CRYPTO_HS256] = {"HS256", HMAC_SECRET, CRYPTO_SECRET, EVP_sha256, 32},
	[CRYPTO_HS384] = {"HS384", HMAC_SECRET, CRYPTO_SECRET, EVP_sha384, 48},
	[CRYPTO_HS512] = {"HS512", HMAC_SECRET, CRYPTO_SECRET, EVP_sha512, 64},
};
static const struct curve {
	const char *group;
	size_t bytes;
} curves[] = {
	[CRYPTO_EC256] = {"P-256", 32},
	[CRYPTO_EC384] = {"P-384", 48},
	[CRYPTO_EC521] = {"P-521", 66},
};

static const unsigned char *bytes_of(struct str s)
{
	return (const unsigned char *)(s.p ? s.p : "");
}

enum crypto_algorithm crypto_algorithm_find(struct str name)
{
	unsigned i = 0;

	while (i < CRYPTO_ALGORITHM_COUNT && !str_equal(name, str_of(algorithms[i].name)))
		i++;
	return (enum crypto_algorithm)i;
}

static struct crypto_key *new_key(enum crypto_key_kind kind, EVP_PKEY *public_key)
{
	struct crypto_key *k = MEM_NEW(struct crypto_key);

	k->kind = kind;
	k->public_key = public_key;
	return k;
}

/* NULL when OpenSSL does not take the numbers for a public key of that type. Frees the parameters. */
static EVP_PKEY *from_parameters(const char *type, OSSL_PARAM *parameters)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *key = NULL;

	BUG_ON(!c || !parameters || EVP_PKEY_fromdata_init(c) != 1);
	if (EVP_PKEY_fromdata(c, &key, EVP_PKEY_PUBLIC_KEY, parameters) != 1)
		key = NULL;
	EVP_PKEY_CTX_free(c);
	OSSL_PARAM_free(parameters);
	ERR_clear_error();
	return key;
}

static BIGNUM *number(struct str s)
{
	return s.n > 0 && s.n <= CRYPTO_RSA_BITS_MAX / 8 + 1 ? BN_bin2bn(bytes_of(s), (int)s.n, NULL) : NULL;
}

struct crypto_key *crypto_key_rsa(struct str modulus, struct str exponent)
{
	BIGNUM *n = number(modulus), *e = number(exponent);
	EVP_PKEY *key = NULL;

	/* An even exponent or modulus, or an exponent of one, verifies nothing. A huge exponent costs time. */
	if (n && e && BN_num_bits(n) >= CRYPTO_RSA_BITS_MIN && BN_num_bits(n) <= CRYPTO_RSA_BITS_MAX &&
		BN_is_odd(n) && BN_is_odd(e) && !BN_is_one(e) && BN_num_bits(e) <= 64) {
		OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();

		BUG_ON(!b || !OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, n) ||
			!OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, e));
		key = from_parameters("RSA", OSSL_PARAM_BLD_to_param(b));
		OSSL_PARAM_BLD_free(b);
	}
	BN_free(n);
	BN_free(e);
	return key ? new_key(CRYPTO_RSA, key) : NULL;
}

struct crypto_key *crypto_key_ec(enum crypto_key_kind kind, struct str x, struct str y)
{
	const struct curve *curve = &curves[kind];
	unsigned char point[1 + 2 * 66];
	EVP_PKEY *key;

	BUG_ON(kind < CRYPTO_EC256 || kind > CRYPTO_EC521);
	if (x.n != curve->bytes || y.n != curve->bytes)
		return NULL;
	point[0] = 4; /* uncompressed */
	memcpy(point + 1, x.p, x.n);
	memcpy(point + 1 + x.n, y.p, y.n);
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();

	BUG_ON(!b || !OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, curve->group, 0) ||
		!OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * curve->bytes));
	/* A point that is not on the curve is refused by OpenSSL. */
	key = from_parameters("EC", OSSL_PARAM_BLD_to_param(b));
	OSSL_PARAM_BLD_free(b);
	return key ? new_key(kind, key) : NULL;
}

struct crypto_key *crypto_key_ed25519(struct str x)
{
	EVP_PKEY *key =
		x.n == 32 ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, bytes_of(x), 32) : NULL;

	ERR_clear_error();
	return key ? new_key(CRYPTO_ED25519, key) : NULL;
}

struct crypto_key *crypto_key_secret(struct str bytes)
{
	struct crypto_key *k;

	if (bytes.n == 0 || bytes.n > SECRET_MAX)
		return NULL;
	k = new_key(CRYPTO_SECRET, NULL);
	k->secret = mem_alloc(bytes.n);
	k->secret_n = bytes.n;
	memcpy(k->secret, bytes.p, bytes.n);
	return k;
}

void crypto_key_free(struct crypto_key *k)
{
	if (!k)
		return;
	EVP_PKEY_free(k->public_key);
	if (k->secret)
		mem_wipe(k->secret, k->secret_n);
	mem_free(k->secret);
	mem_free(k);
}

enum crypto_key_kind crypto_key_kind(const struct crypto_key *k)
{
	return k->kind;
}

bool crypto_key_fits(const struct crypto_key *k, enum crypto_algorithm a)
{
	return a < CRYPTO_ALGORITHM_COUNT && algorithms[a].kind == k->kind;
}

/* ---------- verifying ---------- */

static bool verify_secret(
	const struct crypto_key *k, const struct algorithm *a, struct str data, struct str signature)
{
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	BUG_ON(!HMAC(a->digest(), k->secret, (int)k->secret_n, bytes_of(data), data.n, mac, &n) ||
		n != a->bytes);
	return str_equal_secret(signature, (struct str){(char *)mac, n});
}

/* r || s to the DER form that OpenSSL reads; 0 when they have another size. To be freed by OPENSSL_free. */
static int encode_ec(const struct algorithm *a, struct str signature, unsigned char **der)
{
	ECDSA_SIG *pair;
	BIGNUM *r, *s;
	int n;

	*der = NULL;
	if (signature.n != 2 * a->bytes)
		return 0;
	pair = ECDSA_SIG_new();
	r = BN_bin2bn(bytes_of(signature), (int)a->bytes, NULL);
	s = BN_bin2bn(bytes_of(signature) + a->bytes, (int)a->bytes, NULL);
	BUG_ON(!pair || !r || !s || ECDSA_SIG_set0(pair, r, s) != 1);
	n = i2d_ECDSA_SIG(pair, der);
	ECDSA_SIG_free(pair);
	return n;
}

static bool start(EVP_MD_CTX *c, const struct crypto_key *k, const struct algorithm *a)
{
	EVP_PKEY_CTX *p = NULL;

	if (EVP_DigestVerifyInit(c, &p, a->digest ? a->digest() : NULL, NULL, k->public_key) != 1)
		return false;
	return a->family != RSA_PSS ||
	       (EVP_PKEY_CTX_set_rsa_padding(p, RSA_PKCS1_PSS_PADDING) == 1 &&
		       EVP_PKEY_CTX_set_rsa_pss_saltlen(p, RSA_PSS_SALTLEN_DIGEST) == 1);
}

bool crypto_key_verify(
	const struct crypto_key *k, enum crypto_algorithm algorithm, struct str data, struct str signature)
{
	const struct algorithm *a;
	const unsigned char *bytes = bytes_of(signature);
	unsigned char *der = NULL;
	size_t n = signature.n;
	EVP_MD_CTX *c;
	bool ok;

	if (!crypto_key_fits(k, algorithm))
		return false;
	a = &algorithms[algorithm];
	if (a->family == HMAC_SECRET)
		return verify_secret(k, a, data, signature);
	if (a->family == EC) {
		int encoded = encode_ec(a, signature, &der);

		if (encoded <= 0)
			return false;
		bytes = der;
		n = (size_t)encoded;
	}
	c = EVP_MD_CTX_new();
	BUG_ON(!c);
	ok = start(c, k, a) && EVP_DigestVerify(c, bytes, n, bytes_of(data), data.n) == 1;
	EVP_MD_CTX_free(c);
	OPENSSL_free(der);
	ERR_clear_error();
	return ok;
}

/* ---------- base64url ---------- */

static int digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool crypto_base64url_strict(struct str text, char *out, size_t *n)
{
	uint32_t bits = 0;
	unsigned have = 0;
	size_t at = 0;

	if (text.n % 4 == 1)
		return false;
	for (size_t i = 0; i < text.n; i++) {
		int d = digit(text.p[i]);

		if (d < 0)
			return false;
		bits = bits << 6 | (uint32_t)d;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[at++] = (char)(bits >> have & 0xff);
		}
	}
	if (have > 0 && (bits & ((1U << have) - 1)) != 0)
		return false;
	*n = at;
	return true;
}
