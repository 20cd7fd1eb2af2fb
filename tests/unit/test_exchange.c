/* room: proxy */
/*
 * One worker, a configuration made by hand, real sockets: a request goes through to an upstream that the test plays itself.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/mem.h"
#include "core/metric.h"
#include "net/listener.h"
#include "proxy/exchange.h"
#include "proxy/router.h"
#include "proxy/worker.h"
/* Last: it takes the name fail() for a macro. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct mailbox box;
static struct inbox reaper;
static struct worker *worker;
static struct addr front, back;
static int upstream_fd;
static struct pmap *hosts;

const struct policy_class *const policy_classes[] = { NULL };

static void keep(struct part *p)
{
	(void)p;
}

static struct snapshot *configure(int listener)
{
	struct snapshot *s = MEM_NEW(struct snapshot);
	struct arena *a = &s->arena;
	struct policies *none_ = NEW(a, struct policies);
	struct gateway *g = NEW(a, struct gateway);
	struct site *site = NEW(a, struct site);
	struct binding *b = NEW(a, struct binding);
	struct vhost *v = NEW(a, struct vhost);
	struct route *r = NEW(a, struct route);
	struct service *svc = NEW(a, struct service);
	struct endpoint *e = NEW(a, struct endpoint);
	struct candidates *c = arena_alloc(a, sizeof *c + sizeof(void *));
	char key[ADDR_TEXT];

	none_->part = g->part = site->part = b->part = v->part = r->part = svc->part = c->part = (struct part){ 1, keep };
	g->name = STR("gw");
	g->policies = none_;
	v->number = 7;
	v->prefix_depths = 1;
	r->id = r->name = STR("r");
	r->match = MATCH_PREFIX;
	r->path = STR("/");
	r->policies = none_;
	r->targets = NEW(a, struct target);
	r->targets[0] = (struct target){ .service_id = STR("svc"), .hash = pmap_hash(STR("svc")), .weight = 1 };
	r->n_targets = 1;
	r->weight_sum = 1;
	c->n = 1;
	c->routes[0] = r;
	e->addr = back;
	e->port = addr_port(&back);
	e->text = STR("upstream");
	e->weight = 1;
	e->cell = NEW(a, struct endpoint_cell);
	svc->id = svc->name = STR("svc");
	svc->endpoints = e;
	svc->n_endpoints = 1;
	svc->policies = none_;
	site->gateway = g;
	site->domain_policies = none_;
	site->gateway_routes = v;
	addr_print(&front, key);
	b->addr = front;
	b->key = arena_copy(a, str_of(key));
	b->hosts = hosts = pmap_new();
	b->any = site;
	s->version = 1;
	s->bindings = pmap_set(pmap_new(), b->key, &b->part);
	s->paths = pmap_set(pmap_new(), router_key(a, 'P', 7, STR("/")), &c->part);
	s->services = pmap_set(pmap_new(), STR("svc"), &svc->part);
	s->listeners = NEW(a, struct new_listener);
	s->listeners[0] = (struct new_listener){ .addr = front, .key = b->key, .fds = NEW(a, int) };
	s->listeners[0].fds[0] = listener;
	s->n_listeners = 1;
	return s;
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
	static struct worker_settings settings;

	(void)state;
	settings = worker_default_settings;
	settings.server = server_default_settings;
	settings.access_log = false;
	metric_start(2);
	exchange_metrics();
	upstream_fd = listen_any(&back);
	int listener = listen_any(&front);
	box.reaper = &reaper;
	worker = worker_start(0, &settings, &box);
	snapshot_publish(configure(listener), &box, 1);
	worker_wake(worker);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	worker_stop(worker, false);
	worker_join(worker);
	snapshot_reap(&reaper);
	pmap_drop(hosts);
	close(upstream_fd);
	metric_stop();
	return 0;
}

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

		assert_int_equal(poll(&p, 1, 5000), 1);
		ssize_t got = recv(fd, text + n, sizeof text - 1 - n, 0);
		assert_true(got >= 0);
		if (got == 0)
			break;
		n += (size_t)got;
		text[n] = '\0';
	}
	return text;
}

static int take_upstream(void)
{
	struct pollfd p = { .fd = upstream_fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 5000), 1);
	int fd = accept(upstream_fd, NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

static void forwards_and_reuses(void **state)
{
	int client = dial(), server;

	(void)state;
	say(client, "GET /a?b=1 HTTP/1.1\r\nHost: x.test\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\r\n");
	server = take_upstream();
	char *seen = hear(server, "\r\n\r\n");
	assert_non_null(strstr(seen, "GET /a?b=1 HTTP/1.1\r\nHost: x.test\r\n"));
	assert_non_null(strstr(seen, "X-Forwarded-For: 127.0.0.1\r\n") ?: strstr(seen, "x-forwarded-for: 127.0.0.1\r\n"));
	assert_null(strstr(seen, "X-Hop"));
	say(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	char *answer = hear(client, "hi");
	assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n") ?: strstr(answer, "content-length: 2"));
	say(client, "POST / HTTP/1.1\r\nHost: x.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	hear(server, "abc\r\n");
	say(client, "2\r\nde\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
	hear(server, "0\r\n\r\n");
	say(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n");
	assert_non_null(strstr(hear(client, "0\r\n\r\n"), "wxyz"));
	assert_non_null(strstr(hear(server, "\r\n\r\n"), "GET /next"));
	say(server, "HTTP/1.1 204 No Content\r\n\r\n");
	assert_non_null(strstr(hear(client, "\r\n\r\n"), "204"));
	close(client);
	close(server);
}

static void answers_for_a_dead_upstream(void **state)
{
	int client = dial(), server;

	(void)state;
	say(client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n");
	server = take_upstream();
	hear(server, "\r\n\r\n");
	close(server);
	assert_non_null(strstr(hear(client, "}"), "503"));
	say(client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n");
	server = take_upstream();
	hear(server, "\r\n\r\n");
	say(server, "garbage\r\n\r\n");
	assert_non_null(strstr(hear(client, "}"), "502"));
	close(server);
	close(client);
}

static void client_leaves(void **state)
{
	int client = dial(), server;

	(void)state;
	say(client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n");
	server = take_upstream();
	hear(server, "\r\n\r\n");
	close(client);
	assert_string_equal(hear(server, "never"), "");
	close(server);
}

static void refuses_garbage(void **state)
{
	int client = dial();

	(void)state;
	say(client, "GET / HTTP/1.1\nHost: x\n\n");
	assert_non_null(strstr(hear(client, "never"), "HTTP/1.1 400"));
	close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forwards_and_reuses),
		cmocka_unit_test(answers_for_a_dead_upstream),
		cmocka_unit_test(client_leaves),
		cmocka_unit_test(refuses_garbage),
	};
	return cmocka_run_group_tests(tests, start, stop);
}
