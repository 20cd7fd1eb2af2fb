/*
 * model.h -- all resources in memory, as they are in the store, indexed by id, by name and by who points at whom.
 *
 * The control thread owns it: reads are answered from it, writes go through it (validated against it), then
 * into the store, then
 * into force. A `struct resource` is one version of one resource and never changes; a write makes a new one.
 * `doc` is the whole
 * document with every default filled in and secrets in the clear (they are sealed on their way to the store and
 * left out of answers).
 *
 * A write may change several resources (a gateway brings its default environment, deleting a route deletes its
 * attachments).
 * Each single change is a `struct change`; a list of them is applied in order and can be undone in reverse order.
 */
#pragma once
#include <stdint.h>
#include "core/arena.h"
#include "core/json.h"
#include "core/list.h"
#include "core/map.h"
#include "core/problem.h"

enum resource_kind {
#define RESOURCE(id, name) RESOURCE_##id,
#include "control/resources.def"
#undef RESOURCE
	RESOURCE_COUNT
};

struct resource {
	enum resource_kind kind;
	struct str id;
	struct str name;                  /* "" when the kind has none */
	uint64_t age;                     /* sequence number of its creation: older is smaller */
	uint64_t version;                 /* counts its changes from 1; the ETag */
	int64_t created_ms, updated_ms;   /* Unix time */
	const struct json *doc;
	struct arena arena;               /* holds the doc and the texts */
	unsigned refs;                    /* the model, and changes under way */
};

struct change {
	struct list node;
	struct resource *before;          /* NULL: created */
	struct resource *after;           /* NULL: deleted */
};

struct model;
struct model *model_new(void);
void model_free(struct model *m);
struct resource *model_get(const struct model *m, enum resource_kind kind, struct str id);
/*
 * By name among those with equal values of the class's scope members (scope[2], in the class's order; unused
 * ones are ignored).
 */
struct resource *model_find(
	const struct model *m, enum resource_kind kind, const struct str *scope, struct str name);
uint64_t model_new_age(struct model *m);          /* for the next resource created; grows */
/* Every resource of a kind by age: for (i = 0; (r = model_next(m, kind, &i));) */
struct resource *model_next(const struct model *m, enum resource_kind kind, size_t *i);
size_t model_count(const struct model *m, enum resource_kind kind);
/*
 * Applies one change to the indexes. The model holds a reference to the version in force; the change keeps its
 * own to both.
 */
void model_apply(struct model *m, const struct change *c);
void model_undo(struct model *m, const struct change *c);
/*
 * Resources that point at (kind, id), for in-use refusals and for recompiling: calls each(arg, r); stops when
 * it returns false.
 * Nothing may be applied meanwhile. A policy points at what its config names, an attachment at its resources,
 * its gateway,
 * its environment and its policy.
 */
void model_referrers(const struct model *m, enum resource_kind kind, struct str id,
	bool (*each)(void *arg, struct resource *r), void *arg);
struct resource *resource_new(enum resource_kind kind, struct str id);      /* one reference, the caller's */
void resource_hold(struct resource *r);
void resource_drop(struct resource *r);
