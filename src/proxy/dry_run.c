#include "proxy/dry_run.h"
#include <stdarg.h>
#include <stdio.h>
#include "proxy/attempt_rules.h"
#include "proxy/balance.h"
#include "proxy/router.h"
#include "proxy/secure.h"

#define NOTE_MAX 240

const char *dry_verdict_name(enum dry_verdict v)
{
	static const char *const names[] = {
		[DRY_PASSES] = "Passes", [DRY_ANSWERS] = "Answers", [DRY_CLOSES] = "Closes", [DRY_FAILS] = "Fails",
		[DRY_UNJUDGED] = "NotJudged", [DRY_UNREACHED] = "NotReached",
	};

	return names[v];
}

/* ---------- what hooks say ---------- */

bool exchange_is_dry(const struct exchange *x)
{
	return x->dry != NULL;
}

void exchange_note(struct exchange *x, const char *format, ...)
{
	char text[NOTE_MAX];
	va_list args;

	if (!x->dry)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	x->dry->note = arena_copy(x->dry->arena, str_of(text));
}

enum verdict cannot_judge(struct exchange *x, const char *why)
{
	if (x->dry)
		x->dry->unjudged = why;
	return next();
}

/* ---------- what is found ---------- */

/* Room for one more of `size` bytes; *list moves when it is full. */
static void *grow(struct arena *a, void **list, unsigned *n, unsigned *room, size_t size)
{
	if (*n == *room) {
		unsigned more = *room ? 2 * *room : 8;
		char *moved = arena_alloc(a, more * size);

		if (*n)
			memcpy(moved, *list, *n * size);
		*list = moved;
		*room = more;
	}
	return (char *)*list + (*n)++ * size;
}

static void pass_over(void *arg, const struct route *r, struct str why)
{
	struct dry_run *d = arg;
	void *list = d->misses;
	struct dry_miss *miss = grow(d->arena, &list, &d->n_misses, &d->misses_room, sizeof *miss);

	d->misses = list;
	*miss = (struct dry_miss){ r, arena_copy(d->arena, why) };
}

static struct dry_step *add_step(struct dry_run *d, const struct step *s, enum leg leg)
{
	void *list = d->steps;
	struct dry_step *step = grow(d->arena, &list, &d->n_steps, &d->room, sizeof *step);

	d->steps = list;
	*step = (struct dry_step){ .step = s, .leg = leg, .verdict = DRY_UNREACHED };
	return step;
}

/* ---------- judging ---------- */

/* The step as its hooks may have it: nothing is counted. */
static const struct step *quiet_step(struct dry_run *d, const struct step *s)
{
	struct step *quiet = NEW(d->arena, struct step);

	*quiet = *s;
	quiet->series = NULL;
	return quiet;
}

static hook *hook_of(const struct step *s, enum leg leg)
{
	bool is_way_in = leg == LEG_REQUEST || leg == LEG_SERVICE || leg == LEG_ATTEMPT;

	if (is_way_in && s->class->explain)
		return s->class->explain;
	return s->class->is_pure ? s->run : NULL;
}

static enum dry_verdict judge(struct dry_run *d, const struct step *s, enum leg leg)
{
	struct exchange *x = &d->x;
	hook *fn = hook_of(s, leg);

	if (!fn) {
		d->note = leg == LEG_RESPONSE ? STR("depends on the response") :
			  STR("keeps count or asks others, which a dry run does not");
		return DRY_UNJUDGED;
	}
	x->step = quiet_step(d, s);
	switch (fn(x, x->step)) {
	case NEXT:
		if (!d->unjudged)
			return DRY_PASSES;
		d->note = str_of(d->unjudged);
		return DRY_UNJUDGED;
	case REPLY:
		d->is_closed = x->must_close;
		return x->must_close ? DRY_CLOSES : DRY_ANSWERS;
	case FAIL:
		d->note = arena_printf(d->arena, "%s; %s", x->broken, s->class->fails_open ? "it lets pass then" :
				       "it refuses then");
		return pipeline_may_pass(x) ? DRY_PASSES : DRY_FAILS;
	case WAIT:
		break;
	}
	/* It should have said that it cannot judge. */
	pipeline_abort(x);
	d->note = STR("would have to wait for something, which a dry run does not");
	return DRY_UNJUDGED;
}

/* What nobody attached is there where it decides. */
static bool is_shown(const struct dry_step *step)
{
	return step->step->policy_id.n > 0 ||
	       (step->leg != LEG_RESPONSE && step->verdict != DRY_PASSES && step->verdict != DRY_UNREACHED);
}

/* Steps of the leg to the end; after one that ends the request the rest is not reached. False: it is over. */
static bool run_leg(struct dry_run *d, enum leg leg)
{
	struct exchange *x = &d->x;
	const struct step *s;
	bool is_over = false;

	walk_open(x, leg);
	while ((s = walk_next(x))) {
		struct dry_step *step = add_step(d, s, leg);

		if (is_over) {
			if (!is_shown(step))
				d->n_steps--;
			continue;
		}
		d->unjudged = NULL;
		d->note = (struct str){ NULL, 0 };
		step->verdict = judge(d, s, leg);
		step->note = d->note;
		if (!is_shown(step))
			d->n_steps--;
		if (step->verdict == DRY_PASSES || step->verdict == DRY_UNJUDGED)
			continue;
		x->answered_by = s;
		/* In the response leg the reply replaces the response, and the later steps shape it. */
		is_over = leg != LEG_RESPONSE;
	}
	x->step = NULL;
	d->is_answered = d->is_answered || is_over;
	return !is_over;
}

/* L4 lists of a gateway that has the listener alone, at accept. False: the connection is closed. */
static bool run_connect(struct dry_run *d, const struct binding *b)
{
	const struct chain *chain = b->only ? &b->only->policies->legs[LEG_CONNECT] : NULL;

	for (unsigned i = 0; chain && i < chain->n; i++) {
		const struct step *s = &chain->steps[i];
		struct dry_step *step = add_step(d, s, LEG_CONNECT);

		if (!s->class->is_pure) {
			step->verdict = DRY_UNJUDGED;
			continue;
		}
		step->verdict = s->class->connect(&d->x.peer_ip, quiet_step(d, s)) ? DRY_PASSES : DRY_CLOSES;
		if (step->verdict == DRY_PASSES)
			continue;
		d->is_answered = d->is_closed = true;
		d->x.answered_by = s;
		return false;
	}
	return true;
}

/* ---------- the way of a request ---------- */

static void answer_reason(struct dry_run *d, int status, enum reason_id reason, const char *code)
{
	d->x.reason = reason;
	d->is_answered = true;
	d->answered_for = reasons[reason].text;
	if (reason == REASON_HTTPS_ONLY)
		secure_redirect(&d->x);
	else
		reply_error(&d->x, status, code, str_of(reasons[reason].text));
}

/* False: the parser refuses it. */
static bool open_exchange(struct dry_run *d, const struct dry_request *r)
{
	struct exchange *x = &d->x;
	struct h1_limits limits = h1_default_limits;
	enum h1_fault fault;

	limits.keep_underscores = r->keeps_underscores;
	x->dry = d;
	x->stream.arena = &x->arena;
	x->stream.req.arena = &x->arena;
	fault = h1_parse_request(&x->stream.req, r->head, &limits);
	x->host = x->stream.req.authority;
	if (fault != H1_FAULT_NONE) {
		d->is_answered = d->is_refused = true;
		d->answered_for = h1_fault_tag(fault);
		x->res = (struct message){ .arena = &x->arena, .status = h1_fault_status(fault) };
		return false;
	}
	x->phase = EXCHANGE_REQUEST;
	x->path = x->stream.req.path;
	x->query = x->stream.req.query;
	x->request_id = exchange_given_id(x);
	if (!x->request_id.p)
		x->request_id = r->request_id;
	x->tls_record = r->is_tls ? STR("tls") : (struct str){ NULL, 0 };
	exchange_strip_reserved(x);
	return true;
}

/* To the gateway, the domain and the route; false: it is answered. */
static bool find_way(struct dry_run *d, const struct dry_request *r)
{
	const struct router_listener listener = { pass_over, d };
	struct exchange *x = &d->x;
	enum reason_id reason;

	exchange_find_route(x, r->binding, &listener);
	forward_identify_peer(x, &r->peer, r->peer_port);
	if (!run_connect(d, r->binding))
		return false;
	if (!x->site) {
		answer_reason(d, 404, REASON_NO_GATEWAY, "ErrNotFound");
		return false;
	}
	/* How a TLS connection was made cannot be known here. */
	reason = x->site->is_guarded && !r->is_tls ? secure_judge(x, NULL) : REASON_COMPLETED;
	if (reason != REASON_COMPLETED) {
		answer_reason(d, 403, reason, "ErrForbidden");
		return false;
	}
	if (x->site->gateway->strips_tag)
		message_remove_id(&x->stream.req, HEADER_X_MSE_TAG);
	return true;
}

/* NULL: the route has none, or not this one. */
static const struct target *find_target(const struct route *route, struct str service_id)
{
	const struct target *best = NULL;

	for (unsigned i = 0; i < route->n_targets; i++) {
		const struct target *t = &route->targets[i];

		if (service_id.p ? str_equal(t->service_id, service_id) : !best || t->weight > best->weight)
			best = t;
	}
	return best;
}

/* A service whose balancing state is ours: what workers have of it is theirs. */
struct own_service {
	struct arena_defer defer;
	struct service service;
};

static void drop_rotation(struct arena_defer *defer)
{
	part_drop(rotation_part(CONTAINER(defer, struct own_service, defer)->service.rotation));
}

static void turn_to(struct dry_run *d, const struct service *s, const struct target *t)
{
	struct own_service *own = NEW(d->arena, struct own_service);

	own->service = *s;
	own->service.rotation = rotation_new();
	arena_defer(d->arena, &own->defer, drop_rotation);
	d->service = s;
	d->x.service = &own->service;
	d->x.target = t;
}

static const struct service *service_of(const struct dry_run *d, const struct target *t)
{
	struct part *found = pmap_get_hashed(d->view.snapshot->services, t->service_id, t->hash);

	return found ? CONTAINER(found, struct service, part) : NULL;
}

/* Where the service that is meant has no endpoint: the first of the fallback that has one. */
static void fall_back(struct dry_run *d)
{
	static const struct settings none;
	struct exchange *x = &d->x;
	const struct service *meant = d->service;
	const struct target *target = x->target;
	const struct settings s = settings_merge(&x->route->policies->settings,
						 meant ? &meant->policies->settings : &none);

	if (!s.fallback || (meant && balance_has_endpoint(x, x->service, target)))
		return;
	for (unsigned i = 0; i < s.fallback->n; i++) {
		const struct service *next = service_of(d, &s.fallback->targets[i]);

		if (!next)
			continue;
		turn_to(d, next, &s.fallback->targets[i]);
		d->meant = meant;
		if (balance_has_endpoint(x, x->service, x->target))
			return;
	}
	/* Nowhere is one: it stays where it was meant to go. */
	d->meant = NULL;
	if (meant)
		turn_to(d, meant, target);
}

/* What a policy answers by itself depends on what the client was given before: it is not asked. */
static void answer_claim(struct dry_run *d)
{
	const struct step *s = d->x.claimed->steps;
	struct dry_step *step = add_step(d, s, LEG_REQUEST);

	step->verdict = DRY_ANSWERS;
	step->note = STR("it has this path to itself; what it answers depends on the client's cookies");
	d->x.answered_by = s;
	d->is_answered = true;
	reply(&d->x, 302, (struct str){ NULL, 0 }, (struct str){ NULL, 0 });
}

static void answer_unrouted(struct dry_run *d)
{
	if (!exchange_is_about_server(&d->x)) {
		answer_reason(d, 404, REASON_NO_ROUTE, "ErrNotFound");
		return;
	}
	d->is_answered = true;
	d->answered_for = "the request is about the gateway itself, not about a route";
	exchange_tell_methods(&d->x);
}

static bool find_service(struct dry_run *d, const struct dry_request *r)
{
	struct exchange *x = &d->x;
	const struct service *s;

	if (x->claimed) {
		answer_claim(d);
		return false;
	}
	if (!x->route) {
		answer_unrouted(d);
		return false;
	}
	x->phase = EXCHANGE_UPSTREAM;
	x->target = find_target(x->route, r->service_id);
	s = x->target ? service_of(d, x->target) : NULL;
	if (s)
		turn_to(d, s, x->target);
	fall_back(d);
	if (!x->service) {
		answer_reason(d, 503, REASON_NO_SERVICE, "ErrNoUpstream");
		return false;
	}
	forward_fields(x, arena_printf(&x->arena, "%u", addr_port(&r->binding->addr)));
	return true;
}

static void find_endpoint(struct dry_run *d)
{
	struct exchange *x = &d->x;
	const char *how;
	unsigned n = 0;

	d->may_pick = NEW_N(d->arena, bool, x->service->n_endpoints + 1);
	d->endpoint = x->endpoint = balance_look(x, d->may_pick, &how);
	for (unsigned i = 0; i < x->service->n_endpoints; i++)
		n += d->may_pick[i];
	if (n > 0)
		d->picked = how;
	else
		answer_reason(d, 503, REASON_NO_ENDPOINT, "ErrNoUpstream");
}

/* The response leg runs for answers of our own too; of the upstream's nothing is known but that it may be a 200. */
static void run_response(struct dry_run *d)
{
	struct exchange *x = &d->x;

	if (d->is_closed)
		return;
	if (!d->is_answered) {
		x->res = (struct message){ .arena = &x->arena, .status = 200, .minor = 1 };
		x->is_local = false;
	}
	x->phase = EXCHANGE_RESPONSE;
	run_leg(d, LEG_RESPONSE);
}

static void end_exchange(struct arena_defer *defer)
{
	arena_free(&CONTAINER(defer, struct dry_run, end)->x.arena);
}

struct dry_run *dry_run_new(struct arena *a, const struct dry_request *r, struct problem *why)
{
	struct dry_run *d = NEW(a, struct dry_run);

	d->arena = a;
	arena_defer(a, &d->end, end_exchange);
	d->view.snapshot = r->snapshot;
	d->x.view = &d->view;
	if (!open_exchange(d, r))
		return d;
	if (find_way(d, r) && run_leg(d, LEG_REQUEST) && find_service(d, r) && run_leg(d, LEG_SERVICE) &&
	    run_leg(d, LEG_ATTEMPT))
		find_endpoint(d);
	if (r->service_id.p && d->x.route && !find_target(d->x.route, r->service_id)) {
		problem(why, "serviceId", "the route does not lead to the service \"%.*s\"", STR_FMT(r->service_id));
		return NULL;
	}
	run_response(d);
	return d;
}
