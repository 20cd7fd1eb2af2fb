#include "proxy/health.h"
#include <errno.h>
#include <stdatomic.h>
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/metric.h"
#include "proxy/exchange.h"
#include "proxy/grpc.h"
#include "proxy/upstream_tls.h"
#include "proxy/rotation.h"
#include "proxy/worker.h"

#define ANSWER_BYTES 256                 /* of a GRPC check, frame included; the message that says all is 7 bytes */
#define EJECTIONS_MAX 10                 /* the time out of use grows up to so many times the base */

/* ---------- outlier detection ---------- */

/*
 * Whether one more endpoint may go: at most max_ejection_percent of the service's, but where that is less than one of
 * several, one. The only endpoint goes at 100 percent only.
 */
static bool may_eject(const struct service *s, int64_t now_ms)
{
	unsigned ejected = 0, percent = s->outlier.max_ejection_percent;

	for (unsigned i = 0; i < s->n_endpoints; i++)
		ejected += atomic_load_explicit(&s->endpoints[i].cell->ejected_until_ms, memory_order_relaxed) > now_ms;
	if ((ejected + 1) * 100 <= percent * s->n_endpoints)
		return true;
	return ejected == 0 && percent > 0 && s->n_endpoints > 1;
}

/* How often in a row it was ejected, this time included; each interval without an ejection makes up for one. */
static unsigned count_ejection(const struct service *s, struct endpoint_cell *cell, int64_t idle_ms)
{
	unsigned times = atomic_load_explicit(&cell->ejections, memory_order_relaxed);
	int64_t forgiven = s->outlier.interval_ms > 0 ? idle_ms / s->outlier.interval_ms : 0;

	times = forgiven < times ? times - (unsigned)forgiven + 1 : 1;
	times = times < EJECTIONS_MAX ? times : EJECTIONS_MAX;
	atomic_store_explicit(&cell->ejections, times, memory_order_relaxed);
	return times;
}

static void put_out(const struct service *s, const struct endpoint *e, int64_t now_ms)
{
	struct endpoint_cell *cell = e->cell;
	int64_t until_ms = atomic_load_explicit(&cell->ejected_until_ms, memory_order_relaxed), length_ms;

	/* Failures of requests that were under way when it was ejected say nothing new. */
	if (until_ms > now_ms || !may_eject(s, now_ms))
		return;
	length_ms = s->outlier.base_ejection_ms * count_ejection(s, cell, now_ms - until_ms);
	atomic_store_explicit(&cell->ejected_until_ms, now_ms + length_ms, memory_order_relaxed);
	atomic_store_explicit(&cell->consecutive_5xx, 0, memory_order_relaxed);
	if (cell->ejected_series)
		metric_add(cell->ejected_series, 1);
	log_warn("endpoint.ejected", F_STR("service", s->name), F_STR("endpoint", e->text), F_INT("forMs", length_ms));
}

/*
 * One worker ejects at a time, so that no two of them, each for an endpoint of its own, exceed the share. Who finds the
 * other at it leaves it: the next failure will say the same again.
 */
static void eject(const struct service *s, const struct endpoint *e)
{
	struct rotation *r = s->rotation;

	if (r && atomic_flag_test_and_set_explicit(&r->is_ejecting, memory_order_acquire))
		return;
	put_out(s, e, clock_ms());
	if (r)
		atomic_flag_clear_explicit(&r->is_ejecting, memory_order_release);
}

void health_report(const struct service *s, const struct endpoint *e, int status)
{
	struct endpoint_cell *cell = e->cell;

	if (!s->outlier.enable)
		return;
	if (status > 0 && status < 500) {
		if (atomic_load_explicit(&cell->consecutive_5xx, memory_order_relaxed) != 0)
			atomic_store_explicit(&cell->consecutive_5xx, 0, memory_order_relaxed);
		return;
	}
	if (atomic_fetch_add_explicit(&cell->consecutive_5xx, 1, memory_order_relaxed) + 1 >=
	    s->outlier.consecutive_5xx)
		eject(s, e);
}

/* ---------- active checks ---------- */

struct probe {
	struct call call;
	struct arena arena;
	struct timer timer;               /* next probe, or the limit of the one under way */
	struct garbage garbage;
	struct list node;
	struct prober *prober;
	struct endpoint_cell *cell;       /* alive while the probe is: retired ones are dropped on adoption */
	struct resolver_query query;
	unsigned at;                      /* address of the name being tried */
	struct health_check check;        /* texts in `texts` */
	struct arena texts;
	struct str service, endpoint, host_name;
	struct addr addr;
	uint16_t port;
	const struct tls_client *tls;     /* of the snapshot that was adopted last; NULL: in the clear */
	char answer[ANSWER_BYTES];        /* of a GRPC check */
	size_t answer_n;
	bool over_h2;
	bool is_running;                  /* a lookup or a call is under way */
	bool is_seen;
};

struct prober {
	struct worker *worker;
	struct list probes;
	const struct pmap *services;      /* of the last adoption */
};

struct prober *prober_new(struct worker *w)
{
	struct prober *p = MEM_NEW(struct prober);

	p->worker = w;
	list_init(&p->probes);
	return p;
}

static void release(struct garbage *g)
{
	mem_free(CONTAINER(g, struct probe, garbage));
}

/* Ends the probe under way, if any, without a verdict. */
static void stop(struct probe *b)
{
	resolver_cancel(&b->query);
	if (b->is_running)
		call_cancel(&b->call);
	b->is_running = false;
}

static void drop(struct probe *b)
{
	stop(b);
	timer_disarm(&b->timer);
	list_remove(&b->node);
	arena_free(&b->arena);
	arena_free(&b->texts);
	loop_free_later(worker_loop(b->prober->worker), &b->garbage);
}

void prober_free(struct prober *p)
{
	LIST_EACH(node, &p->probes)
		drop(CONTAINER(node, struct probe, node));
	mem_free(p);
}

static void change(struct probe *b, bool is_healthy)
{
	struct endpoint_cell *cell = b->cell;

	/* One that comes back begins small where ServiceLb says so. */
	if (is_healthy)
		atomic_store_explicit(&cell->warm_from_ms, clock_ms(), memory_order_relaxed);
	atomic_store_explicit(&cell->unhealthy, !is_healthy, memory_order_relaxed);
	if (cell->healthy_series)
		metric_set(cell->healthy_series, is_healthy);
	log_info(is_healthy ? "endpoint.healthy" : "endpoint.unhealthy", F_STR("service", b->service),
		 F_STR("endpoint", b->endpoint));
}

static void conclude(struct probe *b, bool is_good)
{
	struct endpoint_cell *cell = b->cell;
	bool is_unhealthy = atomic_load_explicit(&cell->unhealthy, memory_order_relaxed);

	b->is_running = false;
	cell->successes = is_good ? cell->successes + 1 : 0;
	cell->failures = is_good ? 0 : cell->failures + 1;
	if (is_unhealthy && cell->successes >= b->check.healthy_threshold)
		change(b, true);
	else if (!is_unhealthy && cell->failures >= b->check.unhealthy_threshold)
		change(b, false);
	loop_arm(worker_loop(b->prober->worker), &b->timer, b->check.interval_ms);
}

static struct probe *of(struct call *c)
{
	return CONTAINER(c, struct probe, call);
}

/* grpc-status stands in the trailers, or in the head of an answer without a message. */
static bool is_serving(const struct probe *b)
{
	const struct message *res = &b->call.res;
	struct str status = message_value(res->trailers ? res->trailers : res, HEADER_GRPC_STATUS);

	return str_equal(status, STR("0")) && grpc_health_is_serving((struct str){ b->answer, b->answer_n });
}

static void body(struct call *c, char *data, size_t n, bool end)
{
	struct probe *b = of(c);

	if (n > ANSWER_BYTES - b->answer_n) {
		if (!end)
			call_cancel(c);
		conclude(b, false);
		return;
	}
	if (n > 0)
		memcpy(b->answer + b->answer_n, data, n);
	b->answer_n += n;
	if (end)
		conclude(b, is_serving(b));
}

static void response(struct call *c, char *data, size_t n, bool end)
{
	struct probe *b = of(c);
	int status = c->res.status;

	if (b->check.protocol == HEALTH_GRPC && status == 200) {
		body(c, data, n, end);
		return;
	}
	if (!end)
		call_cancel(c);
	conclude(b, b->check.protocol == HEALTH_HTTP && status >= 200 && status < 400);
}

/* For TCP checks: the connection is there, nothing is sent. */
static void connected(struct call *c)
{
	struct probe *b = of(c);

	if (b->check.protocol != HEALTH_TCP)
		return;
	call_cancel(c);
	conclude(b, true);
}

static void call_endpoint(struct probe *b, struct addr to);

static void failed(struct call *c, enum call_failure what)
{
	struct probe *b = of(c);

	/* Like requests: the next address of a name when one refuses at once. */
	if (what == CALL_CONNECT && b->host_name.p && c->error != ETIMEDOUT && ++b->at < b->query.n)
		call_endpoint(b, addr_of_ip(&b->query.addresses[b->at], b->port));
	else
		conclude(b, false);
}

static const struct call_ops probe_ops = { .response = response, .body = body, .drained = connected, .failed = failed };

static void ask(struct probe *b)
{
	struct message head = { .arena = &b->arena, .method = METHOD_GET, .method_name = STR("GET"), .minor = 1 };
	struct str question = { NULL, 0 };

	head.path = b->check.path;
	head.authority = b->check.host.n ? b->check.host : b->endpoint;
	message_add_id(&head, HEADER_USER_AGENT, STR("sluice-health-check"));
	if (b->check.protocol == HEALTH_GRPC) {
		head.method = METHOD_POST;
		head.method_name = STR("POST");
		head.path = STR("/grpc.health.v1.Health/Check");
		head.framing = FRAMING_CHUNKED;
		head.wants_trailers = true;
		message_add_id(&head, HEADER_CONTENT_TYPE, STR("application/grpc"));
		question = grpc_health_request(&b->arena, (struct str){ b->check.path.p + 1, b->check.path.n - 1 });
	}
	b->answer_n = 0;
	b->call.method = head.method;
	call_send(&b->call, &head, question, true);
}

static void call_endpoint(struct probe *b, struct addr to)
{
	struct call *c = &b->call;

	arena_free(&b->arena);
	*c = (struct call){
		.client = worker_client(b->prober->worker), .ops = &probe_ops, .arena = &b->arena, .addr = to
	};
	c->connect_timeout_ms = c->idle_timeout_ms = b->check.timeout_ms;
	c->is_tunnel = b->check.protocol == HEALTH_TCP;
	c->over_h2 = b->over_h2;
	upstream_secure_probe(c, b->tls, b->check.host, b->host_name);
	call_start(c, true);
	if (b->check.protocol != HEALTH_TCP)
		ask(b);
}

static void name_found(struct resolver_query *q)
{
	struct probe *b = CONTAINER(q, struct probe, query);

	b->at = 0;
	if (q->status == RESOLVER_OK)
		call_endpoint(b, addr_of_ip(&q->addresses[0], b->port));
	else
		conclude(b, false);
}

static void due(struct timer *t)
{
	struct probe *b = CONTAINER(t, struct probe, timer);

	if (b->is_running) {
		/* The whole probe took longer than its time, however busy the connection was. */
		stop(b);
		conclude(b, false);
		return;
	}
	b->is_running = true;
	loop_arm(worker_loop(b->prober->worker), t, b->check.timeout_ms);
	if (!b->host_name.p)
		call_endpoint(b, b->addr);
	else if (resolver_lookup(worker_resolver(b->prober->worker), b->host_name, &b->query))
		name_found(&b->query);
}

/* ---------- which endpoints are probed ---------- */

/* Whether a probe's check is still the configured one. */
static bool same_check(const struct health_check *a, const struct health_check *b)
{
	struct str b_path = b->path.n ? b->path : STR("/");

	return a->protocol == b->protocol && a->interval_ms == b->interval_ms && a->timeout_ms == b->timeout_ms &&
	       a->healthy_threshold == b->healthy_threshold && a->unhealthy_threshold == b->unhealthy_threshold &&
	       str_equal(a->path, b_path) && str_equal(a->host, b->host);
}

static struct probe *find(struct prober *p, const struct endpoint_cell *cell)
{
	LIST_EACH(node, &p->probes) {
		struct probe *b = CONTAINER(node, struct probe, node);

		if (b->cell == cell)
			return b;
	}
	return NULL;
}

static bool asks_over_h2(const struct health_check *check, const struct endpoint *e)
{
	return check->protocol == HEALTH_GRPC ||
	       (check->protocol == HEALTH_HTTP && (e->protocol == UPSTREAM_HTTP2 || e->protocol == UPSTREAM_GRPC));
}

static void set_check(struct probe *b, const struct service *s, const struct endpoint *e)
{
	arena_free(&b->texts);
	b->check = s->health;
	b->check.path = arena_copy(&b->texts, s->health.path.n ? s->health.path : STR("/"));
	b->check.host = arena_copy(&b->texts, s->health.host);
	b->service = arena_copy(&b->texts, s->name);
	b->endpoint = arena_copy(&b->texts, e->text);
	b->host_name = e->host.p ? arena_copy(&b->texts, e->host) : (struct str){ 0 };
	b->addr = e->addr;
	b->port = e->port;
	b->tls = e->tls;
	b->over_h2 = asks_over_h2(&s->health, e);
}

static void want(struct prober *p, const struct service *s, const struct endpoint *e)
{
	struct probe *b = find(p, e->cell);

	if (!b) {
		b = MEM_NEW(struct probe);
		b->prober = p;
		b->cell = e->cell;
		b->garbage.release = release;
		b->query.done = name_found;
		list_init(&b->query.node);
		timer_init(&b->timer, due);
		list_append(&p->probes, &b->node);
		set_check(b, s, e);
		loop_arm(worker_loop(p->worker), &b->timer, 0);
	} else if (!same_check(&b->check, &s->health) || b->tls != e->tls ||
		   b->over_h2 != asks_over_h2(&s->health, e)) {
		stop(b);
		set_check(b, s, e);
		loop_arm(worker_loop(p->worker), &b->timer, 0);
	}
	b->is_seen = true;
}

static bool want_service(void *arg, struct str key, struct part *value)
{
	const struct service *s = CONTAINER(value, struct service, part);

	(void)key;
	for (unsigned i = 0; s->health.enable && i < s->n_endpoints; i++)
		want(arg, s, &s->endpoints[i]);
	return true;
}

void prober_adopt(struct prober *p, const struct snapshot *s)
{
	if (p->services == s->services)
		return;
	p->services = s->services;
	pmap_each(s->services, want_service, p);
	LIST_EACH(node, &p->probes) {
		struct probe *b = CONTAINER(node, struct probe, node);

		if (!b->is_seen) {
			/* No longer checked: it counts as healthy until traffic says otherwise. */
			if (atomic_load_explicit(&b->cell->unhealthy, memory_order_relaxed))
				change(b, true);
			b->cell->successes = b->cell->failures = 0;
			drop(b);
			continue;
		}
		b->is_seen = false;
	}
}
