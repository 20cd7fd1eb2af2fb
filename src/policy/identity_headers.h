/*
 * identity_headers.h -- request fields by which an authentication policy tells the upstream who asks. A client that
 * sends them itself is not believed: where such a policy acts, they are removed before it asks, and only the policy
 * puts them back.
 */
#pragma once
#include "proxy/policy.h"

/* Removes what identity_field_is(), and fields that are the gateway's own (X-Sluice-*), from the request. */
void identity_headers_strip(struct message *req);
