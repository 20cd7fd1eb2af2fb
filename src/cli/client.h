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

extern const struct flag effective_flags[], status_flags[], trace_flags[];

struct client {
	struct arena arena;
	struct printer printer;
	struct remote *remote;
	struct problem why;               /* what went wrong, and its exit status */
	int status;
};

/* Each of these: false (NULL) fills c->why and c->status. */
MUST_USE bool client_open(struct client *c, const struct client_options *o);
/* The body of a 200 answer. */
struct json *client_ask(struct client *c, const char *method, struct str target, const struct json *body);
/* Id of the only item of a collection that has this id or name. */
MUST_USE bool client_find(struct client *c, const char *collection, const char *id_field, const char *wanted,
			  struct str *id);
/* Ends of a command: say on standard error what is wrong, free everything, give the exit status. */
int client_usage(struct client *c, const char *command);
int client_fail(struct client *c);
int client_end(struct client *c, int status);     /* answered: says nothing */
int client_close(struct client *c);               /* the same with CLI_OK */
