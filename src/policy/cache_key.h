/*
 * cache_key.h -- which requests to models ask the same: the key of AiCache.
 *
 *      sluice:aic:<policy>:<resource>:<guards>:<consumer>:<sha256>
 *
 * The prefix is what answers are never shared across. The digest is over the canonical JSON of all that shapes an
 * answer: class, model, where the request went, the question by the strategy, and every other member of the body but
 * those that only say how the answer travels or who asks. So two requests have one key only if an answer to one is an
 * answer to the other.
 */
#pragma once
#include "ai/chat.h"

enum cache_strategy { CACHE_MESSAGES, CACHE_LAST_QUESTION, CACHE_ALL_QUESTIONS, CACHE_DISABLED };

/* Whether answers of this kind are kept at all. */
bool cache_kind_is_known(enum ai_kind kind);
/* The request goes on with something that the upstream remembers, or asks it to remember: never cached. */
bool cache_is_stateful(const struct chat *c);
/* The request asks for more than a text, so that its answer is not kept: several choices, probabilities, sound. */
bool cache_asks_for_more(const struct chat *c);

struct cache_scope {
	struct str policy_id, resource_id;
	bool shares_consumers;
};
/* In the exchange's arena. */
struct str cache_prefix(struct exchange *x, const struct cache_scope *scope);

struct cache_question {
	struct str key;
	/* Of semantic mode: what is embedded, and the digest of all the rest. Absent text: nothing can be compared. */
	struct str text, partition;
};
/* scope: what cache_prefix() is made of. with_text: the last two members are wanted too. */
void cache_ask(struct cache_question *q, struct chat *c, enum cache_strategy strategy,
	       const struct cache_scope *scope, bool with_text);
