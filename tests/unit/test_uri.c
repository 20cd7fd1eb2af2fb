/* test_uri.c -- paths in normal form, hosts, percent-decoding, URLs. */
/* room: http */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "http/uri.h"

static struct arena arena;

static int drop_arena(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static void assert_str(struct str actual, const char *expected)
{
	assert_non_null(actual.p);
	if (actual.n != strlen(expected) || memcmp(actual.p, expected, actual.n) != 0)
		fail_msg("got %.*s, expected %s", STR_FMT(actual), expected);
}

static void test_normal_forms(void **state)
{
	static const struct {
		const char *target, *path, *query;
	} cases[] = {
		{ "/", "/", NULL },
		{ "/?", "/", "" },
		{ "/a/b.c?x=1&y=//..", "/a/b.c", "x=1&y=//.." },
		{ "/a?b?c", "/a", "b?c" },
		{ "/a/./b", "/a/b", NULL },
		{ "/a/../b", "/b", NULL },
		{ "/a/b/../../c", "/c", NULL },
		{ "/a/..", "/", NULL },
		{ "/a/b/..", "/a/", NULL },
		{ "/a/.", "/a/", NULL },
		{ "/.", "/", NULL },
		{ "//", "/", NULL },
		{ "//a///b//", "/a/b/", NULL },
		{ "/a//../b", "/b", NULL },
		{ "/%61%2D%2e%7Eb", "/a-.~b", NULL },
		{ "/%2e/a", "/a", NULL },
		{ "/a/%2e%2E/b", "/b", NULL },
		{ "/a/.%2e/b?%2e", "/b", "%2e" },
		{ "/a%2fb", "/a%2Fb", NULL },
		{ "/a%5cb", "/a%5Cb", NULL },
		{ "/%e2%82%ac", "/%E2%82%AC", NULL },
		{ "/%25%32e", "/%252e", NULL },
		{ "/%252e%252e/x", "/%252e%252e/x", NULL },
		{ "/a%20b%3f%23", "/a%20b%3F%23", NULL },
		{ "/...", "/...", NULL },
		{ "/.well-known/x", "/.well-known/x", NULL },
		{ "/a/..b/c..", "/a/..b/c..", NULL },
		{ "/a;v=1/b;..", "/a;v=1/b;..", NULL },
		{ "/a/b%2F.x", "/a/b%2F.x", NULL },
		{ "/{id}|\"<>^`", "/{id}|\"<>^`", NULL },
		{ "/long/enough/for/two/blocks/of/sixteen?q=also+long+enough+for+it",
		  "/long/enough/for/two/blocks/of/sixteen",
		  "q=also+long+enough+for+it" },
		{ "/exactly16bytes/", "/exactly16bytes/", NULL },
		{ "/exactly16bytes//x", "/exactly16bytes/x", NULL },
		{ "/fifteen-bytes/./x", "/fifteen-bytes/x", NULL },
		{ "/?\\%zz", "/", "\\%zz" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct str path, query, again, none;

		if (uri_normalise(&arena, str_of(cases[i].target), &path, &query) != URI_OK)
			fail_msg("refused: %s", cases[i].target);
		assert_str(path, cases[i].path);
		if (cases[i].query)
			assert_str(query, cases[i].query);
		else
			assert_null(query.p);
		assert_int_equal(uri_normalise(&arena, path, &again, &none), URI_OK);
		assert_str(again, cases[i].path);
	}
}

static void test_refused_targets(void **state)
{
	static const char *const targets[] = {
		"", "a", "?", "*", "/%", "/%4", "/%4g", "/%g4", "/%00", "/a%0a", "/%1f", "/%7f", "/a\\b", "/a#b",
		"/a?b#c",
		"/..", "/a/../..", "/%2e%2e", "/a/../../b", "/..%2f", "/a/..%2fb", "/a/%2e%2e%2Fb", "/a/b%2f..",
		"/a/.%5cb",
		"/a/..%5c", "/a/x%2f..%2fy", "/a/..;/b", "/a/..;x=1/b", "/a/.;/b", "/a/..%2f;x", "/a b", "/a\tb",
		"/\x01",
		"/\x7f", "/\xc3\xa9", "/x?\xc3\xa9", "/x? ", "/a/x%2F..;y",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		struct str path, query;

		if (uri_normalise(&arena, str_of(targets[i]), &path, &query) != URI_BAD)
			fail_msg("accepted: %s as %.*s", targets[i], STR_FMT(path));
	}
	assert_int_equal(uri_normalise(&arena, (struct str){ "/a\0b", 4 }, &(struct str){ 0 }, &(struct str){ 0 }),
		URI_BAD);
}

/* A bad byte is seen wherever it stands: in a block, at its edges, in the tail, in path and query. */
static void test_bad_bytes_at_every_place(void **state)
{
	char text[70];

	(void)state;
	for (size_t n = 2; n <= sizeof(text); n++) {
		for (size_t at = 1; at < n; at++) {
			struct str path, query;

			memset(text, 'x', n);
			text[0] = '/';
			text[n / 2] = '?';
			if (at == n / 2)
				continue;
			assert_int_equal(uri_normalise(&arena, (struct str){ text, n }, &path, &query), URI_OK);
			text[at] = '#';
			assert_int_equal(uri_normalise(&arena, (struct str){ text, n }, &path, &query), URI_BAD);
			text[at] = ' ';
			assert_int_equal(uri_normalise(&arena, (struct str){ text, n }, &path, &query), URI_BAD);
		}
	}
}

static void test_pairs_at_every_place(void **state)
{
	char text[70];

	(void)state;
	for (size_t n = 4; n <= sizeof(text); n++) {
		for (size_t at = 1; at + 2 < n; at++) {
			struct str path, query;

			memset(text, 'x', n);
			text[0] = text[at] = text[at + 1] = '/';
			assert_int_equal(uri_normalise(&arena, (struct str){ text, n }, &path, &query), URI_OK);
			assert_int_equal(path.n, at == 1 ? n - 2 : n - 1);
		}
		arena_free(&arena);
	}
}

static void test_authorities(void **state)
{
	static const char *const bad[] = { "", ":80", "a:b", "a:0", "a:65536", "a:080", "a:80:", "u@a", "a/b", "a,b",
		"a b",
	                                   "[::1", "::1", "[1.2.3.4]", "[fe80::1%25eth0]", "[]", "a\\b", "a?", "a#",
		"[::1]x",
	                                   "\xc3\xa9", "a%41" };
	struct str host;
	uint16_t port;

	(void)state;
	assert_true(uri_split_authority(STR("a.test"), &host, &port));
	assert_str(host, "a.test");
	assert_int_equal(port, 0);
	assert_true(uri_split_authority(STR("a_b.test:8080"), &host, &port));
	assert_str(host, "a_b.test");
	assert_int_equal(port, 8080);
	assert_true(uri_split_authority(STR("[::1]:65535"), &host, &port));
	assert_str(host, "[::1]");
	assert_int_equal(port, 65535);
	assert_true(uri_split_authority(STR("1.2.3.4:"), &host, &port));
	assert_int_equal(port, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (uri_split_authority(str_of(bad[i]), &host, &port))
			fail_msg("accepted: %s", bad[i]);
}

static void test_names_and_hosts(void **state)
{
	char label[65];

	(void)state;
	memset(label, 'a', sizeof(label));
	assert_true(uri_is_dns_name((struct str){ label, 63 }, false));
	assert_false(uri_is_dns_name((struct str){ label, 64 }, false));
	assert_true(uri_is_dns_name(STR("A-1.example"), false));
	assert_true(uri_is_dns_name(STR("*.example.com"), true));
	assert_false(uri_is_dns_name(STR("*.example.com"), false));
	assert_false(uri_is_dns_name(STR("a.*.com"), true));
	assert_false(uri_is_dns_name(STR("*."), true));
	assert_false(uri_is_dns_name(STR("-a.com"), false));
	assert_false(uri_is_dns_name(STR("a-.com"), false));
	assert_false(uri_is_dns_name(STR("a..com"), false));
	assert_false(uri_is_dns_name(STR("a.com."), false));
	assert_false(uri_is_dns_name(STR("a_b.com"), false));
	assert_false(uri_is_dns_name(STR("1.2.3.400"), false));
	assert_false(uri_is_dns_name(STR(""), false));
	assert_true(uri_is_host(STR("1.2.3.4")));
	assert_true(uri_is_host(STR("::1")));
	assert_true(uri_is_host(STR("[::1]")));
	assert_false(uri_is_host(STR("[1.2.3.4]")));
	assert_false(uri_is_host(STR("1.2.3")));
	assert_false(uri_is_host(STR("a b")));
}

static void test_decodes(void **state)
{
	(void)state;
	assert_str(uri_decode(&arena, STR("a%20b+c"), false), "a b+c");
	assert_str(uri_decode(&arena, STR("a%20b+c%2B"), true), "a b c+");
	assert_int_equal(uri_decode(&arena, STR("%00"), false).n, 1);
	assert_str(uri_decode(&arena, STR(""), false), "");
	assert_null(uri_decode(&arena, STR("%"), false).p);
	assert_null(uri_decode(&arena, STR("a%4"), false).p);
	assert_null(uri_decode(&arena, STR("%zz"), false).p);
}

static void test_urls(void **state)
{
	static const char *const bad[] = { "", "http://", "http:///x", "ftp://a/", "//a/", "a.test", "http://u@a/",
		"http://a/#f",
	                                   "http://a b/", "http://a:0/", "http://a?x", "http://a_b..c/", "https:/a",
		"http://a/\r\n" };
	struct url url;

	(void)state;
	assert_true(url_parse(STR("http://a.test"), &url));
	assert_false(url.is_https);
	assert_str(url.host, "a.test");
	assert_int_equal(url.port, 80);
	assert_str(url.target, "/");
	assert_true(url_parse(STR("HTTPS://[2001:db8::1]:8443/x/y?z=1"), &url));
	assert_true(url.is_https);
	assert_str(url.host, "2001:db8::1");
	assert_int_equal(url.port, 8443);
	assert_str(url.target, "/x/y?z=1");
	assert_str(url.authority, "[2001:db8::1]:8443");
	assert_true(url_parse(STR("https://a"), &url));
	assert_int_equal(url.port, 443);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (url_parse(str_of(bad[i]), &url))
			fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_normal_forms, drop_arena),
		cmocka_unit_test_teardown(test_refused_targets, drop_arena),
		cmocka_unit_test_teardown(test_bad_bytes_at_every_place, drop_arena),
		cmocka_unit_test_teardown(test_pairs_at_every_place, drop_arena),
		cmocka_unit_test(test_authorities),
		cmocka_unit_test(test_names_and_hosts),
		cmocka_unit_test_teardown(test_decodes, drop_arena),
		cmocka_unit_test(test_urls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
