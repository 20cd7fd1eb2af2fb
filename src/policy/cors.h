/* cors.h -- what other policies may ask about Cors. */
#pragma once
#include <stdbool.h>
#include "proxy/policy.h"

/* Whether the response is Cors' own answer to a preflight, which no header policy changes. */
bool cors_answered(const struct exchange *x);
