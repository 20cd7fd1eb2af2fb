/*
 * convert_parts.h -- what the files convert*.c share; nobody else includes it.
 *
 * Each direction of a request, of a whole answer and of a stream has a file. A function of a request that returns false
 * has filled *why with the path below what it was given; its caller puts the rest of the path before it.
 */
#pragma once
#include "ai/convert.h"
#include "ai/convert_put.h"
#include "ai/usage.h"

/* Requests. */
bool convert_chat_to_messages(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why);
bool convert_messages_to_chat(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why);
bool convert_chat_to_generation(struct conversion *c, const struct json *body, struct sbuf *out, struct problem *why);

/* Members of a request, each by a rule. */
enum member_rule {
	MEMBER_NUMBER, MEMBER_BOOL, MEMBER_TEXT, MEMBER_OBJECT,       /* copied; another type is refused */
	MEMBER_EMPTY,                     /* refused unless it says nothing: false, 0, "", [], {} */
	MEMBER_NONE,                      /* refused */
	MEMBER_ONE,                       /* refused unless it is 1 */
};
struct member {
	const char *name;
	enum member_rule rule;
	const char *as;                   /* the upstream's name; NULL: the same, or not copied at all */
};
/* null is as if absent. */
bool convert_members(const struct member *rules, size_t n, const struct json *object, struct sbuf *out,
		     struct problem *why);
#define CONVERT_MEMBERS(rules, object, out, why) \
	convert_members((rules), sizeof(rules) / sizeof((rules)[0]), (object), (out), (why))

/* The member if it is there and no null. */
const struct json *convert_get(const struct json *object, const char *name);
/* The same; another type is refused. *v is NULL when it is not there. */
bool convert_get_typed(const struct json *object, const char *name, enum json_type type, const struct json **v,
		       struct problem *why);
/* What must be there; a text is not empty. */
bool convert_need_list(const struct json *object, const char *name, const struct json **v, struct problem *why);
bool convert_need_object(const struct json *object, const char *name, const struct json **v, struct problem *why);
bool convert_need_text(const struct json *object, const char *name, struct str *text, struct problem *why);
/* False: there is no counterpart; only `what` has one. */
bool convert_refuse(struct problem *why, const char *field);
bool convert_must(struct problem *why, const char *field, const char *what);
bool convert_must_type(struct problem *why, const struct json *part, const char *what);
/* Puts "list[at]" before the path; false. */
bool convert_in_item(struct problem *why, const char *list, unsigned at);
/* "data:image/png;base64,..." taken apart. */
bool convert_split_data_url(struct str url, struct str *type, struct str *data);
/* An OpenAI request's tool_choice; name: of CHOICE_NAMED. */
enum chat_choice { CHOICE_UNSAID, CHOICE_AUTO, CHOICE_NONE, CHOICE_REQUIRED, CHOICE_NAMED };
bool convert_read_choice(const struct json *body, enum chat_choice *choice, struct str *name, struct problem *why);
/* The members all upstreams of an OpenAI client refuse, and what the stream's client wants. */
bool convert_check_chat(struct conversion *c, const struct json *body, struct problem *why);

/* The texts of what is a string or a list of parts; other parts are passed over. */
void convert_join_texts(const struct json *content, struct str between, struct sbuf *text);

/* Whole answers. */
bool convert_message_to_chat(const struct conversion *c, const struct json *doc, struct sbuf *out);
bool convert_chat_to_message(const struct conversion *c, const struct json *doc, struct sbuf *out);
bool convert_generation_to_chat(const struct conversion *c, const struct json *doc, struct sbuf *out);

/* What OpenAI's finish_reason is for Anthropic's stop_reason, and the other way round. */
const char *convert_finish_reason(struct str stop_reason);
const char *convert_stop_reason(struct str finish_reason, bool has_tools);
void convert_put_chat_usage(struct sbuf *out, const struct usage *u, enum ai_kind from);
void convert_put_message_usage(struct sbuf *out, const struct usage *u);
/* Of an id the upstream did not say: prefix and random letters. */
struct str convert_new_id(struct arena *a, const char *prefix);
/* At most n bytes, whole characters. */
struct str convert_cut(struct str s, size_t n);
/* The reasoning of an OpenAI message or delta under the names that servers use; empty = none. */
struct str convert_reasoning(const struct json *message);

/* Errors: doc is the upstream's answer or the data of its event; NULL = it could not be read. */
void convert_error_of(const struct conversion *c, int status, const struct json *doc, struct sbuf *out);

/* Streams. */
#define CONVERT_TOOLS_MAX 128
#define CONVERT_NAME_MAX 256              /* bytes of an id or a model that each chunk repeats */
#define CONVERT_HELD_MAX (1024 * 1024)    /* bytes of calls that wait for one before them */
struct chat_lanes;
struct chunk_tool {
	int64_t block;                    /* the upstream's index */
	bool is_said;                     /* arguments have begun */
	struct str input;                 /* what counts if there are none; in the arena */
	size_t sent;                      /* bytes of arguments, where events are cumulative */
};
struct converter {
	const struct conversion *about;
	struct arena *a;
	bool began, is_over;
	struct str finish_reason;         /* the upstream's; in the arena; absent = not said yet */
	struct usage usage;
	struct str id, model;             /* in the arena */
	struct chat_lanes *lanes;         /* events from chunks */
	struct chunk_tool *tools;         /* chunks: CONVERT_TOOLS_MAX of them, made when the first comes */
	unsigned n_tools;
	size_t text_sent, reasoning_sent; /* AI_GENERATION, cumulative: bytes */
};
/* From OpenAI's chunks to Anthropic's events, and the others to chunks. doc is an object. */
void convert_chunk_to_events(struct converter *c, const struct json *doc, struct sbuf *out);
/* [DONE] */
void convert_end_events(struct converter *c, struct sbuf *out);
void convert_free_lanes(struct converter *c);
void convert_event_to_chunks(struct converter *c, const struct json *doc, struct sbuf *out);
void convert_generation_to_chunks(struct converter *c, const struct json *doc, struct sbuf *out);
/* The client's error event; the stream is over. doc: the upstream's with the error, NULL: `message` is the reason. */
void convert_fail(struct converter *c, const struct json *doc, struct str message, struct sbuf *out);
/* "data: ", then an event of Anthropic's of this type; to be filled and ended. */
void convert_open_event(struct sbuf *out, const char *type);
void convert_close_event(struct sbuf *out);
