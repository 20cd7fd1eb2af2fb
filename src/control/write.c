#include "control/write.h"
#include "control/compile.h"
#include "control/control_parts.h"
#include "control/resource.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"

void write_begin(struct write *w, struct control *c, struct arena *a)
{
	*w = (struct write){ .control = c, .arena = a };
	list_init(&w->changes);
}

/* Takes over the reference to `after`. */
static struct change *new_change(struct resource *before, struct resource *after)
{
	struct change *c = MEM_NEW(struct change);

	list_init(&c->node);
	resource_hold(before);
	c->before = before;
	c->after = after;
	return c;
}

static void free_change(struct change *c)
{
	list_remove(&c->node);
	resource_drop(c->before);
	resource_drop(c->after);
	mem_free(c);
}

static bool apply(struct write *w, struct change *c, struct problem *why)
{
	struct control *control = w->control;

	model_apply(control->model, c);
	if (compile_change(control->compiler, c, why)) {
		list_append(&w->changes, &c->node);
		return true;
	}
	model_undo(control->model, c);
	free_change(c);
	return false;
}

bool write_put(struct write *w, struct resource *r, struct problem *why)
{
	struct resource *before = model_get(w->control->model, r->kind, r->id);
	int64_t now = clock_wall_ms();

	r->age = before ? before->age : model_new_age(w->control->model);
	r->version = before ? before->version + 1 : 1;
	r->created_ms = before ? before->created_ms : now;
	r->updated_ms = now;
	return apply(w, new_change(before, r), why);
}

bool write_delete(struct write *w, struct resource *r, struct problem *why)
{
	return apply(w, new_change(r, NULL), why);
}

static void undo_changes(struct control *control, struct list *changes)
{
	struct problem why;

	while (!list_is_empty(changes)) {
		struct change *c = CONTAINER(changes->prev, struct change, node);
		struct change reverse = { .before = c->after, .after = c->before };
		const struct resource *r = c->after ? c->after : c->before;

		model_undo(control->model, c);
		list_init(&reverse.node);
		if (!compile_change(control->compiler, &reverse, &why))
			log_error("control.undo_failed", F_STR("resource", r->id), F_TEXT("field", why.field),
				F_TEXT("why", why.text));
		free_change(c);
	}
}

void write_undo(struct write *w)
{
	undo_changes(w->control, &w->changes);
}

void write_keep(struct write *w)
{
	LIST_EACH(node, &w->changes) {
		list_remove(node);
		list_append(&w->control->batch, node);
		w->control->n_batch++;
	}
}

bool batch_is_empty(const struct control *c)
{
	return list_is_empty(&c->batch);
}

static struct str write_text(const struct json *doc, struct arena *a)
{
	struct sbuf text = { 0 };

	json_write(&text, doc);
	struct str copy = arena_copy(a, sbuf_str(&text));

	mem_wipe(text.p, text.n);
	sbuf_free(&text);
	return copy;
}

static struct store_row row_of(const struct control *c, const struct change *change, struct arena *a)
{
	const struct resource *r = change->after ? change->after : change->before;
	struct store_row row = {
		.kind = str_of(resource_classes[r->kind]->name), .id = r->id, .age = r->age, .version = r->version,
		.created_ms = r->created_ms, .updated_ms = r->updated_ms,
	};

	if (change->after) {
		struct json *doc = json_clone(a, r->doc);

		secrets_seal(&c->secrets, r, doc, a);
		row.doc = write_text(doc, a);
	}
	return row;
}

static bool store_batch(struct control *c, struct problem *why)
{
	struct arena a = { 0 };
	struct store_row *rows = NEW_N(&a, struct store_row, c->n_batch);
	size_t n = 0;

	LIST_EACH(node, &c->batch)
		rows[n++] = row_of(c, CONTAINER(node, struct change, node), &a);
	bool ok = store_write(c->store, rows, n, why);

	arena_free(&a);
	return ok;
}

bool write_anew(struct control *c, struct resource *const *list, size_t n, struct problem *why)
{
	struct arena a = { 0 };
	struct store_row *rows = NEW_N(&a, struct store_row, n);

	for (size_t i = 0; i < n; i++)
		rows[i] = row_of(c, &(struct change){ .after = list[i] }, &a);
	bool ok = store_write(c->store, rows, n, why);

	arena_free(&a);
	return ok;
}

bool batch_commit(struct control *c, struct problem *why)
{
	if (batch_is_empty(c))
		return true;
	bool ok = store_batch(c, why);

	metric_set(c->store_up, ok);
	c->n_batch = 0;
	if (!ok) {
		log_error("store.write_failed", F_TEXT("why", why->text));
		undo_changes(c, &c->batch);
		return false;
	}
	LIST_EACH(node, &c->batch)
		free_change(CONTAINER(node, struct change, node));
	compile_publish(c->compiler);
	return true;
}
