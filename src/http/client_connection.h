/* client_connection.h -- what client.c and client_read.c share. Not for other rooms. */
#pragma once
#include "core/list.h"
#include "http/client.h"
#include "http/output.h"

extern const struct call_class h2_call_class;

#define INTERIM_MAX 16                   /* 1xx heads before one response */
#define READS_PER_TURN 16                /* receives of one connection before the others get their turn */

enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_SECURING, UPSTREAM_BUSY, UPSTREAM_IDLE, UPSTREAM_CLOSED };

struct client {
	struct loop *loop;
	struct outbox *outbox;            /* the loop's */
	char *buffer;                     /* receive_bytes, shared by all connections of the thread */
	size_t receive_bytes;
	char *scratch;                    /* request heads are written here */
	size_t scratch_n;
	struct list connections;
	struct list shared;               /* HTTP/2: struct h2_upstream */
	bool (*make_room)(void *arg);     /* gives a descriptor back; NULL: only idle connections of ours can */
	void *room_arg;
	struct list lanes;                /* of all pools */
	void (*handshake_ended)(const struct handshake *h);
	uint64_t handshake_turn;          /* steps of handshakes in that turn of the loop */
	unsigned handshake_steps;
	int64_t h2_ping_ms, h2_ping_timeout_ms;   /* client_set_ping() */
};

struct client_connection {
	struct watch watch;
	struct timer timer;
	struct task task;
	struct garbage garbage;
	struct list idle, all;
	struct client *client;
	struct call *call;                /* NULL while idle */
	struct pool *pool;
	struct lane *lane;                /* NULL without TLS */
	struct transport transport;
	struct output out;
	char *in;                         /* a partial response head */
	uint32_t in_n, in_cap;
	int64_t since_ms;                 /* last progress */
	uint64_t turn;                    /* of the loop, in which the call began */
	unsigned interims;
	struct h1_scan scan;
	struct h1_body body;
	int error;                        /* errno of a connection that never was */
	int write_error;                  /* errno of a failed write */
	uint8_t state;
	bool has_head;                    /* the final response head was parsed */
	bool keep_alive;                  /* the upstream allows another request */
	bool is_readable, is_eof, is_pumping;
	bool has_ended, is_half_closed;   /* a tunnel's: the upstream's side, ours */
};

/* client_tls.c */
struct lane;
struct pool *lane_find(const struct call *call);  /* its pool; NULL: nothing is kept */
struct lane *lane_of(const struct call *call);    /* NULL without TLS, or where nothing is kept */
void lane_join(struct lane *l);                   /* a connection of it begins, NULL is fine */
void lane_leave(struct lane *l);
bool lane_is_open(const struct lane *l);          /* connections may be kept; NULL: they may */
void lanes_close(struct pool *p);
void client_free_lanes(struct client *client);
bool client_can_secure(struct call *call);        /* false: tls_failure says why not */
void client_secure(const struct call *call, struct transport *t);
/* Whether one more step fits into this turn; if not, the ready list brings the connection back. */
bool client_may_shake(struct client *client);
enum tls_result client_shake_hands(const struct client *client, const struct transport *t, bool is_eof);
/* What it was, told to who watches; before the transport is freed. error: ETIMEDOUT and EPROTONOSUPPORT count. */
struct handshake client_failed_handshake(const struct client *client, const struct transport *t, const struct addr *to,
					 int error);

/* client.c */
void pool_close_own(struct pool *p);              /* without its lanes */

/* h2_client.c */
void h2_call_start(struct call *call, bool fresh);
void h2_client_close(struct client *client);
void h2_pool_close(struct pool *p);

/* There is no connection yet that a request could go out on. */
static inline bool upstream_is_opening(const struct client_connection *c)
{
	return c->state <= UPSTREAM_SECURING;
}
void upstream_ready(struct watch *w, uint32_t events);
void upstream_pump(struct client_connection *c);
void upstream_close(struct client_connection *c);
void upstream_fail(struct client_connection *c, enum call_failure what, int error);
enum call_failure upstream_failure(const struct client_connection *c);
void upstream_detach(struct client_connection *c, bool keep);
void upstream_tunnel(struct client_connection *c);
void upstream_half_close(struct client_connection *c);
