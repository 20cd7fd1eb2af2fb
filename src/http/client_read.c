/* client_read.c -- what arrives from upstreams: connects, response heads and bodies, closes. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/client_connection.h"

static const struct h1_limits response_limits = {
	.head_bytes = 65536, .fields = 256, .target_bytes = 16384, .keep_underscores = true,
};

static void stash(struct client_connection *c, const char *p, size_t n)
{
	if (c->in_n + n > c->in_cap) {
		budget_add(-(int64_t)c->in_cap);
		c->in_cap = (uint32_t)((c->in_n + n + 1023) & ~(size_t)1023);
		budget_add(c->in_cap);
		c->in = mem_resize(c->in, c->in_cap);
	}
	memcpy(c->in + c->in_n, p, n);
	c->in_n += (uint32_t)n;
}

static void malformed(struct client_connection *c, enum h1_fault fault)
{
	if (c->call)
		c->call->fault = fault;
	upstream_fail(c, c->has_head ? CALL_TRUNCATED : CALL_MALFORMED, 0);
}

/*
 * Body bytes p[0..n) to the call; `is_first` together with the head. The connection is let go of before the owner
 * hears of the end, so that it may be used at once. False: nothing more is to be read for this call.
 */
static bool deliver(struct client_connection *c, char *p, size_t n, bool is_first)
{
	struct call *call = c->call;
	size_t used = 0, size = 0;
	enum h1_result result = H1_DONE;

	if (!h1_body_is_done(&c->body))
		result = h1_body_decode(&c->body, p, n, &used, &size);
	if (result == H1_BAD) {
		malformed(c, c->body.fault);
		return false;
	}
	if (c->body.trailers)
		call->res.trailers = c->body.trailers;
	if (result == H1_DONE) {
		/* What the kernel does not take of a body's last piece is not for the next call to wait behind. */
		output_settle(&c->out);
		/*
		 * Bytes beyond the response belong to no request: the connection cannot be trusted, this response
		 * can.
		 */
		upstream_detach(c, c->keep_alive && call->request_done && used == n && !c->is_readable && !c->is_eof &&
					   !c->write_error && output_is_empty(&c->out));
	}
	if (is_first)
		call->ops->response(call, p, size, result == H1_DONE);
	else if (size > 0 || result == H1_DONE)
		call->ops->body(call, p, size, result == H1_DONE);
	return result != H1_DONE && c->state == UPSTREAM_BUSY;
}

/* Another protocol from here on: the one that was asked for, and no other. */
static bool accept_upgrade(struct client_connection *c)
{
	struct call *call = c->call;

	if (call->upgrade.n == 0 || !call->res.has_upgrade ||
	    !str_equal_nocase(message_upgrade(&call->res), call->upgrade))
		return false;
	call->res.upgrade = call->upgrade;
	call->is_tunnel = true;
	call->request_done = false;
	upstream_tunnel(c);
	return true;
}

/* Parses a complete head of `size` bytes at p into the call. False: the connection failed. */
static bool parse(struct client_connection *c, const char *p, size_t size)
{
	struct call *call = c->call;
	enum h1_fault fault;

	call->res = (struct message){ .arena = call->arena };
	fault = h1_parse_response(&call->res, (struct str){ p, size }, &response_limits, call->method);
	c->scan = (struct h1_scan){ 0 };
	if (fault == H1_FAULT_NONE && call->res.status == 101 && !accept_upgrade(c))
		fault = H1_FAULT_STATUS_LINE;
	if (fault == H1_FAULT_NONE && call->res.status < 200 && ++c->interims > INTERIM_MAX)
		fault = H1_FAULT_HEAD_LARGE;
	if (fault != H1_FAULT_NONE)
		malformed(c, fault);
	return fault == H1_FAULT_NONE;
}

/* Bytes of a head at p[0..n), from its first byte on. Interim heads are passed over. */
static bool take_head(struct client_connection *c, char *p, size_t n)
{
	struct call *call = c->call;
	size_t size = 0;

	for (; n > 0; p += size, n -= size) {
		enum h1_result result = h1_find_head(&c->scan, p, n, &size);

		if (result == H1_BAD) {
			malformed(c, c->scan.fault);
			return false;
		}
		if ((result == H1_DONE ? size : n) > response_limits.head_bytes) {
			malformed(c, H1_FAULT_HEAD_LARGE);
			return false;
		}
		if (result == H1_MORE) {
			stash(c, p, n);
			return true;
		}
		if (!parse(c, p, size))
			return false;
		if (call->is_tunnel) {
			call->ops->response(call, p + size, n - size, false);
			return c->state == UPSTREAM_BUSY && c->call;
		}
		if (call->res.status == 103 && call->ops->interim)
			call->ops->interim(call);
		if (call->res.status >= 200) {
			c->has_head = true;
			c->keep_alive = call->res.keep_alive && call->res.framing != FRAMING_CLOSE;
			h1_body_init(&c->body, call->res.framing, call->res.content_length);
			c->body.arena = call->arena;
			c->body.keep_underscores = true;
			return deliver(c, p + size, n - size, true);
		}
	}
	return true;
}

static bool take(struct client_connection *c, char *p, size_t n)
{
	c->call->response_started = true;
	c->call->received += n;
	if (c->has_head)
		return deliver(c, p, n, false);
	if (c->in_n == 0)
		return take_head(c, p, n);
	stash(c, p, n);
	char *kept = c->in;
	n = c->in_n;
	c->in = NULL;
	budget_add(-(int64_t)c->in_cap);
	c->in_n = c->in_cap = 0;
	bool goes_on = take_head(c, kept, n);
	mem_free(kept);
	return goes_on;
}

/* The upstream closed its side or broke. */
static void ended(struct client_connection *c, int error)
{
	struct call *call = c->call;

	if (!call) {
		upstream_close(c);
		return;
	}
	if (call->is_tunnel && c->has_head && error == 0) {
		c->has_ended = true;
		call->ops->body(call, NULL, 0, true);
		return;
	}
	if (c->has_head && c->body.framing == FRAMING_CLOSE && error == 0 && transport_ended_well(&c->transport)) {
		upstream_detach(c, false);
		call->ops->body(call, NULL, 0, true);
		return;
	}
	upstream_fail(c, upstream_failure(c), error ? error : ECONNRESET);
}

/* False: the kernel has nothing now, or the connection is gone. */
static bool receive(struct client_connection *c)
{
	size_t piece = budget_piece(c->client->receive_bytes);
	ssize_t n;

	if (c->call && c->call->first_piece > 0 && !c->has_head && c->call->first_piece < piece)
		piece = c->call->first_piece;
	n = transport_receive(&c->transport, c->client->buffer, piece);
	if (n < 0 && errno == EAGAIN) {
		c->is_readable = false;
		if (c->write_error)
			upstream_fail(c, upstream_failure(c), c->write_error);
		return false;
	}
	if (n <= 0) {
		ended(c, n < 0 ? errno : 0);
		return false;
	}
	if (!c->call) {
		upstream_close(c);         /* bytes on an idle connection belong to no request */
		return false;
	}
	if (transport_is_drained(&c->transport, (size_t)n, piece) && !c->is_eof && !c->write_error)
		c->is_readable = false;
	c->since_ms = clock_ms();
	return take(c, c->client->buffer, (size_t)n);
}

void upstream_pump(struct client_connection *c)
{
	int reads = 0;

	if (c->is_pumping)
		return;
	/* Nothing more is read that could say so. */
	if (c->has_ended && c->write_error) {
		upstream_fail(c, CALL_TRUNCATED, c->write_error);
		return;
	}
	c->is_pumping = true;
	while (c->is_readable && (c->state == UPSTREAM_BUSY || c->state == UPSTREAM_IDLE) &&
	       !c->has_ended && !(c->call && c->call->paused && c->has_head)) {
		if (reads++ == READS_PER_TURN) {
			loop_defer(c->client->loop, &c->task);
			break;
		}
		if (!receive(c))
			break;
	}
	c->is_pumping = false;
}

/* False: the connection failed. */
static bool take_connection(struct client_connection *c)
{
	int error = 0;
	socklen_t n = sizeof error;

	if (getsockopt(c->watch.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	if (error) {
		upstream_fail(c, CALL_CONNECT, error);
		return false;
	}
	if (c->transport.tls)
		c->state = UPSTREAM_SECURING;
	return true;
}

/* A step of the handshake. False: more of them follow, or it failed. */
static bool secure(struct client_connection *c)
{
	enum tls_result result;

	if (!client_may_shake(c->client)) {
		loop_defer(c->client->loop, &c->task);
		return false;
	}
	result = client_shake_hands(c->client, &c->transport, c->is_eof);
	if (result == TLS_FAILED)
		upstream_fail(c, CALL_CONNECT, EPROTO);
	/* The first records may have come with the last of the handshake. */
	c->is_readable = result == TLS_DONE;
	return result == TLS_DONE;
}

/* Goes on to be a connection that requests can go out on. False: it is none yet, or failed. */
static bool open_up(struct client_connection *c, uint32_t events)
{
	if (c->state == UPSTREAM_CONNECTING) {
		if (!(events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) || !take_connection(c))
			return false;
	}
	if (c->state == UPSTREAM_SECURING && !secure(c))
		return false;
	c->state = UPSTREAM_BUSY;
	c->since_ms = clock_ms();
	c->call->connected_us = clock_us();
	if (c->call->idle_timeout_ms > 0)
		loop_arm(c->client->loop, &c->timer, c->call->idle_timeout_ms);
	return true;
}

/* What came on an idle connection is no answer to anything; records of TLS itself are none either. */
static bool is_quiet(struct client_connection *c)
{
	char byte;

	return c->transport.tls && transport_receive(&c->transport, &byte, 1) < 0 && errno == EAGAIN;
}

static void flush(struct client_connection *c)
{
	enum output_result result = output_flush(&c->out, &c->transport);

	if (result == OUTPUT_FAILED) {
		c->write_error = errno;
		c->is_readable = true;
		output_free(&c->out);
		return;
	}
	c->since_ms = clock_ms();
	if (result != OUTPUT_ALL || !c->call)
		return;
	if (c->call->is_tunnel && c->call->request_done)
		upstream_half_close(c);
	if (c->call->is_tunnel || !c->call->request_done)
		c->call->ops->drained(c->call);
}

void upstream_ready(struct watch *w, uint32_t events)
{
	struct client_connection *c = CONTAINER(w, struct client_connection, watch);
	bool is_out = events & EPOLLOUT;

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->is_eof = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->is_readable = true;
	/*
	 * Events are collected before a turn begins: these bytes were there before the call took the connection out
	 * of the pool.
	 */
	if (c->call && c->call->reused && c->turn == loop_turn(c->client->loop) && (events & EPOLLIN) && !is_quiet(c)) {
		upstream_fail(c, CALL_RESET, EPROTO);
		return;
	}
	if (upstream_is_opening(c)) {
		if (!open_up(c, events))
			return;
		is_out = true;
		if (output_is_empty(&c->out) && !c->call->request_done)
			c->call->ops->drained(c->call);
	}
	if (c->has_ended && (events & EPOLLERR))
		c->write_error = ECONNRESET;
	else if (is_out && c->state == UPSTREAM_BUSY && !output_is_empty(&c->out))
		flush(c);
	upstream_pump(c);
}
