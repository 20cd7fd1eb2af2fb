/*
 * concurrency_limit.c -- ConcurrencyLimit: limits how many requests are in flight at the same time.
 *
 * A request is in flight from here until its response was handed on, or its stream or tunnel is gone: a token is taken
 * once and kept in the exchange's own state, and `done`, which every end of an exchange comes to, gives back what is
 * there. With the last piece of a response it is given back before that piece is written: the client may read it, and
 * ask again at another worker, before this one runs on. What came before was taken by the client's connection by then.
 *
 * The count is shared by all workers and outlives changes of the config: what was let in under the old one leaves by
 * the same count.
 */
#include <stdatomic.h>
#include "policy/refusal.h"

#define RETRY_AFTER_S 1
#define GRPC_RESOURCE_EXHAUSTED 8

enum outcome { ADMITTED, REFUSED };

struct in_flight {
	atomic_llong n;
};

/* Of one exchange. */
struct token {
	bool is_held;
};

struct concurrency_limit {
	int64_t maxConcurrency;
	struct refusal refusal;
	bool enable;
};

static const struct field fields[] = {
	INT(struct concurrency_limit, maxConcurrency, REQUIRED, RANGE(1, 2147483647), UNIT("requests"),
	    EXAMPLE("50"),
	    DOC("Requests that may be in flight at the same time, on this node as a whole.")),
	INLINE(struct concurrency_limit, refusal, refusal_fields),
	BOOL(struct concurrency_limit, enable, REQUIRED, DOC("Whether the policy acts.")),
	FIELDS_END
};

static bool check(const void *conf, struct problem *why)
{
	const struct concurrency_limit *limit = conf;

	return refusal_check(&limit->refusal, why);
}

static bool take(struct in_flight *in_flight, long long most)
{
	long long n = atomic_load_explicit(&in_flight->n, memory_order_relaxed);

	do {
		if (n >= most)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&in_flight->n, &n, n + 1, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

static enum verdict refuse_request(struct exchange *x, const struct step *s)
{
	const struct concurrency_limit *limit = s->conf;

	return refuse(x, &limit->refusal, RETRY_AFTER_S, GRPC_RESOURCE_EXHAUSTED);
}

static enum verdict admit(struct exchange *x, const struct step *s)
{
	const struct concurrency_limit *limit = s->conf;
	struct token *token;

	if (UNLIKELY(!take(s->cell, limit->maxConcurrency))) {
		policy_count(s, REFUSED);
		exchange_keep_flag(x, "CC");
		return refuse_request(x, s);
	}
	policy_count(s, ADMITTED);
	token = exchange_state(x, s);
	token->is_held = true;
	return next();
}

static void leave(struct exchange *x, const struct step *s)
{
	struct token *token = exchange_state(x, s);
	struct in_flight *in_flight = s->cell;

	if (!token->is_held)
		return;
	token->is_held = false;
	BUG_ON(atomic_fetch_sub_explicit(&in_flight->n, 1, memory_order_relaxed) <= 0);
}

static void leave_early(struct exchange *x, const struct step *s)
{
	if (exchange_outcome(x).is_over)
		leave(x, s);
}

static enum verdict explain(struct exchange *x, const struct step *s)
{
	const struct concurrency_limit *limit = s->conf;
	const struct in_flight *in_flight = s->cell;
	long long n = atomic_load_explicit(&in_flight->n, memory_order_relaxed);

	exchange_note(x, "%lld of %lld requests are in flight", n, (long long)limit->maxConcurrency);
	return n < limit->maxConcurrency ? next() : refuse_request(x, s);
}

const struct policy_class concurrency_limit = {
	.name = "ConcurrencyLimit",
	.alias = "Concurrency limiting",
	.summary = "Limits how many requests are in flight at the same time.",
	.group = "Throttling",
	.scopes = SCOPE_ROUTES | SCOPE_GATEWAY | SCOPE_DOMAIN,
	.stage = STAGE_CONCURRENCY,
	.combine = COMBINE_ADD,
	.is_enforced = true,
	.fails_open = true,
	.execute_stage = "PluginDefault",
	.execute_priority = 590,
	.fields = fields,
	.conf_size = sizeof(struct concurrency_limit),
	.enable_at = offsetof(struct concurrency_limit, enable),
	.cell_size = sizeof(struct in_flight),
	.cell_keeps = true,
	.state_size = sizeof(struct token),
	.outcomes = { [ADMITTED] = "admitted", [REFUSED] = "refused" },
	.check = check,
	.request = admit,
	.settled = leave_early,
	.done = leave,
	.explain = explain,
};
