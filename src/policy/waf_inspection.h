/*
 * waf_inspection.h -- one request and its response before the rules of a Waf: phases on threads of a pool, so that the
 * loop goes on meanwhile.
 *
 *      inspection_open ──► inspection_request ──► await(&in->wait) ──► result ──► ... ──► inspection_close
 *                               │                      ▲
 *                               ▼                      │ the job is over, or its CPU is used up (LATE)
 *                          pool: phases ───────────────┘
 *
 * What a phase needs is copied or held, so an exchange may end while one runs. A phase cannot be stopped: one that has
 * used up the transaction's CPU goes on alone, the score so far decides, and the inspection is over.
 */
#pragma once
#include "core/offload.h"
#include "core/timer.h"
#include "policy/waf_engine.h"
#include "proxy/policy.h"
#include "proxy/retain.h"

enum inspection_end {
	INSPECTION_DONE,                  /* the report says what was found */
	INSPECTION_LATE,                  /* out of CPU: only the scores may be looked at */
	INSPECTION_FULL,                  /* its turn did not come: too much is waiting */
	INSPECTION_FAILED,                /* the engine broke */
};

struct inspection {
	struct wait wait;
	enum inspection_end end;          /* of what was run last */
	struct waf_report report;
	bool is_over;                     /* no more phases */
	size_t fields_max;                /* bytes of a multipart body that are no files: more is 413; 0 = any number */
	/* private */
	struct offload_job job;
	struct timer clock;
	struct worker *worker;
	struct waf_rules *rules;
	struct waf_transaction *transaction;
	unsigned phases;                  /* bit i: phase i is to be run */
	bool is_running, is_told, is_closed, has_failed;
	int64_t budget_us, used_us, queued_us;    /* used_us: by the jobs before */
	int64_t job_us;                   /* by the last one */
	atomic_int thread_clock;          /* clockid_t of the thread that runs it; 0 = none yet */
	atomic_llong began_us;            /* of that clock */
	atomic_llong ran_from_us;         /* clock_now_us() when the job began */
	atomic_bool has_ended;            /* the job; `over` will follow */
	struct waf_request request;
	struct waf_response response;
	struct retained *body;            /* of the request, held */
	struct str stand_in;              /* what is looked at instead of it; absent: itself */
	struct str multipart;             /* its content type, where it is one of parts */
	bool becomes_form;                /* it is read as that of a form, though it is called otherwise */
	struct str page;                  /* beginning of the response's */
	size_t held_bytes;                /* counted for the worker's budget */
	struct arena arena;
};

/* For the exchange's worker. */
struct inspection *inspection_open(struct exchange *x, struct waf_rules *rules, int64_t budget_us);
/*
 * Begin to run phases, whose end is waited for with in->wait. False: the pool is full (in->end says so).
 * request: phase 1, and where no body is to be looked at (is_whole) phase 2. body: phase 2. response, page: the others,
 * without or with the beginning of the body.
 */
bool inspection_request(struct inspection *in, struct exchange *x, bool is_whole);
/* stand_in: what is looked at instead of the body (copied); absent: the body. */
bool inspection_body(struct inspection *in, struct exchange *x, struct str stand_in);
bool inspection_response(struct inspection *in, struct exchange *x);
bool inspection_page(struct inspection *in, struct exchange *x, struct str page);
/* The exchange has no more use for it: the logging phase runs if it did not, and all of it goes. */
void inspection_close(struct inspection *in);
