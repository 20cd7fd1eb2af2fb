/* server_connection.h -- what server.c and server_stream.c share. Not for other rooms. */
#pragma once
#include "core/list.h"
#include "http/output.h"
#include "http/server.h"

#define LINGER_MS 2000
#define LINGER_BYTES (1024 * 1024)       /* read and thrown away after our last byte */
#define DRAIN_BYTES 65536                /* of an unread request body, to keep the connection */
#define AHEAD_BYTES 65536                /* received at once where it may be requests sent ahead, which are kept */
#define READS_PER_TURN 16                /* receives of one connection before the others get their turn */

enum connection_state {
	CONNECTION_HEAD,                  /* between requests or within a head */
	CONNECTION_BODY,                  /* within a request body */
	CONNECTION_WAIT,                  /* request complete, response under way: nothing is read */
	CONNECTION_DRAIN,                 /* response sent, the rest of the request body is thrown away */
	CONNECTION_LINGER,                /* our side is closed, the client's not yet */
	CONNECTION_CLOSED,
};

struct server {
	struct loop *loop;
	struct outbox *outbox;            /* the loop's */
	const struct server_ops *ops;
	struct server_settings settings;
	void *owner;
	char *buffer;                     /* receive_bytes, shared by all connections of the thread */
	char *scratch;                    /* response heads are written here */
	size_t scratch_n;
	struct list connections;
	struct server_listener *listeners;
	unsigned n_connections;
	bool is_draining;
	struct timer rest;
	bool (*judge)(struct server_connection *c);   /* of the last sweep, for those that were busy then */
	uint64_t handshake_turn;          /* of the loop, in which handshake_steps were made */
	unsigned handshake_steps;
};

/*
 * What a connection speaks at present: the TLS handshake, HTTP/1.1 or HTTP/2. server.c owns descriptor, timer, output
 * and the end; a protocol owns everything else, and may hand over to another one (connection_speak).
 */
struct connection_protocol {
	/* An edge came; c->is_readable and c->is_eof are set, what waited to be written was tried. */
	void (*ready)(struct server_connection *c, uint32_t events);
	/* From the ready list: what a stream call, or a full turn, left to do. */
	void (*run)(struct server_connection *c);
	/* All that waited is in the kernel. */
	void (*flushed)(struct server_connection *c);
	/*
	 * When patience with what is going on now ends, clock_ms(); 0 = no limit. Output that waits is judged by
	 * server.c.
	 */
	int64_t (*patience)(const struct server_connection *c);
	/* It ended. */
	void (*expired)(struct server_connection *c);
	/* The connection is closed: its streams end (closed() of each). */
	void (*ended)(struct server_connection *c);
	/* Nothing is under way: may be closed without loss. */
	bool (*is_idle)(const struct server_connection *c);
	/* Bytes it holds apart from the members below and `stream`. NULL: none. */
	size_t (*held)(const struct server_connection *c);
	/* The server drains: no new streams. */
	void (*drain)(struct server_connection *c);
};
extern const struct connection_protocol h1_protocol;
extern const struct connection_protocol h2_protocol;
extern const struct stream_class h1_stream_class;

struct server_connection {
	struct watch watch;
	struct timer timer;
	struct task task;                 /* what stream_send() leaves to do */
	struct garbage garbage_link;
	struct list node;
	struct server *server;
	struct server_listener *listener;
	const struct connection_protocol *protocol;
	void *session;                    /* of a protocol that needs more than the members below */
	struct stream *stream;            /* HTTP/1: the request being served, or NULL */
	struct transport transport;
	struct output out;
	/* bytes [in_at, in_n) were received and not used yet; NULL when there are none */
	char *in;
	uint32_t in_at, in_n, in_cap;
	struct addr peer;
	uint64_t id, requests;
	int64_t since_ms;                 /* when this state began; within a body: the last byte of it */
	int64_t write_ms;                 /* last progress of what waits in `out` */
	int64_t head_ms;                  /* when the first byte of a partial head came; 0 = none */
	int64_t body_ms;                  /* when the body began, or went on after a pause of ours */
	uint64_t body_bytes;              /* received of it since then */
	struct h1_scan scan;
	bool has_skipped;                 /* the one empty line that may come before a request */
	struct h1_body body;
	uint64_t lingered;
	uint8_t state;
	bool is_readable;                 /* an edge said so and no short read since */
	bool is_eof;                      /* the client closed its side */
	bool is_broken;                   /* writing failed */
	bool is_pumping;                  /* connection_pump is on the stack */
	bool is_aborted;                  /* we ended the stream, not the client */
	bool drain_after;                 /* the unread body is small enough to keep the connection */
	bool is_partial;                  /* the kept bytes are a head that is not complete */
	bool is_accused;                  /* a sweep found it busy: to be judged when it is idle */
	bool is_half_closed;              /* a tunnel's: our side is shut */
};

void connection_ready(struct watch *w, uint32_t events);
void connection_timeout(struct timer *t);
void connection_run(struct task *t);
/* Ends everything, now. Freed at the end of the turn. */
void connection_close(struct server_connection *c);
void connection_linger(struct server_connection *c);
void connection_flush(struct server_connection *c);
/* Another protocol takes over; kept and unread bytes are its to read. */
void connection_speak(struct server_connection *c, const struct connection_protocol *protocol);
/* Closes it if it is idle and unwanted (drain, sweep). For the end of a protocol's pump. */
void connection_dismiss(struct server_connection *c);
/* The server's receive: 0 = nothing there now (is_readable is off), -1 = the client's end or an error. */
ssize_t connection_receive(struct server_connection *c);

/* Hands response bytes of c->stream to the kernel or keeps them; false = they wait. */
bool connection_push(struct server_connection *c, struct iovec *parts, int n);
/* Something waits for the client from now on. */
void connection_expect_progress(struct server_connection *c);
/* Some of what was posted did not get through: what is left waits, or the connection breaks. */
void connection_take_back(struct letter *l, struct iovec rest, int error);
/* server_tunnel.c: from now on all bytes are the stream's (NULL: of one that the protocol opens itself). */
void connection_tunnel(struct server_connection *c, struct stream *s);

/* HTTP/1 only */
void h1_pump(struct server_connection *c);
void h1_refuse(struct server_connection *c, enum h1_fault fault, int status);
bool h1_settle(struct server_connection *c);
void server_rest_over(struct timer *t);

/* server_shed.c */
void server_tell_shed(struct server *s, enum server_shed what);
