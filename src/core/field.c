/*
 * field.c -- decoding: JSON object to C struct, by a table of rows.
 *
 * Two passes. The first looks for unknown members at every depth, because a misspelt name explains the "is
 * required" that would follow from it. The second goes through the rows. Functions below fill why->field
 * relative to the value they were given; whoever steps into a member or an item puts its name or index
 * before it.
 */
#include "core/field.h"
#include <math.h>
#include <stdio.h>
#include "core/field_rows.h"

#define TEXTS_MAX 1024                    /* bytes of one text of a list, unless the row says otherwise */
#define NO_LIMIT 9.2e18                   /* bounds beyond this are not worth a word */
#define WORDS_MAX 200                     /* bytes of a list of names in a message */
#define NAME_MAX_COMPARED 48

/* One object being decoded. */
struct decoder {
	const struct field *table;
	const struct json *object;
	struct arena *a;
	struct problem *why;
};

static bool decode_object(const struct field *f, const struct json *v, void *out, struct arena *a,
	struct problem *why);

const struct choice *choice_find(const struct choice *c, struct str word, bool nocase)
{
	bool (*same)(struct str, struct str) = nocase ? str_equal_nocase : str_equal;

	for (; c->doc; c++) {
		if (c->text && same(str_of(c->text), word))
			return c;
		if (c->alias && same(str_of(c->alias), word))
			return c;
	}
	return NULL;
}

const struct choice *choice_of_value(const struct choice *c, int value)
{
	for (; c->doc; c++)
		if (c->value == value)
			return c;
	return NULL;
}

const char *choice_text(const struct choice *c, int value)
{
	const struct choice *row = choice_of_value(c, value);

	return row ? row->text : NULL;
}

const struct field *field_find(const struct field *f, struct str name)
{
	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE) {
			const struct field *inner = field_find(f->fields, name);

			if (inner)
				return inner;
		} else if (str_equal(str_of(f->name), name)) {
			return f;
		}
	}
	return NULL;
}

struct json *field_parse(const char *text, struct arena *a)
{
	struct problem why;
	struct json *v = json_parse(a, str_of(text), &why);

	BUG_ON(!v);                           /* a table's own JSON is wrong */
	return v;
}

void field_number_text(double v, char out[32])
{
	bool whole = !(trunc(v) < v) && !(trunc(v) > v) && fabs(v) < 1e18;

	snprintf(out, 32, whole ? "%.0f" : "%.15g", v);
}

/* " between 1 and 9", " of at least 1", " of at most 9" or nothing. */
static void write_bounds(const struct field *f, char out[80])
{
	char low[32], high[32];

	field_number_text(f->min, low);
	field_number_text(f->max, high);
	out[0] = '\0';
	if (!f->ranged)
		return;
	if (f->min > -NO_LIMIT && f->max < NO_LIMIT)
		snprintf(out, 80, " between %s and %s", low, high);
	else if (f->min > -NO_LIMIT)
		snprintf(out, 80, " of at least %s", low);
	else if (f->max < NO_LIMIT)
		snprintf(out, 80, " of at most %s", high);
}

/* "must be X, not Y"; a secret is never shown. */
static bool refuse(const struct decoder *d, const struct field *f, const struct json *v, const char *must)
{
	char shown[JSON_BRIEF];

	if (field_has_secrets(f))
		return problem(d->why, "", "must be %s", must);
	json_brief(v, shown);
	return problem(d->why, "", "must be %s, not %s", must, shown);
}

/* Adds a word to a list in a message, or "..." once it is full. */
static size_t add_word(char *out, size_t n, const char *word, const char *quote)
{
	if (n >= WORDS_MAX)
		return n;
	if (n + strlen(word) + 10 >= WORDS_MAX) {
		snprintf(out + n, WORDS_MAX + 8 - n, ", ...");
		return WORDS_MAX;
	}
	return n + (size_t)snprintf(out + n, WORDS_MAX - n, "%s%s%s%s", n ? ", " : "", quote, word, quote);
}

static bool decode_choice(const struct decoder *d, const struct field *f, const struct json *v, int *out)
{
	char words[WORDS_MAX + 8] = "", must[sizeof words + 16], number[16];
	const struct choice *c = f->choices;
	size_t n = 0;

	if (v->type == JSON_STRING)
		c = choice_find(f->choices, v->string, f->nocase);
	else
		while (c->doc && (c->text || v->type != JSON_INT || v->integer != c->value))
			c++;
	if (c && c->doc) {
		*out = c->value;
		return true;
	}
	for (c = f->choices; c->doc; c++) {
		snprintf(number, sizeof number, "%d", c->value);
		n = add_word(words, n, c->text ? c->text : number, c->text ? "\"" : "");
	}
	snprintf(must, sizeof must, "%s%s", f->choices[1].doc ? "one of " : "", words);
	return refuse(d, f, v, must);
}

static bool decode_int(const struct decoder *d, const struct field *f, const struct json *v, int64_t *out)
{
	char bounds[80], must[96];

	/* A long double holds every int64 exactly. */
	if (v->type == JSON_INT && (!f->ranged || ((long double)v->integer >= (long double)f->min &&
	                                           (long double)v->integer <= (long double)f->max))) {
		*out = v->integer;
		return true;
	}
	write_bounds(f, bounds);
	snprintf(must, sizeof must, "an integer%s", bounds);
	return refuse(d, f, v, must);
}

static bool decode_number(const struct decoder *d, const struct field *f, const struct json *v, double *out)
{
	char bounds[80], must[96];

	if ((v->type == JSON_INT || v->type == JSON_REAL) &&
	    (!f->ranged || (json_number(v) >= f->min && json_number(v) <= f->max))) {
		*out = json_number(v);
		return true;
	}
	write_bounds(f, bounds);
	snprintf(must, sizeof must, "a number%s", bounds);
	return refuse(d, f, v, must);
}

/* The row's own rule. Its message may quote the value, which a secret must not show. */
static bool check_format(const struct decoder *d, const struct field *f, struct str value)
{
	if (!f->format || f->format(value, d->why))
		return true;
	d->why->field[0] = '\0';
	if (field_has_secrets(f) && value.n && memmem(d->why->text, strlen(d->why->text), value.p, value.n))
		return problem(d->why, "", "is not valid");
	return false;
}

static bool check_length(const struct decoder *d, const struct field *f, struct str text)
{
	double min = f->ranged ? f->min : 0, max = f->ranged ? f->max : NO_LIMIT;
	char low[32], high[32];

	if (f->type == FIELD_TEXTS) {
		min = f->empty_ok ? 0 : 1;
		max = f->text_max ? (double)f->text_max : TEXTS_MAX;
	}
	if ((double)text.n >= min && (double)text.n <= max)
		return true;
	if (text.n == 0)
		return problem(d->why, "", "must not be empty");
	field_number_text(min, low);
	field_number_text(max, high);
	if (!(min < max))
		return problem(d->why, "", "must be exactly %s bytes long, not %zu", low, text.n);
	if (max >= NO_LIMIT)
		return problem(d->why, "", "must be at least %s bytes long, not %zu", low, text.n);
	if (min <= 1)
		return problem(d->why, "", "must be at most %s bytes long, not %zu", high, text.n);
	return problem(d->why, "", "must be between %s and %s bytes long, not %zu", low, high, text.n);
}

static bool decode_text(const struct decoder *d, const struct field *f, const struct json *v, struct str *out)
{
	if (v->type != JSON_STRING)
		return refuse(d, f, v, "a string");
	if (v->string.n && memchr(v->string.p, '\0', v->string.n))
		return problem(d->why, "", "must not contain a NUL byte");
	if (!check_length(d, f, v->string) || !check_format(d, f, v->string))
		return false;
	*out = arena_copy(d->a, v->string);
	return true;
}

static bool check_count(const struct decoder *d, const struct field *f, const struct json *v)
{
	char low[32], high[32];

	if (v->type != JSON_ARRAY)
		return refuse(d, f, v, "a list");
	if (!f->ranged || ((double)v->n >= f->min && (double)v->n <= f->max))
		return true;
	field_number_text(f->min, low);
	field_number_text(f->max, high);
	if (f->max >= NO_LIMIT)
		return problem(d->why, "", "must have at least %s items, not %u", low, v->n);
	return problem(d->why, "", "must have between %s and %s items, not %u", low, high, v->n);
}

static bool decode_item(const struct decoder *d, const struct field *f, const struct json *v, char *at)
{
	switch (f->type) {
	case FIELD_LIST:
		return decode_object(f->fields, v, at, d->a, d->why);
	case FIELD_TEXTS:
		return decode_text(d, f, v, (struct str *)(void *)at);
	default:
		return decode_choice(d, f, v, (int *)(void *)at);
	}
}

static bool decode_items(const struct decoder *d, const struct field *f, const struct json *v, struct items *out)
{
	char index[24], *items;
	size_t i = 0;

	if (!check_count(d, f, v))
		return false;
	BUG_ON(f->item == 0);
	items = arena_alloc(d->a, v->n * f->item);
	for (const struct json *item = v->child; item; item = item->next, i++) {
		if (!decode_item(d, f, item, items + i * f->item)) {
			snprintf(index, sizeof index, "[%zu]", i);
			problem_prefix(d->why, index);
			return false;
		}
	}
	*out = (struct items){ items, v->n };
	return true;
}

static bool decode_value(const struct decoder *d, const struct field *f, const struct json *v, char *out)
{
	void *at = out + f->at;

	switch (f->type) { /* flat switch */
	case FIELD_BOOL:
		if (v->type != JSON_BOOL)
			return refuse(d, f, v, "true or false");
		*(bool *)at = v->boolean;
		return true;
	case FIELD_INT:
		return decode_int(d, f, v, at);
	case FIELD_NUMBER:
		return decode_number(d, f, v, at);
	case FIELD_TEXT:
		return decode_text(d, f, v, at);
	case FIELD_CHOICE:
		return decode_choice(d, f, v, at);
	case FIELD_OBJECT:
		if (f->present)
			*(bool *)(void *)(out + f->present - 1) = true;
		return decode_object(f->fields, v, at, d->a, d->why);
	case FIELD_LIST: case FIELD_TEXTS: case FIELD_CHOICES:
		return decode_items(d, f, v, at);
	case FIELD_JSON:
		*(const struct json **)at = json_clone(d->a, v);
		return true;
	case FIELD_INLINE: case FIELD_END:
		break;
	}
	BUG_ON(true);
}

/* The member as given; null counts as absent. */
static const struct json *member(const struct json *object, const char *name)
{
	const struct json *v = json_get(object, name);

	return v && v->type != JSON_NULL ? v : NULL;
}

bool field_is_value(const struct field *row, const struct json *v, int value)
{
	const struct choice *c;

	switch (row->type) {
	case FIELD_BOOL:
		return v->type == JSON_BOOL && v->boolean == (value != 0);
	case FIELD_INT:
		return v->type == JSON_INT && v->integer == value;
	case FIELD_CHOICE:
		if (v->type == JSON_STRING) {
			c = choice_find(row->choices, v->string, row->nocase);
			return c && c->value == value;
		}
		return v->type == JSON_INT && v->integer == value && choice_of_value(row->choices, value);
	default:
		return false;
	}
}

/* Whether the member must be there. A sibling that is absent counts with its default. */
static bool is_needed(const struct decoder *d, const struct field *f)
{
	if (f->read_only || !f->when.sibling)
		return f->required && !f->read_only;
	const struct field *row = field_find(d->table, str_of(f->when.sibling));
	BUG_ON(!row);
	const struct json *v = member(d->object, row->name);

	if (!v && row->fallback)
		v = field_parse(row->fallback, d->a);
	return v && field_is_value(row, v, f->when.value);
}

void field_when_text(const struct field *table, const struct field *f, char out[96])
{
	const struct field *row = field_find(table, str_of(f->when.sibling));
	const char *word = row && row->choices ? choice_text(row->choices, f->when.value) : NULL;

	if (word)
		snprintf(out, 96, "%s is \"%s\"", f->when.sibling, word);
	else if (row && row->type == FIELD_BOOL)
		snprintf(out, 96, "%s is %s", f->when.sibling, f->when.value ? "true" : "false");
	else
		snprintf(out, 96, "%s is %d", f->when.sibling, f->when.value);
}

static bool refuse_missing(const struct decoder *d, const struct field *f, const char *what)
{
	char when[96];

	if (!f->when.sibling)
		return problem(d->why, f->name, "%s", what);
	field_when_text(d->table, f, when);
	return problem(d->why, f->name, "%s when %s", what, when);
}

/* "" where it means absent. */
static bool is_blank(const struct field *f, const struct json *v)
{
	if (v->type != JSON_STRING || v->string.n)
		return false;
	return f->type == FIELD_TEXT ? !f->empty_ok
	                             : f->type == FIELD_CHOICE && !choice_find(f->choices, STR(""), f->nocase);
}

static bool decode_fallback(const struct decoder *d, const struct field *f, char *out)
{
	const struct json *v = f->fallback ? field_parse(f->fallback, d->a) : NULL;

	if (!v || v->type == JSON_NULL)
		return true;
	if (is_blank(f, v)) {
		if (f->type == FIELD_TEXT)
			*(struct str *)(void *)(out + f->at) = STR("");
		return true;
	}
	BUG_ON(!decode_value(d, f, v, out));  /* a table's default breaks the table's own rule */
	return true;
}

static bool is_typed(const struct field *f, const struct json *v);

/* Members that are there have the types of their rows. */
static bool are_typed(const struct field *f, const struct json *object)
{
	for (; f->type != FIELD_END; f++) {
		const struct json *v = f->type == FIELD_INLINE ? NULL : member(object, f->name);

		if (f->type == FIELD_INLINE ? !are_typed(f->fields, object) : v && !is_typed(f, v))
			return false;
	}
	return true;
}

static bool are_items_typed(const struct field *f, const struct json *list)
{
	for (const struct json *v = list->child; v; v = v->next) {
		if (f->type == FIELD_LIST) {
			if (v->type != JSON_OBJECT || !are_typed(f->fields, v))
				return false;
		} else if (v->type != JSON_STRING && (f->type != FIELD_CHOICES || v->type != JSON_INT)) {
			return false;
		}
	}
	return true;
}

static bool is_typed(const struct field *f, const struct json *v)
{
	switch (f->type) {
	case FIELD_BOOL:
		return v->type == JSON_BOOL;
	case FIELD_INT:
		return v->type == JSON_INT;
	case FIELD_NUMBER:
		return v->type == JSON_INT || v->type == JSON_REAL;
	case FIELD_TEXT:
		return v->type == JSON_STRING;
	case FIELD_CHOICE:
		return v->type == (f->choices[0].text ? JSON_STRING : JSON_INT);
	case FIELD_OBJECT:
		return v->type == JSON_OBJECT && are_typed(f->fields, v);
	case FIELD_LIST: case FIELD_TEXTS: case FIELD_CHOICES:
		return v->type == JSON_ARRAY && are_items_typed(f, v);
	case FIELD_JSON: case FIELD_INLINE: case FIELD_END:
		break;
	}
	return true;
}

/* Of a variant that was not chosen: a value that its row would refuse is passed over, unless it has the wrong type. */
static bool pass_over(const struct decoder *d, const struct field *f, const struct json *v, char *out)
{
	if (!f->is_variant || is_needed(d, f) || !is_typed(f, v))
		return false;
	if (f->type == FIELD_OBJECT && f->present)
		*(bool *)(void *)(out + f->present - 1) = false;
	return decode_fallback(d, f, out);
}

static bool decode_row(const struct decoder *d, const struct field *f, char *out)
{
	const struct json *v = member(d->object, f->name);
	bool blank = v && is_blank(f, v);

	if (!v || blank) {
		if (is_needed(d, f))
			return refuse_missing(d, f, blank ? "must not be empty" : "is required");
		return decode_fallback(d, f, out);
	}
	if (decode_value(d, f, v, out) || pass_over(d, f, v, out))
		return true;
	problem_prefix(d->why, f->name);
	return false;
}

static bool decode_members(const struct decoder *d, const struct field *f, char *out)
{
	for (; f->type != FIELD_END; f++)
		if (f->type == FIELD_INLINE ? !decode_members(d, f->fields, out + f->at) : !decode_row(d, f, out))
			return false;
	return true;
}

static bool decode_object(const struct field *f, const struct json *v, void *out, struct arena *a, struct problem *why)
{
	struct decoder d = { f, v, a, why };

	if (v->type != JSON_OBJECT)
		return refuse(&d, &(struct field){ .type = FIELD_END }, v, "an object");
	return decode_members(&d, f, out);
}

/* Levenshtein distance, case ignored; large when one of them is long. */
static unsigned distance(struct str a, struct str b)
{
	unsigned row[NAME_MAX_COMPARED + 1];

	if (a.n > NAME_MAX_COMPARED || b.n > NAME_MAX_COMPARED)
		return NAME_MAX_COMPARED;
	for (unsigned j = 0; j <= b.n; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a.n; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= b.n; j++) {
			unsigned change = diagonal + (str_lower(a.p[i - 1]) != str_lower(b.p[j - 1]));
			unsigned best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;

			diagonal = row[j];
			row[j] = change < best ? change : best;
		}
	}
	return row[b.n];
}

static const struct field *find_nearest(const struct field *f, struct str name, unsigned *nearest)
{
	const struct field *found = NULL;

	for (; f->type != FIELD_END; f++) {
		const struct field *row = f->type == FIELD_INLINE ? find_nearest(f->fields, name, nearest) : f;
		unsigned far = row ? distance(str_of(row->name), name) : *nearest;

		if (row && (far < *nearest || f->type == FIELD_INLINE)) {
			*nearest = far;
			found = row;
		}
	}
	return found;
}

static size_t list_names(const struct field *f, char *out, size_t n)
{
	for (; f->type != FIELD_END; f++)
		n = f->type == FIELD_INLINE ? list_names(f->fields, out, n) : add_word(out, n, f->name, "");
	return n;
}

static bool refuse_unknown(const struct field *table, struct str name, struct problem *why)
{
	char shown[JSON_BRIEF], names[WORDS_MAX + 8] = "";
	unsigned nearest = name.n < 6 ? 2 : 4;
	const struct field *near = find_nearest(table, name, &nearest);

	if (name.n == 0)
		return problem(why, "\"\"", "unknown field; a name must not be empty");
	json_brief_text(name, shown);
	if (near)
		return problem(why, shown, "unknown field; did you mean \"%s\"?", near->name);
	if (list_names(table, names, 0) == 0)
		return problem(why, shown, "unknown field; no fields are known here");
	return problem(why, shown, "unknown field; known here are %s", names);
}

static bool check_known(const struct field *table, const struct json *object, struct problem *why);

/* The members of what a member holds. */
static bool check_known_below(const struct field *row, const struct json *v, struct problem *why)
{
	char index[24];
	unsigned i = 0;

	if (row->type == FIELD_OBJECT) {
		if (check_known(row->fields, v, why))
			return true;
		problem_prefix(why, row->name);
		return false;
	}
	if (row->type != FIELD_LIST || v->type != JSON_ARRAY)
		return true;
	for (const struct json *item = v->child; item; item = item->next, i++) {
		if (!check_known(row->fields, item, why)) {
			snprintf(index, sizeof index, "[%u]", i);
			problem_prefix(why, index);
			problem_prefix(why, row->name);
			return false;
		}
	}
	return true;
}

static bool check_known(const struct field *table, const struct json *object, struct problem *why)
{
	if (object->type != JSON_OBJECT)
		return true;                  /* the second pass says so */
	for (const struct json *m = object->child; m; m = m->next) {
		const struct field *row = field_find(table, m->name);

		if (!row)
			return refuse_unknown(table, m->name, why);
		if (!check_known_below(row, m, why))
			return false;
	}
	return true;
}

bool fields_decode(const struct field *f, const struct json *object, void *out, struct arena *a, struct problem *why)
{
	return check_known(f, object, why) && decode_object(f, object, out, a, why);
}
