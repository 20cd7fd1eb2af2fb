/* room: http */
/* Connections of clients: what is read, answered, kept and closed, over a real listener. */
#include <sys/resource.h>
#include <time.h>
#include "http_owner.h"

static const char exchange_text[] =
	"\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	"3\r\nabc\r\n4;x=\"y\"\r\ndefg\r\n0\r\nT: v\r\n\r\n"
	"GET /two HTTP/1.1\r\nHost: a\r\n\r\n"
	"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
	"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

static void check_exchange(const char *all)
{
	const char *at = all;

	assert_int_equal(count(all, "HTTP/1.1 200"), 4);
	assert_non_null(at = strstr(at, "\r\n\r\nabcdefgHTTP/1.1 "));
	assert_non_null(at = strstr(at, "\r\n\r\n/twoHTTP/1.1 "));
	assert_non_null(at = strstr(at, "\r\n\r\nhelloHTTP/1.1 "));
	assert_non_null(at = strstr(at, "Connection: close\r\n\r\n/last"));
}

static void takes_bytes_split_anywhere(void **state)
{
	size_t n = sizeof exchange_text - 1;

	(void)state;
	for (size_t at = 0; at < n; at++) {
		int fd = dial();

		say_bytes(fd, exchange_text, at);
		turns(2);
		say_bytes(fd, exchange_text + at, n - at);
		check_exchange(hear(fd, NULL));
		close(fd);
	}
}

static void takes_single_bytes(void **state)
{
	int fd = dial();

	(void)state;
	for (const char *p = exchange_text; *p; p++)
		say_bytes(fd, p, 1);
	check_exchange(hear(fd, NULL));
	close(fd);
}

static void answers_pipelined_requests_in_order(void **state)
{
	static char text[40000];
	char expected[64];
	int fd = dial();
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 600; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
	snprintf(text + n, sizeof text - n, "GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	say(fd, text);
	const char *at = hear(fd, NULL);
	assert_int_equal(count(at, "HTTP/1.1 200"), 601);
	for (int i = 0; i < 600; i++) {
		snprintf(expected, sizeof expected, "\r\n\r\n/%dHTTP", i);
		assert_non_null(at = strstr(at, expected));
	}
	close(fd);
}

static void keeps_what_is_pipelined_behind_a_waiting_request(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTT");
	pass_ms(20000);
	assert_true(is_silent(fd));
	answer(last, 200, STR("first"));
	assert_non_null(strstr(hear(fd, "/b"), "first"));
	say(fd, "P/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/c");
	close(fd);
}

static void waits_for_the_rest_of_a_lone_cr(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "\r");
	assert_true(is_silent(fd));
	say(fd, "\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/a");
	close(fd);
}

static void resumes_with_bytes_that_came_before(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
	stream_pause(&last->stream);
	say(fd, "abcdef");
	stream_resume(&last->stream);
	stream_pause(&last->stream);
	turns(3);
	assert_int_equal(last->body_n, 0);
	stream_resume(&last->stream);
	hear(fd, "abcdef");
	close(fd);
}

static void tells_when_output_is_drained(void **state)
{
	static char piece[30000];
	enum { TOTAL = 300 * sizeof piece };
	size_t sent = 0, got = 0, waits = 0;
	int fd = dial();

	(void)state;
	say(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	begin_answer(last, FRAMING_LENGTH, TOTAL);
	hear(fd, "\r\n\r\n");
	for (bool goes_on = true; sent < TOTAL || got < TOTAL;) {
		while (goes_on && sent < TOTAL) {
			for (size_t i = 0; i < sizeof piece; i++)
				piece[i] = (char)((sent + i) % 251);
			sent += sizeof piece;
			goes_on = stream_send(&last->stream, NULL, (struct str){ piece, sizeof piece }, sent == TOTAL);
			waits += !goes_on;
		}
		unsigned before = n_drained;
		ssize_t n = recv(fd, heard, sizeof heard, 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal((unsigned char)heard[i], (got + (size_t)i) % 251);
		got += n > 0 ? (size_t)n : 0;
		loop_run_once(loop, 1);
		goes_on = goes_on || n_drained > before;
	}
	assert_true(waits > 0);
	turns(3);
	assert_int_equal(last_end, STREAM_SENT);
	say(fd, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/next");
	close(fd);
}

static void drains_without_loss(void **state)
{
	int idle = dial(), busy = dial(), late = dial(), queued;

	(void)state;
	say(idle, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(idle, "/a");
	say(busy, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	struct request *held = last;
	/* In the kernel, and no turn has seen it. */
	assert_true(send(late, "GET /late HTTP/1.1\r\nHost: a\r\n\r\n", 32, 0) > 0);
	queued = dial_to(&front);
	assert_true(send(queued, "GET /queued HTTP/1.1\r\nHost: a\r\n\r\n", 34, 0) > 0);
	server_unlisten(&listener);
	server_drain(server);
	assert_true(is_closed(idle));
	assert_non_null(strstr(hear(late, NULL), "Connection: close\r\n\r\n/late"));
	assert_non_null(strstr(hear(queued, NULL), "Connection: close\r\n\r\n/queued"));
	assert_true(is_silent(busy));
	answer(held, 200, STR("done"));
	assert_non_null(strstr(hear(busy, NULL), "Connection: close\r\n\r\ndone"));
	close(idle);
	close(busy);
	close(late);
	close(queued);
	turns(4);
	assert_int_equal(server_connections(server), 0);
}

static void aborts_visibly(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	stream_abort(&last->stream);
	stream_abort(&last->stream);
	answer(last, 200, STR("too late"));
	assert_string_equal(hear(fd, NULL), "");
	assert_int_equal(last_end, STREAM_ABORTED);
	close(fd);

	fd = dial();
	say(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	begin_answer(last, FRAMING_CHUNKED, 0);
	stream_send(&last->stream, NULL, STR("part"), false);
	stream_abort(&last->stream);
	assert_non_null(strstr(hear(fd, NULL), "4\r\npart\r\n"));
	assert_null(strstr(heard, "0\r\n\r\n"));
	close(fd);

	fd = dial();
	say(fd, "GET /hold HTTP/1.0\r\nHost: a\r\n\r\n");
	begin_answer(last, FRAMING_CHUNKED, 0);
	hear(fd, "\r\n\r\n");
	stream_abort(&last->stream);
	assert_string_equal(hear(fd, NULL), "RESET");
	close(fd);
}

static void never_ends_short_of_its_length(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	begin_answer(last, FRAMING_LENGTH, 10);
	stream_send(&last->stream, NULL, STR("short"), true);
	assert_non_null(strstr(hear(fd, NULL), "\r\n\r\n"));
	assert_int_equal(last_end, STREAM_ABORTED);
	close(fd);
}

static void notices_clients_that_leave(void **state)
{
	int half = dial(), gone = dial(), upload = dial();

	(void)state;
	say(half, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	shutdown(half, SHUT_WR);
	turns(3);
	assert_int_equal(n_closed, 1);
	say(gone, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	close(gone);
	turns(3);
	assert_int_equal(n_closed, 2);
	say(upload, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
	stream_pause(&last->stream);
	close(upload);
	turns(3);
	assert_int_equal(n_closed, 3);
	assert_int_equal(last_end, STREAM_CLIENT_GONE);
	close(half);
}

static void answers_who_closed_behind_the_request(void **state)
{
	int fd = dial_to(&front);

	(void)state;
	assert_true(send(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n", 29, 0) > 0);
	shutdown(fd, SHUT_WR);
	assert_non_null(strstr(hear(fd, NULL), "/a"));
	close(fd);
}

/*
 * Who says that a request is the last one is not waited for. Who may have more under way is: a reset would destroy the
 * answer.
 */
static void closes_at_once_where_nothing_can_follow(void **state)
{
	static const struct { const char *text; bool closes, is_left; } rows[] = {
		{ "GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, false },
		{ "GET /hold HTTP/1.0\r\n\r\n", false, false },
		{ "GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nmore", false, true },
		{ "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", true, true },
		{ "POST /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\nmore", false, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		int fd = dial();

		say(fd, rows[i].text);
		last->stream.close_after = rows[i].closes;
		answer(last, 200, STR("whole"));
		turns(1);
		assert_int_equal(server_connections(server), rows[i].is_left);
		assert_non_null(strstr(hear(fd, NULL), "whole"));
		close(fd);
		turns(3);
		assert_int_equal(server_connections(server), 0);
	}
}

static void sends_no_body_where_none_belongs(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n");
	say(fd, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/b");
	assert_non_null(strstr(heard, "Content-Length: 2\r\n\r\nHTTP/1.1 204"));
	assert_non_null(strstr(strstr(heard, "204"), "\r\n\r\nHTTP/1.1 200"));
	close(fd);
}

static void speaks_to_old_clients(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	answer(last, 200, STR("one"));
	assert_non_null(strstr(hear(fd, "one"), "Connection: keep-alive\r\n"));
	say(fd, "HEAD /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	struct message m = { .arena = &last->arena, .status = 200, .minor = 1, .framing = FRAMING_CHUNKED };
	stream_send(&last->stream, &m, (struct str){ 0 }, true);
	assert_null(strstr(hear(fd, "\r\n\r\n"), "chunked"));
	say(fd, "GET /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	begin_answer(last, FRAMING_CHUNKED, 0);
	stream_send(&last->stream, NULL, STR("two"), false);
	stream_send(&last->stream, NULL, STR("three"), true);
	hear(fd, NULL);
	assert_non_null(strstr(heard, "Connection: close\r\n\r\ntwothree"));
	assert_null(strstr(heard, "chunked"));
	close(fd);
}

static void continues_once(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	assert_true(is_silent(fd));
	stream_send_continue(&last->stream);
	stream_send_continue(&last->stream);
	assert_string_equal(hear(fd, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
	say(fd, "abc");
	hear(fd, "abc");
	/* Refused without 100: whether a body follows cannot be known, so the connection ends. */
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	answer(last, 403, STR("no"));
	assert_non_null(strstr(hear(fd, NULL), "Connection: close"));
	close(fd);
}

static void answers_before_the_body_ends(void **state)
{
	static char rest[200000];
	int fd = dial();

	(void)state;
	memset(rest, 'r', sizeof rest);
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\nabc");
	answer(last, 413, STR("large"));
	assert_null(strstr(hear(fd, "large"), "close"));
	say_bytes(fd, rest, 19997);
	say(fd, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/next");
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
	answer(last, 413, STR("large"));
	say_bytes(fd, rest, sizeof rest);
	assert_non_null(strstr(hear(fd, NULL), "Connection: close\r\n\r\nlarge"));
	close(fd);
}

static void refuses_bad_bodies(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
	assert_non_null(strstr(hear(fd, NULL), "HTTP/1.1 400"));
	close(fd);
	fd = dial();
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
	say(fd, "1\r\nab\r\n");
	assert_non_null(strstr(hear(fd, NULL), "HTTP/1.1 400"));
	assert_int_equal(n_refused, 2);
	close(fd);
	fd = dial();
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	begin_answer(last, FRAMING_CHUNKED, 0);
	say(fd, "x\r\n");
	assert_int_equal(count(hear(fd, NULL), "HTTP/1.1"), 1);
	assert_null(strstr(heard, "0\r\n\r\n"));
	close(fd);
}

static void limits_heads(void **state)
{
	static char text[40000];
	int fd = dial();

	(void)state;
	memset(text, 'x', sizeof text - 1);
	memcpy(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
	say_bytes(fd, text, 32768);
	assert_true(is_silent(fd));
	say(fd, "x");
	assert_non_null(strstr(hear(fd, NULL), "HTTP/1.1 431"));
	close(fd);
}

static void counts_what_it_turns_away(void **state)
{
	struct server_settings settings = server_default_settings;
	int fd = dial(), second;

	(void)state;
	settings.connections = 1;
	server_set_settings(server, &settings);
	second = dial();
	assert_string_equal(hear(second, NULL), "RESET");
	close(second);
	say(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/a");
	close(fd);
	turns(4);
	is_admitted = false;
	fd = dial();
	assert_string_equal(hear(fd, NULL), "RESET");
	close(fd);
}

static bool accuse(struct server_connection *c)
{
	(void)c;
	return true;
}

static void sweeps_at_the_next_idle_point(void **state)
{
	int idle = dial(), busy = dial();

	(void)state;
	say(busy, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	server_sweep(server, accuse);
	assert_true(is_closed(idle));
	assert_true(is_silent(busy));
	answer(last, 200, STR("done"));
	hear(busy, "done");
	assert_true(is_closed(busy));
	close(idle);
	close(busy);
}

/* The answer is only posted when the connection is closed, in the same turn. */
static void closes_behind_an_answer_of_the_same_turn(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
	server_sweep(server, accuse);
	say(fd, "cde");
	assert_int_equal(server_connections(server), 0);
	assert_non_null(strstr(hear(fd, NULL), "\r\n\r\n/a"));
	close(fd);
}

static void rests_without_descriptors(void **state)
{
	struct rlimit limit, low;
	struct timespec before, after;
	int fd = socket(AF_INET, SOCK_STREAM, 0), probe = dup(fd);

	(void)state;
	getrlimit(RLIMIT_NOFILE, &limit);
	low = limit;
	low.rlim_cur = (rlim_t)probe;
	close(probe);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(connect(fd, &front.storage.any, front.length), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	turns(3);
	/* With time standing still nothing can happen: the loop waits instead of trying again and again. */
	clock_gettime(CLOCK_MONOTONIC, &before);
	loop_run_once(loop, 40);
	clock_gettime(CLOCK_MONOTONIC, &after);
	setrlimit(RLIMIT_NOFILE, &limit);
	assert_true((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 >= 30);
	pass_ms(100);
	say(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/a");
	close(fd);
}

static void ends_with_requests_under_way(void **state)
{
	int fd = dial(), other = dial();

	(void)state;
	say(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	say(other, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
	close(fd);
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(takes_bytes_split_anywhere), CASE(takes_single_bytes),
		CASE(answers_pipelined_requests_in_order),
		CASE(keeps_what_is_pipelined_behind_a_waiting_request),
		CASE(waits_for_the_rest_of_a_lone_cr), CASE(resumes_with_bytes_that_came_before),
		CASE(tells_when_output_is_drained), CASE(drains_without_loss), CASE(aborts_visibly),
		CASE(never_ends_short_of_its_length), CASE(notices_clients_that_leave),
		CASE(answers_who_closed_behind_the_request), CASE(closes_at_once_where_nothing_can_follow),
		CASE(sends_no_body_where_none_belongs),
		CASE(speaks_to_old_clients), CASE(continues_once), CASE(answers_before_the_body_ends),
		CASE(refuses_bad_bodies), CASE(limits_heads), CASE(counts_what_it_turns_away),
		CASE(sweeps_at_the_next_idle_point), CASE(closes_behind_an_answer_of_the_same_turn),
		CASE(rests_without_descriptors), CASE(ends_with_requests_under_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
