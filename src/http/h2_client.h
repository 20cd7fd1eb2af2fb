/*
 * h2_client.h -- what h2_client.c and h2_client_read.c share.
 *
 * A connection is shared by the calls of one endpoint and thread. A stream of ours lives until nghttp2 has closed it;
 * `call` is NULL once the call has ended.
 */
#pragma once
#include "http/client_connection.h"
#include "http/h2.h"

#define H2_CALLS 128                      /* of one connection at most, whatever the upstream allows */
#define H2_CALL_WINDOW 131072             /* bytes an upstream may send for a call before we took some */

struct h2_upstream {
	struct h2_connection base;
	struct watch watch;
	struct timer timer;
	struct task task;
	struct garbage garbage;
	struct list shared, all;          /* in the pool (unless it takes no more calls), in the client */
	struct client *client;
	struct lane *lane;                /* NULL without TLS */
	struct addr addr;
	struct transport transport;
	struct output out;
	struct list streams;              /* of struct h2_call */
	struct h2_call *reading;          /* whose header block it is */
	unsigned n_calls;
	int64_t since_ms;                 /* connecting: when that began; without calls: when the last one ended */
	int64_t read_ms;                  /* when something last came */
	int64_t silent_ms;                /* the same, or when the first of the calls under way began */
	int64_t ping_ms;                  /* when the last PING was sent */
	int64_t connect_timeout_ms;
	int64_t write_ms;                 /* last progress of what waits in `out` */
	int error;                        /* errno of a connection that never was */
	bool is_connecting, is_closed;    /* connecting until a handshake, if any, is done */
	bool is_securing;                 /* the handshake is under way */
	bool is_leaving;                  /* takes no more calls */
	bool is_readable, is_eof;
	bool is_broken;                   /* it broke the protocol: GOAWAY said so */
	bool has_resumed, has_pending;
	bool has_settings, has_waiting;   /* the upstream's SETTINGS came; some call waits for them */
	bool is_asked;                    /* nothing came since the last PING ... */
	bool is_quiet;                    /* ... nothing but its answer */
};

struct h2_call {
	struct h2_stream base;
	struct list node;
	struct h2_upstream *connection;
	struct call *call;
	struct timer timer;
	struct h2_queue in;               /* received while the call was paused */
	const struct message *waiting;    /* a head that asks for another protocol, until we know whether it may */
	struct str accept;                /* the answer to its Sec-WebSocket-Key, if it has one */
	int64_t start_ms, since_ms;       /* since: last progress */
	uint64_t body_bytes;              /* received of it */
	unsigned interims;
	bool has_head;                    /* the final head was read */
	bool is_pending;                  /* and response() follows with the first of the body */
	bool is_complete;                 /* END_STREAM was read */
	bool is_malformed;
	bool end_told;                    /* of a tunnel: the owner knows that the upstream's side has ended */
};

/* h2_client.c */
void h2_call_fail(struct h2_call *s, enum call_failure what, int error);
void h2_call_let_go(struct h2_call *s);   /* the call has ended well or was cancelled */
void h2_call_free(struct h2_call *s);
void h2_upstream_wake(struct h2_upstream *u);
void h2_upstream_retire(struct h2_upstream *u);   /* no more calls for it */

/* h2_client_read.c */
struct nghttp2_session *h2_client_session(struct h2_upstream *u);
bool h2_client_take(struct h2_upstream *u, char *p, size_t n);      /* false: the connection is of no use any more */
void h2_client_deliver_kept(struct h2_upstream *u);

/* h2_client_connect.c */
/* Calls that ask for another protocol: sends their heads, or fails them. */
void h2_client_begin_waiting(struct h2_upstream *u);
void h2_client_take_over(struct h2_call *s);           /* the upstream agreed: the call becomes a tunnel */
