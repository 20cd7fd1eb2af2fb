/*
 * render.h -- answers that the gateway gives for a model, in the shape of the client's API: kept ones, and refusals.
 */
#pragma once
#include "ai/kind.h"
#include "core/arena.h"

struct rendered {
	enum ai_kind kind;
	struct str model;
	struct str text;                  /* valid UTF-8 */
	struct str reasoning;             /* absent = none */
	struct str finish;                /* in OpenAI's words: "stop", "content_filter"; turned into the kind's own */
	bool include_usage;               /* of a stream: the client asked for a chunk of usage */
	uint64_t seed;                    /* of the ids: random, different each time */
	int64_t now_ms;                   /* Unix time */
};

/* Whether the kind has a shape for it: not embeddings, Dify and unknown ones. */
bool render_can(enum ai_kind kind);
/* A whole answer with usage of zeros, and the same as a stream: all its events. In the arena. */
struct str render_body(const struct rendered *r, struct arena *a);
struct str render_stream(const struct rendered *r, struct arena *a);
/*
 * The end of a stream that already began: one delta with the text, then how this kind ends. `seen`: what the stream
 * showed so far (id, model, whether a text block is open).
 */
struct render_seen {
	struct str id, model;
	bool began;                       /* any event of the upstream went to the client */
	bool block_is_open;               /* Anthropic: content_block_start without its stop */
	unsigned block;                   /* Anthropic: its index */
};
struct str render_stream_rest(const struct rendered *r, const struct render_seen *seen, struct arena *a);

/* An error in the family's shape. code: "invalid_api_key", "rate_limit_exceeded", ...; request_id for those that have it. */
struct str render_error(struct arena *a, enum ai_family family, int status, struct str code, struct str message,
			struct str request_id);
/* "authentication_error" and its like, by status. */
const char *render_error_type(int status);
