#include "net/outbox.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/fault.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/metric.h"
#include "net/uring.h"

/* More than these at once save nothing more, and the first would wait for the last. */
enum { MESSAGES = 32, ROOM_BYTES = 65536 };

struct outbox {
	struct loop_guest guest;
	struct uring *ring;               /* NULL: not made yet, or there is none */
	bool has_no_ring, is_flushing;
	unsigned n;
	size_t used;                      /* of room */
	struct letter *letters[MESSAGES]; /* of the messages */
	struct sending messages[MESSAGES];
	char room[ROOM_BYTES];
};

static atomic_bool may_ring = true;
static struct series *sent_together, *sent_single;

void outbox_use_io_uring(bool allowed)
{
	atomic_store_explicit(&may_ring, allowed, memory_order_relaxed);
}

void outbox_metrics(void)
{
	sent_together = metric_series(METRIC_OUTBOX_MESSAGES, &STR("together"));
	sent_single = metric_series(METRIC_OUTBOX_MESSAGES, &STR("single"));
}

static void count(struct series *s, unsigned n)
{
	if (s)
		metric_add(s, n);
}

static void before_wait(struct loop_guest *g)
{
	outbox_flush(CONTAINER(g, struct outbox, guest));
}

static void release(struct loop_guest *g)
{
	struct outbox *b = CONTAINER(g, struct outbox, guest);

	uring_free(b->ring);
	mem_free(b);
}

struct outbox *outbox_of(struct loop *l)
{
	struct loop_guest *g = loop_guest(l);
	struct outbox *b;

	if (g)
		return CONTAINER(g, struct outbox, guest);
	b = MEM_NEW(struct outbox);
	b->guest = (struct loop_guest){ .before_wait = before_wait, .release = release };
	loop_set_guest(l, &b->guest);
	return b;
}

/* The message before this one is the same sender's: they become one. */
static bool extends(const struct outbox *b, const struct letter *l, size_t n)
{
	const struct sending *last;

	if (b->n == 0 || b->letters[b->n - 1] != l)
		return false;
	last = &b->messages[b->n - 1];
	return (const char *)last->p + last->n == b->room + b->used && b->used + n <= ROOM_BYTES &&
	       last->n + n <= OUTBOX_MESSAGE_BYTES;
}

static void copy(struct outbox *b, const struct iovec *parts, int n)
{
	char *to = b->room + b->used;

	for (int i = 0; i < n; i++)
		if (parts[i].iov_len > 0)
			to = (char *)memcpy(to, parts[i].iov_base, parts[i].iov_len) + parts[i].iov_len;
	b->used = (size_t)(to - b->room);
}

bool outbox_put(struct outbox *b, struct letter *l, int fd, const struct iovec *parts, int n)
{
	size_t size = 0;

	for (int i = 0; i < n; i++)
		size += parts[i].iov_len;
	BUG_ON(b->is_flushing);
	if (size > OUTBOX_MESSAGE_BYTES)
		return false;
	if (extends(b, l, size)) {
		copy(b, parts, n);
		b->messages[b->n - 1].n += size;
		return true;
	}
	if (l->box)
		return false;
	if (b->n == MESSAGES || b->used + size > ROOM_BYTES)
		outbox_flush(b);
	BUG_ON(b->used + size > ROOM_BYTES);
	b->letters[b->n] = l;
	b->messages[b->n++] = (struct sending){ .fd = fd, .p = b->room + b->used, .n = size };
	l->box = b;
	copy(b, parts, n);
	return true;
}

void outbox_recall(struct letter *l)
{
	struct outbox *b = l->box;

	if (!b)
		return;
	BUG_ON(b->is_flushing);
	for (unsigned i = 0; i < b->n; i++)
		if (b->letters[i] == l) {
			b->n--;
			memmove(b->letters + i, b->letters + i + 1, (b->n - i) * sizeof *b->letters);
			memmove(b->messages + i, b->messages + i + 1, (b->n - i) * sizeof *b->messages);
		}
	if (b->n == 0)
		b->used = 0;
	l->box = NULL;
}

static void send_one(struct sending *s)
{
	ssize_t sent;

	do
		sent = syscall(SYS_sendto, s->fd, s->p, s->n, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
	while (sent < 0 && errno == EINTR);
	s->result = sent < 0 ? -errno : (int)sent;
}

/* False: each message is to be sent by itself. */
static bool has_ring(struct outbox *b)
{
	if (b->ring || b->has_no_ring)
		return b->ring != NULL;
	b->has_no_ring = !atomic_load_explicit(&may_ring, memory_order_relaxed);
	if (b->has_no_ring)
		return false;
	b->ring = uring_new(MESSAGES);
	if (b->ring)
		return true;
	b->has_no_ring = true;
	/* What is short at present may be there for another loop; what the kernel refuses one it refuses all. */
	if (errno != EMFILE && errno != ENFILE && errno != ENOMEM)
		outbox_use_io_uring(false);
	log_info("io_uring.unavailable", F_TEXT("why", strerror(errno)),
		 F_TEXT("effect", "messages are sent one by one, which costs more"));
	return false;
}

/* How many messages the ring took care of, which are the first ones. */
static unsigned send_together(struct outbox *b)
{
	unsigned n = 0;

	if (b->n < 2 || !has_ring(b))
		return 0;
	if (uring_send(b->ring, b->messages, b->n))
		return b->n;
	uring_free(b->ring);
	b->ring = NULL;
	b->has_no_ring = true;
	log_warn("io_uring.refused", F_TEXT("effect", "messages are sent one by one from now on"));
	while (n < b->n && b->messages[n].result != SENDING_OPEN)
		n++;
	return n;
}

static void send_all(struct outbox *b)
{
	unsigned together = send_together(b);

	for (unsigned i = 0; i < b->n; i++)
		if (i >= together || UNLIKELY(b->messages[i].result == -EINTR))
			send_one(&b->messages[i]);
	count(sent_together, together);
	count(sent_single, b->n - together);
}

/* Tells the sender if its message did not get through whole. */
static void settle(struct letter *l, const struct sending *s)
{
	size_t sent = s->result > 0 ? (size_t)s->result : 0;
	int error = s->result < 0 && s->result != -EAGAIN ? -s->result : 0;

	l->box = NULL;
	if (UNLIKELY(sent < s->n))
		l->returned(l, (struct iovec){ (char *)(uintptr_t)s->p + sent, s->n - sent }, error);
}

void outbox_flush(struct outbox *b)
{
	if (b->n == 0)
		return;
	send_all(b);
	b->is_flushing = true;
	for (unsigned i = 0; i < b->n; i++)
		settle(b->letters[i], &b->messages[i]);
	b->is_flushing = false;
	b->n = 0;
	b->used = 0;
}
