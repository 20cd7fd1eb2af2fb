/*
 * h1_body.c -- where the bytes of a body are, decoded in place.
 *
 * Chunks run through a small machine, one state per place in the grammar of RFC 9112 7.1, one byte at a time for lines
 * and one move at a time for data:
 *
 *	SIZE ─► [EXTENSION...] ─► SIZE_LF ─► DATA ─► DATA_CR ─► DATA_LF ─► SIZE ...
 *	                                └─ size 0 ─► TRAILER_START ─► TRAILER_NAME ─► TRAILER_VALUE ─► TRAILER_LF ─┐
 *	                                                  ▲   └─ CR ─► END_LF ─► DONE                             │
 *	                                                  └───────────────────────────────────────────────────────┘
 */
#include "http/h1.h"
#include "http/scan.h"
#include "http/trailers.h"

#define SIZE_DIGITS 16
#define LINE_BYTES 4096U                  /* one chunk-size line */
#define EXTENSION_BYTES 16384U            /* all extensions of a message: they carry nothing and cost work */
#define TRAILER_BYTES 8192U

enum state {
	DONE, LENGTH, CLOSE,
	SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF,
	EXTENSION_START, EXTENSION_NAME, EXTENSION_VALUE_START, EXTENSION_VALUE, EXTENSION_QUOTED, EXTENSION_ESCAPE,
	EXTENSION_END,
	TRAILER_START, TRAILER_NAME, TRAILER_VALUE, TRAILER_LF, END_LF,
};

void h1_body_init(struct h1_body *b, enum framing framing, uint64_t content_length)
{
	static const uint8_t first[] = {
		[FRAMING_NONE] = DONE,
		[FRAMING_LENGTH] = LENGTH,
		[FRAMING_CHUNKED] = SIZE,
		[FRAMING_CLOSE] = CLOSE,
	};

	*b = (struct h1_body){ .framing = framing, .state = first[framing] };
	if (framing == FRAMING_LENGTH) {
		b->left = content_length;
		if (content_length == 0)
			b->state = DONE;
	}
}

bool h1_body_is_done(const struct h1_body *b)
{
	return b->state == DONE;
}

static bool refuse(struct h1_body *b, enum h1_fault fault)
{
	b->fault = fault;
	return false;
}

static bool step_to(struct h1_body *b, enum state state)
{
	b->state = (uint8_t)state;
	return true;
}

static bool end_size(struct h1_body *b, char c)
{
	if (b->line_bytes == 0)
		return refuse(b, H1_FAULT_CHUNK_SIZE);
	if (c == '\r')
		return step_to(b, SIZE_LF);
	if (c == ';')
		return step_to(b, EXTENSION_START);
	return refuse(b, c == '\n' ? H1_FAULT_BARE_LF : H1_FAULT_CHUNK_SIZE);
}

static bool step_size(struct h1_body *b, char c)
{
	int digit = scan_hex(c);

	if (digit < 0)
		return end_size(b, c);
	if (b->line_bytes == SIZE_DIGITS)
		return refuse(b, H1_FAULT_CHUNK_SIZE);
	b->line_bytes++;
	b->left = b->left << 4 | (uint64_t)digit;
	return b->left <= INT64_MAX || refuse(b, H1_FAULT_CHUNK_SIZE);
}

/* After the name, an unquoted value or the closing quote. */
static bool end_extension(struct h1_body *b, char c)
{
	if (c == '\r')
		return step_to(b, SIZE_LF);
	if (c == ';')
		return step_to(b, EXTENSION_START);
	return refuse(b, c == '\n' ? H1_FAULT_BARE_LF : H1_FAULT_CHUNK_EXTENSION);
}

static bool step_quoted(struct h1_body *b, char c)
{
	if (!SCAN_IS(c, SCAN_VALUE))
		return refuse(b, c == '\n' ? H1_FAULT_BARE_LF : H1_FAULT_CHUNK_EXTENSION);
	if (b->state == EXTENSION_ESCAPE)
		return step_to(b, EXTENSION_QUOTED);
	if (c == '"')
		return step_to(b, EXTENSION_END);
	return step_to(b, c == '\\' ? EXTENSION_ESCAPE : EXTENSION_QUOTED);
}

static bool step_extension(struct h1_body *b, char c)
{
	bool is_token = SCAN_IS(c, SCAN_TOKEN);

	if (++b->line_bytes > LINE_BYTES || ++b->extension_bytes > EXTENSION_BYTES)
		return refuse(b, H1_FAULT_CHUNK_EXTENSION);
	switch (b->state) {
	case EXTENSION_START:
		if (c == ' ' || c == '\t')
			return true;
		return is_token ? step_to(b, EXTENSION_NAME) : refuse(b, H1_FAULT_CHUNK_EXTENSION);
	case EXTENSION_NAME:
		if (c == '=')
			return step_to(b, EXTENSION_VALUE_START);
		return is_token || end_extension(b, c);
	case EXTENSION_VALUE_START:
		if (c == '"')
			return step_to(b, EXTENSION_QUOTED);
		return is_token ? step_to(b, EXTENSION_VALUE) : refuse(b, H1_FAULT_CHUNK_EXTENSION);
	case EXTENSION_VALUE:
		return is_token || end_extension(b, c);
	case EXTENSION_QUOTED:
	case EXTENSION_ESCAPE:
		return step_quoted(b, c);
	default:
		return end_extension(b, c);
	}
}

static bool end_trailer_name(struct h1_body *b, char c)
{
	if (c != ':')
		return refuse(b, H1_FAULT_TRAILER);
	if (b->name_bytes <= sizeof(b->name) && trailer_is_refused((struct str){ b->name, b->name_bytes }))
		return refuse(b, H1_FAULT_TRAILER);
	b->name_bytes = 0;
	return step_to(b, TRAILER_VALUE);
}

static bool take_trailer_name(struct h1_body *b, char c)
{
	if (!SCAN_IS(c, SCAN_TOKEN))
		return refuse(b, H1_FAULT_TRAILER);
	if (b->name_bytes < sizeof(b->name))
		b->name[b->name_bytes] = c;
	if (b->name_bytes <= sizeof(b->name))
		b->name_bytes++;
	return step_to(b, TRAILER_NAME);
}

/* The last byte of the body. */
static bool end_trailers(struct h1_body *b)
{
	if (b->lines)
		b->trailers = trailer_lines_parse(b->lines, b->arena, b->keep_underscores);
	return step_to(b, DONE);
}

/* Keeps the bytes of the lines, for when all are there. */
static bool keep_trailer(struct h1_body *b, char c)
{
	if (!b->lines)
		b->lines = NEW(b->arena, struct trailer_lines);
	trailer_lines_add(b->lines, b->arena, c);
	return b->lines->fields <= TRAILERS_MAX;
}

static bool step_trailer(struct h1_body *b, char c)
{
	if (++b->line_bytes > TRAILER_BYTES)
		return refuse(b, H1_FAULT_TRAILER);
	if (b->arena && b->state != END_LF && !(b->state == TRAILER_START && c == '\r') && !keep_trailer(b, c))
		return refuse(b, H1_FAULT_TRAILER);
	switch (b->state) {
	case TRAILER_START:
		return c == '\r' ? step_to(b, END_LF) : take_trailer_name(b, c);
	case TRAILER_NAME:
		return SCAN_IS(c, SCAN_TOKEN) ? take_trailer_name(b, c) : end_trailer_name(b, c);
	case TRAILER_VALUE:
		if (c == '\r')
			return step_to(b, TRAILER_LF);
		return SCAN_IS(c, SCAN_VALUE) || refuse(b, H1_FAULT_TRAILER);
	case TRAILER_LF:
		return c == '\n' ? step_to(b, TRAILER_START) : refuse(b, H1_FAULT_BARE_CR);
	default:
		return c == '\n' ? end_trailers(b) : refuse(b, H1_FAULT_BARE_CR);
	}
}

static bool end_size_line(struct h1_body *b, char c)
{
	if (c != '\n')
		return refuse(b, H1_FAULT_BARE_CR);
	b->line_bytes = 0;
	return step_to(b, b->left ? DATA : TRAILER_START);
}

static bool step(struct h1_body *b, char c)
{
	switch (b->state) {
	case SIZE:
		return step_size(b, c);
	case SIZE_LF:
		return end_size_line(b, c);
	case DATA_CR:
		return c == '\r' ? step_to(b, DATA_LF) : refuse(b, H1_FAULT_CHUNK_END);
	case DATA_LF:
		return c == '\n' ? step_to(b, SIZE) : refuse(b, H1_FAULT_CHUNK_END);
	case TRAILER_START:
	case TRAILER_NAME:
	case TRAILER_VALUE:
	case TRAILER_LF:
	case END_LF:
		return step_trailer(b, c);
	default:
		return step_extension(b, c);
	}
}

/* Takes what belongs to the body from n bytes; the state changes when nothing is left. */
static size_t take(struct h1_body *b, size_t n, enum state next)
{
	size_t taken = b->left < n ? (size_t)b->left : n;

	b->left -= taken;
	if (b->left == 0)
		b->state = (uint8_t)next;
	return taken;
}

static enum h1_result decode_chunks(struct h1_body *b, char *p, size_t n, size_t *consumed, size_t *data_size)
{
	size_t at = 0, size = 0;
	bool is_good = true;

	while (at < n && b->state != DONE && is_good) {
		if (b->state == DATA) {
			size_t taken = take(b, n - at, DATA_CR);

			if (size != at)
				memmove(p + size, p + at, taken);
			size += taken;
			at += taken;
		} else {
			is_good = step(b, p[at++]);
		}
	}
	*consumed = at;
	*data_size = size;
	if (!is_good)
		return H1_BAD;
	return b->state == DONE ? H1_DONE : H1_MORE;
}

enum h1_result h1_body_decode(struct h1_body *b, char *p, size_t n, size_t *consumed, size_t *data_size)
{
	*consumed = *data_size = 0;
	if (b->fault)
		return H1_BAD;
	switch (b->state) {
	case DONE:
		return H1_DONE;
	case CLOSE:
		*consumed = *data_size = n;
		return H1_MORE;
	case LENGTH:
		*consumed = *data_size = take(b, n, DONE);
		return b->state == DONE ? H1_DONE : H1_MORE;
	default:
		return decode_chunks(b, p, n, consumed, data_size);
	}
}
