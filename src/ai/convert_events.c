/*
 * Streams for Anthropic clients, from OpenAI's chunks.
 *
 * Anthropic's blocks come one after the other; in chunks, pieces of several calls may be mixed. Each text and each call
 * has a lane; the first lane flows to the client, the others wait, in the order they began. A text is over when
 * something follows it, a call when its arguments are a whole JSON object and something follows it, and all when the
 * upstream says why it ended. Usage comes after that: so the end waits for it, or for [DONE].
 */
#include "ai/convert_parts.h"
#include "core/mem.h"

enum lane_kind { LANE_TEXT, LANE_THINKING, LANE_TOOL };

struct lane {
	enum lane_kind kind;
	struct lane *next;
	struct sbuf held;                 /* not sent yet */
	/* of a tool */
	struct str id, name;              /* in the arena */
	unsigned depth;                   /* open brackets of the arguments */
	bool began, in_string, escaped;   /* of the arguments */
	bool is_whole;
	bool is_open, is_over;            /* its block was begun, ended */
};

struct chat_lanes {
	struct lane *first, *last;        /* in the order of their blocks; what is over is not here */
	struct lane *tools[CONVERT_TOOLS_MAX];
	unsigned n_tools, last_tool;
	unsigned n_lanes;                 /* that were made for texts, for memory's sake used again: */
	struct lane *spare;
	size_t held;                      /* bytes, of all */
	unsigned block;                   /* index of the next block to begin */
	bool is_refused;
	struct str stop_sequence;
};

static void add_lane(struct chat_lanes *l, struct lane *lane)
{
	lane->next = NULL;
	*(l->last ? &l->last->next : &l->first) = lane;
	l->last = lane;
}

static struct lane *new_lane(struct converter *c, enum lane_kind kind)
{
	struct chat_lanes *l = c->lanes;
	struct lane *lane = l->spare;

	if (lane && kind != LANE_TOOL) {
		struct sbuf held = lane->held;

		l->spare = lane->next;
		held.n = 0;
		*lane = (struct lane){ .held = held };
	} else {
		lane = NEW(c->a, struct lane);
	}
	lane->kind = kind;
	add_lane(l, lane);
	return lane;
}

void convert_free_lanes(struct converter *c)
{
	struct chat_lanes *l = c->lanes;

	if (!l)
		return;
	for (struct lane *lane = l->first; lane; lane = lane->next)
		sbuf_free(&lane->held);
	for (struct lane *lane = l->spare; lane; lane = lane->next)
		sbuf_free(&lane->held);
	*l = (struct chat_lanes){ 0 };
}

/* ---- lanes to the client ---- */

static void open_block(struct converter *c, struct lane *lane, struct sbuf *out)
{
	convert_open_event(out, "content_block_start");
	put_int(out, "index", c->lanes->block);
	put_open(out, "content_block", '{');
	if (lane->kind == LANE_TEXT) {
		put_text(out, "type", STR("text"));
		put_text(out, "text", STR(""));
	} else if (lane->kind == LANE_THINKING) {
		put_text(out, "type", STR("thinking"));
		put_text(out, "thinking", STR(""));
		put_text(out, "signature", STR(""));
	} else {
		put_text(out, "type", STR("tool_use"));
		put_text(out, "id", lane->id.n ? lane->id : convert_new_id(c->a, "toolu_"));
		put_text(out, "name", lane->name);
		put_open(out, "input", '{');
		put_close(out, '}');
	}
	put_close(out, '}');
	convert_close_event(out);
	lane->is_open = true;
}

static void send_held(struct converter *c, struct lane *lane, struct sbuf *out)
{
	static const char *const types[] = { "text_delta", "thinking_delta", "input_json_delta" };
	static const char *const members[] = { "text", "thinking", "partial_json" };

	if (lane->held.n == 0)
		return;
	convert_open_event(out, "content_block_delta");
	put_int(out, "index", c->lanes->block);
	put_open(out, "delta", '{');
	put_text(out, "type", str_of(types[lane->kind]));
	put_text(out, members[lane->kind], sbuf_str(&lane->held));
	put_close(out, '}');
	convert_close_event(out);
	c->lanes->held -= lane->held.n;
	lane->held.n = 0;
}

/* The first lane's block ends. */
static void close_block(struct converter *c, struct sbuf *out)
{
	struct chat_lanes *l = c->lanes;
	struct lane *lane = l->first;

	convert_open_event(out, "content_block_stop");
	put_int(out, "index", l->block++);
	convert_close_event(out);
	lane->is_over = true;
	l->first = lane->next;
	if (!l->first)
		l->last = NULL;
	if (lane->kind == LANE_TOOL) {
		sbuf_free(&lane->held);
	} else {
		lane->next = l->spare;
		l->spare = lane;
	}
}

/* Sends what may be sent now. is_end: nothing more comes. */
static void pump(struct converter *c, bool is_end, struct sbuf *out)
{
	struct chat_lanes *l = c->lanes;

	while (l->first) {
		struct lane *lane = l->first;

		if (lane->kind == LANE_TOOL && lane->name.n == 0) {
			if (is_end)
				convert_fail(c, NULL, STR("the model service calls a tool without a name"), out);
			return;
		}
		if (!lane->is_open)
			open_block(c, lane, out);
		send_held(c, lane, out);
		if (!is_end && (!lane->next || (lane->kind == LANE_TOOL && !lane->is_whole)))
			return;
		close_block(c, out);
	}
}

/* ---- chunks to lanes ---- */

/* What is said goes behind what its lane holds; what may flow, flows. */
static void give(struct converter *c, struct lane *lane, struct str text, struct sbuf *out)
{
	sbuf_add(&lane->held, text);
	c->lanes->held += text.n;
	pump(c, false, out);
	if (!c->is_over && c->lanes->held > CONVERT_HELD_MAX)
		convert_fail(c, NULL, STR("the model service mixes too much of too many tool calls"), out);
}

static void take_text(struct converter *c, enum lane_kind kind, struct str text, struct sbuf *out)
{
	struct lane *lane = c->lanes->last;

	if (text.n == 0 || c->is_over)
		return;
	if (!lane || lane->kind != kind)
		lane = new_lane(c, kind);
	give(c, lane, text, out);
}

/* How far the arguments are from being a whole object. */
static void scan(struct lane *lane, struct str text)
{
	for (size_t i = 0; i < text.n && !lane->is_whole; i++) {
		char ch = text.p[i];

		if (lane->in_string) {
			if (lane->escaped)
				lane->escaped = false;
			else if (ch == '\\')
				lane->escaped = true;
			else if (ch == '"')
				lane->in_string = false;
		} else if (ch == '"') {
			lane->in_string = true;
		} else if (ch == '{' || ch == '[') {
			lane->depth++;
			lane->began = true;
		} else if ((ch == '}' || ch == ']') && lane->depth > 0) {
			lane->is_whole = --lane->depth == 0 && lane->began;
		}
	}
}

/* Which call a delta is of: its index; some servers say none, or the same for all, but another id and name. */
static struct lane **find_tool(struct chat_lanes *l, const struct json *call)
{
	const struct json *index = json_get(call, "index"), *function = json_get(call, "function");
	struct str id = json_text(call, "id");
	unsigned at = l->last_tool;

	if (index && index->type == JSON_INT) {
		if (index->integer < 0 || index->integer >= CONVERT_TOOLS_MAX)
			return NULL;
		at = (unsigned)index->integer;
	}
	if (l->tools[at] && id.n && l->tools[at]->id.n && !str_equal(l->tools[at]->id, id) &&
	    json_text(function, "name").n)
		l->tools[at] = NULL;
	l->last_tool = at;
	return &l->tools[at];
}

static void take_call(struct converter *c, const struct json *call, struct sbuf *out)
{
	const struct json *function = json_get(call, "function");
	struct str id = json_text(call, "id"), name = json_text(function, "name");
	struct str arguments = json_text(function, "arguments");
	struct lane **place = find_tool(c->lanes, call), *lane;

	if (!place || (!*place && c->lanes->n_tools == CONVERT_TOOLS_MAX)) {
		convert_fail(c, NULL, STR("the model service calls too many tools at once"), out);
		return;
	}
	if (!*place) {
		*place = new_lane(c, LANE_TOOL);
		c->lanes->n_tools++;
	}
	lane = *place;
	if (id.n && !lane->id.n)
		lane->id = arena_copy(c->a, id);
	if (name.n && !lane->name.n)
		lane->name = arena_copy(c->a, name);
	if (lane->is_over)
		return;
	scan(lane, arguments);
	give(c, lane, arguments, out);
}

static void begin(struct converter *c, const struct json *doc, struct sbuf *out)
{
	struct str id = json_text(doc, "id"), model = json_text(doc, "model");

	if (c->began)
		return;
	c->began = true;
	c->lanes = NEW(c->a, struct chat_lanes);
	convert_open_event(out, "message_start");
	put_open(out, "message", '{');
	put_text(out, "id", id.n ? id : convert_new_id(c->a, "msg_"));
	put_text(out, "type", STR("message"));
	put_text(out, "role", STR("assistant"));
	put_text(out, "model", model.n ? model : c->about->model);
	put_open(out, "content", '[');
	put_close(out, ']');
	put_null(out, "stop_reason");
	put_null(out, "stop_sequence");
	convert_put_message_usage(out, &c->usage);
	put_close(out, '}');
	convert_close_event(out);
}

void convert_end_events(struct converter *c, struct sbuf *out)
{
	const char *reason;

	begin(c, NULL, out);
	pump(c, true, out);
	if (c->is_over)
		return;
	reason = c->lanes->is_refused ? "refusal" : convert_stop_reason(c->finish_reason, c->lanes->n_tools > 0);
	convert_open_event(out, "message_delta");
	put_open(out, "delta", '{');
	if (c->lanes->stop_sequence.n && str_equal(str_of(reason), STR("end_turn"))) {
		put_text(out, "stop_reason", STR("stop_sequence"));
		put_text(out, "stop_sequence", c->lanes->stop_sequence);
	} else {
		put_text(out, "stop_reason", str_of(reason));
		put_null(out, "stop_sequence");
	}
	put_close(out, '}');
	convert_put_message_usage(out, &c->usage);
	convert_close_event(out);
	convert_open_event(out, "message_stop");
	convert_close_event(out);
	c->is_over = true;
}

static void take_delta(struct converter *c, const struct json *delta, struct sbuf *out)
{
	const struct json *calls = json_get(delta, "tool_calls");
	struct str refusal = json_text(delta, "refusal");
	struct sbuf text = { 0 };

	take_text(c, LANE_THINKING, convert_reasoning(delta), out);
	convert_join_texts(json_get(delta, "content"), STR(""), &text);
	take_text(c, LANE_TEXT, sbuf_str(&text), out);
	sbuf_free(&text);
	take_text(c, LANE_TEXT, refusal, out);
	c->lanes->is_refused |= refusal.n > 0;
	for (const struct json *call = calls ? calls->child : NULL; call && !c->is_over; call = call->next)
		take_call(c, call, out);
}

/* The choice that counts; others were not asked for. */
static const struct json *first_choice(const struct json *doc)
{
	const struct json *choices = json_get(doc, "choices");

	for (const struct json *v = choices && choices->type == JSON_ARRAY ? choices->child : NULL; v; v = v->next) {
		const struct json *index = json_get(v, "index");

		if (v->type == JSON_OBJECT && (!index || (index->type == JSON_INT && index->integer == 0)))
			return v;
	}
	return NULL;
}

void convert_chunk_to_events(struct converter *c, const struct json *doc, struct sbuf *out)
{
	const struct json *choice = first_choice(doc);
	struct str reason = json_text(choice, "finish_reason"), sequence = json_text(choice, "stop_reason");

	usage_take(&c->usage, AI_CHAT, doc);
	if (!choice) {
		if (c->finish_reason.p && convert_get(doc, "usage"))
			convert_end_events(c, out);
		return;
	}
	begin(c, doc, out);
	take_delta(c, json_get(choice, "delta"), out);
	if (c->is_over || reason.n == 0 || c->finish_reason.p)
		return;
	c->finish_reason = arena_copy(c->a, reason);
	if (str_equal(reason, STR("stop")) && sequence.n)
		c->lanes->stop_sequence = arena_copy(c->a, sequence);
}
