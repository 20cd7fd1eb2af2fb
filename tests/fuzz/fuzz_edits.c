/*
 * fuzz_edits.c -- a document and what is to be changed in it. The result parses, means what the same changes of
 * the tree mean, and each value in which nothing was changed still has its own bytes.
 *
 * The first byte says how many of the bytes behind it steer the changes; the rest is the document.
 */
/* room: ai */
#include <stddef.h>
#include <stdint.h>
#include "ai/edits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
	struct arena arena;
	struct edits edits;
	const uint8_t *choices;
	size_t n_choices, used;
	struct str text, result;
};

static unsigned choose(struct run *r)
{
	size_t at = r->used++;

	return r->n_choices ? r->choices[at % r->n_choices] + (unsigned)(at / r->n_choices) : 0;
}

static struct json *read_text(struct run *r, struct str text)
{
	struct problem why = { 0 };

	return json_parse_spans(&r->arena, text, 4000, &why);
}

static void forget_places(struct json *v)
{
	v->at = v->length = 0;
	for (struct json *m = v->child; m; m = m->next)
		forget_places(m);
}

static void empty(struct json *v)
{
	v->child = NULL;
	v->n = 0;
	if (v->type == JSON_ARRAY || v->type == JSON_OBJECT)
		v->last = NULL;
}

/*
 * Walks both at once, the tree that is to be expected being made on the way: `to` is a copy of v without children.
 * Returns whether anything in v was changed; then `to` has no place.
 */
static bool change(struct run *r, const struct json *v, struct json *to);

static bool change_child(struct run *r, const struct json *box, const struct json *child, struct json *to)
{
	static const struct str values[] = { STR("null"), STR("\"\\u00e9 \\n\""), STR("[1,{\"a\":2}]"), STR("-1.50") };
	struct json *copy = json_new(&r->arena, child->type);
	unsigned what = choose(r) % 8;
	bool is_changed = true;

	*copy = *child;
	empty(copy);
	copy->next = NULL;
	if (what == 0) {
		edits_drop(&r->edits, box, child);
		return true;
	}
	if (what == 1) {
		struct str with = values[choose(r) % 4];
		struct json *value = read_text(r, with);

		edits_replace(&r->edits, child, with);
		value->name = child->name;
		forget_places(value);
		copy = value;
	} else {
		is_changed = change(r, child, copy);
	}
	json_add(to, copy);
	return is_changed;
}

static bool change(struct run *r, const struct json *v, struct json *to)
{
	bool is_changed = false;

	for (const struct json *m = v->child; m; m = m->next)
		is_changed |= change_child(r, v, m, to);
	if (v->type == JSON_OBJECT && choose(r) % 8 == 2 && !json_get(to, "added \"x\"")) {
		edits_add(&r->edits, v, STR("added \"x\""), STR("[]"));
		json_put(&r->arena, to, "added \"x\"", json_new(&r->arena, JSON_ARRAY));
		is_changed = true;
	}
	if (is_changed)
		to->at = to->length = 0;
	return is_changed;
}

/* `to` has places in the old text where nothing was changed. */
static void check_bytes(const struct run *r, const struct json *to, const struct json *found)
{
	struct str own = { r->result.p + found->at, found->length };

	BUG_ON(to->type != found->type || to->n != found->n || !str_equal(to->name, found->name));
	if (to->length) {
		BUG_ON(!str_equal(own, (struct str){ r->text.p + to->at, to->length }));
		return;
	}
	for (const struct json *a = to->child, *b = found->child; a; a = a->next, b = b->next)
		check_bytes(r, a, b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = { 0 };
	struct json *v, *to, *found;

	if (size < 2)
		return 0;
	r.n_choices = data[0] < size - 1 ? data[0] : size - 1;
	r.choices = data + 1;
	r.text = (struct str){ (const char *)data + 1 + r.n_choices, size - 1 - r.n_choices };
	v = read_text(&r, r.text);
	if (v) {
		edits_init(&r.edits, &r.arena, r.text);
		to = json_new(&r.arena, v->type);
		*to = *v;
		empty(to);
		change(&r, v, to);
		r.result = edits_apply(&r.edits, &r.arena);
		found = read_text(&r, r.result);
		BUG_ON(!found || !json_equal(found, to));
		BUG_ON(edits_are_none(&r.edits) && r.result.p != r.text.p);
		check_bytes(&r, to, found);
	}
	arena_free(&r.arena);
	return 0;
}
