/*
 * render_parts.h -- what whole answers and streams have in common. Private to render*.c.
 *
 * A writer is one answer being made: the texts that all its objects repeat, and the bytes so far.
 */
#pragma once
#include "ai/render.h"

/* Bytes of text in one event, at most: small enough for every client's buffer of lines. */
#define RENDER_PIECE 2048
#define RENDER_ID 40

struct writer {
	const struct rendered *r;
	struct str id, model, item;       /* item: of AI_RESPONSES, its message */
	int64_t created;                  /* seconds */
	int64_t sequence;                 /* AI_RESPONSES: of the next event */
	char id_made[RENDER_ID], item_made[RENDER_ID];
	struct sbuf out;
};

void writer_init(struct writer *w, const struct rendered *r);
/* The bytes, in the arena; the writer is empty then. */
struct str writer_end(struct writer *w, struct arena *a);

/* `before` as it is, then the text in quotes. */
void writer_text(struct writer *w, const char *before, struct str text);
/* What the kind calls the end: "end_turn" for "stop". */
struct str render_finish(enum ai_kind kind, struct str finish);
/* AI_GENERATION: one object, with the whole text. */
void writer_generation(struct writer *w);
void writer_app(struct writer *w);        /* AI_APP: likewise */
/* Dify: the beginning of an object, and the member that has its usage. */
void writer_dify(struct writer *w, const char *event);
void writer_dify_usage(struct writer *w);
/* AI_RESPONSES: the message, and the object with the message in it (complete) or none yet. */
void writer_message_item(struct writer *w, bool is_complete);
void writer_response(struct writer *w, bool is_complete);
