/*
 * client.h -- requests to upstreams: a pool of connections for each endpoint and thread, and calls over them.
 *
 * A `struct call` is one request and its response on one connection. Its owner embeds it and is called through
 * `struct call_ops`, on the loop's thread, never from inside call_start() or call_send(). Exactly one of `finished`
 * (after the last body byte was handed over) and `failed` ends a call; after that, or after call_cancel(), the call
 * is not touched any more.
 *
 * Pools keep idle connections last in, first out; an idle connection that the upstream closes or writes to is dropped
 * at once. What it wrote before a call took the connection is never taken for the answer: the call fails with
 * CALL_RESET as on a connection found closed.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/loop.h"
#include "core/timer.h"
#include "http/h1.h"
#include "http/message.h"
#include "net/addr.h"
#include "net/tls_client.h"

struct client;
struct client_connection;
struct call;

enum call_failure {                       /* what failed; the proxy maps it to a status and a reason */
	CALL_CONNECT,                     /* refused, unreachable, connect timeout, TLS: nothing was sent */
	CALL_RESET,                       /* closed or reset before a whole response head */
	CALL_TIMEOUT,                     /* no byte for idle_timeout_ms before a head */
	CALL_MALFORMED,                   /* the response breaks the protocol */
	CALL_TRUNCATED,                   /* closed, reset or silent within the body */
};

struct call_ops {
	/*
	 * The final response head is in c->res, with the first decoded body bytes; end = the body is complete.
	 * With status 101 c->is_tunnel is set, see there. The buffer may be written to; what is not used during the
	 * call must be copied.
	 */
	void (*response)(struct call *c, char *data, size_t n, bool end);
	/* A 103 (Early Hints) is in c->res; other interim responses are consumed. May be NULL. */
	void (*interim)(struct call *c);
	void (*body)(struct call *c, char *data, size_t n, bool end);   /* never while paused */
	void (*drained)(struct call *c);                                /* the request body may go on */
	void (*failed)(struct call *c, enum call_failure what);
};

/* The connections of one endpoint on one thread. Zero-initialise; lives in the endpoint's cell. */
struct pool {
	struct list idle;                 /* newest first; initialised on first use */
	struct list shared;               /* HTTP/2: those that take more calls; initialised on first use */
	unsigned n;
	unsigned most_idle;               /* connections kept; 0 = the usual limit */
	struct lanes *lanes;              /* pools of TLS connections by identity and name; client_tls.c */
};

/* What carries a call: HTTP/1.1 or HTTP/2. The functions below go through it. */
struct call_class {
	bool (*send)(struct call *c, const struct message *head, struct str data, bool end);
	void (*resume)(struct call *c);
	void (*cancel)(struct call *c);
	void (*set_idle)(struct call *c);         /* idle_timeout_ms has changed */
	void (*move)(struct call *c);             /* it is another struct than before */
};

struct call {
	const struct call_class *class;   /* set by call_start() */
	struct client *client;
	struct client_connection *connection;    /* HTTP/1; NULL while not connected and after the end */
	void *carrier;                    /* what HTTP/2 keeps of it; NULL after the end */
	const struct call_ops *ops;
	struct arena *arena;              /* for the response head */
	struct pool *pool;
	struct pool *within;              /* set by call_start(): the pool, or one of its lanes */
	/* read atomically: when true the connection is closed and not pooled; may be NULL */
	const bool *pool_closed;
	struct addr addr;
	enum method method;               /* of the request: decides the framing of the response */
	int64_t connect_timeout_ms, idle_timeout_ms;
	struct message res;
	int64_t connected_us;             /* clock_us(); 0 when a pooled connection was used */
	uint64_t sent, received;          /* bytes on the wire */
	/*
	 * TLS, set before call_start(); NULL: in the clear. server_name is what the handshake asks for and what the
	 * certificate must bear unless `tls` says otherwise; absent: the address is. A handshake that fails is
	 * CALL_CONNECT with tls_failure and its text. Connections are reused for the same tls and server_name only.
	 */
	const struct tls_client *tls;
	struct str server_name;
	const char *tls_text;             /* why the handshake failed, in words; "" */
	uint8_t tls_failure;              /* enum tls_client_failure */
	bool takes_any_name;              /* only the certificate's chain counts: see struct tls_connect */
	/* HTTP/1: received at once at most until the head is there; 0 = all. For owners that may not take more. */
	uint32_t first_piece;
	bool over_h2;                     /* set before call_start(): HTTP/2 by prior knowledge, shared connections */
	bool is_refused;                  /* when CALL_RESET: the upstream says that it did nothing with the request */
	bool reused;                      /* the connection came from the pool */
	bool request_done;                /* call_send had `end` */
	bool response_started;            /* any byte of a response was read */
	bool paused;
	/*
	 * Bytes both ways without framing: set before call_start() for a plain TCP connection (no head is sent, none
	 * comes), or by a 101 that answers a request with head->upgrade. `end` of call_send() and of body() closes one
	 * direction; drained() comes after the last bytes too; the owner ends the call with call_cancel().
	 */
	bool is_tunnel;
	struct str upgrade;               /* what the request asked for; kept by call_send() */
	const struct message *trailers;   /* rows to follow the request body; set before the call with `end` */
	uint8_t req_framing;
	int error;                        /* errno of the failure, 0 = none */
	enum h1_fault fault;              /* when CALL_MALFORMED */
};

struct client *client_new(struct loop *loop, size_t receive_bytes);
/* Who gives a descriptor back when there is none for a connection; make_room says whether one was. */
void client_ask_for_room(struct client *c, bool (*make_room)(void *arg), void *arg);
/* HTTP/2 connections that are silent while calls wait are asked by PING, as server_settings say. 0 = never. */
void client_set_ping(struct client *c, int64_t ping_ms, int64_t timeout_ms);
void client_free(struct client *c);
/*
 * Opens or reuses a connection. Fields client, ops, arena, pool, addr, method and the timeouts must be set. Events
 * follow later in the turn at the earliest.
 */
void call_start(struct call *c, bool fresh);      /* fresh: do not take one from the pool */
/*
 * Sends head (exactly once, first; head->framing says how the body is framed), data, end. May be called before the
 * connection is there: the bytes wait. false = backed up, wait for drained(). All bytes are taken.
 */
bool call_send(struct call *c, const struct message *head, struct str data, bool end);
void call_pause(struct call *c);                  /* no body() until call_resume() */
void call_resume(struct call *c);
/* Another idle_timeout_ms, from now on; 0 = none. Of a call under way. */
void call_set_idle(struct call *c, int64_t idle_timeout_ms);
/*
 * From response() on, when the request was sent whole, without trailers: what is left of the answer goes to `to`, of
 * which ops and arena are set. `from` is over: no event of it comes any more.
 */
void call_move(struct call *to, struct call *from);
void call_cancel(struct call *c);                 /* closes the connection (HTTP/2: the stream); no more events */
/* Told of each handshake that ends: counted and logged by the owner. */
struct handshake {
	const struct addr *addr;
	struct str server_name;
	enum tls_client_failure failure;  /* TLS_CLIENT_NONE: it succeeded */
	const char *text;
	bool is_resumed;
};
void client_watch_handshakes(struct client *c, void (*ended)(const struct handshake *h));
/* Closes idle connections of any pool, at most so many: their descriptors are needed. Returns how many. */
unsigned client_close_idle(struct client *c, unsigned most);
/* Closes every idle connection of the pool. */
void pool_close(struct client *c, struct pool *p);
