/*
 * test_answer.c -- what each API says of an answer: text, reasoning, tool calls, usage, ends and errors; whole bodies.
 */
/* room: ai */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ai/answer.h"
#include "core/budget.h"

static struct arena arena;
static struct answer answer;

static const struct json *parse(const char *text)
{
	struct problem why = { 0 };
	const struct json *doc = json_parse(&arena, str_of(text), &why);

	if (!doc)
		fail_msg("%s: %s", text, why.text);
	return doc;
}

static void start(enum ai_kind kind)
{
	answer_free(&answer);
	answer = (struct answer){ .kind = kind, .wants = ANSWER_TEXT };
}

static unsigned event(const char *data)
{
	struct sse_event e = { .data = str_of(data), .has_data = true };

	return answer_take_event(&answer, &e, data[0] == '{' ? parse(data) : NULL);
}

static unsigned body(const char *text)
{
	return answer_take_body(&answer, parse(text));
}

static void check(const struct sbuf *is, const char *wanted)
{
	if (!str_equal(sbuf_str(is), str_of(wanted)))
		fail_msg("%.*s, not %s", STR_FMT(*is), wanted);
}

static void check_tool(unsigned at, const char *id, const char *name, const char *arguments)
{
	assert_true(at < answer.n_tools);
	check(&answer.tools[at].id, id);
	check(&answer.tools[at].name, name);
	check(&answer.tools[at].arguments, arguments);
}

/* input, output, total, cached, reasoning; -1 = not said */
static void check_usage(int64_t input, int64_t output, int64_t total, int64_t cached, int64_t reasoning)
{
	const struct { enum usage_field field; int64_t wanted; } of[] = {
		{ USAGE_INPUT, input }, { USAGE_OUTPUT, output }, { USAGE_CACHED, cached },
		{ USAGE_REASONING, reasoning },
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		bool has = answer.usage.has & 1U << of[i].field;

		assert_int_equal(has ? answer.usage.of[of[i].field] : -1, of[i].wanted);
	}
	assert_int_equal(usage_total(&answer.usage, answer.kind), total);
}

static void openai_chat_stream(void **state)
{
	(void)state;
	start(AI_CHAT);
	assert_int_equal(event("{\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":"
			       "{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}"), 0);
	assert_int_equal(event("{\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"why\"}}]}"),
			 ANSWER_HOLDS_CONTENT);
	assert_int_equal(event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}"), ANSWER_HOLDS_CONTENT);
	assert_int_equal(event("{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"other\"}}]}"),
			 ANSWER_HOLDS_CONTENT);
	event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":null}]}");
	assert_int_equal(event("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}"), 0);
	assert_int_equal(event("{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,"
			       "\"total_tokens\":12,\"prompt_tokens_details\":{\"cached_tokens\":2},"
			       "\"completion_tokens_details\":{\"reasoning_tokens\":3}}}"),
			 ANSWER_HOLDS_USAGE | ANSWER_HOLDS_USAGE_ONLY);
	assert_false(answer.is_complete);
	assert_int_equal(event("[DONE]"), ANSWER_HOLDS_END);
	assert_true(answer.is_complete);
	assert_false(answer.has_error);
	check(&answer.id, "c1");
	check(&answer.model, "m");
	check(&answer.finish_reason, "stop");
	check(&answer.text, "Hello");
	check(&answer.reasoning, "why");
	assert_int_equal(answer.n_choices, 2);
	check_usage(5, 7, 12, 2, 3);
	/* "why", "Hel", "other", "lo": 13 characters. */
	assert_int_equal(usage_estimate_tokens(&answer.said), 4);
}

static void chunks_that_are_only_usage(void **state)
{
	static const char *const only[] = {
		"{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}",
		"{\"choices\":null,\"usage\":{\"prompt_tokens\":1}}",
		"{\"usage\":{\"prompt_tokens\":1}}",
	};
	static const char *const not_only[] = {
		"{\"choices\":[],\"usage\":null}",
		"{\"choices\":[],\"prompt_filter_results\":[]}",
		"{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}",
		"{\"choices\":[],\"usage\":{}}",
	};

	(void)state;
	start(AI_CHAT);
	for (size_t i = 0; i < sizeof(only) / sizeof(only[0]); i++)
		assert_true(event(only[i]) & ANSWER_HOLDS_USAGE_ONLY);
	for (size_t i = 0; i < sizeof(not_only) / sizeof(not_only[0]); i++)
		assert_false(event(not_only[i]) & ANSWER_HOLDS_USAGE_ONLY);
	start(AI_RESPONSES);
	assert_false(event("{\"usage\":{\"input_tokens\":1}}") & ANSWER_HOLDS_USAGE_ONLY);
}

static void openai_tool_calls_interleaved(void **state)
{
	(void)state;
	start(AI_CHAT);
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":"
	      "{\"name\":\"f\",\"arguments\":\"{\\\"x\\\"\"}}]}}]}");
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\","
	      "\"arguments\":\"\"}}]}}]}");
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\"}},"
	      "{\"index\":0,\"function\":{\"arguments\":\":1\"}}]}}]}");
	assert_int_equal(event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":"
			       "{\"arguments\":\"}\"}}]}}]}"), ANSWER_HOLDS_CONTENT);
	assert_int_equal(answer.n_tools, 2);
	check_tool(0, "a", "f", "{\"x\":1}");
	check_tool(1, "b", "g", "{}");
	assert_int_equal(answer.said.ascii, 9);
}

/* Servers that do not number calls, or number all of them 0; names that are said again; the old single call. */
static void tool_calls_of_lesser_servers(void **state)
{
	(void)state;
	start(AI_CHAT);
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\","
	      "\"arguments\":\"1\"}}]}}]}");
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"2\"}}]}}]}");
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"b\",\"function\":{\"name\":\"f\","
	      "\"arguments\":\"3\"}}]}}]}");
	assert_int_equal(answer.n_tools, 2);
	check_tool(0, "a", "f", "12");
	check_tool(1, "b", "f", "3");
	start(AI_CHAT);
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\","
	      "\"arguments\":\"1\"}}]}}]}");
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"g\","
	      "\"arguments\":\"2\"}}]}}]}");
	event("{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"g\","
	      "\"arguments\":\"3\"}}]}}]}");
	assert_int_equal(answer.n_tools, 2);
	check_tool(0, "a", "f", "1");
	check_tool(1, "b", "g", "23");
	start(AI_CHAT);
	event("{\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"f\",\"arguments\":\"1\"}}}]}");
	event("{\"choices\":[{\"delta\":{\"function_call\":{\"arguments\":\"2\"}}}]}");
	assert_int_equal(answer.n_tools, 1);
	check_tool(0, "", "f", "12");
}

static void openai_bodies(void **state)
{
	(void)state;
	start(AI_CHAT);
	assert_int_equal(body("{\"id\":\"c1\",\"model\":\"m-2\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
			      "\"assistant\",\"content\":\"Hi\",\"reasoning\":\"r\",\"tool_calls\":[{\"id\":\"a\","
			      "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"b\",\"function\":"
			      "{\"name\":\"g\",\"arguments\":\"[]\"}}]},\"finish_reason\":\"tool_calls\"}],"
			      "\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":22,\"total_tokens\":33,"
			      "\"prompt_cache_hit_tokens\":4}}"),
			 ANSWER_HOLDS_CONTENT | ANSWER_HOLDS_USAGE | ANSWER_HOLDS_END);
	check(&answer.text, "Hi");
	check(&answer.reasoning, "r");
	check(&answer.finish_reason, "tool_calls");
	assert_int_equal(answer.n_tools, 2);
	check_tool(1, "b", "g", "[]");
	check_usage(11, 22, 33, 4, -1);
	start(AI_CHAT);
	body("{\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
	     "\"text\":\"b\"}]}}]}");
	check(&answer.text, "ab");
	start(AI_COMPLETIONS);
	body("{\"choices\":[{\"text\":\"one\",\"index\":0,\"finish_reason\":\"length\"},{\"text\":\"two\",\"inde"
	     "x\":1}],"
	     "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}");
	check(&answer.text, "one");
	check_usage(1, 2, 3, -1, -1);
	assert_int_equal(answer.said.ascii, 6);
	start(AI_EMBEDDINGS);
	assert_int_equal(body("{\"model\":\"e\",\"data\":[{\"embedding\":[0.1]}],\"usage\":{\"prompt_tokens\":8,"
			      "\"total_tokens\":8}}"), ANSWER_HOLDS_USAGE | ANSWER_HOLDS_END);
	check_usage(8, 0, 8, -1, -1);
	assert_false(answer.has_content);
	start(AI_NONE);
	body("{\"results\":[],\"usage\":{\"total_tokens\":79}}");
	check_usage(-1, -1, 79, -1, -1);
}

static void openai_responses(void **state)
{
	(void)state;
	start(AI_RESPONSES);
	event("{\"type\":\"response.created\",\"response\":{\"id\":\"r1\",\"model\":\"m\",\"usage\":null}}");
	event("{\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"reasoning\"}}");
	event("{\"type\":\"response.reasoning_summary_text.delta\",\"output_index\":0,\"delta\":\"hm\"}");
	event("{\"type\":\"response.output_item.added\",\"output_index\":1,\"item\":{\"type\":\"message\"}}");
	assert_int_equal(event("{\"type\":\"response.output_text.delta\",\"output_index\":1,\"delta\":\"Hel\"}"),
			 ANSWER_HOLDS_CONTENT);
	event("{\"type\":\"response.output_text.delta\",\"output_index\":1,\"delta\":\"lo\"}");
	assert_int_equal(event("{\"type\":\"response.output_text.done\",\"output_index\":1,\"text\":\"Hello\"}"), 0);
	event("{\"type\":\"response.output_item.added\",\"output_index\":2,\"item\":{\"type\":\"function_call\","
	      "\"call_id\":\"a\",\"name\":\"f\",\"arguments\":\"\"}}");
	event("{\"type\":\"response.function_call_arguments.delta\",\"output_index\":2,\"delta\":\"{\\\"x\\\":\"}");
	event("{\"type\":\"response.function_call_arguments.delta\",\"output_index\":2,\"delta\":\"1}\"}");
	event("{\"type\":\"response.output_item.done\",\"output_index\":2,\"item\":{\"type\":\"function_call\","
	      "\"call_id\":\"a\",\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}");
	assert_int_equal(event("{\"type\":\"response.completed\",\"response\":{\"id\":\"r1\",\"status\":\"completed\","
			       "\"output\":[{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":"
			       "\"Hello\"}]}],\"error\":null,\"usage\":{\"input_tokens\":3,\"output_tokens\":4,"
			       "\"total_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":1},"
			       "\"output_tokens_details\":{\"reasoning_tokens\":2}}}}"),
			 ANSWER_HOLDS_USAGE | ANSWER_HOLDS_END);
	check(&answer.id, "r1");
	check(&answer.text, "Hello");
	check(&answer.reasoning, "hm");
	assert_int_equal(answer.n_tools, 1);
	check_tool(0, "a", "f", "{\"x\":1}");
	check_usage(3, 4, 7, 1, 2);
	assert_int_equal(answer.said.ascii, 2 + 5 + 7);
	assert_false(answer.has_error);
	/* One that says nothing before the end. */
	start(AI_RESPONSES);
	event("{\"type\":\"response.completed\",\"response\":{\"output\":[{\"type\":\"message\",\"content\":[{\"type\":"
	      "\"output_text\",\"text\":\"All\"}]}]}}");
	check(&answer.text, "All");
	start(AI_RESPONSES);
	assert_true(event("{\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"x\"}}}") &
		    ANSWER_HOLDS_ERROR);
	assert_true(answer.is_complete && answer.has_error);
	start(AI_RESPONSES);
	event("{\"type\":\"response.incomplete\",\"response\":{\"status\":\"incomplete\"}}");
	assert_true(answer.is_complete && !answer.has_error);
	start(AI_RESPONSES);
	body("{\"id\":\"r\",\"model\":\"m\",\"status\":\"completed\",\"error\":null,\"output\":[{\"type\":\"reas"
	     "oning\","
	     "\"summary\":[{\"type\":\"summary_text\",\"text\":\"s\"}]},{\"type\":\"message\",\"content\":[{\"type\":"
	     "\"output_text\",\"text\":\"t\"}]},{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"n\","
	     "\"arguments\":\"{}\"}],\"usage\":{\"input_tokens\":1,\"output_tokens\":2,\"total_tokens\":3}}");
	check(&answer.text, "t");
	check(&answer.reasoning, "s");
	check_tool(0, "c", "n", "{}");
	check_usage(1, 2, 3, -1, -1);
	assert_false(answer.has_error);
}

static void anthropic(void **state)
{
	(void)state;
	start(AI_MESSAGES);
	assert_int_equal(event("{\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"model\":\"claude\",\"c"
			       "ontent\":"
			       "[],\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":100,"
			       "\"cache_creation_input_tokens\":0,\"output_tokens\":1}}}"), ANSWER_HOLDS_USAGE);
	assert_int_equal(event("{\"type\":\"ping\"}"), 0);
	event("{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking"
	      "\":\"\"}}");
	event("{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\""
	      ":\"hm\"}}");
	event("{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":"
	      "\"x\"}}");
	event("{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}");
	assert_int_equal(event("{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\","
			       "\"text\":\"Hi\"}}"), ANSWER_HOLDS_CONTENT);
	event("{\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"tool_use\",\"id\":\"tu\","
	      "\"name\":\"f\",\"input\":{}}}");
	event("{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":"
	      "\"{\\\"a\\\":\"}}");
	event("{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":"
	      "\"2}\"}}");
	event("{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":5}}");
	assert_false(answer.is_complete);
	assert_int_equal(event("{\"type\":\"message_stop\"}"), ANSWER_HOLDS_END);
	check(&answer.text, "Hi");
	check(&answer.reasoning, "hm");
	check(&answer.finish_reason, "tool_use");
	check_tool(0, "tu", "f", "{\"a\":2}");
	check_usage(10, 5, 115, 100, -1);
	start(AI_MESSAGES);
	body("{\"id\":\"m\",\"model\":\"c\",\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}"
	     ",{\"type\":"
	     "\"tool_use\",\"id\":\"t\",\"name\":\"n\",\"input\":{\"k\":[1,2]}}],\"stop_reason\":\"tool_use\",\""
	     "usage\":"
	     "{\"input_tokens\":1,\"output_tokens\":2,\"cache_creation_input_tokens\":3}}");
	check(&answer.text, "a");
	check_tool(0, "t", "n", "{\"k\":[1,2]}");
	check_usage(1, 2, 6, -1, -1);
	start(AI_MESSAGES);
	assert_int_equal(event("{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}"),
			 ANSWER_HOLDS_ERROR);
}

/* Each event holds what comes next. */
static void dashscope_in_pieces(void **state)
{
	(void)state;
	start(AI_GENERATION);
	event("{\"output\":{\"choices\":[{\"message\":{\"content\":\"Hel\",\"reasoning_content\":\"\"},\"finish_"
	      "reason\":"
	      "\"null\"}]},\"usage\":{\"input_tokens\":3,\"output_tokens\":1,\"total_tokens\":4},\"request_id\":"
	      "\"q\"}");
	assert_int_equal(event("{\"output\":{\"choices\":[{\"message\":{\"content\":\"lo\"},\"finish_reason\":\""
			       "null\"}]},"
			       "\"usage\":{\"input_tokens\":3,\"output_tokens\":2,\"total_tokens\":5}}"),
			 ANSWER_HOLDS_CONTENT | ANSWER_HOLDS_USAGE);
	assert_false(answer.is_complete);
	assert_int_equal(event("{\"output\":{\"choices\":[{\"message\":{\"content\":\"\"},\"finish_reason\":\"st"
			       "op\"}]},"
			       "\"usage\":{\"input_tokens\":3,\"output_tokens\":2,\"total_tokens\":5}}"),
			 ANSWER_HOLDS_USAGE | ANSWER_HOLDS_END);
	check(&answer.text, "Hello");
	check(&answer.id, "q");
	check(&answer.finish_reason, "stop");
	check_usage(3, 2, 5, -1, -1);
}

/* Each event holds all of it so far, as DashScope does where it is not told otherwise. */
static void dashscope_cumulative(void **state)
{
	(void)state;
	for (unsigned wants = 0; wants < 2; wants++) {
		start(AI_GENERATION);
		answer.wants = wants;
		event("{\"output\":{\"text\":\"H\",\"finish_reason\":\"null\"}}");
		event("{\"output\":{\"text\":\"Hel\",\"finish_reason\":\"null\"}}");
		event("{\"output\":{\"text\":\"Hello\",\"finish_reason\":\"null\"}}");
		event("{\"output\":{\"text\":\"Hello\",\"finish_reason\":\"stop\"}}");
		check(&answer.text, wants ? "Hello" : "");
		assert_int_equal(answer.said.ascii, 5);
		assert_true(answer.is_complete);
	}
	/* Whole after one piece. */
	start(AI_APP);
	event("{\"output\":{\"text\":\"Hi\",\"finish_reason\":\"null\"}}");
	event("{\"output\":{\"text\":\"Hi\",\"finish_reason\":\"stop\"}}");
	check(&answer.text, "Hi");
	/* Pieces that look alike. */
	start(AI_APP);
	event("{\"output\":{\"text\":\"ha\"}}");
	event("{\"output\":{\"text\":\"ha\"}}");
	event("{\"output\":{\"text\":\"haha\"}}");
	check(&answer.text, "hahahaha");
	start(AI_APP);
	answer.pieces = ANSWER_INCREMENTAL;
	event("{\"output\":{\"text\":\"1\"}}");
	event("{\"output\":{\"text\":\"10\"}}");
	check(&answer.text, "110");
	/* Tool calls are told so as well. */
	start(AI_GENERATION);
	event("{\"output\":{\"choices\":[{\"message\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{"
	      "\"name\":"
	      "\"f\",\"arguments\":\"{\"}}]},\"finish_reason\":\"null\"}]}}");
	event("{\"output\":{\"choices\":[{\"message\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{"
	      "\"name\":"
	      "\"f\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}}");
	check_tool(0, "a", "f", "{}");
}

static void dashscope_bodies(void **state)
{
	(void)state;
	start(AI_GENERATION);
	body("{\"output\":{\"choices\":[{\"message\":{\"content\":[{\"text\":\"a\"},{\"text\":\"b\"}]},\"finish_"
	     "reason\":"
	     "\"stop\"}]},\"usage\":{\"input_tokens\":1,\"output_tokens\":2,\"prompt_tokens_details\":"
	     "{\"cached_tokens\":1}},\"request_id\":\"q\"}");
	check(&answer.text, "ab");
	check_usage(1, 2, 3, 1, -1);
	start(AI_APP);
	body("{\"output\":{\"text\":\"x\",\"finish_reason\":\"stop\",\"session_id\":\"s\"},\"usage\":{\"models\":"
	     "[{\"input_tokens\":5,\"output_tokens\":6},{\"input_tokens\":7,\"output_tokens\":8}]}}");
	check(&answer.text, "x");
	check_usage(12, 14, 26, -1, -1);
	start(AI_APP);
	assert_true(body("{\"code\":\"InvalidApiKey\",\"message\":\"m\",\"request_id\":\"q\"}") & ANSWER_HOLDS_ERROR);
	start(AI_GENERATION);
	assert_true(event("{\"code\":\"Throttling\",\"message\":\"m\"}") & ANSWER_HOLDS_ERROR);
}

static void dify(void **state)
{
	(void)state;
	start(AI_DIFY_CHAT);
	event("{\"event\":\"workflow_started\",\"data\":{}}");
	assert_int_equal(event("{\"event\":\"message\",\"message_id\":\"d\",\"answer\":\"He\"}"), ANSWER_HOLDS_CONTENT);
	event("{\"event\":\"message\",\"answer\":\"y\"}");
	assert_false(event("{\"event\":\"workflow_finished\",\"data\":{\"status\":\"succeeded\",\"total_tokens\":9,"
			   "\"outputs\":{\"answer\":\"Hey\"}}}") & ANSWER_HOLDS_END);
	assert_int_equal(event("{\"event\":\"message_end\",\"metadata\":{\"usage\":{\"prompt_tokens\":4,"
			       "\"completion_tokens\":5,\"total_tokens\":9}}}"), ANSWER_HOLDS_USAGE | ANSWER_HOLDS_END);
	check(&answer.text, "Hey");
	check(&answer.id, "d");
	check_usage(4, 5, 9, -1, -1);
	event("{\"event\":\"message_replace\",\"answer\":\"No.\"}");
	check(&answer.text, "No.");
	start(AI_DIFY_COMPLETION);
	body("{\"event\":\"message\",\"message_id\":\"d\",\"answer\":\"A\",\"metadata\":{\"usage\":{\"prompt_tok"
	     "ens\":1,"
	     "\"completion_tokens\":2,\"total_tokens\":3}}}");
	check(&answer.text, "A");
	check_usage(1, 2, 3, -1, -1);
	start(AI_DIFY_WORKFLOW);
	event("{\"event\":\"text_chunk\",\"data\":{\"text\":\"ab\"}}");
	assert_int_equal(event("{\"event\":\"workflow_finished\",\"data\":{\"status\":\"succeeded\",\"total_tokens\":6,"
			       "\"outputs\":{\"text\":\"ab\"},\"error\":null}}"),
			 ANSWER_HOLDS_USAGE | ANSWER_HOLDS_END);
	check(&answer.text, "ab");
	check_usage(-1, -1, 6, -1, -1);
	start(AI_DIFY_WORKFLOW);
	body("{\"workflow_run_id\":\"w\",\"data\":{\"status\":\"succeeded\",\"outputs\":{\"a\":1,\"b\":\"c\"},"
	     "\"total_tokens\":2}}");
	check(&answer.text, "{\"a\":1,\"b\":\"c\"}");
	assert_false(answer.has_error);
	start(AI_DIFY_CHAT);
	assert_int_equal(event("{\"event\":\"error\",\"code\":\"x\",\"message\":\"m\",\"status\":400}"),
			 ANSWER_HOLDS_ERROR | ANSWER_HOLDS_END);
	start(AI_DIFY_WORKFLOW);
	assert_true(event("{\"event\":\"workflow_finished\",\"data\":{\"status\":\"failed\",\"error\":\"x\"}}") &
		    ANSWER_HOLDS_ERROR);
}

static void errors(void **state)
{
	struct sse_event named = { .type = STR("error"), .data = STR("oops"), .has_data = true };

	(void)state;
	start(AI_CHAT);
	assert_int_equal(event("{\"error\":{\"message\":\"x\"}}"), ANSWER_HOLDS_ERROR);
	start(AI_CHAT);
	assert_int_equal(event("{\"error\":null,\"choices\":[]}"), 0);
	start(AI_CHAT);
	assert_int_equal(answer_take_event(&answer, &named, NULL), ANSWER_HOLDS_ERROR);
	assert_true(answer.has_error);
	start(AI_CHAT);
	assert_true(body("{\"error\":\"text\"}") & ANSWER_HOLDS_ERROR);
	/* What is not understood is nothing. */
	start(AI_CHAT);
	assert_int_equal(event("{\"choices\":{\"a\":1}}"), 0);
	assert_int_equal(event("{\"choices\":[1,null,[],{\"delta\":3}]}"), 0);
	assert_int_equal(event("{\"choices\":[{\"delta\":{\"content\":1,\"tool_calls\":[1]}}],\"usage\":7}"), 0);
	assert_int_equal(answer_take_body(&answer, NULL), 0);
	assert_false(answer.is_complete);
}

/* USE-1: the last value that is one counts, for each field. */
static void usage_is_merged_by_field(void **state)
{
	static const char *const bad[] = { "-1", "1.5", "9007199254740993", "1e300", "\"7\"", "null", "[]", "true" };

	(void)state;
	start(AI_MESSAGES);
	event("{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}");
	event("{\"type\":\"message_delta\",\"usage\":{\"input_tokens\":null,\"output_tokens\":5}}");
	check_usage(10, 5, 15, -1, -1);
	start(AI_CHAT);
	event("{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":8}}");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[100];

		snprintf(text, sizeof(text), "{\"usage\":{\"prompt_tokens\":%s}}", bad[i]);
		assert_int_equal(event(text), 0);
		check_usage(7, 8, 15, -1, -1);
	}
	event("{\"usage\":{\"prompt_tokens\":9007199254740992,\"completion_tokens\":1e3}}");
	check_usage(INT64_C(9007199254740992), 1000, INT64_C(9007199254741992), -1, -1);
	/* Cumulative totals: never a sum. */
	start(AI_CHAT);
	for (int i = 0; i < 10; i++)
		event("{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":3,"
		      "\"completion_tokens\":4,\"total_tokens\":7}}");
	check_usage(3, 4, 7, -1, -1);
}

static void details(void **state)
{
	struct usage u = { 0 };

	(void)state;
	assert_null(usage_input_details(&u, &arena).p);
	assert_null(usage_output_details(&u, &arena).p);
	u.of[USAGE_CACHED] = 100;
	u.of[USAGE_REASONING] = 3;
	u.has = 1U << USAGE_CACHED | 1U << USAGE_REASONING;
	assert_true(str_equal(usage_input_details(&u, &arena), STR("{\"cached_tokens\":100}")));
	assert_true(str_equal(usage_output_details(&u, &arena), STR("{\"reasoning_tokens\":3}")));
	u.has |= 1U << USAGE_CACHE_CREATION;
	assert_true(str_equal(usage_input_details(&u, &arena),
			      STR("{\"cached_tokens\":100,\"cache_creation_tokens\":0}")));
}

static void estimates_do_not_depend_on_cuts(void **state)
{
	static const char text[] = "abcde\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80";

	(void)state;
	for (size_t cut = 0; cut < sizeof(text); cut++) {
		struct usage_estimate e = { 0 };

		usage_estimate_add(&e, (struct str){ text, cut });
		usage_estimate_add(&e, (struct str){ text + cut, sizeof(text) - 1 - cut });
		assert_int_equal(usage_estimate_tokens(&e), 2 + 3);
	}
}

/* What an answer may take of memory. */
static void what_is_kept_is_bounded(void **state)
{
	static char chunk[70000];
	struct sbuf data = { 0 };

	(void)state;
	start(AI_CHAT);
	memset(chunk, 'x', 65535);
	sbuf_addf(&data, "{\"choices\":[{\"delta\":{\"content\":\"%s\xc3\xa9\"}}]}", chunk);
	for (int i = 0; i < 40; i++) {
		event(data.p);
		arena_free(&arena);
	}
	assert_true(answer.is_cut);
	assert_true(answer.text.n <= ANSWER_MAX && answer.text.n > ANSWER_MAX - 4);
	assert_true(str_is_utf8(sbuf_str(&answer.text)));
	assert_int_equal(answer.said.ascii, 40 * 65535);
	assert_int_equal(answer.said.others, 40);
	assert_true(budget.used >= (int64_t)answer.text.n && budget.used <= 4 * ANSWER_MAX);
	start(AI_CHAT);
	for (int i = 0; i < 1000; i++) {
		data.n = 0;
		sbuf_addf(&data, "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":%d,\"function\":{\"arguments\":"
			  "\"1234\"}}]}}]}", i);
		event(data.p);
	}
	assert_int_equal(answer.n_tools, ANSWER_TOOLS_MAX);
	assert_int_equal(answer.said.ascii, 4000);
	start(AI_CHAT);
	answer.wants = ANSWER_NOTHING;
	event("{\"choices\":[{\"delta\":{\"content\":\"text\"}}]}");
	assert_int_equal(answer.text.n, 0);
	assert_int_equal(answer.said.ascii, 4);
	sbuf_free(&data);
}

/* For guards: what one event adds, without an answer to gather it. */
static void text_of_one_event(void **state)
{
	struct sse_event e = { .has_data = true };
	struct sbuf out = { 0 };

	(void)state;
	answer_event_text(AI_CHAT, &e, parse("{\"choices\":[{\"delta\":{\"reasoning_content\":\"r\",\"content\":\"c\","
					     "\"tool_calls\":[{\"function\":{\"arguments\":\"a\"}}]}},"
					     "{\"index\":1,\"delta\":{\"content\":\"d\"}}]}"), &out);
	check(&out, "rcad");
	out.n = 0;
	answer_event_text(AI_MESSAGES, &e, parse("{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\","
						 "\"text\":\"t\"}}"), &out);
	answer_event_text(AI_RESPONSES, &e, parse("{\"type\":\"response.output_text.delta\",\"delta\":\"u\"}"), &out);
	answer_event_text(AI_DIFY_CHAT, &e, parse("{\"event\":\"message\",\"answer\":\"v\"}"), &out);
	answer_event_text(AI_CHAT, &e, NULL, &out);
	check(&out, "tuv");
	out.n = 0;
	answer_body_text(AI_MESSAGES, parse("{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_use\","
					    "\"input\":{\"k\":\"b\"}}]}"), &out);
	check(&out, "a{\"k\":\"b\"}");
	sbuf_free(&out);
}

static int give_back(void **state)
{
	(void)state;
	answer_free(&answer);
	answer = (struct answer){ 0 };
	arena_free(&arena);
	return budget.used != 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(openai_chat_stream, give_back),
		cmocka_unit_test_teardown(chunks_that_are_only_usage, give_back),
		cmocka_unit_test_teardown(openai_tool_calls_interleaved, give_back),
		cmocka_unit_test_teardown(tool_calls_of_lesser_servers, give_back),
		cmocka_unit_test_teardown(openai_bodies, give_back),
		cmocka_unit_test_teardown(openai_responses, give_back),
		cmocka_unit_test_teardown(anthropic, give_back),
		cmocka_unit_test_teardown(dashscope_in_pieces, give_back),
		cmocka_unit_test_teardown(dashscope_cumulative, give_back),
		cmocka_unit_test_teardown(dashscope_bodies, give_back),
		cmocka_unit_test_teardown(dify, give_back),
		cmocka_unit_test_teardown(errors, give_back),
		cmocka_unit_test_teardown(usage_is_merged_by_field, give_back),
		cmocka_unit_test_teardown(details, give_back),
		cmocka_unit_test_teardown(estimates_do_not_depend_on_cuts, give_back),
		cmocka_unit_test_teardown(what_is_kept_is_bounded, give_back),
		cmocka_unit_test_teardown(text_of_one_event, give_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
