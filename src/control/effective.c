#include "control/effective.h"
#include "proxy/exchange.h"

const char *const effective_groups[GROUP_COUNT] = {
	[GROUP_CONNECT] = "connect", [GROUP_REQUEST] = "request", [GROUP_SERVICE] = "service",
	[GROUP_SETTING] = "setting", [GROUP_ATTEMPT] = "attempt", [GROUP_RESPONSE] = "response",
	[GROUP_DATA] = "data",
};

static const struct group_leg {
	enum effective_group group;
	enum leg leg;
} group_legs[] = {
	{ GROUP_CONNECT, LEG_CONNECT }, { GROUP_REQUEST, LEG_REQUEST }, { GROUP_SERVICE, LEG_SERVICE },
	{ GROUP_ATTEMPT, LEG_ATTEMPT }, { GROUP_RESPONSE, LEG_RESPONSE }, { GROUP_DATA, LEG_DATA },
};
#define N_GROUP_LEGS (sizeof group_legs / sizeof group_legs[0])

const char *effect_name(enum effect e)
{
	static const char *const names[] = {
		[EFFECT_RUNS] = "Runs", [EFFECT_HIDDEN] = "Hidden", [EFFECT_OPTS_OUT] = "OptsOut",
		[EFFECT_DISABLED] = "Disabled", [EFFECT_CANNOT] = "CannotRun",
	};

	return names[e];
}

/* ---------- rows ---------- */

/* Of equal order the broader one first; an API is broader than its operation. */
static unsigned rank_of(const struct effective_row *row)
{
	return 2 * row->level + (row->port || (row->level == LEVEL_ROUTE && row->attachment->scope != SCOPE_API));
}

/* Before the first row that acts later: rows of one leg and one service stand together. */
static void insert_row(struct effective *e, struct effective_row row)
{
	unsigned at = e->n;

	if (e->n == e->room) {
		unsigned room = e->room ? 2 * e->room : 16;
		struct effective_row *rows = NEW_N(e->arena, struct effective_row, room);

		if (e->n)
			memcpy(rows, e->rows, e->n * sizeof *rows);
		e->rows = rows;
		e->room = room;
	}
	for (; at > 0; at--) {
		const struct effective_row *before = &e->rows[at - 1];

		if (before->group != row.group ? before->group < row.group :
		    before->service != row.service || before->order < row.order ||
		    (before->order == row.order && rank_of(before) <= rank_of(&row)))
			break;
		e->rows[at] = *before;
	}
	e->rows[at] = row;
	e->n++;
}

/* ---------- what runs ---------- */

static const struct attachment_state *attachment_of(const struct compiler *c, const struct step *s)
{
	return map_get(&c->attachment_states, s->attachment_id);
}

static struct str name_of(const struct effective *e, enum level level, struct str resource_id)
{
	const struct resource *api;

	switch (level) {
	case LEVEL_GATEWAY:
		return gateway_name(e->compiler, e->gateway->id);
	case LEVEL_DOMAIN:
		return e->domain ? e->domain->name : (struct str){ NULL, 0 };
	case LEVEL_ROUTE:
		api = model_get(e->compiler->model, RESOURCE_API, resource_id);
		return api ? api->name : e->route->name;
	case LEVEL_COUNT:
		break;
	}
	return (struct str){ NULL, 0 };
}

static void add_step(struct effective *e, const struct step *s, enum effective_group group,
		     const struct service *service)
{
	const struct attachment_state *a = attachment_of(e->compiler, s);

	/* What ai/ does for all of them is no attachment's. */
	if (!a)
		return;
	/* In the chains of an operation, what it inherits is its own. */
	struct str on = a->scope == SCOPE_API && e->parent_id.n ? e->parent_id : s->resource_id;

	insert_row(e, (struct effective_row){
		.attachment = a, .class = s->class, .resource_id = on,
		.resource_name = service ? service->name : name_of(e, (enum level)s->level, on),
		.service = service, .step = s, .group = group, .order = s->order,
		.level = (enum level)s->level, .effect = EFFECT_RUNS,
	});
}

/* As a request walks it. */
static void add_leg(struct effective *e, struct exchange *x, struct group_leg of, const struct service *service)
{
	const struct step *s;

	x->service = service;
	walk_open(x, of.leg);
	while ((s = walk_next(x)))
		add_step(e, s, of.group, service);
}

/* Lists of a gateway that has a listener alone are judged when a connection is accepted. */
static void add_connect(struct effective *e)
{
	const struct gateway_state *g = e->gateway;

	for (unsigned i = 0; i < g->n_bindings; i++) {
		const struct binding *b = g->bindings[i]->binding;
		const struct chain *chain = b && b->only == g->gateway ? &b->only->policies->legs[LEG_CONNECT] : NULL;

		for (unsigned k = 0; chain && k < chain->n; k++)
			if (!chain->steps[k].class->connects ||
			    chain->steps[k].class->connects(chain->steps[k].conf))
				add_step(e, &chain->steps[k], GROUP_CONNECT, NULL);
		if (chain)
			return;
	}
}

static const struct service *service_at(const struct effective *e, unsigned target)
{
	const struct target *t = &e->route->targets[target];
	struct part *found;

	for (unsigned i = 0; i < target; i++)
		if (str_equal(e->route->targets[i].service_id, t->service_id))
			return NULL;       /* had before */
	found = pmap_get_hashed(e->compiler->services, t->service_id, t->hash);
	return found ? CONTAINER(found, struct service, part) : NULL;
}

static void add_running(struct effective *e, const struct site *site)
{
	struct exchange *x = NEW(e->arena, struct exchange);

	x->site = site;
	x->route = e->route;
	exchange_hide(x);
	add_connect(e);
	for (unsigned i = 0; i < N_GROUP_LEGS; i++) {
		enum leg leg = group_legs[i].leg;

		if (leg != LEG_CONNECT && leg != LEG_SERVICE && leg != LEG_ATTEMPT)
			add_leg(e, x, group_legs[i], NULL);
	}
}

/* ---------- what is attached ---------- */

/* One resource of the way, for policies_survey(). */
struct survey {
	struct effective *effective;
	enum level level;
	struct str id, name;
	const struct service *service;
	uint16_t port;
};

static bool is_running(const struct effective *e, const struct effective_row *row)
{
	for (unsigned i = 0; i < e->n; i++)
		if (e->rows[i].attachment == row->attachment && e->rows[i].group == row->group &&
		    e->rows[i].service == row->service)
			return true;
	return false;
}

/* By what the chains of narrower levels hide; of settings a service is the broadest. */
static bool is_hidden(const struct effective *e, const struct effective_row *row)
{
	uint64_t hidden = row->level == LEVEL_ROUTE ? 0 : e->route->policies->hides;

	if (row->level == LEVEL_GATEWAY && e->domain)
		hidden |= e->domain->policies->hides;
	return hidden >> policy_class_index(row->class) & 1;
}

static struct effective_row row_of(const struct survey *on, const struct surveyed *s)
{
	const struct resource *api = model_get(on->effective->compiler->model, RESOURCE_API, s->resource_id);
	bool is_inherited = !str_equal(s->resource_id, on->id);

	return (struct effective_row){
		.attachment = s->attachment, .hidden_by = s->by, .class = s->attachment->policy->class,
		.resource_id = s->resource_id, .resource_name = is_inherited && api ? api->name : on->name,
		.service = on->service, .port = on->port, .level = on->level,
	};
}

/* The first leg of the class at this level; false when it has none. */
static bool find_leg(struct effective_row *row)
{
	hook *unused;

	for (unsigned i = 1; i < N_GROUP_LEGS; i++) {
		if (!policy_hook(row->class, row->level, group_legs[i].leg, &unused))
			continue;
		row->group = group_legs[i].group;
		row->order = policy_order(row->class, group_legs[i].leg);
		return true;
	}
	return false;
}

/* What does not act: in the place where it would. */
static void add_idle(struct effective *e, struct effective_row row, enum effect effect)
{
	row.effect = effect;
	row.group = GROUP_REQUEST;
	row.order = row.class ? (unsigned)row.class->stage : 0;
	if (row.class && (row.class->apply || row.class->stage == STAGE_SETTING)) {
		row.group = GROUP_SETTING;
		row.order = policy_class_index(row.class);
	} else if (row.class) {
		find_leg(&row);
	}
	insert_row(e, row);
}

static void add_setting(struct effective *e, struct effective_row row, bool enable)
{
	row.group = GROUP_SETTING;
	row.order = policy_class_index(row.class);
	row.effect = is_hidden(e, &row) ? EFFECT_HIDDEN : enable ? EFFECT_RUNS : EFFECT_OPTS_OUT;
	insert_row(e, row);
}

/* In the compiled chains, unless a narrower level hides it: then in none of the walked ones. */
static void add_taken(struct effective *e, struct effective_row row)
{
	bool enable = row.attachment->policy->conf->enable, is_seen = false;

	if (row.class->apply) {
		add_setting(e, row, enable);
		return;
	}
	if (!enable) {
		add_idle(e, row, is_hidden(e, &row) ? EFFECT_HIDDEN : EFFECT_OPTS_OUT);
		return;
	}
	for (unsigned i = 0; i < N_GROUP_LEGS && !is_seen; i++) {
		row.group = group_legs[i].group;
		is_seen = is_running(e, &row);
	}
	if (!is_seen)
		add_idle(e, row, is_hidden(e, &row) ? EFFECT_HIDDEN : EFFECT_CANNOT);
}

static void visit(void *arg, const struct surveyed *s)
{
	const struct survey *on = arg;
	struct effective_row row = row_of(on, s);

	switch (s->fate) {
	case FATE_TAKEN:
		add_taken(on->effective, row);
		return;
	case FATE_ABSENT:
		add_idle(on->effective, row, EFFECT_DISABLED);
		return;
	case FATE_UNUSABLE:
		add_idle(on->effective, row, EFFECT_CANNOT);
		return;
	case FATE_REPLACED:
		add_idle(on->effective, row, EFFECT_HIDDEN);
		return;
	}
}

static void survey(struct effective *e, struct survey on, struct str parent_id)
{
	const struct bearer bearer = { on.level, on.id, on.name, parent_id, false };

	on.effective = e;
	policies_survey(e->compiler, &bearer, visit, &on);
}

/* Who keeps a row from acting: the narrowest of its class that is in force. */
static void name_hiders(struct effective *e)
{
	for (unsigned i = 0; i < e->n; i++) {
		struct effective_row *row = &e->rows[i];
		const struct effective_row *best = NULL;

		if (row->effect != EFFECT_HIDDEN || row->hidden_by)
			continue;
		for (unsigned k = 0; k < e->n; k++) {
			const struct effective_row *by = &e->rows[k];
			bool acts = by->effect == EFFECT_RUNS || by->effect == EFFECT_OPTS_OUT;
			/* A service is the broadest where settings are concerned. */
			bool is_narrower = row->level == LEVEL_SERVICE ? by->level != LEVEL_SERVICE :
				by->level != LEVEL_SERVICE && by->level > row->level;

			if (by->class == row->class && acts && is_narrower && (!best || by->level > best->level))
				best = by;
		}
		row->hidden_by = best ? best->attachment : NULL;
	}
}

struct effective *effective_new(const struct compiler *c, const struct route_state *r,
				const struct domain_state *domain, struct arena *a)
{
	struct effective *e = NEW(a, struct effective);
	const struct site *site;

	e->arena = a;
	e->compiler = c;
	e->route = r->route;
	e->parent_id = r->parent_id;
	e->domain = domain;
	e->gateway = map_get(&c->gateway_states, r->placed->gateway_id);
	site = domain ? domain->site : e->gateway->site;
	if (site)
		add_running(e, site);
	survey(e, (struct survey){ .level = LEVEL_GATEWAY, .id = e->gateway->id,
				   .name = gateway_name(c, e->gateway->id) }, (struct str){ NULL, 0 });
	if (domain)
		survey(e, (struct survey){ .level = LEVEL_DOMAIN, .id = domain->id, .name = domain->name },
		       (struct str){ NULL, 0 });
	survey(e, (struct survey){ .level = LEVEL_ROUTE, .id = r->id, .name = r->route->name }, r->parent_id);
	for (unsigned i = 0; i < r->route->n_targets; i++)
		if (service_at(e, i))
			effective_add_service(e, service_at(e, i));
	name_hiders(e);
	return e;
}

/* ---------- services and their ports ---------- */

struct ports {
	struct effective *effective;
	const struct service *service;
};

static bool add_port(void *arg, struct resource *r)
{
	const struct ports *of = arg;
	const struct json *port = json_get(r->doc, "port");

	if (r->kind == RESOURCE_SERVICE_PORT && port)
		survey(of->effective, (struct survey){ .level = LEVEL_SERVICE, .id = r->id, .name = r->name,
						       .service = of->service, .port = (uint16_t)port->integer },
		       (struct str){ NULL, 0 });
	return true;
}

static bool acts(const struct effective_row *row)
{
	return row->effect == EFFECT_RUNS || row->effect == EFFECT_OPTS_OUT;
}

/* A policy of a port takes the place of the service's that makes the same setting. */
static const struct effective_row *find_port_row(const struct effective *e, const struct effective_row *of,
						 uint16_t port)
{
	for (unsigned i = 0; i < e->n; i++) {
		const struct effective_row *row = &e->rows[i];

		if (row->group == GROUP_SETTING && row->service == of->service && row->port == port && acts(row) &&
		    row->class->apply == of->class->apply)
			return row;
	}
	return NULL;
}

/* Settings of the service that no endpoint is left for. */
static void hide_behind_ports(struct effective *e, const struct service *s)
{
	for (unsigned i = 0; i < e->n; i++) {
		struct effective_row *row = &e->rows[i];
		const struct effective_row *by = NULL;
		unsigned left = 0;

		if (row->group != GROUP_SETTING || row->service != s || row->port || !acts(row))
			continue;
		for (unsigned k = 0; k < s->n_endpoints; k++) {
			const struct effective_row *narrower = find_port_row(e, row, s->endpoints[k].port);

			by = narrower ? narrower : by;
			left += !narrower;
		}
		if (left || !by)
			continue;
		row->effect = EFFECT_HIDDEN;
		row->hidden_by = by->attachment;
	}
}

void effective_add_service(struct effective *e, const struct service *s)
{
	struct exchange *x = NEW(e->arena, struct exchange);

	for (unsigned i = 0; i < N_GROUP_LEGS; i++)
		if (group_legs[i].leg == LEG_SERVICE || group_legs[i].leg == LEG_ATTEMPT)
			add_leg(e, x, group_legs[i], s);
	survey(e, (struct survey){ .level = LEVEL_SERVICE, .id = s->id, .name = s->name, .service = s },
	       (struct str){ NULL, 0 });
	model_referrers(e->compiler->model, RESOURCE_SERVICE, s->id, add_port,
			&(struct ports){ .effective = e, .service = s });
	name_hiders(e);
	hide_behind_ports(e, s);
}

/* ---------- as JSON ---------- */

static void put(struct arena *a, struct json *in, const char *name, struct str text)
{
	json_put(a, in, name, json_new_text(a, arena_copy(a, text)));
}

static struct str policy_name(const struct effective *e, const struct attachment_state *a)
{
	const struct resource *policy = model_get(e->compiler->model, RESOURCE_POLICY, a->policy->id);

	return policy ? policy->name : STR("");
}

static void put_attachment(const struct effective *e, struct json *in, const struct attachment_state *a,
			   struct arena *arena)
{
	put(arena, in, "level", str_of(scope_name(a->scope)));
	put(arena, in, "policyId", a->policy->id);
	put(arena, in, "policyName", policy_name(e, a));
	put(arena, in, "attachmentId", a->id);
}

static const char *stage_of(const struct effective_row *row)
{
	if (row->group == GROUP_RESPONSE)
		return response_stage_names[row->order];
	return row->group == GROUP_SETTING ? stage_names[STAGE_SETTING] : stage_names[row->order];
}

static struct json *config_of(const struct effective_row *row, struct arena *a)
{
	return fields_encode(row->class->fields, row->attachment->policy->conf->conf, a);
}

struct json *effective_item(const struct effective *e, const struct effective_row *row, struct arena *a)
{
	struct json *item = json_new(a, JSON_OBJECT), *status = json_new(a, JSON_OBJECT), *by;
	struct status now = compile_attachment_status(e->compiler, row->attachment->id);

	put(a, item, "leg", str_of(effective_groups[row->group]));
	put(a, item, "stage", str_of(stage_of(row)));
	put(a, item, "effect", str_of(effect_name(row->effect)));
	put(a, item, "className", str_of(row->class ? row->class->name : ""));
	put_attachment(e, item, row->attachment, a);
	put(a, item, "resourceId", row->resource_id);
	put(a, item, "resourceName", row->resource_name);
	if (row->port)
		json_put(a, item, "port", json_new_int(a, row->port));
	put(a, status, "phase", str_of(phase_name(now.phase)));
	if (now.reason.n)
		put(a, status, "reason", now.reason);
	json_put(a, item, "status", status);
	if (row->hidden_by) {
		by = json_new(a, JSON_OBJECT);
		put_attachment(e, by, row->hidden_by, a);
		json_put(a, item, "hiddenBy", by);
	}
	if (row->group == GROUP_SETTING && row->effect == EFFECT_RUNS)
		json_put(a, item, "config", config_of(row, a));
	return item;
}

static bool is_in_force(const struct effective *e, const struct effective_row *row, const struct service *s,
			uint16_t port)
{
	if (row->group != GROUP_SETTING || row->effect != EFFECT_RUNS || (row->service && row->service != s))
		return false;
	return port == 0 || (row->port ? row->port == port : !find_port_row(e, row, port));
}

struct json *effective_settings(const struct effective *e, const struct service *s, uint16_t port, struct arena *a)
{
	struct json *list = json_new(a, JSON_ARRAY);

	for (unsigned i = 0; i < e->n; i++) {
		const struct effective_row *row = &e->rows[i];
		struct json *item;

		if (!is_in_force(e, row, s, port))
			continue;
		item = json_new(a, JSON_OBJECT);
		put(a, item, "className", str_of(row->class->name));
		put_attachment(e, item, row->attachment, a);
		if (row->port)
			json_put(a, item, "port", json_new_int(a, row->port));
		json_put(a, item, "config", config_of(row, a));
		json_add(list, item);
	}
	return list;
}
