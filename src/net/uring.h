/* uring.h -- many sends in one call of the kernel, through io_uring. Everything ends within the call. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SENDING_OPEN INT_MIN             /* the kernel never saw it */

struct sending {
	int fd;                           /* a non-blocking stream socket */
	const void *p;
	size_t n;
	int result;                       /* bytes taken, or a negative errno */
};

struct uring;
/* A ring for up to `most` sends at once, for the calling thread only. NULL with errno: the kernel has none for us. */
struct uring *uring_new(unsigned most);
void uring_free(struct uring *u);
/*
 * Sends all, in their order, and fills in the results. False: the kernel saw the first ones only; the others' results
 * are SENDING_OPEN, and the ring is of no use any more.
 */
bool uring_send(struct uring *u, struct sending *s, unsigned n);
