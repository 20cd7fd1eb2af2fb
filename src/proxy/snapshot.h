/*
 * snapshot.h -- one compiled configuration: immutable, published by hand-over, shared in parts with the one
 * before.
 *
 *      control                                     each worker
 *      change parts, pmap_set ──► new snapshot
 *      snapshot_publish ─────────► inbox ─────────► snapshot_adopt (top of a loop turn): the new view is current
 *      wait until all adopted                       exchanges keep the view they were born under (a plain count)
 *      snapshot_reap ◄──── last reference gone ◄─── view with no exchange and not current: dropped
 *
 * References to a snapshot are handed over, one for each worker, never grabbed. Parts (routes, services,
 * ...) are counted by the control thread only: a snapshot that no worker needs comes back to it and is taken
 * apart there. No lock anywhere, no work for a worker but two pointer writes. Cells (state that survives)
 * are parts as well: old and new steps share them.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "core/list.h"
#include "core/pmap.h"
#include "core/regex.h"
#include "core/thread.h"
#include "http/client.h"
#include "net/addr.h"
#include "net/tls.h"
#include "proxy/policy.h"

#define WORKERS_MAX 64

/* ---------- upstream side ---------- */

/* State of one endpoint, shared by all workers and all snapshots that know it (key: service id, address, port). */
struct endpoint_cell {
	struct part part;
	atomic_bool unhealthy;            /* by the active check */
	atomic_llong ejected_until_ms;    /* by outlier detection; clock_ms() */
	atomic_uint consecutive_5xx;
	atomic_uint ejections;            /* so far: the time grows with it */
	atomic_llong warm_from_ms;        /* when it came, or came back: ServiceLb may warm it up; clock_ms() */
	atomic_int active;                /* requests under way */
	bool retired;                     /* no longer configured: do not pool; set before a publish, atomically */
	struct pool pools[WORKERS_MAX];   /* each touched by its worker only */
	/* active health check: owned by the prober of worker 0 */
	unsigned successes, failures;
	struct series *healthy_series, *ejected_series, *active_series;
};

struct endpoint {
	struct str text;                  /* "127.0.0.1:9001": for logs and hashing */
	struct str record;                /* record_fragment(): ,"upstream":"127.0.0.1:9001" */
	struct addr addr;                 /* when it is an IP */
	struct str host;                  /* a DNS name otherwise (absent for an IP) */
	uint16_t port;
	uint32_t weight;
	struct str version;               /* of the service, absent = none */
	const struct tls_client *tls;     /* NULL: in the clear; held by the service */
	struct series *const *tls_counts; /* settings.counts[SETTING_TLS] of who says so; NULL = no policy */
	uint8_t protocol;                 /* enum upstream_protocol of its port */
	struct str tag;                   /* lane of its label "alicloud.service.tag" or "tag", absent = none */
	struct endpoint_cell *cell;
};

struct health_check {
	bool enable;
	enum { HEALTH_TCP, HEALTH_HTTP, HEALTH_GRPC } protocol;
	struct str path, host;            /* of GRPC: "/" and the name of the service asked about */
	int64_t interval_ms, timeout_ms;
	unsigned healthy_threshold, unhealthy_threshold;
};

struct outlier_detection {
	bool enable;
	unsigned consecutive_5xx;
	int64_t interval_ms, base_ejection_ms;
	unsigned max_ejection_percent;
};

enum upstream_protocol { UPSTREAM_HTTP1, UPSTREAM_HTTPS, UPSTREAM_HTTP2, UPSTREAM_GRPC, UPSTREAM_TCP };

/* What attempt.c counts of a service. */
enum service_count {
	SERVICE_RETRY_SUCCEEDED, SERVICE_RETRY_FAILED, SERVICE_RETRY_EXHAUSTED, SERVICE_RETRY_BUDGET,
	SERVICE_BODY_ABANDONED, SERVICE_TIMEOUT_TOTAL, SERVICE_TIMEOUT_TRY, SERVICE_FALLBACKS, SERVICE_COUNTS
};

struct service {
	struct part part;
	struct str id, name;
	struct str record;                /* ,"service":"name" */
	const struct chat_service *ai;    /* of ai/: a provider of models or agents; NULL = none */
	copy_shape *shape_copy;           /* what it gets as a copy; NULL = what the other service gets */
	uint64_t hash;                    /* pmap_hash(id) */
	struct endpoint *endpoints;
	unsigned n_endpoints;
	enum upstream_protocol protocol;
	struct health_check health;
	struct outlier_detection outlier;
	struct policies *policies;        /* of level Service; &policies_none when there are none */
	struct series *requests;          /* METRIC_UPSTREAM_REQUESTS */
	struct series *seconds;           /* METRIC_UPSTREAM_SECONDS */
	struct series *connects;          /* METRIC_UPSTREAM_CONNECTS */
	struct series *failures[5];       /* METRIC_UPSTREAM_FAILURES by enum call_failure */
	struct series *counts[SERVICE_COUNTS];
	atomic_int *retries;              /* under way, on all workers */
	atomic_int *copies;               /* of requests, sent here: likewise (mirror.h) */
	const struct balance *balance;    /* of ServiceLb; NULL = in turn */
	struct ring *ring;                /* of a balance by hash, held; else NULL */
	struct rotation *rotation;        /* where each worker is in its turns; held */
	struct series *panics, *lane_misses;   /* METRIC_BALANCE_PANICS, METRIC_LANE_MISSES */
	const struct str *tags;           /* every version and every tag of the endpoints, once */
	unsigned n_tags;
	double panic_percent;             /* when fewer endpoints are up, all are used; 0 = never */
	struct arena arena;
	struct part **held;
	unsigned n_held;
};

/* ---------- routing side ---------- */

struct target {                           /* one service a route sends to */
	struct str service_id;
	uint64_t hash;                    /* pmap_hash(service_id): looked up in the exchange's snapshot */
	uint16_t port;                    /* 0 = any */
	struct str version;               /* absent = any */
	uint32_t weight;
};

enum match_type { MATCH_EXACT, MATCH_PREFIX, MATCH_REGEX, MATCH_TEMPLATE };

struct condition {                        /* on a header or a query parameter */
	struct str name, value;
	enum match_type type;             /* EXACT, PREFIX, REGEX */
	struct regex *regex;
};

struct route {
	struct part part;
	struct str record;                /* ,"route":"name" */
	struct str id, name;              /* of the route, or of the operation / API it was made from */
	struct str resource_type;         /* "Route", "Operation", "Api" */
	struct str api_id;                /* of the API that an operation is of; absent = none */
	enum match_type match;
	struct str path;                  /* as configured, base path included; "/a/" as a prefix does not match "/a" */
	const struct chat_api *ai;        /* of ai/: a model or agent API; NULL = none */
	error_shape *shape_error;         /* of what the gateway answers itself; NULL = the usual one */
	bool has_base;                    /* an API's operation: the first segments are those of the base path */
	uint8_t base_segments;
	bool ignore_case;
	uint32_t methods;                 /* bit set of enum method; 0 = all */
	struct str *other_methods;        /* names outside enum method */
	unsigned n_other_methods;
	struct condition *headers, *queries;
	unsigned n_headers, n_queries;
	struct regex *regex;
	uint64_t age;                     /* order of creation: older first */
	struct target *targets;           /* none: only a policy can answer */
	unsigned n_targets;
	uint32_t weight_sum;
	struct policies *policies;        /* of level Route; for an operation its API's are merged in */
	struct series *traffic;           /* METRIC_REQUESTS and what goes with it; NULL: nothing is counted */
	struct part **held;
	unsigned n_held;
};

struct gateway {
	struct part part;
	struct str id, name;
	struct str record;                /* ,"gateway":"name" */
	struct policies *policies;
	bool strips_tag;                  /* x-mse-tag of clients is removed: gateway setting */
	struct trust {                    /* who may say where a request came from: gateway settings */
		unsigned xff_trusted_num;
		struct cidr_set *proxies; /* NULL = none */
	} trust;
	bool has_proxy_header;            /* its listeners' connections begin with one */
	bool tells_attempts;              /* x-envoy-attempt-count */
	unsigned key_generation;          /* exchange_key_generation() */
	size_t retry_buffer_bytes;        /* of a request body, kept for retries and copies */
	size_t body_buffer_bytes;         /* of a request body that a policy wants whole */
	size_t ai_body_bytes;             /* the same of requests to models and agents */
	int64_t stream_idle_ms;           /* silence of a stream (events, gRPC, WebSocket); 0 = without limit */
	struct series *traffic;           /* METRIC_REQUESTS of requests that match no route */
	struct arena arena;
	struct part **held;
	unsigned n_held;
};

/* The routes of one domain, or of a gateway without regard to the domain: what paths to look for in snapshot.paths. */
struct vhost {
	struct part part;
	uint32_t number;                  /* unique, part of every key in snapshot.paths */
	bool has_exact, has_nocase;
	uint64_t prefix_depths;           /* bit d: there are prefixes of d segments (63 = 63 or more) */
	uint64_t slash_depths;            /* of prefixes that end in '/': "/a/" has 2 segments, the last one empty */
	struct template_mask {            /* which segments of path templates are parameters */
		uint8_t segments;
		uint64_t parameters;      /* bit i: segment i is one */
	} *templates;                     /* fewest parameters first */
	unsigned n_templates;
	struct route **regexes;           /* longest pattern first, then older */
	unsigned n_regexes;
	struct arena arena;
	struct part **held;
	unsigned n_held;
};

/* Routes of one vhost, type and path, tried in order (more headers, more queries, older). Value of snapshot.paths. */
struct candidates {
	struct part part;
	unsigned n;
	struct route *routes[];           /* held */
};

/* Where a Host leads to on one listener: value of binding.hosts. */
struct site {
	struct part part;
	struct gateway *gateway;
	struct str domain_id, domain_name;    /* absent when no domain matched */
	struct policies *domain_policies;     /* &policies_none without a domain */
	struct vhost *domain_routes;          /* NULL without a domain */
	struct vhost *gateway_routes;         /* routes for every host */
	/* what the domain asks of connections, whatever name their handshake was about */
	bool is_guarded;                      /* one of these is set */
	bool force_https;
	uint16_t https_port;                  /* where force_https leads to */
	bool asks_client;
	uint8_t client_ca[TLS_DIGEST];
	enum tls_version tls_min;
	struct arena arena;
	struct part **held;
	unsigned n_held;
};

/* What one listening address serves: value of snapshot.bindings (key: "ip:port"). */
struct binding {
	struct part part;
	struct addr addr;
	struct str key;
	bool is_tls;
	struct tls_names tls;             /* where is_tls; servers and fallback are held */
	struct pmap *hosts;               /* "a.example.com" or "*.example.com" (lower case) → struct site */
	struct site *any;                 /* catch-all, or NULL */
	struct gateway *only;             /* who has the listener alone, or NULL: its L4 lists act at accept */
	/* CARRIES_TLS: passed on as it is, by the name it asks for. */
	enum carries { CARRIES_HTTP, CARRIES_BYTES, CARRIES_TLS } carries;
	bool has_proxy_header;            /* connections begin with one */
	struct arena arena;
};

/* A path that policies answer themselves: value of snapshot.claims (key: claim.h). */
struct claimed {
	struct part part;
	struct step *steps;               /* one for each policy, older attachments first */
	unsigned n;
	struct arena arena;
	struct part **held;
	unsigned n_held;
};

struct snapshot {
	atomic_uint refs;                 /* one for each worker that still holds it */
	uint64_t version;
	struct pmap *bindings;            /* "ip:port" → struct binding */
	struct pmap *paths;               /* router keys → struct candidates */
	struct pmap *services;            /* service id → struct service */
	struct consumers *consumers;      /* consumers.h; held */
	struct pmap *claims;              /* claim_key() → struct claimed; NULL: there are none */
	struct str own_cookies;           /* own_cookie.h; p == NULL: no policy has any */
	/* Cells whose last use in the configuration went with this version: workers close their pools on adoption. */
	struct endpoint_cell **retired;
	unsigned n_retired;
	/* Cells that are spoken to in another way since this version: idle connections are closed. Held. */
	struct endpoint_cell **changed;
	unsigned n_changed;
	/* Sockets that this version opened, one for each worker, and the bindings it closed (to be unlistened). */
	struct new_listener {
		struct addr addr;
		struct str key;
		int *fds;                 /* [workers]; ownership goes to the worker that adopts */
	} *listeners;
	unsigned n_listeners;
	struct str *closed;               /* binding keys */
	unsigned n_closed;
	struct arena arena;
	struct inbox_item item;           /* on its way back to the control thread */
};

/* One worker's hold on a snapshot. */
struct view {
	const struct snapshot *snapshot;
	unsigned exchanges;               /* born under it and not finished */
	struct view *next;
};

/* Where a worker gets its snapshots from. */
struct handover {
	struct inbox_item item;
	struct snapshot *snapshot;
};
struct mailbox {
	struct inbox inbox;               /* struct handover */
	struct inbox *reaper;             /* where dropped snapshots go: control's */
	void (*wake_control)(void *arg);
	void *wake_arg;
	atomic_ullong adopted;            /* version in force on this worker */
};

/* Control thread: sets the references and puts one hand-over into each mailbox. The caller wakes the loops. */
void snapshot_publish(struct snapshot *s, struct mailbox *boxes, unsigned workers);
/* Worker, top of a turn: takes what is there; returns the current view (the newest), dropping idle older ones. */
struct view *snapshot_adopt(struct view *current, struct mailbox *box,
			    void (*adopted)(void *arg, const struct snapshot *s), void *arg);
/*
 * Worker, when an exchange ends (view->exchanges already counted down) and the view may have become idle. A
 * worker that ends adopts once more and gives its view back with current = NULL.
 */
void snapshot_unpin(struct view *v, const struct view *current, struct mailbox *box);
/* Control thread: frees snapshots that came back. */
void snapshot_reap(struct inbox *returned);

/* A member of the access record, escaped once when it is compiled: ,"name":"value". */
struct str record_fragment(struct arena *a, const char *name, struct str value);
/* Healthy by the active check and not ejected. */
bool endpoint_is_up(const struct endpoint *e, int64_t now_ms);
