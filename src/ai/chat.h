/*
 * chat.h -- a request to a model or an agent, as AI policies see it: one struct for each exchange, made when the
 * request is classified, complete when the answer is over.
 *
 *      request body whole ──► chat_open: kind, model, prompt ──► policies of the request leg (edits, replies)
 *          ──► service chosen ──► attempt: edits applied, model, conversion, credentials ──► upstream
 *      answer ──► chat reads it (events, usage, text) and converts it back ──► guard ──► client
 *          ──► over: usage is final; each watcher is called once, before the last byte goes to the client where
 *              the answer ends well, from the done hook otherwise
 *
 * The step that does this (chat_step.c) is in the chains of model and agent APIs, of routes with an Ai* policy and of
 * AI services; policies only use what is declared here. All memory is the exchange's. A policy whose exchange has no
 * chat (no AI request) does nothing: exchange_chat() is NULL then, or kind is AI_NONE.
 */
#pragma once
#include "ai/answer.h"
#include "ai/edits.h"
#include "ai/kind.h"
#include "ai/prompt.h"
#include "ai/usage.h"
#include "proxy/policy.h"

struct chat;

/*
 * over: called once, when usage is final: chat->cost, chat->answer, chat->end say what became of it. head, where it is
 * not NULL: with the head of the answer that the client gets (exchange_response()), before a byte of it went on; not
 * for answers of policies of the request leg.
 */
struct chat_watcher {
	void (*head)(struct exchange *x, const struct step *s, struct chat *c);
	void (*over)(struct exchange *x, const struct step *s, struct chat *c);
	const struct step *step;
	struct chat_watcher *next;
};

enum chat_end {
	CHAT_RUNNING,
	CHAT_COMPLETE,                    /* an answer with its terminal event, or a whole body */
	CHAT_LOCAL,                       /* the gateway answered (cache, limit, denial, error): no tokens */
	CHAT_FAILED,                      /* an error status, an error event, no answer */
	CHAT_CUT,                         /* broken off by the upstream, a timeout or a guard */
	CHAT_ABORTED,                     /* the client left */
};

/* How the cache saw it: X-Cache-Status and the record. */
enum chat_cache { CHAT_CACHE_NONE, CHAT_CACHE_HIT, CHAT_CACHE_MISS, CHAT_CACHE_SKIP };

struct chat {
	struct exchange *x;
	enum ai_kind kind;                /* AI_NONE: JSON for a model API that no kind describes (images, rerank) */
	enum ai_family family;            /* of our errors */
	bool is_model_api, is_agent_api;
	bool parse_error;                 /* the body is no JSON: kind is by path, body is NULL */
	/* JSON that others may read, and we do not: a member twice, too deep, too many values; why. Absent: none. */
	struct str refused;
	bool is_stream;                   /* the client asked for events */
	bool is_answer_stream;            /* the upstream's answer is events */
	struct str raw;                   /* the client's body as it came */
	const struct json *body;          /* its tree with places (json_parse_spans); NULL: none */
	struct str model;                 /* as the client asked; "unknown" */
	struct edits edits;               /* of policies, to `raw`; what they look at stays the client's own */
	/* What policies want; set in the request leg. */
	bool wants_usage;                 /* include_usage is put in where the client did not ask */
	bool wants_text;                  /* answer.text, reasoning and tools are kept */
	/* The try under way. */
	struct str sent_model;            /* what the upstream is asked for */
	enum ai_kind upstream_kind;       /* what it speaks */
	unsigned try_at;                  /* 0: the service that was meant; 1 ..: fallbacks of AiFallback */
	bool usage_was_added;             /* the chunk of usage is ours: the client does not see it */
	/* The answer. */
	int status;                       /* the upstream's that the client gets; 0 = none */
	struct answer answer;
	int64_t first_token_us;           /* clock_us() of the first event with content; 0 = none */
	int64_t last_token_us;
	/* When it is over. */
	enum chat_end end;
	struct usage usage;               /* final, estimated where usage_is_estimated */
	bool usage_is_estimated;
	int64_t cost;                     /* USE-2 total; 0 where nothing is to be charged (USE-8) */
	/* What policies say for the record; static texts or the exchange's memory. */
	enum chat_cache cache;
	bool token_limited;
	struct str safecheck_status, safecheck_risk_label, safecheck_request_id;
	int64_t safecheck_request_ms, safecheck_response_ms;      /* -1 = none */
	bool guard_cut;                   /* a guard refused the answer, or its rest */
	bool is_guarded;                  /* a guard looks at the answer of this try */
	struct str fallback_from;         /* service id; absent = none */
	struct str search_status;
	int64_t search_ms, search_results;        /* -1 = none */
	int64_t tools_in, tools_out;              /* -1 = none */
	/* private to chat_*.c */
	struct chat_watcher *watchers;
	struct prompt prompt;
	bool prompt_is_read;
	uint8_t level;                    /* whose step reads the answer: enum level */
	struct chat_stream *reading;
	struct chat_peek *peeking;
	struct chat_shape *shape;
	const struct chat_candidate *candidates;
	unsigned n_candidates;
	struct str meant;                 /* the service whose candidates they are */
	bool head_was_told;
};

/*
 * exchange_chat() is NULL where no chat step ran (yet): in hooks of the request leg from STAGE_AI_STATISTICS on, and of
 * the service leg from STAGE_AI_FALLBACK on, it is there. kind is AI_NONE for what is no AI request.
 */
/* For policies that look at requests of a known kind only: NULL unless kind is one and its body was understood. */
struct chat *exchange_chat_readable(const struct exchange *x);
/* Texts of the request, read on first use. */
const struct prompt *chat_prompt(struct chat *c);
/* Tokens of the prompt by estimate. */
int64_t chat_prompt_estimate(struct chat *c);
/* `over` will be called. The watcher lives as long as the exchange (the step's state). */
void chat_watch(struct chat *c, struct chat_watcher *w);
/*
 * An error in the shape of the client's API; where the exchange is no AI request, as reply_error(). code: of our own
 * ("ErrRateLimited") for that case; ai_code: "rate_limit_exceeded".
 */
enum verdict chat_reply_error(struct exchange *x, int status, const char *ai_code, const char *code,
			      struct str message);

/*
 * Candidates of AiFallback for the service that was chosen, from its `service` hook (STAGE_AI_FALLBACK). They are
 * tried in order when the answer of the one before counts as failed: enum of FBK-2. Live as long as the exchange.
 */
struct chat_candidate {
	struct str service_id, model;
};
/* `fails`: bit i: an answer with status 400 + i is a failure. */
void chat_fall_back(struct chat *c, const struct chat_candidate *candidates, unsigned n, const uint64_t fails[4]);
/* ai_wasted_tokens_total is there from now on, with what is counted (USE-9). */
void chat_open_waste(void);
