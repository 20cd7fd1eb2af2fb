/* room: proxy */
/*
 * One worker, configurations made by hand, real sockets: requests go through to upstreams that the test plays itself.
 * Time is real here; the test waits for states, never for time.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/log.h"
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

#define ENDPOINTS 3
#define PATIENCE 5000                     /* looks of a millisecond each before a test gives up */

/* What the next configuration says. */
static struct plan {
	unsigned n;                       /* endpoints, upstream 0 .. n-1 */
	uint32_t weights[ENDPOINTS];
	const char *name;                 /* in place of the address of endpoint 0 */
	unsigned first;                   /* upstream of endpoint 0 */
	struct outlier_detection outlier;
	struct health_check health;
	struct trust trust;
} plan;

static struct worker_settings settings;
static struct mailbox box;
static struct inbox reaper;
static struct worker *worker;
static struct addr front, back[ENDPOINTS];
static int upstream_fd[ENDPOINTS];
static struct endpoint_cell *cells[ENDPOINTS];
static struct rotation *rotations[64];  /* one for each version of the service */
static unsigned n_rotations;
static struct pmap *hosts[64];
static uint64_t version;
static bool is_stopped;

const struct policy_class *const policy_classes[] = { NULL };

static void keep(struct part *p)
{
	(void)p;
}

static struct service *new_service(struct arena *a, struct policies *none)
{
	struct service *svc = NEW(a, struct service);

	svc->part = (struct part){ 1, keep };
	svc->id = svc->name = STR("svc");
	svc->endpoints = NEW_N(a, struct endpoint, plan.n);
	svc->n_endpoints = plan.n;
	svc->policies = none;
	svc->rotation = rotations[n_rotations++] = rotation_new();
	svc->outlier = plan.outlier;
	svc->health = plan.health;
	for (unsigned i = 0; i < plan.n; i++) {
		struct endpoint *e = &svc->endpoints[i];

		e->addr = back[plan.first + i];
		e->port = addr_port(&e->addr);
		e->text = arena_printf(a, "127.0.0.1:%u", e->port);
		e->weight = plan.weights[i];
		e->cell = cells[plan.first + i];
	}
	if (plan.name)
		svc->endpoints[0].host = str_of(plan.name);
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
	r->n_targets = 1;
	r->weight_sum = 1;
	c->n = 1;
	c->routes[0] = r;
	return c;
}

/* A configuration by the plan; it brings the listener along when there is one. */
static void publish(int listener)
{
	struct snapshot *s = MEM_NEW(struct snapshot);
	struct arena *a = &s->arena;
	struct policies *none = NEW(a, struct policies);
	struct gateway *g = NEW(a, struct gateway);
	struct site *site = NEW(a, struct site);
	struct binding *b = NEW(a, struct binding);
	struct vhost *v = NEW(a, struct vhost);
	char key[ADDR_TEXT];

	none->part = g->part = site->part = b->part = v->part = (struct part){ 1, keep };
	g->name = STR("gw");
	g->policies = none;
	g->trust = plan.trust;
	v->number = 7;
	v->prefix_depths = 1;
	site->gateway = g;
	site->domain_policies = none;
	site->gateway_routes = v;
	addr_print(&front, key);
	b->addr = front;
	b->key = arena_copy(a, str_of(key));
	s->version = ++version;
	b->hosts = hosts[s->version % 64] = hosts[s->version % 64] ?: pmap_new();
	b->any = site;
	s->bindings = pmap_set(pmap_new(), b->key, &b->part);
	s->paths = pmap_set(pmap_new(), router_key(a, 'P', 7, STR("/")), &new_route(a, none)->part);
	s->services = pmap_set(pmap_new(), STR("svc"), &new_service(a, none)->part);
	if (listener >= 0) {
		s->listeners = NEW(a, struct new_listener);
		s->listeners[0] = (struct new_listener){ .addr = front, .key = b->key, .fds = NEW(a, int) };
		s->listeners[0].fds[0] = listener;
		s->n_listeners = 1;
	}
	snapshot_publish(s, &box, 1);
	worker_wake(worker);
	for (int i = 0; i < PATIENCE && atomic_load(&box.adopted) < version; i++)
		poll(NULL, 0, 1);
	assert_true(atomic_load(&box.adopted) >= version);
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
	settings = worker_default_settings;
	settings.server = server_default_settings;
	settings.access_log = false;
	plan = (struct plan){ .n = 1, .weights = { 1, 1, 1 } };
	version = 0;
	is_stopped = false;
	n_rotations = 0;
	box = (struct mailbox){ .reaper = &reaper };
	metric_start(2);
	exchange_metrics();
	for (int i = 0; i < ENDPOINTS; i++) {
		upstream_fd[i] = listen_any(&back[i]);
		cells[i] = MEM_NEW(struct endpoint_cell);
	}
	return 0;
}

/* The worker begins when the test has said what it wants. */
static void run_gateway(void)
{
	int listener = listen_any(&front);

	worker = worker_start(0, &settings, &box);
	publish(listener);
}

/* Nothing may be left: no connection, no exchange, no request counted at an endpoint. */
static int stop(void **state)
{
	(void)state;
	if (!is_stopped)
		worker_stop(worker, false);
	worker_join(worker);
	snapshot_reap(&reaper);
	assert_int_equal(metric_value(metric_series(METRIC_CONNECTIONS, NULL)), 0);
	assert_int_equal(metric_value(metric_series(METRIC_EXCHANGES_ACTIVE, NULL)), 0);
	for (int i = 0; i < ENDPOINTS; i++) {
		assert_int_equal(atomic_load(&cells[i]->active), 0);
		assert_int_equal(cells[i]->pools[0].n, 0);
		mem_free(cells[i]);
		close(upstream_fd[i]);
	}
	for (int i = 0; i < 64; i++) {
		if (hosts[i])
			pmap_drop(hosts[i]);
		hosts[i] = NULL;
	}
	for (unsigned i = 0; i < n_rotations; i++)
		part_drop(rotation_part(rotations[i]));
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

static int take_upstream(int i)
{
	struct pollfd p = { .fd = upstream_fd[i], .events = POLLIN };

	assert_int_equal(poll(&p, 1, 5000), 1);
	int fd = accept(upstream_fd[i], NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

/* ---------- upstreams that answer by themselves ---------- */

static int open_fds[64];
static unsigned open_of[64], n_open;
static int status_of[ENDPOINTS], health_of[ENDPOINTS];
static unsigned served[ENDPOINTS], probed[ENDPOINTS];

static void close_upstreams(void)
{
	while (n_open > 0)
		close(open_fds[--n_open]);
	memset(served, 0, sizeof served);
	memset(probed, 0, sizeof probed);
}

/* Requests are small and come in one piece. */
static void serve_one(unsigned at)
{
	char text[4096], answer[128];
	ssize_t n = recv(open_fds[at], text, sizeof text - 1, 0);
	unsigned of = open_of[at];

	if (n <= 0) {
		close(open_fds[at]);
		n_open--;
		open_fds[at] = open_fds[n_open];
		open_of[at] = open_of[n_open];
		return;
	}
	text[n] = '\0';
	bool is_probe = strncmp(text, "GET /health", 11) == 0;
	int size = snprintf(answer, sizeof answer, "HTTP/1.1 %d X\r\nContent-Length: 2\r\nX-From: %u\r\n\r\nok",
			    is_probe ? health_of[of] : status_of[of], of);
	send(open_fds[at], answer, (size_t)size, MSG_NOSIGNAL);
	(is_probe ? probed : served)[of]++;
}

static void serve(int wait_ms)
{
	struct pollfd p[ENDPOINTS + 64];

	for (unsigned i = 0; i < ENDPOINTS; i++)
		p[i] = (struct pollfd){ .fd = upstream_fd[i], .events = POLLIN };
	for (unsigned i = 0; i < n_open; i++)
		p[ENDPOINTS + i] = (struct pollfd){ .fd = open_fds[i], .events = POLLIN };
	poll(p, ENDPOINTS + n_open, wait_ms);
	for (unsigned i = n_open; i-- > 0;)
		if (p[ENDPOINTS + i].revents)
			serve_one(i);
	for (unsigned i = 0; i < ENDPOINTS; i++)
		if (p[i].revents & POLLIN && n_open < 64) {
			open_of[n_open] = i;
			open_fds[n_open++] = accept(upstream_fd[i], NULL, NULL);
		}
}

/* One request on a connection that stays. Returns the status. */
static int get(int fd)
{
	char text[4096];
	struct pollfd p = { .fd = fd, .events = POLLIN };

	say(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int i = 0; i < PATIENCE && poll(&p, 1, 0) == 0; i++)
		serve(1);
	ssize_t n = recv(fd, text, sizeof text - 1, 0);
	assert_true(n > 12);
	text[n] = '\0';
	return (text[9] - '0') * 100 + (text[10] - '0') * 10 + (text[11] - '0');
}

static void forwards_and_reuses(void **state)
{
	(void)state;
	run_gateway();
	int client = dial(), server;
	say(client, "GET /a?b=1 HTTP/1.1\r\nHost: x.test\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\r\n");
	server = take_upstream(0);
	char *seen = hear(server, "\r\n\r\n");
	assert_non_null(strstr(seen, "GET /a?b=1 HTTP/1.1\r\nHost: x.test\r\n"));
	assert_non_null(strstr(seen, "X-Forwarded-For: 127.0.0.1\r\n")
				?: strstr(seen, "x-forwarded-for: 127.0.0.1\r\n"));
	assert_null(strstr(seen, "X-Hop"));
	say(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	char *answer = hear(client, "hi");
	assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
				?: strstr(answer, "content-length: 2"));
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
	(void)state;
	run_gateway();
	int client = dial(), server;
	say(client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n");
	server = take_upstream(0);
	hear(server, "\r\n\r\n");
	close(server);
	assert_non_null(strstr(hear(client, "}"), "503"));
	say(client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n");
	server = take_upstream(0);
	hear(server, "\r\n\r\n");
	say(server, "garbage\r\n\r\n");
	assert_non_null(strstr(hear(client, "}"), "502"));
	close(server);
	close(client);
}

static void client_leaves(void **state)
{
	(void)state;
	run_gateway();
	int client = dial(), server;
	say(client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n");
	server = take_upstream(0);
	hear(server, "\r\n\r\n");
	close(client);
	assert_string_equal(hear(server, "never"), "");
	close(server);
}

static void refuses_garbage(void **state)
{
	(void)state;
	run_gateway();
	int client = dial();
	say(client, "GET / HTTP/1.1\nHost: x\n\n");
	assert_non_null(strstr(hear(client, "never"), "HTTP/1.1 400"));
	close(client);
}

static void resolves_names(void **state)
{
	(void)state;
	plan.name = "localhost";
	run_gateway();
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 6\r\n\r\nabc");
	int server = take_upstream(0);
	hear(server, "abc");
	say(client, "def");
	hear(server, "def");
	say(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	hear(client, "hi");
	close(client);
	close(server);
}

/* A server of names that never answers. */
static int dumb_name_server(char text[ADDR_TEXT])
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct addr at;

	assert_true(addr_parse(STR("127.0.0.1:0"), &at));
	assert_int_equal(bind(fd, &at.storage.any, at.length), 0);
	at = addr_of_socket(fd);
	addr_print(&at, text);
	return fd;
}

static void forgets_a_lookup_whose_client_left(void **state)
{
	static char servers[ADDR_TEXT];
	int names = dumb_name_server(servers);

	(void)state;
	plan.name = "slow.test";
	settings.dns_servers = servers;
	run_gateway();
	int client = dial();
	say(client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n");
	char question[512];
	assert_true(recv(names, question, sizeof question, 0) > 0);
	close(client);
	struct series *active = metric_series(METRIC_EXCHANGES_ACTIVE, NULL);
	for (int i = 0; i < PATIENCE && metric_value(active) != 0; i++)
		poll(NULL, 0, 1);
	assert_int_equal(metric_value(active), 0);
	close(names);
}

static void repeats_on_a_stale_connection(void **state)
{
	int client, first, second;

	(void)state;
	run_gateway();
	client = dial();
	say(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	first = take_upstream(0);
	hear(first, "\r\n\r\n");
	say(first, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	hear(client, "hi");
	say(client, "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
	hear(first, "hello");
	close(first);
	second = take_upstream(0);
	assert_non_null(strstr(hear(second, "hello"), "PUT /p HTTP/1.1\r\n"));
	say(second, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	hear(client, "ok");
	/* What may have acted already is not sent twice. */
	say(client, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nagain");
	hear(second, "again");
	close(second);
	assert_non_null(strstr(hear(client, "}"), "HTTP/1.1 503"));
	close(client);
}

static void client_leaves_while_uploading(void **state)
{
	(void)state;
	run_gateway();
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc");
	int server = take_upstream(0);
	hear(server, "abc");
	close(client);
	assert_string_equal(hear(server, "never"), "");
	close(server);
}

static void upstream_answers_while_the_client_uploads(void **state)
{
	static char piece[100000];

	(void)state;
	run_gateway();
	int client = dial();
	say(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc");
	int server = take_upstream(0);
	hear(server, "abc");
	say(server, "HTTP/1.1 413 Large\r\nContent-Length: 5\r\n\r\nlarge");
	assert_non_null(strstr(hear(client, "large"), "HTTP/1.1 413"));
	/* Half a request was sent: neither connection can carry another one. */
	assert_string_equal(hear(server, "never"), "");
	send(client, piece, sizeof piece, MSG_NOSIGNAL);
	hear(client, "never");
	close(server);
	close(client);
}

static void streams_with_back_pressure(void **state)
{
	enum { TOTAL = 8 << 20 };
	static char piece[65536];
	size_t sent = 0, got = 0, checked = 0;

	(void)state;
	run_gateway();
	int client = dial(), server;
	say(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	server = take_upstream(0);
	hear(server, "\r\n\r\n");
	say(server, "HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n");
	hear(client, "\r\n\r\n");
	/* Nothing is read until everything stands still: the kernel's buffers and ours are full. */
	for (bool reads = false; got < TOTAL;) {
		for (size_t i = 0; i < sizeof piece; i++)
			piece[i] = (char)((sent + i) % 251);
		size_t n = TOTAL - sent < sizeof piece ? TOTAL - sent : sizeof piece;
		ssize_t done = n ? send(server, piece, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
		sent += done > 0 ? (size_t)done : 0;
		struct pollfd p = { .fd = server, .events = POLLOUT };
		reads = reads || n == 0 || (done < 0 && poll(&p, 1, 100) == 0);
		ssize_t read = reads ? recv(client, piece, sizeof piece, MSG_DONTWAIT) : 0;
		for (ssize_t i = 0; i < read; i++)
			checked += (unsigned char)piece[i] == (got + (size_t)i) % 251;
		got += read > 0 ? (size_t)read : 0;
	}
	assert_int_equal(checked, TOTAL);
	close(client);
	close(server);
}

static void swaps_configurations_under_requests(void **state)
{
	(void)state;
	run_gateway();
	int client = dial(), other = dial();
	say(client, "GET /old HTTP/1.1\r\nHost: x\r\n\r\n");
	int old = take_upstream(0);
	hear(old, "/old");
	say(old, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
	plan.first = 1;
	for (int i = 0; i < 20; i++)
		publish(-1);
	say(other, "GET /new HTTP/1.1\r\nHost: x\r\n\r\n");
	int new = take_upstream(1);
	hear(new, "/new");
	say(new, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	hear(other, "hi");
	say(old, "cd");
	hear(client, "cd");
	publish(-1);
	say(client, "GET /then HTTP/1.1\r\nHost: x\r\n\r\n");
	hear(new, "/then");
	say(new, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	hear(client, "hi");
	close(client);
	close(other);
	close(old);
	close(new);
}

static void serves_the_rest_of_a_head_while_it_ends(void **state)
{
	(void)state;
	run_gateway();
	int client = dial(), idle = dial();
	say(client, "GET /late HTT");
	say(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	int server = take_upstream(0);
	hear(server, "\r\n\r\n");
	say(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	hear(idle, "hi");
	worker_stop(worker, false);
	is_stopped = true;
	assert_string_equal(hear(idle, "never"), "");
	/* The binding the listener knew goes with this; the connection needs the new one. */
	publish(-1);
	say(client, "P/1.1\r\nHost: x\r\n\r\n");
	hear(server, "/late");
	say(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
	assert_non_null(strstr(hear(client, "never"), "Connection: close\r\n"));
	close(client);
	close(idle);
	close(server);
}

static void spreads_by_weight(void **state)
{
	(void)state;
	status_of[0] = status_of[1] = status_of[2] = 200;
	plan.n = 3;
	run_gateway();
	int client = dial();
	for (int i = 0; i < 30; i++)
		assert_int_equal(get(client), 200);
	for (int i = 0; i < 3; i++)
		assert_int_equal(served[i], 10);
	plan.weights[0] = 3;
	plan.weights[2] = 0;
	publish(-1);
	memset(served, 0, sizeof served);
	for (int i = 0; i < 200; i++)
		assert_int_equal(get(client), 200);
	assert_in_range(served[0], 148, 152);
	assert_in_range(served[1], 48, 52);
	assert_int_equal(served[2], 0);
	close(client);
	close_upstreams();
}

static void ejects_what_fails(void **state)
{
	(void)state;
	status_of[0] = 500;
	status_of[1] = 200;
	plan.n = 2;
	plan.outlier = (struct outlier_detection){
		.enable = true, .consecutive_5xx = 3, .interval_ms = 10000, .base_ejection_ms = 3600000,
		.max_ejection_percent = 50,
	};
	run_gateway();
	int client = dial();
	for (int i = 0; i < 20; i++)
		get(client);
	assert_int_equal(served[0], 3);
	/* Half of them is out; the other half stays whatever it answers. */
	status_of[1] = 503;
	for (int i = 0; i < 10; i++)
		assert_int_equal(get(client), 503);
	assert_int_equal(served[1], 27);
	/* Its time is over. */
	atomic_store(&cells[0]->ejected_until_ms, 0);
	status_of[0] = status_of[1] = 200;
	for (int i = 0; i < 4; i++)
		get(client);
	assert_int_equal(served[0], 5);
	/* Nor does the only one go, which would leave nothing. */
	status_of[0] = 500;
	plan.n = 1;
	publish(-1);
	for (int i = 0; i < 10; i++)
		assert_int_equal(get(client), 500);
	close(client);
	close_upstreams();
}

static void wait_health(bool is_healthy)
{
	for (int i = 0; i < PATIENCE && atomic_load(&cells[0]->unhealthy) == is_healthy; i++)
		serve(1);
	assert_int_equal(atomic_load(&cells[0]->unhealthy), !is_healthy);
}

static void checks_health_over_http(void **state)
{
	(void)state;
	status_of[0] = health_of[0] = 200;
	plan.health = (struct health_check){
		.enable = true, .protocol = HEALTH_HTTP, .path = STR("/health"), .interval_ms = 5, .timeout_ms = 2000,
		.healthy_threshold = 2, .unhealthy_threshold = 3,
	};
	run_gateway();
	int client = dial();
	assert_int_equal(get(client), 200);
	health_of[0] = 500;
	wait_health(false);
	assert_true(probed[0] >= 3);
	assert_int_equal(get(client), 503);
	health_of[0] = 204;
	wait_health(true);
	assert_int_equal(get(client), 200);
	/* A check that is switched off leaves no verdict behind. */
	health_of[0] = 500;
	wait_health(false);
	plan.health.enable = false;
	publish(-1);
	assert_int_equal(get(client), 200);
	close(client);
	close_upstreams();
}

static void checks_health_over_tcp(void **state)
{
	struct problem why;

	(void)state;
	plan.health = (struct health_check){
		.enable = true, .protocol = HEALTH_TCP, .interval_ms = 5, .timeout_ms = 2000, .healthy_threshold = 1,
		.unhealthy_threshold = 2,
	};
	run_gateway();
	close(upstream_fd[0]);
	upstream_fd[0] = -1;
	wait_health(false);
	upstream_fd[0] = listener_open(&back[0], false, &why);
	assert_true(upstream_fd[0] >= 0);
	wait_health(true);
	close_upstreams();
}

static void probes_a_name_that_does_not_resolve(void **state)
{
	static char servers[ADDR_TEXT];
	int names = dumb_name_server(servers);

	(void)state;
	plan.name = "slow.test";
	plan.health = (struct health_check){
		.enable = true, .protocol = HEALTH_TCP, .interval_ms = 5, .timeout_ms = 20, .healthy_threshold = 1,
		.unhealthy_threshold = 3,
	};
	settings.dns_servers = servers;
	run_gateway();
	wait_health(false);
	/* A new check while a probe is under way. */
	plan.health.timeout_ms = 30;
	publish(-1);
	plan.name = NULL;
	publish(-1);
	plan.health.enable = false;
	publish(-1);
	close(names);
	close_upstreams();
}

static const char *client_seen_by(const char *forwarded_for)
{
	static char text[8192];
	int client = dial();

	snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\n\r\n", forwarded_for);
	say(client, text);
	int server = take_upstream(0);
	char *seen = hear(server, "\r\n\r\n");
	char *at = strcasestr(seen, "x-real-ip: ");
	assert_non_null(at);
	snprintf(text, sizeof text, "%.*s", (int)strcspn(at + 11, "\r"), at + 11);
	say(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
	hear(client, "hi");
	close(client);
	close(server);
	return text;
}

static void finds_the_client_behind_any_number_of_hops(void **state)
{
	char list[2048];
	size_t n = 0;

	(void)state;
	plan.trust.xff_trusted_num = 1;
	run_gateway();
	assert_string_equal(client_seen_by("192.168.1.5, 8.8.8.8"), "8.8.8.8");
	assert_string_equal(client_seen_by("192.168.1.5, nonsense"), "127.0.0.1");
	for (int i = 0; i < 100; i++)
		n += (size_t)snprintf(list + n, sizeof list - n, "10.0.0.%d, ", i);
	snprintf(list + n, sizeof list - n, "9.9.9.9");
	assert_string_equal(client_seen_by(list), "9.9.9.9");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(forwards_and_reuses), CASE(answers_for_a_dead_upstream), CASE(client_leaves),
		CASE(refuses_garbage), CASE(resolves_names), CASE(forgets_a_lookup_whose_client_left),
		CASE(repeats_on_a_stale_connection), CASE(client_leaves_while_uploading),
		CASE(upstream_answers_while_the_client_uploads), CASE(streams_with_back_pressure),
		CASE(swaps_configurations_under_requests), CASE(serves_the_rest_of_a_head_while_it_ends),
		CASE(spreads_by_weight), CASE(ejects_what_fails), CASE(checks_health_over_http),
		CASE(checks_health_over_tcp), CASE(probes_a_name_that_does_not_resolve),
		CASE(finds_the_client_behind_any_number_of_hops),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
