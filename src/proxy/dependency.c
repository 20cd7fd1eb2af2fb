#include "proxy/dependency.h"
#include "core/clock.h"
#include "core/metric.h"

#define WORDS (DEPENDENCY_ERROR_MAX / 8)

/*
 * Whoever makes the sequence odd writes; the others' news is as good as his, and is dropped. All stores until end() are
 * releases and all loads of a reader acquires: who sees one of them sees the odd sequence.
 */
static bool begin(struct dependency *d)
{
	unsigned seen = atomic_load_explicit(&d->sequence, memory_order_relaxed);

	return !(seen & 1) && atomic_compare_exchange_strong_explicit(&d->sequence, &seen, seen + 1,
								      memory_order_acquire, memory_order_relaxed);
}

static void end(struct dependency *d)
{
	atomic_fetch_add_explicit(&d->sequence, 1, memory_order_release);
}

static void change(struct dependency *d, bool is_down)
{
	if (atomic_exchange_explicit(&d->is_down, is_down, memory_order_acq_rel) == is_down)
		return;
	atomic_store_explicit(&d->since_ms, clock_wall_ms(), memory_order_release);
	if (d->up)
		metric_set(d->up, !is_down);
}

void dependency_up(struct dependency *d)
{
	if (!atomic_load_explicit(&d->is_down, memory_order_relaxed) || !begin(d))
		return;
	change(d, false);
	end(d);
}

void dependency_down(struct dependency *d, const char *reason, struct str error)
{
	unsigned long long words[WORDS] = { 0 };
	char *text = (char *)words;

	for (size_t i = 0; i < error.n && i < DEPENDENCY_ERROR_MAX; i++)
		text[i] = error.p[i] >= 0x20 && error.p[i] < 0x7f ? error.p[i] : ' ';
	if (!begin(d))
		return;
	for (unsigned i = 0; i < WORDS; i++)
		atomic_store_explicit(&d->error[i], words[i], memory_order_release);
	atomic_store_explicit(&d->reason, reason, memory_order_release);
	change(d, true);
	end(d);
}

static bool read_once(const struct dependency *d, struct dependency_state *out)
{
	unsigned long long words[WORDS];
	unsigned before = atomic_load_explicit(&d->sequence, memory_order_acquire);

	out->is_down = atomic_load_explicit(&d->is_down, memory_order_acquire);
	out->reason = atomic_load_explicit(&d->reason, memory_order_acquire);
	out->since_ms = atomic_load_explicit(&d->since_ms, memory_order_acquire);
	for (unsigned i = 0; i < WORDS; i++)
		words[i] = atomic_load_explicit(&d->error[i], memory_order_acquire);
	memcpy(out->error, words, DEPENDENCY_ERROR_MAX);
	out->error[DEPENDENCY_ERROR_MAX] = 0;
	return !(before & 1) && atomic_load_explicit(&d->sequence, memory_order_relaxed) == before;
}

struct dependency_state dependency_read(const struct dependency *d)
{
	struct dependency_state out;

	/* Writers are done within some dozen stores. */
	while (!read_once(d, &out))
		;
	return out;
}
