#include "net/redis_parse.h"
#include <stdlib.h>

enum { NUMBER_MAX = 64 };                 /* bytes of a line that is a number */

/* What a reply may begin with. */
enum form { LINE, NUMBER, BLOB, ITEMS, PAIRS, NOT_A_REPLY };

static enum form form_of(char c)
{
	switch (c) {
	case '+': case '-':
		return LINE;
	case ':': case ',': case '#': case '_': case '(':
		return NUMBER;
	case '$': case '!': case '=':
		return BLOB;
	case '*': case '~': case '>':
		return ITEMS;
	case '%': case '|':
		return PAIRS;
	default:
		return NOT_A_REPLY;
	}
}

/* The line that begins at `at`, without its type and CR LF. */
static enum redis_scanned find_line(struct redis_scan *s, struct str in, size_t most, struct str *line)
{
	size_t from = s->looked > s->at ? s->looked : s->at;
	const char *end = from < in.n ? memchr(in.p + from, '\n', in.n - from) : NULL;

	if (!end) {
		s->looked = in.n;
		return in.n - s->at > most + 2 ? REDIS_BAD : REDIS_MORE;    /* its type and CR */
	}
	*line = (struct str){ in.p + s->at + 1, (size_t)(end - in.p) - s->at - 1 };
	if (line->n == 0 || line->p[line->n - 1] != '\r' || line->n - 1 > most)
		return REDIS_BAD;
	line->n--;
	return REDIS_WHOLE;
}

/* -1 in `n` for a null of RESP2. */
static bool read_length(struct str line, int64_t *n)
{
	uint64_t v;

	if (str_equal(line, STR("-1"))) {
		*n = -1;
		return true;
	}
	if (!str_to_u64(line, REDIS_REPLY_MAX, &v))
		return false;
	*n = (int64_t)v;
	return true;
}

static bool read_integer(struct str line, int64_t *out)
{
	bool is_negative = line.n > 0 && line.p[0] == '-', is_signed = is_negative || (line.n > 0 && line.p[0] == '+');
	uint64_t v;

	if (is_signed)
		line = (struct str){ line.p + 1, line.n - 1 };
	if (!str_to_u64(line, (uint64_t)INT64_MAX + is_negative, &v))
		return false;
	*out = (int64_t)(is_negative ? -v : v);
	return true;
}

/* Digits, sign, point, exponent, and the words of RESP3: nothing else that strtod() would take. */
static bool read_double(struct str line, double *out)
{
	char text[NUMBER_MAX + 1], *end;

	if (line.n == 0 || line.n > NUMBER_MAX)
		return false;
	for (size_t i = 0; i < line.n; i++)
		if (!memchr("0123456789+-.eEinfa", line.p[i], 19))
			return false;
	memcpy(text, line.p, line.n);
	text[line.n] = '\0';
	*out = strtod(text, &end);
	return *end == '\0';
}

static bool is_number(char type, struct str line)
{
	int64_t integer;
	double real;

	switch (type) {
	case ':':
		return read_integer(line, &integer);
	case ',':
		return read_double(line, &real);
	case '#':
		return line.n == 1 && (line.p[0] == 't' || line.p[0] == 'f');
	case '_':
		return line.n == 0;
	default:                           /* a big number stays text */
		for (size_t i = 0; i < line.n; i++)
			if ((line.p[i] < '0' || line.p[i] > '9') && !(i == 0 && line.n > 1 && line.p[i] == '-'))
				return false;
		return line.n > 0;
	}
}

/* One item of the open level is there, and of those that it completes. True: so is the reply. */
static bool complete(struct redis_scan *s)
{
	while (s->depth > 0) {
		if (--s->left[s->depth] > 0)
			return false;
		/* An attribute is no item: what it describes follows. */
		if (s->is_attribute[s->depth--])
			return false;
	}
	return true;
}

static enum redis_scanned open_level(struct redis_scan *s, char type, struct str line, bool *is_done)
{
	bool is_null = str_equal(line, STR("-1"));
	int64_t n;

	if (!read_length(line, &n) || (is_null && type != '*') || n > REDIS_ITEMS_MAX)
		return REDIS_BAD;
	if (type == '>') {
		if (s->depth > 0 || n == 0)
			return REDIS_BAD;
		s->is_push = true;
	}
	n *= form_of(type) == PAIRS ? 2 : 1;
	*is_done = false;
	if (n <= 0) {
		*is_done = type == '|' ? false : complete(s);
		return REDIS_WHOLE;
	}
	if (s->depth == REDIS_DEPTH_MAX)
		return REDIS_BAD;
	s->depth++;
	s->left[s->depth] = (uint32_t)n;
	s->is_attribute[s->depth] = type == '|';
	return REDIS_WHOLE;
}

static enum redis_scanned take_blob(struct redis_scan *s, struct str in, struct str line, bool *is_done)
{
	size_t begin = (size_t)(line.p + line.n - in.p) + 2;
	char type = in.p[s->at];
	int64_t n;

	if (!read_length(line, &n) || (n < 0 && type != '$') || (type == '=' && n < 4))
		return REDIS_BAD;
	if (n < 0) {
		s->at = begin;
		*is_done = complete(s);
		return REDIS_WHOLE;
	}
	s->needs = begin + (size_t)n + 2;
	if (s->needs > REDIS_REPLY_MAX)
		return REDIS_BAD;
	if (in.n < s->needs)
		return REDIS_MORE;
	if (memcmp(in.p + s->needs - 2, "\r\n", 2) != 0 || (type == '=' && in.p[begin + 3] != ':'))
		return REDIS_BAD;
	s->at = s->needs;
	*is_done = complete(s);
	return REDIS_WHOLE;
}

/* One element, or the head of an aggregate. */
static enum redis_scanned take_one(struct redis_scan *s, struct str in, bool *is_done)
{
	char type = in.p[s->at];
	enum form form = form_of(type);
	enum redis_scanned found;
	struct str line;

	if (form == NOT_A_REPLY)
		return REDIS_BAD;
	found = find_line(s, in, form == LINE ? REDIS_LINE_MAX : NUMBER_MAX, &line);
	if (found != REDIS_WHOLE)
		return found;
	if (form == BLOB)
		return take_blob(s, in, line, is_done);
	if (form == NUMBER && !is_number(type, line))
		return REDIS_BAD;
	s->at = (size_t)(line.p + line.n - in.p) + 2;
	if (form == ITEMS || form == PAIRS)
		return open_level(s, type, line, is_done);
	*is_done = complete(s);
	return REDIS_WHOLE;
}

enum redis_scanned redis_scan(struct redis_scan *s, struct str in)
{
	bool is_done = false;

	while (s->at < in.n) {
		size_t before = s->at;
		enum redis_scanned found = take_one(s, in, &is_done);

		if (found != REDIS_WHOLE)
			return found;
		if (s->at > before && ++s->items > REDIS_ITEMS_MAX)
			return REDIS_BAD;
		if (s->at > REDIS_REPLY_MAX)
			return REDIS_BAD;
		if (is_done)
			return REDIS_WHOLE;
	}
	return in.n > REDIS_REPLY_MAX ? REDIS_BAD : REDIS_MORE;
}

/* ---------- trees ---------- */

struct reader {
	struct arena *arena;
	const char *p, *end;
};

static void read_reply(struct reader *r, struct redis_reply *out);

static struct str take_line(struct reader *r)
{
	const char *end = memchr(r->p, '\n', (size_t)(r->end - r->p));
	struct str line = { r->p, (size_t)(end - r->p) - 1 };

	r->p = end + 1;
	return line;
}

static void read_items(struct reader *r, struct redis_reply *out, size_t n)
{
	struct redis_reply *items = n ? NEW_N(r->arena, struct redis_reply, n) : NULL;

	out->type = REDIS_ARRAY;
	out->n = n;
	out->items = items;
	for (size_t i = 0; i < n; i++)
		read_reply(r, &items[i]);
}

static void read_blob(struct reader *r, struct redis_reply *out, char type, int64_t n)
{
	if (n < 0) {
		out->type = REDIS_NIL;
		return;
	}
	out->type = type == '!' ? REDIS_ERROR : REDIS_STRING;
	out->text = (struct str){ r->p, (size_t)n };
	r->p += n + 2;
	if (type == '=')                   /* "txt:" or "mkd:" before the text */
		out->text = (struct str){ out->text.p + 4, out->text.n - 4 };
}

static void read_scalar(struct redis_reply *out, char type, struct str line)
{
	out->text = line;
	switch (type) {
	case ':':
		out->type = REDIS_INTEGER;
		BUG_ON(!read_integer(line, &out->integer));
		break;
	case ',':
		out->type = REDIS_DOUBLE;
		BUG_ON(!read_double(line, &out->real));
		break;
	case '#':
		out->type = REDIS_BOOL;
		out->integer = line.p[0] == 't';
		break;
	case '_':
		out->type = REDIS_NIL;
		break;
	default:
		out->type = type == '-' ? REDIS_ERROR : REDIS_STRING;
		break;
	}
}

static void read_reply(struct reader *r, struct redis_reply *out)
{
	char type = *r->p++;
	struct str line = take_line(r);
	struct redis_reply ignored;
	int64_t n = 0;

	while (type == '|') {
		BUG_ON(!read_length(line, &n));
		ignored = (struct redis_reply){ 0 };
		read_items(r, &ignored, (size_t)n * 2);
		type = *r->p++;
		line = take_line(r);
	}
	switch (form_of(type)) {
	case BLOB:
		BUG_ON(!read_length(line, &n));
		read_blob(r, out, type, n);
		break;
	case ITEMS:
	case PAIRS:
		BUG_ON(!read_length(line, &n));
		if (n < 0)
			out->type = REDIS_NIL;
		else
			read_items(r, out, form_of(type) == PAIRS ? (size_t)n * 2 : (size_t)n);
		break;
	default:
		read_scalar(out, type, line);
		break;
	}
}

const struct redis_reply *redis_read(struct arena *a, struct str in)
{
	struct redis_reply *out = NEW(a, struct redis_reply);
	struct reader r = { a, in.p, in.p + in.n };

	read_reply(&r, out);
	return out;
}

static void copy_into(struct arena *a, struct redis_reply *out, const struct redis_reply *r)
{
	struct redis_reply *items = NULL;

	*out = *r;
	out->text = r->text.p ? arena_copy(a, r->text) : r->text;
	if (r->n > 0)
		items = NEW_N(a, struct redis_reply, r->n);
	for (size_t i = 0; i < r->n; i++)
		copy_into(a, &items[i], &r->items[i]);
	out->items = items;
}

const struct redis_reply *redis_reply_copy(struct arena *a, const struct redis_reply *r)
{
	struct redis_reply *out;

	if (!r)
		return NULL;
	out = NEW(a, struct redis_reply);
	copy_into(a, out, r);
	return out;
}

/* ---------- slots ---------- */

/* CRC-16 of XMODEM: polynomial 0x1021, begins with 0. */
static uint16_t crc16(struct str s)
{
	unsigned crc = 0;

	for (size_t i = 0; i < s.n; i++) {
		crc ^= (unsigned)(unsigned char)s.p[i] << 8;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1;
	}
	return (uint16_t)crc;
}

unsigned redis_slot(struct str key)
{
	size_t open = str_find(key, '{');

	if (open < key.n) {
		struct str rest = { key.p + open + 1, key.n - open - 1 };
		size_t shut = str_find(rest, '}');

		if (shut > 0 && shut < rest.n)
			key = (struct str){ rest.p, shut };
	}
	return crc16(key) & 16383;
}
