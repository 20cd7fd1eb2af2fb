/*
 * relay.c -- the floor of a gateway's cost: bytes go from a client to an upstream and back, and nobody looks at them.
 *
 *     relay PORT UPSTREAM_PORT
 *
 * One thread, one upstream connection for each client, descriptors registered once and edge-triggered: two receives for
 * an exchange, and the sends of a turn together through io_uring where it is there, as in sluice. What a gateway costs
 * beyond this is its own; what this costs is TCP. Nothing is kept for a peer that does not read, so it is good for
 * requests and answers of some kilobytes only.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 32768
#define EVENTS_MAX 256
#define DIAL_TRIES_MAX 2000
#define SENDS_MAX 32

static int other[DESCRIPTORS_MAX];      /* the other side of a connection, 0 = none */
static char buffer[262144];
static size_t used;                     /* of it, by sends that wait */
static struct {
	int fd;
	unsigned at, n;                 /* buffer[at .. at + n) */
} sends[SENDS_MAX];
static unsigned n_sends;
static struct io_uring ring;
static bool has_ring;
static int loop;

static struct sockaddr_in address_of(const char *port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int make_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;
	if (fd < 0 || fd >= DESCRIPTORS_MAX || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on))
		err(1, "socket");
	return fd;
}

static void watch(int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll_ctl");
}

/* The load is upstream too, and may begin to listen a moment after its first connection. */
static int dial(const struct sockaddr_in *upstream)
{
	int fd = make_socket();
	for (int i = 0; connect(fd, (const struct sockaddr *)upstream, sizeof *upstream); i++) {
		if (errno != ECONNREFUSED || i == DIAL_TRIES_MAX)
			err(1, "connect");
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return fd;
}

static void take_client(int listener, const struct sockaddr_in *upstream)
{
	int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (client < 0 || client >= DESCRIPTORS_MAX)
		err(1, "accept");
	int server = dial(upstream);
	other[client] = server;
	other[server] = client;
	watch(client, EPOLLIN | EPOLLRDHUP | EPOLLET);
	watch(server, EPOLLIN | EPOLLRDHUP | EPOLLET);
}

static void end_pair(int fd)
{
	int second = other[fd];
	other[fd] = other[second] = 0;
	close(fd);
	close(second);
}

static void settle(unsigned i, ssize_t sent)
{
	if (sent != (ssize_t)sends[i].n && other[sends[i].fd])
		end_pair(sends[i].fd);
}

static void send_together(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
		io_uring_prep_send(entry, sends[i].fd, buffer + sends[i].at, sends[i].n, MSG_DONTWAIT | MSG_NOSIGNAL);
		io_uring_sqe_set_data64(entry, i);
	}
	if (io_uring_submit(&ring) != (int)n)
		errx(1, "io_uring took less than %u sends", n);
	for (unsigned i = 0; i < n; i++) {
		struct io_uring_cqe *result;
		if (io_uring_wait_cqe(&ring, &result))
			errx(1, "io_uring_wait_cqe");
		settle((unsigned)io_uring_cqe_get_data64(result), result->res);
		io_uring_cqe_seen(&ring, result);
	}
}

static void send_all(void)
{
	unsigned n = n_sends;
	used = n_sends = 0;
	if (n > 1 && has_ring)
		send_together(n);
	else
		for (unsigned i = 0; i < n; i++)
			settle(i, send(sends[i].fd, buffer + sends[i].at, sends[i].n, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void pass_on(int fd)
{
	if (n_sends == SENDS_MAX || used > sizeof buffer / 2)
		send_all();
	ssize_t n = recv(fd, buffer + used, sizeof buffer - used, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		send_all();             /* descriptors of sends that wait are not to become others' */
		end_pair(fd);
		return;
	}
	sends[n_sends].fd = other[fd];
	sends[n_sends].at = (unsigned)used;
	sends[n_sends++].n = (unsigned)n;
	used += (size_t)n;
}

int main(int count, char **words)
{
	if (count != 3)
		errx(2, "usage: relay PORT UPSTREAM_PORT");
	struct sockaddr_in own = address_of(words[1]), upstream = address_of(words[2]);
	int listener = make_socket();
	if (bind(listener, (const struct sockaddr *)&own, sizeof own) || listen(listener, 4096))
		err(1, "port %s", words[1]);
	has_ring = io_uring_queue_init(SENDS_MAX, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) == 0;
	if (has_ring)
		io_uring_register_ring_fd(&ring);
	loop = epoll_create1(EPOLL_CLOEXEC);
	watch(listener, EPOLLIN);
	for (;;) {
		struct epoll_event events[EVENTS_MAX];
		int n = epoll_wait(loop, events, EVENTS_MAX, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == listener)
				take_client(listener, &upstream);
			else if (other[fd])
				pass_on(fd);
		}
		send_all();
	}
}
