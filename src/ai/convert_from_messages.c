/*
 * A request of an Anthropic client as OpenAI's API has it.
 *
 * Results of tools, which are blocks of the user's message, become messages of their own before the rest of it. Images
 * cannot stand in those: they follow in the user's message. Several texts in a row become one string where nothing else
 * is among them: many servers that speak OpenAI's API know no parts.
 */
#include <stdio.h>
#include "ai/convert_parts.h"
#include "core/crypto.h"

#define USER_MAX 64                       /* bytes of `user` that OpenAI accepts */

static bool is_type(const struct json *block, const char *type)
{
	return str_equal(json_text(block, "type"), str_of(type));
}

/* Texts alone as one string. */
static bool put_joined_texts(struct sbuf *out, const struct json *content, struct str between, struct problem *why)
{
	struct sbuf text = { 0 };
	unsigned at = 0;

	for (const struct json *b = content->type == JSON_ARRAY ? content->child : NULL; b; b = b->next, at++)
		if (!is_type(b, "text") || !json_get(b, "text") || json_get(b, "text")->type != JSON_STRING)
			return problem(why, "", "must be a block of type text") || convert_in_item(why, "", at);
	convert_join_texts(content, between, &text);
	put_text(out, "content", sbuf_str(&text));
	sbuf_free(&text);
	return true;
}

static bool put_system(struct sbuf *out, const struct json *content, struct problem *why)
{
	if (content->type != JSON_STRING && content->type != JSON_ARRAY)
		return problem(why, "", "must be a string or a list of texts");
	if (content->type == JSON_STRING ? content->string.n == 0 : content->n == 0)
		return true;
	put_open(out, NULL, '{');
	put_text(out, "role", STR("system"));
	if (!put_joined_texts(out, content, STR("\n"), why))
		return false;
	put_close(out, '}');
	return true;
}

static bool put_text_part(struct sbuf *out, const struct json *block, struct problem *why)
{
	const struct json *text;

	if (!convert_get_typed(block, "text", JSON_STRING, &text, why))
		return false;
	put_open(out, NULL, '{');
	put_text(out, "type", STR("text"));
	put_text(out, "text", text ? text->string : STR(""));
	put_close(out, '}');
	return true;
}

/* A data URL of a base64 source; type and data have been looked at. */
static void put_data_url(struct sbuf *out, const char *name, const struct json *source)
{
	struct str type = json_text(source, "media_type"), data = json_text(source, "data");
	struct sbuf head = { 0 };

	SBUF_LIT(&head, "data:");
	sbuf_add(&head, type);
	SBUF_LIT(&head, ";base64,");
	put_joined(out, name, sbuf_str(&head), data);
	sbuf_free(&head);
}

static bool need_base64(const struct json *source, struct problem *why)
{
	struct str text;

	return convert_need_text(source, "media_type", &text, why) && convert_need_text(source, "data", &text, why);
}

static bool put_image(struct sbuf *out, const struct json *block, struct problem *why)
{
	const struct json *source;
	struct str url = { 0 };

	if (!convert_need_object(block, "source", &source, why))
		return false;
	if (is_type(source, "url") ? !convert_need_text(source, "url", &url, why)
	    : is_type(source, "base64") ? !need_base64(source, why)
	    : !convert_must(why, "type", "base64 or url")) {
		problem_prefix(why, "source");
		return false;
	}
	put_open(out, NULL, '{');
	put_text(out, "type", STR("image_url"));
	put_open(out, "image_url", '{');
	if (url.n)
		put_text(out, "url", url);
	else
		put_data_url(out, "url", source);
	put_close(out, '}');
	put_close(out, '}');
	return true;
}

static bool put_pdf(struct sbuf *out, const struct json *block, const struct json *source, struct problem *why)
{
	struct str title = json_text(block, "title");

	if (!need_base64(source, why))
		return false;
	put_open(out, NULL, '{');
	put_text(out, "type", STR("file"));
	put_open(out, "file", '{');
	put_text(out, "filename", title.n ? title : STR("document.pdf"));
	put_data_url(out, "file_data", source);
	put_close(out, '}');
	put_close(out, '}');
	return true;
}

static bool put_document(struct sbuf *out, const struct json *block, struct problem *why)
{
	const struct json *source;
	struct str text;

	if (json_is_true(json_get(block, "citations"), "enabled"))
		return convert_refuse(why, "citations");
	if (!convert_need_object(block, "source", &source, why))
		return false;
	if (is_type(source, "base64")) {
		if (put_pdf(out, block, source, why))
			return true;
	} else if (is_type(source, "text")) {
		if (convert_need_text(source, "data", &text, why)) {
			put_open(out, NULL, '{');
			put_text(out, "type", STR("text"));
			put_text(out, "text", text);
			put_close(out, '}');
			return true;
		}
	} else {
		convert_must(why, "type", "base64 or text");
	}
	problem_prefix(why, "source");
	return false;
}

static bool put_part(struct sbuf *out, const struct json *block, struct problem *why)
{
	if (is_type(block, "text"))
		return put_text_part(out, block, why);
	if (is_type(block, "image"))
		return put_image(out, block, why);
	if (is_type(block, "document"))
		return put_document(out, block, why);
	return convert_must_type(why, block, "a block of type text, image, document, tool_use or tool_result");
}

static bool is_text_only(const struct json *list)
{
	for (const struct json *b = list->child; b; b = b->next)
		if (!is_type(b, "text"))
			return false;
	return true;
}

/* ---- the user's messages ---- */

/* Images of a result, for the message behind it. */
static bool put_result_images(struct sbuf *out, const struct json *result, struct problem *why)
{
	const struct json *content = json_get(result, "content"), *b;
	bool is_first = true;
	unsigned at = 0;

	for (b = content && content->type == JSON_ARRAY ? content->child : NULL; b; b = b->next, at++) {
		if (is_type(b, "text"))
			continue;
		if (is_first) {
			put_open(out, NULL, '{');
			put_text(out, "type", STR("text"));
			put_joined(out, "text", STR("Belongs to the result of the tool call "),
			           json_text(result, "tool_use_id"));
			put_close(out, '}');
		}
		is_first = false;
		if (!put_part(out, b, why))
			return convert_in_item(why, "content", at);
	}
	return true;
}

static bool put_result(struct sbuf *out, const struct json *block, struct problem *why)
{
	const struct json *content = convert_get(block, "content");
	struct sbuf text = { 0 };
	struct str id;

	if (!convert_need_text(block, "tool_use_id", &id, why))
		return false;
	if (content && content->type != JSON_STRING && content->type != JSON_ARRAY)
		return problem(why, "content", "must be a string or a list of blocks");
	put_open(out, NULL, '{');
	put_text(out, "role", STR("tool"));
	put_text(out, "tool_call_id", id);
	convert_join_texts(content, STR("\n"), &text);
	put_text(out, "content", sbuf_str(&text));
	sbuf_free(&text);
	put_close(out, '}');
	return true;
}

/* Whether something is left for the user when the texts of results have become messages. */
static bool has_rest(const struct json *list)
{
	for (const struct json *b = list->child; b; b = b->next) {
		const struct json *content = json_get(b, "content");

		if (!is_type(b, "tool_result") || (content && content->type == JSON_ARRAY && !is_text_only(content)))
			return true;
	}
	return false;
}

static bool put_rest(struct sbuf *out, const struct json *list, struct problem *why)
{
	unsigned at = 0;

	put_open(out, "content", '[');
	for (const struct json *b = list->child; b; b = b->next, at++)
		if (is_type(b, "tool_result") ? !put_result_images(out, b, why) : !put_part(out, b, why))
			return convert_in_item(why, "content", at);
	put_close(out, ']');
	return true;
}

/* Where results stand before the texts, only the texts count for the string. */
static bool is_plain_rest(const struct json *list)
{
	for (const struct json *b = list->child; b; b = b->next) {
		const struct json *content = json_get(b, "content");

		if (is_type(b, "tool_result") ? content && content->type == JSON_ARRAY && !is_text_only(content)
		                              : !is_type(b, "text"))
			return false;
	}
	return true;
}

static bool put_user(struct sbuf *out, const struct json *content, struct problem *why)
{
	unsigned at = 0;

	if (content->type == JSON_ARRAY) {
		for (const struct json *b = content->child; b; b = b->next, at++)
			if (is_type(b, "tool_result") && !put_result(out, b, why))
				return convert_in_item(why, "content", at);
		if (!has_rest(content))
			return true;
	}
	put_open(out, NULL, '{');
	put_text(out, "role", STR("user"));
	if (content->type == JSON_STRING) {
		put_node(out, "content", content);
	} else if (is_plain_rest(content)) {
		struct sbuf text = { 0 };

		convert_join_texts(content, STR("\n"), &text);
		put_text(out, "content", sbuf_str(&text));
		sbuf_free(&text);
	} else if (!put_rest(out, content, why)) {
		return false;
	}
	put_close(out, '}');
	return true;
}

/* ---- the assistant's ---- */

static bool put_call(struct sbuf *out, const struct json *block, struct problem *why)
{
	const struct json *input;
	struct str id, name;

	if (!convert_need_text(block, "id", &id, why) || !convert_need_text(block, "name", &name, why) ||
	    !convert_get_typed(block, "input", JSON_OBJECT, &input, why))
		return false;
	put_open(out, NULL, '{');
	put_text(out, "id", id);
	put_text(out, "type", STR("function"));
	put_open(out, "function", '{');
	put_text(out, "name", name);
	if (input)
		put_node_as_text(out, "arguments", input);
	else
		put_text(out, "arguments", STR("{}"));
	put_close(out, '}');
	put_close(out, '}');
	return true;
}

/* Thoughts stay behind: OpenAI's API takes none back. */
static bool check_said(const struct json *list, bool *has_text, bool *has_calls, struct problem *why)
{
	unsigned at = 0;

	*has_text = *has_calls = false;
	for (const struct json *b = list->child; b; b = b->next, at++) {
		if (is_type(b, "text"))
			*has_text = true;
		else if (is_type(b, "tool_use"))
			*has_calls = true;
		else if (!is_type(b, "thinking") && !is_type(b, "redacted_thinking"))
			return convert_must_type(why, b, "a block of type text, tool_use or thinking") ||
			       convert_in_item(why, "content", at);
	}
	return true;
}

static bool put_said(struct sbuf *out, const struct json *list, struct problem *why)
{
	bool has_text, has_calls;
	unsigned at = 0;

	if (!check_said(list, &has_text, &has_calls, why))
		return false;
	put_open(out, NULL, '{');
	put_text(out, "role", STR("assistant"));
	if (has_text || !has_calls) {
		struct sbuf text = { 0 };

		convert_join_texts(list, STR(""), &text);
		put_text(out, "content", sbuf_str(&text));
		sbuf_free(&text);
	} else {
		put_null(out, "content");
	}
	if (has_calls)
		put_open(out, "tool_calls", '[');
	for (const struct json *b = list->child; b; b = b->next, at++)
		if (is_type(b, "tool_use") && !put_call(out, b, why))
			return convert_in_item(why, "content", at);
	if (has_calls)
		put_close(out, ']');
	put_close(out, '}');
	return true;
}

static bool put_assistant(struct sbuf *out, const struct json *content, bool is_last, struct problem *why)
{
	if (is_last)
		return problem(why, "", "the API of the model service takes no beginning of an answer");
	if (content->type == JSON_ARRAY)
		return put_said(out, content, why);
	put_open(out, NULL, '{');
	put_text(out, "role", STR("assistant"));
	put_node(out, "content", content);
	put_close(out, '}');
	return true;
}

static bool put_message(struct sbuf *out, const struct json *message, struct problem *why)
{
	const struct json *content = convert_get(message, "content");
	struct str role;

	if (message->type != JSON_OBJECT)
		return problem(why, "", "must be an object");
	if (!convert_need_text(message, "role", &role, why))
		return false;
	if (!content || (content->type != JSON_STRING && content->type != JSON_ARRAY))
		return problem(why, "content", "must be a string or a list of blocks");
	if (str_equal(role, STR("user")))
		return put_user(out, content, why);
	if (str_equal(role, STR("assistant")))
		return put_assistant(out, content, !message->next, why);
	if (str_equal(role, STR("system"))) {
		if (put_system(out, content, why))
			return true;
		problem_prefix(why, "content");
		return false;
	}
	return problem(why, "role", "must be user or assistant");
}

static bool put_messages(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *messages, *system = convert_get(body, "system");
	unsigned at = 0;

	if (!convert_need_list(body, "messages", &messages, why))
		return false;
	put_open(out, "messages", '[');
	if (system && !put_system(out, system, why)) {
		problem_prefix(why, "system");
		return false;
	}
	for (const struct json *m = messages->child; m; m = m->next, at++)
		if (!put_message(out, m, why))
			return convert_in_item(why, "messages", at);
	put_close(out, ']');
	return true;
}

/* ---- tools and the rest ---- */

static bool put_tool(struct sbuf *out, const struct json *tool, struct problem *why)
{
	static const struct member copied[] = {
		{ "description", MEMBER_TEXT, NULL }, { "input_schema", MEMBER_OBJECT, "parameters" },
		{ "strict", MEMBER_BOOL, NULL },
	};
	struct str type = json_text(tool, "type"), name;

	if (type.n && !str_equal(type, STR("custom")))
		return convert_refuse(why, "type");
	if (!convert_need_text(tool, "name", &name, why))
		return false;
	put_open(out, NULL, '{');
	put_text(out, "type", STR("function"));
	put_open(out, "function", '{');
	put_text(out, "name", name);
	if (!CONVERT_MEMBERS(copied, tool, out, why))
		return false;
	put_close(out, '}');
	put_close(out, '}');
	return true;
}

static bool put_choice(struct sbuf *out, const struct json *choice, struct problem *why)
{
	struct str name;

	if (is_type(choice, "auto") || is_type(choice, "none")) {
		put_text(out, "tool_choice", json_text(choice, "type"));
	} else if (is_type(choice, "any")) {
		put_text(out, "tool_choice", STR("required"));
	} else if (is_type(choice, "tool")) {
		if (!convert_need_text(choice, "name", &name, why))
			return false;
		put_open(out, "tool_choice", '{');
		put_text(out, "type", STR("function"));
		put_open(out, "function", '{');
		put_text(out, "name", name);
		put_close(out, '}');
		put_close(out, '}');
	} else {
		return problem(why, "type", "must be auto, any, tool or none");
	}
	if (json_is_true(choice, "disable_parallel_tool_use"))
		put_bool(out, "parallel_tool_calls", false);
	return true;
}

static bool put_tools(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *tools, *choice;
	unsigned at = 0;

	if (!convert_get_typed(body, "tools", JSON_ARRAY, &tools, why) ||
	    !convert_get_typed(body, "tool_choice", JSON_OBJECT, &choice, why))
		return false;
	if (!tools || tools->n == 0)
		return true;
	put_open(out, "tools", '[');
	for (const struct json *tool = tools->child; tool; tool = tool->next, at++)
		if (!put_tool(out, tool, why))
			return convert_in_item(why, "tools", at);
	put_close(out, ']');
	if (choice && !put_choice(out, choice, why)) {
		problem_prefix(why, "tool_choice");
		return false;
	}
	return true;
}

static bool put_format(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *format = convert_get(convert_get(body, "output_config"), "format"), *schema;

	format = format ? format : convert_get(body, "output_format");
	if (!format)
		return true;
	if (!is_type(format, "json_schema"))
		return problem(why, "output_config.format.type", "must be json_schema");
	if (!convert_need_object(format, "schema", &schema, why)) {
		problem_prefix(why, "output_config.format");
		return false;
	}
	put_open(out, "response_format", '{');
	put_text(out, "type", STR("json_schema"));
	put_open(out, "json_schema", '{');
	put_text(out, "name", STR("answer"));
	put_bool(out, "strict", true);
	put_node(out, "schema", schema);
	put_close(out, '}');
	put_close(out, '}');
	return true;
}

/* Longer names of users become their SHA-256, which is as long as may be: the same user stays the same. */
static void put_user_id(struct sbuf *out, const struct json *body)
{
	struct str id = json_text(json_get(body, "metadata"), "user_id");
	char hex[2 * 32 + 1];
	uint8_t digest[32];

	if (id.n == 0)
		return;
	if (id.n > USER_MAX) {
		crypto_sha256(id, digest);
		for (size_t i = 0; i < sizeof digest; i++)
			snprintf(hex + 2 * i, 3, "%02x", digest[i]);
		id = (struct str){ hex, USER_MAX };
	}
	put_text(out, "user", id);
}

/* OpenAI's own models of today refuse max_tokens; servers of other models may know nothing else. */
static const char *name_limit(struct str model)
{
	size_t slash = str_find(model, '/');
	struct str openai = STR("openai/");

	if (str_starts(model, openai))
		model = (struct str){ model.p + slash + 1, model.n - slash - 1 };
	bool is_o = model.n >= 2 && model.p[0] == 'o' && model.p[1] >= '1' && model.p[1] <= '9';
	bool is_gpt = str_starts(model, STR("gpt-")) && !str_starts(model, STR("gpt-oss"));

	return is_o || is_gpt || str_starts(model, STR("chatgpt-")) ? "max_completion_tokens" : "max_tokens";
}

static void put_stream(struct conversion *c, struct sbuf *out)
{
	if (!c->is_stream)
		return;
	put_bool(out, "stream", true);
	put_open(out, "stream_options", '{');
	put_bool(out, "include_usage", true);
	put_close(out, '}');
}

bool convert_messages_to_chat(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why)
{
	static const struct member refused[] = {
		{ "container", MEMBER_NONE, NULL }, { "mcp_servers", MEMBER_EMPTY, NULL },
		{ "inference_geo", MEMBER_NONE, NULL },
	};
	const struct member copied[] = {
		{ "max_tokens", MEMBER_NUMBER, name_limit(c->model) }, { "temperature", MEMBER_NUMBER, NULL },
		{ "top_p", MEMBER_NUMBER, NULL },
	};
	const struct json *stop, *stream;

	if (!CONVERT_MEMBERS(refused, body, NULL, why) ||
	    !convert_get_typed(body, "stop_sequences", JSON_ARRAY, &stop, why) ||
	    !convert_get_typed(body, "stream", JSON_BOOL, &stream, why))
		return false;
	c->is_stream = stream && stream->boolean;
	put_root(out);
	put_text(out, "model", c->model);
	if (!put_messages(out, body, why) || !put_tools(out, body, why) || !put_format(out, body, why) ||
	    !CONVERT_MEMBERS(copied, body, out, why))
		return false;
	put_user_id(out, body);
	if (stop && stop->n > 0)
		put_node(out, "stop", stop);
	put_stream(c, out);
	put_close(out, '}');
	return true;
}
