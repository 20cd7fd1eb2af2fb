#include "policy/breaker.h"

#define PHASE_BITS 2
#define EPOCH_BITS 20
#define EPOCH_MASK ((UINT64_C(1) << EPOCH_BITS) - 1)
#define DEADLINE_SHIFT (PHASE_BITS + EPOCH_BITS)

static enum breaker_phase phase_of(uint64_t state)
{
	return (enum breaker_phase)(state & ((1U << PHASE_BITS) - 1));
}

static int64_t deadline_of(uint64_t state)
{
	return (int64_t)(state >> DEADLINE_SHIFT);
}

/* The state after `state`. */
static uint64_t follow(uint64_t state, enum breaker_phase phase, int64_t deadline_ms)
{
	uint64_t epoch = ((state >> PHASE_BITS) + 1) & EPOCH_MASK;

	return (uint64_t)deadline_ms << DEADLINE_SHIFT | epoch << PHASE_BITS | phase;
}

static bool move(struct breaker *b, uint64_t from, enum breaker_phase phase, int64_t deadline_ms)
{
	return atomic_compare_exchange_strong_explicit(&b->state, &from, follow(from, phase, deadline_ms),
		memory_order_acq_rel, memory_order_relaxed);
}

/* ---------- admission ---------- */

static enum breaker_pass judge(uint64_t state, int64_t now_ms)
{
	if (phase_of(state) == BREAKER_CLOSED)
		return BREAKER_PASSES;
	return now_ms >= deadline_of(state) ? BREAKER_PROBES : BREAKER_REFUSES;
}

enum breaker_pass breaker_admit(struct breaker *b, int64_t now_ms, int64_t lease_ms, struct breaker_ticket *out)
{
	for (;;) {
		uint64_t state = atomic_load_explicit(&b->state, memory_order_acquire);
		enum breaker_pass pass = judge(state, now_ms);

		out->state = state;
		if (pass != BREAKER_PROBES)
			return pass;
		out->state = follow(state, BREAKER_HALF_OPEN, now_ms + lease_ms);
		if (atomic_compare_exchange_weak_explicit(&b->state, &state, out->state, memory_order_acq_rel,
			    memory_order_relaxed))
			return BREAKER_PROBES;
	}
}

bool breaker_is_probe(struct breaker_ticket t)
{
	return phase_of(t.state) == BREAKER_HALF_OPEN;
}

enum breaker_phase breaker_phase(const struct breaker *b)
{
	return phase_of(atomic_load_explicit(&b->state, memory_order_acquire));
}

enum breaker_pass breaker_look(const struct breaker *b, int64_t now_ms)
{
	return judge(atomic_load_explicit(&b->state, memory_order_acquire), now_ms);
}

int64_t breaker_wait_ms(const struct breaker *b, int64_t now_ms)
{
	uint64_t state = atomic_load_explicit(&b->state, memory_order_acquire);

	if (phase_of(state) != BREAKER_OPEN || deadline_of(state) <= now_ms)
		return 0;
	return deadline_of(state) - now_ms;
}

/* ---------- statistics ---------- */

static uint64_t pack(uint32_t slot, uint32_t calls)
{
	return (uint64_t)slot << 32 | calls;
}

static uint32_t slot_of(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

/* A word of a later slot, by a thread whose clock is ahead, takes the call too. */
static void count(_Atomic uint64_t *word, uint32_t slot)
{
	uint64_t old = atomic_load_explicit(word, memory_order_acquire), new;

	do {
		bool is_old = (int32_t)(slot - slot_of(old)) > 0;

		new = is_old ? pack(slot, 1) : old + ((uint32_t)old < UINT32_MAX);
	} while (!atomic_compare_exchange_weak_explicit(word, &old, new, memory_order_acq_rel,
							memory_order_acquire));
}

static uint32_t calls_of(const _Atomic uint64_t *word, uint32_t slot)
{
	uint64_t value = atomic_load_explicit(word, memory_order_acquire);

	return (int32_t)(slot - slot_of(value)) < BREAKER_SLOTS ? (uint32_t)value : 0;
}

static bool is_too_bad(const struct breaker *b, const struct breaker_rules *rules, uint32_t slot)
{
	uint64_t total = 0, bad = 0;

	/* Bad ones first: each was counted after its total. */
	for (unsigned i = 0; i < BREAKER_SLOTS; i++)
		bad += calls_of(&b->slots[i].bad, slot);
	for (unsigned i = 0; i < BREAKER_SLOTS; i++)
		total += calls_of(&b->slots[i].total, slot);
	if (total < rules->least)
		return false;
	return rules->percent >= 100 ? bad >= total : bad * 100 > total * rules->percent;
}

static void forget(struct breaker *b, uint32_t slot)
{
	for (unsigned i = 0; i < BREAKER_SLOTS; i++) {
		atomic_store_explicit(&b->slots[i].bad, pack(slot - BREAKER_SLOTS, 0), memory_order_release);
		atomic_store_explicit(&b->slots[i].total, pack(slot - BREAKER_SLOTS, 0), memory_order_release);
	}
}

static uint32_t slot_at(const struct breaker_rules *rules, int64_t now_ms)
{
	return (uint32_t)(now_ms * BREAKER_SLOTS / rules->window_ms);
}

void breaker_init(struct breaker *b, const struct breaker_rules *rules, int64_t now_ms)
{
	forget(b, slot_at(rules, now_ms));
	atomic_store_explicit(&b->state, BREAKER_CLOSED, memory_order_release);
}

/* ---------- reports ---------- */

static bool report_probe(struct breaker *b, const struct breaker_rules *rules, uint64_t state, enum breaker_call call,
			 int64_t now_ms)
{
	switch (call) {
	case BREAKER_GOOD:
		return move(b, state, BREAKER_CLOSED, 0);
	case BREAKER_BAD:
		return move(b, state, BREAKER_OPEN, now_ms + rules->recovery_ms);
	case BREAKER_UNSEEN:
		return move(b, state, BREAKER_OPEN, now_ms);
	case BREAKER_LOST:
		break;
	}
	return false;
}

bool breaker_report(struct breaker *b, const struct breaker_rules *rules, struct breaker_ticket t,
		    enum breaker_call call, int64_t now_ms)
{
	uint32_t slot = slot_at(rules, now_ms);
	struct breaker_slot *s = &b->slots[slot % BREAKER_SLOTS];

	if (atomic_load_explicit(&b->state, memory_order_acquire) != t.state)
		return false;                   /* of an earlier epoch */
	if (phase_of(t.state) == BREAKER_HALF_OPEN) {
		/* Calls of the time before are ignored by now: nobody else counts. */
		if (call == BREAKER_GOOD)
			forget(b, slot);
		return report_probe(b, rules, t.state, call, now_ms);
	}
	if (call != BREAKER_GOOD && call != BREAKER_BAD)
		return false;
	count(&s->total, slot);
	if (call == BREAKER_BAD)
		count(&s->bad, slot);
	return is_too_bad(b, rules, slot) && move(b, t.state, BREAKER_OPEN, now_ms + rules->recovery_ms);
}
