/*
 * leftover.h -- what is left of an answer that was dropped for another try, read beside it.
 *
 *      head dropped ── leftover_take ──► the next try begins at once
 *                            └──► a call of its own ──► end, LEFTOVER_BYTES or LEFTOVER_MS ──► told, over
 *
 * For two reasons: the connection can be used again, and whoever asked (exchange_watch_drops) hears what the body says.
 * Nothing waits for it, the exchange may be gone before it is over, and it is bounded: in bytes, time and number. It
 * pins the view it began under, whose pools its connection goes back to.
 */
#pragma once
#include "proxy/exchange.h"

#define LEFTOVER_BYTES 65536              /* of a body; more costs more than a new connection */
#define LEFTOVER_MS 2000
#define LEFTOVERS_MAX 128                 /* at a time on one worker */

/* x->res is the head of the answer, x->part what came with it. The call is over for the exchange. */
void leftover_take(struct exchange *x);
