/*
 * postgres.c -- the pool, the line, and the connections, each a machine of its own:
 *
 *      STARTING ──► (watched) ◄──► POLLING (on a thread of the pool) ──► IDLE ◄──► BUSY
 *
 * PQconnectPoll() reads no more than is there, but it computes: TLS, and as many rounds of a hash as the server says. So it
 * runs beside the loop, and before it the rounds are looked at (is_excessive). A connection that is given up while it is
 * polled is freed when that is over.
 *
 * The memory that a server can use up is counted in bytes received, as the kernel counts them: libpq keeps what it is told
 * (parameters, notices) for as long as the connection lives, so connections are also replaced after CONNECTION_BYTES.
 */
#include "net/postgres.h"
#include <errno.h>
#include <libpq-fe.h>
#include <linux/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/arena.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/offload.h"
#include "net/addr.h"
#include "net/resolver.h"
#include "net/tls.h"

#define DEFAULT_PORT 5432
#define CONNECTION_BYTES (256ULL << 20)
#define UNASKED_BYTES 65536               /* that an idle connection may receive */
#define HANDSHAKE_BYTES (1 << 20)
#define ROUNDS_MAX 1000000                /* of the hash of a password; servers say 4096 */
#define ROUNDS_DIGITS 32                  /* ",i=" and digits, with zeros in front */
#define LOOK 16384                        /* what libpq reads at a time */
#define TAIL (ROUNDS_DIGITS + 8)
#define READS 4                           /* a TLS record is at most 16 KiB, a read at least 8 */
#define ADDRESSES 4

/* What postgres_send() was given, and what came; one piece of memory. */
struct postgres_request {
	struct postgres *owner;
	struct postgres_query *query;     /* NULL in `done`: it was cancelled, or sent again */
	bool is_finishing;                /* within `done` */
	bool is_complete;                 /* the server said that it has done what was asked */
	struct connection *connection;    /* NULL: it waits in line */
	bool is_over;                     /* it ends with `failure` at the next pump */
	const char *sql;
	const char *values[POSTGRES_PARAMETERS_MAX];
	unsigned n;
	size_t size;
	PGresult *rows[POSTGRES_ROWS_MAX];
	unsigned n_rows;
	char error[POSTGRES_ERROR_MAX], sqlstate[6];
};

enum state { STARTING, POLLING, IDLE, BUSY };

struct connection {
	struct postgres *owner;           /* NULL: given up while it is polled */
	struct list node;
	enum state state;
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
	char tail[TAIL];                  /* of what was looked at */
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

static struct offload pool = OFFLOAD_POOL("postgres", 2, 256);

const char *postgres_failure_text(enum postgres_failure f)
{
	static const char *const texts[] = {
		[POSTGRES_DONE] = "it answered", [POSTGRES_CONNECT] = "it cannot be connected to",
		[POSTGRES_REFUSED] = "it answered with an error", [POSTGRES_CLOSED] = "the connection to it broke",
		[POSTGRES_TIMEOUT] = "it took too long", [POSTGRES_BUSY] = "too many queries of it are under way",
	};

	return texts[f];
}

/* ---------- texts ---------- */

static char *copy_text(struct str s)
{
	char *out = mem_alloc(s.n + 1);

	if (s.n)
		memcpy(out, s.p, s.n);
	return out;
}

static void free_secret(char *text)
{
	mem_wipe(text, strlen(text));
	mem_free(text);
}

/* The first line, without what is not printable. */
static void keep_words(char out[POSTGRES_ERROR_MAX], const char *text)
{
	size_t n = 0;

	for (; text && *text && *text != '\n' && n < POSTGRES_ERROR_MAX - 1; text++)
		out[n++] = (unsigned char)*text < ' ' || *text == 0x7f ? ' ' : *text;
	out[n] = '\0';
}

/* ---------- requests ---------- */

static void request_free(struct postgres_request *r)
{
	for (unsigned i = 0; i < r->n_rows; i++)
		PQclear(r->rows[i]);
	mem_wipe(r, r->size);
	mem_free(r);
}

static struct postgres_request *request_new(struct str sql, unsigned n, const struct str *params)
{
	size_t size = sizeof(struct postgres_request) + sql.n + 1;
	struct postgres_request *r;
	char *at;

	BUG_ON(n > POSTGRES_PARAMETERS_MAX);
	for (unsigned i = 0; i < n; i++)
		size += params[i].n + 1;
	r = mem_alloc(size);
	r->size = size;
	r->n = n;
	r->sql = at = (char *)(r + 1);
	at = str_put(at, sql) + 1;
	for (unsigned i = 0; i < n; i++) {
		r->values[i] = params[i].p ? at : NULL;
		at = str_put(at, params[i]) + 1;
	}
	return r;
}

/* The request goes, whatever `done` does with the query. */
static void finish(struct postgres_query *q, enum postgres_failure failure)
{
	struct postgres_request *r = q->request;

	list_remove(&q->node);
	timer_disarm(&q->limit);
	q->failure = failure;
	q->error = str_of(r->error);
	q->sqlstate = r->sqlstate;
	r->is_finishing = true;
	q->done(q);
	if (r->query) {
		q->request = NULL;
		q->error = (struct str){ NULL, 0 };
		q->sqlstate = "";
	}
	request_free(r);
}

unsigned postgres_rows(const struct postgres_query *q)
{
	return q->failure == POSTGRES_DONE && q->request ? q->request->n_rows : 0;
}

struct str postgres_value(const struct postgres_query *q, unsigned row, unsigned column)
{
	const PGresult *of;

	if (row >= postgres_rows(q))
		return (struct str){ NULL, 0 };
	of = q->request->rows[row];
	if ((int)column >= PQnfields(of) || PQgetisnull(of, 0, (int)column))
		return (struct str){ NULL, 0 };
	return (struct str){ PQgetvalue(of, 0, (int)column), (size_t)PQgetlength(of, 0, (int)column) };
}

/* ---------- connections: their end ---------- */

static void unwatch(struct connection *c)
{
	if (c->is_watched)
		loop_remove(c->loop, &c->watch);
	c->is_watched = false;
}

static void release(struct garbage *g)
{
	struct connection *c = CONTAINER(g, struct connection, garbage);

	mem_free(c->hostaddr);
	mem_free(c->host);
	mem_free(c->user);
	mem_free(c->database);
	free_secret(c->password);
	mem_free(c);
}

/* Nothing of it runs. */
static void connection_free(struct connection *c)
{
	unwatch(c);
	if (c->pg)
		PQfinish(c->pg);
	c->pg = NULL;
	loop_free_later(c->loop, &c->garbage);
}

static void pump_soon(struct postgres *p)
{
	loop_defer(p->loop, &p->pump);
}

static void connection_close(struct connection *c)
{
	struct postgres *p = c->owner;

	list_remove(&c->node);
	timer_disarm(&c->limit);
	p->n_connections--;
	p->n_connecting -= c->state == STARTING || c->state == POLLING;
	c->owner = NULL;
	if (c->state == POLLING)
		offload_cancel(&c->job);
	else
		connection_free(c);
	pump_soon(p);
}

/* Nobody connects, and no connection works: those in line have nothing to wait for. */
static void fail_waiting(struct postgres *p)
{
	if (p->n_connections > 0)
		return;
	LIST_EACH(node, &p->waiting) {
		struct postgres_query *q = CONTAINER(node, struct postgres_query, node);

		if (q->request->is_over)
			continue;
		q->request->is_over = true;
		q->failure = POSTGRES_CONNECT;
		memcpy(q->request->error, p->error, sizeof p->error);
	}
	pump_soon(p);
}

static void connect_failed(struct postgres *p, const char *words)
{
	keep_words(p->error, words);
	fail_waiting(p);
}

/* It did not come to be. */
static void give_up(struct connection *c, const char *words)
{
	struct postgres *p = c->owner;
	char text[POSTGRES_ERROR_MAX];

	keep_words(text, words);                  /* before the connection goes, whose words they are */
	connection_close(c);
	connect_failed(p, text);
}

/* ---------- queries on a connection ---------- */

static uint64_t bytes_received(const struct connection *c)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof info;

	if (getsockopt(PQsocket(c->pg), IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
		return 0;
	return info.tcpi_bytes_received;
}

static bool is_within(const struct connection *c, uint64_t most)
{
	return bytes_received(c) - c->received <= most;
}

static void watch_for(struct connection *c, uint32_t events)
{
	if (c->is_watched)
		loop_modify(c->loop, &c->watch, events);
	else
		c->is_watched = loop_add(c->loop, &c->watch, events);
}

static void rest(struct connection *c)
{
	struct postgres *p = c->owner;

	c->state = IDLE;
	c->query = NULL;
	c->received = bytes_received(c);
	if (c->received > CONNECTION_BYTES) {
		connection_close(c);
		return;
	}
	watch_for(c, EPOLLIN | EPOLLRDHUP);
	if (p->idle_ms > 0)
		loop_arm(p->loop, &c->limit, p->idle_ms);
	list_remove(&c->node);
	list_push(&p->connections, &c->node);     /* those used last are used first, so that others become idle */
	pump_soon(p);
}

/* The connection goes, and its query with it. */
static void break_off(struct connection *c, enum postgres_failure failure)
{
	struct postgres_query *q = c->query;

	if (failure == POSTGRES_CLOSED && q && !q->request->error[0])
		keep_words(q->request->error, PQerrorMessage(c->pg));
	connection_close(c);
	if (q)
		finish(q, failure);
}

/* Classes whose words say what is wrong with the server or the table, never what was sent. */
static bool has_harmless_words(const char *sqlstate)
{
	static const char *const classes[] = { "08", "28", "3D", "3F", "42", "53", "55", "57", "58", "25", "XX" };

	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
		if (strncmp(sqlstate, classes[i], 2) == 0)
			return true;
	return false;
}

static void take_error(struct postgres_request *r, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	snprintf(r->sqlstate, sizeof r->sqlstate, "%s", state && strlen(state) == 5 ? state : "XX000");
	keep_words(r->error, has_harmless_words(r->sqlstate) ?
		   PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : "it does not accept a value");
}

/* False: the server says what it was not asked, and the connection is of no use any more. The result is taken. */
static bool take_result(struct connection *c, PGresult *result)
{
	struct postgres_request *r = c->query->request;

	switch (PQresultStatus(result)) {
	case PGRES_SINGLE_TUPLE:
		if (r->n_rows == POSTGRES_ROWS_MAX)
			break;
		r->rows[r->n_rows++] = result;
		return true;
	case PGRES_TUPLES_OK:
	case PGRES_COMMAND_OK:
	case PGRES_EMPTY_QUERY:
		r->is_complete = true;
		PQclear(result);
		return true;
	case PGRES_FATAL_ERROR:
		if (!r->sqlstate[0])
			take_error(r, result);
		PQclear(result);
		return true;
	default:
		break;
	}
	PQclear(result);
	return false;
}

static void query_over(struct connection *c)
{
	struct postgres_query *q = c->query;
	enum postgres_failure failure = q->request->sqlstate[0] ? POSTGRES_REFUSED : POSTGRES_DONE;

	/* A row that cannot be read is passed over by libpq. */
	if (PQstatus(c->pg) != CONNECTION_OK || (failure == POSTGRES_DONE && !q->request->is_complete)) {
		break_off(c, POSTGRES_CLOSED);
		return;
	}
	if (PQtransactionStatus(c->pg) == PQTRANS_IDLE)
		rest(c);
	else
		connection_close(c);
	finish(q, failure);
}

/* What has come: false: the connection is broken. *is_over: the query has ended. */
static bool take_results(struct connection *c, bool *is_over)
{
	*is_over = false;
	for (int i = 0; i < READS; i++) {
		if (!PQconsumeInput(c->pg) || !is_within(c, POSTGRES_RESULT_MAX))
			return false;
		while (!PQisBusy(c->pg)) {
			PGresult *result = PQgetResult(c->pg);

			if (!result) {
				*is_over = true;
				return true;
			}
			if (!take_result(c, result))
				return false;
		}
	}
	return true;
}

static void drop_notifications(PGconn *pg)
{
	PGnotify *n;

	while ((n = PQnotifies(pg)))
		PQfreemem(n);
}

/* Sends what is left, and waits for what is next. */
static void go_on(struct connection *c)
{
	int left = PQflush(c->pg);

	if (left < 0)
		break_off(c, POSTGRES_CLOSED);
	else
		watch_for(c, EPOLLIN | EPOLLRDHUP | (left ? (uint32_t)EPOLLOUT : 0));
}

static void start_query(struct connection *c, struct postgres_query *q)
{
	struct postgres_request *r = q->request;

	timer_disarm(&c->limit);
	list_remove(&q->node);
	c->owner->n_waiting--;
	c->state = BUSY;
	c->query = q;
	r->connection = c;
	c->received = bytes_received(c);
	if (!PQsendQueryParams(c->pg, r->sql, (int)r->n, NULL, r->values, NULL, NULL, 0) ||
	    !PQsetSingleRowMode(c->pg)) {
		break_off(c, POSTGRES_CLOSED);
		return;
	}
	go_on(c);
}

static void serve_busy(struct connection *c)
{
	bool is_over;

	if (!take_results(c, &is_over))
		break_off(c, POSTGRES_CLOSED);
	else if (is_over)
		query_over(c);
	else
		go_on(c);
	/* c may be gone */
}

/* It says something unasked, or goodbye. */
static void serve_idle(struct connection *c)
{
	if (!PQconsumeInput(c->pg) || PQstatus(c->pg) != CONNECTION_OK || !is_within(c, UNASKED_BYTES)) {
		connection_close(c);
		return;
	}
	PQisBusy(c->pg);                          /* reads what came */
	drop_notifications(c->pg);
}

/* ---------- connecting ---------- */

static void poll_beside(struct connection *c);

static void ready(struct watch *w, uint32_t events)
{
	struct connection *c = CONTAINER(w, struct connection, watch);

	(void)events;
	switch (c->state) {
	case STARTING:
		poll_beside(c);
		return;
	case IDLE:
		serve_idle(c);
		return;
	case BUSY:
		serve_busy(c);
		return;
	case POLLING:
		return;
	}
}

static void ignore_notice(void *arg, const PGresult *result)
{
	(void)arg;
	(void)result;
}

/* On a thread of the pool. Without a file of passwords, GSSAPI and what the environment would add. */
static void begin(struct connection *c)
{
	static const char *const names[] = {
		"host", "hostaddr", "port", "user", "password", "dbname", "sslmode", "gssencmode", "client_encoding",
		"application_name", "options", "passfile", "target_session_attrs", NULL
	};
	const char *const values[] = {
		c->host, c->hostaddr, c->port, c->user, c->password, c->database, "prefer", "disable", "UTF8",
		"sluice", "", "/dev/null/none", "any", NULL
	};

	c->pg = PQconnectStartParams(names, values, 0);
	if (c->pg)
		PQsetNoticeReceiver(c->pg, ignore_notice, NULL);
	c->polled = c->pg && PQstatus(c->pg) != CONNECTION_BAD ? PGRES_POLLING_WRITING : PGRES_POLLING_FAILED;
}

/* Whether there is ",i=" and more than ROUNDS_MAX in it. */
static bool has_excess(const char *p, size_t n)
{
	for (size_t i = 0; i + 3 < n; i++) {
		uint64_t rounds = 0;
		size_t at = i + 3;

		if (p[i] != ',' || p[i + 1] != 'i' || p[i + 2] != '=')
			continue;
		for (; at < n && p[at] >= '0' && p[at] <= '9' && rounds <= ROUNDS_MAX; at++)
			rounds = 10 * rounds + (uint64_t)(p[at] - '0');
		if (rounds > ROUNDS_MAX || at - i > ROUNDS_DIGITS)
			return true;
	}
	return false;
}

/*
 * The server chooses how often the hash of a password is computed ("r=...,s=...,i=rounds"), and libpq computes it as often
 * as it says. So what libpq will read next is looked at, together with the end of what it read before: a message may come
 * in pieces. What comes between the look and libpq's own is not seen: then a thread of the pool computes, and no loop.
 */
static bool is_excessive(struct connection *c)
{
	char text[TAIL + LOOK];
	void *ssl = PQgetssl(c->pg);
	ssize_t n;
	size_t all;

	memcpy(text, c->tail, c->n_tail);
	n = ssl ? tls_peek_library(ssl, text + c->n_tail, LOOK) :
	    recv(PQsocket(c->pg), text + c->n_tail, LOOK, MSG_PEEK | MSG_DONTWAIT);
	if (n <= 0)
		return false;
	all = c->n_tail + (size_t)n;
	if (has_excess(text, all))
		return true;
	c->n_tail = all < TAIL ? all : TAIL;
	memcpy(c->tail, text + all - c->n_tail, c->n_tail);
	return false;
}

static void poll_once(struct offload_job *j)
{
	struct connection *c = CONTAINER(j, struct connection, job);

	if (!c->pg) {
		begin(c);
		return;
	}
	/* Not where it connects: a look takes the error away that libpq asks for. */
	c->is_excessive = c->polled == PGRES_POLLING_READING && is_excessive(c);
	c->polled = c->is_excessive ? PGRES_POLLING_FAILED : PQconnectPoll(c->pg);
}

static void connected(struct connection *c)
{
	struct postgres *p = c->owner;

	p->n_connecting--;
	timer_disarm(&c->limit);
	if (PQsetnonblocking(c->pg, 1) != 0) {
		p->n_connecting++;
		c->state = STARTING;
		give_up(c, "it cannot be used without waiting");
		return;
	}
	rest(c);
}

static void polled(struct offload_job *j)
{
	struct connection *c = CONTAINER(j, struct connection, job);

	c->state = STARTING;
	if (!c->owner) {
		connection_free(c);
		return;
	}
	if (j->end != OFFLOAD_RAN) {
		give_up(c, "there was no time for it");
		return;
	}
	switch (c->polled) {
	case PGRES_POLLING_OK:
		connected(c);
		return;
	case PGRES_POLLING_READING:
	case PGRES_POLLING_WRITING:
		if (bytes_received(c) > HANDSHAKE_BYTES) {
			give_up(c, "it says too much before it is ready");
			return;
		}
		c->watch.fd = PQsocket(c->pg);
		watch_for(c, c->polled == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT);
		return;
	default:
		give_up(c, c->is_excessive ? "it asks for more rounds of a hash than are computed" :
			c->pg ? PQerrorMessage(c->pg) : "out of memory");
	}
}

/* The descriptor may be another one after it, with the same number: it is not watched meanwhile. */
static void poll_beside(struct connection *c)
{
	unwatch(c);
	c->state = POLLING;
	c->job.run = poll_once;
	c->job.over = polled;
	if (!offload_submit(&pool, &c->job, c->loop)) {
		c->state = STARTING;
		give_up(c, "too many connections are being made");
	}
}

static void out_of_time(struct timer *t)
{
	struct connection *c = CONTAINER(t, struct connection, limit);

	if (c->state == IDLE)
		connection_close(c);
	else
		give_up(c, "it took too long to connect");
}

/* The addresses that may be called, and as many times the name. 0: there are none. */
static unsigned list_addresses(struct connection *c, const struct postgres *p)
{
	struct sbuf addresses = { 0 }, names = { 0 };
	unsigned n = 0;

	for (unsigned i = 0; i < p->lookup.n && n < ADDRESSES; i++) {
		const struct addr to = addr_of_ip(&p->lookup.addresses[i], p->port);
		char text[46];

		if (p->may_call && !p->may_call(&to))
			continue;
		sbuf_addf(&addresses, "%s%.*s", n ? "," : "", (int)addr_print_ip(&to, text), text);
		sbuf_addf(&names, "%s%s", n ? "," : "", p->host);
		n++;
	}
	c->hostaddr = copy_text(sbuf_str(&addresses));
	c->host = copy_text(sbuf_str(&names));
	sbuf_free(&addresses);
	sbuf_free(&names);
	return n;
}

static void connect_to_name(struct postgres *p)
{
	struct connection *c = MEM_NEW(struct connection);

	c->owner = p;
	c->loop = p->loop;
	c->watch.ready = ready;
	c->garbage.release = release;
	c->user = copy_text(str_of(p->user));
	c->password = copy_text(str_of(p->password));
	c->database = copy_text(str_of(p->database));
	snprintf(c->port, sizeof c->port, "%u", p->port);
	timer_init(&c->limit, out_of_time);
	list_append(&p->connections, &c->node);
	p->n_connections++;
	p->n_connecting++;
	c->state = STARTING;
	if (list_addresses(c, p) == 0) {
		give_up(c, "its address is not one that may be called");
		return;
	}
	loop_arm(p->loop, &c->limit, p->connect_timeout_ms);
	poll_beside(c);
}

static void name_found(struct resolver_query *q)
{
	struct postgres *p = CONTAINER(q, struct postgres, lookup);

	p->is_looking = false;
	if (q->status != RESOLVER_OK)
		connect_failed(p, "its name did not resolve");
	else if (p->n_waiting > 0)
		connect_to_name(p);
	pump_soon(p);
}

static void look_up(struct postgres *p)
{
	p->is_looking = true;
	if (resolver_lookup(p->resolver, str_of(p->host), &p->lookup))
		name_found(&p->lookup);
}

/* ---------- the line ---------- */

static struct connection *find_idle(struct postgres *p)
{
	LIST_EACH(node, &p->connections) {
		struct connection *c = CONTAINER(node, struct connection, node);

		if (c->state == IDLE)
			return c;
	}
	return NULL;
}

/* One that is over without ever having begun; NULL. */
static struct postgres_query *find_over(struct postgres *p)
{
	LIST_EACH(node, &p->waiting) {
		struct postgres_query *q = CONTAINER(node, struct postgres_query, node);

		if (q->request->is_over)
			return q;
	}
	return NULL;
}

static void pump(struct task *t)
{
	struct postgres *p = CONTAINER(t, struct postgres, pump);
	struct postgres_query *q;
	struct connection *c;

	while ((q = find_over(p))) {
		p->n_waiting--;
		finish(q, q->failure);
	}
	while (!list_is_empty(&p->waiting) && (c = find_idle(p)))
		start_query(c, CONTAINER(p->waiting.next, struct postgres_query, node));
	if (p->n_waiting > p->n_connecting && p->n_connections < POSTGRES_CONNECTIONS_MAX && !p->is_looking)
		look_up(p);
}

static void late(struct timer *t)
{
	struct postgres_query *q = CONTAINER(t, struct postgres_query, limit);
	struct postgres_request *r = q->request;

	if (r->connection) {
		break_off(r->connection, POSTGRES_TIMEOUT);
		return;
	}
	r->owner->n_waiting--;
	finish(q, POSTGRES_TIMEOUT);
}

void postgres_send(struct postgres *p, struct postgres_query *q, struct str sql, unsigned n, const struct str *params,
		   int64_t timeout_ms)
{
	struct postgres_request *r = request_new(sql, n, params);

	if (q->request)
		q->request->query = NULL;         /* within its `done` */
	r->owner = p;
	r->query = q;
	q->request = r;
	q->failure = POSTGRES_DONE;
	q->sqlstate = "";
	list_init(&q->node);
	list_append(&p->waiting, &q->node);
	timer_init(&q->limit, late);
	loop_arm(p->loop, &q->limit, timeout_ms > 0 ? timeout_ms : 1);
	if (p->n_waiting++ >= POSTGRES_PENDING_MAX) {
		r->is_over = true;
		q->failure = POSTGRES_BUSY;
	}
	pump_soon(p);
}

void postgres_cancel(struct postgres_query *q)
{
	struct postgres_request *r = q->request;

	if (!r)
		return;
	q->request = NULL;
	r->query = NULL;
	if (r->is_finishing)
		return;
	timer_disarm(&q->limit);
	list_remove(&q->node);
	if (r->connection) {
		r->connection->query = NULL;
		connection_close(r->connection);
	} else {
		r->owner->n_waiting--;
	}
	request_free(r);
}

bool postgres_is_idle(const struct postgres *p)
{
	return p->n_waiting == 0 && p->n_connections == 0;
}

/* ---------- life ---------- */

struct postgres *postgres_new(struct loop *loop, struct resolver *resolver, const struct postgres_options *o)
{
	struct postgres *p = MEM_NEW(struct postgres);

	p->loop = loop;
	p->resolver = resolver;
	p->host = copy_text(o->host);
	p->user = copy_text(o->user);
	p->password = copy_text(o->password);
	p->database = copy_text(o->database.n ? o->database : o->user);
	p->port = o->port ? o->port : DEFAULT_PORT;
	p->connect_timeout_ms = o->connect_timeout_ms;
	p->idle_ms = o->idle_ms;
	p->may_call = o->may_call;
	list_init(&p->connections);
	list_init(&p->waiting);
	task_init(&p->pump, pump);
	list_init(&p->lookup.node);
	p->lookup.done = name_found;
	return p;
}

void postgres_free(struct postgres *p)
{
	LIST_EACH(node, &p->waiting)
		postgres_cancel(CONTAINER(node, struct postgres_query, node));
	LIST_EACH(node, &p->connections) {
		struct connection *c = CONTAINER(node, struct connection, node);

		if (c->query)
			postgres_cancel(c->query);        /* closes it */
		else
			connection_close(c);
	}
	resolver_cancel(&p->lookup);
	list_remove(&p->pump.node);
	mem_free(p->host);
	mem_free(p->user);
	mem_free(p->database);
	free_secret(p->password);
	mem_free(p);
}
