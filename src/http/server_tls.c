/*
 * server_tls.c -- the TLS handshake as what a connection speaks first, and what it speaks afterwards.
 *
 *      first byte ─► a TLS record ─► handshake ─► handshake_done() ─► HTTP/2 or HTTP/1.1 by ALPN, or a tunnel
 *               └─► a letter: HTTP in the clear ─► "400, TLS expected", LINGER
 *                                  └─► failed: the alert is on its way, LINGER
 *
 * Nothing is allocated before the first byte. All of it has to be over within the time for a request head. Only so
 * many steps are taken in one turn of the loop: a flood of handshakes must not keep established connections waiting.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/clock.h"
#include "http/server_connection.h"

enum {
	STEPS_PER_TURN = 16,
	TLS_HANDSHAKE_RECORD = 22,
};

static void tell_failure(struct server_connection *c, enum tls_failure why, const char *text)
{
	if (c->server->ops->handshake_failed)
		c->server->ops->handshake_failed(c, why, text);
}

/* Ends it so that what was sent last is read: without TLS, which is over. */
static void leave(struct server_connection *c)
{
	transport_free(&c->transport);
	connection_linger(c);
	loop_defer(c->server->loop, &c->task);
}

static void answer_plain_text(struct server_connection *c)
{
	static const char body[] = "{\"errorCode\":\"ErrBadRequest\",\"errorMessage\":\"TLS expected: this port serves "
				   "HTTPS; use https:// in the URL\"}";
	char text[400];
	struct iovec part = { text, 0 };

	part.iov_len = (size_t)snprintf(text, sizeof text,
		"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %zu\r\n"
		"Connection: close\r\n\r\n%s", sizeof body - 1, body);
	tell_failure(c, TLS_FAILURE_PLAIN_TEXT, "");
	if (output_send(&c->out, &c->transport, &part, 1) != OUTPUT_ALL)
		connection_close(c);
	else
		leave(c);
}

/* Looks at the first byte. True when a handshake begins with it. */
static bool begin(struct server_connection *c)
{
	unsigned char first = 0;
	ssize_t n;

	do
		n = recv(c->watch.fd, &first, 1, MSG_PEEK);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN) {
		c->is_readable = false;
		return false;
	}
	if (n <= 0) {
		connection_close(c);
	} else if (first == TLS_HANDSHAKE_RECORD) {
		c->transport.tls = tls_accept(c->watch.fd, c->listener->tls);
		return true;
	} else if ((first >= 'A' && first <= 'Z') || (first >= 'a' && first <= 'z')) {
		answer_plain_text(c);
	} else {
		tell_failure(c, TLS_FAILURE_NOT_TLS, "");
		connection_close(c);
	}
	return false;
}

static void succeed(struct server_connection *c)
{
	const struct connection_protocol *self = c->protocol;

	/* A head has its own time, and may have come with the end of the handshake. */
	c->since_ms = clock_ms();
	c->is_readable = true;
	loop_arm(c->server->loop, &c->timer, c->server->settings.header_timeout_ms);
	if (c->server->ops->handshake_done && !c->server->ops->handshake_done(c)) {
		connection_close(c);
		return;
	}
	if (c->state == CONNECTION_CLOSED || c->protocol != self)
		return;
	if (tls_is_h2(c->transport.tls))
		c->state = CONNECTION_WAIT;
	connection_speak(c, tls_is_h2(c->transport.tls) ? &h2_protocol : &h1_protocol);
}

static bool may_step(struct server *s)
{
	if (s->handshake_turn != loop_turn(s->loop)) {
		s->handshake_turn = loop_turn(s->loop);
		s->handshake_steps = 0;
	}
	return s->handshake_steps++ < STEPS_PER_TURN;
}

static void step(struct server_connection *c)
{
	/* Of the configuration in force now, which is not the one that the connection was accepted under. */
	tls_set_names(c->transport.tls, c->listener->tls);
	outbox_flush(c->server->outbox);   /* nobody's message waits for our arithmetic */
	switch (tls_handshake(c->transport.tls)) {
	case TLS_DONE:
		succeed(c);
		return;
	case TLS_WAITS:
		c->is_readable = false;
		/* What is missing cannot come any more. */
		if (c->is_eof) {
			tell_failure(c, TLS_FAILURE_CLOSED, "");
			connection_close(c);
		}
		return;
	case TLS_FAILED:
		tell_failure(c, tls_failure(c->transport.tls), tls_failure_text(c->transport.tls));
		leave(c);
		return;
	}
}

/* After the failure: what still comes is thrown away, so that no reset overtakes our last bytes. */
static void throw_away(struct server_connection *c)
{
	while (c->is_readable && c->state != CONNECTION_CLOSED) {
		ssize_t n = connection_receive(c);

		c->lingered += n > 0 ? (uint64_t)n : 0;
		if (n < 0 || c->lingered >= LINGER_BYTES)
			connection_close(c);
	}
}

static void run(struct server_connection *c)
{
	if (c->state == CONNECTION_LINGER) {
		throw_away(c);
		return;
	}
	if (!c->transport.tls && (!c->is_readable || !begin(c))) {
		if (c->state != CONNECTION_CLOSED)
			connection_dismiss(c);
		return;
	}
	if (may_step(c->server))
		step(c);
	else
		loop_defer(c->server->loop, &c->task);
}

static void take_edge(struct server_connection *c, uint32_t events)
{
	if (events & (EPOLLHUP | EPOLLERR))
		connection_close(c);
	else
		run(c);
}

static void flushed(struct server_connection *c)
{
	(void)c;
}

static int64_t patience_ends(const struct server_connection *c)
{
	if (c->state == CONNECTION_LINGER)
		return c->since_ms + LINGER_MS;
	return c->since_ms + c->server->settings.header_timeout_ms;
}

static void expired(struct server_connection *c)
{
	if (c->state != CONNECTION_LINGER && c->transport.tls)
		tell_failure(c, TLS_FAILURE_TIMEOUT, "");
	connection_close(c);
}

static void ended(struct server_connection *c)
{
	(void)c;
}

/* Nothing came yet. */
static bool is_idle(const struct server_connection *c)
{
	return c->state == CONNECTION_HEAD && !c->transport.tls;
}

static const struct connection_protocol tls_protocol = {
	.ready = take_edge,
	.run = run,
	.flushed = flushed,
	.patience = patience_ends,
	.expired = expired,
	.ended = ended,
	.is_idle = is_idle,
};

void connection_secure(struct server_connection *c)
{
	connection_speak(c, &tls_protocol);
}

const struct tls *connection_tls(const struct server_connection *c)
{
	return c->transport.tls;
}
