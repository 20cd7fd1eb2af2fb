/*
 * test_transcripts.c -- a thousand answers, made by chance for every API, cut into pieces in every way: the tokens, the
 * text and the tool calls that come out are those that were put in.
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

#define TRANSCRIPTS 1000

static uint64_t seed;

static unsigned draw(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)(seed % n);
}

/* What was put in. */
struct transcript {
	enum ai_kind kind;
	const char *line_end;
	struct sbuf stream, text, reasoning, tools[2];
	unsigned n_tools;
	int64_t input, output, cached;
	int64_t total;
	bool says_total;
};

static void end_line(struct transcript *t)
{
	sbuf_add(&t->stream, str_of(t->line_end));
}

static void put_event(struct transcript *t, const char *type, const char *format, ...) PRINTF(3, 4);

/* data: JSON without line breaks; sometimes in two lines, between a member and the next. */
static void put_event(struct transcript *t, const char *type, const char *format, ...)
{
	struct sbuf data = { 0 };
	char buffer[2048];
	va_list args;
	size_t cut;

	va_start(args, format);
	vsnprintf(buffer, sizeof(buffer), format, args);
	va_end(args);
	sbuf_add(&data, str_of(buffer));
	if (draw(8) == 0) {
		SBUF_LIT(&t->stream, ": ping");
		end_line(t);
		if (draw(2))
			end_line(t);
	}
	if (type) {
		sbuf_addf(&t->stream, draw(2) ? "event: %s" : "event:%s", type);
		end_line(t);
	}
	cut = draw(4) == 0 && data.p[0] == '{' ? 1 : 0;
	SBUF_LIT(&t->stream, "data:");
	if (draw(4))
		sbuf_addc(&t->stream, ' ');
	if (cut) {
		sbuf_addc(&t->stream, '{');
		end_line(t);
		SBUF_LIT(&t->stream, "data: ");
	}
	sbuf_add(&t->stream, (struct str){ data.p + cut, data.n - cut });
	end_line(t);
	end_line(t);
	sbuf_free(&data);
}

static const char *draw_text(void)
{
	static const char *const texts[] = {
		"a", "Hello", " world", "\xe4\xbd\xa0\xe5\xa5\xbd", "\xf0\x9f\x98\x80", "x y z", "caf\xc3\xa9", "1",
		".", "data: ", " ", "[DONE]",
	};

	return texts[draw(sizeof(texts) / sizeof(texts[0]))];
}

static const char *draw_piece(struct sbuf *of)
{
	const char *text = draw_text();

	sbuf_add(of, str_of(text));
	return text;
}

/* "usage" where it says nothing. */
static const char *no_usage(void)
{
	static const char *const none[] = { "", ",\"usage\":null", ",\"usage\":{}" };

	return none[draw(3)];
}

static void put_chat(struct transcript *t)
{
	static const char *const no_choices[] = { "\"choices\":[],", "\"choices\":null,", "" };
	unsigned n = draw(20);

	for (unsigned i = 0; i < n; i++) {
		unsigned what = draw(4);

		if (what == 0) {
			put_event(t, NULL, "{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning_conte"
					   "nt\":\"%s\"}}]%s}",
				  draw_piece(&t->reasoning), no_usage());
		} else if (what == 1) {
			unsigned at = t->n_tools < 2 ? t->n_tools++ : draw(2);

			put_event(t, NULL, "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":%u,"
					   "\"function\":"
				  "{\"arguments\":\"%s\"}}]}}]%s}", at, draw_piece(&t->tools[at]), no_usage());
		} else {
			put_event(t, NULL, "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_r"
					   "eason\":null}]%s}",
				  draw_piece(&t->text), no_usage());
		}
	}
	put_event(t, NULL, "{%s\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld%s,\"prompt_tokens_de"
			   "tails\":"
		  "{\"cached_tokens\":%lld}}}", no_choices[draw(3)], (long long)t->input, (long long)t->output,
		  t->says_total ? ",\"total_tokens\":123456" : "", (long long)t->cached);
	put_event(t, NULL, "[DONE]");
}

static void put_completions(struct transcript *t)
{
	unsigned n = draw(20);

	for (unsigned i = 0; i < n; i++)
		put_event(t, NULL, "{\"choices\":[{\"text\":\"%s\"}]%s}", draw_piece(&t->text), no_usage());
	put_event(t, NULL, "{\"choices\":[],\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld%s,"
		  "\"prompt_cache_hit_tokens\":%lld}}", (long long)t->input, (long long)t->output,
		  t->says_total ? ",\"total_tokens\":123456" : "", (long long)t->cached);
	put_event(t, NULL, "[DONE]");
}

static void put_responses(struct transcript *t)
{
	unsigned n = draw(20);

	put_event(t, "response.created", "{\"type\":\"response.created\",\"response\":{\"id\":\"r\"%s}}", no_usage());
	for (unsigned i = 0; i < n; i++) {
		if (draw(4) == 0)
			put_event(t, NULL, "{\"type\":\"response.reasoning_text.delta\",\"delta\":\"%s\"}",
				  draw_piece(&t->reasoning));
		else
			put_event(t, "response.output_text.delta",
				  "{\"type\":\"response.output_text.delta\",\"delta\":\"%s\"}", draw_piece(&t->text));
	}
	put_event(t, "response.completed", "{\"type\":\"response.completed\",\"response\":{\"status\":\"completed\","
		  "\"usage\":{\"input_tokens\":%lld,\"output_tokens\":%lld%s,\"input_tokens_details\":"
		  "{\"cached_tokens\":%lld}}}}", (long long)t->input, (long long)t->output,
		  t->says_total ? ",\"total_tokens\":123456" : "", (long long)t->cached);
}

static void put_messages(struct transcript *t)
{
	unsigned n = draw(20);

	t->says_total = false;
	t->total += t->cached;
	put_event(t, "message_start", "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":%lld,"
		  "\"cache_read_input_tokens\":%lld,\"output_tokens\":1}}}", (long long)t->input, (long long)t->cached);
	for (unsigned i = 0; i < n; i++) {
		if (draw(5) == 0)
			put_event(t, "ping", "{\"type\":\"ping\"}");
		if (draw(3) == 0)
			put_event(t, "content_block_delta", "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
				  "{\"type\":\"thinking_delta\",\"thinking\":\"%s\"}}", draw_piece(&t->reasoning));
		else
			put_event(t, "content_block_delta", "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":"
				  "{\"type\":\"text_delta\",\"text\":\"%s\"}}", draw_piece(&t->text));
	}
	put_event(t, "message_delta", "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":"
		  "{%s\"output_tokens\":%lld}}", draw(2) ? "\"input_tokens\":null," : "", (long long)t->output);
	put_event(t, "message_stop", "{\"type\":\"message_stop\"}");
}

/* Usage in each event, growing; with or without all of the text so far. */
static void put_generation(struct transcript *t)
{
	bool is_cumulative = draw(2);
	unsigned n = 3 + draw(12);

	for (unsigned i = 0; i < n; i++) {
		bool is_last = i == n - 1;
		/* The second piece tells which it is: what differs. */
		const char *piece = is_last ? "" : i == 0 ? "A" : i == 1 ? "b" : draw_text();

		sbuf_add(&t->text, str_of(piece));
		put_event(t, "result", "{\"output\":{\"choices\":[{\"message\":{\"content\":\"%.*s\"},\"finish_r"
				       "eason\":\"%s\"}]},"
			  "\"usage\":{\"input_tokens\":%lld,\"output_tokens\":%lld%s,\"prompt_tokens_details\":"
			  "{\"cached_tokens\":%lld}}}", is_cumulative ? (int)t->text.n : (int)strlen(piece),
			  is_cumulative ? t->text.p : piece, is_last ? "stop" : "null", (long long)t->input,
			  (long long)(is_last ? t->output : (int64_t)i),
			  t->says_total ? (is_last ? ",\"total_tokens\":123456" : ",\"total_tokens\":5") : "",
			  (long long)t->cached);
	}
}

static void put_app(struct transcript *t)
{
	unsigned n = draw(12);

	t->says_total = false;
	t->cached = -1;
	for (unsigned i = 0; i < n; i++) {
		sbuf_add(&t->text, str_of(i == 0 ? "A" : i == 1 ? "b" : "cd"));
		put_event(t, "result", "{\"output\":{\"text\":\"%s\",\"finish_reason\":\"null\"}%s}",
			  i == 0 ? "A" : i == 1 ? "b" : "cd", no_usage());
	}
	put_event(t, "result", "{\"output\":{\"text\":\"\",\"finish_reason\":\"stop\"},\"usage\":{\"models\":["
		  "{\"input_tokens\":%lld,\"output_tokens\":%lld},{\"input_tokens\":0,\"output_tokens\":0}]}}",
		  (long long)t->input, (long long)t->output);
}

static void put_dify(struct transcript *t)
{
	unsigned n = draw(20);

	t->cached = -1;
	for (unsigned i = 0; i < n; i++)
		put_event(t, NULL, "{\"event\":\"message\",\"answer\":\"%s\"}", draw_piece(&t->text));
	put_event(t, NULL, "{\"event\":\"message_end\",\"metadata\":{\"usage\":{\"prompt_tokens\":%lld,"
		  "\"completion_tokens\":%lld%s,\"total_price\":\"0.1\"}}}", (long long)t->input, (long long)t->output,
		  t->says_total ? ",\"total_tokens\":123456" : "");
}

static void make(struct transcript *t)
{
	static const struct {
		enum ai_kind kind;
		void (*put)(struct transcript *t);
	} kinds[] = {
		{ AI_CHAT, put_chat }, { AI_COMPLETIONS, put_completions }, { AI_RESPONSES, put_responses },
		{ AI_MESSAGES, put_messages }, { AI_GENERATION, put_generation }, { AI_APP, put_app },
		{ AI_DIFY_CHAT, put_dify }, { AI_DIFY_COMPLETION, put_dify },
	};
	static const char *const line_ends[] = { "\n", "\r\n", "\r" };
	unsigned kind = draw(sizeof(kinds) / sizeof(kinds[0]));

	*t = (struct transcript){ .kind = kinds[kind].kind, .line_end = line_ends[draw(3)], .input = draw(100000),
				  .output = draw(100000), .cached = draw(1000), .says_total = draw(2) };
	t->total = t->input + t->output;
	kinds[kind].put(t);
	if (t->says_total)
		t->total = 123456;
	/* The last blank line may be missing. */
	if (draw(4) == 0)
		t->stream.n -= strlen(t->line_end);
}

static void take(struct answer *a, const struct sse_event *e)
{
	struct arena arena = { 0 };
	struct problem why;
	const struct json *doc = NULL;

	if (e->data.n > 0 && e->data.p[0] == '{') {
		doc = json_parse(&arena, e->data, &why);
		assert_non_null(doc);
	}
	answer_take_event(a, e, doc);
	arena_free(&arena);
}

enum cutting { WHOLE, SINGLE_BYTES, BY_CHANCE };

static void read_stream(struct answer *a, struct str stream, enum cutting how)
{
	struct sse sse = { 0 };
	struct sse_event e;

	while (stream.n > 0) {
		size_t n = how == WHOLE ? stream.n : how == SINGLE_BYTES ? 1 : 1 + draw(200);

		n = n < stream.n ? n : stream.n;
		sse_give(&sse, (struct str){ stream.p, n });
		while (sse_next(&sse, &e) == SSE_EVENT)
			take(a, &e);
		stream.p += n;
		stream.n -= n;
	}
	if (sse_end(&sse, &e))
		take(a, &e);
	sse_free(&sse);
}

static void check_text(const struct sbuf *is, const struct sbuf *wanted)
{
	if (!str_equal(sbuf_str(is), sbuf_str(wanted)))
		fail_msg("%.*s, not %.*s", STR_FMT(*is), STR_FMT(*wanted));
}

static void check(const struct transcript *t, enum cutting how)
{
	struct answer a = { .kind = t->kind, .wants = ANSWER_TEXT };
	struct usage_estimate said = { 0 };

	read_stream(&a, sbuf_str(&t->stream), how);
	assert_true(a.is_complete);
	assert_false(a.has_error);
	assert_int_equal(a.usage.of[USAGE_INPUT], t->input);
	assert_int_equal(a.usage.of[USAGE_OUTPUT], t->output);
	assert_int_equal(a.usage.has & 1U << USAGE_CACHED ? a.usage.of[USAGE_CACHED] : -1, t->cached);
	assert_int_equal(usage_total(&a.usage, t->kind), t->total);
	check_text(&a.text, &t->text);
	check_text(&a.reasoning, &t->reasoning);
	assert_int_equal(a.n_tools, t->n_tools);
	for (unsigned i = 0; i < t->n_tools; i++)
		check_text(&a.tools[i].arguments, &t->tools[i]);
	usage_estimate_add(&said, sbuf_str(&t->text));
	usage_estimate_add(&said, sbuf_str(&t->reasoning));
	for (unsigned i = 0; i < t->n_tools; i++)
		usage_estimate_add(&said, sbuf_str(&t->tools[i]));
	assert_int_equal(usage_estimate_tokens(&a.said), usage_estimate_tokens(&said));
	answer_free(&a);
}

static void what_was_put_in_comes_out(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= TRANSCRIPTS; i++) {
		struct transcript t;

		seed = i * UINT64_C(0x9e3779b97f4a7c15);
		make(&t);
		check(&t, WHOLE);
		check(&t, SINGLE_BYTES);
		check(&t, BY_CHANCE);
		sbuf_free(&t.stream);
		sbuf_free(&t.text);
		sbuf_free(&t.reasoning);
		sbuf_free(&t.tools[0]);
		sbuf_free(&t.tools[1]);
	}
	assert_int_equal(budget.used, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_in_comes_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
