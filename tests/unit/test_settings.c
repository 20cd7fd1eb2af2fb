/* room: cli */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "cli/settings.h"
#include "cli/yaml.h"

static struct arena arena;
static struct program_settings got;
static struct problem why;

static bool load(char *const *args)
{
	why = (struct problem){ 0 };
	return settings_load(&got, args, &arena, &why);
}
#define LOAD(...) load((char *const[]){ __VA_ARGS__ __VA_OPT__(,) NULL })

static int clear(void **state)
{
	(void)state;
	arena_free(&arena);
	unsetenv("SLUICE_WORKERS");
	unsetenv("SLUICE_ACCESS_LOG");
	unsetenv("SLUICE_CONFIG");
	return 0;
}

static void assert_problem(const char *field, const char *text)
{
	assert_string_equal(why.field, field);
	assert_non_null(strstr(why.text, text));
}

static void test_defaults(void **state)
{
	(void)state;
	assert_true(LOAD());
	assert_string_equal(got.data.p, "./sluice-data");
	assert_string_equal(got.admin.p, "127.0.0.1:9070");
	assert_int_equal(got.workers, 0);
	assert_true(got.accessLog);
	assert_false(got.demo);
	assert_null(got.store.p);
	assert_int_equal(got.headBytes, 32768);
}

static void test_flags_of_each_type(void **state)
{
	(void)state;
	assert_true(LOAD("--workers", "3", "--demo", "--access-log=false", "--node=n1",
			 "--admin-hosts", "a.example, b.example"));
	assert_int_equal(got.workers, 3);
	assert_true(got.demo);
	assert_false(got.accessLog);
	assert_int_equal(got.adminHosts.n, 2);
	assert_true(str_equal(*ITEM(got.adminHosts, struct str, 1), STR("b.example")));
	assert_string_equal(got.node.p, "n1");
}

static void test_the_last_flag_wins(void **state)
{
	(void)state;
	assert_true(LOAD("--workers", "3", "--workers=4"));
	assert_int_equal(got.workers, 4);
}

static void test_variables(void **state)
{
	(void)state;
	setenv("SLUICE_WORKERS", "7", 1);
	setenv("SLUICE_ACCESS_LOG", "no", 1);
	assert_true(LOAD());
	assert_int_equal(got.workers, 7);
	assert_false(got.accessLog);
	assert_true(LOAD("--workers", "8"));
	assert_int_equal(got.workers, 8);
	setenv("SLUICE_WORKERS", "", 1);
	assert_true(LOAD());
	assert_int_equal(got.workers, 0);
}

static void test_complaints_name_who_gave_the_value(void **state)
{
	(void)state;
	assert_false(LOAD("--workers", "many"));
	assert_problem("--workers", "must be an integer, not \"many\"");
	assert_false(LOAD("--workers=65"));
	assert_problem("--workers", "between 0 and 64, not 65");
	setenv("SLUICE_WORKERS", "66", 1);
	assert_false(LOAD());
	assert_problem("SLUICE_WORKERS", "between 0 and 64, not 66");
	assert_false(LOAD("--workers=65"));
	assert_problem("--workers", "between 0 and 64, not 65");
	assert_true(LOAD("--workers=1"));
	setenv("SLUICE_WORKERS", "x", 1);
	assert_false(LOAD());
	assert_problem("SLUICE_WORKERS", "must be an integer");
	unsetenv("SLUICE_WORKERS");
	assert_false(LOAD("--admin-hosts=a,,b"));
	assert_string_equal(why.field, "--admin-hosts");
}

static void test_flags_that_are_none(void **state)
{
	(void)state;
	assert_false(LOAD("--nosuch"));
	assert_problem("--nosuch", "is not a known flag");
	assert_false(LOAD("--gateway-features", "{}"));
	assert_problem("--gateway-features", "is not a known flag");
	assert_false(LOAD("workers"));
	assert_problem("workers", "is not a flag");
	assert_false(LOAD("--data"));
	assert_problem("--data", "needs a value");
}

static void test_what_does_not_fit_together(void **state)
{
	(void)state;
	assert_false(LOAD("--admin", "0.0.0.0:1"));
	assert_problem("--admin", "is not a loopback address");
	assert_true(LOAD("--admin", "0.0.0.0:1", "--admin-insecure"));
	assert_true(LOAD("--admin", "127.9.9.9:1"));
	assert_true(LOAD("--admin", "[::1]:0"));
	assert_false(LOAD("--admin", "[::]:0"));
}

static void test_name_servers(void **state)
{
	(void)state;
	assert_true(LOAD("--dns-servers", "127.0.0.1"));
	assert_true(LOAD("--dns-servers", "127.0.0.1:53, [::1]:5353,::1"));
	assert_false(LOAD("--dns-servers", "127.0.0.1,ns.example.com"));
	assert_problem("--dns-servers", "\"ns.example.com\" is none");
	assert_false(LOAD("--dns-servers", ","));
}

static struct json *parse(const char *text)
{
	struct json *all = yaml_parse(&arena, str_of(text), &why);

	assert_non_null(all);
	assert_int_equal(all->n, 1);
	return all->child;
}

static void test_trees_are_checked(void **state)
{
	(void)state;
	assert_true(settings_check(parse("adminHosts: [a]\ngatewayFeatures: {xffTrustedNum: 2}\n"), &arena, &why));
	assert_false(settings_check(parse("nosuch: 2\n"), &arena, &why));
	assert_string_equal(why.field, "nosuch");
	assert_false(settings_check(parse("gatewayFeatures: {xffTrustedNum: 99}\n"), &arena, &why));
	assert_string_equal(why.field, "gatewayFeatures.xffTrustedNum");
	assert_false(settings_check(parse("gatewayFeatures: []\n"), &arena, &why));
	assert_string_equal(why.field, "gatewayFeatures");
}

static void test_lines_of_paths(void **state)
{
	const struct json *tree = parse("a:\n  b:\n    - x\n    - c: 1\n      d: 2\ne: 3\n");

	(void)state;
	assert_int_equal(json_find_line(tree, "a.b[1].d"), 5);
	assert_int_equal(json_find_line(tree, "a.b[0]"), 3);
	assert_int_equal(json_find_line(tree, "e"), 6);
	assert_int_equal(json_find_line(tree, ""), 1);
	/* What is not there: the innermost part that is. */
	assert_int_equal(json_find_line(tree, "a.b[1].nosuch"), 4);
	assert_int_equal(json_find_line(tree, "a.b[9].d"), 3);
	assert_int_equal(json_find_line(tree, "nosuch[0]"), 1);
	assert_int_equal(json_find_line(NULL, "a"), 1);
}

static void test_scalars(void **state)
{
	const struct json *tree = parse("i: 5\nn: -1.5\nt: true\nf: False\nz: ~\ns: \"5\"\np: 1.2.3.4\n"
					"d: 2024-01-01\nw: yes\ne:\n");

	(void)state;
	assert_int_equal(json_get(tree, "i")->type, JSON_INT);
	assert_int_equal(json_get(tree, "n")->type, JSON_REAL);
	assert_int_equal(json_get(tree, "t")->type, JSON_BOOL);
	assert_int_equal(json_get(tree, "f")->type, JSON_BOOL);
	assert_int_equal(json_get(tree, "z")->type, JSON_NULL);
	assert_int_equal(json_get(tree, "s")->type, JSON_STRING);
	assert_int_equal(json_get(tree, "p")->type, JSON_STRING);
	assert_int_equal(json_get(tree, "d")->type, JSON_STRING);
	assert_int_equal(json_get(tree, "w")->type, JSON_STRING);
	assert_int_equal(json_get(tree, "e")->type, JSON_NULL);
}

static void refuse_yaml(const char *text, const char *place)
{
	assert_null(yaml_parse(&arena, str_of(text), &why));
	assert_non_null(strstr(why.text, place));
}

static void test_yaml_that_is_refused(void **state)
{
	struct sbuf deep = { 0 };

	(void)state;
	refuse_yaml("a: 1\na: 2\n", "line 2, column 1: this name was given before");
	refuse_yaml("a: [1\n", "line 2");
	refuse_yaml("? [a]\n: 1\n", "line 1, column 3: a name must be a text");
	refuse_yaml("a: \"\\0\"\n", "line 1, column 4");
	refuse_yaml("a: &x 1\nb: *y\n", "line 2");
	for (int i = 0; i < 100; i++)
		sbuf_addc(&deep, '[');
	for (int i = 0; i < 100; i++)
		sbuf_addc(&deep, ']');
	refuse_yaml(deep.p, "nested too deeply");
	sbuf_free(&deep);
	/* Each alias counts for all it stands for: six levels of nine are 600,000 values. */
	refuse_yaml("a: &a [x,x,x,x,x,x,x,x,x]\n"
		    "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
		    "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
		    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
		    "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
		    "f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n", "too large");
}

static void test_names_are_spelt(void **state)
{
	char name[SETTING_NAME];

	(void)state;
	settings_spell("connectTimeoutMs", false, name);
	assert_string_equal(name, "connect-timeout-ms");
	settings_spell("connectTimeoutMs", true, name);
	assert_string_equal(name, "SLUICE_CONNECT_TIMEOUT_MS");
	/* Every row fits, variable included. */
	for (const struct field *f = settings_fields; f->type != FIELD_END; f++)
		assert_true(2 * strlen(f->name) + 8 < SETTING_NAME);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, clear, clear),
		cmocka_unit_test_setup_teardown(test_flags_of_each_type, clear, clear),
		cmocka_unit_test_setup_teardown(test_the_last_flag_wins, clear, clear),
		cmocka_unit_test_setup_teardown(test_variables, clear, clear),
		cmocka_unit_test_setup_teardown(test_complaints_name_who_gave_the_value, clear, clear),
		cmocka_unit_test_setup_teardown(test_flags_that_are_none, clear, clear),
		cmocka_unit_test_setup_teardown(test_what_does_not_fit_together, clear, clear),
		cmocka_unit_test_setup_teardown(test_name_servers, clear, clear),
		cmocka_unit_test_setup_teardown(test_trees_are_checked, clear, clear),
		cmocka_unit_test_setup_teardown(test_lines_of_paths, clear, clear),
		cmocka_unit_test_setup_teardown(test_scalars, clear, clear),
		cmocka_unit_test_setup_teardown(test_yaml_that_is_refused, clear, clear),
		cmocka_unit_test_setup_teardown(test_names_are_spelt, clear, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
