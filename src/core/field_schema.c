/*
 * field_schema.c -- what a table says to tools: JSON Schema, and sample objects that decode.
 */
#include <math.h>
#include <stdio.h>
#include "core/field.h"
#include "core/field_rows.h"

static struct json *example_object(const struct field *f, bool full, struct arena *a);

/* ---- schema ---- */

static void put_text(struct arena *a, struct json *object, const char *name, const char *text)
{
	if (text)
		json_put(a, object, name, json_new_text(a, str_of(text)));
}

static struct json *number_node(struct arena *a, double v)
{
	int64_t whole = fabs(v) < 0x1p63 ? (int64_t)v : 0;

	return whole || fabs(v) < 1 ? json_new_int(a, whole) : json_new_real(a, v);
}

static void put_limits(struct arena *a, struct json *s, const char *low, const char *high, const struct field *f)
{
	if (!f->ranged)
		return;
	if (fabs(f->min) < 9.2e18)
		json_put(a, s, low, json_new_real(a, f->min));
	if (fabs(f->max) < 9.2e18)
		json_put(a, s, high, json_new_real(a, f->max));
}

/* The values of an enumeration, and what each means in the same order. */
static void put_choices(struct arena *a, struct json *s, const struct field *f)
{
	struct json *values = json_new(a, JSON_ARRAY), *docs = json_new(a, JSON_ARRAY);
	bool words = f->choices->doc && f->choices->text;

	for (const struct choice *c = f->choices; c->doc; c++) {
		json_add(values, c->text ? json_new_text(a, str_of(c->text)) : json_new_int(a, c->value));
		json_add(docs, json_new_text(a, str_of(c->doc)));
	}
	put_text(a, s, "type", words ? "string" : "integer");
	json_put(a, s, "enum", values);
	json_put(a, s, "x-enum-descriptions", docs);
}

/* Lengths in a schema count characters, ours bytes: a character has one to four. */
static void put_lengths(struct arena *a, struct json *s, double min, double max)
{
	if (min > 0)
		json_put(a, s, "minLength", json_new_int(a, (int64_t)ceil(min / 4)));
	if (max > 0 && max < 9.2e18)
		json_put(a, s, "maxLength", json_new_int(a, (int64_t)max));
}

static struct json *item_schema(const struct field *f, struct arena *a)
{
	struct json *s;

	if (f->type == FIELD_LIST)
		return fields_schema(f->fields, a);
	s = json_new(a, JSON_OBJECT);
	if (f->type == FIELD_CHOICES) {
		put_choices(a, s, f);
		return s;
	}
	put_text(a, s, "type", "string");
	put_lengths(a, s, f->empty_ok ? 0 : 1, f->text_max ? (double)f->text_max : 1024);
	return s;
}

/* x-sent-to: the members that say where it is sent; where one of them changes, it has to be given again. */
static void put_secret(struct arena *a, struct json *s, const struct field *f)
{
	struct json *names = json_new(a, JSON_ARRAY);

	for (const char *const *name = f->sent_to; name && *name; name++)
		json_add(names, json_new_text(a, str_of(*name)));
	json_put(a, s, "writeOnly", json_new_bool(a, true));
	json_put(a, s, "x-sent-to", names);
}

static void put_type(struct arena *a, struct json *s, const struct field *f)
{
	switch (f->type) { /* flat switch */
	case FIELD_BOOL:
		put_text(a, s, "type", "boolean");
		return;
	case FIELD_INT: case FIELD_NUMBER:
		put_text(a, s, "type", f->type == FIELD_INT ? "integer" : "number");
		if (f->type == FIELD_INT)
			put_text(a, s, "format", "int64");
		put_limits(a, s, "minimum", "maximum", f);
		return;
	case FIELD_TEXT:
		put_text(a, s, "type", "string");
		if (f->ranged)
			put_lengths(a, s, f->required && !f->empty_ok ? f->min : 0, f->max);
		else if (f->required && !f->empty_ok)
			put_lengths(a, s, 1, 0);
		return;
	case FIELD_CHOICE:
		put_choices(a, s, f);
		return;
	case FIELD_LIST: case FIELD_TEXTS: case FIELD_CHOICES:
		put_text(a, s, "type", "array");
		json_put(a, s, "items", item_schema(f, a));
		put_limits(a, s, "minItems", "maxItems", f);
		return;
	case FIELD_JSON: case FIELD_OBJECT: case FIELD_INLINE: case FIELD_END:
		return;
	}
}

static struct json *row_schema(const struct field *f, struct arena *a)
{
	struct json *s = f->type == FIELD_OBJECT ? fields_schema(f->fields, a) : json_new(a, JSON_OBJECT);

	put_type(a, s, f);
	if (f->fallback)
		json_put(a, s, "default", field_parse(f->fallback, a));
	if (f->example) {
		struct json *examples = json_new(a, JSON_ARRAY);

		json_add(examples, field_parse(f->example, a));
		json_put(a, s, "examples", examples);
	}
	put_text(a, s, "description", f->doc);
	put_text(a, s, "x-unit", f->unit);
	put_text(a, s, "x-refers", f->refers);
	if (f->secret)
		put_secret(a, s, f);
	if (f->read_only)
		json_put(a, s, "readOnly", json_new_bool(a, true));
	if (f->immutable)
		json_put(a, s, "x-immutable", json_new_bool(a, true));
	return s;
}

static struct json *wrap(struct arena *a, const char *name, struct json *v)
{
	struct json *object = json_new(a, JSON_OBJECT);

	json_put(a, object, name, v);
	return object;
}

static struct json *name_list(struct arena *a, const char *name)
{
	struct json *list = json_new(a, JSON_ARRAY);

	json_add(list, json_new_text(a, str_of(name)));
	return list;
}

static struct json *when_value(const struct field *row, int value, struct arena *a)
{
	const char *word = row->choices ? choice_text(row->choices, value) : NULL;

	if (word)
		return json_new_text(a, str_of(word));
	return row->type == FIELD_BOOL ? json_new_bool(a, value != 0) : json_new_int(a, value);
}

/* {"if": the sibling has that value, "then": the member is required} */
static struct json *condition(const struct field *table, const struct field *f, struct arena *a)
{
	const struct field *row = field_find(table, str_of(f->when.sibling));
	BUG_ON(!row);
	struct json *value = wrap(a, "const", when_value(row, f->when.value, a));
	struct json *test = wrap(a, "properties", wrap(a, row->name, value));
	struct json *rule = wrap(a, "if", test);

	/* A sibling with a default holds the value of the default when it is absent. */
	if (!row->fallback || !field_is_value(row, field_parse(row->fallback, a), f->when.value))
		json_put(a, test, "required", name_list(a, row->name));
	json_put(a, rule, "then", wrap(a, "required", name_list(a, f->name)));
	return rule;
}

struct schema {
	const struct field *table;
	struct json *properties, *required, *conditions;
	struct arena *a;
};

static void add_rows(struct schema *s, const struct field *f)
{
	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE) {
			add_rows(s, f->fields);
			continue;
		}
		json_put(s->a, s->properties, f->name, row_schema(f, s->a));
		if (f->read_only)
			continue;
		if (f->when.sibling)
			json_add(s->conditions, condition(s->table, f, s->a));
		else if (f->required)
			json_add(s->required, json_new_text(s->a, str_of(f->name)));
	}
}

struct json *fields_schema(const struct field *f, struct arena *a)
{
	struct json *object = json_new(a, JSON_OBJECT);
	struct schema s = { f, json_new(a, JSON_OBJECT), json_new(a, JSON_ARRAY), json_new(a, JSON_ARRAY), a };

	add_rows(&s, f);
	put_text(a, object, "type", "object");
	json_put(a, object, "properties", s.properties);
	if (s.required->n)
		json_put(a, object, "required", s.required);
	if (s.conditions->n)
		json_put(a, object, "allOf", s.conditions);
	json_put(a, object, "additionalProperties", json_new_bool(a, false));
	return object;
}

/* ---- examples ---- */

static double example_number(const struct field *f)
{
	if (!f->ranged)
		return 1;
	return f->min <= 1 && f->max >= 1 ? 1 : f->min > 1 ? f->min : f->max;
}

static bool text_fits(const struct field *f, struct str text)
{
	struct problem why;

	if (f->type == FIELD_TEXT && f->ranged && ((double)text.n < f->min || (double)text.n > f->max))
		return false;
	return !f->format || f->format(text, &why);
}

/* The first of some usual texts that the row accepts; rows with stranger rules carry an EXAMPLE. */
static struct json *example_text(const struct field *f, struct arena *a)
{
	static const char *const usual[] = { "example", "a", "example.com", "/example", "https://example.com/",
		"x-example", "127.0.0.1", "10.0.0.0/8", "200", "GET", "127.0.0.1:8080", "default" };
	struct str padded;

	for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
		if (text_fits(f, str_of(usual[i])))
			return json_new_text(a, str_of(usual[i]));
	if (f->ranged && f->min > 0 && f->min < 65536) {
		padded = arena_printf(a, "%0*d", (int)f->min, 0);
		if (text_fits(f, padded))
			return json_new_text(a, padded);
	}
	return json_new_text(a, STR("example"));
}

static struct json *example_choice(const struct field *f, struct arena *a)
{
	return when_value(f, f->choices->value, a);
}

static struct json *example_list(const struct field *f, bool full, struct arena *a)
{
	struct json *list = json_new(a, JSON_ARRAY);
	double n = f->ranged && f->min > 1 ? f->min : 1;

	if (f->ranged && f->max < 1)
		n = 0;
	for (unsigned i = 0; i < n; i++) {
		if (f->type == FIELD_LIST)
			json_add(list, example_object(f->fields, full, a));
		else
			json_add(list, f->type == FIELD_TEXTS ? example_text(f, a) : example_choice(f, a));
	}
	return list;
}

static struct json *example_value(const struct field *f, bool full, struct arena *a)
{
	if (f->example)
		return field_parse(f->example, a);
	if (f->fallback && (f->type != FIELD_OBJECT || !full))
		return field_parse(f->fallback, a);
	switch (f->type) { /* flat switch */
	case FIELD_BOOL:
		return json_new_bool(a, true);
	case FIELD_INT:
		return json_new_int(a, (int64_t)example_number(f));
	case FIELD_NUMBER:
		return number_node(a, example_number(f));
	case FIELD_TEXT:
		return example_text(f, a);
	case FIELD_CHOICE:
		return example_choice(f, a);
	case FIELD_OBJECT:
		return example_object(f->fields, full, a);
	case FIELD_LIST: case FIELD_TEXTS: case FIELD_CHOICES:
		return example_list(f, full, a);
	case FIELD_JSON: case FIELD_INLINE: case FIELD_END:
		break;
	}
	return json_new(a, JSON_OBJECT);
}

struct sample {
	const struct field *table;
	bool full;
	struct arena *a;
};

/* Whether the sample shows the member; a conditional one when its sibling's sample value asks for it. */
static bool is_shown(const struct sample *s, const struct field *f)
{
	const struct field *row;
	struct json *v = NULL;

	if (f->read_only)
		return false;
	if (s->full || !f->when.sibling)
		return s->full || f->required;
	row = field_find(s->table, str_of(f->when.sibling));
	BUG_ON(!row);
	if (row->required)
		v = example_value(row, false, s->a);
	else if (row->fallback)
		v = field_parse(row->fallback, s->a);
	return v && field_is_value(row, v, f->when.value);
}

static void add_samples(const struct sample *s, const struct field *f, struct json *object)
{
	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE)
			add_samples(s, f->fields, object);
		else if (is_shown(s, f))
			json_put(s->a, object, f->name, example_value(f, s->full, s->a));
	}
}

static struct json *example_object(const struct field *f, bool full, struct arena *a)
{
	struct json *object = json_new(a, JSON_OBJECT);

	add_samples(&(struct sample){ f, full, a }, f, object);
	return object;
}

struct json *fields_example(const struct field *f, bool full, struct arena *a)
{
	return example_object(f, full, a);
}
