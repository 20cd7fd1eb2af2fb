/*
 * One turn: the owner's `turn`, the guest, wait, clock, posts, events, timers, ready list, the guest, garbage.
 *
 * The wake-up is one word:   AWAKE ──loop goes to wait──► ASLEEP ──loop_wake──► WOKEN (and one write to the eventfd)
 *                              └─────────────loop_wake (no call)──────────────► WOKEN
 * The loop sets it back to AWAKE after the wait, before `turn`: whoever handed something over before calling
 * loop_wake() is seen by that turn or finds AWAKE or ASLEEP again. The eventfd is edge-triggered and never read.
 *
 * Lag: a turn that takes fewer events than fit leaves nothing behind, so what comes meanwhile waits for as long as it
 * lasts. After a full one the kernel has more in its queue: a write to the eventfd goes to the end of that queue, and
 * tells when it is delivered how long the queue is.
 */
#include "core/loop.h"
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"

enum { EVENTS = 256 };
enum { AWAKE, ASLEEP, WOKEN };

struct loop {
	int epoll_fd, wake_fd;
	uint64_t turn;
	bool is_stopping;
	int n_events, at;                          /* events[at .. n_events) are not delivered yet */
	struct timer_wheel *timers;
	struct list ready;
	struct garbage *garbage;
	struct loop_guest *guest;
	struct watch wake;
	int64_t start_us;                          /* the present turn's events were collected */
	int64_t probe_us;                          /* something was put at the end of the queue; 0 = nothing is there */
	int64_t queue_us;                          /* how long the last one took to come out */
	int64_t turn_us, lag_us, slept_us;
	_Alignas(64) atomic_int state;             /* written by other threads */
	struct inbox posts;
	_Alignas(64) struct epoll_event events[EVENTS];
};

static const uint64_t one = 1;

static void take_wake(struct watch *w, uint32_t events)
{
	struct loop *l = CONTAINER(w, struct loop, wake);

	(void)events;
	if (l->probe_us)
		l->queue_us = clock_now_us() - l->probe_us;
	l->probe_us = 0;
}

struct loop *loop_new(void)
{
	struct loop *l = mem_alloc_aligned(_Alignof(struct loop), sizeof(*l));

	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	BUG_ON(l->epoll_fd < 0);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	BUG_ON(l->wake_fd < 0);
	list_init(&l->ready);
	clock_update();
	l->start_us = clock_us();
	l->timers = timer_wheel_new(clock_ms());
	l->wake = (struct watch){ .fd = l->wake_fd, .ready = take_wake };
	BUG_ON(!loop_add(l, &l->wake, EPOLLIN | EPOLLET));
	return l;
}

static void release_garbage(struct loop *l)
{
	while (l->garbage) {
		struct garbage *g = l->garbage;

		l->garbage = g->next;
		g->release(g);
	}
}

void loop_free(struct loop *l)
{
	release_garbage(l);
	if (l->guest)
		l->guest->release(l->guest);
	timer_wheel_free(l->timers);
	close(l->wake_fd);
	close(l->epoll_fd);
	mem_free(l);
}

static int choose_wait_ms(struct loop *l, int max_wait_ms)
{
	if (!list_is_empty(&l->ready) || l->garbage)
		return 0;
	int64_t wait_ms = timer_next_ms(l->timers, clock_ms());

	if (wait_ms < 0 || (max_wait_ms >= 0 && wait_ms > max_wait_ms))
		return max_wait_ms;
	return wait_ms < INT_MAX ? (int)wait_ms : INT_MAX;
}

/* `end_us`: the turn before was over; n: events of this one. */
static void measure(struct loop *l, int64_t end_us, int n)
{
	int64_t queue_us = l->probe_us ? end_us - l->probe_us : l->queue_us;

	l->turn_us = end_us - l->start_us;
	l->lag_us = l->turn_us > queue_us ? l->turn_us : queue_us;
	l->start_us = clock_us();
	l->slept_us = l->start_us - end_us;
	if (n < EVENTS) {
		l->queue_us = 0;
	} else if (!l->probe_us) {
		l->probe_us = l->start_us;
		BUG_ON(write(l->wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one));
	}
}

static void wait_events(struct loop *l, int wait_ms)
{
	int64_t end_us = clock_now_us();
	int awake = AWAKE;

	if (wait_ms != 0 && !atomic_compare_exchange_strong(&l->state, &awake, ASLEEP))
		wait_ms = 0;
	int n = epoll_wait(l->epoll_fd, l->events, EVENTS, wait_ms);

	BUG_ON(n < 0 && errno != EINTR);
	atomic_exchange(&l->state, AWAKE);
	l->turn++;
	clock_update();
	l->n_events = n > 0 ? n : 0;
	measure(l, end_us, l->n_events);
}

static void deliver_events(struct loop *l)
{
	for (l->at = 0; l->at < l->n_events;) {
		struct epoll_event *event = &l->events[l->at++];
		struct watch *w = event->data.ptr;

		if (w)
			w->ready(w, event->events);
	}
	l->at = l->n_events = 0;
}

/* What is added meanwhile is for the next turn, so that no chain of tasks starves the descriptors. */
static void run_ready(struct loop *l)
{
	struct list batch;

	if (list_is_empty(&l->ready))
		return;
	batch = l->ready;
	batch.next->prev = batch.prev->next = &batch;
	list_init(&l->ready);
	while (!list_is_empty(&batch)) {
		struct task *t = CONTAINER(batch.next, struct task, node);

		list_remove(&t->node);
		t->run(t);
	}
}

static void run_posts(struct loop *l)
{
	for (struct inbox_item *item = inbox_take(&l->posts), *following; item; item = following) {
		struct post *p = CONTAINER(item, struct post, item);

		following = item->next;
		p->run(p);
	}
}

static void call_guest(struct loop *l)
{
	if (l->guest)
		l->guest->before_wait(l->guest);
}

void loop_run_once(struct loop *l, int max_wait_ms)
{
	call_guest(l);
	wait_events(l, choose_wait_ms(l, max_wait_ms));
	run_posts(l);
	deliver_events(l);
	timer_run(l->timers, clock_ms());
	run_ready(l);
	call_guest(l);
	release_garbage(l);
}

void loop_run(struct loop *l, void (*turn)(void *arg), void *arg)
{
	l->is_stopping = false;
	while (!l->is_stopping) {
		if (turn)
			turn(arg);
		/* `turn` may have stopped the loop: what it left on the lists is still done, without waiting. */
		loop_run_once(l, l->is_stopping ? 0 : -1);
	}
}

int64_t loop_lag_us(const struct loop *l)
{
	return l->lag_us;
}

int64_t loop_turn_us(const struct loop *l)
{
	return l->turn_us;
}

int64_t loop_slept_us(const struct loop *l)
{
	return l->slept_us;
}

uint64_t loop_turn(const struct loop *l)
{
	return l->turn;
}

void loop_stop(struct loop *l)
{
	l->is_stopping = true;
}

void loop_wake(struct loop *l)
{
	if (atomic_exchange(&l->state, WOKEN) != ASLEEP)
		return;
	ssize_t n = write(l->wake_fd, &one, sizeof(one));

	BUG_ON(n != (ssize_t)sizeof(one));
}

void loop_post(struct loop *l, struct post *p)
{
	inbox_put(&l->posts, &p->item);
	loop_wake(l);
}

static bool control(struct loop *l, int operation, struct watch *w, uint32_t events)
{
	struct epoll_event event = {
		.events = events ? events : (uint32_t)(EPOLLET | EPOLLIN | EPOLLOUT | EPOLLRDHUP),
		.data.ptr = w,
	};

	return epoll_ctl(l->epoll_fd, operation, w->fd, &event) == 0;
}

bool loop_add(struct loop *l, struct watch *w, uint32_t events)
{
	return control(l, EPOLL_CTL_ADD, w, events);
}

bool loop_modify(struct loop *l, struct watch *w, uint32_t events)
{
	return control(l, EPOLL_CTL_MOD, w, events);
}

void loop_forget(struct loop *l, struct watch *w)
{
	for (int i = l->at; i < l->n_events; i++)
		if (l->events[i].data.ptr == w)
			l->events[i].data.ptr = NULL;
}

void loop_remove(struct loop *l, struct watch *w)
{
	/* Fails when it was never added, which is fine: it is not watched afterwards. */
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	loop_forget(l, w);
}

void task_init(struct task *t, void (*run)(struct task *))
{
	list_init(&t->node);
	t->run = run;
}

void loop_defer(struct loop *l, struct task *t)
{
	if (list_is_empty(&t->node))
		list_append(&l->ready, &t->node);
}

void loop_free_later(struct loop *l, struct garbage *g)
{
	g->next = l->garbage;
	l->garbage = g;
}

struct loop_guest *loop_guest(const struct loop *l)
{
	return l->guest;
}

void loop_set_guest(struct loop *l, struct loop_guest *g)
{
	BUG_ON(l->guest);
	l->guest = g;
}

struct timer_wheel *loop_timers(struct loop *l)
{
	return l->timers;
}

void loop_arm(struct loop *l, struct timer *t, int64_t delay_ms)
{
	/* Rounded up: a delay counts from this microsecond, the wheel in whole milliseconds. */
	timer_arm(l->timers, t, (clock_us() + 999) / 1000 + delay_ms);
}
