/*
 * transport.h -- the bytes of one connection, plain or through TLS, behind one pair of calls that behave like recv()
 * and send().
 *
 * The descriptor stays its owner's, who watches it edge-triggered for reading and writing. EAGAIN means "after the
 * next edge", in whichever direction TLS needs it. A plain receive that did not fill the buffer drained the kernel; a
 * TLS receive says nothing of that kind (transport_is_drained).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls;

struct transport {
	int fd;
	struct tls *tls;                  /* NULL: plain */
};

/* Like recv(): 0 = the peer's end, -1 with errno. */
ssize_t transport_receive(struct transport *t, void *p, size_t n);
/* Like sendmsg() without SIGPIPE: how many bytes were taken, -1 with errno. */
ssize_t transport_send(struct transport *t, struct iovec *parts, int n);
/* Whether a receive of `got` bytes into `asked` emptied the kernel, so that only an edge brings more. */
bool transport_is_drained(const struct transport *t, size_t got, size_t asked);
/* After a receive of 0: whether the peer meant to end here. Without TLS nobody can tell. */
bool transport_ended_well(const struct transport *t);
/* Says goodbye (TLS close_notify) and half-closes. */
void transport_shutdown(struct transport *t);
/* Frees the TLS state. The descriptor stays open. */
void transport_free(struct transport *t);
