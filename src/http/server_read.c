/*
 * server_read.c -- what arrives at a connection: heads, bodies, the client's end. See the drawing in server.c.
 *
 * h1_pump() is the only reader. Everything that may have changed what can be read (an edge, a resumed or
 * finished stream) ends in a call of it; it returns when the kernel is empty or the state does not read.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/h2.h"
#include "http/identity_field.h"
#include "http/server_connection.h"

static void drop_kept(struct server_connection *c)
{
	mem_free(c->in);
	c->in = NULL;
	budget_add(-(int64_t)c->in_cap);
	c->in_at = c->in_n = c->in_cap = 0;
}

/*
 * Keeps bytes for later, after what is kept already. Those that are the end of the kept bytes being looked at
 * (take_kept) stay where they lie: many small requests in one piece are not copied once for each of them.
 */
static void stash(struct server_connection *c, const char *p, size_t n)
{
	if (n == 0)
		return;
	if (c->in && p + n == c->in + c->in_n) {
		c->in_at = c->in_n - (uint32_t)n;
		return;
	}
	if (c->in_at > 0) {
		memmove(c->in, c->in + c->in_at, c->in_n - c->in_at);
		c->in_n -= c->in_at;
		c->in_at = 0;
	}
	if (c->in_n + n > c->in_cap) {
		budget_add(-(int64_t)c->in_cap);
		c->in_cap = (uint32_t)((c->in_n + n + 1023) & ~(size_t)1023);
		budget_add(c->in_cap);
		c->in = mem_resize(c->in, c->in_cap);
	}
	memcpy(c->in + c->in_n, p, n);
	c->in_n += (uint32_t)n;
}

static const char *refusal_code(int status)
{
	switch (status) {
	case 408: return "ErrRequestTimeout";
	case 414:
	case 431: return "ErrRequestTooLarge";
	case 501:
	case 505: return "ErrNotSupported";
	case 503: return "ErrOverloaded";
	default: return "ErrBadRequest";
	}
}

/* Answers what the parser or a limit refused, and ends the connection: nothing after it can be believed. */
void h1_refuse(struct server_connection *c, enum h1_fault fault, int status)
{
	char text[512], body[256], id[40];
	const char *reason = h1_reason(status);
	struct iovec part = { text, 0 };
	int n;

	snprintf(id, sizeof id, "%08x%08x%08x%08x", arc4random(), arc4random(), arc4random(), arc4random());
	n = snprintf(body, sizeof body, "{\"errorCode\":\"%s\",\"errorMessage\":\"%s: %s\",\"requestId\":\"%s\"}",
		     refusal_code(status), reason, h1_fault_tag(fault), id);
	part.iov_len = (size_t)snprintf(text, sizeof text,
		"HTTP/1.1 %d %s\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n"
		"X-Request-Id: %s\r\nConnection: close\r\n\r\n%s", status, reason, n, id, body);
	if (c->server->ops->refused)
		c->server->ops->refused(c, fault, status, (struct str){ id, strlen(id) });
	drop_kept(c);
	/* Who does not even take these few bytes will not read them. */
	if (output_send(&c->out, &c->transport, &part, 1) != OUTPUT_ALL)
		connection_close(c);
	else
		connection_linger(c);
}

/* The body breaks the protocol: an answer if none is under way, and the end of the connection. */
static void refuse_body(struct server_connection *c)
{
	struct stream *s = c->stream;

	if (!s || s->head_sent) {
		connection_close(c);
		return;
	}
	c->stream = NULL;
	s->connection = NULL;
	h1_refuse(c, c->body.fault, h1_fault_status(c->body.fault));
	c->server->ops->closed(s, STREAM_CLIENT_GONE);
}

/* Body bytes p[0..n) to the stream; what is left belongs to the next request. */
static void deliver(struct server_connection *c, char *p, size_t n, bool is_first)
{
	struct stream *s = c->stream;
	size_t used = 0, size = 0;
	enum h1_result result = H1_DONE;

	/* What nobody waits for any more has no place to keep its trailers either. */
	if (!s)
		c->body.arena = NULL;
	if (!h1_body_is_done(&c->body))
		result = h1_body_decode(&c->body, p, n, &used, &size);
	if (result == H1_BAD) {
		refuse_body(c);
		return;
	}
	stash(c, p + used, n - used);
	c->body_bytes += size;
	if (c->state == CONNECTION_BODY)
		c->since_ms = clock_ms();
	if (s)
		s->received += size;
	if (result == H1_DONE && c->state == CONNECTION_BODY)
		c->state = CONNECTION_WAIT;
	if (!s)
		return;
	s->request_done = result == H1_DONE;
	if (c->body.trailers) {
		s->req.trailers = c->body.trailers;
		identity_trailers_strip(&s->req);
	}
	if (is_first)
		c->server->ops->request(s, p, size, s->request_done);
	else if (size > 0 || s->request_done)
		c->server->ops->body(s, p, size, s->request_done);
}

/* The head is complete: size bytes at p; n - size more follow. */
static void begin(struct server_connection *c, char *p, size_t n, size_t size)
{
	struct server *server = c->server;
	struct stream *s = server->ops->open(c);
	enum h1_fault fault;

	if (!s) {
		h1_refuse(c, H1_FAULT_NONE, 503);
		return;
	}
	s->class = &h1_stream_class;
	s->connection = c;
	s->start_us = clock_us();
	s->req.arena = s->arena;
	c->stream = s;
	c->requests++;
	fault = h1_parse_request(&s->req, (struct str){ p, size }, &server->settings.limits);
	if (fault != H1_FAULT_NONE) {
		c->stream = NULL;
		s->connection = NULL;
		h1_refuse(c, fault, h1_fault_status(fault));
		server->ops->closed(s, STREAM_ABORTED);
		return;
	}
	h1_body_init(&c->body, s->req.framing, s->req.content_length);
	c->body.arena = s->arena;
	c->body.keep_underscores = server->settings.limits.keep_underscores;
	c->scan = (struct h1_scan){ 0 };
	c->has_skipped = false;
	c->state = CONNECTION_BODY;
	c->is_aborted = false;
	c->since_ms = c->body_ms = clock_ms();
	c->head_ms = 0;
	c->body_bytes = 0;
	if (s->req.framing != FRAMING_NONE)
		loop_arm(server->loop, &c->timer, server->settings.body_idle_ms);
	deliver(c, p + size, n - size, true);
}

/*
 * The first bytes of a connection may be HTTP/2's preface, which no request of HTTP/1 begins with (RFC 9113 3.3).
 * True: they were taken, or kept until it can be told.
 */
static bool take_preface(struct server_connection *c, const char *p, size_t n)
{
	size_t seen = n < H2_PREFACE_BYTES ? n : H2_PREFACE_BYTES;

	if (c->requests > 0 || memcmp(p, H2_PREFACE, seen) != 0)
		return false;
	stash(c, p, n);
	if (n < H2_PREFACE_BYTES) {
		c->is_partial = true;
		if (c->head_ms == 0)
			c->head_ms = clock_ms();
		return true;
	}
	c->state = CONNECTION_WAIT;
	connection_speak(c, &h2_protocol);
	return true;
}

/* Bytes of a head at p[0..n), from its first byte on. */
static void take_head(struct server_connection *c, char *p, size_t n)
{
	if (UNLIKELY(n > 0 && p[0] == 'P') && c->scan.seen == 0 && take_preface(c, p, n))
		return;
	size_t skip = c->scan.seen || c->has_skipped ? 0 : h1_skip_empty(p, n), size = 0;
	const struct server_settings *settings = &c->server->settings;

	c->has_skipped = c->has_skipped || skip > 0;
	switch (h1_find_head(&c->scan, p + skip, n - skip, &size)) {
	case H1_BAD:
		h1_refuse(c, c->scan.fault, h1_fault_status(c->scan.fault));
		return;
	case H1_DONE:
		if (size <= settings->limits.head_bytes) {
			begin(c, p + skip, n - skip, size);
			return;
		}
		break;
	case H1_MORE:
		if (n - skip <= settings->limits.head_bytes) {
			stash(c, p + skip, n - skip);
			c->is_partial = n > skip;
			if (c->is_partial && c->head_ms == 0) {
				c->head_ms = clock_ms();
				loop_arm(c->server->loop, &c->timer, settings->header_timeout_ms);
			}
			/*
			 * Empty lines are no request: they do not start its time, nor do they renew the connection's.
			 */
			if (!c->is_partial)
				c->head_ms = 0;
			return;
		}
		break;
	}
	h1_refuse(c, H1_FAULT_HEAD_LARGE, h1_fault_status(H1_FAULT_HEAD_LARGE));
}

static void take_kept(struct server_connection *c);

/* Takes bytes that were kept or received to where the state wants them. */
static void take(struct server_connection *c, char *p, size_t n)
{
	switch ((enum connection_state)c->state) {
	case CONNECTION_HEAD:
		if (c->in_n > c->in_at) {
			stash(c, p, n);
			take_kept(c);
		} else {
			take_head(c, p, n);
		}
		break;
	case CONNECTION_BODY:
	case CONNECTION_DRAIN:
		deliver(c, p, n, false);
		if (c->state == CONNECTION_DRAIN && h1_body_is_done(&c->body))
			c->state = CONNECTION_HEAD;
		break;
	case CONNECTION_LINGER:
		c->lingered += n;
		if (c->lingered >= LINGER_BYTES)
			connection_close(c);
		break;
	case CONNECTION_WAIT:
	case CONNECTION_CLOSED:
		break;
	}
}

/* The kept bytes count as used while they are looked at: what is not is kept again, in its place. */
static void take_kept(struct server_connection *c)
{
	char *p = c->in + c->in_at;
	size_t n = c->in_n - c->in_at;

	c->in_at = c->in_n;
	c->is_partial = false;
	take(c, p, n);
	if (c->in && c->in_at == c->in_n)
		drop_kept(c);
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
	return c->in_n > c->in_at && !(c->state == CONNECTION_HEAD && c->is_partial);
}

/*
 * The kernel has all of an answer before the request behind it is looked at: a bad one ends the connection, and is
 * answered at once.
 */
static void settle_answer(struct server_connection *c)
{
	if (!letter_is_empty(&c->out.letter) && c->state == CONNECTION_HEAD && (c->is_readable || has_kept(c)))
		output_settle(&c->out);
}

/* Reads and hands on until nothing is there, the state does not read, or the turn of others has come. */
static void pump_once(struct server_connection *c, int *reads)
{
	while (may_read(c)) {
		settle_answer(c);
		if (!may_read(c) || c->is_broken)
			return;
		if (has_kept(c)) {
			take_kept(c);
			continue;
		}
		if (!c->is_readable)
			return;
		if ((*reads)++ >= READS_PER_TURN) {
			loop_defer(c->server->loop, &c->task);
			return;
		}
		ssize_t n = connection_receive(c);
		if (n < 0)
			connection_close(c);
		else if (n > 0)
			take(c, c->server->buffer, (size_t)n);
	}
}

void h1_pump(struct server_connection *c)
{
	int reads = 0;

	if (c->is_pumping || c->state == CONNECTION_CLOSED)
		return;
	c->is_pumping = true;
	do {
		pump_once(c, &reads);
	} while (h1_settle(c));
	c->is_pumping = false;
	/* The client closed its side while its request is served: it will not read the answer. */
	if (c->is_eof &&
	    (c->state == CONNECTION_WAIT || (c->state == CONNECTION_BODY && c->stream && c->stream->paused)))
		connection_close(c);
	else if (reads <= READS_PER_TURN)
		connection_dismiss(c);
}

static void take_edge(struct server_connection *c, uint32_t events)
{
	if ((events & (EPOLLHUP | EPOLLERR)) && c->state != CONNECTION_LINGER && c->state != CONNECTION_HEAD)
		connection_close(c);
	else
		h1_pump(c);
}

static void run(struct server_connection *c)
{
	h1_settle(c);
	h1_pump(c);
}

static void flushed(struct server_connection *c)
{
	if (c->stream && !c->stream->response_done)
		c->server->ops->drained(c->stream);
	/* The time of what follows begins when the answer is out. */
	if (c->state == CONNECTION_HEAD || c->state == CONNECTION_DRAIN)
		c->since_ms = clock_ms();
	h1_settle(c);
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

	switch ((enum connection_state)c->state) {
	case CONNECTION_HEAD:
		if (c->is_partial)
			return c->head_ms + s->header_timeout_ms;
		if (c->server->is_draining)
			return c->since_ms + s->drain_idle_ms;
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

static void expired(struct server_connection *c)
{
	struct stream *s = c->stream;

	if (c->state == CONNECTION_HEAD && c->is_partial) {
		h1_refuse(c, H1_FAULT_NONE, 408);
	} else if (c->state == CONNECTION_BODY && s && !s->head_sent) {
		c->stream = NULL;
		s->connection = NULL;
		h1_refuse(c, H1_FAULT_NONE, 408);
		c->server->ops->closed(s, STREAM_CLIENT_GONE);
	} else {
		connection_close(c);
	}
}

static void ended(struct server_connection *c)
{
	struct stream *s = c->stream;

	c->stream = NULL;
	drop_kept(c);
	if (s) {
		s->connection = NULL;
		c->server->ops->closed(s, c->is_aborted ? STREAM_ABORTED : STREAM_CLIENT_GONE);
	}
}

static bool is_idle(const struct server_connection *c)
{
	return c->state == CONNECTION_HEAD && !c->stream && c->in_at == c->in_n && output_is_empty(&c->out);
}

const struct connection_protocol h1_protocol = {
	.ready = take_edge,
	.run = run,
	.flushed = flushed,
	.patience = patience_ends,
	.expired = expired,
	.ended = ended,
	.is_idle = is_idle,
};
