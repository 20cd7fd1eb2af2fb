/*
 * compile_claim.c -- paths that policies answer themselves: all of them anew whenever a policy or an attachment of a
 * class that has such paths changed. There are few, and nobody else changes them.
 *
 * A path is of the gateway that the attachment is of, whatever it is attached to: the callback of a login that guards
 * one route must be there though that route does not match it.
 */
#include <stdlib.h>
#include "control/compile_state.h"
#include "core/mem.h"
#include "proxy/claim.h"

void claims_mark(struct compiler *c, const struct policy_class *class)
{
	if (class && class->claims)
		c->claims_stale = true;
}

static void destroy_claimed(struct part *p)
{
	struct claimed *claimed = CONTAINER(p, struct claimed, part);

	parts_drop(claimed->held, claimed->n_held);
	arena_free(&claimed->arena);
	mem_free(claimed->steps);
	mem_free(claimed);
}

static struct claimed *claimed_get(struct compiler *c, struct str key)
{
	struct part *found = pmap_get(c->claims, key);
	struct claimed *claimed;

	if (found)
		return CONTAINER(found, struct claimed, part);
	claimed = MEM_NEW(struct claimed);
	claimed->part = (struct part){ 1, destroy_claimed };
	claimed->arena.is_small = true;
	c->claims = pmap_set(c->claims, key, &claimed->part);
	part_drop(&claimed->part);
	return claimed;
}

/* One step for a policy: its attachments answer alike. */
static void add_step(struct compiler *c, struct claimed *to, const struct attachment_state *a, const struct bearer *on)
{
	struct step s;

	for (unsigned i = 0; i < to->n; i++)
		if (str_equal(to->steps[i].policy_id, a->policy->id))
			return;
	to->held = mem_resize(to->held, (to->n_held + 3) * sizeof *to->held);
	to->steps = mem_resize(to->steps, (to->n + 1) * sizeof *to->steps);
	s = step_compile(c, a, on, to->held, &to->n_held);
	s.run = s.class->claimed;
	s.attachment_id = arena_copy(&to->arena, a->id);
	s.resource_id = arena_copy(&to->arena, on->id);
	to->steps[to->n++] = s;
}

static enum level level_of(enum scope scope)
{
	if (scope == SCOPE_GATEWAY)
		return LEVEL_GATEWAY;
	return scope == SCOPE_DOMAIN ? LEVEL_DOMAIN : LEVEL_ROUTE;
}

/* Those of the attachment on this resource. */
static void add_claims(struct compiler *c, const struct attachment_state *a, const struct resource *r)
{
	const struct bearer on = { .level = level_of(a->scope), .id = r->id, .name = r->name };
	const struct str gateway_id = r->kind == RESOURCE_GATEWAY ? r->id : json_text(r->doc, "gatewayId");
	struct claimed_path claims[CLAIMS_MAX];
	unsigned n = a->policy->class->claims(a->policy->conf->conf, claims);
	char key[CLAIM_KEY_MAX];

	BUG_ON(n > CLAIMS_MAX);
	for (unsigned i = 0; i < n; i++) {
		struct str text = claim_key(key, gateway_id, claims[i].host, claims[i].path);

		if (text.p)
			add_step(c, claimed_get(c, text), a, &on);
	}
}

static void add_attachment(struct compiler *c, const struct attachment_state *a)
{
	for (unsigned i = 0; i < a->n_links; i++) {
		const struct resource *r = model_get(c->model, scope_kind(a->scope), a->links[i].resource_id);

		if (r)
			add_claims(c, a, r);
	}
}

static int by_age(const void *va, const void *vb)
{
	const struct attachment_state *a = *(const struct attachment_state *const *)va;
	const struct attachment_state *b = *(const struct attachment_state *const *)vb;

	return a->age < b->age ? -1 : a->age > b->age;
}

static bool has_claims(const struct attachment_state *a)
{
	return a->policy->class && a->policy->class->claims && a->policy->class->is_enforced && a->policy->conf &&
	       a->policy->enable;
}

/* Of all policies, also those that are disabled or attached nowhere: their cookies are good again when they act. */
static struct str find_cookies(const struct compiler *c)
{
	const struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->policy_states, &i));) {
		const struct policy_state *p = e->value;

		if (p->class && p->class->own_cookies)
			return str_of(p->class->own_cookies);
	}
	return (struct str){ NULL, 0 };
}

bool claims_settle(struct compiler *c)
{
	const struct attachment_state **list;
	struct pmap *before = c->claims;
	struct map_entry *e;
	size_t n = 0;

	if (!c->claims_stale)
		return false;
	c->claims_stale = false;
	list = mem_alloc((c->attachment_states.n + 1) * sizeof *list);
	c->own_cookies = find_cookies(c);
	for (size_t i = 0; (e = map_next(&c->attachment_states, &i));)
		if (has_claims(e->value))
			list[n++] = e->value;
	qsort(list, n, sizeof *list, by_age);
	/* The one before goes last: cells that both have go on. */
	c->claims = pmap_new();
	for (size_t i = 0; i < n; i++)
		add_attachment(c, list[i]);
	if (pmap_count(c->claims) == 0) {
		pmap_drop(c->claims);
		c->claims = NULL;
	}
	pmap_drop(before);
	mem_free(list);
	return true;
}
