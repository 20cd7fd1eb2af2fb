/*
 * render.h -- answers that the gateway gives for a model, in the shape of the client's API: kept ones, and refusals.
 *
 *      render_ask(request) ──► render_body, or render_stream: an answer from nothing
 *      render_see(each event that went to the client) ──► render_stream_rest: the end of a stream that began
 *
 * Usage is zero: no model worked for it. Texts may hold anything that is UTF-8; what is not becomes U+FFFD.
 */
#pragma once
#include "ai/kind.h"
#include "core/arena.h"

/* How DashScope says it, by what was asked for: parameters.result_format, and whether parts may be images. */
enum render_form {
	RENDER_FORM_OPEN,                 /* nothing was said: output.text and output.choices */
	RENDER_FORM_TEXT,                 /* output.text */
	RENDER_FORM_MESSAGE,              /* output.choices, content is a text */
	RENDER_FORM_PARTS,                /* output.choices, content is a list of parts */
};

struct rendered {
	enum ai_kind kind;
	struct str model;
	struct str text;                  /* valid UTF-8 */
	struct str reasoning;             /* absent = none; not for Anthropic: a client could not send it back */
	struct str finish;                /* in OpenAI's words: "stop", "content_filter"; turned into the kind's own */
	bool include_usage;               /* of a stream: the client asked for a chunk of usage */
	enum render_form form;            /* of AI_GENERATION */
	uint64_t seed;                    /* of the ids: random, different each time */
	int64_t now_ms;                   /* Unix time */
};

/* Whether the kind has a shape for it: not embeddings, workflows and unknown ones. */
bool render_can(enum ai_kind kind);
/* What the client's request says of the shape of its answer: kind, include_usage, form. body may be NULL. */
void render_ask(struct rendered *r, enum ai_kind kind, struct str path, const struct json *body);
/* Whether the request asks for a chunk of usage in its stream. */
bool render_asks_usage(enum ai_kind kind, const struct json *body);

/* A whole answer with usage of zeros, and the same as a stream: all its events. In the arena. */
struct str render_body(const struct rendered *r, struct arena *a);
struct str render_stream(const struct rendered *r, struct arena *a);

/*
 * The end of a stream that already began: one delta with the text, then how this kind ends. `seen`: what the stream
 * showed the client so far; zero-initialise it.
 */
struct render_seen {
	struct str id, model;
	bool began;                       /* any event of the upstream went to the client */
	bool block_is_open;               /* Anthropic: a block without its stop; Responses: a part of text */
	bool block_is_text;               /* Anthropic: the open one takes text_delta */
	unsigned block;                   /* Anthropic: index of the block, open or to come; Responses: output_index */
	unsigned part;                    /* Responses: content_index of the open part */
	int64_t sequence;                 /* Responses: the next sequence_number */
	struct str item;                  /* Responses: id of the item with the open part */
	int64_t created;                  /* OpenAI: as the stream says; 0 = unknown */
};
/* An event that goes to the client; doc is its data, NULL when it is no JSON. Texts are copied into the arena. */
void render_see(struct render_seen *seen, struct arena *a, enum ai_kind kind, const struct json *doc);
struct str render_stream_rest(const struct rendered *r, const struct render_seen *seen, struct arena *a);

/* An error in the family's shape. */
struct render_fault {
	enum ai_family family;
	int status;
	struct str code;                  /* "invalid_api_key", "rate_limit_exceeded", ...; absent: null, or the type */
	struct str message;
	struct str request_id;            /* for the families that say it */
};
struct str render_error(struct arena *a, const struct render_fault *f);
/* "authentication_error" and its like, by status. */
const char *render_error_type(int status);
