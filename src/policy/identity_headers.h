/*
 * identity_headers.h -- request fields by which an authentication policy tells the upstream who asks. A client that
 * sends them itself is not believed: where such a policy acts, they are removed before it asks, and only the policy
 * puts them back.
 */
#pragma once
#include "proxy/policy.h"

/* X-Mse-Consumer, X-Forwarded-User, Remote-User, X-Auth-Request-*, X-User-* and their like. */
bool identity_header_is(struct str name);
/* Removes them, and fields that are the gateway's own (X-Sluice-*), from the request. */
void identity_headers_strip(struct message *req);
