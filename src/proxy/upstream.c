/*
 * upstream.c -- an exchange and its upstream: pick a service and an endpoint, call, hand the answer on, and say what
 * went wrong.
 *
 * Failure → status: no endpoint 503, connect failure 503, closed before a head 503, timeout 504, malformed 502; after
 * the head was sent the client's connection is cut, so that it cannot take a part for the whole.
 */
#include <errno.h>
#include "core/clock.h"
#include "core/log.h"
#include "core/metric.h"
#include "proxy/attempt.h"
#include "proxy/attempt_rules.h"
#include "proxy/balance.h"
#include "proxy/body.h"
#include "proxy/exchange.h"
#include "proxy/upstream_tls.h"
#include "proxy/worker.h"

#define REFUSALS_MAX 3                   /* attempts at an upstream that refuses streams */
#define REPLAY_BYTES 65536               /* of a body kept to repeat a request that met a stale connection */
#define FIRST_PIECE 8192                 /* bytes of an answer to an HTTP/2 client that come with its head */

static struct exchange *of(struct call *c)
{
	return CONTAINER(c, struct exchange, call);
}

/* ---------- choosing ---------- */

static const struct target *pick_target(struct exchange *x)
{
	const struct route *r = x->route;

	if (UNLIKELY(x->chosen_target > 0))
		return &r->targets[x->chosen_target - 1];
	if (r->n_targets <= 1 || r->weight_sum == 0)
		return r->n_targets ? &r->targets[0] : NULL;
	uint32_t at = (uint32_t)((uint64_t)worker_random(x->worker) * r->weight_sum >> 32);
	for (unsigned i = 0; i < r->n_targets; i++) {
		if (at < r->targets[i].weight)
			return &r->targets[i];
		at -= r->targets[i].weight;
	}
	return &r->targets[r->n_targets - 1];
}

bool exchange_find_service(struct exchange *x)
{
	const struct target *t = pick_target(x);
	struct part *service = t ? pmap_get_hashed(x->view->snapshot->services, t->service_id, t->hash) : NULL;

	x->target = t;
	x->service = service ? CONTAINER(service, struct service, part) : NULL;
	return UNLIKELY(attempt_is_asked(x)) ? attempt_choose(x) : service != NULL;
}

void exchange_dispatch(struct exchange *x)
{
	if (!x->route) {
		if (!pipeline_ask_claim(x))
			exchange_answer_unrouted(x);
		return;
	}
	x->phase = EXCHANGE_UPSTREAM;
	if (!exchange_find_service(x)) {
		exchange_reply_reason(x, 503, REASON_NO_SERVICE, "ErrNoUpstream");
		return;
	}
	forward_prepare(x);
	pipeline_start(x, LEG_SERVICE);
}

/* ---------- calling ---------- */

static bool is_held_whole(const struct exchange *x)
{
	if (x->body)
		return x->body->is_whole;
	return x->held_end && x->held.n <= REPLAY_BYTES && x->stream.received == x->held.n;
}

/*
 * Whether the request may be sent again on a fresh connection after a pooled one turned out dead. Never a POST: it may
 * have been processed before the connection broke, and nobody asked for more than one.
 */
static bool may_repeat(const struct exchange *x)
{
	if (!retry_is_idempotent(x->stream.req.method))
		return false;
	return is_held_whole(x) || (x->attempt && x->attempt->body_is_kept && attempt_can_replay(x, CALL_RESET));
}

static bool has_next_address(const struct exchange *x)
{
	return x->lookup && x->lookup->tried + 1 < x->lookup->query.n;
}

/* For upstreams that want to know which try a request is. */
static void tell_attempt(struct exchange *x, struct message *head)
{
	unsigned n = x->attempt ? x->attempt->retries + 1 : 1;

	message_set(head, STR("x-envoy-attempt-count"), arena_printf(&x->arena, "%u", n));
}

/* The head, then what was kept of the body. */
static void resend(struct exchange *x)
{
	struct message *head = &x->stream.req;
	bool keep_alive = head->keep_alive, is_taken;

	head->keep_alive = true;
	x->call.trailers = NULL;
	is_taken = call_send(&x->call, head, (struct str){ NULL, 0 }, false);
	head->keep_alive = keep_alive;
	if (is_taken)
		attempt_replay(x);
}

/* The first bytes of the body, which stay where they may have to be sent once more. */
static struct str take_held(struct exchange *x)
{
	const struct str data = x->held;

	if (UNLIKELY(x->attempt && x->attempt->body_is_kept))
		return data;
	if (data.n > 0 && ((x->call.reused && may_repeat(x)) || (x->call.over_h2 && is_held_whole(x)) ||
			   has_next_address(x)))
		x->held = arena_copy(&x->arena, data);
	else
		x->held.n = 0;
	return data;
}

static void send_request(struct exchange *x)
{
	struct message *head = &x->stream.req;
	struct str data;
	bool end = x->held_end, keep_alive = head->keep_alive, is_taken;

	if (UNLIKELY(head->has_upgrade))
		tunnel_prepare(x);
	if (!end)
		stream_send_continue(&x->stream);
	if (UNLIKELY(x->site->gateway->tells_attempts))
		tell_attempt(x, head);
	if (UNLIKELY(x->attempt || x->retained))
		attempt_keep_body(x);
	if (UNLIKELY(x->attempt && attempt_begin_replay(x))) {
		resend(x);
		return;
	}
	if (UNLIKELY(x->body && x->body->is_whole)) {
		body_send(x);
		return;
	}
	data = take_held(x);
	if (end)
		x->call.trailers = head->trailers;
	/* The upstream's connection has a life of its own. */
	head->keep_alive = true;
	is_taken = call_send(&x->call, head, data, end);
	head->keep_alive = keep_alive;
	if (!is_taken) {
		if (!end)
			stream_pause(&x->stream);
	} else if (!end) {
		stream_resume(&x->stream);
	}
}

static void connect_to(struct exchange *x, struct addr to, bool fresh)
{
	const struct worker_settings *settings = worker_settings(x->worker);
	struct endpoint_cell *cell = x->endpoint->cell;
	struct call *c = &x->call;

	c->client = worker_client(x->worker);
	c->ops = &exchange_call_ops;
	c->arena = &x->arena;
	c->pool = &cell->pools[worker_index(x->worker)];
	c->pool_closed = &cell->retired;
	c->addr = to;
	c->method = x->stream.req.method;
	c->connect_timeout_ms = settings->connect_timeout_ms;
	c->idle_timeout_ms = settings->upstream_idle_ms;
	x->attempts++;
	x->call_open = true;
	if (!x->is_counted) {
		x->is_counted = true;
		atomic_fetch_add_explicit(&cell->active, 1, memory_order_relaxed);
	}
	c->is_tunnel = x->is_tcp;
	/* Many streams of one HTTP/2 client may get their answers at once, and its windows take none of them. */
	c->first_piece = x->stream.carrier ? FIRST_PIECE : 0;
	c->tls = NULL;
	if (UNLIKELY(x->endpoint->tls != NULL))
		upstream_secure(x, c);
	call_start(c, fresh || x->is_tcp);
	if (!c->reused && x->service->connects)
		metric_add(x->service->connects, 1);
	if (!x->is_tcp)
		send_request(x);
}

static void connect_to_name(struct exchange *x, bool fresh)
{
	const struct name_lookup *l = x->lookup;

	connect_to(x, addr_of_ip(&l->query.addresses[l->at], x->endpoint->port), fresh);
}

/*
 * A name may have addresses nobody listens at ("localhost"): the next one, when this one refused at once. False: none
 * is left.
 */
static bool try_next_address(struct exchange *x)
{
	struct name_lookup *l = x->lookup;

	if (!has_next_address(x) || x->call.error == ETIMEDOUT)
		return false;
	l->tried++;
	l->at = (l->at + 1) % l->query.n;
	x->call_open = false;
	connect_to_name(x, true);
	return true;
}

/* The last try met a connection that broke: others of the pool may be as dead. */
static bool wants_fresh(const struct exchange *x)
{
	return x->attempt && x->attempt->wants_fresh;
}

static void name_found(struct resolver_query *q)
{
	struct name_lookup *l = CONTAINER(q, struct name_lookup, query);
	struct exchange *x = l->x;
	unsigned same = 1;

	l->x = NULL;
	if (q->status != RESOLVER_OK) {
		if (x->attempt && attempt_goes_on(x, CALL_CONNECT))
			return;
		exchange_fail_upstream(x, REASON_NAME_LOOKUP);
		return;
	}
	/* Load is spread over the addresses of the first one's family; those of the other follow when these refuse. */
	while (same < q->n && ip_is_v4(&q->addresses[same]) == ip_is_v4(&q->addresses[0]))
		same++;
	l->at = worker_random(x->worker) % same;
	connect_to_name(x, wants_fresh(x));
}

static void look_up(struct exchange *x)
{
	struct name_lookup *l = NEW(&x->arena, struct name_lookup);

	l->x = x;
	l->query.done = name_found;
	list_init(&l->query.node);
	x->lookup = l;
	if (resolver_lookup(worker_resolver(x->worker), x->endpoint->host, &l->query))
		name_found(&l->query);
}

/* Over HTTP/2 connections that its requests share: by prior knowledge, or by ALPN. */
static bool speaks_h2(const struct exchange *x)
{
	return !x->is_tcp && (x->endpoint->protocol == UPSTREAM_HTTP2 || x->endpoint->protocol == UPSTREAM_GRPC);
}

void exchange_start_call(struct exchange *x)
{
	x->endpoint = balance_pick(x);
	if (!x->endpoint) {
		if (x->attempt && attempt_finds_none(x))
			return;
		exchange_reply_reason(x, 503, REASON_NO_ENDPOINT, "ErrNoUpstream");
		return;
	}
	if (UNLIKELY(x->endpoint->protocol == UPSTREAM_TCP && !x->is_tcp)) {
		exchange_reply_reason(x, 503, REASON_PROTOCOL, "ErrNoUpstream");
		return;
	}
	x->call.over_h2 = speaks_h2(x);
	if (!x->upstream_start_us)
		x->upstream_start_us = clock_us();
	if (UNLIKELY(x->attempt != NULL))
		attempt_start(x);
	if (x->endpoint->host.p)
		look_up(x);
	else
		connect_to(x, x->endpoint->addr, wants_fresh(x));
}

void exchange_end_try(struct exchange *x)
{
	if (x->lookup && x->lookup->x) {
		x->lookup->x = NULL;
		resolver_cancel(&x->lookup->query);
	}
	x->lookup = NULL;
	if (x->call_open) {
		x->call_open = false;
		call_cancel(&x->call);
		x->upstream_end_us = clock_us();
	}
	if (x->is_counted) {
		x->is_counted = false;
		atomic_fetch_sub_explicit(&x->endpoint->cell->active, 1, memory_order_relaxed);
	}
}

void exchange_end_call(struct exchange *x)
{
	exchange_end_try(x);
	if (UNLIKELY(x->attempt != NULL))
		attempt_end(x);
}

/* ---------- answers ---------- */

static void count_response(const struct service *s, const struct endpoint *e, int status)
{
	if (s->requests)
		metric_count_status(s->requests, status);
	health_report(s, e, status);
}

static void response(struct call *c, char *data, size_t n, bool end)
{
	struct exchange *x = of(c);

	x->upstream_head_us = clock_us();
	if (UNLIKELY(x->endpoint->tls_counts != NULL) && !c->reused)
		setting_count(x->endpoint->tls_counts, TLS_SECURED);
	count_response(x->service, x->endpoint, c->res.status);
	x->res = c->res;
	x->is_local = false;
	x->is_tunnel = c->is_tunnel;
	x->part = (struct str){ data, n };
	x->part_end = end;
	if (UNLIKELY(x->attempt != NULL) && attempt_refuses(x))
		return;
	if (x->service->seconds)
		metric_observe_us(x->service->seconds, x->upstream_head_us - x->upstream_start_us);
	if (!end && UNLIKELY(x->site->gateway->stream_idle_ms != c->idle_timeout_ms) && outcome_is_stream(x))
		call_set_idle(c, x->site->gateway->stream_idle_ms);
	if (end)
		exchange_end_call(x);
	exchange_begin_response(x);
	if (x->phase != EXCHANGE_RESPONSE)
		return;
	/*
	 * A step of the response leg waits: the bytes must outlive the receive buffer. Behind an answer of our own
	 * nobody wants them.
	 */
	if (x->is_local) {
		exchange_end_call(x);
		return;
	}
	if (x->hold && x->hold->is_reading)
		return;
	if (!x->hold)
		x->part = arena_copy(&x->arena, x->part);
	if (x->call_open)
		call_pause(c);
}

static void body(struct call *c, char *data, size_t n, bool end)
{
	struct exchange *x = of(c);

	if (UNLIKELY(x->hold != NULL)) {
		hold_take(x, (struct str){ data, n }, end);
		return;
	}
	if (end)
		x->stream.trailers = c->res.trailers;
	if (end && !x->is_tunnel) {
		exchange_end_call(x);
		/* What the data hooks make of the last piece belongs to the outcome. */
		if (!x->pieces)
			outcome_settle(x);
	}
	if (UNLIKELY(x->pieces != NULL)) {
		pieces_take(x, (struct str){ data, n }, end);
		return;
	}
	if (!stream_send(&x->stream, NULL, (struct str){ data, n }, end) && !end)
		call_pause(c);
}

static void drained(struct call *c)
{
	struct exchange *x = of(c);

	/* The first time of a TCP connection: the upstream is there. */
	if (x->is_tcp && x->phase == EXCHANGE_UPSTREAM) {
		x->phase = EXCHANGE_SENDING;
		health_report(x->service, x->endpoint, 200);
	}
	if (UNLIKELY(x->attempt && x->attempt->is_replaying))
		attempt_replay(x);
	else if (UNLIKELY(x->body && x->body->is_sending))
		body_send_more(x);
	else
		stream_resume(&x->stream);
}

static void interim(struct call *c)
{
	struct exchange *x = of(c);

	/* The client hears of this try: it is the last one. */
	if (x->attempt)
		attempt_settle(x);
	stream_send_interim(&x->stream, &c->res);
}

static enum reason_id reason_of(const struct call *c, enum call_failure what)
{
	switch (what) {
	case CALL_CONNECT:
		return REASON_CONNECT_FAILED;
	case CALL_RESET:
		return REASON_UPSTREAM_RESET;
	case CALL_TIMEOUT:
		return REASON_UPSTREAM_TIMEOUT;
	case CALL_MALFORMED:
		return REASON_UPSTREAM_MALFORMED;
	case CALL_TRUNCATED:
		break;
	}
	/* Chunks or trailers that are none: nobody closed anything. */
	return c->fault ? REASON_UPSTREAM_MALFORMED : REASON_UPSTREAM_TRUNCATED;
}

void exchange_fail_upstream(struct exchange *x, enum reason_id reason)
{
	if (x->phase == EXCHANGE_SENDING) {
		x->reason = reason;
		stream_abort(&x->stream);
		return;
	}
	pipeline_abort(x);
	switch (reason) {
	case REASON_UPSTREAM_TIMEOUT:
		exchange_reply_reason(x, 504, reason, "ErrUpstreamTimeout");
		return;
	case REASON_UPSTREAM_MALFORMED:
	case REASON_UPSTREAM_TRUNCATED:
		exchange_reply_reason(x, 502, reason, "ErrBadUpstream");
		return;
	default:
		exchange_reply_reason(x, 503, reason, "ErrUpstreamUnavailable");
		return;
	}
}

/* A stale connection, or one that refused the request untouched (RFC 9113 8.7). */
static bool is_worth_repeating(const struct exchange *x)
{
	const struct call *c = &x->call;

	/* A Retry policy that speaks of refused streams decides about them. */
	if (c->is_refused && x->attempt && x->attempt->retry && (x->attempt->retry->on & RETRY_ON_REFUSED))
		return false;
	if (c->is_refused)
		return is_held_whole(x) && x->attempts < REFUSALS_MAX;
	return c->reused && !c->response_started && may_repeat(x);
}

/* A try ended without an answer: endpoint, metrics and log hear of it. */
void exchange_report_try(struct exchange *x, enum call_failure what)
{
	const struct call *c = &x->call;

	if (!upstream_failed_for_name(x, c))
		health_report(x->service, x->endpoint, 0);
	if (x->service->failures[what])
		metric_add(x->service->failures[what], 1);
	if (c->tls_failure)
		setting_count(x->endpoint->tls_counts, TLS_REFUSED);
	log_warn("upstream.failed", F_STR("service", x->service->name), F_STR("endpoint", x->endpoint->text),
		 F_TEXT("reason", reasons[reason_of(c, what)].tag), F_INT("errno", c->error),
		 F_TEXT("fault", c->fault ? h1_fault_tag(c->fault) : ""),
		 F_STR("requestId", x->request_id));
}

void exchange_fail_try(struct exchange *x, enum call_failure what)
{
	const enum reason_id reason = reason_of(&x->call, what);

	exchange_end_try(x);
	exchange_report_try(x, what);
	x->call.fault = H1_FAULT_NONE;    /* another try has its own */
	if (UNLIKELY(x->attempt != NULL) && attempt_goes_on(x, what))
		return;
	exchange_end_call(x);
	exchange_fail_upstream(x, reason);
}

/*
 * The body broke before the head was told: where its status alone asks for another try, what follows it does not
 * matter.
 */
static bool refuses_head(struct exchange *x)
{
	const struct service *service = x->service;
	const struct endpoint *endpoint = x->endpoint;

	if (x->phase != EXCHANGE_UPSTREAM || x->call.res.status < 400)
		return false;
	x->res = x->call.res;
	x->part = (struct str){ NULL, 0 };
	x->part_end = false;
	if (!attempt_refuses(x))
		return false;
	count_response(service, endpoint, x->call.res.status);
	return true;
}

static void failed(struct call *c, enum call_failure what)
{
	struct exchange *x = of(c);
	const struct addr to = c->addr;

	if (what == CALL_RESET && is_worth_repeating(x)) {
		x->call_open = false;
		if (x->attempt)
			attempt_repeat(x);
		connect_to(x, to, true);
		return;
	}
	if (what == CALL_CONNECT && try_next_address(x))
		return;
	if (what == CALL_TRUNCATED && UNLIKELY(x->attempt != NULL) && refuses_head(x))
		return;
	if (x->is_tunnel && what != CALL_CONNECT) {
		tunnel_failed(x, what, c->error);
		return;
	}
	if (what == CALL_MALFORMED && c->error == EPROTONOSUPPORT) {
		tunnel_refused(x);
		return;
	}
	exchange_fail_try(x, what);
}

const struct call_ops exchange_call_ops = {
	.response = response,
	.interim = interim,
	.body = body,
	.drained = drained,
	.failed = failed,
};
