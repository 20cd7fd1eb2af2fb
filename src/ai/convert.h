/*
 * convert.h -- between the APIs of models: a client that speaks one is served by an upstream that speaks another.
 *
 *      request   client's body ──► upstream's body           answer   upstream's body or events ──► client's
 *
 * AI_CHAT and AI_MESSAGES both ways, with streams and tools; AI_CHAT to AI_GENERATION. What has no counterpart and is
 * harmless is left out; what would change the meaning is refused: docs/guide/ai-conversion.md has the tables.
 * What comes out is always valid JSON, or whole events with valid JSON.
 */
#pragma once
#include "ai/kind.h"
#include "ai/sse.h"
#include "core/arena.h"
#include "core/json.h"

/* Anthropic's API wants max_tokens: what it gets where an OpenAI client says nothing. */
#define CONVERT_MAX_TOKENS 8192

/* One request and its answer. Zero-initialise, then set the first three; convert_request() fills the rest. */
struct conversion {
	enum ai_kind client, upstream;
	struct str model;                 /* what the upstream is asked for; lives as long as the answer */
	int64_t created;                  /* Unix seconds, for answers that say it */
	bool is_stream;                   /* the client asked for events */
	bool include_usage;               /* an OpenAI client asked for the chunk of usage */
	bool is_cumulative;               /* AI_GENERATION: each event holds all that was said so far */
	bool is_multimodal;               /* AI_GENERATION: images: for .../multimodal-generation/generation */
};

bool convert_can(enum ai_kind client, enum ai_kind upstream);
/* body: the client's. False fills *why: field names the member. A stream's body asks the upstream for usage. */
MUST_USE bool convert_request(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why);
/* A whole answer with a 2xx status. False: it is not what the upstream's API says (nothing was added to `out`). */
MUST_USE bool convert_body(const struct conversion *c, const struct json *doc, struct sbuf *out);
/* An error answer of the upstream, whatever its body is: in the client's shape. */
void convert_error(const struct conversion *c, int status, struct str body, struct sbuf *out);

struct converter;
/* Of an answer that is events. It lives in the arena; free it for its buffers. */
struct converter *converter_new(struct arena *a, const struct conversion *c);
/*
 * One event of the upstream to events of the client, appended to `out` (maybe none). doc: its data as a tree, NULL when
 * it is none ("[DONE]", a comment). An event that cannot be read ends the stream with an error event.
 */
void converter_take(struct converter *c, const struct sse_event *e, const struct json *doc, struct sbuf *out);
/* The client's stream has its end, or an error: what comes now is not passed on. Without it nothing is made up. */
bool converter_is_over(const struct converter *c);
void converter_free(struct converter *c);
