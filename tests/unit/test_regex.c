/* room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/regex.h"
#include "core/thread.h"

static struct arena arena;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static struct regex *compiled(const char *pattern)
{
	struct problem why = { 0 };
	struct regex *r = regex_compile(&arena, str_of(pattern), false, &why);

	if (!r)
		fail_msg("%s: %s", pattern, why.text);
	return r;
}

static void assert_replaced(const char *pattern, const char *subject, const char *template, const char *expected)
{
	struct str got = regex_replace(compiled(pattern), &arena, str_of(subject), str_of(template));

	if (!str_equal(got, str_of(expected)))
		fail_msg("%s on %s: %.*s, not %s", pattern, subject, STR_FMT(got), expected);
}

static void searches_and_matches_whole(void **state)
{
	struct regex *r = compiled("a|ab");
	struct problem why;

	(void)state;
	assert_int_equal(regex_match(r, STR("xabx")), REGEX_YES);
	assert_int_equal(regex_match(r, STR("xbx")), REGEX_NO);
	assert_int_equal(regex_match_whole(r, STR("ab")), REGEX_YES);
	assert_int_equal(regex_match_whole(r, STR("abx")), REGEX_NO);
	assert_int_equal(regex_match_whole(r, STR("xab")), REGEX_NO);
	assert_int_equal(regex_match_whole(compiled("a$"), STR("a\n")), REGEX_NO);
	assert_int_equal(regex_match(compiled("a$"), STR("a\n")), REGEX_NO);
	assert_int_equal(regex_match(compiled(""), (struct str){ NULL, 0 }), REGEX_YES);
	assert_int_equal(regex_match(compiled("HELLO"), STR("hello")), REGEX_NO);
	r = regex_compile(&arena, STR("HELLO"), true, &why);
	assert_int_equal(regex_match(r, STR("say hello")), REGEX_YES);
	/* Bytes, not characters. */
	assert_int_equal(regex_match_whole(compiled(".."), STR("\xc3\xa9")), REGEX_YES);
	assert_int_equal(regex_match(compiled("^\\xff$"), STR("\xff")), REGEX_YES);
	assert_int_equal(regex_groups(compiled("(a)(?:b)(?<n>c)")), 2);
}

static void refuses_what_is_not_allowed(void **state)
{
	static const char *const bad[] = { "(a)\\1", "(?<n>a)\\k<n>", "(?<n>a)\\k{n}", "(a)\\g1", "(a)\\g{-1}",
		"(?P<n>a)(?P=n)",
		"a(?=b)", "a(?!b)", "(?<=a)b", "(?<!a)b", "(?:x(?=y))", "(a)(?1)", "(?R)", "a(?0)?",
			"(?&n)(?<n>a)", "(?P>n)(?<n>a)",
		"(?+1)(a)", "(a)(?-1)", "(*UTF)a", "(*COMMIT)a", "a(*SKIP)b", "(*pla:a)",
			"(*positive_lookahead:a)", "\\Ca", "a\\Kb",
		"(a)?(?(1)b|c)", "(?(?=a)b)", "(?C1)a", "(?x)a#[\n(?=b)", "(?i-x:a)", "(?*a)", "(?<*a)",
		"[]](?=a)", "[^]](?=a)", "[[:alpha:]](?=a)", "[\\]](?=a)", "\\Q(\\E(?=a)", "\\c[(?=a)",
			"[a\\Q]\\E](?=b)",
		"(?#[)(?=a)", "(?<n>(?!a))", "\\((?=a)" };
	struct problem why;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		why.text[0] = '\0';
		if (regex_compile(&arena, str_of(bad[i]), false, &why))
			fail_msg("accepted: %s", bad[i]);
		assert_non_null(strstr(why.text, "not allowed"));
	}
}

static void refuses_what_is_wrong(void **state)
{
	static const char *const bad[] = { "(", "(a", "a)", "[a", "*", "a{2,1}", "\\", "(?<n", "(?", "(?z)",
		"[[:foo:]]", "\\Q(\\E)" };
	struct problem why;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		why.text[0] = '\0';
		if (regex_compile(&arena, str_of(bad[i]), false, &why))
			fail_msg("accepted: %s", bad[i]);
		assert_non_null(strstr(why.text, "at byte"));
	}
}

static void takes_lookalikes(void **state)
{
	(void)state;
	assert_int_equal(regex_match_whole(compiled("[(?=a)]+"), STR("(?=a)")), REGEX_YES);
	assert_int_equal(regex_match_whole(compiled("\\(\\?=a\\)"), STR("(?=a)")), REGEX_YES);
	assert_int_equal(regex_match_whole(compiled("\\Q(?=a)(*X)\\E"), STR("(?=a)(*X)")), REGEX_YES);
	assert_int_equal(regex_match_whole(compiled("[\\1]\\x41\\012"), STR("\1A\n")), REGEX_YES);
	assert_int_equal(regex_match_whole(compiled("(?i)a(?-i)b(?:c)(?>d)(?<n>e)(?P<m>f)(?'o'g)(?#no)"),
		STR("AbcdefG")), REGEX_NO);
	assert_int_equal(regex_match_whole(compiled("(?i)a(?-i)b(?:c)(?>d)(?<n>e)(?P<m>f)(?'o'g)(?#no)"),
		STR("Abcdefg")), REGEX_YES);
	assert_int_equal(regex_match(compiled("\\bword\\b"), STR("a word here")), REGEX_YES);
	assert_int_equal(regex_match_whole(compiled("[[:alpha:]]+[[:a]+"), STR("abc[:a")), REGEX_YES);
}

static void stops_at_the_limit(void **state)
{
	char subject[65];

	(void)state;
	memset(subject, 'a', sizeof subject - 1);
	subject[64] = '\0';
	assert_int_equal(regex_match_whole(compiled("(a+)+b"), str_of(subject)),
		REGEX_NO);   /* no 'b': known at once */
	subject[63] = 'c';
	assert_int_equal(regex_match_whole(compiled("(a|aa)+[bd]"), str_of(subject)), REGEX_LIMIT);
	assert_null(regex_replace(compiled("(a|aa)+[bd]"), &arena, str_of(subject), STR("x")).p);
}

static void replaces_every_match(void **state)
{
	(void)state;
	assert_replaced("^/old/(.*)$", "/old/a/b", "/new/\\1", "/new/a/b");
	assert_replaced("(a)(b)?", "aab", "<\\0|$1|${2}>", "<a|a|><ab|a|b>");
	assert_replaced("x", "axbx", "", "ab");
	assert_replaced("x", "abc", "y", "abc");
	assert_replaced("", "abc", "-", "-a-b-c-");
	assert_replaced("x*", "abxc", "-", "-a-b-c-");
	assert_replaced("b*", "abc", "-", "-a-c-");
	assert_replaced("^", "abc", "-", "-abc");
	assert_replaced("^a", "aaa", "b", "baa");
	assert_replaced("a", "a", "\\\\1$$1\\x$y$", "\\1$1\\x$y$");
	assert_replaced("(a)", "a", "$10${01}${1", "a0a${1");
	assert_replaced("a", "a", "\\5${77}", "");
	assert_replaced("", "", "x", "x");
}

static void knows_the_groups_of_a_template(void **state)
{
	(void)state;
	assert_int_equal(regex_template_groups(STR("plain")), 0);
	assert_int_equal(regex_template_groups(STR("\\2$7${12}")), 12);
	assert_int_equal(regex_template_groups(STR("$$3\\\\4")), 0);
	assert_int_equal(regex_template_groups((struct str){ NULL, 0 }), 0);
}

static void *match_elsewhere(void *arg)
{
	for (int i = 0; i < 1000; i++)
		if (regex_match_whole(arg, STR("abcabc")) != REGEX_YES)
			return NULL;
	return arg;
}

static void is_shared_by_threads(void **state)
{
	struct regex *r = compiled("(abc)+");
	pthread_t a = thread_start("match-a", match_elsewhere, r), b = thread_start("match-b", match_elsewhere, r);
	void *first, *second;

	(void)state;
	pthread_join(a, &first);
	pthread_join(b, &second);
	assert_ptr_equal(first, r);
	assert_ptr_equal(second, r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(searches_and_matches_whole, stop),
		cmocka_unit_test_teardown(refuses_what_is_not_allowed, stop),
		cmocka_unit_test_teardown(refuses_what_is_wrong, stop),
		cmocka_unit_test_teardown(takes_lookalikes, stop),
		cmocka_unit_test_teardown(stops_at_the_limit, stop),
		cmocka_unit_test_teardown(replaces_every_match, stop),
		cmocka_unit_test_teardown(knows_the_groups_of_a_template, stop),
		cmocka_unit_test_teardown(is_shared_by_threads, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
