#include "http/output.h"
#include <errno.h>
#include <string.h>
#include "core/budget.h"
#include "core/mem.h"

void output_free(struct output *o)
{
	budget_add(-(int64_t)o->cap);
	mem_free(o->p);
	o->p = NULL;
	o->at = o->n = o->cap = 0;
	outbox_recall(&o->letter);
}

static void append(struct output *o, const char *p, size_t n)
{
	if (o->at > 0 && o->n + n > o->cap) {
		memmove(o->p, o->p + o->at, o->n - o->at);
		o->n -= o->at;
		o->at = 0;
	}
	if (o->n + n > o->cap) {
		budget_add(-(int64_t)o->cap);
		o->cap = (o->n + n + 4095) & ~(size_t)4095;
		budget_add((int64_t)o->cap);
		o->p = mem_resize(o->p, o->cap);
	}
	memcpy(o->p + o->n, p, n);
	o->n += n;
}

void output_append(struct output *o, const struct iovec *parts, int n)
{
	for (int i = 0; i < n; i++)
		if (parts[i].iov_len > 0)
			append(o, parts[i].iov_base, parts[i].iov_len);
}

/* Drops the first `sent` bytes of the vector and returns what is left of it. */
static int skip(struct iovec **parts, int n, size_t sent)
{
	while (n > 0 && sent >= (*parts)->iov_len) {
		sent -= (*parts)->iov_len;
		(*parts)++;
		n--;
	}
	if (n > 0) {
		(*parts)->iov_base = (char *)(*parts)->iov_base + sent;
		(*parts)->iov_len -= sent;
	}
	return n;
}

void output_settle(struct output *o)
{
	if (!letter_is_empty(&o->letter))
		outbox_flush(o->letter.box);
}

enum output_result output_post(struct output *o, struct transport *t, struct outbox *box, struct iovec *parts, int n)
{
	if (!output_is_empty(o) || !outbox_put(box, &o->letter, t->fd, parts, n))
		return output_send(o, t, parts, n);
	return OUTPUT_ALL;
}

enum output_result output_send(struct output *o, struct transport *t, struct iovec *parts, int n)
{
	ssize_t sent;

	output_settle(o);
	if (!output_is_empty(o)) {
		output_append(o, parts, n);
		return OUTPUT_WAITS;
	}
	sent = transport_send(t, parts, n);
	if (sent < 0 && errno != EAGAIN)
		return OUTPUT_FAILED;
	n = skip(&parts, n, sent < 0 ? 0 : (size_t)sent);
	if (n == 0)
		return OUTPUT_ALL;
	output_append(o, parts, n);
	return OUTPUT_WAITS;
}

enum output_result output_flush(struct output *o, struct transport *t)
{
	while (!output_is_empty(o)) {
		struct iovec part = { o->p + o->at, o->n - o->at };
		ssize_t sent = transport_send(t, &part, 1);

		if (sent < 0)
			return errno == EAGAIN ? OUTPUT_WAITS : OUTPUT_FAILED;
		o->at += (size_t)sent;
	}
	output_free(o);
	return OUTPUT_ALL;
}
