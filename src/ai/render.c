/* render.c -- what the client asked for, and whole answers. */
#include "ai/render_parts.h"

static const struct {
	const char *id;                   /* what ids of answers begin with */
	bool can;
} shapes[AI_KIND_COUNT] = {
	[AI_CHAT] = { "chatcmpl-", true },
	[AI_COMPLETIONS] = { "cmpl-", true },
	[AI_RESPONSES] = { "resp_", true },
	[AI_MESSAGES] = { "msg_", true },
	[AI_GENERATION] = { "", true },
	[AI_APP] = { "", true },
	[AI_DIFY_CHAT] = { "", true },
	[AI_DIFY_COMPLETION] = { "", true },
};

bool render_can(enum ai_kind kind)
{
	return shapes[kind].can;
}

/* ---------- what the client asked for ---------- */

bool render_asks_usage(enum ai_kind kind, const struct json *body)
{
	return (kind == AI_CHAT || kind == AI_COMPLETIONS) &&
		json_is_true(json_get(body, "stream_options"), "include_usage");
}

static enum render_form read_form(struct str path, const struct json *body)
{
	struct str format = json_text(json_get(body, "parameters"), "result_format");

	if (str_ends(path, STR("/multimodal-generation/generation")))
		return RENDER_FORM_PARTS;
	if (str_equal(format, STR("message")))
		return RENDER_FORM_MESSAGE;
	return str_equal(format, STR("text")) ? RENDER_FORM_TEXT : RENDER_FORM_OPEN;
}

void render_ask(struct rendered *r, enum ai_kind kind, struct str path, const struct json *body)
{
	r->kind = kind;
	r->include_usage = render_asks_usage(kind, body);
	r->form = kind == AI_GENERATION ? read_form(path, body) : RENDER_FORM_OPEN;
}

/* ---------- writer ---------- */

static uint64_t mix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15U;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
	return z ^ (z >> 31);
}

/* 24 characters that follow from the seed; UUIDs where nothing stands before them, as DashScope has it. */
static struct str make_id(char out[RENDER_ID], const char *before, uint64_t seed)
{
	static const char digits[] = "0123456789abcdef";
	size_t n = strlen(before), i, length = n ? 24 : 36;
	uint64_t bits = 0;

	memcpy(out, before, n);
	for (i = 0; i < length; i++, bits >>= 4) {
		if (i % 16 == 0)
			bits = mix(&seed);
		out[n + i] = digits[bits & 15];
	}
	if (n == 0)
		out[8] = out[13] = out[18] = out[23] = '-';
	return (struct str){ out, n + length };
}

void writer_init(struct writer *w, const struct rendered *r)
{
	*w = (struct writer){ .r = r, .model = r->model, .created = r->now_ms / 1000 };
	w->id = make_id(w->id_made, shapes[r->kind].id, r->seed);
	w->item = make_id(w->item_made, "msg_", r->seed + 1);
}

struct str writer_end(struct writer *w, struct arena *a)
{
	struct str made = arena_copy(a, sbuf_str(&w->out));

	sbuf_free(&w->out);
	w->out = (struct sbuf){ 0 };
	return made;
}

void writer_text(struct writer *w, const char *before, struct str text)
{
	sbuf_add(&w->out, str_of(before));
	json_quote(&w->out, text);
}

/* ---------- whole answers ---------- */

struct str render_finish(enum ai_kind kind, struct str finish)
{
	if (kind != AI_MESSAGES)
		return finish;
	if (str_equal(finish, STR("length")))
		return STR("max_tokens");
	return str_equal(finish, STR("tool_calls")) ? STR("tool_use") : STR("end_turn");
}

static void write_head(struct writer *w, const char *object)
{
	writer_text(w, "{\"id\":", w->id);
	sbuf_addf(&w->out, ",\"object\":\"%s\",\"created\":%lld", object, (long long)w->created);
	writer_text(w, ",\"model\":", w->model);
}

static void write_chat(struct writer *w)
{
	write_head(w, "chat.completion");
	writer_text(w, ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":", w->r->text);
	if (w->r->reasoning.n)
		writer_text(w, ",\"reasoning_content\":", w->r->reasoning);
	writer_text(w, ",\"refusal\":null},\"logprobs\":null,\"finish_reason\":",
		    render_finish(w->r->kind, w->r->finish));
	SBUF_LIT(&w->out, "}],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}}");
}

static void write_completions(struct writer *w)
{
	write_head(w, "text_completion");
	writer_text(w, ",\"choices\":[{\"text\":", w->r->text);
	writer_text(w, ",\"index\":0,\"logprobs\":null,\"finish_reason\":", render_finish(w->r->kind, w->r->finish));
	SBUF_LIT(&w->out, "}],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}}");
}

/* No block of thinking: it would need the model's signature when the client sends it back. */
static void write_messages(struct writer *w)
{
	writer_text(w, "{\"id\":", w->id);
	writer_text(w, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":", w->model);
	writer_text(w, ",\"content\":[{\"type\":\"text\",\"text\":", w->r->text);
	writer_text(w, "}],\"stop_reason\":", render_finish(w->r->kind, w->r->finish));
	SBUF_LIT(&w->out, ",\"stop_sequence\":null,\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}");
}

static void write_choice(struct writer *w)
{
	bool is_parts = w->r->form == RENDER_FORM_PARTS;

	writer_text(w, "\"choices\":[{\"finish_reason\":", render_finish(w->r->kind, w->r->finish));
	writer_text(w, is_parts ? ",\"message\":{\"role\":\"assistant\",\"content\":[{\"text\":" :
		    ",\"message\":{\"role\":\"assistant\",\"content\":", w->r->text);
	sbuf_add(&w->out, str_of(is_parts ? "}]" : ""));
	if (w->r->reasoning.n)
		writer_text(w, ",\"reasoning_content\":", w->r->reasoning);
	SBUF_LIT(&w->out, "}}]");
}

void writer_generation(struct writer *w)
{
	enum render_form form = w->r->form;

	SBUF_LIT(&w->out, "{\"output\":{");
	if (form == RENDER_FORM_TEXT || form == RENDER_FORM_OPEN) {
		writer_text(w, "\"text\":", w->r->text);
		writer_text(w, ",\"finish_reason\":", render_finish(w->r->kind, w->r->finish));
	}
	if (form == RENDER_FORM_OPEN)
		sbuf_addc(&w->out, ',');
	if (form != RENDER_FORM_TEXT)
		write_choice(w);
	SBUF_LIT(&w->out, "},\"usage\":{\"input_tokens\":0,\"output_tokens\":0,\"total_tokens\":0}");
	writer_text(w, ",\"request_id\":", w->id);
	sbuf_addc(&w->out, '}');
}

/* No session: the next request begins one. */
void writer_app(struct writer *w)
{
	writer_text(w, "{\"output\":{\"text\":", w->r->text);
	writer_text(w, ",\"finish_reason\":", w->r->finish);
	SBUF_LIT(&w->out, "},\"usage\":{\"models\":[]}");
	writer_text(w, ",\"request_id\":", w->id);
	sbuf_addc(&w->out, '}');
}

/* What all of Dify's objects say of themselves. An empty conversation_id: the next request begins a conversation. */
void writer_dify(struct writer *w, const char *event)
{
	sbuf_addf(&w->out, "{\"event\":\"%s\"", event);
	writer_text(w, ",\"task_id\":", w->id);
	writer_text(w, ",\"id\":", w->id);
	writer_text(w, ",\"message_id\":", w->id);
	sbuf_addf(&w->out, ",\"conversation_id\":\"\",\"created_at\":%lld", (long long)w->created);
}

void writer_dify_usage(struct writer *w)
{
	SBUF_LIT(&w->out, ",\"metadata\":{\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0},"
		"\"retriever_resources\":[]}");
}

static void write_dify(struct writer *w)
{
	writer_dify(w, "message");
	sbuf_addf(&w->out, ",\"mode\":\"%s\"", w->r->kind == AI_DIFY_CHAT ? "chat" : "completion");
	writer_text(w, ",\"answer\":", w->r->text);
	writer_dify_usage(w);
	sbuf_addc(&w->out, '}');
}

void writer_message_item(struct writer *w, bool is_complete)
{
	writer_text(w, "{\"id\":", w->item);
	writer_text(w, ",\"type\":\"message\",\"status\":", is_complete ? STR("completed") : STR("in_progress"));
	SBUF_LIT(&w->out, ",\"role\":\"assistant\",\"content\":[");
	if (is_complete) {
		writer_text(w, "{\"type\":\"output_text\",\"text\":", w->r->text);
		SBUF_LIT(&w->out, ",\"annotations\":[],\"logprobs\":[]}");
	}
	SBUF_LIT(&w->out, "]}");
}

void writer_response(struct writer *w, bool is_complete)
{
	writer_text(w, "{\"id\":", w->id);
	sbuf_addf(&w->out, ",\"object\":\"response\",\"created_at\":%lld", (long long)w->created);
	writer_text(w, ",\"status\":", is_complete ? STR("completed") : STR("in_progress"));
	SBUF_LIT(&w->out, ",\"error\":null,\"incomplete_details\":null,\"instructions\":null,\"metadata\":{}");
	writer_text(w, ",\"model\":", w->model);
	SBUF_LIT(&w->out, ",\"output\":[");
	if (is_complete)
		writer_message_item(w, true);
	SBUF_LIT(&w->out, "],\"parallel_tool_calls\":true,\"previous_response_id\":null,\"store\":false,"
		"\"temperature\":null,\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":null,"
		"\"truncation\":\"disabled\"");
	sbuf_add(&w->out, !is_complete ? STR(",\"usage\":null}") :
		STR(",\"usage\":{\"input_tokens\":0,\"input_tokens_details\":{\"cached_tokens\":0},"
		"\"output_tokens\":0,\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":0}}"));
}

struct str render_body(const struct rendered *r, struct arena *a)
{
	struct writer w;

	BUG_ON(!render_can(r->kind));
	writer_init(&w, r);
	if (r->kind == AI_CHAT)
		write_chat(&w);
	else if (r->kind == AI_COMPLETIONS)
		write_completions(&w);
	else if (r->kind == AI_MESSAGES)
		write_messages(&w);
	else if (r->kind == AI_GENERATION)
		writer_generation(&w);
	else if (r->kind == AI_APP)
		writer_app(&w);
	else if (r->kind == AI_RESPONSES)
		writer_response(&w, true);
	else
		write_dify(&w);
	return writer_end(&w, a);
}
