/*
 * server.h -- connections of clients: bytes in, requests out, responses back. Used by the data plane and the control
 * API.
 *
 * A `struct stream` is one request and its response, whatever HTTP version carries it. Its owner (an exchange, an API
 * call) embeds it as first member and is called through `struct server_ops`; all calls happen on the loop's thread,
 * none of them from inside stream_send(). Bytes are handed over where they lie (a receive buffer shared by the whole
 * thread): what the owner does not use during the call it must copy. Idle connections hold no buffer.
 *
 *      request(head, first body bytes) ─► body(...)* ─►   owner   ─► stream_send(head, bytes, end)
 *                                         stream_pause/stream_resume            drained()
 *
 * The end: `closed` is called exactly once for each stream, when its response was handed to the kernel or cannot be.
 * After that the stream is no longer touched here: the owner frees itself.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/loop.h"
#include "http/h1.h"
#include "http/message.h"
#include "net/addr.h"
#include "net/tls.h"

struct server;
struct server_connection;
struct stream;

/* Why a stream ended. */
enum stream_end {
	STREAM_SENT,                      /* the whole response was written, or goes out with this turn */
	STREAM_CLIENT_GONE,               /* closed, reset or stalled before that */
	STREAM_ABORTED,                   /* by stream_abort() */
};

/* What was refused or ended to protect the rest. */
enum server_shed {
	SHED_CONNECTION,                  /* a new one: too many are open, or no descriptor is left */
	SHED_IDLE,                        /* an idle one, whose descriptor was needed */
	SHED_HOLDER,                      /* the one that held most of a memory budget that is spent */
	SHED_COUNT
};

struct server_ops {
	/*
	 * Room for a new request; zeroed stream with `arena` set (it stays the owner's). NULL = out of budget: the
	 * client gets 503.
	 */
	struct stream *(*open)(struct server_connection *c);
	/*
	 * A whole head is in s->req. data[0..n) are the first decoded body bytes, `end` tells that the body is
	 * complete. Not called for what the parser refused: that is answered here, see `refused`.
	 */
	void (*request)(struct stream *s, char *data, size_t n, bool end);
	/* More of the body; never while paused. The buffer may be written to. */
	void (*body)(struct stream *s, char *data, size_t n, bool end);
	/* Output that was backed up (stream_send returned false) is gone: the source may go on. */
	void (*drained)(struct stream *s);
	void (*closed)(struct stream *s, enum stream_end how);
	/*
	 * The parser or a limit refused a request with this fault and status (counted and logged by the owner). May
	 * be NULL.
	 */
	void (*refused)(struct server_connection *c, enum h1_fault fault, int status, struct str request_id);
	/* A connection was accepted: false closes it without a byte (L4 lists, limits). May be NULL. */
	bool (*accepted)(struct server_connection *c);
	/*
	 * After connection_read_proxy_header(): connection_peer() is whom the PROXY header names. false closes, as of
	 * accepted().
	 */
	bool (*identified)(struct server_connection *c);
	/*
	 * After connection_carry_bytes() and connection_peek_name(): `s` is a new stream that is all of the connection,
	 * without a head. Bytes follow by body(); stream_send() has no head, and its `end` closes one direction only.
	 * server_name: what a TLS client asks for; absent when it says nothing.
	 */
	void (*tunnel)(struct stream *s, struct str server_name);
	/*
	 * After connection_secure(): connection_tls() tells what was agreed. false closes. May call
	 * connection_carry_bytes(); else HTTP follows, in the version that ALPN chose. May be NULL.
	 */
	bool (*handshake_done)(struct server_connection *c);
	/* It ends without. `text`: OpenSSL's words, or "". May be NULL. */
	void (*handshake_failed)(struct server_connection *c, enum tls_failure why, const char *text);
	/* A connection was closed. May be NULL. */
	void (*disconnected)(struct server_connection *c);
	/* Descriptors are short: give back some that nobody uses now. Returns how many. May be NULL. */
	unsigned (*make_room)(struct server *s);
	/* Something was refused or ended to protect the rest: counted by the owner. May be NULL. */
	void (*shed)(struct server *s, enum server_shed what);
};

struct server_settings {
	struct h1_limits limits;
	int64_t header_timeout_ms;        /* whole head, 10,000 */
	int64_t body_idle_ms;             /* 30,000 */
	int64_t body_rate;                /* bytes a second at least, 240; 0 = off */
	int64_t idle_ms;                  /* keep-alive, 60,000 */
	int64_t write_stall_ms;           /* 30,000 */
	/* HTTP/2: a connection with requests that is silent is asked by PING after so long; 30,000; 0 = never. */
	int64_t h2_ping_ms;
	int64_t h2_ping_timeout_ms;       /* and is closed when nothing comes for so long after it; 15,000 */
	uint64_t requests_per_connection; /* 0 = unlimited; default 10,000 */
	size_t receive_bytes;             /* of the shared buffer; default 131,072 */
	unsigned connections;             /* at most so many; more are closed at once. 0 = unlimited */
	int64_t drain_idle_ms;            /* at the end: an idle connection may bring one more request; 0 = no */
	bool keeps_reserve;               /* the last descriptors are not for these connections */
	bool write_server_errors;         /* reserved */
};
extern const struct server_settings server_default_settings;

/* One listening socket of this thread; embedded by its owner, who keeps what a request needs to know about it. */
struct server_listener {
	struct watch watch;
	struct server *server;
	struct addr local;
	void *owner;
	const struct tls_names *tls;      /* of the configuration in force, for connection_secure(); or NULL */
	unsigned refs;                    /* connections that came through it, plus one while it is open */
	struct server_listener *next;     /* of the same server */
	bool is_resting;                  /* out of descriptors: not looked at for some milliseconds */
	void (*unused)(struct server_listener *l);   /* refs went to 0: may be freed now */
};

/* What carries a stream: HTTP/1.1 or HTTP/2. The functions below go through it. */
struct stream_class {
	bool (*send)(struct stream *s, struct message *head, struct str data, bool end);
	void (*send_continue)(struct stream *s);
	void (*send_interim)(struct stream *s, const struct message *head);   /* NULL: not passed on */
	void (*resume)(struct stream *s);
	void (*abort)(struct stream *s);
};

struct stream {
	const struct stream_class *class;
	struct server_connection *connection;     /* NULL once the stream ended */
	void *carrier;                    /* what the class keeps of it; NULL for HTTP/1 and once the stream ended */
	struct arena *arena;
	struct message req;
	int64_t start_us;                 /* clock_us() when the first byte of the head was seen */
	uint64_t received, sent;          /* body bytes of the request; all bytes of the response written */
	bool request_done;                /* the request body was read to its end */
	bool head_sent, response_done;    /* stream_send had a head; had `end` */
	bool close_after;                 /* set to close the connection after this response */
	bool paused;
	uint8_t res_framing;              /* enum framing of the response */
	uint64_t res_left;                /* bytes still owed when FRAMING_LENGTH */
	/* Rows to follow the body, set before the call with `end`; left out where the framing cannot carry them. */
	const struct message *trailers;
};

/* Control thread, before workers start. */
void h2_metrics(void);
struct server *server_new(struct loop *loop, const struct server_ops *ops, const struct server_settings *settings,
			  void *owner);
void server_free(struct server *s);                       /* closes what is open */
void *server_owner(const struct server *s);
unsigned server_connections(const struct server *s);      /* open now */
/* Takes over a listening descriptor. */
void server_listen(struct server *s, struct server_listener *l, int fd);
/* Stops accepting, after those that wait in the backlog; its connections go on. */
void server_unlisten(struct server_listener *l);
/* The same, leaving those to whoever holds the socket too. */
void server_leave(struct server_listener *l);
/*
 * No new requests but the first of each connection: idle ones close after drain_idle_ms, others after the response
 * under way ("Connection: close").
 */
void server_drain(struct server *s);
/* Gives a descriptor back by closing a connection that nobody uses: the owner's make_room(), or one of a client. */
bool server_make_room(struct server *s);
/* Closes the connection that holds most memory; false when none holds any. */
bool server_close_largest(struct server *s);
/* Calls f for every open connection, for a busy one when it is idle next: true closes it. */
void server_sweep(struct server *s, bool (*f)(struct server_connection *c));
void server_set_settings(struct server *s, const struct server_settings *settings);

struct server_listener *connection_listener(const struct server_connection *c);
const struct addr *connection_peer(const struct server_connection *c);
struct server *connection_server(const struct server_connection *c);
uint64_t connection_id(const struct server_connection *c);           /* unique in the process */
/* NULL: the connection is in the clear. */
const struct tls *connection_tls(const struct server_connection *c);
/* For accepted() and identified(): a TLS handshake comes first, with the names of the connection's listener. */
void connection_secure(struct server_connection *c);

/* What comes before HTTP or instead of it; for accepted() and identified(). */
void connection_read_proxy_header(struct server_connection *c);      /* then identified() */
/* No HTTP: tunnel() follows. server_name: what a TLS handshake on this side was about; absent = none. */
void connection_carry_bytes(struct server_connection *c, struct str server_name);
void connection_peek_name(struct server_connection *c);              /* tunnel() when the TLS client hello is there */

/*
 * Sends (parts of) the response: `head` exactly once and first (framing and keep_alive of it are settled here from
 * the client's version and the request), then data, then end. The bytes are all taken; false = they are backed up,
 * send no more until drained(). With framing FRAMING_CHUNKED each call with data makes one chunk (HTTP/1.0 clients
 * get FRAMING_CLOSE instead). HEAD requests and 204/304: give the head, `end`, and no data. One system call in the
 * usual case. After a call with `end` the stream may be gone when the loop comes round: do not touch it except
 * through closed().
 */
bool stream_send(struct stream *s, struct message *head, struct str data, bool end);
/* An interim response: only before the final head. 100 when the client waits for it; another one as `head` says. */
void stream_send_continue(struct stream *s);
void stream_send_interim(struct stream *s, const struct message *head);
/*
 * A 101 head with head->upgrade makes the connection's bytes the stream's: what the client sends comes by body(), what
 * is sent goes out unframed, `end` closes one direction, and the stream ends when both are closed and it is not paused.
 */
/* Stops and restarts body() calls: back-pressure to the client. */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);
/*
 * Ends the connection now, without an end of the body the client could take for complete. closed() follows, later in
 * the turn.
 */
void stream_abort(struct stream *s);
