/*
 * postgres.h -- queries to a PostgreSQL server over libpq's asynchronous interface: the one door to it.
 *
 *      postgres_send ──► line ──► a free connection ──► done
 *                         └──► name ──► connecting (CPU of it on a thread of a pool) ──► one more connection
 *
 * A pool of at most POSTGRES_CONNECTIONS_MAX connections for each server and thread; queries that find none free
 * wait in line, POSTGRES_PENDING_MAX at most. Every query ends exactly once, at the latest when its time is over;
 * the connection of one that was given up is closed. Nothing is sent twice. Parameters are texts, results come as
 * texts; both UTF-8.
 *
 * TLS is used where the server offers it, and not verified (sslmode=prefer); passwords go by SCRAM or MD5, whatever
 * the server asks for. What a server can make of us is bounded: time, bytes of a result, rows, what it says unasked.
 * Neither the loop nor its thread ever wait: names come from the resolver, handshakes and password hashes are
 * computed elsewhere.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/list.h"
#include "core/loop.h"
#include "core/str.h"
#include "core/timer.h"

#define POSTGRES_CONNECTIONS_MAX 4
#define POSTGRES_PENDING_MAX 256
#define POSTGRES_PARAMETERS_MAX 16
#define POSTGRES_ROWS_MAX 64              /* of a result; more is not for us */
#define POSTGRES_RESULT_MAX (16 * 1024 * 1024)
#define POSTGRES_ERROR_MAX 200

struct addr;
struct postgres;
struct resolver;

struct postgres_options {
	struct str host;                  /* name or IP, without brackets */
	uint16_t port;                    /* 0 = 5432 */
	struct str database, user, password;      /* absent database: the user's name */
	int64_t connect_timeout_ms;
	int64_t idle_ms;                  /* an idle connection is closed after it; 0 = never */
	bool (*may_call)(const struct addr *to);  /* which addresses of the name may be used; NULL = all */
};

/*
 * CONNECT: there is no connection, or it was refused (a password); REFUSED: the server answered with an error;
 * CLOSED: the connection broke, or the server does not keep to the bounds; BUSY: too many wait.
 */
enum postgres_failure { POSTGRES_DONE, POSTGRES_CONNECT, POSTGRES_REFUSED, POSTGRES_CLOSED, POSTGRES_TIMEOUT,
	POSTGRES_BUSY };
const char *postgres_failure_text(enum postgres_failure f);       /* "it cannot be connected to" */

/* Zero-initialise. The same struct may be sent again in `done`, and freed there once postgres_cancel() was called. */
struct postgres_query {
	void (*done)(struct postgres_query *q);   /* never inside postgres_send(); may not free the struct postgres */
	void *arg;
	/* in done */
	enum postgres_failure failure;
	/* Of CONNECT, REFUSED, CLOSED: the server's words, without values that were sent; good during done. */
	struct str error;
	const char *sqlstate;             /* of REFUSED: "42P01"; else "" */
	/* private */
	struct list node;
	struct timer limit;
	struct postgres_request *request;
};

/*
 * Loads libpq, which reads files: before a loop needs it. Any thread; once is enough, and what failed is tried again.
 * Without it every query fails with CONNECT and these words.
 */
bool postgres_load(char error[POSTGRES_ERROR_MAX]);
/* Options are copied. */
struct postgres *postgres_new(struct loop *loop, struct resolver *resolver, const struct postgres_options *o);
void postgres_free(struct postgres *p);   /* what is under way is forgotten: no done */
/* One statement, with $1 ... for the parameters. An absent one is NULL; none may hold a NUL. */
struct postgres_statement {
	struct str sql;
	unsigned n;                       /* at most POSTGRES_PARAMETERS_MAX */
	const struct str *params;
};
/* All is copied. timeout_ms: from now to the end of the result. */
void postgres_send(struct postgres *p, struct postgres_query *q, const struct postgres_statement *s,
		   int64_t timeout_ms);
void postgres_cancel(struct postgres_query *q);   /* harmless when it is over or was never sent */
bool postgres_is_idle(const struct postgres *p);  /* no query, and no connection is left */
/* In done: what came. NULL: absent str. */
unsigned postgres_rows(const struct postgres_query *q);
struct str postgres_value(const struct postgres_query *q, unsigned row, unsigned column);
