/*
 * regex.h -- PCRE2 with JIT behind limits: no back-references, no look-around, bounded match steps.
 *
 * A pattern is compiled once and may be matched by several threads at the same time.
 */
#pragma once
#include <stdbool.h>
#include "core/arena.h"
#include "core/problem.h"
#include "core/str.h"

struct regex;
enum regex_result { REGEX_NO, REGEX_YES, REGEX_LIMIT };   /* LIMIT: the step limit stopped it; treat as no match */

/* NULL fills why->text (field is left to the caller). Freed with the arena. */
struct regex *regex_compile(struct arena *a, struct str pattern, bool ignore_case, struct problem *why);
enum regex_result regex_match(const struct regex *r, struct str subject);         /* anywhere in the subject */
enum regex_result regex_match_whole(const struct regex *r, struct str subject);   /* the whole subject */
unsigned regex_groups(const struct regex *r);                                     /* capturing ones, without 0 */
unsigned regex_template_groups(struct str template);                              /* the highest group it refers to */
/*
 * Every match replaced, and an empty one right behind another match is not (RE2's rule). Template: \0..\9,
 * $0..$9, ${N} up to 99; \\ and $$ are literal; a group that took no part is empty. Absent str on limit, and when the
 * result would be much longer than 64 KiB. The result may be `subject` itself.
 */
struct str regex_replace(const struct regex *r, struct arena *a, struct str subject, struct str template);
