/*
 * fuzz_h1_chunk.c -- chunked bodies: the decoded bytes, the trailers, the verdict and the end must be the same in one
 * piece and in pieces whose sizes the first input byte chooses. Trailers that were written again are read as they were.
 */
/* room: http */
#include <stdlib.h>
#include "http/h1.h"
#include "http/trailers.h"

struct outcome {
	enum h1_result result;
	enum h1_fault fault;
	size_t used, n;
	char *data;
	struct arena arena;               /* trailers live here */
	struct message *trailers;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct outcome decode(const char *wire, size_t n, size_t step);

static void compare(const struct message *a, const struct message *b)
{
	BUG_ON(!a != !b || (a && a->n != b->n));
	for (unsigned i = 0; a && i < a->n; i++)
		BUG_ON(!str_equal(a->headers[i].name, b->headers[i].name) ||
		       !str_equal(a->headers[i].value, b->headers[i].value));
}

static void check_written(const struct message *trailers)
{
	size_t bound = h1_last_chunk_bound(trailers), n;
	char *text = malloc(bound);
	struct outcome again;

	n = h1_write_last_chunk(trailers, text);
	BUG_ON(n > bound);
	again = decode(text, n, n);
	/* Longer by a blank after each colon, so it may be over the limit now. */
	if (again.result == H1_DONE)
		compare(trailers, again.trailers);
	arena_free(&again.arena);
	free(again.data);
	free(text);
}

static struct outcome decode(const char *wire, size_t n, size_t step)
{
	struct outcome o = { .result = H1_MORE, .data = malloc(n + 1) };
	struct h1_body body;

	h1_body_init(&body, FRAMING_CHUNKED, 0);
	body.arena = &o.arena;
	body.keep_underscores = true;
	while (o.used < n && o.result == H1_MORE) {
		size_t piece_size = n - o.used < step ? n - o.used : step, used, size;
		char *piece = malloc(piece_size);

		memcpy(piece, wire + o.used, piece_size);
		o.result = h1_body_decode(&body, piece, piece_size, &used, &size);
		BUG_ON(used > piece_size || size > used || (o.result == H1_MORE && used != piece_size));
		memcpy(o.data + o.n, piece, size);
		o.n += size;
		o.used += used;
		free(piece);
	}
	o.fault = body.fault;
	o.trailers = body.trailers;
	BUG_ON(o.trailers && o.result != H1_DONE);
	BUG_ON((o.result == H1_BAD) != (body.fault != H1_FAULT_NONE));
	BUG_ON(h1_body_is_done(&body) != (o.result == H1_DONE));
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, pieces;

	if (size == 0)
		return 0;
	whole = decode((const char *)data + 1, size - 1, size);
	pieces = decode((const char *)data + 1, size - 1, data[0] % 31 + 1U);
	BUG_ON(whole.result != pieces.result || whole.fault != pieces.fault || whole.used != pieces.used);
	BUG_ON(whole.n != pieces.n || memcmp(whole.data, pieces.data, whole.n) != 0);
	compare(whole.trailers, pieces.trailers);
	if (whole.trailers)
		check_written(whole.trailers);
	arena_free(&whole.arena);
	arena_free(&pieces.arena);
	free(whole.data);
	free(pieces.data);
	return 0;
}
