/* room: ai */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "ai/edits.h"

static struct arena arena;
static struct edits edits;
static const struct json *tree;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static void begin(const char *text)
{
	struct problem why = { 0 };

	tree = json_parse_spans(&arena, str_of(text), 10000, &why);
	if (!tree)
		fail_msg("%s: %s", text, why.text);
	edits_init(&edits, &arena, str_of(text));
}

static const struct json *item(const struct json *list, unsigned i)
{
	const struct json *v = list->child;

	while (i--)
		v = v->next;
	return v;
}

static void drop(const char *name)
{
	edits_drop(&edits, tree, json_get(tree, name));
}

static void gives(const char *expected)
{
	struct problem why = { 0 };
	struct str out = edits_apply(&edits, &arena);

	assert_string_equal(arena_copy(&arena, out).p, expected);
	assert_non_null(json_parse_spans(&arena, out, 10000, &why));
}

static void replaces_values(void **state)
{
	(void)state;
	begin("{ \"a\" : 1.50,\"b\":[\"x\" , {\"c\":null}] }");
	assert_true(edits_are_none(&edits));
	assert_ptr_equal(edits_apply(&edits, &arena).p, edits.text.p);
	edits_replace(&edits, item(json_get(tree, "b"), 0), STR("\"longer text\""));
	edits_replace(&edits, json_get(item(json_get(tree, "b"), 1), "c"), STR("{}"));
	assert_false(edits_are_none(&edits));
	gives("{ \"a\" : 1.50,\"b\":[\"longer text\" , {\"c\":{}}] }");
	edits_replace(&edits, json_get(item(json_get(tree, "b"), 1), "c"), STR("7"));
	gives("{ \"a\" : 1.50,\"b\":[\"longer text\" , {\"c\":7}] }");
	begin(" 1 ");
	edits_replace(&edits, tree, STR("[]"));
	gives(" [] ");
}

static void drops_members_with_one_comma(void **state)
{
	static const struct { const char *names[4]; const char *left; } rows[] = {
		{ { "a" }, "{ \"b\" :2,\n\"c\":[3] }" },
		{ { "b" }, "{ \"a\":1 , \"c\":[3] }" },
		{ { "c" }, "{ \"a\":1 , \"b\" :2 }" },
		{ { "a", "b" }, "{ \"c\":[3] }" },
		{ { "c", "b" }, "{ \"a\":1 }" },
		{ { "c", "a" }, "{ \"b\" :2 }" },
		{ { "c", "a", "b" }, "{  }" },
		{ { "b", "b" }, "{ \"a\":1 , \"c\":[3] }" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		begin("{ \"a\":1 , \"b\" :2,\n\"c\":[3] }");
		for (int k = 0; rows[i].names[k]; k++)
			drop(rows[i].names[k]);
		gives(rows[i].left);
	}
}

static void drops_items(void **state)
{
	(void)state;
	begin("[1, \"[,]\",{\"a\":[1,2]} , [ ] ]");
	edits_drop(&edits, tree, item(tree, 1));
	edits_drop(&edits, tree, item(tree, 3));
	edits_drop(&edits, json_get(item(tree, 2), "a"), item(json_get(item(tree, 2), "a"), 0));
	gives("[1, {\"a\":[2]} ]");
	edits_drop(&edits, tree, item(tree, 0));
	edits_drop(&edits, tree, item(tree, 2));
	gives("[ ]");
}

static void adds_members(void **state)
{
	(void)state;
	begin("{}");
	edits_add(&edits, tree, STR("a\"b"), STR("1"));
	gives("{\"a\\\"b\":1}");
	edits_add(&edits, tree, STR("c"), STR("{\"d\":2}"));
	gives("{\"a\\\"b\":1,\"c\":{\"d\":2}}");
	edits_add(&edits, tree, STR("a\"b"), STR("3"));
	gives("{\"a\\\"b\":3,\"c\":{\"d\":2}}");
	begin("{ \"x\": {\"y\":1 } , \"e\": { } }");
	edits_add(&edits, json_get(tree, "x"), STR("z"), STR("2"));
	edits_add(&edits, json_get(tree, "e"), STR("z"), STR("3"));
	edits_add(&edits, tree, STR("w"), STR("4"));
	gives("{ \"x\": {\"y\":1,\"z\":2 } , \"e\": { \"z\":3},\"w\":4 }");
}

static void adds_where_others_go(void **state)
{
	(void)state;
	begin("{\"a\":1,\"b\":2,\"c\":3}");
	drop("c");
	drop("b");
	edits_add(&edits, tree, STR("b"), STR("9"));
	gives("{\"a\":1,\"b\":9}");
	drop("a");
	gives("{\"b\":9}");
	begin("{\"a\":1,\"b\":2}");
	drop("a");
	edits_replace(&edits, json_get(tree, "b"), STR("5"));
	edits_add(&edits, tree, STR("n"), STR("6"));
	gives("{\"b\":5,\"n\":6}");
}

/* Two policies, one value: no order of theirs breaks the text. */
static void gives_up_what_is_inside(void **state)
{
	(void)state;
	begin("{\"a\":[{\"x\":1},{\"y\":2}],\"b\":{\"c\":[3]}}");
	edits_replace(&edits, json_get(item(json_get(tree, "a"), 0), "x"), STR("7"));
	edits_add(&edits, item(json_get(tree, "a"), 0), STR("z"), STR("8"));
	edits_drop(&edits, json_get(tree, "a"), item(json_get(tree, "a"), 0));
	edits_drop(&edits, json_get(json_get(tree, "b"), "c"), item(json_get(json_get(tree, "b"), "c"), 0));
	edits_replace(&edits, json_get(tree, "b"), STR("null"));
	gives("{\"a\":[{\"y\":2}],\"b\":null}");
	begin("[1]");
	edits_drop(&edits, tree, item(tree, 0));
	edits_replace(&edits, item(tree, 0), STR("2"));
	gives("[]");
}

static void drops_many(void **state)
{
	struct sbuf text = { 0 }, expected = { 0 };

	(void)state;
	for (int i = 0; i < 500; i++) {
		sbuf_addf(&text, "%c{\"name\":%d}", i ? ',' : '[', i);
		if (i % 3 == 1)
			sbuf_addf(&expected, "%c{\"name\":%d}", expected.n ? ',' : '[', i);
	}
	sbuf_addc(&text, ']');
	sbuf_addc(&expected, ']');
	begin(text.p);
	for (unsigned i = 0; i < 500; i++)
		if (i % 3 != 1)
			edits_drop(&edits, tree, item(tree, i));
	gives(expected.p);
	sbuf_free(&text);
	sbuf_free(&expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(replaces_values, stop),
		cmocka_unit_test_teardown(drops_members_with_one_comma, stop),
		cmocka_unit_test_teardown(drops_items, stop),
		cmocka_unit_test_teardown(adds_members, stop),
		cmocka_unit_test_teardown(adds_where_others_go, stop),
		cmocka_unit_test_teardown(gives_up_what_is_inside, stop),
		cmocka_unit_test_teardown(drops_many, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
