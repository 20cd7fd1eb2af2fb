/* room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/field.h"

/* One table with every kind of row. */
static const struct choice behaviors[] = {
	{ 0, NULL, "answers" , NULL },
	{ 1, NULL, "redirects", NULL },
	{ .doc = NULL },
};
static const struct choice schemes[] = {
	{ 1, "Http", "plain", "HTTP_OLD" },
	{ 2, "Https", "with TLS", NULL },
	{ .doc = NULL },
};

struct limits {
	int64_t perSecond;
	double factor;
};
static const struct field limits_fields[] = {
	INT(struct limits, perSecond, REQUIRED, RANGE(1, 2147483647), DOC("requests a second")),
	NUMBER(struct limits, factor, RANGE(0, 1), DEFAULT("0.5"), DOC("share")),
	FIELDS_END
};

struct rule {
	struct str key;
	int64_t weight;
	struct limits limits;
};
static const struct field rule_fields[] = {
	TEXT(struct rule, key, REQUIRED, RANGE(1, 8), DOC("name")),
	INT(struct rule, weight, RANGE(1, 100), DOC("weight")),
	OBJECT(struct rule, limits, limits_fields, DOC("limits")),
	FIELDS_END
};

struct refusal {
	int behaviorType;
	struct str redirectUrl;
};
static const struct field refusal_fields[] = {
	CHOICE(struct refusal, behaviorType, behaviors, REQUIRED, DOC("what is done")),
	TEXT(struct refusal, redirectUrl, WHEN("behaviorType", 1), DOC("where to")),
	FIELDS_END
};

struct thing {
	bool enable;
	bool has_quota;
	struct refusal refusal;
	int scheme;
	struct limits quota;
	struct items rules, hosts, modes, passwords;
	struct str password, note, pin, template;
	int64_t id;
	const struct json *extra;
	struct str status;
	struct str certificate;
};

static bool check_host(struct str host, struct problem *why)
{
	if (str_find(host, '.') == host.n)
		return problem(why, "elsewhere", "must have a dot, not \"%.*s\"", STR_FMT(host));
	return true;
}

static const struct field thing_fields[] = {
	BOOL(struct thing, enable, REQUIRED, DOC("on")),
	INLINE(struct thing, refusal, refusal_fields),
	CHOICE(struct thing, scheme, schemes, ANY_CASE, DEFAULT("\"Http\""), DOC("scheme | kind")),
	OBJECT(struct thing, quota, limits_fields, PRESENT(struct thing, has_quota), DOC("quota")),
	LIST(struct thing, rules, struct rule, rule_fields, RANGE(1, 3), REQUIRED, DOC("rules")),
	TEXTS(struct thing, hosts, FORMAT(check_host), TEXT_MAX(12), EXAMPLE("[\"a.b\"]"), DOC("hosts")),
	CHOICES(struct thing, modes, schemes, ANY_CASE, DOC("modes")),
	TEXT(struct thing, password, SECRET_STAYS, RANGE(8, 64), DOC("password")),
	TEXTS(struct thing, passwords, SECRET_SENT_TO("id"), FORMAT(check_host), EXAMPLE("[\"a.b\"]"),
	      DOC("more of them")),
	TEXT(struct thing, note, DEFAULT("\"none\""), DOC("note")),
	TEXT(struct thing, pin, RANGE(4, 4), DOC("exactly four")),
	TEXT(struct thing, template, EMPTY_OK, DOC("template")),
	INT(struct thing, id, UNIT("things"), DOC("id")),
	ANY(struct thing, extra, DOC("anything")),
	TEXT(struct thing, status, READ_ONLY, REQUIRED, DOC("made by us")),
	TEXT(struct thing, certificate, WHEN("scheme", 2), IMMUTABLE, REFERS("certificate"), DOC("for TLS")),
	FIELDS_END
};

#define REST "\"enable\":true,\"behaviorType\":0,\"rules\":[{\"key\":\"a\"}]"

static struct arena arena;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static struct json *parse(const char *text)
{
	struct problem why = { 0 };
	struct json *v = json_parse(&arena, str_of(text), &why);

	if (!v)
		fail_msg("%s: %s", text, why.text);
	return v;
}

static struct thing decoded(const char *text)
{
	struct thing t = { 0 };
	struct problem why = { 0 };

	if (!fields_decode(thing_fields, parse(text), &t, &arena, &why))
		fail_msg("%s: %s: %s", text, why.field, why.text);
	return t;
}

static void assert_refused(const char *json, const char *field, const char *text)
{
	struct thing t = { 0 };
	struct problem why = { 0 };

	if (fields_decode(thing_fields, parse(json), &t, &arena, &why))
		fail_msg("accepted: %s", json);
	assert_string_equal(why.field, field);
	assert_string_equal(why.text, text);
}

static const char *written(const struct json *v)
{
	struct sbuf out = { 0 };

	json_write(&out, v);
	const char *copy = arena_copy(&arena, sbuf_str(&out)).p;
	sbuf_free(&out);
	return copy;
}

static void decodes_every_type(void **state)
{
	struct thing t = decoded("{\"enable\":true,\"behaviorType\":1,\"redirectUrl\":\"/x\",\"scheme\":\"HTTPS\","
		"\"quota\":{\"perSecond\":7},\"rules\":[{\"key\":\"a\",\"weight\":100},{\"key\":\"b\",\"limits\":"
		"{\"perSecond\":1,\"factor\":1}}],\"hosts\":[\"a.b\",\"c.d\"],\"modes\":[\"https\",\"http_old\"],"
		"\"password\":\"12345678\",\"pin\":\"0000\",\"template\":\"\",\"id\":9007199254740993,"
		"\"extra\":{\"x\":[1]},\"certificate\":\"c\"}");

	(void)state;
	assert_true(t.enable);
	assert_int_equal(t.refusal.behaviorType, 1);
	assert_true(str_equal(t.refusal.redirectUrl, STR("/x")));
	assert_int_equal(t.scheme, 2);
	assert_true(t.has_quota);
	assert_int_equal(t.quota.perSecond, 7);
	assert_true(t.quota.factor > 0.49 && t.quota.factor < 0.51);
	assert_int_equal(t.rules.n, 2);
	assert_int_equal(ITEM(t.rules, struct rule, 0)->weight, 100);
	assert_int_equal(ITEM(t.rules, struct rule, 1)->limits.perSecond, 1);
	assert_int_equal(t.hosts.n, 2);
	assert_true(str_equal(*ITEM(t.hosts, struct str, 1), STR("c.d")));
	assert_int_equal(t.modes.n, 2);
	assert_int_equal(*ITEM(t.modes, int, 0), 2);
	assert_int_equal(*ITEM(t.modes, int, 1), 1);
	assert_true(t.id == INT64_C(9007199254740993));
	assert_true(str_equal(t.note, STR("none")));
	assert_non_null(t.template.p);
	assert_int_equal(json_get(t.extra, "x")->n, 1);
}

static void fills_defaults_and_leaves_the_rest_absent(void **state)
{
	struct thing t = decoded("{" REST ",\"redirectUrl\":\"\",\"note\":null,\"hosts\":null,\"scheme\":\"\"}");

	(void)state;
	assert_int_equal(t.scheme, 1);
	assert_false(t.has_quota);
	assert_null(t.refusal.redirectUrl.p);
	assert_null(t.template.p);
	assert_null(t.hosts.items);
	assert_null(t.extra);
	assert_true(str_equal(t.note, STR("none")));
}

static void complains_about_unknown_members_first(void **state)
{
	(void)state;
	assert_refused("{\"treshold\":1}", "treshold",
		"unknown field; known here are enable, behaviorType, redirectUrl, scheme, quota, rules, hosts, "
			"modes, password, "
		"passwords, note, pin, template, id, extra, status, certificate");
	assert_refused("{\"enabled\":1}", "enabled", "unknown field; did you mean \"enable\"?");
	assert_refused("{\"redirectURL\":1}", "redirectURL", "unknown field; did you mean \"redirectUrl\"?");
	assert_refused("{\"enable\":7,\"rules\":[{},{\"limits\":{\"persecond\":1}}]}", "rules[1].limits.persecond",
		"unknown field; did you mean \"perSecond\"?");
	assert_refused("{\"e\\n\\u0001\":1}", "e??",
		"unknown field; known here are enable, behaviorType, redirectUrl, scheme, quota, rules, hosts, "
			"modes, password, "
		"passwords, note, pin, template, id, extra, status, certificate");
	assert_refused("[]", "", "must be an object, not a list");
}

static void complains_in_table_order(void **state)
{
	(void)state;
	assert_refused("{\"rules\":1,\"behaviorType\":9}", "enable", "is required");
	assert_refused("{\"rules\":1,\"behaviorType\":9,\"enable\":true}", "behaviorType",
		"must be one of 0, 1, not 9");
	assert_refused("{\"rules\":1,\"behaviorType\":0,\"enable\":true}", "rules", "must be a list, not 1");
}

static void names_value_and_remedy(void **state)
{
	(void)state;
	assert_refused("{\"enable\":\"true\"}", "enable", "must be true or false, not \"true\"");
	assert_refused("{\"enable\":true,\"behaviorType\":\"0\"}", "behaviorType", "must be one of 0, 1, not \"0\"");
	assert_refused("{" REST ",\"scheme\":\"ftp\"}", "scheme", "must be one of \"Http\", \"Https\", not \"ftp\"");
	assert_refused("{" REST ",\"scheme\":1}", "scheme", "must be one of \"Http\", \"Https\", not 1");
	assert_refused("{" REST ",\"quota\":{\"perSecond\":0}}", "quota.perSecond",
		"must be an integer between 1 and 2147483647, not 0");
	assert_refused("{" REST ",\"quota\":{\"perSecond\":2147483648}}", "quota.perSecond",
		"must be an integer between 1 and 2147483647, not 2147483648");
	assert_refused("{" REST ",\"quota\":{\"perSecond\":1.0}}", "quota.perSecond",
		"must be an integer between 1 and 2147483647, not 1.0");
	assert_refused("{" REST ",\"quota\":{\"perSecond\":1,\"factor\":1.5}}", "quota.factor",
		"must be a number between 0 and 1, not 1.5");
	assert_refused("{" REST ",\"quota\":[]}", "quota", "must be an object, not a list");
	assert_refused("{" REST ",\"id\":9223372036854775808}", "id", "must be an integer, not 9223372036854775808");
	assert_refused("{" REST ",\"note\":5}", "note", "must be a string, not 5");
	assert_refused("{" REST ",\"pin\":\"123\"}", "pin", "must be exactly 4 bytes long, not 3");
	assert_refused("{\"enable\":true,\"behaviorType\":0,\"rules\":[]}", "rules",
		"must have between 1 and 3 items, not 0");
	assert_refused("{\"enable\":true,\"behaviorType\":0,\"rules\":[{\"key\":\"a\"},{\"key\":\"\"}]}",
		"rules[1].key",
		"must not be empty");
	assert_refused("{\"enable\":true,\"behaviorType\":0,\"rules\":[{\"key\":\"123456789\"}]}", "rules[0].key",
		"must be at most 8 bytes long, not 9");
	assert_refused("{" REST ",\"hosts\":[\"a.b\",\"\"]}", "hosts[1]", "must not be empty");
	assert_refused("{" REST ",\"hosts\":[\"a.b\",7]}", "hosts[1]", "must be a string, not 7");
	assert_refused("{" REST ",\"hosts\":[\"1234567890.12\"]}", "hosts[0]", "must be at most 12 bytes long, not 13");
	assert_refused("{" REST ",\"hosts\":[\"ab\"]}", "hosts[0]", "must have a dot, not \"ab\"");
	assert_refused("{" REST ",\"modes\":[\"Http\",\"x\"]}", "modes[1]",
		"must be one of \"Http\", \"Https\", not \"x\"");
}

static void cuts_long_values(void **state)
{
	struct thing t = { 0 };
	struct problem why = { 0 };
	struct json *v = parse("{" REST "}");

	(void)state;
	json_put(&arena, v, "scheme", json_new_text(&arena, arena_printf(&arena, "%0200d", 7)));
	assert_false(fields_decode(thing_fields, v, &t, &arena, &why));
	assert_non_null(strstr(why.text, "000...\""));
	assert_true(strlen(why.text) < 120);
}

static void refuses_nul_in_texts(void **state)
{
	struct thing t = { 0 };
	struct problem why = { 0 };
	struct json *v = parse("{" REST "}");

	(void)state;
	json_put(&arena, v, "note", json_new_text(&arena, (struct str){ "a\0b", 3 }));
	assert_false(fields_decode(thing_fields, v, &t, &arena, &why));
	assert_string_equal(why.field, "note");
}

static void never_shows_secrets(void **state)
{
	(void)state;
	assert_refused("{" REST ",\"password\":1234567890}", "password", "must be a string");
	assert_refused("{" REST ",\"password\":\"short\"}", "password", "must be between 8 and 64 bytes long, not 5");
	assert_refused("{" REST ",\"passwords\":[\"a.b\",\"topsecret\"]}", "passwords[1]", "is not valid");
}

static void asks_for_conditional_members(void **state)
{
	(void)state;
	assert_refused("{\"enable\":true,\"behaviorType\":1,\"rules\":[{\"key\":\"a\"}]}", "redirectUrl",
		"is required when behaviorType is 1");
	assert_refused("{\"enable\":true,\"behaviorType\":1,\"redirectUrl\":\"\"}", "redirectUrl",
		"must not be empty when behaviorType is 1");
	assert_refused("{" REST ",\"scheme\":\"https\"}", "certificate", "is required when scheme is \"Https\"");
	decoded("{" REST ",\"redirectUrl\":\"/x\"}");
	assert_refused("{" REST ",\"redirectUrl\":7}", "redirectUrl", "must be a string, not 7");
}

static void encodes_what_decodes_again(void **state)
{
	static const char *const texts[] = {
		"{\"enable\":true,\"behaviorType\":0,\"scheme\":\"Http\",\"rules\":[{\"key\":\"a\"}],"
			"\"note\":\"none\",\"id\":0}",
		"{\"enable\":false,\"behaviorType\":1,\"redirectUrl\":\"/\",\"scheme\":\"Https\","
			"\"quota\":{\"perSecond\":3,"
		"\"factor\":0.25},\"rules\":[{\"key\":\"k\",\"weight\":4,\"limits\":{\"perSecond\":1,"
			"\"factor\":0}},{\"key\":\"l\"}],"
		"\"hosts\":[\"a.b\"],\"modes\":[\"Https\"],\"note\":\"n\",\"pin\":\"1234\",\"template\":\"\",\"id\":-5,"
		"\"extra\":[1.50,{}],\"certificate\":\"c\"}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		struct thing t = decoded(texts[i]);

		assert_string_equal(written(fields_encode(thing_fields, &t, &arena)), texts[i]);
	}
	struct thing t = decoded("{" REST ",\"password\":\"12345678\"}");
	assert_null(json_get(fields_encode(thing_fields, &t, &arena), "password"));
}

static void examples_decode(void **state)
{
	struct json *few = fields_example(thing_fields, false, &arena), *all = fields_example(thing_fields,
		true, &arena);

	(void)state;
	decoded(written(few));
	decoded(written(all));
	assert_string_equal(written(few), "{\"enable\":true,\"behaviorType\":0,\"rules\":[{\"key\":\"example\"}]}");
	assert_int_equal(all->n, 16);         /* everything but what is read only */
}

static void note_row(void *arg, const char *path, const struct field *row)
{
	assert_non_null(row->name);
	sbuf_addf(arg, "%s ", path);
}

static void walks_all_rows(void **state)
{
	struct sbuf out = { 0 };

	(void)state;
	fields_walk(thing_fields, note_row, &out);
	assert_string_equal(out.p,
		"enable behaviorType redirectUrl scheme quota quota.perSecond quota.factor rules rules[].key "
		"rules[].weight rules[].limits rules[].limits.perSecond rules[].limits.factor hosts modes "
			"password passwords note "
		"pin template id extra status certificate ");
	sbuf_free(&out);
}

static struct json *mask(void *arg, const char *path, struct json *value)
{
	sbuf_addf(arg, "%s=%s ", path, value->string.p);
	if (str_equal(value->string, STR("gone")))
		return NULL;
	return json_new_text(&arena, STR("***"));
}

static void changes_secrets_only(void **state)
{
	struct json *v = parse("{\"note\":\"n\",\"password\":\"p\",\"passwords\":[\"q\",\"gone\",\"r\"],\"id\":1}");
	struct sbuf seen = { 0 };

	(void)state;
	fields_secrets(thing_fields, v, mask, &seen);
	assert_string_equal(written(v),
		"{\"note\":\"n\",\"password\":\"***\",\"passwords\":[\"***\",\"***\"],\"id\":1}");
	assert_string_equal(seen.p, "password=p passwords[]=q passwords[]=gone passwords[]=r ");
	v = parse("{\"passwords\":[\"gone\"],\"password\":\"gone\"}");
	fields_secrets(thing_fields, v, mask, &seen);
	assert_string_equal(written(v), "{}");
	assert_null(v->last);
	sbuf_free(&seen);
}

static bool begins_with_s(struct str value)
{
	return str_starts(value, STR("s"));
}

struct source {
	struct str keys;
};
static const struct field source_fields[] = {
	TEXT(struct source, keys, REQUIRED, SECRET_IF(begins_with_s), DOC("keys")),
	FIELDS_END
};

static void some_values_are_secrets(void **state)
{
	struct source source = { STR("secret") };
	struct json *v = parse("{\"keys\":\"secret\"}");
	struct sbuf seen = { 0 };
	struct problem why;

	(void)state;
	assert_string_equal(written(fields_encode(source_fields, &source, &arena)), "{}");
	source.keys = STR("public");
	assert_string_equal(written(fields_encode(source_fields, &source, &arena)), "{\"keys\":\"public\"}");
	fields_secrets(source_fields, v, mask, &seen);
	assert_string_equal(written(v), "{\"keys\":\"***\"}");
	fields_secrets(source_fields, parse("{\"keys\":\"public\"}"), mask, &seen);
	assert_string_equal(seen.p, "keys=secret ");
	assert_false(fields_decode(source_fields, parse("{\"keys\":[\"secret\"]}"), &source, &arena, &why));
	assert_null(strstr(why.text, "secret"));
	sbuf_free(&seen);
}

static void describes_itself_as_schema(void **state)
{
	struct json *s = fields_schema(thing_fields, &arena), *p = json_get(s, "properties");

	(void)state;
	assert_string_equal(written(json_get(s, "required")), "[\"enable\",\"behaviorType\",\"rules\"]");
	assert_string_equal(written(json_get(s, "additionalProperties")), "false");
	assert_string_equal(written(json_get(s, "allOf")),
		"[{\"if\":{\"properties\":{\"behaviorType\":{\"const\":1}},\"required\":[\"behaviorType\"]},"
		"\"then\":{\"required\":[\"redirectUrl\"]}},"
		"{\"if\":{\"properties\":{\"scheme\":{\"const\":\"Https\"}},\"required\":[\"scheme\"]},"
		"\"then\":{\"required\":[\"certificate\"]}}]");
	assert_string_equal(written(json_get(json_get(json_get(p, "quota"), "properties"), "perSecond")),
		"{\"type\":\"integer\",\"format\":\"int64\",\"minimum\":1,\"maximum\":2147483647,"
		"\"description\":\"requests a second\"}");
	assert_string_equal(written(json_get(json_get(p, "scheme"), "enum")), "[\"Http\",\"Https\"]");
	assert_true(json_is_true(json_get(p, "password"), "writeOnly"));
	assert_true(json_is_true(json_get(p, "status"), "readOnly"));
	assert_string_equal(written(json_get(json_get(json_get(p, "hosts"), "items"), "maxLength")), "12");
}

static void describes_itself_as_manual(void **state)
{
	struct sbuf out = { 0 };

	(void)state;
	fields_manual(thing_fields, &out);
	assert_non_null(strstr(out.p, "| `enable` | bool | yes |  |  | on |\n"));
	assert_non_null(strstr(out.p, "| `redirectUrl` | string | when behaviorType is 1 |  |  | where to |\n"));
	assert_non_null(strstr(out.p, "| ├ `perSecond` | int | yes | 1 – 2147483647 |  | requests a second |\n"));
	assert_non_null(strstr(out.p, "| `scheme` | string | no | `Http`, `Https` | `\"Http\"` | scheme \\| kind "
		"(`Http`: plain; `Https`: with TLS) |\n"));
	assert_non_null(strstr(out.p, "| ├ ├ `factor` | number | no | 0 – 1 | `0.5` | share |\n"));
	sbuf_free(&out);
}

static void names_in_the_manual_what_ids_are_of(void **state)
{
	struct ids { struct str environment, gateway, other; };
	static const struct field rows[] = {
		TEXT(struct ids, environment, REFERS("environment"), DOC("Where.")),
		TEXT(struct ids, gateway, REFERS("gateway"), DOC("Which.")),
		TEXT(struct ids, other, REFERS("httpApi"), DOC("Id of the REST API.")),
		FIELDS_END
	};
	struct sbuf out = { 0 };

	(void)state;
	fields_manual(rows, &out);
	assert_non_null(strstr(out.p, "| Where. Id of an environment. |\n"));
	assert_non_null(strstr(out.p, "| Which. Id of a gateway. |\n"));
	assert_non_null(strstr(out.p, "| Id of the REST API. |\n"));
	sbuf_free(&out);
}

static void finds_choices(void **state)
{
	(void)state;
	assert_int_equal(choice_find(schemes, STR("Http"), false)->value, 1);
	assert_int_equal(choice_find(schemes, STR("HTTP_OLD"), false)->value, 1);
	assert_null(choice_find(schemes, STR("http"), false));
	assert_int_equal(choice_find(schemes, STR("hTTPS"), true)->value, 2);
	assert_string_equal(choice_text(schemes, 2), "Https");
	assert_null(choice_text(schemes, 3));
	assert_null(choice_text(behaviors, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(decodes_every_type, stop),
		cmocka_unit_test_teardown(fills_defaults_and_leaves_the_rest_absent, stop),
		cmocka_unit_test_teardown(complains_about_unknown_members_first, stop),
		cmocka_unit_test_teardown(complains_in_table_order, stop),
		cmocka_unit_test_teardown(names_value_and_remedy, stop),
		cmocka_unit_test_teardown(cuts_long_values, stop),
		cmocka_unit_test_teardown(refuses_nul_in_texts, stop),
		cmocka_unit_test_teardown(never_shows_secrets, stop),
		cmocka_unit_test_teardown(asks_for_conditional_members, stop),
		cmocka_unit_test_teardown(encodes_what_decodes_again, stop),
		cmocka_unit_test_teardown(examples_decode, stop),
		cmocka_unit_test_teardown(walks_all_rows, stop),
		cmocka_unit_test_teardown(changes_secrets_only, stop),
		cmocka_unit_test_teardown(some_values_are_secrets, stop),
		cmocka_unit_test_teardown(describes_itself_as_schema, stop),
		cmocka_unit_test_teardown(describes_itself_as_manual, stop),
		cmocka_unit_test_teardown(names_in_the_manual_what_ids_are_of, stop),
		cmocka_unit_test_teardown(finds_choices, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
