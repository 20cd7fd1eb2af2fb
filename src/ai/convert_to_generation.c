/*
 * A request of an OpenAI client as DashScope's native API has it: the messages are OpenAI's but for images and roles,
 * and parameters have an object of their own.
 *
 * With images each message is a list of parts, which another path serves (is_multimodal). Streams are asked for piece
 * by piece, except with tools, where models of old say everything again in each event.
 */
#include "ai/convert_parts.h"

static bool is_type(const struct json *part, const char *type)
{
	return str_equal(json_text(part, "type"), str_of(type));
}

static bool put_part(struct sbuf *out, const struct json *part, struct problem *why)
{
	const struct json *image;
	struct str url;

	put_open(out, NULL, '{');
	if (is_type(part, "text")) {
		put_text(out, "text", json_text(part, "text"));
	} else if (is_type(part, "image_url")) {
		if (!convert_need_object(part, "image_url", &image, why))
			return false;
		if (!convert_need_text(image, "url", &url, why)) {
			problem_prefix(why, "image_url");
			return false;
		}
		put_text(out, "image", url);
	} else {
		return convert_must_type(why, part, "a part of type text or image_url");
	}
	put_close(out, '}');
	return true;
}

static bool put_parts(struct sbuf *out, const struct json *content, struct problem *why)
{
	unsigned at = 0;

	put_open(out, "content", '[');
	if (content && content->type == JSON_STRING) {
		put_open(out, NULL, '{');
		put_text(out, "text", content->string);
		put_close(out, '}');
	} else if (content) {
		for (const struct json *part = content->child; part; part = part->next, at++)
			if (!put_part(out, part, why))
				return convert_in_item(why, "content", at);
	}
	put_close(out, ']');
	return true;
}

static bool put_content(struct sbuf *out, const struct json *content, bool is_multimodal, struct problem *why)
{
	struct sbuf text = { 0 };
	unsigned at = 0;

	if (content && content->type != JSON_STRING && content->type != JSON_ARRAY)
		return problem(why, "content", "must be a string or a list of parts");
	if (is_multimodal)
		return put_parts(out, content, why);
	for (const struct json *part = content ? content->child : NULL; part; part = part->next, at++)
		if (!is_type(part, "text"))
			return convert_must_type(why, part, "a part of type text or image_url") ||
			       convert_in_item(why, "content", at);
	convert_join_texts(content, STR("\n"), &text);
	put_text(out, "content", sbuf_str(&text));
	sbuf_free(&text);
	return true;
}

static bool put_message(struct sbuf *out, const struct json *message, bool is_multimodal, struct problem *why)
{
	static const struct member refused[] = {
		{ "function_call", MEMBER_NONE, NULL }, { "audio", MEMBER_NONE, NULL },
	};
	static const struct member copied[] = { { "tool_call_id", MEMBER_TEXT, NULL } };
	const struct json *calls;
	struct str role;

	if (message->type != JSON_OBJECT)
		return problem(why, "", "must be an object");
	if (!convert_need_text(message, "role", &role, why) || !CONVERT_MEMBERS(refused, message, NULL, why) ||
	    !convert_get_typed(message, "tool_calls", JSON_ARRAY, &calls, why))
		return false;
	if (str_equal(role, STR("developer")))
		role = STR("system");
	if (!str_equal(role, STR("system")) && !str_equal(role, STR("user")) && !str_equal(role, STR("assistant")) &&
	    !str_equal(role, STR("tool")))
		return problem(why, "role", "must be system, developer, user, assistant or tool");
	put_open(out, NULL, '{');
	put_text(out, "role", role);
	if (!put_content(out, convert_get(message, "content"), is_multimodal, why) ||
	    !CONVERT_MEMBERS(copied, message, out, why))
		return false;
	if (calls && calls->n > 0)
		put_node(out, "tool_calls", calls);
	put_close(out, '}');
	return true;
}

static bool has_images(const struct json *messages)
{
	for (const struct json *m = messages->child; m; m = m->next) {
		const struct json *content = json_get(m, "content");

		for (const struct json *part = content ? content->child : NULL; part; part = part->next)
			if (is_type(part, "image_url"))
				return true;
	}
	return false;
}

static bool put_input(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why)
{
	const struct json *messages;
	unsigned at = 0;

	if (!convert_need_list(body, "messages", &messages, why))
		return false;
	c->is_multimodal = has_images(messages);
	put_open(out, "input", '{');
	put_open(out, "messages", '[');
	for (const struct json *m = messages->child; m; m = m->next, at++)
		if (!put_message(out, m, c->is_multimodal, why))
			return convert_in_item(why, "messages", at);
	put_close(out, ']');
	put_close(out, '}');
	return true;
}

static bool put_tools(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why)
{
	static const struct member copied[] = { { "parallel_tool_calls", MEMBER_BOOL, NULL } };
	const struct json *tools, *wanted;
	enum chat_choice choice;
	struct str name;

	if (!convert_get_typed(body, "tools", JSON_ARRAY, &tools, why) ||
	    !convert_read_choice(body, &choice, &name, why) ||
	    !convert_get_typed(body, "incremental_output", JSON_BOOL, &wanted, why))
		return false;
	if (choice == CHOICE_REQUIRED)
		return convert_must(why, "tool_choice", "auto, none or an object with a function");
	bool has_tools = tools && tools->n > 0, is_incremental = wanted ? wanted->boolean : !has_tools;

	c->is_cumulative = c->is_stream && !is_incremental;
	if (c->is_stream && is_incremental)
		put_bool(out, "incremental_output", true);
	if (!has_tools)
		return true;
	put_node(out, "tools", tools);
	if (choice != CHOICE_UNSAID)
		put_node(out, "tool_choice", json_get(body, "tool_choice"));
	return CONVERT_MEMBERS(copied, body, out, why);
}

static bool put_parameters(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why)
{
	static const struct member copied[] = {
		{ "temperature", MEMBER_NUMBER, NULL }, { "top_p", MEMBER_NUMBER, NULL },
		{ "top_k", MEMBER_NUMBER, NULL }, { "seed", MEMBER_NUMBER, NULL },
		{ "presence_penalty", MEMBER_NUMBER, NULL }, { "repetition_penalty", MEMBER_NUMBER, NULL },
		{ "response_format", MEMBER_OBJECT, NULL },
		{ "enable_thinking", MEMBER_BOOL, NULL }, { "thinking_budget", MEMBER_NUMBER, NULL },
		{ "enable_search", MEMBER_BOOL, NULL }, { "search_options", MEMBER_OBJECT, NULL },
	};
	const struct json *total, *old, *stop = convert_get(body, "stop");

	if (!convert_get_typed(body, "max_completion_tokens", JSON_INT, &total, why) ||
	    !convert_get_typed(body, "max_tokens", JSON_INT, &old, why))
		return false;
	total = total ? total : old;
	put_open(out, "parameters", '{');
	put_text(out, "result_format", STR("message"));
	if (total)
		put_node(out, "max_tokens", total);
	if (stop && stop->type != JSON_STRING && stop->type != JSON_ARRAY)
		return problem(why, "stop", "must be a string or a list of strings");
	if (stop && (stop->type == JSON_STRING || stop->n > 0))
		put_node(out, "stop", stop);
	if (!CONVERT_MEMBERS(copied, body, out, why) || !put_tools(c, body, out, why))
		return false;
	put_close(out, '}');
	return true;
}

bool convert_chat_to_generation(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why)
{
	if (!convert_check_chat(c, body, why))
		return false;
	put_root(out);
	put_text(out, "model", c->model);
	if (!put_input(c, body, out, why) || !put_parameters(c, body, out, why))
		return false;
	put_close(out, '}');
	return true;
}
