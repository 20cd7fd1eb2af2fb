/*
 * address_field.h -- request fields by which proxies tell the next server where a client is and what it asked for:
 * X-Forwarded-*, X-Real-IP, Forwarded, Via and what CDNs write. In any case, and '-' and '_' alike, as upstreams read
 * them (identity_field.h). Who a client is (X-Forwarded-User and its like) is no address.
 */
#pragma once
#include "http/message.h"

bool address_field_is(struct str name);
/* Removes them from a request, and from its trailers, whether they are there or still come. */
void address_fields_remove(struct message *req);
