/*
 * postgres.h -- queries to a PostgreSQL server over libpq's asynchronous interface: the one door to it.
 *
 * A pool of at most POSTGRES_CONNECTIONS_MAX connections for each server and thread; queries that find none free wait in
 * line, POSTGRES_PENDING_MAX at most. Every query ends exactly once, at the latest when its time is over; the connection
 * of one that was given up is closed. Parameters are texts, results come as texts.
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
#define POSTGRES_RESULT_MAX (16 * 1024 * 1024)

struct postgres;

struct postgres_options {
	struct str host;                  /* without brackets */
	uint16_t port;                    /* 0 = 5432 */
	struct str database, user, password;      /* absent database: the user's name */
	int64_t connect_timeout_ms, idle_ms;
};

enum postgres_failure { POSTGRES_DONE, POSTGRES_CONNECT, POSTGRES_REFUSED, POSTGRES_CLOSED, POSTGRES_TIMEOUT,
	POSTGRES_BUSY };

struct postgres_query {
	void (*done)(struct postgres_query *q);   /* never inside postgres_send() */
	void *arg;
	/* in done */
	enum postgres_failure failure;
	struct str error;                 /* of REFUSED: SQLSTATE and message, without values; good during done */
	const char *sqlstate;             /* "42P01"; "" = none */
	/* private */
	struct list node;
	struct timer limit;
	void *more;
};

struct postgres *postgres_new(struct loop *loop, const struct postgres_options *o);
void postgres_free(struct postgres *p);   /* what is under way is forgotten: no done */
/* One statement with $1 ... parameters; all are copied. An absent parameter is NULL. */
void postgres_send(struct postgres *p, struct postgres_query *q, struct str sql, unsigned n, const struct str *params,
		   int64_t timeout_ms);
void postgres_cancel(struct postgres_query *q);
bool postgres_is_idle(const struct postgres *p);
/* In done: what came. Absent str: NULL. */
unsigned postgres_rows(const struct postgres_query *q);
struct str postgres_value(const struct postgres_query *q, unsigned row, unsigned column);
