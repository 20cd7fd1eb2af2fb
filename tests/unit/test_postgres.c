/*
 * test_postgres.c -- against servers that speak as much of PostgreSQL's protocol as a test needs, and misbehave as it
 * says: a thread for each connection. With real servers: tests/integration/test_ai_semantic_cache.py.
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
#include "core/offload.h"
#include "core/thread.h"
#include "net/addr.h"
#include "net/postgres.h"
#include "net/resolver.h"

#define PATIENCE_MS 20000
#define SECRET "s3cret-password"

enum manner {
	ANSWERS, TABLE_MISSING, VALUE_REFUSED, ASKS_PASSWORD, ROUNDS, SILENT_AT_START, SILENT_AT_QUERY, CLOSES_AT_QUERY,
	HUGE_ROW, MANY_ROWS, NO_POSTGRES, CHATTERS_AT_START, CHATTERS_WHEN_IDLE, COPIES, REFUSES_LOGIN, BAD_COUNT,
	STAYS_IN_TRANSACTION, LONG_VALUE, ECHOES_PASSWORD, ECHOES_IN_ERROR,
};

static int listener;
static uint16_t listener_port;
static pthread_t accepter;
static atomic_int manner, connections, queries, alive;
static char password_seen[64];
static struct loop *loop;
static struct resolver *resolver;
static struct postgres *db;

/* ---- the server ---- */

static bool put(int fd, const void *p, size_t n)
{
	return send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool put_message(int fd, char type, const void *body, size_t n)
{
	char head[5] = { type };
	uint32_t length = htonl((uint32_t)n + 4);

	memcpy(head + 1, &length, 4);
	return put(fd, head, 5) && (n == 0 || put(fd, body, n));
}

static bool get(int fd, void *p, size_t n)
{
	return n == 0 || recv(fd, p, n, MSG_WAITALL) == (ssize_t)n;
}

static char text[65536];

/* The type of the next message; its body in `into`. 0: the client has gone. */
static char get_message(int fd, char *into, size_t most, size_t *n)
{
	char type;
	uint32_t length;

	if (!get(fd, &type, 1) || !get(fd, &length, 4))
		return 0;
	*n = ntohl(length) - 4;
	return *n < most && get(fd, into, *n) ? type : 0;
}

static void put_parameters(int fd)
{
	put_message(fd, 'S', "server_version\0" "15.0", 20);
	put_message(fd, 'S', "client_encoding\0UTF8", 21);
	put_message(fd, 'S', "standard_conforming_strings\0on", 31);
	put_message(fd, 'Z', "I", 1);
}

static void chatter(int fd)
{
	char body[4096];

	memset(body, 'x', sizeof body);
	body[5] = body[sizeof body - 1] = '\0';
	while (put_message(fd, 'S', body, sizeof body))
		;
}

/* SCRAM up to the message that says how often a hash is to be computed. */
static void ask_for_rounds(int fd)
{
	char body[1024], nonce[512], *at;
	size_t n;
	int length;

	put_message(fd, 'R', "\0\0\0\nSCRAM-SHA-256\0", 19);
	if (get_message(fd, body, sizeof body - 1, &n) != 'p')
		return;
	body[n] = '\0';
	at = memmem(body, n, "r=", 2);
	assert_non_null(at);
	snprintf(nonce, sizeof nonce, "%.*s", (int)(body + n - at - 2), at + 2);
	memcpy(body, "\0\0\0\v", 4);
	length = snprintf(body + 4, sizeof body - 4, "r=%sMORE,s=QSXCR+Q6sek8bf92,i=2000000000", nonce);
	put_message(fd, 'R', body, 4 + (size_t)length);
	get(fd, body, 1);
}

/* False: the connection is of no use. */
static bool greet(int fd)
{
	char body[1024];
	uint32_t length;
	size_t n;

	for (;;) {
		if (!get(fd, &length, 4) || ntohl(length) > sizeof body || !get(fd, body, ntohl(length) - 4))
			return false;
		if (ntohl(length) != 8)
			break;
		put(fd, "N", 1);                  /* no TLS, no GSSAPI */
	}
	switch (atomic_load(&manner)) {
	case SILENT_AT_START:
		get(fd, body, 1);
		return false;
	case NO_POSTGRES:
		return put(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) && false;
	case CHATTERS_AT_START:
		put_message(fd, 'R', "\0\0\0\0", 4);
		chatter(fd);
		return false;
	case REFUSES_LOGIN:
		put_message(fd, 'E', "SFATAL\0C28P01\0Mpassword authentication failed for user \"u\"\0", 60);
		return false;
	case ROUNDS:
		ask_for_rounds(fd);
		return false;
	case ECHOES_PASSWORD:
		put_message(fd, 'E', "SFATAL\0C28000\0Mno, not " SECRET "\0", 40);
		return false;
	case ASKS_PASSWORD:
		put_message(fd, 'R', "\0\0\0\3", 4);
		if (get_message(fd, password_seen, sizeof password_seen, &n) != 'p')
			return false;
		break;
	}
	put_message(fd, 'R', "\0\0\0\0", 4);
	put_parameters(fd);
	if (atomic_load(&manner) == CHATTERS_WHEN_IDLE)
		chatter(fd);
	return true;
}

static void put_row(int fd, const char *value)
{
	char row[1024] = { 0, 1 };
	uint32_t n = htonl((uint32_t)strlen(value));

	memcpy(row + 2, &n, 4);
	memcpy(row + 6, value, strlen(value));
	put_message(fd, 'D', row, 6 + strlen(value));
}

static void put_columns(int fd)
{
	put_message(fd, '1', NULL, 0);
	put_message(fd, '2', NULL, 0);
	put_message(fd, 'T', "\0\1c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0", 22);
}

static void put_long_value(int fd, size_t n)
{
	char head[6] = { 0, 1 };
	uint32_t length = htonl((uint32_t)n);
	char *all = calloc(1, n + 6);

	memcpy(head + 2, &length, 4);
	memcpy(all, head, 6);
	memset(all + 6, 'v', n);
	put_message(fd, 'D', all, n + 6);
	free(all);
}

/* False: the connection is over. */
static bool answer(int fd)
{
	char body[256];

	atomic_fetch_add(&queries, 1);
	switch (atomic_load(&manner)) {
	case SILENT_AT_QUERY:
		get(fd, body, 1);
		return false;
	case CLOSES_AT_QUERY:
		return false;
	case ECHOES_IN_ERROR:
		put_message(fd, 'E', "SERROR\0C42P01\0Mno, not " SECRET "\0", 40);
		break;
	case TABLE_MISSING:
		put_message(fd, 'E', "SERROR\0C42P01\0Mrelation \"t\" does not exist\0", 44);
		break;
	case VALUE_REFUSED:
		put_message(fd, 'E', "SERROR\0C22P02\0Minvalid input: \"the question\"\0", 46);
		break;
	case HUGE_ROW:
		put_columns(fd);
		if (!put(fd, "D\4\0\0\0\0\1\3\xff\xff\xfa", 11))
			return false;
		while (put(fd, text, sizeof text))
			;
		return false;
	case MANY_ROWS:
		put_columns(fd);
		for (int i = 0; i < 1000; i++)
			put_row(fd, "v");
		break;
	case COPIES:
		put_message(fd, '1', NULL, 0);
		put_message(fd, '2', NULL, 0);
		put_message(fd, 'G', "\0\0\0", 3);
		get(fd, body, 1);
		return false;
	case BAD_COUNT:
		put_columns(fd);
		put_message(fd, 'D', "\0\1\0\0\xff\xff" "abc", 9);
		break;
	case LONG_VALUE:
		put_columns(fd);
		put_long_value(fd, 1 << 20);
		put_message(fd, 'C', "SELECT 1", 9);
		break;
	default:
		put_columns(fd);
		put_row(fd, "value");
		put_message(fd, 'C', "SELECT 1", 9);
	}
	return put_message(fd, 'Z', atomic_load(&manner) == STAYS_IN_TRANSACTION ? "T" : "I", 1);
}

static void *talk(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char type, *body = calloc(1, 1 << 20);
	size_t n;
	bool goes_on = greet(fd);

	while (goes_on && (type = get_message(fd, body, 1 << 20, &n)) && type != 'X')
		if (type == 'S')
			goes_on = answer(fd);
	free(body);
	close(fd);
	atomic_fetch_sub(&alive, 1);
	return NULL;
}

static void *accept_all(void *arg)
{
	int fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		atomic_fetch_add(&connections, 1);
		atomic_fetch_add(&alive, 1);
		pthread_detach(thread_start("server", talk, (void *)(intptr_t)fd));
	}
	return arg;
}

/* ---- the client ---- */

struct asked {
	struct postgres_query query;
	int answers;
	enum postgres_failure failure;
	char value[64], error[POSTGRES_ERROR_MAX], sqlstate[8];
	unsigned rows;
	size_t length;
	struct asked *then;               /* is sent when this one is over */
};

static void ask(struct asked *a, int64_t timeout_ms)
{
	const struct str params[] = { STR("the question"), { NULL, 0 } };
	const struct postgres_statement statement = { STR("SELECT $1::text, $2::text"), 2, params };

	postgres_send(db, &a->query, &statement, timeout_ms);
}

static void note(struct postgres_query *q)
{
	struct asked *a = q->arg;
	struct str value = postgres_value(q, 0, 0);

	a->answers++;
	a->failure = q->failure;
	a->rows = postgres_rows(q);
	a->length = value.n;
	snprintf(a->value, sizeof a->value, "%.*s", value.n < 60 ? (int)value.n : 0, value.p ? value.p : "");
	snprintf(a->error, sizeof a->error, "%.*s", STR_FMT(q->error));
	snprintf(a->sqlstate, sizeof a->sqlstate, "%s", q->sqlstate);
	assert_null(strstr(a->error, SECRET));
	assert_null(postgres_value(q, a->rows, 0).p);
	assert_null(postgres_value(q, 0, 7).p);
	if (a->then)
		ask(a->then, PATIENCE_MS);
}

static void run(struct asked *a, int64_t timeout_ms)
{
	*a = (struct asked){ .query = { .done = note, .arg = a } };
	ask(a, timeout_ms);
}

static void until(const atomic_int *what, int value)
{
	for (int64_t end = clock_now_us() + PATIENCE_MS * 1000; atomic_load(what) != value;) {
		assert_true(clock_now_us() < end);
		loop_run_once(loop, 20);
	}
}

static void until_answered(const struct asked *a, int times)
{
	for (int64_t end = clock_now_us() + PATIENCE_MS * 1000; a->answers < times;) {
		assert_true(clock_now_us() < end);
		loop_run_once(loop, 20);
	}
	assert_int_equal(a->answers, times);
}

static void until_idle(void)
{
	for (int64_t end = clock_now_us() + PATIENCE_MS * 1000; !postgres_is_idle(db);) {
		assert_true(clock_now_us() < end);
		loop_run_once(loop, 20);
	}
}

static bool none(const struct addr *to)
{
	(void)to;
	return false;
}

static void open_database(const char *host, uint16_t port, int64_t idle_ms)
{
	db = postgres_new(loop, resolver, &(struct postgres_options){
		.host = str_of(host), .port = port, .user = STR("u"), .password = STR(SECRET),
		.connect_timeout_ms = 2000, .idle_ms = idle_ms });
}

static void close_database(void)
{
	postgres_free(db);
	db = NULL;
}

static int start_server(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof at;

	(void)state;
	listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 64) != 0)
		return -1;
	getsockname(listener, (struct sockaddr *)&at, &n);
	listener_port = ntohs(at.sin_port);
	accepter = thread_start("accepter", accept_all, NULL);
	loop = loop_new();
	resolver = resolver_new(loop, "127.0.0.1:9", 0);
	return resolver ? 0 : -1;
}

static int stop_server(void **state)
{
	(void)state;
	shutdown(listener, SHUT_RDWR);
	pthread_join(accepter, NULL);
	close(listener);
	resolver_free(resolver);
	offload_settle(loop);
	loop_run_once(loop, 0);
	loop_free(loop);
	offload_stop_all();
	return 0;
}

static int start(void **state)
{
	(void)state;
	atomic_store(&manner, ANSWERS);
	atomic_store(&connections, 0);
	atomic_store(&queries, 0);
	open_database("localhost", listener_port, 0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	if (db)
		close_database();
	until(&alive, 0);
	return 0;
}

/* ---- queries ---- */

static void a_query_is_answered_over_a_kept_connection(void **state)
{
	struct asked a, b;

	(void)state;
	run(&a, PATIENCE_MS);
	assert_int_equal(a.answers, 0);           /* never inside postgres_send() */
	until_answered(&a, 1);
	assert_int_equal(a.failure, POSTGRES_DONE);
	assert_int_equal(a.rows, 1);
	assert_string_equal(a.value, "value");
	run(&b, PATIENCE_MS);
	until_answered(&b, 1);
	assert_string_equal(b.value, "value");
	assert_int_equal(atomic_load(&connections), 1);
	assert_int_equal(postgres_rows(&a.query), 0);
	postgres_cancel(&a.query);                /* over: harmless */
}

static void the_same_query_is_sent_again_when_it_is_over(void **state)
{
	struct asked a;

	(void)state;
	run(&a, PATIENCE_MS);
	a.then = &a;
	until_answered(&a, 1);
	a.then = NULL;
	until_answered(&a, 2);
	assert_string_equal(a.value, "value");
}

static void free_in_done(struct postgres_query *q)
{
	int *answers = q->arg;

	(*answers)++;
	postgres_cancel(q);
	free(q);
}

static void a_query_is_freed_in_its_done(void **state)
{
	struct postgres_query *q = calloc(1, sizeof *q);
	int answers = 0;

	(void)state;
	q->done = free_in_done;
	q->arg = &answers;
	postgres_send(db, q, &(struct postgres_statement){ .sql = STR("SELECT 1") }, PATIENCE_MS);
	while (answers == 0)
		loop_run_once(loop, 20);
}

static void many_queries_share_few_connections(void **state)
{
	static struct asked all[100];

	(void)state;
	for (int i = 0; i < 100; i++)
		run(&all[i], PATIENCE_MS);
	for (int i = 0; i < 100; i++) {
		until_answered(&all[i], 1);
		assert_int_equal(all[i].failure, POSTGRES_DONE);
	}
	assert_in_range(atomic_load(&connections), 1, POSTGRES_CONNECTIONS_MAX);
	assert_int_equal(atomic_load(&queries), 100);
}

static void the_line_is_bounded(void **state)
{
	static struct asked all[POSTGRES_PENDING_MAX + 8];
	unsigned busy = 0;

	(void)state;
	atomic_store(&manner, SILENT_AT_START);
	for (int i = 0; i < POSTGRES_PENDING_MAX + 8; i++)
		run(&all[i], 500);
	for (int i = 0; i < POSTGRES_PENDING_MAX + 8; i++) {
		until_answered(&all[i], 1);
		busy += all[i].failure == POSTGRES_BUSY;
	}
	assert_int_equal(busy, 8);
	assert_int_equal(all[0].failure, POSTGRES_TIMEOUT);
}

static void a_connection_that_nobody_needs_is_closed(void **state)
{
	struct asked a;

	(void)state;
	close_database();
	open_database("localhost", listener_port, 50);
	run(&a, PATIENCE_MS);
	until_answered(&a, 1);
	until_idle();
	until(&alive, 0);
	run(&a, PATIENCE_MS);
	until_answered(&a, 1);
	assert_int_equal(atomic_load(&connections), 2);
}

static void a_password_is_sent_when_it_is_asked_for(void **state)
{
	struct asked a;

	(void)state;
	atomic_store(&manner, ASKS_PASSWORD);
	run(&a, PATIENCE_MS);
	until_answered(&a, 1);
	assert_int_equal(a.failure, POSTGRES_DONE);
	assert_string_equal(password_seen, SECRET);
}

static void a_long_value_comes_whole(void **state)
{
	struct asked a;

	(void)state;
	atomic_store(&manner, LONG_VALUE);
	run(&a, PATIENCE_MS);
	until_answered(&a, 1);
	assert_int_equal(a.failure, POSTGRES_DONE);
	assert_int_equal(a.length, 1 << 20);
}

/* ---- errors ---- */

static void fails_with(enum manner how, enum postgres_failure failure, const char *words)
{
	struct asked a;

	atomic_store(&manner, how);
	run(&a, PATIENCE_MS);
	until_answered(&a, 1);
	assert_int_equal(a.failure, failure);
	assert_int_equal(a.rows, failure == POSTGRES_DONE);
	if (!strstr(a.error, words))
		assert_string_equal(a.error, words);
}

static void errors_of_the_server_are_told_without_values(void **state)
{
	struct asked a;

	(void)state;
	fails_with(TABLE_MISSING, POSTGRES_REFUSED, "relation \"t\" does not exist");
	atomic_store(&manner, VALUE_REFUSED);
	run(&a, PATIENCE_MS);
	until_answered(&a, 1);
	assert_int_equal(a.failure, POSTGRES_REFUSED);
	assert_string_equal(a.sqlstate, "22P02");
	assert_null(strstr(a.error, "question"));
	fails_with(ANSWERS, POSTGRES_DONE, "");
	assert_int_equal(atomic_load(&connections), 1);   /* an error costs no connection */
}

static void a_password_is_not_shown_by_whoever_says_it(void **state)
{
	(void)state;
	fails_with(ECHOES_PASSWORD, POSTGRES_CONNECT, "not fit");
	fails_with(ECHOES_IN_ERROR, POSTGRES_REFUSED, "not fit");
}

static void nobody_listens(void **state)
{
	(void)state;
	close_database();
	open_database("127.0.0.1", 1, 0);
	fails_with(ANSWERS, POSTGRES_CONNECT, "refused");
	close_database();
	open_database("nobody.invalid", listener_port, 0);
	fails_with(ANSWERS, POSTGRES_CONNECT, "did not resolve");
	assert_int_equal(atomic_load(&connections), 0);
}

static void addresses_are_judged(void **state)
{
	(void)state;
	close_database();
	db = postgres_new(loop, resolver, &(struct postgres_options){
		.host = STR("127.0.0.1"), .port = listener_port, .user = STR("u"), .password = STR(SECRET),
		.connect_timeout_ms = 2000, .may_call = none });
	fails_with(ANSWERS, POSTGRES_CONNECT, "may be called");
	assert_int_equal(atomic_load(&connections), 0);
}

static void a_login_that_is_refused_says_why(void **state)
{
	(void)state;
	fails_with(REFUSES_LOGIN, POSTGRES_CONNECT, "password authentication failed");
	fails_with(ANSWERS, POSTGRES_DONE, "");
}

static void what_waits_has_its_own_time(void **state)
{
	struct asked a, b;

	(void)state;
	atomic_store(&manner, SILENT_AT_START);
	run(&a, 100);
	run(&b, 200);
	until_answered(&a, 1);
	assert_int_equal(a.failure, POSTGRES_TIMEOUT);
	until_answered(&b, 1);
	assert_int_equal(b.failure, POSTGRES_TIMEOUT);
	fails_with(SILENT_AT_START, POSTGRES_CONNECT, "too long");        /* the limit of connecting */
	until(&alive, 0);
}

static void a_query_that_takes_too_long_costs_its_connection(void **state)
{
	struct asked a;

	(void)state;
	atomic_store(&manner, SILENT_AT_QUERY);
	run(&a, 200);
	until_answered(&a, 1);
	assert_int_equal(a.failure, POSTGRES_TIMEOUT);
	until(&alive, 0);
	fails_with(ANSWERS, POSTGRES_DONE, "");
	assert_int_equal(atomic_load(&connections), 2);
}

static void what_is_cancelled_is_forgotten(void **state)
{
	struct asked a, b, c;

	(void)state;
	atomic_store(&manner, SILENT_AT_QUERY);
	run(&a, PATIENCE_MS);
	run(&b, PATIENCE_MS);
	postgres_cancel(&b.query);                /* in line */
	postgres_cancel(&b.query);
	until(&queries, 1);
	postgres_cancel(&a.query);                /* on its way */
	until(&alive, 0);
	run(&c, PATIENCE_MS);                     /* while its connection is being made */
	loop_run_once(loop, 0);
	close_database();
	until(&alive, 0);
	assert_int_equal(a.answers + b.answers + c.answers, 0);
}

/* ---- hostile servers ---- */

static void a_hash_is_not_computed_as_often_as_a_server_likes(void **state)
{
	int64_t began_us = clock_now_us();

	(void)state;
	fails_with(ROUNDS, POSTGRES_CONNECT, "rounds");
	assert_true(clock_now_us() - began_us < 10 * INT64_C(1000000));
}

static void results_are_bounded(void **state)
{
	(void)state;
	fails_with(HUGE_ROW, POSTGRES_CLOSED, "");
	until(&alive, 0);
	fails_with(MANY_ROWS, POSTGRES_CLOSED, "");
	until(&alive, 0);
	fails_with(ANSWERS, POSTGRES_DONE, "");
}

static void talk_before_and_between_queries_is_bounded(void **state)
{
	struct asked a;

	(void)state;
	fails_with(CHATTERS_AT_START, POSTGRES_CONNECT, "too much");
	until(&alive, 0);
	atomic_store(&manner, CHATTERS_WHEN_IDLE);
	run(&a, PATIENCE_MS);                     /* it never answers, but it talks: up to the bound of a result */
	until_answered(&a, 1);
	assert_int_equal(a.failure, POSTGRES_CLOSED);
	until(&alive, 0);
}

static void nonsense_breaks_the_connection(void **state)
{
	(void)state;
	fails_with(NO_POSTGRES, POSTGRES_CONNECT, "");
	fails_with(CLOSES_AT_QUERY, POSTGRES_CLOSED, "");
	fails_with(COPIES, POSTGRES_CLOSED, "");
	fails_with(BAD_COUNT, POSTGRES_CLOSED, "");
	until(&alive, 0);
	fails_with(STAYS_IN_TRANSACTION, POSTGRES_DONE, "");
	until(&alive, 0);                         /* of no use afterwards */
	fails_with(ANSWERS, POSTGRES_DONE, "");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(a_query_is_answered_over_a_kept_connection),
		TEST(the_same_query_is_sent_again_when_it_is_over),
		TEST(a_query_is_freed_in_its_done),
		TEST(many_queries_share_few_connections),
		TEST(the_line_is_bounded),
		TEST(a_connection_that_nobody_needs_is_closed),
		TEST(a_password_is_sent_when_it_is_asked_for),
		TEST(a_long_value_comes_whole),
		TEST(errors_of_the_server_are_told_without_values),
		TEST(a_password_is_not_shown_by_whoever_says_it),
		TEST(nobody_listens),
		TEST(addresses_are_judged),
		TEST(a_login_that_is_refused_says_why),
		TEST(what_waits_has_its_own_time),
		TEST(a_query_that_takes_too_long_costs_its_connection),
		TEST(what_is_cancelled_is_forgotten),
		TEST(a_hash_is_not_computed_as_often_as_a_server_likes),
		TEST(results_are_bounded),
		TEST(talk_before_and_between_queries_is_bounded),
		TEST(nonsense_breaks_the_connection),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
