/*
 * fault.h -- what to do about our own mistakes, and what nobody may call.
 *
 * BUG_ON(condition) stops the process with the place and the condition, in production too: a wrong state that
 * goes on serves wrong answers. Mistakes of peers and users are never a BUG_ON; they are a `struct problem`.
 */
#pragma once
#include <stddef.h>

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))
#define NORETURN __attribute__((noreturn))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define BUG_ON(condition) \
	do { \
		if (UNLIKELY(condition)) \
			fault_stop(__FILE__, __LINE__, #condition); \
	} while (0)

/* Writes the place and a backtrace to standard error and aborts. */
NORETURN void fault_stop(const char *file, int line, const char *what);
