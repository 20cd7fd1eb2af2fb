/*
 * postgres_connect.c -- connections on their way: name, addresses, and PQconnectPoll() beside the loop.
 *
 *      STARTING ──► (watched) ◄──► POLLING (on a thread of the pool) ──► IDLE
 *
 * PQconnectPoll() reads no more than is there, but it computes: TLS, and as many rounds of a hash as the server
 * says. So it runs beside the loop, and before it the rounds are looked at (is_excessive). A connection that is
 * given up while it is polled is freed when that is over.
 */
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "core/mem.h"
#include "net/addr.h"
#include "net/postgres_parts.h"
#include "net/tls.h"

#define HANDSHAKE_BYTES (1 << 20)
#define ROUNDS_MAX 1000000                /* of the hash of a password; servers say 4096 */
#define LOOK 16384                        /* what libpq reads at a time */
#define ADDRESSES 4

static struct offload pool = OFFLOAD_POOL("postgres", 2, 256);

static void ignore_notice(void *arg, const PGresult *result)
{
	(void)arg;
	(void)result;
}

/* On a thread of the pool. Without a file of passwords, GSSAPI and what the environment would add. */
static void begin(struct postgres_connection *c)
{
	static const char *const names[] = {
		"host", "hostaddr", "port", "user", "password", "dbname", "sslmode", "gssencmode", "client_encoding",
		"application_name", "options", "passfile", "target_session_attrs", NULL
	};
	const char *const values[] = {
		c->host, c->hostaddr, c->port, c->user, c->password, c->database, "prefer", "disable", "UTF8",
		"sluice", "", "/dev/null/none", "any", NULL
	};

	c->pg = pq.connectStartParams(names, values, 0);
	if (c->pg)
		pq.setNoticeReceiver(c->pg, ignore_notice, NULL);
	c->polled = c->pg && pq.status(c->pg) != CONNECTION_BAD ? PGRES_POLLING_WRITING : PGRES_POLLING_FAILED;
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
		if (rounds > ROUNDS_MAX || at - i > POSTGRES_ROUNDS_DIGITS)
			return true;
	}
	return false;
}

/*
 * The server chooses how often the hash of a password is computed ("r=...,s=...,i=rounds"), and libpq computes it as
 * often as it says. So what libpq will read next is looked at, together with the end of what it read before: a
 * message may come in pieces. What comes between the look and libpq's own is not seen: then a thread of the pool
 * computes, and no loop.
 */
static bool is_excessive(struct postgres_connection *c)
{
	char text[POSTGRES_TAIL + LOOK];
	void *ssl = pq.getssl(c->pg);
	ssize_t n;
	size_t all;

	memcpy(text, c->tail, c->n_tail);
	n = ssl ? tls_peek_library(ssl, text + c->n_tail, LOOK) :
	    recv(pq.socket(c->pg), text + c->n_tail, LOOK, MSG_PEEK | MSG_DONTWAIT);
	if (n <= 0)
		return false;
	all = c->n_tail + (size_t)n;
	if (has_excess(text, all))
		return true;
	c->n_tail = all < POSTGRES_TAIL ? all : POSTGRES_TAIL;
	memcpy(c->tail, text + all - c->n_tail, c->n_tail);
	return false;
}

static void poll_once(struct offload_job *j)
{
	struct postgres_connection *c = CONTAINER(j, struct postgres_connection, job);

	if (!c->pg) {
		begin(c);
		return;
	}
	/* Not where it connects: a look takes the error away that libpq asks for. */
	c->is_excessive = c->polled == PGRES_POLLING_READING && is_excessive(c);
	c->polled = c->is_excessive ? PGRES_POLLING_FAILED : pq.connectPoll(c->pg);
}

static void connected(struct postgres_connection *c)
{
	struct postgres *p = c->owner;

	p->n_connecting--;
	timer_disarm(&c->limit);
	if (pq.setnonblocking(c->pg, 1) != 0) {
		p->n_connecting++;
		c->state = STARTING;
		postgres_give_up(c, "it cannot be used without waiting");
		return;
	}
	postgres_rest(c);
}

static void polled(struct offload_job *j)
{
	struct postgres_connection *c = CONTAINER(j, struct postgres_connection, job);

	c->state = STARTING;
	if (!c->owner) {
		postgres_connection_free(c);
		return;
	}
	if (j->end != OFFLOAD_RAN) {
		postgres_give_up(c, "there was no time for it");
		return;
	}
	switch (c->polled) {
	case PGRES_POLLING_OK:
		connected(c);
		return;
	case PGRES_POLLING_READING:
	case PGRES_POLLING_WRITING:
		if (postgres_received(c) > HANDSHAKE_BYTES) {
			postgres_give_up(c, "it says too much before it is ready");
			return;
		}
		c->watch.fd = pq.socket(c->pg);
		postgres_watch_for(c, c->polled == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT);
		return;
	default:
		postgres_give_up(c, c->is_excessive ? "it asks for more rounds of a hash than are computed" :
			c->pg ? pq.errorMessage(c->pg) : "out of memory");
	}
}

/* The descriptor may be another one after it, with the same number: it is not watched meanwhile. */
void postgres_poll_beside(struct postgres_connection *c)
{
	postgres_unwatch(c);
	c->state = POLLING;
	c->job.run = poll_once;
	c->job.over = polled;
	if (!offload_submit(&pool, &c->job, c->loop)) {
		c->state = STARTING;
		postgres_give_up(c, "too many connections are being made");
	}
}

static void out_of_time(struct timer *t)
{
	struct postgres_connection *c = CONTAINER(t, struct postgres_connection, limit);

	if (c->state == IDLE)
		postgres_connection_close(c);
	else
		postgres_give_up(c, "it took too long to connect");
}

/* The addresses that may be called, and as many times the name. 0: there are none. */
static unsigned list_addresses(struct postgres_connection *c, const struct postgres *p)
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
	c->hostaddr = postgres_copy_text(sbuf_str(&addresses));
	c->host = postgres_copy_text(sbuf_str(&names));
	sbuf_free(&addresses);
	sbuf_free(&names);
	return n;
}

static void connect_to_name(struct postgres *p)
{
	struct postgres_connection *c = MEM_NEW(struct postgres_connection);

	c->owner = p;
	c->loop = p->loop;
	c->watch.ready = postgres_ready;
	c->garbage.release = postgres_release;
	c->user = postgres_copy_text(str_of(p->user));
	c->password = postgres_copy_text(str_of(p->password));
	c->database = postgres_copy_text(str_of(p->database));
	snprintf(c->port, sizeof c->port, "%u", p->port);
	timer_init(&c->limit, out_of_time);
	list_append(&p->connections, &c->node);
	p->n_connections++;
	p->n_connecting++;
	c->state = STARTING;
	if (list_addresses(c, p) == 0) {
		postgres_give_up(c, "its address is not one that may be called");
		return;
	}
	loop_arm(p->loop, &c->limit, p->connect_timeout_ms);
	postgres_poll_beside(c);
}

void postgres_name_found(struct resolver_query *q)
{
	struct postgres *p = CONTAINER(q, struct postgres, lookup);

	p->is_looking = false;
	if (q->status != RESOLVER_OK)
		postgres_connect_failed(p, "its name did not resolve");
	else if (p->n_waiting > 0)
		connect_to_name(p);
	postgres_pump_soon(p);
}

void postgres_look_up(struct postgres *p)
{
	char error[POSTGRES_ERROR_MAX];

	if (!postgres_load(error)) {
		postgres_connect_failed(p, error);
		return;
	}
	p->is_looking = true;
	if (resolver_lookup(p->resolver, str_of(p->host), &p->lookup))
		postgres_name_found(&p->lookup);
}
