/*
 * h2_client.c -- HTTP/2 on the upstream side: connections that calls share, and what calls send. What upstreams answer
 * is in h2_client_read.c.
 *
 *	call_start ──► a shared connection with room, or a new one ──► HEADERS, DATA wait for the end of the turn
 *	GOAWAY, error, silence ──► retired: its calls end, new ones go elsewhere ──► closed with the last call
 */
#include <nghttp2/nghttp2.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/h2_client.h"
#include "net/listener.h"

#define IDLE_MS 55000                     /* below what upstreams usually allow */
#define STALL_MS 30000                    /* the kernel takes nothing of what we send */
/* Between PINGs while nothing but their answers comes: servers of gRPC end a connection that asks more often. */
#define QUIET_PING_MS 300000

static struct h2_call *of_node(struct list *node)
{
	return CONTAINER(node, struct h2_call, node);
}

void h2_upstream_wake(struct h2_upstream *u)
{
	if (!u->is_closed)
		loop_defer(u->client->loop, &u->task);
}

/* ---------- ends ---------- */

void h2_call_free(struct h2_call *s)
{
	timer_disarm(&s->timer);
	h2_stream_drop(&s->connection->base, &s->base);
	h2_queue_free(&s->in);
	list_remove(&s->node);
	mem_free(s);
	budget_add(-H2_STREAM_BYTES);
}

void h2_call_let_go(struct h2_call *s)
{
	struct h2_upstream *u = s->connection;

	s->call->carrier = NULL;
	s->call = NULL;
	timer_disarm(&s->timer);
	u->since_ms = clock_ms();
	if (--u->n_calls == 0)
		h2_upstream_wake(u);
}

void h2_call_fail(struct h2_call *s, enum call_failure what, int error)
{
	struct call *call = s->call;

	if (!call)
		return;
	h2_call_let_go(s);
	call->error = error;
	call->ops->failed(call, what);
}

void h2_upstream_retire(struct h2_upstream *u)
{
	u->is_leaving = true;
	list_remove(&u->shared);
}

static void release(struct garbage *g)
{
	struct h2_upstream *u = CONTAINER(g, struct h2_upstream, garbage);

	nghttp2_session_del(u->base.ng);
	mem_free(u);
	budget_add(-H2_SESSION_BYTES);
}

/* Out of the pool and the loop; freed at the end of the turn. Calls end with what fits how far they came. */
static void close_upstream(struct h2_upstream *u, enum call_failure before_head, int error)
{
	struct handshake why = { .text = "" };

	if (u->is_closed)
		return;
	u->is_closed = true;
	if (u->is_securing)
		why = client_failed_handshake(u->client, &u->transport, &u->addr, error);
	h2_upstream_retire(u);
	list_remove(&u->all);
	list_remove(&u->task.node);
	timer_disarm(&u->timer);
	if (u->watch.fd >= 0) {
		loop_forget(u->client->loop, &u->watch);
		transport_free(&u->transport);
		close(u->watch.fd);
	}
	lane_leave(u->lane);
	u->lane = NULL;
	output_free(&u->out);
	LIST_EACH(node, &u->streams) {
		struct h2_call *s = of_node(node);

		if (u->is_securing && s->call) {
			s->call->tls_failure = (uint8_t)why.failure;
			s->call->tls_text = why.text;
		}
		h2_call_fail(s, s->has_head ? CALL_TRUNCATED : before_head, error);
		h2_call_free(s);
	}
	loop_free_later(u->client->loop, &u->garbage);
}

void h2_client_close(struct client *client)
{
	LIST_EACH(node, &client->shared)
		close_upstream(CONTAINER(node, struct h2_upstream, all), CALL_RESET, ECONNRESET);
}

void h2_pool_close(struct pool *p)
{
	if (!p->shared.next)
		return;
	LIST_EACH(node, &p->shared) {
		struct h2_upstream *u = CONTAINER(node, struct h2_upstream, shared);

		h2_upstream_retire(u);
		h2_upstream_wake(u);
	}
}

/* ---------- writing ---------- */

/* The owner waits for what was queued to be gone: of a tunnel also when nothing follows it. */
static bool is_drained(const struct h2_upstream *u, struct h2_call *s)
{
	bool is_last = s->call->request_done;

	if (is_last && (!s->call->is_tunnel || h2_queue_size(&s->base.queue) > 0))
		return false;
	return h2_stream_take_drained(&u->base, &s->base);
}

static void settle(struct h2_upstream *u)
{
	while (!list_is_empty(&u->base.touched)) {
		struct h2_call *s = CONTAINER(u->base.touched.next, struct h2_call, base.touched);

		list_remove(&s->base.touched);
		s->since_ms = clock_ms();
		/* Its stream is closed; a call whose owner is paused still has the end of the answer to come. */
		if (s->base.id == 0 && !s->call)
			h2_call_free(s);
		else if (s->call && is_drained(u, s))
			s->call->ops->drained(s->call);
	}
}

static void flush(struct h2_upstream *u)
{
	enum output_result result;

	if (u->is_connecting || !output_is_empty(&u->out))
		return;
	result = h2_write(&u->base, &u->out, &u->transport);
	if (result == OUTPUT_FAILED) {
		/* An answer may lie in the kernel still: the end comes with it. */
		u->error = errno ? errno : EPIPE;
		u->is_readable = true;
		h2_upstream_retire(u);
		h2_upstream_wake(u);
	}
	if (result == OUTPUT_WAITS)
		u->write_ms = clock_ms();
	settle(u);
}

/* ---------- patience ---------- */

/* When silence calls for a PING, or patience with one that nothing answers ends; INT64_MAX: nobody waits. */
static int64_t ping_due(const struct h2_upstream *u)
{
	const struct client *client = u->client;

	if (client->h2_ping_ms == 0 || u->n_calls == 0 || u->is_connecting)
		return INT64_MAX;
	if (u->is_asked)
		return u->ping_ms + client->h2_ping_timeout_ms;
	return u->is_quiet ? u->ping_ms + QUIET_PING_MS : u->silent_ms + client->h2_ping_ms;
}

/* How long until something is due. */
static int64_t next_look(const struct h2_upstream *u)
{
	int64_t now = clock_ms(), due = ping_due(u);
	int64_t ends = u->n_calls ? now + STALL_MS : u->since_ms + IDLE_MS;

	/* Something may have come, so that a silence counts from then. */
	if (u->is_quiet && due > now + u->client->h2_ping_ms)
		due = now + u->client->h2_ping_ms;
	ends = due < ends ? due : ends;
	return ends > now ? ends - now : 1000;
}

/* ---------- reading ---------- */

static void receive(struct h2_upstream *u)
{
	struct client *client = u->client;

	for (int reads = 0; u->is_readable && !u->is_closed; reads++) {
		ssize_t n;

		if (reads == READS_PER_TURN) {
			h2_upstream_wake(u);
			return;
		}
		n = transport_receive(&u->transport, client->buffer, client->receive_bytes);
		if (n < 0 && errno == EAGAIN) {
			u->is_readable = false;
			if (u->error)
				close_upstream(u, CALL_RESET, u->error);
			return;
		}
		if (n <= 0) {
			close_upstream(u, CALL_RESET, n < 0 ? errno : ECONNRESET);
			return;
		}
		if (transport_is_drained(&u->transport, (size_t)n, client->receive_bytes) && !u->is_eof && !u->error)
			u->is_readable = false;
		u->read_ms = u->silent_ms = clock_ms();
		u->is_asked = false;
		if (!h2_client_take(u, client->buffer, (size_t)n))
			close_upstream(u, CALL_MALFORMED, EPROTO);
	}
}

/* False: the connection failed. */
static bool take_connection(struct h2_upstream *u)
{
	int error = 0;
	socklen_t n = sizeof error;

	if (getsockopt(u->watch.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	if (error) {
		close_upstream(u, CALL_CONNECT, error);
		return false;
	}
	u->is_securing = u->transport.tls != NULL;
	return true;
}

/* A step of the handshake. False: more of them follow, or it failed. */
static bool secure(struct h2_upstream *u)
{
	enum tls_result result;
	bool is_h2;

	if (!client_may_shake(u->client)) {
		h2_upstream_wake(u);
		return false;
	}
	result = client_shake_hands(u->client, &u->transport, u->is_eof);
	is_h2 = result == TLS_DONE && tls_client_is_h2(u->transport.tls);
	if (result == TLS_FAILED || (result == TLS_DONE && !is_h2))
		close_upstream(u, CALL_CONNECT, result == TLS_DONE ? EPROTONOSUPPORT : EPROTO);
	else if (result == TLS_DONE)
		u->is_securing = false;
	u->is_readable = is_h2;
	return is_h2;
}

/* Goes on to be a connection that calls can go out on, as far as it can. */
static void open_up(struct h2_upstream *u, uint32_t events)
{
	if (!u->is_securing && (!(events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) || !take_connection(u)))
		return;
	if (u->is_securing && !secure(u))
		return;
	u->is_connecting = false;
	u->since_ms = u->read_ms = u->silent_ms = clock_ms();
	loop_arm(u->client->loop, &u->timer, next_look(u));
	LIST_EACH(node, &u->streams) {
		struct h2_call *s = of_node(node);

		s->since_ms = clock_ms();
		if (!s->call)
			continue;
		s->call->connected_us = clock_us();
		if (h2_stream_take_drained(&u->base, &s->base) && !s->call->request_done)
			s->call->ops->drained(s->call);
	}
}

/* One that takes no more calls and has none left, or has nothing left to say. */
static void close_when_over(struct h2_upstream *u)
{
	if (u->is_leaving && u->n_calls == 0) {
		nghttp2_session_terminate_session(u->base.ng, NGHTTP2_NO_ERROR);
		flush(u);
		close_upstream(u, CALL_RESET, ECONNRESET);
	} else if (!nghttp2_session_want_read(u->base.ng) && !nghttp2_session_want_write(u->base.ng)) {
		close_upstream(u, CALL_RESET, ECONNRESET);
	}
}

static void run(struct task *t)
{
	struct h2_upstream *u = CONTAINER(t, struct h2_upstream, task);

	if (u->is_closed)
		return;
	if (u->is_connecting && u->error)
		close_upstream(u, CALL_CONNECT, u->error);
	else if (u->is_securing)
		open_up(u, 0);
	if (u->is_connecting || u->is_closed)
		return;
	receive(u);
	if (!u->is_closed && u->has_resumed)
		h2_client_deliver_kept(u);
	if (!u->is_closed && u->has_waiting && u->has_settings)
		h2_client_begin_waiting(u);
	if (!u->is_closed)
		flush(u);
	if (!u->is_closed && u->is_broken)
		close_upstream(u, CALL_MALFORMED, EPROTO);
	if (!u->is_closed && !u->error)
		close_when_over(u);
}

static void ready(struct watch *w, uint32_t events)
{
	struct h2_upstream *u = CONTAINER(w, struct h2_upstream, watch);

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		u->is_eof = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		u->is_readable = true;
	if (u->is_connecting) {
		open_up(u, events);
		if (u->is_connecting)
			return;
	} else if ((events & EPOLLOUT) && !output_is_empty(&u->out)) {
		if (output_flush(&u->out, &u->transport) == OUTPUT_FAILED) {
			u->error = errno;
			output_free(&u->out);
			h2_upstream_retire(u);
		}
		u->write_ms = clock_ms();
	}
	if (!u->is_closed && !u->is_connecting)
		receive(u);
	if (!u->is_closed)
		h2_upstream_wake(u);
}

/* ---------- time ---------- */

static void send_ping(struct h2_upstream *u)
{
	u->ping_ms = clock_ms();
	u->is_asked = u->is_quiet = true;
	nghttp2_submit_ping(u->base.ng, NGHTTP2_FLAG_NONE, NULL);
	h2_upstream_wake(u);
}

static void expire(struct timer *t)
{
	struct h2_upstream *u = CONTAINER(t, struct h2_upstream, timer);
	int64_t now = clock_ms();

	if (u->is_connecting)
		close_upstream(u, CALL_CONNECT, ETIMEDOUT);
	else if (!output_is_empty(&u->out) && u->write_ms + STALL_MS <= now)
		close_upstream(u, CALL_RESET, ETIMEDOUT);
	else if (u->is_asked && ping_due(u) <= now)
		close_upstream(u, CALL_RESET, ETIMEDOUT);
	else if (ping_due(u) <= now)
		send_ping(u);
	else if (u->n_calls == 0 && u->since_ms + IDLE_MS <= now)
		h2_upstream_retire(u);
	if (u->is_closed)
		return;
	if (u->is_leaving)
		h2_upstream_wake(u);
	loop_arm(u->client->loop, t, next_look(u));
}

static void expire_call(struct timer *t)
{
	struct h2_call *s = CONTAINER(t, struct h2_call, timer);
	struct h2_upstream *u = s->connection;
	int64_t limit = s->call->idle_timeout_ms, now = clock_ms();

	if (s->call->paused || u->is_connecting || s->since_ms + limit > now) {
		int64_t left = s->since_ms + limit - now;

		loop_arm(u->client->loop, t, left > 0 ? left : limit);
		return;
	}
	/* Nothing at all came since: the connection itself may be dead. */
	if (u->read_ms <= s->start_ms)
		h2_upstream_retire(u);
	if (s->base.id)
		nghttp2_submit_rst_stream(u->base.ng, NGHTTP2_FLAG_NONE, s->base.id, NGHTTP2_CANCEL);
	h2_upstream_wake(u);
	h2_call_fail(s, s->has_head ? CALL_TRUNCATED : CALL_TIMEOUT, ETIMEDOUT);
	if (!s->base.id && list_is_empty(&s->base.touched))
		h2_call_free(s);
}

/* ---------- calls ---------- */

static struct h2_upstream *open_upstream(struct call *call)
{
	struct h2_upstream *u = MEM_NEW(struct h2_upstream);

	budget_add(H2_SESSION_BYTES);
	u->client = call->client;
	u->watch.ready = ready;
	u->garbage.release = release;
	u->is_connecting = true;
	u->since_ms = clock_ms();
	list_init(&u->shared);
	list_init(&u->streams);
	list_init(&u->base.touched);
	list_append(&call->client->shared, &u->all);
	timer_init(&u->timer, expire);
	task_init(&u->task, run);
	u->base.ng = h2_client_session(u);
	u->addr = call->addr;
	u->lane = lane_of(call);
	lane_join(u->lane);
	if (call->tls && !client_can_secure(call)) {
		u->watch.fd = -1;
		errno = EPROTO;
	} else {
		u->watch.fd = u->transport.fd = addr_connect(&call->addr);
	}
	if (u->watch.fd < 0 || !loop_add(call->client->loop, &u->watch, 0)) {
		u->error = errno ? errno : EMFILE;
		if (u->watch.fd >= 0)
			close(u->watch.fd);
		u->watch.fd = -1;
		h2_upstream_wake(u);
	} else {
		if (call->tls)
			client_secure(call, &u->transport);
		loop_arm(call->client->loop, &u->timer, call->connect_timeout_ms);
	}
	if (u->error || !call->within || !lane_is_open(u->lane) ||
	    (call->pool_closed && __atomic_load_n(call->pool_closed, __ATOMIC_RELAXED))) {
		u->is_leaving = true;
		return u;
	}
	if (!call->within->shared.next)
		list_init(&call->within->shared);
	list_push(&call->within->shared, &u->shared);
	return u;
}

static bool has_room(const struct h2_upstream *u)
{
	uint32_t most = nghttp2_session_get_remote_settings(u->base.ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

	return u->n_calls < (most < H2_CALLS ? most : H2_CALLS) && nghttp2_session_check_request_allowed(u->base.ng);
}

static struct h2_upstream *find_upstream(struct pool *p)
{
	if (!p || !p->shared.next)
		return NULL;
	LIST_EACH(node, &p->shared) {
		struct h2_upstream *u = CONTAINER(node, struct h2_upstream, shared);

		if (has_room(u))
			return u;
	}
	return NULL;
}

void h2_call_start(struct call *call, bool fresh)
{
	struct h2_upstream *u = fresh ? NULL : find_upstream(call->within);
	struct h2_call *s = MEM_NEW(struct h2_call);

	budget_add(H2_STREAM_BYTES);
	call->reused = u && !u->is_connecting;
	if (!u)
		u = open_upstream(call);
	s->connection = u;
	s->call = call;
	s->start_ms = s->since_ms = clock_ms();
	list_init(&s->base.touched);
	list_append(&u->streams, &s->node);
	timer_init(&s->timer, expire_call);
	if (u->n_calls++ == 0)
		u->silent_ms = clock_ms();
	call->carrier = s;
	if (!u->is_connecting && u->timer.deadline_ms > clock_ms() + next_look(u))
		loop_arm(call->client->loop, &u->timer, next_look(u));
	if (call->idle_timeout_ms > 0)
		loop_arm(call->client->loop, &s->timer, call->idle_timeout_ms);
}

static void submit(struct h2_call *s, const struct message *head, bool has_body)
{
	struct h2_upstream *u = s->connection;

	s->call->req_framing = (uint8_t)head->framing;
	if (UNLIKELY(head->upgrade.n > 0)) {
		s->call->upgrade = head->upgrade;
		s->waiting = head;
		u->has_waiting = true;
	} else if (h2_submit_request(&u->base, &s->base, head, has_body, u->transport.tls != NULL) != 0) {
		u->error = u->error ? u->error : EPROTO;
		u->is_readable = true;
		h2_upstream_retire(u);
	}
}

static bool send_part(struct call *call, const struct message *head, struct str data, bool end)
{
	struct h2_call *s = call->carrier;
	struct h2_upstream *u;
	bool is_taken;

	if (!s || (call->is_tunnel && s->base.id == 0))
		return true;
	u = s->connection;
	if (end) {
		call->request_done = true;
		s->base.trailers = call->trailers;
	}
	call->sent += data.n;
	/* What asks for another protocol is no message with an end. */
	is_taken = h2_stream_add(&u->base, &s->base, data, end && !(head && head->upgrade.n));
	if (head)
		submit(s, head, data.n > 0 || !end || call->trailers);
	h2_upstream_wake(u);
	/* Of a tunnel the owner waits for the very end: it may have nothing else to wait for. */
	if (is_taken && ((call->is_tunnel && end) || ((u->is_connecting || !output_is_empty(&u->out)) &&
						      h2_queue_size(&s->base.queue) > 0))) {
		s->base.is_blocked = true;
		return false;
	}
	return is_taken;
}

static void resume(struct call *call)
{
	struct h2_call *s = call->carrier;

	s->since_ms = clock_ms();
	s->connection->has_resumed = true;
	h2_upstream_wake(s->connection);
}

static void cancel(struct call *call)
{
	struct h2_call *s = call->carrier;
	struct h2_upstream *u = s->connection;

	h2_call_let_go(s);
	if (s->base.id)
		nghttp2_submit_rst_stream(u->base.ng, NGHTTP2_FLAG_NONE, s->base.id, NGHTTP2_CANCEL);
	else if (list_is_empty(&s->base.touched))
		h2_call_free(s);
	h2_upstream_wake(u);
}

static void set_idle(struct call *call)
{
	struct h2_call *s = call->carrier;

	if (call->idle_timeout_ms <= 0)
		timer_disarm(&s->timer);
	else
		loop_arm(s->connection->client->loop, &s->timer, call->idle_timeout_ms);
}

static void move(struct call *call)
{
	struct h2_call *s = call->carrier;
	struct h2_upstream *u = s->connection;
	struct message *m;

	s->call = call;
	if (u->reading != s)
		return;
	/* A block of trailers has begun in the memory of the owner before: what was read of it is forgotten. */
	m = NEW(call->arena, struct message);
	m->arena = call->arena;
	h2_head_begin(&u->base.head, m, true);
}

const struct call_class h2_call_class = {
	.send = send_part, .resume = resume, .cancel = cancel, .set_idle = set_idle, .move = move,
};
