#include "h2_peer.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/h1.h"
#include "http/h2.h"
#include "http/server_connection.h"

struct request {
	struct stream stream;
	struct arena arena;
	uint64_t body_bytes;
};

static struct loop *loop;
static struct server *server;
static struct server_listener listener;
static unsigned n_open;

static struct stream *open_request(struct server_connection *c)
{
	struct request *r = MEM_NEW(struct request);

	(void)c;
	n_open++;
	r->stream.arena = &r->arena;
	return &r->stream;
}

static void check_head(const struct message *m)
{
	BUG_ON(!header_is_token(m->method_name) || m->path.n == 0 || m->authority.n == 0);
	BUG_ON(!header_is_value(m->path) || !header_is_value(m->query) || !header_is_value(m->authority));
	for (unsigned i = 0; i < m->n; i++) {
		BUG_ON(!header_is_token(m->headers[i].name) || !header_is_value(m->headers[i].value));
		BUG_ON(!m->headers[i].dropped && m->headers[i].id == HEADER_TRANSFER_ENCODING);
		BUG_ON(!m->headers[i].dropped && m->headers[i].id == HEADER_CONTENT_LENGTH);
	}
}

static bool is_compared(const struct header *h)
{
	return !h->dropped && h->id != HEADER_HOST && h->id != HEADER_UPGRADE && h->id != HEADER_CONNECTION;
}

/* The rows of both, one after the other. */
static void check_same_rows(const struct message *m, const struct message *again)
{
	unsigned at = 0;

	for (unsigned i = 0; i < m->n; i++) {
		if (!is_compared(&m->headers[i]))
			continue;
		while (at < again->n && !is_compared(&again->headers[at]))
			at++;
		BUG_ON(at == again->n || !str_equal_nocase(m->headers[i].name, again->headers[at].name));
		BUG_ON(!str_equal(str_trim(m->headers[i].value), str_trim(again->headers[at].value)));
		at++;
	}
	for (; at < again->n; at++)
		BUG_ON(is_compared(&again->headers[at]));
}

/* The next hop reads the request that we mean. */
static void check_written(const struct message *m)
{
	static const struct h1_limits wider = { 1 << 20, 300, 1 << 20, true };
	struct arena arena = { 0 };
	struct message again = { .arena = &arena };
	char *out = malloc(h1_head_bound(m));
	size_t n = h1_write_request(m, out), size = 0;
	struct h1_scan scan = { 0 };

	BUG_ON(n > h1_head_bound(m));
	BUG_ON(h1_find_head(&scan, out, n, &size) != H1_DONE || size != n);
	BUG_ON(h1_parse_request(&again, (struct str){ out, n }, &wider) != H1_FAULT_NONE);
	BUG_ON(!str_equal(m->path, again.path) || !str_equal(m->query, again.query));
	BUG_ON(!str_equal(m->authority, again.authority) || !str_equal(m->method_name, again.method_name));
	BUG_ON(m->framing != again.framing || m->content_length != again.content_length);
	BUG_ON(m->has_upgrade != again.has_upgrade);
	check_same_rows(m, &again);
	arena_free(&arena);
	free(out);
}

static void take_body(struct stream *s, char *data, size_t n, bool end)
{
	struct request *r = (struct request *)s;
	struct message m = { .arena = &r->arena, .status = 200, .minor = 1, .framing = FRAMING_CHUNKED };

	BUG_ON(s->paused || s->response_done);
	if (n > 0)
		memset(data, '#', n);
	r->body_bytes += n;
	if (s->req.framing == FRAMING_LENGTH)
		BUG_ON(r->body_bytes > s->req.content_length || (end && r->body_bytes != s->req.content_length));
	if (s->req.framing == FRAMING_NONE)
		BUG_ON(r->body_bytes > 0);
	if (end)
		stream_send(s, &m, s->req.path, true);
	else if (r->body_bytes % 3 == 1)
		stream_pause(s);
	if (s->paused)
		stream_resume(s);
}

static void take_request(struct stream *s, char *data, size_t n, bool end)
{
	check_head(&s->req);
	check_written(&s->req);
	take_body(s, data, n, end);
}

static void ignore_drained(struct stream *s)
{
	(void)s;
}

static void end_request(struct stream *s, enum stream_end how)
{
	struct request *r = (struct request *)s;

	(void)how;
	BUG_ON(s->connection || s->carrier);
	n_open--;
	arena_free(&r->arena);
	mem_free(r);
}

static const struct server_ops ops = {
	.open = open_request,
	.request = take_request,
	.body = take_body,
	.drained = ignore_drained,
	.closed = end_request,
};

static void release(struct garbage *g)
{
	mem_free(CONTAINER(g, struct server_connection, garbage_link));
}

static void connect_to(int fd)
{
	struct server_connection *c = MEM_NEW(struct server_connection);

	c->watch.fd = c->transport.fd = fd;
	c->watch.ready = connection_ready;
	c->protocol = &h2_protocol;
	c->server = server;
	c->listener = &listener;
	c->since_ms = c->write_ms = clock_ms();
	timer_init(&c->timer, connection_timeout);
	task_init(&c->task, connection_run);
	c->garbage_link.release = release;
	list_init(&c->node);
	BUG_ON(!loop_add(loop, &c->watch, 0));
	listener.refs++;
	server->n_connections++;
	list_append(&server->connections, &c->node);
	connection_speak(c, &h2_protocol);
}

static void set_up(void)
{
	loop = loop_new();
	server = server_new(loop, &ops, &server_default_settings, NULL);
	listener = (struct server_listener){ .server = server, .refs = 1 };
}

void h2_peer_serve(const uint8_t *data, size_t size)
{
	static const uint8_t settings[] = { 0, 0, 0, 4, 0, 0, 0, 0, 0 };
	int64_t held;
	int pair[2];

	if (!loop)
		set_up();
	held = budget.used;
	BUG_ON(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0);
	BUG_ON(write(pair[1], H2_PREFACE, H2_PREFACE_BYTES) != H2_PREFACE_BYTES);
	BUG_ON(write(pair[1], settings, sizeof settings) != sizeof settings);
	BUG_ON(size > 0 && write(pair[1], data, size) != (ssize_t)size);
	connect_to(pair[0]);
	for (int i = 0; i < 6; i++)
		loop_run_once(loop, 0);
	close(pair[1]);
	for (int i = 0; i < 100 && server_connections(server) > 0; i++)
		loop_run_once(loop, 0);
	loop_run_once(loop, 0);
	BUG_ON(server_connections(server) != 0 || n_open != 0);
	BUG_ON(budget.used != held);
}
