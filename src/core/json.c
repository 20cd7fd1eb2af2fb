/*
 * json.c -- the reader. One pass, no recursion: the open containers stand on a stack of JSON_MAX_DEPTH
 * frames.
 *
 * Newlines can only stand between tokens (strings refuse them), so the line is counted where space is
 * skipped; who wants places in bytes gets no lines, but where something is refused. Duplicate names are
 * looked for when an object closes: pairwise when it is small, through a keyed hash when not.
 */
#include "core/json.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "core/json_scan.h"
#include "core/mem.h"

#define FEW_MEMBERS 16

struct reader {
	struct arena *a;
	const char *p, *end, *line_start;
	unsigned line, depth;
	bool spans;                          /* json_parse_spans: line_start stays the start of the text */
	struct problem *why;
	struct json *open[JSON_MAX_DEPTH];   /* containers not closed yet, outermost first */
};

/* The lines that were not counted, up to `at`. */
static void count_lines(struct reader *r, const char *at)
{
	const char *p = r->line_start;

	if (!r->spans)
		return;
	while ((p = memchr(p, '\n', (size_t)(at - p)))) {
		r->line++;
		r->line_start = ++p;
	}
	r->spans = false;                     /* the text is given up */
}

static bool refuse_at(struct reader *r, const char *at, const char *text)
{
	count_lines(r, at);
	return problem(r->why, "", "line %u, column %zu: %s", r->line, (size_t)(at - r->line_start) + 1, text);
}

/* What is JSON, and more of it than we take. */
static bool refuse_much(struct reader *r, const char *text)
{
	bool spans = r->spans;

	refuse_at(r, r->p, text);
	if (spans)
		r->why->kind = PROBLEM_TOO_LARGE;
	return false;
}

static bool refuse(struct reader *r, const char *text)
{
	return refuse_at(r, r->p, r->p < r->end ? text : "the text ends too early");
}

static void skip_space(struct reader *r)
{
	for (; r->p < r->end; r->p++) {
		if (*r->p == '\n') {
			if (!r->spans) {
				r->line++;
				r->line_start = r->p + 1;
			}
		} else if (*r->p != ' ' && *r->p != '\t' && *r->p != '\r') {
			return;
		}
	}
}

/* The value of a hexadecimal digit, and one; 0: no digit. */
static const uint8_t hex_digits[256] = {
	['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
	['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
	['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* The four digits after "\u", which r->p points at. */
static bool read_hex4(struct reader *r, unsigned *out)
{
	unsigned v = 0;

	for (int i = 0; i < 4; i++, r->p++) {
		unsigned digit = r->p < r->end ? hex_digits[(unsigned char)*r->p] : 0;

		if (digit == 0)
			return refuse(r, "\\u must be followed by four hexadecimal digits");
		v = v << 4 | (digit - 1);
	}
	*out = v;
	return true;
}

static char *put_utf8(char *to, unsigned c)
{
	if (c < 0x80) {
		*to++ = (char)c;
		return to;
	}
	if (c < 0x800) {
		*to++ = (char)(0xc0 | c >> 6);
	} else {
		if (c < 0x10000) {
			*to++ = (char)(0xe0 | c >> 12);
		} else {
			*to++ = (char)(0xf0 | c >> 18);
			*to++ = (char)(0x80 | (c >> 12 & 0x3f));
		}
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
	}
	*to++ = (char)(0x80 | (c & 0x3f));
	return to;
}

/* What is no character: refused, or one that stands for it where other readers would take it. */
static bool read_no_character(struct reader *r, char **to, const char *text)
{
	if (!r->spans)
		return refuse_at(r, r->p - 6, text);
	*to = put_utf8(*to, 0xfffd);
	return true;
}

/* r->p points behind the digits of a high surrogate. */
static bool read_low_surrogate(struct reader *r, unsigned high, char **to)
{
	static const char text[] = "a high surrogate must be followed by a low surrogate";
	const char *after_high = r->p;
	unsigned low;

	if (r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != 'u')
		return read_no_character(r, to, text);
	r->p += 2;
	if (!read_hex4(r, &low))
		return false;
	if (low < 0xdc00 || low > 0xdfff) {
		r->p = after_high;
		return read_no_character(r, to, text);
	}
	*to = put_utf8(*to, 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
	return true;
}

static bool read_unicode(struct reader *r, char **to)
{
	unsigned c;

	if (!read_hex4(r, &c))
		return false;
	if (c == 0)
		return read_no_character(r, to, "\\u0000 is not allowed");
	if (c >= 0xdc00 && c <= 0xdfff)
		return read_no_character(r, to, "a low surrogate must follow a high surrogate");
	if (c >= 0xd800 && c <= 0xdbff)
		return read_low_surrogate(r, c, to);
	*to = put_utf8(*to, c);
	return true;
}

/* r->p points behind the backslash. */
static bool read_escape(struct reader *r, char **to)
{
	static const char known[256] = {
		['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n',
		['r'] = '\r', ['t'] = '\t',
	};
	char c;

	if (r->p >= r->end)
		return refuse(r, "");
	if (*r->p == 'u') {
		r->p++;
		return read_unicode(r, to);
	}
	c = known[(unsigned char)*r->p];
	if (!c)
		return refuse_at(r, r->p - 1, "unknown escape; allowed are \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
	*(*to)++ = c;
	r->p++;
	return true;
}

/*
 * Behind the escapes at p, which points at the first one. Two bytes of each are enough to find the closing quote, but
 * texts of nothing but \uXXXX are common.
 */
static const char *skip_unicode(const char *p, const char *end)
{
	while (end - p >= 6 && p[0] == '\\' && p[1] == 'u' && hex_digits[(unsigned char)p[2]] &&
	       hex_digits[(unsigned char)p[3]] && hex_digits[(unsigned char)p[4]] && hex_digits[(unsigned char)p[5]])
		p += 6;
	return p;
}

/* Moves r->p to the closing quote; *escaped tells whether decoding is needed. Checks everything but the escapes. */
static bool find_string_end(struct reader *r, bool *escaped)
{
	*escaped = false;
	for (;;) {
		const char *behind;

		r->p = json_plain_end(r->p, r->end);
		if (r->p >= r->end)
			return refuse(r, "");
		if (*r->p == '"')
			return true;
		if (*r->p == '\\') {
			*escaped = true;
			behind = r->p;
			if (r->end - r->p >= 2 && r->p[1] == 'u')
				r->p = skip_unicode(r->p, r->end);
			if (r->p == behind)
				r->p += r->end - r->p >= 2 ? 2 : 1;
			continue;
		}
		if ((unsigned char)*r->p < 0x20)
			return refuse(r, "a control byte in a string must be written as an escape");
		behind = json_utf8_end(r->p, r->end);
		if (behind == r->p)
			return refuse(r, "the text is not valid UTF-8");
		r->p = behind;
	}
}

/* A string's text; r->p points behind the opening quote and ends behind the closing one. */
static bool read_string(struct reader *r, bool is_name, struct str *out)
{
	const char *start = r->p, *close;
	char *text, *to;
	bool escaped;

	if (!find_string_end(r, &escaped))
		return false;
	close = r->p;
	if (!escaped) {
		*out = (struct str){ start, (size_t)(close - start) };
		if (!is_name)
			*out = arena_copy(r->a, *out);
		r->p = close + 1;
		return true;
	}
	text = to = arena_take(r->a, (size_t)(close - start) + 1);
	for (r->p = start; r->p < close;) {
		const char *run = memchr(r->p, '\\', (size_t)(close - r->p));
		size_t n = (size_t)((run ? run : close) - r->p);

		memcpy(to, r->p, n);
		to += n;
		r->p += n;
		while (*r->p == '\\') {          /* not the closing quote */
			r->p++;
			if (!read_escape(r, &to))
				return false;
		}
	}
	*to = '\0';
	*out = (struct str){ text, (size_t)(to - text) };
	r->p = close + 1;
	return true;
}

static const char *skip_digits(const char *p, const char *end)
{
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

/* The grammar of a number: moves r->p behind it. */
static bool scan_number(struct reader *r, bool *is_real)
{
	const char *digits;

	*is_real = false;
	if (*r->p == '-')
		r->p++;
	digits = r->p;
	r->p = skip_digits(r->p, r->end);
	if (r->p == digits)
		return refuse(r, "a digit must follow the minus sign");
	if (*digits == '0' && r->p - digits > 1)
		return refuse_at(r, digits, "a number must not start with 0");
	if (r->p < r->end && *r->p == '.') {
		*is_real = true;
		digits = ++r->p;
		r->p = skip_digits(r->p, r->end);
		if (r->p == digits)
			return refuse(r, "a digit must follow the decimal point");
	}
	if (r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
		*is_real = true;
		r->p++;
		if (r->p < r->end && (*r->p == '+' || *r->p == '-'))
			r->p++;
		digits = r->p;
		r->p = skip_digits(r->p, r->end);
		if (r->p == digits)
			return refuse(r, "a digit must follow the exponent sign");
	}
	return true;
}

/* Whether the digits (with sign) are an int64, and which. */
static bool to_int64(struct str raw, int64_t *out)
{
	bool negative = raw.p[0] == '-';
	uint64_t v, max = (uint64_t)INT64_MAX + (negative ? 1 : 0);

	if (negative)
		raw = (struct str){ raw.p + 1, raw.n - 1 };
	if (!str_to_u64(raw, max, &v))
		return false;
	*out = negative ? (int64_t)(0 - v) : (int64_t)v;
	return true;
}

static bool read_number(struct reader *r, struct json *v)
{
	const char *start = r->p, *text;
	char small[64];
	bool is_real;

	if (!scan_number(r, &is_real))
		return false;
	struct str raw = { start, (size_t)(r->p - start) };
	if (!is_real && to_int64(raw, &v->integer)) {
		v->type = JSON_INT;
		return true;
	}
	if (raw.n < sizeof small) {           /* strtod wants a terminated text */
		memcpy(small, raw.p, raw.n);
		small[raw.n] = '\0';
		text = small;
	} else {
		text = arena_copy(r->a, raw).p;
	}
	v->type = JSON_REAL;
	v->string = raw;
	v->real = strtod(text, NULL);
	return isfinite(v->real) || r->spans || refuse_at(r, start, "the number is too large");
}

static bool read_word(struct reader *r, struct json *v)
{
	static const struct { struct str word; enum json_type type; bool boolean; } words[] = {
		{ STR("null"), JSON_NULL, false }, { STR("true"), JSON_BOOL, true }, { STR("false"), JSON_BOOL, false },
	};
	struct str rest = { r->p, (size_t)(r->end - r->p) };

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (str_starts(rest, words[i].word)) {
			v->type = words[i].type;
			v->boolean = words[i].boolean;
			r->p += words[i].word.n;
			return true;
		}
	}
	if (str_starts(rest, STR("\xef\xbb\xbf")))
		return refuse(r, "a byte order mark is not allowed");
	return refuse(r, "expected a value: an object, list, string, number, true, false or null");
}

/* "rules[2].x" for the newest value: the last child of each open container. Long names are cut. */
static void write_path(const struct reader *r, char *out, size_t size)
{
	size_t n = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < r->depth && n < size; i++) {
		const struct json *box = r->open[i];
		char name[JSON_BRIEF];
		int wrote;

		if (box->type == JSON_ARRAY) {
			wrote = snprintf(out + n, size - n, "[%u]", box->n - 1);
		} else {
			json_brief_text(box->last->name, name);
			wrote = snprintf(out + n, size - n, "%s%s", n ? "." : "", name);
		}
		n += wrote > 0 ? (size_t)wrote : 0;
	}
}

/* `second` is the later of two members of the newest open object with one name. */
static bool refuse_duplicate(struct reader *r, struct json *second)
{
	char path[sizeof r->why->field];
	struct json *box = r->open[r->depth - 1];
	bool spans = r->spans;

	box->last = second;                   /* the tree is given up: only the path is wanted */
	write_path(r, path, sizeof path);
	if (r->spans) {
		const char *at = r->line_start + second->at;

		count_lines(r, at);
		second->line = r->line;
		second->column = (unsigned)(at - r->line_start) + 1;
	}
	problem(r->why, path, "line %u, column %u: the member is there twice; leave one", second->line, second->column);
	if (spans)
		r->why->kind = PROBLEM_CONFLICT;
	return false;
}

static struct json *find_duplicate_of_many(const struct json *object)
{
	size_t cap = 64;
	struct json *found = NULL;

	while (cap < (size_t)object->n * 2)
		cap *= 2;
	struct json **slots = mem_alloc(cap * sizeof *slots);
	for (struct json *m = object->child; m && !found; m = m->next) {
		size_t i = str_hash(m->name) & (cap - 1);

		while (slots[i] && !str_equal(slots[i]->name, m->name))
			i = (i + 1) & (cap - 1);
		if (slots[i])
			found = m;
		slots[i] = m;
	}
	mem_free(slots);
	return found;
}

static struct json *find_duplicate(const struct json *object)
{
	if (object->n > FEW_MEMBERS)
		return find_duplicate_of_many(object);
	for (struct json *m = object->child; m; m = m->next)
		for (const struct json *before = object->child; before != m; before = before->next)
			if (str_equal(before->name, m->name))
				return m;
	return NULL;
}

/* Hangs a new node into the newest open container. */
static struct json *new_value(struct reader *r)
{
	struct json *v = NEW(r->a, struct json);
	struct json *box = r->depth ? r->open[r->depth - 1] : NULL;

	v->line = r->line;
	v->column = (unsigned)(r->p - r->line_start) + 1;
	if (box) {
		*(box->last ? &box->last->next : &box->child) = v;
		box->last = v;
		box->n++;
	}
	return v;
}

static bool read_member_name(struct reader *r, struct str *name)
{
	if (r->p >= r->end || *r->p != '"')
		return refuse(r, "expected a member name in double quotes");
	r->p++;
	if (!read_string(r, true, name))
		return false;
	skip_space(r);
	if (r->p >= r->end || *r->p != ':')
		return refuse(r, "expected ':' after the member name");
	r->p++;
	skip_space(r);
	return true;
}

static bool read_scalar(struct reader *r, struct json *v)
{
	char c = *r->p;

	if (c == '"') {
		v->type = JSON_STRING;
		r->p++;
		return read_string(r, false, &v->string);
	}
	return c == '-' || (c >= '0' && c <= '9') ? read_number(r, v) : read_word(r, v);
}

/* One value, or the opening of a container (then r->depth grows). */
static bool read_value(struct reader *r, struct json **out)
{
	struct str name = { NULL, 0 };
	const char *start;

	if (r->depth && r->open[r->depth - 1]->type == JSON_OBJECT && !read_member_name(r, &name))
		return false;
	if (r->p >= r->end)
		return refuse(r, "");
	start = r->p;
	struct json *v = new_value(r);
	v->name = name;
	*out = v;
	if (*start != '{' && *start != '[')
		return read_scalar(r, v);
	if (r->depth == JSON_MAX_DEPTH)
		return refuse_much(r, "more than 64 levels");
	v->type = *start == '{' ? JSON_OBJECT : JSON_ARRAY;
	r->p++;
	r->open[r->depth++] = v;
	return true;
}

static bool is_closing(const struct reader *r)
{
	char close = r->open[r->depth - 1]->type == JSON_OBJECT ? '}' : ']';

	return r->p < r->end && *r->p == close;
}

static bool close_container(struct reader *r)
{
	struct json *box = r->open[r->depth - 1], *twice;

	if (box->type == JSON_OBJECT) {
		twice = find_duplicate(box);
		if (twice)
			return refuse_duplicate(r, twice);
	}
	r->p++;
	r->depth--;
	if (r->spans)
		box->length = (unsigned)(r->p - r->line_start) - box->at;
	return true;
}

/* After a value: closes what closes here and steps over the comma before the next value. */
static bool read_separators(struct reader *r)
{
	while (r->depth) {
		struct json *box = r->open[r->depth - 1];

		skip_space(r);
		if (is_closing(r)) {
			if (!close_container(r))
				return false;
			continue;
		}
		if (box->n == 0)
			return true;
		if (r->p >= r->end || *r->p != ',')
			return refuse(r, box->type == JSON_OBJECT ? "expected ',' or '}' after the member"
			                                          : "expected ',' or ']' after the item");
		r->p++;
		skip_space(r);
		if (is_closing(r))
			return refuse(r, "a comma must not stand before the closing bracket");
		return true;
	}
	return true;
}

/* Behind the first value there is nothing. NULL fills r->why. */
static struct json *finish(struct reader *r, struct json *root)
{
	skip_space(r);
	if (r->p == r->end)
		return root;
	refuse(r, "text after the value");
	return NULL;
}

static struct json *refuse_empty(struct problem *why)
{
	problem(why, "", "line 1, column 1: the text is empty; expected a JSON value");
	return NULL;
}

struct json *json_parse(struct arena *a, struct str text, struct problem *why)
{
	struct reader r = { .a = a, .p = text.p, .end = text.p + text.n, .line_start = text.p, .line = 1, .why = why };
	struct json *root = NULL, *v;

	if (text.n == 0)
		return refuse_empty(why);
	skip_space(&r);
	do {
		if (!read_value(&r, &v))
			return NULL;
		root = root ? root : v;
		if (!read_separators(&r))
			return NULL;
	} while (r.depth);
	return finish(&r, root);
}

struct json *json_parse_spans(struct arena *a, struct str text, size_t nodes_max, struct problem *why)
{
	struct reader r = { .a = a, .p = text.p, .end = text.p + text.n, .line_start = text.p, .line = 1, .spans = true,
		.why = why };
	struct json *root = NULL, *v;

	if (text.n == 0)
		return refuse_empty(why);
	if (text.n > UINT_MAX - 1) {
		problem_of(why, PROBLEM_TOO_LARGE, "", "the text is too long");
		return NULL;
	}
	skip_space(&r);
	do {
		if (nodes_max-- == 0) {
			refuse_much(&r, "too many values");
			return NULL;
		}
		if (!read_value(&r, &v))
			return NULL;
		v->at = v->column - 1;        /* all of the text was one line */
		v->length = (unsigned)(r.p - text.p) - v->at;
		root = root ? root : v;
		if (!read_separators(&r))
			return NULL;
	} while (r.depth);
	return finish(&r, root);
}
