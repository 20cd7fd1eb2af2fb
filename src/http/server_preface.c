/*
 * server_preface.c -- what comes before a connection's first byte of its own: a PROXY header, or a TLS client hello
 * that is looked at and left for whom the connection is passed on to.
 *
 * Both are looked at in the kernel (MSG_PEEK): bytes behind a PROXY header are the next protocol's, which may be a TLS
 * library that reads the descriptor itself. The limit of time is that of a request head, from the accept on.
 */
#include <errno.h>
#include <sys/socket.h>
#include "core/mem.h"
#include "http/server_connection.h"
#include "net/client_hello.h"
#include "net/proxy_protocol.h"

static void refuse(struct server_connection *c, enum h1_fault fault)
{
	if (c->server->ops->refused)
		c->server->ops->refused(c, fault, 0, STR(""));
	connection_close(c);
}

/* Looks at up to `most` bytes in the server's buffer: how many there are. -1: there is nothing to wait for. */
static ssize_t peek(struct server_connection *c, size_t most)
{
	ssize_t n;

	do
		n = recv(c->watch.fd, c->server->buffer, most, MSG_PEEK);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	return n > 0 ? n : -1;
}

/* For the rest, which cannot come after the client's end. */
static void wait_for_more(struct server_connection *c)
{
	c->is_readable = false;
	if (c->is_eof)
		connection_close(c);
	else
		connection_dismiss(c);
}

/* ---------- PROXY header ---------- */

static void read_proxy_header(struct server_connection *c)
{
	struct server *s = c->server;
	struct proxy_header header = { 0 };
	ssize_t n = peek(c, PROXY_HEADER_MAX);
	const struct connection_protocol *self = c->protocol;

	if (n < 0) {
		connection_close(c);
		return;
	}
	switch (proxy_protocol_parse(s->buffer, (size_t)n, &header)) {
	case PROXY_BAD:
		refuse(c, H1_FAULT_PROXY_HEADER);
		return;
	case PROXY_MORE:
		wait_for_more(c);
		return;
	case PROXY_DONE:
		break;
	}
	/* All of it lies in the kernel. */
	if (recv(c->watch.fd, s->buffer, header.size, 0) != (ssize_t)header.size) {
		connection_close(c);
		return;
	}
	if (header.has_source)
		c->peer = header.source;
	if (s->ops->identified && !s->ops->identified(c)) {
		connection_close(c);
		return;
	}
	if (c->protocol == self)
		connection_speak(c, &h1_protocol);
}

/* ---------- client hello ---------- */

static void read_name(struct server_connection *c)
{
	char name[SERVER_NAME_MAX];
	ssize_t n = peek(c, CLIENT_HELLO_MAX);

	if (n < 0) {
		connection_close(c);
		return;
	}
	switch (client_hello_parse(c->server->buffer, (size_t)n, name)) {
	case HELLO_BAD:
		refuse(c, H1_FAULT_CLIENT_HELLO);
		return;
	case HELLO_MORE:
		wait_for_more(c);
		return;
	case HELLO_DONE:
		break;
	}
	connection_carry_bytes(c, str_of(name));
}

/* ---------- what both have in common ---------- */

static void proxy_header_ready(struct server_connection *c, uint32_t events)
{
	(void)events;
	if (c->is_readable)
		read_proxy_header(c);
}

static void name_ready(struct server_connection *c, uint32_t events)
{
	(void)events;
	if (c->is_readable)
		read_name(c);
}

static void run_proxy_header(struct server_connection *c)
{
	proxy_header_ready(c, 0);
}

static void run_name(struct server_connection *c)
{
	name_ready(c, 0);
}

static void flushed(struct server_connection *c)
{
	(void)c;
}

static int64_t patience_ends(const struct server_connection *c)
{
	return c->since_ms + c->server->settings.header_timeout_ms;
}

static void ended(struct server_connection *c)
{
	(void)c;
}

/* Nothing was asked yet. */
static bool is_idle(const struct server_connection *c)
{
	(void)c;
	return true;
}

static const struct connection_protocol proxy_header_protocol = {
	.ready = proxy_header_ready,
	.run = run_proxy_header,
	.flushed = flushed,
	.patience = patience_ends,
	.expired = connection_close,
	.ended = ended,
	.is_idle = is_idle,
};

static const struct connection_protocol name_protocol = {
	.ready = name_ready,
	.run = run_name,
	.flushed = flushed,
	.patience = patience_ends,
	.expired = connection_close,
	.ended = ended,
	.is_idle = is_idle,
};

void connection_read_proxy_header(struct server_connection *c)
{
	connection_speak(c, &proxy_header_protocol);
}

void connection_peek_name(struct server_connection *c)
{
	connection_speak(c, &name_protocol);
}
