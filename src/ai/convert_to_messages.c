/*
 * A request of an OpenAI client as Anthropic's API has it.
 *
 * System texts go to the front, wherever they stand. Messages of tools become blocks of the user's next message: what
 * one side says in a row is one message there, because servers want the sides to take turns. Empty texts are left out,
 * they are refused there.
 */
#include "ai/convert_parts.h"

struct talk {
	struct sbuf *out;
	const char *role;                 /* of the open message; NULL: none is open */
};

/* Blocks of `role` come now. */
static void open_message(struct talk *t, const char *role)
{
	if (t->role == role)
		return;
	if (t->role) {
		put_close(t->out, ']');
		put_close(t->out, '}');
	}
	t->role = role;
	if (!role)
		return;
	put_open(t->out, NULL, '{');
	put_text(t->out, "role", str_of(role));
	put_open(t->out, "content", '[');
}

static const char role_user[] = "user", role_assistant[] = "assistant";

/* Marks of Anthropic's prompt cache are known to many OpenAI clients. */
static void put_cache_mark(struct sbuf *out, const struct json *of)
{
	const struct json *mark = convert_get(of, "cache_control");

	if (mark && mark->type == JSON_OBJECT)
		put_node(out, "cache_control", mark);
}

static void put_text_block(struct sbuf *out, struct str text, const struct json *part)
{
	put_open(out, NULL, '{');
	put_text(out, "type", STR("text"));
	put_text(out, "text", text);
	put_cache_mark(out, part);
	put_close(out, '}');
}

static void put_source(struct sbuf *out, struct str type, struct str data)
{
	put_open(out, "source", '{');
	if (type.n == 0) {
		put_text(out, "type", STR("url"));
		put_text(out, "url", data);
	} else {
		put_text(out, "type", STR("base64"));
		put_text(out, "media_type", str_equal_nocase(type, STR("image/jpg")) ? STR("image/jpeg") : type);
		put_text(out, "data", data);
	}
	put_close(out, '}');
}

static bool is_web_address(struct str url)
{
	return str_starts(url, STR("https://")) || str_starts(url, STR("http://"));
}

static bool put_image(struct sbuf *out, const struct json *part, struct problem *why)
{
	const struct json *image;
	struct str url, type = { 0 }, data;

	if (!convert_need_object(part, "image_url", &image, why))
		return false;
	if (!convert_need_text(image, "url", &url, why)) {
		problem_prefix(why, "image_url");
		return false;
	}
	if (is_web_address(url))
		data = url;
	else if (!convert_split_data_url(url, &type, &data))
		return problem(why, "image_url.url", "must be a URL with http or https, or data:TYPE;base64,DATA");
	put_open(out, NULL, '{');
	put_text(out, "type", STR("image"));
	put_source(out, type, data);
	put_cache_mark(out, part);
	put_close(out, '}');
	return true;
}

static bool put_file(struct sbuf *out, const struct json *part, struct problem *why)
{
	const struct json *file;
	struct str type, data;

	if (!convert_need_object(part, "file", &file, why))
		return false;
	if (!convert_split_data_url(json_text(file, "file_data"), &type, &data) ||
	    !str_equal_nocase(type, STR("application/pdf")))
		return problem(why, "file.file_data", "must be data:application/pdf;base64,DATA; the API of the model "
		               "service knows no other files");
	put_open(out, NULL, '{');
	put_text(out, "type", STR("document"));
	put_source(out, type, data);
	if (json_text(file, "filename").n)
		put_text(out, "title", json_text(file, "filename"));
	put_cache_mark(out, part);
	put_close(out, '}');
	return true;
}

static bool put_part(struct sbuf *out, const struct json *part, struct problem *why)
{
	struct str type = json_text(part, "type");
	const struct json *text;

	if (str_equal(type, STR("image_url")))
		return put_image(out, part, why);
	if (str_equal(type, STR("file")))
		return put_file(out, part, why);
	if (str_equal(type, STR("text")) || str_equal(type, STR("refusal"))) {
		if (!convert_get_typed(part, type.p, JSON_STRING, &text, why))
			return false;
		if (text && text->string.n)
			put_text_block(out, text->string, part);
		return true;
	}
	return convert_must_type(why, part, "a part of type text, image_url, file or refusal");
}

/* The blocks of a message's content; the caller has opened their list. */
static bool put_content(struct sbuf *out, const struct json *message, struct problem *why)
{
	const struct json *content = convert_get(message, "content");
	unsigned at = 0;

	if (!content)
		return true;
	if (content->type == JSON_STRING) {
		if (content->string.n)
			put_text_block(out, content->string, message);
		return true;
	}
	if (content->type != JSON_ARRAY)
		return problem(why, "content", "must be a string or a list of parts");
	for (const struct json *part = content->child; part; part = part->next, at++)
		if (!put_part(out, part, why))
			return convert_in_item(why, "content", at);
	return true;
}

/* Ids may be of these characters only there; calls and results are changed alike. */
static void put_id(struct sbuf *out, const char *name, struct str id)
{
	struct sbuf clean = { 0 };

	sbuf_add(&clean, id);
	for (size_t i = 0; i < clean.n; i++) {
		char low = str_lower(clean.p[i]);
		bool is_fine = (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9') || low == '_' || low == '-';

		clean.p[i] = is_fine ? clean.p[i] : '_';
	}
	put_text(out, name, sbuf_str(&clean));
	sbuf_free(&clean);
}

static bool put_call(struct sbuf *out, const struct json *call, struct problem *why)
{
	struct str type = json_text(call, "type"), id, name;
	const struct json *function, *arguments;

	if (type.n && !str_equal(type, STR("function")))
		return convert_refuse(why, "type");
	if (!convert_need_text(call, "id", &id, why) || !convert_need_object(call, "function", &function, why))
		return false;
	if (!convert_need_text(function, "name", &name, why) ||
	    !convert_get_typed(function, "arguments", JSON_STRING, &arguments, why)) {
		problem_prefix(why, "function");
		return false;
	}
	put_open(out, NULL, '{');
	put_text(out, "type", STR("tool_use"));
	put_id(out, "id", id);
	put_text(out, "name", name);
	put_text_as_object(out, "input", arguments ? arguments->string : STR(""));
	put_cache_mark(out, call);
	put_close(out, '}');
	return true;
}

static bool put_calls(struct sbuf *out, const struct json *message, struct problem *why)
{
	const struct json *calls;
	unsigned at = 0;

	if (!convert_get_typed(message, "tool_calls", JSON_ARRAY, &calls, why))
		return false;
	for (const struct json *call = calls ? calls->child : NULL; call; call = call->next, at++)
		if (!put_call(out, call, why))
			return convert_in_item(why, "tool_calls", at);
	return true;
}

static bool put_said(struct sbuf *out, const struct json *message, struct problem *why)
{
	static const struct member refused[] = {
		{ "function_call", MEMBER_NONE, NULL }, { "audio", MEMBER_NONE, NULL },
	};
	struct str refusal = json_text(message, "refusal");

	if (!CONVERT_MEMBERS(refused, message, NULL, why) || !put_content(out, message, why))
		return false;
	if (refusal.n)
		put_text_block(out, refusal, NULL);
	return put_calls(out, message, why);
}

static bool put_result(struct sbuf *out, const struct json *message, struct problem *why)
{
	const struct json *content = convert_get(message, "content");
	struct str id;

	if (!convert_need_text(message, "tool_call_id", &id, why))
		return false;
	put_open(out, NULL, '{');
	put_text(out, "type", STR("tool_result"));
	put_id(out, "tool_use_id", id);
	if (content && content->type == JSON_STRING) {
		put_text(out, "content", content->string);
	} else {
		put_open(out, "content", '[');
		if (!put_content(out, message, why))
			return false;
		put_close(out, ']');
	}
	put_cache_mark(out, message);
	put_close(out, '}');
	return true;
}

typedef bool put_blocks(struct sbuf *out, const struct json *message, struct problem *why);

/* A message that has nothing to say is none. */
static bool put_turn(struct talk *t, const char *role, put_blocks *put, const struct json *message, struct problem *why)
{
	struct talk before = *t;
	size_t start = t->out->n, opened;

	open_message(t, role);
	opened = t->out->n;
	if (!put(t->out, message, why))
		return false;
	if (t->out->n == opened && before.role != role) {
		t->out->n = start;
		*t = before;
	}
	return true;
}

static bool is_system(const struct json *message)
{
	struct str role = json_text(message, "role");

	return str_equal(role, STR("system")) || str_equal(role, STR("developer"));
}

static bool put_message(struct talk *t, const struct json *message, struct problem *why)
{
	struct str role;

	if (message->type != JSON_OBJECT)
		return problem(why, "", "must be an object");
	if (!convert_need_text(message, "role", &role, why))
		return false;
	if (is_system(message))
		return true;
	if (str_equal(role, STR("user")))
		return put_turn(t, role_user, put_content, message, why);
	if (str_equal(role, STR("assistant")))
		return put_turn(t, role_assistant, put_said, message, why);
	if (str_equal(role, STR("tool")))
		return put_turn(t, role_user, put_result, message, why);
	return convert_must(why, "role", "system, developer, user, assistant or tool");
}

static bool put_system(struct sbuf *out, const struct json *messages, struct problem *why)
{
	size_t before = out->n, opened;
	unsigned at = 0;

	put_open(out, "system", '[');
	opened = out->n;
	for (const struct json *m = messages->child; m; m = m->next, at++)
		if (is_system(m) && !put_content(out, m, why))
			return convert_in_item(why, "messages", at);
	if (out->n == opened)
		out->n = before;
	else
		put_close(out, ']');
	return true;
}

static bool put_messages(struct sbuf *out, const struct json *messages, struct problem *why)
{
	struct talk t = { .out = out };
	unsigned at = 0;

	put_open(out, "messages", '[');
	for (const struct json *m = messages->child; m; m = m->next, at++)
		if (!put_message(&t, m, why))
			return convert_in_item(why, "messages", at);
	open_message(&t, NULL);
	put_close(out, ']');
	return true;
}

static bool put_stop(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *stop = convert_get(body, "stop");

	if (!stop || (stop->type == JSON_ARRAY && stop->n == 0))
		return true;
	if (stop->type == JSON_ARRAY) {
		put_node(out, "stop_sequences", stop);
		return true;
	}
	if (stop->type != JSON_STRING)
		return problem(why, "stop", "must be a string or a list of strings");
	put_open(out, "stop_sequences", '[');
	put_node(out, NULL, stop);
	put_close(out, ']');
	return true;
}

static bool put_tool(struct sbuf *out, const struct json *tool, struct problem *why)
{
	static const struct member copied[] = {
		{ "description", MEMBER_TEXT, NULL }, { "strict", MEMBER_BOOL, NULL },
	};
	const struct json *function, *schema;
	struct str name;

	if (!str_equal(json_text(tool, "type"), STR("function")))
		return convert_must(why, "type", "function");
	if (!convert_need_object(tool, "function", &function, why))
		return false;
	put_open(out, NULL, '{');
	if (!convert_need_text(function, "name", &name, why) ||
	    !convert_get_typed(function, "parameters", JSON_OBJECT, &schema, why) ||
	    !CONVERT_MEMBERS(copied, function, out, why)) {
		problem_prefix(why, "function");
		return false;
	}
	put_text(out, "name", name);
	if (schema && schema->n > 0) {
		put_node(out, "input_schema", schema);
	} else {
		put_open(out, "input_schema", '{');
		put_text(out, "type", STR("object"));
		put_open(out, "properties", '{');
		put_close(out, '}');
		put_close(out, '}');
	}
	put_cache_mark(out, tool);
	put_close(out, '}');
	return true;
}

static bool put_choice(struct sbuf *out, const struct json *body, struct problem *why)
{
	static const char *const words[] = { [CHOICE_UNSAID] = "auto", [CHOICE_AUTO] = "auto", [CHOICE_NONE] = "none",
		[CHOICE_REQUIRED] = "any", [CHOICE_NAMED] = "tool" };
	const struct json *parallel;
	enum chat_choice choice;
	struct str name;

	if (!convert_read_choice(body, &choice, &name, why) ||
	    !convert_get_typed(body, "parallel_tool_calls", JSON_BOOL, &parallel, why))
		return false;
	bool is_single = parallel && !parallel->boolean && choice != CHOICE_NONE;

	if (choice == CHOICE_UNSAID && !is_single)
		return true;
	put_open(out, "tool_choice", '{');
	put_text(out, "type", str_of(words[choice]));
	if (choice == CHOICE_NAMED)
		put_text(out, "name", name);
	if (is_single)
		put_bool(out, "disable_parallel_tool_use", true);
	put_close(out, '}');
	return true;
}

/* tool_choice without tools is refused there: where it asks for none of them, it may go. */
static bool put_tools(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *tools;
	struct str choice = json_text(body, "tool_choice");
	unsigned at = 0;

	if (!convert_get_typed(body, "tools", JSON_ARRAY, &tools, why))
		return false;
	if (!tools || tools->n == 0)
		return !convert_get(body, "tool_choice") || str_equal(choice, STR("auto")) ||
		       str_equal(choice, STR("none")) || problem(why, "tool_choice", "there are no tools");
	put_open(out, "tools", '[');
	for (const struct json *tool = tools->child; tool; tool = tool->next, at++)
		if (!put_tool(out, tool, why))
			return convert_in_item(why, "tools", at);
	put_close(out, ']');
	return put_choice(out, body, why);
}

static bool put_format(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *format, *wanted, *schema;
	struct str type;

	if (!convert_get_typed(body, "response_format", JSON_OBJECT, &format, why))
		return false;
	type = json_text(format, "type");
	if (!format || str_equal(type, STR("text")))
		return true;
	if (!str_equal(type, STR("json_schema")))
		return convert_must(why, "response_format.type", "text or json_schema");
	if (!convert_need_object(format, "json_schema", &wanted, why)) {
		problem_prefix(why, "response_format");
		return false;
	}
	if (!convert_need_object(wanted, "schema", &schema, why)) {
		problem_prefix(why, "response_format.json_schema");
		return false;
	}
	put_open(out, "output_config", '{');
	put_open(out, "format", '{');
	put_text(out, "type", STR("json_schema"));
	put_node(out, "schema", schema);
	put_close(out, '}');
	put_close(out, '}');
	return true;
}

/* Above 1 there is nothing: the most they have, as their own service for OpenAI clients does. */
static bool put_temperature(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *v;

	if (!convert_get_typed(body, "temperature", JSON_REAL, &v, why))
		return false;
	if (v && json_number(v) > 1)
		put_int(out, "temperature", 1);
	else if (v)
		put_node(out, "temperature", v);
	return true;
}

static bool put_limits(struct sbuf *out, const struct json *body, struct problem *why)
{
	const struct json *total, *old, *user;

	if (!convert_get_typed(body, "max_completion_tokens", JSON_INT, &total, why) ||
	    !convert_get_typed(body, "max_tokens", JSON_INT, &old, why) ||
	    !convert_get_typed(body, "user", JSON_STRING, &user, why) ||
	    (!user && !convert_get_typed(body, "safety_identifier", JSON_STRING, &user, why)))
		return false;
	total = total ? total : old;
	put_int(out, "max_tokens", total ? total->integer : CONVERT_MAX_TOKENS);
	if (user && user->string.n) {
		put_open(out, "metadata", '{');
		put_text(out, "user_id", user->string);
		put_close(out, '}');
	}
	return true;
}

bool convert_chat_to_messages(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why)
{
	static const struct member copied[] = {
		{ "top_p", MEMBER_NUMBER, NULL }, { "top_k", MEMBER_NUMBER, NULL }, { "stream", MEMBER_BOOL, NULL },
		{ "thinking", MEMBER_OBJECT, NULL },
	};
	const struct json *messages;

	if (!convert_check_chat(c, body, why) || !convert_need_list(body, "messages", &messages, why))
		return false;
	put_root(out);
	put_text(out, "model", c->model);
	if (!put_limits(out, body, why) || !put_system(out, messages, why) || !put_messages(out, messages, why) ||
	    !put_tools(out, body, why) || !put_format(out, body, why) || !put_stop(out, body, why) ||
	    !put_temperature(out, body, why) || !CONVERT_MEMBERS(copied, body, out, why))
		return false;
	put_close(out, '}');
	return true;
}
