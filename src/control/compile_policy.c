/*
 * compile_policy.c -- policies decoded once for all their attachments, and what each attachment can do.
 *
 * A change of a policy or an attachment marks the resources it is attached to; their chains are made anew at
 * the next publish.
 */
#include "control/compile_state.h"
#include "control/feature.h"
#include "core/mem.h"

#define NOT_ENFORCED "not enforced by this build"

/* ---------- policies ---------- */

static void destroy_conf(struct part *p)
{
	struct conf *conf = CONTAINER(p, struct conf, part);

	arena_free(&conf->arena);
	mem_free(conf);
}

static struct str canonical_text(struct arena *a, const struct json *v)
{
	struct sbuf out = { 0 };
	struct str text;

	json_canonical(&out, v);
	text = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return text;
}

static bool decode(struct conf *conf, const struct json *config, struct problem *why)
{
	const struct policy_class *class = conf->class;
	void *out = arena_alloc(&conf->arena, class->conf_size);

	if (!fields_decode(class->fields, config, out, &conf->arena, why))
		return false;
	if (class->prepare && !class->prepare(out, &conf->arena, why))
		return false;
	conf->conf = out;
	conf->enable = *(const bool *)((const char *)out + class->enable_at);
	return true;
}

/* One reference. NULL fills *why. */
static struct conf *conf_new(const struct policy_class *class, const struct resource *r, struct problem *why)
{
	struct conf *conf = MEM_NEW(struct conf);
	struct json *config;

	conf->arena.is_small = true;
	config = json_parse(&conf->arena, arena_copy(&conf->arena, json_text(r->doc, "config")), why);
	conf->part = (struct part){ 1, destroy_conf };
	conf->class = class;
	conf->policy_id = arena_copy(&conf->arena, r->id);
	conf->policy_name = arena_copy(&conf->arena, r->name);
	if (!config || !decode(conf, config, why)) {
		problem_prefix(why, "config");
		part_drop(&conf->part);
		return NULL;
	}
	conf->canonical = canonical_text(&conf->arena, config);
	return conf;
}

/* Of a class that this build does not enforce: all that is wanted to know. */
static bool read_enable(const struct resource *r)
{
	struct arena scratch = { 0 };
	struct problem why;
	const struct json *config = json_parse(&scratch, json_text(r->doc, "config"), &why);
	bool enable = json_is_true(config, "enable");

	arena_free(&scratch);
	return enable;
}

static struct policy_state *policy_get(struct compiler *c, struct str id)
{
	struct policy_state *p = map_get(&c->policy_states, id);

	if (!p) {
		p = state_new(&c->policy_states, sizeof(*p), offsetof(struct policy_state, id), id);
		list_init(&p->attachments);
	}
	return p;
}

static void policy_forget(struct compiler *c, struct policy_state *p)
{
	if (!p || p->class || !list_is_empty(&p->attachments))
		return;
	map_remove(&c->policy_states, p->id);
	mem_free(p);
}

/* ---------- what an attachment can do ---------- */

enum resource_kind scope_kind(enum scope scope)
{
	switch (scope) {
	case SCOPE_GATEWAY:
		return RESOURCE_GATEWAY;
	case SCOPE_DOMAIN:
		return RESOURCE_DOMAIN;
	case SCOPE_LLM_API:
		return RESOURCE_LLM_API;
	case SCOPE_AGENT_API:
		return RESOURCE_AGENT_API;
	case SCOPE_API:
		return RESOURCE_API;
	case SCOPE_OPERATION:
		return RESOURCE_OPERATION;
	case SCOPE_SERVICE:
		return RESOURCE_SERVICE;
	case SCOPE_SERVICE_PORT:
		return RESOURCE_SERVICE_PORT;
	case SCOPE_ROUTE: case SCOPE_ROUTES:
		break;
	}
	return RESOURCE_ROUTE;
}

static const struct json *find_document(const struct attach_target *t, const char *kind, struct str id)
{
	static const char *const names[] = {
#define RESOURCE(id, name) [RESOURCE_##id] = name,
#include "control/resources.def"
#undef RESOURCE
	};
	const struct compiler *c = t->arg;

	for (unsigned i = 0; i < RESOURCE_COUNT; i++)
		if (strcmp(names[i], kind) == 0) {
			const struct resource *r = model_get(c->model, (enum resource_kind)i, id);

			return r ? r->doc : NULL;
		}
	return NULL;
}

static const struct json *find_setting(const struct attach_target *t, const char *name)
{
	const struct compiler *c = t->arg;

	return feature_value(c->model, t->gateway_id, name);
}

/* Whether the class has anything to run where the attachment puts it. */
static bool has_work(const struct policy_class *class, enum scope scope)
{
	if (class->apply || class->response || class->data)
		return true;
	if (scope & (SCOPE_SERVICE | SCOPE_SERVICE_PORT))
		return class->service || class->attempt;
	return class->connect || class->request;
}

/* On a gateway that carries bytes there is nothing to judge but the peer of a connection. */
static bool is_reached(const struct compiler *c, const struct attachment_state *a)
{
	const struct gateway_state *g = map_get(&c->gateway_states, a->gateway_id);
	const struct policy_class *class = a->policy->class;

	if (!g || !g->plan || g->plan->carries == CARRIES_HTTP)
		return true;
	if (class->apply && class->suits_bytes)
		return true;
	return class->connect && (!class->connects || class->connects(a->policy->conf->conf));
}

/* An older attachment that has the place of this one, or NULL. */
static const struct attachment_state *find_rival(const struct compiler *c, const struct attachment_link *link)
{
	const struct attachment_state *a = link->attachment;
	struct attached *all = attached_find(c, link->resource_id);

	if (a->policy->class->many_per_resource)
		return NULL;
	LIST_EACH(node, &all->links) {
		const struct attachment_state *other = CONTAINER(node, struct attachment_link, node)->attachment;

		if (other == a)
			return NULL;
		if (other->policy->class == a->policy->class)
			return other;
	}
	return NULL;
}

struct part *attachment_bind(struct compiler *c, const struct attachment_state *a, struct str resource_id, void *cell)
{
	const struct attach_target target = {
		.scope = a->scope, .gateway_id = a->gateway_id, .find = find_document, .setting = find_setting,
		.arg = c, .resource_id = resource_id,
	};

	return a->policy->class->bind(a->policy->conf->conf, cell, &target);
}

static bool check_target(struct compiler *c, const struct attachment_link *link, struct problem *why)
{
	const struct attachment_state *a = link->attachment, *rival = find_rival(c, link);
	const struct policy_class *class = a->policy->class;
	const struct resource *r = model_get(c->model, scope_kind(a->scope), link->resource_id);
	const struct attach_target target = {
		a->scope, r ? r->doc : NULL, a->gateway_id, find_document, find_setting, c, link->resource_id
	};

	if (!r)
		return problem(why, "attachResourceId", "\"%.*s\" does not exist", STR_FMT(link->resource_id));
	if (rival)
		return problem(why, "attachResourceId", "attachment %.*s of the same class is older",
			       STR_FMT(rival->id));
	return !class->attach || class->attach(a->policy->conf->conf, &target, why);
}

static void set_phase(struct compiler *c, struct attachment_state *a, enum phase phase, const char *reason)
{
	c->degraded -= a->phase == PHASE_DEGRADED;
	c->degraded += phase == PHASE_DEGRADED;
	a->phase = phase;
	snprintf(a->reason, sizeof(a->reason), "%s", reason);
}

static void judge(struct compiler *c, struct attachment_state *a)
{
	const struct policy_state *p = a->policy;
	char text[sizeof(a->reason)];
	struct problem why;

	if (!p->class)
		return set_phase(c, a, PHASE_DEGRADED, p->trouble[0] ? p->trouble : "its policy does not exist");
	if (!p->class->is_enforced)
		return set_phase(c, a, PHASE_DEGRADED, NOT_ENFORCED);
	if (!p->conf)
		return set_phase(c, a, PHASE_DEGRADED, p->trouble);
	if (!p->enable)
		return set_phase(c, a, PHASE_DISABLED, "");
	if (!has_work(p->class, a->scope)) {
		snprintf(text, sizeof(text), "%s does nothing at a %s", p->class->name, scope_name(a->scope));
		return set_phase(c, a, PHASE_DEGRADED, text);
	}
	if (!is_reached(c, a))
		return set_phase(c, a, PHASE_DEGRADED, "no requests are seen at a gateway of protocol TCP or TLS");
	for (unsigned i = 0; i < a->n_links; i++) {
		if (check_target(c, &a->links[i], &why))
			continue;
		snprintf(text, sizeof(text), "%.120s%s%.110s", why.field, why.field[0] ? ": " : "", why.text);
		return set_phase(c, a, PHASE_DEGRADED, text);
	}
	set_phase(c, a, PHASE_ACTIVE, "");
}

/* ---------- resources and what is attached to them ---------- */

struct attached *attached_find(const struct compiler *c, struct str resource_id)
{
	return map_get(&c->attached, resource_id);
}

static struct attached *attached_get(struct compiler *c, struct str id)
{
	struct attached *all = attached_find(c, id);

	if (!all) {
		all = state_new(&c->attached, sizeof(*all), offsetof(struct attached, id), id);
		list_init(&all->links);
	}
	return all;
}

static void attached_insert(struct attached *all, struct attachment_link *link)
{
	struct list *at = all->links.prev;

	while (at != &all->links &&
	       CONTAINER(at, struct attachment_link, node)->attachment->age > link->attachment->age)
		at = at->prev;
	list_push(at, &link->node);
}

/* The chains of the resource are no longer what they should be. */
static void mark_resource(struct compiler *c, enum scope scope, struct str id)
{
	struct route_state *route;
	const struct resource *port;

	switch (scope) {
	case SCOPE_ROUTE: case SCOPE_OPERATION: case SCOPE_LLM_API: case SCOPE_AGENT_API:
		route = map_get(&c->route_states, id);
		if (route)
			mark_dirty(&c->dirty_routes, &route->dirty);
		break;
	case SCOPE_API:
		api_mark_dirty(c, id);
		break;
	case SCOPE_GATEWAY:
		gateway_mark(c, gateway_get(c, id), false);
		break;
	case SCOPE_DOMAIN:
		domain_get(c, id)->policies_stale = true;
		mark_dirty(&c->dirty_domains, &domain_get(c, id)->dirty);
		break;
	case SCOPE_SERVICE:
		service_mark_dirty(c, id);
		break;
	case SCOPE_SERVICE_PORT:
		port = model_get(c->model, RESOURCE_SERVICE_PORT, id);
		if (port)
			service_mark_dirty(c, json_text(port->doc, "serviceId"));
		break;
	default:
		break;
	}
}

static void mark_attachment(struct compiler *c, const struct attachment_state *a)
{
	for (unsigned i = 0; i < a->n_links; i++)
		mark_resource(c, a->scope, a->links[i].resource_id);
}

static void judge_attached(struct compiler *c, struct str resource_id)
{
	struct attached *all = attached_find(c, resource_id);

	if (!all)
		return;
	LIST_EACH(node, &all->links)
		judge(c, CONTAINER(node, struct attachment_link, node)->attachment);
}

static void unlink_attachment(struct compiler *c, struct attachment_state *a)
{
	struct policy_state *policy = a->policy;

	mark_attachment(c, a);
	c->n_port_attachments -= a->scope == SCOPE_SERVICE_PORT;
	list_remove(&a->of_policy);
	for (unsigned i = 0; i < a->n_links; i++) {
		struct attached *all = attached_find(c, a->links[i].resource_id);

		list_remove(&a->links[i].node);
		judge_attached(c, all->id);
		if (list_is_empty(&all->links)) {
			map_remove(&c->attached, all->id);
			mem_free(all);
		}
	}
	set_phase(c, a, PHASE_ACTIVE, "");
	map_remove(&c->attachment_states, a->id);
	arena_free(&a->arena);
	mem_free(a);
	policy_forget(c, policy);
}

static void link_attachment(struct compiler *c, const struct resource *r, enum scope scope)
{
	struct attachment_state *a = MEM_NEW(struct attachment_state);
	const struct json *ids = json_get(r->doc, "attachResourceIds");
	unsigned i = 0;

	a->arena.is_small = true;
	a->id = arena_copy(&a->arena, r->id);
	a->age = r->age;
	a->scope = scope;
	a->phase = PHASE_ACTIVE;
	a->gateway_id = arena_copy(&a->arena, json_text(r->doc, "gatewayId"));
	a->policy = policy_get(c, json_text(r->doc, "policyId"));
	list_append(&a->policy->attachments, &a->of_policy);
	a->n_links = ids ? ids->n : 0;
	a->links = NEW_N(&a->arena, struct attachment_link, a->n_links);
	for (const struct json *id = ids ? ids->child : NULL; id; id = id->next, i++) {
		a->links[i].attachment = a;
		a->links[i].resource_id = arena_copy(&a->arena, id->string);
		attached_insert(attached_get(c, id->string), &a->links[i]);
	}
	map_put(&c->attachment_states, a->id, a);
	c->n_port_attachments += scope == SCOPE_SERVICE_PORT;
	mark_attachment(c, a);
	judge(c, a);
	/* It may be older than others of its class: one whose removal was undone. */
	for (i = 0; i < a->n_links; i++)
		judge_attached(c, a->links[i].resource_id);
}

/* ---------- changes ---------- */

bool attachment_change(struct compiler *c, const struct change *change, struct problem *why)
{
	const struct resource *r = change->after ? change->after : change->before;
	struct attachment_state *old = map_get(&c->attachment_states, r->id);
	struct str type = json_text(r->doc, "attachResourceType");
	enum scope scope;

	if (!scope_parse(type, &scope))
		return problem(why, "attachResourceType", "\"%.*s\" is no type of resource", STR_FMT(type));
	if (old) {
		claims_mark(c, old->policy->class);
		unlink_attachment(c, old);
	}
	if (change->after) {
		link_attachment(c, change->after, scope);
		claims_mark(c, ((struct attachment_state *)map_get(&c->attachment_states, r->id))->policy->class);
	}
	return true;
}

/* The policy as it will be; refused when its config is no good, unless we have to take what is stored. */
static bool read_policy(const struct compiler *c, const struct resource *r, struct policy_state *next,
			struct problem *why)
{
	struct str name = json_text(r->doc, "className");

	next->class = policy_class_find(name);
	if (!next->class) {
		problem(why, "className", "there is no policy class \"%.*s\"", STR_FMT(name));
		snprintf(next->trouble, sizeof(next->trouble), "%.190s", why->text);
		return c->settings.lenient;
	}
	if (!next->class->is_enforced) {
		next->enable = read_enable(r);
		return true;
	}
	next->conf = conf_new(next->class, r, why);
	if (next->conf) {
		next->enable = next->conf->enable;
		return true;
	}
	snprintf(next->trouble, sizeof(next->trouble), "%.80s: %.110s", why->field, why->text);
	return c->settings.lenient;
}

bool policy_change(struct compiler *c, const struct change *change, struct problem *why)
{
	const struct resource *r = change->after ? change->after : change->before;
	struct policy_state next = { 0 }, *p;
	bool is_other;

	if (change->after && !read_policy(c, change->after, &next, why))
		return false;
	p = policy_get(c, r->id);
	if (p->conf)
		part_drop(&p->conf->part);
	claims_mark(c, p->class);
	claims_mark(c, next.class);
	is_other = p->class != next.class;
	p->class = next.class;
	p->conf = next.conf;
	p->enable = next.enable;
	memcpy(p->trouble, next.trouble, sizeof(p->trouble));
	LIST_EACH(node, &p->attachments) {
		struct attachment_state *a = CONTAINER(node, struct attachment_state, of_policy);

		mark_attachment(c, a);
		judge(c, a);
		/* Of another class, or gone: it may have kept others from acting. */
		for (unsigned i = 0; is_other && i < a->n_links; i++)
			judge_attached(c, a->links[i].resource_id);
	}
	policy_forget(c, p);
	return true;
}

/* What is compiled from what the policy refers to is made anew as well. */
static void recheck(struct compiler *c, struct attachment_state *a)
{
	mark_attachment(c, a);
	judge(c, a);
}

static bool recheck_user(void *arg, struct resource *r)
{
	struct compiler *c = arg;
	struct policy_state *p = r->kind == RESOURCE_POLICY ? map_get(&c->policy_states, r->id) : NULL;

	if (!p)
		return true;
	LIST_EACH(node, &p->attachments)
		recheck(c, CONTAINER(node, struct attachment_state, of_policy));
	return true;
}

void attachments_rebind(struct compiler *c, struct str gateway_id)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->attachment_states, &i));) {
		const struct attachment_state *a = e->value;

		if (a->policy->class && a->policy->class->bind && str_equal(a->gateway_id, gateway_id))
			mark_attachment(c, a);
	}
}

void attachments_recheck_gateway(struct compiler *c, struct str gateway_id)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->attachment_states, &i));) {
		struct attachment_state *a = e->value;

		if ((a->scope & (SCOPE_SERVICE | SCOPE_SERVICE_PORT)) && str_equal(a->gateway_id, gateway_id))
			recheck(c, a);
	}
}

void attachments_recheck(struct compiler *c, const struct resource *changed)
{
	judge_attached(c, changed->id);
	if (changed->kind == RESOURCE_SERVICE || changed->kind == RESOURCE_CERTIFICATE ||
	    changed->kind == RESOURCE_DOMAIN)
		model_referrers(c->model, changed->kind, changed->id, recheck_user, c);
	identity_recheck(c, changed);
}

void policies_free(struct compiler *c)
{
	struct map_entry *e;

	for (size_t i = 0; (e = map_next(&c->attachment_states, &i));) {
		struct attachment_state *a = e->value;

		arena_free(&a->arena);
		mem_free(a);
	}
	for (size_t i = 0; (e = map_next(&c->attached, &i));)
		mem_free(e->value);
	for (size_t i = 0; (e = map_next(&c->policy_states, &i));) {
		struct policy_state *p = e->value;

		if (p->conf)
			part_drop(&p->conf->part);
		mem_free(p);
	}
	map_free(&c->attachment_states);
	map_free(&c->attached);
	map_free(&c->policy_states);
}
