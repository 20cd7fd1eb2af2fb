/* room: ai */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include "ai/prompt.h"

static struct arena arena;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static struct prompt take(enum ai_kind kind, const char *text)
{
	struct problem why = { 0 };
	struct prompt p;
	const struct json *body = json_parse_spans(&arena, str_of(text), 10000, &why);

	if (!body)
		fail_msg("%s: %s", text, why.text);
	prompt_read(&p, &arena, kind, body);
	return p;
}

/* "s-:be nice|u0:hello": role and message of each text; '!' where it is of the last turn. */
static const char *shown(const struct prompt *p)
{
	struct sbuf out = { 0 };
	const char *copy;

	for (unsigned i = 0; i < p->n; i++) {
		const struct prompt_text *t = &p->texts[i];

		sbuf_addf(&out, "%s%c", i ? "|" : "", "suat"[t->role]);
		if (t->message == PROMPT_OUTSIDE)
			sbuf_addc(&out, '-');
		else
			sbuf_addf(&out, "%u", t->message);
		sbuf_addf(&out, "%s%.*s", t->is_last_turn ? "!" : ":", STR_FMT(t->text->string));
	}
	copy = arena_copy(&arena, sbuf_str(&out)).p;
	sbuf_free(&out);
	return copy;
}

static struct prompt check(enum ai_kind kind, const char *text, const char *expected)
{
	struct prompt p = take(kind, text);

	assert_string_equal(shown(&p), expected);
	return p;
}

static void reads_chats(void **state)
{
	struct prompt p = check(AI_CHAT,
		"{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"one\"},"
		"{\"role\":\"assistant\",\"content\":\"two\",\"tool_calls\":[{\"id\":\"c\"}]},"
		"{\"role\":\"tool\",\"content\":\"three\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
		"\"text\":\"four\"},"
		"{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}},{\"type\":\"text\",\"text\":\"five\"}]}]}",
		"s0!S|u1:one|a2:two|t3!three|u4!four|u4!five");

	(void)state;
	assert_int_equal(p.n_messages, 5);
	assert_int_equal(p.n_user_messages, 2);
	assert_int_equal(p.last_role, PROMPT_USER);
	assert_true(p.has_other_parts);
	assert_true(p.has_tool_messages);
	assert_non_null(json_get(p.last_message, "content"));
	assert_true(str_equal(prompt_last_question(&p, &arena), STR("four\nfive")));
	assert_true(str_equal(prompt_join(&p, &arena, PROMPT_USER), STR("one\nfour\nfive")));
	assert_true(str_equal(prompt_join(&p, &arena, -1), STR("S\none\ntwo\nthree\nfour\nfive")));
	assert_null(prompt_join(&(struct prompt){ 0 }, &arena, -1).p);
	/* 3 + 1 + 3 + 5 + 4 + 4 letters */
	assert_int_equal(prompt_estimate(&p), 5);
	check(AI_CHAT, "{\"messages\":[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"function\","
		"\"content\":\"f\"},"
	      "{\"role\":\"else\",\"content\":\"e\"},{\"content\":\"n\"}]}", "s0!d|t1!f|u2!e|u3!n");
}

static void knows_questions_that_go_on(void **state)
{
	struct prompt p = check(AI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
		"{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":\"f\"}}]}", "u0:q");

	(void)state;
	assert_int_equal(p.last_role, PROMPT_ASSISTANT);
	assert_true(p.has_tool_messages);
	assert_true(str_equal(prompt_last_question(&p, &arena), STR("q")));
}

static void reads_completions_and_embeddings(void **state)
{
	struct prompt p = check(AI_COMPLETIONS, "{\"prompt\":\"a\"}", "u0!a");

	(void)state;
	assert_int_equal(p.last_role, PROMPT_USER);
	assert_null(p.last_message);
	p = check(AI_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"]}", "u0!a|u1!b");
	assert_int_equal(p.n_user_messages, 2);
	p = check(AI_COMPLETIONS, "{\"prompt\":[1,2,3]}", "");
	assert_int_equal(p.n_messages, 0);
	check(AI_COMPLETIONS, "{\"prompt\":[[1,2],[3]]}", "");
	check(AI_EMBEDDINGS, "{\"input\":\"a\"}", "u0!a");
	check(AI_EMBEDDINGS, "{\"input\":[\"a\",\"b\"]}", "u0!a|u1!b");
	check(AI_EMBEDDINGS, "{\"input\":[15339,1917]}", "");
	p = check(AI_EMBEDDINGS, "{\"input\":[{\"text\":\"a\"},{\"image\":\"data:x\"}]}", "u0!a");
	assert_true(p.has_other_parts);
}

static void reads_responses(void **state)
{
	struct prompt p = check(AI_RESPONSES, "{\"instructions\":\"be nice\",\"input\":\"hi\"}", "s-!be nice|u0!hi");

	(void)state;
	assert_int_equal(p.n_messages, 1);
	p = check(AI_RESPONSES, "{\"input\":[{\"role\":\"user\",\"content\":\"one\"},"
		"{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\","
			"\"text\":\"two\"}]},"
		"{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"three\"},"
		"{\"type\":\"input_image\",\"image_url\":\"x\"}]}]}", "u0:one|a1:two|u2!three");
	assert_true(p.has_other_parts);
	assert_false(p.has_tool_messages);
	p = check(AI_RESPONSES, "{\"input\":[{\"role\":\"user\",\"content\":\"q\"},{\"type\":\"reasoning\","
		"\"summary\":[]},"
		"{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{}\"},"
		"{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":\"result\"}]}", "u0:q|t3!result");
	assert_int_equal(p.last_role, PROMPT_TOOL);
	assert_true(p.has_tool_messages);
	check(AI_RESPONSES, "{\"input\":[\"x\",{\"type\":\"new\",\"text\":\"y\"},{\"type\":\"new\","
		"\"content\":[{\"text\":\"z\"}]}]}",
	      "u0!x|u1!y|u2!z");
}

static void reads_anthropic(void **state)
{
	struct prompt p = check(AI_MESSAGES, "{\"system\":\"S\",\"messages\":[{\"role\":\"user\","
		"\"content\":\"q\"}]}", "s-!S|u0!q");

	(void)state;
	p = check(AI_MESSAGES, "{\"system\":[{\"type\":\"text\",\"text\":\"S\",\"cache_control\":{}},"
		"{\"type\":\"text\",\"text\":\"T\"}],"
		"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"},"
		"{\"type\":\"image\",\"source\":{}}]},"
		"{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"t\"},"
		"{\"type\":\"text\",\"text\":\"a\"},"
		"{\"type\":\"tool_use\",\"id\":\"u\",\"name\":\"f\",\"input\":{}}]},"
		"{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"u\",\"content\":\"r\"},"
		"{\"type\":\"tool_result\",\"content\":[{\"type\":\"text\",\"text\":\"s\"},{\"type\":\"image\"}]},"
		"{\"type\":\"text\",\"text\":\"more\"}]}]}", "s-!S|s-!T|u0:q|a1:a|t2!r|t2!s|u2!more");
	assert_int_equal(p.last_role, PROMPT_TOOL);
	assert_int_equal(p.n_user_messages, 1);
	assert_int_equal(p.n_messages, 3);
	assert_true(p.has_tool_messages);
	assert_true(p.has_other_parts);
	assert_true(str_equal(prompt_last_question(&p, &arena), STR("more")));
}

static void reads_dashscope(void **state)
{
	struct prompt p = check(AI_GENERATION, "{\"model\":\"m\",\"input\":{\"messages\":[{\"role\":\"system\","
		"\"content\":\"S\"},"
		"{\"role\":\"user\",\"content\":[{\"image\":\"x\"},{\"text\":\"q\"}]}]}}", "s0!S|u1!q");

	(void)state;
	assert_true(p.has_other_parts);
	check(AI_GENERATION, "{\"input\":{\"prompt\":\"q\"}}", "u0!q");
	check(AI_APP, "{\"input\":{\"prompt\":\"q\",\"session_id\":\"s\"}}", "u0!q");
	check(AI_APP, "{\"input\":{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}}", "u0!q");
}

static void reads_dify(void **state)
{
	struct prompt p = check(AI_DIFY_CHAT, "{\"inputs\":{},\"query\":\"q\",\"user\":\"u\"}", "u0!q");

	(void)state;
	assert_int_equal(p.n_messages, 1);
	p = check(AI_DIFY_CHAT, "{\"inputs\":{\"tone\":\"rude\",\"n\":1},\"query\":\"q\",\"files\":[{}]}",
		"u0!rude|u1!q");
	assert_true(p.has_other_parts);
	assert_true(str_equal(prompt_last_question(&p, &arena), STR("q")));
	p = check(AI_DIFY_COMPLETION, "{\"inputs\":{\"query\":\"q\",\"lang\":\"en\"}}", "u0!en|u1!q");
	assert_true(str_equal(prompt_last_question(&p, &arena), STR("q")));
	check(AI_DIFY_WORKFLOW, "{\"inputs\":{\"a\":\"x\",\"b\":{\"c\":[\"y\",2]}}}", "u0!x|u0!y");
}

/* Nothing of it is what the kind says; something of it may be a text. */
static void reads_what_can_be_read(void **state)
{
	static const char *const bodies[] = { "null", "[]", "\"x\"", "{}", "{\"messages\":null,\"input\":7,"
		"\"prompt\":{},\"inputs\":[],"
		"\"query\":1,\"system\":[1,null,[]],\"files\":{}}", "{\"messages\":[null,1,\"x\",[],{},"
		"{\"role\":1,\"content\":7}],"
		"\"input\":[null,1,[],{},{\"type\":7}],\"prompt\":[null,{},[[]]]}",
			"{\"input\":{\"messages\":[{}],\"prompt\":[]}}" };

	(void)state;
	for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
		for (int kind = 0; kind < AI_KIND_COUNT; kind++)
			assert_int_equal(take((enum ai_kind)kind, bodies[i]).n, 0);
	check(AI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[\"a\",null,{\"type\":\"text\",\"text\":7},"
		"{\"text\":\"b\"}]}]}",
	      "u0!a|u0!b");
}

static void keeps_many_texts(void **state)
{
	struct sbuf body = { 0 };
	struct prompt p;

	(void)state;
	SBUF_LIT(&body, "{\"messages\":[");
	for (int i = 0; i < 1000; i++)
		sbuf_addf(&body, "%s{\"role\":\"user\",\"content\":\"%d\"}", i ? "," : "", i);
	SBUF_LIT(&body, "]}");
	p = take(AI_CHAT, body.p);
	sbuf_free(&body);
	assert_int_equal(p.n, 1000);
	assert_int_equal(p.n_user_messages, 1000);
	assert_string_equal(p.texts[999].text->string.p, "999");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(reads_chats, stop),
		cmocka_unit_test_teardown(knows_questions_that_go_on, stop),
		cmocka_unit_test_teardown(reads_completions_and_embeddings, stop),
		cmocka_unit_test_teardown(reads_responses, stop),
		cmocka_unit_test_teardown(reads_anthropic, stop),
		cmocka_unit_test_teardown(reads_dashscope, stop),
		cmocka_unit_test_teardown(reads_dify, stop),
		cmocka_unit_test_teardown(reads_what_can_be_read, stop),
		cmocka_unit_test_teardown(keeps_many_texts, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
