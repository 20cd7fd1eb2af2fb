/*
 * remote.h -- calls of a running gateway's control API from the command line: one at a time, blocking, on the data
 * plane's own HTTP client.
 *
 * The token goes with every call. So http is for loopback addresses only; https verifies the server by the system's
 * authorities or those of --ca-file, and there is no way to leave that out.
 */
#pragma once
#include "cli/flags.h"
#include "core/arena.h"
#include "core/json.h"

struct remote;

/* An answer of any status; its memory is the arena's. */
struct remote_answer {
	int status;
	struct str text;
	struct json *body;                /* NULL when the text is no JSON */
};

/*
 * Reads the token and looks the server up; no connection yet. NULL: *why->field is the flag to blame. `a` holds the
 * answers.
 */
struct remote *remote_open(const struct client_options *o, struct arena *a, struct problem *why);
void remote_close(struct remote *r);
struct remote_request {
	const char *method;
	struct str target;                /* path and query */
	const struct json *body;          /* NULL: none */
};
/* false: there is no answer, and the text says why. The connection is kept for the next call. */
MUST_USE bool remote_call(struct remote *r, const struct remote_request *request, struct remote_answer *out,
			  struct problem *why);
/* The message of an error answer: "404 ErrNotFound: ...". */
struct str remote_error(const struct remote_answer *answer, struct arena *a);
/* A text as one segment of a path, or a value in a query. */
struct str remote_escape(struct str text, struct arena *a);
