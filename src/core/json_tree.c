/*
 * json_tree.c -- looking into a tree, and making and changing one.
 *
 * A node stands in one container at a time; `n` and `last` of the container are kept true by json_add,
 * json_put and json_drop, which are the only ones that change the order of siblings.
 */
#include <stdlib.h>
#include "core/json.h"
#include "core/json_scan.h"
#include "core/mem.h"

struct json *json_get_str(const struct json *object, struct str name)
{
	if (!object || object->type != JSON_OBJECT)
		return NULL;
	for (struct json *m = object->child; m; m = m->next)
		if (str_equal(m->name, name))
			return m;
	return NULL;
}

struct json *json_get(const struct json *object, const char *name)
{
	return json_get_str(object, str_of(name));
}

struct str json_text(const struct json *object, const char *name)
{
	const struct json *v = json_get(object, name);

	return v && v->type == JSON_STRING ? v->string : STR("");
}

bool json_is_true(const struct json *object, const char *name)
{
	const struct json *v = json_get(object, name);

	return v && v->type == JSON_BOOL && v->boolean;
}

struct json *json_new(struct arena *a, enum json_type type)
{
	struct json *v = NEW(a, struct json);

	v->type = type;
	return v;
}

struct json *json_new_text(struct arena *a, struct str s)
{
	struct json *v = json_new(a, JSON_STRING);

	v->string = s;
	return v;
}

struct json *json_new_int(struct arena *a, int64_t i)
{
	struct json *v = json_new(a, JSON_INT);

	v->integer = i;
	return v;
}

struct json *json_new_bool(struct arena *a, bool b)
{
	struct json *v = json_new(a, JSON_BOOL);

	v->boolean = b;
	return v;
}

struct json *json_new_real(struct arena *a, double real)
{
	struct json *v = json_new(a, JSON_REAL);

	v->real = real;
	return v;
}

void json_add(struct json *array, struct json *value)
{
	BUG_ON(array->type != JSON_ARRAY && array->type != JSON_OBJECT);
	value->next = NULL;
	*(array->last ? &array->last->next : &array->child) = value;
	array->last = value;
	array->n++;
}

static struct json *find_before(const struct json *box, const struct json *v)
{
	struct json *before = NULL;

	for (struct json *at = box->child; at != v; at = at->next)
		before = at;
	return before;
}

void json_put(struct arena *a, struct json *object, const char *name, struct json *value)
{
	struct json *old = json_get(object, name);

	BUG_ON(object->type != JSON_OBJECT);
	value->name = old ? old->name : arena_copy(a, str_of(name));
	if (!old) {
		json_add(object, value);
		return;
	}
	if (old == value)
		return;
	struct json *before = find_before(object, old);
	value->next = old->next;
	*(before ? &before->next : &object->child) = value;
	if (object->last == old)
		object->last = value;
	old->next = NULL;
}

void json_drop(struct json *object, const char *name)
{
	struct json *old = json_get(object, name);

	if (!old)
		return;
	struct json *before = find_before(object, old);
	*(before ? &before->next : &object->child) = old->next;
	if (object->last == old)
		object->last = before;
	old->next = NULL;
	object->n--;
}

/* Without what is below it. */
static void copy_node(struct json *copy, const struct json *v)
{
	*copy = *v;
	copy->child = copy->next = NULL;
	copy->n = 0;
	if (v->type == JSON_ARRAY || v->type == JSON_OBJECT)
		copy->last = NULL;
}

struct json *json_clone(struct arena *a, const struct json *v)
{
	struct json *copy = NEW(a, struct json);

	copy_node(copy, v);
	copy->name = v->name.p ? arena_copy(a, v->name) : v->name;
	if (v->string.p)
		copy->string = arena_copy(a, v->string);
	for (const struct json *m = v->child; m; m = m->next)
		json_add(copy, json_clone(a, m));
	return copy;
}

static size_t packed_text(struct str s)
{
	return s.p ? s.n + 1 : 0;
}

/* Where a tree is packed to, and what has not to be. */
struct packing {
	const struct map *names;
	struct json *nodes;
	char *texts;
};

/* The key that `name` is equal to; NULL = none. Its value is its text. */
static const char *known_name(const struct packing *p, struct str name)
{
	return p->names && name.p ? map_get(p->names, name) : NULL;
}

/* Bytes of all nodes, and of all texts with their NULs. */
static void measure(const struct packing *p, const struct json *v, size_t *nodes, size_t *texts)
{
	*nodes += sizeof *v;
	*texts += (known_name(p, v->name) ? 0 : packed_text(v->name)) + packed_text(v->string);
	for (const struct json *m = v->child; m; m = m->next)
		measure(p, m, nodes, texts);
}

static struct str pack_text(struct packing *p, struct str s)
{
	char *at = p->texts;

	if (!s.p)
		return s;
	memcpy(at, s.p, s.n);
	at[s.n] = '\0';
	p->texts = at + s.n + 1;
	return (struct str){ at, s.n };
}

static struct json *pack(struct packing *p, const struct json *v)
{
	struct json *copy = p->nodes++;
	const char *known = known_name(p, v->name);

	copy_node(copy, v);
	copy->name = known ? (struct str){ known, v->name.n } : pack_text(p, v->name);
	copy->string = pack_text(p, v->string);
	for (const struct json *m = v->child; m; m = m->next)
		json_add(copy, pack(p, m));
	return copy;
}

struct json *json_pack(struct arena *a, const struct json *v, const struct map *names)
{
	struct packing p = { .names = names };
	size_t nodes_size = 0, texts_size = 0;

	measure(&p, v, &nodes_size, &texts_size);
	p.nodes = arena_take(a, nodes_size + texts_size);
	p.texts = (char *)p.nodes + nodes_size;
	return pack(&p, v);
}

double json_number(const struct json *v)
{
	return v->type == JSON_INT ? (double)v->integer : v->real;
}

/* 2.0 and 2 are one value; so each number that is an int64 is compared as one. */
static bool number_equal(const struct json *a, const struct json *b)
{
	int64_t x = 0, y = 0;
	bool a_whole = json_is_whole(a, &x), b_whole = json_is_whole(b, &y);

	if (a_whole != b_whole)
		return false;
	return a_whole ? x == y : !(a->real < b->real) && !(a->real > b->real);
}

static bool is_number(const struct json *v)
{
	return v->type == JSON_INT || v->type == JSON_REAL;
}

static int by_name(const void *a, const void *b)
{
	return str_compare((*(struct json *const *)a)->name, (*(struct json *const *)b)->name);
}

struct json **json_sorted(const struct json *object)
{
	struct json **sorted = mem_alloc((object->n + 1) * sizeof *sorted);
	unsigned i = 0;

	for (struct json *m = object->child; m; m = m->next)
		sorted[i++] = m;
	qsort(sorted, i, sizeof *sorted, by_name);
	return sorted;
}

static bool members_equal(const struct json *a, const struct json *b)
{
	struct json **left = json_sorted(a), **right = json_sorted(b);
	bool same = true;

	for (unsigned i = 0; i < a->n && same; i++)
		same = str_equal(left[i]->name, right[i]->name) && json_equal(left[i], right[i]);
	mem_free(left);
	mem_free(right);
	return same;
}

bool json_equal(const struct json *a, const struct json *b)
{
	if (is_number(a) && is_number(b))
		return number_equal(a, b);
	if (a->type != b->type || a->n != b->n)
		return false;
	switch (a->type) {
	case JSON_BOOL:
		return a->boolean == b->boolean;
	case JSON_STRING:
		return str_equal(a->string, b->string);
	case JSON_OBJECT:
		return members_equal(a, b);
	case JSON_ARRAY:
		for (const struct json *x = a->child, *y = b->child; x; x = x->next, y = y->next)
			if (!json_equal(x, y))
				return false;
		return true;
	case JSON_NULL: case JSON_INT: case JSON_REAL:
		return true;
	}
	return true;
}
