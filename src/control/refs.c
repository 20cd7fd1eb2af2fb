#include "control/refs.h"
#include <stdio.h>
#include "proxy/policy.h"

struct walk {
	bool (*each)(void *arg, const struct ref *ref);
	void *arg;
	bool may_dangle;
};

#define PATH_MAX_BYTES 160

static bool walk_object(const struct walk *w, const struct field *f, const struct json *object, const char *path);

static bool give(const struct walk *w, const struct field *f, const struct json *v, const char *path)
{
	const struct resource_class *class = resource_class_by_name(f->refers);

	if (!class || v->type != JSON_STRING || v->string.n == 0 || str_equal(v->string, STR("*")))
		return true;
	return w->each(w->arg, &(struct ref){ class->kind, v->string, path, w->may_dangle });
}

static bool walk_items(const struct walk *w, const struct field *f, const struct json *list, const char *path)
{
	char at[PATH_MAX_BYTES];
	unsigned i = 0;

	for (const struct json *v = list->child; v; v = v->next, i++) {
		snprintf(at, sizeof at, "%s[%u]", path, i);
		if (f->type == FIELD_LIST ? !walk_object(w, f->fields, v, at) : !give(w, f, v, at))
			return false;
	}
	return true;
}

static bool walk_member(const struct walk *w, const struct field *f, const struct json *v, const char *path)
{
	char at[PATH_MAX_BYTES];

	snprintf(at, sizeof at, "%s%s%s", path, path[0] ? "." : "", f->name);
	switch (f->type) {
	case FIELD_OBJECT:
		return walk_object(w, f->fields, v, at);
	case FIELD_LIST:
		return v->type != JSON_ARRAY || walk_items(w, f, v, at);
	case FIELD_TEXTS:
		return !f->refers || v->type != JSON_ARRAY || walk_items(w, f, v, at);
	case FIELD_TEXT:
		return !f->refers || give(w, f, v, at);
	default:
		return true;
	}
}

static bool walk_object(const struct walk *w, const struct field *f, const struct json *object, const char *path)
{
	if (object->type != JSON_OBJECT)
		return true;
	for (; f->type != FIELD_END; f++) {
		if (f->type == FIELD_INLINE) {
			if (!walk_object(w, f->fields, object, path))
				return false;
			continue;
		}
		const struct json *v = json_get(object, f->name);

		if (v && !walk_member(w, f, v, path))
			return false;
	}
	return true;
}

/* What a policy's config names. */
static bool walk_config(const struct walk *outer, const struct json *doc)
{
	const struct policy_class *class = policy_class_find(json_text(doc, "className"));
	struct walk w = { outer->each, outer->arg, true };
	struct arena a = { 0 };
	struct problem why;
	bool go_on = true;

	const struct json *config = class ? json_parse(&a, json_text(doc, "config"), &why) : NULL;

	if (config)
		go_on = walk_object(&w, class->fields, config, "config");
	arena_free(&a);
	return go_on;
}

/* Members whose kind another member tells. */
static bool walk_typed(const struct walk *w, const struct json *doc, const char *type, const char *ids)
{
	const struct resource_class *class = resource_class_by_attach_type(json_text(doc, type));
	const struct json *v = json_get(doc, ids);
	struct field row = { .name = ids, .type = FIELD_TEXT };

	if (!class || !v)
		return true;
	row.refers = class->name;
	if (v->type == JSON_ARRAY)
		return walk_items(w, &row, v, ids);
	return give(w, &row, v, ids);
}

bool refs_each(enum resource_kind kind, const struct json *doc,
	bool (*each)(void *arg, const struct ref *ref), void *arg)
{
	struct walk w = { each, arg, false };

	if (!walk_object(&w, resource_classes[kind]->fields, doc, ""))
		return false;
	switch (kind) {
	case RESOURCE_POLICY:
		return walk_config(&w, doc);
	case RESOURCE_ATTACHMENT:
		return walk_typed(&w, doc, "attachResourceType", "attachResourceIds");
	case RESOURCE_RULE:
		return walk_typed(&w, doc, "resourceType", "resourceId");
	default:
		return true;
	}
}

struct checking {
	const struct draft *draft;
	struct str gateway_id;
	struct problem *why;
};

static bool check_ref(void *arg, const struct ref *ref)
{
	const struct checking *c = arg;
	const struct resource_class *class = resource_classes[ref->kind];

	if (ref->may_dangle)
		return true;
	const struct resource *r = model_get(c->draft->model, ref->kind, ref->id);

	if (!r)
		return problem(c->why, ref->path, "no %s has the id \"%.*s\"", class->name, STR_FMT(ref->id));
	struct str gateway_id = json_text(r->doc, "gatewayId");

	if (c->gateway_id.n && gateway_id.n && !str_equal(c->gateway_id, gateway_id))
		return problem(c->why, ref->path, "%s \"%.*s\" belongs to another gateway, \"%.*s\"", class->name,
		               STR_FMT(ref->id), STR_FMT(gateway_id));
	return true;
}

bool refs_check(const struct draft *d, struct problem *why)
{
	struct checking c = { d, json_text(d->doc, "gatewayId"), why };

	return refs_each(d->class->kind, d->doc, check_ref, &c);
}
