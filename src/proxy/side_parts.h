/* side_parts.h -- what side_call.c, side_request.c and side_pool.c share. Not for others. */
#pragma once
#include "core/list.h"
#include "core/map.h"
#include "http/client.h"
#include "net/resolver.h"
#include "proxy/retain.h"
#include "proxy/side_call.h"
#include "proxy/snapshot.h"


/* The connections to one address for one kind of calls. */
struct side_pool {
	struct pool pool;
	struct list node;                 /* in side_calls.pools, least recently used first */
	struct str key;                   /* behind the struct */
	unsigned in_flight;
};

/* Of one worker. */
struct side_calls {
	struct worker *worker;
	struct list calls;                /* struct side */
	struct list pools;
	struct map by_key;
};

/* A side call as it is. */
struct side {
	struct side_call call;            /* first: what its owner sees */
	struct side_calls *all;
	struct list node;
	struct arena arena;               /* texts of the request, heads of answers */
	struct arena_defer defer;         /* of the exchange's arena */
	struct task task;                 /* tells the owner, or goes on with `step` */
	void (*step)(struct side *s);
	struct timer deadline;
	void (*done)(struct side_call *c);
	const struct exchange *x;         /* NULL: nobody's */
	struct view *view;                /* pinned by this call, until it is freed; NULL */
	/* what is asked */
	enum side_kind kind;
	struct message head;
	struct str body;
	struct retain_reader reader;      /* of == NULL: the body is `body` */
	size_t body_max;
	unsigned redirects_left;
	bool may_redirect, may_repeat, is_repeated, says_length, drops_body;
	bool (*wants_body)(const struct message *res);
	int64_t timeout_ms, start_us;
	/* where */
	struct url url;
	struct str tls_host;
	const struct endpoint *endpoint;  /* of a service; NULL: a URL */
	bool over_h2;
	struct resolver_query query;
	unsigned at, tried;               /* address of the name, and how many were tried before it */
	bool saw_blocked;
	struct side_pool *pool;
	struct call http;
	bool is_open;                     /* `http` is under way */
	bool is_started, is_over, is_draining;
	/* what came */
	struct sbuf text;
	size_t drained;
};

/* side_request.c: false: what is asked cannot be (side.failure says why). */
bool side_prepare(struct side *s, const struct side_request *r);
/* A redirect that is to be followed: url and head become the next ones. False: it leads nowhere. */
bool side_redirect(struct side *s);
bool side_is_redirect(const struct message *res);

/* side_pool.c */
struct side_pool *side_pool_get(struct side_calls *all, enum side_kind kind, const struct addr *to);
void side_pools_close(struct side_calls *all);
/* An endpoint of the service that fits and is up, by weight; NULL. */
const struct endpoint *side_pick(struct worker *w, const struct snapshot *s, const struct side_request *r,
				 const struct service **service);
