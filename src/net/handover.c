#include "net/handover.h"
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "core/mem.h"
#include "net/listener.h"

#define MAGIC "sluiceHO"

struct message {
	char magic[8];
	uint32_t version, kind;
};

static int new_socket(const char *path, struct sockaddr_un *at)
{
	*at = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof at->sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(at->sun_path, path, strlen(path) + 1);
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int give_up(int fd)
{
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return -1;
}

/* Made aside and renamed: the name always leads to a socket that is ready, the predecessor's or ours. */
static int listen_aside(const char *path)
{
	struct sockaddr_un at;
	char aside[sizeof at.sun_path + 16];

	snprintf(aside, sizeof aside, "%s.%d", path, (int)getpid());
	unlink(aside);
	int fd = new_socket(aside, &at);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0)
		return give_up(fd);
	if (chmod(aside, 0600) == 0 && listen(fd, 4) == 0 && rename(aside, path) == 0)
		return fd;
	give_up(fd);
	int error = errno;

	unlink(aside);
	errno = error;
	return -1;
}

int handover_listen(const char *path, struct problem *why)
{
	int fd = listen_aside(path);

	if (fd < 0)
		problem_of(why, PROBLEM_INTERNAL, "", "cannot listen at %s: %s", path, strerrordesc_np(errno));
	return fd;
}

int handover_connect(const char *path)
{
	struct sockaddr_un at;
	int fd = new_socket(path, &at);

	if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) != 0)
		return give_up(fd);
	return fd;
}

int handover_accept(int listener)
{
	struct ucred peer = { 0 };
	socklen_t n = sizeof peer;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return -1;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.uid == geteuid())
		return fd;
	errno = EPERM;
	return give_up(fd);
}

/* ---------- messages ---------- */

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(HANDOVER_PIECE * sizeof(int))];
};

bool handover_send(int fd, enum handover_kind kind, const struct handover_sockets *sockets)
{
	struct message m = { .magic = MAGIC, .version = HANDOVER_VERSION, .kind = (uint32_t)kind };
	struct iovec part = { &m, sizeof m };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
	union control control = { 0 };

	if (sockets && sockets->n > 0) {
		packet.msg_control = control.bytes;
		packet.msg_controllen = CMSG_SPACE(sockets->n * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&packet);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sockets->n * sizeof(int));
		memcpy(CMSG_DATA(c), sockets->fds, sockets->n * sizeof(int));
	}
	return sendmsg(fd, &packet, MSG_NOSIGNAL) == (ssize_t)sizeof m;
}

static void take_descriptors(struct msghdr *packet, struct handover_sockets *sockets)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c; c = CMSG_NXTHDR(packet, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		memcpy(sockets->fds, CMSG_DATA(c), n * sizeof(int));
		sockets->n = (unsigned)n;
	}
}

static void close_all(struct handover_sockets *sockets)
{
	for (unsigned i = 0; i < sockets->n; i++)
		close(sockets->fds[i]);
	sockets->n = 0;
}

enum handover_kind handover_receive(int fd, int wait_ms, struct handover_sockets *sockets)
{
	struct handover_sockets none;
	struct message m = { 0 };
	struct iovec part = { &m, sizeof m };
	union control control;
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
				 .msg_controllen = sizeof control.bytes };
	struct pollfd p = { .fd = fd, .events = POLLIN };

	sockets = sockets ? sockets : &none;
	sockets->n = 0;
	if (wait_ms > 0)
		poll(&p, 1, wait_ms);
	ssize_t n = recvmsg(fd, &packet, MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? HANDOVER_NOTHING : HANDOVER_END;
	if (n == 0)
		return HANDOVER_END;
	take_descriptors(&packet, sockets);
	bool is_ours = n == (ssize_t)sizeof m && !(packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
		       memcmp(m.magic, MAGIC, sizeof m.magic) == 0 && m.version == HANDOVER_VERSION &&
		       m.kind >= HANDOVER_ASK && m.kind <= HANDOVER_TAKEN_BACK;

	if (sockets == &none || !is_ours)
		close_all(sockets);
	return is_ours ? (enum handover_kind)m.kind : HANDOVER_GARBAGE;
}

/* ---------- the sockets ---------- */

static bool is_listener(int fd)
{
	int listens = 0;
	socklen_t n = sizeof listens;
	struct addr at = addr_of_socket(fd);

	return (at.storage.any.sa_family == AF_INET || at.storage.any.sa_family == AF_INET6) && at.length > 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens;
}

/*
 * The kernel is asked which they are, so that whoever opens one need not tell. They are closed only when control
 * publishes that, and this is the thread that does.
 */
bool handover_send_listeners(int fd)
{
	struct handover_sockets sockets = { .n = 0 };
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	bool ok = folder != NULL;

	while (ok && (entry = readdir(folder))) {
		int listener = (int)strtol(entry->d_name, NULL, 10);

		if (entry->d_name[0] == '.' || !is_listener(listener))
			continue;
		sockets.fds[sockets.n++] = listener;
		if (sockets.n < HANDOVER_PIECE)
			continue;
		ok = handover_send(fd, HANDOVER_SOCKETS, &sockets);
		sockets.n = 0;
	}
	if (folder)
		closedir(folder);
	if (ok && sockets.n > 0)
		ok = handover_send(fd, HANDOVER_SOCKETS, &sockets);
	return ok && handover_send(fd, HANDOVER_SOCKETS_END, NULL);
}

static struct {
	struct inherited {
		struct addr at;
		int fd;                   /* -1: taken */
	} *list;
	unsigned n, cap;
} inherited;

void handover_inherit(int fd)
{
	if (inherited.n == inherited.cap) {
		inherited.cap = inherited.cap ? inherited.cap * 2 : HANDOVER_PIECE;
		inherited.list = mem_resize(inherited.list, inherited.cap * sizeof *inherited.list);
	}
	inherited.list[inherited.n++] = (struct inherited){ addr_of_socket(fd), fd };
}

static struct inherited *find(const struct addr *at)
{
	for (unsigned i = 0; i < inherited.n; i++)
		if (inherited.list[i].fd >= 0 && addr_equal(&inherited.list[i].at, at))
			return &inherited.list[i];
	return NULL;
}

int handover_take(const struct addr *at)
{
	struct inherited *found = find(at);
	int fd = found ? found->fd : -1;

	if (found)
		found->fd = -1;
	return fd;
}

bool handover_has(const struct addr *at)
{
	return find(at) != NULL;
}

unsigned handover_close_rest(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < inherited.n; i++)
		if (inherited.list[i].fd >= 0) {
			close(inherited.list[i].fd);
			n++;
		}
	mem_free(inherited.list);
	memset(&inherited, 0, sizeof inherited);
	return n;
}
