/* exchange.c -- births, matches, answers and ends of exchanges; upstream.c has what happens with upstreams. */
#ifdef __x86_64__
#include <emmintrin.h>
#endif
#include "proxy/exchange.h"
#include "proxy/attempt.h"
#include "proxy/body.h"
#include "proxy/claim.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/metric.h"
#include "net/outbox.h"
#include "proxy/grpc.h"
#include "proxy/overload.h"
#include "proxy/own_cookie.h"
#include "proxy/router.h"
#include "proxy/secure.h"
#include "proxy/side_call.h"
#include "proxy/upstream_tls.h"
#include "proxy/worker.h"

const struct reason reasons[REASON_COUNT] = {
#define REASON(id, flag_, text_) [REASON_##id] = { .flag = flag_, .tag = #id, .text = text_ },
#include "proxy/reasons.def"
#undef REASON
};

static struct {
	struct series *connections, *connections_total, *active;
	struct series *refused[64];       /* by enum h1_fault */
} metrics;

void exchange_metrics(void)
{
	metrics.connections = metric_series(METRIC_CONNECTIONS, NULL);
	metrics.connections_total = metric_series(METRIC_CONNECTIONS_TOTAL, NULL);
	metrics.active = metric_series(METRIC_EXCHANGES_ACTIVE, NULL);
	secure_metrics();
	upstream_tls_metrics();
	overload_metrics();
	side_call_metrics();
#define FAULT_SERIES(id, status, tag) \
	metrics.refused[H1_FAULT_##id] = metric_series(METRIC_BAD_REQUESTS, &STR(tag));
	H1_FAULTS(FAULT_SERIES)
#undef FAULT_SERIES
	h2_metrics();
	outbox_metrics();
}

static struct exchange *of(struct stream *s)
{
	return CONTAINER(s, struct exchange, stream);
}

/* ---------- connections ---------- */

bool exchange_accepts(const struct policies *p, const struct ip *peer)
{
	const struct chain *chain = &p->legs[LEG_CONNECT];

	for (unsigned i = 0; i < chain->n; i++)
		if (!chain->steps[i].class->connect(peer, &chain->steps[i]))
			return false;
	return true;
}

/* The peer is known: whether it is let in, and what is spoken with it. */
static bool identify_connection(struct server_connection *c)
{
	const struct worker_listener *l = connection_listener(c)->owner;
	const struct binding *b = l->binding;

	if (!b)
		return true;
	if (b->only && b->only->policies->legs[LEG_CONNECT].n > 0) {
		struct ip peer = addr_ip(connection_peer(c));

		if (!exchange_accepts(b->only->policies, &peer))
			return false;
	}
	if (b->is_tls)
		connection_secure(c);
	else if (b->carries == CARRIES_BYTES)
		connection_carry_bytes(c, (struct str){ NULL, 0 });
	else if (b->carries == CARRIES_TLS)
		connection_peek_name(c);
	return true;
}

static bool accept_connection(struct server_connection *c)
{
	const struct worker_listener *l = connection_listener(c)->owner;

	/* Who it is, is not known before the PROXY header is read. */
	if (l->binding && l->binding->has_proxy_header)
		connection_read_proxy_header(c);
	else if (!identify_connection(c))
		return false;
	metric_add(metrics.connections, 1);
	metric_add(metrics.connections_total, 1);
	return true;
}

static void count_disconnect(struct server_connection *c)
{
	(void)c;
	metric_add(metrics.connections, -1);
}

static unsigned make_room(struct server *s)
{
	return client_close_idle(worker_client(server_owner(s)), 1);
}

static void count_shed(struct server *s, enum server_shed what)
{
	(void)s;
	overload_count_shed(what);
	if (what == SHED_CONNECTION)
		log_warn("overload.connection_refused");
}

static void count_refused(struct server_connection *c, enum h1_fault fault, int status, struct str request_id)
{
	const struct worker *w = server_owner(connection_server(c));
	struct ip peer = addr_ip(connection_peer(c));

	metric_add(metrics.refused[fault], 1);
	if (worker_settings(w)->access_log)
		record_refused(&peer, status, h1_fault_tag(fault), request_id);
}

/* ---------- birth ---------- */

static void resume_exchange(struct task *t)
{
	struct exchange *x = CONTAINER(t, struct exchange, task);

	if (x->phase != EXCHANGE_OVER && x->wait && x->wait->done)
		pipeline_resume(x);
}

static struct stream *open_exchange(struct server_connection *c)
{
	struct worker *w = server_owner(connection_server(c));
	struct arena arena = { 0 };
	struct exchange *x = arena_take(&arena, sizeof *x);

	/* The response is made whole when there is one; what the record reads without one is here. */
	memset(x, 0, offsetof(struct exchange, res));
	x->res.status = 0;
	x->res.upgrade = (struct str){ 0 };
	x->arena = arena;
	x->stream.arena = &x->arena;
	x->worker = w;
	x->view = worker_view(w);
	x->view->exchanges++;
	task_init(&x->task, resume_exchange);
	metric_add(metrics.active, 1);
	return &x->stream;
}

/* 16 hexadecimal digits: each nibble gets a byte, and those above 9 the distance to 'a'. */
static void put_hex(char out[16], uint64_t v)
{
#ifdef __x86_64__
	__m128i x = _mm_cvtsi64_si128((int64_t)v), low = _mm_set1_epi8(0x0f);
	__m128i nibbles = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi64(x, 4), low), _mm_and_si128(x, low));
	__m128i letters = _mm_and_si128(_mm_cmpgt_epi8(nibbles, _mm_set1_epi8(9)), _mm_set1_epi8('a' - '0' - 10));

	_mm_storeu_si128((__m128i *)(void *)out, _mm_add_epi8(_mm_add_epi8(nibbles, _mm_set1_epi8('0')), letters));
#else
	for (unsigned i = 0; i < 16; i++)
		out[i] = "0123456789abcdef"[v >> 4 * i & 15];
#endif
}

struct str exchange_given_id(const struct exchange *x)
{
	const struct header *line = message_find(&x->stream.req, HEADER_X_REQUEST_ID);
	struct str given = line ? line->value : (struct str){ NULL, 0 };
	/* Of two the service might log the other one. */
	bool sane = given.n > 0 && given.n <= 128 && !message_find_next(&x->stream.req, line);

	for (size_t i = 0; sane && i < given.n; i++) {
		char ch = given.p[i];

		sane = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '-' ||
		       ch == '_' || ch == '.' || ch == ':' || ch == '=' || ch == '+' || ch == '/';
	}
	return sane ? given : (struct str){ NULL, 0 };
}

/* Kept from the client when it is sane, else made: 32 characters that say nothing. */
static struct str request_id(struct exchange *x)
{
	struct str given = exchange_given_id(x);

	return given.p ? given : exchange_make_id(x);
}

struct str exchange_make_id(struct exchange *x)
{
	char *out = arena_take(&x->arena, 32);

	put_hex(out, worker_random64(x->worker));
	put_hex(out + 16, worker_random64(x->worker));
	return (struct str){ out, 32 };
}

/* The method a CORS preflight asks about; absent when this is none. */
static struct str preflight_method(const struct message *req)
{
	if (req->method != METHOD_OPTIONS || message_value(req, HEADER_ORIGIN).n == 0)
		return (struct str){ 0 };
	return message_value(req, HEADER_ACCESS_CONTROL_REQUEST_METHOD);
}

/* The parser has checked the form: a name, an IPv4 address or [IPv6], then perhaps a port. */
static struct str without_port(struct str authority)
{
	size_t n = authority.n;

	while (n > 0 && authority.p[n - 1] >= '0' && authority.p[n - 1] <= '9')
		n--;
	if (n > 0 && authority.p[n - 1] == ':')
		return (struct str){ authority.p, n - 1 };
	return authority;
}

void exchange_hide(struct exchange *x)
{
	if (x->route)
		x->hidden[LEVEL_DOMAIN] = x->route->policies->hides;
	x->hidden[LEVEL_GATEWAY] = x->hidden[LEVEL_DOMAIN] | x->site->domain_policies->hides;
}

/* OPTIONS * asks about the server itself (RFC 9110 9.3.7): no route is meant, and nothing behind it is asked. */
bool exchange_is_about_server(const struct exchange *x)
{
	const struct message *req = &x->stream.req;

	return req->method == METHOD_OPTIONS && str_equal(req->path, STR("*"));
}

void exchange_find_route(struct exchange *x, const struct binding *b, const struct router_listener *listener)
{
	struct message *req = &x->stream.req;

	x->site = router_site(b, without_port(req->authority));
	if (!x->site)
		return;
	if (UNLIKELY(x->view->snapshot->own_cookies.p != NULL))
		own_cookies_take(x);
	if (UNLIKELY(x->view->snapshot->claims != NULL) && claim_find(x)) {
		exchange_hide(x);
		return;
	}
	if (LIKELY(!exchange_is_about_server(x)))
		x->route = router_match_telling(x->view->snapshot, x->site, req, preflight_method(req), listener);
	exchange_hide(x);
}

static void match(struct exchange *x)
{
	const struct worker_listener *l = connection_listener(x->stream.connection)->owner;

	/* The listener is followed to the binding of the current view, which the exchange pinned a moment ago. */
	if (l->binding)
		exchange_find_route(x, l->binding, NULL);
}

/* Before anything is looked up for it. */
static void refuse(struct exchange *x)
{
	struct overload *o = worker_overload(x->worker);
	int64_t start_us = clock_now_us();

	forward_identify(x);
	exchange_reply_reason(x, 503, REASON_OVERLOADED, "ErrOverloaded");
	overload_pay(o, clock_now_us() - start_us);
}

static void begin(struct stream *s, char *data, size_t n, bool end)
{
	struct exchange *x = of(s);
	struct message *req = &s->req;

	x->phase = EXCHANGE_REQUEST;
	if (connection_tls(s->connection))
		x->tls_record = secure_record(x);
	x->host = req->authority;
	x->path = req->path;
	x->query = req->query;
	x->request_id = request_id(x);
	exchange_strip_reserved(x);
	x->held = (struct str){ data, n };
	x->held_end = end;
	if (UNLIKELY(overload_judge(worker_overload(x->worker)) != OVERLOAD_NO)) {
		refuse(x);
		return;
	}
	match(x);
	forward_identify(x);
	if (!x->site) {
		exchange_reply_reason(x, 404, REASON_NO_GATEWAY, "ErrNotFound");
		return;
	}
	if (x->site->is_guarded && !secure_admit(x))
		return;
	if (UNLIKELY(x->site->gateway->strips_tag))
		message_remove_id(req, HEADER_X_MSE_TAG);
	pipeline_start(x, LEG_REQUEST);
	if (x->call_open || x->phase > EXCHANGE_UPSTREAM || (x->body && x->body->is_reading))
		return;
	/* Waiting for something: the bytes must outlive the receive buffer, and no more may come. */
	x->held = arena_copy(&x->arena, x->held);
	if (!end)
		stream_pause(s);
}

static void take_body(struct stream *s, char *data, size_t n, bool end)
{
	struct exchange *x = of(s);

	if (UNLIKELY(x->body && x->body->is_reading)) {
		body_take(x, (struct str){ data, n }, end);
		return;
	}
	if (!x->call_open)
		return;                    /* answered already: what still comes is thrown away */
	if (UNLIKELY(x->attempt || x->retained))
		attempt_pass_body(x, (struct str){ data, n }, end);
	if (end)
		x->call.trailers = s->req.trailers;
	if (!call_send(&x->call, NULL, (struct str){ data, n }, end))
		stream_pause(s);
}

/* ---------- answers ---------- */

enum verdict reply(struct exchange *x, int status, struct str content_type, struct str body)
{
	struct message *res = &x->res;

	if (status >= 400 && grpc_is_request(&x->stream.req))
		return grpc_reply(x, grpc_status_of(status), body);
	*res = (struct message){ .arena = &x->arena, .status = status, .minor = 1, .framing = FRAMING_LENGTH };
	res->content_length = body.n;
	message_add_id(res, HEADER_DATE, http_date_now());
	if (content_type.n > 0)
		message_add_id(res, HEADER_CONTENT_TYPE, content_type);
	message_add_id(res, HEADER_X_REQUEST_ID, x->request_id);
	x->res_body = body;
	x->is_local = true;
	return REPLY;
}

struct str exchange_shaped_error(struct exchange *x, int status, const char *code, struct str message)
{
	error_shape *shape = x->shape_error ? x->shape_error : x->route ? x->route->shape_error : NULL;

	return shape ? shape(x, status, code, message) : (struct str){ NULL, 0 };
}

void exchange_watch_turns(struct exchange *x, void (*turned)(struct exchange *x))
{
	x->turned = turned;
}

void exchange_watch_drops(struct exchange *x, drop_hook *dropped)
{
	x->dropped = dropped;
}

void exchange_shape_errors(struct exchange *x, error_shape *shape)
{
	x->shape_error = shape;
}

void exchange_shape_copies(struct exchange *x, copy_shape *shape)
{
	x->shape_copy = shape;
}

enum verdict reply_error(struct exchange *x, int status, const char *code, struct str message)
{
	struct sbuf text = { 0 };
	struct str shaped;

	if (grpc_is_request(&x->stream.req))
		return grpc_reply(x, grpc_status_of(status), message);
	shaped = exchange_shaped_error(x, status, code, message);
	if (shaped.p)
		return reply(x, status, STR("application/json"), shaped);
	SBUF_LIT(&text, "{\"errorCode\":");
	json_quote(&text, str_of(code));
	SBUF_LIT(&text, ",\"errorMessage\":");
	json_quote(&text, message);
	SBUF_LIT(&text, ",\"requestId\":");
	json_quote(&text, x->request_id);
	SBUF_LIT(&text, "}");
	struct str body = arena_copy(&x->arena, sbuf_str(&text));
	sbuf_free(&text);
	return reply(x, status, STR("application/json; charset=utf-8"), body);
}

enum verdict reply_close(struct exchange *x)
{
	x->must_close = true;
	x->is_local = true;
	return REPLY;
}

void exchange_tell_methods(struct exchange *x)
{
	reply(x, 200, (struct str){ NULL, 0 }, (struct str){ NULL, 0 });
	message_add(&x->res, STR("Allow"), STR("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
}

void exchange_answer_unrouted(struct exchange *x)
{
	if (!exchange_is_about_server(x)) {
		exchange_reply_reason(x, 404, REASON_NO_ROUTE, "ErrNotFound");
		return;
	}
	exchange_tell_methods(x);
	exchange_begin_response(x);
}

void exchange_reply_reason(struct exchange *x, int status, enum reason_id reason, const char *code)
{
	x->reason = reason;
	if (x->phase >= EXCHANGE_UPSTREAM && status >= 500) {
		x->upstream_failed = true;
		x->upstream_status = (uint16_t)status;
	}
	if (x->is_tcp) {
		stream_abort(&x->stream);
		return;
	}
	reply_error(x, status, code, str_of(reasons[reason].text));
	if (status == 503)
		message_add_id(&x->res, HEADER_RETRY_AFTER, STR("1"));
	exchange_begin_response(x);
}

void exchange_begin_response(struct exchange *x)
{
	if (!x->is_local)
		outcome_note_head(x);
	else if (x->call_open || x->attempt)
		exchange_end_call(x);
	if (!x->call_open || x->upstream_streams)
		outcome_settle(x);
	if (x->must_close) {
		x->phase = EXCHANGE_SENDING;
		stream_abort(&x->stream);
		return;
	}
	x->phase = EXCHANGE_RESPONSE;
	pipeline_start(x, LEG_RESPONSE);
}

/* The head, then what is there of the body by way of the data hooks. */
static void send_in_pieces(struct exchange *x)
{
	struct str first = x->part;

	pieces_open(x);
	stream_send(&x->stream, &x->res, (struct str){ 0 }, false);
	if (first.n > 0 || x->part_end)
		pieces_take(x, first, x->part_end);
	else if (x->call_open)
		call_resume(&x->call);
	if (x->hold)
		hold_free(x);
}

void exchange_send_response(struct exchange *x)
{
	bool is_head = x->stream.req.method == METHOD_HEAD;

	x->phase = EXCHANGE_SENDING;
	for (const struct cookie_line *c = x->cookies; UNLIKELY(c != NULL); c = c->next)
		message_add_id(&x->res, HEADER_SET_COOKIE, c->value);
	if (x->is_local) {
		if (x->call_open)
			exchange_end_call(x);
		if (x->res.status < 200 || x->res.status == 204 || x->res.status == 304 || is_head)
			x->res_body = (struct str){ 0 };
		stream_send(&x->stream, &x->res, x->res_body, true);
		stream_resume(&x->stream);
		return;
	}
	if (UNLIKELY(x->attempt != NULL))
		attempt_release(x);
	if (UNLIKELY(x->set_cookie.n > 0))
		message_add_id(&x->res, HEADER_SET_COOKIE, x->set_cookie);
	x->stream.trailers = x->res.trailers;
	if (UNLIKELY(pieces_are_wanted(x))) {
		send_in_pieces(x);
		return;
	}
	bool is_taken = stream_send(&x->stream, &x->res, x->part, x->part_end);
	if (x->call_open && !is_taken)
		call_pause(&x->call);
	else if (x->call_open)
		call_resume(&x->call);     /* paused while a step of the response leg waited */
	x->part = (struct str){ 0 };
	if (UNLIKELY(x->hold != NULL))
		hold_free(x);
}

/* ---------- end ---------- */

static void drained(struct stream *s)
{
	struct exchange *x = of(s);

	/* A data hook that waits holds the upstream back, whatever the client takes. */
	if (x->call_open && !x->wait && !(x->pieces && x->pieces->is_held))
		call_resume(&x->call);
}

static void closed(struct stream *s, enum stream_end how)
{
	struct exchange *x = of(s);
	struct view *view = x->view;
	struct worker *w = x->worker;

	if (x->phase != EXCHANGE_NEW) {
		if (how == STREAM_CLIENT_GONE)
			x->reason = REASON_CLIENT_GONE;
		else if (x->is_tunnel && x->reason == REASON_COMPLETED)
			x->reason = REASON_TUNNEL_OVER;
		pipeline_abort(x);
		x->was_open = x->call_open;
		x->end = (uint8_t)how;
		exchange_end_call(x);
		x->phase = EXCHANGE_OVER;
		if (x->n_owed > 0)
			pipeline_ending(x);
		exchange_record(x, how);
		pipeline_done(x);
	}
	metric_add(metrics.active, -1);
	list_remove(&x->task.node);
	view->exchanges--;
	/* The arena holds the exchange itself: it is moved out before it dies. */
	struct arena arena = x->arena;
	arena_free(&arena);
	snapshot_unpin(view, worker_view(w), worker_mailbox(w));
}

const struct server_ops exchange_server_ops = {
	.open = open_exchange,
	.request = begin,
	.body = take_body,
	.drained = drained,
	.closed = closed,
	.refused = count_refused,
	.accepted = accept_connection,
	.handshake_done = secure_handshake_done,
	.handshake_failed = secure_handshake_failed,
	.disconnected = count_disconnect,
	.identified = identify_connection,
	.tunnel = tunnel_begin,
	.make_room = make_room,
	.shed = count_shed,
};

/* ---------- what policies ask ---------- */

struct arena *exchange_arena(struct exchange *x)
{
	return &x->arena;
}

struct message *exchange_request(struct exchange *x)
{
	return &x->stream.req;
}

struct message *exchange_response(struct exchange *x)
{
	return &x->res;
}

const struct ip *exchange_client_ip(const struct exchange *x)
{
	return &x->client_ip;
}

const struct ip *exchange_peer_ip(const struct exchange *x)
{
	return &x->peer_ip;
}

void exchange_set_cookie(struct exchange *x, struct str value)
{
	struct cookie_line *line = NEW(&x->arena, struct cookie_line), **end = &x->cookies;

	line->value = value;
	while (*end)
		end = &(*end)->next;
	*end = line;
}

bool exchange_is_tls(const struct exchange *x)
{
	return x->tls_record.n > 0;
}

bool exchange_is_h2(const struct exchange *x)
{
	return x->stream.carrier != NULL;
}

struct str exchange_route_id(const struct exchange *x)
{
	return x->route ? x->route->id : (struct str){ NULL, 0 };
}

bool exchange_is_for_models(const struct exchange *x)
{
	return x->route && (x->route->ai || (x->route->policies->wants & WANTS_CHAT));
}

struct str exchange_api_id(const struct exchange *x)
{
	return x->route ? x->route->api_id : (struct str){ NULL, 0 };
}

uint32_t exchange_random(struct exchange *x)
{
	return worker_random(x->worker);
}

void exchange_choose_lane(struct exchange *x, struct str tag, const struct lane_names *lanes)
{
	x->lane = tag.p ? tag : STR("");
	x->lanes = lanes;
}

void exchange_keep_flag(struct exchange *x, const char *flag)
{
	x->flag = flag;
}

struct chat *exchange_chat(const struct exchange *x)
{
	return x->chat;
}

void exchange_set_chat(struct exchange *x, struct chat *c)
{
	x->chat = c;
}

void exchange_choose_target(struct exchange *x, unsigned target)
{
	BUG_ON(!x->route || target >= x->route->n_targets);
	x->chosen_target = target + 1;
}

struct str exchange_service_id(const struct exchange *x)
{
	return x->service ? x->service->id : (struct str){ NULL, 0 };
}

void exchange_keep_member(struct exchange *x, struct str member)
{
	x->member = member;
}

bool exchange_is_upstream_response(const struct exchange *x)
{
	return !x->is_local;
}
