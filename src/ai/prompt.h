/*
 * prompt.h -- the texts of a request to a model, in the order they stand in, whatever API it speaks.
 *
 * One reading serves all who need texts: guards (the last turn), caches (what users asked), search (the last
 * question), statistics and estimates. The texts stay where they are: nodes of the request's tree
 * (json_parse_spans), so that who replaces one knows its place.
 *
 *      message    one of the list of messages, an item of /responses, one of several prompts or inputs
 *      part       of a message's content, which may be a list: texts, images, results of tools (Anthropic)
 *
 * Anthropic lets users hand in what tools said: such a part has role PROMPT_TOOL, and so has a last message
 * that holds one, because it goes on with a turn and asks nothing new.
 */
#pragma once
#include "ai/kind.h"
#include "core/arena.h"

/* Developers and instructions are SYSTEM; roles that nobody knows are USER. */
enum prompt_role { PROMPT_SYSTEM, PROMPT_USER, PROMPT_ASSISTANT, PROMPT_TOOL };

#define PROMPT_OUTSIDE (~0U)              /* of no message: system texts beside the list, instructions */

struct prompt_text {
	enum prompt_role role;
	unsigned message;                 /* 0 ..: texts of one message share it; PROMPT_OUTSIDE */
	const struct json *text;          /* JSON_STRING */
	bool is_last_turn;                /* behind the last message of an assistant; system texts: always */
};

struct prompt {
	struct prompt_text *texts;
	unsigned n;
	unsigned n_messages;
	unsigned n_user_messages;
	enum prompt_role last_role;       /* of the last message; PROMPT_SYSTEM when there is none */
	const struct json *last_message;  /* its node in the list; NULL where the kind has no list */
	bool has_other_parts;             /* images, audio, files: what is no text */
	bool has_tool_messages;           /* tool calls or their results in the messages */
};

/* Texts of the prompt in the arena. A body that is not what its kind says gives what can be read of it. */
void prompt_read(struct prompt *p, struct arena *a, enum ai_kind kind, const struct json *body);
/* Texts of one role (or of all: -1) joined by newlines; absent when there are none. */
struct str prompt_join(const struct prompt *p, struct arena *a, int role);
/* The user's texts in the last message that has any, joined by newlines; absent when none has. */
struct str prompt_last_question(const struct prompt *p, struct arena *a);
/* Tokens by estimate of all texts (usage.h). */
int64_t prompt_estimate(const struct prompt *p);
