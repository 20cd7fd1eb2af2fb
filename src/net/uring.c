#include "net/uring.h"
#include <errno.h>
#include <liburing.h>
#include <sys/socket.h>
#include "core/fault.h"
#include "core/mem.h"

struct uring {
	struct io_uring ring;
};

struct uring *uring_new(unsigned most)
{
	/* Only this thread asks, and it looks for results itself: the kernel need not interrupt it. */
	unsigned ways[] = {
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_SUBMIT_ALL,          /* Linux 5.18 */
	};
	struct uring *u = MEM_NEW(struct uring);
	int error = 0;

	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		error = io_uring_queue_init(most, &u->ring, ways[i]);
		if (error != -EINVAL)
			break;
	}
	if (error < 0) {
		mem_free(u);
		errno = -error;
		return NULL;
	}
	/* Saves a look-up for each call; older kernels do without. */
	io_uring_register_ring_fd(&u->ring);
	return u;
}

void uring_free(struct uring *u)
{
	if (!u)
		return;
	io_uring_queue_exit(&u->ring);
	mem_free(u);
}

/* Sends on sockets that do not block end while they are submitted; were one still out, it would be waited for. */
static void take_results(struct uring *u, struct sending *s, unsigned n)
{
	struct io_uring_cqe *c;

	while (n > 0) {
		int error = io_uring_wait_cqe(&u->ring, &c);

		/* What is out uses our memory: there is no going on without its end. */
		BUG_ON(error && error != -EINTR);
		if (error)
			continue;
		s[io_uring_cqe_get_data64(c)].result = c->res;
		io_uring_cqe_seen(&u->ring, c);
		n--;
	}
}

/* How many of n the kernel saw. */
static unsigned submit(struct uring *u, unsigned n)
{
	unsigned seen = 0;

	while (seen < n) {
		int some = io_uring_submit(&u->ring);

		if (some > 0)
			seen += (unsigned)some;
		else if (some != -EINTR)
			break;
	}
	return seen;
}

bool uring_send(struct uring *u, struct sending *s, unsigned n)
{
	unsigned seen;

	for (unsigned i = 0; i < n; i++) {
		struct io_uring_sqe *entry = io_uring_get_sqe(&u->ring);

		BUG_ON(!entry);
		io_uring_prep_send(entry, s[i].fd, s[i].p, s[i].n, MSG_NOSIGNAL | MSG_DONTWAIT);
		io_uring_sqe_set_data64(entry, i);
		s[i].result = SENDING_OPEN;
	}
	seen = submit(u, n);
	take_results(u, s, seen);
	return seen == n;
}
