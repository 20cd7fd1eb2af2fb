/*
 * fuzz_h1_chunk.c -- chunked bodies: the decoded bytes, the verdict and the end must be the same in one piece and in
 * pieces whose sizes the first input byte chooses.
 */
/* room: http */
#include <stdlib.h>
#include "http/h1.h"

struct outcome {
	enum h1_result result;
	enum h1_fault fault;
	size_t used, n;
	char *data;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct outcome decode(const char *wire, size_t n, size_t step)
{
	struct outcome o = { .result = H1_MORE, .data = malloc(n + 1) };
	struct h1_body body;

	h1_body_init(&body, FRAMING_CHUNKED, 0);
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
	free(whole.data);
	free(pieces.data);
	return 0;
}
