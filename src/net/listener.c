#include "net/listener.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>
#include "net/handover.h"

#define BACKLOG 4096

static bool switch_on(int fd, int level, int option)
{
	int one = 1;

	return setsockopt(fd, level, option, &one, sizeof one) == 0;
}

/* Closes and keeps errno as the failed call left it. */
static int give_up(int fd)
{
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return -1;
}

static int new_socket(const struct addr *a)
{
	return socket(a->storage.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
}

/* A bound socket. SO_REUSEADDR only steps over connections that linger in TIME_WAIT; a listener still refuses us. */
static int open_bound(const struct addr *at, bool reuse_port)
{
	int fd = new_socket(at);

	if (fd < 0 || !switch_on(fd, SOL_SOCKET, SO_REUSEADDR))
		return give_up(fd);
	if (reuse_port && !switch_on(fd, SOL_SOCKET, SO_REUSEPORT))
		return give_up(fd);
	if (at->storage.any.sa_family == AF_INET6 && !switch_on(fd, IPPROTO_IPV6, IPV6_V6ONLY))
		return give_up(fd);
	if (bind(fd, &at->storage.any, at->length) != 0)
		return give_up(fd);
	return fd;
}

static bool refuse(const struct addr *at, struct problem *why)
{
	int error = errno;
	char text[ADDR_TEXT];
	const char *hint = "";

	addr_print(at, text);
	if (error == EADDRINUSE)
		hint = "; choose another port or stop what uses it";
	if (error == EACCES)
		hint = "; ports below 1024 need the capability CAP_NET_BIND_SERVICE";
	if (error == EADDRNOTAVAIL)
		hint = "; the address belongs to no interface of this host";
	return problem_of(why, PROBLEM_INTERNAL, "", "cannot listen on %s: %s%s", text, strerrordesc_np(error), hint);
}

int listener_open(const struct addr *at, bool reuse_port, struct problem *why)
{
	int fd = handover_take(at);

	if (fd < 0) {
		fd = open_bound(at, reuse_port);
		if (fd >= 0 && listen(fd, BACKLOG) != 0)
			fd = give_up(fd);
	}
	/* Accepted connections inherit it, so that it costs them no call. */
	if (fd >= 0 && !switch_on(fd, IPPROTO_TCP, TCP_NODELAY))
		fd = give_up(fd);
	if (fd < 0)
		refuse(at, why);
	return fd;
}

bool listener_probe(const struct addr *at, struct problem *why)
{
	if (handover_has(at))
		return true;
	int fd = open_bound(at, false);

	/* Two sockets that are bound but do not listen get along; listen() tells them apart. */
	if (fd >= 0 && listen(fd, 1) != 0)
		fd = give_up(fd);
	if (fd < 0)
		return refuse(at, why);
	close(fd);
	return true;
}

struct addr addr_of_socket(int fd)
{
	struct addr a;

	memset(&a, 0, sizeof a);
	a.length = sizeof a.storage;
	if (getsockname(fd, &a.storage.any, &a.length) != 0)
		a.length = 0;
	return a;
}

int addr_accept(int listener, struct addr *peer)
{
	memset(peer, 0, sizeof *peer);
	peer->length = sizeof peer->storage;
	return accept4(listener, &peer->storage.any, &peer->length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int addr_connect(const struct addr *to)
{
	int fd = new_socket(to);

	if (fd < 0 || !switch_on(fd, IPPROTO_TCP, TCP_NODELAY))
		return give_up(fd);
	if (connect(fd, &to->storage.any, to->length) != 0 && errno != EINPROGRESS)
		return give_up(fd);
	return fd;
}

int addr_connect_error(int fd)
{
	int error = 0;
	socklen_t n = sizeof error;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 ? error : errno;
}
