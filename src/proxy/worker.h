/*
 * worker.h -- a thread that serves traffic: its loop, its sockets, its upstream connections, its hold on the
 * configuration.
 *
 * Workers share nothing on the request path but cells (atomics) and immutable snapshots. They never block, never take
 * a lock, never parse configuration.
 */
#pragma once
#include <stdint.h>
#include "core/loop.h"
#include "http/client.h"
#include "http/server.h"
#include "net/resolver.h"
#include "proxy/snapshot.h"

struct policy_class;

struct worker_settings {
	struct server_settings server;
	int64_t connect_timeout_ms;       /* 10,000 */
	int64_t upstream_idle_ms;         /* no byte from an upstream for so long: 300,000 */
	int64_t drain_ms;                 /* at the end: 30,000 */
	int64_t overload_lag_ms;          /* requests that wait longer for their turn mean overload: 100; 0 = never */
	int64_t memory_bytes;             /* held for peers; when spent, no new requests: 256 MiB; 0 = no limit */
	bool access_log;
	const char *dns_servers;          /* NULL = the system's */
	bool pin;                         /* to one CPU each */
	/* Those whose `adopted` hook is run by worker 0; ends with NULL. NULL = none. */
	const struct policy_class *const *classes;
};
extern const struct worker_settings worker_default_settings;

struct worker;
/* Starts the thread. `box` is the worker's; `settings` must live as long as the worker. metric slot = index + 1. */
struct worker *worker_start(unsigned index, const struct worker_settings *settings, struct mailbox *box);
void worker_wake(struct worker *w);               /* any thread: look into the mailbox */
/* Any thread: stop accepting, finish what is in flight for at most drain_ms (0 = end at once). Then worker_join. */
void worker_stop(struct worker *w, bool at_once);
/*
 * Any thread. A worker that the others need (worker 0: what they post to it) does not end before it is let go, even
 * when it is stopped and serves nobody any more.
 */
void worker_keep(struct worker *w, bool is_kept);
void worker_wait(struct worker *w);               /* until its thread has ended; it may still be woken and stopped */
void worker_join(struct worker *w);               /* waits, frees the worker; its snapshots go back to the reaper */

/* For proxy/ on the worker's thread. */
struct loop *worker_loop(struct worker *w);
struct client *worker_client(struct worker *w);
struct resolver *worker_resolver(struct worker *w);
struct side_calls *worker_side_calls(struct worker *w);           /* side_call.h */
struct view *worker_view(struct worker *w);
struct mailbox *worker_mailbox(struct worker *w);
const struct worker_settings *worker_settings(const struct worker *w);
unsigned worker_index(const struct worker *w);
struct overload *worker_overload(struct worker *w);
uint64_t worker_random64(struct worker *w);       /* fast, not for secrets */
uint32_t worker_random(struct worker *w);

/*
 * What policies keep for a worker beyond its exchanges: `run` gives it back when the worker ends, on its thread, after
 * the exchanges and before loop and resolver. Embedded by its owner; the newest goes first.
 */
struct worker_end {
	struct worker_end *next;
	void (*run)(struct worker_end *e);
};
void worker_at_end(struct worker *w, struct worker_end *e, void (*run)(struct worker_end *e));

/* What a listener of this worker serves now; its owner pointer. */
struct worker_listener {
	struct server_listener listener;
	struct list node;
	struct str key;                   /* of the binding */
	const struct binding *binding;    /* in the current view */
	struct str port;                  /* digits of the local port */
	char port_text[8];
	struct worker *worker;
};
