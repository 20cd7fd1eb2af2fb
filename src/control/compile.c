/* compile.c -- changes go to the file of their kind; a publish settles what they marked and hands it over. */
#include "control/compile.h"
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "control/compile_state.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "proxy/consumers.h"

enum {
	WARN_AFTER_MS = 5000,                      /* a worker that has not adopted by then is stuck or starved */
	GIVE_UP_AFTER_MS = 30000,
};

/* ---------- shared by compile*.c ---------- */

void *state_new(struct map *map, size_t size, size_t id_at, struct str id)
{
	char *state = mem_alloc(size + id.n + 1), *text = state + size;
	struct str copy = { text, id.n };

	if (id.n)
		memcpy(text, id.p, id.n);
	memcpy(state + id_at, &copy, sizeof(copy));
	map_put(map, copy, state);
	return state;
}

struct kept *kept_find(struct map *table, struct str key)
{
	return map_get(table, key);
}

void kept_enter(struct kept *k, struct map *table, struct str key)
{
	char *copy = mem_alloc(key.n + 1);

	memcpy(copy, key.p, key.n);
	k->table = table;
	k->key = (struct str){ copy, key.n };
	map_put(table, k->key, k);
}

void kept_leave(struct kept *k)
{
	if (map_get(k->table, k->key) == k)
		map_remove(k->table, k->key);
	mem_free((char *)(uintptr_t)k->key.p);
}

void parts_drop(struct part **held, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		part_drop(held[i]);
	mem_free(held);
}

/* ---------- life ---------- */

static void wake_compiler(void *arg)
{
	const struct compiler *c = arg;
	uint64_t one = 1;

	/* It fails only when the counter is full, and then it is awake anyway. */
	if (write(c->woken, &one, sizeof(one)) < 0)
		return;
}

static void init_lists(struct compiler *c)
{
	struct list *const lists[] = {
		&c->dirty_routes, &c->dirty_services, &c->dirty_vhosts, &c->dirty_gateways, &c->dirty_domains,
		&c->dirty_bindings, &c->idle_endpoints, &c->dependencies,
	};

	for (unsigned i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		list_init(lists[i]);
}

struct compiler *compiler_new(const struct model *m, const struct compiler_settings *settings)
{
	struct compiler *c = MEM_NEW(struct compiler);

	BUG_ON(settings->workers == 0 || settings->workers > WORKERS_MAX);
	c->model = m;
	c->settings = *settings;
	c->bindings = pmap_new();
	c->paths = pmap_new();
	c->services = pmap_new();
	c->consumers = consumers_new();
	init_lists(c);
	c->woken = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	BUG_ON(c->woken < 0);
	for (unsigned i = 0; i < settings->workers; i++) {
		settings->mailboxes[i].reaper = &c->returned;
		settings->mailboxes[i].wake_control = wake_compiler;
		settings->mailboxes[i].wake_arg = c;
	}
	c->version_series = metric_series(METRIC_SNAPSHOT_VERSION, NULL);
	c->publish_series = metric_series(METRIC_SNAPSHOT_SECONDS, NULL);
	c->degraded_series = metric_series(METRIC_ATTACHMENTS_DEGRADED, NULL);
	return c;
}

void compiler_free(struct compiler *c)
{
	if (!c)
		return;
	snapshot_reap(&c->returned);
	pmap_drop(c->bindings);
	pmap_drop(c->paths);
	pmap_drop(c->services);
	pmap_drop(c->claims);
	routes_free(c);
	apis_free(c);
	bindings_free(c);
	gateways_free(c);
	services_free(c);
	upstreams_free(c);
	policies_free(c);
	certificates_free(c);
	consumers_free(c->consumers);
	map_free(&c->cells);
	map_free(&c->tallies);
	metric_series_drop(c->version_series);
	metric_series_drop(c->publish_series);
	metric_series_drop(c->degraded_series);
	close(c->woken);
	mem_free(c);
}

void compiler_set_lenient(struct compiler *c, bool lenient)
{
	c->settings.lenient = lenient;
}

/* ---------- changes ---------- */

static bool feature_change(struct compiler *c, const struct change *change, struct problem *why)
{
	const struct resource *r = change->after ? change->after : change->before;

	if (!identity_change(c, change, why))
		return false;
	gateway_mark(c, gateway_get(c, json_text(r->doc, "gatewayId")), false);
	attachments_rebind(c, json_text(r->doc, "gatewayId"));
	return true;
}

static bool dispatch(struct compiler *c, enum resource_kind kind, const struct change *change, struct problem *why)
{
	switch (kind) {
	case RESOURCE_GATEWAY:
		return gateway_change(c, change, why);
	case RESOURCE_FEATURE:
		return feature_change(c, change, why);
	case RESOURCE_DOMAIN:
		return domain_change(c, change, why);
	case RESOURCE_CERTIFICATE:
		return certificate_change(c, change, why);
	case RESOURCE_SERVICE:
		return service_change(c, change, why);
	case RESOURCE_ROUTE:
		return route_change(c, change, why);
	case RESOURCE_API:
		return api_change(c, change, why);
	case RESOURCE_OPERATION:
		return operation_change(c, change, why);
	case RESOURCE_LLM_API:
	case RESOURCE_AGENT_API:
		return ai_api_change(c, change, why);
	case RESOURCE_CONSUMER:
		return consumer_change(c, change, why);
	case RESOURCE_RULE:
		return rule_change(c, change, why);
	case RESOURCE_POLICY:
		return policy_change(c, change, why);
	case RESOURCE_ATTACHMENT:
		return attachment_change(c, change, why);
	default:
		return true;                       /* nothing that traffic depends on */
	}
}

bool compile_change(struct compiler *c, const struct change *change, struct problem *why)
{
	const struct resource *r = change->after ? change->after : change->before;

	if (!dispatch(c, r->kind, change, why)) {
		if (!c->settings.lenient)
			return false;
		log_error("resource.not_served", F_STR("id", r->id), F_STR("name", r->name),
			  F_TEXT("field", why->field), F_TEXT("reason", why->text));
	}
	attachments_recheck(c, r);
	return true;
}

/* ---------- publishing ---------- */

#define SETTLE(list, T, function) \
	while (!list_is_empty(&c->list)) { \
		function(c, CONTAINER(c->list.next, T, dirty)); \
		any = true; \
	}

/* In the order of dependence: each step marks for later ones only. Returns whether there was anything. */
static bool settle(struct compiler *c)
{
	bool any = !list_is_empty(&c->idle_endpoints);

	SETTLE(dirty_services, struct service_state, service_settle)
	SETTLE(dirty_routes, struct route_state, route_settle)
	SETTLE(dirty_vhosts, struct vhost_state, vhost_settle)
	SETTLE(dirty_gateways, struct gateway_state, gateway_settle)
	SETTLE(dirty_domains, struct domain_state, domain_settle)
	SETTLE(dirty_bindings, struct binding_state, binding_settle)
	any = claims_settle(c) || any;
	return consumers_settle(c) || any;
}

void compile_look(const struct compiler *c, struct snapshot *out)
{
	out->version = c->version;
	out->bindings = c->bindings;
	out->paths = c->paths;
	out->services = c->services;
	out->claims = c->claims;
	out->own_cookies = c->own_cookies;
	consumers_publish(c, out);
}

static struct snapshot *make_snapshot(struct compiler *c)
{
	struct snapshot *s = MEM_NEW(struct snapshot);

	c->version++;
	compile_look(c, s);
	pmap_hold(s->bindings);
	pmap_hold(s->paths);
	pmap_hold(s->services);
	part_hold(&s->consumers->part);
	if (s->claims)
		pmap_hold(s->claims);
	bindings_publish(c, s);
	services_publish(c, s);
	upstreams_publish(c, s);
	return s;
}

static unsigned count_behind(const struct compiler *c)
{
	unsigned behind = 0;

	for (unsigned i = 0; i < c->settings.workers; i++)
		behind += atomic_load_explicit(&c->settings.mailboxes[i].adopted, memory_order_acquire) <
			  c->version;
	return behind;
}

/* Sleeps until all workers have adopted. */
static void await_adoption(struct compiler *c, int64_t since_us)
{
	struct pollfd woken = { .fd = c->woken, .events = POLLIN };
	int64_t limit_ms = WARN_AFTER_MS;
	uint64_t count;
	unsigned behind;

	while ((behind = count_behind(c)) > 0) {
		int64_t passed_ms = (clock_now_us() - since_us) / 1000;

		if (passed_ms >= limit_ms) {
			log_warn("snapshot.adoption_slow", F_INT("version", (int64_t)c->version),
				 F_INT("workers", behind), F_INT("waited_ms", passed_ms));
			if (limit_ms == GIVE_UP_AFTER_MS)
				return;
			limit_ms = GIVE_UP_AFTER_MS;
			continue;
		}
		if (poll(&woken, 1, (int)(limit_ms - passed_ms) + 1) > 0 &&
		    read(c->woken, &count, sizeof(count)) < 0)
			BUG_ON(errno != EAGAIN);
	}
}

uint64_t compile_publish(struct compiler *c)
{
	const int64_t since_us = clock_now_us();

	metric_set(c->degraded_series, c->degraded);
	if (!settle(c))
		return c->version;
	snapshot_publish(make_snapshot(c), c->settings.mailboxes, c->settings.workers);
	for (unsigned i = 0; i < c->settings.workers; i++)
		c->settings.wake_worker(c->settings.wake_arg, i);
	await_adoption(c, since_us);
	metric_observe_us(c->publish_series, clock_now_us() - since_us);
	metric_set(c->version_series, (int64_t)c->version);
	snapshot_reap(&c->returned);
	return c->version;
}

void compile_reap(struct compiler *c)
{
	snapshot_reap(&c->returned);
}

/* ---------- status ---------- */

const char *phase_name(enum phase p)
{
	static const char *const names[] = {
		[PHASE_RUNNING] = "Running", [PHASE_PENDING] = "Pending", [PHASE_FAILED] = "Failed",
		[PHASE_ACTIVE] = "Active", [PHASE_DEGRADED] = "Degraded", [PHASE_DISABLED] = "Disabled",
	};

	return names[p];
}

struct status compile_gateway_status(const struct compiler *c, struct str gateway_id)
{
	const struct gateway_state *g = map_get(&c->gateway_states, gateway_id);

	if (!g || !g->plan)
		return (struct status){ .phase = PHASE_FAILED,
					.reason = STR("its configuration cannot be served") };
	return (struct status){
		.phase = g->plan->phase, .reason = g->plan->reason, .last_error = g->plan->last_error,
		.addresses = g->plan->keys, .n_addresses = g->plan->n_addrs,
	};
}

/* A cell that another one replaced is left by old snapshots only. */
static bool is_down(const struct compiler *c, struct cell *cell)
{
	if (map_get(cell->kept.table, cell->kept.key) != &cell->kept)
		return false;
	issuers_look(c, cell);
	cell->shown = dependency_read(cell->dependency);
	return cell->shown.is_down;
}

/* What an attachment that acts depends on may not answer: on one of its resources is enough. */
static void add_dependency(const struct compiler *c, const struct attachment_state *a, struct status *status)
{
	LIST_EACH(node, (struct list *)(uintptr_t)&c->dependencies) {
		struct cell *cell = CONTAINER(node, struct cell, of_compiler);

		if (!str_equal(cell->attachment_id, a->id) || !is_down(c, cell))
			continue;
		status->phase = PHASE_DEGRADED;
		status->reason = str_of(cell->shown.reason);
		status->last_error = str_of(cell->shown.error);
		status->since_ms = cell->shown.since_ms;
		return;
	}
}

struct status compile_attachment_status(const struct compiler *c, struct str attachment_id)
{
	const struct attachment_state *a = map_get(&c->attachment_states, attachment_id);
	struct status status = { .phase = PHASE_DEGRADED, .reason = STR("it is not in force") };

	if (!a)
		return status;
	status.phase = a->phase;
	status.reason = (struct str){ NULL, 0 };
	if (a->reason[0])
		status.reason = str_of(a->reason);
	if (a->phase == PHASE_ACTIVE)
		add_dependency(c, a, &status);
	return status;
}

unsigned compile_degraded(const struct compiler *c)
{
	unsigned n = c->degraded;
	struct attachment_state *a;

	LIST_EACH(node, (struct list *)(uintptr_t)&c->dependencies) {
		a = map_get(&c->attachment_states, CONTAINER(node, struct cell, of_compiler)->attachment_id);
		if (a)
			a->is_counted = false;
	}
	LIST_EACH(node, (struct list *)(uintptr_t)&c->dependencies) {
		struct cell *cell = CONTAINER(node, struct cell, of_compiler);

		a = map_get(&c->attachment_states, cell->attachment_id);
		if (!a || a->is_counted || a->phase != PHASE_ACTIVE || !is_down(c, cell))
			continue;
		a->is_counted = true;
		n++;
	}
	return n;
}
