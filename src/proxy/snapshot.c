#include "proxy/snapshot.h"
#include "core/mem.h"
#include "proxy/consumers.h"

const struct policies policies_none = { .part.refs = 1 };

void snapshot_publish(struct snapshot *s, struct mailbox *boxes, unsigned workers)
{
	BUG_ON(workers == 0 || workers > WORKERS_MAX);
	atomic_store_explicit(&s->refs, workers, memory_order_relaxed);
	for (unsigned i = 0; i < workers; i++) {
		struct handover *h = MEM_NEW(struct handover);

		h->snapshot = s;
		inbox_put(&boxes[i].inbox, &h->item);
	}
}

static void wake_control(const struct mailbox *box)
{
	if (box->wake_control)
		box->wake_control(box->wake_arg);
}

/* The worker's reference goes; the last one sends the snapshot home to be taken apart. */
static void release(struct view *v, const struct mailbox *box)
{
	struct snapshot *s = (struct snapshot *)(uintptr_t)v->snapshot;

	mem_free(v);
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1 && inbox_put(box->reaper, &s->item))
		wake_control(box);
}

struct view *snapshot_adopt(struct view *current, struct mailbox *box,
			    void (*adopted)(void *arg, const struct snapshot *s), void *arg)
{
	struct inbox_item *item = inbox_take(&box->inbox), *following;

	if (!item)
		return current;
	for (; item; item = following) {
		struct handover *h = CONTAINER(item, struct handover, item);
		struct view *before = current;

		following = item->next;
		BUG_ON(before && h->snapshot->version <= before->snapshot->version);
		current = MEM_NEW(struct view);
		current->snapshot = h->snapshot;
		mem_free(h);
		/* Also for one that is outdated already: it may have sockets to open and pools to close. */
		if (adopted)
			adopted(arg, current->snapshot);
		if (before && before->exchanges == 0)
			release(before, box);
	}
	atomic_store_explicit(&box->adopted, current->snapshot->version, memory_order_release);
	wake_control(box);
	return current;
}

void snapshot_unpin(struct view *v, const struct view *current, struct mailbox *box)
{
	if (v->exchanges == 0 && v != current)
		release(v, box);
}

static void take_apart(struct snapshot *s)
{
	BUG_ON(atomic_load_explicit(&s->refs, memory_order_acquire) != 0);
	for (unsigned i = 0; i < s->n_retired; i++)
		part_drop(&s->retired[i]->part);
	for (unsigned i = 0; i < s->n_changed; i++)
		part_drop(&s->changed[i]->part);
	pmap_drop(s->bindings);
	pmap_drop(s->paths);
	pmap_drop(s->services);
	if (s->consumers)
		part_drop(&s->consumers->part);
	pmap_drop(s->claims);
	arena_free(&s->arena);
	mem_free(s);
}

void snapshot_reap(struct inbox *returned)
{
	struct inbox_item *item = inbox_take(returned), *following;

	for (; item; item = following) {
		following = item->next;
		take_apart(CONTAINER(item, struct snapshot, item));
	}
}

bool endpoint_is_up(const struct endpoint *e, int64_t now_ms)
{
	const struct endpoint_cell *cell = e->cell;

	return !atomic_load_explicit(&cell->unhealthy, memory_order_relaxed) &&
	       atomic_load_explicit(&cell->ejected_until_ms, memory_order_relaxed) <= now_ms;
}
