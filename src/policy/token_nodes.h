/*
 * token_nodes.h -- how many processes ask a Redis about budgets, so that each knows its share of them when it is away.
 *
 * Each says now and then that it is there, in a sorted set by time, and counts the others. Where Redis lets it not, or
 * was never there, a process takes itself to be alone. For token_ledger.c, on the one thread that keeps the ledger.
 */
#pragma once
#include "policy/redis_link.h"

#define TOKEN_NODES_KEY "sluice:nodes"

struct token_nodes {                      /* zero-initialise, with users set */
	int64_t n;                        /* at least 1 once it was asked for; 0: nothing is known */
	int64_t asked_ms, most_ms;        /* when it was asked for, and when there were so many */
	unsigned *users;                  /* of its owner: raised while an answer is awaited */
};

/* Says so, if it is time to. name: of this process. */
void token_nodes_tell(struct token_nodes *t, struct redis_link *l, struct str name);
static inline int64_t token_nodes_known(const struct token_nodes *t)
{
	return t->n > 0 ? t->n : 1;
}
