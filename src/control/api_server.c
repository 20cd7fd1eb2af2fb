/*
 * api_server.c -- the admin listener: streams of http/server become calls; answers that wait for the batch go
 * out at the end of
 * the turn.
 *
 *      request ─► judge ─► body ... ─► execute ─► done: sent at once
 *                                              └► waits: on control->answers, sent by flush
 */
#include <stdio.h>
#include <unistd.h>
#include "control/api.h"
#include "control/control_parts.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "net/listener.h"
#include "proxy/side_address.h"

/* One stream: the call, its memory and its body. First member as http/server wants it. */
struct api_request {
	struct stream stream;
	struct arena arena;
	struct api_call call;
	struct sbuf body;
	struct list node;                 /* in control->answers */
	enum call_state state;
	bool is_answered;
};

static struct control *control_of(const struct stream *s)
{
	return server_owner(connection_server(s->connection));
}

static struct stream *open_stream(struct server_connection *c)
{
	struct api_request *r = MEM_NEW(struct api_request);

	(void)c;
	r->arena.wipes = true;
	r->stream.arena = &r->arena;
	list_init(&r->node);
	return &r->stream;
}

static void send_answer(struct api_request *r)
{
	struct api_call *call = &r->call;
	struct message head = {
		.arena = &r->arena,
		.method = r->stream.req.method,
		.status = call->status,
		.framing = FRAMING_LENGTH,
		.content_length = call->answer.n,
		.length_known = true,
		.minor = 1,
		.keep_alive = true,
	};

	head.reason = str_of(h1_reason(call->status));
	message_add_id(&head, HEADER_DATE, http_date_now());
	message_add_id(&head, HEADER_CONTENT_TYPE, call->type.p ? call->type : STR("application/json"));
	message_add(&head, STR("Cache-Control"), STR("no-store"));
	message_add(&head, STR("X-Content-Type-Options"), STR("nosniff"));
	message_add(&head, STR("X-Request-Id"), str_of(call->request_id));
	message_add(&head, STR("x-acs-request-id"), str_of(call->request_id));
	if (call->etag.p)
		message_add(&head, STR("ETag"), call->etag);
	if (call->status == 401)
		message_add(&head, STR("WWW-Authenticate"), STR("Bearer realm=\"sluice\""));
	if (call->allow[0])
		message_add(&head, STR("Allow"), str_of(call->allow));
	r->is_answered = true;
	metric_count_status(call->control->api_requests,
			    call->status >= 100 && call->status <= 599 ? call->status : 500);
	bool is_head = r->stream.req.method == METHOD_HEAD;

	stream_send(&r->stream, &head, is_head ? (struct str){ NULL, 0 } : call->answer, true);
}

static void execute(struct api_request *r)
{
	struct control *c = r->call.control;

	r->call.body = sbuf_str(&r->body);
	r->state = api_execute(&r->call);
	if (r->state == CALL_DONE) {
		send_answer(r);
		return;
	}
	list_append(&c->answers, &r->node);
	loop_defer(c->loop, &c->flush);
}

/* Bodies may hold secrets: where they were received nothing of them stays. */
static bool take_body(struct api_request *r, char *data, size_t n)
{
	struct problem why;
	bool fits = r->body.n + n <= API_BODY_MAX;

	if (fits)
		sbuf_add(&r->body, (struct str){ data, n });
	mem_wipe(data, n);
	if (fits)
		return true;
	problem_of(&why, PROBLEM_TOO_LARGE, "body", "must have at most %d bytes", API_BODY_MAX);
	api_fail(&r->call, &why);
	r->stream.close_after = true;
	send_answer(r);
	return false;
}

static void request(struct stream *s, char *data, size_t n, bool end)
{
	struct api_request *r = (struct api_request *)s;
	struct api_call *call = &r->call;
	const struct message *req = &s->req;

	api_begin(call, control_of(s), &r->arena);
	call->method = req->method;
	call->path = req->path;
	call->query = req->query;
	call->host = req->authority;
	call->content_type = message_value(req, HEADER_CONTENT_TYPE);
	call->x_auth_token = message_join(req, STR("X-Auth-Token"));
	call->authorization = message_join(req, STR("Authorization"));
	call->if_match = message_join(req, STR("If-Match"));
	if (!api_judge(call, req->framing == FRAMING_LENGTH ? req->content_length : 0)) {
		send_answer(r);
		return;
	}
	if (!take_body(r, data, n))
		return;
	if (end)
		execute(r);
	else if (req->expect_continue)
		stream_send_continue(s);
}

static void body(struct stream *s, char *data, size_t n, bool end)
{
	struct api_request *r = (struct api_request *)s;

	if (!r->is_answered && take_body(r, data, n) && end)
		execute(r);
}

static void drained(struct stream *s)
{
	(void)s;                              /* answers are handed over whole */
}

static void closed(struct stream *s, enum stream_end how)
{
	struct api_request *r = (struct api_request *)s;

	(void)how;
	list_remove(&r->node);
	api_end(&r->call);
	if (r->body.p)
		mem_wipe(r->body.p, r->body.n);
	sbuf_free(&r->body);
	arena_free(&r->arena);
	mem_free(r);
}

static void finish_request(struct api_request *r, const struct problem *refused)
{
	if (r->state == CALL_READS_LATER)
		r->state = api_execute(&r->call);
	else
		api_finish(&r->call, refused);
	send_answer(r);
}

void api_flush(struct control *c)
{
	struct problem why;
	bool ok = batch_commit(c, &why);

	while (!list_is_empty(&c->answers)) {
		struct api_request *r = CONTAINER(c->answers.next, struct api_request, node);

		list_remove(&r->node);
		finish_request(r, ok ? NULL : &why);
	}
}

static const struct server_ops operations = {
	.open = open_stream, .request = request, .body = body, .drained = drained, .closed = closed,
};

bool api_listen(struct control *c, const char *address, struct problem *why)
{
	struct server_settings settings = server_default_settings;
	struct addr at;
	struct ip ip;

	if (!addr_parse(str_of(address), &at))
		return problem(why, "admin",
			"must be an address such as 127.0.0.1:9070 or [::1]:9070, not \"%s\"", address);
	if (!listener_probe(&at, why)) {
		why->kind = PROBLEM_INTERNAL;
		return false;
	}
	int fd = listener_open(&at, false, why);

	if (fd < 0) {
		why->kind = PROBLEM_INTERNAL;
		return false;
	}
	at = addr_of_socket(fd);
	c->port = addr_port(&at);
	side_address_set_admin(&at);
	ip = addr_ip(&at);
	c->any_ip_host = addr_is_wildcard(&ip);
	settings.connections = 4096;
	c->server = server_new(c->loop, &operations, &settings, c);
	server_listen(c->server, &c->listener, fd);
	return true;
}
