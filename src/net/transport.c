#include "net/transport.h"
#include <errno.h>
#include <sys/socket.h>
#include "net/tls.h"

ssize_t transport_receive(struct transport *t, void *p, size_t n)
{
	ssize_t got;

	if (t->tls)
		return tls_receive(t->tls, p, n);
	do
		got = recv(t->fd, p, n, 0);
	while (got < 0 && errno == EINTR);
	return got;
}

ssize_t transport_send(struct transport *t, struct iovec *parts, int n)
{
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = (size_t)n };
	ssize_t sent;

	if (t->tls)
		return tls_send(t->tls, parts, n);
	do
		sent = n == 1 ? send(t->fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL)
			      : sendmsg(t->fd, &m, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent;
}

bool transport_is_drained(const struct transport *t, size_t got, size_t asked)
{
	return t->tls ? tls_is_drained(t->tls) : got < asked;
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
