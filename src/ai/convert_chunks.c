/*
 * Streams for OpenAI clients: from Anthropic's events, and from DashScope's.
 *
 * The role comes first and alone; tools are numbered in the order they begin, whatever the upstream calls them. The end
 * is said when the upstream has said it: message_stop, or an event with a finish_reason.
 */
#include "ai/convert_parts.h"

/* ---- what chunks are made of ---- */

static void open_chunk(struct converter *c, struct sbuf *out)
{
	SBUF_LIT(out, "data: ");
	put_root(out);
	put_text(out, "id", c->id);
	put_text(out, "object", STR("chat.completion.chunk"));
	put_int(out, "created", c->about->created);
	put_text(out, "model", c->model);
	put_open(out, "choices", '[');
}

static void close_chunk(struct sbuf *out)
{
	put_close(out, '}');
	SBUF_LIT(out, "\n\n");
}

static void open_delta(struct converter *c, struct sbuf *out)
{
	open_chunk(c, out);
	put_open(out, NULL, '{');
	put_int(out, "index", 0);
	put_open(out, "delta", '{');
}

static void close_delta(struct converter *c, const char *finish_reason, struct sbuf *out)
{
	put_close(out, '}');
	put_null(out, "logprobs");
	if (finish_reason)
		put_text(out, "finish_reason", str_of(finish_reason));
	else
		put_null(out, "finish_reason");
	put_close(out, '}');
	put_close(out, ']');
	if (c->about->include_usage)
		put_null(out, "usage");
	close_chunk(out);
}

static void begin(struct converter *c, struct str id, struct str model, struct sbuf *out)
{
	if (c->began)
		return;
	c->began = true;
	id = convert_cut(id, CONVERT_NAME_MAX);
	c->id = id.n ? arena_copy(c->a, id) : convert_new_id(c->a, "chatcmpl-");
	c->model = arena_copy(c->a, convert_cut(model.n ? model : c->about->model, CONVERT_NAME_MAX));
	open_delta(c, out);
	put_text(out, "role", STR("assistant"));
	put_text(out, "content", STR(""));
	close_delta(c, NULL, out);
}

static void say(struct converter *c, const char *member, struct str text, struct sbuf *out)
{
	if (text.n == 0)
		return;
	open_delta(c, out);
	put_text(out, member, text);
	close_delta(c, NULL, out);
}

/* first: the upstream's call, where this is its first delta: with id and name. */
static void say_tool(struct converter *c, const struct chunk_tool *tool, const struct json *first, struct str arguments,
                     struct sbuf *out)
{
	struct str id = json_text(first, "id"), name = json_text(first, "name");

	open_delta(c, out);
	put_open(out, "tool_calls", '[');
	put_open(out, NULL, '{');
	put_int(out, "index", tool - c->tools);
	if (first) {
		put_text(out, "id", id.n ? id : convert_new_id(c->a, "call_"));
		put_text(out, "type", STR("function"));
	}
	put_open(out, "function", '{');
	if (first)
		put_text(out, "name", name.n ? name : json_text(json_get(first, "function"), "name"));
	put_text(out, "arguments", arguments);
	put_close(out, '}');
	put_close(out, '}');
	put_close(out, ']');
	close_delta(c, NULL, out);
}

static void end_chunks(struct converter *c, struct sbuf *out)
{
	open_delta(c, out);
	close_delta(c, convert_finish_reason(c->finish_reason), out);
	if (c->about->include_usage) {
		open_chunk(c, out);
		put_close(out, ']');
		convert_put_chat_usage(out, &c->usage, c->about->upstream);
		close_chunk(out);
	}
	SBUF_LIT(out, "data: [DONE]\n\n");
	c->is_over = true;
}

static void keep_reason(struct converter *c, struct str reason)
{
	if (!c->finish_reason.p && reason.n)
		c->finish_reason = arena_copy(c->a, reason);
}

/* NULL: no such tool. */
static struct chunk_tool *find_tool(struct converter *c, int64_t block)
{
	for (unsigned i = c->n_tools; i > 0; i--)
		if (c->tools[i - 1].block == block)
			return &c->tools[i - 1];
	return NULL;
}

/* NULL: there are too many, and the stream has failed. */
static struct chunk_tool *new_tool(struct converter *c, int64_t block, struct sbuf *out)
{
	if (!c->tools)
		c->tools = NEW_N(c->a, struct chunk_tool, CONVERT_TOOLS_MAX);
	if (c->n_tools == CONVERT_TOOLS_MAX) {
		convert_fail(c, NULL, STR("the model service calls too many tools at once"), out);
		return NULL;
	}
	c->tools[c->n_tools] = (struct chunk_tool){ .block = block };
	return &c->tools[c->n_tools++];
}

/* ---- from Anthropic's events ---- */

static int64_t block_of(const struct json *doc)
{
	const struct json *index = json_get(doc, "index");

	return index && index->type == JSON_INT && index->integer >= 0 ? index->integer : 0;
}

static void start_block(struct converter *c, const struct json *doc, struct sbuf *out)
{
	const struct json *block = json_get(doc, "content_block"), *input = json_get(block, "input");
	struct str type = json_text(block, "type");
	struct sbuf text = { 0 };

	if (str_equal(type, STR("text")))
		say(c, "content", json_text(block, "text"), out);
	if (str_equal(type, STR("thinking")))
		say(c, "reasoning_content", json_text(block, "thinking"), out);
	if (!str_equal(type, STR("tool_use")))
		return;
	struct chunk_tool *tool = new_tool(c, block_of(doc), out);

	if (!tool)
		return;
	tool->input = STR("{}");
	if (input && input->type == JSON_OBJECT && input->n > 0) {
		json_write(&text, input);
		tool->input = arena_copy(c->a, sbuf_str(&text));
		sbuf_free(&text);
	}
	say_tool(c, tool, block, STR(""), out);
}

static void take_delta(struct converter *c, const struct json *doc, struct sbuf *out)
{
	const struct json *delta = json_get(doc, "delta");
	struct str type = json_text(delta, "type"), part = json_text(delta, "partial_json");
	struct chunk_tool *tool;

	if (str_equal(type, STR("text_delta")))
		say(c, "content", json_text(delta, "text"), out);
	if (str_equal(type, STR("thinking_delta")))
		say(c, "reasoning_content", json_text(delta, "thinking"), out);
	if (!str_equal(type, STR("input_json_delta")) || part.n == 0)
		return;
	tool = find_tool(c, block_of(doc));
	if (!tool)
		return;
	tool->is_said = true;
	say_tool(c, tool, NULL, part, out);
}

/* A tool without arguments has an empty object of them. */
static void stop_tool(struct converter *c, struct chunk_tool *tool, struct sbuf *out)
{
	if (!tool || tool->is_said)
		return;
	tool->is_said = true;
	say_tool(c, tool, NULL, tool->input, out);
}

void convert_event_to_chunks(struct converter *c, const struct json *doc, struct sbuf *out)
{
	struct str type = json_text(doc, "type");
	const struct json *message = json_get(doc, "message");

	usage_take(&c->usage, AI_MESSAGES, doc);
	if (str_equal(type, STR("message_start"))) {
		begin(c, json_text(message, "id"), json_text(message, "model"), out);
	} else if (str_equal(type, STR("content_block_start"))) {
		begin(c, STR(""), STR(""), out);
		start_block(c, doc, out);
	} else if (str_equal(type, STR("content_block_delta"))) {
		begin(c, STR(""), STR(""), out);
		take_delta(c, doc, out);
	} else if (str_equal(type, STR("content_block_stop"))) {
		stop_tool(c, find_tool(c, block_of(doc)), out);
	} else if (str_equal(type, STR("message_delta"))) {
		keep_reason(c, json_text(json_get(doc, "delta"), "stop_reason"));
	} else if (str_equal(type, STR("message_stop"))) {
		begin(c, STR(""), STR(""), out);
		for (unsigned i = 0; i < c->n_tools; i++)
			stop_tool(c, &c->tools[i], out);
		end_chunks(c, out);
	}
}

/* ---- from DashScope's ---- */

/* What is new in a text; *sent counts on. */
static struct str new_part(const struct converter *c, struct str text, size_t *sent)
{
	size_t from = *sent;

	if (!c->about->is_cumulative)
		return text;
	if (text.n <= from || ((unsigned char)text.p[from] & 0xc0) == 0x80)
		return STR("");
	*sent = text.n;
	return (struct str){ text.p + from, text.n - from };
}

static void take_call(struct converter *c, const struct json *call, int64_t place, struct sbuf *out)
{
	const struct json *function = json_get(call, "function"), *index = json_get(call, "index");
	int64_t block = index && index->type == JSON_INT ? index->integer : place;
	struct chunk_tool *tool = find_tool(c, block);
	bool is_new = !tool;

	if (is_new)
		tool = new_tool(c, block, out);
	if (!tool)
		return;
	struct str part = new_part(c, json_text(function, "arguments"), &tool->sent);

	if (is_new || part.n)
		say_tool(c, tool, is_new ? call : NULL, part, out);
}

void convert_generation_to_chunks(struct converter *c, const struct json *doc, struct sbuf *out)
{
	const struct json *output = json_get(doc, "output"), *choices = json_get(output, "choices");
	const struct json *choice, *message, *calls;
	struct sbuf text = { 0 };
	struct str reason;
	int64_t place = 0;

	usage_take(&c->usage, AI_GENERATION, doc);
	choice = choices && choices->type == JSON_ARRAY ? choices->child : NULL;
	message = json_get(choice, "message");
	if (!message && !json_get(output, "text"))
		return;
	begin(c, json_text(doc, "request_id"), STR(""), out);
	say(c, "reasoning_content", new_part(c, convert_reasoning(message), &c->reasoning_sent), out);
	convert_join_texts(message ? json_get(message, "content") : json_get(output, "text"), STR(""), &text);
	say(c, "content", new_part(c, sbuf_str(&text), &c->text_sent), out);
	sbuf_free(&text);
	calls = json_get(message, "tool_calls");
	for (const struct json *call = calls ? calls->child : NULL; call && !c->is_over; call = call->next)
		take_call(c, call, place++, out);
	reason = json_text(choice ? choice : output, "finish_reason");
	if (c->is_over || reason.n == 0 || str_equal(reason, STR("null")))
		return;
	keep_reason(c, reason);
	end_chunks(c, out);
}
