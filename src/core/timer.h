/*
 * timer.h -- a timer wheel per thread: arm, move and disarm in O(1), 1 ms ticks, no allocation.
 *
 * A timer may fire late by the length of one loop turn, never early. Moving a deadline later costs one store: the
 * node stays where it is and is put right when its old slot comes round.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/list.h"

struct timer {
	struct list node;
	int64_t deadline_ms;               /* when it should fire; 0 = disarmed */
	int64_t slot_ms;                   /* where it is linked */
	void (*fire)(struct timer *t);     /* on the owning thread; may arm, disarm or free the timer */
};
struct timer_wheel;

struct timer_wheel *timer_wheel_new(int64_t now_ms);
void timer_wheel_free(struct timer_wheel *w);
void timer_init(struct timer *t, void (*fire)(struct timer *));
void timer_arm(struct timer_wheel *w, struct timer *t, int64_t deadline_ms);   /* also moves */
void timer_disarm(struct timer *t);
void timer_run(struct timer_wheel *w, int64_t now_ms);         /* fires what is due */
int64_t timer_next_ms(struct timer_wheel *w, int64_t now_ms);  /* wait at most this long; -1 = nothing armed */
