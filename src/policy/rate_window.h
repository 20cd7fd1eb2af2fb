/*
 * rate_window.h -- counts admissions over the last second, for all workers together, without a lock.
 *
 *      time    ──┬────┬────┬────┬─ ... ─┬────┬──►      one slot = 31.25 ms
 *      slot      j-31 j-30 j-29          j              the window is the current slot and the 31 before it
 *
 * `head` holds the current slot and how many were admitted ever; a mark holds how many had been admitted ever
 * when its slot began. So the count of the window is head minus the mark of its oldest slot, and an admission
 * is one compare-and-swap of head, which fails when anything changed since the decision. Whoever sees a new
 * slot first writes the marks up to it, then moves head; marks only grow, so a thread that was stopped in the
 * middle does no harm.
 *
 * What holds: every span of 968 ms admits at most the threshold, less by how much the threads' cached clocks
 * differ (so there is room for the 900 ms the contract names); under constant overload each second admits the
 * threshold.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RATE_SLOTS 32
#define RATE_SLOT_US 31250

struct rate_window {
	_Atomic uint64_t head;            /* slot << 32 | admitted ever, modulo 2^32 */
	_Atomic uint64_t marks[RATE_SLOTS];   /* of slot s at s % RATE_SLOTS; the same packing */
};

void rate_window_init(struct rate_window *w, int64_t now_us);
/*
 * Counts one admission unless `threshold` (at most 2^31 - 1) have been admitted within the window. Any
 * thread.
 */
bool rate_window_admit(struct rate_window *w, int64_t now_us, uint32_t threshold);
/* How many were admitted within the window; counts nothing. Any thread. */
uint32_t rate_window_used(const struct rate_window *w, int64_t now_us);
