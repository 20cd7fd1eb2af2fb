/*
 * h2_server.h -- what h2_server.c, h2_server_read.c and h2_server_stream.c share.
 *
 * A stream of ours lives from the first byte of its head until both nghttp2 has closed it and its owner was told
 * (closed). `owner` is NULL before open() and after closed(), and for requests that were refused here.
 */
#pragma once
#include "http/h2.h"
#include "http/server_connection.h"

#define H2_BACKLOG_BYTES (4 * 1024 * 1024)      /* queued on a connection that stands still: no more requests */
#define H2_HEADS_BYTES (512 * 1024)             /* of all requests being served: no more requests */
#define H2_DRAIN_NOTICE_MS 1000           /* how long the last GOAWAY waits for the answer to its PING */
#define H2_RESETS_KEPT 128                /* of streams that we reset: the client may not know of it yet */

struct h2_server_stream {
	struct h2_stream base;
	struct list node;                 /* in session->streams */
	struct h2_server *session;
	struct stream *owner;
	struct h2_queue in;               /* received while the owner was paused */
	struct arena refusal;             /* of an answer without an owner */
	size_t head_bytes;                /* counted in session->heads */
	int64_t since_ms;                 /* last byte of the body, or when its pause ended */
	int64_t body_ms;                  /* when the body began, or went on after a pause */
	uint64_t body_bytes;              /* received since then */
	bool is_pending;                  /* the head is complete; request() follows with the first of the body */
	bool is_complete;                 /* the whole request was received */
	bool is_held;                     /* asks for another protocol: what follows waits for the answer */
	bool is_tunnel;                   /* got it */
	bool is_aborted;
};

enum h2_drain { H2_SERVING, H2_NOTICED, H2_LEAVING };

struct h2_server {
	struct h2_connection base;
	struct server_connection *c;
	struct list streams, finished;    /* finished: written, and not all of it in the kernel; by base.touched */
	struct garbage garbage;
	unsigned n_streams;               /* with an owner */
	size_t heads;                     /* bytes of their heads */
	int64_t head_ms;                  /* when a header block began that is not complete; 0 = none */
	int64_t drain_ms;
	int64_t read_ms;                  /* when something last came */
	int64_t ping_ms;                  /* when a PING was sent and nothing came since; 0 = none */
	int32_t last_id;                  /* highest stream that was opened ... */
	int32_t gap_from, gap_to;         /* ... and the last ids that were passed over: [from, to) */
	unsigned n_resets;                /* in all */
	int32_t *resets;                  /* the last H2_RESETS_KEPT streams that we reset; NULL = none */
	struct h2_server_stream *reading; /* whose header block it is */
	uint8_t drain;                    /* enum h2_drain */
	bool has_resumed;                 /* a stream was resumed: bytes kept for it may be delivered */
	bool has_pending;
};

static inline struct h2_server *h2_server_of(struct server_connection *c)
{
	return c->session;
}

extern const struct stream_class h2_stream_class;
/* Of the PING that goes with the notice of a drain. */
extern const uint8_t h2_drain_mark[8];

/* h2_server_read.c: a session of nghttp2 with our callbacks and settings. */
struct nghttp2_session *h2_server_session(struct h2_server *h);
/* Bytes from the client. False: the connection must end (h->base.verdict says why). */
bool h2_server_take(struct h2_server *h, char *p, size_t n);
/* Body bytes that were kept while the owner was paused. */
void h2_server_deliver_kept(struct h2_server *h);
/* An answer of our own, without an owner; the rest of the request is not wanted. */
void h2_server_refuse(struct h2_server_stream *s, enum h1_fault fault, int status);
/* The owner is told; what nghttp2 has closed is freed. */
void h2_server_end_stream(struct h2_server_stream *s, enum stream_end how);
void h2_server_free_stream(struct h2_server_stream *s);
void h2_server_reset(struct h2_server_stream *s, uint32_t code);
/* The client has seen the notice of a drain. */
void h2_server_drain_answered(struct h2_server *h);
/* The timer fires in `ms` at the latest. */
void h2_server_hurry(struct h2_server *h, int64_t ms);
