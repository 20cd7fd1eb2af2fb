/*
 * trace.h -- a question about one request, and its answer: which way it would take and what every policy would say,
 * from a dry run (proxy/dry_run.h) over the configuration in force.
 */
#pragma once
#include "control/compile_state.h"

struct trace_header {
	struct str name, value;
};
struct trace_doc {
	struct str method, url;
	struct items headers;             /* struct trace_header */
	struct str clientIp, listener, serviceId;
	bool keeps_underscores;           /* of the listeners, not of the question */
};
extern const struct field trace_fields[];

/* The answer of POST /api/v1/trace. NULL fills *why. */
struct json *trace_request(const struct compiler *c, const struct trace_doc *doc, struct str request_id,
			   struct arena *a, struct problem *why);
