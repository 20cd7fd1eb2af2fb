/*
 * waf_prompt.h -- requests to models, as the rules of Waf see them: without the texts of users, models and tools, which
 * hold code and SQL for good reasons. Everything else of the body stays.
 */
#pragma once
#include "proxy/policy.h"

/* A JSON body on a route for models, of a kind whose texts are known. */
bool waf_is_for_models(struct exchange *x);
/* The body with empty texts in their place; absent: it cannot be read, or there are none. */
struct str waf_without_prompts(struct exchange *x);
