/*
 * credential.h -- where requests carry the credentials of consumers: found in every place that any consumer uses, and
 * taken away again.
 *
 * One value counts, wherever and how often it stands; two different ones are refused, since nobody could say which is
 * meant. Values are those of the request as it is now, percent-decoded where they came in the query.
 */
#pragma once
#include "proxy/consumers.h"
#include "proxy/policy.h"

enum found { FOUND_NONE, FOUND_ONE, FOUND_SEVERAL };

/* *value lives as long as the exchange. An empty value is none. */
enum found credential_collect(struct exchange *x, const struct place *places, unsigned n, struct str *value);
bool credential_is_at(struct exchange *x, const struct place *p, struct str value);
/* All lines of the field that have the prefix, or all parameters of the name; what else is there stays as it is. */
void credential_remove(struct exchange *x, const struct place *p);
