/*
 * handover.h -- how a running process gives its listening sockets to the one that follows it, over a Unix socket.
 *
 *      successor                                   predecessor
 *      ASK ───────────────────────────────────────►  lets go of the store
 *          ◄─────────────────────── SOCKETS (descriptors) ...  SOCKETS_END
 *      READY (serves) ────────────────────────────►
 *          ◄───────────────────────────────────── GO   drains, ends
 *
 * Each message is one packet with a magic word and a version, so that neither garbage nor a process that speaks another
 * version gets further than the first one. The sockets stay open all the time, in one process or both: no connection
 * is refused. What was inherited stands in a table from which listener_open() takes. Control thread only.
 */
#pragma once
#include <stdbool.h>
#include "core/problem.h"
#include "net/addr.h"

#define HANDOVER_VERSION 1u
#define HANDOVER_PIECE 64                 /* descriptors in one message */

enum handover_kind {
	HANDOVER_END,                     /* the other side closed */
	HANDOVER_NOTHING,                 /* no message within the time */
	HANDOVER_GARBAGE,                 /* no message of ours, or of another version */
	HANDOVER_ASK,
	HANDOVER_SOCKETS,
	HANDOVER_SOCKETS_END,
	HANDOVER_READY,
	HANDOVER_GO,
	HANDOVER_REFUSED,                 /* the predecessor is at it with somebody else, or cannot */
	HANDOVER_TAKEN_BACK,              /* too late: the predecessor goes on alone */
};

struct handover_sockets {
	int fds[HANDOVER_PIECE];
	unsigned n;
};

/* Listens at the path (mode 0600), in place of whatever socket is there. -1 with *why. */
int handover_listen(const char *path, struct problem *why);
/* -1 with errno: ENOENT and ECONNREFUSED mean that nobody is there. */
int handover_connect(const char *path);
/* Takes who waits: -1 with errno, EPERM for a process of another user, which is closed. */
int handover_accept(int listener);
/* `sockets` may be NULL. Does not wait. */
MUST_USE bool handover_send(int fd, enum handover_kind kind, const struct handover_sockets *sockets);
/* Waits at most so long. Descriptors that came are the caller's. */
enum handover_kind handover_receive(int fd, int wait_ms, struct handover_sockets *sockets);
/* Sends every TCP socket of this process that listens. */
MUST_USE bool handover_send_listeners(int fd);

/* ---- what was inherited ---- */
void handover_inherit(int fd);
/* A socket that listens at the address, once; -1 when there is none (any more). */
int handover_take(const struct addr *at);
bool handover_has(const struct addr *at);
/* Nobody wants the others. Returns how many there were. */
unsigned handover_close_rest(void);
