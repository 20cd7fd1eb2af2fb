/* room: http */
/* Calls to upstreams: the upstream is a socket of the test, time stands still until the test moves it. */
#include <sys/resource.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include "http/client_connection.h"
#include "http_peer.h"

struct test_call {
	struct call call;
	struct arena arena;
	char body[1 << 16];
	size_t body_n;
	unsigned n_responses, n_ends, n_drained, n_failed;
	enum call_failure failure;
	bool cancels;                     /* call_cancel() in response() */
	bool ends_early;                  /* the last byte of the request is sent at the first interim answer ... */
	bool is_full;                     /* ... when the kernel has no room for it */
	struct test_call *following;      /* is started when this one ends */
};

static struct client *client;
static struct pool pool;
static struct addr upstream;
static int listener;
static bool is_retired;

static void ask(struct test_call *t, const char *path);

static void take_body(struct call *c, char *data, size_t n, bool end)
{
	struct test_call *t = (struct test_call *)c;

	assert_false(c->paused && n > 0 && t->n_responses > 1);
	assert_int_equal(t->n_ends + t->n_failed, 0);
	assert_true(t->body_n + n <= sizeof t->body);
	if (n > 0)
		memcpy(t->body + t->body_n, data, n);
	t->body_n += n;
	t->n_ends += end;
	if (end)
		assert_null(c->connection);
	if (end && t->following)
		ask(t->following, "/following");
}

static void take_response(struct call *c, char *data, size_t n, bool end)
{
	struct test_call *t = (struct test_call *)c;

	t->n_responses++;
	if (t->cancels) {
		call_cancel(c);
		return;
	}
	take_body(c, data, n, end);
}

static void count_drained(struct call *c)
{
	((struct test_call *)c)->n_drained++;
}

static void note_failure(struct call *c, enum call_failure what)
{
	struct test_call *t = (struct test_call *)c;

	assert_null(c->connection);
	assert_int_equal(t->n_ends + t->n_failed, 0);
	t->n_failed++;
	t->failure = what;
}

static void end_request(struct call *c)
{
	static const char junk[512];
	struct test_call *t = (struct test_call *)c;

	while (t->is_full && send(c->connection->watch.fd, junk, sizeof junk, MSG_NOSIGNAL) > 0)
		continue;
	if (t->ends_early)
		call_send(c, NULL, STR("!"), true);
}

static const struct call_ops ops = {
	.response = take_response, .interim = end_request, .body = take_body, .drained = count_drained,
	.failed = note_failure,
};

static int start(void **state)
{
	(void)state;
	start_loop();
	client = client_new(loop, 16384);
	pool = (struct pool){ 0 };
	is_retired = false;
	listener = listen_any(&upstream);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	if (listener >= 0)
		close(listener);
	client_free(client);
	turns(2);
	loop_free(loop);
	clock_set_real();
	arena_drop_cache();
	return pool.n == 0 ? 0 : -1;
}

static struct test_call *new_call(void)
{
	struct test_call *t = MEM_NEW(struct test_call);

	t->call = (struct call){
		.client = client, .ops = &ops, .arena = &t->arena, .pool = &pool, .pool_closed = &is_retired,
		.addr = upstream, .method = METHOD_GET, .connect_timeout_ms = 10000, .idle_timeout_ms = 300000,
	};
	return t;
}

static void free_call(struct test_call *t)
{
	call_cancel(&t->call);
	arena_free(&t->arena);
	mem_free(t);
}

static struct message head_of(struct test_call *t, const char *method, const char *path)
{
	return (struct message){
		.arena = &t->arena, .method = t->call.method, .method_name = str_of(method), .path = str_of(path),
		.authority = STR("up"), .minor = 1, .keep_alive = true,
	};
}

static void ask(struct test_call *t, const char *path)
{
	struct message m = head_of(t, t->call.method == METHOD_HEAD ? "HEAD" : "GET", path);

	call_start(&t->call, false);
	call_send(&t->call, &m, (struct str){ 0 }, true);
}

static struct test_call *upload(enum framing framing, uint64_t length)
{
	struct test_call *t = new_call();
	struct message m;

	t->call.method = METHOD_POST;
	m = head_of(t, "POST", "/upload");
	m.framing = framing;
	m.content_length = length;
	call_start(&t->call, false);
	call_send(&t->call, &m, (struct str){ 0 }, false);
	return t;
}

static int take_connection(void)
{
	int fd = -1;

	for (int i = 0; i < PATIENCE && fd < 0; i++) {
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		loop_run_once(loop, 1);
	}
	assert_true(fd >= 0);
	talk_at_once(fd);
	return fd;
}

/* A request that was answered: its connection is in the pool. Returns the upstream's end. */
static int fill_pool(void)
{
	struct test_call *t = new_call();

	ask(t, "/first");
	int fd = take_connection();
	hear(fd, "\r\n\r\n");
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	assert_int_equal(t->n_ends, 1);
	assert_int_equal(pool.n, 1);
	free_call(t);
	return fd;
}

static void reads_answers_split_anywhere(void **state)
{
	static const char text[] = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
				   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
				   "3\r\nabc\r\n4\r\ndefg\r\n0\r\nT: v\r\n\r\n";
	int fd = fill_pool();

	(void)state;
	for (size_t at = 0; at < sizeof text; at++) {
		struct test_call *t = new_call();

		ask(t, "/");
		assert_true(t->call.reused);
		hear(fd, "\r\n\r\n");
		say_bytes(fd, text, at);
		turns(1);
		say_bytes(fd, text + at, sizeof text - 1 - at);
		turns(2);
		assert_int_equal(t->n_responses, 1);
		assert_int_equal(t->n_ends, 1);
		assert_int_equal(t->call.res.status, 200);
		assert_int_equal(t->body_n, 7);
		assert_memory_equal(t->body, "abcdefg", 7);
		free_call(t);
	}
	close(fd);
	turns(2);
}

static void hands_the_connection_on_within_the_end(void **state)
{
	struct test_call *t = new_call(), *next = new_call();

	(void)state;
	t->following = next;
	ask(t, "/first");
	int fd = take_connection();
	hear(fd, "\r\n\r\n");
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	assert_true(next->call.reused);
	hear(fd, "/following");
	assert_int_equal(next->n_failed, 0);
	say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
	assert_int_equal(next->n_ends, 1);
	free_call(t);
	free_call(next);
	close(fd);
	turns(2);
}

static void reads_no_body_where_none_belongs(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
	};
	int fd = fill_pool();

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct test_call *t = new_call();

		t->call.method = i == 0 ? METHOD_HEAD : METHOD_GET;
		ask(t, "/");
		hear(fd, "\r\n\r\n");
		say(fd, answers[i]);
		assert_int_equal(t->n_ends, 1);
		assert_int_equal(pool.n, 1);
		free_call(t);
	}
	close(fd);
	turns(2);
}

static void drops_idle_connections_that_speak_or_close(void **state)
{
	int fd = fill_pool();

	(void)state;
	say(fd, "HTTP/1.1 408 Request Timeout\r\n\r\n");
	assert_int_equal(pool.n, 0);
	close(fd);
	fd = fill_pool();
	close(fd);
	turns(3);
	assert_int_equal(pool.n, 0);
}

static void drops_connections_with_more_than_the_answer(void **state)
{
	struct test_call *t = new_call();

	(void)state;
	ask(t, "/");
	int fd = take_connection();
	hear(fd, "\r\n\r\n");
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n");
	assert_int_equal(t->n_ends, 1);
	assert_int_equal(t->body_n, 2);
	assert_int_equal(pool.n, 0);
	free_call(t);
	close(fd);
}

static struct test_call *started;

static void start_now(struct watch *w, uint32_t events)
{
	(void)w;
	(void)events;
	if (started->n_responses + started->n_failed == 0 && !started->call.connection)
		ask(started, "/started");
}

/* The request is made in the very turn in which the event of the pooled connection is still to be delivered. */
static void race(const char *idle_bytes)
{
	struct watch w = { .fd = eventfd(0, EFD_NONBLOCK), .ready = start_now };
	uint64_t one = 1;
	int fd = fill_pool();

	started = new_call();
	assert_true(loop_add(loop, &w, EPOLLIN | EPOLLET));
	turns(1);
	assert_int_equal(write(w.fd, &one, sizeof one), sizeof one);
	if (idle_bytes)
		assert_true(send(fd, idle_bytes, strlen(idle_bytes), 0) > 0);
	else
		close(fd);
	turns(1);
	assert_true(started->call.reused);
	turns(4);
	assert_int_equal(started->n_responses, 0);
	assert_int_equal(started->n_failed, 1);
	assert_int_equal(started->failure, CALL_RESET);
	assert_false(started->call.response_started);
	free_call(started);
	loop_remove(loop, &w);
	close(w.fd);
	if (idle_bytes)
		close(fd);
}

static void takes_nothing_for_an_answer_that_came_before_the_question(void **state)
{
	(void)state;
	race("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
	race(NULL);
}

/* What becomes of an answer after which the upstream closes (or resets). */
static struct test_call *read_answer(const char *text, bool resets)
{
	struct test_call *t = new_call();

	ask(t, "/");
	int fd = take_connection();
	hear(fd, "\r\n\r\n");
	say(fd, text);
	if (resets)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	close(fd);
	turns(4);
	assert_int_equal(t->n_ends + t->n_failed, 1);
	assert_int_equal(pool.n, 0);
	return t;
}

static void check_failure(const char *text, bool resets, enum call_failure expected)
{
	struct test_call *t = read_answer(text, resets);

	assert_int_equal(t->n_failed, 1);
	assert_int_equal(t->failure, expected);
	free_call(t);
}

static void says_how_answers_fail(void **state)
{
	(void)state;
	check_failure("", false, CALL_RESET);
	check_failure("", true, CALL_RESET);
	check_failure("HTTP/1.1 200 OK\r\nContent-", false, CALL_RESET);
	check_failure("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", false, CALL_TRUNCATED);
	check_failure("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false, CALL_TRUNCATED);
	check_failure("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd", false, CALL_TRUNCATED);
	check_failure("HTTP/1.0 200 OK\r\n\r\npart", true, CALL_TRUNCATED);
	check_failure("garbage\r\n\r\n", false, CALL_MALFORMED);
	check_failure("HTTP/1.1 101 Switching Protocols\r\n\r\n", false, CALL_MALFORMED);
	check_failure("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", false, CALL_MALFORMED);
	struct test_call *t = read_answer("HTTP/1.0 200 OK\r\n\r\nwhole", false);
	assert_int_equal(t->n_ends, 1);
	assert_memory_equal(t->body, "whole", 5);
	free_call(t);
}

static void bounds_interim_heads(void **state)
{
	static char text[700 * 25];
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 16; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "HTTP/1.1 100 \r\n\r\n");
	snprintf(text + n, sizeof text - n, "HTTP/1.1 200 OK\r\n\r\nx");
	struct test_call *t = read_answer(text, false);
	assert_int_equal(t->n_ends, 1);
	free_call(t);
	for (n = 0; n + 24 < sizeof text;)
		n += (size_t)snprintf(text + n, sizeof text - n, "HTTP/1.1 100 \r\n\r\n");
	check_failure(text, false, CALL_MALFORMED);
}

static void reports_refused_connects(void **state)
{
	struct test_call *t = new_call();

	(void)state;
	close(listener);
	listener = -1;
	ask(t, "/");
	assert_int_equal(t->n_failed, 0);  /* never from inside */
	turns(4);
	assert_int_equal(t->n_failed, 1);
	assert_int_equal(t->failure, CALL_CONNECT);
	assert_int_equal(t->call.error, ECONNREFUSED);
	free_call(t);
}

static void reports_connects_that_take_too_long(void **state)
{
	int full = socket(AF_INET, SOCK_STREAM, 0), fill[8];
	struct addr at;
	struct test_call *t = new_call();

	(void)state;
	assert_true(addr_parse(STR("127.0.0.1:0"), &at));
	assert_int_equal(bind(full, &at.storage.any, at.length), 0);
	assert_int_equal(listen(full, 0), 0);
	t->call.addr = addr_of_socket(full);
	for (int i = 0; i < 8; i++) {      /* a full backlog drops what asks */
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fill[i], &t->call.addr.storage.any, t->call.addr.length);
	}
	ask(t, "/");
	pass_ms(9000);
	assert_int_equal(t->n_failed, 0);
	pass_ms(1500);
	assert_int_equal(t->n_failed, 1);
	assert_int_equal(t->failure, CALL_CONNECT);
	assert_int_equal(t->call.error, ETIMEDOUT);
	for (int i = 0; i < 8; i++)
		close(fill[i]);
	close(full);
	free_call(t);
}

static void times_out_in_silence(void **state)
{
	struct test_call *t = new_call();

	(void)state;
	ask(t, "/");
	int fd = take_connection();
	pass_ms(299000);
	assert_int_equal(t->n_failed, 0);
	pass_ms(2000);
	assert_int_equal(t->failure, CALL_TIMEOUT);
	free_call(t);
	close(fd);
	t = new_call();
	ask(t, "/");
	fd = take_connection();
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab");
	pass_ms(299000);
	say(fd, "c");
	pass_ms(299000);
	assert_int_equal(t->n_failed, 0);
	pass_ms(2000);
	assert_int_equal(t->failure, CALL_TRUNCATED);
	free_call(t);
	close(fd);
}

static void does_not_time_out_an_upload_that_goes_on(void **state)
{
	struct test_call *t = upload(FRAMING_LENGTH, 30);
	int fd = take_connection();

	(void)state;
	for (int i = 0; i < 3; i++) {
		pass_ms(250000);
		assert_true(call_send(&t->call, NULL, STR("0123456789"), i == 2));
	}
	pass_ms(250000);
	assert_int_equal(t->n_failed, 0);
	assert_non_null(strstr(hear(fd, "012345678901234567890123456789"), "Content-Length: 30\r\n"));
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	assert_int_equal(t->n_ends, 1);
	free_call(t);
	close(fd);
	turns(2);
}

static void pauses_and_resumes(void **state)
{
	struct test_call *t = new_call();

	(void)state;
	ask(t, "/");
	int fd = take_connection();
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab");
	call_pause(&t->call);
	say(fd, "cd");
	pass_ms(400000);                   /* a pause of ours is no silence of theirs */
	assert_int_equal(t->body_n, 2);
	call_resume(&t->call);
	call_pause(&t->call);
	turns(3);
	assert_int_equal(t->body_n, 2);
	say(fd, "ef");
	close(fd);
	turns(3);
	assert_int_equal(t->n_failed, 0);
	call_resume(&t->call);
	turns(3);
	assert_int_equal(t->n_ends, 1);
	assert_memory_equal(t->body, "abcdef", 6);
	free_call(t);
}

static void backs_up_and_drains(void **state)
{
	static char piece[65536];
	struct test_call *t = upload(FRAMING_CHUNKED, 0);
	size_t sent = 0, got = 0;
	int fd = take_connection();

	(void)state;
	turns(3);
	assert_int_equal(t->n_drained, 1); /* the connection is there */
	while (call_send(&t->call, NULL, (struct str){ piece, sizeof piece }, false))
		sent += sizeof piece;
	assert_true(sent > 0);
	turns(3);
	assert_int_equal(t->n_drained, 1);
	for (int i = 0; i < PATIENCE && t->n_drained == 1; i++) {
		ssize_t n = recv(fd, heard, sizeof heard, 0);

		got += n > 0 ? (size_t)n : 0;
		loop_run_once(loop, 1);
	}
	assert_int_equal(t->n_drained, 2);
	assert_true(got > 0);
	free_call(t);
	close(fd);
}

static void takes_an_answer_before_the_upload_ends(void **state)
{
	struct test_call *t = upload(FRAMING_LENGTH, 1000000);
	int fd = take_connection();

	(void)state;
	hear(fd, "\r\n\r\n");
	say(fd, "HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno");
	assert_int_equal(t->n_ends, 1);
	assert_int_equal(pool.n, 0);       /* half a request was sent on it */
	assert_true(call_send(&t->call, NULL, STR("more"), false));
	free_call(t);
	close(fd);
	/* The same, and the connection is reset: what lies in the receive buffer counts. */
	t = upload(FRAMING_LENGTH, 1000000);
	fd = take_connection();
	turns(2);
	call_send(&t->call, NULL, STR("unread"), false);
	assert_int_equal(send(fd, "HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno", 43, 0), 43);
	close(fd);
	for (int i = 0; i < 3; i++)
		call_send(&t->call, NULL, STR("more"), false);
	turns(4);
	assert_int_equal(t->n_ends, 1);
	assert_int_equal(t->call.res.status, 413);
	free_call(t);
}

static void limits_the_pool_in_time(void **state)
{
	int fd = fill_pool();

	(void)state;
	pass_ms(50000);
	assert_int_equal(pool.n, 1);
	pass_ms(6000);
	assert_int_equal(pool.n, 0);
	assert_true(is_closed(fd));
	close(fd);
}

static void limits_the_pool_in_size(void **state)
{
	enum { N = 1032 };
	struct rlimit files;
	static struct test_call *calls[N];
	static int fds[N];

	(void)state;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 0; i < N; i++) {
		calls[i] = new_call();
		ask(calls[i], "/");
		fds[i] = take_connection();
	}
	for (int i = 0; i < N; i++) {
		assert_true(send(fds[i], "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 38, 0) > 0);
		turns(1);
	}
	turns(3);
	assert_int_equal(pool.n, 1024);
	pool_close(client, &pool);
	assert_int_equal(pool.n, 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(calls[i]->n_ends, 1);
		free_call(calls[i]);
		close(fds[i]);
	}
}

static void pools_nothing_for_retired_endpoints(void **state)
{
	struct test_call *t = new_call();

	(void)state;
	ask(t, "/");
	int fd = take_connection();
	is_retired = true;
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	assert_int_equal(t->n_ends, 1);
	assert_int_equal(pool.n, 0);
	free_call(t);
	close(fd);
}

static void cancels_at_any_time(void **state)
{
	struct test_call *t = new_call();

	(void)state;
	ask(t, "/");                       /* connecting */
	free_call(t);
	turns(3);
	close(take_connection());
	t = new_call();
	ask(t, "/");
	int fd = take_connection();
	say(fd, "HTTP/1.1 200 OK\r\nConte");
	free_call(t);
	turns(3);
	close(fd);
	t = new_call();
	t->cancels = true;
	ask(t, "/");
	fd = take_connection();
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab");
	say(fd, "cde");
	assert_int_equal(t->n_responses, 1);
	assert_int_equal(t->n_ends + t->n_failed, 0);
	assert_int_equal(pool.n, 0);
	free_call(t);
	close(fd);
}

/* The next call would wait for an edge that has gone, or send behind what it does not know of. */
static void keeps_no_connection_with_bytes_waiting(void **state)
{
	(void)state;
	for (int is_full = 0; is_full < 2; is_full++) {
		struct test_call *t = upload(FRAMING_LENGTH, 1);
		int fd = take_connection();

		hear(fd, "\r\n\r\n");
		t->ends_early = true;
		t->is_full = is_full;
		say(fd, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
		assert_int_equal(t->n_ends, 1);
		assert_int_equal(pool.n, !is_full);
		pool_close(client, &pool);
		free_call(t);
		close(fd);
	}
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(reads_answers_split_anywhere),
		CASE(hands_the_connection_on_within_the_end),
		CASE(reads_no_body_where_none_belongs),
		CASE(drops_idle_connections_that_speak_or_close),
		CASE(drops_connections_with_more_than_the_answer),
		CASE(takes_nothing_for_an_answer_that_came_before_the_question),
		CASE(says_how_answers_fail),
		CASE(bounds_interim_heads), CASE(keeps_no_connection_with_bytes_waiting),
		CASE(reports_refused_connects),
		CASE(reports_connects_that_take_too_long),
		CASE(times_out_in_silence),
		CASE(does_not_time_out_an_upload_that_goes_on),
		CASE(pauses_and_resumes),
		CASE(backs_up_and_drains),
		CASE(takes_an_answer_before_the_upload_ends),
		CASE(limits_the_pool_in_time),
		CASE(limits_the_pool_in_size),
		CASE(pools_nothing_for_retired_endpoints),
		CASE(cancels_at_any_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
