/*
 * compile_chain.c -- the chains of one resource: its attachments, sorted into the legs of their hooks.
 *
 * An operation has the attachments of its API too, but for classes that it has an acting attachment of
 * itself; their cells are its own, so counters of an API count for each operation. A disabled policy has no
 * step; it only hides broader ones where its class says that the most specific attachment wins whole,
 * disabled or not.
 */
#include "ai/chat_conf.h"
#include "control/compile_state.h"
#include "core/mem.h"

struct entry {
	const struct attachment_state *attachment;
	const struct policy_class *class;
	struct conf *conf;
	struct cell *cell;                /* NULL = the class has none */
	struct part *bound;
	struct tally *tally;
};

struct entries {
	struct arena scratch;
	struct entry *list;
	unsigned n, cap;
};

/* ---------- which attachments count ---------- */

static const struct entry *find_class(const struct entries *all, unsigned from, unsigned to,
				      const struct policy_class *class)
{
	for (unsigned i = from; i < to; i++)
		if (all->list[i].class == class)
			return &all->list[i];
	return NULL;
}

static void add_entry(struct entries *all, struct entry e)
{
	if (all->n == all->cap) {
		unsigned cap = all->cap ? 2 * all->cap : 8;
		struct entry *list = NEW_N(&all->scratch, struct entry, cap);

		if (all->n)
			memcpy(list, all->list, all->n * sizeof(*list));
		all->list = list;
		all->cap = cap;
	}
	all->list[all->n++] = e;
}

/* `before`: how many entries there were when the resource that it is on was begun. */
static enum fate fate_of(const struct entries *all, unsigned before, struct surveyed *of)
{
	const struct attachment_state *a = of->attachment;
	const struct conf *conf = a->policy->conf;
	const struct policy_class *class = a->policy->class;
	const struct entry *winner;

	if (!conf || !class->is_enforced)
		return FATE_UNUSABLE;
	if (!conf->enable && class->combine != COMBINE_OVERRIDE)
		return FATE_ABSENT;
	/* What the operation has itself replaces the API's; of two on one resource the older acts. */
	winner = find_class(all, 0, before, class);
	if (!winner && !class->many_per_resource)
		winner = find_class(all, before, all->n, class);
	of->by = winner ? winner->attachment : NULL;
	return winner ? FATE_REPLACED : FATE_TAKEN;
}

/* visit may be NULL. */
static void collect(struct entries *all, const struct attached *attached, survey_visit *visit, void *arg)
{
	const unsigned before = all->n;

	if (!attached)
		return;
	LIST_EACH(node, &attached->links) {
		const struct attachment_state *a = CONTAINER(node, struct attachment_link, node)->attachment;
		struct surveyed of = { .attachment = a, .resource_id = attached->id };

		of.fate = fate_of(all, before, &of);
		if (of.fate == FATE_TAKEN)
			add_entry(all, (struct entry){ .attachment = a, .class = a->policy->class,
						       .conf = a->policy->conf });
		if (visit)
			visit(arg, &of);
	}
}

void policies_survey(const struct compiler *c, const struct bearer *on, survey_visit *visit, void *arg)
{
	struct entries all = { 0 };

	collect(&all, attached_find(c, on->id), visit, arg);
	if (on->parent_id.n)
		collect(&all, attached_find(c, on->parent_id), visit, arg);
	arena_free(&all.scratch);
}

/* ---------- state ---------- */

static void destroy_cell(struct part *p)
{
	struct cell *cell = CONTAINER(CONTAINER(p, struct kept, part), struct cell, kept);

	kept_leave(&cell->kept);
	list_remove(&cell->of_compiler);
	/* First: until then workers may speak of the dependency. */
	if (cell->conf->class->cell_free)
		cell->conf->class->cell_free(cell->memory);
	if (cell->up)
		metric_series_drop(cell->up);
	part_drop(&cell->conf->part);
	mem_free(cell->memory);
	mem_free(cell);
}

static struct cell *cell_new(struct conf *conf)
{
	const struct policy_class *class = conf->class;
	struct cell *cell = MEM_NEW(struct cell);

	cell->kept.part = (struct part){ 1, destroy_cell };
	list_init(&cell->of_compiler);
	cell->conf = conf;
	part_hold(&conf->part);
	cell->memory = mem_alloc_aligned(64, (class->cell_size + 63) / 64 * 64);
	return cell;
}

/* What it depends on is shown from now on. Its key begins with the attachment's id. */
static void watch_dependency(struct compiler *c, struct cell *cell, const struct entry *e, const struct bearer *on)
{
	struct dependency *d = (struct dependency *)((char *)cell->memory + e->class->dependency_at);

	cell->up = metric_series(METRIC_DEPENDENCY_UP, (struct str[]){
		e->conf->policy_id, e->attachment->id, on->name.n ? on->name : on->id, str_of(e->class->dependency) });
	metric_set(cell->up, 1);
	d->up = cell->up;
	cell->dependency = d;
	cell->attachment_id = (struct str){ cell->kept.key.p, e->attachment->id.n };
	list_append(&c->dependencies, &cell->of_compiler);
}

/* A reference to the cell of this attachment on this resource; the one there was when it may go on. */
static struct cell *cell_get(struct compiler *c, const struct entry *e, const struct bearer *on)
{
	struct sbuf key = { 0 };
	struct kept *found;
	struct cell *cell;

	sbuf_add(&key, e->attachment->id);
	sbuf_addc(&key, '\n');
	sbuf_add(&key, on->id);
	found = kept_find(&c->cells, sbuf_str(&key));
	cell = found ? CONTAINER(found, struct cell, kept) : NULL;
	if (cell && cell->conf->class == e->class &&
	    (e->class->cell_keeps || str_equal(cell->conf->canonical, e->conf->canonical))) {
		part_hold(&cell->kept.part);
	} else {
		cell = cell_new(e->conf);
		kept_enter(&cell->kept, &c->cells, sbuf_str(&key));
		/* Before its init: that may let workers speak of the dependency. */
		if (e->class->dependency && (!e->class->asks_issuers || e->class->asks_issuers(e->conf->conf)))
			watch_dependency(c, cell, e, on);
		if (e->class->cell_init)
			e->class->cell_init(cell->memory, e->conf->conf);
	}
	sbuf_free(&key);
	return cell;
}

static void destroy_tally(struct part *p)
{
	struct tally *tally = CONTAINER(CONTAINER(p, struct kept, part), struct tally, kept);

	kept_leave(&tally->kept);
	for (unsigned i = 0; i <= POLICY_OUTCOMES; i++)
		if (tally->series[i])
			metric_series_drop(tally->series[i]);
	mem_free(tally);
}

static struct tally *tally_new(const struct entry *e, const struct bearer *on)
{
	struct tally *tally = MEM_NEW(struct tally);

	tally->kept.part = (struct part){ 1, destroy_tally };
	for (unsigned i = 0; i < POLICY_OUTCOMES; i++) {
		const char *outcome = e->class->outcomes[i];

		if (!outcome)
			continue;
		tally->series[i] = metric_series(METRIC_POLICY_OUTCOMES, (struct str[]){
			e->conf->policy_name, e->attachment->id, on->name.n ? on->name : on->id, str_of(outcome) });
	}
	if (e->class->measure)
		tally->series[POLICY_OUTCOMES] = metric_series(e->class->gauge, (struct str[]){
			e->conf->policy_name, e->attachment->id, on->name.n ? on->name : on->id });
	return tally;
}

static struct tally *tally_get(struct compiler *c, const struct entry *e, const struct bearer *on)
{
	const struct str parts[] = { e->conf->policy_name, e->attachment->id, on->id, on->name };
	struct sbuf key = { 0 };
	struct kept *found;
	struct tally *tally;

	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		sbuf_add(&key, parts[i]);
		sbuf_addc(&key, '\n');
	}
	found = kept_find(&c->tallies, sbuf_str(&key));
	if (found) {
		tally = CONTAINER(found, struct tally, kept);
		part_hold(&tally->kept.part);
	} else {
		tally = tally_new(e, on);
		kept_enter(&tally->kept, &c->tallies, sbuf_str(&key));
	}
	sbuf_free(&key);
	return tally;
}

/* ---------- legs ---------- */

bool policy_hook(const struct policy_class *class, enum level level, enum leg leg, hook **run)
{
	const bool is_service = level == LEVEL_SERVICE;

	*run = NULL;
	switch (leg) {
	case LEG_CONNECT:
		return class->connect && !is_service;
	case LEG_REQUEST:
		*run = is_service ? NULL : class->request;
		break;
	case LEG_SERVICE:
		*run = is_service ? class->service : NULL;
		break;
	case LEG_ATTEMPT:
		*run = level == LEVEL_ROUTE || is_service ? class->attempt : NULL;
		break;
	case LEG_RESPONSE:
		*run = class->response;
		break;
	case LEG_DATA:
		*run = class->data;
		break;
	case LEG_COUNT:
		break;
	}
	return *run != NULL;
}

unsigned policy_order(const struct policy_class *class, enum leg leg)
{
	if (leg == LEG_SERVICE || leg == LEG_ATTEMPT)
		return class->service_stage;
	return leg == LEG_RESPONSE || leg == LEG_DATA ? (unsigned)class->response_stage : (unsigned)class->stage;
}

/* Into `steps` (of n so far), behind its equals: entries arrive broad before narrow, older first. */
static void insert_step(struct step *steps, unsigned n, struct step s)
{
	while (n > 0 && steps[n - 1].order > s.order) {
		steps[n] = steps[n - 1];
		n--;
	}
	steps[n] = s;
}

static bool wants_body(const struct policy_class *class, enum leg leg)
{
	return (class->wants & WANTS_REQUEST_BODY) && !class->body && (leg == LEG_REQUEST || leg == LEG_SERVICE);
}

static struct step make_step(struct policies *p, const struct entry *e, const struct bearer *on, enum leg leg)
{
	return (struct step){
		.class = e->class,
		.conf = e->conf->conf,
		.cell = e->cell ? e->cell->memory : NULL,
		.bound = e->bound,
		.series = e->tally->series,
		.policy_id = e->conf->policy_id,
		.policy_name = e->conf->policy_name,
		.attachment_id = arena_copy(&p->arena, e->attachment->id),
		.needs_body = wants_body(e->class, leg),
		.order = (uint8_t)policy_order(e->class, leg),
		.level = (uint8_t)on->level,
		.class_index = (uint8_t)policy_class_index(e->class),
	};
}

static bool has_body_step(const struct entry *e, const struct bearer *on, enum leg leg)
{
	return leg == LEG_REQUEST && on->level != LEVEL_SERVICE && e->class->body;
}

/* What ai/ does with requests and answers: a step of no attachment. */
#define CHAT_CLASS_INDEX 63               /* no policy class has it, so that nothing hides the step */

static unsigned add_chat_step(struct step *steps, unsigned n, const struct bearer *on, enum leg leg)
{
	hook *run;

	if (!policy_hook(&chat_step, on->level, leg, &run))
		return n;
	insert_step(steps, n, (struct step){
		.class = &chat_step, .run = run, .conf = &chat_step, .needs_body = wants_body(&chat_step, leg),
		.order = (uint8_t)policy_order(&chat_step, leg), .level = (uint8_t)on->level,
		.class_index = CHAT_CLASS_INDEX,
	});
	return n + 1;
}

static struct chain make_chain(struct policies *p, const struct entries *all, const struct bearer *on, enum leg leg)
{
	struct step *steps = NULL;
	struct str resource_id = on->id;
	unsigned n = 0;
	hook *run;

	if (on->is_ai) {
		steps = NEW_N(&p->arena, struct step, 2 * all->n + 1);
		resource_id = arena_copy(&p->arena, on->id);
		n = add_chat_step(steps, n, on, leg);
	}

	for (unsigned i = 0; i < all->n; i++) {
		const struct entry *e = &all->list[i];
		bool runs = policy_hook(e->class, on->level, leg, &run), reads = has_body_step(e, on, leg);
		struct step step;

		if (!e->conf->enable || !(runs || reads))
			continue;
		if (!steps) {
			steps = NEW_N(&p->arena, struct step, 2 * (all->n - i));
			resource_id = arena_copy(&p->arena, on->id);
		}
		step = make_step(p, e, on, leg);
		step.resource_id = resource_id;
		step.run = run;
		if (runs)
			insert_step(steps, n++, step);
		step.run = e->class->body;
		step.order = (uint8_t)e->class->body_stage;
		step.needs_body = true;
		if (reads)
			insert_step(steps, n++, step);
	}
	return (struct chain){ steps, n };
}

/* ---------- the whole ---------- */

static void destroy_policies(struct part *part)
{
	struct policies *p = CONTAINER(part, struct policies, part);

	parts_drop(p->held, p->n_held);
	arena_free(&p->arena);
	mem_free(p);
}

struct step step_compile(struct compiler *c, const struct attachment_state *a, const struct bearer *on,
			 struct part **held, unsigned *n_held)
{
	struct entry e = { .attachment = a, .class = a->policy->class, .conf = a->policy->conf };

	part_hold(&e.conf->part);
	held[(*n_held)++] = &e.conf->part;
	if (e.class->cell_size) {
		e.cell = cell_get(c, &e, on);
		held[(*n_held)++] = &e.cell->kept.part;
	}
	e.tally = tally_get(c, &e, on);
	held[(*n_held)++] = &e.tally->kept.part;
	return (struct step){
		.class = e.class,
		.conf = e.conf->conf,
		.cell = e.cell ? e.cell->memory : NULL,
		.series = e.tally->series,
		.policy_id = e.conf->policy_id,
		.policy_name = e.conf->policy_name,
		.attachment_id = a->id,
		.resource_id = on->id,
		.order = (uint8_t)e.class->stage,
		.level = (uint8_t)on->level,
		.class_index = (uint8_t)policy_class_index(e.class),
	};
}

static void take_entry(struct compiler *c, struct policies *p, struct entry *e, const struct bearer *on)
{
	const struct policy_class *class = e->class;

	part_hold(&e->conf->part);
	p->held[p->n_held++] = &e->conf->part;
	if (class->apply) {
		class->apply(e->conf->conf, &p->settings);
		p->settings.shapes_attempts =
			p->settings.has_timeout || p->settings.has_retry || p->settings.has_fallback;
	}
	if (class->combine == COMBINE_OVERRIDE || (class->combine == COMBINE_SPECIFIC && e->conf->enable))
		p->hides |= UINT64_C(1) << policy_class_index(class);
	if (!e->conf->enable)
		return;
	p->wants |= class->wants;
	if (class->cell_size) {
		e->cell = cell_get(c, e, on);
		p->held[p->n_held++] = &e->cell->kept.part;
	}
	if (class->bind) {
		e->bound = attachment_bind(c, e->attachment, on->id, e->cell ? e->cell->memory : NULL);
		if (e->bound)
			p->held[p->n_held++] = e->bound;
	}
	e->tally = tally_get(c, e, on);
	p->held[p->n_held++] = &e->tally->kept.part;
	if (class->setting)
		p->settings.counts[class->setting] = e->tally->series;
	/* The cell may be another one than the series told of. */
	if (class->measure)
		metric_set(e->tally->series[POLICY_OUTCOMES], class->measure(e->cell->memory));
}

struct policies *policies_compile(struct compiler *c, const struct bearer *on)
{
	struct entries all = { 0 };
	struct policies *p = (struct policies *)(uintptr_t)&policies_none;
	struct bearer bearer = *on;
	unsigned own;

	collect(&all, attached_find(c, on->id), NULL, NULL);
	own = all.n;
	if (on->parent_id.n)
		collect(&all, attached_find(c, on->parent_id), NULL, NULL);
	for (unsigned i = 0; i < all.n; i++)
		bearer.is_ai = bearer.is_ai || (all.list[i].conf->enable && (all.list[i].class->wants & WANTS_CHAT));
	if (all.n || bearer.is_ai) {
		/* Broad before narrow: the inherited ones to the front. */
		struct entry *list = NEW_N(&all.scratch, struct entry, all.n);

		if (all.n) {
			memcpy(list, all.list + own, (all.n - own) * sizeof(*list));
			memcpy(list + (all.n - own), all.list, own * sizeof(*list));
		}
		all.list = list;
		p = MEM_NEW(struct policies);
		p->part = (struct part){ 1, destroy_policies };
		p->arena.is_small = true;
		p->held = mem_alloc(4 * all.n * sizeof(struct part *));
		for (unsigned i = 0; i < all.n; i++)
			take_entry(c, p, &all.list[i], on);
		for (unsigned leg = 0; leg < LEG_COUNT; leg++)
			p->legs[leg] = make_chain(p, &all, &bearer, (enum leg)leg);
	}
	arena_free(&all.scratch);
	return p;
}

struct policies *policies_hold(struct policies *p)
{
	if (p != &policies_none)
		part_hold(&p->part);
	return p;
}

void policies_drop(struct policies *p)
{
	if (p && p != &policies_none)
		part_drop(&p->part);
}
