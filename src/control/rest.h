/*
 * rest.h -- create, replace and delete for any class of resource, as parts of a write. No HTTP here.
 */
#pragma once
#include "control/resource.h"
#include "control/write.h"

struct rest_input {
	const struct resource_class *class;
	const struct json *body;          /* an object */
	struct str parent_id;             /* value of the { member } in the class's path; absent = it has none */
	struct str id;                    /* absent = a new one */
	bool internal;                    /* ours: read-only members are taken as they are */
};

/* *out is borrowed from the model. After false the write must be undone. */
MUST_USE bool rest_create(struct write *w, const struct rest_input *in, struct resource **out, struct problem *why);
MUST_USE bool rest_replace(struct write *w, struct resource *before, const struct rest_input *in,
	struct resource **out, struct problem *why);
/* With everything that belongs to it; PROBLEM_CONFLICT names who still uses it. */
MUST_USE bool rest_delete(struct write *w, struct resource *r, struct problem *why);
/* Member of a class's path in braces; NULL when there is none. */
const char *rest_parent_field(const struct resource_class *class, char out[64]);
/* The item of an answer: document without secrets, id field, times, version, what the class adds. */
struct json *rest_item(const struct control *c, const struct resource *r, struct arena *a);
/* Whether the resource has this member value: texts, numbers, booleans, or one of a list of texts. */
bool rest_has_value(const struct resource *r, const char *member, struct str value);
