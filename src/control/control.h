/*
 * control.h -- the control plane as one object: admin listener, resources, store, compiler. What main.c and
 * tests see of this room.
 *
 * One thread owns it and calls everything but control_stop(), control_wake() and control_set_ready(). A turn of
 * its loop takes
 * all requests that are ready, applies their changes one by one, writes them in one transaction, publishes one
 * snapshot, and
 * answers: an answer to a write means that it is durable and in force on every worker.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "control/compile.h"
#include "core/json.h"
#include "core/problem.h"
#include "core/str.h"

struct control;

struct control_settings {
	const char *data_dir;             /* holds admin.token and secret.key; made (0700) when missing */
	const char *
		admin; /* "127.0.0.1:9070", "[::1]:9070"; port 0 = any free one; NULL = no listener (tests) */
	const char *store;                /* "sqlite:PATH"; NULL = "sqlite:DATA_DIR/sluice.db" */
	bool takeover;                    /* ask the process that serves data_dir for its sockets and the store */
	const char *cluster, *node;       /* NULL = "local", "local" */
	const struct str *host_names;     /* more names the Host header may have, without port */
	unsigned n_host_names;
	bool keeps_underscores;           /* of requests, where names of fields have them: as the listeners are set */
	const struct json *
		features; /* object name → value: defaults of gateway-features for all gateways; may be NULL */
	struct compiler_settings compiler;   /* workers, mailboxes, wake; cluster is filled in from above */
};

/*
 * Opens the store and listens. NULL fills *why: the text names the file or address and what to do. Nothing is
 * served
 * before control_start().
 */
struct control *control_new(const struct control_settings *settings, struct problem *why);
/*
 * Loads the store and puts everything into force, leniently: what cannot be is Failed or Degraded. false: the
 * store is unreadable.
 */
MUST_USE bool control_start(struct control *c, struct problem *why);
/* Serves until control_stop(); answers under way are finished. */
void control_run(struct control *c);
/*
 * After control_start(), when everything serves: the predecessor, if there is one, may go; false when it did not wait.
 * From then on a successor may ask; gone(arg) on the owner's thread when it serves and we are to drain.
 */
MUST_USE bool control_take_over(struct control *c, void (*gone)(void *arg), void *arg, struct problem *why);
void control_stop(struct control *c);                /* any thread, signal handlers too */
void control_wake(void *control);                    /* any thread: makes the loop turn; for mailbox.wake_control */
void control_set_ready(struct control *c, bool ready);   /* any thread: GET /readyz answers 200 or 503 */
void control_free(struct control *c);                /* after the workers have ended */

/* Where things are, for the lines printed at start. */
uint16_t control_admin_port(const struct control *c);
const char *control_token_path(const struct control *c);
bool control_token_is_new(const struct control *c);  /* the token file was made by this start */
const struct model *control_model(const struct control *c);
struct compiler *control_compiler(const struct control *c);

/*
 * One call of the API from inside the process, on the owner's thread: the same code as over HTTP, without
 * token, Host and
 * content type. path may have a query; body may be absent. Adds the answer's body to *answer; returns the status.
 */
int control_call(struct control *c, const char *method, const char *path, struct str body, struct sbuf *answer);
