/*
 * fuzz_h2_client.c -- frames of an upstream: whatever it answers to three requests on one connection, each call
 * ends exactly once, what is handed over is a response that HTTP/1.1 could carry, with the length it promised, and
 * nothing is left behind.
 *
 *	byte 0: 1 the upstream offers extended CONNECT, 2 owners pause now and then, 4 the body of the POST ends late,
 *	8 the frames come in two pieces
 */
/* room: http */
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "http/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OFFERS = 1, PAUSES = 2, LATE = 4, PIECES = 8, CALLS = 3 };

struct ask {
	struct call call;
	struct arena arena;
	struct message head;
	uint64_t body_bytes;
	bool has_head, is_over;
};

static struct loop *loop;
static struct client *client;
static int listener;
static struct addr upstream;
static uint8_t how;

static void check_head(const struct message *m, bool is_tunnel)
{
	BUG_ON(is_tunnel ? m->status != 101 : m->status < 200 || m->status > 599);
	for (unsigned i = 0; i < m->n; i++) {
		BUG_ON(!header_is_token(m->headers[i].name) || !header_is_value(m->headers[i].value));
		BUG_ON(!m->headers[i].dropped && m->headers[i].id == HEADER_TRANSFER_ENCODING);
		BUG_ON(!m->headers[i].dropped && m->headers[i].id == HEADER_CONTENT_LENGTH);
	}
}

static void take_body(struct call *c, char *data, size_t n, bool end)
{
	struct ask *a = (struct ask *)c;

	BUG_ON(a->is_over || !a->has_head || c->paused);
	if (n > 0)
		memset(data, '#', n);
	a->body_bytes += n;
	if (c->res.framing == FRAMING_LENGTH)
		BUG_ON(a->body_bytes > c->res.content_length || (end && a->body_bytes != c->res.content_length));
	if (c->res.framing == FRAMING_NONE && !c->is_tunnel)
		BUG_ON(a->body_bytes > 0);
	if (end && c->is_tunnel) {
		call_send(c, NULL, (struct str){ NULL, 0 }, true);
		return;
	}
	a->is_over = end;
	if (!end && (how & PAUSES) && a->body_bytes % 3 == 1)
		call_pause(c);
}

static void take_response(struct call *c, char *data, size_t n, bool end)
{
	struct ask *a = (struct ask *)c;

	BUG_ON(a->is_over || a->has_head);
	a->has_head = true;
	check_head(&c->res, c->is_tunnel);
	BUG_ON(c->is_tunnel && (end || !c->upgrade.n));
	take_body(c, data, n, end);
	if (c->is_tunnel)
		call_send(c, NULL, STR("ping"), false);
}

static void take_interim(struct call *c)
{
	BUG_ON(((struct ask *)c)->has_head || c->res.status != 103);
}

static void go_on(struct call *c)
{
	BUG_ON(((struct ask *)c)->is_over);
}

static void fail(struct call *c, enum call_failure what)
{
	struct ask *a = (struct ask *)c;

	BUG_ON(a->is_over || (what == CALL_TRUNCATED) != a->has_head);
	a->is_over = true;
}

static const struct call_ops ops = {
	.response = take_response, .interim = take_interim, .body = take_body, .drained = go_on, .failed = fail,
};

static void set_up(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof at;

	loop = loop_new();
	client = client_new(loop, 16384);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	BUG_ON(bind(listener, (struct sockaddr *)&at, n) < 0 || listen(listener, 16) < 0);
	BUG_ON(getsockname(listener, (struct sockaddr *)&at, &n) < 0);
	BUG_ON(!addr_parse(STR("127.0.0.1:1"), &upstream));
	struct ip ip = addr_ip(&upstream);

	upstream = addr_of_ip(&ip, ntohs(at.sin_port));
}

static void start(struct ask *a, struct pool *pool, unsigned i)
{
	static const enum method methods[CALLS] = { METHOD_GET, METHOD_POST, METHOD_GET };
	struct message *head = &a->head;

	*a = (struct ask){ .call = { .client = client, .ops = &ops, .arena = &a->arena, .pool = pool, .addr = upstream,
				     .connect_timeout_ms = 10000, .idle_timeout_ms = 10000, .over_h2 = true } };
	a->call.method = methods[i];
	*head = (struct message){ .arena = &a->arena, .method = methods[i], .minor = 1, .path = STR("/"),
				  .method_name = i == 1 ? STR("POST") : STR("GET"), .authority = STR("a.test") };
	if (i == 1)
		head->framing = FRAMING_CHUNKED;
	if (i == 2) {
		head->upgrade = STR("websocket");
		message_add(head, STR("Sec-WebSocket-Key"), STR("dGhlIHNhbXBsZSBub25jZQ=="));
	}
	call_start(&a->call, false);
	call_send(&a->call, head, i == 1 ? STR("body") : (struct str){ NULL, 0 }, i != 1 || !(how & LATE));
}

static void end(struct ask *a)
{
	if (!a->is_over)
		call_cancel(&a->call);
	BUG_ON(a->call.carrier);
	arena_free(&a->arena);
}

static void turn(int times)
{
	for (int i = 0; i < times; i++)
		loop_run_once(loop, 0);
}

/* What the upstream says, and what the owners do meanwhile. */
static void converse(int peer, struct ask *asks, const uint8_t *data, size_t size)
{
	const uint8_t settings[] = { 0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, how & OFFERS };
	size_t half = how & PIECES ? size / 2 : size;

	BUG_ON(write(peer, settings, sizeof settings) != sizeof settings);
	turn(2);
	BUG_ON(half > 0 && write(peer, data, half) != (ssize_t)half);
	turn(3);
	if ((how & LATE) && !asks[1].is_over)
		call_send(&asks[1].call, NULL, STR("late"), true);
	if (half < size && write(peer, data + half, size - half) < 0)
		return;
	for (unsigned round = 0; round < 4; round++) {
		turn(2);
		for (unsigned i = 0; i < CALLS; i++)
			if (!asks[i].is_over && asks[i].call.paused)
				call_resume(&asks[i].call);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ask asks[CALLS];
	struct pool pool = { 0 };
	int64_t held;
	int peer;

	if (size < 1 || size > 16384)
		return 0;
	if (!loop)
		set_up();
	held = budget.used;
	how = data[0];
	for (unsigned i = 0; i < CALLS; i++)
		start(&asks[i], &pool, i);
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	BUG_ON(peer < 0 || fcntl(peer, F_SETFL, O_NONBLOCK) < 0);
	turn(2);
	converse(peer, asks, data + 1, size - 1);
	if (size % 2)
		close(peer);
	turn(3);
	for (unsigned i = 0; i < CALLS; i++)
		end(&asks[i]);
	pool_close(client, &pool);
	turn(3);
	if (!(size % 2))
		close(peer);
	turn(3);
	BUG_ON(budget.used != held);
	return 0;
}
