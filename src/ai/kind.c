#include "ai/kind.h"

struct known {
	struct str name;
	enum ai_family family;
};

static const struct known kinds[AI_KIND_COUNT] = {
	[AI_NONE] = { STR("none"), AI_FAMILY_OPENAI },
	[AI_CHAT] = { STR("openai.chat"), AI_FAMILY_OPENAI },
	[AI_COMPLETIONS] = { STR("openai.completions"), AI_FAMILY_OPENAI },
	[AI_RESPONSES] = { STR("openai.responses"), AI_FAMILY_OPENAI },
	[AI_EMBEDDINGS] = { STR("openai.embeddings"), AI_FAMILY_OPENAI },
	[AI_MESSAGES] = { STR("anthropic.messages"), AI_FAMILY_ANTHROPIC },
	[AI_GENERATION] = { STR("dashscope.generation"), AI_FAMILY_DASHSCOPE },
	[AI_APP] = { STR("dashscope.app"), AI_FAMILY_DASHSCOPE },
	[AI_DIFY_CHAT] = { STR("dify.chat"), AI_FAMILY_DIFY },
	[AI_DIFY_COMPLETION] = { STR("dify.completion"), AI_FAMILY_DIFY },
	[AI_DIFY_WORKFLOW] = { STR("dify.workflow"), AI_FAMILY_DIFY },
};

struct str ai_kind_name(enum ai_kind kind)
{
	return kinds[kind].name;
}

enum ai_family ai_kind_family(enum ai_kind kind)
{
	return kinds[kind].family;
}

/* /api/v1/apps/{id}/completion, whatever stands before it. */
static bool is_app(struct str path)
{
	static const struct str end = STR("/completion"), before = STR("/api/v1/apps/");
	struct str rest;

	if (!str_ends(path, end))
		return false;
	rest = (struct str){ path.p, path.n - end.n };
	while (rest.n > 0 && rest.p[rest.n - 1] != '/')
		rest.n--;
	return rest.n + end.n < path.n && str_ends(rest, before);
}

/* Paths that say it by their end. In this order: "/chat/completions" ends with "/completions" too. */
static enum ai_kind by_path(struct str path)
{
	static const struct { struct str end; enum ai_kind kind; } ends[] = {
		{ STR("/chat/completions"), AI_CHAT },
		{ STR("/completions"), AI_COMPLETIONS },
		{ STR("/messages"), AI_MESSAGES },
		{ STR("/responses"), AI_RESPONSES },
		{ STR("/embeddings"), AI_EMBEDDINGS },
		{ STR("/text-generation/generation"), AI_GENERATION },
		{ STR("/multimodal-generation/generation"), AI_GENERATION },
		{ STR("/chat-messages"), AI_DIFY_CHAT },
		{ STR("/completion-messages"), AI_DIFY_COMPLETION },
		{ STR("/workflows/run"), AI_DIFY_WORKFLOW },
	};

	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
		if (str_ends(path, ends[i].end))
			return ends[i].kind;
	return is_app(path) ? AI_APP : AI_NONE;
}

/* Servers take a slash at the end for the same path. */
static struct str without_slash(struct str path)
{
	if (path.n > 1 && path.p[path.n - 1] == '/')
		path.n--;
	return path;
}

static bool is_list(const struct json *v)
{
	return v && v->type == JSON_ARRAY;
}

enum ai_kind ai_kind_detect(struct str path, const struct json *body)
{
	enum ai_kind kind;

	path = without_slash(path);
	kind = by_path(path);
	if (!body)
		return kind;
	if (kind == AI_RESPONSES && !json_get(body, "input"))
		kind = AI_NONE;
	if (kind != AI_NONE)
		return kind;
	/* It has messages, and no model answers them: tokens are counted, or a batch is handed in. */
	if (str_ends(path, STR("/messages/count_tokens")) || str_ends(path, STR("/messages/batches")))
		return AI_NONE;
	return is_list(json_get(body, "messages")) ? AI_CHAT : AI_NONE;
}

static bool holds(struct str path, struct str part)
{
	for (; path.n >= part.n; path.p++, path.n--)
		if (str_starts(path, part))
			return true;
	return false;
}

enum ai_family ai_path_family(struct str path)
{
	enum ai_kind kind;

	path = without_slash(path);
	kind = by_path(path);
	if (kind != AI_NONE)
		return ai_kind_family(kind);
	if (holds(path, STR("/messages/")))
		return AI_FAMILY_ANTHROPIC;
	if (holds(path, STR("/api/v1/services/")) || holds(path, STR("/api/v1/apps/")))
		return AI_FAMILY_DASHSCOPE;
	return AI_FAMILY_OPENAI;
}

bool ai_kind_streams(enum ai_kind kind, const struct json *body, bool sse_header, bool accepts_sse)
{
	switch (kind) {
	case AI_CHAT: case AI_COMPLETIONS: case AI_RESPONSES: case AI_MESSAGES:
		return json_is_true(body, "stream");
	case AI_GENERATION: case AI_APP:
		return sse_header || accepts_sse;
	case AI_DIFY_CHAT: case AI_DIFY_COMPLETION: case AI_DIFY_WORKFLOW:
		return str_equal(json_text(body, "response_mode"), STR("streaming"));
	case AI_NONE: case AI_EMBEDDINGS: case AI_KIND_COUNT:
		break;
	}
	return false;
}
