/*
 * cli.h -- the commands of the program but `run`, which is main.c's.
 *
 * What was asked for goes to standard output, complaints to standard error.
 */
#pragma once
#include "core/str.h"

/* Exit status. */
enum {
	CLI_OK,
	CLI_REFUSED,                      /* the input is wrong, or the gateway refused */
	CLI_USAGE,                        /* wrong usage */
	CLI_UNREACHABLE,                  /* the gateway gave no answer, or failed */
};

int cli_version(void);
int cli_help(const char *topic);                  /* a command, "settings", "api" or "metrics"; NULL = all commands */
int cli_check(int argc, char **argv);             /* files */
int cli_policy(int argc, char **argv);            /* classes | schema | example | manual [CLASS] | effective FLAGS */
/* Commands that ask a running gateway: args end with NULL. */
int cli_effective(char *const *args);
int cli_status(char *const *args);                /* also CLI_REFUSED when something does not do what it shall */
int cli_trace(char *const *args);

/* The demo: an echo backend on a loopback port of its own, on a thread that ends with the process. 0 = no port. */
uint16_t demo_start_backend(void);
struct control;
/*
 * In an empty store: gateway, service, route and RateLimit, by the ordinary API; otherwise only the demo's service, if
 * it is there, is pointed at this backend. false: something was refused (said on standard error).
 */
bool demo_create(struct control *c, const char *cluster, uint16_t backend_port);
