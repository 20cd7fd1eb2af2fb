/* render_stream.c -- answers as events, and what clients have seen of streams that go on. */
#include "ai/render_parts.h"

/* ---------- pieces ---------- */

static bool is_middle(char c)             /* of a code point's bytes */
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* Takes a piece off *rest, which ends between two code points. False: nothing is left. */
static bool take_piece(struct str *rest, struct str *piece)
{
	size_t n = rest->n < RENDER_PIECE ? rest->n : RENDER_PIECE;

	while (n < rest->n && n > RENDER_PIECE - 4 && is_middle(rest->p[n]))
		n--;
	*piece = (struct str){ rest->p, n };
	*rest = (struct str){ rest->p + n, rest->n - n };
	return n > 0;
}

static void end_event(struct writer *w)
{
	SBUF_LIT(&w->out, "\n\n");
}

/* ---------- OpenAI: chat, completions ---------- */

static void open_chunk(struct writer *w)
{
	writer_text(w, "data: {\"id\":", w->id);
	sbuf_addf(&w->out, ",\"object\":\"%s\",\"created\":%lld",
		  w->r->kind == AI_CHAT ? "chat.completion.chunk" : "text_completion", (long long)w->created);
	writer_text(w, ",\"model\":", w->model);
}

static void close_chunk(struct writer *w, struct str finish)
{
	if (finish.n)
		writer_text(w, ",\"logprobs\":null,\"finish_reason\":", finish);
	else
		SBUF_LIT(&w->out, ",\"logprobs\":null,\"finish_reason\":null");
	SBUF_LIT(&w->out, "}]");
	if (w->r->include_usage)
		SBUF_LIT(&w->out, ",\"usage\":null");
	SBUF_LIT(&w->out, "}");
	end_event(w);
}

/* `before` ends where the text stands in the delta. */
static void add_delta(struct writer *w, const char *before, struct str text)
{
	open_chunk(w);
	SBUF_LIT(&w->out, ",\"choices\":[{\"index\":0,\"delta\":{");
	writer_text(w, before, text);
	SBUF_LIT(&w->out, "}");
	close_chunk(w, STR(""));
}

static void add_text_chunk(struct writer *w, struct str text, struct str finish)
{
	open_chunk(w);
	writer_text(w, ",\"choices\":[{\"index\":0,\"text\":", text);
	close_chunk(w, finish);
}

static void end_chunks(struct writer *w)
{
	if (w->r->kind == AI_CHAT) {
		open_chunk(w);
		SBUF_LIT(&w->out, ",\"choices\":[{\"index\":0,\"delta\":{}");
		close_chunk(w, w->r->finish);
	} else {
		add_text_chunk(w, STR(""), w->r->finish);
	}
	if (w->r->include_usage) {
		open_chunk(w);
		SBUF_LIT(&w->out, ",\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,"
			"\"total_tokens\":0}}");
		end_event(w);
	}
	SBUF_LIT(&w->out, "data: [DONE]\n\n");
}

/* The first delta of a stream has the role, and the first text with it. */
static void add_chat_deltas(struct writer *w, bool began)
{
	struct str reasoning = w->r->reasoning, rest = w->r->text, piece;

	if (!began) {
		piece = STR("");
		if (reasoning.n == 0)
			take_piece(&rest, &piece);
		add_delta(w, "\"role\":\"assistant\",\"content\":", piece);
	}
	while (take_piece(&reasoning, &piece))
		add_delta(w, "\"reasoning_content\":", piece);
	while (take_piece(&rest, &piece))
		add_delta(w, "\"content\":", piece);
}

static void write_chunks(struct writer *w, bool began)
{
	struct str rest = w->r->text, piece;

	if (w->r->kind == AI_CHAT)
		add_chat_deltas(w, began);
	else
		while (take_piece(&rest, &piece))
			add_text_chunk(w, piece, STR(""));
	end_chunks(w);
}

/* ---------- Anthropic ---------- */

static void open_event(struct writer *w, const char *type)
{
	sbuf_addf(&w->out, "event: %s\ndata: {\"type\":\"%s\"", type, type);
}

static void close_event(struct writer *w)
{
	SBUF_LIT(&w->out, "}");
	end_event(w);
}

static void add_index_event(struct writer *w, const char *type, unsigned index)
{
	open_event(w, type);
	sbuf_addf(&w->out, ",\"index\":%u", index);
}

static void open_message(struct writer *w)
{
	open_event(w, "message_start");
	writer_text(w, ",\"message\":{\"id\":", w->id);
	writer_text(w, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":", w->model);
	SBUF_LIT(&w->out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
		"\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}");
	close_event(w);
}

static void open_block(struct writer *w, unsigned block)
{
	add_index_event(w, "content_block_start", block);
	SBUF_LIT(&w->out, ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}");
	close_event(w);
}

static void close_block(struct writer *w, unsigned block)
{
	add_index_event(w, "content_block_stop", block);
	close_event(w);
}

static void end_message(struct writer *w)
{
	open_event(w, "message_delta");
	writer_text(w, ",\"delta\":{\"stop_reason\":", render_finish(AI_MESSAGES, w->r->finish));
	SBUF_LIT(&w->out, ",\"stop_sequence\":null},\"usage\":{\"output_tokens\":0}");
	close_event(w);
	open_event(w, "message_stop");
	close_event(w);
}

static void write_message(struct writer *w, const struct render_seen *seen)
{
	struct str rest = w->r->text, piece;
	unsigned block = seen->block;
	bool goes_on = seen->block_is_open && seen->block_is_text;

	if (!seen->began)
		open_message(w);
	if (seen->block_is_open && !goes_on)
		close_block(w, block++);
	if (!goes_on)
		open_block(w, block);
	while (take_piece(&rest, &piece)) {
		add_index_event(w, "content_block_delta", block);
		writer_text(w, ",\"delta\":{\"type\":\"text_delta\",\"text\":", piece);
		SBUF_LIT(&w->out, "}");
		close_event(w);
	}
	close_block(w, block);
	end_message(w);
}

/* ---------- Responses ---------- */

static void open_numbered(struct writer *w, const char *type)
{
	open_event(w, type);
	sbuf_addf(&w->out, ",\"sequence_number\":%lld", (long long)w->sequence++);
}

/* item_id, output_index and content_index, which all events of a part have. */
static void open_part_event(struct writer *w, const char *type, const struct render_seen *at)
{
	open_numbered(w, type);
	writer_text(w, ",\"item_id\":", w->item);
	sbuf_addf(&w->out, ",\"output_index\":%u,\"content_index\":%u", at->block, at->part);
}

static void add_response_event(struct writer *w, const char *type, bool is_complete)
{
	open_numbered(w, type);
	SBUF_LIT(&w->out, ",\"response\":");
	writer_response(w, is_complete);
	close_event(w);
}

static void add_item_event(struct writer *w, const char *type, const struct render_seen *at, bool is_complete)
{
	open_numbered(w, type);
	sbuf_addf(&w->out, ",\"output_index\":%u,\"item\":", at->block);
	writer_message_item(w, is_complete);
	close_event(w);
}

static void add_part(struct writer *w, const char *type, const struct render_seen *at, struct str text)
{
	open_part_event(w, type, at);
	writer_text(w, ",\"part\":{\"type\":\"output_text\",\"text\":", text);
	SBUF_LIT(&w->out, ",\"annotations\":[],\"logprobs\":[]}");
	close_event(w);
}

static void write_deltas(struct writer *w, const struct render_seen *at)
{
	struct str rest = w->r->text, piece;

	while (take_piece(&rest, &piece)) {
		open_part_event(w, "response.output_text.delta", at);
		writer_text(w, ",\"delta\":", piece);
		SBUF_LIT(&w->out, ",\"logprobs\":[]");
		close_event(w);
	}
	open_part_event(w, "response.output_text.done", at);
	writer_text(w, ",\"text\":", w->r->text);
	SBUF_LIT(&w->out, ",\"logprobs\":[]");
	close_event(w);
	add_part(w, "response.content_part.done", at, w->r->text);
}

static void write_response_events(struct writer *w, const struct render_seen *seen)
{
	struct render_seen at = *seen;

	if (!seen->began) {
		add_response_event(w, "response.created", false);
		add_response_event(w, "response.in_progress", false);
	}
	if (!seen->block_is_open) {
		at.block += seen->item.n ? 1 : 0;
		at.part = 0;
		add_item_event(w, "response.output_item.added", &at, false);
		add_part(w, "response.content_part.added", &at, STR(""));
	} else {
		w->item = seen->item;
	}
	write_deltas(w, &at);
	add_item_event(w, "response.output_item.done", &at, true);
	add_response_event(w, "response.completed", true);
}

/* ---------- DashScope ---------- */

/*
 * One event: the text is whole in it, so it is right for clients that want what is new and for those that want all
 * there is so far.
 */
static void write_result(struct writer *w)
{
	SBUF_LIT(&w->out, "id:1\nevent:result\n:HTTP_STATUS/200\ndata:");
	if (w->r->kind == AI_APP)
		writer_app(w);
	else
		writer_generation(w);
	end_event(w);
}

/* ---------- Dify ---------- */

static void write_dify_events(struct writer *w)
{
	struct str rest = w->r->text, piece;

	while (take_piece(&rest, &piece)) {
		SBUF_LIT(&w->out, "data: ");
		writer_dify(w, "message");
		writer_text(w, ",\"answer\":", piece);
		close_event(w);
	}
	SBUF_LIT(&w->out, "data: ");
	writer_dify(w, "message_end");
	writer_dify_usage(w);
	close_event(w);
}

/* ---------- all of them ---------- */

static void write_stream(struct writer *w, const struct render_seen *seen)
{
	if (w->r->kind == AI_MESSAGES)
		write_message(w, seen);
	else if (w->r->kind == AI_RESPONSES)
		write_response_events(w, seen);
	else if (w->r->kind == AI_GENERATION || w->r->kind == AI_APP)
		write_result(w);
	else if (w->r->kind == AI_DIFY_CHAT || w->r->kind == AI_DIFY_COMPLETION)
		write_dify_events(w);
	else
		write_chunks(w, seen->began);
}

struct str render_stream_rest(const struct rendered *r, const struct render_seen *seen, struct arena *a)
{
	struct writer w;

	BUG_ON(!render_can(r->kind));
	writer_init(&w, r);
	if (seen->id.n)
		w.id = seen->id;
	if (seen->model.n)
		w.model = seen->model;
	if (seen->created > 0)
		w.created = seen->created;
	w.sequence = seen->sequence;
	write_stream(&w, seen);
	return writer_end(&w, a);
}

struct str render_stream(const struct rendered *r, struct arena *a)
{
	static const struct render_seen nothing;

	return render_stream_rest(r, &nothing, a);
}

/* ---------- what a client saw ---------- */

static unsigned number_of(const struct json *doc, const char *name)
{
	const struct json *v = json_get(doc, name);

	return v && v->type == JSON_INT && v->integer >= 0 && v->integer < INT32_MAX ? (unsigned)v->integer : 0;
}

static void keep(struct str *at, struct arena *a, struct str text)
{
	if (text.n && !str_equal(*at, text))
		*at = arena_copy(a, text);
}

static void see_message(struct render_seen *seen, struct arena *a, const struct json *doc)
{
	struct str type = json_text(doc, "type");

	if (str_equal(type, STR("message_start"))) {
		keep(&seen->id, a, json_text(json_get(doc, "message"), "id"));
		keep(&seen->model, a, json_text(json_get(doc, "message"), "model"));
	} else if (str_equal(type, STR("content_block_start"))) {
		seen->block_is_open = true;
		seen->block_is_text = str_equal(json_text(json_get(doc, "content_block"), "type"), STR("text"));
		seen->block = number_of(doc, "index");
	} else if (str_equal(type, STR("content_block_stop"))) {
		seen->block_is_open = false;
		seen->block = number_of(doc, "index") + 1;
	}
}

static void see_response(struct render_seen *seen, struct arena *a, const struct json *doc)
{
	struct str type = json_text(doc, "type");
	const struct json *response = json_get(doc, "response");

	seen->sequence = number_of(doc, "sequence_number") + 1;
	if (response) {
		keep(&seen->id, a, json_text(response, "id"));
		keep(&seen->model, a, json_text(response, "model"));
		seen->created = number_of(response, "created_at");
	} else if (str_equal(type, STR("response.output_item.added"))) {
		seen->block = number_of(doc, "output_index");
		keep(&seen->item, a, json_text(json_get(doc, "item"), "id"));
	} else if (str_equal(type, STR("response.content_part.added"))) {
		seen->block_is_open = str_equal(json_text(json_get(doc, "part"), "type"), STR("output_text"));
		seen->part = number_of(doc, "content_index");
	} else if (str_equal(type, STR("response.content_part.done"))) {
		seen->block_is_open = false;
	} else if (str_equal(type, STR("response.output_item.done"))) {
		seen->block_is_open = false;
		seen->block = number_of(doc, "output_index") + 1;
		seen->item = (struct str){ NULL, 0 };
	}
}

void render_see(struct render_seen *seen, struct arena *a, enum ai_kind kind, const struct json *doc)
{
	seen->began = true;
	if (!doc || doc->type != JSON_OBJECT)
		return;
	if (kind == AI_MESSAGES) {
		see_message(seen, a, doc);
	} else if (kind == AI_RESPONSES) {
		see_response(seen, a, doc);
	} else if (kind == AI_GENERATION || kind == AI_APP) {
		keep(&seen->id, a, json_text(doc, "request_id"));
	} else {
		keep(&seen->id, a, json_text(doc, "id"));
		keep(&seen->model, a, json_text(doc, "model"));
		if (!seen->created)
			seen->created = number_of(doc, "created");
	}
}
