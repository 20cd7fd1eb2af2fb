/*
 * waf_engine.h -- the door to libmodsecurity 3: rule sets, and transactions of one request and its response.
 *
 * The library is loaded while the program runs, when a Waf is first attached: sluice neither links nor needs it, and
 * without it everything but Waf works. What goes on here is slow (milliseconds of CPU for a request), so loops do not
 * call it: rule sets are made by the control thread, transactions run on threads of a pool (waf_inspection.h).
 *
 *      waf_engine_open ──► waf_rules_new(text) ──► waf_rules_derive(rules, text)      control thread
 *      waf_begin ──► waf_request_head ──► waf_request_body ──► waf_response_head ──► waf_response_body ──► waf_end
 *
 * A transaction is used by one thread at a time. What its rules found is in the struct waf_report of its owner.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/problem.h"
#include "core/str.h"

#define WAF_HITS_MAX 32                   /* kept of one transaction; the rest is counted */
#define WAF_VARIABLE_MAX 96
#define WAF_DATA_MAX 160

/* What kind of attack a rule is about: label `tag` of sluice_waf_rule_hits_total. */
enum waf_tag {
#define WAF_TAG(id, name, from, to) WAF_TAG_##id,
#include "policy/waf_tags.def"
#undef WAF_TAG
	WAF_TAG_COUNT
};
extern const char *const waf_tag_names[WAF_TAG_COUNT];

/* A rule that matched. */
struct waf_hit {
	uint32_t rule;
	uint8_t phase;
	uint8_t tag;                      /* enum waf_tag */
	uint8_t points;                   /* what the usual scores give for its severity */
	char variable[WAF_VARIABLE_MAX];  /* where: "ARGS:q"; "" = unknown */
	char data[WAF_DATA_MAX];          /* what; of the request, not for everybody's eyes */
};

struct waf_report {
	struct waf_hit hits[WAF_HITS_MAX];
	unsigned n, n_more;               /* n_more: matches that had no room */
	uint8_t phase;                    /* being run, or run last */
	/* Sum of the points so far: may be read while a phase runs. */
	atomic_int score_in, score_out;
	bool is_blocked;                  /* a rule denied */
	uint8_t blocked_in;               /* phase */
	int status;                       /* what it asked for */
};

/* ---------- control thread ---------- */

/* Loads the library, once. False: it is not there or not the right one; asked again it tries again. */
MUST_USE bool waf_engine_open(struct problem *why);
const char *waf_engine_version(void);             /* "" while it is not loaded */

struct waf_rules;
/* From directives of ModSecurity; one reference. NULL fills *why. */
struct waf_rules *waf_rules_new(const char *directives, struct problem *why);
/* The same rules with more directives behind them; they share what is big. */
struct waf_rules *waf_rules_derive(struct waf_rules *of, const char *directives, struct problem *why);

/* Any thread. */
struct waf_rules *waf_rules_hold(struct waf_rules *r);
void waf_rules_drop(struct waf_rules *r);

/* ---------- transactions ---------- */

struct waf_field {
	struct str name, value;
};
struct waf_request {
	const char *client;               /* address, printed */
	int client_port;
	const char *method, *target, *version;    /* "GET", "/a?b=c", "1.1" */
	const struct waf_field *fields;
	unsigned n;
};
struct waf_response {
	int status;
	const struct waf_field *fields;
	unsigned n;
};

struct waf_transaction;
/* Holds the rules until waf_end(). NULL: the library refuses. The report must live as long. */
struct waf_transaction *waf_begin(struct waf_rules *rules, struct waf_report *report);
/* Phases in this order; each may be left out. False: the library failed. */
MUST_USE bool waf_request_head(struct waf_transaction *t, const struct waf_request *r);
MUST_USE bool waf_request_body(struct waf_transaction *t, struct str body);
MUST_USE bool waf_response_head(struct waf_transaction *t, const struct waf_response *r);
MUST_USE bool waf_response_body(struct waf_transaction *t, struct str body);
void waf_end(struct waf_transaction *t);          /* the logging phase; frees it */

/* For waf_engine.c and its tests: a line of the library's log, whose host name is `mark`. False: it is none. */
bool waf_parse_hit(struct str line, struct str mark, struct waf_hit *out);
