/* h2_client_read.c -- HTTP/2 on the upstream side: what nghttp2 reads becomes responses, bodies and failures. */
#include <nghttp2/nghttp2.h>
#include <errno.h>
#include "core/clock.h"
#include "http/h2_client.h"
#include "http/h2_session.h"

static const struct h1_limits response_limits = {
	.head_bytes = 65536, .fields = 256, .target_bytes = 16384, .keep_underscores = true,
};

static struct h2_call *find(nghttp2_session *ng, int32_t id)
{
	return nghttp2_session_get_stream_user_data(ng, id);
}

/* The answer breaks the protocol. */
static void malformed(struct h2_call *s, enum h1_fault fault)
{
	nghttp2_session *ng = s->connection->base.ng;

	if (s->base.id)
		nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->base.id, NGHTTP2_PROTOCOL_ERROR);
	if (s->call)
		s->call->fault = fault;
	h2_call_fail(s, s->has_head && !s->is_pending ? CALL_TRUNCATED : CALL_MALFORMED, EPROTO);
}

/* ---------- heads ---------- */

static int begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_upstream *u = arg;
	struct h2_call *s = find(ng, frame->hd.stream_id);
	struct message *m = NULL;

	u->reading = s && s->call ? s : NULL;
	if (!u->reading) {
		h2_head_begin(&u->base.head, NULL, false);
		return 0;
	}
	s->call->response_started = true;
	s->since_ms = clock_ms();
	if (s->has_head) {
		m = NEW(s->call->arena, struct message);
		m->arena = s->call->arena;
	} else {
		s->call->res = (struct message){ .arena = s->call->arena };
		m = &s->call->res;
	}
	h2_head_begin(&u->base.head, m, s->has_head);
	return 0;
}

static H2_TAKE_HEADER(take_header)
{
	struct h2_upstream *u = arg;

	(void)ng, (void)frame, (void)flags;
	/* The call may have ended, and its memory with it. */
	if (u->reading && u->reading->call)
		h2_head_add(&u->base.head, (struct str){ (const char *)name, name_n },
			    (struct str){ (const char *)value, value_n }, &response_limits);
	return 0;
}

static H2_TAKE_HEADER(refuse_header)
{
	(void)ng, (void)frame, (void)name, (void)name_n, (void)value, (void)value_n, (void)flags, (void)arg;
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* ---------- responses and their bodies ---------- */

/* A tunnel has two ends: the call goes on until its owner ends it. The owner may do so within. */
static void pass_on(struct h2_call *s, char *p, size_t n, bool end)
{
	struct call *call = s->call;

	if (s->is_pending) {
		s->is_pending = false;
		s->connection->has_resumed = s->connection->has_resumed || end;
		call->ops->response(call, p, n, false);
		return;
	}
	s->end_told = end;
	call->ops->body(call, p, n, end);
}

/* The call ends before its owner hears of the end, so that a next one may begin at once. */
static void hand_over(struct h2_call *s, char *p, size_t n, bool end)
{
	struct call *call = s->call;
	nghttp2_session *ng = s->connection->base.ng;
	bool is_first = s->is_pending;

	if (n > 0 && s->base.id)
		nghttp2_session_consume_stream(ng, s->base.id, n);
	if (UNLIKELY(call->is_tunnel)) {
		pass_on(s, p, n, end);
		return;
	}
	s->is_pending = false;
	if (end) {
		h2_call_let_go(s);
		/* What is left of the request is not wanted any more. */
		if (s->base.id && nghttp2_session_get_stream_local_close(ng, s->base.id) == 0)
			nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->base.id, NGHTTP2_CANCEL);
	}
	if (is_first)
		call->ops->response(call, p, n, end);
	else
		call->ops->body(call, p, n, end);
}

/* Whether the body has the promised length; nghttp2 resets the stream otherwise. */
static bool is_whole(const struct h2_call *s)
{
	const struct message *m = &s->call->res;

	return m->framing != FRAMING_LENGTH || s->body_bytes == m->content_length;
}

static void take_body(struct h2_call *s, char *p, size_t n, bool end)
{
	if (s->is_complete)
		return;
	s->since_ms = clock_ms();
	s->body_bytes += n;
	s->call->received += n;
	end = end && is_whole(s);
	s->is_complete = end;
	if (n == 0 && !end)
		return;
	if (!s->call->paused && h2_queue_size(&s->in) == 0)
		hand_over(s, p, n, end);
	else if (n > 0)
		h2_queue_add(&s->in, p, n);
}

static H2_TAKE_DATA(take_data)
{
	struct h2_upstream *u = arg;
	struct h2_call *s = find(ng, id);
	bool end;

	(void)flags;
	if (u->base.frame_left >= 0)
		u->base.frame_left -= (int64_t)n;
	end = u->base.frame_ends && u->base.frame_left == 0;
	/* One slow call must not stop the others: only its own window waits for it. */
	nghttp2_session_consume_connection(ng, n);
	if (s && s->call && s->has_head)
		take_body(s, (char *)(uintptr_t)p, n, end);
	else
		nghttp2_session_consume_stream(ng, id, n);
	if (s && s->call && !s->has_head)
		malformed(s, H1_FAULT_STATUS_LINE);
	return 0;
}

void h2_client_deliver_kept(struct h2_upstream *u)
{
	u->has_resumed = false;
	LIST_EACH(node, &u->streams) {
		struct h2_call *s = CONTAINER(node, struct h2_call, node);
		struct h2_queue in = s->in;

		if (!s->call || s->call->paused || !s->has_head || s->is_pending || s->end_told ||
		    (h2_queue_size(&in) == 0 && !s->is_complete))
			continue;
		s->in = (struct h2_queue){ 0 };
		hand_over(s, in.p + in.at, in.n - in.at, s->is_complete);
		h2_queue_free(&in);
		if (!s->call && !s->base.id && list_is_empty(&s->base.touched))
			h2_call_free(s);
	}
}

/* Heads whose body did not begin in the same piece. */
static void hand_over_pending(struct h2_upstream *u)
{
	u->has_pending = false;
	LIST_EACH(node, &u->streams) {
		struct h2_call *s = CONTAINER(node, struct h2_call, node);

		if (s->is_pending && s->call)
			hand_over(s, NULL, 0, false);
	}
}

/* ---------- frames ---------- */

static void end_head(struct h2_upstream *u, struct h2_call *s, bool has_body)
{
	struct call *call = s->call;
	enum h1_fault fault = h2_head_end_response(&u->base.head, call->method, has_body);

	if (!fault && call->res.status < 200 && (!has_body || ++s->interims > INTERIM_MAX))
		fault = H1_FAULT_HEAD_LARGE;
	if (fault) {
		malformed(s, fault);
		return;
	}
	if (call->res.status < 200) {
		if (call->res.status == 103 && call->ops->interim)
			call->ops->interim(call);
		return;
	}
	s->has_head = s->is_pending = true;
	if (UNLIKELY(call->upgrade.n > 0) && call->res.status < 300) {
		h2_client_take_over(s);
		s->is_complete = !has_body;
		u->has_pending = true;
		u->has_resumed = u->has_resumed || !has_body;
		return;
	}
	if (!has_body) {
		s->is_complete = true;
		hand_over(s, NULL, 0, true);
		return;
	}
	u->has_pending = true;
}

static void end_block(struct h2_upstream *u, const nghttp2_frame *frame)
{
	struct h2_call *s = u->reading;

	u->reading = NULL;
	if (!s || !s->call)
		return;
	if (!s->has_head) {
		end_head(u, s, !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM));
	} else if (u->base.head.fault) {
		malformed(s, u->base.head.fault);
	} else {
		if (u->base.head.m->n > 0)
			s->call->res.trailers = u->base.head.m;
		take_body(s, NULL, 0, true);
	}
}

static int take_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_upstream *u = arg;
	struct h2_call *s;

	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		end_block(u, frame);
		break;
	case NGHTTP2_DATA:
		s = find(ng, frame->hd.stream_id);
		if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && s && s->call && s->has_head)
			take_body(s, NULL, 0, true);
		break;
	case NGHTTP2_SETTINGS:
		u->has_settings = u->has_settings || !(frame->hd.flags & NGHTTP2_FLAG_ACK);
		h2_upstream_wake(u);
		break;
	case NGHTTP2_GOAWAY:
		h2_upstream_retire(u);
		h2_upstream_wake(u);
		break;
	default:
		break;
	}
	return 0;
}

static int begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
	struct h2_upstream *u = arg;

	(void)ng;
	if (hd->type == NGHTTP2_DATA || hd->type == NGHTTP2_HEADERS)
		u->is_quiet = false;
	if (hd->type == NGHTTP2_DATA) {
		u->base.frame_left = hd->flags & NGHTTP2_FLAG_PADDED ? -1 : (int64_t)hd->length;
		u->base.frame_ends = hd->flags & NGHTTP2_FLAG_END_STREAM;
	}
	return h2_afford(&u->base, hd->type, hd->flags, hd->length) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int note_invalid(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *arg)
{
	struct h2_call *s = find(ng, frame->hd.stream_id);

	(void)error, (void)arg;
	if (s)
		s->is_malformed = true;
	return 0;
}

/* The upstream has said its last word and takes nothing any more: what the owner still sends goes nowhere. */
static void forget_output(struct h2_call *s)
{
	h2_stream_drop(&s->connection->base, &s->base);
	if (!s->base.is_blocked)
		return;
	s->base.is_blocked = false;
	s->call->ops->drained(s->call);
}

/* Refused before anything was done with it: by RST_STREAM, or by GOAWAY with a lower stream. */
static int close_stream(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
	struct h2_upstream *u = arg;
	struct h2_call *s = find(ng, id);
	bool has_answered;

	if (!s)
		return 0;
	s->base.id = 0;
	if (u->reading == s)
		u->reading = NULL;
	/* All of it is here, but the owner is paused, or the other end of a tunnel is still to come: waited for. */
	if (s->call && s->is_complete && (code == NGHTTP2_NO_ERROR || !s->call->is_tunnel)) {
		if (s->call->is_tunnel)
			forget_output(s);
		return 0;
	}
	if (s->call) {
		has_answered = s->has_head && !s->is_pending;
		s->call->is_refused = code == NGHTTP2_REFUSED_STREAM && !s->has_head;
		if (s->is_malformed)
			s->call->fault = H1_FAULT_HEADER_VALUE;
		h2_call_fail(s, has_answered ? CALL_TRUNCATED : s->is_malformed ? CALL_MALFORMED : CALL_RESET,
			     ECONNRESET);
	}
	if (list_is_empty(&s->base.touched))
		h2_call_free(s);
	return 0;
}

static int note_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
	struct h2_call *s = find(ng, frame->hd.stream_id);
	struct h2_upstream *u = arg;

	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
		u->is_broken = true;
	if (s && frame->hd.type != NGHTTP2_RST_STREAM)
		s->since_ms = clock_ms();
	else if (s && frame->rst_stream.error_code != NGHTTP2_CANCEL)
		s->is_malformed = true;
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
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, note_invalid);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, note_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, close_stream);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_send_data);
	nghttp2_option_set_no_auto_window_update(options, 1);
	nghttp2_option_set_max_reserved_remote_streams(options, 0);
}

nghttp2_session *h2_client_session(struct h2_upstream *u)
{
	nghttp2_session *ng;
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_CALL_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, response_limits.head_bytes },
	};

	BUG_ON(nghttp2_session_client_new2(&ng, callbacks, &u->base, options) != 0);
	BUG_ON(nghttp2_submit_settings(ng, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) != 0);
	BUG_ON(nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW) != 0);
	return ng;
}

bool h2_client_take(struct h2_upstream *u, char *p, size_t n)
{
	ssize_t taken = nghttp2_session_mem_recv(u->base.ng, (const uint8_t *)p, n);

	if (taken < 0 || u->base.verdict != H2_FINE)
		return false;
	if (u->has_pending)
		hand_over_pending(u);
	/* nghttp2 found an error of the connection: GOAWAY is queued, nothing more is read. */
	return nghttp2_session_want_read(u->base.ng) || u->is_leaving;
}
