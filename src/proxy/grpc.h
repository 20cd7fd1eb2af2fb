/*
 * grpc.h -- answers of our own to gRPC clients, who look for grpc-status in a response with status 200
 * (github.com/grpc/grpc: doc/PROTOCOL-HTTP2.md, "Trailers-Only").
 */
#pragma once
#include "proxy/policy.h"

bool grpc_is_request(const struct message *req);          /* content type application/grpc, +proto, ... */
/* The gRPC status for an HTTP status of ours: 401 → 16, 403 → 7, 404 → 12, 429 → 8, 502 503 504 → 14, else 2. */
int grpc_status_of(int status);
enum verdict grpc_reply(struct exchange *x, int grpc_status, struct str message);

/*
 * grpc.health.v1.Health (github.com/grpc/grpc: doc/health-checking.md): the message that asks for a service, "" = the
 * server, and whether an answer, message frame included, says SERVING.
 */
struct str grpc_health_request(struct arena *a, struct str service);
bool grpc_health_is_serving(struct str answer);
