/*
 * field_rows.h -- what the files that work on field tables share among themselves; nobody else needs it.
 */
#pragma once
#include "core/field.h"

/* The row of a member, INLINE tables included; NULL when unknown. */
const struct field *field_find(const struct field *f, struct str name);
/* JSON that stands in a table (a default, an example); stops the process when it is none. */
struct json *field_parse(const char *text, struct arena *a);
/* Whole numbers without exponent: "2147483647", "0.5". */
void field_number_text(double v, char out[32]);
/* Whether the member's JSON value is `value` in the sense of WHEN. */
bool field_is_value(const struct field *row, const struct json *v, int value);
/* The condition of a WHEN row in words: "behaviorType is 1". */
void field_when_text(const struct field *table, const struct field *f, char out[96]);
/* The row of a value; NULL when there is none. */
const struct choice *choice_of_value(const struct choice *c, int value);
