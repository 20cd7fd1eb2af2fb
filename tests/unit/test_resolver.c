/*
 * test_resolver.c -- against a name server of our own: a thread on a UDP socket that answers by the first label.
 *
 *   pair    two IPv4 addresses and one IPv6      many   twenty IPv4 addresses      ttl0    one, with TTL 0
 *   gone    no such name                         empty  a name without addresses   silent  no answer
 */
/* room: net */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/loop.h"
#include "core/thread.h"
#include "net/resolver.h"

enum { TYPE_A = 1, TYPE_AAAA = 28, SERVFAIL = 2, NXDOMAIN = 3, TTL_S = 30 };

static int server_fd;
static pthread_t server;
static char server_text[32];
static atomic_int asked;                  /* questions for IPv4 addresses */
static atomic_bool is_broken;             /* SERVFAIL to everything */

static struct loop *loop;

/* ---- the name server ---- */

struct packet {
	uint8_t bytes[1500];
	size_t n;
};

static void put(struct packet *p, const void *bytes, size_t n)
{
	assert_true(p->n + n <= sizeof p->bytes);
	memcpy(p->bytes + p->n, bytes, n);
	p->n += n;
}

/* One record about the name of the question, which stands at offset 12. */
static void put_record(struct packet *p, uint8_t type, uint8_t ttl, const uint8_t *data, uint8_t n)
{
	const uint8_t head[] = { 0xc0, 12, 0, type, 0, 1, 0, 0, 0, ttl, 0, n };

	put(p, head, sizeof head);
	put(p, data, n);
	p->bytes[7]++;
}

static void answer(struct packet *p, const char *label, uint8_t type)
{
	static const uint8_t v6[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 };
	unsigned n = strcmp(label, "pair") == 0 ? 2 : strcmp(label, "many") == 0 ? 20 : strcmp(label,
		"ttl0") == 0 ? 1 : 0;

	if (type == TYPE_AAAA && n == 2)
		put_record(p, TYPE_AAAA, TTL_S, v6, 16);
	for (unsigned i = 1; type == TYPE_A && i <= n; i++)
		put_record(p, TYPE_A, n == 1 ? 0 : TTL_S, (uint8_t[]){ 10, 0, 0, (uint8_t)i }, 4);
}

/* Makes the answer of a question; false when there is to be none. */
static bool turn_into_answer(struct packet *p)
{
	char label[64] = "";
	size_t end = 12;
	uint8_t type;

	memcpy(label, p->bytes + 13, p->bytes[12] < 63 ? p->bytes[12] : 63);
	while (end < p->n && p->bytes[end])
		end += p->bytes[end] + 1u;
	type = p->bytes[end + 2];
	p->n = end + 5;
	p->bytes[2] = 0x84;
	p->bytes[3] = 0x80;
	memset(p->bytes + 6, 0, 6);
	if (type == TYPE_A)
		atomic_fetch_add(&asked, 1);
	if (strcmp(label, "silent") == 0)
		return false;
	if (atomic_load(&is_broken))
		p->bytes[3] |= SERVFAIL;
	else if (strcmp(label, "gone") == 0)
		p->bytes[3] |= NXDOMAIN;
	else
		answer(p, label, type);
	return true;
}

static void *serve(void *arg)
{
	for (;;) {
		struct sockaddr_in from;
		socklen_t from_n = sizeof from;
		struct packet p;
		ssize_t n = recvfrom(server_fd, p.bytes, sizeof p.bytes, 0, (struct sockaddr *)&from, &from_n);

		if (n < 17)                   /* one byte: the end */
			return arg;
		p.n = (size_t)n;
		if (turn_into_answer(&p))
			assert_true(sendto(server_fd, p.bytes, p.n, 0, (struct sockaddr *)&from, from_n) > 0);
	}
}

static struct sockaddr_in server_address(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof at;

	if (server_fd)
		assert_int_equal(getsockname(server_fd, (struct sockaddr *)&at, &n), 0);
	return at;
}

static int start_server(void **state)
{
	struct sockaddr_in at = server_address();
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	(void)state;
	if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0)
		return -1;
	server_fd = fd;
	at = server_address();
	snprintf(server_text, sizeof server_text, "127.0.0.1:%d", ntohs(at.sin_port));
	server = thread_start("names", serve, NULL);
	return 0;
}

static int stop_server(void **state)
{
	struct sockaddr_in at = server_address();
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	(void)state;
	sendto(fd, "x", 1, 0, (struct sockaddr *)&at, sizeof at);
	pthread_join(server, NULL);
	close(fd);
	close(server_fd);
	return 0;
}

/* ---- asking ---- */

struct question {
	struct resolver_query query;
	int answers;
	struct resolver *again;               /* done() asks for this name once more */
	bool again_at_once;
};

static void count(struct resolver_query *q)
{
	struct question *own = (struct question *)(void *)q;
	struct resolver *r = own->again;

	own->answers++;
	own->again = NULL;
	if (r)
		own->again_at_once = resolver_lookup(r, STR("pair.example"), q);
}

static struct resolver *r;

static int start(void **state)
{
	(void)state;
	atomic_store(&asked, 0);
	atomic_store(&is_broken, false);
	clock_set(1000000000, 1000000000);
	loop = loop_new();
	r = resolver_new(loop, server_text, 0);
	return r ? 0 : -1;
}

static int stop(void **state)
{
	(void)state;
	resolver_free(r);
	loop_run_once(loop, 0);
	loop_free(loop);
	clock_set_real();
	return 0;
}

static void advance_s(int seconds)
{
	clock_set(clock_us() + seconds * INT64_C(1000000), clock_wall_ms() + seconds * 1000);
}

static bool lookup(const char *host, struct question *q)
{
	q->query.done = count;
	return resolver_lookup(r, str_of(host), &q->query);
}

static void wait_for(struct question *q, int answers)
{
	for (int i = 0; i < 500 && q->answers < answers; i++)
		loop_run_once(loop, 20);
	assert_int_equal(q->answers, answers);
}

/* Whether it had to be asked for. */
static bool look_up(const char *host, struct question *q)
{
	*q = (struct question){ 0 };
	if (lookup(host, q))
		return false;
	assert_int_equal(q->answers, 0);
	wait_for(q, 1);
	return true;
}

static void assert_address(const struct question *q, unsigned i, const char *text)
{
	char got[46];

	assert_true(i < q->query.n);
	ip_print(&q->query.addresses[i], got);
	assert_string_equal(got, text);
}

static void answers_literals_at_once(void **state)
{
	struct question q = { 0 };

	(void)state;
	assert_true(lookup("192.0.2.7", &q));
	assert_int_equal(q.query.status, RESOLVER_OK);
	assert_int_equal(q.query.n, 1);
	assert_address(&q, 0, "192.0.2.7");
	assert_true(lookup("2001:db8::7", &q));
	assert_address(&q, 0, "2001:db8::7");
	assert_int_equal(atomic_load(&asked), 0);
	assert_int_equal(resolver_cached(r), 0);
}

static void refuses_what_is_no_name(void **state)
{
	static const char *const bad[] = { "", "a b", "a/b", "a:80", "[::1]", "\xc3\xa9.example", "a\nb" };
	char longest[RESOLVER_MAX_NAME + 2];
	struct question q = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_true(lookup(bad[i], &q));
		assert_int_equal(q.query.status, RESOLVER_NOT_FOUND);
		assert_int_equal(q.query.n, 0);
	}
	memset(longest, 'a', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	assert_true(lookup(longest, &q));
	assert_int_equal(q.query.status, RESOLVER_NOT_FOUND);
	assert_int_equal(atomic_load(&asked), 0);
}

/* Also where there is no hosts file; the servers never hear of it. */
static void knows_localhost(void **state)
{
	static const char *const names[] = { "localhost", "LocalHost.", "a.localhost", "a.b.localhost." };
	struct question q;

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		assert_false(look_up(names[i], &q));
		assert_int_equal(q.query.status, RESOLVER_OK);
		assert_int_equal(q.query.n, 2);
		assert_address(&q, 0, "127.0.0.1");
		assert_address(&q, 1, "::1");
	}
	assert_true(look_up("notlocalhost", &q));
	assert_true(atomic_load(&asked) > 0);
}

/* The first name of /etc/hosts that is not localhost; false when there is none. */
static bool find_host(char name[64], char address[64])
{
	FILE *hosts = fopen("/etc/hosts", "re");
	char line[256];
	bool found = false;

	while (hosts && !found && fgets(line, sizeof line, hosts))
		found = sscanf(line, "%63[0-9.] %63[a-zA-Z0-9.-]", address, name) == 2 && !strstr(name, "localhost");
	if (hosts)
		fclose(hosts);
	return found;
}

static void knows_the_hosts_file(void **state)
{
	struct question q;
	char name[64], address[64];

	(void)state;
	if (!find_host(name, address))
		skip();
	look_up(name, &q);
	assert_int_equal(q.query.status, RESOLVER_OK);
	assert_address(&q, 0, address);
	assert_int_equal(atomic_load(&asked), 0);
}

static void keeps_answers_for_their_time(void **state)
{
	struct question q;

	(void)state;
	assert_true(look_up("pair.example", &q));
	assert_int_equal(q.query.status, RESOLVER_OK);
	assert_int_equal(q.query.n, 3);
	assert_address(&q, 0, "10.0.0.1");
	assert_address(&q, 1, "10.0.0.2");
	assert_address(&q, 2, "2001:db8::1");
	assert_int_equal(q.query.ttl_s, TTL_S);
	assert_false(q.query.is_stale);
	advance_s(TTL_S - 1);
	assert_false(look_up("PAIR.example", &q));
	assert_int_equal(q.query.n, 3);
	assert_int_equal(q.query.ttl_s, 1);
	assert_int_equal(atomic_load(&asked), 1);
	assert_int_equal(resolver_cached(r), 1);
	advance_s(1);
	assert_true(look_up("pair.example", &q));
	assert_int_equal(atomic_load(&asked), 2);
}

static void bounds_life_and_number(void **state)
{
	struct question q;

	(void)state;
	assert_true(look_up("ttl0.example", &q));
	assert_int_equal(q.query.ttl_s, 1);
	assert_false(look_up("ttl0.example", &q));
	assert_true(look_up("many.example", &q));
	assert_int_equal(q.query.n, RESOLVER_MAX_ADDRESSES);
}

static void asks_once_for_many(void **state)
{
	struct question q[5] = { 0 };

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_false(lookup("pair.example", &q[i]));
	for (int i = 0; i < 5; i++) {
		wait_for(&q[i], 1);
		assert_int_equal(q[i].query.n, 3);
	}
	assert_int_equal(atomic_load(&asked), 1);
}

static void remembers_absence_for_a_second(void **state)
{
	struct question q;

	(void)state;
	assert_true(look_up("gone.example.", &q));
	assert_int_equal(q.query.status, RESOLVER_NOT_FOUND);
	assert_int_equal(q.query.n, 0);
	assert_false(look_up("gone.example.", &q));
	assert_int_equal(q.query.status, RESOLVER_NOT_FOUND);
	advance_s(1);
	assert_true(look_up("gone.example.", &q));
	assert_true(look_up("empty.example.", &q));
	assert_int_equal(q.query.status, RESOLVER_NOT_FOUND);
}

static void serves_stale_answers_while_servers_fail(void **state)
{
	struct question q;

	(void)state;
	assert_true(look_up("pair.example", &q));
	atomic_store(&is_broken, true);
	advance_s(TTL_S);
	assert_true(look_up("pair.example", &q));     /* finds out */
	assert_int_equal(q.query.status, RESOLVER_OK);
	assert_true(q.query.is_stale);
	assert_int_equal(q.query.n, 3);
	assert_int_equal(q.query.ttl_s, 1);
	advance_s(2);
	assert_false(look_up("pair.example", &q));    /* asks, but does not wait */
	assert_true(q.query.is_stale);
	atomic_store(&is_broken, false);
	for (int i = 0; i < 5000 && q.query.is_stale; i++) {
		loop_run_once(loop, 20);        /* returns at once: a timer is always due */
		poll(NULL, 0, 1);               /* the server's thread has its turn */
		advance_s(2);
		assert_false(look_up("pair.example", &q) && q.query.status != RESOLVER_OK);
	}
	assert_false(q.query.is_stale);               /* back by itself */
}

static void gives_stale_answers_up_after_an_hour(void **state)
{
	struct question q;

	(void)state;
	assert_true(look_up("pair.example", &q));
	atomic_store(&is_broken, true);
	advance_s(TTL_S + 3600);
	assert_true(look_up("pair.example", &q));
	assert_int_equal(q.query.status, RESOLVER_FAILED);
	assert_int_equal(q.query.n, 0);
	assert_false(look_up("pair.example", &q));
	assert_int_equal(q.query.status, RESOLVER_FAILED);
}

static void fails_when_nobody_answers(void **state)
{
	struct resolver *usual = r;
	struct question q;

	(void)state;
	clock_set_real();
	clock_update();
	r = resolver_new(loop, server_text, 30);
	assert_true(look_up("silent.example.", &q));
	assert_int_equal(q.query.status, RESOLVER_FAILED);
	resolver_free(r);
	r = usual;
}

static void forgets_cancelled_queries(void **state)
{
	struct question gone = { 0 }, stays = { 0 }, idle = { 0 };

	(void)state;
	resolver_cancel(&idle.query);
	assert_false(lookup("pair.example", &gone));
	assert_false(lookup("pair.example", &stays));
	resolver_cancel(&gone.query);
	wait_for(&stays, 1);
	assert_int_equal(gone.answers, 0);
	resolver_cancel(&stays.query);
}

static void may_ask_again_from_done(void **state)
{
	struct question q = { .again = r };

	(void)state;
	assert_false(lookup("many.example", &q));
	wait_for(&q, 2);
	assert_false(q.again_at_once);
	assert_int_equal(q.query.n, 3);
}

static void drops_questions_when_it_is_freed(void **state)
{
	struct question q = { 0 };

	(void)state;
	assert_false(lookup("silent.example", &q));
	resolver_free(r);
	loop_run_once(loop, 0);
	assert_int_equal(q.answers, 0);
	assert_false(q.query.is_waiting);
	r = resolver_new(loop, server_text, 0);
}

static void holds_a_bounded_number_of_names(void **state)
{
	struct question q;
	char name[32];

	(void)state;
	atomic_store(&is_broken, true);       /* quick and without addresses */
	for (int i = 0; i < 4200; i++) {
		snprintf(name, sizeof name, "n%d.localhost", i);
		look_up(name, &q);
	}
	assert_true(resolver_cached(r) <= 4096);
}

static void refuses_servers_it_cannot_read(void **state)
{
	(void)state;
	assert_null(resolver_new(loop, "not an address", 0));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(answers_literals_at_once),
		TEST(refuses_what_is_no_name),
		TEST(knows_localhost),
		TEST(knows_the_hosts_file),
		TEST(keeps_answers_for_their_time),
		TEST(bounds_life_and_number),
		TEST(asks_once_for_many),
		TEST(remembers_absence_for_a_second),
		TEST(serves_stale_answers_while_servers_fail),
		TEST(gives_stale_answers_up_after_an_hour),
		TEST(fails_when_nobody_answers),
		TEST(forgets_cancelled_queries),
		TEST(may_ask_again_from_done),
		TEST(drops_questions_when_it_is_freed),
		TEST(holds_a_bounded_number_of_names),
		TEST(refuses_servers_it_cannot_read),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
