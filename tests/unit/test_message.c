/* test_message.c -- field names, rows, cookies, query parameters. */
/* room: http */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "http/message.h"

#define ABSENT ((struct str){ NULL, 0 })

static struct arena arena;

static void assert_str(struct str actual, const char *expected)
{
	assert_non_null(actual.p);
	assert_int_equal(actual.n, strlen(expected));
	assert_memory_equal(actual.p, expected, actual.n);
}

static int drop_arena(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static void test_every_known_name_is_found_in_any_case(void **state)
{
	(void)state;
	for (unsigned id = 1; id < HEADER_COUNT; id++) {
		struct str name = header_name((enum header_id)id);
		char text[64];

		assert_true(name.n < sizeof(text));
		assert_int_equal(header_lookup(name), id);
		for (size_t i = 0; i < name.n; i++)
			text[i] = (char)(name.p[i] >= 'a' && name.p[i] <= 'z' ? name.p[i] - 32 : name.p[i]);
		assert_int_equal(header_lookup((struct str){ text, name.n }), id);
	}
}

/* Any other byte at any place makes it another name: also those that differ in bit 0x20 only, as CR and '-'. */
static void test_a_changed_byte_is_another_name(void **state)
{
	(void)state;
	for (unsigned id = 1; id < HEADER_COUNT; id++) {
		struct str name = header_name((enum header_id)id);
		char text[64];

		for (size_t i = 0; i < name.n; i++) {
			memcpy(text, name.p, name.n);
			for (unsigned c = 0; c < 256; c++) {
				bool is_same = c == (unsigned char)name.p[i] ||
				               (name.p[i] >= 'a' && c == (unsigned char)name.p[i] - 32U);

				text[i] = (char)c;
				if (is_same)
					assert_int_equal(header_lookup((struct str){ text, name.n }), id);
				else
					assert_int_not_equal(header_lookup((struct str){ text, name.n }), id);
			}
		}
		assert_int_not_equal(header_lookup((struct str){ name.p, name.n - 1 }), id);
	}
	assert_int_equal(header_lookup(STR("")), HEADER_OTHER);
	assert_int_equal(header_lookup(STR("x")), HEADER_OTHER);
	assert_int_equal(header_lookup(STR("access-control-allow-origin-of-somebody-else")), HEADER_OTHER);
}

static void test_methods_are_case_sensitive(void **state)
{
	(void)state;
	assert_int_equal(method_lookup(STR("GET")), METHOD_GET);
	assert_int_equal(method_lookup(STR("HEAD")), METHOD_HEAD);
	assert_int_equal(method_lookup(STR("POST")), METHOD_POST);
	assert_int_equal(method_lookup(STR("PUT")), METHOD_PUT);
	assert_int_equal(method_lookup(STR("DELETE")), METHOD_DELETE);
	assert_int_equal(method_lookup(STR("CONNECT")), METHOD_CONNECT);
	assert_int_equal(method_lookup(STR("OPTIONS")), METHOD_OPTIONS);
	assert_int_equal(method_lookup(STR("TRACE")), METHOD_TRACE);
	assert_int_equal(method_lookup(STR("PATCH")), METHOD_PATCH);
	assert_int_equal(method_lookup(STR("get")), METHOD_OTHER);
	assert_int_equal(method_lookup(STR("GETS")), METHOD_OTHER);
	assert_int_equal(method_lookup(STR("")), METHOD_OTHER);
}

static void test_tokens_and_values(void **state)
{
	char text[40];

	(void)state;
	assert_true(header_is_token(STR("X-Name_1!#$%&'*+.^`|~")));
	assert_false(header_is_token(STR("")));
	assert_false(header_is_token(STR("a b")));
	assert_false(header_is_token(STR("a:b")));
	assert_false(header_is_token(STR("\xc3\xa9")));
	assert_true(header_is_value(STR("")));
	/* Every byte, in a block of 16, at the edge of blocks and in the tail. */
	for (size_t at = 0; at < sizeof(text); at++) {
		memset(text, 'x', sizeof(text));
		for (unsigned c = 0; c < 256; c++) {
			bool is_good = c == '\t' || (c >= 0x20 && c != 0x7f);

			text[at] = (char)c;
			assert_int_equal(header_is_value((struct str){ text, sizeof(text) }), is_good);
		}
	}
}

static void test_adds_sets_and_removes(void **state)
{
	struct message m = { .arena = &arena };
	struct header *h;

	(void)state;
	assert_null(message_find(&m, HEADER_ACCEPT));
	message_add(&m, STR("Accept"), STR("a"));
	message_add(&m, STR("X-One"), STR("1"));
	message_add_id(&m, HEADER_ACCEPT, STR("b"));
	message_add(&m, STR("x-one"), STR("2"));
	assert_str(message_value(&m, HEADER_ACCEPT), "a");
	assert_str(message_join(&m, STR("ACCEPT")), "a, b");
	assert_str(message_join(&m, STR("X-ONE")), "1, 2");
	assert_null(message_join(&m, STR("X-Two")).p);
	h = message_find_name(&m, STR("X-one"));
	assert_str(h->name, "X-One");
	h = message_find_next(&m, h);
	assert_str(h->value, "2");
	assert_null(message_find_next(&m, h));
	message_set(&m, STR("x-one"), STR("3"));
	assert_str(message_join(&m, STR("x-one")), "3");
	assert_str(message_find_name(&m, STR("x-one"))->name, "X-One");
	message_set_id(&m, HEADER_LOCATION, STR("/"));
	assert_str(message_value(&m, HEADER_LOCATION), "/");
	assert_int_equal(message_remove(&m, STR("accept")), 2);
	assert_int_equal(message_remove(&m, STR("accept")), 0);
	assert_null(message_find(&m, HEADER_ACCEPT));
	message_remove_id(&m, HEADER_LOCATION);
	assert_null(message_value(&m, HEADER_LOCATION).p);
}

static void test_rows_survive_growth(void **state)
{
	struct message m = { .arena = &arena };

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		message_add(&m, STR("X-Many"), arena_printf(&arena, "%u", i));
	assert_int_equal(m.n, 300);
	assert_str(m.headers[0].value, "0");
	assert_str(m.headers[299].value, "299");
}

static void test_framing_fields_cannot_be_added(void **state)
{
	static const char *const names[] = { "Content-Length", "transfer-encoding", "Connection", "keep-alive", "TE",
	                                     "Trailer", "Upgrade", "Proxy-Connection" };
	struct message m = { .arena = &arena };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		message_add(&m, str_of(names[i]), STR("x"));
		message_set(&m, str_of(names[i]), STR("x"));
	}
	assert_int_equal(m.n, 0);
}

static void test_text_from_elsewhere_cannot_end_a_line(void **state)
{
	struct message m = { .arena = &arena };

	(void)state;
	message_add(&m, STR("X-A"), STR("one\r\nX-Evil: 1"));
	message_set(&m, STR("X-B"), ((struct str){ "a\0b", 3 }));
	message_add(&m, STR("X-C: 1\r\nX-Evil"), STR("2"));
	message_set(&m, STR(""), STR("2"));
	assert_int_equal(m.n, 2);
	assert_str(message_find_name(&m, STR("x-a"))->value, "one  X-Evil: 1");
	assert_str(message_find_name(&m, STR("x-b"))->value, "a b");
}

static void test_host_and_authority_agree(void **state)
{
	struct message m = { .arena = &arena };

	(void)state;
	message_set(&m, STR("host"), STR("a.test"));
	assert_str(m.authority, "a.test");
	message_add(&m, STR("Host"), STR("b.test"));
	assert_str(m.authority, "b.test");
	assert_str(message_join(&m, STR("host")), "b.test");
	assert_int_equal(message_remove(&m, STR("Host")), 0);
	assert_str(message_value(&m, HEADER_HOST), "b.test");
}

static void test_cookies(void **state)
{
	struct message m = { .arena = &arena };

	(void)state;
	assert_null(message_cookie(&m, STR("a")).p);
	message_add(&m, STR("Cookie"), STR(";=;  aa=0; a=1;b ; c=x=y; a=2"));
	message_add(&m, STR("Cookie"), STR("d=; e=\"q\""));
	assert_str(message_cookie(&m, STR("a")), "1");
	assert_str(message_cookie(&m, STR("aa")), "0");
	assert_str(message_cookie(&m, STR("c")), "x=y");
	assert_str(message_cookie(&m, STR("d")), "");
	assert_str(message_cookie(&m, STR("e")), "\"q\"");
	assert_null(message_cookie(&m, STR("b")).p);
	assert_null(message_cookie(&m, STR("A")).p);
}

static void test_query_values(void **state)
{
	(void)state;
	assert_str(query_value(STR("a=1&b=2&a=3"), STR("a")), "1");
	assert_str(query_value(STR("a=1&b=2"), STR("b")), "2");
	assert_str(query_value(STR("a=1&b"), STR("b")), "");
	assert_str(query_value(STR("&&x==&y"), STR("x")), "=");
	assert_null(query_value(STR("ab=1"), STR("a")).p);
	assert_null(query_value(STR("a=1"), STR("ab")).p);
	assert_null(query_value(ABSENT, STR("a")).p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_known_name_is_found_in_any_case),
		cmocka_unit_test(test_a_changed_byte_is_another_name),
		cmocka_unit_test(test_methods_are_case_sensitive),
		cmocka_unit_test(test_tokens_and_values),
		cmocka_unit_test_teardown(test_adds_sets_and_removes, drop_arena),
		cmocka_unit_test_teardown(test_rows_survive_growth, drop_arena),
		cmocka_unit_test_teardown(test_framing_fields_cannot_be_added, drop_arena),
		cmocka_unit_test_teardown(test_text_from_elsewhere_cannot_end_a_line, drop_arena),
		cmocka_unit_test_teardown(test_host_and_authority_agree, drop_arena),
		cmocka_unit_test_teardown(test_cookies, drop_arena),
		cmocka_unit_test(test_query_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
