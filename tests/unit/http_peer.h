/*
 * http_peer.h -- the other end of a connection, for tests of server and client: a loop that is turned by hand, time
 * that stands still until it is moved, and sockets that are spoken to while the loop goes round. Included last:
 * cmocka takes the name fail() for a macro.
 */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/loop.h"
#include "core/mem.h"
#include "net/listener.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define HELPER static __attribute__((unused))   /* not every test needs every one */
#define PATIENCE 3000                     /* turns of at most 1 ms before a test gives up */

static struct loop *loop;
static int64_t now_us;

static void start_loop(void)
{
	now_us = 1000000000;
	clock_set(now_us, 1700000000000);
	loop = loop_new();
}

static void turns(int n)
{
	while (n-- > 0)
		loop_run_once(loop, 0);
}

/* Time goes on by so much, in steps that no timer can miss. */
static void pass_ms(int64_t ms)
{
	for (int64_t step; ms > 0; ms -= step) {
		step = ms < 500 ? ms : 500;
		now_us += step * 1000;
		clock_set(now_us, 1700000000000 + now_us / 1000);
		turns(3);
	}
}

static int listen_any(struct addr *at)
{
	struct problem why;
	struct addr any;

	assert_true(addr_parse(STR("127.0.0.1:0"), &any));
	int fd = listener_open(&any, false, &why);
	assert_true(fd >= 0);
	*at = addr_of_socket(fd);
	return fd;
}

/* No read or write of the test waits, nor does the kernel gather what the test says. */
static void talk_at_once(int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

HELPER int dial_to(const struct addr *to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, &to->storage.any, to->length), 0);
	talk_at_once(fd);
	return fd;
}

static void say_bytes(int fd, const char *p, size_t n)
{
	for (int i = 0; n > 0; i++) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		assert_true(sent > 0 || (sent < 0 && errno == EAGAIN));
		assert_true(i < PATIENCE);
		if (sent > 0) {
			p += sent;
			n -= (size_t)sent;
		}
		loop_run_once(loop, 1);
	}
}

static void say(int fd, const char *text)
{
	say_bytes(fd, text, strlen(text));
	turns(2);
}

static char heard[1 << 16];
static size_t heard_n;

/* Takes what has come. False: the peer closed. */
static bool hear_some(int fd)
{
	ssize_t n = recv(fd, heard + heard_n, sizeof heard - 1 - heard_n, MSG_DONTWAIT);

	if (n < 0 && errno == ECONNRESET)
		heard_n = (size_t)snprintf(heard, sizeof heard, "RESET");
	heard_n += n > 0 ? (size_t)n : 0;
	heard[heard_n] = '\0';
	return n > 0 || (n < 0 && errno == EAGAIN);
}

/* What comes until the text is in it or the peer closes (until = NULL: up to the close). A reset reads as "RESET". */
static const char *hear(int fd, const char *until)
{
	heard_n = 0;
	heard[0] = '\0';
	for (int i = 0; i < PATIENCE; i++) {
		bool is_open = hear_some(fd);

		if (until ? strstr(heard, until) != NULL : !is_open)
			return heard;
		loop_run_once(loop, 1);
	}
	print_error("heard only: %s\n", heard);
	assert_true(false);
	return heard;
}

HELPER bool is_silent(int fd)
{
	char c;

	turns(4);
	return recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

HELPER bool is_closed(int fd)
{
	char c;
	ssize_t n = -1;

	for (int i = 0; i < 20; i++) {
		loop_run_once(loop, 1);
		n = recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK);
		if (n >= 0 || errno != EAGAIN)
			break;
	}
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

HELPER unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}
