/*
 * fuzz_sse.c -- any bytes: the raw events in their order are the stream, and how it is cut changes nothing.
 * The first byte says how large the pieces are, the second the limit.
 */
/* room: ai */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "ai/sse.h"
#include "core/budget.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
	struct sbuf raw, events;
	bool is_long;
};

static void note(struct reading *r, const struct sse_event *e)
{
	sbuf_add(&r->raw, e->raw);
	if (!e->has_data && !e->type.n && !e->id.n)
		return;
	sbuf_add(&r->events, e->type);
	sbuf_addc(&r->events, '\n');
	sbuf_add(&r->events, e->id);
	sbuf_addc(&r->events, '\n');
	sbuf_add(&r->events, e->data);
	sbuf_addc(&r->events, e->has_data ? '+' : '-');
}

static void read_all(struct reading *r, struct str stream, size_t piece, size_t limit)
{
	struct sse s = { .limit = limit };
	struct sse_event e;

	while (stream.n > 0) {
		size_t n = stream.n < piece ? stream.n : piece;
		char *own = malloc(n);
		enum sse_result result;

		memcpy(own, stream.p, n);
		sse_give(&s, (struct str){ own, n });
		while ((result = sse_next(&s, &e)) == SSE_EVENT)
			note(r, &e);
		if (result == SSE_LONG) {
			r->is_long = true;
			sbuf_add(&r->raw, sse_rest(&s));
		}
		free(own);
		stream.p += n;
		stream.n -= n;
	}
	if (sse_end(&s, &e))
		note(r, &e);
	sse_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct str stream = { (const char *)data + 2, size - 2 };
	size_t limit = data[1] ? data[1] : SSE_EVENT_MAX;
	struct reading whole = { 0 }, pieces = { 0 };

	read_all(&whole, stream, stream.n, limit);
	read_all(&pieces, stream, data[0] % 16 + 1, limit);
	BUG_ON(!str_equal(sbuf_str(&whole.raw), stream) || !str_equal(sbuf_str(&pieces.raw), stream));
	/* A CRLF that is cut leaves its LF to the next event: that one is longer by a byte, and may be too long. */
	if (!whole.is_long && !pieces.is_long)
		BUG_ON(!str_equal(sbuf_str(&whole.events), sbuf_str(&pieces.events)));
	BUG_ON(budget.used != 0);
	sbuf_free(&whole.raw);
	sbuf_free(&whole.events);
	sbuf_free(&pieces.raw);
	sbuf_free(&pieces.events);
	return 0;
}
