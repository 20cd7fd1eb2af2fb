/*
 * Whole answers. What a server says beyond its API is passed over; where the heart of an answer is missing, it is none.
 */
#include "ai/convert_parts.h"

static bool is_type(const struct json *block, const char *type)
{
	return str_equal(json_text(block, "type"), str_of(type));
}

/* ---- why it ended, and what it cost ---- */

const char *convert_finish_reason(struct str stop_reason)
{
	static const struct { struct str from; const char *to; } reasons[] = {
		{ STR("max_tokens"), "length" }, { STR("model_context_window_exceeded"), "length" },
		{ STR("length"), "length" }, { STR("tool_use"), "tool_calls" }, { STR("tool_calls"), "tool_calls" },
		{ STR("refusal"), "content_filter" }, { STR("content_filter"), "content_filter" },
	};

	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
		if (str_equal(stop_reason, reasons[i].from))
			return reasons[i].to;
	return "stop";
}

const char *convert_stop_reason(struct str finish_reason, bool has_tools)
{
	if (str_equal(finish_reason, STR("length")))
		return "max_tokens";
	if (str_equal(finish_reason, STR("content_filter")))
		return "refusal";
	/* A call that was forced ends with "stop". */
	return has_tools ? "tool_use" : "end_turn";
}

static int64_t field(const struct usage *u, enum usage_field f)
{
	return u->has & 1U << f ? u->of[f] : 0;
}

void convert_put_chat_usage(struct sbuf *out, const struct usage *u, enum ai_kind from)
{
	int64_t input = field(u, USAGE_INPUT), output = field(u, USAGE_OUTPUT);

	/* Anthropic counts what its cache took and gave apart. */
	if (from == AI_MESSAGES)
		input += field(u, USAGE_CACHED) + field(u, USAGE_CACHE_CREATION);
	put_open(out, "usage", '{');
	put_int(out, "prompt_tokens", input);
	put_int(out, "completion_tokens", output);
	put_int(out, "total_tokens", input + output);
	if (u->has & 1U << USAGE_CACHED) {
		put_open(out, "prompt_tokens_details", '{');
		put_int(out, "cached_tokens", u->of[USAGE_CACHED]);
		put_close(out, '}');
	}
	if (u->has & 1U << USAGE_REASONING) {
		put_open(out, "completion_tokens_details", '{');
		put_int(out, "reasoning_tokens", u->of[USAGE_REASONING]);
		put_close(out, '}');
	}
	put_close(out, '}');
}

void convert_put_message_usage(struct sbuf *out, const struct usage *u)
{
	int64_t input = field(u, USAGE_INPUT), cached = field(u, USAGE_CACHED);

	put_open(out, "usage", '{');
	put_int(out, "input_tokens", input > cached ? input - cached : 0);
	put_int(out, "cache_creation_input_tokens", 0);
	put_int(out, "cache_read_input_tokens", cached < input ? cached : input);
	put_int(out, "output_tokens", field(u, USAGE_OUTPUT));
	put_close(out, '}');
}

/* ---- OpenAI's from Anthropic's ---- */

static void put_id(struct sbuf *out, struct str id, const char *prefix)
{
	struct arena a = { 0 };

	put_text(out, "id", id.n ? id : convert_new_id(&a, prefix));
	arena_free(&a);
}

static void put_chat_head(const struct conversion *c, struct sbuf *out, struct str id, struct str model)
{
	put_root(out);
	put_id(out, id, "chatcmpl-");
	put_text(out, "object", STR("chat.completion"));
	put_int(out, "created", c->created);
	put_text(out, "model", model.n ? model : c->model);
	put_open(out, "choices", '[');
	put_open(out, NULL, '{');
	put_int(out, "index", 0);
	put_open(out, "message", '{');
	put_text(out, "role", STR("assistant"));
}

static void put_chat_tail(struct sbuf *out, const char *finish_reason)
{
	put_close(out, '}');
	put_null(out, "logprobs");
	put_text(out, "finish_reason", str_of(finish_reason));
	put_close(out, '}');
	put_close(out, ']');
}

static void put_said(struct sbuf *out, struct str text, struct str reasoning, bool has_calls)
{
	if (text.n == 0 && has_calls)
		put_null(out, "content");
	else
		put_text(out, "content", text);
	put_null(out, "refusal");
	if (reasoning.n)
		put_text(out, "reasoning_content", reasoning);
}

static void put_calls_of_message(struct sbuf *out, const struct json *content)
{
	put_open(out, "tool_calls", '[');
	for (const struct json *b = content->child; b; b = b->next) {
		const struct json *input = json_get(b, "input");

		if (!is_type(b, "tool_use"))
			continue;
		put_open(out, NULL, '{');
		put_id(out, json_text(b, "id"), "call_");
		put_text(out, "type", STR("function"));
		put_open(out, "function", '{');
		put_text(out, "name", json_text(b, "name"));
		if (input && input->type == JSON_OBJECT)
			put_node_as_text(out, "arguments", input);
		else
			put_text(out, "arguments", STR("{}"));
		put_close(out, '}');
		put_close(out, '}');
	}
	put_close(out, ']');
}

bool convert_message_to_chat(const struct conversion *c, const struct json *doc, struct sbuf *out)
{
	const struct json *content = json_get(doc, "content");
	struct sbuf text = { 0 }, reasoning = { 0 };
	struct usage usage = { 0 };
	bool has_calls = false;

	if (!is_type(doc, "message") || !content || content->type != JSON_ARRAY)
		return false;
	for (const struct json *b = content->child; b; b = b->next) {
		has_calls |= is_type(b, "tool_use");
		if (is_type(b, "text"))
			sbuf_add(&text, json_text(b, "text"));
		else if (is_type(b, "thinking"))
			sbuf_add(&reasoning, json_text(b, "thinking"));
	}
	put_chat_head(c, out, json_text(doc, "id"), json_text(doc, "model"));
	put_said(out, sbuf_str(&text), sbuf_str(&reasoning), has_calls);
	if (has_calls)
		put_calls_of_message(out, content);
	put_chat_tail(out, convert_finish_reason(json_text(doc, "stop_reason")));
	usage_take(&usage, AI_MESSAGES, doc);
	convert_put_chat_usage(out, &usage, AI_MESSAGES);
	put_close(out, '}');
	sbuf_free(&text);
	sbuf_free(&reasoning);
	return true;
}

/* ---- Anthropic's from OpenAI's ---- */

static void put_block(struct sbuf *out, const char *type, struct str text)
{
	if (text.n == 0)
		return;
	put_open(out, NULL, '{');
	put_text(out, "type", str_of(type));
	put_text(out, type, text);
	if (str_equal(str_of(type), STR("thinking")))
		put_text(out, "signature", STR(""));
	put_close(out, '}');
}

static void put_tool_uses(struct sbuf *out, const struct json *calls)
{
	for (const struct json *call = calls->child; call; call = call->next) {
		const struct json *function = json_get(call, "function");

		put_open(out, NULL, '{');
		put_text(out, "type", STR("tool_use"));
		put_id(out, json_text(call, "id"), "toolu_");
		put_text(out, "name", json_text(function, "name"));
		put_text_as_object(out, "input", json_text(function, "arguments"));
		put_close(out, '}');
	}
}

static void put_content_of_chat(struct sbuf *out, const struct json *message, const struct json *calls)
{
	struct sbuf text = { 0 };

	convert_join_texts(json_get(message, "content"), STR(""), &text);
	put_open(out, "content", '[');
	put_block(out, "thinking", convert_reasoning(message));
	put_block(out, "text", sbuf_str(&text));
	put_block(out, "text", json_text(message, "refusal"));
	if (calls)
		put_tool_uses(out, calls);
	put_close(out, ']');
	sbuf_free(&text);
}

/* Some servers say which text ended the answer. */
static void put_stop(struct sbuf *out, const struct json *choice, const struct json *message, bool has_calls)
{
	struct str reason = json_text(choice, "finish_reason"), sequence = json_text(choice, "stop_reason");
	const char *stop_reason = convert_stop_reason(reason, has_calls);

	if (json_text(message, "refusal").n)
		stop_reason = "refusal";
	if (str_equal(reason, STR("stop")) && sequence.n && !has_calls) {
		put_text(out, "stop_reason", STR("stop_sequence"));
		put_text(out, "stop_sequence", sequence);
		return;
	}
	put_text(out, "stop_reason", str_of(stop_reason));
	put_null(out, "stop_sequence");
}

bool convert_chat_to_message(const struct conversion *c, const struct json *doc, struct sbuf *out)
{
	const struct json *choices = json_get(doc, "choices"), *choice, *message, *calls;
	struct str model = json_text(doc, "model");
	struct usage usage = { 0 };

	choice = choices && choices->type == JSON_ARRAY ? choices->child : NULL;
	message = json_get(choice, "message");
	if (!message || message->type != JSON_OBJECT)
		return false;
	calls = json_get(message, "tool_calls");
	if (calls && (calls->type != JSON_ARRAY || calls->n == 0))
		calls = NULL;
	put_root(out);
	put_id(out, json_text(doc, "id"), "msg_");
	put_text(out, "type", STR("message"));
	put_text(out, "role", STR("assistant"));
	put_text(out, "model", model.n ? model : c->model);
	put_content_of_chat(out, message, calls);
	put_stop(out, choice, message, calls != NULL);
	usage_take(&usage, AI_CHAT, doc);
	convert_put_message_usage(out, &usage);
	put_close(out, '}');
	return true;
}

/* ---- OpenAI's from DashScope's ---- */

static void put_calls_of_generation(struct sbuf *out, const struct json *calls)
{
	put_open(out, "tool_calls", '[');
	for (const struct json *call = calls->child; call; call = call->next) {
		const struct json *function = json_get(call, "function");

		put_open(out, NULL, '{');
		put_id(out, json_text(call, "id"), "call_");
		put_text(out, "type", STR("function"));
		put_open(out, "function", '{');
		put_text(out, "name", json_text(function, "name"));
		put_text(out, "arguments", json_text(function, "arguments"));
		put_close(out, '}');
		put_close(out, '}');
	}
	put_close(out, ']');
}

bool convert_generation_to_chat(const struct conversion *c, const struct json *doc, struct sbuf *out)
{
	const struct json *output = json_get(doc, "output"), *choices = json_get(output, "choices");
	const struct json *choice, *message, *calls;
	struct str reason = json_text(output, "finish_reason");
	struct sbuf text = { 0 };
	struct usage usage = { 0 };

	choice = choices && choices->type == JSON_ARRAY ? choices->child : NULL;
	message = json_get(choice, "message");
	if (message ? message->type != JSON_OBJECT : !json_get(output, "text"))
		return false;
	calls = json_get(message, "tool_calls");
	if (calls && (calls->type != JSON_ARRAY || calls->n == 0))
		calls = NULL;
	convert_join_texts(message ? json_get(message, "content") : json_get(output, "text"), STR(""), &text);
	put_chat_head(c, out, json_text(doc, "request_id"), STR(""));
	put_said(out, sbuf_str(&text), convert_reasoning(message), calls != NULL);
	if (calls)
		put_calls_of_generation(out, calls);
	put_chat_tail(out, convert_finish_reason(choice ? json_text(choice, "finish_reason") : reason));
	usage_take(&usage, AI_GENERATION, doc);
	convert_put_chat_usage(out, &usage, AI_GENERATION);
	put_close(out, '}');
	sbuf_free(&text);
	return true;
}
