/*
 * compile_issuer.c -- attachments that ask for tokens of consumers depend on those who issue them. Keys are the
 * consumers', not the attachment's, so nobody tells its cell: the control thread looks when the state is asked for.
 *
 * An attachment is about the consumers that may pass it: all at a gateway or domain, else those that have a rule.
 */
#include "control/compile_state.h"
#include "control/resource.h"
#include "core/clock.h"
#include "proxy/consumers.h"

struct search {
	const struct compiler *c;
	const struct resource *guarded;   /* NULL: any consumer passes */
	bool found;
};

static struct resource *resource_of_type(const struct compiler *c, struct str type, struct str id)
{
	enum scope scope;

	return scope_parse(type, &scope) ? model_get(c->model, scope_kind(scope), id) : NULL;
}

static bool is_part_of(const struct resource *part, struct str whole_id)
{
	return part && whole_id.n && str_equal(json_text(part->doc, "httpApiId"), whole_id);
}

static bool is_over(const struct resource *rule)
{
	const struct json *at = json_get(rule->doc, "expireTimestamp");

	return str_equal(json_text(rule->doc, "expireMode"), STR("ShortTerm")) &&
	       (!at || at->type != JSON_INT || at->integer <= clock_wall_ms());
}

/* A rule for the resource, for the API it is of, or for a part of it. */
static bool look_at_rule(void *arg, struct resource *r)
{
	struct search *s = arg;
	const struct str id = r->kind == RESOURCE_RULE ? json_text(r->doc, "resourceId") : STR("");

	if (!id.n || is_over(r))
		return true;
	s->found = str_equal(id, s->guarded->id) || is_part_of(s->guarded, id) ||
		   is_part_of(resource_of_type(s->c, json_text(r->doc, "resourceType"), id), s->guarded->id);
	return !s->found;
}

static bool may_pass(void *arg, const struct consumer *who)
{
	struct search *s = arg;

	if (!s->guarded)
		return true;
	s->found = false;
	model_referrers(s->c->model, RESOURCE_CONSUMER, who->id, look_at_rule, s);
	return s->found;
}

void issuers_look(const struct compiler *c, struct cell *cell)
{
	const struct policy_class *class = cell->conf->class;
	const struct attachment_state *a = map_get(&c->attachment_states, cell->attachment_id);
	struct dependency *d = (struct dependency *)((char *)cell->memory + class->dependency_at);
	struct search s = { .c = c };
	struct consumer_down down;
	char text[DEPENDENCY_ERROR_MAX];

	if (!a || !class->asks_issuers)
		return;
	if (a->scope != SCOPE_GATEWAY && a->scope != SCOPE_DOMAIN) {
		const size_t at = cell->attachment_id.n + 1;

		s.guarded = model_get(c->model, scope_kind(a->scope),
				      (struct str){ cell->kept.key.p + at, cell->kept.key.n - at });
		if (!s.guarded)
			return;
	}
	if (!consumers_find_down(c, may_pass, &s, &down)) {
		dependency_up(d);
		return;
	}
	/* snprintf counts in int: names are short. */
	const int n = snprintf(text, sizeof text, "consumer %.*s: %s", STR_FMT(down.name), down.issuer.error);

	dependency_down(d, "the keys of a consumer's tokens cannot be fetched",
			(struct str){ text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1 });
}
