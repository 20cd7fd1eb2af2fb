/*
 * fault.h -- what to do about our own mistakes, and what nobody may call.
 *
 * BUG_ON(condition) stops the process with the place and the condition, in production too: a wrong state that
 * goes on serves wrong answers. Mistakes of peers and users are never a BUG_ON; they are a `struct problem`.
 */
#pragma once
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Not to be called: they know no length, or hide an error. (lint also refuses alloca, and malloc outside core/.) */
#ifdef __clang__
#define BANNED(instead) __attribute__((diagnose_if(1, "banned: " instead, "error")))
#else
#define BANNED(instead) __attribute__((error("banned: " instead)))
#endif
extern char *strcpy(char *, const char *) BANNED("use memcpy with a length, or snprintf");
extern char *strcat(char *, const char *) BANNED("use struct sbuf");
extern int sprintf(char *, const char *, ...) BANNED("use snprintf");
extern char *strtok(char *, const char *) BANNED("use str_split");
#ifndef __clang__                             /* which refuses the attribute where libc has atoi inline */
extern int atoi(const char *) BANNED("use str_to_u64");
#endif
