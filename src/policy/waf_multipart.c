#include "policy/waf_multipart.h"
#include <string.h>

#define BOUNDARY_MAX 256
#define PARTS_MAX 1000                    /* that are made readable: as many as there may be arguments */

static size_t find_text(struct str s, const char *what, size_t n)
{
	const char *at = s.n >= n ? memmem(s.p, s.n, what, n) : NULL;

	return at ? (size_t)(at - s.p) : s.n;
}

static struct str skip(struct str s, size_t n)
{
	return n < s.n ? (struct str){ s.p + n, s.n - n } : (struct str){ s.p + s.n, 0 };
}

/* ";filename=" or ";filename*=", but not within quotes. */
static bool names_file(struct str head)
{
	static const struct str name = { "filename", 8 };
	bool is_quoted = false;

	for (; head.n > name.n; head = skip(head, 1)) {
		struct str word = skip(head, 1);

		if (head.p[0] == '"')
			is_quoted = !is_quoted;
		if (is_quoted || head.p[0] != ';')
			continue;
		while (word.n > 0 && (word.p[0] == ' ' || word.p[0] == '\t'))
			word = skip(word, 1);
		if (word.n > name.n && str_equal_nocase((struct str){ word.p, name.n }, name) &&
		    (word.p[name.n] == '=' || word.p[name.n] == '*' || word.p[name.n] == ' '))
			return true;
	}
	return false;
}

/* "boundary=x" or "boundary="x"", with "--" before it. n == 0: there is none. */
static size_t read_boundary(struct str type, char out[BOUNDARY_MAX + 2])
{
	static const struct str name = { "boundary=", 9 };
	size_t n = 0;

	while (type.n > name.n && !str_equal_nocase((struct str){ type.p, name.n }, name))
		type = skip(type, 1);
	type = skip(type, name.n);
	if (type.n > 0 && type.p[0] == '"') {
		type = skip(type, 1);
		n = str_find(type, '"');
	} else {
		while (n < type.n && type.p[n] != ';' && type.p[n] != ' ' && type.p[n] != '\t')
			n++;
	}
	if (n == 0 || n > BOUNDARY_MAX)
		return 0;
	memcpy(out, "--", 2);
	memcpy(out + 2, type.p, n);
	return n + 2;
}

/* `part`: what stands between two boundaries. */
static size_t measure(struct str part)
{
	size_t crlf = find_text(part, "\r\n\r\n", 4), lf = find_text(part, "\n\n", 2);
	struct str head = { part.p, crlf < lf ? crlf : lf };

	if (head.n == part.n)
		return part.n;
	return names_file(head) ? 0 : part.n - head.n;
}

size_t waf_multipart_fields(struct str type, struct str body)
{
	char boundary[BOUNDARY_MAX + 2];
	size_t n = read_boundary(type, boundary), sum = 0, at;

	if (n == 0)
		return body.n;
	at = find_text(body, boundary, n);
	if (at == body.n)
		return body.n;
	for (body = skip(body, at + n); body.n > 0; body = skip(body, at + n)) {
		at = find_text(body, boundary, n);
		sum += measure((struct str){ body.p, at });
	}
	return sum;
}

/* ---------- as a form ---------- */

static const struct str form = { "multipart/form-data", 19 };

static bool begins_with(struct str s, struct str with)
{
	return s.n >= with.n && str_equal_nocase((struct str){ s.p, with.n }, with);
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/*
 * A parameter "; name=value" at the beginning of s, whose value has such letters only; its length, or 0 when it is
 * another one or an odd one. *value: without its quotes.
 */
static size_t measure_parameter(struct str s, struct str name, const char *letters, struct str *value)
{
	size_t n = 1;
	bool is_quoted;

	while (n < s.n && (s.p[n] == ' ' || s.p[n] == '\t'))
		n++;
	if (!begins_with(skip(s, n), name))
		return 0;
	n += name.n;
	is_quoted = n < s.n && s.p[n] == '"';
	n += is_quoted;
	*value = (struct str){ s.p + n, 0 };
	while (n < s.n && strchr(letters, s.p[n]) && s.p[n] != '\0')
		n++;
	value->n = (size_t)(s.p + n - value->p);
	if (value->n == 0 || (is_quoted && (n == s.n || s.p[n++] != '"')))
		return 0;
	return n == s.n || s.p[n] == ';' ? n : 0;
}

/*
 * Without '; type="application/json"', what the first part is: rules take it for a second type that is hidden in the
 * first one. And a boundary without its quotes, which the library distrusts in forms and mail programs always write.
 */
struct str waf_multipart_form_type(struct arena *a, struct str type)
{
	size_t end = str_find(type, ';'), n;
	struct str kind = str_trim((struct str){ type.p, end }), value, made;
	struct sbuf out = { 0 };

	if (!str_equal_nocase(kind, STR("multipart/related")) && !str_equal_nocase(kind, STR("multipart/mixed")))
		return (struct str){ NULL, 0 };
	sbuf_add(&out, form);
	for (size_t at = end; at < type.n; at += n) {
		struct str rest = skip(type, at);

		n = rest.p[0] == ';' ? measure_parameter(rest, STR("type="), LETTERS "/.+-", &value) : 0;
		if (n > 0)
			continue;
		n = rest.p[0] == ';' ? measure_parameter(rest, STR("boundary="), LETTERS "'()+_-./:=?", &value) : 0;
		if (n > 0)
			sbuf_addf(&out, "; boundary=%.*s", STR_FMT(value));
		else
			sbuf_addc(&out, rest.p[0]);
		n += n == 0;
	}
	made = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return made;
}

/* The line that begins at s, with its end. */
static struct str first_line(struct str s)
{
	size_t n = str_find(s, '\n');

	return (struct str){ s.p, n < s.n ? n + 1 : s.n };
}

/* "name=" as a parameter of its own: with something before it that ends the one before. */
static bool has_name(struct str line)
{
	static const struct str name = { "name", 4 };

	for (size_t i = 1; i + name.n < line.n; i++)
		if (begins_with(skip(line, i), name) && memchr("; \t", line.p[i - 1], 3) &&
		    memchr("= \t", line.p[i + name.n], 3))
			return true;
	return false;
}

/* "Content-Disposition: attachment; filename=x" becomes that of a field or a file. */
static void put_disposition(struct sbuf *out, struct str line)
{
	size_t colon = str_find(line, ':'), end = 0;
	struct str value = skip(line, colon + 1);

	while (end < value.n && !memchr(";\r\n", value.p[end], 3))
		end++;
	sbuf_add(out, STR("Content-Disposition: form-data"));
	if (!has_name(line))
		sbuf_add(out, STR("; name=\"part\""));
	sbuf_add(out, skip(value, end));
}

/* Of a part that has no name; what says nothing is text. */
static bool holds_text(struct str type)
{
	static const struct str kinds[] = { { "text/", 5 }, { "application/json", 16 }, { "application/xml", 15 },
		{ "application/x-www-form-urlencoded", 33 }, { "application/http", 16 } };
	struct str kind = str_trim((struct str){ type.p, str_find(type, ';') });

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (begins_with(kind, kinds[i]))
			return true;
	return kind.n == 0 || memchr(kind.p, '+', kind.n);
}

/* The head of a part; returns its length, up to its blank line. */
static size_t put_head(struct sbuf *out, struct str part)
{
	static const struct str disposition = { "content-disposition:", 20 }, kind = { "content-type:", 13 };
	bool is_named = false, is_text = true;
	size_t at = 0;

	while (at < part.n) {
		struct str line = first_line(skip(part, at));

		if (line.p[0] == '\n' || str_equal(line, STR("\r\n")))
			break;
		at += line.n;
		if (begins_with(line, kind))
			is_text = holds_text(str_trim(skip(line, kind.n)));
		if (!begins_with(line, disposition)) {
			sbuf_add(out, line);
			continue;
		}
		is_named = true;
		put_disposition(out, line);
	}
	if (!is_named) {
		sbuf_add(out, STR("Content-Disposition: form-data; name=\"part\""));
		sbuf_add(out, is_text ? STR("\r\n") : STR("; filename=\"part\"\r\n"));
	}
	return at;
}

/* Where the next boundary begins that has a line of its own; body.n when there is none. */
static size_t find_boundary(struct str body, size_t from, struct str boundary)
{
	while (from < body.n) {
		size_t at = from + find_text(skip(body, from), boundary.p, boundary.n);

		if (at >= body.n || at == 0 || body.p[at - 1] == '\n')
			return at;
		from = at + boundary.n;
	}
	return body.n;
}

bool waf_multipart_is_ambiguous(struct str type, struct str body)
{
	static const struct str disposition = { "content-disposition", 19 };
	char text[BOUNDARY_MAX + 2];
	struct str boundary = { text, read_boundary(type, text) };
	size_t at = boundary.n ? find_boundary(body, 0, boundary) : body.n;

	for (size_t next; at < body.n; at = next) {
		next = find_boundary(body, at + boundary.n, boundary);
		struct str rest = { body.p + at, next - at }, line = first_line(rest);
		unsigned n = 0;

		for (rest = skip(rest, line.n); rest.n > 0; rest = skip(rest, line.n)) {
			line = first_line(rest);
			if (line.p[0] == '\n' || str_equal(line, STR("\r\n")))
				break;
			n += begins_with(line, disposition);
		}
		if (n > 1)
			return true;
	}
	return false;
}

void waf_multipart_form_body(struct sbuf *out, struct str type, struct str body)
{
	char text[BOUNDARY_MAX + 2];
	struct str boundary = { text, read_boundary(type, text) };
	size_t done = 0, at = boundary.n ? find_boundary(body, 0, boundary) : body.n;

	for (unsigned n = 0; at < body.n && n < PARTS_MAX; n++) {
		struct str line = first_line(skip(body, at));

		sbuf_add(out, (struct str){ body.p + done, at + line.n - done });
		done = at + line.n;
		if (done == body.n || begins_with(skip(line, boundary.n), STR("--")))
			break;
		at = find_boundary(body, done, boundary);
		done += put_head(out, (struct str){ body.p + done, at - done });
	}
	sbuf_add(out, skip(body, done));
}
