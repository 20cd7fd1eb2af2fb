/*
 * pipeline.c -- walks one exchange through its policies.
 *
 * The chains of the gateway, the domain and the route are merged while walking: the next step is the one with the
 * lowest order, broad level first. Steps of classes that a narrower level replaces are passed over. `done` is owed
 * from the moment a step is entered.
 */
#include "core/clock.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

static const struct chain *level_chain(const struct exchange *x, enum level level, enum leg leg)
{
	switch (level) {
	case LEVEL_GATEWAY:
		return &x->site->gateway->policies->legs[leg];
	case LEVEL_DOMAIN:
		return &x->site->domain_policies->legs[leg];
	case LEVEL_ROUTE:
		return x->route ? &x->route->policies->legs[leg] : &policies_none.legs[leg];
	default:
		break;
	}
	return &policies_none.legs[leg];
}

static void open_walk(struct exchange *x, enum leg leg)
{
	x->walk = (struct walk){ .leg = (uint8_t)leg };
	for (enum level i = 0; i < LEVEL_COUNT; i++)
		x->walk.chains[i] = x->site ? level_chain(x, i, leg) : &policies_none.legs[leg];
	if (leg == LEG_SERVICE || leg == LEG_ATTEMPT) {
		for (enum level i = 0; i < LEVEL_COUNT; i++)
			x->walk.chains[i] = &policies_none.legs[leg];
		x->walk.chains[0] = &x->service->policies->legs[leg];
	}
}

/* Takes the next step to run, or NULL when the leg is through. */
static const struct step *next_step(struct exchange *x)
{
	struct walk *w = &x->walk;

	for (;;) {
		const struct step *best = NULL;
		enum level from = 0;

		for (enum level i = 0; i < LEVEL_COUNT; i++) {
			if (w->at[i] == w->chains[i]->n)
				continue;
			const struct step *s = &w->chains[i]->steps[w->at[i]];
			if (!best || s->order < best->order) {
				best = s;
				from = i;
			}
		}
		if (!best)
			return NULL;
		/* Without a route a request is only judged: limits count what matched, and nothing is shaped. */
		if (!x->route && w->leg == LEG_REQUEST && best->order >= STAGE_RATE)
			return NULL;
		w->at[from]++;
		if (w->leg == LEG_SERVICE || w->leg == LEG_ATTEMPT || !(x->hidden[from] >> best->class_index & 1))
			return best;
	}
}

static void make_room(struct exchange *x)
{
	unsigned room = x->owed_room ? x->owed_room * 2 : 8;
	struct owed *owed = arena_take(&x->arena, room * sizeof *owed);

	for (unsigned i = 0; i < x->n_owed; i++)
		owed[i] = x->owed[i];
	x->owed = owed;
	x->owed_room = room;
}

/* The result is good until the next call. */
static struct owed *owe(struct exchange *x, const struct step *s)
{
	for (unsigned i = x->n_owed; i-- > 0;)
		if (x->owed[i].step == s)
			return &x->owed[i];
	if (x->n_owed == x->owed_room)
		make_room(x);
	x->owed[x->n_owed] = (struct owed){ .step = s };
	return &x->owed[x->n_owed++];
}

void *exchange_state(struct exchange *x, const struct step *s)
{
	struct owed *o = owe(x, s);

	if (!o->state)
		o->state = arena_alloc(&x->arena, s->class->state_size);
	return o->state;
}

/* The leg is through without an answer of its own. */
static void leg_done(struct exchange *x)
{
	x->step = NULL;
	switch ((enum leg)x->walk.leg) {
	case LEG_REQUEST:
		exchange_dispatch(x);
		return;
	case LEG_SERVICE:
		pipeline_start(x, LEG_ATTEMPT);
		return;
	case LEG_ATTEMPT:
		exchange_start_call(x);
		return;
	case LEG_RESPONSE:
		exchange_send_response(x);
		return;
	case LEG_CONNECT:
	case LEG_DATA:
	case LEG_COUNT:
		break;
	}
	BUG_ON(true);
}

static void replied(struct exchange *x)
{
	if (!x->answered_by) {
		x->answered_by = x->step;
		if (x->reason == REASON_COMPLETED)
			x->reason = REASON_POLICY_REPLY;
	}
	exchange_begin_response(x);
}

/* A dependency of the step is broken: pass or refuse, as its class says. False = refused. */
static bool may_pass(struct exchange *x)
{
	const struct policy_class *class = x->step->class;

	if (class->fails_open)
		return true;
	x->reason = REASON_POLICY_FAILED;
	reply_error(x, class->fail_status ? class->fail_status : 503, "ErrPolicyUnavailable",
		    arena_printf(&x->arena, "%s cannot decide at present", class->name));
	return false;
}

static void run(struct exchange *x)
{
	hook *fn = x->then;

	for (;;) {
		if (!fn) {
			x->step = next_step(x);
			if (!x->step) {
				leg_done(x);
				return;
			}
			fn = x->step->run;
			if (x->step->class->done)
				owe(x, x->step);
		}
		x->then = NULL;
		switch (fn(x, x->step)) {
		case NEXT:
			break;
		case WAIT:
			return;
		case FAIL:
			if (may_pass(x))
				break;
			if (x->walk.leg != LEG_RESPONSE) {
				replied(x);
				return;
			}
			break;
		case REPLY:
			/* In the response leg the reply replaces the response and the later steps shape it. */
			if (x->walk.leg == LEG_RESPONSE) {
				x->answered_by = x->step;
				break;
			}
			replied(x);
			return;
		}
		fn = NULL;
	}
}

void pipeline_start(struct exchange *x, enum leg leg)
{
	open_walk(x, leg);
	x->then = NULL;
	run(x);
}

void pipeline_resume(struct exchange *x)
{
	x->wait = NULL;
	x->waited_us += clock_us() - x->wait_start_us;
	run(x);
}

enum verdict await(struct exchange *x, struct wait *w, hook *then)
{
	BUG_ON(x->wait);
	w->x = x;
	x->wait = w;
	x->then = then;
	x->wait_start_us = clock_us();
	x->waited_for = x->step->class->name;
	if (w->done)
		loop_defer(worker_loop(x->worker), &x->task);
	return WAIT;
}

void wait_done(struct wait *w)
{
	w->done = true;
	if (w->x)
		loop_defer(worker_loop(w->x->worker), &w->x->task);
}

enum verdict fail(struct exchange *x, const char *what)
{
	x->broken = what;
	return FAIL;
}

void pipeline_abort(struct exchange *x)
{
	struct wait *w = x->wait;

	x->wait = NULL;
	x->then = NULL;
	if (!w)
		return;
	w->x = NULL;
	if (w->cancel)
		w->cancel(w);
}

void pipeline_done(struct exchange *x)
{
	while (x->n_owed > 0) {
		const struct step *s = x->owed[--x->n_owed].step;

		if (s->class->done) {
			x->n_owed++;               /* exchange_state() still finds the step's memory */
			s->class->done(x, s);
			x->n_owed--;
		}
	}
}

void policy_count(const struct step *s, unsigned outcome)
{
	if (s->series && s->series[outcome])
		metric_add(s->series[outcome], 1);
}
