#include "policy/rate_window.h"

_Static_assert(RATE_SLOTS * RATE_SLOT_US == 1000000, "the window is one second");
_Static_assert((RATE_SLOTS & (RATE_SLOTS - 1)) == 0, "slot % RATE_SLOTS goes on when the slot wraps");

static uint64_t pack(uint32_t slot, uint32_t admitted)
{
	return (uint64_t)slot << 32 | admitted;
}

static uint32_t slot_of(uint64_t packed)
{
	return (uint32_t)(packed >> 32);
}

/* Slots wrap after 4 years, so order is relative: a clock may lag by an hour, anything more is progress. */
static bool is_after(uint32_t a, uint32_t b)
{
	return a != b && a - b < UINT32_MAX - 3600000000U / RATE_SLOT_US;
}

void rate_window_init(struct rate_window *w, int64_t now_us)
{
	uint32_t slot = (uint32_t)(now_us / RATE_SLOT_US);

	for (uint32_t i = 0; i < RATE_SLOTS; i++)
		atomic_store_explicit(&w->marks[(slot - i) % RATE_SLOTS], pack(slot - i, 0),
			memory_order_relaxed);
	atomic_store_explicit(&w->head, pack(slot, 0), memory_order_release);
}

static void raise_mark(_Atomic uint64_t *mark, uint32_t slot, uint32_t admitted)
{
	uint64_t old = atomic_load_explicit(mark, memory_order_acquire);

	while (is_after(slot, slot_of(old)) ||
	       (slot == slot_of(old) && (int32_t)(admitted - (uint32_t)old) > 0))
		if (atomic_compare_exchange_weak_explicit(mark, &old, pack(slot, admitted),
			    memory_order_acq_rel, memory_order_acquire))
			return;
}

/* Moves head on to `slot`, or finds that somebody else moved it. */
static void advance(struct rate_window *w, uint64_t head, uint32_t slot)
{
	uint32_t gone = slot - slot_of(head), first = slot - (gone < RATE_SLOTS ? gone : RATE_SLOTS) + 1;

	for (uint32_t s = first; s != slot + 1; s++)
		raise_mark(&w->marks[s % RATE_SLOTS], s, (uint32_t)head);
	atomic_compare_exchange_strong_explicit(&w->head, &head, pack(slot, (uint32_t)head),
		memory_order_acq_rel, memory_order_relaxed);
}

bool rate_window_admit(struct rate_window *w, int64_t now_us, uint32_t threshold)
{
	uint32_t slot = (uint32_t)(now_us / RATE_SLOT_US);

	for (;;) {
		uint64_t head = atomic_load_explicit(&w->head, memory_order_acquire), mark;
		uint32_t oldest = slot_of(head) - (RATE_SLOTS - 1);

		if (is_after(slot, slot_of(head))) {
			advance(w, head, slot);
			continue;
		}
		mark = atomic_load_explicit(&w->marks[oldest % RATE_SLOTS], memory_order_acquire);
		if (slot_of(mark) != oldest) {
			/* Another thread's clock is in a newer slot already. */
			slot = slot_of(mark);
			continue;
		}
		if ((uint32_t)head - (uint32_t)mark >= threshold)
			return false;
		if (atomic_compare_exchange_weak_explicit(&w->head, &head, pack(slot_of(head), (uint32_t)head + 1),
			    memory_order_acq_rel, memory_order_relaxed))
			return true;
	}
}

uint32_t rate_window_used(const struct rate_window *w, int64_t now_us)
{
	uint64_t head = atomic_load_explicit(&w->head, memory_order_acquire);
	uint32_t slot = (uint32_t)(now_us / RATE_SLOT_US), oldest;
	uint64_t mark;

	if (!is_after(slot, slot_of(head)))
		slot = slot_of(head);
	if (slot - slot_of(head) >= RATE_SLOTS)
		return 0;
	oldest = slot - (RATE_SLOTS - 1);
	mark = atomic_load_explicit(&w->marks[oldest % RATE_SLOTS], memory_order_acquire);
	/* It may have been written anew since head was read: then the window has moved on. */
	return slot_of(mark) == oldest ? (uint32_t)head - (uint32_t)mark : 0;
}
