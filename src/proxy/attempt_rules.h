/*
 * attempt_rules.h -- the rules of retries as plain functions of what they depend on: which failures and answers are
 * tried again, after how long, and how many at the same time.
 */
#pragma once
#include "http/client.h"
#include "proxy/policy.h"

#define RETRY_PAUSE_MS 25                 /* before the first retry at most; doubled and more for each further one */
#define RETRY_PAUSE_MAX_MS 250
#define RETRIES_ALWAYS 3                  /* at the same time, of a service with few requests */
#define RETRY_PERCENT 20                  /* of its requests, of one with many */

/* What acts on a route and a service: class by class the route's, else the service's. */
struct settings settings_merge(const struct settings *route, const struct settings *service);
/* The pause before the n-th retry (1 = first) is drawn from 0 .. what this returns, that excluded. */
int64_t retry_pause_limit_ms(unsigned n);
/* Whether one more retry may be under way, of `active` requests to the service of which `retrying` are retries. */
bool retry_is_affordable(int64_t active, int64_t retrying);
/*
 * Whether a try that ended without an answer is to be followed by another. is_refused: the upstream says that it did
 * nothing with the request. Without a connection, or refused, any method may be sent again; else those that may be
 * repeated (RFC 9110 9.2.2), unless the rules name non_idempotent.
 */
bool retry_wants_failure(const struct retry_rules *rules, enum method method, enum call_failure what, bool is_refused);
/*
 * Whether an answer is to be dropped for another try. A condition on grpc-status stands for itself: calls of gRPC are
 * POST, and who names one of their statuses means them.
 */
bool retry_wants_response(const struct retry_rules *rules, enum method method, const struct message *res);
/* GET, HEAD, OPTIONS, TRACE, PUT, DELETE. */
bool retry_is_idempotent(enum method method);
