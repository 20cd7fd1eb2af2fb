/*
 * Which way a conversion goes, and what all ways share. A request that is refused leaves nothing behind in `out`.
 */
#include "ai/convert.h"
#include <stdio.h>
#include "ai/convert_parts.h"
#include "ai/render.h"
#include "core/crypto.h"

#define MESSAGE_MAX 2048                  /* bytes of an upstream's words that an error hands on */

static bool is_pair(const struct conversion *c, enum ai_kind client, enum ai_kind upstream)
{
	return c->client == client && c->upstream == upstream;
}

bool convert_can(enum ai_kind client, enum ai_kind upstream)
{
	return (client == AI_CHAT && (upstream == AI_MESSAGES || upstream == AI_GENERATION)) ||
	       (client == AI_MESSAGES && upstream == AI_CHAT);
}

bool convert_request(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why)
{
	size_t before = out->n;
	bool fine;

	BUG_ON(!convert_can(c->client, c->upstream));
	if (!body || body->type != JSON_OBJECT)
		return problem(why, "", "the body must be a JSON object");
	if (is_pair(c, AI_MESSAGES, AI_CHAT))
		fine = convert_messages_to_chat(c, body, out, why);
	else if (c->upstream == AI_MESSAGES)
		fine = convert_chat_to_messages(c, body, out, why);
	else
		fine = convert_chat_to_generation(c, body, out, why);
	if (!fine)
		out->n = before;
	return fine;
}

bool convert_body(const struct conversion *c, const struct json *doc, struct sbuf *out)
{
	size_t before = out->n;
	bool fine;

	BUG_ON(!convert_can(c->client, c->upstream));
	if (!doc || doc->type != JSON_OBJECT)
		return false;
	if (is_pair(c, AI_MESSAGES, AI_CHAT))
		fine = convert_chat_to_message(c, doc, out);
	else if (c->upstream == AI_MESSAGES)
		fine = convert_message_to_chat(c, doc, out);
	else
		fine = convert_generation_to_chat(c, doc, out);
	if (!fine)
		out->n = before;
	return fine;
}

const struct json *convert_get(const struct json *object, const char *name)
{
	const struct json *v = json_get(object, name);

	return v && v->type != JSON_NULL ? v : NULL;
}

struct str convert_new_id(struct arena *a, const char *prefix)
{
	char letters[25];

	crypto_id(letters, sizeof letters - 1);
	return arena_printf(a, "%s%s", prefix, letters);
}

struct str convert_reasoning(const struct json *message)
{
	struct str text = json_text(message, "reasoning_content");

	return text.n ? text : json_text(message, "reasoning");
}

void convert_join_texts(const struct json *content, struct str between, struct sbuf *text)
{
	bool is_first = true;

	if (!content)
		return;
	if (content->type == JSON_STRING)
		sbuf_add(text, content->string);
	if (content->type != JSON_ARRAY)
		return;
	for (const struct json *part = content->child; part; part = part->next) {
		const struct json *words = part->type == JSON_STRING ? part : json_get(part, "text");
		struct str type = json_text(part, "type");

		if (!words || words->type != JSON_STRING || (type.n && !str_equal(type, STR("text"))))
			continue;
		if (!is_first)
			sbuf_add(text, between);
		is_first = false;
		sbuf_add(text, words->string);
	}
}

/* What an upstream says about an error, wherever it says it. */
static struct str find_message(const struct json *doc)
{
	static const char *const names[] = { "message", "detail", "msg", "error" };
	const struct json *error = json_get(doc, "error");
	struct str message = json_text(error, "message");

	for (size_t i = 0; i < sizeof names / sizeof names[0] && message.n == 0; i++)
		message = json_text(doc, names[i]);
	return message;
}

struct str convert_cut(struct str s, size_t n)
{
	if (s.n <= n)
		return s;
	while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
		n--;
	return (struct str){ s.p, n };
}

/* OpenAI's code for a status; absent where it has none of its own. */
static struct str code_of(int status)
{
	switch (status) {
	case 401:
		return STR("invalid_api_key");
	case 403:
		return STR("access_denied");
	case 404:
		return STR("model_not_found");
	case 413:
		return STR("request_too_large");
	case 429:
		return STR("rate_limit_exceeded");
	}
	return STR("");
}

/* The code an OpenAI client sees; an upstream that has such codes keeps its own. */
static struct str find_code(const struct json *doc, int status)
{
	struct str code = json_text(json_get(doc, "error"), "code");

	code = code.n ? code : json_text(doc, "code");
	return code.n && code.n <= 128 ? code : code_of(status);
}

void convert_error_of(const struct conversion *c, int status, const struct json *doc, struct sbuf *out)
{
	struct arena a = { 0 };
	struct render_fault fault = { .family = ai_kind_family(c->client), .status = status };

	fault.message = convert_cut(find_message(doc), MESSAGE_MAX);
	if (fault.message.n == 0)
		fault.message = arena_printf(&a, "the model service answered with status %d", status);
	fault.code = find_code(doc, status);
	sbuf_add(out, render_error(&a, &fault));
	arena_free(&a);
}

void convert_error(const struct conversion *c, int status, struct str body, struct sbuf *out)
{
	struct arena a = { 0 };
	struct problem ignored;
	const struct json *doc = body.n && body.n <= 1024 * 1024 ? json_parse(&a, body, &ignored) : NULL;

	convert_error_of(c, status, doc, out);
	arena_free(&a);
}
