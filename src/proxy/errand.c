#include "proxy/errand.h"
#include "core/clock.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

static void run(struct offload_job *j)
{
	struct errand *e = CONTAINER(j, struct errand, job);

	e->run(e);
}

static void release_if_done(struct errand *e)
{
	if (e->is_over && e->is_left)
		e->release(e);
}

static void over(struct offload_job *j)
{
	struct errand *e = CONTAINER(j, struct errand, job);

	e->is_over = true;
	timer_disarm(&e->limit);
	if (!e->is_left && !e->wait.done) {
		e->end = j->end == OFFLOAD_RAN ? ERRAND_DONE : ERRAND_LATE;
		wait_done(&e->wait);
	}
	release_if_done(e);
}

static void give_up(struct timer *t)
{
	struct errand *e = CONTAINER(t, struct errand, limit);

	offload_cancel(&e->job);
	e->end = ERRAND_LATE;
	wait_done(&e->wait);
}

void errand_leave(struct errand *e)
{
	if (!e->is_over)
		offload_cancel(&e->job);
	timer_disarm(&e->limit);
	e->is_left = true;
	release_if_done(e);
}

static void forget(struct wait *w)
{
	errand_leave(CONTAINER(w, struct errand, wait));
}

void errand_start(struct exchange *x, struct errand *e, struct offload *pool, int64_t limit_ms)
{
	struct loop *loop = worker_loop(x->worker);

	e->wait = (struct wait){ .cancel = forget };
	e->is_over = e->is_left = false;
	e->job.run = run;
	e->job.over = over;
	e->job.deadline_us = clock_now_us() + limit_ms * 1000;
	timer_init(&e->limit, give_up);
	if (offload_submit(pool, &e->job, loop)) {
		loop_arm(loop, &e->limit, limit_ms);
		return;
	}
	e->is_over = true;
	e->end = ERRAND_FULL;
	wait_done(&e->wait);
}
