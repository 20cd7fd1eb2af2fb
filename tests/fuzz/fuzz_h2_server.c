/*
 * fuzz_h2_server.c -- frames of a client: whatever comes after the preface, every stream that was opened is closed,
 * each request handed over is one that HTTP/1.1 could carry, and nothing is left behind.
 */
/* room: http */
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/mem.h"
#include "http/h2.h"
#include "http/server_connection.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t settings[] = { 0, 0, 0, 4, 0, 0, 0, 0, 0 };
	int pair[2];

	if (!loop)
		set_up();
	if (size > 32768)
		return 0;
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
	BUG_ON(server_connections(server) != 0 || n_open != 0);
	return 0;
}
