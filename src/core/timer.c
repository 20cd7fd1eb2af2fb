/*
 * Levels of 64 slots; a slot of level L is 64^L ms wide. A deadline lives on the level of the highest group of six
 * bits in which it differs from `now`, in the slot those six bits name:
 *
 *      level 0   |now+1 ms ........ up to the next multiple of 64 ms|        a slot = 1 ms: fires
 *      level 1   |the rest of the present 4096 ms|                           a slot = 64 ms: spreads over level 0
 *      level 2   |the rest of the present 262144 ms| ...                     and so on
 *
 * Hence what is on a lower level is due before everything on a higher one, the slots that are to come are those with a
 * higher number than now's, and the next slot is found by looking at one word a level: time that passes with
 * nothing armed costs nothing, however far the clock jumps.
 *
 * `occupied` may claim a slot that disarming has emptied; never the other way round.
 */
#include "core/timer.h"
#include "core/fault.h"
#include "core/mem.h"

enum {
	BITS = 6,
	SLOTS = 1 << BITS,
	LEVELS = (63 + BITS - 1) / BITS,
};

struct timer_wheel {
	int64_t now_ms;                            /* everything due up to here has fired */
	uint64_t occupied[LEVELS];
	struct list slots[LEVELS][SLOTS];
	struct list overdue;                       /* armed for a time that had passed: for the next run */
};

struct timer_wheel *timer_wheel_new(int64_t now_ms)
{
	struct timer_wheel *w = MEM_NEW(struct timer_wheel);

	BUG_ON(now_ms < 0);
	w->now_ms = now_ms;
	list_init(&w->overdue);
	for (unsigned level = 0; level < LEVELS; level++)
		for (unsigned i = 0; i < SLOTS; i++)
			list_init(&w->slots[level][i]);
	return w;
}

void timer_wheel_free(struct timer_wheel *w)
{
	mem_free(w);
}

void timer_init(struct timer *t, void (*fire)(struct timer *))
{
	list_init(&t->node);
	t->deadline_ms = 0;
	t->slot_ms = 0;
	t->fire = fire;
}

static unsigned level_of(int64_t now_ms, int64_t at_ms)
{
	uint64_t differing = (uint64_t)(now_ms ^ at_ms) | 1;

	return (unsigned)(63 - __builtin_clzll(differing)) / BITS;
}

static void link_timer(struct timer_wheel *w, struct timer *t)
{
	t->slot_ms = t->deadline_ms;
	if (t->deadline_ms <= w->now_ms) {
		list_append(&w->overdue, &t->node);
		return;
	}
	unsigned level = level_of(w->now_ms, t->deadline_ms);
	unsigned slot = (unsigned)(t->deadline_ms >> (BITS * level)) & (SLOTS - 1);

	w->occupied[level] |= UINT64_C(1) << slot;
	list_append(&w->slots[level][slot], &t->node);
}

void timer_arm(struct timer_wheel *w, struct timer *t, int64_t deadline_ms)
{
	bool is_linked = !list_is_empty(&t->node);

	t->deadline_ms = deadline_ms > 0 ? deadline_ms : 1;
	if (is_linked && t->deadline_ms >= t->slot_ms)
		return;
	list_remove(&t->node);
	link_timer(w, t);
}

void timer_disarm(struct timer *t)
{
	list_remove(&t->node);
	t->deadline_ms = 0;
}

/* The slot that comes round first, and when it begins; NULL when all are empty. */
static struct list *find_next(struct timer_wheel *w, int64_t *begins_ms)
{
	for (unsigned level = 0; level < LEVELS; level++) {
		while (w->occupied[level]) {
			unsigned slot = (unsigned)__builtin_ctzll(w->occupied[level]);
			struct list *head = &w->slots[level][slot];

			if (list_is_empty(head)) {
				w->occupied[level] &= w->occupied[level] - 1;
				continue;
			}
			unsigned shift = BITS * level;
			unsigned above = shift + BITS;
			uint64_t round = above < 64 ? (uint64_t)w->now_ms >> above << above : 0;

			*begins_ms = (int64_t)(round | (uint64_t)slot << shift);
			return head;
		}
	}
	return NULL;
}

/* Fires what is due at w->now_ms out of `head` and puts the rest where it belongs. Callbacks may change any timer. */
static void empty_slot(struct timer_wheel *w, struct list *head)
{
	struct list batch;

	list_init(&batch);
	batch = *head;
	batch.next->prev = batch.prev->next = &batch;
	list_init(head);
	while (!list_is_empty(&batch)) {
		struct timer *t = CONTAINER(batch.next, struct timer, node);

		list_remove(&t->node);
		if (t->deadline_ms > w->now_ms) {
			link_timer(w, t);
		} else {
			t->deadline_ms = 0;
			t->fire(t);
		}
	}
}

void timer_run(struct timer_wheel *w, int64_t now_ms)
{
	struct list *head;
	int64_t begins_ms;

	if (!list_is_empty(&w->overdue))
		empty_slot(w, &w->overdue);
	while ((head = find_next(w, &begins_ms)) && begins_ms <= now_ms) {
		BUG_ON(begins_ms <= w->now_ms);
		w->now_ms = begins_ms;
		empty_slot(w, head);
	}
	if (now_ms > w->now_ms)
		w->now_ms = now_ms;
}

int64_t timer_next_ms(struct timer_wheel *w, int64_t now_ms)
{
	int64_t begins_ms;

	if (!list_is_empty(&w->overdue))
		return 0;
	if (!find_next(w, &begins_ms))
		return -1;
	return begins_ms > now_ms ? begins_ms - now_ms : 0;
}
