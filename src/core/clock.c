#include "core/clock.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

_Thread_local struct clock clock_cached;

static atomic_bool is_injected;
static _Atomic int64_t injected_us, injected_wall_ms;

static int64_t read_us(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void clock_update(void)
{
	if (atomic_load_explicit(&is_injected, memory_order_acquire)) {
		clock_cached.us = atomic_load_explicit(&injected_us, memory_order_relaxed);
		clock_cached.wall_ms = atomic_load_explicit(&injected_wall_ms, memory_order_relaxed);
	} else {
		clock_cached.us = read_us(CLOCK_MONOTONIC);
		clock_cached.wall_ms = read_us(CLOCK_REALTIME) / 1000;
	}
	clock_cached.ms = clock_cached.us / 1000;
}

int64_t clock_now_us(void)
{
	if (atomic_load_explicit(&is_injected, memory_order_acquire))
		return atomic_load_explicit(&injected_us, memory_order_relaxed);
	return read_us(CLOCK_MONOTONIC);
}

void clock_set(int64_t monotonic_us, int64_t wall_ms)
{
	atomic_store_explicit(&injected_us, monotonic_us, memory_order_relaxed);
	atomic_store_explicit(&injected_wall_ms, wall_ms, memory_order_relaxed);
	atomic_store_explicit(&is_injected, true, memory_order_release);
	clock_update();
}

void clock_set_real(void)
{
	atomic_store_explicit(&is_injected, false, memory_order_release);
	clock_update();
}
