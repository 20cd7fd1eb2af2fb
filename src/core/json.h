/*
 * json.h -- strict RFC 8259 reader into a tree in an arena, and a writer.
 *
 * Refused: anything but valid UTF-8, unescaped control bytes, lone surrogates, \u0000 inside names or
 * strings, leading zeros, NaN, comments, trailing commas, text after the value, duplicate member names,
 * more than 64 levels, numbers whose double would be infinite. Integers (no fraction, no exponent) in the
 * int64 range are exact; other numbers are doubles.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/map.h"
#include "core/problem.h"
#include "core/str.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_INT, JSON_REAL, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* Every document is held as a tree of these: small ones. */
struct json {
	enum json_type type : 8;
	bool boolean;
	unsigned n;                        /* members or items */
	union {
		/* 1-based, of the value: for settings and resource files */
		struct { unsigned line, column; };
		/* of json_parse_spans() */
		struct { unsigned at, length; };
	};
	union {
		int64_t integer;           /* JSON_INT */
		double real;               /* JSON_REAL */
		struct json *last;         /* JSON_OBJECT, JSON_ARRAY: last member or item */
	};
	/* JSON_STRING: decoded, NUL-terminated; JSON_REAL: as it was read, if it was */
	struct str string;
	struct str name;                   /* when a member of an object: decoded name */
	struct json *child;                /* first member or item */
	struct json *next;                 /* next sibling */
};

#define JSON_MAX_DEPTH 64

/*
 * Parses all of `text`. The tree lives in `a` and may point into `text`. NULL fills *why: text names line
 * and column (in bytes); field is empty, except for a duplicate member, where it is the member's path
 * ("rules[2].x").
 */
struct json *json_parse(struct arena *a, struct str text, struct problem *why);
/*
 * The same for texts of peers that are changed where they stand: at and length say where each value is in
 * `text`, quotes and brackets included, its name and what is around it not. More than nodes_max values, or
 * 4 GiB, are refused: a tree takes far more memory than its text. What other readers take is taken, because
 * what a model can read must not pass us by unread: \u0000 and surrogates without their pair are read as
 * U+FFFD, numbers may be infinite. What others may take and this does not has a kind of its own in *why:
 * PROBLEM_CONFLICT for a member that is there twice, PROBLEM_TOO_LARGE for what is too deep or too much.
 */
struct json *json_parse_spans(struct arena *a, struct str text, size_t nodes_max, struct problem *why);
struct json *json_get(const struct json *object, const char *name);      /* NULL when absent or not an object */
struct json *json_get_str(const struct json *object, struct str name);
struct str json_text(const struct json *object, const char *name);       /* "" when absent or not a string */
bool json_is_true(const struct json *object, const char *name);

/* Nodes made by us, to answer with or to change a tree. */
struct json *json_new(struct arena *a, enum json_type type);
struct json *json_new_text(struct arena *a, struct str s);               /* not copied */
struct json *json_new_int(struct arena *a, int64_t v);
struct json *json_new_bool(struct arena *a, bool v);
struct json *json_new_real(struct arena *a, double v);
/* Replaces; the name is copied. */
void json_put(struct arena *a, struct json *object, const char *name, struct json *value);
void json_drop(struct json *object, const char *name);                   /* harmless when absent */
void json_add(struct json *array, struct json *value);
struct json *json_clone(struct arena *a, const struct json *v);          /* deep copy, owns all its text */
/*
 * The same in one piece of memory that is no larger than needed: for documents that are kept and never changed. Names
 * of members that are keys of `names` (NULL: none) are not copied: its values are their texts, which must live as long
 * as the tree.
 */
struct json *json_pack(struct arena *a, const struct json *v, const struct map *names);
double json_number(const struct json *v);                                /* JSON_INT or JSON_REAL */
bool json_equal(const struct json *a, const struct json *b);             /* members in any order */

/*
 * Compact text. A JSON_REAL that was read is written as it stood, one made by us in the shortest form that
 * reads back (no JSON number: null). json_canonical sorts members and writes numbers by value: equal values
 * give equal bytes.
 */
void json_write(struct sbuf *out, const struct json *v);
void json_write_pretty(struct sbuf *out, const struct json *v);
void json_canonical(struct sbuf *out, const struct json *v);
/* A quoted string with escapes; invalid UTF-8 becomes U+FFFD, so the result is always valid JSON. */
void json_quote(struct sbuf *out, struct str s);

/* For messages: the value on one line, cut at about 60 bytes; control bytes and broken UTF-8 become '?'. */
#define JSON_BRIEF 80
void json_brief(const struct json *v, char out[JSON_BRIEF]);             /* strings in quotes; "a list", "an object" */
void json_brief_text(struct str s, char out[JSON_BRIEF]);                /* the bytes, no quotes */
