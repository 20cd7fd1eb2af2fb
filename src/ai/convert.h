/*
 * convert.h -- between the APIs of models: a client that speaks one is served by an upstream that speaks another.
 *
 *      request   client's body ──► upstream's body           answer   upstream's body or events ──► client's
 *
 * AI_CHAT and AI_MESSAGES both ways, with streams and tools; AI_CHAT to AI_GENERATION. What has no counterpart is left
 * out; what would change the meaning is refused.
 */
#pragma once
#include "ai/kind.h"
#include "ai/sse.h"
#include "core/arena.h"
#include "core/json.h"

bool convert_can(enum ai_kind client, enum ai_kind upstream);
/* The upstream's kind that serves a client's kind at a service with these protocols; the client's own when it can. */
/* body: the client's, model: what the upstream is asked for. False fills *why: field names the member. */
MUST_USE bool convert_request(enum ai_kind client, enum ai_kind upstream, const struct json *body, struct str model,
			      struct sbuf *out, struct problem *why);
/* A whole answer with a 2xx status. False: it is not what the upstream's API says. */
MUST_USE bool convert_body(enum ai_kind client, enum ai_kind upstream, const struct json *doc, struct sbuf *out);
/* An error answer of the upstream, whatever its body is: in the client's shape. */
void convert_error(enum ai_kind client, enum ai_kind upstream, int status, struct str body, struct sbuf *out);

struct converter;
/* include_usage: the client asked for it (OpenAI clients). The converter lives in the arena; free it for its buffers. */
struct converter *converter_new(struct arena *a, enum ai_kind client, enum ai_kind upstream, bool include_usage);
/* One event of the upstream to events of the client, appended to `out` (maybe none). */
void converter_take(struct converter *c, const struct sse_event *e, const struct json *doc, struct sbuf *out);
/* The upstream's stream is over without its terminal event: nothing is made up. */
void converter_free(struct converter *c);
