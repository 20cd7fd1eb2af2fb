/*
 * client.c -- HTTP/1.1 on the upstream side: connections, their pools, and one call at a time over each.
 *
 *      CONNECTING ──► BUSY ──response complete──► IDLE (in the pool) ──next call──► BUSY
 *           └─error─► failed   └─error, close──► failed / closed
 */
#include "http/client.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/client_connection.h"
#include "http/trailers.h"
#include "net/descriptor.h"
#include "net/listener.h"

#define POOL_MAX 1024                    /* idle connections of one endpoint on one thread */
#define IDLE_LOOKED_AT 256               /* connections, when an idle one is wanted */
#define POOL_IDLE_MS 55000               /* below what upstreams usually allow (60 s and more) */

struct client *client_new(struct loop *loop, size_t receive_bytes)
{
	struct client *c = MEM_NEW(struct client);

	c->loop = loop;
	c->outbox = outbox_of(loop);
	c->receive_bytes = receive_bytes;
	c->buffer = mem_alloc(receive_bytes);
	list_init(&c->connections);
	list_init(&c->shared);
	list_init(&c->lanes);
	return c;
}

void client_free(struct client *c)
{
	LIST_EACH(node, &c->connections)
		upstream_close(CONTAINER(node, struct client_connection, all));
	h2_client_close(c);
	client_free_lanes(c);
	mem_free(c->buffer);
	mem_free(c->scratch);
	mem_free(c);
}

static void release(struct garbage *g)
{
	mem_free(CONTAINER(g, struct client_connection, garbage));
}

/* Out of the pool, out of the loop, freed at the end of the turn. The call, if any, is not told. */
void upstream_close(struct client_connection *c)
{
	if (c->state == UPSTREAM_CLOSED)
		return;
	if (c->state == UPSTREAM_IDLE) {
		c->pool->n--;
		if (c->transport.tls)
			tls_shutdown(c->transport.tls);
	}
	c->state = UPSTREAM_CLOSED;
	if (c->call)
		c->call->connection = NULL;
	c->call = NULL;
	list_remove(&c->idle);
	list_remove(&c->all);
	list_remove(&c->task.node);
	timer_disarm(&c->timer);
	/* Nobody waits for the answer to what was posted. */
	output_free(&c->out);
	if (c->watch.fd >= 0) {
		loop_forget(c->client->loop, &c->watch);
		transport_free(&c->transport);
		close(c->watch.fd);
	}
	lane_leave(c->lane);
	c->lane = NULL;
	mem_free(c->in);
	c->in = NULL;
	budget_add(-(int64_t)c->in_cap);
	c->in_cap = 0;
	loop_free_later(c->client->loop, &c->garbage);
}

/* Why there is no TLS connection, for its call. */
static void note_handshake(const struct client_connection *c, int error)
{
	struct handshake h = client_failed_handshake(c->client, &c->transport, &c->call->addr, error);

	c->call->tls_failure = (uint8_t)h.failure;
	c->call->tls_text = h.text;
}

/* TLS 1.3 tells a client that it is refused only after the client has begun to send. */
static bool was_refused(const struct client_connection *c)
{
	return c->transport.tls && !c->call->reused && !c->call->response_started &&
	       tls_client_was_refused(c->transport.tls);
}

/* Ends the call with a failure; the connection goes with it. */
void upstream_fail(struct client_connection *c, enum call_failure what, int error)
{
	struct call *call = c->call;

	if (call && (c->state == UPSTREAM_SECURING || was_refused(c)))
		note_handshake(c, error);
	upstream_close(c);
	if (!call)
		return;
	call->error = error;
	call->ops->failed(call, what);
}

/* Which failure a broken connection is, by how far the call came. */
enum call_failure upstream_failure(const struct client_connection *c)
{
	if (upstream_is_opening(c))
		return CALL_CONNECT;
	return c->has_head ? CALL_TRUNCATED : CALL_RESET;
}

static void timeout(struct timer *t)
{
	struct client_connection *c = CONTAINER(t, struct client_connection, timer);
	struct call *call = c->call;
	int64_t limit = POOL_IDLE_MS, now = clock_ms();

	if (call)
		limit = upstream_is_opening(c) ? call->connect_timeout_ms : call->idle_timeout_ms;
	if (limit <= 0 || (call && call->paused) || c->since_ms + limit > now) {
		loop_arm(c->client->loop, t, limit <= 0 || (call && call->paused) ? 30000 : c->since_ms + limit - now);
		return;
	}
	if (!call)
		upstream_close(c);
	else if (upstream_is_opening(c))
		upstream_fail(c, CALL_CONNECT, ETIMEDOUT);
	else
		upstream_fail(c, c->has_head ? CALL_TRUNCATED : CALL_TIMEOUT, ETIMEDOUT);
}

static void run_later(struct task *t)
{
	struct client_connection *c = CONTAINER(t, struct client_connection, task);

	if (c->state == UPSTREAM_CLOSED)
		return;
	if (c->error)
		upstream_fail(c, upstream_failure(c), c->error);
	else if (c->state == UPSTREAM_SECURING)
		upstream_ready(&c->watch, 0);
	else
		upstream_pump(c);
}

unsigned client_close_idle(struct client *client, unsigned most)
{
	unsigned n = 0;

	/* Those that are busy go to the end: the next call looks at others. */
	for (int i = 0; i < IDLE_LOOKED_AT && n < most && !list_is_empty(&client->connections); i++) {
		struct client_connection *c = CONTAINER(client->connections.next, struct client_connection, all);

		list_remove(&c->all);
		list_append(&client->connections, &c->all);
		if (c->state != UPSTREAM_IDLE)
			continue;
		upstream_close(c);
		n++;
	}
	return n;
}

void client_ask_for_room(struct client *c, bool (*make_room)(void *arg), void *arg)
{
	c->make_room = make_room;
	c->room_arg = arg;
}

void client_watch_handshakes(struct client *c, void (*ended)(const struct handshake *h))
{
	c->handshake_ended = ended;
}

void client_set_ping(struct client *c, int64_t ping_ms, int64_t timeout_ms)
{
	c->h2_ping_ms = ping_ms;
	c->h2_ping_timeout_ms = timeout_ms;
}

/* -1 with errno when there is no descriptor for it, even after giving up a connection that nobody uses now. */
static int connect_to(struct client *client, const struct addr *to)
{
	int fd = addr_connect(to);

	if (fd < 0 && errno != EMFILE && errno != ENFILE)
		return fd;
	if (fd >= 0 && !descriptor_is_scarce(fd, DESCRIPTOR_UPSTREAM))
		return fd;
	if (client->make_room ? client->make_room(client->room_arg) : client_close_idle(client, 1) > 0)
		return fd >= 0 ? fd : addr_connect(to);
	if (fd >= 0)
		close(fd);
	errno = EMFILE;
	return -1;
}

/*
 * Writing failed. An answer may lie in the receive buffer already (an upstream that refuses a body): it is read before
 * the call fails.
 */
static void break_off(struct client_connection *c, int error)
{
	c->write_error = error;
	c->is_readable = true;
	loop_defer(c->client->loop, &c->task);
}

/* Of what was posted. */
static void take_back(struct letter *l, struct iovec rest, int error)
{
	struct output *o = CONTAINER(l, struct output, letter);
	struct client_connection *c = CONTAINER(o, struct client_connection, out);

	if (error)
		break_off(c, error);
	else
		output_append(o, &rest, 1);
}

static struct client_connection *open_connection(struct call *call)
{
	struct client_connection *c = MEM_NEW(struct client_connection);

	c->client = call->client;
	c->lane = lane_of(call);
	lane_join(c->lane);
	c->watch.ready = upstream_ready;
	c->out.letter.returned = take_back;
	c->garbage.release = release;
	c->state = UPSTREAM_CONNECTING;
	list_init(&c->idle);
	list_append(&call->client->connections, &c->all);
	timer_init(&c->timer, timeout);
	task_init(&c->task, run_later);
	if (call->tls && !client_can_secure(call)) {
		c->watch.fd = -1;
		errno = EPROTO;
	} else {
		c->watch.fd = c->transport.fd = connect_to(call->client, &call->addr);
	}
	if (c->watch.fd < 0 || !loop_add(call->client->loop, &c->watch, 0)) {
		c->error = errno ? errno : EMFILE;
		if (c->watch.fd >= 0)
			close(c->watch.fd);
		c->watch.fd = -1;
		loop_defer(call->client->loop, &c->task);
	} else {
		if (call->tls)
			client_secure(call, &c->transport);
		loop_arm(call->client->loop, &c->timer, call->connect_timeout_ms);
	}
	return c;
}

static struct client_connection *take_idle(struct pool *p)
{
	if (!p || !p->idle.next || list_is_empty(&p->idle))
		return NULL;
	struct client_connection *c = CONTAINER(p->idle.next, struct client_connection, idle);
	list_remove(&c->idle);
	p->n--;
	c->state = UPSTREAM_BUSY;
	return c;
}

static void h1_start(struct call *call, bool fresh)
{
	struct client_connection *c = fresh ? NULL : take_idle(call->within);

	call->reused = c != NULL;
	if (!c)
		c = open_connection(call);
	c->call = call;
	c->pool = call->within;
	c->since_ms = clock_ms();
	c->turn = loop_turn(call->client->loop);
	c->interims = 0;
	c->has_head = false;
	c->scan = (struct h1_scan){ 0 };
	if (call->is_tunnel)
		upstream_tunnel(c);
	call->connection = c;
	if (c->timer.deadline_ms > c->since_ms + call->idle_timeout_ms && call->idle_timeout_ms > 0)
		loop_arm(call->client->loop, &c->timer, call->idle_timeout_ms);
}

/* All that comes is the call's, until the upstream closes its side. */
void upstream_tunnel(struct client_connection *c)
{
	c->has_head = true;
	c->keep_alive = c->has_ended = c->is_half_closed = false;
	h1_body_init(&c->body, FRAMING_CLOSE, 0);
}

static void h1_cancel(struct call *call)
{
	upstream_close(call->connection);
}

/* The response is complete: the connection is free for the next call, or closed. */
void upstream_detach(struct client_connection *c, bool keep)
{
	struct call *call = c->call;
	struct pool *p = c->pool;

	c->call = NULL;
	call->connection = NULL;
	if (!keep || !p || p->n >= (p->most_idle ? p->most_idle : POOL_MAX) || !lane_is_open(c->lane) ||
	    (call->pool_closed && __atomic_load_n(call->pool_closed, __ATOMIC_RELAXED))) {
		upstream_close(c);
		return;
	}
	if (!p->idle.next)
		list_init(&p->idle);
	c->state = UPSTREAM_IDLE;
	c->since_ms = clock_ms();
	list_push(&p->idle, &c->idle);
	p->n++;
	if (c->timer.deadline_ms > c->since_ms + POOL_IDLE_MS)
		loop_arm(c->client->loop, &c->timer, POOL_IDLE_MS);
}

void pool_close(struct client *client, struct pool *p)
{
	(void)client;
	lanes_close(p);
	pool_close_own(p);
}

void pool_close_own(struct pool *p)
{
	h2_pool_close(p);
	while (p->idle.next && !list_is_empty(&p->idle))
		upstream_close(CONTAINER(p->idle.next, struct client_connection, idle));
}

/* ---------- sending ---------- */

/* Our side of a tunnel ends, once all is in the kernel. */
void upstream_half_close(struct client_connection *c)
{
	output_settle(&c->out);
	if (c->is_half_closed || c->state != UPSTREAM_BUSY || !output_is_empty(&c->out))
		return;
	c->is_half_closed = true;
	transport_shutdown(&c->transport);
}

static char *scratch(struct client *client, size_t n)
{
	if (n > client->scratch_n) {
		client->scratch_n = n < 16384 ? 16384 : n;
		mem_free(client->scratch);
		client->scratch = mem_alloc(client->scratch_n);
	}
	return client->scratch;
}

/* The end of the chunks with the fields after it. Returns how many parts. */
static int frame_trailers(const struct call *call, struct iovec *part)
{
	char *out;

	if (call->req_framing != FRAMING_CHUNKED)
		return 0;
	out = arena_take(call->arena, h1_last_chunk_bound(call->trailers));
	*part = (struct iovec){ out, h1_write_last_chunk(call->trailers, out) };
	return 1;
}

static bool h1_send(struct call *call, const struct message *head, struct str data, bool end)
{
	struct client_connection *c = call->connection;
	char size_line[20];
	struct iovec parts[5];
	enum output_result result;
	int n = 0;

	if (!c || c->write_error)
		return true;
	if (c->error)
		return false;              /* never was a connection: its failure is on the way */
	if (head) {
		call->req_framing = (uint8_t)head->framing;
		call->upgrade = head->upgrade;
		parts[0].iov_base = scratch(call->client, h1_head_bound(head));
		parts[0].iov_len = h1_write_request(head, parts[0].iov_base);
		n = 1;
	}
	n += h1_frame(call->req_framing == FRAMING_CHUNKED, parts + n, size_line, data, end && !call->trailers);
	if (end && UNLIKELY(call->trailers != NULL))
		n += frame_trailers(call, parts + n);
	for (int i = 0; i < n; i++)
		call->sent += parts[i].iov_len;
	if (end)
		call->request_done = true;
	if (n == 0) {
		if (end && call->is_tunnel)
			upstream_half_close(c);
		return output_is_empty(&c->out);
	}
	if (upstream_is_opening(c)) {
		output_append(&c->out, parts, n);
		return false;
	}
	/* A tunnel's last bytes are in the kernel before our side is shut. */
	if (call->is_tunnel || c->transport.tls)
		result = output_send(&c->out, &c->transport, parts, n);
	else
		result = output_post(&c->out, &c->transport, c->client->outbox, parts, n);
	if (result == OUTPUT_FAILED) {
		break_off(c, errno);
		return true;
	}
	if (result == OUTPUT_ALL)
		c->since_ms = clock_ms();
	if (end && call->is_tunnel)
		upstream_half_close(c);
	return result == OUTPUT_ALL;
}

static void h1_resume(struct call *call)
{
	struct client_connection *c = call->connection;

	c->since_ms = clock_ms();
	loop_defer(call->client->loop, &c->task);
}

static void h1_set_idle(struct call *call)
{
	struct client_connection *c = call->connection;

	if (call->idle_timeout_ms > 0 && c->timer.deadline_ms > clock_ms() + call->idle_timeout_ms)
		loop_arm(c->client->loop, &c->timer, call->idle_timeout_ms);
}

static void h1_move(struct call *call)
{
	struct client_connection *c = call->connection;

	c->call = call;
	/* A part of the trailers may lie in the memory of the owner before: they are judged on, and forgotten. */
	c->body.arena = NULL;
	c->body.lines = NULL;
	c->body.trailers = NULL;
}

static const struct call_class h1_call_class = {
	.send = h1_send, .resume = h1_resume, .cancel = h1_cancel, .set_idle = h1_set_idle, .move = h1_move,
};

void call_start(struct call *call, bool fresh)
{
	call->request_done = call->response_started = call->paused = false;
	call->sent = call->received = 0;
	call->error = 0;
	call->fault = H1_FAULT_NONE;
	call->connected_us = 0;
	call->upgrade = (struct str){ NULL, 0 };
	call->is_refused = false;
	call->tls_failure = TLS_CLIENT_NONE;
	call->tls_text = "";
	call->within = UNLIKELY(call->tls != NULL) ? lane_find(call) : call->pool;
	if (call->over_h2) {
		call->class = &h2_call_class;
		h2_call_start(call, fresh);
		return;
	}
	call->class = &h1_call_class;
	h1_start(call, fresh);
}

bool call_send(struct call *call, const struct message *head, struct str data, bool end)
{
	return call->class->send(call, head, data, end);
}

void call_pause(struct call *call)
{
	call->paused = true;
}

void call_resume(struct call *call)
{
	if (!call->paused)
		return;
	call->paused = false;
	if (call->connection || call->carrier)
		call->class->resume(call);
}

void call_set_idle(struct call *call, int64_t idle_timeout_ms)
{
	call->idle_timeout_ms = idle_timeout_ms;
	if (call->connection || call->carrier)
		call->class->set_idle(call);
}

void call_move(struct call *to, struct call *from)
{
	const struct call_ops *ops = to->ops;
	struct arena *arena = to->arena;
	const struct message head = from->res;

	*to = *from;
	to->ops = ops;
	to->arena = arena;
	to->res = (struct message){ .arena = arena, .status = head.status, .framing = head.framing,
				    .content_length = head.content_length, .length_known = head.length_known };
	from->connection = NULL;
	from->carrier = NULL;
	if (to->connection || to->carrier)
		to->class->move(to);
}

void call_cancel(struct call *call)
{
	if (call->connection || call->carrier)
		call->class->cancel(call);
}
