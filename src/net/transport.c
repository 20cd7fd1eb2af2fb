#include "net/transport.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "net/tls.h"

enum { SMALL_BYTES = 256 };

/*
 * recv() and its like of libc are cancellation points, which costs a program with threads some 60 instructions a call.
 * No thread is ever cancelled here, so the kernel is asked directly.
 */
static ssize_t receive_now(int fd, void *p, size_t n)
{
	return syscall(SYS_recvfrom, fd, p, n, 0, NULL, NULL);
}

static _Thread_local char small[SMALL_BYTES];

static bool are_small(const struct iovec *parts, int n)
{
	size_t size = 0;

	for (int i = 0; i < n && size <= SMALL_BYTES; i++)
		size += parts[i].iov_len;
	return size <= SMALL_BYTES;
}

/* An event in its chunk, say: a copy costs less than the kernel's look at several parts. */
static struct iovec gather(const struct iovec *parts, int n)
{
	char *end = small;

	for (int i = 0; i < n; i++)
		if (parts[i].iov_len > 0)
			end = (char *)memcpy(end, parts[i].iov_base, parts[i].iov_len) + parts[i].iov_len;
	return (struct iovec){ small, (size_t)(end - small) };
}

static ssize_t send_now(int fd, struct iovec *parts, int n)
{
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = (size_t)n };
	struct iovec whole = *parts;

	if (n > 1 && !are_small(parts, n))
		return syscall(SYS_sendmsg, fd, &m, MSG_NOSIGNAL);
	if (n > 1)
		whole = gather(parts, n);
	return syscall(SYS_sendto, fd, whole.iov_base, whole.iov_len, MSG_NOSIGNAL, NULL, 0);
}

ssize_t transport_receive(struct transport *t, void *p, size_t n)
{
	ssize_t got;

	if (t->tls)
		return tls_receive(t->tls, p, n);
	do
		got = receive_now(t->fd, p, n);
	while (got < 0 && errno == EINTR);
	return got;
}

ssize_t transport_send(struct transport *t, struct iovec *parts, int n)
{
	ssize_t sent;

	if (t->tls)
		return tls_send(t->tls, parts, n);
	do
		sent = send_now(t->fd, parts, n);
	while (sent < 0 && errno == EINTR);
	return sent;
}

bool transport_is_drained(const struct transport *t, size_t got, size_t asked)
{
	return t->tls ? tls_is_drained(t->tls) : got < asked;
}

bool transport_ended_well(const struct transport *t)
{
	return !t->tls || tls_said_goodbye(t->tls);
}

void transport_shutdown(struct transport *t)
{
	if (t->tls)
		tls_shutdown(t->tls);
	shutdown(t->fd, SHUT_WR);
}

void transport_free(struct transport *t)
{
	if (t->tls)
		tls_free(t->tls);
	t->tls = NULL;
}
