/*
 * server_read.c -- what arrives at a connection: heads, bodies, the client's end. See the drawing in server.c.
 *
 * connection_pump() is the only reader. Everything that may have changed what can be read (an edge, a resumed or finished stream)
 * ends in a call of it; it returns when the kernel is empty or the state does not read.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/clock.h"
#include "core/mem.h"
#include "http/server_connection.h"

/* Keeps bytes for later, after what is kept already. */
static void stash(struct server_connection *c, const char *p, size_t n)
{
	if (n == 0)
		return;
	if (c->in_n + n > c->in_cap) {
		c->in_cap = (uint32_t)((c->in_n + n + 1023) & ~(size_t)1023);
		c->in = mem_resize(c->in, c->in_cap);
	}
	memcpy(c->in + c->in_n, p, n);
	c->in_n += (uint32_t)n;
}

/* Answers what the parser or a limit refused, and ends the connection: nothing after it can be believed. */
void connection_refuse(struct server_connection *c, enum h1_fault fault, int status)
{
	char text[256];
	const char *reason = h1_reason(status);
	int n = snprintf(text, sizeof text,
			 "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
			 "Connection: close\r\n\r\n%s\n",
			 status, reason, strlen(reason) + 1, reason);
	struct iovec part = { text, (size_t)n };

	if (c->server->ops->refused)
		c->server->ops->refused(c, fault, status);
	mem_free(c->in);
	c->in = NULL;
	c->in_n = c->in_cap = 0;
	if (output_send(&c->out, c->watch.fd, &part, 1) == OUTPUT_FAILED) {
		connection_close(c);
		return;
	}
	connection_linger(c);
}

/* Body bytes p[0..n) to the stream; what is left belongs to the next request. False when the connection is gone. */
static bool deliver(struct server_connection *c, char *p, size_t n, bool is_first)
{
	struct stream *s = c->stream;
	size_t used = 0, size = 0;
	enum h1_result result = H1_DONE;

	if (!h1_body_is_done(&c->body))
		result = h1_body_decode(&c->body, p, n, &used, &size);
	if (result == H1_BAD) {
		if (is_first || !s || !s->head_sent) {
			c->is_aborted = true;
			connection_refuse(c, c->body.fault, h1_fault_status(c->body.fault));
			if (c->stream) {
				c->stream = NULL;
				s->connection = NULL;
				c->server->ops->closed(s, STREAM_CLIENT_GONE);
			}
		} else {
			connection_close(c);
		}
		return false;
	}
	stash(c, p + used, n - used);
	c->body_bytes += size;
	if (s)
		s->received += size;
	if (result == H1_DONE && c->state == CONNECTION_BODY)
		c->state = CONNECTION_WAIT;
	if (!s)
		return true;
	s->request_done = result == H1_DONE;
	if (is_first)
		c->server->ops->request(s, p, size, s->request_done);
	else if (size > 0 || s->request_done)
		c->server->ops->body(s, p, size, s->request_done);
	return c->state != CONNECTION_CLOSED;
}

/* The head is complete: size bytes at p; n - size more follow. False when the connection is gone or closing. */
static bool begin(struct server_connection *c, char *p, size_t n, size_t size)
{
	struct server *server = c->server;
	struct stream *s = server->ops->open(c);
	enum h1_fault fault;

	if (!s) {
		connection_refuse(c, H1_FAULT_NONE, 503);
		return false;
	}
	s->connection = c;
	s->start_us = clock_us();
	s->req.arena = s->arena;
	c->stream = s;
	c->requests++;
	char *head = arena_take(s->arena, size);
	memcpy(head, p, size);
	fault = h1_parse_request(&s->req, (struct str){ head, size }, &server->settings.limits);
	if (fault != H1_FAULT_NONE) {
		c->stream = NULL;
		s->connection = NULL;
		connection_refuse(c, fault, h1_fault_status(fault));
		server->ops->closed(s, STREAM_ABORTED);
		return false;
	}
	h1_body_init(&c->body, s->req.framing, s->req.content_length);
	c->scan = (struct h1_scan){ 0 };
	c->state = CONNECTION_BODY;
	c->is_aborted = false;
	c->since_ms = c->body_ms = clock_ms();
	c->head_ms = 0;
	c->body_bytes = 0;
	if (s->req.framing != FRAMING_NONE)
		loop_arm(server->loop, &c->timer, server->settings.body_idle_ms);
	return deliver(c, p + size, n - size, true);
}

/* Bytes of a head at p[0..n), from its first byte on. False: nothing more can be done now. */
static bool take_head(struct server_connection *c, char *p, size_t n)
{
	size_t skip = c->scan.seen ? 0 : h1_skip_empty(p, n), size = 0;
	const struct server_settings *settings = &c->server->settings;

	switch (h1_find_head(&c->scan, p + skip, n - skip, &size)) {
	case H1_BAD:
		connection_refuse(c, c->scan.fault, h1_fault_status(c->scan.fault));
		return false;
	case H1_DONE:
		if (size <= settings->limits.head_bytes)
			return begin(c, p + skip, n - skip, size);
		break;
	case H1_MORE:
		if (n - skip <= settings->limits.head_bytes) {
			stash(c, p + skip, n - skip);
			if (c->head_ms == 0 && n > skip) {
				c->head_ms = clock_ms();
				loop_arm(c->server->loop, &c->timer, settings->header_timeout_ms);
			}
			return true;
		}
		break;
	}
	connection_refuse(c, H1_FAULT_HEAD_LARGE, h1_fault_status(H1_FAULT_HEAD_LARGE));
	return false;
}

/* One receive into the shared buffer. 0 = nothing there now; -1 = the client's end or an error. */
static ssize_t receive(struct server_connection *c)
{
	struct server *s = c->server;
	ssize_t n;

	do
		n = recv(c->watch.fd, s->buffer, s->settings.receive_bytes, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN) {
		c->is_readable = false;
		return 0;
	}
	if (n <= 0)
		return -1;
	if ((size_t)n < s->settings.receive_bytes && !c->is_eof)
		c->is_readable = false;
	c->since_ms = clock_ms();
	return n;
}

static bool take_kept(struct server_connection *c);

/* Takes bytes that were kept or received to where the state wants them. False: stop pumping. */
static bool take(struct server_connection *c, char *p, size_t n)
{
	switch ((enum connection_state)c->state) {
	case CONNECTION_HEAD:
		if (c->in_n > 0) {
			stash(c, p, n);
			return take_kept(c);
		}
		return take_head(c, p, n);
	case CONNECTION_BODY:
	case CONNECTION_DRAIN:
		if (!deliver(c, p, n, false))
			return false;
		if (c->state == CONNECTION_DRAIN && h1_body_is_done(&c->body))
			c->state = CONNECTION_HEAD;
		return true;
	case CONNECTION_LINGER:
		c->lingered += n;
		if (c->lingered < LINGER_BYTES)
			return true;
		connection_close(c);
		return false;
	case CONNECTION_WAIT:
	case CONNECTION_CLOSED:
		break;
	}
	return false;
}

/* The kept bytes leave the connection while they are looked at: what is not used is kept again. */
static bool take_kept(struct server_connection *c)
{
	char *p = c->in;
	size_t n = c->in_n;

	c->in = NULL;
	c->in_n = c->in_cap = 0;
	bool goes_on = take(c, p, n);
	mem_free(p);
	return goes_on;
}

static bool may_read(const struct server_connection *c)
{
	switch ((enum connection_state)c->state) {
	case CONNECTION_HEAD:
		return output_is_empty(&c->out);
	case CONNECTION_BODY:
		return c->stream && !c->stream->paused;
	case CONNECTION_DRAIN:
	case CONNECTION_LINGER:
		return true;
	case CONNECTION_WAIT:
	case CONNECTION_CLOSED:
		break;
	}
	return false;
}

/* Kept bytes are a whole body piece or the start of a request; a partial head waits for more and is not tried again. */
static bool has_kept(const struct server_connection *c)
{
	return c->in_n > 0 && !(c->state == CONNECTION_HEAD && c->scan.seen > 0);
}

static void pump_once(struct server_connection *c)
{
	while (may_read(c)) {
		if (has_kept(c)) {
			if (!take_kept(c))
				return;
			continue;
		}
		if (!c->is_readable)
			return;
		ssize_t n = receive(c);
		if (n < 0) {
			connection_close(c);
			return;
		}
		if (n > 0 && !take(c, c->server->buffer, (size_t)n))
			return;
	}
}

void connection_pump(struct server_connection *c)
{
	if (c->is_pumping || c->state == CONNECTION_CLOSED)
		return;
	c->is_pumping = true;
	do {
		pump_once(c);
	} while (connection_settle(c));
	c->is_pumping = false;
	/* The client closed its side while its request is served: it will not read the answer. */
	if (c->is_eof && (c->state == CONNECTION_WAIT || (c->state == CONNECTION_BODY && c->stream && c->stream->paused)))
		connection_close(c);
}

void connection_ready(struct watch *w, uint32_t events)
{
	struct server_connection *c = CONTAINER(w, struct server_connection, watch);

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->is_eof = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->is_readable = true;
	if ((events & EPOLLOUT) && !output_is_empty(&c->out))
		connection_flush(c);
	if (c->state == CONNECTION_CLOSED)
		return;
	if ((events & (EPOLLHUP | EPOLLERR)) && c->state != CONNECTION_LINGER && c->state != CONNECTION_HEAD) {
		connection_close(c);
		return;
	}
	connection_pump(c);
}

/* ---------- time ---------- */

/* Whether the body came slower than allowed since its start. */
static bool is_slow(const struct server_connection *c)
{
	const struct server_settings *s = &c->server->settings;
	int64_t elapsed = clock_ms() - c->body_ms;

	return s->body_rate > 0 && elapsed >= s->body_idle_ms && (int64_t)c->body_bytes * 1000 < s->body_rate * elapsed;
}

/* When this state's patience ends; 0 = no limit here. */
static int64_t patience_ends(const struct server_connection *c)
{
	const struct server_settings *s = &c->server->settings;

	if (!output_is_empty(&c->out))
		return c->since_ms + s->write_stall_ms;
	switch ((enum connection_state)c->state) {
	case CONNECTION_HEAD:
		if (c->in_n > 0)
			return c->head_ms + s->header_timeout_ms;
		return c->since_ms + (c->requests ? s->idle_ms : s->header_timeout_ms);
	case CONNECTION_BODY:
		if (c->stream && c->stream->paused)
			return 0;
		return is_slow(c) ? clock_ms() : c->since_ms + s->body_idle_ms;
	case CONNECTION_DRAIN:
	case CONNECTION_LINGER:
		return c->since_ms + LINGER_MS;
	case CONNECTION_WAIT:
	case CONNECTION_CLOSED:
		break;
	}
	return 0;
}

void connection_timeout(struct timer *t)
{
	struct server_connection *c = CONTAINER(t, struct server_connection, timer);
	int64_t now = clock_ms(), ends = patience_ends(c);

	if (ends == 0 || ends > now) {
		/* The timer is left alone while requests come and go; here it is set to what matters now. */
		loop_arm(c->server->loop, t, ends ? ends - now : c->server->settings.body_idle_ms);
		return;
	}
	if (output_is_empty(&c->out) && c->state == CONNECTION_HEAD && c->in_n > 0) {
		connection_refuse(c, H1_FAULT_NONE, 408);
		return;
	}
	if (output_is_empty(&c->out) && c->state == CONNECTION_BODY && c->stream && !c->stream->head_sent) {
		struct stream *s = c->stream;

		c->stream = NULL;
		s->connection = NULL;
		connection_refuse(c, H1_FAULT_NONE, 408);
		c->server->ops->closed(s, STREAM_CLIENT_GONE);
		return;
	}
	connection_close(c);
}
