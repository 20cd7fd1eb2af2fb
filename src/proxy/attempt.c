#include "proxy/attempt.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/metric.h"
#include "proxy/attempt_rules.h"
#include "proxy/balance.h"
#include "proxy/body.h"
#include "proxy/leftover.h"
#include "proxy/worker.h"

static void count(const struct exchange *x, enum service_count what)
{
	if (x->service && x->service->counts[what])
		metric_add(x->service->counts[what], 1);
}

static bool turn_away(struct exchange *x, bool is_head);

/* The same for the policy that set it. */
static void count_for(const struct exchange *x, enum setting setting, unsigned outcome)
{
	setting_count(x->attempt->counts[setting], outcome);
}

static void arm(struct exchange *x, struct timer *t, int64_t delay_ms)
{
	loop_arm(worker_loop(x->worker), t, delay_ms);
}

/* ---------- the time ---------- */

/* The Timeout is over. */
static void expire_all(struct timer *t)
{
	struct exchange *x = CONTAINER(t, struct attempt, total)->x;

	count(x, SERVICE_TIMEOUT_TOTAL);
	count_for(x, SETTING_TIMEOUT, TIMEOUT_EXPIRED);
	if (x->call_open && x->phase == EXCHANGE_UPSTREAM)
		exchange_report_try(x, CALL_TIMEOUT);
	x->attempt->why = "timeout";
	if (!x->attempt->has_own_timeout && turn_away(x, false))
		return;
	exchange_end_call(x);
	exchange_fail_upstream(x, REASON_UPSTREAM_TIMEOUT);
}

/* The limit of one try, or the pause before it. */
static void step(struct timer *t)
{
	struct attempt *a = CONTAINER(t, struct attempt, pace);
	struct exchange *x = a->x;

	if (a->is_pausing) {
		a->is_pausing = false;
		exchange_end_try(x);
		pipeline_start(x, LEG_ATTEMPT);
		return;
	}
	count(x, SERVICE_TIMEOUT_TRY);
	count_for(x, SETTING_RETRY, RETRY_TRY_TIMEOUT);
	exchange_fail_try(x, CALL_TIMEOUT);
}

static bool has_answer(const struct exchange *x)
{
	return x->phase != EXCHANGE_UPSTREAM;
}

/* The whole request is here, and a try is under way. */
static void start_clocks(struct exchange *x)
{
	struct attempt *a = x->attempt;
	int64_t try_ms = a->retry ? a->retry->try_timeout_ms : 0;

	if (has_answer(x))
		return;
	if (a->timeout_ms > 0 && !a->is_timed) {
		a->is_timed = true;
		arm(x, &a->total, a->timeout_ms);
	}
	if (try_ms > 0 && (!a->is_timed || clock_ms() + try_ms < a->total.deadline_ms))
		arm(x, &a->pace, try_ms);
}

void attempt_start(struct exchange *x)
{
	struct attempt *a = x->attempt;

	a->request_done = a->request_done || x->held_end;
	if (a->request_done)
		start_clocks(x);
}

void attempt_request_done(struct exchange *x)
{
	x->attempt->request_done = true;
	if (x->call_open)
		start_clocks(x);
}

/* ---------- the service ---------- */

static struct attempt *open_attempt(struct exchange *x)
{
	struct attempt *a = x->attempt;

	if (a)
		return a;
	a = x->attempt = NEW(&x->arena, struct attempt);
	a->x = x;
	timer_init(&a->total, expire_all);
	timer_init(&a->pace, step);
	return a;
}

/* What the route and the service at hand ask for. The fallback is that of the service that was meant. */
static void read_settings(struct exchange *x)
{
	static const struct settings none;
	struct attempt *a = x->attempt;
	const struct settings *route = &x->route->policies->settings;
	struct settings s = settings_merge(route, x->service ? &x->service->policies->settings : &none);

	if (!a->fell_back) {
		a->fallback = s.fallback;
		a->counts[SETTING_FALLBACK] = s.counts[SETTING_FALLBACK];
	}
	a->counts[SETTING_TIMEOUT] = s.counts[SETTING_TIMEOUT];
	a->counts[SETTING_RETRY] = s.counts[SETTING_RETRY];
	/* Bytes are no request: they have no end to wait for and no answer to judge. */
	if (x->is_tcp)
		return;
	a->timeout_ms = s.timeout_ms;
	a->has_own_timeout = route->has_timeout;
	a->retry = s.retry;
	if (a->retry && a->retry->attempts > 0 && x->stream.req.framing != FRAMING_NONE)
		retain_body(x, retain_limit(x));
}

static const struct service *find_service(const struct exchange *x, const struct target *t)
{
	struct part *service = pmap_get_hashed(x->view->snapshot->services, t->service_id, t->hash);

	return service ? CONTAINER(service, struct service, part) : NULL;
}

/* The next service of the fallback that has an endpoint; NULL: none has. */
static const struct service *find_next(struct exchange *x, const struct target **t)
{
	struct attempt *a = x->attempt;

	while (a->fallback && a->next_target < a->fallback->n) {
		const struct service *s;

		/* Those of the Fallback are for services that nobody reached. */
		if (a->fails && a->next_target >= a->n_own && a->was_reached)
			break;

		*t = &a->fallback->targets[a->next_target++];
		s = find_service(x, *t);
		if (s && balance_has_endpoint(x, s, *t))
			return s;
	}
	return NULL;
}

static void turn_to(struct exchange *x, const struct service *s, const struct target *t)
{
	struct attempt *a = x->attempt;

	x->service = s;
	x->target = t;
	x->endpoint = NULL;
	x->n_tried = 0;
	a->fell_back = true;
	a->turns = a->next_target;
	a->retries = 0;
	a->was_reached = a->is_exhausted = false;
	if (x->turned)
		x->turned(x);
	read_settings(x);
	count(x, SERVICE_FALLBACKS);
	if (!a->fails || a->next_target > a->n_own)
		count_for(x, SETTING_FALLBACK, FALLBACK_TURNED);
}

static void note_left(struct exchange *x)
{
	struct attempt *a = x->attempt;

	if (a->n_left == a->left_room) {
		struct left_service *left = NEW_N(&x->arena, struct left_service, 2 * a->left_room + 4);

		for (unsigned i = 0; i < a->n_left; i++)
			left[i] = a->left[i];
		a->left = left;
		a->left_room = 2 * a->left_room + 4;
	}
	a->left[a->n_left++] = (struct left_service){ x->service->id, x->service->name, a->answered,
						      a->why ? a->why : "unavailable" };
	a->why = NULL;
	a->answered = 0;
}

const struct left_service *exchange_left_services(const struct exchange *x, unsigned *n)
{
	*n = x->attempt ? x->attempt->n_left : 0;
	return x->attempt ? x->attempt->left : NULL;
}

bool attempt_choose(struct exchange *x)
{
	struct attempt *a = open_attempt(x);
	const struct service *s;
	const struct target *t;

	read_settings(x);
	if (a->fallback && (!x->service || !balance_has_endpoint(x, x->service, x->target))) {
		s = find_next(x, &t);
		if (s && x->service)
			note_left(x);
		if (s)
			turn_to(x, s, t);
	}
	return x->service != NULL;
}

static void give_retry_back(struct exchange *x)
{
	struct attempt *a = x->attempt;

	if (!a->holds_retry)
		return;
	a->holds_retry = false;
	atomic_fetch_sub_explicit(x->service->retries, 1, memory_order_relaxed);
}

/* The steps of the service end with what became of it: nothing. */
static void leave(struct exchange *x)
{
	int status = x->attempt->answered;

	note_left(x);
	give_retry_back(x);
	if (!x->upstream_status) {
		x->upstream_failed = status < 400;
		x->upstream_status = (uint16_t)(status < 400 ? 503 : status);
	}
	pipeline_leave_service(x);
	x->upstream_failed = x->upstream_streams = false;
	x->upstream_status = 0;
	/* A Timeout of its own ends with it. */
	if (x->attempt->has_own_timeout)
		return;
	timer_disarm(&x->attempt->total);
	x->attempt->is_timed = false;
}

/* From a service that nothing could be sent to, to the next one. */
static bool move_on(struct exchange *x)
{
	const struct target *t;
	const struct service *s = find_next(x, &t);

	if (!s)
		return false;
	leave(x);
	turn_to(x, s, t);
	if (x->is_tcp)
		exchange_start_call(x);
	else
		pipeline_start(x, LEG_SERVICE);
	return true;
}

bool attempt_finds_none(struct exchange *x)
{
	return !x->attempt->was_reached && move_on(x);
}

/* ---------- answers that count as failures ---------- */

#define TURN_LEAST_MS 50                  /* of the Timeout; with less no service is turned to */

void exchange_set_fallback(struct exchange *x, const struct fallback_rules *rules, const uint64_t statuses[4])
{
	struct attempt *a = open_attempt(x);
	const struct fallback_rules *more = a->fallback;
	struct fallback_rules *all;
	struct target *targets;

	if (a->fell_back)
		return;
	all = NEW(&x->arena, struct fallback_rules);
	all->n = rules->n + (more ? more->n : 0);
	targets = NEW_N(&x->arena, struct target, all->n);
	for (unsigned i = 0; i < all->n; i++)
		targets[i] = i < rules->n ? rules->targets[i] : more->targets[i - rules->n];
	all->targets = targets;
	a->fallback = all;
	a->n_own = rules->n;
	a->fails = statuses;
}

void exchange_carry(struct exchange *x, const struct policies *p)
{
	x->attempt->carried = p;
}

unsigned exchange_service_turn(const struct exchange *x)
{
	return x->attempt ? x->attempt->turns : 0;
}

static bool may_turn(const struct exchange *x)
{
	const struct attempt *a = x->attempt;

	if (!a || !a->fails || !a->fallback || x->phase > EXCHANGE_RESPONSE || a->next_target >= a->n_own)
		return false;
	if (a->is_timed && a->has_own_timeout && a->total.deadline_ms - clock_ms() < TURN_LEAST_MS)
		return false;
	return x->is_local || attempt_can_replay(x, CALL_RESET);
}

/* The answer that is there, or whose body a policy waits for, was never there. */
static void forget_answer(struct exchange *x)
{
	pipeline_abort(x);
	exchange_end_try(x);
	if (x->hold)
		hold_free(x);
	x->part = (struct str){ NULL, 0 };
	x->part_end = x->is_local = false;
	x->res.status = 0;
	x->answered_by = NULL;
	x->reason = REASON_COMPLETED;
	x->upstream_head_us = 0;
	x->phase = EXCHANGE_UPSTREAM;
}

/* is_head: of the answer no more than the head was looked at. */
static bool turn_away(struct exchange *x, bool is_head)
{
	const struct service *s;
	const struct target *t;

	if (!may_turn(x) || !(s = find_next(x, &t)))
		return false;
	if (is_head)
		leftover_take(x);
	forget_answer(x);
	attempt_repeat(x);
	timer_disarm(&x->attempt->pace);
	leave(x);
	turn_to(x, s, t);
	pipeline_start(x, LEG_SERVICE);
	return true;
}

bool exchange_may_refuse(const struct exchange *x)
{
	return !x->is_local && may_turn(x);
}

enum verdict refuse_answer(struct exchange *x)
{
	x->attempt->why = "answer";
	x->attempt->answered = x->res.status;
	return turn_away(x, false) ? WAIT : NEXT;
}

bool attempt_turns(struct exchange *x)
{
	x->attempt->why = "refused";
	return turn_away(x, false);
}

/* ---------- bodies ---------- */

static void copy_first(struct exchange *x)
{
	struct retain_reader reader = { .of = x->retained };
	struct str kept = x->retained && !x->retained->is_over ? retain_read(&reader) : x->held;

	if (x->retained && !x->retained->is_over)
		x->held.p = kept.p;
	else
		x->held = arena_copy(&x->arena, kept);
}

void attempt_keep_body(struct exchange *x)
{
	struct attempt *a = x->attempt;

	if (x->retained && x->retained->n == 0 && !x->retained->is_whole)
		retain_add(x, x->held, x->held_end);
	if (!a || a->body_is_kept || (!a->retry && !a->fallback))
		return;
	a->body_is_kept = true;
	if (x->held.n > 0)
		copy_first(x);
}

void attempt_pass_body(struct exchange *x, struct str data, bool end)
{
	if (x->attempt)
		x->attempt->body_went_on = true;
	if (x->retained)
		retain_add(x, data, end);
	/* It may lie in what was kept and is given up. */
	if (x->attempt && x->retained && x->retained->is_over)
		x->held = (struct str){ NULL, 0 };
	if (end && x->attempt)
		attempt_request_done(x);
}

bool attempt_can_replay(const struct exchange *x, enum call_failure what)
{
	const struct attempt *a = x->attempt;
	bool is_kept = x->retained && !x->retained->is_over;

	if (!a->body_went_on && what == CALL_CONNECT)
		return true;
	return is_kept || (!a->body_went_on && x->held.n == 0);
}

bool attempt_begin_replay(struct exchange *x)
{
	struct attempt *a = x->attempt;

	a->replay = (struct retain_reader){ .of = x->retained };
	a->wants_fresh = false;
	return a->is_replaying;
}

void attempt_replay(struct exchange *x)
{
	struct attempt *a = x->attempt;
	struct str piece;

	while ((piece = retain_read(&a->replay)).n > 0)
		if (!call_send(&x->call, NULL, piece, false))
			return;
	a->is_replaying = false;
	if (x->retained->is_whole) {
		x->call.trailers = x->retained->trailers;
		call_send(&x->call, NULL, (struct str){ NULL, 0 }, true);
	} else {
		stream_resume(&x->stream);
	}
}

void attempt_repeat(struct exchange *x)
{
	x->attempt->is_replaying = x->attempt->body_went_on;
}

/* ---------- the next try ---------- */

static void note_tried(struct exchange *x)
{
	struct attempt *a = x->attempt;

	if (!x->endpoint)
		return;
	if (x->n_tried == a->tried_room) {
		unsigned room = a->tried_room ? 2 * a->tried_room : 4;
		const struct endpoint **tried = arena_take(&x->arena, room * sizeof *tried);

		for (unsigned i = 0; i < x->n_tried; i++)
			tried[i] = x->tried[i];
		x->tried = tried;
		a->tried_room = room;
	}
	x->tried[x->n_tried++] = x->endpoint;
}

/* The try that just ended was a retry: what became of it. */
static void settle_retry(struct exchange *x, bool is_good)
{
	struct attempt *a = x->attempt;

	if (a->is_retry) {
		count(x, is_good ? SERVICE_RETRY_SUCCEEDED : SERVICE_RETRY_FAILED);
		count_for(x, SETTING_RETRY, is_good ? RETRY_SUCCEEDED : RETRY_FAILED);
	}
	a->is_retry = false;
}

static bool take_budget(struct exchange *x)
{
	const struct service *s = x->service;
	int64_t active = 0;
	int retrying;

	if (x->attempt->holds_retry)
		return true;
	for (unsigned i = 0; i < s->n_endpoints; i++)
		active += atomic_load_explicit(&s->endpoints[i].cell->active, memory_order_relaxed);
	retrying = atomic_fetch_add_explicit(s->retries, 1, memory_order_relaxed);
	if (retry_is_affordable(active, retrying)) {
		x->attempt->holds_retry = true;
		return true;
	}
	atomic_fetch_sub_explicit(s->retries, 1, memory_order_relaxed);
	return false;
}

/* The rules want another try: whether there may be one. */
static bool may_retry(struct exchange *x, enum call_failure what)
{
	struct attempt *a = x->attempt;

	if (a->retry->attempts == 0)
		return false;
	if (a->retries >= a->retry->attempts) {
		a->is_exhausted = true;
		count(x, SERVICE_RETRY_EXHAUSTED);
		count_for(x, SETTING_RETRY, RETRY_EXHAUSTED);
		return false;
	}
	if (!attempt_can_replay(x, what))
		return false;
	if (!take_budget(x)) {
		a->is_exhausted = true;
		count(x, SERVICE_RETRY_BUDGET);
		count_for(x, SETTING_RETRY, RETRY_NO_BUDGET);
		return false;
	}
	return true;
}

/* After a random pause. Nothing more is read of the client meanwhile. */
static void plan(struct exchange *x)
{
	struct attempt *a = x->attempt;
	int64_t limit_ms = retry_pause_limit_ms(++a->retries);

	exchange_end_try(x);
	if (!a->request_done)
		stream_pause(&x->stream);
	x->upstream_head_us = 0;
	a->is_retry = a->is_pausing = true;
	attempt_repeat(x);
	arm(x, &a->pace, (int64_t)((uint64_t)worker_random(x->worker) * (uint64_t)limit_ms >> 32));
}

bool attempt_goes_on(struct exchange *x, enum call_failure what)
{
	static const char *const names[] = { [CALL_CONNECT] = "connect", [CALL_RESET] = "reset",
		[CALL_TIMEOUT] = "timeout", [CALL_MALFORMED] = "malformed", [CALL_TRUNCATED] = "reset" };
	struct attempt *a = x->attempt;
	enum method method = x->stream.req.method;

	timer_disarm(&a->pace);
	a->why = names[what];
	if (has_answer(x)) {
		a->answered = x->res.status;
		return turn_away(x, false);
	}
	/* A TLS handshake that the upstream ended after we had begun to send: none of it was read. */
	const enum call_failure as = what == CALL_RESET && x->call.tls_failure ? CALL_CONNECT : what;

	a->was_reached = a->was_reached || as != CALL_CONNECT;
	a->wants_fresh = what == CALL_RESET;
	note_tried(x);
	settle_retry(x, false);
	if (a->retry && retry_wants_failure(a->retry, method, as, as == CALL_RESET && x->call.is_refused) &&
	    may_retry(x, what)) {
		plan(x);
		return true;
	}
	if (turn_away(x, false))
		return true;
	/* Nobody had the request yet: it may go elsewhere, whatever its method. */
	if (a->was_reached || a->body_went_on)
		return false;
	exchange_end_try(x);
	return move_on(x);
}

/* A stream has no total time: it lasts as long as its peers want. */
void attempt_release(struct exchange *x)
{
	if (outcome_is_stream(x))
		timer_disarm(&x->attempt->total);
}

static void stop_clocks(struct exchange *x)
{
	timer_disarm(&x->attempt->pace);
	/* While another service may be turned to, the head alone is no answer. */
	if (!may_turn(x))
		attempt_release(x);
}

bool attempt_refuses(struct exchange *x)
{
	struct attempt *a = x->attempt;
	bool is_wanted = a->retry && !x->is_tunnel && retry_wants_response(a->retry, x->stream.req.method, &x->res);

	a->was_reached = true;
	settle_retry(x, !is_wanted);
	if (is_wanted && may_retry(x, CALL_RESET)) {
		note_tried(x);
		leftover_take(x);
		plan(x);
		return true;
	}
	a->why = "status";
	a->answered = x->res.status;
	if (a->fails && x->res.status >= 400 && x->res.status < 656 && !x->is_tunnel &&
	    (a->fails[(x->res.status - 400) / 64] >> (x->res.status - 400) % 64 & 1) && turn_away(x, true))
		return true;
	stop_clocks(x);
	return false;
}

void attempt_settle(struct exchange *x)
{
	x->attempt->retry = NULL;
	x->attempt->fallback = NULL;
}

void attempt_end(struct exchange *x)
{
	struct attempt *a = x->attempt;

	timer_disarm(&a->total);
	timer_disarm(&a->pace);
	a->is_pausing = false;
	give_retry_back(x);
}

char *attempt_flags(const struct exchange *x, char *out)
{
	if (x->attempt->fell_back)
		out = STR_PUT(out, "FB,");
	if (x->attempt->is_exhausted)
		out = STR_PUT(out, "URX,");
	return out;
}
