#include "ai/prompt.h"
#include "ai/usage.h"

struct reader {
	struct prompt *p;
	struct arena *a;
	unsigned room;
};

/* ---------- texts ---------- */

static bool is_of(const struct json *v, enum json_type type)
{
	return v && v->type == type;
}

static void add_text(struct reader *r, enum prompt_role role, unsigned message, const struct json *text)
{
	struct prompt *p = r->p;

	if (p->n == r->room) {
		unsigned room = r->room ? r->room * 2 : 16;
		struct prompt_text *larger = NEW_N(r->a, struct prompt_text, room);

		if (p->n)
			memcpy(larger, p->texts, p->n * sizeof *larger);
		p->texts = larger;
		r->room = room;
	}
	p->texts[p->n++] = (struct prompt_text){ .role = role, .message = message, .text = text };
}

static bool is_tool_part(struct str type)
{
	return str_equal(type, STR("tool_result")) || str_equal(type, STR("tool_use"));
}

/*
 * Content as a text or a list of parts. Parts are told by what they hold, not by the name of their type: a text that a
 * model may read is a text. Results of tools stand in parts in Anthropic's API, with content of their own.
 */
static void read_content(struct reader *r, enum prompt_role role, unsigned message, const struct json *content)
{
	if (is_of(content, JSON_STRING)) {
		add_text(r, role, message, content);
		return;
	}
	if (!is_of(content, JSON_ARRAY))
		return;
	for (const struct json *part = content->child; part; part = part->next) {
		const struct json *text = json_get(part, "text");
		struct str type = json_text(part, "type");

		if (is_of(part, JSON_STRING)) {
			add_text(r, role, message, part);
		} else if (is_of(text, JSON_STRING)) {
			add_text(r, role, message, text);
		} else if (is_tool_part(type)) {
			r->p->has_tool_messages = true;
			/* What a part of a part says: once more, and no deeper. */
			if (role != PROMPT_TOOL)
				read_content(r, PROMPT_TOOL, message, json_get(part, "content"));
		} else if (part->type == JSON_OBJECT) {
			r->p->has_other_parts = true;
		}
	}
}

/* ---------- messages ---------- */

static enum prompt_role role_of(struct str role)
{
	if (str_equal(role, STR("assistant")) || str_equal(role, STR("model")))
		return PROMPT_ASSISTANT;
	if (str_equal(role, STR("system")) || str_equal(role, STR("developer")))
		return PROMPT_SYSTEM;
	if (str_equal(role, STR("tool")) || str_equal(role, STR("function")))
		return PROMPT_TOOL;
	return PROMPT_USER;                   /* whoever speaks, a guard has to hear it */
}

static bool holds_tool_result(const struct json *content)
{
	if (is_of(content, JSON_ARRAY))
		for (const struct json *part = content->child; part; part = part->next)
			if (str_equal(json_text(part, "type"), STR("tool_result")))
				return true;
	return false;
}

static void close_message(struct prompt *p, enum prompt_role role, const struct json *node)
{
	p->n_messages++;
	p->n_user_messages += role == PROMPT_USER;
	p->last_role = role;
	p->last_message = node;
}

static void read_message(struct reader *r, const struct json *message)
{
	struct prompt *p = r->p;
	const struct json *content = json_get(message, "content"), *calls = json_get(message, "tool_calls");
	enum prompt_role role = role_of(json_text(message, "role"));

	read_content(r, role, p->n_messages, content);
	if (is_of(calls, JSON_ARRAY) || is_of(json_get(message, "function_call"), JSON_OBJECT) || role == PROMPT_TOOL)
		p->has_tool_messages = true;
	/* A user does not say what tools answer: such a message goes on with the turn before. */
	if (role == PROMPT_USER && holds_tool_result(content))
		role = PROMPT_TOOL;
	close_message(p, role, message);
}

static void read_messages(struct reader *r, const struct json *messages)
{
	if (!is_of(messages, JSON_ARRAY))
		return;
	for (const struct json *message = messages->child; message; message = message->next)
		read_message(r, message);
}

/* One item of a list of /responses: a message, a call of a tool, what a tool said, a thought. */
static void read_item(struct reader *r, const struct json *item)
{
	struct str type = json_text(item, "type");
	struct prompt *p = r->p;

	if (is_of(item, JSON_STRING)) {
		add_text(r, PROMPT_USER, p->n_messages, item);
		close_message(p, PROMPT_USER, item);
	} else if (type.n == 0 || str_equal(type, STR("message"))) {
		read_message(r, item);
	} else if (str_ends(type, STR("_call_output"))) {
		read_content(r, PROMPT_TOOL, p->n_messages, json_get(item, "output"));
		p->has_tool_messages = true;
		close_message(p, PROMPT_TOOL, item);
	} else if (str_ends(type, STR("_call"))) {
		p->has_tool_messages = true;
		close_message(p, PROMPT_ASSISTANT, item);
	} else if (str_equal(type, STR("reasoning"))) {
		close_message(p, PROMPT_ASSISTANT, item);
	} else {
		read_content(r, PROMPT_USER, p->n_messages, json_get(item, "content"));
		if (is_of(json_get(item, "text"), JSON_STRING))
			add_text(r, PROMPT_USER, p->n_messages, json_get(item, "text"));
		p->has_other_parts = true;
		close_message(p, p->last_role, item);
	}
}

/* A text, or a list in which each text (or part with a text) is a message: prompt, input. Lists of tokens have none. */
static void read_texts(struct reader *r, const struct json *value)
{
	struct prompt *p = r->p;

	if (is_of(value, JSON_STRING)) {
		add_text(r, PROMPT_USER, p->n_messages, value);
		close_message(p, PROMPT_USER, NULL);
		return;
	}
	if (!is_of(value, JSON_ARRAY))
		return;
	for (const struct json *item = value->child; item; item = item->next) {
		const struct json *text = item->type == JSON_OBJECT ? json_get(item, "text") : item;

		if (is_of(text, JSON_STRING)) {
			add_text(r, PROMPT_USER, p->n_messages, text);
			close_message(p, PROMPT_USER, NULL);
		} else if (item->type == JSON_OBJECT) {
			p->has_other_parts = true;
		}
	}
}

static void read_responses(struct reader *r, const struct json *body)
{
	const struct json *input = json_get(body, "input");

	read_content(r, PROMPT_SYSTEM, PROMPT_OUTSIDE, json_get(body, "instructions"));
	if (!is_of(input, JSON_ARRAY)) {
		read_texts(r, input);
		return;
	}
	for (const struct json *item = input->child; item; item = item->next)
		read_item(r, item);
}

static void read_dashscope(struct reader *r, const struct json *body)
{
	const struct json *input = json_get(body, "input");

	read_messages(r, json_get(input, "messages"));
	if (is_of(json_get(input, "prompt"), JSON_STRING))
		read_texts(r, json_get(input, "prompt"));
}

/* All texts in the value, but `except`. Depth is bounded by the parser. */
static void read_all(struct reader *r, const struct json *value, const struct json *except)
{
	if (value->type == JSON_STRING && value != except)
		add_text(r, PROMPT_USER, r->p->n_messages, value);
	for (const struct json *m = value->child; m; m = m->next)
		read_all(r, m, except);
}

/* Variables of the application are one message, and the question is the last. */
static void read_dify(struct reader *r, enum ai_kind kind, const struct json *body)
{
	const struct json *inputs = json_get(body, "inputs"), *files = json_get(body, "files");
	const struct json *query = kind == AI_DIFY_CHAT ? json_get(body, "query") :
		kind == AI_DIFY_COMPLETION ? json_get(inputs, "query") : NULL;
	unsigned before = r->p->n;

	if (is_of(inputs, JSON_OBJECT))
		read_all(r, inputs, query);
	if (r->p->n > before)
		close_message(r->p, PROMPT_USER, NULL);
	if (is_of(query, JSON_STRING))
		read_texts(r, query);
	if (is_of(files, JSON_ARRAY) && files->n > 0)
		r->p->has_other_parts = true;
}

/* What was said after the last message of an assistant. */
static void mark_last_turn(struct prompt *p, const struct json *list)
{
	unsigned first = 0, i = 0;

	if (is_of(list, JSON_ARRAY)) {
		for (const struct json *m = list->child; m; m = m->next, i++) {
			struct str type = json_text(m, "type");

			if (role_of(json_text(m, "role")) == PROMPT_ASSISTANT || str_ends(type, STR("_call")) ||
			    str_equal(type, STR("reasoning")))
				first = i + 1;
		}
	}
	for (i = 0; i < p->n; i++)
		p->texts[i].is_last_turn = p->texts[i].role == PROMPT_SYSTEM || p->texts[i].message >= first;
}

void prompt_read(struct prompt *p, struct arena *a, enum ai_kind kind, const struct json *body)
{
	struct reader r = { .p = p, .a = a };
	const struct json *list = NULL;

	*p = (struct prompt){ .last_role = PROMPT_SYSTEM };
	switch (kind) {
	case AI_MESSAGES:
		read_content(&r, PROMPT_SYSTEM, PROMPT_OUTSIDE, json_get(body, "system"));
		read_messages(&r, list = json_get(body, "messages"));
		break;
	case AI_CHAT:
		read_messages(&r, list = json_get(body, "messages"));
		break;
	case AI_COMPLETIONS:
		read_texts(&r, json_get(body, "prompt"));
		break;
	case AI_RESPONSES:
		read_responses(&r, body);
		list = json_get(body, "input");
		break;
	case AI_EMBEDDINGS:
		read_texts(&r, json_get(body, "input"));
		break;
	case AI_GENERATION: case AI_APP:
		read_dashscope(&r, body);
		list = json_get(json_get(body, "input"), "messages");
		break;
	case AI_DIFY_CHAT: case AI_DIFY_COMPLETION: case AI_DIFY_WORKFLOW:
		read_dify(&r, kind, body);
		break;
	case AI_NONE: case AI_KIND_COUNT:
		break;
	}
	mark_last_turn(p, list);
}

/* ---------- what is asked of them ---------- */

/* Texts of one message (or of all) and one role (or all) joined by newlines. */
static struct str join(const struct prompt *p, struct arena *a, int role, const unsigned *message)
{
	struct str result = { NULL, 0 };
	char *out = NULL;
	bool any = false;

	for (int round = 0; round < 2; round++) {
		size_t n = 0;

		any = false;
		for (unsigned i = 0; i < p->n; i++) {
			const struct prompt_text *t = &p->texts[i];

			if ((role >= 0 && t->role != (enum prompt_role)role) || (message && t->message != *message))
				continue;
			if (any && out)
				out[n] = '\n';
			n += any;
			any = true;
			if (out && t->text->string.n)
				memcpy(out + n, t->text->string.p, t->text->string.n);
			n += t->text->string.n;
		}
		if (!any)
			return result;
		if (!out)
			out = arena_take(a, n + 1);
		result = (struct str){ out, n };
	}
	out[result.n] = '\0';
	return result;
}

struct str prompt_join(const struct prompt *p, struct arena *a, int role)
{
	return join(p, a, role, NULL);
}

struct str prompt_last_question(const struct prompt *p, struct arena *a)
{
	for (unsigned i = p->n; i-- > 0;)
		if (p->texts[i].role == PROMPT_USER)
			return join(p, a, PROMPT_USER, &p->texts[i].message);
	return (struct str){ NULL, 0 };
}

int64_t prompt_estimate(const struct prompt *p)
{
	struct usage_estimate e = { 0 };

	for (unsigned i = 0; i < p->n; i++)
		usage_estimate_add(&e, p->texts[i].text->string);
	return usage_estimate_tokens(&e);
}
