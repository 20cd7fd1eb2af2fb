/* test_render.c -- answers and errors of ours in the shapes of the APIs, whole and as streams. room: ai */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "ai/render.h"
#include <cmocka.h>

/* Quotes, newlines, what printf and SSE would take for their own, and characters of all lengths. */
static const char nasty[] = "He said \"hi\\\" %s %n\r\n\ndata: [DONE]\n\n"
	"\x01\t{\"a\":1}</script> \xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd "
	"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80";
static const enum ai_kind kinds[] = { AI_CHAT, AI_COMPLETIONS, AI_RESPONSES, AI_MESSAGES, AI_GENERATION,
	AI_APP, AI_DIFY_CHAT, AI_DIFY_COMPLETION };
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

static struct rendered sample(enum ai_kind kind, struct str text)
{
	return (struct rendered){ .kind = kind, .model = STR("qwen-max"), .text = text, .finish = STR("stop"),
		.form = RENDER_FORM_MESSAGE, .seed = 7, .now_ms = 1790000000123 };
}

static const struct json *parse(struct arena *a, struct str text)
{
	struct problem why = { 0 };
	const struct json *doc = json_parse(a, text, &why);

	if (!doc)
		fail_msg("%s in %.*s", why.text, STR_FMT(text));
	return doc;
}

static const struct json *at(const struct json *v, unsigned i)
{
	assert_non_null(v);
	for (v = v->child; v && i > 0; i--)
		v = v->next;
	assert_non_null(v);
	return v;
}

static void assert_text(struct str is, const char *expected)
{
	if (!str_equal(is, str_of(expected)))
		fail_msg("is \"%.*s\", expected \"%s\"", STR_FMT(is), expected);
}

static struct str text_of(enum ai_kind kind, const struct json *doc)
{
	const struct json *choice;

	if (kind == AI_APP)
		return json_text(json_get(doc, "output"), "text");
	if (kind == AI_DIFY_CHAT || kind == AI_DIFY_COMPLETION)
		return json_text(doc, "answer");
	if (kind == AI_MESSAGES)
		return json_text(at(json_get(doc, "content"), 0), "text");
	if (kind == AI_RESPONSES)
		return json_text(at(json_get(at(json_get(doc, "output"), 0), "content"), 0), "text");
	choice = at(json_get(kind == AI_GENERATION ? json_get(doc, "output") : doc, "choices"), 0);
	return kind == AI_COMPLETIONS ? json_text(choice, "text") : json_text(json_get(choice, "message"), "content");
}

static void test_bodies_hold_any_text(void **state)
{
	struct arena a = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < N_KINDS; i++) {
		struct rendered r = sample(kinds[i], str_of(nasty));
		const struct json *doc = parse(&a, render_body(&r, &a)), *usage = json_get(doc, "usage"), *field;


		assert_true(render_can(kinds[i]));
		assert_text(text_of(kinds[i], doc), nasty);
		if (!usage)
			usage = json_get(json_get(doc, "metadata"), "usage");
		assert_non_null(usage);
		for (field = usage->child; field; field = field->next)
			if (field->type == JSON_INT)
				assert_int_equal(field->integer, 0);
		if (kinds[i] < AI_GENERATION)
			assert_text(json_text(doc, "model"), "qwen-max");
	}
	assert_false(render_can(AI_NONE));
	assert_false(render_can(AI_EMBEDDINGS));
	assert_false(render_can(AI_DIFY_WORKFLOW));
	arena_free(&a);
}

static void test_ends_are_the_kinds_own(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_MESSAGES, STR("x"));

	(void)state;
	assert_text(json_text(parse(&a, render_body(&r, &a)), "stop_reason"), "end_turn");
	r.finish = STR("content_filter");
	assert_text(json_text(parse(&a, render_body(&r, &a)), "stop_reason"), "end_turn");
	r.finish = STR("length");
	assert_text(json_text(parse(&a, render_body(&r, &a)), "stop_reason"), "max_tokens");
	r = sample(AI_CHAT, STR("x"));
	r.finish = STR("content_filter");
	assert_text(json_text(at(json_get(parse(&a, render_body(&r, &a)), "choices"), 0), "finish_reason"),
		    "content_filter");
	r = sample(AI_RESPONSES, STR("x"));
	assert_text(json_text(parse(&a, render_body(&r, &a)), "status"), "completed");
	arena_free(&a);
}

static void test_ids_differ_by_seed(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_CHAT, STR("x")), other = r;
	struct str id, id2;

	(void)state;
	other.seed = 8;
	id = json_text(parse(&a, render_body(&r, &a)), "id");
	id2 = json_text(parse(&a, render_body(&other, &a)), "id");
	assert_true(str_starts(id, STR("chatcmpl-")));
	assert_int_equal(id.n, 9 + 24);
	assert_false(str_equal(id, id2));
	r.kind = AI_GENERATION;
	id = json_text(parse(&a, render_body(&r, &a)), "request_id");
	assert_int_equal(id.n, 36);
	assert_int_equal(id.p[8], '-');
	arena_free(&a);
}

static void test_dashscope_forms(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_GENERATION, STR("hello"));
	const struct json *output;

	(void)state;
	render_ask(&r, AI_GENERATION, STR("/api/v1/services/aigc/text-generation/generation"),
		   parse(&a, STR("{\"parameters\":{\"result_format\":\"text\"}}")));
	output = json_get(parse(&a, render_body(&r, &a)), "output");
	assert_text(json_text(output, "text"), "hello");
	assert_text(json_text(output, "finish_reason"), "stop");
	assert_null(json_get(output, "choices"));
	render_ask(&r, AI_GENERATION, STR("/api/v1/services/aigc/text-generation/generation"), parse(&a, STR("{}")));
	output = json_get(parse(&a, render_body(&r, &a)), "output");
	assert_text(json_text(output, "text"), "hello");
	assert_text(json_text(json_get(at(json_get(output, "choices"), 0), "message"), "content"), "hello");
	render_ask(&r, AI_GENERATION, STR("/api/v1/services/aigc/multimodal-generation/generation"), NULL);
	output = json_get(parse(&a, render_body(&r, &a)), "output");
	assert_text(json_text(at(json_get(json_get(at(json_get(output, "choices"), 0), "message"), "content"),
		0), "text"),
		    "hello");
	arena_free(&a);
}

/* ---------- streams ---------- */

struct replay {
	struct sbuf text, reasoning;
	unsigned n_events, n_deltas;
	bool is_done;
	struct str last_data, first_data;
};

static void take_delta(struct replay *p, enum ai_kind kind, const struct json *doc)
{
	const struct json *delta = doc;
	struct str piece = { NULL, 0 };

	if (kind == AI_CHAT || kind == AI_COMPLETIONS) {
		if (json_get(doc, "choices")->n == 0)
			return;
		delta = at(json_get(doc, "choices"), 0);
		piece = kind == AI_COMPLETIONS ? json_text(delta, "text") : json_text(json_get(delta, "delta"),
			"content");
		sbuf_add(&p->reasoning, json_text(json_get(delta, "delta"), "reasoning_content"));
	} else if (kind >= AI_GENERATION) {
		piece = text_of(kind, doc);
	} else if (str_equal(json_text(doc, "type"), STR("content_block_delta"))) {
		piece = json_text(json_get(doc, "delta"), "text");
	} else if (str_equal(json_text(doc, "type"), STR("response.output_text.delta"))) {
		piece = json_text(doc, "delta");
	}
	p->n_deltas += piece.n > 0;
	sbuf_add(&p->text, piece);
}

/* Reads a stream as a client does: events end at blank lines, none of which may be inside one. */
static void replay(struct replay *p, struct arena *a, enum ai_kind kind, struct str stream)
{
	struct str line, data = { NULL, 0 };

	assert_true(str_ends(stream, STR("\n\n")));
	*p = (struct replay){ 0 };
	while (str_split(&stream, '\n', &line)) {
		if (str_starts(line, STR("data:")))
			data = str_trim((struct str){ line.p + 5, line.n - 5 });
		if (line.n > 0 || data.n == 0)
			continue;
		assert_false(p->is_done);
		p->n_events++;
		p->is_done = str_equal(data, STR("[DONE]"));
		if (!p->is_done) {
			take_delta(p, kind, parse(a, data));
			p->last_data = data;
			p->first_data = p->first_data.n ? p->first_data : data;
		}
		data.n = 0;
	}
}

static void replay_free(struct replay *p)
{
	sbuf_free(&p->text);
	sbuf_free(&p->reasoning);
}

static void test_streams_hold_any_text(void **state)
{
	struct arena a = { 0 };
	struct sbuf longer = { 0 };
	struct replay p;
	size_t i, k;

	(void)state;
	for (i = 0; i < 200; i++)
		sbuf_add(&longer, str_of(nasty));
	for (i = 0; i < N_KINDS; i++)
		for (k = 0; k < 4; k++) {       /* another offset each time: pieces are cut everywhere */
			struct rendered r = sample(kinds[i], (struct str){ longer.p + k, longer.n - k });

			replay(&p, &a, kinds[i], render_stream(&r, &a));
			assert_true(str_equal(sbuf_str(&p.text), r.text));
			assert_true(kinds[i] == AI_GENERATION || kinds[i] == AI_APP || p.n_deltas > 5);
			assert_int_equal(p.is_done, kinds[i] == AI_CHAT || kinds[i] == AI_COMPLETIONS);
			replay_free(&p);
		}
	sbuf_free(&longer);
	arena_free(&a);
}

static void test_chunk_of_usage_only_if_asked(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_CHAT, STR("x"));
	struct replay p;
	const struct json *doc;

	(void)state;
	replay(&p, &a, AI_CHAT, render_stream(&r, &a));
	assert_int_equal(p.n_events, 3);
	doc = parse(&a, p.last_data);
	assert_null(json_get(doc, "usage"));
	assert_text(json_text(at(json_get(doc, "choices"), 0), "finish_reason"), "stop");
	assert_text(json_text(json_get(at(json_get(parse(&a, p.first_data), "choices"), 0), "delta"), "role"),
		"assistant");
	replay_free(&p);
	render_ask(&r, AI_CHAT, STR(""), parse(&a, STR("{\"stream_options\":{\"include_usage\":true}}")));
	replay(&p, &a, AI_CHAT, render_stream(&r, &a));
	assert_int_equal(p.n_events, 4);
	doc = parse(&a, p.last_data);
	assert_int_equal(json_get(doc, "choices")->n, 0);
	assert_int_equal(json_get(json_get(doc, "usage"), "total_tokens")->integer, 0);
	replay_free(&p);
	arena_free(&a);
}

static void test_reasoning_comes_first(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_CHAT, STR("answer"));
	struct replay p;

	(void)state;
	r.reasoning = STR("because");
	replay(&p, &a, AI_CHAT, render_stream(&r, &a));
	assert_text(sbuf_str(&p.text), "answer");
	assert_text(sbuf_str(&p.reasoning), "because");
	replay_free(&p);
	assert_text(json_text(json_get(at(json_get(parse(&a, render_body(&r, &a)), "choices"), 0), "message"),
			      "reasoning_content"), "because");
	r.kind = AI_MESSAGES;
	assert_int_equal(json_get(parse(&a, render_body(&r, &a)), "content")->n, 1);
	arena_free(&a);
}

/* ---------- ends of streams that began ---------- */

static void see(struct render_seen *seen, struct arena *a, enum ai_kind kind, const char *data)
{
	render_see(seen, a, kind, parse(a, str_of(data)));
}

static void test_chat_goes_on(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_CHAT, STR("No."));
	struct render_seen seen = { 0 };
	const struct json *doc;
	struct replay p;

	(void)state;
	r.finish = STR("content_filter");
	see(&seen, &a, AI_CHAT, "{\"id\":\"chatcmpl-up\",\"created\":5,\"model\":\"m2\",\"choices\":[]}");
	render_see(&seen, &a, AI_CHAT, NULL);
	replay(&p, &a, AI_CHAT, render_stream_rest(&r, &seen, &a));
	doc = parse(&a, p.first_data);
	assert_text(json_text(doc, "id"), "chatcmpl-up");
	assert_text(json_text(doc, "model"), "m2");
	assert_int_equal(json_get(doc, "created")->integer, 5);
	assert_null(json_get(json_get(at(json_get(doc, "choices"), 0), "delta"), "role"));
	assert_text(json_text(at(json_get(parse(&a, p.last_data), "choices"), 0), "finish_reason"), "content_filter");
	assert_true(p.is_done);
	replay_free(&p);
	arena_free(&a);
}

static unsigned count_of(struct str text, const char *what)
{
	unsigned n = 0;

	for (; text.n >= strlen(what); text.p++, text.n--)
		n += str_starts(text, str_of(what));
	return n;
}

static void test_messages_go_on(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_MESSAGES, STR("No."));
	struct render_seen seen = { 0 };
	struct str rest;

	(void)state;
	see(&seen, &a, AI_MESSAGES, "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_up\",\"model\":\"c\"}}");
	rest = render_stream_rest(&r, &seen, &a);
	assert_int_equal(count_of(rest, "\"message_start\""), 0);
	assert_int_equal(count_of(rest, "\"content_block_start\",\"index\":0"), 1);
	see(&seen, &a, AI_MESSAGES,
		"{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\"}}");
	rest = render_stream_rest(&r, &seen, &a);
	assert_int_equal(count_of(rest, "\"content_block_start\""), 0);
	assert_int_equal(count_of(rest, "\"content_block_stop\",\"index\":0"), 1);
	see(&seen, &a, AI_MESSAGES,
		"{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"thinking\"}}");
	rest = render_stream_rest(&r, &seen, &a);
	assert_int_equal(count_of(rest, "\"content_block_stop\",\"index\":1"), 1);
	assert_int_equal(count_of(rest, "\"content_block_start\",\"index\":2"), 1);
	assert_int_equal(count_of(rest, "\"content_block_stop\",\"index\":2"), 1);
	see(&seen, &a, AI_MESSAGES, "{\"type\":\"content_block_stop\",\"index\":1}");
	rest = render_stream_rest(&r, &seen, &a);
	assert_int_equal(count_of(rest, "\"content_block_start\",\"index\":2"), 1);
	assert_int_equal(count_of(rest, "\"message_stop\""), 1);
	arena_free(&a);
}

static void test_responses_go_on(void **state)
{
	struct arena a = { 0 };
	struct rendered r = sample(AI_RESPONSES, STR("No."));
	struct render_seen seen = { 0 };
	struct str rest;

	(void)state;
	see(&seen, &a, AI_RESPONSES, "{\"type\":\"response.created\",\"sequence_number\":0,"
	    "\"response\":{\"id\":\"resp_up\",\"model\":\"m\",\"created_at\":9}}");
	rest = render_stream_rest(&r, &seen, &a);
	assert_int_equal(count_of(rest, "response.created"), 0);
	assert_int_equal(count_of(rest, "\"sequence_number\":1,\"output_index\":0"), 1);
	see(&seen, &a, AI_RESPONSES,
		"{\"type\":\"response.output_item.added\",\"sequence_number\":1,\"output_index\":1,"
	    "\"item\":{\"id\":\"msg_up\"}}");
	see(&seen, &a, AI_RESPONSES,
		"{\"type\":\"response.content_part.added\",\"sequence_number\":2,\"output_index\":1,"
	    "\"content_index\":0,\"part\":{\"type\":\"output_text\"}}");
	rest = render_stream_rest(&r, &seen, &a);
	assert_int_equal(count_of(rest, "output_item.added"), 0);
	assert_int_equal(count_of(rest, "\"sequence_number\":3,\"item_id\":\"msg_up\",\"output_index\":1,"
				  "\"content_index\":0,\"delta\":\"No.\""), 1);
	assert_int_equal(count_of(rest, "\"id\":\"resp_up\""), 1);
	see(&seen, &a, AI_RESPONSES,
		"{\"type\":\"response.output_item.done\",\"sequence_number\":3,\"output_index\":1}");
	rest = render_stream_rest(&r, &seen, &a);
	assert_int_equal(count_of(rest,
		"\"type\":\"response.output_item.added\",\"sequence_number\":4,\"output_index\":2"), 1);
	arena_free(&a);
}

/* ---------- errors ---------- */

static struct str error_of(struct arena *a, enum ai_family family, int status, const char *code)
{
	struct render_fault f = { .family = family, .status = status, .code = str_of(code),
		.message = STR("no \"way\"\n"), .request_id = STR("r-1") };

	return render_error(a, &f);
}

static void test_errors(void **state)
{
	struct arena a = { 0 };

	(void)state;
	assert_text(error_of(&a, AI_FAMILY_OPENAI, 429, "rate_limit_exceeded"),
		"{\"error\":{\"message\":\"no \\\"way\\\"\\n\","
		    "\"type\":\"rate_limit_error\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}");
	assert_text(error_of(&a, AI_FAMILY_OPENAI, 502, NULL), "{\"error\":{\"message\":\"no \\\"way\\\"\\n\","
		    "\"type\":\"api_error\",\"param\":null,\"code\":null}}");
	assert_text(error_of(&a, AI_FAMILY_ANTHROPIC, 401, "invalid_api_key"), "{\"type\":\"error\",\"error\":"
		    "{\"type\":\"authentication_error\",\"message\":\"no \\\"way\\\"\\n\"}}");
	assert_text(error_of(&a, AI_FAMILY_DASHSCOPE, 404, "model_not_found"),
		    "{\"code\":\"model_not_found\",\"message\":\"no \\\"way\\\"\\n\",\"request_id\":\"r-1\"}");
	assert_text(error_of(&a, AI_FAMILY_DIFY, 413, NULL),
		    "{\"code\":\"request_too_large\",\"message\":\"no \\\"way\\\"\\n\",\"request_id\":\"r-1\"}");
	assert_string_equal(render_error_type(403), "permission_error");
	assert_string_equal(render_error_type(404), "not_found_error");
	assert_string_equal(render_error_type(400), "invalid_request_error");
	assert_string_equal(render_error_type(503), "api_error");
	arena_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bodies_hold_any_text),
		cmocka_unit_test(test_ends_are_the_kinds_own),
		cmocka_unit_test(test_ids_differ_by_seed),
		cmocka_unit_test(test_dashscope_forms),
		cmocka_unit_test(test_streams_hold_any_text),
		cmocka_unit_test(test_chunk_of_usage_only_if_asked),
		cmocka_unit_test(test_reasoning_comes_first),
		cmocka_unit_test(test_chat_goes_on),
		cmocka_unit_test(test_messages_go_on),
		cmocka_unit_test(test_responses_go_on),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
