/*
 * guard_verdict.h -- what a moderation service says of a text, and whether that blocks it.
 *
 * The service rates the text in several dimensions; each has a bar, and what reaches its bar blocks. Services never say
 * "max", so a bar of max only detects. An answer that cannot be read, or says nothing of any dimension, is no verdict:
 * it must never count as a pass.
 */
#pragma once
#include <stdbool.h>
#include "core/arena.h"

enum guard_level { GUARD_NONE, GUARD_LOW, GUARD_MEDIUM, GUARD_HIGH, GUARD_MAX };
enum guard_risk { RISK_GLOBAL, RISK_CONTENT, RISK_ATTACK, RISK_SENSITIVE, RISK_URL, RISK_HALLUCINATION, RISK_TYPES };

struct guard_bars {
	enum guard_level of[RISK_TYPES];  /* RISK_GLOBAL: of what has no bar of its own */
};

#define GUARD_LABEL_MAX 128
#define GUARD_ID_MAX 64
#define GUARD_LEVELS_TEXT 160

struct guard_verdict {
	bool is_read;                     /* it is a verdict; else `broken` says what is wrong, in static words */
	const char *broken;
	bool blocks;
	bool has_unknown;                 /* a level that is no known word: the rest counts only if it blocks */
	int levels[RISK_TYPES];           /* highest that was said; -1 = nothing (RISK_GLOBAL: of other types) */
	char label[GUARD_LABEL_MAX + 1];  /* what was found, comma-separated; printable; "" = nothing */
	char request_id[GUARD_ID_MAX + 1];
	struct str answer;                /* what the service would have people told; in the arena; absent = nothing */
};

/* The body of an answer with status 200. */
void guard_judge(struct guard_verdict *v, struct arena *a, struct str body, const struct guard_bars *bars);
/* Of the same text's later piece: the worse one of each. */
void guard_merge(struct guard_verdict *into, const struct guard_verdict *more);
/* The highest of all dimensions; GUARD_NONE when nothing was found. */
enum guard_level guard_worst(const struct guard_verdict *v);
/* "contentModeration=high,promptAttack=none": what was said, for records. */
void guard_describe_levels(const struct guard_verdict *v, char out[GUARD_LEVELS_TEXT]);
