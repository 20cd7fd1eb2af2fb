/* room: proxy */
/*
 * Bodies that policies look at: one worker, real sockets, and policies of the test's own that want the request body
 * whole, hold the beginning of responses, and look at their pieces.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/metric.h"
#include "net/listener.h"
#include "proxy/body.h"
#include "proxy/exchange.h"
#include "proxy/router.h"
#include "proxy/worker.h"
/* Last: it takes the name fail() for a macro. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define PATIENCE 5000                     /* looks of a millisecond each before a test gives up */

static struct worker_settings settings;
static struct mailbox box;
static struct inbox reaper;
static struct worker *worker;
static struct addr front, back;
static int upstream_fd;
static struct endpoint_cell *cell;
static struct rotation *rotation;
static struct pmap *hosts;

const struct policy_class *const policy_classes[] = { NULL };

/* ---------- the policies ---------- */

static struct {
	atomic_int entered, done;
	atomic_size_t seen;               /* bytes of a body */
	atomic_bool is_whole, go;         /* go: what waits may end */
	const char *replacement;
	size_t most;
	bool waits, cuts;
} told;

static enum verdict read_body(struct exchange *x, const struct step *s)
{
	struct str body = exchange_request_body(x);
	int *state = exchange_state(x, s);

	*state += 1;
	atomic_store(&told.seen, body.n);
	atomic_store(&told.is_whole, body.p != NULL);
	if (told.replacement)
		exchange_replace_request_body(x, str_of(told.replacement));
	atomic_fetch_add(&told.entered, 1);
	return next();
}

/* The same memory in every hook of the policy, and done once. */
static void forget(struct exchange *x, const struct step *s)
{
	const int *state = exchange_state(x, s);

	atomic_fetch_add(&told.done, *state);
}

static const struct policy_class reader = {
	.name = "Reader", .wants = WANTS_REQUEST_BODY, .state_size = sizeof(int), .request = read_body, .done = forget,
};

static enum verdict judge_response(struct exchange *x, const struct step *s)
{
	bool is_whole;

	(void)s;
	atomic_store(&told.seen, exchange_response_body(x, &is_whole).n);
	atomic_store(&told.is_whole, is_whole);
	atomic_fetch_add(&told.entered, 1);
	return told.cuts ? reply_error(x, 403, "Refused", STR("no")) : next();
}

static enum verdict hold_response(struct exchange *x, const struct step *s)
{
	(void)s;
	return await_response_body(x, told.most, judge_response);
}

/* Hooks in two legs: one policy, with one memory. */
static enum verdict note_response(struct exchange *x, const struct step *s)
{
	int *state = exchange_state(x, s);

	*state += 10;
	return next();
}

static const struct policy_class both = {
	.name = "Both", .wants = WANTS_REQUEST_BODY, .state_size = sizeof(int), .request = read_body,
	.response = note_response, .done = forget,
};

static const struct policy_class holder = { .name = "Holder", .response = hold_response };

/* A timer looks whether it may go on. */
struct pause {
	struct wait wait;
	struct timer timer;
	struct loop *loop;
};

static void look(struct timer *t)
{
	struct pause *p = CONTAINER(t, struct pause, timer);

	if (atomic_load(&told.go))
		wait_done(&p->wait);
	else
		loop_arm(p->loop, t, 1);
}

static void stop_looking(struct wait *w)
{
	timer_disarm(&CONTAINER(w, struct pause, wait)->timer);
}

static enum verdict shout(struct exchange *x, const struct step *s)
{
	bool is_last;
	struct str piece = exchange_piece(x, &is_last);
	char *loud = arena_take(&x->arena, piece.n + 1);

	(void)s;
	for (size_t i = 0; i < piece.n; i++)
		loud[i] = piece.p[i] >= 'a' && piece.p[i] <= 'z' ? (char)(piece.p[i] - 32) : piece.p[i];
	if (is_last)
		loud[piece.n++] = '!';
	exchange_replace_piece(x, (struct str){ loud, piece.n });
	return next();
}

static enum verdict hear_piece(struct exchange *x, const struct step *s)
{
	struct pause *p = NEW(&x->arena, struct pause);

	atomic_fetch_add(&told.entered, 1);
	if (told.cuts)
		return reply_close(x);
	if (!told.waits)
		return shout(x, s);
	p->loop = worker_loop(x->worker);
	p->wait.cancel = stop_looking;
	timer_init(&p->timer, look);
	loop_arm(p->loop, &p->timer, 1);
	return await(x, &p->wait, shout);
}

static enum verdict drop_length(struct exchange *x, const struct step *s)
{
	(void)s;
	exchange_drop_length(x);
	return next();
}

static const struct policy_class shouter = { .name = "Shouter", .response = drop_length, .data = hear_piece };

/* ---------- one configuration ---------- */

static void keep(struct part *p)
{
	(void)p;
}

static struct service *new_service(struct arena *a, struct policies *none)
{
	struct service *svc = NEW(a, struct service);
	struct endpoint *e = NEW(a, struct endpoint);

	svc->part = (struct part){ 1, keep };
	svc->id = svc->name = STR("svc");
	svc->endpoints = e;
	svc->n_endpoints = 1;
	svc->policies = none;
	svc->rotation = rotation = rotation_new();
	e->addr = back;
	e->port = addr_port(&back);
	e->text = STR("upstream");
	e->weight = 1;
	e->cell = cell;
	return svc;
}

static struct candidates *new_route(struct arena *a, struct policies *none)
{
	struct route *r = NEW(a, struct route);
	struct candidates *c = arena_alloc(a, sizeof *c + sizeof(void *));

	r->part = c->part = (struct part){ 1, keep };
	r->id = r->name = STR("r");
	r->match = MATCH_PREFIX;
	r->path = STR("/");
	r->policies = none;
	r->targets = NEW(a, struct target);
	r->targets[0] = (struct target){ .service_id = STR("svc"), .hash = pmap_hash(STR("svc")), .weight = 1 };
	r->n_targets = r->weight_sum = 1;
	c->n = 1;
	c->routes[0] = r;
	return c;
}

static void add_step(struct arena *a, struct policies *p, enum leg leg, const struct policy_class *class, hook *run)
{
	struct step *s = NEW(a, struct step);

	*s = (struct step){ .class = class, .run = run, .conf = class };
	s->needs_body = class->wants & WANTS_REQUEST_BODY;
	p->legs[leg] = (struct chain){ s, 1 };
}

static void publish(int listener, const struct policy_class *class)
{
	struct snapshot *s = MEM_NEW(struct snapshot);
	struct arena *a = &s->arena;
	struct policies *none = NEW(a, struct policies), *own = NEW(a, struct policies);
	struct gateway *g = NEW(a, struct gateway);
	struct site *site = NEW(a, struct site);
	struct binding *b = NEW(a, struct binding);
	struct vhost *v = NEW(a, struct vhost);
	char key[ADDR_TEXT];

	none->part = own->part = g->part = site->part = b->part = v->part = (struct part){ 1, keep };
	if (class->request)
		add_step(a, own, LEG_REQUEST, class, class->request);
	if (class->response)
		add_step(a, own, LEG_RESPONSE, class, class->response);
	if (class->data)
		add_step(a, own, LEG_DATA, class, class->data);
	g->name = STR("gw");
	g->policies = own;
	g->body_buffer_bytes = 1 << 20;
	v->number = 7;
	v->prefix_depths = 1;
	site->gateway = g;
	site->domain_policies = none;
	site->gateway_routes = v;
	addr_print(&front, key);
	b->addr = front;
	b->key = arena_copy(a, str_of(key));
	s->version = 1;
	b->hosts = hosts = pmap_new();
	b->any = site;
	s->bindings = pmap_set(pmap_new(), b->key, &b->part);
	s->paths = pmap_set(pmap_new(), router_key(a, 'P', 7, STR("/")), &new_route(a, none)->part);
	s->services = pmap_set(pmap_new(), STR("svc"), &new_service(a, none)->part);
	s->listeners = NEW(a, struct new_listener);
	s->listeners[0] = (struct new_listener){ .addr = front, .key = b->key, .fds = NEW(a, int) };
	s->listeners[0].fds[0] = listener;
	s->n_listeners = 1;
	snapshot_publish(s, &box, 1);
	worker_wake(worker);
	for (int i = 0; i < PATIENCE && atomic_load(&box.adopted) < 1; i++)
		poll(NULL, 0, 1);
	assert_int_equal(atomic_load(&box.adopted), 1);
	snapshot_reap(&reaper);
}

static int listen_any(struct addr *at)
{
	struct problem why;
	struct addr any;

	assert_true(addr_parse(STR("127.0.0.1:0"), &any));
	int fd = listener_open(&any, false, &why);
	assert_true(fd >= 0);
	*at = addr_of_socket(fd);
	return fd;
}

static int start(void **state)
{
	(void)state;
	memset(&told, 0, sizeof told);
	settings = worker_default_settings;
	settings.server = server_default_settings;
	settings.access_log = false;
	box = (struct mailbox){ .reaper = &reaper };
	metric_start(2);
	exchange_metrics();
	upstream_fd = listen_any(&back);
	cell = MEM_NEW(struct endpoint_cell);
	return 0;
}

static void run_gateway(const struct policy_class *class)
{
	int listener = listen_any(&front);

	worker = worker_start(0, &settings, &box);
	publish(listener, class);
}

static int stop(void **state)
{
	(void)state;
	worker_stop(worker, false);
	worker_join(worker);
	snapshot_reap(&reaper);
	assert_int_equal(metric_value(metric_series(METRIC_EXCHANGES_ACTIVE, NULL)), 0);
	assert_int_equal(atomic_load(&cell->active), 0);
	mem_free(cell);
	close(upstream_fd);
	pmap_drop(hosts);
	part_drop(rotation_part(rotation));
	metric_stop();
	return 0;
}

/* ---------- the peers ---------- */

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, &front.storage.any, front.length), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads until the text is there or the peer closes. */
static char *hear(int fd, const char *until)
{
	static char text[1 << 16];
	size_t n = 0;

	text[0] = '\0';
	while (!strstr(text, until)) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		assert_int_equal(poll(&p, 1, 10000), 1);
		ssize_t got = recv(fd, text + n, sizeof text - 1 - n, 0);
		if (got <= 0)
			break;
		n += (size_t)got;
		text[n] = '\0';
	}
	return text;
}

static bool is_silent(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 50) == 0;
}

static int take_upstream(void)
{
	struct pollfd p = { .fd = upstream_fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 10000), 1);
	int fd = accept(upstream_fd, NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

static void wait_for(atomic_int *what, int n)
{
	for (int i = 0; i < PATIENCE && atomic_load(what) < n; i++)
		poll(NULL, 0, 1);
	assert_int_equal(atomic_load(what), n);
}

/* ---------- request bodies ---------- */

static void a_body_is_read_before_the_step(void **state)
{
	(void)state;
	run_gateway(&reader);
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
	assert_non_null(strstr(hear(client, "\r\n\r\n"), "100 Continue"));
	say(client, "5\r\nhello\r\n");
	assert_true(is_silent(upstream_fd));
	assert_int_equal(atomic_load(&told.entered), 0);
	say(client, "6\r\n world\r\n0\r\n\r\n");
	int upstream = take_upstream();
	const char *got = hear(upstream, "hello world");
	assert_non_null(strstr(got, "content-length: 11\r\n") ?: strstr(got, "Content-Length: 11\r\n"));
	assert_null(strstr(got, "chunked"));
	assert_int_equal(atomic_load(&told.seen), 11);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	assert_non_null(strstr(hear(client, "ok"), "200 OK"));
	wait_for(&told.done, 1);
	close(client);
	close(upstream);
}

static void a_body_may_be_replaced(void **state)
{
	(void)state;
	told.replacement = "another one";
	run_gateway(&reader);
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
	int upstream = take_upstream();
	const char *got = hear(upstream, "another one");
	assert_non_null(strstr(got, "11\r\n"));
	assert_null(strstr(got, "hello"));
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	hear(client, "ok");
	close(client);
	close(upstream);
}

static void a_request_without_a_body_has_an_empty_one(void **state)
{
	(void)state;
	run_gateway(&reader);
	int client = dial();
	say(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	int upstream = take_upstream();
	assert_null(strcasestr(hear(upstream, "\r\n\r\n"), "content-length"));
	assert_int_equal(atomic_load(&told.seen), 0);
	assert_true(atomic_load(&told.is_whole));
	say(upstream, "HTTP/1.1 204 X\r\n\r\n");
	hear(client, "\r\n\r\n");
	close(client);
	close(upstream);
}

static void what_is_too_long_is_refused(void **state)
{
	static char piece[65536 + 64];
	char size[16];

	(void)state;
	run_gateway(&reader);
	int client = dial();
	/* Promised: nothing is read, nor is the client told to go on. */
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n");
	const char *got = hear(client, "ErrRequestTooLarge");
	assert_non_null(strstr(got, "HTTP/1.1 413"));
	assert_null(strstr(got, "100 Continue"));
	close(client);
	/* Unannounced: as soon as it is too much. */
	client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	snprintf(size, sizeof size, "%x\r\n", 65536);
	memset(piece, 'x', sizeof piece);
	memcpy(piece, size, strlen(size));
	memcpy(piece + strlen(size) + 65536, "\r\n", 3);
	for (int i = 0; i < 17; i++)
		if (send(client, piece, strlen(piece), MSG_NOSIGNAL) < 0)
			break;
	assert_non_null(strstr(hear(client, "ErrRequestTooLarge"), "HTTP/1.1 413"));
	assert_int_equal(atomic_load(&told.entered), 0);
	assert_true(is_silent(upstream_fd));
	close(client);
}

static void a_client_that_leaves_ends_the_reading(void **state)
{
	(void)state;
	run_gateway(&reader);
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello");
	for (int i = 0; i < PATIENCE && !metric_value(metric_series(METRIC_EXCHANGES_ACTIVE, NULL)); i++)
		poll(NULL, 0, 1);
	close(client);
	for (int i = 0; i < PATIENCE && metric_value(metric_series(METRIC_EXCHANGES_ACTIVE, NULL)); i++)
		poll(NULL, 0, 1);
	assert_int_equal(atomic_load(&told.entered), 0);
}

/* More than the kernel takes at once: the upstream reads when it likes. */
static void a_long_body_goes_out_as_the_upstream_takes_it(void **state)
{
	static char body[1 << 20];
	size_t sent = 0, got = 0;
	char text[65536];
	ssize_t n;

	(void)state;
	run_gateway(&reader);
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n");
	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (char)('a' + i % 23);
	while (sent < sizeof body)
		sent += (size_t)send(client, body + sent, sizeof body - sent, MSG_NOSIGNAL);
	int upstream = take_upstream();
	const char *head = hear(upstream, "\r\n\r\n");
	const char *rest = strstr(head, "\r\n\r\n") + 4;
	got = strlen(rest);
	assert_memory_equal(rest, body, got);
	while (got < sizeof body && (n = recv(upstream, text, sizeof text, 0)) > 0) {
		assert_memory_equal(text, body + got, n);
		got += (size_t)n;
	}
	assert_int_equal(got, sizeof body);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	hear(client, "ok");
	close(client);
	close(upstream);
}

static void a_policy_has_one_memory_in_all_its_hooks(void **state)
{
	(void)state;
	run_gateway(&both);
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
	int upstream = take_upstream();
	hear(upstream, "hello");
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	hear(client, "ok");
	wait_for(&told.done, 11);
	close(client);
	close(upstream);
}

/* ---------- response bodies ---------- */

static int ask(int client)
{
	say(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	int upstream = take_upstream();
	hear(upstream, "\r\n\r\n");
	return upstream;
}

static void the_head_waits_for_what_is_held(void **state)
{
	(void)state;
	told.most = 100;
	run_gateway(&holder);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
	assert_true(is_silent(client));
	say(upstream, "56789");
	assert_non_null(strstr(hear(client, "0123456789"), "200 OK"));
	assert_int_equal(atomic_load(&told.seen), 10);
	assert_true(atomic_load(&told.is_whole));
	close(client);
	close(upstream);
}

static void the_rest_streams_behind_what_is_held(void **state)
{
	(void)state;
	told.most = 4;
	run_gateway(&holder);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
	assert_true(is_silent(client));
	say(upstream, "3\r\ncde\r\n");
	assert_non_null(strstr(hear(client, "abcde"), "200 OK"));
	assert_int_equal(atomic_load(&told.seen), 5);
	assert_false(atomic_load(&told.is_whole));
	say(upstream, "1\r\nf\r\n0\r\n\r\n");
	hear(client, "0\r\n\r\n");
	close(client);
	close(upstream);
}

static void what_is_held_may_still_be_refused(void **state)
{
	(void)state;
	told.most = 100;
	told.cuts = true;
	run_gateway(&holder);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nX-Secret: 1\r\nContent-Length: 6\r\n\r\nsecret");
	const char *got = hear(client, "Refused");
	assert_non_null(strstr(got, "HTTP/1.1 403"));
	assert_null(strcasestr(got, "secret"));
	close(client);
	close(upstream);
}

/* The head is not out: it becomes an answer of ours. */
static void an_upstream_that_breaks_off_while_it_is_held(void **state)
{
	(void)state;
	told.most = 100;
	run_gateway(&holder);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
	assert_true(is_silent(client));
	close(upstream);
	assert_non_null(strstr(hear(client, "ErrBadUpstream"), "HTTP/1.1 502"));
	assert_int_equal(atomic_load(&told.entered), 1);     /* for the answer, which is held no more */
	close(client);
}

static void pieces_are_changed_on_their_way(void **state)
{
	(void)state;
	run_gateway(&shouter);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
	assert_non_null(strstr(hear(client, "ABC"), "chunked"));
	say(upstream, "def");
	hear(client, "DEF!\r\n0\r\n\r\n");
	close(client);
	close(upstream);
}

static void a_piece_that_waits_holds_the_rest_back(void **state)
{
	(void)state;
	told.waits = true;
	run_gateway(&shouter);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
	hear(client, "\r\n\r\n");
	wait_for(&told.entered, 1);
	say(upstream, "def");
	assert_true(is_silent(client));
	assert_int_equal(atomic_load(&told.entered), 1);
	atomic_store(&told.go, true);
	const char *got = hear(client, "0\r\n\r\n");
	assert_non_null(strstr(got, "3\r\nABC\r\n4\r\nDEF!\r\n"));
	assert_int_equal(atomic_load(&told.entered), 2);
	close(client);
	close(upstream);
}

static void a_client_leaves_while_a_piece_waits(void **state)
{
	(void)state;
	told.waits = true;
	run_gateway(&shouter);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
	wait_for(&told.entered, 1);
	close(client);
	assert_string_equal(hear(upstream, "never"), "");
	close(upstream);
}

static void a_piece_that_may_not_pass_ends_the_connection(void **state)
{
	(void)state;
	told.cuts = true;
	run_gateway(&shouter);
	int client = dial(), upstream = ask(client);
	say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
	const char *got = hear(client, "never");
	assert_non_null(strstr(got, "200 OK"));
	assert_null(strstr(got, "abc"));
	assert_null(strstr(got, "0\r\n\r\n"));
	close(client);
	close(upstream);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_body_is_read_before_the_step),
		TEST(a_body_may_be_replaced),
		TEST(a_request_without_a_body_has_an_empty_one),
		TEST(what_is_too_long_is_refused),
		TEST(a_client_that_leaves_ends_the_reading),
		TEST(a_long_body_goes_out_as_the_upstream_takes_it),
		TEST(a_policy_has_one_memory_in_all_its_hooks),
		TEST(the_head_waits_for_what_is_held),
		TEST(the_rest_streams_behind_what_is_held),
		TEST(what_is_held_may_still_be_refused),
		TEST(an_upstream_that_breaks_off_while_it_is_held),
		TEST(pieces_are_changed_on_their_way),
		TEST(a_piece_that_waits_holds_the_rest_back),
		TEST(a_client_leaves_while_a_piece_waits),
		TEST(a_piece_that_may_not_pass_ends_the_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
