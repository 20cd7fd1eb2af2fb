/*
 * formats.h -- rules on texts that several policy types share; each fits FORMAT() of a field row: false fills
 * why->text only.
 *
 * Whatever can reach the wire is refused here when it holds CR, LF, NUL or another control byte. A format
 * looks at one text by itself; rules that need a second field stand in the type's check().
 */
#pragma once
#include "core/field.h"
#include "core/problem.h"
#include "core/str.h"

/* "s", "m", "h"; the value is the seconds in one unit. */
extern const struct choice time_units[];

bool format_line(struct str s, struct problem *why);           /* no control bytes: fits in one line */
bool format_name(struct str s, struct problem *why);           /* a line, not blank */
bool format_header_name(struct str s, struct problem *why);    /* RFC 9110 token, at most 256 bytes */
bool format_header_value(struct str s, struct problem *why);   /* no control bytes but HTAB */
bool format_method(struct str s, struct problem *why);         /* RFC 9110 token */
bool format_host(struct str s, struct problem *why);           /* DNS name or IP literal, optional :port */
bool format_dns_name(struct str s, struct problem *why);       /* no IP, no port, no wildcard */
bool format_port(struct str s, struct problem *why);           /* "1" to "65535" */
bool format_url(struct str s, struct problem *why);            /* absolute http:// or https:// */
bool format_duration(struct str s, struct problem *why);       /* 90, 1.5, 250ms, 30s, 5m, 2h */

/*
 * A path as it goes on the wire: "/" first, visible ASCII, no '\', no '#', no dot segment; query_ok: one '?'
 * and what follows it.
 */
bool path_check(struct str s, bool query_ok, struct problem *why);
bool format_path(struct str s, struct problem *why);           /* path_check without a query */
/* Every part of a comma list, blanks around it trimmed, fits `item`; an empty part does not. */
bool list_check(struct str s, bool (*item)(struct str part, struct problem *why), struct problem *why);
/* Whole milliseconds, at least the time: what is more than nothing is at least one. */
int64_t seconds_to_ms(double seconds);
/* Puts "list[i]" before the field of *why; returns false, to be returned. */
bool problem_in(struct problem *why, const char *list, size_t i);
