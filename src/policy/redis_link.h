/*
 * redis_link.h -- Redis for policies: one connection for each server, user and database of a worker, which all policies
 * that name it share; and the wait for a command.
 *
 *      hook:  a = redis_ask(x, &conf->redisConfig, n, argv, key);  return await(x, &a->wait, then);
 *      then:  a->failure, a->reply
 *      else:  redis_tell(worker, &conf->redisConfig, ...): nobody waits
 *
 * A server that failed is left alone: until it answers a PING again, which is asked in the background, commands for it
 * fail at once. So what a dead server costs is the first command's time and no more. Connections live as long as the
 * worker needs them: idle ones go after a minute.
 */
#pragma once
#include "net/redis.h"
#include "policy/redis_config.h"
#include "proxy/dependency.h"
#include "proxy/policy.h"

#define REDIS_TIMEOUT_MS 1000
#define REDIS_PROBE_MS 50                 /* after a failure; then twice as long each time, */
#define REDIS_PROBE_MAX_MS 1000           /* up to this */

struct redis_ask {
	struct wait wait;                 /* first */
	enum redis_failure failure;
	const struct redis_reply *reply;  /* copied: lives as long as the exchange; NULL with a failure */
	struct redis_command command;
};
/* key: index of the argument that is a key (of a cluster, it says where); -1 = none. */
struct redis_ask *redis_ask(struct exchange *x, const struct redis_config *conf, unsigned argc, const struct str *argv,
			    int key);
/*
 * The same with another limit than REDIS_TIMEOUT_MS. The key is the fourth word of EVAL and EVALSHA, else the second.
 */
struct redis_ask *redis_ask_within(struct exchange *x, const struct redis_config *conf, unsigned argc,
				   const struct str *argv, int64_t limit_ms);

/*
 * Without an exchange. told may be NULL; `arg` is its own. reply: NULL with a failure, good during the call. Called
 * once, never inside redis_tell(), unless the worker ends before.
 */
typedef void redis_told(void *arg, enum redis_failure failure, const struct redis_reply *reply);
void redis_tell(struct worker *w, const struct redis_config *conf, const struct redis_words *words, redis_told *told,
		void *arg);

/* ---------- servers, for who keeps them longer than a config lives ---------- */

/* A server, user and database. Counted by atomics: any thread. */
struct redis_target;
struct redis_target *redis_target_new(const struct redis_config *conf);
struct redis_target *redis_target_hold(struct redis_target *t);
void redis_target_drop(struct redis_target *t);           /* NULL is fine */
bool redis_target_is(const struct redis_target *a, const struct redis_target *b);
struct str redis_target_host(const struct redis_target *t);

/* A worker's link to one. Worker's thread; it stays while somebody watches it. */
struct redis_link;
struct redis_watch {
	struct list node;
	struct redis_link *link;
	/* It failed, or answers again; may be NULL. */
	void (*changed)(struct redis_watch *w, bool is_up);
};
void redis_watch_begin(struct redis_watch *w, struct worker *worker, struct redis_target *t);
void redis_watch_end(struct redis_watch *w);
bool redis_link_is_up(const struct redis_link *l);
/* Tells the users again whether it is up: after one of them said something else of it. */
void redis_link_report(const struct redis_link *l);
void redis_link_tell(struct redis_link *l, const struct redis_words *words, redis_told *told, void *arg);

/*
 * In the cell of a policy: as long as the cell is there, its dependency tells whether the server answers, also where no
 * request asks. begin in cell_init, end in cell_free (control thread); redis_users_tend as the class's `adopted`.
 */
struct redis_user {
	struct list node;
	struct redis_target *target;
	struct dependency *dependency;
};
void redis_user_begin(struct redis_user *u, const struct redis_config *conf, struct dependency *d);
void redis_user_end(struct redis_user *u);
void redis_users_tend(struct worker *w);
/* What dependency_down says. */
#define REDIS_DOWN_REASON "Redis cannot be used"
