#include "policy/poll_wait.h"
#include "core/clock.h"
#include "proxy/side_call.h"
#include "proxy/worker.h"

static void stop(struct poll_wait *p)
{
	timer_disarm(&p->timer);
	if (p->leave)
		p->leave(p);
}

static void cancel(struct wait *w)
{
	stop(CONTAINER(w, struct poll_wait, wait));
}

static void look(struct timer *t)
{
	struct poll_wait *p = CONTAINER(t, struct poll_wait, timer);

	if (!p->is_over(p) && clock_ms() < p->until_ms) {
		loop_arm(worker_loop(p->worker), t, POLL_WAIT_MS);
		return;
	}
	stop(p);
	wait_done(&p->wait);
}

void poll_wait_start(struct poll_wait *p, struct exchange *x)
{
	p->wait = (struct wait){ .cancel = cancel };
	p->worker = exchange_worker(x);
	timer_init(&p->timer, look);
	loop_arm(worker_loop(p->worker), &p->timer, POLL_WAIT_MS);
}
