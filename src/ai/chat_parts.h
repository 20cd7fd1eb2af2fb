/* chat_parts.h -- what the files of the chat step share. */
#pragma once
#include "ai/chat.h"
#include "ai/chat_conf.h"
#include "ai/convert.h"
#include "ai/inflate.h"
#include "proxy/exchange.h"

#define CHAT_NODES_MAX 400000             /* values of one JSON body */
#define CHAT_ANSWER_MAX (10u << 20)       /* of a whole answer that is read */

/* What a try is made from: the request as policies left it. */
struct chat_shape {
	struct message request;           /* with rows of its own */
	const struct chat_entry *entry;   /* of a model API */
	struct str below;                 /* path below the base path of the API */
	unsigned turn;                    /* the service that the request is shaped for; from 1; 0 = not yet */
	bool body_was_replaced, asked_usage;
	struct conversion conversion;
	bool converts;
	uint64_t fails[4];
	struct fallback_rules rules;
};

/* An answer that is events. */
struct chat_stream {
	struct arena_defer defer;
	struct chat *chat;
	struct sse sse;
	struct arena scratch;             /* of one event */
	struct sbuf out;                  /* what the piece becomes */
	struct inflate *inflate;          /* the upstream compresses though it was not to; NULL = it does not */
	struct converter *converter;
	bool rewrites;                    /* pieces are made anew: converted, inflated, or without the chunk of usage */
	bool is_blind;                    /* no events any more: bytes pass as they are */
};

/* chat_request.c */
enum verdict chat_classify(struct exchange *x, const struct step *s);
enum body_wish chat_wants_body(struct exchange *x, const struct step *s, size_t *most);
/* "text/html" of "text/html; charset=utf-8" */
struct str chat_bare_type(struct str content_type);
bool chat_is_json(struct str content_type);
/* For a dry run, which has no body: what can be said without one. */
enum verdict chat_explain(struct exchange *x, const struct step *s);
/* The app that the path is about; NULL: none of the service's. */
const struct chat_app *chat_find_app(const struct chat_service *s, struct str path);
/* chat_try.c */
/* Another service is turned to: the request is again what policies left. */
void chat_undo_try(struct exchange *x);
enum verdict chat_shape_try(struct exchange *x, const struct step *s);
/* For a dry run: the head of the request for the service; a credential is shown as asterisks. */
void chat_explain_try(struct exchange *x, const struct step *s, struct str below, enum ai_kind kind);
/* chat_provider.c: head of the request for the provider; body says the model (Azure has it in the path). */
void chat_address(struct chat *c, const struct chat_service *to);
/* chat_answer.c */
enum verdict chat_read_answer(struct exchange *x, const struct step *s);
enum verdict chat_read_piece(struct exchange *x, const struct step *s);
/* The head of a stream goes to the client. */
enum verdict chat_begin_stream(struct exchange *x);
/* chat_peek.c: that waits until the stream has content; without any, another service is turned to. */
enum verdict chat_peek(struct exchange *x, struct str encoding);
/* The stream is given up before its content came: what it had said of usage was for nothing. */
void chat_give_peek_up(struct chat *c);
/* Content-Encoding of the answer; absent: its bytes are the text. */
struct str chat_coding(const struct exchange *x);
/* "application/problem+json" too */
bool chat_is_json_like(struct str content_type);
/* chat_waste.c: of an answer that no client gets; a drop_hook */
struct leftover_reader *chat_read_dropped(struct exchange *x);
void chat_count_waste(const struct usage *u, enum ai_kind kind);
/* chat.c: the client gets this head; the watchers are told. Once; later calls do nothing. */
void chat_tell_head(struct chat *c);
/* chat.c: usage is final; the watchers are called. Once; later calls do nothing. */
void chat_finish(struct chat *c, enum chat_end end);
