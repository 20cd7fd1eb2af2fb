/*
 * output.h -- writing to a non-blocking socket: straight from where the bytes lie, and a private copy of only what the
 * kernel did not take. Small messages may be posted: they leave with others at the end of the turn (net/outbox.h).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>
#include "net/outbox.h"
#include "net/transport.h"

/*
 * What waits to be written. Zero-initialise; no memory is held while nothing waits. Who posts sets letter.returned,
 * which keeps what came back by output_append().
 */
struct output {
	char *p;
	size_t at, n, cap;                /* bytes [at, n) wait */
	struct letter letter;             /* posted; only while nothing waits */
};
enum output_result {
	OUTPUT_ALL,                       /* everything is in the kernel, or as good as that: posted */
	OUTPUT_WAITS,                     /* something waits for EPOLLOUT */
	OUTPUT_FAILED,                    /* the peer is gone; errno says why */
};

static inline bool output_is_empty(const struct output *o)
{
	return o->at == o->n;
}

/* Takes all bytes of the vector, after what waits already. */
enum output_result output_send(struct output *o, struct transport *t, struct iovec *parts, int n);
/* The same; what is small goes out at the end of the turn. For a transport without TLS. */
enum output_result output_post(struct output *o, struct transport *t, struct outbox *box, struct iovec *parts, int n);
/* What was posted goes to the kernel now; some of it may wait then. Before the descriptor is shut or closed. */
void output_settle(struct output *o);
enum output_result output_flush(struct output *o, struct transport *t);
void output_append(struct output *o, const struct iovec *parts, int n);
/* What waits or is posted is forgotten. */
void output_free(struct output *o);
