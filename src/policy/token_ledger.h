/*
 * token_ledger.h -- how many tokens were used of which budget: in Redis for all nodes, and what this process knows.
 *
 *      asker's worker                      worker 0                                Redis
 *      token_ticket_ask ── ticket ───────► one script over all keys ─────────────► used, left; reserves
 *           admitted? ◄──── ticket ─────── │ or, when it is down or slow: what is known here
 *      token_ticket_settle ── ticket ────► view of the process ── one script ────► cost - reserved
 *
 * One worker keeps the ledger of the process and does all of its asking over one connection, so what one worker
 * charged is before what another one asks a moment later, for Redis as for the view. A ticket belongs to one side at a
 * time and goes back and forth by loop_post(): nothing here is shared.
 *
 * The view of a budget in words: `known` is what Redis said last, `flying` charges that it was told and did not
 * confirm, `owed` charges that it could not be told, `held` reservations of requests that were admitted without it.
 * While Redis cannot be asked, or takes longer than requests may wait, they are judged by the same rules: `known`, and
 * the rest once for each process that was seen at this Redis (key sluice:nodes), so that all of them together keep to
 * the limit. What is
 * owed is told once more when Redis is back; what fails then is dropped and counted. `known` is always replaced by what
 * Redis says.
 */
#pragma once
#include "core/timer.h"
#include "policy/redis_link.h"
#include "proxy/policy.h"

#define TOKEN_BUDGETS_MAX 64              /* rules and global rules of one policy */
#define TOKEN_LEDGER_MAX 50000            /* budgets kept; those used longest ago go first */

struct token_budget {
	struct str key;
	int64_t threshold, window_s;
	/* the answer */
	int64_t used, left_ms;            /* left_ms: of its window; -1 = none is open */
	/* private to the ledger */
	struct ledger_entry *entry;
	int64_t until_ms;                 /* of the window in which Redis reserved */
};

enum ticket_answer { TICKET_ASKED, TICKET_ADMITTED, TICKET_REFUSED };

struct token_asker;

/* mem_alloc'ed: outlives the exchange. */
struct token_ticket {
	int64_t reserve;                  /* tokens that count from the admission on; 0 = none */
	int64_t wait_ms;                  /* for Redis; then it is judged without */
	/* the answer */
	uint8_t answer;                   /* enum ticket_answer */
	bool is_degraded;                 /* judged without Redis */
	unsigned refused_by;              /* the first budget that is used up */
	const char *error;                /* degraded: why, static, no secret; NULL: the link is down, and says why */
	/* private: while it is at home ... */
	struct token_asker *asker;        /* NULL: the exchange is gone */
	struct worker *home;              /* the asker's */
	int64_t cost;
	struct post post;
	/* ... and with the ledger */
	struct list node;
	struct ledger_server *server;
	struct redis_target *target;
	struct timer limit;
	int64_t reserved;                 /* in Redis */
	bool is_asking;                   /* the script's answer is awaited */
	bool is_answered, is_settling;
	bool holds;                       /* its reservation is in `held` of its entries */
	bool was_repeated;                /* the script was sent whole */
	unsigned n;
	struct token_budget budgets[];
};

/* In the exchange's memory. */
struct token_asker {
	struct wait wait;                 /* first */
	struct token_ticket *ticket;      /* NULL: none, or it was given away */
	struct timer limit;               /* worker 0 does not answer */
	struct arena_defer defer;
	bool is_away;                     /* the ticket is with the ledger */
	bool is_late;                     /* nobody waits for it any more */
	bool is_over;                     /* settled */
};

/* Keys are copied; reserve and wait_ms are 0 yet. */
struct token_ticket *token_ticket_new(struct redis_target *target, unsigned n, const struct token_budget *budgets);
/*
 * Then: return await(x, &a->wait, then). The exchange gives the ticket back with token_ticket_settle, or leaves: then
 * nothing was used.
 */
void token_ticket_ask(struct exchange *x, struct token_asker *a, struct token_ticket *t);
/* In `then`, and until it is settled. NULL: there is no answer, and the request goes on as if admitted. */
static inline const struct token_ticket *token_ticket_answer(const struct token_asker *a)
{
	return a->is_away ? NULL : a->ticket;
}
/* Once; a second time it does nothing. From the next request on `cost` counts, on all workers. */
void token_ticket_settle(struct token_asker *a, int64_t cost);

void token_ledger_metrics(void);                  /* control thread, before the first ticket */
/* As the class's `adopted`: this worker keeps the ledger. */
void token_ledger_tend(struct worker *w);
