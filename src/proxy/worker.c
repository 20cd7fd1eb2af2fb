#include "proxy/worker.h"
#include <stdatomic.h>
#include <unistd.h>
#include "core/budget.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/metric.h"
#include "core/offload.h"
#include "proxy/exchange.h"
#include "proxy/health.h"
#include "proxy/overload.h"
#include "proxy/side_call.h"
#include "proxy/upstream_tls.h"

const struct worker_settings worker_default_settings = {
	.connect_timeout_ms = 10000,
	.upstream_idle_ms = 300000,
	.drain_ms = 30000,
	.overload_lag_ms = 100,
	.memory_bytes = 256 << 20,
	.access_log = true,
};

enum stop { STOP_NO, STOP_DRAIN, STOP_NOW };

struct worker {
	pthread_t thread;
	unsigned index;
	const struct worker_settings *settings;
	struct mailbox *box;
	struct loop *loop;
	struct server *server;
	struct client *client;
	struct resolver *resolver;
	struct side_calls *side_calls;
	struct prober *prober;            /* worker 0 probes for all */
	struct view *view;
	struct list listeners;            /* struct worker_listener */
	struct timer drain;
	struct overload overload;
	atomic_int stop;
	atomic_bool is_kept;              /* worker_keep() */
	bool is_draining;
	bool is_late;                     /* the time for draining is over */
	bool is_over;                     /* the thread was joined: for whoever joins */
	struct worker_end *ends;
	uint64_t random;
};

struct loop *worker_loop(struct worker *w)
{
	return w->loop;
}

struct client *worker_client(struct worker *w)
{
	return w->client;
}

struct resolver *worker_resolver(struct worker *w)
{
	return w->resolver;
}

struct side_calls *worker_side_calls(struct worker *w)
{
	return w->side_calls;
}

struct view *worker_view(struct worker *w)
{
	return w->view;
}

struct mailbox *worker_mailbox(struct worker *w)
{
	return w->box;
}

const struct worker_settings *worker_settings(const struct worker *w)
{
	return w->settings;
}

unsigned worker_index(const struct worker *w)
{
	return w->index;
}

struct overload *worker_overload(struct worker *w)
{
	return &w->overload;
}

uint64_t worker_random64(struct worker *w)
{
	/* xorshift64*: good enough to spread load. */
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return w->random * 0x2545f4914f6cdd1dULL;
}

uint32_t worker_random(struct worker *w)
{
	return (uint32_t)(worker_random64(w) >> 32);
}

void worker_at_end(struct worker *w, struct worker_end *e, void (*run)(struct worker_end *e))
{
	e->run = run;
	e->next = w->ends;
	w->ends = e;
}

/* ---------- configuration ---------- */

static void free_listener(struct server_listener *l)
{
	struct worker_listener *wl = CONTAINER(l, struct worker_listener, listener);

	list_remove(&wl->node);
	mem_free(wl);
}

/*
 * It stays on the list while connections that came through it are open: their next requests need the binding of the
 * view of that time, or to learn that there is none any more.
 */
static void shut_listener(struct worker_listener *l)
{
	if (l->listener.watch.fd >= 0)
		server_unlisten(&l->listener);
}

static void open_listeners(struct worker *w, const struct snapshot *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++) {
		const struct new_listener *n = &s->listeners[i];

		if (w->is_draining) {
			close(n->fds[w->index]);
			continue;
		}
		struct worker_listener *l = mem_alloc(sizeof *l + n->key.n);
		char *key = (char *)(l + 1);

		memcpy(key, n->key.p, n->key.n);
		l->key = (struct str){ key, n->key.n };
		l->worker = w;
		l->listener.local = n->addr;
		l->port = (struct str){ l->port_text, (size_t)snprintf(l->port_text, sizeof l->port_text, "%u",
								       addr_port(&n->addr)) };
		l->listener.owner = l;
		l->listener.unused = free_listener;
		list_append(&w->listeners, &l->node);
		server_listen(w->server, &l->listener, n->fds[w->index]);
	}
}

static void close_listeners(struct worker *w, const struct snapshot *s)
{
	for (unsigned i = 0; i < s->n_closed; i++)
		LIST_EACH(node, &w->listeners) {
			struct worker_listener *l = CONTAINER(node, struct worker_listener, node);

			if (str_equal(l->key, s->closed[i]))
				shut_listener(l);
		}
}

/* A Gateway's L4 lists judge connections that are open already at their next idle point. */
static bool is_refused(struct server_connection *c)
{
	const struct worker_listener *l = connection_listener(c)->owner;
	struct ip peer = addr_ip(connection_peer(c));

	return l->binding && l->binding->only && !exchange_accepts(l->binding->only->policies, &peer);
}

static bool has_connect_lists(const struct worker *w)
{
	LIST_EACH(node, (struct list *)(uintptr_t)&w->listeners) {
		const struct worker_listener *l = CONTAINER(node, struct worker_listener, node);

		if (l->binding && l->binding->only && l->binding->only->policies->legs[LEG_CONNECT].n > 0)
			return true;
	}
	return false;
}

static void adopted(void *arg, const struct snapshot *s)
{
	struct worker *w = arg;

	close_listeners(w, s);
	open_listeners(w, s);
	LIST_EACH(node, &w->listeners) {
		struct worker_listener *l = CONTAINER(node, struct worker_listener, node);
		struct part *binding = pmap_get(s->bindings, l->key);

		l->binding = binding ? CONTAINER(binding, struct binding, part) : NULL;
		l->listener.tls = l->binding && l->binding->is_tls ? &l->binding->tls : NULL;
	}
	for (unsigned i = 0; i < s->n_retired; i++)
		pool_close(w->client, &s->retired[i]->pools[w->index]);
	for (unsigned i = 0; i < s->n_changed; i++)
		pool_close(w->client, &s->changed[i]->pools[w->index]);
	if (w->prober)
		prober_adopt(w->prober, s);
	const struct policy_class *const *class = w->index == 0 ? worker_settings(w)->classes : NULL;
	for (; class && *class; class++)
		if ((*class)->adopted)
			(*class)->adopted(w);
	if (has_connect_lists(w))
		server_sweep(w->server, is_refused);
}

/* ---------- life ---------- */

static void end(struct timer *t)
{
	struct worker *w = CONTAINER(t, struct worker, drain);

	w->is_late = true;
	loop_wake(w->loop);
}

static void begin_drain(struct worker *w)
{
	w->is_draining = true;
	LIST_EACH(node, &w->listeners)
		shut_listener(CONTAINER(node, struct worker_listener, node));
	server_drain(w->server);
	loop_arm(w->loop, &w->drain, w->settings->drain_ms);
}

static void watch_load(struct worker *w)
{
	int64_t lag_us = loop_lag_us(w->loop);

	overload_count_turn(loop_turn_us(w->loop));
	if (overload_turn(&w->overload, clock_us(), lag_us, loop_slept_us(w->loop))) {
		if (w->overload.is_lagging)
			log_warn("overload.lag", F_INT("worker", w->index), F_INT("lagUs", lag_us));
		else
			log_info("overload.over", F_INT("worker", w->index));
	}
	overload_relieve(&w->overload, w->server);
}

static void turn(void *arg)
{
	struct worker *w = arg;
	enum stop stop = (enum stop)atomic_load_explicit(&w->stop, memory_order_acquire);

	watch_load(w);
	w->view = snapshot_adopt(w->view, w->box, adopted, w);
	if (stop == STOP_DRAIN && !w->is_draining)
		begin_drain(w);
	if (atomic_load_explicit(&w->is_kept, memory_order_acquire))
		return;
	/* Also in the turn that began to drain: without a connection nothing may come that makes another turn. */
	if (stop == STOP_NOW || w->is_late || (w->is_draining && server_connections(w->server) == 0))
		loop_stop(w->loop);
}

/* Of a snapshot that comes too late to be served. */
static void drop_sockets(void *arg, const struct snapshot *s)
{
	const struct worker *w = arg;

	for (unsigned i = 0; i < s->n_listeners; i++)
		close(s->listeners[i].fds[w->index]);
}

static void leave(struct worker *w)
{
	if (w->prober)
		prober_free(w->prober);
	LIST_EACH(node, &w->listeners)
		shut_listener(CONTAINER(node, struct worker_listener, node));
	server_free(w->server);
	for (struct worker_end *e = w->ends, *following; e; e = following) {
		following = e->next;
		e->run(e);
	}
	side_calls_free(w->side_calls);
	client_free(w->client);
	resolver_free(w->resolver);
	offload_settle(w->loop);
	loop_run_once(w->loop, 0);
	w->view = snapshot_adopt(w->view, w->box, drop_sockets, w);
	struct view *v = w->view;
	if (v)
		snapshot_unpin(v, NULL, w->box);
	/* Nothing is served here any more: whatever is published from now on is in force as far as this worker goes. */
	atomic_store_explicit(&w->box->adopted, UINT64_MAX, memory_order_release);
	if (w->box->wake_control)
		w->box->wake_control(w->box->wake_arg);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	metric_thread(w->index + 1);
	budget.limit = w->settings->memory_bytes;
	overload_init(&w->overload, w->settings->overload_lag_ms);
	if (w->settings->pin)
		thread_pin((int)w->index);
	clock_update();
	loop_run(w->loop, turn, w);
	leave(w);
	return NULL;
}

static bool make_room(void *server)
{
	return server_make_room(server);
}

struct worker *worker_start(unsigned index, const struct worker_settings *settings, struct mailbox *box)
{
	struct worker *w = MEM_NEW(struct worker);
	char name[16];

	w->index = index;
	w->settings = settings;
	w->box = box;
	w->random = (uint64_t)clock_now_us() * 0x9e3779b97f4a7c15ULL + index + 1;
	list_init(&w->listeners);
	w->loop = loop_new();
	w->server = server_new(w->loop, &exchange_server_ops, &settings->server, w);
	w->client = client_new(w->loop, settings->server.receive_bytes);
	client_ask_for_room(w->client, make_room, w->server);
	client_set_ping(w->client, settings->server.h2_ping_ms, settings->server.h2_ping_timeout_ms);
	upstream_tls_watch(w->client);
	w->resolver = resolver_new(w->loop, settings->dns_servers, 0);
	w->side_calls = side_calls_new(w);
	if (index == 0)
		w->prober = prober_new(w);
	timer_init(&w->drain, end);
	snprintf(name, sizeof name, "worker-%u", index);
	w->thread = thread_start(name, work, w);
	return w;
}

void worker_wake(struct worker *w)
{
	loop_wake(w->loop);
}

void worker_stop(struct worker *w, bool at_once)
{
	atomic_store_explicit(&w->stop, at_once ? STOP_NOW : STOP_DRAIN, memory_order_release);
	loop_wake(w->loop);
}

void worker_keep(struct worker *w, bool is_kept)
{
	atomic_store_explicit(&w->is_kept, is_kept, memory_order_release);
	loop_wake(w->loop);
}

void worker_wait(struct worker *w)
{
	if (!w->is_over)
		pthread_join(w->thread, NULL);
	w->is_over = true;
}

void worker_join(struct worker *w)
{
	worker_wait(w);
	struct view *v = snapshot_adopt(NULL, w->box, drop_sockets, w);
	if (v)
		snapshot_unpin(v, NULL, w->box);
	/* Only now: until the thread ended somebody could still wake the loop. */
	loop_free(w->loop);
	mem_free(w);
}
