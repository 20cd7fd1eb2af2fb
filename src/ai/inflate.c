#include "ai/inflate.h"
#define ZLIB_CONST                        /* zlib then promises not to write to its input */
#include <brotli/decode.h>
#include <zlib.h>
#include "core/budget.h"
#include "core/mem.h"

#define RATIO_FREE (1024 * 1024)          /* bytes that may come out of whatever came in */
#define SIZE_ROOM 16                      /* before each piece of a decoder's memory: how long it is */

enum method { METHOD_ZLIB, METHOD_RAW_OR_ZLIB, METHOD_BROTLI };

struct inflate {
	enum method method;
	struct str piece;
	z_stream zlib;
	BrotliDecoderState *brotli;
	uint64_t taken, made;
	uint8_t first[2];                 /* of "deflate": they tell whether there is a zlib header */
	uint8_t n_first;
	bool is_open;                     /* zlib is set up */
	bool is_broken, is_over;
	unsigned char out[INFLATE_PART];
};

/* What decoders hold, brotli's window of up to 16 MiB above all, counts in the memory budget. */
static void *take_memory(void *opaque, size_t size)
{
	char *p = mem_alloc(size + SIZE_ROOM);

	(void)opaque;
	memcpy(p, &size, sizeof(size));
	budget_add((int64_t)(size + SIZE_ROOM));
	return p + SIZE_ROOM;
}

static void give_memory(void *opaque, void *p)
{
	char *start = p ? (char *)p - SIZE_ROOM : NULL;
	size_t size;

	(void)opaque;
	if (!start)
		return;
	memcpy(&size, start, sizeof(size));
	budget_add(-(int64_t)(size + SIZE_ROOM));
	mem_free(start);
}

static void *take_zlib_memory(void *opaque, unsigned n, unsigned size)
{
	return take_memory(opaque, (size_t)n * size);
}

static void open_zlib(struct inflate *i, int window_bits)
{
	i->zlib = (z_stream){ .zalloc = take_zlib_memory, .zfree = give_memory };
	BUG_ON(inflateInit2(&i->zlib, window_bits) != Z_OK);
	i->is_open = true;
}

struct inflate *inflate_open(struct str encoding)
{
	bool is_gzip = str_equal_nocase(encoding, STR("gzip")) || str_equal_nocase(encoding, STR("x-gzip"));
	bool is_deflate = str_equal_nocase(encoding, STR("deflate")), is_br = str_equal_nocase(encoding, STR("br"));

	if (!is_gzip && !is_deflate && !is_br)
		return NULL;
	struct inflate *i = MEM_NEW(struct inflate);

	budget_add((int64_t)sizeof(*i));
	i->method = is_br ? METHOD_BROTLI : is_gzip ? METHOD_ZLIB : METHOD_RAW_OR_ZLIB;
	if (is_gzip)
		open_zlib(i, 15 + 16);
	if (is_br) {
		i->brotli = BrotliDecoderCreateInstance(take_memory, give_memory, NULL);
		BUG_ON(!i->brotli);
	}
	return i;
}

void inflate_give(struct inflate *i, struct str piece)
{
	i->piece = piece;
}

/* Servers mean either by "deflate". The two bytes are put in before what follows them. */
static bool tell_deflate(struct inflate *i)
{
	while (i->n_first < 2 && i->piece.n > 0) {
		i->first[i->n_first++] = (uint8_t)*i->piece.p++;
		i->piece.n--;
	}
	if (i->n_first < 2)
		return false;
	bool has_header = (i->first[0] & 15) == Z_DEFLATED && (i->first[0] * 256 + i->first[1]) % 31 == 0;

	open_zlib(i, has_header ? 15 : -15);
	i->zlib.next_in = i->first;
	i->zlib.avail_in = 2;
	i->zlib.next_out = i->out;
	i->zlib.avail_out = sizeof(i->out);
	i->taken += 2;
	int result = inflate(&i->zlib, Z_NO_FLUSH);

	i->is_over = result == Z_STREAM_END;
	i->is_broken = result != Z_OK && !i->is_over;
	return true;
}

static size_t step_zlib(struct inflate *i)
{
	int result;

	/* One gzip stream may follow another. */
	if (i->is_over && i->piece.n > 0) {
		if (i->method != METHOD_ZLIB || inflateReset(&i->zlib) != Z_OK) {
			i->is_broken = true;
			return 0;
		}
		i->is_over = false;
	}
	i->zlib.next_in = (const unsigned char *)i->piece.p;
	i->zlib.avail_in = (unsigned)(i->piece.n < UINT32_MAX ? i->piece.n : UINT32_MAX);
	i->zlib.next_out = i->out;
	i->zlib.avail_out = sizeof(i->out);
	result = inflate(&i->zlib, Z_NO_FLUSH);
	size_t used = (size_t)((const char *)i->zlib.next_in - i->piece.p);

	i->piece.p += used;
	i->piece.n -= used;
	i->taken += used;
	if (result == Z_STREAM_END)
		i->is_over = true;
	else if (result != Z_OK && result != Z_BUF_ERROR)
		i->is_broken = true;
	return sizeof(i->out) - i->zlib.avail_out;
}

static size_t step_brotli(struct inflate *i)
{
	const uint8_t *in = (const uint8_t *)i->piece.p;
	size_t n_in = i->piece.n, n_out = sizeof(i->out);
	uint8_t *out = i->out;

	if (i->is_over) {
		i->is_broken |= i->piece.n > 0;
		return 0;
	}
	BrotliDecoderResult result = BrotliDecoderDecompressStream(i->brotli, &n_in, &in, &n_out, &out, NULL);

	i->taken += i->piece.n - n_in;
	i->piece = (struct str){ i->piece.p + (i->piece.n - n_in), n_in };
	if (result == BROTLI_DECODER_RESULT_ERROR)
		i->is_broken = true;
	else if (result == BROTLI_DECODER_RESULT_SUCCESS)
		i->is_over = true;
	return sizeof(i->out) - n_out;
}

bool inflate_next(struct inflate *i, struct str *part)
{
	size_t n = 0, before;

	if (!i->is_broken && i->method == METHOD_RAW_OR_ZLIB && !i->is_open) {
		if (!tell_deflate(i))
			return false;
		n = i->is_broken ? 0 : sizeof(i->out) - i->zlib.avail_out;
	}
	/* Without input a decoder may still hold output; it ends when a step uses nothing and makes nothing. */
	while (n == 0 && !i->is_broken) {
		before = i->piece.n;
		if (i->is_over && before == 0)
			return false;
		n = i->method == METHOD_BROTLI ? step_brotli(i) : step_zlib(i);
		if (n == 0 && i->piece.n == before)
			return false;
	}
	i->made += n;
	if (i->made > RATIO_FREE && i->made / INFLATE_RATIO > i->taken)
		i->is_broken = true;
	*part = (struct str){ (const char *)i->out, n };
	return n > 0;
}

bool inflate_is_broken(const struct inflate *i)
{
	return i->is_broken;
}

bool inflate_is_over(const struct inflate *i)
{
	return i->is_over && !i->is_broken && i->piece.n == 0;
}

void inflate_close(struct inflate *i)
{
	if (!i)
		return;
	if (i->is_open)
		inflateEnd(&i->zlib);
	if (i->brotli)
		BrotliDecoderDestroyInstance(i->brotli);
	budget_add(-(int64_t)sizeof(*i));
	mem_free(i);
}

bool inflate_all(struct str encoding, struct str body, size_t most, struct sbuf *out)
{
	struct inflate *i = inflate_open(encoding);
	struct str part;
	bool is_good = i != NULL;

	if (!i)
		return false;
	inflate_give(i, body);
	while (is_good && inflate_next(i, &part)) {
		is_good = part.n <= most && out->n <= most - part.n;
		if (is_good)
			sbuf_add(out, part);
	}
	is_good = is_good && inflate_is_over(i);
	inflate_close(i);
	return is_good;
}

void deflate_all(struct str plain, struct sbuf *out)
{
	z_stream zlib = { .zalloc = take_zlib_memory, .zfree = give_memory };
	unsigned char part[4096];
	int result;

	BUG_ON(plain.n > UINT32_MAX);
	BUG_ON(deflateInit2(&zlib, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK);
	zlib.next_in = (const unsigned char *)plain.p;
	zlib.avail_in = (unsigned)plain.n;
	do {
		zlib.next_out = part;
		zlib.avail_out = sizeof part;
		result = deflate(&zlib, Z_FINISH);
		sbuf_add(out, (struct str){ (const char *)part, sizeof part - zlib.avail_out });
	} while (result == Z_OK);
	BUG_ON(result != Z_STREAM_END);
	deflateEnd(&zlib);
}
