/* Tests of net/tls_client.h: who is believed, sessions, ends, peers that keep us busy. room: net */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>
#include "net/tls_client.h"

static struct problem why;

/* ---------- a certificate for a name, which is its own CA ---------- */

static struct {
	char certificate[4096], key[1024];
	X509 *x;
	EVP_PKEY *pkey;
} own;

static void write_pem(char *out, size_t room, bool is_key)
{
	BIO *bio = BIO_new(BIO_s_mem());

	if (is_key)
		PEM_write_bio_PrivateKey(bio, own.pkey, NULL, NULL, 0, NULL, NULL);
	else
		PEM_write_bio_X509(bio, own.x);
	int n = BIO_read(bio, out, (int)room - 1);

	assert_true(n > 0);
	out[n] = '\0';
	BIO_free(bio);
}

static int make_own(void **state)
{
	X509_NAME *name;
	X509_EXTENSION *names;

	(void)state;
	own.pkey = EVP_EC_gen("P-256");
	own.x = X509_new();
	X509_set_version(own.x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(own.x), 1);
	X509_gmtime_adj(X509_getm_notBefore(own.x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(own.x), 86400);
	X509_set_pubkey(own.x, own.pkey);
	name = X509_get_subject_name(own.x);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"own", -1, -1, 0);
	X509_set_issuer_name(own.x, name);
	names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:a.test,DNS:b.test");
	X509_add_ext(own.x, names, -1);
	X509_EXTENSION_free(names);
	assert_true(X509_sign(own.x, own.pkey, EVP_sha256()) > 0);
	write_pem(own.certificate, sizeof own.certificate, false);
	write_pem(own.key, sizeof own.key, true);
	return 0;
}

static int free_own(void **state)
{
	(void)state;
	X509_free(own.x);
	EVP_PKEY_free(own.pkey);
	return 0;
}

/* ---------- a server of OpenSSL's and a client of ours ---------- */

struct pair {
	int fds[2];
	struct tls *client;
	SSL_CTX *context;
	SSL *server;
};

static SSL_CTX *server_context(int version)
{
	SSL_CTX *c = SSL_CTX_new(TLS_server_method());

	assert_int_equal(SSL_CTX_use_certificate(c, own.x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(c, own.pkey), 1);
	SSL_CTX_set_min_proto_version(c, version);
	SSL_CTX_set_max_proto_version(c, version);
	SSL_CTX_set_session_id_context(c, (const unsigned char *)"t", 1);
	return c;
}

static void make_client(struct tls_client *c, bool believes)
{
	struct tls_client_material m = { .ca = str_of(believes ? own.certificate : NULL) };

	assert_true(tls_client_init(c, &m, &why));
}

static void open_pair(struct pair *p, SSL_CTX *context, const struct tls_connect *how)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fds), 0);
	p->client = tls_connect(p->fds[0], how);
	p->server = SSL_new(context);
	SSL_set_fd(p->server, p->fds[1]);
	SSL_set_accept_state(p->server);
}

static void close_pair(struct pair *p)
{
	tls_free(p->client);
	SSL_free(p->server);
	close(p->fds[0]);
	if (p->fds[1] >= 0)
		close(p->fds[1]);
}

static enum tls_result shake(struct pair *p)
{
	enum tls_result result = TLS_WAITS;

	for (int i = 0; i < 20 && result == TLS_WAITS; i++) {
		result = tls_handshake(p->client);
		SSL_do_handshake(p->server);
	}
	return result;
}

/* What the server says reaches the client, and tickets with it. */
static void hear(struct pair *p)
{
	char byte;

	assert_int_equal(SSL_write(p->server, "x", 1), 1);
	assert_int_equal(tls_receive(p->client, &byte, 1), 1);
	assert_int_equal(byte, 'x');
}

static bool visit(SSL_CTX *context, const struct tls_connect *how)
{
	struct pair p;
	bool is_resumed;

	open_pair(&p, context, how);
	assert_int_equal(shake(&p), TLS_DONE);
	is_resumed = tls_is_resumed(p.client);
	hear(&p);
	close_pair(&p);
	return is_resumed;
}

static void check_sessions(int version)
{
	SSL_CTX *context = server_context(version);
	struct tls_session session = { 0 };
	struct tls_client client;

	make_client(&client, true);
	struct tls_connect how = { .client = &client, .server_name = STR("a.test"), .session = &session };

	assert_false(visit(context, &how));
	assert_true(tls_session_is_there(&session));
	for (int i = 0; i < 3; i++)
		assert_true(visit(context, &how));
	/* What was not verified for its name leaves no session behind, and goes on with none. */
	how.takes_any_name = true;
	assert_false(visit(context, &how));
	tls_session_free(&session);
	assert_false(visit(context, &how));
	assert_false(tls_session_is_there(&session));
	tls_client_clear(&client);
	SSL_CTX_free(context);
}

static void test_sessions_1_2(void **state)
{
	(void)state;
	check_sessions(TLS1_2_VERSION);
}

static void test_sessions_1_3(void **state)
{
	(void)state;
	check_sessions(TLS1_3_VERSION);
}

static enum tls_client_failure fail_to_connect(SSL_CTX *context, const struct tls_connect *how)
{
	struct pair p;
	enum tls_client_failure failure;

	open_pair(&p, context, how);
	assert_int_equal(shake(&p), TLS_FAILED);
	failure = tls_client_failure(p.client);
	assert_true(strlen(tls_client_failure_text(p.client)) > 0);
	close_pair(&p);
	return failure;
}

static void test_who_is_believed(void **state)
{
	SSL_CTX *context = server_context(TLS1_3_VERSION);
	struct tls_client friend, stranger;
	const struct str names[] = { { "*.nobody.test", 13 }, { "B.test", 6 } };
	struct tls_client_material m = { .ca = str_of(own.certificate), .names = names, .n_names = 2 };

	(void)state;
	make_client(&friend, true);
	make_client(&stranger, false);
	struct tls_connect how = { .client = &friend, .server_name = STR("c.test") };

	assert_int_equal(fail_to_connect(context, &how), TLS_CLIENT_NAME);
	how.server_name = STR("b.test");
	assert_false(visit(context, &how));
	how.server_name = (struct str){ NULL, 0 };
	assert_int_equal(fail_to_connect(context, &how), TLS_CLIENT_NAME);
	how.takes_any_name = true;
	assert_false(visit(context, &how));
	how.client = &stranger;
	assert_int_equal(fail_to_connect(context, &how), TLS_CLIENT_UNTRUSTED);
	tls_client_clear(&friend);
	assert_true(tls_client_init(&friend, &m, &why));
	how = (struct tls_connect){ .client = &friend, .server_name = STR("c.test") };
	assert_false(visit(context, &how));
	m.n_names = 1;
	tls_client_clear(&friend);
	assert_true(tls_client_init(&friend, &m, &why));
	how.takes_any_name = true;
	assert_int_equal(fail_to_connect(context, &how), TLS_CLIENT_NAME);
	tls_client_clear(&friend);
	tls_client_clear(&stranger);
	SSL_CTX_free(context);
}

static void test_identity_may_go_before_the_handshake_ends(void **state)
{
	SSL_CTX *context = server_context(TLS1_3_VERSION);
	struct tls_client client;
	struct pair p;
	char name[] = "c.test";

	(void)state;
	make_client(&client, true);
	open_pair(&p, context, &(struct tls_connect){ .client = &client, .server_name = { name, 6 } });
	tls_client_clear(&client);
	memset(name, 'x', sizeof name);
	assert_int_equal(shake(&p), TLS_FAILED);
	assert_int_equal(tls_client_failure(p.client), TLS_CLIENT_NAME);
	close_pair(&p);
	SSL_CTX_free(context);
}

static void test_what_cannot_be_used(void **state)
{
	struct tls_client client;
	struct tls_client_material m = { .ca = STR("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") };

	(void)state;
	assert_false(tls_client_init(&client, &m, &why));
	assert_string_equal(why.field, "caCertContent");
	m = (struct tls_client_material){ .ca = str_of(own.certificate), .certificate = str_of(own.certificate),
					  .key = STR("nothing") };
	assert_false(tls_client_init(&client, &m, &why));
	assert_string_equal(why.field, "certId");
	tls_client_init_broken(&client, "gone");
	assert_null(client.context);
	assert_string_equal(client.trouble, "gone");
	assert_false(tls_check_ca(STR(""), &why));
	assert_true(tls_check_ca(str_of(own.certificate), &why));
}

static void test_ends(void **state)
{
	SSL_CTX *context = server_context(TLS1_3_VERSION);
	struct tls_client client;
	char byte;

	(void)state;
	make_client(&client, true);
	for (int says_goodbye = 0; says_goodbye < 2; says_goodbye++) {
		struct pair p;

		open_pair(&p, context, &(struct tls_connect){ .client = &client, .server_name = STR("a.test") });
		assert_int_equal(shake(&p), TLS_DONE);
		hear(&p);
		if (says_goodbye)
			SSL_shutdown(p.server);
		close(p.fds[1]);
		p.fds[1] = -1;
		assert_int_equal(tls_receive(p.client, &byte, 1), 0);
		assert_int_equal(tls_said_goodbye(p.client), says_goodbye);
		close_pair(&p);
	}
	tls_client_clear(&client);
	SSL_CTX_free(context);
}

/* ---------- a peer that sends records without content ---------- */

/* Changes of keys, as many as the kernel takes: each costs us time, none brings anything. */
static size_t pour(struct pair *p, unsigned updates)
{
	BIO *records = BIO_new(BIO_s_mem());
	char *bytes;
	size_t sent = 0;
	ssize_t n;

	SSL_set0_wbio(p->server, records);
	for (unsigned i = 0; i < updates; i++) {
		assert_int_equal(SSL_key_update(p->server, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(p->server), 1);
	}
	size_t all = (size_t)BIO_get_mem_data(records, &bytes);

	while (sent < all && (n = send(p->fds[1], bytes + sent, all - sent > 32768 ? 32768 : all - sent, 0)) > 0)
		sent += (size_t)n;
	return sent;
}

static void test_flood_of_empty_records(void **state)
{
	SSL_CTX *context = server_context(TLS1_3_VERSION);
	struct tls_client client;
	char byte;

	(void)state;
	make_client(&client, true);
	/* A few are nothing to complain about. */
	for (unsigned updates = 100; updates <= 10000; updates *= 100) {
		struct pair p;
		ssize_t got;

		open_pair(&p, context, &(struct tls_connect){ .client = &client, .server_name = STR("a.test") });
		assert_int_equal(shake(&p), TLS_DONE);
		hear(&p);
		size_t poured = pour(&p, updates);

		assert_true(updates == 100 || poured > 210000);
		got = tls_receive(p.client, &byte, 1);
		assert_int_equal(got, updates == 100 ? -1 : 0);
		close_pair(&p);
	}
	tls_client_clear(&client);
	SSL_CTX_free(context);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sessions_1_2),
		cmocka_unit_test(test_sessions_1_3),
		cmocka_unit_test(test_who_is_believed),
		cmocka_unit_test(test_identity_may_go_before_the_handshake_ends),
		cmocka_unit_test(test_what_cannot_be_used),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_flood_of_empty_records),
	};

	return cmocka_run_group_tests(tests, make_own, free_own);
}
