/*
 * http_owner.h -- for tests of the server: who answers requests, by their path.
 *
 *      /hold    not before the test says so         /echo    with the request's body
 *      /empty   204                                 other    with the path, when the body has ended
 */
#pragma once
#include "http/server.h"
#include "http_peer.h"

struct request {
	struct stream stream;
	struct arena arena;
	size_t body_n;
	char body[4096];
	bool is_complete;
};

static struct server *server;
static struct server_listener listener;
static struct addr front;
static struct request *last;              /* the one asked last; NULL after its end */
static unsigned n_opened, n_closed, n_accepted, n_disconnected, n_drained, n_refused;
static enum stream_end last_end;
static int last_refused;
static bool is_admitted;

static void answer(struct request *r, int status, struct str body)
{
	struct message m = { .arena = &r->arena, .status = status, .minor = 1, .framing = FRAMING_LENGTH };

	m.content_length = body.n;
	if (r->stream.req.method == METHOD_HEAD || status == 204 || status == 304)
		body.n = 0;
	stream_send(&r->stream, &m, body, true);
}

HELPER void begin_answer(struct request *r, enum framing framing, uint64_t length)
{
	struct message m = { .arena = &r->arena, .status = 200, .minor = 1, .framing = framing };

	m.content_length = length;
	stream_send(&r->stream, &m, (struct str){ 0 }, false);
}

static struct stream *open_request(struct server_connection *c)
{
	struct request *r = MEM_NEW(struct request);

	(void)c;
	r->stream.arena = &r->arena;
	n_opened++;
	last = r;
	return &r->stream;
}

static void answer_by_path(struct request *r)
{
	struct str path = r->stream.req.path;

	if (str_equal(path, STR("/empty")))
		answer(r, 204, (struct str){ 0 });
	else if (str_equal(path, STR("/echo")))
		answer(r, 200, (struct str){ r->body, r->body_n });
	else if (!str_equal(path, STR("/hold")))
		answer(r, 200, path);
}

static void take_body(struct stream *s, char *data, size_t n, bool end)
{
	struct request *r = (struct request *)s;

	assert_false(s->paused);
	assert_false(r->is_complete);
	if (r->body_n + n <= sizeof r->body)
		memcpy(r->body + r->body_n, data, n);
	memset(data, '#', n);              /* the buffer is ours during the call */
	r->body_n += n;
	r->is_complete = end;
	if (end)
		answer_by_path(r);
}

static void count_drained(struct stream *s)
{
	(void)s;
	n_drained++;
}

static void end_request(struct stream *s, enum stream_end how)
{
	struct request *r = (struct request *)s;

	assert_null(s->connection);
	n_closed++;
	last_end = how;
	if (last == r)
		last = NULL;
	arena_free(&r->arena);
	mem_free(r);
}

static void note_refused(struct server_connection *c, enum h1_fault fault, int status, struct str request_id)
{
	(void)c;
	(void)fault;
	assert_int_equal(request_id.n, 32);
	n_refused++;
	last_refused = status;
}

static bool admit(struct server_connection *c)
{
	(void)c;
	n_accepted += is_admitted;
	return is_admitted;
}

static void leave(struct server_connection *c)
{
	(void)c;
	n_disconnected++;
}

static const struct server_ops ops = {
	.open = open_request, .request = take_body, .body = take_body, .drained = count_drained, .closed = end_request,
	.refused = note_refused, .accepted = admit, .disconnected = leave,
};

static int start(void **state)
{
	struct server_settings settings = server_default_settings;

	(void)state;
	start_loop();
	n_opened = n_closed = n_accepted = n_disconnected = n_drained = n_refused = 0;
	last = NULL;
	is_admitted = true;
	settings.receive_bytes = 16384;
	server = server_new(loop, &ops, &settings, NULL);
	listener = (struct server_listener){ 0 };
	server_listen(server, &listener, listen_any(&front));
	return 0;
}

/* Whatever happened, nothing is left open and everything was counted out that was counted in. */
static int stop(void **state)
{
	(void)state;
	server_free(server);
	turns(2);
	loop_free(loop);
	clock_set_real();
	arena_drop_cache();
	if (n_opened != n_closed || n_accepted != n_disconnected || listener.refs != 0)
		return -1;
	return 0;
}

static int dial(void)
{
	int fd = dial_to(&front);

	turns(2);
	return fd;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)
