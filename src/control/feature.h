/*
 * feature.h -- gateway settings by name: GET and PUT /api/v1/gateways/{gatewayId}/gateway-features/{name}.
 *
 * A name is a row of the table in feature.c: type, range, default, meaning. The settings file may change the
 * default for all
 * gateways; a stored value is for one gateway.
 */
#pragma once
#include <stdbool.h>
#include "control/model.h"
#include "core/json.h"
#include "core/problem.h"
#include "core/str.h"

struct feature {
	const char *name;
	enum {
		FEATURE_BOOL, FEATURE_INT, FEATURE_TEXT, FEATURE_WORD, FEATURE_CIDRS,
		FEATURE_EXCLUSIONS,       /* texts that waf_exclusion_check() accepts */
		FEATURE_STATUSES          /* texts that ai_fallback_check_status() accepts */
	} type;
	int64_t min, max;                 /* INT: value; TEXT: bytes; lists: items */
	const char *words;                /* WORD: "open|closed" */
	const char *fallback;             /* as JSON */
	bool secret;                      /* sealed, never returned */
	bool is_enforced;                 /* false: stored and checked; this build has nothing yet that reads it */
	const char *doc;
};
extern const struct feature features[];                    /* ends with a NULL name */
const struct feature *feature_find(struct str name);
MUST_USE bool feature_check(const struct feature *f, const struct json *value, struct problem *why);
/* Checks an object of defaults (names and values) and makes them the process's; copied. NULL = none. */
MUST_USE bool feature_set_defaults(const struct json *values, struct problem *why);
/*
 * The value in force for a gateway: its own, else the process's default, else the table's. Never NULL for a
 * known name.
 */
const struct json *feature_value(const struct model *m, struct str gateway_id, const char *name);
/* Resource id of a gateway's feature; out has room for a '\0' too. */
#define FEATURE_ID_MAX 96
struct str feature_id(struct str gateway_id, struct str name, char out[FEATURE_ID_MAX]);
