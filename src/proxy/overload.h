/*
 * overload.h -- whether a worker has more to do than it can, and what it refuses then.
 *
 * Two things run out. Memory (core/budget.h): while the budget is spent every new request is refused, and the
 * connections that hold most are closed until it is not. Time: when requests wait too long for their turn, new ones are
 * refused, but refusing costs time too, so only as many as a fixed share of it pays for; the others are served. What is
 * in flight goes on. Health and the control API have a thread of their own.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "http/server.h"

enum overload_reason { OVERLOAD_NO, OVERLOAD_MEMORY, OVERLOAD_LAG, OVERLOAD_COUNT };

struct overload {
	int64_t limit_us;                 /* lag that is too much; 0 = never */
	uint32_t history;                 /* one bit for each of the last turns: it was too much. Newest lowest */
	bool is_lagging;
	int64_t credit_us;                /* may be spent on refusing; below 0: was overdrawn */
	int64_t turn_us;                  /* the last turn began */
	bool was_spent;
};

void overload_metrics(void);                      /* control thread, before workers start */
void overload_init(struct overload *o, int64_t lag_ms);
void overload_count_turn(int64_t turn_us);         /* once a turn: how long the one before was */
/* At the top of each turn. lag and slept as loop.h tells them. True when it begins or ends: worth a record. */
bool overload_turn(struct overload *o, int64_t now_us, int64_t lag_us, int64_t slept_us);
/* Closes who holds most while the memory budget is spent. On the worker's thread, at the top of a turn. */
void overload_relieve(struct overload *o, struct server *s);
/* Whether the request that just came is to be refused. Counts it. */
enum overload_reason overload_judge(struct overload *o);
/* What the refusal took. */
void overload_pay(struct overload *o, int64_t refusal_us);
void overload_count_shed(enum server_shed what);
