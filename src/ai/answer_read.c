/*
 * Where each API says what. Members that are missing, null or of another type say nothing: upstreams differ in small
 * ways, and what is not understood must not stop what is.
 */
#include "ai/answer_parts.h"

static const struct json *object_in(const struct json *object, const char *name)
{
	const struct json *member = object ? json_get(object, name) : NULL;

	return member && member->type == JSON_OBJECT ? member : NULL;
}

static const struct json *array_in(const struct json *object, const char *name)
{
	const struct json *member = object ? json_get(object, name) : NULL;

	return member && member->type == JSON_ARRAY ? member : NULL;
}

static int64_t index_in(const struct json *object, const char *name, int64_t otherwise)
{
	const struct json *member = json_get(object, name);

	return member && member->type == JSON_INT && member->integer >= 0 ? member->integer : otherwise;
}

static void note_more(struct saying *s, bool is_there)
{
	if (s->answer)
		s->answer->has_more |= is_there;
}

static bool has_items(const struct json *object, const char *name)
{
	const struct json *list = array_in(object, name);

	return list && list->child;
}

/* A value as JSON; texts as they are. */
static void write_value(struct sbuf *out, const struct json *value)
{
	if (value->type == JSON_STRING)
		sbuf_add(out, value->string);
	else if (value->type != JSON_NULL)
		json_write(out, value);
}

/* --- OpenAI chat and completions, DashScope's messages --- */

/* A string, or parts with a text each. */
static void read_content(struct saying *s, int64_t choice, const struct json *content)
{
	if (!content)
		return;
	if (content->type == JSON_STRING)
		say_text(s, choice, content->string);
	if (content->type != JSON_ARRAY)
		return;
	for (const struct json *part = content->child; part; part = part->next) {
		if (part->type != JSON_OBJECT)
			continue;
		say_text(s, choice, json_text(part, "text"));
		note_more(s, !json_get(part, "text"));
	}
}

static void read_tool_calls(struct saying *s, int64_t choice, const struct json *message)
{
	const struct json *calls = array_in(message, "tool_calls"), *legacy = object_in(message, "function_call");
	int64_t at = 0;

	for (const struct json *call = calls ? calls->child : NULL; call; call = call->next, at++) {
		const struct json *function = object_in(call, "function");

		if (call->type != JSON_OBJECT)
			continue;
		if (!function)
			function = object_in(call, "custom");
		struct tool_part part = {
			.index = index_in(call, "index", s->is_body ? at : -1),
			.id = json_text(call, "id"),
			.name = json_text(function, "name"),
			.arguments = json_text(function, "arguments"),
		};

		if (part.arguments.n == 0)
			part.arguments = json_text(function, "input");
		say_tool(s, choice, &part);
	}
	if (legacy)
		say_tool(s, choice, &(struct tool_part){ .name = json_text(legacy, "name"),
							 .arguments = json_text(legacy, "arguments") });
}

static void read_message(struct saying *s, int64_t choice, const struct json *message)
{
	struct str reasoning = json_text(message, "reasoning_content");

	if (reasoning.n == 0)
		reasoning = json_text(message, "reasoning");
	say_reasoning(s, choice, reasoning);
	read_content(s, choice, json_get(message, "content"));
	say_text(s, choice, json_text(message, "refusal"));
	note_more(s, json_text(message, "refusal").n > 0 || has_items(message, "annotations") ||
		  object_in(message, "audio"));
	read_tool_calls(s, choice, message);
}

/* DashScope writes the word. */
static struct str finish_of(const struct json *object)
{
	struct str finish = json_text(object, "finish_reason");

	return str_equal(finish, STR("null")) ? (struct str){ NULL, 0 } : finish;
}

static void read_choices(struct saying *s, const struct json *within)
{
	const struct json *choices = array_in(within, "choices");
	int64_t at = 0;

	for (const struct json *choice = choices ? choices->child : NULL; choice; choice = choice->next, at++) {
		const struct json *message = object_in(choice, "delta");
		int64_t index;

		if (choice->type != JSON_OBJECT)
			continue;
		index = index_in(choice, "index", at);
		say_choice(s, index);
		if (!message)
			message = object_in(choice, "message");
		if (index == 0) {
			s->is_last = finish_of(choice).n > 0;
			say_facts(s, STR(""), STR(""), finish_of(choice));
		}
		if (message)
			read_message(s, index, message);
		else
			say_text(s, index, json_text(choice, "text"));
	}
}

static void read_openai(struct saying *s, const struct json *doc)
{
	say_facts(s, json_text(doc, "id"), json_text(doc, "model"), STR(""));
	read_choices(s, doc);
}

/* --- OpenAI responses --- */

static bool is_call(struct str type)
{
	return str_ends(type, STR("_call")) && !str_equal(type, STR("file_search_call")) &&
	       !str_equal(type, STR("web_search_call"));
}

static void read_item(struct saying *s, int64_t index, const struct json *item, bool is_whole)
{
	struct str type = json_text(item, "type");
	const struct json *content = json_get(item, "content");

	if (is_call(type)) {
		struct tool_part part = { .index = index, .id = json_text(item, "call_id"),
					  .name = json_text(item, "name"), .arguments = json_text(item, "arguments"),
					  .is_whole = is_whole };

		if (part.arguments.n == 0)
			part.arguments = json_text(item, "input");
		say_tool(s, 0, &part);
		return;
	}
	note_more(s, !str_equal(type, STR("message")) && !str_equal(type, STR("reasoning")));
	if (!s->is_body)
		return;
	if (str_equal(type, STR("reasoning"))) {
		const struct json *summary = array_in(item, "summary"), *texts = array_in(item, "content");

		for (const struct json *part = summary ? summary->child : NULL; part; part = part->next)
			say_reasoning(s, 0, json_text(part, "text"));
		for (const struct json *part = texts ? texts->child : NULL; part; part = part->next)
			say_reasoning(s, 0, json_text(part, "text"));
		return;
	}
	for (const struct json *part = content && content->type == JSON_ARRAY ? content->child : NULL; part;
	     part = part->next) {
		say_text(s, 0, json_text(part, "text"));
		say_text(s, 0, json_text(part, "refusal"));
		note_more(s, json_text(part, "refusal").n > 0 || has_items(part, "annotations"));
	}
}

static void read_response(struct saying *s, const struct json *response)
{
	const struct json *output = array_in(response, "output");
	int64_t at = 0;

	if (!response)
		return;
	say_facts(s, json_text(response, "id"), json_text(response, "model"), json_text(response, "status"));
	if (!s->is_body)
		return;
	for (const struct json *item = output ? output->child : NULL; item; item = item->next, at++)
		if (item->type == JSON_OBJECT)
			read_item(s, at, item, true);
}

/* The event with the whole response: what it holds was told in pieces, unless this upstream tells none. */
static void read_response_end(struct saying *s, const struct json *response)
{
	s->holds |= ANSWER_HOLDS_END;
	s->is_body = s->answer && !s->answer->has_content;
	read_response(s, response);
	s->is_body = false;
}

static void read_responses_event(struct saying *s, struct str type, const struct json *doc)
{
	const struct json *response = object_in(doc, "response"), *item = object_in(doc, "item");
	int64_t index = index_in(doc, "output_index", -1);
	struct str delta = json_text(doc, "delta");

	if (!str_starts(type, STR("response.")))
		return;
	type.p += 9;
	type.n -= 9;
	note_more(s, str_starts(type, STR("refusal.")) || str_equal(type, STR("output_text.annotation.added")));
	if (str_equal(type, STR("output_text.delta")) || str_equal(type, STR("refusal.delta")))
		say_text(s, 0, delta);
	else if (str_starts(type, STR("reasoning")) && str_ends(type, STR(".delta")))
		say_reasoning(s, 0, delta);
	else if (str_ends(type, STR("_call_arguments.delta")) || str_ends(type, STR("_call_input.delta")))
		say_tool(s, 0, &(struct tool_part){ .index = index, .arguments = delta });
	else if (str_equal(type, STR("output_item.added")) && item)
		read_item(s, index, item, false);
	else if (str_equal(type, STR("output_item.done")) && item)
		read_item(s, index, item, true);
	else if (str_equal(type, STR("completed")) || str_equal(type, STR("failed")) ||
		 str_equal(type, STR("incomplete")))
		read_response_end(s, response);
	else
		read_response(s, response);
}

/* --- Anthropic --- */

static void read_block(struct saying *s, int64_t index, const struct json *block)
{
	struct str type = json_text(block, "type");
	const struct json *input = object_in(block, "input");
	struct sbuf arguments = { 0 };

	if (str_equal(type, STR("text")))
		say_text(s, 0, json_text(block, "text"));
	else if (str_equal(type, STR("thinking")))
		say_reasoning(s, 0, json_text(block, "thinking"));
	if (!str_ends(type, STR("tool_use"))) {
		note_more(s, has_items(block, "citations") ||
			  !(str_equal(type, STR("text")) || str_ends(type, STR("thinking"))));
		return;
	}
	/* A stream begins with an empty object, and tells the real one in pieces. */
	if (input && (s->is_body || input->child))
		json_write(&arguments, input);
	say_tool(s, 0, &(struct tool_part){ .index = index, .id = json_text(block, "id"),
					    .name = json_text(block, "name"), .arguments = sbuf_str(&arguments) });
	sbuf_free(&arguments);
}

static void read_anthropic(struct saying *s, const struct json *message)
{
	const struct json *content = array_in(message, "content");
	int64_t at = 0;

	if (!message)
		return;
	say_facts(s, json_text(message, "id"), json_text(message, "model"), json_text(message, "stop_reason"));
	for (const struct json *block = content ? content->child : NULL; block; block = block->next, at++)
		if (block->type == JSON_OBJECT)
			read_block(s, at, block);
}

static void read_anthropic_event(struct saying *s, struct str type, const struct json *doc)
{
	const struct json *delta = object_in(doc, "delta"), *block = object_in(doc, "content_block");
	int64_t index = index_in(doc, "index", -1);

	if (str_equal(type, STR("message_start"))) {
		read_anthropic(s, object_in(doc, "message"));
	} else if (str_equal(type, STR("content_block_start")) && block) {
		read_block(s, index, block);
	} else if (str_equal(type, STR("content_block_delta")) && delta) {
		struct str arguments = json_text(delta, "partial_json");

		say_text(s, 0, json_text(delta, "text"));
		say_reasoning(s, 0, json_text(delta, "thinking"));
		note_more(s, object_in(delta, "citation"));
		if (arguments.n > 0)
			say_tool(s, 0, &(struct tool_part){ .index = index, .arguments = arguments });
	} else if (str_equal(type, STR("message_delta"))) {
		say_facts(s, STR(""), STR(""), json_text(delta, "stop_reason"));
	} else if (str_equal(type, STR("message_stop"))) {
		s->holds |= ANSWER_HOLDS_END;
	}
}

/* --- DashScope --- */

static void read_dashscope(struct saying *s, const struct json *doc)
{
	const struct json *output = object_in(doc, "output");
	struct str id = json_text(doc, "request_id");

	if (!output)
		return;
	say_facts(s, id, json_text(doc, "model"), finish_of(output));
	s->is_last = finish_of(output).n > 0;
	say_text(s, 0, json_text(output, "text"));
	note_more(s, object_in(output, "search_info"));
	read_choices(s, output);
	if (s->is_last)
		s->holds |= ANSWER_HOLDS_END;
}

/* --- Dify --- */

/* What a workflow hands out: its one text, or all of it as JSON. */
static void read_outputs(struct saying *s, const struct json *data)
{
	const struct json *outputs = object_in(data, "outputs");
	struct sbuf text = { 0 };

	if (!outputs || !outputs->child || (s->answer && s->answer->has_content))
		return;
	write_value(&text, outputs->child->next ? outputs : outputs->child);
	say_text(s, 0, sbuf_str(&text));
	sbuf_free(&text);
}

static void read_dify_facts(struct saying *s, const struct json *doc)
{
	struct str id = json_text(doc, "message_id");

	say_facts(s, id.n ? id : json_text(doc, "workflow_run_id"), STR(""), STR(""));
}

static void read_dify_event(struct saying *s, struct str type, const struct json *doc)
{
	const struct json *data = object_in(doc, "data");

	read_dify_facts(s, doc);
	if (str_equal(type, STR("message")) || str_equal(type, STR("agent_message"))) {
		say_text(s, 0, json_text(doc, "answer"));
	} else if (str_equal(type, STR("text_chunk"))) {
		say_text(s, 0, json_text(data, "text"));
	} else if (str_equal(type, STR("message_replace"))) {
		say_instead(s, json_text(doc, "answer"));
	} else if (str_equal(type, STR("agent_thought"))) {
		say_reasoning(s, 0, json_text(doc, "thought"));
	} else if (str_equal(type, STR("workflow_finished"))) {
		if (s->kind == AI_DIFY_WORKFLOW)
			read_outputs(s, data);
		if (str_equal(json_text(data, "status"), STR("failed")))
			s->holds |= ANSWER_HOLDS_ERROR;
		/* Chat applications that are workflows go on, and say what it cost in message_end. */
		if (s->kind == AI_DIFY_WORKFLOW)
			s->holds |= ANSWER_HOLDS_END;
		else if (s->answer)
			s->answer->is_complete = true;
	} else if (str_equal(type, STR("message_end")) || str_equal(type, STR("error"))) {
		s->holds |= ANSWER_HOLDS_END;
	}
}

static void read_dify(struct saying *s, const struct json *doc)
{
	const struct json *data = object_in(doc, "data");

	read_dify_facts(s, doc);
	say_text(s, 0, json_text(doc, "answer"));
	read_outputs(s, data);
	if (str_equal(json_text(data, "status"), STR("failed")))
		s->holds |= ANSWER_HOLDS_ERROR;
}

/* --- all of them --- */

static bool is_error(const struct saying *s, struct str type, const struct json *doc)
{
	const struct json *error = json_get(doc, "error");

	if (str_equal(type, STR("error")) || str_equal(type, STR("response.failed")))
		return true;
	if (error && (error->type == JSON_OBJECT || (error->type == JSON_STRING && error->string.n > 0)) &&
	    s->kind != AI_DIFY_WORKFLOW)
		return true;
	if (s->kind < AI_GENERATION || json_text(doc, "code").n == 0)
		return false;
	return !object_in(doc, "output") && !json_get(doc, "answer") && !object_in(doc, "data");
}

void answer_read_body(struct saying *s, const struct json *doc)
{
	if (is_error(s, json_text(doc, "type"), doc))
		s->holds |= ANSWER_HOLDS_ERROR;
	switch (s->kind) {
	case AI_CHAT:
	case AI_COMPLETIONS:
	case AI_EMBEDDINGS:
	case AI_NONE:
		read_openai(s, doc);
		break;
	case AI_RESPONSES:
		read_response(s, doc);
		break;
	case AI_MESSAGES:
		read_anthropic(s, doc);
		break;
	case AI_GENERATION:
	case AI_APP:
		read_dashscope(s, doc);
		break;
	default:
		read_dify(s, doc);
		break;
	}
}

void answer_read_event(struct saying *s, const struct sse_event *e, const struct json *doc)
{
	struct str type = e->type;

	if (str_equal(e->data, STR("[DONE]")))
		s->holds |= ANSWER_HOLDS_END;
	if (str_equal(type, STR("error")))
		s->holds |= ANSWER_HOLDS_ERROR;
	if (!doc || doc->type != JSON_OBJECT)
		return;
	if (s->kind == AI_MESSAGES || s->kind == AI_RESPONSES)
		type = json_text(doc, "type").n ? json_text(doc, "type") : type;
	else if (s->kind >= AI_DIFY_CHAT)
		type = json_text(doc, "event").n ? json_text(doc, "event") : type;
	if (is_error(s, type, doc))
		s->holds |= ANSWER_HOLDS_ERROR;
	switch (s->kind) {
	case AI_RESPONSES:
		read_responses_event(s, type, doc);
		break;
	case AI_MESSAGES:
		read_anthropic_event(s, type, doc);
		break;
	case AI_GENERATION:
	case AI_APP:
		read_dashscope(s, doc);
		break;
	case AI_DIFY_CHAT:
	case AI_DIFY_COMPLETION:
	case AI_DIFY_WORKFLOW:
		read_dify_event(s, type, doc);
		break;
	default:
		read_openai(s, doc);
		break;
	}
}
