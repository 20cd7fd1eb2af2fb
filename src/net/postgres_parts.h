/*
 * postgres_parts.h -- what postgres.c (pool, line, queries) and postgres_connect.c (connections on their way) share.
 * Not for others: with these two it is the door to libpq.
 */
#pragma once
#include <libpq-fe.h>
#include "core/offload.h"
#include "net/postgres.h"
#include "net/resolver.h"

/*
 * What is used of libpq, without its PQ. The library is loaded when PostgreSQL is first wanted: it brings twenty others
 * along (Kerberos, LDAP, a second TLS), which nobody needs who has no vector store.
 */
#define POSTGRES_LIBRARY(F) \
	F(clear) F(connectPoll) F(connectStartParams) F(consumeInput) F(errorMessage) F(finish) F(flush) \
	F(freemem) F(getResult) F(getisnull) F(getlength) F(getssl) F(getvalue) F(isBusy) F(nfields) \
	F(notifies) F(resultErrorField) F(resultStatus) F(sendQueryParams) F(setNoticeReceiver) \
	F(setSingleRowMode) F(setnonblocking) F(socket) F(status) F(transactionStatus)
struct postgres_library {
#define POSTGRES_POINTER(name) __typeof__(PQ##name) *name;
	POSTGRES_LIBRARY(POSTGRES_POINTER)
#undef POSTGRES_POINTER
};
extern struct postgres_library pq;        /* once postgres_load() said so */

#define POSTGRES_ROUNDS_DIGITS 32         /* ",i=" and digits, with zeros in front */
#define POSTGRES_TAIL (POSTGRES_ROUNDS_DIGITS + 8)

/* What postgres_send() was given, and what came; one piece of memory. */
struct postgres_request {
	struct postgres *owner;
	struct postgres_query *query;     /* NULL in `done`: it was cancelled, or sent again */
	bool is_finishing;                /* within `done` */
	bool is_complete;                 /* the server said that it has done what was asked */
	struct postgres_connection *connection;    /* NULL: it waits in line */
	bool is_over;                     /* it ends with `failure` at the next pump */
	const char *sql;
	const char *values[POSTGRES_PARAMETERS_MAX];
	unsigned n;
	size_t size;
	PGresult *rows[POSTGRES_ROWS_MAX];
	unsigned n_rows;
	char error[POSTGRES_ERROR_MAX], sqlstate[6];
};

enum postgres_state { STARTING, POLLING, IDLE, BUSY };

struct postgres_connection {
	struct postgres *owner;           /* NULL: given up while it is polled */
	struct list node;
	enum postgres_state state;
	PGconn *pg;
	struct watch watch;
	bool is_watched;
	struct postgres_query *query;     /* BUSY */
	struct timer limit;               /* of connecting, of idleness */
	uint64_t received;                /* bytes before the present query or idleness */
	struct garbage garbage;
	/* POLLING */
	struct offload_job job;
	PostgresPollingStatusType polled;
	bool is_excessive;
	char tail[POSTGRES_TAIL];                  /* of what was looked at */
	size_t n_tail;
	struct loop *loop;
	char *hostaddr;                   /* "127.0.0.1,127.0.0.2" */
	char *host;                       /* the name as often as there are addresses */
	/* copied: the owner may go while it is polled */
	char *user, *password, *database, port[8];
};

struct postgres {
	struct loop *loop;
	struct resolver *resolver;
	char *host, *user, *password, *database;
	uint16_t port;
	int64_t connect_timeout_ms, idle_ms;
	bool (*may_call)(const struct addr *to);
	struct list connections;
	unsigned n_connections, n_connecting;     /* the latter are among the former */
	struct list waiting;              /* struct postgres_query */
	unsigned n_waiting;
	struct task pump;
	struct resolver_query lookup;
	bool is_looking;
	char error[POSTGRES_ERROR_MAX];   /* of the last connection that failed */
};

/* postgres.c */
char *postgres_copy_text(struct str s);
void postgres_pump_soon(struct postgres *p);
/* Connections: what they are told, and their end. */
void postgres_ready(struct watch *w, uint32_t events);
void postgres_watch_for(struct postgres_connection *c, uint32_t events);
void postgres_unwatch(struct postgres_connection *c);
uint64_t postgres_received(const struct postgres_connection *c);          /* bytes, ever */
void postgres_rest(struct postgres_connection *c);                        /* it is free */
void postgres_connection_free(struct postgres_connection *c);             /* nothing of it runs, it has no owner */
void postgres_connection_close(struct postgres_connection *c);
void postgres_release(struct garbage *g);
/* It did not come to be; what waits for nothing else fails. */
void postgres_give_up(struct postgres_connection *c, const char *words);
void postgres_connect_failed(struct postgres *p, const char *words);

/* postgres_connect.c */
void postgres_look_up(struct postgres *p);                                /* begins one more connection */
void postgres_name_found(struct resolver_query *q);
void postgres_poll_beside(struct postgres_connection *c);                 /* STARTING, and what it waited for came */
