/*
 * dependency.h -- whether what a policy depends on answers: a few words that workers write and the API shows.
 *
 * Lives in a policy's cell, where the class says it is (policy_class.dependency). Healthy until somebody says
 * otherwise; an attachment with one that is down reads back as Degraded with reason and last error, and
 * sluice_dependency_up is 0 for it. Written by any worker, read by the control thread: atomics only. Saying again what
 * is known costs one load, so policies may say it with every call.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "core/str.h"

#define DEPENDENCY_ERROR_MAX 120

struct series;

struct dependency {                       /* zero-initialise: healthy */
	atomic_bool is_down;
	atomic_uint sequence;             /* odd while the texts are being written */
	_Atomic(const char *) reason;     /* static text */
	atomic_llong since_ms;            /* of the present state, wall clock; 0 = from the start */
	atomic_ullong error[DEPENDENCY_ERROR_MAX / 8];
	struct series *up;                /* gauge; set by the control thread, NULL = none */
};

/* It answered as it should. */
void dependency_up(struct dependency *d);
/*
 * It did not. `reason` is a static text without secrets ("the authorization service does not answer"), `error` what
 * happened last; both are shown to people. What is not printable ASCII in `error` becomes a space, a long one is cut.
 */
void dependency_down(struct dependency *d, const char *reason, struct str error);

struct dependency_state {
	bool is_down;
	const char *reason;               /* NULL when it was never down */
	int64_t since_ms;
	char error[DEPENDENCY_ERROR_MAX + 1];
};
struct dependency_state dependency_read(const struct dependency *d);
