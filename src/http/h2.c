/*
 * h2.c -- what both sides of HTTP/2 need: queues, the one write of a turn, budgets.
 *
 *	stream_send / call_send ──► queue of the stream ──► (end of the turn) h2_write ──► transport
 *	                                                      nghttp2 says which frames, by priority and windows
 */
#include "http/h2.h"
#include <nghttp2/nghttp2.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/metric.h"
#include "http/h2_session.h"
#include "http/server.h"

#define WIRE_BYTES 32768                  /* frames without large payloads, gathered for one write */
#define WIRE_PARTS 64
#define COPIED_PAYLOAD 1024               /* a payload up to this is copied: cheaper than a part of its own */

/* ---------- queues ---------- */

void h2_queue_add(struct h2_queue *q, const char *p, size_t n)
{
	if (q->at == q->n)
		q->at = q->n = 0;
	if (q->at > 0 && q->n + n > q->cap) {
		memmove(q->p, q->p + q->at, q->n - q->at);
		q->n -= q->at;
		q->at = 0;
	}
	if (q->n + n > q->cap) {
		budget_add(-(int64_t)q->cap);
		q->cap = (q->n + n + 1023) & ~(size_t)1023;
		budget_add((int64_t)q->cap);
		q->p = mem_resize(q->p, q->cap);
	}
	memcpy(q->p + q->n, p, n);
	q->n += n;
}

void h2_queue_free(struct h2_queue *q)
{
	mem_free(q->p);
	budget_add(-(int64_t)q->cap);
	*q = (struct h2_queue){ 0 };
}

bool h2_stream_add(struct h2_connection *h, struct h2_stream *s, struct str data, bool end)
{
	if (data.n > 0) {
		if (h->queued == 0)
			h->progress_ms = clock_ms();
		if (h2_queue_size(&s->queue) == 0)
			s->moved_ms = clock_ms();
		h2_queue_add(&s->queue, data.p, data.n);
		h->queued += data.n;
	}
	s->end = s->end || end;
	if (s->is_deferred && (data.n > 0 || end)) {
		s->is_deferred = false;
		nghttp2_session_resume_data(h->ng, s->id);
	}
	s->is_blocked = h2_queue_size(&s->queue) > H2_STREAM_QUEUE ||
			(h->queued > H2_CONNECTION_QUEUE && h2_queue_size(&s->queue) > 0);
	return !s->is_blocked;
}

void h2_stream_drop(struct h2_connection *h, struct h2_stream *s)
{
	h->queued -= h2_queue_size(&s->queue);
	h2_queue_free(&s->queue);
	list_remove(&s->touched);
}

bool h2_stream_take_drained(const struct h2_connection *h, struct h2_stream *s)
{
	size_t left = h2_queue_size(&s->queue);

	if (!s->is_blocked || left > H2_STREAM_QUEUE_LOW || (left > 0 && h->queued > H2_CONNECTION_QUEUE))
		return false;
	s->is_blocked = false;
	return true;
}

/* ---------- budgets ---------- */

static const struct {
	int32_t burst, per_second;
} budgets[H2_BUDGET_END] = {
#define H2_BUDGET_ROW(id, tag, burst, per_second) [H2_##id] = { (burst), (per_second) },
	H2_BUDGETS(H2_BUDGET_ROW)
#undef H2_BUDGET_ROW
};
static struct series *ends[H2_REASON_COUNT];

void h2_metrics(void)
{
#define BUDGET_SERIES(id, tag, burst, per_second) ends[H2_##id] = metric_series(METRIC_H2_ENDS, &STR(tag));
	H2_BUDGETS(BUDGET_SERIES)
#undef BUDGET_SERIES
#define REASON_SERIES(id, tag) ends[H2_##id] = metric_series(METRIC_H2_ENDS, &STR(tag));
	H2_REASONS(REASON_SERIES)
#undef REASON_SERIES
}

void h2_count(enum h2_reason why)
{
	if (ends[why])
		metric_add(ends[why], 1);
}

bool h2_spend(struct h2_connection *h, enum h2_reason which)
{
	struct h2_bucket *b = &h->buckets[which];
	int64_t now = clock_ms(), more;

	if (b->since_ms == 0) {
		b->left = budgets[which].burst;
		b->since_ms = now;
	}
	more = (now - b->since_ms) * budgets[which].per_second / 1000;
	if (more > 0) {
		b->left = more < budgets[which].burst - b->left ? b->left + (int32_t)more : budgets[which].burst;
		b->since_ms = now;
	}
	if (b->left > 0) {
		b->left--;
		return true;
	}
	if (h->verdict == H2_FINE)
		h->verdict = which;
	return false;
}

bool h2_afford(struct h2_connection *h, uint8_t type, uint8_t flags, size_t n)
{
	switch (type) {
	case NGHTTP2_DATA:
		return n > 0 || (flags & NGHTTP2_FLAG_END_STREAM) || h2_spend(h, H2_EMPTY_DATA);
	case NGHTTP2_HEADERS:
		return true;
	case NGHTTP2_PRIORITY:
		return h2_spend(h, H2_PRIORITIES);
	case NGHTTP2_RST_STREAM:
		return h2_spend(h, H2_RESETS);
	case NGHTTP2_SETTINGS:
		return (flags & NGHTTP2_FLAG_ACK) || h2_spend(h, H2_SETTINGS);
	case NGHTTP2_PING:
		return h2_spend(h, H2_PINGS);
	case NGHTTP2_WINDOW_UPDATE:
		return h2_spend(h, H2_WINDOWS);
	case NGHTTP2_CONTINUATION:
		return h2_spend(h, H2_CONTINUATIONS);
	default:
		return h2_spend(h, H2_EXTENSIONS);
	}
}

/* ---------- writing ---------- */

/* What one write takes along. Of the thread: h2_write() is never on the stack twice. */
struct wire {
	char text[WIRE_BYTES];
	size_t n;
	struct iovec parts[WIRE_PARTS];
	int n_parts;
	bool is_full;                     /* a frame did not fit: write, then ask again */
};
static _Thread_local struct wire wire;

static void add_part(const void *p, size_t n)
{
	struct iovec *last = wire.n_parts ? &wire.parts[wire.n_parts - 1] : NULL;

	if (last && (const char *)last->iov_base + last->iov_len == p)
		last->iov_len += n;
	else
		wire.parts[wire.n_parts++] = (struct iovec){ (void *)(uintptr_t)p, n };
}

static void add_text(const void *p, size_t n)
{
	memcpy(wire.text + wire.n, p, n);
	add_part(wire.text + wire.n, n);
	wire.n += n;
}

static bool has_room(size_t n)
{
	return wire.n + n <= WIRE_BYTES && wire.n_parts + 2 <= WIRE_PARTS;
}

H2_GIVE_DATA(h2_give_data)
{
	struct h2_stream *s = source->ptr;
	struct h2_connection *h = arg;
	size_t n = h2_queue_size(&s->queue);

	(void)ng, (void)id, (void)buffer;
	if (n == 0 && !s->end) {
		s->is_deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n > room)
		return (ssize_t)room;
	if (s->end) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (s->trailers && h2_submit_trailers(h, s) == 0)
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
	}
	return (ssize_t)n;
}

H2_SEND_DATA(h2_send_data)
{
	struct h2_connection *h = arg;
	struct h2_stream *s = source->ptr;
	const char *payload = s->queue.p + s->queue.at;

	(void)ng, (void)frame;
	if (!has_room(9 + COPIED_PAYLOAD)) {
		wire.is_full = true;
		return NGHTTP2_ERR_WOULDBLOCK;
	}
	add_text(head, 9);
	if (n > COPIED_PAYLOAD)
		add_part(payload, n);
	else if (n > 0)
		add_text(payload, n);
	s->queue.at += n;
	h->queued -= n;
	h->progress_ms = s->moved_ms = clock_ms();
	list_remove(&s->touched);
	list_append(&h->touched, &s->touched);
	return 0;
}

static enum output_result flush(struct h2_connection *h, struct output *out, struct transport *t)
{
	enum output_result result = OUTPUT_ALL;

	for (int i = 0; i < wire.n_parts; i++)
		h->sent += wire.parts[i].iov_len;
	if (wire.n_parts > 0)
		result = output_send(out, t, wire.parts, wire.n_parts);
	wire.n = 0;
	wire.n_parts = 0;
	wire.is_full = false;
	return result;
}

enum output_result h2_write(struct h2_connection *h, struct output *out, struct transport *t)
{
	enum output_result result = OUTPUT_ALL;

	wire.n = 0;
	wire.n_parts = 0;
	wire.is_full = false;
	for (;;) {
		const uint8_t *p;
		ssize_t n = nghttp2_session_mem_send(h->ng, &p);

		if (n < 0)
			return OUTPUT_FAILED;
		if (n == 0) {
			bool has_more = wire.is_full;

			result = flush(h, out, t);
			if (!has_more || result != OUTPUT_ALL)
				return result;
			continue;
		}
		if (!has_room((size_t)n))
			result = flush(h, out, t);
		if (result == OUTPUT_FAILED)
			return result;
		/* A frame larger than the room lies at nghttp2's until the next call: written as it is. */
		if ((size_t)n > WIRE_BYTES)
			add_part(p, (size_t)n);
		else
			add_text(p, (size_t)n);
		if ((size_t)n > WIRE_BYTES || result == OUTPUT_WAITS) {
			result = flush(h, out, t);
			if (result != OUTPUT_ALL)
				return result;
		}
	}
}
