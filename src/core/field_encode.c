/*
 * field_encode.c -- structs back to JSON, and walks over rows and over secret members.
 *
 * What is written decodes again to the same struct: a member that could not have been given (an absent
 * text, a zero outside the row's range, a choice without a row) is left out.
 */
#include <stdio.h>
#include "core/field.h"
#include "core/field_rows.h"

#define PATH_MAX_BYTES 160

static void encode_members(const struct field *f, const char *in, struct json *object, struct arena *a);

static bool is_row_zero(const struct field *f, const char *in);

/* Whether nothing was ever set: an optional object that was absent. */
static bool is_zero(const struct field *f, const char *in)
{
	for (; f->type != FIELD_END; f++)
		if (!is_row_zero(f, in))
			return false;
	return true;
}

static bool is_row_zero(const struct field *f, const char *in)
{
	const void *at = in + f->at;

	switch (f->type) { /* flat switch */
	case FIELD_BOOL:
		return !*(const bool *)at;
	case FIELD_INT:
		return *(const int64_t *)at == 0;
	case FIELD_NUMBER:
		return !(*(const double *)at > 0) && !(*(const double *)at < 0);
	case FIELD_TEXT:
		return !((const struct str *)at)->p;
	case FIELD_CHOICE:
		return *(const int *)at == 0;
	case FIELD_LIST: case FIELD_TEXTS: case FIELD_CHOICES:
		return ((const struct items *)at)->n == 0;
	case FIELD_JSON:
		return !*(const struct json *const *)at;
	case FIELD_OBJECT: case FIELD_INLINE:
		return is_zero(f->fields, at);
	case FIELD_END:
		break;
	}
	return true;
}

static struct json *encode_choice(const struct field *f, int value, struct arena *a)
{
	const struct choice *c = choice_of_value(f->choices, value);

	if (!c)
		return NULL;
	return c->text ? json_new_text(a, str_of(c->text)) : json_new_int(a, value);
}

/* NULL when it was absent. */
static struct json *encode_text(const struct field *f, struct str text, struct arena *a)
{
	if (!text.p || (text.n == 0 && !f->empty_ok))
		return NULL;
	return json_new_text(a, arena_copy(a, text));
}

static struct json *encode_object(const struct field *f, const char *in, struct arena *a)
{
	struct json *object = json_new(a, JSON_OBJECT);

	encode_members(f, in, object, a);
	return object;
}

static struct json *encode_items(const struct field *f, const struct items *list, struct arena *a)
{
	struct json *array;

	if (list->n == 0 && !f->required && !f->fallback)
		return NULL;
	array = json_new(a, JSON_ARRAY);
	for (size_t i = 0; i < list->n; i++) {
		const char *item = (const char *)list->items + i * f->item;
		struct json *v = NULL;

		if (f->type == FIELD_LIST)
			v = encode_object(f->fields, item, a);
		else if (f->type == FIELD_TEXTS)
			v = json_new_text(a, arena_copy(a, *(const struct str *)(const void *)item));
		else
			v = encode_choice(f, *(const int *)(const void *)item, a);
		BUG_ON(!v);
		json_add(array, v);
	}
	return array;
}

/* An optional number that may not be 0 and is 0 was absent. */
static bool is_absent_number(const struct field *f, double v)
{
	return f->ranged && !f->required && !f->fallback && (v < f->min || v > f->max);
}

static struct json *encode_number(const struct field *f, const void *at, struct arena *a)
{
	if (f->type == FIELD_INT) {
		int64_t i = *(const int64_t *)at;

		return i == 0 && is_absent_number(f, 0) ? NULL : json_new_int(a, i);
	}
	double real = *(const double *)at;
	bool zero = !(real > 0) && !(real < 0);

	return zero && is_absent_number(f, 0) ? NULL : json_new_real(a, real);
}

/* NULL leaves the member out. */
static struct json *encode_row(const struct field *f, const char *in, struct arena *a)
{
	const void *at = in + f->at;

	switch (f->type) { /* flat switch */
	case FIELD_BOOL:
		return json_new_bool(a, *(const bool *)at);
	case FIELD_INT: case FIELD_NUMBER:
		return encode_number(f, at, a);
	case FIELD_TEXT:
		return encode_text(f, *(const struct str *)at, a);
	case FIELD_CHOICE:
		return encode_choice(f, *(const int *)at, a);
	case FIELD_OBJECT:
		if (f->present ? !*(const bool *)(in + f->present - 1) : !f->required && is_zero(f->fields, at))
			return NULL;
		return encode_object(f->fields, at, a);
	case FIELD_LIST: case FIELD_TEXTS: case FIELD_CHOICES:
		return encode_items(f, at, a);
	case FIELD_JSON:
		return *(const struct json *const *)at ? json_clone(a, *(const struct json *const *)at) : NULL;
	case FIELD_INLINE: case FIELD_END:
		break;
	}
	BUG_ON(true);
}

static void encode_members(const struct field *f, const char *in, struct json *object, struct arena *a)
{
	for (; f->type != FIELD_END; f++) {
		struct json *v;

		if (f->type == FIELD_INLINE) {
			encode_members(f->fields, in + f->at, object, a);
			continue;
		}
		v = f->secret ? NULL : encode_row(f, in, a);
		if (v && !field_is_secret(f, v)) {
			v->name = str_of(f->name);
			json_add(object, v);
		}
	}
}

struct json *fields_encode(const struct field *f, const void *in, struct arena *a)
{
	return encode_object(f, in, a);
}

static void join_path(char out[PATH_MAX_BYTES], const char *outer, const char *name, const char *after)
{
	snprintf(out, PATH_MAX_BYTES, "%s%s%s%s", outer, outer[0] ? "." : "", name, after);
}

struct walk {
	void (*each)(void *arg, const char *path, const struct field *row);
	void *arg;
};

static void walk_rows(const struct field *f, const char *outer, const struct walk *w)
{
	char path[PATH_MAX_BYTES];

	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE) {
			walk_rows(f->fields, outer, w);
			continue;
		}
		join_path(path, outer, f->name, "");
		w->each(w->arg, path, f);
		if (f->type != FIELD_OBJECT && f->type != FIELD_LIST)
			continue;
		join_path(path, outer, f->name, f->type == FIELD_LIST ? "[]" : "");
		walk_rows(f->fields, path, w);
	}
}

void fields_walk(const struct field *f, void (*each)(void *arg, const char *path, const struct field *row), void *arg)
{
	walk_rows(f, "", &(struct walk){ each, arg });
}

struct changer {
	struct json *(*change)(void *arg, const char *path, struct json *value);
	void *arg;
};

/* Puts `new` where `old` stood; NULL takes it out. `before` is the sibling before, or NULL. */
static void replace_node(struct json *box, struct json *before, struct json *old, struct json *new)
{
	struct json *next = old->next;

	if (new == old)
		return;
	if (new) {
		new->name = old->name;
		new->next = next;
	} else {
		box->n--;
	}
	*(before ? &before->next : &box->child) = new ? new : next;
	if (box->last == old)
		box->last = new ? new : before;
	old->next = NULL;
}

/* Each text of a list by itself. */
static void change_items(struct json *array, const char *path, const struct changer *c)
{
	struct json *before = NULL, *next;

	for (struct json *item = array->child; item; item = next) {
		next = item->next;
		struct json *new = c->change(c->arg, path, item);

		replace_node(array, before, item, new);
		before = new ? new : before;
	}
}

static void change_secrets(const struct field *f, struct json *object, const char *outer, const struct changer *c);

/* The member's replacement: itself when only its inside changes. */
static struct json *change_member(const struct field *row, struct json *m, const char *outer, const struct changer *c)
{
	bool is_list = row->type == FIELD_TEXTS || row->type == FIELD_LIST;
	char path[PATH_MAX_BYTES];

	join_path(path, outer, row->name, is_list ? "[]" : "");
	if (row->secret && row->type == FIELD_TEXTS && m->type == JSON_ARRAY) {
		change_items(m, path, c);
		return m->n ? m : NULL;
	}
	if (field_is_secret(row, m)) {
		join_path(path, outer, row->name, "");
		return c->change(c->arg, path, m);
	}
	if (row->type == FIELD_OBJECT)
		change_secrets(row->fields, m, path, c);
	if (row->type == FIELD_LIST && m->type == JSON_ARRAY)
		for (struct json *item = m->child; item; item = item->next)
			change_secrets(row->fields, item, path, c);
	return m;
}

static void change_secrets(const struct field *f, struct json *object, const char *outer, const struct changer *c)
{
	struct json *before = NULL, *next;

	if (object->type != JSON_OBJECT)
		return;
	for (struct json *m = object->child; m; m = next) {
		const struct field *row = field_find(f, m->name);
		struct json *new = row && m->type != JSON_NULL ? change_member(row, m, outer, c) : m;

		next = m->next;
		replace_node(object, before, m, new);
		before = new ? new : before;
	}
}

void fields_secrets(const struct field *f, struct json *object,
	struct json *(*change)(void *arg, const char *path, struct json *value), void *arg)
{
	change_secrets(f, object, "", &(struct changer){ change, arg });
}
