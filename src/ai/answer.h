/*
 * answer.h -- what a model said: gathered from a whole answer or from the events of a stream, for records, caches and
 * guards.
 *
 * Text is kept only if asked for, at most ANSWER_MAX bytes of all of it; counting for estimates goes on in any case.
 * Memory is that of sbufs, counted in the memory budget, freed by answer_free.
 */
#pragma once
#include "ai/kind.h"
#include "ai/sse.h"
#include "ai/usage.h"
#include "core/arena.h"

#define ANSWER_MAX (1024 * 1024)
#define ANSWER_TOOLS_MAX 128

enum answer_wants { ANSWER_NOTHING = 0, ANSWER_TEXT = 1 /* text, reasoning, tool calls */ };

/*
 * How the events of a stream tell a text: each what comes next, or each all of it so far (DashScope without
 * incremental_output). UNTOLD: by what the second one holds.
 */
enum answer_pieces { ANSWER_UNTOLD, ANSWER_INCREMENTAL, ANSWER_CUMULATIVE };
struct answer_so_far {
	uint64_t hash;                    /* of DashScope's only */
	size_t n;
};

struct answer_tool {
	struct sbuf id, name, arguments;
	int64_t index;                    /* the upstream's: of the call, or of the block that it is */
	struct answer_so_far so_far;      /* of the arguments, kept or not */
};

struct answer {                           /* zero-initialise, then set kind and wants */
	enum ai_kind kind;                /* of the bytes that are read */
	unsigned wants;                   /* enum answer_wants bits */
	enum answer_pieces pieces;        /* of DashScope; all others are incremental */
	struct sbuf id, model, finish_reason;     /* as the upstream says; at most 256 bytes of each */
	struct sbuf text, reasoning;      /* of the first choice */
	struct answer_tool *tools;        /* in the order they came; mem_alloc'ed */
	unsigned n_tools;
	unsigned n_choices;               /* most that was seen */
	bool is_cut;                      /* more was said than is kept */
	bool is_complete;                 /* the terminal event was there, or it was a whole answer */
	bool has_error;                   /* an error event, or an error object in the answer */
	bool has_content;                 /* any text, reasoning or part of a tool call */
	bool has_more;                    /* what these do not hold: refusals as such, sources, sound, images */
	struct usage usage;
	struct usage_estimate said;       /* text, reasoning and arguments of all choices */
	/* private */
	struct answer_so_far text_so_far, reasoning_so_far;
	size_t kept;                      /* bytes of text, reasoning and tools */
	size_t held;                      /* bytes counted in the memory budget */
};

/* What an event (or an answer) holds; bits. */
enum answer_holds {
	ANSWER_HOLDS_CONTENT = 1,         /* non-empty text, reasoning or part of a tool call */
	ANSWER_HOLDS_USAGE = 2,
	ANSWER_HOLDS_USAGE_ONLY = 4,      /* a chunk that is there for its usage alone: choices empty, null or absent */
	ANSWER_HOLDS_END = 8,             /* terminal (SSE-3) */
	ANSWER_HOLDS_ERROR = 16,
};
/* doc: the event's data as a tree, NULL when it is none ("[DONE]"). Returns enum answer_holds bits. */
unsigned answer_take_event(struct answer *a, const struct sse_event *e, const struct json *doc);
unsigned answer_take_body(struct answer *a, const struct json *doc);
/*
 * The text that this event alone holds (text, reasoning, tool arguments, of all choices), appended to `out`: for
 * guards. Of a cumulative stream that is all of it so far, each time.
 */
void answer_event_text(enum ai_kind kind, const struct sse_event *e, const struct json *doc, struct sbuf *out);
void answer_body_text(enum ai_kind kind, const struct json *doc, struct sbuf *out);
void answer_free(struct answer *a);
