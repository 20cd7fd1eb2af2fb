/*
 * model.c -- a slot for each resource, whatever its version, and edges between slots.
 *
 *      slots: "kind id" ──► slot { now, edges[] ──► other slots, users ◄── edges of others }
 *      names: "kind scope scope name" ──► slot
 *      by_age[kind]: slots in order of creation
 *
 * A slot without a version stays while something points at it: a policy may name a service that does not exist.
 */
#include "control/model.h"
#include "control/refs.h"
#include "control/resource.h"
#include "core/mem.h"

struct edge {
	struct list node;                 /* in to->users */
	struct slot *from, *to;
};

struct slot {
	enum resource_kind kind;
	struct str key;                   /* kind byte and id, behind this struct */
	struct resource *now;
	struct list users;
	struct edge *edges;
	unsigned n_edges, n_users;
	struct sbuf name;                 /* key in names; empty when there is none */
};

struct order {
	struct slot **slots;
	size_t n, cap;
};

struct model {
	struct map slots, names;
	struct order by_age[RESOURCE_COUNT];
	uint64_t age;
};

struct resource *resource_new(enum resource_kind kind, struct str id)
{
	struct resource *r = mem_alloc(sizeof *r + id.n + 1);
	char *text = (char *)(r + 1);

	if (id.n)
		memcpy(text, id.p, id.n);
	r->kind = kind;
	r->arena.is_small = true;
	r->id = (struct str){ text, id.n };
	r->name = STR("");
	r->refs = 1;
	return r;
}

void resource_hold(struct resource *r)
{
	if (r)
		r->refs++;
}

void resource_drop(struct resource *r)
{
	if (!r || --r->refs)
		return;
	arena_free(&r->arena);
	mem_free(r);
}

struct model *model_new(void)
{
	return MEM_NEW(struct model);
}

static struct str slot_key(enum resource_kind kind, struct str id, struct sbuf *b)
{
	b->n = 0;
	sbuf_addc(b, (char)('A' + (int)kind));
	sbuf_add(b, id);
	return sbuf_str(b);
}

static struct slot *find_slot(const struct model *m, enum resource_kind kind, struct str id)
{
	char small[96];

	if (id.n < sizeof small) {
		small[0] = (char)('A' + (int)kind);
		if (id.n)
			memcpy(small + 1, id.p, id.n);
		return map_get(&m->slots, (struct str){ small, id.n + 1 });
	}
	struct sbuf b = { 0 };
	struct slot *s = map_get(&m->slots, slot_key(kind, id, &b));

	sbuf_free(&b);
	return s;
}

static struct slot *make_slot(struct model *m, enum resource_kind kind, struct str id)
{
	struct slot *s = find_slot(m, kind, id);

	if (s)
		return s;
	s = mem_alloc(sizeof *s + id.n + 1);
	char *key = (char *)(s + 1);

	key[0] = (char)('A' + (int)kind);
	if (id.n)
		memcpy(key + 1, id.p, id.n);
	s->kind = kind;
	s->key = (struct str){ key, id.n + 1 };
	list_init(&s->users);
	map_put(&m->slots, s->key, s);
	return s;
}

static void free_slot(struct slot *s)
{
	sbuf_free(&s->name);
	mem_free(s->edges);
	mem_free(s);
}

static void forget_if_unused(struct model *m, struct slot *s)
{
	if (s->now || s->n_users)
		return;
	map_remove(&m->slots, s->key);
	free_slot(s);
}

void model_free(struct model *m)
{
	struct map_entry *e;

	if (!m)
		return;
	for (size_t i = 0; (e = map_next(&m->slots, &i));) {
		struct slot *s = e->value;

		resource_drop(s->now);
		free_slot(s);
	}
	map_free(&m->slots);
	map_free(&m->names);
	for (unsigned kind = 0; kind < RESOURCE_COUNT; kind++)
		mem_free(m->by_age[kind].slots);
	mem_free(m);
}

struct resource *model_get(const struct model *m, enum resource_kind kind, struct str id)
{
	const struct slot *s = find_slot(m, kind, id);

	return s ? s->now : NULL;
}

uint64_t model_new_age(struct model *m)
{
	return ++m->age;
}

size_t model_count(const struct model *m, enum resource_kind kind)
{
	return m->by_age[kind].n;
}

struct resource *model_next(const struct model *m, enum resource_kind kind, size_t *i)
{
	const struct order *o = &m->by_age[kind];

	return *i < o->n ? o->slots[(*i)++]->now : NULL;
}

/* Where the resource of that age stands, or would. */
static size_t find_age(const struct order *o, uint64_t age)
{
	size_t low = 0, high = o->n;

	if (high && o->slots[high - 1]->now->age < age)
		return high;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (o->slots[middle]->now->age < age)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void order_insert(struct order *o, struct slot *s, uint64_t age)
{
	size_t at = find_age(o, age);

	if (o->n == o->cap) {
		o->cap = o->cap ? o->cap * 2 : 16;
		o->slots = mem_resize(o->slots, o->cap * sizeof(struct slot *));
	}
	memmove(o->slots + at + 1, o->slots + at, (o->n - at) * sizeof(struct slot *));
	o->slots[at] = s;
	o->n++;
}

static void order_remove(struct order *o, const struct slot *s)
{
	size_t at = find_age(o, s->now->age);

	BUG_ON(at >= o->n || o->slots[at] != s);
	memmove(o->slots + at, o->slots + at + 1, (o->n - at - 1) * sizeof(struct slot *));
	o->n--;
	if (o->cap > 256 && o->n < o->cap / 8) {
		o->cap /= 4;
		o->slots = mem_resize(o->slots, o->cap * sizeof(struct slot *));
	}
}

/* ---------- names ---------- */

static void write_name_key(
	struct sbuf *b, const struct resource_class *class, const struct str *scope, struct str name)
{
	b->n = 0;
	sbuf_addc(b, (char)('A' + (int)class->kind));
	for (unsigned i = 0; i < 2 && class->scope[i]; i++) {
		sbuf_add(b, scope[i]);
		sbuf_addc(b, '\n');
	}
	sbuf_add(b, name);
}

struct resource *model_find(
	const struct model *m, enum resource_kind kind, const struct str *scope, struct str name)
{
	struct sbuf key = { 0 };

	write_name_key(&key, resource_classes[kind], scope, name);
	const struct slot *s = map_get(&m->names, sbuf_str(&key));

	sbuf_free(&key);
	return s ? s->now : NULL;
}

static void name_slot(struct model *m, struct slot *s)
{
	const struct resource_class *class = resource_classes[s->kind];
	struct str scope[2] = { { NULL, 0 }, { NULL, 0 } };

	if (!class->has_unique_name || !s->now->name.n)
		return;
	for (unsigned i = 0; i < 2 && class->scope[i]; i++)
		scope[i] = json_text(s->now->doc, class->scope[i]);
	write_name_key(&s->name, class, scope, s->now->name);
	map_put(&m->names, sbuf_str(&s->name), s);
}

static void unname_slot(struct model *m, struct slot *s)
{
	if (s->name.n && map_get(&m->names, sbuf_str(&s->name)) == s)
		map_remove(&m->names, sbuf_str(&s->name));
	s->name.n = 0;
}

/* ---------- edges ---------- */

struct linking {
	struct model *m;
	struct slot *from;
	unsigned cap;
};

static bool add_edge(void *arg, const struct ref *ref)
{
	struct linking *l = arg;
	struct slot *from = l->from;

	if (from->n_edges == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 4;
		from->edges = mem_resize(from->edges, l->cap * sizeof(struct edge));
	}
	from->edges[from->n_edges++] = (struct edge){ .from = from, .to = make_slot(l->m, ref->kind, ref->id) };
	return true;
}

static void link_slot(struct model *m, struct slot *s)
{
	struct linking l = { .m = m, .from = s };

	refs_each(s->kind, s->now->doc, add_edge, &l);
	if (s->n_edges < l.cap)
		s->edges = mem_resize(s->edges, s->n_edges * sizeof(struct edge));
	for (unsigned i = 0; i < s->n_edges; i++) {
		list_append(&s->edges[i].to->users, &s->edges[i].node);
		s->edges[i].to->n_users++;
	}
}

static void unlink_slot(struct model *m, struct slot *s)
{
	for (unsigned i = 0; i < s->n_edges; i++) {
		struct slot *to = s->edges[i].to;

		list_remove(&s->edges[i].node);
		to->n_users--;
		if (to != s)
			forget_if_unused(m, to);
	}
	mem_free(s->edges);
	s->edges = NULL;
	s->n_edges = 0;
}

void model_referrers(const struct model *m, enum resource_kind kind, struct str id,
                     bool (*each)(void *arg, struct resource *r), void *arg)
{
	const struct slot *s = find_slot(m, kind, id);
	const struct slot *last = NULL;

	if (!s)
		return;
	LIST_EACH(node, &s->users) {
		const struct slot *from = CONTAINER(node, struct edge, node)->from;

		/* Edges of one resource to one other stand together. */
		if (from != last && from->now && !each(arg, from->now))
			return;
		last = from;
	}
}

/* ---------- changes ---------- */

static void set_version(struct model *m, struct resource *before, struct resource *after)
{
	const struct resource *any = after ? after : before;
	struct slot *s = make_slot(m, any->kind, any->id);

	BUG_ON(s->now != before);
	if (before) {
		unname_slot(m, s);
		if (!after)
			order_remove(&m->by_age[s->kind], s);
	}
	resource_hold(after);
	s->now = after;
	if (before)
		unlink_slot(m, s);
	if (after) {
		if (!before)
			order_insert(&m->by_age[s->kind], s, after->age);
		if (after->age > m->age)
			m->age = after->age;
		name_slot(m, s);
		link_slot(m, s);
	} else {
		forget_if_unused(m, s);
	}
	resource_drop(before);
}

void model_apply(struct model *m, const struct change *c)
{
	set_version(m, c->before, c->after);
}

void model_undo(struct model *m, const struct change *c)
{
	set_version(m, c->after, c->before);
}
