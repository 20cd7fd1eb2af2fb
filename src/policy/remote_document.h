/*
 * remote_document.h -- a document at a URL that policies cannot do without (a key set, what an identity provider says
 * of itself): held once for the whole process, kept fresh in the background.
 *
 *      cell_init   remote_document_open ──► the document of that kind and name, made when it is new; shared by users
 *      adoption    remote_documents_tend: worker 0 makes the first fetch, and from then on each one that is due
 *      a fetch     kind->read ──► content, in force from then on; the users' dependencies and the log are told
 *      a request   remote_use_begin ──► REMOTE_HELD, REMOTE_AWAITED (await, then again), REMOTE_NONE (503)
 *      cell_free   remote_document_close
 *
 * When: the content says for how long it is fresh. The last good one is used until an hour after it was due, and the
 * next fetch tried every 30 s; then, or when there never was one, there is nothing, and it is tried every 5 s. A
 * request that does not find what it needs in the content brings one more fetch at once, at most one in 30 s.
 *
 * What must stay true:
 * - There is one fetch of a document at a time on a node. Who set is_fetching, under the lock, makes it.
 * - Content is immutable and counted by its kind: the document has one count, and each request that looks has one. An
 *   old one goes with the last of them.
 * - All documents have one lock, held for loads, stores and `serves`, and never over a call to anything that takes
 *   time. Content can only be counted up safely while nobody replaces it; what is on the path of each request is
 *   remote_document_version(), which is one load.
 * - A document is there while it has users or is being fetched. A request that waits has a user, by its cell.
 * - Waiting for a fetch, maybe of another worker, is poll_wait.h: it happens once after a start or a change.
 */
#pragma once
#include <stdint.h>
#include "core/list.h"
#include "policy/poll_wait.h"
#include "proxy/dependency.h"
#include "proxy/side_call.h"

#define REMOTE_FETCH_TIMEOUT_MS 5000
#define REMOTE_WAIT_MS 5000               /* of a request, in all */
#define REMOTE_BYTES_MAX (1 << 20)
#define REMOTE_REDIRECTS_MAX 3
#define REMOTE_STALE_MS INT64_C(3600000)  /* after it was due */
#define REMOTE_RETRY_MS 5000              /* between fetches while there is nothing */
#define REMOTE_AGAIN_MS 30000             /* while there is an old one; and between fetches for what it lacks */
#define REMOTE_WAITING_MAX 1024           /* requests that wait for one document; more are answered at once */
#define REMOTE_ERROR_MAX 200
#define REMOTE_DIGEST_BYTES 32

struct remote_document;
struct remote_use;

/* What a fetch brought. */
struct remote_news {
	void *content;                    /* one count; NULL: nothing, and `error` says why */
	const uint8_t *digest;            /* of the content, in it: what tells whether it is another one */
	int64_t fresh_ms;                 /* from now on */
	char error[REMOTE_ERROR_MAX];     /* for the log and lastError */
};

/* A kind of document; static. Its functions are called without the lock, but `hold`. */
struct remote_kind {
	enum side_kind side;              /* another one for each kind */
	struct str accept;
	struct str path;                  /* its URL: the name without a '/' at the end, then this; absent: the name */
	const char *reason;               /* of a dependency that is down: static text */
	const char *whose;                /* opens the error when the status is not 200; may be "" */
	/* Fills *n from an answer with status 200. Any worker. */
	void (*read)(struct remote_news *n, const struct side_call *c, struct str name);
	/* Of each fetch that failed, and each that brought another content. */
	void (*log)(struct str name, const struct remote_news *n);
	void (*hold)(void *content);
	void (*drop)(void *content);      /* NULL is fine */
};

/* Somebody who needs a document: a policy's cell has one for each. Any thread. */
struct remote_user {
	struct remote_document *document; /* NULL: not open */
	/* private */
	struct list node;
	struct dependency *dependency;
};
/*
 * The dependency, which may be NULL, is told from any worker what becomes of fetches, until the close. `u` does not
 * move meanwhile; `name` is copied.
 */
void remote_document_open(struct remote_user *u, const struct remote_kind *kind, struct str name,
			  struct dependency *dependency);
void remote_document_close(struct remote_user *u);    /* of one that was not opened: nothing */

/* For policy_class.adopted: worker 0 fetches what was opened and what is due, of all kinds, and again each second. */
void remote_documents_tend(struct worker *w);

/* Which content is in force: another number for each new one, 0 while there is none that may be used. One load. */
uint64_t remote_document_version(const struct remote_user *u);
/* One of those numbers, for content that comes another way. */
uint64_t remote_version_new(void);

enum remote_answer { REMOTE_HELD, REMOTE_AWAITED, REMOTE_NONE };

/* One request's need; in its memory, zeroed at first. */
struct remote_use {
	struct poll_wait wait;            /* first */
	/* Whether the content has what is needed; under the lock, so it only looks. NULL: any content has. */
	bool (*serves)(struct remote_use *u, const void *content);
	void *content;                    /* of REMOTE_HELD: one count, the caller's from then on */
	uint64_t version;                 /* its number */
	/* private */
	struct remote_document *document; /* being waited for */
};
/*
 * REMOTE_HELD: u->content; one that does not serve is held only when a fetch did not help or is not due.
 * REMOTE_AWAITED: await(x, &u->wait.wait, h); h calls this again. At most REMOTE_WAIT_MS in all.
 * REMOTE_NONE: there is nothing, answer 503.
 */
enum remote_answer remote_use_begin(struct remote_use *u, const struct remote_user *of, struct exchange *x);
/* The content as it is now, for looking only (dry runs); NULL: none. The caller drops it. */
void *remote_document_look(const struct remote_user *u);
