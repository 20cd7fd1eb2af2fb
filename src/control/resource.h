/*
 * resource.h -- what a kind of resource is: one const object for each, in resources/<kind>.c.
 *
 * The field table says how a document looks; the class adds where it lives in the API, how it is called, and
 * the rules that a
 * row cannot say. REST, store, model, references, OpenAPI and the CLI know only "a resource of some class".
 *
 * A document on its way in:
 *      adapt       other spellings of the same thing (TLS versions)          nothing but the document
 *      decode      the field table: types, ranges, unknown members
 *      check       rules between fields                                      nothing but the decoded struct
 *      complete    what needs the model: defaults, who belongs to whom       may change the document
 *      refs        ids in the document exist, in the same gateway
 *      name        unique in its scope
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "control/model.h"
#include "core/field.h"
#include "core/problem.h"

struct control;
struct write;

/* A document being created or replaced. */
struct draft {
	const struct resource_class *class;
	const struct model *model;
	struct arena *arena;              /* for what is put into doc; gone after the draft */
	struct json *doc;                 /* completed: every default is there */
	const void *in;                   /* decoded struct of class->size bytes */
	const struct resource *before;    /* NULL on create */
	struct str id;
	struct write *write;              /* that it is part of */
};

struct resource_class {
	enum resource_kind kind;
	const char *name;                 /* as in resources.def; what .refers of a field row says */
	const char *noun,
		*plural; /* of action names: "Gateway" in asm:mesh:createGateway, apig:CreatePolicy */
	const char *attach_type;          /* attachResourceType; NULL when policies cannot be attached */
	const char *id_field, *id_prefix;
	const char *path;                 /* collection; { x } stands for the member of that name (the parent's id) */
	const char *scope[2];             /* names are unique among equal values of these members */
	bool has_unique_name;
	bool chooses_id;                  /* a create may name its id */
	const char *name_field;           /* NULL = "name" */
	const char *const *read_only;     /* members of answers that a PUT may repeat; the id field always is */
	const struct field *fields;
	size_t size;
	const char *doc;                  /* one sentence for the documentation */
	void (*adapt)(struct json *doc, struct arena *a);
	bool (*check)(const void *in, struct problem *why);
	bool (*complete)(struct draft *d, struct problem *why);
	/*
	 * A stored document of an earlier version of this program, secrets in the clear: brought to what is written
	 * today. Whether it changed; it is stored anew then.
	 */
	bool (*upgrade)(struct json *doc, struct arena *a);
	/*
	 * After the resource was created, replaced or deleted, within the same write: companions. r: new
	 * version, or the last one.
	 */
	bool (*created)(struct write *w, struct resource *r, struct problem *why);
	bool (*replaced)(struct write *w, struct resource *before, struct resource *r, struct problem *why);
	/*
	 * Whether requests can bring what it looks for while fields with "_" in their names are dropped; no part of
	 * check(), for what is stored stays valid when that setting changes.
	 */
	bool (*arrives)(const struct json *doc, struct problem *why);
	/* Before it is deleted: false refuses. */
	bool (*deleting)(struct write *w, struct resource *r, struct problem *why);
	/* Whether `user`, which points at r, goes with r instead of keeping it from being deleted. */
	bool (*owns)(const struct resource *r, const struct resource *user);
	/* What an answer has beyond the document (status); item is a copy without secrets. */
	void (*render)(const struct control *c, const struct resource *r, struct json *item, struct arena *a);
};

struct control;
extern const struct resource_class *const resource_classes[RESOURCE_COUNT];   /* by kind */
const struct resource_class *resource_class_by_name(const char *name);        /* "service"; NULL when unknown */
const struct resource_class *resource_class_by_attach_type(struct str type);  /* "Route"; NULL when unknown */
const char *resource_name_field(const struct resource_class *class);
/* Gives a new version its document, copied into its arena, and its name. Control thread only. */
void resource_keep(struct resource *r, const struct json *doc);

bool policy_is_attached(const struct model *m, struct str policy_id);
/*
 * The certificate a gateway means by a secretName: in its own namespace, else in "default". NULL when there
 * is none.
 */
struct resource *certificate_find(const struct model *m, struct str namespace, struct str name);

/*
 * Decodes a resource's document into a zeroed struct of its class (resources/types.h). A stored document
 * always decodes.
 */
MUST_USE bool resource_decode(const struct resource *r, struct arena *a, void *out, struct problem *why);
