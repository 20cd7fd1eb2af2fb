/*
 * test_convert_request.c -- requests from one API to another: each member that has a counterpart, what is left out,
 * what is refused and by which name.
 */
/* room: ai */
#include "convert_kit.h"

static struct conversion to_messages(void)
{
	return (struct conversion){ .client = AI_CHAT, .upstream = AI_MESSAGES, .model = STR("m") };
}

static struct conversion to_chat(const char *model)
{
	return (struct conversion){ .client = AI_MESSAGES, .upstream = AI_CHAT, .model = str_of(model) };
}

static struct conversion to_generation(void)
{
	return (struct conversion){ .client = AI_CHAT, .upstream = AI_GENERATION, .model = STR("qwen-max") };
}

static void assert_request(struct conversion c, const char *body, const char *wanted)
{
	struct problem why = { 0 };
	const struct json *made = kit_request(&c, kit_json(body), &why);

	if (!made)
		fail_msg("refused: %s: %s\n%s", why.field, why.text, body);
	kit_assert_equal(made, wanted);
}

static void assert_part(struct conversion c, const char *body, const char *wanted)
{
	struct problem why = { 0 };
	const struct json *made = kit_request(&c, kit_json(body), &why);

	if (!made)
		fail_msg("refused: %s: %s\n%s", why.field, why.text, body);
	kit_assert_has(made, wanted);
}

static void assert_refused(struct conversion c, const char *body, const char *field)
{
	struct problem why = { 0 };

	if (kit_request(&c, kit_json(body), &why))
		fail_msg("not refused: %s", body);
	assert_string_equal(why.field, field);
	assert_true(why.text[0] != '\0');
}

/* ---- OpenAI to Anthropic ---- */

#define HI "'messages':[{'role':'user','content':'hi'}]"
#define MADE_HI "'messages':[{'role':'user','content':[{'type':'text','text':'hi'}]}]"

static void test_simple_chat(void **state)
{
	(void)state;
	assert_request(to_messages(), "{'model':'x'," HI "}", "{'model':'m','max_tokens':8192," MADE_HI "}");
	assert_request(to_messages(),
		"{" HI ",'max_tokens':5,'temperature':0.5,'top_p':0.9,'top_k':3,'stop':'END','user':'u1','stream':true,"
		"'stream_options':{'include_usage':true},'n':1,'logprobs':false,'seed':7,"
		"'presence_penalty':0.5,'store':true,"
		"'reasoning_effort':'low','service_tier':'auto','metadata':{'a':'b'},'modalities':['text'],"
		"'logit_bias':{}}",
		"{'model':'m','max_tokens':5," MADE_HI ",'stop_sequences':['END'],'temperature':0.5,"
		"'top_p':0.9,'top_k':3,"
		"'stream':true,'metadata':{'user_id':'u1'}}");
	assert_part(to_messages(), "{" HI ",'max_tokens':5,'max_completion_tokens':6,'stop':['a','b'],"
		"'temperature':1.7}",
		"{'max_tokens':6,'stop_sequences':['a','b'],'temperature':1}");
	/* null is as if absent */
	assert_request(to_messages(), "{" HI ",'max_tokens':null,'stop':null,'temperature':null,'tools':null,"
		"'user':null,"
		"'stream':null,'response_format':null,'tool_choice':null,'n':null}", "{'model':'m',"
		"'max_tokens':8192," MADE_HI "}");
}

static void test_stream_wishes(void **state)
{
	struct conversion c = to_messages();

	(void)state;
	assert_non_null(kit_request(&c, kit_json("{" HI ",'stream':true,'stream_options':{"
		"'include_usage':true}}"), NULL));
	assert_true(c.is_stream && c.include_usage);
	assert_non_null(kit_request(&c, kit_json("{" HI ",'stream':true}"), NULL));
	assert_true(c.is_stream && !c.include_usage);
	assert_non_null(kit_request(&c, kit_json("{" HI "}"), NULL));
	assert_true(!c.is_stream && !c.include_usage);
}

static void test_system_texts_go_to_the_front(void **state)
{
	(void)state;
	assert_part(to_messages(), "{'messages':[{'role':'system','content':'a'},{'role':'user','content':'hi'},"
		"{'role':'developer','content':[{'type':'text','text':'b','cache_control':{'type':'ephemeral'}}]}]}",
		"{'system':[{'type':'text','text':'a'},{'type':'text','text':'b','cache_control':{"
		"'type':'ephemeral'}}],"
		MADE_HI "}");
}

static void test_turns_are_joined_and_empty_ones_dropped(void **state)
{
	(void)state;
	assert_part(to_messages(), "{'messages':[{'role':'user','content':'a'},{'role':'user','content':'b',"
		"'name':'n'},"
		"{'role':'assistant','content':''},{'role':'user','content':[{'type':'text','text':'c'}]},"
		"{'role':'assistant','content':'d','refusal':null},{'role':'user','content':'e'}]}",
		"{'messages':[{'role':'user','content':[{'type':'text','text':'a'},{'type':'text','text':'b'},"
		"{'type':'text','text':'c'}]},{'role':'assistant','content':[{'type':'text','text':'d'}]},"
		"{'role':'user','content':[{'type':'text','text':'e'}]}]}");
	/* An empty message at the front leaves no trace either. */
	assert_part(to_messages(), "{'messages':[{'role':'assistant','content':null},{'role':'user','content':'hi'}]}",
		"{" MADE_HI "}");
}

static void test_images_and_files(void **state)
{
	(void)state;
	assert_part(to_messages(), "{'messages':[{'role':'user','content':[{'type':'text','text':'see'},"
		"{'type':'image_url','image_url':{'url':'https://x.example/a.png','detail':'low'}},"
		"{'type':'image_url','image_url':{'url':'data:image/jpg;base64,QUJD'}},"
		"{'type':'file','file':{'filename':'f.pdf','file_data':'data:application/pdf;base64,UERG'}}]}]}",
		"{'messages':[{'role':'user','content':[{'type':'text','text':'see'},"
		"{'type':'image','source':{'type':'url','url':'https://x.example/a.png'}},"
		"{'type':'image','source':{'type':'base64','media_type':'image/jpeg','data':'QUJD'}},"
		"{'type':'document','title':'f.pdf','source':{'type':'base64','media_type':'application/pdf',"
		"'data':'UERG'}}]}]}");
}

static const char talk_with_tools[] =
	"{'messages':[{'role':'user','content':'w?'},"
	"{'role':'assistant','content':null,'tool_calls':["
	"{'id':'call_1','type':'function','function':{'name':'get','arguments':'{\\'a\\':1.50,"
	"\\'b\\':\\'\\u00e9\\'}'}},"
	"{'id':'functions.get:1','type':'function','function':{'name':'get','arguments':''}}]},"
	"{'role':'tool','tool_call_id':'call_1','content':'warm'},"
	"{'role':'tool','tool_call_id':'functions.get:1','content':[{'type':'text','text':'cold'}]},"
	"{'role':'user','content':'so?'}],"
	"'tools':[{'type':'function','function':{'name':'get','description':'d','strict':true,"
	"'parameters':{'type':'object','properties':{'a':{'type':'number'}}}}},"
	"{'type':'function','function':{'name':'none'}}],'tool_choice':'required','parallel_tool_calls':false}";

/* JSON in JSON: the kit's quotes are too simple for it. */
static struct str unquote(const char *text)
{
	struct sbuf out = { 0 };
	struct str made;

	for (const char *p = text; *p; p++) {
		if (p[0] == '\\' && p[1] == '\'') {
			SBUF_LIT(&out, "\\\"");
			p++;
		} else {
			sbuf_addc(&out, *p == '\'' ? '"' : *p);
		}
	}
	made = arena_copy(&kit_arena, sbuf_str(&out));
	sbuf_free(&out);
	return made;
}

static void test_tools(void **state)
{
	struct conversion c = to_messages();
	struct problem why = { 0 };

	(void)state;
	kit_assert_equal(kit_request(&c, kit_parse(unquote(talk_with_tools)), &why),
		"{'model':'m','max_tokens':8192,'messages':[{'role':'user','content':[{'type':'text','text':'w?'}]},"
		"{'role':'assistant','content':[{'type':'tool_use','id':'call_1','name':'get','input':{"
		"'a':1.5,'b':'\xc3\xa9'}},"
		"{'type':'tool_use','id':'functions_get_1','name':'get','input':{}}]},"
		"{'role':'user','content':[{'type':'tool_result','tool_use_id':'call_1','content':'warm'},"
		"{'type':'tool_result','tool_use_id':'functions_get_1','content':[{'type':'text','text':'cold'}]},"
		"{'type':'text','text':'so?'}]}],"
		"'tools':[{'name':'get','description':'d','strict':true,'input_schema':{'type':'object','properties':"
		"{'a':{'type':'number'}}}},{'name':'none','input_schema':{'type':'object','properties':{}}}],"
		"'tool_choice':{'type':'any','disable_parallel_tool_use':true}}");
}

#define ONE_TOOL ",'tools':[{'type':'function','function':{'name':'f'}}]"

static void test_tool_choice(void **state)
{
	(void)state;
	assert_part(to_messages(), "{" HI ONE_TOOL ",'tool_choice':'auto'}", "{'tool_choice':{'type':'auto'}}");
	assert_part(to_messages(), "{" HI ONE_TOOL ",'tool_choice':'none','parallel_tool_calls':false}",
		"{'tool_choice':{'type':'none'}}");
	assert_part(to_messages(), "{" HI ONE_TOOL ",'tool_choice':{'type':'function','function':{'name':'f'}}}",
		"{'tool_choice':{'type':'tool','name':'f'}}");
	assert_part(to_messages(), "{" HI ONE_TOOL ",'parallel_tool_calls':false}",
		"{'tool_choice':{'type':'auto','disable_parallel_tool_use':true}}");
	assert_request(to_messages(), "{" HI ",'tools':[],'tool_choice':'auto','parallel_tool_calls':false}",
		"{'model':'m','max_tokens':8192," MADE_HI "}");
	assert_refused(to_messages(), "{" HI ",'tool_choice':'required'}", "tool_choice");
	assert_refused(to_messages(), "{" HI ONE_TOOL ",'tool_choice':'always'}", "tool_choice");
	assert_refused(to_messages(), "{" HI ONE_TOOL ",'tool_choice':{'type':'allowed_tools'}}", "tool_choice.type");
	assert_refused(to_messages(), "{" HI ONE_TOOL ",'tool_choice':{'type':'function','function':{}}}",
		"tool_choice.function.name");
}

static void test_broken_arguments_are_kept_as_text(void **state)
{
	static const char *const broken[] = { "{oops", "[1]", "7", "{} {}" };
	char body[400], wanted[300];

	(void)state;
	for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
		snprintf(body, sizeof body, "{'messages':[{'role':'assistant','tool_calls':[{'id':'a','type':"
		         "'function','function':{'name':'f','arguments':'%s'}}]},"
		         "{'role':'tool','tool_call_id':'a','content':'x'}]}", broken[i]);
		snprintf(wanted, sizeof wanted, "{'messages':[{'role':'assistant','content':[{'type':'tool_use',"
		         "'id':'a','name':'f','input':{'INVALID_JSON':'%s'}}]},{'role':'user'}]}", broken[i]);
		assert_part(to_messages(), body, wanted);
	}
}

static void test_format(void **state)
{
	(void)state;
	assert_part(to_messages(), "{" HI ",'response_format':{'type':'json_schema','json_schema':{"
		"'name':'n','strict':true,"
		"'schema':{'type':'object'}}}}",
		"{'output_config':{'format':{'type':'json_schema','schema':{'type':'object'}}}}");
	assert_request(to_messages(), "{" HI ",'response_format':{'type':'text'}}",
		"{'model':'m','max_tokens':8192," MADE_HI "}");
	assert_refused(to_messages(), "{" HI ",'response_format':{'type':'json_object'}}", "response_format.type");
}

static void test_chat_members_refused(void **state)
{
	static const char *const rows[][2] = {
		{ "{}", "messages" }, { "{'messages':{}}", "messages" }, { "{'messages':['x']}", "messages[0]" },
		{ "{'messages':[{'content':'x'}]}", "messages[0].role" },
		{ "{'messages':[{'role':'function','content':'x'}]}", "messages[0].role" },
		{ "{'messages':[{'role':'user','content':5}]}", "messages[0].content" },
		{ "{'messages':[{'role':'user','content':['x']}]}", "messages[0].content[0]" },
		{ "{'messages':[{'role':'user','content':[{'type':'input_audio'}]}]}", "messages[0].content[0].type" },
		{ "{'messages':[{'role':'user','content':[{'type':'text','text':'a'},{'type':'image_url'}]}]}",
		  "messages[0].content[1].image_url" },
		{ "{'messages':[{'role':'user','content':[{'type':'image_url','image_url':{'url':'ftp://x'}}]}]}",
		  "messages[0].content[0].image_url.url" },
		{ "{'messages':[{'role':'user','content':[{'type':'image_url','image_url':{"
			"'url':'data:image/png,x'}}]}]}",
		  "messages[0].content[0].image_url.url" },
		{ "{'messages':[{'role':'user','content':[{'type':'file','file':{'file_id':'f'}}]}]}",
		  "messages[0].content[0].file.file_data" },
		{ "{'messages':[{'role':'tool','content':'x'}]}", "messages[0].tool_call_id" },
		{ "{'messages':[{'role':'assistant','function_call':{'name':'f'}}]}", "messages[0].function_call" },
		{ "{'messages':[{'role':'assistant','tool_calls':[{'id':'a','type':'custom'}]}]}",
		  "messages[0].tool_calls[0].type" },
		{ "{'messages':[{'role':'assistant','tool_calls':[{'id':'a','function':{'arguments':'{}'}}]}]}",
		  "messages[0].tool_calls[0].function.name" },
		{ "{" HI ",'n':2}", "n" }, { "{" HI ",'logprobs':true}", "logprobs" },
		{ "{" HI ",'top_logprobs':1}", "top_logprobs" }, { "{" HI ",'logit_bias':{'1':2}}", "logit_bias" },
		{ "{" HI ",'functions':[{}]}", "functions" }, { "{" HI ",'function_call':'auto'}", "function_call" },
		{ "{" HI ",'web_search_options':{}}", "web_search_options" },
		{ "{" HI ",'modalities':['text','audio']}", "modalities[1]" },
		{ "{" HI ",'temperature':'1'}", "temperature" }, { "{" HI ",'max_tokens':'5'}", "max_tokens" },
		{ "{" HI ",'stop':5}", "stop" }, { "{" HI ",'stream':'yes'}", "stream" },
		{ "{" HI ",'tools':{}}", "tools" }, { "{" HI ",'tools':[{'type':'custom'}]}", "tools[0].type" },
		{ "{" HI ",'tools':[{'type':'function','function':{'description':'x'}}]}", "tools[0].function.name" },
		{ "{" HI ",'tools':[{'type':'function','function':{'name':'f','parameters':[]}}]}",
		  "tools[0].function.parameters" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_refused(to_messages(), rows[i][0], rows[i][1]);
	assert_refused(to_messages(), "[]", "");
}

/* ---- Anthropic to OpenAI ---- */

static void test_simple_messages(void **state)
{
	(void)state;
	assert_request(to_chat("qwen"), "{'model':'x','max_tokens':9," HI "}", "{'model':'qwen',"
		"'max_tokens':9," HI "}");
	assert_request(to_chat("qwen"),
		"{'max_tokens':9," HI ",'system':[{'type':'text','text':'a','cache_control':{'type':'ephemeral'}},"
		"{'type':'text','text':'b'}],'temperature':0.5,'top_p':1,'top_k':4,'stop_sequences':['x'],"
		"'stream':true,"
		"'metadata':{'user_id':'u'},'thinking':{'type':'enabled','budget_tokens':2000},'service_tier':'auto'}",
		"{'model':'qwen','max_tokens':9,'messages':[{'role':'system','content':'a\\nb'},{"
		"'role':'user','content':'hi'}],"
		"'temperature':0.5,'top_p':1,'stop':['x'],'stream':true,'stream_options':{"
		"'include_usage':true},'user':'u'}");
	assert_part(to_chat("gpt-5"), "{'max_tokens':9," HI ",'system':'s'}",
		"{'max_completion_tokens':9,'messages':[{'role':'system','content':'s'},{'role':'user',"
		"'content':'hi'}]}");
	assert_part(to_chat("openai/o3-mini"), "{'max_tokens':9," HI "}", "{'max_completion_tokens':9}");
	assert_part(to_chat("gpt-oss:20b"), "{'max_tokens':9," HI "}", "{'max_tokens':9}");
	assert_part(to_chat("ollama"), "{'max_tokens':9," HI "}", "{'max_tokens':9}");
}

static void test_long_user_ids(void **state)
{
	(void)state;
	assert_part(to_chat("q"), "{'max_tokens':9," HI ",'metadata':{'user_id':"
		"'0123456789012345678901234567890123456789012345678901234567890123'}}",
		"{'user':'0123456789012345678901234567890123456789012345678901234567890123'}");
	assert_part(to_chat("q"), "{'max_tokens':9," HI ",'metadata':{'user_id':"
		"'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'}}",
		"{'user':'635361c48bb9eab14198e76ea8ab7f1a41685d6ad62aa9146d301d4f17eb0ae0'}");
}

static void test_blocks(void **state)
{
	(void)state;
	assert_part(to_chat("q"), "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'text','text':'a'},"
		"{'type':'text','text':'b'}]},{'role':'assistant','content':[{'type':'thinking',"
		"'thinking':'t','signature':'s'},"
		"{'type':'text','text':'c'},{'type':'text','text':'d'}]},{'role':'user','content':[{"
		"'type':'text','text':'see'},"
		"{'type':'image','source':{'type':'base64','media_type':'image/png','data':'QUJD'}},"
		"{'type':'image','source':{'type':'url','url':'https://x.example/i'}},"
		"{'type':'document','source':{'type':'base64','media_type':'application/pdf','data':'UERG'}},"
		"{'type':'document','title':'t','source':{'type':'text','media_type':'text/plain','data':'words'}}]}]}",
		"{'messages':[{'role':'user','content':'a\\nb'},{'role':'assistant','content':'cd'},"
		"{'role':'user','content':[{'type':'text','text':'see'},"
		"{'type':'image_url','image_url':{'url':'data:image/png;base64,QUJD'}},"
		"{'type':'image_url','image_url':{'url':'https://x.example/i'}},"
		"{'type':'file','file':{'filename':'document.pdf','file_data':'data:application/pdf;base64,UERG'}},"
		"{'type':'text','text':'words'}]}]}");
}

static void test_tools_of_messages(void **state)
{
	struct conversion c = to_chat("q");
	struct problem why = { 0 };
	const struct json *made = kit_request(&c, kit_json(
		"{'max_tokens':9,'messages':[{'role':'user','content':'w?'},{'role':'assistant','content':["
		"{'type':'tool_use','id':'toolu_1','name':'get','input':{'a':1.50}},"
		"{'type':'tool_use','id':'toolu_2','name':'get','input':{}}]},"
		"{'role':'user','content':[{'type':'tool_result','tool_use_id':'toolu_1','content':'warm'},"
		"{'type':'tool_result','tool_use_id':'toolu_2','is_error':true,'content':[{'type':'text','text':'x'},"
		"{'type':'text','text':'y'}]},{'type':'text','text':'so?'}]}],"
		"'tools':[{'name':'get','description':'d','input_schema':{'type':'object'},'strict':true,"
		"'cache_control':{'type':'ephemeral'}},{'type':'custom','name':'g','input_schema':{}}],"
		"'tool_choice':{'type':'tool','name':'get','disable_parallel_tool_use':true}}"), &why);

	(void)state;
	assert_non_null(made);
	kit_assert_has(made, "{'tools':[{'type':'function','function':{'name':'get','description':'d','strict':true,"
		"'parameters':{'type':'object'}}},{'type':'function','function':{'name':'g'}}],"
		"'tool_choice':{'type':'function','function':{'name':'get'}},'parallel_tool_calls':false}");
	const struct json *said = json_get(made, "messages")->child->next;

	kit_assert_has(said, "{'role':'assistant','content':null,'tool_calls':["
		"{'id':'toolu_1','type':'function','function':{'name':'get'}},"
		"{'id':'toolu_2','type':'function','function':{'name':'get','arguments':'{}'}}]}");
	assert_string_equal(json_text(json_get(json_get(said, "tool_calls")->child, "function"),
		"arguments").p, "{\"a\":1.50}");
	kit_assert_equal(said->next, "{'role':'tool','tool_call_id':'toolu_1','content':'warm'}");
	kit_assert_equal(said->next->next, "{'role':'tool','tool_call_id':'toolu_2','content':'x\\ny'}");
	kit_assert_equal(said->next->next->next, "{'role':'user','content':'so?'}");
	assert_null(said->next->next->next->next);
}

static void test_images_of_results_follow(void **state)
{
	(void)state;
	assert_part(to_chat("q"), "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'tool_result',"
		"'tool_use_id':'t1','content':[{'type':'text','text':'shot'},{'type':'image','source':{'type':'base64',"
		"'media_type':'image/png','data':'QUJD'}}]}]}]}",
		"{'messages':[{'role':'tool','tool_call_id':'t1','content':'shot'},{'role':'user','content':["
		"{'type':'text','text':'Belongs to the result of the tool call t1'},"
		"{'type':'image_url','image_url':{'url':'data:image/png;base64,QUJD'}}]}]}");
}

static void test_choice_and_format_of_messages(void **state)
{
	static const char *const rows[][2] = {
		{ "{'type':'auto'}", "'auto'" }, { "{'type':'any'}", "'required'" }, { "{'type':'none'}", "'none'" },
	};
	char body[300], wanted[100];

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		snprintf(body, sizeof body, "{'max_tokens':9," HI ",'tools':[{'name':'f'}],"
			"'tool_choice':%s}", rows[i][0]);
		snprintf(wanted, sizeof wanted, "{'tool_choice':%s}", rows[i][1]);
		assert_part(to_chat("q"), body, wanted);
	}
	assert_part(to_chat("q"), "{'max_tokens':9," HI ",'output_config':{'effort':'low','format':{"
		"'type':'json_schema',"
		"'schema':{'type':'object'}}}}",
		"{'response_format':{'type':'json_schema','json_schema':{'name':'answer','strict':true,"
		"'schema':{'type':'object'}}}}");
}

static void test_messages_members_refused(void **state)
{
	static const char *const rows[][2] = {
		{ "{}", "messages" }, { "{'messages':[5]}", "messages[0]" },
		{ "{'messages':[{'role':'user'}]}", "messages[0].content" },
		{ "{'messages':[{'role':'tool','content':'x'}]}", "messages[0].role" },
		{ "{'messages':[{'role':'user','content':'a'},{'role':'assistant','content':'{'}]}", "messages[1]" },
		{ "{'messages':[{'role':'user','content':[{'type':'search_result'}]}]}",
			"messages[0].content[0].type" },
		{ "{'messages':[{'role':'user','content':[{'type':'image','source':{'type':'file','file_id':'f'}}]}]}",
		  "messages[0].content[0].source.type" },
		{ "{'messages':[{'role':'user','content':[{'type':'image','source':{'type':'base64','data':'x'}}]}]}",
		  "messages[0].content[0].source.media_type" },
		{ "{'messages':[{'role':'user','content':[{'type':'document','citations':{'enabled':true}}]}]}",
		  "messages[0].content[0].citations" },
		{ "{'messages':[{'role':'user','content':[{'type':'document','source':{'type':'url','url':'x'}}]}]}",
		  "messages[0].content[0].source.type" },
		{ "{'messages':[{'role':'user','content':[{'type':'tool_result','content':'x'}]}]}",
		  "messages[0].content[0].tool_use_id" },
		{ "{'messages':[{'role':'assistant','content':[{'type':'server_tool_use'}]},{'role':'user',"
			"'content':'a'}]}",
		  "messages[0].content[0].type" },
		{ "{'messages':[{'role':'assistant','content':[{'type':'tool_use','id':'a','name':'f','input':'x'}]},"
		  "{'role':'user','content':'a'}]}", "messages[0].content[0].input" },
		{ "{" HI ",'system':5}", "system" }, { "{" HI ",'system':[{'type':'image'}]}", "system[0]" },
		{ "{" HI ",'tools':[{'type':'web_search_20250305','name':'web_search'}]}", "tools[0].type" },
		{ "{" HI ",'tools':[{'name':'f'}],'tool_choice':{'type':'some'}}", "tool_choice.type" },
		{ "{" HI ",'max_tokens':'9'}", "max_tokens" }, { "{" HI ",'stop_sequences':'x'}", "stop_sequences" },
		{ "{" HI ",'stream':1}", "stream" }, { "{" HI ",'mcp_servers':[{}]}", "mcp_servers" },
		{ "{" HI ",'container':'c'}", "container" }, { "{" HI ",'inference_geo':'eu'}", "inference_geo" },
		{ "{" HI ",'output_config':{'format':{'type':'json'}}}", "output_config.format.type" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_refused(to_chat("q"), rows[i][0], rows[i][1]);
}

/* ---- OpenAI to DashScope ---- */

static void test_generation(void **state)
{
	struct conversion c = to_generation();

	(void)state;
	assert_request(to_generation(), "{'model':'x','messages':[{'role':'developer','content':'s'},{"
		"'role':'user','content':"
		"[{'type':'text','text':'a'},{'type':'text','text':'b'}]}],'max_completion_tokens':7,"
		"'temperature':1.5,'top_p':0.5,"
		"'seed':3,'stop':['x'],'presence_penalty':0.1,'response_format':{'type':'json_object'},"
		"'enable_thinking':false}",
		"{'model':'qwen-max','input':{'messages':[{'role':'system','content':'s'},{'role':'user',"
		"'content':'a\\nb'}]},"
		"'parameters':{'result_format':'message','max_tokens':7,'stop':['x'],'temperature':1.5,"
		"'top_p':0.5,'seed':3,"
		"'presence_penalty':0.1,'response_format':{'type':'json_object'},'enable_thinking':false}}");
	assert_part(to_generation(), "{" HI ",'stream':true}", "{'parameters':{'incremental_output':true}}");
	/* With tools, each event holds everything. */
	kit_assert_equal(json_get(kit_request(&c, kit_json("{" HI ONE_TOOL ",'stream':true,"
		"'tool_choice':'auto'}"), NULL),
		"parameters"), "{'result_format':'message','tools':[{'type':'function','function':{'name':'f'}}],"
		"'tool_choice':'auto'}");
	assert_true(c.is_stream && c.is_cumulative);
	assert_non_null(kit_request(&c, kit_json("{" HI ",'stream':true}"), NULL));
	assert_true(c.is_stream && !c.is_cumulative && !c.is_multimodal);
}

static void test_generation_with_images_and_tools(void **state)
{
	struct conversion c = to_generation();

	(void)state;
	kit_assert_has(kit_request(&c, kit_json("{'messages':[{'role':'system','content':'s'},{'role':'user',"
		"'content':["
		"{'type':'text','text':'a'},{'type':'image_url','image_url':{'url':'data:image/png;base64,"
		"QUJD'}}]}]}"), NULL),
		"{'input':{'messages':[{'role':'system','content':[{'text':'s'}]},{'role':'user','content':[{"
		"'text':'a'},"
		"{'image':'data:image/png;base64,QUJD'}]}]}}");
	assert_true(c.is_multimodal);
	assert_part(to_generation(), "{'messages':[{'role':'assistant','content':null,'tool_calls':[{"
		"'id':'a','type':'function',"
		"'function':{'name':'f','arguments':'{}'}}]},{'role':'tool','tool_call_id':'a','content':'x'}]}",
		"{'input':{'messages':[{'role':'assistant','content':'','tool_calls':[{'id':'a',"
		"'type':'function','function':"
		"{'name':'f','arguments':'{}'}}]},{'role':'tool','tool_call_id':'a','content':'x'}]}}");
}

static void test_generation_members_refused(void **state)
{
	static const char *const rows[][2] = {
		{ "{}", "messages" }, { "{'messages':[5]}", "messages[0]" }, { "{" HI ",'n':3}", "n" },
		{ "{'messages':[{'role':'x','content':'a'}]}", "messages[0].role" },
		{ "{'messages':[{'role':'user','content':[{'type':'file'}]}]}", "messages[0].content[0].type" },
		{ "{'messages':[{'role':'user','content':[{'type':'image_url'}]}]}",
			"messages[0].content[0].image_url" },
		{ "{" HI ONE_TOOL ",'tool_choice':'required'}", "tool_choice" }, { "{" HI ","
			"'logprobs':true}", "logprobs" },
		{ "{" HI ",'seed':'x'}", "seed" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_refused(to_generation(), rows[i][0], rows[i][1]);
}

/* ---- there and back ---- */

static void test_round_trip_keeps_everything(void **state)
{
	static const char talk[] =
		"{'messages':[{'role':'system','content':'s\xe4\xbd\xa0'},{'role':'user','content':'a\\\\n\\'b'},"
		"{'role':'assistant','content':'c','tool_calls':[{'id':'call_9','type':'function',"
		"'function':{'name':'f',"
		"'arguments':'{\\'n\\':1.50,\\'s\\':\\'\xf0\x9f\x98\x80\\'}'}}]},{'role':'tool',"
		"'tool_call_id':'call_9',"
		"'content':'r'},{'role':'user','content':[{'type':'text','text':'d'},{'type':'image_url','image_url':"
		"{'url':'data:image/png;base64,QUJD'}}]}],'max_tokens':3}";
	struct conversion there = to_messages(), back = to_chat("m");
	struct problem why = { 0 };
	const struct json *body = kit_parse(unquote(talk)), *middle, *end;

	(void)state;
	middle = kit_request(&there, body, &why);
	assert_non_null(middle);
	end = kit_request(&back, middle, &why);
	assert_non_null(end);
	assert_true(json_equal(json_get(end, "messages"), json_get(body, "messages")));
}

static void test_what_can_be_converted(void **state)
{
	(void)state;
	for (int client = 0; client < AI_KIND_COUNT; client++)
		for (int upstream = 0; upstream < AI_KIND_COUNT; upstream++)
			assert_true(convert_can((enum ai_kind)client, (enum ai_kind)upstream) ==
			            ((client == AI_CHAT && (upstream == AI_MESSAGES || upstream == AI_GENERATION)) ||
			             (client == AI_MESSAGES && upstream == AI_CHAT)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KIT_TEST(test_simple_chat), KIT_TEST(test_stream_wishes), KIT_TEST(test_system_texts_go_to_the_front),
		KIT_TEST(test_turns_are_joined_and_empty_ones_dropped), KIT_TEST(test_images_and_files),
			KIT_TEST(test_tools),
		KIT_TEST(test_tool_choice), KIT_TEST(test_broken_arguments_are_kept_as_text), KIT_TEST(test_format),
		KIT_TEST(test_chat_members_refused), KIT_TEST(test_simple_messages), KIT_TEST(test_long_user_ids),
		KIT_TEST(test_blocks), KIT_TEST(test_tools_of_messages), KIT_TEST(test_images_of_results_follow),
		KIT_TEST(test_choice_and_format_of_messages), KIT_TEST(test_messages_members_refused),
		KIT_TEST(test_generation), KIT_TEST(test_generation_with_images_and_tools),
		KIT_TEST(test_generation_members_refused), KIT_TEST(test_round_trip_keeps_everything),
		KIT_TEST(test_what_can_be_converted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
