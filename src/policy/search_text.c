/*
 * search_text.c -- texts of pages made plain (search_engine.h). One pass: hostile texts cost no more than their length.
 */
#include "policy/search_engine.h"

struct cleaning {
	struct sbuf *out;
	const char *p, *end;
	unsigned n, most;                 /* code points written */
	bool is_space;                    /* a space is due before the next character */
	bool has_markup;
	bool no_close;                    /* no '>' comes any more */
	size_t start;                     /* of what we wrote in `out` */
};

void search_put_char(struct sbuf *out, unsigned c)
{
	if (c < 0x80) {
		sbuf_addc(out, (char)c);
		return;
	}
	if (c < 0x800) {
		sbuf_addc(out, (char)(0xc0 | c >> 6));
	} else {
		if (c < 0x10000) {
			sbuf_addc(out, (char)(0xe0 | c >> 12));
		} else {
			sbuf_addc(out, (char)(0xf0 | c >> 18));
			sbuf_addc(out, (char)(0x80 | (c >> 12 & 0x3f)));
		}
		sbuf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
	}
	sbuf_addc(out, (char)(0x80 | (c & 0x3f)));
}

static bool is_character(unsigned c)
{
	return c > 0 && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
}

static unsigned number_entity(struct str digits)
{
	unsigned base = 10, v = 0;

	if (digits.n > 0 && (digits.p[0] == 'x' || digits.p[0] == 'X')) {
		base = 16;
		digits = (struct str){ digits.p + 1, digits.n - 1 };
	}
	if (digits.n == 0 || digits.n > 7)
		return 0;
	for (size_t i = 0; i < digits.n; i++) {
		char c = str_lower(digits.p[i]);
		unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') :
			c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;

		if (digit >= base)
			return 0;
		v = v * base + digit;
	}
	return is_character(v) ? v : 0;
}

unsigned search_entity(const char **p, const char *end)
{
	static const struct { struct str name; unsigned c; } names[] = {
		{ STR("amp"), '&' }, { STR("lt"), '<' }, { STR("gt"), '>' }, { STR("quot"), '"' },
		{ STR("apos"), '\'' }, { STR("nbsp"), ' ' },
	};
	const char *start = *p + 1;
	size_t most = (size_t)(end - start) < 10 ? (size_t)(end - start) : 10;
	const char *semicolon = memchr(start, ';', most);
	struct str name;
	unsigned c = 0;

	if (!semicolon)
		return 0;
	name = (struct str){ start, (size_t)(semicolon - start) };
	if (name.n > 1 && name.p[0] == '#')
		c = number_entity((struct str){ name.p + 1, name.n - 1 });
	for (size_t i = 0; i < sizeof names / sizeof names[0] && c == 0; i++)
		if (str_equal(name, names[i].name))
			c = names[i].c;
	if (c)
		*p = semicolon + 1;
	return c;
}

static unsigned next_char(const char **p, const char *end)
{
	const unsigned char *u = (const unsigned char *)*p;
	unsigned c = u[0], more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;

	if ((size_t)(end - *p) <= more)
		more = (unsigned)(end - *p) - 1;
	if (more)
		c &= 0x3fU >> more;
	for (unsigned i = 1; i <= more; i++)
		c = c << 6 | (u[i] & 0x3f);
	*p += more + 1;
	return c;
}

static bool is_blank(unsigned c)
{
	return c <= 0x20 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
	       c == 0x202f || c == 0x205f || c == 0x3000 || c == 0x85;
}

/* What no reader sees: control characters, marks of direction, joiners, tags. Instructions are hidden in them. */
static bool is_unseen(unsigned c)
{
	return (c >= 0x7f && c < 0xa0) || c == 0xad || (c >= 0x200b && c <= 0x200f) || (c >= 0x202a && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) || c == 0x61c ||
	       (c >= 0xe0000 && c <= 0xe0fff) || !is_character(c);
}

/* No text of a page looks like the frame around it. */
static void unmake_mark(struct cleaning *c, unsigned code_point)
{
	static const struct str mark = STR("[webpage");
	struct str written = { c->out->p + c->start, c->out->n - c->start };

	if (code_point != 'e' && code_point != 'E')
		return;
	if (written.n >= mark.n && str_equal_nocase((struct str){ written.p + written.n - mark.n, mark.n }, mark))
		c->out->p[c->out->n - mark.n] = '(';
}

static void write_char(struct cleaning *c, unsigned code_point)
{
	if (is_blank(code_point)) {
		c->is_space = true;
		return;
	}
	if (is_unseen(code_point))
		return;
	if (c->is_space && c->n > 0) {
		sbuf_addc(c->out, ' ');
		c->n++;
	}
	c->is_space = false;
	if (c->n >= c->most)
		return;
	search_put_char(c->out, code_point);
	c->n++;
	unmake_mark(c, code_point);
}

static bool is_tag_start(char c)
{
	return c == '/' || c == '!' || c == '?' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* The tag that ends an element whose text is none: "</script" in any case. `end` when there is none. */
static const char *find_end_tag(const char *p, const char *end, struct str name)
{
	while ((p = memchr(p, '<', (size_t)(end - p)))) {
		struct str rest = { p + 1, (size_t)(end - p) - 1 };

		if (rest.n > name.n && rest.p[0] == '/' && str_equal_nocase((struct str){ rest.p + 1, name.n }, name))
			return p;
		p++;
	}
	return end;
}

/* c->p points at '<'. False: it is just that. */
static bool skip_tag(struct cleaning *c)
{
	static const struct str silent[] = { STR("script"), STR("style") };
	struct str tag = { c->p + 1, (size_t)(c->end - c->p) - 1 };
	const char *close;

	if (tag.n == 0 || !is_tag_start(tag.p[0]) || c->no_close)
		return false;
	close = memchr(tag.p, '>', tag.n);
	if (!close) {
		c->no_close = true;
		return false;
	}
	c->p = close + 1;
	for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++)
		if (tag.n > silent[i].n && str_equal_nocase((struct str){ tag.p, silent[i].n }, silent[i]))
			c->p = find_end_tag(c->p, c->end, silent[i]);
	return true;
}

unsigned search_clean(struct sbuf *out, struct str text, unsigned most, bool has_markup)
{
	struct cleaning c = { .out = out, .p = text.p, .end = text.n ? text.p + text.n : text.p, .most = most,
		.has_markup = has_markup, .start = out->n };

	while (c.p < c.end && c.n < most) {
		unsigned code_point = 0;

		if (has_markup && *c.p == '<' && skip_tag(&c))
			continue;
		if (has_markup && *c.p == '&')
			code_point = search_entity(&c.p, c.end);
		write_char(&c, code_point ? code_point : next_char(&c.p, c.end));
	}
	return c.n;
}
