/*
 * usage.h -- how many tokens a request took: from what the upstream says, merged over a stream, or by estimate.
 *
 * Per field the last value that is no null counts; totals are made after the merge, never summed over events. Numbers
 * that are negative, no whole numbers or beyond 2^53 are as if absent.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "ai/kind.h"

enum usage_field { USAGE_INPUT, USAGE_OUTPUT, USAGE_TOTAL, USAGE_CACHED, USAGE_CACHE_CREATION, USAGE_REASONING,
	USAGE_FIELDS };

struct usage {                            /* zero-initialise: nothing was said */
	int64_t of[USAGE_FIELDS];
	unsigned has;                     /* bit set of enum usage_field */
};

/* `doc`: a whole answer, or the data of one event. */
void usage_take(struct usage *u, enum ai_kind kind, const struct json *doc);
/* Whether the upstream said anything that counts. */
static inline bool usage_is_known(const struct usage *u)
{
	return u->has & (1U << USAGE_INPUT | 1U << USAGE_OUTPUT | 1U << USAGE_TOTAL);
}
/* What it costs: the total that was said, or input + output (Anthropic: and what was read and put into its cache). */
int64_t usage_total(const struct usage *u, enum ai_kind kind);
/* The details as JSON objects of the record: {"cached_tokens":1}; absent when there are none. */
struct str usage_input_details(const struct usage *u, struct arena *a);
struct str usage_output_details(const struct usage *u, struct arena *a);

/* Characters of text, for an estimate over pieces cut at any byte: ceil(ascii / 4) + other code points. */
struct usage_estimate {
	uint64_t ascii, others;
};
void usage_estimate_add(struct usage_estimate *e, struct str text);
int64_t usage_estimate_tokens(const struct usage_estimate *e);
