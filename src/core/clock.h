/*
 * clock.h -- time, read once per loop turn and cached per thread.
 *
 * clock_ms() is monotonic and never steps; clock_wall_ms() is Unix time. Tests inject both with clock_set(); a test
 * clock stays until clock_set_real(). Units are in the names.
 */
#pragma once
#include <stdint.h>

void clock_update(void);              /* by the loop, once per turn, on the calling thread */
int64_t clock_ms(void);               /* monotonic, cached */
int64_t clock_us(void);               /* monotonic, cached */
int64_t clock_wall_ms(void);          /* Unix time, cached */
int64_t clock_now_us(void);           /* monotonic, read now: for measuring inside a turn */
void clock_set(int64_t monotonic_us, int64_t wall_ms);  /* all threads, tests only */
void clock_set_real(void);
