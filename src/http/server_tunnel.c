/*
 * server_tunnel.c -- connections whose bytes are one stream without framing: after an upgrade, and of TCP listeners.
 *
 *      client's bytes ──► body(...)   until its end ──► body(end)      request_done
 *      stream_send()  ──► client      `end` ──► our half is shut       is_half_closed, when all is in the kernel
 *      both, and the stream is not paused (its last bytes are still on their way) ──► closed(STREAM_SENT)
 *
 * Each direction ends alone, so a client may shut its half and still read what comes. There is no limit of time here
 * but that of output that waits: how long a tunnel may be silent is its owner's to say.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/server_connection.h"

/* A peer that meant to send more must not take this for an end: reset. */
static void reset(struct server_connection *c)
{
	setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	connection_close(c);
}

static void finish(struct server_connection *c)
{
	struct stream *s = c->stream;

	c->stream = NULL;
	s->connection = NULL;
	c->server->ops->closed(s, STREAM_SENT);
	connection_close(c);
}

/* Does what stream calls left to do. */
static void settle(struct server_connection *c)
{
	struct stream *s = c->stream;

	if (c->state == CONNECTION_CLOSED)
		return;
	if (c->is_broken) {
		reset(c);
		return;
	}
	if (s->response_done && !c->is_half_closed && output_is_empty(&c->out)) {
		transport_shutdown(&c->transport);
		c->is_half_closed = true;
	}
	if (c->is_half_closed && s->request_done && !s->paused)
		finish(c);
}

static void take_kept(struct server_connection *c, struct stream *s)
{
	char *kept = c->in;
	size_t at = c->in_at, n = c->in_n - c->in_at;

	c->in = NULL;
	budget_add(-(int64_t)c->in_cap);
	c->in_at = c->in_n = c->in_cap = 0;
	s->received += n;
	c->server->ops->body(s, kept + at, n, false);
	mem_free(kept);
}

/* False: nothing is there now, or nothing will come. */
static bool receive(struct server_connection *c, struct stream *s)
{
	struct server *server = c->server;
	size_t piece = budget_piece(server->settings.receive_bytes);
	ssize_t n = transport_receive(&c->transport, server->buffer, piece);

	if (n < 0) {
		c->is_readable = false;
		if (errno != EAGAIN)
			connection_close(c);
		return false;
	}
	if (n == 0) {
		s->request_done = true;
		server->ops->body(s, NULL, 0, true);
		return false;
	}
	if (transport_is_drained(&c->transport, (size_t)n, piece) && !c->is_eof)
		c->is_readable = false;
	s->received += (size_t)n;
	server->ops->body(s, server->buffer, (size_t)n, false);
	return true;
}

static bool may_read(const struct server_connection *c)
{
	return c->state != CONNECTION_CLOSED && !c->is_broken && !c->stream->paused && !c->stream->request_done;
}

static void pump(struct server_connection *c)
{
	int reads = 0;

	if (c->is_pumping || c->state == CONNECTION_CLOSED || !c->stream)
		return;
	c->is_pumping = true;
	while (may_read(c)) {
		if (c->in_n > c->in_at) {
			take_kept(c, c->stream);
			continue;
		}
		if (!c->is_readable)
			break;
		if (reads++ == READS_PER_TURN) {
			loop_defer(c->server->loop, &c->task);
			break;
		}
		if (!receive(c, c->stream))
			break;
	}
	c->is_pumping = false;
	settle(c);
}

static void take_edge(struct server_connection *c, uint32_t events)
{
	/* A reset. Both halves closed (EPOLLHUP) is none: what came before is still to be read. */
	if (events & EPOLLERR)
		connection_close(c);
	else
		pump(c);
}

static void forget_name(struct server_connection *c)
{
	mem_free(c->session);
	c->session = NULL;
}

/* The stream of a connection that was never anything else. */
static void begin(struct server_connection *c)
{
	struct stream *s = c->server->ops->open(c);
	struct str server_name;

	if (!s) {
		connection_close(c);
		return;
	}
	server_name = arena_copy(s->arena, str_of(c->session));
	forget_name(c);
	s->start_us = clock_us();
	s->req.arena = s->arena;
	connection_tunnel(c, s);
	c->server->ops->tunnel(s, server_name);
}

static void run(struct server_connection *c)
{
	if (!c->stream)
		begin(c);
	pump(c);
}

static void flushed(struct server_connection *c)
{
	if (!c->stream->response_done)
		c->server->ops->drained(c->stream);
	settle(c);
}

static int64_t patience_ends(const struct server_connection *c)
{
	(void)c;
	return 0;
}

static void expired(struct server_connection *c)
{
	connection_close(c);
}

static void ended(struct server_connection *c)
{
	struct stream *s = c->stream;

	c->stream = NULL;
	forget_name(c);
	mem_free(c->in);
	c->in = NULL;
	budget_add(-(int64_t)c->in_cap);
	c->in_cap = 0;
	if (s) {
		s->connection = NULL;
		c->server->ops->closed(s, c->is_aborted ? STREAM_ABORTED : STREAM_CLIENT_GONE);
	}
}

static bool is_idle(const struct server_connection *c)
{
	(void)c;
	return false;
}

static const struct connection_protocol tunnel_protocol = {
	.ready = take_edge,
	.run = run,
	.flushed = flushed,
	.patience = patience_ends,
	.expired = expired,
	.ended = ended,
	.is_idle = is_idle,
};

/* ---------- the stream's side ---------- */

static void break_off(struct server_connection *c)
{
	c->is_broken = true;
	if (!c->is_pumping)
		loop_defer(c->server->loop, &c->task);
}

static bool tunnel_send(struct stream *s, struct message *head, struct str data, bool end)
{
	struct server_connection *c = s->connection;
	struct iovec part = { (void *)(uintptr_t)data.p, data.n };

	(void)head;
	if (!c || c->is_broken || s->response_done)
		return true;
	s->response_done = end;
	return connection_push(c, &part, data.n > 0);
}

static void tunnel_send_continue(struct stream *s)
{
	(void)s;
}

static void tunnel_resume(struct stream *s)
{
	if (s->connection)
		loop_defer(s->connection->server->loop, &s->connection->task);
}

static void tunnel_abort(struct stream *s)
{
	if (!s->connection)
		return;
	s->connection->is_aborted = true;
	break_off(s->connection);
}

static const struct stream_class tunnel_stream_class = {
	.send = tunnel_send,
	.send_continue = tunnel_send_continue,
	.resume = tunnel_resume,
	.abort = tunnel_abort,
};

void connection_tunnel(struct server_connection *c, struct stream *s)
{
	c->stream = s;
	if (s) {
		s->class = &tunnel_stream_class;
		s->connection = c;
		s->request_done = false;
		s->close_after = true;
		s->res_framing = FRAMING_CLOSE;
	}
	/* For an HTTP/1 pump that is on the stack: it hands on what it reads as it is. */
	h1_body_init(&c->body, FRAMING_CLOSE, 0);
	c->state = CONNECTION_BODY;
	connection_speak(c, &tunnel_protocol);
}

void connection_carry_bytes(struct server_connection *c, struct str server_name)
{
	char *name = NULL;

	if (server_name.n) {
		name = mem_alloc(server_name.n + 1);
		memcpy(name, server_name.p, server_name.n);
		name[server_name.n] = '\0';
	}
	c->session = name;
	connection_tunnel(c, NULL);
}
