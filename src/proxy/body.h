/*
 * body.h -- bodies that policies look at: request bodies that are read whole before a step, the beginning of a response
 * body that is held back with its head, and pieces of response bodies on their way.
 *
 *      step that needs it ── body_is_there ──► the client's stream goes on, 100 (Continue) is sent ──► body_take ...
 *                                                 ... the end ──► the step ──► dispatch ──► body_send, as fast as
 *                                                 beyond the bound: 413           the upstream takes it
 *      response hook ── await_response_body ──► hold_take ... `most` bytes or the end ──► its `then` ──► head, bytes
 *      upstream ── pieces_take ──► data hooks ──► pieces_pass ──► client
 *
 * A request body that is read whole is the exchange's retained body too (retain.h): retries and copies read the same
 * bytes. All bytes kept here count for the worker's memory budget. An exchange without such policies has NULL pointers.
 */
#pragma once
#include "proxy/policy.h"
#include "proxy/retain.h"

struct body {
	struct wait wait;
	size_t most;                      /* bytes that may come */
	size_t sent;                      /* of this try, so far */
	bool is_reading, is_whole;
	bool may_pass;                    /* BODY_SHORT */
	bool is_given_up;                 /* it was too long for that: it goes on unread */
	bool is_sending;                  /* the upstream has the head and takes the rest as it can */
};

/*
 * For the pipeline, before x->step runs: whether what its class wants to read is there. False: it is being read and
 * `then` runs when it is there, or the request was answered.
 */
bool body_is_there(struct exchange *x, hook *then);
void body_take(struct exchange *x, struct str data, bool end);    /* while is_reading */
/* Head and body to the upstream's connection; what it does not take follows by body_send_more(). */
void body_send(struct exchange *x);
void body_send_more(struct exchange *x);

/* The beginning of a response body. */
struct hold {
	struct wait wait;
	struct arena_defer defer;
	char *p;
	size_t n, room, most;
	bool is_reading;
};
void hold_take(struct exchange *x, struct str data, bool end);    /* while is_reading */
void hold_free(struct exchange *x);       /* it was sent */

/* A response body whose pieces go through the data leg. x->part is the piece. */
struct pieces {
	struct arena_defer defer;
	char *kept;                       /* of a piece whose hook waits */
	size_t room;
	bool is_walking;                  /* the leg is under way */
	bool is_held;                     /* exchange_hold_upstream() */
	bool is_over;                     /* the last piece was passed */
	bool is_poked;                    /* while the leg was under way */
	const struct step *ends_at;       /* the step that keeps the end to itself; those before it have seen it */
};
/* The head is about to be sent: whether the body has to go this way. */
bool pieces_are_wanted(const struct exchange *x);
void pieces_open(struct exchange *x);
/* A piece that lies in the receive buffer. */
void pieces_take(struct exchange *x, struct str data, bool end);
void pieces_pass(struct exchange *x);     /* the leg is through: x->part to the client */
