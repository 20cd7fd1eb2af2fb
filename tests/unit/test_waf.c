/* room: policy */
/*
 * What Waf makes of the library's lines and of multipart bodies, and how its exclusions are written. The rules
 * themselves run in tests/integration/test_waf.py.
 */
#include <stdio.h>
#include "core/mem.h"
#include "policy/waf_engine.h"
#include "policy/waf_multipart.h"
#include "policy/waf_rules.h"
/* Last: it takes the name fail() for a macro. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define MARK "sluice-0123456789abcdef"
#define TAIL " [hostname \"" MARK "\"] [uri \"/a\"] [unique_id \"1.2\"] [ref \"\"]"
#define FIELDS(id, data, severity, tags) " [file \"/r.conf\"] [line \"46\"] [id \"" id "\"] [rev \"\"] [msg \"M\"]" \
	" [data \"" data "\"] [severity \"" severity "\"] [ver \"\"] [maturity \"0\"] [accuracy \"0\"]" tags TAIL

static struct waf_hit parse(const char *line)
{
	struct waf_hit hit = { 0 };

	assert_true(waf_parse_hit(str_of(line), STR(MARK), &hit));
	return hit;
}

static void a_line_says_which_rule_and_where(void **state)
{
	struct waf_hit hit = parse("ModSecurity: Warning. Matched \"Operator `Rx' with parameter `a' against variable "
				   "`ARGS:q' (Value: `<script>' )" FIELDS("941110", "Matched Data: <s found", "2",
				   " [tag \"application-multi\"] [tag \"attack-xss\"]"));

	(void)state;
	assert_int_equal(hit.rule, 941110);
	assert_int_equal(hit.tag, WAF_TAG_XSS);
	assert_int_equal(hit.points, 5);
	assert_string_equal(hit.variable, "ARGS:q");
	assert_string_equal(hit.data, "Matched Data: <s found");
}

static void libinjection_says_where_in_its_data(void **state)
{
	struct waf_hit hit = parse("ModSecurity: Warning. detected SQLi using libinjection."
				   FIELDS("942100", "Matched Data: s&sos found within ARGS:id: 1' OR", "2", ""));

	(void)state;
	assert_int_equal(hit.tag, WAF_TAG_SQLI);
	assert_string_equal(hit.variable, "ARGS:id");
}

/* What a client puts before and behind the fields of the library counts for nothing. */
static void clients_cannot_make_up_lines(void **state)
{
	struct waf_hit hit, none;

	(void)state;
	hit = parse("Matched \"Operator `Rx' with parameter `a' against variable `ARGS:x\"] [file \"f\"] "
		    "[line \"1\"] [id \"1\"] [msg \"m\"] [data \"d\"] [severity \"0\"] [hostname \"h\"] "
		    "[tag \"attack-rfi\"]' (Value: `v' )"
		    FIELDS("920100", "x", "4", " [tag \"attack-protocol\"]")
		    " [file \"f\"] [id \"2\"] [data \"d\"] [severity \"0\"] [hostname \"h\"]");
	assert_int_equal(hit.rule, 920100);
	assert_int_equal(hit.points, 3);
	assert_int_equal(hit.tag, WAF_TAG_PROTOCOL);
	assert_false(waf_parse_hit(STR("[file \"f\"] [id \"7\"] [data \"\"] [severity \"2\"] [hostname \"h\"]"),
				   STR(MARK), &none));
	assert_false(waf_parse_hit(STR(""), STR(MARK), &none));
	assert_false(waf_parse_hit(STR(" [hostname \"" MARK "\"]"), STR(MARK), &none));
	assert_false(waf_parse_hit(STR(" [file \"f\"] [id \"x\"] [hostname \"" MARK "\"]"), STR(MARK), &none));
}

static void texts_are_cut_and_printable(void **state)
{
	char line[2048], name[600];
	struct waf_hit hit;

	(void)state;
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	name[3] = '\n';
	snprintf(line, sizeof line, "against variable `%s' (Value: `v' )" FIELDS("1", "\x01\x02", "9", ""), name);
	hit = parse(line);
	assert_int_equal(strlen(hit.variable), WAF_VARIABLE_MAX - 1);
	assert_int_equal(hit.variable[3], '.');
	assert_string_equal(hit.data, "..");
	assert_int_equal(hit.points, 0);
	assert_int_equal(hit.tag, WAF_TAG_OTHER);
}

/* The rules that only add up have no points of their own. */
static void sums_have_no_points(void **state)
{
	(void)state;
	assert_int_equal(parse(FIELDS("949110", "", "2", "")).points, 0);
	assert_int_equal(parse(FIELDS("959100", "", "2", "")).points, 0);
	assert_int_equal(parse(FIELDS("951100", "", "3", "")).points, 4);
	assert_int_equal(parse(FIELDS("920350", "", "5", "")).points, 2);
	assert_int_equal(parse(FIELDS("1000", "", "2", "")).points, 0);
}

#define TYPE "multipart/form-data; boundary=x"
#define FIELD(name, value) "--x\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"
#define FILE_PART(value) "--x\r\nContent-Disposition: form-data; name=\"f\"; FileName=\"a\"\r\n\r\n" value "\r\n"

static size_t fields(const char *type, const char *body)
{
	return waf_multipart_fields(str_of(type), str_of(body));
}

static void files_are_no_fields(void **state)
{
	size_t one = fields(TYPE, FIELD("a", "12345") "--x--\r\n"), two;

	(void)state;
	assert_in_range(one, 5, 20);
	assert_int_equal(fields(TYPE, FIELD("a", "12345") FILE_PART("0123456789") "--x--\r\n"), one);
	two = fields(TYPE, FIELD("a", "12345") FILE_PART("0") FIELD("b", "12345") "--x--\r\n");
	assert_in_range(two, one + 5, 2 * one);
	assert_int_equal(fields(TYPE, FIELD("; filename=", "12345") "--x--\r\n"), one);
	assert_int_equal(fields(TYPE, FIELD("filename", "12345") "--x--\r\n"), one);
	assert_int_equal(fields("Multipart/Form-Data; Boundary=\"x\"; a=b", FIELD("a", "12345") "--x--\r\n"), one);
}

/* What cannot be told apart counts whole. */
static void odd_bodies_count_whole(void **state)
{
	(void)state;
	assert_int_equal(fields("multipart/form-data", "0123456789"), 10);
	assert_int_equal(fields("multipart/form-data; boundary=", "0123456789"), 10);
	assert_int_equal(fields(TYPE, "0123456789"), 10);
	assert_int_equal(fields(TYPE, ""), 0);
	assert_true(fields(TYPE, "--x\r\nA: b\r\n0123456789") >= 10);
	assert_true(fields(TYPE, "--x\n\n0123456789 filename") >= 10);
}

static void exclusions_have_a_form(void **state)
{
	static const char *const good[] = { "* 942100", "route-1 942100", "op-a_b 942100-942190", "* attack-sqli",
		"* 942100 ARGS:q", "route-1 attack-xss REQUEST_COOKIES:a.b", "  *   942100  " };
	static const char *const bad[] = { "", " ", "*", "route-1", "* 942100 ARGS:q x", "* 942100-942190 ARGS:q",
		"* -1", "* 1234567890", "* 942100-", "* \"942100\"", "* 942100\n", "* 942100 ARGS:q\"", "a;b 942100",
		"* 942100 !ARGS:q", "* OWASP CRS attack" };
	struct problem why;

	(void)state;
	for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_true(waf_exclusion_check(str_of(good[i]), &why));
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(waf_exclusion_check(str_of(bad[i]), &why));
}

static void check_form(const char *type, const char *body, const char *wanted)
{
	struct sbuf out = { 0 };

	waf_multipart_form_body(&out, str_of(type), str_of(body));
	assert_int_equal(out.n, strlen(wanted));
	assert_memory_equal(out.p, wanted, out.n);
	sbuf_free(&out);
}

#define MIXED "multipart/mixed; boundary=x"
#define NAMED "Content-Disposition: form-data; name=\"part\""

static void parts_become_fields_and_files(void **state)
{
	(void)state;
	check_form(MIXED, "--x\r\n\r\na\r\n--x--\r\n", "--x\r\n" NAMED "\r\n\r\na\r\n--x--\r\n");
	check_form(MIXED, "--x\r\nContent-Type: Application/JSON; a=b\r\n\r\n{}\r\n--x--\r\n",
		   "--x\r\nContent-Type: Application/JSON; a=b\r\n" NAMED "\r\n\r\n{}\r\n--x--\r\n");
	check_form(MIXED, "--x\r\nContent-Type: image/png\r\n\r\na\r\n--x--\r\n",
		   "--x\r\nContent-Type: image/png\r\n" NAMED "; filename=\"part\"\r\n\r\na\r\n--x--\r\n");
	check_form(MIXED, "--x\r\ncontent-disposition: attachment; filename=a\r\n\r\na\r\n--x--\r\n",
		   "--x\r\n" NAMED "; filename=a\r\n\r\na\r\n--x--\r\n");
	check_form(MIXED, "--x\r\nContent-Disposition: inline;name=q\r\n\r\na\r\n--x\r\n\r\nb\r\n--x--\r\n",
		   "--x\r\nContent-Disposition: form-data;name=q\r\n\r\na\r\n--x\r\n" NAMED "\r\n\r\nb\r\n--x--\r\n");
}

static void odd_parts_stay_odd(void **state)
{
	(void)state;
	check_form("multipart/mixed", "--x\r\n\r\na\r\n--x--\r\n", "--x\r\n\r\na\r\n--x--\r\n");
	check_form(MIXED, "", "");
	check_form(MIXED, "no parts", "no parts");
	check_form(MIXED, "a --x\r\n\r\nb", "a --x\r\n\r\nb");
	check_form(MIXED, "--x", "--x");
	check_form(MIXED, "--x--", "--x--");
	check_form(MIXED, "--x\r\n", "--x\r\n");
	check_form(MIXED, "--x\r\nContent-Disposition", "--x\r\nContent-Disposition" NAMED "\r\n");
}

static void other_kinds_have_other_names(void **state)
{
	struct arena a = { 0 };

	(void)state;
	assert_true(str_equal(waf_multipart_form_type(&a, STR("Multipart/Mixed ; boundary=x")),
			      STR("multipart/form-data; boundary=x")));
	assert_true(str_equal(waf_multipart_form_type(&a, STR("multipart/related;type=\"text/xml\"; boundary=\"x\"")),
			      STR("multipart/form-data; boundary=x")));
	assert_true(str_equal(waf_multipart_form_type(&a, STR("multipart/mixed; boundary=\"x y\"")),
			      STR("multipart/form-data; boundary=\"x y\"")));
	assert_true(str_equal(waf_multipart_form_type(&a, STR("multipart/mixed; boundary=\"----=_Part_0.1\"; a=b")),
			      STR("multipart/form-data; boundary=----=_Part_0.1; a=b")));
	assert_true(str_equal(waf_multipart_form_type(&a, STR("multipart/related; boundary=x; type=application/json")),
			      STR("multipart/form-data; boundary=x")));
	assert_true(str_equal(waf_multipart_form_type(&a, STR("multipart/related; boundary=x; type=\"${jndi:a}\"")),
			      STR("multipart/form-data; boundary=x; type=\"${jndi:a}\"")));
	assert_true(str_equal(waf_multipart_form_type(&a, STR("multipart/related; type=\"a")),
			      STR("multipart/form-data; type=\"a")));
	assert_true(str_equal(waf_multipart_form_type(&a, STR("multipart/related")), STR("multipart/form-data")));
	assert_null(waf_multipart_form_type(&a, STR("multipart/form-data; boundary=x")).p);
	assert_null(waf_multipart_form_type(&a, STR("multipart/mixed2")).p);
	assert_null(waf_multipart_form_type(&a, STR("text/plain")).p);
	arena_free(&a);
}

/* Nothing but boundaries: work that grows with the square of the body takes minutes here, days for the longest body. */
static void boundaries_without_end(void **state)
{
	const size_t n_parts = 100000, part_bytes = 4;
	char *text = mem_alloc(n_parts * part_bytes);
	struct str body = { text, n_parts * part_bytes };
	struct sbuf out = { 0 };

	(void)state;
	for (size_t i = 0; i < n_parts; i++)
		memcpy(text + i * part_bytes, "--x\n", part_bytes);
	assert_false(waf_multipart_is_ambiguous(str_of(MIXED), body));
	waf_multipart_form_body(&out, str_of(MIXED), body);
	assert_true(out.n < body.n + 1000 * 64);
	sbuf_free(&out);
	mem_free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(boundaries_without_end),
		cmocka_unit_test(a_line_says_which_rule_and_where),
		cmocka_unit_test(libinjection_says_where_in_its_data),
		cmocka_unit_test(clients_cannot_make_up_lines),
		cmocka_unit_test(texts_are_cut_and_printable),
		cmocka_unit_test(sums_have_no_points),
		cmocka_unit_test(files_are_no_fields),
		cmocka_unit_test(odd_bodies_count_whole),
		cmocka_unit_test(parts_become_fields_and_files),
		cmocka_unit_test(odd_parts_stay_odd),
		cmocka_unit_test(other_kinds_have_other_names),
		cmocka_unit_test(exclusions_have_a_form),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
