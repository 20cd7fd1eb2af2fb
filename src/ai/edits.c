/*
 * edits.c -- what is wished becomes cuts: ranges of the text that are left out, each with what stands there instead.
 *
 *      {"a":1, "b":2, "c":3}      a dropped member takes what is up to the next one with it; dropped members at the end
 *       └──────┘    └──────┘      take what is behind the last one that stays; what is added stands behind that one
 *
 * Cuts are sorted by their place. One that begins within another is left out: its value is gone.
 */
#include "ai/edits.h"
#include <stdlib.h>

enum what { REPLACE, DROP, ADD };

struct edit {
	enum what what;
	unsigned turn;                    /* of being wished */
	const struct json *box;           /* DROP, ADD */
	const struct json *child;         /* REPLACE, DROP */
	struct str name;                  /* ADD: quoted */
	struct str with;
};

struct cut {
	size_t at, length;
	struct str with;
	bool is_drop;
	unsigned turn;
};

struct cuts {
	struct cut *list;
	unsigned n;
};

void edits_init(struct edits *e, struct arena *a, struct str text)
{
	*e = (struct edits){ .arena = a, .text = text };
}

static struct edit *append(struct edits *e, enum what what)
{
	struct edit *edit;

	if (e->n == e->room) {
		struct edit *larger = NEW_N(e->arena, struct edit, e->room ? (size_t)e->room * 2 : 8);

		if (e->n)
			memcpy(larger, e->list, e->n * sizeof *larger);
		e->list = larger;
		e->room = e->room ? e->room * 2 : 8;
	}
	edit = &e->list[e->n];
	*edit = (struct edit){ .what = what, .turn = e->n };
	e->n++;
	return edit;
}

void edits_replace(struct edits *e, const struct json *value, struct str with)
{
	struct edit *edit = append(e, REPLACE);

	edit->child = value;
	edit->with = arena_copy(e->arena, with);
}

void edits_drop(struct edits *e, const struct json *parent, const struct json *child)
{
	struct edit *edit = append(e, DROP);

	BUG_ON(parent->type != JSON_ARRAY && parent->type != JSON_OBJECT);
	edit->box = parent;
	edit->child = child;
}

void edits_add(struct edits *e, const struct json *object, struct str name, struct str value)
{
	struct sbuf quoted = { 0 };
	struct edit *edit = NULL;

	BUG_ON(object->type != JSON_OBJECT);
	json_quote(&quoted, name);
	for (unsigned i = 0; i < e->n && !edit; i++)
		if (e->list[i].what == ADD && e->list[i].box == object && str_equal(e->list[i].name, sbuf_str(&quoted)))
			edit = &e->list[i];
	if (!edit) {
		edit = append(e, ADD);
		edit->box = object;
		edit->name = arena_copy(e->arena, sbuf_str(&quoted));
	}
	edit->with = arena_copy(e->arena, value);
	sbuf_free(&quoted);
}

/* ---------- from wishes to cuts ---------- */

/* By container; in one, drops in the order of the text, then what is added, in the order of the wishes. */
static int by_box(const void *va, const void *vb)
{
	const struct edit *a = va, *b = vb;

	if ((a->what == REPLACE) != (b->what == REPLACE))
		return a->what == REPLACE ? -1 : 1;
	if (a->what != REPLACE && a->box->at != b->box->at)
		return a->box->at < b->box->at ? -1 : 1;
	if (a->what != b->what)
		return a->what == DROP ? -1 : 1;
	if (a->what == DROP && a->child->at != b->child->at)
		return a->child->at < b->child->at ? -1 : 1;
	return a->turn < b->turn ? -1 : 1;
}

static int by_place(const void *va, const void *vb)
{
	const struct cut *a = va, *b = vb;

	if (a->at != b->at)
		return a->at < b->at ? -1 : 1;
	if ((a->length == 0) != (b->length == 0))
		return a->length == 0 ? -1 : 1;
	if (a->length != b->length)
		return a->length > b->length ? -1 : 1;
	if (a->is_drop != b->is_drop)
		return a->is_drop ? -1 : 1;
	return a->turn > b->turn ? -1 : 1;        /* the later one counts */
}

static size_t skip(struct str text, size_t at, bool comma)
{
	for (; at < text.n; at++) {
		char c = text.p[at];

		if (c != ' ' && c != '\t' && c != '\r' && c != '\n' && (!comma || c != ','))
			break;
	}
	return at;
}

static size_t end_of(const struct json *v)
{
	return (size_t)v->at + v->length;
}

static void cut_out(struct cuts *c, size_t from, size_t to)
{
	c->list[c->n++] = (struct cut){ .at = from, .length = to - from, .is_drop = true };
}

/*
 * Drops of one container: of its members, which are `edits` up to the first that is no drop. Returns where the last
 * member that stays ends, or where the first one stood; *stays: whether one does.
 */
static size_t cut_members(struct cuts *c, struct str text, const struct edit *edits, const struct edit *end,
			  bool *stays)
{
	const struct json *box = edits->box;
	size_t start = skip(text, (size_t)box->at + 1, false), kept = start, run = start, gone = 0;
	bool in_run = false;

	*stays = false;
	for (const struct json *m = box->child; m; m = m->next) {
		while (edits < end && edits->what == DROP && edits->child->at < m->at)
			edits++;          /* twice, or of another container */
		if (edits < end && edits->what == DROP && edits->child == m) {
			run = in_run ? run : start;
			in_run = true;
			gone = end_of(m);
		} else {
			if (in_run)
				cut_out(c, run, start);
			in_run = false;
			*stays = true;
			kept = end_of(m);
		}
		start = skip(text, end_of(m), true);
	}
	if (in_run)
		cut_out(c, kept, gone);
	return kept;
}

/* All edits of one container. */
static void cut_box(struct cuts *c, const struct edits *e, const struct edit *from, const struct edit *to)
{
	struct sbuf added = { 0 };
	bool stays;
	size_t at = cut_members(c, e->text, from, to, &stays);

	for (; from < to; from++) {
		if (from->what != ADD)
			continue;
		if (stays || added.n)
			sbuf_addc(&added, ',');
		sbuf_add(&added, from->name);
		sbuf_addc(&added, ':');
		sbuf_add(&added, from->with);
	}
	if (added.n)
		c->list[c->n++] = (struct cut){ .at = at, .with = arena_copy(e->arena, sbuf_str(&added)) };
	sbuf_free(&added);
}

static void make_cuts(struct cuts *c, const struct edits *e, struct edit *sorted)
{
	memcpy(sorted, e->list, e->n * sizeof *sorted);
	qsort(sorted, e->n, sizeof *sorted, by_box);
	for (unsigned i = 0; i < e->n;) {
		const struct edit *first = &sorted[i++];

		if (first->what == REPLACE) {
			c->list[c->n++] = (struct cut){ .at = first->child->at, .length = first->child->length,
				.with = first->with, .turn = first->turn };
			continue;
		}
		while (i < e->n && sorted[i].box == first->box)
			i++;
		cut_box(c, e, first, sorted + i);
	}
	qsort(c->list, c->n, sizeof *c->list, by_place);
}

/* Copies what stays and what is put in; only counts with out == NULL. */
static size_t put_together(const struct cuts *c, struct str text, char *out)
{
	size_t at = 0, n = 0;

	for (unsigned i = 0; i <= c->n; i++) {
		const struct cut end = { .at = text.n }, *cut = i < c->n ? &c->list[i] : &end;

		if (cut->at < at)
			continue;
		if (out) {
			memcpy(out + n, text.p + at, cut->at - at);
			if (cut->with.n)
				memcpy(out + n + (cut->at - at), cut->with.p, cut->with.n);
		}
		n += cut->at - at + cut->with.n;
		at = cut->at + cut->length;
	}
	return n;
}

struct str edits_apply(const struct edits *e, struct arena *a)
{
	struct cuts c = { 0 };
	struct str result;
	char *out;

	if (edits_are_none(e))
		return e->text;
	/* Each drop is one cut at most, and all that is added to a container is one. */
	c.list = NEW_N(e->arena, struct cut, e->n);
	make_cuts(&c, e, NEW_N(e->arena, struct edit, e->n));
	result.n = put_together(&c, e->text, NULL);
	out = arena_take(a, result.n + 1);
	put_together(&c, e->text, out);
	out[result.n] = '\0';
	result.p = out;
	return result;
}
