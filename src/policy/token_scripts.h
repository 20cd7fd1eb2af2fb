/*
 * token_scripts.h -- what Redis is asked to do with budgets, each in one round trip. All keys of a call have the same
 * hash tag. For token_ledger.c, on the one thread that keeps the ledger.
 *
 * Windows begin with the first charge and end by TTL; a counter without TTL gets one. What was reserved in a window
 * that is over meanwhile went with it: then the whole cost counts, in the window that is open now. That is seen by what
 * is left: a later window ends at least one length later.
 */
#pragma once
#include "core/arena.h"
#include "policy/redis_link.h"

enum token_script {
	/*
	 * Arguments: reserve, then threshold, window in s, and what counts besides, of each key. Answers with the
	 * number of the first one that is used up (0 = none: then all have the reserve in them), then used and left in
	 * ms of each, as they were before.
	 */
	TOKEN_CHECK,
	/*
	 * Arguments: cost, what of it was reserved, then window in s and what should be left in ms of the window in
	 * which it was, of each. Answers with used and left in ms of each, as they are now.
	 */
	TOKEN_CHARGE,
	TOKEN_SCRIPTS,
};

struct script_call {
	struct arena arena;
	struct str *words;
	unsigned n;
};
/* Then the keys, then the arguments. is_whole: with its text, else by its digest, which Redis may not know. */
struct script_call script_call_begin(enum token_script which, bool is_whole, unsigned n_keys);
void script_call_put(struct script_call *c, struct str s);        /* not copied before the call is sent */
void script_call_put_number(struct script_call *c, int64_t n);
void script_call_send(struct script_call *c, struct redis_link *l, redis_told *told, void *arg);

bool script_is_unknown(enum redis_failure f, const struct redis_reply *r);
bool script_has_numbers(enum redis_failure f, const struct redis_reply *r, size_t n);     /* an array of n integers */
/* Why it did not; static, without secrets. */
const char *script_trouble(enum redis_failure f, const struct redis_reply *r);
