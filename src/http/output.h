/*
 * output.h -- writing to a non-blocking socket: straight from where the bytes lie, and a private copy of only what the
 * kernel did not take. Shared by server.c and client.c.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>
#include "net/transport.h"

/* What waits to be written. Zero-initialise; no memory is held while nothing waits. */
struct output {
	char *p;
	size_t at, n, cap;                /* bytes [at, n) wait */
};
enum output_result {
	OUTPUT_ALL,                       /* everything is in the kernel */
	OUTPUT_WAITS,                     /* something waits for EPOLLOUT */
	OUTPUT_FAILED,                    /* the peer is gone; errno says why */
};

static inline bool output_is_empty(const struct output *o)
{
	return o->at == o->n;
}

/* Takes all bytes of the vector, after what waits already. */
enum output_result output_send(struct output *o, struct transport *t, struct iovec *parts, int n);
enum output_result output_flush(struct output *o, struct transport *t);
void output_append(struct output *o, const struct iovec *parts, int n);
void output_free(struct output *o);
