/*
 * outbox.h -- the small messages that a turn of a loop sends, given to the kernel together before the loop waits.
 *
 * A call of the kernel for each message costs more than the copy of a small one, and a run of the same work finds the
 * processor's caches warm. Where io_uring is there, one call sends all; else they are sent one by one.
 *
 * A message that was put counts as taken, as one in the kernel's buffer does. What the kernel does not take in the end
 * comes back to its sender, who keeps it or learns that the peer is gone. A sender has one message here at most, so
 * that nothing overtakes what comes back. Before a sender uses its descriptor in another way, and before it closes it,
 * it flushes the outbox or recalls its message: a descriptor's number is soon another connection's.
 *
 * One outbox for each loop, for that loop's thread only.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "core/fault.h"

#define OUTBOX_MESSAGE_BYTES 4096        /* larger ones are not worth the copy */

struct loop;
struct outbox;

/* Embedded by who sends; zero-initialise and set `returned`. */
struct letter {
	struct outbox *box;               /* where its message lies; NULL: none does */
	/*
	 * At the flush: `rest` was not taken, because the kernel has no room (error = 0: EPOLLOUT comes) or for this
	 * errno. The bytes are there until it returns. It may not put anything.
	 */
	void (*returned)(struct letter *l, struct iovec rest, int error);
};

/* The loop's, which frees it with itself. */
struct outbox *outbox_of(struct loop *l);
/*
 * Takes a message by copy, or adds it to the sender's. False: it is larger than OUTBOX_MESSAGE_BYTES, or cannot be
 * added: to be sent by the sender, after a flush. fd is a non-blocking stream socket.
 */
MUST_USE bool outbox_put(struct outbox *b, struct letter *l, int fd, const struct iovec *parts, int n);
/* Sends all that was put. */
void outbox_flush(struct outbox *b);
/* What l put is not sent. */
void outbox_recall(struct letter *l);

static inline bool letter_is_empty(const struct letter *l)
{
	return l->box == NULL;
}

/* For the whole process, before its loops run. */
void outbox_use_io_uring(bool allowed);  /* without it messages are sent one by one */
void outbox_metrics(void);
