/*
 * problem.h -- why something was refused: filled by the callee exactly when it returns false.
 *
 * `field` is the path in the API's spelling ("config.headerOpItems[2].key", "externalPort.number"); `text` says what
 * is wrong and what would be right. Neither ever contains a secret.
 */
#pragma once
#include <stdbool.h>
#include "core/fault.h"

enum problem_kind {                       /* what the API answers: status and code of the two shapes */
	PROBLEM_INVALID,                  /* 400 */
	PROBLEM_UNAUTHORIZED,             /* 401 */
	PROBLEM_FORBIDDEN,                /* 403 */
	PROBLEM_NOT_FOUND,                /* 404 */
	PROBLEM_METHOD,                   /* 405 */
	PROBLEM_CONFLICT,                 /* 409 */
	PROBLEM_PRECONDITION,             /* 412 */
	PROBLEM_TOO_LARGE,                /* 413 */
	PROBLEM_MEDIA_TYPE,               /* 415 */
	PROBLEM_MISDIRECTED,              /* 421 */
	PROBLEM_INTERNAL,                 /* 500 */
	PROBLEM_STORE,                    /* 503 */
};

struct problem {
	enum problem_kind kind;
	char field[160];
	char text[320];
};

/* Fills *why (kind PROBLEM_INVALID unless set after) and returns false. */
bool problem(struct problem *why, const char *field, const char *fmt, ...) PRINTF(3, 4);
bool problem_of(struct problem *why, enum problem_kind kind, const char *field, const char *fmt, ...) PRINTF(4, 5);
/*
 * Puts `outer` before the field path, with a dot where one belongs: "config" and "threshold" become "config.threshold",
 * "items" and "[1].x" become "items[1].x".
 */
void problem_prefix(struct problem *why, const char *outer);
