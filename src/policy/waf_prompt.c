#include "policy/waf_prompt.h"
#include "ai/edits.h"
#include "ai/kind.h"
#include "ai/prompt.h"

#define NODES_MAX 400000                  /* values of one body */
#define DEPTH_MAX 8                       /* of tool calls in a message */

static bool is_json(struct str type)
{
	type.n = str_find(type, ';');
	return str_equal_nocase(str_trim(type), STR("application/json"));
}

bool waf_is_for_models(struct exchange *x)
{
	const struct message *req = exchange_request(x);
	const struct header *type = message_find(req, HEADER_CONTENT_TYPE);

	return exchange_is_for_models(x) && req->method == METHOD_POST && type && is_json(type->value) &&
	       !message_find_next(req, type);
}

/* What models wrote for tools: JSON in a text. */
static void empty_arguments(struct edits *e, const struct json *v, unsigned depth)
{
	for (const struct json *child = v->child; child; child = child->next) {
		if (child->type == JSON_STRING && v->type == JSON_OBJECT && str_equal(child->name, STR("arguments")))
			edits_replace(e, child, STR("\"\""));
		else if (child->child && depth < DEPTH_MAX)
			empty_arguments(e, child, depth + 1);
	}
}

struct str waf_without_prompts(struct exchange *x)
{
	struct arena *a = exchange_arena(x);
	struct str body = exchange_request_body(x);
	struct problem why;
	const struct json *doc = body.p ? json_parse_spans(a, body, NODES_MAX, &why) : NULL;
	enum ai_kind kind = doc ? ai_kind_detect(exchange_path(x), doc) : AI_NONE;
	const struct json *messages = json_get(doc, "messages");
	struct prompt prompt;
	struct edits edits;

	if (kind == AI_NONE)
		return (struct str){ NULL, 0 };
	prompt_read(&prompt, a, kind, doc);
	edits_init(&edits, a, body);
	for (unsigned i = 0; i < prompt.n; i++)
		edits_replace(&edits, prompt.texts[i].text, STR("\"\""));
	if (messages)
		empty_arguments(&edits, messages, 0);
	return edits_are_none(&edits) ? (struct str){ NULL, 0 } : edits_apply(&edits, a);
}
