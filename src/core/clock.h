/*
 * clock.h -- time, read once per loop turn and cached per thread.
 *
 * clock_ms() is monotonic and never steps; clock_wall_ms() is Unix time. Tests inject both with clock_set(), for this
 * thread at once and for others from their next turn on; a test clock stays until clock_set_real(). Units are in the
 * names.
 */
#pragma once
#include <stdint.h>
#include "core/fault.h"

struct clock {
	int64_t us, ms, wall_ms;      /* us is 0 before the first look */
};
extern _Thread_local struct clock clock_cached;

void clock_update(void);              /* by the loop, once per turn, on the calling thread */
static inline const struct clock *clock_read(void)
{
	if (UNLIKELY(clock_cached.us == 0))
		clock_update();
	return &clock_cached;
}
static inline int64_t clock_ms(void)  /* monotonic, cached */
{
	return clock_read()->ms;
}
static inline int64_t clock_us(void)  /* monotonic, cached */
{
	return clock_read()->us;
}
static inline int64_t clock_wall_ms(void)  /* Unix time, cached */
{
	return clock_read()->wall_ms;
}
int64_t clock_now_us(void);           /* monotonic, read now: for measuring inside a turn */
void clock_set(int64_t monotonic_us, int64_t wall_ms);  /* tests only */
void clock_set_real(void);
