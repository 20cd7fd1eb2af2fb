/* test_origin.c -- which origins a Cors list admits, and what a list may hold. */
/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "policy/origin.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

struct pair {
	const char *list, *origin;
	bool matches;
};

static const struct pair pairs[] = {
	{ "https://example.com", "https://example.com", true },
	{ "https://example.com", "HTTPS://EXAMPLE.com", true },
	{ "https://Example.com", "https://example.com", true },
	{ "https://example.com", "https://example.com:443", true },
	{ "https://example.com:443", "https://example.com", true },
	{ "http://example.com:80", "http://example.com", true },
	{ "https://example.com", "https://example.com:80", false },
	{ "https://example.com", "http://example.com", false },
	{ "https://example.com", "https://example.com:8443", false },
	{ "https://example.com:8443", "https://example.com:8443", true },
	{ "https://example.com", "https://example.com/", false },
	{ "https://example.com", "https://example.com.evil.com", false },
	{ "https://example.com", "https://evilexample.com", false },
	{ "https://example.com", "https://u@example.com", false },
	{ "https://example.com", "example.com", false },
	{ "https://example.com", "", false },
	{ "https://example.com", "null", false },
	{ "https://*.example.com", "https://a.example.com", true },
	{ "https://*.example.com", "https://a.b.EXAMPLE.com", true },
	{ "https://*.example.com", "https://a_b.example.com", true },
	{ "https://*.example.com", "https://example.com", false },
	{ "https://*.example.com", "https://.example.com", false },
	{ "https://*.example.com", "https://evilexample.com", false },
	{ "https://*.example.com", "http://a.example.com", false },
	{ "https://*.example.com", "https://a.example.com:8443", false },
	{ "https://*.example.com", "https://evil.com/.example.com", false },
	{ "https://*.example.com", "https://evil.com#.example.com", false },
	{ "https://*.example.com", "https://evil.com@a.example.com", false },
	{ "https://*.example.com:8443", "https://a.example.com:8443", true },
	{ "https://*.example.com:8443", "https://a.example.com", false },
	{ "null", "null", true },
	{ "null", "NULL", false },
	{ "null", "https://null", false },
	{ "https://null", "null", false },
	{ "http://[::1]:3000", "http://[::1]:3000", true },
	{ "http://[::1]", "http://[::1]:80", true },
	{ "http://127.0.0.1:3000", "http://127.0.0.1:3000", true },
	{ "chrome-extension://abcdef", "chrome-extension://abcdef", true },
	{ "https://a.com, https://b.com ,https://c.com", "https://b.com", true },
	{ "https://a.com, https://b.com ,https://c.com", "https://c.com", true },
	{ "https://a.com, https://b.com ,https://c.com", "https://d.com", false },
	{ "*", "https://anything.example", true },
	{ "*", "null", true },
	{ "https://a.com,*", "https://b.com", true },
};

static void pairs_are_judged(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct arena a = { 0 };
		struct origins origins;

		origins_parse(str_of(pairs[i].list), &a, &origins);
		if (origins_match(&origins, str_of(pairs[i].origin)) != pairs[i].matches)
			fail_msg("\"%s\" on \"%s\" should be %d", pairs[i].origin, pairs[i].list,
				pairs[i].matches);
		arena_free(&a);
	}
}

static void bad_origins_are_named(void **state)
{
	static const char *const bad[] = { "", "a.com", "//a.com", "https:/a.com", "https://",
		"https://a.com/",
		"https://a.com/x", "https://a.com?x", "https://a.com:", "https://a.com:0",
			"https://a.com:65536",
		"https://a.com:x", "https://*", "https://*a.com", "https://a.*.com", "https://a.*",
			"https://u@a.com",
		"https://a b", "1https://a.com", "https://[::1", "https://[zz]", "https://*.a.com/",
			"*.a.com", "Null" };
	struct problem why;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (origin_check(str_of(bad[i]), &why))
			fail_msg("\"%s\" is accepted", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pairs_are_judged),
		cmocka_unit_test(bad_origins_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
