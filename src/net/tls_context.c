/* tls_context.c -- certificates, keys and client CAs: what is wrong with them, and OpenSSL contexts made of them. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include "core/clock.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "net/tls_parts.h"

/* Fast and modern first; which of them a client gets is ours to say. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
/* What TLS 1.0 and 1.1 know as well. */
#define OLD_CIPHERS CIPHERS ":ECDHE+AES:RSA+AES:@SECLEVEL=0"

static SSL_CTX *start_context;

const char *tls_version_name(enum tls_version v)
{
	static const char *const names[] = { "", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3" };

	return names[v];
}

int tls_wire_version(enum tls_version v)
{
	static const int versions[] = { 0, TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION };

	return versions[v];
}

/* ---------- reading ---------- */

static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf, (void)size, (void)rwflag, (void)arg;
	return -1;
}

static BIO *open_pem(struct str pem)
{
	BUG_ON(pem.n > INT_MAX);
	BIO *bio = BIO_new_mem_buf(pem.p ? pem.p : "", (int)pem.n);

	BUG_ON(!bio);
	return bio;
}

STACK_OF(X509) *tls_read_certificates(struct str pem)
{
	STACK_OF(X509) *all = sk_X509_new_null();
	BIO *bio = open_pem(pem);
	X509 *x;

	while ((x = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)))
		sk_X509_push(all, x);
	if (sk_X509_num(all) == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
		sk_X509_pop_free(all, X509_free);
		all = NULL;
	}
	BIO_free(bio);
	ERR_clear_error();
	return all;
}

static EVP_PKEY *read_key(struct str pem)
{
	BIO *bio = open_pem(pem);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

	BIO_free(bio);
	ERR_clear_error();
	return key;
}

/* Says why OpenSSL refused, in its words. */
static bool refuse(struct problem *why, const char *field, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	problem(why, field, "%s: %s", what, reason ? reason : "OpenSSL gives no reason");
	ERR_clear_error();
	return false;
}

/* ---------- what is wrong with a certificate ---------- */

static int64_t end_ms(const X509 *x)
{
	struct tm tm;

	return ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1 ? (int64_t)timegm(&tm) * 1000 : 0;
}

int64_t tls_certificate_end_ms(struct str certificate)
{
	STACK_OF(X509) *all = tls_read_certificates(certificate);
	int64_t end = all ? end_ms(sk_X509_value(all, 0)) : 0;

	sk_X509_pop_free(all, X509_free);
	return end;
}

static bool check_time(const X509 *x, int position, struct problem *why)
{
	time_t end = (time_t)(end_ms(x) / 1000);
	char date[32], which[40] = "the certificate";
	struct tm tm;

	if ((int64_t)end * 1000 > clock_wall_ms())
		return true;
	if (position > 0)
		snprintf(which, sizeof which, "certificate %d of the chain", position + 1);
	strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&end, &tm));
	return problem(why, "certificate", "%s expired on %s; give one that is valid", which, date);
}

static bool check_pair(STACK_OF(X509) *all, EVP_PKEY *key, struct problem *why)
{
	if (X509_check_private_key(sk_X509_value(all, 0), key) == 1)
		return true;
	ERR_clear_error();
	for (int i = 1; i < sk_X509_num(all); i++)
		if (X509_check_private_key(sk_X509_value(all, i), key) == 1)
			return problem(why, "certificate", "the certificate of privateKey must come first; it is "
				       "number %d", i + 1);
	ERR_clear_error();
	return problem(why, "privateKey", "does not belong to the certificate");
}

static bool check_all(STACK_OF(X509) *all, struct str certificate, struct str key_pem, struct problem *why)
{
	EVP_PKEY *key = key_pem.n ? read_key(key_pem) : NULL;
	bool ok = !key_pem.n || key || problem(why, "privateKey", "must hold a private key in PEM");
	struct tls_server probe;

	ok = ok && (!key || check_pair(all, key, why));
	EVP_PKEY_free(key);
	for (int i = 0; ok && i < sk_X509_num(all); i++)
		ok = check_time(sk_X509_value(all, i), i, why);
	if (!ok || !key_pem.n)
		return ok;
	struct tls_material m = { certificate, key_pem, { NULL, 0 }, TLS_1_2, TLS_1_3 };
	if (!tls_server_init(&probe, &m, why))
		return false;
	tls_server_clear(&probe);
	return true;
}

bool tls_check_certificate(struct str certificate, struct str key, struct problem *why)
{
	STACK_OF(X509) *all = tls_read_certificates(certificate);

	if (!all)
		return problem(why, "certificate", "must hold certificates in PEM, each of them readable");
	bool ok = check_all(all, certificate, key, why);

	sk_X509_pop_free(all, X509_free);
	return ok;
}

/* ---------- names ---------- */

static bool tell_name(const ASN1_STRING *s, void (*each)(void *arg, struct str name), void *arg)
{
	char name[256];
	size_t n = (size_t)ASN1_STRING_length(s);
	const unsigned char *p = ASN1_STRING_get0_data(s);

	if (n == 0 || n >= sizeof name)
		return false;
	for (size_t i = 0; i < n; i++) {
		/* A name with a NUL or a blank in it is none. */
		if (p[i] <= ' ' || p[i] >= 0x7f)
			return false;
		name[i] = str_lower((char)p[i]);
	}
	each(arg, (struct str){ name, n });
	return true;
}

void tls_certificate_names(struct str certificate, void (*each)(void *arg, struct str name), void *arg)
{
	STACK_OF(X509) *all = tls_read_certificates(certificate);
	bool found = false;

	if (!all)
		return;
	X509 *x = sk_X509_value(all, 0);
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type == GEN_DNS)
			found = tell_name(g->d.dNSName, each, arg) || found;
	}
	GENERAL_NAMES_free(names);
	X509_NAME *subject = X509_get_subject_name(x);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (!found && at >= 0)
		tell_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), each, arg);
	sk_X509_pop_free(all, X509_free);
	ERR_clear_error();
}

/* ---------- contexts ---------- */

SSL_CTX *tls_new_context(void)
{
	SSL_CTX *c = SSL_CTX_new(TLS_server_method());

	BUG_ON(!c);
	SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
			    SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_SSLv3);
	/* What is sent of the chain is what was configured: nothing is looked for in each handshake. */
	SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	/* TLS 1.3: one, with the first bytes that are sent (tls_send), not in a packet of its own. */
	SSL_CTX_set_num_tickets(c, 0);
	SSL_CTX_set_read_ahead(c, 1);
	SSL_CTX_set_max_early_data(c, 0);
	SSL_CTX_set_timeout(c, (long)(tls_ticket_life_ms() / 1000));
	SSL_CTX_set_min_proto_version(c, 0);
	SSL_CTX_set_max_proto_version(c, 0);
	BUG_ON(SSL_CTX_set_ciphersuites(c, TLS_SUITES) != 1 || SSL_CTX_set_cipher_list(c, CIPHERS) != 1);
	BUG_ON(SSL_CTX_set1_groups_list(c, TLS_GROUPS) != 1);
	SSL_CTX_set_security_level(c, 2);
	SSL_CTX_set_alpn_select_cb(c, tls_choose_protocol, NULL);
	return c;
}

static void make_start(void)
{
	start_context = tls_new_context();
	SSL_CTX_set_client_hello_cb(start_context, tls_choose, NULL);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(start_context, tls_ticket_key);
}

SSL_CTX *tls_start_context(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_start);
	return start_context;
}

bool tls_load_chain(SSL_CTX *c, struct str pem, struct problem *why)
{
	STACK_OF(X509) *all = tls_read_certificates(pem);
	bool ok = all != NULL;

	if (!ok)
		return problem(why, "certificate", "must hold certificates in PEM, each of them readable");
	ok = SSL_CTX_use_certificate(c, sk_X509_value(all, 0)) == 1;
	for (int i = 1; ok && i < sk_X509_num(all); i++)
		ok = SSL_CTX_add1_chain_cert(c, sk_X509_value(all, i)) == 1;
	sk_X509_pop_free(all, X509_free);
	return ok || refuse(why, "certificate", "cannot be used for TLS");
}

bool tls_load_key(SSL_CTX *c, struct str pem, struct problem *why)
{
	EVP_PKEY *key = read_key(pem);
	bool ok = key != NULL;

	if (!ok)
		return problem(why, "privateKey", "must hold a private key in PEM");
	ok = SSL_CTX_use_PrivateKey(c, key) == 1 && SSL_CTX_check_private_key(c) == 1;
	EVP_PKEY_free(key);
	return ok || refuse(why, "privateKey", "cannot be used with the certificate");
}

static bool load_client_ca(SSL_CTX *c, struct str pem, struct problem *why)
{
	STACK_OF(X509) *all = tls_read_certificates(pem);
	X509_STORE *store = SSL_CTX_get_cert_store(c);

	if (!all)
		return problem(why, "clientCACert", "must hold certificates in PEM, each of them readable");
	for (int i = 0; i < sk_X509_num(all); i++) {
		X509_STORE_add_cert(store, sk_X509_value(all, i));
		SSL_CTX_add_client_CA(c, sk_X509_value(all, i));
	}
	/* One of them is trusted even where its own issuer is not among them. */
	X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	sk_X509_pop_free(all, X509_free);
	ERR_clear_error();
	return true;
}

void tls_digest_ca(struct str client_ca, uint8_t out[TLS_DIGEST])
{
	memset(out, 0, TLS_DIGEST);
	if (client_ca.n)
		crypto_sha256(client_ca, out);
}

/* Tickets are good for servers of the same certificate, versions and client CAs. */
static void set_session_context(SSL_CTX *c, const struct tls_material *m, const uint8_t client_ca[TLS_DIGEST])
{
	uint8_t all[2 * TLS_DIGEST + 2], id[TLS_DIGEST];

	crypto_sha256(m->certificate, all);
	memcpy(all + TLS_DIGEST, client_ca, TLS_DIGEST);
	all[2 * TLS_DIGEST] = (uint8_t)m->min;
	all[2 * TLS_DIGEST + 1] = (uint8_t)m->max;
	crypto_sha256((struct str){ (char *)all, sizeof all }, id);
	BUG_ON(SSL_CTX_set_session_id_context(c, id, sizeof id) != 1);
}

bool tls_server_init(struct tls_server *s, const struct tls_material *m, struct problem *why)
{
	*s = (struct tls_server){ .part = { .refs = 1 }, .min = m->min, .max = m->max };
	s->asks_client = m->client_ca.n > 0;
	tls_start_context();
	SSL_CTX *c = s->context = tls_new_context();

	if (m->min < TLS_1_2) {
		SSL_CTX_set_security_level(c, 0);
		BUG_ON(SSL_CTX_set_cipher_list(c, OLD_CIPHERS) != 1);
	}
	tls_digest_ca(m->client_ca, s->client_ca);
	set_session_context(c, m, s->client_ca);
	if (tls_load_chain(c, m->certificate, why) && tls_load_key(c, m->key, why) &&
	    (!m->client_ca.n || load_client_ca(c, m->client_ca, why)))
		return true;
	tls_server_clear(s);
	return false;
}

void tls_server_clear(struct tls_server *s)
{
	SSL_CTX_free(s->context);
	s->context = NULL;
}
