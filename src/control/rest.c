#include "control/rest.h"
#include <stdio.h>
#include "control/control_parts.h"
#include "control/document.h"
#include "control/refs.h"
#include "core/crypto.h"

const char *rest_parent_field(const struct resource_class *class, char out[64])
{
	struct str path = str_of(class->path);
	size_t open = str_find(path, '{'), close = str_find(path, '}');

	if (open >= path.n || close <= open || close - open > 63)
		return NULL;
	snprintf(out, 64, "%.*s", (int)(close - open - 1), path.p + open + 1);
	return out;
}

static const char *const stamps[] = { "createTimestamp", "updateTimestamp", NULL };

/*
 * Members we make are not looked at, so that what was read can be written again; only an id may not be wished for, nor
 * changed where it is repeated.
 */
static bool take_read_only(const struct rest_input *in, struct json *doc, const struct resource *before,
                           struct problem *why)
{
	const struct resource_class *class = in->class;
	const struct json *id = json_get(doc, class->id_field);

	if (in->internal)
		return true;
	if (id && id->type != JSON_NULL && !before && !class->chooses_id)
		return problem(why, class->id_field, "is made by the gateway; leave it out");
	if (id && id->type != JSON_NULL && before && !str_equal(id->string, before->id))
		return problem(why, class->id_field, "cannot be changed after the creation; it is \"%.*s\"",
			STR_FMT(before->id));
	if (before || !class->chooses_id)
		json_drop(doc, class->id_field);
	for (const char *const *name = stamps; *name; name++)
		json_drop(doc, *name);
	for (const char *const *name = class->read_only; name && *name; name++)
		json_drop(doc, *name);
	return true;
}

/* The parent comes from the path; the body may repeat it. */
static bool take_parent(const struct rest_input *in, struct json *doc, struct arena *a, struct problem *why)
{
	char name[64];

	if (!in->parent_id.p || !rest_parent_field(in->class, name))
		return true;
	const struct json *v = json_get(doc, name);

	if (v && v->type != JSON_NULL && !str_equal(v->string, in->parent_id))
		return problem(
			why, name, "must be \"%.*s\" as in the path, or be left out", STR_FMT(in->parent_id));
	json_put(a, doc, name, json_new_text(a, in->parent_id));
	return true;
}

static bool check_name(const struct draft *d, struct str name, struct problem *why)
{
	const struct resource_class *class = d->class;
	struct str scope[2] = { { NULL, 0 }, { NULL, 0 } };

	if (!class->has_unique_name || !name.n)
		return true;
	for (unsigned i = 0; i < 2 && class->scope[i]; i++)
		scope[i] = json_text(d->doc, class->scope[i]);
	const struct resource *other = model_find(d->model, class->kind, scope, name);

	if (!other || str_equal(other->id, d->id))
		return true;
	return problem_of(why, PROBLEM_CONFLICT, resource_name_field(class),
		"\"%.*s\" is the name of %s %.*s already", STR_FMT(name), class->name, STR_FMT(other->id));
}

struct drafting {
	const struct rest_input *in;
	struct draft draft;
	struct arena *scratch;
};

/* What was so before may stay so: the setting may have changed since, and the log says it at every start. */
static bool check_arrives(const struct draft *d, struct problem *why)
{
	const struct resource_class *class = d->class;
	struct problem was = { 0 };

	if (d->write->control->keeps_underscores || !class->arrives || class->arrives(d->doc, why))
		return true;
	return d->before && !class->arrives(d->before->doc, &was) && strcmp(was.text, why->text) == 0;
}

/* From the body to a checked, completed document in r's arena. */
static bool draft_document(struct drafting *g, struct resource *r, struct problem *why)
{
	struct draft *d = &g->draft;
	const struct resource_class *class = d->class;
	const struct resource *before = d->before;
	struct json *doc = json_clone(g->scratch, g->in->body);
	struct problem moved = { 0 };
	void *in = arena_alloc(g->scratch, class->size ? class->size : 1);

	if (!take_read_only(g->in, doc, before, why) || !take_parent(g->in, doc, g->scratch, why))
		return false;
	if (class->adapt)
		class->adapt(doc, g->scratch);
	if (before) {
		document_keep_immutable(class->fields, doc, before->doc, g->scratch);
		secrets_keep(class->kind, doc, before->doc, g->scratch, &moved);
	}
	if (!fields_decode(class->fields, doc, in, g->scratch, why) || !secrets_check_masks(class->kind, doc, why))
		return false;
	d->in = in;
	d->arena = g->scratch;
	d->doc = document_complete(class->fields, doc, g->scratch);
	if (before && !document_check_immutable(class->fields, d->doc, before->doc, why))
		return false;
	if (class->check && !class->check(in, why))
		return false;
	if (moved.field[0]) {
		*why = moved;
		return false;
	}
	if (!check_arrives(d, why) || !check_name(d, json_text(d->doc, resource_name_field(class)), why))
		return false;
	if (class->complete) {
		if (!class->complete(d, why))
			return false;
		d->doc = document_complete(class->fields, d->doc, g->scratch);   /* what was added, in its place */
	}
	/* The resource holds the result only, for it may live long. */
	resource_keep(r, d->doc);
	return refs_check(d, why);
}

/* A mesh's id may be chosen; every other one is made. */
static struct str new_id(const struct resource_class *class, char out[40])
{
	char random[21];

	crypto_id(random, 20);
	return (struct str){ out, (size_t)snprintf(out, 40, "%s%s", class->id_prefix, random) };
}

static struct resource *draft_resource(struct write *w, struct resource *before, const struct rest_input *in,
                                       struct problem *why)
{
	struct arena scratch = { .wipes = true };
	char id_text[40];
	struct str chosen = in->class->chooses_id ? json_text(in->body, in->class->id_field) : STR("");
	struct str id = before ? before->id : in->id.p ? in->id : chosen.n ? chosen : new_id(in->class, id_text);
	struct resource *r = resource_new(in->class->kind, id);
	struct drafting g = {
		.in = in,
		.scratch = &scratch,
		.draft = { .class = in->class,
			.model = w->control->model,
			.before = before,
			.id = r->id,
			.write = w },
	};

	if (!before && model_get(w->control->model, r->kind, r->id))
		problem_of(why, PROBLEM_CONFLICT, in->class->id_field, "\"%.*s\" exists already", STR_FMT(id));
	else if (draft_document(&g, r, why))
		goto out;
	resource_drop(r);
	r = NULL;
out:
	arena_free(&scratch);
	return r;
}

bool rest_create(struct write *w, const struct rest_input *in, struct resource **out, struct problem *why)
{
	struct resource *r = draft_resource(w, NULL, in, why);

	if (!r || !write_put(w, r, why))
		return false;
	*out = r;
	return !in->class->created || in->class->created(w, r, why);
}

bool rest_replace(struct write *w, struct resource *before, const struct rest_input *in, struct resource **out,
                  struct problem *why)
{
	struct resource *r = draft_resource(w, before, in, why);

	if (!r)
		return false;
	*out = before;
	if (json_equal(r->doc, before->doc)) {        /* nothing changes: no version, no write */
		resource_drop(r);
		return true;
	}
	if (!write_put(w, r, why))
		return false;
	*out = r;
	return !in->class->replaced || in->class->replaced(w, before, r, why);
}

/* ---------- deleting ---------- */

struct users {
	struct resource **list;
	size_t n, cap;
	struct arena *a;
};

static bool collect(void *arg, struct resource *r)
{
	struct users *u = arg;

	if (u->n == u->cap) {
		size_t cap = u->cap ? u->cap * 2 : 16;
		struct resource **list = NEW_N(u->a, struct resource *, cap);

		if (u->n)
			memcpy(list, u->list, u->n * sizeof *list);
		u->list = list;
		u->cap = cap;
	}
	resource_hold(r);
	u->list[u->n++] = r;
	return true;
}

static bool is_attached(const struct resource *attachment, const struct resource *r)
{
	return attachment->kind == RESOURCE_ATTACHMENT && resource_classes[r->kind]->attach_type &&
	       str_equal(json_text(attachment->doc, "attachResourceType"),
		       str_of(resource_classes[r->kind]->attach_type)) &&
	       rest_has_value(attachment, "attachResourceIds", r->id);
}

/* Takes one resource out of an attachment that has several. */
static bool detach(struct write *w, struct resource *attachment, struct str id, struct problem *why)
{
	const struct json *ids = json_get(attachment->doc, "attachResourceIds");

	if (ids->n <= 1)
		return rest_delete(w, attachment, why);
	struct resource *r = resource_new(attachment->kind, attachment->id);
	struct json *doc = json_clone(&r->arena, attachment->doc), *left = json_new(&r->arena, JSON_ARRAY);
	struct sbuf joined = { 0 };

	for (const struct json *v = ids->child; v; v = v->next) {
		if (str_equal(v->string, id))
			continue;
		json_add(left, json_clone(&r->arena, v));
		sbuf_addf(&joined, "%s%.*s", joined.n ? "," : "", STR_FMT(v->string));
	}
	json_put(&r->arena, doc, "attachResourceIds", left);
	json_put(&r->arena, doc, "attachResourceId",
		json_new_text(&r->arena, arena_copy(&r->arena, sbuf_str(&joined))));
	sbuf_free(&joined);
	r->doc = doc;
	return write_put(w, r, why);
}

static bool refuse_in_use(const struct resource *r, const struct resource *user, struct problem *why)
{
	const struct resource_class *class = resource_classes[r->kind], *user_class = resource_classes[user->kind];

	if (!user->name.n)
		return problem_of(why, PROBLEM_CONFLICT, class->id_field, "%s %.*s is used by %s %.*s",
			class->name, STR_FMT(r->id), user_class->name, STR_FMT(user->id));
	return problem_of(why, PROBLEM_CONFLICT, class->id_field, "%s %.*s is used by %s %.*s (\"%.*s\")",
		class->name, STR_FMT(r->id), user_class->name, STR_FMT(user->id), STR_FMT(user->name));
}

static bool release_user(struct write *w, struct resource *r, struct resource *user, struct problem *why)
{
	const struct resource_class *class = resource_classes[r->kind];

	if (model_get(w->control->model, user->kind, user->id) != user)
		return true;                  /* went with something else meanwhile */
	if (is_attached(user, r))
		return detach(w, user, r->id, why);
	if (class->owns && class->owns(r, user))
		return rest_delete(w, user, why);
	/* What is not attached is not in force: its ids may point nowhere. */
	if (user->kind == RESOURCE_POLICY && !policy_is_attached(w->control->model, user->id))
		return true;
	return refuse_in_use(r, user, why);
}

bool rest_delete(struct write *w, struct resource *r, struct problem *why)
{
	const struct resource_class *class = resource_classes[r->kind];
	struct arena scratch = { 0 };
	struct users users = { .a = &scratch };
	bool ok = !class->deleting || class->deleting(w, r, why);

	resource_hold(r);
	if (ok)
		model_referrers(w->control->model, r->kind, r->id, collect, &users);
	for (size_t i = 0; i < users.n; i++) {
		ok = ok && release_user(w, r, users.list[i], why);
		resource_drop(users.list[i]);
	}
	if (ok)
		ok = write_delete(w, r, why);
	resource_drop(r);
	arena_free(&scratch);
	return ok;
}

/* ---------- answers ---------- */

struct json *rest_item(const struct control *c, const struct resource *r, struct arena *a)
{
	const struct resource_class *class = resource_classes[r->kind];
	struct json *item = json_new(a, JSON_OBJECT), *doc = secrets_strip(r, a), *next;

	json_put(a, item, class->id_field, json_new_text(a, r->id));
	for (struct json *m = doc->child; m; m = next) {
		next = m->next;
		if (!str_equal(m->name, str_of(class->id_field)))
			json_add(item, m);
	}
	json_put(a, item, stamps[0], json_new_int(a, r->created_ms));
	json_put(a, item, stamps[1], json_new_int(a, r->updated_ms));
	if (class->render)
		class->render(c, r, item, a);
	return item;
}

static bool is_value(const struct json *v, struct str value)
{
	char number[32];

	switch (v->type) {
	case JSON_STRING:
		return str_equal(v->string, value);
	case JSON_BOOL:
		return str_equal(v->boolean ? STR("true") : STR("false"), value);
	case JSON_INT:
		snprintf(number, sizeof number, "%lld", (long long)v->integer);
		return str_equal(str_of(number), value);
	default:
		return false;
	}
}

bool rest_has_value(const struct resource *r, const char *member, struct str value)
{
	const struct json *v = json_get(r->doc, member);

	if (!v)
		return false;
	if (v->type != JSON_ARRAY)
		return is_value(v, value);
	for (const struct json *item = v->child; item; item = item->next)
		if (is_value(item, value))
			return true;
	return false;
}
