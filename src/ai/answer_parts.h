/*
 * answer_parts.h -- between answer.c, which gathers what is said, and answer_read.c, which knows where each API says
 * it. Nobody else includes this.
 */
#pragma once
#include "ai/answer.h"

/* Where what is found goes. Either may be NULL. */
struct saying {
	enum ai_kind kind;
	struct answer *answer;
	struct sbuf *out;
	unsigned holds;                   /* enum answer_holds bits, found so far */
	bool is_body;                     /* a whole answer */
	bool is_last;                     /* the event names a finish reason */
};

/* Of one tool call: what this event says of it. Absent texts: nothing. */
struct tool_part {
	int64_t index;                    /* < 0: the last one, or a new one where the id is new */
	struct str id, name, arguments;
	bool is_whole;                    /* arguments are all of them: they count where none were said before */
};

/* choice: 0 is the one that is kept. */
void say_choice(struct saying *s, int64_t choice);
void say_text(struct saying *s, int64_t choice, struct str text);
void say_reasoning(struct saying *s, int64_t choice, struct str text);
void say_tool(struct saying *s, int64_t choice, const struct tool_part *part);
void say_instead(struct saying *s, struct str text);      /* the text so far is taken back */
/* Absent: not said. Of id and model the first counts, of reasons to finish the last. */
void say_facts(struct saying *s, struct str id, struct str model, struct str finish);

/* answer_read.c. doc is an object in a body, anything or NULL in an event. */
void answer_read_event(struct saying *s, const struct sse_event *e, const struct json *doc);
void answer_read_body(struct saying *s, const struct json *doc);
