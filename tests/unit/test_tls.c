/* Tests of net/tls*.h: names to certificates, hellos, tickets and their keys, bytes that have to wait. room: net */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/mem.h"
#include "net/tls.h"
#include "pem_samples.h"

#define HOUR_MS (3600 * 1000LL)

static struct problem why;

static void make_server(struct tls_server *s, enum tls_version min, enum tls_version max)
{
	struct tls_material m = {
		.certificate = STR(certificate_pem), .key = STR(key_pem), .min = min, .max = max,
	};

	assert_true(tls_server_init(s, &m, &why));
}

/* ---------- names ---------- */

static void test_find(void **state)
{
	static const struct {
		const char *name;
		int want;                         /* index of servers; 3 = the fallback */
	} cases[] = {
		{ "a.test", 0 }, { "A.Test", 0 }, { "a.test.", 0 }, { "x.a.test", 3 }, { "b.w.test", 1 },
		{ "c.b.w.test", 1 }, { "w.test", 3 }, { ".w.test", 3 }, { "x.deep.w.test", 2 }, { "deep.w.test", 1 },
		{ "", 3 }, { ".", 3 }, { "..", 3 }, { "*.w.test", 1 }, { "a.test\n", 3 },
	};
	struct tls_server servers[4];
	struct pmap *map = pmap_new();
	struct tls_names names = { .fallback = &servers[3] };
	char long_name[300];

	(void)state;
	memset(servers, 0, sizeof servers);
	for (unsigned i = 0; i < 4; i++)
		servers[i].part.refs = 1;
	map = pmap_set(map, STR("a.test"), &servers[0].part);
	map = pmap_set(map, STR("*.w.test"), &servers[1].part);
	map = pmap_set(map, STR("*.deep.w.test"), &servers[2].part);
	names.servers = map;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_ptr_equal(tls_names_find(&names, str_of(cases[i].name)), &servers[cases[i].want]);
	memset(long_name, 'a', sizeof long_name);
	assert_ptr_equal(tls_names_find(&names, (struct str){ long_name, sizeof long_name }), &servers[3]);
	names.fallback = NULL;
	assert_null(tls_names_find(&names, STR("unknown")));
	assert_null(tls_names_find(&names, (struct str){ NULL, 0 }));
	pmap_drop(map);
}

static void check_name(const char *bytes, size_t n, const char *want)
{
	struct str name = tls_read_server_name((const uint8_t *)bytes, n);

	assert_int_equal(name.n, want ? strlen(want) : 0);
	if (want)
		assert_memory_equal(name.p, want, name.n);
}
#define CHECK_NAME(literal, want) check_name((literal), sizeof(literal) - 1, (want))

static void test_server_name(void **state)
{
	(void)state;
	CHECK_NAME("\0\11\0\0\6a.test", "a.test");
	CHECK_NAME("\0\4\0\0\1a", "a");
	CHECK_NAME("", NULL);
	CHECK_NAME("\0\3\0\0\0", NULL);
	CHECK_NAME("\0\12\0\0\6a.test", NULL);
	CHECK_NAME("\0\11\0\0\7a.test", NULL);
	CHECK_NAME("\0\11\1\0\6a.test", NULL);
	CHECK_NAME("\0\11\0\0\6a\0test", NULL);
	CHECK_NAME("\0\11\0\0\6a test", NULL);
	CHECK_NAME("\0\22\0\0\6a.test\0\0\6b.test", NULL);
	CHECK_NAME("\377\377\0\377\377a", NULL);
}

static void add_name(void *arg, struct str name)
{
	sbuf_add(arg, name);
	sbuf_addc(arg, ' ');
}

static void test_certificates(void **state)
{
	struct sbuf names = { 0 };

	(void)state;
	tls_certificate_names(STR(certificate_pem), add_name, &names);
	assert_string_equal(names.p, "example.com ");
	sbuf_free(&names);
	assert_true(tls_certificate_end_ms(STR(certificate_pem)) > 4000000000000);
	assert_int_equal(tls_certificate_end_ms(STR("garbage")), 0);
	assert_true(tls_check_certificate(STR(certificate_pem), STR(key_pem), &why));
	assert_true(tls_check_certificate(STR(certificate_pem), (struct str){ NULL, 0 }, &why));
	assert_false(tls_check_certificate(STR("garbage"), STR(key_pem), &why));
	assert_string_equal(why.field, "certificate");
	assert_false(tls_check_certificate(STR(certificate_pem), STR(other_key_pem), &why));
	assert_string_equal(why.field, "privateKey");
	clock_set(0, 5000000000000);
	assert_false(tls_check_certificate(STR(certificate_pem), STR(key_pem), &why));
	assert_string_equal(why.field, "certificate");
	assert_non_null(strstr(why.text, "expired on 2126-"));
	clock_set_real();
}

/* ---------- connections ---------- */

struct pair {
	int fds[2];
	struct tls *server;
	SSL_CTX *context;
	SSL *client;
};

static void open_pair(struct pair *p, const struct tls_names *names)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fds), 0);
	p->server = tls_accept(p->fds[1], names);
	p->context = SSL_CTX_new(TLS_client_method());
	p->client = SSL_new(p->context);
	SSL_set_fd(p->client, p->fds[0]);
	SSL_set_connect_state(p->client);
	SSL_set_tlsext_host_name(p->client, "example.com");
}

static void close_pair(struct pair *p)
{
	tls_free(p->server);
	SSL_free(p->client);
	SSL_CTX_free(p->context);
	close(p->fds[0]);
	close(p->fds[1]);
}

static enum tls_result shake(struct pair *p)
{
	enum tls_result result = TLS_WAITS;

	for (int i = 0; i < 20 && result == TLS_WAITS; i++) {
		SSL_do_handshake(p->client);
		result = tls_handshake(p->server);
	}
	SSL_do_handshake(p->client);
	return result;
}

/* A byte both ways; then the client has its ticket. */
static void exchange(struct pair *p)
{
	struct iovec part = { (void *)(uintptr_t)"x", 1 };
	char byte;

	assert_int_equal(tls_send(p->server, &part, 1), 1);
	assert_int_equal(SSL_read(p->client, &byte, 1), 1);
	assert_int_equal(SSL_write(p->client, "y", 1), 1);
	assert_int_equal(tls_receive(p->server, &byte, 1), 1);
	assert_int_equal(byte, 'y');
}

/* A handshake with the session; returns the next one (a reference). */
static SSL_SESSION *visit(const struct tls_names *names, SSL_SESSION *session, bool resumes)
{
	struct pair p;

	open_pair(&p, names);
	if (session)
		SSL_set_session(p.client, session);
	assert_int_equal(shake(&p), TLS_DONE);
	assert_int_equal(SSL_session_reused(p.client), resumes);
	assert_int_equal(tls_is_resumed(p.server), resumes);
	assert_string_equal(tls_name(p.server).p, "example.com");
	exchange(&p);
	SSL_SESSION *next = SSL_get1_session(p.client);
	/* A session without a goodbye counts as broken. */
	SSL_set_shutdown(p.client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	close_pair(&p);
	return next;
}

static void check_tickets(enum tls_version version)
{
	struct tls_server s;
	struct tls_names names = { .fallback = &s };
	int64_t now_ms = 100 * HOUR_MS;

	make_server(&s, version, version);
	tls_set_ticket_times(HOUR_MS, 12 * HOUR_MS);
	clock_set(now_ms * 1000, 4000000000000);
	SSL_SESSION *first = visit(&names, NULL, false);
	for (int hour = 1; hour <= 12; hour++) {
		clock_set((now_ms + hour * HOUR_MS) * 1000, 4000000000000);
		SSL_SESSION_free(visit(&names, first, true));
		SSL_SESSION_free(visit(&names, NULL, false));    /* makes the key of this hour */
	}
	clock_set((now_ms + 14 * HOUR_MS) * 1000, 4000000000000);
	SSL_SESSION_free(visit(&names, first, false));
	SSL_SESSION_free(first);
	clock_set_real();
	tls_server_clear(&s);
}

static void test_tickets_1_2(void **state)
{
	(void)state;
	check_tickets(TLS_1_2);
}

static void test_tickets_1_3(void **state)
{
	(void)state;
	check_tickets(TLS_1_3);
}

static void test_sessions_belong_to_a_server(void **state)
{
	struct tls_server one, other;
	struct tls_names names = { .fallback = &one }, others = { .fallback = &other };

	(void)state;
	make_server(&one, TLS_1_2, TLS_1_3);
	make_server(&other, TLS_1_3, TLS_1_3);
	SSL_SESSION *session = visit(&names, NULL, false);
	SSL_SESSION_free(visit(&others, session, false));
	SSL_SESSION_free(visit(&names, session, true));
	SSL_SESSION_free(session);
	tls_server_clear(&one);
	tls_server_clear(&other);
}

static void test_no_name_no_certificate(void **state)
{
	struct tls_names names = { 0 };
	struct pair p;

	(void)state;
	open_pair(&p, &names);
	assert_int_equal(shake(&p), TLS_FAILED);
	assert_int_equal(tls_failure(p.server), TLS_FAILURE_NAME);
	close_pair(&p);
}

/* What a full socket does not take comes later, each byte once, whatever the parts look like. */
static void check_backed_up(bool is_last)
{
	enum { SIZE = 3000000 };
	struct tls_server s;
	struct tls_names names = { .fallback = &s };
	struct pair p;
	char *sent = mem_alloc(SIZE), *got = mem_alloc(SIZE + 1);
	size_t at = 0, have = 0;
	bool was_full = false;

	for (size_t i = 0; i < SIZE; i++)
		sent[i] = (char)(i * 7 + i / 251);
	make_server(&s, TLS_1_2, TLS_1_3);
	open_pair(&p, &names);
	assert_int_equal(shake(&p), TLS_DONE);
	if (is_last)
		tls_send_last(p.server);
	for (unsigned turn = 0; have < SIZE; turn++) {
		size_t left = SIZE - at, first = left < turn % 50 ? left : turn % 50;
		struct iovec parts[3] = { { sent + at, first }, { sent, 0 }, { sent + at + first, left - first } };
		ssize_t n = left ? tls_send(p.server, parts, 3) : 0;

		if (n < 0)
			assert_int_equal(errno, EAGAIN);
		int r = turn % 3 ? SSL_read(p.client, got + have, (int)(SIZE + 1 - have)) : 0;

		was_full = was_full || n < (ssize_t)left;
		at += n > 0 ? (size_t)n : 0;
		have += r > 0 ? (size_t)r : 0;
	}
	assert_true(was_full);
	assert_int_equal(have, SIZE);
	assert_memory_equal(got, sent, SIZE);
	if (!is_last)
		exchange(&p);
	else if (at < SIZE)
		/* The byte that is owed. */
		assert_int_equal(tls_send(p.server, &(struct iovec){ sent + at, SIZE - at }, 1), SIZE - at);
	assert_int_equal(SSL_get_error(p.client, SSL_read(p.client, got, 1)),
			 is_last ? SSL_ERROR_ZERO_RETURN : SSL_ERROR_WANT_READ);
	/* Said once. */
	tls_shutdown(p.server);
	assert_int_equal(SSL_get_error(p.client, SSL_read(p.client, got, 1)), SSL_ERROR_ZERO_RETURN);
	assert_int_equal(recv(p.fds[0], got, 1, 0), -1);
	close_pair(&p);
	tls_server_clear(&s);
	mem_free(sent);
	mem_free(got);
}

static void test_backed_up(void **state)
{
	(void)state;
	check_backed_up(false);
}

/* The goodbye comes with the last bytes, however long they take. */
static void test_last_bytes(void **state)
{
	(void)state;
	check_backed_up(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_server_name),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_tickets_1_2),
		cmocka_unit_test(test_tickets_1_3),
		cmocka_unit_test(test_sessions_belong_to_a_server),
		cmocka_unit_test(test_no_name_no_certificate),
		cmocka_unit_test(test_backed_up),
		cmocka_unit_test(test_last_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
