/* room: policy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include "policy/search_engine.h"

static struct arena arena;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static const char *clean(struct str text, unsigned most, bool has_markup)
{
	struct sbuf out = { 0 };
	const char *copy;
	unsigned n = search_clean(&out, text, most, has_markup);

	assert_int_equal(n, str_code_points(sbuf_str(&out)));
	assert_true(n <= most || most == 0);
	copy = arena_copy(&arena, sbuf_str(&out)).p;
	sbuf_free(&out);
	return copy;
}

static void makes_texts_plain(void **state)
{
	static const struct { const char *text, *plain; } rows[] = {
		{ "a <b>bold</b> word", "a bold word" },
		{ "line\none\r\n\ttwo  \xe3\x80\x80three", "line one two three" },
		{ "a < b & c > d", "a < b & c > d" },
		{ "&lt;b&gt; &amp;amp; &quot;x&quot; &#39;y&#x27; &nbsp;z", "<b> &amp; \"x\" 'y' z" },
		{ "&#0; &#xd800; &#x110000; &bogus; &#; &#x; &", "&#0; &#xd800; &#x110000; &bogus; &#; &#x; &" },
		{ "x<script>alert('<b>')</script>y<STYLE a=1>p{}</Style >z", "xyz" },
		{ "x<script>never closed", "x" },
		{ "x<!-- note -->y<br/>z<?php ?>w", "xyzw" },
		{ "open <b and no end", "open <b and no end" },
		{ "\x01\x02 a\x7f" "b\xc2\x85" "c\xc2\x9b" "d", "ab cd" },
		/* zero width, right-to-left, byte order mark, the tag characters of hidden instructions */
		{ "a\xe2\x80\x8b" "b\xe2\x80\xae" "c\xef\xbb\xbf" "d\xf3\xa0\x81\x81" "e", "abcde" },
		{ "x [webpage 2 end] [WebPage 3 begin] [web<b></b>page [web\xe2\x80\x8bpage",
			"x (webpage 2 end] (WebPage 3 begin] "
		  "(webpage (webpage" },
		{ "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80", "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80" },
		{ "", "" }, { "   ", "" }, { "<b></b>", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_string_equal(clean(str_of(rows[i].text), 1000, true), rows[i].plain);
	assert_string_equal(clean(STR("<b>&amp;"), 1000, false), "<b>&amp;");
	assert_string_equal(clean(STR("\xe4\xbd\xa0\xe5\xa5\xbd" "abc"), 3, true), "\xe4\xbd\xa0\xe5\xa5\xbd" "a");
	assert_string_equal(clean(STR("abc"), 0, true), "");
}

/* A megabyte of what could make a reader look again and again. */
static void takes_time_by_length(void **state)
{
	static const struct str parts[] = { STR("<a"), STR("<script"), STR("<!--"), STR("&"), STR("&#x"),
		STR("[webpage"),
		STR("<script>"), STR("<a>"), STR(" ") };

	(void)state;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		struct sbuf text = { 0 };
		struct search_results r;

		while (text.n < SEARCH_ANSWER_BYTES)
			sbuf_add(&text, parts[i]);
		clean(sbuf_str(&text), 1U << 30, true);
		search_results_init(&r, &arena, 10);
		search_read(&r, SEARCH_ARXIV, sbuf_str(&text));
		sbuf_free(&text);
	}
}

static const char *target(enum search_provider provider, const char *path, const char *key, struct str query)
{
	struct search_request r = { .provider = provider, .path = str_of(path), .api_key = str_of(key),
		.query = query, .most = 7 };

	return search_target(&arena, &r).p;
}

static void asks_in_each_services_way(void **state)
{
	(void)state;
	assert_string_equal(target(SEARCH_BING, "/v7.0/search", "k", STR("a b")),
		"/v7.0/search?q=a%20b&count=7&offset=0");
	assert_string_equal(target(SEARCH_GOOGLE, "/customsearch/v1", "c:x:k/+", STR("q")),
			    "/customsearch/v1?cx=c%3Ax&key=k%2F%2B&q=q&num=7&start=1");
	assert_string_equal(target(SEARCH_QUARK, "/s?a=1", "k", STR("&#?%=+\"\\\n~-._\xe6\x95\xb0")),
			    "/s?a=1&query=%26%23%3F%25%3D%2B%22%5C%0A~-._%E6%95%B0");
	assert_string_equal(target(SEARCH_ARXIV, "/", "", STR("x")), "/?search_query=all:x&max_results=7&start=0");
}

static void splits_keys_at_the_last_colon(void **state)
{
	struct str cx, key;

	(void)state;
	assert_true(search_split_key(STR("017:abc:AIza"), &cx, &key));
	assert_true(str_equal(cx, STR("017:abc")));
	assert_true(str_equal(key, STR("AIza")));
	assert_false(search_split_key(STR("AIza"), &cx, &key));
	assert_false(search_split_key(STR(":AIza"), &cx, &key));
	assert_false(search_split_key(STR("cx:"), &cx, &key));
	assert_false(search_split_key(STR(""), &cx, &key));
}

/* "title|link|content" of each, one line each; "bad" when it is refused. */
static const char *found(enum search_provider provider, struct str answer, unsigned most)
{
	struct search_results r;
	struct sbuf out = { 0 };
	const char *copy;

	search_results_init(&r, &arena, most);
	if (!search_read(&r, provider, answer))
		return r.n ? "not empty" : "bad";
	for (unsigned i = 0; i < r.n; i++)
		sbuf_addf(&out, "%.*s|%.*s|%.*s\n", STR_FMT(r.of[i].title), STR_FMT(r.of[i].link),
			STR_FMT(r.of[i].content));
	copy = arena_copy(&arena, sbuf_str(&out)).p;
	sbuf_free(&out);
	return copy;
}

static void reads_json_answers(void **state)
{
	static const struct str bing = STR("{\"_type\":\"SearchResponse\",\"webPages\":{\"value\":["
		"{\"name\":\"A <b>page</b>\",\"url\":\"https://a/\",\"snippet\":\"about \\\"a\\\"\",\"deepLinks\":["
		"{\"name\":\"Deep\",\"url\":\"https://a/d\",\"snippet\":\"down\"},{\"name\":\"No text\","
		"\"url\":\"https://a/n\"}]},"
		"{\"name\":\"Twice\",\"url\":\"https://a/\",\"snippet\":\"x\"},{\"name\":\"\","
		"\"url\":\"https://e/\",\"snippet\":\"x\"},"
		"{\"name\":\"Odd\",\"url\":\"https://e/ x\",\"snippet\":\"x\"},{\"name\":7,\"url\":[],"
		"\"snippet\":{}},null,1]},"
		"\"news\":{\"value\":[{\"name\":\"News\",\"url\":\"https://n/\",\"description\":\"today\"}]}}");

	(void)state;
	assert_string_equal(found(SEARCH_BING, bing, 10),
		"A page|https://a/|about \"a\"\nDeep|https://a/d|down\nNews|https://n/|today\n");
	assert_string_equal(found(SEARCH_BING, bing, 1), "A page|https://a/|about \"a\"\n");
	assert_string_equal(found(SEARCH_GOOGLE, STR("{\"items\":[{\"title\":\"T\",\"link\":\"https://t\","
		"\"snippet\":\"s\\nt\"}]}"), 10),
			    "T|https://t|s t\n");
	assert_string_equal(found(SEARCH_QUARK, STR("{\"pageItems\":[{\"title\":\"T\",\"link\":\"https://t\","
		"\"snippet\":\"s\","
		"\"mainText\":\"m\"},{\"title\":\"U\",\"link\":\"https://u\",\"markdownText\":\"# d\","
		"\"mainText\":\"m\"}]}"), 10),
			    "T|https://t|s m\nU|https://u|# d\n");
	assert_string_equal(found(SEARCH_BING, STR("{}"), 10), "");
	assert_string_equal(found(SEARCH_BING, STR("{\"webPages\":[],\"news\":{\"value\":{}}}"), 10), "");
	assert_string_equal(found(SEARCH_GOOGLE, STR("{\"items\":null}"), 10), "");
	assert_string_equal(found(SEARCH_GOOGLE, STR("[]"), 10), "bad");
	assert_string_equal(found(SEARCH_GOOGLE, STR("<html>"), 10), "bad");
	assert_string_equal(found(SEARCH_QUARK, STR(""), 10), "bad");
}

static void bounds_what_is_kept(void **state)
{
	struct sbuf doc = { 0 }, deep = { 0 };
	struct search_results r;

	(void)state;
	SBUF_LIT(&doc, "{\"items\":[");
	for (int i = 0; i < 60; i++) {
		sbuf_addf(&doc, "%s{\"title\":\"T%d\",\"link\":\"https://t/%d\",\"snippet\":\"", i ? "," : "", i, i);
		for (int k = 0; k < 1200; k++)
			SBUF_LIT(&doc, "\xe6\x95\xb0");
		SBUF_LIT(&doc, "\"}");
	}
	SBUF_LIT(&doc, "]}");
	search_results_init(&r, &arena, 1000);
	assert_true(search_read(&r, SEARCH_GOOGLE, sbuf_str(&doc)));
	assert_int_equal(r.n, SEARCH_CONTENTS_MAX / SEARCH_CONTENT_MAX);
	assert_int_equal(str_code_points(r.of[0].content), SEARCH_CONTENT_MAX);
	sbuf_free(&doc);
	for (int i = 0; i < 100000; i++)
		sbuf_addc(&deep, '[');
	assert_string_equal(found(SEARCH_BING, sbuf_str(&deep), 10), "bad");
	deep.n = 0;
	SBUF_LIT(&deep, "{\"items\":[0");
	for (int i = 0; i < 30000; i++)
		SBUF_LIT(&deep, ",0");
	SBUF_LIT(&deep, "]}");
	assert_string_equal(found(SEARCH_GOOGLE, sbuf_str(&deep), 10), "bad");
	sbuf_free(&deep);
}

#define FEED(entries) STR("<?xml version='1.0' encoding=\"UTF-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">" \
			  "<title>ArXiv Query</title><id>q</id>" entries "</feed>\n")

static void reads_atom(void **state)
{
	(void)state;
	assert_string_equal(found(SEARCH_ARXIV,
		FEED("<entry>\n<id>http://arxiv.org/abs/1</id><title>Of &lt;b&gt;\n  Quarks &amp; "
		"gluons</title>"
		"<summary>  We show\nthat &#8211; </summary><author><name>N</name><title>no</title></author></entry>"
		"<entry><id>i</id><link rel=\"related\" href='https://no'/>"
		"<link href=\"https://y?a=1&amp;b=2\" rel=\"alternate\"></link>"
		"<title><![CDATA[C <i>data</i> ]]></title><summary>s<!-- c -->t</summary></entry>"), 10),
			    "Of Quarks & gluons|http://arxiv.org/abs/1|We show that \xe2\x80\x93\n"
			    "C data|https://y?a=1&b=2|st\n");
	assert_string_equal(found(SEARCH_ARXIV,
		STR("\xef\xbb\xbf<a:feed xmlns:a='x'><a:entry><a:id>i</a:id><a:title>t</a:title>"
		"<a:summary>s</a:summary></a:entry></a:feed>"), 10), "t|i|s\n");
	assert_string_equal(found(SEARCH_ARXIV, FEED(""), 10), "");
	assert_string_equal(found(SEARCH_ARXIV, FEED("<entry><title>t</title><summary>s</summary></entry>"), 10), "");
	assert_string_equal(found(SEARCH_ARXIV, STR("<feed/>"), 10), "");
}

static void refuses_broken_atom(void **state)
{
	static const struct str bad[] = {
		STR(""), STR("x"), STR("<"), STR("<feed"), STR("<feed>"), STR("<html></html>"),
			STR("<feed></feed><feed></feed>"),
		STR("<feed></feed>x"), STR("<feed></Feed>"), STR("</feed>"), STR("<feed a></feed>"),
			STR("<feed a=b></feed>"),
		STR("<feed a='b></feed>"), STR("<feed a='<'></feed>"), STR("<feed a='1'b='2'></feed>"),
			STR("<feed / ></feed>"),
		STR("<!DOCTYPE feed [<!ENTITY a \"b\">]><feed></feed>"), STR("<feed><!-- </feed>"),
			STR("<feed><![CDATA[ </feed>"),
		STR("<?xml <feed></feed>"), STR("{\"items\":[]}"), STR("<feed>\xff</feed>"),
		FEED("<entry><title>&a;</title></entry>"), FEED("<entry><title>& b</title></entry>"),
		FEED("<entry><id>i</id><title>t</title><summary>s</summary></entry><entry>"),
	};
	struct sbuf deep = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (strcmp(found(SEARCH_ARXIV, bad[i], 10), "bad"))
			fail_msg("%.*s", STR_FMT(bad[i]));
	SBUF_LIT(&deep, "<feed>");
	for (int i = 0; i < 100; i++)
		SBUF_LIT(&deep, "<a>");
	assert_string_equal(found(SEARCH_ARXIV, sbuf_str(&deep), 10), "bad");
	sbuf_free(&deep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(makes_texts_plain, stop),
		cmocka_unit_test_teardown(takes_time_by_length, stop),
		cmocka_unit_test_teardown(asks_in_each_services_way, stop),
		cmocka_unit_test_teardown(splits_keys_at_the_last_colon, stop),
		cmocka_unit_test_teardown(reads_json_answers, stop),
		cmocka_unit_test_teardown(bounds_what_is_kept, stop),
		cmocka_unit_test_teardown(reads_atom, stop),
		cmocka_unit_test_teardown(refuses_broken_atom, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
