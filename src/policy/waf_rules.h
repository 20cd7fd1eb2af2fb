/*
 * waf_rules.h -- from gateway settings (waf.*) to rule sets: which files, how strict, what is left out for whom.
 *
 *      waf.rules, waf.rules_version, levels ──► rule set, parsed once ──┬──► as it is
 *                                          for all gateways             ├──► without what waf.exclusions says for all
 *                                                                       └──► ... and for one route
 *
 * Control thread only, but for waf_plan_rules(). Files are read when a rule set is made: after a start, and when
 * waf.rules or waf.rules_version changes. Rules that do not load leave those of the same path in force that were there.
 */
#pragma once
#include "core/json.h"
#include "core/pmap.h"
#include "policy/waf_engine.h"
#include "proxy/policy.h"

#define WAF_RULES_DEFAULT "/usr/share/modsecurity-crs/owasp-crs.load"

/* What a Waf does at one gateway. Shared by its steps. */
struct waf_plan {
	struct part part;
	bool detects;                     /* waf.mode: only tells, blocks nothing */
	bool logs_data;
	bool inspects_responses;
	bool inspects_prompts;            /* texts for models too */
	size_t ai_bytes;                  /* of requests to models, most that is inspected */
	bool closes_late;                 /* what used up its budget is refused, whatever its score */
	int64_t threshold_in, threshold_out;
	int64_t budget_us;                /* CPU of one transaction */
	size_t body_bytes, fields_bytes;  /* of request bodies: all of a multipart one, and all of any other */
	struct waf_rules *rules;          /* NULL: there are none */
	const struct waf_exception {
		struct str id;            /* of a route, an API or an operation */
		struct waf_rules *rules;
	} *exceptions;
	unsigned n_exceptions;
	/* private */
	char *key;
	struct waf_plan *next;
	struct arena arena;
};

/*
 * The plan by the settings of the target's gateway, one reference. Where the rules cannot be loaded, `rules` is NULL or
 * the older ones, and *why says what is wrong.
 */
struct waf_plan *waf_plan_get(const struct attach_target *t, bool *is_good, struct problem *why);
/* Any thread: the rules for a route, of an API perhaps; absent ids = none. NULL: there are none. */
struct waf_rules *waf_plan_rules(const struct waf_plan *p, struct str route_id, struct str api_id);

/*
 * One entry of waf.exclusions: "RESOURCE RULES" or "RESOURCE RULES TARGET". RESOURCE is an id or "*"; RULES a number, a
 * range "942100-942190" or a tag "attack-sqli"; TARGET what alone rules of a number or a tag leave out: "ARGS:text".
 */
MUST_USE bool waf_exclusion_check(struct str text, struct problem *why);
