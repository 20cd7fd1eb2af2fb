/*
 * field.h -- one table describes one JSON object; the rest is derived from it.
 *
 * A `struct field` row says how a member is spelt in the API, where it lives in the C struct, which values
 * it may take, and what it means to a person. From the same rows come: decoding, validation with exact
 * paths, defaults, JSON Schema for OpenAPI, the reference manual, CLI and console forms, and the derived
 * tests. There is no second list of fields anywhere.
 *
 * Order of complaints: unknown members first, then the first failing row in table order. null = absent; ""
 * in an optional text = absent (not with EMPTY_OK); a required text must not be empty (unless EMPTY_OK).
 * Values are never coerced: a number is no text.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/arena.h"
#include "core/json.h"
#include "core/problem.h"
#include "core/str.h"

enum field_type {
	FIELD_END,
	FIELD_BOOL,                       /* bool */
	FIELD_INT,                        /* int64_t: JSON number without fraction or exponent */
	FIELD_NUMBER,                     /* double: any JSON number */
	FIELD_TEXT,                       /* struct str */
	FIELD_CHOICE,                     /* int: the value of a struct choice row */
	FIELD_OBJECT,                     /* embedded struct; absent = zero-filled, see `present` */
	FIELD_LIST,                       /* struct items of structs */
	FIELD_TEXTS,                      /* struct items of struct str; range = count, text_max = bytes of one */
	FIELD_CHOICES,                    /* struct items of int */
	FIELD_JSON,                       /* const struct json *: any value, checked elsewhere */
	FIELD_INLINE,                     /* another table whose members stand at this level */
};

/* One allowed value: `text` for words on the wire, NULL text for numbers. Ends with a row whose doc is NULL. */
struct choice {
	int value;
	const char *text, *doc;
	const char *alias;                /* accepted as input, answered as `text`; may be NULL */
};

struct items {
	void *items;
	size_t n;
};
#define ITEM(list, T, i) (&((T *)(list).items)[i])

struct field {
	const char *name;                 /* JSON key, exactly as the API spells it */
	enum field_type type;
	size_t at;                        /* offset of the member in the struct */
	bool required;
	bool secret;                      /* never logged, never read back, sealed in the store */
	/*
	 * Of a secret that we send: the members that say where to, of the object it is in or of one around that, up to
	 * NULL. Where one of them changes, what is stored is not sent there: it has to be given again.
	 */
	const char *const *sent_to;
	/* TEXT: the same for values of which this says so. It says so of sealed ones too: base64url, nothing else. */
	bool (*secret_if)(struct str value);
	bool empty_ok;                    /* text: "" is a value of its own */
	bool nocase;                      /* choice: words match in any case */
	bool immutable;                   /* resources: PUT may repeat it, not change it */
	bool read_only;                   /* resources: made by us, refused on input unless equal (ignored on PUT) */
	bool ranged;                      /* min and max count */
	bool whole_list;                  /* list or texts: at least one item comes from RANGE */
	double min, max;                  /* inclusive; text: bytes; list: items */
	size_t text_max;                  /* TEXTS: bytes of one item, 0 = 1024 */
	const struct choice *choices;
	const struct field *fields;       /* OBJECT, LIST, INLINE */
	size_t item;                      /* LIST, TEXTS, CHOICES: sizeof one item */
	size_t present;                   /* OBJECT: offset + 1 of a bool set when it was there; 0 = none */
	const char *fallback;             /* default, written as JSON */
	struct {
		const char *sibling;      /* required only if this member of the same object ... */
		int value;                /* ... has this value (choice or bool) */
	} when;
	bool is_variant;                  /* without that value it means nothing */
	/* One more rule on a text (each item of TEXTS): false fills why->text only. `arena` for scratch. */
	bool (*format)(struct str value, struct problem *why);
	const char *refers;               /* resource class the text is an id of ("service", "certificate", ...) */
	const char *unit, *doc;
	const char *example;              /* as JSON; for docs and samples; falls back to default, range or choice */
};

#define ROW_(T, m, kind, ctype, ...) \
	{ .name = #m, .type = kind, .at = offsetof(T, m) + 0 * sizeof(char[_Generic(((T *)0)->m, ctype: 1)]), \
	  __VA_ARGS__ }
#define BOOL(T, m, ...) ROW_(T, m, FIELD_BOOL, bool, __VA_ARGS__)
#define INT(T, m, ...) ROW_(T, m, FIELD_INT, int64_t, __VA_ARGS__)
#define NUMBER(T, m, ...) ROW_(T, m, FIELD_NUMBER, double, __VA_ARGS__)
#define TEXT(T, m, ...) ROW_(T, m, FIELD_TEXT, struct str, __VA_ARGS__)
#define CHOICE(T, m, c, ...) ROW_(T, m, FIELD_CHOICE, int, .choices = c, __VA_ARGS__)
#define CHOICES(T, m, c, ...) ROW_(T, m, FIELD_CHOICES, struct items, .choices = c, .item = sizeof(int), __VA_ARGS__)
#define LIST(T, m, I, f, ...) ROW_(T, m, FIELD_LIST, struct items, .fields = f, .item = sizeof(I), __VA_ARGS__)
#define TEXTS(T, m, ...) ROW_(T, m, FIELD_TEXTS, struct items, .item = sizeof(struct str), __VA_ARGS__)
#define ANY(T, m, ...) ROW_(T, m, FIELD_JSON, const struct json *, __VA_ARGS__)
#define OBJECT(T, m, f, ...) { .name = #m, .type = FIELD_OBJECT, .fields = f, .at = offsetof(T, m), __VA_ARGS__ }
#define INLINE(T, m, f) { .name = #m, .type = FIELD_INLINE, .fields = f, .at = offsetof(T, m) }
#define FIELDS_END { .type = FIELD_END }
#define REQUIRED .required = true
/* A secret is one of two: sent to where these members say, or to nobody (others show it to us, or it is a key). */
#define SECRET_SENT_TO(...) .secret = true, .sent_to = (const char *const[]){ __VA_ARGS__, NULL }
#define SECRET_STAYS .secret = true
#define SECRET_IF(f) .secret_if = (f)
#define EMPTY_OK .empty_ok = true
#define ANY_CASE .nocase = true
#define IMMUTABLE .immutable = true
#define READ_ONLY .read_only = true
#define RANGE(lo, hi) .ranged = true, .min = (lo), .max = (hi)
#define TEXT_MAX(n) .text_max = (n)
#define DEFAULT(json) .fallback = (json)
#define EXAMPLE(json) .example = (json)
#define UNIT(u) .unit = (u)
#define WHEN(s, v) .when = { (s), (v) }
/* The same, and it means nothing otherwise: then any value of its type is passed over. */
#define ONLY_WHEN(s, v) .when = { (s), (v) }, .is_variant = true
#define FORMAT(f) .format = (f)
#define REFERS(k) .refers = (k)
#define PRESENT(T, m) .present = offsetof(T, m) + 1
#define DOC(d) .doc = (d)

/*
 * Decodes `object` into *out (zeroed by the caller), texts copied into `a`. Paths in *why are relative to
 * the object ("rules[2].threshold"); callers put what is before with problem_prefix.
 */
MUST_USE bool fields_decode(const struct field *f, const struct json *object, void *out, struct arena *a,
	struct problem *why);
/*
 * The reverse: a JSON object of what the struct holds; secrets are left out, and what could not have been given: absent
 * texts, empty optional lists, zeros outside the row's range.
 */
struct json *fields_encode(const struct field *f, const void *in, struct arena *a);
/* JSON Schema (2020-12) of the object. */
struct json *fields_schema(const struct field *f, struct arena *a);
/* A sample object that decodes: every required member, and the optional ones when `full`. */
struct json *fields_example(const struct field *f, bool full, struct arena *a);
/* Markdown table rows: name, type, required, range, default, meaning; nested members are indented with "├ ". */
void fields_manual(const struct field *f, struct sbuf *out);
/* Calls each(arg, path, row) for every row, nested ones included, INLINE flattened; path like "rules[].threshold". */
void fields_walk(const struct field *f, void (*each)(void *arg, const char *path, const struct field *row), void *arg);
/*
 * Replaces the values of secret members anywhere in `object` by what `change` returns (seal, unseal, mask;
 * NULL removes it). A secret list of texts is changed text by text. Paths are those of fields_walk with
 * "[]" for items: no index, so that a value sealed under its path stays readable when items move.
 */
void fields_secrets(const struct field *f, struct json *object,
	struct json *(*change)(void *arg, const char *path, struct json *value), void *arg);
/* Whether this value of the row is a secret, and whether any may be. */
static inline bool field_is_secret(const struct field *row, const struct json *value)
{
	return row->secret || (row->secret_if && value->type == JSON_STRING && row->secret_if(value->string));
}
static inline bool field_has_secrets(const struct field *row)
{
	return row->secret || row->secret_if;
}
/* Whether the word is a choice (text or alias). */
const struct choice *choice_find(const struct choice *c, struct str word, bool nocase);
const char *choice_text(const struct choice *c, int value);
