/* test_cli_flags.c -- flags from a table, and what is printed for people. */
/* room: cli */
#include "cli/client.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#undef fail
#include "cli/remote.h"

struct options {
	struct client_options client;
	const char *name;
	bool all;
	struct flag_list items;
};

static const struct flag rows[] = {
	{ "--name", "-n", "NAME", "a name", FLAG_VALUE, offsetof(struct options, name) },
	{ "--all", NULL, NULL, "everything", FLAG_SWITCH, offsetof(struct options, all) },
	{ "--item", "-i", "ITEM", "one of several", FLAG_VALUES, offsetof(struct options, items) },
	FLAGS_END
};

static struct problem why;
static struct options options;
static const char *words[2];
static struct flag_use use;

static bool parse(const char *const *args)
{
	options = (struct options){ 0 };
	use = (struct flag_use){ .own = rows, .options = &options, .words = words, .most = 2 };
	why = (struct problem){ 0 };
	return flags_parse(&use, (char *const *)(uintptr_t)args, &why);
}
#define PARSE(...) parse((const char *const[]){ __VA_ARGS__ __VA_OPT__(,) NULL })

static void test_reads_flags_and_words(void **state)
{
	(void)state;
	assert_true(PARSE("--name", "a", "word", "--all", "-i", "1", "--item=2", "other", "--server=http://x", "-q"));
	assert_string_equal(options.name, "a");
	assert_true(options.all && options.client.quiet && !options.client.no_color);
	assert_int_equal(options.items.n, 2);
	assert_string_equal(options.items.texts[1], "2");
	assert_string_equal(options.client.server, "http://x");
	assert_int_equal(use.n, 2);
	assert_string_equal(words[0], "word");
	assert_string_equal(words[1], "other");
	assert_true(PARSE("-n", "-", "-", "--", "--all"));
	assert_string_equal(options.name, "-");
	assert_false(options.all);
	assert_string_equal(words[1], "--all");
	assert_true(PARSE("--name=", "--name=b=c"));
	assert_string_equal(options.name, "b=c");
	assert_true(parse((const char *const[]){ NULL }));
}

static void refuses(bool parsed, const char *field, const char *text)
{
	assert_false(parsed);
	assert_string_equal(why.field, field);
	assert_non_null(strstr(why.text, text));
}

static void test_refuses_what_it_does_not_know(void **state)
{
	(void)state;
	refuses(PARSE("--nam", "a"), "--nam", "is not a known flag");
	refuses(PARSE("--names", "a"), "--names", "is not a known flag");
	refuses(PARSE("-x"), "-x", "is not a known flag");
	refuses(PARSE("--name"), "--name", "needs a value: --name NAME");
	refuses(PARSE("-n"), "--name", "needs a value");
	refuses(PARSE("--all=yes"), "--all", "takes no value");
	refuses(PARSE("a", "b", "c"), "c", "one argument too many");
}

static void test_lists_are_bounded(void **state)
{
	const char *args[2 * FLAG_LIST_MAX + 3] = { NULL };

	(void)state;
	for (unsigned i = 0; i <= FLAG_LIST_MAX; i++) {
		args[2 * i] = "-i";
		args[2 * i + 1] = "x";
	}
	refuses(parse(args), "--item", "may be given 100 times");
	args[2 * FLAG_LIST_MAX] = NULL;
	assert_true(parse(args));
}

static void test_text_from_elsewhere_cannot_play_with_the_terminal(void **state)
{
	struct arena a = { 0 };
	static const struct { const char *text, *shown; } cases[] = {
		{ "plain", "plain" }, { "", "-" }, { "a\033[2Jb\r\n\t", "a?[2Jb???" }, { "h\xc3\xa9", "h\xc3\xa9" },
		{ "\x9b" "31m\xc3", "?31m?" }, { "\x7f", "?" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_true(str_equal(print_safe(str_of(cases[i].text), &a), str_of(cases[i].shown)));
	arena_free(&a);
}

static void test_escapes_what_goes_into_a_url(void **state)
{
	struct arena a = { 0 };

	(void)state;
	assert_true(str_equal(remote_escape(STR("a-._~Z9"), &a), STR("a-._~Z9")));
	assert_true(str_equal(remote_escape(STR("a b/c?d&e=\xc3\xa9%\0"), &a),
			      STR("a%20b%2Fc%3Fd%26e%3D%C3%A9%25%00")));
	arena_free(&a);
}

static void test_output_is_table_or_json(void **state)
{
	struct printer p = { 0 };

	(void)state;
	assert_true(printer_open(&p, &(struct client_options){ .output = "json" }, &why) && p.is_json);
	assert_true(printer_open(&p, &(struct client_options){ .quiet = true }, &why) && !p.is_json && p.is_quiet);
	assert_false(printer_open(&p, &(struct client_options){ .output = "yaml" }, &why));
	assert_string_equal(why.field, "--output");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_flags_and_words),
		cmocka_unit_test(test_refuses_what_it_does_not_know),
		cmocka_unit_test(test_lists_are_bounded),
		cmocka_unit_test(test_text_from_elsewhere_cannot_play_with_the_terminal),
		cmocka_unit_test(test_escapes_what_goes_into_a_url),
		cmocka_unit_test(test_output_is_table_or_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
