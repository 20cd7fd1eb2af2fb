/* room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/json.h"
#include "core/json_scan.h"

static struct arena arena;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static struct json *parse(const char *text)
{
	struct problem why = { 0 };
	struct json *v = json_parse(&arena, str_of(text), &why);

	if (!v)
		fail_msg("%s: %s", text, why.text);
	return v;
}

static struct problem refused(struct str text)
{
	struct problem why = { 0 };

	if (json_parse(&arena, text, &why))
		fail_msg("accepted: %.*s", STR_FMT(text));
	assert_true(why.text[0]);
	return why;
}

static const char *written(const struct json *v, void (*write)(struct sbuf *, const struct json *))
{
	struct sbuf out = { 0 };

	write(&out, v);
	const char *copy = arena_copy(&arena, sbuf_str(&out)).p;
	sbuf_free(&out);
	return copy;
}

static void reads_every_type(void **state)
{
	struct json *v = parse(" {\"a\":null,\"b\":[true,false,-12,1.5e2,\"x\\u00e9\\n\\ud83d\\ude00\"],"
		"\"c\":{}} \r\n");
	struct json *item;

	(void)state;
	assert_int_equal(v->type, JSON_OBJECT);
	assert_int_equal(v->n, 3);
	assert_int_equal(json_get(v, "a")->type, JSON_NULL);
	item = json_get(v, "b")->child;
	assert_true(item->boolean);
	item = item->next;
	assert_int_equal(item->type, JSON_BOOL);
	assert_false(item->boolean);
	item = item->next;
	assert_int_equal(item->integer, -12);
	item = item->next;
	assert_int_equal(item->type, JSON_REAL);
	assert_true(item->real > 149.9 && item->real < 150.1);
	assert_true(str_equal(item->string, STR("1.5e2")));
	item = item->next;
	assert_true(str_equal(item->string, STR("x\xc3\xa9\n\xf0\x9f\x98\x80")));
	assert_int_equal(item->string.p[item->string.n], 0);
	assert_ptr_equal(json_get(v, "b")->last, item);
	assert_null(json_get(v, "d"));
	assert_null(json_get(item, "d"));
}

static void keeps_integers_exact(void **state)
{
	(void)state;
	assert_int_equal(parse("9223372036854775807")->integer, INT64_MAX);
	assert_true(parse("-9223372036854775808")->integer == INT64_MIN);
	assert_int_equal(parse("9007199254740993")->integer, INT64_C(9007199254740993));
	assert_int_equal(parse("9223372036854775808")->type, JSON_REAL);
	assert_int_equal(parse("-9223372036854775809")->type, JSON_REAL);
	assert_int_equal(parse("-0")->type, JSON_INT);
	assert_int_equal(parse("-0")->integer, 0);
	assert_int_equal(parse("1.0")->type, JSON_REAL);
	assert_int_equal(parse("1e2")->type, JSON_REAL);
	assert_true(parse("1e-999")->real < 1e-300);
	assert_string_equal(written(parse("9223372036854775808"), json_write), "9223372036854775808");
}

static void refuses_what_is_no_json(void **state)
{
	static const char *const bad[] = { "", " ", "{", "[", "\"", "\"\\", "\"\\u12", "tru", "nul", "+1", "01",
		"-", "-01",
		"1.", ".5", "1e", "1e+", "1e999", "-1e999", "0x10", "NaN", "Infinity", "[1,]", "[,1]", "[1 2]",
			"[1", "[1}",
		"{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}", "{'a':1}", "{\"a\":1 \"b\":2}", "{\"a\" 1}", "1 2",
		"{} x", "// c\n1", "/* c */1", "\"a\nb\"", "\"\t\"", "\"\\x41\"", "\"\\u00g0\"", "\"\\u0000\"",
		"{\"\\u0000\":1}", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud800x\"",
			"\"\x80\"", "\"\xc0\x80\"",
		"\"\xc1\xbf\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"",
		"\"\xe2\x82\"", "\"\xc3", "\xef\xbb\xbf{}", "{\"\xff\":1}", "\"\\\xc3\xa9\"", "\v1" };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		refused(str_of(bad[i]));
	refused((struct str){ "1\0", 2 });
	refused((struct str){ "\"a\0b\"", 5 });
}

static void says_what_and_where(void **state)
{
	struct problem why;

	(void)state;
	why = refused(STR("{\n  \"a\": 1,\n  \"b\": nope\n}"));
	assert_string_equal(why.text,
		"line 3, column 8: expected a value: an object, list, string, number, true, false or null");
	assert_string_equal(why.field, "");
	why = refused(STR("[1,\n2"));
	assert_string_equal(why.text, "line 2, column 2: the text ends too early");
	why = refused(STR("{} {}"));
	assert_string_equal(why.text, "line 1, column 4: text after the value");
	assert_int_equal(parse("[\n 1,\n  {\"x\": 2}]")->last->child->line, 3);
	assert_int_equal(parse("[\n 1,\n  {\"x\": 2}]")->last->child->column, 9);
}

static void names_duplicates_by_path(void **state)
{
	struct problem why;

	(void)state;
	why = refused(STR("{\"rules\":[{\"x\":1},{},{\"x\":1,\n\"y\":2,\"\\u0078\":3}]}"));
	assert_string_equal(why.field, "rules[2].x");
	assert_string_equal(why.text, "line 2, column 16: the member is there twice; leave one");
	why = refused(STR("{\"a\":1,\"a\":1}"));
	assert_string_equal(why.field, "a");
	why = refused(STR("[{\"a\":{\"\":1,\"b\":1,\"\":1}}]"));
	assert_string_equal(why.field, "[0].a.");
}

static struct str many_members(unsigned n, unsigned twice)
{
	struct sbuf b = { 0 };
	struct str text;

	sbuf_addc(&b, '{');
	for (unsigned i = 0; i < n; i++)
		sbuf_addf(&b, "%s\"m%u\":0", i ? "," : "", i + 1 == n && twice ? twice : i);
	sbuf_addc(&b, '}');
	text = arena_copy(&arena, sbuf_str(&b));
	sbuf_free(&b);
	return text;
}

static void finds_duplicates_among_many(void **state)
{
	struct problem why;

	(void)state;
	for (unsigned n = 2; n < 40; n++) {
		assert_int_equal(parse(many_members(n, 0).p)->n, n);
		if (n > 2)
			assert_string_equal(refused(many_members(n, 1)).field, "m1");
	}
	/* Pairwise this would be 2 * 10^10 comparisons: the test would be stopped by its time limit. */
	assert_int_equal(parse(many_members(200000, 0).p)->n, 200000);
	why = refused(many_members(200000, 77777));
	assert_string_equal(why.field, "m77777");
}

static void bounds_depth(void **state)
{
	char text[2 * JSON_MAX_DEPTH + 4];

	(void)state;
	memset(text, '[', JSON_MAX_DEPTH);
	memset(text + JSON_MAX_DEPTH, ']', JSON_MAX_DEPTH);
	text[2 * JSON_MAX_DEPTH] = '\0';
	parse(text);
	memset(text, '[', JSON_MAX_DEPTH + 1);
	memset(text + JSON_MAX_DEPTH + 1, ']', JSON_MAX_DEPTH + 1);
	assert_non_null(strstr(refused((struct str){ text, 2 * JSON_MAX_DEPTH + 2 }).text, "more than 64 levels"));
}

/* Each special byte at each place of runs that are longer than what is scanned at once. */
static void scans_strings_of_all_lengths(void **state)
{
	char text[80];

	(void)state;
	for (size_t n = 0; n < 40; n++) {
		for (size_t at = 0; at < n; at++) {
			memset(text, 'x', sizeof text);
			text[at] = '\x1f';
			assert_ptr_equal(json_plain_end(text, text + n), text + at);
			text[at] = '"';
			assert_ptr_equal(json_plain_end(text, text + n), text + at);
			text[at] = '\\';
			assert_ptr_equal(json_plain_end(text, text + n), text + at);
			text[at] = '\x80';
			assert_ptr_equal(json_plain_end(text, text + n), text + at);
			text[at] = '\x7e';
			assert_ptr_equal(json_plain_end(text, text + n), text + n);
			text[at] = ' ';
			assert_ptr_equal(json_plain_end(text, text + n), text + n);
		}
	}
}

static void writes_what_it_read(void **state)
{
	const char *text = "{\"a\":[1,-2,1.50,true,null,\"q\\\"\\\\\\n\\u0001/\"],\"b\":{},\"c\":[]}";
	struct json *v = parse(text);

	(void)state;
	assert_string_equal(written(v, json_write), text);
	assert_string_equal(written(parse("{\"a\":[1,{}],\"b\":[]}"), json_write_pretty),
		"{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
	assert_string_equal(written(json_clone(&arena, v), json_write), text);
	assert_string_equal(written(json_pack(&arena, v, NULL), json_write), text);
	assert_true(json_equal(json_pack(&arena, v, NULL), v));
}

/* What is kept for long has the names of known members once for all documents. */
static void packs_without_copies_of_known_names(void **state)
{
	static const char known[] = "weight";
	const char *text = "{\"weight\":-7,\"other\":{\"weight\":[1.50,true]},\"list\":[{\"weight\":\"w\"}]}";
	struct arena kept = { .is_small = true };
	struct map names = { 0 };

	(void)state;
	map_put(&names, STR("weight"), (void *)(uintptr_t)known);
	struct json *v = json_pack(&kept, parse(text), &names);

	assert_string_equal(written(v, json_write), text);
	assert_ptr_equal(json_get(v, "weight")->name.p, known);
	assert_ptr_equal(json_get(json_get(v, "other"), "weight")->name.p, known);
	assert_ptr_equal(json_get(v, "list")->child->child->name.p, known);
	assert_ptr_not_equal(json_get(v, "other")->name.p, known);
	assert_int_equal(json_get(v, "weight")->integer, -7);
	assert_ptr_equal(v->last, json_get(v, "list"));
	arena_free(&kept);
	map_free(&names);
}

static void writes_numbers_shortest(void **state)
{
	(void)state;
	assert_string_equal(written(json_new_real(&arena, 0.1), json_write), "0.1");
	assert_string_equal(written(json_new_real(&arena, 1.0 / 3), json_write), "0.3333333333333333");
	assert_string_equal(written(json_new_real(&arena, 5), json_write), "5");
	assert_string_equal(written(json_new_real(&arena, 1e300), json_write), "1e+300");
	assert_string_equal(written(json_new_real(&arena, 0.0 / 0.0), json_write), "null");
	assert_string_equal(written(json_new_int(&arena, INT64_MIN), json_write), "-9223372036854775808");
}

static void quotes_any_bytes(void **state)
{
	struct sbuf out = { 0 };

	(void)state;
	json_quote(&out, (struct str){ "a\0\x1f\x7f\xff\xc3\xa9\xe2\x82", 9 });
	assert_string_equal(out.p, "\"a\\u0000\\u001f\x7f\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\"");
	sbuf_free(&out);
}

static void canonical_form_is_by_value(void **state)
{
	struct json *a = parse("{\"b\":1.0,\"a\":[1e2,0.5],\"aa\":{\"y\":1,\"x\":2}}");
	struct json *b = parse("{ \"aa\":{\"x\":2.0,\"y\":1}, \"a\":[100,5e-1], \"b\":1 }");

	(void)state;
	assert_string_equal(written(a, json_canonical), "{\"a\":[100,0.5],\"aa\":{\"x\":2,\"y\":1},\"b\":1}");
	assert_string_equal(written(a, json_canonical), written(b, json_canonical));
	assert_true(json_equal(a, b));
	assert_false(json_equal(a, parse("{\"b\":1,\"a\":[100,0.5],\"aa\":{\"y\":1,\"x\":3}}")));
	assert_false(json_equal(parse("9007199254740993"), parse("9007199254740992")));
	assert_false(json_equal(parse("[1,2]"), parse("[2,1]")));
	assert_false(json_equal(parse("{\"a\":1}"), parse("{\"b\":1}")));
	assert_false(json_equal(parse("null"), parse("false")));
}

static void changes_trees(void **state)
{
	struct json *v = parse("{\"a\":1,\"b\":2,\"c\":3}");

	(void)state;
	json_put(&arena, v, "b", json_new_text(&arena, STR("x")));
	json_put(&arena, v, "d", json_new_bool(&arena, true));
	assert_string_equal(written(v, json_write), "{\"a\":1,\"b\":\"x\",\"c\":3,\"d\":true}");
	json_drop(v, "a");
	json_drop(v, "d");
	json_drop(v, "nothing");
	json_put(&arena, v, "c", json_new_int(&arena, 4));
	json_put(&arena, v, "e", json_new(&arena, JSON_NULL));
	assert_string_equal(written(v, json_write), "{\"b\":\"x\",\"c\":4,\"e\":null}");
	assert_int_equal(v->n, 3);
	json_drop(v, "b");
	json_drop(v, "c");
	json_drop(v, "e");
	assert_null(v->last);
	json_put(&arena, v, "z", json_new_int(&arena, 1));
	assert_string_equal(written(v, json_write), "{\"z\":1}");
	assert_string_equal(json_text(v, "z").p, "");
}

static void shows_values_briefly(void **state)
{
	char out[JSON_BRIEF];
	struct sbuf b = { 0 };

	(void)state;
	for (int i = 0; i < 40; i++)
		SBUF_LIT(&b, "\xc3\xa9");
	json_brief_text(sbuf_str(&b), out);
	assert_int_equal(strlen(out), 63);
	assert_string_equal(out + 60, "...");
	assert_true(str_is_utf8(str_of(out)));
	sbuf_free(&b);
	json_brief_text((struct str){ "a\r\n\0\xff", 5 }, out);
	assert_string_equal(out, "a????");
	json_brief(parse("\"ab\""), out);
	assert_string_equal(out, "\"ab\"");
	json_brief(parse("[1]"), out);
	assert_string_equal(out, "a list");
	json_brief(parse("1.50"), out);
	assert_string_equal(out, "1.50");
}

/* ---------- places ---------- */

static struct json *parse_spans(struct str text)
{
	struct problem why = { 0 };
	struct json *v = json_parse_spans(&arena, text, 1000, &why);

	if (!v)
		fail_msg("%.*s: %s", STR_FMT(text), why.text);
	return v;
}

static struct str span(struct str text, const struct json *v)
{
	assert_true((size_t)v->at + v->length <= text.n);
	return (struct str){ text.p + v->at, v->length };
}

/* What is said of each value is a text that means the same, without anything around it. */
static void check_spans(struct str text, const struct json *v)
{
	struct problem why = { 0 };
	const struct str own = span(text, v);
	const struct json *again = json_parse_spans(&arena, own, 1000, &why);

	if (!again || !json_equal(again, v) || again->at != 0 || again->length != own.n)
		fail_msg("%.*s: %.*s", STR_FMT(text), STR_FMT(own));
	for (const struct json *m = v->child; m; m = m->next)
		check_spans(text, m);
}

static void tells_places(void **state)
{
	static const struct str text = STR(" {\"a\" :\n null , \"b\\u0041\":[ true,\r\n-12 ,1.5e2,"
					   "\"x\\n\xc3\xa9\" ,[ ],{ }], "
					   "\"c\":{\"d\":{\"e\":[[1]]}} } \n");
	const struct json *v = parse_spans(text), *b = json_get(v, "bA");
	static const char *const items[] = { "true", "-12", "1.5e2", "\"x\\n\xc3\xa9\"", "[ ]", "{ }" };
	unsigned i = 0;

	(void)state;
	check_spans(text, v);
	assert_int_equal(v->at, 1);
	assert_int_equal(v->length, text.n - 3);
	assert_true(str_equal(span(text, json_get(v, "a")), STR("null")));
	for (const struct json *item = b->child; item; item = item->next, i++)
		assert_true(str_equal(span(text, item), str_of(items[i])));
	assert_int_equal(i, 6);
	assert_true(str_equal(span(text, json_get(v, "c")), STR("{\"d\":{\"e\":[[1]]}}")));
	assert_true(str_equal(span(STR(" 12 "), parse_spans(STR(" 12 "))), STR("12")));
	assert_true(str_equal(span(STR("\n\"\""), parse_spans(STR("\n\"\""))), STR("\"\"")));
}

static void bounds_the_number_of_values(void **state)
{
	struct problem why = { 0 };

	(void)state;
	assert_non_null(json_parse_spans(&arena, STR("[1,{\"a\":2}]"), 4, &why));
	assert_null(json_parse_spans(&arena, STR("[1,\n{\"a\":2}]"), 3, &why));
	assert_string_equal(why.text, "line 2, column 2: too many values");
	assert_null(json_parse_spans(&arena, STR("1"), 0, &why));
}

/* Where a place in bytes is kept, lines are found afterwards. */
static void refuses_with_places_as_without(void **state)
{
	static const char *const bad[] = { "", " ", "{", "[1,]", "\n\n [1 2]", "{\n\"a\":nope}", "{\"a\":1}\n x",
		"\"\\u12\"",
		"\"\xff\"", "[\n\"\xe4\xb8\"]", "\n{\"b\":{\"a\":1,\n \"a\":2}}", "[\n\"a\tb\"]", "\"\\ud800\\u00\"" };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct problem plain = { 0 }, spans = { 0 };

		assert_null(json_parse(&arena, str_of(bad[i]), &plain));
		assert_null(json_parse_spans(&arena, str_of(bad[i]), 100, &spans));
		assert_string_equal(plain.text, spans.text);
		assert_string_equal(plain.field, spans.field);
	}
}

static void tells_what_others_may_take(void **state)
{
	struct problem why = { 0 };
	struct sbuf deep = { 0 };

	(void)state;
	for (int i = 0; i < 65; i++)
		sbuf_addc(&deep, '[');
	assert_null(json_parse_spans(&arena, STR("{\"a\":[{\"b\":1,\"b\":2}]}"), 100, &why));
	assert_int_equal(why.kind, PROBLEM_CONFLICT);
	assert_string_equal(why.field, "a[0].b");
	assert_null(json_parse_spans(&arena, sbuf_str(&deep), 100, &why));
	assert_int_equal(why.kind, PROBLEM_TOO_LARGE);
	assert_null(json_parse_spans(&arena, STR("[1,2]"), 2, &why));
	assert_int_equal(why.kind, PROBLEM_TOO_LARGE);
	assert_null(json_parse_spans(&arena, STR("[1,2"), 100, &why));
	assert_int_equal(why.kind, PROBLEM_INVALID);
	assert_null(json_parse(&arena, STR("{\"a\":1,\"a\":2}"), &why));
	assert_int_equal(why.kind, PROBLEM_INVALID);
	assert_null(json_parse(&arena, sbuf_str(&deep), &why));
	assert_int_equal(why.kind, PROBLEM_INVALID);
	sbuf_free(&deep);
}

/* Other readers take these, so a request that a model reads could pass unread. */
static void takes_with_places_what_others_take(void **state)
{
	(void)state;
	assert_string_equal(parse_spans(STR("\"a\\u0000b\""))->string.p, "a\xef\xbf\xbd" "b");
	assert_string_equal(parse_spans(STR("\"\\ud800\""))->string.p, "\xef\xbf\xbd");
	assert_string_equal(parse_spans(STR("\"\\ud800x\""))->string.p, "\xef\xbf\xbdx");
	assert_string_equal(parse_spans(STR("\"\\ud800\\u0041\""))->string.p, "\xef\xbf\xbd" "A");
	assert_string_equal(parse_spans(STR("\"\\udc00\\ud83d\\ude00\""))->string.p, "\xef\xbf\xbd\xf0\x9f\x98\x80");
	assert_string_equal(parse_spans(STR("\"\\ud83d\\ud83d\\ude00\""))->string.p, "\xef\xbf\xbd\xf0\x9f\x98\x80");
	assert_string_equal(written(parse_spans(STR("[1e999,-1e999]")), json_write), "[1e999,-1e999]");
}

/* Runs of characters of each length, with each kind of end, against the slow way. */
static void scans_characters_of_all_lengths(void **state)
{
	static const struct str parts[] = {
		STR("\xc3\xa9"), STR("\xe4\xb8\xad"), STR("\xf0\x9f\x98\x80"), STR("\xe0\xa4\xb9"), STR("\xed\x95\x9c"),
		STR("\xed\x9f\xbf"), STR("\xee\x80\x80"), STR("\xef\xbf\xbd"), STR("a"), STR("\xe0\x80\x80"),
		STR("\xed\xa0\x80"), STR("\xe4\xb8"), STR("\xf4\x90\x80\x80"), STR("\x80"), STR("\xc0\x80"),
	};
	const unsigned n = sizeof parts / sizeof parts[0];

	(void)state;
	for (unsigned i = 0; i < n * n * n; i++) {
		const struct str three[] = { parts[i % n], parts[i / n % n], parts[i / n / n] };
		char text[16];
		size_t size = 0, expected;

		for (int k = 0; k < 3; k++) {
			memcpy(text + size, three[k].p, three[k].n);
			size += three[k].n;
		}
		expected = json_utf8_length(text, text + size);
		while ((unsigned char)text[0] >= 0x80 && expected > 0 && expected < size &&
		       (unsigned char)text[expected] >= 0x80 && json_utf8_length(text + expected, text + size))
			expected += json_utf8_length(text + expected, text + size);
		assert_int_equal(json_utf8_end(text, text + size) - text, expected);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(reads_every_type, stop),
		cmocka_unit_test_teardown(keeps_integers_exact, stop),
		cmocka_unit_test_teardown(refuses_what_is_no_json, stop),
		cmocka_unit_test_teardown(says_what_and_where, stop),
		cmocka_unit_test_teardown(names_duplicates_by_path, stop),
		cmocka_unit_test_teardown(finds_duplicates_among_many, stop),
		cmocka_unit_test_teardown(bounds_depth, stop),
		cmocka_unit_test_teardown(scans_strings_of_all_lengths, stop),
		cmocka_unit_test_teardown(writes_what_it_read, stop),
		cmocka_unit_test_teardown(packs_without_copies_of_known_names, stop),
		cmocka_unit_test_teardown(writes_numbers_shortest, stop),
		cmocka_unit_test_teardown(quotes_any_bytes, stop),
		cmocka_unit_test_teardown(canonical_form_is_by_value, stop),
		cmocka_unit_test_teardown(changes_trees, stop),
		cmocka_unit_test_teardown(shows_values_briefly, stop),
		cmocka_unit_test_teardown(tells_places, stop),
		cmocka_unit_test_teardown(bounds_the_number_of_values, stop),
		cmocka_unit_test_teardown(refuses_with_places_as_without, stop),
		cmocka_unit_test_teardown(tells_what_others_may_take, stop),
		cmocka_unit_test_teardown(takes_with_places_what_others_take, stop),
		cmocka_unit_test_teardown(scans_characters_of_all_lengths, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
