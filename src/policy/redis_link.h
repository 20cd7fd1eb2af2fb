/*
 * redis_link.h -- Redis for policies: one connection for each server, user and database of a worker, which all policies
 * that name it share; and the wait for a command.
 *
 *      hook:  a = redis_ask(x, &conf->redisConfig, n, argv, key, ms);  return await(x, &a->wait, then);
 *      then:  a->failure, a->reply
 *      else:  redis_tell(worker, &conf->redisConfig, ...): nobody waits
 *
 * Connections live as long as the worker needs them: idle ones go after a minute.
 */
#pragma once
#include "net/redis.h"
#include "policy/redis_config.h"
#include "proxy/policy.h"

#define REDIS_TIMEOUT_MS 1000

struct redis_ask {
	struct wait wait;                 /* first */
	enum redis_failure failure;
	const struct redis_reply *reply;  /* copied: lives as long as the exchange; NULL with a failure */
	struct redis_command command;
};
struct redis_ask *redis_ask(struct exchange *x, const struct redis_config *conf, unsigned argc, const struct str *argv,
			    int key);
/* The same with another limit than REDIS_TIMEOUT_MS. */
struct redis_ask *redis_ask_within(struct exchange *x, const struct redis_config *conf, unsigned argc,
				   const struct str *argv, int64_t limit_ms);

/* Without an exchange. told may be NULL; `arg` is its own. reply: NULL with a failure, good during the call. */
typedef void redis_told(void *arg, enum redis_failure failure, const struct redis_reply *reply);
void redis_tell(struct worker *w, const struct redis_config *conf, unsigned argc, const struct str *argv,
		redis_told *told, void *arg);
