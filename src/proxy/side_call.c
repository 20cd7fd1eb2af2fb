#include "proxy/side_call.h"
#include <errno.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/metric.h"
#include "proxy/exchange.h"
#include "proxy/side_address.h"
#include "proxy/side_parts.h"
#include "proxy/upstream_tls.h"
#include "proxy/worker.h"

#define POOL_CALLS_MAX 1024               /* calls at a time to one address, of one kind and worker */
#define IDLE_MAX 32                       /* connections kept of one pool */
#define DRAIN_BYTES 65536                 /* of an unwanted body that are read so that the connection can be kept */
#define DROP_BYTES (1 << 20)              /* the same where the owner waits for the end (drops_body) */

const char *const side_kind_names[SIDE_KIND_COUNT] = {
#define SIDE_KIND_NAME(id, text) [SIDE_##id] = text,
	SIDE_KINDS(SIDE_KIND_NAME)
#undef SIDE_KIND_NAME
};

static const struct {
	const char *tag, *text;
} failures[SIDE_FAILURE_COUNT] = {
#define SIDE_FAILURE_ROW(id, tag, text) [SIDE_##id] = { tag, text },
	SIDE_FAILURES(SIDE_FAILURE_ROW)
#undef SIDE_FAILURE_ROW
};

const char *side_failure_tag(enum side_failure f)
{
	return failures[f].tag;
}

struct str side_call_describe(const struct side_call *c, struct arena *a)
{
	char text[128];

	if (c->failure == SIDE_ANSWERED)
		return arena_printf(a, "it answered %d", c->res.status);
	if (c->detail)
		return arena_printf(a, "%s: %s", side_failure_text(c->failure), c->detail);
	if (c->error)
		return arena_printf(a, "%s: %s", side_failure_text(c->failure),
				    strerror_r(c->error, text, sizeof text));
	return str_of(side_failure_text(c->failure));
}

const char *side_failure_text(enum side_failure f)
{
	return failures[f].text;
}

static struct {
	struct series *results[SIDE_KIND_COUNT][SIDE_FAILURE_COUNT];
	struct series *in_flight[SIDE_KIND_COUNT];
} metrics;

void side_call_metrics(void)
{
	for (unsigned kind = 0; kind < SIDE_KIND_COUNT; kind++) {
		struct str labels[] = { str_of(side_kind_names[kind]), { NULL, 0 } };

		metrics.in_flight[kind] = metric_series(METRIC_SIDE_CALLS_ACTIVE, labels);
		for (unsigned f = 0; f < SIDE_FAILURE_COUNT; f++) {
			labels[1] = str_of(failures[f].tag);
			metrics.results[kind][f] = metric_series(METRIC_SIDE_CALLS, labels);
		}
	}
}

static struct side *of(struct side_call *c)
{
	return CONTAINER(c, struct side, call);
}

static struct side *of_http(struct call *c)
{
	return CONTAINER(c, struct side, http);
}

static struct loop *loop_of(const struct side *s)
{
	return worker_loop(s->all->worker);
}

/* ---------- the end ---------- */

/* Nothing is under way any more: neither connection nor lookup nor timer. */
static void leave(struct side *s)
{
	resolver_cancel(&s->query);
	timer_disarm(&s->deadline);
	if (s->is_open) {
		s->is_open = false;
		call_cancel(&s->http);
	}
	if (s->pool) {
		s->pool->in_flight--;
		s->pool = NULL;
	}
	if (s->reader.of) {
		retain_drop(s->reader.of);
		s->reader.of = NULL;
	}
}

static void count(struct side *s)
{
	s->call.duration_us = clock_us() - s->start_us;
	metric_add(metrics.in_flight[s->kind], -1);
	metric_add(metrics.results[s->kind][s->call.failure], 1);
}

static void tell(struct side *s)
{
	s->done(&s->call);
}

static void finish(struct side *s, enum side_failure failure)
{
	if (s->is_over)
		return;
	s->is_over = true;
	s->call.failure = failure;
	s->call.body = sbuf_str(&s->text);
	count(s);
	list_remove(&s->task.node);
	if (!s->is_draining)
		leave(s);
	if (s->done) {
		s->step = tell;
		loop_defer(loop_of(s), &s->task);
	} else {
		wait_done(&s->call.wait);
	}
}

static void cancel(struct wait *w)
{
	struct side *s = of(CONTAINER(w, struct side_call, wait));

	list_remove(&s->task.node);
	leave(s);
	if (s->is_started && !s->is_over) {
		s->is_over = true;
		s->call.failure = SIDE_CANCELLED;
		count(s);
	}
}

static void out_of_time(struct timer *t)
{
	struct side *s = CONTAINER(t, struct side, deadline);

	if (s->is_over) {
		leave(s);                  /* the end of an unwanted body took too long */
		return;
	}
	s->call.error = ETIMEDOUT;
	finish(s, SIDE_TIMEOUT);
}

/* ---------- sending ---------- */

/* What is left of the body, as far as the connection takes it. */
static void send_body(struct side *s)
{
	for (;;) {
		struct str piece = retain_read(&s->reader);
		struct retain_reader rest = s->reader;
		bool end = retain_read(&rest).n == 0;

		if (!call_send(&s->http, NULL, piece, end) || end)
			return;
	}
}

static void send_request(struct side *s)
{
	const struct retained *kept = s->reader.of;

	if (!kept || kept->n == 0) {
		call_send(&s->http, &s->head, s->body, true);
		return;
	}
	s->reader = (struct retain_reader){ .of = s->reader.of };
	if (call_send(&s->http, &s->head, (struct str){ NULL, 0 }, false))
		send_body(s);
}

static void drained(struct call *c)
{
	struct side *s = of_http(c);

	if (s->is_open && !c->request_done)
		send_body(s);
}

/* ---------- connecting ---------- */

static void connect_to(struct side *s, struct addr to, bool fresh);
static const struct call_ops side_ops;

static void secure(struct side *s)
{
	struct ip literal;

	if (s->endpoint) {
		upstream_secure_call(&s->http, s->endpoint, s->tls_host);
	} else if (s->url.is_https) {
		s->http.tls = tls_client_default();
		if (!ip_parse(s->url.host, &literal))
			s->http.server_name = s->url.host;
	}
}

static void connect_to(struct side *s, struct addr to, bool fresh)
{
	struct worker *w = s->all->worker;
	struct call *c = &s->http;

	if (s->pool)
		s->pool->in_flight--;
	s->pool = side_pool_get(s->all, s->kind, &to);
	s->pool->pool.most_idle = IDLE_MAX;
	if (s->pool->in_flight++ >= POOL_CALLS_MAX) {
		finish(s, SIDE_BUSY);
		return;
	}
	*c = (struct call){
		.client = worker_client(w), .ops = &side_ops, .arena = &s->arena, .pool = &s->pool->pool, .addr = to,
		.method = s->head.method, .over_h2 = s->over_h2,
	};
	c->pool_closed = s->endpoint ? &s->endpoint->cell->retired : NULL;
	c->connect_timeout_ms = worker_settings(w)->connect_timeout_ms;
	c->idle_timeout_ms = s->timeout_ms;
	secure(s);
	s->is_open = true;
	call_start(c, fresh);
	send_request(s);
}

/* The address at s->at or, where it may not be called, one after it. */
static void connect_to_name(struct side *s, bool fresh)
{
	uint16_t port = s->endpoint ? s->endpoint->port : s->url.port;

	for (; s->tried < s->query.n; s->tried++, s->at = (s->at + 1) % s->query.n) {
		struct addr to = addr_of_ip(&s->query.addresses[s->at], port);

		if (s->endpoint || side_address_may_call(&to)) {
			connect_to(s, to, fresh);
			return;
		}
		s->saw_blocked = true;
	}
	finish(s, s->saw_blocked ? SIDE_BLOCKED : SIDE_CONNECT);
}

static void name_found(struct resolver_query *q)
{
	struct side *s = CONTAINER(q, struct side, query);
	unsigned same = 1;

	if (q->status != RESOLVER_OK) {
		finish(s, SIDE_NAME);
		return;
	}
	/* Load is spread over the addresses of the first one's family. */
	while (same < q->n && ip_is_v4(&q->addresses[same]) == ip_is_v4(&q->addresses[0]))
		same++;
	s->at = worker_random(s->all->worker) % same;
	s->tried = 0;
	connect_to_name(s, false);
}

static void look_up(struct side *s)
{
	struct str host = s->endpoint ? s->endpoint->host : s->url.host;

	s->saw_blocked = false;
	if (s->endpoint && !host.p) {
		connect_to(s, s->endpoint->addr, false);
		return;
	}
	if (resolver_lookup(worker_resolver(s->all->worker), host, &s->query))
		name_found(&s->query);
}

/* ---------- answers ---------- */

/* More of the body; false: it is too much, and the call is over. */
static bool keep(struct side *s, const char *data, size_t n)
{
	if (n > s->body_max - s->text.n) {
		finish(s, SIDE_LARGE);
		return false;
	}
	size_t before = s->text.cap;
	sbuf_add(&s->text, (struct str){ data, n });
	budget_add((int64_t)(s->text.cap - before));
	return true;
}

/* Of a body that nobody wants: the connection is free again behind it, unless it is long. */
static void discard(struct side *s, size_t n, bool end)
{
	s->drained += n;
	if (end || s->drained > DRAIN_BYTES)
		leave(s);
}

/* Of a body that is read for the connection's sake: reading more than that costs more than a new connection. */
static void drop(struct side *s, size_t n, bool end)
{
	s->drained += n;
	if (end || s->drained > DROP_BYTES)
		finish(s, SIDE_ANSWERED);
}

static void take(struct side *s, const char *data, size_t n, bool end)
{
	if (s->is_draining)
		discard(s, n, end);
	else if (s->drops_body)
		drop(s, n, end);
	else if (keep(s, data, n) && end)
		finish(s, SIDE_ANSWERED);
}

static void follow(struct side *s)
{
	if (s->is_open) {
		s->is_open = false;
		call_cancel(&s->http);
	}
	s->is_repeated = false;
	if (side_redirect(s))
		look_up(s);
	else
		finish(s, SIDE_REDIRECT);
}

static void response(struct call *c, char *data, size_t n, bool end)
{
	struct side *s = of_http(c);

	if (end)
		s->is_open = false;
	if (s->may_redirect && side_is_redirect(&c->res)) {
		if (s->is_open)
			call_pause(c);
		s->step = follow;
		loop_defer(loop_of(s), &s->task);
		return;
	}
	s->call.res = c->res;
	if (s->wants_body && !s->wants_body(&c->res)) {
		s->is_draining = true;
		finish(s, SIDE_ANSWERED);
		discard(s, n, end);
		return;
	}
	if (!s->drops_body && c->res.framing == FRAMING_LENGTH && c->res.content_length > s->body_max &&
	    c->method != METHOD_HEAD)
		finish(s, SIDE_LARGE);
	else
		take(s, data, n, end);
}

static void body(struct call *c, char *data, size_t n, bool end)
{
	struct side *s = of_http(c);

	if (end)
		s->is_open = false;
	take(s, data, n, end);
}

static bool may_repeat(const struct side *s)
{
	switch (s->head.method) {
	case METHOD_GET:
	case METHOD_HEAD:
	case METHOD_OPTIONS:
	case METHOD_TRACE:
	case METHOD_PUT:
	case METHOD_DELETE:
		return true;
	default:
		return s->may_repeat;
	}
}

static enum side_failure failure_of(const struct call *c, enum call_failure what)
{
	switch (what) {
	case CALL_CONNECT:
		if (c->tls_failure)
			return SIDE_TLS;
		return c->error == ETIMEDOUT ? SIDE_TIMEOUT : SIDE_CONNECT;
	case CALL_RESET:
	case CALL_TRUNCATED:
		return SIDE_RESET;
	case CALL_TIMEOUT:
		return SIDE_TIMEOUT;
	case CALL_MALFORMED:
		break;
	}
	return SIDE_MALFORMED;
}

static void failed(struct call *c, enum call_failure what)
{
	struct side *s = of_http(c);

	s->is_open = false;
	if (s->is_over) {
		leave(s);                  /* within a body that nobody wanted */
		return;
	}
	if (what == CALL_RESET && (c->reused || c->is_refused) && !c->response_started && !s->is_repeated &&
	    (c->is_refused || may_repeat(s))) {
		s->is_repeated = true;
		connect_to(s, c->addr, true);
		return;
	}
	if (what == CALL_CONNECT && s->query.n > s->tried + 1 && c->error != ETIMEDOUT) {
		s->tried++;
		s->at = (s->at + 1) % s->query.n;
		connect_to_name(s, true);
		return;
	}
	s->call.error = c->error;
	s->call.detail = c->tls_failure ? c->tls_text : NULL;
	/* Of a name with several addresses the one that counts may have been passed over. */
	finish(s, what == CALL_CONNECT && s->saw_blocked ? SIDE_BLOCKED : failure_of(c, what));
}

static const struct call_ops side_ops = { .response = response, .body = body, .drained = drained, .failed = failed };

/* ---------- life ---------- */

static void run_step(struct task *t)
{
	struct side *s = CONTAINER(t, struct side, task);

	s->step(s);
}

static struct side *make(struct worker *w)
{
	struct side *s = MEM_NEW(struct side);

	s->all = worker_side_calls(w);
	s->call.wait.cancel = cancel;
	s->query.done = name_found;
	list_init(&s->query.node);
	list_append(&s->all->calls, &s->node);
	task_init(&s->task, run_step);
	timer_init(&s->deadline, out_of_time);
	return s;
}

static void pin(struct side *s, struct view *view)
{
	view->exchanges++;
	s->view = view;
}

static void unpin(struct side *s)
{
	struct worker *w = s->all->worker;

	if (!s->view)
		return;
	s->view->exchanges--;
	snapshot_unpin(s->view, worker_view(w), worker_mailbox(w));
}

static void destroy(struct side *s)
{
	cancel(&s->call.wait);
	unpin(s);
	list_remove(&s->node);
	arena_free(&s->arena);
	budget_add(-(int64_t)s->text.cap);
	sbuf_free(&s->text);
	mem_free(s);
}

static void end_with_exchange(struct arena_defer *d)
{
	destroy(CONTAINER(d, struct side, defer));
}

struct side_call *side_call_for(struct exchange *x)
{
	struct side *s = make(x->worker);

	s->x = x;
	arena_defer(&x->arena, &s->defer, end_with_exchange);
	return &s->call;
}

struct side_call *side_call_new(struct worker *w, void (*done)(struct side_call *c), void *arg)
{
	struct side *s = make(w);

	s->done = done;
	s->call.arg = arg;
	return &s->call;
}

void *side_call_memory(struct side_call *c, size_t size)
{
	return arena_alloc(&of(c)->arena, size);
}

void side_call_free(struct side_call *c)
{
	BUG_ON(of(c)->x);
	destroy(of(c));
}

static bool pick_endpoint(struct side *s, const struct side_request *r)
{
	struct worker *w = s->all->worker;
	struct view *view = r->view ? r->view : s->x ? s->x->view : worker_view(w);
	const struct service *service = NULL;

	if (!s->x)
		pin(s, view);
	s->endpoint = r->endpoint ? r->endpoint : side_pick(w, view->snapshot, r, &service);
	if (!s->endpoint)
		return false;
	if (service)
		s->over_h2 = service->protocol == UPSTREAM_HTTP2 || service->protocol == UPSTREAM_GRPC;
	if (!s->head.authority.n)
		s->head.authority = s->endpoint->text;
	return true;
}

void side_call_start(struct side_call *c, const struct side_request *r)
{
	struct side *s = of(c);

	BUG_ON(s->is_started || r->timeout_ms <= 0);
	s->is_started = true;
	s->start_us = clock_us();
	s->kind = r->kind;
	s->may_redirect = r->redirects_max > 0;
	metric_add(metrics.in_flight[s->kind], 1);
	if (!side_prepare(s, r)) {
		finish(s, c->failure);
		return;
	}
	if (!r->url.n && !pick_endpoint(s, r)) {
		finish(s, SIDE_SERVICE);
		return;
	}
	loop_arm(loop_of(s), &s->deadline, s->timeout_ms);
	look_up(s);
}

struct worker *exchange_worker(struct exchange *x)
{
	return x->worker;
}

/* ---------- the worker's ---------- */

struct side_calls *side_calls_new(struct worker *w)
{
	struct side_calls *all = MEM_NEW(struct side_calls);

	all->worker = w;
	list_init(&all->calls);
	list_init(&all->pools);
	return all;
}

void side_calls_free(struct side_calls *all)
{
	LIST_EACH(node, &all->calls)
		destroy(CONTAINER(node, struct side, node));
	side_pools_close(all);
	mem_free(all);
}
