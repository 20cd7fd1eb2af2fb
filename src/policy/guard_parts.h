/*
 * guard_parts.h -- what the files of AiSecurityGuard share: ai_security_guard.c (config, requests), guard_answer.c
 * (whole answers), guard_stream.c (answers that are events), guard_refusal.c (what is said instead).
 */
#pragma once
#include "ai/chat.h"
#include "core/timer.h"
#include "policy/guard_call.h"
#include "policy/guard_window.h"
#include "proxy/dependency.h"

enum guard_outcome { GUARD_PASSED, GUARD_REQUEST_DENIED, GUARD_RESPONSE_DENIED, GUARD_ERROR };

struct ai_security_guard {
	bool enable, checkRequest, checkResponse;
	struct str serviceAddress;
	int riskAlertLevel;
	int requestCheckService, responseCheckService;
	int64_t bufferLimit;
	struct items riskConfig;
	/* prepared */
	struct guard_bars bars;
	struct guard_question of_request, of_response;
};

struct guard_cell {
	struct dependency service;
};

/* An answer that is events. */
struct guard_stream {
	struct exchange *x;
	struct sse sse;
	struct guard_window window;
	struct timer timer;               /* a window that gathers slowly */
	struct sbuf text;                 /* of one event */
	struct sbuf said;                 /* of a cumulative stream: what the event before said */
	struct sbuf reading;              /* bytes that the reader of events is at */
	struct sbuf waiting;              /* bytes that came while it stood still */
	struct sbuf out;                  /* what goes on to the client with the present piece */
	size_t counted;                   /* bytes of these in the memory budget */
	bool has_bytes;                   /* `reading` is not read to its end */
	bool is_over;                     /* no more bytes will come */
	bool is_read;                     /* and all were read */
	bool is_judged;                   /* the verdict on a window is there */
	bool is_unread;                   /* it cannot be read any more as events */
	bool is_refused;
	bool is_told;                     /* what became of it is counted */
};

struct guard_state {
	struct guard_call call;
	struct wait wait;                 /* for it; a stream does not wait */
	struct sbuf text;                 /* under judgement, but that of a stream */
	size_t counted;                   /* bytes of it in the memory budget */
	struct guard_stream *stream;
};

/* ---------- ai_security_guard.c ---------- */

enum guard_side { GUARD_OF_REQUEST, GUARD_OF_RESPONSE };
enum guard_ruling { RULING_PASS, RULING_DENY, RULING_UNAVAILABLE };

/* Puts a text to the service; `over` of the call wakes the exchange. */
void guard_ask(struct exchange *x, const struct step *s, enum guard_side side, struct str text);
/* The same for a hook that waits for the verdict. */
enum verdict guard_await(struct exchange *x, const struct step *s, enum guard_side side, hook *then);
void guard_drop_text(struct guard_state *state);
/* The call is over: what it means, told to record, log, metrics and the dependency's state. */
enum guard_ruling guard_rule(struct exchange *x, const struct step *s, enum guard_side side);
/* There is something that cannot be put to the service. `what`: static words. */
enum guard_ruling guard_rule_unread(struct exchange *x, const struct step *s, enum guard_side side, const char *what);
/* The answer was passed, as a whole. */
void guard_tell_passed(struct exchange *x, const struct step *s, enum guard_side side);

/* ---------- guard_refusal.c ---------- */

/* Instead of an answer: what the service advises, in the shape of the client's API. */
enum verdict guard_refuse(struct exchange *x, const struct step *s, enum guard_side side);
/* The service is broken, and nothing may pass without it. */
enum verdict guard_unavailable(struct exchange *x);
/* The end of a stream that is broken off: of refused content, or because the service is broken. In the arena. */
struct str guard_stream_end(struct exchange *x, const struct step *s, enum guard_ruling ruling);

/* ---------- guard_answer.c, guard_stream.c: hooks ---------- */

enum verdict guard_check_answer(struct exchange *x, const struct step *s);
enum verdict guard_take_piece(struct exchange *x, const struct step *s);
void guard_stream_open(struct exchange *x, const struct step *s);
void guard_stream_free(struct guard_stream *stream);
