/*
 * h2.h -- HTTP/2 (RFC 9113) over nghttp2: what the server's and the client's side share. Private to this room.
 *
 * nghttp2 keeps frames, HPACK, stream states and windows; here are the bodies that wait for a window, the one write
 * that takes all ready frames of a turn, heads to messages and back, and the budgets that end a connection whose peer
 * costs more than it asks for.
 *
 * Invariants: bytes of a queue lie still from the moment a frame refers to them until h2_write() returns; a stream on
 * the `touched` list is not freed before that. Nothing here calls an owner from within its send.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/list.h"
#include "http/h1.h"
#include "http/message.h"
#include "http/output.h"

struct nghttp2_session;

#define H2_STREAMS 100                    /* at once, of one client */
#define H2_STREAM_WINDOW 65536            /* bytes a stream may send before we took some */
#define H2_CONNECTION_WINDOW (1024 * 1024)
#define H2_STREAM_QUEUE 65536             /* above this the sender waits ... */
#define H2_STREAM_QUEUE_LOW 16384         /* ... until no more than this is left */
#define H2_CONNECTION_QUEUE (512 * 1024)  /* of all streams: above this every sender waits */
/* What nghttp2 takes for a connection and for each stream, about: counted in the thread's budget (core/budget.h). */
#define H2_SESSION_BYTES 32768
#define H2_STREAM_BYTES 1024
#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define H2_PREFACE_BYTES 24

/*
 * H2_BUDGET(id, tag, burst, per_second): what a client may do that costs us and gets it nothing. Allowances refill with
 * time; who overdraws one is told ENHANCE_YOUR_CALM and cut off.
 */
#define H2_BUDGETS(F) \
	F(RESETS, "resets", 200, 20) \
	F(ERRORS, "stream_errors", 100, 10) \
	F(SETTINGS, "settings", 50, 2) \
	F(PINGS, "pings", 1000, 100) \
	F(PRIORITIES, "priorities", 1000, 100) \
	F(EMPTY_DATA, "empty_data", 200, 20) \
	F(WINDOWS, "window_updates", 5000, 1000) \
	F(CONTINUATIONS, "continuations", 200, 20) \
	F(EXTENSIONS, "extensions", 100, 10)
/* H2_REASON(id, tag): other causes for which a connection or a stream is ended from our side. */
#define H2_REASONS(F) \
	F(PROTOCOL, "protocol_error") \
	F(CLOSED, "stream_closed") \
	F(FLOODED, "flooded") \
	F(HEAD_SIZE, "head_size") \
	F(HEADER_TIMEOUT, "header_timeout") \
	F(BODY_TIMEOUT, "body_timeout") \
	F(WRITE_STALL, "write_stall") \
	F(BACKLOG, "backlog") \
	F(IDLE, "idle") \
	F(PING_TIMEOUT, "ping_timeout") \
	F(DRAIN, "drain")
enum h2_reason {
	H2_FINE,
#define H2_BUDGET_ID(id, tag, burst, per_second) H2_##id,
	H2_BUDGETS(H2_BUDGET_ID)
#undef H2_BUDGET_ID
	H2_BUDGET_END,
	H2_BEFORE_REASONS = H2_BUDGET_END - 1,
#define H2_REASON_ID(id, tag) H2_##id,
	H2_REASONS(H2_REASON_ID)
#undef H2_REASON_ID
	H2_REASON_COUNT
};

/* Bytes that wait; counted in the thread's budget. Zero-initialise. */
struct h2_queue {
	char *p;
	size_t at, n, cap;                /* bytes [at, n) wait */
};
static inline size_t h2_queue_size(const struct h2_queue *q)
{
	return q->n - q->at;
}
void h2_queue_add(struct h2_queue *q, const char *p, size_t n);
void h2_queue_free(struct h2_queue *q);

/* A header block on its way into a message. A connection reads one at a time. */
struct h2_head {
	struct message *m;
	char *next, *end;                 /* room for the text of fields */
	struct str scheme;
	unsigned fields;                  /* so far; cookie crumbs and dropped names count */
	size_t bytes;
	unsigned cookies;                 /* rows of them */
	bool has_host, has_authority, has_length, has_expect, is_trailer;
	enum h1_fault fault;              /* the first; nothing is kept after it */
};

struct h2_stream {                        /* first member of each side's own */
	int32_t id;                       /* 0: nghttp2 has closed it, or does not know it yet */
	struct h2_queue queue;            /* to be sent */
	struct list touched;
	const struct message *trailers;   /* to follow it */
	int64_t moved_ms;                 /* when bytes last left the queue, or began to wait in it */
	bool end;                         /* nothing follows what is queued */
	bool is_deferred;                 /* nghttp2 waits for h2_stream_resume() */
	bool is_blocked;                  /* the sender was told to wait */
	bool end_sent;
};

struct h2_bucket {
	int32_t left;
	int64_t since_ms;                 /* when it was refilled; 0 = full */
};

struct h2_connection {                    /* first member of each side's own; nghttp2's user data */
	struct nghttp2_session *ng;
	struct list touched;              /* streams whose frames were written since h2_write() began */
	size_t queued;                    /* bytes in the queues of all streams */
	int64_t progress_ms;              /* when body bytes last went out */
	uint64_t sent;                    /* frames' bytes */
	struct h2_head head;
	int64_t frame_left;               /* of the DATA frame being read; -1 = padded, not known */
	bool frame_ends;                  /* it has END_STREAM */
	enum h2_reason verdict;           /* why this connection must end; H2_FINE */
	struct h2_bucket buckets[H2_BUDGET_END];
};

/* Spends one of that allowance; false (and a verdict) when there is none left. */
bool h2_spend(struct h2_connection *h, enum h2_reason which);
/* Spends what a frame with this head costs. */
bool h2_afford(struct h2_connection *h, uint8_t type, uint8_t flags, size_t n);
/* Counts an end caused by us. */
void h2_count(enum h2_reason why);

/*
 * Frames that are ready, to the transport: one system call when it takes them. OUTPUT_FAILED also when nghttp2 fails.
 */
enum output_result h2_write(struct h2_connection *h, struct output *out, struct transport *t);
/* Queues body bytes; false = enough wait, the sender has to. */
bool h2_stream_add(struct h2_connection *h, struct h2_stream *s, struct str data, bool end);
/* What waits is given up. */
void h2_stream_drop(struct h2_connection *h, struct h2_stream *s);
/* The bytes that were waiting are few again: the sender may go on. Clears the mark. */
bool h2_stream_take_drained(const struct h2_connection *h, struct h2_stream *s);

/* ---------- heads ---------- */

void h2_head_begin(struct h2_head *head, struct message *m, bool is_trailer);
/* One field as HPACK gave it. A pseudo field too. */
void h2_head_add(struct h2_head *head, struct str name, struct str value, const struct h1_limits *limits);
/* All are there. has_body: no END_STREAM. */
enum h1_fault h2_head_end_request(struct h2_head *head, bool has_body);
enum h1_fault h2_head_end_response(struct h2_head *head, enum method method, bool has_body);

/* nghttp2 copies none of the text: it lives until the frame is written or the stream is closed. 0 or an error. */
int h2_submit_response(struct h2_connection *h, struct h2_stream *s, const struct message *m, bool has_body);
int h2_submit_interim(struct h2_connection *h, struct h2_stream *s, const struct message *m);
/* Sets s->id. */
int h2_submit_request(struct h2_connection *h, struct h2_stream *s, const struct message *m, bool has_body,
		      bool is_tls);
int h2_submit_trailers(struct h2_connection *h, struct h2_stream *s);
