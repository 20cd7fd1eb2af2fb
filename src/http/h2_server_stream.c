/* h2_server_stream.c -- HTTP/2 on the client side: what owners of streams send. It waits for the end of the turn. */
#include <nghttp2/nghttp2.h>
#include "core/clock.h"
#include "http/h2_server.h"

static void wake(struct h2_server_stream *s)
{
	loop_defer(s->session->c->server->loop, &s->session->c->task);
}

static void abort_stream(struct stream *owner)
{
	struct h2_server_stream *s = owner->carrier;

	if (!s)
		return;
	s->is_aborted = true;
	h2_server_reset(s, NGHTTP2_INTERNAL_ERROR);
}

static bool has_no_body(const struct stream *owner, int status)
{
	return owner->req.method == METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

/* Settles the framing of a response head: END_STREAM ends every body. */
static void settle_head(struct stream *owner, struct message *head)
{
	bool is_empty = has_no_body(owner, head->status);

	if (!is_empty && head->framing == FRAMING_NONE) {
		head->framing = FRAMING_LENGTH;
		head->content_length = 0;
	}
	if (is_empty && head->framing == FRAMING_LENGTH)
		head->length_known = true;
	owner->res_framing = (uint8_t)(is_empty ? FRAMING_NONE : head->framing);
	owner->res_left = head->framing == FRAMING_LENGTH ? head->content_length : 0;
	owner->head_sent = true;
}

/* False when the bytes do not fit the length that was promised. */
static bool account(struct stream *owner, size_t n, bool end)
{
	if (owner->res_framing != FRAMING_LENGTH)
		return true;
	if (n > owner->res_left)
		return false;
	owner->res_left -= n;
	return !end || owner->res_left == 0;
}

/* Here 200 says what 101 says in HTTP/1 (RFC 8441 5): the stream's data are the new protocol's from now on. */
static void accept_upgrade(struct h2_server_stream *s, struct message *head)
{
	head->status = 200;
	head->framing = FRAMING_CLOSE;
	message_remove(head, STR("sec-websocket-accept"));
	s->is_held = false;
	s->is_tunnel = true;
	s->owner->request_done = false;
	s->session->has_resumed = true;
}

static bool send_part(struct stream *owner, struct message *head, struct str data, bool end)
{
	struct h2_server_stream *s = owner->carrier;
	struct h2_connection *h;
	bool is_taken;

	if (!s || s->is_aborted || owner->response_done)
		return true;
	h = &s->session->base;
	if (head && head->status == 101)
		accept_upgrade(s, head);
	if (head)
		settle_head(owner, head);
	if (owner->res_framing == FRAMING_NONE)
		data.n = 0;
	if (!account(owner, data.n, end)) {
		abort_stream(owner);
		return true;
	}
	if (end) {
		owner->response_done = true;
		s->base.trailers = owner->trailers;
	}
	is_taken = h2_stream_add(h, &s->base, data, end);
	if (head && h2_submit_response(h, &s->base, head, data.n > 0 || !end || owner->trailers) != 0)
		abort_stream(owner);
	wake(s);
	/* The kernel takes nothing at present: one read of the source is enough. */
	if (!output_is_empty(&s->session->c->out) && h2_queue_size(&s->base.queue) > 0) {
		s->base.is_blocked = true;
		return false;
	}
	return is_taken;
}

static void send_interim(struct stream *owner, const struct message *head)
{
	struct h2_server_stream *s = owner->carrier;

	if (!s || owner->head_sent)
		return;
	h2_submit_interim(&s->session->base, &s->base, head);
	wake(s);
}

static void send_continue(struct stream *owner)
{
	const struct message head = { .arena = owner->arena, .status = 100 };

	if (!owner->req.expect_continue)
		return;
	owner->req.expect_continue = false;
	send_interim(owner, &head);
}

static void resume(struct stream *owner)
{
	struct h2_server_stream *s = owner->carrier;

	if (!s)
		return;
	/* The pause was ours: pace and patience are measured from here. */
	s->since_ms = s->body_ms = clock_ms();
	s->body_bytes = 0;
	s->session->has_resumed = true;
	wake(s);
}

const struct stream_class h2_stream_class = {
	.send = send_part,
	.send_continue = send_continue,
	.send_interim = send_interim,
	.resume = resume,
	.abort = abort_stream,
};
