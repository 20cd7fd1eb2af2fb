/*
 * redis_config.h -- the redisConfig object shared by AiTokenRateLimit and AiCache: five members written once,
 * and their rules.
 *
 * serviceHost may carry a port ("redis-service:6379", "[::1]:6379"); then it equals servicePort. "rediss://" before it
 * asks for TLS.
 */
#pragma once
#include "core/field.h"

struct redis_config {
	struct str serviceHost;
	int64_t servicePort;
	int64_t database;
	struct str username, password;
};
extern const struct field redis_config_fields[];
/* Paths are relative to the config that has it under the name redisConfig. */
MUST_USE bool redis_config_check(const struct redis_config *r, struct problem *why);
struct str redis_config_host(const struct redis_config *r);        /* without port and brackets */
bool redis_config_is_tls(const struct redis_config *r);
