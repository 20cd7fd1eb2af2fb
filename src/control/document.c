#include "control/document.h"
#include <stdio.h>
#include "core/field_rows.h"

static void complete_into(const struct field *f, const struct json *input, struct json *out, struct arena *a);

static const struct json *value_of(const struct json *object, const struct field *f)
{
	const struct json *v = json_get(object, f->name);

	if (!v || v->type == JSON_NULL)
		return NULL;
	if (v->type != JSON_STRING || v->string.n)
		return v;
	if (f->type == FIELD_TEXT && f->empty_ok)
		return v;
	if (f->type == FIELD_CHOICE && choice_find(f->choices, v->string, f->nocase))
		return v;
	return f->type == FIELD_TEXT || f->type == FIELD_CHOICE ? NULL : v;
}

static struct json *complete_object(const struct field *f, const struct json *v, struct arena *a)
{
	struct json *out = json_new(a, JSON_OBJECT);

	complete_into(f, v, out, a);
	return out;
}

static struct json *complete_choice(const struct field *f, const struct json *v, struct arena *a)
{
	const struct choice *c = v->type == JSON_STRING ? choice_find(f->choices, v->string, f->nocase) : NULL;

	return c && c->text ? json_new_text(a, arena_copy(a, str_of(c->text))) : json_clone(a, v);
}

static struct json *complete_list(const struct field *f, const struct json *v, struct arena *a)
{
	struct json *out = json_new(a, JSON_ARRAY);

	for (const struct json *item = v->child; item; item = item->next)
		json_add(out, f->type == FIELD_LIST ? complete_object(f->fields, item, a)
		              : f->type == FIELD_CHOICES ? complete_choice(f, item, a)
		                                         : json_clone(a, item));
	return out;
}

static struct json *complete_value(const struct field *f, const struct json *v, struct arena *a)
{
	switch (f->type) {
	case FIELD_OBJECT:
		return v->type == JSON_OBJECT ? complete_object(f->fields, v, a) : json_clone(a, v);
	case FIELD_LIST: case FIELD_TEXTS: case FIELD_CHOICES:
		return v->type == JSON_ARRAY ? complete_list(f, v, a) : json_clone(a, v);
	case FIELD_CHOICE:
		return complete_choice(f, v, a);
	default:
		return json_clone(a, v);
	}
}

static void complete_into(const struct field *f, const struct json *input, struct json *out, struct arena *a)
{
	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE) {
			complete_into(f->fields, input, out, a);
			continue;
		}
		const struct json *v = value_of(input, f);

		if (!v && f->fallback) {
			v = field_parse(f->fallback, a);
			if (v->type == JSON_NULL || (v->type == JSON_STRING && !v->string.n))
				v = NULL;
		}
		if (v)
			json_put(a, out, f->name, complete_value(f, v, a));
	}
}

struct json *document_complete(const struct field *f, const struct json *input, struct arena *a)
{
	return complete_object(f, input, a);
}

void document_keep_immutable(const struct field *f, struct json *doc, const struct json *old, struct arena *a)
{
	for (; f->type != FIELD_END; f++) {
		const struct json *was = f->immutable ? json_get(old, f->name) : NULL;

		if (was && !value_of(doc, f))
			json_put(a, doc, f->name, json_clone(a, was));
	}
}

bool document_check_immutable(
	const struct field *f, const struct json *doc, const struct json *old, struct problem *why)
{
	char shown[JSON_BRIEF];

	for (; f->type != FIELD_END; f++) {
		const struct json *was = json_get(old, f->name), *is = json_get(doc, f->name);

		if (!f->immutable || (!was && !is) || (was && is && json_equal(was, is)))
			continue;
		if (!was)
			return problem(why, f->name, "cannot be set after the creation");
		json_brief(was, shown);
		return problem(why, f->name, "cannot be changed after the creation; it is %s", shown);
	}
	return true;
}

/* ---------- secrets that were left out ---------- */

/* An object in both documents, and the one around it. */
struct level {
	const struct field *rows;
	struct json *doc;
	const struct json *old;
	const struct level *outer;
};

struct keeping {
	struct arena *a;
	struct problem *moved;
};

/* What counts: the default when it is absent, a choice in its first spelling; NULL = none. */
static const struct json *effective_value(const struct field *row, const struct json *object, struct arena *a)
{
	const struct json *v = value_of(object, row);

	if (!v && row->fallback)
		v = field_parse(row->fallback, a);
	return v ? complete_value(row, v, a) : NULL;
}

/* Looked for from the inside out. */
static bool has_changed(const struct level *at, const char *name, struct arena *a)
{
	const struct field *row = NULL;

	for (; at && !row; at = row ? at : at->outer)
		row = field_find(at->rows, str_of(name));
	BUG_ON(!row);
	const struct json *is = effective_value(row, at->doc, a), *was = effective_value(row, at->old, a);

	return (is || was) && !(is && was && json_equal(is, was));
}

static void keep_secret(const struct keeping *k, const struct level *at, const struct field *f, const struct json *was)
{
	json_put(k->a, at->doc, f->name, json_clone(k->a, was));
	for (const char *const *name = f->sent_to; name && *name && !k->moved->field[0]; name++)
		if (has_changed(at, *name, k->a))
			problem(k->moved, f->name, "must be given again, for %s changes, which says where it is sent; "
				"what is stored is sent to nobody else", *name);
}

static void keep_in_object(const struct keeping *k, const struct level *at, const struct field *f);

/* Items are told apart by their texts that are no secrets (ids, names): a secret goes to nobody else's. */
static bool is_same_item(const struct field *f, const struct json *item, const struct json *was)
{
	bool has_text = false;

	for (; f->type != FIELD_END; f++) {
		if (f->type != FIELD_TEXT || field_has_secrets(f))
			continue;
		const struct json *old = json_get(was, f->name), *new = json_get(item, f->name);

		if ((old || new) && !(old && new && json_equal(old, new)))
			return false;
		has_text = has_text || new;
	}
	return has_text;
}

/* What is inside of the member named `at`. */
static void keep_inside(const struct keeping *k, const struct level *in, const char *at)
{
	const bool is_first = !k->moved->field[0];

	if (in->doc->type == JSON_OBJECT && in->old->type == JSON_OBJECT)
		keep_in_object(k, in, in->rows);
	if (is_first && k->moved->field[0])
		problem_prefix(k->moved, at);
}

static void keep_in_items(const struct keeping *k, const struct level *list, const char *name)
{
	char at[128];
	unsigned i = 0;

	if (list->doc->type != JSON_ARRAY || list->old->type != JSON_ARRAY)
		return;
	for (struct json *item = list->doc->child; item; item = item->next, i++)
		for (const struct json *was = list->old->child; was; was = was->next)
			if (is_same_item(list->rows, item, was)) {
				snprintf(at, sizeof at, "%s[%u]", name, i);
				keep_inside(k, &(struct level){ list->rows, item, was, list->outer }, at);
				break;
			}
}

/* Of a secret: left out, or without a value where there must be one. */
static bool is_left_out(const struct field *f, const struct json *is)
{
	const bool is_none = is && is->type == JSON_STRING && !f->required && f->sent_to;

	return !is || is->type == JSON_NULL || (is->type == JSON_STRING && !is->string.n && !is_none);
}

static bool holds_secret(const struct field *f, const struct json *object)
{
	const struct json *v = value_of(object, f);

	return v && field_is_secret(f, v) && (v->type != JSON_ARRAY || v->n > 0);
}

/* `f`: all rows of the level, or those of an INLINE table in it. */
static void keep_in_object(const struct keeping *k, const struct level *at, const struct field *f)
{
	for (; f->type != FIELD_END; f++) {
		const struct json *was = json_get(at->old, f->name);
		struct json *is = json_get(at->doc, f->name);

		if (f->type == FIELD_INLINE)
			keep_in_object(k, at, f->fields);
		else if (holds_secret(f, at->old) && is_left_out(f, is))
			keep_secret(k, at, f, was);
		else if (was && is && f->type == FIELD_OBJECT)
			keep_inside(k, &(struct level){ f->fields, is, was, at }, f->name);
		else if (was && is && f->type == FIELD_LIST)
			keep_in_items(k, &(struct level){ f->fields, is, was, at }, f->name);
	}
}

void document_keep_secrets(const struct field *f, struct json *doc, const struct json *old, struct arena *a,
	struct problem *moved)
{
	if (doc->type == JSON_OBJECT && old->type == JSON_OBJECT)
		keep_in_object(&(struct keeping){ a, moved }, &(struct level){ f, doc, old, NULL }, f);
}

static struct json *find_mask(void *arg, const char *path, struct json *value)
{
	struct problem *why = arg;

	if (value->type == JSON_STRING && str_equal(value->string, STR("******")) && !why->field[0])
		problem(why, path, "\"******\" is a mask, no value; leave the member out to keep what is stored");
	return value;
}

bool document_check_masks(const struct field *f, struct json *doc, struct problem *why)
{
	why->field[0] = '\0';
	fields_secrets(f, doc, find_mask, why);
	return !why->field[0];
}
