/*
 * compile_retry.c -- addresses that could not be bound at start are tried again, so that a gateway whose port somebody
 * else held for a while is served when it is free. (Afterwards it cannot happen: a change that needs such a port is
 * refused.)
 */
#include "control/compile_state.h"
#include "core/clock.h"
#include "core/log.h"

enum { WAIT_FIRST_MS = 1000, WAIT_MOST_MS = 30000 };

/* Whether at least one of them is there now; those are open, and wait for the gateway to join. */
static bool find_again(struct compiler *c, const struct gateway_plan *plan)
{
	bool any = false;
	struct problem why;

	for (unsigned i = 0; i < plan->n_lost; i++)
		any |= binding_prepare(c, plan->lost_keys[i], &plan->lost[i], &why);
	return any;
}

static void wait_longer(struct gateway_plan *plan, int64_t now_ms)
{
	plan->retry_wait_ms = plan->retry_wait_ms ? plan->retry_wait_ms * 2 : WAIT_FIRST_MS;
	if (plan->retry_wait_ms > WAIT_MOST_MS)
		plan->retry_wait_ms = WAIT_MOST_MS;
	plan->retry_ms = now_ms + plan->retry_wait_ms;
}

/* As if it had been changed to what it is; what still cannot be served is left out again. */
static void join(struct compiler *c, struct gateway_state *g)
{
	struct resource *r = model_get(c->model, RESOURCE_GATEWAY, g->id);
	struct change change = { .before = r, .after = r };
	bool was_lenient = c->settings.lenient;
	struct problem why;

	list_init(&change.node);
	c->settings.lenient = true;
	if (r && compile_change(c, &change, &why) && g->plan && g->plan->n_lost == 0)
		log_info("gateway.served", F_STR("gateway", g->plan->name));
	c->settings.lenient = was_lenient;
}

static bool retry(struct compiler *c, struct gateway_state *g, int64_t now_ms)
{
	struct arena keys = { 0 };
	unsigned n = g->plan->n_lost;
	struct str *lost;

	if (!find_again(c, g->plan)) {
		wait_longer(g->plan, now_ms);
		return false;
	}
	/* The plan is replaced meanwhile. */
	lost = NEW_N(&keys, struct str, n);
	for (unsigned i = 0; i < n; i++)
		lost[i] = arena_copy(&keys, g->plan->lost_keys[i]);
	join(c, g);
	bindings_sweep(c, lost, n);
	arena_free(&keys);
	if (g->plan)
		wait_longer(g->plan, now_ms);
	return true;
}

bool compile_retry(struct compiler *c)
{
	int64_t now_ms = clock_ms();
	struct map_entry *e;
	bool any = false;

	for (size_t i = 0; (e = map_next(&c->gateway_states, &i));) {
		struct gateway_state *g = e->value;

		if (g->plan && g->plan->n_lost > 0 && g->plan->retry_ms <= now_ms)
			any |= retry(c, g, now_ms);
	}
	return any;
}
