/*
 * redis_parts.h -- what redis.c and redis_node.c share. Not for other rooms.
 *
 *      job:   waiting (node is being connected to) ──► sent ──► its reply ──► done
 *                 └───────── failure ──────────────────┴──► over ──► done, from the ready list
 *      node:  OFF ──► NAME ──► CONNECTING ──► SECURING ──► GREETING ──► READY ──► OFF
 *
 * Nodes stay while the struct redis is there, connected or not. What done() may do to us: send, cancel, and free all of
 * it; whoever called it looks at is_freed.
 */
#pragma once
#include "net/redis.h"
#include "net/redis_parse.h"
#include "net/resolver.h"
#include "net/transport.h"

enum { REDIS_REDIRECTS_MAX = 5, REDIS_SLOTS = 16384 };

enum job_place { JOB_NOWHERE, JOB_WAITING, JOB_SENT, JOB_OVER };

struct redis_job {
	struct list node;
	struct timer limit;
	struct redis *redis;
	struct redis_command *command;    /* NULL: forgotten */
	int slot;                         /* of a cluster; -1 = any node */
	uint8_t place;                    /* enum job_place */
	uint8_t redirects;
	uint8_t failure;                  /* OVER */
	bool is_asking;                   /* goes out behind ASKING, whose reply comes first */
	size_t n;
	char wire[];
};

enum node_state { NODE_OFF, NODE_NAME, NODE_CONNECTING, NODE_SECURING, NODE_GREETING, NODE_READY };
enum greeting { GREET_HELLO, GREET_AUTH, GREET_SELECT };

struct redis_node {
	struct watch watch;
	struct timer timer;
	struct task task;
	struct list all;                  /* in redis.nodes; the first one is what was configured */
	struct redis *redis;
	struct str host;
	uint16_t port;
	uint8_t state, greeting;
	bool is_readable, is_eof;
	struct resolver_query query;
	unsigned at;                      /* the address being tried */
	struct transport transport;
	struct sbuf in, out;
	size_t out_at;                    /* of `out` is sent */
	struct redis_scan scan;
	struct list waiting, sent;
	int64_t since_ms;                 /* last progress; while it is opened: when that began */
	int64_t retry_ms, backoff_ms;     /* OFF: not before */
	uint8_t failure;                  /* what the last try ended with */
};

struct redis {
	struct loop *loop;
	struct resolver *resolver;
	struct redis_options options;     /* texts are its own */
	struct list nodes;
	unsigned n_nodes;
	struct redis_node **slots;        /* REDIS_SLOTS; NULL: no cluster, as far as is known */
	struct redis_command refresh;     /* CLUSTER SLOTS */
	struct redis_node *refresh_from;
	int64_t refreshed_ms;
	struct list over, telling;        /* jobs */
	unsigned n_pending;
	size_t unsent;                    /* bytes of jobs that wait, and of what the kernel did not take */
	struct task task;
	struct garbage garbage;
	bool skips_hello;                 /* a server that closes at HELLO */
	bool is_freed;
	char trouble[160];
};

/* redis.c */
void redis_job_free(struct redis_job *j);
void redis_job_over(struct redis_job *j, enum redis_failure f);       /* done follows from the ready list */
void redis_job_replied(struct redis_job *j, struct redis_node *from, struct str bytes);
void redis_forget_slots(struct redis *r, const struct redis_node *n);

/* redis_node.c */
struct redis_node *redis_node_new(struct redis *r, struct str host, uint16_t port);
void redis_node_release(struct redis_node *n);           /* closed, no jobs */
void redis_node_send(struct redis_node *n, struct redis_job *j);
void redis_node_close(struct redis_node *n, enum redis_failure f);    /* its jobs are over */
bool redis_node_may_open(const struct redis_node *n);    /* connected, being connected, or it may be tried now */
void redis_node_flush(struct redis_node *n);
