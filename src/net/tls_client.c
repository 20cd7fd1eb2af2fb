/*
 * tls_client.c -- identities towards upstreams, the verification of servers, sessions.
 *
 * What a connection is verified against lives with the SSL_CTX, which OpenSSL counts: a connection outlives the
 * tls_client that it was made with. What it is made for (a name, an address) lives with the connection.
 */
#include "net/tls_client.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "core/mem.h"
#include "net/tls_parts.h"

/* Servers that know no AEAD with ECDHE are not rare in houses: the last two are for them. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES256:ECDHE+AES128:!aNULL"
#define SESSION_SECONDS 7200
#define CHAIN_DEPTH 10

/* What the server's certificate must bear, whatever the connection is for. Freed with the context. */
struct wanted {
	struct str *names;
	size_t n;
	bool is_spiffe;
};

/* Of a connection. */
struct tls_client_side {
	struct str name;                  /* copied; absent: the address */
	struct ip address;
	struct tls_session *session;      /* NULL: none is kept */
	bool takes_any_name;
	bool has_offered;                 /* a session */
};

const char *tls_client_failure_tag(enum tls_client_failure f)
{
	static const char *const tags[] = {
#define TLS_CLIENT_FAILURE_TAG(id, tag) tag,
		TLS_CLIENT_FAILURES(TLS_CLIENT_FAILURE_TAG)
#undef TLS_CLIENT_FAILURE_TAG
	};

	return tags[f];
}

/* ---------- the system's CAs ---------- */

static struct {
	pthread_once_t once;
	X509_STORE *store;                /* empty where there are none: nobody is believed then */
	char file[256];                   /* where they came from; "" = nowhere */
} system_ca = { .once = PTHREAD_ONCE_INIT };

static bool load_system(const char *file)
{
	if (!file || !file[0] || X509_STORE_load_file(system_ca.store, file) != 1)
		return false;
	snprintf(system_ca.file, sizeof system_ca.file, "%s", file);
	return true;
}

static void find_system(void)
{
	/* Debian, Alpine; Red Hat; SUSE; BSD. */
	static const char *const files[] = {
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/ssl/cert.pem",
	};
	const char *own = getenv("SSL_CERT_FILE");

	system_ca.store = X509_STORE_new();
	BUG_ON(!system_ca.store);
	if (own && own[0]) {
		load_system(own);
	} else {
		for (size_t i = 0; i < sizeof files / sizeof *files; i++)
			if (load_system(files[i]))
				break;
	}
	ERR_clear_error();
}

static X509_STORE *system_store(void)
{
	pthread_once(&system_ca.once, find_system);
	return system_ca.store;
}

bool tls_system_ca(struct problem *why)
{
	system_store();
	return system_ca.file[0] ||
	       problem(why, "", "the system has no CA certificates: install ca-certificates, set SSL_CERT_FILE for the "
		       "gateway, or give the CA");
}

/* ---------- verification ---------- */

/* The n-th alternative name as a text or an address. False: of a kind that means nothing here. */
static bool read_name(const GENERAL_NAME *g, struct tls_borne *out)
{
	const ASN1_STRING *s;
	const uint8_t *p;

	*out = (struct tls_borne){ 0 };
	switch (g->type) {
	case GEN_DNS: case GEN_URI:
		s = g->type == GEN_DNS ? g->d.dNSName : g->d.uniformResourceIdentifier;
		out->kind = g->type == GEN_DNS ? TLS_BORNE_DNS : TLS_BORNE_URI;
		out->text = (struct str){ (const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s) };
		return out->text.n > 0 && !memchr(out->text.p, '\0', out->text.n);
	case GEN_IPADD:
		p = ASN1_STRING_get0_data(g->d.iPAddress);
		out->kind = TLS_BORNE_IP;
		if (ASN1_STRING_length(g->d.iPAddress) == 4) {
			memset(out->ip.bytes + 10, 0xff, 2);
			memcpy(out->ip.bytes + 12, p, 4);
			return true;
		}
		memcpy(out->ip.bytes, p, ASN1_STRING_length(g->d.iPAddress) == 16 ? 16 : 0);
		return ASN1_STRING_length(g->d.iPAddress) == 16;
	default:
		return false;
	}
}

static bool is_wanted(const struct wanted *want, const struct tls_client_side *side, const struct tls_borne *borne)
{
	for (size_t i = 0; i < want->n; i++)
		if (tls_name_matches(want->names[i], borne))
			return true;
	if (want->n > 0)
		return false;
	if (side->name.n)
		return tls_name_matches(side->name, borne);
	return borne->kind == TLS_BORNE_IP && memcmp(borne->ip.bytes, side->address.bytes, sizeof borne->ip.bytes) == 0;
}

static bool bears_name(X509 *x, const struct wanted *want, const struct tls_client_side *side)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	unsigned uris = 0, spiffe = 0;
	bool found = false;

	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		struct tls_borne borne;

		if (!read_name(sk_GENERAL_NAME_value(names, i), &borne))
			continue;
		found = found || is_wanted(want, side, &borne);
		uris += borne.kind == TLS_BORNE_URI;
		spiffe += borne.kind == TLS_BORNE_URI && tls_name_is_spiffe(borne.text);
	}
	GENERAL_NAMES_free(names);
	/* A workload has one identity. */
	if (want->is_spiffe)
		return uris == 1 && spiffe == 1;
	return found || (side->takes_any_name && want->n == 0);
}

static int verify(X509_STORE_CTX *store, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *t = SSL_get_app_data(ssl);
	bool ok;

	ERR_set_mark();
	ok = X509_verify_cert(store) == 1;
	if (!ok && X509_STORE_CTX_get_error(store) == X509_V_OK)
		X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
	if (ok && !bears_name(X509_STORE_CTX_get0_cert(store), arg, *tls_client_side(t))) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
		ok = false;
	}
	/* What was looked for and not found on the way is no error of the connection. */
	ERR_pop_to_mark();
	return ok;
}

/* ---------- sessions ---------- */

void tls_session_free(struct tls_session *s)
{
	SSL_SESSION_free(s->ticket);
	s->ticket = NULL;
}

bool tls_session_is_there(const struct tls_session *s)
{
	return s->ticket != NULL;
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls *t = SSL_get_app_data(ssl);
	struct tls_client_side *side = *tls_client_side(t);

	if (!side->session)
		return 0;
	tls_session_free(side->session);
	side->session->ticket = session;
	return 1;
}

/* A server is not verified anew when a session goes on: it must not have expired meanwhile. */
static void offer_session(struct tls_client_side *side, SSL *ssl)
{
	SSL_SESSION *session = side->session ? side->session->ticket : NULL;
	const X509 *x = session ? SSL_SESSION_get0_peer(session) : NULL;

	if (!session)
		return;
	if (!SSL_SESSION_is_resumable(session) || !x || X509_cmp_current_time(X509_get0_notAfter(x)) <= 0) {
		tls_session_free(side->session);
		return;
	}
	SSL_set_session(ssl, session);
	/* Tickets of TLS 1.3 are for one use; the connection brings new ones. */
	if (SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION)
		tls_session_free(side->session);
}

/* ---------- identities ---------- */

static int wanted_index = -1;

static TLS_FREE_EXTRA(free_wanted)
{
	struct wanted *want = p;

	(void)context, (void)all, (void)index, (void)number, (void)arg;
	if (!want)
		return;
	for (size_t i = 0; i < want->n; i++)
		mem_free((char *)(uintptr_t)want->names[i].p);
	mem_free(want->names);
	mem_free(want);
}

static void make_index(void)
{
	wanted_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_wanted);
	BUG_ON(wanted_index < 0);
}

static struct str copy_text(struct str s)
{
	char *p = mem_alloc(s.n + 1);

	if (s.n)
		memcpy(p, s.p, s.n);
	return (struct str){ p, s.n };
}

static struct wanted *wanted_new(const struct tls_client_material *m)
{
	struct wanted *want = MEM_NEW(struct wanted);

	want->names = mem_alloc((m->n_names + 1) * sizeof *want->names);
	want->n = m->n_names;
	want->is_spiffe = m->is_spiffe;
	for (size_t i = 0; i < m->n_names; i++)
		want->names[i] = copy_text(m->names[i]);
	return want;
}

static SSL_CTX *new_context(const struct tls_client_material *m)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	SSL_CTX *c = SSL_CTX_new(TLS_client_method());
	struct wanted *want = wanted_new(m);

	pthread_once(&once, make_index);
	BUG_ON(!c || SSL_CTX_set_ex_data(c, wanted_index, want) != 1);
	SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	/* What is shown is what was configured: nothing is added from what is believed. */
	SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_read_ahead(c, 1);
	SSL_CTX_set_security_level(c, 2);
	SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
	SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION);
	BUG_ON(SSL_CTX_set_ciphersuites(c, TLS_SUITES) != 1 || SSL_CTX_set_cipher_list(c, CIPHERS) != 1);
	BUG_ON(SSL_CTX_set1_groups_list(c, TLS_GROUPS) != 1);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL |
				       SSL_SESS_CACHE_NO_AUTO_CLEAR);
	SSL_CTX_sess_set_new_cb(c, keep_session);
	SSL_CTX_set_timeout(c, SESSION_SECONDS);
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_verify_depth(c, CHAIN_DEPTH);
	SSL_CTX_set_cert_verify_callback(c, verify, want);
	return c;
}

static bool load_ca(SSL_CTX *c, struct str pem, struct problem *why)
{
	STACK_OF(X509) *all = tls_read_certificates(pem);
	X509_STORE *store = SSL_CTX_get_cert_store(c);

	if (!all)
		return problem(why, "caCertContent", "must hold certificates in PEM, each of them readable");
	for (int i = 0; i < sk_X509_num(all); i++)
		X509_STORE_add_cert(store, sk_X509_value(all, i));
	/* One of them is believed even where its own issuer is not among them. */
	X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	sk_X509_pop_free(all, X509_free);
	ERR_clear_error();
	return true;
}

bool tls_check_ca(struct str pem, struct problem *why)
{
	STACK_OF(X509) *all = tls_read_certificates(pem);

	if (!all)
		return problem(why, "", "must hold certificates in PEM, each of them readable");
	sk_X509_pop_free(all, X509_free);
	return true;
}

static bool load_own(SSL_CTX *c, const struct tls_client_material *m, struct problem *why)
{
	if (tls_load_chain(c, m->certificate, why) && tls_load_key(c, m->key, why))
		return true;
	return problem(why, "certId", "%s %s", why->field, why->text);
}

static uint64_t next_number(void)
{
	static atomic_ullong last;

	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

bool tls_client_init(struct tls_client *c, const struct tls_client_material *m, struct problem *why)
{
	*c = (struct tls_client){ .part = { .refs = 1 }, .number = next_number() };
	SSL_CTX *context = c->context = new_context(m);

	if (!m->ca.n)
		SSL_CTX_set1_cert_store(context, system_store());
	if ((!m->ca.n || load_ca(context, m->ca, why)) && (!m->certificate.n || load_own(context, m, why)))
		return true;
	tls_client_clear(c);
	return false;
}

void tls_client_init_broken(struct tls_client *c, const char *trouble)
{
	*c = (struct tls_client){ .part = { .refs = 1 }, .number = next_number() };
	snprintf(c->trouble, sizeof c->trouble, "%s", trouble);
}

void tls_client_clear(struct tls_client *c)
{
	SSL_CTX_free(c->context);
	c->context = NULL;
}

static struct tls_client default_client;

static void make_default(void)
{
	struct tls_client_material m = { .n_names = 0 };
	struct problem why;

	BUG_ON(!tls_client_init(&default_client, &m, &why));
}

const struct tls_client *tls_client_default(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_default);
	return &default_client;
}

/* ---------- connections ---------- */

static void offer_protocols(SSL *ssl, enum tls_alpn alpn)
{
	static const unsigned char names[] = "\x02h2\x08http/1.1";

	/* It returns 0 when all is well. */
	if (alpn == TLS_ALPN_H2)
		BUG_ON(SSL_set_alpn_protos(ssl, names, 12) != 0);
	else if (alpn == TLS_ALPN_HTTP1)
		BUG_ON(SSL_set_alpn_protos(ssl, names + 3, 9) != 0);
}

struct tls *tls_connect(int fd, const struct tls_connect *how)
{
	struct tls *t = tls_open(fd, how->client->context);
	struct tls_client_side *side = MEM_NEW(struct tls_client_side);
	SSL *ssl = tls_ssl(t);

	*tls_client_side(t) = side;
	side->address = how->address;
	side->takes_any_name = how->takes_any_name;
	/* What was not verified for its name must not go on as if it had been. */
	side->session = how->takes_any_name ? NULL : how->session;
	if (how->server_name.n) {
		side->name = copy_text(how->server_name);
		((char *)(uintptr_t)side->name.p)[side->name.n] = '\0';
		/* One that is too long is not said; it is verified none the less. */
		if (SSL_set_tlsext_host_name(ssl, (char *)(uintptr_t)side->name.p) != 1)
			ERR_clear_error();
	}
	offer_protocols(ssl, how->alpn);
	SSL_set_connect_state(ssl);
	offer_session(side, ssl);
	return t;
}

void tls_client_side_free(struct tls *t)
{
	struct tls_client_side **side = tls_client_side(t);
	SSL *ssl = tls_ssl(t);

	/* OpenSSL takes a connection that ends without a goodbye for an attack, and its session for spoilt. */
	if (SSL_is_init_finished(ssl) && (!tls_error(t) || ERR_GET_REASON(tls_error(t)) ==
					  SSL_R_UNEXPECTED_EOF_WHILE_READING))
		SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	mem_free((char *)(uintptr_t)(*side)->name.p);
	mem_free(*side);
	*side = NULL;
}

static enum tls_client_failure judge_verification(long result)
{
	switch (result) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
		return TLS_CLIENT_NAME;
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return TLS_CLIENT_EXPIRED;
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_CERT_UNTRUSTED:
		return TLS_CLIENT_UNTRUSTED;
	default:
		return TLS_CLIENT_CERTIFICATE;
	}
}

static bool is_alert(int reason)
{
	return reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256;
}

enum tls_client_failure tls_client_failure(const struct tls *t)
{
	int reason = ERR_GET_REASON(tls_error(t));

	switch (reason) {
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return judge_verification(SSL_get_verify_result(tls_ssl(t)));
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		return TLS_CLIENT_VERSION;
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
		return TLS_CLIENT_NOT_TLS;
	case SSL_R_NO_CIPHERS_AVAILABLE:
	case SSL_R_UNKNOWN_CIPHER_RETURNED:
	case SSL_R_WRONG_CIPHER_RETURNED:
		return TLS_CLIENT_CIPHER;
	case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
		return TLS_CLIENT_ALPN;
	default:
		break;
	}
	if (is_alert(reason))
		return TLS_CLIENT_ALERT;
	return tls_has_ended(t) ? TLS_CLIENT_CLOSED : TLS_CLIENT_PROTOCOL;
}

const char *tls_client_failure_text(const struct tls *t)
{
	unsigned long error = tls_error(t);
	const char *text = ERR_reason_error_string(error);

	if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
		long result = SSL_get_verify_result(tls_ssl(t));

		if (result == X509_V_ERR_HOSTNAME_MISMATCH)
			return "the certificate does not bear the name that is expected";
		text = X509_verify_cert_error_string(result);
	}
	return text ? text : "";
}

struct str tls_client_name(const struct tls *t)
{
	return (*tls_client_side((struct tls *)(uintptr_t)t))->name;
}

bool tls_client_is_h2(const struct tls *t)
{
	const unsigned char *name;
	unsigned n;

	SSL_get0_alpn_selected(tls_ssl(t), &name, &n);
	return n == 2 && memcmp(name, "h2", 2) == 0;
}

bool tls_client_was_refused(const struct tls *t)
{
	switch (ERR_GET_REASON(tls_error(t)) - SSL_AD_REASON_OFFSET) {
	case SSL_AD_HANDSHAKE_FAILURE:
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
	case SSL_AD_DECRYPT_ERROR:
	case SSL_AD_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}
