/*
 * fuzz_inflate.c -- any bytes that say they are compressed: memory is bounded, and how they are cut changes nothing.
 * The first byte is the encoding, the second the size of the pieces.
 */
/* room: ai */
#include <stddef.h>
#include <stdint.h>
#include "ai/inflate.h"
#include "core/budget.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whether it was read to its end without a fault. */
static bool read_all(struct str encoding, struct str packed, size_t piece, struct sbuf *out)
{
	struct inflate *i = inflate_open(encoding);
	struct str part;
	bool is_good;

	while (packed.n > 0) {
		size_t n = packed.n < piece ? packed.n : piece;

		inflate_give(i, (struct str){ packed.p, n });
		while (inflate_next(i, &part)) {
			BUG_ON(part.n > INFLATE_PART);
			sbuf_add(out, part);
		}
		packed.p += n;
		packed.n -= n;
	}
	is_good = inflate_is_over(i);
	BUG_ON(is_good && inflate_is_broken(i));
	inflate_close(i);
	return is_good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct str encodings[] = { { "gzip", 4 }, { "deflate", 7 }, { "br", 2 } };

	if (size < 2)
		return 0;
	struct str packed = { (const char *)data + 2, size - 2 }, encoding = encodings[data[0] % 3];
	struct sbuf whole = { 0 }, pieces = { 0 };
	bool is_good = read_all(encoding, packed, packed.n, &whole);

	/* What goes on for ever is broken off somewhere: where depends on what was given until then. */
	if (read_all(encoding, packed, data[1] % 16 + 1, &pieces) == is_good && is_good)
		BUG_ON(!str_equal(sbuf_str(&whole), sbuf_str(&pieces)));
	BUG_ON(whole.n > (1 << 20) + INFLATE_PART + INFLATE_RATIO * size);
	BUG_ON(budget.used != 0);
	sbuf_free(&whole);
	sbuf_free(&pieces);
	return 0;
}
