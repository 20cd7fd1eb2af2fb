/*
 * store.h -- where resources stay when the process ends. The model is the truth while it runs; the store is
 * read once at start.
 *
 * One implementation for each scheme of the store URL. All calls come from the control thread and may block on
 * the disk.
 * store_write() is one transaction: all of it is durable when it returns true, nothing of it happened when it
 * returns false.
 * A store that failed may be written again later: it repairs its connection by itself.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/problem.h"
#include "core/str.h"

struct store_row {
	struct str kind, id;              /* kind: a name of resources.def, or "meta" (age to updated_ms unused) */
	uint64_t age, version;
	int64_t created_ms, updated_ms;
	struct str doc;                   /* JSON text; absent = the row is deleted */
};

struct store;
struct store_class {
	const char *scheme;               /* "sqlite" */
	/* Opens or makes it. The problem names the place, what is wrong and what to do; the caller exits. */
	struct store *(*open)(struct str location, struct problem *why);
	/* Every row by age, meta rows first. Stops and returns false when each does. Texts live during the call. */
	bool (*load)(struct store *s,
		bool (*each)(void *arg, const struct store_row *row, struct problem *why), void *arg,
		struct problem *why);
	/* *why: kind PROBLEM_STORE. */
	bool (*write)(struct store *s, const struct store_row *rows, size_t n, struct problem *why);
	/* Lets another process have it: writes fail until resume(), which fails when that one has it or changed it. */
	void (*suspend)(struct store *s);
	bool (*resume)(struct store *s, struct problem *why);
	void (*close)(struct store *s);
};

/* First member of every implementation's struct. */
struct store {
	const struct store_class *class;
	bool is_new;                      /* there was nothing before this start */
};

extern const struct store_class store_sqlite;

/* url: "sqlite:PATH". */
struct store *store_open(const char *url, struct problem *why);
MUST_USE bool store_load(struct store *s, bool (*each)(void *arg, const struct store_row *row, struct problem *why),
                         void *arg, struct problem *why);
MUST_USE bool store_write(struct store *s, const struct store_row *rows, size_t n, struct problem *why);
void store_suspend(struct store *s);
MUST_USE bool store_resume(struct store *s, struct problem *why);
void store_close(struct store *s);
