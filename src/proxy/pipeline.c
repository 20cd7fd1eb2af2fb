/*
 * pipeline.c -- walks one exchange through its policies.
 *
 * The chains of the gateway, the domain and the route are merged while walking: the next step is the one with the
 * lowest order, broad level first. Steps of classes that a narrower level replaces are passed over. `done` is owed
 * from the moment a step is entered.
 */
#include "core/clock.h"
#include "proxy/attempt.h"
#include "proxy/body.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

static void add_chain(struct walk *w, const struct policies *p, enum level level)
{
	const struct chain *chain = &p->legs[w->leg];

	if (chain->n == 0)
		return;
	w->chains[w->n] = chain;
	w->at[w->n] = 0;
	w->levels[w->n++] = (uint8_t)level;
}

static bool has_class(const struct chain *chain, const struct policy_class *class)
{
	for (unsigned i = 0; i < chain->n; i++)
		if (chain->steps[i].class == class)
			return true;
	return false;
}

/* Steps that go along to other services, where those have none of their own. */
static void add_carried(struct exchange *x, enum leg leg)
{
	const struct policies *carried = x->attempt->carried;

	if (carried && carried->legs[leg].n > 0 &&
	    !has_class(&x->service->policies->legs[leg], carried->legs[leg].steps->class))
		add_chain(&x->walk, carried, LEVEL_SERVICE);
}

static void open_walk(struct exchange *x, enum leg leg)
{
	struct walk *w = &x->walk;

	w->leg = (uint8_t)leg;
	w->n = 0;
	if (leg == LEG_SERVICE || leg == LEG_ATTEMPT) {
		if (leg == LEG_ATTEMPT && x->route)
			add_chain(w, x->route->policies, LEVEL_ROUTE);
		add_chain(w, x->service->policies, LEVEL_SERVICE);
		if (UNLIKELY(x->attempt != NULL))
			add_carried(x, leg);
		return;
	}
	if (!x->site)
		return;
	add_chain(w, x->site->gateway->policies, LEVEL_GATEWAY);
	add_chain(w, x->site->domain_policies, LEVEL_DOMAIN);
	if (x->route)
		add_chain(w, x->route->policies, LEVEL_ROUTE);
	if (x->service && leg != LEG_REQUEST) {
		add_chain(w, x->service->policies, LEVEL_SERVICE);
		if (UNLIKELY(x->attempt != NULL))
			add_carried(x, leg);
	}
}

/* The chain `from` is at its end: the others keep their order. */
static void close_chain(struct walk *w, unsigned from)
{
	w->n--;
	for (unsigned i = from; i < w->n; i++) {
		w->chains[i] = w->chains[i + 1];
		w->at[i] = w->at[i + 1];
		w->levels[i] = w->levels[i + 1];
	}
}

/* Takes the next step to run, or NULL when the leg is through. Inlined, for the sake of run(). */
static inline __attribute__((always_inline)) const struct step *next_step(struct exchange *x)
{
	struct walk *w = &x->walk;

	while (w->n > 0) {
		const struct step *best = &w->chains[0]->steps[w->at[0]];
		unsigned from = 0, level;

		for (unsigned i = 1; i < w->n; i++) {
			const struct step *s = &w->chains[i]->steps[w->at[i]];

			if (s->order < best->order) {
				best = s;
				from = i;
			}
		}
		/*
		 * Without a route a request is only judged: limits count what matched, and nothing is shaped. What a
		 * policy answers itself comes right after the lists of addresses.
		 */
		if (!x->route && w->leg == LEG_REQUEST && best->order >= (x->claimed ? STAGE_CORS : STAGE_RATE))
			return NULL;
		level = w->levels[from];
		if (++w->at[from] == w->chains[from]->n)
			close_chain(w, from);
		if (level == LEVEL_SERVICE || !(x->hidden[level] >> best->class_index & 1))
			return best;
	}
	return NULL;
}

void walk_open(struct exchange *x, enum leg leg)
{
	open_walk(x, leg);
}

const struct step *walk_next(struct exchange *x)
{
	return next_step(x);
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

/* Steps of one attachment on one resource, in different legs or at different stages. */
static bool are_of_one(const struct step *a, const struct step *b)
{
	return a == b || (a->conf && a->conf == b->conf && a->level == b->level && a->cell == b->cell);
}

/* The result is good until the next call. */
static struct owed *owe(struct exchange *x, const struct step *s)
{
	for (unsigned i = x->n_owed; i-- > 0;)
		if (are_of_one(x->owed[i].step, s))
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
	case LEG_DATA:
		pieces_pass(x);
		return;
	case LEG_CONNECT:
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
bool pipeline_may_pass(struct exchange *x)
{
	const struct policy_class *class = x->step->class;

	if (class->fails_open)
		return true;
	x->reason = REASON_POLICY_FAILED;
	reply_error(x, class->fail_status ? class->fail_status : 503, "ErrPolicyUnavailable",
		    arena_printf(&x->arena, "%s cannot decide at present", class->name));
	return false;
}

/* The head is sent: what a data hook will not let pass ends the connection. */
static void cut(struct exchange *x)
{
	if (x->reason == REASON_COMPLETED)
		x->reason = x->broken ? REASON_POLICY_FAILED : REASON_POLICY_REPLY;
	x->answered_by = x->step;
	if (x->call_open)
		exchange_end_call(x);
	stream_abort(&x->stream);
}

/* The hook would not let the request or the response pass. True: the leg goes on all the same. */
static bool refused(struct exchange *x, enum verdict verdict)
{
	if (UNLIKELY(x->walk.leg == LEG_DATA)) {
		if (verdict == FAIL && x->step->class->fails_open)
			return true;
		cut(x);
		return false;
	}
	if (verdict == FAIL && pipeline_may_pass(x))
		return true;
	if (UNLIKELY(x->walk.leg == LEG_SERVICE && x->step->class->speaks_for_service && x->attempt) &&
	    attempt_turns(x))
		return false;
	if (x->walk.leg != LEG_RESPONSE) {
		replied(x);
		return false;
	}
	/* In the response leg the reply replaces the response and the later steps shape it. */
	if (verdict == REPLY)
		x->answered_by = x->step;
	return true;
}

static enum verdict enter(struct exchange *x, const struct step *s)
{
	if (s->class->done)
		owe(x, s);
	return s->run(x, s);
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
			if (UNLIKELY(x->step->needs_body) && !body_is_there(x, enter))
				return;
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
			if (!refused(x, FAIL))
				return;
			break;
		case REPLY:
			if (!refused(x, REPLY))
				return;
			break;
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

bool pipeline_ask_claim(struct exchange *x)
{
	if (!x->claimed || x->claim_taken)
		return false;
	x->claim_taken = true;
	x->walk.n = 0;
	x->step = x->claimed->steps;
	x->then = x->step->run;
	run(x);
	return true;
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
	if (w->done && !x->dry)
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

void pipeline_ending(struct exchange *x)
{
	for (unsigned i = 0; i < x->n_owed; i++)
		if (x->owed[i].step->class->ending)
			x->owed[i].step->class->ending(x, x->owed[i].step);
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

void pipeline_leave_service(struct exchange *x)
{
	for (unsigned i = x->n_owed; i-- > 0;) {
		const struct step *s = x->owed[i].step;

		if (s->level != LEVEL_SERVICE)
			continue;
		if (s->class->settled)
			s->class->settled(x, s);
		if (s->class->done)
			s->class->done(x, s);
		x->n_owed--;
		for (unsigned k = i; k < x->n_owed; k++)
			x->owed[k] = x->owed[k + 1];
	}
}

void pipeline_settle(struct exchange *x)
{
	for (unsigned i = x->n_owed; i-- > 0;) {
		const struct step *s = x->owed[i].step;

		if (s->class->settled)
			s->class->settled(x, s);
	}
}

void policy_gauge(const struct step *s)
{
	int64_t value;

	if (!s->series || !s->series[POLICY_OUTCOMES])
		return;
	/* Another thread may change it meanwhile: whoever looks last leaves what is true. */
	do {
		value = s->class->measure(s->cell);
		metric_set(s->series[POLICY_OUTCOMES], value);
	} while (s->class->measure(s->cell) != value);
}

void setting_count(struct series *const *counts, unsigned outcome)
{
	if (counts && counts[outcome])
		metric_add(counts[outcome], 1);
}

void policy_count(const struct step *s, unsigned outcome)
{
	if (s->series && s->series[outcome])
		metric_add(s->series[outcome], 1);
}
