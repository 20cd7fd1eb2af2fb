/* body.c -- request bodies that policies want whole: read before the step, sent with the length they have. */
#include "proxy/body.h"
#include "core/budget.h"
#include "core/clock.h"
#include "proxy/exchange.h"

#define SEND_BYTES 65536                  /* handed to the upstream's connection at a time */

/* It is too long. True: it goes on all the same. */
static bool pass_long(struct exchange *x)
{
	if (x->body && x->body->may_pass) {
		x->body->is_given_up = true;
		return true;
	}
	exchange_reply_reason(x, 413, REASON_BODY_TOO_LARGE, "ErrRequestTooLarge");
	return false;
}

/* False: it is too long, or there is no memory for it. The request is answered then. */
static bool gather(struct exchange *x, struct str data)
{
	const struct message *req = &x->stream.req;
	struct body *b = x->body;

	if (data.n > b->most - x->retained->n && !pass_long(x))
		return false;
	if (data.n > 0 && budget_is_spent()) {
		exchange_reply_reason(x, 503, REASON_OVERLOADED, "ErrOverloaded");
		return false;
	}
	if (data.n > 0)
		retain_gather(x->retained, data, req->framing == FRAMING_LENGTH ? (size_t)req->content_length : 0);
	return true;
}

/* What was read is sent as if nobody had wanted it. */
static void give_back(struct exchange *x, bool end)
{
	x->body->is_reading = false;
	x->held = arena_copy(&x->arena, retain_whole(x->retained));
	x->held_end = end;
	retain_renew(x);
	if (x->retained->limit == 0)
		x->retained = NULL;
	if (!end)
		stream_pause(&x->stream);
}

/* The body goes on with the length it has, unless fields follow it, for which there is no place then. */
static void settle_framing(struct message *req, size_t n)
{
	if (req->framing == FRAMING_NONE && n == 0)
		return;
	if (req->framing == FRAMING_CHUNKED && req->trailers)
		return;
	req->framing = FRAMING_LENGTH;
	req->content_length = n;
	req->length_known = true;
}

static void finish(struct exchange *x)
{
	struct body *b = x->body;
	struct retained *r = x->retained;

	b->is_reading = false;
	b->is_whole = r->is_whole = true;
	r->trailers = x->stream.req.trailers;
	x->held = (struct str){ NULL, 0 };
	x->held_end = true;
	settle_framing(&x->stream.req, r->n);
}

static void stop_reading(struct wait *w)
{
	CONTAINER(w, struct body, wait)->is_reading = false;
}

/* More has to come: the stream goes on, and the step waits for it. */
static void read_on(struct exchange *x, hook *then)
{
	struct body *b = x->body;

	b->is_reading = true;
	b->wait = (struct wait){ .x = x, .cancel = stop_reading };
	x->wait = &b->wait;
	x->then = then;
	x->held = (struct str){ NULL, 0 };
	stream_send_continue(&x->stream);
	stream_resume(&x->stream);
}

/* Bytes of an upgrade follow instead of a body, or the body went on to an upstream already. */
static bool is_gone(const struct exchange *x)
{
	return x->stream.req.upgrade.n > 0 || x->is_tcp || (x->retained && x->retained->n > 0) || x->attempts > 0;
}

bool body_is_there(struct exchange *x, hook *then)
{
	const struct step *s = x->step;
	const struct message *req = &x->stream.req;
	size_t most = x->site->gateway->body_buffer_bytes;
	enum body_wish wish = BODY_WHOLE;

	if ((x->body && (x->body->is_whole || x->body->is_given_up)) || is_gone(x))
		return true;
	if (s->class->wants_body)
		wish = s->class->wants_body(x, s, &most);
	if (wish == BODY_UNWANTED)
		return true;
	x->body = NEW(&x->arena, struct body);
	x->body->most = most;
	x->body->may_pass = wish == BODY_SHORT;
	if (req->framing == FRAMING_LENGTH && req->content_length > most)
		return pass_long(x);
	retain_body(x, 0);
	if (!gather(x, x->held))
		return false;
	if (x->body->is_given_up)
		give_back(x, x->held_end);
	else if (x->held_end)
		finish(x);
	else
		read_on(x, then);
	return !x->body->is_reading;
}

void body_take(struct exchange *x, struct str data, bool end)
{
	struct body *b = x->body;

	if ((data.n > b->most - x->retained->n && !b->may_pass) || (data.n > 0 && budget_is_spent()))
		pipeline_abort(x);
	if (!gather(x, data) || (!end && !b->is_given_up))
		return;
	if (b->is_given_up)
		give_back(x, end);
	else
		finish(x);
	/* What the client took to send it is none of the policy's waiting. */
	x->wait_start_us = clock_us();
	wait_done(&b->wait);
}

struct str exchange_request_body(const struct exchange *x)
{
	return x->body && x->body->is_whole ? retain_whole(x->retained) : (struct str){ NULL, 0 };
}

struct retained *exchange_retained(const struct exchange *x)
{
	return x->retained;
}

void exchange_replace_request_body(struct exchange *x, struct str body)
{
	BUG_ON(!x->body || !x->body->is_whole || x->call_open);
	retain_renew(x);
	retain_gather(x->retained, body, body.n);
	x->retained->is_whole = true;
	x->retained->trailers = x->stream.req.trailers;
	settle_framing(&x->stream.req, body.n);
}

/* ---------- sending ---------- */

/* All of it was handed over. */
static void end_sending(struct exchange *x)
{
	x->body->is_sending = false;
	retain_tell(x->retained);
}

static bool send_piece(struct exchange *x, const struct message *head)
{
	struct body *b = x->body;
	struct str rest = retain_whole(x->retained);
	bool end;

	rest = (struct str){ rest.p + b->sent, rest.n - b->sent };
	end = rest.n <= SEND_BYTES;
	if (!end)
		rest.n = SEND_BYTES;
	b->sent += rest.n;
	b->is_sending = !end;
	if (end)
		x->call.trailers = x->stream.req.trailers;
	return call_send(&x->call, head, rest, end);
}

void body_send_more(struct exchange *x)
{
	while (x->body->is_sending && send_piece(x, NULL))
		;
	if (!x->body->is_sending)
		end_sending(x);
}

void body_send(struct exchange *x)
{
	struct message *head = &x->stream.req;
	bool keep_alive = head->keep_alive, is_taken;

	x->body->sent = 0;
	x->call.trailers = NULL;
	/* The upstream's connection has a life of its own. */
	head->keep_alive = true;
	is_taken = send_piece(x, head);
	head->keep_alive = keep_alive;
	if (!x->body->is_sending)
		end_sending(x);
	else if (is_taken)
		body_send_more(x);
}
