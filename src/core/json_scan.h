/*
 * json_scan.h -- what the JSON files share among themselves: byte scanning, number and member order. Nobody
 * else needs it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json;

/* First byte in [p, end) that is no plain string text: quote, backslash, below 0x20, above 0x7e; `end` when none. */
const char *json_plain_end(const char *p, const char *end);
/* Length of the UTF-8 sequence at p (2..4 for p[0] >= 0x80, 1 for ASCII); 0 when it is not well formed. */
size_t json_utf8_length(const char *p, const char *end);
/*
 * Behind the well-formed characters at p, of which the first may be ASCII and the others are not; p itself
 * when there are none.
 */
const char *json_utf8_end(const char *p, const char *end);
/* Whether the number is exactly an int64, and which. */
bool json_is_whole(const struct json *number, int64_t *out);
/* The members by name, bytewise. The caller frees it with mem_free. */
struct json **json_sorted(const struct json *object);
