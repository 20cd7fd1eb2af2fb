/*
 * h2_server.c -- HTTP/2 on the client side: the connection. What it reads is in h2_server_read.c, what streams send in
 * h2_server_stream.c.
 *
 *	edge ──► receive ──► nghttp2 ──► request(), body()          (h2_server_read.c)
 *	stream_send ──► queues ──► task at the end of the turn ──► h2_write: all frames of the turn in one write
 *	                                                           then drained(), closed()
 *	SERVING ──drain──► NOTICED (GOAWAY without a limit, PING) ──its answer──► LEAVING (GOAWAY) ──no stream──► closed
 */
#include <nghttp2/nghttp2.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/h2_server.h"

static void release(struct garbage *g)
{
	struct h2_server *h = CONTAINER(g, struct h2_server, garbage);

	nghttp2_session_del(h->base.ng);
	mem_free(h->resets);
	mem_free(h);
	budget_add(-H2_SESSION_BYTES);
}

static struct h2_server_stream *of_node(struct list *node)
{
	return CONTAINER(node, struct h2_server_stream, node);
}

static struct h2_server_stream *of_touched(struct list *node)
{
	return CONTAINER(node, struct h2_server_stream, base.touched);
}

void h2_server_hurry(struct h2_server *h, int64_t ms)
{
	struct server_connection *c = h->c;

	if (c->timer.deadline_ms == 0 || c->timer.deadline_ms > clock_ms() + ms)
		loop_arm(c->server->loop, &c->timer, ms);
}

/* ---------- streams ---------- */

void h2_server_free_stream(struct h2_server_stream *s)
{
	h2_stream_drop(&s->session->base, &s->base);
	h2_queue_free(&s->in);
	arena_free(&s->refusal);
	list_remove(&s->node);
	mem_free(s);
	budget_add(-H2_STREAM_BYTES);
}

void h2_server_end_stream(struct h2_server_stream *s, enum stream_end how)
{
	struct h2_server *h = s->session;
	struct stream *owner = s->owner;

	if (!owner)
		return;
	s->owner = NULL;
	if (h->reading == s) {
		/* The rest of its head has no place any more. */
		h->reading = NULL;
		h->base.head.m = NULL;
	}
	owner->connection = NULL;
	owner->carrier = NULL;
	h->n_streams--;
	h->heads -= s->head_bytes;
	h->c->since_ms = clock_ms();
	if (owner->close_after && h->drain == H2_SERVING)
		h->c->protocol->drain(h->c);
	if (s->is_aborted && how != STREAM_SENT)
		how = STREAM_ABORTED;
	/* What was kept of its body counts against the connection's window no longer. */
	if (h2_queue_size(&s->in) > 0 && h->c->state != CONNECTION_CLOSED)
		nghttp2_session_consume_connection(h->base.ng, h2_queue_size(&s->in));
	h2_queue_free(&s->in);
	h->c->server->ops->closed(owner, how);
}

void h2_server_reset(struct h2_server_stream *s, uint32_t code)
{
	if (s->base.id)
		nghttp2_submit_rst_stream(s->session->base.ng, NGHTTP2_FLAG_NONE, s->base.id, code);
	loop_defer(s->session->c->server->loop, &s->session->c->task);
}

static void end_streams(struct h2_server *h, enum stream_end how)
{
	LIST_EACH(node, &h->streams) {
		struct h2_server_stream *s = of_node(node);

		h2_server_end_stream(s, how);
		h2_server_free_stream(s);
	}
}

/* ---------- ending ---------- */

/* The last words were written: waits a moment for the client to read them. */
static void leave(struct h2_server *h)
{
	end_streams(h, h->c->is_aborted ? STREAM_ABORTED : STREAM_CLIENT_GONE);
	connection_linger(h->c);
}

/* Ends it with GOAWAY and this code. Who does not take even that is cut off. */
static void say_goodbye(struct h2_server *h, uint32_t code, enum h2_reason why)
{
	struct server_connection *c = h->c;

	h2_count(why);
	nghttp2_session_terminate_session(h->base.ng, code);
	if (!output_is_empty(&c->out) || h2_write(&h->base, &c->out, &c->transport) != OUTPUT_ALL)
		connection_close(c);
	else
		leave(h);
}

static uint32_t code_of(enum h2_reason why)
{
	if (why == H2_CLOSED)
		return NGHTTP2_STREAM_CLOSED;
	return why == H2_PROTOCOL ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_ENHANCE_YOUR_CALM;
}

static void say_last_stream(struct h2_server *h)
{
	h->drain = H2_LEAVING;
	nghttp2_submit_goaway(h->base.ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->base.ng),
			      NGHTTP2_NO_ERROR, NULL, 0);
	loop_defer(h->c->server->loop, &h->c->task);
}

/* ---------- writing ---------- */

/* What was written to its end: its owner is told when the kernel has it. */
static void finish(struct h2_server *h)
{
	while (!list_is_empty(&h->finished)) {
		struct h2_server_stream *s = of_touched(h->finished.next);

		list_remove(&s->base.touched);
		h2_server_end_stream(s, STREAM_SENT);
		if (s->base.id == 0)
			h2_server_free_stream(s);
	}
}

/* After a write: streams that moved are done, closed, or may go on. */
static void settle(struct h2_server *h)
{
	while (!list_is_empty(&h->base.touched)) {
		struct h2_server_stream *s = of_touched(h->base.touched.next);

		list_remove(&s->base.touched);
		if (s->base.end_sent && s->owner) {
			list_append(&h->finished, &s->base.touched);
		} else if (s->base.id == 0) {
			h2_server_end_stream(s, STREAM_CLIENT_GONE);
			h2_server_free_stream(s);
		} else if (s->owner && h2_stream_take_drained(&h->base, &s->base) && !s->owner->response_done) {
			h->c->server->ops->drained(s->owner);
		}
	}
}

static void conclude(struct h2_server *h)
{
	struct server_connection *c = h->c;

	if (h->base.verdict != H2_FINE) {
		say_goodbye(h, code_of(h->base.verdict), h->base.verdict);
	} else if (!nghttp2_session_want_read(h->base.ng) && !nghttp2_session_want_write(h->base.ng)) {
		leave(h);
	} else if (h->drain == H2_LEAVING && h->n_streams == 0 && list_is_empty(&h->streams)) {
		leave(h);
	} else if (h->base.queued > 0) {
		h2_server_hurry(h, c->server->settings.write_stall_ms);
	} else if (h->n_streams == 0) {
		connection_dismiss(c);
	}
}

static void flush(struct h2_server *h)
{
	struct server_connection *c = h->c;
	enum output_result result;

	if (!output_is_empty(&c->out))
		return;
	result = h2_write(&h->base, &c->out, &c->transport);
	if (result == OUTPUT_FAILED) {
		connection_close(c);
		return;
	}
	if (result == OUTPUT_WAITS) {
		c->write_ms = clock_ms();
		h2_server_hurry(h, c->server->settings.write_stall_ms);
	}
	settle(h);
	if (result == OUTPUT_ALL) {
		finish(h);
		conclude(h);
	}
}

static void flushed(struct server_connection *c)
{
	struct h2_server *h = h2_server_of(c);

	if (h && c->state != CONNECTION_LINGER) {
		finish(h);
		loop_defer(c->server->loop, &c->task);
	}
}

/* ---------- reading ---------- */

static void start(struct server_connection *c)
{
	struct h2_server *h = MEM_NEW(struct h2_server);

	budget_add(H2_SESSION_BYTES);
	h->c = c;
	list_init(&h->streams);
	list_init(&h->finished);
	list_init(&h->base.touched);
	h->garbage.release = release;
	h->base.ng = h2_server_session(h);
	c->session = h;
	c->state = CONNECTION_WAIT;
	c->since_ms = clock_ms();
	if (c->server->is_draining)
		c->protocol->drain(c);
}

static void take(struct h2_server *h, char *p, size_t n)
{
	if (!h2_server_take(h, p, n))
		say_goodbye(h, code_of(h->base.verdict), h->base.verdict);
}

/* What the protocol before left unread. */
static void take_kept(struct h2_server *h)
{
	struct server_connection *c = h->c;
	char *in = c->in;
	size_t at = c->in_at, n = c->in_n;

	c->in = NULL;
	budget_add(-(int64_t)c->in_cap);
	c->in_at = c->in_n = c->in_cap = 0;
	take(h, in + at, n - at);
	mem_free(in);
}

static void throw_away(struct server_connection *c)
{
	for (int reads = 0; c->is_readable && c->state == CONNECTION_LINGER; reads++) {
		ssize_t n;

		if (reads == READS_PER_TURN) {
			loop_defer(c->server->loop, &c->task);
			return;
		}
		n = connection_receive(c);
		if (n > 0)
			c->lingered += (uint64_t)n;
		if (n < 0 || c->lingered >= LINGER_BYTES)
			connection_close(c);
	}
}

static void receive(struct server_connection *c)
{
	for (int reads = 0; c->is_readable && c->state == CONNECTION_WAIT; reads++) {
		ssize_t n;

		if (reads == READS_PER_TURN)
			return;            /* the task is there already */
		n = connection_receive(c);
		if (n < 0)
			connection_close(c);
		else if (n > 0)
			take(h2_server_of(c), c->server->buffer, (size_t)n);
	}
}

static void run(struct server_connection *c)
{
	struct h2_server *h;

	if (c->state == CONNECTION_LINGER) {
		throw_away(c);
		return;
	}
	if (!c->session)
		start(c);
	h = h2_server_of(c);
	if (c->in)
		take_kept(h);
	receive(c);
	if (c->state == CONNECTION_WAIT && h->has_resumed)
		h2_server_deliver_kept(h);
	if (c->state == CONNECTION_WAIT)
		flush(h);
	if (c->state == CONNECTION_WAIT && c->is_readable)
		loop_defer(c->server->loop, &c->task);
}

/* Reads at once; writing waits for the end of the turn, when the answers of this one are there. */
static void ready(struct server_connection *c, uint32_t events)
{
	(void)events;
	if (c->state == CONNECTION_LINGER) {
		throw_away(c);
		return;
	}
	if (c->session)
		receive(c);
	if (c->state == CONNECTION_WAIT)
		loop_defer(c->server->loop, &c->task);
}

/* ---------- time ---------- */

/* When patience with that stream ends; INT64_MAX: not foreseeable. */
static int64_t stream_patience(const struct h2_server_stream *s, enum h2_reason *why)
{
	const struct server_settings *settings = &s->session->c->server->settings;
	int64_t now = clock_ms(), elapsed = now - s->body_ms;

	if (h2_queue_size(&s->base.queue) > 0) {
		*why = H2_WRITE_STALL;
		return s->base.moved_ms + settings->write_stall_ms;
	}
	/* A head under way has the connection's limit. */
	if (!s->owner || s == s->session->reading)
		return INT64_MAX;
	if (s->is_complete || s->is_held || s->is_tunnel || s->owner->paused)
		return INT64_MAX;
	*why = H2_BODY_TIMEOUT;
	if (settings->body_rate > 0 && elapsed >= settings->body_idle_ms &&
	    (int64_t)s->body_bytes * 1000 < settings->body_rate * elapsed)
		return now;
	return s->since_ms + settings->body_idle_ms;
}

/* When silence calls for a PING, or patience with one that nothing answers ends; INT64_MAX: nobody waits. */
static int64_t ping_due(const struct h2_server *h)
{
	const struct server_settings *settings = &h->c->server->settings;

	if (settings->h2_ping_ms == 0 || list_is_empty(&h->streams))
		return INT64_MAX;
	return h->ping_ms ? h->ping_ms + settings->h2_ping_timeout_ms : h->read_ms + settings->h2_ping_ms;
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t patience(const struct server_connection *c)
{
	const struct server_settings *settings = &c->server->settings;
	const struct h2_server *h = c->session;
	int64_t ends = INT64_MAX;
	enum h2_reason why;

	if (c->state == CONNECTION_LINGER)
		return c->since_ms + LINGER_MS;
	if (!h)
		return c->since_ms + settings->header_timeout_ms;
	if (h->head_ms)
		ends = h->head_ms + settings->header_timeout_ms;
	if (h->drain == H2_NOTICED)
		ends = earlier(ends, h->drain_ms + H2_DRAIN_NOTICE_MS);
	if (list_is_empty(&h->streams))
		ends = earlier(ends, c->since_ms + (c->requests ? settings->idle_ms : settings->header_timeout_ms));
	for (struct list *node = h->streams.next; node != &h->streams; node = node->next)
		ends = earlier(ends, stream_patience(of_node(node), &why));
	ends = earlier(ends, ping_due(h));
	return ends == INT64_MAX ? 0 : ends;
}

static void expire_stream(struct h2_server_stream *s, enum h2_reason why)
{
	h2_count(why);
	if (why == H2_BODY_TIMEOUT && !s->owner->head_sent) {
		h2_server_refuse(s, H1_FAULT_NONE, 408);
		return;
	}
	s->base.is_deferred = false;
	h2_server_reset(s, NGHTTP2_CANCEL);
}

/* A client that is gone without a word is noticed by this alone while there is nothing to send to it. */
static void send_ping(struct h2_server *h)
{
	h->ping_ms = clock_ms();
	nghttp2_submit_ping(h->base.ng, NGHTTP2_FLAG_NONE, NULL);
	loop_defer(h->c->server->loop, &h->c->task);
}

static void expired(struct server_connection *c)
{
	const struct server_settings *settings = &c->server->settings;
	struct h2_server *h = h2_server_of(c);
	int64_t now = clock_ms();

	if (c->state == CONNECTION_LINGER || !h) {
		connection_close(c);
	} else if (h->head_ms && h->head_ms + settings->header_timeout_ms <= now) {
		say_goodbye(h, NGHTTP2_ENHANCE_YOUR_CALM, H2_HEADER_TIMEOUT);
	} else if (list_is_empty(&h->streams) && h->drain != H2_NOTICED) {
		say_goodbye(h, NGHTTP2_NO_ERROR, h->drain ? H2_DRAIN : H2_IDLE);
	} else if (h->base.queued > 0 && h->base.progress_ms + settings->write_stall_ms <= now) {
		say_goodbye(h, NGHTTP2_ENHANCE_YOUR_CALM, H2_WRITE_STALL);
	} else if (h->ping_ms && ping_due(h) <= now) {
		say_goodbye(h, NGHTTP2_NO_ERROR, H2_PING_TIMEOUT);
	} else {
		if (ping_due(h) <= now)
			send_ping(h);
		if (h->drain == H2_NOTICED && h->drain_ms + H2_DRAIN_NOTICE_MS <= now)
			say_last_stream(h);
		LIST_EACH(node, &h->streams) {
			enum h2_reason why = H2_FINE;

			if (stream_patience(of_node(node), &why) <= now)
				expire_stream(of_node(node), why);
		}
		h2_server_hurry(h, 1000);
	}
}

/* ---------- the end ---------- */

static void ended(struct server_connection *c)
{
	struct h2_server *h = h2_server_of(c);

	mem_free(c->in);
	c->in = NULL;
	budget_add(-(int64_t)c->in_cap);
	c->in_cap = 0;
	if (!h)
		return;
	end_streams(h, c->is_aborted ? STREAM_ABORTED : STREAM_CLIENT_GONE);
	c->session = NULL;
	loop_free_later(c->server->loop, &h->garbage);
}

static bool is_idle(const struct server_connection *c)
{
	const struct h2_server *h = c->session;

	return h && c->state == CONNECTION_WAIT && list_is_empty(&h->streams) && !h->head_ms && h->drain != H2_NOTICED;
}

static size_t held(const struct server_connection *c)
{
	const struct h2_server *h = c->session;
	size_t n = H2_SESSION_BYTES;

	for (struct list *node = h ? h->streams.next : NULL; h && node != &h->streams; node = node->next) {
		const struct h2_server_stream *s = of_node(node);

		n += H2_STREAM_BYTES + s->base.queue.cap + s->in.cap + arena_size(&s->refusal);
		n += s->owner ? arena_size(s->owner->arena) : 0;
	}
	return n;
}

static void drain(struct server_connection *c)
{
	struct h2_server *h = h2_server_of(c);

	if (!h || h->drain != H2_SERVING || c->state != CONNECTION_WAIT)
		return;
	h->drain = H2_NOTICED;
	h->drain_ms = clock_ms();
	nghttp2_submit_shutdown_notice(h->base.ng);
	nghttp2_submit_ping(h->base.ng, NGHTTP2_FLAG_NONE, h2_drain_mark);
	h2_server_hurry(h, H2_DRAIN_NOTICE_MS);
	loop_defer(c->server->loop, &c->task);
}

void h2_server_drain_answered(struct h2_server *h)
{
	if (h->drain == H2_NOTICED)
		say_last_stream(h);
}

const struct connection_protocol h2_protocol = {
	.ready = ready,
	.run = run,
	.flushed = flushed,
	.patience = patience,
	.expired = expired,
	.ended = ended,
	.is_idle = is_idle,
	.held = held,
	.drain = drain,
};
