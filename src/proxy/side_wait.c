/* side_wait.c -- several exchanges of one worker that wait for the same thing. */
#include "proxy/side_call.h"
#include "proxy/worker.h"

static void leave(struct wait *w)
{
	struct waitlist_entry *e = CONTAINER(w, struct waitlist_entry, wait);

	list_remove(&e->node);
	timer_disarm(&e->limit);
}

static void give_up(struct timer *t)
{
	struct waitlist_entry *e = CONTAINER(t, struct waitlist_entry, limit);

	e->is_late = true;
	list_remove(&e->node);
	wait_done(&e->wait);
}

void waitlist_join(struct waitlist *l, struct waitlist_entry *e, struct worker *w, int64_t limit_ms)
{
	if (!l->entries.next)
		list_init(&l->entries);
	e->wait = (struct wait){ .cancel = leave };
	e->is_late = false;
	timer_init(&e->limit, give_up);
	list_append(&l->entries, &e->node);
	if (limit_ms > 0)
		loop_arm(worker_loop(w), &e->limit, limit_ms);
}

void waitlist_wake(struct waitlist *l)
{
	if (!l->entries.next)
		return;
	while (!list_is_empty(&l->entries)) {
		struct waitlist_entry *e = CONTAINER(l->entries.next, struct waitlist_entry, node);

		leave(&e->wait);
		wait_done(&e->wait);
	}
}

bool waitlist_is_empty(const struct waitlist *l)
{
	return !l->entries.next || list_is_empty(&l->entries);
}
