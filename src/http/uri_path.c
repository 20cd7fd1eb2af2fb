/*
 * uri_path.c -- the normal form of paths.
 *
 * Nearly every path is in normal form already: one scan, 16 bytes at a time, proves it and nothing is copied. The
 * others are rewritten once into the arena, segment by segment.
 */
#include "http/scan.h"
#include "http/uri.h"

/* How a path begins that needs no rewriting: `plain` bytes up to the end, the '?' or the first byte of interest. */
struct glance {
	size_t plain;
	bool has_pair;                    /* "//" or "/." among them */
};

#if defined(__SSE2__)
static __m128i equal_to(__m128i v, char c)
{
	return _mm_cmpeq_epi8(v, _mm_set1_epi8(c));
}

/* 16 bytes at p. carry: whether the byte before p is a slash. */
static inline size_t glance_block(const char *p, bool *carry, bool *has_pair)
{
	__m128i v = _mm_loadu_si128((const void *)p);
	__m128i inside = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8(0x20)),
	                               _mm_cmplt_epi8(v, _mm_set1_epi8(0x7f)));
	__m128i special = _mm_or_si128(_mm_or_si128(equal_to(v, '%'), equal_to(v, '?')),
	                               _mm_or_si128(equal_to(v, '#'), equal_to(v, '\\')));
	__m128i slash = equal_to(v, '/');
	unsigned slashes = (unsigned)_mm_movemask_epi8(slash);
	unsigned seconds = (unsigned)_mm_movemask_epi8(_mm_or_si128(slash, equal_to(v, '.')));
	unsigned stops = (unsigned)_mm_movemask_epi8(_mm_andnot_si128(special, inside)) ^ 0xffffU;
	unsigned pairs = ((slashes << 1) | *carry) & seconds;
	size_t plain = SCAN_BLOCK;

	if (stops) {
		plain = (size_t)__builtin_ctz(stops);
		pairs &= (1U << plain) - 1;
	}
	*carry = slashes >> 15 & 1;
	*has_pair |= pairs != 0;
	return plain;
}
#endif

static struct glance glance_at(const char *p, size_t n)
{
	struct glance g = { 0, false };
	bool after_slash = false;

	/* A pair across the edges of blocks is seen by the carry. */
#if defined(__SSE2__)
	while (n - g.plain >= SCAN_BLOCK) {
		size_t plain = glance_block(p + g.plain, &after_slash, &g.has_pair);

		g.plain += plain;
		if (plain < SCAN_BLOCK)
			return g;
	}
	/* The tail once more as a block that ends with it: what is before the tail stops nothing. */
	if (g.plain > 0 && g.plain < n) {
		after_slash = false;
		g.plain = n - SCAN_BLOCK;
		g.plain += glance_block(p + g.plain, &after_slash, &g.has_pair);
		return g;
	}
#endif
	for (; g.plain < n && SCAN_IS(p[g.plain], SCAN_PLAIN); g.plain++) {
		char c = p[g.plain];

		g.has_pair |= after_slash && (c == '/' || c == '.');
		after_slash = c == '/';
	}
	return g;
}

/* A space stops the glance, so that a block may reach past the end. */
static inline struct glance glance_before_space(const char *p, size_t n)
{
#if defined(__SSE2__)
	struct glance g = { 0, false };
	bool after_slash = false;
	size_t plain;

	do {
		plain = glance_block(p + g.plain, &after_slash, &g.has_pair);
		g.plain += plain;
	} while (plain == SCAN_BLOCK);
	(void)n;
	return g;
#else
	return glance_at(p, n);
#endif
}

struct rewriter {
	char *out;
	size_t n;                         /* bytes written */
	size_t segment;                   /* where the segment under way starts */
	bool has_escaped_slash;           /* in that segment */
	bool has_parameters;              /* it holds a ';' */
};

static bool is_dots(const char *p, size_t n)
{
	return (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.');
}

/*
 * Whether a server that decodes %2F or %5C, or that cuts parameters off at ';', would find a dot segment inside this
 * one. Escapes are in upper case here.
 */
static bool hides_dots(const char *p, size_t n)
{
	size_t start = 0, stop = 0;
	bool is_cut = false;

	for (size_t i = 0; i <= n; i++) {
		bool is_separator = i == n || (n - i >= 3 && (memcmp(p + i, "%2F", 3) == 0 ||
		                                              memcmp(p + i, "%5C", 3) == 0));

		if (!is_separator) {
			if (p[i] == ';' && !is_cut) {
				is_cut = true;
				stop = i;
			}
			continue;
		}
		if (is_dots(p + start, (is_cut ? stop : i) - start))
			return true;
		is_cut = false;
		start = i + 3;
		i += 2;
	}
	return false;
}

static bool close_segment(struct rewriter *w, bool is_last)
{
	const char *p = w->out + w->segment;
	size_t n = w->n - w->segment;
	bool is_dot = is_dots(p, n);

	if (!is_dot && (w->has_escaped_slash || w->has_parameters) && hides_dots(p, n))
		return false;
	w->has_escaped_slash = w->has_parameters = false;
	if (is_dot && n == 2) {
		if (w->segment == 1)
			return false;
		for (w->segment--; w->out[w->segment - 1] != '/';)
			w->segment--;
	}
	if (is_dot || n == 0) {
		w->n = w->segment;
		return true;
	}
	if (!is_last)
		w->out[w->n++] = '/';
	w->segment = w->n;
	return true;
}

/* The three bytes of an escape at p. */
static bool take_escape(struct rewriter *w, const char *p)
{
	static const char digits[] = "0123456789ABCDEF";
	int high = scan_hex(p[1]), low = scan_hex(p[2]), byte;

	if (high < 0 || low < 0)
		return false;
	byte = high << 4 | low;
	if (byte < 0x20 || byte == 0x7f)
		return false;
	if (SCAN_IS(byte, SCAN_UNRESERVED)) {
		w->out[w->n++] = (char)byte;
		return true;
	}
	w->has_escaped_slash |= byte == '/' || byte == '\\';
	w->out[w->n++] = '%';
	w->out[w->n++] = digits[high];
	w->out[w->n++] = digits[low];
	return true;
}

static bool rewrite(struct rewriter *w, const char *p, size_t n)
{
	w->out[0] = '/';
	w->n = w->segment = 1;
	for (size_t i = 1; i < n; i++) {
		if (p[i] == '/') {
			if (!close_segment(w, false))
				return false;
		} else if (p[i] == '%') {
			if (n - i < 3 || !take_escape(w, p + i))
				return false;
			i += 2;
		} else if (SCAN_IS(p[i], SCAN_PLAIN)) {
			w->has_parameters |= p[i] == ';';
			w->out[w->n++] = p[i];
		} else {
			return false;
		}
	}
	return close_segment(w, true);
}

bool uri_is_clean(struct str s)
{
	return s.n == 0 || scan_query(s.p, s.p + s.n) == s.p + s.n;
}

/* Not inline: it would cost the usual case. */
__attribute__((noinline)) static enum uri_result rewrite_path(struct arena *a, struct str raw, struct str *path)
{
	struct rewriter w = { .out = arena_take(a, raw.n + 1) };

	if (!rewrite(&w, raw.p, raw.n))
		return URI_BAD;
	*path = (struct str){ w.out, w.n };
	return URI_OK;
}

static inline enum uri_result split(struct arena *a, struct str target, struct glance g, struct str *parts[2])
{
	struct str *path = parts[0], *query = parts[1];
	size_t n = g.plain;

	*query = (struct str){ NULL, 0 };
	if (target.n == 0 || target.p[0] != '/')
		return URI_BAD;
	if (n < target.n && target.p[n] != '?')
		n += str_find((struct str){ target.p + n, target.n - n }, '?');
	if (n < target.n) {
		const char *start = target.p + n + 1, *end = target.p + target.n;

		if (scan_query(start, end) != end)
			return URI_BAD;
		*query = (struct str){ start, (size_t)(end - start) };
	}
	*path = (struct str){ target.p, n };
	return n == g.plain && !g.has_pair ? URI_OK : rewrite_path(a, *path, path);
}

enum uri_result uri_normalise(struct arena *a, struct str target, struct str *path, struct str *query)
{
	return split(a, target, glance_at(target.p, target.n), (struct str *[]){ path, query });
}

enum uri_result uri_normalise_spaced(struct arena *a, struct str target, struct str *path, struct str *query)
{
	return split(a, target, glance_before_space(target.p, target.n), (struct str *[]){ path, query });
}
