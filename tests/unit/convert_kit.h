/*
 * convert_kit.h -- for tests of conversions: JSON is written with ' for ", and compared by value.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ai/convert.h"
#include "core/mem.h"

static struct arena kit_arena;

static inline struct str kit_text(const char *quoted)
{
	struct str s = arena_copy(&kit_arena, str_of(quoted));

	for (char *p = (char *)(uintptr_t)s.p; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	return s;
}

static inline const struct json *kit_parse(struct str text)
{
	struct problem why = { 0 };
	const struct json *v = json_parse(&kit_arena, text, &why);

	if (!v)
		fail_msg("no JSON: %s: %.*s", why.text, STR_FMT(text));
	return v;
}

static inline const struct json *kit_json(const char *quoted)
{
	return kit_parse(kit_text(quoted));
}

static inline bool kit_has(const struct json *is, const struct json *wanted);

static inline bool kit_has_items(const struct json *is, const struct json *wanted)
{
	const struct json *a = is->child, *b = wanted->child;

	for (; a && b && kit_has(a, b); a = a->next)
		b = b->next;
	return !a && !b;
}

/* `wanted` may be a part: each member of its objects must be there and match; lists must be as long. */
static inline bool kit_has(const struct json *is, const struct json *wanted)
{
	if (!is || is->type != wanted->type)
		return false;
	if (wanted->type == JSON_ARRAY)
		return kit_has_items(is, wanted);
	if (wanted->type != JSON_OBJECT)
		return json_equal(is, wanted);
	for (const struct json *m = wanted->child; m; m = m->next)
		if (!kit_has(json_get_str(is, m->name), m))
			return false;
	return true;
}

static inline void kit_assert_has(const struct json *is, const char *quoted)
{
	struct sbuf text = { 0 };

	if (kit_has(is, kit_json(quoted)))
		return;
	json_write(&text, is);
	fail_msg("is     %.*s\nwanted %s", STR_FMT(sbuf_str(&text)), quoted);
}

static inline void kit_assert_equal(const struct json *is, const char *quoted)
{
	struct sbuf text = { 0 };

	if (json_equal(is, kit_json(quoted)))
		return;
	json_write(&text, is);
	fail_msg("is     %.*s\nwanted %s", STR_FMT(sbuf_str(&text)), quoted);
}

/* The upstream's request; NULL: refused, with *why. */
static inline const struct json *kit_request(struct conversion *c, const struct json *body, struct problem *why)
{
	struct sbuf out = { 0 };
	const struct json *made = NULL;
	struct problem ignored;

	if (convert_request(c, body, &out, why ? why : &ignored))
		made = kit_parse(arena_copy(&kit_arena, sbuf_str(&out)));
	else
		assert_int_equal(out.n, 0);
	sbuf_free(&out);
	return made;
}

static inline const struct json *kit_body(const struct conversion *c, const struct json *doc)
{
	struct sbuf out = { 0 };
	const struct json *made = NULL;

	if (convert_body(c, doc, &out))
		made = kit_parse(arena_copy(&kit_arena, sbuf_str(&out)));
	else
		assert_int_equal(out.n, 0);
	sbuf_free(&out);
	return made;
}

static inline int kit_free(void **state)
{
	(void)state;
	arena_free(&kit_arena);
	return 0;
}
#define KIT_TEST(f) cmocka_unit_test_teardown(f, kit_free)
