/*
 * fuzz_h2_head.c -- header blocks (HPACK) of requests and trailers, in frames that are as they should be, cut where the
 * input says. Twice on one connection, so that the second one meets the table that the first one filled.
 *
 *	byte 0: 1 END_STREAM, 2 a body and trailers follow, 4 in CONTINUATION frames, 8 padded
 *	byte 1: where trailers begin, in 1/256 of the rest; byte 2: bytes of a fragment
 */
/* room: http; with: h2_peer.c */
#include <string.h>
#include "core/fault.h"
#include "h2_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { END = 1, TRAILERS = 2, PIECES = 4, PADDED = 8, MOST = 8192 };

struct text {
	uint8_t bytes[65536];
	size_t n;
};
static struct text text;

static void put(const void *p, size_t n)
{
	BUG_ON(text.n + n > sizeof text.bytes);
	if (n > 0)
		memcpy(text.bytes + text.n, p, n);
	text.n += n;
}

static void put_frame(uint8_t type, uint8_t flags, uint8_t stream, const uint8_t *p, size_t n)
{
	const uint8_t head[9] = { 0, (uint8_t)(n >> 8), (uint8_t)n, type, flags, 0, 0, 0, stream };

	put(head, sizeof head);
	put(p, n);
}

/* HEADERS, perhaps with CONTINUATION. */
static void put_block(uint8_t how, uint8_t stream, const uint8_t *p, size_t n, size_t piece)
{
	uint8_t flags = how & END ? 1 : 0;
	static uint8_t padded[MOST + 8];

	if ((how & PADDED) && !(how & PIECES)) {
		padded[0] = 5;
		if (n > 0)
			memcpy(padded + 1, p, n);
		memset(padded + 1 + n, 0, 5);
		put_frame(1, (uint8_t)(flags | 4 | 8), stream, padded, n + 6);
		return;
	}
	if (!(how & PIECES) || n <= piece) {
		put_frame(1, (uint8_t)(flags | 4), stream, p, n);
		return;
	}
	put_frame(1, flags, stream, p, piece);
	for (p += piece, n -= piece; n > piece; p += piece, n -= piece)
		put_frame(9, 0, stream, p, piece);
	put_frame(9, 4, stream, p, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t first, piece;
	uint8_t how;

	if (size < 3 || size > MOST)
		return 0;
	how = data[0];
	piece = data[2] + (size_t)64;
	first = how & TRAILERS ? (size - 3) * data[1] / 256 : size - 3;
	text.n = 0;
	for (uint8_t stream = 1; stream <= 3; stream += 2) {
		put_block(how & TRAILERS ? how & ~END : how, stream, data + 3, first, piece);
		if (!(how & TRAILERS))
			continue;
		put_frame(0, 0, stream, (const uint8_t *)"abc", 3);
		put_block(how | END, stream, data + 3 + first, size - 3 - first, piece);
	}
	h2_peer_serve(text.bytes, text.n);
	return 0;
}
