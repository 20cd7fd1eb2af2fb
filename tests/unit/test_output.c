/* test_output.c -- what is posted and what is sent on one connection, in its order, whatever the kernel takes.
 * room: http */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/list.h"
#include "core/loop.h"
#include "core/mem.h"
#include "http/output.h"

enum { PIECE = 4000 };

struct end {
	struct output out;
	struct transport transport;
	int peer;
	size_t filled;                     /* bytes in the kernel before those of the test */
	char got[8 * PIECE];
	size_t n_got;
};

static struct loop *loop;
static struct outbox *box;
static struct end a, b;

static void take_back(struct letter *l, struct iovec rest, int error)
{
	assert_int_equal(error, 0);
	output_append(CONTAINER(l, struct output, letter), &rest, 1);
}

static void open_end(struct end *e)
{
	int fds[2];

	*e = (struct end){ .out.letter.returned = take_back };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	e->transport.fd = fds[0];
	e->peer = fds[1];
}

static int start(void **state)
{
	(void)state;
	loop = loop_new();
	box = outbox_of(loop);
	open_end(&a);
	open_end(&b);
	return 0;
}

static int stop(void **state)
{
	struct end *both[] = { &a, &b };

	(void)state;
	for (int i = 0; i < 2; i++) {
		output_free(&both[i]->out);
		close(both[i]->transport.fd);
		close(both[i]->peer);
	}
	loop_free(loop);
	return 0;
}

static enum output_result post(struct end *e, char letter, size_t n)
{
	static char text[2 * OUTBOX_MESSAGE_BYTES];
	struct iovec part = { memset(text, letter, n), n };

	return output_post(&e->out, &e->transport, box, &part, 1);
}

static void fill(struct end *e)
{
	char junk[512] = { 0 };
	ssize_t sent;

	while ((sent = send(e->transport.fd, junk, sizeof junk, MSG_NOSIGNAL)) > 0)
		e->filled += (size_t)sent;
	assert_int_equal(errno, EAGAIN);
}

/* The peer reads what is there. */
static void read_some(struct end *e)
{
	char junk[4096];
	ssize_t n = 0;

	while (e->filled > 0 && (n = recv(e->peer, junk, e->filled < sizeof junk ? e->filled : sizeof junk, 0)) > 0)
		e->filled -= (size_t)n;
	while ((n = recv(e->peer, e->got + e->n_got, sizeof e->got - e->n_got, 0)) > 0)
		e->n_got += (size_t)n;
}

static void expect(const struct end *e, const char *letters)
{
	assert_int_equal(e->n_got, strlen(letters) * PIECE);
	for (size_t i = 0; i < e->n_got; i++)
		assert_int_equal(e->got[i], letters[i / PIECE]);
}

static void test_nothing_overtakes_what_came_back(void **state)
{
	(void)state;
	fill(&a);
	assert_int_equal(post(&a, '1', PIECE), OUTPUT_ALL);
	assert_int_equal(post(&b, 'x', PIECE), OUTPUT_ALL);
	/* Neither can be added to the first: it goes out, comes back, and they wait behind it. */
	assert_int_equal(post(&a, '2', PIECE), OUTPUT_WAITS);
	assert_int_equal(post(&a, '3', PIECE), OUTPUT_WAITS);
	read_some(&a);
	outbox_flush(box);
	read_some(&a);
	assert_int_equal(a.n_got, 0);
	while (output_flush(&a.out, &a.transport) == OUTPUT_WAITS)
		read_some(&a);
	read_some(&a);
	expect(&a, "123");
	read_some(&b);
	expect(&b, "x");
}

static void test_two_messages_that_do_not_fit_together_keep_their_order(void **state)
{
	(void)state;
	assert_int_equal(post(&a, '1', PIECE), OUTPUT_ALL);
	assert_int_equal(post(&a, '2', PIECE), OUTPUT_ALL);
	assert_int_equal(post(&a, '3', PIECE), OUTPUT_ALL);
	outbox_flush(box);
	read_some(&a);
	expect(&a, "123");
}

static void test_large_ones_go_behind_small_ones(void **state)
{
	(void)state;
	assert_int_equal(post(&a, '1', PIECE), OUTPUT_ALL);
	assert_int_equal(post(&a, '2', 2 * PIECE), OUTPUT_ALL);
	assert_int_equal(post(&a, '3', PIECE), OUTPUT_ALL);
	outbox_flush(box);
	read_some(&a);
	expect(&a, "1223");
}

static void test_what_is_freed_is_not_sent(void **state)
{
	(void)state;
	assert_int_equal(post(&a, '1', PIECE), OUTPUT_ALL);
	output_free(&a.out);
	outbox_flush(box);
	read_some(&a);
	expect(&a, "");
	assert_int_equal(post(&a, '2', PIECE), OUTPUT_ALL);
	output_settle(&a.out);
	output_settle(&a.out);
	read_some(&a);
	expect(&a, "2");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_nothing_overtakes_what_came_back),
		CASE(test_two_messages_that_do_not_fit_together_keep_their_order),
		CASE(test_large_ones_go_behind_small_ones),
		CASE(test_what_is_freed_is_not_sent),
	};

	clock_update();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
