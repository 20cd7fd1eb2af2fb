/*
 * client.h -- what commands that talk to a running gateway share: opening, asking, finding by id or name, and how they
 * end.
 *
 * Exit status: CLI_OK; CLI_REFUSED: the API refused, or what was named is not there; CLI_USAGE: wrong flags;
 * CLI_UNREACHABLE: no answer, or the gateway failed (5xx).
 */
#pragma once
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/print.h"
#include "cli/remote.h"
#include "core/arena.h"

extern const struct flag effective_flags[], trace_flags[];

struct client {
	struct arena arena;
	struct printer printer;
	struct remote *remote;
	int status;                       /* exit status of the failure in *why */
};

/* false fills *why and c->status. */
MUST_USE bool client_open(struct client *c, const struct client_options *o, struct problem *why);
/* The body of a 200 answer; NULL fills *why and c->status. */
struct json *client_ask(struct client *c, const char *method, struct str target, const struct json *body,
			struct problem *why);
/* Id of the only item of a collection that has this id or name. */
MUST_USE bool client_find(struct client *c, const char *collection, const char *id_field, const char *wanted,
			  struct str *id, struct problem *why);
/* Ends of a command: say what is wrong on standard error, free everything, give the exit status. */
int client_usage(struct client *c, const char *command, const struct problem *why);
int client_fail(struct client *c, const struct problem *why);
int client_close(struct client *c);               /* CLI_OK */
