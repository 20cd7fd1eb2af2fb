/*
 * edits.h -- changes to a JSON text that leave every other byte as it was: values are replaced, members added
 * and dropped where they stand.
 *
 * Nodes are those of json_parse_spans() of the same text. Edits are collected and applied at once; the result
 * is valid JSON when what is put in is. Of two edits of one thing the later one counts; whatever is inside a
 * value that is replaced or dropped goes with it. A member may be added to an object that loses others, also
 * one of the same name.
 */
#pragma once
#include <stdbool.h>
#include "core/arena.h"
#include "core/json.h"

struct edit;

struct edits {
	struct arena *arena;
	struct str text;
	struct edit *list;                /* private */
	unsigned n, room;
};

/* `text` lives as long as the edits; arena: for the list and what is put in. */
void edits_init(struct edits *e, struct arena *a, struct str text);
/* `with` is JSON; it is copied. */
void edits_replace(struct edits *e, const struct json *value, struct str with);
/* child is a member or an item of parent. */
void edits_drop(struct edits *e, const struct json *parent, const struct json *child);
/* A new last member. The name must not be there, unless it is dropped too. */
void edits_add(struct edits *e, const struct json *object, struct str name, struct str value);
static inline bool edits_are_none(const struct edits *e)
{
	return e->n == 0;
}
/* The whole text, in the arena; e->text itself when there are none. */
struct str edits_apply(const struct edits *e, struct arena *a);
