/* test_header_edit.c -- add, update and remove on a message, and which headers may not be touched. */
/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "policy/header_edit.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

static struct arena arena;
static struct message message;

static int clear(void **state)
{
	(void)state;
	arena_free(&arena);
	message = (struct message){ .arena = &arena };
	return 0;
}

static void has(const char *name, const char *value)
{
	message_add(&message, str_of(name), str_of(value));
}

/* Exactly these lines, in this order; ends with NULL. */
static void lines_are(const char *name, ...)
{
	const struct header *h = message_find_name(&message, str_of(name));
	const char *value;
	va_list args;

	va_start(args, name);
	while ((value = va_arg(args, const char *))) {
		if (!h)
			fail_msg("%s: no line \"%s\"", name, value);
		if (!str_equal(h->value, str_of(value)))
			fail_msg("%s: \"%.*s\", not \"%s\"", name, STR_FMT(h->value), value);
		h = message_find_next(&message, h);
	}
	va_end(args);
	if (h)
		fail_msg("%s: one line more: \"%.*s\"", name, STR_FMT(h->value));
}

static void edit(enum header_action action, const char *name, const char *value)
{
	header_edit(&message, &(struct header_change){ action, header_lookup(str_of(name)), str_of(name) },
		    str_of(value));
}

static void add_creates_or_joins(void **state)
{
	(void)state;
	edit(HEADER_ACTION_ADD, "X-A", "1");
	lines_are("x-a", "1", NULL);
	edit(HEADER_ACTION_ADD, "x-A", "2");
	lines_are("X-A", "1,2", NULL);
	has("Accept", "text/html");
	has("X-Between", "0");
	has("accept", "text/plain");
	edit(HEADER_ACTION_ADD, "Accept", "*/*");
	lines_are("Accept", "text/html, text/plain,*/*", NULL);
	lines_are("X-Between", "0", NULL);
}

static void add_to_an_empty_value_has_no_comma(void **state)
{
	(void)state;
	has("X-A", "");
	edit(HEADER_ACTION_ADD, "X-A", "1");
	lines_are("X-A", "1", NULL);
}

static void cookies_have_their_own_rules(void **state)
{
	(void)state;
	has("Set-Cookie", "b=2; Path=/");
	edit(HEADER_ACTION_ADD, "set-cookie", "a=1");
	lines_are("Set-Cookie", "b=2; Path=/", "a=1", NULL);
	has("Cookie", "a=1");
	has("Cookie", "b=2");
	edit(HEADER_ACTION_ADD, "Cookie", "c=3");
	lines_are("Cookie", "a=1; b=2; c=3", NULL);
	edit(HEADER_ACTION_UPDATE, "Set-Cookie", "z=9");
	lines_are("Set-Cookie", "z=9", NULL);
}

static void update_leaves_one_line(void **state)
{
	(void)state;
	has("Authorization", "Basic eDp5");
	has("authorization", "Basic eDp6");
	edit(HEADER_ACTION_UPDATE, "Authorization", "Bearer {{token}}");
	lines_are("Authorization", "Bearer {{token}}", NULL);
	edit(HEADER_ACTION_UPDATE, "X-New", "%24$1");
	lines_are("X-New", "%24$1", NULL);
}

static void remove_takes_every_line(void **state)
{
	(void)state;
	has("x-debug-mode", "1");
	has("X-Keep", "1");
	has("X-DEBUG-MODE", "2");
	edit(HEADER_ACTION_REMOVE, "X-Debug-Mode", "");
	lines_are("x-debug-mode", NULL);
	lines_are("X-Keep", "1", NULL);
	edit(HEADER_ACTION_REMOVE, "X-Absent", "");
	edit(HEADER_ACTION_ADD, "X-Debug-Mode", "3");
	lines_are("X-Debug-Mode", "3", NULL);
}

static void some_are_not_to_be_touched(void **state)
{
	static const char *const kept[] = { "Host", "HOST", "connection", "Keep-Alive", "Proxy-Connection",
		"Transfer-Encoding", "TE", "Trailer", "Upgrade", "Content-Length", "Expect" };
	static const char *const free_ones[] = { "X-A", "Authorization", "Cookie", "Set-Cookie",
		"Content-Type", "Date",
		"Strict-Transport-Security", "X-Forwarded-For", "Hosts", "T" };

	(void)state;
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (header_is_editable(str_of(kept[i])))
			fail_msg("%s", kept[i]);
	for (size_t i = 0; i < sizeof(free_ones) / sizeof(free_ones[0]); i++)
		if (!header_is_editable(str_of(free_ones[i])))
			fail_msg("%s", free_ones[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(add_creates_or_joins, clear, clear),
		cmocka_unit_test_setup_teardown(add_to_an_empty_value_has_no_comma, clear, clear),
		cmocka_unit_test_setup_teardown(cookies_have_their_own_rules, clear, clear),
		cmocka_unit_test_setup_teardown(update_leaves_one_line, clear, clear),
		cmocka_unit_test_setup_teardown(remove_takes_every_line, clear, clear),
		cmocka_unit_test(some_are_not_to_be_touched),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	arena_free(&arena);
	arena_drop_cache();
	return failed;
}
