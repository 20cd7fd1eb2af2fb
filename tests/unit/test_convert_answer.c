/*
 * test_convert_answer.c -- whole answers and errors from one API to another.
 */
/* room: ai */
#include "convert_kit.h"

static const struct conversion chat_client = { .client = AI_CHAT, .upstream = AI_MESSAGES, .model = STR("m"),
	.created = 77 };
static const struct conversion messages_client = { .client = AI_MESSAGES, .upstream = AI_CHAT, .model = STR("m") };
static const struct conversion generation_client = {
	.client = AI_CHAT, .upstream = AI_GENERATION, .model = STR("qwen"), .created = 77
};

static void assert_body(const struct conversion *c, const char *doc, const char *wanted)
{
	const struct json *made = kit_body(c, kit_json(doc));

	if (!made)
		fail_msg("refused: %s", doc);
	kit_assert_equal(made, wanted);
}

static void assert_part(const struct conversion *c, const char *doc, const char *wanted)
{
	const struct json *made = kit_body(c, kit_json(doc));

	if (!made)
		fail_msg("refused: %s", doc);
	kit_assert_has(made, wanted);
}

static void test_message_to_chat(void **state)
{
	(void)state;
	assert_body(&chat_client, "{'id':'msg_1','type':'message','role':'assistant','model':'claude','content':["
		"{'type':'thinking','thinking':'hm','signature':'s'},{'type':'text','text':'a'},{"
		"'type':'text','text':'b'}],"
		"'stop_reason':'end_turn','stop_sequence':null,'usage':{'input_tokens':10,"
		"'cache_creation_input_tokens':3,"
		"'cache_read_input_tokens':100,'output_tokens':5}}",
		"{'id':'msg_1','object':'chat.completion','created':77,'model':'claude','choices':[{"
		"'index':0,'message':"
		"{'role':'assistant','content':'ab','refusal':null,'reasoning_content':'hm'},'logprobs':null,"
		"'finish_reason':'stop'}],'usage':{'prompt_tokens':113,'completion_tokens':5,'total_tokens':118,"
		"'prompt_tokens_details':{'cached_tokens':100}}}");
	assert_part(&chat_client, "{'type':'message','content':[]}",
		"{'model':'m','choices':[{'message':{'content':''}}],'usage':{'total_tokens':0}}");
}

static void test_tools_to_chat(void **state)
{
	const struct json *made = kit_body(&chat_client, kit_json(
		"{'id':'msg_1','type':'message','model':'claude','content':["
		"{'type':'tool_use','id':'toolu_1','name':'f','input':{'b':1.50,'a':[1]}},"
		"{'type':'tool_use','id':'toolu_2','name':'g','input':{}}],'stop_reason':'tool_use'}"));
	const struct json *calls;

	(void)state;
	kit_assert_has(made, "{'choices':[{'message':{'content':null},'finish_reason':'tool_calls'}]}");
	calls = json_get(json_get(json_get(made, "choices")->child, "message"), "tool_calls");
	kit_assert_has(calls, "[{'id':'toolu_1','type':'function','function':{'name':'f'}},"
		"{'id':'toolu_2','type':'function','function':{'name':'g','arguments':'{}'}}]");
	assert_string_equal(json_text(json_get(calls->child, "function"), "arguments").p, "{\"b\":1.50,\"a\":[1]}");
}

static void test_reasons(void **state)
{
	static const char *const to_chat[][2] = {
		{ "end_turn", "stop" }, { "stop_sequence", "stop" }, { "max_tokens", "length" },
			{ "tool_use", "tool_calls" },
		{ "refusal", "content_filter" }, { "pause_turn", "stop" }, { "model_context_window_exceeded",
			"length" },
		{ "something_new", "stop" },
	};
	static const char *const to_messages[][2] = {
		{ "stop", "end_turn" }, { "length", "max_tokens" }, { "content_filter", "refusal" },
		{ "something_new", "end_turn" },
	};
	char doc[200], wanted[200];

	(void)state;
	for (size_t i = 0; i < sizeof to_chat / sizeof to_chat[0]; i++) {
		snprintf(doc, sizeof doc, "{'type':'message','content':[],'stop_reason':'%s'}", to_chat[i][0]);
		snprintf(wanted, sizeof wanted, "{'choices':[{'finish_reason':'%s'}]}", to_chat[i][1]);
		assert_part(&chat_client, doc, wanted);
	}
	for (size_t i = 0; i < sizeof to_messages / sizeof to_messages[0]; i++) {
		snprintf(doc, sizeof doc, "{'choices':[{'message':{'content':'x'},'finish_reason':'%s'}]}",
			to_messages[i][0]);
		snprintf(wanted, sizeof wanted, "{'stop_reason':'%s','stop_sequence':null}", to_messages[i][1]);
		assert_part(&messages_client, doc, wanted);
	}
	assert_part(&messages_client, "{'choices':[{'message':{'content':'x'},'finish_reason':'stop',"
		"'stop_reason':'END'}]}",
		"{'stop_reason':'stop_sequence','stop_sequence':'END'}");
}

static void test_chat_to_message(void **state)
{
	(void)state;
	assert_body(&messages_client, "{'id':'chatcmpl-1','object':'chat.completion','model':'gpt',"
		"'choices':[{'index':0,"
		"'message':{'role':'assistant','content':'hi','reasoning_content':'hm','refusal':null},"
		"'finish_reason':'stop'}],"
		"'usage':{'prompt_tokens':110,'completion_tokens':5,'total_tokens':115,'prompt_tokens_details':"
		"{'cached_tokens':100}}}",
		"{'id':'chatcmpl-1','type':'message','role':'assistant','model':'gpt','content':[{'type':'thinking',"
		"'thinking':'hm','signature':''},{'type':'text','text':'hi'}],'stop_reason':'end_turn',"
		"'stop_sequence':null,"
		"'usage':{'input_tokens':10,'cache_creation_input_tokens':0,'cache_read_input_tokens':100,"
		"'output_tokens':5}}");
	/* A refusal in OpenAI's way; content as parts; no usage. */
	assert_part(&messages_client, "{'choices':[{'message':{'content':null,'refusal':'no'},"
		"'finish_reason':'stop'}]}",
		"{'model':'m','content':[{'type':'text','text':'no'}],'stop_reason':'refusal',"
		"'usage':{'input_tokens':0,'output_tokens':0}}");
	assert_part(&messages_client, "{'choices':[{'message':{'content':[{'type':'text','text':'a'},{'type':'text',"
		"'text':'b'}]}}]}", "{'content':[{'type':'text','text':'ab'}]}");
}

static void test_tools_to_message(void **state)
{
	(void)state;
	/* A forced call ends with "stop". */
	assert_part(&messages_client, "{'choices':[{'message':{'content':null,'tool_calls':["
		"{'id':'call_1','type':'function','function':{'name':'f','arguments':'{}'}},"
		"{'id':'call_2','type':'function','function':{'name':'g','arguments':''}},"
		"{'id':'call_3','type':'function','function':{'name':'h','arguments':'{cut'}}]},"
		"'finish_reason':'stop'}]}",
		"{'content':[{'type':'tool_use','id':'call_1','name':'f','input':{}},"
		"{'type':'tool_use','id':'call_2','name':'g','input':{}},"
		"{'type':'tool_use','id':'call_3','name':'h','input':{'INVALID_JSON':'{cut'}}],"
		"'stop_reason':'tool_use'}");
}

static void test_generation_to_chat(void **state)
{
	(void)state;
	assert_body(&generation_client, "{'output':{'choices':[{'finish_reason':'stop','message':{'role':'assistant',"
		"'content':'hi','reasoning_content':'hm'}}]},'usage':{'total_tokens':9,'input_tokens':4,"
		"'output_tokens':5,"
		"'prompt_tokens_details':{'cached_tokens':2}},'request_id':'r-1'}",
		"{'id':'r-1','object':'chat.completion','created':77,'model':'qwen','choices':[{'index':0,'message':"
		"{'role':'assistant','content':'hi','refusal':null,'reasoning_content':'hm'},'logprobs':null,"
		"'finish_reason':'stop'}],'usage':{'prompt_tokens':4,'completion_tokens':5,'total_tokens':9,"
		"'prompt_tokens_details':{'cached_tokens':2}}}");
	assert_part(&generation_client, "{'output':{'text':'old','finish_reason':'length'}}",
		"{'choices':[{'message':{'content':'old'},'finish_reason':'length'}]}");
	assert_part(&generation_client, "{'output':{'choices':[{'finish_reason':'stop','message':{"
		"'content':[{'text':'a'},"
		"{'text':'b'}]}}]}}", "{'choices':[{'message':{'content':'ab'}}]}");
	assert_part(&generation_client, "{'output':{'choices':[{'finish_reason':'tool_calls','message':{'content':'',"
		"'tool_calls':[{'id':'c1','type':'function','function':{'name':'f','arguments':'{}'}}]}}]}}",
		"{'choices':[{'message':{'content':null,'tool_calls':[{'id':'c1','type':'function','function':"
		"{'name':'f','arguments':'{}'}}]},'finish_reason':'tool_calls'}]}");
}

static void test_what_is_no_answer(void **state)
{
	static const char *const docs[] = {
		"{}", "[]", "5", "{'error':{'message':'x'}}", "{'type':'error','error':{}}", "{'type':'message'}",
		"{'type':'message','content':'x'}", "{'choices':[]}", "{'choices':{}}", "{'choices':[5]}",
		"{'choices':[{}]}", "{'choices':[{'message':'x'}]}", "{'output':{}}", "{'output':{'choices':[]}}",
		"{'code':'X','message':'y'}", "{'output':{'choices':[{'message':5}]}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof docs / sizeof docs[0]; i++) {
		assert_null(kit_body(&chat_client, kit_json(docs[i])));
		assert_null(kit_body(&messages_client, kit_json(docs[i])));
		assert_null(kit_body(&generation_client, kit_json(docs[i])));
	}
	assert_null(kit_body(&chat_client, NULL));
}

/* Members of the wrong type are as if they were not there. */
static void test_odd_answers(void **state)
{
	(void)state;
	assert_part(&chat_client, "{'type':'message','id':5,'model':[],'stop_reason':{},'usage':'x',"
		"'content':[5,'x',{},"
		"{'type':5},{'type':'text','text':7},{'type':'tool_use','id':1,'name':2,'input':'z'},{"
		"'type':'image'}]}",
		"{'model':'m','choices':[{'message':{'content':null,'tool_calls':[{'function':{'name':'',"
		"'arguments':'{}'}}]},"
		"'finish_reason':'stop'}],'usage':{'prompt_tokens':0}}");
	assert_part(&messages_client, "{'id':[],'choices':[{'message':{'content':{},'tool_calls':[5,{'function':7}],"
		"'refusal':1},'finish_reason':4}],'usage':[]}", "{'model':'m','stop_reason':'tool_use'}");
	assert_part(&messages_client, "{'choices':[{'message':{'tool_calls':{}}}],'usage':{'prompt_tokens':5,"
		"'prompt_tokens_details':{'cached_tokens':9}}}",
		"{'content':[],'stop_reason':'end_turn','usage':{'input_tokens':0,'cache_read_input_tokens':5}}");
}

static void assert_error(const struct conversion *c, int status, const char *body, const char *wanted)
{
	struct sbuf out = { 0 };

	convert_error(c, status, kit_text(body), &out);
	kit_assert_equal(kit_parse(sbuf_str(&out)), wanted);
	sbuf_free(&out);
}

static void test_errors(void **state)
{
	(void)state;
	assert_error(&chat_client, 429, "{'type':'error','error':{'type':'rate_limit_error','message':'slow'}}",
		"{'error':{'message':'slow','type':'rate_limit_error','param':null,'code':'rate_limit_exceeded'}}");
	assert_error(&chat_client, 400, "{'type':'error','error':{'type':'invalid_request_error','message':'bad'}}",
		"{'error':{'message':'bad','type':'invalid_request_error','param':null,'code':null}}");
	assert_error(&chat_client, 529, "{'type':'error','error':{'type':'overloaded_error','message':'Overloaded'}}",
		"{'error':{'message':'Overloaded','type':'api_error','param':null,'code':null}}");
	assert_error(&messages_client, 404, "{'error':{'message':'no','type':'x','param':'model',"
		"'code':'model_not_found'}}",
		"{'type':'error','error':{'type':'not_found_error','message':'no'}}");
	assert_error(&messages_client, 401, "{'error':'denied'}",
		"{'type':'error','error':{'type':'authentication_error','message':'denied'}}");
	assert_error(&generation_client, 401, "{'code':'InvalidApiKey','message':'key','request_id':'r'}",
		"{'error':{'message':'key','type':'authentication_error','param':null,'code':'InvalidApiKey'}}");
	assert_error(&messages_client, 502, "<html>Bad Gateway</html>", "{'type':'error','error':{'type':'api_error',"
		"'message':'the model service answered with status 502'}}");
	assert_error(&chat_client, 500, "", "{'error':{'message':'the model service answered with status 500',"
		"'type':'api_error','param':null,'code':null}}");
}

static void test_long_errors_are_cut_at_characters(void **state)
{
	struct sbuf body = { 0 }, out = { 0 };
	struct str message;

	(void)state;
	SBUF_LIT(&body, "{\"error\":{\"message\":\"x");
	for (int i = 0; i < 3000; i++)
		SBUF_LIT(&body, "\xc3\xa9");
	SBUF_LIT(&body, "\"}}");
	convert_error(&messages_client, 400, sbuf_str(&body), &out);
	message = json_text(json_get(kit_parse(sbuf_str(&out)), "error"), "message");
	assert_int_equal(message.n, 2047);
	assert_true(str_is_utf8(message));
	sbuf_free(&body);
	sbuf_free(&out);
}

static void test_round_trip_of_answers(void **state)
{
	const struct json *doc = kit_json("{'id':'i','object':'chat.completion','created':77,'model':'x',"
		"'choices':[{'index':0,"
		"'message':{'role':'assistant','content':'t\xf0\x9f\x98\x80\\n\\u0001','refusal':null,"
		"'reasoning_content':'hm',"
		"'tool_calls':[{'id':'call_7','type':'function','function':{'name':'f','arguments':'{}'}}]},"
		"'logprobs':null,"
		"'finish_reason':'tool_calls'}],'usage':{'prompt_tokens':7,'completion_tokens':2,'total_tokens':9,"
		"'prompt_tokens_details':{'cached_tokens':3}}}");
	const struct json *middle = kit_body(&messages_client, doc);

	(void)state;
	assert_non_null(middle);
	assert_true(json_equal(kit_body(&chat_client, middle), doc));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KIT_TEST(test_message_to_chat), KIT_TEST(test_tools_to_chat), KIT_TEST(test_reasons),
		KIT_TEST(test_chat_to_message), KIT_TEST(test_tools_to_message), KIT_TEST(test_generation_to_chat),
		KIT_TEST(test_what_is_no_answer), KIT_TEST(test_odd_answers), KIT_TEST(test_errors),
		KIT_TEST(test_long_errors_are_cut_at_characters), KIT_TEST(test_round_trip_of_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
