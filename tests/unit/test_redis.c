/* room: net */
/* Commands to Redis: the server is a socket of the test, time stands still until the test moves it. */
#include "net/redis.h"
#include "net/resolver.h"
#include "http_peer.h"

struct asked {
	struct redis_command command;
	unsigned n_done;
	enum redis_failure failure;
	char text[256];
	struct asked *following;          /* is sent in done() */
	bool frees;                       /* redis_free() in done() */
};

static struct resolver *resolver;
static struct redis *redis;
static struct addr at;
static int listener;
static unsigned n_connects;

static void ask(struct asked *a, const char *words);

static void note(struct redis_command *c)
{
	struct asked *a = CONTAINER(c, struct asked, command);

	a->n_done++;
	a->failure = c->failure;
	if (c->reply)
		snprintf(a->text, sizeof a->text, "%.*s", STR_FMT(c->reply->text));
	if (a->following)
		ask(a->following, "GET following");
	if (a->frees) {
		redis_free(redis);
		redis = NULL;
	}
}

static unsigned split(const char *words, struct str argv[8])
{
	struct str rest = str_of(words), word;
	unsigned n = 0;

	while (n < 8 && str_split(&rest, ' ', &word))
		argv[n++] = word;
	return n;
}

static void ask(struct asked *a, const char *words)
{
	struct str argv[8];
	unsigned n = split(words, argv);
	struct asked *following = a->following;
	bool frees = a->frees;

	*a = (struct asked){ .command.done = note, .following = following, .frees = frees };
	redis_send(redis, &a->command, &(struct redis_words){ n, argv, n > 1 ? 1 : -1 }, 1000);
	assert_int_equal(a->n_done, 0);
}

static void begin(struct redis_options o)
{
	o.host = STR("127.0.0.1");
	o.port = addr_port(&at);
	o.connect_timeout_ms = 2000;
	redis = redis_new(loop, resolver, &o);
}

static int start(void **state)
{
	(void)state;
	start_loop();
	resolver = resolver_new(loop, "127.0.0.1:9", 0);
	listener = listen_any(&at);
	n_connects = 0;
	return 0;
}

static int end(void **state)
{
	(void)state;
	if (redis)
		redis_free(redis);
	redis = NULL;
	turns(2);
	if (listener >= 0)
		close(listener);
	resolver_free(resolver);
	turns(2);
	loop_free(loop);
	clock_set_real();
	return 0;
}

static int take_connection(void)
{
	for (int i = 0; i < PATIENCE; i++) {
		struct addr peer;
		int fd = addr_accept(listener, &peer);

		if (fd >= 0) {
			n_connects++;
			talk_at_once(fd);
			return fd;
		}
		loop_run_once(loop, 1);
	}
	assert_true(false);
	return -1;
}

#define HELLO "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
#define HELLO_REPLY "%1\r\n$5\r\nproto\r\n:3\r\n"
#define GET(key) "*2\r\n$3\r\nGET\r\n$1\r\n" key "\r\n"

/* A connection that was greeted. */
static int meet(void)
{
	int fd = take_connection();

	assert_string_equal(hear(fd, HELLO), HELLO);
	say(fd, HELLO_REPLY);
	return fd;
}

static void wait_done_of(const struct asked *a)
{
	for (int i = 0; i < PATIENCE && a->n_done == 0; i++)
		loop_run_once(loop, 1);
	assert_int_equal(a->n_done, 1);
}

static void test_pipelines_in_order(void **state)
{
	struct asked a[3] = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a[0], "GET a");
	ask(&a[1], "GET b");
	int fd = meet();
	ask(&a[2], "GET c");
	assert_string_equal(hear(fd, GET("c")), GET("a") GET("b") GET("c"));
	say(fd, "$1\r\n1\r\n$1\r\n");
	wait_done_of(&a[0]);
	assert_int_equal(a[1].n_done, 0);
	say(fd, "2\r\n-ERR three\r\n");
	wait_done_of(&a[2]);
	assert_string_equal(a[0].text, "1");
	assert_string_equal(a[1].text, "2");
	assert_string_equal(a[2].text, "ERR three");
	assert_true(redis_is_idle(redis));
	close(fd);
}

static void test_authenticates_and_selects(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ .username = STR("gw"), .password = STR("se cret"), .database = 3 });
	ask(&a, "GET a");
	int fd = take_connection();

	assert_string_equal(hear(fd, "se cret\r\n"),
			    "*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$2\r\ngw\r\n$7\r\nse cret\r\n");
	say(fd, HELLO_REPLY);
	assert_string_equal(hear(fd, "3\r\n"), "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
	say(fd, "+OK\r\n");
	assert_string_equal(hear(fd, GET("a")), GET("a"));
	say(fd, "+x\r\n");
	wait_done_of(&a);
	close(fd);
}

static void test_speaks_resp2_to_old_servers(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ .password = STR("secret") });
	ask(&a, "GET a");
	int fd = take_connection();

	hear(fd, "secret\r\n");
	say(fd, "-ERR unknown command `HELLO`, with args beginning with: `3`\r\n");
	assert_string_equal(hear(fd, "secret\r\n"), "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n");
	say(fd, "+OK\r\n");
	hear(fd, GET("a"));
	say(fd, "$-1\r\n");
	wait_done_of(&a);
	assert_int_equal(a.failure, REDIS_DONE);
	close(fd);
}

static void test_a_server_that_closes_at_hello_is_asked_without(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	int fd = take_connection();

	hear(fd, HELLO);
	close(fd);
	wait_done_of(&a);
	assert_int_equal(a.failure, REDIS_CONNECT);
	pass_ms(REDIS_BACKOFF_MS + 1);
	ask(&a, "GET a");
	fd = take_connection();
	assert_string_equal(hear(fd, GET("a")), GET("a"));
	say(fd, "+x\r\n");
	wait_done_of(&a);
	assert_int_equal(a.failure, REDIS_DONE);
	close(fd);
}

static void test_a_refused_password_fails_all_and_says_no_secret(void **state)
{
	struct asked a[2] = { 0 };

	(void)state;
	begin((struct redis_options){ .password = STR("SECRET") });
	ask(&a[0], "GET a");
	int fd = take_connection();

	hear(fd, "SECRET");
	say(fd, "-SECRET is what you said\r\n");
	wait_done_of(&a[0]);
	assert_int_equal(a[0].failure, REDIS_AUTH);
	assert_null(strstr(redis_trouble(redis), "SECRET"));
	assert_non_null(strstr(redis_trouble(redis), "refuses HELLO"));
	/* Not again at once. */
	ask(&a[1], "GET a");
	wait_done_of(&a[1]);
	assert_int_equal(a[1].failure, REDIS_AUTH);
	assert_true(is_closed(fd));
	close(fd);
}

static void test_backs_off_and_comes_back(void **state)
{
	struct asked a = { 0 };
	int64_t pauses[] = { 50, 100, 200, 400, 800, 1000, 1000 };

	(void)state;
	close(listener);
	listener = -1;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	wait_done_of(&a);
	for (unsigned i = 0; i < sizeof pauses / sizeof *pauses; i++) {
		assert_int_equal(a.failure, REDIS_CONNECT);
		pass_ms(pauses[i] - 2);
		ask(&a, "GET a");
		wait_done_of(&a);
		assert_int_equal(a.failure, REDIS_CONNECT);
		pass_ms(3);
		ask(&a, "GET a");
		wait_done_of(&a);
	}
	assert_non_null(strstr(redis_trouble(redis), "127.0.0.1:"));
}

static void test_a_late_reply_is_no_others(void **state)
{
	struct asked a = { 0 }, b = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	int fd = meet();

	hear(fd, GET("a"));
	pass_ms(1100);
	assert_int_equal(a.n_done, 1);
	assert_int_equal(a.failure, REDIS_TIMEOUT);
	assert_false(redis_is_idle(redis));
	ask(&b, "GET b");
	hear(fd, GET("b"));
	say(fd, "+of a\r\n+of b\r\n");
	wait_done_of(&b);
	assert_string_equal(b.text, "of b");
	assert_int_equal(a.n_done, 1);
	close(fd);
}

static void test_a_server_that_went_silent_is_left(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	int fd = meet();

	hear(fd, GET("a"));
	pass_ms(4000);
	assert_true(is_closed(fd));
	close(fd);
	ask(&a, "GET a");
	fd = meet();
	assert_int_equal(n_connects, 2);
	/* The second one is still under way. */
	redis_free(redis);
	redis = NULL;
	close(fd);
}

static void test_a_greeting_that_does_not_come_ends_in_time(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	int fd = take_connection();

	hear(fd, HELLO);
	pass_ms(1001);
	assert_int_equal(a.failure, REDIS_TIMEOUT);
	pass_ms(1001);
	assert_true(is_closed(fd));
	assert_true(redis_is_idle(redis));
	close(fd);
}

static void test_garbage_loses_the_connection(void **state)
{
	struct asked a = { 0 }, b = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	ask(&b, "GET b");
	int fd = meet();

	hear(fd, GET("b"));
	say(fd, "+fine\r\nHTTP/1.1 400 Bad Request\r\n");
	wait_done_of(&b);
	assert_string_equal(a.text, "fine");
	assert_int_equal(b.failure, REDIS_MALFORMED);
	assert_true(is_closed(fd));
	close(fd);
	/* What answers no command is no reply either; a push is none. */
	ask(&a, "GET a");
	fd = meet();
	hear(fd, GET("a"));
	say(fd, ">2\r\n+invalidate\r\n_\r\n+fine\r\n");
	wait_done_of(&a);
	assert_string_equal(a.text, "fine");
	say(fd, ">1\r\n+x\r\n");
	assert_true(is_silent(fd));
	say(fd, "+unasked\r\n");
	assert_true(is_closed(fd));
	close(fd);
}

static void test_a_broken_connection_fails_what_was_sent_and_is_made_anew(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	int fd = meet();

	hear(fd, GET("a"));
	close(fd);
	wait_done_of(&a);
	assert_int_equal(a.failure, REDIS_CLOSED);
	ask(&a, "GET a");
	fd = meet();
	hear(fd, GET("a"));
	say(fd, "+x\r\n");
	wait_done_of(&a);
	assert_int_equal(a.failure, REDIS_DONE);
	close(fd);
}

static void test_too_many_are_refused_at_once(void **state)
{
	static struct asked all[REDIS_PENDING_MAX + 1];

	(void)state;
	begin((struct redis_options){ 0 });
	for (unsigned i = 0; i <= REDIS_PENDING_MAX; i++)
		ask(&all[i], "GET a");
	wait_done_of(&all[REDIS_PENDING_MAX]);
	assert_int_equal(all[REDIS_PENDING_MAX].failure, REDIS_BUSY);
	assert_int_equal(all[REDIS_PENDING_MAX - 1].n_done, 0);
	for (unsigned i = 0; i < REDIS_PENDING_MAX; i++)
		redis_cancel(&all[i].command);
	assert_true(redis_is_idle(redis));
}

static void test_cancels_before_and_after_sending(void **state)
{
	struct asked a = { 0 }, b = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	redis_cancel(&a.command);
	redis_cancel(&a.command);
	ask(&a, "GET c");
	ask(&b, "GET b");
	int fd = meet();

	assert_string_equal(hear(fd, GET("b")), GET("c") GET("b"));
	redis_cancel(&a.command);
	say(fd, "+of c\r\n+of b\r\n");
	wait_done_of(&b);
	assert_string_equal(b.text, "of b");
	assert_int_equal(a.n_done, 0);
	close(fd);
}

static void test_done_may_ask_again_and_free_everything(void **state)
{
	struct asked a = { 0 }, b = { 0 }, c = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	a.following = &b;
	ask(&a, "GET a");
	int fd = meet();

	hear(fd, GET("a"));
	say(fd, "+x\r\n");
	wait_done_of(&a);
	hear(fd, "following");
	b.frees = true;
	ask(&c, "GET c");
	say(fd, "+x\r\n+y\r\n");
	wait_done_of(&b);
	assert_null(redis);
	assert_int_equal(c.n_done, 0);
	hear(fd, NULL);
	close(fd);
	/* The same where it is a failure that is told. */
	begin((struct redis_options){ 0 });
	a.following = NULL;
	a.frees = true;
	ask(&a, "GET a");
	ask(&c, "GET c");
	fd = meet();
	close(fd);
	wait_done_of(&a);
	assert_int_equal(c.n_done, 0);
}

static void test_an_idle_connection_ends(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ .idle_ms = 60000 });
	ask(&a, "GET a");
	int fd = meet();

	hear(fd, GET("a"));
	say(fd, "+x\r\n");
	wait_done_of(&a);
	pass_ms(50000);
	assert_true(is_silent(fd));
	pass_ms(15000);
	assert_true(is_closed(fd));
	close(fd);
}

static bool refuse_all(const struct addr *to)
{
	(void)to;
	return false;
}

static void test_addresses_are_judged(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ .may_connect = refuse_all });
	ask(&a, "GET a");
	wait_done_of(&a);
	assert_int_equal(a.failure, REDIS_CONNECT);
	assert_non_null(strstr(redis_trouble(redis), "may be called"));
}

/* ---------- cluster ---------- */

static void say_moved(int fd, const char *what, unsigned slot, const struct addr *to)
{
	char text[80];

	snprintf(text, sizeof text, "-%s %u 127.0.0.1:%u\r\n", what, slot, addr_port(to));
	say(fd, text);
}

static void test_follows_a_cluster(void **state)
{
	struct asked a = { 0 }, b = { 0 };
	struct addr second;
	int first_listener = listener, second_listener = listen_any(&second);

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	int fd = meet();

	hear(fd, GET("a"));
	say_moved(fd, "MOVED", 15495, &second);
	listener = second_listener;
	int fd2 = meet();

	/* The command, and a look at how the slots are spread. */
	assert_non_null(strstr(hear(fd2, "SLOTS\r\n"), GET("a")));
	say(fd2, "+of second\r\n*0\r\n");
	wait_done_of(&a);
	assert_string_equal(a.text, "of second");
	/* From now on at once; an ASK is for this time only. */
	ask(&b, "GET a");
	assert_string_equal(hear(fd2, GET("a")), GET("a"));
	say_moved(fd2, "ASK", 15495, &at);
	assert_string_equal(hear(fd, GET("a")), "*1\r\n$6\r\nASKING\r\n" GET("a"));
	say(fd, "+OK\r\n+of first\r\n");
	wait_done_of(&b);
	assert_string_equal(b.text, "of first");
	ask(&b, "GET a");
	hear(fd2, GET("a"));
	say(fd2, "+x\r\n");
	wait_done_of(&b);
	listener = first_listener;
	close(fd);
	close(fd2);
	close(second_listener);
}

static void test_redirects_end(void **state)
{
	struct asked a = { 0 };

	(void)state;
	begin((struct redis_options){ 0 });
	ask(&a, "GET a");
	int fd = meet();

	for (unsigned i = 0; i < 6; i++) {
		hear(fd, GET("a"));
		say_moved(fd, "MOVED", 15495, &at);
		if (i == 0) {
			hear(fd, "SLOTS\r\n");
			/* Behind the command that was sent again; both are answered in turn. */
			say_moved(fd, "MOVED", 15495, &at);
			say(fd, "-ERR no cluster\r\n");
			i++;
		}
		if (a.n_done)
			break;
	}
	wait_done_of(&a);
	assert_non_null(strstr(a.text, "MOVED"));
	/* What cannot be read is an error like others. */
	ask(&a, "GET b");
	hear(fd, GET("b"));
	say(fd, "-MOVED 99999 127.0.0.1:1\r\n");
	wait_done_of(&a);
	assert_non_null(strstr(a.text, "MOVED"));
	close(fd);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, start, end)
	const struct CMUnitTest tests[] = {
		TEST(test_pipelines_in_order),
		TEST(test_authenticates_and_selects),
		TEST(test_speaks_resp2_to_old_servers),
		TEST(test_a_server_that_closes_at_hello_is_asked_without),
		TEST(test_a_refused_password_fails_all_and_says_no_secret),
		TEST(test_backs_off_and_comes_back),
		TEST(test_a_late_reply_is_no_others),
		TEST(test_a_server_that_went_silent_is_left),
		TEST(test_a_greeting_that_does_not_come_ends_in_time),
		TEST(test_garbage_loses_the_connection),
		TEST(test_a_broken_connection_fails_what_was_sent_and_is_made_anew),
		TEST(test_too_many_are_refused_at_once),
		TEST(test_cancels_before_and_after_sending),
		TEST(test_done_may_ask_again_and_free_everything),
		TEST(test_an_idle_connection_ends),
		TEST(test_addresses_are_judged),
		TEST(test_follows_a_cluster),
		TEST(test_redirects_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
