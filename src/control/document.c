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

static void keep_in_items(const struct field *f, struct json *doc, const struct json *old, struct arena *a)
{
	if (doc->type != JSON_ARRAY || old->type != JSON_ARRAY)
		return;
	for (struct json *item = doc->child; item; item = item->next)
		for (const struct json *was = old->child; was; was = was->next)
			if (is_same_item(f, item, was)) {
				document_keep_secrets(f, item, was, a);
				break;
			}
}

void document_keep_secrets(const struct field *f, struct json *doc, const struct json *old, struct arena *a)
{
	if (doc->type != JSON_OBJECT || old->type != JSON_OBJECT)
		return;
	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE) {
			document_keep_secrets(f->fields, doc, old, a);
			continue;
		}
		const struct json *was = json_get(old, f->name);
		struct json *is = json_get(doc, f->name);

		if (!was)
			continue;
		if (field_is_secret(f, was) && !value_of(doc, f))
			json_put(a, doc, f->name, json_clone(a, was));
		else if (is && f->type == FIELD_OBJECT)
			document_keep_secrets(f->fields, is, was, a);
		else if (is && f->type == FIELD_LIST)
			keep_in_items(f->fields, is, was, a);
	}
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
