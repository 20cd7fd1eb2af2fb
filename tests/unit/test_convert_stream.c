/*
 * test_convert_stream.c -- streams from one API to another: the order of events that official clients insist on, mixed
 * calls, pieces cut anywhere, errors, streams that break off.
 *
 * What a client understands of a stream is written as one line: "text(hi) tool(id,name,{}) stop(end_turn) usage(1,2)".
 * Reading it fails the test where the order is wrong.
 */
/* room: ai */
#include "convert_kit.h"

static struct conversion chat_client = { .client = AI_CHAT, .upstream = AI_MESSAGES, .model = STR("m"), .created = 77 };
static struct conversion messages_client = { .client = AI_MESSAGES, .upstream = AI_CHAT, .model = STR("m") };
static struct conversion qwen_client = { .client = AI_CHAT, .upstream = AI_GENERATION, .model = STR("q"),
	.created = 77 };

/* ---- streams in and out ---- */

static void take_event(struct converter *c, const struct sse_event *e, struct sbuf *out)
{
	struct arena a = { 0 };
	struct problem ignored;

	converter_take(c, e, e->data.n ? json_parse(&a, e->data, &ignored) : NULL, out);
	arena_free(&a);
}

/* What the client gets of `in`, given in pieces of `step` bytes. */
static struct str convert_pieces(const struct conversion *about, struct str in, size_t step, bool *is_over)
{
	struct converter *c = converter_new(&kit_arena, about);
	struct sse sse = { 0 };
	struct sse_event e;
	struct sbuf out = { 0 };
	struct str made;

	for (size_t at = 0; at < in.n; at += step) {
		/* A copy, so that nobody can rely on what was given before. */
		size_t n = in.n - at < step ? in.n - at : step;
		char *piece = mem_alloc(n);

		memcpy(piece, in.p + at, n);
		sse_give(&sse, (struct str){ piece, n });
		while (sse_next(&sse, &e) == SSE_EVENT)
			take_event(c, &e, &out);
		mem_free(piece);
	}
	if (is_over)
		*is_over = converter_is_over(c);
	sse_free(&sse);
	converter_free(c);
	made = arena_copy(&kit_arena, sbuf_str(&out));
	sbuf_free(&out);
	return made;
}

/* Each line becomes an event; for Anthropic with its type as the event's name. */
static struct str make_stream(enum ai_kind kind, const char *const *lines)
{
	struct sbuf out = { 0 };
	struct str made;

	for (; *lines; lines++) {
		if ((*lines)[0] == '{' && kind == AI_MESSAGES)
			sbuf_addf(&out, "event: %s\n", json_text(kit_json(*lines), "type").p);
		if ((*lines)[0] == '{' && kind == AI_GENERATION)
			SBUF_LIT(&out, "id:1\nevent:result\n:HTTP_STATUS/200\n");
		if ((*lines)[0] != ':')
			SBUF_LIT(&out, "data: ");
		sbuf_add(&out, (*lines)[0] == '{' ? kit_text(*lines) : str_of(*lines));
		SBUF_LIT(&out, "\n\n");
	}
	made = arena_copy(&kit_arena, sbuf_str(&out));
	sbuf_free(&out);
	return made;
}

/* ---- what an Anthropic client understands ---- */

struct reader {
	struct sbuf story;
	bool began, ended;
	bool is_open;
	int64_t block, n_blocks;
	const char *close;                /* of the story's open item */
	unsigned n_tools;
	struct sbuf tools[8];             /* OpenAI: by index */
	struct str finish;
};

static int64_t number(const struct json *object, const char *name)
{
	const struct json *v = json_get(object, name);

	assert_non_null(v);
	assert_int_equal(v->type, JSON_INT);
	return v->integer;
}

static void read_block_start(struct reader *r, const struct json *doc)
{
	const struct json *block = json_get(doc, "content_block");
	struct str type = json_text(block, "type");

	assert_false(r->is_open);
	assert_int_equal(number(doc, "index"), r->n_blocks);
	r->is_open = true;
	r->block = r->n_blocks++;
	if (str_equal(type, STR("tool_use"))) {
		kit_assert_has(block, "{'input':{}}");
		sbuf_addf(&r->story, "tool(%s,%s,", json_text(block, "id").p, json_text(block, "name").p);
	} else {
		assert_true(json_get(block, type.p)->type == JSON_STRING && json_text(block, type.p).n == 0);
		sbuf_addf(&r->story, "%s(", type.p);
	}
}

static void read_block_delta(struct reader *r, const struct json *doc)
{
	const struct json *delta = json_get(doc, "delta");
	struct str type = json_text(delta, "type"), text;

	assert_true(r->is_open);
	assert_int_equal(number(doc, "index"), r->block);
	text = json_text(delta, str_equal(type, STR("text_delta")) ? "text"
	                 : str_equal(type, STR("thinking_delta")) ? "thinking" : "partial_json");
	assert_true(text.n > 0);
	sbuf_add(&r->story, text);
}

static void read_message_event(struct reader *r, const struct sse_event *e)
{
	const struct json *doc = kit_parse(e->data), *delta = json_get(doc, "delta"), *usage = json_get(doc, "usage");

	assert_true(str_equal(json_text(doc, "type"), e->type));
	assert_false(r->ended);
	if (str_equal(e->type, STR("ping"))) {
		SBUF_LIT(&r->story, "ping ");
		return;
	}
	if (str_equal(e->type, STR("error"))) {
		sbuf_addf(&r->story, "error(%s)", json_text(json_get(doc, "error"), "message").p);
		r->ended = true;
		return;
	}
	assert_true(r->began != str_equal(e->type, STR("message_start")));
	r->began = true;
	if (str_equal(e->type, STR("message_start"))) {
		kit_assert_has(json_get(doc, "message"), "{'type':'message','role':'assistant','content':[],"
			"'stop_reason':null,"
			"'stop_sequence':null,'usage':{'output_tokens':0}}");
		assert_true(json_text(json_get(doc, "message"), "id").n > 0);
	} else if (str_equal(e->type, STR("content_block_start"))) {
		read_block_start(r, doc);
	} else if (str_equal(e->type, STR("content_block_delta"))) {
		read_block_delta(r, doc);
	} else if (str_equal(e->type, STR("content_block_stop"))) {
		assert_true(r->is_open);
		assert_int_equal(number(doc, "index"), r->block);
		r->is_open = false;
		SBUF_LIT(&r->story, ") ");
	} else if (str_equal(e->type, STR("message_delta"))) {
		assert_false(r->is_open);
		sbuf_addf(&r->story, "stop(%s%s) usage(%d,%d,%d)", json_text(delta, "stop_reason").p,
		          json_text(delta, "stop_sequence").p, (int)number(usage, "input_tokens"),
		          (int)number(usage, "cache_read_input_tokens"), (int)number(usage, "output_tokens"));
	} else {
		assert_string_equal(e->type.p ? "message_stop" : "", "message_stop");
		r->ended = true;
	}
}

/* ---- what an OpenAI client understands ---- */

static void read_calls(struct reader *r, const struct json *calls)
{
	for (const struct json *call = calls ? calls->child : NULL; call; call = call->next) {
		const struct json *function = json_get(call, "function");
		size_t at = (size_t)number(call, "index");

		assert_true(at < 8);
		if (at >= r->n_tools) {
			assert_int_equal(at, r->n_tools);
			r->n_tools++;
			kit_assert_has(call, "{'type':'function'}");
			sbuf_addf(&r->tools[at], "%s,%s,", json_text(call, "id").p, json_text(function, "name").p);
		}
		sbuf_add(&r->tools[at], json_text(function, "arguments"));
	}
}

static void switch_to(struct reader *r, const char *what)
{
	if (r->close && strcmp(r->close, what) == 0)
		return;
	if (r->close)
		SBUF_LIT(&r->story, ") ");
	r->close = what;
	sbuf_addf(&r->story, "%s(", what);
}

static void read_choice(struct reader *r, const struct json *choice)
{
	const struct json *delta = json_get(choice, "delta");
	struct str finish = json_text(choice, "finish_reason");

	assert_int_equal(number(choice, "index"), 0);
	assert_true(r->finish.n == 0);
	if (!r->began)
		kit_assert_equal(delta, "{'role':'assistant','content':''}");
	r->began = true;
	if (json_text(delta, "reasoning_content").n) {
		switch_to(r, "thinking");
		sbuf_add(&r->story, json_text(delta, "reasoning_content"));
	}
	if (json_text(delta, "content").n) {
		switch_to(r, "text");
		sbuf_add(&r->story, json_text(delta, "content"));
	}
	read_calls(r, json_get(delta, "tool_calls"));
	r->finish = finish;
}

static void finish_story(struct reader *r)
{
	if (r->close)
		SBUF_LIT(&r->story, ") ");
	r->close = NULL;
	for (unsigned i = 0; i < r->n_tools; i++) {
		sbuf_addf(&r->story, "tool(%.*s) ", STR_FMT(sbuf_str(&r->tools[i])));
		sbuf_free(&r->tools[i]);
	}
	r->n_tools = 0;
}

static void read_chunk(struct reader *r, const struct sse_event *e)
{
	const struct json *doc, *choices, *usage;

	assert_false(r->ended);
	if (!e->has_data) {
		SBUF_LIT(&r->story, "ping ");
		return;
	}
	if (str_equal(e->data, STR("[DONE]"))) {
		r->ended = true;
		return;
	}
	doc = kit_parse(e->data);
	if (json_get(doc, "error")) {
		finish_story(r);
		sbuf_addf(&r->story, "error(%s)", json_text(json_get(doc, "error"), "message").p);
		r->ended = true;
		return;
	}
	kit_assert_has(doc, "{'object':'chat.completion.chunk','created':77}");
	assert_true(json_text(doc, "id").n > 0 && json_text(doc, "model").n > 0);
	choices = json_get(doc, "choices");
	usage = json_get(doc, "usage");
	if (choices->n) {
		read_choice(r, choices->child);
		if (r->finish.n) {
			finish_story(r);
			sbuf_addf(&r->story, "stop(%s) ", r->finish.p);
		}
	} else {
		assert_true(r->finish.n > 0);
		sbuf_addf(&r->story, "usage(%d,%d)", (int)number(usage, "prompt_tokens"),
		          (int)number(usage, "completion_tokens"));
	}
}

/* The story of a stream that a client of this kind gets; "CUT" at its end where it is not complete. */
static const char *read_stream(enum ai_kind client, struct str stream)
{
	struct reader r = { 0 };
	struct sse sse = { 0 };
	struct sse_event e;
	struct str made;

	sse_give(&sse, stream);
	while (sse_next(&sse, &e) == SSE_EVENT) {
		if (client == AI_MESSAGES)
			read_message_event(&r, &e);
		else
			read_chunk(&r, &e);
	}
	assert_int_equal(sse_rest(&sse).n, 0);
	sse_free(&sse);
	if (!r.ended) {
		finish_story(&r);
		SBUF_LIT(&r.story, "CUT");
	}
	made = arena_copy(&kit_arena, sbuf_str(&r.story));
	sbuf_free(&r.story);
	while (made.n > 0 && made.p[made.n - 1] == ' ')
		made = arena_copy(&kit_arena, (struct str){ made.p, made.n - 1 });
	return made.p;
}

/* Cut into pieces of any size, the client reads the same. */
static void assert_story(const struct conversion *about, struct str stream, const char *wanted)
{
	static const size_t steps[] = { 1000000, 1, 2, 3, 7, 64 };

	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
		assert_string_equal(read_stream(about->client, convert_pieces(about, stream, steps[i], NULL)), wanted);
}

static void assert_lines(const struct conversion *about, const char *const *lines, const char *wanted)
{
	assert_story(about, make_stream(about->upstream, lines), wanted);
}

/* ---- OpenAI's chunks to Anthropic's events ---- */

#define CHUNK(delta) "{'id':'c1','object':'chat.completion.chunk','model':'gpt','choices':[{'index':0,'delta':" delta \
	",'finish_reason':null}]}"
#define FINISH(reason) "{'id':'c1','model':'gpt','choices':[{'index':0,'delta':{},'finish_reason':'" reason "'}]}"
#define USAGE "{'id':'c1','model':'gpt','choices':[],'usage':{'prompt_tokens':10,'completion_tokens':5," \
	"'total_tokens':15,'prompt_tokens_details':{'cached_tokens':4}}}"
#define CALL(index, more) CHUNK("{'tool_calls':[{'index':" #index "," more "}]}")
#define CALL_START(index, id, name) CALL(index, "'id':'" id "','type':'function','function':{" \
	"'name':'" name "','arguments':''}")
/* Arguments: a part of JSON in JSON, without quotes in it. */
#define CALL_PART(index, part) CALL(index, "'function':{'arguments':'" part "'}")

static void test_text_to_events_exactly(void **state)
{
	static const char *const lines[] = { CHUNK("{'role':'assistant','content':''}"), CHUNK("{'content':'Hel'}"),
		CHUNK("{'content':'lo \xe4\xbd\xa0'}"), FINISH("stop"), USAGE, "[DONE]", NULL };

	(void)state;
	assert_string_equal(convert_pieces(&messages_client, make_stream(AI_CHAT, lines), 1000, NULL).p,
		"event: message_start\n"
		"data: {\"type\":\"message_start\",\"message\":{\"id\":\"c1\",\"type\":\"message\","
		"\"role\":\"assistant\","
		"\"model\":\"gpt\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{"
		"\"input_tokens\":0,"
		"\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":0}}}\n\n"
		"event: content_block_start\n"
		"data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
		"\"text\":\"\"}}\n\n"
		"event: content_block_delta\n"
		"data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
		"\"text\":\"Hel\"}}\n\n"
		"event: content_block_delta\n"
		"data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
		"\"text\":\"lo \xe4\xbd\xa0\"}}\n\n"
		"event: content_block_stop\n"
		"data: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
		"event: message_delta\n"
		"data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
		"\"usage\":{\"input_tokens\":6,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":4,"
		"\"output_tokens\":5}}\n\n"
		"event: message_stop\n"
		"data: {\"type\":\"message_stop\"}\n\n");
}

static void test_text_and_thoughts_to_events(void **state)
{
	static const char *const lines[] = { CHUNK("{'role':'assistant','content':null,'reasoning_content':'h'}"),
		CHUNK("{'reasoning':'m'}"), CHUNK("{'content':'a'}"), ": keep", CHUNK("{'content':'\xf0\x9f\x98\x80'}"),
		FINISH("length"), "[DONE]", NULL };
	static const char *const refused[] = { CHUNK("{'refusal':'no'}"), FINISH("stop"), "[DONE]", NULL };
	static const char *const stopped[] = { CHUNK("{'content':'a'}"), "{'choices':[{'index':0,'delta':{},"
		"'finish_reason':'stop','stop_reason':'END'}]}", "[DONE]", NULL };

	(void)state;
	assert_lines(&messages_client, lines,
		"thinking(hm) text(aping \xf0\x9f\x98\x80) stop(max_tokens) usage(0,0,0)");
	assert_lines(&messages_client, refused, "text(no) stop(refusal) usage(0,0,0)");
	assert_lines(&messages_client, stopped, "text(a) stop(stop_sequenceEND) usage(0,0,0)");
}

static void test_tools_to_events(void **state)
{
	static const char *const lines[] = { CHUNK("{'role':'assistant','content':'let'}"), CALL_START(0, "k1", "f"),
		CALL_PART(0, "{"), CALL_PART(0, "}"), CALL_START(1, "k2", "g"), CALL_PART(1, "{}"),
			FINISH("tool_calls"), USAGE,
		"[DONE]", NULL };
	static const char *const forced[] = { CALL_START(0, "k1", "f"), FINISH("stop"), "[DONE]", NULL };

	(void)state;
	assert_lines(&messages_client, lines, "text(let) tool(k1,f,{}) tool(k2,g,{}) stop(tool_use) usage(6,4,5)");
	assert_lines(&messages_client, forced, "tool(k1,f,) stop(tool_use) usage(0,0,0)");
}

/* A second call flows as soon as the first is whole; what is mixed waits. */
static void test_mixed_tools_to_events(void **state)
{
	static const char *const lines[] = { CALL_START(0, "k1", "f"), CALL_START(1, "k2", "g"), CALL_PART(0, "{[1"),
		CALL_PART(1, "{[2"), CALL_PART(0, ",3]"), CALL_PART(1, ",4]"), CHUNK("{'content':'between'}"),
		CALL_PART(0, "}"), CALL_START(2, "k3", "h"), CALL_PART(1, "}"), CALL_PART(2, "{}"),
			FINISH("tool_calls"),
		USAGE, NULL };
	/* Both in one chunk. */
	static const char *const both[] = { CHUNK("{'tool_calls':[{'index':0,'id':'a','function':{'name':'f',"
		"'arguments':"
		"'{'}},{'index':1,'id':'b','function':{'name':'g','arguments':'{'}}]}"),
		CHUNK("{'tool_calls':[{'index':1,'function':{'arguments':'}'}},{'index':0,'function':{"
			"'arguments':'}'}}]}"),
		FINISH("tool_calls"), "[DONE]", NULL };

	(void)state;
	assert_lines(&messages_client, lines,
		"tool(k1,f,{[1,3]}) tool(k2,g,{[2,4]}) text(between) tool(k3,h,{}) stop(tool_use) usage(6,4,5)");
	assert_lines(&messages_client, both, "tool(a,f,{}) tool(b,g,{}) stop(tool_use) usage(0,0,0)");
}

/* Brackets in strings and escapes do not end arguments. */
static void test_when_arguments_are_whole(void **state)
{
	static const char stream[] =
		"data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{"
		"\"name\":\"f\","
		"\"arguments\":\"{\\\"x\\\":\\\"}\\\\\\\"}\"}}]}}]}\n\n"
		"data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{"
		"\"name\":\"g\","
		"\"arguments\":\"{}\"}}]}}]}\n\n"
		"data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{"
		"\"arguments\":\"\\\"}\"}}]}}]}\n\n"
		"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n";

	(void)state;
	assert_story(&messages_client, STR(stream),
		"tool(a,f,{\"x\":\"}\\\"}\"}) tool(b,g,{}) stop(tool_use) usage(0,0,0)");
}

/* Servers without an index, with the same one for all, with name and id in each piece. */
static void test_odd_tools_to_events(void **state)
{
	static const char *const unnumbered[] = { CHUNK("{'tool_calls':[{'id':'a','function':{'name':'f',"
		"'arguments':'{}'}}]}"),
		CHUNK("{'tool_calls':[{'id':'b','function':{'name':'g','arguments':'{'}}]}"),
		CHUNK("{'tool_calls':[{'function':{'arguments':'}'}}]}"), FINISH("tool_calls"), "[DONE]", NULL };
	static const char *const same[] = { CALL(0, "'id':'a','function':{'name':'f','arguments':'{}'}"),
		CALL(0, "'id':'b','function':{'name':'g','arguments':'{}'}"), FINISH("stop"), "[DONE]", NULL };
	static const char *const repeated[] = { CALL(0, "'id':'a','function':{'name':'f','arguments':'{'}"),
		CALL(0, "'id':'a','function':{'name':'f','arguments':'}'}"), FINISH("stop"), "[DONE]", NULL };
	static const char *const late[] = { CALL(0, "'id':'a','function':{'arguments':'{'}"),
		CALL(0, "'function':{'name':'f','arguments':'}'}"), FINISH("stop"), "[DONE]", NULL };
	/* What comes when the call is over, is too late. */
	static const char *const tardy[] = { CALL(0, "'id':'a','function':{'name':'f','arguments':'{}'}"),
		CALL(1, "'id':'b','function':{'name':'g','arguments':'{'}"), CALL_PART(0, " }"), CALL_PART(1, "}"),
		FINISH("stop"), "[DONE]", NULL };
	static const char *const nameless[] = { CALL(0, "'id':'a','function':{'arguments':'{'}"),
		FINISH("stop"), "[DONE]",
		NULL };
	static const char *const many[] = { CALL(0, "'id':'a','function':{'name':'f'}"), CALL(999, "'id':'b'"), NULL };

	(void)state;
	assert_lines(&messages_client, unnumbered, "tool(a,f,{}) tool(b,g,{}) stop(tool_use) usage(0,0,0)");
	assert_lines(&messages_client, same, "tool(a,f,{}) tool(b,g,{}) stop(tool_use) usage(0,0,0)");
	assert_lines(&messages_client, repeated, "tool(a,f,{}) stop(tool_use) usage(0,0,0)");
	assert_lines(&messages_client, late, "tool(a,f,{}) stop(tool_use) usage(0,0,0)");
	assert_lines(&messages_client, tardy, "tool(a,f,{}) tool(b,g,{}) stop(tool_use) usage(0,0,0)");
	assert_lines(&messages_client, nameless, "error(the model service calls a tool without a name)");
	assert_lines(&messages_client, many, "tool(a,f,error(the model service calls too many tools at once)");
}

static void test_where_events_end(void **state)
{
	/* Azure begins with a chunk without choices; others say usage in each chunk, or with the reason. */
	static const char *const azure[] = { "{'id':'','choices':[],'prompt_filter_results':[]}", CHUNK("{"
		"'content':'a'}"),
		FINISH("stop"), USAGE, "[DONE]", NULL };
	static const char *const early[] = { CHUNK("{'content':'a'}"), "{'choices':[{'index':0,'delta':{},"
		"'finish_reason':"
		"'stop'}],'usage':{'prompt_tokens':1,'completion_tokens':2}}", "[DONE]", NULL };
	static const char *const behind[] = { CHUNK("{'content':'a'}"), FINISH("stop"), USAGE, CHUNK("{'content':'b'}"),
		"[DONE]", NULL };
	static const char *const others[] = { "{'choices':[{'index':1,'delta':{'content':'x'}},{'index':0,'delta':"
		"{'content':'a'}}]}", FINISH("stop"), "[DONE]", NULL };

	(void)state;
	assert_lines(&messages_client, azure, "text(a) stop(end_turn) usage(6,4,5)");
	assert_lines(&messages_client, early, "text(a) stop(end_turn) usage(1,0,2)");
	assert_lines(&messages_client, behind, "text(a) stop(end_turn) usage(6,4,5)");
	assert_lines(&messages_client, others, "text(a) stop(end_turn) usage(0,0,0)");
}

/* Nothing is made up for a stream that breaks off, wherever it does. */
static void test_cut_streams_stay_cut(void **state)
{
	static const char *const lines[] = { CHUNK("{'content':'a'}"), CALL_START(0, "k1", "f"), CALL_PART(0, "{}"),
		FINISH("tool_calls"), USAGE, "[DONE]", NULL };
	struct str whole = make_stream(AI_CHAT, lines);
	size_t end = whole.n - strlen("data: [DONE]\n\n");

	(void)state;
	for (size_t n = 0; n < whole.n; n++) {
		bool is_over;
		struct str made = convert_pieces(&messages_client, (struct str){ whole.p, n }, 1000, &is_over);

		assert_int_equal(is_over, n >= end);
		assert_int_equal(made.n >= 13 && memcmp(made.p + made.n - 17, "\"message_stop\"}\n\n",
			17) == 0, n >= end);
	}
}

static void test_errors_to_events(void **state)
{
	static const char *const said[] = { CHUNK("{'content':'a'}"), "{'error':{'message':'boom',"
		"'code':429}}", "[DONE]", NULL };
	static const char *const broken[] = { CHUNK("{'content':'a'}"), "oops", CHUNK("{'content':'b'}"), NULL };
	static const char *const list[] = { "[1]", NULL };

	(void)state;
	assert_lines(&messages_client, said, "text(aerror(boom)");
	assert_lines(&messages_client, broken, "text(aerror(an event of the model service cannot be read)");
	assert_lines(&messages_client, list, "error(an event of the model service cannot be read)");
	assert_true(strstr(convert_pieces(&messages_client, make_stream(AI_CHAT, said), 1000, NULL).p,
		"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\","
		"\"message\":\"boom\"}}\n\n"));
}

/* What waits is bounded. */
static void test_mixed_calls_are_bounded(void **state)
{
	struct converter *c = converter_new(&kit_arena, &messages_client);
	const struct json *first = kit_json(CALL(0, "'id':'a','function':{'name':'f','arguments':'{'}"));
	struct sse_event e = { .data = STR("x"), .has_data = true };
	struct sbuf out = { 0 }, big = { 0 };

	(void)state;
	SBUF_LIT(&big, "{'choices':[{'delta':{'tool_calls':[{'index':1,'id':'b','function':{'name':'g','arguments':'");
	for (int i = 0; i < 100000; i++)
		sbuf_addc(&big, 'x');
	SBUF_LIT(&big, "'}}]}}]}");
	converter_take(c, &e, first, &out);
	for (int i = 0; i < 11; i++)
		converter_take(c, &e, kit_json(big.p), &out);
	assert_true(converter_is_over(c));
	assert_true(strstr(out.p, "mixes too much"));
	converter_free(c);
	sbuf_free(&big);
	sbuf_free(&out);
}

/* ---- Anthropic's events to chunks ---- */

#define START "{'type':'message_start','message':{'id':'msg_1','type':'message','role':'assistant','model':'claude'," \
	"'content':[],'usage':{'input_tokens':10,'cache_read_input_tokens':100,'output_tokens':1}}}"
#define TEXT_START(i) "{'type':'content_block_start','index':" #i ",'content_block':{'type':'text','text':''}}"
#define TOOL_START(i, id, name) "{'type':'content_block_start','index':" #i ",'content_block':{" \
	"'type':'tool_use','id':'" id \
	"','name':'" name "','input':{}}}"
#define TEXT(i, text) "{'type':'content_block_delta','index':" #i ",'delta':{'type':'text_delta','text':'" text "'}}"
#define JSON(i, text) "{'type':'content_block_delta','index':" #i ",'delta':{'type':'input_json_delta'," \
	"'partial_json':'" text "'}}"
#define STOP(i) "{'type':'content_block_stop','index':" #i "}"
#define END(reason) "{'type':'message_delta','delta':{'stop_reason':'" reason "','stop_sequence':null},'usage':" \
	"{'output_tokens':5}}"
#define OVER "{'type':'message_stop'}"
#define PING "{'type':'ping'}"

static void test_text_to_chunks_exactly(void **state)
{
	static const char *const lines[] = { START, TEXT_START(0), PING, TEXT(0, "Hi"), STOP(0),
		END("end_turn"), OVER, NULL };
	struct conversion with_usage = chat_client;

	(void)state;
#define HEAD "data: {\"id\":\"msg_1\",\"object\":\"chat.completion.chunk\",\"created\":77," \
	"\"model\":\"claude\",\"choices\":["
	assert_string_equal(convert_pieces(&chat_client, make_stream(AI_MESSAGES, lines), 1000, NULL).p,
		HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
			"\"finish_reason\":null}]}\n\n"
		": ping\n\n"
		HEAD "{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
		HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
		"data: [DONE]\n\n");
	with_usage.include_usage = true;
	assert_string_equal(strstr(convert_pieces(&with_usage, make_stream(AI_MESSAGES, lines), 1000, NULL).p, HEAD
		"{\"index\":0,\"delta\":{},"), HEAD
		"{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
		HEAD "],\"usage\":{\"prompt_tokens\":110,\"completion_tokens\":5,\"total_tokens\":115,"
		"\"prompt_tokens_details\":{\"cached_tokens\":100}}}\n\ndata: [DONE]\n\n");
}

static void test_tools_to_chunks(void **state)
{
	static const char *const lines[] = { START, "{'type':'content_block_start','index':0,"
		"'content_block':{'type':'thinking',"
		"'thinking':'','signature':''}}", "{'type':'content_block_delta','index':0,'delta':{"
		"'type':'thinking_delta',"
		"'thinking':'hm'}}", "{'type':'content_block_delta','index':0,'delta':{"
		"'type':'signature_delta','signature':'s'}}",
		STOP(0), TEXT_START(1), TEXT(1, "let"), STOP(1), TOOL_START(2, "t1", "f"), JSON(2, ""), JSON(2, "{[1"),
		JSON(2, ",2]}"), STOP(2), TOOL_START(3, "t2", "g"), JSON(3, ""), STOP(3), END("tool_use"), OVER, NULL };
	/* Mixed, and with the whole input at the start. */
	static const char *const mixed[] = { START, TOOL_START(4, "t1", "f"), TOOL_START(7, "t2", "g"),
		JSON(7, "{"), JSON(4, "["),
		JSON(7, "}"), JSON(4, "]"), "{'type':'content_block_start','index':8,'content_block':{"
			"'type':'tool_use','id':'t3',"
		"'name':'h','input':{'a':1}}}", STOP(4), STOP(7), END("tool_use"), OVER, NULL };
	static const char *const server[] = { START, "{'type':'content_block_start','index':0,'content_block':{'type':"
		"'server_tool_use','id':'s','name':'web_search','input':{}}}", JSON(0, "{}"), STOP(0),
			TEXT_START(1), TEXT(1, "a"),
		STOP(1), END("refusal"), OVER, NULL };

	(void)state;
	assert_lines(&chat_client, lines, "thinking(hm) text(let) tool(t1,f,{[1,2]}) tool(t2,g,{}) stop(tool_calls)");
	assert_lines(&chat_client, mixed, "tool(t1,f,[]) tool(t2,g,{}) tool(t3,h,{\"a\":1}) stop(tool_calls)");
	assert_lines(&chat_client, server, "text(a) stop(content_filter)");
}

static void test_usage_and_ends_of_chunks(void **state)
{
	static const char *const lines[] = { START, TEXT_START(0), TEXT(0, "a\xe4\xbd\xa0"), STOP(0),
		END("max_tokens"), OVER,
		TEXT(0, "behind"), NULL };
	static const char *const bare[] = { TEXT(0, "a"), OVER, NULL };
	static const char *const error[] = { START, TEXT_START(0), TEXT(0, "a"),
		"{'type':'error','error':{'type':'overloaded_error','message':'Overloaded'}}", TEXT(0, "b"),
			OVER, NULL };
	static const char *const news[] = { START, "{'type':'something_new'}", TEXT_START(0), TEXT(0, "a"), STOP(0),
		END("end_turn"), "[DONE]", OVER, NULL };
	struct conversion with_usage = chat_client;

	(void)state;
	with_usage.include_usage = true;
	assert_lines(&with_usage, lines, "text(a\xe4\xbd\xa0) stop(length) usage(110,5)");
	assert_lines(&chat_client, lines, "text(a\xe4\xbd\xa0) stop(length)");
	assert_lines(&chat_client, bare, "text(a) stop(stop)");
	assert_lines(&chat_client, error, "text(a) error(Overloaded)");
	assert_lines(&chat_client, news, "text(a) stop(stop)");
}

static void test_cut_events_stay_cut(void **state)
{
	static const char *const lines[] = { START, TEXT_START(0), TEXT(0, "a"), STOP(0), END("end_turn"), OVER, NULL };
	struct str whole = make_stream(AI_MESSAGES, lines);

	(void)state;
	for (size_t n = 0; n <= whole.n; n++) {
		bool is_over;
		struct str made = convert_pieces(&chat_client, (struct str){ whole.p, n }, 1000, &is_over);

		assert_int_equal(is_over, n == whole.n);
		assert_int_equal(made.n > 0 && strstr(made.p, "[DONE]") != NULL, n == whole.n);
		assert_int_equal(made.n > 0 && strstr(made.p, "\"stop\"") != NULL, n == whole.n);
	}
}

static void test_too_many_tools_to_chunks(void **state)
{
	struct sbuf stream = { 0 };
	struct str made;

	(void)state;
	SBUF_LIT(&stream, "data: {\"type\":\"message_start\"}\n\n");
	for (int i = 0; i < 200; i++)
		sbuf_addf(&stream, "data: {\"type\":\"content_block_start\",\"index\":%d,\"content_block\":{"
			"\"type\":\"tool_use\"}}\n\n",
		          i);
	made = convert_pieces(&chat_client, sbuf_str(&stream), 4096, NULL);
	assert_non_null(strstr(made.p, "too many tools"));
	sbuf_free(&stream);
}

/* What each chunk repeats is short, whatever the upstream calls itself. */
static void test_names_are_bounded(void **state)
{
	struct sbuf stream = { 0 };
	struct str made;

	(void)state;
	SBUF_LIT(&stream, "data: {\"type\":\"message_start\",\"message\":{\"id\":\"x");
	for (int i = 0; i < 500; i++)
		SBUF_LIT(&stream, "\xc3\xa9");
	SBUF_LIT(&stream, "\",\"model\":\"");
	for (int i = 0; i < 500; i++)
		SBUF_LIT(&stream, "m");
	SBUF_LIT(&stream, "\"}}\n\n");
	made = convert_pieces(&chat_client, sbuf_str(&stream), 4096, NULL);
	assert_string_equal(read_stream(AI_CHAT, made), "CUT");
	assert_true(made.n < 750);
	sbuf_free(&stream);
}

/* ---- DashScope's events to chunks ---- */

#define PIECE(message, reason) "{'output':{'choices':[{'message':" message ",'finish_reason':'" reason "'}]},'usage':" \
	"{'total_tokens':12,'input_tokens':10,'output_tokens':2},'request_id':'r1'}"

static void test_generation_to_chunks(void **state)
{
	static const char *const lines[] = { PIECE("{'role':'assistant','content':'','reasoning_content':'h'}", "null"),
		PIECE("{'content':'\xe4\xbd\xa0'}", "null"), PIECE("{'content':[{'text':'b'}]}", "null"),
			PIECE("{'content':''}", "stop"),
		PIECE("{'content':'behind'}", "stop"), NULL };
	static const char *const pieces_of_tools[] = {
		PIECE("{'content':'','tool_calls':[{'index':0,'id':'k','type':'function','function':{"
			"'name':'f','arguments':''}}]}",
		      "null"),
		PIECE("{'content':'','tool_calls':[{'index':0,'id':'','function':{'name':'','arguments':'{"
			"'}}]}", "null"),
		PIECE("{'content':'','tool_calls':[{'index':0,'id':'','function':{'arguments':'}'}}]}",
			"tool_calls"), NULL };
	static const char *const old[] = { "{'output':{'text':'a','finish_reason':'null'}}",
		"{'output':{'text':'b','finish_reason':'length'}}", NULL };
	struct conversion with_usage = qwen_client;

	(void)state;
	with_usage.include_usage = true;
	assert_lines(&with_usage, lines, "thinking(h) text(\xe4\xbd\xa0" "b) stop(stop) usage(10,2)");
	assert_lines(&qwen_client, pieces_of_tools, "tool(k,f,{}) stop(tool_calls)");
	assert_lines(&qwen_client, old, "text(ab) stop(length)");
}

static void test_cumulative_generation(void **state)
{
	static const char *const lines[] = { PIECE("{'content':'a'}", "null"), PIECE("{"
		"'content':'a\xe4\xbd\xa0'}", "null"),
		PIECE("{'content':'a\xe4\xbd\xa0','tool_calls':[{'id':'k','type':'function','function':{"
			"'name':'f','arguments':'{'}}]}",
		      "null"),
		PIECE("{'content':'a\xe4\xbd\xa0','tool_calls':[{'id':'k','type':'function','function':{"
			"'name':'f','arguments':'{}'}},"
		      "{'id':'l','type':'function','function':{'name':'g','arguments':'{}'}}]}", "tool_calls"), NULL };
	struct conversion about = qwen_client;

	(void)state;
	about.is_cumulative = true;
	assert_lines(&about, lines, "text(a\xe4\xbd\xa0) tool(k,f,{}) tool(l,g,{}) stop(tool_calls)");
}

static void test_errors_of_generation(void **state)
{
	static const char *const lines[] = { PIECE("{'content':'a'}", "null"), "{"
		"'code':'Throttling.RateQuota','message':'slow',"
		"'request_id':'r'}", PIECE("{'content':'b'}", "stop"), NULL };

	(void)state;
	assert_lines(&qwen_client, lines, "text(a) error(slow)");
	assert_non_null(strstr(convert_pieces(&qwen_client, make_stream(AI_GENERATION, lines), 99, NULL).p,
		"{\"error\":{\"message\":\"slow\",\"type\":\"rate_limit_error\",\"param\":null,"
		"\"code\":\"Throttling.RateQuota\"}}"));
}

/* ---- there and back ---- */

static void test_round_trip_of_streams(void **state)
{
	static const char *const lines[] = { START, TEXT_START(0), TEXT(0, "a\xf0\x9f\x98\x80\\n"), STOP(0),
		TOOL_START(1, "t1", "f"), JSON(1, "{[1"), JSON(1, "]}"), STOP(1), TOOL_START(2, "t2", "g"),
			STOP(2), END("tool_use"),
		OVER, NULL };
	struct conversion there = chat_client;
	struct str middle;

	(void)state;
	there.include_usage = true;
	middle = convert_pieces(&there, make_stream(AI_MESSAGES, lines), 50, NULL);
	assert_story(&messages_client, middle,
		"text(a\xf0\x9f\x98\x80\n) tool(t1,f,{[1]}) tool(t2,g,{}) stop(tool_use) usage(10,100,5)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KIT_TEST(test_text_to_events_exactly), KIT_TEST(test_text_and_thoughts_to_events),
			KIT_TEST(test_tools_to_events),
		KIT_TEST(test_mixed_tools_to_events), KIT_TEST(test_when_arguments_are_whole),
			KIT_TEST(test_odd_tools_to_events),
		KIT_TEST(test_where_events_end), KIT_TEST(test_cut_streams_stay_cut), KIT_TEST(test_errors_to_events),
		KIT_TEST(test_mixed_calls_are_bounded), KIT_TEST(test_text_to_chunks_exactly),
			KIT_TEST(test_tools_to_chunks),
		KIT_TEST(test_usage_and_ends_of_chunks), KIT_TEST(test_cut_events_stay_cut),
		KIT_TEST(test_too_many_tools_to_chunks), KIT_TEST(test_names_are_bounded),
		KIT_TEST(test_generation_to_chunks),
		KIT_TEST(test_cumulative_generation), KIT_TEST(test_errors_of_generation),
			KIT_TEST(test_round_trip_of_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
