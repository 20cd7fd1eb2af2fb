/*
 * postgres.c -- the pool, the line, and queries on connections.
 *
 *      connections:  STARTING ◄──► POLLING (postgres_connect.c) ──► IDLE ◄──► BUSY
 *
 * The memory that a server can use up is counted in bytes received, as the kernel counts them: libpq keeps what it is
 * told (parameters, notices) for as long as the connection lives, so connections are also replaced after
 * CONNECTION_BYTES.
 */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/mem.h"
#include "net/postgres_parts.h"

#define DEFAULT_PORT 5432
#define CONNECTION_BYTES (256ULL << 20)
#define UNASKED_BYTES 65536               /* that an idle connection may receive */
#define SECRET_MIN 4                      /* a shorter password would be found in anything */
#define READS 4                           /* a TLS record is at most 16 KiB, a read at least 8 */

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

char *postgres_copy_text(struct str s)
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
static void keep_words(const struct postgres *p, char out[POSTGRES_ERROR_MAX], const char *text)
{
	size_t n = 0;

	/* A server that was told the password may say it again. */
	if (text && strlen(p->password) >= SECRET_MIN && strstr(text, p->password))
		text = "its words are not fit to be shown";
	for (; text && *text && *text != '\n' && n < POSTGRES_ERROR_MAX - 1; text++)
		out[n++] = (unsigned char)*text < ' ' || *text == 0x7f ? ' ' : *text;
	out[n] = '\0';
}

/* ---------- requests ---------- */

static void request_free(struct postgres_request *r)
{
	for (unsigned i = 0; i < r->n_rows; i++)
		pq.clear(r->rows[i]);
	mem_wipe(r, r->size);
	mem_free(r);
}

static struct postgres_request *request_new(const struct postgres_statement *s)
{
	size_t size = sizeof(struct postgres_request) + s->sql.n + 1;
	struct postgres_request *r;
	char *at;

	BUG_ON(s->n > POSTGRES_PARAMETERS_MAX);
	for (unsigned i = 0; i < s->n; i++)
		size += s->params[i].n + 1;
	r = mem_alloc(size);
	r->size = size;
	r->n = s->n;
	r->sql = at = (char *)(r + 1);
	at = str_put(at, s->sql) + 1;
	for (unsigned i = 0; i < s->n; i++) {
		r->values[i] = s->params[i].p ? at : NULL;
		at = str_put(at, s->params[i]) + 1;
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
	if ((int)column >= pq.nfields(of) || pq.getisnull(of, 0, (int)column))
		return (struct str){ NULL, 0 };
	return (struct str){ pq.getvalue(of, 0, (int)column), (size_t)pq.getlength(of, 0, (int)column) };
}

/* ---------- connections: their end ---------- */

void postgres_unwatch(struct postgres_connection *c)
{
	if (c->is_watched)
		loop_remove(c->loop, &c->watch);
	c->is_watched = false;
}

void postgres_release(struct garbage *g)
{
	struct postgres_connection *c = CONTAINER(g, struct postgres_connection, garbage);

	mem_free(c->hostaddr);
	mem_free(c->host);
	mem_free(c->user);
	mem_free(c->database);
	free_secret(c->password);
	mem_free(c);
}

/* Nothing of it runs. */
void postgres_connection_free(struct postgres_connection *c)
{
	postgres_unwatch(c);
	if (c->pg)
		pq.finish(c->pg);
	c->pg = NULL;
	loop_free_later(c->loop, &c->garbage);
}

void postgres_pump_soon(struct postgres *p)
{
	loop_defer(p->loop, &p->pump);
}

void postgres_connection_close(struct postgres_connection *c)
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
		postgres_connection_free(c);
	postgres_pump_soon(p);
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
	postgres_pump_soon(p);
}

void postgres_connect_failed(struct postgres *p, const char *words)
{
	keep_words(p, p->error, words);
	fail_waiting(p);
}

/* It did not come to be. */
void postgres_give_up(struct postgres_connection *c, const char *words)
{
	struct postgres *p = c->owner;
	char text[POSTGRES_ERROR_MAX];

	keep_words(p, text, words);               /* before the connection goes, whose words they are */
	postgres_connection_close(c);
	postgres_connect_failed(p, text);
}

/* ---------- queries on a connection ---------- */

uint64_t postgres_received(const struct postgres_connection *c)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof info;

	if (getsockopt(pq.socket(c->pg), IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
		return 0;
	return info.tcpi_bytes_received;
}

static bool is_within(const struct postgres_connection *c, uint64_t most)
{
	return postgres_received(c) - c->received <= most;
}

void postgres_watch_for(struct postgres_connection *c, uint32_t events)
{
	if (c->is_watched)
		loop_modify(c->loop, &c->watch, events);
	else
		c->is_watched = loop_add(c->loop, &c->watch, events);
}

void postgres_rest(struct postgres_connection *c)
{
	struct postgres *p = c->owner;

	c->state = IDLE;
	c->query = NULL;
	c->received = postgres_received(c);
	if (c->received > CONNECTION_BYTES) {
		postgres_connection_close(c);
		return;
	}
	postgres_watch_for(c, EPOLLIN | EPOLLRDHUP);
	if (p->idle_ms > 0)
		loop_arm(p->loop, &c->limit, p->idle_ms);
	list_remove(&c->node);
	list_push(&p->connections, &c->node);     /* those used last are used first, so that others become idle */
	postgres_pump_soon(p);
}

/* The connection goes, and its query with it. */
static void break_off(struct postgres_connection *c, enum postgres_failure failure)
{
	struct postgres_query *q = c->query;

	if (failure == POSTGRES_CLOSED && q && !q->request->error[0])
		keep_words(c->owner, q->request->error, pq.errorMessage(c->pg));
	postgres_connection_close(c);
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
	const char *state = pq.resultErrorField(result, PG_DIAG_SQLSTATE);

	snprintf(r->sqlstate, sizeof r->sqlstate, "%s", state && strlen(state) == 5 ? state : "XX000");
	keep_words(r->owner, r->error, has_harmless_words(r->sqlstate) ?
		   pq.resultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : "it does not accept a value");
}

/* False: the server says what it was not asked, and the connection is of no use any more. The result is taken. */
static bool take_result(struct postgres_connection *c, PGresult *result)
{
	struct postgres_request *r = c->query->request;

	switch (pq.resultStatus(result)) {
	case PGRES_SINGLE_TUPLE:
		if (r->n_rows == POSTGRES_ROWS_MAX)
			break;
		r->rows[r->n_rows++] = result;
		return true;
	case PGRES_TUPLES_OK:
	case PGRES_COMMAND_OK:
	case PGRES_EMPTY_QUERY:
		r->is_complete = true;
		pq.clear(result);
		return true;
	case PGRES_FATAL_ERROR:
		if (!r->sqlstate[0])
			take_error(r, result);
		pq.clear(result);
		return true;
	default:
		break;
	}
	pq.clear(result);
	return false;
}

static void query_over(struct postgres_connection *c)
{
	struct postgres_query *q = c->query;
	enum postgres_failure failure = q->request->sqlstate[0] ? POSTGRES_REFUSED : POSTGRES_DONE;

	/* A row that cannot be read is passed over by libpq. */
	if (pq.status(c->pg) != CONNECTION_OK || (failure == POSTGRES_DONE && !q->request->is_complete)) {
		break_off(c, POSTGRES_CLOSED);
		return;
	}
	if (pq.transactionStatus(c->pg) == PQTRANS_IDLE)
		postgres_rest(c);
	else
		postgres_connection_close(c);
	finish(q, failure);
}

/* What has come: false: the connection is broken. *is_over: the query has ended. */
static bool take_results(struct postgres_connection *c, bool *is_over)
{
	*is_over = false;
	for (int i = 0; i < READS; i++) {
		if (!pq.consumeInput(c->pg) || !is_within(c, POSTGRES_RESULT_MAX))
			return false;
		while (!pq.isBusy(c->pg)) {
			PGresult *result = pq.getResult(c->pg);

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

	while ((n = pq.notifies(pg)))
		pq.freemem(n);
}

/* Sends what is left, and waits for what is next. */
static void go_on(struct postgres_connection *c)
{
	int left = pq.flush(c->pg);

	if (left < 0)
		break_off(c, POSTGRES_CLOSED);
	else
		postgres_watch_for(c, EPOLLIN | EPOLLRDHUP | (left ? (uint32_t)EPOLLOUT : 0));
}

static void start_query(struct postgres_connection *c, struct postgres_query *q)
{
	struct postgres_request *r = q->request;

	timer_disarm(&c->limit);
	list_remove(&q->node);
	c->owner->n_waiting--;
	c->state = BUSY;
	c->query = q;
	r->connection = c;
	c->received = postgres_received(c);
	if (!pq.sendQueryParams(c->pg, r->sql, (int)r->n, NULL, r->values, NULL, NULL, 0) ||
	    !pq.setSingleRowMode(c->pg)) {
		break_off(c, POSTGRES_CLOSED);
		return;
	}
	go_on(c);
}

static void serve_busy(struct postgres_connection *c)
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
static void serve_idle(struct postgres_connection *c)
{
	if (!pq.consumeInput(c->pg) || pq.status(c->pg) != CONNECTION_OK || !is_within(c, UNASKED_BYTES)) {
		postgres_connection_close(c);
		return;
	}
	pq.isBusy(c->pg);                          /* reads what came */
	drop_notifications(c->pg);
}

void postgres_ready(struct watch *w, uint32_t events)
{
	struct postgres_connection *c = CONTAINER(w, struct postgres_connection, watch);

	(void)events;
	switch (c->state) {
	case STARTING:
		postgres_poll_beside(c);
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

/* ---------- the line ---------- */

static struct postgres_connection *find_idle(struct postgres *p)
{
	LIST_EACH(node, &p->connections) {
		struct postgres_connection *c = CONTAINER(node, struct postgres_connection, node);

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
	struct postgres_connection *c;

	while ((q = find_over(p))) {
		p->n_waiting--;
		finish(q, q->failure);
	}
	while (!list_is_empty(&p->waiting) && (c = find_idle(p)))
		start_query(c, CONTAINER(p->waiting.next, struct postgres_query, node));
	if (p->n_waiting > p->n_connecting && p->n_connections < POSTGRES_CONNECTIONS_MAX && !p->is_looking)
		postgres_look_up(p);
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

void postgres_send(struct postgres *p, struct postgres_query *q, const struct postgres_statement *s,
		   int64_t timeout_ms)
{
	struct postgres_request *r = request_new(s);

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
	postgres_pump_soon(p);
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
		postgres_connection_close(r->connection);
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
	p->host = postgres_copy_text(o->host);
	p->user = postgres_copy_text(o->user);
	p->password = postgres_copy_text(o->password);
	p->database = postgres_copy_text(o->database.n ? o->database : o->user);
	p->port = o->port ? o->port : DEFAULT_PORT;
	p->connect_timeout_ms = o->connect_timeout_ms;
	p->idle_ms = o->idle_ms;
	p->may_call = o->may_call;
	list_init(&p->connections);
	list_init(&p->waiting);
	task_init(&p->pump, pump);
	list_init(&p->lookup.node);
	p->lookup.done = postgres_name_found;
	return p;
}

void postgres_free(struct postgres *p)
{
	LIST_EACH(node, &p->waiting)
		postgres_cancel(CONTAINER(node, struct postgres_query, node));
	LIST_EACH(node, &p->connections) {
		struct postgres_connection *c = CONTAINER(node, struct postgres_connection, node);

		if (c->query)
			postgres_cancel(c->query);        /* closes it */
		else
			postgres_connection_close(c);
	}
	resolver_cancel(&p->lookup);
	list_remove(&p->pump.node);
	mem_free(p->host);
	mem_free(p->user);
	mem_free(p->database);
	free_secret(p->password);
	mem_free(p);
}
