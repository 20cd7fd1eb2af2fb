/*
 * compile.h -- resources to snapshots, in step with the model: each change recompiles what depends on it and
 * nothing else.
 *
 * The compiler keeps a working configuration: the persistent maps of the next snapshot. compile_change()
 * brings it in line with one change of the model (already applied there); when it refuses, nothing of that
 * change stays. compile_publish() hands the working configuration to the workers and returns when all have
 * adopted it. Undoing a change is compiling its reverse.
 *
 * What can go wrong is reported with the resource and the field; a refused change never takes traffic down.
 */
#pragma once
#include <stdbool.h>
#include "control/model.h"
#include "proxy/snapshot.h"

struct compiler;
struct compiler_settings {
	struct str cluster;               /* gateways of other clusters are stored, not served */
	unsigned workers;
	struct mailbox *mailboxes;        /* [workers]; compiler_new sets reaper, wake_control, wake_arg */
	void (*wake_worker)(void *arg, unsigned worker);
	void *wake_arg;
	bool lenient;                     /* at start: what cannot be served is Failed or left out, not refused */
};

/* Starts with nothing: every resource comes by compile_change(), in any order. Before the workers run. */
struct compiler *compiler_new(const struct model *m, const struct compiler_settings *settings);
void compiler_free(struct compiler *c);           /* after the workers have ended */
void compiler_set_lenient(struct compiler *c, bool lenient);
/* *why: field path as the API's user knows it, kind PROBLEM_INTERNAL for a port that cannot be bound. */
MUST_USE bool compile_change(struct compiler *c, const struct change *change, struct problem *why);
/* Nothing to do when nothing changed. Returns the version in force. Measures METRIC_SNAPSHOT_SECONDS. */
uint64_t compile_publish(struct compiler *c);
/* Now and then: addresses that could not be bound at start. True: some can be served now, publish. */
bool compile_retry(struct compiler *c);
/*
 * What requests read of a snapshot, as of the last publish, for a look on the control thread: nothing is held, so it is
 * good until the next change.
 */
void compile_look(const struct compiler *c, struct snapshot *out);
void compile_reap(struct compiler *c);            /* now and then: frees snapshots that came back */

/* What resources look like in force. Text lives until the next change. */
enum phase { PHASE_RUNNING, PHASE_PENDING, PHASE_FAILED, PHASE_ACTIVE, PHASE_DEGRADED, PHASE_DISABLED };
const char *phase_name(enum phase p);             /* "Running" ... */
struct status {
	enum phase phase;
	struct str reason;                /* absent when there is nothing to say */
	struct str last_error;
	int64_t since_ms;                 /* of a dependency that does not answer: wall clock; 0 = nothing to say */
	const struct str *addresses;      /* gateways: "127.0.0.1:8080" that this node listens on */
	unsigned n_addresses;
};
struct status compile_gateway_status(const struct compiler *c, struct str gateway_id);
struct status compile_attachment_status(const struct compiler *c, struct str attachment_id);
/* Of a consumer whose keys are fetched; false: it depends on nobody. */
bool compile_consumer_status(const struct compiler *c, struct str consumer_id, struct status *out);
/* A sampled problem count for GET /metrics. */
unsigned compile_degraded(const struct compiler *c);
/* Sets METRIC_ENDPOINT_HEALTHY for GET /metrics: ejections end when their time is over, and nobody says so. */
void compile_sample_endpoints(const struct compiler *c);
