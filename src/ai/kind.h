/*
 * kind.h -- which API a request to a model or an agent speaks, told by its path and its body.
 *
 * Everything in ai/ that reads or writes a body asks for its kind. A family is a group of kinds whose errors and
 * streams have one shape.
 */
#pragma once
#include <stdbool.h>
#include "core/json.h"
#include "core/str.h"

enum ai_kind {
	AI_NONE,                          /* not a request that AI policies look at */
	AI_CHAT,                          /* OpenAI /chat/completions */
	AI_COMPLETIONS,                   /* OpenAI /completions */
	AI_RESPONSES,                     /* OpenAI /responses */
	AI_EMBEDDINGS,                    /* OpenAI /embeddings */
	AI_MESSAGES,                      /* Anthropic /messages */
	AI_GENERATION,                    /* DashScope /text-generation/generation, /multimodal-generation/generation */
	AI_APP,                           /* DashScope /api/v1/apps/{id}/completion */
	AI_DIFY_CHAT,                     /* Dify /chat-messages */
	AI_DIFY_COMPLETION,               /* Dify /completion-messages */
	AI_DIFY_WORKFLOW,                 /* Dify /workflows/run */
	AI_KIND_COUNT
};

enum ai_family { AI_FAMILY_OPENAI, AI_FAMILY_ANTHROPIC, AI_FAMILY_DASHSCOPE, AI_FAMILY_DIFY };

/* "openai.chat", "anthropic.messages", ...; "none" */
struct str ai_kind_name(enum ai_kind kind);
/* Of a kind that is not AI_NONE. */
enum ai_family ai_kind_family(enum ai_kind kind);

/*
 * What a POST with a JSON body speaks. path: without query, below the base path of its API where it has one. body: its
 * tree, NULL where it could not be read: then the path alone decides.
 */
enum ai_kind ai_kind_detect(struct str path, const struct json *body);
/* The family an error of ours is written in for a path that no kind claims ("/v1/models"). */
enum ai_family ai_path_family(struct str path);
/*
 * Whether the client wants a stream. sse_header: X-DashScope-SSE is "enable"; accepts_sse: Accept names
 * text/event-stream.
 */
bool ai_kind_streams(enum ai_kind kind, const struct json *body, bool sse_header, bool accepts_sse);
