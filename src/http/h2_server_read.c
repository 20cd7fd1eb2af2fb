/*
 * h2_server_read.c -- HTTP/2 on the client side: what nghttp2 reads becomes requests and bodies.
 *
 * nghttp2 calls back from within h2_server_take(). Owners may send meanwhile: that only queues. A request with a body
 * is handed over together with the first bytes of it when they came in the same piece: they travel on together.
 */
#include <nghttp2/nghttp2.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/h2_server.h"
#include "http/h2_session.h"
#include "http/identity_field.h"

#define HEAD_BYTES_IGNORED 16             /* times the limit: a header block beyond that ends the connection */

const uint8_t h2_drain_mark[8] = { 'd', 'r', 'a', 'i', 'n' };

static struct h2_server_stream *find(nghttp2_session *ng, int32_t id)
{
	return nghttp2_session_get_stream_user_data(ng, id);
}

static const struct h1_limits *limits_of(const struct h2_server *h)
{
	return &h->c->server->settings.limits;
}

/* ---------- answers of our own ---------- */

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

static void answer_refused(struct h2_server_stream *s, enum h1_fault fault, int status, struct str id)
{
	struct message head = { .arena = &s->refusal, .status = status, .framing = FRAMING_LENGTH };
	struct str body = arena_printf(&s->refusal,
				       "{\"errorCode\":\"%s\",\"errorMessage\":\"%s: %s\",\"requestId\":\"%.*s\"}",
				       refusal_code(status), h1_reason(status), h1_fault_tag(fault), STR_FMT(id));

	head.content_length = body.n;
	message_add_id(&head, HEADER_CONTENT_TYPE, STR("application/json; charset=utf-8"));
	message_add_id(&head, HEADER_X_REQUEST_ID, id);
	h2_stream_add(&s->session->base, &s->base, body, true);
	if (h2_submit_response(&s->session->base, &s->base, &head, true) != 0)
		h2_server_reset(s, NGHTTP2_INTERNAL_ERROR);
}

void h2_server_refuse(struct h2_server_stream *s, enum h1_fault fault, int status)
{
	struct server_connection *c = s->session->c;
	uint64_t number[2];
	struct str id;

	arc4random_buf(number, sizeof number);
	id = arena_printf(&s->refusal, "%016llx%016llx", (unsigned long long)number[0], (unsigned long long)number[1]);

	if (c->server->ops->refused)
		c->server->ops->refused(c, fault, status, id);
	h2_server_end_stream(s, STREAM_CLIENT_GONE);
	answer_refused(s, fault, status, id);
	loop_defer(c->server->loop, &c->task);
}

/* ---------- heads ---------- */

/* The peer holds much of us already: it shall take what it asked for before it asks for more. */
static bool is_overdrawn(const struct h2_server *h)
{
	bool stands_still = h->base.progress_ms + 1000 < clock_ms();

	return h->heads > H2_HEADS_BYTES || (h->base.queued > H2_BACKLOG_BYTES && stands_still);
}

static int begin_request(struct h2_server *h, int32_t id)
{
	struct server_connection *c = h->c;
	uint64_t limit = c->server->settings.requests_per_connection;
	struct h2_server_stream *s;

	if (id > h->last_id + 2) {
		h->gap_from = h->last_id ? h->last_id + 2 : 1;
		h->gap_to = id;
	}
	h->last_id = id;
	if (is_overdrawn(h)) {
		h2_count(H2_BACKLOG);
		h2_head_begin(&h->base.head, NULL, false);
		return nghttp2_submit_rst_stream(h->base.ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
	}
	s = MEM_NEW(struct h2_server_stream);
	budget_add(H2_STREAM_BYTES);
	s->base.id = id;
	s->session = h;
	s->since_ms = s->body_ms = clock_ms();
	list_init(&s->base.touched);
	list_append(&h->streams, &s->node);
	c->requests++;
	if (limit && c->requests >= limit)
		c->protocol->drain(c);
	s->owner = c->server->ops->open(c);
	if (s->owner) {
		h->n_streams++;
		s->owner->class = &h2_stream_class;
		s->owner->connection = c;
		s->owner->carrier = s;
		s->owner->start_us = clock_us();
		s->owner->req.arena = s->owner->arena;
	}
	h->reading = s;
	if (c->server->settings.h2_ping_ms > 0)
		h2_server_hurry(h, c->server->settings.h2_ping_ms);
	h2_head_begin(&h->base.head, s->owner ? &s->owner->req : NULL, false);
	return nghttp2_session_set_stream_user_data(h->base.ng, id, s);
}

static void begin_trailers(struct h2_server *h, struct h2_server_stream *s)
{
	struct message *m = NULL;

	if (s && s->owner) {
		m = NEW(s->owner->arena, struct message);
		m->arena = s->owner->arena;
	}
	h2_head_begin(&h->base.head, m, true);
	h->reading = m ? s : NULL;
}

static int begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_server *h = arg;

	h->reading = NULL;
	h->head_ms = clock_ms();
	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
		begin_trailers(h, find(ng, frame->hd.stream_id));
		return 0;
	}
	return begin_request(h, frame->hd.stream_id) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static H2_TAKE_HEADER(take_header)
{
	struct h2_server *h = arg;
	struct h2_head *head = &h->base.head;

	(void)ng, (void)frame, (void)flags;
	if (head->m)
		h2_head_add(head, (struct str){ (const char *)name, name_n },
			    (struct str){ (const char *)value, value_n }, limits_of(h));
	else
		head->bytes += name_n + value_n + 4;
	if (head->bytes > (size_t)limits_of(h)->head_bytes * HEAD_BYTES_IGNORED) {
		h->base.verdict = H2_HEAD_SIZE;
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	return 0;
}

/* Names and values that nghttp2 would merely leave out make the request malformed (RFC 9113 8.1.1). */
static H2_TAKE_HEADER(refuse_header)
{
	struct h2_server *h = arg;

	(void)ng, (void)frame, (void)name, (void)name_n, (void)value, (void)value_n, (void)flags;
	h->head_ms = 0;
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* ---------- requests and their bodies ---------- */

static void begin(struct h2_server_stream *s, char *p, size_t n, bool end)
{
	struct stream *owner = s->owner;

	s->is_pending = false;
	owner->request_done = end;
	owner->received += n;
	s->session->c->server->ops->request(owner, p, n, end);
}

static void end_head(struct h2_server *h, struct h2_server_stream *s, bool has_body)
{
	struct h2_head *head = &h->base.head;
	enum h1_fault fault;

	s->is_complete = !has_body;
	if (!s->owner) {
		h2_server_refuse(s, H1_FAULT_NONE, 503);
		return;
	}
	s->head_bytes = head->bytes;
	h->heads += head->bytes;
	fault = h2_head_end_request(head, has_body);
	if (fault) {
		h2_server_refuse(s, fault, h1_fault_status(fault));
		return;
	}
	s->is_held = s->owner->req.has_upgrade;
	if (!has_body || s->is_held) {
		begin(s, NULL, 0, true);
		return;
	}
	s->since_ms = s->body_ms = clock_ms();
	s->is_pending = h->has_pending = true;
	h2_server_hurry(h, h->c->server->settings.body_idle_ms);
}

/* Whether the body has the promised length; nghttp2 resets the stream otherwise. */
static bool is_whole(const struct h2_server_stream *s, size_t n)
{
	const struct message *m = &s->owner->req;

	return m->framing != FRAMING_LENGTH ||
	       s->owner->received + h2_queue_size(&s->in) + n == m->content_length;
}

/*
 * The promised length is here, END_STREAM is not: whether the request is well-formed is not known yet, and the upstream
 * would take it for complete. The last piece waits.
 */
static bool awaits_end(const struct h2_server_stream *s, size_t n)
{
	return s->owner->req.framing == FRAMING_LENGTH && !s->is_complete && is_whole(s, n);
}

static void hand_over(struct h2_server_stream *s, char *p, size_t n, bool end)
{
	nghttp2_session *ng = s->session->base.ng;

	if (s->is_pending) {
		begin(s, p, n, end);
	} else {
		s->owner->received += n;
		s->owner->request_done = end;
		s->session->c->server->ops->body(s->owner, p, n, end);
	}
	if (n == 0)
		return;
	if (s->base.id)
		nghttp2_session_consume(ng, s->base.id, n);
	else
		nghttp2_session_consume_connection(ng, n);
}

static void take_body(struct h2_server_stream *s, char *p, size_t n, bool end)
{
	s->since_ms = clock_ms();
	s->body_bytes += n;
	if (s->is_complete)
		return;
	end = end && is_whole(s, n);
	s->is_complete = end;
	if (n == 0 && !end)
		return;
	if (!s->owner->paused && !s->is_held && h2_queue_size(&s->in) == 0 && !awaits_end(s, n)) {
		hand_over(s, p, n, end);
		return;
	}
	if (n > 0)
		h2_queue_add(&s->in, p, n);
	s->session->has_resumed = s->session->has_resumed || end;
}

static H2_TAKE_DATA(take_data)
{
	struct h2_server *h = arg;
	struct h2_server_stream *s = find(ng, id);
	bool end;

	(void)flags;
	if (h->base.frame_left >= 0)
		h->base.frame_left -= (int64_t)n;
	end = h->base.frame_ends && h->base.frame_left == 0;
	if (s && s->owner)
		take_body(s, (char *)(uintptr_t)p, n, end);
	else
		nghttp2_session_consume(ng, id, n);
	return 0;
}

void h2_server_deliver_kept(struct h2_server *h)
{
	h->has_resumed = false;
	LIST_EACH(node, &h->streams) {
		struct h2_server_stream *s = CONTAINER(node, struct h2_server_stream, node);
		struct h2_queue in = s->in;
		bool is_kept = h2_queue_size(&in) > 0;

		if (!s->owner || s->owner->paused || s->is_held || s->owner->request_done ||
		    (!is_kept && !s->is_complete) || awaits_end(s, 0))
			continue;
		s->in = (struct h2_queue){ 0 };
		hand_over(s, in.p + in.at, in.n - in.at, s->is_complete);
		h2_queue_free(&in);
	}
}

/* Heads whose body did not begin in the same piece. */
static void begin_pending(struct h2_server *h)
{
	h->has_pending = false;
	LIST_EACH(node, &h->streams) {
		struct h2_server_stream *s = CONTAINER(node, struct h2_server_stream, node);

		if (s->is_pending && s->owner && !awaits_end(s, 0))
			begin(s, NULL, 0, false);
	}
}

/* ---------- frames ---------- */

static void end_block(struct h2_server *h, const nghttp2_frame *frame)
{
	struct h2_server_stream *s = h->reading;
	bool has_body = !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM);

	h->head_ms = 0;
	h->reading = NULL;
	if (!s || s->base.id == 0)
		return;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		end_head(h, s, has_body);
	} else if (!s->owner || h->base.head.fault) {
		h2_server_reset(s, NGHTTP2_PROTOCOL_ERROR);
	} else {
		if (h->base.head.m->n > 0) {
			s->owner->req.trailers = h->base.head.m;
			identity_trailers_strip(&s->owner->req);
		}
		take_body(s, NULL, 0, true);
	}
}

static int take_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_server *h = arg;
	struct h2_server_stream *s;

	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		end_block(h, frame);
		break;
	case NGHTTP2_DATA:
		s = find(ng, frame->hd.stream_id);
		if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && s && s->owner)
			take_body(s, NULL, 0, true);
		break;
	case NGHTTP2_PING:
		if ((frame->hd.flags & NGHTTP2_FLAG_ACK) && frame->ping.opaque_data[0] == h2_drain_mark[0])
			h2_server_drain_answered(h);
		break;
	default:
		break;
	}
	return h->base.verdict == H2_FINE ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* ---------- streams that are no more ---------- */

static void note_reset(struct h2_server *h, int32_t id)
{
	if (!h->resets)
		h->resets = mem_alloc(H2_RESETS_KEPT * sizeof *h->resets);
	h->resets[h->n_resets++ % H2_RESETS_KEPT] = id;
}

static bool was_reset(const struct h2_server *h, int32_t id)
{
	for (unsigned i = 0; h->resets && i < H2_RESETS_KEPT; i++)
		if (h->resets[i] == id)
			return true;
	return false;
}

/*
 * A head for a stream that was closed, or passed over, and not by a reset of ours that the client may not know of yet:
 * nghttp2, which forgets closed streams, would throw it away; RFC 9113 5.1 and 5.1.1 ask for an error. (DATA of closed
 * streams it throws away before anybody is told.)
 */
static bool judge_closed(struct h2_server *h, int32_t id)
{
	if (id > h->last_id || id % 2 == 0 || nghttp2_session_find_stream(h->base.ng, id) || was_reset(h, id))
		return true;
	h->base.verdict = id >= h->gap_from && id < h->gap_to ? H2_PROTOCOL : H2_CLOSED;
	return false;
}

static int begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
	struct h2_server *h = arg;

	(void)ng;
	if (hd->type == NGHTTP2_HEADERS && !judge_closed(h, hd->stream_id))
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	/* With its priorities switched off nghttp2 does not look at these any more. */
	if (hd->type == NGHTTP2_PRIORITY && hd->stream_id == 0) {
		h->base.verdict = H2_PROTOCOL;
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	if (hd->type == NGHTTP2_DATA) {
		h->base.frame_left = hd->flags & NGHTTP2_FLAG_PADDED ? -1 : (int64_t)hd->length;
		h->base.frame_ends = hd->flags & NGHTTP2_FLAG_END_STREAM;
	}
	return h2_afford(&h->base, hd->type, hd->flags, hd->length) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int ignore_extension(nghttp2_session *ng, void **payload, const nghttp2_frame_hd *hd, void *arg)
{
	struct h2_server *h = arg;

	(void)ng, (void)payload, (void)hd;
	return h2_spend(&h->base, H2_EXTENSIONS) ? NGHTTP2_ERR_CANCEL : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int count_invalid(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *arg)
{
	struct h2_server *h = arg;

	(void)ng, (void)error;
	h->head_ms = 0;
	(void)frame;
	h2_count(H2_PROTOCOL);
	return 0;
}

static int note_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_server *h = arg;
	struct h2_server_stream *s = find(ng, frame->hd.stream_id);

	if (frame->hd.type == NGHTTP2_RST_STREAM) {
		note_reset(h, frame->hd.stream_id);
		/* What the owner or a limit of ours wanted is not the client's fault. */
		if (frame->rst_stream.error_code != NGHTTP2_NO_ERROR && !(s && s->is_aborted))
			h2_spend(&h->base, H2_ERRORS);
		return 0;
	}
	if (!s || (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS))
		return 0;
	if (s->owner)
		s->owner->sent += frame->hd.length + 9;
	if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	s->base.end_sent = true;
	list_remove(&s->base.touched);
	list_append(&h->base.touched, &s->base.touched);
	/* The answer is complete: who is still sending may stop (RFC 9113 8.1). */
	if (nghttp2_session_get_stream_remote_close(ng, s->base.id) == 0)
		nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->base.id, NGHTTP2_NO_ERROR);
	return 0;
}

static int close_stream(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
	struct h2_server *h = arg;
	struct h2_server_stream *s = find(ng, id);

	(void)code;
	if (!s)
		return 0;
	if (h->reading == s) {
		h->reading = NULL;
		h->head_ms = 0;
		h->base.head.m = NULL;
	}
	s->base.id = 0;
	/* A write may refer to its bytes: it ends after that. */
	if (!list_is_empty(&s->base.touched))
		return 0;
	h2_server_end_stream(s, STREAM_CLIENT_GONE);
	h2_server_free_stream(s);
	return 0;
}

/* ---------- the session ---------- */

static nghttp2_session_callbacks *callbacks;
static nghttp2_option *options;

__attribute__((constructor)) static void fill_callbacks(void)
{
	BUG_ON(nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&options) != 0);
	nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, begin_frame);
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, take_header);
	nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, refuse_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, take_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, take_frame);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, count_invalid);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, note_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, close_stream);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_send_data);
	nghttp2_option_set_no_auto_window_update(options, 1);
	nghttp2_option_set_no_closed_streams(options, 1);
	/* Frames that nobody knows are ignored, but counted. */
	nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, ignore_extension);
	for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; type++)
		nghttp2_option_set_user_recv_extension_type(options, (uint8_t)type);
}

nghttp2_session *h2_server_session(struct h2_server *h)
{
	nghttp2_session *ng;
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_STREAMS },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits_of(h)->head_bytes },
		{ NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
		{ NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
	};

	BUG_ON(nghttp2_session_server_new2(&ng, callbacks, &h->base, options) != 0);
	BUG_ON(nghttp2_submit_settings(ng, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) != 0);
	BUG_ON(nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW) != 0);
	return ng;
}

bool h2_server_take(struct h2_server *h, char *p, size_t n)
{
	ssize_t taken;

	h->read_ms = clock_ms();
	h->ping_ms = 0;
	taken = nghttp2_session_mem_recv(h->base.ng, (const uint8_t *)p, n);
	if (taken < 0 && h->base.verdict == H2_FINE)
		h->base.verdict = taken == NGHTTP2_ERR_FLOODED ? H2_FLOODED : H2_PROTOCOL;
	if (h->base.verdict != H2_FINE)
		return false;
	if (h->has_pending)
		begin_pending(h);
	if (h->head_ms)
		h2_server_hurry(h, h->c->server->settings.header_timeout_ms);
	return true;
}
