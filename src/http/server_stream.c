/*
 * server_stream.c -- the response side of a connection: heads, bodies, their framing, and what follows the last byte.
 *
 * stream_send() never calls the owner: what it leaves to do (the end, a broken peer) is done by h1_settle(),
 * from the pump that is on the stack or from the loop's ready list.
 */
#include <string.h>
#include <sys/socket.h>
#include "core/clock.h"
#include "core/mem.h"
#include "http/server_connection.h"
#include "http/trailers.h"

static bool has_no_body(const struct stream *s, int status)
{
	return s->req.method == METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

/* Whether the connection can carry another request after this response; decides about an unread request body too. */
static bool can_keep(struct server_connection *c, struct stream *s)
{
	const struct server *server = c->server;

	if (!s->req.keep_alive || s->close_after || server->is_draining || c->is_eof)
		return false;
	if (server->settings.requests_per_connection && c->requests >= server->settings.requests_per_connection)
		return false;
	if (s->request_done)
		return true;
	/*
	 * A client that still waits for 100 (Continue) will send its body or not: the bytes after it cannot be told
	 * apart.
	 */
	c->drain_after = c->body.framing == FRAMING_LENGTH && c->body.left <= DRAIN_BYTES && !s->req.expect_continue;
	return c->drain_after;
}

/* Settles framing and persistence of a response head for this client. */
static void settle_head(struct server_connection *c, struct stream *s, struct message *head)
{
	if (head->framing == FRAMING_CLOSE)
		head->framing = FRAMING_CHUNKED;
	if (head->framing == FRAMING_CHUNKED && s->req.minor == 0)
		head->framing = FRAMING_CLOSE;
	if (has_no_body(s, head->status)) {
		s->res_framing = FRAMING_NONE;
	} else {
		if (head->framing == FRAMING_NONE) {
			head->framing = FRAMING_LENGTH;
			head->content_length = 0;
		}
		s->res_framing = (uint8_t)head->framing;
	}
	s->res_left = head->framing == FRAMING_LENGTH ? head->content_length : 0;
	head->minor = s->req.minor;
	head->keep_alive = can_keep(c, s) && s->res_framing != FRAMING_CLOSE;
	if (!head->keep_alive)
		s->close_after = true;
	s->head_sent = true;
}

static void break_off(struct server_connection *c)
{
	c->is_broken = true;
	if (!c->is_pumping)
		loop_defer(c->server->loop, &c->task);
}

/* Room for a head in the shared scratch buffer. */
static char *scratch(struct server *server, size_t n)
{
	if (n > server->scratch_n) {
		server->scratch_n = n < 16384 ? 16384 : n;
		mem_free(server->scratch);
		server->scratch = mem_alloc(server->scratch_n);
	}
	return server->scratch;
}

/* Puts the data of this call into parts, framed. Returns how many parts. */
static int frame(const struct stream *s, struct iovec *parts, char size_line[20], struct str data, bool end)
{
	if (s->res_framing == FRAMING_NONE)
		return 0;
	return h1_frame(s->res_framing == FRAMING_CHUNKED, parts, size_line, data, end);
}

/* The end of the chunks with the fields after it. Returns how many parts. */
static int frame_trailers(const struct stream *s, struct iovec *part)
{
	char *out;

	if (s->res_framing != FRAMING_CHUNKED)
		return 0;
	out = arena_take(s->arena, h1_last_chunk_bound(s->trailers));
	*part = (struct iovec){ out, h1_write_last_chunk(s->trailers, out) };
	return 1;
}

/* False when the bytes do not fit the length that was promised: the response cannot be completed any more. */
static bool account(struct stream *s, size_t n, bool end)
{
	if (s->res_framing != FRAMING_LENGTH)
		return true;
	if (n > s->res_left)
		return false;
	s->res_left -= n;
	return !end || s->res_left == 0;
}

static void h1_abort(struct stream *s)
{
	struct server_connection *c = s->connection;

	if (!c)
		return;
	c->is_aborted = true;
	/* A body that ends with the connection must not look complete: reset. */
	if (s->head_sent && s->res_framing == FRAMING_CLOSE)
		setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	break_off(c);
}

/* The kernel has the last bytes of a connection before our side of it is shut. */
static bool may_post(const struct server_connection *c, const struct stream *s)
{
	return c->protocol == &h1_protocol && !s->close_after && !c->transport.tls;
}

void connection_expect_progress(struct server_connection *c)
{
	if (c->timer.deadline_ms > clock_ms() + c->server->settings.write_stall_ms)
		loop_arm(c->server->loop, &c->timer, c->server->settings.write_stall_ms);
}

bool connection_push(struct server_connection *c, struct iovec *parts, int n)
{
	enum output_result result = output_is_empty(&c->out) ? OUTPUT_ALL : OUTPUT_WAITS;
	struct stream *s = c->stream;

	for (int i = 0; i < n; i++)
		s->sent += parts[i].iov_len;
	if (result == OUTPUT_ALL)
		c->write_ms = clock_ms();
	if (n > 0 && may_post(c, s))
		result = output_post(&c->out, &c->transport, c->server->outbox, parts, n);
	else if (n > 0)
		result = output_send(&c->out, &c->transport, parts, n);
	if (result == OUTPUT_FAILED) {
		break_off(c);
		return true;
	}
	if (result == OUTPUT_WAITS)
		connection_expect_progress(c);
	if (s->response_done && result == OUTPUT_ALL && !c->is_pumping)
		loop_defer(c->server->loop, &c->task);
	return result == OUTPUT_ALL;
}

/* The last head of this connection: what follows is the stream's, as tunnel_protocol says. */
static bool upgrade(struct server_connection *c, struct stream *s, const struct message *head, struct str data)
{
	struct iovec part = { .iov_base = scratch(c->server, h1_head_bound(head)) };

	part.iov_len = h1_write_response(head, part.iov_base);
	s->head_sent = s->close_after = true;
	connection_push(c, &part, 1);
	connection_tunnel(c, s);
	return stream_send(s, NULL, data, false);
}

static bool h1_send(struct stream *s, struct message *head, struct str data, bool end)
{
	struct server_connection *c = s->connection;
	char size_line[20];
	struct iovec parts[5];
	int n = 0;

	if (!c || c->is_broken || s->response_done)
		return true;
	if (head && head->status == 101 && head->upgrade.n)
		return upgrade(c, s, head, data);
	if (head) {
		settle_head(c, s, head);
		parts[0].iov_base = scratch(c->server, h1_head_bound(head));
		parts[0].iov_len = h1_write_response(head, parts[0].iov_base);
		n = 1;
	}
	if (!account(s, data.n, end)) {
		h1_abort(s);
		return true;
	}
	n += frame(s, parts + n, size_line, data, end && !s->trailers);
	if (end && UNLIKELY(s->trailers != NULL))
		n += frame_trailers(s, parts + n);
	if (end) {
		s->response_done = true;
		if (s->close_after && c->transport.tls)
			tls_send_last(c->transport.tls);
	}
	return connection_push(c, parts, n);
}

static void h1_send_continue(struct stream *s)
{
	static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
	struct server_connection *c = s->connection;
	struct iovec part = { (void *)(uintptr_t)text, sizeof text - 1 };

	if (!c || !s->req.expect_continue || s->head_sent)
		return;
	s->req.expect_continue = false;
	if (output_is_empty(&c->out))
		c->write_ms = clock_ms();
	if (output_send(&c->out, &c->transport, &part, 1) == OUTPUT_FAILED)
		break_off(c);
}

static void h1_resume(struct stream *s)
{
	struct server_connection *c = s->connection;

	if (c) {
		/* The pause was ours: pace and patience are measured from here. */
		c->since_ms = c->body_ms = clock_ms();
		c->body_bytes = 0;
		loop_defer(c->server->loop, &c->task);
	}
}

static void h1_send_interim(struct stream *s, const struct message *head)
{
	struct server_connection *c = s->connection;
	struct iovec part;

	/* HTTP/1.0 knows no interim responses (RFC 9110 15.2). */
	if (!c || c->is_broken || s->head_sent || s->req.minor == 0)
		return;
	part.iov_base = scratch(c->server, h1_head_bound(head));
	part.iov_len = h1_write_response(head, part.iov_base);
	connection_push(c, &part, 1);
}

const struct stream_class h1_stream_class = {
	.send = h1_send,
	.send_continue = h1_send_continue,
	.send_interim = h1_send_interim,
	.resume = h1_resume,
	.abort = h1_abort,
};

bool stream_send(struct stream *s, struct message *head, struct str data, bool end)
{
	return s->class->send(s, head, data, end);
}

void stream_send_continue(struct stream *s)
{
	s->class->send_continue(s);
}

void stream_send_interim(struct stream *s, const struct message *head)
{
	if (s->class->send_interim)
		s->class->send_interim(s, head);
}

void stream_pause(struct stream *s)
{
	s->paused = true;
}

void stream_resume(struct stream *s)
{
	if (!s->paused)
		return;
	s->paused = false;
	s->class->resume(s);
}

void stream_abort(struct stream *s)
{
	s->class->abort(s);
}

/*
 * Whether no byte can come any more that a close would answer with a reset: the client said that this request is its
 * last, and it was read to its end.
 */
static bool has_said_all(const struct server_connection *c, const struct stream *s)
{
	return !s->req.keep_alive && s->request_done && !c->is_readable && c->in_at == c->in_n;
}

/* The response is in the kernel, or as good as that: the stream ends, the connection goes on or not. */
static void finish(struct server_connection *c)
{
	struct stream *s = c->stream;
	bool keeps = !s->close_after, is_read = s->request_done, ends = !keeps && has_said_all(c, s);

	c->stream = NULL;
	s->connection = NULL;
	c->since_ms = clock_ms();
	if (!keeps && !ends) {
		connection_linger(c);
	} else {
		c->state = is_read ? CONNECTION_HEAD : CONNECTION_DRAIN;
		if (!is_read)
			loop_arm(c->server->loop, &c->timer, LINGER_MS);
	}
	c->server->ops->closed(s, STREAM_SENT);
	if (ends)
		connection_close(c);
}

/* Does what stream_send() left to do. True when the connection may read again. */
bool h1_settle(struct server_connection *c)
{
	if (c->state == CONNECTION_CLOSED)
		return false;
	if (c->is_broken) {
		connection_close(c);
		return false;
	}
	if (c->stream && c->stream->response_done && output_is_empty(&c->out)) {
		finish(c);
		return c->state != CONNECTION_CLOSED;
	}
	return false;
}
