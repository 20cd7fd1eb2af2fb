/*
 * server.c -- HTTP/1.1 on the client side.
 *
 *      HEAD ──head complete──► BODY ──body complete──► WAIT ──response sent──► HEAD   (keep-alive)
 *        │                       └─response sent first──► DRAIN (bounded) ──► HEAD
 *        └─bad bytes──► answer, LINGER ──► closed
 *
 * A connection reads only in HEAD, BODY (not paused), DRAIN and LINGER. Bytes go through one receive buffer of the
 * server; a connection keeps bytes of its own only for a partial head and for requests that were sent ahead
 * (pipelining).
 */
#include "http/server.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/output.h"
#include "http/server_connection.h"
#include "net/descriptor.h"
#include "net/listener.h"

const struct server_settings server_default_settings = {
	.limits = { .head_bytes = 32768, .fields = 100, .target_bytes = 16384 },
	.header_timeout_ms = 10000,
	.body_idle_ms = 30000,
	.body_rate = 240,
	.idle_ms = 60000,
	.write_stall_ms = 30000,
	.h2_ping_ms = 30000,
	.h2_ping_timeout_ms = 15000,
	.requests_per_connection = 10000,
	.receive_bytes = 131072,
};

enum {
	ACCEPTS_PER_TURN = 64,            /* of one listener, before connections that are open get their turn */
	BACKLOG_ROUNDS = 128,             /* of so many, when a listener closes */
};

static atomic_ullong connection_count;

struct server *server_new(struct loop *loop, const struct server_ops *ops, const struct server_settings *settings,
			  void *owner)
{
	struct server *s = MEM_NEW(struct server);

	s->loop = loop;
	s->outbox = outbox_of(loop);
	s->ops = ops;
	s->settings = *settings;
	s->owner = owner;
	s->buffer = mem_alloc(settings->receive_bytes);
	list_init(&s->connections);
	timer_init(&s->rest, server_rest_over);
	return s;
}

void server_free(struct server *s)
{
	while (s->listeners)
		server_unlisten(s->listeners);
	LIST_EACH(node, &s->connections) {
		struct server_connection *c = CONTAINER(node, struct server_connection, node);

		c->is_aborted = true;
		connection_close(c);
	}
	timer_disarm(&s->rest);
	mem_free(s->buffer);
	mem_free(s->scratch);
	mem_free(s);
}

void *server_owner(const struct server *s)
{
	return s->owner;
}

unsigned server_connections(const struct server *s)
{
	return s->n_connections;
}

void server_set_settings(struct server *s, const struct server_settings *settings)
{
	size_t receive_bytes = s->settings.receive_bytes;

	s->settings = *settings;
	s->settings.receive_bytes = receive_bytes;
}

struct server_listener *connection_listener(const struct server_connection *c)
{
	return c->listener;
}

const struct addr *connection_peer(const struct server_connection *c)
{
	return &c->peer;
}

struct server *connection_server(const struct server_connection *c)
{
	return c->server;
}

uint64_t connection_id(const struct server_connection *c)
{
	return c->id;
}

/* ---------- accepting ---------- */

static void listener_unref(struct server_listener *l)
{
	if (--l->refs == 0 && l->unused)
		l->unused(l);
}

static void release(struct garbage *g)
{
	mem_free(CONTAINER(g, struct server_connection, garbage_link));
}

/* Reset rather than FIN: nothing of this connection was or will be served. */
static void turn_away(struct server_connection *c)
{
	setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	list_remove(&c->task.node);
	c->protocol->ended(c);
	transport_free(&c->transport);
	close(c->watch.fd);
	mem_free(c);
}

/* For one more connection, which has this descriptor already. */
static bool has_place(struct server *s, int fd)
{
	if (s->settings.connections && s->n_connections >= s->settings.connections)
		return false;
	return !s->settings.keeps_reserve || !descriptor_is_scarce(fd, DESCRIPTOR_CLIENT) || server_make_room(s);
}

static void start(struct server_listener *l, int fd, const struct addr *peer)
{
	struct server *s = l->server;
	struct server_connection *c = MEM_NEW(struct server_connection);

	c->watch.fd = c->transport.fd = fd;
	c->watch.ready = connection_ready;
	c->out.letter.returned = connection_take_back;
	c->protocol = &h1_protocol;
	c->server = s;
	c->listener = l;
	c->peer = *peer;
	c->id = atomic_fetch_add_explicit(&connection_count, 1, memory_order_relaxed) + 1;
	c->since_ms = c->write_ms = clock_ms();
	timer_init(&c->timer, connection_timeout);
	task_init(&c->task, connection_run);
	c->garbage_link.release = release;
	list_init(&c->node);
	if (!has_place(s, fd)) {
		server_tell_shed(s, SHED_CONNECTION);
		turn_away(c);
		return;
	}
	if (s->is_draining || (s->ops->accepted && !s->ops->accepted(c))) {
		turn_away(c);
		return;
	}
	if (!loop_add(s->loop, &c->watch, 0)) {
		if (s->ops->disconnected)
			s->ops->disconnected(c);
		turn_away(c);
		return;
	}
	l->refs++;
	s->n_connections++;
	list_append(&s->connections, &c->node);
	loop_arm(s->loop, &c->timer, s->settings.header_timeout_ms);
}

/*
 * Out of descriptors: stop looking at this listener for a while, or the loop would spin. What waits in the backlog is
 * taken when descriptors are free again.
 */
static void rest(struct server_listener *l)
{
	struct server *s = l->server;

	/* Edges of nothing: no events at all would mean the default of the loop. */
	loop_modify(s->loop, &l->watch, EPOLLET);
	l->is_resting = true;
	if (!s->rest.deadline_ms)
		loop_arm(s->loop, &s->rest, 50);
}

void server_rest_over(struct timer *t)
{
	struct server *s = CONTAINER(t, struct server, rest);

	for (struct server_listener *l = s->listeners; l; l = l->next)
		if (l->is_resting) {
			l->is_resting = false;
			loop_modify(s->loop, &l->watch, EPOLLIN);
		}
}

static void accept_some(struct watch *w, uint32_t events)
{
	struct server_listener *l = CONTAINER(w, struct server_listener, watch);

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct addr peer;
		int fd = addr_accept(l->watch.fd, &peer);

		if (fd >= 0) {
			start(l, fd, &peer);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			if (server_make_room(l->server))
				continue;
			rest(l);
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			return;
		}
	}
}

static bool has_waiting(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & POLLIN);
}

void server_listen(struct server *s, struct server_listener *l, int fd)
{
	l->watch.fd = fd;
	l->watch.ready = accept_some;
	l->server = s;
	l->refs = 1;
	l->is_resting = false;
	l->next = s->listeners;
	s->listeners = l;
	BUG_ON(!loop_add(s->loop, &l->watch, EPOLLIN));
}

void server_unlisten(struct server_listener *l)
{
	/* Who was let in by the kernel already is not to be reset. */
	for (int i = 0; i < BACKLOG_ROUNDS && !l->is_resting && has_waiting(l->watch.fd); i++)
		accept_some(&l->watch, 0);
	server_leave(l);
}

void server_leave(struct server_listener *l)
{
	struct server_listener **at = &l->server->listeners;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	l->is_resting = false;
	loop_remove(l->server->loop, &l->watch);
	close(l->watch.fd);
	l->watch.fd = -1;
	listener_unref(l);
}

/* ---------- ending ---------- */

void connection_close(struct server_connection *c)
{
	struct server *s = c->server;

	if (c->state == CONNECTION_CLOSED)
		return;
	output_settle(&c->out);
	/* A goodbye only where nothing is cut off by it. */
	if (c->transport.tls && !c->is_aborted && c->protocol->is_idle(c))
		tls_shutdown(c->transport.tls);
	c->state = CONNECTION_CLOSED;
	loop_forget(s->loop, &c->watch);
	transport_free(&c->transport);
	close(c->watch.fd);
	timer_disarm(&c->timer);
	list_remove(&c->task.node);
	list_remove(&c->node);
	s->n_connections--;
	output_free(&c->out);
	c->protocol->ended(c);
	if (s->ops->disconnected)
		s->ops->disconnected(c);
	listener_unref(c->listener);
	loop_free_later(s->loop, &c->garbage_link);
}

void connection_speak(struct server_connection *c, const struct connection_protocol *protocol)
{
	c->protocol = protocol;
	if (c->server->is_draining && protocol->drain)
		protocol->drain(c);
	loop_defer(c->server->loop, &c->task);
}

/* ---------- events ---------- */

ssize_t connection_receive(struct server_connection *c)
{
	struct server *s = c->server;
	size_t most = s->settings.receive_bytes;

	if (c->state == CONNECTION_HEAD && most > AHEAD_BYTES)
		most = AHEAD_BYTES;
	most = budget_piece(most);
	ssize_t n = transport_receive(&c->transport, s->buffer, most);

	if (n < 0 && errno == EAGAIN) {
		c->is_readable = false;
		return 0;
	}
	if (n <= 0)
		return -1;
	if (transport_is_drained(&c->transport, (size_t)n, most) && !c->is_eof)
		c->is_readable = false;
	return n;
}

/* Each byte that was taken buys time, by the rate that bodies must have: a byte now and then does not hold the rest. */
static void renew_patience(struct server_connection *c, size_t taken)
{
	int64_t rate = c->server->settings.body_rate, now = clock_ms();
	int64_t bought = rate > 0 ? (int64_t)taken * 1000 / rate : now;

	if (taken > 0)
		c->write_ms = c->write_ms + bought < now ? c->write_ms + bought : now;
}

void connection_take_back(struct letter *l, struct iovec rest, int error)
{
	struct output *o = CONTAINER(l, struct output, letter);
	struct server_connection *c = CONTAINER(o, struct server_connection, out);

	if (error) {
		c->is_broken = true;
		loop_defer(c->server->loop, &c->task);
		return;
	}
	output_append(o, &rest, 1);
	connection_expect_progress(c);
}

/* EPOLLOUT with bytes waiting. */
void connection_flush(struct server_connection *c)
{
	size_t before = c->out.n - c->out.at;
	enum output_result result = output_flush(&c->out, &c->transport);

	if (result == OUTPUT_FAILED) {
		connection_close(c);
		return;
	}
	renew_patience(c, before - (c->out.n - c->out.at));
	if (result == OUTPUT_ALL)
		c->protocol->flushed(c);
}

void connection_ready(struct watch *w, uint32_t events)
{
	struct server_connection *c = CONTAINER(w, struct server_connection, watch);

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->is_eof = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->is_readable = true;
	if ((events & EPOLLOUT) && !output_is_empty(&c->out))
		connection_flush(c);
	if (c->state != CONNECTION_CLOSED)
		c->protocol->ready(c, events);
}

void connection_run(struct task *t)
{
	struct server_connection *c = CONTAINER(t, struct server_connection, task);

	if (c->state != CONNECTION_CLOSED)
		c->protocol->run(c);
}

void connection_timeout(struct timer *t)
{
	struct server_connection *c = CONTAINER(t, struct server_connection, timer);
	const struct server_settings *s = &c->server->settings;
	bool waits = !output_is_empty(&c->out);
	int64_t now = clock_ms(), ends = waits ? c->write_ms + s->write_stall_ms : c->protocol->patience(c);

	/* The timer is left alone while requests come and go; here it is set to what matters now. */
	if (ends == 0 || ends > now)
		loop_arm(c->server->loop, t, ends ? ends - now : s->body_idle_ms);
	else if (waits)
		connection_close(c);
	else
		c->protocol->expired(c);
}

/* Whether an idle connection is to go: the server ends, or a sweep was waiting for this moment. */
static bool is_unwanted(struct server_connection *c)
{
	if (c->server->is_draining) {
		int64_t left_ms = c->since_ms + c->server->settings.drain_idle_ms - clock_ms();

		if (left_ms <= 0)
			return true;
		/* Its timer may be set to what mattered before. */
		loop_arm(c->server->loop, &c->timer, left_ms);
	}
	if (!c->is_accused)
		return false;
	c->is_accused = false;
	return c->server->judge(c);
}

void connection_dismiss(struct server_connection *c)
{
	if (c->state == CONNECTION_CLOSED || !(c->is_accused || c->server->is_draining))
		return;
	output_settle(&c->out);
	if (c->protocol->is_idle(c) && is_unwanted(c))
		connection_close(c);
}

/* Half-closes and reads what still comes for a short while, so that our answer is not destroyed by a reset. */
void connection_linger(struct server_connection *c)
{
	transport_shutdown(&c->transport);
	c->state = CONNECTION_LINGER;
	c->since_ms = clock_ms();
	c->lingered = 0;
	loop_arm(c->server->loop, &c->timer, LINGER_MS);
}

void server_drain(struct server *s)
{
	s->is_draining = true;
	LIST_EACH(node, &s->connections) {
		struct server_connection *c = CONTAINER(node, struct server_connection, node);

		output_settle(&c->out);
		if (c->protocol->drain)
			c->protocol->drain(c);
		else if (!c->protocol->is_idle(c))
			continue;
		loop_arm(s->loop, &c->timer, s->settings.drain_idle_ms);
		/* A request may have come that no event told of yet; without one this closes, when its time is over. */
		c->is_readable = true;
		c->protocol->run(c);
	}
}

void server_sweep(struct server *s, bool (*f)(struct server_connection *c))
{
	s->judge = f;
	LIST_EACH(node, &s->connections) {
		struct server_connection *c = CONTAINER(node, struct server_connection, node);

		output_settle(&c->out);
		c->is_accused = !c->protocol->is_idle(c);
		if (!c->is_accused && f(c))
			connection_close(c);
	}
}
