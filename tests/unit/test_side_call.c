/* room: proxy */
/*
 * Calls of the gateway itself: where they may go, what they ask, how they end. The services are sockets of the test,
 * the worker is one of the test too, time stands still until it is moved.
 */
#include "core/metric.h"
#include "http/client.h"
#include "proxy/dependency.h"
#include "proxy/exchange.h"
#include "proxy/side_address.h"
#include "proxy/side_call.h"
#include "proxy/side_parts.h"
#include "proxy/worker.h"
#include "http_peer.h"

const struct policy_class *const policy_classes[] = { NULL };

/* ---------- the worker ---------- */

struct worker {
	struct client *client;
	struct resolver *resolver;
	struct side_calls *side_calls;
	struct view view;
	uint64_t random;
};
static struct worker worker;
static struct worker_settings settings;

struct loop *worker_loop(struct worker *w)
{
	(void)w;
	return loop;
}

struct client *worker_client(struct worker *w)
{
	return w->client;
}

struct resolver *worker_resolver(struct worker *w)
{
	return w->resolver;
}

struct side_calls *worker_side_calls(struct worker *w)
{
	return w->side_calls;
}

struct view *worker_view(struct worker *w)
{
	return &w->view;
}

struct mailbox *worker_mailbox(struct worker *w)
{
	(void)w;
	return NULL;
}

const struct worker_settings *worker_settings(const struct worker *w)
{
	(void)w;
	return &settings;
}

unsigned worker_index(const struct worker *w)
{
	(void)w;
	return 0;
}

struct overload *worker_overload(struct worker *w)
{
	(void)w;
	return NULL;
}

void worker_at_end(struct worker *w, struct worker_end *e, void (*run)(struct worker_end *e))
{
	(void)w;
	(void)e;
	(void)run;
}

uint64_t worker_random64(struct worker *w)
{
	return w->random++;
}

uint32_t worker_random(struct worker *w)
{
	return (uint32_t)w->random++;
}


static struct addr service, other;
static int listener, other_listener;
static unsigned n_done;
static struct side_call *call;            /* the one that `done` was told of last */

static int start(void **state)
{
	(void)state;
	start_loop();
	settings = (struct worker_settings){ .connect_timeout_ms = 10000 };
	worker.client = client_new(loop, 16384);
	worker.resolver = resolver_new(loop, "127.0.0.1:1", 0);
	worker.side_calls = side_calls_new(&worker);
	listener = listen_any(&service);
	other_listener = listen_any(&other);
	side_address_set_admin(&(struct addr){ .length = 0 });
	n_done = 0;
	return 0;
}

static int stop(void **state)
{
	(void)state;
	close(listener);
	close(other_listener);
	side_calls_free(worker.side_calls);
	client_free(worker.client);
	resolver_free(worker.resolver);
	turns(2);
	loop_free(loop);
	clock_set_real();
	arena_drop_cache();
	return worker.view.exchanges == 0 ? 0 : -1;
}

/* ---------- helpers ---------- */

static void note(struct side_call *c)
{
	call = c;
	n_done++;
}

static const char *url_of(const struct addr *at, const char *rest)
{
	static char text[4][128];
	static unsigned turn;
	char *out = text[turn++ % 4];

	snprintf(out, sizeof text[0], "http://127.0.0.1:%u%s", addr_port(at), rest);
	return out;
}

static struct side_request get(const char *rest)
{
	return (struct side_request){
		.kind = SIDE_KEYS, .url = str_of(url_of(&service, rest)), .timeout_ms = 5000, .body_max = 1000,
	};
}

static struct side_call *ask(const struct side_request *r)
{
	struct side_call *c = side_call_new(&worker, note, NULL);

	n_done = 0;
	side_call_start(c, r);
	assert_int_equal(n_done, 0);
	return c;
}

static int take_from(int from)
{
	int fd = -1;

	for (int i = 0; i < PATIENCE && fd < 0; i++) {
		fd = accept4(from, NULL, NULL, SOCK_NONBLOCK);
		loop_run_once(loop, 1);
	}
	assert_true(fd >= 0);
	talk_at_once(fd);
	return fd;
}

static void wait_done_calls(unsigned n)
{
	for (int i = 0; i < PATIENCE && n_done < n; i++)
		loop_run_once(loop, 1);
	assert_int_equal(n_done, n);
}

static bool nobody_comes(int from)
{
	turns(5);
	return accept4(from, NULL, NULL, SOCK_NONBLOCK) < 0;
}

/* Asks, answers, and returns the connection; the call is over. */
static int answered(const struct side_request *r, const char *text)
{
	int fd;

	ask(r);
	fd = take_from(listener);
	hear(fd, "\r\n\r\n");
	say(fd, text);
	wait_done_calls(1);
	return fd;
}

/* ---------- addresses ---------- */

static void addresses_that_may_be_called(void **state)
{
	static const struct {
		const char *ip;
		bool may;
	} cases[] = {
		{ "127.0.0.1", true }, { "127.8.9.10", true }, { "10.0.0.1", true }, { "172.16.5.4", true },
		{ "192.168.1.1", true }, { "8.8.8.8", true }, { "::1", true }, { "fd12::1", true },
		{ "2001:db8::1", true },
		{ "100.64.0.1", true },
		{ "169.254.169.254", false }, { "169.254.0.1", false }, { "fe80::1", false }, { "febf::1", false },
		{ "fec0::1", true }, { "100.100.100.200", false }, { "192.0.0.192", false },
		{ "168.63.129.16", false },
		{ "fd00:ec2::254", false }, { "fd20:ce::254", false }, { "0.0.0.0", false }, { "0.1.2.3", false },
		{ "::", false }, { "224.0.0.1", false }, { "255.255.255.255", false }, { "ff02::1", false },
		{ "::ffff:169.254.169.254", false }, { "64:ff9b::169.254.169.254", false },
		{ "64:ff9b::8.8.8.8", true },
		{ "2002:a9fe:a9fe::1", false }, { "2002:0808:0808::1", true }, { "::ffff:127.0.0.1", true },
	};
	struct ip ip;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_true(ip_parse(str_of(cases[i].ip), &ip));
		if (side_address_is_blocked(&ip) == cases[i].may)
			fail_msg("%s", cases[i].ip);
	}
}

static bool may_call(const char *text)
{
	struct addr at;

	assert_true(addr_parse(str_of(text), &at));
	return side_address_may_call(&at);
}

static void our_admin_listener_may_not_be_called(void **state)
{
	struct addr admin;

	(void)state;
	assert_true(may_call("127.0.0.1:9070"));
	assert_true(addr_parse(STR("127.0.0.1:9070"), &admin));
	side_address_set_admin(&admin);
	assert_false(may_call("127.0.0.1:9070"));
	assert_false(may_call("[::ffff:127.0.0.1]:9070"));
	assert_false(may_call("[64:ff9b::127.0.0.1]:9070"));
	assert_true(may_call("127.0.0.1:9071"));
	assert_true(may_call("127.0.0.2:9070"));
	/* Bound to all addresses: every one of this host is it. */
	assert_true(addr_parse(STR("0.0.0.0:9070"), &admin));
	side_address_set_admin(&admin);
	assert_false(may_call("127.0.0.2:9070"));
	assert_false(may_call("[::1]:9070"));
	assert_true(may_call("8.8.8.8:9070"));
}

static void a_blocked_address_is_not_connected_to(void **state)
{
	static const char *const urls[] = {
		"http://169.254.169.254/x", "http://[fe80::1]/", "http://[::ffff:169.254.1.1]/", "http://0.0.0.0/",
		"ftp://127.0.0.1/", "http://user@127.0.0.1/", "http:///x", "127.0.0.1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
		struct side_request r = get("/");

		r.url = str_of(urls[i]);
		ask(&r);
		wait_done_calls(1);
		assert_int_equal(call->failure, SIDE_BLOCKED);
		side_call_free(call);
	}
	side_address_set_admin(&service);
	struct side_request r = get("/");
	ask(&r);
	wait_done_calls(1);
	assert_int_equal(call->failure, SIDE_BLOCKED);
	assert_true(nobody_comes(listener));
	side_call_free(call);
}

/* ---------- what is asked ---------- */

static void the_request_is_framed_by_us(void **state)
{
	const struct header lines[] = {
		{ .name = STR("X-Mine"), .value = STR("1") }, { .name = STR("Content-Length"), .value = STR("99") },
		{ .name = STR("Transfer-Encoding"), .value = STR("chunked") },
		{ .name = STR("Connection"), .value = STR("x") },
		{ .name = STR("Host"), .value = STR("evil") }, { .name = STR("TE"), .value = STR("trailers") },
		{ .name = STR("X-Bad"), .value = STR("a\r\nX-Smuggled: 1") },
		{ .name = STR("X-Gone"), .value = STR("1"), .dropped = true },
	};
	struct side_request r = get("/path?query=1");
	char host[64];

	(void)state;
	r.method = STR("POST");
	r.body = STR("hello");
	r.headers = lines;
	r.n_headers = sizeof lines / sizeof lines[0];
	ask(&r);
	int fd = take_from(listener);
	const char *seen = hear(fd, "hello");
	snprintf(host, sizeof host, "Host: 127.0.0.1:%u\r\n", addr_port(&service));
	assert_non_null(strstr(seen, "POST /path?query=1 HTTP/1.1\r\n"));
	assert_non_null(strstr(seen, host));
	assert_non_null(strstr(seen, "X-Mine: 1\r\n"));
	assert_non_null(strstr(seen, "Content-Length: 5\r\n"));
	assert_int_equal(count(seen, "Content-Length"), 1);
	assert_null(strstr(seen, "chunked"));
	assert_null(strstr(seen, "evil"));
	assert_null(strstr(seen, "Connection"));
	assert_null(strstr(seen, "\r\nX-Smuggled"));
	assert_null(strstr(seen, "X-Gone"));
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	wait_done_calls(1);
	assert_true(side_call_succeeded(call));
	assert_true(str_equal(call->body, STR("hi")));
	side_call_free(call);
	close(fd);
}

/* ---------- bounds ---------- */

static void answers_have_bounds(void **state)
{
	static const struct {
		const char *answer;
		enum side_failure failure;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n12345678", SIDE_ANSWERED },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", SIDE_LARGE },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n5\r\n56789\r\n", SIDE_LARGE },
		{ "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", SIDE_ANSWERED },
		{ "SSH-2.0-garbage\r\n\r\n", SIDE_MALFORMED },
		{ "HTTP/1.1 204 No\r\n\r\n", SIDE_ANSWERED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct side_request r = get("/");

		r.body_max = 8;
		int fd = answered(&r, cases[i].answer);
		if (call->failure != cases[i].failure)
			fail_msg("%s: %s", cases[i].answer, side_failure_tag(call->failure));
		side_call_free(call);
		if (cases[i].failure != SIDE_ANSWERED)
			assert_true(is_closed(fd));
		pool_close(worker.client, &side_pool_get(worker.side_calls, SIDE_KEYS, &service)->pool);
		close(fd);
	}
}

static void a_call_ends_when_its_time_is_over(void **state)
{
	struct side_request r = get("/");

	(void)state;
	ask(&r);
	int fd = take_from(listener);
	hear(fd, "\r\n\r\n");
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
	for (int i = 0; i < 9; i++) {
		say(fd, "x");              /* never silent for long */
		pass_ms(500);
		assert_int_equal(n_done, 0);
	}
	pass_ms(600);
	wait_done_calls(1);
	assert_int_equal(call->failure, SIDE_TIMEOUT);
	assert_true(is_closed(fd));
	side_call_free(call);
	close(fd);
}

static void a_service_that_is_away_or_leaves(void **state)
{
	struct side_request r = get("/");

	(void)state;
	close(listener);
	ask(&r);
	wait_done_calls(1);
	assert_int_equal(call->failure, SIDE_CONNECT);
	assert_int_equal(call->error, ECONNREFUSED);
	side_call_free(call);
	listener = listen_any(&service);
	r = get("/");
	ask(&r);
	int fd = take_from(listener);
	hear(fd, "\r\n\r\n");
	close(fd);
	wait_done_calls(1);
	assert_int_equal(call->failure, SIDE_RESET);
	assert_true(nobody_comes(listener));    /* nothing is repeated on a fresh connection */
	side_call_free(call);
}

static bool is_refusal(const struct message *res)
{
	return res->status >= 300;
}

static void an_unwanted_body_is_not_waited_for(void **state)
{
	struct side_request r = get("/");

	(void)state;
	r.wants_body = is_refusal;
	int fd = answered(&r, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
	assert_true(side_call_succeeded(call));
	assert_int_equal(call->body.n, 0);
	say(fd, "67890");
	side_call_free(call);
	/* The connection is whole again. */
	ask(&r);
	hear(fd, "\r\n\r\n");
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
	wait_done_calls(1);
	side_call_free(call);              /* within the body: it is closed */
	assert_true(is_closed(fd));
	close(fd);
}

static void a_call_that_is_freed_leaves_nothing(void **state)
{
	struct side_request r = get("/");

	(void)state;
	struct side_call *c = ask(&r);
	int fd = take_from(listener);
	hear(fd, "\r\n\r\n");
	side_call_free(c);
	assert_true(is_closed(fd));
	pass_ms(10000);
	assert_int_equal(n_done, 0);
	close(fd);
}

/* ---------- connections ---------- */

static void connections_are_kept_by_kind(void **state)
{
	struct side_request r = get("/");
	int fd = answered(&r, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");

	(void)state;
	side_call_free(call);
	ask(&r);
	hear(fd, "\r\n\r\n");              /* on the same connection */
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	wait_done_calls(1);
	side_call_free(call);
	r.kind = SIDE_GUARD;
	ask(&r);
	int apart = take_from(listener);
	assert_true(is_silent(fd));
	hear(apart, "\r\n\r\n");
	say(apart, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	wait_done_calls(1);
	side_call_free(call);
	close(fd);
	close(apart);
}

/* A pooled connection that is closed as the request comes: again on a fresh one, but not where that could do harm. */
static void a_stale_connection_is_made_up_for(void **state)
{
	static const struct {
		const char *method;
		bool may_repeat, is_repeated;
	} cases[] = { { "GET", false, true }, { "POST", false, false }, { "POST", true, true } };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct side_request r = get("/");
		int fd = answered(&r, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");

		side_call_free(call);
		r.method = str_of(cases[i].method);
		r.may_repeat = cases[i].may_repeat;
		ask(&r);
		hear(fd, "\r\n\r\n");
		close(fd);
		if (cases[i].is_repeated) {
			fd = take_from(listener);
			hear(fd, "\r\n\r\n");
			say(fd, "HTTP/1.1 201 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
		}
		wait_done_calls(1);
		assert_int_equal(call->failure, cases[i].is_repeated ? SIDE_ANSWERED : SIDE_RESET);
		side_call_free(call);
		if (cases[i].is_repeated)
			close(fd);
		assert_true(nobody_comes(listener));
	}
}

static void calls_at_a_time_are_limited(void **state)
{
	enum { MOST = 1024 };
	static struct side_call *calls[MOST];
	struct side_request r = get("/");

	(void)state;
	/* Nobody accepts them: they wait. */
	for (unsigned i = 0; i < MOST; i++)
		calls[i] = ask(&r);
	assert_int_equal(n_done, 0);
	ask(&r);
	wait_done_calls(1);
	assert_int_equal(call->failure, SIDE_BUSY);
	side_call_free(call);
	for (unsigned i = 0; i < MOST; i++)
		side_call_free(calls[i]);
	r.kind = SIDE_GUARD;               /* another kind was never concerned */
	side_call_free(ask(&r));
}

/* ---------- redirects ---------- */

/* Answers the call on `fd` with a redirect. */
static void send_to(int fd, int status, const char *location)
{
	char text[512];

	snprintf(text, sizeof text, "HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 3\r\n\r\nbye", status,
		 location);
	say(fd, text);
}

static void redirects_are_answers_unless_allowed(void **state)
{
	struct side_request r = get("/");
	int fd = answered(&r, "HTTP/1.1 302 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");

	(void)state;
	assert_int_equal(call->failure, SIDE_ANSWERED);
	assert_int_equal(call->res.status, 302);
	side_call_free(call);
	close(fd);
}

static void redirects_are_followed_so_often(void **state)
{
	struct side_request r = get("/dir/file?x=1");
	static const struct {
		const char *location, *target;
	} cases[] = {
		{ "/root?y=2", "GET /root?y=2 HTTP" }, { "next", "GET /next HTTP" }, { "?z=3", "GET /next?z=3 HTTP" },
	};

	(void)state;
	r.redirects_max = 3;
	ask(&r);
	int fd = take_from(listener);
	hear(fd, "GET /dir/file?x=1 HTTP");
	hear(fd, "");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		send_to(fd, 302, cases[i].location);
		hear(fd, cases[i].target);
	}
	send_to(fd, 302, "/once/more");
	wait_done_calls(1);
	assert_int_equal(call->failure, SIDE_REDIRECT);
	side_call_free(call);
	close(fd);
}

static void redirects_do_not_lead_astray(void **state)
{
	static const struct {
		const char *location;
		enum side_failure failure;
	} cases[] = {
		{ "http://169.254.169.254/latest", SIDE_BLOCKED }, { "http://[fe80::1]/", SIDE_BLOCKED },
		{ "//169.254.169.254/", SIDE_BLOCKED }, { "https://127.0.0.1/", SIDE_REDIRECT },
		{ "ftp://127.0.0.1/", SIDE_REDIRECT }, { "http://u@127.0.0.1/", SIDE_REDIRECT },
		{ "/with space", SIDE_REDIRECT }, { "http://", SIDE_REDIRECT },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct side_request r = get("/");

		r.redirects_max = 3;
		ask(&r);
		int fd = take_from(listener);
		hear(fd, "\r\n\r\n");
		send_to(fd, 302, cases[i].location);
		wait_done_calls(1);
		if (call->failure != cases[i].failure)
			fail_msg("%s: %s", cases[i].location, side_failure_tag(call->failure));
		side_call_free(call);
		pool_close(worker.client, &side_pool_get(worker.side_calls, SIDE_KEYS, &service)->pool);
		close(fd);
	}
	/* Nor to the admin listener. */
	struct side_request r = get("/");
	side_address_set_admin(&other);
	r.redirects_max = 3;
	ask(&r);
	int fd = take_from(listener);
	hear(fd, "\r\n\r\n");
	send_to(fd, 302, url_of(&other, "/api"));
	wait_done_calls(1);
	assert_int_equal(call->failure, SIDE_BLOCKED);
	assert_true(nobody_comes(other_listener));
	side_call_free(call);
	close(fd);
}

static void secrets_stay_with_their_host(void **state)
{
	const struct header lines[] = {
		{ .name = STR("Authorization"), .value = STR("Bearer secret") },
		{ .name = STR("Cookie"), .value = STR("a=secret") },
		{ .name = STR("X-Other"), .value = STR("goes along") },
	};
	struct side_request r = get("/");

	(void)state;
	r.headers = lines;
	r.n_headers = 3;
	r.redirects_max = 3;
	ask(&r);
	int fd = take_from(listener);
	hear(fd, "\r\n\r\n");
	send_to(fd, 302, "/same");
	assert_non_null(strstr(hear(fd, "\r\n\r\n"), "Bearer secret"));
	send_to(fd, 302, url_of(&other, "/x"));
	int there = take_from(other_listener);
	const char *seen = hear(there, "\r\n\r\n");
	assert_null(strstr(seen, "secret"));
	assert_non_null(strstr(seen, "goes along"));
	say(there, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	wait_done_calls(1);
	assert_true(side_call_succeeded(call));
	side_call_free(call);
	close(fd);
	close(there);
}

static void methods_follow_the_status(void **state)
{
	static const struct {
		int status;
		const char *line;
		bool has_body;
	} cases[] = {
		{ 301, "GET /x", false }, { 302, "GET /x", false }, { 303, "GET /x", false }, { 307, "POST /x", true },
		{ 308, "POST /x", true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct side_request r = get("/");

		r.method = STR("POST");
		r.body = STR("payload");
		r.redirects_max = 1;
		ask(&r);
		int fd = take_from(listener);
		hear(fd, "payload");
		send_to(fd, cases[i].status, "/x");
		const char *seen = hear(fd, cases[i].has_body ? "payload" : "\r\n\r\n");
		assert_non_null(strstr(seen, cases[i].line));
		assert_int_equal(strstr(seen, "payload") != NULL, cases[i].has_body);
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
		wait_done_calls(1);
		assert_true(side_call_succeeded(call));
		side_call_free(call);
		close(fd);
	}
}

/* ---------- one fetch for many ---------- */

static void all_that_wait_are_woken_by_one_fetch(void **state)
{
	enum { WAITING = 20 };
	static struct waitlist_entry entries[WAITING];
	struct waitlist list = { 0 };

	(void)state;
	assert_true(waitlist_is_empty(&list));
	waitlist_wake(&list);
	for (unsigned i = 0; i < WAITING; i++)
		waitlist_join(&list, &entries[i], &worker, i == 3 ? 100 : 0);
	/* One whose client leaves, one that waits no longer. */
	entries[7].wait.cancel(&entries[7].wait);
	pass_ms(200);
	assert_true(entries[3].wait.done && entries[3].is_late);
	for (unsigned i = 0; i < WAITING; i++)
		assert_int_equal(entries[i].wait.done, i == 3);
	waitlist_wake(&list);
	for (unsigned i = 0; i < WAITING; i++) {
		assert_int_equal(entries[i].wait.done, i != 7);
		assert_int_equal(entries[i].is_late, i == 3);
	}
	assert_true(waitlist_is_empty(&list));
	/* The next fetch begins anew. */
	waitlist_join(&list, &entries[0], &worker, 0);
	assert_false(entries[0].wait.done);
	assert_false(waitlist_is_empty(&list));
	waitlist_wake(&list);
	assert_true(entries[0].wait.done);
}

/* ---------- dependencies ---------- */

static void dependencies_say_what_is_wrong(void **state)
{
	struct dependency d = { 0 };
	struct dependency_state seen = dependency_read(&d);
	char longer[DEPENDENCY_ERROR_MAX + 50];

	(void)state;
	assert_false(seen.is_down);
	assert_null(seen.reason);
	dependency_up(&d);
	assert_int_equal(dependency_read(&d).since_ms, 0);
	dependency_down(&d, "it does not answer", STR("refused\r\nby it"));
	seen = dependency_read(&d);
	assert_true(seen.is_down);
	assert_string_equal(seen.reason, "it does not answer");
	assert_string_equal(seen.error, "refused  by it");
	int64_t since = seen.since_ms;
	assert_true(since > 0);
	pass_ms(1000);
	memset(longer, 'x', sizeof longer);
	dependency_down(&d, "another reason", (struct str){ longer, sizeof longer });
	seen = dependency_read(&d);
	assert_string_equal(seen.reason, "another reason");
	assert_int_equal(strlen(seen.error), DEPENDENCY_ERROR_MAX);
	assert_int_equal(seen.since_ms, since);    /* still the same outage */
	dependency_up(&d);
	seen = dependency_read(&d);
	assert_false(seen.is_down);
	assert_true(seen.since_ms > since);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(addresses_that_may_be_called), TEST(our_admin_listener_may_not_be_called),
		TEST(a_blocked_address_is_not_connected_to), TEST(the_request_is_framed_by_us),
		TEST(answers_have_bounds),
		TEST(a_call_ends_when_its_time_is_over), TEST(a_service_that_is_away_or_leaves),
		TEST(an_unwanted_body_is_not_waited_for), TEST(a_call_that_is_freed_leaves_nothing),
		TEST(connections_are_kept_by_kind), TEST(a_stale_connection_is_made_up_for),
		TEST(calls_at_a_time_are_limited),
		TEST(redirects_are_answers_unless_allowed), TEST(redirects_are_followed_so_often),
		TEST(redirects_do_not_lead_astray), TEST(secrets_stay_with_their_host), TEST(methods_follow_the_status),
		TEST(all_that_wait_are_woken_by_one_fetch), TEST(dependencies_say_what_is_wrong),
	};

	metric_start(1);
	metric_thread(0);
	side_call_metrics();
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	metric_stop();
	return failed;
}
