/*
 * prompt.h -- the texts of a request to a model, in the order they stand in, whatever API it speaks.
 *
 * One reading serves all who need texts: guards (the last turn), caches (what users asked), search (the last question),
 * statistics and estimates. The texts stay where they are: nodes of the request's tree (json_parse_spans), so that who
 * replaces one knows its place.
 */
#pragma once
#include "ai/kind.h"
#include "core/arena.h"

enum prompt_role { PROMPT_SYSTEM, PROMPT_USER, PROMPT_ASSISTANT, PROMPT_TOOL };

struct prompt_text {
	enum prompt_role role;
	unsigned message;                 /* 0 ..: texts of one message (or list item) share it */
	const struct json *text;          /* JSON_STRING */
	bool is_last_turn;                /* behind the last message of an assistant; system texts: always */
};

struct prompt {
	struct prompt_text *texts;
	unsigned n;
	unsigned n_messages;              /* system texts outside the list of messages count as none */
	unsigned n_user_messages;
	enum prompt_role last_role;       /* of the last message; PROMPT_SYSTEM when there is none */
	const struct json *last_message;  /* the node of the last message or item; NULL where the kind has no list */
	bool has_other_parts;             /* images, audio, files: what is no text */
	bool has_tool_messages;           /* tool calls or their results in the messages */
};

/* Texts of the prompt in the arena. A body that is not what its kind says gives what can be read of it. */
void prompt_read(struct prompt *p, struct arena *a, enum ai_kind kind, const struct json *body);
/* Texts of one role (or of all: -1) joined by newlines; absent when there are none. */
struct str prompt_join(const struct prompt *p, struct arena *a, int role);
/* The texts of the last user message, joined by newlines. */
struct str prompt_last_question(const struct prompt *p, struct arena *a);
/* Tokens by estimate of all texts (usage.h). */
int64_t prompt_estimate(const struct prompt *p);
