#include "proxy/overload.h"
#include "core/budget.h"
#include "core/log.h"
#include "core/metric.h"

enum {
	TURNS = 32,                        /* looked at; more than half too slow: it begins */
	CALM_TURNS = 4,                    /* fewer than so many: it ends */
	UNSEEN = 2,                        /* what is seen of a refusal is half of it: receiving comes on top */
	SHARE = 16,                        /* refusing may take one part in so many of the time */
	CREDIT_MAX_US = 20000,
	IDLE_US = 1000,                    /* a wait of so long stands for a turn without lag */
	CLOSED_PER_TURN = 16,
};

static struct series *requests[OVERLOAD_COUNT], *shed[SHED_COUNT], *turns;

void overload_metrics(void)
{
	static const char *const reasons[OVERLOAD_COUNT] = { [OVERLOAD_MEMORY] = "memory", [OVERLOAD_LAG] = "lag" };
	static const char *const whats[SHED_COUNT] = {
		[SHED_CONNECTION] = "connection_refused",
		[SHED_IDLE] = "idle_connection",
		[SHED_HOLDER] = "memory_holder",
	};

	for (unsigned i = OVERLOAD_NO + 1; i < OVERLOAD_COUNT; i++)
		requests[i] = metric_series(METRIC_OVERLOAD_REQUESTS, &(struct str){ reasons[i], strlen(reasons[i]) });
	for (unsigned i = 0; i < SHED_COUNT; i++)
		shed[i] = metric_series(METRIC_OVERLOAD_CONNECTIONS, &(struct str){ whats[i], strlen(whats[i]) });
	turns = metric_series(METRIC_LOOP_TURN_SECONDS, NULL);
}

void overload_init(struct overload *o, int64_t lag_ms)
{
	*o = (struct overload){ .limit_us = lag_ms * 1000 };
}

void overload_count_turn(int64_t turn_us)
{
	metric_observe_us(turns, turn_us);
}

bool overload_turn(struct overload *o, int64_t now_us, int64_t lag_us, int64_t slept_us)
{
	bool was_lagging = o->is_lagging;
	int64_t calm = slept_us / IDLE_US;

	if (o->limit_us == 0)
		return false;
	o->history = calm >= TURNS ? 0 : o->history << calm;
	o->history = o->history << 1 | (lag_us > o->limit_us);
	if (!o->is_lagging && __builtin_popcount(o->history) > TURNS / 2) {
		o->is_lagging = true;
		o->credit_us = 0;
	} else if (o->is_lagging && __builtin_popcount(o->history) < CALM_TURNS) {
		o->is_lagging = false;
	}
	if (o->is_lagging) {
		o->credit_us += (now_us - o->turn_us) / SHARE;
		if (o->credit_us > CREDIT_MAX_US)
			o->credit_us = CREDIT_MAX_US;
	}
	o->turn_us = now_us;
	return o->is_lagging != was_lagging;
}

void overload_relieve(struct overload *o, struct server *s)
{
	bool is_spent = budget_is_spent();

	if (is_spent && !o->was_spent)
		log_warn("overload.memory", F_INT("usedBytes", budget.used), F_INT("limitBytes", budget.limit));
	o->was_spent = is_spent;
	for (int i = 0; i < CLOSED_PER_TURN && budget_is_spent() && server_close_largest(s); i++)
		;
}

enum overload_reason overload_judge(struct overload *o)
{
	if (budget_is_spent()) {
		metric_add(requests[OVERLOAD_MEMORY], 1);
		return OVERLOAD_MEMORY;
	}
	if (!o->is_lagging || o->credit_us <= 0)
		return OVERLOAD_NO;
	metric_add(requests[OVERLOAD_LAG], 1);
	return OVERLOAD_LAG;
}

void overload_pay(struct overload *o, int64_t refusal_us)
{
	o->credit_us -= (refusal_us > 0 ? refusal_us : 1) * UNSEEN;
}

void overload_count_shed(enum server_shed what)
{
	metric_add(shed[what], 1);
}
