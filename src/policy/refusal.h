/*
 * refusal.h -- the throttling answer shared by RateLimit, ConcurrencyLimit and CircuitBreaker: five config
 * members written once, their rules, and the reply.
 */
#pragma once
#include "proxy/policy.h"

struct refusal {
	int behaviorType;                 /* 0 answer, 1 redirect */
	int bodyEncoding;                 /* 0 text, 1 JSON */
	int64_t responseStatusCode;
	struct str responseContentBody;
	struct str responseRedirectUrl;
};
extern const struct choice refusal_behaviors[], refusal_encodings[];
extern const struct field refusal_fields[];
extern const struct field refusal_breaker_fields[];    /* the same rows in CircuitBreaker's order */
bool refusal_check(const struct refusal *r, struct problem *why);
/*
 * The reply of contract 1.2: status, body or redirect, Retry-After for 429 and 503, gRPC status for gRPC
 * requests.
 */
enum verdict refuse(struct exchange *x, const struct refusal *r, int64_t retry_after_s, int grpc_status);
