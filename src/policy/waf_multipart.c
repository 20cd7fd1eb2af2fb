#include "policy/waf_multipart.h"
#include <string.h>

#define BOUNDARY_MAX 256

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
