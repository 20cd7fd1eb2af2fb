/*
 * search_atom.c -- entries of an Atom feed: what arXiv answers with.
 *
 * A strict reader of the part of XML that feeds are made of: elements, attributes, text, CDATA, comments, the
 * declaration. A DTD is refused, and with it every entity that is not XML's own, so nothing expands. Names are
 * compared without their prefix. Open elements stand on a stack; at most DEPTH_MAX.
 */
#include "policy/search_engine.h"

#define DEPTH_MAX 32

struct atom {
	struct search_results *r;
	const char *p, *end;
	struct str open[DEPTH_MAX];       /* names as written */
	unsigned depth;
	bool has_root;
	/* of the entry that is open */
	struct sbuf title, summary, id, link;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_name(char c)
{
	return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' ||
	       c == ':' || (unsigned char)c >= 0x80;
}

static void skip_space(struct atom *f)
{
	while (f->p < f->end && is_space(*f->p))
		f->p++;
}

static struct str read_name(struct atom *f)
{
	const char *start = f->p;

	while (f->p < f->end && is_name(*f->p))
		f->p++;
	return (struct str){ start, (size_t)(f->p - start) };
}

static bool is_local(struct str name, struct str wanted)
{
	size_t colon = str_find(name, ':');

	if (colon < name.n)
		name = (struct str){ name.p + colon + 1, name.n - colon - 1 };
	return str_equal(name, wanted);
}

static bool starts(const struct atom *f, struct str what)
{
	return str_starts((struct str){ f->p, (size_t)(f->end - f->p) }, what);
}

/* Moves behind `mark`; false when there is none. *inside: what is before it. */
static bool skip_past(struct atom *f, struct str mark, struct str *inside)
{
	const char *start = f->p;

	for (const char *p = f->p; (p = memchr(p, mark.p[0], (size_t)(f->end - p))); p++) {
		if (!str_starts((struct str){ p, (size_t)(f->end - p) }, mark))
			continue;
		*inside = (struct str){ start, (size_t)(p - start) };
		f->p = p + mark.n;
		return true;
	}
	return false;
}

/* Where the text that is read belongs, or NULL: feed > entry > title. */
static struct sbuf *place_of(struct atom *f)
{
	if (f->depth < 3 || !is_local(f->open[1], STR("entry")))
		return NULL;
	if (is_local(f->open[2], STR("title")))
		return &f->title;
	if (is_local(f->open[2], STR("summary")))
		return &f->summary;
	return is_local(f->open[2], STR("id")) ? &f->id : NULL;
}

/* An entity that XML does not have is an error. */
static bool decode(struct str text, struct sbuf *to)
{
	const char *p = text.p, *end = text.n ? text.p + text.n : text.p;

	while (p < end) {
		const char *entity = memchr(p, '&', (size_t)(end - p));
		unsigned c;

		sbuf_add(to, (struct str){ p, (size_t)((entity ? entity : end) - p) });
		if (!entity)
			return true;
		p = entity;
		c = search_entity(&p, end);
		if (c == 0)
			return false;
		search_put_char(to, c);
	}
	return true;
}

/* Up to the next '<'. What is no entry's is looked at no further. */
static bool read_text(struct atom *f)
{
	struct sbuf *to = place_of(f);
	const char *stop = memchr(f->p, '<', (size_t)(f->end - f->p));
	struct str text;

	stop = stop ? stop : f->end;
	text = (struct str){ f->p, (size_t)(stop - f->p) };
	f->p = stop;
	for (size_t i = 0; f->depth == 0 && i < text.n; i++)
		if (!is_space(text.p[i]))
			return false;
	return !to || decode(text, to);
}

static void begin_entry(struct atom *f)
{
	f->title.n = f->summary.n = f->id.n = f->link.n = 0;
}

static void end_entry(struct atom *f)
{
	search_results_add(f->r, sbuf_str(&f->title), sbuf_str(f->link.n ? &f->link : &f->id), sbuf_str(&f->summary));
}

static bool close_element(struct atom *f, struct str name)
{
	if (f->depth == 0 || !str_equal(f->open[f->depth - 1], name))
		return false;
	if (f->depth == 2 && is_local(name, STR("entry")))
		end_entry(f);
	f->depth--;
	return true;
}

/* Attributes up to '>' or "/>". href and rel are those of a link. */
static bool read_attributes(struct atom *f, struct str *href, struct str *rel)
{
	for (;;) {
		const char *before = f->p, *close;
		struct str name, value;

		skip_space(f);
		if (f->p == f->end)
			return false;
		if (*f->p == '>' || *f->p == '/')
			return true;
		name = read_name(f);
		if (name.n == 0 || before == name.p || f->end - f->p < 2 || f->p[0] != '=' ||
		    (f->p[1] != '"' && f->p[1] != '\''))
			return false;
		close = memchr(f->p + 2, f->p[1], (size_t)(f->end - f->p) - 2);
		if (!close)
			return false;
		value = (struct str){ f->p + 2, (size_t)(close - f->p) - 2 };
		if (str_find(value, '<') < value.n)
			return false;
		if (str_equal(name, STR("href")))
			*href = value;
		else if (str_equal(name, STR("rel")))
			*rel = value;
		f->p = close + 1;
	}
}

static bool open_element(struct atom *f)
{
	struct str href = { NULL, 0 }, rel = STR("alternate");
	struct str name = read_name(f);
	bool is_root = f->depth == 0;

	if (name.n == 0 || f->depth == DEPTH_MAX || (is_root && (f->has_root || !is_local(name, STR("feed")))))
		return false;
	f->has_root = true;
	f->open[f->depth++] = name;
	if (f->depth == 2 && is_local(name, STR("entry")))
		begin_entry(f);
	if (!read_attributes(f, &href, &rel))
		return false;
	if (f->depth == 3 && is_local(name, STR("link")) && str_equal(rel, STR("alternate")) && f->link.n == 0 &&
	    !decode(href, &f->link))
		return false;
	if (*f->p == '/') {
		f->p++;
		if (f->p == f->end || !close_element(f, name))
			return false;
	}
	return f->p < f->end && *f->p++ == '>';
}

static bool read_cdata(struct atom *f)
{
	struct sbuf *to = place_of(f);
	struct str inside;

	if (f->depth == 0 || !skip_past(f, STR("]]>"), &inside))
		return false;
	if (to)
		sbuf_add(to, inside);
	return true;
}

/* f->p points behind '<'. */
static bool read_markup(struct atom *f)
{
	struct str inside;

	if (starts(f, STR("![CDATA["))) {
		f->p += 8;
		return read_cdata(f);
	}
	if (starts(f, STR("!--"))) {
		f->p += 3;
		return skip_past(f, STR("-->"), &inside);
	}
	if (starts(f, STR("?")))
		return skip_past(f, STR("?>"), &inside);
	if (!starts(f, STR("/")))
		return open_element(f);
	f->p++;
	inside = read_name(f);
	skip_space(f);
	return f->p < f->end && *f->p++ == '>' && close_element(f, inside);
}

static bool read_feed(struct atom *f)
{
	while (f->p < f->end) {
		if (*f->p != '<') {
			if (!read_text(f))
				return false;
			continue;
		}
		f->p++;
		if (!read_markup(f))
			return false;
	}
	return f->has_root && f->depth == 0;
}

bool search_read_atom(struct search_results *r, struct str answer)
{
	struct atom f = { .r = r };
	bool is_good;

	if (answer.n == 0 || !str_is_utf8(answer))
		return false;
	if (str_starts(answer, STR("\xef\xbb\xbf")))
		answer = (struct str){ answer.p + 3, answer.n - 3 };
	f.p = answer.p;
	f.end = answer.p + answer.n;
	is_good = read_feed(&f);
	if (!is_good)
		r->n = 0;
	sbuf_free(&f.title);
	sbuf_free(&f.summary);
	sbuf_free(&f.id);
	sbuf_free(&f.link);
	return is_good;
}
