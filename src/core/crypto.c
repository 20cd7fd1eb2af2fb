/*
 * crypto.c -- random bytes, digests, sealed values, base64 and a look into PEM.
 *
 * Sealed form, before base64url: version (1 byte, 1) | nonce (12) | ciphertext | tag (16). Version and
 * label are the additional authenticated data.
 */
#include "core/crypto.h"
#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <sys/random.h>
#include "core/mem.h"

enum {
	SEAL_VERSION = 1,
	NONCE_SIZE = 12,
	TAG_SIZE = 16,
	SEAL_OVERHEAD = 1 + NONCE_SIZE + TAG_SIZE,
};

static const unsigned char *bytes_of(struct str s)
{
	return (const unsigned char *)(s.p ? s.p : "");
}

void crypto_random(void *out, size_t n)
{
	unsigned char *to = out;

	while (n) {
		ssize_t got = getrandom(to, n, 0);

		BUG_ON(got < 0 && errno != EINTR);
		if (got > 0) {
			to += got;
			n -= (size_t)got;
		}
	}
}

static EVP_MD *sha256;                     /* looked up once: OpenSSL would do it for each digest */
static pthread_once_t sha256_found = PTHREAD_ONCE_INIT;

static void find_sha256(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	BUG_ON(!sha256);
}

void crypto_sha256(struct str data, uint8_t out[32])
{
	pthread_once(&sha256_found, find_sha256);
	BUG_ON(EVP_Digest(bytes_of(data), data.n, out, NULL, sha256, NULL) != 1);
}

void crypto_sha384(struct str data, uint8_t out[48])
{
	BUG_ON(EVP_Digest(bytes_of(data), data.n, out, NULL, EVP_sha384(), NULL) != 1);
}

void crypto_sha512(struct str data, uint8_t out[64])
{
	BUG_ON(EVP_Digest(bytes_of(data), data.n, out, NULL, EVP_sha512(), NULL) != 1);
}

void crypto_sha1(struct str data, uint8_t out[20])
{
	BUG_ON(EVP_Digest(bytes_of(data), data.n, out, NULL, EVP_sha1(), NULL) != 1);
}

void crypto_hmac_sha256(struct str key, struct str data, uint8_t out[32])
{
	unsigned n = 0;

	BUG_ON(key.n > INT_MAX);
	BUG_ON(!HMAC(EVP_sha256(), bytes_of(key), (int)key.n, bytes_of(data), data.n, out, &n) || n != 32);
}

/* ---- sealing ---- */

static EVP_CIPHER_CTX *new_cipher(const uint8_t key[32], const uint8_t *head, struct str label, bool sealing)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n;

	BUG_ON(!c || label.n > INT_MAX);
	BUG_ON(EVP_CipherInit_ex2(c, EVP_aes_256_gcm(), key, head + 1, sealing ? 1 : 0, NULL) != 1);
	BUG_ON(EVP_CipherUpdate(c, NULL, &n, head, 1) != 1);
	BUG_ON(label.n && EVP_CipherUpdate(c, NULL, &n, bytes_of(label), (int)label.n) != 1);
	return c;
}

struct str crypto_seal(struct arena *a, const uint8_t key[32], struct str label, struct str plain)
{
	uint8_t *sealed, *body;
	EVP_CIPHER_CTX *c;
	int n = 0, last = 0;

	BUG_ON(plain.n > INT_MAX - SEAL_OVERHEAD);
	sealed = mem_alloc(plain.n + SEAL_OVERHEAD);
	body = sealed + 1 + NONCE_SIZE;
	sealed[0] = SEAL_VERSION;
	crypto_random(sealed + 1, NONCE_SIZE);
	c = new_cipher(key, sealed, label, true);
	BUG_ON(plain.n && EVP_EncryptUpdate(c, body, &n, bytes_of(plain), (int)plain.n) != 1);
	BUG_ON(EVP_EncryptFinal_ex(c, body + n, &last) != 1 || (size_t)(n + last) != plain.n);
	BUG_ON(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, body + plain.n) != 1);
	EVP_CIPHER_CTX_free(c);
	struct str text = crypto_base64url(a, (struct str){ (char *)sealed, plain.n + SEAL_OVERHEAD });
	mem_free(sealed);
	return text;
}

struct str crypto_unseal(struct arena *a, const uint8_t key[32], struct str label, struct str sealed)
{
	const struct str nothing = { NULL, 0 };
	struct str raw;
	uint8_t tag[TAG_SIZE], *plain;
	EVP_CIPHER_CTX *c;
	int n = 0, last = 0;
	bool ok;

	if (!crypto_base64_decode(a, sealed, &raw) || raw.n < SEAL_OVERHEAD || raw.n > INT_MAX)
		return nothing;
	if (raw.p[0] != SEAL_VERSION)
		return nothing;
	size_t size = raw.n - SEAL_OVERHEAD;
	const uint8_t *body = bytes_of(raw) + 1 + NONCE_SIZE;

	memcpy(tag, body + size, TAG_SIZE);
	plain = arena_take(a, size + 1);
	c = new_cipher(key, bytes_of(raw), label, false);
	ok = size == 0 || EVP_DecryptUpdate(c, plain, &n, body, (int)size) == 1;
	ok = ok && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag) == 1;
	ok = ok && EVP_DecryptFinal_ex(c, plain + n, &last) == 1;
	EVP_CIPHER_CTX_free(c);
	if (!ok) {
		mem_wipe(plain, size);        /* bytes that were not authenticated */
		return nothing;
	}
	plain[size] = '\0';
	return (struct str){ (char *)plain, size };
}

/* ---- base64 ---- */

static struct str encode64(struct arena *a, struct str bytes, const char *alphabet, bool padded)
{
	const unsigned char *p = bytes_of(bytes);
	size_t n = bytes.n, out_n = 0;
	char *out = arena_take(a, (n + 2) / 3 * 4 + 1);

	for (; n >= 3; n -= 3, p += 3) {
		out[out_n++] = alphabet[p[0] >> 2];
		out[out_n++] = alphabet[(p[0] & 3) << 4 | p[1] >> 4];
		out[out_n++] = alphabet[(p[1] & 15) << 2 | p[2] >> 6];
		out[out_n++] = alphabet[p[2] & 63];
	}
	if (n) {
		unsigned first = p[0], second = n == 2 ? (unsigned)p[1] : 0;

		out[out_n++] = alphabet[first >> 2];
		out[out_n++] = alphabet[(first & 3) << 4 | second >> 4];
		if (n == 2)
			out[out_n++] = alphabet[(second & 15) << 2];
		for (; padded && n < 3; n++)
			out[out_n++] = '=';
	}
	out[out_n] = '\0';
	return (struct str){ out, out_n };
}

struct str crypto_base64url(struct arena *a, struct str bytes)
{
	return encode64(a, bytes, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", false);
}

struct str crypto_base64(struct arena *a, struct str bytes)
{
	return encode64(a, bytes, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", true);
}

static int digit64(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

bool crypto_base64_decode(struct arena *a, struct str text, struct str *out)
{
	size_t pad = 0, n = text.n, out_n = 0;
	uint32_t bits = 0;
	char *to;

	while (pad < 2 && n && text.p[n - 1] == '=') {
		pad++;
		n--;
	}
	if (n % 4 == 1 || (pad && (n + pad) % 4 != 0))
		return false;
	to = arena_take(a, n / 4 * 3 + 3);
	for (size_t i = 0; i < n; i++) {
		int digit = digit64(text.p[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4 != 0)
			to[out_n++] = (char)(bits >> (6 - 2 * (i % 4)) & 0xff);
	}
	/* Left-over bits must be zero: one value, one text. */
	if ((n % 4 == 2 && bits & 15) || (n % 4 == 3 && bits & 3))
		return false;
	to[out_n] = '\0';
	*out = (struct str){ to, out_n };
	return true;
}

void crypto_id(char *out, size_t n)
{
	static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	const unsigned fair = 256 / 36 * 36;  /* bytes above would favour the first characters */
	unsigned char random[64];
	size_t left = 0;

	for (size_t i = 0; i < n;) {
		if (left == 0) {
			crypto_random(random, sizeof random);
			left = sizeof random;
		}
		unsigned byte = random[--left];
		if (byte < fair)
			out[i++] = alphabet[byte % 36];
	}
	out[n] = '\0';
	mem_wipe(random, sizeof random);
}

/* ---- PEM ---- */

/* No questions: an encrypted key counts as unreadable. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static BIO *open_pem(struct str pem)
{
	BIO *bio;

	BUG_ON(pem.n > INT_MAX);
	bio = BIO_new_mem_buf(bytes_of(pem), (int)pem.n);
	BUG_ON(!bio);
	return bio;
}

static X509 *read_certificate(BIO *bio)
{
	return PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
}

static EVP_PKEY *read_key(struct str pem)
{
	BIO *bio = open_pem(pem);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

	BIO_free(bio);
	ERR_clear_error();
	return key;
}

unsigned crypto_pem_certificates(struct str pem)
{
	BIO *bio = open_pem(pem);
	unsigned n = 0;
	X509 *x;

	while ((x = read_certificate(bio))) {
		X509_free(x);
		n++;
	}
	/* Anything but the end of the text is a block that cannot be read. */
	if (n && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		n = 0;
	BIO_free(bio);
	ERR_clear_error();
	return n;
}

bool crypto_pem_has_private_key(struct str pem)
{
	EVP_PKEY *key = read_key(pem);
	bool found = key;

	EVP_PKEY_free(key);
	return found;
}

bool crypto_pem_pair_matches(struct str certificate_pem, struct str key_pem)
{
	BIO *bio = open_pem(certificate_pem);
	X509 *x = read_certificate(bio);
	EVP_PKEY *key = read_key(key_pem);
	bool same = x && key && X509_check_private_key(x, key) == 1;

	EVP_PKEY_free(key);
	X509_free(x);
	BIO_free(bio);
	ERR_clear_error();
	return same;
}
