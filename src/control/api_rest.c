/* api_rest.c -- list, create, read, replace and delete over HTTP, for any class of resource. */
#include <stdio.h>
#include "control/api.h"
#include "control/control_parts.h"
#include "control/rest.h"

static const char *const paging[] = { "pageNumber", "pageSize", NULL };
static const char *const nothing[] = { NULL };
static const char *const write_parameters[] = { "dryRun", NULL };

static const struct resource_class *class_of(const struct api_call *call)
{
	return resource_classes[call->at->kind];
}

static bool not_found(struct problem *why, const char *field, const struct resource_class *class, struct str id)
{
	return problem_of(why, PROBLEM_NOT_FOUND, field, "no %s has the id \"%.*s\"", class->name,
	                  (int)(id.n < 80 ? id.n : 80), id.p);
}

/* Nested paths have the parent's id first: its kind is what the member of that name refers to. */
static const struct resource_class *parent_class(const struct resource_class *class)
{
	char name[64];

	if (!rest_parent_field(class, name))
		return NULL;
	for (unsigned i = 0; i < RESOURCE_COUNT; i++)
		if (strcmp(resource_classes[i]->id_field, name) == 0)
			return resource_classes[i];
	return NULL;
}

bool api_find_parent(const struct api_call *call, struct str *parent_id, struct problem *why)
{
	const struct resource_class *parent = parent_class(class_of(call));

	*parent_id = (struct str){ NULL, 0 };
	if (!parent || !call->parameters[0].p)
		return true;
	*parent_id = call->parameters[0];
	return model_get(call->control->model, parent->kind, *parent_id) ||
	       not_found(why, parent->id_field, parent, *parent_id);
}

struct resource *api_find_item(const struct api_call *call, struct problem *why)
{
	const struct resource_class *class = class_of(call);
	struct str parent_id, id;
	char name[64];

	if (!api_find_parent(call, &parent_id, why))
		return NULL;
	id = call->parameters[parent_id.p ? 1 : 0];
	struct resource *r = model_get(call->control->model, class->kind, id);

	if (r && (!parent_id.p || !rest_parent_field(class, name) || str_equal(json_text(r->doc, name), parent_id)))
		return r;
	not_found(why, class->id_field, class, id);
	return NULL;
}

/* ---------- ETag ---------- */

static struct str etag_of(const struct resource *r, struct arena *a)
{
	return arena_printf(a, "\"%llu\"", (unsigned long long)r->version);
}

bool api_check_match(const struct api_call *call, const struct resource *r, struct problem *why)
{
	struct str rest = call->if_match, part, etag = etag_of(r, call->arena);

	if (!rest.n)
		return true;
	while (str_split(&rest, ',', &part)) {
		part = str_trim(part);
		if (str_starts(part, STR("W/")))
			part = (struct str){ part.p + 2, part.n - 2 };
		if (str_equal(part, STR("*")) || str_equal(part, etag))
			return true;
	}
	return problem_of(why, PROBLEM_PRECONDITION, "If-Match", "%s %.*s was changed meanwhile; its ETag is %.*s",
	                  resource_classes[r->kind]->name, STR_FMT(r->id), STR_FMT(etag));
}

void api_show_item(struct api_call *call, const struct resource *r)
{
	struct json *item = rest_item(call->control, r, call->arena);

	api_reveal(call, item);
	api_answer(call, 200, item);
	call->etag = etag_of(r, call->arena);
}

/* ---------- lists ---------- */

static bool is_listed(const char *const *names, struct str name)
{
	for (; *names; names++)
		if (str_equal(str_of(*names), name))
			return true;
	return false;
}

static bool is_filter(const struct resource_class *class, struct str name)
{
	if (str_equal(name, str_of(class->id_field)))
		return true;
	for (const struct field *f = class->fields; f->type != FIELD_END; f++)
		if (str_equal(str_of(f->name), name) && !f->secret && f->type != FIELD_OBJECT &&
			f->type != FIELD_LIST && f->type != FIELD_JSON)
			return true;
	return false;
}

bool api_check_filters(const struct api_call *call, const struct api_filter *f, struct problem *why)
{
	struct str rest = call->query, part;
	char name[64];

	while (str_split(&rest, '&', &part)) {
		struct str word = { part.p, str_find(part, '=') };

		snprintf(name, sizeof name, "%.*s", (int)(word.n < 60 ? word.n : 60), word.p);
		if (word.n && !is_listed(f->more, word) && !is_filter(f->class, word))
			return problem(why, name, "unknown filter of %s", f->class->plural);
		if (word.n && !api_check_pair(call, part, rest, why))
			return false;
	}
	return true;
}

bool api_fits_filters(const struct api_call *call, const struct api_filter *f, const struct resource *r)
{
	struct str rest = call->query, part;
	char name[64], list[66];

	while (str_split(&rest, '&', &part)) {
		part.n = str_find(part, '=');
		if (!part.n || part.n >= sizeof name || is_listed(f->more, part))
			continue;
		snprintf(name, sizeof name, "%.*s", STR_FMT(part));
		snprintf(list, sizeof list, "%ss", name);
		struct str value = api_query(call, name);
		bool fits = strcmp(name, f->class->id_field) == 0
				    ? str_equal(r->id, value)
				    : rest_has_value(r, name, value) || rest_has_value(r, list, value);

		if (!fits)
			return false;
	}
	return true;
}

bool api_list(struct api_call *call, struct problem *why)
{
	struct api_filter filter = { class_of(call), paging };
	struct json *items = json_new(call->arena, JSON_ARRAY);
	struct str parent_id;
	struct page page;
	char parent[64];
	size_t i = 0, total = 0;

	if (!api_find_parent(call, &parent_id, why) || !api_check_filters(call, &filter, why) ||
		!api_page(call, &page, why))
		return false;
	size_t first = (size_t)((page.number - 1) * page.size);

	rest_parent_field(filter.class, parent);
	for (const struct resource *r; (r = model_next(call->control->model, filter.class->kind, &i));) {
		if ((parent_id.p && !str_equal(json_text(r->doc, parent), parent_id)) ||
			!api_fits_filters(call, &filter, r))
			continue;
		if (total >= first && total < first + (size_t)page.size)
			json_add(items, rest_item(call->control, r, call->arena));
		total++;
	}
	api_answer_page(call, items, &page, total);
	return true;
}

/* ---------- one ---------- */

bool api_read(struct api_call *call, struct problem *why)
{
	const struct resource *r = api_check_query(call, nothing, why) ? api_find_item(call, why) : NULL;

	if (!r)
		return false;
	api_show_item(call, r);
	return true;
}

bool api_create(struct api_call *call, struct problem *why)
{
	struct rest_input in = { .class = class_of(call) };
	struct resource *r;
	struct write w;

	if (!api_find_parent(call, &in.parent_id, why) || !api_check_query(call, write_parameters, why))
		return false;
	in.body = api_body(call, why);
	if (!in.body)
		return false;
	write_begin(&w, call->control, call->arena);
	if (rest_create(&w, &in, &r, why))
		return api_keep(call, &w, r, SHOW_ID);
	write_undo(&w);
	return false;
}

bool api_replace_item(struct api_call *call, struct resource *before, struct problem *why)
{
	struct rest_input in = { .class = class_of(call) };
	struct resource *r;
	struct write w;

	if (!api_check_match(call, before, why) || !api_find_parent(call, &in.parent_id, why))
		return false;
	in.body = api_body(call, why);
	if (!in.body)
		return false;
	write_begin(&w, call->control, call->arena);
	if (rest_replace(&w, before, &in, &r, why))
		return api_keep(call, &w, r, SHOW_ITEM);
	write_undo(&w);
	return false;
}

bool api_replace(struct api_call *call, struct problem *why)
{
	struct resource *before = api_check_query(call, write_parameters, why) ? api_find_item(call, why) : NULL;

	return before && api_replace_item(call, before, why);
}

bool api_delete(struct api_call *call, struct problem *why)
{
	struct resource *r = api_check_query(call, write_parameters, why) ? api_find_item(call, why) : NULL;

	return r && api_delete_item(call, r, why);
}

bool api_delete_item(struct api_call *call, struct resource *r, struct problem *why)
{
	struct write w;

	if (!api_check_match(call, r, why))
		return false;
	write_begin(&w, call->control, call->arena);
	w.deleting = r;
	if (rest_delete(&w, r, why))
		return api_keep(call, &w, NULL, SHOW_NOTHING);
	write_undo(&w);
	return false;
}
