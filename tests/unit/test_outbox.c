/* test_outbox.c -- what a turn sends together: order, what comes back, what is recalled; with io_uring and without.
 * room: net */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/list.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/metric.h"
#include "net/outbox.h"
#include "net/uring.h"

struct sender {
	struct letter letter;
	int fd, peer;                      /* records: one for each message */
	unsigned n_returned;
	int error;
	char rest[2 * OUTBOX_MESSAGE_BYTES];
	size_t n_rest;
};

static void take_back(struct letter *l, struct iovec rest, int error)
{
	struct sender *s = CONTAINER(l, struct sender, letter);

	s->n_returned++;
	s->error = error;
	assert_true(rest.iov_len > 0 && s->n_rest + rest.iov_len <= sizeof s->rest);
	memcpy(s->rest + s->n_rest, rest.iov_base, rest.iov_len);
	s->n_rest += rest.iov_len;
}

static void open_sender(struct sender *s, int type)
{
	int fds[2];

	*s = (struct sender){ .letter.returned = take_back };
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	s->fd = fds[0];
	s->peer = fds[1];
}

static void close_sender(struct sender *s)
{
	outbox_recall(&s->letter);
	close(s->fd);
	if (s->peer >= 0)
		close(s->peer);
}

static bool may_put(struct outbox *b, struct sender *s, const char *text)
{
	size_t half = strlen(text) / 2;
	const struct iovec parts[3] = {
		{ (char *)(uintptr_t)text, half }, { NULL, 0 }, { (char *)(uintptr_t)text + half, strlen(text) - half },
	};

	return outbox_put(b, &s->letter, s->fd, parts, 3);
}

static void put(struct outbox *b, struct sender *s, const char *text)
{
	assert_true(may_put(b, s, text));
}

static void expect(const struct sender *s, const char *text)
{
	char buffer[OUTBOX_MESSAGE_BYTES];
	ssize_t n = recv(s->peer, buffer, sizeof buffer, 0);

	if (!text) {
		assert_int_equal(n, -1);
		assert_int_equal(errno, EAGAIN);
		return;
	}
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buffer, text, strlen(text));
}

static int64_t count_of(const char *way)
{
	struct str value = str_of(way);
	struct series *s = metric_series(METRIC_OUTBOX_MESSAGES, &value);
	int64_t n = metric_value(s);

	metric_series_drop(s);
	return n;
}

static bool kernel_has_ring(void)
{
	struct uring *u = uring_new(2);

	uring_free(u);
	return u != NULL;
}

struct fixture {
	struct loop *loop;
	struct outbox *box;
	struct sender a, b, c;
};

static int set_up(void **state, bool ring)
{
	struct fixture *f = mem_alloc(sizeof *f);

	outbox_use_io_uring(ring);
	f->loop = loop_new();
	f->box = outbox_of(f->loop);
	assert_ptr_equal(f->box, outbox_of(f->loop));
	open_sender(&f->a, SOCK_SEQPACKET);
	open_sender(&f->b, SOCK_SEQPACKET);
	open_sender(&f->c, SOCK_SEQPACKET);
	*state = f;
	return 0;
}

static int set_up_ring(void **state)
{
	return set_up(state, true);
}

static int set_up_single(void **state)
{
	return set_up(state, false);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	close_sender(&f->a);
	close_sender(&f->b);
	close_sender(&f->c);
	loop_free(f->loop);
	mem_free(f);
	return 0;
}

static void test_messages_leave_at_the_flush(void **state)
{
	struct fixture *f = *state;

	put(f->box, &f->a, "first");
	put(f->box, &f->b, "second");
	expect(&f->a, NULL);
	assert_false(letter_is_empty(&f->a.letter));
	outbox_flush(f->box);
	assert_true(letter_is_empty(&f->a.letter));
	expect(&f->a, "first");
	expect(&f->b, "second");
	expect(&f->a, NULL);
	outbox_flush(f->box);
	expect(&f->a, NULL);
	assert_int_equal(f->a.n_returned + f->b.n_returned, 0);
}

static void test_neighbours_of_one_sender_become_one_message(void **state)
{
	struct fixture *f = *state;

	put(f->box, &f->a, "one ");
	put(f->box, &f->a, "message");
	outbox_flush(f->box);
	expect(&f->a, "one message");
	expect(&f->a, NULL);
}

/* What comes back of the first would be overtaken by another one. */
static void test_a_sender_has_one_message(void **state)
{
	struct fixture *f = *state;

	put(f->box, &f->a, "1");
	put(f->box, &f->b, "x");
	assert_false(may_put(f->box, &f->a, "2"));
	put(f->box, &f->b, "y");
	outbox_flush(f->box);
	expect(&f->a, "1");
	expect(&f->b, "xy");
	put(f->box, &f->a, "2");
	outbox_flush(f->box);
	expect(&f->a, "2");
}

static void test_a_recalled_message_is_not_sent(void **state)
{
	struct fixture *f = *state;

	put(f->box, &f->a, "keep ");
	put(f->box, &f->b, "drop");
	outbox_recall(&f->b.letter);
	assert_true(letter_is_empty(&f->b.letter));
	outbox_recall(&f->b.letter);
	/* Not behind the hole: they would be one message with it. */
	assert_false(may_put(f->box, &f->a, "this"));
	put(f->box, &f->c, "too");
	outbox_flush(f->box);
	expect(&f->a, "keep ");
	expect(&f->a, NULL);
	expect(&f->b, NULL);
	expect(&f->c, "too");
	assert_int_equal(f->b.n_returned, 0);
}

static void test_recalled_messages_leave_their_room(void **state)
{
	struct fixture *f = *state;
	char text[4001];

	memset(text, 'r', 4000);
	text[4000] = '\0';
	for (int i = 0; i < 100; i++) {
		put(f->box, &f->a, text);
		outbox_recall(&f->a.letter);
		loop_run_once(f->loop, 0);
	}
	/* Beside one that stays. */
	for (int i = 0; i < 100; i++) {
		if (i % 10 == 0) {
			outbox_recall(&f->b.letter);
			put(f->box, &f->b, "stays");
		}
		put(f->box, &f->a, text);
		outbox_recall(&f->a.letter);
	}
	outbox_flush(f->box);
	expect(&f->a, NULL);
	assert_true(letter_is_empty(&f->b.letter));
}

static void test_more_than_fit_are_sent_in_between(void **state)
{
	struct fixture *f = *state;
	struct sender many[80];
	char text[OUTBOX_MESSAGE_BYTES + 1];

	memset(text, 'm', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	for (int i = 0; i < 80; i++) {
		open_sender(&many[i], SOCK_SEQPACKET);
		text[0] = (char)('0' + i % 10);
		put(f->box, &many[i], text);
	}
	outbox_flush(f->box);
	for (int i = 0; i < 80; i++) {
		text[0] = (char)('0' + i % 10);
		expect(&many[i], text);
		expect(&many[i], NULL);
		close_sender(&many[i]);
	}
}

/* Fills the kernel's buffer of this sender, which holds streams here. */
static size_t fill(struct sender *s)
{
	char text[1000];
	size_t n = 0;
	ssize_t sent;

	memset(text, 'f', sizeof text);
	while ((sent = send(s->fd, text, sizeof text, MSG_NOSIGNAL)) > 0)
		n += (size_t)sent;
	assert_int_equal(errno, EAGAIN);
	return n;
}

static void test_what_the_kernel_has_no_room_for_comes_back(void **state)
{
	struct fixture *f = *state;
	struct sender s;
	char text[4001];

	open_sender(&s, SOCK_STREAM);
	memset(text, 't', 4000);
	text[4000] = '\0';
	fill(&s);
	put(f->box, &f->a, "before");
	put(f->box, &s, text);
	put(f->box, &f->b, "after");
	outbox_flush(f->box);
	assert_int_equal(s.n_returned, 1);
	assert_int_equal(s.error, 0);
	assert_int_equal(s.n_rest, 4000);
	expect(&f->a, "before");
	expect(&f->b, "after");
	close_sender(&s);
}

/* TCP takes a part of a message, which streams of the same machine do not. */
static void open_tcp(struct sender *s)
{
	struct sockaddr_storage at = { 0 };
	socklen_t n = sizeof at;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 2048;

	*s = (struct sender){ .letter.returned = take_back };
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &n), 0);
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	assert_int_equal(connect(s->fd, (struct sockaddr *)&at, n), 0);
	s->peer = accept(listener, NULL, NULL);
	assert_true(s->peer >= 0);
	assert_int_equal(fcntl(s->fd, F_SETFL, O_NONBLOCK), 0);
	close(listener);
}

static size_t receive_all(const struct sender *s, char *out, size_t want)
{
	size_t got = 0;

	while (got < want) {
		ssize_t n = recv(s->peer, out + got, want - got, 0);

		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got;
}

static void test_the_rest_of_a_message_comes_back(void **state)
{
	struct fixture *f = *state;
	struct sender s;
	size_t sent = 0, in_kernel;
	char *all = mem_alloc(16u << 20), *back = mem_alloc(16u << 20);

	open_tcp(&s);
	while (s.n_returned == 0 && sent + OUTBOX_MESSAGE_BYTES < (16u << 20)) {
		const struct iovec part = { all + sent, 4093 };

		for (size_t i = 0; i < 4093; i++)
			all[sent + i] = (char)((sent + i) * 31 >> 3);
		put(f->box, &f->a, "a");
		assert_true(outbox_put(f->box, &s.letter, s.fd, &part, 1));
		outbox_flush(f->box);
		expect(&f->a, "a");
		sent += 4093;
	}
	assert_int_equal(s.n_returned, 1);
	assert_int_equal(s.error, 0);
	in_kernel = sent - s.n_rest;
	assert_int_equal(receive_all(&s, back, in_kernel), in_kernel);
	assert_memory_equal(back, all, in_kernel);
	assert_memory_equal(s.rest, all + in_kernel, s.n_rest);
	close_sender(&s);
	mem_free(all);
	mem_free(back);
}

static void test_who_is_gone_is_told_apart(void **state)
{
	struct fixture *f = *state;

	close(f->b.peer);
	f->b.peer = -1;
	put(f->box, &f->a, "to a");
	put(f->box, &f->b, "to nobody");
	put(f->box, &f->c, "to c");
	outbox_flush(f->box);
	assert_int_equal(f->b.n_returned, 1);
	assert_int_equal(f->b.error, EPIPE);
	assert_int_equal(f->b.n_rest, strlen("to nobody"));
	expect(&f->a, "to a");
	expect(&f->c, "to c");
	/* By itself too. */
	put(f->box, &f->b, "again");
	outbox_flush(f->box);
	assert_int_equal(f->b.n_returned, 2);
	assert_int_equal(f->b.error, EPIPE);
}

static void test_large_messages_are_not_taken(void **state)
{
	static char text[OUTBOX_MESSAGE_BYTES + 1];
	struct fixture *f = *state;
	const struct iovec part = { text, sizeof text };

	assert_false(outbox_put(f->box, &f->a.letter, f->a.fd, &part, 1));
	assert_true(letter_is_empty(&f->a.letter));
	outbox_flush(f->box);
	expect(&f->a, NULL);
}

struct putting {
	struct task task;
	struct fixture *f;
};

static void put_both(struct task *t)
{
	struct putting *p = CONTAINER(t, struct putting, task);

	put(p->f->box, &p->f->a, "task a");
	put(p->f->box, &p->f->b, "task b");
}

static void test_the_loop_sends_before_it_waits(void **state)
{
	struct fixture *f = *state;
	struct putting p = { .f = f };

	/* Outside of a turn: at the start of the next one. */
	put(f->box, &f->c, "early");
	loop_run_once(f->loop, 0);
	expect(&f->c, "early");
	/* Within one: at its end. */
	task_init(&p.task, put_both);
	loop_defer(f->loop, &p.task);
	loop_run_once(f->loop, 0);
	expect(&f->a, "task a");
	expect(&f->b, "task b");
}

static void test_counts_by_which_way_they_went(void **state)
{
	struct fixture *f = *state;
	int64_t together = count_of("together"), single = count_of("single");
	bool ring = kernel_has_ring();

	put(f->box, &f->a, "1");
	put(f->box, &f->b, "2");
	outbox_flush(f->box);
	put(f->box, &f->c, "3");
	outbox_flush(f->box);
	outbox_use_io_uring(false);
	assert_int_equal(count_of("together") - together + count_of("single") - single, 3);
	assert_true(count_of("together") - together == 0 || ring);
}

static void test_uses_the_ring_that_the_kernel_has(void **state)
{
	struct fixture *f = *state;
	int64_t together = count_of("together");

	if (!kernel_has_ring())
		skip();
	put(f->box, &f->a, "1");
	put(f->box, &f->b, "2");
	outbox_flush(f->box);
	assert_int_equal(count_of("together") - together, 2);
}

/* Whatever failed before: the switch holds for loops that come later too. */
static void test_what_is_forbidden_stays_forbidden(void **state)
{
	struct fixture *f = *state;
	int64_t together = count_of("together");

	for (int i = 0; i < 2; i++) {
		struct loop *l = loop_new();

		put(outbox_of(l), &f->a, "1");
		put(outbox_of(l), &f->b, "2");
		errno = EMFILE;
		outbox_flush(outbox_of(l));
		loop_free(l);
	}
	assert_int_equal(count_of("together"), together);
}

static void test_a_wrong_descriptor_spoils_only_its_own_message(void **state)
{
	char text[] = "text";
	int fds[2];
	struct uring *u = uring_new(4);

	(void)state;
	if (!u)
		skip();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	for (int i = 0; i < 100; i++) {
		struct sending s[3] = {
			{ fds[0], text, 4, 0 }, { 10000 + i, text, 4, 0 }, { fds[0], text, 4, 0 },
		};
		char back[16];

		assert_true(uring_send(u, s, 3));
		assert_int_equal(s[0].result, 4);
		assert_int_equal(s[1].result, -EBADF);
		assert_int_equal(s[2].result, 4);
		assert_int_equal(recv(fds[1], back, sizeof back, 0), 8);
	}
	uring_free(u);
	close(fds[0]);
	close(fds[1]);
}

#define BOTH_WAYS(test) \
	{ #test "_ring", test, set_up_ring, tear_down, NULL }, { #test "_single", test, set_up_single, tear_down, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_WAYS(test_messages_leave_at_the_flush),
		BOTH_WAYS(test_neighbours_of_one_sender_become_one_message),
		BOTH_WAYS(test_a_sender_has_one_message),
		BOTH_WAYS(test_recalled_messages_leave_their_room),
		BOTH_WAYS(test_a_recalled_message_is_not_sent),
		BOTH_WAYS(test_more_than_fit_are_sent_in_between),
		BOTH_WAYS(test_what_the_kernel_has_no_room_for_comes_back),
		BOTH_WAYS(test_the_rest_of_a_message_comes_back),
		BOTH_WAYS(test_who_is_gone_is_told_apart),
		BOTH_WAYS(test_large_messages_are_not_taken),
		BOTH_WAYS(test_the_loop_sends_before_it_waits),
		BOTH_WAYS(test_counts_by_which_way_they_went),
		{ "uses_the_ring", test_uses_the_ring_that_the_kernel_has, set_up_ring, tear_down, NULL },
		{ "stays_forbidden", test_what_is_forbidden_stays_forbidden, set_up_single, tear_down, NULL },
		cmocka_unit_test(test_a_wrong_descriptor_spoils_only_its_own_message),
	};
	int failed;

	clock_update();
	metric_start(1);
	metric_thread(0);
	outbox_metrics();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	metric_stop();
	return failed;
}
