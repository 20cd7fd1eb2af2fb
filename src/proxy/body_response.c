/* body_response.c -- response bodies that policies look at: held at their beginning, or piece by piece. */
#include "core/budget.h"
#include "core/clock.h"
#include "core/mem.h"
#include "proxy/attempt.h"
#include "proxy/body.h"
#include "proxy/exchange.h"

/* ---------- held ---------- */

static void free_hold(struct hold *h)
{
	budget_add(-(int64_t)h->room);
	mem_free(h->p);
	h->p = NULL;
	h->n = h->room = 0;
}

static void drop_hold(struct arena_defer *d)
{
	free_hold(CONTAINER(d, struct hold, defer));
}

void hold_free(struct exchange *x)
{
	free_hold(x->hold);
	x->hold = NULL;
}

static void stop_holding(struct wait *w)
{
	CONTAINER(w, struct hold, wait)->is_reading = false;
}

static void keep(struct exchange *x, struct str data)
{
	struct hold *h = x->hold;

	if (h->room - h->n < data.n) {
		size_t room = h->n + data.n + h->n / 2;

		budget_add((int64_t)room - (int64_t)h->room);
		h->p = mem_resize(h->p, room);
		h->room = room;
	}
	if (data.n > 0)
		memcpy(h->p + h->n, data.p, data.n);
	h->n += data.n;
	x->part = (struct str){ h->p, h->n };
}

/* Nor is more held than there is memory for: its policy sees the part. */
static bool is_enough(const struct exchange *x)
{
	return x->part_end || x->hold->n >= x->hold->most || budget_is_spent();
}

enum verdict await_response_body(struct exchange *x, size_t most, hook *then)
{
	struct str first = x->part;
	struct hold *h;

	BUG_ON(x->walk.leg != LEG_RESPONSE);
	if (x->is_local || x->is_tunnel)
		return then(x, x->step);
	h = x->hold;
	if (!h) {
		h = x->hold = NEW(&x->arena, struct hold);
		arena_defer(&x->arena, &h->defer, drop_hold);
		keep(x, first);
	}
	h->most = most;
	if (is_enough(x))
		return then(x, x->step);
	h->is_reading = true;
	h->wait = (struct wait){ .cancel = stop_holding };
	if (x->call_open)
		call_resume(&x->call);
	return await(x, &h->wait, then);
}

void hold_take(struct exchange *x, struct str data, bool end)
{
	struct hold *h = x->hold;

	keep(x, data);
	x->part_end = end;
	if (end) {
		x->res.trailers = x->call.res.trailers;
		exchange_end_call(x);
		outcome_settle(x);
	}
	if (!is_enough(x))
		return;
	h->is_reading = false;
	if (!end)
		call_pause(&x->call);
	/* What the upstream took to send it is none of the policy's waiting. */
	x->wait_start_us = clock_us();
	wait_done(&h->wait);
}

struct str exchange_response_body(const struct exchange *x, bool *is_whole)
{
	*is_whole = x->part_end;
	return x->part;
}

/* ---------- piece by piece ---------- */

/* Only upstreams' responses come here, so there is a route. */
bool pieces_are_wanted(const struct exchange *x)
{
	if (x->is_local || x->is_tunnel || x->stream.req.method == METHOD_HEAD)
		return false;
	if (x->site->gateway->policies->legs[LEG_DATA].n | x->site->domain_policies->legs[LEG_DATA].n |
	    x->route->policies->legs[LEG_DATA].n | x->service->policies->legs[LEG_DATA].n)
		return true;
	return UNLIKELY(x->attempt != NULL) && x->attempt->carried;
}

static void drop_pieces(struct arena_defer *d)
{
	struct pieces *p = CONTAINER(d, struct pieces, defer);

	budget_add(-(int64_t)p->room);
	mem_free(p->kept);
}

void pieces_open(struct exchange *x)
{
	x->pieces = NEW(&x->arena, struct pieces);
	arena_defer(&x->arena, &x->pieces->defer, drop_pieces);
}

/* A hook waits: the piece must outlive the receive buffer, and no more may come. */
static void keep_piece(struct exchange *x)
{
	struct pieces *p = x->pieces;

	if (x->part.n > p->room) {
		budget_add((int64_t)x->part.n - (int64_t)p->room);
		mem_free(p->kept);
		p->kept = mem_alloc(x->part.n);
		p->room = x->part.n;
	}
	if (x->part.n > 0)
		memcpy(p->kept, x->part.p, x->part.n);
	x->part.p = p->kept;
	if (x->call_open)
		call_pause(&x->call);
}

void pieces_take(struct exchange *x, struct str data, bool end)
{
	struct pieces *p = x->pieces;

	x->part = data;
	x->part_end = end;
	p->is_walking = true;
	pipeline_start(x, LEG_DATA);
	if (p->is_walking && x->wait)
		keep_piece(x);
}

void pieces_pass(struct exchange *x)
{
	struct pieces *p = x->pieces;
	bool is_taken = true;

	p->is_walking = false;
	if (x->part_end) {
		p->is_over = true;
		outcome_settle(x);
	}
	if (x->part.n > 0 || x->part_end)
		is_taken = stream_send(&x->stream, NULL, x->part, x->part_end);
	x->part = (struct str){ NULL, 0 };
	if (x->call_open && is_taken && !p->is_held)
		call_resume(&x->call);
	else if (x->call_open)
		call_pause(&x->call);
	if (p->is_poked)
		exchange_poke_pieces(x);
}

void exchange_end_pieces(struct exchange *x)
{
	if (x->call_open)
		exchange_end_call(x);
	x->part_end = true;
}

void exchange_poke_pieces(struct exchange *x)
{
	struct pieces *p = x->pieces;

	if (!p || p->is_over || x->phase != EXCHANGE_SENDING)
		return;
	p->is_poked = p->is_walking;
	if (!p->is_poked)
		pieces_take(x, (struct str){ NULL, 0 }, p->ends_at != NULL);
}

void exchange_hold_end(struct exchange *x)
{
	x->pieces->ends_at = x->step;
	x->part_end = false;
}

void exchange_hold_upstream(struct exchange *x, bool hold)
{
	x->pieces->is_held = hold;
}

void exchange_replace_response_body(struct exchange *x, struct str body)
{
	BUG_ON(x->walk.leg != LEG_RESPONSE || !x->part_end);
	x->part = body;
	if (x->stream.req.method == METHOD_HEAD)
		return;
	x->res.framing = FRAMING_LENGTH;
	x->res.content_length = body.n;
	x->res.length_known = true;
}

struct str exchange_piece(const struct exchange *x, bool *is_last)
{
	const struct pieces *p = x->pieces;

	*is_last = x->part_end && !(p && p->ends_at && x->step->order < p->ends_at->order);
	return x->part;
}

void exchange_replace_piece(struct exchange *x, struct str piece)
{
	x->part = piece;
}

void exchange_drop_length(struct exchange *x)
{
	if (x->res.framing == FRAMING_LENGTH)
		x->res.framing = FRAMING_CHUNKED;
	x->res.length_known = false;
}
