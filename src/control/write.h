/*
 * write.h -- changes on their way: applied to model and compiler at once, durable and in force at the end of
 * the turn.
 *
 *      write_put, write_delete      one by one: model, then compiler; a refusal undoes the whole write
 *      write_keep                   the write joins the batch of this turn
 *      batch_commit                 one transaction for the batch, then one publish; a store that fails undoes
 *      all of it
 */
#pragma once
#include "control/model.h"
#include "core/problem.h"

struct control;

struct write {
	struct control *control;
	struct list changes;              /* struct change, in order */
	struct json *
		reveal; /* members of the answer to a create that are shown only there (a new token), or NULL */
	struct arena *arena;              /* of the call: for reveal */
	const struct resource *deleting;  /* what the call deletes, while it takes others with it */
};

void write_begin(struct write *w, struct control *c, struct arena *a);
/*
 * Takes over the caller's reference to r. Version, age and times are set here. r is a new resource, or a new
 * version of one.
 */
MUST_USE bool write_put(struct write *w, struct resource *r, struct problem *why);
MUST_USE bool write_delete(struct write *w, struct resource *r, struct problem *why);
void write_undo(struct write *w);
/* Appends to the batch; the write is empty afterwards. */
void write_keep(struct write *w);

/* Stores what is in force already, in the form of today. */
MUST_USE bool write_anew(struct control *c, struct resource *const *list, size_t n, struct problem *why);

bool batch_is_empty(const struct control *c);
/* false: the store refused; everything of the batch was undone. *why: kind PROBLEM_STORE. */
MUST_USE bool batch_commit(struct control *c, struct problem *why);
