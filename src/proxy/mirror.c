#include "proxy/mirror.h"
#include <stdatomic.h>
#include "core/budget.h"
#include "proxy/exchange.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

#define COPY_TIME_MS 30000                /* the longest a copy may take */

/* ---------- the copy ---------- */

struct copy {
	atomic_int *under_way;            /* the service's; alive while the call is */
};

static void over(struct side_call *c)
{
	const struct copy *copy = c->arg;

	atomic_fetch_sub_explicit(copy->under_way, 1, memory_order_relaxed);
	side_call_free(c);
}

/* "a.com:8080" becomes "a.com-shadow:8080", "[::1]:80" becomes "[::1]-shadow:80". */
static struct str shadow(struct exchange *x, struct str authority)
{
	size_t n = authority.n;

	if (n == 0)
		return authority;
	while (n > 0 && authority.p[n - 1] >= '0' && authority.p[n - 1] <= '9')
		n--;
	if (n == 0 || authority.p[n - 1] != ':')
		n = authority.n;
	else
		n--;
	return arena_printf(&x->arena, "%.*s-shadow%.*s", (int)n, authority.p, (int)(authority.n - n), authority.p + n);
}

/* The endpoint that the target's ServiceLb would give this request; what the request itself is about stays as it is. */
static const struct endpoint *pick(struct exchange *x, const struct service *s, const struct target *t)
{
	const struct service *service = x->service;
	const struct target *target = x->target;
	struct str set_cookie = x->set_cookie;
	unsigned n_tried = x->n_tried;
	const struct endpoint *e;

	x->service = s;
	x->target = t;
	x->n_tried = 0;
	e = balance_pick(x);
	x->service = service;
	x->target = target;
	x->n_tried = n_tried;
	x->set_cookie = set_cookie;
	return e;
}

static int64_t time_limit_ms(const struct exchange *x)
{
	const struct settings *s = &x->route->policies->settings;

	return s->has_timeout && s->timeout_ms > 0 && s->timeout_ms < COPY_TIME_MS ? s->timeout_ms : COPY_TIME_MS;
}

static void send_copy(struct exchange *x, const struct service *s, const struct endpoint *e)
{
	copy_shape *shape = x->shape_copy ? x->shape_copy : s->shape_copy;
	struct message shaped = x->stream.req;
	const struct message *req = &shaped;
	struct side_call *call = side_call_new(x->worker, over, NULL);
	struct copy *copy = side_call_memory(call, sizeof *copy);
	struct side_request request = { .kind = SIDE_COPY, .endpoint = e, .view = x->view, .drops_body = true,
					.timeout_ms = time_limit_ms(x) };

	if (shape && shape(x, s, &shaped))
		request.authority = req->authority;
	else
		request.authority = shadow(x, req->authority);
	request.method = req->method_name;
	request.tls_host = req->authority;
	request.headers = req->headers;
	request.n_headers = req->n;
	request.says_length = req->framing != FRAMING_NONE;
	request.target = req->path;
	if (req->query.p)
		request.target = arena_printf(&x->arena, "%.*s?%.*s", STR_FMT(req->path), STR_FMT(req->query));
	if (x->retained && x->retained->n > 0)
		request.retained = x->retained;
	copy->under_way = s->copies;
	call->arg = copy;
	side_call_start(call, &request);
}

static enum mirror_result start(struct mirror *m)
{
	struct exchange *x = m->x;
	struct part *part = pmap_get_hashed(x->view->snapshot->services, m->target->service_id, m->target->hash);
	struct service *s = part ? CONTAINER(part, struct service, part) : NULL;
	const struct endpoint *e = s ? pick(x, s, m->target) : NULL;

	if (!e || !s->copies)
		return MIRROR_NO_TARGET;
	if (budget_is_tight())
		return MIRROR_TOO_MANY;
	if (atomic_fetch_add_explicit(s->copies, 1, memory_order_relaxed) >= MIRROR_COPIES_MAX) {
		atomic_fetch_sub_explicit(s->copies, 1, memory_order_relaxed);
		return MIRROR_TOO_MANY;
	}
	send_copy(x, s, e);
	return MIRROR_STARTED;
}

/* ---------- when ---------- */

static void settle(struct mirror *m, enum mirror_result r)
{
	list_remove(&m->watch.node);
	list_remove(&m->task.node);
	m->x = NULL;
	m->told(m->step, r);
}

static void run(struct task *t)
{
	struct mirror *m = CONTAINER(t, struct mirror, task);

	settle(m, start(m));
}

static void changed(struct retain_watch *w)
{
	struct mirror *m = CONTAINER(w, struct mirror, watch);

	if (m->x->retained->is_over)
		settle(m, MIRROR_TOO_LONG);
	else if (m->x->retained->is_whole)
		loop_defer(worker_loop(m->x->worker), &m->task);
}

void mirror_want(struct mirror *m, struct exchange *x, const struct step *s, unsigned percentage)
{
	const struct message *req = &x->stream.req;

	if (req->has_upgrade || req->upgrade.n || req->method == METHOD_CONNECT || x->is_tcp)
		return;
	if (percentage < 100 && ((uint64_t)worker_random(x->worker) * 100 >> 32) >= percentage)
		return;
	list_init(&m->watch.node);
	task_init(&m->task, run);
	m->x = x;
	m->step = s;
	if (budget_is_tight()) {
		settle(m, MIRROR_TOO_MANY);
		return;
	}
	m->watch.changed = changed;
	retain_watch(retain_body(x, retain_limit(x)), &m->watch);
}

void mirror_end(struct mirror *m)
{
	if (!m->x)
		return;
	/* It was on the ready list: the request was sent whole. */
	if (!list_is_empty(&m->task.node))
		run(&m->task);
	list_remove(&m->watch.node);
	m->x = NULL;
}
