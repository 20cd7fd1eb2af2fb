/* room: http */
/* How long clients may take for what: heads, bodies, reading answers, nothing. The test moves the time. */
#include "http_owner.h"

static void gives_a_head_ten_seconds_in_all(void **state)
{
	int fd = dial();

	(void)state;
	for (const char *p = "GET"; *p; p++) {
		say_bytes(fd, p, 1);
		pass_ms(3000);
	}
	assert_true(is_silent(fd));
	say(fd, " /");
	pass_ms(1500);
	assert_non_null(strstr(hear(fd, "\r\n\r\n"), "HTTP/1.1 408"));
	assert_int_equal(last_refused, 408);
	assert_int_equal(n_opened, 0);
	close(fd);
}

static void is_not_kept_awake_by_an_empty_line(void **state)
{
	int fd = dial();

	(void)state;
	pass_ms(9000);
	say(fd, "\r\n");
	pass_ms(500);
	assert_true(is_silent(fd));
	pass_ms(1000);
	assert_true(is_closed(fd));
	close(fd);
}

static void closes_idle_connections(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(fd, "/a");
	pass_ms(40000);
	say(fd, "\r\n");                   /* some clients end a body with one more */
	pass_ms(19000);
	assert_true(is_silent(fd));
	pass_ms(2000);
	assert_true(is_closed(fd));
	close(fd);
}

static void closes_new_connections_that_say_nothing(void **state)
{
	int fd = dial();

	(void)state;
	pass_ms(9500);
	assert_true(is_silent(fd));
	pass_ms(1000);
	assert_true(is_closed(fd));
	close(fd);
}

static void ends_a_body_that_stops(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n");
	pass_ms(29000);
	assert_true(is_silent(fd));
	pass_ms(31000);
	assert_non_null(strstr(hear(fd, "\r\n\r\n"), "HTTP/1.1 408"));
	assert_int_equal(n_closed, 1);
	close(fd);
}

static void ends_a_body_below_the_rate(void **state)
{
	int slow = dial(), good = dial();
	char piece[2600];

	(void)state;
	memset(piece, 'x', sizeof piece);
	say(slow, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n");
	say(good, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 3900\r\n\r\n");
	for (int i = 0; i < 6; i++) {
		pass_ms(5000);
		if (!is_closed(slow))
			say_bytes(slow, piece, 100);
		if (i < 3)
			say_bytes(good, piece, 1300);
	}
	pass_ms(30000);
	assert_non_null(strstr(hear(slow, "\r\n\r\n"), "HTTP/1.1 408"));
	hear(good, "/sink");
	close(slow);
	close(good);
}

static void does_not_blame_the_client_for_our_pause(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
	stream_pause(&last->stream);
	say(fd, "def");
	pass_ms(200000);
	assert_int_equal(last->body_n, 3);
	stream_resume(&last->stream);
	turns(3);
	assert_int_equal(last->body_n, 6);
	pass_ms(29000);
	assert_true(is_silent(fd));
	say(fd, "ghij");
	hear(fd, "abcdefghij");
	close(fd);
}

/* Sends until the kernel takes no more. */
static void fill(struct request *r)
{
	static char piece[65536];

	while (stream_send(&r->stream, NULL, (struct str){ piece, sizeof piece }, false))
		;
}

static void cuts_off_who_does_not_read(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
	begin_answer(last, FRAMING_CHUNKED, 0);
	fill(last);
	for (int i = 0; i < 5; i++) {
		pass_ms(5500);
		say(fd, "190\r\n");            /* an upload that goes on is no excuse */
		for (int j = 0; j < 4; j++)
			say(fd, "0123456789012345678901234567890123456789012345678901234567890123456789"
				"012345678901234567890123456789");
		say(fd, "\r\n");
	}
	assert_int_equal(n_closed, 0);
	pass_ms(4000);
	assert_int_equal(n_closed, 1);
	assert_int_equal(last_end, STREAM_CLIENT_GONE);
	close(fd);
}

static void gives_up_draining_a_body_that_stops(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\nabc");
	answer(last, 413, STR("large"));
	hear(fd, "large");
	pass_ms(1000);
	say(fd, "x");
	pass_ms(1500);
	assert_true(is_closed(fd));
	close(fd);
}

static void lingers_for_two_seconds_only(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET / HTTP/1.1\nHost: a\n\n");
	assert_non_null(strstr(hear(fd, NULL), "HTTP/1.1 400"));
	for (int i = 0; i < 5 && server_connections(server); i++) {
		send(fd, "x", 1, MSG_NOSIGNAL);
		pass_ms(500);
	}
	assert_int_equal(server_connections(server), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(gives_a_head_ten_seconds_in_all), CASE(is_not_kept_awake_by_an_empty_line),
		CASE(closes_idle_connections), CASE(closes_new_connections_that_say_nothing),
		CASE(ends_a_body_that_stops), CASE(ends_a_body_below_the_rate),
		CASE(does_not_blame_the_client_for_our_pause), CASE(cuts_off_who_does_not_read),
		CASE(gives_up_draining_a_body_that_stops), CASE(lingers_for_two_seconds_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
