/*
 * ai_record.h -- ai_log: what the access record says of a request to a model or an agent.
 *
 * One JSON object, or a string that holds it, for logs whose readers want flat members (as Higress writes it). Numbers
 * and names are always there; what was asked and said only where the policy wants it, each text cut to AI_TEXT_MAX
 * characters and all of it to AI_RECORD_MAX bytes. What a guard kept from the client is not in it.
 */
#pragma once
#include "ai/chat.h"

#define AI_TEXT_MAX 32000
#define AI_RECORD_MAX (1024 * 1024)

struct ai_record {
	struct exchange *x;
	struct chat *chat;                /* NULL: it was refused before it was known what it is */
	struct str api;                   /* name of the API or route */
	struct str session;               /* absent = none */
	bool is_stream;                   /* the client got events */
	bool names_model;                 /* without a chat: it is a request to a model, by its path */
	bool has_request_content, has_response_content;
	bool is_text;                     /* the object is written as a string */
	int64_t start_us, end_us;
};
/* ,"ai_log":{...}, or the same as a string: ,"ai_log":"{...}" */
void ai_record_write(struct sbuf *out, const struct ai_record *r);
