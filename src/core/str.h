/*
 * str.h -- byte ranges somebody else owns, and a growing text buffer.
 *
 * A `struct str` is never NUL-terminated by promise, and its bytes must outlive it. {NULL, 0} is the absent
 * string; functions treat it as empty.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "core/fault.h"

struct str {
	const char *p;
	size_t n;
};
#define STR(lit) ((struct str){ (lit), sizeof(lit) - 1 })
#define STR_FMT(s) (int)(s).n, (s).p            /* for "%.*s" */

static inline struct str str_of(const char *z)
{
	return (struct str){ z, z ? strlen(z) : 0 };
}

static inline bool str_equal(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_equal_nocase(struct str a, struct str b);            /* ASCII only */
int str_compare(struct str a, struct str b);                  /* bytewise order, shorter first */
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
struct str str_trim(struct str s);                            /* without leading and trailing SP, HTAB */
/* Takes the part before the next `sep` off *rest; false when *rest is absent (p == NULL). "a,,b" gives 3 parts. */
bool str_split(struct str *rest, char sep, struct str *part);
/* Index of c in s, or s.n. */
size_t str_find(struct str s, char c);
/* Decimal digits only, no sign, no leading zero except "0" itself, no overflow past max; false otherwise. */
MUST_USE bool str_to_u64(struct str s, uint64_t max, uint64_t *out);
bool str_is_utf8(struct str s);
size_t str_code_points(struct str s);                         /* of valid UTF-8 */
uint64_t str_hash(struct str s);                              /* SipHash-class, keyed by a random per-process key */
/* Same length and same bytes, in time that depends on the lengths only. For secrets. */
bool str_equal_secret(struct str a, struct str b);
char str_lower(char c);                                       /* ASCII */

/* At most 7 bytes, in pieces that may overlap. */
static inline void str_put_few(char *out, struct str s)
{
	if (s.n >= 4) {
		memcpy(out, s.p, 4);
		memcpy(out + s.n - 4, s.p + s.n - 4, 4);
	} else if (s.n > 0) {
		out[0] = s.p[0];
		out[s.n - 1] = s.p[s.n - 1];
		out[s.n / 2] = s.p[s.n / 2];
	}
}

/*
 * Copies s to out and returns the end. Most texts of a head or a record are short: up to 32 bytes are copied in two
 * pieces, which may overlap, without a call.
 */
static inline char *str_put(char *out, struct str s)
{
	if (s.n > 32)
		memcpy(out, s.p, s.n);
	else if (s.n >= 16) {
		memcpy(out, s.p, 16);
		memcpy(out + s.n - 16, s.p + s.n - 16, 16);
	} else if (s.n >= 8) {
		memcpy(out, s.p, 8);
		memcpy(out + s.n - 8, s.p + s.n - 8, 8);
	} else {
		str_put_few(out, s);
	}
	return out + s.n;
}
#define STR_PUT(out, lit) ((char *)memcpy((out), (lit), sizeof(lit) - 1) + sizeof(lit) - 1)
#define STR_DIGITS 20                                         /* of the largest number */
char *str_put_large(char *out, uint64_t v);                   /* str_put_u64 of what has more than one digit */
static inline char *str_put_u64(char *out, uint64_t v)        /* decimal digits; returns their end */
{
	if (v >= 10)
		return str_put_large(out, v);
	*out = (char)('0' + v);
	return out + 1;
}

/* A text being built. Zero-initialise; sbuf_free when done. `p` is NUL-terminated once anything was added. */
struct sbuf {
	char *p;
	size_t n, cap;
};
void sbuf_add(struct sbuf *b, struct str s);
void sbuf_addc(struct sbuf *b, char c);
void sbuf_addf(struct sbuf *b, const char *fmt, ...) PRINTF(2, 3);
void sbuf_reserve(struct sbuf *b, size_t more);
void sbuf_free(struct sbuf *b);
static inline struct str sbuf_str(const struct sbuf *b)
{
	return (struct str){ b->p, b->n };
}
#define SBUF_LIT(b, lit) sbuf_add((b), STR(lit))
