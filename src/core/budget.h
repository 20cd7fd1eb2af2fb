/*
 * budget.h -- how many bytes a thread holds for its peers: what waits to be sent, what was received and not used yet,
 * the arenas of what is under way.
 *
 * Counted where memory is taken and given back, in one plain number for each thread; nothing is refused here. Who
 * admits work looks: tight = take smaller pieces, spent = take nothing new. Memory must go back on the thread that took
 * it. A thread without a limit only counts.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget {
	int64_t used;
	int64_t limit;                     /* 0 = none */
};
extern _Thread_local struct budget budget;

static inline void budget_add(int64_t bytes)
{
	budget.used += bytes;
}

static inline bool budget_is_spent(void)
{
	return budget.limit > 0 && budget.used >= budget.limit;
}

/* Half of it is gone. */
static inline bool budget_is_tight(void)
{
	return budget.limit > 0 && budget.used >= budget.limit / 2;
}

/* How much to receive at once into a buffer of n bytes: what the other side does not take at once has to be kept. */
static inline size_t budget_piece(size_t n)
{
	return budget_is_tight() && n > 16384 ? 16384 : n;
}
