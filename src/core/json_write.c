/*
 * json_write.c -- trees to text. What is written is always valid JSON, whatever bytes the tree holds.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "core/json.h"
#include "core/json_scan.h"
#include "core/mem.h"

#define BRIEF_BYTES 60

enum style { COMPACT, PRETTY, CANONICAL };

static void write_value(struct sbuf *out, const struct json *v, enum style style, unsigned depth);

bool json_is_whole(const struct json *number, int64_t *out)
{
	/* Doubles from -2^63 up to below 2^63 that have no fraction are int64 exactly. */
	if (number->type == JSON_INT) {
		*out = number->integer;
		return true;
	}
	if (!(number->real >= -0x1p63 && number->real < 0x1p63) || trunc(number->real) < number->real ||
	    trunc(number->real) > number->real)
		return false;
	*out = (int64_t)number->real;
	return true;
}

static void quote_byte(struct sbuf *out, unsigned char c)
{
	static const char shorthand[] = "\b\f\n\r\t\"\\", letter[] = "bfnrt\"\\";
	const char *known = c ? strchr(shorthand, c) : NULL;

	if (known) {
		sbuf_addc(out, '\\');
		sbuf_addc(out, letter[known - shorthand]);
	} else if (c < 0x20) {
		sbuf_addf(out, "\\u%04x", c);
	} else {
		sbuf_addc(out, (char)c);
	}
}

void json_quote(struct sbuf *out, struct str s)
{
	const char *p = s.p, *end = s.n ? s.p + s.n : s.p;

	sbuf_reserve(out, s.n + 2);
	sbuf_addc(out, '"');
	while (p < end) {
		const char *stop = json_plain_end(p, end);
		size_t n;

		if (stop > p)
			sbuf_add(out, (struct str){ p, (size_t)(stop - p) });
		p = stop;
		if (p == end)
			break;
		if ((unsigned char)*p < 0x80) {
			quote_byte(out, (unsigned char)*p++);
			continue;
		}
		n = (size_t)(json_utf8_end(p, end) - p);
		if (n)
			sbuf_add(out, (struct str){ p, n });
		else
			SBUF_LIT(out, "\xef\xbf\xbd");
		p += n ? n : 1;
	}
	sbuf_addc(out, '"');
}

static void write_real(struct sbuf *out, const struct json *v, enum style style)
{
	char text[40];
	int64_t whole;

	if (v->string.n && style != CANONICAL) {
		sbuf_add(out, v->string);
		return;
	}
	if (!isfinite(v->real)) {
		SBUF_LIT(out, "null");
		return;
	}
	if (json_is_whole(v, &whole) && (style == CANONICAL || llabs(whole) < INT64_C(1000000000000000))) {
		sbuf_addf(out, "%" PRId64, whole);
		return;
	}
	for (int digits = 15; digits <= 17; digits++) {
		double back;

		snprintf(text, sizeof text, "%.*g", digits, v->real);
		back = strtod(text, NULL);
		if (!(back < v->real) && !(back > v->real))
			break;
	}
	sbuf_add(out, str_of(text));
}

static void break_line(struct sbuf *out, enum style style, unsigned depth)
{
	if (style != PRETTY)
		return;
	sbuf_addc(out, '\n');
	for (unsigned i = 0; i < depth; i++)
		SBUF_LIT(out, "  ");
}

static void write_member(struct sbuf *out, const struct json *m, enum style style, unsigned depth)
{
	json_quote(out, m->name);
	sbuf_addc(out, ':');
	if (style == PRETTY)
		sbuf_addc(out, ' ');
	write_value(out, m, style, depth);
}

static void write_sorted(struct sbuf *out, const struct json *object, unsigned depth)
{
	struct json **sorted = json_sorted(object);

	sbuf_addc(out, '{');
	for (unsigned i = 0; i < object->n; i++) {
		if (i)
			sbuf_addc(out, ',');
		write_member(out, sorted[i], CANONICAL, depth + 1);
	}
	sbuf_addc(out, '}');
	mem_free(sorted);
}

static void write_container(struct sbuf *out, const struct json *v, enum style style, unsigned depth)
{
	bool is_object = v->type == JSON_OBJECT;

	sbuf_addc(out, is_object ? '{' : '[');
	for (const struct json *m = v->child; m; m = m->next) {
		if (m != v->child)
			sbuf_addc(out, ',');
		break_line(out, style, depth + 1);
		if (is_object)
			write_member(out, m, style, depth + 1);
		else
			write_value(out, m, style, depth + 1);
	}
	if (v->child)
		break_line(out, style, depth);
	sbuf_addc(out, is_object ? '}' : ']');
}

static void write_value(struct sbuf *out, const struct json *v, enum style style, unsigned depth)
{
	switch (v->type) {
	case JSON_NULL:
		SBUF_LIT(out, "null");
		return;
	case JSON_BOOL:
		sbuf_add(out, v->boolean ? STR("true") : STR("false"));
		return;
	case JSON_INT:
		sbuf_addf(out, "%" PRId64, v->integer);
		return;
	case JSON_REAL:
		write_real(out, v, style);
		return;
	case JSON_STRING:
		json_quote(out, v->string);
		return;
	case JSON_OBJECT:
		if (style == CANONICAL) {
			write_sorted(out, v, depth);
			return;
		}
		break;
	case JSON_ARRAY:
		break;
	}
	write_container(out, v, style, depth);
}

void json_write(struct sbuf *out, const struct json *v)
{
	write_value(out, v, COMPACT, 0);
}

void json_write_pretty(struct sbuf *out, const struct json *v)
{
	write_value(out, v, PRETTY, 0);
}

void json_canonical(struct sbuf *out, const struct json *v)
{
	write_value(out, v, CANONICAL, 0);
}

void json_brief_text(struct str s, char out[JSON_BRIEF])
{
	const char *end = s.n ? s.p + s.n : s.p;
	size_t n = 0;

	for (const char *p = s.p; p < end;) {
		size_t step = json_utf8_length(p, end);
		bool shown = step > 1 || (step == 1 && (unsigned char)*p >= 0x20 && *p != 0x7f);

		step = step ? step : 1;
		if (n + step > BRIEF_BYTES) {
			memcpy(out + n, "...", 3);
			n += 3;
			break;
		}
		memcpy(out + n, shown ? p : "?", step);
		n += step;
		p += step;
	}
	out[n] = '\0';
}

void json_brief(const struct json *v, char out[JSON_BRIEF])
{
	char text[JSON_BRIEF];
	struct sbuf b = { 0 };

	switch (v->type) {
	case JSON_STRING:
		json_brief_text(v->string, text);
		snprintf(out, JSON_BRIEF, "\"%.63s\"", text);
		return;
	case JSON_OBJECT:
		snprintf(out, JSON_BRIEF, "an object");
		return;
	case JSON_ARRAY:
		snprintf(out, JSON_BRIEF, "a list");
		return;
	case JSON_NULL: case JSON_BOOL: case JSON_INT: case JSON_REAL:
		break;
	}
	json_write(&b, v);
	json_brief_text(sbuf_str(&b), out);
	sbuf_free(&b);
}
