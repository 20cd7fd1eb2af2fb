/*
 * side_call.h -- HTTP requests that the gateway makes for itself: to an authorization service, for a key set, to a
 * guard, and the copies of traffic. Asynchronous, bounded, on connections of its own.
 *
 *      policy hook:  c = side_call_for(x);  side_call_start(c, &request);  return await(x, &c->wait, then);
 *      then:         if (c->failure) ... else c->res.status, c->res, c->body
 *
 *      no exchange:  c = side_call_new(worker, done, arg);  side_call_start(c, &request);  ... done(c)
 *
 * One thread: a side call lives on the worker that made it. Whatever happens ends it exactly once, at the latest when
 * its time is over: there is no peer that can hold it, fill memory through it or make a worker wait.
 *
 * Where it may go: http and https. Loopback and private addresses are allowed; link-local ones, those of clouds'
 * metadata services and our own admin listener are not. The address itself is judged, at each connect, so neither a
 * redirect nor a name that changes its mind gets around it (side_address.h).
 *
 *      start ──► name ──► address judged ──► connection (pooled: kind, address, TLS name) ──► head ──► body ──► over
 *                                                  ▲ once more when a pooled connection was stale    │
 *                                                  └──────────────── redirect, if allowed ◄──────────┘
 *
 * Pools are kept apart from those of the exchanges and, by kind, from each other.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/loop.h"
#include "core/timer.h"
#include "http/message.h"
#include "http/uri.h"
#include "proxy/policy.h"

struct endpoint;
struct retained;
struct view;
struct worker;

/* What it is for: the label `kind` of the metrics; each has its own pools and its own limit of calls at a time. */
#define SIDE_KINDS(K) \
	K(AUTHORIZATION, "authorization") K(KEYS, "keys") K(IDENTITY, "identity") K(GUARD, "guard") \
	K(SEARCH, "search") K(EMBEDDING, "embedding") K(VECTOR, "vector") K(COPY, "copy")
enum side_kind {
#define SIDE_KIND_ID(id, text) SIDE_##id,
	SIDE_KINDS(SIDE_KIND_ID)
#undef SIDE_KIND_ID
	SIDE_KIND_COUNT
};
extern const char *const side_kind_names[SIDE_KIND_COUNT];

/* How it ended; the label `result`. Zero means that there is an answer, of whatever status. */
#define SIDE_FAILURES(F) \
	F(ANSWERED, "answered", "answered") \
	F(BLOCKED, "blocked_address", "its address is not one that may be called") \
	F(NAME, "name_lookup", "its name did not resolve") \
	F(SERVICE, "no_endpoint", "the service does not exist or has no endpoint that is up") \
	F(CONNECT, "connect", "it could not be connected to") \
	F(TLS, "tls", "a TLS connection to it could not be made") \
	F(RESET, "reset", "it closed the connection before an answer") \
	F(TIMEOUT, "timeout", "it took too long") \
	F(MALFORMED, "malformed", "its answer breaks the protocol") \
	F(LARGE, "too_large", "its answer is too large") \
	F(REDIRECT, "redirect", "it redirects more often than allowed, or to a URL that may not be called") \
	F(BUSY, "too_many", "too many calls to it are under way") \
	F(CANCELLED, "cancelled", "nobody waits for it any more")
enum side_failure {
#define SIDE_FAILURE_ID(id, tag, text) SIDE_##id,
	SIDE_FAILURES(SIDE_FAILURE_ID)
#undef SIDE_FAILURE_ID
	SIDE_FAILURE_COUNT
};
const char *side_failure_tag(enum side_failure f);
const char *side_failure_text(enum side_failure f);       /* "it took too long", for lastError and logs */
struct side_call;
/* What became of it in words, with what the system or TLS says of it: "it answered 503", "...: Connection refused". */
struct str side_call_describe(const struct side_call *c, struct arena *a);

/*
 * What is asked. Either `url`, or a service of the snapshot with `target`. All texts are copied at the start but
 * `body`, which must live as long as the call.
 */
struct side_request {
	enum side_kind kind;
	struct str url;                   /* absolute http or https; judged by url_parse() again */
	struct str service_id;            /* instead: one of its endpoints that is up, with the service's TLS */
	uint16_t port;                    /* of the service; 0 = any */
	struct str version;               /* of the service; absent = any */
	const struct endpoint *endpoint;  /* instead: one that was picked already, */
	struct view *view;                /* from this view's snapshot */
	struct str target;                /* path and query; with a URL: instead of the URL's */
	struct str authority;             /* Host; absent: the URL's, or the endpoint's */
	struct str tls_host;              /* of a service: what the connection is made for; absent: `authority` */
	struct str method;                /* absent = GET */
	const struct header *headers;     /* lines to send; Host, framing and hop-by-hop fields are made here */
	unsigned n_headers;
	struct str body;
	struct retained *retained;        /* instead of `body`: a whole one whose chunks others share; held meanwhile */
	bool says_length;                 /* Content-Length also where there is no body */
	int64_t timeout_ms;               /* for everything: lookup, connect, TLS, redirects, the whole answer; > 0 */
	size_t body_max;                  /* bytes of the answer's body; more is SIDE_LARGE */
	bool drops_body;                  /* it is read to its end, at most 1 MiB, and not kept */
	unsigned redirects_max;           /* 0: a redirect is an answer like others */
	/*
	 * May be sent again when a pooled connection turns out closed before a byte of an answer. Methods that are
	 * idempotent may in any case.
	 */
	bool may_repeat;
	/*
	 * Whether the body of this answer is wanted; NULL = always. If not, the call is over with the head; what
	 * follows is thrown away, in the background and within limits, so that the connection can be used again.
	 */
	bool (*wants_body)(const struct message *res);
};

struct side_call {
	struct wait wait;                 /* first: what await() takes */
	/* when wait.done: */
	enum side_failure failure;
	int error;                        /* errno, where there is one */
	const char *detail;               /* more in words, where there is more (TLS); or NULL; lives for ever */
	struct message res;               /* head of the answer; its rows live as long as the call */
	struct str body;                  /* likewise; at most body_max bytes */
	int64_t duration_us;
	void *arg;                        /* the owner's */
};

/* The answer has a 2xx status. */
static inline bool side_call_succeeded(const struct side_call *c)
{
	return c->failure == SIDE_ANSWERED && c->res.status >= 200 && c->res.status < 300;
}

/*
 * For an exchange: freed with it, and cancelled when it ends before. Services are those of the exchange's snapshot.
 */
struct side_call *side_call_for(struct exchange *x);
/*
 * Without an exchange: `done` is called once after the start, from the loop, never inside side_call_start(). Services
 * are those in force at the start; the snapshot is held until the call is freed. The owner frees it, also within
 * `done`; what is left when the worker ends is freed without `done`.
 */
struct side_call *side_call_new(struct worker *w, void (*done)(struct side_call *c), void *arg);
/* Zeroed, lives as long as the call: what the owner needs in `done`. */
void *side_call_memory(struct side_call *c, size_t size);
/* Once for each call. */
void side_call_start(struct side_call *c, const struct side_request *r);
/* Ends it if it is under way; `done` is not called. */
void side_call_free(struct side_call *c);

/* The worker an exchange is served by: its loop, resolver and side calls. */
struct worker *exchange_worker(struct exchange *x);

/* ---------- several exchanges, one fetch ---------- */

/*
 * Exchanges of one worker that wait for the same thing. Whoever fetches it calls waitlist_wake(), which ends the wait
 * of each; they look at the result themselves. An entry is the waiting exchange's (in its state or arena), one at a
 * time; a client that goes away takes it off the list.
 */
struct waitlist {
	struct list entries;              /* zero-initialise */
};
struct waitlist_entry {
	struct wait wait;                 /* first */
	struct list node;
	struct timer limit;               /* with a limit: waits no longer than that */
	bool is_late;                     /* it was the limit that ended the wait */
};
/* limit_ms 0 = none. Then: return await(x, &e->wait, then). */
void waitlist_join(struct waitlist *l, struct waitlist_entry *e, struct worker *w, int64_t limit_ms);
void waitlist_wake(struct waitlist *l);
bool waitlist_is_empty(const struct waitlist *l);

/* ---------- the worker's side (worker.c) ---------- */
struct side_calls;
struct side_calls *side_calls_new(struct worker *w);
void side_calls_free(struct side_calls *s);                       /* ends all that is under way, closes the pools */
void side_call_metrics(void);                                     /* control thread, before workers start */
