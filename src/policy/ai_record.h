/*
 * ai_record.h -- ai_log: what the access record says of a request to a model or an agent.
 *
 * One JSON object. Numbers and names are always there; what was asked and said only where the policy wants it, each
 * text cut to AI_TEXT_MAX characters and all of it to AI_RECORD_MAX bytes.
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
	bool has_request_content, has_response_content;
	int64_t start_us, end_us;
};
/* ,"ai_log":{...} */
void ai_record_write(struct sbuf *out, const struct ai_record *r);
