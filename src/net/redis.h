/*
 * redis.h -- commands to a Redis server: pipelined over one connection of the loop's thread, reconnected by itself.
 *
 *      redis_new ──► redis_send ... redis_send ──► done(command) in the order sent
 *
 * RESP3 (HELLO 3) where the server speaks it, else RESP2; AUTH with user and password, SELECT, TLS; MOVED and ASK of a
 * cluster are followed to other nodes, whose connections belong to the same struct redis. Every command ends exactly
 * once: with a reply, an error reply, or a failure at the latest when its time is over. Bounded: REDIS_PENDING_MAX
 * commands under way, replies of at most REDIS_REPLY_MAX bytes and REDIS_DEPTH_MAX levels; a server that breaks this or
 * the protocol loses the connection. Nothing is resent: a command whose connection broke fails.
 *
 * After a connection that could not be made the next one is tried no sooner than after a while (REDIS_BACKOFF_MS, twice
 * as long each time up to REDIS_BACKOFF_MAX_MS): until then commands fail at once.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/list.h"
#include "core/loop.h"
#include "core/str.h"
#include "core/timer.h"

#define REDIS_PENDING_MAX 4096
#define REDIS_REPLY_MAX (16 * 1024 * 1024)
#define REDIS_DEPTH_MAX 8
#define REDIS_UNSENT_MAX (64 * 1024 * 1024)      /* bytes of commands that wait to be sent */
#define REDIS_NODES_MAX 64                       /* of a cluster */
#define REDIS_BACKOFF_MS 50
#define REDIS_BACKOFF_MAX_MS 1000

struct addr;
struct redis;
struct resolver;
struct tls_client;

struct redis_options {
	struct str host;                  /* name or IP, without brackets */
	uint16_t port;
	struct str username, password;    /* absent = none */
	unsigned database;
	const struct tls_client *tls;     /* NULL: in the clear; nodes of a cluster likewise */
	int64_t connect_timeout_ms;       /* of name, connection, TLS and authentication together */
	int64_t idle_ms;                  /* an idle connection is closed after it; 0 = never */
	bool (*may_connect)(const struct addr *to);      /* also for nodes that a cluster names; NULL: anywhere */
};

enum redis_type { REDIS_NIL, REDIS_STRING, REDIS_ERROR, REDIS_INTEGER, REDIS_DOUBLE, REDIS_BOOL, REDIS_ARRAY };
struct redis_reply {
	enum redis_type type;
	struct str text;                  /* STRING, ERROR; of numbers as they were written */
	int64_t integer;                  /* INTEGER, BOOL */
	double real;
	const struct redis_reply *items;  /* ARRAY (maps: keys and values in turn) */
	size_t n;
};

/*
 * CONNECT and BUSY: it was not sent. AUTH: nor that; the server refuses user, password or database. With the others it
 * may have been executed.
 */
enum redis_failure { REDIS_DONE, REDIS_CONNECT, REDIS_AUTH, REDIS_CLOSED, REDIS_TIMEOUT, REDIS_MALFORMED, REDIS_BUSY };
const char *redis_failure_text(enum redis_failure f);     /* "it does not answer" */

/* The first word of an error, if it is one that Redis is known to say; else "ERR". Others may hold secrets. */
const char *redis_error_word(struct str error);

struct redis_command {
	/* set by the owner */
	void (*done)(struct redis_command *c);    /* never inside redis_send() */
	void *arg;
	/* in done; the reply is good until it returns */
	enum redis_failure failure;
	const struct redis_reply *reply;  /* NULL with a failure; may be REDIS_ERROR */
	/* private */
	struct redis_job *job;            /* NULL: not under way */
};

struct redis *redis_new(struct loop *loop, struct resolver *resolver, const struct redis_options *o);
/* What is under way is forgotten: no done. What was not sent yet is, as far as the kernel takes it at once. */
void redis_free(struct redis *r);
/* A command: its name and arguments. */
struct redis_words {
	unsigned n;
	const struct str *at;
	int key;                          /* index of the one that says which node of a cluster has it; -1 = any node */
};
/* The words are copied. timeout_ms: from now to the reply. */
void redis_send(struct redis *r, struct redis_command *c, const struct redis_words *words, int64_t timeout_ms);
/* done is not called any more; the command may be freed. Its reply is thrown away when it comes. */
void redis_cancel(struct redis_command *c);
bool redis_is_idle(const struct redis *r);               /* no command under way, whoever waits for it */
/* Why the last connection failed, in words without secrets; "" when none did. Good until the next one fails. */
const char *redis_trouble(const struct redis *r);
